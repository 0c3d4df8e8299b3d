//! Pausing a replica: none of its processes runs until it goes on, and none of them can tell.
//!
//! With control groups of version 2 the replica's own group is frozen (the kernel's
//! Documentation/admin-guide/cgroup-v2.rst). With version 1 its processes are moved into a group of the `freezer`
//! hierarchy, which is there only meanwhile (cgroup-v1/freezer-subsystem.rst). Where there is neither, as for an ordinary
//! user, each process is sent `SIGSTOP`, which their parents can see.
//!
//! Nothing is remembered: the kernel says what is paused, to a later supervisor as well.

use crate::cgroup::{self, Group, SUBTREE};
use crate::engine::Core;
use crate::replica::Replica;
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

/// How long the kernel may take to stop or move everything.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(2);

/// How a running replica is held.
enum Way {
    /// The folder of its group of version 2.
    Unified(PathBuf),
    /// The folder that it gets in the hierarchy of version 1.
    Freezer(PathBuf),
    Signals,
}

/// Where the `freezer` hierarchy of version 1 is mounted and may be written.
fn freezer() -> Option<&'static Path> {
    static FREEZER: OnceLock<Option<PathBuf>> = OnceLock::new();
    FREEZER.get_or_init(|| cgroup::hierarchy("freezer")).as_deref()
}

fn folder(replica: &Replica) -> Option<PathBuf> {
    Some(freezer()?.join(SUBTREE).join(&replica.id.project).join(replica.id.name()))
}

fn way(group: Option<&Group>, replica: &Replica) -> Way {
    match (group, group.and_then(Group::unified), folder(replica)) {
        (_, Some(folder), _) if folder.join("cgroup.freeze").exists() => Way::Unified(folder.to_path_buf()),
        (Some(group), None, Some(folder)) if !group.is_v2() => Way::Freezer(folder),
        _ => Way::Signals,
    }
}

/// Whether its processes are kept from running. False of one that does not run.
pub fn is_paused(core: &Core, replica: &Replica) -> bool {
    let Some(pid) = replica.pid() else { return false };
    let group = core.group_of(replica);
    match way(group.as_ref(), replica) {
        Way::Unified(folder) => read(&folder.join("cgroup.freeze")) == "1",
        Way::Freezer(folder) => !matches!(read(&folder.join("freezer.state")).as_str(), "" | "THAWED"),
        Way::Signals => crate::state::is_stopped(pid),
    }
}

/// Returns when nothing of it runs any more.
pub fn pause(core: &Core, replica: &Replica) -> io::Result<()> {
    let group = core.group_of(replica);
    match (way(group.as_ref(), replica), &group) {
        (Way::Unified(folder), _) => {
            fs::write(folder.join("cgroup.freeze"), "1")?;
            until(|| read(&folder.join("cgroup.events")).lines().any(|line| line == "frozen 1"))
        }
        (Way::Freezer(folder), Some(group)) => freeze(&folder, group),
        _ => signal_all(core, replica, Signal::STOP),
    }
}

/// Fine if it is not paused, or does not run.
pub fn unpause(core: &Core, replica: &Replica) -> io::Result<()> {
    let group = core.group_of(replica);
    match way(group.as_ref(), replica) {
        Way::Unified(folder) => fs::write(folder.join("cgroup.freeze"), "0"),
        Way::Freezer(folder) if folder.exists() => {
            fs::write(folder.join("freezer.state"), "THAWED")?;
            forget(replica);
            Ok(())
        }
        Way::Freezer(_) => Ok(()),
        Way::Signals => signal_all(core, replica, Signal::CONT),
    }
}

/// Removes what a paused replica has left in the hierarchy of version 1; fine if there is nothing.
pub fn forget(replica: &Replica) {
    let Some((top, folder)) = freezer().zip(folder(replica)) else { return };
    if !folder.exists() {
        return;
    }
    // Back to where they were, if they live.
    let emptied = until(|| {
        let left = processes(&folder);
        left.iter().for_each(|pid| drop(fs::write(top.join("cgroup.procs"), pid.to_string())));
        left.is_empty()
    });
    if let Err(error) = emptied.and_then(|()| fs::remove_dir(&folder)) {
        tracing::warn!("{} is left: {error}", folder.display());
    }
    // They stay while other replicas are in them.
    let _ = folder.parent().map(fs::remove_dir);
    let _ = fs::remove_dir(top.join(SUBTREE));
}

/// Moves all processes of a group into the folder's and has that stop. One that forks before it is moved leaves a child
/// outside, so it is looked again until there is none.
fn freeze(folder: &Path, group: &Group) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    until(|| {
        let inside = processes(folder);
        let missing: Vec<i32> = group.processes().into_iter().filter(|pid| !inside.contains(pid)).collect();
        // One that cannot be moved is ending.
        missing.iter().for_each(|pid| drop(fs::write(folder.join("cgroup.procs"), pid.to_string())));
        missing.is_empty()
    })?;
    fs::write(folder.join("freezer.state"), "FROZEN")?;
    until(|| read(&folder.join("freezer.state")) == "FROZEN")
}

/// All that run in the replica: those of its group, or of the PID namespace of its first process, or that one's own.
fn signal_all(core: &Core, replica: &Replica, signal: Signal) -> io::Result<()> {
    let Some(first) = replica.pid() else { return Ok(()) };
    let pids = match core.group_of(replica) {
        Some(group) => group.processes(),
        None if core.contained() => crate::state::in_pid_namespace_of(first),
        None => {
            let leader = i32::try_from(first).ok().and_then(Pid::from_raw);
            return match leader.map(|leader| rustix::process::kill_process_group(leader, signal)) {
                Some(Err(error)) if error != rustix::io::Errno::SRCH => Err(error.into()),
                _ => Ok(()),
            };
        }
    };
    for pid in pids.into_iter().filter_map(Pid::from_raw) {
        match kill_process(pid, signal) {
            // It has ended.
            Err(rustix::io::Errno::SRCH) => {}
            other => other?,
        }
    }
    Ok(())
}

fn processes(folder: &Path) -> Vec<i32> {
    read(&folder.join("cgroup.procs")).lines().filter_map(|line| line.parse().ok()).collect()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn until(mut done: impl FnMut() -> bool) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        if Instant::now() > deadline {
            let message = format!("the kernel has not done so within {} s", PATIENCE.as_secs());
            return Err(io::Error::new(io::ErrorKind::TimedOut, message));
        }
        thread::sleep(PAUSE);
    }
    Ok(())
}
