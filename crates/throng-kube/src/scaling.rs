//! Autoscalers and disruption budgets.

use crate::context::{Context, of_service};
use crate::findings::Findings;
use crate::kompose::{Aim, Scaling};
use crate::labels;
use crate::object::{Notes, Object};
use crate::plan::{Plan, Plans};
use crate::quantity;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};
use throng_model::autoscale::{Allowed, Autoscale, Controller, Vertical};

/// What Kubernetes' own documentation and API take for an autoscaler that is told nothing else.
const UTILIZATION_DEFAULT: i32 = 80;
/// The most replicas where labels name no number, as Kompose has it.
const REPLICAS_DEFAULT: i32 = 3;

pub(crate) fn scaling(
    cx: &Context<'_>,
    plan: &Plan<'_>,
    plans: &Plans<'_>,
    objects: &mut Vec<Object>,
    findings: &mut Findings<'_>,
) {
    let mut least = i64::from(plan.replicas());
    let asked = plan.service.autoscale.is_some() || plan.hints.scaling.is_some();
    if asked && !plan.autoscaled {
        let path = of_service(&plan.service.name, "labels");
        let message =
            format!("a {} has no number of replicas that an autoscaler could change", plan.kind.name());
        findings.warn(&path, message, "remove the labels kompose.hpa.*");
    }
    if plan.autoscaled
        && let Some((spec, notes)) = spec(cx, plan, plans, findings)
    {
        least = spec.get("minReplicas").and_then(Value::as_i64).unwrap_or(1);
        objects.extend(horizontal(cx, plan, spec, notes, findings));
    }
    if let Some(vertical) = &plan.service.vertical {
        objects.push(self::vertical(cx, plan, vertical));
    }
    if plan.kind.scales() && least >= 2 {
        objects.push(budget(cx, plan));
    }
}

fn target(plan: &Plan<'_>) -> Value {
    let api = if plan.kind.ends() { "batch/v1" } else { "apps/v1" };
    json!({ "apiVersion": api, "kind": plan.kind.name(), "name": plan.name })
}

/// The spec of the autoscaler: that of the file as it is, or what Kompose's labels say.
fn spec(
    cx: &Context<'_>,
    plan: &Plan<'_>,
    plans: &Plans<'_>,
    findings: &mut Findings<'_>,
) -> Option<(Value, Notes)> {
    let mut notes = Notes::default();
    let mut spec = match (&plan.service.autoscale, &plan.hints.scaling) {
        (Some(autoscale), _) => {
            check_controller(plan, autoscale, findings);
            let mut spec = autoscale.spec.clone();
            rename(&mut spec, plan, plans);
            for key in ["minReplicas", "maxReplicas", "metrics", "behavior"] {
                let keys = [&format!("x-throng.autoscale.{key}") as &str];
                notes.at(format!("/spec/{key}"), cx.origin(&plan.service.name, &keys));
            }
            spec
        }
        (None, Some(scaling)) => {
            let wished = of_labels(plan, scaling, findings);
            notes.say("/spec/metrics", "kompose.hpa.*");
            wished
        }
        (None, None) => return None,
    };
    spec.as_object_mut()?.insert("scaleTargetRef".to_owned(), target(plan));
    Some((spec, notes))
}

/// Names in a spec that are other ones in a cluster: of the service's container, and of Services.
fn rename(spec: &mut Value, plan: &Plan<'_>, plans: &Plans<'_>) {
    for metric in spec.get_mut("metrics").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(container) = metric.pointer_mut("/containerResource/container") {
            *container = json!(plan.name);
        }
        let described =
            metric.pointer("/object/describedObject/name").and_then(Value::as_str).map(str::to_owned);
        let of_service =
            metric.pointer("/object/describedObject/kind").and_then(Value::as_str) == Some("Service");
        if let (Some(name), true) = (described, of_service)
            && let Some(place) = metric.pointer_mut("/object/describedObject/name")
        {
            *place = json!(plans.names.service(&name));
        }
    }
}

/// What a cluster has options of its controller for, and metrics that need an adapter.
fn check_controller(plan: &Plan<'_>, autoscale: &Autoscale, findings: &mut Findings<'_>) {
    let name = &plan.service.name;
    if autoscale.controller != Controller::default() {
        let path = of_service(name, "x-throng.autoscaler");
        let message = "an autoscaler's options belong to the cluster, not to an object";
        let hint = "set them as options of kube-controller-manager (--horizontal-pod-autoscaler-…)";
        findings.warn(&path, message, hint);
    }
    let kinds = autoscale.spec.get("metrics").and_then(Value::as_array).into_iter().flatten();
    let kinds: Vec<&str> = kinds.filter_map(|metric| metric.get("type").and_then(Value::as_str)).collect();
    if let Some(kind) = kinds.iter().find(|kind| matches!(**kind, "Pods" | "Object" | "External")) {
        let path = of_service(name, "x-throng.autoscale.metrics");
        let message = format!("a cluster knows metrics of the type {kind} only through an adapter");
        findings.warn(&path, message, "install one, such as prometheus-adapter, and give it the same series");
    }
    if autoscale.spec.get("minReplicas").and_then(Value::as_i64) == Some(0) {
        let path = of_service(name, "x-throng.autoscale.minReplicas");
        let message = "a cluster scales down to nothing only with the feature gate HPAScaleToZero";
        findings.warn(&path, message, "write 1, or enable it on the API server");
    }
}

/// Only what a label names is held. Without any the CPU is.
fn of_labels(plan: &Plan<'_>, scaling: &Scaling, findings: &mut Findings<'_>) -> Value {
    let least = scaling.min.unwrap_or(1);
    let most = scaling.max.unwrap_or(REPLICAS_DEFAULT.max(least));
    if most < least {
        let path = ["services", &plan.service.name, "labels", "kompose.hpa.replicas.max"];
        let message = format!("at least {least} replicas and at most {most} is no range");
        findings.error(&path, message, "raise kompose.hpa.replicas.max");
    }
    let mut metrics = Vec::new();
    for (name, aim, requested) in [
        ("cpu", &scaling.cpu, plan.service.resources.cpu_request().is_some()),
        ("memory", &scaling.memory, plan.service.resources.memory_request().is_some()),
    ] {
        let label = format!("kompose.hpa.{name}");
        let aim = match aim {
            Some(aim) => aim.clone(),
            // What it says could not be read, which has been told.
            None if plan.service.labels.contains_key(&label) => continue,
            None if name == "cpu" && scaling.memory.is_none() => Aim::Utilization(UTILIZATION_DEFAULT),
            None => continue,
        };
        if matches!(aim, Aim::Utilization(_)) && !requested {
            let path = ["services", &plan.service.name, "labels", &label];
            let message = format!("a percentage of the {name} that a pod requests, and it requests none");
            let key = if name == "cpu" { "cpus" } else { name };
            findings.warn(&path, message, format!("add {key} under deploy.resources.reservations"));
        }
        let target = match aim {
            Aim::Utilization(percent) => json!({ "type": "Utilization", "averageUtilization": percent }),
            Aim::Average(amount) => json!({ "type": "AverageValue", "averageValue": amount }),
        };
        metrics.push(json!({ "type": "Resource", "resource": { "name": name, "target": target } }));
    }
    json!({ "minReplicas": least, "maxReplicas": most, "metrics": metrics })
}

fn horizontal(
    cx: &Context<'_>,
    plan: &Plan<'_>,
    spec: Value,
    notes: Notes,
    findings: &mut Findings<'_>,
) -> Option<Object> {
    // Read as the type that it is, so that a key that no API server knows cannot pass.
    match serde_json::from_value(spec) {
        Ok(spec) => {
            let metadata = labels::metadata(cx, &plan.name, Some(&plan.name));
            let object = HorizontalPodAutoscaler { metadata, spec, ..Default::default() };
            let head = cx.origin(&plan.service.name, &["x-throng.autoscale", "labels"]);
            Some(Object::new(&plan.name, &object, notes, head))
        }
        Err(error) => {
            let path = of_service(&plan.service.name, "x-throng.autoscale");
            let message = format!("this is no spec of a HorizontalPodAutoscaler: {error}");
            findings.error(&path, message, "docs/autoscale.md describes the fields");
            None
        }
    }
}

/// A VerticalPodAutoscaler is a resource of its own controller's, not of Kubernetes itself.
fn vertical(cx: &Context<'_>, plan: &Plan<'_>, policy: &Vertical) -> Object {
    let allowed = |bound: &Allowed| {
        let mut map = serde_json::Map::new();
        if let Some(milli) = bound.cpu {
            map.insert("cpu".to_owned(), json!(quantity::cores(milli as f64 / 1e3).0));
        }
        if let Some(bytes) = bound.memory {
            map.insert("memory".to_owned(), json!(quantity::bytes(bytes).0));
        }
        (!map.is_empty()).then_some(Value::Object(map))
    };
    let controlled =
        [("cpu", policy.controlled_resources.cpu), ("memory", policy.controlled_resources.memory)];
    let controlled: Vec<&str> = controlled.into_iter().filter(|(_, on)| *on).map(|(name, _)| name).collect();
    let mut container = json!({
        "containerName": plan.name,
        "controlledResources": controlled,
        "controlledValues": policy.controlled_values,
    });
    for (key, bound) in [("minAllowed", &policy.min_allowed), ("maxAllowed", &policy.max_allowed)] {
        if let Some(bound) = allowed(bound) {
            container[key] = bound;
        }
    }
    let object = json!({
        "apiVersion": "autoscaling.k8s.io/v1",
        "kind": "VerticalPodAutoscaler",
        "metadata": crate::object::value(&labels::metadata(cx, &plan.name, Some(&plan.name))),
        "spec": {
            "targetRef": target(plan),
            "updatePolicy": { "updateMode": policy.update_mode },
            "resourcePolicy": { "containerPolicies": [container] },
        },
    });
    let head = cx.origin(&plan.service.name, &["x-throng.vertical"]);
    Object::new(&plan.name, &object, Notes::default(), head)
}

/// Who empties a node takes one pod of a service at a time.
fn budget(cx: &Context<'_>, plan: &Plan<'_>) -> Object {
    let object = PodDisruptionBudget {
        metadata: labels::metadata(cx, &plan.name, Some(&plan.name)),
        spec: Some(PodDisruptionBudgetSpec {
            max_unavailable: Some(IntOrString::Int(1)),
            selector: Some(labels::select(labels::selector(cx, &plan.name))),
            // A pod that is not well must not keep a node from being emptied.
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        ..PodDisruptionBudget::default()
    };
    let head = "Several replicas: a node that is emptied takes one at a time".to_owned();
    Object::new(&plan.name, &object, Notes::default(), Some(head))
}
