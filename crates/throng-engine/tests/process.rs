//! Replicas as plain processes: no privilege is needed, so this runs everywhere.

mod common;

use common::{answer_from, exec, layer, options, skip, spec};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use throng_engine::{Engine, EngineOptions, Isolation, IsolationChoice};
use throng_model::replica::{Exit, NetworkSpec, ReplicaId, ReplicaSpec, ReplicaState};
use throng_runtime::Runtime;

const PATIENCE: Duration = Duration::from_secs(10);

fn open(folder: &Path) -> Arc<Engine> {
    let chosen = EngineOptions { isolation: IsolationChoice::Process, ..options(folder) };
    Engine::open(chosen).expect("opens")
}

/// A project with a network of its own: 127.77.`number`.0/24.
struct Plain {
    folder: tempfile::TempDir,
    engine: Arc<Engine>,
    project: String,
    network: NetworkSpec,
}

impl Plain {
    async fn new(project: &str, number: u8) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let engine = open(folder.path());
        let network = NetworkSpec {
            name: format!("{project}_default"),
            subnet: format!("127.77.{number}.0/24").parse().expect("a subnet"),
            gateway: [127, 77, number, 1].into(),
            internal: false,
        };
        engine.create_network(&network).await.expect("a network");
        Plain { folder, engine, project: project.into(), network }
    }

    async fn start(&self, ordinal: u32, args: &[&str]) -> ReplicaSpec {
        let mut spec = spec(&self.project, &self.network, "web", ordinal, args);
        spec.process.env.push(format!("ANSWER=web-{ordinal}"));
        self.engine.create(&spec).await.expect("created");
        self.engine.start(&spec.id, 1).await.expect("started");
        spec
    }

    /// What the replica's server answers at its own address, once it does.
    async fn answer(&self, spec: &ReplicaSpec, port: u16) -> String {
        let address = (spec.networks[0].address, port);
        match answer_from(&self.engine, address, PATIENCE).await {
            Ok(answer) => answer,
            Err(error) => panic!("{} at {address:?}: {error}\n{}", spec.id, self.log(&spec.id).await),
        }
    }

    async fn log(&self, id: &ReplicaId) -> String {
        let file = self.engine.log_files(id).await.expect("files").pop().expect("a log");
        std::fs::read_to_string(file).expect("its output")
    }

    async fn end(self) {
        self.engine.sweep(&self.project).await.expect("swept");
    }
}

/// Whether this host lets replicas have a loopback of their own.
fn loopbacks(name: &str, engine: &Engine) -> bool {
    let lost = engine.lost().expect("something");
    let missing = lost.contains("THRONG_ADDRESS");
    if missing {
        skip(name, &lost);
    }
    !missing
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_process_is_started_watched_and_removed() {
    let plain = Plain::new("engine-process", 0).await;
    assert_eq!(*plain.engine.isolation(), Isolation::Process);
    let lost = plain.engine.lost().expect("something");
    assert!(
        lost.contains("plain processes") && !lost.contains('\n') && !lost.contains("storage_opt"),
        "{lost}"
    );
    let mut limited = spec(&plain.project, &plain.network, "web", 8, &["serve"]);
    limited.resources.disk = Some(16 << 20);
    plain.engine.create(&limited).await.expect("created");
    let lost = plain.engine.lost().expect("something");
    assert!(lost.contains("storage_opt") && !lost.contains('\n'), "{lost}");
    let server = plain.start(1, &["serve", "0.0.0.0:8077"]).await;
    assert_eq!(plain.answer(&server, 8077).await, "web-1\n");
    let observed = plain.engine.observe(&plain.project).await.expect("seen");
    let ReplicaState::Running { pid, .. } = observed[0].state else { panic!("{observed:?}") };
    let program = std::fs::read_link(format!("/proc/{pid}/exe")).expect("a process");
    assert_eq!(program, layer().join("probe").canonicalize().expect("a path"));
    let (_, environment) = exec(&plain.engine, &server.id, &["/probe", "env"]).await;
    for line in ["GREETING=hello", "HOSTNAME=web-1", "THRONG_ADDRESS=127.77.0.2"] {
        assert!(environment.lines().any(|l| l == line), "no line {line:?} in\n{environment}");
    }
    assert_eq!(exec(&plain.engine, &server.id, &["/probe", "exit", "5"]).await.0, Exit::Code { code: 5 });
    let exit = plain.engine.stop(&server.id, 1, 15, PATIENCE).await.expect("stopped");
    assert_eq!(exit, Exit::Signal { signal: 15 });
    plain.engine.start(&server.id, 2).await.expect("an exited one starts afresh");
    assert_eq!(plain.answer(&server, 8077).await, "web-1\n");
    let mut missing = spec(&plain.project, &plain.network, "web", 2, &[]);
    missing.process.args = vec!["/nothing".into()];
    plain.engine.create(&missing).await.expect("created");
    let error = plain.engine.start(&missing.id, 1).await.expect_err("no such program");
    assert!(error.message.contains("no program"), "{error}");
    let (engine, address) = (plain.engine.clone(), (server.networks[0].address, 8077));
    plain.end().await;
    assert!(answer_from(&engine, address, Duration::ZERO).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_listen_on_the_same_port_side_by_side() {
    let plain = Plain::new("engine-side", 1).await;
    if !loopbacks("many_listen_on_the_same_port_side_by_side", &plain.engine) {
        return;
    }
    let mut servers = Vec::new();
    for (ordinal, args) in (1..).zip([
        ["serve", "0.0.0.0:8078"],
        ["serve", "127.0.0.1:8078"],
        ["serve", "[::]:8078"],
        ["serve", "[::1]:8078"],
        ["serve-both", "8078"],
        ["serve", "0.0.0.0:8078"],
    ]) {
        servers.push((ordinal, plain.start(ordinal, &args).await));
    }
    for (ordinal, server) in &servers {
        assert_eq!(plain.answer(server, 8078).await, format!("web-{ordinal}\n"));
        for loopback in ["127.0.0.1:8078", "[::1]:8078"] {
            let (_, answer) = exec(&plain.engine, &server.id, &["/probe", "dial", loopback]).await;
            assert_eq!(answer, format!("web-{ordinal}\n"), "its own loopback, {loopback}");
        }
    }
    plain.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn datagrams_find_their_replica_too() {
    let plain = Plain::new("engine-datagrams", 2).await;
    if !loopbacks("datagrams_find_their_replica_too", &plain.engine) {
        return;
    }
    for ordinal in 1..=2 {
        let server = plain.start(ordinal, &["echo", "0.0.0.0:8079"]).await;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (_, answer) = exec(&plain.engine, &server.id, &["/probe", "ask", "127.0.0.1:8079"]).await;
            if answer == format!("web-{ordinal}\n") {
                break;
            }
            assert!(Instant::now() < deadline, "{answer}");
        }
    }
    plain.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hosts_loopback_stays_in_reach() {
    let plain = Plain::new("engine-host", 3).await;
    let host = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = host.local_addr().expect("an address").to_string();
    let served = std::thread::spawn(move || {
        let (mut stream, _) = host.accept().expect("a client");
        std::io::Write::write_all(&mut stream, b"the host\n").expect("written");
    });
    let replica = plain.start(1, &["sleep", "100"]).await;
    let (_, answer) = exec(&plain.engine, &replica.id, &["/probe", "dial", &address]).await;
    assert_eq!(answer, "the host\n");
    served.join().expect("served");
    let (_, refused) = exec(&plain.engine, &replica.id, &["/probe", "dial", "127.0.0.1:9"]).await;
    assert!(refused.contains("refused"), "{refused}");
    plain.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_outlives_its_supervisor_still_has_its_loopback() {
    let mut plain = Plain::new("engine-outlive", 4).await;
    if !loopbacks("what_outlives_its_supervisor_still_has_its_loopback", &plain.engine) {
        return;
    }
    let early = plain.start(1, &["serve", "0.0.0.0:8080"]).await;
    assert_eq!(plain.answer(&early, 8080).await, "web-1\n");
    let late = plain.start(2, &["later", "2", "serve", "0.0.0.0:8080"]).await;
    let before = helpers();
    assert!(!before.is_empty(), "somebody answers for the replicas");
    plain.engine = open(plain.folder.path());
    assert_eq!(plain.engine.observe(&plain.project).await.expect("taken over").len(), 2);
    let (_, answer) = exec(&plain.engine, &early.id, &["/probe", "dial", "127.0.0.1:8080"]).await;
    assert_eq!(answer, "web-1\n");
    assert_eq!(plain.answer(&late, 8080).await, "web-2\n", "it listens only after its supervisor has gone");
    let engine = plain.engine.clone();
    plain.end().await;
    drop(engine);
}

/// Processes that answer for replicas of this test program's engines.
fn helpers() -> Vec<u32> {
    let own = std::process::id();
    let status = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        let status = status(*pid);
        status.contains("Name:\tthrong-address\n") && status.contains(&format!("PPid:\t{own}\n"))
    })
    .collect()
}
