//! What this process knows of one replica.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use throng_model::replica::{Observed, ReplicaId, ReplicaSpec, ReplicaState};
use throng_runtime::{ErrorKind, Result, RuntimeError};
use tokio::sync::watch;

pub struct Replica {
    pub id: ReplicaId,
    /// Its log, and the newest generation that it was started with.
    pub folder: PathBuf,
    /// Held while an order is carried out: orders about one replica come one after another.
    pub order: tokio::sync::Mutex<()>,
    /// Held while the daemon is asked how the container is, so that its end is told once.
    pub looking: tokio::sync::Mutex<()>,
    /// Held while the log is read.
    pub log: tokio::sync::Mutex<()>,
    /// Grows with each change of the state.
    pub changed: watch::Sender<u64>,
    inner: Mutex<Inner>,
}

pub struct Inner {
    /// `None` if the labels are damaged: such a replica can only be removed.
    pub spec: Option<Arc<ReplicaSpec>>,
    /// Newest generation seen.
    pub generation: u64,
    /// Newest generation that the next supervisor will find: in the container's labels or beside its log.
    pub recorded: u64,
    /// The daemon's id of the container; `None` before it is made.
    pub container: Option<String>,
    pub state: ReplicaState,
    /// The daemon's file with its output; empty if the daemon does not say.
    pub log_path: Option<PathBuf>,
    /// Killed on order: its end is not taken for one for want of memory.
    pub killed: bool,
    pub paused: bool,
}

impl Replica {
    pub fn new(id: ReplicaId, folder: PathBuf, inner: Inner) -> Replica {
        Replica {
            id,
            folder,
            order: Default::default(),
            looking: Default::default(),
            log: Default::default(),
            changed: watch::Sender::new(0),
            inner: Mutex::new(inner),
        }
    }

    /// A thread that panicked with the lock held left it consistent, since every change is one store.
    pub fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuses an order older than the newest seen, and remembers this one.
    pub fn accept(&self, generation: u64) -> Result<()> {
        throng_runtime::backends::accept(&mut self.inner().generation, generation, &self.id)
    }

    pub fn running(&self) -> Option<u32> {
        match self.inner().state {
            ReplicaState::Running { pid, .. } => Some(pid),
            _ => None,
        }
    }

    pub fn set(&self, state: ReplicaState) {
        self.inner().state = state;
        self.changed.send_modify(|count| *count += 1);
    }

    /// The container, or an error if there is none yet.
    pub fn container(&self) -> Result<String> {
        let container = self.inner().container.clone();
        container
            .ok_or_else(|| RuntimeError::new(ErrorKind::NotFound, format!("{} has no container", self.id)))
    }

    pub fn observed(&self) -> Observed {
        let inner = self.inner();
        let spec = inner.spec.as_ref();
        Observed {
            id: self.id.clone(),
            generation: inner.generation,
            config_hash: spec.map(|spec| spec.config_hash.clone()).unwrap_or_default(),
            networks: spec.map(|spec| spec.networks.clone()).unwrap_or_default(),
            node: None,
            paused: inner.paused,
            state: inner.state.clone(),
        }
    }
}
