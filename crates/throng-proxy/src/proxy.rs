//! The public face: bind, tell it the backends, ask it how it is, shut it down.

use crate::backends::{BackendState, Shared};
use crate::owner::listener_of;
use crate::worker::Workers;
use crate::{LimitError, ProxyConfig};
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

/// One replica that is ready for traffic.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Backend {
    /// The replica's name, such as `web-3`.
    pub name: String,
    pub address: SocketAddr,
}

/// Makes a nonblocking TCP socket, not yet connected, in the network that backends are reachable from.
///
/// It is called on a forwarding thread for every new connection to a backend, so it must not block for long.
pub type Dial = Arc<dyn Fn() -> io::Result<OwnedFd> + Send + Sync>;

/// Connections that the kernel keeps until they are accepted; net.core.somaxconn may allow fewer.
const BACKLOG: i32 = 4096;

/// Why a proxy could not be started.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    #[error("{0}")]
    Limit(LimitError),
    #[error("port {} at {} is already taken{}", address.port(), address.ip(), by(owner))]
    PortTaken {
        address: SocketAddr,
        /// `name (pid N)` of the process that listens there, if it could be found.
        owner: Option<String>,
    },
    #[error("listening on port {} at {} is not allowed", address.port(), address.ip())]
    PortForbidden { address: SocketAddr },
    #[error("{} is not an address of this machine", address.ip())]
    NoSuchAddress { address: SocketAddr },
    #[error("cannot listen on {address}")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("cannot start forwarding threads")]
    Threads(#[source] io::Error),
}

fn by(owner: &Option<String>) -> String {
    owner.as_ref().map(|o| format!(" by {o}")).unwrap_or_default()
}

impl ProxyError {
    /// What a person can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            ProxyError::Limit(limit) => format!("change {} in the balancer's limits", limit.name),
            ProxyError::PortTaken { address, owner } => {
                let stop = owner.as_ref().map_or("stop what listens there".into(), |o| format!("stop {o}"));
                format!("{stop}, or publish another port than {}", address.port())
            }
            ProxyError::PortForbidden { .. } => {
                "ports below net.ipv4.ip_unprivileged_port_start need root; publish a higher one".into()
            }
            ProxyError::NoSuchAddress { .. } => "list this machine's addresses with `ip address`".into(),
            ProxyError::Listen { .. } => return None,
            ProxyError::Threads(_) => "lower the number of workers, or raise the limit of processes".into(),
        })
    }
}

/// Counters of one backend.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BackendStats {
    pub address: Option<SocketAddr>,
    /// Requests and TCP connections it was chosen for.
    pub requests: u64,
    pub in_flight: usize,
    pub connect_failures: u64,
    /// It is no longer ready and finishes what it has.
    pub leaving: bool,
}

/// Counters of a proxy since it was bound.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProxyStats {
    /// Client connections accepted, and those open now.
    pub accepted: u64,
    pub open: usize,
    /// HTTP requests and TCP connections taken for forwarding.
    pub requests: u64,
    pub retries: u64,
    /// Requests that ended in an error of the balancer's own (502, 503, 504) or a broken answer.
    pub failed: u64,
    /// Requests refused because they were malformed, too large or too slow.
    pub refused: u64,
    /// Waiting for a ready backend now.
    pub held: usize,
    pub hold_timeouts: u64,
    /// Not held because as many as allowed were waiting.
    pub hold_overflows: u64,
    /// By name; a name that leaves at one address and is ready at another is counted once, together.
    pub backends: BTreeMap<String, BackendStats>,
}

/// One listening port and the threads that forward for it. Dropping it closes every connection at once.
pub struct Proxy {
    shared: Arc<Shared>,
    workers: Workers,
    local: SocketAddr,
}

impl Proxy {
    /// Checks the configuration, listens, and starts forwarding; with no backends yet, connections are held.
    ///
    /// The threads are its own, so it may be called from any runtime or none.
    pub fn bind(config: ProxyConfig, dial: Option<Dial>) -> Result<Proxy, ProxyError> {
        let listener = listen(config.listen).map_err(|e| explain(config.listen, e))?;
        Proxy::serve(listener, config, dial)
    }

    /// As [`Proxy::bind`], at a nonblocking socket that listens already, wherever that is.
    pub fn serve(
        listener: TcpListener,
        config: ProxyConfig,
        dial: Option<Dial>,
    ) -> Result<Proxy, ProxyError> {
        config.limits.check().map_err(ProxyError::Limit)?;
        let local =
            listener.local_addr().map_err(|source| ProxyError::Listen { address: config.listen, source })?;
        let shared = Arc::new(Shared::new(config.limits, dial, config.seed));
        let workers = Workers::start(&shared, listener, config.protocol).map_err(ProxyError::Threads)?;
        Ok(Proxy { shared, workers, local })
    }

    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Makes exactly these the ready backends.
    ///
    /// When it returns, those left out get nothing new; what they have in flight goes on to its end
    /// ([`Proxy::drained`]). The same name at another address is another backend.
    pub fn set_backends(&self, backends: Vec<Backend>) {
        self.shared.set_backends(backends);
    }

    /// Requests and tunnels that `name` has at this moment, ready or leaving.
    pub fn in_flight(&self, name: &str) -> usize {
        self.shared.in_flight(name)
    }

    /// Waits until `name` has nothing in flight; false if that did not come within `timeout`.
    pub async fn drained(&self, name: &str, timeout: Duration) -> bool {
        self.shared.drained(name, timeout).await
    }

    /// What it is asked for, at a small cost.
    pub fn demand(&self) -> Demand {
        let requests = self.shared.counters.requests.load(Relaxed);
        Demand { requests, under_way: self.shared.under_way() }
    }

    pub fn waiting(&self) -> Waiting {
        Waiting(self.shared.clone())
    }

    pub fn stats(&self) -> ProxyStats {
        let (shared, counters) = (&self.shared, &self.shared.counters);
        let mut backends: BTreeMap<String, BackendStats> = BTreeMap::new();
        let mut add = |backend: &BackendState, leaving: bool| {
            let entry = backends.entry(backend.name.clone()).or_default();
            entry.address = Some(backend.address);
            entry.requests += backend.requests();
            entry.in_flight += backend.in_flight();
            entry.connect_failures += backend.connect_failures.load(Relaxed);
            entry.leaving = leaving;
        };
        shared.leaving().iter().for_each(|b| add(b, true));
        shared.ready().iter().for_each(|b| add(b, false));
        ProxyStats {
            accepted: counters.accepted.load(Relaxed),
            open: self.workers.open(),
            requests: counters.requests.load(Relaxed),
            retries: counters.retries.load(Relaxed),
            failed: counters.failed.load(Relaxed),
            refused: counters.refused.load(Relaxed),
            held: shared.held(),
            hold_timeouts: counters.hold_timeouts.load(Relaxed),
            hold_overflows: counters.hold_overflows.load(Relaxed),
            backends,
        }
    }

    /// Stops listening, lets what is under way finish within `grace`, then closes everything.
    pub async fn shutdown(mut self, grace: Duration) {
        self.shared.closing.cancel();
        let all = self.shared.limits.max_connections;
        // Late ones are cut off below: the time limit is the point.
        let _ = tokio::time::timeout(grace, self.workers.idle(all)).await;
        self.workers.end().await;
    }
}

/// What a proxy is asked for; see [`Proxy::demand`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Demand {
    /// Requests and tunnels since it was bound.
    pub requests: u64,
    /// Those of them that have not ended, and those that wait for a backend.
    pub under_way: usize,
}

/// Who waits at a proxy for a backend to become ready. It does not keep the proxy from being shut down.
#[derive(Clone)]
pub struct Waiting(Arc<Shared>);

impl Waiting {
    /// Returns as soon as somebody waits.
    pub async fn someone(&self) {
        self.0.someone_held().await;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.closing.cancel();
    }
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Connections of an earlier proxy that linger in TIME_WAIT must not keep this one from its port.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn explain(address: SocketAddr, error: io::Error) -> ProxyError {
    match error.kind() {
        io::ErrorKind::AddrInUse => ProxyError::PortTaken { address, owner: listener_of(address) },
        io::ErrorKind::PermissionDenied => ProxyError::PortForbidden { address },
        io::ErrorKind::AddrNotAvailable => ProxyError::NoSuchAddress { address },
        _ => ProxyError::Listen { address, source: error },
    }
}
