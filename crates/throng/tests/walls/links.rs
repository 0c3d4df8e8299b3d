//! Bridges that drop what they should carry, with the engine as a library.

use crate::inside::{Setting, inside, run};
use crate::support::skip;
use common::{options, pipe_io, spec};
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;
use throng_engine::Engine;
use throng_model::replica::{NetworkSpec, ReplicaSpec};
use throng_runtime::{ExecSpec, Runtime};
use throng_walls::{Demand, Evidence, Host, Source, WallId, explain};

#[path = "../../../throng-engine/tests/common/mod.rs"]
mod common;

/// What a program in one replica says of a server in another if it gets no answer.
async fn lost(engine: &Engine, from: &ReplicaSpec, to: Ipv4Addr) -> Option<String> {
    let (io, reader) = pipe_io();
    let args = ["/probe", "dial", &format!("{to}:80")].map(str::to_owned).to_vec();
    let wait = Duration::from_secs(2);
    let spec = ExecSpec { args, timeout: Some(wait), ..ExecSpec::default() };
    let exit = engine.exec(&from.id, &spec, io).await.expect("executed");
    let text = std::io::read_to_string(reader).expect("output");
    (text != "ok\n").then(|| format!("connect to {to}:80: {text}({exit}): timed out after {wait:?}"))
}

fn network(project: &str) -> NetworkSpec {
    NetworkSpec {
        name: format!("{project}_default"),
        subnet: "10.213.0.0/16".parse().expect("a subnet"),
        gateway: Ipv4Addr::new(10, 213, 0, 1),
        internal: false,
    }
}

#[test]
fn a_filter_like_dockers_swallows_bridged_frames() {
    let name = "links::a_filter_like_dockers_swallows_bridged_frames";
    if let Err(error) = run("iptables", &["--version"]) {
        return skip(name, &error);
    }
    inside(name, &["-n", "-m"], |_| {
        if std::fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", "1").is_err() {
            return skip(name, "the kernel shows its filter no bridged frames (br_netfilter)");
        }
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(filtered());
    });
}

async fn filtered() {
    let (folder, project) = (tempfile::tempdir().expect("a folder"), format!("t{}-f", std::process::id()));
    let engine = Engine::open(options(folder.path())).expect("the engine opens");
    let network = network(&project);
    engine.create_network(&network).await.expect("a network");
    // Behind two parents: 256 addresses share one.
    let replicas = [5, 300].map(|ordinal| spec(&project, &network, "web", ordinal, &["serve"]));
    for spec in &replicas {
        engine.create(spec).await.expect("created");
        engine.start(&spec.id, 1).await.expect("started");
    }
    let (one, two) = (&replicas[0], replicas[1].networks[0].address);
    while lost(&engine, one, two).await.is_some() {}
    run("iptables", &["-P", "FORWARD", "DROP"]).expect("Docker's policy");
    let here = || Some(Host::read(&Source::live("/")));
    let (before, message) = (here(), lost(&engine, one, two).await.expect("frames vanish"));
    let demand = Some(Demand::of(2));
    let evidence = Evidence { messages: vec![message], before, after: here(), demand, ..Evidence::default() };
    let wall = explain(&evidence).expect("a wall");
    assert_eq!(wall.row.id, WallId::DockerFilter, "{wall:?}");
    let remedy = wall.finding.and_then(|finding| finding.remedy).expect("a remedy");
    run("sh", &["-c", &remedy.command]).expect("the remedy works");
    assert_eq!(lost(&engine, one, two).await, None, "with the remedy");
    engine.sweep(&project).await.expect("swept");
    engine.remove_network(&network.name).await.expect("removed");
}

/// Without macvlan each replica is a port of the bridge, which passes a broadcast on to all of them at once.
const PORTS: u32 = 160;
/// A counter of the whole host may be moved by others; a wall that is there is met again.
const TRIES: u32 = 4;

#[test]
fn broadcasts_overflow_a_cpus_queue() {
    let name = "links::broadcasts_overflow_a_cpus_queue";
    // Only the host's own namespace has the setting.
    let outside = std::env::var_os("THRONG_TEST_INSIDE").is_none();
    let setting = outside.then(|| Setting::put("net.core.netdev_max_backlog", u64::from(PORTS / 2)));
    if matches!(setting, Some(None)) {
        return skip(name, "net.core.netdev_max_backlog cannot be set");
    }
    inside(name, &["-n", "-m"], |_| {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        runtime.block_on(flooded());
    });
}

async fn flooded() {
    let (folder, project) = (tempfile::tempdir().expect("a folder"), format!("t{}-b", std::process::id()));
    let engine = Engine::open_with_pairs(options(folder.path())).expect("the engine opens");
    let network = network(&project);
    engine.create_network(&network).await.expect("a network");
    for ordinal in 1..=PORTS {
        let spec = spec(&project, &network, "web", ordinal, &["serve"]);
        engine.create(&spec).await.expect("created");
        engine.start(&spec.id, 1).await.expect("started");
    }
    let socket = UdpSocket::bind("10.213.0.1:0").expect("a socket at the gateway");
    socket.set_broadcast(true).expect("allowed");
    let here = || Some(Host::read(&Source::live("/")));
    let mut last = None;
    for _ in 0..TRIES {
        let before = here();
        for _ in 0..20 {
            socket.send_to(b"who is there", "10.213.255.255:9").expect("sent");
        }
        let evidence = Evidence { before, after: here(), ..Evidence::default() };
        last = explain(&evidence).map(|explanation| explanation.row.id);
        if last == Some(WallId::BroadcastBacklog) {
            break;
        }
    }
    engine.sweep(&project).await.expect("swept");
    engine.remove_network(&network.name).await.expect("removed");
    assert_eq!(last, Some(WallId::BroadcastBacklog));
}
