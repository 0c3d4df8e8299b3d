//! One app, wherever it runs: the [`Cluster`] trait.
//!
//! Experiments and commands speak to an app through this trait alone, so that the same experiment gives the same
//! stages on one machine and on a real cluster.

use async_trait::async_trait;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};
use throng_model::app::App;
use throng_model::fault::{ReplicaFault, Victims};
use throng_model::node::{NodeChange, NodeChoice};
use throng_model::status::{Event, Readiness, ReplicaSample, Status};

/// Is told of every change while something is waited for.
pub type Progress<'a> = &'a mut (dyn FnMut(&BTreeMap<String, Readiness>) + Send);

#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub struct ClusterError {
    pub kind: ClusterErrorKind,
    pub message: String,
    pub hint: Option<String>,
    /// What a replica that failed wrote last, a line each with its name before it.
    pub log: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterErrorKind {
    /// No such app, service, port or image.
    NotFound,
    /// The request or the app makes no sense as it is.
    Invalid,
    /// The app does not do what was asked: not ready in time, a replica failed.
    App,
    /// An image cannot be used.
    Image,
    /// The host refuses, or the supervisor is lost.
    Host,
}

/// One message about a running app.
#[derive(Debug, Clone)]
pub enum Feed {
    Event(Event),
    Counts { at: SystemTime, services: BTreeMap<String, Readiness> },
    Samples { at: SystemTime, samples: Vec<ReplicaSample> },
}

fn no_faults(what: &str) -> ClusterError {
    ClusterError {
        kind: ClusterErrorKind::Invalid,
        message: format!("{what} are not known where this app runs"),
        hint: None,
        log: Vec::new(),
    }
}

#[async_trait]
pub trait FeedStream: Send {
    /// The next message; `None` when the app is down.
    async fn next(&mut self) -> Option<Feed>;
}

#[async_trait]
pub trait Cluster: Send + Sync {
    /// Makes the app wanted. It is reached later; see [`Cluster::wait`].
    async fn apply(&self, app: &App) -> Result<(), ClusterError>;

    /// Changes replica counts of services.
    async fn scale(&self, replicas: BTreeMap<String, u32>) -> Result<(), ClusterError>;

    /// Waits until the services (all if empty) have all wanted replicas ready and no other ones left.
    async fn wait(
        &self,
        services: &[String],
        timeout: Duration,
        progress: Progress<'_>,
    ) -> Result<(), ClusterError>;

    async fn status(&self) -> Result<Status, ClusterError>;

    /// Changes virtual nodes. What runs elsewhere than on one machine has none. After `lasts` their links are healed.
    async fn change_nodes(
        &self,
        _choice: &NodeChoice,
        _change: &NodeChange,
        _lasts: Option<Duration>,
    ) -> Result<(), ClusterError> {
        Err(no_faults("virtual nodes"))
    }

    /// Has something befall replicas, and says which. Returns when it has. What lasts ends by itself after `lasts`.
    async fn befall(
        &self,
        _victims: &Victims,
        _fault: &ReplicaFault,
        _lasts: Option<Duration>,
    ) -> Result<Vec<String>, ClusterError> {
        Err(no_faults("faults"))
    }

    /// An address that leads to the ready replicas of a service; `None`: its first published port.
    async fn endpoint(&self, service: &str, port: Option<u16>) -> Result<SocketAddr, ClusterError>;

    /// The last `most` bytes that each replica of a service has written, by replica.
    async fn log_tails(&self, service: &str, most: u64) -> Result<Vec<(String, Vec<u8>)>, ClusterError>;

    /// Events, counts and samples from now on.
    async fn watch(&self) -> Result<Box<dyn FeedStream>, ClusterError>;

    /// Takes everything of the app down.
    async fn down(&self, volumes: bool, progress: Progress<'_>) -> Result<(), ClusterError>;
}
