//! What became of steps, and what happened unasked.

use super::*;
use throng_control::restart::Rule;
use throng_runtime::{ErrorKind, RuntimeError};

impl Actor {
    pub(super) fn finished(&mut self, outcome: Result<Outcome, tokio::task::JoinError>) {
        match outcome {
            Ok(Outcome::Launched { key, generation, took, result }) => {
                let again = self.detail(&key).is_some_and(|detail| detail.restarts > 0);
                self.metrics.launched(&key.0, took, result.is_ok(), again);
                self.starting = self.starting.saturating_sub(1);
                let host = |error: &RuntimeError| error.kind == ErrorKind::Host;
                self.pace.ended(!result.as_ref().is_err_and(host));
                self.launched(&key, generation, result);
            }
            Ok(Outcome::Retired { key, result }) => self.retired(&key, result),
            Ok(Outcome::Ended { key, generation, result }) => self.ended_by_us(&key, generation, result),
            Ok(Outcome::Probed { key, generation, question, took, result }) => {
                self.budget.ended(took);
                self.metrics.checked(&key.0, result.is_ok());
                self.probed(&key, generation, question, result);
            }
            Ok(Outcome::Sampled { at, samples }) => self.sampled(at, samples),
            Ok(Outcome::Gathered { service, looks, gathered }) => self.gathered(service, looks, gathered),
            Err(error) => {
                // A panic in a step is a defect; the supervisor and its replicas go on.
                tracing::error!("a step ended abnormally: {error}");
                // It may have been the reading of what replicas use; another one under way is no harm.
                self.sampling = None;
                self.event("warning", "", &format!("a step ended abnormally: {error}"));
            }
        }
    }

    pub(super) fn launched(&mut self, key: &Key, generation: u64, result: Result<u32, RuntimeError>) {
        let now = self.now();
        match result {
            Ok(_pid) => {
                let Some((view, detail)) = Self::replica(&mut self.world, &mut self.details, key) else {
                    return;
                };
                detail.error = None;
                detail.started_at = Some(SystemTime::now());
                // It may already have ended: the exit was then seen before this outcome and must stand.
                let ended = detail.exit.is_some() && detail.generation == generation;
                if ended {
                    view.busy = false;
                } else {
                    view.started(now);
                }
                self.event("replica", &replica_name(key), "started");
                self.fill_again(key);
            }
            Err(error) => {
                let permanent = error.kind == ErrorKind::Invalid;
                self.launch_failed(key, with_hint(&error), permanent);
            }
        }
    }

    pub(super) fn launch_failed(&mut self, key: &Key, error: String, permanent: bool) {
        let now = self.now();
        if let Some((view, detail)) = Self::replica(&mut self.world, &mut self.details, key) {
            view.could_not_start(now, permanent);
            detail.error = Some(error.clone());
        }
        self.event("warning", &replica_name(key), &format!("could not start: {error}"));
    }

    pub(super) fn retired(&mut self, key: &Key, result: Result<(), RuntimeError>) {
        if let Err(error) = result {
            // What cannot be removed is kept and tried again; nothing is forgotten.
            let message = format!("could not be removed: {}", with_hint(&error));
            let Some((view, detail)) = Self::replica(&mut self.world, &mut self.details, key) else { return };
            view.busy = false;
            detail.error = Some(message.clone());
            // It is tried again and again; what has been said need not be.
            if detail.held.replace(message.clone()) != Some(message.clone()) {
                self.event("warning", &replica_name(key), &message);
            }
            return;
        }
        self.lives_changed = true;
        for attachment in self.remove(key).map(|detail| detail.networks).unwrap_or_default() {
            self.fixed.directory.forget(&attachment.network, &key.0, key.1);
            if let Some(taken) = self.taken.get_mut(&attachment.network) {
                taken.release(attachment.address);
            }
        }
        self.forget_stopped(key);
        self.event("replica", &replica_name(key), "removed");
    }

    pub(super) fn exited(&mut self, event: RuntimeEvent) {
        let (id, generation, exit) = match event {
            RuntimeEvent::Exited { id, generation, exit } => (id, generation, exit),
            RuntimeEvent::Warned { project, subject, message } => {
                if project == self.fixed.project {
                    self.event("warning", &subject, &message);
                }
                return;
            }
        };
        let now = self.now();
        let key = (id.service, id.ordinal);
        let rule = self.origin(&key).map(|origin| Rule::from(&origin.service)).unwrap_or_default();
        let Some((view, detail)) = Self::replica(&mut self.world, &mut self.details, &key) else { return };
        if detail.generation != generation && !view.leaving {
            return;
        }
        if detail.generation == generation && detail.exit.is_some() && !view.runs() {
            // It was told before by whoever made it end.
            return;
        }
        view.exited(exit, &rule, now);
        let (leaving, given) = (view.leaving, detail.given);
        Self::let_go(detail, view);
        detail.ended_for = detail.ended_for.take().filter(|_| view.made_to_end);
        detail.exit = Some(exit);
        detail.finished_at = Some(SystemTime::now());
        detail.meter = None;
        self.lives_changed = true;
        if exit == Exit::OutOfMemory {
            self.note_out_of_memory(&key.0, given);
        }
        if !leaving {
            self.event("replica", &replica_name(&key), &exit.to_string());
        }
    }
}

fn with_hint(error: &RuntimeError) -> String {
    match &error.hint {
        Some(hint) => format!("{error} (hint: {hint})"),
        None => error.to_string(),
    }
}
