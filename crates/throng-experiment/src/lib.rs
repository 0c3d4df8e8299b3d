//! Experiments: the file that says what is done to an app, stage by stage, and the runner that does it.

pub mod environment;
mod faults;
pub mod file;
mod recorder;
mod recovery;
pub mod run;
pub mod schema;
