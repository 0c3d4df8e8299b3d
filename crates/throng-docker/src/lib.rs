//! A [`Runtime`] over the Docker API: the same app, the same commands, on a Docker daemon of this host.
//!
//! ```text
//!  orders ──> Docker ── create, start, kill, remove ──> dockerd ──> containers
//!               │ one record a replica, kept in labels     │
//!               └<──────────── die, oom ── events ─────────┘
//!  logs: json-file of the daemon ── when somebody looks ──> plain files below the folder of this crate
//!  statistics: control groups of the container's process, read directly
//! ```
//!
//! The daemon must be this host's: replicas are dialled at their own addresses, names are answered at their
//! networks' gateways, and control groups are read from the host's file system.
//!
//! [`Nested`] spreads the replicas over daemons of their own, each in a container of that daemon.
//!
//! What is different from the embedded engine, because Docker offers no other way, is told in `docs/docker.md`.

mod container;
mod docker;
mod errors;
mod events;
mod exec;
mod exit;
mod images;
mod labels;
mod logs;
mod nested;
mod networks;
mod node;
mod program;
mod replica;
mod runtime;
mod spread;
mod usage;

pub use docker::{Docker, DockerOptions, Names, default_host};
pub use images::REPOSITORY;
pub use labels::{HOME, NODE, PROJECT};
pub use nested::{NODES_MOST, Nested, NestedOptions};

#[cfg(doc)]
use throng_runtime::Runtime;
