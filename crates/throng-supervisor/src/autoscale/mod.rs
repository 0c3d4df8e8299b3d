//! The controller that carries out `x-throng.autoscale`: once per sync period it makes of what is seen the case that
//! `throng autoscale decide` takes, decides with the same function, and remembers what Kubernetes' controller remembers.
//!
//! ```text
//!  actor: due ─> Inquiry ─> gather (a task: usage, endpoints) ─> Gathered ─> take_in ─> decide ─> wanted count
//! ```
//!
//! Nothing here does I/O but `gather` and `ask`. As in Kubernetes only the count itself outlives the process: a new
//! supervisor first notes the count that it finds as a recommendation, so that it does not scale down sooner than the
//! old one would have.

mod ask;
mod gather;
pub mod pods;
mod readings;
mod recommend;
mod series;
mod show;
#[cfg(test)]
mod tests;
mod tls;

pub use gather::{Gathered, Inquiry, Sighting, gather};
pub use recommend::Recommenders;
pub use series::Found;

use ask::Place;
use gather::{Series, Subject};
use pods::Noted;
use readings::Readings;
use show::Shown;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Duration, Instant};
use throng_autoscale::selector::Selector;
use throng_autoscale::spec::{Metric, RawMetric, RawSpec};
use throng_autoscale::{Age, Answer, Case, Controller, History, Pod, Quantity, ScaleEvents, Spec, decide};
use throng_model::app::Service;
use throng_model::autoscale::{Autoscale, AutoscalerStatus, MetricSource, PATH_LABEL, PORT_LABEL, Reading};

const DEFAULT_PATH: &str = "/metrics";
/// Looks in a row without a usable metric before somebody is told: none is known yet of what has just started.
const FAILED_BEFORE_TOLD: u32 = 3;

/// The autoscalers of an app, by service.
#[derive(Default)]
pub struct Autoscalers(BTreeMap<String, Autoscaler>);

impl Autoscalers {
    /// Has exactly the autoscalers that these services ask for. One that stays remembers.
    pub fn define<'a>(&mut self, services: impl Iterator<Item = (&'a String, &'a Service)>, now: Instant) {
        let mut before = std::mem::take(&mut self.0);
        for (name, service) in services {
            let Some(wish) = &service.autoscale else { continue };
            match Autoscaler::new(service, wish, before.remove(name), now) {
                Ok(autoscaler) => drop(self.0.insert(name.clone(), autoscaler)),
                // What is read from files is checked there; this was kept by another version.
                Err(error) => tracing::error!("the autoscaler of {name} cannot be taken up: {error}"),
            }
        }
    }

    pub fn get(&self, service: &str) -> Option<&Autoscaler> {
        self.0.get(service)
    }

    pub fn get_mut(&mut self, service: &str) -> Option<&mut Autoscaler> {
        self.0.get_mut(service)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&String, &Autoscaler)> {
        self.0.iter()
    }

    /// When something is to be looked at next.
    pub fn next(&self) -> Option<Instant> {
        self.0.values().filter(|one| !one.busy).map(Autoscaler::next).min()
    }

    /// Services that something is to be looked at of now.
    pub fn due(&self, now: Instant) -> Vec<String> {
        let due = self.0.iter().filter(|(_, one)| !one.busy && one.next() <= now);
        due.map(|(name, _)| name.clone()).collect()
    }
}

/// Where the values of a metric come from.
enum Origin {
    Replicas {
        port: u16,
        path: String,
    },
    Place(Place),
    /// The proxy in front of a service of the app.
    Own {
        service: String,
    },
}

/// A metric whose values are asked for.
struct Asked {
    metric: usize,
    series: Series,
    reading: Option<Reading>,
    origin: Origin,
}

/// What is noted of one replica.
#[derive(Default)]
struct Note {
    readings: Option<Readings>,
    ready: bool,
    changed: Option<Instant>,
}

/// A replica that an inquiry is about.
pub struct Subjected {
    pub ordinal: u32,
    pub address: Option<Ipv4Addr>,
}

pub struct Autoscaler {
    wish: Autoscale,
    spec: Spec,
    controller: Controller,
    asked: Vec<Asked>,
    history: History,
    epoch: Instant,
    notes: BTreeMap<u32, Note>,
    /// Counters as they were seen last.
    counters: BTreeMap<Subject, (Instant, BTreeMap<String, f64>)>,
    values: BTreeMap<Subject, Result<Vec<f64>, String>>,
    look_at: Instant,
    read_at: Instant,
    /// Something is being gathered for it.
    busy: bool,
    failed: u32,
    shown: Shown,
    /// Tasks that wait for a request while there are no replicas; they end with this.
    watchers: tokio::task::JoinSet<()>,
}

/// What follows from one look.
pub struct Decision {
    pub replicas: u32,
    pub explanation: String,
    /// Something that somebody should be told.
    pub told: Option<Told>,
}

pub enum Told {
    /// No usable metric; the count stays.
    Failing(String),
    /// There is one again.
    Recovered,
}

impl Autoscaler {
    fn new(
        service: &Service,
        wish: &Autoscale,
        before: Option<Autoscaler>,
        now: Instant,
    ) -> Result<Autoscaler, String> {
        let raw: RawSpec = serde_json::from_value(wish.spec.clone()).map_err(|error| error.to_string())?;
        let metrics = raw.metrics.clone().unwrap_or_default();
        let options = &wish.controller;
        let spec = Spec::new(raw, options.configurable_tolerance).map_err(|violations| {
            violations.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        })?;
        let controller = Controller {
            tolerance: options.tolerance,
            cpu_initialization_period: options.cpu_initialization_period.into(),
            initial_readiness_delay: options.initial_readiness_delay.into(),
            downscale_stabilization: options.downscale_stabilization.into(),
            configurable_tolerance: options.configurable_tolerance,
        };
        let asked = asked(service, &spec, &metrics, &wish.sources)?;
        if let Some(mut before) = before {
            before.history.follow(&spec, &controller);
            if before.wish != *wish {
                // The metrics of another spec stand at other places of it.
                (before.counters, before.values) = Default::default();
                (before.look_at, before.read_at) = (now, now);
                before.shown.respecified();
            }
            return Ok(Autoscaler { wish: wish.clone(), spec, controller, asked, ..before });
        }
        Ok(Autoscaler {
            history: History::new(&spec, &controller),
            wish: wish.clone(),
            spec,
            controller,
            asked,
            epoch: now,
            notes: BTreeMap::new(),
            counters: BTreeMap::new(),
            values: BTreeMap::new(),
            look_at: now,
            read_at: now,
            busy: false,
            failed: 0,
            shown: Shown::default(),
            watchers: tokio::task::JoinSet::new(),
        })
    }

    fn next(&self) -> Instant {
        if self.measures() { self.look_at.min(self.read_at) } else { self.look_at }
    }

    /// Whether what replicas use counts: it is read of each of them.
    fn measures(&self) -> bool {
        let measured =
            |metric: &Metric| matches!(metric, Metric::Resource { .. } | Metric::ContainerResource { .. });
        self.spec.metrics.iter().any(measured)
    }

    pub fn min_replicas(&self) -> i32 {
        self.spec.min_replicas
    }

    pub fn max_replicas(&self) -> i32 {
        self.spec.max_replicas
    }

    /// Whether the last look had a usable metric.
    pub fn is_active(&self) -> bool {
        self.failed == 0
    }

    /// Whether a request at its service's address is to make a replica when there are none.
    pub fn wakes_up(&self) -> bool {
        self.spec.min_replicas == 0
    }

    /// Begins an inquiry at `now`, and says whether a decision is to follow from it. Until [`Autoscaler::take_in`] no
    /// other one begins.
    pub fn begin(&mut self, replicas: &[Subjected], now: Instant) -> (bool, bool, Inquiry) {
        let (looks, reads) = (self.look_at <= now, self.measures() && self.read_at <= now);
        let advance = |at: Instant, period: Duration| {
            // What could not be done in time is not made up for.
            if at + period > now { at + period } else { now + period }
        };
        let period = self.wish.controller.sync_period;
        let mut inquiry = Inquiry { within: period, ..Inquiry::default() };
        if reads {
            self.read_at = advance(self.read_at, self.wish.controller.resolution());
        }
        if looks {
            self.look_at = advance(self.look_at, period);
            for asked in &self.asked {
                let mut ask = |place: Place, ordinal: Option<u32>| {
                    let wanted = inquiry.asks.entry(place).or_default();
                    wanted.push(((asked.metric, ordinal), asked.series.clone()));
                };
                match &asked.origin {
                    Origin::Place(place) => ask(place.clone(), None),
                    Origin::Replicas { port, path } => {
                        for replica in replicas {
                            let Some(address) = replica.address else { continue };
                            let address = SocketAddrV4::new(address, *port);
                            ask(Place::Replica { address, path: path.clone() }, Some(replica.ordinal));
                        }
                    }
                    Origin::Own { .. } => {}
                }
            }
        }
        self.busy = true;
        (looks, reads, inquiry)
    }

    /// Metrics that the proxies of services tell: place in the spec, service, and name.
    pub fn own(&self) -> impl Iterator<Item = (usize, &str, &str)> {
        self.asked.iter().filter_map(|asked| match &asked.origin {
            Origin::Own { service } => Some((asked.metric, service.as_str(), asked.series.name.as_str())),
            _ => None,
        })
    }

    /// Looks again now instead of at the end of the period.
    pub fn hurry(&mut self, now: Instant) {
        self.look_at = now;
    }

    /// An inquiry has ended without a result.
    pub fn give_up(&mut self) {
        self.busy = false;
    }

    /// Takes in what was gathered. `lived`: for how long a replica of an ordinal had run, of those that still run.
    pub fn take_in(&mut self, gathered: Gathered, lived: impl Fn(u32) -> Option<Duration>) {
        self.busy = false;
        let resolution = self.wish.controller.resolution();
        for (ordinal, generation, statistics) in gathered.usage {
            let Some(statistics) = statistics else { continue };
            let note = self.notes.entry(ordinal).or_default();
            let last = note.readings.take();
            let next = Readings::next(last, generation, gathered.at, &statistics, lived(ordinal), resolution);
            note.readings = Some(next);
        }
        for (subject, (at, found)) in gathered.found {
            let reading =
                self.asked.iter().find(|asked| asked.metric == subject.0).map(|asked| asked.reading);
            let Some(reading) = reading else { continue };
            let value = found.and_then(|found| self.value(subject, at, found, reading));
            self.values.insert(subject, value);
        }
    }

    /// Numbers as they are, or what they grow by in a second.
    fn value(
        &mut self,
        subject: Subject,
        at: Instant,
        found: Found,
        reading: Option<Reading>,
    ) -> Result<Vec<f64>, String> {
        let rate = reading.map_or(found.counter, |reading| reading == Reading::Rate);
        if !rate {
            return Ok(found.series.into_values().collect());
        }
        let before = self.counters.insert(subject, (at, found.series.clone()));
        let Some((then, old)) = before else {
            return Err("it is a counter, whose rate is known from the second look on".into());
        };
        let seconds = at.saturating_duration_since(then).as_secs_f64().max(1e-3);
        let grown = found.series.iter().map(|(labels, new)| {
            // One that fell has begun anew, and one that is new began at zero.
            let old = old.get(labels).filter(|old| *old <= new).unwrap_or(&0.0);
            (new - old) / seconds
        });
        Ok(grown.collect())
    }

    /// Notes which replicas are ready; `present` are all that there are.
    pub fn note_ready(&mut self, present: &[u32], ready: &[(u32, Ipv4Addr)], now: Instant) {
        self.notes.retain(|ordinal, _| present.binary_search(ordinal).is_ok());
        self.counters
            .retain(|(_, ordinal), _| ordinal.is_none_or(|ordinal| present.binary_search(&ordinal).is_ok()));
        for ordinal in present {
            let is_ready = ready.binary_search_by_key(ordinal, |(ordinal, _)| *ordinal).is_ok();
            let note = self.notes.entry(*ordinal).or_default();
            if note.ready != is_ready {
                (note.ready, note.changed) = (is_ready, Some(now));
            }
        }
    }

    /// What is noted of a replica, for its pod.
    pub fn noted(&self, ordinal: u32) -> Noted {
        let note = self.notes.get(&ordinal);
        let custom = self.spec.metrics.iter().enumerate().filter_map(|(place, metric)| match metric {
            Metric::Pods { name, .. } => {
                let value = self.values.get(&(place, Some(ordinal)))?.as_ref().ok()?;
                Some((name.clone(), pods::milli(value.iter().sum())))
            }
            _ => None,
        });
        Noted {
            ready_changed: note.and_then(|note| note.changed),
            usage: note.and_then(|note| note.readings.as_ref()?.usage),
            custom: custom.collect(),
        }
    }

    /// Decides at `now` on a target that is to have `current` replicas and has `pods`.
    pub fn decide(&mut self, current: u32, pods: Vec<Pod>, now: Instant) -> Decision {
        let moment = Age::from(now.saturating_duration_since(self.epoch));
        let count = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
        let mut case = Case {
            id: String::new(),
            spec: self.spec.clone(),
            controller: self.controller,
            current_replicas: i32::try_from(current).unwrap_or(i32::MAX),
            status_replicas: count(pods.iter().filter(|pod| !pod.deleted).count()),
            recommendations: Vec::new(),
            scale_events: ScaleEvents::default(),
            pods,
            objects: BTreeMap::new(),
            external: BTreeMap::new(),
        };
        for (place, metric) in self.spec.metrics.iter().enumerate() {
            let Some(Ok(values)) = self.values.get(&(place, None)) else { continue };
            match metric {
                Metric::Object { name, .. } => {
                    case.objects.insert(name.clone(), pods::milli(values.iter().sum()));
                }
                Metric::External { name, .. } => {
                    let values: Vec<Quantity> = values.iter().map(|value| pods::milli(*value)).collect();
                    case.external.insert(name.clone(), values);
                }
                _ => {}
            }
        }
        self.history.recall(moment, &mut case);
        let answer = decide(&case);
        self.history.note(moment, case.current_replicas, &answer);
        let reasons: Vec<Option<String>> =
            (0..self.spec.metrics.len()).map(|place| self.reason(place)).collect();
        self.shown.decided(&case, &answer, &reasons);
        // Values are of one look: what is not seen the next time is not known then.
        self.values.clear();
        let replicas = u32::try_from(answer.desired_replicas).unwrap_or(0);
        Decision { replicas, explanation: answer.explanation.clone(), told: self.told(&answer) }
    }

    /// Notes that a request waited where there were no replicas, and that one was made for it.
    pub fn woke_up(&mut self, now: Instant) {
        let moment = Age::from(now.saturating_duration_since(self.epoch));
        self.history.recommend(moment, 1);
        self.shown.scaled();
    }

    /// Notes that the count was changed as decided.
    pub fn scaled(&mut self) {
        self.shown.scaled();
    }

    /// Notes that the count could not be changed.
    pub fn not_scaled(&mut self, error: &str) {
        self.shown.not_scaled(error);
    }

    /// Why the values of a metric are not there.
    fn reason(&self, place: usize) -> Option<String> {
        let of_place = self.values.range((place, None)..=(place, Some(u32::MAX)));
        of_place.filter_map(|(_, value)| value.as_ref().err().cloned()).next()
    }

    fn told(&mut self, answer: &Answer) -> Option<Told> {
        let failing = answer.conditions.iter().any(|condition| {
            condition.kind == "ScalingActive"
                && condition.status == "False"
                && condition.reason != "ScalingDisabled"
        });
        if failing {
            self.failed = self.failed.saturating_add(1);
            return (self.failed == FAILED_BEFORE_TOLD).then(|| Told::Failing(self.shown.failure()));
        }
        let was_told = self.failed >= FAILED_BEFORE_TOLD;
        self.failed = 0;
        was_told.then_some(Told::Recovered)
    }

    /// Waits for requests at these proxies, and for nothing else any more.
    pub fn watch(
        &mut self,
        waiting: Vec<throng_proxy::Waiting>,
        service: &str,
        woken: &tokio::sync::mpsc::Sender<String>,
    ) {
        self.watchers.abort_all();
        self.watchers = tokio::task::JoinSet::new();
        for waiting in waiting {
            let (service, woken) = (service.to_owned(), woken.clone());
            self.watchers.spawn(async move {
                waiting.someone().await;
                // The actor that would be told has gone with the app.
                let _ = woken.send(service).await;
            });
        }
    }

    pub fn status(&self, current: u32, desired: u32) -> AutoscalerStatus {
        self.shown.status(&self.wish, &self.spec, current, desired)
    }
}

fn asked(
    service: &Service,
    spec: &Spec,
    raw: &[RawMetric],
    sources: &BTreeMap<String, MetricSource>,
) -> Result<Vec<Asked>, String> {
    let mut asked = Vec::new();
    for (place, metric) in spec.metrics.iter().enumerate() {
        let name = metric.name();
        let source = sources.get(name).cloned().unwrap_or_default();
        let origin = match (metric, &source.url) {
            (Metric::Resource { .. } | Metric::ContainerResource { .. }, _) => continue,
            (Metric::Pods { .. }, _) => {
                replicas(service, &source).ok_or("no port is known to ask replicas at")?
            }
            (_, Some(url)) => {
                let place = Place::of_url(url, source.ca.as_deref());
                Origin::Place(place.ok_or_else(|| format!("{url} cannot be asked"))?)
            }
            (Metric::External { .. }, None) => return Err(format!("nobody says where {name} comes from")),
            (Metric::Object { .. }, None) => {
                let object = raw.get(place).and_then(|raw| raw.object.as_ref()?.described_object.as_ref());
                Origin::Own { service: object.and_then(|object| object.name.clone()).unwrap_or_default() }
            }
        };
        let selector = raw.get(place).and_then(|raw| raw.identifier()?.selector.as_ref());
        let selector = Arc::new(selector.map(Selector::new).transpose()?.unwrap_or_default());
        let series = Series { name: source.series.unwrap_or_else(|| name.to_owned()), selector };
        asked.push(Asked { metric: place, series, reading: source.reading, origin });
    }
    Ok(asked)
}

/// Where each replica is asked: as the source says, or the labels that Prometheus is served with, or its first port.
fn replicas(service: &Service, source: &MetricSource) -> Option<Origin> {
    let labelled = service.labels.get(PORT_LABEL).and_then(|port| port.parse().ok());
    let first = service.ports.first().map(|port| port.target);
    let exposed = service.expose.first().map(|port| port.port);
    let port = source.port.or(labelled).or(first).or(exposed)?;
    let path = source.path.clone().or_else(|| service.labels.get(PATH_LABEL).cloned());
    Some(Origin::Replicas { port, path: path.unwrap_or_else(|| DEFAULT_PATH.to_owned()) })
}

/// What a proxy tells, as a series.
pub fn own_figure(name: &str, demand: throng_proxy::Demand) -> Sighting {
    let (counter, value) = match name {
        "requests_in_flight" => (false, demand.under_way as f64),
        "requests_per_second" => (true, demand.requests as f64),
        _ => return (Instant::now(), Err(format!("a service's address tells no {name}"))),
    };
    let series = BTreeMap::from([(String::new(), value)]);
    (Instant::now(), Ok(Found { counter, series }))
}
