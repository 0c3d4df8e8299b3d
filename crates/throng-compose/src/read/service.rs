//! One service.

use super::mounts::Mounts;
use super::{
    Context, Declared, Other, Placed, build, default_attachment, files, health, host_path, job, names,
    networks, ports, resources, sandbox, x_throng,
};
use crate::dotenv;
use crate::keys::Section;
use crate::yaml::{self, Entry, Findings, Node, Position, Value, nearest};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use throng_model::app::{Condition, Dependency, FileKind, NetworkAttachment, RestartPolicy, Service};
use throng_model::build::PullPolicy;
use throng_model::replica::LogPolicy;

/// The specification's default.
const STOP_GRACE_PERIOD: Duration = Duration::from_secs(10);

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
    read_image(&mut section, &mut service, entry, project, (context, declared), findings);
    read_process(&mut section, &mut service, context, findings);
    read_lifecycle(&mut section, &mut service, findings);
    if let Some(node) = section.take("container_name") {
        service.container_name = container_name(node, service.replicas, findings);
    }
    let (ports, ports_at): (_, Vec<Position>) =
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
    for (key, kind) in [("configs", FileKind::Config), ("secrets", FileKind::Secret)] {
        if let Some(node) = section.take(key) {
            files::read_mounts(node, kind, declared, &mut service.files, findings);
        }
    }
    let mut dependencies_at = BTreeMap::new();
    if let Some(node) = section.take("depends_on") {
        service.depends_on = read_dependencies(node, declared, &mut dependencies_at, findings);
    }
    service.networks = read_networks(&mut section, ports_at.first(), declared, findings);
    let volumes_from = section.take("volumes_from").map(|node| others(node, findings)).unwrap_or_default();
    let links = section.take("links").map(|node| others(node, findings)).unwrap_or_default();
    section.close(findings);
    if let Some(node) = node.get("x-throng") {
        x_throng::read_service(node, &mut service, declared, findings);
    }
    job::read(node, &mut service, findings);
    if let (Some(name), Some(_)) = (node.get("container_name"), &service.autoscale) {
        let message = "a service whose replicas come and go cannot have the name of one";
        findings.error_with_hint(&name.position, message, "remove container_name, or autoscale");
    }
    let name_at = node.get("container_name").map(|node| node.position.clone());
    let key_at = entry.key_at.clone();
    Some(Placed { service, key_at, name_at, ports_at, dependencies_at, volumes_from, links })
}

/// The networks that replicas are in. `port`: where the first of their ports is published, if any is.
fn read_networks(
    section: &mut Section<'_>,
    port: Option<&Position>,
    declared: &Declared,
    findings: &mut Findings,
) -> BTreeMap<String, NetworkAttachment> {
    let has_network = section.take("network_mode").is_none_or(|node| network_mode(node, findings));
    let networks = section.take("networks");
    if has_network {
        return networks
            .map_or_else(default_attachment, |node| networks::attachments(node, declared, findings));
    }
    if let Some(node) = networks {
        let hint = "keep one of network_mode and networks";
        findings.error_with_hint(&node.position, "a service without a network cannot be in one", hint);
    }
    if let Some(at) = port {
        let hint = "remove the ports, or network_mode: none";
        findings.error_with_hint(at, "a service without a network can publish no port", hint);
    }
    BTreeMap::new()
}

/// A name that is one replica's alone. It is a DNS name too, which some names that Docker takes are not.
fn container_name(node: &Node, replicas: u32, findings: &mut Findings) -> Option<String> {
    let name = node.nonempty(findings)?;
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let begins = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !begins || name.len() < 2 || !name.chars().all(good) {
        let hint = "use letters, digits, _, . and -, two at least, and begin with a letter or digit";
        findings.error_with_hint(&node.position, format!("{name:?} is not the name of a container"), hint);
        return None;
    }
    if replicas > 1 {
        let message = format!("{replicas} replicas cannot all be called {name}");
        findings.error_with_hint(&node.position, message, "remove container_name, or have one replica");
        return None;
    }
    Some(name.to_owned())
}

/// Whether replicas have a network at all. The other modes would give a replica an address that is not its own.
fn network_mode(node: &Node, findings: &mut Findings) -> bool {
    match node.scalar() {
        Some("none") => return false,
        Some("bridge" | "default") => return true,
        Some("host") => findings.error_with_hint(
            &node.position,
            "replicas cannot share the host's network: each needs an address of its own",
            "publish its ports with ports:, and reach the host as host-gateway under extra_hosts",
        ),
        Some(text) if text.starts_with("service:") || text.starts_with("container:") => findings
            .error_with_hint(
                &node.position,
                format!("replicas cannot share the network of {text:?}: each needs an address of its own"),
                "let them reach each other by the service's name",
            ),
        _ => node.mismatch("none or bridge", findings),
    }
    true
}

/// Elements of `volumes_from` and `links`: the name of a service, and what follows a colon.
fn others(node: &Node, findings: &mut Findings) -> Vec<Other> {
    let mut others = Vec::new();
    for item in node.list(findings).unwrap_or_default() {
        let Some(text) = item.nonempty(findings) else { continue };
        let (name, rest) = text.split_once(':').unwrap_or((text, ""));
        if name == "container" {
            let hint = "name a service of this app";
            findings.error_with_hint(&item.position, "containers of others are not known here", hint);
            continue;
        }
        others.push(Other { name: name.to_owned(), rest: rest.to_owned(), at: item.position.clone() });
    }
    others
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
    (context, declared): (&Context<'_>, &Declared),
    findings: &mut Findings,
) {
    let image = section.take("image");
    let build = section.take("build");
    service.build = build.and_then(|node| build::read(node, context, declared, findings));
    service.pull = build::read_pull_policy(section, findings);
    if let (PullPolicy::Build, None, Some(policy)) = (service.pull, build, entry.value.get("pull_policy"))
        && entry.value.get("extends").is_none()
    {
        let message = format!("the service {:?} has nothing to build", entry.key);
        let hint = "add build: with a folder, or change pull_policy";
        findings.error_with_hint(&policy.position, message, hint);
    }
    if let Some(node) = image {
        let Some(text) = node.nonempty(findings) else { return };
        if matches!(&node.value, Value::Scalar(scalar) if scalar.plain && text.parse::<i64>().is_ok()) {
            let hint = "quote it if an image is called so";
            findings.error_with_hint(
                &node.position,
                format!("expected an image, found the number {text}"),
                hint,
            );
            return;
        }
        if !names::is_image(text) {
            let hint = "write [REGISTRY/]NAME[:TAG], with the name in lower case";
            findings.error_with_hint(&node.position, format!("{text:?} is not an image reference"), hint);
        }
        service.image = text.to_owned();
    } else if build.is_some() {
        service.image = format!("{project}-{}", entry.key);
    } else if entry.value.get("extends").is_none() {
        missing_image(&entry.key, &entry.key_at, findings);
    }
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
    if let Some(node) = section.take("label_file") {
        service.labels = read_env_files(node, context, findings);
    }
    if let Some(node) = section.take("labels") {
        service.labels.extend(node.text_map(findings).unwrap_or_default());
    }
    service.read_only = section.take("read_only").and_then(|node| node.boolean(findings)).unwrap_or_default();
    service.sandbox = sandbox::read(section, context, findings);
    service.log = section.take("logging").and_then(|node| logging(node, findings));
    if let Some(node) = section.take("platform") {
        check_platform(node, findings);
    }
}

/// The image's variant is checked when it is looked up; here only what no image could run on.
fn check_platform(node: &Node, findings: &mut Findings) {
    let Some(text) = node.nonempty(findings) else { return };
    let own = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let mut parts = text.split('/');
    let (system, architecture) = (parts.next().unwrap_or_default(), parts.next());
    let is_own = |name: &str| name == own || name == std::env::consts::ARCH;
    if system != "linux" || architecture.is_some_and(|name| !is_own(name)) {
        let hint =
            format!("this host runs linux/{own}; remove platform, and use an image that is built for it");
        findings.error_with_hint(&node.position, format!("nothing for {text} runs here"), hint);
    }
}

/// How much of the output is kept, by the options of Docker's `json-file` and `local` drivers.
fn logging(node: &Node, findings: &mut Findings) -> Option<LogPolicy> {
    let mut section = Section::open("services.*.logging", node, findings)?;
    let (driver, options) = (section.take("driver"), section.take("options"));
    section.close(findings);
    if let Some(node) = driver
        && !matches!(node.scalar(), Some("json-file" | "local"))
    {
        let message =
            format!("logs are kept on this host, not by the driver {:?}", node.scalar().unwrap_or_default());
        findings.warn_with_hint(
            &node.position,
            message,
            "read them with `throng logs`, which others can follow",
        );
        return None;
    }
    let mut policy = LogPolicy::default();
    for entry in options?.map(findings)? {
        match entry.key.as_str() {
            "max-size" => match entry.value.bytes(findings) {
                Some(0) => entry.value.mismatch("a size of at least one byte", findings),
                Some(bytes) => policy.max_size = bytes,
                None => {}
            },
            "max-file" => {
                const WHAT: &str = "a whole number of files from 1 to 1000";
                match entry.value.number::<u32>(WHAT, findings) {
                    // Docker counts the current file as well.
                    Some(files @ 1..=1000) => policy.max_files = files - 1,
                    Some(_) => entry.value.mismatch(WHAT, findings),
                    None => {}
                }
            }
            key => findings.warn_with_hint(
                &entry.key_at,
                format!("the log option {key:?} has no effect"),
                "max-size and max-file have",
            ),
        }
    }
    Some(policy)
}

fn read_lifecycle(section: &mut Section<'_>, service: &mut Service, findings: &mut Findings) {
    if let Some(node) = section.take("restart") {
        service.restart = read_restart(node, findings).unwrap_or_default();
    }
    resources::read(section, service, findings);
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

/// A list of words, or a text that is split as a shell would.
pub(super) fn words(node: &Node, findings: &mut Findings) -> Option<Vec<String>> {
    let Some(text) = node.scalar() else { return node.texts(findings) };
    let words = shlex::split(text);
    if words.is_none() {
        let hint = "close the quote, or write the words as a list";
        findings.error_with_hint(&node.position, "a quote that does not end", hint);
    }
    words
}

/// Name to value; a name without a value takes it from the caller's environment and is left out if it is not there.
pub(super) fn variables(
    node: &Node,
    context: &Context<'_>,
    findings: &mut Findings,
) -> BTreeMap<String, String> {
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
            _ => entry.value.as_text(findings),
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

pub(super) fn unknown<'a>(
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
