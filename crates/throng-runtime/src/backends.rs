//! What back ends have in common.

use crate::{ErrorKind, Result, RuntimeError, RuntimeEvent};
use std::path::{Path, PathBuf};
use throng_model::replica::ReplicaId;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};

/// Name of the file in a replica's folder that its output is written to; `log.1` and so on are older.
pub const LOG: &str = "log";

/// Events on their way to one watcher, beside the backlog that all share.
const WATCH_CHANNEL: usize = 1024;

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
