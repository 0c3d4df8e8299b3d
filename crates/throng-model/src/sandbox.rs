//! What surrounds the process of a replica beside its files, its network and its limits. A Compose file and an order for
//! a runtime say it in the same words.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

/// Wishes about a replica's surroundings; the default is none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sandbox {
    /// Names out of [`CAPABILITIES`], or `ALL`.
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    /// Supplementary groups by name (looked up in the replica's own /etc/group) or number.
    pub groups: Vec<String>,
    /// By names out of [`ULIMITS`].
    pub ulimits: BTreeMap<String, Ulimit>,
    /// Kernel parameters that each container has its own of (see [`is_namespaced`]).
    pub sysctls: BTreeMap<String, String>,
    /// Further lines of /etc/hosts, in order.
    pub hosts: Vec<(String, HostAddress)>,
    /// Name servers that are asked about everything but the app's own names; empty means the host's.
    pub dns: Vec<IpAddr>,
    pub dns_search: Vec<String>,
    pub dns_options: Vec<String>,
    /// NIS and DNS domain of the host name.
    pub domain: Option<String>,
    /// Bytes of /dev/shm; the default is a share of 64 MiB.
    pub shm_size: Option<u64>,
    /// From -1000 to 1000: how soon the kernel kills it when the host is out of memory.
    pub oom_score: Option<i32>,
    /// Run inside once the process has been started; the replica has started when they have ended well.
    pub post_start: Vec<Hook>,
    /// Run inside before the process is asked to leave, within its grace period.
    pub pre_stop: Vec<Hook>,
    /// The first process is one that hands signals on and waits for the children of others, and starts the program.
    pub init: bool,
    /// Standard input stays open and empty, instead of being at its end from the beginning.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub stdin_open: bool,
    /// Without the filter of system calls.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unfiltered: bool,
    /// Devices of the host that are there beside the usual ones, each at a place of its own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Device>,
    /// Notes for other programs, kept and not read.
    pub annotations: BTreeMap<String, String>,
}

impl Sandbox {
    pub fn is_default(&self) -> bool {
        *self == Sandbox::default()
    }

    /// What holds for a plain process as well.
    pub fn limits_alone(&self) -> Sandbox {
        Sandbox { ulimits: self.ulimits.clone(), ..Sandbox::default() }
    }
}

/// A device of the host, or a folder of some.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Its file on the host, absolute.
    pub source: PathBuf,
    /// Where it is in the replica, absolute.
    pub target: String,
    /// Out of `r`, `w` and `m` (may make more nodes of it), as control groups write it.
    pub permissions: String,
}

/// Both bounds of a resource of each process; `None` is no bound (setrlimit(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    pub soft: Option<u64>,
    pub hard: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HostAddress {
    Address(IpAddr),
    /// The host as the replica's first network sees it: its gateway.
    Gateway,
}

/// A command inside a running replica at one moment of its life.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    pub command: Vec<String>,
    pub user: Option<String>,
    pub working_dir: Option<String>,
    pub environment: BTreeMap<String, String>,
}

/// The kernel's capabilities without `CAP_`, each at the place of its number (linux/capability.h).
pub const CAPABILITIES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// Names of resources as Docker writes them, with their numbers on every architecture that is supported
/// (asm-generic/resource.h).
pub const ULIMITS: [(&str, i32); 16] = [
    ("cpu", 0),
    ("fsize", 1),
    ("data", 2),
    ("stack", 3),
    ("core", 4),
    ("rss", 5),
    ("nproc", 6),
    ("nofile", 7),
    ("memlock", 8),
    ("as", 9),
    ("locks", 10),
    ("sigpending", 11),
    ("msgqueue", 12),
    ("nice", 13),
    ("rtprio", 14),
    ("rttime", 15),
];

/// Whether a container has its own value of a kernel parameter: those of its network and of its System V and POSIX
/// message queues, semaphores and shared memory (namespaces(7)). Any other one is the whole host's.
pub fn is_namespaced(sysctl: &str) -> bool {
    const OF_IPC: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    OF_IPC.contains(&sysctl) || sysctl.starts_with("net.") || sysctl.starts_with("fs.mqueue.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_of_the_whole_host_are_known() {
        for own in ["net.core.somaxconn", "net.ipv4.ip_local_port_range", "kernel.sem", "fs.mqueue.msg_max"] {
            assert!(is_namespaced(own), "{own}");
        }
        for hosts in ["vm.swappiness", "kernel.pid_max", "fs.file-max", "network", "kernel.semi"] {
            assert!(!is_namespaced(hosts), "{hosts}");
        }
    }
}
