//! What is decided of each service before any object is written, since several objects must agree on it.

use crate::context::{Context, of_service};
use crate::findings::Findings;
use crate::kompose::{self, Controller, Hints, VolumeHints, VolumeType};
use crate::names::{MAX_CRON_JOB, Names};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use throng_model::app::{
    App, Condition, HealthCheck, HealthTest, MountSource, Protocol, RestartPolicy, Service,
};
use throng_model::job::Job;

/// The kind of controller that a service becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Deployment,
    /// Replicas with names of their own, or a volume each.
    StatefulSet,
    /// One on each node.
    DaemonSet,
    Job,
    CronJob,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Deployment => "Deployment",
            Kind::StatefulSet => "StatefulSet",
            Kind::DaemonSet => "DaemonSet",
            Kind::Job => "Job",
            Kind::CronJob => "CronJob",
        }
    }

    /// Whether its pods end by themselves.
    pub fn ends(self) -> bool {
        matches!(self, Kind::Job | Kind::CronJob)
    }

    /// Whether it has a number of replicas that others may change.
    pub fn scales(self) -> bool {
        matches!(self, Kind::Deployment | Kind::StatefulSet)
    }
}

/// A port inside the pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PodPort {
    pub name: String,
    pub port: u16,
    pub protocol: Protocol,
    pub app_protocol: Option<&'static str>,
    /// Ports of a host that stand for it in the file; `None` among them for one that the host chooses.
    pub published: Vec<Option<u16>>,
    /// `ports` or `expose` names it, not a health check alone.
    pub declared: bool,
}

impl PodPort {
    pub fn protocol(&self) -> &'static str {
        match self.protocol {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
        }
    }
}

/// A service on its way.
pub(crate) struct Plan<'a> {
    pub service: &'a Service,
    /// What its objects are called.
    pub name: String,
    pub hints: Hints,
    pub kind: Kind,
    pub job: Option<Job>,
    pub readiness: Option<HealthCheck>,
    pub liveness: Option<HealthCheck>,
    pub startup: Option<HealthCheck>,
    pub ports: Vec<PodPort>,
    /// Replicas that others name, by their ordinals from 1.
    pub addressed: BTreeSet<u32>,
    /// Others ask for it by name.
    pub asked_for: bool,
    /// Further names that it answers to.
    pub aliases: BTreeSet<&'a str>,
    /// Volumes of which each replica gets one of its own: keys of the app's.
    pub claimed: BTreeSet<&'a str>,
    /// Its number of replicas is an autoscaler's.
    pub autoscaled: bool,
}

impl Plan<'_> {
    /// Whether there is a Service.
    pub fn has_service(&self) -> bool {
        let said = self.hints.service_type.is_some() || self.hints.expose.is_some();
        let governs = self.kind == Kind::StatefulSet;
        governs || said || self.asked_for || self.ports.iter().any(|port| port.declared)
    }

    pub fn replicas(&self) -> u32 {
        self.service.replicas
    }
}

/// Volumes of the app with what is known of all who use them.
pub(crate) struct VolumeUse<'a> {
    /// Services that mount it.
    pub users: BTreeSet<&'a str>,
    pub hints: VolumeHints,
}

pub(crate) type Volumes<'a> = BTreeMap<&'a str, VolumeUse<'a>>;

/// Everything that objects are made from.
pub(crate) struct Plans<'a> {
    pub services: BTreeMap<&'a str, Plan<'a>>,
    pub volumes: Volumes<'a>,
    pub names: Names,
}

impl<'a> Plans<'a> {
    pub fn of(cx: &Context<'a>, findings: &mut Findings<'_>) -> Plans<'a> {
        let app = cx.app;
        let mut hints: BTreeMap<&str, Hints> = app
            .services
            .iter()
            .map(|(key, service)| (key.as_str(), kompose::of_service(service, findings)))
            .collect();
        let overrides: BTreeMap<&str, &str> =
            hints.iter().filter_map(|(key, hints)| Some((*key, hints.name.as_deref()?))).collect();
        let names = Names::of(cx, &overrides, findings);
        let volumes = volumes(app, &hints, findings);
        let mentions = Mentions::of(app);
        let completed = completed(app);
        let services = app
            .services
            .iter()
            .map(|(key, service)| {
                let hints = hints.remove(key.as_str()).unwrap_or_default();
                let surroundings =
                    Surroundings { volumes: &volumes, mentions: &mentions, completed: &completed };
                let plan = plan(service, names.service(key).to_owned(), hints, &surroundings);
                (key.as_str(), plan)
            })
            .collect();
        let plans = Plans { services, volumes, names };
        plans.check(findings);
        plans
    }

    fn check(&self, findings: &mut Findings<'_>) {
        for (key, plan) in &self.services {
            let length = plan.name.len();
            if plan.kind == Kind::CronJob && length > MAX_CRON_JOB {
                let message =
                    format!("the name of a CronJob has {MAX_CRON_JOB} characters at most, not {length}");
                let hint = "give it a shorter one with the label kompose.service.name_override";
                findings.error(&["services", key], message, hint);
            }
        }
    }
}

fn volumes<'a>(
    app: &'a App,
    hints: &BTreeMap<&str, Hints>,
    findings: &mut Findings<'_>,
) -> BTreeMap<&'a str, VolumeUse<'a>> {
    let mut volumes: BTreeMap<&str, VolumeUse<'_>> = app
        .volumes
        .iter()
        .map(|(key, volume)| {
            let hints = kompose::of_declared_volume(key, &volume.labels, findings);
            (key.as_str(), VolumeUse { users: BTreeSet::new(), hints })
        })
        .collect();
    for (name, service) in &app.services {
        for mount in &service.mounts {
            let MountSource::Volume(key) = &mount.source else { continue };
            if let Some(volume) = volumes.get_mut(key.as_str()) {
                volume.users.insert(name);
                let of_service = hints.get(name.as_str()).map(|hints| hints.volumes.clone());
                volume.hints = volume.hints.or(&of_service.unwrap_or_default());
            }
        }
    }
    volumes
}

/// Services that others wait for to have ended well.
fn completed(app: &App) -> BTreeSet<&str> {
    let all = app.services.values().flat_map(|service| &service.depends_on);
    let ended = all.filter(|(_, on)| on.condition == Condition::ServiceCompletedSuccessfully);
    ended.map(|(name, _)| name.as_str()).collect()
}

struct Surroundings<'s, 'a> {
    volumes: &'s Volumes<'a>,
    mentions: &'s Mentions<'a>,
    completed: &'s BTreeSet<&'a str>,
}

fn plan<'a>(service: &'a Service, name: String, hints: Hints, around: &Surroundings<'_, 'a>) -> Plan<'a> {
    let job = job(service, &hints, around.completed);
    let autoscaled = service.autoscale.is_some() || hints.scaling.is_some();
    let enabled =
        |check: Option<&HealthCheck>| check.filter(|check| check.test != HealthTest::Disabled).cloned();
    let addressed = around.mentions.ordinals(service);
    let on_each = service.placement.on_each || hints.controller == Some(Controller::DaemonSet);
    let mut kind = match (&job, hints.controller) {
        (Some(job), _) if job.schedule.is_some() => Kind::CronJob,
        (Some(_), _) => Kind::Job,
        (None, _) if on_each => Kind::DaemonSet,
        (None, Some(Controller::StatefulSet)) => Kind::StatefulSet,
        (None, None) if !addressed.is_empty() => Kind::StatefulSet,
        (None, _) => Kind::Deployment,
    };
    let may_claim = match hints.controller {
        Some(controller) => controller == Controller::StatefulSet && kind == Kind::StatefulSet,
        None => kind.scales() && !autoscaled && service.replicas <= 1,
    };
    let claimed = if may_claim { claimed(service, around.volumes) } else { BTreeSet::new() };
    if kind == Kind::Deployment && !claimed.is_empty() {
        kind = Kind::StatefulSet;
    }
    Plan {
        readiness: enabled(hints.readiness.as_ref().or(service.health_check.as_ref())),
        liveness: enabled(hints.liveness.as_ref().or(service.liveness.as_ref())),
        startup: enabled(service.startup.as_ref()),
        ports: ports(service, &hints),
        asked_for: around.mentions.is_asked_for(service),
        aliases: around.mentions.aliases(service),
        autoscaled: autoscaled && kind.scales(),
        service,
        name,
        kind,
        job,
        addressed,
        claimed,
        hints,
    }
}

/// What of a service is run to completion: it says so, or others wait for its end.
fn job(service: &Service, hints: &Hints, completed: &BTreeSet<&str>) -> Option<Job> {
    let scheduled = || {
        hints
            .cron
            .clone()
            .filter(|job| job.schedule.as_ref().is_some_and(|schedule| !schedule.expression.is_empty()))
    };
    let awaited = || {
        completed.contains(service.name.as_str()).then(|| Job {
            parallelism: None,
            retries: match service.restart {
                RestartPolicy::No => 0,
                RestartPolicy::OnFailure(Some(most)) => most,
                _ => Job::default().retries,
            },
            ..Job::default()
        })
    };
    service.job.clone().or_else(scheduled).or_else(awaited)
}

/// Volumes that are this service's alone and written to: its replicas are better off with one each.
fn claimed<'a>(service: &'a Service, volumes: &Volumes<'a>) -> BTreeSet<&'a str> {
    let own = |key: &str| {
        volumes.get(key).is_some_and(|volume| {
            volume.users.len() == 1 && volume.hints.kind.is_none_or(|kind| kind == VolumeType::Claim)
        })
    };
    let mounts = service.mounts.iter().filter(|mount| !mount.read_only);
    mounts
        .filter_map(|mount| match &mount.source {
            MountSource::Volume(key) if own(key) => Some(key.as_str()),
            _ => None,
        })
        .collect()
}

/// The ports of pods in the order of the file: those that are published, those that are exposed, those that health
/// checks ask.
fn ports(service: &Service, hints: &Hints) -> Vec<PodPort> {
    let mut ports: Vec<PodPort> = Vec::new();
    for port in &service.ports {
        let known = ports.iter_mut().find(|one| (one.port, one.protocol) == (port.target, port.protocol));
        match known {
            Some(known) => known.published.push(port.published),
            None => {
                let mut new = pod_port(port.target, port.protocol, port.app_protocol.as_deref());
                new.published.push(port.published);
                ports.push(new);
            }
        }
    }
    for exposed in &service.expose {
        if !ports.iter().any(|one| (one.port, one.protocol) == (exposed.port, exposed.protocol)) {
            ports.push(pod_port(exposed.port, exposed.protocol, None));
        }
    }
    let checks = [
        hints.readiness.as_ref().or(service.health_check.as_ref()),
        hints.liveness.as_ref().or(service.liveness.as_ref()),
        service.startup.as_ref(),
    ];
    for check in checks.into_iter().flatten() {
        let port = match check.test {
            HealthTest::Http { port, .. } | HealthTest::Tcp { port } | HealthTest::Grpc { port, .. } => port,
            _ => continue,
        };
        if !ports.iter().any(|one| (one.port, one.protocol) == (port, Protocol::Tcp)) {
            ports.push(PodPort { declared: false, ..pod_port(port, Protocol::Tcp, None) });
        }
    }
    name_ports(&mut ports);
    ports
}

fn pod_port(port: u16, protocol: Protocol, app_protocol: Option<&str>) -> PodPort {
    // The names that the API server knows; of h2c there is one only with Kubernetes' own prefix.
    let app_protocol = match app_protocol {
        Some("http") => Some("http"),
        Some("http2" | "h2c") => Some("kubernetes.io/h2c"),
        Some("grpc") => Some("grpc"),
        _ => None,
    };
    PodPort { name: String::new(), port, protocol, app_protocol, published: Vec::new(), declared: true }
}

/// Ports are called by what they speak where that is known and said once, else by their number.
fn name_ports(ports: &mut [PodPort]) {
    let speaks = |port: &PodPort| match port.app_protocol {
        Some("kubernetes.io/h2c") => Some("http2"),
        other => other,
    };
    let mut count: HashMap<&str, usize> = HashMap::new();
    for port in ports.iter() {
        if let Some(word) = speaks(port) {
            *count.entry(word).or_default() += 1;
        }
    }
    for port in ports.iter_mut() {
        port.name = match speaks(port).filter(|word| count.get(word) == Some(&1)) {
            Some(word) => word.to_owned(),
            None => format!("{}-{}", port.protocol().to_ascii_lowercase(), port.port),
        };
    }
}

/// Words of what services are given, by which they may ask for others.
struct Mentions<'a> {
    /// Services that use a word.
    words: HashMap<&'a str, HashSet<&'a str>>,
    /// Services that others depend on while they run, or give other names to.
    needed: BTreeSet<&'a str>,
}

impl<'a> Mentions<'a> {
    fn of(app: &'a App) -> Mentions<'a> {
        let mut words: HashMap<&str, HashSet<&str>> = HashMap::new();
        let mut needed = BTreeSet::new();
        for (name, service) in &app.services {
            let lists = service.command.iter().chain(&service.entrypoint).flatten();
            let test = service.health_check.iter().flat_map(|check| match &check.test {
                HealthTest::Exec(words) => words.as_slice(),
                HealthTest::Shell(command) => std::slice::from_ref(command),
                _ => &[],
            });
            for text in lists.chain(service.environment.values()).chain(test) {
                for word in split(text) {
                    words.entry(word).or_default().insert(name);
                }
            }
            let runs = |on: Condition| on != Condition::ServiceCompletedSuccessfully;
            needed.extend(
                service.depends_on.iter().filter(|(_, on)| runs(on.condition)).map(|(name, _)| name.as_str()),
            );
            if service.networks.values().any(|network| !network.aliases.is_empty()) {
                needed.insert(name);
            }
        }
        Mentions { words, needed }
    }

    fn used_by_others(&self, word: &str, service: &str) -> bool {
        self.words.get(word).is_some_and(|users| users.iter().any(|user| *user != service))
    }

    fn is_asked_for(&self, service: &Service) -> bool {
        let name = service.name.as_str();
        self.needed.contains(name) || self.used_by_others(name, name) || !self.aliases(service).is_empty()
    }

    /// Names in the networks, and the container's if somebody uses it.
    fn aliases(&self, service: &'a Service) -> BTreeSet<&'a str> {
        let networks = service.networks.values().flat_map(|network| &network.aliases).map(String::as_str);
        let own = service.container_name.as_deref();
        let own = own.filter(|own| self.used_by_others(own, &service.name));
        networks.chain(own).filter(|alias| *alias != service.name).collect()
    }

    /// Ordinals of the replicas that somebody names, they themselves included: `db-1`.
    fn ordinals(&self, service: &Service) -> BTreeSet<u32> {
        let replicas = service.replicas.min(MAX_ADDRESSED);
        (1..=replicas).filter(|n| self.words.contains_key(format!("{}-{n}", service.name).as_str())).collect()
    }
}

/// Replicas that are looked for by name; beyond, nobody lists them by hand.
const MAX_ADDRESSED: u32 = 100;

/// The words of a text that could be host names, with and without what follows a dot.
fn split(text: &str) -> impl Iterator<Item = &str> {
    let host = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    text.split(move |c| !host(c)).filter(|word| !word.is_empty()).flat_map(|word| {
        let first = word.split('.').next().filter(|first| first.len() < word.len() && !first.is_empty());
        std::iter::once(word).chain(first)
    })
}

/// Where the number of replicas is said.
pub(crate) fn replicas_at<'k>(cx: &Context<'_>, service: &'k str) -> Vec<&'k str> {
    let keys = ["deploy.replicas", "scale", "x-throng.job.completions"];
    let said = keys.into_iter().find(|key| cx.says(service, key));
    of_service(service, said.unwrap_or("deploy.replicas"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_in_what_services_are_given() {
        let words: Vec<&str> = split("postgres://u:p@db:5432/x,my_db.back;10.0.0.1").collect();
        for word in ["postgres", "u", "p", "db", "5432", "x", "my_db.back", "my_db"] {
            assert!(words.contains(&word), "{word} in {words:?}");
        }
    }

    #[test]
    fn ports_are_called_by_what_they_speak() {
        let mut ports = vec![
            pod_port(80, Protocol::Tcp, Some("http")),
            pod_port(53, Protocol::Udp, None),
            pod_port(9000, Protocol::Tcp, Some("grpc")),
            pod_port(9001, Protocol::Tcp, Some("grpc")),
        ];
        name_ports(&mut ports);
        let names: Vec<&str> = ports.iter().map(|port| port.name.as_str()).collect();
        assert_eq!(names, ["http", "udp-53", "tcp-9000", "tcp-9001"]);
    }
}
