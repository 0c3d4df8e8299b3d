//! `throng`: arguments in, terminal output and an exit code out. Everything else lives in the other crates.

#[macro_use]
mod output;

mod cli;
mod commands;
mod failure;
mod project;
mod terminal;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    match commands::run(arguments) {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}
