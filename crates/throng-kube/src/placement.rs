//! `deploy.placement` as what a scheduler is told: node selectors, affinity, topology spread.

use crate::context::{Context, of_service};
use crate::findings::Findings;
use crate::labels;
use crate::names::{is_label_value, is_qualified};
use crate::plan::{Kind, Plan};
use k8s_openapi::api::core::v1::{
    Affinity, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm,
    PodAntiAffinity, TopologySpreadConstraint,
};
use std::collections::BTreeMap;
use throng_model::node::{Constraint, Subject, architecture};

const HOSTNAME: &str = "kubernetes.io/hostname";

#[derive(Default)]
pub(crate) struct Placed {
    pub selector: Option<BTreeMap<String, String>>,
    pub affinity: Option<Affinity>,
    pub spread: Option<Vec<TopologySpreadConstraint>>,
}

pub(crate) fn placed(cx: &Context<'_>, plan: &Plan<'_>, findings: &mut Findings<'_>) -> Placed {
    let placement = &plan.service.placement;
    let mut equal = BTreeMap::new();
    let mut others = Vec::new();
    for constraint in &placement.constraints {
        let requirement = requirement(constraint);
        if !is_qualified(&requirement.key) || !requirement.values.iter().flatten().all(|v| is_label_value(v))
        {
            let path = of_service(&plan.service.name, "deploy.placement.constraints");
            let message = format!("no node of a cluster can have the label of {constraint}");
            findings.error(&path, message, "label keys and values are letters, digits, -, _ and .");
            continue;
        }
        match (requirement.operator.as_str(), requirement.values.as_deref()) {
            ("In", Some([value])) if !equal.contains_key(&requirement.key) => {
                equal.insert(requirement.key, value.clone());
            }
            _ => others.push(requirement),
        }
    }
    let node_affinity = (!others.is_empty()).then(|| {
        let term = NodeSelectorTerm { match_expressions: Some(others), ..NodeSelectorTerm::default() };
        let required = Some(NodeSelector { node_selector_terms: vec![term] });
        NodeAffinity { required_during_scheduling_ignored_during_execution: required, ..Default::default() }
    });
    let pod_anti_affinity = apart(cx, plan, findings);
    let some = node_affinity.is_some() || pod_anti_affinity.is_some();
    let affinity = some.then_some(Affinity { node_affinity, pod_anti_affinity, ..Affinity::default() });
    Placed { selector: (!equal.is_empty()).then_some(equal), affinity, spread: spread(cx, plan) }
}

/// The label of nodes that a subject of Swarm's constraints means.
fn node_label(subject: &Subject) -> String {
    match subject {
        Subject::Label(key) => key.clone(),
        Subject::Name => HOSTNAME.to_owned(),
        Subject::Architecture => "kubernetes.io/arch".to_owned(),
        Subject::System => "kubernetes.io/os".to_owned(),
        Subject::Role => "node-role.kubernetes.io/control-plane".to_owned(),
        Subject::Region => "topology.kubernetes.io/region".to_owned(),
    }
}

fn requirement(constraint: &Constraint) -> NodeSelectorRequirement {
    let key = node_label(&constraint.subject);
    // A node's role is a label that is there or not.
    if constraint.subject == Subject::Role {
        let manager = constraint.value.eq_ignore_ascii_case("manager");
        let operator = if manager == constraint.equal { "Exists" } else { "DoesNotExist" };
        return NodeSelectorRequirement { key, operator: operator.to_owned(), values: None };
    }
    let value = match constraint.subject {
        Subject::Architecture => architecture(&constraint.value),
        _ => constraint.value.clone(),
    };
    let operator = if constraint.equal { "In" } else { "NotIn" };
    NodeSelectorRequirement { key, operator: operator.to_owned(), values: Some(vec![value]) }
}

/// `max_replicas_per_node: 1` is a rule between pods; other numbers have none.
fn apart(cx: &Context<'_>, plan: &Plan<'_>, findings: &mut Findings<'_>) -> Option<PodAntiAffinity> {
    let most = plan.service.placement.most_per_node.filter(|_| plan.kind != Kind::DaemonSet)?;
    if most != 1 {
        let path = of_service(&plan.service.name, "deploy.placement.max_replicas_per_node");
        let message =
            format!("a cluster cannot be told that {most} pods of a service are the most of one node");
        let hint = "write 1, or let reservations of cpus and memory keep them apart";
        findings.warn(&path, message, hint);
        return None;
    }
    let term = PodAffinityTerm {
        label_selector: Some(labels::select(labels::selector(cx, &plan.name))),
        topology_key: HOSTNAME.to_owned(),
        ..PodAffinityTerm::default()
    };
    Some(PodAntiAffinity {
        required_during_scheduling_ignored_during_execution: Some(vec![term]),
        ..PodAntiAffinity::default()
    })
}

/// Preferences: what cannot be spread evenly runs all the same.
fn spread(cx: &Context<'_>, plan: &Plan<'_>) -> Option<Vec<TopologySpreadConstraint>> {
    let over = plan.service.placement.spread.iter().filter(|subject| is_qualified(&node_label(subject)));
    let constraints: Vec<TopologySpreadConstraint> = over
        .map(|subject| TopologySpreadConstraint {
            max_skew: 1,
            topology_key: node_label(subject),
            when_unsatisfiable: "ScheduleAnyway".to_owned(),
            label_selector: Some(labels::select(labels::selector(cx, &plan.name))),
            ..TopologySpreadConstraint::default()
        })
        .collect();
    (!constraints.is_empty()).then_some(constraints)
}
