//! Services that run to completion, in the words of Kubernetes' Job and CronJob.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::time::Duration;

/// `x-throng.job`, and Compose's `deploy.mode: replicated-job` and `global-job`. How many replicas must succeed is the
/// service's own count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// The most replicas that run at a time, 1 or more; `None` means all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parallelism: Option<u32>,
    /// Failures of replicas that a run bears; one more and it has failed. Kubernetes' `backoffLimit`.
    pub retries: u32,
    pub back_off: JobBackOff,
    /// How long a run may take before it has failed. Kubernetes' `activeDeadlineSeconds`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Duration>,
    /// When runs begin; `None` means once, when the service is brought up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
}

impl Default for Job {
    fn default() -> Self {
        Job { parallelism: None, retries: 6, back_off: JobBackOff::default(), deadline: None, schedule: None }
    }
}

/// Pauses after failures, during which nothing of the run starts. Each is twice as long as the one before; a success
/// makes the next one the first again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobBackOff {
    pub initial: Duration,
    pub max: Duration,
}

impl Default for JobBackOff {
    fn default() -> Self {
        JobBackOff { initial: Duration::from_secs(10), max: Duration::from_secs(360) }
    }
}

/// A Kubernetes CronJob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// Five fields as in crontab(5), `@hourly` and the like, or `@every` and a time.
    pub expression: String,
    /// A name of the IANA time zone database; `None` means UTC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    pub concurrency: Concurrency,
    /// A run that could not begin by so long after its time is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub starting_deadline: Option<Duration>,
    /// No further run begins.
    pub suspend: bool,
}

/// What becomes of a run whose time comes while an earlier one goes on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Concurrency {
    /// Both go on.
    #[default]
    Allow,
    /// It waits for the earlier one.
    Forbid,
    /// The earlier one is ended.
    Replace,
}

/// How far a job is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobStatus {
    /// Counts from 1; 0 before the first run.
    pub run: u64,
    /// Replicas that must succeed, and those that have, of the latest run.
    pub completions: u32,
    pub completed: u32,
    pub running: u32,
    /// Failures so far; a replica may have several.
    pub failed: u32,
    pub state: JobState,
    /// Why it has failed.
    pub reason: Option<String>,
    /// Seconds since the epoch of Unix at which the next run is due.
    pub next: Option<u64>,
    /// Seconds until something may start again after failures.
    pub pause: Option<u64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// No run has begun: it is not time yet, or something else comes before.
    #[default]
    Waiting,
    Running,
    Complete,
    Failed,
    Suspended,
}

impl fmt::Display for JobStatus {
    /// `3/5 completed, 2 running, 1 failed`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} completed", self.completed, self.completions)?;
        if self.running > 0 {
            write!(f, ", {} running", self.running)?;
        }
        if self.failed > 0 {
            write!(f, ", {} failed", self.failed)?;
        }
        match (&self.reason, self.pause) {
            (Some(reason), _) => write!(f, ": {reason}"),
            (None, Some(pause)) => write!(f, ", next start in {pause} s (back-off)"),
            (None, None) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_says_how_far_it_is() {
        let job = JobStatus { completions: 5, completed: 3, running: 2, failed: 1, ..JobStatus::default() };
        assert_eq!(job.to_string(), "3/5 completed, 2 running, 1 failed");
        let done = JobStatus { completed: 5, running: 0, failed: 0, ..job.clone() };
        assert_eq!(done.to_string(), "5/5 completed");
        let waits = JobStatus { pause: Some(20), running: 0, ..job.clone() };
        assert_eq!(waits.to_string(), "3/5 completed, 1 failed, next start in 20 s (back-off)");
        let late = JobStatus { reason: Some("too late".into()), running: 0, ..job };
        assert_eq!(late.to_string(), "3/5 completed, 1 failed: too late");
    }
}
