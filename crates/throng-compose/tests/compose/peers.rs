//! The same files through Docker's own Compose, as far as both understand them.

use crate::common::Case;
use serde_json::{Map, Value, json};
use std::path::Path;
use std::process::Command;
use throng_compose::canonical;
use throng_model::cores::CoreSet;
use throng_model::units::{parse_bytes, parse_duration};

const HOME: &str = "/home/somebody";

/// Whether Docker's own Compose is here; says so otherwise.
pub fn is_here(test: &str) -> bool {
    if Command::new("docker-compose").arg("version").output().is_ok() {
        return true;
    }
    let reason = "docker-compose is not installed";
    assert!(std::env::var_os("THRONG_REQUIRE_ALL").is_none(), "{reason}");
    eprintln!("SKIPPED {test}: {reason}");
    false
}

/// What both make of the files of a project, in one form: ours, then the other's, or what that says against them. Files
/// that end in `.yaml` and lie in no folder below are merged in their order.
pub fn both(project: &[(&str, &str)]) -> (Value, Result<Value, String>) {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("shop");
    // Folders of builds must be there for theirs.
    for folder in ["web", "app"] {
        std::fs::create_dir_all(directory.join(folder)).unwrap();
    }
    for (name, text) in project {
        let path = directory.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let environment = &[("HOME", HOME)];
    let (ours, our_directory) = Case { files: project, environment, ..Case::default() }.load();
    let ours = ours.unwrap_or_else(|findings| panic!("{findings:#?}\n{}", project[0].1));
    let ours = shown(&canonical(&ours.app), &our_directory);
    let parse = |text: &str| comparable(serde_json::from_str(text).unwrap());
    (parse(&ours), theirs(project, &directory).map(|text| parse(&text)))
}

fn theirs(project: &[(&str, &str)], directory: &Path) -> Result<String, String> {
    let merged = project.iter().map(|(name, _)| *name).filter(|n| n.ends_with(".yaml") && !n.contains('/'));
    let output = Command::new("docker-compose")
        .args(merged.flat_map(|name| ["-f", name]))
        .arg("config")
        .current_dir(directory)
        .env_remove("TAG")
        .env("HOME", HOME)
        .output()
        .unwrap();
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let text = String::from_utf8(output.stdout).unwrap();
    // What it prints goes through our own YAML into JSON; a fault there would be seen as a difference.
    let node =
        throng_compose::yaml::parse(&directory.into(), &text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    Ok(shown(&as_json(&node), &directory.to_string_lossy()).replace("$$", "$"))
}

/// Without the folders that are different for each.
fn shown(value: &Value, directory: &str) -> String {
    let parent = directory.trim_end_matches("/shop");
    value.to_string().replace(directory, "DIR").replace(parent, "PARENT")
}

/// All must mean the same to both.
#[track_caller]
pub fn compare(projects: &[&[(&str, &str)]]) {
    let mut wrong = Vec::new();
    for project in projects {
        let (ours, theirs) = both(project);
        match theirs {
            Ok(theirs) if ours == theirs => {}
            Ok(theirs) => {
                wrong.push(format!("{}:\n{}", project[0].1, difference("", &ours, &theirs).join("\n")))
            }
            Err(error) => wrong.push(format!("{}:\n{error}", project[0].1)),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// Where two values differ, one line for each place.
pub fn difference(at: &str, ours: &Value, theirs: &Value) -> Vec<String> {
    match (ours, theirs) {
        (a, b) if a == b => Vec::new(),
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            let none = Value::Null;
            let part = |map: &Map<String, Value>, key| map.get(key).unwrap_or(&none).clone();
            keys.into_iter()
                .flat_map(|key| difference(&format!("{at}/{key}"), &part(a, key), &part(b, key)))
                .collect()
        }
        _ => vec![format!("{at}: ours {ours}, docker-compose's {theirs}")],
    }
}

/// Version 1 of docker-compose, which Debian packages, prints an older notation. Both are brought to one form: what
/// the two cannot both say (defaults, the project's name, long and short mounts and ports) is left out or rewritten.
fn comparable(mut value: Value) -> Value {
    let Some(top) = value.as_object_mut() else { return value };
    top.retain(|key, _| matches!(key.as_str(), "services" | "networks" | "volumes" | "configs" | "secrets"));
    for (section, members) in top.iter_mut() {
        for (key, member) in members.as_object_mut().into_iter().flatten() {
            if section == "services" {
                comparable_service(member);
            } else if let Value::Object(member) = member {
                // What a network or volume has anyway.
                let ordinary = |key: &str, value: &Value| {
                    key == "driver" && matches!(value.as_str(), Some("bridge" | "default" | "local"))
                };
                member.retain(|key, value| !ordinary(key, value) && !key.starts_with("x-"));
                if let Some(ipam) = member.get_mut("ipam").and_then(Value::as_object_mut) {
                    ipam.retain(|key, value| !ordinary(key, value));
                }
                // Ours tells the name that follows from the project's; theirs only one that was given.
                if member.get("external") != Some(&json!(true)) || member.get("name") == Some(&json!(key)) {
                    member.remove("name");
                }
            } else {
                *member = json!({});
            }
        }
    }
    // The network that services share without a word is only told by ours.
    if let Some(networks) = top.get_mut("networks").and_then(Value::as_object_mut) {
        networks.retain(|key, member| key != "default" || *member != json!({}));
    }
    top.retain(|_, members| *members != json!({}));
    value
}

fn comparable_service(service: &mut Value) {
    let Some(service) = service.as_object_mut() else { return };
    one_place_for_limits(service);
    one_place_for_memory(service);
    let keys: Vec<String> = service.keys().cloned().collect();
    for key in keys {
        if let Some(part) = service.remove(&key) {
            service.insert(key.clone(), comparable_part(&key, part));
        }
    }
    if service.get("stop_grace_period") == Some(&json!(10.0)) {
        service.remove("stop_grace_period");
    }
    if service.get("networks") == Some(&json!({"default": null})) {
        service.remove("networks");
    }
    if let Some(Value::Object(dependencies)) = service.get_mut("depends_on") {
        dependencies.values_mut().filter_map(Value::as_object_mut).for_each(|d| drop(d.remove("required")));
    }
    // What is so anyway.
    let ordinary = |key: &str, value: &Value| match value {
        Value::Null => true,
        Value::Bool(on) => !on,
        Value::Array(items) => items.is_empty() && key != "command" && key != "entrypoint",
        Value::Object(map) => map.is_empty(),
        Value::String(text) => key == "restart" && text == "no",
        Value::Number(_) => false,
    };
    service.retain(|key, value| !ordinary(key, value) && !key.starts_with("x-"));
}

/// Theirs leaves the older keys where they are; ours has them under `deploy`.
fn one_place_for_limits(service: &mut Map<String, Value>) {
    for (old, kind, new) in [
        ("mem_limit", "limits", "memory"),
        ("cpus", "limits", "cpus"),
        ("pids_limit", "limits", "pids"),
        ("mem_reservation", "reservations", "memory"),
    ] {
        if let Some(limit) = service.remove(old) {
            let deploy = service.entry("deploy").or_insert(json!({}));
            deploy["resources"][kind][new] = limit;
        }
    }
}

/// Ours calls a `tmpfs` a volume of that type; theirs has its options beside it.
fn one_place_for_memory(service: &mut Map<String, Value>) {
    let mut memory: Vec<String> = match service.remove("tmpfs") {
        Some(Value::Array(places)) => places.iter().map(text).collect(),
        Some(place) => vec![text(&place)],
        None => Vec::new(),
    };
    memory.iter_mut().for_each(|place| place.truncate(place.find(':').unwrap_or(place.len())));
    if let Some(Value::Array(mounts)) = service.get_mut("volumes") {
        let is_memory = |mount: &Value| mount["type"] == "tmpfs";
        memory.extend(mounts.iter().filter(|mount| is_memory(mount)).map(|mount| text(&mount["target"])));
        mounts.retain(|mount| !is_memory(mount));
    }
    memory.sort();
    // Theirs tells one twice that two services name of which one extends the other.
    memory.dedup();
    if !memory.is_empty() {
        service.insert("tmpfs".into(), json!(memory));
    }
}

/// Files of configs and secrets by where they are seen: a short name and a path below `/run/secrets` are the same.
fn comparable_files(files: Vec<Value>) -> Value {
    let comparable = |file: Value| {
        let Value::Object(mut file) = file else { return json!({ "source": file, "target": file }) };
        if let Some(Value::String(target)) = file.get("target").or(file.get("source")).cloned() {
            file.insert(
                "target".into(),
                json!(target.trim_start_matches("/run/secrets/").trim_start_matches('/')),
            );
        }
        if let Some(Value::String(mode)) = file.get("mode") {
            let mode = u32::from_str_radix(mode, 8).expect("an octal number");
            file.insert("mode".into(), json!(mode));
        }
        Value::Object(file)
    };
    files.into_iter().map(comparable).collect()
}

/// In seconds: `90s` and `1m30s` are the same.
fn duration(text: &str) -> Value {
    json!(parse_duration(text).unwrap().as_secs_f64())
}

/// What stands there, whether it is a text or a number.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn comparable_port(port: &Value) -> Value {
    let Value::Object(port) = port else {
        let short = text(port);
        return json!(if short.contains('/') { short } else { short + "/tcp" });
    };
    let get = |key: &str| port.get(key).map_or(String::new(), text);
    let host = port.get("host_ip").map_or(String::new(), |ip| text(ip) + ":");
    let protocol = port.get("protocol").map_or("tcp".into(), text);
    json!(format!("{host}{}:{}/{protocol}", get("published"), get("target")))
}

fn comparable_mount(mount: &Value) -> String {
    let Value::Object(mount) = mount else {
        let short = text(mount);
        // A place alone has a volume without a name.
        return if short.contains(':') { short } else { format!(":{short}:rw") };
    };
    let get = |key: &str| mount.get(key).map_or(String::new(), text);
    let access = if mount.get("read_only") == Some(&json!(true)) { "ro" } else { "rw" };
    format!("{}:{}:{access}", get("source"), get("target"))
}

/// `[A=1, B]` and `{A: 1, B: null}` as texts; what has no value is not there.
fn comparable_texts(part: Value) -> Value {
    let pairs: Map<String, Value> = match part {
        Value::Array(items) => items
            .iter()
            .map(|item| {
                let item = text(item);
                let (name, value) = item.split_once('=').unwrap_or((&item, ""));
                (name.to_owned(), json!(value))
            })
            .collect(),
        Value::Object(pairs) => {
            pairs.into_iter().filter(|(_, v)| !v.is_null()).map(|(name, v)| (name, json!(text(&v)))).collect()
        }
        other => return other,
    };
    Value::Object(pairs)
}

fn comparable_check(mut check: Map<String, Value>) -> Value {
    let none = json!(["NONE"]);
    if check.get("disable") == Some(&json!(true)) || check.get("test") == Some(&none) {
        return json!({ "disable": true });
    }
    if let Some(Value::String(command)) = check.get("test").cloned() {
        check.insert("test".into(), json!(["CMD-SHELL", command]));
    }
    check.remove("start_interval");
    check.remove("disable");
    for (key, default) in [("interval", 30.0), ("timeout", 30.0), ("start_period", 0.0)] {
        let time = check.get(key).map_or(json!(default), |time| duration(&text(time)));
        check.insert(key.into(), time);
    }
    check.entry("retries").or_insert(json!(3));
    Value::Object(check)
}

/// `update_config` and `rollback_config`, with the defaults that ours tells.
fn comparable_policy(policy: &Value) -> Value {
    let get = |key: &str| policy.get(key).cloned();
    let time = |key: &str| get(key).map_or(json!(0.0), |time| duration(&text(&time)));
    json!({
        "parallelism": get("parallelism").unwrap_or(json!(1)),
        "delay": time("delay"),
        "monitor": get("monitor").map_or(json!(5.0), |time| duration(&text(&time))),
        "order": get("order").unwrap_or(json!("stop-first")),
        "failure_action": get("failure_action").unwrap_or(json!("pause")),
        "max_failure_ratio": get("max_failure_ratio").and_then(|ratio| ratio.as_f64()).unwrap_or(0.0),
    })
}

fn comparable_deploy(mut deploy: Map<String, Value>) -> Value {
    if deploy.get("replicas") == Some(&json!(1)) {
        deploy.remove("replicas");
    }
    if let Some(labels) = deploy.remove("labels") {
        deploy.insert("labels".into(), comparable_texts(labels));
    }
    for key in ["update_config", "rollback_config"] {
        if let Some(policy) = deploy.get(key).map(comparable_policy) {
            deploy.insert(key.into(), policy);
        }
    }
    for (key, value) in deploy.get_mut("restart_policy").and_then(Value::as_object_mut).into_iter().flatten()
    {
        if matches!(key.as_str(), "delay" | "window") {
            *value = duration(&text(value));
        }
    }
    let kinds = deploy.get_mut("resources").and_then(Value::as_object_mut);
    for limits in kinds.into_iter().flat_map(|kinds| kinds.values_mut()) {
        for (key, value) in limits.as_object_mut().into_iter().flatten() {
            *value = match key.as_str() {
                "memory" => json!(parse_bytes(&text(value)).unwrap()),
                "cpus" => json!(text(value).parse::<f64>().unwrap()),
                _ => json!(text(value)),
            };
        }
    }
    deploy.retain(|_, value| *value != json!({}));
    Value::Object(deploy)
}

fn comparable_build(mut build: Map<String, Value>) -> Value {
    build.remove("dockerfile");
    if build.get("network") == Some(&json!("host")) {
        build.remove("network");
    }
    for key in ["args", "labels"] {
        if let Some(texts) = build.remove(key) {
            build.insert(key.into(), comparable_texts(texts));
        }
    }
    for key in ["extra_hosts", "shm_size"] {
        if let Some(part) = build.remove(key) {
            build.insert(key.into(), comparable_part(key, part));
        }
    }
    Value::Object(build)
}

fn comparable_part(key: &str, part: Value) -> Value {
    match (key, part) {
        ("ports", Value::Array(ports)) => ports.iter().map(comparable_port).collect(),
        ("volumes", Value::Array(mounts)) => {
            // The order of mounts at different places says nothing.
            let mounts: std::collections::BTreeSet<String> = mounts.iter().map(comparable_mount).collect();
            json!(mounts)
        }
        ("environment" | "labels" | "sysctls", part) => comparable_texts(part),
        ("build", Value::Object(build)) => comparable_build(build),
        // Sets, whose order says nothing.
        ("cap_add" | "cap_drop" | "expose", Value::Array(mut words)) => {
            words.sort_by_key(text);
            Value::Array(words)
        }
        ("cpuset", cores) => json!(text(&cores).parse::<CoreSet>().unwrap().to_string()),
        ("security_opt", Value::Array(options)) => {
            options.into_iter().filter(|option| !text(option).starts_with("no-new-privileges")).collect()
        }
        ("networks", Value::Object(networks)) => {
            let none = |value: Value| if value == json!({}) { Value::Null } else { value };
            Value::Object(networks.into_iter().map(|(name, value)| (name, none(value))).collect())
        }
        ("ulimits", Value::Object(limits)) => {
            let one = |limit: Value| match (limit.get("soft"), limit.get("hard")) {
                (Some(soft), Some(hard)) if soft == hard => soft.clone(),
                _ => limit,
            };
            Value::Object(limits.into_iter().map(|(name, limit)| (name, one(limit))).collect())
        }
        ("configs" | "secrets", Value::Array(files)) => comparable_files(files),
        ("extra_hosts", hosts) => {
            let mut lines: Vec<String> = match hosts {
                Value::Array(hosts) => hosts.iter().map(|host| text(host).replacen(':', "=", 1)).collect(),
                Value::Object(hosts) => {
                    hosts.iter().map(|(name, address)| format!("{name}={}", text(address))).collect()
                }
                _ => Vec::new(),
            };
            lines.sort();
            json!(lines)
        }
        ("shm_size", size) => json!(parse_bytes(&text(&size)).unwrap()),
        ("logging", mut logging) => {
            if let Some(options) = logging.get_mut("options").and_then(Value::as_object_mut) {
                // Ours tells how many files there are by default.
                options.remove("max-file");
                for size in options.values_mut() {
                    *size = json!(parse_bytes(&text(size)).unwrap());
                }
            }
            // Both are kept here in the same way.
            if let Some(logging) = logging.as_object_mut() {
                logging.retain(|_, part| !matches!(part.as_str(), Some("local" | "json-file")));
                logging.retain(|_, part| *part != json!({}));
            }
            logging
        }
        ("command" | "entrypoint", Value::String(words)) => json!(shlex::split(&words)),
        ("stop_grace_period", Value::String(time)) => duration(&time),
        ("healthcheck", Value::Object(check)) => comparable_check(check),
        ("deploy", Value::Object(deploy)) => comparable_deploy(deploy),
        (_, part) => part,
    }
}

fn as_json(node: &throng_compose::yaml::Node) -> Value {
    use throng_compose::yaml::Value as Yaml;
    match &node.value {
        Yaml::Null => Value::Null,
        Yaml::Scalar(scalar) if scalar.plain => serde_json::from_str(&scalar.text)
            .ok()
            .filter(|v: &Value| !v.is_string())
            .unwrap_or_else(|| json!(scalar.text)),
        Yaml::Scalar(scalar) => json!(scalar.text),
        Yaml::List(items) => items.iter().map(as_json).collect(),
        Yaml::Map(entries) => entries.iter().map(|e| (e.key.clone(), as_json(&e.value))).collect(),
    }
}
