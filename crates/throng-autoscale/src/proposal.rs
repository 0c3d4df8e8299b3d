//! How many replicas one metric asks for.

use crate::case::{Case, Controller, Pod};
use crate::number::{ceil_i32, ceil_i64};
use crate::pods::{self, Groups};
use crate::spec::{Metric, ResourceTarget, Spec, TotalTarget};

/// What one metric asks for, and what it saw.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Proposal {
    pub replicas: i32,
    /// Percent of the requests.
    pub utilization: Option<i32>,
    /// Thousandths per replica.
    pub average: Option<i64>,
}

/// How far the ratio of a metric to its target may be from 1 without anything being done.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    pub down: f64,
    pub up: f64,
}

impl Tolerance {
    /// The controller's own, or for each direction that of the spec where the feature is on.
    pub fn of(spec: &Spec, controller: &Controller) -> Tolerance {
        let own = Tolerance { down: controller.tolerance, up: controller.tolerance };
        let Some(behavior) = spec.behavior.as_ref().filter(|_| controller.configurable_tolerance) else {
            return own;
        };
        let asked =
            |tolerance: Option<crate::Quantity>, own: f64| tolerance.map_or(own, |asked| asked.as_f64());
        Tolerance {
            down: asked(behavior.scale_down.tolerance, own.down),
            up: asked(behavior.scale_up.tolerance, own.up),
        }
    }

    /// Whether a ratio is close enough to 1. Both ends count as close; a ratio that is no number does not.
    pub fn holds(self, ratio: f64) -> bool {
        1.0 - self.down <= ratio && ratio <= 1.0 + self.up
    }
}

/// What `metric` asks for.
///
/// # Errors
/// Why the metric cannot be had, in words.
pub fn propose(metric: &Metric, case: &Case, tolerance: Tolerance) -> Result<Proposal, String> {
    match metric {
        Metric::Resource { name, target } => of_resource(name, None, *target, case, tolerance),
        Metric::ContainerResource { name, container, target } => {
            of_resource(name, Some(container), *target, case, tolerance)
        }
        Metric::Pods { name, average } => {
            let samples = pods::custom_samples(&case.pods, name)?;
            let groups = pods::group(&case.pods, &samples, false, &case.controller);
            of_averages(&groups, *average, case, tolerance)
        }
        Metric::Object { name, target } => {
            let value =
                case.objects.get(name).ok_or_else(|| format!("the metrics API has no {name}"))?.milli();
            match *target {
                TotalTarget::Value(target) => of_value(value, target, case, tolerance),
                TotalTarget::AverageValue(target) => Ok(of_total(value, target, case, tolerance)),
                TotalTarget::Mismatched => Err("the target's type names a field that is not set".into()),
            }
        }
        Metric::External { name, target } => {
            let values = case.external.get(name).filter(|values| !values.is_empty());
            let values = values.ok_or_else(|| format!("the external metrics API has no {name}"))?;
            let values = values.iter().map(|value| value.milli());
            match *target {
                TotalTarget::Value(target) => {
                    of_value(values.fold(0, i64::wrapping_add), target, case, tolerance)
                }
                TotalTarget::AverageValue(target) => Ok(of_external_total(values, target, case, tolerance)),
                TotalTarget::Mismatched => Err("the target's type names a field that is not set".into()),
            }
        }
    }
}

fn of_resource(
    name: &str,
    container: Option<&str>,
    target: ResourceTarget,
    case: &Case,
    tolerance: Tolerance,
) -> Result<Proposal, String> {
    let samples = pods::resource_samples(&case.pods, name, container)?;
    let groups = pods::group(&case.pods, &samples, name == "cpu", &case.controller);
    match target {
        ResourceTarget::AverageValue(target) => of_averages(&groups, target, case, tolerance),
        ResourceTarget::Utilization(percent) => {
            if groups.counted.is_empty() {
                return Err(NO_COUNTED.into());
            }
            let requests = pods::requests(&case.pods, name, container)?;
            of_utilization(&groups, &requests, percent, case, tolerance)
        }
    }
}

const NO_COUNTED: &str = "no ready pod has a value";

/// Usage of counted pods in relation to their requests.
struct Usage {
    ratio: f64,
    percent: i32,
    /// Thousandths, without what is finer.
    average: i64,
}

/// Sums wrap and percents are cut to 32 bits, as the controller's do: 10,000 pods of 64Gi are enough for that.
fn usage(pods: &[Pod], counted: &[(usize, i64)], requests: &[i64], target: i32) -> Result<Usage, String> {
    let used = pods::sum(pods, counted, |(_, value)| *value);
    let requested = pods::sum(pods, counted, |(index, _)| requests[*index]);
    if requested == 0 {
        return Err("the pods that count request nothing".into());
    }
    let percent = used.wrapping_mul(100).wrapping_div(requested) as i32;
    let average = used.wrapping_div(pods::count(pods, counted));
    Ok(Usage { ratio: f64::from(percent) / f64::from(target), percent, average })
}

fn of_utilization(
    groups: &Groups,
    requests: &[i64],
    target: i32,
    case: &Case,
    tolerance: Tolerance,
) -> Result<Proposal, String> {
    let pods = &case.pods;
    let seen = usage(pods, &groups.counted, requests, target)?;
    // A missing pod is assumed to use all of its request when scaling down, or more if the target is above that.
    let full = |index: usize| requests[index].wrapping_mul(i64::from(target.max(100))).wrapping_div(100);
    let again = |counted: &[(usize, i64)]| Ok(usage(pods, counted, requests, target)?.ratio);
    let replicas = cautious(seen.ratio, groups, full, again, case, tolerance)?;
    Ok(Proposal { replicas, utilization: Some(seen.percent), average: Some(seen.average) })
}

/// Average values per replica, of a resource or a Pods metric.
fn of_averages(groups: &Groups, target: i64, case: &Case, tolerance: Tolerance) -> Result<Proposal, String> {
    if groups.counted.is_empty() {
        return Err(NO_COUNTED.into());
    }
    let average = |counted: &[(usize, i64)]| {
        let sum = pods::sum(&case.pods, counted, |(_, value)| *value);
        sum.wrapping_div(pods::count(&case.pods, counted))
    };
    let ratio = |counted: &[(usize, i64)]| average(counted) as f64 / target as f64;
    let seen = ratio(&groups.counted);
    let again = |counted: &[(usize, i64)]| Ok(ratio(counted));
    let replicas = cautious(seen, groups, |_| target, again, case, tolerance)?;
    Ok(Proposal { replicas, utilization: None, average: Some(average(&groups.counted)) })
}

/// The count for a ratio, more carefully where pods are unready or missing: with what is assumed of them the ratio is
/// taken again, and nothing is done if it is close to 1 then, if it has changed sides, or if the count would move
/// against it.
fn cautious(
    ratio: f64,
    groups: &Groups,
    full: impl Fn(usize) -> i64,
    again: impl FnOnce(&[(usize, i64)]) -> Result<f64, String>,
    case: &Case,
    tolerance: Tolerance,
) -> Result<i32, String> {
    let current = case.current_replicas;
    let multiplied = |ratio: f64, counted| ceil_i32(ratio * pods::count(&case.pods, counted) as f64);
    let up_with_unready = ratio > 1.0 && !groups.unready.is_empty();
    if !up_with_unready && groups.missing.is_empty() {
        let replicas = multiplied(ratio, &groups.counted);
        return Ok(if tolerance.holds(ratio) { current } else { replicas });
    }
    let mut counted = groups.counted.clone();
    if ratio < 1.0 {
        counted.extend(groups.missing.iter().map(|&index| (index, full(index))));
    } else if ratio > 1.0 {
        counted.extend(groups.missing.iter().map(|&index| (index, 0)));
    }
    if up_with_unready {
        counted.extend(groups.unready.iter().map(|&index| (index, 0)));
    }
    let new = again(&counted)?;
    let turned = (ratio < 1.0 && new > 1.0) || (ratio > 1.0 && new < 1.0);
    if tolerance.holds(new) || turned {
        return Ok(current);
    }
    let replicas = multiplied(new, &counted);
    let against = (new < 1.0 && replicas > current) || (new > 1.0 && replicas < current);
    Ok(if against { current } else { replicas })
}

/// A value that all replicas bring down together, in relation to its target.
fn of_value(value: i64, target: i64, case: &Case, tolerance: Tolerance) -> Result<Proposal, String> {
    let ratio = value as f64 / target as f64;
    let replicas = if case.current_replicas == 0 {
        // From zero there is nothing to multiply with.
        ceil_i32(ratio)
    } else if tolerance.holds(ratio) {
        case.current_replicas
    } else if case.pods.is_empty() {
        return Err("the target has no pods".into());
    } else {
        ceil_i32(ratio * pods::ready_count(&case.pods) as f64)
    };
    Ok(Proposal { replicas, ..Proposal::default() })
}

/// A value that is divided among the replicas that the target reports.
fn of_total(value: i64, target: i64, case: &Case, tolerance: Tolerance) -> Proposal {
    total(value, target, case, tolerance, ceil_i32(value as f64 / target as f64))
}

/// As [`of_total`], for the sum of several values. Alone among all metrics, this one guards against overflow in 1.34:
/// a sum below zero counts as one that has overflowed, and a count that does not fit is the largest one.
fn of_external_total(
    values: impl Iterator<Item = i64>,
    target: i64,
    case: &Case,
    tolerance: Tolerance,
) -> Proposal {
    let mut sum = 0i64;
    for value in values {
        sum = sum.wrapping_add(value);
        if sum < 0 {
            sum = i64::MAX;
            break;
        }
    }
    let replicas = (sum as f64 / target as f64).ceil();
    let replicas = if replicas > f64::from(i32::MAX) { i32::MAX } else { ceil_i32(replicas) };
    let mut proposal = total(sum, target, case, tolerance, replicas);
    if sum as f64 >= i64::MAX as f64 {
        proposal.average = proposal.average.map(|_| i64::MAX);
    }
    proposal
}

fn total(value: i64, target: i64, case: &Case, tolerance: Tolerance, replicas: i32) -> Proposal {
    let status = f64::from(case.status_replicas);
    // Without replicas this is infinite or no number, and neither is close to 1.
    let close = tolerance.holds(value as f64 / (target as f64 * status));
    Proposal {
        replicas: if close { case.status_replicas } else { replicas },
        utilization: None,
        average: (case.status_replicas != 0).then(|| ceil_i64(value as f64 / status)),
    }
}
