//! How a service's image comes to be here, and the name of its only container.

use crate::common::{Case, check};
use crate::merging::check_part;
use serde_json::json;
use std::time::Duration;
use throng_model::build::PullPolicy;

/// Checks keys of a service with an image; they begin in column 5 of line 4.
#[track_caller]
fn check_service(keys: &str, expected: &str) {
    check(
        &format!("services:\n  web:\n    image: web\n    {keys}\nsecrets: {{token: {{file: t}}}}\n"),
        expected,
    );
}

#[test]
fn what_is_wrong_with_a_build_is_said_at_its_place() {
    let mut wrong = Vec::new();
    for (build, expected) in [
        (
            "{dockerfile: a, dockerfile_inline: FROM b}",
            "25: error: a build has one Dockerfile (hint: keep one of dockerfile and dockerfile_inline)",
        ),
        (
            "{tags: [Web]}",
            "20: error: \"Web\" is no name for an image (hint: write [REGISTRY/]NAME[:TAG], with the name in lower case)",
        ),
        ("{no_cache: maybe}", "23: error: expected true or false, found \"maybe\""),
        ("{secrets: [tokne]}", "23: error: unknown secret \"tokne\" (hint: did you mean \"token\"?)"),
        ("{secrets: [{target: x}]}", "23: error: expected a source, found none"),
        (
            "{secrets: [{source: token, mode: 0999}]}",
            "45: error: expected permission bits such as 0440, found \"0999\"",
        ),
        (
            "{additional_contexts: {a: 'https://x.example/y.git'}}",
            "38: error: the context \"https://x.example/y.git\" is not supported (hint: name a folder, docker-image://IMAGE or service:NAME)",
        ),
        ("{additional_contexts: {a: 'docker-image://A'}}", "38: error: \"A\" is not an image reference"),
        (
            "{additional_contexts: {a: 'service:wbe'}}",
            "38: error: unknown service \"wbe\" (hint: did you mean \"web\"?)",
        ),
        ("{additional_contexts: {a: 'service:web'}}", "3: error: the image of web is built from itself"),
        (
            "{extra_hosts: ['a=nowhere']}",
            "27: error: expected an address, or host-gateway, found \"nowhere\"",
        ),
        ("{ulimits: {nofiles: 1}}", "23: error: \"nofiles\" is not a limit (hint: did you mean \"nofile\"?)"),
        (
            "{shm_size: much}",
            "23: error: \"much\" is not a size; write a number with b, k, m, g or t, as in 64m",
        ),
        (
            "{network: front}",
            "22: warning: the network \"front\" has no effect (hint: a build step has the host's network (host, default), or none)",
        ),
    ] {
        let text = format!(
            "services:\n  web:\n    image: web\n    build: {build}\nsecrets: {{token: {{file: t}}}}\n"
        );
        let (result, _) = Case { files: &[("compose.yaml", &text)], ..Case::default() }.load();
        let findings = result.map(|loaded| loaded.warnings).unwrap_or_else(|findings| findings);
        let (column, message) = expected.split_once(':').unwrap();
        let found: Vec<String> = findings.iter().map(ToString::to_string).collect();
        let line = if column == "3" { 2 } else { 4 };
        let whole = format!("compose.yaml:{line}:{column}:{message}");
        if found.len() != 1 || !found[0].contains(&whole) {
            wrong.push(format!("{build}: {whole} / {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn policies_of_pulling() {
    let policy = |keys: &str| {
        let text = format!("services:\n  web: {{image: web, build: ., {keys}}}\n");
        let (result, _) = Case { files: &[("compose.yaml", &text)], ..Case::default() }.load();
        result.unwrap_or_else(|findings| panic!("{keys}: {findings:?}")).app.services["web"].pull
    };
    let day = Duration::from_secs(24 * 3600);
    for (keys, expected) in [
        ("pull_policy: always", PullPolicy::Always),
        ("pull_policy: never", PullPolicy::Never),
        ("pull_policy: missing", PullPolicy::Missing),
        ("pull_policy: if_not_present", PullPolicy::Missing),
        ("pull_policy: build", PullPolicy::Build),
        ("pull_policy: daily", PullPolicy::Every(day)),
        ("pull_policy: weekly", PullPolicy::Every(7 * day)),
        ("pull_policy: every_2w", PullPolicy::Every(14 * day)),
        ("pull_policy: every_1d12h", PullPolicy::Every(day + day / 2)),
        ("pull_policy: refresh, pull_refresh_after: 90m", PullPolicy::Every(Duration::from_secs(5400))),
    ] {
        assert_eq!(policy(keys), expected, "{keys}");
    }
    check_service(
        "pull_policy: sometimes",
        "compose.yaml:4:18: error: expected one of always, missing, never, build, refresh, daily, weekly, every_ with a time such as every_12h, found \"sometimes\"",
    );
    check_service(
        "pull_policy: refresh",
        "compose.yaml:4:18: error: a policy of refreshing without a time (hint: add pull_refresh_after: with a time such as 12h)",
    );
    check_service(
        "pull_refresh_after: 1d",
        "compose.yaml:4:25: warning: pull_refresh_after has no effect (hint: write pull_policy: refresh beside it)",
    );
    check_service(
        "pull_policy: build",
        "compose.yaml:4:18: error: the service \"web\" has nothing to build (hint: add build: with a folder, or change pull_policy)",
    );
}

#[test]
fn a_container_name_is_one_replicas() {
    check_service("container_name: shop-web.1", "");
    check_service(
        "container_name: -web",
        "compose.yaml:4:21: error: \"-web\" is not the name of a container (hint: use letters, digits, _, . and -, two at least, and begin with a letter or digit)",
    );
    check_service(
        "container_name: shop\n    deploy: {replicas: 2}",
        "compose.yaml:4:21: error: 2 replicas cannot all be called shop (hint: remove container_name, or have one replica)",
    );
    check(
        "services:\n  a: {image: a, container_name: same}\n  b: {image: b, container_name: same}\n",
        "compose.yaml:3:33: error: the containers of a and of b are both called same; compose.yaml:2:33: a is called so here (hint: give one of them another container_name)",
    );
    // What profiles leave out is in nobody's way.
    check(
        "services:\n  a: {image: a, container_name: same}\n  b: {image: b, container_name: same, profiles: [off]}\n",
        "",
    );
}

#[test]
fn limits_and_privileges_with_bad_values() {
    check_service(
        "cpuset: 3-1",
        "compose.yaml:4:13: error: \"3-1\" ends before it begins (hint: write numbers of cores from 0, as in 0-3 or 0,2)",
    );
    check_service(
        "mem_swappiness: 101",
        "compose.yaml:4:21: error: expected a whole number from 0 to 100, or -1 for the host's, found \"101\"",
    );
    check_service(
        "oom_kill_disable: true",
        "compose.yaml:4:23: warning: oom_kill_disable has no effect without mem_limit (hint: add the limit of memory: without one only the host itself can run short)",
    );
    check_service(
        "security_opt: ['no-new-privileges:true', 'label=disable', 'apparmor:unconfined', 'seccomp:own.json']",
        "compose.yaml:4:86: warning: \"seccomp:own.json\" has no effect: replicas have the default filter of system calls (hint: seccomp:unconfined switches it off)",
    );
    check_service(
        "security_opt: ['no-new-privileges:false']",
        "compose.yaml:4:20: warning: \"no-new-privileges:false\" has no effect (hint: replicas never get new privileges; give them with cap_add)",
    );
    check_service(
        "devices: ['dev/x']",
        "compose.yaml:4:15: error: \"dev/x\" is not the path of a device (hint: write a path such as /dev/fuse)",
    );
    check_service(
        "devices: ['/dev/x:/dev/y:q']",
        "compose.yaml:4:15: error: \"q\" are no permissions of a device (hint: write some of r (read), w (write) and m (make nodes))",
    );
    check_service(
        "devices: [vendor.example/gpu=all]",
        "compose.yaml:4:15: warning: \"vendor.example/gpu=all\" has no effect: no driver is asked (hint: name the files of the devices)",
    );
    check_service("stdin_open: 7", "compose.yaml:4:17: error: expected true or false, found \"7\"");
}

#[test]
fn builds_of_other_folders_keep_their_contexts() {
    let files = [
        ("compose.yaml", "include: [sub/part.yaml]\nservices: {db: {image: db}}\n"),
        (
            "sub/part.yaml",
            "services:
  web:
    build: {context: app, additional_contexts: [near=./near, 'db=service:db', 'base=docker-image://base:1']}
  db: {image: db}
",
        ),
    ];
    let contexts = json!({"near": "DIR/sub/near", "db": "service:db", "base": "docker-image://base:1"});
    check_part(
        &Case { files: &files, ..Case::default() },
        "/services/web/build/additional_contexts",
        contexts,
    );
}

#[test]
fn an_element_that_is_a_number_is_no_name() {
    let hint = "(hint: write NAME=value; quote it if that is the name)";
    check_service(
        "environment: [8080]",
        &format!("compose.yaml:4:19: error: expected NAME=value, found a number (8080) {hint}"),
    );
    check_service(
        "labels: [a=1, true]",
        &format!("compose.yaml:4:19: error: expected NAME=value, found a boolean (true) {hint}"),
    );
    check_service(
        "environment: [0x1F, 1e3, '8080', A=1]",
        &format!(
            "compose.yaml:4:19: error: expected NAME=value, found a number (0x1F) {hint}\ncompose.yaml:4:25: error: expected NAME=value, found a number (1e3) {hint}"
        ),
    );
    check_service(
        "build: {args: [1.5]}",
        &format!("compose.yaml:4:20: error: expected NAME=value, found a number (1.5) {hint}"),
    );
    check_service(
        "depends_on: [5]",
        "compose.yaml:4:18: error: expected a name, found a number (5) (hint: quote it if that is the name)",
    );
    // As the specification has it, a variable is a text whatever it holds.
    let case = Case {
        files: &[("compose.yaml", "services: {web: {image: a, environment: [\"${A}\", '7']}}\n")],
        environment: &[("A", "5"), ("7", "seven")],
        ..Case::default()
    };
    check_part(&case, "/services/web/environment", json!({"7": "seven"}));
}
