//! The local cluster: one task owns an app's state, plans, and has the steps carried out.
//!
//! ```text
//!  throng up ── socket ──> connection task ──> ┌───────┐ ── steps ──> tasks over the Runtime
//!                                              │ actor │ <─ outcomes ─┘
//!  exits, samples, timers ───────────────────> └───────┘ ──> balancers, DNS directory, subscribers, state file
//! ```
//!
//! - [`client`]: how a command finds, starts and talks to the supervisor of a project.
//! - [`serve`]: the supervisor's process.
//! - [`protocol`]: what both say to each other.
//! - [`host`]: how pressed this host is.
//! - [`metrics`]: what is counted for whoever watches.
//! - [`paths`]: where everything lives on this host.
//!
//! The supervisor may die at any moment: replicas and their logs go on without it, and the next one adopts them.

mod actor;
mod apply;
mod autoscale;
mod backend;
mod front;
mod inside;
mod last_words;
mod listing;
mod lives;
mod loopback;
pub mod metrics;
mod names;
mod probe;
mod reach;
mod room;
mod server;
mod silent;
mod spec;
mod state;
mod steps;
mod walls;

pub mod client;
pub mod host;
pub mod paths;
pub mod protocol;

pub use backend::{Asked, On};
pub use inside::{NAME_PORTS, NAME_PORTS_DEFAULT};
pub use listing::{images_of, volumes_of};
pub use room::needed;
pub use server::{ServeError, ServeOptions, serve};
pub use spec::signal_number;
pub use steps::own_executable;
