//! What lies beneath a replica's root: nothing of the host, whatever a process in it may do.

mod common;

use common::{Bench, is_root, skip};
use std::process::{Command, Output};
use std::time::Duration;
use throng_model::replica::{ResolvedMount, ResolvedSource};
use throng_runtime::Runtime;

/// What the probe's image and the engine put into a root.
const KNOWN: [&str; 8] = ["data", "dev", "etc", "jail", "new", "probe", "proc", "sys"];

/// A running replica with a folder of the host in it; its process on the host.
async fn running(bench: &Bench, ordinal: u32) -> (throng_model::replica::ReplicaSpec, u32) {
    let host = bench.folder.path().join("host");
    std::fs::create_dir_all(&host).expect("a folder");
    std::fs::write(host.join("file"), "from the host\n").expect("a file");
    let mut spec = bench.spec("web", ordinal, &["serve"]);
    let source = ResolvedSource::Bind(host);
    spec.mounts = vec![ResolvedMount { source, target: "/data".into(), read_only: false }];
    bench.engine.create(&spec).await.expect("created");
    let pid = bench.engine.start(&spec.id, 1).await.expect("started");
    (spec, pid)
}

/// Runs the probe among the replica's mounts and processes with every privilege of the host's root.
fn privileged(pid: u32, order: &[&str]) -> Output {
    let mut command = Command::new("nsenter");
    command.args(["--mount", "--pid", "--target", &pid.to_string(), "/probe"]).args(order);
    command.output().expect("nsenter of util-linux runs")
}

/// What the kernel came up from lies beneath every namespace of mounts, the host's own too. Without `MNT_LOCKED` copies,
/// before Linux 6.7, whoever may unmount everything gets there, as with any container: an initial RAM disk leaves folders.
fn beneath_the_host() -> String {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]).arg(common::layer().join("probe"));
    let output = command.arg("escape-by-unmounting").output().expect("unshare of util-linux runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let last = text.lines().last().and_then(|line| line.split_once(": ")).map(|(_, rest)| rest);
    last.and_then(|rest| rest.split_once(';')).map(|(names, _)| names.to_owned()).unwrap_or_default()
}

fn assert_known(names: &str, beneath: &str) {
    let mut strange: Vec<&str> = names.split_whitespace().filter(|name| !KNOWN.contains(name)).collect();
    strange.retain(|name| !beneath.split_whitespace().any(|there| there == *name));
    assert!(strange.is_empty(), "{strange:?} are not the replica's: {names}");
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_the_host_is_beneath_a_root() {
    if !is_root() {
        return skip("nothing_of_the_host_is_beneath_a_root", "needs root");
    }
    let bench = Bench::new("engine-escape", 31).await;
    let (spec, pid) = running(&bench, 1).await;
    // With the capabilities that a replica has; CAP_SYS_CHROOT is one of them.
    let (exit, text) = common::exec(&bench.engine, &spec.id, &["/probe", "escape-by-chroot"]).await;
    assert_eq!(exit, throng_model::replica::Exit::Code { code: 0 }, "{text}");
    assert!(text.contains("probe"), "it is still in its own root: {text}");
    assert_known(&text, "");
    let output = privileged(pid, &["escape-by-chroot"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("probe"), "{output:?}");
    assert_known(&text, "");
    let beneath = beneath_the_host();
    let output = privileged(pid, &["escape-by-unmounting", "writing"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.lines().count() == 4, "{output:?}");
    for line in text.lines() {
        let (names, refused) =
            line.split_once(": ").and_then(|(_, rest)| rest.split_once(';')).expect("a listing");
        assert_known(names, &beneath);
        // Beneath the root is one file system for all replicas: none may leave anything there for another one.
        assert!(!names.is_empty() || refused == " true", "{text}");
    }
    bench.end().await;
}

/// The namespace that replicas start from must not tie theirs to the host's.
#[tokio::test(flavor = "multi_thread")]
async fn mounts_do_not_travel_between_replica_and_host() {
    if !is_root() {
        return skip("mounts_do_not_travel_between_replica_and_host", "needs root");
    }
    let bench = Bench::new("engine-travel", 32).await;
    // Shared with whatever has a copy of it, as everything is where systemd runs.
    let host = bench.folder.path().join("host");
    std::fs::create_dir_all(&host).expect("a folder");
    let mount = |arguments: &[&str]| {
        let done = Command::new("mount").args(arguments).status().expect("mount of util-linux runs");
        assert!(done.success(), "mount {arguments:?}");
    };
    let path = host.to_str().expect("a path");
    mount(&["-t", "tmpfs", "host", path]);
    mount(&["--make-shared", path]);
    let below = host.join("below");
    std::fs::create_dir(&below).expect("a folder");
    let (spec, pid) = running(&bench, 1).await;
    // A mount on the host after the start does not appear in the replica.
    mount(&["-t", "tmpfs", "late", below.to_str().expect("a path")]);
    std::fs::write(below.join("late"), "").expect("a file");
    let (_, text) = common::exec(&bench.engine, &spec.id, &["/probe", "list", "/data/below"]).await;
    // Nor does one in the replica on the host.
    let inside = ["--mount", "--pid", "--target", &pid.to_string(), "/probe", "cat", "/proc/self/mountinfo"];
    let mounts = Command::new("nsenter").args(inside).output().expect("nsenter of util-linux runs");
    for path in [below.to_str().expect("a path"), path] {
        let done = Command::new("umount").arg(path).status().expect("umount of util-linux runs");
        assert!(done.success(), "umount {path}");
    }
    assert_eq!(text, "\n", "what was mounted later is not there");
    let mounts = String::from_utf8_lossy(&mounts.stdout).into_owned();
    let shared: Vec<&str> =
        mounts.lines().filter(|l| l.contains(" shared:") || l.contains(" master:")).collect();
    assert!(shared.is_empty(), "{shared:?}");
    bench.end().await;
}

/// Namespaces of mounts that exist besides those of living processes cannot be counted, but what holds them can: the
/// engine's own descriptors.
#[tokio::test(flavor = "multi_thread")]
async fn starts_leave_no_mounts_and_no_descriptors() {
    if !is_root() {
        return skip("starts_leave_no_mounts_and_no_descriptors", "needs root");
    }
    let bench = Bench::new("engine-leaves", 33).await;
    let descriptors = || std::fs::read_dir("/proc/self/fd").expect("descriptors").count();
    let mounts = || std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    let folder = bench.folder.path().to_str().expect("a path").to_owned();
    let mut before = 0;
    for ordinal in 1..=12 {
        let (spec, _) = running(&bench, ordinal).await;
        assert!(!mounts().lines().any(|l| l.contains(&folder)), "the host sees no mount of a replica");
        bench.engine.stop(&spec.id, 1, 9, Duration::from_secs(5)).await.expect("stopped");
        bench.engine.remove(&spec.id, 1).await.expect("removed");
        if ordinal == 2 {
            before = descriptors();
        }
    }
    assert!(descriptors() <= before, "{before} descriptors have become {}", descriptors());
    bench.end().await;
}
