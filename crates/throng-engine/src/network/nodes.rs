//! Segments of virtual nodes: what a node's replicas are behind in one network, and what is between that and the rest.
//!
//! ```text
//!  replicas ─ parents ═ ports ─ the network's bridge                                       a perfect link
//!  replicas ─ parents ═ ports ─ the node's bridge ─ TAP x ⇄ helper ⇄ TAP y ─ the network's bridge    any other
//! ```
//!
//! A node has parents of its own, so replicas of one node reach each other directly, and everything else passes the ports.
//! A link that is not perfect moves the ports into a bridge of the node's own, from which the only way out is the helper
//! ([`crate::sys::wires`]). It is all one broadcast domain, with the same addresses and names. What somebody asks for the
//! address of a replica the network's bridge still answers ([`super`]).
//!
//! Everything is found by its name: it follows from the network's and the node's.

use super::*;
use crate::wire::Shape;
use crate::wires::Taps;
use std::collections::BTreeSet;
use throng_model::node::Link as NodeLink;

/// Parents of one node in one network: beyond so many times [`BEHIND_PARENT`] addresses they are shared again. Their
/// numbers have two hexadecimal digits in names.
const NODE_PARENTS: u32 = 256;
/// Frames that wait in a TAP interface for the helper to read them: some milliseconds of the fastest that it carries.
const WAITING_FRAMES: u32 = 4_096;

/// The node that a leg is on.
#[derive(Debug, Clone, PartialEq)]
pub struct OnNode {
    pub project: String,
    pub name: String,
    pub link: NodeLink,
}

/// What is known of a node in a network.
#[derive(Debug, Default)]
pub struct NodeSegment {
    /// `None` until it has been looked at.
    link: Option<NodeLink>,
    /// The bridge of the node's own and the TAP interface in the network's, if its link is not perfect.
    apart: Option<Apart>,
    ports: HashMap<u32, Port>,
}

#[derive(Debug, Clone, Copy)]
struct Apart {
    bridge: u32,
    outside: u32,
}

#[derive(Debug, Clone, Copy)]
struct Port {
    parent: u32,
    port: u32,
}

impl NodeSegment {
    /// Behind which port of the network's bridge an address is.
    fn way_to(&self, port: &Port) -> u32 {
        self.apart.map_or(port.port, |apart| apart.outside)
    }
}

/// Names of a node's interfaces in a network; the letters are no hexadecimal digits.
struct Names(String);

impl Names {
    fn new(network: &str, node: &str) -> Names {
        Names(format!("{BRIDGE_PREFIX}{}", digest(&[network, node], 9)))
    }

    fn port(&self, number: u32) -> String {
        format!("{}u{number:x}", self.0)
    }

    fn parent(&self, number: u32) -> String {
        format!("{}p{number:x}", self.0)
    }

    fn bridge(&self) -> String {
        format!("{}m", self.0)
    }

    fn taps(&self) -> Taps {
        [format!("{}x", self.0), format!("{}y", self.0)]
    }

    /// The number of the port of that name.
    fn port_number(&self, name: &str) -> Option<u32> {
        u32::from_str_radix(name.strip_prefix(&self.0)?.strip_prefix('u')?, 16).ok()
    }

    /// The same packets meet the same fate in each run.
    fn seed(&self) -> u64 {
        u64::from_str_radix(&digest(&[&self.0], 16), 16).unwrap_or(0)
    }
}

impl Fabric {
    /// Makes the node's link in a network what it is to be. `addresses` are those of its replicas that run. A node that
    /// nothing has ever been on in that network, and one whose link is so already, cost nothing.
    pub fn set_link(&self, network: &NetworkSpec, node: &OnNode, addresses: &[Ipv4Addr]) -> io::Result<()> {
        self.link(network, node, addresses, false)
    }

    /// The same before the first replica is there.
    pub(super) fn prepare_link(&self, network: &NetworkSpec, node: &OnNode) -> io::Result<()> {
        self.link(network, node, &[], true)
    }

    fn link(
        &self,
        network: &NetworkSpec,
        node: &OnNode,
        addresses: &[Ipv4Addr],
        soon_used: bool,
    ) -> io::Result<()> {
        if self.links == Links::Pairs {
            let message = "links of nodes need macvlan interfaces, which this kernel does not have";
            return if node.link.is_perfect() { Ok(()) } else { Err(io::Error::other(message)) };
        }
        let names = Names::new(&network.name, &node.name);
        let mut control = self.control();
        if !control.segments.contains_key(&network.name) {
            control.open(network)?;
        }
        let Control { connection, segments } = &mut *control;
        let segment = segments.get_mut(&network.name).ok_or_else(no_device)?;
        let (bridge, group) = (segment.bridge, group(segment.bridge));
        let known = segment.nodes.entry(node.name.clone()).or_default();
        if known.link == Some(node.link) {
            return Ok(());
        }
        if known.link.is_none() {
            connection.find_node(&names, known)?;
        }
        if known.apart.is_none() && known.ports.is_empty() && !soon_used {
            return Ok(());
        }
        // Should any of this fail, it is looked at anew.
        known.link = None;
        if node.link.is_perfect() {
            connection.join(&names, bridge, known, addresses, network)?;
            self.wires.unset(&node.project, &names.taps())?;
            connection.remove_named(&names.bridge())?;
        } else {
            let shape = Shape::new(&node.link, names.seed());
            self.wires.set(&node.project, &names.taps(), shape, |fork| self.call(fork))?;
            connection.part(&names, bridge, group, known, addresses)?;
        }
        known.link = Some(node.link);
        Ok(())
    }

    /// Projects whose links went with what carried their packets since this was last asked.
    pub fn take_broken_links(&self) -> BTreeSet<String> {
        self.wires.take_broken()
    }

    /// Has them asked for again, since they could not be made anew.
    pub fn note_broken_links(&self, project: &str) {
        self.wires.note_broken(project);
    }

    /// Looks at the node's link in a network anew when it is set next: somebody else has changed it.
    pub fn doubt_link(&self, network: &str, node: &str) {
        let mut control = self.control();
        let known = control.segments.get_mut(network).and_then(|segment| segment.nodes.get_mut(node));
        if let Some(known) = known {
            known.link = None;
        }
    }

    /// What became of the packets of a node's link in a network.
    pub fn link_traffic(&self, project: &str, network: &str, node: &str) -> Option<LinkTraffic> {
        self.wires.traffic(project, &Names::new(network, node).taps())
    }

    /// Lets go of what carries packets for a project, whose networks are gone.
    pub fn close_links(&self, project: &str) {
        self.wires.close(project);
    }
}

impl Control {
    /// Gives the process a leg behind its node's parent, whose link must have been set.
    pub(super) fn attach_on_node(&mut self, leg: &Leg, node: &OnNode, pid: u32) -> io::Result<()> {
        let Control { connection, segments } = self;
        let segment = segments.get_mut(&leg.network.name).ok_or_else(no_device)?;
        let (bridge, group) = (segment.bridge, group(segment.bridge));
        let known = segment.nodes.entry(node.name.clone()).or_default();
        let names = Names::new(&leg.network.name, &node.name);
        let number = node_parent(&leg.network, leg.address);
        let port = match known.ports.get(&number) {
            Some(port) => *port,
            None => {
                let port = connection.node_port(&names, number, bridge, group, known.apart)?;
                known.ports.insert(number, port);
                port
            }
        };
        let own = hardware(leg.address);
        let name = format!("eth{}", leg.number);
        let requests = [
            netlink::new_macvlan(port.parent, pid, &name, FIRST_INDEX + leg.number, own),
            netlink::set_behind_port(known.way_to(&port), own),
            netlink::set_neighbour(bridge, leg.address, own),
        ];
        connection.batch(requests)?.into_iter().collect()
    }

    /// Forgets where an address on a node is; fine if nobody knew.
    pub(super) fn detach_from_node(
        &mut self,
        network: &NetworkSpec,
        node: &str,
        address: Ipv4Addr,
    ) -> io::Result<()> {
        let Control { connection, segments } = self;
        let names = Names::new(&network.name, node);
        let (bridge, way) = match segments.get(&network.name) {
            Some(segment) => {
                let known = segment.nodes.get(node);
                let port = known.and_then(|known| known.ports.get(&node_parent(network, address)));
                (Some(segment.bridge), known.zip(port).map(|(known, port)| known.way_to(port)))
            }
            None => (connection.index_of(&bridge_name(&network.name))?, None),
        };
        let Some(bridge) = bridge else { return Ok(()) };
        let way = match way {
            Some(way) => Some(way),
            None => {
                let outside = connection.index_of(&names.taps()[1])?;
                let port = names.port(node_parent(network, address));
                outside.map_or_else(|| connection.index_of(&port), |index| Ok(Some(index)))?
            }
        };
        let mut requests = vec![netlink::delete_neighbour(bridge, address)];
        requests.extend(way.map(|way| netlink::delete_behind_port(way, hardware(address))));
        connection.batch(requests)?.into_iter().try_for_each(|result| match result {
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENODEV)) => Ok(()),
            other => other,
        })
    }
}

impl Connection {
    /// Finds what an earlier supervisor has made of a node.
    fn find_node(&mut self, names: &Names, known: &mut NodeSegment) -> io::Result<()> {
        known.ports.clear();
        known.apart = None;
        let (bridge, [_, outside]) = (names.bridge(), names.taps());
        let links: HashMap<String, u32> = self
            .links()?
            .into_iter()
            .filter(|link| link.name.starts_with(&names.0))
            .map(|link| (link.name, link.index))
            .collect();
        for (name, port) in &links {
            let number = names.port_number(name);
            let parent = number.and_then(|number| links.get(&names.parent(number)));
            if let (Some(number), Some(parent)) = (number, parent) {
                known.ports.insert(number, Port { parent: *parent, port: *port });
            }
        }
        if let (Some(bridge), Some(outside)) = (links.get(&bridge), links.get(&outside)) {
            known.apart = Some(Apart { bridge: *bridge, outside: *outside });
        }
        Ok(())
    }

    /// Puts the node's ports into the network's own bridge.
    fn join(
        &mut self,
        names: &Names,
        bridge: u32,
        known: &mut NodeSegment,
        addresses: &[Ipv4Addr],
        network: &NetworkSpec,
    ) -> io::Result<()> {
        known.apart = None;
        let ports: Vec<(u32, Port)> = known.ports.iter().map(|(number, port)| (*number, *port)).collect();
        for (number, port) in ports {
            let name = names.port(number);
            let requests = [
                netlink::set_controller(port.port, bridge),
                netlink::answer_for_port(Which::Name(&name)),
                netlink::get_link(Which::Index(port.port)),
            ];
            self.batch(requests)?.into_iter().collect::<io::Result<()>>()?;
        }
        let ways = addresses.iter().filter_map(|address| {
            let port = known.ports.get(&node_parent(network, *address))?;
            Some((port.port, *address))
        });
        self.behind(ways.collect())
    }

    /// Puts the node's ports into a bridge of its own, with the helper between that and the network's.
    fn part(
        &mut self,
        names: &Names,
        bridge: u32,
        group: u32,
        known: &mut NodeSegment,
        addresses: &[Ipv4Addr],
    ) -> io::Result<()> {
        let own = names.bridge();
        allow_existing(self.request(netlink::new_bridge(&own, own_hardware(names))))?;
        let [inside, outside] = names.taps();
        let index = |found: io::Result<Option<u32>>| found?.ok_or_else(no_device);
        let (own, inside_index, outside_index) =
            (index(self.index_of(&own))?, index(self.index_of(&inside))?, index(self.index_of(&outside))?);
        let mut requests = vec![
            netlink::without_ipv6_address(Which::Index(own)),
            netlink::join_group(own, group),
            netlink::link_up(Which::Index(own)),
        ];
        for (tap, controller) in [(inside_index, own), (outside_index, bridge)] {
            requests.extend([
                netlink::without_ipv6_address(Which::Index(tap)),
                netlink::join_group(tap, group),
                netlink::set_queue(tap, WAITING_FRAMES),
                netlink::set_controller(tap, controller),
                netlink::link_up(Which::Index(tap)),
            ]);
        }
        requests.push(netlink::answer_for_port(Which::Name(&outside)));
        for port in known.ports.values() {
            requests.push(netlink::set_controller(port.port, own));
        }
        for some in requests.chunks(netlink::MAX_BATCH) {
            self.batch(some.to_vec())?.into_iter().collect::<io::Result<()>>()?;
        }
        // Asked for, the kernel forwards to them from now on, see `settle`.
        let ports: Vec<u32> =
            known.ports.values().map(|port| port.port).chain([inside_index, outside_index]).collect();
        for some in ports.chunks(netlink::MAX_BATCH) {
            self.batch(some.iter().map(|port| netlink::get_link(Which::Index(*port))))?;
        }
        known.apart = Some(Apart { bridge: own, outside: outside_index });
        self.behind(addresses.iter().map(|address| (outside_index, *address)).collect())
    }

    /// Tells the network's bridge behind which of its ports these addresses are.
    fn behind(&mut self, ways: Vec<(u32, Ipv4Addr)>) -> io::Result<()> {
        for some in ways.chunks(netlink::MAX_BATCH) {
            let requests =
                some.iter().map(|(port, address)| netlink::set_behind_port(*port, hardware(*address)));
            self.batch(requests)?.into_iter().collect::<io::Result<()>>()?;
        }
        Ok(())
    }

    /// Makes a pair whose one end is a parent of the node's replicas, and the other a port.
    fn node_port(
        &mut self,
        names: &Names,
        number: u32,
        bridge: u32,
        group: u32,
        apart: Option<Apart>,
    ) -> io::Result<Port> {
        let (port, parent) = (names.port(number), names.parent(number));
        let controller = apart.map_or(bridge, |apart| apart.bridge);
        allow_existing(self.request(netlink::new_parent(&port, controller, &parent, group)))?;
        let mut requests = vec![
            netlink::without_ipv6_address(Which::Name(&parent)),
            netlink::without_ipv6_address(Which::Name(&port)),
            // As for other parents.
            netlink::link_up_silent(Which::Name(&parent)),
            netlink::link_up(Which::Name(&port)),
        ];
        // In a bridge of the node's own nobody is asked for but others.
        requests.extend(apart.is_none().then(|| netlink::answer_for_port(Which::Name(&port))));
        self.batch(requests)?.into_iter().collect::<io::Result<()>>()?;
        match (self.index_of(&port)?, self.index_of(&parent)?) {
            (Some(port), Some(parent)) => Ok(Port { parent, port }),
            _ => Err(no_device()),
        }
    }

    fn remove_named(&mut self, name: &str) -> io::Result<()> {
        match self.index_of(name)? {
            Some(index) => gone_is_fine(self.request(netlink::delete_link(index))),
            None => Ok(()),
        }
    }
}

/// Which parent of its node an address is behind.
fn node_parent(network: &NetworkSpec, address: Ipv4Addr) -> u32 {
    parent_number(network, address) % NODE_PARENTS
}

/// Of a node's bridge: no replica's, whose second byte differs.
fn own_hardware(names: &Names) -> Hardware {
    let [.., a, b, c, d] = names.seed().to_ne_bytes();
    [0x02, 0x55, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_nodes_fit_and_differ() {
        let long = "a".repeat(200);
        let names = Names::new(&long, &long);
        let [x, y] = names.taps();
        let last = NODE_PARENTS - 1;
        let all = [names.port(last), names.parent(last), names.bridge(), x, y];
        assert!(all.iter().all(|name| name.len() <= 15), "{all:?}");
        assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), 5);
        assert_eq!(names.port_number(&names.port(200)), Some(200));
        assert_eq!(names.port_number(&names.parent(200)), None);
        assert_ne!(names.bridge(), Names::new(&long, "b").bridge());
        assert_ne!(Names::new("a", "bc").bridge(), Names::new("ab", "c").bridge());
    }
}
