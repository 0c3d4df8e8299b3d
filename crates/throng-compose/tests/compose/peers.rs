//! The same files through Docker's own Compose, as far as both understand them.

use crate::common::Case;
use serde_json::{Value, json};
use std::process::Command;
use throng_compose::canonical;

/// Files of a project; those that end in `.yaml` and lie in no folder below are merged in this order.
type Project = &'static [(&'static str, &'static str)];

const PROJECTS: &[Project] = &[
    &[(
        "compose.yaml",
        "version: '3.8'
services:
  web:
    image: web:${TAG:-1}
    command: serve --port 80 \"a b\"
    environment: [A=1, 'B=two words']
    labels: {c: d}
    user: '1000'
    working_dir: /srv
    hostname: web
    restart: on-failure:3
    stop_grace_period: 90s
    expose: ['70']
    healthcheck: {test: [CMD, a], interval: 90s, timeout: 1s, retries: 2, start_period: 5s}
    depends_on: [db]
  db:
    image: db
    entrypoint: [run, fast]
",
    )],
    &[(
        "compose.yaml",
        "version: '3.8'
services:
  web:
    image: a
    ports: ['8080:80', '127.0.0.1:9000:90/udp', {target: 70, published: 71}]
    volumes: ['data:/data', './src:/src:ro', {type: bind, source: /a, target: /b}]
    deploy: {replicas: 2, resources: {limits: {cpus: '0.5', memory: 64M}}}
volumes: {data: }
",
    )],
    &[(
        "compose.yaml",
        "version: '3.8'
x-base: &base {environment: {A: 1, B: 2}, image: a}
services:
  web:
    <<: *base
    build: {context: ./web, target: t, args: [X=y]}
    networks: {front: {aliases: [www]}, back: }
    command: [echo, '$$HOME']
networks: {front: {internal: true}, back: }
",
    )],
    // Privileges, limits and names.
    &[(
        "compose.yaml",
        "version: '3.8'
services:
  web:
    image: a
    cap_add: [NET_ADMIN]
    cap_drop: [ALL]
    group_add: ['7', audio]
    ulimits: {nofile: {soft: 10, hard: 20}, nproc: 5}
    sysctls: [net.core.somaxconn=9]
    extra_hosts: ['a:1.2.3.4', 'b:5.6.7.8']
    dns: 1.1.1.1
    dns_search: [a.example]
    dns_opt: ['timeout:1']
    domainname: x.example
    tmpfs: /run
    read_only: true
    shm_size: 1m
    stop_signal: SIGINT
    network_mode: none
    oom_score_adj: 5
    cpu_shares: 50
    logging: {driver: json-file, options: {max-size: 1m}}
",
    )],
    // The older places of limits.
    &[(
        "compose.yaml",
        "version: '3.8'
services:
  web: {image: a, mem_limit: 64m, cpus: 0.5, pids_limit: 5, mem_reservation: 32m}
  two: {image: a, deploy: {resources: {limits: {memory: 64m}, reservations: {memory: 32m}}}}
",
    )],
    // What stands beside the services.
    &[(
        "compose.yaml",
        "version: '3.8'
services:
  web:
    image: a
    secrets: [s, {source: two, target: t, mode: 0440, uid: '5'}]
    networks: {n: {aliases: [x]}}
secrets: {s: {file: ./s}, two: {file: /two}}
networks: {n: {internal: true, ipam: {config: [{subnet: 10.1.0.0/16}]}, labels: [a=b]}}
volumes: {v: {driver: local, driver_opts: {type: none, o: bind, device: /x}, labels: {c: d}}, w: {external: true}}
",
    )],
    // One file over another.
    &[
        (
            "a.yaml",
            "version: '3.8'
services:
  web:
    image: a
    command: [one, two]
    environment: {A: 1, B: 1}
    labels: [x=1]
    expose: ['1']
    ports: ['1:1']
    volumes: ['data:/data', './a:/a']
    cap_add: [NET_ADMIN]
    dns: 1.1.1.1
    ulimits: {nproc: 1, core: 0}
    logging: {driver: json-file, options: {max-size: 1m}}
    extra_hosts: ['a:1.2.3.4']
    sysctls: {net.core.somaxconn: 9}
    build: {context: ., args: {A: 1}}
    healthcheck: {test: [CMD, a], interval: 5s, timeout: 1s, retries: 2, start_period: 5s}
volumes: {data: }
",
        ),
        (
            "b.yaml",
            "version: '3.8'
services:
  web:
    image: b
    command: three
    environment: [B=2, C=3]
    labels: {y: 2}
    expose: ['2']
    ports: ['2:2']
    volumes: ['other:/data']
    cap_add: [SYS_TIME]
    dns: [9.9.9.9]
    ulimits: {nproc: {soft: 1, hard: 2}}
    extra_hosts: ['b:5.6.7.8']
    sysctls: [net.ipv4.tcp_syncookies=1]
    build: {args: [B=2], target: t}
    healthcheck: {test: [CMD, b]}
  db: {image: db}
volumes: {other: }
",
        ),
    ],
    // Services that begin as others.
    &[
        (
            "compose.yaml",
            "version: '3.8'
services:
  base: {image: a, environment: {A: 1, B: 1}, expose: ['1'], labels: [x=y], command: [a]}
  web: {extends: base, environment: [B=2], expose: ['2'], command: [b]}
  more: {extends: {service: web}, user: me}
  other: {extends: {file: sub/o.yaml, service: o}, environment: {X: 9}}
",
        ),
        (
            "sub/o.yaml",
            "version: '3.8'
services:
  o: {extends: {file: ../deep/p.yaml, service: p}, env_file: e.env, volumes: ['./d:/d'], build: {context: .}}
",
        ),
        ("sub/e.env", "X=1\nY=two words\n# c\nexport Z='q'\n"),
        ("deep/p.yaml", "version: '3.8'\nservices: {p: {image: p, volumes: ['../up:/up'], hostname: p}}\n"),
    ],
    // Variables.
    &[
        (
            "compose.yaml",
            "version: '3.8'
services:
  web:
    image: a:${TAG}
    user: ${NO-u}${NO:-v}${EMPTY-w}${EMPTY:-x}
    hostname: ${TAG:?needed}
    environment:
      A: ${NO:-word} ${NO-}
      B: $$TAG $${TAG}
      C: ${TAG:-never}
",
        ),
        (".env", "TAG=one\nEMPTY=\n"),
    ],
];

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
    if let Some(build) = service.get_mut("build").and_then(Value::as_object_mut) {
        build.remove("dockerfile");
    }
    service.retain(|_, value| !value.is_null() && *value != json!({}));
}

/// Theirs leaves the older keys where they are; ours has them under `deploy`.
fn one_place_for_limits(service: &mut serde_json::Map<String, Value>) {
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

/// Ours calls a `tmpfs` a volume of that type.
fn one_place_for_memory(service: &mut serde_json::Map<String, Value>) {
    let Some(Value::Array(mounts)) = service.get_mut("volumes") else { return };
    let is_memory = |mount: &Value| mount["type"] == "tmpfs";
    let memory: Vec<Value> =
        mounts.iter().filter(|mount| is_memory(mount)).map(|mount| mount["target"].clone()).collect();
    mounts.retain(|mount| !is_memory(mount));
    let is_empty = mounts.is_empty();
    if !memory.is_empty() {
        service.insert("tmpfs".into(), memory.into());
    }
    if is_empty {
        service.remove("volumes");
    }
}

/// Files of configs and secrets by where they are seen: a short name and a path below `/run/secrets` are the same.
fn comparable_files(files: Vec<Value>) -> Value {
    let comparable = |file: Value| {
        let Value::Object(mut file) = file else { return json!({ "source": file, "target": file }) };
        if let Some(Value::String(target)) = file.get("target").or(file.get("source")).cloned() {
            file.insert("target".into(), json!(target.trim_start_matches("/run/secrets/")));
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
    json!(throng_model::units::parse_duration(text).unwrap().as_secs_f64())
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
    let Value::Object(mount) = mount else { return text(mount) };
    let get = |key: &str| mount.get(key).map_or(String::new(), text);
    let access = if mount.get("read_only") == Some(&json!(true)) { "ro" } else { "rw" };
    format!("{}:{}:{access}", get("source"), get("target"))
}

fn comparable_part(key: &str, part: Value) -> Value {
    match (key, part) {
        ("ports", Value::Array(ports)) => ports.iter().map(comparable_port).collect(),
        ("volumes", Value::Array(mounts)) => {
            // The order of mounts at different places says nothing.
            let mounts: std::collections::BTreeSet<String> = mounts.iter().map(comparable_mount).collect();
            json!(mounts)
        }
        ("environment", Value::Object(variables)) => {
            variables.iter().map(|(name, value)| (name.clone(), json!(text(value)))).collect()
        }
        ("labels" | "sysctls", Value::Object(texts)) => {
            texts.iter().map(|(name, value)| (name.clone(), json!(text(value)))).collect()
        }
        ("configs" | "secrets", Value::Array(files)) => comparable_files(files),
        ("extra_hosts", Value::Array(hosts)) => {
            hosts.iter().map(|host| json!(text(host).replacen(':', "=", 1))).collect()
        }
        ("extra_hosts", Value::Object(hosts)) => {
            hosts.iter().map(|(name, address)| json!(format!("{name}={}", text(address)))).collect()
        }
        ("shm_size", size) => json!(throng_model::units::parse_bytes(&text(&size)).unwrap()),
        ("logging", mut logging) => {
            if let Some(options) = logging.get_mut("options").and_then(Value::as_object_mut) {
                // Ours tells how many files there are by default.
                options.remove("max-file");
                for size in options.values_mut() {
                    *size = json!(throng_model::units::parse_bytes(&text(size)).unwrap());
                }
            }
            logging
        }
        ("command" | "entrypoint", Value::String(words)) => json!(shlex::split(&words)),
        ("stop_grace_period", Value::String(time)) => duration(&time),
        ("healthcheck", Value::Object(mut check)) => {
            check.remove("start_interval");
            for key in ["interval", "timeout", "start_period"] {
                if let Some(Value::String(time)) = check.get(key) {
                    let time = duration(time);
                    check.insert(key.into(), time);
                }
            }
            Value::Object(check)
        }
        ("deploy", Value::Object(mut deploy)) => {
            if deploy.get("replicas") == Some(&json!(1)) {
                deploy.remove("replicas");
            }
            let kinds = deploy.get_mut("resources").and_then(Value::as_object_mut);
            for limits in kinds.into_iter().flat_map(|kinds| kinds.values_mut()) {
                for (key, value) in limits.as_object_mut().into_iter().flatten() {
                    *value = match key.as_str() {
                        "memory" => json!(throng_model::units::parse_bytes(&text(value)).unwrap()),
                        _ => json!(text(value)),
                    };
                }
            }
            Value::Object(deploy)
        }
        (_, part) => part,
    }
}

#[test]
fn files_that_both_accept_mean_the_same_to_docker_compose() {
    if Command::new("docker-compose").arg("version").output().is_err() {
        let reason = "docker-compose is not installed";
        assert!(std::env::var_os("THRONG_REQUIRE_ALL").is_none(), "{reason}");
        eprintln!("SKIPPED files_that_both_accept_mean_the_same_to_docker_compose: {reason}");
        return;
    }
    for project in PROJECTS {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("shop");
        std::fs::create_dir_all(directory.join("web")).unwrap();
        for (name, text) in *project {
            let path = directory.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        let merged =
            project.iter().map(|(name, _)| *name).filter(|n| n.ends_with(".yaml") && !n.contains('/'));
        let output = Command::new("docker-compose")
            .args(merged.flat_map(|name| ["-f", name]))
            .arg("config")
            .current_dir(&directory)
            .env_remove("TAG")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let theirs = String::from_utf8(output.stdout).unwrap();
        // What it prints goes through our own YAML into JSON; a fault there would be seen as a difference.
        let theirs = as_json(&throng_compose::yaml::parse(&directory.as_path().into(), &theirs).unwrap());
        let theirs =
            theirs.to_string().replace(&directory.to_string_lossy().into_owned(), "DIR").replace("$$", "$");

        let (ours, our_directory) = Case { files: project, ..Case::default() }.load();
        let ours = ours.unwrap_or_else(|findings| panic!("{findings:?}"));
        let ours = canonical(&ours.app).to_string().replace(&our_directory, "DIR");
        let parse = |text: &str| comparable(serde_json::from_str(text).unwrap());
        let (ours, theirs) = (parse(&ours), parse(&theirs));
        assert!(ours == theirs, "{}:\nours: {ours:#}\ndocker-compose's: {theirs:#}", project[0].1);
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
