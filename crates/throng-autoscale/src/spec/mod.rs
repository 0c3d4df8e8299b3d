//! What an autoscaler is asked to do: an `autoscaling/v2` HorizontalPodAutoscaler spec after the API server's defaults
//! and checks.

mod check;
mod raw;

pub use raw::{Identifier, LabelSelector, RawMetric, RawSpec};

use crate::quantity::Quantity;

/// Target of the CPU metric that stands in where a spec names none, in percent of the requests.
pub const DEFAULT_CPU_PERCENT: i32 = 80;
/// Longest stabilisation window that a spec may ask for, in seconds.
pub const WINDOW_MOST: i32 = 3600;
/// Longest period of a policy, in seconds.
pub const PERIOD_MOST: i32 = 1800;

/// A spec that the API server would take, every default filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    pub min_replicas: i32,
    pub max_replicas: i32,
    /// Never empty.
    pub metrics: Vec<Metric>,
    /// `None` means the rules from before behavior existed, which are not the same as its defaults.
    pub behavior: Option<Behavior>,
}

/// Where a number to scale by comes from. Targets are above zero; those that are no percentage are in thousandths.
#[derive(Debug, Clone, PartialEq)]
pub enum Metric {
    Resource { name: String, target: ResourceTarget },
    ContainerResource { name: String, container: String, target: ResourceTarget },
    Pods { name: String, average: i64 },
    Object { name: String, target: TotalTarget },
    External { name: String, target: TotalTarget },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ResourceTarget {
    /// Percent of what the containers request.
    Utilization(i32),
    /// Thousandths per replica.
    AverageValue(i64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TotalTarget {
    Value(i64),
    /// Thousandths per replica.
    AverageValue(i64),
    /// An Object target whose type names a field that is not there. The API server takes it, the controller does not.
    Mismatched,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Behavior {
    pub scale_up: Rules,
    pub scale_down: Rules,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// Seconds; `None` only for scaling down, where the controller's own option stands in.
    pub window_seconds: Option<i32>,
    pub select: Select,
    /// Never empty.
    pub policies: Vec<Policy>,
    pub tolerance: Option<Quantity>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Select {
    Max,
    Min,
    Disabled,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    pub kind: PolicyKind,
    /// Replicas or percent, above zero.
    pub value: i32,
    pub period_seconds: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyKind {
    Pods,
    Percent,
}

/// One thing that the API server would not take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct Violation {
    /// As Kubernetes writes it: `spec.metrics[0].resource.target.averageUtilization`.
    pub path: String,
    pub problem: String,
}

impl Spec {
    /// Fills in the API server's defaults and carries out its checks.
    ///
    /// `configurable_tolerance`: whether the feature gate HPAConfigurableTolerance is on. Off, tolerances are dropped
    /// before the checks, as the API server does.
    ///
    /// # Errors
    /// Everything that the API server would refuse, in the order of its own checks.
    pub fn new(raw: RawSpec, configurable_tolerance: bool) -> Result<Spec, Vec<Violation>> {
        check::check(raw, configurable_tolerance)
    }
}

impl Metric {
    /// The type as a spec names it.
    pub fn kind(&self) -> &'static str {
        match self {
            Metric::Resource { .. } => "Resource",
            Metric::ContainerResource { .. } => "ContainerResource",
            Metric::Pods { .. } => "Pods",
            Metric::Object { .. } => "Object",
            Metric::External { .. } => "External",
        }
    }

    pub fn name(&self) -> &str {
        match self {
            Metric::Resource { name, .. }
            | Metric::ContainerResource { name, .. }
            | Metric::Pods { name, .. }
            | Metric::Object { name, .. }
            | Metric::External { name, .. } => name,
        }
    }

    /// What a file calls the part of a metric that names it: `metrics[0].pods.metric`.
    pub fn field(&self) -> &'static str {
        match self {
            Metric::Resource { .. } => "resource",
            Metric::ContainerResource { .. } => "containerResource",
            Metric::Pods { .. } => "pods",
            Metric::Object { .. } => "object",
            Metric::External { .. } => "external",
        }
    }

    pub fn container(&self) -> Option<&str> {
        match self {
            Metric::ContainerResource { container, .. } => Some(container),
            _ => None,
        }
    }

    /// Whether its values are bytes of memory.
    pub fn is_memory(&self) -> bool {
        matches!(self, Metric::Resource { name, .. } | Metric::ContainerResource { name, .. } if name == "memory")
    }

    /// The reason of the condition ScalingActive when this metric cannot be had.
    pub fn failure_reason(&self) -> &'static str {
        match self {
            Metric::Resource { .. } => "FailedGetResourceMetric",
            Metric::ContainerResource { .. } => "FailedGetContainerResourceMetric",
            Metric::Pods { .. } => "FailedGetPodsMetric",
            Metric::Object { .. } => "FailedGetObjectMetric",
            Metric::External { .. } => "FailedGetExternalMetric",
        }
    }
}
