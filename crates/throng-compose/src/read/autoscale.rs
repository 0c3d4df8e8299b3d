//! `x-throng.autoscale`, a HorizontalPodAutoscaler spec, and `x-throng.autoscaler`: the options of the controller that
//! carries it out, and where its metrics come from.

use super::x_throng::unknown;
use super::{Declared, clean};
use crate::yaml::values::{Values, Wrong, place};
use crate::yaml::{Entry, Findings, Node};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;
use throng_autoscale::Spec;
use throng_autoscale::selector::Selector;
use throng_autoscale::spec::{Metric, PolicyKind, RawMetric, RawSpec, ResourceTarget};
use throng_model::app::Service;
use throng_model::autoscale::{Autoscale, Controller, MetricSource, OWN_METRICS, PORT_LABEL, Reading};

const OPTIONS: [&str; 8] = [
    "syncPeriod",
    "tolerance",
    "cpuInitializationPeriod",
    "initialReadinessDelay",
    "downscaleStabilization",
    "configurableTolerance",
    "metricResolution",
    "sources",
];
const SOURCE_KEYS: [&str; 6] = ["url", "ca", "port", "path", "series", "as"];
const READINGS: [(&str, Reading); 2] = [("gauge", Reading::Gauge), ("rate", Reading::Rate)];
/// How often an autoscaler looks at least and at most.
const PERIODS: std::ops::RangeInclusive<Duration> = Duration::from_millis(200)..=Duration::from_secs(3600);
/// Longest of the other times.
const TIME_MOST: Duration = Duration::from_secs(24 * 3600);
/// As for `deploy.replicas`.
const REPLICAS_MOST: i32 = 100_000;

/// Reads both keys of a service whose other keys have been read.
pub(super) fn read(
    spec: Option<&Entry>,
    options: Option<&Entry>,
    service: &Service,
    declared: &Declared,
    findings: &mut Findings,
) -> Option<Autoscale> {
    let services = &declared.services;
    let options_read = options.map(|entry| read_options(&entry.value, &declared.directory, findings));
    let (controller, sources) = options_read.unwrap_or_default();
    let Some(spec) = spec else {
        if let Some(options) = options {
            let hint = "say under autoscale what the number of replicas is to follow";
            findings.warn_with_hint(&options.key_at, "autoscaler has no effect without autoscale", hint);
        }
        return None;
    };
    let node = &spec.value;
    let told = |wrong: Wrong, findings: &mut Findings| findings.push(wrong.finding());
    let raw = RawSpec::deserialize(Values(node)).map_err(|wrong| told(wrong, findings)).ok()?;
    let json = serde_json::Value::deserialize(Values(node)).map_err(|wrong| told(wrong, findings)).ok()?;
    let checked = match Spec::new(raw.clone(), controller.configurable_tolerance) {
        Ok(checked) => checked,
        Err(violations) => {
            for violation in violations {
                let path = violation.path.strip_prefix("spec.").unwrap_or(&violation.path);
                let message = format!("{path}: {}", violation.problem);
                findings.error_with_hint(place(node, path), message, hint(path));
            }
            return None;
        }
    };
    let autoscale = Autoscale { spec: json, controller, sources };
    let reader = Reader { node, service, services, autoscale: &autoscale };
    reader.check(&checked, raw.metrics.as_deref().unwrap_or_default(), findings);
    reader.check_sources(options, &checked, findings);
    Some(autoscale)
}

/// What to do about what the API server of a cluster would refuse, too.
fn hint(path: &str) -> &'static str {
    let last = path.rsplit('.').next().unwrap_or(path);
    match last {
        "minReplicas" | "maxReplicas" => "write minReplicas at or below maxReplicas, and maxReplicas above 0",
        "averageUtilization" => "write a percentage of the request above 0, such as 60",
        "value" | "averageValue" => "write a quantity above 0, such as 500m or 10",
        "periodSeconds" => "say in how many seconds the policy allows its change, from 1 to 1800",
        "metrics" => "add one: without replicas no metric of replicas can say that some are needed",
        "tolerance" => "write the share that a metric may be off, such as 0.05",
        _ => "a cluster would refuse this too; docs/autoscale.md describes the fields",
    }
}

/// Checks that need the service.
struct Reader<'a> {
    node: &'a Node,
    service: &'a Service,
    services: &'a BTreeSet<String>,
    autoscale: &'a Autoscale,
}

impl Reader<'_> {
    fn check(&self, spec: &Spec, raw: &[RawMetric], findings: &mut Findings) {
        if let Some(node) = self.node.get("scaleTargetRef").filter(|node| !node.is_null()) {
            let hint = "leave it out";
            findings.warn_with_hint(
                &node.position,
                "scaleTargetRef has no effect: the service is meant",
                hint,
            );
        }
        if spec.max_replicas > REPLICAS_MOST {
            let message = format!("maxReplicas: {REPLICAS_MOST} replicas are the most of one service");
            findings.error(place(self.node, "maxReplicas"), message);
        }
        let mut totals = BTreeSet::new();
        for (index, metric) in spec.metrics.iter().enumerate() {
            let path = format!("metrics[{index}].{}", metric.field());
            self.check_metric(metric, &path, findings);
            self.check_selector(raw.get(index), &path, findings);
            let is_total = matches!(metric.kind(), "Object" | "External");
            if is_total && !totals.insert((metric.kind(), metric.name())) {
                let message =
                    format!("{path}: another {} metric is called {} too", metric.kind(), metric.name());
                let hint = "give each a name of its own, and name their series under autoscaler.sources";
                findings.error_with_hint(place(self.node, &format!("{path}.metric.name")), message, hint);
            }
        }
        let down = spec.behavior.iter().flat_map(|behavior| &behavior.scale_down.policies).enumerate();
        for (index, policy) in down {
            if policy.kind == PolicyKind::Percent && policy.value > 100 {
                let path = format!("behavior.scaleDown.policies[{index}].value");
                let message = format!("{path}: {} % of the replicas are more than there are", policy.value);
                findings.error_with_hint(place(self.node, &path), message, "write 100 at most");
            }
        }
    }

    fn check_metric(&self, metric: &Metric, path: &str, findings: &mut Findings) {
        match metric {
            Metric::Resource { name, target } => self.check_resource(name, *target, path, findings),
            Metric::ContainerResource { name, container, target } => {
                let own = &self.service.name;
                if container != own {
                    let message =
                        format!("{path}.container: a replica of {own} has one container, called {own}");
                    let hint = format!("write {own}");
                    findings.error_with_hint(place(self.node, &format!("{path}.container")), message, hint);
                }
                self.check_resource(name, *target, path, findings);
            }
            Metric::Pods { name, .. } => self.check_pods(name, path, findings),
            Metric::Object { name, .. } => self.check_object(name, path, findings),
            Metric::External { name, .. } => {
                if self.source(name).is_none_or(|source| source.url.is_none()) {
                    let message = format!("{path}: nobody says where {name} comes from");
                    let hint = format!("add the address under x-throng: autoscaler: sources: {name}: url:");
                    findings.error_with_hint(place(self.node, &format!("{path}.metric.name")), message, hint);
                }
            }
        }
    }

    fn source(&self, name: &str) -> Option<&MetricSource> {
        self.autoscale.sources.get(name)
    }

    /// What can be known of a resource before it is measured is a warning: a cluster takes such a spec, and its
    /// autoscaler says all the time that it can do nothing.
    fn check_resource(&self, name: &str, target: ResourceTarget, path: &str, findings: &mut Findings) {
        let resources = &self.service.resources;
        let number = |bytes: Option<u64>| bytes.map(|bytes| bytes as f64);
        let (request, limit) = match name {
            "cpu" => (resources.cpu_reservation, resources.cpus),
            "memory" => (number(resources.memory_reservation), number(resources.memory)),
            _ => {
                let message = format!("{path}.name: nobody measures {name}");
                let hint = "cpu and memory are measured";
                findings.warn_with_hint(place(self.node, &format!("{path}.name")), message, hint);
                return;
            }
        };
        let ResourceTarget::Utilization(percent) = target else { return };
        let key = if name == "cpu" { "cpus" } else { name };
        // Without `metrics` in the file the place is that of the whole.
        let at = place(self.node, &format!("{path}.target.averageUtilization"));
        let Some(requested) = request.or(limit) else {
            let message = format!(
                "{path}: {percent} % of the {name} that a replica requests, but {} requests none",
                self.service.name
            );
            let hint =
                format!("add {key} under deploy.resources.reservations, or under deploy.resources.limits");
            findings.warn_with_hint(at, message, hint);
            return;
        };
        let reachable = limit.map(|limit| 100.0 * limit / requested);
        if let Some(most) = reachable.filter(|most| f64::from(percent) > *most) {
            let message = format!("{path}: a replica cannot use more than {most:.0} % of what it requests");
            let hint = format!("write a target below that, or lower deploy.resources.reservations.{key}");
            findings.warn_with_hint(at, message, hint);
        }
    }

    fn check_pods(&self, name: &str, path: &str, findings: &mut Findings) {
        let source = self.source(name);
        let at = place(self.node, &format!("{path}.metric.name"));
        if source.is_some_and(|source| source.url.is_some()) {
            let message = format!("{path}: each replica is asked for {name}, so there is no single url");
            let hint = "write port and path, which every replica has";
            findings.error_with_hint(at, message, hint);
        }
        let labelled = self.service.labels.get(PORT_LABEL);
        let known = source.and_then(|source| source.port).is_some()
            || labelled.is_some()
            || !self.service.ports.is_empty()
            || !self.service.expose.is_empty();
        if !known {
            let message = format!("{path}: no port is known at which a replica could be asked for {name}");
            let hint = format!("add the label {PORT_LABEL}, or autoscaler: sources: {name}: port:");
            findings.error_with_hint(at, message, hint);
        }
        if let Some(text) = labelled.filter(|text| text.parse::<u16>().map_or(true, |port| port == 0)) {
            findings.error(at, format!("the label {PORT_LABEL} is {text:?}, which is no port"));
        }
    }

    fn check_object(&self, name: &str, path: &str, findings: &mut Findings) {
        if self.source(name).is_some_and(|source| source.url.is_some()) {
            return;
        }
        let object = format!("{path}.describedObject");
        let part = |key: &str| {
            let described = path.split_once('.').and_then(|(metric, _)| {
                let index: usize = metric.strip_prefix("metrics[")?.strip_suffix(']')?.parse().ok()?;
                let crate::yaml::Value::List(items) = &self.node.get("metrics")?.value else { return None };
                items.get(index)?.get("object")?.get("describedObject")?.get(key)
            });
            described.and_then(Node::scalar).unwrap_or_default().to_owned()
        };
        let (kind, service) = (part("kind"), part("name"));
        let own = kind == "Service" && OWN_METRICS.contains(&name);
        if !own {
            let message = format!("{path}: nobody says where {name} comes from");
            let hint = format!(
                "add autoscaler: sources: {name}: url:, or describe a Service of this app, of which {} are known",
                OWN_METRICS.join(" and ")
            );
            findings.error_with_hint(place(self.node, &format!("{path}.metric.name")), message, hint);
        } else if !self.services.contains(&service) {
            let message = format!("{object}.name: no service is called {service:?}");
            let names: Vec<&str> = self.services.iter().map(String::as_str).collect();
            let at = place(self.node, &format!("{object}.name"));
            findings.error_with_hint(at, message, format!("there are {}", names.join(", ")));
        }
    }

    fn check_selector(&self, raw: Option<&RawMetric>, path: &str, findings: &mut Findings) {
        let selector = raw.and_then(|raw| raw.identifier()?.selector.as_ref());
        if let Some(Err(problem)) = selector.map(Selector::new) {
            let path = format!("{path}.metric.selector");
            let hint = "write matchLabels, or matchExpressions with key, operator and values";
            findings.error_with_hint(place(self.node, &path), format!("{path}: {problem}"), hint);
        }
    }

    /// Sources that nothing asks for are as likely as not a typing error in a name.
    fn check_sources(&self, options: Option<&Entry>, spec: &Spec, findings: &mut Findings) {
        let Some(node) = options.and_then(|options| options.value.get("sources")) else { return };
        let asked =
            |metric: &&Metric| !matches!(metric, Metric::Resource { .. } | Metric::ContainerResource { .. });
        let names: Vec<&str> = spec.metrics.iter().filter(asked).map(Metric::name).collect();
        for entry in node.map(&mut Findings::default()).unwrap_or_default() {
            if !names.contains(&entry.key.as_str()) {
                let hint = match crate::yaml::nearest(&entry.key, names.iter().copied()) {
                    Some(meant) => format!("did you mean {meant}?"),
                    None => "sources are named as the Pods, Object or External metrics are".to_owned(),
                };
                findings.warn_with_hint(&entry.key_at, format!("no metric is called {:?}", entry.key), hint);
            }
        }
    }
}

fn read_options(
    node: &Node,
    directory: &Path,
    findings: &mut Findings,
) -> (Controller, BTreeMap<String, MetricSource>) {
    let (mut controller, mut sources) = (Controller::default(), BTreeMap::new());
    for entry in node.map(findings).unwrap_or_default() {
        let value = &entry.value;
        let time = match entry.key.as_str() {
            "syncPeriod" => {
                controller.sync_period = period(value, findings).unwrap_or(controller.sync_period);
                continue;
            }
            "metricResolution" => {
                controller.metric_resolution = period(value, findings);
                continue;
            }
            "tolerance" => {
                const WHAT: &str = "a share such as 0.1, 0 or more";
                match value.number::<f64>(WHAT, findings) {
                    Some(share) if share.is_finite() && share >= 0.0 => controller.tolerance = share,
                    Some(_) => value.mismatch(WHAT, findings),
                    None => {}
                }
                continue;
            }
            "configurableTolerance" => {
                controller.configurable_tolerance = value.boolean(findings).unwrap_or(true);
                continue;
            }
            "sources" => {
                sources = read_sources(value, directory, findings);
                continue;
            }
            "cpuInitializationPeriod" => &mut controller.cpu_initialization_period,
            "initialReadinessDelay" => &mut controller.initial_readiness_delay,
            "downscaleStabilization" => &mut controller.downscale_stabilization,
            _ => {
                unknown(entry, &OPTIONS, findings);
                continue;
            }
        };
        match value.duration(findings) {
            Some(given) if given <= TIME_MOST => *time = given,
            Some(_) => findings.error(&value.position, format!("{} is longer than a day", entry.key)),
            None => {}
        }
    }
    (controller, sources)
}

fn period(node: &Node, findings: &mut Findings) -> Option<Duration> {
    let period = node.duration(findings)?;
    if !PERIODS.contains(&period) {
        findings.error_with_hint(&node.position, "a period is from 200ms to 1h", "Kubernetes' own is 15s");
        return None;
    }
    Some(period)
}

fn read_sources(node: &Node, directory: &Path, findings: &mut Findings) -> BTreeMap<String, MetricSource> {
    let mut sources = BTreeMap::new();
    for entry in node.map(findings).unwrap_or_default() {
        let mut source = MetricSource::default();
        for field in entry.value.map(findings).unwrap_or_default() {
            let value = &field.value;
            let text = |findings: &mut Findings| value.nonempty(findings).map(str::to_owned);
            match field.key.as_str() {
                "url" => source.url = text(findings).filter(|text| is_url(text, value, findings)),
                "ca" => source.ca = text(findings).map(|path| clean(&directory.join(path))),
                "path" => {
                    source.path = text(findings);
                    if source.path.as_ref().is_some_and(|path| !is_path(path)) {
                        findings.error_with_hint(&value.position, "this is no path", "begin it with /");
                    }
                }
                "series" => source.series = text(findings),
                "port" => match value.number::<u16>("a port from 1 to 65535", findings) {
                    Some(0) => value.mismatch("a port from 1 to 65535", findings),
                    port => source.port = port,
                },
                "as" => source.reading = value.choice(&READINGS, findings),
                _ => unknown(field, &SOURCE_KEYS, findings),
            }
        }
        if source.url.is_some() && (source.port.is_some() || source.path.is_some()) {
            let hint = "write both into the url";
            findings.error_with_hint(&entry.key_at, "a source with a url has no port and path", hint);
        }
        let over_tls = source.url.as_ref().is_some_and(|url| url.starts_with("https:"));
        if source.ca.is_some() && !over_tls {
            let hint = "write a url that begins with https://, or leave ca out";
            findings.error_with_hint(&entry.key_at, "certificates are for a source with an https url", hint);
        }
        sources.insert(entry.key.clone(), source);
    }
    sources
}

fn is_path(text: &str) -> bool {
    text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Whether it is an address that can be asked; told if not.
fn is_url(text: &str, node: &Node, findings: &mut Findings) -> bool {
    const HINT: &str = "write http://HOST:PORT/PATH, or the same with https";
    let Some(("http" | "https", rest)) = text.split_once("://") else {
        findings.error_with_hint(&node.position, format!("{text:?} is no URL"), HINT);
        return false;
    };
    let (host, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    };
    let port_is_good = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    let name_is_good = !name.is_empty() && !name.contains(['@', '?', '#']) && name.is_ascii();
    if !(port_is_good && name_is_good && is_path(path)) {
        findings.error_with_hint(&node.position, format!("{text:?} is no URL"), HINT);
        return false;
    }
    true
}
