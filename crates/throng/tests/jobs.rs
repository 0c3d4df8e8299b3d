//! Services that run to completion.

mod support;

use rustix::process::Signal;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use support::{Bench, kill, until};

/// Lines of a file that replicas append to.
fn lines(bench: &Bench, name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(bench.folder.join("data").join(name)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn counted(lines: &[String]) -> BTreeMap<&str, u32> {
    let mut counts = BTreeMap::new();
    lines.iter().for_each(|line| *counts.entry(line.as_str()).or_default() += 1);
    counts
}

/// The five lowest indexes fail once each.
const FIFTY: &str = "
services:
  work:
    image: probe
    command: [work, /data, '5', '100']
    volumes: ['./data:/data']
    x-throng:
      job: {completions: 50, parallelism: 10, back_off: {initial: 100ms, max: 200ms}}
  after:
    image: probe
    command: [append, /data/after, done]
    volumes: ['./data:/data']
    depends_on: {work: {condition: service_completed_successfully}}
";

#[test]
fn fifty_are_completed_ten_at_a_time() {
    let Some(bench) = Bench::with_probe("fifty_are_completed_ten_at_a_time") else { return };
    bench.compose(FIFTY);
    bench.ok(&["up", "-d", "--wait", "work"]);
    bench.ok(&["wait", "work"]).prints("work: 50/50 completed, 5 failed");
    let (done, starts) = (lines(&bench, "done"), lines(&bench, "starts"));
    assert_eq!((done.len(), starts.len()), (50, 55), "each index once, and five of them twice");
    assert!(counted(&done).values().all(|times| *times == 1), "{done:?}");
    let most = lines(&bench, "abreast").iter().filter_map(|line| line.parse::<u32>().ok()).max();
    assert!(most.is_some_and(|most| (2..=10).contains(&most)), "{most:?} ran at a time");
    let replicas = bench.ps();
    assert_eq!(replicas.len(), 50, "they stay, to be looked at");
    assert!(replicas.iter().all(|r| r["State"] == "exited" && r["ExitCode"] == 0), "{replicas:?}");
    bench.ok(&["describe", "work"]).prints("complete, run 1: 50/50 completed, 5 failed");
    bench.ok(&["ps"]).says("work: 50/50 completed, 5 failed");
    let figures = bench.ok(&["metrics"]);
    for (name, value) in [("completions_wanted", 50), ("succeeded", 50), ("failures", 5), ("active", 0)] {
        figures.prints(&format!("throng_job_{name}{{service=\"work\"}} {value}\n"));
    }
    bench.ok(&["events", "--no-follow"]).prints("run 1 is complete: 50 of 50, after 5 failures");
    bench.fails(2, &["scale", "work=3"]).says("work is a job");
    bench.fails(2, &["up", "-d", "--scale", "work=3"]).says("it is a job");

    // What depends on it begins; the job itself does not begin anew.
    bench.ok(&["up", "-d", "--wait"]);
    bench.ok(&["wait", "after"]).prints("exited with code 0");
    assert_eq!((lines(&bench, "after").len(), lines(&bench, "starts").len()), (1, 55));
    bench.ok(&["up", "-d", "--force-recreate", "work"]);
    until("the job has been done again", || (lines(&bench, "done").len() == 100).then_some(()));
    bench.ok(&["wait", "--down-project", "work"]);
    bench.assert_clean();
}

#[test]
fn a_supervisor_that_is_killed_forgets_nothing_of_a_job() {
    let Some(bench) = Bench::with_probe("a_supervisor_that_is_killed_forgets_nothing_of_a_job") else {
        return;
    };
    bench.compose(
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
    let hold = bench.write("data/hold", "");
    let running = || std::fs::read_dir(bench.folder.join("data/running")).map_or(0, Iterator::count);
    let kill_supervisor = || {
        kill(bench.supervisor().expect("a supervisor"), Signal::KILL);
        until("it has gone", || (!bench.listens()).then_some(()));
    };
    bench.ok(&["up", "-d"]);
    until("three are at work", || (running() == 3).then_some(()));
    kill_supervisor();
    bench.ok(&["ps"]).says("work: 0/12 completed, 3 running");
    // The first three fail once, which is as often as they may. Whether that is seen depends on the kernel: they are not
    // children of this supervisor.
    std::fs::remove_file(&hold).expect("removed");
    until("some are done", || (lines(&bench, "done").len() >= 4).then_some(()));
    std::fs::write(&hold, "").expect("written");
    // Whoever has not seen it yet ends at once.
    std::thread::sleep(std::time::Duration::from_secs(1));
    until("three are at work again", || (running() == 3).then_some(()));
    kill_supervisor();
    // Nobody sees how these end, so that they must be done again; they have not failed for that.
    std::fs::remove_file(&hold).expect("removed");
    until("they have ended", || (running() == 0).then_some(()));
    bench.ok(&["wait", "work"]).prints("work: 12/12 completed");
    let (done, starts) = (lines(&bench, "done"), lines(&bench, "starts").len());
    assert_eq!(counted(&done).len(), 12, "{done:?}");
    assert!((12..=15).contains(&done.len()), "none whose success was seen ran again: {done:?}");
    assert!((15..=18).contains(&starts), "{starts} starts");
    bench.ok(&["down"]);
    bench.assert_clean();
}

#[test]
fn a_job_that_fails_says_so_to_all_that_wait() {
    let Some(bench) = Bench::with_probe("a_job_that_fails_says_so_to_all_that_wait") else { return };
    bench.compose(
        "
services:
  late:
    image: probe
    command: [sleep, '3600']
    x-throng: {job: {completions: 2, parallelism: 2, deadline: 1s}}
  bad:
    image: probe
    command: [exit, '7']
    x-throng: {job: {retries: 1, back_off: {initial: 100ms, max: 1s}}}
  after:
    image: probe
    command: [print, never]
    depends_on: {late: {condition: service_completed_successfully}}
",
    );
    bench.fails(1, &["up", "-d", "--wait", "after"]).says("DeadlineExceeded");
    let late = until("both have been ended", || {
        let ended = bench.ps().into_iter().filter(|r| r["Service"] == "late" && r["State"] == "exited");
        Some(ended.collect::<Vec<_>>()).filter(|ended| ended.len() == 2)
    });
    assert!(late[0]["EndedFor"].as_str().is_some_and(|why| why.contains("DeadlineExceeded")), "{late:?}");
    bench.ok(&["ps", "--all"]).prints("Exited (137, job failed)");
    bench.fails(137, &["wait", "late"]).prints("0/2 completed: it was not complete after 1s");

    // In the foreground it ends by itself, with what became of it.
    bench.ok(&["down"]);
    bench.fails(1, &["up", "bad"]).says("bad failed: 2 of its replicas have failed, and 1 is allowed");
    bench.assert_clean();
    bench.compose(
        "services: {fine: {image: probe, command: [print, hello], x-throng: {job: {completions: 3}}}}",
    );
    let done = bench.ok(&["up"]);
    assert_eq!(done.out.matches("hello").count(), 3, "{}", done.out);
    bench.assert_clean();
}

#[test]
fn runs_come_by_their_schedule() {
    let Some(bench) = Bench::with_probe("runs_come_by_their_schedule") else { return };
    bench.compose(
        "
services:
  tick:
    image: probe
    command: [append, /data/ticks, tick]
    volumes: ['./data:/data']
    x-throng: {job: {schedule: '@every 2s', concurrency: forbid}}
  yearly:
    image: probe
    command: [exit, '0']
    x-throng: {job: {schedule: '0 3 1 1 *', timezone: UTC}}
",
    );
    bench.ok(&["up", "-d", "--wait"]);
    assert!(lines(&bench, "ticks").is_empty(), "its time has not come yet");
    bench.ok(&["describe", "yearly"]).prints("-01-01T03:00:00Z");
    until("it has come twice", || (lines(&bench, "ticks").len() >= 2).then_some(()));
    // The times outlive the supervisor.
    kill(bench.supervisor().expect("a supervisor"), Signal::KILL);
    until("it has gone", || (!bench.listens()).then_some(()));
    bench.ok(&["ps"]);
    until("and again", || (lines(&bench, "ticks").len() >= 4).then_some(()));
    let ticks = bench.ps().into_iter().filter(|r| r["Service"] == "tick").count();
    assert!(ticks <= 1, "only the last run's replica is kept");
    bench.ok(&["down"]);
    bench.assert_clean();
}

/// This command and the libraries that it is linked to, for an image that has nothing else.
fn copy_command(context: &Path) {
    let command = env!("CARGO_BIN_EXE_throng");
    std::fs::create_dir_all(context).expect("a folder");
    std::fs::copy(command, context.join("throng")).expect("the command can be copied");
    let libraries = Command::new("ldd").arg(command).output().expect("ldd runs").stdout;
    for path in String::from_utf8_lossy(&libraries).split_whitespace().filter(|word| word.starts_with('/')) {
        let target = context.join("root").join(path.trim_start_matches('/'));
        std::fs::create_dir_all(target.parent().expect("a folder")).expect("a folder");
        std::fs::copy(path, target).expect("a library can be copied");
    }
}

/// As in docs/jobs.md.
const CLIENTS: &str = "
services:
  web:
    image: probe
    command: [serve, '80']
    x-throng: {readiness: {tcp: {port: 80}, interval: 200ms, timeout: 5s}}
  clients:
    image: loader
    command: [load, 'http://web:80/', --duration, 1s, --rate, '20', --json]
    depends_on: {web: {condition: service_healthy}}
    x-throng: {job: {completions: 50, parallelism: 50}}
";

/// Results of `throng load --json`, each over several lines, among others.
fn results(text: &str) -> Vec<serde_json::Value> {
    let (mut found, mut part) = (Vec::new(), String::new());
    for line in text.lines() {
        if line == "{" || !part.is_empty() {
            part += line;
        }
        if line == "}" {
            found.extend(serde_json::from_str(&part));
            part.clear();
        }
    }
    found
}

#[test]
fn fifty_clients_put_load_on_a_service() {
    let Some(bench) = Bench::with_probe("fifty_clients_put_load_on_a_service") else { return };
    let context = bench.folder.join("loader");
    copy_command(&context);
    std::fs::write(
        context.join("Dockerfile"),
        "FROM scratch\nCOPY root /\nCOPY throng /throng\nENTRYPOINT [\"/throng\"]\n",
    )
    .expect("a file");
    bench.ok(&["build", "-t", "loader", "loader"]);
    bench.compose(CLIENTS);
    bench.ok(&["up", "-d", "--wait"]);
    bench.ok(&["wait", "clients"]).prints("clients: 50/50 completed");
    let logs = bench.ok(&["logs", "--no-log-prefix", "clients"]);
    let measured = results(&logs.out);
    assert_eq!(measured.len(), 50, "each says what it measured: {}", logs.out);
    assert!(measured.iter().all(|one| one["result"]["latency"].is_object()), "{}", measured[0]);
    bench.ok(&["down"]);
    bench.assert_clean();
}

/// Plain processes on the host, each at an address of its own of loopback.
const PLAIN: &str = "
services:
  work:
    image: probe
    command: [env, JOB_COMPLETION_INDEX]
    x-throng: {job: {completions: 3, parallelism: 2}}
  web:
    image: probe
    command: [serve, '8134']
    restart: always
    x-throng:
      liveness: {http: {port: 8134, path: /livez}, interval: 200ms, timeout: 5s, retries: 2}
";

#[test]
fn jobs_end_and_what_hangs_comes_back_without_containers() {
    let Some(bench) = Bench::with_probe("jobs_end_and_what_hangs_comes_back_without_containers") else {
        return;
    };
    bench.compose(PLAIN);
    bench.ok(&["--isolation", "process", "up", "-d", "--wait"]);
    bench.ok(&["wait", "work"]).prints("work: 3/3 completed");
    let logs = bench.ok(&["logs", "--no-log-prefix", "work"]).out;
    let mut indexes: Vec<&str> = logs.lines().collect();
    indexes.sort_unstable();
    assert_eq!(indexes, ["0", "1", "2"]);
    bench.ok(&["exec", "web", "/probe", "get", "127.0.0.1:8134", "/hang"]);
    until("it has been started again", || {
        bench
            .ps()
            .into_iter()
            .find(|r| r["Service"] == "web" && r["Restarts"] == 1 && r["State"] == "running")
    });
    bench.ok(&["events", "--no-follow"]).prints("is ended: liveness check failed: GET :8134/livez");
    bench.ok(&["down"]);
    bench.assert_clean();
}
