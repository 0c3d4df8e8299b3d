//! A supervisor that is killed loses nobody: the next one takes its replicas over without a restart.

mod common;

use common::{Bench, first_answer, is_root, options, skip, spec};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use throng_engine::Engine;
use throng_model::replica::{Exit, NetworkSpec, ReplicaState};
use throng_runtime::Runtime;

const PATIENCE: Duration = Duration::from_secs(10);
const PROJECT: &str = "engine-adopt";
const FOLDER: &str = "THRONG_ENGINE_TEST_FOLDER";
const DOOMED: &str = "THRONG_ENGINE_TEST_DOOMED";
const DOOMED_PROJECT: &str = "engine-doomed";

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

fn doomed_network(block: u8) -> NetworkSpec {
    NetworkSpec {
        name: format!("{DOOMED_PROJECT}_default"),
        subnet: format!("10.199.{block}.0/24").parse().expect("a subnet"),
        gateway: [10, 199, block, 1].into(),
        internal: false,
    }
}

/// Not a test of its own: makes a network and starts a replica, and is killed somewhere in between. One thread does all
/// that blocks, so that its requests to the kernel can be counted.
#[test]
fn doomed_supervisor() {
    let Ok(folder) = std::env::var(DOOMED) else { return };
    let folder = Path::new(&folder);
    std::fs::write(folder.join("pid.new"), std::process::id().to_string()).expect("told");
    std::fs::rename(folder.join("pid.new"), folder.join("pid")).expect("told");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build();
    runtime.expect("a runtime").block_on(async {
        let engine = Engine::open(options(folder)).expect("opens");
        let network = doomed_network(28);
        engine.create_network(&network).await.expect("a network");
        let spec = spec(DOOMED_PROJECT, &network, "web", 1, &["serve"]);
        engine.create(&spec).await.expect("created");
        engine.start(&spec.id, 1).await.expect("started");
        std::fs::write(folder.join("ready"), "").expect("told");
        std::future::pending::<()>().await;
    });
}

/// Starts it, to be killed when a thread of it sends its `last`th request to the kernel. Tells whether it came through.
fn is_spared(folder: &Path, last: u32) -> bool {
    let mut strace = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=sendto"])
        .args(["-e", &format!("inject=sendto:signal=KILL:when={last}")])
        .arg(std::env::current_exe().expect("this program"))
        .args(["--exact", "doomed_supervisor", "--nocapture"])
        .env(DOOMED, folder)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("strace");
    let begin = Instant::now();
    let pid = loop {
        if let Ok(pid) = std::fs::read_to_string(folder.join("pid")) {
            break pid;
        }
        assert!(begin.elapsed() < PATIENCE, "strace starts nothing");
        std::thread::sleep(Duration::from_millis(1));
    };
    let lives = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    };
    let spared = loop {
        let ready = folder.join("ready").exists();
        if ready || !lives() {
            break ready;
        }
        assert!(begin.elapsed() < PATIENCE * 3, "neither killed nor ready");
        std::thread::sleep(Duration::from_millis(5));
    };
    if let Some(pid) = rustix::process::Pid::from_raw(pid.parse().expect("a number")) {
        // Dead already, unless it was spared.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
    // What it traces goes on without it.
    strace.kill().expect("SIGKILL");
    strace.wait().expect("dead");
    spared
}

fn interfaces_of_doomed() -> Vec<String> {
    use sha2::{Digest, Sha256};
    let name = doomed_network(28).name;
    let mut hash = Sha256::new();
    hash.update((name.len() as u64).to_le_bytes());
    hash.update(&name);
    let digest: String = hash.finalize().iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let entries = std::fs::read_dir("/sys/class/net").expect("interfaces").flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.starts_with(&format!("thr{digest}"))).collect()
}

/// Bridge, address, group, parents, neighbours: each is asked for in a request of its own.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_half_made_when_a_supervisor_is_killed_is_completed_or_cleaned() {
    let name = "what_is_half_made_when_a_supervisor_is_killed_is_completed_or_cleaned";
    if !is_root() {
        return skip(name, "needs root");
    }
    if let Err(error) = Command::new("strace").arg("-V").output() {
        return skip(name, &format!("strace (Debian package strace): {error}"));
    }
    common::layer();
    let killed = (1..MOST_REQUESTS).take_while(|last| {
        // As it would go on, as it does where the host has other routes meanwhile, and as it is taken down.
        let spared = [Some(28), Some(29), None].map(|block| {
            let folder = tempfile::tempdir().expect("a folder");
            let spared = is_spared(folder.path(), *last);
            let check = after_the_kill(folder.path(), block);
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(check));
            assert_eq!(interfaces_of_doomed(), Vec::<String>::new(), "killed at request {last}");
            spared
        });
        spared != [true; 3]
    });
    let killed = killed.count();
    assert!((6..MOST_REQUESTS as usize - 1).contains(&killed), "killed at {killed} places");
}

/// Far more than there are.
const MOST_REQUESTS: u32 = 40;

/// What the next supervisor finds. `block`: of the subnet that it chooses for the network; nothing if the app goes.
async fn after_the_kill(folder: &Path, block: Option<u8>) {
    let engine = Engine::open(options(folder)).expect("the next one opens");
    let observed = engine.observe(DOOMED_PROJECT).await.expect("observed");
    // Whoever has a replica of it on record knows the network, too.
    let block = block.map(|block| if observed.is_empty() { block } else { 28 });
    if let Some(block) = block {
        let network = doomed_network(block);
        engine.create_network(&network).await.expect("made, or completed");
        let spec = spec(DOOMED_PROJECT, &network, "web", 1, &["serve"]);
        engine.create(&spec).await.expect("created");
        engine.start(&spec.id, 2).await.expect("started");
        let answer = first_answer(&engine, spec.networks[0].address, PATIENCE).await;
        assert_eq!(answer.expect("an answer"), "ok\n");
    }
    engine.sweep(DOOMED_PROJECT).await.expect("swept");
    engine.remove_network(&doomed_network(28).name).await.expect("removed");
}
