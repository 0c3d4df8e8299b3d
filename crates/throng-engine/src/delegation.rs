//! A group of one's own for an ordinary user's supervisor, where systemd keeps the one tree of version 2.
//!
//! A login session's group belongs to root. The user's own service manager may make groups, and hands one over with
//! all below it as a scope with `Delegate=` (systemd.resource-control(5)). It is asked by way of `busctl`, which is part
//! of systemd: a library for its bus would be larger than this engine. The scope ends with the last process in it, so
//! the replicas of a supervisor that was killed keep theirs, and the next supervisor is put back there.

use crate::cgroup::{SUPERVISOR, in_unified, unified};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// The user's manager answers in milliseconds, or is not there.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(5);
/// Longest name of a unit (`UNIT_NAME_MAX` in systemd), its ending included.
const NAME_MOST: usize = 255;

const MANAGER: [&str; 3] =
    ["org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"];

/// Why this process got no group of its own, if it asked for one.
static REFUSED: OnceLock<String> = OnceLock::new();

/// Moves this process, if it is an ordinary user's, to a group in which it may make groups for the replicas of `project`.
/// Must be called before [`crate::rootless::enter`], after which the bus would not know the user. Where that cannot be,
/// replicas are without limits, and [`crate::Engine::lost`] says why.
pub fn delegate(project: &str) {
    if rustix::process::geteuid().is_root() {
        return;
    }
    let Some(mount) = unified() else { return };
    if let Err(why) = enter(&mount, project) {
        // The first reason is kept.
        let _ = REFUSED.set(why);
    }
}

pub fn refusal() -> Option<&'static str> {
    REFUSED.get().map(String::as_str)
}

fn enter(mount: &Path, project: &str) -> Result<(), String> {
    let unit = unit_name(project)?;
    let is_in = |group: &Path| group.iter().any(|part| part == unit.as_str());
    if !is_in(&own_group()) {
        let own = std::process::id().to_string();
        // It is there already as long as an earlier supervisor's replicas are.
        call(&new_scope(&unit, &own)).or_else(|refused| call(&attach(&unit, &own)).map_err(|_| refused))?;
    }
    // Both calls return before the move.
    let deadline = Instant::now() + PATIENCE;
    let group = loop {
        let group = own_group();
        if is_in(&group) {
            break group;
        }
        if Instant::now() > deadline {
            return Err(format!("systemd has not moved this process to {unit} within {PATIENCE:?}"));
        }
        std::thread::sleep(PAUSE);
    };
    // A group that passes on controllers may hold no process (cgroups(7)), also none that this one will fork.
    if group.ends_with(SUPERVISOR) {
        return Ok(());
    }
    let leaf = mount.join(group).join(SUPERVISOR);
    let moved = fs::create_dir_all(&leaf).and_then(|()| fs::write(leaf.join("cgroup.procs"), "0"));
    moved.map_err(|error| format!("cannot move to {}: {error}", leaf.display()))
}

/// This process' group, from the top of the tree.
fn own_group() -> PathBuf {
    PathBuf::from(in_unified(&fs::read_to_string("/proc/self/cgroup").unwrap_or_default()))
}

fn unit_name(project: &str) -> Result<String, String> {
    let name = format!("throng-{project}.scope");
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.len() <= NAME_MOST && project.chars().all(plain) {
        Ok(name)
    } else {
        Err(format!("{project} cannot be part of a unit's name"))
    }
}

/// `StartTransientUnit(name, mode, properties, auxiliary units)`, org.freedesktop.systemd1(5).
fn new_scope<'a>(unit: &'a str, pid: &'a str) -> Vec<&'a str> {
    let order = ["StartTransientUnit", "ssa(sv)a(sa(sv))", unit, "fail"];
    let properties = ["3", "PIDs", "au", "1", pid, "Delegate", "b", "true", "CollectMode", "s"];
    [&order[..], &properties[..], &["inactive-or-failed", "0"]].concat()
}

/// `AttachProcessesToUnit(name, group below, processes)`.
fn attach<'a>(unit: &'a str, pid: &'a str) -> Vec<&'a str> {
    vec!["AttachProcessesToUnit", "ssau", unit, "/throng-supervisor", "1", pid]
}

fn call(arguments: &[&str]) -> Result<(), String> {
    let timeout = format!("--timeout={}", PATIENCE.as_secs());
    let mut command = Command::new("busctl");
    command.args(["--user", "--quiet", &timeout, "call"]).args(MANAGER).args(arguments);
    let output = command.stdin(Stdio::null()).output().map_err(|error| format!("busctl: {error}"))?;
    said(&output)
}

fn said(output: &Output) -> Result<(), String> {
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(format!("busctl: {}", text.lines().next().unwrap_or("no answer").trim()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    #[test]
    fn a_unit_has_a_name_that_systemd_takes() {
        assert_eq!(unit_name("shop_2-a").as_deref(), Ok("throng-shop_2-a.scope"));
        for bad in ["a/b", "a b", "a@b", "..\n", &"x".repeat(NAME_MOST)] {
            assert!(unit_name(bad).is_err(), "{bad}");
        }
    }

    /// `busctl` takes a signature, and as many words as it stands for.
    #[test]
    fn calls_have_the_words_of_their_signatures() {
        let scope = new_scope("throng-a.scope", "7");
        assert_eq!(scope[..4], ["StartTransientUnit", "ssa(sv)a(sa(sv))", "throng-a.scope", "fail"]);
        let properties = ["3", "PIDs", "au", "1", "7", "Delegate", "b", "true", "CollectMode", "s"];
        assert_eq!(scope[4..14], properties);
        assert_eq!(scope[14..], ["inactive-or-failed", "0"]);
        assert_eq!(attach("u", "7"), ["AttachProcessesToUnit", "ssau", "u", "/throng-supervisor", "1", "7"]);
    }

    #[test]
    fn a_refusal_is_told_in_one_line() {
        let output = |status, text: &str| Output {
            status: ExitStatus::from_raw(status),
            stdout: vec![],
            stderr: text.into(),
        };
        assert_eq!(said(&output(0, "")), Ok(()));
        let refused = "Call failed: Unit throng-a.scope was already loaded.\nmore\n";
        let told = "busctl: Call failed: Unit throng-a.scope was already loaded.";
        assert_eq!(said(&output(256, refused)), Err(told.into()));
        assert_eq!(said(&output(9, "")), Err("busctl: no answer".into()));
    }
}
