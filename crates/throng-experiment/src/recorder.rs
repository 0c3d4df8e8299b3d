//! Takes down what happens to the app while an experiment runs, in memory bounded whatever its length.

use crate::recovery::Replicas;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;
use throng_model::app::App;
use throng_model::run::{Event, ReplicaSeries, Sample};
use throng_model::status::{Readiness, ReplicaSample};
use throng_runtime::cluster::{Feed, FeedStream};

/// Samples kept of one replica. A longer run keeps every second one, then every fourth, …
const SAMPLES_MOST: usize = 2_000;
/// Events kept of one run. What comes later is counted, and the last event says how much that was.
const EVENTS_MOST: usize = 50_000;
/// Points kept of one service's count. When there are more, every second one of the older half goes: what is latest
/// is always known.
const COUNTS_MOST: usize = 50_000;

/// Shared by the task that reads the feed and the runner that adds its own events.
#[derive(Clone)]
pub struct Recorder {
    begin: SystemTime,
    inner: Arc<Mutex<Recording>>,
}

#[derive(Default)]
pub struct Recording {
    pub events: Vec<Event>,
    events_lost: u64,
    pub counts: BTreeMap<String, Vec<(f64, u32)>>,
    pub wanted: BTreeMap<String, Vec<(f64, u32)>>,
    /// Replicas that are as they are to be: ready, or completed.
    good: BTreeMap<String, Vec<(f64, u32)>>,
    series: BTreeMap<String, Series>,
    limits: BTreeMap<String, (Option<f64>, Option<u64>)>,
}

struct Series {
    service: String,
    samples: Vec<Sample>,
    /// Only every `stride`th sample is kept.
    stride: u64,
    seen: u64,
}

impl Recorder {
    /// `limited`: the limits that the app gives its services are enforced.
    pub fn new(begin: SystemTime, app: &App, limited: bool) -> Recorder {
        let limits = app.services.iter().filter(|_| limited);
        let limits =
            limits.map(|(name, service)| (name.clone(), (service.resources.cpus, service.resources.memory)));
        let recording = Recording { limits: limits.collect(), ..Recording::default() };
        Recorder { begin, inner: Arc::new(Mutex::new(recording)) }
    }

    fn lock(&self) -> MutexGuard<'_, Recording> {
        // Every change to the recording is complete in itself, so a panic elsewhere leaves it usable.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn seconds(&self, at: SystemTime) -> f64 {
        at.duration_since(self.begin).map_or(0.0, |passed| passed.as_secs_f64())
    }

    pub fn event(&self, kind: &str, subject: &str, message: String) {
        let at = self.seconds(SystemTime::now());
        self.lock().event(Event { at, kind: kind.into(), subject: subject.into(), message });
    }

    /// Reads the feed until it ends or this future is dropped.
    pub async fn follow(self, mut feed: Box<dyn FeedStream>) {
        while let Some(message) = feed.next().await {
            match message {
                Feed::Event(event) => {
                    let at = self.seconds(event.at);
                    let event =
                        Event { at, kind: event.kind, subject: event.subject, message: event.message };
                    self.lock().event(event);
                }
                Feed::Counts { at, services } => {
                    let at = self.seconds(at);
                    self.lock().counts(at, &services);
                }
                Feed::Samples { at, samples } => {
                    let at = self.seconds(at);
                    self.lock().samples(at, samples);
                }
            }
        }
    }

    /// Ready replicas of a service now.
    pub fn ready(&self, service: &str) -> Option<u32> {
        self.lock().counts.get(service).and_then(|counts| counts.last()).map(|(_, count)| *count)
    }

    /// How many replicas of these services were as they are to be, and how many there were to be, at `since` and later.
    pub fn replicas(&self, services: &[String], since: f64) -> Vec<Replicas> {
        let recording = self.lock();
        let of = |map: &BTreeMap<String, Vec<(f64, u32)>>, service| {
            let counts = map.get(service).map(Vec::as_slice).unwrap_or_default();
            let before = counts.partition_point(|(at, _)| *at <= since).saturating_sub(1);
            counts[before..].to_vec()
        };
        let one = |service| Replicas {
            ready: of(&recording.good, service),
            wanted: of(&recording.wanted, service),
        };
        services.iter().map(one).collect()
    }

    /// Takes out everything recorded so far.
    pub fn take(&self) -> (Recording, Vec<ReplicaSeries>) {
        let mut recording = std::mem::take(&mut *self.lock());
        if recording.events_lost > 0 {
            let at = self.seconds(SystemTime::now());
            let lost = recording.events_lost;
            let message = format!("{lost} more events came than the {EVENTS_MOST} that a record keeps");
            recording.events.push(Event { at, kind: "warning".into(), subject: String::new(), message });
        }
        let limits = std::mem::take(&mut recording.limits);
        let series = std::mem::take(&mut recording.series).into_iter();
        let series = series.map(|(name, series)| {
            let (cpu_limit, memory_limit) = limits.get(&series.service).copied().unwrap_or_default();
            ReplicaSeries { name, service: series.service, cpu_limit, memory_limit, samples: series.samples }
        });
        (recording, series.collect())
    }
}

impl Recording {
    fn event(&mut self, event: Event) {
        if self.events.len() < EVENTS_MOST {
            self.events.push(event);
        } else {
            self.events_lost += 1;
        }
    }

    fn counts(&mut self, at: f64, services: &BTreeMap<String, Readiness>) {
        for (service, readiness) in services {
            let good = readiness.ready + readiness.completed;
            for (counts, now) in [
                (&mut self.counts, readiness.ready),
                (&mut self.wanted, readiness.wanted),
                (&mut self.good, good),
            ] {
                let counts = counts.entry(service.clone()).or_default();
                if counts.last().is_some_and(|(_, count)| *count == now) {
                    continue;
                }
                if counts.len() >= COUNTS_MOST {
                    thin_out(counts);
                }
                counts.push((at, now));
            }
        }
    }

    fn samples(&mut self, at: f64, samples: Vec<ReplicaSample>) {
        for sample in samples {
            let series = self.series.entry(sample.name).or_insert_with(|| Series {
                service: sample.service,
                samples: Vec::new(),
                stride: 1,
                seen: 0,
            });
            series.seen += 1;
            if !series.seen.is_multiple_of(series.stride) {
                continue;
            }
            if series.samples.len() >= SAMPLES_MOST {
                let mut index = 0;
                series.samples.retain(|_| {
                    index += 1;
                    index % 2 == 0
                });
                series.stride *= 2;
            }
            series.samples.push(Sample {
                at,
                cpu: sample.cpu,
                memory: sample.memory,
                pids: sample.pids,
                received: sample.received,
                sent: sample.sent,
            });
        }
    }
}

/// Leaves out every second point of the older half.
fn thin_out(counts: &mut Vec<(f64, u32)>) {
    let (half, mut index) = (counts.len() / 2, 0);
    counts.retain(|_| {
        index += 1;
        index > half || index % 2 == 1
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> ReplicaSample {
        let (service, name) = ("web".to_owned(), "web-1".to_owned());
        ReplicaSample { service, name, cpu: 0.5, memory: 1, pids: 1, received: 0.0, sent: 0.0 }
    }

    #[test]
    fn a_long_run_stays_bounded_and_covers_its_whole_length() {
        let recorder = Recorder::new(SystemTime::UNIX_EPOCH, &App::default(), true);
        for second in 0..100_000 {
            recorder.lock().samples(f64::from(second), vec![sample()]);
        }
        let (_, series) = recorder.take();
        let samples = &series[0].samples;
        assert!(samples.len() <= SAMPLES_MOST && samples.len() > SAMPLES_MOST / 3, "{}", samples.len());
        assert!(samples[0].at < 200.0 && samples[samples.len() - 1].at > 99_800.0);
        assert!(samples.windows(2).all(|pair| pair[0].at < pair[1].at));
    }

    #[test]
    fn only_changes_of_a_count_are_kept() {
        let recorder = Recorder::new(SystemTime::UNIX_EPOCH, &App::default(), true);
        for (at, ready) in [(0.0, 0), (1.0, 1), (2.0, 1), (3.0, 3)] {
            let services = BTreeMap::from([("web".to_owned(), Readiness { ready, ..Readiness::default() })]);
            recorder.lock().counts(at, &services);
        }
        assert_eq!(recorder.ready("web"), Some(3));
        assert_eq!(recorder.take().0.counts["web"], [(0.0, 0), (1.0, 1), (3.0, 3)]);
    }

    #[test]
    fn counts_that_change_without_end_are_bounded_and_the_latest_is_known() {
        let recorder = Recorder::new(SystemTime::UNIX_EPOCH, &App::default(), true);
        let last = 3 * COUNTS_MOST as u32;
        for second in 0..=last {
            let readiness = Readiness { ready: second, wanted: 7, ..Readiness::default() };
            let services = BTreeMap::from([("web".to_owned(), readiness)]);
            recorder.lock().counts(f64::from(second), &services);
        }
        assert_eq!(recorder.ready("web"), Some(last));
        let since = f64::from(last) - 10.5;
        let web = recorder.replicas(&["web".to_owned()], since).remove(0);
        assert_eq!(web.ready.len(), 12, "the value then, and what came after");
        assert_eq!((web.ready[0], web.wanted.as_slice()), ((since.floor(), last - 11), &[(0.0, 7)][..]));
        let nobody = recorder.replicas(&["db".to_owned()], 0.0).remove(0);
        assert_eq!(nobody, Replicas::default());
        let counts = recorder.take().0.counts.remove("web").expect("counts");
        assert!((COUNTS_MOST / 2..=COUNTS_MOST).contains(&counts.len()), "{}", counts.len());
        assert_eq!(counts[0], (0.0, 0), "the beginning stays");
        assert!(counts.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn events_that_are_not_kept_are_counted() {
        let recorder = Recorder::new(SystemTime::now(), &App::default(), true);
        for number in 0..EVENTS_MOST + 3 {
            recorder.event("replica", "web-1", number.to_string());
        }
        let events = recorder.take().0.events;
        assert_eq!(events.len(), EVENTS_MOST + 1);
        assert_eq!(events[EVENTS_MOST - 1].message, (EVENTS_MOST - 1).to_string());
        assert_eq!(events[EVENTS_MOST].message, "3 more events came than the 50000 that a record keeps");
    }
}
