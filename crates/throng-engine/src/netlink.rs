//! rtnetlink requests: how interfaces, addresses and routes are asked for, and a socket that sends them in batches.

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoBridge, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use std::io;
use std::net::{IpAddr, Ipv4Addr};

/// Counters of one interface as the kernel gives them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// Index of the bridge whose port it is.
    pub bridge: Option<u32>,
    pub received: u64,
    pub sent: u64,
}

/// The loopback interface of every namespace.
const LOOPBACK_INDEX: u32 = 1;

pub fn link_up(index: u32) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    RouteNetlinkMessage::SetLink(message)
}

pub fn loopback_up() -> RouteNetlinkMessage {
    link_up(LOOPBACK_INDEX)
}

/// A bridge that is up. It never waits before a port forwards, and it takes one fixed hardware address: by default a
/// bridge takes the lowest of its ports' and changes it as they come and go, which invalidates neighbours' entries.
pub fn new_bridge(name: &str, hardware: [u8; 6]) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message.attributes = vec![
        LinkAttribute::IfName(name.into()),
        LinkAttribute::Address(hardware.to_vec()),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Bridge),
            LinkInfo::Data(InfoData::Bridge(vec![InfoBridge::ForwardDelay(0)])),
        ]),
    ];
    RouteNetlinkMessage::NewLink(message)
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
    pub peer_hardware: [u8; 6],
}

pub fn new_pair(pair: &Pair) -> RouteNetlinkMessage {
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
    message.attributes = vec![
        LinkAttribute::IfName(pair.name.clone()),
        LinkAttribute::Controller(pair.bridge),
        LinkAttribute::LinkInfo(vec![
            LinkInfo::Kind(InfoKind::Veth),
            LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
        ]),
    ];
    RouteNetlinkMessage::NewLink(message)
}

pub fn get_link(index: u32) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    RouteNetlinkMessage::GetLink(message)
}

pub fn delete_link(index: u32) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    RouteNetlinkMessage::DelLink(message)
}

pub fn new_address(index: u32, address: Ipv4Addr, prefix: u8, broadcast: Ipv4Addr) -> RouteNetlinkMessage {
    let mut message = AddressMessage::default();
    message.header.family = AddressFamily::Inet;
    message.header.prefix_len = prefix;
    message.header.index = index;
    message.attributes = vec![
        AddressAttribute::Local(IpAddr::V4(address)),
        AddressAttribute::Address(IpAddr::V4(address)),
        AddressAttribute::Broadcast(broadcast),
    ];
    RouteNetlinkMessage::NewAddress(message)
}

pub fn default_route(index: u32, gateway: Ipv4Addr) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = AddressFamily::Inet;
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = RouteProtocol::Boot;
    message.header.scope = RouteScope::Universe;
    message.header.kind = RouteType::Unicast;
    message.attributes =
        vec![RouteAttribute::Gateway(RouteAddress::Inet(gateway)), RouteAttribute::Oif(index)];
    RouteNetlinkMessage::NewRoute(message)
}

/// The requests one after another, each asking for an acknowledgement, numbered from 1.
pub fn encode(requests: impl IntoIterator<Item = RouteNetlinkMessage>) -> Vec<u8> {
    let mut batch = Vec::new();
    for (number, request) in (1..).zip(requests) {
        let exclusive = matches!(
            request,
            RouteNetlinkMessage::NewLink(_)
                | RouteNetlinkMessage::NewAddress(_)
                | RouteNetlinkMessage::NewRoute(_)
        );
        let create = if exclusive { NLM_F_CREATE | NLM_F_EXCL } else { 0 };
        append(&mut batch, request, NLM_F_REQUEST | NLM_F_ACK | create, number);
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

/// A blocking rtnetlink socket of the namespace of the thread that opened it.
pub struct Connection {
    socket: Socket,
}

impl Connection {
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // The kernel repeats a failed request in its answer unless it is told not to.
        socket.set_cap_ack(true)?;
        Ok(Connection { socket })
    }

    /// Sends one request and waits for the kernel's word.
    pub fn request(&mut self, request: RouteNetlinkMessage) -> io::Result<()> {
        self.socket.send(&encode([request]), 0)?;
        loop {
            let (answer, _) = self.socket.recv_from_full()?;
            for message in messages(&answer)? {
                if let NetlinkPayload::Error(error) = message.payload {
                    return match error.code {
                        None => Ok(()),
                        Some(code) => Err(io::Error::from_raw_os_error(-code.get())),
                    };
                }
            }
        }
    }

    /// Every interface of the namespace.
    pub fn links(&mut self) -> io::Result<Vec<Link>> {
        let mut batch = Vec::new();
        let request = RouteNetlinkMessage::GetLink(LinkMessage::default());
        append(&mut batch, request, NLM_F_REQUEST | NLM_F_DUMP, 1);
        self.socket.send(&batch, 0)?;
        let mut links = Vec::new();
        loop {
            let (answer, _) = self.socket.recv_from_full()?;
            for message in messages(&answer)? {
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
}

fn read(message: LinkMessage) -> Link {
    let mut link =
        Link { index: message.header.index, name: String::new(), bridge: None, received: 0, sent: 0 };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Controller(index) => link.bridge = Some(index),
            LinkAttribute::Stats64(stats) => (link.received, link.sent) = (stats.rx_bytes, stats.tx_bytes),
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
