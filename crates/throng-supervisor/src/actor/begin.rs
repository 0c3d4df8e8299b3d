//! From a plan to steps under way.

use super::*;

/// How replicas are asked to leave whose definition nobody knows any more: Compose's defaults, SIGTERM and 10 s.
const STOP_SIGNAL: i32 = 15;
const STOP_GRACE: Duration = Duration::from_secs(10);

impl Actor {
    pub(super) fn carry_out(&mut self, plan: Plan) {
        let waiting = plan.waiting.into_iter().map(|w| (w.service, (w.reason, w.hopeless))).collect();
        self.waiting = waiting;
        for step in plan.steps {
            match step {
                Step::Launch { service, ordinal } => self.launch((service, ordinal)),
                Step::Restart { service, ordinal } => self.restart((service, ordinal)),
                Step::Retire { service, ordinal } => self.retire((service, ordinal)),
                Step::Probe { service, ordinal } => self.probe((service, ordinal)),
            }
        }
    }

    pub(super) fn launch(&mut self, key: Key) {
        let Some(prepared) = self.prepared.get(&key.0) else { return };
        self.generation += 1;
        let mut networks = Vec::new();
        let mut full = None;
        for network in &prepared.networks {
            let taken = self.taken.entry(network.name.clone()).or_default();
            match address::free_address(network, taken) {
                Some(address) => {
                    taken.insert(address);
                    networks.push(Attachment { network: network.name.clone(), address });
                }
                None => {
                    full = Some(format!("network {} has no free address in {}", network.name, network.subnet))
                }
            }
        }
        let spec = prepared.replica(self.id(&key), self.generation, networks.clone());
        let mut detail = Detail::new(self.generation, networks);
        detail.image = prepared.service.image.clone();
        detail.command = spec.process.args.join(" ");
        detail.stop = Some((spec.stop_signal, spec.stop_grace_period));
        let view = ReplicaView {
            config_hash: prepared.config_hash.clone(),
            phase: Phase::Created,
            busy: full.is_none(),
            health: Health::default(),
            streak: 0,
        };
        self.details.insert(key.clone(), detail);
        self.world.entry(key.0.clone()).or_default().insert(key.1, view);
        match full {
            Some(error) => self.launch_failed(&key, error, false),
            None => {
                self.tasks.spawn(steps::launch(self.fixed.engine.clone(), key, spec));
            }
        }
    }

    /// Starts a replica again. Its record is written anew, so that it gets today's definition.
    pub(super) fn restart(&mut self, key: Key) {
        let Some(prepared) = self.prepared.get(&key.0) else { return };
        self.generation += 1;
        let id = self.id(&key);
        let Some((view, detail)) = Self::replica(&mut self.world, &mut self.details, &key) else { return };
        view.busy = true;
        detail.generation = self.generation;
        detail.exit = None;
        detail.finished_at = None;
        if !matches!(view.phase, Phase::Created) {
            view.streak = view.streak.saturating_add(1);
            detail.restarts = detail.restarts.saturating_add(1);
        }
        let spec = prepared.replica(id, self.generation, detail.networks.clone());
        detail.stop = Some((spec.stop_signal, spec.stop_grace_period));
        self.tasks.spawn(steps::launch(self.fixed.engine.clone(), key, spec));
    }

    pub(super) fn retire(&mut self, key: Key) {
        self.generation += 1;
        let id = self.id(&key);
        let grace = self.grace;
        let proxies =
            self.fronts.get(&key.0).into_iter().flatten().map(|front| front.proxy.clone()).collect();
        let stop = self.details.get(&key).and_then(|detail| detail.stop);
        let order = steps::Retirement {
            id,
            generation: self.generation,
            signal: stop.map_or(STOP_SIGNAL, |(signal, _)| signal),
            grace: grace.or(stop.map(|(_, grace)| grace)).unwrap_or(STOP_GRACE),
            proxies,
        };
        let Some((view, detail)) = Self::replica(&mut self.world, &mut self.details, &key) else { return };
        view.busy = true;
        detail.leaving = true;
        // The balancers must know before the replica is asked to leave.
        self.tell(&key.0.clone());
        self.tasks.spawn(steps::retire(self.fixed.engine.clone(), key, order));
    }

    pub(super) fn probe(&mut self, key: Key) {
        let id = self.id(&key);
        let Some(check) = self.prepared.get(&key.0).and_then(|prepared| prepared.health.clone()) else {
            return;
        };
        let Some((view, detail)) = Self::replica(&mut self.world, &mut self.details, &key) else { return };
        view.busy = true;
        let generation = detail.generation;
        self.tasks.spawn(steps::probe(self.fixed.engine.clone(), key, id, generation, check));
    }

    pub(super) fn replica<'a>(
        world: &'a mut World,
        details: &'a mut BTreeMap<Key, Detail>,
        key: &Key,
    ) -> Option<(&'a mut ReplicaView, &'a mut Detail)> {
        Some((world.get_mut(&key.0)?.get_mut(&key.1)?, details.get_mut(key)?))
    }
}
