//! Virtual nodes (`x-throng.nodes` at the top of a file) and where replicas may be: `deploy.placement`, `deploy.mode`, and
//! `x-throng.node` of a service.

use super::x_throng::entries;
use super::{job, names};
use crate::keys::Section;
use crate::yaml::{Entry, Findings, Node, Value, nearest};
use std::collections::BTreeMap;
use std::time::Duration;
use throng_model::app::Service;
use throng_model::node::{self, Capacity, Constraint, Link, MAX_NODES, Placement, Subject};

const NODE_KEYS: [&str; 9] =
    ["count", "names", "cpus", "memory", "replicas", "labels", "architecture", "region", "link"];
const LINK_KEYS: [&str; 5] = ["latency", "jitter", "loss", "bandwidth", "up"];
const SUBJECTS: &str =
    "node.labels.KEY, node.hostname, node.platform.arch, node.platform.os, node.role, node.region";

type Nodes = BTreeMap<String, node::Node>;

/// All nodes of an app. One entry may stand for several.
pub(super) fn read_all(node: &Node, findings: &mut Findings) -> Nodes {
    let mut nodes = Nodes::new();
    for entry in node.map(findings).unwrap_or_default() {
        names::check("node", &entry.key, &entry.key_at, findings);
        let Some((read, names)) = read_node(entry, findings) else { continue };
        for name in names {
            if nodes.len() == MAX_NODES {
                findings.error(&entry.key_at, format!("more than {MAX_NODES} nodes, the most of one app"));
                return nodes;
            }
            if nodes.insert(name.clone(), read.clone()).is_some() {
                findings.error(&entry.key_at, format!("two nodes are called {name:?}"));
            }
        }
    }
    nodes
}

/// One node and the names of all that are like it.
fn read_node(entry: &Entry, findings: &mut Findings) -> Option<(node::Node, Vec<String>)> {
    let known = entries(&entry.value, &NODE_KEYS, findings);
    let value = |key: &str| known.iter().find(|entry| entry.key == key).map(|entry| &entry.value);
    let capacity = Capacity {
        cpus: value("cpus").and_then(|node| cores(node, findings)),
        memory: value("memory")
            .and_then(|node| node.bytes(findings).filter(|bytes| above_zero(*bytes, node, findings))),
        replicas: value("replicas").and_then(|node| {
            let replicas: u32 = node.number("a whole number of replicas above 0", findings)?;
            above_zero(u64::from(replicas), node, findings).then_some(replicas)
        }),
    };
    if ["cpus", "memory", "replicas"].into_iter().all(|key| value(key).is_none()) {
        let hint = "give it cpus, memory or replicas, or several of them";
        findings.error_with_hint(&entry.key_at, format!("the node {:?} has no capacity", entry.key), hint);
    }
    let architecture = value("architecture").and_then(|node| node.nonempty(findings));
    let read = node::Node {
        capacity,
        labels: value("labels").map(|node| labels(node, findings)).unwrap_or_default(),
        architecture: node::architecture(architecture.unwrap_or(std::env::consts::ARCH)),
        region: value("region").and_then(|node| node.nonempty(findings)).map(str::to_owned),
        link: value("link").map(|node| read_link(node, findings)).unwrap_or_default(),
    };
    let names = match (value("count"), value("names")) {
        (Some(node), Some(_)) => {
            findings.error_with_hint(&node.position, "\"count\" does not go with \"names\"", "keep one");
            return None;
        }
        (Some(node), None) => {
            let what = format!("a whole number of nodes from 1 to {MAX_NODES}");
            let count: usize = node.number(&what, findings)?;
            if !(1..=MAX_NODES).contains(&count) {
                node.mismatch(&what, findings);
                return None;
            }
            (1..=count).map(|number| format!("{}-{number}", entry.key)).collect()
        }
        (None, Some(node)) => {
            for item in node.list(findings).unwrap_or_default() {
                names::check("node", item.scalar().unwrap_or_default(), &item.position, findings);
            }
            node.texts(findings)?
        }
        (None, None) => vec![entry.key.clone()],
    };
    Some((read, names))
}

fn above_zero(number: u64, node: &Node, findings: &mut Findings) -> bool {
    if number == 0 {
        findings.error_with_hint(
            &node.position,
            "a node with nothing of it has no capacity",
            "leave it out for no limit",
        );
    }
    number > 0
}

fn cores(node: &Node, findings: &mut Findings) -> Option<f64> {
    let what = "a number of cores above 0 such as 4";
    let cores: f64 = node.number(what, findings)?;
    if !cores.is_finite() || cores < 0.01 {
        node.mismatch(what, findings);
        return None;
    }
    Some(cores)
}

/// As Compose writes labels: a mapping, or a list of `key=value`.
fn labels(node: &Node, findings: &mut Findings) -> BTreeMap<String, String> {
    let Value::List(items) = &node.value else { return node.text_map(findings).unwrap_or_default() };
    let pair = |item: &Node| {
        let (key, value) = item.scalar()?.split_once('=')?;
        Some((key.to_owned(), value.to_owned()))
    };
    let mut labels = BTreeMap::new();
    for item in items {
        match pair(item) {
            Some((key, value)) => drop(labels.insert(key, value)),
            None => item.mismatch("a label such as kind=edge", findings),
        }
    }
    labels
}

fn read_link(node: &Node, findings: &mut Findings) -> Link {
    let known = entries(node, &LINK_KEYS, findings);
    let value = |key: &str| known.iter().find(|entry| entry.key == key).map(|entry| &entry.value);
    let mut time = |key| value(key).and_then(|node| node.delay(key, findings)).unwrap_or_default();
    let (latency, jitter) = (time("latency"), time("jitter"));
    if let Some(node) = value("jitter").filter(|_| jitter > latency) {
        let hint = "jitter spreads the latency in both directions";
        findings.error_with_hint(&node.position, "the jitter is larger than the latency", hint);
    }
    let loss = value("loss").and_then(|node| node.share(findings)).unwrap_or_default();
    let bandwidth = value("bandwidth").and_then(|node| node.bandwidth(findings));
    let up = value("up").and_then(|node| node.boolean(findings)).unwrap_or(true);
    Link { latency, jitter, loss, bandwidth, up }
}

/// `deploy.placement`.
pub(super) fn read_placement(node: &Node, service: &mut Service, findings: &mut Findings) {
    const PATH: &str = "services.*.deploy.placement";
    let Some(mut section) = Section::open(PATH, node, findings) else { return };
    let (constraints, preferences) = (section.take("constraints"), section.take("preferences"));
    let most = section.take("max_replicas_per_node");
    section.close(findings);
    let placement = &mut service.placement;
    for item in constraints.and_then(|node| node.list(findings)).unwrap_or_default() {
        placement.constraints.extend(constraint(item, findings));
    }
    for item in preferences.and_then(|node| node.list(findings)).unwrap_or_default() {
        let Some(mut section) = Section::open("services.*.deploy.placement.preferences.*", item, findings)
        else {
            continue;
        };
        let spread = section.take("spread");
        section.close(findings);
        placement.spread.extend(spread.and_then(|node| subject(node, node.text(findings)?, findings)));
    }
    // 0 is no limit, as it is to Docker.
    let most = most.and_then(|node| node.number("a whole number of replicas, or 0 for no limit", findings));
    placement.most_per_node = most.filter(|most| *most > 0);
}

fn constraint(node: &Node, findings: &mut Findings) -> Option<Constraint> {
    let text = node.nonempty(findings)?;
    let (left, equal, right) = match (text.split_once("=="), text.split_once("!=")) {
        (Some((left, right)), _) => (left, true, right),
        (None, Some((left, right))) => (left, false, right),
        (None, None) => {
            let hint = "write it as node.labels.kind == edge, or with !=";
            findings.error_with_hint(&node.position, format!("{text:?} is not a constraint"), hint);
            return None;
        }
    };
    let subject = subject(node, left.trim(), findings)?;
    Some(Constraint { subject, equal, value: right.trim().to_owned() })
}

fn subject(node: &Node, text: &str, findings: &mut Findings) -> Option<Subject> {
    let subject = Subject::parse(text.trim());
    if subject.is_none() {
        let message = format!("placement cannot look at {:?} of a node", text.trim());
        findings.error_with_hint(&node.position, message, format!("there are {SUBJECTS}"));
    }
    subject
}

/// `x-throng.node`: the one node that all replicas are on.
pub(super) fn read_by_name(entry: &Entry, service: &mut Service, nodes: &Nodes, findings: &mut Findings) {
    let Some(name) = entry.value.nonempty(findings) else { return };
    if !nodes.contains_key(name) {
        let hint = match nearest(name, nodes.keys().map(String::as_str)) {
            Some(near) => format!("did you mean {near:?}?"),
            None => "declare it under x-throng.nodes at the top of the file".to_owned(),
        };
        findings.error_with_hint(&entry.value.position, format!("unknown node {name:?}"), hint);
    }
    let constraint = Constraint { subject: Subject::Name, equal: true, value: name.to_owned() };
    service.placement.constraints.push(constraint);
}

/// `deploy.mode`. Where there are no nodes, the host is the one that there is.
pub(super) fn read_mode(
    node: &Node,
    replicas: Option<&Node>,
    service: &mut Service,
    findings: &mut Findings,
) {
    match node.scalar() {
        Some("replicated") => {}
        Some(mode @ ("global" | "global-job")) => {
            service.placement.on_each = true;
            service.job = (mode == "global-job").then(job::of_mode);
            if let Some(node) = replicas {
                let hint = "there is one on each node: remove replicas, or mode";
                findings.warn_with_hint(
                    &node.position,
                    format!("\"replicas\" has no effect with mode: {mode}"),
                    hint,
                );
            }
        }
        Some("replicated-job") => service.job = Some(job::of_mode()),
        _ => node.mismatch("one of replicated, global, replicated-job, global-job", findings),
    }
}

/// Tells of placements that have nothing to choose from.
pub(super) fn check_has_nodes(service: &Node, nodes: &Nodes, findings: &mut Findings) {
    let placement = service.get("deploy").and_then(|deploy| deploy.get("placement"));
    if let Some(node) = placement.filter(|node| nodes.is_empty() && !node.is_null()) {
        let hint =
            "declare nodes under x-throng.nodes; with --on docker:N replicas are spread over its nodes";
        findings.warn_with_hint(&node.position, "there are no nodes to place replicas on", hint);
    }
}

/// `x-throng.nodes`, each by its name.
pub(crate) fn canonical(nodes: &Nodes) -> serde_json::Value {
    use serde_json::{Map, Value, json};
    let one = |node: &node::Node| {
        let mut map = Map::new();
        let mut set = |key: &str, value: Option<Value>| value.map(|value| map.insert(key.to_owned(), value));
        set("cpus", node.capacity.cpus.map(|cpus| json!(cpus)));
        set("memory", node.capacity.memory.map(|bytes| json!(bytes.to_string())));
        set("replicas", node.capacity.replicas.map(|count| json!(count)));
        set("architecture", Some(json!(node.architecture)));
        set("labels", (!node.labels.is_empty()).then(|| json!(node.labels)));
        set("region", node.region.as_ref().map(|region| json!(region)));
        set("link", (!node.link.is_perfect()).then(|| link(&node.link)));
        Value::Object(map)
    };
    Value::Object(nodes.iter().map(|(name, node)| (name.clone(), one(node))).collect())
}

/// Without what does nothing, and so that the same link is read of it.
fn link(link: &Link) -> serde_json::Value {
    use serde_json::{Map, Value, json};
    let mut map = Map::new();
    let mut set = |key: &str, said: bool, value: Value| {
        if said {
            map.insert(key.to_owned(), value);
        }
    };
    set("latency", !link.latency.is_zero(), json!(time(link.latency)));
    set("jitter", !link.jitter.is_zero(), json!(time(link.jitter)));
    set("loss", link.loss > 0.0, json!(percent(link.loss)));
    set("bandwidth", link.bandwidth.is_some(), json!(link.bandwidth.map(bits)));
    set("up", !link.up, json!(false));
    Value::Object(map)
}

/// In the largest unit in which it is a whole number: `5ms`, `1500us`, `2s`.
fn time(time: Duration) -> String {
    let nanos = time.as_nanos();
    let units = [(1_000_000_000, "s"), (1_000_000, "ms"), (1_000, "us")];
    let unit = units.into_iter().find(|(size, _)| nanos.is_multiple_of(*size));
    unit.map_or_else(|| format!("{nanos}ns"), |(size, unit)| format!("{}{unit}", nanos / size))
}

/// To the billionth of a percent, without what binary fractions add: `0.1%`.
fn percent(share: f64) -> String {
    let text = format!("{:.9}", share * 100.0);
    format!("{}%", text.trim_end_matches('0').trim_end_matches('.'))
}

/// In the largest unit in which it is a whole number: `100mbit`, `1500kbit`.
fn bits(bits: u64) -> String {
    let units = [(1_000_000_000, "gbit"), (1_000_000, "mbit"), (1_000, "kbit")];
    let unit = units.into_iter().find(|(size, _)| bits.is_multiple_of(*size));
    unit.map_or_else(|| format!("{bits}bit"), |(size, unit)| format!("{}{unit}", bits / size))
}

/// `deploy.placement` as Compose prints it; `None` if nothing was said.
pub(crate) fn canonical_placement(placement: &Placement) -> Option<serde_json::Value> {
    use serde_json::{Map, Value, json};
    let mut map = Map::new();
    if !placement.constraints.is_empty() {
        let texts: Vec<String> = placement.constraints.iter().map(ToString::to_string).collect();
        map.insert("constraints".into(), json!(texts));
    }
    if !placement.spread.is_empty() {
        let each: Vec<Value> =
            placement.spread.iter().map(|subject| json!({ "spread": subject.to_string() })).collect();
        map.insert("preferences".into(), json!(each));
    }
    if let Some(most) = placement.most_per_node {
        map.insert("max_replicas_per_node".into(), json!(most));
    }
    (!map.is_empty()).then_some(Value::Object(map))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_printed_as_a_person_would_write_them() {
        let printed = |one: Link| link(&one).to_string();
        let ms = Duration::from_millis;
        let all =
            Link { latency: ms(5), jitter: ms(1), loss: 0.001, bandwidth: Some(100_000_000), up: false };
        assert_eq!(
            printed(all),
            r#"{"bandwidth":"100mbit","jitter":"1ms","latency":"5ms","loss":"0.1%","up":false}"#
        );
        let odd = Link { latency: Duration::from_micros(1_500), bandwidth: Some(8_001), ..Link::default() };
        assert_eq!(printed(odd), r#"{"bandwidth":"8001bit","latency":"1500us"}"#);
        assert_eq!(
            (time(Duration::from_secs(60)), time(Duration::from_nanos(3))),
            ("60s".into(), "3ns".into())
        );
        assert_eq!((percent(1.0), percent(0.000_000_1)), ("100%".into(), "0.00001%".into()));
    }
}
