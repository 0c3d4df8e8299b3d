//! Replicas as root on this kernel: what they see, what holds them, how they end, and that nothing of them is left.

mod common;

use common::{Bench, bridge_of, first_answer, is_root, skip, traces};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use throng_engine::Engine;
use throng_model::replica::{
    Exit, LogPolicy, ReplicaId, ReplicaSpec, ReplicaState, ResolvedMount, ResolvedSource,
};
use throng_runtime::{ErrorKind, ExecSpec, Runtime, RuntimeEvent};

const PATIENCE: Duration = Duration::from_secs(10);

macro_rules! needs_root {
    ($name:literal) => {
        if !is_root() {
            skip($name, "containers without a user namespace need root");
            return;
        }
    };
}

/// Runs the replica to its end and returns how it ended and what it wrote.
async fn run(bench: &Bench, spec: &ReplicaSpec) -> (Exit, String) {
    let mut events = bench.engine.watch();
    bench.engine.create(spec).await.expect("created");
    bench.engine.start(&spec.id, spec.generation).await.expect("started");
    let exit = loop {
        let event = tokio::time::timeout(PATIENCE, events.recv()).await.expect("an end in time");
        let RuntimeEvent::Exited { id, exit, .. } = event.expect("an event") else { continue };
        if id == spec.id {
            break exit;
        }
    };
    (exit, output(bench, &spec.id).await)
}

async fn output(bench: &Bench, id: &ReplicaId) -> String {
    let mut text = String::new();
    for file in bench.engine.log_files(id).await.expect("log files") {
        text += &String::from_utf8_lossy(&std::fs::read(file).expect("a log"));
    }
    text
}

async fn exec(bench: &Bench, id: &ReplicaId, args: &[&str]) -> (Exit, String) {
    common::exec(&bench.engine, id, args).await
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_are_reported_as_what_they_are() {
    needs_root!("ends_are_reported_as_what_they_are");
    let bench = Bench::new("engine-ends", 1).await;
    let (exit, text) = run(&bench, &bench.spec("print", 1, &["print", "good day"])).await;
    assert_eq!((exit, text.as_str()), (Exit::Code { code: 0 }, "good day\n"));
    let (exit, _) = run(&bench, &bench.spec("code", 2, &["exit", "7"])).await;
    assert_eq!(exit, Exit::Code { code: 7 });
    let mut hungry = bench.spec("hungry", 3, &["eat"]);
    hungry.resources.memory = Some(32 << 20);
    let (exit, _) = run(&bench, &hungry).await;
    assert_eq!(exit, Exit::OutOfMemory);
    let mut forks = bench.spec("forks", 4, &["forks"]);
    forks.resources.pids = Some(20);
    let (exit, text) = run(&bench, &forks).await;
    assert_eq!((exit, text.as_str()), (Exit::Code { code: 0 }, "forks 19\n"));
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_confined_as_by_docker() {
    needs_root!("a_replica_is_confined_as_by_docker");
    let bench = Bench::new("engine-confined", 2).await;
    let spec = bench.spec(
        "web",
        5,
        &["cat", "/proc/self/status", "/etc/hostname", "/etc/resolv.conf", "/etc/hosts"],
    );
    let (_, text) = run(&bench, &spec).await;
    for line in [
        "CapInh:\t0000000000000000",
        "CapPrm:\t00000000a00425fb",
        "CapEff:\t00000000a00425fb",
        "CapBnd:\t00000000a00425fb",
        "CapAmb:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
        "Pid:\t1",
        // The probe's own runtime ignores SIGPIPE.
        "SigIgn:\t0000000000001000",
        "SigBlk:\t0000000000000000",
        "web-5",
        "nameserver 10.199.2.1",
        "10.199.2.6\tweb-5",
    ] {
        assert!(text.lines().any(|l| l == line), "no line {line:?} in\n{text}");
    }
    let spec = bench.spec("look", 6, &["cat", "/proc/kcore", "/proc/keys", "/proc/self/mountinfo"]);
    let (_, text) = run(&bench, &spec).await;
    let hidden = |l: &&str| !l.ends_with("No such file or directory (os error 2)");
    let lines: Vec<&str> = text.lines().filter(hidden).collect();
    assert!(lines.iter().all(|l| l.contains(" - ")), "masked files are empty or missing:\n{text}");
    let mounts: Vec<&str> = lines.iter().filter_map(|l| l.split(' ').nth(4)).collect();
    let below = |m: &&&str| ["/proc", "/sys", "/dev"].iter().any(|folder| m.starts_with(folder));
    assert_eq!(mounts.iter().filter(|m| !below(m)).collect::<Vec<_>>(), [&"/"], "the old root is gone");
    assert!(
        text.lines().any(|l| l.contains(" /sys ro")) && text.lines().any(|l| l.contains(" /proc/sys ro"))
    );
    let (_, text) = run(&bench, &bench.spec("write", 7, &["write", "/proc/sys/kernel/hostname", "x"])).await;
    assert!(text.contains("Read-only file system"), "{text}");
    let (_, text) = run(&bench, &bench.spec("dev", 8, &["list", "/dev"])).await;
    assert_eq!(text, "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero\n");
    let (_, text) = run(&bench, &bench.spec("fds", 9, &["list", "/proc/self/fd"])).await;
    assert_eq!(text, "0 1 2 3\n", "no descriptor but its own and the one of the listing");
    let (_, text) = run(&bench, &bench.spec("links", 10, &["list", "/sys/class/net"])).await;
    assert_eq!(text, "lo\n", "the view that all replicas share, not the host's");
    let mut user = bench.spec("user", 11, &["cat", "/proc/self/status"]);
    user.process.user = "1000:1001".into();
    let (_, text) = run(&bench, &user).await;
    for line in [
        "CapEff:\t0000000000000000",
        "CapPrm:\t0000000000000000",
        "Uid:\t1000\t1000\t1000\t1000",
        "Gid:\t1001\t1001\t1001\t1001",
    ] {
        assert!(text.lines().any(|l| l == line), "no line {line:?} in\n{text}");
    }
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mounts_are_as_asked() {
    needs_root!("mounts_are_as_asked");
    let bench = Bench::new("engine-mounts", 3).await;
    let host = bench.folder.path().join("host");
    std::fs::create_dir_all(&host).expect("a folder");
    std::fs::write(host.join("file"), "from the host\n").expect("a file");
    let mount = |source, target: &str, read_only| ResolvedMount { source, target: target.into(), read_only };
    let bind = || ResolvedSource::Bind(host.clone());
    let mut spec = bench.spec("read", 1, &["cat", "/data/file", "/one"]);
    spec.mounts =
        vec![mount(bind(), "/data", true), mount(ResolvedSource::Bind(host.join("file")), "/one", true)];
    assert_eq!(run(&bench, &spec).await.1, "from the host\nfrom the host\n");
    for (number, mounts, read_only, path, expected) in [
        (2, vec![mount(bind(), "/data", true)], false, "/data/new", "Read-only"),
        (3, vec![mount(bind(), "/data", false)], true, "/data/new", "written"),
        (
            4,
            vec![mount(ResolvedSource::Tmpfs { size: Some(1 << 20), mode: None }, "/tmp", false)],
            true,
            "/tmp/new",
            "written",
        ),
        (5, vec![mount(ResolvedSource::Private, "/var/lib/x", false)], true, "/var/lib/x/new", "written"),
        (6, vec![], true, "/new", "Read-only"),
        (7, vec![], false, "/new", "written"),
    ] {
        let mut spec = bench.spec("write", number, &["write", path, "text"]);
        (spec.mounts, spec.root.read_only) = (mounts, read_only);
        let (_, text) = run(&bench, &spec).await;
        assert!(text.contains(expected), "{number}: {text}");
    }
    assert_eq!(std::fs::read_to_string(host.join("new")).expect("written through"), "text");
    assert!(!common::layer().join("new").exists(), "the image's layer stays as it was");
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_reach_each_other_and_are_counted() {
    needs_root!("replicas_reach_each_other_and_are_counted");
    let bench = Bench::new("engine-network", 4).await;
    let mut server = bench.spec("web", 1, &["serve"]);
    server.resources.memory = Some(64 << 20);
    bench.engine.create(&server).await.expect("created");
    let pid = bench.engine.start(&server.id, 1).await.expect("started");
    assert_eq!(bench.engine.start(&server.id, 1).await.expect("running already"), pid);
    let address = server.networks[0].address;
    assert_eq!(first_answer(&bench.engine, address, PATIENCE).await.expect("an answer"), "ok\n");
    let (exit, text) = run(&bench, &bench.spec("client", 2, &["dial", &format!("{address}:80")])).await;
    assert_eq!((exit, text.as_str()), (Exit::Code { code: 0 }, "ok\n"));
    let gone = bench.spec("client", 2, &[]).id;
    let statistics = bench.engine.statistics(&[server.id.clone(), gone]).await;
    let running = statistics[0].expect("of the running one");
    assert!(statistics[1].is_none());
    assert!(
        running.memory > 0 && running.pids >= 1 && running.network_received > 0 && running.network_sent > 0
    );
    assert_eq!(running.memory_limit, Some(64 << 20));
    let error = bench.engine.remove_network(&bench.network.name).await.expect_err("in use");
    assert_eq!(error.kind, ErrorKind::Invalid);
    bench.end().await;
}

/// From the second reading on, interfaces are asked for by the number of their namespace; a new supervisor asks for the
/// numbers that an earlier one gave.
#[tokio::test(flavor = "multi_thread")]
async fn traffic_is_what_the_replica_itself_counts() {
    needs_root!("traffic_is_what_the_replica_itself_counts");
    let bench = Bench::new("engine-traffic", 14).await;
    let spec = bench.spec("web", 1, &["serve"]);
    bench.engine.create(&spec).await.expect("created");
    let pid = bench.engine.start(&spec.id, 1).await.expect("started");
    let address = spec.networks[0].address;
    let read = async |engine: &Engine| {
        let read = engine.statistics(std::slice::from_ref(&spec.id)).await[0].expect("it runs");
        (read.network_received, read.network_sent)
    };
    let counted = || {
        let text = std::fs::read_to_string(format!("/proc/{pid}/net/dev")).expect("its interfaces");
        throng_runtime::counters::traffic(&text)
    };
    let mut last = (0, 0);
    let second = Engine::open(common::options(bench.folder.path())).expect("another engine");
    second.observe(&bench.project).await.expect("taken over");
    for engine in [&bench.engine, &bench.engine, &second, &second, &bench.engine] {
        assert_eq!(first_answer(&bench.engine, address, PATIENCE).await.expect("an answer"), "ok\n");
        // Nothing comes while it reads, but for what others of this host may send.
        let (before, now, after) = (counted(), read(engine).await, counted());
        assert!(now.0 > last.0 && now.1 > last.1, "{now:?} after {last:?}");
        assert!(before.0 <= now.0 && now.0 <= after.0, "{before:?} {now:?} {after:?}");
        assert!(before.1 <= now.1 && now.1 <= after.1, "{before:?} {now:?} {after:?}");
        last = now;
    }
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_run_inside() {
    needs_root!("commands_run_inside");
    let bench = Bench::new("engine-exec", 5).await;
    let spec = bench.spec("web", 1, &["serve"]);
    bench.engine.create(&spec).await.expect("created");
    bench.engine.start(&spec.id, 1).await.expect("started");
    let (exit, text) = exec(&bench, &spec.id, &["/probe", "cat", "/proc/self/status", "/etc/hostname"]).await;
    assert_eq!(exit, Exit::Code { code: 0 });
    for line in ["CapEff:\t00000000a00425fb", "Seccomp:\t2", "NoNewPrivs:\t1", "web-1"] {
        assert!(text.lines().any(|l| l == line), "no line {line:?} in\n{text}");
    }
    assert_eq!(exec(&bench, &spec.id, &["/probe", "dial", "127.0.0.1:80"]).await.1, "ok\n");
    assert_eq!(exec(&bench, &spec.id, &["/probe", "exit", "9"]).await.0, Exit::Code { code: 9 });
    let text = exec(&bench, &spec.id, &["/probe", "env"]).await.1;
    assert!(text.contains("GREETING=hello\n") && text.contains("HOSTNAME=web-1\n"), "{text}");
    let (io, _reader) = common::pipe_io();
    let slow = ExecSpec {
        args: ["/probe", "sleep", "60"].map(str::to_owned).to_vec(),
        timeout: Some(Duration::from_millis(200)),
        ..ExecSpec::default()
    };
    let begin = Instant::now();
    assert_eq!(bench.engine.exec(&spec.id, &slow, io).await.expect("ended"), Exit::Signal { signal: 9 });
    assert!(begin.elapsed() < PATIENCE);
    let (io, _reader) = common::pipe_io();
    let missing = ExecSpec { args: vec!["nothing".into()], ..ExecSpec::default() };
    let error = bench.engine.exec(&spec.id, &missing, io).await.expect_err("no such program");
    assert!(error.message.contains("no program \"nothing\""), "{error}");
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_idempotent_and_old_ones_refused() {
    needs_root!("orders_are_idempotent_and_old_ones_refused");
    let bench = Bench::new("engine-orders", 6).await;
    let mut spec = bench.spec("web", 1, &["stubborn"]);
    spec.generation = 5;
    let engine = &bench.engine;
    for _ in 0..2 {
        engine.create(&spec).await.expect("created");
    }
    assert_eq!(engine.observe(&bench.project).await.expect("seen")[0].state, ReplicaState::Created);
    let stale = engine.start(&spec.id, 4).await.expect_err("older");
    assert_eq!(stale.kind, ErrorKind::Stale);
    engine.start(&spec.id, 6).await.expect("started");
    assert_eq!(engine.stop(&spec.id, 5, 15, PATIENCE).await.expect_err("older").kind, ErrorKind::Stale);
    assert_eq!(engine.remove(&spec.id, 6).await.expect_err("running").kind, ErrorKind::Invalid);
    while output(&bench, &spec.id).await.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let begin = Instant::now();
    let grace = Duration::from_millis(300);
    assert_eq!(engine.stop(&spec.id, 6, 15, grace).await.expect("killed"), Exit::Signal { signal: 9 });
    assert!(begin.elapsed() >= grace, "it had its grace");
    assert_eq!(engine.stop(&spec.id, 6, 15, grace).await.expect("again"), Exit::Signal { signal: 9 });
    engine.start(&spec.id, 7).await.expect("afresh");
    engine.stop(&spec.id, 7, 9, PATIENCE).await.expect("stopped");
    for _ in 0..2 {
        engine.remove(&spec.id, 7).await.expect("removed");
    }
    assert!(engine.observe(&bench.project).await.expect("seen").is_empty());
    let unknown = engine.start(&spec.id, 8).await.expect_err("removed");
    assert_eq!(unknown.kind, ErrorKind::NotFound);
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_start_says_why() {
    needs_root!("what_cannot_start_says_why");
    let bench = Bench::new("engine-errors", 7).await;
    let layer = bench.folder.path().join("broken");
    std::fs::create_dir_all(&layer).expect("a layer");
    let mut foreign = vec![0u8; 64];
    foreign[..6].copy_from_slice(b"\x7fELF\x02\x01");
    foreign[18] = 243;
    for (name, content, mode) in [
        ("foreign", foreign.as_slice(), 0o755),
        ("text", b"hello", 0o755),
        ("plain", b"#!/probe\n", 0o644),
        ("script", b"#!/nowhere\n", 0o755),
    ] {
        std::fs::write(layer.join(name), content).expect("a file");
        std::fs::set_permissions(layer.join(name), std::os::unix::fs::PermissionsExt::from_mode(mode))
            .expect("a mode");
    }
    for (number, program, expected) in [
        (1, "/foreign", "built for riscv64"),
        (2, "/text", "neither a program nor a script"),
        (3, "/plain", "may not be executed"),
        (4, "/script", "interpreter"),
        (5, "nowhere", "no program"),
    ] {
        let mut spec = bench.spec("bad", number, &[]);
        spec.process.args = vec![program.into()];
        spec.root.layers.push(layer.clone());
        bench.engine.create(&spec).await.expect("created");
        let error = bench.engine.start(&spec.id, 1).await.expect_err(program);
        assert!(error.message.contains(expected) && error.kind == ErrorKind::Invalid, "{program}: {error}");
        assert!(error.hint.is_some(), "{program}");
    }
    let mut spec = bench.spec("bad", 6, &["print", "x"]);
    spec.mounts = vec![ResolvedMount {
        source: ResolvedSource::Bind("/no/such/place".into()),
        target: "/x".into(),
        read_only: false,
    }];
    bench.engine.create(&spec).await.expect("created");
    let error = bench.engine.start(&spec.id, 1).await.expect_err("no such mount");
    assert!(error.message.contains("/no/such/place"), "{error}");
    let mut spec = bench.spec("bad", 7, &["print", "x"]);
    spec.process.user = "nobody-here".into();
    bench.engine.create(&spec).await.expect("created");
    let error = bench.engine.start(&spec.id, 1).await.expect_err("no such user");
    assert!(error.message.contains("nobody-here"), "{error}");
    bench.end().await;
}

fn build_step(upper: &std::path::Path, process: throng_model::replica::Process) -> throng_engine::BuildStep {
    let (layers, upper) = (vec![common::layer()], upper.to_owned());
    throng_engine::BuildStep { layers, upper, process, ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_step_leaves_only_what_it_wrote() {
    needs_root!("a_build_step_leaves_only_what_it_wrote");
    let bench = Bench::new("engine-step", 8).await;
    let upper = bench.folder.path().join("step");
    std::fs::create_dir_all(&upper).expect("a folder");
    let process = |args: &[&str]| throng_model::replica::Process {
        args: ["/probe"].iter().chain(args).map(|a| (*a).to_owned()).collect(),
        cwd: "/work/dir".into(),
        ..Default::default()
    };
    let (io, _reader) = common::pipe_io();
    let step = process(&["write", "made", "text"]);
    let exit = bench.engine.run_step(build_step(&upper, step), io, Some(PATIENCE)).await.expect("ran");
    assert_eq!(exit, Exit::Code { code: 0 });
    assert_eq!(std::fs::read_to_string(upper.join("work/dir/made")).expect("written"), "text");
    let names: Vec<_> =
        std::fs::read_dir(&upper).expect("listed").map(|e| e.expect("entry").file_name()).collect();
    assert_eq!(names, ["work"]);
    let beside: Vec<_> = std::fs::read_dir(bench.folder.path())
        .expect("listed")
        .map(|e| e.expect("entry").file_name())
        .collect();
    assert!(!beside.iter().any(|n| n.to_string_lossy().ends_with(".step")), "{beside:?}");
    let (io, _reader) = common::pipe_io();
    let failing = process(&["exit", "3"]);
    let exit = bench.engine.run_step(build_step(&upper, failing), io, None).await.expect("ran");
    assert_eq!(exit, Exit::Code { code: 3 });
    bench.end().await;
}

/// Whoever asked may be gone at any instant of a beginning, also after the program runs and before that is told.
#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_waits_for_any_more_ends() {
    needs_root!("what_nobody_waits_for_any_more_ends");
    let bench = Bench::new("engine-given-up", 39).await;
    let spec = bench.spec("web", 1, &["serve"]);
    bench.engine.create(&spec).await.expect("created");
    bench.engine.start(&spec.id, 1).await.expect("started");
    let forever = || vec!["/probe".to_owned(), "sleep".to_owned(), "1000".to_owned()];
    for instant in 0..30 {
        let patience = Duration::from_micros(instant * 300);
        let (io, step_ended) = common::pipe_io();
        let upper = bench.folder.path().join(format!("step-{instant}"));
        std::fs::create_dir_all(&upper).expect("a folder");
        let step = throng_model::replica::Process { args: forever(), cwd: "/".into(), ..Default::default() };
        let running = bench.engine.run_step(build_step(&upper, step), io, None);
        tokio::time::timeout(patience, running).await.expect_err("it sleeps");
        let (io, command_ended) = common::pipe_io();
        let command = throng_runtime::ExecSpec { args: forever(), ..Default::default() };
        let running = bench.engine.exec(&spec.id, &command, io);
        tokio::time::timeout(patience, running).await.expect_err("it sleeps");
        for (what, output) in [("the step", step_ended), ("the command", command_ended)] {
            // The pipe ends when nothing holds its other end.
            let mut output = tokio::net::unix::pipe::Receiver::from_owned_fd(output.into()).expect("a pipe");
            let end =
                tokio::time::timeout(PATIENCE, tokio::io::AsyncReadExt::read(&mut output, &mut [0])).await;
            let end = end.unwrap_or_else(|_| panic!("{what} given up after {patience:?} goes on"));
            assert_eq!(end.expect("read"), 0);
        }
    }
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_rotated_under_a_writing_replica() {
    needs_root!("a_log_is_rotated_under_a_writing_replica");
    let bench = Bench::new("engine-logs", 9).await;
    let mut spec = bench.spec("talk", 1, &["print-for-ever", &"x".repeat(1000)]);
    spec.log = LogPolicy { max_size: 100_000, max_files: 2 };
    bench.engine.create(&spec).await.expect("created");
    bench.engine.start(&spec.id, 1).await.expect("started");
    let deadline = Instant::now() + PATIENCE;
    while bench.engine.log_files(&spec.id).await.expect("files").len() < 2 {
        assert!(Instant::now() < deadline, "not rotated in time");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bench.end().await;
}

/// A flood is cut down again and again: what is kept when it ends is within the policy, and the newest of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_flooded_log_is_cut_to_its_limit() {
    needs_root!("a_flooded_log_is_cut_to_its_limit");
    const LIMIT: u64 = 64 << 10;
    let bench = Bench::new("engine-flood", 37).await;
    // One goes on, the other one ends before anybody has looked at its log.
    for (ordinal, command) in [(1, "flood"), (2, "spill")] {
        let mut spec = bench.spec("flood", ordinal, &[command, "20000"]);
        spec.log = LogPolicy { max_size: LIMIT, max_files: 2 };
        bench.engine.create(&spec).await.expect("created");
        bench.engine.start(&spec.id, 1).await.expect("started");
        let taken = |files: &[std::path::PathBuf]| -> u64 {
            let blocks = |f: &std::path::PathBuf| {
                std::fs::metadata(f).map(|m| std::os::unix::fs::MetadataExt::blocks(&m))
            };
            files.iter().map(|file| blocks(file).unwrap_or(0) * 512).sum()
        };
        // At most three files of at most the limit, each rounded up to blocks and with a line about what is missing.
        let most = 3 * (LIMIT + (8 << 10));
        let deadline = Instant::now() + PATIENCE;
        loop {
            let files = bench.engine.log_files(&spec.id).await.expect("files");
            // All of it has been written: 20,000 lines of 1,000 bytes, of which the last one says so.
            let ended = files
                .last()
                .is_some_and(|log| std::fs::metadata(log).is_ok_and(|metadata| metadata.len() >= 20_000_000));
            if ended && files.len() >= 2 && taken(&files) <= most {
                break;
            }
            assert!(Instant::now() < deadline, "{} bytes in {} files", taken(&files), files.len());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert!(output(&bench, &spec.id).await.contains("19999 "), "the newest lines are kept");
    }
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left() {
    needs_root!("nothing_is_left");
    let bench = Bench::new("engine-traces", 10).await;
    let bridge = bridge_of(&bench.network).expect("the bridge");
    for ordinal in 1..=20 {
        let spec = bench.spec("web", ordinal, &["serve"]);
        bench.engine.create(&spec).await.expect("created");
        bench.engine.start(&spec.id, 1).await.expect("started");
    }
    // At least a group for each replica, in each hierarchy that there is.
    assert!(traces(&bench.project, &bridge).len() > 20);
    let (project, state) = (bench.project.clone(), bench.folder.path().join("state"));
    let engine = bench.engine.clone();
    let folder = bench.folder;
    engine.sweep(&project).await.expect("swept");
    assert_eq!(traces(&project, &bridge), Vec::<String>::new());
    assert!(!Path::new(&state.join(&project)).exists());
    assert!(engine.observe(&project).await.expect("seen").is_empty());
    drop(folder);
}

/// While a PID namespace ends the kernel makes no more processes in it, and says that there is no memory.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_in_a_replica_that_is_ending_is_refused_as_that() {
    let name = "a_command_in_a_replica_that_is_ending_is_refused_as_that";
    needs_root!("a_command_in_a_replica_that_is_ending_is_refused_as_that");
    let bench = Bench::new("engine-ending", 27).await;
    let spec = bench.spec("web", 1, &["serve"]);
    bench.engine.create(&spec).await.expect("created");
    let pid = bench.engine.start(&spec.id, 1).await.expect("started");
    // Its end waits for this one, whose parent does not take notice of its death while it is stopped.
    let entered = Command::new("nsenter").args(["-t", &pid.to_string(), "-p", "sleep", "600"]).spawn();
    let Ok(mut parent) = entered else { return skip(name, "nsenter (Debian package util-linux) is missing") };
    let children = format!("/proc/{0}/task/{0}/children", parent.id());
    while std::fs::read_to_string(&children).is_ok_and(|text| text.trim().is_empty()) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let signal = |pid: u32, signal| {
        let pid = rustix::process::Pid::from_raw(pid as i32).expect("a pid");
        rustix::process::kill_process(pid, signal).expect("signalled");
    };
    signal(parent.id(), rustix::process::Signal::STOP);
    signal(pid, rustix::process::Signal::KILL);
    let deadline = Instant::now() + PATIENCE;
    let error = loop {
        let (io, _reader) = common::pipe_io();
        let args = ["/probe", "exit", "0"].map(str::to_owned).to_vec();
        match bench.engine.exec(&spec.id, &ExecSpec { args, ..ExecSpec::default() }, io).await {
            Err(error) => break error,
            Ok(_) => assert!(Instant::now() < deadline, "it never ends"),
        }
    };
    signal(parent.id(), rustix::process::Signal::CONT);
    let _ = parent.wait();
    assert_eq!(
        (error.kind, error.message.ends_with("is not running: it is ending")),
        (ErrorKind::NotFound, true),
        "{error}"
    );
    bench.end().await;
}
