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
        let mut claims = Claims::new(network.gateway);
        let attached = |prepared: &&Prepared| {
            !prepared.ports.is_empty() && prepared.networks.iter().any(|other| other.name == network.name)
        };
        let mut services: Vec<&Prepared> = prepared.values().filter(attached).collect();
        // Those that have an address keep it.
        services.sort_by_key(|prepared| !chosen.contains_key(&prepared.service.name));
        for prepared in services {
            let service = &prepared.service.name;
            let known = chosen.get(service).copied();
            let mut candidates: Vec<Ipv4Addr> = known.into_iter().chain([network.gateway]).collect();
            candidates.retain(|address| claims.claim(*address, &prepared.ports));
            candidates.truncate(1);
            let mut own = None;
            let mut opened = match candidates.first() {
                Some(address) => open_all(fixed, current, network, prepared, *address).await,
                None => Ok(None),
            };
            // The gateway is the host's, too, which may listen there itself.
            if candidates.is_empty() || opened.is_err() {
                let order = |reply| Order::Reserve { network: network.clone(), asked: asked.clone(), reply };
                own = handles.ask(order).await?;
                if let Some(address) = own {
                    claims.claim(address, &prepared.ports);
                    opened = open_all(fixed, current, network, prepared, address).await;
                }
            }
            match (opened, own.or(candidates.first().copied())) {
                (Ok(Some(opened)), Some(address)) => {
                    chosen.insert(service.clone(), address);
                    fronts.entry(service.clone()).or_default().extend(opened);
                }
                (Ok(_), _) => {}
                (Err(error), _) => {
                    let subject = service.clone();
                    let message = format!("requests by name are not held in {name}: {error}");
                    let said = Order::Say { kind: "warning", subject, message };
                    handles.orders.send(said).await.map_err(|_| crate::actor::taken_down())?;
                }
            }
        }
    }
    Ok(addresses)
}

/// All ports of a service at one address, but for those that are open; `None` where nothing can be listened on.
async fn open_all(
    fixed: &Fixed,
    current: &Current,
    network: &NetworkSpec,
    prepared: &Prepared,
    address: Ipv4Addr,
) -> Result<Option<Vec<front::Front>>, String> {
    let open = current.inside.get(&prepared.service.name);
    let mut opened = Vec::new();
    for port in &prepared.ports {
        let inside = Inside { network: network.name.clone(), address, port: *port };
        if open.is_some_and(|open| open.contains(&inside)) {
            continue;
        }
        let Some(listener) = fixed.backend.listen_inside(network, address, *port).await else {
            return Ok(None);
        };
        let listener = listener.map_err(|error| format!("{address}:{port}: {error}"))?;
        let front = front::open_inside(inside, listener, fixed.backend.dial());
        opened.push(front.map_err(|refusal| refusal.to_string())?);
    }
    Ok(Some(opened))
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
