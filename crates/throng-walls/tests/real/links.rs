//! Bridges, neighbours and broadcasts.

use crate::inside::{assert_counted, assert_named, here, inside, ip, is_outside, run};
use crate::support::skip;
use std::fmt::Write;
use std::net::UdpSocket;
use throng_walls::{Demand, Evidence, Links, State, WallId, predict};

/// A bridge with so many ports, all up; the other ends stay in the same namespace.
fn bridge(ports: u32) -> Result<String, String> {
    // Each of the interfaces would send reports of its own.
    for which in ["all", "default"] {
        std::fs::write(format!("/proc/sys/net/ipv6/conf/{which}/disable_ipv6"), "1").expect("no IPv6");
    }
    let mut batch =
        "link add thr0 type bridge\naddr add 10.9.0.1/16 brd + dev thr0\nlink set thr0 up\n".to_owned();
    for port in 1..=ports {
        let _ = write!(
            batch,
            "link add thrv{port} type veth peer name thrp{port}\nlink set thrv{port} master thr0\n\
             link set thrv{port} up\nlink set thrp{port} up\n"
        );
    }
    ip(&batch)
}

#[test]
fn a_bridge_is_full() {
    inside("links::a_bridge_is_full", &["-n", "-m"], || {
        run("mount", &["-t", "sysfs", "none", "/sys"]).expect("the view of this namespace");
        let before = here();
        let error = bridge(1_024).expect_err("one port too many");
        assert!(error.contains("Exchange full"), "{error}");
        let after = here();
        assert_eq!(after.bridge_ports, Some(1_023));
        let demand = Demand { links: Links::Pairs, ..Demand::of(1_024) };
        let finding = predict(&after, &demand).finding(WallId::BridgePorts).cloned().expect("judged");
        assert_eq!((finding.state, finding.holds), (State::InTheWay, Some(1_023)), "what was predicted");
        let messages = vec![error];
        assert_named(
            &Evidence { messages, before: Some(before), after: Some(after), ..Evidence::default() },
            WallId::BridgePorts,
        );
    });
}

#[test]
fn broadcasts_overflow_a_cpus_queue() {
    let name = "links::broadcasts_overflow_a_cpus_queue";
    const PORTS: u32 = 1_020;
    if is_outside() && here().setting("net.core.netdev_max_backlog").is_none_or(|most| most > 1_000) {
        return skip(name, "the queue is longer than a bridge has ports");
    }
    inside(name, &["-n"], || {
        bridge(PORTS).expect("a bridge");
        let socket = UdpSocket::bind("10.9.0.1:0").expect("a socket");
        socket.set_broadcast(true).expect("allowed");
        assert_counted(WallId::BroadcastBacklog, || {
            for _ in 0..20 {
                socket.send_to(b"who is there", "10.9.255.255:9").expect("sent");
            }
        });
    });
}

#[test]
fn the_neighbour_table_is_full() {
    let name = "links::the_neighbour_table_is_full";
    let most = here().setting("net.ipv4.neigh.default.gc_thresh3");
    if is_outside() && most.is_none_or(|most| most > 8_192) {
        return skip(name, "the table is too large to fill");
    }
    if !rustix::process::geteuid().is_root() {
        return skip(name, "namespaces with all rights need root");
    }
    let fill = || inside(name, &["-n"], fill_neighbours);
    if is_outside() {
        // The counter, which is the host's, says it too: programs whose packets are lost print nothing.
        assert_counted(WallId::NeighbourTable, fill);
    } else {
        fill();
    }
}

fn fill_neighbours() {
    ip("link add name a0 type veth peer name b0\naddr add 10.9.0.1/16 dev a0\nlink set a0 up\nlink set b0 up\n")
        .expect("two interfaces");
    let before = here();
    let mut batch = String::new();
    for number in 2..10_000u32 {
        let (high, low) = (number / 256, number % 256);
        let hardware = format!("02:00:00:00:{high:02x}:{low:02x}");
        let _ = writeln!(batch, "neigh add 10.9.{high}.{low} dev a0 lladdr {hardware} nud reachable");
    }
    let error = ip(&batch).expect_err("more than the table holds");
    assert!(error.contains("No buffer space available"), "{error}");
    let (before, after) = (Some(before), Some(here()));
    let evidence = Evidence { messages: vec![error], before, after, ..Evidence::default() };
    assert_named(&evidence, WallId::NeighbourTable);
}
