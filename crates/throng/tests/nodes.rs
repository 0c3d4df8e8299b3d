//! Virtual nodes from the file to packets: where replicas are put, why one is pending, and what draining, cutting and
//! healing do to them.

mod support;

use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};
use support::{Bench, skip, until, web};

const APP: &str = "
services:
  web:
    image: probe
    command: [serve, '80']
    ports: ['127.0.0.1::80']
    deploy:
      replicas: 3
      placement:
        constraints: [node.labels.kind == small]
        preferences: [{spread: node.region}]
      resources: {reservations: {memory: 512m}}
    healthcheck: {test: [CMD, /probe, healthy, '80'], interval: 1s, timeout: 5s, retries: 2}
x-throng:
  unreachable_after: 1s
  nodes:
    pi: {count: 2, cpus: 1, memory: 1g, labels: {kind: small}, region: house}
    far: {memory: 2g, labels: {kind: small}, region: shed, link: {latency: 40ms}}
    big: {cpus: 64}
";

fn bench(name: &str) -> Option<Bench> {
    if !Path::new("/dev/net/tun").exists() {
        skip(name, "this kernel has no TAP interfaces");
        return None;
    }
    Bench::with_app(name, APP)
}

/// The node of each replica, by ordinal.
fn nodes(bench: &Bench) -> BTreeMap<u64, String> {
    let each = |replica: Value| Some((replica["Ordinal"].as_u64()?, replica["Node"].as_str()?.to_owned()));
    bench.ps().into_iter().filter_map(each).collect()
}

/// Who each replica is: its address and its first process.
fn lives(bench: &Bench) -> BTreeMap<u64, (String, u32)> {
    let each = |replica: Value| {
        let ordinal = replica["Ordinal"].as_u64()?;
        // The first one: health checks come and go beside it.
        let pids = bench.pids(&format!("web-{ordinal}"));
        Some((ordinal, (replica["Addresses"].to_string(), *pids.first().expect("a process"))))
    };
    bench.ps().into_iter().filter_map(each).collect()
}

fn listed(bench: &Bench, name: &str) -> Value {
    let nodes = bench.ok(&["node", "ls", "--format", "json"]).json();
    nodes.into_iter().find(|node| node["Name"] == name).expect("a node")
}

#[test]
fn replicas_are_placed_move_and_wait_with_a_reason() {
    let Some(bench) = bench("replicas_are_placed_move_and_wait_with_a_reason") else { return };
    bench.ok(&["up", "-d", "--wait"]).says("web 3/3 ready");
    let placed = nodes(&bench);
    let of = |placed: &BTreeMap<u64, String>, node: &str| placed.values().filter(|n| *n == node).count();
    assert_eq!(
        (of(&placed, "far"), of(&placed, "big")),
        (1, 0),
        "{placed:?}: one of three nodes in that region"
    );
    bench.ok(&["ps"]).prints("NODE");
    assert_eq!(listed(&bench, "far")["Requested"]["Memory"], 1u64 << 29);

    // Room for 2 + 2 + 4 of 512 MiB.
    bench.ok(&["scale", "web=8"]);
    let full = bench.fails(1, &["scale", "web=9"]);
    let reason = "0/4 nodes are available: 1 did not match node.labels.kind == small, 3 insufficient memory";
    full.says(reason);
    bench.ok(&["ps"]).prints(&format!("Pending: {reason}"));
    bench.ok(&["events", "--no-follow"]).prints(&format!("1 pending: {reason}"));
    bench.ok(&["scale", "web=4"]);

    let before = nodes(&bench);
    bench.ok(&["node", "drain", "pi-1"]);
    until("the drained node is empty", || (listed(&bench, "pi-1")["Replicas"] == 0).then_some(()));
    until("all are ready elsewhere", || {
        let ready = bench.ps().iter().filter(|replica| replica["Health"] == "healthy").count();
        (ready == 4 && of(&nodes(&bench), "pi-1") == 0).then_some(())
    });
    let kept = before.iter().filter(|(_, node)| *node != "pi-1");
    assert!(
        kept.clone().all(|(ordinal, node)| nodes(&bench)[ordinal] == *node),
        "others stay where they are"
    );
    bench.ok(&["up", "-d", "--wait"]);
    assert_eq!(listed(&bench, "pi-1")["State"], "drained", "it stays so");
    bench.ok(&["node", "uncordon", "pi-1"]);
    assert_eq!(listed(&bench, "pi-1")["State"], "ready");
    bench.fails(3, &["node", "drain", "pi-3"]).says("no node pi-3").says("pi-1");
    bench.fails(2, &["node", "set", "pi-1", "speed=1"]).says("latency, jitter, loss, bandwidth");
    bench.ok(&["down"]);
    bench.assert_clean();
}

#[test]
fn a_region_that_is_cut_off_and_healed_is_the_same() {
    let Some(bench) = bench("a_region_that_is_cut_off_and_healed_is_the_same") else { return };
    bench.ok(&["up", "-d", "--wait"]);
    let (before, placed) = (lives(&bench), nodes(&bench));
    let address = bench.address("web");
    let far: Vec<String> = placed
        .iter()
        .filter(|(_, node)| *node == "far")
        .map(|(ordinal, _)| format!("web-{ordinal}"))
        .collect();
    let answered_by = || web::get(&address, "/").map(|answer| answer.body);
    until("all answer", || {
        let begin = Instant::now();
        let who = answered_by().ok()?;
        // There and back, for the connection and for the answer.
        let slow = begin.elapsed() >= Duration::from_millis(80);
        assert!(
            slow || !far.contains(&who),
            "{who} answered through a link of 40 ms in {:?}",
            begin.elapsed()
        );
        far.contains(&who).then_some(())
    });
    bench.ok(&["node", "cut", "--region", "shed"]);
    assert_eq!(listed(&bench, "far")["State"], "unreachable");
    until("nobody is sent there", || {
        let events = bench.ok(&["events", "--no-follow"]).out;
        events.contains("its replicas are given no work").then_some(())
    });
    for _ in 0..6 {
        let who = answered_by().expect("an answer");
        assert!(!far.contains(&who), "{who} is cut off");
    }
    assert_eq!(lives(&bench), before, "they go on");
    bench.ok(&["node", "heal", "far"]);
    until("they answer again", || answered_by().ok().filter(|who| far.contains(who)));
    assert_eq!((lives(&bench), nodes(&bench)), (before.clone(), placed), "the same replicas");

    // And a supervisor that is killed takes nothing of this with it.
    bench.ok(&["node", "set", "far", "latency=5ms", "loss=0%"]);
    let supervisor = bench.supervisor().expect("one");
    support::kill(supervisor, rustix::process::Signal::KILL);
    until("it has ended", || (bench.supervisor() != Some(supervisor)).then_some(()));
    assert_eq!(listed(&bench, "far")["Link"]["LatencyMs"], 5.0);
    until("all answer under the next one", || answered_by().ok().filter(|who| far.contains(who)));
    assert_eq!(lives(&bench), before);
    bench.ok(&["down"]);
    bench.assert_clean();
}
