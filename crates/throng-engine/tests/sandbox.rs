//! What a service asks for beside its files and its network, as its replicas see it from inside.

mod common;

use common::{Bench, exec, is_root, skip};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use throng_engine::dns::{Lookup, Resolve, serve};
use throng_model::app::Swap;
use throng_model::replica::{Exit, ReplicaSpec, ReplicaState, ResolvedMount, ResolvedSource};
use throng_model::sandbox::{Hook, HostAddress, Sandbox, Ulimit};
use throng_runtime::Runtime;

const PATIENCE: Duration = Duration::from_secs(10);

macro_rules! needs_root {
    ($name:literal) => {
        if !is_root() {
            return skip($name, "privileges and limits can only be given by root");
        }
    };
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Starts a replica that stays and returns what a command in it prints.
async fn inside(bench: &Bench, spec: &ReplicaSpec, args: &[&str]) -> String {
    if bench.engine.observe(&bench.project).await.expect("seen").iter().all(|seen| seen.id != spec.id) {
        bench.engine.create(spec).await.expect("created");
        bench.engine.start(&spec.id, 1).await.expect("started");
    }
    exec(&bench.engine, &spec.id, &[&["/probe"], args].concat()).await.1
}

fn staying(bench: &Bench, service: &str, ordinal: u32, sandbox: Sandbox) -> ReplicaSpec {
    ReplicaSpec { sandbox, ..bench.spec(service, ordinal, &["sleep", "600"]) }
}

#[tokio::test(flavor = "multi_thread")]
async fn privileges_are_added_and_dropped() {
    needs_root!("privileges_are_added_and_dropped");
    let bench = Bench::new("engine-privileges", 60).await;
    let sandbox = Sandbox {
        cap_add: words(&["NET_ADMIN", "CHOWN"]),
        cap_drop: words(&["ALL"]),
        groups: words(&["1234", "77"]),
        ..Sandbox::default()
    };
    let mut spec = staying(&bench, "few", 1, sandbox);
    let text = inside(&bench, &spec, &["cat", "/proc/1/status", "/proc/self/status"]).await;
    for line in ["CapEff:\t0000000000001001", "CapBnd:\t0000000000001001", "Groups:\t77 1234 "] {
        assert_eq!(text.lines().filter(|l| *l == line).count(), 2, "{line:?} in\n{text}");
    }
    // Docker's rule for a user who is not root: the privileges are within reach and not held.
    spec = ReplicaSpec { sandbox: spec.sandbox.clone(), ..bench.spec("user", 2, &["sleep", "600"]) };
    spec.process.user = "1000".into();
    let text = inside(&bench, &spec, &["cat", "/proc/1/status"]).await;
    assert!(
        text.contains("CapEff:\t0000000000000000") && text.contains("CapBnd:\t0000000000001001"),
        "{text}"
    );
    let none = staying(&bench, "none", 3, Sandbox { cap_drop: words(&["ALL"]), ..Sandbox::default() });
    let text = inside(&bench, &none, &["cat", "/proc/1/status"]).await;
    assert!(text.contains("CapBnd:\t0000000000000000"), "{text}");
    let missing =
        staying(&bench, "group", 4, Sandbox { groups: words(&["nobody-has-it"]), ..Sandbox::default() });
    bench.engine.create(&missing).await.expect("created");
    let error = bench.engine.start(&missing.id, 1).await.expect_err("no such group");
    assert!(error.message.contains("no group \"nobody-has-it\""), "{error}");
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_the_kernel_are_as_asked() {
    needs_root!("limits_of_the_kernel_are_as_asked");
    let bench = Bench::new("engine-limits", 61).await;
    let parameters = [("net.core.somaxconn", "77"), ("kernel.msgmax", "4242"), ("fs.mqueue.msg_max", "11")];
    let sandbox = Sandbox {
        ulimits: [
            ("nofile".to_owned(), Ulimit { soft: Some(100), hard: Some(200) }),
            ("core".to_owned(), Ulimit { soft: Some(0), hard: None }),
        ]
        .into(),
        sysctls: parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        shm_size: Some(1 << 20),
        oom_score: Some(321),
        domain: Some("shop.example".into()),
        ..Sandbox::default()
    };
    let spec = staying(&bench, "web", 1, sandbox);
    for who in ["1", "self"] {
        let limits = inside(&bench, &spec, &["cat", &format!("/proc/{who}/limits")]).await;
        let line = |name: &str| {
            let line = limits.lines().find(|line| line.starts_with(name)).expect("a limit");
            line[name.len()..].split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(line("Max open files"), ["100", "200"], "{who}");
        assert_eq!(line("Max core file size"), ["0", "unlimited"], "{who}");
        let score = inside(&bench, &spec, &["cat", &format!("/proc/{who}/oom_score_adj")]).await;
        assert_eq!(score, "321\n", "{who}");
    }
    for (name, value) in parameters {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        assert_eq!(inside(&bench, &spec, &["cat", &path]).await, format!("{value}\n"), "{name}");
        let hosts = std::fs::read_to_string(&path).expect("the host's own");
        assert_ne!(hosts.trim(), value, "{name} of the host has changed");
    }
    assert_eq!(inside(&bench, &spec, &["cat", "/proc/sys/kernel/domainname"]).await, "shop.example\n");
    assert!(
        inside(&bench, &spec, &["cat", "/etc/hosts"])
            .await
            .contains("10.199.61.2\tweb-1.shop.example web-1\n")
    );
    assert_eq!(
        inside(&bench, &spec, &["fill", "/dev/shm/x"]).await,
        "1048576 28\n",
        "a file system of its own"
    );
    let wrong =
        Sandbox { sysctls: [("net.no.such".to_owned(), "1".to_owned())].into(), ..Sandbox::default() };
    let wrong = staying(&bench, "wrong", 2, wrong);
    bench.engine.create(&wrong).await.expect("created");
    let error = bench.engine.start(&wrong.id, 1).await.expect_err("no such parameter");
    assert!(error.message.contains("cannot set net.no.such to \"1\""), "{error}");
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shares_and_reservations_reach_the_control_group() {
    needs_root!("shares_and_reservations_reach_the_control_group");
    let bench = Bench::new("engine-shares", 62).await;
    if !bench.engine.limits_enforced() {
        bench.end().await;
        return skip("shares_and_reservations_reach_the_control_group", "no control groups");
    }
    let mut spec = staying(&bench, "web", 1, Sandbox::default());
    (spec.resources.cpu_shares, spec.resources.memory) = (Some(512), Some(64 << 20));
    spec.resources.memory_reservation = Some(32 << 20);
    spec.resources.swap = Some(Swap::Bytes(16 << 20));
    inside(&bench, &spec, &["env"]).await;
    // Version 1 has a tree for each controller.
    let read = |controller: &str, file: &str| -> Option<String> {
        let base = PathBuf::from("/sys/fs/cgroup");
        let below = format!("throng/{}/web-1/{file}", bench.project);
        [base.join(controller).join(&below), base.join(&below)]
            .iter()
            .find_map(|path| std::fs::read_to_string(path).ok())
            .map(|text| text.trim().to_owned())
    };
    let weight = read("cpu", "cpu.shares").or_else(|| read("", "cpu.weight"));
    assert!(matches!(weight.as_deref(), Some("512" | "20")), "{weight:?}");
    let low = read("memory", "memory.soft_limit_in_bytes").or_else(|| read("", "memory.low"));
    assert_eq!(low.as_deref(), Some("33554432"));
    // Not there where swap is not counted.
    if let Some(both) = read("memory", "memory.memsw.limit_in_bytes") {
        assert_eq!(both, (80u64 << 20).to_string());
    }
    if let Some(swap) = read("", "memory.swap.max") {
        assert_eq!(swap, (16u64 << 20).to_string());
    }
    bench.end().await;
}

struct Nobody;

impl Resolve for Nobody {
    fn lookup(&self, _: &str, _: &str, _: std::net::IpAddr) -> Lookup {
        Lookup::NoSuchName
    }
}

/// A name server that answers every question with its own last byte as a failure code, which no other would give.
fn odd_server(address: Ipv4Addr) -> std::io::Result<()> {
    let socket = std::net::UdpSocket::bind((address, 53))?;
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, client)) = socket.recv_from(&mut buffer) {
            buffer[2] |= 0x80;
            buffer[3] = buffer[3] & 0xf0 | 9;
            let _ = socket.send_to(&buffer[..length], client);
        }
    });
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_looked_up_as_asked() {
    needs_root!("names_are_looked_up_as_asked");
    let bench = Bench::new("engine-lookups", 63).await;
    let upstream = Ipv4Addr::new(127, 77, 63, 1);
    odd_server(upstream).expect("a name server");
    let server = serve(&bench.engine, &bench.network, Arc::new(Nobody)).await.expect("serves");
    let sandbox = Sandbox {
        hosts: vec![
            ("printer".into(), HostAddress::Address("192.0.2.9".parse().expect("an address"))),
            ("outside".into(), HostAddress::Gateway),
        ],
        dns: vec![upstream.into()],
        dns_search: words(&["a.example", "b.example"]),
        dns_options: words(&["timeout:1"]),
        ..Sandbox::default()
    };
    let own = staying(&bench, "own", 1, sandbox);
    let hosts = inside(&bench, &own, &["cat", "/etc/hosts"]).await;
    assert!(hosts.contains("192.0.2.9\tprinter\n") && hosts.contains("10.199.63.1\toutside\n"), "{hosts}");
    assert_eq!(
        inside(&bench, &own, &["cat", "/etc/resolv.conf"]).await,
        "nameserver 10.199.63.1\nsearch a.example b.example\noptions ndots:0 timeout:1\n"
    );
    let code = inside(&bench, &own, &["question", "10.199.63.1:53", "elsewhere"]).await;
    assert_eq!(code, "9\n", "the replica's own name server was asked");
    let other = staying(&bench, "other", 2, Sandbox::default());
    let code = inside(&bench, &other, &["question", "10.199.63.1:53", "elsewhere"]).await;
    assert_ne!(code, "9\n", "others ask the host's");
    drop(server);
    bench.end().await;
}

fn hook(args: &[&str]) -> Hook {
    Hook {
        command: [&["/probe"], args].concat().iter().map(|arg| (*arg).to_owned()).collect(),
        ..Hook::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hooks_run_after_the_start_and_before_the_stop() {
    needs_root!("hooks_run_after_the_start_and_before_the_stop");
    let bench = Bench::new("engine-hooks", 64).await;
    let host = bench.folder.path().join("host");
    std::fs::create_dir_all(&host).expect("a folder");
    let mut told = hook(&["env"]);
    told.environment = [("MOMENT".to_owned(), "after start".to_owned())].into();
    let mut as_user = hook(&["whoami"]);
    as_user.user = Some("1234".into());
    let sandbox = Sandbox {
        post_start: vec![hook(&["write", "/data/started", "yes"]), told, as_user],
        pre_stop: vec![hook(&["write", "/data/stopping", "yes"]), hook(&["exit", "3"])],
        ..Sandbox::default()
    };
    let mut spec = staying(&bench, "web", 1, sandbox);
    let source = ResolvedSource::Bind(host.clone());
    spec.mounts = vec![ResolvedMount { source, target: "/data".into(), read_only: false }];
    let engine = &bench.engine;
    engine.create(&spec).await.expect("created");
    engine.start(&spec.id, 1).await.expect("started");
    assert!(host.join("started").exists() && !host.join("stopping").exists());
    let log = std::fs::read_to_string(&engine.log_files(&spec.id).await.expect("a log")[0]).expect("a log");
    assert!(log.contains("MOMENT=after start\n") && log.contains("Uid:\t1234\t"), "{log}");
    engine.stop(&spec.id, 1, 15, PATIENCE).await.expect("stopped, whatever the last hook said");
    assert!(host.join("stopping").exists());
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_that_fails_or_takes_too_long() {
    needs_root!("a_hook_that_fails_or_takes_too_long");
    let bench = Bench::new("engine-bad-hooks", 65).await;
    let engine = &bench.engine;
    let failing = Sandbox { post_start: vec![hook(&["exit", "3"])], ..Sandbox::default() };
    let spec = staying(&bench, "web", 1, failing);
    engine.create(&spec).await.expect("created");
    let error = engine.start(&spec.id, 1).await.expect_err("its hook fails");
    assert!(error.message.contains("the hook `/probe exit 3` exited with code 3"), "{error}");
    let state = engine.observe(&bench.project).await.expect("seen")[0].state.clone();
    assert!(matches!(state, ReplicaState::Exited { .. }), "{state:?}");
    // A replica that is done sooner than its hooks has done what it was to do.
    let after = Sandbox { post_start: vec![hook(&["sleep", "1"]); 3], ..Sandbox::default() };
    let short = ReplicaSpec { sandbox: after, ..bench.spec("short", 2, &["exit", "0"]) };
    engine.create(&short).await.expect("created");
    let _either = engine.start(&short.id, 1).await;
    let slow = Sandbox { pre_stop: vec![hook(&["sleep", "600"])], ..Sandbox::default() };
    let spec = ReplicaSpec { sandbox: slow, ..bench.spec("slow", 3, &["sleep", "600"]) };
    engine.create(&spec).await.expect("created");
    engine.start(&spec.id, 1).await.expect("started");
    let begin = Instant::now();
    engine.stop(&spec.id, 1, 15, Duration::from_secs(2)).await.expect("stopped");
    assert!(begin.elapsed() < PATIENCE, "the hook had the grace period and no more: {:?}", begin.elapsed());
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_init_hands_signals_on_and_ends_as_the_program_does() {
    needs_root!("an_init_hands_signals_on_and_ends_as_the_program_does");
    let bench = Bench::new("engine-init", 68).await;
    let engine = &bench.engine;
    let init = || Sandbox { init: true, ..Sandbox::default() };
    // Process 1 itself would not be ended by a signal that it has not asked for.
    let mut spec = staying(&bench, "web", 1, init());
    spec.process.user = "1234".into();
    assert_eq!(inside(&bench, &spec, &["cat", "/proc/2/comm"]).await, "probe\n");
    let status = inside(&bench, &spec, &["cat", "/proc/2/status"]).await;
    assert!(status.contains("SigBlk:\t0000000000000000") && status.contains("Uid:\t1234\t"), "{status}");
    let begin = Instant::now();
    let exit = engine.stop(&spec.id, 1, 15, PATIENCE).await.expect("stopped");
    assert_eq!(exit, Exit::Code { code: 128 + 15 });
    assert!(begin.elapsed() < PATIENCE, "it was asked, not killed");
    for (ordinal, args, code) in [(2, ["exit", "7"], 7), (3, ["print", "x"], 0)] {
        let spec = ReplicaSpec { sandbox: init(), ..bench.spec("end", ordinal, &args) };
        engine.create(&spec).await.expect("created");
        engine.start(&spec.id, 1).await.expect("started");
        let exit = engine.stop(&spec.id, 1, 18, PATIENCE).await.expect("ends by itself");
        assert_eq!(exit, Exit::Code { code }, "{args:?}");
    }
    // Found by PATH, tried in turn.
    let mut spec = ReplicaSpec { sandbox: init(), ..bench.spec("path", 4, &["print", "found"]) };
    spec.process.args[0] = "probe".into();
    spec.process.env.push("PATH=/nowhere:/".into());
    engine.create(&spec).await.expect("created");
    engine.start(&spec.id, 1).await.expect("started");
    assert_eq!(engine.stop(&spec.id, 1, 18, PATIENCE).await.expect("ended"), Exit::Code { code: 0 });
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_network_there_is_only_loopback() {
    needs_root!("without_a_network_there_is_only_loopback");
    let bench = Bench::new("engine-alone", 66).await;
    let mut spec = bench.spec("alone", 1, &["serve"]);
    spec.networks.clear();
    assert_eq!(inside(&bench, &spec, &["dial", "127.0.0.1:80"]).await, "ok\n", "loopback is up");
    let text = inside(&bench, &spec, &["cat", "/proc/net/dev"]).await;
    assert!(text.contains("lo:") && !text.contains("eth0"), "{text}");
    assert!(inside(&bench, &spec, &["dial", "10.199.66.1:80"]).await.contains("unreachable"));
    assert_eq!(inside(&bench, &spec, &["cat", "/etc/resolv.conf"]).await, "");
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_system_in_memory_has_the_mode_that_was_asked_for() {
    needs_root!("a_file_system_in_memory_has_the_mode_that_was_asked_for");
    let bench = Bench::new("engine-modes", 67).await;
    let mut spec = staying(&bench, "web", 1, Sandbox::default());
    let memory = |target: &str, mode| {
        let source = ResolvedSource::Tmpfs { size: Some(1 << 16), mode };
        ResolvedMount { source, target: target.into(), read_only: false }
    };
    spec.mounts = vec![memory("/narrow", Some(0o750)), memory("/wide", None)];
    assert_eq!(inside(&bench, &spec, &["mode", "/narrow"]).await, "750 0 0\n");
    assert_eq!(inside(&bench, &spec, &["mode", "/wide"]).await, "1777 0 0\n");
    bench.end().await;
}
