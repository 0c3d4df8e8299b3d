//! The mount namespace that replicas start from: one empty, read-only file system and nothing else.
//!
//! A child that starts in a copy of the host's mounts has to leave them by `pivot_root`, which looks at every process of
//! the host for one whose root it must change: with ten thousand replicas a third of a start. A child that copies this
//! namespace has nothing to leave. It mounts its root over the empty one, as `switch_root` does when a host boots, so
//! beneath a replica's root, for whoever may unmount it, is an empty folder.
//!
//! Beneath that is what the kernel booted with: every namespace of mounts begins with it. A copy made for another user
//! namespace holds its mounts together (`lock_mnt_tree`), and so do copies of the copy: nobody in a replica, root of the
//! host with all privileges included, can take the empty file system away or write to it.
//!
//! Nothing but a descriptor holds the namespace, so it goes with the engine and leaves no trace; the next engine makes
//! another one. Replicas live in copies and do not need it.

use crate::child::{Job, Op};
use crate::spawn::{pid_in, spawn_alone};
use crate::sys;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount,
    unmount,
};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::thread;

/// Makes the namespace. `folder` must be an empty folder and `other` another one; nothing is changed in them. An error
/// means that this kernel is too old for it (overlayfs takes folders one by one since Linux 6.7), or that this process
/// lacks a privilege.
pub fn namespace(folder: &Path, other: &Path) -> io::Result<OwnedFd> {
    // Threads share their namespaces and their root until one makes its own.
    thread::scope(|scope| {
        let made =
            thread::Builder::new().name("throng-blank".into()).spawn_scoped(scope, || make(folder, other));
        made?
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("the thread that makes a mount namespace has failed")))
    })
}

fn make(folder: &Path, other: &Path) -> io::Result<OwnedFd> {
    sys::unshare(libc::CLONE_NEWNS)?;
    let namespace = OwnedFd::from(File::open("/proc/thread-self/ns/mnt")?);
    let processes = rustix::fs::open("/proc", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    // Nothing of what follows may reach the host, whatever its mounts' propagation.
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    try_overlay(folder, other)?;
    let root = empty()?;
    move_mount(&root, "", CWD, folder, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    rustix::process::fchdir(&root)?;
    rustix::process::pivot_root(".", ".")?;
    // The old root lies over the new one until now.
    unmount(".", UnmountFlags::DETACH)?;
    // Where user namespaces are switched off, mounts can be no more than what they are.
    Ok(locked(&processes).unwrap_or(namespace))
}

/// A copy of the calling thread's namespace that belongs to a user namespace of its own. `processes` is the host's /proc,
/// which no path leads to any more.
fn locked(processes: &OwnedFd) -> io::Result<OwnedFd> {
    let job = Job::new(libc::CLONE_NEWUSER | libc::CLONE_NEWNS, vec![Op::AwaitGo]);
    let child = spawn_alone(job, || Ok(())).map_err(|failure| io::Error::from(failure.errno))?;
    let open =
        |path: String| rustix::fs::openat(processes, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let mut about = String::new();
    File::from(open(format!("self/fdinfo/{}", child.pidfd.as_raw_fd()))?).read_to_string(&mut about)?;
    let pid = pid_in(&about).ok_or_else(|| io::Error::other("the process has ended"))?;
    // The child is given up now, but not its namespace.
    Ok(open(format!("{pid}/ns/mnt"))?)
}

fn empty() -> io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in [("nr_inodes", "1"), ("size", "4k"), ("mode", "0555")] {
        fsconfig_set_string(&context, key, value)?;
    }
    fsconfig_set_flag(&context, "ro")?;
    fsconfig_create(&context)?;
    let restricted = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, restricted)?)
}

/// Whether the kernel makes overlays as [`sys::overlay`] wants it to.
fn try_overlay(folder: &Path, other: &Path) -> io::Result<()> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for lower in [folder, other] {
        rustix::process::chdir(lower)?;
        fsconfig_set_string(&context, "lowerdir+", ".")?;
    }
    Ok(fsconfig_create(&context)?)
}
