//! What replicas are given instead of what their definition says, and what of each the next supervisor is to know.

use super::*;
use crate::lives::{LIVES_VERSION, Life, Lives};
use throng_control::evict::{self, Candidate};
use throng_control::vertical;
use throng_model::app::Service;
use throng_model::autoscale::{UpdateMode, VerticalStatus};
use throng_model::units::format_bytes;

impl Actor {
    /// What a replica of this definition gets that is made now; `None` where that is what the definition says.
    pub(super) fn recommended(&self, service: &Service) -> Option<Resources> {
        let policy = service.vertical.as_ref().filter(|policy| policy.update_mode != UpdateMode::Off)?;
        let recommendation = self.recommenders.recommendation(&service.name)?;
        let given = vertical::given(policy, recommendation.target, &service.resources);
        (given != service.resources).then_some(given)
    }

    /// What a replica of this definition gets that is started again.
    pub(super) fn given_again(&self, service: &Service, before: Option<Resources>) -> Option<Resources> {
        match service.vertical.as_ref()?.update_mode {
            UpdateMode::Off => None,
            UpdateMode::Initial => before,
            UpdateMode::Recreate => self.recommended(service),
        }
    }

    /// Replaces replicas that request something far from what is recommended, in services whose policy says so.
    pub(super) fn evict(&mut self, now: Instant) {
        if self.wanted.going_down || !self.informed {
            return;
        }
        let mut leaving = Vec::new();
        for service in self.evictable(now) {
            let evictions = self.evictions(&service).into_iter();
            for ordinal in evictions.take(self.fixed.limits.retirements) {
                let key = (service.clone(), ordinal);
                let message =
                    "is replaced, for it requests something far from what is recommended (EvictedByVPA)";
                self.event("autoscale", &replica_name(&key), message);
                leaving.extend(self.take_out(key));
            }
        }
        self.retire(leaving);
    }

    /// Services that are due to be looked at. A replica of a job that is stopped loses its work, which nothing
    /// recommended is worth.
    fn evictable(&mut self, now: Instant) -> Vec<String> {
        let recreated = self.prepared.iter().filter(|(_, Prepared { service, .. })| {
            let mode = service.vertical.map(|policy| policy.update_mode);
            mode == Some(UpdateMode::Recreate) && service.job.is_none()
        });
        let due = recreated.filter(|(name, _)| self.recommenders.look(name, now, evict::LOOK_EVERY));
        due.map(|(name, _)| name.clone()).collect()
    }

    fn evictions(&self, name: &str) -> Vec<u32> {
        let Some(Prepared { service, .. }) = self.prepared.get(name) else { return Vec::new() };
        let (Some(policy), Some(recommendation)) = (service.vertical, self.recommenders.recommendation(name))
        else {
            return Vec::new();
        };
        let staying = self.replicas(name).filter(|(_, view, _)| !view.leaving && !view.stopped);
        let candidates: Vec<Candidate> = staying
            .map(|(ordinal, view, detail)| {
                let own = || self.origin(&(name.to_owned(), ordinal)).map(|own| own.service.resources);
                let resources = detail.given.or_else(own).unwrap_or(service.resources);
                let runs = detail.started_at.filter(|_| view.runs() && !view.busy);
                Candidate::new(ordinal, &resources, runs.map(|since| since.elapsed().unwrap_or_default()))
            })
            .collect();
        evict::evictions(&policy, &recommendation, &service.resources, service.replicas, &candidates)
    }

    /// Says once what replicas of a service are given from now on.
    pub(super) fn tell_given(&mut self, service: &str, given: Option<Resources>) {
        let before = self.told_given.get(service).copied();
        if before == given {
            return;
        }
        let message = match given {
            Some(given) => {
                self.told_given.insert(service.to_owned(), given);
                format!("replicas that start get what is recommended: {}", amounts(&given))
            }
            None => {
                self.told_given.remove(service);
                "replicas that start get what the definition says".to_owned()
            }
        };
        self.event("autoscale", service, &message);
    }

    pub(super) fn vertical_status(&self, service: &Service) -> Option<VerticalStatus> {
        let policy = service.vertical?;
        let details = self.details.get(&service.name).into_iter().flat_map(BTreeMap::values);
        let given = details.filter(|detail| detail.given.is_some()).count();
        let given = u32::try_from(given).unwrap_or(u32::MAX);
        Some(VerticalStatus { policy, next: self.recommended(service), given })
    }

    /// Has what changed of replicas written, unless that is under way.
    pub(super) fn save_lives(&mut self) {
        let busy = self.saving_lives.as_ref().is_some_and(|saving| !saving.is_finished());
        if !self.lives_changed || busy || self.wanted.going_down || !self.informed {
            return;
        }
        self.lives_changed = false;
        let lives = self.lives();
        let path = self.fixed.paths.lives_file(&self.fixed.project);
        self.saving_lives = Some(tokio::task::spawn_blocking(move || {
            if let Err(error) = lives::save(&path, &lives) {
                tracing::warn!("{error}");
            }
        }));
    }

    fn lives(&self) -> Lives {
        let mut replicas: BTreeMap<String, BTreeMap<u32, Life>> = BTreeMap::new();
        for service in self.world.keys() {
            let lives = self.replicas(service).map(|(ordinal, view, detail)| {
                (ordinal, Life::new(view.tries, detail.restarts, detail.given))
            });
            let lives: BTreeMap<u32, Life> = lives.filter(|(_, life)| *life != Life::default()).collect();
            if !lives.is_empty() {
                replicas.insert(service.clone(), lives);
            }
        }
        let applied = |name: &String| {
            let policy = self.prepared.get(name).and_then(|prepared| prepared.service.vertical);
            policy.is_some_and(|policy| policy.update_mode != UpdateMode::Off)
        };
        let known = self.recommenders.known().iter().filter(|(name, _)| applied(name));
        let recommenders = known.map(|(name, known)| (name.clone(), known.clone())).collect();
        Lives { version: LIVES_VERSION, replicas, recommenders }
    }
}

/// `cpus 0.12 (at most 0.24), memory 300 MiB`.
fn amounts(given: &Resources) -> String {
    let part = |name: &str, request: Option<String>, limit: Option<String>| {
        let request = request?;
        let most = limit.filter(|limit| *limit != request);
        Some(format!("{name} {request}{}", most.map(|most| format!(" (at most {most})")).unwrap_or_default()))
    };
    let cpus = part("cpus", given.cpu_request().map(|n| n.to_string()), given.cpus.map(|n| n.to_string()));
    let memory = part("memory", given.memory_request().map(format_bytes), given.memory.map(format_bytes));
    cpus.into_iter().chain(memory).collect::<Vec<_>>().join(", ")
}
