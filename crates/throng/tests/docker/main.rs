//! The same commands over a Docker daemon, which the test starts for itself.

mod faults;
mod jobs;
mod keys;
mod living;
mod there;

#[path = "../support/mod.rs"]
mod support;

use rustix::process::Signal;
use serde_json::Value;
use support::{Bench, until, web};
use there::{There, ask, lives, named};
use throng_dockerd::request;

const WEB: &str = "
services:
  web:
    image: probe
    command: [serve, '80']
    ports: ['127.0.0.1::80']
    environment: {COLOUR: green}
    healthcheck: {test: [CMD, /probe, healthy, '80'], interval: 1s, timeout: 5s, retries: 2}
  talk: {image: probe, command: [say, hello]}
";

#[test]
fn an_app_lives_on_docker_as_it_does_here() {
    let Some(there) = There::new("an_app_lives_on_docker_as_it_does_here", "thr-app", 4) else { return };
    let (bench, project) = (&there.bench, there.bench.project.clone());
    bench.compose(WEB);
    there.ok(&["--on", "docker", "up", "-d", "--wait", "--scale", "web=3"]).says("web 3/3 ready");
    let address = bench.address("web");
    let answers: Vec<String> = (0..20).map(|_| web::get(&address, "/").expect("an answer").body).collect();
    for ordinal in 1..=3 {
        assert!(answers.contains(&format!("web-{ordinal}")), "{answers:?}");
    }

    there.ok(&["ps"]).prints(&format!("{project}-web-3")).prints("(healthy)").says("on docker");
    let listed = there.ok(&["ls", "--format", "json"]).json();
    assert!(listed[0]["On"].as_str().is_some_and(|on| on.starts_with("docker ")), "{}", listed[0]);
    let labelled = there.listed("/containers/json");
    assert_eq!(labelled.len(), 4);
    assert!(labelled.iter().all(|c| c["Labels"]["throng.project"] == project.as_str()), "{labelled:?}");

    until("it has spoken", || there.ok(&["logs", "talk"]).out.contains("talk-1 | hello\n").then_some(()));
    there.fails(7, &["exec", "web", "/probe", "exit", "7"]);
    assert_eq!(there.ok(&["exec", "--index", "2", "web", "/probe", "env", "HOSTNAME"]).out, "web-2\n");
    assert_eq!(there.ok(&["exec", "web", "/probe", "env", "COLOUR"]).out, "green\n");
    let resolved = there.ok(&["exec", "talk", "/probe", "resolve", "web"]).out;
    assert_eq!(resolved.split_whitespace().count(), 3, "all three are ready: {resolved}");
    let top = there.ok(&["top", "--no-stream", "--format", "json"]).json();
    assert_eq!(top.len(), 4);
    assert!(
        top.iter().all(|one| one["Memory"].as_u64() > Some(0) && one["PIDs"].as_u64() > Some(0)),
        "{top:?}"
    );

    // What it runs on is remembered, and not changed under it.
    bench.fails(2, &["--on", "local", "up", "-d"]).says("runs on docker").says("hint: leave --on away");
    a_killed_supervisor_loses_nobody(&there);

    there.ok(&["scale", "web=1"]);
    assert_eq!(there.listed("/containers/json?all=1").len(), 2);
    there.ok(&["events", "--no-follow"]).prints("scaled from 3 to 1");
    there.ok(&["down"]).says("everything removed");
    assert_eq!(there.left(), Vec::<String>::new());
    bench.assert_clean();
    there.ok(&["ps"]).says("no app");

    // Free again to run elsewhere.
    there.ok(&["up", "-d", "--wait", "--on", "local"]);
    assert_eq!(there.left(), Vec::<String>::new());
    there.fails(2, &["--on", "docker", "ps"]).says("runs on local");
    there.ok(&["down"]);
}

fn a_killed_supervisor_loses_nobody(there: &There) {
    let before = lives(there);
    let supervisor = there.bench.supervisor().expect("a supervisor");
    there.kill_supervisor();
    // Without DOCKER_HOST: the daemon is remembered.
    let replicas = there.bench.ps();
    assert_eq!(replicas.iter().filter(|replica| replica["State"] == "running").count(), 4, "{replicas:?}");
    assert_eq!(lives(there), before, "nobody was replaced");
    assert_ne!(there.bench.supervisor(), Some(supervisor));
    until("the taken over are healthy", || {
        let healthy = there.bench.ps().iter().filter(|replica| replica["Health"] == "healthy").count();
        (healthy == 3).then_some(())
    });
}

/// Docker keeps a network that it takes for one in use, and dockerd 20.10 miscounts at times. Here somebody is in it.
#[test]
fn a_network_that_docker_kept_is_used_again() {
    let Some(there) = There::new("a_network_that_docker_kept_is_used_again", "thr-kept", 19) else { return };
    let (bench, socket) = (&there.bench, there.daemon.socket());
    let network = format!("{}_default", bench.project);
    let subnet = || {
        let config = ask(&socket, &format!("/networks/{network}"))["IPAM"]["Config"][0].clone();
        config["Subnet"].as_str().expect("a subnet").to_owned()
    };
    let up = || there.ok(&["--on", "docker", "up", "-d", "--wait"]);
    let leave = || {
        let image = there.listed("/containers/json")[0]["ImageID"].clone();
        let body = format!("{{\"Image\":{image},\"HostConfig\":{{\"NetworkMode\":\"{network}\"}}}}");
        let made = request(&socket, "POST", "/containers/create?name=other", body.as_bytes());
        assert_eq!(made.expect("the daemon answers").0, 201);
        let down = there.spawn(&["down"]).wait();
        assert!(down.code != 0 && down.err.contains("in use by other"), "{}: {}", down.code, down.err);
        assert_eq!(request(&socket, "DELETE", "/containers/other", &[]).expect("the daemon answers").0, 204);
    };
    bench.compose(WEB);
    up();
    let first = subnet();
    leave();
    up().says("web 1/1 ready");
    assert_eq!(subnet(), first, "as it was");
    until("it answers", || web::get(&bench.address("web"), "/").ok());
    leave();
    // It is to be another one now, and nobody is in it any more.
    let other = "10.213.19.0/24";
    assert_ne!(first, other);
    bench.compose(&format!("{WEB}networks: {{default: {{ipam: {{config: [{{subnet: {other}}}]}}}}}}\n"));
    up().says("web 1/1 ready");
    assert_eq!(subnet(), other);
    there.ok(&["down"]).says("everything removed");
    assert_eq!(there.left(), Vec::<String>::new());
    bench.assert_clean();
}

#[test]
fn updates_and_autoscalers_go_on_docker_as_they_do_here() {
    let name = "updates_and_autoscalers_go_on_docker_as_they_do_here";
    let Some(there) = There::new(name, "thr-upd", 9) else { return };
    let file = |command: &str, colour: &str| {
        there.bench.compose(&format!(
            "
services:
  web:
    image: probe
    command: [{command}]
    ports: ['127.0.0.1::80']
    environment: {{COLOUR: {colour}}}
    deploy:
      replicas: 2
      update_config: {{parallelism: 1, order: start-first, monitor: 300ms, failure_action: rollback}}
    x-throng:
      autoscale:
        minReplicas: 2
        maxReplicas: 4
        metrics:
        - type: Object
          object:
            describedObject: {{kind: Service, name: web}}
            metric: {{name: requests_in_flight}}
            target: {{type: AverageValue, averageValue: 1}}
        behavior: {{scaleDown: {{stabilizationWindowSeconds: 1}}}}
      autoscaler: {{syncPeriod: 500ms}}
"
        ));
    };
    let colours = |count: u32| -> Vec<String> {
        let colour = |index: u32| {
            there.ok(&["exec", "--index", &index.to_string(), "web", "/probe", "env", "COLOUR"]).out
        };
        (1..=count).map(|index| colour(index).trim().to_owned()).collect()
    };
    file("serve, '80'", "red");
    there.ok(&["--on", "docker", "up", "-d", "--wait"]);
    let before = lives(&there);
    file("serve, '80'", "green");
    there.ok(&["up", "-d", "--wait"]);
    let after = lives(&there);
    assert_eq!(colours(2), ["green"; 2]);
    assert_eq!(after.len(), 2, "nobody who stood in is left: {after:?}");
    assert!(after.iter().zip(&before).all(|(after, before)| after.0 == before.0 && after.1 != before.1));
    // One that fails is taken back, and nobody left for it.
    file("exit, '3'", "blue");
    there.fails(1, &["up", "-d", "--wait"]).says("web: the update was rolled back");
    assert_eq!(lives(&there), after);
    assert_eq!(colours(2), ["green"; 2]);

    let address = there.bench.address("web");
    let clients: Vec<_> = (0..4)
        .map(|_| {
            let address = address.clone();
            std::thread::spawn(move || web::get(&address, "/slow?8000").is_ok_and(|a| a.status == 200))
        })
        .collect();
    until("one replica for each request", || (lives(&there).len() == 4).then_some(()));
    assert!(clients.into_iter().all(|client| client.join().expect("a client")), "no request is lost");
    until("two are enough again", || (lives(&there).len() == 2).then_some(()));
    assert_eq!(lives(&there), after, "the highest have left");
    there.ok(&["down"]);
    assert_eq!(there.left(), Vec::<String>::new());
}

#[test]
fn logs_are_followed_to_their_end() {
    let Some(there) = There::new("logs_are_followed_to_their_end", "thr-log", 5) else { return };
    there.bench.compose(
        "
services:
  many: {image: probe, command: [lines, '20']}
  other: {image: probe, command: [say, hello]}
",
    );
    there.ok(&["--on", "docker", "up", "-d", "--wait"]);
    until("all lines are there", || there.ok(&["logs", "many"]).out.contains("line 20\n").then_some(()));
    let tail = there.ok(&["logs", "-n", "2", "--no-log-prefix", "many"]);
    assert_eq!(tail.out, "line 19\nline 20\n");
    let mut following = there.spawn(&["logs", "-f", "--no-log-prefix", "other"]);
    following.says("hello");
    there.ok(&["scale", "other=2"]);
    until("the new replica's line comes too", || {
        (following.out().matches("hello").count() == 2).then_some(())
    });
    there.ok(&["down"]);
    let done = following.wait();
    assert_eq!((done.code, done.out.as_str()), (0, "hello\nhello\n"));

    // In the foreground the app ends with its command, even if that is killed.
    let mut foreground = there.spawn(&["--on", "docker", "up"]);
    foreground.says("hello");
    assert!(!there.left().is_empty());
    foreground.signal(Signal::KILL);
    until("everything of it is gone", || there.left().is_empty().then_some(()));
    there.bench.assert_clean();
}

#[test]
fn experiments_and_ceilings_are_the_same_there() {
    let name = "experiments_and_ceilings_are_the_same_there";
    let Some(there) = There::new(name, "thr-run", 6) else { return };
    // 16 addresses: the network's own, the gateway's, the one for all, and 13 replicas.
    there
        .bench
        .compose(&format!("{WEB}networks: {{default: {{ipam: {{config: [{{subnet: 10.213.8.0/28}}]}}}}}}\n"));
    there.bench.write(
        "experiment.yaml",
        "
title: There
stages:
  - {name: start, up: }
  - name: one
    load: {service: web, path: '/', clients: 2, requests: 20}
    require: ['errors<1%']
  - {name: grow, scale: {service: web, replicas: 2}}
  - {name: answers, wait: {service: web, ready: 2, timeout: 30s}}
",
    );
    let done = there.ok(&["--on", "docker", "run", "--out", "out"]);
    done.says("[4/4] answers").says("nothing is left behind");
    let record = std::fs::read_to_string(there.bench.folder.join("out/run.json")).expect("a record");
    let record: Value = serde_json::from_str(&record).expect("JSON");
    assert_eq!(record["outcome"], "passed");
    let isolation = record["environment"]["isolation"].as_str().unwrap_or_default();
    assert!(isolation.contains("docker"), "{isolation}");
    assert_eq!(there.left(), Vec::<String>::new());

    there.ok(&["--on", "docker", "up", "-d", "--wait"]);
    let found = there.ok(&[
        "ceiling",
        "web",
        "--most",
        "20",
        "--hold",
        "100ms",
        "--patience",
        "30s",
        "--format",
        "json",
    ]);
    let found = found.json().remove(0);
    // One address is the other service's.
    assert_eq!((found["stable"].as_u64(), found["broke"].as_u64()), (Some(12), Some(13)), "{found:#}");
    there.ok(&["down"]);
    assert_eq!(there.left(), Vec::<String>::new());
}

#[test]
fn replicas_are_spread_over_daemons_inside_docker() {
    let name = "replicas_are_spread_over_daemons_inside_docker";
    let Some(there) = There::new(name, "thr-nst", 8) else { return };
    let (bench, project) = (&there.bench, there.bench.project.clone());
    // Nodes see Throng's own folder wherever it is; what is mounted elsewhere, /tmp say, they do not.
    let greeting = bench.home.join("greeting");
    std::fs::write(&greeting, "from the host").expect("written");
    bench.compose(
        &"
services:
  web:
    image: probe
    command: [serve, '80']
    ports: ['127.0.0.1::80']
    restart: always
    networks: [default, back]
    volumes: ['shared:/shared', 'GREETING:/greeting:ro']
    healthcheck: {test: [CMD, /probe, healthy, '80'], interval: 1s, timeout: 5s, retries: 2}
networks: {back: {internal: true}}
volumes: {shared: {}}
"
        .replace("GREETING", &greeting.display().to_string()),
    );
    there.ok(&["--on", "docker:2", "up", "-d", "--wait", "--scale", "web=6"]).says("web 6/6 ready");
    let nodes = || named(&there.listed("/containers/json?all=1")).into_iter().map(|(name, _)| name);
    assert_eq!(nodes().collect::<Vec<_>>(), [1, 2].map(|node| format!("{project}.node-{node}")));
    let before = [there.on_node(1), there.on_node(2)];
    assert_eq!(before.each_ref().map(Vec::len), [3, 3], "{before:?}");
    there.ok(&["ps"]).says("2 nodes");
    let listed = there.ok(&["ls", "--format", "json"]).json();
    assert!(listed[0]["On"].as_str().is_some_and(|on| on.ends_with("2 nodes)")), "{}", listed[0]);

    all_six_answer(&there);
    replicas_meet_across_nodes(&there);
    let top = there.ok(&["top", "--no-stream", "--format", "json"]).json();
    let used = |one: &Value| one["Memory"].as_u64() > Some(0) && one["PIDs"].as_u64() > Some(0);
    assert!(top.len() == 6 && top.iter().all(used), "{top:?}");
    let on = |node: &str| top.iter().filter(|replica| replica["Node"] == node).count();
    assert_eq!((on("node-1"), on("node-2")), (3, 3), "{top:?}");
    there.ok(&["top", "--no-stream"]).prints("NODE");

    // How many there are is remembered as well.
    there.fails(2, &["--on", "docker:3", "up", "-d"]).says("2 nodes").says("hint: leave --on away");
    there.fails(2, &["--on", "docker:0", "ps"]).says("the number of nodes is from 1 to");
    there.kill_supervisor();
    assert_eq!(bench.ps().iter().filter(|replica| replica["State"] == "running").count(), 6);
    assert_eq!([there.on_node(1), there.on_node(2)], before, "nobody was replaced");

    // A node that is lost comes back, and so do its replicas.
    let kill = format!("/containers/{project}.node-1/kill");
    assert_eq!(request(&there.daemon.socket(), "POST", &kill, &[]).expect("an answer").0, 204);
    until("its replicas run again", || {
        let socket = bench.home.join(format!("run/{project}.node-1/docker.sock"));
        let there = request(&socket, "GET", "/containers/json", &[]).ok()?.1;
        (there.matches("\"Names\"").count() == 3).then_some(())
    });
    assert_eq!(there.on_node(2), before[1], "the others were left alone");
    until("all are healthy", || {
        let healthy = bench.ps().iter().filter(|replica| replica["Health"] == "healthy").count();
        (healthy == 6).then_some(())
    });
    all_six_answer(&there);

    there.ok(&["down", "--volumes"]).says("everything removed");
    assert_eq!(there.left(), Vec::<String>::new());
    bench.assert_clean();
}

/// Through the published port.
fn all_six_answer(there: &There) {
    let address = there.bench.address("web");
    let wanted: Vec<String> = (1..=6).map(|ordinal| format!("web-{ordinal}")).collect();
    let mut answered = std::collections::BTreeSet::new();
    until("each of them has answered", || {
        answered.insert(web::get(&address, "/").ok()?.body.trim().to_owned());
        wanted.iter().all(|name| answered.contains(name)).then_some(())
    });
}

/// By name and address, in every direction, and by a volume.
fn replicas_meet_across_nodes(there: &There) {
    let exec = |index: &str, words: &[&str]| {
        there.ok(&[&["exec", "--index", index, "web", "/probe"], words].concat()).out
    };
    for index in ["1", "2"] {
        let resolved = exec(index, &["resolve", "web"]);
        let addresses: Vec<&str> = resolved.split_whitespace().collect();
        assert_eq!(addresses.len(), 6, "all are ready: {resolved}");
        for other in ["web-1", "web-2", "web-3"] {
            assert!(exec(index, &["get", &format!("{other}:80"), "/"]).contains(other), "{index} to {other}");
        }
        assert_eq!(exec(index, &["read", "/greeting"]), "from the host");
    }
    exec("1", &["append", "/shared/note", "seen"]);
    assert!(exec("2", &["read", "/shared/note"]).contains("seen"));
}

#[test]
fn a_daemon_that_ends_is_outlived() {
    let Some(mut there) = There::new("a_daemon_that_ends_is_outlived", "thr-end", 7) else { return };
    there.bench.compose(
        "
services:
  web: {image: probe, command: [serve, '80'], restart: always, deploy: {replicas: 2}}
  once: {image: probe, command: [say, x]}
",
    );
    there.ok(&["--on", "docker", "up", "-d", "--wait"]);
    let before = lives(&there);
    assert_eq!(before.len(), 3);
    there.daemon.restart().expect("it starts again");
    // Those that are to run run again, in the same containers; the other one has ended, and that is known.
    let same = |after: &[(String, String)]| after.iter().all(|life| before.contains(life));
    until("all is told as it is", || {
        let wanted = [("once-1", "exited"), ("web-1", "running"), ("web-2", "running")];
        let told = there.bench.states() == wanted.map(|(name, state)| (name.to_owned(), state.to_owned()));
        let after = lives(&there);
        (told && after.len() == 2 && same(&after)).then_some(())
    });
    there.ok(&["down"]);
    assert_eq!(there.left(), Vec::<String>::new());
    there.bench.assert_clean();
}

#[test]
fn without_a_daemon_it_says_so() {
    let bench = Bench::anywhere();
    bench.build_probe();
    bench.compose("services:\n  web: {image: probe, command: [say, x]}\n");
    let nowhere = format!("unix://{}", bench.folder.join("no.sock").display());
    for (host, said, hint) in [
        (nowhere.as_str(), "cannot reach Docker", "see that dockerd runs"),
        ("tcp://127.0.0.1:1", "is not a socket of this host", "set DOCKER_HOST to unix://"),
    ] {
        let mut command = bench.command(&["--on", "docker", "up", "-d"]);
        command.env("DOCKER_HOST", host);
        let done = bench.spawn_with(command).wait();
        assert_eq!(done.code, 4, "{}", done.err);
        done.says(said).says("hint: ").says(hint);
    }
    bench.ok(&["ps"]).says("no app");
    bench.assert_clean();
}
