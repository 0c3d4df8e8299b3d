//! Whatever stops a command or a supervisor, and wherever: nothing is left behind, or everything goes on.

mod support;

use rustix::process::Signal;
use support::{Bench, leftovers, pdfmagic, skip, until, web};

const WEB: &str = "
services:
  web:
    image: probe
    command: [serve, '80']
    ports: ['127.0.0.1::80']
    deploy: {replicas: 2}
    healthcheck: {test: [CMD, /probe, healthy, '80'], interval: 1s, timeout: 5s}
";

const STAGES: &str = "
stages:
  - {name: start, up: }
  - {name: pressure, load: {service: web, path: '/slow?20', clients: 2, duration: 60s}}
";

/// A `throng run` that has come as far as a stage.
fn run_up_to(bench: &Bench, stage: &str) -> support::Running {
    let mut run = bench.spawn(&["run", "--out", "report"]);
    // A stage's end is said before the next one begins.
    run.says(stage);
    run
}

#[test]
fn ctrl_c_ends_an_app_in_the_foreground() {
    let Some(bench) = Bench::with_probe("ctrl_c_ends_an_app_in_the_foreground") else { return };
    bench.compose(WEB);
    let mut up = bench.spawn(&["up"]);
    // The logs are followed: the app is up.
    up.says("web-2 | serving");
    leftovers::note_interfaces(&bench);
    up.signal(Signal::INT);
    let done = up.wait();
    assert_eq!(done.code, 130, "{}", done.err);
    done.says("everything removed");
    bench.assert_clean();
}

#[test]
fn a_second_ctrl_c_ends_the_command_and_the_supervisor_finishes() {
    let Some(bench) = Bench::with_probe("a_second_ctrl_c_ends_the_command_and_the_supervisor_finishes")
    else {
        return;
    };
    // The first process of a namespace ignores what it has no handler for, so this one has to be killed.
    bench.compose(
        "
services:
  stubborn: {image: probe, command: [say, here], stop_signal: SIGTERM, stop_grace_period: 2s}
",
    );
    let mut up = bench.spawn(&["up"]);
    up.says("stubborn-1 | here");
    leftovers::note_interfaces(&bench);
    up.signal(Signal::INT);
    until("it is leaving", || (bench.states() == [("stubborn-1".into(), "leaving".into())]).then_some(()));
    up.signal(Signal::INT);
    let done = up.wait();
    assert_eq!(done.code, 130, "{}", done.err);
    assert!(!done.err.contains("everything removed"), "it did not wait: {}", done.err);
    bench.assert_clean();
}

#[test]
fn ctrl_c_while_waiting_for_readiness_ends_the_app_too() {
    let Some(bench) = Bench::with_probe("ctrl_c_while_waiting_for_readiness_ends_the_app_too") else {
        return;
    };
    bench.compose(&WEB.replace("healthy, '80'", "exit, '1'").replace("interval: 1s", "interval: 100s"));
    let up = bench.spawn(&["up"]);
    until("both replicas run", || (bench.run(&["ps", "-q"]).out.lines().count() == 2).then_some(()));
    leftovers::note_interfaces(&bench);
    up.signal(Signal::TERM);
    let done = up.wait();
    assert_eq!(done.code, 130, "{}", done.err);
    bench.assert_clean();
}

#[test]
fn killing_an_up_in_the_foreground_takes_the_app_down_but_not_its_data() {
    let name = "killing_an_up_in_the_foreground_takes_the_app_down_but_not_its_data";
    let Some(bench) = Bench::with_probe(name) else { return };
    bench.compose(&format!("{WEB}    volumes: ['data:/data']\nvolumes: {{data: {{}}}}\n"));
    let mut up = bench.spawn(&["up"]);
    up.says("web-1 | serving");
    bench.ok(&["exec", "web", "/probe", "append", "/data/notes", "kept"]);
    up.signal(Signal::KILL);
    assert_eq!(up.wait().code, 137);
    bench.assert_clean();
    let data = bench.home.join("volumes").join(format!("{}_data", bench.project)).join("_data/notes");
    assert_eq!(std::fs::read_to_string(data).expect("the volume stays"), "kept\n");
}

#[test]
fn ctrl_c_during_a_build_leaves_nothing_of_it() {
    let name = "ctrl_c_during_a_build_leaves_nothing_of_it";
    let Some(bench) = Bench::new(name) else { return };
    bench.write("web/Dockerfile", "FROM scratch\nCOPY probe /probe\nRUN [\"/probe\", \"sleep\", \"1000\"]\n");
    std::fs::copy(support::probe(), bench.folder.join("web/probe")).expect("copied");
    bench.compose("services:\n  web: {build: web, command: [/probe, say, x]}\n");
    bench.write("experiment.yaml", "stages:\n  - {name: start, up: }\n");
    for (command, signal) in [
        ("up", Signal::INT),
        ("run", Signal::INT),
        ("build", Signal::INT),
        ("build", Signal::TERM),
        ("build", Signal::KILL),
    ] {
        let running = bench.spawn(&[command]);
        let step = |pid: &u32| {
            let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            words.starts_with(b"/probe\0sleep\0")
        };
        let pid = until("the RUN step is under way", || {
            let steps = leftovers::processes_below(running.pid());
            steps.into_iter().find(step)
        });
        running.signal(signal);
        let done = running.wait();
        let code = if signal == Signal::KILL { 137 } else { 130 };
        assert_eq!(done.code, code, "{command}: {}", done.err);
        until("the step has ended", || {
            // Where process 1 waits for nobody, as in many containers, what has ended stays as a zombie.
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            (stat.is_empty() || stat.contains(") Z ")).then_some(())
        });
        bench.assert_clean();
        assert_eq!(bench.ok(&["images", "--format", "json"]).out, "", "{command} left half an image");
    }
}

#[test]
fn ctrl_c_in_each_stage_of_a_run_leaves_nothing_and_a_record() {
    let Some(bench) = Bench::with_probe("ctrl_c_in_each_stage_of_a_run_leaves_nothing_and_a_record") else {
        return;
    };
    let never = "{service: web, log: never said, timeout: 50s}";
    let scale = "{service: slow, replicas: 2}";
    let waits = WEB.replace("healthy, '80'", "exit, '1'").replace("interval: 1s", "interval: 50s");
    bench.compose(&waits);
    bench.write("experiment.yaml", "stages:\n  - {name: start, up: }\n");
    let run = bench.spawn(&["run", "--out", "report"]);
    until("both replicas run", || (bench.run(&["ps", "-q"]).out.lines().count() == 2).then_some(()));
    leftovers::note_interfaces(&bench);
    run.signal(Signal::INT);
    assert_eq!(run.wait().code, 130);
    bench.assert_clean();

    let slow = "  slow:\n    image: probe\n    command: [say, x]\n    deploy: {replicas: 0}\n    healthcheck: \
                {test: [CMD, /probe, exit, '1'], interval: 50s}\n";
    bench.compose(&format!("{WEB}{slow}"));
    for (stage, said) in [
        ("load: {service: web, path: '/slow?20', clients: 2, duration: 60s}".to_owned(), "[2/2]"),
        (format!("scale: {scale}"), "[2/2]"),
        (format!("wait: {never}"), "[2/2]"),
        ("pause: 50s".to_owned(), "[2/2]"),
    ] {
        bench.write(
            "experiment.yaml",
            &format!("stages:\n  - {{name: start, up: }}\n  - {{name: it, {stage}}}\n"),
        );
        let run = run_up_to(&bench, said);
        leftovers::note_interfaces(&bench);
        run.signal(Signal::INT);
        let done = run.wait();
        assert_eq!(done.code, 130, "{stage}: {}{}", done.out, done.err);
        bench.assert_clean();
    }
    let runs = bench.ok(&["runs", "--format", "json"]).json();
    assert!(runs.len() == 5 && runs.iter().all(|run| run["Outcome"] == "interrupted"), "{runs:?}");
    bench.ok(&["report", "latest", "--out", "again"]).prints("report: again/report.html");
}

#[test]
fn killing_a_run_takes_everything_down() {
    let Some(bench) = Bench::with_probe("killing_a_run_takes_everything_down") else { return };
    bench.compose(WEB);
    bench.write("experiment.yaml", STAGES);
    let run = run_up_to(&bench, "[2/2]");
    leftovers::note_interfaces(&bench);
    run.signal(Signal::KILL);
    assert_eq!(run.wait().code, 137);
    bench.assert_clean();
}

#[test]
fn a_new_supervisor_takes_up_what_a_killed_one_left() {
    let Some(bench) = Bench::with_probe("a_new_supervisor_takes_up_what_a_killed_one_left") else { return };
    bench.compose(&format!("{WEB}  chatty: {{image: probe, command: [serve, '81']}}\n"));
    bench.ok(&["up", "-d", "--wait"]);
    // The first process of each: health checks come and go beside it.
    let pids = || ["web-1", "web-2", "chatty-1"].map(|name| bench.pids(name).first().copied());
    let (before, address) = (pids(), bench.address("web"));
    let supervisor = bench.supervisor().expect("a supervisor");
    support::kill(supervisor, Signal::KILL);
    until("it has ended", || (!bench.listens()).then_some(()));
    assert_eq!(pids(), before, "replicas go on without a supervisor");

    let replicas = bench.ps();
    assert_eq!(replicas.len(), 3);
    assert!(replicas.iter().all(|replica| replica["State"] == "running"), "{replicas:?}");
    assert!(
        replicas.iter().all(|replica| replica["Image"] == "probe" && replica["Restarts"] == 0),
        "{replicas:?}"
    );
    assert_eq!(pids(), before, "adopted, not started again");
    bench.ok(&["up", "-d", "--wait"]);
    assert_eq!(pids(), before, "the file has not changed");
    bench.ok(&["logs"]).prints("chatty-1 | serving");
    assert_eq!(bench.address("web"), address, "a port that the kernel chose stays");
    assert!(web::get(&address, "/").expect("an answer").body.starts_with("web-"));

    // What ends while nobody is there is noticed by the next one.
    support::kill(bench.supervisor().expect("a supervisor"), Signal::KILL);
    until("it has ended", || (!bench.listens()).then_some(()));
    support::kill(before[2].expect("a process"), Signal::KILL);
    until("the replica has ended", || bench.pids("chatty-1").is_empty().then_some(()));
    until("its end is noticed", || {
        let chatty = bench.ps().into_iter().find(|replica| replica["Service"] == "chatty");
        (chatty.expect("known")["State"] == "exited").then_some(())
    });
    bench.ok(&["down"]);
    bench.assert_clean();
}

#[test]
fn a_program_that_was_replaced_meanwhile_starts_its_own_kind() {
    let Some(bench) = Bench::with_probe("a_program_that_was_replaced_meanwhile_starts_its_own_kind") else {
        return;
    };
    // A build that waits in RUN is a command under way; its file goes, as in an upgrade.
    let program = bench.folder.join("throng");
    std::fs::copy(env!("CARGO_BIN_EXE_throng"), &program).expect("copied");
    bench.write("web/Dockerfile", "FROM probe\nRUN [\"/probe\", \"sleep\", \"1\"]\n");
    bench.compose("services:\n  web: {build: web, command: [say, x]}\n");
    let mut command = std::process::Command::new(&program);
    command.args(["up", "-d", "--wait"]).current_dir(&bench.folder).env("THRONG_HOME", &bench.home);
    let up = bench.spawn_with(command);
    until("the build is under way", || (!leftovers::processes_below(up.pid()).is_empty()).then_some(()));
    std::fs::remove_file(&program).expect("removed");
    let done = up.wait();
    assert_eq!(done.code, 0, "{}", done.err);
    let name = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    assert_eq!(name(bench.supervisor().expect("a supervisor")), "throng\n");
    bench.ok(&["down"]);
    bench.assert_clean();
}

#[test]
fn an_app_has_one_supervisor() {
    let Some(bench) = Bench::with_probe("an_app_has_one_supervisor") else { return };
    bench.compose(WEB);
    bench.ok(&["up", "-d", "--wait"]);
    bench.fails(4, &["-p", &bench.project, "supervise"]).says("another supervisor looks after");
    bench.ok(&["ps"]).prints("web-1");
    bench.ok(&["down"]);
    bench.assert_clean();
}

#[test]
fn apps_side_by_side_have_networks_of_their_own() {
    let Some(first) = Bench::with_probe("apps_side_by_side_have_networks_of_their_own") else { return };
    let Some(second) = Bench::with_probe("apps_side_by_side_have_networks_of_their_own") else { return };
    first.compose(WEB);
    second.compose(WEB);
    // At the same moment, and with folders that know nothing of each other.
    let both = [first.spawn(&["up", "-d", "--wait"]), second.spawn(&["up", "-d", "--wait"])];
    for up in both {
        let done = up.wait();
        assert_eq!(done.code, 0, "{}", done.err);
    }
    let network = |bench: &Bench| {
        let address = bench.ps()[0]["Addresses"][0].as_str().expect("an address").to_owned();
        address.split('.').take(2).collect::<Vec<_>>().join(".")
    };
    assert_ne!(network(&first), network(&second));
    for bench in [&first, &second] {
        assert!(web::get(&bench.address("web"), "/").is_ok());
        bench.ok(&["down"]);
        bench.assert_clean();
    }
}

#[test]
fn the_example_runs_to_its_report() {
    let name = "the_example_runs_to_its_report";
    let Some(bench) = Bench::new(name) else { return };
    if pdfmagic().is_none() {
        return skip(name, "workloads/pdfmagic/dist/pdfmagic is missing; `cargo xtask dist` makes it");
    }
    let example = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/pdfmagic");
    let file = std::fs::read_to_string(example.join("compose.yaml")).expect("the example");
    let absolute = example.join("../../workloads").canonicalize().expect("a folder").display().to_string();
    // The published port would be fought over with whatever else runs here.
    let file = file.replace("../../workloads", &absolute).replace("8080:8080", "127.0.0.1::8080");
    bench.write("compose.yaml", &file.replace("name: pdfmagic", &format!("name: {}", bench.project)));
    std::fs::copy(example.join("experiment.yaml"), bench.folder.join("experiment.yaml")).expect("copied");
    let done = bench.ok(&["run", "--set", "requests=5", "--set", "image=64x48.png", "--out", "report"]);
    done.says("[5/5]").says("nothing is left behind").prints("report: report/report.html");
    bench.assert_clean();
}
