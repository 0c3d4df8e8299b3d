//! A writable layer of limited size: a file system of its own in a sparse file.
//!
//! Whoever fills it gets `ENOSPC`, as on any full disk, and nobody else notices. The file system is mounted in the
//! replica's namespaces alone, so when the last process has ended the kernel unmounts it and frees the loop device,
//! whether or not a supervisor lives; what is left is one file in the replica's folder. It has no journal: a layer need
//! not outlive the host, and after a crash of the host it is checked before it is used again.
//!
//! Two devices on one file would destroy it. So the file is locked before it is attached, and the device keeps the lock.

use crate::sys::loops;
use rustix::fs::FlockOperation;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen,
};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use throng_runtime::backends::LOG;
use throng_runtime::{ErrorKind, RuntimeError};

use crate::errors::host;
use crate::replica::Replica;

/// The smallest file system that has room for more than itself.
pub const LEAST: u64 = 1 << 20;
/// Less room than this is none: a block more or less is given back all the time.
const FULL: u64 = 16 << 10;
/// Name of the file.
const IMAGE: &str = "layer.img";
/// Name of the folder on which it is mounted, in the replica's namespace only.
const POINT: &str = "layer";
/// How long the kernel may take to give up an earlier mount of the same file.
const PATIENCE: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(5);

type Outcome<T> = Result<T, RuntimeError>;

/// The layer of a replica that is about to run; other processes do not see it.
pub struct Disk {
    pub mount: OwnedFd,
}

impl Disk {
    /// Where this process finds what is in it.
    pub fn folder(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.mount.as_raw_fd()))
    }
}

pub fn point(folder: &Path) -> PathBuf {
    folder.join(POINT)
}

/// Makes the file and the file system in it, unless it is there with that size.
pub fn make(who: &str, folder: &Path, bytes: u64) -> Outcome<()> {
    if bytes < LEAST {
        return Err(RuntimeError::new(
            ErrorKind::Invalid,
            format!("{who}: storage_opt.size is {bytes} bytes; a writable layer takes at least {LEAST}"),
        )
        .hint("write a larger size, as in 64m"));
    }
    let path = folder.join(IMAGE);
    if fs::metadata(&path).is_ok_and(|found| found.len() == bytes) {
        return Ok(());
    }
    let failed = |e: io::Error| host(format_args!("cannot make the writable layer of {who}"), e);
    fs::create_dir_all(point(folder)).map_err(failed)?;
    // Beside its place: one that is half made must not look whole.
    let fresh = folder.join("layer.new");
    File::create(&fresh).and_then(|file| file.set_len(bytes)).map_err(failed)?;
    let options =
        ["-q", "-F", "-b", "4096", "-m", "0", "-O", "^has_journal", "-E", "nodiscard,lazy_itable_init=1"];
    let made = tool("mkfs.ext4", Command::new("mkfs.ext4").args(options).arg(&fresh), &[0]);
    made.and_then(|()| fs::rename(&fresh, path).map_err(failed)).inspect_err(|_| {
        // Of no use to anybody.
        let _ = fs::remove_file(&fresh);
    })
}

/// Removes the file; fine if there is none.
pub fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_file(folder.join(IMAGE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Checks the file system after the host has gone down with it.
pub fn repair(folder: &Path) -> Outcome<()> {
    // 1: errors were there and are corrected (e2fsck(8)).
    tool("e2fsck", Command::new("e2fsck").args(["-f", "-y"]).arg(folder.join(IMAGE)), &[0, 1])
}

fn tool(name: &str, command: &mut Command, fine: &[i32]) -> Outcome<()> {
    // Where such programs are, which is not in the search path of every user.
    let path = std::env::var("PATH").unwrap_or_default();
    let output = command.env("PATH", format!("{path}:/usr/sbin:/sbin")).stdin(Stdio::null()).output();
    let limits = "a size limit of a writable layer (storage_opt.size)";
    let output = output.map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => RuntimeError::new(ErrorKind::Host, format!("no {name} for {limits}"))
            .hint("install it (Debian: apt-get install e2fsprogs), or take the limit away"),
        _ => host(format_args!("cannot run {name} for {limits}"), e),
    })?;
    if output.status.code().is_some_and(|code| fine.contains(&code)) {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
    Err(RuntimeError::new(ErrorKind::Host, format!("{name} has failed ({}): {said}", output.status)))
}

/// Mounts it where nobody sees it, with empty `upper` and `work` folders if they are missing.
pub fn open(folder: &Path) -> io::Result<Disk> {
    let image = lock(&folder.join(IMAGE))?;
    let (number, device) = loops::attach(&image)?;
    let context = fsopen("ext4", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", format!("/dev/loop{number}"))?;
    // What is removed in it the host gets back, and tables that nobody needs yet stay holes of the file.
    for flag in ["discard", "noinit_itable"] {
        fsconfig_set_flag(&context, flag)?;
    }
    fsconfig_create(&context)?;
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_NODEV)?;
    drop(device);
    let disk = Disk { mount };
    for below in ["upper", "work"] {
        fs::create_dir_all(disk.folder().join(below))?;
    }
    fs::set_permissions(disk.folder().join("upper"), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    Ok(disk)
}

fn lock(path: &Path) -> io::Result<File> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let image = File::options().read(true).write(true).open(path)?;
        match rustix::fs::flock(&image, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(image),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => std::thread::sleep(PAUSE),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Writes into the log of a replica, once until there is room again, that its layer is full: the program that meets
/// `ENOSPC` may not say so, nor anybody which limit it is.
pub fn tell_if_full(replica: &Replica) {
    let limit = replica.inner().spec.as_ref().and_then(|spec| spec.resources.disk);
    let (Some(bytes), Some(running)) = (limit, replica.running()) else { return };
    // The system's own file systems in a replica are never full.
    let path = format!("/proc/{}/root/.", running.pid);
    let room = rustix::fs::statvfs(path).map(|found| found.f_bavail * found.f_frsize);
    let full = room.is_ok_and(|room| room < FULL);
    if full && !replica.told_full.swap(true, Ordering::Relaxed) {
        tracing::warn!("the writable layer of {} is full: its limit is {bytes} bytes", replica.id);
        let line = format!("[throng: the writable layer is full; storage_opt.size is {bytes} bytes]\n");
        let log = File::options().append(true).open(replica.folder.join(LOG));
        if let Err(error) = log.and_then(|mut log| log.write_all(line.as_bytes())) {
            tracing::warn!("cannot write into the log of {}: {error}", replica.id);
        }
    }
    if !full {
        replica.told_full.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_tool_is_named_with_what_to_do() {
        let error = tool("no-such-tool", &mut Command::new("no-such-tool"), &[0]).unwrap_err();
        assert!(
            error.message.contains("no-such-tool") && error.message.contains("storage_opt.size"),
            "{error}"
        );
        assert!(error.hint.is_some_and(|hint| hint.contains("e2fsprogs")));
        let error = tool("false", &mut Command::new("false"), &[0]).unwrap_err();
        assert!(error.message.contains("false has failed"), "{error}");
        assert!(tool("false", &mut Command::new("false"), &[0, 1]).is_ok());
    }

    #[test]
    fn a_layer_without_room_for_itself_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let error = make("web-1", dir.path(), LEAST - 1).unwrap_err();
        assert!(error.kind == ErrorKind::Invalid && error.message.contains("storage_opt.size"), "{error}");
    }
}
