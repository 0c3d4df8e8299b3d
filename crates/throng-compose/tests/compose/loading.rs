//! Files that are made of other files: `extends`, `include`, and whose surroundings count in them.

use crate::common::Case;
use crate::merging::check_part;
use serde_json::{Value, json};

/// Loads files of which the first is the project's and compares one part of the canonical form.
#[track_caller]
fn check(files: &[(&str, &str)], pointer: &str, expected: Value) {
    check_part(&Case { files, ..Case::default() }, pointer, expected);
}

#[track_caller]
fn check_findings(files: &[(&str, &str)], expected: &str) {
    Case { files, ..Case::default() }.check(expected);
}

#[test]
fn a_service_extends_one_of_its_own_file() {
    let text = "
services:
  base: {image: a, environment: {A: 1, B: 1}, expose: [1], command: a, profiles: [never]}
  web: {extends: base, environment: [B=2], expose: [2], command: [b], profiles: !reset []}
  more: {extends: {service: web}, environment: {B: !reset null}, expose: !override [3]}
";
    let files = [("compose.yaml", text)];
    check(&files, "/services/web/environment", json!({"A": "1", "B": "2"}));
    check(&files, "/services/web/expose", json!(["1", "2"]));
    check(&files, "/services/web/command", json!(["b"]));
    check(&files, "/services/base", json!(null));
    check(&files, "/services/more/environment", json!({"A": "1"}));
    check(&files, "/services/more/expose", json!(["3"]));
    check(&files, "/services/more/image", json!("a"));
}

#[test]
fn a_service_extends_one_of_another_file_with_its_paths() {
    let main = "services: {web: {extends: {file: sub/common.yaml, service: web}, volumes: ['./own:/own']}}\n";
    let common = "
services:
  web:
    extends: {file: ../deeper/base.yaml, service: base}
    build: {dockerfile: D}
    env_file: here.env
    volumes: ['./src:/src', {type: bind, source: ../up, target: /up}, '~/home:/home', 'named:/named']
";
    let base = "services: {base: {image: 'a:${TAG:-1}', env_file: [there.env]}}\n";
    let files = [
        ("compose.yaml", "volumes: {named: }\n"),
        ("main.yaml", main),
        ("sub/common.yaml", common),
        ("sub/here.env", "HERE=1\n"),
        ("deeper/base.yaml", base),
        ("deeper/there.env", "THERE=1\n"),
    ];
    check(&files, "/services/web/build/context", json!("DIR/sub"));
    check(&files, "/services/web/image", json!("a:1"));
    check(&files, "/services/web/environment", json!({"HERE": "1", "THERE": "1"}));
    let (loaded, directory) =
        Case { files: &files, environment: &[("HOME", "/me")], ..Case::default() }.load();
    let loaded = loaded.unwrap_or_else(|findings| panic!("{findings:?}"));
    let mounts: Vec<String> =
        loaded.app.services["web"].mounts.iter().map(|mount| format!("{:?}", mount.source)).collect();
    let mounts = mounts.join(" ").replace(&directory, "DIR");
    for part in ["\"DIR/sub/src\"", "\"DIR/up\"", "\"/me/home\"", "Volume(\"named\")", "\"DIR/own\""] {
        assert!(mounts.contains(part), "{part}: {mounts}");
    }
    let names: Vec<String> =
        loaded.files.iter().map(|file| file.to_string_lossy().replace(&directory, "")).collect();
    assert_eq!(names, ["/compose.yaml", "/main.yaml", "/sub/common.yaml", "/deeper/base.yaml"]);
}

#[test]
fn what_an_extending_service_takes_away_is_gone_from_earlier_files_as_well() {
    let files = [
        ("a.yaml", "services: {web: {image: a, ports: ['1:1'], expose: [1]}}\n"),
        (
            "b.yaml",
            "services: {base: {image: b, expose: [2]}, web: {extends: base, ports: !reset [], expose: !override [3]}}\n",
        ),
    ];
    check(&files, "/services/web/ports", json!(null));
    check(&files, "/services/web/expose", json!(["3"]));
    check(&files, "/services/web/image", json!("b"));
}

#[test]
fn circles_of_extends_are_named_with_their_places() {
    check_findings(
        &[("compose.yaml", "services:\n  a: {image: a, extends: b}\n  b: {extends: c}\n  c: {extends: a}\n")],
        "compose.yaml:4:16: error: services extend each other in a circle: a → b → c → a; compose.yaml:2:26: a extends b; compose.yaml:3:16: b extends c (hint: move what they share into a service that extends none of them)",
    );
    check_findings(
        &[
            ("compose.yaml", "services: {web: {image: a, extends: {file: sub/b.yaml, service: web}}}\n"),
            ("sub/b.yaml", "services: {web: {extends: {file: ../compose.yaml, service: web}}}\n"),
        ],
        "sub/b.yaml:1:60: error: services extend each other in a circle: web of compose.yaml → web of b.yaml → web of compose.yaml; compose.yaml:1:65: web of compose.yaml extends web of b.yaml (hint: move what they share into a service that extends none of them)",
    );
    let (result, _) =
        Case { files: &[("compose.yaml", "services: {a: {image: a, extends: a}}\n")], ..Case::default() }
            .load();
    assert!(result.unwrap_err()[0].message.ends_with("circle: a → a"));
}

#[test]
fn long_chains_and_large_results_are_refused() {
    let chain = |length: usize| {
        let services = (0..length).map(|n| format!("  s{n}: {{extends: s{}}}\n", n + 1)).collect::<String>();
        format!("services:\n{services}  s{length}: {{image: a}}\n")
    };
    let load = |text: &str| Case { files: &[("compose.yaml", text)], ..Case::default() }.load().0;
    assert_eq!(load(&chain(32)).unwrap().app.services["s0"].image, "a");
    let findings = load(&chain(40)).unwrap_err();
    assert!(
        findings.iter().any(|finding| finding.message.contains("more than 32 services extend each other")),
        "{findings:?}"
    );
    let variables: String = (0..2_000).map(|n| format!("{{A{n}: 1}}, ")).collect();
    let extending: String = (0..60).map(|n| format!("  s{n}: {{extends: base}}\n")).collect();
    let findings =
        load(&format!("services:\n  base: {{image: a, x-big: [{variables}]}}\n{extending}")).unwrap_err();
    assert!(findings.iter().any(|finding| finding.message.contains("once services are extended")));
}

#[test]
fn what_cannot_be_extended_is_pointed_at() {
    let other = ("sub/b.yaml", "services: {other: {image: a}}\n");
    let file = |extends: &str| {
        format!("services:\n  web:\n    image: a\n    extends: {extends}\n  db: {{image: b}}\n")
    };
    for (extends, expected) in [
        (
            "bd",
            r#"compose.yaml:4:14: error: unknown service "bd" to extend in DIR/compose.yaml (hint: did you mean "db"?)"#,
        ),
        (
            "{service: otter, file: sub/b.yaml}",
            r#"compose.yaml:4:24: error: unknown service "otter" to extend in DIR/sub/b.yaml (hint: did you mean "other"?)"#,
        ),
        (
            "{service: web, file: none.yml}",
            "compose.yaml:4:35: error: there is no file DIR/none.yml to extend a service of",
        ),
        (
            "{file: sub/b.yaml}",
            "compose.yaml:4:5: error: extends names no service (hint: add service: with the name of the one to begin with)",
        ),
        (
            "{service: db, form: x}",
            r#"compose.yaml:4:28: warning: unknown key "form" under extends (hint: it has no effect; keys of your own start with x-)"#,
        ),
        ("[db]", "compose.yaml:4:14: error: expected a mapping, found a list"),
    ] {
        let text = file(extends);
        let case = Case { files: &[("compose.yaml", &text), other], ..Case::default() };
        let (result, directory) = case.load();
        let findings = result.map(|loaded| loaded.warnings).unwrap_or_else(|findings| findings);
        let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
        let text = lines.join("\n").replacen(&format!("{directory}/"), "", 1).replace(&directory, "DIR");
        assert_eq!(text, expected, "{extends}");
    }
}

const PART: &str = "
name: ignored
services:
  db: {build: {target: t}, volumes: ['./data:/data'], environment: [SECRET], image: 'db:${TAG}', networks: [back]}
networks: {back: {internal: true}}
";

#[test]
fn an_include_brings_its_own_folder_and_variables() {
    let files = [
        (
            "compose.yaml",
            "include: [sub/part.yaml]\nservices: {web: {image: 'a:${TAG:-x}', depends_on: [db]}}\n",
        ),
        (".env", "TAG=own\n"),
        ("sub/part.yaml", PART),
        ("sub/.env", "TAG=part\nSECRET=s\n"),
    ];
    // What the project says itself wins over what the included one's file says.
    check(&files, "/services/db/image", json!("db:own"));
    check(&files, "/services/db/environment", json!({"SECRET": "s"}));
    check(
        &files,
        "/services/db/build",
        json!({"context": "DIR/sub", "dockerfile": "Dockerfile", "target": "t"}),
    );
    check(&files, "/services/db/volumes/0/source", json!("DIR/sub/data"));
    check(&files, "/networks/back", json!({"name": "shop_back", "internal": true}));
    check(&files, "/name", json!("shop"));
    let files =
        [files[0], ("b.yaml", "services: {db: {image: mine, networks: !reset []}}\n"), files[2], files[3]];
    check(&files, "/services/db/image", json!("mine"));
}

#[test]
fn an_include_in_its_long_form() {
    let files = [
        (
            "compose.yaml",
            "include:\n  - {path: [sub/part.yaml, over.yml], project_directory: there, env_file: [one.env, two.env]}\n",
        ),
        ("sub/part.yaml", PART),
        ("over.yml", "services: {db: {user: me, volumes: ['./more:/more']}}\n"),
        ("one.env", "TAG=one\nSECRET=one\n"),
        ("two.env", "TAG=two\n"),
    ];
    check(&files, "/services/db/image", json!("db:two"));
    check(&files, "/services/db/user", json!("me"));
    check(&files, "/services/db/volumes/0/source", json!("DIR/there/data"));
    check(&files, "/services/db/volumes/1/source", json!("DIR/there/more"));
    check(&files, "/services/db/build/context", json!("DIR/there"));
}

#[test]
fn includes_nest_and_may_meet_again() {
    let files = [
        ("compose.yaml", "include: [a/a.yaml, b/b.yaml]\n"),
        (
            "a/a.yaml",
            "include: [../c/c.yaml]\nservices: {a: {image: a, extends: {file: x.yml, service: x}}}\n",
        ),
        ("a/x.yml", "services: {x: {image: x, volumes: ['./x:/x']}}\n"),
        ("b/b.yaml", "include: ['../c/c.yaml']\nservices: {b: {image: b}}\n"),
        ("c/c.yaml", "services: {c: {image: c, volumes: ['./c:/c']}}\n"),
    ];
    check(&files, "/services/c/volumes/0/source", json!("DIR/c/c"));
    check(&files, "/services/a/volumes/0/source", json!("DIR/a/x"));
    check(&files, "/services/b/image", json!("b"));
}

#[test]
fn includes_that_cannot_be_are_pointed_at() {
    check_findings(
        &[
            ("compose.yaml", "include: [a/a.yml]\nservices: {web: {image: a}}\n"),
            ("a/a.yml", "include: [../b.yml]\nservices: {a: {image: a}}\n"),
            ("b.yml", "include:\n  - path: a/a.yml\nservices: {b: {image: b}}\n"),
        ],
        "b.yml:2:11: error: files include each other in a circle: a.yml → b.yml → a.yml; a/a.yml:1:11: a.yml includes the next one (hint: remove one of these includes)",
    );
    check_findings(
        &[
            (
                "compose.yaml",
                "include: [b.yml]\nservices: {web: {image: a}, db: {image: a}}\nnetworks: {n: {}}\n",
            ),
            ("b.yml", "services: {web: {image: b}, db: {image: a}}\nnetworks: {n: }\n"),
        ],
        r#"compose.yaml:2:12: error: the service "web" is also declared by an included file; b.yml:1:12: declared here as well (hint: to change it, name a second file under the include's path, or merge one with -f)"#,
    );
    check_findings(
        &[(
            "compose.yaml",
            "include:\n  - {env_file: a}\n  - path: sub/b.yml\n    pth: a\n  - {path: compose.yaml, env_file: no.env}\n  - [a]\nservices: {web: {image: a}}\n",
        )],
        r#"compose.yaml:2:5: error: an include without path
compose.yaml:3:11: error: there is no file sub/b.yml to include
compose.yaml:4:5: warning: unknown key "pth" under include (hint: did you mean "path"?)
compose.yaml:5:36: error: there is no file no.env
compose.yaml:6:5: error: expected a text, found a list"#,
    );
}

#[test]
fn where_the_files_are_may_stand_in_the_environment_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("a file");
    write(".env", "COMPOSE_FILE=one.yml,two.yml\nCOMPOSE_PATH_SEPARATOR=,\nCOMPOSE_PROFILES=p\n");
    write("one.yml", "services: {web: {image: 'a:${TAG-none}', profiles: [p]}}\n");
    write("two.yml", "services: {web: {user: me}}\n");
    write("tags.env", "TAG=one\n");
    write("more.env", "TAG=two\nCOMPOSE_FILE=one.yml\n");
    let load = |environment: &[(&str, &str)]| {
        let environment = environment.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let options = throng_compose::LoadOptions {
            directory: folder.path().into(),
            environment,
            ..Default::default()
        };
        let loaded = throng_compose::load(&options).unwrap_or_else(|findings| panic!("{findings:?}"));
        (loaded.app.services["web"].image.clone(), loaded.app.services["web"].user.clone())
    };
    assert_eq!(load(&[]), ("a:none".into(), Some("me".into())));
    let other = [("COMPOSE_ENV_FILES", "tags.env,more.env"), ("COMPOSE_PROFILES", "*")];
    assert_eq!(load(&other), ("a:two".into(), None));
}
