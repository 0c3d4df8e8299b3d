//! Walls made real, run into with the real engine, and what the product then says: the wall that was hit, and no other.
//!
//! Each test builds its wall in namespaces, control groups or small file systems of its own, brings an app up in front
//! of it with the command, and reads what a person would read. Most walls are put up around a supervisor that already
//! runs, and taken away again: then the app must come up, which shows that nothing was lost.
//!
//! Settings that only the whole host has are lowered for a moment, never below what is in use, and put back even if the
//! test fails. Supervisors look for silent walls five times a second here. Root only. Debian packages: iproute2,
//! util-linux, nftables, iptables, inotify-tools.

mod inside;
mod links;
mod refused;
mod silent;
mod unharmed;

#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeSet;
use support::{Bench, Done};
use throng_walls::{WallId, table};

/// Fails unless a text for people names exactly this wall.
#[track_caller]
fn assert_names(text: &str, id: WallId) {
    let named = |row: &&&throng_walls::Wall| {
        let (title, name) = (row.title, row.name);
        text.contains(&format!("the wall is {title} ({name})"))
            || text.contains(&format!("the wall: {title} ("))
    };
    let named: BTreeSet<&str> = table().iter().filter(named).map(|row| row.name).collect();
    assert_eq!(named, BTreeSet::from([id.wall().name]), "{text}");
}

/// Fails if a text for people names any wall.
#[track_caller]
fn names_none(text: &str) {
    assert!(!text.contains("the wall is"), "{text}");
}

/// The same of what `throng ceiling --format json` found where the first count broke.
#[track_caller]
fn assert_ceiling(done: &Done, id: WallId) {
    let found = done.json().remove(0);
    let broken = |trial: &&serde_json::Value| trial["held"] == false;
    let trial = found["trials"].as_array().and_then(|trials| trials.iter().find(broken)).expect("one broke");
    assert_eq!(trial["wall"]["id"], id.wall().name, "{found:#}");
}

/// An app that wants none of its service `web` yet, so that the wall can be put up around its supervisor.
fn idle(bench: &Bench, rest: &str) {
    bench.build_probe();
    bench.compose(&format!(
        "services:\n  web: {{image: probe, command: [say, x], deploy: {{replicas: 0}}}}\n{rest}"
    ));
    bench.ok(&["up", "-d", "--wait"]);
}

/// Asks for more of `web` than can be; what is said then.
#[track_caller]
fn refused(bench: &Bench, replicas: u32) -> Done {
    let order = |seconds: &str| {
        let done = bench.run(&["scale", &format!("web={replicas}"), "--wait-timeout", seconds]);
        assert_ne!(done.code, 0, "all {replicas} came up: {}{}", done.out, done.err);
        done
    };
    let done = order("3");
    // On a busy host none may have got as far as the wall by then.
    if done.err.contains("the wall is ") { done } else { order("20") }
}

/// The wall is gone: the app comes up, goes down, and leaves nothing.
#[track_caller]
fn comes_up(bench: &Bench, replicas: u32) {
    bench.ok(&["scale", &format!("web={replicas}"), "--wait-timeout", "40"]);
    assert_eq!(bench.states().iter().filter(|(_, state)| state == "running").count(), replicas as usize);
    bench.ok(&["down"]);
    bench.assert_clean();
}
