//! The API server's defaults and checks of a HorizontalPodAutoscaler spec, with its field paths.

use super::raw::{
    Identifier, RawBehavior, RawContainerResource, RawMetric, RawObject, RawPolicy, RawResource, RawRules,
    RawSpec, RawTarget, RawTotal, Reference,
};
use super::{
    Behavior, DEFAULT_CPU_PERCENT, Metric, PERIOD_MOST, Policy, PolicyKind, ResourceTarget, Rules, Select,
    Spec, TotalTarget, Violation, WINDOW_MOST,
};

/// Longest name of a container: a DNS label, RFC 1123.
const LABEL_MOST: usize = 63;

/// Collects violations, so that a spec is refused for all that is wrong with it at once.
#[derive(Default)]
struct Findings(Vec<Violation>);

impl Findings {
    fn add(&mut self, path: impl Into<String>, problem: impl Into<String>) {
        self.0.push(Violation { path: path.into(), problem: problem.into() });
    }
}

pub fn check(raw: RawSpec, configurable_tolerance: bool) -> Result<Spec, Vec<Violation>> {
    let mut findings = Findings::default();
    let min_replicas = raw.min_replicas.unwrap_or(1);
    let max_replicas = raw.max_replicas.unwrap_or(0);
    if min_replicas < 0 {
        findings.add("spec.minReplicas", format!("{min_replicas} is below 0"));
    }
    if max_replicas < 1 {
        findings.add("spec.maxReplicas", format!("{max_replicas} is below 1"));
    }
    if max_replicas < min_replicas {
        findings.add("spec.maxReplicas", format!("{max_replicas} is below minReplicas, {min_replicas}"));
    }
    if let Some(target) = &raw.scale_target_ref {
        reference(target, "spec.scaleTargetRef", false, &mut findings);
    }
    let metrics = metrics(raw.metrics.unwrap_or_default(), min_replicas, &mut findings);
    let behavior =
        raw.behavior.map(|behavior| self::behavior(behavior, configurable_tolerance, &mut findings));
    if findings.0.is_empty() {
        Ok(Spec { min_replicas, max_replicas, metrics, behavior })
    } else {
        Err(findings.0)
    }
}

fn metrics(raw: Vec<RawMetric>, min_replicas: i32, findings: &mut Findings) -> Vec<Metric> {
    let metrics = if raw.is_empty() {
        let target = ResourceTarget::Utilization(DEFAULT_CPU_PERCENT);
        vec![Metric::Resource { name: "cpu".into(), target }]
    } else {
        let checked = raw.into_iter().enumerate();
        checked.filter_map(|(index, raw)| metric(raw, &format!("spec.metrics[{index}]"), findings)).collect()
    };
    // Without replicas there is nothing that a metric of replicas could wake the target up with.
    let wakes = |metric: &Metric| matches!(metric, Metric::Object { .. } | Metric::External { .. });
    if min_replicas == 0 && findings.0.is_empty() && !metrics.iter().any(wakes) {
        findings.add("spec.metrics", "minReplicas 0 needs at least one Object or External metric");
    }
    metrics
}

fn metric(raw: RawMetric, path: &str, findings: &mut Findings) -> Option<Metric> {
    let kind = raw.kind.unwrap_or_default();
    let present = [
        ("object", "Object", raw.object.is_some()),
        ("pods", "Pods", raw.pods.is_some()),
        ("resource", "Resource", raw.resource.is_some()),
        ("containerResource", "ContainerResource", raw.container_resource.is_some()),
        ("external", "External", raw.external.is_some()),
    ];
    let Some((expected, _, there)) = present.iter().find(|(_, name, _)| *name == kind) else {
        findings.add(
            format!("{path}.type"),
            format!("{kind:?} is not one of ContainerResource, External, Object, Pods, Resource"),
        );
        return None;
    };
    if !there {
        findings.add(format!("{path}.{expected}"), format!("it must be there for type {kind}"));
    }
    for (field, ..) in present.iter().filter(|(field, _, there)| *there && field != expected) {
        findings.add(format!("{path}.{field}"), format!("it must not be there for type {kind}"));
    }
    let path = format!("{path}.{expected}");
    match kind.as_str() {
        "Object" => object(raw.object?, &path, findings),
        "Pods" => pods(raw.pods?, &path, findings),
        "Resource" => resource(raw.resource?, &path, findings),
        "ContainerResource" => container_resource(raw.container_resource?, &path, findings),
        _ => external(raw.external?, &path, findings),
    }
}

fn object(raw: RawObject, path: &str, findings: &mut Findings) -> Option<Metric> {
    reference(&raw.described_object.unwrap_or_default(), &format!("{path}.describedObject"), true, findings);
    let name = identifier(raw.metric, path, findings);
    let raw = target(raw.target, path, findings);
    if raw.value.is_none() && raw.average_value.is_none() {
        findings.add(format!("{path}.target.averageValue"), "either value or averageValue must be set");
        return None;
    }
    // The type alone decides which of the two counts, and both may be there.
    let target = match (raw.kind.as_deref(), raw.value, raw.average_value) {
        (Some("Value"), Some(value), _) => TotalTarget::Value(value.milli()),
        (Some("AverageValue"), _, Some(average)) => TotalTarget::AverageValue(average.milli()),
        _ => TotalTarget::Mismatched,
    };
    Some(Metric::Object { name, target })
}

fn external(raw: RawTotal, path: &str, findings: &mut Findings) -> Option<Metric> {
    let name = identifier(raw.metric, path, findings);
    let raw = target(raw.target, path, findings);
    // The type is checked and then not asked: the field that is there decides.
    let target = match (raw.value, raw.average_value) {
        (Some(value), None) => TotalTarget::Value(value.milli()),
        (None, Some(average)) => TotalTarget::AverageValue(average.milli()),
        (None, None) => {
            findings.add(format!("{path}.target.averageValue"), "either value or averageValue must be set");
            return None;
        }
        (Some(_), Some(_)) => {
            findings.add(format!("{path}.target.value"), "value and averageValue must not both be set");
            return None;
        }
    };
    Some(Metric::External { name, target })
}

fn pods(raw: RawTotal, path: &str, findings: &mut Findings) -> Option<Metric> {
    let name = identifier(raw.metric, path, findings);
    let raw = target(raw.target, path, findings);
    let Some(average) = raw.average_value else {
        findings.add(format!("{path}.target.averageValue"), "it must be set and above 0");
        return None;
    };
    Some(Metric::Pods { name, average: average.milli() })
}

fn resource(raw: RawResource, path: &str, findings: &mut Findings) -> Option<Metric> {
    let name = raw.name.unwrap_or_default();
    if name.is_empty() {
        findings.add(format!("{path}.name"), "a resource must be named");
    }
    let target = resource_target(raw.target, path, findings)?;
    Some(Metric::Resource { name, target })
}

fn container_resource(raw: RawContainerResource, path: &str, findings: &mut Findings) -> Option<Metric> {
    let name = raw.name.unwrap_or_default();
    let standard = matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage");
    if name.is_empty() {
        findings.add(format!("{path}.name"), "a resource must be named");
    } else if !(standard || name.starts_with("hugepages-") || name.contains('/')) {
        findings.add(format!("{path}.name"), format!("{name:?} is no resource that containers have"));
    }
    let container = raw.container.unwrap_or_default();
    if container.is_empty() {
        findings.add(format!("{path}.container"), "a container must be named");
    } else if !is_dns_label(&container) {
        findings.add(
            format!("{path}.container"),
            format!(
                "{container:?} is not up to 63 of a-z, 0-9 and -, beginning and ending with a letter or digit"
            ),
        );
    }
    let target = resource_target(raw.target, path, findings)?;
    Some(Metric::ContainerResource { name, container, target })
}

fn resource_target(raw: Option<RawTarget>, path: &str, findings: &mut Findings) -> Option<ResourceTarget> {
    let raw = target(raw, path, findings);
    match (raw.average_utilization, raw.average_value) {
        (Some(percent), None) => Some(ResourceTarget::Utilization(percent)),
        (None, Some(average)) => Some(ResourceTarget::AverageValue(average.milli())),
        (None, None) => {
            findings.add(
                format!("{path}.target.averageUtilization"),
                "either averageUtilization or averageValue must be set",
            );
            None
        }
        (Some(_), Some(_)) => {
            findings.add(
                format!("{path}.target.averageValue"),
                "averageUtilization and averageValue must not both be set",
            );
            None
        }
    }
}

fn target(raw: Option<RawTarget>, path: &str, findings: &mut Findings) -> RawTarget {
    let raw = raw.unwrap_or_default();
    let path = format!("{path}.target");
    let kind = raw.kind.as_deref().unwrap_or_default();
    if !matches!(kind, "Utilization" | "Value" | "AverageValue") {
        findings
            .add(format!("{path}.type"), format!("{kind:?} is not one of Utilization, Value, AverageValue"));
    }
    for (field, quantity) in [("value", raw.value), ("averageValue", raw.average_value)] {
        if let Some(quantity) = quantity.filter(|quantity| !quantity.is_positive()) {
            findings.add(format!("{path}.{field}"), format!("{} is not above 0", quantity.decimal()));
        }
    }
    if let Some(percent) = raw.average_utilization.filter(|percent| *percent < 1) {
        findings.add(format!("{path}.averageUtilization"), format!("{percent} is not above 0"));
    }
    raw
}

fn identifier(raw: Option<Identifier>, path: &str, findings: &mut Findings) -> String {
    let name = raw.and_then(|identifier| identifier.name).unwrap_or_default();
    path_segment(&name, &format!("{path}.metric.name"), "a metric must be named", findings);
    name
}

/// `core`: whether an object of the core group, whose apiVersion has no group, may be meant.
fn reference(reference: &Reference, path: &str, core: bool, findings: &mut Findings) {
    let kind = reference.kind.as_deref().unwrap_or_default();
    path_segment(kind, &format!("{path}.kind"), "a kind must be named", findings);
    let name = reference.name.as_deref().unwrap_or_default();
    path_segment(name, &format!("{path}.name"), "an object must be named", findings);
    let version = reference.api_version.as_deref().unwrap_or_default();
    if version.matches('/').count() > 1 {
        findings.add(format!("{path}.apiVersion"), format!("{version:?} is not GROUP/VERSION"));
    } else if !core && kind != "ReplicationController" && version.find('/').is_none_or(|end| end == 0) {
        findings.add(format!("{path}.apiVersion"), format!("{version:?} names no API group, as in apps/v1"));
    }
}

/// Names become parts of addresses, so they must not be read as anything else there.
fn path_segment(name: &str, path: &str, missing: &str, findings: &mut Findings) {
    if name.is_empty() {
        findings.add(path, missing);
    } else if name == "." || name == ".." || name.contains(['/', '%']) {
        findings.add(path, format!("{name:?} must be neither . nor .. and contain neither / nor %"));
    }
}

fn is_dns_label(text: &str) -> bool {
    let edge = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    text.len() <= LABEL_MOST
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && edge(text.bytes().next())
        && edge(text.bytes().last())
}

fn behavior(raw: RawBehavior, configurable_tolerance: bool, findings: &mut Findings) -> Behavior {
    let policy = |kind, value| Policy { kind, value, period_seconds: 15 };
    let up = Rules {
        window_seconds: Some(0),
        select: Select::Max,
        policies: vec![policy(PolicyKind::Pods, 4), policy(PolicyKind::Percent, 100)],
        tolerance: None,
    };
    let down = Rules { window_seconds: None, policies: vec![policy(PolicyKind::Percent, 100)], ..up.clone() };
    Behavior {
        scale_up: rules(raw.scale_up, up, configurable_tolerance, "spec.behavior.scaleUp", findings),
        scale_down: rules(raw.scale_down, down, configurable_tolerance, "spec.behavior.scaleDown", findings),
    }
}

fn rules(
    raw: Option<RawRules>,
    defaults: Rules,
    configurable_tolerance: bool,
    path: &str,
    findings: &mut Findings,
) -> Rules {
    let Some(raw) = raw else { return defaults };
    if let Some(window) =
        raw.stabilization_window_seconds.filter(|window| !(0..=WINDOW_MOST).contains(window))
    {
        findings.add(
            format!("{path}.stabilizationWindowSeconds"),
            format!("{window} is not from 0 to {WINDOW_MOST}"),
        );
    }
    let select = match raw.select_policy.as_deref() {
        None => defaults.select,
        Some("Max") => Select::Max,
        Some("Min") => Select::Min,
        Some("Disabled") => Select::Disabled,
        Some(other) => {
            findings
                .add(format!("{path}.selectPolicy"), format!("{other:?} is not one of Disabled, Max, Min"));
            defaults.select
        }
    };
    let policies = match raw.policies {
        None => defaults.policies,
        Some(policies) => {
            if policies.is_empty() {
                findings
                    .add(format!("{path}.policies"), "there must be at least one policy, or no such field");
            }
            let checked = policies.into_iter().enumerate();
            checked
                .filter_map(|(index, raw)| policy(raw, &format!("{path}.policies[{index}]"), findings))
                .collect()
        }
    };
    let tolerance = raw.tolerance.filter(|_| configurable_tolerance);
    if let Some(tolerance) = tolerance.filter(|tolerance| tolerance.is_negative()) {
        findings.add(format!("{path}.tolerance"), format!("{} is below 0", tolerance.decimal()));
    }
    Rules {
        window_seconds: raw.stabilization_window_seconds.or(defaults.window_seconds),
        select,
        policies,
        tolerance,
    }
}

fn policy(raw: RawPolicy, path: &str, findings: &mut Findings) -> Option<Policy> {
    let kind = match raw.kind.as_deref().unwrap_or_default() {
        "Pods" => Some(PolicyKind::Pods),
        "Percent" => Some(PolicyKind::Percent),
        other => {
            findings.add(format!("{path}.type"), format!("{other:?} is not one of Percent, Pods"));
            None
        }
    };
    let value = raw.value.unwrap_or(0);
    if value <= 0 {
        findings.add(format!("{path}.value"), format!("{value} is not above 0"));
    }
    let period_seconds = raw.period_seconds.unwrap_or(0);
    if !(1..=PERIOD_MOST).contains(&period_seconds) {
        findings
            .add(format!("{path}.periodSeconds"), format!("{period_seconds} is not from 1 to {PERIOD_MOST}"));
    }
    Some(Policy { kind: kind?, value, period_seconds })
}
