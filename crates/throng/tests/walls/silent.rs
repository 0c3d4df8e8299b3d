//! Walls that print nothing where they stand: counters and loads tell.

use crate::inside::{Group, Setting, inside, inside_after, run};
use crate::support::{Bench, skip, until};
use crate::{assert_ceiling, assert_names};
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use throng_walls::WallId;

/// What others do on this host may be in the way, for once.
const TRIES: u32 = 4;

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
    let lower =
        || Setting::put("net.netfilter.nf_conntrack_max", MOST).ok_or("nf_conntrack_max cannot be set");
    inside_after(lower, name, &["-n", "-m"], |bench| {
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
        // Nor need anybody search for it.
        let events = until("it is told", || {
            let events = bench.ok(&["events", "--no-follow"]).out;
            events.contains("the wall is").then_some(events)
        });
        assert_names(&events, WallId::ConnectionTracking);
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

/// What is only held, or what the kernel has removed and not yet forgotten, is no slowness of its.
#[test]
fn namespaces_that_others_hold_are_no_wall() {
    const REPLICAS: u32 = 150;
    let name = "silent::namespaces_that_others_hold_are_no_wall";
    inside(name, &["-n", "-m"], |bench| {
        // Others of this host may have the kernel at work at the very moment.
        let quiet = (0..TRIES).any(|_| {
            crate::idle(&bench, "");
            let scale =
                |count: u32| bench.ok(&["scale", &format!("web={count}"), "--wait-timeout", "60"]).err;
            scale(REPLICAS);
            let namespace = |ordinal: u32| {
                let pid = *bench.pids(&format!("web-{ordinal}")).first().expect("a process");
                fs::File::open(format!("/proc/{pid}/ns/net")).expect("its namespace")
            };
            let held: Vec<fs::File> = (1..=REPLICAS).map(namespace).collect();
            let told = scale(0);
            // Looked at five times a second.
            std::thread::sleep(Duration::from_secs(3));
            drop(held);
            let events = bench.ok(&["events", "--no-follow"]).out;
            bench.ok(&["down"]);
            !(told + &events).contains("the wall is")
        });
        assert!(quiet, "held namespaces are told as a wall each time");
        bench.assert_clean();
    });
}

/// Ethernet pairs in a namespace of somebody else's, for the kernel to take down before those of replicas: it removes
/// namespaces one batch after the other.
const PAIRS: u32 = 10_000;

/// A namespace of its own with so many pairs, which goes with the process that holds it.
fn laden(folder: &std::path::Path, pairs: u32) -> Child {
    let file = folder.join("interfaces");
    // Named at both ends: to find a free name the kernel looks through all that there are.
    let pair = |number: u32| format!("link add v{number} type veth peer name w{number}\n");
    let batch: String = (0..pairs).map(pair).collect();
    fs::write(&file, batch).expect("a file");
    let script = format!("ip -batch '{}' && echo ready && exec sleep 600", file.display());
    let mut command = Command::new("unshare");
    let mut child =
        command.args(["-n", "sh", "-c", &script]).stdout(Stdio::piped()).spawn().expect("unshare");
    let mut said = String::new();
    BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut said).expect("a line");
    assert_eq!(said, "ready\n", "its interfaces are there");
    child
}

/// What takes one kernel a second another one does at once, so there are twice as many each time.
#[test]
fn namespaces_are_removed_slowly() {
    const REPLICAS: u32 = 150;
    let name = "silent::namespaces_are_removed_slowly";
    // Nor does the product see there whether it is at work, and it says nothing then.
    if fs::read_to_string("/proc/2/comm").unwrap_or_default().trim_end() != "kthreadd" {
        return skip(name, "the kernel's threads are out of sight in this PID namespace");
    }
    inside(name, &["-n", "-m"], |bench| {
        crate::idle(&bench, "");
        let told = (0..TRIES).map(|doubled| PAIRS << doubled).find_map(|pairs| {
            let mut said = bench.ok(&["scale", &format!("web={REPLICAS}")]).err;
            let mut other = laden(&bench.folder, pairs);
            let namespace = |ordinal: u32| {
                let pid = *bench.pids(&format!("web-{ordinal}")).first().expect("a process");
                fs::File::open(format!("/proc/{pid}/ns/net")).expect("its namespace")
            };
            // While the kernel removes the interfaces of one namespace, nobody gets as far as ending replicas.
            let held: Vec<fs::File> = (1..=REPLICAS).map(namespace).collect();
            said += &bench.ok(&["scale", "web=0"]).err;
            other.kill().and_then(|()| other.wait()).expect("its end");
            std::thread::sleep(Duration::from_millis(50));
            drop(held);
            // Looked at five times a second.
            std::thread::sleep(Duration::from_secs(3));
            said += &bench.ok(&["events", "--no-follow"]).out;
            said.contains("the wall is").then_some(said)
        });
        let told = told.expect("it is told, however quick the kernel is");
        assert_names(&told, WallId::Namespaces);
        assert!(
            told.contains("network namespaces of replicas that are gone are still being removed"),
            "{told}"
        );
        bench.ok(&["down"]);
        bench.assert_clean();
    });
}
