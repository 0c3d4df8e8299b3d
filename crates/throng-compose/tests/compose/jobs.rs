//! `x-throng.job` and the modes that mean jobs: what is read, what is refused, and where.

use crate::common::{Case, check};
use std::time::Duration;
use throng_model::app::Service;
use throng_model::job::{Concurrency, Job, JobBackOff};

/// The service whose further keys these are, after it has gone through the canonical text and back.
#[track_caller]
fn service(text: &str) -> Service {
    let text = format!("services:\n  work:\n    image: work\n{text}\n");
    let load = |text: &str| {
        let (loaded, _) = Case { files: &[("compose.yaml", text)], ..Case::default() }.load();
        loaded.unwrap_or_else(|findings| panic!("{findings:?}\n{text}")).app
    };
    let app = load(&text);
    let again = load(&throng_compose::to_yaml(&app));
    assert_eq!(app.services["work"], again.services["work"], "{}", throng_compose::to_yaml(&app));
    app.services["work"].clone()
}

fn job(text: &str) -> (u32, Job) {
    let service = service(&format!("    x-throng: {{job: {text}}}"));
    (service.replicas, service.job.expect("a job"))
}

#[test]
fn defaults_are_those_of_kubernetes() {
    let (completions, bare) = job("{}");
    assert_eq!((completions, bare.parallelism, bare.retries), (1, Some(1), 6));
    assert_eq!(bare.back_off, JobBackOff { initial: Duration::from_secs(10), max: Duration::from_secs(360) });
    assert_eq!((bare.deadline, bare.schedule), (None, None));
    let (completions, all) = job(
        "{completions: 50, parallelism: 10, retries: 0, back_off: {initial: 1s, max: 4s}, deadline: 10m, \
         schedule: '*/5 8-18 * * mon-fri', timezone: Europe/Vienna, concurrency: forbid, starting_deadline: 1m, \
         suspend: true}",
    );
    assert_eq!((completions, all.parallelism, all.retries), (50, Some(10), 0));
    assert_eq!(all.deadline, Some(Duration::from_secs(600)));
    let schedule = all.schedule.expect("a schedule");
    assert_eq!(schedule.expression, "*/5 8-18 * * mon-fri");
    assert_eq!(schedule.timezone.as_deref(), Some("Europe/Vienna"));
    assert_eq!((schedule.concurrency, schedule.suspend), (Concurrency::Forbid, true));
    let (_, every) = job("{schedule: '@every 2s'}");
    assert_eq!(every.schedule.expect("a schedule").concurrency, Concurrency::Allow);
}

#[test]
fn swarm_s_modes_are_jobs_all_at_once() {
    let replicated = service("    deploy: {mode: replicated-job, replicas: 5}");
    assert_eq!((replicated.replicas, replicated.job.expect("a job").parallelism), (5, None));
    let policy = "    deploy: {mode: replicated-job, restart_policy: {condition: none}}";
    assert_eq!(service(policy).job.expect("a job").retries, 0);
    let policy =
        "    deploy: {mode: replicated-job, restart_policy: {condition: on-failure, max_attempts: 3}}";
    assert_eq!(service(policy).job.expect("a job").retries, 3);
    let global = service("    deploy: {mode: global-job}");
    assert!(global.placement.on_each && global.job.is_some());
}

#[test]
fn what_makes_no_sense_is_pointed_at() {
    let wrong = |text: &str, expected: &str| {
        check(&format!("services:\n  work:\n    image: work\n    x-throng:\n      job: {text}\n"), expected);
    };
    wrong(
        "{parallelism: 0}",
        "compose.yaml:5:26: error: a job of which none may run never ends (hint: write 1 or more; a service that is not \
         to run now belongs to a profile)",
    );
    wrong(
        "{completions: 0}",
        "compose.yaml:5:26: error: expected a whole number of replicas that must succeed, 1 or more, found \"0\"",
    );
    wrong(
        "{deadline: 0s}",
        "compose.yaml:5:23: error: no time at all is too short for anything to end well (hint: write a longer time, or \
         remove it)",
    );
    wrong(
        "{schedule: '0 0 30 2 *'}",
        "compose.yaml:5:23: error: the schedule \"0 0 30 2 *\" never comes (hint: no month has such a day)",
    );
    wrong(
        "{schedule: '@hourly', timezone: Mars/Olympus}",
        "compose.yaml:5:44: error: no time zone \"Mars/Olympus\" is known on this host (hint: write a name such as \
         Europe/Vienna; the host's are in /usr/share/zoneinfo (Debian: tzdata))",
    );
    wrong(
        "{suspend: true}",
        "compose.yaml:5:13: error: suspend says nothing without a schedule (hint: add schedule: as in \"*/5 * * * *\", or \
         remove it)",
    );
    wrong(
        "{paralelism: 2}",
        "compose.yaml:5:13: error: unknown key \"paralelism\" (hint: did you mean parallelism?)",
    );
    wrong(
        "{back_off: {initial: 1m, max: 1s}}",
        "compose.yaml:5:23: error: the longest pause is shorter than the first one",
    );
}

#[test]
fn what_a_job_cannot_use_is_told() {
    check(
        "services:
  work:
    image: work
    restart: always
    ports: ['8080:80']
    healthcheck: {test: [CMD, /well]}
    deploy: {replicas: 3}
    x-throng:
      job: {completions: 5}
",
        "compose.yaml:4:14: error: a job ends, and what starts its replicas again after a success never would (hint: remove \
         it; retries says how many failures are borne)
compose.yaml:5:12: warning: the replicas of a job come and go: who connects to a port of theirs may find nobody (hint: \
         remove ports, unless something of the job is to be watched while it runs)
compose.yaml:6:18: warning: nobody gives work to a job, so it does not matter when its replicas are ready (hint: remove it; \
         liveness ends a replica that hangs)
compose.yaml:7:24: error: completions is 5 and the number of replicas 3 (hint: keep completions)",
    );
    check(
        "services:
  work:
    image: work
    x-throng:
      job: {}
      autoscale: {maxReplicas: 5, metrics: [{type: Resource, resource: {name: cpu, target: {type: AverageValue, \
         averageValue: 1}}}]}
",
        "compose.yaml:5:7: error: a job has a number of replicas that must succeed, and no autoscaler (hint: remove \
         autoscale; parallelism says how many run at a time)",
    );
}
