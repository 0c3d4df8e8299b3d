use super::run::pause;
use super::*;
use crate::plan::{Limits, Step, plan};
use crate::restart::Rule;
use crate::world::Phase;
use proptest::prelude::*;
use throng_model::app::{Condition, Dependency};
use throng_model::job::{JobBackOff, Schedule};
use throng_model::replica::Exit;

const LIMITS: Limits = Limits { launches: 1_000, retirements: 1_000, probes: 1_000, rechecks: 1_000 };
const SECOND: Duration = Duration::from_secs(1);
/// The host's clock at the beginning, a Sunday at noon.
const EPOCH: Duration = Duration::from_secs(1_772_366_400);

/// One app, what runs of it, and what has been seen.
struct Bench {
    wanted: Wanted,
    world: World,
    now: Time,
    generation: u64,
    /// All that was told.
    told: Vec<Change>,
    /// By index: starts, and whether it has succeeded.
    starts: BTreeMap<u32, u32>,
}

fn job() -> Job {
    Job { parallelism: Some(2), ..Job::default() }
}

fn scheduled(expression: &str, concurrency: Concurrency) -> Job {
    let schedule = Schedule {
        expression: expression.into(),
        timezone: None,
        concurrency,
        starting_deadline: None,
        suspend: false,
    };
    Job { parallelism: None, schedule: Some(schedule), ..Job::default() }
}

fn service(job: Job, completions: u32, hash: &str) -> WantedService {
    WantedService {
        replicas: completions,
        config_hash: hash.into(),
        job: Some(Work::new(job).expect("a job")),
        ..WantedService::default()
    }
}

impl Bench {
    fn new(job: Job, completions: u32) -> Bench {
        let mut wanted = Wanted::default();
        wanted.services.insert("job".into(), service(job, completions, "a"));
        let (world, told) = (World::new(), Vec::new());
        Bench { wanted, world, now: Time::ZERO, generation: 0, told, starts: BTreeMap::new() }
    }

    fn service(&mut self) -> &mut WantedService {
        self.wanted.services.get_mut("job").expect("there")
    }

    fn work(&self) -> &Work {
        self.wanted.services["job"].job.as_ref().expect("a job")
    }

    fn running(&self) -> Vec<u32> {
        let replicas = self.world.get("job").into_iter().flatten();
        replicas.filter(|(_, view)| view.runs()).map(|(ordinal, _)| *ordinal).collect()
    }

    /// Observes, plans, carries the plan out at once. What was begun, in words: `+` launched, `*` again, `-` removed, `!`
    /// ended.
    fn round(&mut self) -> Vec<String> {
        let changes = observe(&mut self.wanted, &self.world, self.now, EPOCH + self.now);
        self.told.extend(
            changes.into_iter().map(|(_, change)| change).filter(|change| *change != Change::Counted),
        );
        let next = plan(&self.wanted, &self.world, &LIMITS, self.now);
        let mut said = Vec::new();
        for step in next.steps {
            let replicas = self.world.entry("job".into()).or_default();
            match step {
                Step::Launch { ordinal, .. } => {
                    assert!(!replicas.contains_key(&ordinal), "{ordinal} is there");
                    let service = &self.wanted.services["job"];
                    let mark = service.job.as_ref().and_then(|work| work.mark(&service.config_hash, ordinal));
                    let (mark, index) = mark.expect("of a run under way");
                    self.generation += 1;
                    let mut view = ReplicaView::new(mark, Phase::Running { since: self.now }, false);
                    view.generation = self.generation;
                    replicas.insert(ordinal, view);
                    *self.starts.entry(index).or_default() += 1;
                    said.push(format!("+{ordinal}"));
                }
                Step::Restart { ordinal, .. } => {
                    let view = replicas.get_mut(&ordinal).expect("there");
                    assert!(!view.succeeded(), "{ordinal} has succeeded");
                    self.generation += 1;
                    view.restarting();
                    view.generation = self.generation;
                    view.started(self.now);
                    *self.starts.entry(ordinal - 1).or_default() += 1;
                    said.push(format!("*{ordinal}"));
                }
                Step::Retire { ordinal, .. } => {
                    replicas.remove(&ordinal).expect("there");
                    said.push(format!("-{ordinal}"));
                }
                Step::End { ordinal, .. } => {
                    let view = replicas.get_mut(&ordinal).expect("there");
                    view.make_end();
                    view.exited(Exit::Code { code: 0 }, &Rule::default(), self.now);
                    view.busy = false;
                    said.push(format!("!{ordinal}"));
                }
                Step::Probe { .. } => {}
            }
        }
        self.world.retain(|_, replicas| !replicas.is_empty());
        said.sort();
        said
    }

    fn end(&mut self, ordinal: u32, code: i32) {
        let view = self.world.get_mut("job").and_then(|replicas| replicas.get_mut(&ordinal)).expect("there");
        view.exited(Exit::Code { code }, &Rule::default(), self.now);
    }

    fn later(&mut self, time: Duration) -> &mut Bench {
        self.now += time;
        self
    }

    /// What a new supervisor makes of what was saved and what is there.
    fn resume(&mut self) {
        let text = serde_json::to_string(&self.work().progress).expect("written");
        let job = self.work().job.clone();
        let mut work = Work::new(job).expect("a job");
        work.progress = serde_json::from_str(&text).expect("read");
        self.service().job = Some(work);
    }
}

#[test]
fn so_many_run_at_a_time_and_each_index_once() {
    let mut bench = Bench::new(job(), 5);
    assert_eq!(bench.round(), ["+1", "+2"]);
    assert!(bench.round().is_empty());
    bench.end(2, 0);
    assert_eq!(bench.round(), ["+3"]);
    bench.end(1, 0);
    bench.end(3, 0);
    assert_eq!(bench.round(), ["+4", "+5"]);
    bench.end(4, 0);
    bench.end(5, 0);
    assert!(bench.round().is_empty());
    assert_eq!(
        bench.told,
        [Change::Begun { run: 1, completions: 5 }, Change::Complete { run: 1, completions: 5, failures: 0 }]
    );
    assert_eq!(bench.world["job"].len(), 5, "they stay, to be looked at");
    assert_eq!(bench.work().outcome(), Ok(true));
    assert_eq!(bench.work().status(5, 0, bench.now).to_string(), "5/5 completed");
}

#[test]
fn after_a_failure_nothing_starts_for_a_while_and_a_success_forgives() {
    let mut bench = Bench::new(job(), 4);
    bench.round();
    bench.end(1, 3);
    assert!(bench.round().is_empty(), "10 s");
    assert_eq!(plan(&bench.wanted, &bench.world, &LIMITS, bench.now).wake, Some(10 * SECOND));
    assert!(bench.later(9 * SECOND).round().is_empty());
    assert_eq!(bench.later(SECOND).round(), ["*1"]);
    bench.end(1, 3);
    assert!(bench.later(19 * SECOND).round().is_empty(), "20 s, after the second one in a row");
    assert_eq!(bench.later(SECOND).round(), ["*1"]);
    bench.end(2, 0);
    assert_eq!(bench.round(), ["+3"]);
    bench.end(1, 3);
    assert!(bench.later(9 * SECOND).round().is_empty());
    assert_eq!(bench.later(SECOND).round(), ["*1"], "10 s again");
    assert_eq!(bench.work().status(4, 2, bench.now).to_string(), "1/4 completed, 2 running, 3 failed");
}

#[test]
fn too_many_failures_fail_it_and_end_what_runs() {
    let mut bench = Bench::new(Job { retries: 1, ..job() }, 3);
    bench.round();
    bench.end(1, 9);
    bench.round();
    assert_eq!(bench.later(10 * SECOND).round(), ["*1"]);
    bench.end(1, 9);
    assert_eq!(bench.round(), ["!2"]);
    assert!(bench.later(3600 * SECOND).round().is_empty());
    let reason = "2 of its replicas have failed, and 1 is allowed (BackoffLimitExceeded)";
    assert_eq!(bench.told.last(), Some(&Change::Failed { run: 1, reason: reason.into() }));
    assert_eq!(bench.work().outcome(), Err(reason.into()));
    assert_eq!(bench.starts, BTreeMap::from([(0, 2), (1, 1)]));
}

#[test]
fn a_deadline_ends_a_run_whatever_supervisor_looks() {
    let mut bench = Bench::new(Job { deadline: Some(30 * SECOND), ..job() }, 2);
    bench.round();
    bench.end(1, 0);
    bench.round();
    bench.later(29 * SECOND).resume();
    assert!(bench.round().is_empty());
    let wake = plan(&bench.wanted, &bench.world, &LIMITS, bench.now).wake;
    assert_eq!(wake, Some(30 * SECOND));
    assert_eq!(bench.later(SECOND).round(), ["!2"]);
    assert!(bench.work().outcome().is_err_and(|reason| reason.contains("DeadlineExceeded")));
    assert!(bench.round().is_empty(), "one that ended with 0 because it was asked to has not succeeded");
    assert_eq!(bench.work().status(2, 0, bench.now).completed, 1);
}

#[test]
fn a_new_supervisor_forgets_nothing() {
    let mut bench = Bench::new(Job { retries: 2, ..job() }, 3);
    bench.round();
    bench.end(1, 0);
    bench.end(2, 1);
    bench.round();
    // The replica of the index that has succeeded is gone, and the failure is still there to be seen.
    bench.world.get_mut("job").expect("there").remove(&1);
    bench.resume();
    assert!(bench.round().is_empty(), "the pause goes on");
    assert_eq!(bench.work().status(3, 0, bench.now).failed, 1, "it counts once");
    assert_eq!(bench.later(10 * SECOND).round(), ["*2", "+3"]);
}

#[test]
fn one_that_cannot_be_started_at_all_fails_it_and_a_short_host_does_not() {
    let mut bench = Bench::new(job(), 2);
    bench.round();
    let short = Phase::Failed { at: Time::ZERO, permanent: false };
    bench.world.get_mut("job").expect("there").get_mut(&1).expect("there").phase = short;
    assert!(bench.round().is_empty());
    assert_eq!(bench.later(10 * SECOND).round(), ["*1"]);
    assert_eq!(bench.work().status(2, 2, bench.now).failed, 0);
    let never = Phase::Failed { at: Time::ZERO, permanent: true };
    bench.world.get_mut("job").expect("there").get_mut(&1).expect("there").phase = never;
    assert_eq!(bench.round(), ["!2"]);
    assert_eq!(bench.work().outcome(), Err("replica 1 cannot be started".into()));
}

#[test]
fn asked_for_again_a_failed_one_goes_on_and_a_complete_one_stays() {
    let mut bench = Bench::new(Job { retries: 0, ..job() }, 2);
    bench.round();
    bench.end(1, 0);
    bench.round();
    bench.end(2, 1);
    bench.round();
    assert!(bench.work().outcome().is_err());
    let before = bench.service().clone();
    let mut next = service(before.job.as_ref().expect("a job").job.clone(), 2, "a");
    next.succeed(before);
    *bench.service() = next;
    assert_eq!(bench.round(), ["-2"], "what has failed is made anew, what has succeeded stays");
    assert_eq!(bench.round(), ["+2"]);
    bench.end(2, 0);
    assert!(bench.round().is_empty());
    assert_eq!(bench.work().outcome(), Ok(true));
    let before = bench.service().clone();
    let mut next = service(before.job.as_ref().expect("a job").job.clone(), 2, "a");
    next.succeed(before);
    *bench.service() = next;
    assert!(bench.round().is_empty());
    // More of the same is only what is missing; another definition is another job.
    bench.service().replicas = 3;
    assert_eq!(bench.round(), ["+3"]);
    let before = bench.service().clone();
    let mut next = service(before.job.as_ref().expect("a job").job.clone(), 1, "b");
    next.succeed(before);
    *bench.service() = next;
    assert_eq!(bench.round(), ["-1", "-2", "-3"]);
    assert_eq!(bench.round(), ["+1"]);
    assert_eq!(bench.starts[&0], 2);
}

#[test]
fn a_dependency_is_waited_for_and_dependents_wait_for_the_whole_job() {
    let mut bench = Bench::new(Job { retries: 0, ..job() }, 2);
    let mut after = service(job(), 1, "c");
    let condition = Condition::ServiceCompletedSuccessfully;
    after.depends_on.insert("job".into(), Dependency { condition, required: true, restart: false });
    bench.wanted.services.insert("after".into(), after);
    observe(&mut bench.wanted, &bench.world, bench.now, EPOCH);
    let waiting = plan(&bench.wanted, &bench.world, &LIMITS, bench.now).waiting;
    assert_eq!(waiting.len(), 1);
    assert_eq!((waiting[0].service.as_str(), waiting[0].reason.as_str()), ("after", "job: 0 of 2 completed"));
    assert!(!waiting[0].hopeless);
    let after = bench.wanted.services["after"].job.as_ref().expect("a job");
    assert!(after.progress.runs.is_empty(), "it has not begun, and no deadline counts");
    bench.round();
    bench.end(1, 0);
    bench.end(2, 4);
    bench.round();
    let waiting = plan(&bench.wanted, &bench.world, &LIMITS, bench.now).waiting;
    assert!(
        waiting[0].hopeless && waiting[0].reason.starts_with("job failed: 1 of its replicas"),
        "{waiting:?}"
    );
}

#[test]
fn runs_begin_when_their_time_comes() {
    let mut bench = Bench::new(scheduled("*/5 * * * *", Concurrency::Allow), 1);
    assert!(bench.round().is_empty(), "it is noon exactly, and the job has just been made");
    let status = bench.work().status(1, 0, bench.now);
    assert_eq!((status.state, status.next), (JobState::Waiting, Some((EPOCH + 300 * SECOND).as_secs())));
    assert_eq!(plan(&bench.wanted, &bench.world, &LIMITS, bench.now).wake, Some(300 * SECOND));
    assert_eq!(bench.later(300 * SECOND).round(), ["+1"]);
    bench.end(1, 0);
    assert!(bench.round().is_empty());
    assert_eq!(bench.later(300 * SECOND).round(), ["-1"], "the replicas of a run stay until the next one");
    assert_eq!(bench.round(), ["+1"]);
    // A supervisor that comes after an hour begins one run and not twelve.
    bench.end(1, 0);
    bench.round();
    bench.later(3_600 * SECOND).resume();
    bench.round();
    assert_eq!(bench.round(), ["+1"]);
    assert_eq!(bench.work().progress.begun, 3);
}

#[test]
fn a_run_under_way_is_gone_by_allowed_or_replaced() {
    for (concurrency, then) in
        [(Concurrency::Allow, vec!["+2"]), (Concurrency::Forbid, vec![]), (Concurrency::Replace, vec!["-1"])]
    {
        let mut bench = Bench::new(scheduled("@every 10s", concurrency), 1);
        bench.round();
        assert_eq!(bench.later(10 * SECOND).round(), ["+1"]);
        assert_eq!(bench.later(10 * SECOND).round(), then, "{concurrency:?}");
        if concurrency == Concurrency::Forbid {
            assert_eq!(bench.told.last(), Some(&Change::HeldBack { under_way: 1 }));
            bench.later(4 * SECOND).end(1, 0);
            assert_eq!(bench.round(), ["-1"], "it begins as soon as the one before has ended");
        }
        bench.round();
        let running = bench.running();
        assert_eq!(running.len(), if concurrency == Concurrency::Allow { 2 } else { 1 }, "{concurrency:?}");
    }
}

#[test]
fn what_cannot_begin_in_time_is_left_out_and_a_suspended_one_never_begins() {
    let mut late = scheduled("@every 1m", Concurrency::Forbid);
    late.schedule.as_mut().expect("there").starting_deadline = Some(10 * SECOND);
    let mut bench = Bench::new(late.clone(), 1);
    bench.round();
    bench.later(75 * SECOND).round();
    assert!(matches!(bench.told[..], [Change::Missed { .. }]), "{:?}", bench.told);
    assert_eq!(bench.later(45 * SECOND).round(), ["+1"]);
    late.schedule.as_mut().expect("there").suspend = true;
    let mut bench = Bench::new(late, 1);
    for _ in 0..10 {
        assert!(bench.later(60 * SECOND).round().is_empty());
    }
    assert_eq!(bench.work().status(1, 0, bench.now).state, JobState::Suspended);
}

#[test]
fn no_more_runs_than_the_most_go_on_at_a_time() {
    let mut bench = Bench::new(scheduled("@every 1s", Concurrency::Allow), 3);
    for _ in 0..3 * RUNS_MOST {
        bench.later(SECOND).round();
    }
    let ordinals: BTreeSet<u32> = bench.running().into_iter().collect();
    assert_eq!(ordinals, (1..=3 * RUNS_MOST as u32).collect(), "each has ordinals of its own");
}

#[test]
fn pauses_double_to_six_minutes() {
    let pauses: Vec<u64> = (1..9).map(|failing| pause(&Job::default(), failing).as_secs()).collect();
    assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 360, 360]);
    assert_eq!(pause(&Job::default(), u32::MAX).as_secs(), 360);
}

/// What happens next in a random life of a job.
#[derive(Debug, Clone)]
enum Happens {
    Ends {
        which: usize,
        code: i32,
    },
    Time {
        seconds: u64,
    },
    NewSupervisor,
    Again,
    /// It is removed from outside, or with its node.
    Vanishes {
        which: usize,
    },
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        6 => (any::<usize>(), 0..2i32).prop_map(|(which, code)| Happens::Ends { which, code }),
        3 => (0..40u64).prop_map(|seconds| Happens::Time { seconds }),
        1 => Just(Happens::NewSupervisor),
        1 => Just(Happens::Again),
        1 => any::<usize>().prop_map(|which| Happens::Vanishes { which }),
    ]
}

proptest! {
    /// Whatever happens: never more than `parallelism` run, what has succeeded never starts again, failures are bounded by
    /// the retries, nothing starts during a pause, and a plan applied to its own result is empty.
    #[test]
    fn a_job_keeps_its_promises(
        completions in 1..8u32,
        parallelism in 1..5u32,
        retries in 0..6u32,
        life in proptest::collection::vec(happens(), 0..60),
    ) {
        let back_off = JobBackOff { initial: 8 * SECOND, max: 20 * SECOND };
        let mut bench = Bench::new(Job { parallelism: Some(parallelism), retries, back_off, ..Job::default() }, completions);
        let (mut succeeded, mut failures, mut failing, mut last) = (BTreeSet::new(), 0, 0u32, Time::ZERO);
        let mut again = 0;
        for happens in life {
            let running = bench.running();
            match happens {
                Happens::Ends { which, code } if !running.is_empty() => {
                    let ordinal = running[which % running.len()];
                    bench.end(ordinal, code);
                    match code {
                        0 => { succeeded.insert(ordinal); failing = 0; }
                        _ => { failures += 1; failing += 1; last = bench.now; }
                    }
                }
                Happens::Time { seconds } => { bench.later(Duration::from_secs(seconds)); }
                Happens::NewSupervisor => bench.resume(),
                Happens::Again => {
                    let before = bench.service().clone();
                    let failed = before.job.as_ref().expect("a job").outcome().is_err();
                    let mut next = service(before.job.as_ref().expect("a job").job.clone(), completions, "a");
                    next.succeed(before);
                    *bench.service() = next;
                    if failed {
                        again += 1;
                        failing = 0;
                    }
                }
                Happens::Vanishes { which } if !running.is_empty() => {
                    let replicas = bench.world.get_mut("job").expect("there");
                    replicas.remove(&running[which % running.len()]);
                    bench.world.retain(|_, replicas| !replicas.is_empty());
                }
                _ => {}
            }
            let said = bench.round();
            for step in &said {
                let ordinal: u32 = step[1..].parse().expect("a number");
                if step.starts_with(['+', '*']) {
                    prop_assert!(!succeeded.contains(&ordinal), "{} again: {:?}", ordinal, said);
                    let pause = 8 * SECOND * (1 << failing.saturating_sub(1).min(4));
                    let rested = failing == 0 || bench.now >= last + pause.min(20 * SECOND);
                    prop_assert!(rested, "{:?} at {:?}, {} failures, the last at {:?}", said, bench.now, failing, last);
                }
            }
            prop_assert!(bench.running().len() <= parallelism as usize);
            prop_assert!(failures <= (retries + parallelism) * (again + 1), "{} failures", failures);
            // What was removed to be made anew is made anew by the next plan.
            bench.round();
            prop_assert!(bench.round().is_empty());
            match bench.work().outcome() {
                Ok(true) => prop_assert_eq!(succeeded.len(), completions as usize),
                Ok(false) => prop_assert!(succeeded.len() < completions as usize),
                Err(_) => prop_assert!(failures > retries && bench.running().is_empty()),
            }
        }
    }
}
