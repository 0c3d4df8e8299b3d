//! A decision in words.

use crate::policies::Limited;
use crate::proposal::Proposal;
use crate::quantity::Quantity;
use crate::spec::{Metric, ResourceTarget, TotalTarget};

/// The counts on the way to a decision.
pub struct Steps {
    pub current: i32,
    pub desired: i32,
    pub stabilized: i32,
    pub limited: Limited,
}

/// What each metric says.
pub fn proposals(metrics: &[Metric], results: &[Result<Proposal, String>]) -> String {
    let texts: Vec<String> =
        metrics.iter().zip(results).map(|(metric, result)| proposal(metric, result)).collect();
    texts.join("; ")
}

fn proposal(metric: &Metric, result: &Result<Proposal, String>) -> String {
    let name = match metric.container() {
        Some(container) => format!("{} of container {container}", metric.name()),
        None => metric.name().to_owned(),
    };
    let seen = match result {
        Err(error) => return format!("{name} cannot be had: {error}"),
        Ok(seen) => seen,
    };
    let print = |milli: i64| {
        let quantity = Quantity::from_milli(milli);
        if metric.is_memory() { quantity.binary() } else { quantity.decimal() }
    };
    let average = |target: i64| match seen.average {
        Some(average) => {
            format!("is at {} per replica against a target of {}", print(average), print(target))
        }
        None => format!("has a target of {} per replica", print(target)),
    };
    let relation = match metric {
        Metric::Resource { target: ResourceTarget::Utilization(target), .. }
        | Metric::ContainerResource { target: ResourceTarget::Utilization(target), .. } => {
            let percent = seen.utilization.unwrap_or_default();
            format!("is at {percent} % of its request against a target of {target} %")
        }
        Metric::Resource { target: ResourceTarget::AverageValue(target), .. }
        | Metric::ContainerResource { target: ResourceTarget::AverageValue(target), .. }
        | Metric::Pods { average: target, .. } => average(*target),
        Metric::Object { target, .. } | Metric::External { target, .. } => match target {
            TotalTarget::AverageValue(target) => average(*target),
            TotalTarget::Value(target) => format!("has a target of {}", print(*target)),
            TotalTarget::Mismatched => "has no usable target".into(),
        },
    };
    format!("{name} {relation}, which asks for {}", seen.replicas)
}

/// Why a count stays although metrics were looked at.
pub fn kept(proposals: &str, current: i32, none_left: bool) -> String {
    let why =
        if none_left { "no metric is left to decide by" } else { "the others would scale down without it" };
    format!("{proposals}; {why}, so it stays at {current}")
}

/// From the proposals to the count.
pub fn steps(proposals: &str, steps: &Steps) -> String {
    let Steps { current, desired, stabilized, limited } = *steps;
    let mut text = proposals.to_owned();
    if stabilized != desired {
        text += &format!("; earlier recommendations hold {desired} back to {stabilized}");
    }
    if limited.replicas != stabilized {
        let limit = match limited.reason {
            "ScaleUpLimit" => "the limit on scaling up",
            "ScaleDownLimit" => "the limit on scaling down",
            "TooManyReplicas" => "maxReplicas",
            _ => "minReplicas",
        };
        text += &format!("; {limit} makes {stabilized} {}", limited.replicas);
    }
    let replicas = limited.replicas;
    text += &match replicas.cmp(&current) {
        std::cmp::Ordering::Equal => format!("; it stays at {current}"),
        std::cmp::Ordering::Greater => format!("; up from {current} to {replicas}"),
        std::cmp::Ordering::Less => format!("; down from {current} to {replicas}"),
    };
    text
}
