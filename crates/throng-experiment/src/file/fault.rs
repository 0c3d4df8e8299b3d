//! What is done to an app on purpose: nodes cut off, slowed down and healed, replicas killed.

use super::Keys;
use super::stage::read_service;
use crate::schema::{self, Group};
use std::time::Duration;
use throng_compose::yaml::{Findings, Node, nearest};
use throng_model::app::App;
use throng_model::node::{BANDWIDTH, LinkChange, MAX_LATENCY, NodeChange, NodeChoice};
use throng_model::units;

/// The keys of which each is a fault.
pub(super) const FAULTS: [&str; 4] = ["cut", "slow", "heal", "kill"];

/// A fault, or the end of one.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    Nodes {
        choice: NodeChoice,
        change: NodeChange,
    },
    Kill {
        service: String,
        /// Of the running replicas, 0 to 1.
        share: f64,
    },
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Fault::Nodes { choice, change: NodeChange::Link(link) } => match link.up {
                Some(false) => write!(f, "cut {choice} off"),
                _ => write!(f, "slow {choice} down"),
            },
            Fault::Nodes { choice, change: NodeChange::Heal } => write!(f, "heal {choice}"),
            Fault::Nodes { choice, .. } => write!(f, "drain {choice}"),
            Fault::Kill { service, share } => write!(f, "kill {:.0} % of {service}", share * 100.0),
        }
    }
}

/// Faults at times after a load has begun.
pub(super) fn read_during(node: &Node, app: &App, findings: &mut Findings) -> Vec<(Duration, Fault)> {
    let mut faults = Vec::new();
    for item in node.list(findings).unwrap_or_default() {
        let Some(mut keys) = Keys::open(&schema::DURING, item, findings) else { continue };
        let at = keys.duration("at", findings);
        if item.get("at").is_none_or(Node::is_null) {
            findings.error_with_hint(&item.position, "a fault without a time", "add at: such as 10s");
        }
        let given: Vec<&'static str> = FAULTS.into_iter().filter(|key| item.get(key).is_some()).collect();
        let value = given.first().and_then(|key| keys.take(key).map(|node| (*key, node)));
        let several = given.len() != 1;
        if several {
            let hint = format!("give one of {}", FAULTS.join(", "));
            findings.error_with_hint(&item.position, "each entry is one fault", hint);
            continue;
        }
        keys.close(findings);
        let fault = value.and_then(|(key, node)| read(key, node, app, findings));
        faults.extend(at.zip(fault));
    }
    faults.sort_by_key(|(at, _)| *at);
    faults
}

/// The fault of that key.
pub(super) fn read(key: &str, node: &Node, app: &App, findings: &mut Findings) -> Option<Fault> {
    match key {
        "cut" => read_nodes(&schema::NODES, node, app, findings, |_, _| Some(NodeChange::cut())),
        "heal" => read_nodes(&schema::NODES, node, app, findings, |_, _| Some(NodeChange::Heal)),
        "slow" => read_nodes(&schema::SLOW, node, app, findings, read_link),
        _ => read_kill(node, app, findings),
    }
}

fn read_nodes(
    group: &'static Group,
    node: &Node,
    app: &App,
    findings: &mut Findings,
    change: impl FnOnce(&mut Keys<'_>, &mut Findings) -> Option<NodeChange>,
) -> Option<Fault> {
    let mut keys = Keys::open(group, node, findings)?;
    let mut choice = NodeChoice::default();
    for item in keys.take("nodes").and_then(|node| node.list(findings)).unwrap_or_default() {
        let Some(name) = item.nonempty(findings) else { continue };
        if !app.nodes.contains_key(name) {
            unknown("node", name, app.nodes.keys().map(String::as_str), item, findings);
        }
        choice.names.push(name.to_owned());
    }
    if let Some(item) = keys.take("region")
        && let Some(region) = item.nonempty(findings)
    {
        let regions = || app.nodes.values().filter_map(|node| node.region.as_deref());
        if !regions().any(|known| known == region) {
            unknown("region", region, regions(), item, findings);
        }
        choice.regions.push(region.to_owned());
    }
    let change = change(&mut keys, findings);
    keys.close(findings);
    if choice == NodeChoice::default() {
        let hint = "give nodes: as a list of names, or region:";
        findings.error_with_hint(&node.position, "a fault that befalls no node", hint);
    }
    Some(Fault::Nodes { choice, change: change? })
}

fn unknown<'a>(
    what: &str,
    name: &str,
    known: impl Iterator<Item = &'a str>,
    at: &Node,
    findings: &mut Findings,
) {
    let hint = match nearest(name, known) {
        Some(near) => format!("did you mean {near:?}?"),
        None => "declare it under x-throng.nodes of the Compose file".to_owned(),
    };
    findings.error_with_hint(&at.position, format!("the app has no {what} {name:?}"), hint);
}

fn read_link(keys: &mut Keys<'_>, findings: &mut Findings) -> Option<NodeChange> {
    let mut link = LinkChange::default();
    for (key, place) in [("latency", &mut link.latency), ("jitter", &mut link.jitter)] {
        *place = keys.duration(key, findings);
        if place.is_some_and(|time| time > MAX_LATENCY) {
            let most = units::format_duration(MAX_LATENCY);
            findings.error(keys.at(key), format!("the longest {key} is {most}"));
        }
    }
    if let Some(node) = keys.take("loss") {
        link.loss = told(node, units::parse_percent, findings);
    }
    if let Some(node) = keys.take("bandwidth") {
        let bits = told(node, units::parse_bits, findings);
        if bits.is_some_and(|bits| !BANDWIDTH.contains(&bits)) {
            findings.error(&node.position, "a link has from 8 kbit to 100 Gbit a second");
        }
        link.bandwidth = bits.map(Some);
    }
    if link == LinkChange::default() {
        let hint = "give latency, jitter, loss or bandwidth";
        findings.error_with_hint(&keys.node.position, "a link that is slowed by nothing", hint);
        return None;
    }
    Some(NodeChange::Link(link))
}

fn told<T>(
    node: &Node,
    parse: fn(&str) -> Result<T, units::UnitError>,
    findings: &mut Findings,
) -> Option<T> {
    parse(node.text(findings)?).map_err(|error| findings.error(&node.position, error.to_string())).ok()
}

fn read_kill(node: &Node, app: &App, findings: &mut Findings) -> Option<Fault> {
    let mut keys = Keys::open(&schema::KILL, node, findings)?;
    let service = keys.take("service");
    let share = keys.take("share").map_or(Some(1.0), |node| told(node, units::parse_percent, findings));
    keys.close(findings);
    let Some(service) = service else {
        findings.error(&node.position, "kill without service");
        return None;
    };
    Some(Fault::Kill { service: read_service(service, app, findings)?, share: share? })
}
