//! Addresses of services inside networks. Whoever calls a service by name is held there while none of its replicas is
//! ready, and always where a service may have none: its requests must be seen to wake it up.
//!
//! A service is at the gateway's address as long as nobody else has one of its ports there; otherwise it gets an address of
//! its own. What was chosen stays until the app is down, so that clients may remember it.

use crate::actor::{Current, Fixed, Handles, Order};
use crate::front::{self, Fronts, Inside};
use crate::protocol::Refusal;
use crate::spec::Prepared;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use throng_model::replica::NetworkSpec;

/// Where names are answered.
const NAMES_PORT: u16 = 53;

/// Variable of the supervisor for how many ports of one service connections are held at, and how many that is without
/// it. Each takes a thread and a socket in each of the service's networks.
pub const NAME_PORTS: &str = "THRONG_NAME_PORTS";
pub const NAME_PORTS_DEFAULT: usize = 64;

/// By the networks' own names, then by service.
pub type Addresses = BTreeMap<String, BTreeMap<String, Ipv4Addr>>;

/// Ports that are taken at the addresses of one network.
struct Claims {
    taken: BTreeSet<(Ipv4Addr, u16)>,
}

impl Claims {
    fn new(gateway: Ipv4Addr) -> Claims {
        Claims { taken: BTreeSet::from([(gateway, NAMES_PORT)]) }
    }

    /// Takes all of the ports at an address, or none if one of them is taken.
    fn claim(&mut self, address: Ipv4Addr, ports: &BTreeSet<u16>) -> bool {
        let free = ports.iter().all(|port| !self.taken.contains(&(address, *port)));
        if free {
            self.taken.extend(ports.iter().map(|port| (address, *port)));
        }
        free
    }
}

/// Opens what is not open yet, in all networks. A service for which that does not work is reached as its replicas are:
/// only when they are ready.
pub async fn open(
    fixed: &Fixed,
    handles: &Handles,
    current: &Current,
    prepared: &BTreeMap<String, Prepared>,
    fronts: &mut Fronts,
) -> Result<Addresses, Refusal> {
    let mut addresses = current.durable.service_addresses.clone();
    let networks: BTreeMap<&str, &NetworkSpec> = prepared
        .values()
        .flat_map(|prepared| &prepared.networks)
        .map(|network| (network.name.as_str(), network))
        .collect();
    let attachments = prepared.values().flat_map(|prepared| prepared.service.networks.values());
    let asked: BTreeSet<Ipv4Addr> = attachments.filter_map(|attachment| attachment.address).collect();
    for (name, network) in networks {
        let chosen = addresses.entry(name.to_owned()).or_default();
        let claims = Claims::new(network.gateway);
        let mut opening = Opening { fixed, handles, current, network, asked: &asked, claims };
        let mut services: Vec<&Prepared> = prepared.values().filter(|one| opening.is_held(one)).collect();
        // Those that have an address keep it.
        services.sort_by_key(|prepared| !chosen.contains_key(&prepared.service.name));
        for prepared in services {
            let service = &prepared.service.name;
            if let Some((address, opened)) = opening.service(prepared, chosen.get(service).copied()).await? {
                chosen.insert(service.clone(), address);
                fronts.entry(service.clone()).or_default().extend(opened);
            }
        }
    }
    Ok(addresses)
}

/// One network, while the services in it get their addresses.
struct Opening<'a> {
    fixed: &'a Fixed,
    handles: &'a Handles,
    current: &'a Current,
    network: &'a NetworkSpec,
    /// Addresses that replicas ask for.
    asked: &'a BTreeSet<Ipv4Addr>,
    claims: Claims,
}

/// Where a service is reached, and what has been opened there.
type Opened = Option<(Ipv4Addr, Vec<front::Front>)>;

impl Opening<'_> {
    /// Whether there is anything to listen on in this network for a service.
    fn is_held(&self, prepared: &Prepared) -> bool {
        let attached = prepared.networks.iter().any(|other| other.name == self.network.name);
        attached && !prepared.ports.is_empty()
    }

    /// Opens what of a service is not open yet, where it was before or at the gateway, else at an address of its own.
    async fn service(&mut self, prepared: &Prepared, known: Option<Ipv4Addr>) -> Result<Opened, Refusal> {
        let ports = self.held(prepared).await?;
        let mut candidates = known.into_iter().chain([self.network.gateway]);
        let candidate = candidates.find(|address| self.claims.claim(*address, &ports));
        let mut opened = match candidate {
            Some(address) => self.listen(prepared, &ports, address).await,
            None => Ok(None),
        };
        // The gateway is the host's, too, which may listen there itself.
        if (candidate.is_none() || opened.is_err())
            && let Some(own) = self.own_address().await?
        {
            self.claims.claim(own, &ports);
            opened = self.listen(prepared, &ports, own).await;
        }
        match opened {
            Ok(opened) => Ok(opened),
            Err(error) => {
                let message = format!("requests by name are not held in {}: {error}", self.network.name);
                self.warn(prepared, message).await?;
                Ok(None)
            }
        }
    }

    /// The ports at which connections are held: the lowest ones, where there are more than allowed.
    async fn held(&self, prepared: &Prepared) -> Result<BTreeSet<u16>, Refusal> {
        let most = self.fixed.name_ports;
        let all = prepared.ports.len();
        if all > most {
            let message = format!(
                "requests by name are held at {most} of its {all} ports in {} (hint: {NAME_PORTS}={all}, set for the \
                 command that starts its supervisor, allows all)",
                self.network.name
            );
            self.warn(prepared, message).await?;
        }
        Ok(prepared.ports.iter().take(most).copied().collect())
    }

    /// An address of this network that nobody has; `None` when it is full.
    async fn own_address(&self) -> Result<Option<Ipv4Addr>, Refusal> {
        let (network, asked) = (self.network.clone(), self.asked.clone());
        self.handles.ask(|reply| Order::Reserve { network, asked, reply }).await
    }

    async fn warn(&self, prepared: &Prepared, message: String) -> Result<(), Refusal> {
        let said = Order::Say { kind: "warning", subject: prepared.service.name.clone(), message };
        self.handles.orders.send(said).await.map_err(|_| crate::actor::taken_down())
    }

    /// Listens at all of the ports but for those that are open; `None` where nothing can be listened on.
    async fn listen(
        &self,
        prepared: &Prepared,
        ports: &BTreeSet<u16>,
        address: Ipv4Addr,
    ) -> Result<Opened, String> {
        let open = self.current.inside.get(&prepared.service.name);
        let mut opened = Vec::new();
        for port in ports {
            let inside = Inside { network: self.network.name.clone(), address, port: *port };
            if open.is_some_and(|open| open.contains(&inside)) {
                continue;
            }
            let Some(listener) = self.fixed.backend.listen_inside(self.network, address, *port).await else {
                return Ok(None);
            };
            let listener = listener.map_err(|error| format!("{address}:{port}: {error}"))?;
            let front = front::open_inside(inside, listener, self.fixed.backend.dial());
            opened.push(front.map_err(|refusal| refusal.to_string())?);
        }
        Ok(Some((address, opened)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn services_share_an_address_unless_their_ports_do() {
        let gateway = Ipv4Addr::new(10, 0, 0, 1);
        let ports = |all: &[u16]| all.iter().copied().collect::<BTreeSet<_>>();
        let mut claims = Claims::new(gateway);
        assert!(claims.claim(gateway, &ports(&[80, 81])));
        assert!(claims.claim(gateway, &ports(&[8080])));
        assert!(!claims.claim(gateway, &ports(&[53])), "names are answered there");
        assert!(!claims.claim(gateway, &ports(&[82, 81])));
        assert!(claims.claim(gateway, &ports(&[82])), "a claim that fails takes nothing");
        assert!(claims.claim(Ipv4Addr::new(10, 0, 0, 2), &ports(&[80])));
    }
}
