//! What a figure depends on besides the programs: the machine, its load, and the programs' versions.

use super::record::Machine;
use std::collections::BTreeMap;
use std::process::Command;

pub fn describe() -> Machine {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let value = |text: &str, key: &str, separator: char| {
        let line = text.lines().find(|line| line.split(separator).next().is_some_and(|k| k.trim() == key));
        let value = line.and_then(|line| line.split_once(separator)).map(|(_, value)| value);
        value.map_or_else(|| "unknown".to_owned(), |value| value.trim().trim_matches('"').to_owned())
    };
    Machine {
        cpu: value(&read("/proc/cpuinfo"), "model name", ':'),
        cores: std::thread::available_parallelism().map_or(0, usize::from),
        memory_bytes: memory("MemTotal").unwrap_or(0),
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        distribution: value(&read("/etc/os-release"), "PRETTY_NAME", '='),
    }
}

/// Bytes of one field of proc_meminfo(5).
pub fn memory(field: &str) -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let rest = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Time of all processors since the machine's start, in ticks: all of it, and what was spent idle.
#[derive(Debug, Clone, Copy)]
pub struct Ticks {
    all: u64,
    idle: u64,
}

pub fn ticks() -> Ticks {
    ticks_in(&std::fs::read_to_string("/proc/stat").unwrap_or_default())
}

/// Reads `cpu user nice system idle iowait irq …` (proc_stat(5)).
fn ticks_in(stat: &str) -> Ticks {
    // Time of guests, from the ninth number on, is part of the first two.
    let first = stat.lines().next().unwrap_or_default();
    let numbers: Vec<u64> = first.split_whitespace().skip(1).take(8).flat_map(str::parse).collect();
    Ticks { all: numbers.iter().sum(), idle: numbers.iter().skip(3).take(2).sum() }
}

/// Share of the processors that was in use; all of it if nothing can be told.
pub fn busy_between(before: Ticks, after: Ticks) -> f64 {
    let all = after.all.saturating_sub(before.all);
    let idle = after.idle.saturating_sub(before.idle);
    if all == 0 { 1.0 } else { 1.0 - (idle as f64 / all as f64).min(1.0) }
}

/// Versions by name, each as its program says it.
pub fn versions(programs: &[(&str, &[&str])]) -> BTreeMap<String, String> {
    let mut versions = BTreeMap::from([
        ("throng".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        ("rustc".to_owned(), version_of(&["rustc", "--version"])),
    ]);
    versions.extend(programs.iter().map(|(name, command)| ((*name).to_owned(), version_of(command))));
    versions
}

fn version_of(command: &[&str]) -> String {
    let output = Command::new(command[0]).args(&command[1..]).output();
    let text = output.map(|output| [output.stdout, output.stderr].concat()).unwrap_or_default();
    version_in(&String::from_utf8_lossy(&text)).unwrap_or_else(|| "unknown".to_owned())
}

/// The first word that looks like a version: `1.22.1` of `nginx version: nginx/1.22.1`.
fn version_in(text: &str) -> Option<String> {
    let is_version = |word: &str| {
        let mut parts = word.split('.');
        let numeric = |part: Option<&str>| part.is_some_and(|p| p.starts_with(|c: char| c.is_ascii_digit()));
        numeric(parts.next()) && numeric(parts.next())
    };
    let words = text.split([' ', '\n', '\t', ',']).map(|word| word.rsplit('/').next().unwrap_or(word));
    words.map(|word| word.trim_start_matches('v')).find(|word| is_version(word)).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_say() {
        for (text, version) in [
            ("nginx version: nginx/1.22.1\n", "1.22.1"),
            (
                "HAProxy version 2.6.12-1+deb12u4 2026/03/01 - https://haproxy.org/\nStatus: x",
                "2.6.12-1+deb12u4",
            ),
            ("wrk debian/4.1.0-3+b2 [epoll] Copyright (C) 2012 Will Glozer\n", "4.1.0-3+b2"),
            ("Docker version 20.10.24+dfsg1, build 297e128\n", "20.10.24+dfsg1"),
            ("containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3", "1.6.20~ds1"),
            ("containerd github.com/containerd/containerd v1.7.24 88bf19b", "1.7.24"),
            ("Version: ImageMagick 6.9.11-60 Q16 x86_64 2021-01-25 https://imagemagick.org\n", "6.9.11-60"),
            ("oha 1.16.0\n", "1.16.0"),
            ("rustc 1.95.0 (59807616e 2026-04-14)\n", "1.95.0"),
        ] {
            assert_eq!(version_in(text).as_deref(), Some(version), "{text}");
        }
        assert_eq!(version_in("command not found"), None);
    }

    #[test]
    fn this_machine_has_a_description() {
        let machine = describe();
        assert!(
            machine.cores > 0 && machine.memory_bytes > 1 << 20 && !machine.kernel.is_empty(),
            "{machine:?}"
        );
    }

    #[test]
    fn busy_is_what_was_not_idle() {
        let before = ticks_in("cpu  100 0 100 700 100 0 0 0 50 0\ncpu0 1 1 1 1\n");
        let after = ticks_in("cpu  160 0 110 720 110 0 0 0 90 0\n");
        assert!((busy_between(before, after) - 0.7).abs() < 1e-9);
        assert_eq!(busy_between(before, before), 1.0);
        assert_eq!(busy_between(ticks_in(""), ticks_in("cpu x")), 1.0);
        assert!(ticks().all > 0);
    }
}
