//! How long replicas take from the order to make them to their first answer, by the engine alone: no command, no
//! supervisor, no health check. A part of `cargo xtask bench containers`, which compares it with Docker's daemon.
//!
//! `engine_starts HOME IMAGE PORT ONE-AFTER-ANOTHER AT-ONCE TOTAL [ARGUMENT…]` takes the image from the store below
//! HOME, starts replicas of it with these arguments one after another, then TOTAL of them AT-ONCE at a time, and
//! prints `{"one_after_another_ms":[…],"at_once_ms":[…],"at_once_seconds":…}`. Needs root.

#[path = "crowd/mod.rs"]
mod crowd;
#[path = "../src/bench/probe.rs"]
mod probe;

use anyhow::{Context, Result, bail};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use throng_engine::{Engine, EngineOptions, IsolationChoice};
use throng_image::Store;
use throng_model::replica::{NetworkSpec, Process, ReplicaSpec, RootFs};
use throng_runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

const PROJECT: &str = "throng-bench-engine";
/// Room for a thousand replicas.
const SUBNET: &str = "10.197.0.0/22";
const MOST_REPLICAS: u32 = 1000;
const PATIENCE: Duration = Duration::from_secs(30);

struct Plan {
    home: PathBuf,
    image: String,
    port: u16,
    one_after_another: u32,
    at_once: usize,
    total: u32,
    arguments: Vec<String>,
}

fn main() -> Result<()> {
    let plan = parse(std::env::args().skip(1).collect())?;
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    println!("{}", runtime.block_on(run(&plan))?);
    Ok(())
}

fn parse(arguments: Vec<String>) -> Result<Plan> {
    let [home, image, port, serial, at_once, total, arguments @ ..] = arguments.as_slice() else {
        bail!("usage: engine_starts HOME IMAGE PORT ONE-AFTER-ANOTHER AT-ONCE TOTAL [ARGUMENT…]");
    };
    let plan = Plan {
        home: home.into(),
        image: image.clone(),
        port: port.parse().context("the port")?,
        one_after_another: serial.parse().context("how many one after another")?,
        at_once: at_once.parse().context("how many at once")?,
        total: total.parse().context("how many in all")?,
        arguments: arguments.to_vec(),
    };
    if plan.one_after_another.max(plan.total) > MOST_REPLICAS {
        bail!("{SUBNET} has room for {MOST_REPLICAS} replicas");
    }
    Ok(plan)
}

async fn run(plan: &Plan) -> Result<serde_json::Value> {
    // A folder of its own: it shares nothing but images with supervisors.
    let folder = plan.home.join("engine-alone");
    let engine = Engine::open(EngineOptions {
        state_dir: folder.join("state"),
        run_dir: folder.join("run"),
        isolation: IsolationChoice::Container,
    })?;
    let mut stop = signal(SignalKind::terminate())?;
    let bench = Bench::new(engine, plan)?;
    let result = tokio::select! {
        result = bench.measure(plan) => result,
        _ = stop.recv() => Err(anyhow::anyhow!("interrupted")),
    };
    // Replicas outlive their supervisor by design, so they must be removed whatever happened.
    bench.clear().await?;
    result
}

struct Bench {
    engine: Arc<Engine>,
    network: NetworkSpec,
    root: RootFs,
    process: Process,
    port: u16,
}

impl Bench {
    fn new(engine: Arc<Engine>, plan: &Plan) -> Result<Bench> {
        let store = Store::open(&plan.home.join("images"))?;
        let image = store.get(&plan.image)?;
        let layers = store.layers(&image)?;
        let mut args = image.config.entrypoint.clone().unwrap_or_default();
        args.extend(plan.arguments.iter().cloned());
        let network = crowd::network(PROJECT, SUBNET)?;
        let process =
            Process { args, env: image.config.env.clone(), cwd: "/".into(), user: image.config.user.clone() };
        let root =
            RootFs { image: image.reference.clone(), image_id: image.id.clone(), layers, read_only: false };
        Ok(Bench { engine, network, root, process, port: plan.port })
    }

    async fn measure(&self, plan: &Plan) -> Result<serde_json::Value> {
        self.clear().await?;
        self.engine.create_network(&self.network).await?;
        let mut serial = Vec::new();
        for ordinal in 1..=plan.one_after_another {
            serial.push(self.order(ordinal).run().await?);
        }
        self.clear().await?;
        self.engine.create_network(&self.network).await?;
        let begin = Instant::now();
        let together = self.start_at_once(plan).await?;
        let seconds = begin.elapsed().as_secs_f64();
        let milliseconds =
            |times: &[Duration]| times.iter().map(|t| t.as_secs_f64() * 1e3).collect::<Vec<_>>();
        Ok(serde_json::json!({
            "one_after_another_ms": milliseconds(&serial),
            "at_once_ms": milliseconds(&together),
            "at_once_seconds": seconds,
        }))
    }

    async fn clear(&self) -> Result<()> {
        self.engine.sweep(PROJECT).await?;
        Ok(self.engine.remove_network(&self.network.name).await?)
    }

    async fn start_at_once(&self, plan: &Plan) -> Result<Vec<Duration>> {
        let gate = Arc::new(Semaphore::new(plan.at_once));
        let mut tasks = JoinSet::new();
        for ordinal in 1..=plan.total {
            let permit = gate.clone().acquire_owned().await?;
            let start = self.order(ordinal);
            tasks.spawn(async move {
                let time = start.run().await;
                drop(permit);
                time
            });
        }
        let mut times = Vec::new();
        while let Some(time) = tasks.join_next().await {
            times.push(time??);
        }
        Ok(times)
    }

    fn order(&self, ordinal: u32) -> Start {
        let spec = crowd::spec(PROJECT, ordinal, &self.network, &self.root, &self.process);
        let address = spec.networks.first().map_or(Ipv4Addr::UNSPECIFIED, |leg| leg.address);
        Start { engine: self.engine.clone(), spec, address: (address, self.port).into() }
    }
}

/// One order to start, carried out and timed.
struct Start {
    engine: Arc<Engine>,
    spec: ReplicaSpec,
    address: SocketAddr,
}

impl Start {
    async fn run(self) -> Result<Duration> {
        let begin = Instant::now();
        self.engine.create(&self.spec).await?;
        self.engine.start(&self.spec.id, self.spec.generation).await?;
        tokio::task::spawn_blocking(move || probe::first_answer(self.address, PATIENCE)).await??;
        Ok(begin.elapsed())
    }
}
