//! All tests: installs what they need, builds what they run, counts what passed, failed and was skipped.
//!
//! A test that cannot run prints `SKIPPED name: reason`. cargo counts such a test as passed; here it is told apart,
//! because a test that did not run has shown nothing.

use crate::process::cargo;
use crate::{dist, packages};
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{ExitCode, Stdio};

pub fn run(rest: &[String]) -> Result<ExitCode> {
    let complete = packages::install(packages::FOR_TESTS)?;
    dist::build()?;
    let mut command = cargo();
    command.args(["test", "--workspace", "--no-fail-fast", "--locked"]).args(rest);
    if !rest.iter().any(|argument| argument == "--") {
        command.arg("--");
    }
    // Output of passing tests is where skips are said.
    command.arg("--show-output");
    if complete && std::env::var_os("CI").is_some() {
        command.env("THRONG_REQUIRE_ALL", "1");
    }
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start cargo test")?;
    let mut counts = Counts::default();
    if let Some(out) = child.stdout.take() {
        for line in BufReader::new(out).lines() {
            let line = line.context("cannot read what the tests print")?;
            if counts.line(&line) {
                println!("{line}");
            }
        }
    }
    let status = child.wait().context("cannot wait for cargo test")?;
    counts.report();
    let good = status.success() && counts.failed == 0;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[derive(Default)]
struct Counts {
    passed: u64,
    failed: u64,
    ignored: u64,
    skipped: BTreeSet<String>,
    /// Between `failures:` and the result line everything is shown.
    in_failures: bool,
}

impl Counts {
    /// Counts a line of cargo test's output. True if a person should see it.
    fn line(&mut self, line: &str) -> bool {
        if let Some(skip) = line.strip_prefix("SKIPPED ") {
            return self.skipped.insert(skip.to_owned());
        }
        if let Some(result) = line.strip_prefix("test result: ") {
            self.in_failures = false;
            self.add(result);
            return false;
        }
        if line == "failures:" {
            self.in_failures = true;
        }
        line.starts_with("test ") && line.ends_with("FAILED") || self.in_failures
    }

    /// `ok. 3 passed; 0 failed; 1 ignored; …`
    fn add(&mut self, result: &str) {
        let count = |word: &str| {
            let part = result.split([';', '.']).find(|part| part.trim().ends_with(word));
            part.and_then(|part| part.trim().split(' ').next()?.parse::<u64>().ok()).unwrap_or(0)
        };
        self.passed += count("passed");
        self.failed += count("failed");
        self.ignored += count("ignored");
    }

    fn report(&self) {
        let skipped = self.skipped.len() as u64;
        println!();
        for skip in &self.skipped {
            println!("SKIPPED {skip}");
        }
        println!(
            "{} passed, {} failed, {} skipped",
            self.passed.saturating_sub(skipped),
            self.failed,
            skipped + self.ignored
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_added_up_and_skips_are_not_passes() {
        let mut counts = Counts::default();
        counts.line("SKIPPED qpdf_checks: qpdf is not installed");
        counts.line(
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.05s",
        );
        counts.line("test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out");
        assert_eq!((counts.passed, counts.failed, counts.ignored, counts.skipped.len()), (5, 1, 1, 1));
    }
}
