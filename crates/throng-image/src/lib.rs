//! Images without a daemon.
mod config;
mod digest;
pub mod dockerfile;
mod error;
mod layer;
mod limits;
mod reference;
mod store;
mod unpack;
mod view;
pub use config::*;
pub use error::{BuildError, ImageError};
pub use limits::Limits;
pub use store::*;
