//! A supervisor that is killed loses nobody: the next one takes its replicas over without a restart.

mod common;

use common::{Bench, first_answer, is_root, options, skip, spec};
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};
use throng_engine::Engine;
use throng_model::replica::{Exit, NetworkSpec, ReplicaState};
use throng_runtime::Runtime;

const PATIENCE: Duration = Duration::from_secs(10);
const PROJECT: &str = "engine-adopt";
const FOLDER: &str = "THRONG_ENGINE_TEST_FOLDER";

fn network() -> NetworkSpec {
    NetworkSpec {
        name: format!("{PROJECT}_default"),
        subnet: "10.199.20.0/24".parse().expect("a subnet"),
        gateway: "10.199.20.1".parse().expect("an address"),
        internal: false,
    }
}

/// Not a test of its own: the supervisor that the test below starts as another process, and kills.
#[tokio::test(flavor = "multi_thread")]
async fn first_supervisor() {
    let Ok(folder) = std::env::var(FOLDER) else { return };
    let folder = Path::new(&folder);
    let engine = Engine::open(options(folder)).expect("opens");
    engine.create_network(&network()).await.expect("a network");
    for (service, args) in [
        ("web", &["serve"][..]),
        ("talk", &["print-for-ever", "line"]),
        ("brief", &["sleep", "3"]),
        ("gone", &["exit", "4"]),
    ] {
        let spec = spec(PROJECT, &network(), service, address(service), args);
        engine.create(&spec).await.expect("created");
        engine.start(&spec.id, 1).await.expect("started");
    }
    std::fs::write(folder.join("ready"), "").expect("told");
    std::future::pending::<()>().await;
}

fn address(service: &str) -> u32 {
    ["web", "talk", "brief", "gone"].iter().position(|s| *s == service).map_or(9, |n| n as u32 + 1)
}

fn start_first(folder: &Path) -> Child {
    let child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "first_supervisor", "--nocapture"])
        .env(FOLDER, folder)
        .spawn()
        .expect("another process");
    let deadline = Instant::now() + PATIENCE;
    while !folder.join("ready").exists() {
        assert!(Instant::now() < deadline, "the first supervisor is not ready in time");
        std::thread::sleep(Duration::from_millis(10));
    }
    child
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_outlive_their_supervisor_and_are_taken_over() {
    if !is_root() {
        return skip("replicas_outlive_their_supervisor_and_are_taken_over", "needs root");
    }
    Bench::new(PROJECT, 20).await.end().await;
    let folder = tempfile::tempdir().expect("a folder");
    let mut first = start_first(folder.path());
    let id = |service: &str| spec(PROJECT, &network(), service, address(service), &[]).id;
    let pid_of = |service: &str| {
        let life = folder.path().join("state").join(PROJECT).join(id(service).name()).join("life.json");
        let text = std::fs::read_to_string(life).expect("its life on disk");
        serde_json::from_str::<serde_json::Value>(&text).expect("JSON")["pid"].as_u64().expect("a pid") as u32
    };
    let web = pid_of("web");
    first.kill().expect("SIGKILL");
    first.wait().expect("dead");

    let engine = Engine::open(options(folder.path())).expect("the second one opens");
    let observed = engine.observe(PROJECT).await.expect("observed");
    let state = |service: &str| {
        observed.iter().find(|o| o.id == id(service)).map(|o| o.state.clone()).expect("is known")
    };
    assert!(matches!(state("web"), ReplicaState::Running { pid, .. } if pid == web), "{:?}", state("web"));
    assert!(matches!(state("talk"), ReplicaState::Running { .. }), "{:?}", state("talk"));
    let exit = engine.stop(&id("gone"), 1, 15, PATIENCE).await.expect("it has ended meanwhile");
    eprintln!("the end that nobody saw is reported as: {exit}");
    assert!(matches!(exit, Exit::Code { code: 4 } | Exit::Unknown), "{exit:?}");
    let address = spec(PROJECT, &network(), "web", 1, &[]).networks[0].address;
    assert_eq!(first_answer(&engine, address, PATIENCE).await.expect("still answers"), "ok\n");

    let log = engine.log_files(&id("talk")).await.expect("its log").pop().expect("a file");
    let before = std::fs::metadata(&log).expect("a size").len();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(std::fs::metadata(&log).expect("a size").len() > before, "its output goes on");

    let mut events = engine.watch();
    let exit = engine.stop(&id("talk"), 1, 9, PATIENCE).await.expect("stopped");
    assert!(matches!(exit, Exit::Signal { signal: 9 } | Exit::Unknown), "{exit:?}");
    let event = tokio::time::timeout(PATIENCE, events.recv()).await.expect("in time");
    assert!(event.is_some(), "its end is told");
    engine.start(&id("gone"), 2).await.expect("an exited one starts afresh");
    engine.sweep(PROJECT).await.expect("swept");
    assert!(!folder.path().join("state").join(PROJECT).exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_description_can_be_removed() {
    if !is_root() {
        return skip("a_damaged_description_can_be_removed", "needs root");
    }
    let bench = Bench::new("engine-damaged", 21).await;
    let spec = bench.spec("web", 1, &["serve"]);
    bench.engine.create(&spec).await.expect("created");
    let file = bench.folder.path().join("state/engine-damaged/web-1/spec.json");
    let text = std::fs::read_to_string(&file).expect("the description");
    std::fs::write(&file, &text[..text.len() / 2]).expect("cut in half");
    let second = Engine::open(options(bench.folder.path())).expect("opens");
    assert_eq!(second.observe(&bench.project).await.expect("seen").len(), 1);
    let error = second.start(&spec.id, 1).await.expect_err("damaged");
    assert!(error.message.contains("damaged"), "{error}");
    second.remove(&spec.id, 1).await.expect("removed");
    assert!(second.observe(&bench.project).await.expect("seen").is_empty());
    bench.end().await;
}
