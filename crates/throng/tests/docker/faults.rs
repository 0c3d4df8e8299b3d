//! What is done to replicas on purpose, and what cannot be done to those on Docker.

use crate::support::{until, web};
use crate::there::There;
use std::time::Duration;

const CHECKED: &str = "
services:
  web:
    image: probe
    command: [serve, '80']
    restart: always
    ports: ['127.0.0.1::80']
    stop_grace_period: 1s
    deploy: {replicas: 4}
    healthcheck: {test: [CMD, /probe, healthy, '80'], interval: 1s, timeout: 2s, retries: 1}
";
const NAMES: [&str; 4] = ["web-1", "web-2", "web-3", "web-4"];

fn of_health(there: &There, health: &str) -> usize {
    there.bench.ps().iter().filter(|replica| replica["Health"] == health).count()
}

#[test]
fn replicas_on_docker_are_paused_killed_and_stopped() {
    let name = "replicas_on_docker_are_paused_killed_and_stopped";
    let Some(there) = There::new(name, "thr-flt", 29) else { return };
    there.bench.compose(CHECKED);
    there.ok(&["--on", "docker", "up", "-d", "--wait"]);
    let before = there.pids(&NAMES);
    pauses(&there);
    assert_eq!(there.pids(&NAMES), before, "the same processes");

    // One that is paused can be killed.
    there.ok(&["pause", "web", "--share", "2"]);
    there.ok(&["kill", "web", "--share", "1"]).says("web-1 killed");
    until("it runs again", || (there.in_state("running").len() == 3).then_some(()));
    there.ok(&["unpause", "web"]).says("web-2 goes on");
    let after = there.pids(&NAMES);
    assert!(after[0] != before[0] && after[1..] == before[1..], "{before:?} {after:?}");
    // It does not heed it.
    there.ok(&["kill", "web", "-s", "HUP", "--share", "1"]);
    stops(&there);
    refusals(&there);
    there.down();
}

fn pauses(there: &There) {
    there.ok(&["pause", "web", "--share", "50%", "--seed", "7"]).says(" paused");
    let paused = there.in_state("paused");
    assert_eq!(paused.len(), 2, "{:?}", there.bench.states());
    let index = paused[0].trim_start_matches("web-");
    let refused = there.fails(2, &["exec", "--index", index, "web", "/probe", "print", "x"]);
    refused.says("is paused").says("unpause");
    until("they leave the balancer", || (of_health(there, "unhealthy") == 2).then_some(()));
    there.ok(&["events", "--no-follow"]).prints("unhealthy: `/probe healthy 80`").prints("is paused");
    let address = there.bench.address("web");
    for _ in 0..8 {
        let who = web::get(&address, "/").expect("an answer").body;
        assert!(!paused.contains(&who), "{who} is paused");
    }
    // The next supervisor finds them as they are, and so does whoever asks Docker.
    there.kill_supervisor();
    assert_eq!(there.in_state("paused"), paused);
    assert!(paused.iter().all(|name| there.container(name)["State"]["Paused"] == true));
    there.ok(&["unpause"]).says(&format!("{} goes on", paused[0]));
    until("all are given work again", || (of_health(there, "healthy") == 4).then_some(()));
    there.ok(&["pause", "web", "--share", "1", "--for", "1s"]).says("web-1 paused");
    until("it goes on by itself", || there.in_state("paused").is_empty().then_some(()));
}

fn stops(there: &There) {
    let before = there.pids(&NAMES);
    there.ok(&["stop", "web", "--share", "1", "-t", "0"]).says("web-1 stopped");
    until("it has ended", || (there.in_state("exited") == ["web-1"]).then_some(()));
    there.kill_supervisor();
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(there.in_state("exited"), ["web-1"], "no rule starts it, nor the next supervisor");
    there.ok(&["start"]).says("web-1 is started");
    there.ok(&["scale", "web=4"]);
    let after = there.pids(&NAMES);
    assert!(after[0] > 0 && after[0] != before[0] && after[1..] == before[1..], "{before:?} {after:?}");
    there.ok(&["stop", "web", "--share", "25%", "-t", "0", "--for", "1s"]);
    there.ok(&["scale", "web=4"]);
}

/// What is only the engine's is refused by name, and nothing else happens.
fn refusals(there: &There) {
    let before = there.pids(&NAMES);
    there.fails(2, &["fill", "web", "--size", "1m"]).says("no limit on Docker").says("--on local");
    there.fails(2, &["fill", "web"]).says("no limit on Docker");
    there.ok(&["empty", "web"]);
    there.fails(3, &["node", "cut", "pi4-1"]).says("x-throng.nodes");
    there.bench.compose(&format!("{CHECKED}x-throng: {{nodes: {{pi4-1: {{cpus: 2, memory: 4g}}}}}}\n"));
    there.fails(2, &["up", "-d"]).says("virtual nodes").says("--on local");
    assert_eq!(there.pids(&NAMES), before, "a refusal changes nothing");
    there.bench.compose(CHECKED);
    there.ok(&["up", "-d", "--wait"]);
    assert_eq!(there.pids(&NAMES), before);
}

#[test]
fn experiments_on_docker_have_the_faults_that_it_can_have() {
    let name = "experiments_on_docker_have_the_faults_that_it_can_have";
    let Some(there) = There::new(name, "thr-xfl", 30) else { return };
    there.bench.compose(CHECKED);
    let experiment = |during: &str| {
        format!(
            "
title: Faults
stages:
  - {{name: start, up: }}
  - name: load
    load: {{service: web, path: '/', rate: 20, duration: 12s}}
    during: [{during}]
    require: ['errors<60%', 'recovered within 10s']
"
        )
    };
    let faults = "{at: 1s, kill: {service: web, share: 2}}, \
                  {at: 3s, pause: {service: web, share: '2', seed: 3, for: 2s}}, \
                  {at: 7s, stop: {service: web, share: '1', for: 1s}}";
    there.bench.write("experiment.yaml", &experiment(faults));
    let done = there.ok(&["--on", "docker", "run", "--out", "out"]);
    done.says("nothing is left behind");
    assert_eq!(there.left(), Vec::<String>::new());
    there.bench.write("experiment.yaml", &experiment("{at: 1s, fill: {service: web, size: 1m}}"));
    let refused = there.spawn(&["--on", "docker", "run", "--out", "out2"]).wait();
    assert_ne!(refused.code, 0);
    refused.says("no limit on Docker");
    assert_eq!(there.left(), Vec::<String>::new());
    there.bench.assert_clean();
}
