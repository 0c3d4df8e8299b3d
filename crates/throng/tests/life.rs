//! An app from `up` to `down`: what each command about a running app shows and does.

mod support;

use serde_json::Value;
use std::io::Write;
use std::process::Stdio;
use support::{Bench, until, web};

const WEB: &str = "
services:
  web:
    image: probe
    command: [serve, '80']
    ports: ['127.0.0.1::80']
    environment: {COLOUR: green}
    healthcheck: {test: [CMD, /probe, healthy, '80'], interval: 1s, timeout: 5s, retries: 2}
";

/// Start of the first process and its id, by replica: both stay as long as nobody touches the replica.
fn lives(bench: &Bench) -> Vec<(String, u32, String)> {
    let replicas = bench.ps();
    let each = replicas.iter().map(|replica| {
        let name = format!("{}-{}", replica["Service"].as_str().expect("a service"), replica["Ordinal"]);
        let pid = bench.pids(&name).first().copied().unwrap_or(0);
        (name, pid, replica["CreatedAt"].to_string())
    });
    each.collect()
}

#[test]
fn an_app_comes_up_is_seen_scales_and_goes() {
    let Some(bench) = Bench::with_probe("an_app_comes_up_is_seen_scales_and_goes") else { return };
    bench.compose(WEB);
    bench.ok(&["up", "-d", "--wait"]).says("web 1/1 ready");
    let address = bench.address("web");
    assert_eq!(web::get(&address, "/").expect("an answer").body, "web-1");

    let table = bench.ok(&["ps"]);
    table.prints("NAME").prints(&format!("{}-web-1", bench.project)).prints("(healthy)");
    table.prints(&format!("{address}->80/tcp"));
    let ps = &bench.ps()[0];
    for (field, value) in [
        ("State", "running"),
        ("Health", "healthy"),
        ("Service", "web"),
        ("Image", "probe"),
        ("Command", "/probe serve 80"),
    ] {
        assert_eq!(ps[field], value, "{field}");
    }
    assert_eq!(bench.ok(&["ps", "-q"]).out.trim(), format!("{}-web-1", bench.project));

    bench.ok(&["scale", "web=3"]);
    assert_eq!(
        bench.ps().iter().filter(|r| r["Health"] == "healthy").count(),
        3,
        "scale returns when all are ready"
    );
    bench.ok(&["scale", "web=1"]);
    assert_eq!(bench.states(), [("web-1".into(), "running".into())]);

    let listed = bench.ok(&["ls", "--format", "json"]).json();
    assert_eq!(
        (&listed[0]["Name"], &listed[0]["Status"]),
        (&Value::from(bench.project.as_str()), &"running(1)".into())
    );
    let seen = support::leftovers::of(&bench);
    for kind in ["process ", "interface thr", "control group ", "file "] {
        assert!(
            seen.iter().any(|what| what.starts_with(kind)),
            "the look at leftovers sees no {kind}: {seen:?}"
        );
    }

    bench.ok(&["down"]).says("everything removed");
    bench.assert_clean();
    bench.fails(3, &["logs"]).says("no app").says("hint: start it with `throng up -d`");
}

#[test]
fn top_and_events_tell_what_happens() {
    let Some(bench) = Bench::with_probe("top_and_events_tell_what_happens") else { return };
    bench.compose(&format!("{WEB}    deploy: {{resources: {{limits: {{memory: 64M, cpus: '0.5'}}}}}}\n"));
    bench.ok(&["up", "-d", "--wait"]);
    let top = bench.ok(&["top", "--no-stream", "--format", "json"]).json();
    assert_eq!(top.len(), 1);
    assert!(top[0]["Memory"].as_u64().expect("bytes") > 0, "{}", top[0]);
    assert!(top[0]["PIDs"].as_u64().expect("tasks") > 0, "{}", top[0]);
    assert_eq!(top[0]["MemoryLimit"], 64 << 20);
    bench.ok(&["top", "--no-stream"]).prints("CPU %").prints("64.0 MiB");
    bench.ok(&["scale", "web=2"]);
    let events = bench.ok(&["events", "--no-follow", "--format", "json"]).json();
    let has = |kind: &str, subject: &str, message: &str| {
        events.iter().any(|e| e["type"] == kind && e["subject"] == subject && e["message"] == message)
    };
    assert!(has("replica", "web-1", "started"), "{events:?}");
    assert!(has("health", "web-1", "healthy"), "{events:?}");
    assert!(has("scale", "web", "scaled from 1 to 2"), "{events:?}");
    bench.ok(&["events", "--no-follow"]).prints("scaled from 1 to 2");
    // Following ends with the app.
    let mut following = bench.spawn(&["events"]);
    following.says("started");
    bench.ok(&["down"]);
    let done = following.wait();
    assert_eq!(done.code, 0);
    done.prints("going down");
    bench.assert_clean();
}

#[test]
fn logs_are_shown_cut_and_followed() {
    let Some(bench) = Bench::with_probe("logs_are_shown_cut_and_followed") else { return };
    bench.compose(
        "
services:
  many: {image: probe, command: [lines, '20']}
  other: {image: probe, command: [say, hello]}
",
    );
    bench.ok(&["up", "-d", "--wait"]);
    let all = until("all lines are there", || {
        let out = bench.ok(&["logs"]).out;
        (out.contains("line 20\n") && out.contains("hello")).then_some(out)
    });
    assert_eq!(all.lines().filter(|line| line.starts_with("many-1  | line ")).count(), 20, "{all}");
    let tail = bench.ok(&["logs", "-n", "2", "--no-log-prefix", "many"]);
    assert_eq!(tail.out, "line 19\nline 20\n");
    bench.fails(3, &["logs", "nobody"]).says("no service nobody").says("it has: many, other");

    let mut following = bench.spawn(&["logs", "-f", "--no-log-prefix", "other"]);
    following.says("hello");
    bench.ok(&["exec", "other", "/probe", "print", "not in the log"]);
    bench.ok(&["scale", "other=2"]);
    until("the new replica's line comes too", || {
        (following.out().matches("hello").count() == 2).then_some(())
    });
    bench.ok(&["down"]);
    let done = following.wait();
    assert_eq!((done.code, done.out.as_str()), (0, "hello\nhello\n"));
}

#[test]
fn exec_hands_over_input_environment_and_exit_code() {
    let Some(bench) = Bench::with_probe("exec_hands_over_input_environment_and_exit_code") else { return };
    bench.compose(WEB);
    bench.ok(&["up", "-d", "--wait", "--scale", "web=2"]);
    bench.fails(7, &["exec", "web", "/probe", "exit", "7"]);
    assert_eq!(bench.ok(&["exec", "web", "/probe", "env", "COLOUR"]).out, "green\n");
    assert_eq!(bench.ok(&["exec", "-e", "COLOUR=red", "web", "/probe", "env", "COLOUR"]).out, "red\n");
    assert_eq!(bench.ok(&["exec", "-w", "/etc", "web", "/probe", "where"]).out, "/etc\n");
    assert_eq!(bench.ok(&["exec", "--index", "2", "web", "/probe", "env", "HOSTNAME"]).out, "web-2\n");

    let mut command = bench.command(&["exec", "web", "/probe", "cat"]);
    command.stdin(Stdio::piped());
    let mut running = bench.spawn_with(command);
    let text = "a line\n".repeat(50_000);
    let mut stdin = running.child().stdin.take().expect("a pipe");
    stdin.write_all(text.as_bytes()).expect("the pipe is read");
    drop(stdin);
    let done = running.wait();
    assert_eq!(done.code, 0);
    assert!(done.out == text, "{} of {} bytes came back", done.out.len(), text.len());

    bench.fails(2, &["exec", "web", "/nothing"]).says("/nothing");
    bench.fails(3, &["exec", "nobody", "/probe"]).says("no service nobody").says("it has: web");
    bench.fails(3, &["exec", "--index", "9", "web", "/probe"]).says("no replica web-9 is running");
}

#[test]
fn a_command_that_nobody_waits_for_any_more_ends() {
    let Some(bench) = Bench::with_probe("a_command_that_nobody_waits_for_any_more_ends") else { return };
    bench.compose(WEB);
    bench.ok(&["up", "-d", "--wait"]);
    let running = bench.spawn(&["exec", "web", "/probe", "sleep", "1000"]);
    until("the command runs", || (bench.pids("web-1").len() == 2).then_some(()));
    running.signal(rustix::process::Signal::INT);
    assert_eq!(running.wait().code, 130);
    until("the command has ended", || (bench.pids("web-1").len() == 1).then_some(()));
}

#[test]
fn a_named_volume_outlives_down_and_goes_with_v() {
    let Some(bench) = Bench::with_probe("a_named_volume_outlives_down_and_goes_with_v") else { return };
    bench.compose(
        "
services:
  web: {image: probe, command: [say, x], volumes: ['data:/data']}
volumes: {data: {}}
",
    );
    bench.ok(&["up", "-d", "--wait"]);
    bench.ok(&["exec", "web", "/probe", "append", "/data/notes", "first"]);
    bench.ok(&["down"]);
    bench.assert_clean();
    bench.ok(&["up", "-d", "--wait"]);
    bench.ok(&["exec", "web", "/probe", "append", "/data/notes", "second"]);
    assert_eq!(bench.ok(&["exec", "web", "/probe", "read", "/data/notes"]).out, "first\nsecond\n");
    bench.ok(&["down", "-v"]);
    bench.assert_clean();
    bench.ok(&["up", "-d", "--wait"]);
    bench.ok(&["exec", "web", "/probe", "read", "/data/notes"]).prints("No such file");
}

#[test]
fn up_again_replaces_only_what_has_changed() {
    let Some(bench) = Bench::with_probe("up_again_replaces_only_what_has_changed") else { return };
    let file = |colour: &str, port: &str| {
        bench.compose(&format!(
            "
services:
  one: {{image: probe, command: [serve, '80'], environment: {{COLOUR: {colour}}}, deploy: {{replicas: 2}}}}
  two: {{image: probe, command: [serve, '80'], ports: ['127.0.0.1::{port}']}}
"
        ))
    };
    file("red", "80");
    bench.ok(&["up", "-d", "--wait"]);
    let before = lives(&bench);
    assert_eq!(before.len(), 3);
    bench.ok(&["up", "-d", "--wait"]);
    assert_eq!(lives(&bench), before, "an unchanged file changes nothing");

    file("blue", "81");
    bench.ok(&["up", "-d", "--wait"]);
    let after = lives(&bench);
    assert_eq!(bench.ok(&["exec", "--index", "1", "one", "/probe", "env", "COLOUR"]).out, "blue\n");
    assert_eq!(bench.ok(&["exec", "--index", "2", "one", "/probe", "env", "COLOUR"]).out, "blue\n");
    assert!(after[0] != before[0] && after[1] != before[1], "both replicas of the changed service are new");
    assert_eq!(after[2], before[2], "another port needs no new replica");
    assert_eq!(bench.ps()[2]["Publishers"][0]["TargetPort"], 81);

    // A service that the file has no more goes.
    bench.compose("services:\n  two: {image: probe, command: [serve, '80']}\n");
    bench.ok(&["up", "-d", "--wait"]);
    until("one has gone", || (bench.states() == [("two-1".into(), "running".into())]).then_some(()));
    assert_eq!(lives(&bench)[0], before[2]);
    bench.ok(&["down"]);
    bench.assert_clean();
}

#[test]
fn networks_come_and_go_with_the_file() {
    let Some(bench) = Bench::with_probe("networks_come_and_go_with_the_file") else { return };
    let one = "services:\n  web: {image: probe, command: [say, x]}\n";
    let two = "services:\n  web: {image: probe, command: [say, x], networks: [default, more]}\nnetworks: {more: {}}\n";
    for file in [one, two, one, two, one] {
        bench.compose(file);
        bench.ok(&["up", "-d", "--wait"]);
        let addresses = bench.ps()[0]["Addresses"].as_array().expect("addresses").len();
        assert_eq!(addresses, if file == one { 1 } else { 2 });
    }
    bench.ok(&["down"]);
    bench.assert_clean();
}

#[test]
fn down_and_up_again_at_once_is_no_clash() {
    let Some(bench) = Bench::with_probe("down_and_up_again_at_once_is_no_clash") else { return };
    bench.compose("services:\n  web: {image: probe, command: [say, x]}\n");
    for _ in 0..5 {
        bench.ok(&["up", "-d", "--wait"]);
        bench.ok(&["down"]);
    }
    bench.assert_clean();
}

#[test]
fn replicas_are_plain_processes_where_that_is_asked_for() {
    let Some(bench) = Bench::with_probe("replicas_are_plain_processes_where_that_is_asked_for") else {
        return;
    };
    bench.compose("services:\n  web: {image: probe, command: [say, plain], deploy: {replicas: 2}}\n");
    let done = bench.ok(&["--isolation", "process", "up", "-d", "--wait"]);
    done.says("note: process: replicas are plain processes");
    let replicas = bench.ps();
    assert!(replicas.iter().all(|r| r["Addresses"][0].as_str().expect("an address").starts_with("127.")));
    until("both have spoken", || (bench.ok(&["logs"]).out.matches("| plain").count() == 2).then_some(()));
    assert_eq!(bench.ok(&["exec", "web", "/probe", "print", "beside it"]).out, "beside it\n");
    bench.ok(&["down"]);
    bench.assert_clean();
}
