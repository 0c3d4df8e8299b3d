//! How processes end: one descriptor for each, all in one epoll set, one task.

use rustix::event::epoll;
use rustix::process::{WaitId, WaitIdOptions, waitid};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;
use throng_model::replica::Exit;
use tokio::io::unix::AsyncFd;

/// Ends taken from the kernel in one call.
const BATCH: usize = 256;
/// How long the end of somebody else's child may take to be recorded: its parent must have taken note of it first.
const RECORD_TRIES: u32 = 100;
const RECORD_PAUSE: Duration = Duration::from_millis(10);

/// The set of living processes, each under a number chosen by the caller.
pub struct Exits {
    set: AsyncFd<OwnedFd>,
}

impl Exits {
    pub fn new() -> io::Result<Self> {
        let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        Ok(Exits { set: crate::sys::watched(set)? })
    }

    /// Reports the end of the process once, under `number`.
    pub fn add(&self, pidfd: BorrowedFd<'_>, number: u64) -> io::Result<()> {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::ONESHOT;
        Ok(epoll::add(self.set.get_ref(), pidfd, epoll::EventData::new_u64(number), flags)?)
    }

    /// Waits until some have ended and returns their numbers.
    pub async fn next(&self) -> io::Result<Vec<u64>> {
        loop {
            let mut ready = self.set.readable().await?;
            let mut events = Vec::with_capacity(BATCH);
            let nothing = rustix::event::Timespec::default();
            let buffer = rustix::buffer::spare_capacity(&mut events);
            epoll::wait(self.set.get_ref(), buffer, Some(&nothing))?;
            if events.is_empty() {
                ready.clear_ready();
                continue;
            }
            return Ok(events.iter().map(|event| event.data.u64()).collect());
        }
    }
}

/// How the process ended. It must have ended: its descriptor is readable.
pub fn how(pidfd: &OwnedFd) -> Exit {
    match waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
        Ok(Some(status)) => {
            if let Some(code) = status.exit_status() {
                Exit::Code { code }
            } else if let Some(signal) = status.terminating_signal() {
                Exit::Signal { signal }
            } else {
                Exit::Unknown
            }
        }
        // Not our child: an earlier supervisor's.
        _ => recorded(pidfd),
    }
}

/// Asks the kernel (6.15 and later) for the status of a process that is not our child.
fn recorded(pidfd: &OwnedFd) -> Exit {
    for _ in 0..RECORD_TRIES {
        match crate::sys::pidfd_exit(pidfd.as_raw_fd()) {
            Ok(Some(status)) => return from_status(status),
            Ok(None) => std::thread::sleep(RECORD_PAUSE),
            Err(_) => return Exit::Unknown,
        }
    }
    Exit::Unknown
}

/// A status as `wait` gives it: the code in the second byte, the signal in the low seven bits.
fn from_status(status: i32) -> Exit {
    match status & 0x7f {
        0 => Exit::Code { code: status >> 8 & 0xff },
        signal => Exit::Signal { signal },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_read_as_wait_gives_them() {
        assert_eq!(from_status(3 << 8), Exit::Code { code: 3 });
        assert_eq!(from_status(9), Exit::Signal { signal: 9 });
        assert_eq!(from_status(0x80 | 6), Exit::Signal { signal: 6 });
    }
}
