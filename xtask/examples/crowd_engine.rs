//! How many replicas one network of the engine carries, and what each costs: no command, no supervisor.
//!
//! `crowd_engine [COUNT [AT-ONCE [PORT PROGRAM [ARGUMENT…]]]]` starts COUNT replicas (1000) of a static program, AT-ONCE
//! (8) at a time, in one network; has each answer on its own address; stops and removes them and the network; and tells
//! what every step took and what is left. Without PROGRAM it makes one of `static_server.rs`. Needs root.

#[path = "crowd/mod.rs"]
mod crowd;

use anyhow::{Context, Result, bail};
use crowd::{Memory, Traces, quantile};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use throng_engine::{Engine, EngineOptions, IsolationChoice};
use throng_model::replica::{NetworkSpec, Process, ReplicaSpec, RootFs};
use throng_runtime::Runtime;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

const PROJECT: &str = "throng-crowd-engine";
const SUBNET: &str = "10.192.0.0/16";
const MOST_REPLICAS: u32 = 65_000;
/// Replicas of one line of the report.
const LINE: u32 = 500;
/// Connections at the same time when all are asked.
const ASKING: usize = 64;
const PATIENCE: Duration = Duration::from_secs(30);
/// Orders to remove at the same time.
const REMOVING: usize = 64;
/// Programs of which the memory of one is taken.
const ALONE: u32 = 200;
/// Of the statistics of all; the quickest counts.
const READINGS: usize = 5;
/// How long the kernel may take to give back the rest after the last removal has been reported.
const RECLAIM: Duration = Duration::from_secs(60);

struct Plan {
    count: u32,
    at_once: usize,
    port: u16,
    program: Option<PathBuf>,
    arguments: Vec<String>,
}

fn main() -> Result<()> {
    let plan = parse(&std::env::args().skip(1).collect::<Vec<_>>())?;
    tokio::runtime::Runtime::new().context("cannot start the runtime")?.block_on(run(&plan))
}

fn parse(arguments: &[String]) -> Result<Plan> {
    let number = |place: usize, default: u32| match arguments.get(place) {
        Some(text) => text.parse().with_context(|| format!("{text:?} is not a number")),
        None => Ok(default),
    };
    let plan = Plan {
        count: number(0, 1000)?,
        at_once: number(1, 8)? as usize,
        port: u16::try_from(number(2, 8080)?).context("the port")?,
        program: arguments.get(3).map(PathBuf::from),
        arguments: arguments.get(4..).unwrap_or_default().to_vec(),
    };
    if plan.count > MOST_REPLICAS {
        bail!("{SUBNET} has room for {MOST_REPLICAS} replicas");
    }
    Ok(plan)
}

async fn run(plan: &Plan) -> Result<()> {
    let folder = tempfile::tempdir().context("cannot make a folder")?;
    let (program, arguments) = match &plan.program {
        Some(program) => (program.clone(), plan.arguments.clone()),
        None => (crowd::static_server(folder.path())?, vec![plan.port.to_string()]),
    };
    let alone = memory_alone(&program)?;
    println!("the program alone: {alone}");
    let (root, process) = crowd::image(folder.path(), &program, &arguments)?;
    let engine = Engine::open(EngineOptions {
        state_dir: folder.path().join("state"),
        run_dir: folder.path().join("run"),
        isolation: IsolationChoice::Container,
    })?;
    if let Some(lost) = engine.lost() {
        println!("{lost}");
    }
    let bench = Bench {
        engine,
        network: crowd::network(PROJECT, SUBNET)?,
        root,
        process,
        port: plan.port,
        state: folder.path().join("state"),
    };
    let mut stop = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let result = tokio::select! {
        result = bench.measure(plan) => result,
        _ = stop.recv() => Err(anyhow::anyhow!("interrupted")),
        _ = interrupt.recv() => Err(anyhow::anyhow!("interrupted")),
    };
    if result.is_err() {
        // Replicas outlive their supervisor by design, so they must be removed whatever happened.
        bench.remove_all(plan.count).await?;
    }
    result
}

/// What a plain process of the program takes of the host's memory. It waits for a connection that never comes, or ends
/// for want of its port; then it is stopped before.
fn memory_alone(program: &std::path::Path) -> Result<String> {
    crowd::drop_caches()?;
    let before = Memory::read()?;
    let start = |number: u32| {
        let port = (40_000 + number).to_string();
        Command::new(program).arg(port).stdin(Stdio::null()).stderr(Stdio::null()).spawn()
    };
    let mut children = (0..ALONE).map(start).collect::<std::io::Result<Vec<Child>>>()?;
    std::thread::sleep(Duration::from_millis(500));
    let text = Memory::read()?.each_since(&before, ALONE);
    for child in &mut children {
        child.kill()?;
        child.wait()?;
    }
    Ok(text)
}

struct Bench {
    engine: Arc<Engine>,
    network: NetworkSpec,
    root: RootFs,
    process: Process,
    port: u16,
    state: PathBuf,
}

impl Bench {
    async fn measure(&self, plan: &Plan) -> Result<()> {
        crowd::drop_caches()?;
        let (memory, overflows) = (Memory::read()?, neighbour_overflows());
        self.engine.create_network(&self.network).await?;
        self.start_all(plan, &memory).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        println!("{} running: {}", plan.count, Memory::read()?.each_since(&memory, plan.count));
        println!("descriptors of this process: {}", std::fs::read_dir("/proc/self/fd")?.count());
        println!("{:?}", self.traces()?);
        self.ask_all(plan.count).await?;
        println!("times that the table of neighbours was full: {}", neighbour_overflows() - overflows);
        self.statistics(plan.count).await;
        let begin = Instant::now();
        self.remove_all(plan.count).await?;
        println!("removed {} and the network in {:.2} s", plan.count, begin.elapsed().as_secs_f64());
        self.reclaimed(&memory).await
    }

    fn spec(&self, ordinal: u32) -> ReplicaSpec {
        crowd::spec(PROJECT, ordinal, &self.network, &self.root, &self.process)
    }

    fn address(&self, ordinal: u32) -> SocketAddr {
        (Ipv4Addr::from(u32::from(self.network.gateway) + ordinal), self.port).into()
    }

    async fn start_all(&self, plan: &Plan, before: &Memory) -> Result<()> {
        let gate = Arc::new(Semaphore::new(plan.at_once));
        let whole = Instant::now();
        let mut first = 1;
        while first <= plan.count {
            let last = (first + LINE - 1).min(plan.count);
            let (begin, cpu) = (Instant::now(), cpu_time());
            let mut tasks = JoinSet::new();
            for ordinal in first..=last {
                let permit = gate.clone().acquire_owned().await?;
                let (engine, spec) = (self.engine.clone(), self.spec(ordinal));
                tasks.spawn(async move {
                    let begin = Instant::now();
                    engine.create(&spec).await?;
                    engine.start(&spec.id, spec.generation).await?;
                    drop(permit);
                    anyhow::Ok(begin.elapsed())
                });
            }
            let mut times = Vec::new();
            while let Some(time) = tasks.join_next().await {
                times.push(time??);
            }
            let mean = times.iter().sum::<Duration>().as_secs_f64() * 1e3 / times.len() as f64;
            println!(
                "{last:>6}: {:4.0}/s, mean {mean:5.2} ms, p99 {:6.2} ms, own CPU {:.2} ms each; {}",
                f64::from(last - first + 1) / begin.elapsed().as_secs_f64(),
                quantile(&mut times, 0.99),
                (cpu_time() - cpu).as_secs_f64() * 1e3 / times.len() as f64,
                Memory::read()?.each_since(before, last),
            );
            first = last + 1;
        }
        let seconds = whole.elapsed().as_secs_f64();
        println!("started {} in {seconds:.2} s: {:.0}/s", plan.count, f64::from(plan.count) / seconds);
        Ok(())
    }

    async fn ask_all(&self, count: u32) -> Result<()> {
        let gate = Arc::new(Semaphore::new(ASKING));
        let begin = Instant::now();
        let mut tasks = JoinSet::new();
        for ordinal in 1..=count {
            let permit = gate.clone().acquire_owned().await?;
            let address = self.address(ordinal);
            tasks.spawn(async move {
                let begin = Instant::now();
                let asked = tokio::time::timeout(PATIENCE, ask(address)).await;
                drop(permit);
                asked.map_err(anyhow::Error::from).and_then(|r| r).with_context(|| address.to_string())?;
                anyhow::Ok(begin.elapsed())
            });
        }
        let (mut times, mut failures) = (Vec::new(), Vec::new());
        while let Some(time) = tasks.join_next().await {
            match time? {
                Ok(time) => times.push(time),
                Err(failure) => failures.push(failure),
            }
        }
        println!(
            "{} of {count} answered in {:.2} s: median {:.2} ms, p99 {:.2} ms, longest {:.2} ms",
            times.len(),
            begin.elapsed().as_secs_f64(),
            quantile(&mut times, 0.5),
            quantile(&mut times, 0.99),
            quantile(&mut times, 1.0),
        );
        match failures.first() {
            Some(failure) => bail!("{} did not answer; the first: {failure:#}", failures.len()),
            None => Ok(()),
        }
    }

    async fn statistics(&self, count: u32) {
        let ids: Vec<_> = (1..=count).map(|ordinal| self.spec(ordinal).id).collect();
        let (mut took, mut used, mut found) = (Duration::MAX, Duration::MAX, Vec::new());
        for _ in 0..READINGS {
            let (begin, cpu) = (Instant::now(), cpu_time());
            found = self.engine.statistics(&ids).await;
            (took, used) = (took.min(begin.elapsed()), used.min(cpu_time() - cpu));
        }
        let received: u64 = found.iter().flatten().map(|s| s.network_received).sum();
        println!(
            "statistics of {}: {:.0} ms, CPU {:.0} ms; {received} bytes received by all",
            found.iter().flatten().count(),
            took.as_secs_f64() * 1e3,
            used.as_secs_f64() * 1e3,
        );
    }

    async fn remove_all(&self, count: u32) -> Result<()> {
        let gate = Arc::new(Semaphore::new(REMOVING));
        let begin = Instant::now();
        let mut tasks = JoinSet::new();
        for ordinal in 1..=count {
            let permit = gate.clone().acquire_owned().await?;
            let (engine, id) = (self.engine.clone(), self.spec(ordinal).id);
            tasks.spawn(async move {
                let stopped = engine.stop(&id, 1, 15, Duration::ZERO).await;
                if stopped.is_ok() {
                    engine.remove(&id, 1).await?;
                }
                drop(permit);
                anyhow::Ok(())
            });
        }
        while let Some(done) = tasks.join_next().await {
            done??;
        }
        println!("stopped and removed replicas in {:.2} s", begin.elapsed().as_secs_f64());
        Ok(self.engine.remove_network(&self.network.name).await?)
    }

    fn traces(&self) -> Result<Traces> {
        Traces::read(PROJECT, &self.network, &self.state)
    }

    /// Waits until nothing of the replicas is left on the host, and tells how long that took and what memory is not
    /// given back.
    async fn reclaimed(&self, memory: &Memory) -> Result<()> {
        let begin = Instant::now();
        while self.traces()? != Traces::default() && begin.elapsed() < RECLAIM {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let waited = begin.elapsed();
        crowd::drop_caches()?;
        let left = Memory::read()?;
        println!(
            "after {:.2} s more: {:?}; {:.1} MB of memory are missing, of them {:.1} MB slab",
            waited.as_secs_f64(),
            self.traces()?,
            (memory.available - left.available) as f64 / 1e3,
            (left.slab - memory.slab) as f64 / 1e3,
        );
        match self.traces()? == Traces::default() {
            true => Ok(()),
            false => bail!("something is left"),
        }
    }
}

async fn ask(address: SocketAddr) -> Result<()> {
    const WANTED: &[u8] = b"HTTP/1.1 200 ";
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    stream
        .write_all(
            format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").as_bytes(),
        )
        .await?;
    let mut start = [0; WANTED.len()];
    stream.read_exact(&mut start).await?;
    if start != *WANTED {
        bail!("it answers {:?}", String::from_utf8_lossy(&start));
    }
    Ok(())
}

/// `table_fulls` of all CPUs, the last column of the kernel's statistics.
fn neighbour_overflows() -> u64 {
    let text = std::fs::read_to_string("/proc/net/stat/arp_cache").unwrap_or_default();
    let last = |line: &str| u64::from_str_radix(line.split_ascii_whitespace().last()?, 16).ok();
    text.lines().skip(1).filter_map(last).sum()
}

/// CPU time of this process and of the children it has waited for.
fn cpu_time() -> Duration {
    let clock = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(clock.tv_sec.unsigned_abs(), clock.tv_nsec as u32)
}
