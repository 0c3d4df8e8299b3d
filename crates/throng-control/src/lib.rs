//! Pure decisions: what to do next, given what is wanted, what is there, and the time.
//!
//! This crate knows nothing of sockets, files, tasks or clocks; the caller passes the time in. A [`Plan`] is so
//! specific that whoever carries it out decides nothing. A plan applied to a world that is as wanted is empty.
//!
//! - [`plan()`]: launches, retirements, restarts and probes for all services, in dependency order.
//! - [`health`]: when to probe next, and what a probe's result changes.
//! - [`place`]: which virtual node a replica is put on, and why there is none for it.
//! - [`restart`]: whether and when an ended replica starts again.
//! - [`pace`]: how many replicas may start now, how many health checks the host can afford.
//! - [`ceiling`]: the search for the largest count that holds.
//! - [`address`]: which subnet and which address is the next free one.

pub mod address;
pub mod ceiling;
pub mod health;
pub mod pace;
pub mod place;
pub mod plan;
pub mod restart;

pub use plan::{Limits, Phase, Plan, ReplicaView, Step, Waiting, Wanted, WantedService, World, plan};

/// Time since an origin of the caller's choice. Only differences matter.
pub type Time = std::time::Duration;
