//! How an app is doing now, whatever runs it: readiness, listings, events, samples.

use crate::app::Resources;
use crate::job::{JobState, JobStatus};
use crate::replica::{Exit, Statistics};
use crate::update::UpdateState;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::SystemTime;

/// How far one service is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    pub wanted: u32,
    /// Replicas that exist, in whatever state.
    pub present: u32,
    pub running: u32,
    pub ready: u32,
    /// Replicas that ended with code 0 and stay so.
    pub completed: u32,
    /// Replicas that ended badly or could not be launched, with the first reason.
    pub failed: u32,
    pub trouble: Option<String>,
    /// What it waits for before it can start.
    pub waiting: Option<String>,
    /// Waiting longer will not help.
    pub hopeless: bool,
    /// Set while replicas are being replaced, and after they could not be.
    #[serde(default)]
    pub update: Option<Update>,
    /// How far it is, if it runs to completion; `wanted` are then those that must succeed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobStatus>,
}

/// The replacement of a service's replicas by those of another definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    pub state: UpdateState,
    /// Replicas that are as wanted and have proved it.
    pub done: u32,
    /// New replicas that have failed.
    pub failed: u32,
    /// Why it is paused or was taken back.
    pub reason: Option<String>,
}

impl Readiness {
    /// All wanted replicas ready (or completed), none too many and none to be replaced. Of a job it is enough that it is
    /// under way or waits for its time, as of any service whose replicas have been started.
    pub fn settled(&self) -> bool {
        if let Some(job) = &self.job {
            return match job.state {
                JobState::Running => job.running + job.completed + job.failed > 0,
                JobState::Waiting => self.waiting.is_none() && job.next.is_some(),
                JobState::Complete | JobState::Suspended => true,
                JobState::Failed => job.next.is_some(),
            };
        }
        let updating = self.update.as_ref().is_some_and(|update| update.state != UpdateState::RolledBack);
        self.ready + self.completed >= self.wanted && self.present == self.wanted && !updating
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    pub project: String,
    pub directory: PathBuf,
    /// Compose files that it was made from, absolute.
    #[serde(default)]
    pub files: Vec<PathBuf>,
    /// `local`, or the daemon: `docker 20.10.24 (unix:///var/run/docker.sock)`.
    #[serde(default)]
    pub on: String,
    /// `container`, `container (rootless)` or `process`.
    pub isolation: String,
    /// What this isolation lacks, in one line.
    pub lost: Option<String>,
    /// Limits on CPU, memory and processes are not enforced.
    #[serde(default)]
    pub unlimited: bool,
    pub services: BTreeMap<String, ServiceStatus>,
    pub replicas: Vec<ReplicaStatus>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServiceStatus {
    pub image: String,
    pub readiness: Readiness,
    pub published: Vec<Published>,
    /// What each replica is limited to.
    #[serde(default)]
    pub limits: Resources,
    /// As the Compose file has them.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Published {
    pub address: SocketAddr,
    pub target: u16,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReplicaStatus {
    /// `shop-web-3`.
    pub name: String,
    pub service: String,
    pub ordinal: u32,
    pub image: String,
    pub command: String,
    /// `created`, `starting`, `running`, `restarting` (it has ended and will be started again), `exited`, `failed`,
    /// `leaving`.
    pub state: String,
    /// `starting`, `healthy`, `unhealthy`, or empty without a health check.
    pub health: String,
    pub exit: Option<Exit>,
    pub error: Option<String>,
    /// What it was ended for, if that was not its own doing: `liveness check failed: …`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_for: Option<String>,
    pub restarts: u32,
    pub addresses: Vec<Ipv4Addr>,
    /// Names of the networks that these are in, in the same order.
    #[serde(default)]
    pub networks: Vec<String>,
    /// The virtual node that it is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    pub created_at: SystemTime,
    pub started_at: Option<SystemTime>,
    pub finished_at: Option<SystemTime>,
    /// When it is started again; `None` if it runs or stays as it is.
    #[serde(default)]
    pub next_start: Option<SystemTime>,
    pub statistics: Option<Statistics>,
    /// Cores in use over the last second.
    pub cpu: f64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Event {
    pub at: SystemTime,
    /// `replica`, `health`, `scale`, `update`, `app`, `warning`.
    pub kind: String,
    /// `web-3`, `web`, or the project.
    pub subject: String,
    pub message: String,
}

/// What a replica used, as rates since the sample before.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ReplicaSample {
    pub service: String,
    /// `web-3`.
    pub name: String,
    pub cpu: f64,
    pub memory: u64,
    pub pids: u64,
    /// Bytes a second.
    pub received: f64,
    pub sent: f64,
}
