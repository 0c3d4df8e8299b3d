//! The cases. Each is one promise of the [`throng_runtime::Runtime`] trait.

use crate::{Bench, Case, PATIENCE, command, pipes};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};
use throng_model::app::Swap;
use throng_model::replica::{Exit, NetworkSpec, ReplicaSpec, ReplicaState, ResolvedMount, ResolvedSource};
use throng_model::sandbox::{Hook, HostAddress, Sandbox, Ulimit};
use throng_runtime::{ErrorKind, ExecSpec, RuntimeError};

macro_rules! cases {
    ($($name:ident),* $(,)?) => {
        /// Everything that a runtime must hold.
        pub const CASES: &[Case] =
            &[$(Case::new(stringify!($name), |bench| Box::pin($name(bench)))),*];
    };
}

cases![
    orders_are_idempotent,
    old_orders_are_refused,
    ends_are_what_they_are,
    a_limit_of_tasks_holds,
    grace_comes_before_force,
    who_leaves_in_time_is_not_killed,
    every_watcher_is_told,
    output_is_kept_in_order,
    a_restart_keeps_files_and_output,
    another_definition_needs_a_stop,
    commands_run_inside,
    commands_end_in_time,
    who_is_paused_does_not_run,
    use_is_counted,
    networks_are_made_once,
    replicas_reach_each_other,
    mounts_are_as_asked,
    a_replica_is_confined,
    wishes_are_granted,
    hooks_have_their_moments,
    replicas_are_taken_over,
    what_cannot_start_says_why,
];

async fn orders_are_idempotent(bench: &Bench<'_>) {
    let (runtime, spec) = (&bench.runtime, bench.spec("web", 1, &["serve"]));
    for _ in 0..2 {
        runtime.create(&spec).await.expect("created");
    }
    assert_eq!(bench.observe().await[0].state, ReplicaState::Created);
    let pid = runtime.start(&spec.id, 1).await.expect("started");
    assert_eq!(runtime.start(&spec.id, 1).await.expect("running already"), pid);
    let observed = bench.observe().await;
    assert_eq!(observed.len(), 1);
    assert_eq!((&observed[0].id, observed[0].generation), (&spec.id, 1));
    assert_eq!((&observed[0].config_hash, &observed[0].networks), (&spec.config_hash, &spec.networks));
    let ReplicaState::Running { pid: seen, started_at } = observed[0].state else {
        panic!("{:?}", observed[0].state)
    };
    assert_eq!(seen, pid);
    assert!(started_at.elapsed().is_ok_and(|since| since < PATIENCE), "{started_at:?}");
    assert_eq!(runtime.remove(&spec.id, 1).await.expect_err("running").kind, ErrorKind::Invalid);
    for _ in 0..2 {
        let exit = runtime.stop(&spec.id, 1, 9, PATIENCE).await.expect("stopped");
        assert_eq!(exit, Exit::Signal { signal: 9 });
    }
    for _ in 0..2 {
        runtime.remove(&spec.id, 1).await.expect("removed");
    }
    assert!(bench.observe().await.is_empty());
    assert_eq!(runtime.start(&spec.id, 2).await.expect_err("removed").kind, ErrorKind::NotFound);
    assert_eq!(runtime.log_files(&spec.id).await.expect_err("removed").kind, ErrorKind::NotFound);
}

async fn old_orders_are_refused(bench: &Bench<'_>) {
    let mut spec = bench.spec("web", 1, &["serve"]);
    spec.generation = 5;
    let (runtime, id) = (&bench.runtime, &spec.id);
    runtime.create(&spec).await.expect("created");
    assert_eq!(runtime.start(id, 4).await.expect_err("older").kind, ErrorKind::Stale);
    runtime.start(id, 6).await.expect("started");
    assert_eq!(bench.observe().await[0].generation, 6);
    assert_eq!(runtime.create(&spec).await.expect_err("older").kind, ErrorKind::Stale);
    assert_eq!(runtime.stop(id, 5, 9, PATIENCE).await.expect_err("older").kind, ErrorKind::Stale);
    runtime.stop(id, 7, 9, PATIENCE).await.expect("stopped");
    assert_eq!(runtime.remove(id, 6).await.expect_err("older").kind, ErrorKind::Stale);
    runtime.remove(id, 7).await.expect("removed");
}

async fn ends_are_what_they_are(bench: &Bench<'_>) {
    let (exit, text) = bench.run(&bench.spec("print", 1, &["print", "good day"])).await;
    assert_eq!((exit, text.as_str()), (Exit::Code { code: 0 }, "good day\n"));
    let spec = bench.spec("code", 2, &["exit", "7"]);
    assert_eq!(bench.run(&spec).await.0, Exit::Code { code: 7 });
    let seen = bench.observe().await.into_iter().find(|seen| seen.id == spec.id).expect("is known");
    let ReplicaState::Exited { exit, finished_at } = seen.state else { panic!("{:?}", seen.state) };
    assert_eq!(exit, Exit::Code { code: 7 });
    assert!(finished_at.elapsed().is_ok_and(|since| since < PATIENCE), "{finished_at:?}");
    let mut hungry = bench.spec("hungry", 3, &["eat"]);
    hungry.resources.memory = Some(32 << 20);
    assert_eq!(bench.run(&hungry).await.0, Exit::OutOfMemory);
    let spec = bench.spec("killed", 4, &["serve"]);
    let mut events = bench.runtime.watch();
    bench.launch(&spec).await;
    bench.runtime.stop(&spec.id, 1, 9, PATIENCE).await.expect("stopped");
    assert_eq!(bench.end_of(&mut events, &spec.id).await, Exit::Signal { signal: 9 });
}

async fn a_limit_of_tasks_holds(bench: &Bench<'_>) {
    let mut forks = bench.spec("forks", 1, &["forks"]);
    forks.resources.pids = Some(20);
    let (exit, text) = bench.run(&forks).await;
    assert_eq!((exit, text.as_str()), (Exit::Code { code: 0 }, "forks 19\n"));
}

async fn grace_comes_before_force(bench: &Bench<'_>) {
    let spec = bench.spec("stubborn", 1, &["stubborn"]);
    bench.launch(&spec).await;
    bench.says(&spec.id, "ready").await;
    let (begin, grace) = (Instant::now(), Duration::from_millis(300));
    let exit = bench.runtime.stop(&spec.id, 1, 15, grace).await.expect("killed");
    assert_eq!(exit, Exit::Signal { signal: 9 });
    assert!(begin.elapsed() >= grace, "it had its grace");
    assert_eq!(bench.runtime.stop(&spec.id, 1, 15, PATIENCE).await.expect("again"), exit);
}

async fn who_leaves_in_time_is_not_killed(bench: &Bench<'_>) {
    // A first process of a PID namespace ignores a SIGTERM that it has no handler for, so it goes when it wants to.
    let spec = bench.spec("brief", 1, &["later", "1", "exit", "3"]);
    bench.launch(&spec).await;
    let begin = Instant::now();
    let exit = bench.runtime.stop(&spec.id, 1, 15, PATIENCE).await.expect("ended");
    assert_eq!(exit, Exit::Code { code: 3 });
    assert!(begin.elapsed() < PATIENCE);
}

async fn every_watcher_is_told(bench: &Bench<'_>) {
    let mut watchers = [bench.runtime.watch(), bench.runtime.watch()];
    let spec = bench.spec("code", 1, &["exit", "4"]);
    bench.launch(&spec).await;
    for events in &mut watchers {
        assert_eq!(bench.end_of(events, &spec.id).await, Exit::Code { code: 4 });
    }
}

async fn output_is_kept_in_order(bench: &Bench<'_>) {
    let lines: Vec<String> = (0..5_000).map(|number| format!("line {number}")).collect();
    let spec = bench.spec("talk", 1, &["print", &lines.join("\n")]);
    let (_, text) = bench.run(&spec).await;
    assert!(text.lines().eq(lines.iter()), "{} lines, {} bytes", text.lines().count(), text.len());
    // A line that is longer than what back ends read at once.
    let long = "x".repeat(100_000);
    let spec = bench.spec("long", 2, &["print", &long]);
    let (_, text) = bench.run(&spec).await;
    assert!(text.trim_end() == long, "{} bytes", text.len());
    // What comes later is added, once.
    let spec = bench.spec("on", 3, &["print-for-ever", "on"]);
    bench.launch(&spec).await;
    bench.says(&spec.id, "on\non\n").await;
    let before = bench.output(&spec.id).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let after = bench.output(&spec.id).await;
    assert!(after.len() > before.len() && after.starts_with(&before));
}

async fn a_restart_keeps_files_and_output(bench: &Bench<'_>) {
    let mut spec = bench.spec("write", 1, &["write", "/kept", "first"]);
    assert_eq!(bench.run(&spec).await.1, "written\n");
    spec.generation = 2;
    assert_eq!(bench.run(&spec).await.1, "written\nwritten\n");
    assert_eq!(bench.observe().await[0].generation, 2);
    // Another life of the same definition sees what the last one wrote.
    let spec = bench.spec("twice", 2, &["list", "/"]);
    let before = bench.run(&spec).await.1;
    assert!(before.contains("probe"), "{before}");
    let spec = ReplicaSpec { generation: 2, ..spec };
    assert_eq!(bench.run(&spec).await.1, format!("{before}{before}"));
}

async fn another_definition_needs_a_stop(bench: &Bench<'_>) {
    let spec = bench.spec("web", 1, &["serve"]);
    bench.launch(&spec).await;
    let other =
        ReplicaSpec { generation: 2, config_hash: "y".into(), ..bench.spec("web", 1, &["exit", "5"]) };
    assert_eq!(bench.runtime.create(&other).await.expect_err("running").kind, ErrorKind::Invalid);
    bench.runtime.stop(&spec.id, 2, 9, PATIENCE).await.expect("stopped");
    let (exit, _) = bench.run(&ReplicaSpec { generation: 3, ..other }).await;
    assert_eq!(exit, Exit::Code { code: 5 });
    let observed = bench.observe().await;
    assert_eq!((observed[0].generation, observed[0].config_hash.as_str()), (3, "y"));
}

async fn commands_run_inside(bench: &Bench<'_>) {
    let spec = bench.spec("web", 1, &["serve"]);
    bench.launch(&spec).await;
    let id = &spec.id;
    assert_eq!(bench.exec(id, &["/probe", "exit", "9"]).await.0, Exit::Code { code: 9 });
    let (exit, text) = bench.exec(id, &["/probe", "cat", "/etc/hostname", "/proc/self/status"]).await;
    assert_eq!(exit, Exit::Code { code: 0 });
    for line in ["web-1", "Seccomp:\t2", "NoNewPrivs:\t1"] {
        assert!(text.lines().any(|l| l == line), "no line {line:?} in\n{text}");
    }
    has_usual_capabilities(&text, "CapEff");
    let spec = ExecSpec {
        env: vec!["COLOUR=red".into()],
        cwd: Some("/etc".into()),
        user: Some("1000:1001".into()),
        ..command(&["/probe", "env"])
    };
    let null = || -> OwnedFd { std::fs::File::open("/dev/null").expect("/dev/null").into() };
    let text = bench.exec_with(id, &spec, null()).await.1;
    for line in ["COLOUR=red", "GREETING=hello"] {
        assert!(text.lines().any(|l| l == line), "no line {line:?} in\n{text}");
    }
    let spec = ExecSpec { args: command(&["/probe", "whoami"]).args, ..spec };
    let text = bench.exec_with(id, &spec, null()).await.1;
    assert!(text.contains("Uid:\t1000\t1000") && text.contains("Gid:\t1001\t1001"), "{text}");
    // What is given to it comes back, all of it and then its end.
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    let given = "a line\n".repeat(50_000);
    let copy = given.clone();
    let writing = std::thread::spawn(move || writer.write_all(copy.as_bytes()));
    let (exit, text) = bench.exec_with(id, &command(&["/probe", "cat", "/dev/stdin"]), reader.into()).await;
    writing.join().expect("the writer").expect("all is taken");
    assert_eq!(exit, Exit::Code { code: 0 });
    assert!(text == given, "{} of {} bytes came back", text.len(), given.len());
}

async fn commands_end_in_time(bench: &Bench<'_>) {
    let spec = bench.spec("web", 1, &["serve"]);
    bench.runtime.create(&spec).await.expect("created");
    let null = || -> OwnedFd { std::fs::File::open("/dev/null").expect("/dev/null").into() };
    let refused = async |spec: &ReplicaSpec, args: &[&str]| -> RuntimeError {
        let (io, _reader) = pipes(null());
        bench.runtime.exec(&spec.id, &command(args), io).await.expect_err("cannot run")
    };
    refused(&spec, &["/probe", "exit", "0"]).await;
    bench.runtime.start(&spec.id, 1).await.expect("started");
    let slow = ExecSpec { timeout: Some(Duration::from_millis(300)), ..command(&["/probe", "sleep", "60"]) };
    let (io, _reader) = pipes(null());
    let begin = Instant::now();
    let exit = bench.runtime.exec(&spec.id, &slow, io).await.expect("ended");
    assert_eq!(exit, Exit::Signal { signal: 9 });
    assert!(begin.elapsed() < PATIENCE);
    let error = refused(&spec, &["nothing"]).await;
    assert!(error.kind == ErrorKind::Invalid && error.message.contains("nothing"), "{error}");
    let error = refused(&bench.spec("nobody", 2, &[]), &["/probe"]).await;
    assert_eq!(error.kind, ErrorKind::NotFound);
}

async fn who_is_paused_does_not_run(bench: &Bench<'_>) {
    let (runtime, spec) = (&bench.runtime, bench.spec("web", 1, &["serve"]));
    let pid = bench.launch(&spec).await;
    let address = spec.networks[0].address;
    assert_eq!(dial(address, PATIENCE).expect("an answer"), "ok\n");
    runtime.pause(&spec.id, 1).await.expect("paused");
    let mut waiting =
        TcpStream::connect_timeout(&(address, 80).into(), PATIENCE).expect("the kernel accepts");
    waiting.set_read_timeout(Some(Duration::from_millis(300))).expect("a limit");
    waiting.read_to_string(&mut String::new()).expect_err("nobody answers");
    drop(waiting);
    let null: OwnedFd = std::fs::File::open("/dev/null").expect("/dev/null").into();
    let (io, _reader) = pipes(null);
    let refused = runtime.exec(&spec.id, &command(&["/probe", "exit", "0"]), io).await;
    assert!(!refused.is_ok_and(|exit| exit.is_success()), "a command ran beside what is paused");
    // As the next supervisor sees it.
    let observed = bench.lab.open().await.observe(&bench.project).await.expect("observed");
    assert!(observed[0].paused && matches!(observed[0].state, ReplicaState::Running { .. }), "{observed:?}");
    for _ in 0..2 {
        runtime.unpause(&spec.id, 1).await.expect("goes on");
    }
    assert_eq!(dial(address, PATIENCE).expect("an answer"), "ok\n");
    assert_eq!(runtime.start(&spec.id, 1).await.expect("running"), pid, "the same process");
    assert!(!bench.lab.open().await.observe(&bench.project).await.expect("observed")[0].paused);

    // Who is paused can be killed, and stopped in time.
    let mut events = runtime.watch();
    runtime.pause(&spec.id, 1).await.expect("paused");
    runtime.signal(&spec.id, 1, 9).await.expect("killed");
    assert_eq!(bench.end_of(&mut events, &spec.id).await, Exit::Signal { signal: 9 });
    runtime.signal(&spec.id, 1, 9).await.expect("nobody is there to be killed");
    runtime.pause(&spec.id, 1).await.expect_err("it does not run");
    runtime.start(&spec.id, 2).await.expect("started again");
    runtime.pause(&spec.id, 2).await.expect("paused");
    let begin = Instant::now();
    runtime.stop(&spec.id, 2, 9, PATIENCE).await.expect("stopped");
    assert!(begin.elapsed() < PATIENCE / 2, "{:?}", begin.elapsed());
}

async fn use_is_counted(bench: &Bench<'_>) {
    let mut spec = bench.spec("web", 1, &["serve"]);
    spec.resources.memory = Some(64 << 20);
    bench.launch(&spec).await;
    let answer = dial(spec.networks[0].address, PATIENCE);
    assert_eq!(answer.expect("an answer"), "ok\n");
    let gone = bench.spec("gone", 2, &[]).id;
    let statistics = bench.runtime.statistics(&[gone, spec.id.clone()]).await;
    assert_eq!(statistics.len(), 2);
    assert!(statistics[0].is_none());
    let running = statistics[1].expect("of the running one");
    assert!(running.memory > 0 && running.memory_unreclaimable > 0, "{running:?}");
    assert!(running.memory_unreclaimable <= running.memory, "{running:?}");
    assert!(running.pids >= 1 && running.cpu > Duration::ZERO, "{running:?}");
    assert!(running.network_received > 0 && running.network_sent > 0, "{running:?}");
    assert_eq!(running.memory_limit, Some(64 << 20));
    bench.runtime.stop(&spec.id, 1, 9, PATIENCE).await.expect("stopped");
    assert!(bench.runtime.statistics(std::slice::from_ref(&spec.id)).await[0].is_none());
}

async fn networks_are_made_once(bench: &Bench<'_>) {
    let (runtime, network) = (&bench.runtime, &bench.network);
    runtime.create_network(network).await.expect("again");
    let mut octets = network.gateway.octets();
    octets[1] += 1;
    let other = NetworkSpec {
        subnet: format!("10.{}.{}.0/24", octets[1], octets[2]).parse().expect("a subnet"),
        gateway: octets.into(),
        ..network.clone()
    };
    let error = runtime.create_network(&other).await.expect_err("other subnet");
    assert!(error.kind == ErrorKind::Invalid && error.hint.is_some(), "{error}");
    let spec = bench.spec("web", 1, &["serve"]);
    bench.launch(&spec).await;
    let error = runtime.remove_network(&network.name).await.expect_err("in use");
    assert!(error.kind == ErrorKind::Invalid && error.hint.is_some(), "{error}");
    runtime.stop(&spec.id, 1, 9, PATIENCE).await.expect("stopped");
    runtime.remove(&spec.id, 1).await.expect("removed");
    for _ in 0..2 {
        runtime.remove_network(&network.name).await.expect("removed");
    }
    runtime.create_network(&other).await.expect("free again");
    runtime.remove_network(&other.name).await.expect("removed");
}

async fn replicas_reach_each_other(bench: &Bench<'_>) {
    let server = bench.spec("web", 1, &["serve"]);
    bench.launch(&server).await;
    let address = server.networks[0].address;
    assert_eq!(reached(address), "ok\n");
    let client = bench.spec("client", 2, &["dial", &format!("{address}:80")]);
    assert_eq!(bench.run(&client).await, (Exit::Code { code: 0 }, "ok\n".into()));
}

async fn mounts_are_as_asked(bench: &Bench<'_>) {
    let folder = bench.lab.folder().join(&bench.project);
    std::fs::create_dir_all(&folder).expect("a folder");
    std::fs::write(folder.join("file"), "from the host\n").expect("a file");
    let mount = |source, target: &str, read_only| ResolvedMount { source, target: target.into(), read_only };
    let bind = || ResolvedSource::Bind(folder.clone());
    let mut spec = bench.spec("read", 1, &["cat", "/data/file", "/one"]);
    spec.mounts =
        vec![mount(bind(), "/data", true), mount(ResolvedSource::Bind(folder.join("file")), "/one", true)];
    assert_eq!(bench.run(&spec).await.1, "from the host\nfrom the host\n");
    let tmpfs = ResolvedSource::Tmpfs { size: Some(1 << 20), mode: None };
    for (number, mounts, read_only, path, expected) in [
        (2, vec![mount(bind(), "/data", true)], false, "/data/new", "Read-only"),
        (3, vec![mount(bind(), "/data", false)], true, "/data/new", "written"),
        (4, vec![mount(tmpfs, "/tmp", false)], true, "/tmp/new", "written"),
        (5, vec![mount(ResolvedSource::Private, "/var/lib/x", false)], true, "/var/lib/x/new", "written"),
        (6, vec![], true, "/new", "Read-only"),
        (7, vec![], false, "/new", "written"),
    ] {
        let mut spec = bench.spec("write", number, &["write", path, "text"]);
        (spec.mounts, spec.root.read_only) = (mounts, read_only);
        let (_, text) = bench.run(&spec).await;
        assert!(text.contains(expected), "{number}: {text}");
    }
    assert_eq!(std::fs::read_to_string(folder.join("new")).expect("written through"), "text");
    std::fs::remove_dir_all(&folder).expect("removed");
}

async fn a_replica_is_confined(bench: &Bench<'_>) {
    let spec = bench.spec("web", 5, &["cat", "/proc/self/status", "/etc/hostname", "/etc/resolv.conf"]);
    let (_, text) = bench.run(&spec).await;
    let server = format!("nameserver {}", bench.network.gateway);
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2", "Pid:\t1", "web-5", &server] {
        assert!(text.lines().any(|l| l == line), "no line {line:?} in\n{text}");
    }
    ["CapPrm", "CapEff", "CapBnd"].iter().for_each(|set| has_usual_capabilities(&text, set));
    // The kernel's log, which every Linux has and everybody who reaches it may open for writing.
    let spec = bench.spec("node", 9, &["open-node", "/dev/own", "1", "11"]);
    let (exit, text) = bench.run(&spec).await;
    let refused = text.contains("Operation not permitted") || text.contains("Permission denied");
    assert!(exit == Exit::Code { code: 1 } && refused, "devices of the host can be had: {exit:?} {text}");
    let mut user = bench.spec("user", 6, &["cat", "/proc/self/status"]);
    user.process.user = "1000:1001".into();
    let (_, text) = bench.run(&user).await;
    for line in ["CapEff:\t0000000000000000", "Uid:\t1000\t1000\t1000\t1000", "Gid:\t1001\t1001\t1001\t1001"]
    {
        assert!(text.lines().any(|l| l == line), "no line {line:?} in\n{text}");
    }
    let spec = bench.spec("write", 7, &["write", "/proc/sys/kernel/hostname", "x"]);
    assert!(bench.run(&spec).await.1.contains("Read-only file system"));
    let mut spec = bench.spec("env", 8, &["env"]);
    spec.process.cwd = "/made/here".into();
    assert!(bench.run(&spec).await.1.contains("GREETING=hello\n"));
}

/// Docker's default ones; whether mknod is among them is the back end's own affair.
fn has_usual_capabilities(status: &str, set: &str) {
    const MKNOD: u64 = 1 << 27;
    let found = status.lines().find_map(|line| line.strip_prefix(set)?.strip_prefix(":\t"));
    let mask = found.and_then(|text| u64::from_str_radix(text, 16).ok());
    assert_eq!(mask.map(|mask| mask | MKNOD), Some(0xa804_25fb), "{set} in\n{status}");
}

async fn wishes_are_granted(bench: &Bench<'_>) {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let files = ["status", "limits", "oom_score_adj"].map(|file| format!("/proc/self/{file}"));
    let rest = ["/proc/sys/net/core/somaxconn", "/proc/sys/kernel/domainname", "/etc/hosts"];
    let args: Vec<&str> = ["cat"].into_iter().chain(files.iter().map(String::as_str)).chain(rest).collect();
    let mut spec = bench.spec("web", 1, &args);
    spec.sandbox = Sandbox {
        cap_add: words(&["NET_ADMIN", "CHOWN"]),
        cap_drop: words(&["ALL"]),
        groups: words(&["1234"]),
        ulimits: [("nofile".to_owned(), Ulimit { soft: Some(100), hard: Some(200) })].into(),
        sysctls: [("net.core.somaxconn".to_owned(), "77".to_owned())].into(),
        hosts: vec![("printer".into(), HostAddress::Address("192.0.2.9".parse().expect("an address")))],
        domain: Some("shop.example".into()),
        oom_score: Some(321),
        shm_size: Some(1 << 20),
        ..Sandbox::default()
    };
    (spec.resources.cpu_shares, spec.resources.memory) = (Some(512), Some(64 << 20));
    (spec.resources.memory_reservation, spec.resources.swap) = (Some(32 << 20), Some(Swap::Bytes(16 << 20)));
    let (exit, text) = bench.run(&spec).await;
    assert_eq!(exit, Exit::Code { code: 0 }, "{text}");
    for line in [
        "CapEff:\t0000000000001001",
        "CapBnd:\t0000000000001001",
        "321",
        "77",
        "shop.example",
        "192.0.2.9\tprinter",
    ] {
        assert!(text.lines().any(|l| l == line), "no line {line:?} in\n{text}");
    }
    let start = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap_or_default();
    assert!(start("Groups:").contains("1234"), "{text}");
    assert_eq!(
        start("Max open files").split_whitespace().skip(3).take(2).collect::<Vec<_>>(),
        ["100", "200"]
    );
    spec = ReplicaSpec { sandbox: spec.sandbox.clone(), ..bench.spec("shm", 2, &["fill", "/dev/shm/x"]) };
    assert_eq!(bench.run(&spec).await.1, "1048576 28\n", "memory that is shared has its own size");
    let mut spec = bench.spec("mode", 3, &["mode", "/narrow"]);
    let source = ResolvedSource::Tmpfs { size: Some(1 << 16), mode: Some(0o750) };
    spec.mounts = vec![ResolvedMount { source, target: "/narrow".into(), read_only: false }];
    assert_eq!(bench.run(&spec).await.1, "750 0 0\n");
    let mut spec = bench.spec("init", 5, &["sleep", "600"]);
    spec.sandbox.init = true;
    bench.launch(&spec).await;
    // Process 1 itself would not be ended by a signal that it has not asked for.
    let exit = bench.runtime.stop(&spec.id, 1, 15, PATIENCE).await.expect("stopped");
    // Which of the two says so, not every back end can tell.
    assert_eq!(exit.code(), 128 + 15, "{exit:?}");
    let mut spec = bench.spec("alone", 4, &["list", "/sys/class/net"]);
    spec.networks.clear();
    assert_eq!(bench.run(&spec).await.1, "lo\n", "without a network there is only loopback");
}

async fn hooks_have_their_moments(bench: &Bench<'_>) {
    let folder = bench.lab.folder().join(&bench.project);
    std::fs::create_dir_all(&folder).expect("a folder");
    let hook = |args: &[&str]| {
        let command = ["/probe"].iter().chain(args).map(|arg| (*arg).to_owned()).collect();
        Hook { command, ..Hook::default() }
    };
    let mut spec = bench.spec("web", 1, &["serve"]);
    let source = ResolvedSource::Bind(folder.clone());
    spec.mounts = vec![ResolvedMount { source, target: "/data".into(), read_only: false }];
    spec.sandbox.post_start = vec![hook(&["write", "/data/started", "x"])];
    spec.sandbox.pre_stop = vec![hook(&["write", "/data/stopping", "x"])];
    bench.launch(&spec).await;
    assert!(folder.join("started").exists() && !folder.join("stopping").exists());
    bench.runtime.stop(&spec.id, 1, 9, PATIENCE).await.expect("stopped");
    assert!(folder.join("stopping").exists());
    std::fs::remove_dir_all(&folder).expect("removed");
    let mut spec = bench.spec("bad", 2, &["serve"]);
    spec.sandbox.post_start = vec![hook(&["exit", "3"])];
    bench.runtime.create(&spec).await.expect("created");
    let error = bench.runtime.start(&spec.id, 1).await.expect_err("its hook fails");
    assert!(error.message.contains("`/probe exit 3` exited with code 3"), "{error}");
    let state = bench.observe().await.into_iter().find(|seen| seen.id == spec.id).expect("is known").state;
    assert!(matches!(state, ReplicaState::Exited { .. }), "{state:?}");
}

async fn replicas_are_taken_over(bench: &Bench<'_>) {
    let mut web = bench.spec("web", 1, &["serve"]);
    web.generation = 3;
    let pid = bench.launch(&web).await;
    let talk = bench.spec("talk", 2, &["print-for-ever", "line"]);
    bench.launch(&talk).await;
    let gone = bench.spec("gone", 3, &["exit", "4"]);
    assert_eq!(bench.run(&gone).await.0, Exit::Code { code: 4 });
    let made = bench.spec("made", 4, &["serve"]);
    bench.runtime.create(&made).await.expect("created");
    bench.says(&talk.id, "line\n").await;

    let next = bench.lab.open().await;
    let observed = next.observe(&bench.project).await.expect("observed");
    assert_eq!(observed.len(), 4);
    let seen = |spec: &ReplicaSpec| {
        observed.iter().find(|seen| seen.id == spec.id).expect("is known to the next one")
    };
    assert!(matches!(seen(&web).state, ReplicaState::Running { pid: same, .. } if same == pid));
    assert_eq!((seen(&web).generation, &seen(&web).networks), (3, &web.networks));
    assert!(matches!(seen(&talk).state, ReplicaState::Running { .. }));
    let exited =
        |state: &ReplicaState| matches!(state, ReplicaState::Exited { exit, .. } if exit.code() == 4);
    assert!(exited(&seen(&gone).state), "{:?}", seen(&gone).state);
    assert_eq!(seen(&made).state, ReplicaState::Created);
    assert_eq!(reached(web.networks[0].address), "ok\n");
    assert_eq!(next.start(&web.id, 2).await.expect_err("older").kind, ErrorKind::Stale);
    let log = async || {
        let file = next.log_files(&talk.id).await.expect("its log").pop().expect("a file");
        std::fs::read(file).expect("readable").len()
    };
    let before = log().await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(log().await > before, "its output goes on");
    let mut events = next.watch();
    let exit = next.stop(&talk.id, 2, 9, PATIENCE).await.expect("stopped");
    assert!(matches!(exit, Exit::Signal { signal: 9 } | Exit::Unknown), "{exit:?}");
    bench.end_of(&mut events, &talk.id).await;
    next.stop(&web.id, 4, 9, PATIENCE).await.expect("stopped");
    for (spec, generation) in [(&web, 4), (&talk, 2), (&gone, 1), (&made, 1)] {
        next.remove(&spec.id, generation).await.expect("removed");
    }
    assert!(next.observe(&bench.project).await.expect("observed").is_empty());
    // The first one is of the past: it is not asked again.
    next.remove_network(&bench.network.name).await.expect("removed");
}

async fn what_cannot_start_says_why(bench: &Bench<'_>) {
    let mut specs = Vec::new();
    for (number, program, expected) in [
        (1, "/foreign", "riscv64"),
        (2, "/text", "neither a program nor a script"),
        (3, "/plain", "/plain"),
        (4, "/script", "/script"),
        (5, "nowhere", "nowhere"),
    ] {
        let mut spec = bench.spec("bad", number, &[]);
        spec.process.args = vec![program.into()];
        specs.push((spec, expected));
    }
    let mut spec = bench.spec("bad", 6, &["print", "x"]);
    let source = ResolvedSource::Bind("/no/such/place".into());
    spec.mounts = vec![ResolvedMount { source, target: "/x".into(), read_only: false }];
    specs.push((spec, "/no/such/place"));
    let mut spec = bench.spec("bad", 7, &["print", "x"]);
    spec.process.user = "nobody-here".into();
    specs.push((spec, "nobody-here"));
    for (spec, expected) in specs {
        let launched = async {
            bench.runtime.create(&spec).await?;
            bench.runtime.start(&spec.id, 1).await
        };
        let error = launched.await.expect_err(expected);
        assert!(error.message.contains(expected), "no {expected:?} in: {error}");
        assert!(error.kind == ErrorKind::Invalid && error.hint.is_some(), "{expected}: {error:?}");
    }
}

/// Everything that a server says to this host; asked for until it comes.
/// What a replica answers to this host; where it does not, the panic tells the way there.
fn reached(address: std::net::Ipv4Addr) -> String {
    let said = |arguments: &[&str]| {
        let output = std::process::Command::new("ip").args(arguments).output();
        output.map_or_else(|error| error.to_string(), |o| String::from_utf8_lossy(&o.stdout).into_owned())
    };
    dial(address, PATIENCE).unwrap_or_else(|error| {
        let target = address.to_string();
        let way = [&["route", "get", &target][..], &["route"], &["neighbour"], &["-details", "address"]];
        panic!("{address} does not answer: {error}\n{}", way.map(said).join("\n"))
    })
}

fn dial(address: std::net::Ipv4Addr, patience: Duration) -> std::io::Result<String> {
    let deadline = Instant::now() + patience;
    loop {
        let asked = TcpStream::connect_timeout(&(address, 80).into(), patience);
        match asked.and_then(std::io::read_to_string) {
            Err(_) if Instant::now() < deadline => std::thread::sleep(crate::LOOK_EVERY),
            done => return done,
        }
    }
}
