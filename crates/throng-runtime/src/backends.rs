//! What back ends have in common.

use crate::{ErrorKind, ExecIo, ExecSpec, Result, Runtime, RuntimeError, RuntimeEvent};
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use throng_model::replica::ReplicaId;
use throng_model::sandbox::Hook;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};

/// Name of the file in a replica's folder that its output is written to; `log.1` and so on are older.
pub const LOG: &str = "log";

/// Events on their way to one watcher, beside the backlog that all share.
const WATCH_CHANNEL: usize = 1024;

/// The longest that all hooks after a start may take together.
pub const HOOKS_AFTER_START: Duration = Duration::from_secs(600);
/// What is left of a grace period for the process itself, however long the hooks before took.
pub const LEAST_GRACE: Duration = Duration::from_secs(1);

/// Runs the hooks one after another inside a running replica, what they write being appended to the file `log`. A
/// replica that ends meanwhile has no need of the others.
///
/// # Errors
/// The first hook that fails or has not ended after `limit` for all.
pub async fn run_hooks(
    runtime: &dyn Runtime,
    id: &ReplicaId,
    hooks: &[Hook],
    limit: Duration,
    log: Option<&Path>,
) -> Result<()> {
    let begin = Instant::now();
    for hook in hooks {
        let failed = |what: String| {
            let message = format!("{id}: the hook `{}` {what}", hook.command.join(" "));
            RuntimeError::new(ErrorKind::Invalid, message)
        };
        let left = limit.saturating_sub(begin.elapsed());
        let spec = ExecSpec {
            args: hook.command.clone(),
            env: hook.environment.iter().map(|(name, value)| format!("{name}={value}")).collect(),
            cwd: hook.working_dir.clone(),
            user: hook.user.clone(),
            timeout: Some(left),
        };
        let io = hook_io(log).map_err(|error| failed(format!("has no output: {error}")))?;
        match runtime.exec(id, &spec, io).await {
            Ok(exit) if exit.is_success() => {}
            Ok(_) if begin.elapsed() >= limit => {
                return Err(failed(format!("had not ended after {} s", limit.as_secs())));
            }
            Ok(exit) => return Err(failed(exit.to_string())),
            Err(error) if error.kind == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn hook_io(log: Option<&Path>) -> std::io::Result<ExecIo> {
    let null = || OpenOptions::new().read(true).write(true).open("/dev/null");
    let output = || match log {
        Some(path) => OpenOptions::new().append(true).create(true).open(path),
        None => null(),
    };
    Ok(ExecIo { stdin: null()?.into(), stdout: output()?.into(), stderr: output()?.into() })
}

/// Refuses an order older than the newest seen, and remembers this one.
pub fn accept(newest: &mut u64, order: u64, id: &ReplicaId) -> Result<()> {
    if order < *newest {
        let message = format!("order {order} for {id} is older than {newest}");
        return Err(RuntimeError::new(ErrorKind::Stale, message));
    }
    *newest = order;
    Ok(())
}

/// The files of a replica's output that exist in its folder, oldest first.
pub fn log_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut numbered: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let number = if name == LOG { 0 } else { name.strip_prefix("log.")?.parse().ok()? };
            Some((number, entry.path()))
        })
        .collect();
    numbered.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
    numbered.into_iter().map(|(_, path)| path).collect()
}

/// A stream of its own for one watcher, which ends when either side goes. Must be called inside a Tokio runtime.
pub fn watch(mut events: broadcast::Receiver<RuntimeEvent>) -> mpsc::Receiver<RuntimeEvent> {
    let (sender, receiver) = mpsc::channel(WATCH_CHANNEL);
    tokio::spawn(async move {
        loop {
            match events.recv().await {
                Ok(event) => {
                    if sender.send(event).await.is_err() {
                        return;
                    }
                }
                Err(RecvError::Lagged(lost)) => tracing::warn!("a watcher has lost {lost} events"),
                Err(RecvError::Closed) => return,
            }
        }
    });
    receiver
}
