//! `throng`: arguments in, terminal output and an exit code out. Everything else lives in the other crates.

#[macro_use]
mod output;

mod cli;
mod commands;
mod failure;
mod project;
mod terminal;

use rustix::process::{Resource, getrlimit, setrlimit};
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = cli::parse();
    allow_open_files();
    match commands::run(arguments) {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}

/// Raises the soft limit of open files to the hard one. It is low only for programs that still use select(2), and a
/// supervisor holds a descriptor for each replica, a load one for each connection. Replicas get limits of their own.
fn allow_open_files() {
    let limit = getrlimit(Resource::Nofile);
    // What is refused is missed, if at all, where the files are opened, and named there.
    let _ = setrlimit(Resource::Nofile, rustix::process::Rlimit { current: limit.maximum, ..limit });
}
