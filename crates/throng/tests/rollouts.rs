//! Updates as users see them: under load, with definitions that do not work, across the death of the supervisor.

mod support;

use rustix::process::Signal;
use serde_json::Value;
use std::time::{Duration, Instant};
use support::{Bench, kill, probe, until, web};

/// How long the load of the long test goes on. The updates under it take a third of that on two busy cores.
const LOAD: Duration = Duration::from_secs(15);

/// The first process of each replica, by the replica's name inside the project.
fn lives(bench: &Bench) -> Vec<(String, u32)> {
    let name = |replica: &Value| format!("web-{}", replica["Ordinal"]);
    bench.ps().iter().map(|r| (name(r), bench.pids(&name(r)).first().copied().unwrap_or(0))).collect()
}

fn colours(bench: &Bench, count: u32) -> Vec<String> {
    let colour =
        |index: u32| bench.ok(&["exec", "--index", &index.to_string(), "web", "/probe", "env", "COLOUR"]);
    (1..=count).map(|index| colour(index).out.trim().to_owned()).collect()
}

fn events(bench: &Bench, kind: &str) -> Vec<String> {
    let events = bench.ok(&["events", "--no-follow", "--format", "json"]).json();
    let text = |event: &Value| event["message"].as_str().unwrap_or_default().to_owned();
    events.iter().filter(|event| event["type"] == kind).map(text).collect()
}

#[test]
fn updates_of_fifty_replicas_lose_no_request() {
    let Some(bench) = Bench::with_probe("updates_of_fifty_replicas_lose_no_request") else { return };
    let file = |colour: &str, order: &str| {
        bench.compose(&format!(
            "
services:
  web:
    image: probe
    command: [serve, '80']
    ports: ['127.0.0.1::80']
    environment: {{COLOUR: {colour}}}
    healthcheck: {{test: [CMD, /probe, healthy, '80'], interval: 5s, timeout: 5s, retries: 2}}
    deploy:
      replicas: 50
      update_config: {{parallelism: 10, order: {order}, monitor: 200ms}}
"
        ));
    };
    file("red", "start-first");
    bench.ok(&["up", "-d", "--wait"]);
    let before = lives(&bench);
    let url = format!("http://{}/", bench.address("web"));
    let seconds = format!("{}s", LOAD.as_secs());
    let (load, begin) =
        (bench.spawn(&["load", &url, "--rate", "200", "--duration", &seconds, "--json"]), Instant::now());
    std::thread::sleep(Duration::from_secs(1));
    for (colour, order) in [("green", "start-first"), ("blue", "stop-first")] {
        file(colour, order);
        bench.ok(&["up", "-d", "--wait"]);
    }
    let took = begin.elapsed();
    assert!(took < LOAD, "the updates took {took:?}, longer than the load");
    let done = load.wait();
    assert_eq!(done.code, 0, "{}", done.err);
    let result: Value = serde_json::from_str(&done.out).expect("a result");
    let (requests, succeeded) = (&result["result"]["requests"], &result["result"]["succeeded"]);
    assert_eq!(requests, succeeded, "{}", result["result"]["errors"]);
    assert!(requests.as_u64().expect("a count") >= 200 * (LOAD.as_secs() - 1), "{requests}");
    eprintln!("two updates of 50 replicas took {took:.1?}; {requests} requests, {succeeded} succeeded");
    let after = lives(&bench);
    let names = |lives: &[(String, u32)]| lives.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(
        names(&after),
        names(&before),
        "every replica keeps its name, and nobody who stood in is left"
    );
    assert!(after.iter().zip(&before).all(|(after, before)| after.1 != before.1), "each is a new one");
    assert_eq!(events(&bench, "update"), ["update of 50 replicas begins", "update done"].repeat(2));
}

fn three(command: &str, update: &str, more: &str) -> String {
    format!(
        "
services:
  web:
    image: probe
    command: [{command}]
    ports: ['127.0.0.1::80']
    deploy: {{replicas: 3, update_config: {{monitor: 500ms, {update}}}}}
    {more}
"
    )
}

#[test]
fn an_update_that_fails_is_rolled_back_and_said_so() {
    let Some(bench) = Bench::with_probe("an_update_that_fails_is_rolled_back_and_said_so") else { return };
    let update = "failure_action: rollback, order: start-first";
    bench.compose(&three("serve, '80'", update, ""));
    bench.ok(&["up", "-d", "--wait"]);
    let before = lives(&bench);
    bench.compose(&three("exit, '3'", update, ""));
    let done = bench.fails(1, &["up", "-d", "--wait"]);
    done.says("web: the update was rolled back: 1 of 3 failed, replica 4 last: exited with code 3");
    done.says("hint: the replicas are what they were before");
    assert_eq!(lives(&bench), before, "nobody left before somebody stood in well");
    let told = events(&bench, "update");
    for text in
        ["update of 3 replicas begins", "update: replica 4 exited", "update rolls back", "update rolled back"]
    {
        assert!(told.iter().any(|event| event.starts_with(text)), "{text}: {told:?}");
    }
    // The next supervisor knows what is wanted: not what the file says that was brought up last.
    kill(bench.supervisor().expect("a supervisor"), Signal::KILL);
    until("it has ended", || (!bench.listens()).then_some(()));
    assert_eq!(lives(&bench), before);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(lives(&bench), before);
    // Scaling is no update.
    bench.ok(&["scale", "web=4"]);
    assert_eq!(lives(&bench)[..3], before[..]);
    bench.compose(&three("serve, '80'", update, "environment: {COLOUR: red}"));
    bench.ok(&["up", "-d", "--wait"]);
    assert_eq!(colours(&bench, 3), ["red"; 3]);
}

/// Ports of the host at which a service listens, with the port inside for each.
fn published(bench: &Bench) -> Vec<(u64, u64)> {
    let replica = bench.ps().remove(0);
    let ports = replica["Publishers"].as_array().cloned().unwrap_or_default();
    let number = |port: &Value, key: &str| port[key].as_u64().expect("a port");
    let mut ports: Vec<_> =
        ports.iter().map(|port| (number(port, "PublishedPort"), number(port, "TargetPort"))).collect();
    ports.sort_unstable();
    ports
}

#[test]
fn a_rolled_back_update_publishes_the_ports_of_before_and_no_others() {
    let name = "a_rolled_back_update_publishes_the_ports_of_before_and_no_others";
    let Some(bench) = Bench::with_probe(name) else { return };
    let file = |command: &str, ports: &str| {
        bench.compose(&format!(
            "
services:
  web:
    image: probe
    command: [{command}]
    ports: [{ports}]
    deploy: {{replicas: 2, update_config: {{monitor: 500ms, order: start-first, failure_action: rollback}}}}
"
        ));
    };
    let (old, new) = (web::free_port(), web::free_port());
    // One that the file names and one that the kernel chooses.
    file("serve, '80'", &format!("'127.0.0.1:{old}:80', '127.0.0.1::80'"));
    bench.ok(&["up", "-d", "--wait"]);
    let before = published(&bench);
    assert_eq!(before.len(), 2, "{before:?}");
    let status = |port: u64| web::get(&format!("127.0.0.1:{port}"), "/").map(|answer| answer.status);
    file("exit, '3'", &format!("'127.0.0.1:{new}:81'"));
    bench.fails(1, &["up", "-d", "--wait"]).says("web: the update was rolled back");
    assert_eq!(published(&bench), before);
    for (port, _) in &before {
        assert_eq!(status(*port).expect("an answer"), 200, "{port}");
    }
    let refused = status(u64::from(new)).expect_err("nobody listens there any more");
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    // So does the next supervisor.
    kill(bench.supervisor().expect("a supervisor"), Signal::KILL);
    until("it has ended", || (!bench.listens()).then_some(()));
    assert_eq!(published(&bench), before);
    for (port, _) in &before {
        assert_eq!(status(*port).expect("an answer"), 200, "{port}");
    }
}

#[test]
fn a_paused_update_outlives_its_supervisor_and_goes_on_when_asked() {
    let Some(bench) = Bench::with_probe("a_paused_update_outlives_its_supervisor_and_goes_on_when_asked")
    else {
        return;
    };
    bench.write("gate/readme", "");
    let gate = "volumes: ['./gate:/gate']";
    bench.compose(&three("serve, '80'", "order: stop-first", gate));
    bench.ok(&["up", "-d", "--wait"]);
    let before = lives(&bench);
    let check = "healthcheck: {test: [CMD, /gate/probe, healthy, '80'], interval: 1s, retries: 1}";
    let more = format!("{gate}\n    environment: {{COLOUR: red}}\n    {check}");
    bench.compose(&three("serve, '80'", "order: stop-first", &more));
    let done = bench.fails(1, &["up", "-d", "--wait"]);
    done.says("web: the update is paused: 1 of 3 failed, replica 1 last: is unhealthy")
        .says("`throng up` goes on");
    assert_eq!(lives(&bench)[1..], before[1..]);
    kill(bench.supervisor().expect("a supervisor"), Signal::KILL);
    until("it has ended", || (!bench.listens()).then_some(()));
    bench.ps();
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(lives(&bench)[1..], before[1..], "a pause is not forgotten");
    // What was in the way goes, and the same file goes on where it was.
    std::fs::copy(probe(), bench.folder.join("gate/probe")).expect("a copy");
    bench.ok(&["up", "-d", "--wait"]);
    assert_eq!(colours(&bench, 3), ["red"; 3]);
}

#[test]
fn scaling_by_up_touches_only_what_is_new() {
    let Some(bench) = Bench::with_probe("scaling_by_up_touches_only_what_is_new") else { return };
    bench.compose(&three("serve, '80'", "parallelism: 0", ""));
    bench.ok(&["up", "-d", "--wait"]);
    let before = lives(&bench);
    bench.ok(&["up", "-d", "--wait", "--scale", "web=5"]);
    assert_eq!((lives(&bench)[..3].to_vec(), lives(&bench).len()), (before.clone(), 5));
    bench.ok(&["up", "-d", "--wait", "--scale", "web=2"]);
    assert_eq!(lives(&bench), before[..2]);
    // Neither does another policy, nor another pace of restarts.
    bench.compose(&three("serve, '80'", "parallelism: 2", "restart: always"));
    bench.ok(&["up", "-d", "--wait", "--scale", "web=2"]);
    assert_eq!(lives(&bench), before[..2]);
}

#[test]
fn a_replica_in_back_off_says_when_it_starts_next() {
    let Some(bench) = Bench::with_probe("a_replica_in_back_off_says_when_it_starts_next") else { return };
    bench.compose(
        "
services:
  web:
    image: probe
    command: [exit, '3']
    restart: always
    x-throng: {restart: {initial: 5m}}
",
    );
    // For a moment it is ready.
    bench.run(&["up", "-d"]);
    until("it has ended twice", || bench.ps()[0]["NextStart"].is_string().then_some(()));
    let ps = bench.ok(&["ps"]);
    ps.prints("Restarting (3)").prints("next start in 4 minutes (back-off)");
    let replica = &bench.ps()[0];
    assert_eq!((&replica["State"], &replica["Restarts"]), (&"restarting".into(), &1.into()));
    assert!(replica["NextStart"].is_string(), "{replica}");
}

#[test]
fn what_a_name_stands_for_now_does_not_count_on_the_way_back() {
    let Some(bench) = Bench::with_probe("what_a_name_stands_for_now_does_not_count_on_the_way_back") else {
        return;
    };
    let build = |command: &str| {
        let text = format!(
            "FROM scratch\nCOPY probe /probe\nENTRYPOINT [\"/probe\"]\nSTOPSIGNAL SIGKILL\nCMD [{command}]\n"
        );
        bench.image("shop", &text);
    };
    build("\"serve\", \"80\"");
    bench.compose(
        "
services:
  web:
    image: shop
    restart: always
    deploy: {replicas: 2, update_config: {failure_action: rollback, order: start-first, monitor: 500ms}}
",
    );
    bench.ok(&["up", "-d", "--wait"]);
    let before = lives(&bench);
    build("\"exit\", \"3\"");
    bench.fails(1, &["up", "-d", "--wait"]).says("web: the update was rolled back");
    bench.ok(&["prune", "--force", "--all"]);
    kill(bench.supervisor().expect("a supervisor"), Signal::KILL);
    until("it has ended", || (!bench.listens()).then_some(()));
    assert_eq!(lives(&bench), before);
    // What is started from now on is what was before, too.
    kill(before[0].1, Signal::KILL);
    let again = until("it runs again", || {
        let now = lives(&bench);
        (now.len() == 2 && now[0].1 != 0 && now[0].1 != before[0].1).then_some(now)
    });
    bench.ok(&["scale", "web=3"]);
    assert_eq!(lives(&bench)[..2], again[..]);
    assert_eq!(bench.states().iter().filter(|(_, state)| state == "running").count(), 3);
}
