//! What replicas use where the host offers no control groups: the sum over the processes of each one's session.
//!
//! A process that begins a session of its own is not counted, nor is one that has ended unnoticed by its parent; pages
//! that several share are counted for each.

use rustix::fs::{Mode, OFlags};
use std::collections::HashMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;
use throng_runtime::counters;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub cpu: Duration,
    /// Bytes in memory.
    pub resident: u64,
    /// Of these, bytes that belong to no file.
    pub anonymous: u64,
    pub threads: u64,
}

/// One process as `/proc/<pid>/stat` describes it.
struct Process {
    session: u32,
    ticks: u64,
    threads: u64,
}

/// Usage of every session that one of the given processes leads. Reads all processes of the host once.
pub fn of_sessions(leaders: &[u32]) -> HashMap<u32, Usage> {
    let mut found: HashMap<u32, Usage> = leaders.iter().map(|pid| (*pid, Usage::default())).collect();
    let (ticks, page) = (rustix::param::clock_ticks_per_second().max(1), rustix::param::page_size() as u64);
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let Some(process) = parse_stat(&read("stat")) else { continue };
        let Some(usage) = found.get_mut(&process.session) else { continue };
        let (resident, shared) = parse_statm(&read("statm"));
        usage.cpu += Duration::from_micros(process.ticks.saturating_mul(1_000_000) / ticks);
        usage.resident += resident * page;
        usage.anonymous += resident.saturating_sub(shared) * page;
        usage.threads += process.threads;
    }
    found
}

/// Bytes of a kernel's file that are read at most. What is read of each is far less; the list of a group's processes is
/// not read this way.
const LONGEST: usize = 8 << 10;
/// Seven numbers of up to twenty digits.
const LINE: usize = 160;

/// A file of the kernel's, as far as [`LONGEST`] goes; nothing if there is none. Such files have no size to be asked for
/// first, and come as a whole: three system calls, where the standard library needs five.
pub fn kernel_file<T>(path: &Path, parse: impl FnOnce(&str) -> T) -> T {
    let mut buffer = [0u8; LONGEST];
    let read = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .and_then(|file| rustix::io::read(file, &mut buffer));
    let text = buffer.get(..read.unwrap_or(0)).unwrap_or_default();
    parse(std::str::from_utf8(text).unwrap_or_default())
}

/// Bytes in memory that a process holds, and of these the bytes of no file; nothing if it has ended.
pub fn held(pid: u32) -> (u64, u64) {
    kernel_file(&statm(pid), parse_held)
}

fn statm(pid: u32) -> PathBuf {
    format!("/proc/{pid}/statm").into()
}

/// What [`held`] says, of one process again and again. Kept open, its file is read in a quarter of the time, and takes a
/// descriptor and some 5 KB of the kernel's memory, most of it the buffer of its text. It keeps nothing of the process
/// but its number, and once that process has ended it says nothing, whoever has the number then.
#[derive(Debug, Default)]
pub struct Kept(Option<OwnedFd>);

impl Kept {
    /// `keep`: whether the file may stay open.
    pub fn held(&mut self, pid: u32, keep: bool) -> (u64, u64) {
        if !keep {
            self.close();
            return held(pid);
        }
        if self.0.is_none() {
            self.0 = rustix::fs::open(statm(pid), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok();
        }
        // Out of descriptors all the same, or the process has ended: then this says so as well.
        let Some(file) = &self.0 else { return held(pid) };
        let mut buffer = [0u8; LINE];
        let read = rustix::io::pread(file, &mut buffer, 0).unwrap_or(0);
        parse_held(std::str::from_utf8(buffer.get(..read).unwrap_or_default()).unwrap_or_default())
    }

    pub fn close(&mut self) {
        self.0 = None;
    }
}

/// Bytes that the namespace of a process has received and sent, but for those to itself; nothing if it has ended.
pub fn traffic(pid: u32) -> (u64, u64) {
    kernel_file(Path::new(&format!("/proc/{pid}/net/dev")), counters::traffic)
}

/// Bytes that a process and those that it has waited for have had fetched from storage and sent there; nothing if it has
/// ended or the kernel does not tell.
pub fn storage(pid: u32) -> Option<(u64, u64)> {
    kernel_file(Path::new(&format!("/proc/{pid}/io")), parse_io)
}

/// `read_bytes` and `write_bytes` of proc_pid_io(5).
fn parse_io(text: &str) -> Option<(u64, u64)> {
    let field = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok());
    Some((field("read_bytes:")?, field("write_bytes:")?))
}

/// Fields of proc_pid_stat(5) by their numbers there: 6, 14 to 17 (own time and that of children that have been waited
/// for), 20. The second one, the command in brackets, may hold anything.
fn parse_stat(stat: &str) -> Option<Process> {
    let fields: Vec<&str> = stat.rsplit_once(") ")?.1.split(' ').collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    let ticks = (14..=17).map(field).sum::<Option<u64>>()?;
    Some(Process { session: u32::try_from(field(6)?).ok()?, ticks, threads: field(20)? })
}

/// Resident and shared pages of proc_pid_statm(5).
fn parse_statm(statm: &str) -> (u64, u64) {
    let mut fields = statm.split(' ').skip(1).map(|field| field.parse().unwrap_or(0));
    (fields.next().unwrap_or(0), fields.next().unwrap_or(0))
}

/// In bytes, and those of no file.
fn parse_held(statm: &str) -> (u64, u64) {
    let ((resident, shared), page) = (parse_statm(statm), rustix::param::page_size() as u64);
    (resident * page, resident.saturating_sub(shared) * page)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_is_read_whatever_it_is_called() {
        let rest = (4..=52).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        for name in ["web", "a b) S 1", ") "] {
            let process = parse_stat(&format!("7 ({name}) S {rest}")).expect("a process");
            assert_eq!(
                (process.session, process.ticks, process.threads),
                (6, 14 + 15 + 16 + 17, 20),
                "{name}"
            );
        }
        assert!(parse_stat("7 (web) S 1 2").is_none());
        assert_eq!(parse_statm("10 7 3 1 0 2 0\n"), (7, 3));
        assert_eq!(parse_statm(""), (0, 0));
    }

    #[test]
    fn a_file_that_is_kept_says_what_one_that_is_opened_says() {
        let mut sleeper = Command::new("sleep").arg("60").spawn().expect("sleep of coreutils");
        let (pid, mut kept) = (sleeper.id(), Kept::default());
        // It maps its libraries first.
        let begin = std::time::Instant::now();
        loop {
            let (before, now, opened) = (held(pid), kept.held(pid, true), kept.held(pid, false));
            assert!(kept.0.is_none(), "only kept where that is allowed");
            if before.0 > 0 && before == now && now == opened {
                break;
            }
            assert!(begin.elapsed() < Duration::from_secs(30), "{before:?} {now:?} {opened:?}");
        }
        kept.held(pid, true);
        assert!(kept.0.is_some());
        sleeper.kill().and_then(|()| sleeper.wait()).expect("its end");
        assert_eq!((kept.held(pid, true), kept.held(pid, false)), ((0, 0), (0, 0)), "it has ended");
    }

    #[test]
    fn storage_is_what_reached_it() {
        let text = "rchar: 9\nwchar: 8\nsyscr: 7\nsyscw: 6\nread_bytes: 4096\nwrite_bytes: 8192\ncancelled_write_bytes: 1\n";
        assert_eq!(parse_io(text), Some((4096, 8192)));
        assert_eq!(parse_io(""), None);
    }

    #[test]
    fn a_process_is_counted_in_the_session_it_leads() {
        // A session of the test's own: the leader of the session that it runs in may be outside its PID namespace.
        let mut leader = Command::new("setsid")
            .args(["sh", "-c", "echo led; exec sleep 60"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("setsid of util-linux");
        BufReader::new(leader.stdout.take().expect("a pipe")).read_line(&mut String::new()).expect("a line");
        let session = leader.id();
        let usage = of_sessions(&[session, u32::MAX]);
        leader.kill().and_then(|()| leader.wait()).expect("its end");
        assert!(usage[&session].resident > 0 && usage[&session].threads == 1, "{usage:?}");
        assert_eq!(usage[&u32::MAX], Usage::default());
    }
}
