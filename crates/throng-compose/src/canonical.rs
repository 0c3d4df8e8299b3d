//! The canonical form: what `docker compose config` prints, under its key names.

use crate::read::{job, nodes};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use throng_model::app::{
    App, Build, Condition, FileKind, FileSource, HealthCheck, HealthTest, Mount, MountSource, Port, Protocol,
    RestartPolicy, Service, Swap,
};
use throng_model::autoscale::{Allowed, Autoscale, Controlled, Vertical};
use throng_model::build::{BuildContext, BuildSecret, PullPolicy};
use throng_model::sandbox::{Device, Hook, HostAddress, Sandbox, Ulimit};
use throng_model::update::{BackOff, RestartPace, UpdatePolicy};

/// The app as `docker compose config --format json` shows it: every default that matters filled in, paths absolute,
/// lists of `NAME=value` as mappings, limits under `deploy`. Dollar signs stand for themselves.
pub fn canonical(app: &App) -> Value {
    let mut top = Map::new();
    top.insert("name".into(), json!(app.name));
    top.insert("services".into(), object(app.services.iter().map(|(key, s)| (key, service(app, s)))));
    if !app.networks.is_empty() {
        let network = |key: &str, network: &throng_model::app::Network| {
            let mut map = Map::new();
            map.insert("name".into(), json!(format!("{}_{key}", app.name)));
            if let Some(subnet) = network.subnet {
                let mut config = Map::new();
                config.insert("subnet".into(), json!(subnet.to_string()));
                set(&mut config, "ip_range", network.range.map(|range| range.to_string()));
                set(&mut config, "gateway", network.gateway.map(|gateway| gateway.to_string()));
                let reserved = (!network.reserved.is_empty()).then(|| json!(network.reserved));
                set(&mut config, "aux_addresses", reserved);
                map.insert("ipam".into(), json!({ "config": [config] }));
            }
            set(&mut map, "internal", network.internal.then_some(true));
            set(&mut map, "labels", texts(&network.labels));
            Value::Object(map)
        };
        let networks = app.networks.iter().map(|(key, value)| (key, network(key, value)));
        top.insert("networks".into(), object(networks));
    }
    if !app.volumes.is_empty() {
        let volume = |volume: &throng_model::app::Volume| {
            let mut map = Map::new();
            map.insert("name".into(), json!(volume.name));
            set(&mut map, "external", volume.external.then_some(true));
            if let Some(device) = &volume.device {
                map.insert("driver".into(), json!("local"));
                let options = json!({ "type": "none", "o": "bind", "device": text(device) });
                map.insert("driver_opts".into(), options);
            }
            set(&mut map, "labels", texts(&volume.labels));
            Value::Object(map)
        };
        top.insert("volumes".into(), object(app.volumes.iter().map(|(key, value)| (key, volume(value)))));
    }
    for (section, files) in [("configs", &app.configs), ("secrets", &app.secrets)] {
        if !files.is_empty() {
            let file = |key: &str, source: &FileSource| {
                let mut map = Map::new();
                map.insert("name".into(), json!(format!("{}_{key}", app.name)));
                let (kind, value) = match source {
                    FileSource::File(path) => ("file", text(path)),
                    FileSource::Content(content) => ("content", content.clone()),
                    // Never the value: what is printed may be shown around.
                    FileSource::Environment { variable, .. } => ("environment", variable.clone()),
                };
                map.insert(kind.into(), json!(value));
                Value::Object(map)
            };
            top.insert(section.into(), object(files.iter().map(|(key, source)| (key, file(key, source)))));
        }
    }
    let mut extras = Map::new();
    set(&mut extras, "nodes", (!app.nodes.is_empty()).then(|| nodes::canonical(&app.nodes)));
    set(&mut extras, "unreachable_after", app.unreachable_after.map(duration));
    set(&mut top, "x-throng", (!extras.is_empty()).then_some(extras));
    Value::Object(top)
}

fn object<'a>(entries: impl Iterator<Item = (&'a String, Value)>) -> Value {
    Value::Object(entries.map(|(key, value)| (key.clone(), value)).collect())
}

fn set(map: &mut Map<String, Value>, key: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        map.insert(key.into(), value.into());
    }
}

fn service(app: &App, service: &Service) -> Value {
    let mut map = Map::new();
    let built_name = format!("{}-{}", app.name, service.name);
    if service.build.is_none() || service.image != built_name {
        map.insert("image".into(), json!(service.image));
    }
    set(&mut map, "build", service.build.as_ref().map(build));
    set(&mut map, "pull_policy", pull_policy(service.pull));
    set(&mut map, "container_name", service.container_name.clone());
    // Null and not absence, as Docker prints it: the image decides.
    map.insert("command".into(), json!(service.command));
    map.insert("entrypoint".into(), json!(service.entrypoint));
    for (key, texts) in [("environment", &service.environment), ("labels", &service.labels)] {
        set(&mut map, key, (!texts.is_empty()).then(|| json!(texts)));
    }
    set(&mut map, "working_dir", service.working_dir.clone());
    set(&mut map, "user", service.user.clone());
    set(&mut map, "hostname", service.hostname.clone());
    set(&mut map, "stop_signal", service.stop_signal.clone());
    map.insert("stop_grace_period".into(), json!(duration(service.stop_grace_period)));
    set(&mut map, "ports", list(&service.ports, port));
    set(
        &mut map,
        "expose",
        list(&service.expose, |exposed| match exposed.protocol {
            Protocol::Tcp => json!(exposed.port.to_string()),
            Protocol::Udp => json!(format!("{}/udp", exposed.port)),
        }),
    );
    set(&mut map, "volumes", list(&service.mounts, mount));
    let check = service.health_check.as_ref().filter(|check| !over_the_network(check));
    set(&mut map, "healthcheck", check.map(health_check));
    map.insert("deploy".into(), deploy(service));
    set(&mut map, "depends_on", (!service.depends_on.is_empty()).then(|| dependencies(service)));
    files(service, &mut map);
    resources(service, &mut map);
    sandbox(&service.sandbox, &mut map);
    set(&mut map, "read_only", service.read_only.then_some(true));
    if let Some(log) = service.log {
        let options =
            json!({ "max-size": log.max_size.to_string(), "max-file": (log.max_files + 1).to_string() });
        map.insert("logging".into(), json!({ "driver": "json-file", "options": options }));
    }
    if service.networks.is_empty() {
        map.insert("network_mode".into(), json!("none"));
    }
    let attachments = service.networks.iter().map(|(key, attachment)| {
        let mut map = Map::new();
        let aliases = &attachment.aliases;
        set(&mut map, "aliases", (!aliases.is_empty()).then(|| json!(aliases)));
        set(&mut map, "ipv4_address", attachment.address.map(|address| address.to_string()));
        (key, if map.is_empty() { Value::Null } else { Value::Object(map) })
    });
    if !service.networks.is_empty() {
        map.insert("networks".into(), object(attachments));
    }
    set(&mut map, "restart", restart(service.restart).filter(|_| restart_policy(service).is_none()));
    set(&mut map, "profiles", list(&service.profiles, |profile| json!(profile)));
    set(&mut map, "x-throng", x_throng(service));
    Value::Object(map)
}

/// What Compose has no keys for.
fn x_throng(service: &Service) -> Option<Value> {
    let mut map = Map::new();
    let check = service.health_check.as_ref().filter(|check| over_the_network(check));
    set(&mut map, "readiness", check.map(probe));
    let mut liveness = service.liveness.as_ref().map(probe);
    if let Some(Value::Object(map)) = &mut liveness {
        map.remove("start_interval");
    }
    set(&mut map, "liveness", liveness);
    set(&mut map, "startup", service.startup.as_ref().map(probe));
    if let Some(back_off) = service.restart_pace.back_off {
        let BackOff { initial, factor, max, reset } = back_off;
        let (initial, max, reset) = (duration(initial), duration(max), duration(reset));
        map.insert(
            "restart".into(),
            json!({ "initial": initial, "factor": factor, "max": max, "reset": reset }),
        );
    }
    let job = service.job.as_ref();
    let job = job.map(|job| job::canonical(job, service.replicas, service.placement.on_each, duration));
    set(&mut map, "job", job);
    if let Some(autoscale) = &service.autoscale {
        map.insert("autoscale".into(), autoscale.spec.clone());
        map.insert("autoscaler".into(), autoscaler(autoscale));
    }
    set(&mut map, "vertical", service.vertical.as_ref().map(vertical));
    (!map.is_empty()).then_some(Value::Object(map))
}

fn autoscaler(autoscale: &Autoscale) -> Value {
    let controller = &autoscale.controller;
    let mut map = Map::new();
    map.insert("syncPeriod".into(), json!(duration(controller.sync_period)));
    map.insert("metricResolution".into(), json!(duration(controller.resolution())));
    map.insert("tolerance".into(), json!(controller.tolerance));
    for (key, time) in [
        ("cpuInitializationPeriod", controller.cpu_initialization_period),
        ("initialReadinessDelay", controller.initial_readiness_delay),
        ("downscaleStabilization", controller.downscale_stabilization),
    ] {
        map.insert(key.into(), json!(duration(time)));
    }
    map.insert("configurableTolerance".into(), json!(controller.configurable_tolerance));
    set(&mut map, "sources", (!autoscale.sources.is_empty()).then(|| json!(autoscale.sources)));
    Value::Object(map)
}

fn vertical(of: &Vertical) -> Value {
    let allowed = |of: &Allowed| {
        let mut map = Map::new();
        set(&mut map, "cpu", of.cpu.map(|milli| format!("{milli}m")));
        set(&mut map, "memory", of.memory.map(|bytes| bytes.to_string()));
        (!map.is_empty()).then_some(Value::Object(map))
    };
    let Controlled { cpu, memory } = of.controlled_resources;
    let resources: Vec<&str> =
        [(cpu, "cpu"), (memory, "memory")].into_iter().filter(|(on, _)| *on).map(|(_, name)| name).collect();
    let mut map = Map::new();
    map.insert("updateMode".into(), json!(of.update_mode));
    map.insert("minReplicas".into(), json!(of.min_replicas));
    set(&mut map, "minAllowed", allowed(&of.min_allowed));
    set(&mut map, "maxAllowed", allowed(&of.max_allowed));
    map.insert("controlledResources".into(), json!(resources));
    map.insert("controlledValues".into(), json!(of.controlled_values));
    Value::Object(map)
}

fn texts(texts: &BTreeMap<String, String>) -> Option<Value> {
    (!texts.is_empty()).then(|| json!(texts))
}

fn files(service: &Service, map: &mut Map<String, Value>) {
    for (key, kind) in [("configs", FileKind::Config), ("secrets", FileKind::Secret)] {
        let mounts: Vec<Value> = service
            .files
            .iter()
            .filter(|file| file.kind == kind)
            .map(|file| {
                let mut map = Map::new();
                map.insert("source".into(), json!(file.source));
                map.insert("target".into(), json!(file.target));
                set(&mut map, "uid", file.uid.map(|id| id.to_string()));
                set(&mut map, "gid", file.gid.map(|id| id.to_string()));
                set(&mut map, "mode", file.mode.map(octal));
                Value::Object(map)
            })
            .collect();
        set(map, key, (!mounts.is_empty()).then_some(mounts));
    }
}

fn octal(mode: u32) -> String {
    format!("0{mode:o}")
}

/// Limits that have no place under `deploy`.
fn resources(service: &Service, map: &mut Map<String, Value>) {
    let resources = &service.resources;
    set(map, "cpu_shares", resources.cpu_shares);
    set(map, "cpuset", resources.cores.map(|cores| cores.to_string()));
    set(map, "mem_swappiness", resources.swappiness);
    set(map, "oom_kill_disable", resources.oom_kill_disable.then_some(true));
    if let (Some(swap), Some(memory)) = (resources.swap, resources.memory) {
        let both = match swap {
            Swap::Bytes(bytes) => memory.saturating_add(bytes).to_string(),
            Swap::Unlimited => "-1".into(),
        };
        map.insert("memswap_limit".into(), json!(both));
    }
    set(map, "storage_opt", resources.disk.map(|bytes| json!({ "size": bytes.to_string() })));
}

fn sandbox(sandbox: &Sandbox, map: &mut Map<String, Value>) {
    for (key, words) in [
        ("cap_add", &sandbox.cap_add),
        ("cap_drop", &sandbox.cap_drop),
        ("group_add", &sandbox.groups),
        ("dns_search", &sandbox.dns_search),
        ("dns_opt", &sandbox.dns_options),
    ] {
        set(map, key, list(words, |word| json!(word)));
    }
    set(map, "dns", list(&sandbox.dns, |address| json!(address.to_string())));
    set(map, "ulimits", ulimits(sandbox));
    set(map, "sysctls", texts(&sandbox.sysctls));
    set(map, "annotations", texts(&sandbox.annotations));
    set(map, "extra_hosts", list(&sandbox.hosts, host));
    set(map, "domainname", sandbox.domain.clone());
    set(map, "shm_size", sandbox.shm_size.map(|bytes| bytes.to_string()));
    set(map, "oom_score_adj", sandbox.oom_score);
    set(map, "init", sandbox.init.then_some(true));
    set(map, "stdin_open", sandbox.stdin_open.then_some(true));
    let device = |device: &Device| json!({ "source": text(&device.source), "target": device.target, "permissions": device.permissions });
    set(map, "devices", list(&sandbox.devices, device));
    set(map, "security_opt", sandbox.unfiltered.then(|| json!(["seccomp:unconfined"])));
    set(map, "post_start", list(&sandbox.post_start, hook));
    set(map, "pre_stop", list(&sandbox.pre_stop, hook));
}

fn ulimits(sandbox: &Sandbox) -> Option<Value> {
    let bound = |bound: Option<u64>| bound.map_or(json!(-1), |bound| json!(bound));
    let ulimit = |limit: &Ulimit| match limit.soft == limit.hard {
        true => bound(limit.soft),
        false => json!({ "soft": bound(limit.soft), "hard": bound(limit.hard) }),
    };
    let limits = &sandbox.ulimits;
    (!limits.is_empty()).then(|| object(limits.iter().map(|(name, limit)| (name, ulimit(limit)))))
}

fn host((name, address): &(String, HostAddress)) -> Value {
    match address {
        HostAddress::Gateway => json!(format!("{name}=host-gateway")),
        HostAddress::Address(address) => json!(format!("{name}={address}")),
    }
}

fn hook(hook: &Hook) -> Value {
    let mut map = Map::new();
    map.insert("command".into(), json!(hook.command));
    set(&mut map, "user", hook.user.clone());
    set(&mut map, "working_dir", hook.working_dir.clone());
    set(&mut map, "environment", texts(&hook.environment));
    Value::Object(map)
}

fn list<T>(items: &[T], value: impl Fn(&T) -> Value) -> Option<Value> {
    (!items.is_empty()).then(|| Value::Array(items.iter().map(value).collect()))
}

fn build(build: &Build) -> Value {
    // Docker prints a Dockerfile inside its context relative to it.
    let dockerfile = build.dockerfile.strip_prefix(&build.context).unwrap_or(&build.dockerfile);
    let mut map = Map::new();
    map.insert("context".into(), json!(text(&build.context)));
    match &build.inline {
        Some(inline) => map.insert("dockerfile_inline".into(), json!(inline)),
        None => map.insert("dockerfile".into(), json!(text(dockerfile))),
    };
    set(&mut map, "target", build.target.clone());
    set(&mut map, "args", texts(&build.args));
    set(&mut map, "labels", texts(&build.labels));
    set(&mut map, "tags", list(&build.tags, |tag| json!(tag)));
    set(&mut map, "no_cache", build.no_cache.then_some(true));
    set(&mut map, "pull", build.pull.then_some(true));
    let context = |context: &BuildContext| match context {
        BuildContext::Folder(path) => json!(text(path)),
        BuildContext::Image(image) => json!(format!("docker-image://{image}")),
        BuildContext::Service(name) => json!(format!("service:{name}")),
    };
    if !build.contexts.is_empty() {
        let contexts = build.contexts.iter().map(|(name, source)| (name, context(source)));
        map.insert("additional_contexts".into(), object(contexts));
    }
    set(&mut map, "secrets", list(&build.secrets, build_secret));
    let surroundings = &build.sandbox;
    set(&mut map, "extra_hosts", list(&surroundings.hosts, host));
    set(&mut map, "shm_size", surroundings.shm_size.map(|bytes| bytes.to_string()));
    set(&mut map, "ulimits", ulimits(surroundings));
    set(&mut map, "network", build.offline.then_some("none"));
    Value::Object(map)
}

fn build_secret(secret: &BuildSecret) -> Value {
    let mut map = Map::new();
    map.insert("source".into(), json!(secret.source));
    map.insert("target".into(), json!(secret.id));
    set(&mut map, "uid", secret.uid.map(|id| id.to_string()));
    set(&mut map, "gid", secret.gid.map(|id| id.to_string()));
    set(&mut map, "mode", secret.mode.map(octal));
    Value::Object(map)
}

/// The policy as the specification writes it; `None` for its default.
fn pull_policy(policy: PullPolicy) -> Option<String> {
    match policy {
        PullPolicy::Missing => None,
        PullPolicy::Always => Some("always".into()),
        PullPolicy::Never => Some("never".into()),
        PullPolicy::Build => Some("build".into()),
        PullPolicy::Every(time) => Some(format!("every_{}", duration(time))),
    }
}

/// Paths come out of UTF-8 files; a folder above them with other bytes can only be shown approximately.
fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn port(port: &Port) -> Value {
    let mut map = Map::new();
    map.insert("mode".into(), json!("ingress"));
    set(&mut map, "host_ip", port.host_ip.map(|ip| ip.to_string()));
    map.insert("target".into(), json!(port.target));
    set(&mut map, "published", port.published.map(|port| port.to_string()));
    map.insert("protocol".into(), json!(if port.protocol == Protocol::Udp { "udp" } else { "tcp" }));
    set(&mut map, "app_protocol", port.app_protocol.clone());
    Value::Object(map)
}

fn mount(mount: &Mount) -> Value {
    let mut map = Map::new();
    let (kind, source) = match &mount.source {
        MountSource::Volume(name) => ("volume", Some(name.clone())),
        MountSource::Anonymous => ("volume", None),
        MountSource::Bind { path, .. } => ("bind", Some(text(path))),
        MountSource::Tmpfs { .. } => ("tmpfs", None),
    };
    map.insert("type".into(), json!(kind));
    set(&mut map, "source", source);
    map.insert("target".into(), json!(mount.target));
    set(&mut map, "read_only", mount.read_only.then_some(true));
    match &mount.source {
        MountSource::Volume(_) | MountSource::Anonymous => {
            let subpath = mount.subpath.as_ref().map_or(json!({}), |path| json!({ "subpath": path }));
            map.insert("volume".into(), subpath)
        }
        MountSource::Bind { create, .. } => map.insert("bind".into(), json!({ "create_host_path": create })),
        MountSource::Tmpfs { size, mode } => {
            let mut options = Map::new();
            set(&mut options, "size", size.map(|size| size.to_string()));
            set(&mut options, "mode", mode.map(octal));
            if options.is_empty() { None } else { map.insert("tmpfs".into(), Value::Object(options)) }
        }
    };
    Value::Object(map)
}

/// Compose has no words for such a test.
fn over_the_network(check: &HealthCheck) -> bool {
    matches!(check.test, HealthTest::Http { .. } | HealthTest::Tcp { .. } | HealthTest::Grpc { .. })
}

/// Under `x-throng`, where a command is not written as under `healthcheck`.
fn probe(check: &HealthCheck) -> Value {
    let mut value = health_check(check);
    if let (Value::Object(map), HealthTest::Exec(words)) = (&mut value, &check.test) {
        map.remove("test");
        map.insert("exec".into(), json!(words));
    }
    value
}

fn health_check(check: &HealthCheck) -> Value {
    let mut map = Map::new();
    match &check.test {
        HealthTest::Disabled => {
            map.insert("disable".into(), json!(true));
        }
        HealthTest::Shell(command) => {
            map.insert("test".into(), json!(["CMD-SHELL", command]));
        }
        HealthTest::Exec(command) => {
            let words: Vec<&str> = std::iter::once("CMD").chain(command.iter().map(String::as_str)).collect();
            map.insert("test".into(), json!(words));
        }
        HealthTest::Http { port, path } => {
            map.insert("http".into(), json!({"port": port, "path": path}));
        }
        HealthTest::Tcp { port } => {
            map.insert("tcp".into(), json!({"port": port}));
        }
        HealthTest::Grpc { port, service } => {
            map.insert("grpc".into(), json!({"port": port, "service": service}));
        }
    }
    map.insert("interval".into(), json!(duration(check.interval)));
    map.insert("timeout".into(), json!(duration(check.timeout)));
    map.insert("retries".into(), json!(check.retries));
    map.insert("start_period".into(), json!(duration(check.start_period)));
    map.insert("start_interval".into(), json!(duration(check.start_interval)));
    Value::Object(map)
}

fn deploy(service: &Service) -> Value {
    let mut map = Map::new();
    let all_at_once = service.job.as_ref().map(|job| job.parallelism.is_none());
    let mode = match (service.placement.on_each, all_at_once) {
        (true, None) => Some("global"),
        (true, Some(_)) => Some("global-job"),
        (false, Some(true)) => Some("replicated-job"),
        (false, _) => None,
    };
    set(&mut map, "mode", mode);
    if !service.placement.on_each {
        map.insert("replicas".into(), json!(service.replicas));
    }
    set(&mut map, "labels", texts(&service.deploy_labels));
    set(&mut map, "placement", nodes::canonical_placement(&service.placement));
    let mut limits = Map::new();
    set(&mut limits, "cpus", service.resources.cpus);
    set(&mut limits, "memory", service.resources.memory.map(|bytes| bytes.to_string()));
    set(&mut limits, "pids", service.resources.pids);
    let mut resources = Map::new();
    set(&mut resources, "limits", (!limits.is_empty()).then_some(limits));
    let reservation = service.resources.memory_reservation;
    let mut reservations = Map::new();
    set(&mut reservations, "cpus", service.resources.cpu_reservation);
    set(&mut reservations, "memory", reservation.map(|bytes| bytes.to_string()));
    set(&mut resources, "reservations", (!reservations.is_empty()).then_some(reservations));
    set(&mut map, "resources", (!resources.is_empty()).then_some(resources));
    set(&mut map, "update_config", service.update.as_ref().map(update_policy));
    set(&mut map, "rollback_config", service.rollback.as_ref().map(update_policy));
    set(&mut map, "restart_policy", restart_policy(service));
    Value::Object(map)
}

fn update_policy(policy: &UpdatePolicy) -> Value {
    json!({
        "parallelism": policy.parallelism,
        "delay": duration(policy.delay),
        "order": policy.order,
        "monitor": duration(policy.monitor),
        "max_failure_ratio": policy.max_failure_ratio,
        "failure_action": policy.failure_action,
    })
}

/// Where `restart` cannot say all of it.
fn restart_policy(service: &Service) -> Option<Value> {
    let pace = RestartPace { back_off: None, ..service.restart_pace };
    if pace.is_default() {
        return None;
    }
    let (condition, most) = match service.restart {
        RestartPolicy::No => ("none", None),
        RestartPolicy::Always | RestartPolicy::UnlessStopped => ("any", pace.max_attempts),
        RestartPolicy::OnFailure(most) => ("on-failure", most),
    };
    let mut map = Map::new();
    map.insert("condition".into(), json!(condition));
    set(&mut map, "delay", pace.delay.map(duration));
    set(&mut map, "max_attempts", most);
    set(&mut map, "window", pace.window.map(duration));
    Some(Value::Object(map))
}

fn dependencies(service: &Service) -> Value {
    object(service.depends_on.iter().map(|(key, dependency)| {
        let condition = match dependency.condition {
            Condition::ServiceStarted => "service_started",
            Condition::ServiceHealthy => "service_healthy",
            Condition::ServiceCompletedSuccessfully => "service_completed_successfully",
        };
        let mut map = Map::new();
        map.insert("condition".into(), json!(condition));
        set(&mut map, "restart", dependency.restart.then_some(true));
        map.insert("required".into(), json!(dependency.required));
        (key, Value::Object(map))
    }))
}

fn restart(policy: RestartPolicy) -> Option<String> {
    match policy {
        RestartPolicy::No => None,
        RestartPolicy::Always => Some("always".into()),
        RestartPolicy::UnlessStopped => Some("unless-stopped".into()),
        RestartPolicy::OnFailure(None) => Some("on-failure".into()),
        RestartPolicy::OnFailure(Some(most)) => Some(format!("on-failure:{most}")),
    }
}

/// As Go prints it down to milliseconds, else in nanoseconds, so that nothing is lost.
fn duration(duration: Duration) -> String {
    if duration.subsec_nanos().is_multiple_of(1_000_000) {
        throng_model::units::format_duration(duration)
    } else {
        format!("{}ns", duration.as_nanos())
    }
}
