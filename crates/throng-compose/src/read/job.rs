//! Services that run to completion: `x-throng.job`, and `deploy.mode: replicated-job` and `global-job`.

use super::x_throng::entries;
use crate::yaml::{Entry, Findings, Node, Position};
use std::time::Duration;
use throng_control::schedule::Timetable;
use throng_model::app::{HealthTest, RestartPolicy, Service};
use throng_model::job::{Concurrency, Job, JobBackOff, Schedule};

const KEYS: [&str; 10] = [
    "completions",
    "parallelism",
    "retries",
    "back_off",
    "deadline",
    "schedule",
    "timezone",
    "concurrency",
    "starting_deadline",
    "suspend",
];
/// Those that say nothing without a schedule.
const OF_SCHEDULES: [&str; 4] = ["timezone", "concurrency", "starting_deadline", "suspend"];
const CONCURRENCIES: [(&str, Concurrency); 3] =
    [("allow", Concurrency::Allow), ("forbid", Concurrency::Forbid), ("replace", Concurrency::Replace)];
/// Most replicas of one run; ordinals and addresses are sized for far less.
const COMPLETIONS_MOST: u32 = 100_000;
/// Longest of all these times: nobody waits longer, and sums of times must stay times.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);
/// Shortest first pause after a failure: a replica that fails at once must not be all that the host does.
const LEAST_PAUSE: Duration = Duration::from_millis(100);

/// A job by its mode: as many as there are to be, all at once, as Docker's Swarm has it.
pub(super) fn of_mode() -> Job {
    Job::default()
}

/// Reads the job of a service whose other keys have been read. `node` is that of the service.
pub(super) fn read(node: &Node, service: &mut Service, findings: &mut Findings) {
    let entry = node.get("x-throng").and_then(|extras| {
        let entries = extras.map(&mut Findings::default())?;
        entries.iter().find(|entry| entry.key == "job" && !entry.value.is_null())
    });
    let by_mode = service.job.take();
    let at = match (&entry, &by_mode) {
        (Some(entry), _) => &entry.key_at,
        (None, Some(_)) => place(node, &["deploy", "mode"]),
        (None, None) => return,
    };
    let mut job = by_mode.unwrap_or(Job { parallelism: Some(1), ..Job::default() });
    let retries_at = entry.and_then(|entry| entry.value.get("retries"));
    check_restart(node, service, retries_at.is_none(), &mut job, findings);
    if let Some(entry) = entry {
        read_keys(entry, node, service, &mut job, findings);
    }
    check_surroundings(node, service, at, findings);
    service.job = Some(job);
}

fn read_keys(
    entry: &Entry,
    service_node: &Node,
    service: &mut Service,
    job: &mut Job,
    findings: &mut Findings,
) {
    let keys = entries(&entry.value, &KEYS, findings);
    let value = |key: &str| keys.iter().find(|entry| entry.key == key).map(|entry| &entry.value);
    if let Some(node) = value("completions") {
        const WHAT: &str = "a whole number of replicas that must succeed, 1 or more";
        match node.number::<u32>(WHAT, findings) {
            Some(count @ 1..=COMPLETIONS_MOST) => completions(node, count, service_node, service, findings),
            Some(0) => node.mismatch(WHAT, findings),
            Some(_) => {
                findings.error(&node.position, format!("{COMPLETIONS_MOST} are the most of one job"));
            }
            None => {}
        }
    }
    if let Some(node) = value("parallelism") {
        match node.number::<u32>("a whole number of replicas that run at a time", findings) {
            Some(0) => {
                let hint = "write 1 or more; a service that is not to run now belongs to a profile";
                findings.error_with_hint(&node.position, "a job of which none may run never ends", hint);
            }
            some => job.parallelism = some.or(job.parallelism),
        }
    }
    if let Some(node) = value("retries") {
        job.retries = node.number("a whole number of failures, 0 for none", findings).unwrap_or(job.retries);
    }
    if let Some(node) = value("back_off") {
        job.back_off = read_back_off(node, findings);
    }
    job.deadline = value("deadline").and_then(|node| time(node, findings));
    job.schedule = value("schedule").and_then(|node| read_schedule(node, &value, findings));
    if value("schedule").is_none() {
        for entry in keys.iter().filter(|entry| OF_SCHEDULES.contains(&entry.key.as_str())) {
            let message = format!("{} says nothing without a schedule", entry.key);
            let hint = "add schedule: as in \"*/5 * * * *\", or remove it";
            findings.error_with_hint(&entry.key_at, message, hint);
        }
    }
}

fn completions(node: &Node, count: u32, of: &Node, service: &mut Service, findings: &mut Findings) {
    let said = of.get("deploy").and_then(|deploy| deploy.get("replicas")).or(of.get("scale"));
    if service.placement.on_each {
        let hint = "there is one on each node: remove completions, or mode";
        findings.error_with_hint(
            &node.position,
            "completions and mode: global-job say different things",
            hint,
        );
    } else if let Some(said) = said.filter(|_| service.replicas != count) {
        let message = format!("completions is {count} and the number of replicas {}", service.replicas);
        findings.error_with_hint(&said.position, message, "keep completions");
    }
    service.replicas = count;
}

fn read_back_off(node: &Node, findings: &mut Findings) -> JobBackOff {
    let keys = entries(node, &["initial", "max"], findings);
    let mut back_off = JobBackOff::default();
    for entry in keys {
        let Some(time) = time(&entry.value, findings) else { continue };
        if time < LEAST_PAUSE {
            findings.error(&entry.value.position, "a pause after a failure is 100ms or longer");
        } else if entry.key == "initial" {
            back_off.initial = time;
        } else {
            back_off.max = time;
        }
    }
    if back_off.max < back_off.initial {
        findings.error(&node.position, "the longest pause is shorter than the first one");
    }
    back_off
}

fn read_schedule<'a>(
    node: &Node,
    value: &impl Fn(&str) -> Option<&'a Node>,
    findings: &mut Findings,
) -> Option<Schedule> {
    let expression = node.text(findings)?.trim().to_owned();
    let zone = value("timezone").and_then(|node| node.nonempty(findings));
    if let Err(error) = Timetable::parse(&expression, zone) {
        let of_zone = matches!(error, throng_control::schedule::ScheduleError::Zone(_));
        let at = value("timezone").filter(|_| of_zone).unwrap_or(node);
        findings.error_with_hint(&at.position, error.to_string(), error.hint());
        return None;
    }
    Some(Schedule {
        expression,
        timezone: zone.map(str::to_owned),
        concurrency: value("concurrency")
            .and_then(|node| node.choice(&CONCURRENCIES, findings))
            .unwrap_or_default(),
        starting_deadline: value("starting_deadline").and_then(|node| time(node, findings)),
        suspend: value("suspend").and_then(|node| node.boolean(findings)).unwrap_or_default(),
    })
}

fn time(node: &Node, findings: &mut Findings) -> Option<Duration> {
    let time = node.duration(findings)?;
    if time.is_zero() {
        let hint = "write a longer time, or remove it";
        findings.error_with_hint(
            &node.position,
            "no time at all is too short for anything to end well",
            hint,
        );
        return None;
    }
    if time > LONGEST {
        findings
            .error(&node.position, "this is longer than a year, the longest that anything waits for here");
        return None;
    }
    Some(time)
}

/// What its service says about restarts is about failures of a job: how often, and never after a success.
fn check_restart(node: &Node, service: &Service, ours: bool, job: &mut Job, findings: &mut Findings) {
    let said = |path: &[&str]| path.iter().try_fold(node, |node, key| node.get(key));
    match service.restart {
        RestartPolicy::Always | RestartPolicy::UnlessStopped => {
            let condition = said(&["deploy", "restart_policy", "condition"]).or(said(&["restart"]));
            // Of a policy that says nothing else `any` is only the default.
            if let Some(condition) = condition {
                let hint = "remove it; retries says how many failures are borne";
                let message = "a job ends, and what starts its replicas again after a success never would";
                findings.error_with_hint(&condition.position, message, hint);
            }
        }
        RestartPolicy::OnFailure(Some(most)) if ours => job.retries = most,
        RestartPolicy::No if ours && said(&["deploy", "restart_policy", "condition"]).is_some() => {
            job.retries = 0
        }
        _ => {}
    }
    if let Some(most) = service.restart_pace.max_attempts.filter(|_| ours) {
        job.retries = most;
    }
}

/// Keys that a job cannot make anything of.
fn check_surroundings(node: &Node, service: &Service, at: &Position, findings: &mut Findings) {
    if service.autoscale.is_some() {
        let hint = "remove autoscale; parallelism says how many run at a time";
        findings.error_with_hint(
            at,
            "a job has a number of replicas that must succeed, and no autoscaler",
            hint,
        );
    }
    if let Some(name) = node.get("container_name").filter(|_| service.replicas > 1) {
        let message = format!("{} replicas of a job cannot all have one name", service.replicas);
        findings.error_with_hint(&name.position, message, "remove container_name");
    }
    let tests = service.health_check.as_ref().is_some_and(|check| check.test != HealthTest::Disabled);
    let readiness: &[&str] = match node.get("healthcheck") {
        Some(_) => &["healthcheck"],
        None => &["x-throng", "readiness"],
    };
    for (warns, path, what, hint) in [
        (
            !service.ports.is_empty(),
            &["ports"][..],
            "the replicas of a job come and go: who connects to a port of theirs may find nobody",
            "remove ports, unless something of the job is to be watched while it runs",
        ),
        (
            tests,
            readiness,
            "nobody gives work to a job, so it does not matter when its replicas are ready",
            "remove it; liveness ends a replica that hangs",
        ),
        (
            service.update.is_some(),
            &["deploy", "update_config"],
            "a job is not rolled out: a new definition begins it anew",
            "remove update_config",
        ),
    ] {
        if warns {
            findings.warn_with_hint(place(node, path), what, hint);
        }
    }
}

/// The node at the end of a path, or the last one on the way there.
fn place<'a>(node: &'a Node, path: &[&str]) -> &'a Position {
    let found = path.iter().try_fold(node, |node, key| node.get(key));
    found.map_or(&node.position, |node| &node.position)
}

/// `x-throng.job` as it is printed.
pub(crate) fn canonical(
    job: &Job,
    completions: u32,
    on_each: bool,
    time: impl Fn(Duration) -> String,
) -> serde_json::Value {
    use serde_json::{Map, Value, json};
    let mut map = Map::new();
    if !on_each {
        map.insert("completions".into(), json!(completions));
    }
    if let Some(parallelism) = job.parallelism {
        map.insert("parallelism".into(), json!(parallelism));
    }
    map.insert("retries".into(), json!(job.retries));
    let JobBackOff { initial, max } = job.back_off;
    map.insert("back_off".into(), json!({ "initial": time(initial), "max": time(max) }));
    if let Some(deadline) = job.deadline {
        map.insert("deadline".into(), json!(time(deadline)));
    }
    if let Some(schedule) = &job.schedule {
        map.insert("schedule".into(), json!(schedule.expression));
        if let Some(zone) = &schedule.timezone {
            map.insert("timezone".into(), json!(zone));
        }
        map.insert("concurrency".into(), json!(schedule.concurrency));
        if let Some(deadline) = schedule.starting_deadline {
            map.insert("starting_deadline".into(), json!(time(deadline)));
        }
        map.insert("suspend".into(), json!(schedule.suspend));
    }
    Value::Object(map)
}
