//! What happens when a replica's process has ended: it is recorded, told, and what only a running one needs is freed.

use crate::cgroup::Group;
use crate::engine::{Core, blocking};
use crate::exits::how;
use crate::pause;
use crate::replica::{Phase, Replica};
use crate::state::{self, End, Life};
use std::sync::{Arc, Weak};
use std::time::SystemTime;
use throng_model::replica::{Exit, ReplicaId};
use throng_runtime::RuntimeEvent;

impl Core {
    /// Records that the replica's process has ended, and frees what only a running one needs.
    pub fn record_end(&self, replica: &Arc<Replica>, end: End) {
        // What a fault has taken of its layer keeps that mounted.
        replica.give_back();
        pause::forget(replica);
        // With the file that it may keep open.
        *replica.meter() = None;
        // Since it was last looked at it may have written any amount.
        if let Err(error) = replica.rotate_log() {
            tracing::warn!("cannot rotate the log of {}: {error}", replica.id);
        }
        self.clear_group(&replica.id, self.group_of(replica));
        self.detach(replica);
        let life = state::read_life(&replica.folder).map(|life| Life { end: Some(end), ..life });
        if let Some(Err(error)) = life.map(|life| state::write_life(&replica.folder, &life)) {
            tracing::warn!("the end of {} is not recorded on disk: {error}", replica.id);
        }
        replica.inner().phase = Phase::Exited(end);
    }

    /// Removes the group of a replica that does not run, with what is left in it. One that stays is named in the
    /// supervisor's log, and removed with the replica.
    pub fn clear_group(&self, id: &ReplicaId, group: Option<Group>) {
        if let Some(Err(error)) = group.map(|group| group.clear()) {
            tracing::warn!("the control group of {id} is left: {error}");
        }
    }

    fn ended(&self, replica: &Arc<Replica>) {
        let Some(running) = replica.running() else { return };
        if !self.contained() {
            // Its first process led a session; without a PID namespace others of it may be left.
            crate::exec::kill_group(running.pid);
        }
        let exit = self.explain_end(replica, how(&running.pidfd));
        // Read before anybody can know of the end, and with it order the next life: that one has not ended.
        let generation = replica.inner().generation;
        self.record_end(replica, End { exit, at: SystemTime::now() });
        // Nobody need be watching.
        let _ = self.events.send(RuntimeEvent::Exited { id: replica.id.clone(), generation, exit });
        replica.ended.notify_waiters();
    }

    /// A process that was killed is one out of memory if the kernel has killed for that reason in its group.
    fn explain_end(&self, replica: &Replica, exit: Exit) -> Exit {
        let group = self.group_of(replica);
        let killed = exit == Exit::Signal { signal: libc::SIGKILL };
        if killed && group.is_some_and(|g| g.oom_kills() > 0) { Exit::OutOfMemory } else { exit }
    }
}

/// Waits for ends as long as the engine is there.
pub async fn follow_exits(core: Weak<Core>) {
    loop {
        let Some(exits) = core.upgrade().map(|core| core.exits.clone()) else { return };
        // Without the engine, which would else outlive its last owner and look after what is its successor's by then.
        let next = tokio::time::timeout(std::time::Duration::from_secs(1), exits.next()).await;
        let numbers = match next {
            Ok(Ok(numbers)) => numbers,
            Ok(Err(error)) => {
                tracing::error!("cannot wait for processes: {error}");
                return;
            }
            Err(_) => continue,
        };
        let Some(strong) = core.upgrade() else { return };
        for number in numbers {
            let Some(replica) = strong.unfollow(number) else { continue };
            let core = strong.clone();
            tokio::spawn(async move {
                // The semaphore is never closed.
                let _permit = core.ending.acquire().await;
                let worker = core.clone();
                // A panic in there has been reported by its own message.
                let _ = blocking(move || worker.ended(&replica)).await;
            });
        }
    }
}
