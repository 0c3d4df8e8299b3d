//! How the replicas of a service are replaced when its definition changes, and at what pace they start again.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Compose's `deploy.update_config` and `deploy.rollback_config`. The defaults are those of Docker's Swarm.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct UpdatePolicy {
    /// Replicas that are replaced at a time; 0 means all of them.
    pub parallelism: u32,
    /// From when a new replica is ready until its place in `parallelism` is free for the next one. It runs at the same
    /// time as `monitor`.
    pub delay: Duration,
    pub order: UpdateOrder,
    /// How long a new replica must stay ready to count as replaced; if it fails before, the update has had a failure.
    pub monitor: Duration,
    /// Failures among the replicas to be replaced, 0 to 1, beyond which `failure_action` is taken.
    pub max_failure_ratio: f64,
    pub failure_action: FailureAction,
}

impl Default for UpdatePolicy {
    fn default() -> Self {
        UpdatePolicy {
            parallelism: 1,
            delay: Duration::ZERO,
            order: UpdateOrder::StopFirst,
            monitor: Duration::from_secs(5),
            max_failure_ratio: 0.0,
            failure_action: FailureAction::Pause,
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpdateOrder {
    /// An old replica leaves before its successor starts.
    #[default]
    StopFirst,
    /// Others stand in for a replica before it leaves.
    StartFirst,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FailureAction {
    #[default]
    Pause,
    Continue,
    /// Only of an update, not of a rollback.
    Rollback,
}

/// How far a service is on its way to another definition, in Swarm's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpdateState {
    Updating,
    /// Too many new replicas have failed; the rest stays as it was until the app is brought up again.
    Paused,
    /// Too many new replicas have failed; all become again what they were.
    RollingBack,
    RollbackPaused,
    /// The replicas are what they were; kept to be told until the next definition.
    RolledBack,
}

/// How long replicas that have ended wait for their next start, and how often it is tried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RestartPace {
    /// `deploy.restart_policy.delay`: the pause before every start. `None` or zero: [`BackOff`] alone decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay: Option<Duration>,
    /// Starts that may fail one after the other, whatever the policy; `None` means any number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// A start after which the replica ran so long has not failed. `None`: [`BackOff::reset`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<Duration>,
    /// `x-throng.restart`; `None` means the defaults, or a constant pause if there is a `delay`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub back_off: Option<BackOff>,
}

impl RestartPace {
    pub fn is_default(&self) -> bool {
        *self == RestartPace::default()
    }
}

/// Pauses between starts of a replica that ends again and again. The first start after a clean run waits for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BackOff {
    /// Before the second start.
    pub initial: Duration,
    /// Each pause is so many times the one before; 1 or more.
    pub factor: f64,
    pub max: Duration,
    /// A replica that ran so long has started well: it is counted afresh.
    pub reset: Duration,
}

impl Default for BackOff {
    /// Kubernetes' crash loop: 10 s, doubling to 5 min, forgotten after 10 min.
    fn default() -> Self {
        BackOff {
            initial: Duration::from_secs(10),
            factor: 2.0,
            max: Duration::from_secs(300),
            reset: Duration::from_secs(600),
        }
    }
}
