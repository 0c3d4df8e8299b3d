//! Random faults against the decisions, in virtual time: replicas die, do not start, start slowly, fall ill, ignore
//! their stop signal; supervisors are killed; counts and definitions change all the while, also to ones that do not work.
//!
//! Every schedule follows from its seed. The seed of one that fails is printed, and runs alone with
//! `THRONG_SIM_SEED=… cargo test -p throng-control --test simulation`.

#![allow(clippy::unwrap_used, reason = "tests may fail")]

mod jobs;
mod random;
mod runtime;
mod supervisor;

use random::Random;
use runtime::{Faults, Nature, SimRuntime};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use supervisor::{Supervisor, Tally};
use throng_control::health::Checks;
use throng_control::{Time, WantedService};
use throng_model::app::{HealthCheck, HealthTest, RestartPolicy};
use throng_model::update::{FailureAction, UpdateOrder, UpdatePolicy};

const SCHEDULES: u64 = 10_000;
/// How long things happen, and how long after that all must be as wanted: the longest back-off, and every replica
/// replaced one after the other.
const TROUBLE: Duration = Duration::from_secs(240);
const REST: Duration = Duration::from_secs(1_800);
const REPLICAS_MOST: u64 = 6;

fn policy(random: &mut Random) -> Option<UpdatePolicy> {
    if random.one_in(4) {
        return None;
    }
    Some(UpdatePolicy {
        parallelism: random.below(4) as u32,
        delay: Duration::from_millis(random.pick(&[0, 0, 500, 3_000])),
        order: random.pick(&[UpdateOrder::StopFirst, UpdateOrder::StartFirst]),
        monitor: Duration::from_millis(random.pick(&[0, 1_000, 5_000])),
        max_failure_ratio: random.pick(&[0.0, 0.0, 0.3, 1.0]),
        failure_action: random.pick(&[
            FailureAction::Pause,
            FailureAction::Continue,
            FailureAction::Rollback,
            FailureAction::Rollback,
        ]),
    })
}

fn service(number: u64, replicas: u32, random: &mut Random) -> WantedService {
    let mut check = |seconds| HealthCheck {
        test: HealthTest::Shell("true".into()),
        interval: Duration::from_secs(seconds),
        timeout: Duration::from_secs(1),
        retries: 1 + random.below(2) as u32,
        start_period: Duration::ZERO,
        start_interval: Duration::from_secs(2),
    };
    let (readiness, liveness, startup) = (check(30), check(10), check(20));
    let checks = Checks {
        startup: random.one_in(4).then_some(startup),
        readiness: random.one_in(2).then_some(readiness),
        liveness: random.one_in(2).then_some(liveness),
    };
    WantedService {
        replicas,
        config_hash: format!("definition {number}"),
        restart: RestartPolicy::Always.into(),
        checks,
        update: policy(random),
        rollback: policy(random),
        ..WantedService::default()
    }
}

/// Everything of one schedule.
struct Simulation<'a> {
    random: Random,
    runtime: SimRuntime,
    supervisor: Supervisor<'a>,
    now: Time,
    definitions: u64,
}

impl<'a> Simulation<'a> {
    fn new(seed: u64, tally: &'a Tally) -> Simulation<'a> {
        let mut random = Random::new(seed);
        let replicas = 1 + random.below(REPLICAS_MOST) as u32;
        let supervisor = Supervisor::new(service(0, replicas, &mut random), Nature::Good, tally);
        Simulation { random, runtime: SimRuntime::default(), supervisor, now: Time::ZERO, definitions: 0 }
    }

    /// Goes on until then, or until `done`. Says whether it was.
    fn run_until(&mut self, end: Time, done: impl Fn(&Supervisor<'_>) -> bool) -> bool {
        loop {
            let wake = self.supervisor.plan(&mut self.runtime, self.now, &mut self.random);
            if done(&self.supervisor) {
                return true;
            }
            let next = wake.into_iter().chain(self.runtime.next()).min();
            let Some(next) = next.filter(|next| *next < end) else {
                self.now = end;
                return false;
            };
            self.now = next.max(self.now);
            for told in self.runtime.take(self.now, &mut self.random) {
                self.supervisor.take_in(told, self.now);
            }
        }
    }

    fn something_happens(&mut self) {
        let random = &mut self.random;
        match random.below(10) {
            0..=2 => {
                let there: Vec<_> = self.runtime.replicas.keys().cloned().collect();
                if !there.is_empty() {
                    let key = &there[random.below(there.len() as u64) as usize];
                    self.runtime.kill(key, self.now);
                }
            }
            3 => self.supervisor.scale(random.below(REPLICAS_MOST + 1) as u32),
            4 | 5 => {
                let nature = random.pick(&[
                    Nature::Good,
                    Nature::Good,
                    Nature::Crashes,
                    Nature::Broken,
                    Nature::Sick,
                    Nature::Hangs,
                ]);
                self.define(nature);
            }
            6 => {
                let same = self.supervisor.service().clone();
                let nature = self.supervisor.natures[&same.config_hash];
                self.supervisor.apply(WantedService { previous: None, rollout: None, ..same }, nature);
            }
            7 => self.supervisor.restart(&mut self.runtime, self.now),
            8 => {
                let there: Vec<_> = self.runtime.replicas.keys().cloned().collect();
                if !there.is_empty() {
                    self.runtime.hang(&there[random.below(there.len() as u64) as usize]);
                }
            }
            _ => {
                let mut one_in = || random.pick(&[0, 0, 2, 10]);
                self.runtime.faults = Faults {
                    start_fails: one_in(),
                    start_slow: one_in(),
                    probe_fails: one_in(),
                    stop_ignored: one_in(),
                    remove_fails: one_in(),
                };
            }
        }
    }

    fn define(&mut self, nature: Nature) {
        self.definitions += 1;
        let replicas = self.supervisor.service().replicas;
        let mut next = service(self.definitions, replicas, &mut self.random);
        // Where nobody asks, nobody could know.
        let asks = |wanted: fn(&Checks) -> bool| {
            (1..).map(|seed| service(0, 1, &mut Random::new(seed)).checks).find(wanted).unwrap_or_default()
        };
        if nature == Nature::Sick && next.checks.readiness.is_none() {
            next.checks.readiness = asks(|checks| checks.readiness.is_some()).readiness;
        }
        if nature == Nature::Hangs && next.checks.liveness.is_none() {
            next.checks.liveness = asks(|checks| checks.liveness.is_some()).liveness;
        }
        self.supervisor.apply(next, nature);
    }
}

fn schedule(seed: u64, tally: &Tally) {
    let mut simulation = Simulation::new(seed, tally);
    let mut at = Time::ZERO;
    while at < TROUBLE {
        at += Duration::from_millis(simulation.random.below(40_000));
        simulation.run_until(at, |_| false);
        simulation.something_happens();
    }
    // The faults end, and somebody brings up what works.
    simulation.runtime.faults = Faults::default();
    simulation.define(Nature::Good);
    let end = simulation.now + REST;
    let reached = simulation.run_until(end, |supervisor| supervisor.settled());
    let service = simulation.supervisor.service().clone();
    assert!(reached, "not as wanted after {REST:?}: {service:?} {:?}", simulation.supervisor.world);
    // The same once more changes nothing.
    let same = WantedService { previous: None, rollout: None, ..service };
    simulation.supervisor.apply(same, Nature::Good);
    let world = format!("{:?}", simulation.supervisor.world.keys());
    simulation.run_until(simulation.now + Duration::from_secs(1), |_| false);
    assert_eq!(world, format!("{:?}", simulation.supervisor.world.keys()));
    assert!(simulation.supervisor.settled(), "nothing has happened, and it is not as wanted any more");
}

/// The first seed that fails.
fn first_failure(seeds: std::ops::Range<u64>, schedule: impl Fn(u64) + Sync) -> Option<u64> {
    let schedule = &schedule;
    let (next, failed) = (AtomicU64::new(seeds.start), AtomicU64::new(u64::MAX));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || failed.load(Ordering::Relaxed) < u64::MAX {
                        return;
                    }
                    if catch_unwind(AssertUnwindSafe(|| schedule(seed))).is_err() {
                        failed.fetch_min(seed, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    Some(failed.into_inner()).filter(|seed| *seed < u64::MAX)
}

#[test]
fn whatever_happens_all_becomes_as_wanted() {
    let tally = Tally::default();
    if let Ok(seed) = std::env::var("THRONG_SIM_SEED") {
        return schedule(seed.parse().expect("THRONG_SIM_SEED is a number"), &tally);
    }
    let begin = Instant::now();
    if let Some(seed) = first_failure(0..SCHEDULES, |seed| schedule(seed, &tally)) {
        panic!(
            "schedule {seed} fails; run it alone: THRONG_SIM_SEED={seed} cargo test -p throng-control --test simulation"
        );
    }
    println!("{SCHEDULES} schedules of {TROUBLE:?} of trouble each took {:.1?}", begin.elapsed());
    for (what, count, least) in tally.all() {
        let count = count.load(Ordering::Relaxed);
        println!("{count} {what}");
        assert!(count >= least, "{what} came about {count} times only");
    }
}

#[test]
fn jobs_end_and_keep_their_promises() {
    let tally = jobs::Tally::default();
    if let Ok(seed) = std::env::var("THRONG_SIM_SEED") {
        return jobs::schedule(seed.parse().expect("THRONG_SIM_SEED is a number"), &tally);
    }
    if let Some(seed) = first_failure(0..SCHEDULES, |seed| jobs::schedule(seed, &tally)) {
        panic!(
            "job {seed} fails; run it alone: THRONG_SIM_SEED={seed} cargo test -p throng-control --test simulation jobs"
        );
    }
    for (what, count, least) in tally.all() {
        let count = count.load(Ordering::Relaxed);
        println!("{count} {what}");
        assert!(count >= least, "{what} came about {count} times only");
    }
}
