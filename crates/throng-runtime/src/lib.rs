//! The two traits that every back end implements: [`Runtime`] for one replica at a time, and
//! [`cluster::Cluster`] for an app as a whole.
//!
//! A runtime decides nothing. Its orders are idempotent and carry the replica's generation: an order older than
//! the newest one seen for that replica is refused, so a slow or crashed caller can do no harm.

pub mod backends;
pub mod cluster;
pub mod counters;

use async_trait::async_trait;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use throng_model::node::{LinkTraffic, Node};
use throng_model::replica::{Exit, NetworkSpec, Observed, ReplicaId, ReplicaSpec, Statistics};
use tokio::sync::mpsc;

/// Why an order could not be carried out. `hint` says what a person can do about it.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct RuntimeError {
    pub kind: ErrorKind,
    /// Lower-case fragment that names the replica, the step and the kernel's own words.
    pub message: String,
    pub hint: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// No such replica or network.
    NotFound,
    /// A newer order for the same replica has been seen.
    Stale,
    /// The replica cannot be started as described (no such program, wrong architecture, bad mount).
    Invalid,
    /// The host refuses: permission, a limit, no space, no memory.
    Host,
}

impl RuntimeError {
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        RuntimeError { kind, message: message.into(), hint: None }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

pub type Result<T> = std::result::Result<T, RuntimeError>;

/// Something that happened without being asked for.
#[derive(Debug, Clone, PartialEq)]
pub enum RuntimeEvent {
    Exited {
        id: ReplicaId,
        generation: u64,
        exit: Exit,
    },
    /// Something that people should know, about a part of a project that is no replica.
    Warned {
        project: String,
        subject: String,
        message: String,
    },
}

/// A command to run inside a running replica.
#[derive(Debug, Clone, Default)]
pub struct ExecSpec {
    pub args: Vec<String>,
    /// Added to the replica's own environment.
    pub env: Vec<String>,
    pub cwd: Option<String>,
    pub user: Option<String>,
    /// The process is killed when this has passed; `None` waits for ever.
    pub timeout: Option<Duration>,
}

/// File descriptors that become 0, 1 and 2 of an executed command.
#[derive(Debug)]
pub struct ExecIo {
    pub stdin: std::os::fd::OwnedFd,
    pub stdout: std::os::fd::OwnedFd,
    pub stderr: std::os::fd::OwnedFd,
}

fn cannot(id: &ReplicaId, what: &str) -> RuntimeError {
    RuntimeError::new(ErrorKind::Invalid, format!("{id} cannot {what} where this app runs"))
        .hint("run the app with --on local")
}

#[async_trait]
pub trait Runtime: Send + Sync {
    /// Makes the network if it is missing. The same name with another subnet is an error.
    async fn create_network(&self, network: &NetworkSpec) -> Result<()>;

    /// Removes the network; fine if it is gone, an error while a replica is attached.
    async fn remove_network(&self, name: &str) -> Result<()>;

    /// A network of this name that an app which is gone has left, since it could not be removed then. Who brings that app up
    /// again uses it as it is.
    async fn left_network(&self, _name: &str) -> Result<Option<NetworkSpec>> {
        Ok(None)
    }

    /// Prepares everything for the replica short of starting its process.
    async fn create(&self, spec: &ReplicaSpec) -> Result<()>;

    /// Starts the replica's process and returns its pid on the host once `execve` has succeeded.
    /// Starting a running replica returns its pid; starting an exited one starts it afresh.
    async fn start(&self, id: &ReplicaId, generation: u64) -> Result<u32>;

    /// Sends `signal`, waits up to `grace`, then kills. Returns how it ended; fine if it had ended before.
    async fn stop(&self, id: &ReplicaId, generation: u64, signal: i32, grace: Duration) -> Result<Exit>;

    /// Sends a signal and waits for nothing. Fine if the replica does not run.
    async fn signal(&self, id: &ReplicaId, _generation: u64, _signal: i32) -> Result<()> {
        Err(cannot(id, "be sent a signal"))
    }

    /// Keeps all processes of a running replica from running until [`Runtime::unpause`]; commands in it are refused.
    async fn pause(&self, id: &ReplicaId, _generation: u64) -> Result<()> {
        Err(cannot(id, "be paused"))
    }

    /// Fine if it is not paused. To stop a replica lets it go on, too.
    async fn unpause(&self, id: &ReplicaId, _generation: u64) -> Result<()> {
        Err(cannot(id, "be paused"))
    }

    /// Takes so many bytes of a running replica's writable layer, or with `None` all up to the layer's limit, and
    /// returns how many. They are given back by [`Runtime::give_back`], when the replica ends, and when this process
    /// does. Refused where the layer has no limit and the host has less room than was asked for, or nothing was said.
    async fn fill(&self, id: &ReplicaId, _generation: u64, _bytes: Option<u64>) -> Result<u64> {
        Err(cannot(id, "have its disk filled"))
    }

    /// Fine if nothing is taken.
    async fn give_back(&self, id: &ReplicaId, _generation: u64) -> Result<()> {
        Err(cannot(id, "have its disk filled"))
    }

    /// Removes everything of a stopped or created replica, its log last. Fine if there is none.
    async fn remove(&self, id: &ReplicaId, generation: u64) -> Result<()>;

    /// Frees what those of these replicas that have ended hold on the disk, but for their logs, records and volumes; one
    /// that is started again starts with an empty writable layer. Returns how many that were. A back end whose layers
    /// are kept by a daemon frees nothing.
    async fn shed(&self, _ids: &[ReplicaId]) -> Result<u32> {
        Ok(0)
    }

    /// All replicas of a project that this runtime knows, running or not, also those of an earlier supervisor.
    async fn observe(&self, project: &str) -> Result<Vec<Observed>>;

    /// Events from now on. Each call gives a stream of its own; one that is not read loses its oldest events.
    fn watch(&self) -> mpsc::Receiver<RuntimeEvent>;

    /// The files that hold the replica's output, oldest first; the last one is being written.
    async fn log_files(&self, id: &ReplicaId) -> Result<Vec<PathBuf>>;

    /// Runs a command inside the replica's namespaces and limits, and returns how it ended.
    async fn exec(&self, id: &ReplicaId, spec: &ExecSpec, io: ExecIo) -> Result<Exit>;

    /// Makes a virtual node of a project, or changes its capacity and its link, also for the replicas that are there.
    /// Specifications name it. A back end without nodes of this kind refuses.
    async fn set_node(&self, _project: &str, name: &str, _node: &Node) -> Result<()> {
        Err(RuntimeError::new(
            ErrorKind::Invalid,
            format!("this back end has no virtual nodes such as {name}"),
        )
        .hint("run the app with --on local, or remove x-throng.nodes"))
    }

    /// Removes all nodes of a project whose replicas and networks are gone. Fine if there are none.
    async fn remove_nodes(&self, _project: &str) -> Result<()> {
        Ok(())
    }

    /// What became of the packets of nodes' links, by node; nothing of links that are perfect.
    async fn link_traffic(&self, _project: &str) -> BTreeMap<String, LinkTraffic> {
        BTreeMap::new()
    }

    /// The machine that the back end has put a replica on, or is to put it on, where it has several.
    fn machine_of(&self, _id: &ReplicaId) -> Option<String> {
        None
    }

    /// Counters of the given replicas, in the same order; `None` for one that is not running.
    async fn statistics(&self, ids: &[ReplicaId]) -> Vec<Option<Statistics>>;
}
