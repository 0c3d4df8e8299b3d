//! `throng doctor`: what this host holds, and that it changes nothing unless it is asked to.

mod support;

use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use support::{Bench, Done, skip};

const INSTANCES: &str = "/proc/sys/fs/inotify/max_user_instances";

fn number(path: &str) -> u64 {
    std::fs::read_to_string(path).expect(path).trim().parse().expect("a number")
}

/// So many instances for each of ten replicas that the limit is in the way by far.
fn too_many_watchers() -> String {
    number(INSTANCES).min(1 << 20).to_string()
}

fn json(done: &Done) -> Value {
    serde_json::from_str(&done.out).expect("JSON")
}

fn finding<'a>(report: &'a Value, id: &str) -> &'a Value {
    let findings = report["report"]["findings"].as_array().expect("findings");
    findings.iter().find(|finding| finding["id"] == id).expect("every wall is judged")
}

#[test]
fn it_says_what_this_host_holds_on_a_page() {
    let bench = Bench::anywhere();
    let done = bench.run(&["doctor", "--replicas", "3"]);
    done.prints("3 replicas of 1 task each in one network, on Linux ")
        .prints("WALL ")
        .prints("process ids")
        .prints("This host holds about ");
    for line in done.out.lines().filter(|line| !line.starts_with("  ")) {
        assert!(line.chars().count() <= 80, "{line}");
    }
    let report = json(&bench.run(&["doctor", "--replicas", "3", "--format", "json"]));
    assert_eq!(done.code, if report["report"]["fits"] == true { 0 } else { 1 }, "{}", done.out);
    assert_eq!(report["report"]["findings"].as_array().map(Vec::len), Some(23));
    assert_eq!(finding(&report, "process-ids")["state"], "ok");
    assert!(report["host"]["settings"]["kernel.pid_max"].is_u64());
    assert!(!bench.home.exists(), "to look leaves nothing behind");
}

#[test]
fn nodes_of_a_cluster_are_told_what_they_need() {
    let bench = Bench::anywhere();
    let ask = ["doctor", "--for", "kubernetes", "--replicas", "1000"];
    let done = bench.ok(&[&ask[..], &["--nodes", "2"]].concat());
    done.prints("500 on each, and 635 while all are updated").prints("max-pods=640").prints("maxPods: 640");
    done.prints("node-cidr-mask-size=21").prints("/etc/sysctl.d/90-throng-kubernetes.conf");
    let found = json(&bench.ok(&[&ask[..], &["--nodes", "2", "--format", "json"]].concat()));
    assert_eq!(found["kubeletConfiguration"]["maxPods"], 640);
    assert_eq!(found["k3s"]["server"]["kube-controller-manager-arg"][0], "node-cidr-mask-size=21");
    assert_eq!(found["sysctl"]["net.ipv4.neigh.default.gc_thresh3"], "2048");
    // More than a bridge has ports.
    bench.fails(1, &ask).prints("take 2 nodes or more");
    let refused = bench.fails(2, &[&ask[..], &["--fix"]].concat());
    assert!(refused.err.contains("hint: put the files where it says"), "{}", refused.err);
    bench.fails(2, &["doctor", "--replicas", "10", "--nodes", "2"]);
    bench.compose("services: {web: {image: x, deploy: {replicas: 300}}}\n");
    bench.ok(&["doctor", "--for", "kubernetes", "--scale", "web=400"]).prints("400 pods on one node");
    assert!(!bench.home.exists(), "to look leaves nothing behind");
}

#[test]
fn a_wall_in_the_way_is_no_success_and_nothing_is_changed() {
    let bench = Bench::anywhere();
    let (before, watchers) = (number(INSTANCES), too_many_watchers());
    let done = bench.fails(1, &["doctor", "--replicas", "10", "--watchers", &watchers]);
    done.prints("in the way")
        .prints("inotify instances: fs.inotify.max_user_instances is ")
        .prints("sysctl -w fs.inotify.max_user_instances=")
        .prints("permanent: in /etc/sysctl.d/90-throng.conf\n    fs.inotify.max_user_instances = ")
        .prints(&format!("undo:\n    sysctl -w fs.inotify.max_user_instances={before}"))
        .prints("the first wall is inotify instances, the next");
    assert_eq!(number(INSTANCES), before);
    assert!(!bench.home.exists());
    let report =
        json(&bench.fails(1, &["doctor", "--replicas", "10", "--watchers", &watchers, "--format", "json"]));
    assert_eq!(report["report"]["fits"], false);
    let inotify = finding(&report, "inotify");
    assert_eq!((&inotify["state"], &inotify["remedy"]["safe"]), (&"in-the-way".into(), &true.into()));
    assert!(inotify["seen"][0].as_str().is_some_and(|text| text.contains("fsnotify")));
    assert_eq!(report["changed"], serde_json::json!([]));
}

#[test]
fn a_compose_file_says_what_is_to_run() {
    let bench = Bench::anywhere();
    bench.compose(
        "
services:
  web:
    image: x
    ports: ['127.0.0.1::80', '127.0.0.1::81']
    networks: [front, back]
    deploy: {replicas: 30, resources: {limits: {memory: 100m}}}
  db: {image: y, networks: [back]}
networks: {front: {}, back: {}}
",
    );
    let demand = |arguments: &[&str]| {
        let done = bench.run(&[&["doctor", "--format", "json"], arguments].concat());
        json(&done)["report"]["demand"].clone()
    };
    let plain = demand(&[]);
    assert_eq!(plain["replicas"], 31);
    assert_eq!((&plain["networks"], &plain["largest_network"]), (&2.into(), &31.into()));
    assert_eq!((&plain["published"], &plain["limited"]), (&2.into(), &30.into()));
    assert_eq!(plain["memory"], (30u64 * (100 << 20)).div_ceil(31));
    let scaled = demand(&["--scale", "web=99"]);
    assert_eq!((&scaled["replicas"], &scaled["limited"]), (&100.into(), &99.into()));
    let more = demand(&["--replicas", "310", "--memory-per-replica", "1m", "--published", "5"]);
    assert_eq!((&more["replicas"], &more["limited"]), (&310.into(), &300.into()));
    assert_eq!((&more["memory"], &more["published"]), (&(1 << 20).into(), &5.into()));
    bench.fails(3, &["doctor", "--scale", "wbe=3"]).says("no service wbe");
}

#[test]
fn what_makes_no_sense_is_refused() {
    let bench = Bench::anywhere();
    bench
        .fails(2, &["doctor", "--scale", "web=3"])
        .says("without a Compose file")
        .says("hint: name one with -f");
    bench.fails(2, &["doctor", "--memory-per-replica", "much"]).says("\"much\" is not a size");
    bench.fails(2, &["doctor", "--replicas", "0"]).says("--replicas");
    bench.fails(2, &["doctor", "--fix", "--undo"]).says("--undo");
    bench.fails(2, &["-f", "nothing.yaml", "doctor"]).says("nothing.yaml");
}

/// The command inside a user namespace, where limits on namespaces are the namespace's own.
fn in_user_namespace(bench: &Bench, script: &str) -> Option<Done> {
    let mut command = Command::new("unshare");
    let throng = format!("throng() {{ '{}' \"$@\"; }}", env!("CARGO_BIN_EXE_throng"));
    command.args(["-r", "sh", "-c", &format!("{throng}\n{script}")]).stdin(Stdio::null());
    command.env("THRONG_HOME", &bench.home).current_dir(&bench.folder);
    let output = command.output().ok()?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Some(Done { code: output.status.code()?, out: text(output.stdout), err: text(output.stderr) })
}

#[test]
fn what_fix_changes_undo_puts_back() {
    let name = "what_fix_changes_undo_puts_back";
    let bench = Bench::anywhere();
    let limit = "/proc/sys/user/max_net_namespaces";
    let script = format!(
        "echo 100 > {limit} || exit 77
         throng doctor --replicas 500 --processes-per-replica 1 > before; echo before $? `cat {limit}`
         throng doctor --replicas 500 --fix; echo fixed $? `cat {limit}`
         throng doctor --replicas 2000 --fix > again; echo again $? `cat {limit}`
         throng doctor --undo; echo undone $? `cat {limit}`
         throng doctor --undo; echo nothing $?"
    );
    let Some(done) = in_user_namespace(&bench, &script).filter(|done| done.code != 77 && done.code != 1)
    else {
        return skip(name, "no user namespaces with limits of their own (unshare is in Debian's util-linux)");
    };
    // Docker's filter, if it is in the way, stays there: only what is safe is changed.
    done.prints(" 100\n").prints("before 1 100");
    done.prints("  user.max_net_namespaces: 100 -> 1024")
        .prints("To make it permanent, write this into /etc/sysctl.d/90-throng.conf:\n  user.max_net_namespaces = 1024")
        .prints("To put everything back: throng doctor --undo")
        .prints(" 1024\n")
        .prints(" 4096\n")
        .prints("user.max_net_namespaces: 4096 -> 100")
        .prints("undone 0 100")
        .prints("Nothing to undo")
        .prints("nothing 0");
    assert!(!bench.home.join("doctor.json").exists());
}

#[test]
fn an_ordinary_user_is_told_what_it_may_not_change() {
    let name = "an_ordinary_user_is_told_what_it_may_not_change";
    let Some(bench) = Bench::new(name) else { return };
    let throng = bench.folder.join("throng");
    std::fs::copy(env!("CARGO_BIN_EXE_throng"), &throng).expect("a copy");
    for folder in [bench.folder.as_path(), bench.folder.parent().expect("a folder")] {
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).expect("open to all");
    }
    let before = number(INSTANCES);
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "64993", "--regid", "64993", "--clear-groups"]).arg(&throng);
    command.args(["doctor", "--replicas", "10", "--watchers", &too_many_watchers(), "--fix"]);
    command.env("THRONG_HOME", &bench.home).current_dir(&bench.folder).stdin(Stdio::null());
    let Ok(output) = command.output() else {
        return skip(name, "setpriv (Debian package util-linux) is not there");
    };
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(4), "{out}{err}");
    assert!(out.contains("as an ordinary user") && out.contains("but root must do it"), "{out}");
    assert!(err.contains("only root may change fs.inotify.max_user_instances"), "{err}");
    assert!(err.contains("hint: nothing was changed"), "{err}");
    assert_eq!(number(INSTANCES), before);
}
