//! What clients of a service see: its published ports and its service address. Only ready replicas are ever handed to
//! the balancer.

use crate::protocol::{Refusal, RefusalKind};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use throng_model::app::{Port, Protocol};
use throng_proxy::{Backend, Dial, Limits, ProtocolHint, Proxy, ProxyConfig};

/// A service's front doors, by target port.
pub type Fronts = BTreeMap<String, Vec<Front>>;

pub struct Front {
    /// As the app says it; `None` for a service address that was made on request, and inside a network.
    pub port: Option<Port>,
    /// For whoever calls the service by name.
    pub inside: Option<Inside>,
    pub target: u16,
    pub proxy: Arc<Proxy>,
}

/// Where a service is to be reached in a network, beside its replicas.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Inside {
    pub network: String,
    pub address: Ipv4Addr,
    pub port: u16,
}

impl Front {
    /// The port inside the replicas and that of the host, if the kernel chose the latter for a published port.
    pub fn chosen(&self) -> Option<(u16, u16)> {
        let chosen = self.port.as_ref().is_some_and(|port| port.published.is_none());
        chosen.then(|| (self.target, self.proxy.local_addr().port()))
    }
}

/// Closes the front doors of ports that are published no more. Service addresses stay.
pub fn keep(fronts: &mut Vec<Front>, ports: &[Port]) {
    fronts.retain(|front| front.port.as_ref().is_none_or(|port| ports.contains(port)));
}

/// Binds front doors for those of a service's published ports that none is open for. One that the kernel chose earlier is
/// had again, unless somebody else has taken it meanwhile: then any other one is as good.
pub fn open_new<'a>(
    ports: &'a [Port],
    is_open: impl Fn(&Port) -> bool + 'a,
    chosen: Option<&'a BTreeMap<u16, u16>>,
    dial: Dial,
) -> impl Iterator<Item = Result<Front, Refusal>> + 'a {
    let missing = move |(_, port): &(usize, &Port)| port.protocol == Protocol::Tcp && !is_open(port);
    ports.iter().enumerate().filter(missing).map(move |(seed, port)| {
        let bind = |at: Option<u16>| open(port, at, seed as u64, dial.clone());
        let before = chosen.filter(|_| port.published.is_none()).and_then(|chosen| chosen.get(&port.target));
        before.and_then(|at| bind(Some(*at)).ok()).map_or_else(|| bind(port.published), Ok)
    })
}

/// Binds one front door at the given port of the host, or one that the kernel chooses. Loopback unless the file names an
/// address: nothing listens further unasked.
fn open(port: &Port, at: Option<u16>, seed: u64, dial: Dial) -> Result<Front, Refusal> {
    let address = port.host_ip.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let listen = SocketAddr::new(address, at.unwrap_or(0));
    let protocol = match port.app_protocol.as_deref() {
        Some("http" | "http1" | "http/1.1") => ProtocolHint::Http,
        Some("http2" | "grpc" | "h2c" | "kubernetes.io/h2c") => ProtocolHint::Http2,
        Some("tcp") => ProtocolHint::Tcp,
        _ => ProtocolHint::Detect,
    };
    let config = ProxyConfig { listen, protocol, limits: Limits::default(), seed };
    let proxy = Proxy::bind(config, Some(dial)).map_err(|error| {
        Refusal::new(RefusalKind::Host, format!("cannot listen on {listen}: {error}")).hint(format!(
            "see who has the port with `ss -ltnp sport = :{}`, or publish another one",
            listen.port()
        ))
    })?;
    Ok(Front { port: Some(port.clone()), inside: None, target: port.target, proxy: Arc::new(proxy) })
}

/// A front door at a socket that listens inside a network.
pub fn open_inside(inside: Inside, listener: TcpListener, dial: Dial) -> Result<Front, Refusal> {
    let listen = SocketAddr::new(IpAddr::V4(inside.address), inside.port);
    // An app may have hundreds of these, most of them idle: one thread each.
    let limits = Limits { workers: 1, ..Limits::default() };
    let config = ProxyConfig { limits, ..ProxyConfig::new(listen) };
    let proxy = Proxy::serve(listener, config, Some(dial)).map_err(|error| {
        Refusal::new(RefusalKind::Host, format!("cannot listen on {listen} in {}: {error}", inside.network))
    })?;
    Ok(Front { port: None, target: inside.port, inside: Some(inside), proxy: Arc::new(proxy) })
}

/// A front door on a free loopback port, for a port that the app does not publish.
pub fn open_private(target: u16, seed: u64, dial: Dial) -> Result<Front, Refusal> {
    let port = Port { host_ip: None, published: None, target, protocol: Protocol::Tcp, app_protocol: None };
    Ok(Front { port: None, ..open(&port, None, seed, dial)? })
}

/// Ready replicas of one service as (ordinal, first address).
pub fn set_backends(fronts: &[Front], service: &str, ready: &[(u32, Ipv4Addr)]) {
    for front in fronts {
        let backends = ready.iter().map(|(ordinal, address)| Backend {
            name: format!("{service}-{ordinal}"),
            address: SocketAddr::new(IpAddr::V4(*address), front.target),
        });
        front.proxy.set_backends(backends.collect());
    }
}
