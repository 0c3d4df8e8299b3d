//! What a start costs while ever more replicas run: `start_curve [COUNT [AT-ONCE [BYTES]]]` starts COUNT replicas
//! (10,000), AT-ONCE (8) at a time, each with a writable layer held to BYTES (0: no limit), and prints for each thousand how many came a second and the CPU time that one took: the
//! replica's own from `clone` to its program's first rest, and the engine's. CPU times are comparable while others use
//! the host, which rates are not. Needs root.

#[path = "../tests/common/mod.rs"]
mod common;

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use throng_engine::Engine;
use throng_model::replica::NetworkSpec;
use throng_runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

const PROJECT: &str = "engine-curve";
const LINE: u32 = 1000;
/// How long a program has to reach its first rest before its CPU time is read.
const REST: Duration = Duration::from_millis(500);

fn network() -> NetworkSpec {
    NetworkSpec {
        name: format!("{PROJECT}_default"),
        subnet: "10.196.0.0/16".parse().expect("a subnet"),
        gateway: Ipv4Addr::new(10, 196, 0, 1),
        internal: false,
    }
}

/// Nanoseconds that a process has run, all its threads by now included.
fn ran(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
    text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(0)
}

fn available() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
}

fn own() -> Duration {
    let clock = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(clock.tv_sec.unsigned_abs(), clock.tv_nsec as u32)
}

async fn start(
    engine: &Arc<Engine>,
    ordinals: std::ops::RangeInclusive<u32>,
    at_once: usize,
    disk: Option<u64>,
) -> Vec<u32> {
    let gate = Arc::new(Semaphore::new(at_once));
    let mut tasks = JoinSet::new();
    for ordinal in ordinals {
        let (engine, gate) = (engine.clone(), gate.clone());
        tasks.spawn(async move {
            // The semaphore is never closed.
            let _permit = gate.acquire().await;
            let mut spec = common::spec(PROJECT, &network(), "web", ordinal, &["serve"]);
            spec.resources.disk = disk;
            engine.create(&spec).await.expect("created");
            engine.start(&spec.id, 1).await.expect("started")
        });
    }
    tasks.join_all().await
}

#[tokio::main]
async fn main() {
    let argument =
        |n: usize, default: u32| std::env::args().nth(n).and_then(|a| a.parse().ok()).unwrap_or(default);
    let (count, at_once) = (argument(1, 10_000), argument(2, 8) as usize);
    let disk = Some(u64::from(argument(3, 0))).filter(|bytes| *bytes > 0);
    let folder = tempfile::tempdir().expect("a folder");
    let engine = Engine::open(common::options(folder.path())).expect("the engine opens");
    engine.create_network(&network()).await.expect("a network");
    let mut first = 1;
    while first <= count {
        let last = (first + LINE - 1).min(count);
        let (begin, cpu) = (Instant::now(), own());
        let pids = start(&engine, first..=last, at_once, disk).await;
        let (took, cpu) = (begin.elapsed(), own() - cpu);
        tokio::time::sleep(REST).await;
        let each = |time: Duration| time.as_secs_f64() * 1e3 / pids.len() as f64;
        let ran = Duration::from_nanos(pids.iter().map(|&pid| ran(pid)).sum());
        println!(
            "{last:>6}: {:4.0}/s, CPU of the replica {:5.2} ms, of the engine {:5.2} ms; {} KB of memory are available",
            pids.len() as f64 / took.as_secs_f64(),
            each(ran),
            each(cpu),
            available(),
        );
        first = last + 1;
    }
    let begin = Instant::now();
    engine.sweep(PROJECT).await.expect("swept");
    engine.remove_network(&network().name).await.expect("removed");
    println!("removed in {:.1} s", begin.elapsed().as_secs_f64());
}
