use super::*;
use crate::world::World;
use crate::{Limits, Step, Wanted, plan};
use proptest::prelude::*;
use std::time::Duration;
use throng_model::app::{HealthCheck, HealthTest, RestartPolicy};

const LIMITS: Limits = Limits { launches: 64, retirements: 64, probes: 64, rechecks: 64 };
const MONITOR: Duration = Duration::from_secs(5);
/// Longer than any monitor here.
const STEP: Duration = Duration::from_secs(6);

fn policy(parallelism: u32, order: UpdateOrder, failure_action: FailureAction) -> UpdatePolicy {
    UpdatePolicy { parallelism, order, failure_action, ..UpdatePolicy::default() }
}

fn service(replicas: u32, hash: &str, update: Option<UpdatePolicy>) -> WantedService {
    WantedService {
        replicas,
        config_hash: hash.into(),
        restart: RestartPolicy::Always.into(),
        update,
        ..WantedService::default()
    }
}

/// One service whose replicas do at once what is asked of them, save those of definition `bad`, which end.
struct Bench {
    wanted: Wanted,
    world: World,
    now: Time,
    told: Vec<Change>,
    bad: &'static str,
}

impl Bench {
    fn at(before: WantedService) -> Bench {
        let wanted = Wanted { services: BTreeMap::from([("web".into(), before)]), going_down: false };
        let mut bench = Bench { wanted, world: World::new(), now: Time::ZERO, told: Vec::new(), bad: "bad" };
        bench.round();
        bench
    }

    fn service(&mut self) -> &mut WantedService {
        self.wanted.services.get_mut("web").expect("there")
    }

    fn change(&mut self, mut next: WantedService) {
        let before = std::mem::take(self.service());
        next.succeed(before);
        *self.service() = next;
    }

    /// Observes, plans and carries out. Returns the steps in words: `+1` launched, `-1` retired, `*1` restarted.
    fn round(&mut self) -> String {
        let changes = crate::observe(&mut self.wanted, &self.world, self.now);
        self.told.extend(changes.into_iter().map(|(_, change)| change));
        let plan = plan(&self.wanted, &self.world, &LIMITS, self.now);
        let mut said = Vec::new();
        for step in plan.steps {
            let hash = self.service().config_hash.clone();
            let (now, bad) = (self.now, self.bad);
            let replicas = self.world.entry("web".into()).or_default();
            let run = |view: &mut ReplicaView| {
                view.started(now);
                if view.config_hash == bad {
                    view.exited(Exit::Code { code: 3 }, &Rule::default(), now);
                }
            };
            match step {
                Step::Launch { ordinal, .. } => {
                    let mut view = ReplicaView::new(hash, Phase::Created, true);
                    run(&mut view);
                    replicas.insert(ordinal, view);
                    said.push(format!("+{ordinal}"));
                }
                Step::Restart { ordinal, .. } => {
                    let view = replicas.get_mut(&ordinal).expect("there");
                    view.restarting();
                    run(view);
                    said.push(format!("*{ordinal}"));
                }
                Step::Retire { ordinal, .. } => {
                    replicas.remove(&ordinal).expect("there");
                    said.push(format!("-{ordinal}"));
                }
                Step::Probe { .. } | Step::End { .. } => {}
            }
        }
        said.sort();
        said.join(" ")
    }

    /// Rounds with time between them, until nothing happens any more.
    fn rounds(&mut self) -> Vec<String> {
        let mut all = Vec::new();
        for _ in 0..200 {
            self.now += STEP;
            let said = self.round();
            if said.is_empty() && self.service().rollout.as_ref().is_none_or(|r| !r.goes_on()) {
                return all;
            }
            all.push(said);
        }
        panic!("no end: {all:?}")
    }

    fn hashes(&self) -> Vec<(u32, String)> {
        let replicas = self.world.get("web").into_iter().flatten();
        replicas.map(|(ordinal, view)| (*ordinal, view.config_hash.clone())).collect()
    }

    fn state(&mut self) -> Option<State> {
        self.service().rollout.as_ref().map(|rollout| rollout.state)
    }
}

fn all(count: u32, hash: &str) -> Vec<(u32, String)> {
    (1..=count).map(|ordinal| (ordinal, hash.to_owned())).collect()
}

#[test]
fn stop_first_replaces_so_many_at_a_time() {
    let policy = policy(2, UpdateOrder::StopFirst, FailureAction::Pause);
    let mut bench = Bench::at(service(5, "old", Some(policy)));
    bench.change(service(5, "new", Some(policy)));
    assert_eq!(bench.rounds(), ["-1 -2", "+1 +2", "", "-3 -4", "+3 +4", "", "-5", "+5", ""]);
    assert_eq!(bench.told, [Change::Begun { total: 5 }, Change::Ended { failed: 0 }]);
    assert_eq!(bench.hashes(), all(5, "new"));
    assert_eq!(bench.service().previous, None);
}

#[test]
fn start_first_has_others_stand_in_and_keeps_every_name() {
    let policy = policy(2, UpdateOrder::StartFirst, FailureAction::Pause);
    let mut bench = Bench::at(service(3, "old", Some(policy)));
    bench.change(service(3, "new", Some(policy)));
    let rounds = bench.rounds();
    let steps: Vec<&str> = rounds.iter().map(String::as_str).filter(|steps| !steps.is_empty()).collect();
    assert_eq!(steps, ["+4 +5", "-1 -2", "+1 +2", "-3 -5", "+3", "-4"]);
    assert_eq!(bench.hashes(), all(3, "new"));
}

#[test]
fn delay_and_monitor_run_side_by_side() {
    let policy = UpdatePolicy { delay: Duration::from_secs(20), ..UpdatePolicy::default() };
    let mut bench = Bench::at(service(2, "old", Some(policy)));
    bench.change(service(2, "new", Some(policy)));
    assert_eq!((bench.round(), bench.round()), ("-1".into(), "+1".into()));
    let mut replaced = Vec::new();
    let begin = bench.now;
    for _ in 0..60 {
        if bench.round() == "-2" {
            replaced.push(bench.now - begin);
        }
        let plan = plan(&bench.wanted, &bench.world, &LIMITS, bench.now);
        let Some(wake) = plan.wake else { break };
        bench.now = wake;
    }
    assert_eq!(replaced, [Duration::from_secs(20)], "woken for each proof and each end of a delay");
}

#[test]
fn one_failure_pauses_and_asking_again_goes_on() {
    let policy = policy(1, UpdateOrder::StopFirst, FailureAction::Pause);
    let mut bench = Bench::at(service(4, "old", Some(policy)));
    bench.change(service(4, "bad", Some(policy)));
    bench.rounds();
    let reason = "1 of 4 failed, replica 1 last: exited with code 3".to_owned();
    let failure = Failure::Ended(Exit::Code { code: 3 });
    let failed = Change::Failed { ordinal: 1, failure };
    assert_eq!(bench.told, [Change::Begun { total: 4 }, failed, Change::Paused { reason }]);
    assert_eq!(bench.state(), Some(State::Paused));
    assert_eq!(bench.hashes()[1..], all(4, "old")[1..]);
    // An old replica that ends meanwhile starts again as what it was.
    let view = bench.world.get_mut("web").and_then(|web| web.get_mut(&3)).expect("there");
    view.exited(Exit::OutOfMemory, &Rule::default(), bench.now);
    assert!(bench.round().contains("*3"));
    assert_eq!(bench.hashes()[2].1, "old");

    // What was in its way is gone.
    bench.bad = "none";
    bench.change(service(4, "bad", Some(policy)));
    assert_eq!(bench.state(), Some(State::Updating));
    bench.rounds();
    assert_eq!((bench.hashes(), bench.state()), (all(4, "bad"), None));
}

#[test]
fn a_share_of_failures_is_borne() {
    let borne = UpdatePolicy { max_failure_ratio: 0.25, ..UpdatePolicy::default() };
    let mut bench = Bench::at(service(4, "old", Some(borne)));
    bench.change(service(4, "bad", Some(borne)));
    bench.rounds();
    assert_eq!(bench.state(), Some(State::Paused));
    assert_eq!(
        bench.hashes().iter().filter(|(_, hash)| hash == "bad").count(),
        2,
        "the second one is too many"
    );
    let bears_all = policy(1, UpdateOrder::StopFirst, FailureAction::Continue);
    bench.change(service(4, "worse", Some(bears_all)));
    bench.bad = "worse";
    for _ in 0..30 {
        bench.now += STEP;
        bench.round();
    }
    assert_eq!(bench.hashes(), all(4, "worse"));
    assert!(bench.told.contains(&Change::Ended { failed: 4 }), "{:?}", bench.told);
}

#[test]
fn a_failed_update_goes_back_to_what_was_reached_last() {
    for order in [UpdateOrder::StopFirst, UpdateOrder::StartFirst] {
        let policy = policy(2, order, FailureAction::Rollback);
        let mut bench = Bench::at(service(4, "good", Some(policy)));
        bench.change(service(4, "bad", Some(policy)));
        bench.rounds();
        assert_eq!((bench.hashes(), bench.state()), (all(4, "good"), Some(State::RolledBack)), "{order:?}");
        assert!(bench.told.contains(&Change::RolledBack), "{:?}", bench.told);
        assert_eq!(bench.service().config_hash, "good");
        // The failed definition asked for once more is tried once more.
        bench.bad = "none";
        bench.change(service(4, "bad", Some(policy)));
        bench.rounds();
        assert_eq!((bench.hashes(), bench.state()), (all(4, "bad"), None));
    }
}

#[test]
fn a_definition_that_was_never_reached_is_nothing_to_go_back_to() {
    let pausing = policy(1, UpdateOrder::StopFirst, FailureAction::Pause);
    let mut bench = Bench::at(service(3, "good", Some(pausing)));
    bench.change(service(3, "bad", Some(pausing)));
    bench.rounds();
    bench.change(service(3, "bad2", Some(policy(1, UpdateOrder::StopFirst, FailureAction::Rollback))));
    bench.bad = "bad2";
    bench.rounds();
    assert_eq!((bench.hashes(), bench.state()), (all(3, "good"), Some(State::RolledBack)));
}

#[test]
fn a_rollback_that_fails_is_paused() {
    let rolling = policy(1, UpdateOrder::StopFirst, FailureAction::Rollback);
    let mut bench = Bench::at(service(3, "good", Some(rolling)));
    bench.change(service(3, "bad", Some(rolling)));
    for _ in 0..5 {
        bench.now += STEP;
        bench.round();
        if bench.state() == Some(State::RollingBack) {
            bench.bad = "good";
        }
    }
    bench.rounds();
    assert_eq!(bench.state(), Some(State::RollbackPaused));
}

#[test]
fn without_a_policy_a_failing_replica_is_waited_for() {
    let mut bench = Bench::at(service(3, "old", None));
    bench.change(service(3, "bad", None));
    for _ in 0..20 {
        bench.now += STEP;
        bench.round();
    }
    assert_eq!(bench.hashes()[1..], all(3, "old")[1..], "only the first one is touched");
    assert_eq!(bench.told, [Change::Begun { total: 3 }]);
    bench.bad = "none";
    bench.now += Duration::from_secs(600);
    bench.rounds();
    assert_eq!(bench.hashes(), all(3, "bad"));
}

#[test]
fn a_replica_is_checked_as_its_own_definition_says() {
    let check = HealthCheck {
        test: HealthTest::Shell("true".into()),
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
        retries: 1,
        start_period: Duration::ZERO,
        start_interval: Duration::from_secs(1),
    };
    let mut new = service(1, "new", None);
    new.checks.readiness = Some(check);
    new.succeed(service(1, "old", None));
    let view = |hash: &str| ReplicaView::new(hash.into(), Phase::Running { since: Time::ZERO }, false);
    assert!(new.ready(&view("old")), "what has no check is ready, whatever comes after it has");
    assert!(!new.ready(&view("new")));
    assert!(new.ready(&view("forgotten")));
}

#[test]
fn what_must_outlive_a_supervisor_does() {
    let policy = policy(1, UpdateOrder::StopFirst, FailureAction::Pause);
    let mut bench = Bench::at(service(4, "old", Some(policy)));
    bench.change(service(4, "bad", Some(policy)));
    bench.rounds();
    let rollout = bench.service().rollout.clone().expect("under way");
    let text = serde_json::to_string(&rollout).expect("written");
    let mut read: Rollout = serde_json::from_str(&text).expect("read");
    assert_eq!((read.state, read.failed.len()), (State::Paused, 1));
    read.ready_since = rollout.ready_since.clone();
    assert_eq!(read, rollout);
}

proptest! {
    /// Whatever the policy and the counts: never more than the surge, never too few, and it ends as wanted.
    #[test]
    fn never_more_than_the_surge_and_never_too_few(
        replicas in 1..9u32,
        scaled in proptest::option::of(0..9u32),
        parallelism in 0..5u32,
        start_first in any::<bool>(),
        when in 0..12usize,
    ) {
        let order = if start_first { UpdateOrder::StartFirst } else { UpdateOrder::StopFirst };
        let policy = policy(parallelism, order, FailureAction::Rollback);
        let mut bench = Bench::at(service(replicas, "old", Some(policy)));
        bench.change(service(replicas, "new", Some(policy)));
        let mut wanted = replicas;
        let mut grown = 0;
        for round in 0..80 {
            if let Some(count) = scaled.filter(|_| round == when) {
                bench.service().replicas = count;
                // Replicas that are yet to start are not yet there, replicas that are yet to leave still are.
                (wanted, grown) = (count, 3);
            }
            bench.now += Duration::from_secs(2);
            bench.round();
            let there = bench.world.get("web").map_or(0, BTreeMap::len) as u32;
            let abreast = if parallelism == 0 { wanted } else { parallelism };
            let surge = if start_first { abreast.min(wanted) } else { 0 };
            if grown > 0 {
                grown -= 1;
                continue;
            }
            prop_assert!(there <= wanted + surge, "{there} of {wanted} + {surge}");
            let least = if start_first { wanted } else { wanted.saturating_sub(abreast) };
            prop_assert!(there >= least, "{there}, at least {least}");
        }
        prop_assert_eq!(bench.hashes(), all(wanted, "new"));
        prop_assert_eq!(bench.state(), None);
        prop_assert_eq!(bench.round(), "");
    }
}

#[test]
fn monitors_are_waited_for() {
    let mut bench = Bench::at(service(1, "old", Some(UpdatePolicy::default())));
    bench.change(service(1, "new", Some(UpdatePolicy::default())));
    assert_eq!((bench.round(), bench.round(), bench.round()), ("-1".into(), "+1".into(), String::new()));
    bench.now += MONITOR - Duration::from_millis(1);
    bench.round();
    assert_eq!(bench.state(), Some(State::Updating));
    let view = bench.world.get_mut("web").and_then(|web| web.get_mut(&1)).expect("there");
    view.exited(Exit::OutOfMemory, &Rule::default(), bench.now);
    bench.round();
    assert_eq!(bench.state(), Some(State::Paused), "it fails a moment before its time is up");
}
