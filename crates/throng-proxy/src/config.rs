//! What a proxy is told before it starts, and the limits it keeps.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// How a service's port is served.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ProtocolHint {
    /// Decide for each connection from its first bytes: the HTTP/2 preface, the beginning of an HTTP/1 request, or
    /// anything else, which is carried as TCP. So is a server that speaks first.
    #[default]
    Detect,
    /// HTTP/1.1; a connection that opens with the HTTP/2 preface is served as HTTP/2 all the same.
    Http,
    /// HTTP/2 without TLS by prior knowledge (h2c), which is what gRPC speaks.
    Http2,
    /// Bytes both ways, whatever they mean.
    Tcp,
}

/// Everything needed to serve one port of one service.
#[derive(Debug, Clone)]
pub struct ProxyConfig {
    /// Address to listen on; port 0 lets the kernel choose ([`crate::Proxy::local_addr`] tells which).
    pub listen: SocketAddr,
    pub protocol: ProtocolHint,
    pub limits: Limits,
    /// Seed of the random choices, so that a run can be repeated with the same ones.
    pub seed: u64,
}

impl ProxyConfig {
    /// A configuration with every default: detected protocol, default limits.
    pub fn new(listen: SocketAddr) -> Self {
        ProxyConfig { listen, protocol: ProtocolHint::default(), limits: Limits::default(), seed: 0 }
    }
}

/// The bounds of one proxy. Every field has a default; [`Limits::check`] says which values make no sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Client connections open at once. More wait in the kernel's accept queue. Default 8,192.
    pub max_connections: usize,
    /// Requests and TCP connections that may wait at once for a ready replica. Default 1,024.
    pub max_held: usize,
    /// How long one of them waits before it is answered 503 (HTTP) or reset (TCP). Default 30 s.
    pub hold_timeout: Duration,
    /// Bytes of a request's or answer's head, request line included. Default 32 KiB; at most 1 MiB.
    pub max_head: usize,
    /// How long a client may take to send a complete head once it has begun. Default 15 s.
    pub head_timeout: Duration,
    /// How long a client's connection may rest between two requests. Default 75 s.
    pub keep_alive: Duration,
    /// How long a body may stand still: a client that neither sends its request's nor takes its answer's, or a
    /// backend that does not take the request's. Default 60 s.
    pub body_timeout: Duration,
    /// Idle HTTP/1 connections kept to each backend by each worker. Default 64.
    pub idle_per_backend: usize,
    /// Idle HTTP/1 connections kept by each worker to all backends together; beyond that those that have rested the
    /// longest are closed, for each holds a file descriptor. Default 1,024.
    pub idle_total: usize,
    /// How long such a connection is kept. Default 30 s.
    pub idle_timeout: Duration,
    /// How long an idle connection may have rested for a request that must not be sent twice, such as a POST: the
    /// backend may close one that has rested for long while the request is on its way. Servers that close idle
    /// connections do so after 2 s or more. Default 1 s; zero for a new connection each time.
    pub reuse_within: Duration,
    /// Time to make a TCP connection to a backend. Default 2 s. Where none is made in time, for the backend is too busy
    /// to take any or cannot be reached, others are asked, and all of them again as long as `hold_timeout`.
    pub connect_timeout: Duration,
    /// How long a request goes on asking where every ready backend that it asks refuses connections: who has just
    /// started may not listen yet. Default 1 s; zero for not at all.
    pub listen_timeout: Duration,
    /// Further attempts after the first when repeating is safe. Default 2.
    pub retries: u32,
    /// Time from the end of a request to the head of its answer, then 504. Default none: some work takes long.
    pub response_timeout: Option<Duration>,
    /// How long a new connection may stay silent before it is taken for a protocol in which the server speaks
    /// first. Default 100 ms.
    pub detect_timeout: Duration,
    /// HTTP/2 streams open at once on one client connection. Default 256.
    pub max_streams: u32,
    /// Threads that forward. Default: one for each CPU, at most 4.
    pub workers: usize,
}

/// The most a head may be allowed to take, so that a mistyped limit cannot make each connection cost gigabytes.
pub const MAX_HEAD_CEILING: usize = 1 << 20;
/// The least [`Limits::max_head`]: an ordinary browser's request has to fit.
pub const MAX_HEAD_FLOOR: usize = 1024;
/// The most client connections of one proxy; each needs two file descriptors.
pub const MAX_CONNECTIONS: usize = 1 << 20;
/// The most worker threads of one proxy.
pub const MAX_WORKERS: usize = 64;
const DEFAULT_MOST_WORKERS: usize = 4;

impl Default for Limits {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        Limits {
            max_connections: 8_192,
            max_held: 1_024,
            hold_timeout: Duration::from_secs(30),
            max_head: 32 << 10,
            head_timeout: Duration::from_secs(15),
            keep_alive: Duration::from_secs(75),
            body_timeout: Duration::from_secs(60),
            idle_per_backend: 64,
            idle_total: 1_024,
            idle_timeout: Duration::from_secs(30),
            reuse_within: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(2),
            listen_timeout: Duration::from_secs(1),
            retries: 2,
            response_timeout: None,
            detect_timeout: Duration::from_millis(100),
            max_streams: 256,
            workers: cores.min(DEFAULT_MOST_WORKERS),
        }
    }
}

/// A limit that makes no sense, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitError {
    pub name: &'static str,
    pub reason: &'static str,
}

impl fmt::Display for LimitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "limit {} {}", self.name, self.reason)
    }
}

impl Limits {
    /// Finds the first limit that could not be honoured.
    pub fn check(&self) -> Result<(), LimitError> {
        let wrong = |name, reason| Err(LimitError { name, reason });
        if !(1..=MAX_CONNECTIONS).contains(&self.max_connections) {
            return wrong("max_connections", "must lie between 1 and 1,048,576");
        }
        if !(MAX_HEAD_FLOOR..=MAX_HEAD_CEILING).contains(&self.max_head) {
            return wrong("max_head", "must lie between 1 KiB and 1 MiB");
        }
        if !(1..=MAX_WORKERS).contains(&self.workers) {
            return wrong("workers", "must lie between 1 and 64");
        }
        if self.max_streams == 0 {
            return wrong("max_streams", "must be at least 1");
        }
        let durations = [
            ("head_timeout", self.head_timeout),
            ("keep_alive", self.keep_alive),
            ("body_timeout", self.body_timeout),
            ("connect_timeout", self.connect_timeout),
            ("detect_timeout", self.detect_timeout),
            ("response_timeout", self.response_timeout.unwrap_or(Duration::MAX)),
        ];
        for (name, duration) in durations {
            if duration.is_zero() {
                return wrong(name, "must be longer than zero");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_pass_and_nonsense_is_named() {
        assert_eq!(Limits::default().check(), Ok(()));
        type Change = fn(&mut Limits);
        let table: [(&str, Change); 6] = [
            ("max_connections", |l| l.max_connections = 0),
            ("max_head", |l| l.max_head = 10),
            ("max_head", |l| l.max_head = MAX_HEAD_CEILING + 1),
            ("workers", |l| l.workers = 0),
            ("response_timeout", |l| l.response_timeout = Some(Duration::ZERO)),
            ("max_streams", |l| l.max_streams = 0),
        ];
        for (name, change) in table {
            let mut limits = Limits::default();
            change(&mut limits);
            assert_eq!(limits.check().expect_err(name).name, name);
        }
    }
}
