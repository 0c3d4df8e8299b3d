//! More replicas in one network than a bridge has ports, and networks of either kind of link.

mod common;

use common::{Bench, bridge_of, exec, first_answer, is_root, options, skip, spec};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use throng_engine::{Engine, EngineOptions};
use throng_model::replica::{NetworkSpec, ReplicaId, ReplicaSpec};
use throng_runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

const PATIENCE: Duration = Duration::from_secs(20);
/// Orders under way at a time.
const AT_ONCE: usize = 16;
/// A bridge has room for 1,023 ports.
const CROWD: u32 = 1_100;
/// What multicast DNS uses.
const GROUP: &str = "224.0.0.251";

fn network(project: &str, subnet: &str, gateway: &str) -> NetworkSpec {
    NetworkSpec {
        name: format!("{project}_default"),
        subnet: subnet.parse().expect("a subnet"),
        gateway: gateway.parse().expect("an address"),
        internal: false,
    }
}

/// Carries one order out for each of the crowd, some at a time.
async fn each<F>(ordinals: impl Iterator<Item = u32>, order: impl Fn(u32) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let gate = Arc::new(Semaphore::new(AT_ONCE));
    let mut tasks = JoinSet::new();
    for ordinal in ordinals {
        let permit = gate.clone().acquire_owned().await.expect("never closed");
        let work = order(ordinal);
        tasks.spawn(async move {
            work.await;
            drop(permit);
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("an order is carried out");
    }
}

async fn start(engine: &Engine, spec: &ReplicaSpec) {
    engine.create(spec).await.expect("created");
    engine.start(&spec.id, spec.generation).await.expect("started");
}

/// How many of the replicas have written the line.
fn heard(folder: &Path, ids: &[ReplicaId], line: &str) -> usize {
    let log = |id: &ReplicaId| folder.join("state").join(&id.project).join(id.name()).join("log");
    ids.iter()
        .filter(|id| std::fs::read_to_string(log(id)).is_ok_and(|text| text.lines().any(|l| l == line)))
        .count()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_network_carries_more_replicas_than_a_bridge_has_ports() {
    if !is_root() {
        return skip("one_network_carries_more_replicas_than_a_bridge_has_ports", "needs root");
    }
    const PROJECT: &str = "engine-crowd";
    let folder = tempfile::tempdir().expect("a folder");
    let engine = Engine::open(options(folder.path())).expect("the engine opens");
    let network = network(PROJECT, "10.198.0.0/20", "10.198.0.1");
    // A run that was killed leaves its replicas.
    engine.sweep(PROJECT).await.expect("a clean start");
    engine.remove_network(&network.name).await.expect("none is left");
    engine.create_network(&network).await.expect("a network");
    let web = |ordinal| spec(PROJECT, &network, "web", ordinal, &["hear", GROUP]);
    let ids: Vec<ReplicaId> = (1..=CROWD).map(|ordinal| web(ordinal).id).collect();
    each(1..=CROWD, |ordinal| {
        let (engine, spec) = (engine.clone(), web(ordinal));
        async move { start(&engine, &spec).await }
    })
    .await;

    each(1..=CROWD, |ordinal| {
        let (engine, address) = (engine.clone(), web(ordinal).networks[0].address);
        async move {
            let answer = first_answer(&engine, address, PATIENCE).await;
            assert_eq!(answer.unwrap_or_else(|e| panic!("{address}: {e}")), "ok\n");
        }
    })
    .await;

    // One datagram, sent once, must reach every one: those behind the sender's parent and those behind all others.
    let (exit, text) = exec(&engine, &ids[0], &["/probe", "tell", GROUP, "to-everybody"]).await;
    assert!(exit.is_success(), "{text}");
    let deadline = Instant::now() + PATIENCE;
    while heard(folder.path(), &ids, "to-everybody") < ids.len() {
        let count = heard(folder.path(), &ids, "to-everybody");
        assert!(Instant::now() < deadline, "{count} of {CROWD} have heard it");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    // The same parent, the next one, and the last one, there and back.
    for (from, to) in [(1, 2), (1, 300), (CROWD, 1)] {
        let target = format!("{}:80", web(to).networks[0].address);
        let (_, text) = exec(&engine, &web(from).id, &["/probe", "dial", &target]).await;
        assert_eq!(text, "ok\n", "from {from} to {to}");
    }
    engine.sweep(PROJECT).await.expect("swept");
}

/// What one engine has begun with a pair of interfaces for each replica goes on under one that shares parents.
#[tokio::test(flavor = "multi_thread")]
async fn replicas_with_ports_of_their_own_stay_in_reach() {
    if !is_root() {
        return skip("replicas_with_ports_of_their_own_stay_in_reach", "needs root");
    }
    const PROJECT: &str = "engine-pairs";
    Bench::new(PROJECT, 22).await.end().await;
    let folder = tempfile::tempdir().expect("a folder");
    let network = network(PROJECT, "10.199.22.0/24", "10.199.22.1");
    let web = |ordinal| spec(PROJECT, &network, "web", ordinal, &["serve"]);
    let options = || -> EngineOptions { options(folder.path()) };
    let pairs = Engine::open_with_pairs(options()).expect("the engine opens");
    assert!(pairs.lost().is_some_and(|lost| lost.contains("1,023")), "the limit is told: {:?}", pairs.lost());
    pairs.create_network(&network).await.expect("a network");
    let serving = async |engine: &Engine, ordinal: u32| {
        start(engine, &web(ordinal)).await;
        let answer = first_answer(engine, web(ordinal).networks[0].address, PATIENCE).await;
        assert_eq!(answer.expect("from the host"), "ok\n");
    };
    serving(&pairs, 1).await;
    serving(&pairs, 2).await;
    let dial = async |engine: &Engine, from: u32, to: u32| {
        let target = format!("{}:80", web(to).networks[0].address);
        exec(engine, &web(from).id, &["/probe", "dial", &target]).await.1
    };
    assert_eq!(dial(&pairs, 1, 2).await, "ok\n");
    pairs.stop(&web(2).id, 1, 9, PATIENCE).await.expect("stopped");
    pairs.remove(&web(2).id, 1).await.expect("removed");
    drop(pairs);

    let engine = Engine::open(options()).expect("another engine opens");
    assert_eq!(engine.observe(PROJECT).await.expect("observed").len(), 1);
    serving(&engine, 3).await;
    assert_eq!(dial(&engine, 3, 1).await, "ok\n");
    assert_eq!(dial(&engine, 1, 3).await, "ok\n");
    let answer = first_answer(&engine, web(1).networks[0].address, PATIENCE).await;
    assert_eq!(answer.expect("from the host"), "ok\n");
    engine.sweep(PROJECT).await.expect("swept");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_cannot_change_its_subnet() {
    if !is_root() {
        return skip("a_network_cannot_change_its_subnet", "needs root");
    }
    let bench = Bench::new("engine-subnet", 23).await;
    let other = network("engine-subnet", "10.199.24.0/24", "10.199.24.1");
    let error = bench.engine.create_network(&other).await.expect_err("it has another one");
    assert!(error.message.contains("10.199.23.0/24"), "{error}");
    // Nor where only the interfaces are left, and nothing on disk tells of them.
    let folder = tempfile::tempdir().expect("a folder");
    let forgetful = Engine::open(options(folder.path())).expect("another engine opens");
    let error = forgetful.create_network(&other).await.expect_err("its bridge has another one");
    assert!(error.message.contains("10.199.23.1/24"), "{error}");
    forgetful.create_network(&bench.network).await.expect("the same one is fine");
    bench.end().await;
}

/// The networks of `shop` are not those of `shop_old`, although their names begin alike.
#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_takes_no_other_projects_network() {
    if !is_root() {
        return skip("a_sweep_takes_no_other_projects_network", "needs root");
    }
    let (old, new) = (Bench::new("engine-shop_old", 25).await, Bench::new("engine-shop", 26).await);
    let server = new.spec("web", 1, &["serve"]);
    start(&new.engine, &server).await;
    new.engine.sweep(&new.project).await.expect("swept");
    assert!(bridge_of(&new.network).is_none(), "its own network is gone");
    assert!(bridge_of(&old.network).is_some(), "the other one is not");
    new.end().await;
    old.end().await;
}

/// The kernel takes an interface down some time after its process has ended; until then its address is in use.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_starts_again_at_once() {
    if !is_root() {
        return skip("a_replica_starts_again_at_once", "needs root");
    }
    let bench = Bench::new("engine-again", 27).await;
    let server = bench.spec("web", 1, &["serve"]);
    start(&bench.engine, &server).await;
    for generation in 2..8 {
        bench.engine.stop(&server.id, generation, 9, PATIENCE).await.expect("stopped");
        bench.engine.start(&server.id, generation).await.expect("started again");
        let answer = first_answer(&bench.engine, server.networks[0].address, PATIENCE).await;
        assert_eq!(answer.expect("an answer"), "ok\n");
    }
    bench.end().await;
}
