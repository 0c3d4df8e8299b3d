//! Who has been tried for one request, and how often that may go on.

use crate::backends::{BackendState, Lease, Shared, Unavailable};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::time::Instant;

/// The first pause before backends that have all refused are asked again; each further one is twice as long, up to
/// [`PAUSE_MOST`].
const PAUSE: Duration = Duration::from_millis(2);
const PAUSE_MOST: Duration = Duration::from_millis(100);

/// The tries of one request. Backends that cannot be reached are passed over; where all of those have been, or as many
/// as are allowed, they are asked again for a while: who has just started may not listen yet.
pub(crate) struct Tries {
    shared: Arc<Shared>,
    unreachable: Vec<Arc<BackendState>>,
    left: u32,
    begin: Instant,
    pause: Duration,
}

impl Tries {
    pub fn new(shared: &Arc<Shared>) -> Tries {
        let left = shared.limits.retries;
        Tries { shared: shared.clone(), unreachable: Vec::new(), left, begin: Instant::now(), pause: PAUSE }
    }

    /// A lease of a ready backend that has not been passed over.
    pub async fn lease(&mut self) -> Result<Lease, Unavailable> {
        loop {
            match self.shared.lease(&self.unreachable).await {
                Err(Unavailable::AllTried) if self.rest().await => {}
                decided => return decided,
            }
        }
    }

    /// Whether to try once more after a try that nothing can have come of. `unreachable`: who could not be connected to.
    pub async fn again(&mut self, unreachable: Option<Arc<BackendState>>) -> bool {
        if self.left == 0 {
            return unreachable.is_some() && self.rest().await;
        }
        self.left -= 1;
        self.shared.counters.retries.fetch_add(1, Relaxed);
        self.unreachable.extend(unreachable);
        true
    }

    /// Waits a moment and forgets who was passed over; false if it has been long enough.
    async fn rest(&mut self) -> bool {
        if self.begin.elapsed() >= self.shared.limits.listen_timeout {
            return false;
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_MOST);
        self.unreachable.clear();
        self.left = self.shared.limits.retries;
        true
    }
}
