//! The ready backends of one proxy, what each has in flight, and how one leaves.
//!
//! ```text
//!              set_backends names it                set_backends leaves it out
//!   (unknown) ───────────────────────> ready ──────────────────────────────────> leaving ──> forgotten
//!                                        │  picked: a Lease counts it in flight     │  once nothing is in flight
//!                                        └──────────────────────────────────────────┘
//! ```
//!
//! What must stay true: once `set_backends` has returned, nobody gets a new [`Lease`] of a backend it left out. A
//! lease therefore raises the count first and looks at `leaving` after that, while `set_backends` writes `leaving`
//! first and readers of the count come after; with sequential consistency one of the two sees the other.

use crate::counted::Counted;
use crate::policy::{SplitMix64, pick_of_two};
use crate::pool::{IdleCount, WorkerPool};
use crate::{Backend, Dial, Limits};
use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

/// Locks what no holder of the lock can leave half changed, so that a panic elsewhere does not spread.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One backend at one address; the same name at a new address is another one.
pub(crate) struct BackendState {
    pub name: String,
    pub address: SocketAddr,
    /// One pool for each worker: a connection stays on the thread whose poller knows it.
    pub pools: Box<[WorkerPool]>,
    pub connect_failures: AtomicU64,
    requests: AtomicU64,
    in_flight: AtomicUsize,
    leaving: AtomicBool,
}

impl BackendState {
    fn new(backend: &Backend, idle: &[IdleCount]) -> Self {
        BackendState {
            name: backend.name.clone(),
            address: backend.address,
            pools: idle.iter().map(|count| WorkerPool::new(count.clone())).collect(),
            connect_failures: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            leaving: AtomicBool::new(false),
        }
    }

    pub fn in_flight(&self) -> usize {
        self.in_flight.load(SeqCst)
    }

    pub fn requests(&self) -> u64 {
        self.requests.load(SeqCst)
    }

    pub fn is_leaving(&self) -> bool {
        self.leaving.load(SeqCst)
    }
}

type Ready = Arc<[Arc<BackendState>]>;

/// Counters of one proxy since it was bound.
#[derive(Default)]
pub(crate) struct Counters {
    pub accepted: AtomicU64,
    pub requests: AtomicU64,
    pub retries: AtomicU64,
    pub failed: AtomicU64,
    pub refused: AtomicU64,
    pub hold_timeouts: AtomicU64,
    pub hold_overflows: AtomicU64,
}

/// What every connection of a proxy shares.
pub(crate) struct Shared {
    pub limits: Limits,
    pub dial: Option<Dial>,
    pub counters: Counters,
    /// Idle connections to backends, of each worker.
    pub idle: Box<[IdleCount]>,
    /// Fired when the proxy takes no new work: finish what is under way, then close.
    pub closing: CancellationToken,
    ready: watch::Sender<Ready>,
    leaving: Mutex<Vec<Arc<BackendState>>>,
    held: AtomicUsize,
    random: SplitMix64,
    /// Wakes those who wait in [`Shared::drained`] when a backend's last request has ended.
    emptied: Notify,
    drain_waiters: AtomicUsize,
    /// Wakes those who wait in [`Shared::someone_held`] when one more is held.
    holding: Notify,
}

/// Why nobody can take a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unavailable {
    /// No backend became ready in time.
    TimedOut,
    /// As many as allowed are waiting already.
    TooManyHeld,
    /// Every ready backend has been tried for this request.
    AllTried,
    /// The proxy is shutting down.
    Closing,
}

/// The right to send one request or connection to a backend; while it lives, that backend counts it in flight.
pub(crate) struct Lease {
    pub backend: Arc<BackendState>,
    shared: Arc<Shared>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        let before = self.backend.in_flight.fetch_sub(1, SeqCst);
        if before == 1 && self.backend.is_leaving() {
            // Whatever was being connected when it left has been put into its pools since.
            self.backend.pools.iter().for_each(WorkerPool::clear);
        }
        if before == 1 && self.shared.drain_waiters.load(SeqCst) > 0 {
            self.shared.emptied.notify_waiters();
        }
    }
}

impl Shared {
    pub fn new(limits: Limits, dial: Option<Dial>, seed: u64) -> Self {
        Shared {
            idle: (0..limits.workers).map(|_| IdleCount::default()).collect(),
            limits,
            dial,
            counters: Counters::default(),
            closing: CancellationToken::new(),
            ready: watch::Sender::new(Arc::from([])),
            leaving: Mutex::default(),
            held: AtomicUsize::new(0),
            random: SplitMix64::new(seed),
            emptied: Notify::new(),
            drain_waiters: AtomicUsize::new(0),
            holding: Notify::new(),
        }
    }

    /// Makes exactly `backends` the ready ones. A backend that stays keeps its connections and counts.
    pub fn set_backends(&self, backends: Vec<Backend>) {
        // Held throughout, so that two callers cannot each keep what the other has removed.
        let mut leaving = lock(&self.leaving);
        let old = self.ready.borrow().clone();
        let mut known: HashMap<(&str, SocketAddr), &Arc<BackendState>> =
            old.iter().map(|backend| ((backend.name.as_str(), backend.address), backend)).collect();
        let mut named = HashSet::with_capacity(backends.len());
        let mut next: Vec<Arc<BackendState>> = Vec::with_capacity(backends.len());
        for backend in &backends {
            let key = (backend.name.as_str(), backend.address);
            if !named.insert(key) {
                continue;
            }
            let kept = known.remove(&key).cloned();
            next.push(kept.unwrap_or_else(|| Arc::new(BackendState::new(backend, &self.idle))));
        }
        let gone: Vec<_> = known.into_values().cloned().collect();
        self.ready.send_replace(next.into());
        for backend in gone {
            backend.leaving.store(true, SeqCst);
            backend.pools.iter().for_each(WorkerPool::clear);
            leaving.push(backend);
        }
        leaving.retain(|b| b.in_flight() > 0);
    }

    pub fn ready(&self) -> Ready {
        self.ready.borrow().clone()
    }

    /// Those taken out of the set that still have something in flight.
    pub fn leaving(&self) -> Vec<Arc<BackendState>> {
        let mut leaving = lock(&self.leaving);
        leaving.retain(|b| b.in_flight() > 0);
        leaving.clone()
    }

    pub fn held(&self) -> usize {
        self.held.load(SeqCst)
    }

    /// All that is in flight or held.
    pub fn under_way(&self) -> usize {
        let of = |list: &[Arc<BackendState>]| -> usize { list.iter().map(|b| b.in_flight()).sum() };
        let leaving = lock(&self.leaving);
        of(&leaving) + of(&self.ready.borrow()) + self.held()
    }

    /// Waits until something is held.
    pub async fn someone_held(&self) {
        loop {
            let holding = self.holding.notified();
            tokio::pin!(holding);
            // Registered before the count is read: one that comes in between is not missed.
            holding.as_mut().enable();
            if self.held() > 0 {
                return;
            }
            holding.await;
        }
    }

    pub fn in_flight(&self, name: &str) -> usize {
        let of = |list: &[Arc<BackendState>]| -> usize {
            list.iter().filter(|b| b.name == name).map(|b| b.in_flight()).sum()
        };
        // The lock keeps a backend from moving between the two lists while they are added up.
        let leaving = lock(&self.leaving);
        of(&leaving) + of(&self.ready.borrow())
    }

    /// Waits until nothing is in flight at `name`; false if that has not come to pass within `timeout`.
    pub async fn drained(&self, name: &str, timeout: Duration) -> bool {
        let _waiting = Counted::new(&self.drain_waiters);
        let empty = async {
            loop {
                let emptied = self.emptied.notified();
                tokio::pin!(emptied);
                // Registered before the count is read: an end in between is not missed.
                emptied.as_mut().enable();
                if self.in_flight(name) == 0 {
                    return;
                }
                emptied.await;
            }
        };
        tokio::time::timeout(timeout, empty).await.is_ok()
    }

    /// A lease of a ready backend that is not among `tried`, if there is one right now.
    fn try_lease(self: &Arc<Self>, tried: &[Arc<BackendState>]) -> Result<Lease, Unavailable> {
        loop {
            let ready = self.ready.borrow();
            let picked = if tried.is_empty() {
                pick_of_two(ready.len(), |i| ready[i].in_flight(), || self.random.next()).map(|i| &ready[i])
            } else {
                let untried: Vec<_> =
                    ready.iter().filter(|b| !tried.iter().any(|t| Arc::ptr_eq(t, b))).collect();
                pick_of_two(untried.len(), |i| untried[i].in_flight(), || self.random.next())
                    .map(|i| untried[i])
            };
            let Some(backend) = picked else {
                let none_left = !tried.is_empty() && !ready.is_empty();
                return Err(if none_left { Unavailable::AllTried } else { Unavailable::TimedOut });
            };
            backend.in_flight.fetch_add(1, SeqCst);
            let lease = Lease { backend: backend.clone(), shared: self.clone() };
            if !lease.backend.is_leaving() {
                lease.backend.requests.fetch_add(1, SeqCst);
                return Ok(lease);
            }
        }
    }

    /// A lease of a ready backend; with none ready, waits for one within the limits.
    pub async fn lease(self: &Arc<Self>, tried: &[Arc<BackendState>]) -> Result<Lease, Unavailable> {
        match self.try_lease(tried) {
            Err(Unavailable::TimedOut) => {}
            decided => return decided,
        }
        let held = Counted::new(&self.held);
        if held.count() > self.limits.max_held {
            self.counters.hold_overflows.fetch_add(1, SeqCst);
            return Err(Unavailable::TooManyHeld);
        }
        self.holding.notify_waiters();
        let mut changes = self.ready.subscribe();
        let released = async {
            loop {
                // Marked as seen before the look, so that a change after the look wakes this up.
                changes.borrow_and_update();
                match self.try_lease(tried) {
                    Err(Unavailable::TimedOut) => {}
                    decided => return decided,
                }
                if changes.changed().await.is_err() {
                    return Err(Unavailable::Closing);
                }
            }
        };
        tokio::select! {
            biased;
            decided = tokio::time::timeout(self.limits.hold_timeout, released) => decided.unwrap_or_else(|_| {
                self.counters.hold_timeouts.fetch_add(1, SeqCst);
                Err(Unavailable::TimedOut)
            }),
            () = self.closing.cancelled() => Err(Unavailable::Closing),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backend(name: &str, port: u16) -> Backend {
        Backend { name: name.into(), address: SocketAddr::from(([127, 0, 0, 1], port)) }
    }

    fn shared(limits: Limits) -> Arc<Shared> {
        Arc::new(Shared::new(limits, None, 7))
    }

    #[tokio::test(start_paused = true)]
    async fn a_held_lease_times_out_after_exactly_its_limit() {
        let shared = shared(Limits { hold_timeout: Duration::from_secs(30), ..Limits::default() });
        let begin = tokio::time::Instant::now();
        assert_eq!(shared.lease(&[]).await.err(), Some(Unavailable::TimedOut));
        assert_eq!(begin.elapsed().as_secs(), 30);
        assert_eq!(shared.held(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_held_lease_goes_to_the_first_ready_backend() {
        let shared = shared(Limits::default());
        let waiting = tokio::spawn({
            let shared = shared.clone();
            async move { shared.lease(&[]).await.map(|l| l.backend.name.clone()) }
        });
        while shared.held() == 0 {
            tokio::task::yield_now().await;
        }
        shared.set_backends(vec![backend("web-1", 1)]);
        assert_eq!(waiting.await.unwrap(), Ok("web-1".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn more_than_the_limit_are_not_held() {
        let shared = shared(Limits { max_held: 1, ..Limits::default() });
        let first = tokio::spawn({
            let shared = shared.clone();
            async move { shared.lease(&[]).await.err() }
        });
        while shared.held() == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(shared.lease(&[]).await.err(), Some(Unavailable::TooManyHeld));
        assert_eq!(first.await.unwrap(), Some(Unavailable::TimedOut));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_somebody_held_is_told_at_once() {
        let shared = shared(Limits::default());
        let told = tokio::spawn({
            let shared = shared.clone();
            async move { shared.someone_held().await }
        });
        tokio::task::yield_now().await;
        assert!(!told.is_finished());
        let lease = tokio::spawn({
            let shared = shared.clone();
            async move { shared.lease(&[]).await.is_ok() }
        });
        told.await.unwrap();
        assert_eq!(shared.under_way(), 1);
        // One that is held already counts as well.
        shared.someone_held().await;
        shared.set_backends(vec![backend("web-1", 1)]);
        assert!(lease.await.unwrap());
        assert_eq!(shared.under_way(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_backend_that_leaves_is_counted_until_its_last_lease_ends() {
        let shared = shared(Limits::default());
        shared.set_backends(vec![backend("web-1", 1)]);
        let lease = shared.lease(&[]).await.ok().unwrap();
        shared.set_backends(vec![backend("web-2", 2)]);
        assert_eq!(shared.in_flight("web-1"), 1);
        assert!(!shared.drained("web-1", Duration::from_secs(5)).await);
        let waiting = tokio::spawn({
            let shared = shared.clone();
            async move { shared.drained("web-1", Duration::from_secs(5)).await }
        });
        tokio::task::yield_now().await;
        drop(lease);
        assert!(waiting.await.unwrap());
        for _ in 0..50 {
            assert_eq!(shared.lease(&[]).await.ok().unwrap().backend.name, "web-2");
        }
        assert!(shared.leaving().is_empty());
    }

    #[tokio::test]
    async fn tried_backends_are_not_leased_again() {
        let shared = shared(Limits::default());
        shared.set_backends(vec![backend("a", 1), backend("b", 2), backend("b", 2)]);
        assert_eq!(shared.ready().len(), 2, "a backend named twice counts once");
        let first = shared.lease(&[]).await.ok().unwrap();
        let mut tried = vec![first.backend.clone()];
        let second = shared.lease(&tried).await.ok().unwrap();
        assert_ne!(first.backend.name, second.backend.name);
        tried.push(second.backend.clone());
        assert_eq!(shared.lease(&tried).await.err(), Some(Unavailable::AllTried));
    }
}
