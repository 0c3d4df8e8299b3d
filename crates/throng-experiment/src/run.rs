//! Carrying an experiment out, stage by stage, over any cluster.
//!
//! A stage that cannot be carried out ends the run; a threshold that does not hold is noted and the run goes on,
//! because the later stages may be what explains it.

use crate::file::{Action, Experiment, Fault, LoadAction, StageSpec, WaitFor};
use crate::recorder::Recorder;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};
use throng_load::{Body, LoadSpec, Part, PartContent, Progress, RequestSpec, Requests, Schedule, Threshold};
use throng_model::app::App;
use throng_model::run::{Environment, LoadResult, Outcome, RUN_VERSION, Run, Stage};
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
    let mut runner =
        Runner { plan: &plan, cluster, observer, cancel, recorder: recorder.clone(), feed: None };
    let mut stages = Vec::new();
    let mut outcome = Outcome::Passed;
    for (index, spec) in plan.experiment.stages.iter().enumerate() {
        runner.observer.stage_begins(index, plan.experiment.stages.len(), spec);
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
            Action::Fault(fault) => Ok(befall(self.cluster, fault).await?),
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
        let thresholds: Vec<Threshold> = spec
            .require
            .iter()
            .map(|(text, _)| text.parse().map_err(|error| format!("{text}: {error}")))
            .collect::<Result<_, _>>()?;
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
        if let Some(merged) = merged {
            stage.thresholds = thresholds.iter().map(|threshold| threshold.evaluate(&merged)).collect();
        }
        Ok(())
    }

    async fn one_load(
        &mut self,
        spec: LoadSpec,
        repetition: u32,
        of: u32,
        during: &[(Duration, Fault)],
    ) -> Result<LoadResult, StageError> {
        let (sender, mut progress) = watch::channel(Progress::default());
        let load = throng_load::run(spec, sender, self.cancel.clone());
        let faults = at_their_times(self.cluster, during);
        tokio::pin!(load, faults);
        let mut all_done = during.is_empty();
        loop {
            tokio::select! {
                result = &mut load => return result.map_err(|error| error.to_string().into()),
                result = &mut faults, if !all_done => {
                    result?;
                    all_done = true;
                }
                Ok(()) = progress.changed() => {
                    let now = progress.borrow_and_update().clone();
                    self.observer.load(&now, repetition, of);
                }
            }
        }
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

async fn at_their_times(cluster: &dyn Cluster, faults: &[(Duration, Fault)]) -> Result<(), ClusterError> {
    let begin = tokio::time::Instant::now();
    for (at, fault) in faults {
        tokio::time::sleep_until(begin + *at).await;
        befall(cluster, fault).await?;
    }
    Ok(())
}

/// Has a fault begin or end. The cluster tells it as an event, which the report marks.
async fn befall(cluster: &dyn Cluster, fault: &Fault) -> Result<(), ClusterError> {
    match fault {
        Fault::Nodes { choice, change } => cluster.change_nodes(choice, change).await,
        Fault::Kill { service, share } => cluster.kill(service, *share).await.map(drop),
    }
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
