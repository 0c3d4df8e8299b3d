//! Carrying out steps. Each is a task of its own that decides nothing and reports how it went.

use crate::autoscale::Gathered;
use crate::probe::{self, Patient};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};
use throng_control::health::Question;
use throng_model::app::HealthCheck;
use throng_model::replica::{Exit, ReplicaId, ReplicaSpec, Statistics};
use throng_proxy::Proxy;
use throng_runtime::{ErrorKind, Runtime, RuntimeError};

/// Rest after a replica could not be let go.
const RETIRE_AGAIN: Duration = Duration::from_secs(1);

/// Service and ordinal.
pub type Key = (String, u32);

pub enum Outcome {
    Launched {
        key: Key,
        generation: u64,
        took: Duration,
        result: Result<u32, RuntimeError>,
    },
    Retired {
        key: Key,
        result: Result<(), RuntimeError>,
    },
    /// One that was to end and stay where it is.
    Ended {
        key: Key,
        generation: u64,
        result: Result<Exit, RuntimeError>,
    },
    Probed {
        key: Key,
        generation: u64,
        question: Question,
        took: Duration,
        result: Result<(), String>,
    },
    Sampled {
        at: Instant,
        samples: Vec<(ReplicaId, Option<Statistics>)>,
    },
    /// For an autoscaler; `looks`: it is to decide. Nothing if it could not be done at all.
    Gathered {
        service: String,
        looks: bool,
        gathered: Option<Gathered>,
    },
}

/// A step that panics, at a thread that the host refuses (tokio) if not by a defect, has failed like any other. Else its
/// replica would be busy for ever.
async fn whole<T: Send + 'static>(
    step: impl Future<Output = Result<T, RuntimeError>> + Send + 'static,
) -> Result<T, RuntimeError> {
    tokio::spawn(step).await.unwrap_or_else(|error| {
        let message = format!("the step ended abnormally: {error}");
        Err(RuntimeError::new(ErrorKind::Host, message).hint("see the supervisor's log"))
    })
}

pub async fn launch(runtime: Arc<dyn Runtime>, key: Key, spec: ReplicaSpec) -> Outcome {
    let (generation, begin) = (spec.generation, Instant::now());
    let result = whole(async move {
        runtime.create(&spec).await?;
        runtime.start(&spec.id, generation).await
    });
    let result = result.await;
    Outcome::Launched { key, generation, took: begin.elapsed(), result }
}

/// Everything needed to let a replica go.
pub struct Retirement {
    pub id: ReplicaId,
    pub generation: u64,
    pub signal: i32,
    pub grace: Duration,
    pub proxies: Vec<Arc<Proxy>>,
}

/// Waits for its requests to end (no longer than its grace period), stops it, removes it.
pub async fn retire(runtime: Arc<dyn Runtime>, key: Key, order: Retirement) -> Outcome {
    let name = order.id.name();
    let begin = Instant::now();
    for proxy in &order.proxies {
        let left = order.grace.saturating_sub(begin.elapsed());
        if !proxy.drained(&name, left).await {
            tracing::warn!("{name} still had requests after {:?}", order.grace);
        }
    }
    let result = whole(async move {
        match runtime.stop(&order.id, order.generation, order.signal, order.grace).await {
            // Gone already is what was asked for.
            Err(error) if error.kind == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
            Ok(_) => {}
        }
        runtime.remove(&order.id, order.generation).await
    });
    let result = result.await;
    if result.is_err() {
        // It is asked for again at once, and what is in the way now hardly goes in less.
        tokio::time::sleep(RETIRE_AGAIN).await;
    }
    Outcome::Retired { key, result }
}

/// Runs a health check once. The error says why in words for people.
pub async fn probe(
    key: Key,
    generation: u64,
    question: Question,
    patient: Patient,
    check: HealthCheck,
) -> Outcome {
    let begin = Instant::now();
    let run = tokio::spawn(probe::run(patient, check));
    let result = run.await.unwrap_or_else(|error| Err(format!("the check ended abnormally: {error}")));
    Outcome::Probed { key, generation, question, took: begin.elapsed(), result }
}

/// Has a replica's process end. Its requests are not waited for: it does not answer any more.
pub async fn end(
    runtime: Arc<dyn Runtime>,
    key: Key,
    id: ReplicaId,
    generation: u64,
    signal: i32,
    grace: Duration,
) -> Outcome {
    let result = whole(async move { runtime.stop(&id, generation, signal, grace).await }).await;
    if result.is_err() {
        tokio::time::sleep(RETIRE_AGAIN).await;
    }
    Outcome::Ended { key, generation, result }
}

pub async fn sample(runtime: Arc<dyn Runtime>, running: Vec<ReplicaId>) -> Outcome {
    let statistics = runtime.statistics(&running).await;
    Outcome::Sampled { at: Instant::now(), samples: running.into_iter().zip(statistics).collect() }
}

/// This program's own file, even if a newer one has taken its place since: what is started from here must be of
/// the same version.
pub fn own_executable() -> std::io::Result<PathBuf> {
    let own = PathBuf::from("/proc/self/exe");
    if own.exists() { Ok(own) } else { std::env::current_exe() }
}

/// The command line that a new supervisor process is started with.
pub fn supervisor_command(executable: PathBuf, project: &str) -> std::process::Command {
    let mut command = std::process::Command::new(executable);
    command.arg0("throng");
    command.args(["--project-name", project, "supervise"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).current_dir("/");
    command
}
