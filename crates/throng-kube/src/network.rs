//! The file's networks as NetworkPolicies.
//!
//! Services that share a network reach each other, others do not. With the one network that every app has there is
//! nothing to keep apart, and no policy is written. Otherwise each network gets one that lets its pods talk among
//! themselves, and each service with published ports one that lets everybody in there. Policies add up.

use crate::context::Context;
use crate::labels;
use crate::object::{Notes, Object};
use crate::plan::{Plan, Plans};
use k8s_openapi::api::networking::v1::{
    NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort,
    NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::{BTreeMap, BTreeSet};

/// The file that policies of networks are written to.
pub(crate) const NETWORKS_FILE: &str = "networks";

/// Whether the file keeps services apart from one another, or from the world.
pub(crate) fn are_separated(cx: &Context<'_>) -> bool {
    let used: BTreeSet<&str> =
        cx.app.services.values().flat_map(|service| service.networks.keys()).map(String::as_str).collect();
    let internal = || used.iter().any(|key| is_internal(cx, key));
    let alone = || cx.app.services.values().any(|service| service.networks.is_empty());
    used.len() > 1 || internal() || alone()
}

fn is_internal(cx: &Context<'_>, key: &str) -> bool {
    cx.app.networks.get(key).is_some_and(|network| network.internal)
}

pub(crate) fn policies(cx: &Context<'_>, plans: &Plans<'_>, objects: &mut Vec<Object>) {
    if !are_separated(cx) {
        return;
    }
    let mut taken: BTreeSet<String> = BTreeSet::new();
    for (key, network) in &cx.app.networks {
        let Some(name) = plans.names.networks.get(key) else { continue };
        let members = || cx.app.services.values().filter(|service| service.networks.contains_key(key));
        if members().next().is_none() {
            continue;
        }
        // Who is in an internal network and in another one has a way out through that.
        let some_are_internal =
            members().any(|service| service.networks.keys().any(|other| is_internal(cx, other)));
        let object = of_network(cx, name, network.internal, some_are_internal && !network.internal);
        taken.insert(name.clone());
        let mut notes = Notes::default();
        notes.at("/spec/policyTypes", cx.origin_at(&["networks", key, "internal"], "internal"));
        let head = cx.origin_at(&["networks", key], &format!("networks.{key}"));
        objects.push(Object::new(NETWORKS_FILE, &object, notes, head));
    }
    for plan in plans.services.values() {
        if plan.service.networks.is_empty() {
            let name = crate::names::free(&format!("{}-no-network", plan.name), &mut taken);
            let both = ["Ingress", "Egress"];
            let object = policy(cx, &name, selector_of(cx, plan), (None, None), &both, Some(&plan.name));
            let head = cx.origin(&plan.service.name, &["network_mode"]);
            objects.push(Object::new(&plan.name, &object, Notes::default(), head));
        } else {
            objects.extend(published(cx, plan, &mut taken));
        }
    }
}

fn selector_of(cx: &Context<'_>, plan: &Plan<'_>) -> LabelSelector {
    labels::select(labels::selector(cx, &plan.name))
}

type Rules = (Option<Vec<NetworkPolicyIngressRule>>, Option<Vec<NetworkPolicyEgressRule>>);

fn policy(
    cx: &Context<'_>,
    name: &str,
    pods: LabelSelector,
    (ingress, egress): Rules,
    types: &[&str],
    service: Option<&str>,
) -> NetworkPolicy {
    NetworkPolicy {
        metadata: labels::metadata(cx, name, service),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(pods),
            policy_types: Some(types.iter().map(|kind| (*kind).to_owned()).collect()),
            ingress,
            egress,
        }),
    }
}

/// Pods of a network talk among themselves. `way_out`: to everybody else, too, which must be said once something about
/// their way out is said elsewhere.
fn of_network(cx: &Context<'_>, name: &str, internal: bool, way_out: bool) -> NetworkPolicy {
    let (label, yes) = labels::in_network(name);
    let mut members = labels::selector(cx, "");
    members.remove("app.kubernetes.io/name");
    members.insert(label, yes);
    let members = labels::select(members);
    let peer = NetworkPolicyPeer { pod_selector: Some(members.clone()), ..NetworkPolicyPeer::default() };
    let ingress = NetworkPolicyIngressRule { from: Some(vec![peer.clone()]), ports: None };
    let egress = match (internal, way_out) {
        (true, _) => {
            Some(vec![NetworkPolicyEgressRule { to: Some(vec![peer]), ports: None }, to_name_servers()])
        }
        (false, true) => Some(vec![NetworkPolicyEgressRule::default()]),
        (false, false) => None,
    };
    let types: &[&str] = if egress.is_some() { &["Ingress", "Egress"] } else { &["Ingress"] };
    policy(cx, name, members, (Some(vec![ingress]), egress), types, None)
}

/// Names are looked up outside the app: with the cluster's own name servers, wherever those run.
fn to_name_servers() -> NetworkPolicyEgressRule {
    let port = |protocol: &str| NetworkPolicyPort {
        port: Some(IntOrString::Int(53)),
        protocol: Some(protocol.to_owned()),
        ..NetworkPolicyPort::default()
    };
    let label = BTreeMap::from([("k8s-app".to_owned(), "kube-dns".to_owned())]);
    let peer = NetworkPolicyPeer {
        namespace_selector: Some(LabelSelector::default()),
        pod_selector: Some(labels::select(label)),
        ip_block: None,
    };
    NetworkPolicyEgressRule { to: Some(vec![peer]), ports: Some(vec![port("UDP"), port("TCP")]) }
}

/// What the file publishes is there for everybody.
fn published(cx: &Context<'_>, plan: &Plan<'_>, taken: &mut BTreeSet<String>) -> Option<Object> {
    let exposed = plan.hints.expose.is_some() || plan.hints.service_type.is_some();
    let open = plan.ports.iter().filter(|port| !port.published.is_empty() || (exposed && port.declared));
    let ports: Vec<NetworkPolicyPort> = open
        .map(|port| NetworkPolicyPort {
            port: Some(IntOrString::String(port.name.clone())),
            protocol: Some(port.protocol().to_owned()),
            ..NetworkPolicyPort::default()
        })
        .collect();
    if ports.is_empty() {
        return None;
    }
    let name = crate::names::free(&format!("{}-published", plan.name), taken);
    let rule = NetworkPolicyIngressRule { from: None, ports: Some(ports) };
    let rules = (Some(vec![rule]), None);
    let object = policy(cx, &name, selector_of(cx, plan), rules, &["Ingress"], Some(&plan.name));
    let mut notes = Notes::default();
    notes.at("/spec/ingress", cx.origin(&plan.service.name, &["ports"]));
    Some(Object::new(&plan.name, &object, notes, None))
}
