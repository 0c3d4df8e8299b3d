//! What people get wrong and what hosts refuse: the right exit code, a message that names it, a hint, and nothing
//! half made afterwards.

mod support;

use rustix::process::Signal;
use std::net::TcpListener;
use std::path::Path;
use support::{Bench, until, web};

/// A Compose file that must be refused with exit code 2, a place, and each of these texts.
#[track_caller]
fn refused(bench: &Bench, file: &str, texts: &[&str]) {
    bench.write("compose.yaml", file);
    for command in [&["config", "-q"][..], &["up", "-d"], &["run"]] {
        let done = bench.fails(2, command);
        for text in texts {
            done.says(text);
        }
    }
    bench.assert_clean();
}

#[test]
fn compose_files_are_refused_at_their_place() {
    let bench = Bench::anywhere();
    bench.write("experiment.yaml", "stages:\n  - {name: start, up: }\n");
    refused(&bench, "services: [web: {\n", &["error:", "compose.yaml:"]);
    refused(&bench, "just words\n", &["a Compose file is a mapping", "compose.yaml:1:1", "hint:"]);
    refused(&bench, "", &["the file is empty", "hint:"]);
    let cycle = "
services:
  a: {image: x, depends_on: [b]}
  b: {image: x, depends_on: [a]}
";
    refused(&bench, cycle, &["a", "b", "compose.yaml:"]);
    let port_twice = "
services:
  a: {image: x, ports: ['127.0.0.1:9000:80']}
  b: {image: x, ports: ['127.0.0.1:9000:80']}
";
    refused(&bench, port_twice, &["9000", "compose.yaml:4"]);
    refused(&bench, "services:\n  a: {image: x, deploy: {replicas: many}}\n", &["many", "compose.yaml:2"]);
    refused(&bench, "services:\n  a: {image: x, depends_on: [nobody]}\n", &["nobody", "compose.yaml:2"]);
}

#[test]
fn files_and_names_that_are_not_there() {
    let bench = Bench::anywhere();
    bench.fails(2, &["config"]).says("no Compose file in").says("hint: create compose.yaml");
    for command in [&["config"][..], &["ps"], &["up", "-d"]] {
        let done = bench.fails(2, &[&["-f", "nothing.yaml"], command].concat());
        done.says("no Compose file").says("app/nothing.yaml").says("hint: -f and COMPOSE_FILE name files");
    }
    bench.fails(2, &["run", "nothing"]).says("cannot read nothing").says("hint: name a folder");
    bench.fails(2, &["run"]).says("no experiment.yaml in .").says("hint:");
    bench.fails(3, &["logs"]).says("no app is up").says("hint: start one with `throng up -d`");
    bench.fails(3, &["-p", "nobody", "logs"]).says("no app nobody is up").says("hint:");
    bench
        .fails(2, &["-p", "../nobody", "ps"])
        .says("\"../nobody\" cannot be the name of a project")
        .says("hint:");
    bench.fails(3, &["report", "nothing"]).says("no run nothing").says("hint: see `throng runs`");
    bench.fails(3, &["report"]).says("no run has been recorded");
    for path in ["../../nowhere/x", "./x.json", "x/y"] {
        bench.fails(3, &["report", path]).says(&format!("no run {path}")).says("hint: see `throng runs`");
    }
    bench.fails(3, &["compare", "one", "two"]).says("no run one");
    bench.fails(3, &["tag", "nothing", "something"]).says("nothing");
    bench.fails(2, &["nonsense"]).says("nonsense");
    bench.fails(2, &["scale"]).says("SERVICE=N");
    bench.fails(2, &["scale", "web"]).says("\"web\" names no count").says("hint: write SERVICE=N");
    bench.fails(2, &["scale", "web=100001"]).says("from 0 to 100000");
    bench.fails(2, &["scale", "web=1", "web=2"]).says("web is given two counts").says("hint: name each");
    bench.assert_clean();
}

#[test]
fn damaged_run_records_are_named_and_hide_no_others() {
    let bench = Bench::anywhere();
    let record = |id: &str, text: &str| {
        let path = bench.home.join("runs").join(id).join("run.json");
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, text).expect("a file");
    };
    record("20260101-000000-cut", "{\"version\": 1, \"id\": \"2026");
    record("20260101-000001-other", "[]");
    let list = bench.ok(&["runs"]);
    list.says("20260101-000000-cut/run.json: not a run").says("20260101-000001-other/run.json: not a run");
    bench.fails(2, &["report", "20260101-000000"]).says("run.json: not a run");
    bench.fails(2, &["compare", "20260101-000000", "20260101-000001"]).says("not a run");
    bench.fails(3, &["report", "2026"]).says("2026 could be any of 2 runs");
}

#[test]
fn experiments_are_refused_before_anything_starts() {
    let bench = Bench::anywhere();
    bench.compose("services:\n  web: {image: x, ports: ['127.0.0.1::80']}\n");
    let stages =
        |rest: &str| bench.write("experiment.yaml", &format!("variables: {{clients: 2}}\nstages:\n{rest}"));
    let load =
        |rest: &str| format!("  - {{up: }}\n  - {{load: {{service: web, clients: 1, requests: 1}}{rest}}}\n");
    stages(&load(""));
    bench
        .fails(2, &["run", "--set", "client=3"])
        .says("the experiment has no variable \"client\"")
        .says("it has clients");
    bench.fails(2, &["run", "--set", "clients"]).says("hint: write --set NAME=VALUE");
    stages(&load(", require: ['p95<fast']"));
    bench.fails(2, &["run"]).says("p95<fast").says("experiment.yaml:4");
    stages("  - {up: }\n  - {scale: {service: wbe, replicas: 2}}\n");
    bench.fails(2, &["run"]).says("wbe").says("experiment.yaml:4").says("web");
    stages("  - {up: }\n  - {scael: {service: web, replicas: 2}}\n");
    bench.fails(2, &["run"]).says("scael").says("did you mean \"scale\"?");
    bench.write("experiment.yaml", "stages: []\n");
    bench.fails(2, &["run", "--dry-run"]).says("1 to 1000 stages");
    bench.assert_clean();
}

#[test]
fn an_image_that_is_not_there_and_cannot_be_fetched() {
    let bench = Bench::anywhere();
    // Nobody listens there: a registry that cannot be reached.
    let port = web::free_port();
    bench.compose(&format!("services:\n  web: {{image: '127.0.0.1:{port}/nothing:1'}}\n"));
    let registry = format!("127.0.0.1:{port}");
    let done = bench.fails(5, &["up", "-d"]);
    done.says(&format!(
        "error: image {registry}/nothing:1 (service web) is neither here nor to be fetched from {registry}: Connection refused"
    ));
    done.says("hint: `throng images` lists what is here; build it").says("see to the network");
    let error = done.err.lines().find(|line| line.starts_with("error:")).expect("an error");
    assert!(!error.contains("http") && error.len() < 160, "short, and no address of an API: {error}");
    bench.assert_clean();
}

#[test]
fn dockerfiles_are_refused_at_their_line() {
    let bench = Bench::anywhere();
    bench.write("Dockerfile", "FROM scratch\nCOPPY a /a\n");
    bench.fails(2, &["build", "-t", "x", "."]).says("COPPY").says("Dockerfile:2");
    // Wrong by what is written, whether that shows at once or only once variables and files are known.
    for (line, said) in [
        ("COPY missing /a", "missing"),
        ("ADD http://example.com/a /a", "http://example.com/a"),
        ("EXPOSE abc", "abc"),
        ("STOPSIGNAL SIGFOO", "SIGFOO"),
        ("HEALTHCHECK --interval=3 CMD [\"/a\"]", "interval"),
    ] {
        bench.write("Dockerfile", &format!("FROM scratch\n{line}\n"));
        bench.fails(2, &["build", "-t", "x", "."]).says(said).says("Dockerfile:2");
    }
    bench.fails(2, &["build", "-t", "x", "--dockerfile", "Nofile", "."]).says("Nofile");
    bench.fails(2, &["build", "-t", "x", "one", "two"]).says("one build context");
    assert_eq!(bench.ok(&["images", "--format", "json"]).out, "");
}

#[test]
fn a_program_for_another_machine_is_named() {
    let Some(bench) = Bench::new("a_program_for_another_machine_is_named") else { return };
    // An ELF header of a 64-bit little-endian program for AArch64, or for x86-64 on such a machine (elf(5)).
    let mut header = vec![0u8; 64];
    header[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    header[16] = 2;
    header[18] = if cfg!(target_arch = "aarch64") { 62 } else { 183 };
    std::fs::write(bench.folder.join("program"), header).expect("a file");
    bench.write("Dockerfile", "FROM scratch\nCOPY --chmod=755 program /program\nCMD [\"/program\"]\n");
    bench.ok(&["build", "-t", "foreign", "."]);
    bench.compose("services:\n  web: {image: foreign}\n");
    let other = if cfg!(target_arch = "aarch64") { "x86_64" } else { "aarch64" };
    bench
        .fails(5, &["up", "-d"])
        .says("web: image foreign: /program")
        .says(other)
        .says("hint: pull or build");
    bench.assert_clean();
}

#[test]
fn a_port_that_is_taken_leaves_no_network_and_no_supervisor() {
    let Some(bench) = Bench::with_probe("a_port_that_is_taken_leaves_no_network_and_no_supervisor") else {
        return;
    };
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("an address").port();
    bench.compose(&format!(
        "services:\n  web: {{image: probe, command: [serve, '80'], ports: ['127.0.0.1:{port}:80']}}\n"
    ));
    let done = bench.fails(4, &["up", "-d"]);
    done.says(&format!("web: cannot listen on 127.0.0.1:{port}"))
        .says(&format!("`ss -ltnp sport = :{port}`"));
    bench.assert_clean();
    bench.write("experiment.yaml", "stages:\n  - {name: start, up: }\n");
    bench.fails(4, &["run", "--out", "report"]).says(&format!("cannot listen on 127.0.0.1:{port}"));
    bench.assert_clean();
    // An app that is up stays as it is.
    bench.compose("services:\n  web: {image: probe, command: [serve, '80'], ports: ['127.0.0.1::80']}\n");
    bench.ok(&["up", "-d", "--wait"]);
    let (before, address) = (bench.pids("web-1"), bench.address("web"));
    bench.compose(&format!(
        "services:\n  web: {{image: probe, command: [serve, '81'], ports: ['127.0.0.1:{port}:81']}}\nnetworks: {{default: {{}}, more: {{}}}}\n"
    ));
    bench.fails(4, &["up", "-d"]).says("cannot listen on");
    assert_eq!(bench.pids("web-1"), before);
    until("it answers as before", || web::get(&address, "/").ok());
    assert!(!bench.home.join(format!("engine/.networks/{}_more.json", bench.project)).exists());
    bench.ok(&["down"]);
    bench.assert_clean();
}

#[test]
fn a_network_keeps_its_subnet_while_the_app_is_up() {
    let Some(bench) = Bench::with_probe("a_network_keeps_its_subnet_while_the_app_is_up") else { return };
    let compose = |subnet: &str| {
        bench.compose(&format!(
            "services:\n  web: {{image: probe, command: [serve, '80']}}\nnetworks: {{default: {{ipam: {{config: [{{subnet: {subnet}}}]}}}}}}\n"
        ));
    };
    compose("10.213.7.0/24");
    bench.ok(&["up", "-d", "--wait"]);
    let before = bench.pids("web-1");
    compose("10.213.8.0/24");
    bench
        .fails(2, &["up", "-d"])
        .says("network default has 10.213.7.0/24 and cannot change to 10.213.8.0/24")
        .says("hint: take the app down first");
    assert_eq!(bench.pids("web-1"), before);
    bench.ok(&["down"]);
    bench.assert_clean();
}

#[test]
fn a_program_that_cannot_be_started_is_no_success() {
    let Some(bench) = Bench::with_probe("a_program_that_cannot_be_started_is_no_success") else { return };
    bench.compose("services:\n  web: {image: probe, entrypoint: [/nothing]}\n");
    bench.fails(1, &["up", "-d", "--wait"]).says("web does not come up").says("/nothing");
    bench.ok(&["down"]);
    bench.compose("services:\n  web: {image: probe, command: [exit, '9']}\n");
    // Whether it has ended already when readiness is asked for is a matter of moments; afterwards it is not.
    bench.run(&["up", "-d", "--wait"]);
    until("it has ended", || (bench.states() == [("web-1".into(), "exited".into())]).then_some(()));
    bench.fails(1, &["up", "-d", "--wait"]).says("web does not come up: replica 1: exited with code 9");
    bench.ok(&["down"]);
    bench.compose(
        "services:\n  web: {image: probe, command: [say, x], volumes: [{type: bind, source: ./no, target: /d, bind: {create_host_path: false}}]}\n",
    );
    bench.fails(2, &["up", "-d"]).says("/no is to be mounted but does not exist").says("hint:");
    bench.assert_clean();
}

/// A small file system of its own, unmounted when dropped.
struct Tiny<'a>(&'a Path);

impl<'a> Tiny<'a> {
    fn mount(at: &'a Path, size: &str) -> Option<Tiny<'a>> {
        std::fs::create_dir_all(at).expect("a folder");
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"]).arg(at);
        mount.status().is_ok_and(|status| status.success()).then_some(Tiny(at))
    }
}

impl Drop for Tiny<'_> {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn no_space_left_is_said_and_nothing_is_kept() {
    let name = "no_space_left_is_said_and_nothing_is_kept";
    let Some(bench) = Bench::new(name) else { return };
    let Some(_tiny) = Tiny::mount(&bench.home, "256k") else {
        return support::skip(name, "no tmpfs can be mounted");
    };
    bench.write("Dockerfile", "FROM scratch\nCOPY probe /probe\n");
    std::fs::copy(support::probe(), bench.folder.join("probe")).expect("copied");
    bench.fails(4, &["build", "-t", "x", "."]).says("no space left").says("hint:");
    assert_eq!(bench.ok(&["images", "--format", "json"]).out, "");
    let used = |folder: &Path| -> u64 {
        let mut open = vec![folder.to_path_buf()];
        let mut sum = 0;
        while let Some(folder) = open.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let metadata = entry.metadata().expect("metadata");
                if metadata.is_dir() { open.push(entry.path()) } else { sum += metadata.len() }
            }
        }
        sum
    };
    assert!(used(&bench.home) < 32 << 10, "{} bytes are left of a build that failed", used(&bench.home));
}

#[test]
fn a_damaged_state_file_is_named_and_can_be_removed() {
    let Some(bench) = Bench::with_probe("a_damaged_state_file_is_named_and_can_be_removed") else { return };
    bench.compose("services:\n  web: {image: probe, command: [say, x]}\n");
    bench.ok(&["up", "-d", "--wait"]);
    let before = bench.pids("web-1");
    let supervisor = bench.supervisor().expect("a supervisor");
    support::kill(supervisor, Signal::KILL);
    until("it has ended", || (!bench.listens()).then_some(()));
    let state = bench.home.join("projects").join(&bench.project).join("state.json");
    let text = std::fs::read_to_string(&state).expect("the state");
    std::fs::write(&state, &text[..text.len() / 2]).expect("written");
    let done = bench.fails(4, &["ps"]);
    done.says("state.json is damaged").says(&format!("hint: remove {}", state.display()));
    assert_eq!(bench.pids("web-1"), before, "replicas go on");
    std::fs::remove_file(&state).expect("removed");
    bench.ok(&["down"]);
    bench.assert_clean();
}

#[test]
fn a_home_whose_path_is_too_long_for_a_socket_is_named() {
    let Some(bench) = Bench::with_probe("a_home_whose_path_is_too_long_for_a_socket_is_named") else {
        return;
    };
    bench.compose("services:\n  web: {image: probe, command: [say, x]}\n");
    let long = bench.home.with_file_name("x".repeat(120));
    std::fs::rename(&bench.home, &long).expect("moved");
    let mut command = bench.command(&["up", "-d"]);
    command.env("THRONG_HOME", &long);
    let done = bench.spawn_with(command).wait();
    assert_eq!(done.code, 4, "{}", done.err);
    done.says("the path of the socket is longer than").says("hint: set THRONG_HOME to a shorter path");
    assert!(std::fs::read_dir(long.join("projects")).is_ok_and(|folder| folder.count() == 0));
}

#[test]
fn an_app_on_a_full_disk_is_refused_and_leaves_nothing() {
    let name = "an_app_on_a_full_disk_is_refused_and_leaves_nothing";
    let Some(bench) = Bench::new(name) else { return };
    let Some(_tiny) = Tiny::mount(&bench.home, "16m") else {
        return support::skip(name, "no tmpfs can be mounted");
    };
    bench.build_probe();
    bench.compose("services:\n  web: {image: probe, command: [say, x]}\n");
    let filler = bench.home.join("filler");
    let written = std::fs::write(&filler, vec![1u8; 32 << 20]);
    assert!(written.is_err(), "the file system is full now");
    let done = bench.fails(4, &["up", "-d"]);
    assert!(done.err.to_lowercase().contains("no space left"), "{}", done.err);
    std::fs::remove_file(&filler).expect("removed");
    bench.assert_clean();
    bench.ok(&["up", "-d", "--wait"]);
    bench.ok(&["down"]);
    bench.assert_clean();
}

#[test]
fn a_replica_killed_in_mid_request_never_looks_like_success() {
    let Some(bench) = Bench::with_probe("a_replica_killed_in_mid_request_never_looks_like_success") else {
        return;
    };
    bench.compose(
        "
services:
  web: {image: probe, command: [serve, '80'], ports: ['127.0.0.1::80'], deploy: {replicas: 2}}
",
    );
    bench.ok(&["up", "-d", "--wait"]);
    let address = bench.address("web");
    until("both answer", || {
        let seen: std::collections::BTreeSet<_> =
            (0..10).filter_map(|_| Some(web::get(&address, "/").ok()?.body)).collect();
        (seen.len() == 2).then_some(())
    });
    // Least-request sends one of two requests at once to each replica.
    let victim = bench.pids("web-1")[0];
    let asking = [(); 2].map(|()| {
        let address = address.clone();
        std::thread::spawn(move || web::get(&address, "/slow?3000"))
    });
    until("a request is under way at the victim", || {
        // One thread for each connection, beside the one that accepts.
        let tasks = std::fs::read_dir(format!("/proc/{victim}/task")).map_or(0, Iterator::count);
        (tasks > 1).then_some(())
    });
    support::kill(victim, Signal::KILL);
    let answers = asking.map(|thread| thread.join().expect("an outcome"));
    assert!(
        answers.iter().flatten().any(|answer| answer.status == 200),
        "the other one answers: {answers:?}"
    );
    for answer in answers.iter().flatten() {
        assert!(matches!(answer.status, 200 | 502), "{answer:?}");
    }
}

#[test]
fn an_answer_cut_short_by_a_kill_is_cut_for_the_client_too() {
    let Some(bench) = Bench::with_probe("an_answer_cut_short_by_a_kill_is_cut_for_the_client_too") else {
        return;
    };
    bench.compose("services:\n  web: {image: probe, command: [serve, '80'], ports: ['127.0.0.1::80']}\n");
    bench.ok(&["up", "-d", "--wait"]);
    let address = bench.address("web");
    until("it answers", || web::get(&address, "/").ok());
    let mut dripping = web::Partial::begin(&address, "/drip?60000").expect("a beginning");
    support::kill(bench.pids("web-1")[0], Signal::KILL);
    let rest = dripping.rest();
    assert!(rest.is_err(), "an answer of which a part is missing ended like a whole one: {rest:?}");
}
