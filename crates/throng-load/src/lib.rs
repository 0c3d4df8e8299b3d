//! Load on an HTTP service, and an honest record of what came of it.
//!
//! | module | what it knows |
//! |---|---|
//! | [`spec`] | what a load is: target, schedule, request, limits; checked before anything starts |
//! | [`arrivals`] | when requests are meant to be sent, as pure arithmetic over a rate and a seed |
//! | [`picture`] | random pictures that cost a copy each, put together from pieces that were encoded beforehand |
//! | `template` | the bytes of a request, prepared once |
//! | [`response`] | reading an HTTP/1.1 answer out of chunks, without I/O and in fixed memory |
//! | `client` | one request after another: time limit, redirects |
//! | `connection`, `http2` | one connection: dial, TLS, send, read |
//! | `feed` | handing intended send times to connections: the closed and the open loop |
//! | `record`, [`timeline`] | counting: one histogram per thread, merged at the end |
//! | `thread` | one thread of the load: its clients and, in an open loop, its pacer |
//! | [`driver`] | all threads: start line, cancellation, progress: [`run`] |
//! | [`summary`] | the result out of the records; repetitions merged, their spread |
//! | [`threshold`] | `p95<200ms` and whether it held |
//! | [`hdr_log`] | the intervals as a log that HdrHistogram's own tools read |
//!
//! # What latency means here
//!
//! In an open loop it runs from the *intended* send time to the last byte of the (last) answer: waiting for a
//! free connection, dialling, TLS and redirects are in it, so a server that stalls cannot hide the requests
//! that it kept from being sent. In a closed loop a client's next request is intended when the one before is
//! over and the think time has passed. Only successful answers are in the histogram; failures are counted by
//! kind.

pub mod arrivals;
mod client;
mod connection;
pub mod driver;
mod error;
mod feed;
pub mod hdr_log;
mod http2;
pub mod picture;
mod record;
pub mod response;
pub mod spec;
pub mod summary;
mod template;
mod thread;
pub mod threshold;
pub mod timeline;
mod timer;

pub use driver::{Load, Progress, ProgressSender, run, run_detailed};
pub use error::{ErrorKind, LoadError};
pub use hdr_log::write_hdr_log;
pub use spec::{
    Arrivals, Body, ImageFormat, ImageSpec, LoadSpec, Part, PartContent, RequestSpec, Requests, Schedule,
    SuccessRule, TlsRoots, default_connections,
};
pub use summary::{Spread, merge, spread};
pub use threshold::Threshold;
