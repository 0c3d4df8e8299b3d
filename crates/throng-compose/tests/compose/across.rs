//! What services have from each other: circles of it, and long chains.

use crate::common::{Case, check};
use std::fmt::Write as _;
use std::time::{Duration, Instant};
use throng_compose::Loaded;
use throng_model::diagnostic::Diagnostic;

/// Squares of what a file can hold would take minutes; a busy machine may be some ten times slower than usual.
const LONGEST: Duration = Duration::from_secs(30);

fn load(text: &str) -> Result<Loaded, Vec<Diagnostic>> {
    let begin = Instant::now();
    let (result, _) = Case { files: &[("compose.yaml", text)], ..Case::default() }.load();
    assert!(begin.elapsed() < LONGEST, "{} bytes took {:?}", text.len(), begin.elapsed());
    result
}

/// So many services, each of which names the one before.
fn chain(count: usize, service: impl Fn(usize, &str) -> String) -> String {
    let mut text = String::from("services:\n");
    for number in 0..count {
        let before = number.checked_sub(1).map(|before| format!("s{before}")).unwrap_or_default();
        let _ = writeln!(text, "  s{number}: {}", service(number, &before));
    }
    text
}

#[test]
fn circles_are_told_once_with_all_who_are_in_them() {
    check(
        "services:
  a: {build: {context: ., additional_contexts: {b: 'service:b'}}}
  b: {build: {context: ., additional_contexts: {c: 'service:c'}}}
  c: {build: {context: ., additional_contexts: {a: 'service:a'}}}
  d: {build: {context: ., additional_contexts: {a: 'service:a'}}}
",
        "compose.yaml:2:3: error: images are built from each other in a circle: a → b → c → a (hint: remove service: from one \
         of the additional_contexts)",
    );
    check(
        "services:
  a: {image: a, volumes_from: [b]}
  b: {image: b, volumes_from: ['a:ro', b]}
  c: {image: c, volumes_from: [a]}
",
        "compose.yaml:2:3: error: services take volumes from each other in a circle: a → b → a (hint: remove one of these \
         volumes_from, and give the volumes to both)",
    );
}

#[test]
fn volumes_come_by_way_of_others() {
    let app = load(
        "services:
  a: {image: a, volumes: ['data:/data', './x:/x', '/own'], tmpfs: /tmp}
  b: {image: b, volumes_from: ['a:ro'], volumes: ['./y:/x']}
  c: {image: c, volumes_from: [b, a]}
volumes: {data: }
",
    )
    .expect("a good file");
    let mounts = |service: &str| -> Vec<(String, bool)> {
        let service = &app.app.services[service];
        service.mounts.iter().map(|mount| (mount.target.clone(), mount.read_only)).collect()
    };
    assert_eq!(mounts("b"), [("/x".into(), false), ("/data".into(), true)]);
    assert_eq!(mounts("c"), [("/x".into(), false), ("/data".into(), true)]);
    let told: Vec<String> = app.warnings.iter().map(|warning| warning.message.clone()).collect();
    let alone = |target: &str| format!("{target} of a belongs to each of its replicas alone");
    assert_eq!(told, [alone("/own"), alone("/tmp"), alone("/own"), alone("/tmp")]);
}

#[test]
fn long_chains_are_read_in_a_moment() {
    let image = "image: a";
    let good = load(&chain(10_000, |_, before| match before {
        "" => format!("{{{image}}}"),
        _ => {
            format!("{{{image}, build: {{context: ., additional_contexts: {{a: 'service:{before}'}}}}}}")
        }
    }));
    assert_eq!(good.expect("a good file").app.services.len(), 10_000);
    let good = load(&chain(300, |number, before| match before {
        "" => format!("{{{image}, volumes: ['./d:/d']}}"),
        _ => format!("{{{image}, volumes_from: [{before}], volumes: ['./d:/{number}']}}"),
    }));
    assert_eq!(good.expect("a good file").app.services["s299"].mounts.len(), 300);
    let findings = load(&chain(3_000, |number, before| match before {
        "" => format!("{{{image}, volumes: ['./d:/d']}}"),
        _ => format!("{{{image}, volumes_from: [{before}], volumes: ['./d:/{number}']}}"),
    }));
    let findings = findings.expect_err("squares of three thousand mounts");
    assert_eq!(findings.len(), 1, "{findings:?}");
    let said = findings[0].to_string();
    assert!(
        said.contains("the services take more than 100000 mounts from each other (hint: share a folder"),
        "{said}"
    );
}
