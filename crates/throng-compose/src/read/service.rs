//! One service.

use super::mounts::Mounts;
use super::{Context, Declared, Placed, default_attachment, health, host_path, names, ports};
use crate::dotenv;
use crate::keys::Section;
use crate::yaml::{self, Entry, Findings, Node, Position, Value, nearest};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use throng_model::app::{Build, Condition, Dependency, NetworkAttachment, Resources, RestartPolicy, Service};
use throng_model::diagnostic::Diagnostic;

/// The specification's default.
const STOP_GRACE_PERIOD: Duration = Duration::from_secs(10);
/// Most replicas that can be asked for; ordinals and addresses are sized for far less.
const MAX_REPLICAS: u32 = 100_000;
/// The slowest share of a core that the kernel's scheduler can be told to give: 1 ms in each 100 ms.
const LEAST_CPUS: f64 = 0.01;

pub(super) fn read(
    entry: &Entry,
    project: &str,
    context: &Context<'_>,
    declared: &Declared,
    findings: &mut Findings,
) -> Option<Placed> {
    let node = &entry.value;
    if node.is_null() {
        missing_image(&entry.key, &entry.key_at, findings);
        return None;
    }
    let mut section = Section::open("services.*", node, findings)?;
    let mut service = Service { name: entry.key.clone(), ..Service::default() };
    read_image(&mut section, &mut service, entry, project, context, findings);
    read_process(&mut section, &mut service, context, findings);
    read_lifecycle(&mut section, &mut service, findings);
    let (ports, ports_at) =
        section.take("ports").map(|node| ports::read(node, findings)).unwrap_or_default().into_iter().unzip();
    service.ports = ports;
    if let Some(node) = section.take("expose") {
        service.expose = ports::read_exposed(node, findings);
    }
    let mut mounts = Mounts::default();
    if let Some(node) = section.take("volumes") {
        mounts.read_volumes(node, context, declared, findings);
    }
    if let Some(node) = section.take("tmpfs") {
        mounts.read_tmpfs(node, findings);
    }
    service.mounts = mounts.into_vec();
    let mut dependencies_at = BTreeMap::new();
    if let Some(node) = section.take("depends_on") {
        service.depends_on = read_dependencies(node, declared, &mut dependencies_at, findings);
    }
    service.networks = match section.take("networks") {
        Some(node) => read_networks(node, declared, findings),
        None => default_attachment(),
    };
    section.close(findings);
    Some(Placed { service, key_at: entry.key_at.clone(), ports_at, dependencies_at })
}

fn missing_image(name: &str, at: &Position, findings: &mut Findings) {
    let message = format!("the service {name:?} has neither image nor build");
    findings.error_with_hint(at, message, "add image: with a reference, or build: with a folder");
}

fn read_image(
    section: &mut Section<'_>,
    service: &mut Service,
    entry: &Entry,
    project: &str,
    context: &Context<'_>,
    findings: &mut Findings,
) {
    let image = section.take("image");
    let build = section.take("build");
    service.build = build.and_then(|node| read_build(node, context, findings));
    if let Some(node) = image {
        let Some(text) = node.nonempty(findings) else { return };
        if !names::is_image(text) {
            let hint = "write [REGISTRY/]NAME[:TAG], with the name in lower case";
            findings.error_with_hint(&node.position, format!("{text:?} is not an image reference"), hint);
        }
        service.image = text.to_owned();
    } else if build.is_some() {
        service.image = format!("{project}-{}", entry.key);
    } else {
        missing_image(&entry.key, &entry.key_at, findings);
    }
}

fn read_build(node: &Node, context: &Context<'_>, findings: &mut Findings) -> Option<Build> {
    let mut section = Section::open("services.*.build", node, findings)?;
    let place = section.take("context");
    let dockerfile = section.take("dockerfile").and_then(|node| node.nonempty(findings));
    let target = section.take("target").and_then(|node| node.nonempty(findings)).map(str::to_owned);
    let args = section.take("args").map(|node| variables(node, context, findings)).unwrap_or_default();
    section.close(findings);
    let text = match place {
        Some(node) => {
            let text = node.nonempty(findings)?;
            if text.contains("://") || text.starts_with("git@") || text.ends_with(".git") {
                let hint = "clone it and name the folder";
                findings.error_with_hint(
                    &node.position,
                    "a build from a remote repository is not supported",
                    hint,
                );
                return None;
            }
            text
        }
        None => ".",
    };
    let folder = host_path(text, context);
    let dockerfile = super::clean(&folder.join(dockerfile.unwrap_or("Dockerfile")));
    Some(Build { context: folder, dockerfile, target, args })
}

fn read_process(
    section: &mut Section<'_>,
    service: &mut Service,
    context: &Context<'_>,
    findings: &mut Findings,
) {
    service.command = section.take("command").and_then(|node| words(node, findings));
    service.entrypoint = section.take("entrypoint").and_then(|node| words(node, findings));
    if let Some(node) = section.take("env_file") {
        service.environment = read_env_files(node, context, findings);
    }
    if let Some(node) = section.take("environment") {
        for (name, value) in optional_variables(node, context, findings) {
            match value {
                Some(value) => service.environment.insert(name, value),
                None => service.environment.remove(&name),
            };
        }
    }
    let mut text = |key| section.take(key).and_then(|node| Some((node.nonempty(findings)?.to_owned(), node)));
    let (working_dir, user, hostname) = (text("working_dir"), text("user"), text("hostname"));
    if let Some((path, node)) = &working_dir
        && !path.starts_with('/')
    {
        let message = format!("the working directory must be absolute, and {path:?} is not");
        findings.error_with_hint(&node.position, message, "begin it with /");
    }
    if let Some((name, node)) = &hostname
        && !names::is_host(name)
    {
        let hint = "use letters, digits, hyphens and dots";
        findings.error_with_hint(&node.position, format!("{name:?} is not a host name"), hint);
    }
    service.working_dir = working_dir.map(|(path, _)| path);
    service.user = user.map(|(user, _)| user);
    service.hostname = hostname.map(|(name, _)| name);
    if let Some(node) = section.take("labels") {
        service.labels = node.text_map(findings).unwrap_or_default();
    }
}

fn read_lifecycle(section: &mut Section<'_>, service: &mut Service, findings: &mut Findings) {
    if let Some(node) = section.take("restart") {
        service.restart = read_restart(node, findings).unwrap_or_default();
    }
    service.replicas = 1;
    let scale = section.take("scale");
    let limits = [section.take("cpus"), section.take("mem_limit"), section.take("pids_limit")];
    service.resources.disk = section.take("storage_opt").and_then(|node| storage_size(node, findings));
    let deploy = section.take("deploy");
    read_deploy(deploy, scale, limits, service, findings);
    service.health_check = section.take("healthcheck").and_then(|node| health::read(node, findings));
    if let Some(node) = section.take("stop_signal")
        && let Some(signal) = node.nonempty(findings)
    {
        if !names::is_signal(signal) {
            let hint = "write a name such as SIGTERM, or a number from 1 to 64";
            findings.error_with_hint(&node.position, format!("{signal:?} is not a signal"), hint);
        }
        service.stop_signal = Some(signal.to_owned());
    }
    let grace = section.take("stop_grace_period").and_then(|node| node.duration(findings));
    service.stop_grace_period = grace.unwrap_or(STOP_GRACE_PERIOD);
    if let Some(node) = section.take("profiles") {
        service.profiles = node.texts(findings).unwrap_or_default();
    }
}

/// `limits` are the old keys on the service itself: cpus, mem_limit, pids_limit.
fn read_deploy(
    deploy: Option<&Node>,
    scale: Option<&Node>,
    limits: [Option<&Node>; 3],
    service: &mut Service,
    findings: &mut Findings,
) {
    let mut nested = [None; 3];
    let mut replicas = None;
    if let Some(mut section) = deploy.and_then(|node| Section::open("services.*.deploy", node, findings)) {
        replicas = section.take("replicas");
        if let Some(node) = section.take("restart_policy")
            && let Some(policy) = read_restart_policy(node, findings)
        {
            service.restart = policy;
        }
        let resources = section.take("resources");
        section.close(findings);
        nested = resources.map(|node| resource_limits(node, findings)).unwrap_or_default();
    }
    if let Some((key, node)) =
        [("replicas", replicas), ("scale", scale)].into_iter().find_map(|(key, node)| Some((key, node?)))
    {
        let what = "a whole number of replicas, 0 or more";
        service.replicas = node.number(what, findings).unwrap_or(1);
        if service.replicas > MAX_REPLICAS {
            let message =
                format!("{key} asks for more than {MAX_REPLICAS} replicas, the most of one service");
            findings.error(&node.position, message);
        }
    }
    let pairs = [
        ("scale", scale, "deploy.replicas", replicas),
        ("cpus", limits[0], "deploy.resources.limits.cpus", nested[0]),
        ("mem_limit", limits[1], "deploy.resources.limits.memory", nested[1]),
        ("pids_limit", limits[2], "deploy.resources.limits.pids", nested[2]),
    ];
    for (old, old_node, new, new_node) in pairs {
        let (Some(old_node), Some(new_node)) = (old_node, new_node) else { continue };
        if old_node.scalar() != new_node.scalar() {
            let finding = Diagnostic::error(format!("{old} and {new} say different things"))
                .at(old_node.position.location())
                .related(new_node.position.location(), format!("{new} is given here"));
            findings.push(finding.hint(format!("keep {new}")));
        }
    }
    service.resources = Resources {
        cpus: nested[0].or(limits[0]).and_then(|node| cpus(node, findings)),
        memory: nested[1].or(limits[1]).and_then(|node| node.bytes(findings)).filter(|bytes| *bytes > 0),
        pids: nested[2].or(limits[2]).and_then(|node| pids(node, findings)),
        disk: service.resources.disk,
    };
}

/// Docker's options of its storage drivers; all that limit the writable layer call that `size`.
fn storage_size(node: &Node, findings: &mut Findings) -> Option<u64> {
    let mut section = Section::open("services.*.storage_opt", node, findings)?;
    let size = section.take("size");
    section.close(findings);
    size.and_then(|node| node.bytes(findings)).filter(|bytes| *bytes > 0)
}

fn resource_limits<'a>(node: &'a Node, findings: &mut Findings) -> [Option<&'a Node>; 3] {
    let Some(mut resources) = Section::open("services.*.deploy.resources", node, findings) else {
        return [None; 3];
    };
    let limits = resources.take("limits");
    resources.close(findings);
    let limits = limits.and_then(|node| Section::open("services.*.deploy.resources.limits", node, findings));
    let Some(mut limits) = limits else { return [None; 3] };
    let found = [limits.take("cpus"), limits.take("memory"), limits.take("pids")];
    limits.close(findings);
    found
}

/// 0 means no limit, as it does to Docker.
fn cpus(node: &Node, findings: &mut Findings) -> Option<f64> {
    let what = "a number of cores such as 0.5";
    let cpus: f64 = node.number(what, findings)?;
    if !cpus.is_finite() || cpus < 0.0 {
        node.mismatch(what, findings);
        return None;
    }
    if cpus > 0.0 && cpus < LEAST_CPUS {
        findings.error(&node.position, format!("{LEAST_CPUS} of a core is the least that can be given"));
    }
    (cpus > 0.0).then_some(cpus)
}

/// -1 and 0 mean no limit, as they do to Docker.
fn pids(node: &Node, findings: &mut Findings) -> Option<u64> {
    let pids: i64 = node.number("a whole number of processes, or -1 for no limit", findings)?;
    if pids < -1 {
        node.mismatch("a whole number of processes, or -1 for no limit", findings);
    }
    u64::try_from(pids).ok().filter(|pids| *pids > 0)
}

fn read_restart(node: &Node, findings: &mut Findings) -> Option<RestartPolicy> {
    let text = node.text(findings)?;
    let policy = match text.split_once(':').unwrap_or((text, "")) {
        // YAML 1.1 reads an unquoted `no` as false, so both are seen.
        ("no" | "false", "") => Some(RestartPolicy::No),
        ("always", "") => Some(RestartPolicy::Always),
        ("unless-stopped", "") => Some(RestartPolicy::UnlessStopped),
        ("on-failure", "") if !text.ends_with(':') => Some(RestartPolicy::OnFailure(None)),
        ("on-failure", most) => most.parse().ok().map(|most| RestartPolicy::OnFailure(Some(most))),
        _ => None,
    };
    if policy.is_none() {
        node.mismatch("one of no, always, on-failure[:TIMES], unless-stopped", findings);
    }
    policy
}

fn read_restart_policy(node: &Node, findings: &mut Findings) -> Option<RestartPolicy> {
    const CONDITIONS: [(&str, RestartPolicy); 3] = [
        ("none", RestartPolicy::No),
        ("on-failure", RestartPolicy::OnFailure(None)),
        ("any", RestartPolicy::Always),
    ];
    let mut section = Section::open("services.*.deploy.restart_policy", node, findings)?;
    let condition = section.take("condition");
    let attempts = section.take("max_attempts");
    section.close(findings);
    let policy = match condition {
        Some(node) => node.choice(&CONDITIONS, findings)?,
        None => RestartPolicy::Always,
    };
    let Some(attempts) = attempts else { return Some(policy) };
    let most: u32 = attempts.number("a whole number of restarts", findings)?;
    if policy == RestartPolicy::OnFailure(None) {
        return Some(RestartPolicy::OnFailure(Some(most)));
    }
    findings.warn(&attempts.position, "max_attempts is honoured only with condition: on-failure");
    Some(policy)
}

/// A list of words, or a text that is split as a shell would.
fn words(node: &Node, findings: &mut Findings) -> Option<Vec<String>> {
    let Some(text) = node.scalar() else { return node.texts(findings) };
    let words = shlex::split(text);
    if words.is_none() {
        let hint = "close the quote, or write the words as a list";
        findings.error_with_hint(&node.position, "a quote that does not end", hint);
    }
    words
}

/// Name to value; a name without a value takes it from the caller's environment and is left out if it is not there.
fn variables(node: &Node, context: &Context<'_>, findings: &mut Findings) -> BTreeMap<String, String> {
    let found = optional_variables(node, context, findings);
    found.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

fn optional_variables(
    node: &Node,
    context: &Context<'_>,
    findings: &mut Findings,
) -> Vec<(String, Option<String>)> {
    let mut found = Vec::new();
    for entry in node.map(findings).unwrap_or_default() {
        if entry.key.is_empty() || entry.key.contains(['=', '\0']) {
            findings.error(&entry.key_at, format!("{:?} is not a name of a variable", entry.key));
        }
        let value = match &entry.value.value {
            Value::Null => (context.environment)(&entry.key),
            _ => entry.value.text(findings).map(str::to_owned),
        };
        if value.as_ref().is_some_and(|value| value.contains('\0')) {
            findings.error(&entry.value.position, "a value cannot contain the character 0");
        }
        found.push((entry.key.clone(), value));
    }
    found
}

fn read_env_files(node: &Node, context: &Context<'_>, findings: &mut Findings) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for item in node.list(findings).unwrap_or_default() {
        let mut required = true;
        let mut format = dotenv::Format::Dotenv;
        let path_node = if matches!(item.value, Value::Map(_)) {
            let Some(mut section) = Section::open("services.*.env_file.*", item, findings) else { continue };
            let path = section.take("path");
            required = section.take("required").and_then(|node| node.boolean(findings)).unwrap_or(true);
            let formats = [("raw", dotenv::Format::Raw)];
            if let Some(raw) = section.take("format").and_then(|node| node.choice(&formats, findings)) {
                format = raw;
            }
            section.close(findings);
            path
        } else {
            Some(item)
        };
        let Some(path_node) = path_node else {
            findings.error(&item.position, "an env_file without path");
            continue;
        };
        let Some(text) = path_node.nonempty(findings) else { continue };
        let path = host_path(text, context);
        if !required && !path.exists() {
            continue;
        }
        match yaml::read_file(&path) {
            Ok(text) => {
                let file: Arc<Path> = path.into();
                variables.extend(dotenv::parse(&file, &text, format, context.environment, findings));
            }
            Err(e) => {
                let hint = "create it, or write required: false beside its path";
                findings.error_with_hint(&path_node.position, e.message, hint);
            }
        }
    }
    variables
}

fn read_dependencies(
    node: &Node,
    declared: &Declared,
    places: &mut BTreeMap<String, Position>,
    findings: &mut Findings,
) -> BTreeMap<String, Dependency> {
    const CONDITIONS: [(&str, Condition); 3] = [
        ("service_started", Condition::ServiceStarted),
        ("service_healthy", Condition::ServiceHealthy),
        ("service_completed_successfully", Condition::ServiceCompletedSuccessfully),
    ];
    let mut dependencies = BTreeMap::new();
    for entry in node.map(findings).unwrap_or_default() {
        let mut dependency =
            Dependency { condition: Condition::ServiceStarted, required: true, restart: false };
        if !entry.value.is_null() {
            let path = "services.*.depends_on.*";
            let Some(mut section) = Section::open(path, &entry.value, findings) else { continue };
            if let Some(node) = section.take("condition") {
                dependency.condition = node.choice(&CONDITIONS, findings).unwrap_or(dependency.condition);
            }
            let mut flag =
                |key, default| section.take(key).and_then(|node| node.boolean(findings)).unwrap_or(default);
            dependency.required = flag("required", true);
            dependency.restart = flag("restart", false);
            section.close(findings);
        }
        places.insert(entry.key.clone(), entry.key_at.clone());
        if declared.services.contains(&entry.key) {
            dependencies.insert(entry.key.clone(), dependency);
        } else if dependency.required {
            let names = declared.services.iter().map(String::as_str);
            unknown("service", &entry.key, names, "services", &entry.key_at, findings);
        }
    }
    dependencies
}

fn read_networks(
    node: &Node,
    declared: &Declared,
    findings: &mut Findings,
) -> BTreeMap<String, NetworkAttachment> {
    let mut networks = BTreeMap::new();
    for entry in node.map(findings).unwrap_or_default() {
        let mut attachment = NetworkAttachment::default();
        if !entry.value.is_null() {
            let path = "services.*.networks.*";
            let Some(mut section) = Section::open(path, &entry.value, findings) else { continue };
            if let Some(node) = section.take("aliases") {
                attachment.aliases = node.texts(findings).unwrap_or_default();
                for alias in attachment.aliases.iter().filter(|alias| !names::is_host(alias)) {
                    findings.error(&node.position, format!("{alias:?} is not a host name"));
                }
            }
            section.close(findings);
        }
        if entry.key == super::DEFAULT_NETWORK || declared.networks.contains_key(&entry.key) {
            networks.insert(entry.key.clone(), attachment);
        } else {
            let names = declared.networks.keys().map(String::as_str);
            unknown("network", &entry.key, names, "networks", &entry.key_at, findings);
        }
    }
    networks
}

fn unknown<'a>(
    what: &str,
    name: &str,
    known: impl Iterator<Item = &'a str>,
    section: &str,
    at: &Position,
    findings: &mut Findings,
) {
    let near = if findings.is_full() { None } else { nearest(name, known) };
    let hint = match near {
        Some(near) => format!("did you mean {near:?}?"),
        None => format!("declare {name} under the top-level {section}"),
    };
    findings.error_with_hint(at, format!("unknown {what} {name:?}"), hint);
}
