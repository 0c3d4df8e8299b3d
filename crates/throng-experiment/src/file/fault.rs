//! What is done to an app on purpose: nodes cut off, slowed down and healed; replicas killed, stopped, paused, their
//! disks filled; and the ends of these.

use super::Keys;
use super::stage::read_service;
use crate::schema::{self, Group, MAX_STAGES};
use std::fmt;
use std::time::Duration;
use throng_compose::yaml::{Findings, Node, Value, nearest};
use throng_model::app::App;
use throng_model::fault::{Portion, ReplicaFault, Victims};
use throng_model::node::{LinkChange, NodeChange, NodeChoice};
use throng_model::units::{format_duration, parse_bytes};

/// The keys of which each is a fault or the end of one. `pause` with a duration is none.
pub(super) const FAULTS: [&str; 10] =
    ["cut", "slow", "heal", "kill", "stop", "start", "pause", "unpause", "fill", "empty"];

/// A fault, or the end of one. `lasts`: it ends by itself after that time.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    Nodes { choice: NodeChoice, change: NodeChange, lasts: Option<Duration> },
    Replicas { victims: Victims, fault: ReplicaFault, lasts: Option<Duration> },
}

impl Fault {
    pub fn lasts(&self) -> Option<Duration> {
        match self {
            Fault::Nodes { lasts, .. } | Fault::Replicas { lasts, .. } => *lasts,
        }
    }

    /// Whether it makes something worse, and not better.
    pub fn harms(&self) -> bool {
        match self {
            Fault::Nodes { change, .. } => *change != NodeChange::Heal,
            Fault::Replicas { fault, .. } => fault.harms(),
        }
    }

    /// The one service that it befalls; `None` for nodes, on which there may be any.
    pub fn service(&self) -> Option<&str> {
        match self {
            Fault::Nodes { .. } => None,
            Fault::Replicas { victims, .. } => Some(&victims.service),
        }
    }

    /// Whether `later` ends it, or part of it.
    pub fn is_ended_by(&self, later: &Fault, app: &App) -> bool {
        match (self, later) {
            (Fault::Nodes { choice, .. }, Fault::Nodes { choice: healed, change: NodeChange::Heal, .. }) => {
                app.nodes.iter().any(|(name, node)| choice.has(name, node) && healed.has(name, node))
            }
            (Fault::Replicas { victims, fault, .. }, Fault::Replicas { victims: of, fault: end, .. }) => {
                victims.service == of.service && fault.end().as_ref() == Some(end)
            }
            _ => false,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Nodes { choice, change: NodeChange::Link(link), .. } => match link.up {
                Some(false) => write!(f, "cut {choice} off")?,
                _ => write!(f, "slow {choice} down")?,
            },
            Fault::Nodes { choice, change: NodeChange::Heal, .. } => write!(f, "heal {choice}")?,
            Fault::Nodes { choice, .. } => write!(f, "drain {choice}")?,
            Fault::Replicas { victims, fault, .. } => f.write_str(&fault.of(victims))?,
        }
        match self.lasts() {
            Some(lasts) => write!(f, " for {}", format_duration(lasts)),
            None => Ok(()),
        }
    }
}

/// Faults at times after a load has begun.
pub(super) fn read_during(node: &Node, app: &App, findings: &mut Findings) -> Vec<(Duration, Fault)> {
    let mut faults = Vec::new();
    let items = node.list(findings).unwrap_or_default();
    if items.len() > MAX_STAGES {
        let message = format!("a load has at most {MAX_STAGES} faults, this one has {}", items.len());
        findings.error_with_hint(&node.position, message, "make several loads of it");
        return faults;
    }
    for item in items {
        let Some(mut keys) = Keys::open(&schema::DURING, item, findings) else { continue };
        let at = keys.duration("at", findings);
        if item.get("at").is_none_or(Node::is_null) {
            findings.error_with_hint(&item.position, "a fault without a time", "add at: such as 10s");
        }
        let given: Vec<&'static str> = FAULTS.into_iter().filter(|key| item.get(key).is_some()).collect();
        let value = given.first().and_then(|key| keys.take(key).map(|node| (*key, node)));
        if given.len() != 1 {
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

/// Whether the value of a stage's `pause` is that of a fault, and not how long nothing is done.
pub(super) fn is_fault(key: &str, value: &Node) -> bool {
    FAULTS.contains(&key) && (key != "pause" || matches!(value.value, Value::Map(_)))
}

/// The fault of that key.
pub(super) fn read(key: &str, node: &Node, app: &App, findings: &mut Findings) -> Option<Fault> {
    let always = |fault: ReplicaFault| move |_: &mut Keys<'_>, _: &mut Findings| Some(fault);
    match key {
        "cut" => read_nodes(&schema::CUT, node, app, findings, |_, _| Some(NodeChange::cut())),
        "heal" => read_nodes(&schema::HEAL, node, app, findings, |_, _| Some(NodeChange::Heal)),
        "slow" => read_nodes(&schema::SLOW, node, app, findings, read_link),
        "kill" => read_replicas(&schema::KILL, node, app, findings, always(ReplicaFault::KILL)),
        "stop" => {
            let fault = ReplicaFault::Stop { grace: None };
            read_replicas(&schema::STOP, node, app, findings, always(fault))
        }
        "pause" => read_replicas(&schema::PAUSE, node, app, findings, always(ReplicaFault::Pause)),
        "fill" => read_replicas(&schema::FILL, node, app, findings, read_fill),
        "start" => read_replicas(&schema::START, node, app, findings, always(ReplicaFault::Start)),
        "unpause" => read_replicas(&schema::UNPAUSE, node, app, findings, always(ReplicaFault::Unpause)),
        _ => read_replicas(&schema::EMPTY, node, app, findings, always(ReplicaFault::Empty)),
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
    if let Some(item) = keys.take("labels") {
        choice.labels = item.text_map(findings).unwrap_or_default();
        if !choice.labels.is_empty() && !app.nodes.values().any(|node| choice.labels_fit(node)) {
            let message = format!("the app has no node with {}", choice.labels_text());
            let hint = "nodes have labels under x-throng.nodes of the Compose file";
            findings.error_with_hint(&item.position, message, hint);
        }
    }
    let change = change(&mut keys, findings);
    let lasts = read_lasts(&mut keys, findings);
    keys.close(findings);
    if choice.is_none() {
        let hint = "give nodes: as a list of names, region: or labels:";
        findings.error_with_hint(&node.position, "a fault that befalls no node", hint);
    }
    Some(Fault::Nodes { choice, change: change?, lasts })
}

/// How long it lasts, for those that have such a key.
fn read_lasts(keys: &mut Keys<'_>, findings: &mut Findings) -> Option<Duration> {
    if !keys.group.names().any(|name| name == "for") {
        return None;
    }
    let lasts = keys.duration("for", findings)?;
    if lasts.is_zero() {
        findings.error_with_hint(keys.at("for"), "a fault that lasts no time", "leave it out: it lasts on");
    }
    Some(lasts)
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
        *place = keys.take(key).and_then(|node| node.delay(key, findings));
    }
    link.loss = keys.take("loss").and_then(|node| node.share(findings));
    link.bandwidth = keys.take("bandwidth").and_then(|node| node.bandwidth(findings)).map(Some);
    let said = ["latency", "jitter", "loss", "bandwidth"].into_iter().any(|key| keys.node.get(key).is_some());
    if !said {
        let hint = "give latency, jitter, loss or bandwidth";
        findings.error_with_hint(&keys.node.position, "a link that is slowed by nothing", hint);
        return None;
    }
    Some(NodeChange::Link(link))
}

fn read_fill(keys: &mut Keys<'_>, findings: &mut Findings) -> Option<ReplicaFault> {
    let Some(node) = keys.take("size") else { return Some(ReplicaFault::Fill { bytes: None }) };
    let bytes = node.told(parse_bytes, findings)?;
    if bytes == 0 {
        findings.error_with_hint(&node.position, "nothing fills no disk", "leave size out: up to the limit");
    }
    Some(ReplicaFault::Fill { bytes: Some(bytes) })
}

fn read_replicas(
    group: &'static Group,
    node: &Node,
    app: &App,
    findings: &mut Findings,
    fault: impl FnOnce(&mut Keys<'_>, &mut Findings) -> Option<ReplicaFault>,
) -> Option<Fault> {
    let mut keys = Keys::open(group, node, findings)?;
    let service = keys.take("service");
    let portion = match keys.take("share") {
        Some(node) => node.told(str::parse::<Portion>, findings),
        None => Some(Portion::ALL),
    };
    let seed = keys.count("seed", findings);
    let fault = fault(&mut keys, findings);
    let lasts = read_lasts(&mut keys, findings);
    keys.close(findings);
    let Some(service) = service else {
        findings.error(&node.position, format!("{} without service", group.title));
        return None;
    };
    let service_name = read_service(service, app, findings)?;
    let fault = fault?;
    check_can_be_filled(&fault, app, &service_name, service, findings);
    let victims = Victims { service: service_name, portion: portion?, seed, among: Vec::new() };
    Some(Fault::Replicas { victims, fault, lasts })
}

/// Tells before anything starts of a disk that has no limit up to which it could be filled.
fn check_can_be_filled(fault: &ReplicaFault, app: &App, service: &str, at: &Node, findings: &mut Findings) {
    let Some(described) = app.services.get(service).filter(|_| matches!(fault, ReplicaFault::Fill { .. }))
    else {
        return;
    };
    if described.read_only {
        let hint = "fill a service without read_only";
        findings.error_with_hint(&at.position, format!("the root of {service} cannot be written to"), hint);
    } else if matches!(fault, ReplicaFault::Fill { bytes: None }) && described.resources.disk.is_none() {
        let message = format!("the disks of {service} have no limit up to which they could be filled");
        let hint = "add size: such as 64m, or give the service storage_opt: {size: 64m}";
        findings.error_with_hint(&at.position, message, hint);
    }
}
