//! From a plan to steps under way.

use super::*;
use crate::walls;
use throng_control::pace::Reading;
use throng_model::replica::{NetworkSpec, ReplicaSpec};

/// How replicas are asked to leave whose definition nobody knows any more: Compose's defaults, SIGTERM and 10 s.
pub(super) const STOP_SIGNAL: i32 = 15;
pub(super) const STOP_GRACE: Duration = Duration::from_secs(10);

/// The address that a service asks for in a network of the host's. Plain processes cannot have one.
fn own_address(project: &str, prepared: &Prepared, network: &NetworkSpec) -> Option<Ipv4Addr> {
    let key = network.name.strip_prefix(project)?.strip_prefix('_')?;
    let asked = prepared.service.networks.get(key)?.address?;
    network.subnet.contains(&asked).then_some(asked)
}

impl Actor {
    /// Plans once and begins what the plan says. Returns when to plan again even if nothing happens.
    pub(super) fn plan(&mut self) -> Option<Instant> {
        let now = self.now();
        let (before, host) = (self.pace.batch(), &mut self.host);
        let mut reading = None;
        let room = self.pace.room(self.starting, now, || *reading.insert(host.read()));
        let limits = Limits {
            launches: (self.starting + room).min(self.fixed.limits.launches),
            rechecks: self.budget.affordable(now),
            ..self.fixed.limits
        };
        let unreachable = self.notice_unreachable();
        self.notice_cut();
        self.look_at_jobs();
        self.place();
        let changes = throng_control::observe(&mut self.wanted, &self.world, now);
        self.follow(changes);
        let plan = throng_control::plan(&self.wanted, &self.world, &limits, now);
        if let Some(reading) = reading.filter(|_| plan.launches_held && self.pace.batch() < before) {
            self.tell_pressed(reading);
        }
        self.held = plan.launches_held;
        self.tell_late(plan.probes_late);
        let held = plan.launches_held && self.starting == 0 || plan.probes_late > Duration::ZERO;
        let look = held.then(|| self.now() + SETTLING_LOOK);
        let wake = plan.wake.into_iter().chain(look).chain(unreachable).min();
        self.carry_out(plan);
        wake.map(|time| self.epoch + time)
    }

    fn tell_pressed(&mut self, reading: Reading) {
        let Reading { runnable, memory, disk } = reading;
        let message = format!(
            "starting {} replicas at a time: {runnable:.1} tasks a core want to run, {:.0} % of the time something \
             waits for memory, {:.0} % for the disk",
            self.pace.batch(),
            100.0 * memory,
            100.0 * disk,
        );
        self.event("host", &self.fixed.project.clone(), &message);
    }

    /// Health checks that come late make replicas look healthier or sicker than they are.
    fn tell_late(&mut self, late: Duration) {
        let lately = self.checks_late_told.is_some_and(|told| told.elapsed() < CHECKS_LATE_TOLD);
        if late < CHECKS_LATE || lately {
            return;
        }
        self.checks_late_told = Some(Instant::now());
        let message = format!(
            "health checks come up to {:.1} s late: they may take {:.0} % of {} cores (hint: give them a longer \
             interval or a cheaper test)",
            late.as_secs_f64(),
            100.0 * self.fixed.checks_share,
            self.fixed.cores,
        );
        self.event("warning", &self.fixed.project.clone(), &message);
    }

    pub(super) fn carry_out(&mut self, plan: Plan) {
        let waiting = plan.waiting.into_iter().map(|w| (w.service, (w.reason, w.hopeless))).collect();
        self.waiting = self.waiting_for_nodes();
        // What a service waits for before anything else of it starts.
        self.waiting.extend::<BTreeMap<_, _>>(waiting);
        let moving = self.to_move();
        let mut leaving: Vec<_> = moving.into_iter().filter_map(|key| self.take_out(key)).collect();
        self.place_stand_ins(&plan.steps);
        let mut ending = Vec::new();
        for step in plan.steps {
            match step {
                Step::Launch { service, ordinal } => self.launch((service, ordinal)),
                Step::Restart { service, ordinal } => self.restart((service, ordinal)),
                Step::Retire { service, ordinal } => leaving.extend(self.take_out((service, ordinal))),
                Step::Probe { service, ordinal, question } => self.probe((service, ordinal), question),
                Step::End { service, ordinal } => ending.push((service, ordinal)),
            }
        }
        self.retire(leaving);
        self.end(ending);
    }

    pub(super) fn launch(&mut self, key: Key) {
        // Its turn comes when there is a node for it.
        let Ok(node) = self.home(&key) else { return };
        let mut networks = Vec::new();
        let full = self.take_addresses(&key, &mut networks);
        let Some(prepared) = self.prepared.get(&key.0) else { return };
        self.generation += 1;
        let spec = prepared.replica(self.id(&key), self.generation, networks.clone());
        let given = self.recommended(&prepared.service);
        let resources = given.unwrap_or(spec.resources);
        let spec = self.of_job(&key, ReplicaSpec { node: node.clone(), resources, ..spec });
        let mut detail = Detail::new(self.generation, networks);
        (detail.node, detail.given) = (node, given);
        detail.of_job = throng_control::job::is_of_job(&spec.config_hash);
        detail.image = prepared.service.image.clone();
        detail.command = spec.process.args.join(" ");
        detail.stop = Some((spec.stop_signal, spec.stop_grace_period));
        let mut view = ReplicaView::new(spec.config_hash.clone(), Phase::Created, full.is_none());
        view.generation = self.generation;
        self.insert(key.clone(), view, detail);
        self.lives_changed |= given.is_some();
        self.tell_given(&key.0, given);
        match full {
            Some(error) => self.launch_failed(&key, error, false),
            None => self.begin_launch(key, spec),
        }
    }

    /// Adds an address in each network of the service that `networks` has none in. Says so if there is none left.
    fn take_addresses(&mut self, key: &Key, networks: &mut Vec<Attachment>) -> Option<String> {
        let mut full = None;
        let prepared = self.prepared.get(&key.0)?;
        for network in &prepared.networks {
            if networks.iter().any(|attachment| attachment.network == network.name) {
                continue;
            }
            let own = own_address(&self.fixed.project, prepared, network);
            let taken = self.taken.entry(network.name.clone()).or_default();
            let address = match own {
                Some(own) if taken.take_exactly(own) => Some(own),
                Some(own) => {
                    full = Some(format!("its address {own} in network {} is taken", network.name));
                    continue;
                }
                None => taken.take(network),
            };
            match address {
                Some(address) => {
                    self.fixed.directory.place(&network.name, &key.0, key.1, address);
                    networks.push(Attachment { network: network.name.clone(), address });
                }
                None => {
                    let error = format!("network {} has no free address in {}", network.name, network.subnet);
                    let hint = walls::hint(&error).map(|hint| format!(" (hint: {hint})"));
                    full = Some(error + &hint.unwrap_or_default());
                }
            }
        }
        full
    }

    /// Says which addresses of networks are given out in turn, and which are for who asks for them.
    pub(super) fn define_addresses(&mut self) {
        for (key, spec) in &self.durable.networks {
            let Some(network) = self.durable.app.networks.get(key) else { continue };
            let services = self.durable.app.services.values();
            let own = services.filter_map(|service| service.networks.get(key)?.address);
            let kept = network.reserved.values().copied().chain(own).collect();
            self.taken.entry(spec.name.clone()).or_default().define(network.range, kept);
        }
    }

    fn begin_launch(&mut self, key: Key, spec: ReplicaSpec) {
        self.starting += 1;
        self.pace.began(1);
        self.tasks.spawn(steps::launch(self.fixed.runtime.clone(), key, spec));
    }

    /// Starts a replica again. Its record is written anew, so that it gets what its definition says today.
    pub(super) fn restart(&mut self, key: Key) {
        let Some(detail) = self.detail(&key) else { return };
        // It failed for want of an address, say, and some may be free by now.
        let (mut networks, before) = (detail.networks.clone(), detail.given);
        let full = self.take_addresses(&key, &mut networks);
        self.generation += 1;
        let id = self.id(&key);
        let Some(origin) = self.origin(&key) else { return };
        let spec = origin.replica(id, self.generation, networks.clone());
        let given = self.given_again(&origin.service, before);
        self.lives_changed = true;
        self.tell_given(&key.0, given);
        let spec = self.of_job(&key, spec);
        let Some((view, detail)) = Self::replica(&mut self.world, &mut self.details, &key) else { return };
        let resources = given.unwrap_or(spec.resources);
        let spec = ReplicaSpec { node: detail.node.clone(), resources, ..spec };
        detail.given = given;
        detail.networks = networks;
        if let Some(error) = full {
            return self.launch_failed(&key, error, false);
        }
        detail.generation = self.generation;
        detail.exit = None;
        detail.finished_at = None;
        detail.restarts = detail.restarts.saturating_add(u32::from(!matches!(view.phase, Phase::Created)));
        view.restarting();
        view.generation = self.generation;
        detail.stop = Some((spec.stop_signal, spec.stop_grace_period));
        self.begin_launch(key, spec);
    }

    /// Marks a replica as leaving and says how it is to be let go.
    pub(super) fn take_out(&mut self, key: Key) -> Option<(Key, steps::Retirement)> {
        self.generation += 1;
        let id = self.id(&key);
        let grace = self.grace;
        let proxies =
            self.fronts.get(&key.0).into_iter().flatten().map(|front| front.proxy.clone()).collect();
        let stop = self.detail(&key).and_then(|detail| detail.stop);
        let order = steps::Retirement {
            id,
            generation: self.generation,
            signal: stop.map_or(STOP_SIGNAL, |(signal, _)| signal),
            grace: grace.or(stop.map(|(_, grace)| grace)).unwrap_or(STOP_GRACE),
            proxies,
        };
        let (view, _) = Self::replica(&mut self.world, &mut self.details, &key)?;
        view.leave();
        Some((key, order))
    }

    /// Lets go of replicas that have been taken out. The balancers must know before they are asked to leave; they are
    /// told once for all.
    pub(super) fn retire(&mut self, leaving: Vec<(Key, steps::Retirement)>) {
        let services: BTreeSet<String> = leaving.iter().map(|((service, _), _)| service.clone()).collect();
        services.iter().for_each(|service| self.tell(service));
        for (key, order) in leaving {
            self.tasks.spawn(steps::retire(self.fixed.runtime.clone(), key, order));
        }
    }

    pub(super) fn replica<'a>(
        world: &'a mut World,
        details: &'a mut Details,
        key: &Key,
    ) -> Option<(&'a mut ReplicaView, &'a mut Detail)> {
        Some((world.get_mut(&key.0)?.get_mut(&key.1)?, details.get_mut(&key.0)?.get_mut(&key.1)?))
    }

    pub(super) fn detail(&self, key: &Key) -> Option<&Detail> {
        self.details.get(&key.0)?.get(&key.1)
    }
}
