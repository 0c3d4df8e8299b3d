//! What holds for every case, whatever it is.

use proptest::prelude::*;
use serde_json::{Value, json};
use throng_autoscale::{Answer, Case, decide};

/// A pod in any state.
fn pod() -> impl Strategy<Value = Value> {
    (
        prop_oneof![4 => Just("Running"), 1 => Just("Pending"), 1 => Just("Succeeded"), 1 => Just("Failed")],
        prop::bool::weighted(0.1),
        prop::option::weighted(0.9, (any::<bool>(), -50i32..1000)),
        prop::option::weighted(0.9, -50i32..1000),
        prop::option::weighted(0.9, 0u32..400),
        prop::option::weighted(0.9, 0u32..400),
        prop::option::weighted(0.8, -20i32..400),
    )
        .prop_map(|(phase, deleted, ready, started, request, usage, custom)| {
            let requests = request.map_or(json!({}), |request| json!({"cpu": format!("{request}m")}));
            let metrics = usage.map(|usage| {
                json!({"ageSeconds": 20, "windowSeconds": 60, "containers": {"app": {"cpu": format!("{usage}m")}}})
            });
            json!({
                "phase": phase, "deleted": deleted,
                "ready": ready.map(|(ready, _)| ready), "readyChangedAgeSeconds": ready.map(|(_, changed)| changed),
                "startedAgeSeconds": started, "containers": [{"name": "app", "requests": requests}], "metrics": metrics,
                "custom": custom.map_or(json!({}), |value| json!({"rps": value.to_string()})),
            })
        })
}

fn metric() -> impl Strategy<Value = Value> {
    let target = |kind: &str, value: u32| match kind {
        "Utilization" => json!({"type": kind, "averageUtilization": value}),
        "Value" => json!({"type": kind, "value": value.to_string()}),
        _ => json!({"type": kind, "averageValue": value.to_string()}),
    };
    (0..7usize, 1u32..200).prop_map(move |(kind, value)| match kind {
        0 => json!({"type": "Resource", "resource": {"name": "cpu", "target": target("Utilization", value)}}),
        1 => json!({"type": "Resource", "resource": {"name": "cpu", "target": target("AverageValue", value)}}),
        2 => json!({"type": "Pods", "pods": {"metric": {"name": "rps"}, "target": target("AverageValue", value)}}),
        3 => json!({"type": "ContainerResource",
            "containerResource": {"name": "cpu", "container": "app", "target": target("Utilization", value)}}),
        4 => json!({"type": "Object", "object": {"describedObject": {"kind": "Service", "name": "web"},
            "metric": {"name": "queue"}, "target": target("Value", value)}}),
        5 => json!({"type": "External", "external": {"metric": {"name": "depth"}, "target": target("Value", value)}}),
        _ => json!({"type": "External", "external": {"metric": {"name": "depth"}, "target": target("AverageValue", value)}}),
    })
}

fn rules() -> impl Strategy<Value = Value> {
    let policy = (any::<bool>(), 1i32..200, 1i32..1800).prop_map(|(pods, value, period)| {
        json!({"type": if pods { "Pods" } else { "Percent" }, "value": value, "periodSeconds": period})
    });
    (
        prop::option::of(0i32..3600),
        prop::option::of(prop::sample::select(vec!["Max", "Min", "Disabled"])),
        prop::option::of(prop::collection::vec(policy, 1..4)),
    )
        .prop_map(|(window, select, policies)| {
            json!({"stabilizationWindowSeconds": window, "selectPolicy": select, "policies": policies})
        })
}

fn case() -> impl Strategy<Value = Case> {
    let behavior = prop::option::of((rules(), rules()))
        .prop_map(|both| both.map(|(up, down)| json!({"scaleUp": up, "scaleDown": down})));
    let remembered = || prop::collection::vec((-20i32..2000, 0i32..40), 0..4);
    (
        (1i32..20, 0i32..20, prop::collection::vec(metric(), 0..4), behavior),
        (0i32..45, prop::option::of(0i32..45)),
        prop::collection::vec(pod(), 0..8),
        prop::option::of(-50i64..5000),
        prop::option::of(prop::collection::vec(-50i64..5000, 0..3)),
        (remembered(), remembered(), remembered()),
    )
        .prop_map(|((min, more, metrics, behavior), (current, status), mut pods, object, external, remembered)| {
            for (number, pod) in pods.iter_mut().enumerate() {
                pod["name"] = json!(format!("pod-{number}"));
            }
            let events = |list: Vec<(i32, i32)>| -> Vec<Value> {
                list.into_iter().map(|(age, change)| json!({"ageSeconds": age, "change": change})).collect()
            };
            let recommendations: Vec<Value> =
                remembered.0.iter().map(|(age, replicas)| json!({"ageSeconds": age, "replicas": replicas})).collect();
            let texts = |list: Vec<i64>| list.iter().map(i64::to_string).collect::<Vec<_>>();
            let case = json!({
                "id": "any", "currentReplicas": current, "statusReplicas": status, "pods": pods,
                "spec": {"minReplicas": min, "maxReplicas": min + more, "metrics": metrics, "behavior": behavior},
                "recommendations": recommendations,
                "scaleEvents": {"up": events(remembered.1), "down": events(remembered.2)},
                "objects": object.map_or(json!({}), |value| json!({"queue": value.to_string()})),
                "external": external.map_or(json!({}), |values| json!({"depth": texts(values)})),
            });
            Case::from_json(case.to_string().as_bytes()).expect("a case")
        })
}

fn reason(answer: &Answer, kind: &str) -> Option<&'static str> {
    answer.conditions.iter().find(|condition| condition.kind == kind).map(|condition| condition.reason)
}

proptest! {
    #[test]
    fn a_count_stays_within_its_bounds(case in case()) {
        let answer = decide(&case);
        if reason(&answer, "ScalingActive") == Some("ScalingDisabled") {
            prop_assert_eq!(answer.desired_replicas, 0);
        } else {
            prop_assert!(answer.desired_replicas >= case.spec.min_replicas, "{:?}", answer);
            prop_assert!(answer.desired_replicas <= case.spec.max_replicas, "{:?}", answer);
        }
    }

    #[test]
    fn conditions_agree_with_what_was_done(case in case()) {
        let answer = decide(&case);
        let looked = (case.spec.min_replicas..=case.spec.max_replicas).contains(&case.current_replicas);
        prop_assert_eq!(answer.metrics.len(), if looked { case.spec.metrics.len() } else { 0 });
        prop_assert_eq!(answer.unstabilized.is_some(), reason(&answer, "ScalingActive") == Some("ValidMetricFound"));
        if looked && answer.unstabilized.is_none() {
            prop_assert_eq!(answer.desired_replicas, case.current_replicas);
            prop_assert!(answer.metrics.iter().any(|metric| metric.error.is_some()));
        }
        for metric in &answer.metrics {
            prop_assert_eq!(metric.error.is_some(), metric.proposal.is_none());
        }
        prop_assert_eq!(&decide(&case), &answer, "the same case gets the same answer");
    }

    #[test]
    fn a_disabled_direction_is_not_taken(mut case in case()) {
        if let Some(behavior) = &mut case.spec.behavior {
            behavior.scale_up.select = throng_autoscale::spec::Select::Disabled;
            behavior.scale_down.select = throng_autoscale::spec::Select::Disabled;
            let answer = decide(&case);
            if answer.unstabilized.is_some() {
                prop_assert_eq!(answer.desired_replicas, case.current_replicas);
            }
        }
    }

    /// Where every replica is at the target, nothing is done, and nothing is done again.
    #[test]
    fn a_target_that_is_met_is_left_alone(replicas in 1i32..30, percent in 1i32..300) {
        let pods: Vec<Value> = (0..replicas).map(|number| json!({
            "name": number.to_string(), "ready": true, "readyChangedAgeSeconds": 600, "startedAgeSeconds": 700,
            "containers": [{"name": "app", "requests": {"cpu": "100m"}}],
            "metrics": {"ageSeconds": 20, "windowSeconds": 60, "containers": {"app": {"cpu": format!("{percent}m")}}},
        })).collect();
        let target = json!({"type": "Utilization", "averageUtilization": percent});
        let case = json!({
            "id": "met", "currentReplicas": replicas, "pods": pods,
            "spec": {"maxReplicas": 30, "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]},
        });
        let case = Case::from_json(case.to_string().as_bytes()).expect("a case");
        let answer = decide(&case);
        prop_assert_eq!(answer.desired_replicas, replicas);
        prop_assert_eq!(reason(&answer, "AbleToScale"), Some("ReadyForNewScale"));
    }

    /// Load that does not change is served by a count that does not change either, once it is reached.
    #[test]
    fn a_share_of_a_queue_settles(waiting in 0i64..4000, target in 1i64..100, start in 1i32..60) {
        let mut current = start;
        let mut settled = false;
        for _ in 0..20 {
            let share = json!({"type": "AverageValue", "averageValue": target.to_string()});
            let case = json!({
                "id": "queue", "currentReplicas": current, "external": {"depth": [waiting.to_string()]},
                "recommendations": [{"ageSeconds": 400, "replicas": 1}],
                "spec": {"maxReplicas": 60, "metrics": [{"type": "External", "external": {"metric": {"name": "depth"}, "target": share}}]},
            });
            let answer = decide(&Case::from_json(case.to_string().as_bytes()).expect("a case"));
            settled = answer.desired_replicas == current;
            current = answer.desired_replicas;
        }
        prop_assert!(settled, "it is at {} and moves on", current);
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Err(error) = Case::from_json(&bytes) {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    /// Numbers at the ends of their ranges are decided on, however little sense that makes.
    #[test]
    fn extreme_numbers_are_decided_on(
        values in prop::collection::vec(prop_oneof![any::<i64>(), Just(i64::MAX), Just(-i64::MAX), Just(0)], 1..4),
        target in 1i64..=i64::MAX,
        current in prop_oneof![0i32..5, Just(i32::MAX), any::<i32>().prop_map(|n| n.saturating_abs())],
        change in 0i32..=i32::MAX,
    ) {
        let milli = |value: &i64| format!("{}m", (*value).max(-i64::MAX));
        let metrics: Vec<Value> = [("value", "Value"), ("averageValue", "AverageValue")].iter().map(|(field, kind)| {
            let mut target_object = json!({"type": kind});
            target_object[*field] = json!(milli(&target));
            json!({"type": "External", "external": {"metric": {"name": "depth"}, "target": target_object}})
        }).chain([
            json!({"type": "Resource", "resource": {"name": "memory", "target": {"type": "Utilization", "averageUtilization": 1}}}),
            json!({"type": "Resource", "resource": {"name": "memory", "target": {"type": "AverageValue", "averageValue": milli(&target)}}}),
        ]).collect();
        let pods: Vec<Value> = values.iter().enumerate().map(|(number, value)| json!({
            "name": number.to_string(), "ready": true, "readyChangedAgeSeconds": -9e9, "startedAgeSeconds": 9e9,
            "containers": [{"name": "app", "requests": {"memory": milli(value)}}],
            "metrics": {"ageSeconds": 9e9, "windowSeconds": -9e9, "containers": {"app": {"memory": milli(value)}, "b": {"memory": milli(value)}}},
        })).collect();
        let case = json!({
            "id": "extreme", "currentReplicas": current, "pods": pods,
            "external": {"depth": values.iter().map(milli).collect::<Vec<_>>()},
            "scaleEvents": {"up": [{"ageSeconds": 0, "change": change}, {"ageSeconds": -9e9, "change": change}], "down": []},
            "spec": {"minReplicas": 0, "maxReplicas": i32::MAX, "metrics": metrics, "behavior": {}},
        });
        let case = Case::from_json(case.to_string().as_bytes()).expect("a case");
        prop_assert!(decide(&case).desired_replicas >= 0);
    }
}
