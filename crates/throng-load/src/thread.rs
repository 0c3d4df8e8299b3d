//! One thread of a load: a runtime of its own, on which clients and the pacer of an open loop are tasks.

use crate::arrivals::ArrivalTimes;
use crate::client::{Client, ClientPool, Job, Outcome};
use crate::connection::scratch;
use crate::error::{ErrorKind, LoadError};
use crate::feed::{Backlog, ClosedFeed, Feed, Offered, OpenFeed, OpenLoop, Quota, Ticket};
use crate::record::{Ended, Recorder, histogram};
use crate::spec::{Requests, Schedule, SuccessRule};
use crate::timer::PreciseTimer;
use hdrhistogram::Histogram;
use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, LocalRuntime};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// How often a thread publishes how far it is.
pub(crate) const PUBLISH_INTERVAL: Duration = Duration::from_millis(200);
/// Requests that are handed out in a row before clients get a turn, when many are due at once.
const PACER_BURST: u32 = 16;
/// Tasks that run before the runtime asks the kernel what else is ready. Lower means fresher arrival times of
/// answers, higher means fewer system calls.
const EVENT_INTERVAL: u32 = 61;

/// What a thread needs to know; the same for all but `number`.
pub(crate) struct Assignment {
    pub number: usize,
    pub threads: usize,
    pub job: Arc<Job>,
    pub schedule: Schedule,
    pub seed: u64,
    pub success: SuccessRule,
    pub timeout: Duration,
    /// Requests left to all clients, for a shared total.
    pub left: Arc<AtomicU64>,
    pub backlog: Arc<Backlog>,
    pub published: Arc<Mutex<Published>>,
    pub cancel: CancellationToken,
}

/// How far one thread is.
pub(crate) struct Published {
    pub done: u64,
    pub failed: u64,
    pub latency: Histogram<u64>,
}

impl Published {
    pub fn new() -> Result<Published, LoadError> {
        let latency = histogram().map_err(|source| LoadError::Histogram(source.into()))?;
        Ok(Published { done: 0, failed: 0, latency })
    }
}

/// Where a thread reports to, and hears from.
pub(crate) struct Line {
    /// Told once, when the thread could start.
    pub ready: oneshot::Sender<io::Result<()>>,
    /// When the load starts; dropped if it does not.
    pub start: oneshot::Receiver<Instant>,
    pub finished: mpsc::Sender<Result<Recorder, LoadError>>,
}

/// The body of the thread.
pub(crate) fn run(assignment: Assignment, line: Line) {
    let prepared = Builder::new_current_thread()
        .enable_all()
        .event_interval(EVENT_INTERVAL)
        .build_local(Default::default())
        .and_then(|runtime| {
            let timer = runtime.block_on(async { PreciseTimer::new() })?;
            Ok((runtime, timer))
        });
    let (runtime, timer) = match prepared {
        Ok(prepared) => {
            // Nobody listens any more if the load was given up meanwhile; `start` tells so too.
            let _ = line.ready.send(Ok(()));
            prepared
        }
        Err(error) => {
            let _ = line.ready.send(Err(error));
            return;
        }
    };
    let Ok(start) = line.start.blocking_recv() else { return };
    let record = carry_out(&runtime, timer, assignment, start);
    // Connections are closed before the result is given, so that nothing is left when `run` returns. That it is
    // wanted no more is no concern of this thread.
    drop(runtime);
    let _ = line.finished.blocking_send(record);
}

fn carry_out(
    runtime: &LocalRuntime,
    timer: PreciseTimer,
    assignment: Assignment,
    start: Instant,
) -> Result<Recorder, LoadError> {
    let recorder = Recorder::new(start).map_err(|source| LoadError::Histogram(source.into()))?;
    let pool = ClientPool::new(assignment.job.clone(), scratch(), assignment.number);
    let cancel = assignment.cancel.clone();
    let lane = Rc::new(Lane { assignment, pool, recorder: RefCell::new(recorder), start });
    runtime.block_on(async {
        // A start that is a little late is in the latencies of the first requests, where it belongs.
        let _ = timer.until(start).await;
        let (alive, mut all_gone) = mpsc::channel::<()>(1);
        start_clients(&lane, timer, &alive);
        drop(alive);
        let publisher = tokio::task::spawn_local(publish(lane.clone()));
        tokio::select! {
            _ = all_gone.recv() => {}
            () = cancel.cancelled() => {}
        }
        publisher.abort();
    });
    let empty = Recorder::new(start).map_err(|source| LoadError::Histogram(source.into()))?;
    Ok(lane.recorder.replace(empty))
}

/// What the tasks of one thread share.
struct Lane {
    assignment: Assignment,
    pool: ClientPool,
    recorder: RefCell<Recorder>,
    start: Instant,
}

/// Held by every task that may still make requests; when all are dropped, the thread's work is done.
type Alive = mpsc::Sender<()>;

fn start_clients(lane: &Rc<Lane>, timer: PreciseTimer, alive: &Alive) {
    let (number, threads) = (lane.assignment.number, lane.assignment.threads);
    match lane.assignment.schedule.clone() {
        Schedule::Closed { requests, think, .. } => {
            for client in (number..lane.assignment.schedule.connections() as usize).step_by(threads) {
                let quota = match requests {
                    Requests::PerClient(count) => Quota::Own(count),
                    Requests::Total(_) => Quota::Shared(lane.assignment.left.clone()),
                    Requests::For(duration) => Quota::Until(lane.start + duration),
                };
                let feed = Feed::Closed(ClosedFeed::new(quota, think));
                tokio::task::spawn_local(serve(lane.clone(), feed, client, alive.clone()));
            }
        }
        Schedule::Open { rate, duration, arrivals, max_connections } => {
            let share = (number..max_connections as usize).step_by(threads).len() as u32;
            let open = Rc::new(OpenLoop::new(share, lane.assignment.backlog.clone()));
            let times = ArrivalTimes::new(rate, duration, arrivals, lane.assignment.seed)
                .skip(number)
                .step_by(threads);
            let end = lane.start + duration;
            tokio::task::spawn_local(pace(lane.clone(), open, times, end, timer, alive.clone()));
        }
    }
}

/// A client: request after request, as long as the feed has any.
async fn serve(lane: Rc<Lane>, mut feed: Feed, turn: usize, _alive: Alive) {
    let mut client = Client::new(&lane.pool, turn);
    while let Some(ticket) = feed.next().await {
        let outcome = client.request(&lane.pool).await;
        let no_connection = matches!(
            outcome.result,
            Err(ErrorKind::Connect | ErrorKind::Tls | ErrorKind::LocalDescriptors | ErrorKind::LocalPorts)
        );
        lane.record(ticket, &outcome, &client);
        if no_connection {
            feed.rest().await;
        }
    }
}

/// Offers every request of this thread at its time, then waits for those in the backlog, but no longer than
/// one request may take.
async fn pace(
    lane: Rc<Lane>,
    open: Rc<OpenLoop>,
    times: impl Iterator<Item = Duration>,
    end: Instant,
    timer: PreciseTimer,
    alive: Alive,
) {
    let (mut turn, mut burst) = (lane.assignment.number, 0);
    for time in times {
        let due = lane.start + time;
        if due > Instant::now() {
            burst = 0;
            if timer.until(due).await.is_err() {
                // Without its timer the thread cannot keep to the schedule; tokio's is a millisecond worse.
                tokio::time::sleep_until(due.into()).await;
            }
        } else if burst == PACER_BURST {
            burst = 0;
            tokio::task::yield_now().await;
        }
        burst += 1;
        match open.offer(due) {
            Offered::Taken | Offered::Queued => {}
            Offered::Dropped => lane.recorder.borrow_mut().record_unsent(1, ErrorKind::Dropped),
            Offered::NeedsClient => {
                let feed = Feed::Open(OpenFeed::new(open.clone(), due));
                tokio::task::spawn_local(serve(lane.clone(), feed, turn, alive.clone()));
                turn += lane.assignment.threads;
            }
        }
    }
    tokio::time::sleep_until(end.into()).await;
    open.finish();
    drop(alive);
    tokio::time::sleep_until((end + lane.assignment.timeout).into()).await;
    let unsent = open.abandon();
    lane.recorder.borrow_mut().record_unsent(unsent, ErrorKind::Unsent);
}

async fn publish(lane: Rc<Lane>) {
    let mut ticks = tokio::time::interval(PUBLISH_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let recorder = lane.recorder.borrow();
        // A reader that panicked left the figures whole: they are only ever replaced.
        let mut published = lane.assignment.published.lock().unwrap_or_else(PoisonError::into_inner);
        published.done = recorder.requests;
        published.failed = recorder.failed;
        // Both have the same bounds, so that this cannot fail.
        let _ = published.latency.set_to(&recorder.latency);
    }
}

impl Lane {
    fn record(&self, ticket: Ticket, outcome: &Outcome, client: &Client) {
        let failure = match outcome.result {
            Ok(status) if self.assignment.success.accepts(status) => client.refusal(),
            Ok(status) => Some(ErrorKind::Status(status)),
            Err(kind) => Some(kind),
        };
        self.recorder.borrow_mut().record(&Ended {
            intended: match ticket {
                Ticket::Now => outcome.started,
                Ticket::Due(due) => due,
            },
            finished: outcome.finished,
            status: outcome.result.ok(),
            failure,
            replica: outcome.result.ok().and(client.replica()),
            sent: outcome.traffic.sent,
            received: outcome.traffic.received,
        });
    }
}
