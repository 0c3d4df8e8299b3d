//! Bridges and pairs of interfaces, made by one thread that lives in the namespace of the bridges: the host's own for
//! root, one of the user's otherwise. The kernel serialises such changes anyway (`rtnl_lock`).

use crate::netlink::{self, Connection, Link, Pair};
use netlink_packet_route::RouteNetlinkMessage;
use sha2::{Digest, Sha256};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::{Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};
use throng_model::replica::NetworkSpec;

/// Index of `eth0` inside a replica; the others follow. Above those of the tunnels that a kernel may make by itself.
pub const FIRST_INDEX: u32 = 16;

/// Indices of pairs on the host's side come from the upper half of the kernel's range, away from those it gives out.
const INDEX_BASE: u32 = 1 << 30;
const INDEX_MASK: u32 = INDEX_BASE - 1;
const INDEX_TRIES: u32 = 16;
const INDEX_STRIDE: u32 = 7_919;

/// How long the kernel is left to take down the interfaces of replicas that have ended.
const PORTS_PATIENCE: Duration = Duration::from_secs(5);
const PORTS_PAUSE: Duration = Duration::from_millis(10);

const BRIDGE_PREFIX: &str = "thr";

type Task = Box<dyn FnOnce(&mut Connection) + Send>;

/// The thread that makes interfaces.
pub struct Fabric {
    tasks: Mutex<mpsc::Sender<Task>>,
}

impl Fabric {
    /// `enter` runs on the thread before it opens its socket.
    pub fn new(enter: impl FnOnce() -> io::Result<()> + Send + 'static) -> io::Result<Self> {
        let (tasks, receiver) = mpsc::channel::<Task>();
        let (ready, opened) = mpsc::channel();
        thread::Builder::new().name("throng-network".into()).spawn(move || {
            match enter().and_then(|()| Connection::open()) {
                Ok(mut connection) => {
                    // Up already in the host's own namespace.
                    let _ = connection.request(netlink::loopback_up());
                    if ready.send(Ok(())).is_ok() {
                        receiver.iter().for_each(|task| task(&mut connection));
                    }
                }
                // The caller has gone if this fails.
                Err(error) => drop(ready.send(Err(error))),
            }
        })?;
        opened.recv().map_err(|_| gone())??;
        Ok(Fabric { tasks: Mutex::new(tasks) })
    }

    /// Runs `work` on the thread and waits for it.
    fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Connection) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (sender, answer) = mpsc::channel();
        // If the answer is not wanted any more, nothing is lost.
        let task: Task = Box::new(move |connection| drop(sender.send(work(connection))));
        self.tasks.lock().map_err(|_| gone())?.send(task).map_err(|_| gone())?;
        answer.recv().map_err(|_| gone())?
    }

    /// Makes the network's bridge with the gateway's address, or finds it, and returns its index.
    pub fn bridge(&self, spec: &NetworkSpec) -> io::Result<u32> {
        let spec = spec.clone();
        self.call(move |connection| {
            let name = bridge_name(&spec.name);
            allow_existing(connection.request(netlink::new_bridge(&name, hardware(spec.gateway))))?;
            let index = index_of(&name)?;
            let address =
                netlink::new_address(index, spec.gateway, spec.subnet.prefix_len(), spec.subnet.broadcast());
            allow_existing(connection.request(address))?;
            connection.request(netlink::link_up(index))?;
            Ok(index)
        })
    }

    /// Makes a pair and returns its index on this side; one that is taken is replaced by another one.
    pub fn pair(&self, mut pair: Pair) -> io::Result<u32> {
        self.call(move |connection| {
            let mut tries = 0;
            loop {
                match connection.request(netlink::new_pair(&pair)) {
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
        })
    }

    /// Makes sure that the bridge forwards to these ports. The kernel notices that a pair's other end has come up in
    /// work of its own, up to a second later; a request about the link (`rtnl_getlink`) makes it do so now. Without
    /// this the first packets to a replica are lost, and lost ARP and SYN packets are sent again after a second.
    pub fn settle(&self, indices: Vec<u32>) -> io::Result<()> {
        self.call(move |connection| {
            // A port that is gone already belongs to a replica that has ended.
            indices.into_iter().for_each(|index| drop(connection.request(netlink::get_link(index))));
            Ok(())
        })
    }

    /// Removes interfaces by name; those that are gone are fine.
    pub fn remove(&self, names: Vec<String>) -> io::Result<()> {
        self.call(move |connection| {
            for name in names {
                if let Ok(index) = index_of(&name) {
                    remove(connection, index)?;
                }
            }
            Ok(())
        })
    }

    /// Removes a network's bridge. The kernel removes the ports of replicas that have ended all at once, soon after;
    /// those that are still there when that should have happened are removed one by one, at a much higher price.
    pub fn remove_bridge(&self, network: &str) -> io::Result<()> {
        let name = bridge_name(network);
        let deadline = Instant::now() + PORTS_PATIENCE;
        loop {
            let port_name = name.clone();
            let ports = self.call(move |connection| ports(connection, &port_name))?;
            let late = Instant::now() > deadline;
            if ports.is_empty() || late {
                return self.call(move |connection| {
                    ports.iter().try_for_each(|port| remove(connection, *port))?;
                    index_of(&name).map_or(Ok(()), |bridge| remove(connection, bridge))
                });
            }
            thread::sleep(PORTS_PAUSE);
        }
    }

    /// Whether no network of ours is left.
    pub fn is_empty(&self) -> bool {
        self.links().is_ok_and(|links| !links.iter().any(|l| l.name.starts_with(BRIDGE_PREFIX)))
    }

    pub fn links(&self) -> io::Result<Vec<Link>> {
        self.call(Connection::links)
    }

    /// A nonblocking TCP socket of the thread's namespace: a socket stays in the one it was made in.
    pub fn tcp_socket(&self) -> io::Result<OwnedFd> {
        self.call(|_| tcp_socket())
    }

    /// Sockets on which DNS is answered at the gateway's address.
    pub fn name_server_sockets(&self, address: Ipv4Addr, port: u16) -> io::Result<(UdpSocket, TcpListener)> {
        self.call(move |_| {
            let address = SocketAddr::V4(SocketAddrV4::new(address, port));
            let (udp, tcp) = (UdpSocket::bind(address)?, TcpListener::bind(address)?);
            udp.set_nonblocking(true)?;
            tcp.set_nonblocking(true)?;
            Ok((udp, tcp))
        })
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

/// Indices of the bridge's ports.
fn ports(connection: &mut Connection, bridge: &str) -> io::Result<Vec<u32>> {
    let Ok(bridge) = index_of(bridge) else { return Ok(vec![]) };
    let links = connection.links()?;
    Ok(links.iter().filter(|l| l.bridge == Some(bridge)).map(|l| l.index).collect())
}

fn remove(connection: &mut Connection, index: u32) -> io::Result<()> {
    match connection.request(netlink::delete_link(index)) {
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

fn index_of(name: &str) -> io::Result<u32> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    Ok(rustix::net::netdevice::name_to_index(&socket, name)?)
}

/// What the replica itself asks for in its own namespace: loopback, addresses, and the way out.
pub fn inner_batch(legs: &[(Ipv4Addr, &NetworkSpec)]) -> (Vec<u8>, usize) {
    let mut requests: Vec<RouteNetlinkMessage> = vec![netlink::loopback_up()];
    for (index, (address, network)) in (FIRST_INDEX..).zip(legs) {
        let subnet = network.subnet;
        requests.push(netlink::link_up(index));
        requests.push(netlink::new_address(index, *address, subnet.prefix_len(), subnet.broadcast()));
    }
    if let Some((_, network)) = legs.first().filter(|(_, network)| !network.internal) {
        requests.push(netlink::default_route(FIRST_INDEX, network.gateway));
    }
    let count = requests.len();
    (netlink::encode(requests), count)
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
pub fn pair_index(name: &str) -> u32 {
    u32::from_str_radix(&digest(&[name], 8), 16).unwrap_or(0) & INDEX_MASK | INDEX_BASE
}

fn digest(parts: &[&str], digits: usize) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>()[..digits].to_owned()
}

/// A locally administered hardware address that follows from the IPv4 address, so that neighbours' entries stay valid
/// when a replica is started again.
pub fn hardware(address: Ipv4Addr) -> [u8; 6] {
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
    }
}
