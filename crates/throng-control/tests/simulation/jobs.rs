//! Jobs in virtual time: replicas end well or badly, are killed, do not start; supervisors are killed in the middle.

use crate::random::Random;
use crate::runtime::{Faults, Key, Nature, Replica, SimRuntime, State, Told};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use throng_control::job::{Change, Progress, Work, observe};
use throng_control::restart::Rule;
use throng_control::{Limits, Phase, ReplicaView, Step, Time, Wanted, WantedService, World, plan};
use throng_model::job::{Job, JobBackOff};
use throng_model::replica::Exit;

const LIMITS: Limits = Limits { launches: 1_000, retirements: 1_000, probes: 1_000, rechecks: 1_000 };
/// The host's clock at the beginning.
const EPOCH: Duration = Duration::from_secs(1_772_366_400);
/// Far longer than all pauses of one run together.
const END: Duration = Duration::from_secs(6 * 3_600);
const NAME: &str = "job";

/// What has come about, over all schedules.
#[derive(Default)]
pub struct Tally {
    complete: AtomicU64,
    failed: AtomicU64,
    failures: AtomicU64,
    supervisors: AtomicU64,
}

impl Tally {
    pub fn all(&self) -> [(&'static str, &AtomicU64, u64); 4] {
        [
            ("jobs complete", &self.complete, 1_000),
            ("jobs failed", &self.failed, 500),
            ("failures of their replicas", &self.failures, 5_000),
            ("supervisors of jobs killed", &self.supervisors, 5_000),
        ]
    }
}

struct Supervisor<'a> {
    tally: &'a Tally,
    wanted: Wanted,
    world: World,
    runtime: SimRuntime,
    random: Random,
    generation: u64,
    /// What is on the disk.
    saved: String,
    /// Ordinals whose process has ended with 0, whoever saw it.
    succeeded: BTreeSet<u32>,
    now: Time,
    outcome: Option<bool>,
}

fn job(random: &mut Random) -> Job {
    Job {
        parallelism: random.pick(&[None, Some(1), Some(2), Some(4)]),
        retries: random.below(8) as u32,
        back_off: JobBackOff { initial: Duration::from_secs(5), max: Duration::from_secs(60) },
        deadline: random.pick(&[None, None, Some(Duration::from_secs(30))]),
        schedule: None,
    }
}

impl Supervisor<'_> {
    fn service(&self) -> &WantedService {
        &self.wanted.services[NAME]
    }

    fn work(&self) -> &Work {
        self.service().job.as_ref().expect("a job")
    }

    fn view(&mut self, key: &Key, generation: u64) -> Option<&mut ReplicaView> {
        let view = self.world.get_mut(&key.0)?.get_mut(&key.1)?;
        (view.generation == generation).then_some(view)
    }

    /// A new one: it knows what was saved and what is there.
    fn restart(&mut self) {
        self.tally.supervisors.fetch_add(1, Ordering::Relaxed);
        self.runtime.forget_steps();
        let progress: Progress = serde_json::from_str(&self.saved).expect("it can be read");
        let mut work = Work::new(self.work().job.clone()).expect("a job");
        work.progress = progress;
        self.wanted.services.get_mut(NAME).expect("there").job = Some(work);
        self.world = World::new();
        for (key, replica) in &self.runtime.replicas {
            let phase = match replica.state {
                State::Created => Phase::Created,
                State::Running => Phase::Running { since: self.now },
                State::Exited(exit) => Phase::Exited { exit, at: self.now },
            };
            let mut view = ReplicaView::new(replica.config_hash.clone(), phase, false);
            view.generation = replica.generation;
            self.world.entry(key.0.clone()).or_default().insert(key.1, view);
        }
    }

    fn take_in(&mut self, told: Told) {
        let now = self.now;
        match told {
            Told::Launched { key, generation, result } => {
                let Some(view) = self.view(&key, generation) else { return };
                match result {
                    Ok(()) => view.started(now),
                    Err(permanent) => view.could_not_start(now, permanent),
                }
            }
            Told::Exited { key, generation, exit } => {
                let Some(view) = self.view(&key, generation) else { return };
                view.exited(exit, &Rule::default(), now);
                if !exit.is_success() && !view.made_to_end {
                    self.tally.failures.fetch_add(1, Ordering::Relaxed);
                }
            }
            Told::Ended { key, generation } => {
                if let Some(view) = self.view(&key, generation) {
                    view.busy = false;
                }
            }
            Told::Probed { .. } | Told::Retired { .. } => panic!("nobody asked for {told:?}"),
        }
    }

    fn plan(&mut self) -> Option<Time> {
        let changes = observe(&mut self.wanted, &self.world, self.now, EPOCH + self.now);
        if !changes.is_empty() {
            self.saved = serde_json::to_string(&self.work().progress).expect("it can be written");
        }
        for (_, change) in changes {
            match change {
                Change::Complete { .. } => self.outcome = Some(true),
                Change::Failed { .. } => self.outcome = Some(false),
                _ => {}
            }
        }
        let next = plan(&self.wanted, &self.world, &LIMITS, self.now);
        for step in &next.steps {
            self.begin(step);
        }
        let again = plan(&self.wanted, &self.world, &LIMITS, self.now);
        assert!(
            again.steps.is_empty(),
            "the plan of its own result: {:?} after {:?}",
            again.steps,
            next.steps
        );
        let most = self.work().job.parallelism.unwrap_or(u32::MAX) as usize;
        let running =
            self.runtime.replicas.values().filter(|replica| replica.state == State::Running).count();
        assert!(running <= most, "{running} run, {most} may");
        again.wake
    }

    fn begin(&mut self, step: &Step) {
        self.generation += 1;
        let generation = self.generation;
        match step {
            Step::Launch { ordinal, .. } | Step::Restart { ordinal, .. } => {
                assert!(!self.succeeded.contains(ordinal), "{step:?} of one that has succeeded");
                assert_eq!(self.outcome, None, "{step:?} of a job that has ended");
                let key = (NAME.to_owned(), *ordinal);
                let hash = self.service().config_hash.clone();
                let (mark, _) = self.work().mark(&hash, *ordinal).expect("it is under way");
                let replicas = self.world.entry(NAME.into()).or_default();
                let fresh = || ReplicaView::new(mark.clone(), Phase::Created, true);
                let view = replicas.entry(*ordinal).or_insert_with(fresh);
                if matches!(step, Step::Restart { .. }) {
                    view.restarting();
                }
                view.generation = generation;
                let nature = Nature::Works { fails_one_in: 4 };
                let made =
                    Replica { config_hash: mark, nature, generation, state: State::Created, hung: false };
                self.runtime.launch(key, made, self.now, &mut self.random);
            }
            Step::End { ordinal, .. } => {
                assert_eq!(self.outcome, Some(false), "{step:?} of a job that goes on");
                let key = (NAME.to_owned(), *ordinal);
                let view = self.world.get_mut(NAME).and_then(|r| r.get_mut(ordinal)).expect("there");
                view.make_end();
                let generation = view.generation;
                self.runtime.end(key, generation, self.now, &mut self.random);
            }
            Step::Retire { .. } | Step::Probe { .. } => panic!("{step:?} of a job that nobody changes"),
        }
    }

    /// Goes on until then.
    fn run_until(&mut self, end: Time) {
        loop {
            let wake = self.plan();
            let next = wake.into_iter().chain(self.runtime.next()).min();
            let Some(next) = next.filter(|next| *next < end) else {
                self.now = end;
                return;
            };
            self.now = next.max(self.now);
            let told = self.runtime.take(self.now, &mut self.random);
            for (key, replica) in &self.runtime.replicas {
                if replica.state == State::Exited(Exit::Code { code: 0 }) {
                    self.succeeded.insert(key.1);
                }
            }
            told.into_iter().for_each(|told| self.take_in(told));
        }
    }
}

pub fn schedule(seed: u64, tally: &Tally) {
    let mut random = Random::new(seed);
    let job = job(&mut random);
    let retries = job.retries;
    let service = WantedService {
        replicas: 1 + random.below(8) as u32,
        config_hash: "definition".into(),
        job: Some(Work::new(job).expect("a job")),
        ..WantedService::default()
    };
    let completions = service.replicas;
    let wanted = Wanted { services: BTreeMap::from([(NAME.to_owned(), service)]), going_down: false };
    let saved = serde_json::to_string(&Progress::default()).expect("it can be written");
    let (world, runtime) = (World::new(), SimRuntime::default());
    let mut supervisor = Supervisor {
        tally,
        wanted,
        world,
        runtime,
        random,
        generation: 0,
        saved,
        succeeded: BTreeSet::new(),
        now: Time::ZERO,
        outcome: None,
    };
    for _ in 0..12 {
        let pause = Duration::from_millis(supervisor.random.below(8_000));
        supervisor.run_until(supervisor.now + pause);
        let there: Vec<Key> = supervisor.runtime.replicas.keys().cloned().collect();
        match supervisor.random.below(3) {
            0 if !there.is_empty() => {
                let key = &there[supervisor.random.below(there.len() as u64) as usize];
                supervisor.runtime.kill(key, supervisor.now);
            }
            1 => supervisor.restart(),
            _ => {
                let start_fails = supervisor.random.pick(&[0, 3]);
                supervisor.runtime.faults = Faults { start_fails, ..Faults::default() };
            }
        }
    }
    supervisor.runtime.faults = Faults::default();
    supervisor.run_until(supervisor.now + END);
    let failures = supervisor.work().status(completions, 0, supervisor.now).failed;
    match supervisor.outcome {
        Some(true) => {
            assert_eq!(supervisor.succeeded.len(), completions as usize);
            assert!(failures <= retries, "{failures} failures of {retries} that are borne");
            tally.complete.fetch_add(1, Ordering::Relaxed);
        }
        Some(false) => {
            let running = supervisor.runtime.replicas.values().any(|replica| replica.state == State::Running);
            assert!(!running, "what runs of a failed job is ended");
            tally.failed.fetch_add(1, Ordering::Relaxed);
        }
        None => panic!("after {END:?} it has neither failed nor succeeded: {:?}", supervisor.work().progress),
    }
}
