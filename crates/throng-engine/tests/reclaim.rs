//! After replicas are removed the host is as it was before, however often that is done.
//!
//! `THRONG_TEST_CYCLES` and `THRONG_TEST_REPLICAS` (3 and 100) raise the number of cycles and of replicas in each.

mod common;

use common::{bridge_of, first_answer, is_root, options, skip, spec, traces};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use throng_engine::Engine;
use throng_model::replica::NetworkSpec;
use throng_runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

const PROJECT: &str = "engine-reclaim";
const PATIENCE: Duration = Duration::from_secs(60);
const AT_ONCE: usize = 16;
/// Kilobytes by which the kernel's memory may differ: others use this host, too, and slabs are given back in pages.
const TOLERANCE: i64 = 32 << 10;
/// As above, for each replica that has been; one that leaves its network namespace behind leaves 150 or more.
const TOLERANCE_EACH: i64 = 5;

fn number(variable: &str, default: u32) -> u32 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// What grows if something is left that has no name any more.
#[derive(Debug, Clone, Copy)]
struct Held {
    /// Control groups of all hierarchies, dying ones included.
    groups: i64,
    /// Kilobytes of kernel memory that cannot be given back.
    memory: i64,
    descriptors: i64,
    folders: i64,
}

fn held(state: &Path) -> Held {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let meminfo = read("/proc/meminfo");
    let field = |name: &str| -> i64 {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse().ok()).unwrap_or(0)
    };
    let groups = read("/proc/cgroups");
    let entries = |path: &Path| std::fs::read_dir(path).into_iter().flatten().flatten().count() as i64;
    Held {
        groups: groups.lines().filter_map(|l| l.split('\t').nth(2)?.parse::<i64>().ok()).sum(),
        memory: ["SUnreclaim", "Percpu", "KernelStack", "PageTables"].into_iter().map(field).sum(),
        descriptors: entries(Path::new("/proc/self/fd")),
        folders: entries(state),
    }
}

/// Starts replicas, has each answer, and removes them.
async fn cycle(engine: &Arc<Engine>, network: &NetworkSpec, count: u32) {
    engine.create_network(network).await.expect("a network");
    let bridge = bridge_of(network).expect("a bridge");
    let gate = Arc::new(Semaphore::new(AT_ONCE));
    for start in [true, false] {
        let mut tasks = JoinSet::new();
        for ordinal in 1..=count {
            let permit = gate.clone().acquire_owned().await.expect("never closed");
            let (engine, spec) = (engine.clone(), spec(PROJECT, network, "web", ordinal, &["serve"]));
            tasks.spawn(async move {
                if start {
                    engine.create(&spec).await.expect("created");
                    engine.start(&spec.id, 1).await.expect("started");
                    let answer = first_answer(&engine, spec.networks[0].address, PATIENCE).await;
                    assert_eq!(answer.expect("an answer"), "ok\n");
                } else {
                    engine.stop(&spec.id, 1, 9, PATIENCE).await.expect("stopped");
                    engine.remove(&spec.id, 1).await.expect("removed");
                }
                drop(permit);
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.expect("an order is carried out");
        }
        if start {
            assert!(
                traces(PROJECT, &bridge).len() >= 2 * count as usize,
                "replicas leave traces while they run"
            );
        }
    }
    engine.remove_network(&network.name).await.expect("the network is removed");
    assert_eq!(traces(PROJECT, &bridge), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn cycles_leave_nothing_behind() {
    if !is_root() {
        return skip("cycles_leave_nothing_behind", "needs root");
    }
    let (cycles, count) = (number("THRONG_TEST_CYCLES", 3), number("THRONG_TEST_REPLICAS", 100));
    let folder = tempfile::tempdir().expect("a folder");
    let engine = Engine::open(options(folder.path())).expect("the engine opens");
    let network = NetworkSpec {
        name: format!("{PROJECT}_default"),
        subnet: "10.196.0.0/16".parse().expect("a subnet"),
        gateway: "10.196.0.1".parse().expect("an address"),
        internal: false,
    };
    let state = folder.path().join("state");
    // A run that was killed leaves its replicas.
    engine.sweep(PROJECT).await.expect("a clean start");
    engine.remove_network(&network.name).await.expect("none is left");
    // The first one also fills what is kept for the next: threads, slabs.
    cycle(&engine, &network, count).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = held(&state);
    for _ in 1..cycles {
        cycle(&engine, &network, count).await;
    }
    let started = i64::from(count) * i64::from(cycles.saturating_sub(1));
    // The kernel buries namespaces and groups in work of its own.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let now = held(&state);
        let fine = now.groups - before.groups < i64::from(count)
            && now.memory - before.memory < TOLERANCE + TOLERANCE_EACH * started
            && now.descriptors <= before.descriptors
            && now.folders <= before.folders;
        if fine {
            return;
        }
        assert!(Instant::now() < deadline, "after {started} replicas more: {now:?}; before: {before:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
