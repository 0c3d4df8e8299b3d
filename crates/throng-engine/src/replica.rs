//! What an engine knows of one replica in memory.
//!
//! ```text
//!             create            start             process ends
//!   (nothing) ──────> Created ────────> Running ──────────────> Exited
//!       ^                │                 ^                      │ │
//!       │     remove     │                 └────────start─────────┘ │
//!       └────────────────┴──────────────────────────────────remove──┘
//! ```

use crate::meter::Meter;
use crate::state::End;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;
use throng_model::replica::{Observed, ReplicaId, ReplicaSpec, ReplicaState};
use throng_runtime::RuntimeError;
use tokio::sync::Notify;

pub struct Replica {
    pub id: ReplicaId,
    pub folder: PathBuf,
    /// Held while an order is carried out: orders about one replica come one after another.
    /// Shared with the blocking work, which goes on when its caller has given up waiting.
    pub order: Arc<tokio::sync::Mutex<()>>,
    /// Told when the process has ended and its end is recorded.
    pub ended: Notify,
    /// Its log says that its writable layer is full.
    pub told_full: AtomicBool,
    /// What holds the room in its writable layer that a fault has taken; see [`crate::fill`].
    filled: Mutex<Option<File>>,
    /// What it used when it was last asked.
    meter: Mutex<Option<Meter>>,
    /// Held while its log is rotated.
    rotating: Mutex<()>,
    inner: Mutex<Inner>,
}

pub struct Inner {
    /// `None` if the file on disk is damaged: such a replica can only be removed.
    pub spec: Option<Arc<ReplicaSpec>>,
    /// Newest generation seen.
    pub generation: u64,
    pub phase: Phase,
    /// Interfaces on the host's side.
    pub interfaces: Vec<String>,
}

#[derive(Clone)]
pub enum Phase {
    Created,
    Running(Running),
    Exited(End),
}

#[derive(Clone)]
pub struct Running {
    pub pid: u32,
    pub started_at: SystemTime,
    pub pidfd: Arc<OwnedFd>,
}

impl Replica {
    pub fn new(id: ReplicaId, folder: PathBuf, inner: Inner) -> Self {
        let (order, ended, told_full) = (Arc::default(), Notify::new(), AtomicBool::new(false));
        let (filled, meter, rotating) = (Mutex::default(), Mutex::default(), Mutex::default());
        let inner = Mutex::new(inner);
        Replica { id, folder, order, ended, told_full, filled, meter, rotating, inner }
    }

    fn filled(&self) -> MutexGuard<'_, Option<File>> {
        // Each change is one store.
        self.filled.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Keeps room in its writable layer taken until [`Replica::give_back`], or this process ends.
    pub fn keep_filled(&self, file: File) {
        *self.filled() = Some(file);
    }

    /// Gives back the room that a fault has taken; fine if there is none.
    pub fn give_back(&self) {
        drop(self.filled().take());
    }

    /// Rotates its log if that is full, and tells whether it was.
    pub fn rotate_log(&self) -> io::Result<bool> {
        let Some(policy) = self.inner().spec.as_ref().map(|spec| spec.log) else { return Ok(false) };
        // Who panicked has left files that rotating copes with.
        let _one = self.rotating.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        crate::logs::rotate(&self.folder, policy)
    }

    /// Whoever panicked with the lock held has left either the last reading or none.
    pub fn meter(&self) -> MutexGuard<'_, Option<Meter>> {
        self.meter.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The state; a thread that panicked with the lock held left it consistent, since every change is one store.
    pub fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Refuses an order older than the newest seen, and remembers this one.
    pub fn accept(&self, generation: u64) -> Result<(), RuntimeError> {
        throng_runtime::backends::accept(&mut self.inner().generation, generation, &self.id)
    }

    pub fn running(&self) -> Option<Running> {
        match &self.inner().phase {
            Phase::Running(running) => Some(running.clone()),
            _ => None,
        }
    }

    /// Its first process, if it runs.
    pub fn pid(&self) -> Option<u32> {
        match &self.inner().phase {
            Phase::Running(running) => Some(running.pid),
            _ => None,
        }
    }

    pub fn is_running(&self) -> bool {
        matches!(self.inner().phase, Phase::Running(_))
    }

    pub fn observed(&self) -> Observed {
        let inner = self.inner();
        let state = match &inner.phase {
            Phase::Created => ReplicaState::Created,
            Phase::Running(r) => ReplicaState::Running { pid: r.pid, started_at: r.started_at },
            Phase::Exited(end) => ReplicaState::Exited { exit: end.exit, finished_at: end.at },
        };
        let config_hash = inner.spec.as_ref().map(|s| s.config_hash.clone()).unwrap_or_default();
        let networks = inner.spec.as_ref().map(|s| s.networks.clone()).unwrap_or_default();
        let node = inner.spec.as_ref().and_then(|s| s.node.clone());
        let (id, generation) = (self.id.clone(), inner.generation);
        Observed { id, generation, config_hash, networks, node, paused: false, state }
    }
}
