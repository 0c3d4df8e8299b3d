//! The threads that forward, and the one task that accepts for them.
//!
//! Each worker is a thread with a runtime of its own, so that a request never crosses threads. One listener accepts
//! for all and hands each connection to the worker with the fewest; a listener for each (SO_REUSEPORT) would let two
//! programs share a port without either of them noticing.

use crate::backends::Shared;
use crate::{ProtocolHint, connection};
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;
use tokio::runtime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Connections on their way to one worker.
const HANDOFF_QUEUE: usize = 1024;
/// How often idle connections to backends are looked through.
const PRUNE_INTERVAL: Duration = Duration::from_secs(5);
/// Pause after the kernel refused a connection for want of descriptors or memory: some must be closed first.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Stack of a worker thread; the futures themselves live on the heap.
const WORKER_STACK: usize = 1 << 20;

/// What a connection needs to know of its surroundings.
#[derive(Clone)]
pub(crate) struct Context {
    pub shared: Arc<Shared>,
    /// Index of the worker whose pools are used.
    pub worker: usize,
}

/// A client on its way to a worker.
struct Accepted {
    stream: TcpStream,
    peer: SocketAddr,
    permit: OwnedSemaphorePermit,
}

#[derive(Clone)]
struct Desk {
    hand: mpsc::Sender<Accepted>,
    open: Arc<AtomicUsize>,
}

/// The running threads of one proxy.
pub(crate) struct Workers {
    /// Ends every thread at once, whatever it is doing.
    pub stop: CancellationToken,
    /// One permit for each connection that may still be opened.
    pub slots: Arc<Semaphore>,
    ended: Vec<oneshot::Receiver<()>>,
    /// Open connections of each worker.
    open: Vec<Arc<AtomicUsize>>,
}

impl Workers {
    /// Starts the threads; the first one also accepts from `listener`, which is nonblocking.
    pub fn start(shared: &Arc<Shared>, listener: TcpListener, hint: ProtocolHint) -> io::Result<Workers> {
        let stop = CancellationToken::new();
        let slots = Arc::new(Semaphore::new(shared.limits.max_connections));
        let mut workers =
            Workers { stop: stop.clone(), slots: slots.clone(), ended: Vec::new(), open: Vec::new() };
        let (mut desks, mut inboxes) = (Vec::new(), Vec::new());
        for _ in 0..shared.limits.workers {
            let (hand, inbox) = mpsc::channel(HANDOFF_QUEUE);
            let open: Arc<AtomicUsize> = Arc::default();
            workers.open.push(open.clone());
            desks.push(Desk { hand, open });
            inboxes.push(inbox);
        }
        let mut accepting = Some((listener, desks.clone(), slots));
        for (worker, inbox) in inboxes.into_iter().enumerate() {
            let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
            let (alive, ended) = oneshot::channel();
            workers.ended.push(ended);
            let context = Context { shared: shared.clone(), worker };
            let (stop, open) = (stop.clone(), desks[worker].open.clone());
            let accepting = accepting.take();
            thread::Builder::new().name(format!("proxy-{worker}")).stack_size(WORKER_STACK).spawn(
                move || {
                    let _alive: oneshot::Sender<()> = alive;
                    runtime.block_on(async {
                        if let Some((listener, desks, slots)) = accepting {
                            tokio::spawn(accept(listener, desks, slots, context.shared.clone()));
                        }
                        tokio::spawn(prune(context.clone()));
                        tokio::spawn(serve(context, inbox, open, hint));
                        // Returning drops the runtime and closes every connection that is still open.
                        stop.cancelled().await;
                    });
                },
            )?;
        }
        Ok(workers)
    }

    /// Client connections open now.
    pub fn open(&self) -> usize {
        self.open.iter().map(|open| open.load(Relaxed)).sum()
    }

    /// Waits until every connection has ended.
    pub async fn idle(&self, max_connections: usize) {
        // Closed semaphores and too large counts are the only errors; neither can occur.
        let all = u32::try_from(max_connections).unwrap_or(u32::MAX);
        let _ = self.slots.acquire_many(all).await;
    }

    /// Ends the threads and waits until their sockets are closed.
    pub async fn end(&mut self) {
        self.stop.cancel();
        for ended in self.ended.drain(..) {
            // The sender is dropped, never used: the error is the signal.
            let _ = ended.await;
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Counts a worker's open connections down again however they end.
struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

async fn serve(
    context: Context,
    mut inbox: mpsc::Receiver<Accepted>,
    open: Arc<AtomicUsize>,
    hint: ProtocolHint,
) {
    while let Some(Accepted { stream, peer, permit }) = inbox.recv().await {
        let (context, open) = (context.clone(), Open(open.clone()));
        tokio::spawn(async move {
            // An error means that the client is gone already.
            if let Ok(client) = tokio::net::TcpStream::from_std(stream)
                && client.set_nodelay(true).is_ok()
            {
                connection::serve(context, client, peer, hint).await;
            }
            drop((permit, open));
        });
    }
}

async fn accept(listener: TcpListener, desks: Vec<Desk>, slots: Arc<Semaphore>, shared: Arc<Shared>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    let forever = async {
        loop {
            let Ok(permit) = slots.clone().acquire_owned().await else { return };
            // Taken out of this thread's poller again, to be put into that of the worker it goes to.
            let accepted = listener.accept().await.and_then(|(s, peer)| Ok((s.into_std()?, peer)));
            let Ok((stream, peer)) = accepted else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            shared.counters.accepted.fetch_add(1, Relaxed);
            if let Some(desk) = desks.iter().min_by_key(|d| d.open.load(Relaxed)) {
                desk.open.fetch_add(1, Relaxed);
                // Fails only when the worker has ended, and then the proxy is going down.
                let _ = desk.hand.send(Accepted { stream, peer, permit }).await;
            }
        }
    };
    // The listener is closed as soon as the proxy begins to shut down.
    tokio::select! {
        () = shared.closing.cancelled() => {}
        () = forever => {}
    }
}

async fn prune(context: Context) {
    let mut ticks = tokio::time::interval(PRUNE_INTERVAL);
    loop {
        ticks.tick().await;
        for backend in context.shared.ready().iter() {
            backend.pools[context.worker].prune(context.shared.limits.idle_timeout);
        }
    }
}
