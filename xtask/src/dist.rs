//! The workloads as static binaries, each in a folder that its Dockerfile can copy it from.

use crate::process::{cargo, output, root, run};
use anyhow::{Context, Result};
use std::path::PathBuf;

/// Crates under `workloads/` whose images hold one static binary of the same name.
const WORKLOADS: [&str; 2] = ["hello", "pdfmagic"];

pub fn build() -> Result<()> {
    let target = host()?;
    // A folder of its own: other flags in the same one would make cargo rebuild everything each time.
    let folder = root().join("target/static");
    let mut command = cargo();
    command
        .args(["build", "--release", "--locked", "--target", &target])
        .arg("--target-dir")
        .arg(&folder)
        .env("RUSTFLAGS", "-C target-feature=+crt-static -C strip=symbols");
    for name in WORKLOADS {
        command.args(["-p", name]);
    }
    run(command)?;
    for name in WORKLOADS {
        let from = folder.join(&target).join("release").join(name);
        let to = root().join("workloads").join(name).join("dist");
        std::fs::create_dir_all(&to).with_context(|| format!("cannot make {}", to.display()))?;
        // What a Dockerfile FROM scratch has no other way to make.
        std::fs::create_dir_all(to.join("results"))
            .with_context(|| format!("cannot fill {}", to.display()))?;
        // Replaced by renaming: a replica that still runs the old binary keeps it.
        let (part, whole) = (to.join(format!("{name}.part")), to.join(name));
        std::fs::copy(&from, &part).with_context(|| format!("cannot copy {}", from.display()))?;
        std::fs::rename(&part, &whole).with_context(|| format!("cannot write {}", whole.display()))?;
    }
    Ok(())
}

/// The `throng` command, built for use.
pub fn throng() -> Result<PathBuf> {
    let mut command = cargo();
    command.args(["build", "--release", "--locked", "-p", "throng"]);
    run(command)?;
    Ok(root().join("target/release/throng"))
}

/// The triple of this machine, whose C library can be linked statically without another toolchain.
fn host() -> Result<String> {
    let mut command = std::process::Command::new("rustc");
    command.arg("-vV");
    let text = output(command)?;
    let line = text.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(line.context("rustc -vV names no host")?.to_owned())
}
