//! The thin loop around the decisions: takes in what the runtime tells, observes, plans, hands the steps out. It keeps
//! its books as the real supervisor does, and looks at every plan as a sceptic would.

use crate::random::Random;
use crate::runtime::{Key, Nature, Replica, SimRuntime, State, Told};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use throng_control::health::{Question, Status};
use throng_control::restart::Rule;
use throng_control::rollout::State as RolloutState;
use throng_control::{
    Change, Definition, Limits, Phase, Plan, ReplicaView, Rollout, Step, Time, Wanted, WantedService, World,
    observe, plan,
};
use throng_model::update::UpdateOrder;

/// Room for everything: what bounds steps is tested elsewhere, and here it would hide what is planned too early.
const LIMITS: Limits = Limits { launches: 1_000, retirements: 1_000, probes: 1_000, rechecks: 1_000 };
pub const SERVICE: &str = "web";

/// What has come about, over all schedules: a simulation in which nothing happens proves nothing.
#[derive(Default)]
pub struct Tally {
    pub launches: AtomicU64,
    pub restarts: AtomicU64,
    pub updates: AtomicU64,
    pub done: AtomicU64,
    pub paused: AtomicU64,
    pub rolled_back: AtomicU64,
    pub ended: AtomicU64,
    pub supervisors: AtomicU64,
}

impl Tally {
    pub fn count(what: &AtomicU64) {
        what.fetch_add(1, Ordering::Relaxed);
    }

    fn change(&self, change: &Change) {
        match change {
            Change::Begun { .. } => Tally::count(&self.updates),
            Change::Ended { .. } => Tally::count(&self.done),
            Change::Paused { .. } => Tally::count(&self.paused),
            Change::RolledBack => Tally::count(&self.rolled_back),
            Change::Failed { .. } | Change::RollingBack { .. } => {}
        }
    }

    /// By name, and how often it must have come about in ten thousand schedules at least.
    pub fn all(&self) -> [(&'static str, &AtomicU64, u64); 8] {
        [
            ("launches", &self.launches, 100_000),
            ("restarts", &self.restarts, 50_000),
            ("updates", &self.updates, 10_000),
            ("updates done", &self.done, 10_000),
            ("pauses", &self.paused, 1_000),
            ("rollbacks", &self.rolled_back, 1_000),
            ("ended for not living", &self.ended, 5_000),
            ("supervisors killed", &self.supervisors, 5_000),
        ]
    }
}

/// What outlives the supervisor.
struct Durable {
    service: WantedService,
    rollout: Option<String>,
    previous: Option<Definition>,
}

/// Starts of one replica since it last ran well, as somebody outside would count them.
#[derive(Default, Clone, Copy)]
struct Loop {
    restarts: u32,
    ended: Option<Time>,
    began: Time,
}

pub struct Supervisor<'a> {
    tally: &'a Tally,
    pub wanted: Wanted,
    pub world: World,
    pub natures: BTreeMap<String, Nature>,
    generation: u64,
    generations: BTreeMap<Key, u64>,
    loops: BTreeMap<Key, Loop>,
    /// Questions after its life that each replica has left unanswered one after the other.
    silences: BTreeMap<Key, u32>,
    durable: Durable,
}

impl Supervisor<'_> {
    pub fn new(service: WantedService, nature: Nature, tally: &Tally) -> Supervisor<'_> {
        let natures = BTreeMap::from([(service.config_hash.clone(), nature)]);
        let durable = Durable { service: service.clone(), rollout: None, previous: None };
        let mut wanted = Wanted::default();
        wanted.services.insert(SERVICE.into(), service);
        Supervisor {
            tally,
            wanted,
            world: World::new(),
            natures,
            generation: 0,
            generations: BTreeMap::new(),
            loops: BTreeMap::new(),
            silences: BTreeMap::new(),
            durable,
        }
    }

    pub fn service(&mut self) -> &mut WantedService {
        self.wanted.services.get_mut(SERVICE).expect("the only service")
    }

    /// Asks for a definition, which may be the one that is wanted already.
    pub fn apply(&mut self, mut next: WantedService, nature: Nature) {
        self.natures.insert(next.config_hash.clone(), nature);
        next.succeed(self.service().clone());
        *self.service() = next;
        self.save();
    }

    pub fn scale(&mut self, count: u32) {
        self.service().replicas = count;
        self.save();
    }

    fn save(&mut self) {
        let service = self.service().clone();
        let rollout = service.rollout.as_ref().map(|r| serde_json::to_string(r).expect("it can be written"));
        self.durable = Durable { previous: service.previous.clone(), rollout, service };
    }

    /// A new supervisor after this one was killed: it knows what was saved and what runs.
    pub fn restart(&mut self, runtime: &mut SimRuntime, now: Time) {
        Tally::count(&self.tally.supervisors);
        runtime.forget_steps();
        let read = |text: &String| serde_json::from_str::<Rollout>(text).expect("it can be read");
        let mut service = self.durable.service.clone();
        service.rollout = self.durable.rollout.as_ref().map(read);
        service.previous = self.durable.previous.clone();
        *self.service() = service;
        (self.world, self.loops, self.silences) = (World::new(), BTreeMap::new(), BTreeMap::new());
        for (key, replica) in &runtime.replicas {
            let phase = match replica.state {
                State::Created => Phase::Created,
                State::Running => Phase::Running { since: now },
                State::Exited(exit) => Phase::Exited { exit, at: now },
            };
            let view = ReplicaView::new(replica.config_hash.clone(), phase, false);
            self.world.entry(key.0.clone()).or_default().insert(key.1, view);
            self.generations.insert(key.clone(), replica.generation);
        }
    }

    fn view(&mut self, key: &Key) -> Option<&mut ReplicaView> {
        self.world.get_mut(&key.0)?.get_mut(&key.1)
    }

    fn rule(&self, key: &Key) -> Rule {
        let service = &self.wanted.services[SERVICE];
        let view = self.world.get(&key.0).and_then(|replicas| replicas.get(&key.1));
        view.and_then(|view| service.definition_of(view)).map(|(rule, _)| *rule).unwrap_or_default()
    }

    pub fn take_in(&mut self, told: Told, now: Time) {
        match told {
            Told::Launched { key, generation, result } => {
                if self.generations.get(&key) != Some(&generation) {
                    return;
                }
                if result.is_err() {
                    self.loops.entry(key.clone()).or_default().ended = Some(now);
                }
                let Some(view) = self.view(&key) else { return };
                match result {
                    Ok(()) => view.started(now),
                    Err(permanent) => view.could_not_start(now, permanent),
                }
                self.loops.entry(key).or_default().began = now;
            }
            Told::Exited { key, generation, exit } => {
                let rule = self.rule(&key);
                let known = self.generations.get(&key) == Some(&generation);
                let Some(view) = self.view(&key).filter(|view| known || view.leaving) else { return };
                view.exited(exit, &rule, now);
                let counted = self.loops.entry(key).or_default();
                counted.ended = Some(now);
                if now - counted.began >= Duration::from_secs(600) {
                    counted.restarts = 0;
                }
            }
            Told::Probed { key, generation, question, success } => {
                let service = &self.wanted.services[SERVICE];
                let Some(view) = self.world.get_mut(&key.0).and_then(|replicas| replicas.get_mut(&key.1))
                else {
                    return;
                };
                let checks = service.definition_of(view).map(|(_, checks)| checks.clone());
                view.busy = false;
                if let Some(checks) = checks.filter(|_| self.generations.get(&key) == Some(&generation)) {
                    view.probed(&checks, question, success, now);
                    if question == Question::Liveness {
                        let silences = self.silences.entry(key).or_default();
                        *silences = if success { 0 } else { *silences + 1 };
                    }
                }
            }
            Told::Ended { key, generation } => {
                let known = self.generations.get(&key) == Some(&generation);
                if let Some(view) = self.view(&key).filter(|_| known) {
                    view.busy = false;
                }
            }
            Told::Retired { key, generation, well } => {
                if self.generations.get(&key) != Some(&generation) {
                    return;
                }
                if well {
                    self.world.get_mut(&key.0).and_then(|replicas| replicas.remove(&key.1));
                    self.world.retain(|_, replicas| !replicas.is_empty());
                    self.loops.remove(&key);
                } else if let Some(view) = self.view(&key) {
                    view.busy = false;
                }
            }
        }
    }

    /// Plans once, checks the plan, begins its steps. Returns when to plan again.
    pub fn plan(&mut self, runtime: &mut SimRuntime, now: Time, random: &mut Random) -> Option<Time> {
        let changes = observe(&mut self.wanted, &self.world, now);
        changes.iter().for_each(|(_, change)| self.tally.change(change));
        if !changes.is_empty() {
            self.save();
        }
        let first = plan(&self.wanted, &self.world, &LIMITS, now);
        self.check(&first, now);
        for step in &first.steps {
            self.begin(step, runtime, now, random);
        }
        let changes = observe(&mut self.wanted, &self.world, now);
        assert!(changes.is_empty(), "{changes:?} of steps that have only begun");
        let again = plan(&self.wanted, &self.world, &LIMITS, now);
        assert!(
            again.steps.is_empty(),
            "the plan of its own result is {:?} after {:?}",
            again.steps,
            first.steps
        );
        again.wake
    }

    fn begin(&mut self, step: &Step, runtime: &mut SimRuntime, now: Time, random: &mut Random) {
        self.generation += 1;
        let generation = self.generation;
        match step {
            Step::Launch { service, ordinal } => {
                Tally::count(&self.tally.launches);
                let key = (service.clone(), *ordinal);
                let hash = self.service().config_hash.clone();
                let view = ReplicaView::new(hash.clone(), Phase::Created, true);
                self.world.entry(key.0.clone()).or_default().insert(key.1, view);
                self.loops.insert(key.clone(), Loop::default());
                self.start(key, hash, generation, runtime, now, random);
            }
            Step::Restart { service, ordinal } => {
                Tally::count(&self.tally.restarts);
                let key = (service.clone(), *ordinal);
                let view = self.view(&key).expect("it was checked");
                let tried = !matches!(view.phase, Phase::Created);
                view.restarting();
                let hash = view.config_hash.clone();
                self.loops.entry(key.clone()).or_default().restarts += u32::from(tried);
                self.start(key, hash, generation, runtime, now, random);
            }
            Step::Retire { service, ordinal } => {
                let key = (service.clone(), *ordinal);
                self.view(&key).expect("it was checked").leave();
                self.generations.insert(key.clone(), generation);
                runtime.retire(key, generation, now, random);
            }
            Step::Probe { service, ordinal, question } => {
                let key = (service.clone(), *ordinal);
                self.view(&key).expect("it was checked").busy = true;
                runtime.probe(key.clone(), self.generations[&key], *question, now, random);
            }
            Step::End { service, ordinal } => {
                Tally::count(&self.tally.ended);
                let key = (service.clone(), *ordinal);
                self.view(&key).expect("it was checked").make_end();
                runtime.end(key.clone(), self.generations[&key], now, random);
            }
        }
    }

    fn start(
        &mut self,
        key: Key,
        config_hash: String,
        generation: u64,
        runtime: &mut SimRuntime,
        now: Time,
        random: &mut Random,
    ) {
        let nature = self.natures[&config_hash];
        self.generations.insert(key.clone(), generation);
        self.silences.remove(&key);
        let made = Replica { config_hash, nature, generation, state: State::Created, hung: false };
        runtime.launch(key, made, now, random);
    }

    /// All that must hold of a plan, worked out in another way than the planner does.
    fn check(&self, plan: &Plan, now: Time) {
        let service = &self.wanted.services[SERVICE];
        let none = BTreeMap::new();
        let replicas = self.world.get(SERVICE).unwrap_or(&none);
        let abreast = service.update_policy().map_or(1, |policy| match policy.parallelism {
            0 => service.replicas,
            some => some,
        });
        let starts_first =
            service.update_policy().is_some_and(|policy| policy.order == UpdateOrder::StartFirst);
        let surge = if starts_first { abreast.min(service.replicas) } else { 0 };
        let mut seen = BTreeSet::new();
        let mut taken_out = BTreeSet::new();
        for step in &plan.steps {
            let (Step::Launch { ordinal, .. }
            | Step::Restart { ordinal, .. }
            | Step::Retire { ordinal, .. }
            | Step::Probe { ordinal, .. }
            | Step::End { ordinal, .. }) = step;
            assert!(seen.insert(*ordinal), "two steps concern replica {ordinal}: {:?}", plan.steps);
            let view = replicas.get(ordinal);
            assert!(!view.is_some_and(|view| view.busy), "{step:?} concerns a busy replica");
            match step {
                Step::Launch { .. } => {
                    assert!(view.is_none(), "{step:?} of one that is there");
                    let most = service.replicas + surge;
                    assert!(*ordinal <= most, "{step:?}, but {} and {surge} are the most", service.replicas);
                }
                Step::Restart { .. } => {
                    assert!(
                        view.is_some_and(|view| !view.runs()),
                        "{step:?} of one that runs or is not there"
                    );
                    self.check_back_off(*ordinal, now);
                }
                Step::Retire { .. } => {
                    let view = view.expect("one that is not there cannot leave");
                    if *ordinal <= service.replicas && service.ready(view) {
                        taken_out.insert(*ordinal);
                    }
                }
                Step::Probe { .. } => {
                    assert!(view.is_some_and(ReplicaView::runs), "{step:?} of one that does not run")
                }
                Step::End { .. } => self.check_end(*ordinal, view.expect("one that is there")),
            }
        }
        if !taken_out.is_empty() {
            self.check_availability(service, replicas, &taken_out, abreast);
        }
    }

    /// Only who has left all tries unanswered is ended, and nobody gives work to it any more.
    fn check_end(&self, ordinal: u32, view: &ReplicaView) {
        let service = &self.wanted.services[SERVICE];
        let (_, checks) = service.definition_of(view).expect("one of a known definition");
        assert!(view.runs() && !service.ready(view), "{ordinal} would be given work until it has ended");
        if view.startup.status == Status::Unhealthy {
            let retries = checks.startup.as_ref().expect("it has a startup check").retries;
            assert!(view.startup.failures >= retries, "{ordinal} is ended while it starts up: {view:?}");
            return;
        }
        let retries = checks.liveness.as_ref().expect("it has a liveness check").retries;
        let silences = self.silences.get(&(SERVICE.to_owned(), ordinal)).copied().unwrap_or_default();
        assert!(silences >= retries, "{ordinal} is ended after {silences} of {retries} tries");
    }

    /// Replicas that work are taken out only as far as the policy lets them.
    fn check_availability(
        &self,
        service: &WantedService,
        replicas: &BTreeMap<u32, ReplicaView>,
        taken_out: &BTreeSet<u32>,
        abreast: u32,
    ) {
        let rollout = service.rollout.as_ref().expect("nothing that works is taken out without a roll-out");
        assert!(
            matches!(rollout.state, RolloutState::Updating | RolloutState::RollingBack),
            "{taken_out:?} are taken out while {:?}",
            rollout.state
        );
        let bad = |ordinal: &u32| rollout.failed.contains(ordinal) || rollout.again.contains(ordinal);
        // Old replicas that have ended by themselves are not the roll-out's doing.
        let out = (1..=service.replicas).filter(|ordinal| match replicas.get(ordinal) {
            None => true,
            Some(_) if taken_out.contains(ordinal) => true,
            // Nor are those that failed before.
            Some(view) if bad(ordinal) && !view.leaving => false,
            Some(view) => {
                view.leaving
                    || view.config_hash == service.config_hash
                        && !service.ready(view)
                        && !rollout.done.contains(ordinal)
            }
        });
        let out = out.count() as u32;
        assert!(out <= abreast, "{out} are out at a time, {abreast} may be: {taken_out:?} of {replicas:?}");
    }

    /// Crash loops are in back-off: 10 s, doubling up to 5 min, after the first restart.
    fn check_back_off(&self, ordinal: u32, now: Time) {
        let Some(counted) = self.loops.get(&(SERVICE.to_owned(), ordinal)) else { return };
        let (Some(ended), Some(times)) = (counted.ended, counted.restarts.checked_sub(1)) else { return };
        let pause = Duration::from_secs(10).saturating_mul(1 << times.min(10)).min(Duration::from_secs(300));
        let waited = now - ended;
        assert!(
            waited >= pause,
            "restart {} of replica {ordinal} after {waited:?}, not {pause:?}",
            times + 2
        );
    }

    /// Whether everything is as wanted and nothing is to be done but to look.
    pub fn settled(&self) -> bool {
        let service = &self.wanted.services[SERVICE];
        let replicas = self.world.get(SERVICE);
        let as_wanted = |ordinal: u32| {
            let view = replicas.and_then(|replicas| replicas.get(&ordinal));
            view.is_some_and(|view| view.config_hash == service.config_hash && service.ready(view))
        };
        service.rollout.is_none()
            && replicas.map_or(0, BTreeMap::len) == service.replicas as usize
            && (1..=service.replicas).all(as_wanted)
    }
}
