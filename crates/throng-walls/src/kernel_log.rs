//! Lines that the kernel logs while something is tried.

use rustix::fs::{Mode, OFlags, SeekFrom};
use rustix::io::Errno;
use std::os::fd::OwnedFd;

/// The longest record (`PRINTKRB_RECORD_MAX` and its prefix, include/linux/printk.h).
const RECORD: usize = 8 << 10;
/// Lines taken at once; whoever logs more says the same again and again.
const MOST_LINES: usize = 1_000;

/// The kernel's log from the moment at which this was opened.
#[derive(Debug)]
pub struct KernelLog {
    device: OwnedFd,
}

impl KernelLog {
    /// `None` where this process may not read it (`kernel.dmesg_restrict`), or there is none.
    pub fn open() -> Option<KernelLog> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let device = rustix::fs::open("/dev/kmsg", flags, Mode::empty()).ok()?;
        rustix::fs::seek(&device, SeekFrom::End(0)).ok()?;
        Some(KernelLog { device })
    }

    /// What has come since the last call, at most a thousand lines.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        let mut record = vec![0; RECORD];
        while lines.len() < MOST_LINES {
            match rustix::io::read(&self.device, record.as_mut_slice()) {
                Ok(0) => break,
                Ok(length) => lines.extend(message(&String::from_utf8_lossy(&record[..length]))),
                // Records were overwritten before they were read: go on with the oldest that is left.
                Err(Errno::PIPE | Errno::INTR) => {}
                Err(_) => break,
            }
        }
        lines
    }
}

/// `priority,number,microseconds,flags;message`, then lines of `KEY=value` (Documentation/ABI/testing/dev-kmsg).
fn message(record: &str) -> Option<String> {
    let (_, text) = record.lines().next()?.split_once(';')?;
    Some(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_taken_apart() {
        let record = "6,339,5140900,-;cgroup: fork rejected by pids controller in /a\n SUBSYSTEM=x\n";
        assert_eq!(message(record).as_deref(), Some("cgroup: fork rejected by pids controller in /a"));
        assert_eq!(message("nonsense"), None);
    }
}
