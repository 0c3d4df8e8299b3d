//! What people who know `docker compose` type: it is understood, and does what it does there.

mod support;

use rustix::process::Signal;
use serde_json::Value;
use support::{Bench, until};

const APP: &str = "
services:
  web:
    image: probe
    command: [serve, '80']
    ports: ['127.0.0.1::80']
    labels: {tier: front}
    healthcheck: {test: [CMD, /probe, healthy, '80'], interval: 1s, timeout: 5s}
    depends_on: [db]
  db: {image: probe, command: [serve, '80']}
  once: {image: probe, command: [print, done]}
";

fn replica<'a>(replicas: &'a [Value], service: &str) -> &'a Value {
    replicas.iter().find(|replica| replica["Service"] == service).expect("a replica of the service")
}

#[test]
fn nothing_up_is_nothing_to_list_and_nothing_to_take_down() {
    let bench = Bench::anywhere();
    bench.compose("services:\n  web: {image: x}\n");
    for name in [&[][..], &["-p", "nobody"]] {
        let run = |command: &[&str]| bench.ok(&[name, command].concat());
        run(&["down"]).says("warning: no app").says("nothing to take down");
        run(&["down", "-v", "--remove-orphans", "--rmi", "all", "-t", "1"]).says("warning: no app");
        let table = run(&["ps"]);
        assert_eq!(table.out.lines().count(), 1, "only headings: {}", table.out);
        table.prints("NAME").says("no app");
        for flags in [&["-q"][..], &["--services"], &["--format", "json"], &["-aq"]] {
            let list = run(&[&["ps"], flags].concat());
            assert_eq!((list.out.as_str(), list.err.as_str()), ("", ""), "{flags:?}");
        }
    }
    for flags in [&["-t"][..], &["--timestamps"], &["--since", "5m"], &["--until", "5m"]] {
        bench.fails(2, &[&["logs"], flags].concat()).says("logs carry no times").says("hint:");
    }
    assert_eq!(bench.ok(&["ls", "-aq"]).out, "");
    assert_eq!(bench.ok(&["images", "-q"]).out, "");
    bench.assert_clean();
}

#[test]
fn an_app_is_printed_in_parts_and_into_a_file() {
    let bench = Bench::anywhere();
    bench.compose(
        "services:\n  b: {image: two, volumes: ['data:/d']}\n  a: {image: one}\n  c: {image: one}\nvolumes: {data: {}}\n",
    );
    for (flag, lines) in [("--services", "a\nb\nc\n"), ("--images", "one\ntwo\n"), ("--volumes", "data\n")] {
        assert_eq!(bench.ok(&["config", flag]).out, lines, "{flag}");
    }
    assert_eq!(bench.ok(&["config", "-o", "whole.yaml"]).out, "");
    let whole = std::fs::read_to_string(bench.folder.join("whole.yaml")).expect("a file");
    assert_eq!(whole, bench.ok(&["config"]).out);
    bench.fails(4, &["config", "-o", "no/such/folder"]).says("cannot write no/such/folder");
    bench.fails(2, &["config", "--services", "--images"]).says("--images");
}

#[test]
fn listings_have_the_flags_and_fields_that_scripts_read() {
    let Some(bench) = Bench::with_app("listings_have_the_flags_and_fields_that_scripts_read", APP) else {
        return;
    };
    bench.ok(&["up", "-d", "--wait", "--remove-orphans"]);
    until("it has ended", || bench.states().contains(&("once-1".into(), "exited".into())).then_some(()));
    for (flags, lines) in [
        (&["--services"][..], "db\nweb\n"),
        (&["--services", "-a"], "db\nonce\nweb\n"),
        (&["--services", "--status", "exited"], "once\n"),
        (&["--services", "--filter", "status=running"], "db\nweb\n"),
        (&["--services", "--status", "exited", "--filter", "status=running"], "db\nonce\nweb\n"),
        (&["--services", "--status", "failed"], ""),
    ] {
        assert_eq!(bench.ok(&[&["ps"], flags].concat()).out, lines, "{flags:?}");
    }
    bench.fails(2, &["ps", "--filter", "status=dead"]).says("restarting");
    bench.fails(2, &["ps", "--filter", "name=web"]).says("status=STATE");

    let replicas = bench.ps();
    let web = replica(&replicas, "web");
    let name = format!("{}-web-1", bench.project);
    for (field, value) in [
        ("ID", name.as_str()),
        ("Name", &name),
        ("Names", &name),
        ("Project", &bench.project),
        ("Service", "web"),
        ("State", "running"),
        ("Health", "healthy"),
        ("Labels", "tier=front"),
        ("Networks", &format!("{}_default", bench.project)),
        ("Command", "/probe serve 80"),
        ("Image", "probe"),
        ("Ports", &format!("{}->80/tcp", bench.address("web"))),
    ] {
        assert_eq!(web[field], value, "{field}");
    }
    assert!(web["RunningFor"].as_str().is_some_and(|text| text.ends_with(" ago")), "{web}");
    assert!(web["CreatedAt"].is_string() && web["ExitCode"] == 0 && web["Publishers"].is_array(), "{web}");

    assert_eq!(bench.ok(&["ls", "-q"]).out.trim(), bench.project);
    let app = &bench.ok(&["ls", "-a", "--format", "json"]).json()[0];
    assert_eq!(app["Name"], bench.project.as_str());
    assert!(app["Status"].as_str().is_some_and(|status| status.starts_with("running(")), "{app}");
    assert!(app["ConfigFiles"].as_str().is_some_and(|files| files.ends_with("app/compose.yaml")), "{app}");
    let ids = bench.ok(&["images", "-q"]).out;
    assert_eq!((ids.lines().count(), ids.trim().len()), (1, 12), "{ids}");

    let events = bench.ok(&["events", "--json", "--no-follow"]).json();
    let start = events.iter().find(|event| event["id"] == name.as_str() && event["action"] == "start");
    let start = start.unwrap_or_else(|| panic!("no start in {events:?}"));
    assert_eq!((&start["service"], &start["attributes"]["name"]), (&"web".into(), &name.into()));
    assert!(start["time"].is_string() && start["type"] == "replica");
    assert!(
        events.iter().any(|event| event["service"] == "once" && event["attributes"]["exitCode"] == "0"),
        "{events:?}"
    );
    assert_eq!(bench.ok(&["logs", "--tail", "all", "--no-log-prefix", "once"]).out, "done\n");
    bench.fails(2, &["logs", "--tail", "most"]).says("a number, or all");
    bench.ok(&["down", "--remove-orphans", "--rmi", "local"]);
    assert!(!bench.ok(&["images", "-q"]).out.is_empty(), "the file names the image, so it is nobody's own");
    bench.ok(&["up", "-d", "--wait"]);
    bench.ok(&["down", "--rmi", "all"]).prints("Untagged: probe:latest");
    assert_eq!(bench.ok(&["images", "-q"]).out, "");
    bench.assert_clean();
}

#[test]
fn exec_takes_the_flags_of_scripts() {
    let Some(bench) = Bench::with_probe("exec_takes_the_flags_of_scripts") else { return };
    bench.compose("services:\n  web: {image: probe, command: [serve, '80']}\n");
    bench.ok(&["up", "-d", "--wait"]);
    for flags in [&["-T"][..], &["-i"], &["-t"], &["-it"], &["-iT"], &["--no-tty", "--interactive"]] {
        let done = bench.ok(&[&["exec"], flags, &["web", "/probe", "print", "-T", "well"]].concat());
        assert_eq!(done.out, "-T well\n", "{flags:?}");
    }
    // With a terminal that script(1) makes, the command has it, and with -T it has a pipe.
    let script = |flag: &str| {
        let binary = env!("CARGO_BIN_EXE_throng");
        let typed = format!("{binary} exec {flag} web /probe terminal");
        let mut command = std::process::Command::new("script");
        command.args(["-qec", &typed, "/dev/null"]).stdin(std::process::Stdio::null());
        command.current_dir(&bench.folder).env("THRONG_HOME", &bench.home);
        bench.spawn_with(command).wait()
    };
    match std::process::Command::new("script").arg("--version").output() {
        Err(error) => support::skip("exec_takes_the_flags_of_scripts", &format!("no script(1): {error}")),
        Ok(_) => {
            script("-it").prints("terminal: true");
            script("-T").prints("terminal: false");
        }
    }
    bench.ok(&["down"]);
    bench.assert_clean();
}

#[test]
fn up_recreates_leaves_alone_and_hurries_as_it_is_told() {
    let Some(bench) = Bench::with_app("up_recreates_leaves_alone_and_hurries_as_it_is_told", APP) else {
        return;
    };
    bench.fails(2, &["up", "--no-deps"]).says("<SERVICES>");
    bench.ok(&["up", "-d", "--wait", "--no-deps", "web"]);
    assert_eq!(bench.ok(&["ps", "-a", "--services"]).out, "web\n", "it does not wait for db either");
    bench.ok(&["up", "-d", "--wait"]);
    let pids = || ["web-1", "db-1"].map(|replica| bench.pids(replica).first().copied());
    let before = pids();
    bench.ok(&["up", "-d", "--wait"]);
    assert_eq!(pids(), before, "nothing has changed");
    bench.ok(&["up", "-d", "--wait", "--force-recreate", "web"]);
    let after = pids();
    assert!(after[0] != before[0] && after[0].is_some(), "{before:?} {after:?}");
    assert_eq!(after[1], before[1], "only what was named");
    // The next supervisor knows that they have been replaced already.
    support::kill(bench.supervisor().expect("a supervisor"), Signal::KILL);
    until("it has ended", || (!bench.listens()).then_some(()));
    bench.ok(&["up", "-d", "--wait"]);
    assert_eq!(pids(), after);
    bench.ok(&["up", "-d", "--wait", "--force-recreate", "-t", "1"]);
    let last = pids();
    assert!(last[0] != after[0] && last[1] != after[1], "{after:?} {last:?}");
    bench.ok(&["down"]);
    bench.assert_clean();
}

#[test]
fn a_replica_that_waits_for_its_next_start_is_restarting() {
    let Some(bench) = Bench::with_probe("a_replica_that_waits_for_its_next_start_is_restarting") else {
        return;
    };
    bench.compose("services:\n  web: {image: probe, command: [exit, '3'], restart: always}\n");
    bench.run(&["up", "-d"]);
    // The first restart is immediate, the second comes ten seconds later.
    let seen = until("it waits", || {
        let replicas = bench.ps();
        (replicas[0]["State"] == "restarting" && replicas[0]["Restarts"] == 1).then(|| replicas[0].clone())
    });
    assert_eq!(seen["ExitCode"], 3);
    assert!(seen["Status"].as_str().is_some_and(|text| text.starts_with("Restarting (3) ")), "{seen}");
    bench.ok(&["ps"]).prints("Restarting (3)");
    bench.ok(&["down"]);
    bench.assert_clean();
}

#[test]
fn what_a_failed_replica_said_last_is_in_the_error() {
    let Some(bench) = Bench::with_probe("what_a_failed_replica_said_last_is_in_the_error") else { return };
    let checked = |command: &str, restart: &str| {
        bench.compose(&format!(
            "services:\n  web:\n    image: probe\n    command: {command}\n    restart: '{restart}'\n    healthcheck: {{test: [CMD, \
             /probe, healthy, '80'], interval: 1s, timeout: 5s}}\n",
        ))
    };
    checked("[complain, '20', '9']", "no");
    let up = bench.fails(1, &["up", "-d", "--wait"]);
    up.says("web does not come up: replica 1: exited with code 9").says("  web-1 | complaint 20\n");
    up.says("hint: see `throng logs` and `throng ps --all`");
    assert_eq!(up.err.matches("complaint").count(), 10, "{}", up.err);
    bench.fails(1, &["scale", "web=2"]).says("| complaint 20\n");
    bench.ok(&["down"]);
    // One that is only slow says why as well.
    checked("[complain, '3', '5']", "always");
    let slow = bench.fails(1, &["up", "-d", "--wait", "--wait-timeout", "2"]);
    slow.says("not ready after 2s")
        .says("  web-1 | complaint 3\n")
        .says("or wait longer with --wait-timeout");
    bench.ok(&["down"]);
    bench.assert_clean();
}
