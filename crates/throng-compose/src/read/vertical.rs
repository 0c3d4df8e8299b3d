//! `x-throng.vertical`: what becomes of what replicas are found to need, in the names of a VerticalPodAutoscaler.

use super::x_throng::{entries, unknown};
use crate::yaml::values::Values;
use crate::yaml::{Entry, Findings, Node};
use serde::Deserialize;
use std::num::NonZeroU32;
use throng_autoscale::Quantity;
use throng_model::autoscale::{Allowed, Controlled, ControlledValues, UpdateMode, Vertical};

const KEYS: [&str; 6] =
    ["updateMode", "minReplicas", "minAllowed", "maxAllowed", "controlledResources", "controlledValues"];
const RESOURCES: [&str; 2] = ["cpu", "memory"];
/// `Auto` is what VerticalPodAutoscalers called `Recreate` first.
const MODES: [(&str, UpdateMode); 4] = [
    ("Off", UpdateMode::Off),
    ("Initial", UpdateMode::Initial),
    ("Recreate", UpdateMode::Recreate),
    ("Auto", UpdateMode::Recreate),
];
const VALUES: [(&str, ControlledValues); 2] = [
    ("RequestsAndLimits", ControlledValues::RequestsAndLimits),
    ("RequestsOnly", ControlledValues::RequestsOnly),
];

pub(super) fn read(entry: &Entry, findings: &mut Findings) -> Vertical {
    let mut vertical = Vertical::default();
    for field in entries(&entry.value, &KEYS, findings) {
        let value = &field.value;
        match field.key.as_str() {
            "updateMode" => {
                vertical.update_mode = value.choice(&MODES, findings).unwrap_or(vertical.update_mode);
            }
            "minReplicas" => {
                let least = value.number::<NonZeroU32>("a whole number above 0", findings);
                vertical.min_replicas = least.map_or(vertical.min_replicas, NonZeroU32::get);
            }
            "minAllowed" => vertical.min_allowed = allowed(value, findings),
            "maxAllowed" => vertical.max_allowed = allowed(value, findings),
            "controlledResources" => vertical.controlled_resources = controlled(value, findings),
            _ => {
                vertical.controlled_values = value.choice(&VALUES, findings).unwrap_or_default();
            }
        }
    }
    let (least, most) = (vertical.min_allowed, vertical.max_allowed);
    for (name, least, most) in [("cpu", least.cpu, most.cpu), ("memory", least.memory, most.memory)] {
        if let (Some(least), Some(most)) = (least, most)
            && least > most
        {
            let message = format!("minAllowed.{name} is above maxAllowed.{name}");
            findings.error_with_hint(&entry.key_at, message, "write the larger one under maxAllowed");
        }
    }
    vertical
}

/// Thousandths of a core and bytes, as quantities of Kubernetes.
fn allowed(node: &Node, findings: &mut Findings) -> Allowed {
    let mut allowed = Allowed::default();
    for field in node.map(findings).unwrap_or_default() {
        let place = match field.key.as_str() {
            "cpu" => &mut allowed.cpu,
            "memory" => &mut allowed.memory,
            _ => {
                unknown(field, &RESOURCES, findings);
                continue;
            }
        };
        match Quantity::deserialize(Values(&field.value)) {
            Ok(quantity) if quantity.is_positive() => {
                let milli = quantity.milli().unsigned_abs();
                *place = Some(if field.key == "cpu" { milli } else { milli / 1_000 });
            }
            Ok(_) => findings.error_with_hint(
                &field.value.position,
                format!("{} must be above 0", field.key),
                "write a quantity such as 100m or 64Mi",
            ),
            Err(wrong) => findings.push(wrong.finding()),
        }
    }
    allowed
}

fn controlled(node: &Node, findings: &mut Findings) -> Controlled {
    let mut controlled = Controlled { cpu: false, memory: false };
    for item in node.list(findings).unwrap_or_default() {
        match item.choice(&[("cpu", true), ("memory", false)], findings) {
            Some(true) => controlled.cpu = true,
            Some(false) => controlled.memory = true,
            None => {}
        }
    }
    if controlled == (Controlled { cpu: false, memory: false }) {
        let hint = "name cpu, memory or both, or say updateMode: Off";
        findings.error_with_hint(&node.position, "controlledResources names nothing", hint);
    }
    controlled
}
