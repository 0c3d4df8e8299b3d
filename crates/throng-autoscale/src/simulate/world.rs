//! What there is around a simulated autoscaler, and what a spec may ask of it.

use super::Scenario;
use crate::proposal::Tolerance;
use crate::quantity::Quantity;
use crate::spec::{Metric, ResourceTarget, Spec};
use serde::Serialize;
use std::collections::BTreeMap;

/// Longest time in a [`World`] and a [`Scenario`], in seconds.
pub const TIME_MOST: u32 = 3_600;
/// Most replicas that a spec may ask for.
pub const REPLICAS_MOST: i32 = 1_000_000;

/// What is simulated around the autoscaler. Times are in seconds, up to [`TIME_MOST`]; CPU is in thousandths of a core.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct World {
    /// Requests per second that take all of a replica's CPU request.
    pub capacity: f64,
    #[serde(rename = "cpuRequestMillicores")]
    pub cpu_request: i64,
    #[serde(rename = "cpuLimitMillicores")]
    pub cpu_limit: i64,
    /// `None`: memory is not simulated, and specs that ask for it are refused.
    #[serde(skip)]
    pub memory: Option<MemoryUse>,
    /// From a replica's creation until it is ready.
    #[serde(rename = "startupSeconds")]
    pub startup: u32,
    /// What it uses meanwhile.
    #[serde(rename = "startupMillicores")]
    pub startup_cpu: i64,
    /// How long a request waits before it is given up.
    #[serde(rename = "patienceSeconds")]
    pub patience: u32,
    /// At least 1.
    #[serde(rename = "metricsResolutionSeconds")]
    pub metrics_resolution: u32,
    #[serde(rename = "metricsDelaySeconds")]
    pub metrics_delay: u32,
    /// What Pods, Object and External metrics measure, by their names.
    pub metrics: BTreeMap<String, Source>,
}

/// The same in every replica, whatever the load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryUse {
    pub request: Quantity,
    pub usage: Quantity,
}

/// What the world can tell a Pods, Object or External metric. A Pods metric has the share of each replica, the others
/// have all of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Requests per second: those served, for a replica; those that come, for all of them.
    Rate,
    /// Requests that wait.
    Waiting,
}

impl Default for World {
    fn default() -> World {
        World {
            capacity: 100.0,
            cpu_request: 500,
            cpu_limit: 500,
            memory: None,
            startup: 5,
            startup_cpu: 0,
            patience: 10,
            metrics_resolution: 15,
            metrics_delay: 5,
            metrics: BTreeMap::new(),
        }
    }
}

impl World {
    /// Core-seconds that one request takes.
    pub(super) fn work_of_one(&self) -> f64 {
        self.cpu_request as f64 / 1000.0 / self.capacity
    }
}

/// Why a spec cannot be simulated in a world.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Unsupported {
    /// As in [`crate::spec::Violation`]; `None` if it is about the demand.
    pub path: Option<String>,
    pub message: String,
    /// What to do next.
    pub hint: String,
}

/// Whether this world has all that a spec asks for.
///
/// # Errors
/// The first thing that it has not.
pub(super) fn check(spec: &Spec, world: &World) -> Result<(), Unsupported> {
    if spec.max_replicas > REPLICAS_MOST {
        let message =
            format!("{} is more than {REPLICAS_MOST}, the most that is simulated", spec.max_replicas);
        return Err(unsupported(
            "spec.maxReplicas".into(),
            message,
            "set a bound that a cluster could reach",
        ));
    }
    let mut container: Option<&str> = None;
    for (index, metric) in spec.metrics.iter().enumerate() {
        let (field, name) = (field(metric), metric.name());
        let path = |rest: &str| format!("spec.metrics[{index}].{field}.{rest}");
        match metric {
            Metric::Resource { .. } | Metric::ContainerResource { .. } => {
                check_resource(name, world, path("name"))?
            }
            Metric::Pods { .. } | Metric::Object { .. } | Metric::External { .. } => {
                check_named(name, world, path("metric.name"))?;
            }
        }
        let named = metric.container();
        if named.is_some() && container.is_some_and(|first| Some(first) != named) {
            let message = "a simulated replica has one container only";
            return Err(unsupported(path("container"), message, "name the same container in every metric"));
        }
        container = container.or(named);
    }
    Ok(())
}

/// The field of a metric that holds it.
fn field(metric: &Metric) -> &'static str {
    match metric {
        Metric::Resource { .. } => "resource",
        Metric::ContainerResource { .. } => "containerResource",
        Metric::Pods { .. } => "pods",
        Metric::Object { .. } => "object",
        Metric::External { .. } => "external",
    }
}

fn check_resource(name: &str, world: &World, path: String) -> Result<(), Unsupported> {
    match name {
        "cpu" => Ok(()),
        "memory" if world.memory.is_some() => Ok(()),
        "memory" => {
            let hint = "say what each replica uses, whatever the load, with --memory-usage 200Mi --memory-request 256Mi; \
                        or leave this metric out";
            Err(unsupported(path, "memory is not simulated unless its use is given", hint))
        }
        other => Err(unsupported(path, format!("{other:?} is not simulated"), "only cpu and memory are")),
    }
}

fn check_named(name: &str, world: &World, path: String) -> Result<(), Unsupported> {
    if world.metrics.contains_key(name) {
        return Ok(());
    }
    let hint = format!(
        "say it with --metric {name}=rate (requests per second) or --metric {name}=waiting (requests that wait)"
    );
    Err(unsupported(path, format!("what {name:?} measures is not known"), hint))
}

fn unsupported(path: String, message: impl Into<String>, hint: impl Into<String>) -> Unsupported {
    Unsupported { path: Some(path), message: message.into(), hint: hint.into() }
}

/// The lowest CPU target as a share of the request.
fn cpu_target(spec: &Spec, world: &World) -> Option<f64> {
    let targets = spec.metrics.iter().filter_map(|metric| match metric {
        Metric::Resource { name, target } | Metric::ContainerResource { name, target, .. }
            if name == "cpu" =>
        {
            Some(match target {
                ResourceTarget::Utilization(percent) => f64::from(*percent) / 100.0,
                ResourceTarget::AverageValue(milli) => *milli as f64 / world.cpu_request as f64,
            })
        }
        _ => None,
    });
    targets.min_by(f64::total_cmp)
}

pub(super) fn own_limit(spec: &Spec, scenario: &Scenario) -> Option<f64> {
    let tolerance = Tolerance::of(spec, &scenario.controller);
    cpu_target(spec, &scenario.world).map(|target| target * (1.0 + tolerance.up))
}

/// A target that replicas at their limit do not exceed is never exceeded.
pub(super) fn out_of_reach(spec: &Spec, scenario: &Scenario) -> Option<String> {
    let world = &scenario.world;
    let tolerance = Tolerance::of(spec, &scenario.controller);
    let target = cpu_target(spec, world)?;
    let most = world.cpu_limit as f64 / world.cpu_request as f64;
    (most <= target * (1.0 + tolerance.up)).then(|| {
        format!(
            "CPU alone never makes it scale up: replicas at their limit use {:.0} % of their request, and more than {:.0} % \
             would be needed; lower the target, or allow more with --cpu-limit",
            most * 100.0,
            target * (1.0 + tolerance.up) * 100.0
        )
    })
}
