//! Replicas as plain processes: no privilege is needed, so this runs everywhere.

mod common;

use common::{first_answer, layer, options, spec};
use std::time::Duration;
use throng_engine::{Engine, EngineOptions, Isolation, IsolationChoice};
use throng_model::replica::{Exit, NetworkSpec};
use throng_runtime::Runtime;

const PATIENCE: Duration = Duration::from_secs(10);
const PROJECT: &str = "engine-process";

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_process_is_started_watched_and_removed() {
    let folder = tempfile::tempdir().expect("a folder");
    let chosen = EngineOptions { isolation: IsolationChoice::Process, ..options(folder.path()) };
    let engine = Engine::open(chosen).expect("opens");
    assert_eq!(*engine.isolation(), Isolation::Process);
    assert!(engine.lost().expect("something").contains("THRONG_ADDRESS"));
    let network = NetworkSpec {
        name: format!("{PROJECT}_default"),
        subnet: "127.77.0.0/16".parse().expect("a subnet"),
        gateway: "127.77.0.1".parse().expect("an address"),
        internal: false,
    };
    engine.create_network(&network).await.expect("a network");
    let server = spec(PROJECT, &network, "web", 1, &["serve", "8077"]);
    engine.create(&server).await.expect("created");
    let pid = engine.start(&server.id, 1).await.expect("started");
    let program = std::fs::read_link(format!("/proc/{pid}/exe")).expect("a process");
    assert_eq!(program, layer().join("probe").canonicalize().expect("a path"));
    let address = (server.networks[0].address, 8077);
    assert_eq!(common::answer_from(&engine, address, PATIENCE).await.expect("an answer"), "ok\n");
    assert_eq!(engine.stop(&server.id, 1, 15, PATIENCE).await.expect("stopped"), Exit::Signal { signal: 15 });
    let missing = spec(PROJECT, &network, "web", 2, &[]);
    let mut missing = missing;
    missing.process.args = vec!["/nothing".into()];
    engine.create(&missing).await.expect("created");
    let error = engine.start(&missing.id, 1).await.expect_err("no such program");
    assert!(error.message.contains("no program"), "{error}");
    engine.sweep(PROJECT).await.expect("swept");
    assert!(first_answer(&engine, server.networks[0].address, Duration::ZERO).await.is_err());
}
