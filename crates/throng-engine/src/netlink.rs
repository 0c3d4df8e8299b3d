//! rtnetlink requests: how interfaces, addresses, routes and neighbours are asked for, and a socket that sends them in
//! batches.

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, InfoBridge, InfoBridgePort, InfoData, InfoKind, InfoMacVlan,
    InfoPortData, InfoPortKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, MacVlanMode,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::io;
use std::net::{IpAddr, Ipv4Addr};

/// What the kernel says about one interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// Index of the bridge whose port it is.
    pub bridge: Option<u32>,
}

/// A locally administered hardware address.
pub type Hardware = [u8; 6];

/// The loopback interface of every namespace.
const LOOPBACK_INDEX: u32 = 1;
/// Bytes of answers taken at a time; an acknowledgement has 36, a description of a link about 1,500.
const ANSWER: usize = 32 << 10;
/// Requests of one batch: their acknowledgements must fit the socket's buffer (`net.core.rmem_default`, which charges
/// 768 bytes for each).
pub const MAX_BATCH: usize = 64;

/// One request, with what may be there before.
#[derive(Debug, Clone)]
pub struct Request {
    message: RouteNetlinkMessage,
    flags: u16,
}

impl Request {
    /// Makes something that must not exist.
    pub(super) fn make(message: RouteNetlinkMessage) -> Self {
        Request { message, flags: NLM_F_CREATE | NLM_F_EXCL }
    }

    /// Makes something, or changes what exists.
    fn set(message: RouteNetlinkMessage) -> Self {
        Request { message, flags: NLM_F_CREATE | NLM_F_REPLACE }
    }

    /// Changes, removes or asks for something that exists.
    pub(super) fn change(message: RouteNetlinkMessage) -> Self {
        Request { message, flags: 0 }
    }
}

/// An interface by its index, or by its name where the index is not known yet.
#[derive(Debug, Clone)]
pub enum Which<'a> {
    Index(u32),
    Name(&'a str),
}

fn which(which: Which<'_>) -> LinkMessage {
    let mut message = LinkMessage::default();
    match which {
        Which::Index(index) => message.header.index = index,
        Which::Name(name) => message.attributes.push(LinkAttribute::IfName(name.into())),
    }
    message
}

pub fn link_up(link: Which<'_>) -> Request {
    with_flags(link, LinkFlags::Up)
}

/// Brings the interface up as one that neither asks nor answers for addresses.
pub fn link_up_silent(link: Which<'_>) -> Request {
    with_flags(link, LinkFlags::Up | LinkFlags::Noarp)
}

fn with_flags(link: Which<'_>, flags: LinkFlags) -> Request {
    let mut message = which(link);
    message.header.flags = flags;
    message.header.change_mask = flags;
    Request::change(RouteNetlinkMessage::SetLink(message))
}

pub fn loopback_up() -> Request {
    link_up(Which::Index(LOOPBACK_INDEX))
}

/// Keeps the interface from giving itself an IPv6 address when it comes up. Each one would announce its address, its
/// groups and its wish for routers to everybody: half a dozen frames for every replica to every other.
pub fn without_ipv6_address(link: Which<'_>) -> Request {
    let mut message = which(link);
    message.attributes.push(LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(vec![
        AfSpecInet6::AddrGenMode(In6AddrGenMode::None),
    ])]));
    Request::change(RouteNetlinkMessage::SetLink(message))
}

/// A bridge, down. It never waits before a port forwards, floods every group to everybody, and takes one fixed hardware
/// address: by default a bridge takes the lowest of its ports' and changes it as they come and go, which invalidates
/// neighbours' entries.
pub fn new_bridge(name: &str, hardware: Hardware) -> Request {
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(name.into()),
        LinkAttribute::Address(hardware.to_vec()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Bridge),
            LinkInfo::Data(InfoData::Bridge(vec![
                InfoBridge::ForwardDelay(0),
                InfoBridge::MulticastSnooping(false),
            ])),
        ]),
    ];
    Request::make(RouteNetlinkMessage::NewLink(message))
}

/// A pair of interfaces: one here as a port of a bridge, one in the namespace of process
/// `pid`. This one is up; the kernel refuses to bring up the other before the pair is complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    pub name: String,
    /// The kernel honours the peer's only if this one is given too.
    pub index: u32,
    pub bridge: u32,
    pub pid: u32,
    pub peer_name: String,
    /// Chosen by us, so that requests about it can be prepared before it exists.
    pub peer_index: u32,
    pub peer_hardware: Hardware,
}

pub fn new_pair(pair: &Pair) -> Request {
    let mut peer = LinkMessage::default();
    peer.header.index = pair.peer_index;
    peer.attributes = vec![
        LinkAttribute::IfName(pair.peer_name.clone()),
        LinkAttribute::NetNsPid(pair.pid),
        LinkAttribute::Address(pair.peer_hardware.to_vec()),
    ];
    let mut message = LinkMessage::default();
    message.header.index = pair.index;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message.attributes =
        vec![LinkAttribute::IfName(pair.name.clone()), LinkAttribute::Controller(pair.bridge), veth(peer)];
    Request::make(RouteNetlinkMessage::NewLink(message))
}

fn veth(peer: LinkMessage) -> LinkAttribute {
    LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
    ])
}

/// A pair of interfaces that both stay here, down: one a port of the bridge. The group is what both are removed by.
pub fn new_parent(port: &str, bridge: u32, parent: &str, group: u32) -> Request {
    let mut peer = LinkMessage::default();
    peer.attributes = vec![LinkAttribute::IfName(parent.into())];
    let mut message = LinkMessage::default();
    message.attributes = vec![
        LinkAttribute::IfName(port.into()),
        LinkAttribute::Controller(bridge),
        LinkAttribute::Group(group),
        veth(peer),
    ];
    Request::make(RouteNetlinkMessage::NewLink(message))
}

/// Has the bridge itself answer on this port's behalf when an address is asked for that it knows (its permanent
/// neighbours), instead of asking everybody behind the port.
pub fn answer_for_port(port: Which<'_>) -> Request {
    let mut message = which(port);
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::PortKind(InfoPortKind::Bridge),
        LinkInfo::PortData(InfoPortData::BridgePort(vec![InfoBridgePort::ProxyARPWifi(true)])),
    ]));
    Request::change(RouteNetlinkMessage::NewLink(message))
}

/// An interface of its own hardware address behind `parent`, in the namespace of process `pid`; the others behind that
/// parent reach it directly.
pub fn new_macvlan(parent: u32, pid: u32, name: &str, index: u32, hardware: Hardware) -> Request {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.attributes = vec![
        LinkAttribute::IfName(name.into()),
        LinkAttribute::Link(parent),
        LinkAttribute::NetNsPid(pid),
        LinkAttribute::Address(hardware.to_vec()),
        macvlan(),
    ];
    Request::make(RouteNetlinkMessage::NewLink(message))
}

fn macvlan() -> LinkAttribute {
    LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::MacVlan),
        LinkInfo::Data(InfoData::MacVlan(vec![InfoMacVlan::Mode(MacVlanMode::Bridge)])),
    ])
}

/// A request that no kernel can fulfil: one that knows such interfaces misses the parent (`EINVAL`), another one does
/// not know the kind (`EOPNOTSUPP`).
pub fn macvlan_without_parent() -> Request {
    let mut message = LinkMessage::default();
    message.attributes = vec![macvlan()];
    Request::make(RouteNetlinkMessage::NewLink(message))
}

pub fn get_link(link: Which<'_>) -> Request {
    Request::change(RouteNetlinkMessage::GetLink(which(link)))
}

pub fn delete_link(index: u32) -> Request {
    Request::change(RouteNetlinkMessage::DelLink(which(Which::Index(index))))
}

/// Removes all interfaces of a group at once, which costs hardly more than one.
pub fn delete_group(group: u32) -> Request {
    let mut message = LinkMessage::default();
    message.attributes = vec![LinkAttribute::Group(group)];
    Request::change(RouteNetlinkMessage::DelLink(message))
}

pub fn join_group(index: u32, group: u32) -> Request {
    let mut message = which(Which::Index(index));
    message.attributes = vec![LinkAttribute::Group(group)];
    Request::change(RouteNetlinkMessage::SetLink(message))
}

/// Makes an interface a port of that bridge, and of no other one.
pub fn set_controller(index: u32, bridge: u32) -> Request {
    let mut message = which(Which::Index(index));
    message.attributes = vec![LinkAttribute::Controller(bridge)];
    Request::change(RouteNetlinkMessage::SetLink(message))
}

/// Frames that may wait in an interface to be sent.
pub fn set_queue(index: u32, frames: u32) -> Request {
    let mut message = which(Which::Index(index));
    message.attributes = vec![LinkAttribute::TxQueueLen(frames)];
    Request::change(RouteNetlinkMessage::SetLink(message))
}

pub fn new_address(index: u32, address: Ipv4Addr, prefix: u8, broadcast: Ipv4Addr) -> Request {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = prefix;
    message.header.index = index;
    message.attributes = vec![
        AddressAttribute::Local(IpAddr::V4(address)),
        AddressAttribute::Address(IpAddr::V4(address)),
        AddressAttribute::Broadcast(broadcast),
    ];
    Request::make(RouteNetlinkMessage::NewAddress(message))
}

/// One more address of this host alone.
pub fn new_host_address(index: u32, address: Ipv4Addr) -> Request {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = 32;
    message.header.index = index;
    message.attributes =
        vec![AddressAttribute::Local(IpAddr::V4(address)), AddressAttribute::Address(IpAddr::V4(address))];
    Request::make(RouteNetlinkMessage::NewAddress(message))
}

pub fn default_route(index: u32, gateway: Ipv4Addr) -> Request {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Boot;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message.attributes =
        vec![RouteAttribute::Gateway(RouteAddress::Inet(gateway)), RouteAttribute::Oif(index)];
    Request::make(RouteNetlinkMessage::NewRoute(message))
}

/// Tells for good where an address is. Nobody need be asked then, and the kernel does not count such an entry against
/// `net.ipv4.neigh.default.gc_thresh3`.
pub fn set_neighbour(index: u32, address: Ipv4Addr, hardware: Hardware) -> Request {
    let mut message = neighbour(index, address);
    message.header.state = NeighbourState::Permanent;
    message.attributes.push(NeighbourAttribute::LinkLayerAddress(hardware.to_vec()));
    Request::set(RouteNetlinkMessage::NewNeighbour(message))
}

pub fn delete_neighbour(index: u32, address: Ipv4Addr) -> Request {
    Request::change(RouteNetlinkMessage::DelNeighbour(neighbour(index, address)))
}

fn neighbour(index: u32, address: Ipv4Addr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.ifindex = index;
    message.attributes = vec![NeighbourAttribute::Destination(NeighbourAddress::Inet(address))];
    message
}

/// Tells a bridge for good behind which port a hardware address is.
pub fn set_behind_port(port: u32, hardware: Hardware) -> Request {
    Request::set(RouteNetlinkMessage::NewNeighbour(behind_port(port, hardware)))
}

pub fn delete_behind_port(port: u32, hardware: Hardware) -> Request {
    Request::change(RouteNetlinkMessage::DelNeighbour(behind_port(port, hardware)))
}

fn behind_port(port: u32, hardware: Hardware) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = port;
    message.header.flags = NeighbourFlags::Controller;
    // Neither learned nor the bridge's own.
    message.header.state = NeighbourState::Noarp;
    message.attributes = vec![NeighbourAttribute::LinkLayerAddress(hardware.to_vec())];
    message
}

/// The requests one after another, each asking for an acknowledgement, numbered from `first`.
pub fn encode(first: u32, requests: impl IntoIterator<Item = Request>) -> Vec<u8> {
    let mut batch = Vec::new();
    for (place, request) in (0..).zip(requests) {
        let number = first.wrapping_add(place);
        append(&mut batch, request.message, NLM_F_REQUEST | NLM_F_ACK | request.flags, number);
    }
    batch
}

fn append(batch: &mut Vec<u8>, request: RouteNetlinkMessage, flags: u16, number: u32) {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header.sequence_number = number;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request));
    message.finalize();
    let start = batch.len();
    batch.resize(start + message.buffer_len().next_multiple_of(4), 0);
    message.serialize(&mut batch[start..]);
}

/// A blocking rtnetlink socket of the namespace of the thread that opened it, wherever it is used.
pub struct Connection {
    socket: Socket,
    answer: Vec<u8>,
    /// Number of the next request. Answers to others, whose sender met an error while it waited, are passed over.
    next: u32,
}

impl Connection {
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // The kernel repeats a failed request in its answer unless it is told not to.
        socket.set_cap_ack(true)?;
        Ok(Connection { socket, answer: vec![0; ANSWER], next: 1 })
    }

    /// Sends one request and waits for the kernel's word.
    pub fn request(&mut self, request: Request) -> io::Result<()> {
        self.batch([request])?.pop().unwrap_or(Ok(()))
    }

    /// Sends up to [`MAX_BATCH`] requests at once and waits for the kernel's word about each, in their order. The kernel
    /// goes on after one that fails.
    pub fn batch(&mut self, requests: impl IntoIterator<Item = Request>) -> io::Result<Vec<io::Result<()>>> {
        let requests: Vec<Request> = requests.into_iter().collect();
        if requests.len() > MAX_BATCH {
            return Err(io::Error::other(format!("more than {MAX_BATCH} requests in a batch")));
        }
        let (first, wanted) = (self.next, requests.len());
        self.send(requests)?;
        let mut results = Vec::with_capacity(wanted);
        while results.len() < wanted {
            for message in self.receive(first)? {
                if let NetlinkPayload::Error(error) = message.payload {
                    results.push(match error.code {
                        None => Ok(()),
                        Some(code) => Err(io::Error::from_raw_os_error(-code.get())),
                    });
                }
            }
        }
        Ok(results)
    }

    /// The index of an interface; `None` if there is none of that name.
    pub fn index_of(&mut self, name: &str) -> io::Result<Option<u32>> {
        let first = self.next;
        self.send(vec![get_link(Which::Name(name))])?;
        let mut index = None;
        loop {
            for message in self.receive(first)? {
                match message.payload {
                    NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
                        index = Some(link.header.index);
                    }
                    NetlinkPayload::Error(error) => {
                        return match error.code.map(|code| -code.get()) {
                            None => Ok(index),
                            Some(libc::ENODEV) => Ok(None),
                            Some(code) => Err(io::Error::from_raw_os_error(code)),
                        };
                    }
                    _ => {}
                }
            }
        }
    }

    /// Every interface of the namespace.
    pub fn links(&mut self) -> io::Result<Vec<Link>> {
        let (first, mut batch) = (self.next, Vec::new());
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        append(&mut batch, request, NLM_F_REQUEST | NLM_F_DUMP, first);
        self.next = first.wrapping_add(1);
        self.socket.send(&batch, 0)?;
        let mut links = Vec::new();
        loop {
            for message in self.receive(first)? {
                match message.payload {
                    NetlinkPayload::Done(_) => return Ok(links),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
                        links.push(read(link))
                    }
                    _ => {}
                }
            }
        }
    }

    /// IPv4 addresses of an interface, with the lengths of their prefixes.
    pub fn addresses(&mut self, index: u32) -> io::Result<Vec<(Ipv4Addr, u8)>> {
        let all = self.all_addresses()?;
        let own = all.into_iter().filter(|(of, ..)| *of == index);
        Ok(own.map(|(_, address, length)| (address, length)).collect())
    }

    /// The interface that has an address.
    pub fn owner_of(&mut self, address: Ipv4Addr) -> io::Result<Option<u32>> {
        let all = self.all_addresses()?;
        Ok(all.into_iter().find(|(_, found, _)| *found == address).map(|(index, ..)| index))
    }

    /// Index of the interface, address and length of its prefix.
    fn all_addresses(&mut self) -> io::Result<Vec<(u32, Ipv4Addr, u8)>> {
        let (first, mut batch) = (self.next, Vec::new());
        let mut wanted = AddressMessage::default();
        wanted.header.family = AddressFamily::Inet;
        append(&mut batch, RouteNetlinkMessage::GetAddress(wanted), NLM_F_REQUEST | NLM_F_DUMP, first);
        self.next = first.wrapping_add(1);
        self.socket.send(&batch, 0)?;
        let mut addresses = Vec::new();
        loop {
            for message in self.receive(first)? {
                match message.payload {
                    NetlinkPayload::Done(_) => return Ok(addresses),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewAddress(found)) => {
                        let local = found.attributes.iter().find_map(|attribute| match attribute {
                            AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
                            _ => None,
                        });
                        let of = found.header.index;
                        addresses.extend(local.map(|address| (of, address, found.header.prefix_len)));
                    }
                    _ => {}
                }
            }
        }
    }

    fn send(&mut self, requests: Vec<Request>) -> io::Result<()> {
        let (first, count) = (self.next, requests.len());
        self.next = first.wrapping_add(count as u32);
        self.socket.send(&encode(first, requests), 0).map(drop)
    }

    /// The next answers to requests from number `first` on.
    fn receive(&mut self, first: u32) -> io::Result<Vec<NetlinkMessage<RouteNetlinkMessage>>> {
        let length = self.socket.recv(&mut &mut self.answer[..], libc::MSG_TRUNC)?;
        let answer = self.answer.get(..length);
        let mut found =
            messages(answer.ok_or_else(|| io::Error::other(format!("an answer of {length} bytes")))?)?;
        let sent = self.next.wrapping_sub(first);
        found.retain(|message| message.header.sequence_number.wrapping_sub(first) < sent);
        Ok(found)
    }
}

fn read(message: LinkMessage) -> Link {
    let mut link = Link { index: message.header.index, name: String::new(), bridge: None };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Controller(index) => link.bridge = Some(index),
            _ => {}
        }
    }
    link
}

fn messages(mut rest: &[u8]) -> io::Result<Vec<NetlinkMessage<RouteNetlinkMessage>>> {
    let mut found = Vec::new();
    while rest.len() >= 16 {
        let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
            .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))?;
        let length = (message.header.length as usize).next_multiple_of(4).max(16);
        found.push(message);
        rest = rest.get(length..).unwrap_or_default();
    }
    Ok(found)
}
