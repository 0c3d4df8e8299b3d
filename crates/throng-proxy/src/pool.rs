//! Connections to backends: making them, and keeping idle ones for the next request.

use crate::backends::{BackendState, Shared, lock};
use crate::counted::Counted;
use crate::h2c::Sender;
use rustix::io::Errno;
use std::io;
use std::mem::MaybeUninit;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::{TcpSocket, TcpStream};

/// Idle connections of one worker, to all backends together.
pub(crate) type IdleCount = Arc<AtomicUsize>;

/// What one worker keeps open to one backend.
pub(crate) struct WorkerPool {
    count: IdleCount,
    /// The most recently used is at the end and is taken first, so that the others grow old and are closed.
    idle: Mutex<Vec<Idle>>,
    /// The HTTP/2 connection that all requests share.
    pub h2: tokio::sync::Mutex<Option<Sender>>,
}

struct Idle {
    stream: TcpStream,
    since: Instant,
    _counted: Counted<IdleCount>,
}

impl WorkerPool {
    pub fn new(count: IdleCount) -> WorkerPool {
        WorkerPool { count, idle: Mutex::default(), h2: tokio::sync::Mutex::default() }
    }

    /// Takes an idle connection that the backend has not closed.
    ///
    /// With `most_rest` it has rested no longer than that, and the kernel is asked instead of the poller's last report: a
    /// closed connection that is found out only by sending on it costs a retry, and a request that must not be sent
    /// twice has none. One that has rested for long may be closed at the very moment.
    pub fn take(&self, most_rest: Option<Duration>) -> Option<TcpStream> {
        let mut idle = lock(&self.idle);
        // The others have rested longer than the last one.
        while idle.last().is_some_and(|last| most_rest.is_none_or(|most| last.since.elapsed() <= most)) {
            let Idle { stream, .. } = idle.pop()?;
            if is_quiet(&stream, most_rest.is_some()) {
                return Some(stream);
            }
        }
        None
    }

    pub fn put(&self, stream: TcpStream, backend: &BackendState, most: usize) {
        let mut idle = lock(&self.idle);
        // Looked at under the lock: `clear` comes after the mark was set, so nothing slips in behind it.
        if !backend.is_leaving() && idle.len() < most {
            idle.push(Idle { stream, since: Instant::now(), _counted: Counted::new(self.count.clone()) });
        }
    }

    /// Closes what has been idle since before this moment or from it on.
    fn close_until(&self, moment: Instant) {
        lock(&self.idle).retain(|idle| idle.since > moment);
    }

    /// Closes what is idle, because the backend leaves or has shown that it closed such connections.
    pub fn clear(&self) {
        lock(&self.idle).clear();
        if let Ok(mut sender) = self.h2.try_lock() {
            *sender = None;
        }
    }

    /// Closes connections that have been idle for `limit` or were closed by the backend.
    pub fn prune(&self, limit: Duration) {
        lock(&self.idle).retain(|i| i.since.elapsed() < limit && is_quiet(&i.stream, false));
    }
}

/// Closes the older half of a worker's idle connections. That looks at every backend, so it is worth its while only
/// where many are closed at once.
pub(crate) fn make_room(shared: &Shared, worker: usize) {
    if shared.idle[worker].load(Relaxed) == 0 {
        return;
    }
    let ready = shared.ready();
    let pools = || ready.iter().map(|backend| &backend.pools[worker]);
    let mut ages: Vec<Instant> =
        pools().flat_map(|pool| lock(&pool.idle).iter().map(|idle| idle.since).collect::<Vec<_>>()).collect();
    if ages.is_empty() {
        return;
    }
    let middle = (ages.len() - 1) / 2;
    let (_, moment, _) = ages.select_nth_unstable(middle);
    pools().for_each(|pool| pool.close_until(*moment));
}

/// An idle connection has nothing to read: bytes nobody asked for are as bad as its end.
fn is_quiet(stream: &TcpStream, certain: bool) -> bool {
    let looked = if certain {
        socket2::SockRef::from(stream).peek(&mut [MaybeUninit::uninit()])
    } else {
        stream.try_read(&mut [0])
    };
    matches!(looked, Err(e) if e.kind() == io::ErrorKind::WouldBlock)
}

/// A socket for a connection to a backend, not connected yet.
fn socket(shared: &Shared, backend: &BackendState) -> io::Result<TcpSocket> {
    match &shared.dial {
        Some(dial) => Ok(TcpSocket::from_std_stream(dial()?.into())),
        None if backend.address.is_ipv4() => TcpSocket::new_v4(),
        None => TcpSocket::new_v6(),
    }
}

/// No more descriptors, of this process or of the host.
fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// Makes a new TCP connection to a backend within the time allowed. Where descriptors have run out, idle connections of
/// `worker` give theirs.
pub(crate) async fn connect(shared: &Shared, worker: usize, backend: &BackendState) -> io::Result<TcpStream> {
    let made = tokio::time::timeout(shared.limits.connect_timeout, async {
        let socket = match socket(shared, backend) {
            Err(error) if is_out_of_descriptors(&error) => {
                make_room(shared, worker);
                socket(shared, backend)?
            }
            made => made?,
        };
        let stream = socket.connect(backend.address).await?;
        // A port in the ephemeral range without a listener can be connected to itself; nobody is there.
        if stream.local_addr()? == stream.peer_addr()? {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        stream.set_nodelay(true)?;
        Ok(stream)
    })
    .await
    .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    if made.is_err() {
        backend.connect_failures.fetch_add(1, Relaxed);
    }
    made
}
