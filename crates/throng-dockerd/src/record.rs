//! What a daemon uses of this host, written down where the next one looks: a process that is killed outright removes
//! nothing of its daemon's, and the daemon itself keeps its networks for a next life that never comes.
//!
//! A record is held locked (flock(2)) by the process that started the daemon, so one that can be locked is a dead one's.
//! Only what a record names is removed, so a Docker that the host runs is never touched.

use crate::{DockerdError, LOOK_EVERY, Places, io, mounts_below, quietly};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const FOLDER: &str = "/run/throng-dockerd";
/// How long another process may keep a daemon of the same name.
const FREE_WITHIN: Duration = Duration::from_secs(120);
/// A daemon whose starter was killed has been asked to end (setpriv(1), `--pdeathsig`) and gets this long for it.
const ENDS_WITHIN: Duration = Duration::from_secs(30);
/// The daemon's record of its networks, below its data.
const NETWORKS: &str = "data/network/files/local-kv.db";

/// Held while the daemon may run.
pub struct Record {
    path: PathBuf,
    _lock: File,
}

impl Record {
    /// Takes the name for a daemon below `folder`, after what dead ones have left is removed.
    pub fn take(name: &str, folder: &Path) -> Result<Record, DockerdError> {
        std::fs::create_dir_all(FOLDER).map_err(io(format!("make {FOLDER}")))?;
        remove_dead();
        let path = Path::new(FOLDER).join(name);
        let deadline = Instant::now() + FREE_WITHIN;
        loop {
            if let Some(lock) = lock(&path, true) {
                finish(&path, &lock);
                let text = folder.display().to_string();
                // Removed with the dead one's, or never there.
                let Some(lock) = lock_fresh(&path, lock) else { continue };
                std::fs::write(&path, text).map_err(io(format!("write {}", path.display())))?;
                return Ok(Record { path, _lock: lock });
            }
            if Instant::now() >= deadline {
                return Err(DockerdError::Taken { name: name.into(), path: path.display().to_string() });
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // Unlocked with its file, after it is gone.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The record's file, locked; `None` while somebody else has it.
fn lock(path: &Path, make: bool) -> Option<File> {
    let file = File::options().read(true).write(true).create(make).truncate(false).open(path).ok()?;
    flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
    // The one who had it may have removed it meanwhile: a lock on a file without a name keeps nobody out.
    let (held, named) = (file.metadata().ok()?, std::fs::metadata(path).ok()?);
    (held.ino() == named.ino()).then_some(file)
}

/// The same lock on a file that has the record's name, if [`finish`] has removed the one before.
fn lock_fresh(path: &Path, before: File) -> Option<File> {
    if path.exists() { Some(before) } else { lock(path, true) }
}

/// Removes what daemons have left whose starters live no more.
fn remove_dead() {
    for entry in std::fs::read_dir(FOLDER).into_iter().flatten().flatten() {
        if let Some(lock) = lock(&entry.path(), false) {
            finish(&entry.path(), &lock);
        }
    }
}

/// Ends what is left of a recorded daemon and removes everything of it, the record last. Nothing is recorded in a file
/// that is still empty.
fn finish(path: &Path, mut record: &File) {
    let mut text = String::new();
    let read = record.read_to_string(&mut text);
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return };
    if read.is_err() || text.is_empty() {
        return;
    }
    let folder = PathBuf::from(&text);
    let deadline = Instant::now() + ENDS_WITHIN;
    while !processes_of(&folder).is_empty() && Instant::now() < deadline {
        std::thread::sleep(LOOK_EVERY);
    }
    let left = processes_of(&folder);
    left.into_iter().for_each(kill);
    // Its end removes interfaces, mounts and control groups.
    drop(Places::of(&folder, name));
    // Whoever made the folder was killed with it.
    let _ = std::fs::remove_dir_all(&folder);
    let _ = std::fs::remove_file(path);
}

fn kill(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        // One that has ended meanwhile is what was wanted.
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// Processes whose command names something below the folder: the daemon, its containerd, shims.
fn processes_of(folder: &Path) -> Vec<i32> {
    let within = format!("{}/", folder.display());
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let of_it = |pid: &i32| {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        // The programs of this crate alone: a shell that looks at the folder is nobody's daemon.
        let mut words = command.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        let program = words.next().unwrap_or_default().into_owned();
        let program = program.rsplit('/').next().unwrap_or_default();
        ["setpriv", "dockerd", "containerd", "containerd-shim-runc-v2"].contains(&program)
            && words.any(|word| word.contains(&within))
    };
    pids.filter(of_it).collect()
}

/// Processes in the daemon's control groups, and their end.
pub fn kill_groups(groups: &[PathBuf]) {
    for group in groups {
        for pid in std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default().lines() {
            pid.parse().into_iter().for_each(kill);
        }
    }
}

/// Bridges of the networks that the daemon keeps a record of: `br-` and twelve digits of the network's id.
pub fn bridges_of(folder: &Path) -> BTreeSet<String> {
    bridges_in(&std::fs::read(folder.join(NETWORKS)).unwrap_or_default())
}

fn bridges_in(store: &[u8]) -> BTreeSet<String> {
    const MARK: &[u8] = b"\"BridgeName\":\"";
    const DIGITS: usize = 12;
    let names = (0..store.len()).filter(|at| store[*at..].starts_with(MARK)).filter_map(|at| {
        let name = store[at + MARK.len()..].split(|byte| *byte == b'"').next()?;
        let digits = name.strip_prefix(b"br-")?;
        let whole = digits.len() == DIGITS && digits.iter().all(u8::is_ascii_hexdigit);
        whole.then(|| String::from_utf8_lossy(name).into_owned())
    });
    names.collect()
}

/// Ends mounts below the folder, the innermost first.
pub fn unmount_below(folder: &Path) {
    for mount in mounts_below(folder).iter().rev() {
        quietly("umount", &["-l", mount]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bridges_are_found_in_the_daemons_own_store() {
        let store = b"\x00\x01junk{\"BridgeName\":\"br-0984266f3d38\",\"Mtu\":1500}\xff\
                      {\"BridgeName\":\"thr-app-dk0\"}{\"BridgeName\":\"br-0984266f3d38\"}\
                      {\"BridgeName\":\"br-\"}{\"BridgeName\":\"br-zz84266f3d38\"}{\"BridgeName\":\"br-098426";
        assert_eq!(bridges_in(store).into_iter().collect::<Vec<_>>(), ["br-0984266f3d38"]);
        assert!(bridges_in(b"").is_empty());
    }

    #[test]
    fn a_lock_keeps_others_out_until_it_is_dropped() {
        let folder = std::env::temp_dir().join(format!("throng-dockerd-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("name");
        assert!(lock(&path, false).is_none(), "there is no record");
        let held = lock(&path, true).expect("free");
        assert!(lock(&path, true).is_none());
        drop(held);
        assert!(lock(&path, false).is_some());
        std::fs::remove_dir_all(&folder).expect("removed");
    }
}
