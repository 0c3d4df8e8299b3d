//! Who has been tried for one request, and how often that may go on.

use crate::backends::{BackendState, Lease, Shared, Unavailable};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::time::Instant;

/// The first pause before backends that have all refused are asked again; each further one is twice as long, up to
/// [`PAUSE_MOST`].
const PAUSE: Duration = Duration::from_millis(2);
const PAUSE_MOST: Duration = Duration::from_millis(100);

/// A try that nothing has come of, so that another one does no harm.
pub(crate) enum Miss {
    /// Nobody listens there.
    Refused(Arc<BackendState>),
    /// Nobody took the connection in time: as many wait for that as the backend's kernel lets wait, or it is cut off.
    Busy(Arc<BackendState>),
    /// A new connection was closed with the request unread.
    Closed(Arc<BackendState>),
    /// A connection that was kept from before turned out to be closed.
    Stale,
}

impl Miss {
    /// Of a connection that was not made.
    pub fn of_connecting(error: &io::Error, backend: Arc<BackendState>) -> Miss {
        match error.kind() {
            io::ErrorKind::TimedOut => Miss::Busy(backend),
            _ => Miss::Refused(backend),
        }
    }
}

/// The tries of one request. Backends that cannot be reached are passed over; where all of those have been, or as many
/// as are allowed, they are asked again for a while: who has just started may not listen yet, and who is busy will take
/// a connection when others have gone.
pub(crate) struct Tries {
    shared: Arc<Shared>,
    unreachable: Vec<Arc<BackendState>>,
    left: u32,
    /// How often the request may still be sent anew after it has been sent.
    resends: u32,
    busy: bool,
    begin: Instant,
    pause: Duration,
}

impl Tries {
    pub fn new(shared: &Arc<Shared>) -> Tries {
        let retries = shared.limits.retries;
        Tries {
            shared: shared.clone(),
            unreachable: Vec::new(),
            left: retries,
            resends: retries,
            busy: false,
            begin: Instant::now(),
            pause: PAUSE,
        }
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

    /// Whether to try once more.
    pub async fn again(&mut self, miss: Miss) -> bool {
        let unreachable = match miss {
            Miss::Refused(backend) => Some(backend),
            Miss::Busy(backend) => {
                self.busy = true;
                Some(backend)
            }
            Miss::Closed(_) if self.resends == 0 => return false,
            Miss::Closed(backend) => {
                self.resends -= 1;
                Some(backend)
            }
            Miss::Stale => None,
        };
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
        let limits = &self.shared.limits;
        let patience = if self.busy { limits.hold_timeout } else { limits.listen_timeout };
        if self.begin.elapsed() >= patience {
            return false;
        }
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_MOST);
        self.unreachable.clear();
        self.left = self.shared.limits.retries;
        true
    }
}
