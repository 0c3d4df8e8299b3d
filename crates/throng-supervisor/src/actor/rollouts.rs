//! Roll-outs as they concern the one app: what a service was before its present definition, what is told, what a
//! supervisor that comes after this one must know.

use super::*;
use crate::state::{Earlier, Kept};
use throng_control::{Change, Definition};
use throng_model::status::Update;

/// What a service was, or was to be, so that its replicas are looked after and it can become that again.
#[derive(Clone)]
pub struct Before {
    /// With this service alone.
    pub app: App,
    pub prepared: Prepared,
}

/// What is wanted next, and what that comes after.
pub(super) struct Succession {
    pub services: BTreeMap<String, WantedService>,
    pub before: BTreeMap<String, Before>,
}

impl Actor {
    /// Has each service of a new definition come after what it is now, or go on where an earlier supervisor was.
    pub(super) fn succession(&self, applied: &mut Applied) -> Succession {
        let (mut services, mut before) = (BTreeMap::new(), BTreeMap::new());
        for (name, prepared) in &applied.prepared {
            let mut next = super::orders::wanted(prepared);
            if applied.resumed {
                let known = self.durable.jobs.get(name).filter(|kept| kept.hash == next.config_hash);
                if let (Some(work), Some(kept)) = (&mut next.job, known) {
                    work.progress = kept.progress.clone();
                }
                if let Some(kept) = self.durable.rollouts.get(name).filter(|k| k.hash == next.config_hash) {
                    next.rollout = kept.rollout.clone();
                }
                before.extend(applied.before.remove(name).map(|earlier| (name.clone(), earlier)));
                next.previous = before.get(name).map(|earlier| definition(&earlier.prepared));
            } else if let Some(now) = self.wanted.services.get(name) {
                if applied.untouched.contains(name) && now.config_hash == next.config_hash {
                    (next.previous, next.rollout) = (now.previous.clone(), now.rollout.clone());
                    next.job.clone_from(&now.job);
                } else {
                    next.succeed(now.clone());
                }
                let goes_back_to = next.previous.as_ref().map(|previous| previous.config_hash.as_str());
                let own = self.prepared.get(name).map(|prepared| Before {
                    app: alone(&self.durable.app, name),
                    prepared: prepared.clone(),
                });
                let known = own.into_iter().chain(self.before.get(name).cloned());
                let found = known.into_iter().find(|b| Some(b.prepared.config_hash.as_str()) == goes_back_to);
                before.extend(found.map(|earlier| (name.clone(), earlier)));
            }
            services.insert(name.clone(), next);
        }
        Succession { services, before }
    }

    /// Tells of what has changed about roll-outs and does what of it concerns definitions.
    pub(super) fn follow(&mut self, changes: Vec<(String, Change)>) {
        self.rollouts_changed |= !changes.is_empty();
        for (name, change) in changes {
            let message = match change {
                Change::Begun { total } => format!("update of {total} replicas begins"),
                Change::Failed { ordinal, failure } => {
                    let error = self.detail(&(name.clone(), ordinal)).and_then(|detail| detail.error.clone());
                    let error = error.map(|error| format!(" ({error})")).unwrap_or_default();
                    format!("update: replica {ordinal} {failure}{error}")
                }
                Change::Paused { reason } => format!("update paused: {reason}"),
                Change::RollingBack { reason } => {
                    self.turn_back(&name);
                    format!("update rolls back: {reason}")
                }
                Change::Ended { failed: 0 } => "update done".to_owned(),
                Change::Ended { failed } => format!("update done, {failed} new replicas had failed"),
                Change::RolledBack => "update rolled back".to_owned(),
            };
            self.event("update", &name, &message);
        }
        let wanted = &self.wanted.services;
        self.before.retain(|name, _| wanted.get(name).is_some_and(|service| service.previous.is_some()));
    }

    /// Makes what a service was before its definition again, as [`throng_control::observe`] has decided.
    fn turn_back(&mut self, name: &str) {
        let (Some(before), Some(failed)) = (self.before.remove(name), self.prepared.remove(name)) else {
            return;
        };
        let failed = Before { app: alone(&self.durable.app, name), prepared: failed };
        let Before { app, mut prepared } = before;
        let service = &mut prepared.service;
        // Counts are scaled, not rolled out, and how careful to be was said last.
        service.replicas = failed.prepared.service.replicas;
        (service.update, service.rollback) =
            (failed.prepared.service.update, failed.prepared.service.rollback);
        let durable = &mut self.durable.app;
        durable.services.insert(name.to_owned(), service.clone());
        for (key, volume) in app.volumes {
            durable.volumes.entry(key).or_insert(volume);
        }
        for (files, known) in [(app.configs, &mut durable.configs), (app.secrets, &mut durable.secrets)] {
            files.into_iter().for_each(|(key, source)| {
                known.entry(key).or_insert(source);
            });
        }
        self.prepared.insert(name.to_owned(), prepared);
        self.before.insert(name.to_owned(), failed);
        self.fixed.directory.define(self.names());
        self.open_again(name);
        self.told.remove(name);
    }

    /// Publishes the ports of a definition that is wanted again, and those only.
    fn open_again(&mut self, name: &str) {
        let Some(prepared) = self.prepared.get(name) else { return };
        let ports = &prepared.service.ports;
        let fronts = self.fronts.entry(name.to_owned()).or_default();
        front::keep(fronts, ports);
        let open: Vec<Port> = fronts.iter().filter_map(|front| front.port.clone()).collect();
        let chosen = self.durable.chosen_ports.get(name);
        let is_open = |port: &Port| open.contains(port);
        let mut refused = Vec::new();
        for front in front::open_new(ports, is_open, chosen, self.fixed.backend.dial()) {
            match front {
                Ok(front) => fronts.push(front),
                Err(refusal) => refused.push(refusal.to_string()),
            }
        }
        for (target, port) in fronts.iter().filter_map(Front::chosen) {
            self.durable.chosen_ports.entry(name.to_owned()).or_default().insert(target, port);
        }
        for refusal in refused {
            self.event("warning", name, &refusal);
        }
        self.watch_address(name);
    }

    /// What the next supervisor must know of roll-outs.
    pub(super) fn save_rollouts(&mut self) {
        if !std::mem::take(&mut self.rollouts_changed) {
            return;
        }
        self.durable.rollouts = kept(&self.wanted.services, &self.prepared, &self.before);
        if let Err(refusal) = self.save(&self.durable) {
            self.event("warning", &self.fixed.project.clone(), &refusal.to_string());
        }
    }

    /// What a replica was made from, if that is still known.
    pub(super) fn origin(&self, key: &Key) -> Option<&Prepared> {
        let view = self.world.get(&key.0)?.get(&key.1)?;
        let hash = throng_control::job::definition_of(&view.config_hash);
        let before = self.before.get(&key.0).map(|before| &before.prepared);
        self.prepared.get(&key.0).into_iter().chain(before).find(|prepared| prepared.config_hash == hash)
    }
}

/// How far the replacement of a service's replicas is.
pub(super) fn update(service: &WantedService) -> Option<Update> {
    let rollout = service.rollout.as_ref()?;
    let kept = |ordinal: &&u32| **ordinal <= service.replicas;
    Some(Update {
        state: rollout.state,
        done: rollout.done.iter().filter(kept).count() as u32,
        failed: rollout.failures,
        reason: rollout.reason.clone(),
    })
}

pub(super) fn kept(
    services: &BTreeMap<String, WantedService>,
    prepared: &BTreeMap<String, Prepared>,
    before: &BTreeMap<String, Before>,
) -> BTreeMap<String, Kept> {
    let under_way =
        services.iter().filter(|(_, service)| service.rollout.is_some() || service.previous.is_some());
    let kept = |(name, service): (&String, &WantedService)| {
        let earlier = before.get(name).map(|before| Earlier {
            app: before.app.clone(),
            image_id: before.prepared.root.image_id.clone(),
            hash: before.prepared.config_hash.clone(),
        });
        let kept = Kept {
            hash: service.config_hash.clone(),
            image_id: prepared.get(name)?.root.image_id.clone(),
            rollout: service.rollout.clone(),
            earlier,
        };
        Some((name.clone(), kept))
    };
    under_way.filter_map(kept).collect()
}

fn definition(prepared: &Prepared) -> Definition {
    let WantedService { config_hash, restart, checks, .. } = super::orders::wanted(prepared);
    Definition { config_hash, restart, checks }
}

fn alone(app: &App, name: &str) -> App {
    let mut app = app.clone();
    app.services.retain(|service, _| service == name);
    app
}
