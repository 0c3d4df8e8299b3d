//! Containers of an ordinary user, inside a user namespace.
//!
//! One process of the user, the keeper, holds a user namespace in which the user is root, and a network namespace of
//! that user namespace in which the bridges are. It only sleeps. Supervisors join the user namespace, each with its
//! whole process, and the network namespace with one thread, so replicas and their network outlive a supervisor that
//! is killed. The keeper is ended by the last engine that closes when no network is left.
//!
//! What differs from root: file ownership (images and volumes belong to the user; a replica that is not root inside
//! sees the user under its own id, and no other; one that is root has the ids that `/etc/subuid` and `/etc/subgid`
//! grant, if the `newuidmap` helpers are there), limits (enforced only where a group tree is
//! delegated to the user), and the way to replicas (through [`crate::Engine::tcp_socket`] only).

use crate::state::start_ticks;
use crate::sys;
use rustix::fs::FlockOperation;
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use throng_runtime::{ErrorKind, RuntimeError};

/// CAP_SYS_ADMIN, the capability that containers without a user namespace need.
const ADMIN: u64 = 1 << 21;

static ENTERED: OnceLock<Entered> = OnceLock::new();
/// Why the host refused a user namespace.
static REFUSED: OnceLock<String> = OnceLock::new();

#[derive(Debug)]
struct Entered {
    keeper: OwnedFd,
    folder: PathBuf,
    /// Locked, shared, as long as this process lives.
    lock: File,
}

/// How the keeper is found again.
#[derive(Serialize, Deserialize)]
struct Record {
    pid: u32,
    ticks: u64,
}

/// Makes this process root of the user's own namespace, unless it is root already. Must be called before any thread
/// exists. An error says why the host refuses; plain processes are then the only isolation left.
pub fn enter() -> Result<(), RuntimeError> {
    if crate::engine::own_capabilities() & ADMIN != 0 || ENTERED.get().is_some() {
        return Ok(());
    }
    let entered = join().map_err(|e| {
        // The first reason is kept.
        let _ = REFUSED.set(format!("no user namespace: {e}"));
        RuntimeError::new(ErrorKind::Host, format!("cannot enter a user namespace: {e}")).hint(
            "allow them (user.max_user_namespaces, kernel.apparmor_restrict_unprivileged_userns), or run as root",
        )
    })?;
    // Lost only if it is set already, which was looked at above, before any other thread.
    let _ = ENTERED.set(entered);
    Ok(())
}

fn join() -> io::Result<Entered> {
    // Two supervisors that start at once must not make two keepers.
    let (folder, lock) = lock()?;
    let keeper = match find(&folder) {
        Some(keeper) => keeper,
        None => make(&folder).inspect_err(|_| forget(&folder))?,
    };
    rustix::fs::flock(&lock, FlockOperation::LockShared)?;
    sys::setns(keeper.as_raw_fd(), libc::CLONE_NEWUSER)?;
    sys::stay_dumpable();
    Ok(Entered { keeper, folder, lock })
}

/// Opens the user's folder and locks it for this process alone. The lock's file goes with the keeper, so one that is
/// not in its place any more, when it has been waited for, means nothing.
fn lock() -> io::Result<(PathBuf, File)> {
    loop {
        let folder = folder()?;
        let path = folder.join("lock");
        let lock = match File::options().create(true).truncate(false).write(true).open(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            other => other?,
        };
        rustix::fs::flock(&lock, FlockOperation::LockExclusive)?;
        let held = lock.metadata()?;
        if fs::metadata(&path).is_ok_and(|found| (found.dev(), found.ino()) == (held.dev(), held.ino())) {
            return Ok((folder, lock));
        }
    }
}

/// The user's folder for what need not outlive the host's own life. Nobody else may have made or may enter it.
fn folder() -> io::Result<PathBuf> {
    let uid = rustix::process::getuid().as_raw();
    let folder = match std::env::var_os("XDG_RUNTIME_DIR").filter(|d| Path::new(d).is_dir()) {
        Some(runtime) => PathBuf::from(runtime).join("throng"),
        None => std::env::temp_dir().join(format!("throng-{uid}")),
    };
    match fs::DirBuilder::new().mode(0o700).create(&folder) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    let metadata = fs::symlink_metadata(&folder)?;
    if !metadata.is_dir() || metadata.uid() != uid || metadata.mode() & 0o077 != 0 {
        return Err(io::Error::other(format!("{} is not a private folder of this user", folder.display())));
    }
    Ok(folder)
}

fn find(folder: &Path) -> Option<OwnedFd> {
    let record: Record = serde_json::from_slice(&fs::read(folder.join("keeper")).ok()?).ok()?;
    let pid = Pid::from_raw(i32::try_from(record.pid).ok()?)?;
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    (start_ticks(record.pid)? == record.ticks).then_some(pidfd)
}

fn make(folder: &Path) -> io::Result<OwnedFd> {
    let (ready, ready_writer) = io::pipe()?;
    let (go_reader, go) = io::pipe()?;
    let pid = sys::fork_keeper(ready_writer.as_raw_fd(), go_reader.as_raw_fd())?;
    drop((ready_writer, go_reader));
    let mut word = [0u8; 4];
    io::Read::read_exact(&mut &ready, &mut word)?;
    let keeper = Pid::from_raw(pid as i32).ok_or_else(|| io::Error::other("no keeper"))?;
    match i32::from_ne_bytes(word) {
        0 => {}
        errno => {
            // It ends when it hears of this end of the pipe; nothing but its status is left to be taken.
            drop(go);
            let _ = waitid(WaitId::Pid(keeper), WaitIdOptions::EXITED);
            return Err(refused(errno));
        }
    }
    let pidfd = pidfd_open(keeper, PidfdFlags::empty())?;
    map_ids(pid)?;
    // The keeper sleeps from here on; if this end of the pipe closes without a word it ends.
    io::Write::write_all(&mut &go, b"1")?;
    let ticks = start_ticks(pid).ok_or_else(|| io::Error::other("the keeper has ended"))?;
    let record = serde_json::to_vec(&Record { pid, ticks })?;
    fs::write(folder.join("keeper.new"), record)?;
    fs::rename(folder.join("keeper.new"), folder.join("keeper"))?;
    Ok(pidfd)
}

/// The kernel's answer to `unshare`, in words where its own mislead (user_namespaces(7)).
fn refused(errno: i32) -> io::Error {
    match errno {
        libc::ENOSPC | libc::EUSERS => io::Error::other("the limit user.max_user_namespaces is reached"),
        other => io::Error::from_raw_os_error(other),
    }
}

/// The user becomes root inside; the ids granted to it, if the helpers are there, follow from 1.
fn map_ids(pid: u32) -> io::Result<()> {
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let name = user_name(uid);
    let granted = |file: &str| {
        let text = fs::read_to_string(file).unwrap_or_default();
        subordinate(&text, &name, uid)
    };
    if let (Some(uids), Some(gids)) = (granted("/etc/subuid"), granted("/etc/subgid"))
        && helper("newuidmap", pid, uid, uids)
        && helper("newgidmap", pid, gid, gids)
    {
        return Ok(());
    }
    // One id may be mapped without help; the kernel then wants setgroups denied (user_namespaces(7)).
    fs::write(format!("/proc/{pid}/setgroups"), "deny")?;
    fs::write(format!("/proc/{pid}/uid_map"), format!("0 {uid} 1"))?;
    fs::write(format!("/proc/{pid}/gid_map"), format!("0 {gid} 1"))
}

fn helper(program: &str, pid: u32, id: u32, (first, count): (u32, u32)) -> bool {
    let arguments = [pid, 0, id, 1, 1, first, count].map(|n| n.to_string());
    let status = Command::new(program).args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|s| s.success())
}

fn user_name(uid: u32) -> String {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let entry = passwd.lines().find(|line| line.split(':').nth(2) == Some(&uid.to_string()));
    entry.and_then(|line| line.split(':').next()).unwrap_or_default().to_owned()
}

/// `name-or-number:first:count` of subuid(5).
fn subordinate(text: &str, name: &str, id: u32) -> Option<(u32, u32)> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let who = fields.next().filter(|w| !w.is_empty())?;
        let ours = who == name || who.parse() == Ok(id);
        let range = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        ours.then_some(range)
    })
}

pub(crate) fn refusal() -> Option<String> {
    REFUSED.get().cloned()
}

pub(crate) fn entered() -> bool {
    ENTERED.get().is_some()
}

/// Moves the calling thread into the namespace of the bridges.
pub(crate) fn join_network() -> io::Result<()> {
    match ENTERED.get() {
        Some(entered) => Ok(sys::setns(entered.keeper.as_raw_fd(), libc::CLONE_NEWNET)?),
        None => Ok(()),
    }
}

/// Ends the keeper if no other supervisor of the user lives. To be called when no network is left.
pub(crate) fn leave() {
    let Some(entered) = ENTERED.get() else { return };
    if rustix::fs::flock(&entered.lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        return;
    }
    // Fails only if it has ended already.
    let _ = crate::exec::send(&entered.keeper, libc::SIGKILL);
    forget(&entered.folder);
}

/// Removes what tells of a keeper. Only for who holds the lock alone.
fn forget(folder: &Path) {
    // Each fails only if it is gone already, the last one also if something else lies in the folder.
    let _ = fs::remove_file(folder.join("keeper"));
    let _ = fs::remove_file(folder.join("lock"));
    let _ = fs::remove_dir(folder);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn granted_ids_are_found_by_name_and_number() {
        let text = "other:1:2\nann:100000:65536\n1001:300000:10\nbroken:x:y\n";
        assert_eq!(subordinate(text, "ann", 1000), Some((100_000, 65_536)));
        assert_eq!(subordinate(text, "bob", 1001), Some((300_000, 10)));
        assert_eq!(subordinate(text, "broken", 7), None);
        assert_eq!(subordinate(text, "", 7), None);
    }
}
