//! What several files, variables and the surroundings make of an app.

use crate::common::Case;
use serde_json::{Value, json};
use std::path::Path;
use throng_compose::{LoadOptions, canonical, load};

/// Loads the files and compares one part of the canonical form.
#[track_caller]
pub fn check_part(case: &Case<'_>, pointer: &str, expected: Value) {
    let (result, directory) = case.load();
    let loaded = result.unwrap_or_else(|findings| panic!("{findings:?}"));
    assert_eq!(loaded.warnings, []);
    let text = canonical(&loaded.app).to_string().replace(&directory, "DIR");
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(value.pointer(pointer).unwrap_or(&Value::Null), &expected, "{value:#}");
}

/// Merges two versions of the service `web` and compares one of its keys.
#[track_caller]
fn check_merge(base: &str, over: &str, pointer: &str, expected: Value) {
    let base =
        format!("services: {{web: {{image: a, {base}}}}}\nvolumes: {{x: , y: }}\nnetworks: {{n: , m: }}\n");
    let over = format!("services: {{web: {{{over}}}, db: {{image: a}}}}\n");
    let files = [("a.yaml", base.as_str()), ("b.yaml", over.as_str())];
    check_part(&Case { files: &files, ..Case::default() }, &format!("/services/web{pointer}"), expected);
}

#[test]
fn mappings_merge_and_commands_are_replaced() {
    check_merge("command: a b", "command: [c]", "/command", json!(["c"]));
    check_merge("entrypoint: a", "entrypoint: ", "/entrypoint", json!(null));
    check_merge(
        "environment: {A: 1, B: 2}",
        "environment: [B=3, C=4]",
        "/environment",
        json!({"A": "1", "B": "3", "C": "4"}),
    );
    check_merge("labels: [a=1]", "labels: {b: 2}", "/labels", json!({"a": "1", "b": "2"}));
    check_merge(
        "build: here",
        "build: {target: t}",
        "/build",
        json!({"context": "DIR/here", "dockerfile": "Dockerfile", "target": "t"}),
    );
    check_merge(
        "build: {context: here, args: [A=1]}",
        "build: there",
        "/build",
        json!({"context": "DIR/there", "dockerfile": "Dockerfile", "args": {"A": "1"}}),
    );
    check_merge(
        "networks: [n]",
        "networks: {m: {aliases: [z]}}",
        "/networks",
        json!({"n": null, "m": {"aliases": ["z"]}}),
    );
    check_merge(
        "healthcheck: {test: [CMD, a], interval: 1s}",
        "healthcheck: {test: [CMD, b]}",
        "/healthcheck",
        json!({"test": ["CMD", "b"], "interval": "1s", "timeout": "30s", "retries": 3, "start_period": "0s", "start_interval": "5s"}),
    );
    check_merge(
        "depends_on: ",
        "depends_on: [db]",
        "/depends_on",
        json!({"db": {"condition": "service_started", "required": true}}),
    );
    check_merge("scale: 2", "scale: 3", "/deploy", json!({"replicas": 3}));
    check_merge("environment: {A: 1}", "environment: ", "/environment", json!({"A": "1"}));
}

#[test]
fn lists_are_joined_and_unique_ones_sorted_out() {
    check_merge("profiles: [a]", "profiles: []", "/nothing", json!(null));
    let port = |published: &str, target: u16| json!({"mode": "ingress", "target": target, "published": published, "protocol": "tcp"});
    check_merge("ports: ['1:1']", "ports: ['2:2', '1:1']", "/ports", json!([port("1", 1), port("2", 2)]));
    check_merge("expose: [1]", "expose: [2, 1]", "/expose", json!(["1", "2"]));
    check_merge(
        "volumes: ['x:/a', '/b']",
        "volumes: ['y:/a:ro']",
        "/volumes",
        json!([
            {"type": "volume", "source": "y", "target": "/a", "read_only": true, "volume": {}},
            {"type": "volume", "target": "/b", "volume": {}},
        ]),
    );
}

#[test]
fn reset_and_override() {
    check_merge("ports: ['1:1']", "ports: !reset []", "/ports", json!(null));
    check_merge(
        "environment: {A: 1, B: 2}",
        "environment: {A: !reset null}",
        "/environment",
        json!({"B": "2"}),
    );
    check_merge("environment: {A: 1}", "environment: !override {B: 2}", "/environment", json!({"B": "2"}));
    check_merge("expose: [1]", "expose: !override [2]", "/expose", json!(["2"]));
}

#[test]
fn anchors_and_merge_keys() {
    let text = "
x-base: &base
  environment: &env {A: 1, B: 2}
  user: one
services:
  web:
    <<: *base
    image: a
    user: two
    environment: {<<: [*env, {C: 3}], B: 9}
";
    let case = Case { files: &[("compose.yaml", text)], ..Case::default() };
    check_part(&case, "/services/web/user", json!("two"));
    check_part(&case, "/services/web/environment", json!({"A": "1", "B": "9", "C": "3"}));
}

#[test]
fn variables_come_from_the_caller_then_from_dotenv() {
    let files = [
        (
            "compose.yaml",
            "services: {web: {image: 'a:${TAG}', user: '${USER_ID:-7}', environment: [TAG, NONE, X=$$x]}}\n",
        ),
        (".env", "TAG=dotenv\nUSER_ID=5\n"),
    ];
    let plain = Case { files: &files, ..Case::default() };
    check_part(&plain, "/services/web/image", json!("a:dotenv"));
    check_part(&plain, "/services/web/user", json!("5"));
    check_part(&plain, "/services/web/environment", json!({"TAG": "dotenv", "X": "$x"}));
    let caller = Case { environment: &[("TAG", "caller"), ("COMPOSE_PROJECT_NAME", "other")], ..plain };
    check_part(&caller, "/services/web/image", json!("a:caller"));
    check_part(&caller, "/name", json!("other"));
}

#[test]
fn environment_files_are_below_environment() {
    let files = [
        ("compose.yaml", "services: {web: {image: a, env_file: [a.env, b.env], environment: {C: own}}}\n"),
        ("a.env", "A=a\nB=a\nC=a\n"),
        ("b.env", "B=$A-b\n"),
    ];
    let case = Case { files: &files, ..Case::default() };
    check_part(&case, "/services/web/environment", json!({"A": "a", "B": "-b", "C": "own"}));
}

#[test]
fn defaults() {
    let case = Case { files: &[("compose.yaml", "services: {web: {build: .}}\n")], ..Case::default() };
    check_part(
        &case,
        "",
        json!({
            "name": "shop",
            "services": {"web": {
                "build": {"context": "DIR", "dockerfile": "Dockerfile"},
                "command": null,
                "entrypoint": null,
                "deploy": {"replicas": 1},
                "networks": {"default": null},
                "stop_grace_period": "10s",
            }},
            "networks": {"default": {"name": "shop_default"}},
        }),
    );
    let (result, _) = case.load();
    assert_eq!(result.unwrap().app.services["web"].image, "shop-web");
}

#[test]
fn files_are_found_from_the_folder_upward_with_their_override() {
    let root = tempfile::tempdir().unwrap();
    let inner = root.path().join("a/b");
    std::fs::create_dir_all(&inner).unwrap();
    let write = |name: &str, text: &str| std::fs::write(root.path().join(name), text).unwrap();
    write("docker-compose.yml", "services: {old: {image: a}}\n");
    let options = LoadOptions { directory: inner.clone(), ..LoadOptions::default() };
    assert!(load(&options).unwrap().app.services.contains_key("old"));
    write("compose.yaml", "services: {web: {image: a}}\n");
    write("compose.override.yml", "services: {web: {user: me}}\n");
    let loaded = load(&options).unwrap();
    assert_eq!(loaded.app.services["web"].user.as_deref(), Some("me"));
    assert_eq!(loaded.app.directory, root.path());
    assert_eq!(loaded.files.len(), 2);

    let nowhere = LoadOptions { files: vec!["none.yaml".into()], directory: inner, ..LoadOptions::default() };
    let findings = load(&nowhere).unwrap_err();
    assert!(findings[0].message.contains("none.yaml: No such file"), "{}", findings[0]);
}

#[test]
fn a_given_project_name_is_checked() {
    let root = tempfile::tempdir().unwrap();
    std::fs::write(root.path().join("compose.yaml"), "name: file\nservices: {web: {image: a}}\n").unwrap();
    let options = |name: &str| LoadOptions {
        directory: Path::to_path_buf(root.path()),
        project_name: Some(name.into()),
        ..LoadOptions::default()
    };
    assert_eq!(load(&options("given")).unwrap().app.name, "given");
    assert!(load(&options("No good")).unwrap_err()[0].message.contains("not a valid project name"));
}

#[test]
fn services_of_profiles_that_are_off_come_back_apart() {
    let text = "services:
  web: {image: a, depends_on: {db: {condition: service_started, required: false}}}
  db: {image: a, profiles: [data]}
";
    let files = [("compose.yaml", text)];
    let (off, _) = Case { files: &files, ..Case::default() }.load();
    let off = off.unwrap();
    assert!(off.disabled.contains_key("db") && off.app.services["web"].depends_on.is_empty());
    for profile in ["data", "*"] {
        let (on, _) = Case { files: &files, profiles: &[profile], ..Case::default() }.load();
        let on = on.unwrap();
        assert!(on.disabled.is_empty() && on.app.services["web"].depends_on.contains_key("db"));
    }
}
