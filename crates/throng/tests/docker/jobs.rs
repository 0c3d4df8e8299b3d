//! Services that run to completion.

use crate::support::until;
use crate::there::There;
use std::collections::BTreeMap;

/// Lines of a file that replicas append to.
fn lines(there: &There, name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(there.bench.folder.join("data").join(name)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// How often each index has been done.
fn done(there: &There) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    lines(there, "done").into_iter().for_each(|line| *counts.entry(line).or_default() += 1);
    counts
}

/// The three lowest indexes fail once each. The other one is a job in Swarm's words.
const WORK: &str = "
services:
  work:
    image: probe
    command: [work, /data, '3', '100']
    volumes: ['./data:/data']
    x-throng:
      job: {completions: 12, parallelism: 4, back_off: {initial: 100ms, max: 200ms}}
  swarm:
    image: probe
    command: [env, JOB_COMPLETION_INDEX]
    deploy: {mode: replicated-job, replicas: 3}
  after:
    image: probe
    command: [append, /data/after, done]
    volumes: ['./data:/data']
    depends_on: {work: {condition: service_completed_successfully}}
";

const FAILING: &str = "
services:
  bad:
    image: probe
    command: [exit, '7']
    x-throng: {job: {retries: 1, back_off: {initial: 100ms, max: 1s}}}
  late:
    image: probe
    command: [sleep, '3600']
    stop_grace_period: 1s
    x-throng: {job: {completions: 2, parallelism: 2, deadline: 3s}}
";

#[test]
fn jobs_are_completed_on_docker_and_failures_are_borne() {
    let name = "jobs_are_completed_on_docker_and_failures_are_borne";
    let Some(there) = There::new(name, "thr-job", 21) else { return };
    there.bench.compose(WORK);
    there.ok(&["--on", "docker", "up", "-d"]);
    there.ok(&["wait", "work"]).prints("work: 12/12 completed, 3 failed");
    assert_eq!(lines(&there, "starts").len(), 15, "three of them twice");
    let counts = done(&there);
    assert!(counts.len() == 12 && counts.values().all(|times| *times == 1), "{counts:?}");
    let abreast = lines(&there, "abreast");
    let most = abreast.iter().filter_map(|line| line.parse::<u32>().ok()).max();
    assert!(most.is_some_and(|most| (2..=4).contains(&most)), "{most:?} ran at a time");
    there.ok(&["wait", "after"]).prints("exited with code 0");
    assert_eq!(lines(&there, "after"), ["done"]);

    there.ok(&["wait", "swarm"]).prints("swarm: 3/3 completed");
    let logs = there.ok(&["logs", "--no-log-prefix", "swarm"]).out;
    let mut indexes: Vec<&str> = logs.lines().collect();
    indexes.sort_unstable();
    assert_eq!(indexes, ["0", "1", "2"]);
    // What is complete does not begin anew by itself.
    there.ok(&["up", "-d", "--wait"]);
    assert_eq!((lines(&there, "starts").len(), lines(&there, "after").len()), (15, 1));
    there.ok(&["up", "-d", "--force-recreate", "swarm"]);
    there.ok(&["wait", "swarm"]).prints("swarm: 3/3 completed");

    there.bench.compose(FAILING);
    there.ok(&["up", "-d"]);
    there.fails(7, &["wait", "bad"]).prints("2 of its replicas have failed, and 1 is allowed");
    there.fails(137, &["wait", "late"]).prints("0/2 completed: it was not complete after 3s");
    until("both have been ended", || (there.in_state("exited").len() == 3).then_some(()));
    there.ok(&["ps", "--all"]).prints("Exited (137, job failed)");
    there.down();
}

#[test]
fn nothing_of_a_job_on_docker_is_forgotten_with_its_supervisor() {
    let name = "nothing_of_a_job_on_docker_is_forgotten_with_its_supervisor";
    let Some(there) = There::new(name, "thr-jkl", 22) else { return };
    // No failure more than the three that there are would be borne.
    there.bench.compose(
        "
services:
  work:
    image: probe
    command: [work, /data, '3', '300']
    volumes: ['./data:/data']
    x-throng:
      job: {completions: 12, parallelism: 3, retries: 3, back_off: {initial: 200ms, max: 400ms}}
",
    );
    let hold = there.bench.write("data/hold", "");
    let folder = there.bench.folder.join("data/running");
    let running = || std::fs::read_dir(&folder).map_or(0, Iterator::count);
    there.ok(&["--on", "docker", "up", "-d"]);
    until("three are at work", || (running() == 3).then_some(()));
    there.kill_supervisor();
    there.ok(&["ps"]).says("work: 0/12 completed, 3 running");
    // They fail while nobody looks: the daemon has seen how they ended, and each failure counts once.
    there.kill_supervisor();
    std::fs::remove_file(&hold).expect("removed");
    until("they have ended", || there.listed("/containers/json").is_empty().then_some(()));
    std::fs::write(&hold, "").expect("written");
    there.ok(&["ps"]).says("3 failed");
    until("three are at work again", || (running() == 3).then_some(()));
    there.kill_supervisor();
    there.ok(&["ps"]).says("work: 0/12 completed, 3 running, 3 failed");
    // In the middle of what comes and goes.
    std::fs::remove_file(&hold).expect("removed");
    until("some are done", || (lines(&there, "done").len() >= 4).then_some(()));
    there.kill_supervisor();
    until("nobody is at work", || there.listed("/containers/json").is_empty().then_some(()));
    there.ok(&["wait", "work"]).prints("work: 12/12 completed, 3 failed");
    let counts = done(&there);
    assert!(counts.len() == 12 && counts.values().all(|times| *times == 1), "{counts:?}");
    assert_eq!(lines(&there, "starts").len(), 15);
    there.down();
}
