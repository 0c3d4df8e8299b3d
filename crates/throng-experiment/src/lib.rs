//! Experiments: the file that says what is done to an app, stage by stage, and the runner that does it.

pub mod environment;
pub mod file;
mod recorder;
pub mod run;
pub mod schema;
