//! The same files through Docker's own Compose, as far as both understand them.

use crate::common::Case;
use serde_json::{Value, json};
use std::process::Command;
use throng_compose::canonical;

const FILES: [&str; 3] = [
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
    "version: '3.8'
services:
  web:
    image: a
    ports: ['8080:80', '127.0.0.1:9000:90/udp', {target: 70, published: 71}]
    volumes: ['data:/data', './src:/src:ro', {type: bind, source: /a, target: /b}]
    deploy: {replicas: 2, resources: {limits: {cpus: '0.5', memory: 64M}}}
volumes: {data: }
",
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
];

/// Version 1 of docker-compose, which Debian packages, prints an older notation. Both are brought to one form: what
/// the two cannot both say (defaults, the project's name, long and short mounts and ports) is left out or rewritten.
fn comparable(mut value: Value) -> Value {
    let Some(services) = value.get_mut("services").and_then(Value::as_object_mut) else { return value };
    for service in services.values_mut().filter_map(Value::as_object_mut) {
        for key in [
            "command",
            "environment",
            "entrypoint",
            "stop_grace_period",
            "networks",
            "ports",
            "volumes",
            "healthcheck",
            "deploy",
            "expose",
        ] {
            if let Some(part) = service.remove(key) {
                service.insert(key.into(), comparable_part(key, part));
            }
        }
        if service.get("stop_grace_period") == Some(&json!(10.0)) {
            service.remove("stop_grace_period");
        }
        if service.get("networks") == Some(&json!({"default": null})) {
            service.remove("networks");
        }
        if let Some(Value::Object(dependencies)) = service.get_mut("depends_on") {
            dependencies
                .values_mut()
                .filter_map(Value::as_object_mut)
                .for_each(|d| drop(d.remove("required")));
        }
        if let Some(build) = service.get_mut("build").and_then(Value::as_object_mut) {
            build.remove("dockerfile");
        }
        service.retain(|_, value| !value.is_null() && *value != json!({}));
    }
    let keep = ["services"];
    value.as_object_mut().into_iter().for_each(|top| top.retain(|key, _| keep.contains(&key.as_str())));
    value
}

/// In seconds: `90s` and `1m30s` are the same.
fn duration(text: &str) -> Value {
    json!(throng_model::units::parse_duration(text).unwrap().as_secs_f64())
}

fn comparable_part(key: &str, part: Value) -> Value {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    match (key, part) {
        ("ports", Value::Array(ports)) => json!(
            ports
                .iter()
                .map(|port| match port {
                    Value::Object(port) => {
                        let host = port.get("host_ip").map_or(String::new(), |ip| text(ip) + ":");
                        let get = |key: &str| port.get(key).map_or(String::new(), text);
                        format!(
                            "{host}{}:{}/{}",
                            get("published"),
                            get("target"),
                            port.get("protocol").map_or("tcp".into(), text)
                        )
                    }
                    short =>
                        Some(text(short)).filter(|s| s.contains('/')).unwrap_or_else(|| text(short) + "/tcp"),
                })
                .collect::<Vec<_>>()
        ),
        ("volumes", Value::Array(mounts)) => json!(
            mounts
                .iter()
                .map(|mount| match mount {
                    Value::Object(mount) => {
                        let read_only = mount.get("read_only") == Some(&json!(true));
                        let get = |key: &str| mount.get(key).map_or(String::new(), text);
                        format!("{}:{}:{}", get("source"), get("target"), if read_only { "ro" } else { "rw" })
                    }
                    short => text(short),
                })
                .collect::<Vec<_>>()
        ),
        ("environment", Value::Object(variables)) => {
            variables.iter().map(|(name, value)| (name.clone(), json!(text(value)))).collect()
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
            if let Some(limits) =
                deploy.get_mut("resources").and_then(|r| r.get_mut("limits")).and_then(Value::as_object_mut)
            {
                for (key, value) in limits.iter_mut() {
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
    for text in FILES {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("shop");
        std::fs::create_dir_all(directory.join("web")).unwrap();
        std::fs::write(directory.join("compose.yaml"), text).unwrap();
        let output = Command::new("docker-compose")
            .arg("-f")
            .arg("compose.yaml")
            .arg("config")
            .current_dir(&directory)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let theirs = String::from_utf8(output.stdout).unwrap();
        // What it prints goes through our own YAML into JSON; a fault there would be seen as a difference.
        let theirs = as_json(&throng_compose::yaml::parse(&directory.as_path().into(), &theirs).unwrap());
        let theirs =
            theirs.to_string().replace(&directory.to_string_lossy().into_owned(), "DIR").replace("$$", "$");

        let (ours, our_directory) = Case { files: &[("compose.yaml", text)], ..Case::default() }.load();
        let ours = canonical(&ours.unwrap().app).to_string().replace(&our_directory, "DIR");
        let parse = |text: &str| comparable(serde_json::from_str(text).unwrap());
        assert_eq!(parse(&ours), parse(&theirs), "ours is left, docker-compose's right");
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
