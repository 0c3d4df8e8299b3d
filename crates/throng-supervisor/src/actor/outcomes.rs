//! What became of steps, and what happened unasked.

use super::*;
use throng_runtime::{ErrorKind, RuntimeError};

impl Actor {
    pub(super) fn finished(&mut self, outcome: Result<Outcome, tokio::task::JoinError>) {
        match outcome {
            Ok(Outcome::Launched { key, generation, result }) => {
                self.starting = self.starting.saturating_sub(1);
                let host = |error: &RuntimeError| error.kind == ErrorKind::Host;
                self.pace.ended(!result.as_ref().is_err_and(host));
                self.launched(&key, generation, result);
            }
            Ok(Outcome::Retired { key, result }) => self.retired(&key, result),
            Ok(Outcome::Probed { key, generation, took, result }) => {
                self.budget.ended(took);
                self.probed(&key, generation, result);
            }
            Ok(Outcome::Sampled { at, samples }) => self.sampled(at, samples),
            Err(error) => {
                // A panic in a step is a defect; the supervisor and its replicas go on.
                tracing::error!("a step ended abnormally: {error}");
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
                view.busy = false;
                detail.error = None;
                detail.started_at = Some(SystemTime::now());
                // It may already have ended: the exit was then seen before this outcome and must stand.
                let ended = detail.exit.is_some() && detail.generation == generation;
                if !ended {
                    view.phase = Phase::Running { since: now };
                    view.health = Health::default();
                }
                self.event("replica", &replica_name(key), "started");
            }
            Err(error) => {
                let permanent = error.kind == ErrorKind::Invalid;
                let text = match &error.hint {
                    Some(hint) => format!("{error} (hint: {hint})"),
                    None => error.to_string(),
                };
                self.launch_failed(key, text, permanent);
            }
        }
    }

    pub(super) fn launch_failed(&mut self, key: &Key, error: String, permanent: bool) {
        let now = self.now();
        if let Some((view, detail)) = Self::replica(&mut self.world, &mut self.details, key) {
            view.busy = false;
            view.phase = Phase::Failed { at: now, permanent };
            detail.error = Some(error.clone());
        }
        self.event("warning", &replica_name(key), &format!("could not start: {error}"));
    }

    pub(super) fn retired(&mut self, key: &Key, result: Result<(), RuntimeError>) {
        if let Err(error) = result {
            // What cannot be removed is kept and tried again; nothing is forgotten.
            let message = format!("could not be removed: {error}");
            if let Some((view, detail)) = Self::replica(&mut self.world, &mut self.details, key) {
                view.busy = false;
                detail.error = Some(message.clone());
            }
            self.event("warning", &replica_name(key), &message);
            return;
        }
        for attachment in self.remove(key).map(|detail| detail.networks).unwrap_or_default() {
            self.fixed.directory.forget(&attachment.network, &key.0, key.1);
            if let Some(taken) = self.taken.get_mut(&attachment.network) {
                taken.release(attachment.address);
            }
        }
        self.event("replica", &replica_name(key), "removed");
    }

    pub(super) fn probed(&mut self, key: &Key, generation: u64, result: Result<(), String>) {
        let now = self.now();
        let Some(check) = self.prepared.get(&key.0).and_then(|prepared| prepared.health.clone()) else {
            return;
        };
        let Some((view, detail)) = Self::replica(&mut self.world, &mut self.details, key) else { return };
        view.busy = false;
        let Phase::Running { since } = view.phase else { return };
        if detail.generation != generation {
            return;
        }
        let before = view.health.status;
        view.health = view.health.after_probe(&check, since, result.is_ok(), now);
        let after = view.health.status;
        if let Err(reason) = &result {
            detail.error = Some(format!("health check: {reason}"));
        } else {
            detail.error = None;
        }
        if before != after {
            let message = match (after, result) {
                (HealthStatus::Healthy, _) => "healthy".to_owned(),
                (_, Err(reason)) => format!("unhealthy: {reason}"),
                (_, Ok(())) => "unhealthy".to_owned(),
            };
            self.event("health", &replica_name(key), &message);
        }
    }

    pub(super) fn exited(&mut self, event: RuntimeEvent) {
        let RuntimeEvent::Exited { id, generation, exit } = event;
        let now = self.now();
        let key = (id.service, id.ordinal);
        let Some((view, detail)) = Self::replica(&mut self.world, &mut self.details, &key) else { return };
        if detail.generation != generation && !detail.leaving {
            return;
        }
        if let Phase::Running { since } = view.phase {
            view.streak = restart::streak_after(view.streak, now.saturating_sub(since));
        }
        view.phase = Phase::Exited { exit, at: now };
        detail.exit = Some(exit);
        detail.finished_at = Some(SystemTime::now());
        detail.cpu = 0.0;
        if !detail.leaving {
            self.event("replica", &replica_name(&key), &exit.to_string());
        }
    }

    pub(super) fn sample(&mut self) {
        if self.starting == 0 && !self.held {
            self.pace.nothing_starts(&self.host.read());
        }
        // A sampling that takes longer than its period is not piled up on.
        if self.sampling.is_some() || Instant::now() < self.next_sampling {
            return;
        }
        let running: Vec<(Key, ReplicaId)> = self
            .world
            .iter()
            .flat_map(|(service, replicas)| {
                replicas.iter().map(move |(ordinal, view)| (service, ordinal, view))
            })
            .filter(|(_, _, view)| matches!(view.phase, Phase::Running { .. }))
            .map(|(service, ordinal, _)| (service.clone(), *ordinal))
            .map(|key| (key.clone(), self.id(&key)))
            .collect();
        if running.is_empty() {
            return;
        }
        self.sampling = Some(Instant::now());
        self.tasks.spawn(steps::sample(self.fixed.runtime.clone(), running));
    }

    pub(super) fn sampled(&mut self, at: Instant, samples: Vec<(Key, Option<Statistics>)>) {
        let took = self.sampling.take().map_or(Duration::ZERO, |since| since.elapsed());
        self.next_sampling = Instant::now() + took * SAMPLE_REST;
        let mut sent = Vec::new();
        for (key, statistics) in samples {
            let detail = self.details.get_mut(&key.0).and_then(|details| details.get_mut(&key.1));
            let (Some(detail), Some(new)) = (detail, statistics) else { continue };
            match detail.statistics.replace((at, new)) {
                Some((then, old)) => {
                    let sample = rates(&key, &old, &new, at.saturating_duration_since(then));
                    detail.cpu = sample.cpu;
                    sent.push(sample);
                }
                // The first reading says what was used since the start, which is better than nothing in a listing.
                None => {
                    let ran = detail.started_at.and_then(|start| start.elapsed().ok());
                    detail.cpu = ran.map_or(0.0, |ran| new.cpu.as_secs_f64() / ran.as_secs_f64().max(1e-3));
                }
            }
        }
        let _ = self.feed.send(Arc::new(Reply::Samples { at: SystemTime::now(), samples: sent }));
    }
}

fn rates(key: &Key, old: &Statistics, new: &Statistics, passed: Duration) -> ReplicaSample {
    let seconds = passed.as_secs_f64().max(1e-3);
    // A restarted replica's counters begin again; that is no negative rate.
    let per_second = |old: u64, new: u64| new.saturating_sub(old) as f64 / seconds;
    ReplicaSample {
        service: key.0.clone(),
        name: replica_name(key),
        cpu: new.cpu.saturating_sub(old.cpu).as_secs_f64() / seconds,
        memory: new.memory,
        pids: new.pids,
        received: per_second(old.network_received, new.network_received),
        sent: per_second(old.network_sent, new.network_sent),
    }
}
