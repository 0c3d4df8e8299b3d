//! What the command and the supervisor say to each other: one JSON value a line over a Unix socket that only
//! the owner can open. A connection carries one request and the replies to it.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};
use throng_model::app::App;
use throng_model::autoscale::Description;
use throng_model::fault::{ReplicaFault, Victims};
use throng_model::node::{NodeChange, NodeChoice, NodeStatus};
use throng_model::replica::Exit;
use throng_model::status::{Event, Readiness, ReplicaSample, Status};
use throng_runtime::{ErrorKind, RuntimeError};

/// The most bytes of one message; an app of a thousand services fits many times over.
pub const MESSAGE_MOST: usize = 64 << 20;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Make the app so. `only`: these services and what they depend on; empty means all.
    /// Answered by `Done` once the new state is wanted (not yet reached).
    Apply {
        app: Box<App>,
        only: Vec<String>,
        #[serde(default)]
        manner: Manner,
    },
    /// Change replica counts. Answered by `Done`.
    Scale { replicas: BTreeMap<String, u32> },
    /// Wait until these services (all if empty) have all wanted replicas ready and no other one is left.
    /// `update`: for what was just applied, so that an update which has been rolled back already is an error.
    /// Answered by any number of `Readiness`, then `Done` or `Error`.
    Wait {
        services: Vec<String>,
        timeout: Duration,
        #[serde(default)]
        update: bool,
    },
    /// Answered by `Status`.
    Status,
    /// An address of this host that leads to the ready replicas of a service. Answered by `Endpoint`.
    Endpoint { service: String, port: Option<u16> },
    /// Answered by `LogFiles`.
    LogFiles { services: Vec<String> },
    /// Answered by `SendDescriptors`; after three descriptors have come, by `Exited` or `Error`.
    Exec { exec: Exec },
    /// All figures in Prometheus' text format, of `replicas_most` single replicas at most. Answered by `Metrics`.
    Metrics { replicas_most: usize },
    /// Where running replicas of a service, or of all, can be reached. Answered by `Targets`.
    Targets { service: Option<String> },
    /// One service in detail. Answered by `Description`.
    Describe { service: String },
    /// Past events, then new ones if `follow`. Answered by `Event`s, then `Done`.
    Events { follow: bool },
    /// What has been found in the app's way on this host since then: walls that print nothing. The host is looked at
    /// anew before. Answered like `Events`.
    Walls { since: SystemTime, follow: bool },
    /// Answered by `Event`, `Counts` and `Samples` until the connection closes.
    Watch,
    /// Answered by `Readiness` as replicas leave, then `Done`; the supervisor ends.
    Down { volumes: bool, grace: Option<Duration> },
    /// While this connection is open the app lives; when it closes without `Release`, all is taken down, named
    /// volumes too if `volumes`.
    Lease { volumes: bool },
    /// On a lease's connection: give the lease up without taking the app down. Answered by `Done`.
    Release,
    /// Virtual nodes. Answered by `Nodes`.
    Nodes,
    /// Answered by `Done` once packets meet what has been said. What is done to links is healed after `lasts`.
    ChangeNodes {
        choice: NodeChoice,
        change: NodeChange,
        #[serde(default)]
        lasts: Option<Duration>,
    },
    /// Have something befall replicas, and end after `lasts`. Answered by `Befallen`.
    Befall { victims: Victims, fault: ReplicaFault, lasts: Option<Duration> },
}

/// How an app is made wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Manner {
    /// Without what the chosen services depend on.
    pub no_deps: bool,
    /// Replicas of the chosen services are replaced even if nothing about them has changed.
    pub recreate: bool,
    /// What replaced and surplus replicas get to leave, instead of their services' own grace periods.
    pub grace: Option<Duration>,
    /// Compose files that the app was read from, for whoever lists apps.
    pub files: Vec<PathBuf>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Exec {
    pub service: String,
    /// The lowest running one if `None`.
    pub ordinal: Option<u32>,
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub cwd: Option<String>,
    pub user: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    Done,
    Error {
        error: Refusal,
    },
    Readiness {
        services: BTreeMap<String, Readiness>,
    },
    Status {
        status: Box<Status>,
    },
    Endpoint {
        address: SocketAddr,
    },
    LogFiles {
        files: Vec<(String, Vec<PathBuf>)>,
    },
    Metrics {
        text: String,
    },
    Targets {
        targets: Vec<Target>,
    },
    Description {
        description: Box<Description>,
    },
    SendDescriptors,
    Exited {
        exit: Exit,
    },
    Event {
        event: Event,
    },
    Counts {
        at: SystemTime,
        services: BTreeMap<String, Readiness>,
    },
    Samples {
        at: SystemTime,
        samples: Vec<ReplicaSample>,
    },
    Nodes {
        nodes: Vec<NodeStatus>,
    },
    /// Names of replicas.
    Befallen {
        replicas: Vec<String>,
    },
}

/// The running replicas of one service.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Target {
    pub service: String,
    /// As the Compose file has them.
    pub labels: BTreeMap<String, String>,
    /// Ports inside the replicas that the Compose file names, published ones first.
    pub ports: Vec<u16>,
    /// Ordinals and addresses.
    pub replicas: Vec<(u32, Ipv4Addr)>,
}

/// Why a request was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    pub kind: RefusalKind,
    pub message: String,
    pub hint: Option<String>,
    /// What a replica that failed wrote last, a line each with its name before it.
    #[serde(default)]
    pub log: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    /// No such service, replica, port or image.
    NotFound,
    /// The request or the app makes no sense as it is.
    Invalid,
    /// The app does not do what was asked: not ready in time, a replica failed.
    App,
    /// An image cannot be used: it is damaged, or for another machine.
    Image,
    /// The host refuses: a port is taken, a permission or a limit is in the way.
    Host,
}

impl Refusal {
    pub fn new(kind: RefusalKind, message: impl Into<String>) -> Refusal {
        Refusal { kind, message: message.into(), hint: None, log: Vec::new() }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Refusal {
        self.hint = Some(hint.into());
        self
    }
}

impl From<RuntimeError> for Refusal {
    fn from(error: RuntimeError) -> Refusal {
        let kind = match error.kind {
            ErrorKind::NotFound => RefusalKind::NotFound,
            ErrorKind::Invalid => RefusalKind::Invalid,
            ErrorKind::Stale => RefusalKind::App,
            ErrorKind::Host => RefusalKind::Host,
        };
        Refusal { hint: error.hint, ..Refusal::new(kind, error.message) }
    }
}
