//! Definitions that cannot be, or never come about: what is said, and that the app goes on as it was.

mod support;

use serde_json::Value;
use std::collections::BTreeMap;
use support::{Bench, until, web};

/// The first process of each replica of `web`, by its name.
fn lives(bench: &Bench) -> BTreeMap<String, u32> {
    let names = bench.states().into_iter().map(|(name, _)| name).filter(|name| name.starts_with("web-"));
    names.filter_map(|name| Some((name.clone(), *bench.pids(&name).first()?))).collect()
}

fn wanted(bench: &Bench) -> Value {
    bench.ok(&["describe", "web", "--format", "json"]).json().remove(0)["replicas"]["wanted"].clone()
}

/// Two replicas; `autoscale` and `more` go below the keys of those names.
fn file(autoscale: &str, more: &str) -> String {
    format!(
        "
services:
  web:
    image: probe
    command: [serve, '80']
    ports: ['127.0.0.1::80']
    deploy: {{replicas: 2, resources: {{limits: {{cpus: '0.2'}}}}}}
    x-throng:
      autoscale: {{minReplicas: 2, {autoscale}}}
{more}"
    )
}

#[test]
fn a_definition_that_makes_no_sense_changes_nothing() {
    let good = file("maxReplicas: 2", "");
    let name = "a_definition_that_makes_no_sense_changes_nothing";
    let Some(bench) = Bench::with_app(name, &good) else { return };
    bench.ok(&["up", "-d", "--wait"]);
    let (before, address) = (lives(&bench), bench.address("web"));
    let cpu = |target: &str| {
        format!(
            "maxReplicas: 3, metrics: [{{type: Resource, resource: {{name: cpu, target: {{type: Utilization, {target}}}}}}}]"
        )
    };
    let policy = |policy: &str| {
        format!("maxReplicas: 3, behavior: {{scaleDown: {{policies: [{{type: Percent, {policy}}}]}}}}")
    };
    let node = |node: &str| file("maxReplicas: 2", &format!("x-throng: {{nodes: {{one: {{{node}}}}}}}\n"));
    for (text, said) in [
        (file("maxReplicas: 1", ""), "maxReplicas: 1 is below minReplicas, 2"),
        (file(&cpu("averageUtilization: 0"), ""), "averageUtilization: 0 is not above 0"),
        (file(&policy("value: 150, periodSeconds: 15"), ""), "150 % of the replicas are more than there are"),
        (file(&policy("value: 50"), ""), "periodSeconds: 0 is not from 1 to 1800"),
        (node("labels: {kind: a}"), "the node \"one\" has no capacity"),
        (node("memory: 0"), "a node with nothing of it has no capacity"),
        (node("cpus: 1, link: {loss: 101%}"), "\"101%\" is not a percentage from 0% to 100%"),
    ] {
        bench.compose(&text);
        for command in [&["config", "-q"][..], &["up", "-d"]] {
            bench.fails(2, command).says(said).says("compose.yaml:");
        }
        assert_eq!((lives(&bench), wanted(&bench)), (before.clone(), 2.into()), "{said}");
        assert!(web::get(&address, "/").is_ok_and(|answer| answer.status == 200), "{said}");
    }
    // With the file as it was nothing is done.
    bench.compose(&good);
    bench.ok(&["up", "-d", "--wait"]);
    assert_eq!(lives(&bench), before);
    bench.ok(&["down"]);
    bench.assert_clean();
}

/// An update that does not get anywhere: the replicas of the last good definition go on, and with it no harm is left.
/// `least`: how many of the two do.
fn stays(bench: &Bench, good: &str, bad: &str, said: &str, least: usize) {
    bench.compose(good);
    bench.ok(&["up", "-d", "--wait"]);
    let (before, address) = (lives(bench), bench.address("web"));
    bench.compose(bad);
    let done = bench.fails(1, &["up", "-d", "--wait", "--wait-timeout", "4"]);
    done.says(said).says("hint:");
    for _ in 0..10 {
        let now = lives(bench);
        assert!(now.len() >= least && now.iter().all(|(name, pid)| before.get(name) == Some(pid)), "{now:?}");
        assert!(web::get(&address, "/").is_ok_and(|answer| answer.status == 200), "somebody answers");
    }
    assert_eq!(bench.ok(&["exec", "--index", "2", "web", "/probe", "env", "COLOUR"]).out, "red\n");
    bench.compose(good);
    bench.ok(&["up", "-d", "--wait"]);
    until("both are there again", || (lives(bench).len() == 2).then_some(()));
    assert_eq!(lives(bench)["web-2"], before["web-2"], "one that was good is the same");
    bench.ok(&["down"]);
    bench.assert_clean();
}

#[test]
fn an_app_goes_on_when_a_constraint_cannot_be_satisfied() {
    let file = |colour: &str, kind: &str| {
        format!(
            "
services:
  web:
    image: probe
    command: [serve, '80']
    ports: ['127.0.0.1::80']
    environment: {{COLOUR: {colour}}}
    deploy: {{replicas: 2, placement: {{constraints: [node.labels.kind == {kind}]}}}}
x-throng: {{nodes: {{one: {{cpus: 4, labels: {{kind: a}}}}}}}}
"
        )
    };
    let name = "an_app_goes_on_when_a_constraint_cannot_be_satisfied";
    let Some(bench) = Bench::with_probe(name) else { return };
    let said = "0/1 nodes are available: 1 did not match node.labels.kind == moon";
    stays(&bench, &file("red", "a"), &file("blue", "moon"), said, 1);
}

#[test]
fn an_app_goes_on_when_a_dependency_never_becomes_healthy() {
    let file = |colour: &str, depends: &str| {
        format!(
            "
services:
  web:
    image: probe
    command: [serve, '80']
    ports: ['127.0.0.1::80']
    environment: {{COLOUR: {colour}}}
    deploy: {{replicas: 2}}
    depends_on: {depends}
  db:
    image: probe
    command: [serve, '81']
    healthcheck: {{test: [CMD, /probe, exit, '1'], interval: 1s, timeout: 5s, retries: 1}}
"
        )
    };
    let name = "an_app_goes_on_when_a_dependency_never_becomes_healthy";
    let Some(bench) = Bench::with_probe(name) else { return };
    let (good, bad) = (file("red", "{}"), file("blue", "{db: {condition: service_healthy}}"));
    // Without the one that is never healthy.
    let alone = good.split("  db:").next().expect("a file").to_owned();
    stays(
        &bench,
        &alone,
        &bad,
        "db does not come up: replica 1: health check: `/probe exit 1` exited with code 1",
        2,
    );
    // Who is new waits, and says for whom.
    bench.compose(&bad);
    let done = bench.fails(1, &["up", "-d", "--wait", "--wait-timeout", "4", "web"]);
    assert!(done.err.contains("db"), "{}", done.err);
    assert!(lives(&bench).is_empty(), "{:?}", lives(&bench));
    bench.ok(&["down"]);
    bench.assert_clean();
}
