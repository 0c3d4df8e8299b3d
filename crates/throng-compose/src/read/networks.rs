//! Networks, their address ranges, and the addresses that services ask for there.

use super::{DEFAULT_NETWORK, Declared, names};
use crate::keys::Section;
use crate::yaml::{Entry, Findings, Node, Position, Value};
use ipnet::Ipv4Net;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::{Ipv4Addr, Ipv6Addr};
use throng_model::app::{App, Network, NetworkAttachment, Place};
use throng_model::diagnostic::Diagnostic;
use throng_model::update::{UpdateOrder, UpdatePolicy};

/// Smallest subnet that holds the bridge, one replica, network and broadcast address.
const LONGEST_PREFIX: u8 = 30;

pub(super) fn read(entry: &Entry, project: &str, findings: &mut Findings) -> Network {
    let mut network = Network::default();
    if entry.value.is_null() {
        return network;
    }
    let Some(mut section) = Section::open("networks.*", &entry.value, findings) else { return network };
    network.internal = section.take("internal").and_then(|node| node.boolean(findings)).unwrap_or_default();
    // Networks have no name outside their project here, so only the name they would have anyway says nothing new.
    section.accept("name", &format!("{project}_{}", entry.key), &entry.value);
    network.labels = section.take("labels").and_then(|node| node.text_map(findings)).unwrap_or_default();
    if let Some(ipam) = section.take("ipam") {
        read_ipam(ipam, &mut network, findings);
    }
    section.close(findings);
    network
}

fn read_ipam(node: &Node, network: &mut Network, findings: &mut Findings) {
    let Some(mut ipam) = Section::open("networks.*.ipam", node, findings) else { return };
    let config = ipam.take("config");
    ipam.close(findings);
    for (index, item) in config.and_then(|node| node.list(findings)).unwrap_or_default().iter().enumerate() {
        let Some(mut section) = Section::open("networks.*.ipam.config.*", item, findings) else { continue };
        let subnet = section.take("subnet");
        let (range, gateway) = (section.take("ip_range"), section.take("gateway"));
        let reserved = section.take("aux_addresses");
        section.close(findings);
        if index > 0 {
            findings.warn(&item.position, "only the first address range of a network is honoured yet");
            continue;
        }
        network.subnet = subnet.and_then(|node| read_subnet(node, findings));
        network.subnet_at = Place(subnet.map(|node| node.position.location().to_string()));
        let within = Within { subnet: network.subnet, said: subnet.is_some() };
        network.gateway = gateway.and_then(|node| within.address("gateway", node, findings));
        network.range = range.and_then(|node| within.range(node, findings));
        for entry in reserved.and_then(|node| node.map(findings)).unwrap_or_default() {
            let address = within.address(&entry.key, &entry.value, findings);
            network.reserved.extend(address.map(|address| (entry.key.clone(), address)));
        }
        if let (Some(gateway), Some(node)) = (network.gateway, reserved)
            && let Some((name, _)) = network.reserved.iter().find(|(_, address)| **address == gateway)
        {
            let message = format!("{name:?} is to have {gateway}, which is the gateway's");
            findings.error_with_hint(&node.position, message, "give one of them another address");
        }
    }
}

fn read_subnet(node: &Node, findings: &mut Findings) -> Option<Ipv4Net> {
    let text = node.text(findings)?;
    if text.parse::<ipnet::Ipv6Net>().is_ok() {
        findings.warn(&node.position, "IPv6 subnets are not honoured yet");
        return None;
    }
    let net = parse_net("a subnet", text, node, findings)?;
    if net.prefix_len() > LONGEST_PREFIX {
        findings.error(&node.position, format!("{text:?} is too small; /{LONGEST_PREFIX} is the smallest"));
        return None;
    }
    Some(net)
}

fn parse_net(what: &str, text: &str, node: &Node, findings: &mut Findings) -> Option<Ipv4Net> {
    let Ok(net) = text.parse::<Ipv4Net>() else {
        findings.error(&node.position, format!("{text:?} is not {what}; write one like 172.28.0.0/16"));
        return None;
    };
    if net.trunc() != net {
        let message = format!("{text:?} has bits set beyond its prefix; {what} is {}", net.trunc());
        findings.error(&node.position, message);
        return None;
    }
    Some(net)
}

/// What addresses of a network must be in.
struct Within {
    /// `None` also if what was said of it is wrong.
    subnet: Option<Ipv4Net>,
    said: bool,
}

impl Within {
    fn needs_subnet(&self, what: impl Display, node: &Node, findings: &mut Findings) -> Option<Ipv4Net> {
        if !self.said {
            let hint = "add a subnet: beside it, such as 172.28.0.0/16";
            findings.error_with_hint(&node.position, format!("{what} without a subnet that it is in"), hint);
        }
        self.subnet
    }

    fn address(&self, what: &str, node: &Node, findings: &mut Findings) -> Option<Ipv4Addr> {
        let text = node.nonempty(findings)?;
        if text.parse::<Ipv6Addr>().is_ok() {
            findings.warn(&node.position, "IPv6 addresses are not honoured yet");
            return None;
        }
        let Ok(address) = text.parse::<Ipv4Addr>() else {
            node.mismatch("an IPv4 address such as 172.28.0.5", findings);
            return None;
        };
        let subnet = self.needs_subnet(format_args!("the address {address} of {what}"), node, findings)?;
        is_of(address, subnet, &node.position, findings).then_some(address)
    }

    fn range(&self, node: &Node, findings: &mut Findings) -> Option<Ipv4Net> {
        let range = parse_net("a range", node.nonempty(findings)?, node, findings)?;
        let subnet = self.needs_subnet(format_args!("the range {range}"), node, findings)?;
        if !subnet.contains(&range) {
            let hint = "write a part of the subnet";
            findings.error_with_hint(&node.position, format!("{range} is not in the subnet {subnet}"), hint);
            return None;
        }
        Some(range)
    }
}

/// Whether a replica or the host can have that address of the subnet.
fn is_of(address: Ipv4Addr, subnet: Ipv4Net, at: &Position, findings: &mut Findings) -> bool {
    let hint = || {
        let mut hosts = subnet.hosts();
        let (first, last) = (hosts.next(), hosts.last());
        first.zip(last).map_or_else(String::new, |(first, last)| format!("take one from {first} to {last}"))
    };
    if !subnet.contains(&address) {
        findings.error_with_hint(at, format!("{address} is not in the subnet {subnet}"), hint());
        return false;
    }
    if address == subnet.network() || address == subnet.broadcast() {
        let message = format!("{address} stands for all of {subnet} and can be nobody's own");
        findings.error_with_hint(at, message, hint());
        return false;
    }
    true
}

/// What a service says of the networks that it is in.
pub(super) fn attachments(
    node: &Node,
    declared: &Declared,
    findings: &mut Findings,
) -> BTreeMap<String, NetworkAttachment> {
    let mut networks = BTreeMap::new();
    for entry in node.map(findings).unwrap_or_default() {
        let mut attachment = NetworkAttachment::default();
        let network = declared.networks.get(&entry.key);
        if !entry.value.is_null() {
            let path = "services.*.networks.*";
            let Some(mut section) = Section::open(path, &entry.value, findings) else { continue };
            if let Some(node) = section.take("aliases") {
                attachment.aliases = node.texts(findings).unwrap_or_default();
                for alias in attachment.aliases.iter().filter(|alias| !names::is_host(alias)) {
                    findings.error(&node.position, format!("{alias:?} is not a host name"));
                }
            }
            if let Some(node) = section.take("ipv4_address") {
                attachment.address = own_address(node, &entry.key, network, findings);
            }
            section.close(findings);
        }
        if entry.key == DEFAULT_NETWORK || network.is_some() {
            networks.insert(entry.key.clone(), attachment);
        } else {
            let names = declared.networks.keys().map(String::as_str);
            super::service::unknown("network", &entry.key, names, "networks", &entry.key_at, findings);
        }
    }
    networks
}

fn own_address(
    node: &Node,
    key: &str,
    network: Option<&Network>,
    findings: &mut Findings,
) -> Option<Ipv4Addr> {
    let Ok(address) = node.nonempty(findings)?.parse::<Ipv4Addr>() else {
        node.mismatch("an IPv4 address such as 172.28.0.5", findings);
        return None;
    };
    let network = match network {
        Some(network) if network.subnet_at.0.is_some() => network,
        _ => {
            let message = format!("an address in the network {key}, which has no subnet of its own");
            let hint = format!("add networks: {{{key}: {{ipam: {{config: [{{subnet: 172.28.0.0/16}}]}}}}}}");
            findings.error_with_hint(&node.position, message, hint);
            return None;
        }
    };
    // One that is wrong has been told already.
    let subnet = network.subnet?;
    if !is_of(address, subnet, &node.position, findings) {
        return None;
    }
    if network.gateway.or(subnet.hosts().next()) == Some(address) {
        let message = format!("{address} is the address of this host in the network {key}");
        findings.error_with_hint(&node.position, message, "take another one, or give the network a gateway:");
        return None;
    }
    if let Some((name, _)) = network.reserved.iter().find(|(_, reserved)| **reserved == address) {
        let message = format!("{address} is kept for {name:?} in the network {key}");
        findings.error_with_hint(
            &node.position,
            message,
            "take another one, or remove it from aux_addresses",
        );
        return None;
    }
    Some(address)
}

/// An address is one replica's alone.
pub(super) fn check_addresses(services: &Node, app: &App, findings: &mut Findings) {
    let mut holders: BTreeMap<(&str, Ipv4Addr), (&str, &Position)> = BTreeMap::new();
    let Value::Map(entries) = &services.value else { return };
    let said: BTreeMap<&str, &Node> =
        entries.iter().map(|entry| (entry.key.as_str(), &entry.value)).collect();
    for (name, service) in &app.services {
        for (key, attachment) in &service.networks {
            let Some(address) = attachment.address else { continue };
            let node = said.get(name.as_str());
            let Some(node) = node.and_then(|node| node.get("networks")?.get(key)?.get("ipv4_address")) else {
                continue;
            };
            let at = &node.position;
            check_is_ones(name, service, address, at, findings);
            match holders.get(&(key.as_str(), address)) {
                None => drop(holders.insert((key, address), (name, at))),
                Some((holder, holder_at)) => findings.push(
                    Diagnostic::error(format!("{holder} and {name} are both to have {address} in {key}"))
                        .at(at.location())
                        .related(holder_at.location(), format!("{holder} has it here"))
                        .hint("give one of them another address"),
                ),
            }
        }
    }
}

/// Refuses an address of a service that may have several replicas at the same time.
fn check_is_ones(
    name: &str,
    service: &throng_model::app::Service,
    address: Ipv4Addr,
    at: &Position,
    findings: &mut Findings,
) {
    let first = |policy: &Option<UpdatePolicy>| {
        policy.as_ref().is_some_and(|policy| policy.order == UpdateOrder::StartFirst)
    };
    let (message, hint) = if service.replicas > 1 {
        (format!("{} replicas of {name} cannot all have {address}", service.replicas), "have one replica")
    } else if service.autoscale.is_some() {
        (format!("{name} is autoscaled, and its replicas cannot all have {address}"), "remove autoscale")
    } else if service.placement.on_each {
        (
            format!("{name} has a replica on each node, and they cannot all have {address}"),
            "remove mode: global",
        )
    } else if first(&service.update) || first(&service.rollback) {
        (
            format!(
                "with start-first two replicas of {name} are there at a time, which cannot both have {address}"
            ),
            "write order: stop-first",
        )
    } else {
        return;
    };
    findings.error_with_hint(
        at,
        message,
        format!("{hint}, or remove ipv4_address and use the service's name"),
    );
}
