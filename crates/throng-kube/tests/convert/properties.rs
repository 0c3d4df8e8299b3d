//! What must hold for every file that `throng config` accepts.

use crate::common::{converted, lines, loaded};
use crate::{references, schema};
use proptest::prelude::*;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use throng_compose::yaml::{self, Node};
use throng_kube::{Converted, Format, Options, stream};

/// Keys of a service with what may stand there, in the forms that mean something to a cluster.
const KEYS: &[(&str, &[&str])] = &[
    (
        "image",
        &[
            "a",
            "'reg.example:5000/x/y:1.2'",
            "'a@sha256:0000000000000000000000000000000000000000000000000000000000000000'",
        ],
    ),
    ("command", &["run", "[a, 'b $$(c) c2:80']", "[]", "'ask s2-1'"]),
    ("entrypoint", &["e", "[]", "[x, y]"]),
    (
        "environment",
        &[
            "{A: 1, B_PASSWORD: two, 'C D': e}",
            "[PEER=http://s1:80, 'URL=pg://u:p@s2/x']",
            "{A: 'multi\\nline'}",
        ],
    ),
    ("labels", &["{a: b, 'c d': '1'}", "{prometheus.io/port: '9090'}"]),
    ("user", &["me", "'1000:7'", "'0'", "root"]),
    ("working_dir", &["/a"]),
    ("hostname", &["host.a", "a_b"]),
    ("restart", &["always", "'no'", "on-failure:5"]),
    ("stop_signal", &["SIGINT"]),
    ("stop_grace_period", &["500ms", "1m30s", "0s"]),
    ("expose", &["['80']", "['81/udp', '82']"]),
    (
        "ports",
        &[
            "['80']",
            "['127.0.0.1:9000-9001:90-91/udp']",
            "[{target: 70, app_protocol: grpc}, {target: 71, app_protocol: grpc}]",
            "['80:80', '81:80', '90:81', '80']",
        ],
    ),
    (
        "volumes",
        &[
            "['data:/d', './nginx.conf:/x:ro']",
            "['./src:/src', /anon, './conf.d:/c:ro', './icon.png:/i']",
            "[{type: volume, source: other, target: /o, volume: {subpath: x}}]",
        ],
    ),
    ("tmpfs", &["/t", "['/u:size=1m']"]),
    ("configs", &["[c]", "[{source: c, target: /etc/c, mode: '0440', uid: '5'}]"]),
    ("secrets", &["[s]", "[{source: s, target: /etc/s}, s]"]),
    ("healthcheck", &["{test: [CMD, a], interval: 500ms, retries: 0}", "{test: ask s1}", "{disable: true}"]),
    (
        "depends_on",
        &["[s0]", "{s0: {condition: service_healthy}}", "{s0: {condition: service_completed_successfully}}"],
    ),
    ("networks", &["[front]", "{front: {aliases: [www, s9]}, back: }", "[back]"]),
    (
        "deploy",
        &[
            "{replicas: 3, update_config: {order: start-first, parallelism: 0, delay: 3s}}",
            "{mode: global, update_config: {parallelism: 2, monitor: 1s}}",
            "{replicas: 0, resources: {limits: {cpus: '0.25', memory: 64M, pids: 5}, reservations: {cpus: '0.1'}}}",
            "{replicas: 2, placement: {constraints: ['node.labels.a==b', 'node.role!=manager'], preferences: [{spread: node.region}], max_replicas_per_node: 1}, labels: {x: y}}",
            "{mode: replicated-job, replicas: 2}",
        ],
    ),
    (
        "x-throng",
        &[
            "{readiness: {http: {port: 80, path: /r}}, liveness: {tcp: {port: 81}}, startup: {grpc: {port: 82}, start_period: 7s}}",
            "{autoscale: {minReplicas: 2, maxReplicas: 5, metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}]}}",
            "{job: {completions: 3, parallelism: 2, deadline: 1500ms}}",
            "{job: {schedule: '@every 5m', timezone: Europe/Berlin, concurrency: forbid}}",
            "{vertical: {updateMode: Off, minAllowed: {cpu: 100m}}}",
        ],
    ),
    ("read_only", &["true"]),
    ("cap_add", &["[NET_ADMIN]"]),
    ("cap_drop", &["[ALL]"]),
    ("group_add", &["[5, audio]"]),
    ("sysctls", &["{net.core.somaxconn: '128'}"]),
    ("extra_hosts", &["['a:1.2.3.4', 'b:host-gateway', 'c:1.2.3.4']"]),
    ("dns", &["1.1.1.1"]),
    ("dns_opt", &["['timeout:1', rotate]"]),
    ("shm_size", &["1m"]),
    ("init", &["true"]),
    ("network_mode", &["none"]),
    ("pre_stop", &["[{command: [a, 'b c']}]", "[{command: a}, {command: b, working_dir: /x, user: me}]"]),
    ("container_name", &["box"]),
];

/// Labels for Kompose, one or two of which a service may have.
const LABELS: &[&str] = &[
    "kompose.service.type: nodeport",
    "kompose.service.type: loadbalancer",
    "kompose.service.type: headless",
    "kompose.service.expose: 'true'",
    "kompose.service.expose: 'a.example/x,b.example'",
    "kompose.controller.type: daemonset",
    "kompose.controller.type: statefulset",
    "kompose.hpa.cpu: '80%'",
    "kompose.hpa.memory: 200Mi",
    "kompose.cronjob.schedule: '1 * * * *'",
    "kompose.volume.type: emptyDir",
    "kompose.volume.type: hostPath",
    "kompose.volume.type: persistentVolumeClaim",
    "kompose.init.containers.command: '[\"a\"]'",
    "kompose.controller.port.expose: 'true'",
    "kompose.security-context.fsgroup: '5'",
    "kompose.service.nodeport.port: '30000'",
    "kompose.service.healthcheck.liveness.http_get_port: '8080'",
    "kompose.service.name_override: other",
];

const REST: &str = "networks: {front: , back: {internal: true}}\nvolumes: {data: , other: {labels: {kompose.volume.size: \
                    5Gi}}}\nconfigs: {c: {content: 'a: b'}}\nsecrets: {s: {file: ./password.txt}}\n";

/// A service: what it is made of, by place in the tables.
fn service(n: usize) -> impl Strategy<Value = String> {
    let keys = prop::collection::vec((0..KEYS.len(), 0usize..8), 0..9);
    let labels = prop::collection::vec(0..LABELS.len(), 0..3);
    (keys, labels).prop_map(move |(keys, labels)| {
        let mut text = format!("  s{n}:\n");
        let mut said = BTreeSet::new();
        if n == 0 {
            // The others depend on it.
            said.insert("depends_on");
        }
        if !labels.is_empty() {
            said.insert("labels");
            let distinct: BTreeMap<&str, &str> =
                labels.iter().filter_map(|label| LABELS[*label].split_once(": ")).collect();
            text.push_str("    labels:\n");
            for (label, value) in distinct {
                text.push_str(&format!("      {label}: {value}\n"));
            }
        }
        for (key, form) in keys {
            let (key, forms) = KEYS[key];
            if said.insert(key) {
                text.push_str(&format!("    {key}: {}\n", forms[form % forms.len()]));
            }
        }
        if said.insert("image") {
            text.push_str("    image: a:1\n");
        }
        text
    })
}

/// Whether YAML that was read is the value that was written.
fn same(node: &Node, value: &Value) -> bool {
    match (&node.value, value) {
        (yaml::Value::Map(entries), Value::Object(map)) => {
            entries.len() == map.len()
                && entries.iter().all(|e| map.get(&e.key).is_some_and(|value| same(&e.value, value)))
        }
        (yaml::Value::List(items), Value::Array(list)) => {
            items.len() == list.len() && items.iter().zip(list).all(|(node, value)| same(node, value))
        }
        (yaml::Value::Scalar(scalar), Value::String(text)) => scalar.text == *text,
        (yaml::Value::Scalar(scalar), Value::Number(_) | Value::Bool(_)) => {
            scalar.plain && serde_json::from_str::<Value>(&scalar.text).is_ok_and(|read| read == *value)
        }
        _ => false,
    }
}

/// All that is promised of one output.
pub fn check(converted: &Converted, external: &[&str]) -> Result<(), String> {
    references::check(&converted.objects)?;
    references::check_claims(&converted.objects, external)?;
    for object in &converted.objects {
        schema::check(object)?;
        let text = stream(std::slice::from_ref(object), Format::Yaml);
        let node =
            yaml::parse(&std::path::Path::new("k.yaml").into(), &text).map_err(|e| format!("{e}\n{text}"))?;
        if !same(&node, &object.value) {
            return Err(format!("YAML says something else than JSON:\n{text}\n{:#}", object.value));
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn what_is_accepted_becomes_objects_that_fit_together(a in service(0), b in service(1), c in service(2)) {
        let text = format!("name: shop\nservices:\n{a}{b}{c}{REST}");
        // What the reader refuses is no matter of conversion.
        let Ok(loaded) = loaded(&text) else { return Ok(()) };
        match converted(&loaded, &Options::default()) {
            Err(findings) => prop_assert!(!findings.is_empty()),
            Ok(one) => {
                check(&one, &[]).map_err(|wrong| TestCaseError::fail(format!("{wrong}\n{text}\n{}", stream(&one.objects, Format::Yaml))))?;
                let again = converted(&loaded, &Options::default()).map_err(|e| TestCaseError::fail(lines(&e, "")))?;
                prop_assert_eq!(stream(&one.objects, Format::Yaml), stream(&again.objects, Format::Yaml));
            }
        }
    }

    #[test]
    fn any_text_is_written_so_that_it_reads_the_same(value in any::<String>(), content in "[ \\n\\ta-z#:|>'\"-]{0,40}") {
        prop_assume!(!value.contains('\0'));
        let mut app = loaded("name: shop\nservices: {web: {image: 'a:1', configs: [c]}}\nconfigs: {c: {content: x}}").unwrap();
        let web = app.app.services.get_mut("web").unwrap();
        web.environment.insert("A".into(), value.clone());
        web.labels.insert("x".into(), value);
        app.app.configs.insert("c".into(), throng_model::app::FileSource::Content(content));
        let one = converted(&app, &Options::default()).map_err(|e| TestCaseError::fail(lines(&e, "")))?;
        check(&one, &[]).map_err(TestCaseError::fail)?;
    }
}

#[test]
fn most_generated_files_are_accepted() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;
    let mut runner = TestRunner::deterministic();
    let mut objects = 0;
    let good = (0..100)
        .filter(|_| {
            let text = |n, runner: &mut TestRunner| service(n).new_tree(runner).unwrap().current();
            let services = [0, 1, 2].map(|n| text(n, &mut runner)).concat();
            let loaded = loaded(&format!("name: shop\nservices:\n{services}{REST}"));
            let converted = loaded.ok().and_then(|loaded| converted(&loaded, &Options::default()).ok());
            objects += converted.as_ref().map_or(0, |converted| converted.objects.len());
            converted.is_some()
        })
        .count();
    assert!(good >= 40, "only {good} of 100 files were converted");
    assert!(objects / good >= 6, "{objects} objects of {good} files are too few");
}
