//! The walls of one Linux host: what stops a crowd of containers, how many it holds before that, how one sees it, and
//! what moves it.
//!
//! [`table`] is the whole of the knowledge as data, one row a wall; `docs/walls.md` is made from it. [`Host`] is what
//! this host says about itself at one moment. [`predict`] sets it against a [`Demand`], before anything starts;
//! [`explain`] sets it against what went wrong, afterwards. Nothing here changes a host but [`fix`], which the command
//! calls when it is asked to. [`cluster`] says what the nodes of a cluster have to be told before they hold as many.
//!
//! What cannot be read is `None` and ends as [`State::Unknown`]: no value is ever assumed.

mod checks;
pub mod cluster;
mod demand;
mod evidence;
mod explain;
pub mod fix;
mod host;
mod kernel_log;
mod predict;
mod remedy;
mod table;

pub use demand::{Demand, Links, footprint};
pub use evidence::{Evidence, Step};
pub use explain::{Explanation, explain, is_shared, standing};
pub use host::{
    Ancestor, Control, Cores, Counters, Disk, Filter, Host, Limit, Memory, Pressure, SETTINGS, Source, Stall,
};
pub use kernel_log::KernelLog;
pub use predict::{Finding, Report, State, Unit, predict};
pub use remedy::{Change, PERMANENT_FILE, Remedy};
pub use table::{Wall, WallId, table};
