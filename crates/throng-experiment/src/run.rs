//! Carrying an experiment out, stage by stage, over any cluster.
//!
//! A stage that cannot be carried out ends the run; a threshold that does not hold is noted and the run goes on,
//! because the later stages may be what explains it.

use crate::faults::Faults;
use crate::file::{Action, Experiment, Fault, LoadAction, Requirement, StageSpec, WaitFor};
use crate::recorder::Recorder;
use crate::recovery::{Evidence, recovered};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};
use throng_load::{Body, LoadSpec, Part, PartContent, Progress, RequestSpec, Requests, Schedule};
use throng_model::app::App;
use throng_model::run::{Environment, LoadResult, Outcome, RUN_VERSION, Run, Stage, ThresholdResult};
use throng_model::status::Readiness;
use throng_model::units::format_duration;
use throng_runtime::cluster::{Cluster, ClusterError, ClusterErrorKind};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use url::Url;

/// The longest wait for readiness after `up` and `scale`.
const READY_WITHIN: Duration = Duration::from_secs(300);
/// How often a wait condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How late it may be known here how many replicas are ready, in seconds.
const COUNTS_LATE: f64 = 0.5;
/// How much of a log is searched for a text.
const LOG_SEARCHED: u64 = 1 << 20;

/// Is told how the run goes on.
pub trait Observer: Send {
    fn stage_begins(&mut self, index: usize, of: usize, stage: &StageSpec);
    fn readiness(&mut self, services: &BTreeMap<String, Readiness>);
    /// `repetition` counts from 1.
    fn load(&mut self, progress: &Progress, repetition: u32, of: u32);
    fn waiting(&mut self, passed: Duration, of: Duration);
    /// The cluster refused a stage.
    fn refused(&mut self, kind: ClusterErrorKind);
    fn stage_ends(&mut self, stage: &Stage);
}

/// Everything about a run that is known before it starts.
pub struct Plan<'a> {
    pub id: String,
    pub experiment: &'a Experiment,
    pub app: &'a App,
    pub environment: Environment,
}

/// Carries the stages out and returns the record, whole or as far as it came. The app stays up.
pub async fn run(
    plan: Plan<'_>,
    cluster: &dyn Cluster,
    observer: &mut dyn Observer,
    cancel: CancellationToken,
) -> Run {
    let begin = SystemTime::now();
    let recorder = Recorder::new(begin, plan.app, !plan.environment.unlimited);
    let faults = Faults::default();
    let mut runner =
        Runner { plan: &plan, cluster, observer, cancel, recorder: recorder.clone(), feed: None, faults };
    let (mut stages, mut befallen) = (Vec::new(), Vec::new());
    let mut outcome = Outcome::Passed;
    for (index, spec) in plan.experiment.stages.iter().enumerate() {
        runner.observer.stage_begins(index, plan.experiment.stages.len(), spec);
        befallen.push(runner.faults.count());
        let stage = runner.stage(spec).await;
        runner.observer.stage_ends(&stage);
        if stage.thresholds.iter().any(|threshold| !threshold.held) {
            outcome = Outcome::Failed;
        }
        let failed = stage.error.is_some();
        stages.push(stage);
        if runner.cancel.is_cancelled() {
            outcome = Outcome::Interrupted;
            break;
        }
        if failed {
            outcome = Outcome::Failed;
            break;
        }
    }
    // The last second's samples are still on their way.
    if outcome != Outcome::Interrupted && runner.feed.is_some() {
        tokio::time::sleep(Duration::from_millis(1_100)).await;
    }
    if let Some(feed) = runner.feed.take() {
        feed.abort();
    }
    // Not before: what one stage begins another may end.
    for (stage, first) in stages.iter_mut().zip(befallen) {
        let faults = runner.faults.since(first).iter().filter(|one| one.span.begin <= stage.end);
        stage.faults = faults.map(|one| one.span.clone()).collect();
    }
    let (recording, replicas) = recorder.take();
    Run {
        version: RUN_VERSION,
        id: plan.id,
        project: plan.app.name.clone(),
        title: plan.experiment.title.clone(),
        description: plan.experiment.description.clone(),
        started_at: jiff::Timestamp::try_from(begin).map(|time| time.to_string()).unwrap_or_default(),
        seconds: recorder.seconds(SystemTime::now()),
        outcome,
        environment: plan.environment,
        variables: plan.experiment.variables.clone(),
        stages,
        events: recording.events,
        replicas,
        replica_counts: recording.counts,
        replicas_wanted: recording.wanted,
        summary: Vec::new(),
    }
}

/// Why a stage could not be carried out, in words, and the cluster's own kind of reason if it was the cluster's.
struct StageError {
    text: String,
    kind: Option<ClusterErrorKind>,
    /// What the replica that is to blame wrote last.
    log: Vec<String>,
}

impl From<String> for StageError {
    fn from(text: String) -> StageError {
        StageError { text, kind: None, log: Vec::new() }
    }
}

impl From<ClusterError> for StageError {
    fn from(error: ClusterError) -> StageError {
        StageError { text: explain(&error), kind: Some(error.kind), log: error.log }
    }
}

struct Runner<'a> {
    plan: &'a Plan<'a>,
    cluster: &'a dyn Cluster,
    observer: &'a mut dyn Observer,
    cancel: CancellationToken,
    recorder: Recorder,
    /// The task that records the app's feed, once the app is up.
    feed: Option<tokio::task::JoinHandle<()>>,
    faults: Faults,
}

impl Runner<'_> {
    fn now(&self) -> f64 {
        self.recorder.seconds(SystemTime::now())
    }

    async fn stage(&mut self, spec: &StageSpec) -> Stage {
        let begin = self.now();
        self.recorder.event("stage", "", spec.name.clone());
        let mut stage =
            Stage { name: spec.name.clone(), kind: kind(&spec.action).into(), begin, ..Stage::default() };
        stage.detail = detail(&spec.action);
        stage.explain = spec.explain.clone().unwrap_or_default();
        let cancel = self.cancel.clone();
        let result = tokio::select! {
            result = self.action(spec, &mut stage) => result,
            () = cancelled_unless_loading(&cancel, &spec.action) => Err("stopped".to_owned().into()),
        };
        stage.end = self.now();
        if let Err(error) = result {
            self.recorder.event("warning", &spec.name, error.text.clone());
            if let Some(kind) = error.kind {
                self.observer.refused(kind);
            }
            stage.error = Some(error.text);
            stage.log = error.log;
        }
        stage
    }

    async fn action(&mut self, spec: &StageSpec, stage: &mut Stage) -> Result<(), StageError> {
        match &spec.action {
            Action::Up => self.up().await,
            Action::Scale { service, replicas } => self.scale(service, *replicas).await,
            Action::Load(load) => self.load(spec, load, stage).await,
            Action::Wait { until, timeout } => self.wait(until, *timeout).await,
            Action::Pause { duration } => self.pause(*duration).await,
            Action::Fault(fault) => self.fault(spec, fault, stage).await,
        }
    }

    async fn up(&mut self) -> Result<(), StageError> {
        self.cluster.apply(self.plan.app).await?;
        if self.feed.is_none() {
            let feed = self.cluster.watch().await?;
            self.feed = Some(tokio::spawn(self.recorder.clone().follow(feed)));
        }
        self.ready(&[]).await
    }

    async fn scale(&mut self, service: &str, replicas: u32) -> Result<(), StageError> {
        let counts = BTreeMap::from([(service.to_owned(), replicas)]);
        self.cluster.scale(counts).await?;
        self.ready(&[service.to_owned()]).await
    }

    async fn ready(&mut self, services: &[String]) -> Result<(), StageError> {
        let observer = &mut *self.observer;
        let result =
            self.cluster.wait(services, READY_WITHIN, &mut |services| observer.readiness(services)).await;
        Ok(result?)
    }

    async fn pause(&mut self, duration: Duration) -> Result<(), StageError> {
        let begin = Instant::now();
        while begin.elapsed() < duration {
            self.observer.waiting(begin.elapsed(), duration);
            tokio::time::sleep(LOOK_EVERY.min(duration - begin.elapsed().min(duration))).await;
        }
        Ok(())
    }

    async fn wait(&mut self, until: &WaitFor, timeout: Duration) -> Result<(), StageError> {
        let begin = Instant::now();
        loop {
            let reason = match self.holds(until).await {
                Ok(()) => return Ok(()),
                Err(reason) => reason,
            };
            if begin.elapsed() >= timeout {
                return Err(format!("not within {}: {reason}", format_duration(timeout)).into());
            }
            self.observer.waiting(begin.elapsed(), timeout);
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Whether a condition holds now; the error says why not.
    async fn holds(&self, until: &WaitFor) -> Result<(), String> {
        match until {
            WaitFor::Ready { service, replicas } => {
                let status = self.cluster.status().await.map_err(|error| explain(&error))?;
                let ready = status.services.get(service).map_or(0, |service| service.readiness.ready);
                if ready >= *replicas {
                    Ok(())
                } else {
                    Err(format!("{service} has {ready} of {replicas} ready"))
                }
            }
            WaitFor::Answer { url, status } => {
                let target = Url::parse(url).map_err(|error| format!("{url}: {error}"))?;
                let once =
                    Schedule::Closed { clients: 1, requests: Requests::Total(1), think: Duration::ZERO };
                let spec = LoadSpec { timeout: Duration::from_secs(5), ..LoadSpec::new(target, once) };
                let (progress, _) = watch::channel(Progress::default());
                let result = throng_load::run(spec, progress, self.cancel.clone()).await;
                let result = result.map_err(|error| error.to_string())?;
                let answered = match status {
                    Some(status) => result.status.contains_key(status),
                    None => result.succeeded > 0,
                };
                if answered {
                    Ok(())
                } else {
                    Err(format!("{url} does not answer so: {}", failures(&result)))
                }
            }
            WaitFor::Log { service, text } => {
                let tails =
                    self.cluster.log_tails(service, LOG_SEARCHED).await.map_err(|error| explain(&error))?;
                let found = tails.iter().any(|(_, tail)| String::from_utf8_lossy(tail).contains(text));
                if found { Ok(()) } else { Err(format!("no log of {service} contains {text:?}")) }
            }
        }
    }

    async fn load(
        &mut self,
        spec: &StageSpec,
        load: &LoadAction,
        stage: &mut Stage,
    ) -> Result<(), StageError> {
        let requirements = requirements(spec)?;
        let before = self.faults.count();
        let (target, connect_to) = self.target(load).await?;
        let load_spec = |seed| LoadSpec { connect_to, ..load_spec(load, target.clone(), seed) };
        stage.replicas = load.service.as_deref().and_then(|service| self.recorder.ready(service));
        if !load.warmup.is_zero() {
            let mut warm_up = load_spec(0);
            warm_up.schedule = shortened(&warm_up.schedule, load.warmup);
            self.one_load(warm_up, 0, spec.repeat, &[]).await?;
        }
        for repetition in 1..=spec.repeat.max(1) {
            let mut one = load_spec(u64::from(repetition));
            one.begin_offset = self.now();
            let result = self.one_load(one, repetition, spec.repeat, &spec.during).await?;
            stage.loads.push(result);
            if self.cancel.is_cancelled() {
                return Err("stopped".to_owned().into());
            }
        }
        let merged = throng_load::merge(&stage.loads).map_err(|error| error.to_string())?;
        let Some(merged) = merged else { return Ok(()) };
        for (requirement, text) in &requirements {
            stage.thresholds.push(match requirement {
                Requirement::Measured(threshold) => threshold.evaluate(&merged),
                Requirement::NoRequestLost => none_lost(text, &merged),
                Requirement::Recovered { within, steady } => {
                    self.recovery(text, *within, *steady, before, stage, load.service.as_deref()).await
                }
            });
        }
        Ok(())
    }

    async fn fault(&mut self, spec: &StageSpec, fault: &Fault, stage: &mut Stage) -> Result<(), StageError> {
        let before = self.faults.count();
        self.faults.befall(self.cluster, &self.recorder, self.plan.app, fault).await?;
        for (requirement, text) in requirements(spec)? {
            if let Requirement::Recovered { within, steady } = requirement {
                let result = self.recovery(&text, within, steady, before, stage, None).await;
                stage.thresholds.push(result);
            }
        }
        Ok(())
    }

    /// Whether the app came through the faults after the first so many; waits for it as long as that can still be.
    async fn recovery(
        &mut self,
        text: &str,
        within: Duration,
        steady: Duration,
        first: usize,
        stage: &Stage,
        loaded: Option<&str>,
    ) -> ThresholdResult {
        let services = self.concerned(first, loaded);
        let timeline: Vec<_> = stage.loads.iter().flat_map(|load| load.timeline.iter().copied()).collect();
        // What ends something is nothing to recover from, unless it is all that there is.
        let all = || self.faults.since(first).iter();
        let harm = all().any(|one| one.fault.harms());
        let faults: Vec<(f64, String)> = all()
            .filter(|one| one.fault.harms() || !harm)
            .map(|one| (one.over(), one.span.what.clone()))
            .collect();
        let overs = || faults.iter().map(|(over, _)| *over);
        let (earliest, last) = (overs().fold(f64::INFINITY, f64::min), overs().fold(0.0, f64::max));
        let deadline = last + within.as_secs_f64() + steady.as_secs_f64() + COUNTS_LATE;
        loop {
            let now = self.now();
            let replicas = self.recorder.replicas(&services, earliest);
            let evidence =
                Evidence { services: replicas, timeline: timeline.clone(), known: now - COUNTS_LATE };
            let each = faults
                .iter()
                .map(|(over, what)| (recovered(&evidence, *over, steady.as_secs_f64()), what.as_str()));
            let each: Vec<(Option<f64>, &str)> = each.collect();
            if each.iter().all(|(time, _)| time.is_some()) || now >= deadline || self.cancel.is_cancelled() {
                return came_through(text, within, &each);
            }
            let left = Duration::from_secs_f64((deadline - now).max(0.0));
            self.observer.waiting(within.saturating_sub(left), within);
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Services that must be whole again: the one under load, those that faults name, and all if nodes were meant.
    fn concerned(&self, first: usize, loaded: Option<&str>) -> Vec<String> {
        let mut services: BTreeSet<String> = loaded.map(str::to_owned).into_iter().collect();
        for befallen in self.faults.since(first) {
            match befallen.fault.service() {
                Some(service) => drop(services.insert(service.to_owned())),
                None => services.extend(self.plan.app.services.keys().cloned()),
            }
        }
        services.into_iter().collect()
    }

    async fn one_load(
        &mut self,
        spec: LoadSpec,
        repetition: u32,
        of: u32,
        during: &[(Duration, Fault)],
    ) -> Result<LoadResult, StageError> {
        let (sender, mut progress) = watch::channel(Progress::default());
        let Runner { plan, cluster, observer, cancel, recorder, faults, .. } = self;
        let (before, over) = (faults.count(), CancellationToken::new());
        let load = throng_load::run(spec, sender, cancel.clone());
        let result = {
            let faults = faults.at_their_times(*cluster, recorder, plan.app, during, &over);
            tokio::pin!(load, faults);
            let mut all_done = during.is_empty();
            let result = loop {
                tokio::select! {
                    result = &mut load => break result,
                    result = &mut faults, if !all_done => {
                        result?;
                        all_done = true;
                    }
                    Ok(()) = progress.changed() => {
                        let now = progress.borrow_and_update().clone();
                        observer.load(&now, repetition, of);
                    }
                }
            };
            over.cancel();
            // Whoever stops the run does not wait for faults.
            if !all_done && !cancel.is_cancelled() {
                faults.await?;
            }
            result.map_err(|error| StageError::from(error.to_string()))
        };
        // What never happened is not to look as if it had.
        let left = if cancel.is_cancelled() { during.len() } else { faults.count() - before };
        for (at, fault) in during.iter().skip(left) {
            let message = format!("the load ended before its time at {}: {fault}", format_duration(*at));
            recorder.event("warning", "", message);
        }
        result
    }

    /// What is loaded, by the name people know it by, and where that is.
    async fn target(&self, load: &LoadAction) -> Result<(Url, Option<SocketAddr>), StageError> {
        if let Some(url) = &load.url {
            return Ok((Url::parse(url).map_err(|error| format!("{url}: {error}"))?, None));
        }
        let service = load.service.as_deref().unwrap_or_default();
        let address = self.cluster.endpoint(service, load.port).await?;
        Ok((service_url(service, &load.path)?, Some(address)))
    }
}

/// What a stage requires, with the words that it says it in.
fn requirements(spec: &StageSpec) -> Result<Vec<(Requirement, String)>, StageError> {
    let one = |(text, _): &(String, _)| match text.parse() {
        Ok(requirement) => Ok((requirement, text.trim().to_owned())),
        Err(error) => Err(StageError::from(format!("{text}: {error}"))),
    };
    spec.require.iter().map(one).collect()
}

fn none_lost(text: &str, load: &LoadResult) -> ThresholdResult {
    let lost = load.requests.saturating_sub(load.succeeded);
    let measured = match (load.requests, lost) {
        (0, _) => "no request was made".to_owned(),
        (all, 0) => format!("none of {all}"),
        (all, lost) => format!("{lost} of {all}"),
    };
    ThresholdResult { expression: text.into(), measured, held: load.requests > 0 && lost == 0 }
}

/// The result over all faults, each with the time that it took to recover from it, if that was seen.
fn came_through(text: &str, within: Duration, each: &[(Option<f64>, &str)]) -> ThresholdResult {
    let within = within.as_secs_f64();
    let slowest = each.iter().max_by(|a, b| {
        let time = |one: &(Option<f64>, &str)| one.0.unwrap_or(f64::INFINITY);
        time(a).total_cmp(&time(b))
    });
    let (measured, held) = match slowest {
        None => ("no fault befell the app".to_owned(), false),
        Some((None, what)) => (format!("not seen, after: {what}"), false),
        Some((Some(time), what)) if each.len() == 1 => {
            (format!("{time:.1} s after: {what}"), *time <= within)
        }
        Some((Some(time), what)) => (format!("at most {time:.1} s, after: {what}"), *time <= within),
    };
    ThresholdResult { expression: text.into(), measured, held }
}

/// A load ends by itself when it is cancelled, with what it has measured; other stages are dropped.
async fn cancelled_unless_loading(cancel: &CancellationToken, action: &Action) {
    cancel.cancelled().await;
    if matches!(action, Action::Load(_)) {
        std::future::pending::<()>().await;
    }
}

fn service_url(service: &str, path: &str) -> Result<Url, String> {
    let slash = if path.starts_with('/') { "" } else { "/" };
    Url::parse(&format!("http://{service}{slash}{path}")).map_err(|error| format!("path {path:?}: {error}"))
}

fn load_spec(load: &LoadAction, target: Url, seed: u64) -> LoadSpec {
    let body = match (&load.image, &load.field, &load.body) {
        (Some(image), Some(field), _) => Body::Multipart(vec![Part {
            name: field.clone(),
            filename: Some(format!("image.{}", image.format.content_type().trim_start_matches("image/"))),
            content_type: Some(image.format.content_type().into()),
            content: PartContent::Image(*image),
        }]),
        (Some(image), None, _) => Body::Image(*image),
        (None, _, Some(text)) => Body::Bytes(text.clone().into_bytes().into()),
        (None, _, None) => Body::Empty,
    };
    LoadSpec {
        request: RequestSpec { method: load.method.clone(), headers: load.headers.clone(), body },
        timeout: load.timeout,
        seed,
        success: load.success.clone(),
        follow_redirects: load.follow_redirects,
        http2: load.http2,
        ..LoadSpec::new(target, load.schedule.clone())
    }
}

/// The same kind of load for a given time.
fn shortened(schedule: &Schedule, time: Duration) -> Schedule {
    let mut schedule = schedule.clone();
    match &mut schedule {
        Schedule::Closed { requests, .. } => *requests = Requests::For(time),
        Schedule::Open { duration, .. } => *duration = time,
    }
    schedule
}

fn kind(action: &Action) -> &'static str {
    match action {
        Action::Up => "up",
        Action::Scale { .. } => "scale",
        Action::Load(_) => "load",
        Action::Wait { .. } => "wait",
        Action::Pause { .. } => "pause",
        Action::Fault(_) => "fault",
    }
}

/// What a stage does, in words.
pub fn detail(action: &Action) -> String {
    match action {
        Action::Up => "start every service and wait until it is ready".into(),
        Action::Scale { service, replicas } => {
            format!("{service} to {replicas} replica{}", if *replicas == 1 { "" } else { "s" })
        }
        Action::Load(load) => {
            let at = load.service.as_deref().or(load.url.as_deref()).unwrap_or_default();
            let schedule = load.schedule.to_string();
            let schedule = schedule.strip_prefix("closed: ").unwrap_or(&schedule);
            format!("{schedule} at {at}")
        }
        Action::Wait { until, .. } => match until {
            WaitFor::Ready { service, replicas } => format!("until {service} has {replicas} ready"),
            WaitFor::Answer { url, .. } => format!("until {url} answers"),
            WaitFor::Log { service, text } => format!("until a log of {service} says {text:?}"),
        },
        Action::Pause { duration } => format_duration(*duration),
        Action::Fault(fault) => fault.to_string(),
    }
}

fn explain(error: &ClusterError) -> String {
    match &error.hint {
        Some(hint) => format!("{error} (hint: {hint})"),
        None => error.to_string(),
    }
}

/// `connect 3, status 502 1`.
fn failures(result: &LoadResult) -> String {
    let each = result.errors.iter().map(|(kind, count)| format!("{kind} {count}"));
    let text = each.collect::<Vec<_>>().join(", ");
    if text.is_empty() { "no failure was seen".into() } else { text }
}
