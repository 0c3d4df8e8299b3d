//! What a controller sees at one instant, and how it is read from JSON.

use crate::quantity::Quantity;
use crate::spec::{RawSpec, Spec, Violation};
use serde::Deserialize;
use serde::de::{self, Deserializer};
use std::collections::{BTreeMap, HashSet};

/// Nanoseconds of a second: ages are whole nanoseconds inside, so that sums and comparisons are exact.
const NANOS: f64 = 1e9;
/// Longest age and option, in seconds: the controller's own clock counts no further (292 years in nanoseconds).
pub const SECONDS_MOST: f64 = 9_000_000_000.0;

/// One autoscaler, its target, its replicas and its metrics at one instant.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    pub id: String,
    pub spec: Spec,
    pub controller: Controller,
    /// The target's `spec.replicas`.
    pub current_replicas: i32,
    /// The target's `status.replicas`.
    pub status_replicas: i32,
    /// Earlier recommendations, before stabilisation; empty for a controller that has just started.
    pub recommendations: Vec<Recommendation>,
    pub scale_events: ScaleEvents,
    pub pods: Vec<Pod>,
    /// Values of Object metrics by the metric's name.
    pub objects: BTreeMap<String, Quantity>,
    /// Values of External metrics by the metric's name.
    pub external: BTreeMap<String, Vec<Quantity>>,
}

/// Time before the instant of the decision; a negative one lies in the future. Also a length of time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Age {
    nanos: i128,
}

impl Age {
    pub const fn from_seconds(seconds: i64) -> Age {
        Age { nanos: seconds as i128 * 1_000_000_000 }
    }

    /// Seconds without their fraction.
    pub fn whole_seconds(self) -> i32 {
        // From ±SECONDS_MOST, so it is capped rather than wrapped.
        (self.nanos / 1_000_000_000).clamp(i32::MIN.into(), i32::MAX.into()) as i32
    }
}

impl From<std::time::Duration> for Age {
    fn from(length: std::time::Duration) -> Age {
        // 2^64 seconds are far below 2^127 nanoseconds.
        Age { nanos: length.as_nanos() as i128 }
    }
}

impl std::ops::Sub for Age {
    type Output = Age;

    fn sub(self, other: Age) -> Age {
        Age { nanos: self.nanos - other.nanos }
    }
}

impl std::ops::Add for Age {
    type Output = Age;

    fn add(self, other: Age) -> Age {
        Age { nanos: self.nanos + other.nanos }
    }
}

impl<'de> Deserialize<'de> for Age {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Age, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        if seconds.abs() > SECONDS_MOST {
            return Err(de::Error::custom(format!("{seconds} s is more than {SECONDS_MOST} s away")));
        }
        Ok(Age { nanos: (seconds * NANOS).round() as i128 })
    }
}

/// The options of kube-controller-manager that bear on a decision, with its defaults.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Controller {
    pub tolerance: f64,
    #[serde(rename = "cpuInitializationPeriodSeconds")]
    pub cpu_initialization_period: Age,
    #[serde(rename = "initialReadinessDelaySeconds")]
    pub initial_readiness_delay: Age,
    #[serde(rename = "downscaleStabilizationSeconds")]
    pub downscale_stabilization: Age,
    /// The feature gate HPAConfigurableTolerance.
    pub configurable_tolerance: bool,
}

impl Default for Controller {
    fn default() -> Controller {
        Controller {
            tolerance: 0.1,
            cpu_initialization_period: Age::from_seconds(300),
            initial_readiness_delay: Age::from_seconds(30),
            downscale_stabilization: Age::from_seconds(300),
            configurable_tolerance: false,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Recommendation {
    #[serde(rename = "ageSeconds")]
    pub age: Age,
    pub replicas: i32,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScaleEvents {
    #[serde(default)]
    pub up: Vec<ScaleEvent>,
    #[serde(default)]
    pub down: Vec<ScaleEvent>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ScaleEvent {
    #[serde(rename = "ageSeconds")]
    pub age: Age,
    /// Replicas added or removed, never below zero.
    pub change: i32,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum Phase {
    Pending,
    #[default]
    Running,
    Succeeded,
    Failed,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pod {
    pub name: String,
    #[serde(default)]
    pub phase: Phase,
    #[serde(default)]
    pub deleted: bool,
    /// `None`: there is no Ready condition.
    pub ready: Option<bool>,
    /// When that condition changed last; there if and only if `ready` is.
    #[serde(rename = "readyChangedAgeSeconds")]
    pub ready_changed: Option<Age>,
    #[serde(rename = "startedAgeSeconds")]
    pub started: Option<Age>,
    pub containers: Vec<Container>,
    pub metrics: Option<PodMetrics>,
    /// Values of Pods metrics by the metric's name.
    #[serde(default)]
    pub custom: BTreeMap<String, Quantity>,
    /// How many more replicas there are that differ from this one in nothing but their names, and are not listed
    /// themselves: a simulated crowd is decided on without ten thousand equal entries. None in a case that is read.
    #[serde(skip)]
    pub alike: u32,
}

impl Pod {
    /// The replicas that this entry stands for.
    pub fn replicas(&self) -> i64 {
        i64::from(self.alike) + 1
    }
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Container {
    pub name: String,
    #[serde(default)]
    pub requests: BTreeMap<String, Quantity>,
}

/// What the resource metrics API has for a pod.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PodMetrics {
    /// The end of the time that was measured.
    #[serde(rename = "ageSeconds")]
    pub age: Age,
    #[serde(rename = "windowSeconds")]
    pub window: Age,
    /// Usage by container and resource.
    pub containers: BTreeMap<String, BTreeMap<String, Quantity>>,
}

/// Why a case cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum CaseError {
    #[error("line {line}, column {column}: {message}")]
    Json { line: usize, column: usize, message: String },
    #[error("{}", list(.0))]
    Spec(Vec<Violation>),
    #[error("{path}: {problem}")]
    Invalid { path: String, problem: String },
}

fn list(violations: &[Violation]) -> String {
    let texts: Vec<String> = violations.iter().map(Violation::to_string).collect();
    texts.join("; ")
}

impl CaseError {
    /// What to do next.
    pub fn hint(&self) -> &'static str {
        match self {
            CaseError::Json { .. } => "docs/autoscale-decide.md describes a case field by field",
            CaseError::Spec(_) => {
                "the API server of a cluster would refuse this spec too: correct these fields"
            }
            CaseError::Invalid { .. } => "correct this field: docs/autoscale-decide.md says what it may hold",
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawCase {
    id: String,
    spec: RawSpec,
    controller: Option<Controller>,
    current_replicas: i32,
    status_replicas: Option<i32>,
    recommendations: Option<Vec<Recommendation>>,
    scale_events: Option<ScaleEvents>,
    pods: Option<Vec<Pod>>,
    objects: Option<BTreeMap<String, Quantity>>,
    external: Option<BTreeMap<String, Vec<Quantity>>>,
}

impl Case {
    /// Reads one case and nothing after it.
    ///
    /// # Errors
    /// JSON that is none, a field that is unknown, missing or of the wrong kind, a spec that the API server would refuse,
    /// and what cannot be (two pods of one name, a negative count).
    pub fn from_json(text: &[u8]) -> Result<Case, CaseError> {
        let raw: RawCase = serde_json::from_slice(text).map_err(json_error)?;
        let controller = raw.controller.unwrap_or_default();
        let spec = Spec::new(raw.spec, controller.configurable_tolerance).map_err(CaseError::Spec)?;
        let case = Case {
            id: raw.id,
            spec,
            controller,
            current_replicas: raw.current_replicas,
            status_replicas: raw.status_replicas.unwrap_or(raw.current_replicas),
            recommendations: raw.recommendations.unwrap_or_default(),
            scale_events: raw.scale_events.unwrap_or_default(),
            pods: raw.pods.unwrap_or_default(),
            objects: raw.objects.unwrap_or_default(),
            external: raw.external.unwrap_or_default(),
        };
        case.check()?;
        Ok(case)
    }

    fn check(&self) -> Result<(), CaseError> {
        count(self.current_replicas, || "currentReplicas".into())?;
        count(self.status_replicas, || "statusReplicas".into())?;
        for (index, recommendation) in self.recommendations.iter().enumerate() {
            count(recommendation.replicas, || format!("recommendations[{index}].replicas"))?;
        }
        for (side, events) in [("up", &self.scale_events.up), ("down", &self.scale_events.down)] {
            for (index, event) in events.iter().enumerate() {
                count(event.change, || format!("scaleEvents.{side}[{index}].change"))?;
            }
        }
        check_controller(&self.controller)?;
        let mut names = HashSet::with_capacity(self.pods.len());
        for (index, pod) in self.pods.iter().enumerate() {
            if !names.insert(pod.name.as_str()) {
                return Err(invalid(format!("pods[{index}].name"), format!("{:?} is taken", pod.name)));
            }
            check_pod(pod, index)?;
        }
        Ok(())
    }
}

fn check_controller(controller: &Controller) -> Result<(), CaseError> {
    if controller.tolerance < 0.0 {
        return Err(invalid("controller.tolerance".into(), format!("{} is below 0", controller.tolerance)));
    }
    for (field, value) in [
        ("cpuInitializationPeriodSeconds", controller.cpu_initialization_period),
        ("initialReadinessDelaySeconds", controller.initial_readiness_delay),
        ("downscaleStabilizationSeconds", controller.downscale_stabilization),
    ] {
        if value < Age::default() {
            return Err(invalid(format!("controller.{field}"), "it is below 0".into()));
        }
    }
    Ok(())
}

fn check_pod(pod: &Pod, index: usize) -> Result<(), CaseError> {
    if pod.ready.is_some() != pod.ready_changed.is_some() {
        let problem = "it is null if and only if ready is null";
        return Err(invalid(format!("pods[{index}].readyChangedAgeSeconds"), problem.into()));
    }
    let mut names = HashSet::new();
    for (position, container) in pod.containers.iter().enumerate() {
        if !names.insert(container.name.as_str()) {
            let path = format!("pods[{index}].containers[{position}].name");
            return Err(invalid(path, format!("{:?} is taken", container.name)));
        }
    }
    Ok(())
}

fn count(value: i32, path: impl FnOnce() -> String) -> Result<(), CaseError> {
    if value < 0 { Err(invalid(path(), format!("{value} is below 0"))) } else { Ok(()) }
}

fn invalid(path: String, problem: String) -> CaseError {
    CaseError::Invalid { path, problem }
}

fn json_error(error: serde_json::Error) -> CaseError {
    let (line, column) = (error.line(), error.column());
    let text = error.to_string();
    // The place is said once, by us.
    let place = format!(" at line {line} column {column}");
    let message = text.strip_suffix(&place).unwrap_or(&text).to_owned();
    CaseError::Json { line, column, message }
}
