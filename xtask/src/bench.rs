//! Measurements side by side with the peers, written to docs/benchmarks.md.

use anyhow::Result;
use std::process::ExitCode;

pub fn run(_names: &[String]) -> Result<ExitCode> {
    anyhow::bail!("nothing to measure yet")
}
