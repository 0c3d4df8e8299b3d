//! What a host says about itself at one moment.

mod control;
mod counters;
mod filter;

pub use control::{Ancestor, Control};
pub use counters::Counters;
pub use filter::Filter;

use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Settings that some check reads, by the names that sysctl(8) uses.
pub const SETTINGS: [&str; 34] = [
    "fs.file-max",
    "fs.inotify.max_user_instances",
    "fs.inotify.max_user_watches",
    "fs.mount-max",
    "fs.nr_open",
    "kernel.keys.maxbytes",
    "kernel.keys.maxkeys",
    "kernel.keys.root_maxkeys",
    "kernel.pid_max",
    "kernel.threads-max",
    "net.bridge.bridge-nf-call-iptables",
    "net.core.netdev_max_backlog",
    "net.core.somaxconn",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.neigh.default.gc_thresh1",
    "net.ipv4.neigh.default.gc_thresh2",
    "net.ipv4.neigh.default.gc_thresh3",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_max_tw_buckets",
    "net.ipv4.tcp_tw_reuse",
    "net.ipv6.neigh.default.gc_thresh1",
    "net.ipv6.neigh.default.gc_thresh2",
    "net.ipv6.neigh.default.gc_thresh3",
    "net.netfilter.nf_conntrack_buckets",
    "net.netfilter.nf_conntrack_count",
    "net.netfilter.nf_conntrack_max",
    "user.max_cgroup_namespaces",
    "user.max_inotify_instances",
    "user.max_ipc_namespaces",
    "user.max_mnt_namespaces",
    "user.max_net_namespaces",
    "user.max_pid_namespaces",
    "user.max_user_namespaces",
    "user.max_uts_namespaces",
];

/// Those of them that are limits of walls that print nothing.
const SILENT_SETTINGS: [&str; 8] = [
    "net.bridge.bridge-nf-call-iptables",
    "net.core.netdev_max_backlog",
    "net.ipv4.neigh.default.gc_thresh1",
    "net.ipv4.neigh.default.gc_thresh2",
    "net.ipv4.neigh.default.gc_thresh3",
    "net.netfilter.nf_conntrack_count",
    "net.netfilter.nf_conntrack_max",
    "user.max_net_namespaces",
];

/// The path of a setting below `/proc/sys` (sysctl(8): dots for slashes).
pub fn setting_path(root: &Path, name: &str) -> PathBuf {
    root.join("proc/sys").join(name.replace('.', "/"))
}

/// Where to read from.
#[derive(Debug, Clone)]
pub struct Source {
    /// `/`, or a folder that holds copies of `proc` and `sys`. Commands are run, and the disk is asked, for `/` only.
    pub root: PathBuf,
    /// Folder of images, writable layers and logs, as the host names it; the nearest parent that exists counts.
    pub state: PathBuf,
}

impl Source {
    /// This host.
    pub fn live(state: impl Into<PathBuf>) -> Source {
        Source { root: "/".into(), state: state.into() }
    }

    /// A file's text, unless it cannot be read.
    fn read(&self, path: impl AsRef<Path>) -> Option<String> {
        std::fs::read_to_string(self.root.join(path)).ok()
    }

    fn is_live(&self) -> bool {
        self.root == Path::new("/")
    }
}

/// A soft and a hard limit (getrlimit(2)); `u64::MAX` is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Limit {
    pub soft: u64,
    pub hard: u64,
}

/// Bytes of the whole host (proc_meminfo(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Memory {
    pub total: u64,
    /// What programs could still get without swapping.
    pub available: u64,
}

/// Time that tasks lost waiting for a resource (the kernel's Documentation/accounting/psi).
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Stall {
    /// Percent of the last ten seconds in which some task waited.
    pub average: f64,
    /// Microseconds since the host started.
    pub total: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Pressure {
    pub cpu: Option<Stall>,
    pub memory: Option<Stall>,
    pub io: Option<Stall>,
}

/// Ticks of all cores since the host started (proc_stat(5)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Cores {
    /// Not idle, or taken by the machine that this one is a guest of.
    pub busy: u64,
    pub all: u64,
}

/// Room on the file system of the state folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Disk {
    pub bytes: u64,
    pub bytes_free: u64,
    /// 0 where the file system makes inodes as they are needed (btrfs).
    pub inodes: u64,
    pub inodes_free: u64,
}

/// Live values of one host. `None` is what could not be read.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Host {
    /// As `uname -r` prints it.
    pub kernel: Option<String>,
    /// Effective user of this process.
    pub user: Option<u32>,
    /// Whether this process may raise hard limits (`CAP_SYS_RESOURCE`).
    pub raises_limits: Option<bool>,
    pub cores: Option<u64>,
    /// Tasks of the whole host, threads counted.
    pub tasks: Option<u64>,
    /// By the names of sysctl(8). Of a range, its width.
    pub settings: BTreeMap<&'static str, u64>,
    pub open_files: Option<Limit>,
    pub processes: Option<Limit>,
    /// Files that are open on the whole host.
    pub files_open: Option<u64>,
    pub memory: Option<Memory>,
    pub pressure: Pressure,
    pub time: Option<Cores>,
    pub control: Control,
    /// Mounts in the namespace of this process; each new mount namespace begins with a copy of them.
    pub mounts: Option<u64>,
    pub disk: Option<Disk>,
    /// What the packet filter does with frames between ports of a bridge, as far as it can be seen.
    pub filter: Filter,
    /// Ports of the bridge that has most.
    pub bridge_ports: Option<u64>,
    /// Whether the kernel has macvlan interfaces, or a module for them.
    pub macvlan: Option<bool>,
    pub counters: Counters,
}

impl Host {
    /// Reads everything once: some forty small files, and on a live host one or two commands for the packet filter.
    pub fn read(source: &Source) -> Host {
        Host {
            filter: Filter::read(source, source.read("proc/self/status").and_then(|status| user(&status))),
            bridge_ports: bridge_ports(source),
            macvlan: macvlan(source),
            counters: Counters::read(source),
            ..Host::glance(source)
        }
    }

    /// As above but for what takes longer than a millisecond on a host with many processes: the packet filter, bridges,
    /// modules, and the counters of the whole host are unknown.
    pub fn glance(source: &Source) -> Host {
        let status = source.read("proc/self/status").unwrap_or_default();
        let limits = source.read("proc/self/limits").unwrap_or_default();
        let user = user(&status);
        Host {
            kernel: source.read("proc/sys/kernel/osrelease").map(|text| text.trim().to_owned()),
            user,
            raises_limits: raises_limits(&status),
            cores: source.read("sys/devices/system/cpu/online").and_then(|text| count_ranges(&text)),
            tasks: source.read("proc/loadavg").and_then(|text| tasks(&text)),
            settings: settings(source, &SETTINGS),
            open_files: limit(&limits, "Max open files"),
            processes: limit(&limits, "Max processes"),
            files_open: source.read("proc/sys/fs/file-nr").and_then(|text| files_open(&text)),
            memory: source.read("proc/meminfo").and_then(|text| memory(&text)),
            pressure: Pressure {
                cpu: source.read("proc/pressure/cpu").and_then(|text| Stall::parse(&text)),
                memory: source.read("proc/pressure/memory").and_then(|text| Stall::parse(&text)),
                io: source.read("proc/pressure/io").and_then(|text| Stall::parse(&text)),
            },
            time: source.read("proc/stat").and_then(|text| Cores::parse(&text)),
            control: Control::read(source, user),
            mounts: source.read("proc/self/mountinfo").map(|text| text.lines().count() as u64),
            disk: disk(source),
            ..Host::default()
        }
    }

    /// Only what tells of walls that print nothing, and the settings behind them: a dozen small files, less than a
    /// millisecond, whatever the number of replicas.
    pub fn pulse(source: &Source) -> Host {
        Host {
            settings: settings(source, &SILENT_SETTINGS),
            memory: source.read("proc/meminfo").and_then(|text| memory(&text)),
            mounts: source.read("proc/self/mountinfo").map(|text| text.lines().count() as u64),
            counters: Counters::pulse(source),
            ..Host::default()
        }
    }

    /// The same host with the number of its network namespaces, which takes some milliseconds.
    pub fn with_namespaces(self, source: &Source) -> Host {
        let net_namespaces = counters::net_namespaces(source);
        Host { counters: Counters { net_namespaces, ..self.counters }, ..self }
    }

    /// The same host with whether the kernel is removing network namespaces, which takes a look at each of its threads.
    pub fn with_removals(self, source: &Source) -> Host {
        let removing_namespaces = counters::removing_namespaces(source);
        Host { counters: Counters { removing_namespaces, ..self.counters }, ..self }
    }

    /// The same host with what its packet filter does, which commands are asked for.
    pub fn filtered(self, source: &Source) -> Host {
        let user = source.read("proc/self/status").and_then(|status| user(&status));
        Host { filter: Filter::read(source, user), ..self }
    }

    /// A setting by its name of sysctl(8).
    pub fn setting(&self, name: &str) -> Option<u64> {
        self.settings.get(name).copied()
    }

    pub fn is_root(&self) -> Option<bool> {
        self.user.map(|user| user == 0)
    }
}

fn settings(source: &Source, names: &[&'static str]) -> BTreeMap<&'static str, u64> {
    let read = |name: &&'static str| {
        let text = std::fs::read_to_string(setting_path(&source.root, name)).ok()?;
        Some((*name, setting(&text)?))
    };
    names.iter().filter_map(read).collect()
}

/// The effective one of proc_pid_status(5).
fn user(status: &str) -> Option<u32> {
    field(status, "Uid:")?.split_whitespace().nth(1)?.parse().ok()
}

/// A number, or the width of a range of two, ends included.
fn setting(text: &str) -> Option<u64> {
    let numbers: Vec<u64> = text.split_whitespace().map(|n| n.parse().ok()).collect::<Option<_>>()?;
    match numbers.as_slice() {
        [one] => Some(*one),
        [low, high] if high >= low => Some(high - low + 1),
        _ => None,
    }
}

/// The rest of the line that begins with `key`.
fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key)).map(str::trim)
}

/// The value of a line `key value`.
fn keyed(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// Bit 24 of the effective set (capabilities(7), linux/capability.h).
fn raises_limits(status: &str) -> Option<bool> {
    const SYS_RESOURCE: u32 = 24;
    let set = u64::from_str_radix(field(status, "CapEff:")?, 16).ok()?;
    Some(set >> SYS_RESOURCE & 1 == 1)
}

/// `0-3,6` is five.
fn count_ranges(text: &str) -> Option<u64> {
    text.trim().split(',').try_fold(0u64, |sum, range| {
        let (low, high) = range.split_once('-').unwrap_or((range, range));
        let (low, high): (u64, u64) = (low.parse().ok()?, high.parse().ok()?);
        sum.checked_add(high.checked_sub(low)?.checked_add(1)?)
    })
}

/// The fourth field of proc_loadavg(5) is `runnable/all`.
fn tasks(text: &str) -> Option<u64> {
    text.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()
}

/// `Max open files  1024  4096  files` (proc_pid_limits(5)).
fn limit(limits: &str, name: &str) -> Option<Limit> {
    let mut values = field(limits, name)?.split_whitespace().map(|value| match value {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    });
    Some(Limit { soft: values.next()??, hard: values.next()?? })
}

/// `allocated unused maximum` (proc_sys_fs(5)).
fn files_open(text: &str) -> Option<u64> {
    let mut numbers = text.split_whitespace().map(|number| number.parse::<u64>().ok());
    let (allocated, unused) = (numbers.next()??, numbers.next()??);
    Some(allocated.saturating_sub(unused))
}

fn memory(text: &str) -> Option<Memory> {
    let bytes = |key| field(text, key)?.strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024);
    Some(Memory { total: bytes("MemTotal:")?, available: bytes("MemAvailable:")? })
}

impl Cores {
    /// Of the line `cpu  user nice system idle iowait irq softirq steal guest guest_nice`; guests are in `user` already.
    fn parse(text: &str) -> Option<Cores> {
        let fields = text.lines().next()?.strip_prefix("cpu ")?.split_whitespace().take(8);
        let ticks: Vec<u64> = fields.map(|field| field.parse().ok()).collect::<Option<_>>()?;
        let [_, _, _, idle, waiting, ..] = ticks[..] else { return None };
        let all = ticks.iter().fold(0, |sum: u64, ticks| sum.saturating_add(*ticks));
        Some(Cores { busy: all.saturating_sub(idle).saturating_sub(waiting), all })
    }
}

impl Stall {
    /// Of the line `some avg10=0.00 avg60=0.00 avg300=0.00 total=0` of a pressure file.
    pub fn parse(text: &str) -> Option<Stall> {
        let line = text.lines().find(|line| line.starts_with("some "))?;
        let value = |key: &str| line.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        Some(Stall { average: value("avg10")?.parse().ok()?, total: value("total")?.parse().ok()? })
    }
}

fn disk(source: &Source) -> Option<Disk> {
    if !source.is_live() {
        return None;
    }
    let there = source.state.ancestors().find(|path| path.exists())?;
    let room = rustix::fs::statvfs(there).ok()?;
    Some(Disk {
        bytes: room.f_blocks.saturating_mul(room.f_frsize),
        bytes_free: room.f_bavail.saturating_mul(room.f_frsize),
        inodes: room.f_files,
        inodes_free: room.f_favail,
    })
}

/// A bridge is an interface with a folder `brif`, which has an entry for each port.
fn bridge_ports(source: &Source) -> Option<u64> {
    let interfaces = std::fs::read_dir(source.root.join("sys/class/net")).ok()?;
    let ports = |entry: std::fs::DirEntry| {
        std::fs::read_dir(entry.path().join("brif")).map_or(0, |ports| ports.count() as u64)
    };
    Some(interfaces.flatten().map(ports).max().unwrap_or(0))
}

/// Loaded or built in (proc_kallsyms(5) has the names of its functions), or to be loaded (modules.dep(5)).
fn macvlan(source: &Source) -> Option<bool> {
    let symbols = source.read("proc/kallsyms");
    if symbols.as_ref().is_some_and(|text| text.contains(" macvlan_common_newlink")) {
        return Some(true);
    }
    let kernel = source.read("proc/sys/kernel/osrelease")?;
    let modules = source.read(Path::new("lib/modules").join(kernel.trim()).join("modules.dep"));
    match (symbols, modules) {
        (_, Some(modules)) if modules.contains("/macvlan.ko") => Some(true),
        (Some(_), Some(_)) => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_are_read_as_the_kernel_prints_them() {
        assert_eq!(setting("32768\n"), Some(32_768));
        assert_eq!(setting("32768\t60999\n"), Some(28_232));
        assert_eq!(setting("5\t1\n"), None);
        assert_eq!(setting("max\n"), None);
        assert_eq!(count_ranges("0-3,6\n"), Some(5));
        assert_eq!(count_ranges("0\n"), Some(1));
        assert_eq!(count_ranges("\n"), None);
        assert_eq!(tasks("0.20 0.18 0.12 5/80 11206\n"), Some(80));
        assert_eq!(files_open("44333\t33\t2466170\n"), Some(44_300));
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max processes             unlimited            96365                processes \n\
                      Max open files            1024                 20000                files     \n";
        assert_eq!(limit(limits, "Max open files"), Some(Limit { soft: 1024, hard: 20_000 }));
        assert_eq!(limit(limits, "Max processes"), Some(Limit { soft: u64::MAX, hard: 96_365 }));
        assert_eq!(limit(limits, "Max nothing"), None);
        assert_eq!(
            memory("MemTotal:       1000 kB\nMemFree:   1 kB\nMemAvailable:    500 kB\n"),
            Some(Memory { total: 1_024_000, available: 512_000 })
        );
        assert_eq!(raises_limits("CapEff:\t000001ffffffffff\n"), Some(true));
        assert_eq!(raises_limits("CapEff:\t000001fffeffffff\n"), Some(false));
        assert_eq!(raises_limits(""), None);
        let some = "some avg10=1.50 avg60=0.00 avg300=0.00 total=1234\nfull avg10=9.00 avg60=0.00 avg300=0.00 total=9\n";
        assert_eq!(Stall::parse(some), Some(Stall { average: 1.5, total: 1234 }));
        let stat = "cpu  100 10 40 800 30 1 9 10 100 0\ncpu0 1 2 3 4 5 6 7 8 9 10\n";
        assert_eq!(Cores::parse(stat), Some(Cores { busy: 170, all: 1_000 }));
        assert_eq!(Cores::parse("cpu  1 2 3\n"), None);
    }

    proptest! {
        #[test]
        fn no_text_does_harm(text: String) {
            let _ = (setting(&text), count_ranges(&text), tasks(&text), files_open(&text), memory(&text));
            let _ = (limit(&text, "Max open files"), Stall::parse(&text), Cores::parse(&text), raises_limits(&text), keyed(&text, "a"));
        }
    }

    #[test]
    fn an_empty_tree_is_unknown_throughout() {
        let folder = tempfile::tempdir().expect("a folder");
        let source = Source { root: folder.path().into(), state: "/var/lib/throng".into() };
        assert_eq!(Host::read(&source), Host::default());
    }
}
