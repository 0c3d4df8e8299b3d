//! Faults in the middle of things: nothing that runs is lost, nothing is left, and what is said tells what to do.
//!
//! Full disks, used-up descriptors and processes are in `walls/`, damaged images in `damaged_images.rs`. Root only.
//! Debian package: strace.

mod support;

use rustix::process::Signal;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::{Bench, kill, skip, until};

/// Kills the app's supervisor and waits until nobody listens.
fn kill_supervisor(bench: &Bench) {
    kill(bench.supervisor().expect("a supervisor"), Signal::KILL);
    until("it has ended", || (!bench.listens()).then_some(()));
}

/// The first process of each of so many replicas of `web`.
fn firsts(bench: &Bench, count: u32) -> Vec<Option<u32>> {
    (1..=count).map(|ordinal| bench.pids(&format!("web-{ordinal}")).first().copied()).collect()
}

/// Cuts a file to its first bytes, so many hundredths of them.
fn cut(path: &Path, percent: usize) {
    let text = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    fs::write(path, &text[..text.len() * percent / 100]).expect("cut");
}

/// A process that is killed when this is dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Names of replicas in a state.
fn in_state(bench: &Bench, state: &str) -> Vec<String> {
    bench.states().into_iter().filter(|(_, is)| is == state).map(|(name, _)| name).collect()
}

/// Names of replicas of that health.
fn of_health(bench: &Bench, health: &str) -> usize {
    bench.ps().iter().filter(|replica| replica["Health"] == health).count()
}

const CHECKED: &str = "
services:
  web:
    image: probe
    command: [serve, '80']
    restart: always
    ports: ['127.0.0.1::80']
    stop_grace_period: 1s
    deploy: {replicas: 4}
    healthcheck: {test: [CMD, /probe, healthy, '80'], interval: 1s, timeout: 1s, retries: 1}
";

#[test]
fn replicas_that_are_paused_leave_the_balancer_and_come_back_the_same() {
    let name = "replicas_that_are_paused_leave_the_balancer_and_come_back_the_same";
    let Some(bench) = Bench::with_app(name, CHECKED) else { return };
    bench.ok(&["up", "-d", "--wait"]);
    let before = firsts(&bench, 4);
    bench.ok(&["pause", "web", "--share", "50%", "--seed", "7"]).says(" paused");
    let paused = in_state(&bench, "paused");
    assert_eq!(paused.len(), 2, "{:?}", bench.states());
    bench.ok(&["ps"]).prints("(Paused)");
    let index = paused[0].trim_start_matches("web-");
    bench
        .fails(2, &["exec", "--index", index, "web", "/probe", "print", "x"])
        .says("is paused")
        .says("unpause");
    until("they leave the balancer", || (of_health(&bench, "unhealthy") == 2).then_some(()));
    let address = bench.address("web");
    for _ in 0..8 {
        let who = support::web::get(&address, "/").expect("an answer").body;
        assert!(!paused.contains(&who), "{who} is paused");
    }
    // The next supervisor finds them as they are.
    kill_supervisor(&bench);
    assert_eq!(in_state(&bench, "paused"), paused);
    bench.ok(&["unpause"]).says(&format!("{} goes on", paused[0]));
    until("all are given work again", || (of_health(&bench, "healthy") == 4).then_some(()));
    assert_eq!(firsts(&bench, 4), before, "the same processes");
    bench.ok(&["unpause", "web"]).says("there is no replica to let go on");

    bench.ok(&["pause", "web", "--share", "1", "--for", "1s"]).says("web-1 paused");
    assert_eq!(in_state(&bench, "paused"), ["web-1"]);
    until("it goes on by itself", || in_state(&bench, "paused").is_empty().then_some(()));
    let events = bench.ok(&["events", "--no-follow"]).out;
    assert!(events.contains("web-1") && events.contains("goes on"), "{events}");
    // One that is paused can be killed, and taken down.
    bench.ok(&["pause", "web", "--share", "2"]);
    bench.ok(&["kill", "web", "--share", "1"]).says("web-1 killed");
    until("it runs again", || firsts(&bench, 1)[0].filter(|pid| Some(*pid) != before[0]));
    bench.ok(&["down"]);
    bench.assert_clean();
}

#[test]
fn replicas_that_are_stopped_stay_so_until_they_are_started() {
    let name = "replicas_that_are_stopped_stay_so_until_they_are_started";
    let Some(bench) = Bench::with_app(name, CHECKED) else { return };
    bench.ok(&["up", "-d", "--wait"]);
    let before = firsts(&bench, 4);
    bench.ok(&["stop", "web", "--share", "1", "-t", "0"]).says("web-1 stopped");
    until("it has ended", || (in_state(&bench, "exited") == ["web-1"]).then_some(()));
    bench.fails(1, &["scale", "web=4", "--wait-timeout", "1"]).says("web has 3 of 4 ready").says("stopped");
    kill_supervisor(&bench);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(in_state(&bench, "exited"), ["web-1"], "no rule starts it, nor the next supervisor");
    bench.ok(&["start"]).says("web-1 is started");
    bench.ok(&["scale", "web=4"]);
    let after = firsts(&bench, 4);
    assert!(after[0].is_some() && after[0] != before[0] && after[1..] == before[1..], "{before:?} {after:?}");

    bench.ok(&["stop", "web", "-t", "0"]);
    assert_eq!(in_state(&bench, "exited").len(), 4);
    bench.ok(&["up", "-d", "--wait"]).says("web 4/4 ready");
    bench.ok(&["stop", "web", "--share", "25%", "-t", "0", "--for", "1s"]);
    bench.ok(&["scale", "web=4"]);
    bench.fails(3, &["stop", "nobody"]).says("no service nobody");
    bench.fails(2, &["kill", "web", "-s", "NOTHING"]).says("SIGHUP");
    bench.ok(&["down"]);
    bench.assert_clean();
}

#[test]
fn a_replica_is_known_by_the_name_that_it_is_given() {
    let Some(bench) = Bench::with_probe("a_replica_is_known_by_the_name_that_it_is_given") else { return };
    bench.compose(
        "services:\n  db: {image: probe, command: [serve, '80'], container_name: the.store, restart: always}\n",
    );
    bench.ok(&["up", "-d", "--wait"]);
    bench.ok(&["pause", "the.store"]).says("the.store paused");
    bench.ok(&["unpause", "db"]).says("the.store goes on");
    bench.ok(&["stop", "the.store"]).says("the.store stopped");
    bench.ok(&["start", "the.store"]).says("the.store is started");
    until("it runs again", || bench.ps().iter().any(|one| one["State"] == "running").then_some(()));
    bench.ok(&["kill", "the.store"]).says("the.store killed");
    bench.fails(3, &["kill", "the.shop"]).says("no service the.shop");
}

#[test]
fn disks_are_filled_up_to_what_is_said_and_given_back() {
    let name = "disks_are_filled_up_to_what_is_said_and_given_back";
    let Some(bench) = Bench::with_probe(name) else { return };
    bench.compose(
        "
services:
  web: {image: probe, command: [serve, '80'], restart: always, storage_opt: {size: 16m}, deploy: {replicas: 2}}
  free: {image: probe, command: [serve, '80']}
  closed: {image: probe, command: [serve, '80'], read_only: true}
",
    );
    bench.ok(&["up", "-d", "--wait"]);
    let files = std::cell::Cell::new(0);
    // Another file each time: it takes a block of its own.
    let write = |service: &str| {
        files.set(files.get() + 1);
        bench.run(&["exec", service, "/probe", "append", &format!("/file{}", files.get()), "some"]).code
    };
    assert_eq!(write("web"), 0);
    bench.ok(&["fill", "web", "--share", "1"]).says("web-1 has its disk filled");
    assert_ne!(write("web"), 0, "there is no room");
    assert_eq!(bench.run(&["exec", "--index", "2", "web", "/probe", "append", "/file", "x"]).code, 0);
    // A replica that ends on its full disk begins again on a full one.
    let before = firsts(&bench, 1)[0].expect("a process");
    kill(before, Signal::KILL);
    until("it runs again", || firsts(&bench, 1)[0].filter(|pid| *pid != before));
    until("its disk is full again", || (write("web") != 0).then_some(()));
    bench.ok(&["empty", "web"]).says("web-1 has its disk back");
    assert_eq!(write("web"), 0);
    bench.ok(&["fill", "web", "--share", "1", "--for", "1s"]);
    until("it is given back by itself", || (write("web") == 0).then_some(()));
    // With its supervisor, too.
    bench.ok(&["fill", "web", "--share", "1"]);
    assert_ne!(write("web"), 0);
    kill_supervisor(&bench);
    assert_eq!(write("web"), 0);

    bench.fails(2, &["fill", "free"]).says("has no limit up to which").says("--size").says("storage_opt");
    bench.fails(2, &["fill", "free", "--size", "900t"]).says("are more than").says("hint:");
    bench.ok(&["fill", "free", "--size", "1m"]);
    assert_eq!(write("free"), 0, "the host has more");
    bench.fails(2, &["fill", "closed", "--size", "1m"]).says("cannot be written to");
    bench.ok(&["down"]);
    bench.assert_clean();
}

#[test]
fn a_group_that_is_held_is_named_and_goes_later() {
    let name = "a_group_that_is_held_is_named_and_goes_later";
    let Some(bench) = Bench::with_probe(name) else { return };
    let groups = PathBuf::from("/sys/fs/cgroup/pids");
    if !groups.join("tasks").exists() {
        return skip(name, "no controller pids of version 1; version 2 kills all below a group");
    }
    bench.compose("services:\n  web: {image: probe, command: [say, x], deploy: {replicas: 3}}\n");
    bench.ok(&["up", "-d", "--wait"]);
    let group = groups.join("throng").join(&bench.project).join("web-2");
    let below = group.join("below");
    // One that is empty is no hindrance.
    fs::create_dir_all(group.join("empty/one")).expect("a group");
    fs::create_dir(&below).expect("a group");
    let holder = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().expect("a process");
    let holder = Process(holder);
    let pid = holder.0.id();
    fs::write(below.join("cgroup.procs"), pid.to_string()).expect("moved");

    let mut down = bench.spawn(&["down"]);
    down.says(&format!(
        "control group {} is held by process {pid} (sleep) in {}",
        group.display(),
        below.display()
    ));
    let only = [("web-2".to_owned(), "leaving".to_owned())];
    until("all others have gone", || (bench.states() == only).then_some(()));
    // Tried again and again, told once.
    std::thread::sleep(Duration::from_secs(4));
    let events = bench.ok(&["events", "--no-follow"]).out;
    assert_eq!(events.matches("could not be removed").count(), 1, "{events}");
    assert!(events.contains("hint: end that process, or move it to another group"), "{events}");
    drop(holder);
    let done = down.wait();
    assert_eq!(done.code, 0, "{}", done.err);
    bench.assert_clean();
}

#[test]
fn records_of_processes_that_are_cut_lose_no_replica() {
    let Some(bench) = Bench::with_probe("records_of_processes_that_are_cut_lose_no_replica") else { return };
    bench.compose("services:\n  web: {image: probe, command: [serve, '80'], deploy: {replicas: 6}}\n");
    bench.ok(&["up", "-d", "--wait"]);
    let before = firsts(&bench, 6);
    kill_supervisor(&bench);
    let folder = |ordinal: u32| bench.home.join("engine").join(&bench.project).join(format!("web-{ordinal}"));
    for (ordinal, percent) in [(1, 0), (2, 40), (3, 99)] {
        cut(&folder(ordinal).join("life.json"), percent);
    }
    // As a start leaves them that was under way when the power failed.
    fs::write(folder(4).join("begun.json"), "{\"vers").expect("written");
    fs::write(folder(4).join("life.new"), "{\"vers").expect("written");
    let network = bench.home.join("engine/.networks").join(format!("{}_default.json", bench.project));
    cut(&network, 50);

    let done = bench.ok(&["ps", "--all", "--format", "json"]);
    for ordinal in 1..=3 {
        done.says(&format!("warning: web-{ordinal}: its record life.json was damaged; it was found running"));
    }
    done.says("warning: web-4: its record begun.json was damaged; it runs")
        .says("hint: a full disk or a power failure");
    let replicas = done.json();
    assert!(replicas.iter().all(|r| r["State"] == "running" && r["Restarts"] == 0), "{replicas:?}");
    assert_eq!((replicas.len(), firsts(&bench, 6)), (6, before.clone()), "all go on");
    let events = bench.ok(&["events", "--no-follow"]).out;
    assert_eq!(events.matches("was damaged").count(), 4, "{events}");
    assert_eq!(bench.ok(&["exec", "--index", "1", "web", "/probe", "print", "here"]).out, "here\n");
    bench.ok(&["scale", "web=7"]);
    assert_eq!(firsts(&bench, 6), before, "nobody takes another's place");
    // What was found is recorded: the next one finds nothing odd.
    kill_supervisor(&bench);
    let done = bench.ok(&["ps"]);
    assert!(!done.err.contains("damaged"), "{}", done.err);
    assert_eq!(firsts(&bench, 6), before);
    bench.ok(&["down"]);
    bench.assert_clean();
}

/// As if whoever brought it up had been killed when its network was there and nothing was on record yet.
#[test]
fn a_network_that_no_record_tells_of_goes_with_down() {
    let Some(bench) = Bench::with_probe("a_network_that_no_record_tells_of_goes_with_down") else { return };
    bench.compose("services:\n  web: {image: probe, command: [say, x], deploy: {replicas: 0}}\n");
    bench.ok(&["up", "-d", "--wait"]);
    kill_supervisor(&bench);
    fs::remove_dir_all(bench.home.join("projects").join(&bench.project)).expect("removed");
    let networks = || fs::read_dir(bench.home.join("engine/.networks")).expect("a folder").count();
    assert_eq!(networks(), 1);
    bench.ok(&["down"]).says("everything removed");
    assert_eq!(networks(), 0);
    bench.assert_clean();
    bench.ok(&["down"]).says("nothing to take down");
    bench.assert_clean();
}

#[test]
fn a_replica_whose_record_is_cut_and_that_has_ended_begins_anew() {
    let name = "a_replica_whose_record_is_cut_and_that_has_ended_begins_anew";
    let Some(bench) = Bench::with_probe(name) else { return };
    bench.compose(
        "services:\n  web: {image: probe, command: [say, x], restart: always, deploy: {replicas: 2}}\n",
    );
    bench.ok(&["up", "-d", "--wait"]);
    let before = firsts(&bench, 2);
    kill_supervisor(&bench);
    kill(before[0].expect("a process"), Signal::KILL);
    until("it has ended", || bench.pids("web-1").is_empty().then_some(()));
    cut(&bench.home.join("engine").join(&bench.project).join("web-1/life.json"), 50);
    bench.ok(&["ps"]).says("web-1: its record life.json was damaged; nothing of it was found running");
    until("it runs again", || firsts(&bench, 1)[0]);
    assert_eq!(firsts(&bench, 2)[1], before[1]);
    bench.ok(&["down"]);
    bench.assert_clean();
}

#[test]
fn replicas_whose_description_is_cut_are_replaced() {
    let Some(bench) = Bench::with_probe("replicas_whose_description_is_cut_are_replaced") else { return };
    bench.compose("services:\n  web: {image: probe, command: [serve, '80'], deploy: {replicas: 4}}\n");
    bench.ok(&["up", "-d", "--wait"]);
    let before = firsts(&bench, 4);
    kill_supervisor(&bench);
    for (ordinal, percent) in [(1, 0), (2, 50)] {
        cut(
            &bench.home.join("engine").join(&bench.project).join(format!("web-{ordinal}/spec.json")),
            percent,
        );
    }
    // Both records of one: nothing but its folder and its group tell of it.
    cut(&bench.home.join("engine").join(&bench.project).join("web-2/life.json"), 50);
    let done = bench.ok(&["ps"]);
    done.says("web-1: its record spec.json was damaged; it runs");
    done.says("web-2: its record spec.json and life.json was damaged; it was found running");
    bench.ok(&["up", "-d", "--wait"]);
    let after = firsts(&bench, 4);
    assert_eq!(after[2..], before[2..], "the others go on");
    assert!(
        (0..2).all(|place| after[place].is_some() && after[place] != before[place]),
        "{before:?} {after:?}"
    );
    for pid in before[..2].iter().flatten() {
        // Where process 1 waits for nobody, as in many containers, what has ended stays as a zombie.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        assert!(stat.is_empty() || stat.contains(") Z "), "{pid} goes on unseen: {stat}");
    }
    bench.ok(&["down"]);
    bench.assert_clean();
}

#[test]
fn an_apps_record_that_is_cut_is_named_whatever_is_left_of_it() {
    let name = "an_apps_record_that_is_cut_is_named_whatever_is_left_of_it";
    let Some(bench) = Bench::with_probe(name) else { return };
    bench.compose("services:\n  web: {image: probe, command: [say, x], deploy: {replicas: 2}}\n");
    bench.ok(&["up", "-d", "--wait"]);
    let before = firsts(&bench, 2);
    kill_supervisor(&bench);
    let state = bench.home.join("projects").join(&bench.project).join("state.json");
    let text = fs::read(&state).expect("the record");
    for percent in [0, 1, 30, 70, 99] {
        fs::write(&state, &text[..text.len() * percent / 100]).expect("cut");
        for command in [&["ps"][..], &["up", "-d"], &["scale", "web=3"], &["down"]] {
            let done = bench.fails(4, command);
            done.says("state.json is damaged").says(&format!("hint: remove {}", state.display()));
        }
        bench.ok(&["ls"]).prints("unreachable");
        assert_eq!(firsts(&bench, 2), before, "{percent} %: they go on");
    }
    fs::write(&state, &text).expect("as it was");
    assert_eq!(bench.ps().len(), 2);
    assert_eq!(firsts(&bench, 2), before, "adopted, not started again");
    // Where it cannot be had back, what the hint says works.
    kill_supervisor(&bench);
    fs::remove_file(&state).expect("removed");
    bench.ok(&["down"]);
    bench.assert_clean();
}

/// Lets no task of a process make another one, as a kernel without memory does, until this is dropped.
fn refuse_processes(pid: u32) -> Option<Process> {
    let all = "clone,clone3,fork,vfork";
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-p", &pid.to_string(), "-e", &format!("trace={all}")]);
    strace.args(["-e", &format!("inject={all}:error=ENOMEM")]).stdin(Stdio::null()).stderr(Stdio::null());
    let mut strace = Process(strace.spawn().ok()?);
    let traced = |task: fs::DirEntry| {
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        !status.contains("TracerPid:\t0\n")
    };
    let all_traced = || {
        let ended = strace.0.try_wait().ok()?.is_some();
        let traced = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten().all(traced);
        (ended || traced).then_some(ended)
    };
    let ended = until("strace holds it", all_traced);
    (!ended).then_some(strace)
}

#[test]
fn a_kernel_without_memory_for_processes_is_named() {
    let name = "a_kernel_without_memory_for_processes_is_named";
    let Some(bench) = Bench::with_probe(name) else { return };
    bench.compose("services:\n  web: {image: probe, command: [say, x], deploy: {replicas: 2}}\n");
    bench.ok(&["up", "-d", "--wait"]);
    let before = firsts(&bench, 2);
    let supervisor = bench.supervisor().expect("a supervisor");
    let Some(refused) = refuse_processes(supervisor) else {
        return skip(name, "strace (Debian package strace) is missing or may not trace");
    };
    let done = bench.run(&["scale", "web=5", "--wait-timeout", "5"]);
    assert_eq!(done.code, 1, "{}{}", done.out, done.err);
    done.says("Cannot allocate memory").says("the wall is memory (memory)");
    // strace(1) lets go of what it traces when it is asked to end, and only then.
    kill(refused.0.id(), Signal::TERM);
    until("it is let go", || {
        let status = fs::read_to_string(format!("/proc/{supervisor}/status")).unwrap_or_default();
        status.contains("TracerPid:\t0\n").then_some(())
    });
    drop(refused);
    bench.ok(&["scale", "web=5", "--wait-timeout", "50"]);
    assert_eq!(bench.supervisor(), Some(supervisor), "the same supervisor");
    assert_eq!(firsts(&bench, 2), before);
    bench.ok(&["down"]);
    bench.assert_clean();
}

#[test]
fn who_forks_without_end_harms_nobody_else() {
    let Some(bench) = Bench::with_probe("who_forks_without_end_harms_nobody_else") else { return };
    bench.compose(
        "
services:
  calm: {image: probe, command: [serve, '80']}
  bomb: {image: probe, command: [breed], pids_limit: 50, cpus: 0.3, deploy: {replicas: 2}}
",
    );
    bench.ok(&["up", "-d", "--wait"]);
    for bomb in ["bomb-1", "bomb-2"] {
        until("it has met its limit", || (bench.pids(bomb).len() >= 50).then_some(()));
    }
    assert_eq!(bench.ok(&["exec", "calm", "/probe", "get", "127.0.0.1:80", "/"]).out, "200 calm-1\n");
    let counts: Vec<usize> = ["bomb-1", "bomb-2"].iter().map(|bomb| bench.pids(bomb).len()).collect();
    assert!(counts.iter().all(|count| *count <= 50), "{counts:?}");
    bench.ok(&["scale", "bomb=1"]);
    assert!(bench.pids("bomb-2").is_empty());
    bench.ok(&["down"]);
    bench.assert_clean();
}

#[test]
fn who_ignores_his_stop_signal_is_killed_when_his_time_is_over() {
    const GRACE: Duration = Duration::from_secs(1);
    let name = "who_ignores_his_stop_signal_is_killed_when_his_time_is_over";
    let Some(bench) = Bench::with_probe(name) else { return };
    // The first process of a namespace ignores what it has no handler for (pid_namespaces(7)).
    bench.compose(
        "
services:
  web:
    image: probe
    command: [serve, '80']
    stop_signal: SIGTERM
    stop_grace_period: 1s
    deploy: {replicas: 3}
",
    );
    bench.ok(&["up", "-d", "--wait"]);
    let before = firsts(&bench, 3);
    let begin = Instant::now();
    bench.ok(&["scale", "web=1"]);
    assert!(begin.elapsed() >= GRACE, "they had their time: {:?}", begin.elapsed());
    assert_eq!(firsts(&bench, 3), [before[0], None, None], "only those who were to go");
    let begin = Instant::now();
    bench.ok(&["down"]);
    assert!(begin.elapsed() >= GRACE, "{:?}", begin.elapsed());
    bench.assert_clean();
    // Whoever has no patience may say so.
    bench.ok(&["up", "-d", "--wait"]);
    bench.ok(&["down", "--timeout", "0"]);
    bench.assert_clean();
}

#[test]
fn who_fills_his_log_keeps_the_latest_of_it_and_harms_nobody_else() {
    /// Bytes of one file of the log, of which there are three.
    const FILE: u64 = 64 << 10;
    let name = "who_fills_his_log_keeps_the_latest_of_it_and_harms_nobody_else";
    let Some(bench) = Bench::with_probe(name) else { return };
    bench.compose(
        "
services:
  calm: {image: probe, command: [serve, '80']}
  loud:
    image: probe
    command: [flood, '300000']
    logging: {driver: json-file, options: {max-size: 64k, max-file: '3'}}
",
    );
    bench.ok(&["up", "-d", "--wait"]);
    let folder = bench.home.join("engine").join(&bench.project).join("loud-1");
    let taken = || -> u64 {
        let files = fs::read_dir(&folder).expect("a folder").flatten();
        let logs = files.filter(|file| file.file_name().to_string_lossy().starts_with("log"));
        logs.map(|file| file.metadata().map_or(0, |metadata| metadata.blocks() * 512)).sum()
    };
    let last = |text: &str| text.lines().last().is_some_and(|line| line.ends_with("line 300000"));
    until("all is written", || last(&bench.ok(&["logs", "loud", "--tail", "1"]).out).then_some(()));
    // Each file is rounded up to blocks and may begin with a line about what is missing.
    until("no more than three files are kept", || (taken() <= 3 * (FILE + (8 << 10))).then_some(()));
    let log = bench.ok(&["logs", "loud"]).out;
    assert!(last(&log), "the latest is there");
    assert!(log.contains("bytes came too fast and are not kept]"), "and what is not is told");
    assert_eq!(bench.ok(&["exec", "calm", "/probe", "get", "127.0.0.1:80", "/"]).out, "200 calm-1\n");
    bench.ok(&["down"]);
    bench.assert_clean();
}
