//! What it costs to read what replicas use: by source and way of reading, and by the engine as a whole.
//!
//! `readings [COUNT [ROUNDS]]` starts COUNT (1000) replicas of `static_server.rs` in one network and reads all of them
//! ROUNDS (10) times in each way: first idle ones, then with a request to each of them before every round. It prints
//! microseconds of CPU time for each replica, of the quickest round and of the median one. Needs root.

#[path = "crowd/mod.rs"]
mod crowd;

use anyhow::{Context, Result};
use rustix::fs::{Mode, OFlags};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use throng_engine::{Engine, EngineOptions, IsolationChoice};
use throng_model::replica::{NetworkSpec, Process, ReplicaId, ReplicaSpec, ReplicaState, RootFs};
use throng_runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

const PROJECT: &str = "throng-readings";
const SUBNET: &str = "10.193.0.0/16";
const PORT: u16 = 8080;
const AT_ONCE: usize = 8;

fn main() -> Result<()> {
    let number = |place: usize, default: u32| match std::env::args().nth(place) {
        Some(text) => text.parse().with_context(|| format!("{text:?} is not a number")),
        None => Ok(default),
    };
    let (count, rounds) = (number(1, 1000)?, number(2, 10)?);
    tokio::runtime::Runtime::new().context("cannot start the runtime")?.block_on(run(count, rounds))
}

async fn run(count: u32, rounds: u32) -> Result<()> {
    let folder = tempfile::tempdir().context("cannot make a folder")?;
    let program = crowd::static_server(folder.path())?;
    let (root, process) = crowd::image(folder.path(), &program, &[PORT.to_string()])?;
    let engine = Engine::open(EngineOptions {
        state_dir: folder.path().join("state"),
        run_dir: folder.path().join("run"),
        isolation: IsolationChoice::Container,
    })?;
    let bench = Bench { engine, network: crowd::network(PROJECT, SUBNET)?, root, process };
    let (mut stop, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let result = tokio::select! {
        result = bench.measure(count, rounds) => result,
        _ = stop.recv() => Err(anyhow::anyhow!("interrupted")),
        _ = interrupt.recv() => Err(anyhow::anyhow!("interrupted")),
    };
    // Replicas outlive their supervisor by design, so they must be removed whatever happened.
    bench.engine.sweep(PROJECT).await?;
    result
}

struct Bench {
    engine: Arc<Engine>,
    network: NetworkSpec,
    root: RootFs,
    process: Process,
}

impl Bench {
    fn spec(&self, ordinal: u32) -> ReplicaSpec {
        crowd::spec(PROJECT, ordinal, &self.network, &self.root, &self.process)
    }

    async fn measure(&self, count: u32, rounds: u32) -> Result<()> {
        self.engine.create_network(&self.network).await?;
        let gate = Arc::new(Semaphore::new(AT_ONCE));
        let mut tasks = JoinSet::new();
        for ordinal in 1..=count {
            let permit = gate.clone().acquire_owned().await?;
            let (engine, spec) = (self.engine.clone(), self.spec(ordinal));
            tasks.spawn(async move {
                engine.create(&spec).await?;
                engine.start(&spec.id, spec.generation).await?;
                drop(permit);
                anyhow::Ok(())
            });
        }
        while let Some(done) = tasks.join_next().await {
            done??;
        }
        let observed = self.engine.observe(PROJECT).await?;
        let running: Vec<(ReplicaId, u32)> = observed
            .into_iter()
            .filter_map(|replica| match replica.state {
                ReplicaState::Running { pid, .. } => Some((replica.id, pid)),
                _ => None,
            })
            .collect();
        println!("{} replicas run; µs of CPU time for each: quickest round, median round", running.len());
        tokio::task::block_in_place(|| sources(&running, rounds));
        let ids: Vec<ReplicaId> = running.iter().map(|(id, _)| id.clone()).collect();
        self.engine_readings("the engine, idle replicas", &ids, rounds, false).await;
        self.engine_readings("the engine, replicas that each had a request", &ids, rounds, true).await;
        println!("descriptors of this process: {}", std::fs::read_dir("/proc/self/fd")?.count());
        Ok(())
    }

    /// A round each second, as the supervisor has it.
    async fn engine_readings(&self, what: &str, ids: &[ReplicaId], rounds: u32, busy: bool) {
        let (mut costs, mut ages) = (Vec::new(), Vec::new());
        let mut turn = tokio::time::interval(Duration::from_secs(1));
        // In the first round all are read in full.
        for round in 0..=rounds {
            turn.tick().await;
            if busy {
                let addresses: Vec<SocketAddr> = ids.iter().map(|id| self.address(id.ordinal)).collect();
                tokio::task::block_in_place(|| addresses.iter().for_each(|address| ask(*address)));
            }
            let before = cpu_time();
            let found = self.engine.statistics(ids).await;
            let cost = cpu_time() - before;
            ages = found.iter().flatten().map(|one| one.age).collect();
            assert_eq!(found.iter().flatten().count(), ids.len(), "all are read");
            if round == 0 {
                println!("{what}: {:.1} in the first round", each(cost, ids.len()));
            } else {
                costs.push(cost);
            }
        }
        report(what, costs, ids.len());
        ages.sort_unstable();
        let age = |part: usize| {
            ages.get(ages.len() * part / 100).or(ages.last()).map_or(0.0, Duration::as_secs_f64)
        };
        println!(
            "after {rounds} s all but CPU time is {:.1} s old (median), {:.1} s (nine in ten), {:.1} s (oldest)",
            age(50),
            age(90),
            age(100)
        );
    }

    fn address(&self, ordinal: u32) -> SocketAddr {
        (Ipv4Addr::from(u32::from(self.network.gateway) + ordinal), PORT).into()
    }
}

/// A request, so that there is something new to read. One that fails leaves a replica idle, which the figures show.
fn ask(address: SocketAddr) {
    let _ = TcpStream::connect(address).and_then(|mut stream| {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n")?;
        stream.read_to_end(&mut Vec::new())
    });
}

/// Each source by itself: opened anew for each reading, and kept open.
fn sources(running: &[(ReplicaId, u32)], rounds: u32) {
    let group = |controller: &str, id: &ReplicaId, file: &str| {
        PathBuf::from(format!("/sys/fs/cgroup/{controller}/throng/{PROJECT}/{}/{file}", id.name()))
    };
    type PathOf<'a> = Box<dyn Fn(&ReplicaId, u32) -> PathBuf + 'a>;
    let sources: [(&str, PathOf); 6] = [
        ("cpuacct.usage", Box::new(|id, _| group("cpuacct", id, "cpuacct.usage"))),
        ("pids.current", Box::new(|id, _| group("pids", id, "pids.current"))),
        ("/proc/PID/stat", Box::new(|_, pid| format!("/proc/{pid}/stat").into())),
        ("/proc/PID/statm", Box::new(|_, pid| format!("/proc/{pid}/statm").into())),
        ("/proc/PID/io", Box::new(|_, pid| format!("/proc/{pid}/io").into())),
        ("/proc/PID/net/dev", Box::new(|_, pid| format!("/proc/{pid}/net/dev").into())),
    ];
    let mut buffer = [0u8; 4096];
    for (name, path_of) in &sources {
        let paths: Vec<PathBuf> = running.iter().map(|(id, pid)| path_of(id, *pid)).collect();
        let open = |path: &PathBuf| rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let costs = measure(rounds, || {
            for file in paths.iter().filter_map(|path| open(path).ok()) {
                let _ = rustix::io::read(&file, &mut buffer);
            }
        });
        report(&format!("{name}, opened each time"), costs, running.len());
        let files: Vec<OwnedFd> = paths.iter().filter_map(|path| open(path).ok()).collect();
        let costs = measure(rounds, || {
            for file in &files {
                let _ = rustix::io::pread(file, &mut buffer, 0);
            }
        });
        report(&format!("{name}, kept open ({} descriptors)", files.len()), costs, running.len());
    }
}

fn measure(rounds: u32, mut work: impl FnMut()) -> Vec<Duration> {
    work();
    let timed = (0..rounds).map(|_| {
        let before = cpu_time();
        work();
        cpu_time() - before
    });
    timed.collect()
}

fn each(cost: Duration, count: usize) -> f64 {
    cost.as_secs_f64() * 1e6 / count.max(1) as f64
}

fn report(what: &str, mut costs: Vec<Duration>, count: usize) {
    costs.sort_unstable();
    let (Some(least), Some(median)) = (costs.first(), costs.get(costs.len() / 2)) else { return };
    println!("{what:<52} {:>6.2} {:>6.2}", each(*least, count), each(*median, count));
}

/// CPU time of this process and of the children it has waited for.
fn cpu_time() -> Duration {
    let clock = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(clock.tv_sec.unsigned_abs(), clock.tv_nsec as u32)
}
