//! What the supervisor asks the kernel about other processes, and the one that it leaves behind.

use super::{Errno, check, unshare};
use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

/// `struct pidfd_info` of linux/pidfd.h in its first version; newer kernels accept it.
#[repr(C)]
#[derive(Default)]
struct PidfdInfo {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit_code: i32,
}

/// The largest process id of any kernel (`PID_MAX_LIMIT`; proc_sys_kernel(5)).
const MOST_PID: u32 = 1 << 22;
/// Of the three clocks of a process the one of the scheduler, in nanoseconds (`CPUCLOCK_SCHED` of the kernel).
const SCHEDULED: libc::clockid_t = 2;

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

/// CPU time of all threads of a process, those that have ended included, but of no child; `None` if there is none.
pub fn process_time(pid: u32) -> Option<Duration> {
    // 0 would be this process itself.
    if !(1..=MOST_PID).contains(&pid) {
        return None;
    }
    // What clock_getcpuclockid(3) says, without the call by which it finds out whether there is such a process.
    let clock = !pid.cast_signed() << 3 | SCHEDULED;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes to the place of the type that it is given and keeps nothing.
    let told = unsafe { libc::clock_gettime(clock, &mut time) == 0 };
    let seconds = u64::try_from(time.tv_sec).ok()?;
    told.then(|| Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0)))
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
