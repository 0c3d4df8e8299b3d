//! `x-throng`: what Compose has no key for, of the app and of a service.
//!
//! The specification leaves keys that begin with `x-` to others, so nobody else tells a typing error here: unlike an
//! unknown key elsewhere it is an error.

use super::{Declared, autoscale, health, nodes, updates, vertical};
use crate::yaml::{Entry, Findings, Node, nearest};
use std::collections::BTreeMap;
use std::time::Duration;
use throng_model::app::Service;

/// Keys of the app's `x-throng`.
const APP_KEYS: [&str; 2] = ["nodes", "unreachable_after"];
/// Keys of a service's `x-throng`.
const SERVICE_KEYS: [&str; 9] =
    ["autoscale", "autoscaler", "job", "liveness", "node", "readiness", "restart", "startup", "vertical"];

/// What `x-throng` says at the top of a file.
#[derive(Default)]
pub(super) struct AppExtras {
    pub nodes: BTreeMap<String, throng_model::node::Node>,
    pub unreachable_after: Option<Duration>,
}

/// Reads the `x-throng` at the top of a file.
pub(super) fn read_app(node: &Node, findings: &mut Findings) -> AppExtras {
    let entries = entries(node, &APP_KEYS, findings);
    let value = |key: &str| entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value);
    AppExtras {
        nodes: value("nodes").map(|node| nodes::read_all(node, findings)).unwrap_or_default(),
        unreachable_after: value("unreachable_after").and_then(|node| node.duration(findings)),
    }
}

/// Reads the `x-throng` of a service whose other keys have been read.
pub(super) fn read_service(node: &Node, service: &mut Service, declared: &Declared, findings: &mut Findings) {
    let entries = entries(node, &SERVICE_KEYS, findings);
    let value = |key: &str| entries.iter().find(|entry| entry.key == key);
    if let Some(entry) = value("readiness") {
        service.health_check = health::read_probe(entry, findings);
    }
    service.liveness = value("liveness").and_then(|entry| health::read_liveness(entry, findings));
    service.startup = value("startup").and_then(|entry| health::read_probe(entry, findings));
    service.restart_pace.back_off = value("restart").map(|entry| updates::read_back_off(entry, findings));
    if let Some(entry) = value("node") {
        nodes::read_by_name(entry, service, &declared.nodes, findings);
    }
    let (spec, options) = (value("autoscale").copied(), value("autoscaler").copied());
    service.autoscale = autoscale::read(spec, options, service, declared, findings);
    service.vertical = value("vertical").map(|entry| vertical::read(entry, findings));
}

/// The entries that are known and say something; others are told.
pub(super) fn entries<'a>(node: &'a Node, known: &[&str], findings: &mut Findings) -> Vec<&'a Entry> {
    if node.is_null() {
        return Vec::new();
    }
    let (known_ones, others): (Vec<_>, Vec<_>) =
        node.map(findings).unwrap_or_default().iter().partition(|entry| known.contains(&entry.key.as_str()));
    for entry in others {
        unknown(entry, known, findings);
    }
    known_ones.into_iter().filter(|entry| !entry.value.is_null()).collect()
}

/// Tells of a key that is none.
pub(super) fn unknown(entry: &Entry, known: &[&str], findings: &mut Findings) {
    let hint = match nearest(&entry.key, known.iter().copied()) {
        Some(meant) => format!("did you mean {meant}?"),
        None => format!("there are {}", known.join(", ")),
    };
    findings.error_with_hint(&entry.key_at, format!("unknown key {:?}", entry.key), hint);
}
