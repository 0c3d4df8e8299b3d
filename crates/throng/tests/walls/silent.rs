//! Walls that print nothing where they stand: counters and loads tell.

use crate::assert_ceiling;
use crate::inside::{Group, Setting, inside, run};
use crate::support::{Bench, skip};
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;
use throng_walls::{Evidence, Host, Source, WallId, explain};

/// Others may end, or the kernel be quick, at the very moment; a wall that is there is met again.
const TRIES: u32 = 4;

fn here() -> Host {
    Host::read(&Source::live("/"))
}

/// An app of one server whose port 80 is published at 8080.
fn server(bench: &Bench) {
    bench.build_probe();
    bench.compose("services:\n  web: {image: probe, command: [serve, '80'], ports: ['127.0.0.1:8080:80']}\n");
    bench.ok(&["up", "-d", "--wait"]);
}

const UNTIL: [&str; 10] =
    ["ceiling", "web", "--most", "1", "--hold", "10ms", "--format", "json", "--until", "errors<1%"];

#[test]
fn source_ports_are_used_up() {
    inside("silent::source_ports_are_used_up", &["-n", "-m"], |bench| {
        server(&bench);
        let load = [&UNTIL[..], &["-c", "30", "-n", "5"]].concat();
        let range = "/proc/sys/net/ipv4/ip_local_port_range";
        let before = fs::read_to_string(range).expect("a range");
        fs::write(range, "50000 50009").expect("a range of this namespace");
        assert_ceiling(&bench.ok(&load), WallId::SourcePorts);
        fs::write(range, before).expect("the range as it was");
        let done = bench.ok(&load).json().remove(0);
        assert_eq!(done["broke"], serde_json::Value::Null, "{done:#}");
        bench.ok(&["down"]);
        bench.assert_clean();
    });
}

#[test]
fn connection_tracking_is_full() {
    const MOST: u64 = 600;
    let name = "silent::connection_tracking_is_full";
    let count = fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count").unwrap_or_default();
    // The limit is the whole host's, the table each namespace's own.
    if count.trim().parse().ok().is_none_or(|count: u64| count > MOST / 2) {
        return skip(name, "connections are not tracked here, or too many are");
    }
    let outside = std::env::var_os("THRONG_TEST_INSIDE").is_none();
    let setting = outside.then(|| Setting::put("net.netfilter.nf_conntrack_max", MOST));
    if matches!(setting, Some(None)) {
        return skip(name, "nf_conntrack_max cannot be set");
    }
    inside(name, &["-n", "-m"], |bench| {
        let rules = "add table ip t; add chain ip t c { type filter hook output priority 0; }; \
                     add rule ip t c ct state established accept";
        if let Err(error) = run("nft", &[rules]) {
            return skip(name, &error);
        }
        server(&bench);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
        let address = listener.local_addr().expect("an address");
        let mut open = Vec::new();
        // What is established is not forgotten to make room.
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
            open.push((stream, listener.accept().expect("accepted")));
            assert!(open.len() <= MOST as usize, "more connections than the table holds");
        }
        let load = [&UNTIL[..], &["-c", "4", "-n", "2", "--timeout", "1s"]].concat();
        assert_ceiling(&bench.ok(&load), WallId::ConnectionTracking);
        drop(open);
        bench.ok(&["down"]);
        bench.assert_clean();
    });
}

#[test]
fn a_group_is_out_of_memory() {
    let name = "silent::a_group_is_out_of_memory";
    inside(name, &["-m"], |bench| {
        bench.build_probe();
        let Some(group) = Group::around(std::process::id(), "memory") else {
            return skip(name, "no controller memory of version 1");
        };
        bench.compose("services:\n  web: {image: probe, command: [eat, '400'], deploy: {replicas: 0}}\n");
        bench.ok(&["up", "-d", "--wait"]);
        group.write("memory.limit_in_bytes", group.read("memory.usage_in_bytes") + (128 << 20));
        let found = bench.ok(&UNTIL[..8]);
        assert_ceiling(&found, WallId::Memory);
        let reason = found.out.contains(&group.path.display().to_string());
        assert!(reason, "the group is named: {}", found.out);
        assert!(bench.listens(), "the supervisor lives on");
        bench.ok(&["down"]);
        bench.assert_clean();
    });
}

#[test]
fn namespaces_outlive_their_replicas() {
    const REPLICAS: u64 = 200;
    let name = "silent::namespaces_outlive_their_replicas";
    if rustix::process::geteuid().is_root() && here().counters.net_namespaces.is_none() {
        return skip(name, "the kernel does not count network namespaces in /proc/slabinfo");
    }
    inside(name, &["-n", "-m"], |bench| {
        crate::idle(&bench, "");
        let scale = |count: u64| bench.ok(&["scale", &format!("web={count}"), "--wait-timeout", "60"]);
        let mut last = None;
        let named = (0..TRIES).any(|_| {
            scale(REPLICAS);
            let before = Some(here());
            scale(0);
            let after = Some(here());
            let evidence = Evidence { before, after, replicas: Some((REPLICAS, 0)), ..Evidence::default() };
            last = explain(&evidence).map(|explanation| explanation.row.id);
            last == Some(WallId::Namespaces)
        });
        assert!(named, "{last:?}");
        bench.ok(&["down"]);
        bench.assert_clean();
    });
}
