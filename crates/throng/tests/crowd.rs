//! A crowd outlives its supervisor: every replica goes on, answers, and is adopted as it is.

mod support;

use rustix::process::Signal;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::{Bench, until, web};

const REPLICAS: usize = 2_000;
/// Replicas that are asked all the while, spread over the crowd.
const ASKED: usize = 50;

/// Process and start time of each replica, which together name one process for ever.
fn lives(bench: &Bench) -> BTreeMap<String, (u64, u64)> {
    let folder = bench.home.join("engine").join(&bench.project);
    let replicas = std::fs::read_dir(folder).expect("replicas").map(|entry| entry.expect("entry"));
    let life = |entry: std::fs::DirEntry| {
        let text = std::fs::read_to_string(entry.path().join("life.json")).ok()?;
        let life: serde_json::Value = serde_json::from_str(&text).ok()?;
        Some((entry.file_name().into_string().ok()?, (life["pid"].as_u64()?, life["ticks"].as_u64()?)))
    };
    replicas.filter_map(life).collect()
}

fn addresses(bench: &Bench) -> Vec<String> {
    let text = |value: &serde_json::Value| value.as_str().expect("an address").to_owned();
    bench.ps().iter().step_by(REPLICAS / ASKED).map(|replica| text(&replica["Addresses"][0])).collect()
}

/// Asks replica after replica until it is told to stop. Returns answers and failures.
fn ask(addresses: &[String], stop: &AtomicBool) -> (usize, Vec<String>) {
    let (mut answers, mut failures) = (0, Vec::new());
    for address in addresses.iter().cycle() {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        match web::get(&format!("{address}:80"), "/") {
            Ok(answer) if answer.status == 200 => answers += 1,
            other => failures.push(format!("{address}: {:?}", other.map(|answer| answer.status))),
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    (answers, failures)
}

#[test]
fn two_thousand_replicas_go_on_without_their_supervisor() {
    let Some(bench) = Bench::with_probe("two_thousand_replicas_go_on_without_their_supervisor") else {
        return;
    };
    let replicas = format!("deploy: {{replicas: {REPLICAS}}}");
    bench.compose(&format!("services:\n  web: {{image: probe, command: [serve, '80'], {replicas}}}\n"));
    bench.ok(&["up", "-d", "--wait"]);
    let before = lives(&bench);
    assert_eq!(before.len(), REPLICAS);
    let stop = Arc::new(AtomicBool::new(false));
    let addresses = addresses(&bench);
    assert_eq!(addresses.len(), ASKED);
    let asking = {
        let (stop, addresses) = (stop.clone(), addresses.clone());
        std::thread::spawn(move || ask(&addresses, &stop))
    };
    support::kill(bench.supervisor().expect("a supervisor"), Signal::KILL);
    until("it has ended", || (!bench.listens()).then_some(()));
    for address in &addresses {
        let answer = web::get(&format!("{address}:80"), "/say?nobody-there").expect("it goes on");
        assert_eq!(answer.status, 200);
    }
    // Any command brings a supervisor back.
    bench.ok(&["up", "-d", "--wait"]);
    let replicas = bench.ps();
    assert_eq!(replicas.len(), REPLICAS);
    let strange = replicas.iter().find(|r| r["State"] != "running" || r["Restarts"] != 0);
    assert!(strange.is_none(), "{strange:?}");
    assert_eq!(lives(&bench), before, "not one was started again");
    stop.store(true, Ordering::SeqCst);
    let (answers, failures) = asking.join().expect("asked");
    assert!(failures.is_empty(), "{} of {} failed: {failures:?}", failures.len(), answers + failures.len());
    assert!(answers >= ASKED, "{answers}");
    let logs = bench.ok(&["logs", "--no-log-prefix"]).out;
    let said = |line: &str| logs.lines().filter(|l| *l == line).count();
    assert_eq!((said("serving"), said("nobody-there")), (REPLICAS, ASKED), "logs go on, too");
    bench.ok(&["down"]);
    bench.assert_clean();
}

#[test]
fn a_batch_that_was_cut_short_is_completed() {
    let Some(bench) = Bench::with_probe("a_batch_that_was_cut_short_is_completed") else { return };
    const WANTED: usize = 400;
    bench.compose("services:\n  web: {image: probe, command: [serve, '80']}\n");
    bench.ok(&["up", "-d", "--wait"]);
    bench.ok(&["scale", "--no-wait", &format!("web={WANTED}")]);
    until("some have started", || (lives(&bench).len() > 20).then_some(()));
    support::kill(bench.supervisor().expect("a supervisor"), Signal::KILL);
    until("it has ended", || (!bench.listens()).then_some(()));
    let before = lives(&bench);
    assert!(before.len() < WANTED, "there was something left to do");
    let mut states = BTreeMap::new();
    let deadline = std::time::Instant::now() + support::PATIENCE;
    while states.get("\"running\"") != Some(&WANTED) {
        states = BTreeMap::new();
        let replicas = bench.ps();
        replicas.iter().for_each(|r| *states.entry(r["State"].to_string()).or_insert(0) += 1);
        let troubled = replicas.iter().find(|r| r["State"] != "running");
        assert!(std::time::Instant::now() < deadline, "{states:?}, {troubled:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
    let after = lives(&bench);
    // What was in the middle of its start at that instant may be started afresh; no other one.
    let again = before.iter().filter(|(name, life)| after.get(*name) != Some(*life)).count();
    assert!(again <= 64, "{again} of {} were started again", before.len());
    bench.ok(&["down"]);
    bench.assert_clean();
}

/// What grows if something is left behind, whether it has a name or not.
#[derive(Debug, Clone, Copy)]
struct Held {
    /// Bytes of the files below Throng's home.
    disk: u64,
    /// Files and folders there.
    files: u64,
    /// Kilobytes of kernel memory that cannot be given back.
    kernel: i64,
    /// Control groups of all hierarchies, dying ones included.
    groups: i64,
}

fn held(bench: &Bench) -> Held {
    fn walk(folder: &std::path::Path, held: &mut Held) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let Ok(found) = entry.metadata() else { continue };
            held.files += 1;
            held.disk += found.len();
            if found.is_dir() {
                walk(&entry.path(), held);
            }
        }
    }
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let (memory, groups) = (read("/proc/meminfo"), read("/proc/cgroups"));
    let field = |name: &str| -> i64 {
        let line = memory.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse().ok())
            .expect("a field of meminfo")
    };
    let kernel = ["SUnreclaim", "Percpu", "KernelStack", "PageTables"].into_iter().map(field).sum();
    let groups = groups.lines().filter_map(|line| line.split('\t').nth(2)?.parse::<i64>().ok()).sum();
    let mut held = Held { disk: 0, files: 0, kernel, groups };
    walk(&bench.home, &mut held);
    held
}

/// Twenty times a thousand up and down, and the disk and the memory are where they were after the first time.
#[test]
fn cycles_of_a_thousand_leave_disk_and_memory_as_they_were() {
    const CYCLES: usize = 20;
    const CROWD: usize = 1_000;
    /// Kilobytes: others use this host, too, and slabs are given back in pages. A replica whose network namespace alone
    /// stays costs 150, which is 2.8 GB here.
    const TOLERANCE: i64 = 96 << 10;
    let Some(bench) = Bench::with_probe("cycles_of_a_thousand_leave_disk_and_memory_as_they_were") else {
        return;
    };
    bench.compose("services:\n  web: {image: probe, command: [serve, '80']}\n");
    let cycle = || {
        bench.ok(&["up", "-d", "--wait", "--scale", &format!("web={CROWD}")]);
        assert_eq!(lives(&bench).len(), CROWD);
        bench.ok(&["down"]);
        // The supervisor itself may end a moment later.
        bench.assert_clean();
        held(&bench)
    };
    let first = cycle();
    for _ in 1..CYCLES {
        let now = cycle();
        // The supervisor's log and the record of events have limits of their own.
        assert!(now.files <= first.files && now.disk <= first.disk + (1 << 20), "{now:?}, first {first:?}");
    }
    until("the memory is where it was", || {
        let now = held(&bench);
        let back = now.kernel - first.kernel < TOLERANCE && now.groups - first.groups < CROWD as i64;
        back.then_some(())
    });
}
