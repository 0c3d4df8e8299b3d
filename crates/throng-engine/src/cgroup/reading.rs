//! What a group's counters say, in the files of either version.

use super::Group;
use std::path::{Path, PathBuf};
use std::time::Duration;
use throng_model::replica::Pressure;
use throng_runtime::counters::{field, number};

/// What one group uses, but for its CPU time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reading {
    pub memory: u64,
    pub unreclaimable: u64,
    pub memory_limit: Option<u64>,
    pub pids: u64,
    /// There is more than one process.
    pub several: bool,
    /// Bytes fetched from storage and sent there, where the kernel tells.
    pub storage: Option<(u64, u64)>,
    /// Of version 2 only, where the kernel counts it.
    pub pressure: Option<Pressure>,
}

impl Group {
    /// How many tasks of the group the kernel has killed for want of memory.
    pub fn oom_kills(&self) -> u64 {
        match (self.version, self.folder("memory")) {
            (1, Some(folder)) => field(&read(folder, "memory.oom_control"), "oom_kill").unwrap_or(0),
            (_, Some(folder)) => field(&read(folder, "memory.events"), "oom_kill").unwrap_or(0),
            _ => 0,
        }
    }

    /// The file with the CPU time; see [`Group::cpu`].
    pub fn counter(&self) -> Option<PathBuf> {
        let file = if self.version == 2 { "cpu.stat" } else { "cpuacct.usage" };
        self.folder("cpuacct").map(|folder| folder.join(file))
    }

    /// CPU time by the text of [`Group::counter`].
    pub fn cpu(&self, text: &str) -> Option<Duration> {
        match self.version {
            2 => field(text, "usage_usec").map(Duration::from_micros),
            _ => number(text).map(Duration::from_nanos),
        }
    }

    /// All but the CPU time. `first` is the group's first process, and `held` says what a process holds in memory.
    pub fn read(&self, first: u32, mut held: impl FnMut(u32) -> (u64, u64)) -> Reading {
        let file = |file: &str| {
            let controller = file.split('.').next().unwrap_or_default();
            self.folder(controller).map(|folder| read(folder, file)).unwrap_or_default()
        };
        let (mut reading, counted) = match self.version {
            2 => (read_v2(file), true),
            _ => read_v1(file),
        };
        // To list a group costs more than to ask the one process that most have.
        let pids = if reading.pids == 1 {
            vec![first]
        } else {
            self.processes().into_iter().map(i32::unsigned_abs).collect()
        };
        let sum = |sum: (u64, u64), one: (u64, u64)| (sum.0 + one.0, sum.1 + one.1);
        if !counted {
            (reading.memory, reading.unreclaimable) = pids.iter().map(|pid| held(*pid)).fold((0, 0), sum);
        }
        reading.several = pids.len() > 1;
        reading.storage = pids.iter().filter_map(|pid| crate::usage::storage(*pid)).reduce(sum);
        reading
    }

    /// Bytes in memory, and of these what cannot be dropped; nothing of a group whose memory is not counted.
    pub fn read_memory(&self) -> Option<(u64, u64)> {
        let folder = self.folder("memory")?;
        match self.version {
            2 => Some(memory_v2(|file| read(folder, file))),
            _ => memory_v1(|file| read(folder, file)),
        }
    }

    /// Whether the kernel counts the group's memory. Otherwise it is what its processes hold.
    pub fn counts_memory(&self) -> bool {
        self.folder("memory").is_some()
    }
}

fn read(folder: &Path, file: &str) -> String {
    crate::usage::kernel_file(&folder.join(file), str::to_owned)
}

/// Version 1 says "no limit" with the largest multiple of the page size.
const UNLIMITED_V1: u64 = 1 << 62;

/// With whether memory is counted: a replica without a limit has no group for that.
fn read_v1(file: impl Fn(&str) -> String) -> (Reading, bool) {
    let mut reading = Reading { pids: number(&file("pids.current")).unwrap_or(0), ..Reading::default() };
    let Some(memory) = memory_v1(&file) else { return (reading, false) };
    (reading.memory, reading.unreclaimable) = memory;
    reading.memory_limit = number(&file("memory.limit_in_bytes")).filter(|l| *l < UNLIMITED_V1);
    (reading, true)
}

/// Bytes in memory, and of these what cannot be dropped.
fn memory_v1(file: impl Fn(&str) -> String) -> Option<(u64, u64)> {
    let memory = number(&file("memory.usage_in_bytes"))?;
    let kernel = number(&file("memory.kmem.usage_in_bytes")).unwrap_or(0);
    Some((memory, field(&file("memory.stat"), "total_rss").unwrap_or(0) + kernel))
}

fn memory_v2(file: impl Fn(&str) -> String) -> (u64, u64) {
    let stat = file("memory.stat");
    let kernel = field(&stat, "kernel").unwrap_or(0);
    let reclaimable = field(&stat, "slab_reclaimable").unwrap_or(0);
    let memory = number(&file("memory.current")).unwrap_or(0);
    (memory, field(&stat, "anon").unwrap_or(0) + kernel.saturating_sub(reclaimable))
}

fn read_v2(file: impl Fn(&str) -> String) -> Reading {
    let stalled = |name: &str| stalled(&file(name));
    let pressure = || {
        let (cpu, memory) = (stalled("cpu.pressure")?, stalled("memory.pressure")?);
        Some(Pressure { cpu, memory, storage: stalled("io.pressure")? })
    };
    let (memory, unreclaimable) = memory_v2(&file);
    Reading {
        memory,
        unreclaimable,
        memory_limit: number(&file("memory.max")),
        pids: number(&file("pids.current")).unwrap_or(0),
        several: false,
        storage: None,
        pressure: pressure(),
    }
}

/// `total` of the line `some`, in microseconds (the kernel's Documentation/accounting/psi).
fn stalled(pressure: &str) -> Option<Duration> {
    let line = pressure.lines().find(|line| line.starts_with("some "))?;
    line.rsplit_once("total=")?.1.trim().parse().ok().map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_read_from_either_version() {
        let v2 = read_v2(|file| {
            match file {
                "memory.current" => "5000\n",
                "memory.max" => "max\n",
                "memory.stat" => "anon 1000\nfile 500\nkernel 700\nslab_reclaimable 200\n",
                "pids.current" => "3\n",
                "cpu.pressure" => "some avg10=0.00 avg60=0.00 avg300=0.00 total=7\n",
                "memory.pressure" => {
                    "some avg10=0.00 avg60=0.00 avg300=0.00 total=8\nfull avg10=0.00 total=1\n"
                }
                "io.pressure" => "some avg10=0.00 avg60=0.00 avg300=0.00 total=9\n",
                _ => "",
            }
            .to_owned()
        });
        let micros = Duration::from_micros;
        let expected = Reading {
            memory: 5000,
            unreclaimable: 1500,
            memory_limit: None,
            pids: 3,
            several: false,
            storage: None,
            pressure: None,
        };
        let pressure = Pressure { cpu: micros(7), memory: micros(8), storage: micros(9) };
        assert_eq!(v2, Reading { pressure: Some(pressure), ..expected });
        let of_v1 = |file: &str| {
            match file {
                "memory.usage_in_bytes" => "5000\n",
                "memory.limit_in_bytes" => "9223372036854771712\n",
                "memory.stat" => "rss 1\ntotal_rss 1000\n",
                "memory.kmem.usage_in_bytes" => "500\n",
                "pids.current" => "3\n",
                _ => "",
            }
            .to_owned()
        };
        assert_eq!(read_v1(of_v1), (expected, true));
        let unlimited = read_v1(|file| if file.starts_with("memory") { String::new() } else { of_v1(file) });
        assert_eq!(unlimited, (Reading { pids: 3, ..Reading::default() }, false));
        assert_eq!(read_v2(|_| String::new()), Reading::default());
        let group = |version| Group { folders: vec![], version };
        assert_eq!(group(2).cpu("usage_usec 1500000\nuser_usec 1\n"), Some(micros(1_500_000)));
        assert_eq!(group(1).cpu("1500000000\n"), Some(micros(1_500_000)));
        assert_eq!((group(1).cpu(""), group(2).cpu("")), (None, None));
    }
}
