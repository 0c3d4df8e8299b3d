//! Tasks of this repository. `cargo xtask` lists them.

mod bench;
mod dist;
mod packages;
mod process;
mod test;

use anyhow::Result;
use rustix::process::{Resource, getrlimit, setrlimit};
use std::process::ExitCode;

const USAGE: &str = "\
Tasks of this repository:

  cargo xtask demo [ARGS…]   build everything, then `throng run examples/pdfmagic ARGS…`
  cargo xtask test [ARGS…]   install what the tests need, then run all of them (ARGS go to cargo test)
  cargo xtask dist           build the static workload binaries into workloads/*/dist
  cargo xtask bench [NAME…]  measure side by side with the peers and write docs/benchmarks.md
  cargo xtask packages       print the Debian packages that tests and benchmarks use
";

fn main() -> ExitCode {
    allow_open_files();
    let mut arguments = std::env::args().skip(1);
    let task = arguments.next().unwrap_or_default();
    let rest: Vec<String> = arguments.collect();
    match run(&task, &rest) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Tests and measurements hold thousands of replicas and connections; many shells begin with a soft limit of 1,024.
fn allow_open_files() {
    let limit = getrlimit(Resource::Nofile);
    // Refused, it is missed where the files are opened, and named there.
    let _ = setrlimit(Resource::Nofile, rustix::process::Rlimit { current: limit.maximum, ..limit });
}

fn run(task: &str, rest: &[String]) -> Result<ExitCode> {
    match task {
        "demo" => demo(rest),
        "test" => test::run(rest),
        "bench" => bench::run(rest),
        "dist" => dist::build().map(|()| ExitCode::SUCCESS),
        "packages" => {
            println!("{}", Vec::from_iter(packages::all()).join(" "));
            Ok(ExitCode::SUCCESS)
        }
        "" | "help" | "--help" | "-h" => {
            print!("{USAGE}");
            Ok(ExitCode::SUCCESS)
        }
        other => anyhow::bail!("no task {other:?}\n\n{USAGE}"),
    }
}

fn demo(rest: &[String]) -> Result<ExitCode> {
    dist::build()?;
    let throng = dist::throng()?;
    let mut command = std::process::Command::new(throng);
    command.current_dir(process::root()).args(["run", "examples/pdfmagic"]).args(rest);
    process::hand_over(command)
}
