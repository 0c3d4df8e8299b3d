//! Links of virtual nodes, measured by Debian's ping and iperf3 in replicas of their own.

mod common;

use common::{Bench, is_root, options, pipe_io, skip};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};
use throng_engine::Engine;
use throng_model::node::{Capacity, Link, LinkTraffic, Node};
use throng_model::replica::{ReplicaId, ReplicaSpec, ResolvedMount, ResolvedSource};
use throng_runtime::{ExecSpec, Runtime, RuntimeEvent};

const PATIENCE: Duration = Duration::from_secs(20);
/// What was asked for may be missed by so much.
const ERROR: f64 = 0.05;
const TRIES: u32 = 6;

/// One measurement at a time: they would measure each other.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn possible(name: &str) -> bool {
    if !is_root() {
        skip(name, "links of nodes are tried as root");
        return false;
    }
    if !Path::new("/dev/net/tun").exists() {
        skip(name, "this kernel has no TAP interfaces");
        return false;
    }
    for (tool, package) in [("/usr/bin/ping", "iputils-ping"), ("/usr/bin/iperf3", "iperf3")] {
        if !Path::new(tool).exists() {
            skip(name, &format!("there is no {tool} (Debian's package {package})"));
            return false;
        }
    }
    true
}

fn link() -> Link {
    Link::default()
}

fn millis(latency: u64) -> Link {
    Link { latency: Duration::from_millis(latency), ..link() }
}

/// Nodes in one network, with an iperf3 server on each.
struct Field {
    bench: Bench,
    layer: tempfile::TempDir,
    _alone: tokio::sync::MutexGuard<'static, ()>,
    specs: BTreeMap<&'static str, ReplicaSpec>,
}

impl Field {
    async fn new(project: &str, number: u8, nodes: &[(&'static str, Link)]) -> Field {
        let _alone = ALONE.lock().await;
        let bench = Bench::new(project, number).await;
        // The host's programs, as they are where /bin is a part of /usr.
        let layer = tempfile::tempdir().expect("a folder");
        for name in ["bin", "lib", "lib64", "sbin"] {
            std::os::unix::fs::symlink(format!("usr/{name}"), layer.path().join(name)).expect("a link");
        }
        std::fs::create_dir(layer.path().join("tmp")).expect("a folder");
        let mut field = Field { bench, layer, _alone, specs: BTreeMap::new() };
        for (ordinal, (node, link)) in (1..).zip(nodes) {
            field.set(node, *link).await;
            field.start(node, ordinal).await;
        }
        field
    }

    async fn start(&mut self, node: &'static str, ordinal: u32) {
        let mut spec = self.bench.spec("tools", ordinal, &[]);
        spec.root.layers = vec![self.layer.path().to_path_buf()];
        spec.process.args = ["/usr/bin/iperf3", "-s"].map(str::to_owned).into();
        let source = ResolvedSource::Bind("/usr".into());
        spec.mounts = vec![ResolvedMount { source, target: "/usr".into(), read_only: true }];
        spec.node = Some(node.to_owned());
        self.bench.engine.create(&spec).await.expect("created");
        self.bench.engine.start(&spec.id, 1).await.expect("started");
        self.specs.insert(node, spec);
    }

    async fn set(&self, node: &str, link: Link) {
        let node_is = Node { link, ..Node::default() };
        self.bench.engine.set_node(&self.bench.project, node, &node_is).await.expect("a node");
    }

    fn address(&self, node: &str) -> Ipv4Addr {
        self.specs[node].networks[0].address
    }

    async fn run(&self, node: &str, command: &str) -> String {
        run(&self.bench.engine, &self.specs[node].id, command).await
    }

    /// Loss in percent and the median round trip in milliseconds. A busy host wakes some programs late.
    async fn ping(&self, from: &str, to: Ipv4Addr, count: u32) -> (f64, f64) {
        let text = self.run(from, &format!("ping -c {count} -i 0.02 -W 1 {to}")).await;
        let lost = text.split(", ").find_map(|part| Some(part.trim().split_once("% packet loss")?.0));
        let lost = lost.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{text}"));
        let time = |line: &str| line.split_once("time=")?.1.strip_suffix(" ms")?.parse::<f64>().ok();
        let mut times: Vec<f64> = text.lines().filter_map(time).collect();
        times.sort_by(f64::total_cmp);
        (lost, times.get(times.len() / 2).copied().unwrap_or(f64::NAN))
    }

    async fn until_reachable(&self, from: &str, to: Ipv4Addr) {
        let deadline = Instant::now() + PATIENCE;
        while self.ping(from, to, 1).await.0 > 0.0 {
            assert!(Instant::now() < deadline, "{to} cannot be reached from {from}");
        }
    }

    async fn iperf(&self, from: &str, to: &str, arguments: &str) -> serde_json::Value {
        let to = self.address(to);
        let text = self.run(from, &format!("iperf3 -c {to} -J {arguments}")).await;
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"))
    }
}

async fn run(engine: &Engine, id: &ReplicaId, command: &str) -> String {
    let (io, mut reader) = pipe_io();
    let args = command.split(' ').map(str::to_owned).collect();
    let spec = ExecSpec { args, timeout: Some(Duration::from_secs(60)), ..ExecSpec::default() };
    let text = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut reader, &mut text).expect("output");
        text
    });
    engine.exec(id, &spec, io).await.expect("executed");
    text.await.expect("read")
}

/// Measurements on a host that others use as well: one of a few must be what was asked for.
async fn near(what: &str, asked: f64, measure: impl AsyncFn() -> f64) {
    let mut found = Vec::new();
    for _ in 0..TRIES {
        let one = measure().await;
        eprintln!("{what}: asked for {asked}, found {one:.3}");
        if (one / asked - 1.0).abs() <= ERROR {
            return;
        }
        found.push(one);
    }
    panic!("{what}: asked for {asked}, found {found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn latency_is_the_sum_of_both_links() {
    if !possible("latency_is_the_sum_of_both_links") {
        return;
    }
    let field =
        Field::new("engine-latency", 71, &[("a", millis(10)), ("b", millis(15)), ("c", link())]).await;
    let (a, b, c) = (field.address("a"), field.address("b"), field.address("c"));
    field.until_reachable("a", b).await;
    near("round trip over both links, ms", 50.0, async || field.ping("a", b, 40).await.1).await;
    near("round trip over one link, ms", 20.0, async || field.ping("c", a, 40).await.1).await;
    near("round trip to the host, ms", 30.0, async || {
        field.ping("b", field.bench.network.gateway, 40).await.1
    })
    .await;
    let (lost, near_by) = field.ping("c", field.bench.network.gateway, 20).await;
    assert!(lost == 0.0 && near_by < 2.0, "a perfect link costs nothing: {near_by} ms");
    // Changed while everything runs, both ways.
    field.set("a", millis(40)).await;
    near("round trip after a change, ms", 110.0, async || field.ping("a", b, 20).await.1).await;
    field.set("a", link()).await;
    near("round trip after one link is perfect again, ms", 30.0, async || field.ping("a", b, 20).await.1)
        .await;
    field.set("c", millis(20)).await;
    near("round trip once the third is none any more, ms", 70.0, async || field.ping("c", b, 20).await.1)
        .await;
    assert_eq!(field.ping("a", c, 20).await.0, 0.0);
    field.bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bandwidth_holds_at_100_megabits() {
    if !possible("bandwidth_holds_at_100_megabits") {
        return;
    }
    let asked = 100e6;
    let slow = Link { bandwidth: Some(asked as u64), ..millis(5) };
    let field = Field::new("engine-bandwidth", 72, &[("a", slow), ("b", link())]).await;
    field.until_reachable("a", field.address("b")).await;
    for (direction, arguments) in [("to the node", "-t 4 -O 1"), ("from the node", "-t 4 -O 1 -R")] {
        let measure = async || {
            let report = field.iperf("b", "a", arguments).await;
            let found = report["end"]["sum_received"]["bits_per_second"].as_f64();
            found.unwrap_or_else(|| panic!("{report:#}")) / 1e6
        };
        near(&format!("TCP {direction}, Mbit/s"), asked / 1e6, measure).await;
    }
    field.bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_are_lost_as_often_as_asked_for() {
    if !possible("packets_are_lost_as_often_as_asked_for") {
        return;
    }
    let lossy = Link { loss: 0.1, ..link() };
    let field = Field::new("engine-loss", 73, &[("a", lossy), ("b", link())]).await;
    field.until_reachable("a", field.address("b")).await;
    // Some 25,000 packets of which each is lost by a chance of its own: two standard deviations are 4 %.
    let measure = async || {
        let report = field.iperf("b", "a", "-u -b 60M -l 1200 -t 4").await;
        report["end"]["sum"]["lost_percent"].as_f64().unwrap_or_else(|| panic!("{report:#}"))
    };
    near("lost, %", 10.0, measure).await;
    let traffic = field.bench.engine.link_traffic(&field.bench.project).await;
    let LinkTraffic { passed, lost, .. } = traffic["a"];
    assert!(lost > 1_000 && passed > 9 * lost / 2, "{traffic:?}");
    field.bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_cut_off_keeps_its_replicas_and_comes_back() {
    if !possible("a_node_that_is_cut_off_keeps_its_replicas_and_comes_back") {
        return;
    }
    let field = Field::new("engine-cut", 74, &[("a", link()), ("b", link())]).await;
    let (a, b) = (field.address("a"), field.address("b"));
    field.until_reachable("a", b).await;
    let pid = |node: &str| {
        let (engine, id) = (field.bench.engine.clone(), field.specs[node].id.clone());
        async move { engine.start(&id, 1).await.expect("it runs") }
    };
    let before = pid("a").await;
    field.set("a", Link { up: false, ..link() }).await;
    assert_eq!(field.ping("b", a, 5).await.0, 100.0);
    assert_eq!(field.ping("a", field.bench.network.gateway, 5).await.0, 100.0);
    assert_eq!(field.ping("b", field.bench.network.gateway, 5).await.0, 0.0, "others are not cut off");
    assert_eq!(pid("a").await, before, "it goes on");
    field.set("a", link()).await;
    field.until_reachable("b", a).await;
    assert_eq!((pid("a").await, field.address("a")), (before, a));
    field.bench.end().await;
}

/// The process that carries packets in the network namespace of this test, by its name.
fn helpers() -> Vec<i32> {
    let own = std::fs::read_link("/proc/self/ns/net").ok();
    let pids = std::fs::read_dir("/proc").expect("/proc").flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let is_one = |pid: &i32| {
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        let namespace = std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        name.trim() == "throng-links" && namespace == own
    };
    pids.filter(is_one).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_helper_that_is_killed_is_noticed_and_replaced() {
    if !possible("a_helper_that_is_killed_is_noticed_and_replaced") {
        return;
    }
    // Before it waits for its turn: those of other tests are not to be killed.
    let field = Field::new("engine-helper", 77, &[("a", millis(10)), ("b", millis(5)), ("c", link())]).await;
    let (a, b) = (field.address("a"), field.address("b"));
    field.until_reachable("c", a).await;
    let socket = field.bench.folder.path().join("run/links");
    assert_eq!(std::fs::read_dir(&socket).expect("a folder").count(), 1, "one helper for all nodes");
    let mut told = field.bench.engine.watch();
    let before = helpers();
    let [pid] = before[..] else { panic!("one helper of this test and of no other: {before:?}") };
    let pid = rustix::process::Pid::from_raw(pid).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
    let warned = async {
        loop {
            if let Some(RuntimeEvent::Warned { project, message, .. }) = told.recv().await {
                return (project, message);
            }
        }
    };
    let (project, message) = tokio::time::timeout(PATIENCE, warned).await.expect("noticed by itself");
    assert!(project == field.bench.project && message.contains("another one"), "{project}: {message}");
    field.until_reachable("c", a).await;
    field.until_reachable("c", b).await;
    near("round trip over a link made anew, ms", 20.0, async || field.ping("c", a, 20).await.1).await;
    near("round trip over the other one, ms", 10.0, async || field.ping("c", b, 20).await.1).await;
    assert_ne!(helpers(), before);
    field.bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_of_a_node_share_its_memory() {
    let name = "replicas_of_a_node_share_its_memory";
    if !possible(name) {
        return;
    }
    let mut field = Field::new("engine-memory", 78, &[("idle", link())]).await;
    if !field.bench.engine.limits_enforced() {
        skip(name, "this host has no control groups that can be written");
        return field.bench.end().await;
    }
    let (engine, project) = (field.bench.engine.clone(), field.bench.project.clone());
    let capacity = Capacity { memory: Some(64 << 20), ..Capacity::default() };
    engine.set_node(&project, "small", &Node { capacity, ..Node::default() }).await.expect("a node");
    // Each alone fits: one without a limit of its own, one with.
    let mut ids = Vec::new();
    for (ordinal, own) in [(2, None), (3, Some(60 << 20))] {
        let mut spec = field.specs["idle"].clone();
        spec.id.ordinal = ordinal;
        spec.networks[0].address = Ipv4Addr::new(10, 199, 78, 1 + ordinal as u8);
        // Holds what it reads until a line ends.
        let hold = "head -c 40000000 /dev/zero | tail -c 40000000 | sleep 600";
        spec.process.args = ["/usr/bin/sh", "-c", hold].map(str::to_owned).into();
        spec.resources.memory = own;
        spec.node = Some("small".into());
        engine.create(&spec).await.expect("created");
        engine.start(&spec.id, 1).await.expect("started");
        ids.push(spec.id);
        if own.is_none() {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }
    let deadline = Instant::now() + PATIENCE;
    let group = |controller: &str| format!("/sys/fs/cgroup/{controller}/throng/{project}/@small");
    let failures = || {
        let v1 = std::fs::read_to_string(group("memory") + "/memory.oom_control");
        let v2 = || std::fs::read_to_string(format!("/sys/fs/cgroup/throng/{project}/@small/memory.events"));
        let text = v1.or_else(|_| v2()).unwrap_or_default();
        let kills = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.parse::<u64>().ok());
        kills.unwrap_or(0)
            + ids
                .iter()
                .map(|id| {
                    let own = format!("{}/{}/memory.oom_control", group("memory"), id.name());
                    let text = std::fs::read_to_string(own).unwrap_or_default();
                    text.lines()
                        .find_map(|line| line.strip_prefix("oom_kill ")?.parse::<u64>().ok())
                        .unwrap_or(0)
                })
                .sum::<u64>()
    };
    while failures() == 0 {
        assert!(Instant::now() < deadline, "80 MB are held on a node with 64 MiB");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    field.specs.clear();
    field.bench.end().await;
}

/// A supervisor that is killed takes no link with it, and the next one can change them.
#[tokio::test(flavor = "multi_thread")]
async fn links_outlive_their_engine() {
    if !possible("links_outlive_their_engine") {
        return;
    }
    let mut field = Field::new("engine-links", 75, &[("a", millis(10)), ("b", link())]).await;
    let (a, b) = (field.address("a"), field.address("b"));
    field.until_reachable("a", b).await;
    let second = Engine::open(options(field.bench.folder.path())).expect("another engine");
    let first = std::mem::replace(&mut field.bench.engine, second);
    drop(first);
    near("round trip under the next engine, ms", 20.0, async || field.ping("b", a, 20).await.1).await;
    field.set("a", millis(20)).await;
    near("round trip that it has changed, ms", 40.0, async || field.ping("b", a, 20).await.1).await;
    field.set("a", link()).await;
    field.until_reachable("b", a).await;
    let (_, quick) = field.ping("b", a, 20).await;
    assert!(quick < 2.0, "{quick} ms");
    field.bench.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replicas_of_a_node_share_what_it_has() {
    let name = "replicas_of_a_node_share_what_it_has";
    if !possible(name) {
        return;
    }
    let mut field = Field::new("engine-capacity", 76, &[("idle", link())]).await;
    if !field.bench.engine.limits_enforced() {
        skip(name, "this host has no control groups that can be written");
        return field.bench.end().await;
    }
    let (engine, project) = (field.bench.engine.clone(), field.bench.project.clone());
    let capacity = Capacity { cpus: Some(0.2), memory: Some(256 << 20), replicas: None };
    let small = Node { capacity, ..Node::default() };
    engine.set_node(&project, "small", &small).await.expect("a node");
    let mut ids = Vec::new();
    for ordinal in [2, 3] {
        let mut spec = field.specs["idle"].clone();
        spec.id.ordinal = ordinal;
        spec.networks[0].address = Ipv4Addr::new(10, 199, 76, 1 + ordinal as u8);
        spec.process.args = ["/usr/bin/md5sum", "/dev/zero"].map(str::to_owned).into();
        // More than the node has, which the kernel would refuse below the node.
        spec.resources.cpus = Some(1.0);
        spec.node = Some("small".into());
        engine.create(&spec).await.expect("created");
        engine.start(&spec.id, 1).await.expect("started");
        ids.push(spec.id);
    }
    let used = || async {
        let read = engine.statistics(&ids).await;
        read.into_iter().flatten().map(|statistics| statistics.cpu).sum::<Duration>()
    };
    let (begin, before) = (Instant::now(), used().await);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let cores = (used().await - before).as_secs_f64() / begin.elapsed().as_secs_f64();
    eprintln!("two busy replicas of a node with 0.2 cores use {cores:.3}");
    assert!(cores > 0.02 && cores < 0.26, "{cores}");
    field.specs.clear();
    field.bench.end().await;
}
