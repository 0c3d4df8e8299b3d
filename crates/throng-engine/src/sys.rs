//! System calls that the child makes, and the making of the child. With [`crate::child`] the only unsafe code of the
//! workspace. Everything the child calls is async-signal-safe: no allocation, no lock, no panic.

pub mod init;
pub mod loops;
pub mod notify;
pub mod rtnetlink;
pub mod wires;

use crate::child::{Job, MAX_BROUGHT, Overlay, run};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// An error number of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Errno(pub i32);

impl Errno {
    pub const MISSING: Errno = Errno(libc::ENOENT);
    pub const EXISTS: Errno = Errno(libc::EEXIST);
    pub const DENIED: Errno = Errno(libc::EACCES);
    pub const NOT_A_FOLDER: Errno = Errno(libc::ENOTDIR);
    /// What `mount` says when a file is to be bound over a folder.
    pub const NOT_A_FILE: Errno = Errno(libc::ENOTDIR);
    pub const MANY: Errno = Errno(libc::EMFILE);
    pub const CANCELLED: Errno = Errno(libc::ECANCELED);
    pub const IN_USE: Errno = Errno(libc::EADDRINUSE);
    pub const UNKNOWN: Errno = Errno(libc::ENOSYS);
    pub const NO_PROCESS: Errno = Errno(libc::ESRCH);

    fn last() -> Self {
        // SAFETY: the location of errno is valid for the calling thread. In the child it is the one of the
        // sleeping thread that made it, which reads it only after its own failed call.
        Errno(unsafe { *libc::__errno_location() })
    }
}

impl From<Errno> for io::Error {
    fn from(errno: Errno) -> Self {
        io::Error::from_raw_os_error(errno.0)
    }
}

pub const BIND: u64 = libc::MS_BIND;
pub const REMOUNT: u64 = libc::MS_REMOUNT;
pub const READ_ONLY: u64 = libc::MS_RDONLY;
pub const RECURSIVE: u64 = libc::MS_REC;
pub const NO_SUID: u64 = libc::MS_NOSUID;
pub const NO_DEV: u64 = libc::MS_NODEV;
pub const NO_EXEC: u64 = libc::MS_NOEXEC;
pub const PRIVATE: u64 = libc::MS_PRIVATE;
const STACK_SIZE: usize = 128 << 10;
const GUARD_SIZE: usize = 64 << 10;
/// A child that has not executed its program after this long is stuck in the kernel; the parent gives up on it.
const ABANDONED: Duration = Duration::from_secs(120);

type Outcome = Result<(), Errno>;

fn check(result: impl Into<i64>) -> Outcome {
    if result.into() < 0 { Err(Errno::last()) } else { Ok(()) }
}

fn descriptor(result: impl Into<i64>) -> Result<RawFd, Errno> {
    let number = result.into();
    if number < 0 { Err(Errno::last()) } else { Ok(number as RawFd) }
}

/// A seccomp program in the kernel's own form.
#[derive(Debug)]
pub struct Filter(pub Vec<libc::sock_filter>);

/// A stack for children of one thread, with a guard below it.
#[derive(Debug)]
pub struct Stack(*mut c_void);

// SAFETY: the mapping belongs to this value alone and may be used from any thread.
unsafe impl Send for Stack {}

impl Stack {
    pub fn new() -> io::Result<Self> {
        // SAFETY: a fresh anonymous mapping; nothing else refers to it.
        let base = unsafe {
            libc::mmap(
                null_mut(),
                STACK_SIZE + GUARD_SIZE,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let stack = Stack(base);
        // SAFETY: the range is the lower part of the mapping made above.
        if unsafe { libc::mprotect(base, GUARD_SIZE, libc::PROT_NONE) } < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(stack)
    }

    fn top(&self) -> *mut c_void {
        // SAFETY: one past the end of the mapping, page aligned, as `clone` wants it.
        unsafe { self.0.byte_add(STACK_SIZE + GUARD_SIZE) }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: unmaps exactly what `new` mapped; `clone_child` has returned, so no child runs on it.
        unsafe { libc::munmap(self.0, STACK_SIZE + GUARD_SIZE) };
    }
}

/// Makes the child of `job` and sleeps until it has executed its program or ended. The calling thread must have all
/// signals blocked ([`block_signals`]). Returns its pid; its pidfd is in the report from before it ran.
pub fn clone_child(job: &Job, stack: &mut Stack) -> Result<u32, Errno> {
    let flags = libc::CLONE_VM
        | libc::CLONE_VFORK
        | libc::CLONE_FILES
        | libc::CLONE_PIDFD
        | libc::SIGCHLD
        | job.namespaces;
    // SAFETY: CLONE_VFORK suspends this thread until the child has released the memory it shares with us, so `job`
    // and `stack` outlive every use by the child. The child keeps to the rules in `crate::child`. CLONE_FILES shares
    // the descriptor table only until the child's first operation unshares it.
    let pid = unsafe {
        libc::clone(
            child_main,
            stack.top(),
            flags,
            std::ptr::from_ref(job).cast_mut().cast::<c_void>(),
            job.report.pidfd.as_ptr(),
            null_mut::<c_void>(),
            null_mut::<c_int>(),
        )
    };
    descriptor(pid).map(|pid| pid as u32)
}

extern "C" fn child_main(job: *mut c_void) -> c_int {
    // SAFETY: `clone_child` passed a reference to a `Job` that it keeps alive while this runs.
    let job = unsafe { &*job.cast::<Job>() };
    run(job);
    // SAFETY: ends the child without running exit handlers, which belong to the supervisor.
    unsafe { libc::_exit(127) }
}

/// Takes the pidfd that the kernel stored for us.
pub fn adopt_descriptor(fd: RawFd) -> OwnedFd {
    // SAFETY: called once for a descriptor that `clone` has just opened for this process.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

pub fn block_signals() {
    // SAFETY: fills a local set and changes the calling thread's mask only.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigfillset(&mut set);
        libc::pthread_sigmask(libc::SIG_SETMASK, &set, null_mut());
    }
}

/// Sleeps while the word holds `value`, at most [`ABANDONED`].
pub fn wait_while(word: &AtomicU32, value: u32) {
    let deadline = libc::timespec { tv_sec: ABANDONED.as_secs() as libc::time_t, tv_nsec: 0 };
    while word.load(Ordering::Acquire) == value {
        // SAFETY: the word and the time are valid for the call; a changed word makes it return at once.
        let result = unsafe {
            libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, value, &raw const deadline)
        };
        if result < 0 && Errno::last().0 == libc::ETIMEDOUT {
            return;
        }
    }
}

pub fn wake(word: &AtomicU32) {
    // SAFETY: only wakes sleepers on a valid address.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX) };
}

/// Keeps 0, 1 and 2, and those of `keep` that are not negative. The kernel copies the table up to the largest, so they
/// must be small numbers: the supervisor's table holds a descriptor for each replica.
pub fn own_descriptors(mut keep: [RawFd; MAX_BROUGHT]) -> Outcome {
    keep.sort_unstable();
    let (mut after, mut flags) = (u32::MAX, libc::CLOSE_RANGE_UNSHARE);
    for number in keep.into_iter().rev().map(|fd| u32::try_from(fd).unwrap_or(0).max(2)).chain([2]) {
        if number < after {
            // SAFETY: CLOSE_RANGE_UNSHARE makes a table of the child's own first, so the supervisor's stay open.
            check(unsafe { libc::syscall(libc::SYS_close_range, number + 1, after, flags) })?;
            flags = 0;
        }
        // Nothing lies between two that follow each other: the next range is empty then.
        after = number - 1;
    }
    Ok(())
}

pub fn take_descriptors(fds: [i32; 3]) -> Outcome {
    // Closes nothing, but makes a table of the child's own; `unshare` is often forbidden.
    // SAFETY: what follows concerns the child's copy only.
    check(unsafe { libc::syscall(libc::SYS_close_range, u32::MAX, u32::MAX, libc::CLOSE_RANGE_UNSHARE) })?;
    let mut safe = [0; 3];
    for (slot, fd) in safe.iter_mut().zip(fds) {
        // Above 2, so that none is overwritten before it is used.
        // SAFETY: duplicates a descriptor within the child's table.
        *slot = descriptor(unsafe { libc::fcntl(fd, libc::F_DUPFD, 3) })?;
    }
    for (target, fd) in (0..).zip(safe) {
        // SAFETY: as above.
        check(unsafe { libc::dup2(fd, target) })?;
    }
    // SAFETY: marks descriptors of the child's own table.
    check(unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) })
}

pub fn die_with_parent(on: bool) -> Outcome {
    let signal = if on { libc::SIGKILL } else { 0 };
    // SAFETY: sets an attribute of the calling task.
    check(unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, signal as libc::c_ulong, 0, 0, 0) })
}

pub fn new_session() -> Outcome {
    // SAFETY: no memory is involved.
    check(unsafe { libc::setsid() })
}

/// Room for the kernel's `struct sigaction` of any architecture; all zero is the default action.
const DEFAULT_ACTION: [u64; 8] = [0; 8];
/// Bytes of a signal set in the kernel's eyes.
const SIGNAL_SET: usize = 8;

pub fn default_signals() {
    for signal in 1..=64 {
        // The bare call, since the C library refuses to touch the two signals that it uses itself.
        // SAFETY: the child was made without CLONE_SIGHAND, so its actions are its own. Those that cannot be changed
        // (SIGKILL, SIGSTOP) fail without harm.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                DEFAULT_ACTION.as_ptr(),
                null_mut::<c_void>(),
                SIGNAL_SET,
            )
        };
    }
    // SAFETY: an empty mask for the calling task; `execve` passes the mask on to the program.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &set, null_mut());
    }
}

pub fn write_file(path: &CStr, data: &[u8]) -> Outcome {
    // SAFETY: path is a C string, data a valid slice; the descriptor is closed here.
    unsafe {
        let fd = descriptor(libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC))?;
        let result = check(libc::write(fd, data.as_ptr().cast(), data.len()) as i64);
        libc::close(fd);
        result
    }
}

pub fn standard_output(log: &CStr) -> Outcome {
    let flags = libc::O_WRONLY | libc::O_APPEND | libc::O_NOCTTY;
    // SAFETY: paths are C strings; the descriptors are the child's own.
    unsafe {
        for (path, flags, target) in [(c"/dev/null", libc::O_RDONLY, 0), (log, flags, 1)] {
            let fd = descriptor(libc::open(path.as_ptr(), flags | libc::O_CLOEXEC))?;
            check(libc::dup2(fd, target))?;
            if fd == target {
                check(libc::fcntl(fd, libc::F_SETFD, 0))?;
            }
        }
        check(libc::dup2(1, 2))
    }
}

pub fn unshare(flags: i32) -> Outcome {
    // SAFETY: used for namespaces only; it concerns the calling task.
    check(unsafe { libc::unshare(flags) })
}

pub fn setns(fd: RawFd, flags: i32) -> Outcome {
    // SAFETY: concerns the calling task.
    check(unsafe { libc::setns(fd, flags) })
}

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
    // SAFETY: no memory is involved.
    descriptor(unsafe { libc::syscall(libc::SYS_fsmount, context, FSMOUNT_CLOEXEC, 0) })
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

pub fn sleep(time: Duration) {
    let time = libc::timespec {
        tv_sec: time.as_secs() as libc::time_t,
        tv_nsec: time.subsec_nanos() as libc::c_long,
    };
    // SAFETY: the time is valid for the call; all signals are blocked, so it is not cut short.
    unsafe { libc::nanosleep(&raw const time, null_mut()) };
}

pub fn host_name(name: &[u8]) -> Outcome {
    // SAFETY: a valid slice.
    check(unsafe { libc::sethostname(name.as_ptr().cast::<c_char>(), name.len()) })
}

pub fn limit(resource: i32, soft: u64, hard: u64) -> Outcome {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    // SAFETY: sets a limit of the calling process, which shares none with the supervisor.
    check(unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, &raw const limit, null::<c_void>()) })
}

pub fn umask(mask: u32) {
    // SAFETY: part of the child's own file system state.
    unsafe { libc::umask(mask) };
}

/// The highest capability number that any kernel knows today has room in 64 bits.
const CAPABILITIES: u64 = 64;

pub fn bound_capabilities(keep: u64) -> Outcome {
    for capability in (0..CAPABILITIES).filter(|c| keep & (1 << c) == 0) {
        // SAFETY: changes the calling task only.
        match check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) }) {
            // Past the last capability of this kernel.
            Err(Errno(libc::EINVAL)) => break,
            other => other?,
        }
    }
    Ok(())
}

pub fn become_user(uid: u32, gid: u32, groups: &[u32]) -> Outcome {
    // The C library's wrappers would pass the change on to the supervisor's threads; the bare calls do not.
    // SAFETY: the slice is valid for its length; bare calls change the calling task only.
    unsafe {
        match check(libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr())) {
            // Denied in a user namespace whose maps an ordinary user wrote; there are no groups to lose there.
            Err(Errno(libc::EPERM)) if uid == 0 => {}
            other => other?,
        }
        check(libc::syscall(libc::SYS_setresgid, gid, gid, gid))?;
        check(libc::syscall(libc::SYS_setresuid, uid, uid, uid))
    }
}

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: c_int,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct CapabilityData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const CAPABILITY_VERSION_3: u32 = 0x2008_0522;

pub fn set_capabilities(keep: u64) -> Outcome {
    let header = CapabilityHeader { version: CAPABILITY_VERSION_3, pid: 0 };
    let half = |bits: u32| CapabilityData { effective: bits, permitted: bits, inheritable: 0 };
    let data = [half(keep as u32), half((keep >> 32) as u32)];
    // SAFETY: structures as the kernel defines them for version 3; the calling task only.
    unsafe {
        check(libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as libc::c_ulong, 0, 0, 0))?;
        check(libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()))
    }
}

pub fn no_new_privileges() -> Outcome {
    // SAFETY: an attribute of the calling task.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1 as libc::c_ulong, 0, 0, 0) })
}

pub fn install_filter(filter: &Filter) -> Outcome {
    let program = libc::sock_fprog { len: filter.0.len() as u16, filter: filter.0.as_ptr().cast_mut() };
    // SAFETY: the program is valid for its length and the kernel copies it; the calling task only.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) })
}

/// Returns only the error. Both vectors must end with a null pointer.
pub fn execve(path: &CStr, argv: &[*const c_char], envp: &[*const c_char]) -> Errno {
    if argv.last() != Some(&null()) || envp.last() != Some(&null()) {
        return Errno(libc::EINVAL);
    }
    // SAFETY: C strings and vectors ended by a null.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    Errno::last()
}

/// As [`execve`], of the file behind a descriptor.
pub fn execveat(file: RawFd, argv: &[*const c_char], envp: &[*const c_char]) -> Errno {
    if argv.last() != Some(&null()) || envp.last() != Some(&null()) {
        return Errno(libc::EINVAL);
    }
    let flags = libc::AT_EMPTY_PATH;
    // SAFETY: C strings and vectors ended by a null.
    unsafe { libc::syscall(libc::SYS_execveat, file, c"".as_ptr(), argv.as_ptr(), envp.as_ptr(), flags) };
    Errno::last()
}

/// `struct pidfd_info` of linux/pidfd.h in its first version; newer kernels accept it.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit_code: i32,
}

const PIDFD_INFO_EXIT: u64 = 1 << 3;
/// `_IOWR(0xFF, 11, struct pidfd_info)`.
const PIDFD_GET_INFO: u64 = 3 << 30 | (size_of::<PidfdInfo>() as u64) << 16 | 0xFF << 8 | 11;

/// The status of a process that has ended, whoever's child it was; `None` while its parent has not taken note of the
/// end. An error from kernels older than 6.15.
pub fn pidfd_exit(pidfd: RawFd) -> Result<Option<i32>, Errno> {
    let mut info = PidfdInfo { mask: PIDFD_INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: the request carries the structure's size, and the kernel writes no more than that.
    let result = unsafe { libc::ioctl(pidfd, PIDFD_GET_INFO as _, &raw mut info) };
    match check(result) {
        Ok(()) => Ok((info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code)),
        Err(Errno::NO_PROCESS) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// A descriptor that the runtime watches for being readable.
pub fn watched(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: `OwnedFd` keeps its descriptor open and the same until the registration is dropped with it.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(io::Error::from)
}

/// Keeps `/proc/self` this user's own: a change of ids, also a child's that borrows our memory, gives it to root.
pub fn stay_dumpable() {
    // SAFETY: an attribute of the calling process.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1 as libc::c_ulong, 0, 0, 0) };
}

/// Makes a process that holds a user namespace with a network namespace and does nothing else. It writes an error
/// number (0 for success) to `ready`, and stays once it has read a byte from `go`. Only for a process with one thread.
pub fn fork_keeper(ready: RawFd, go: RawFd) -> io::Result<u32> {
    // SAFETY: no other thread exists, so the child finds no lock taken; it makes bare system calls only.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => keep(ready, go),
        pid => Ok(pid as u32),
    }
}

fn keep(ready: RawFd, go: RawFd) -> ! {
    let made = unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET);
    let word = made.err().map_or(0, |errno| errno.0).to_ne_bytes();
    let mut byte = [0u8; 1];
    // SAFETY: buffers are valid for their lengths; this process has one thread and owns its descriptors.
    unsafe {
        libc::write(ready, word.as_ptr().cast(), word.len());
        libc::prctl(libc::PR_SET_NAME, c"throng-keeper".as_ptr(), 0, 0, 0);
        // The last copy of the writing end but the parent's must go before the pipe can tell of the parent's end.
        let parent_lives = libc::dup2(go, 0) == 0
            && libc::syscall(libc::SYS_close_range, 1, u32::MAX, 0) == 0
            && libc::read(0, byte.as_mut_ptr().cast(), 1) == 1;
        if made.is_err() || !parent_lives {
            libc::_exit(1);
        }
        libc::close(0);
        libc::chdir(c"/".as_ptr());
        libc::setsid();
        loop {
            libc::pause();
        }
    }
}
/// CPU time of all threads of a process, those that have ended included, but of no child; `None` if there is none.
pub fn process_time(pid: u32) -> Option<std::time::Duration> {
    let pid = libc::pid_t::try_from(pid).ok()?;
    let mut clock: libc::clockid_t = 0;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: both calls write to the place of the type that they are given and keep nothing.
    let told = unsafe {
        libc::clock_getcpuclockid(pid, &mut clock) == 0 && libc::clock_gettime(clock, &mut time) == 0
    };
    let seconds = u64::try_from(time.tv_sec).ok()?;
    told.then(|| std::time::Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0)))
}
