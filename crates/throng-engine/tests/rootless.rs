//! Replicas of an ordinary user. Run by root, the test starts itself again as another user.

mod common;

use common::{first_answer, options, skip, spec};
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use throng_engine::{Engine, Isolation, rootless};
use throng_model::replica::{Exit, NetworkSpec, Observed, ReplicaSpec, ReplicaState};
use throng_runtime::{Runtime, RuntimeEvent};

const PATIENCE: Duration = Duration::from_secs(10);
const PROJECT: &str = "engine-rootless";
const FOLDER: &str = "THRONG_ENGINE_TEST_FOLDER";
/// An id that needs no entry in the user database.
const USER: u32 = 54_321;

fn main() {
    match std::env::var_os(FOLDER) {
        Some(folder) => as_user(Path::new(&folder)),
        None => start_as_user(),
    }
}

fn start_as_user() {
    const NAME: &str = "an_ordinary_user_runs_containers";
    if std::env::args().any(|a| a == "--list") {
        return println!("{NAME}: test");
    }
    if !common::is_root() {
        return skip(NAME, "root is needed to become another user");
    }
    common::layer();
    let folder = tempfile::tempdir().expect("a folder");
    std::os::unix::fs::chown(folder.path(), Some(USER), Some(USER)).expect("given away");
    // The build's folder may not be open to others.
    let program = folder.path().join("program");
    std::fs::copy(std::env::current_exe().expect("this program"), &program).expect("copied");
    let mut command = Command::new("setpriv");
    command.args([
        &format!("--reuid={USER}"),
        &format!("--regid={USER}"),
        "--clear-groups",
        "--inh-caps=-all",
    ]);
    command.arg(&program).env(FOLDER, folder.path()).env("XDG_RUNTIME_DIR", folder.path());
    match command.status() {
        Err(error) => skip(NAME, &format!("setpriv of util-linux cannot be run: {error}")),
        Ok(status) if status.code() == Some(REFUSED) => skip(NAME, "this host refuses user namespaces"),
        Ok(status) => assert!(status.success(), "as a user: {status}"),
    }
    println!("test {NAME} ... ok");
}

const REFUSED: i32 = 77;

fn as_user(folder: &Path) {
    if let Err(error) = rootless::enter() {
        eprintln!("{error}");
        std::process::exit(REFUSED);
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(check(folder));
    drop(runtime);
    let deadline = std::time::Instant::now() + PATIENCE;
    while keepers(folder) > 0 {
        assert!(std::time::Instant::now() < deadline, "the keeper is left");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn keepers(folder: &Path) -> usize {
    usize::from(folder.join("throng/keeper").exists())
}

async fn check(folder: &Path) {
    let engine = Engine::open(options(folder)).expect("the engine opens");
    assert_eq!(*engine.isolation(), Isolation::Container { rootless: true });
    assert_eq!(keepers(folder), 1);
    let network = NetworkSpec {
        name: format!("{PROJECT}_default"),
        subnet: "10.199.40.0/24".parse().expect("a subnet"),
        gateway: "10.199.40.1".parse().expect("an address"),
        internal: false,
    };
    engine.create_network(&network).await.expect("a network");
    let server = spec(PROJECT, &network, "web", 1, &["serve"]);
    engine.create(&server).await.expect("created");
    engine.start(&server.id, 1).await.expect("started");
    let answer = first_answer(&engine, server.networks[0].address, PATIENCE).await;
    assert_eq!(answer.expect("an answer"), "ok\n");

    let read = engine.statistics(std::slice::from_ref(&server.id)).await;
    let used = read[0].expect("it runs");
    assert!(used.memory > 0 && used.pids == 1, "measured, with or without control groups: {used:?}");

    let mut events = engine.watch();
    let look = spec(PROJECT, &network, "look", 2, &["cat", "/proc/self/status", "/etc/hostname"]);
    engine.create(&look).await.expect("created");
    engine.start(&look.id, 1).await.expect("started");
    let event = tokio::time::timeout(PATIENCE, events.recv()).await.expect("in time").expect("an event");
    assert!(matches!(event, RuntimeEvent::Exited { exit: Exit::Code { code: 0 }, .. }), "{event:?}");
    let log = engine.log_files(&look.id).await.expect("files").pop().expect("a log");
    let text = std::fs::read_to_string(log).expect("its output");
    for line in ["Seccomp:\t2", "NoNewPrivs:\t1", "Pid:\t1", "CapEff:\t00000000a00425fb", "look-2"] {
        assert!(text.lines().any(|l| l == line), "no line {line:?} in\n{text}");
    }
    // A limit that cannot be had is said in one line, once somebody has asked for it; the replica starts all the same.
    let lost = || engine.lost().unwrap_or_default();
    assert!(!lost().contains("storage_opt"), "{}", lost());
    let mut limited = spec(PROJECT, &network, "limited", 3, &["serve"]);
    limited.resources.disk = Some(16 << 20);
    engine.create(&limited).await.expect("created");
    engine.start(&limited.id, 1).await.expect("started");
    assert!(lost().contains("storage_opt") && !lost().contains('\n'), "{}", lost());
    eprintln!("lost: {:?}", engine.lost());
    a_record_that_is_cut_loses_nobody(&engine, folder, &server).await;
    engine.sweep(PROJECT).await.expect("swept");
}

/// Whether or not there are control groups to look for it in.
async fn a_record_that_is_cut_loses_nobody(engine: &Engine, folder: &Path, server: &ReplicaSpec) {
    let record = folder.join("state").join(PROJECT).join(server.id.name()).join("life.json");
    let text = std::fs::read_to_string(&record).expect("its life on disk");
    std::fs::write(&record, &text[..text.len() / 2]).expect("cut");
    let running = |observed: Vec<Observed>| {
        let found = observed.into_iter().find(|observed| observed.id == server.id).expect("is known");
        match found.state {
            ReplicaState::Running { pid, .. } => pid,
            other => panic!("{other:?}"),
        }
    };
    let second = Engine::open(options(folder)).expect("another engine");
    let before = running(engine.observe(PROJECT).await.expect("observed"));
    assert_eq!(running(second.observe(PROJECT).await.expect("observed")), before, "the same process");
    let notes = second.take_notes();
    let told = |note: &(String, String)| note.1.contains("life.json was damaged; it was found running");
    assert!(notes.iter().any(told), "{notes:?}");
}
