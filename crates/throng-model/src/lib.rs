//! The nouns of Throng and their units. No I/O, no clock, no knowledge of any back end.
//!
//! - [`app`]: what a Compose file says, fully resolved: an [`app::App`] of services, networks, volumes.
//! - [`autoscale`]: what is asked of a service's autoscaler.
//! - [`build`]: how a service's image comes to be here.
//! - [`chance`]: what a seed draws.
//! - [`cores`]: which cores of a host something may run on.
//! - [`fault`]: what is done to replicas on purpose.
//! - [`job`]: services that run to completion.
//! - [`node`]: virtual nodes, their links, and where replicas may be.
//! - [`replica`]: one instance of a service: its name, what it needs to run, what was observed of it.
//! - [`run`]: one recorded execution of an experiment, as the report reads it.
//! - [`sandbox`]: what surrounds the process of a replica: privileges, limits of the kernel, names, hooks.
//! - [`status`]: how an app is doing now: readiness, listings, events, samples.
//! - [`diagnostic`]: a finding that points at file, line and column.
//! - [`update`]: how replicas are replaced, and at what pace they start again.
//! - [`units`]: sizes, shares and durations as people write them.

pub mod app;
pub mod autoscale;
pub mod build;
pub mod chance;
pub mod cores;
pub mod diagnostic;
pub mod fault;
pub mod job;
pub mod node;
pub mod replica;
pub mod run;
pub mod sandbox;
pub mod status;
pub mod units;
pub mod update;
