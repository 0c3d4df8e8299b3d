//! Throng's embedded container engine: namespaces, cgroups of either version, overlay roots, bridges, exits, logs.
//!
//! There is no shim and no daemon. Each replica costs the supervisor one descriptor, its pidfd; everything else lives
//! in the kernel and in the replica's folder, so the supervisor may end at any moment and another one takes over.
//!
//! Without root, one sleeping process of the user holds the namespaces of all its supervisors ([`rootless`]). Where the
//! host allows no namespaces, replicas are plain processes, and one helper for each supervisor gives them loopbacks of
//! their own (`process`, `redirect`, `sys::notify`). Both end with the last replica that needs them.
//!
//! Unsafe code is in the modules `sys` and `child` only.

mod blank;
mod cgroup;
mod child;
mod confine;
mod delegation;
mod disk;
pub mod dns;
mod ends;
mod engine;
mod errors;
mod exec;
mod exits;
mod fill;
mod held;
mod layers;
mod logs;
mod meter;
mod netlink;
mod network;
mod nodes;
mod pause;
mod plan;
mod process;
mod quiet;
mod redirect;
mod replica;
pub mod rootless;
mod runtime;
mod seccomp;
mod spawn;
mod start;
mod state;
mod sys;
mod sysfs;
mod takeover;
mod traffic;
mod usage;
mod user;
mod wire;
mod wires;

pub use delegation::delegate;
pub use engine::{Engine, EngineOptions, Isolation, IsolationChoice};
pub use exec::BuildStep;
pub use network::bridge_name;
pub use state::{layers_in_use, recorded_networks};
