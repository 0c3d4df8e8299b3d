//! The child's file systems: mounts, roots, and what is made in them.

use super::{Errno, Outcome, check, descriptor};
use crate::child::Overlay;
use std::ffi::{CStr, c_char};
use std::os::fd::RawFd;
use std::ptr::null;

pub const BIND: u64 = libc::MS_BIND;
pub const REMOUNT: u64 = libc::MS_REMOUNT;
pub const READ_ONLY: u64 = libc::MS_RDONLY;
pub const RECURSIVE: u64 = libc::MS_REC;
pub const NO_SUID: u64 = libc::MS_NOSUID;
pub const NO_DEV: u64 = libc::MS_NODEV;
pub const NO_EXEC: u64 = libc::MS_NOEXEC;
pub const PRIVATE: u64 = libc::MS_PRIVATE;

pub fn mount(source: &CStr, target: &CStr, kind: &CStr, flags: u64, data: Option<&CStr>) -> Outcome {
    let data = data.map_or(null(), CStr::as_ptr);
    // SAFETY: all are C strings or null.
    check(unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, data.cast()) })
}

pub fn unmount(path: &CStr) -> Outcome {
    // SAFETY: a C string.
    check(unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) })
}

/// Makes an overlay that is attached nowhere. Its folders are named by the current directory, so that no path of the host
/// is in what the kernel tells a replica about its mounts, and none is too long for `fsconfig` (256 bytes).
pub fn overlay(wanted: &Overlay) -> Result<RawFd, Errno> {
    // SAFETY: C strings; the descriptor is the child's own, closed by `execve`.
    let context =
        descriptor(unsafe { libc::syscall(libc::SYS_fsopen, c"overlay".as_ptr(), FSOPEN_CLOEXEC) })?;
    let lower = wanted.lower.iter().map(|path| (c"lowerdir+", path));
    for (key, path) in lower.chain([(c"upperdir", &wanted.upper), (c"workdir", &wanted.work)]) {
        chdir(path)?;
        configure(context, FSCONFIG_SET_STRING, key.as_ptr(), c".".as_ptr())?;
    }
    chdir(c"/")?;
    if wanted.volatile {
        configure(context, FSCONFIG_SET_FLAG, c"volatile".as_ptr(), null())?;
    }
    configure(context, FSCONFIG_CMD_CREATE, null(), null())?;
    // Device nodes that an image brings along are no way to the host's devices.
    // SAFETY: no memory is involved.
    descriptor(unsafe { libc::syscall(libc::SYS_fsmount, context, FSMOUNT_CLOEXEC, MOUNT_ATTR_NODEV) })
}

/// `key` and `value` must be C strings or null, as the command wants them.
fn configure(context: RawFd, command: u32, key: *const c_char, value: *const c_char) -> Outcome {
    // SAFETY: as promised by the callers above, all of which pass literals.
    check(unsafe { libc::syscall(libc::SYS_fsconfig, context, command, key, value, 0) })
}

const FSOPEN_CLOEXEC: u32 = 1;
const FSMOUNT_CLOEXEC: u32 = 1;
const FSCONFIG_SET_FLAG: u32 = 0;
const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_CMD_CREATE: u32 = 6;
const AT_EMPTY_PATH: u32 = 0x1000;
const OPEN_TREE_CLONE: u32 = 1;
const AT_RECURSIVE: u32 = 0x8000;
const MOVE_MOUNT_F_EMPTY_PATH: u32 = 4;
const MOVE_MOUNT_T_SYMLINKS: u32 = 0x10;
const MOUNT_ATTR_RDONLY: u64 = 1;
const MOUNT_ATTR_NODEV: u32 = 4;

pub fn open_tree(path: &CStr, recursive: bool) -> Result<RawFd, Errno> {
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as u32 | if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: a C string.
    let tree =
        descriptor(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })?;
    let private = MountAttributes { propagation: libc::MS_PRIVATE, ..MountAttributes::default() };
    set_attributes(tree, c"", AT_EMPTY_PATH | AT_RECURSIVE, &private)?;
    Ok(tree)
}

pub fn move_mount(tree: RawFd, target: &CStr) -> Outcome {
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_SYMLINKS;
    // SAFETY: C strings; the tree stays open until `execve` closes it.
    check(unsafe {
        libc::syscall(libc::SYS_move_mount, tree, c"".as_ptr(), libc::AT_FDCWD, target.as_ptr(), flags)
    })
}

/// `struct mount_attr` of linux/mount.h.
#[repr(C)]
#[derive(Default)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

pub fn read_only(path: &CStr, recursive: bool) -> Outcome {
    let attributes = MountAttributes { set: MOUNT_ATTR_RDONLY, ..MountAttributes::default() };
    set_attributes(libc::AT_FDCWD, path, if recursive { AT_RECURSIVE } else { 0 }, &attributes)
}

fn set_attributes(folder: RawFd, path: &CStr, flags: u32, attributes: &MountAttributes) -> Outcome {
    // SAFETY: the structure has the layout and size that the kernel is told.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            folder,
            path.as_ptr(),
            flags,
            std::ptr::from_ref(attributes),
            size_of::<MountAttributes>(),
        )
    })
}

/// Puts an empty folder, read-only, over another one.
pub fn hide_folder(path: &CStr, root: RawFd, empty: &CStr) -> Outcome {
    let flags = OPEN_TREE_CLONE | libc::O_CLOEXEC as u32;
    // SAFETY: C strings; the descriptor is the child's own and closed here.
    unsafe {
        let tree = descriptor(libc::syscall(libc::SYS_open_tree, root, empty.as_ptr(), flags))?;
        let result = move_mount(tree, path);
        libc::close(tree);
        result?;
    }
    read_only(path, false)
}

pub fn mkdir(path: &CStr, mode: u32) -> Outcome {
    // SAFETY: a C string.
    check(unsafe { libc::mkdir(path.as_ptr(), mode) })
}

/// Makes an empty file where there is none.
pub fn touch(path: &CStr) -> Outcome {
    // SAFETY: a C string; the descriptor is closed here.
    unsafe {
        let fd =
            descriptor(libc::open(path.as_ptr(), libc::O_CREAT | libc::O_RDONLY | libc::O_CLOEXEC, 0o644))?;
        libc::close(fd);
    }
    Ok(())
}

pub fn mknod(path: &CStr, mode: u32, device: u64) -> Outcome {
    // SAFETY: a C string.
    check(unsafe { libc::mknod(path.as_ptr(), mode, device) })
}

pub fn symlink(target: &CStr, path: &CStr) -> Outcome {
    // SAFETY: C strings.
    check(unsafe { libc::symlink(target.as_ptr(), path.as_ptr()) })
}

pub fn open_path(path: &CStr) -> Result<RawFd, Errno> {
    // SAFETY: a C string.
    descriptor(unsafe { libc::open(path.as_ptr(), libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC) })
}

pub fn chdir(path: &CStr) -> Outcome {
    // SAFETY: a C string; the child was made without CLONE_FS, so its working directory is its own.
    check(unsafe { libc::chdir(path.as_ptr()) })
}

pub fn fchdir(fd: RawFd) -> Outcome {
    // SAFETY: as for `chdir`.
    check(unsafe { libc::fchdir(fd) })
}

pub fn chroot(path: &CStr) -> Outcome {
    // SAFETY: a C string; as for `chdir`.
    check(unsafe { libc::chroot(path.as_ptr()) })
}

pub fn pivot_root(new: &CStr, old: &CStr) -> Outcome {
    // SAFETY: C strings.
    check(unsafe { libc::syscall(libc::SYS_pivot_root, new.as_ptr(), old.as_ptr()) })
}
