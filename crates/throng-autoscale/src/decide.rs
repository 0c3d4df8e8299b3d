//! One look at a target, from what was seen to what is to be.

use crate::answer::{Answer, Condition, MetricAnswer};
use crate::case::{Age, Case, Recommendation};
use crate::explain::{self, Steps};
use crate::proposal::{self, Proposal, Tolerance};
use crate::quantity::Quantity;
use crate::spec::Metric;
use crate::{policies, stabilize};

const ABLE: &str = "AbleToScale";
const ACTIVE: &str = "ScalingActive";
const LIMITED: &str = "ScalingLimited";
const SUCCEEDED_GET_SCALE: &str = "SucceededGetScale";

/// Decides as Kubernetes 1.34 does. The same case always gets the same answer.
pub fn decide(case: &Case) -> Answer {
    let (current, spec) = (case.current_replicas, &case.spec);
    if current == 0 && spec.min_replicas != 0 {
        let disabled = Condition::new(ACTIVE, false, "ScalingDisabled");
        let text = "the target has no replicas and minReplicas is above 0, which turns autoscaling off";
        return unasked(case, 0, Some(disabled), text.into());
    }
    if current > spec.max_replicas {
        let text = format!("{current} is above maxReplicas, so metrics are not asked");
        return unasked(case, spec.max_replicas, None, text);
    }
    if current < spec.min_replicas {
        let text = format!("{current} is below minReplicas, so metrics are not asked");
        return unasked(case, spec.min_replicas, None, text);
    }
    by_metrics(case)
}

/// An answer for which no metric was looked at.
fn unasked(case: &Case, desired: i32, active: Option<Condition>, explanation: String) -> Answer {
    let mut conditions = vec![Condition::new(ABLE, true, SUCCEEDED_GET_SCALE)];
    conditions.extend(active);
    Answer {
        id: case.id.clone(),
        desired_replicas: desired,
        unstabilized: None,
        metrics: Vec::new(),
        conditions,
        explanation,
    }
}

fn by_metrics(case: &Case) -> Answer {
    let tolerance = Tolerance::of(&case.spec, &case.controller);
    let metrics = &case.spec.metrics;
    let results: Vec<Result<Proposal, String>> =
        metrics.iter().map(|metric| proposal::propose(metric, case, tolerance)).collect();
    let answers =
        metrics.iter().zip(&results).map(|(metric, result)| metric_answer(metric, result)).collect();
    let largest = largest(&results);
    let first_failed = metrics.iter().zip(&results).find(|(_, result)| result.is_err());
    let none_left = results.iter().all(Result::is_err);
    let proposals = explain::proposals(metrics, &results);
    if let Some((failed, _)) = first_failed.filter(|_| none_left || largest < case.current_replicas) {
        let active = Condition::new(ACTIVE, false, failed.failure_reason());
        let text = explain::kept(&proposals, case.current_replicas, none_left);
        return Answer { metrics: answers, ..unasked(case, case.current_replicas, Some(active), text) };
    }
    // Below zero only where a metric's arithmetic has overflowed.
    let desired = largest.max(0);
    let (stabilized, stabilized_reason, limited) = normalize(case, desired);
    let able = if stabilized == desired { "ReadyForNewScale" } else { stabilized_reason };
    let conditions = vec![
        Condition::new(ABLE, true, able),
        Condition::new(ACTIVE, true, "ValidMetricFound"),
        Condition::new(LIMITED, limited.replicas != stabilized, limited.reason),
    ];
    let steps = Steps { current: case.current_replicas, desired, stabilized, limited };
    Answer {
        id: case.id.clone(),
        desired_replicas: limited.replicas,
        unstabilized: Some(desired),
        metrics: answers,
        conditions,
        explanation: explain::steps(&proposals, &steps),
    }
}

/// The largest proposal. The first one counts whatever it is, so that an overflow below zero does not become zero here.
fn largest(results: &[Result<Proposal, String>]) -> i32 {
    let mut largest = 0;
    for proposal in results.iter().flatten() {
        if largest == 0 || proposal.replicas > largest {
            largest = proposal.replicas;
        }
    }
    largest
}

/// Stabilises and limits: the stabilised count, the reason if that is another one, and the limited count.
fn normalize(case: &Case, desired: i32) -> (i32, &'static str, policies::Limited) {
    let (current, window) = (case.current_replicas, case.controller.downscale_stabilization);
    // A fresh controller first notes what it finds.
    let found = [Recommendation { age: Age::default(), replicas: current }];
    let earlier = if case.recommendations.is_empty() { &found[..] } else { &case.recommendations };
    match &case.spec.behavior {
        None => {
            let stabilized = stabilize::without_behavior(desired, earlier, window);
            let limited = policies::without_behavior(stabilized, current, &case.spec);
            (stabilized, "ScaleDownStabilized", limited)
        }
        Some(behavior) => {
            let stabilized = stabilize::with_behavior(desired, current, earlier, behavior, window);
            let limited =
                policies::with_behavior(stabilized, current, &case.spec, behavior, &case.scale_events);
            let reason = if desired >= current { "ScaleUpStabilized" } else { "ScaleDownStabilized" };
            (stabilized, reason, limited)
        }
    }
}

fn metric_answer(metric: &Metric, result: &Result<Proposal, String>) -> MetricAnswer {
    let proposal = result.as_ref().ok();
    let average = proposal.and_then(|proposal| proposal.average).map(Quantity::from_milli);
    let memory = metric.is_memory();
    MetricAnswer {
        kind: metric.kind(),
        name: metric.name().to_owned(),
        container: metric.container().map(str::to_owned),
        proposal: proposal.map(|proposal| proposal.replicas),
        utilization: proposal.and_then(|proposal| proposal.utilization),
        average_value: average.map(|average| if memory { average.binary() } else { average.decimal() }),
        error: result.as_ref().err().cloned(),
    }
}
