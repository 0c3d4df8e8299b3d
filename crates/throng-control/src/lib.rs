//! Pure decisions: what to do next, given what is wanted, what is there, and the time.
//!
//! This crate knows nothing of sockets, files, tasks or clocks; the caller passes the time in. A [`Plan`] is so
//! specific that whoever carries it out decides nothing. A plan applied to a world that is as wanted is empty.
//!
//! - [`plan()`]: launches, retirements, restarts and probes for all services, in dependency order.
//! - [`rollout`]: how a service gets from one definition to the next, and back.
//! - [`world`]: the replicas that there are, and what each thing that happens makes of one.
//! - [`health`]: when to probe next, and what a probe's result changes.
//! - [`place`]: which virtual node a replica is put on, and why there is none for it.
//! - [`job`]: what of a service that runs to completion is next; [`schedule`]: when its runs begin.
//! - [`restart`]: whether and when an ended replica starts again.
//! - [`pace`]: how many replicas may start now, how many health checks the host can afford.
//! - [`ceiling`]: the search for the largest count that holds.
//! - [`vertical`]: what of a recommendation a replica is given; [`evict`]: who is replaced for its sake.
//! - [`address`]: which subnet and which address is the next free one.

pub mod address;
pub mod ceiling;
pub mod evict;
pub mod health;
pub mod job;
pub mod pace;
pub mod place;
pub mod plan;
pub mod restart;
pub mod rollout;
pub mod schedule;
pub mod vertical;
pub mod world;

pub use plan::{Limits, Plan, Step, Waiting, Wanted, WantedService, observe, plan};
pub use rollout::{Change, Definition, Rollout};
pub use world::{Phase, ReplicaView, World};

/// Time since an origin of the caller's choice. Only differences matter.
pub type Time = std::time::Duration;
