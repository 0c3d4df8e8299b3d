//! System calls that the child makes, and the making of the child. With [`crate::child`] the only unsafe code of the
//! workspace. Everything the child calls is async-signal-safe: no allocation, no lock, no panic.

mod files;
pub mod init;
pub mod loops;
pub mod notify;
mod processes;
pub mod rtnetlink;
pub mod wires;

pub use files::*;
pub use processes::*;

use crate::child::{Job, MAX_BROUGHT, run};
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

/// Standard input from a named pipe, opened for both directions: it has a writer as long as it has a reader (fifo(7)).
pub fn open_input(pipe: &CStr) -> Outcome {
    // SAFETY: the path is a C string; the descriptors are the child's own.
    unsafe {
        let fd = descriptor(libc::open(pipe.as_ptr(), libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC))?;
        check(libc::dup2(fd, 0))
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
