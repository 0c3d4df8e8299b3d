//! What the ways to connect many network namespaces cost: `network_kinds [COUNT…]` (1000 4000 10000) makes that many
//! namespaces, connects them in each way in turn, and prints one row for each. NETWORKS.md tells what was chosen.
//!
//! Each namespace takes one descriptor, so the limit of open files is that of the counts. Needs root.

#![allow(dead_code)] // the engine uses the rest of its module
#[path = "../src/netlink.rs"]
mod netlink;

use netlink::{Connection, Hardware, MAX_BATCH, Pair, Request, Which};
use netlink_packet_route::link::{LinkAttribute, LinkMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteHeader, RouteMessage};
use netlink_packet_route::route::{RouteProtocol, RouteScope, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, gettid, move_into_link_name_space, unshare_unsafe};
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

const SUBNET: Ipv4Addr = Ipv4Addr::new(10, 201, 0, 0);
const PREFIX: u8 = 16;
const BROADCAST: Ipv4Addr = Ipv4Addr::new(10, 201, 255, 255);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 201, 0, 1);
const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
const PORT: u16 = 5353;
/// Ports of one bridge of a tree: the kernel allows 1,023.
const PORTS: u32 = 900;
/// Index of a namespace's interface.
const INNER: u32 = 16;
/// Indices on the host's side that the kernel does not give out by itself.
const OUTER: u32 = 1 << 30;
/// Interfaces to be removed together.
const GROUP_NUMBER: u32 = 0x5448_0001;
/// First packets that are timed.
const SAMPLES: usize = 200;
/// Namespaces that speak to everybody at the same time.
const AT_ONCE: usize = 100;
const SENTINEL: &str = "tksentinel";
const PATIENCE: Duration = Duration::from_secs(3);
const TEARDOWN: Duration = Duration::from_secs(120);

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Pairs in leaf bridges of [`PORTS`], which are ports of one root bridge.
    BridgeTree,
    /// Macvlan interfaces, so many behind each parent.
    Macvlan(u32),
    /// Pairs with a route each, and no broadcast domain.
    Routed,
}

fn main() {
    let counts: Vec<u32> = std::env::args().skip(1).map(|a| a.parse().expect("a count")).collect();
    let counts = if counts.is_empty() { vec![1000, 4000, 10_000] } else { counts };
    let (soft, hard) = (rustix::process::Resource::Nofile, None::<u64>);
    let maximum = rustix::process::getrlimit(soft).maximum.or(hard);
    let _ = rustix::process::setrlimit(soft, rustix::process::Rlimit { current: maximum, maximum });
    println!(
        "| kind | namespaces | make, ms each | KB each | first packet, ms: median / p99 | one multicast reaches | {AT_ONCE} at once reach | teardown, s |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for count in counts {
        for kind in [
            Kind::BridgeTree,
            Kind::Macvlan(128),
            Kind::Macvlan(256),
            Kind::Macvlan(500),
            Kind::Macvlan(1000),
            Kind::Routed,
        ] {
            // A thread of its own: it ends up in one of the namespaces.
            let row = std::thread::spawn(move || measure(kind, count)).join().expect("no panic");
            println!("{}", row.unwrap_or_else(|error| format!("| {kind:?} | {count} | {error} |")));
        }
    }
}

fn measure(kind: Kind, count: u32) -> io::Result<String> {
    let host = File::open("/proc/thread-self/ns/net")?;
    let mut outer = Connection::open()?;
    let sentinel = sentinel(&mut outer, &host)?;
    let names: Vec<File> = (0..count).map(|_| new_namespace()).collect::<io::Result<_>>()?;
    let memory = kernel_memory();
    let begin = Instant::now();
    let made = connect(kind, &names, &mut outer);
    let each = begin.elapsed().as_secs_f64() * 1e3 / f64::from(count);
    let used = (kernel_memory() - memory) as f64 / f64::from(count);
    let outcome = made.and_then(|()| traffic(names, &host));
    enter(&host)?;
    let begin = Instant::now();
    let result = outcome.map(|(text, sockets)| {
        drop(sockets);
        text
    });
    drop(sentinel);
    if !matches!(kind, Kind::Routed) {
        outer.request(netlink::delete_group(GROUP_NUMBER))?;
    }
    while outer.links()?.iter().any(|link| link.name.starts_with("tk")) && begin.elapsed() < TEARDOWN {
        std::thread::sleep(Duration::from_millis(10));
    }
    let teardown = begin.elapsed().as_secs_f64();
    let name = match kind {
        Kind::BridgeTree => format!("pairs in a tree of bridges, {PORTS} to each"),
        Kind::Macvlan(behind) => format!("macvlan, {behind} behind each parent"),
        Kind::Routed => "pairs with a route each".into(),
    };
    Ok(format!("| {name} | {count} | {each:.2} | {used:.0} | {} | {teardown:.1} |", result?))
}

/// A namespace that goes last, held by a socket as the others are: the kernel takes down namespaces about in the order in
/// which they were left, so when the other end of its interface is gone all are.
fn sentinel(outer: &mut Connection, host: &File) -> io::Result<UdpSocket> {
    new_namespace()?;
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
    let pair = Pair {
        name: SENTINEL.into(),
        index: OUTER - 1,
        bridge: 0,
        pid: gettid().as_raw_nonzero().get() as u32,
        peer_name: "eth0".into(),
        peer_index: INNER,
        peer_hardware: hardware(GATEWAY),
    };
    outer.request(netlink::new_pair(&pair))?;
    enter(host)?;
    Ok(socket)
}

/// The calling thread is in it afterwards.
fn new_namespace() -> io::Result<File> {
    // SAFETY: a network namespace is no matter of memory or descriptors.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
    File::open("/proc/thread-self/ns/net")
}

fn enter(namespace: &impl AsFd) -> io::Result<()> {
    Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
}

fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(SUBNET) + 2 + number)
}

fn hardware(address: Ipv4Addr) -> Hardware {
    let [a, b, c, d] = address.octets();
    [0x02, 0x54, a, b, c, d]
}

fn all(connection: &mut Connection, requests: Vec<Request>) -> io::Result<()> {
    for some in requests.chunks(MAX_BATCH) {
        connection.batch(some.to_vec())?.into_iter().collect::<io::Result<()>>()?;
    }
    Ok(())
}

fn connect(kind: Kind, names: &[File], outer: &mut Connection) -> io::Result<()> {
    let (mut parent, mut up) = (0, 0);
    let root = if matches!(kind, Kind::Routed) { 0 } else { bridge(outer, "tkroot", true)? };
    for (number, namespace) in (0..).zip(names) {
        enter(namespace)?;
        let me = gettid().as_raw_nonzero().get() as u32;
        let own = address(number);
        match kind {
            Kind::BridgeTree => {
                if number % PORTS == 0 {
                    (parent, up) = leaf(outer, root, number / PORTS)?;
                }
                pair(outer, number, parent, me)?;
                // As with macvlan: what nobody has learned would go to everybody.
                all(
                    outer,
                    vec![
                        netlink::set_behind_port(up, hardware(own)),
                        netlink::set_behind_port(OUTER + number, hardware(own)),
                        netlink::set_neighbour(root, own, hardware(own)),
                    ],
                )?;
            }
            Kind::Macvlan(behind) => {
                if number % behind == 0 {
                    (parent, up) = macvlan_parent(outer, root, number / behind)?;
                }
                all(
                    outer,
                    vec![
                        netlink::new_macvlan(parent, me, "eth0", INNER, hardware(own)),
                        netlink::set_behind_port(up, hardware(own)),
                        netlink::set_neighbour(root, own, hardware(own)),
                    ],
                )?;
            }
            Kind::Routed => {
                pair(outer, number, 0, me)?;
                let index = OUTER + number;
                all(outer, vec![host_route(index, own), netlink::set_neighbour(index, own, hardware(own))])?;
            }
        }
        inside(own)?;
        if !matches!(kind, Kind::Macvlan(_)) {
            // Has the bridge forward at once.
            outer.request(netlink::get_link(Which::Index(OUTER + number)))?;
        }
    }
    Ok(())
}

fn bridge(outer: &mut Connection, name: &str, root: bool) -> io::Result<u32> {
    outer.request(netlink::new_bridge(name, hardware(GATEWAY)))?;
    let index = outer.index_of(name)?.unwrap_or(0);
    let mut requests =
        vec![netlink::without_ipv6_address(Which::Index(index)), netlink::join_group(index, GROUP_NUMBER)];
    if root {
        requests.push(netlink::new_address(index, GATEWAY, PREFIX, BROADCAST));
    }
    requests.push(netlink::link_up(Which::Index(index)));
    all(outer, requests)?;
    Ok(index)
}

/// The leaf, and the root's port behind which it is.
fn leaf(outer: &mut Connection, root: u32, number: u32) -> io::Result<(u32, u32)> {
    let leaf = bridge(outer, &format!("tkleaf{number}"), false)?;
    let (up, down) = (format!("tku{number}"), format!("tkd{number}"));
    all(
        outer,
        vec![
            netlink::new_parent(&up, root, &down, GROUP_NUMBER),
            netlink::without_ipv6_address(Which::Name(&up)),
            netlink::without_ipv6_address(Which::Name(&down)),
            join_bridge(&down, leaf),
            netlink::link_up(Which::Name(&up)),
            netlink::link_up(Which::Name(&down)),
        ],
    )?;
    outer.index_of(&down)?;
    Ok((leaf, outer.index_of(&up)?.unwrap_or(0)))
}

fn join_bridge(name: &str, bridge: u32) -> Request {
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::IfName(name.into()), LinkAttribute::Controller(bridge)];
    Request::change(RouteNetlinkMessage::SetLink(message))
}

/// The parent, and the bridge's port that is its other end.
fn macvlan_parent(outer: &mut Connection, root: u32, number: u32) -> io::Result<(u32, u32)> {
    let (port, parent) = (format!("tkb{number}"), format!("tkp{number}"));
    all(
        outer,
        vec![
            netlink::new_parent(&port, root, &parent, GROUP_NUMBER),
            netlink::without_ipv6_address(Which::Name(&parent)),
            netlink::without_ipv6_address(Which::Name(&port)),
            netlink::answer_for_port(Which::Name(&port)),
            netlink::link_up_silent(Which::Name(&parent)),
            netlink::link_up(Which::Name(&port)),
        ],
    )?;
    let port = outer.index_of(&port)?.unwrap_or(0);
    Ok((outer.index_of(&parent)?.unwrap_or(0), port))
}

fn pair(outer: &mut Connection, number: u32, bridge: u32, pid: u32) -> io::Result<()> {
    let pair = Pair {
        name: format!("tkv{number}"),
        index: OUTER + number,
        bridge,
        pid,
        peer_name: "eth0".into(),
        peer_index: INNER,
        peer_hardware: hardware(address(number)),
    };
    all(outer, vec![netlink::new_pair(&pair), netlink::without_ipv6_address(Which::Index(pair.index))])
}

fn host_route(index: u32, to: Ipv4Addr) -> Request {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.destination_prefix_length = 32;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Boot;
    message.header.scope = RouteScope::Link;
    message.header.kind = RouteType::Unicast;
    message.attributes =
        vec![RouteAttribute::Destination(RouteAddress::Inet(to)), RouteAttribute::Oif(index)];
    Request::make(RouteNetlinkMessage::NewRoute(message))
}

/// What a replica asks for in its own namespace. Its gateway has the hardware address of the bridge; with a route each,
/// nothing is sent to it here.
fn inside(own: Ipv4Addr) -> io::Result<()> {
    let mut inner = Connection::open()?;
    all(
        &mut inner,
        vec![
            netlink::loopback_up(),
            netlink::without_ipv6_address(Which::Index(INNER)),
            netlink::link_up(Which::Index(INNER)),
            netlink::new_address(INNER, own, PREFIX, BROADCAST),
            netlink::set_neighbour(INNER, GATEWAY, hardware(GATEWAY)),
            netlink::default_route(INNER, GATEWAY),
        ],
    )
}

/// The columns about packets, and the sockets that have received them.
fn traffic(names: Vec<File>, host: &File) -> io::Result<(String, Vec<UdpSocket>)> {
    let listen = |namespace: File| -> io::Result<UdpSocket> {
        enter(&namespace)?;
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
        socket.join_multicast_v4(&GROUP, &Ipv4Addr::UNSPECIFIED)?;
        socket.set_multicast_loop_v4(false)?;
        Ok(socket)
    };
    let sockets: Vec<UdpSocket> = names.into_iter().map(listen).collect::<io::Result<_>>()?;
    enter(host)?;
    let from_host = UdpSocket::bind((GATEWAY, 0)).or_else(|_| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))?;
    let (mut times, mut lost) = (Vec::new(), 0);
    let step = (sockets.len() / SAMPLES).max(1);
    for (number, socket) in (0..).zip(&sockets).step_by(step) {
        socket.set_read_timeout(Some(PATIENCE))?;
        let begin = Instant::now();
        from_host.send_to(b"first", (address(number), PORT))?;
        match socket.recv_from(&mut [0; 16]) {
            Ok(_) => times.push(begin.elapsed()),
            Err(_) => lost += 1,
        }
    }
    times.sort_unstable();
    let at = |share: f64| {
        let place = (times.len().saturating_sub(1) as f64 * share) as usize;
        times.get(place).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
    };
    let one = reached(&sockets, &sockets[..1])?;
    let many = reached(&sockets, &sockets[..AT_ONCE.min(sockets.len())])?;
    let lost = if lost > 0 { format!(", {lost} lost") } else { String::new() };
    let text = format!("{:.2} / {:.2}{lost} | {one} | {many}", at(0.5), at(0.99));
    Ok((text, sockets))
}

/// Has each of the senders speak to everybody once, and tells the share of what has arrived.
fn reached(sockets: &[UdpSocket], senders: &[UdpSocket]) -> io::Result<String> {
    for sender in senders {
        sender.send_to(b"everybody", (GROUP, PORT))?;
    }
    let wanted = senders.len() * (sockets.len() - 1);
    let (begin, mut found) = (Instant::now(), 0);
    while found < wanted && begin.elapsed() < PATIENCE {
        std::thread::sleep(Duration::from_millis(20));
        for socket in sockets {
            socket.set_nonblocking(true)?;
            while socket.recv_from(&mut [0; 16]).is_ok() {
                found += 1;
            }
        }
    }
    Ok(format!("{:.1} %", found as f64 * 100.0 / wanted as f64))
}

/// Kilobytes of the kernel's own.
fn kernel_memory() -> i64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let field = |name: &str| -> i64 {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse().ok()).unwrap_or(0)
    };
    field("Slab") + field("Percpu")
}
