use super::*;
use crate::health::Health;
use crate::restart::Tries;
use proptest::prelude::*;
use std::time::Duration;
use throng_model::app::{HealthCheck, HealthTest, RestartPolicy};
use throng_model::replica::Exit;

const LIMITS: Limits = Limits { launches: 4, retirements: 4, probes: 4, rechecks: 4 };

fn service(replicas: u32) -> WantedService {
    WantedService {
        replicas,
        config_hash: "a".into(),
        restart: RestartPolicy::Always.into(),
        ..WantedService::default()
    }
}

fn every_second() -> HealthCheck {
    HealthCheck {
        test: HealthTest::Shell("true".into()),
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
        retries: 3,
        start_period: Duration::ZERO,
        start_interval: Duration::from_secs(1),
    }
}

fn running(hash: &str) -> ReplicaView {
    ReplicaView::new(hash.into(), Phase::Running { since: Time::ZERO }, false)
}

fn wanted(services: &[(&str, WantedService)]) -> Wanted {
    let services = services.iter().map(|(name, service)| (name.to_string(), service.clone())).collect();
    Wanted { services, going_down: false }
}

fn world(replicas: &[(&str, u32, ReplicaView)]) -> World {
    let mut world = World::new();
    for (name, ordinal, replica) in replicas {
        world.entry(name.to_string()).or_default().insert(*ordinal, replica.clone());
    }
    world
}

/// Steps in words: `launch web-1`.
fn steps(plan: &Plan) -> Vec<String> {
    plan.steps
        .iter()
        .map(|step| match step {
            Step::Launch { service, ordinal } => format!("launch {service}-{ordinal}"),
            Step::Restart { service, ordinal } => format!("restart {service}-{ordinal}"),
            Step::Retire { service, ordinal } => format!("retire {service}-{ordinal}"),
            Step::Probe { service, ordinal, question } => match question {
                Question::Readiness => format!("probe {service}-{ordinal}"),
                other => format!("{other} {service}-{ordinal}"),
            },
            Step::End { service, ordinal } => format!("end {service}-{ordinal}"),
        })
        .collect()
}

#[test]
fn missing_replicas_are_launched_within_the_limit() {
    let plan = plan(&wanted(&[("web", service(9))]), &World::new(), &LIMITS, Time::ZERO);
    assert_eq!(steps(&plan), ["launch web-1", "launch web-2", "launch web-3", "launch web-4"]);
}

#[test]
fn surplus_leaves_from_the_top_and_unknown_services_leave_whole() {
    let there = world(&[
        ("old", 1, running("x")),
        ("web", 1, running("a")),
        ("web", 2, running("a")),
        ("web", 3, running("a")),
    ]);
    let plan = plan(&wanted(&[("web", service(1))]), &there, &LIMITS, Time::ZERO);
    assert_eq!(steps(&plan), ["retire old-1", "retire web-3", "retire web-2"]);
}

#[test]
fn an_update_replaces_one_replica_and_waits_for_it() {
    let mut target = wanted(&[("web", service(2))]);
    let both_old = world(&[("web", 1, running("old")), ("web", 2, running("old"))]);
    assert_eq!(observe(&mut target, &both_old, Time::ZERO), [("web".into(), Change::Begun { total: 2 })]);
    assert_eq!(steps(&plan(&target, &both_old, &LIMITS, Time::ZERO)), ["retire web-1"]);
    let starting = ReplicaView::new("a".into(), Phase::Created, true);
    let first_starting = world(&[("web", 1, starting), ("web", 2, running("old"))]);
    assert!(observe(&mut target, &first_starting, Time::ZERO).is_empty());
    assert_eq!(steps(&plan(&target, &first_starting, &LIMITS, Time::ZERO)), Vec::<String>::new());
}

#[test]
fn a_dependent_waits_and_says_for_what() {
    let mut web = service(1);
    let dependency = Dependency { condition: Condition::ServiceHealthy, required: true, restart: false };
    web.depends_on.insert("db".into(), dependency);
    let mut db = service(1);
    db.checks.readiness = Some(every_second());
    let target = wanted(&[("db", db), ("web", web)]);
    let mut replica = running("a");
    let before = plan(&target, &world(&[("db", 1, replica.clone())]), &LIMITS, Time::ZERO);
    assert_eq!(steps(&before), ["probe db-1"]);
    assert_eq!(before.waiting, [waiting("web", "db: 0 of 1 ready".into(), false)]);
    replica.health.status = Status::Healthy;
    let after = plan(&target, &world(&[("db", 1, replica)]), &LIMITS, Time::ZERO);
    assert_eq!(steps(&after), ["launch web-1", "probe db-1"]);
}

/// Its successor could not begin.
#[test]
fn nobody_is_given_up_for_one_that_waits() {
    let mut web = service(1);
    let dependency = Dependency { condition: Condition::ServiceHealthy, required: true, restart: false };
    web.depends_on.insert("db".into(), dependency);
    let mut db = service(1);
    db.checks.readiness = Some(every_second());
    let mut target = wanted(&[("db", db), ("web", web)]);
    let mut replica = running("a");
    replica.busy = true;
    let unready = world(&[("db", 1, replica.clone()), ("web", 1, running("old"))]);
    observe(&mut target, &unready, Time::ZERO);
    let before = plan(&target, &unready, &LIMITS, Time::ZERO);
    assert_eq!(steps(&before), Vec::<String>::new());
    assert_eq!(before.waiting, [waiting("web", "db: 0 of 1 ready".into(), false)]);
    replica.health.status = Status::Healthy;
    let ready = world(&[("db", 1, replica), ("web", 1, running("old"))]);
    assert_eq!(steps(&plan(&target, &ready, &LIMITS, Time::ZERO)), ["retire web-1"]);
}

#[test]
fn each_replica_gets_its_turn_to_be_probed() {
    let mut db = service(4);
    db.checks.readiness = Some(every_second());
    let seen = |second: u64, status| {
        let mut replica = running("a");
        let last = Some(Duration::from_secs(second));
        replica.health = Health { status, last, probes: 1, ..Health::default() };
        replica
    };
    let healthy = Status::Healthy;
    let there = world(&[
        ("db", 1, seen(3, healthy)),
        ("db", 2, seen(1, healthy)),
        ("db", 3, seen(2, healthy)),
        ("db", 4, seen(4, Status::Starting)),
    ]);
    let limits = Limits { rechecks: 2, ..LIMITS };
    let plan = plan(&wanted(&[("db", db)]), &there, &limits, Duration::from_secs(9));
    assert_eq!(
        steps(&plan),
        ["probe db-2", "probe db-3", "probe db-4"],
        "the longest overdue and the new one"
    );
    assert_eq!(plan.probes_late, Duration::from_secs(5));
}

#[test]
fn it_says_when_more_would_start() {
    let target = wanted(&[("web", service(9))]);
    assert!(plan(&target, &World::new(), &LIMITS, Time::ZERO).launches_held);
    assert!(!plan(&target, &World::new(), &Limits { launches: 9, ..LIMITS }, Time::ZERO).launches_held);
}

#[test]
fn a_failed_job_makes_its_dependents_hopeless() {
    let mut web = service(1);
    let condition = Condition::ServiceCompletedSuccessfully;
    web.depends_on.insert("job".into(), Dependency { condition, required: true, restart: false });
    let mut job = service(1);
    job.restart = RestartPolicy::No.into();
    let mut ended = running("a");
    ended.phase = Phase::Exited { exit: Exit::Code { code: 3 }, at: Time::ZERO };
    let target = wanted(&[("job", job), ("web", web)]);
    let plan = plan(&target, &world(&[("job", 1, ended)]), &LIMITS, Time::ZERO);
    assert!(plan.steps.is_empty());
    assert!(plan.waiting[0].hopeless, "{:?}", plan.waiting);
}

#[test]
fn a_crash_is_restarted_at_once_then_later() {
    let target = wanted(&[("web", service(1))]);
    let at = Duration::from_secs(5);
    let mut replica = running("a");
    replica.phase = Phase::Exited { exit: Exit::Code { code: 1 }, at };
    let first = plan(&target, &world(&[("web", 1, replica.clone())]), &LIMITS, at);
    assert_eq!(steps(&first), ["restart web-1"]);
    replica.tries = Tries { streak: 1, attempts: 1 };
    let second = plan(&target, &world(&[("web", 1, replica)]), &LIMITS, at);
    assert!(second.steps.is_empty());
    assert_eq!(second.wake, Some(Duration::from_secs(15)));
}

/// A service of one replica that is asked these questions each second.
fn questioned(startup: bool, readiness: bool, liveness: bool) -> WantedService {
    let check = |asked: bool| asked.then(every_second);
    let checks = Checks { startup: check(startup), readiness: check(readiness), liveness: check(liveness) };
    WantedService { checks, ..service(1) }
}

#[test]
fn nothing_else_is_asked_before_a_replica_has_started_up() {
    let target = wanted(&[("web", questioned(true, true, true))]);
    let at = Duration::from_secs(9);
    let mut replica = running("a");
    let first = plan(&target, &world(&[("web", 1, replica.clone())]), &LIMITS, at);
    assert_eq!(steps(&first), ["startup check web-1"]);
    assert!(!replica.ready(&target.services["web"].checks));
    let checks = target.services["web"].checks.clone();
    replica.probed(&checks, Question::Startup, true, at);
    let then = plan(&target, &world(&[("web", 1, replica.clone())]), &LIMITS, at);
    assert_eq!(steps(&then), ["probe web-1"], "readiness at once, liveness an interval later");
    replica.probed(&checks, Question::Readiness, true, at);
    assert!(replica.ready(&checks));
    let later = at + Duration::from_secs(1);
    let then = plan(&target, &world(&[("web", 1, replica.clone())]), &LIMITS, later);
    assert_eq!(steps(&then), ["probe web-1"], "one question at a time");
    replica.probed(&checks, Question::Readiness, true, later);
    let then = plan(&target, &world(&[("web", 1, replica)]), &LIMITS, later);
    assert_eq!(steps(&then), ["liveness check web-1"]);
}

#[test]
fn who_does_not_live_is_ended_and_started_again_by_its_rule() {
    for (policy, exit, again) in [
        (RestartPolicy::Always, 0, true),
        (RestartPolicy::OnFailure(None), 0, true),
        (RestartPolicy::OnFailure(None), 143, true),
        (RestartPolicy::No, 0, false),
        (RestartPolicy::No, 143, false),
    ] {
        let target = questioned(false, false, true);
        let target = wanted(&[("web", WantedService { restart: policy.into(), ..target })]);
        let service = &target.services["web"];
        let mut replica = running("a");
        for second in 1..=3 {
            assert!(service.ready(&replica));
            let at = Duration::from_secs(second);
            assert_eq!(
                steps(&plan(&target, &world(&[("web", 1, replica.clone())]), &LIMITS, at)),
                ["liveness check web-1"]
            );
            replica.probed(&service.checks, Question::Liveness, false, at);
        }
        let at = Duration::from_secs(3);
        assert!(!service.ready(&replica), "it is given no more work");
        let there = world(&[("web", 1, replica.clone())]);
        assert_eq!(steps(&plan(&target, &there, &LIMITS, at)), ["end web-1"]);
        replica.make_end();
        replica.exited(Exit::Code { code: exit }, &service.restart, at);
        replica.busy = false;
        assert!(!replica.succeeded(), "whatever it said at its end");
        let there = world(&[("web", 1, replica.clone())]);
        let next = steps(&plan(&target, &there, &LIMITS, at));
        assert_eq!(next, if again { vec!["restart web-1"] } else { vec![] }, "{policy:?} {exit}");
        replica.restarting();
        replica.started(at);
        assert!(service.ready(&replica), "it is another one now");
    }
}

#[test]
fn a_replica_behind_a_cut_is_not_asked_whether_it_lives() {
    let target = wanted(&[("web", questioned(false, true, true))]);
    let mut replica = running("a");
    let at = Duration::from_secs(9);
    replica.unreachable = true;
    replica.health = Health { status: Status::Healthy, last: Some(at), probes: 1, ..Health::default() };
    let cut = plan(&target, &world(&[("web", 1, replica.clone())]), &LIMITS, at);
    assert!(cut.steps.is_empty(), "{:?}", cut.steps);
    replica.unreachable = false;
    let healed = plan(&target, &world(&[("web", 1, replica)]), &LIMITS, at);
    assert_eq!(steps(&healed), ["liveness check web-1"]);
}

#[test]
fn going_down_takes_dependents_first() {
    let mut web = service(1);
    let condition = Condition::ServiceStarted;
    web.depends_on.insert("db".into(), Dependency { condition, required: true, restart: false });
    let mut target = wanted(&[("db", service(1)), ("web", web)]);
    target.going_down = true;
    let both = world(&[("db", 1, running("a")), ("web", 1, running("a"))]);
    assert_eq!(steps(&plan(&target, &both, &LIMITS, Time::ZERO)), ["retire web-1"]);
    let mut rest = both.clone();
    rest.remove("web");
    assert_eq!(steps(&plan(&target, &rest, &LIMITS, Time::ZERO)), ["retire db-1"]);
}

/// Carries a plan out as a perfect runtime would.
fn apply(world: &mut World, plan: &Plan, target: &Wanted, now: Time) {
    for step in &plan.steps {
        match step {
            Step::Launch { service, ordinal } | Step::Restart { service, ordinal } => {
                let hash = &target.services[service].config_hash;
                let mut replica = running(hash);
                replica.phase = Phase::Running { since: now };
                world.entry(service.clone()).or_default().insert(*ordinal, replica);
            }
            Step::Retire { service, ordinal } => {
                let replicas = world.get_mut(service).expect("retired what exists");
                replicas.remove(ordinal).expect("retired what exists");
                if replicas.is_empty() {
                    world.remove(service);
                }
            }
            Step::Probe { .. } | Step::End { .. } => {}
        }
    }
}

fn any_replica() -> impl Strategy<Value = ReplicaView> {
    (any::<bool>(), 0..4u8).prop_map(|(current, phase)| {
        let at = Time::ZERO;
        let mut replica = running(if current { "a" } else { "old" });
        replica.phase = match phase {
            0 => Phase::Created,
            1 => Phase::Running { since: at },
            2 => Phase::Exited { exit: Exit::Code { code: 1 }, at },
            _ => Phase::Failed { at, permanent: false },
        };
        replica
    })
}

proptest! {
    /// A replica is ended once it has left as many questions in a row unanswered as the check allows, and not before;
    /// it is asked no more often than once an interval, and not before its start period has passed.
    #[test]
    fn a_replica_is_ended_after_so_many_silences_in_a_row(
        answers in proptest::collection::vec(any::<bool>(), 1..40),
        retries in 1..5u32,
        start_period in 0..30u64,
        startup in any::<bool>(),
    ) {
        let mut target = questioned(startup, true, true);
        if let Some(check) = &mut target.checks.liveness {
            check.retries = retries;
            check.start_period = Duration::from_secs(start_period);
        }
        let target = wanted(&[("web", target)]);
        let checks = target.services["web"].checks.clone();
        let (mut replica, mut now) = (running("a"), Time::ZERO);
        let (mut silences, mut asked, mut answers) = (0, Vec::new(), answers.into_iter());
        loop {
            let next = plan(&target, &world(&[("web", 1, replica.clone())]), &LIMITS, now);
            prop_assert_eq!(next.steps.iter().any(|s| matches!(s, Step::End { .. })), silences >= retries);
            prop_assert_eq!(replica.condemned(), silences >= retries);
            if silences >= retries {
                break;
            }
            match next.steps.first() {
                Some(Step::Probe { question: Question::Liveness, .. }) => {
                    let Some(answer) = answers.next() else { break };
                    silences = if answer { 0 } else { silences + 1 };
                    asked.push(now);
                    replica.probed(&checks, Question::Liveness, answer, now);
                }
                Some(Step::Probe { question, .. }) => replica.probed(&checks, *question, true, now),
                _ => now = next.wake.expect("there is always a next question"),
            }
        }
        let first = Duration::from_secs(start_period.max(1));
        prop_assert!(asked.iter().all(|at| *at >= first), "{:?}", asked);
        prop_assert!(asked.windows(2).all(|pair| pair[1] - pair[0] >= Duration::from_secs(1)), "{:?}", asked);
    }

    /// From any world, carrying plans out reaches the wanted counts, and then the plan is empty.
    #[test]
    fn plans_converge_and_then_are_empty(
        replicas in proptest::collection::btree_map(1..12u32, any_replica(), 0..10),
        count in 0..12u32,
        down in any::<bool>(),
    ) {
        let mut target = wanted(&[("web", service(count))]);
        target.going_down = down;
        let mut there = World::from([("web".to_string(), replicas)]);
        there.retain(|_, replicas| !replicas.is_empty());
        let mut now = Time::ZERO;
        for _ in 0..100 {
            observe(&mut target, &there, now);
            let next = plan(&target, &there, &LIMITS, now);
            prop_assert!(next.steps.len() <= LIMITS.launches + LIMITS.retirements + LIMITS.probes);
            apply(&mut there, &next, &target, now);
            now += Duration::from_secs(60);
        }
        let last = plan(&target, &there, &LIMITS, now);
        prop_assert!(last.steps.is_empty(), "{:?}", last.steps);
        let running = there.get("web").map_or(0, BTreeMap::len);
        prop_assert_eq!(running, if down { 0 } else { count as usize });
    }

    /// No two steps of one plan concern the same replica, and no step concerns a busy one.
    #[test]
    fn one_step_a_replica(
        replicas in proptest::collection::btree_map(1..12u32, (any_replica(), any::<bool>()), 0..10),
        count in 0..12u32,
    ) {
        let replicas: BTreeMap<u32, ReplicaView> = replicas
            .into_iter()
            .map(|(ordinal, (mut replica, busy))| { replica.busy = busy; (ordinal, replica) })
            .collect();
        let there = World::from([("web".to_string(), replicas.clone())]);
        let mut target = wanted(&[("web", service(count))]);
        observe(&mut target, &there, Time::ZERO);
        let plan = plan(&target, &there, &LIMITS, Time::ZERO);
        let mut seen = std::collections::BTreeSet::new();
        for step in &plan.steps {
            let (Step::Launch { ordinal, .. } | Step::Restart { ordinal, .. } | Step::Retire { ordinal, .. }
                | Step::Probe { ordinal, .. } | Step::End { ordinal, .. }) = step;
            prop_assert!(seen.insert(*ordinal), "{:?}", plan.steps);
            prop_assert!(!replicas.get(ordinal).is_some_and(|replica| replica.busy));
        }
    }
}
