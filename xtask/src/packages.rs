//! Programs that tests and benchmarks use, as Debian's and Ubuntu's packages.

use anyhow::Result;
use std::collections::BTreeSet;
use std::process::{Command, Stdio};

pub struct Package {
    pub name: &'static str,
    /// A program that it brings, by which its presence is seen.
    pub program: &'static str,
}

const fn package(name: &'static str, program: &'static str) -> Package {
    Package { name, program }
}

/// What the tests compare with, look through or talk to.
pub const FOR_TESTS: &[Package] = &[
    package("qpdf", "qpdf"),
    package("poppler-utils", "pdftoppm"),
    package("chromium", "chromium"),
    package("docker-registry", "docker-registry"),
    package("skopeo", "skopeo"),
    package("apache2-utils", "htpasswd"),
    package("iproute2", "ip"),
    package("docker-compose", "docker-compose"),
    package("docker.io", "dockerd"),
    package("busybox-static", "busybox"),
    package("uidmap", "newuidmap"),
    package("nftables", "nft"),
    package("iptables", "iptables"),
    package("inotify-tools", "inotifywait"),
    package("prometheus", "prometheus"),
    package("tmux", "tmux"),
    package("strace", "strace"),
    package("iputils-ping", "ping"),
    package("iperf3", "iperf3"),
    package("kubernetes-client", "kubectl"),
];

/// The peers that are measured beside this project.
pub const FOR_BENCHMARKS: &[Package] = &[
    package("docker.io", "dockerd"),
    package("nginx", "nginx"),
    package("haproxy", "haproxy"),
    package("wrk", "wrk"),
    // Not by `convert`: other things by this name are about.
    package("imagemagick", "identify"),
    package("iproute2", "ip"),
];

pub fn all() -> BTreeSet<&'static str> {
    FOR_TESTS.iter().chain(FOR_BENCHMARKS).map(|package| package.name).collect()
}

/// Those whose program is not on this machine.
pub fn missing(packages: &'static [Package]) -> Vec<&'static str> {
    packages.iter().filter(|package| !present(package.program)).map(|package| package.name).collect()
}

pub fn present(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(std::path::PathBuf::from);
    std::env::split_paths(&path).chain(system).any(|folder| folder.join(program).is_file())
}

/// Installs what is missing where that needs no password; otherwise names it. True if all is there now.
pub fn install(packages: &'static [Package]) -> Result<bool> {
    let wanted = missing(packages);
    if wanted.is_empty() {
        return Ok(true);
    }
    let by_hand = format!("sudo apt-get install --no-install-recommends {}", wanted.join(" "));
    let Some(prefix) = privileged() else {
        eprintln!("not installed, and this user may not install: {}", wanted.join(" "));
        eprintln!("hint: {by_hand}");
        return Ok(false);
    };
    eprintln!("installing {}", wanted.join(" "));
    apt(prefix, &["update"]);
    let mut arguments = vec!["install", "-y", "--no-install-recommends"];
    arguments.extend(&wanted);
    apt(prefix, &arguments);
    let left = missing(packages);
    if !left.is_empty() {
        eprintln!("could not be installed: {}\nhint: {by_hand}", left.join(" "));
    }
    Ok(left.is_empty())
}

/// How this user becomes root without a password; `None` if it cannot.
fn privileged() -> Option<&'static [&'static str]> {
    let succeeds = |program: &str, arguments: &[&str]| {
        let status =
            Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    if !present("apt-get") {
        return None;
    }
    let root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n");
    if root {
        return Some(&[]);
    }
    succeeds("sudo", &["-n", "true"]).then_some(&["sudo", "-n"])
}

/// Runs apt-get quietly. Whether it helped is seen by what is there afterwards.
fn apt(prefix: &[&str], arguments: &[&str]) {
    let mut words: Vec<&str> = prefix.to_vec();
    // Services that packages bring must not be started by installing them: tests start their own.
    words.extend(["env", "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1", "apt-get", "-q"]);
    words.extend(arguments);
    let status = Command::new(words[0]).args(&words[1..]).stdout(Stdio::null()).status();
    if !status.is_ok_and(|status| status.success()) {
        eprintln!("apt-get {} failed", arguments.join(" "));
    }
}
