//! What a Compose file says once every default is filled in and every path is absolute.

use crate::autoscale::{Autoscale, Vertical};
pub use crate::build::Build;
use crate::build::PullPolicy;
use crate::cores::CoreSet;
use crate::job::Job;
use crate::node::{Node, Placement};
use crate::replica::LogPolicy;
use crate::sandbox::Sandbox;
use crate::update::{RestartPace, UpdatePolicy};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

/// A whole application. Names of services, networks and volumes are the keys of their maps.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct App {
    /// The project name: lower case letters, digits, `-` and `_`, starting with a letter or digit.
    pub name: String,
    /// The folder that relative paths of the file refer to. Absolute.
    pub directory: PathBuf,
    pub services: BTreeMap<String, Service>,
    pub networks: BTreeMap<String, Network>,
    pub volumes: BTreeMap<String, Volume>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub configs: BTreeMap<String, FileSource>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, FileSource>,
    /// Virtual nodes; empty means that the host is one place without limits of its own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub nodes: BTreeMap<String, Node>,
    /// How long a node must be cut off before its replicas are given no work; `None` means Kubernetes' default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unreachable_after: Option<Duration>,
}

/// An image and a command, and how many replicas of it should run where and with what.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Service {
    pub name: String,
    /// Image reference as written; with only `build`, `<project>-<service>`.
    pub image: String,
    pub build: Option<Build>,
    /// When the image is asked for at its registry.
    #[serde(default, skip_serializing_if = "PullPolicy::is_default")]
    pub pull: PullPolicy,
    /// A name of its own for the only replica, beside the one that follows from the service's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container_name: Option<String>,
    /// Replaces the image's CMD.
    pub command: Option<Vec<String>>,
    /// Replaces the image's ENTRYPOINT; an empty list resets it.
    pub entrypoint: Option<Vec<String>>,
    pub environment: BTreeMap<String, String>,
    pub working_dir: Option<String>,
    /// `user[:group]` by name or number; `None` means the image's.
    pub user: Option<String>,
    pub hostname: Option<String>,
    pub labels: BTreeMap<String, String>,
    /// Labels of the service alone, which its replicas do not have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub deploy_labels: BTreeMap<String, String>,
    pub ports: Vec<Port>,
    /// Ports that only other services use. They are reachable anyway; this says which ones are meant.
    #[serde(default)]
    pub expose: Vec<ExposedPort>,
    pub mounts: Vec<Mount>,
    pub replicas: u32,
    pub resources: Resources,
    /// `healthcheck` or `x-throng.readiness`: when a replica is given work.
    pub health_check: Option<HealthCheck>,
    /// `x-throng.liveness`: a replica that fails it is ended. Its first question comes after the start period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub liveness: Option<HealthCheck>,
    /// `x-throng.startup`: until it has succeeded once nothing else is asked; a replica that fails it is ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub startup: Option<HealthCheck>,
    pub depends_on: BTreeMap<String, Dependency>,
    /// Keys of [`App::networks`] this service is attached to, with extra names it answers to there.
    pub networks: BTreeMap<String, NetworkAttachment>,
    pub restart: RestartPolicy,
    /// It runs to completion: so many replicas as there are to be must succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<Job>,
    /// At what pace replicas that have ended start again.
    #[serde(default, skip_serializing_if = "RestartPace::is_default")]
    pub restart_pace: RestartPace,
    /// `deploy.update_config`; `None` means one replica at a time, each as soon as all others are ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<UpdatePolicy>,
    /// `deploy.rollback_config`; `None` means the defaults.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollback: Option<UpdatePolicy>,
    pub stop_signal: Option<String>,
    /// How long a replica may take to leave after its stop signal. Compose's default is 10 s.
    pub stop_grace_period: Duration,
    /// Profiles that enable this service; empty means always enabled.
    pub profiles: Vec<String>,
    /// The root file system of replicas cannot be written to; their mounts can.
    #[serde(default, skip_serializing_if = "is_false")]
    pub read_only: bool,
    #[serde(default, skip_serializing_if = "Sandbox::is_default")]
    pub sandbox: Sandbox,
    /// Configs and secrets as files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileMount>,
    /// How much of the output is kept; `None` means the runtime's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<LogPolicy>,
    /// How the number of replicas follows the load; `None` means that it is only changed by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub autoscale: Option<Autoscale>,
    /// What becomes of what its replicas are found to need.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vertical: Option<Vertical>,
    #[serde(default, skip_serializing_if = "Placement::is_anywhere")]
    pub placement: Placement,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// Where the content of a config or a secret comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileSource {
    /// A file of the host, absolute.
    File(PathBuf),
    Content(String),
    /// A variable of the caller's environment, and what it held.
    Environment {
        variable: String,
        value: String,
    },
}

/// A config or a secret as a file inside the replicas, read-only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileMount {
    pub kind: FileKind,
    /// Key of [`App::configs`] or [`App::secrets`].
    pub source: String,
    /// Absolute path inside the replica.
    pub target: String,
    /// Owner, group and permission bits; `None` means those of the host's file, or root's and 0444 for other contents.
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub mode: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileKind {
    Config,
    Secret,
}

/// Limits of one replica.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Resources {
    /// CPUs, as a number of cores (0.5 is half of one).
    pub cpus: Option<f64>,
    /// Memory in bytes.
    pub memory: Option<u64>,
    /// Tasks (processes and threads).
    pub pids: Option<u64>,
    /// Bytes of the writable layer, all that its file system needs for itself included. Volumes are not part of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk: Option<u64>,
    /// Weight against other groups when cores are short; Docker's default is 1024.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_shares: Option<u64>,
    /// Bytes of memory that are taken away last when the host is short of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_reservation: Option<u64>,
    /// Cores that each replica is expected to need: what autoscaling counts in percent of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_reservation: Option<f64>,
    /// Bytes of swap beside the limit of memory; `None` means none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap: Option<Swap>,
    /// The only cores that it runs on; `None` means all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cores: Option<CoreSet>,
    /// From 0 to 100: how readily the kernel moves its memory to swap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swappiness: Option<u8>,
    /// At its limit of memory it waits for some instead of being killed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub oom_kill_disable: bool,
}

impl Resources {
    /// Cores that a replica requests: a limit without a reservation is one, too, as in Kubernetes.
    pub fn cpu_request(&self) -> Option<f64> {
        self.cpu_reservation.or(self.cpus)
    }

    /// Bytes that a replica requests, likewise.
    pub fn memory_request(&self) -> Option<u64> {
        self.memory_reservation.or(self.memory)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Swap {
    Bytes(u64),
    Unlimited,
}

/// A port of the service published on the host. One front proxy listens for all replicas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Address of the host to listen on. Throng's default is loopback, not every interface.
    pub host_ip: Option<std::net::IpAddr>,
    /// Port of the host; `None` lets the kernel choose.
    pub published: Option<u16>,
    /// Port inside the replicas.
    pub target: u16,
    pub protocol: Protocol,
    /// Compose's `app_protocol`: `http`, `http2`, `grpc`, `tcp`; `None` means detect.
    pub app_protocol: Option<String>,
}

/// A port inside the replicas that is not published on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExposedPort {
    pub port: u16,
    pub protocol: Protocol,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
}

/// Something mounted into every replica of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    pub source: MountSource,
    /// Absolute path inside the replica.
    pub target: String,
    pub read_only: bool,
    /// A folder below the source of a volume, relative, that is mounted in its stead. It must exist.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subpath: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountSource {
    /// A key of [`App::volumes`]; all replicas share it.
    Volume(String),
    /// A file or folder of the host, absolute. `create`: make the folder if it is missing (short syntax).
    Bind { path: PathBuf, create: bool },
    /// Memory, empty at start; the limit is in bytes, the mode is that of its root folder (01777 by default).
    Tmpfs {
        size: Option<u64>,
        #[serde(default)]
        mode: Option<u32>,
    },
    /// An unnamed volume that lives and dies with its replica.
    Anonymous,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HealthCheck {
    pub test: HealthTest,
    pub interval: Duration,
    pub timeout: Duration,
    pub retries: u32,
    pub start_period: Duration,
    pub start_interval: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HealthTest {
    /// Run inside the replica; exit code 0 is healthy.
    Exec(Vec<String>),
    /// Run by `/bin/sh -c` inside the replica.
    Shell(String),
    /// `NONE` or `disable: true`: even the image's own check is off.
    Disabled,
    /// A GET at this port of the replica; an answer from 200 to 399 is healthy.
    Http { port: u16, path: String },
    /// A connection to this port of the replica; that it is made is healthy.
    Tcp { port: u16 },
    /// `grpc.health.v1.Health/Check` of this service at this port (an empty name is the whole server); `SERVING` is
    /// healthy.
    Grpc { port: u16, service: String },
}

/// As people would say it: the command, or what is asked for where.
impl std::fmt::Display for HealthTest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            HealthTest::Exec(words) => f.write_str(&words.join(" ")),
            HealthTest::Shell(command) => f.write_str(command),
            HealthTest::Disabled => f.write_str("none"),
            HealthTest::Http { port, path } => write!(f, "GET :{port}{path}"),
            HealthTest::Tcp { port } => write!(f, "connect :{port}"),
            HealthTest::Grpc { port, service } if service.is_empty() => write!(f, "grpc :{port}"),
            HealthTest::Grpc { port, service } => write!(f, "grpc :{port} {service}"),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    pub condition: Condition,
    pub required: bool,
    pub restart: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    ServiceStarted,
    ServiceHealthy,
    ServiceCompletedSuccessfully,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkAttachment {
    pub aliases: Vec<String>,
    /// The address of its only replica there; `None` takes one that is free.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<Ipv4Addr>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// No way out to the host's networks.
    pub internal: bool,
    /// Asked-for subnet; `None` lets the supervisor choose a free one.
    pub subnet: Option<ipnet::Ipv4Net>,
    #[serde(default, skip_serializing_if = "Place::is_none")]
    pub subnet_at: Place,
    /// The host's own address there; `None` is the first one. Only with a subnet, as what follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Ipv4Addr>,
    /// What addresses are given out from that nobody asks for; `None` is all of the subnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<ipnet::Ipv4Net>,
    /// Addresses that are given to nobody, by a name for people.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reserved: BTreeMap<String, Ipv4Addr>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// Where in a file something was said: `compose.yaml:12:5`. It is no part of what was said, so all places are equal.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Place(pub Option<String>);

impl Place {
    fn is_none(&self) -> bool {
        self.0.is_none()
    }
}

impl PartialEq for Place {
    fn eq(&self, _: &Place) -> bool {
        true
    }
}

impl Eq for Place {}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    /// Name on disk; `<project>_<key>` unless the file gives one.
    pub name: String,
    /// Not made and not removed by this app.
    pub external: bool,
    /// A folder of the host, absolute, that is the volume, as the local driver's options ask for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    #[default]
    No,
    Always,
    /// With the most restarts that are tried, if there is such a number.
    OnFailure(Option<u32>),
    UnlessStopped,
}
