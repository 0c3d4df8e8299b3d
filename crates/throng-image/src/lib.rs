//! Images without a daemon.
mod build;
mod config;
mod digest;
pub mod dockerfile;
mod error;
mod layer;
mod limits;
mod platform;
mod reference;
mod store;
mod unpack;
mod view;
pub use build::*;
pub use config::*;
pub use error::{BuildError, ImageError};
pub use limits::Limits;
pub use platform::*;
pub use store::*;
