//! One instance of a service: its identity, everything needed to run it, and what was observed of it.

use crate::app::Resources;
use crate::sandbox::Sandbox;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// `web-3` of project `shop`. Ordinals count from 1 and are stable: a restarted replica keeps its own.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ReplicaId {
    pub project: String,
    pub service: String,
    pub ordinal: u32,
}

impl ReplicaId {
    /// The name inside the project: `web-3`. It is also the host name and a DNS name.
    pub fn name(&self) -> String {
        format!("{}-{}", self.service, self.ordinal)
    }
}

impl fmt::Display for ReplicaId {
    /// Docker Compose's container name: `shop-web-3`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.project, self.service, self.ordinal)
    }
}

/// Everything a runtime needs to make one replica; nothing in it leaves a choice open.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReplicaSpec {
    pub id: ReplicaId,
    /// Grows with every order about this replica; an order older than the newest seen one is refused.
    pub generation: u64,
    /// Hash of what the service's definition says; tells whether a running replica is up to date.
    pub config_hash: String,
    pub root: RootFs,
    pub process: Process,
    pub hostname: String,
    pub mounts: Vec<ResolvedMount>,
    /// First entry is `eth0` and carries the default route.
    pub networks: Vec<Attachment>,
    pub resources: Resources,
    pub log: LogPolicy,
    /// Signal number that asks the process to leave.
    pub stop_signal: i32,
    pub stop_grace_period: Duration,
    #[serde(default, skip_serializing_if = "Sandbox::is_default")]
    pub sandbox: Sandbox,
    /// The virtual node of its project that it is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
}

/// The read-only layers under a replica's writable one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Image reference, for Docker and for listings.
    pub image: String,
    /// Digest of the image's configuration, `sha256:…`.
    pub image_id: String,
    /// Unpacked layers, bottom first, absolute paths on the host.
    pub layers: Vec<PathBuf>,
    pub read_only: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Program and arguments; never empty. The program is looked up in the PATH of `env` if it has no slash.
    pub args: Vec<String>,
    /// `KEY=value` pairs.
    pub env: Vec<String>,
    /// Absolute; made if missing, as Docker does.
    pub cwd: String,
    /// `user[:group]` by name (looked up in the replica's own /etc/passwd) or number; empty is root.
    pub user: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedMount {
    pub source: ResolvedSource,
    pub target: String,
    pub read_only: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ResolvedSource {
    Bind(PathBuf),
    Tmpfs {
        size: Option<u64>,
        /// Permission bits of its root folder; `None` means 01777.
        #[serde(default)]
        mode: Option<u32>,
    },
    /// A folder of the replica's own, removed with it.
    Private,
}

/// One leg of a replica in one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Name of the network, unique on this host: `<project>_<key>`.
    pub network: String,
    pub address: Ipv4Addr,
}

/// A network that replicas attach to: one broadcast domain with the host at its gateway address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkSpec {
    /// `<project>_<key>`, unique on this host.
    pub name: String,
    pub subnet: ipnet::Ipv4Net,
    /// The host's own address inside it; DNS answers there.
    pub gateway: Ipv4Addr,
    pub internal: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPolicy {
    /// Bytes kept in the current file before it is rotated.
    pub max_size: u64,
    /// Rotated files kept beside the current one.
    pub max_files: u32,
}

impl Default for LogPolicy {
    fn default() -> Self {
        LogPolicy { max_size: 16 << 20, max_files: 2 }
    }
}

/// What a runtime sees of one replica now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Observed {
    pub id: ReplicaId,
    pub generation: u64,
    pub config_hash: String,
    /// Where it is attached, as its specification said.
    pub networks: Vec<Attachment>,
    /// The virtual node that it is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Its processes are kept from running.
    #[serde(default)]
    pub paused: bool,
    pub state: ReplicaState,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "status")]
pub enum ReplicaState {
    Created,
    Running { pid: u32, started_at: SystemTime },
    Exited { exit: Exit, finished_at: SystemTime },
}

/// Why a replica's first process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "how")]
pub enum Exit {
    Code {
        code: i32,
    },
    Signal {
        signal: i32,
    },
    /// Killed by the kernel because its memory limit was reached.
    OutOfMemory,
    /// It ended while nobody was there to see how.
    Unknown,
}

impl Exit {
    /// The code a shell would report: 128 + signal for a signal, 137 for an out-of-memory kill.
    pub fn code(self) -> i32 {
        match self {
            Exit::Code { code } => code,
            Exit::Signal { signal } => 128 + signal,
            Exit::OutOfMemory => 137,
            Exit::Unknown => 255,
        }
    }

    pub fn is_success(self) -> bool {
        self == Exit::Code { code: 0 }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Code { code } => write!(f, "exited with code {code}"),
            Exit::Signal { signal } => write!(f, "killed by signal {signal}"),
            Exit::OutOfMemory => write!(f, "killed: out of memory"),
            Exit::Unknown => write!(f, "ended unseen"),
        }
    }
}

/// One reading of a replica's resource counters. Counters only grow while a replica lives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Statistics {
    /// CPU time used since start.
    pub cpu: Duration,
    /// Bytes charged to the replica now, page cache included.
    pub memory: u64,
    /// Of these, bytes that cannot be dropped (anonymous memory and kernel objects).
    pub memory_unreclaimable: u64,
    pub memory_limit: Option<u64>,
    /// Tasks alive now.
    pub pids: u64,
    pub network_received: u64,
    pub network_sent: u64,
    /// Bytes that were fetched from storage and sent to it, by the processes that live and those that these have waited
    /// for; `None` where the kernel does not count or tell them.
    #[serde(default)]
    pub storage_read: Option<u64>,
    #[serde(default)]
    pub storage_written: Option<u64>,
    /// `None` where the kernel does not count it for each replica, as with control groups of version 1.
    #[serde(default)]
    pub pressure: Option<Pressure>,
    /// How old all of this but `cpu` is. In large crowds not everything is read anew each time.
    #[serde(default)]
    pub age: Duration,
}

/// Time since the start in which some task of a replica waited for something that was short, as the kernel's pressure
/// stall information counts it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pressure {
    pub cpu: Duration,
    pub memory: Duration,
    pub storage: Duration,
}
