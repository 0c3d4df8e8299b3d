//! One flat broadcast domain for each network, whatever the number of replicas, in the namespace of the bridges: the
//! host's own for root, one of the user's otherwise.
//!
//! A bridge has room for 1,023 ports, so replicas are no ports of it. Each one is a macvlan interface behind a parent,
//! [`BEHIND_PARENT`] to a parent; a parent is one end of a pair whose other end is a port of the network's bridge. The
//! address says which parent it is and what the hardware address is, so nothing need be remembered or counted: a new
//! supervisor finds parents by their names. Parents are made when the first replica behind them starts, and removed
//! with the network. (`NETWORKS.md` tells what this was compared with.)
//!
//! To ask everybody for an address would cost the more the more there are, and lose answers (see `NETWORKS.md`), so the
//! kernel is told instead: the host has a permanent neighbour and the bridge a permanent entry for each running
//! replica, each replica a permanent neighbour for its gateway, and the bridge answers for addresses that it knows.
//!
//! Where the kernel has no macvlan, a replica has a pair of its own with one end in the bridge ([`Links::Pairs`]).

mod nodes;
mod parents;

pub use nodes::OnNode;

use crate::netlink::{self, Connection, Hardware, Link, Pair, Which};
use crate::sysfs::Views;
use crate::traffic::Traffic;
use crate::wires::Wires;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard, mpsc};
use std::thread;
use std::time::{Duration, Instant};
use throng_model::node::LinkTraffic;
use throng_model::replica::NetworkSpec;

/// Index of `eth0` inside a replica; the others follow. Kernels before 6.13 look for an interface of that index on the
/// host's side, and refuse with `EEXIST` where they find one: hosts count up from 1 and hardly get here. Not higher
/// either: newer ones keep interfaces in a tree of 64 to a node, which would be a node deeper.
pub const FIRST_INDEX: u32 = 16_000_000;

/// Addresses that share a parent. What one replica sends to everybody goes to all behind its parent at once, so this
/// must stay below `net.core.netdev_max_backlog` (1,000 by default); what the others get comes over their own parents.
pub const BEHIND_PARENT: u32 = 256;
/// A bridge has room for 1,023 ports; addresses of larger networks than this share parents again.
const MAX_PARENTS: u32 = 512;

/// Indices of pairs on the host's side come from the upper half of the kernel's range, away from those it gives out.
const INDEX_BASE: u32 = 1 << 30;
const INDEX_MASK: u32 = INDEX_BASE - 1;
const INDEX_TRIES: u32 = 16;
const INDEX_STRIDE: u32 = 7_919;

/// Interfaces of one network are in the group of this and the bridge's index.
const GROUP_BASE: u32 = 1 << 31;

/// How long the kernel is left to take down the interfaces of replicas that have ended.
const PORTS_PATIENCE: Duration = Duration::from_secs(5);
const PORTS_PAUSE: Duration = Duration::from_millis(10);

const BRIDGE_PREFIX: &str = "thr";

type Task = Box<dyn FnOnce() + Send>;

/// How replicas are attached to a bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Links {
    /// Behind shared parents, without limit.
    Macvlans,
    /// Each by a port of its own: at most 1,023.
    Pairs,
}

/// One leg of one start of a replica.
#[derive(Debug, Clone)]
pub struct Leg {
    pub network: NetworkSpec,
    pub address: Ipv4Addr,
    /// 0 for `eth0`.
    pub number: u32,
    /// Name of the host's end, if there is one.
    pub pair: String,
    /// The virtual node that it is on.
    pub node: Option<OnNode>,
}

/// Networks of this engine, and a thread for what must be done inside their namespace.
pub struct Fabric {
    tasks: Mutex<mpsc::Sender<Task>>,
    /// The kernel serialises such changes anyway (`rtnl_lock`).
    control: Mutex<Control>,
    links: Links,
    views: Views,
    /// What carries packets of nodes' links that are not perfect.
    wires: Wires,
}

struct Control {
    connection: Connection,
    segments: HashMap<String, Segment>,
}

/// A network that is there.
struct Segment {
    spec: NetworkSpec,
    bridge: u32,
    parents: HashMap<u32, Parent>,
    nodes: HashMap<String, nodes::NodeSegment>,
}

#[derive(Debug, Clone, Copy)]
struct Parent {
    index: u32,
    /// The other end, a port of the bridge.
    port: u32,
    /// Otherwise it was only found: who made it may have been killed before it was up.
    complete: bool,
}

impl Fabric {
    /// `enter` runs on the thread before it opens its socket. `wanted` is what to use, if the kernel has it.
    pub fn new(
        wanted: Links,
        wires: Wires,
        enter: impl FnOnce() -> io::Result<()> + Send + 'static,
    ) -> io::Result<Self> {
        let (tasks, receiver) = mpsc::channel::<Task>();
        let (ready, opened) = mpsc::channel();
        thread::Builder::new().name("throng-network".into()).spawn(move || {
            let connection = enter().and_then(|()| Connection::open());
            let fine = connection.is_ok();
            // The caller has gone if this fails.
            if ready.send(connection).is_ok() && fine {
                receiver.iter().for_each(|task| task());
            }
        })?;
        let mut connection = opened.recv().map_err(|_| gone())??;
        // Up already in the host's own namespace.
        let _ = connection.request(netlink::loopback_up());
        let links = match connection.request(netlink::macvlan_without_parent()) {
            Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => Links::Pairs,
            _ => wanted,
        };
        let control = Control { connection, segments: HashMap::new() };
        Ok(Fabric {
            tasks: Mutex::new(tasks),
            control: Mutex::new(control),
            links,
            views: Views::default(),
            wires,
        })
    }

    pub fn links_are(&self) -> Links {
        self.links
    }

    /// A new mount of the /sys that replicas share.
    pub fn shared_sys(&self) -> io::Result<OwnedFd> {
        self.views.mount()
    }

    /// Runs `work` on the thread and waits for it.
    fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (sender, answer) = mpsc::channel();
        // If the answer is not wanted any more, nothing is lost.
        let task: Task = Box::new(move || drop(sender.send(work())));
        self.tasks.lock().map_err(|_| gone())?.send(task).map_err(|_| gone())?;
        answer.recv().map_err(|_| gone())?
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        // A panic in between leaves at worst an answer unread, which the next request passes over.
        self.control.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Makes the network's bridge with the gateway's address, or finds it.
    pub fn open(&self, spec: &NetworkSpec) -> io::Result<()> {
        self.control().open(spec)
    }

    /// Gives the process one leg, and returns what [`Fabric::settle`] wants to know.
    pub fn attach(&self, leg: &Leg, pid: u32) -> io::Result<Option<u32>> {
        let attach = || {
            leg.node.iter().try_for_each(|node| self.prepare_link(&leg.network, node))?;
            self.control().attach(self.links, leg, pid)
        };
        match (self.links, attach()) {
            // Somebody has removed interfaces of ours.
            (Links::Macvlans, Err(error)) if error.raw_os_error() == Some(libc::ENODEV) => {
                self.control().open(&leg.network)?;
                attach()
            }
            (_, other) => other,
        }
    }

    /// Forgets where an address is; fine if nobody knew. Its interface goes with the replica's namespace.
    pub fn detach(&self, network: &NetworkSpec, node: Option<&str>, address: Ipv4Addr) -> io::Result<()> {
        match (self.links, node) {
            (Links::Macvlans, Some(node)) => self.control().detach_from_node(network, node, address),
            (Links::Macvlans, None) => self.control().detach(network, address),
            (Links::Pairs, _) => Ok(()),
        }
    }

    /// Makes sure that the bridge forwards to these ports. The kernel notices that a pair's other end has come up in
    /// work of its own, up to a second later; a request about the link (`rtnl_getlink`) makes it do so now. Without
    /// this the first packets to a replica are lost, and lost ARP and SYN packets are sent again after a second.
    pub fn settle(&self, indices: &[u32]) -> io::Result<()> {
        for some in indices.chunks(netlink::MAX_BATCH) {
            let requests = some.iter().map(|index| netlink::get_link(Which::Index(*index)));
            // A port that is gone already belongs to a replica that has ended.
            let _ = self.control().connection.batch(requests)?;
        }
        Ok(())
    }

    /// Removes interfaces by name; those that are gone are fine.
    pub fn remove(&self, names: &[String]) -> io::Result<()> {
        names.iter().try_for_each(|name| self.control().remove(name))
    }

    /// Removes a network's interfaces, all at once. Fine if there are none.
    pub fn close(&self, network: &str) -> io::Result<()> {
        let name = bridge_name(network);
        self.control().segments.remove(network);
        let Some(bridge) = self.control().connection.index_of(&name)? else { return Ok(()) };
        if self.links == Links::Pairs {
            self.await_ports(bridge)?;
        }
        // The bridge by itself, too: who made it may have been killed before it was in the group.
        let requests = [netlink::delete_group(group(bridge)), netlink::delete_link(bridge)];
        let results = self.control().connection.batch(requests)?;
        results.into_iter().try_for_each(gone_is_fine)
    }

    /// The kernel removes the ports of replicas that have ended all at once, soon after; those that are still there
    /// when that should have happened are removed one by one, at a much higher price.
    fn await_ports(&self, bridge: u32) -> io::Result<()> {
        let deadline = Instant::now() + PORTS_PATIENCE;
        loop {
            let links = self.links()?;
            let ports: Vec<u32> =
                links.iter().filter(|l| l.bridge == Some(bridge)).map(|l| l.index).collect();
            if ports.is_empty() {
                return Ok(());
            }
            if Instant::now() > deadline {
                let delete = |port: &u32| self.control().connection.request(netlink::delete_link(*port));
                return ports.iter().try_for_each(|port| gone_is_fine(delete(port)));
            }
            thread::sleep(PORTS_PAUSE);
        }
    }

    /// Whether no network of ours is left.
    pub fn is_empty(&self) -> bool {
        self.links().is_ok_and(|links| !links.iter().any(|l| l.name.starts_with(BRIDGE_PREFIX)))
    }

    pub fn links(&self) -> io::Result<Vec<Link>> {
        self.control().connection.links()
    }

    /// A nonblocking TCP socket of the thread's namespace: a socket stays in the one it was made in.
    pub fn tcp_socket(&self) -> io::Result<OwnedFd> {
        self.call(tcp_socket)
    }

    /// A socket for asking what interfaces have carried.
    pub fn traffic(&self) -> io::Result<Traffic> {
        self.call(Traffic::open)
    }

    /// Listens at an address of the network that no replica has: the gateway's, or one that becomes the host's beside it
    /// for as long as the network is there.
    pub fn listener(&self, network: &NetworkSpec, address: Ipv4Addr, port: u16) -> io::Result<TcpListener> {
        if address != network.gateway {
            self.control().own(network, address)?;
        }
        self.call(move || {
            let listener = TcpListener::bind(SocketAddrV4::new(address, port))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        })
    }

    /// Sockets on which DNS is answered at the gateway's address.
    pub fn name_server_sockets(&self, address: Ipv4Addr, port: u16) -> io::Result<(UdpSocket, TcpListener)> {
        self.call(move || {
            let address = SocketAddr::V4(SocketAddrV4::new(address, port));
            let (udp, tcp) = (UdpSocket::bind(address)?, TcpListener::bind(address)?);
            udp.set_nonblocking(true)?;
            tcp.set_nonblocking(true)?;
            Ok((udp, tcp))
        })
    }
}

impl Control {
    /// Makes the bridge, or completes what another supervisor has made of it. One that was made here and cannot be
    /// completed goes again.
    fn open(&mut self, spec: &NetworkSpec) -> io::Result<()> {
        let name = bridge_name(&spec.name);
        let made = self.connection.request(netlink::new_bridge(&name, hardware(spec.gateway)));
        let new = made.is_ok();
        allow_existing(made)?;
        let completed = self.complete(spec, &name);
        if completed.is_err() && new {
            self.remove(&name)?;
        }
        completed
    }

    fn complete(&mut self, spec: &NetworkSpec, name: &str) -> io::Result<()> {
        let connection = &mut self.connection;
        let bridge = connection.index_of(name)?.ok_or_else(no_device)?;
        let subnet = spec.subnet;
        let wanted = (spec.gateway, subnet.prefix_len());
        // Addresses of services are beside the gateway's.
        let known = |found: &(Ipv4Addr, u8)| *found == wanted || found.1 == 32 && subnet.contains(&found.0);
        if let Some(other) = connection.addresses(bridge)?.into_iter().find(|found| !known(found)) {
            let (address, length) = other;
            return Err(io::Error::other(format!(
                "its bridge {name} exists with address {address}/{length}"
            )));
        }
        let requests = [
            netlink::without_ipv6_address(Which::Index(bridge)),
            netlink::join_group(bridge, group(bridge)),
            netlink::new_address(bridge, spec.gateway, subnet.prefix_len(), subnet.broadcast()),
            netlink::link_up(Which::Index(bridge)),
        ];
        connection.batch(requests)?.into_iter().try_for_each(allow_existing)?;
        let segment = Segment { spec: spec.clone(), bridge, parents: HashMap::new(), nodes: HashMap::new() };
        self.segments.insert(spec.name.clone(), segment);
        Ok(())
    }

    /// Gives the interface with the gateway's address, whoever made it, one more.
    fn own(&mut self, network: &NetworkSpec, address: Ipv4Addr) -> io::Result<()> {
        let bridge = self.connection.owner_of(network.gateway)?.ok_or_else(no_device)?;
        allow_existing(self.connection.request(netlink::new_host_address(bridge, address)))
    }

    fn attach(&mut self, links: Links, leg: &Leg, pid: u32) -> io::Result<Option<u32>> {
        if !self.segments.contains_key(&leg.network.name) {
            self.open(&leg.network)?;
        }
        if let (Links::Macvlans, Some(node)) = (links, &leg.node) {
            return self.attach_on_node(leg, node, pid).map(|()| None);
        }
        let Control { connection, segments } = self;
        let segment = segments.get_mut(&leg.network.name).ok_or_else(no_device)?;
        match links {
            Links::Pairs => connection.pair(segment.bridge, leg, pid).map(Some),
            Links::Macvlans => {
                let parent = connection.parent(segment, parent_number(&leg.network, leg.address))?;
                let own = hardware(leg.address);
                let name = format!("eth{}", leg.number);
                let requests = [
                    netlink::new_macvlan(parent.index, pid, &name, FIRST_INDEX + leg.number, own),
                    netlink::set_behind_port(parent.port, own),
                    netlink::set_neighbour(segment.bridge, leg.address, own),
                ];
                connection.batch(requests)?.into_iter().collect::<io::Result<()>>()?;
                Ok(None)
            }
        }
    }

    fn detach(&mut self, network: &NetworkSpec, address: Ipv4Addr) -> io::Result<()> {
        let Control { connection, segments } = self;
        let mut found;
        let segment = match segments.get_mut(&network.name) {
            Some(segment) => segment,
            // Another supervisor may have made it, but nothing need be made to forget something.
            None => {
                let Some(bridge) = connection.index_of(&bridge_name(&network.name))? else { return Ok(()) };
                found =
                    Segment { spec: network.clone(), bridge, parents: HashMap::new(), nodes: HashMap::new() };
                &mut found
            }
        };
        let mut requests = vec![netlink::delete_neighbour(segment.bridge, address)];
        if let Some(parent) = connection.find_parent(segment, parent_number(network, address))? {
            requests.push(netlink::delete_behind_port(parent.port, hardware(address)));
        }
        connection.batch(requests)?.into_iter().try_for_each(|result| match result {
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => Ok(()),
            other => other,
        })
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        match self.connection.index_of(name)? {
            Some(index) => gone_is_fine(self.connection.request(netlink::delete_link(index))),
            None => Ok(()),
        }
    }
}

impl Connection {
    /// Makes a parent, or completes what another supervisor has made of it.
    fn parent(&mut self, segment: &mut Segment, number: u32) -> io::Result<Parent> {
        if let Some(parent) = segment.parents.get(&number).filter(|parent| parent.complete) {
            return Ok(*parent);
        }
        let (port, parent) = parent_names(&segment.spec.name, number);
        let new = netlink::new_parent(&port, segment.bridge, &parent, group(segment.bridge));
        allow_existing(self.request(new))?;
        let requests = [
            netlink::without_ipv6_address(Which::Name(&parent)),
            netlink::without_ipv6_address(Which::Name(&port)),
            netlink::answer_for_port(Which::Name(&port)),
            // The host would answer there, too, when somebody asks for its address.
            netlink::link_up_silent(Which::Name(&parent)),
            netlink::link_up(Which::Name(&port)),
        ];
        self.batch(requests)?.into_iter().collect::<io::Result<()>>()?;
        // To ask for the port also has the kernel forward to it from now on, see `settle`.
        segment.parents.remove(&number);
        let found = self.find_parent(segment, number)?.ok_or_else(no_device)?;
        let parent = Parent { complete: true, ..found };
        segment.parents.insert(number, parent);
        Ok(parent)
    }

    fn find_parent(&mut self, segment: &mut Segment, number: u32) -> io::Result<Option<Parent>> {
        if let Some(parent) = segment.parents.get(&number) {
            return Ok(Some(*parent));
        }
        let (port, parent) = parent_names(&segment.spec.name, number);
        let (Some(port), Some(index)) = (self.index_of(&port)?, self.index_of(&parent)?) else {
            return Ok(None);
        };
        let parent = Parent { index, port, complete: false };
        segment.parents.insert(number, parent);
        Ok(Some(parent))
    }

    /// Makes a pair and returns its index on this side; one that is taken is replaced by another one.
    fn pair(&mut self, bridge: u32, leg: &Leg, pid: u32) -> io::Result<u32> {
        let mut pair = Pair {
            index: pair_index(&leg.pair),
            name: leg.pair.clone(),
            bridge,
            pid,
            peer_name: format!("eth{}", leg.number),
            peer_index: FIRST_INDEX + leg.number,
            peer_hardware: hardware(leg.address),
        };
        let mut tries = 0;
        loop {
            match self.request(netlink::new_pair(&pair)) {
                Err(e)
                    if tries < INDEX_TRIES
                        && matches!(e.raw_os_error(), Some(libc::EEXIST | libc::EBUSY)) =>
                {
                    tries += 1;
                    pair.index = pair.index.wrapping_add(INDEX_STRIDE) & INDEX_MASK | INDEX_BASE;
                }
                other => return other.map(|()| pair.index),
            }
        }
    }
}

fn gone() -> io::Error {
    io::Error::other("the network thread has ended")
}

pub fn tcp_socket() -> io::Result<OwnedFd> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?)
}

fn no_device() -> io::Error {
    io::Error::from_raw_os_error(libc::ENODEV)
}

fn gone_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(()),
        other => other,
    }
}

fn allow_existing(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// What the replica itself asks for in its own namespace, first until it succeeds: loopback and its legs up. As long as
/// the kernel has not taken down an earlier process' namespace, the hardware address is in use.
pub fn legs_up(legs: &[Leg]) -> (Vec<u8>, usize) {
    let mut requests = vec![netlink::loopback_up()];
    for leg in legs {
        let index = FIRST_INDEX + leg.number;
        requests.push(netlink::without_ipv6_address(Which::Index(index)));
        requests.push(netlink::link_up(Which::Index(index)));
    }
    batch(requests)
}

/// Then: its addresses, and the way out.
pub fn legs_addressed(legs: &[Leg]) -> (Vec<u8>, usize) {
    let mut requests = vec![];
    for leg in legs {
        let (index, gateway, subnet) = (FIRST_INDEX + leg.number, leg.network.gateway, leg.network.subnet);
        requests.push(netlink::new_address(index, leg.address, subnet.prefix_len(), subnet.broadcast()));
        requests.push(netlink::set_neighbour(index, gateway, hardware(gateway)));
    }
    if let Some(leg) = legs.first().filter(|leg| !leg.network.internal) {
        requests.push(netlink::default_route(FIRST_INDEX, leg.network.gateway));
    }
    batch(requests)
}

fn batch(requests: Vec<netlink::Request>) -> (Vec<u8>, usize) {
    let count = requests.len();
    (netlink::encode(1, requests), count)
}

/// Which parent an address is behind.
fn parent_number(network: &NetworkSpec, address: Ipv4Addr) -> u32 {
    let place = u32::from(address).saturating_sub(u32::from(network.subnet.network()));
    place / BEHIND_PARENT % MAX_PARENTS
}

/// The port of the bridge, and the parent behind it. Both begin as the bridge does, and fit the kernel's 15 characters.
/// The letters are no hexadecimal digits, or some network's bridge would be called like one of its ports.
fn parent_names(network: &str, number: u32) -> (String, String) {
    let bridge = digest(&[network], 8);
    (format!("{BRIDGE_PREFIX}{bridge}u{number:x}"), format!("{BRIDGE_PREFIX}{bridge}p{number:x}"))
}

fn group(bridge: u32) -> u32 {
    GROUP_BASE | bridge
}

/// `thr` and ten digits: a name that fits the kernel's 15 characters whatever the network is called.
pub fn bridge_name(network: &str) -> String {
    format!("{BRIDGE_PREFIX}{}", digest(&[network], 10))
}

/// The host's end of a replica's leg. It differs from start to start: the kernel takes an earlier one away only some
/// time after its process has ended.
pub fn pair_name(replica: &str, network: &str, start: u128) -> String {
    format!("tv{}", digest(&[replica, network, &start.to_string()], 12))
}

/// An index for the pair of that name; different names rarely share one.
fn pair_index(name: &str) -> u32 {
    u32::from_str_radix(&digest(&[name], 8), 16).unwrap_or(0) & INDEX_MASK | INDEX_BASE
}

pub fn digest(parts: &[&str], digits: usize) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>()[..digits].to_owned()
}

/// A locally administered hardware address that follows from the IPv4 address, so that neighbours' entries stay valid
/// when a replica is started again.
pub fn hardware(address: Ipv4Addr) -> Hardware {
    let [a, b, c, d] = address.octets();
    [0x02, 0x54, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_differ() {
        let long = "a".repeat(200);
        assert_eq!(bridge_name(&long).len(), 13);
        assert_eq!(pair_name(&long, &long, u128::MAX).len(), 14);
        assert_ne!(bridge_name("a"), bridge_name("b"));
        assert_ne!(pair_name("ab", "c", 1), pair_name("a", "bc", 1));
        assert_ne!(pair_name("a", "b", 1), pair_name("a", "b", 2));
        let (port, parent) = parent_names(&long, MAX_PARENTS - 1);
        assert_ne!(port, parent);
        assert!(port.len() <= 15 && parent.len() <= 15, "{port} {parent}");
        // The digest of this one goes on with what port 2 could have been called.
        let (port, parent) = parent_names("crowd_default", 2);
        assert_eq!(bridge_name("crowd_default"), "thrce3280b4b2");
        assert!(![port, parent].contains(&bridge_name("crowd_default")));
    }

    #[test]
    fn an_address_says_which_parent_it_is_behind() {
        let network = |subnet: &str| NetworkSpec {
            name: "a".into(),
            subnet: subnet.parse().expect("a subnet"),
            gateway: Ipv4Addr::UNSPECIFIED,
            internal: false,
        };
        let number = |subnet, address: &str| parent_number(&network(subnet), address.parse().expect("one"));
        assert_eq!(number("10.0.128.0/17", "10.0.128.255"), 0);
        assert_eq!(number("10.0.128.0/17", "10.0.129.0"), 1);
        assert_eq!(number("10.0.0.0/30", "10.0.0.2"), 0);
        assert!(number("10.0.0.0/8", "10.255.255.254") < MAX_PARENTS);
    }
}
