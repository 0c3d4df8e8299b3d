//! What a Compose file asks of the autoscaler of one service, under `x-throng`, and how that autoscaler is doing.

use crate::app::{HealthCheck, Resources};
use crate::status::Event;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// `x-throng.autoscale` and `x-throng.autoscaler` of one service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Autoscale {
    /// An `autoscaling/v2` HorizontalPodAutoscaler spec as JSON. Whoever reads a file has checked it.
    pub spec: serde_json::Value,
    #[serde(default)]
    pub controller: Controller,
    /// Where the values of Pods, Object and External metrics come from, by the metric's name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sources: BTreeMap<String, MetricSource>,
}

/// The options of kube-controller-manager that bear on an autoscaler, and one of metrics-server, with their defaults.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Controller {
    pub sync_period: Duration,
    /// Share of the target by which a metric may be off before anything is done.
    pub tolerance: f64,
    pub cpu_initialization_period: Duration,
    pub initial_readiness_delay: Duration,
    pub downscale_stabilization: Duration,
    /// Whether `behavior.scaleUp.tolerance` and its twin count: the feature gate HPAConfigurableTolerance.
    pub configurable_tolerance: bool,
    /// The time that usage of CPU is averaged over. `None` means the sync period, and at most [`METRIC_RESOLUTION`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric_resolution: Option<Duration>,
}

/// How often metrics-server looks at a node by default.
pub const METRIC_RESOLUTION: Duration = Duration::from_secs(15);

/// Figures of a service's address that Object metrics can be had of without any endpoint: requests and connections that
/// are under way or held, and those that arrived in a second.
pub const OWN_METRICS: [&str; 2] = ["requests_in_flight", "requests_per_second"];

/// Labels by which services say where their replicas tell their figures, as Prometheus' users write them.
pub const PORT_LABEL: &str = "prometheus.io/port";
pub const PATH_LABEL: &str = "prometheus.io/path";

impl Default for Controller {
    fn default() -> Controller {
        Controller {
            sync_period: Duration::from_secs(15),
            tolerance: 0.1,
            cpu_initialization_period: Duration::from_secs(300),
            initial_readiness_delay: Duration::from_secs(30),
            downscale_stabilization: Duration::from_secs(300),
            configurable_tolerance: true,
            metric_resolution: None,
        }
    }
}

impl Controller {
    /// The time that usage is averaged over.
    pub fn resolution(&self) -> Duration {
        self.metric_resolution.unwrap_or(self.sync_period.min(METRIC_RESOLUTION))
    }
}

/// An endpoint in Prometheus' text format, and the series of it that is meant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricSource {
    /// Of Object and External metrics: `http://HOST[:PORT][/PATH]`, or the same with `https`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Certificates (PEM, an absolute path) that an `https` endpoint is trusted by instead of the host's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// Of Pods metrics: where each replica answers; `None` means what its labels say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Name of the series; `None` means the metric's own name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub series: Option<String>,
    /// `None` means what the endpoint says of the series.
    #[serde(default, rename = "as", skip_serializing_if = "Option::is_none")]
    pub reading: Option<Reading>,
}

/// What a series' number means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reading {
    /// As it is.
    Gauge,
    /// It only grows; its growth a second is what counts.
    Rate,
}

/// How an autoscaler is doing: what `kubectl describe hpa` shows of one.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AutoscalerStatus {
    /// As the Compose file has it.
    pub spec: serde_json::Value,
    pub controller: Controller,
    pub min_replicas: i32,
    pub max_replicas: i32,
    /// Replicas that there are.
    pub current_replicas: u32,
    /// Replicas that there are to be.
    pub desired_replicas: u32,
    /// When it last changed the number of replicas.
    pub last_scale: Option<SystemTime>,
    /// When it last looked; `None` until it has.
    pub last_look: Option<SystemTime>,
    /// In the order of the spec.
    pub metrics: Vec<MetricStatus>,
    pub conditions: Vec<Condition>,
    /// The last decision in words.
    pub explanation: String,
}

/// One metric: what it is now, and what it is to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricStatus {
    /// `Resource`, `ContainerResource`, `Pods`, `Object` or `External`.
    #[serde(rename = "type")]
    pub kind: String,
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// `170% (340m)`, `12500m`; `None` if it is not known.
    pub current: Option<String>,
    /// `60%`, `10`.
    pub target: String,
    /// Of what: `per replica`, `in all`.
    pub scope: String,
    /// Replicas that it asks for.
    pub proposal: Option<i32>,
    /// Why it could not be had.
    pub error: Option<String>,
}

/// A condition with Kubernetes' own type and reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    #[serde(rename = "type")]
    pub kind: String,
    /// `True` or `False`.
    pub status: String,
    pub reason: String,
    pub message: String,
    /// When `status` became what it is.
    pub since: SystemTime,
}

/// What a replica should request, as Kubernetes' vertical autoscaler says it: thousandths of a core, and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Recommendation {
    /// What it requests is too little below this …
    pub lower: (u64, u64),
    pub target: (u64, u64),
    /// … and too much above this.
    pub upper: (u64, u64),
    /// Days that are known; below one the bounds are far apart.
    pub confidence: f64,
}

/// `x-throng.vertical` of one service: what becomes of its recommendation. Names and meanings are those of a
/// VerticalPodAutoscaler's spec (`autoscaling.k8s.io/v1`), whose policy of the one container this is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Vertical {
    pub update_mode: UpdateMode,
    pub min_allowed: Allowed,
    pub max_allowed: Allowed,
    pub controlled_resources: Controlled,
    pub controlled_values: ControlledValues,
    /// With fewer replicas none is stopped to be given something else.
    pub min_replicas: u32,
}

impl Default for Vertical {
    fn default() -> Vertical {
        Vertical {
            update_mode: UpdateMode::Recreate,
            min_allowed: Allowed::default(),
            max_allowed: Allowed::default(),
            controlled_resources: Controlled::default(),
            controlled_values: ControlledValues::default(),
            min_replicas: 2,
        }
    }
}

/// Which replicas get what is recommended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpdateMode {
    /// None: it is only shown.
    Off,
    /// Those that are made; one that is started again keeps what it was made with.
    Initial,
    /// Those that are made or started again, for whatever reason, and running ones are replaced when what they request
    /// is far from it.
    Recreate,
}

impl UpdateMode {
    pub fn name(self) -> &'static str {
        match self {
            UpdateMode::Off => "Off",
            UpdateMode::Initial => "Initial",
            UpdateMode::Recreate => "Recreate",
        }
    }
}

/// A bound of what is recommended: thousandths of a core, and bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowed {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
}

/// What is changed; the other stays as the file has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Controlled {
    pub cpu: bool,
    pub memory: bool,
}

impl Default for Controlled {
    fn default() -> Controlled {
        Controlled { cpu: true, memory: true }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlledValues {
    /// Limits grow and shrink in proportion.
    #[default]
    RequestsAndLimits,
    /// Limits stay, and are the most that is requested.
    RequestsOnly,
}

/// What becomes of a service's recommendation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct VerticalStatus {
    pub policy: Vertical,
    /// What a replica that starts now gets; `None` where that is what the file says.
    pub next: Option<Resources>,
    /// Replicas that have other amounts than the file says.
    pub given: u32,
}

/// A service in detail.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Description {
    pub service: String,
    pub autoscaler: Option<AutoscalerStatus>,
    /// What happened to the service and its replicas last, oldest first.
    pub events: Vec<Event>,
    /// Images may say it, too.
    pub health_check: Option<HealthCheck>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub liveness: Option<HealthCheck>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub startup: Option<HealthCheck>,
    /// Cores and bytes that each replica is expected to need.
    pub requests: (Option<f64>, Option<u64>),
    /// What it should request by what has been seen; `None` before anything has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recommendation: Option<Recommendation>,
    /// What becomes of that; `None` where the file says nothing about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vertical: Option<VerticalStatus>,
}
