//! Handing out requests to clients: the one place where a closed and an open loop differ.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

/// Pause of a closed loop's client after it could not connect. A refusal takes microseconds: without a pause a
/// service that is down would be asked millions of times, and a count of requests would be over at once.
pub(crate) const CONNECT_PAUSE: Duration = Duration::from_millis(10);

/// When a request is meant to be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ticket {
    Now,
    Due(Instant),
}

pub(crate) enum Feed {
    Closed(ClosedFeed),
    Open(OpenFeed),
}

impl Feed {
    /// The next request to make; None when there will be no more.
    pub async fn next(&mut self) -> Option<Ticket> {
        match self {
            Feed::Closed(feed) => feed.next().await,
            Feed::Open(feed) => feed.next().await,
        }
    }

    /// What to do when the last request could not even connect.
    pub async fn rest(&self) {
        if let Feed::Closed(_) = self {
            tokio::time::sleep(CONNECT_PAUSE).await;
        }
    }
}

/// How many requests a client of a closed loop makes.
pub(crate) enum Quota {
    Own(u64),
    Shared(Arc<AtomicU64>),
    Until(Instant),
}

impl Quota {
    fn take(&mut self) -> bool {
        match self {
            Quota::Own(left) => match left.checked_sub(1) {
                Some(less) => {
                    *left = less;
                    true
                }
                None => false,
            },
            Quota::Shared(left) => {
                left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
            }
            Quota::Until(end) => Instant::now() < *end,
        }
    }
}

pub(crate) struct ClosedFeed {
    quota: Quota,
    think: Duration,
    first: bool,
}

impl ClosedFeed {
    pub fn new(quota: Quota, think: Duration) -> ClosedFeed {
        ClosedFeed { quota, think, first: true }
    }

    async fn next(&mut self) -> Option<Ticket> {
        let first = std::mem::replace(&mut self.first, false);
        if !first && !self.think.is_zero() {
            if let Quota::Until(end) = &self.quota
                && Instant::now() + self.think >= *end
            {
                return None;
            }
            tokio::time::sleep(self.think).await;
        }
        self.quota.take().then_some(Ticket::Now)
    }
}

/// Requests of all threads that are due and wait for a free connection.
#[derive(Debug)]
pub(crate) struct Backlog {
    waiting: AtomicU64,
    most: AtomicU64,
    limit: u64,
}

impl Backlog {
    pub fn new(limit: usize) -> Backlog {
        Backlog { waiting: AtomicU64::new(0), most: AtomicU64::new(0), limit: limit as u64 }
    }

    /// The most that ever waited at the same time.
    pub fn most(&self) -> u64 {
        self.most.load(Ordering::Relaxed)
    }

    fn enter(&self) -> bool {
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        if before >= self.limit {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return false;
        }
        self.most.fetch_max(before + 1, Ordering::Relaxed);
        true
    }

    fn leave(&self, count: u64) {
        self.waiting.fetch_sub(count, Ordering::Relaxed);
    }
}

/// What became of a request that is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offered {
    /// A client that waited has it.
    Taken,
    /// Nobody waits, but another connection may be opened: the caller starts a client with it.
    NeedsClient,
    /// It waits for a connection.
    Queued,
    /// The backlog is at its limit.
    Dropped,
}

/// One thread's part of an open loop: requests due on one side, clients on the other.
///
/// Clients that wait are taken last in, first out: then there are as many connections as the service's latency
/// needs, and the ones in use are warm.
pub(crate) struct OpenLoop {
    due: RefCell<VecDeque<Instant>>,
    idle: RefCell<Vec<Rc<Seat>>>,
    finished: Cell<bool>,
    clients: Cell<u32>,
    max_clients: u32,
    backlog: Arc<Backlog>,
}

/// Where a waiting client finds its next request.
#[derive(Default)]
struct Seat {
    state: Cell<SeatState>,
    waker: RefCell<Option<Waker>>,
}

#[derive(Default, Clone, Copy)]
enum SeatState {
    #[default]
    Waiting,
    Given(Instant),
    Dismissed,
}

impl Seat {
    fn settle(&self, state: SeatState) {
        self.state.set(state);
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }
}

impl OpenLoop {
    pub fn new(max_clients: u32, backlog: Arc<Backlog>) -> OpenLoop {
        OpenLoop {
            due: RefCell::default(),
            idle: RefCell::default(),
            finished: Cell::new(false),
            clients: Cell::new(0),
            max_clients,
            backlog,
        }
    }

    pub fn offer(&self, due: Instant) -> Offered {
        if let Some(seat) = self.idle.borrow_mut().pop() {
            seat.settle(SeatState::Given(due));
            Offered::Taken
        } else if self.clients.get() < self.max_clients {
            self.clients.set(self.clients.get() + 1);
            Offered::NeedsClient
        } else if self.backlog.enter() {
            self.due.borrow_mut().push_back(due);
            Offered::Queued
        } else {
            Offered::Dropped
        }
    }

    /// No more requests will be offered: clients leave when nothing waits.
    pub fn finish(&self) {
        self.finished.set(true);
        for seat in self.idle.take() {
            seat.settle(SeatState::Dismissed);
        }
    }

    /// Gives up on what still waits, and says how many requests that were.
    pub fn abandon(&self) -> u64 {
        let abandoned = self.due.take().len() as u64;
        self.backlog.leave(abandoned);
        abandoned
    }

    fn take_due(&self) -> Option<Instant> {
        let due = self.due.borrow_mut().pop_front()?;
        self.backlog.leave(1);
        Some(due)
    }
}

pub(crate) struct OpenFeed {
    open: Rc<OpenLoop>,
    seat: Rc<Seat>,
    first: Option<Instant>,
}

impl OpenFeed {
    /// For a client that is started because `first` is due.
    pub fn new(open: Rc<OpenLoop>, first: Instant) -> OpenFeed {
        OpenFeed { open, seat: Rc::default(), first: Some(first) }
    }

    async fn next(&mut self) -> Option<Ticket> {
        if let Some(due) = self.first.take().or_else(|| self.open.take_due()) {
            return Some(Ticket::Due(due));
        }
        if self.open.finished.get() {
            return None;
        }
        self.seat.state.set(SeatState::Waiting);
        self.open.idle.borrow_mut().push(self.seat.clone());
        poll_fn(|cx| match self.seat.state.get() {
            SeatState::Given(due) => Poll::Ready(Some(Ticket::Due(due))),
            SeatState::Dismissed => Poll::Ready(None),
            SeatState::Waiting => {
                *self.seat.waker.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn quotas_are_exact() {
        let mut own = ClosedFeed::new(Quota::Own(3), Duration::ZERO);
        let mut count = 0;
        while own.next().await.is_some() {
            count += 1;
        }
        assert_eq!(count, 3);
        let left = Arc::new(AtomicU64::new(5));
        let mut feeds: Vec<_> =
            (0..3).map(|_| ClosedFeed::new(Quota::Shared(left.clone()), Duration::ZERO)).collect();
        let mut taken = 0;
        for turn in 0..30 {
            taken += u32::from(feeds[turn % 3].next().await.is_some());
        }
        assert_eq!(taken, 5);
        let mut over = ClosedFeed::new(Quota::Until(Instant::now()), Duration::ZERO);
        assert_eq!(over.next().await, None);
    }

    #[tokio::test]
    async fn requests_wait_in_order_up_to_the_limit() {
        let backlog = Arc::new(Backlog::new(2));
        let open = Rc::new(OpenLoop::new(1, backlog.clone()));
        let times: Vec<_> = (0..5).map(|i| Instant::now() + Duration::from_secs(i)).collect();
        let offered: Vec<_> = times[..4].iter().map(|due| open.offer(*due)).collect();
        use Offered::{Dropped, NeedsClient, Queued};
        assert_eq!(offered, [NeedsClient, Queued, Queued, Dropped]);
        let mut feed = OpenFeed::new(open.clone(), times[0]);
        for due in &times[..3] {
            assert_eq!(feed.next().await, Some(Ticket::Due(*due)));
        }
        assert_eq!(backlog.most(), 2);
        // With nothing due the client waits, and the next request wakes it.
        let (next, offered) = tokio::join!(feed.next(), async {
            tokio::task::yield_now().await;
            open.offer(times[4])
        });
        assert_eq!((next, offered), (Some(Ticket::Due(times[4])), Offered::Taken));
        open.finish();
        assert_eq!(feed.next().await, None);
    }

    #[tokio::test]
    async fn the_client_that_waited_least_goes_first() {
        let open = Rc::new(OpenLoop::new(2, Arc::new(Backlog::new(0))));
        let now = Instant::now();
        let (mut a, mut b) = (OpenFeed::new(open.clone(), now), OpenFeed::new(open.clone(), now));
        a.next().await;
        b.next().await;
        let due = now + Duration::from_secs(1);
        let (first, second, ()) = tokio::join!(a.next(), b.next(), async {
            assert_eq!(open.offer(due), Offered::Taken);
            tokio::task::yield_now().await;
            open.finish();
        });
        assert_eq!((first, second), (None, Some(Ticket::Due(due))));
    }

    #[tokio::test]
    async fn what_is_abandoned_is_counted_and_frees_the_backlog() {
        let backlog = Arc::new(Backlog::new(10));
        let open = OpenLoop::new(0, backlog.clone());
        for _ in 0..7 {
            assert_eq!(open.offer(Instant::now()), Offered::Queued);
        }
        assert_eq!((open.abandon(), open.abandon(), backlog.most()), (7, 0, 7));
        assert!(backlog.enter());
    }
}
