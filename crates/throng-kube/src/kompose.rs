//! The labels by which a Compose file tells Kompose what it has no words for (`kompose.…`, as of Kompose 1.38), read with
//! the same names and values, so that a file that was written for Kompose can be converted as it is.
//!
//! What differs on purpose is in `docs/from-kompose.md`.

use crate::findings::Findings;
use crate::names::{is_label, is_service_name, is_subdomain};
use crate::quantity::parse_milli;
use probes::ProbeParts;
use std::time::Duration;
use throng_model::app::{HealthCheck, Service};
use throng_model::job::{Concurrency, Job, Schedule};
use throng_model::units::parse_duration;

mod probes;

const PREFIX: &str = "kompose.";

/// All labels that are read, those of volumes among them.
pub const LABELS: [&str; 45] = [
    "kompose.controller.port.expose",
    "kompose.controller.type",
    "kompose.cronjob.backoff_limit",
    "kompose.cronjob.concurrency_policy",
    "kompose.cronjob.schedule",
    "kompose.ephemeral-storage.limit",
    "kompose.ephemeral-storage.request",
    "kompose.hpa.cpu",
    "kompose.hpa.memory",
    "kompose.hpa.replicas.max",
    "kompose.hpa.replicas.min",
    "kompose.image-pull-policy",
    "kompose.image-pull-secret",
    "kompose.init.containers.command",
    "kompose.init.containers.image",
    "kompose.init.containers.name",
    "kompose.security-context.fsgroup",
    "kompose.service.expose",
    "kompose.service.expose.ingress-class-name",
    "kompose.service.expose.tls-secret",
    "kompose.service.external-traffic-policy",
    "kompose.service.group",
    "kompose.service.healthcheck.liveness.http_get_path",
    "kompose.service.healthcheck.liveness.http_get_port",
    "kompose.service.healthcheck.liveness.tcp_port",
    "kompose.service.healthcheck.readiness.disable",
    "kompose.service.healthcheck.readiness.http_get_path",
    "kompose.service.healthcheck.readiness.http_get_port",
    "kompose.service.healthcheck.readiness.interval",
    "kompose.service.healthcheck.readiness.retries",
    "kompose.service.healthcheck.readiness.start_period",
    "kompose.service.healthcheck.readiness.tcp_port",
    "kompose.service.healthcheck.readiness.test",
    "kompose.service.healthcheck.readiness.timeout",
    "kompose.service.name_override",
    "kompose.service.nodeport.port",
    "kompose.service.type",
    "kompose.serviceaccount-name",
    "kompose.volume.selector",
    "kompose.volume.size",
    "kompose.volume.storage-class-name",
    "kompose.volume.subpath",
    "kompose.volume.type",
    "kompose.controller.expose.port",
    "kompose.service.expose.path",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Controller {
    Deployment,
    StatefulSet,
    DaemonSet,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ServiceType {
    ClusterIp,
    NodePort,
    LoadBalancer,
    Headless,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum VolumeType {
    ConfigMap,
    Claim,
    EmptyDir,
    HostPath,
}

/// What autoscaling is asked to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Aim {
    /// Percent of the request.
    Utilization(i32),
    /// A quantity for each replica, as written.
    Average(String),
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Scaling {
    pub min: Option<i32>,
    pub max: Option<i32>,
    pub cpu: Option<Aim>,
    pub memory: Option<Aim>,
}

/// An Ingress: hosts with paths; no host means any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Expose {
    pub hosts: Vec<(Option<String>, String)>,
    pub tls: Option<String>,
    pub class: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Init {
    pub name: Option<String>,
    pub image: Option<String>,
    pub command: Vec<String>,
}

/// What the labels of one service say.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Hints {
    pub controller: Option<Controller>,
    pub host_ports: bool,
    pub cron: Option<Job>,
    pub backoff_limit: Option<u32>,
    pub ephemeral_limit: Option<String>,
    pub ephemeral_request: Option<String>,
    pub scaling: Option<Scaling>,
    pub pull_policy: Option<&'static str>,
    pub pull_secret: Option<String>,
    pub init: Option<Init>,
    pub fs_group: Option<i64>,
    pub expose: Option<Expose>,
    pub traffic_policy: Option<&'static str>,
    pub liveness: Option<HealthCheck>,
    pub readiness: Option<HealthCheck>,
    pub name: Option<String>,
    pub node_port: Option<u16>,
    pub service_type: Option<ServiceType>,
    pub service_account: Option<String>,
    pub volumes: VolumeHints,
}

/// What labels say of volumes: of a volume itself, or of a service about all of its volumes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct VolumeHints {
    pub kind: Option<VolumeType>,
    pub size: Option<String>,
    pub class: Option<String>,
    pub subpath: Option<String>,
    pub selector: Option<String>,
}

impl VolumeHints {
    /// What is said nearer to the volume wins.
    pub fn or(&self, further: &VolumeHints) -> VolumeHints {
        VolumeHints {
            kind: self.kind.or(further.kind),
            size: self.size.clone().or_else(|| further.size.clone()),
            class: self.class.clone().or_else(|| further.class.clone()),
            subpath: self.subpath.clone().or_else(|| further.subpath.clone()),
            selector: self.selector.clone().or_else(|| further.selector.clone()),
        }
    }
}

/// Whether a label is for conversion, and so no annotation of what comes out.
pub(crate) fn is_hint(label: &str) -> bool {
    label.starts_with(PREFIX)
}

/// Where the labels of something stand: `services`, `web`, `labels`.
struct Reader<'r, 'f> {
    path: Vec<&'r str>,
    findings: &'r mut Findings<'f>,
}

impl<'r> Reader<'r, '_> {
    fn wrong(&mut self, label: &'r str, value: &str, expected: &str) {
        self.path.push(label);
        let message = format!("{label}: {value:?} is not {expected}");
        self.findings.error(&self.path, message, "docs/from-kompose.md lists what each label may say");
        self.path.pop();
    }

    fn choice<T: Copy>(&mut self, label: &'r str, value: &str, words: &[(&str, T)]) -> Option<T> {
        let found = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(value));
        if found.is_none() {
            let list: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.wrong(label, value, &format!("one of {}", list.join(", ")));
        }
        found.map(|(_, value)| *value)
    }

    fn number<T: std::str::FromStr + PartialOrd>(
        &mut self,
        label: &'r str,
        value: &str,
        least: T,
    ) -> Option<T> {
        let number = value.trim().parse().ok().filter(|number| *number >= least);
        if number.is_none() {
            self.wrong(label, value, "a whole number in its range");
        }
        number
    }

    fn checked(&mut self, label: &'r str, value: &str, good: bool, expected: &str) -> Option<String> {
        if !good {
            self.wrong(label, value, expected);
        }
        good.then(|| value.to_owned())
    }

    fn boolean(&mut self, label: &'r str, value: &str) -> Option<bool> {
        self.choice(label, value, &[("true", true), ("false", false)])
    }

    fn duration(&mut self, label: &'r str, value: &str) -> Option<Duration> {
        let time = parse_duration(value).ok();
        if time.is_none() {
            self.wrong(label, value, "a duration such as 1m30s");
        }
        time
    }

    fn quantity(&mut self, label: &'r str, value: &str) -> Option<String> {
        self.checked(label, value, parse_milli(value).is_some(), "a quantity such as 200Mi")
    }

    /// `80`, `80%` or a quantity for each replica: `500m`, `200Mi`. A bare number is a percentage, as Kompose has it.
    fn aim(&mut self, label: &'r str, value: &str) -> Option<Aim> {
        let percent = value.trim().trim_end_matches('%').trim_end();
        match percent.parse::<i32>() {
            Ok(percent) if percent > 0 => return Some(Aim::Utilization(percent)),
            Ok(_) => {}
            Err(_) if parse_milli(value).is_some_and(|milli| milli > 0) => {
                return Some(Aim::Average(value.to_owned()));
            }
            Err(_) => {}
        }
        self.wrong(label, value, "a percentage such as 80%, or a quantity such as 500m or 200Mi");
        None
    }
}

/// Reads the labels of a service, those under `deploy` among them.
pub(crate) fn of_service(service: &Service, findings: &mut Findings<'_>) -> Hints {
    let mut hints = Hints::default();
    let (mut readiness, mut liveness) = (ProbeParts::default(), ProbeParts::default());
    let own = service.labels.iter().map(|label| (vec!["services", &service.name, "labels"], label));
    let deploy = service
        .deploy_labels
        .iter()
        .map(|label| (vec!["services", &service.name, "deploy", "labels"], label));
    for (path, (label, value)) in own.chain(deploy).filter(|(_, (label, _))| is_hint(label)) {
        let mut reader = Reader { path, findings };
        let value = value.trim();
        let known = of_controller(label, value, &mut hints, &mut reader)
            || of_address(label, value, &mut hints, &mut reader)
            || probes::read(label, value, (&mut readiness, &mut liveness), &mut reader)
            || of_volume(label, value, &mut hints.volumes, &mut reader);
        if !known {
            unknown(label, &mut reader);
        }
    }
    let first_port = service.ports.first().map(|port| port.target);
    if !readiness.is_empty() {
        hints.readiness = readiness.over(service.health_check.as_ref(), first_port);
    }
    if !liveness.is_empty() {
        // Kompose lets liveness take its times from the healthcheck.
        hints.liveness = liveness.over(service.health_check.as_ref(), first_port);
    }
    if let (Some(job), Some(retries)) = (&mut hints.cron, hints.backoff_limit) {
        job.retries = retries;
    }
    hints
}

/// Reads the labels of a volume.
pub(crate) fn of_declared_volume(
    name: &str,
    labels: &std::collections::BTreeMap<String, String>,
    findings: &mut Findings<'_>,
) -> VolumeHints {
    let mut hints = VolumeHints::default();
    for (label, value) in labels.iter().filter(|(label, _)| is_hint(label)) {
        let mut reader = Reader { path: vec!["volumes", name, "labels"], findings };
        if !of_volume(label, value.trim(), &mut hints, &mut reader) {
            unknown(label, &mut reader);
        }
    }
    hints
}

fn unknown<'r>(label: &'r str, reader: &mut Reader<'r, '_>) {
    let nearest = LABELS.iter().max_by(|a, b| {
        let likeness = |other: &str| strsim::jaro_winkler(label, other);
        likeness(a).total_cmp(&likeness(b))
    });
    let hint = match nearest {
        Some(near) => format!("did you mean {near}?"),
        None => "docs/from-kompose.md lists them".into(),
    };
    reader.path.push(label);
    reader.findings.warn(&reader.path, format!("the label {label} is not known"), hint);
    reader.path.pop();
}

fn of_controller<'r>(label: &'r str, value: &str, hints: &mut Hints, reader: &mut Reader<'r, '_>) -> bool {
    const KINDS: [(&str, Controller); 4] = [
        ("deployment", Controller::Deployment),
        ("statefulset", Controller::StatefulSet),
        ("daemonset", Controller::DaemonSet),
        // What Deployments stand for today.
        ("replicationcontroller", Controller::Deployment),
    ];
    const CONCURRENCY: [(&str, Concurrency); 4] = [
        ("Allow", Concurrency::Allow),
        ("Forbid", Concurrency::Forbid),
        ("Replace", Concurrency::Replace),
        ("Never", Concurrency::Forbid),
    ];
    let scaling = |hints: &mut Hints, set: &mut dyn FnMut(&mut Scaling)| {
        set(hints.scaling.get_or_insert_default());
    };
    let init = |hints: &mut Hints, set: &mut dyn FnMut(&mut Init)| set(hints.init.get_or_insert_default());
    match label {
        "kompose.controller.type" => hints.controller = reader.choice(label, value, &KINDS),
        "kompose.cronjob.schedule" => schedule(hints).expression = value.to_owned(),
        "kompose.cronjob.concurrency_policy" => {
            let policy = reader.choice(label, value, &CONCURRENCY);
            schedule(hints).concurrency = policy.unwrap_or_default();
        }
        "kompose.cronjob.backoff_limit" => hints.backoff_limit = reader.number(label, value, 0),
        "kompose.hpa.replicas.min" => {
            let count = reader.number(label, value, 0);
            scaling(hints, &mut |scaling| scaling.min = count);
        }
        "kompose.hpa.replicas.max" => {
            let count = reader.number(label, value, 1);
            scaling(hints, &mut |scaling| scaling.max = count);
        }
        "kompose.hpa.cpu" => {
            let aim = reader.aim(label, value);
            scaling(hints, &mut |scaling| scaling.cpu = aim.clone());
        }
        "kompose.hpa.memory" => {
            let aim = reader.aim(label, value);
            scaling(hints, &mut |scaling| scaling.memory = aim.clone());
        }
        "kompose.init.containers.name" => {
            let name =
                reader.checked(label, value, is_label(value), "a name of lower-case letters, digits and -");
            init(hints, &mut |init| init.name = name.clone());
        }
        "kompose.init.containers.image" => init(hints, &mut |init| init.image = Some(value.to_owned())),
        "kompose.init.containers.command" => {
            let command = words(value);
            init(hints, &mut |init| init.command = command.clone());
        }
        "kompose.ephemeral-storage.limit" => hints.ephemeral_limit = reader.quantity(label, value),
        "kompose.ephemeral-storage.request" => hints.ephemeral_request = reader.quantity(label, value),
        "kompose.security-context.fsgroup" => hints.fs_group = reader.number(label, value, 0),
        _ => return false,
    }
    true
}

/// The schedule of the job that labels ask for.
fn schedule(hints: &mut Hints) -> &mut Schedule {
    let job = hints.cron.get_or_insert_with(Job::default);
    job.schedule.get_or_insert_with(|| Schedule {
        expression: String::new(),
        timezone: None,
        concurrency: Concurrency::default(),
        starting_deadline: None,
        suspend: false,
    })
}

fn of_address<'r>(label: &'r str, value: &str, hints: &mut Hints, reader: &mut Reader<'r, '_>) -> bool {
    const TYPES: [(&str, ServiceType); 4] = [
        ("clusterip", ServiceType::ClusterIp),
        ("nodeport", ServiceType::NodePort),
        ("loadbalancer", ServiceType::LoadBalancer),
        ("headless", ServiceType::Headless),
    ];
    const PULLS: [(&str, &str); 3] =
        [("Always", "Always"), ("IfNotPresent", "IfNotPresent"), ("Never", "Never")];
    const OBJECT: &str = "the name of an object in a cluster";
    match label {
        "kompose.service.type" => hints.service_type = reader.choice(label, value, &TYPES),
        "kompose.service.nodeport.port" => hints.node_port = reader.number(label, value, 1),
        "kompose.service.external-traffic-policy" => {
            hints.traffic_policy = reader.choice(label, value, &[("cluster", "Cluster"), ("local", "Local")]);
        }
        "kompose.service.name_override" => {
            let name = value.to_ascii_lowercase();
            let good = is_service_name(&name);
            hints.name = reader.checked(label, &name, good, "a name that a Service can have");
        }
        "kompose.service.expose" => {
            let hosts = hosts(value);
            let wrong = hosts.iter().find(|(host, _)| host.as_deref().is_some_and(|host| !is_host(host)));
            if wrong.is_some() {
                reader.wrong(label, value, "\"true\" or hosts with commas between them");
            }
            hints.expose.get_or_insert_default().hosts = hosts;
        }
        "kompose.service.expose.path" => {
            let expose = hints.expose.get_or_insert_default();
            for (_, path) in expose.hosts.iter_mut().filter(|(_, path)| path == "/") {
                *path = value.to_owned();
            }
        }
        "kompose.service.expose.tls-secret" => {
            let name = reader.checked(label, value, is_subdomain(value), OBJECT);
            hints.expose.get_or_insert_default().tls = name;
        }
        "kompose.service.expose.ingress-class-name" => {
            let name = reader.checked(label, value, is_subdomain(value), OBJECT);
            hints.expose.get_or_insert_default().class = name;
        }
        "kompose.image-pull-policy" => hints.pull_policy = reader.choice(label, value, &PULLS),
        "kompose.image-pull-secret" => {
            hints.pull_secret = reader.checked(label, value, is_subdomain(value), OBJECT);
        }
        "kompose.serviceaccount-name" => {
            hints.service_account = reader.checked(label, value, is_subdomain(value), OBJECT);
        }
        // The documentation of Kompose has it both ways.
        "kompose.controller.port.expose" | "kompose.controller.expose.port" => {
            hints.host_ports = reader.boolean(label, value).unwrap_or_default();
        }
        "kompose.service.group" => {
            reader.path.push(label);
            let message = "services are not put into one pod: each keeps a pod of its own";
            let hint = "they find each other by name; share files through a volume, or write the pod by hand";
            reader.findings.warn(&reader.path, message, hint);
            reader.path.pop();
        }
        _ => return false,
    }
    true
}

/// `true,a.example,b.example/path`: without a host any is meant.
fn hosts(value: &str) -> Vec<(Option<String>, String)> {
    let one = |text: &str| {
        let (host, path) = text.split_once('/').unwrap_or((text, ""));
        let host = (!host.eq_ignore_ascii_case("true") && !host.is_empty()).then(|| host.to_owned());
        (host, format!("/{path}"))
    };
    value.split(',').map(str::trim).filter(|text| !text.is_empty()).map(one).collect()
}

/// A host of an Ingress: its first label may be a star.
fn is_host(host: &str) -> bool {
    is_subdomain(host.strip_prefix("*.").unwrap_or(host))
}

/// A list in JSON, or words as a shell would take them apart.
fn words(value: &str) -> Vec<String> {
    serde_json::from_str(value)
        .ok()
        .or_else(|| shlex::split(value))
        .unwrap_or_else(|| value.split_whitespace().map(str::to_owned).collect())
}

fn of_volume<'r>(label: &'r str, value: &str, hints: &mut VolumeHints, reader: &mut Reader<'r, '_>) -> bool {
    const TYPES: [(&str, VolumeType); 4] = [
        ("configMap", VolumeType::ConfigMap),
        ("persistentVolumeClaim", VolumeType::Claim),
        ("emptyDir", VolumeType::EmptyDir),
        ("hostPath", VolumeType::HostPath),
    ];
    match label {
        "kompose.volume.type" => hints.kind = reader.choice(label, value, &TYPES),
        "kompose.volume.size" => hints.size = reader.quantity(label, value),
        "kompose.volume.storage-class-name" => {
            let good = is_subdomain(value);
            hints.class = reader.checked(label, value, good, "the name of a StorageClass");
        }
        "kompose.volume.subpath" => {
            let path = value.trim_start_matches('/');
            let good = !path.is_empty() && path.split('/').all(|part| part != "..");
            hints.subpath = reader.checked(label, path, good, "a path below a volume");
        }
        "kompose.volume.selector" => hints.selector = Some(value.to_owned()),
        _ => return false,
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Nowhere;
    use throng_model::app::HealthTest;

    fn read(labels: &[(&str, &str)]) -> (Hints, Vec<String>) {
        let mut findings = Findings::new(&Nowhere);
        let labels = labels.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let service = Service { name: "web".into(), labels, ..Service::default() };
        let hints = of_service(&service, &mut findings);
        (hints, findings.into_vec().iter().map(ToString::to_string).collect())
    }

    #[test]
    fn every_label_is_read() {
        for label in LABELS {
            for value in [
                "true",
                "1",
                "a",
                "1s",
                "1Mi",
                "/a",
                "Always",
                "deployment",
                "nodeport",
                "local",
                "Forbid",
                "hostPath",
            ] {
                let (_, found) = read(&[(label, value)]);
                assert!(!found.iter().any(|finding| finding.contains("is not known")), "{label}");
                if !found.iter().any(|finding| finding.contains("is not")) {
                    break;
                }
                assert!(value != "hostPath", "no value of {label} is good");
            }
        }
        let (_, found) = read(&[("kompose.service.typ", "nodeport")]);
        assert_eq!(
            found,
            [
                "warning: the label kompose.service.typ is not known (hint: did you mean kompose.service.type?)"
            ]
        );
    }

    #[test]
    fn percentages_and_quantities_are_both_aims() {
        for (value, aim) in [
            ("80", Aim::Utilization(80)),
            ("80%", Aim::Utilization(80)),
            ("500m", Aim::Average("500m".into())),
            ("200Mi", Aim::Average("200Mi".into())),
            ("150 %", Aim::Utilization(150)),
        ] {
            let (hints, found) = read(&[("kompose.hpa.cpu", value)]);
            assert_eq!(
                (hints.scaling.and_then(|scaling| scaling.cpu), found),
                (Some(aim), vec![]),
                "{value}"
            );
        }
        for value in ["", "0", "-1", "0%", "much", "0m"] {
            assert_eq!(read(&[("kompose.hpa.cpu", value)]).1.len(), 1, "{value}");
        }
    }

    #[test]
    fn hosts_are_taken_apart() {
        assert_eq!(
            hosts("true, a.example/x/y,b.example"),
            [
                (None, "/".into()),
                (Some("a.example".into()), "/x/y".into()),
                (Some("b.example".into()), "/".into())
            ]
        );
    }

    #[test]
    fn labels_of_probes_go_over_the_healthcheck() {
        let (hints, found) = read(&[
            ("kompose.service.healthcheck.readiness.http_get_path", "/ready"),
            ("kompose.service.healthcheck.readiness.http_get_port", "81"),
            ("kompose.service.healthcheck.readiness.interval", "7s"),
            ("kompose.service.healthcheck.liveness.tcp_port", "82"),
        ]);
        assert!(found.is_empty(), "{found:?}");
        let readiness = hints.readiness.expect("a readiness check");
        assert_eq!(readiness.test, HealthTest::Http { port: 81, path: "/ready".into() });
        assert_eq!((readiness.interval, readiness.retries), (Duration::from_secs(7), 3));
        assert_eq!(hints.liveness.expect("a liveness check").test, HealthTest::Tcp { port: 82 });
    }
}
