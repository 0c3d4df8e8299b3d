//! Balancing policies and forwarding: from a service's address to its ready replicas.
//!
//! A [`Proxy`] listens on one port and forwards to the backends it was last told of ([`Proxy::set_backends`]). It
//! knows nothing of services, health checks or containers: whoever calls it decides what is ready.
//!
//! - [`policy`] picks a backend: least-request over two random choices. Pure.
//! - `backends` keeps the set, counts what is in flight, holds requests while nothing is ready.
//! - `http1`, `h2c` and `tunnel` forward; `detect` tells them apart by the first bytes of a connection.
//! - `worker` has the threads.
//!
//! To backends it names the client (X-Forwarded-For, appended) and, unless the client's side did so already, the
//! scheme and the host that were asked for (X-Forwarded-Proto, X-Forwarded-Host). It is meant as the front on one
//! machine: what a client says in these fields is passed on, so a backend that trusts them trusts its clients.
//!
//! What holds throughout: nothing is bound before the whole configuration is valid; a request is sent again only if
//! it cannot have been worked on, or if working on it twice is the same as once; a broken answer ends in a reset or
//! an error, never in what looks like a shorter success; every queue and every wait has a limit ([`Limits`]). Its own
//! errors tell whether a replica was given the request: 502 and 504 if so, 503 if not.

mod backends;
mod buffer;
mod config;
mod connection;
mod counted;
mod detect;
mod h2c;
mod http1;
mod owner;
pub mod policy;
mod pool;
mod proxy;
mod tries;
mod tunnel;
mod worker;

pub use config::{
    LimitError, Limits, MAX_CONNECTIONS, MAX_HEAD_CEILING, MAX_HEAD_FLOOR, MAX_WORKERS, ProtocolHint,
    ProxyConfig,
};
pub use proxy::{Backend, BackendStats, Demand, Dial, Proxy, ProxyError, ProxyStats, Waiting};
