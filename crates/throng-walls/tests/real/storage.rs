//! Mounts and small file systems.

use crate::inside::{assert_named, here, inside, run, with_state};
use crate::support::skip;
use rustix::mount::{mount_bind, mount_bind_recursive};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use throng_walls::{Demand, Evidence, State, WallId, predict};

/// A tmpfs that goes with the mount namespace.
fn tmpfs(options: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_str().expect("a path");
    run("mount", &["-t", "tmpfs", "-o", options, "tmpfs", path]).expect("a tmpfs");
    folder
}

fn unmount(folder: &Path) {
    rustix::mount::unmount(folder, rustix::mount::UnmountFlags::DETACH).expect("unmounted");
}

#[test]
fn a_disk_is_full() {
    inside("storage::a_disk_is_full", &["-m"], || {
        let folder = tmpfs("size=256k");
        let before = with_state(folder.path());
        let error = std::fs::write(folder.path().join("file"), vec![1; 1 << 20]).expect_err("more than fits");
        let after = with_state(folder.path());
        let report = predict(&before, &Demand::of(10));
        let finding = report.finding(WallId::Disk).expect("judged");
        assert_eq!((finding.state, finding.holds), (State::InTheWay, Some(4)), "64 KiB each");
        for message in [
            format!("cannot prepare shop/web-1: {error}"),
            format!("cannot start shop/web-1: cannot mount overlay at /s/root: {error}"),
            format!("write /data/file: {error}"),
        ] {
            let messages = vec![message];
            let (before, after) = (Some(before.clone()), Some(after.clone()));
            assert_named(&Evidence { messages, before, after, ..Evidence::default() }, WallId::Disk);
        }
        unmount(folder.path());
    });
}

#[test]
fn inodes_are_used_up() {
    inside("storage::inodes_are_used_up", &["-m"], || {
        let folder = tmpfs("size=64m,nr_inodes=50");
        let before = with_state(folder.path());
        let make = |number: u32| std::fs::write(folder.path().join(number.to_string()), "");
        let error = (0..100).find_map(|number| make(number).err()).expect("more files than inodes");
        let after = with_state(folder.path());
        assert_eq!(after.disk.map(|disk| disk.inodes_free), Some(0));
        let finding = predict(&before, &Demand::of(10)).finding(WallId::Disk).cloned().expect("judged");
        assert_eq!((finding.state, finding.setting.as_deref()), (State::InTheWay, Some("free inodes")));
        let messages = vec![format!("cannot open the log of shop/web-1: {error}")];
        let (before, after) = (Some(before), Some(after));
        assert_named(&Evidence { messages, before, after, ..Evidence::default() }, WallId::Disk);
        unmount(folder.path());
    });
}

/// How long a process with a mount namespace of its own takes; the quickest of a few.
fn start() -> Duration {
    let once = || {
        let begin = Instant::now();
        let status = Command::new("unshare").args(["-m", "--propagation", "unchanged", "true"]).status();
        assert!(status.is_ok_and(|status| status.success()));
        begin.elapsed()
    };
    (0..5).map(|_| once()).min().unwrap_or_default()
}

/// A folder with a thousand mounts below it, and an empty one.
fn thousand_mounts(folder: &Path) -> (PathBuf, PathBuf) {
    let (from, to) = (folder.join("from"), folder.join("to"));
    for place in [&from, &to] {
        std::fs::create_dir(place).expect("a folder");
    }
    mount_bind(&from, &from).expect("a mount");
    for number in 0..1_000 {
        let place = from.join(number.to_string());
        std::fs::create_dir(&place).expect("a folder");
        mount_bind(&place, &place).expect("a mount");
    }
    (from, to)
}

#[test]
fn starts_slow_down_with_the_hosts_mounts() {
    const MOUNTS: u64 = 20_000;
    let name = "storage::starts_slow_down_with_the_hosts_mounts";
    if here().setting("fs.mount-max").is_none_or(|most| most < 2 * MOUNTS) {
        return skip(name, "fs.mount-max is low");
    }
    inside(name, &["-m"], || {
        let folder = tmpfs("size=64m");
        let (before, first) = (here(), start());
        let (from, to) = thousand_mounts(folder.path());
        for _ in 1..MOUNTS / 1_000 {
            mount_bind_recursive(&from, &to).expect("a thousand more");
        }
        let (after, last) = (here(), start());
        let report = predict(&after, &Demand::of(10));
        assert_eq!(report.finding(WallId::MountTable).map(|f| f.state), Some(State::Tight));
        assert_named(
            &Evidence {
                before: Some(before),
                after: Some(after),
                replicas: Some((0, MOUNTS)),
                start: Some((first, last)),
                ..Evidence::default()
            },
            WallId::MountTable,
        );
        unmount(folder.path());
    });
}

#[test]
fn a_namespace_has_too_many_mounts() {
    let name = "storage::a_namespace_has_too_many_mounts";
    let most = here().setting("fs.mount-max");
    if most.is_none_or(|most| most > 200_000) {
        return skip(name, "fs.mount-max is too high to be reached");
    }
    inside(name, &["-m"], || {
        let folder = tmpfs("size=64m");
        let (from, to) = thousand_mounts(folder.path());
        let before = with_state("/");
        // Each time as many mounts as there are below `from`.
        let error = (0..200).find_map(|_| mount_bind_recursive(&from, &to).err()).expect("too many mounts");
        let error = std::io::Error::from(error);
        let after = with_state("/");
        let report = predict(&after, &Demand { mounts: 2_000, ..Demand::of(1) });
        assert_eq!(report.finding(WallId::MountCount).map(|f| f.state), Some(State::InTheWay));
        let messages = vec![format!("cannot start shop/web-1: cannot mount overlay at /s/root: {error}")];
        let (before, after) = (Some(before), Some(after));
        assert_named(&Evidence { messages, before, after, ..Evidence::default() }, WallId::MountCount);
        unmount(folder.path());
    });
}
