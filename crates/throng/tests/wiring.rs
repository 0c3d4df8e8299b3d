//! How replicas depend on, find and share work with each other.

mod support;

use std::collections::BTreeSet;
use support::{Bench, until, web};

fn kind(event: &serde_json::Value, subject: &str, message: &str) -> bool {
    event["subject"] == subject && event["message"] == message
}

#[test]
fn a_service_starts_after_what_it_depends_on_is_healthy() {
    let Some(bench) = Bench::with_probe("a_service_starts_after_what_it_depends_on_is_healthy") else {
        return;
    };
    bench.compose(
        "
services:
  front:
    image: probe
    command: [say, up]
    depends_on: {back: {condition: service_healthy}, setup: {condition: service_completed_successfully}}
  back:
    image: probe
    command: [serve, '80']
    healthcheck: {test: [CMD, /probe, healthy, '80'], interval: 1s, timeout: 5s}
  setup: {image: probe, command: [exit, '0']}
",
    );
    bench.ok(&["up", "-d", "--wait"]).says("setup 1/1 ready");
    let events = bench.ok(&["events", "--no-follow", "--format", "json"]).json();
    let place = |subject: &str, message: &str| {
        let found = events.iter().position(|event| kind(event, subject, message));
        found.unwrap_or_else(|| panic!("no {subject} {message}: {events:?}"))
    };
    let front = place("front-1", "started");
    assert!(
        place("back-1", "healthy") < front && place("setup-1", "exited with code 0") < front,
        "{events:?}"
    );
    assert_eq!(bench.ps().iter().filter(|r| r["State"] == "exited" && r["ExitCode"] == 0).count(), 1);
    bench.ok(&["ps"]).says("1 more not running");
    bench.ok(&["down"]);
    bench.assert_clean();
}

#[test]
fn nobody_waits_for_the_health_of_what_has_no_check() {
    let Some(bench) = Bench::with_probe("nobody_waits_for_the_health_of_what_has_no_check") else { return };
    let app = |check: &str| {
        format!(
            "
services:
  front: {{image: probe, command: [say, up], depends_on: {{back: {{condition: service_healthy}}}}}}
  back: {{image: probe, command: [serve, '80']{check}}}
"
        )
    };
    bench.compose(&app(""));
    let refused = bench.fails(2, &["up", "-d"]);
    refused.says("front waits until back is healthy, but back has no health check");
    refused.says("condition: service_started");
    bench.assert_clean();
    bench.compose(&app(", x-throng: {readiness: {tcp: {port: 80}, interval: 100ms}}"));
    bench.ok(&["up", "-d", "--wait"]);
    bench.ok(&["down"]);
    bench.assert_clean();
}

#[test]
fn what_depends_on_something_that_fails_says_so() {
    let Some(bench) = Bench::with_probe("what_depends_on_something_that_fails_says_so") else { return };
    bench.compose(
        "
services:
  front:
    image: probe
    command: [say, up]
    depends_on: {setup: {condition: service_completed_successfully}}
  setup: {image: probe, command: [exit, '3']}
",
    );
    bench.fails(1, &["up", "-d", "--wait"]).says("exited with code 3").says("hint: see `throng logs`");
    assert_eq!(bench.states(), [("setup-1".into(), "exited".into())], "front has not started");
}

#[test]
fn a_health_check_that_fails_ends_the_wait_with_its_reason() {
    let Some(bench) = Bench::with_probe("a_health_check_that_fails_ends_the_wait_with_its_reason") else {
        return;
    };
    bench.compose(
        "
services:
  web:
    image: probe
    command: [serve, '80']
    healthcheck: {test: [CMD, /probe, exit, '5'], interval: 500ms, timeout: 5s, retries: 2}
",
    );
    let done = bench.fails(1, &["up", "-d", "--wait"]);
    done.says("web does not come up").says("`/probe exit 5` exited with code 5").says("throng ps --all");
    assert_eq!(bench.ps()[0]["Health"], "unhealthy");
}

#[test]
fn a_wait_that_is_too_short_says_how_far_it_came() {
    let Some(bench) = Bench::with_probe("a_wait_that_is_too_short_says_how_far_it_came") else { return };
    bench.compose(
        "
services:
  web:
    image: probe
    command: [say, x]
    healthcheck: {test: [CMD, /probe, exit, '5'], interval: 60s, timeout: 5s}
",
    );
    let done = bench.fails(1, &["up", "-d", "--wait", "--wait-timeout", "1"]);
    done.says("not ready after 1s: web has 0 of 1 ready (").says("--wait-timeout");
}

#[test]
fn a_replica_that_ends_is_started_again_where_its_policy_says_so() {
    let Some(bench) = Bench::with_probe("a_replica_that_ends_is_started_again_where_its_policy_says_so")
    else {
        return;
    };
    bench.compose(
        "
services:
  always: {image: probe, command: [serve, '80'], restart: always}
  never: {image: probe, command: [serve, '80']}
",
    );
    bench.ok(&["up", "-d", "--wait"]);
    let before = bench.pids("always-1");
    for replica in ["always-1", "never-1"] {
        support::kill(bench.pids(replica)[0], rustix::process::Signal::KILL);
    }
    let replicas = until("one is back and one is not", || {
        let replicas = bench.ps();
        (replicas[0]["Restarts"] == 1
            && replicas[0]["State"] == "running"
            && replicas[1]["State"] == "exited")
            .then_some(replicas)
    });
    assert_eq!((&replicas[1]["ExitCode"], &replicas[1]["Restarts"]), (&137.into(), &0.into()));
    assert!(replicas[1]["Status"].as_str().expect("text").contains("killed by signal 9"), "{}", replicas[1]);
    assert_ne!(bench.pids("always-1"), before);
}

#[test]
fn names_lead_to_ready_replicas_only() {
    let Some(bench) = Bench::with_probe("names_lead_to_ready_replicas_only") else { return };
    bench.compose(
        "
services:
  client: {image: probe, command: [say, up]}
  web:
    image: probe
    command: [serve, '80']
    deploy: {replicas: 3}
    healthcheck: {test: [CMD, /probe, healthy, '80'], interval: 100ms, timeout: 5s, retries: 1}
",
    );
    bench.ok(&["up", "-d", "--wait"]);
    let resolve = |name: &str| bench.ok(&["exec", "client", "/probe", "resolve", name]).out.trim().to_owned();
    let addresses: BTreeSet<String> = resolve("web").split(' ').map(str::to_owned).collect();
    assert_eq!(addresses.len(), 3);
    assert!(addresses.contains(&resolve("web-2")));
    assert_eq!(resolve("nobody"), "");
    bench.ok(&["exec", "client", "/probe", "get", "web:80", "/"]).prints("200 web-");
    bench.ok(&["exec", "client", "/probe", "get", "web-3:80", "/"]).prints("200 web-3");

    let second = resolve("web-2");
    bench.ok(&["exec", "client", "/probe", "get", "web-2:80", "/sick"]);
    let left = until("the sick one is named no more", || {
        let left: BTreeSet<String> = resolve("web").split(' ').map(str::to_owned).collect();
        (left.len() == 2).then_some(left)
    });
    assert!(!left.contains(&second));
}

#[test]
fn the_published_port_spreads_requests_over_ready_replicas() {
    let Some(bench) = Bench::with_probe("the_published_port_spreads_requests_over_ready_replicas") else {
        return;
    };
    bench.compose(
        "
services:
  web: {image: probe, command: [serve, '80'], ports: ['127.0.0.1::80'], deploy: {replicas: 3}}
",
    );
    bench.ok(&["up", "-d", "--wait"]);
    let address = bench.address("web");
    // A replica without a health check counts as ready from its start; its first requests may come too early.
    until("all answer", || {
        let seen: BTreeSet<String> =
            (0..30).filter_map(|_| Some(web::get(&address, "/").ok()?.body)).collect();
        ["web-1", "web-2", "web-3"].iter().all(|name| seen.contains(*name)).then_some(())
    });
    let mut counts = std::collections::BTreeMap::<String, u32>::new();
    for _ in 0..150 {
        *counts.entry(web::get(&address, "/").expect("an answer").body).or_default() += 1;
    }
    assert!(counts.len() == 3 && counts.values().all(|count| *count >= 15), "{counts:?}");
}

#[test]
fn no_request_fails_while_replicas_leave_and_come() {
    let Some(bench) = Bench::with_probe("no_request_fails_while_replicas_leave_and_come") else { return };
    bench.compose(
        "
services:
  web:
    image: probe
    command: [serve, '80']
    ports: ['127.0.0.1::80']
    deploy: {replicas: 3}
    healthcheck: {test: [CMD, /probe, healthy, '80'], interval: 1s, timeout: 5s}
",
    );
    bench.ok(&["up", "-d", "--wait"]);
    let address = bench.address("web");
    let url = format!("http://{address}/slow?20");
    let load = bench.spawn(&["load", &url, "--clients", "6", "--duration", "2500ms", "--json"]);
    until("the load has begun", || {
        let top = bench.ok(&["top", "--no-stream", "--format", "json"]).json();
        top.iter().all(|replica| replica["NetworkReceived"].as_u64() > Some(5_000)).then_some(())
    });
    bench.ok(&["scale", "web=1"]);
    bench.ok(&["scale", "web=2"]);
    let done = load.wait();
    assert_eq!(done.code, 0, "{}", done.err);
    let result: serde_json::Value = serde_json::from_str(&done.out).expect("JSON");
    let (requests, succeeded) = (&result["result"]["requests"], &result["result"]["succeeded"]);
    assert!(requests.as_u64() > Some(100) && requests == succeeded, "{}", result["result"]["errors"]);
    bench.ok(&["down"]);
    bench.assert_clean();
}

/// Networks of other tests have other subnets.
const ADDRESSED: &str = "
services:
  web: {image: probe, command: [serve, '80'], networks: {front: {ipv4_address: 10.79.41.7}}}
  many: {image: probe, command: [serve, '80'], networks: [front], deploy: {replicas: 3}}
networks:
  front:
    ipam:
      config:
        - {subnet: 10.79.41.0/24, ip_range: 10.79.41.64/28, gateway: 10.79.41.254, aux_addresses: {kept: 10.79.41.65}}
";

#[test]
fn a_service_has_the_address_that_it_asks_for() {
    let name = "a_service_has_the_address_that_it_asks_for";
    let Some(bench) = Bench::with_app(name, ADDRESSED) else { return };
    bench.ok(&["up", "-d", "--wait"]);
    let addresses = |service: &str| -> Vec<String> {
        let of = bench.ps().into_iter().filter(|replica| replica["Service"] == service);
        of.map(|replica| replica["Addresses"].to_string()).collect()
    };
    assert_eq!(addresses("web"), ["[\"10.79.41.7\"]"]);
    assert_eq!(addresses("many"), ["[\"10.79.41.64\"]", "[\"10.79.41.66\"]", "[\"10.79.41.67\"]"]);
    let get = |what: &str| bench.ok(&["exec", "many", "/probe", "get", what, "/"]).out;
    assert_eq!((get("10.79.41.7:80"), get("web:80")), ("200 web-1\n".into(), "200 web-1\n".into()));
    bench.ok(&["up", "-d", "--wait", "--force-recreate"]);
    assert_eq!(addresses("web"), ["[\"10.79.41.7\"]"], "its successor has it, too");
    let refused = "2 replicas of web cannot all have the address 10.79.41.7";
    bench.fails(2, &["scale", "web=2"]).says(refused);
    bench.fails(2, &["up", "-d", "--scale", "web=2"]).says(refused);
    assert_eq!(addresses("web").len(), 1);

    // Whoever else wants that subnet is told where it asks for it.
    let other =
        Bench::with_app(name, &ADDRESSED.replace("10.79.41.0/24", "10.79.0.0/16")).expect("as the first");
    other
        .fails(2, &["up", "-d"])
        .says("compose.yaml:10:20: the subnet 10.79.0.0/16 of network front overlaps 10.79.41.0/24")
        .says("a route to, over thr")
        .says("hint: choose another one");
    other.assert_clean();
    bench.ok(&["down"]);
    bench.assert_clean();
}
