//! Programs of this repository and of crates.io that the measurements run.

use super::children::Children;
use crate::process::{cargo, output};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A build of everything from nothing takes minutes on a small machine.
const BUILD_LIMIT: Duration = Duration::from_secs(3600);

/// Pinned, so that two runs compare with the same program.
pub const OHA_VERSION: &str = "1.16.0";

/// Builds an optimised target (`["-p", "throng", "--bin", "throng"]`) and returns its program.
pub fn program(target: &[&str]) -> Result<PathBuf> {
    built(&["build", "--release"], target)
}

/// Builds an optimised test program (`["-p", "throng-load", "--test", "open_loop"]`).
pub fn test_program(target: &[&str]) -> Result<PathBuf> {
    built(&["test", "--release", "--no-run"], target)
}

fn built(task: &[&str], target: &[&str]) -> Result<PathBuf> {
    let mut command = cargo();
    command
        .args(task)
        .args(["--locked", "--quiet", "--message-format", "json-render-diagnostics"])
        .args(target);
    let messages = output(command)?;
    let name = target.last().copied().unwrap_or_default();
    executable(&messages, name).with_context(|| format!("cargo built no program {name}"))
}

/// The program named so among cargo's messages (one JSON object a line).
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    let artifacts = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    artifacts
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
}

/// Where cargo builds.
pub fn target_folder() -> Result<PathBuf> {
    let mut command = cargo();
    command.args(["metadata", "--no-deps", "--format-version", "1"]);
    let metadata: serde_json::Value =
        serde_json::from_str(&output(command)?).context("cargo metadata is no JSON")?;
    metadata["target_directory"]
        .as_str()
        .map(PathBuf::from)
        .context("cargo metadata names no target directory")
}

/// The load generator `oha`, installed below the target folder once.
pub fn oha(children: &Children, target: &Path) -> Result<PathBuf> {
    let root = target.join("tools");
    let program = root.join("bin/oha");
    let version = || {
        let mut command = std::process::Command::new(&program);
        command.arg("--version");
        children.output(command, Duration::from_secs(10)).unwrap_or_default()
    };
    if version().trim() == format!("oha {OHA_VERSION}") {
        return Ok(program);
    }
    eprintln!("installing oha {OHA_VERSION} into {}", root.display());
    let mut command = cargo();
    command.args([
        "install",
        "oha",
        "--locked",
        "--quiet",
        "--force",
        "--version",
        &format!("={OHA_VERSION}"),
    ]);
    // A folder of its own: what cargo installs elsewhere must not rebuild this repository's dependencies.
    command.arg("--root").arg(&root).env("CARGO_TARGET_DIR", root.join("build"));
    children.output(command, BUILD_LIMIT)?;
    if version().trim() != format!("oha {OHA_VERSION}") {
        bail!("{} does not say that it is oha {OHA_VERSION}", program.display());
    }
    // Kept, its objects would take a gigabyte; missing, nothing is lost.
    let _ = std::fs::remove_dir_all(root.join("build"));
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_found_among_cargos_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"serde"},"executable":null}
{"reason":"compiler-artifact","target":{"name":"rate"},"executable":"/t/release/examples/rate"}
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable(messages, "rate"), Some("/t/release/examples/rate".into()));
        assert_eq!(executable(messages, "serde"), None);
        assert_eq!(executable("", "rate"), None);
    }
}
