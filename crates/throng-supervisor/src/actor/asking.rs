//! Questions to replicas: whether they have started up, can be given work, live at all; and the end of those that do not.

use super::*;
use crate::probe::Patient;
use throng_control::health::{Checks, Question};
use throng_runtime::{ErrorKind, RuntimeError};

/// What the replicas of a definition are asked.
pub(super) fn checks(prepared: &Prepared) -> Checks {
    let (startup, liveness) = (prepared.service.startup.clone(), prepared.service.liveness.clone());
    Checks { startup, readiness: prepared.health.clone(), liveness }
}

impl Actor {
    /// Marks replicas whose node is cut off: a kubelet would ask them from the node itself.
    pub(super) fn notice_cut(&mut self) {
        let nodes = &self.field.nodes;
        if nodes.is_empty() {
            return;
        }
        let cut = |detail: &Detail| {
            detail.node.as_ref().and_then(|node| nodes.get(node)).is_some_and(|state| !state.node.link.up)
        };
        for (views, details) in self.world.values_mut().zip(self.details.values()) {
            // Both hold the same replicas.
            views
                .values_mut()
                .zip(details.values())
                .for_each(|(view, detail)| view.unreachable = cut(detail));
        }
    }

    pub(super) fn probe(&mut self, key: Key, question: Question) {
        let id = self.id(&key);
        let Some(check) = self.origin(&key).and_then(|origin| checks(origin).of(question).cloned()) else {
            return;
        };
        let Some((view, detail)) = Self::replica(&mut self.world, &mut self.details, &key) else { return };
        view.busy = true;
        let awaited = match question {
            Question::Startup => true,
            Question::Readiness => view.health.status == HealthStatus::Starting,
            Question::Liveness => false,
        };
        if !awaited {
            self.budget.began(1);
        }
        let generation = detail.generation;
        let patient = Patient {
            runtime: self.fixed.runtime.clone(),
            dial: self.fixed.backend.dial(),
            id,
            address: detail.networks.first().map(|network| network.address),
        };
        self.tasks.spawn(steps::probe(key, generation, question, patient, check));
    }

    pub(super) fn probed(
        &mut self,
        key: &Key,
        generation: u64,
        question: Question,
        result: Result<(), String>,
    ) {
        let now = self.now();
        let checks = self.origin(key).map(checks);
        let Some((view, detail)) = Self::replica(&mut self.world, &mut self.details, key) else { return };
        view.busy = false;
        let (Some(checks), true) = (checks, view.runs() && detail.generation == generation) else { return };
        let Some(retries) = checks.of(question).map(|check| check.retries) else { return };
        let (health, alive) = (view.health.status, view.liveness.failures);
        view.probed(&checks, question, result.is_ok(), now);
        let mut message = None;
        match (question, &result) {
            (_, Ok(())) if question != Question::Liveness => detail.error = None,
            (Question::Liveness, Ok(())) => {
                detail.error.take_if(|error| error.starts_with(&question.to_string()));
            }
            (_, Err(reason)) => {
                detail.error = Some(format!("{question}: {reason}"));
                if question == Question::Liveness && alive == 0 && retries > 1 {
                    message = Some(format!("{question} failed (1 of {retries}): {reason}"));
                }
            }
            _ => {}
        }
        if view.condemned() {
            detail.ended_for = result.as_ref().err().map(|reason| format!("{question} failed: {reason}"));
        }
        if health != view.health.status {
            message = Some(match (view.health.status, &result) {
                (HealthStatus::Healthy, _) => "healthy".to_owned(),
                (_, Err(reason)) => format!("unhealthy: {reason}"),
                (_, Ok(())) => "unhealthy".to_owned(),
            });
        }
        if let Some(message) = message {
            self.event("health", &replica_name(key), &message);
        }
    }

    /// Has replicas end that are to stay where they are. Nobody must give them work by then; the balancers are told once
    /// for all.
    pub(super) fn end(&mut self, ending: Vec<Key>) {
        let services: BTreeSet<String> = ending.iter().map(|(service, _)| service.clone()).collect();
        services.iter().for_each(|service| self.tell(service));
        for key in ending {
            let id = self.id(&key);
            let (grace, over) = (self.grace, self.job_over(&key.0));
            let Some((view, detail)) = Self::replica(&mut self.world, &mut self.details, &key) else {
                continue;
            };
            view.make_end();
            let (signal, own) = detail.stop.unwrap_or((begin::STOP_SIGNAL, begin::STOP_GRACE));
            let (generation, grace) = (detail.generation, grace.unwrap_or(own));
            let reason = detail.ended_for.get_or_insert_with(|| over.unwrap_or_default()).clone();
            self.tasks.spawn(steps::end(
                self.fixed.runtime.clone(),
                key.clone(),
                id,
                generation,
                signal,
                grace,
            ));
            self.event("health", &replica_name(&key), &format!("is ended: {reason}"));
        }
    }

    /// A replica that was to end has, or could not be made to.
    pub(super) fn ended_by_us(&mut self, key: &Key, generation: u64, result: Result<Exit, RuntimeError>) {
        let id = self.id(key);
        let Some((view, detail)) = Self::replica(&mut self.world, &mut self.details, key) else { return };
        if detail.generation != generation {
            return;
        }
        view.busy = view.leaving;
        let exit = match result {
            Ok(exit) => exit,
            Err(error) if error.kind == ErrorKind::NotFound => Exit::Unknown,
            Err(error) => {
                // It is tried again as long as it runs.
                let message = format!("could not be ended: {error}");
                return self.event("warning", &replica_name(key), &message);
            }
        };
        // What the runtime tells of the end by itself may come later.
        if view.runs() {
            self.exited(RuntimeEvent::Exited { id, generation, exit });
        }
    }
}
