//! Carrying out a load: threads, a common start, progress, the end.
//!
//! ```text
//! run ─> check ─> resolve ─> encode pictures ─> threads ready ─> start line ─> clients ... ─> join records
//! ```
//!
//! Each thread has a runtime of its own and a share of the clients (closed loop) or of the arrivals and
//! connections (open loop). Threads share nothing but two counters: requests left and requests waiting.

use crate::client::Job;
use crate::connection::Target;
use crate::error::LoadError;
use crate::feed::Backlog;
use crate::record::{Recorder, histogram};
use crate::spec::{LoadSpec, Requests, Schedule};
use crate::summary::{self, value_at};
use crate::template::Template;
use crate::thread::{self, Assignment, Line, PUBLISH_INTERVAL, Published};
use crate::timeline::Interval;
use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use throng_model::run::LoadResult;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

/// Where progress is published, about five times a second and once at the end.
pub type ProgressSender = watch::Sender<Progress>;

/// From the moment the threads are told to the load's start: long enough for them to be awake by then.
const START_LEAD: Duration = Duration::from_millis(2);
/// Progress reports over which the current rate is taken.
const RATE_WINDOW: usize = 5;

/// How far a load is. Latencies are over everything so far, in microseconds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Progress {
    /// Requests that are over, successful or not.
    pub done: u64,
    /// How many there will be, where that is known.
    pub total: Option<u64>,
    pub elapsed: Duration,
    /// For how long requests will be sent, where that is known.
    pub duration: Option<Duration>,
    pub errors: u64,
    /// Requests per second lately: over the last second or so.
    pub rate: f64,
    pub p50_micros: u64,
    pub p99_micros: u64,
}

/// A load that was carried out: its result, and its intervals for a log.
#[derive(Debug, Clone)]
pub struct Load {
    pub result: LoadResult,
    /// Width of each interval.
    pub width: Duration,
    pub intervals: Vec<Interval>,
}

/// Carries out a load and returns when it is over, or when it is cancelled: then with what was done until then,
/// without the requests under way. Dropping the future cancels the load too.
///
/// # Errors
/// The load cannot start: a spec that makes no sense, a name that does not resolve, a limit of this machine.
/// Requests that fail are no error, they are in the result.
pub async fn run(
    spec: LoadSpec,
    progress: ProgressSender,
    cancel: CancellationToken,
) -> Result<LoadResult, LoadError> {
    Ok(run_detailed(spec, progress, cancel).await?.result)
}

/// As [`run`], with the intervals that [`write_hdr_log`](crate::write_hdr_log) needs.
pub async fn run_detailed(
    spec: LoadSpec,
    progress: ProgressSender,
    cancel: CancellationToken,
) -> Result<Load, LoadError> {
    spec.check()?;
    let target = Target::new(&spec).await?;
    let preparing = spec.clone();
    let template = tokio::task::spawn_blocking(move || Template::new(&preparing))
        .await
        .map_err(|_| LoadError::ThreadLost)??;
    let job = Arc::new(Job::new(&spec, template, target)?);
    // Threads watch a child of the token, which ends with this future whatever becomes of it.
    let stop = cancel.child_token();
    let _stop_on_drop = stop.clone().drop_guard();
    let mut crew = Crew::hire(&spec, &job, &stop).await?;
    let start = crew.start();
    let record = crew.work(&spec, start, &progress).await?;
    crew.dismiss().await;
    let seconds = length(&spec, &record, start, cancel.is_cancelled());
    let (result, width, intervals) = summary::result(&spec, record, seconds, crew.backlog.most())?;
    Ok(Load { result, width, intervals })
}

/// How long the load lasted: to its last request's end, but no less than a given duration, unless cut short.
fn length(spec: &LoadSpec, record: &Recorder, start: Instant, cancelled: bool) -> Duration {
    match spec.schedule.duration() {
        _ if cancelled => start.elapsed(),
        Some(duration) => record.last.max(duration),
        None => record.last,
    }
}

/// The threads of a load.
struct Crew {
    handles: Vec<std::thread::JoinHandle<()>>,
    starts: Vec<oneshot::Sender<Instant>>,
    published: Vec<Arc<Mutex<Published>>>,
    finished: mpsc::Receiver<Result<Recorder, LoadError>>,
    backlog: Arc<Backlog>,
}

impl Crew {
    /// Starts the threads and waits until all are ready.
    async fn hire(spec: &LoadSpec, job: &Arc<Job>, stop: &CancellationToken) -> Result<Crew, LoadError> {
        let threads = spec.effective_threads();
        let left = match spec.schedule {
            Schedule::Closed { requests: Requests::Total(total), .. } => total,
            _ => 0,
        };
        let left = Arc::new(AtomicU64::new(left));
        let backlog = Arc::new(Backlog::new(spec.backlog));
        // Each thread delivers once, so none ever waits.
        let (report, finished) = mpsc::channel(threads);
        let mut crew =
            Crew { handles: Vec::new(), starts: Vec::new(), published: Vec::new(), finished, backlog };
        let mut readies = Vec::with_capacity(threads);
        for number in 0..threads {
            let published = Arc::new(Mutex::new(Published::new()?));
            let assignment = Assignment {
                number,
                threads,
                job: job.clone(),
                schedule: spec.schedule.clone(),
                seed: spec.seed,
                success: spec.success.clone(),
                timeout: spec.timeout,
                left: left.clone(),
                backlog: crew.backlog.clone(),
                published: published.clone(),
                cancel: stop.clone(),
            };
            let (ready, readied) = oneshot::channel();
            let (start, started) = oneshot::channel();
            let line = Line { ready, start: started, finished: report.clone() };
            let handle = std::thread::Builder::new()
                .name(format!("load-{number}"))
                .spawn(move || thread::run(assignment, line))
                .map_err(LoadError::Thread)?;
            crew.handles.push(handle);
            crew.starts.push(start);
            crew.published.push(published);
            readies.push(readied);
        }
        for ready in readies {
            ready.await.map_err(|_| LoadError::ThreadLost)?.map_err(LoadError::Thread)?;
        }
        Ok(crew)
    }

    /// Lets all threads go at the same instant.
    fn start(&mut self) -> Instant {
        let start = Instant::now() + START_LEAD;
        for sender in self.starts.drain(..) {
            // A thread that is gone is noticed by its missing record.
            let _ = sender.send(start);
        }
        start
    }

    /// Publishes progress until all threads have delivered, and joins what they recorded.
    async fn work(
        &mut self,
        spec: &LoadSpec,
        start: Instant,
        progress: &ProgressSender,
    ) -> Result<Recorder, LoadError> {
        let mut ticks = tokio::time::interval(PUBLISH_INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut watch = Watch::default();
        let (mut sum, mut delivered) = (None::<Recorder>, 0);
        while delivered < self.handles.len() {
            tokio::select! {
                record = self.finished.recv() => {
                    let record = record.ok_or(LoadError::ThreadLost)??;
                    delivered += 1;
                    match &mut sum {
                        Some(sum) => {
                            sum.absorb(record).map_err(|source| LoadError::Histogram(source.into()))?;
                        }
                        None => sum = Some(record),
                    }
                }
                _ = ticks.tick() => {
                    let now = self.progress(spec, start, &mut watch)?;
                    progress.send_replace(now);
                }
            }
        }
        let sum = sum.ok_or(LoadError::ThreadLost)?;
        progress.send_replace(Progress {
            done: sum.requests,
            total: spec.schedule.total(),
            elapsed: start.elapsed(),
            duration: spec.schedule.duration(),
            errors: sum.failed,
            rate: sum.requests as f64 / sum.last.as_secs_f64().max(f64::EPSILON),
            p50_micros: value_at(&sum.latency, 50.0),
            p99_micros: value_at(&sum.latency, 99.0),
        });
        Ok(sum)
    }

    fn progress(&self, spec: &LoadSpec, start: Instant, watch: &mut Watch) -> Result<Progress, LoadError> {
        let mut all = histogram().map_err(|source| LoadError::Histogram(source.into()))?;
        let (mut done, mut errors) = (0, 0);
        for published in &self.published {
            let published = published.lock().unwrap_or_else(PoisonError::into_inner);
            done += published.done;
            errors += published.failed;
            all.add(&published.latency).map_err(|source| LoadError::Histogram(source.into()))?;
        }
        let elapsed = start.elapsed();
        Ok(Progress {
            done,
            total: spec.schedule.total(),
            elapsed,
            duration: spec.schedule.duration(),
            errors,
            rate: watch.rate(elapsed, done),
            p50_micros: value_at(&all, 50.0),
            p99_micros: value_at(&all, 99.0),
        })
    }

    /// Waits for the threads' end, so that none of their connections is open any more.
    async fn dismiss(&mut self) {
        let handles = std::mem::take(&mut self.handles);
        let joined =
            tokio::task::spawn_blocking(move || handles.into_iter().try_for_each(|handle| handle.join()));
        // A thread that panicked after it delivered its record changes nothing about the result.
        let _ = joined.await;
    }
}

/// The last few progress figures, for the current rate.
#[derive(Debug, Default)]
struct Watch {
    seen: VecDeque<(Duration, u64)>,
}

impl Watch {
    fn rate(&mut self, elapsed: Duration, done: u64) -> f64 {
        self.seen.push_back((elapsed, done));
        if self.seen.len() > RATE_WINDOW + 1 {
            self.seen.pop_front();
        }
        let (since, before) = self.seen[0];
        let seconds = elapsed.saturating_sub(since).as_secs_f64();
        if seconds > 0.0 { done.saturating_sub(before) as f64 / seconds } else { 0.0 }
    }
}
