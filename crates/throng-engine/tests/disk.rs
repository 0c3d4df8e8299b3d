//! A writable layer with a size limit: whoever fills it meets a full disk, nobody else does, and nothing of it is left.

mod common;

use common::{Bench, exec, first_answer, is_root, options, skip};
use std::path::Path;
use std::time::{Duration, Instant};
use throng_engine::Engine;
use throng_model::replica::{Exit, ReplicaSpec};
use throng_runtime::{ErrorKind, Runtime};

const PATIENCE: Duration = Duration::from_secs(20);
const SIZE: u64 = 16 << 20;

fn possible(name: &str) -> bool {
    if !is_root() {
        skip(name, "mounting a file system needs root");
        return false;
    }
    if std::fs::File::open("/dev/loop-control").is_err() {
        skip(name, "this kernel has no loop devices");
        return false;
    }
    if !["/usr/sbin/mkfs.ext4", "/sbin/mkfs.ext4"].iter().any(|path| Path::new(path).exists()) {
        skip(name, "there is no mkfs.ext4 (e2fsprogs)");
        return false;
    }
    true
}

fn limited(bench: &Bench, ordinal: u32, size: Option<u64>) -> ReplicaSpec {
    let mut spec = bench.spec("web", ordinal, &["serve"]);
    spec.resources.disk = size;
    spec
}

async fn start(bench: &Bench, spec: &ReplicaSpec) -> u32 {
    bench.engine.create(spec).await.expect("created");
    let pid = bench.engine.start(&spec.id, spec.generation).await.expect("started");
    first_answer(&bench.engine, spec.networks[0].address, PATIENCE).await.expect("an answer");
    pid
}

/// Files below the folder that are attached to loop devices.
fn attached(folder: &Path) -> Vec<String> {
    let devices = std::fs::read_dir("/sys/block").expect("devices").flatten();
    let files = devices.filter_map(|d| std::fs::read_to_string(d.path().join("loop/backing_file")).ok());
    files.filter(|file| Path::new(file.trim()).starts_with(folder)).collect()
}

async fn until_detached(folder: &Path) {
    let deadline = Instant::now() + PATIENCE;
    while !attached(folder).is_empty() {
        assert!(Instant::now() < deadline, "{:?} are still attached", attached(folder));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Bytes that a file takes on the disk.
fn taken(path: &Path) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(path).expect("a file")) * 512
}

async fn fill(bench: &Bench, spec: &ReplicaSpec) -> (u64, String) {
    let (exit, text) = exec(&bench.engine, &spec.id, &["/probe", "fill", "/flood"]).await;
    assert_eq!(exit, Exit::Code { code: 0 }, "{text}");
    let (written, errno) = text.trim().split_once(' ').expect("a report");
    (written.parse().expect("a number"), errno.into())
}

#[tokio::test(flavor = "multi_thread")]
async fn who_fills_its_layer_meets_a_full_disk_alone() {
    if !possible("who_fills_its_layer_meets_a_full_disk_alone") {
        return;
    }
    let bench = Bench::new("engine-disk", 34).await;
    let specs = [limited(&bench, 1, Some(SIZE)), limited(&bench, 2, Some(SIZE)), limited(&bench, 3, None)];
    for spec in &specs {
        start(&bench, spec).await;
    }
    let (written, errno) = fill(&bench, &specs[0]).await;
    assert_eq!(errno, libc::ENOSPC.to_string());
    assert!(written <= SIZE && written > SIZE * 8 / 10, "{written} of {SIZE}");
    let image = bench.folder.path().join("state").join(&bench.project).join("web-1/layer.img");
    assert!(taken(&image) <= SIZE, "the host gives no more either: {}", taken(&image));
    for neighbour in &specs[1..] {
        let (_, text) = exec(&bench.engine, &neighbour.id, &["/probe", "write", "/file", "x"]).await;
        assert_eq!(text, "written\n");
    }
    // It still answers, and its log tells people what has happened.
    first_answer(&bench.engine, specs[0].networks[0].address, PATIENCE).await.expect("an answer");
    let deadline = Instant::now() + PATIENCE;
    let log = image.with_file_name("log");
    let told = || std::fs::read_to_string(&log).expect("a log");
    while !told().contains(&format!("storage_opt.size is {SIZE} bytes")) {
        assert!(Instant::now() < deadline, "{}", told());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // A layer that is full refuses no second start, and what is in it stays.
    bench.engine.stop(&specs[0].id, 1, 9, PATIENCE).await.expect("stopped");
    bench.engine.start(&specs[0].id, 1).await.expect("started again");
    let (_, text) = exec(&bench.engine, &specs[0].id, &["/probe", "list", "/"]).await;
    assert!(text.split_whitespace().any(|name| name == "flood"), "{text}");
    let folder = bench.folder.path().to_owned();
    for spec in &specs {
        bench.engine.stop(&spec.id, 1, 9, PATIENCE).await.expect("stopped");
        bench.engine.remove(&spec.id, 1).await.expect("removed");
    }
    assert!(!image.exists());
    until_detached(&folder).await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layer_needs_no_supervisor_to_be_given_up() {
    if !possible("a_layer_needs_no_supervisor_to_be_given_up") {
        return;
    }
    let mut bench = Bench::new("engine-disk-alone", 35).await;
    let spec = limited(&bench, 1, Some(SIZE));
    let pid = start(&bench, &spec).await;
    let folder = bench.folder.path().to_owned();
    assert_eq!(attached(&folder).len(), 1);
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").expect("mounts");
    assert!(!mounts.contains("layer"), "the host does not see it: {mounts}");
    // Another engine finds the replica, may look into it, and sees its end.
    bench.engine = Engine::open(options(&folder)).expect("another engine");
    let (_, text) = exec(&bench.engine, &spec.id, &["/probe", "write", "/file", "x"]).await;
    assert_eq!(text, "written\n");
    let process = rustix::process::Pid::from_raw(pid as i32).expect("a pid");
    rustix::process::kill_process(process, rustix::process::Signal::KILL).expect("killed");
    until_detached(&folder).await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sizes_that_cannot_be_are_refused() {
    if !possible("sizes_that_cannot_be_are_refused") {
        return;
    }
    let bench = Bench::new("engine-disk-small", 36).await;
    let error = bench.engine.create(&limited(&bench, 1, Some(1000))).await.expect_err("too small");
    assert!(error.kind == ErrorKind::Invalid && error.message.contains("storage_opt.size"), "{error}");
    assert!(error.hint.is_some());
    // The smallest that is taken works.
    start(&bench, &limited(&bench, 2, Some(1 << 20))).await;
    bench.end().await;
}
