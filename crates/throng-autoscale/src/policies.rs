//! How fast a count may move, and how far.

use crate::case::{Age, ScaleEvent, ScaleEvents};
use crate::number::{ceil_i32, truncate_i32};
use crate::spec::{Behavior, Policy, PolicyKind, Rules, Select, Spec};

/// Without behavior, a count at most doubles at once …
const FACTOR: f64 = 2.0;
/// … or grows to this.
const FLOOR: f64 = 4.0;

/// A count, and the reason of the condition ScalingLimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limited {
    pub replicas: i32,
    pub reason: &'static str,
}

const WITHIN_RANGE: &str = "DesiredWithinRange";

/// The bounds and the policies of a spec with behavior.
pub fn with_behavior(
    desired: i32,
    current: i32,
    spec: &Spec,
    behavior: &Behavior,
    events: &ScaleEvents,
) -> Limited {
    if desired > current {
        // A limit below the current count means: no further until the period is over.
        let limit = scale_up_limit(current, events, &behavior.scale_up).max(current);
        let (most, reason) = if spec.max_replicas > limit {
            (limit, "ScaleUpLimit")
        } else {
            (spec.max_replicas, "TooManyReplicas")
        };
        if desired > most {
            return Limited { replicas: most, reason };
        }
    } else if desired < current {
        let limit = scale_down_limit(current, events, &behavior.scale_down).min(current);
        let (least, reason) = if spec.min_replicas < limit {
            (limit, "ScaleDownLimit")
        } else {
            (spec.min_replicas, "TooFewReplicas")
        };
        if desired < least {
            return Limited { replicas: least, reason };
        }
    }
    Limited { replicas: desired, reason: WITHIN_RANGE }
}

/// The bounds of a spec without behavior.
pub fn without_behavior(desired: i32, current: i32, spec: &Spec) -> Limited {
    let limit = ceil_i32((FACTOR * f64::from(current)).max(FLOOR));
    let (most, reason) = if spec.max_replicas > limit {
        (limit, "ScaleUpLimit")
    } else {
        (spec.max_replicas, "TooManyReplicas")
    };
    if desired < spec.min_replicas {
        Limited { replicas: spec.min_replicas, reason: "TooFewReplicas" }
    } else if desired > most {
        Limited { replicas: most, reason }
    } else {
        Limited { replicas: desired, reason: WITHIN_RANGE }
    }
}

fn scale_up_limit(current: i32, events: &ScaleEvents, rules: &Rules) -> i32 {
    let allowed = rules.policies.iter().map(|policy| {
        let start = at_start(current, events, policy);
        match policy.kind {
            PolicyKind::Pods => start.wrapping_add(policy.value),
            // Upwards, so that a small count can grow by a small percentage at all.
            PolicyKind::Percent => ceil_i32(f64::from(start) * (1.0 + f64::from(policy.value) / 100.0)),
        }
    });
    let chosen = match rules.select {
        Select::Disabled => None,
        Select::Min => allowed.min(),
        Select::Max => allowed.max(),
    };
    chosen.unwrap_or(current)
}

fn scale_down_limit(current: i32, events: &ScaleEvents, rules: &Rules) -> i32 {
    let allowed = rules.policies.iter().map(|policy| {
        let start = at_start(current, events, policy);
        match policy.kind {
            PolicyKind::Pods => start.wrapping_sub(policy.value),
            PolicyKind::Percent => truncate_i32(f64::from(start) * (1.0 - f64::from(policy.value) / 100.0)),
        }
    });
    // The largest change leaves the smallest count.
    let chosen = match rules.select {
        Select::Disabled => None,
        Select::Min => allowed.max(),
        Select::Max => allowed.min(),
    };
    chosen.unwrap_or(current)
}

/// The count when a policy's period began. An event as old as the period is out of it.
fn at_start(current: i32, events: &ScaleEvents, policy: &Policy) -> i32 {
    let period = Age::from_seconds(policy.period_seconds.into());
    let change = |events: &[ScaleEvent]| {
        let within = events.iter().filter(|event| event.age < period);
        within.fold(0i32, |sum, event| sum.wrapping_add(event.change))
    };
    current.wrapping_sub(change(&events.up)).wrapping_add(change(&events.down))
}
