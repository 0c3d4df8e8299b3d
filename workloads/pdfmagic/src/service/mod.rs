//! The HTTP server around the conversion.
//!
//! ```text
//! accept ── connection limit ── hyper (HTTP/1.1) ── router ─┬─ GET  /          the form
//!                                                           ├─ POST /          upload ─> convert ─> result
//!                                                           ├─ GET  /results/… kept PDFs
//!                                                           └─ GET  /healthz, /metrics
//!
//! SIGTERM ─> /healthz 503 ─(--drain-delay)─> no new connections ─(--grace)─> in flight done ─> exit
//! ```
//!
//! Everything that waits has a limit in [`ServiceConfig`]; every answer names its replica.

mod connection;
mod convert;
mod metrics;
mod page;
mod rejection;
mod results;
mod routes;
mod upload;

pub use connection::ConnectionLimits;
pub use rejection::{Outcome, Rejection};
pub use results::{ParseResultsModeError, ResultsMode};
pub use upload::{FIELD, Upload, from_multipart};

use crate::convert::Limits;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How the service behaves. `pdfmagic serve --help` explains each.
#[derive(Debug, Clone)]
pub struct ServiceConfig {
    pub listen: SocketAddr,
    /// Worker threads of the runtime, and conversions on blocking threads at once. At least 1.
    pub threads: usize,
    pub results: ResultsMode,
    /// Results kept, at least 1.
    pub keep: usize,
    /// Largest image.
    pub max_bytes: usize,
    /// `deadline` is set anew for each request.
    pub picture: Limits,
    pub timeout: Duration,
    /// At least 1.
    pub max_in_flight: usize,
    pub connections: ConnectionLimits,
    pub drain_delay: Duration,
    pub grace: Duration,
    /// Name of this replica in every answer.
    pub replica: String,
}

/// Why the service could not run, or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    #[error("cannot listen on {address}: {cause}; choose another address with --listen")]
    Listen { address: SocketAddr, cause: io::Error },
    #[error(
        "cannot keep results in {folder}: {cause}; mount a writable folder there, or name another with --results"
    )]
    Results { folder: String, cause: io::Error },
    #[error("the replica name {name:?} cannot stand in a header; choose another with --replica")]
    ReplicaName { name: String },
    #[error("cannot start: {0}")]
    Start(#[source] io::Error),
    #[error(
        "{left} connections were cut off because they did not finish within {grace:?}; --grace gives them longer"
    )]
    CutOff { left: usize, grace: Duration },
    #[error("a second signal ended the service before it had drained")]
    Interrupted,
}

/// Serves until SIGTERM or SIGINT and returns once drained. Prints one line when it listens and one when it drains.
pub fn run(config: ServiceConfig) -> Result<(), ServiceError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(config.threads)
        .thread_name("pdfmagic")
        .enable_all()
        .build()
        .map_err(ServiceError::Start)?;
    let ended = runtime.block_on(serve(config));
    // A conversion past its deadline stops by itself; what is left of it must not hold up the exit.
    runtime.shutdown_background();
    ended
}

async fn serve(config: ServiceConfig) -> Result<(), ServiceError> {
    let mut signals = Signals::new().map_err(ServiceError::Start)?;
    let (drain_delay, grace) = (config.drain_delay, config.grace);
    let address = config.listen;
    let connections = config.connections;
    let service = Arc::new(routes::Service::new(config)?);
    let listen = |cause| ServiceError::Listen { address, cause };
    let listener = TcpListener::bind(address).await.map_err(listen)?;
    let local = listener.local_addr().map_err(listen)?;
    eprintln!("pdfmagic {} listens on http://{local}/", env!("CARGO_PKG_VERSION"));

    let acceptor = connection::Acceptor::new(listener, connections, routes::router(Arc::clone(&service)));
    let stop = async {
        signals.next().await;
        service.start_draining();
        eprintln!("pdfmagic drains: {} requests in flight", service.in_flight());
        tokio::select! {
            () = tokio::time::sleep(drain_delay) => Ok(()),
            () = signals.next() => Err(ServiceError::Interrupted),
        }
    };
    let (open, delayed) = acceptor.run(stop).await;
    delayed?;
    tokio::select! {
        left = open.drained(grace) => match left {
            0 => Ok(()),
            left => Err(ServiceError::CutOff { left, grace }),
        },
        () = signals.next() => Err(ServiceError::Interrupted),
    }
}

/// As process 1 of a container a program gets only the signals that it asks for.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// The replica's name when none is given: `HOSTNAME`, which container engines set, else the kernel's host name.
pub fn host_name() -> String {
    let from_environment = std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty());
    from_environment.unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned())
}
