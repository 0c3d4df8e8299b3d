//! By what name and address pods are reached: Services and Ingresses.

use crate::context::{Context, of_service};
use crate::findings::Findings;
use crate::kompose::{Expose, ServiceType};
use crate::labels;
use crate::names::{dns_label, is_service_name};
use crate::object::{Notes, Object};
use crate::plan::{Kind, Plan, Plans, PodPort};
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, HTTPIngressRuleValue, Ingress, IngressBackend, IngressRule, IngressServiceBackend,
    IngressSpec, IngressTLS, ServiceBackendPort,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeSet;

/// The ports that a cluster gives to Services of the type NodePort unless it is told otherwise.
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;

pub(crate) fn services(
    cx: &Context<'_>,
    plan: &Plan<'_>,
    taken: &mut BTreeSet<String>,
    objects: &mut Vec<Object>,
    findings: &mut Findings<'_>,
) {
    if !plan.has_service() {
        return;
    }
    let declared: Vec<&PodPort> = plan.ports.iter().filter(|port| port.declared).collect();
    let outside = matches!(plan.hints.service_type, Some(ServiceType::NodePort | ServiceType::LoadBalancer));
    // Inside, pods are asked for at their own ports; what a host publishes may be another one.
    let moved = declared.iter().any(|port| port.published.iter().flatten().any(|own| *own != port.port));
    let outside = outside && has_ports(plan, &declared, findings);
    let apart = outside && (moved || plan.kind == Kind::StatefulSet);
    objects.push(inside(cx, plan, &declared, outside && !apart, findings));
    if apart {
        let wish = format!("{}-public", plan.name);
        let name = crate::names::free(&wish, taken);
        objects.push(public(cx, plan, &name, &declared, findings));
    }
    for alias in &plan.aliases {
        other_name(cx, plan, alias, taken, objects, findings);
    }
    for ordinal in &plan.addressed {
        replica(cx, plan, *ordinal, taken, objects);
    }
    if let Some(expose) = &plan.hints.expose {
        objects.extend(ingress(cx, plan, expose, &declared, findings));
    }
}

/// Who is let in from outside must be let in somewhere.
fn has_ports(plan: &Plan<'_>, declared: &[&PodPort], findings: &mut Findings<'_>) -> bool {
    if declared.is_empty() {
        let path = ["services", &plan.service.name, "labels", "kompose.service.type"];
        let message = format!("no port of {} is known that could be reached from outside", plan.service.name);
        findings.warn(&path, message, "name it under ports:");
    }
    !declared.is_empty()
}

fn metadata(cx: &Context<'_>, plan: &Plan<'_>, name: &str) -> ObjectMeta {
    labels::metadata(cx, name, Some(&plan.name))
}

fn service_port(port: &PodPort, number: u16) -> ServicePort {
    ServicePort {
        name: Some(port.name.clone()),
        port: i32::from(number),
        target_port: Some(IntOrString::String(port.name.clone())),
        protocol: (port.protocol() != "TCP").then(|| port.protocol().to_owned()),
        app_protocol: port.app_protocol.map(str::to_owned),
        ..ServicePort::default()
    }
}

/// The Service by whose name other pods find these. `public`: it is reached from outside, too.
fn inside(
    cx: &Context<'_>,
    plan: &Plan<'_>,
    declared: &[&PodPort],
    public: bool,
    findings: &mut Findings<'_>,
) -> Object {
    let mut notes = Notes::default();
    let name = &plan.service.name;
    let mut ports: Vec<ServicePort> = declared.iter().map(|port| service_port(port, port.port)).collect();
    notes.at("/spec/ports", cx.origin(name, &["ports", "expose"]));
    let headless = match () {
        () if plan.kind == Kind::StatefulSet => {
            notes.say("/spec/clusterIP", "each pod has a name of its own");
            true
        }
        () if plan.hints.service_type == Some(ServiceType::Headless) => {
            notes.say("/spec/clusterIP", "kompose.service.type");
            true
        }
        () if ports.is_empty() => {
            notes.say("/spec/clusterIP", "no port is known, so the name leads to the pods themselves");
            let message = format!("the file names no port of {name}, which others ask for");
            findings.warn(&["services", name], message, "name its ports under expose:");
            true
        }
        () => false,
    };
    let mut spec = ServiceSpec {
        cluster_ip: headless.then(|| "None".to_owned()),
        selector: Some(labels::selector(cx, &plan.name)),
        ..ServiceSpec::default()
    };
    if public {
        outward(plan, &mut spec, &mut ports, findings);
        notes.say("/spec/type", "kompose.service.type");
    }
    spec.ports = (!ports.is_empty()).then_some(ports);
    let object = Service { metadata: metadata(cx, plan, &plan.name), spec: Some(spec), ..Service::default() };
    Object::new(&plan.name, &object, notes, published(cx, plan, public))
}

/// How what a host published is reached in a cluster.
fn published(cx: &Context<'_>, plan: &Plan<'_>, public: bool) -> Option<String> {
    let port =
        plan.ports.iter().find_map(|port| Some((port.published.iter().flatten().next()?, port.port)))?;
    let (host, own) = port;
    let from = cx.origin(&plan.service.name, &["ports"])?;
    let inside = plan.hints.service_type.is_none() && plan.hints.expose.is_none() && !public;
    inside.then(|| {
        format!("To reach it from outside ({from}): kubectl port-forward service/{} {host}:{own}", plan.name)
    })
}

fn outward(plan: &Plan<'_>, spec: &mut ServiceSpec, ports: &mut [ServicePort], findings: &mut Findings<'_>) {
    let node = plan.hints.service_type == Some(ServiceType::NodePort);
    spec.type_ = Some(if node { "NodePort" } else { "LoadBalancer" }.to_owned());
    spec.external_traffic_policy = plan.hints.traffic_policy.map(str::to_owned);
    let Some(wanted) = plan.hints.node_port else { return };
    let path = ["services", &plan.service.name, "labels", "kompose.service.nodeport.port"];
    if !node {
        let message = "kompose.service.nodeport.port says nothing unless the type is nodeport";
        findings.warn(&path, message, "add kompose.service.type: nodeport");
    } else if let [only] = ports {
        only.node_port = Some(i32::from(wanted));
        if !NODE_PORTS.contains(&wanted) {
            let (from, to) = (NODE_PORTS.start(), NODE_PORTS.end());
            let message =
                format!("a cluster opens ports from {from} to {to} on its nodes unless it is told otherwise");
            findings.warn(
                &path,
                message,
                "write one of those, or see --service-node-port-range of kube-apiserver",
            );
        }
    } else {
        let message = format!("{} ports cannot all be {wanted}", ports.len());
        findings.warn(&path, message, "remove the label: each port gets one of the cluster's own choice");
    }
}

/// The Service that is reached from outside, at the ports that the file publishes.
fn public(
    cx: &Context<'_>,
    plan: &Plan<'_>,
    name: &str,
    declared: &[&PodPort],
    findings: &mut Findings<'_>,
) -> Object {
    let mut ports: Vec<ServicePort> = Vec::new();
    let any = declared.iter().any(|port| !port.published.is_empty());
    for port in declared.iter().filter(|port| !any || !port.published.is_empty()) {
        let own = [None];
        let published = if port.published.is_empty() { &own[..] } else { &port.published };
        for number in published {
            let made = service_port(port, number.unwrap_or(port.port));
            if ports.iter().any(|one| (one.port, &one.protocol) == (made.port, &made.protocol)) {
                continue;
            }
            // What is published several times needs a name each time.
            let by_number = || format!("{}-{}", port.protocol().to_ascii_lowercase(), made.port);
            let spoken = port.app_protocol.is_some() && published.len() == 1;
            let name = if spoken { made.name.clone() } else { Some(by_number()) };
            ports.push(ServicePort { name, ..made });
        }
    }
    let mut spec = ServiceSpec { selector: Some(labels::selector(cx, &plan.name)), ..ServiceSpec::default() };
    outward(plan, &mut spec, &mut ports, findings);
    spec.ports = Some(ports);
    let mut notes = Notes::default();
    notes.at("/spec/ports", cx.origin(&plan.service.name, &["ports"]));
    notes.say("/spec/type", "kompose.service.type");
    let object = Service { metadata: metadata(cx, plan, name), spec: Some(spec), ..Service::default() };
    let head = "From outside; inside, pods are asked for at their own ports".to_owned();
    Object::new(&plan.name, &object, notes, Some(head))
}

/// A further name for the same pods.
fn other_name(
    cx: &Context<'_>,
    plan: &Plan<'_>,
    alias: &str,
    taken: &mut BTreeSet<String>,
    objects: &mut Vec<Object>,
    findings: &mut Findings<'_>,
) {
    let name = dns_label(alias);
    if name == plan.name {
        return;
    }
    let path = of_service(&plan.service.name, "networks");
    if !is_service_name(&name) || name != alias {
        let message = format!("{alias:?} cannot be the name of a Service");
        findings.warn(&path, message, "use lower-case letters, digits and hyphens, and begin with a letter");
        return;
    }
    if !taken.insert(name.clone()) {
        let message = format!("{alias} is the name of several: a name means one thing in all of a namespace");
        findings.warn(&path, message, "give each a name of its own");
        return;
    }
    let declared = plan.ports.iter().filter(|port| port.declared);
    let ports: Vec<ServicePort> = declared.map(|port| service_port(port, port.port)).collect();
    let headless = ports.is_empty() || plan.kind == Kind::StatefulSet;
    let spec = ServiceSpec {
        cluster_ip: headless.then(|| "None".to_owned()),
        ports: (!ports.is_empty()).then_some(ports),
        selector: Some(labels::selector(cx, &plan.name)),
        ..ServiceSpec::default()
    };
    let object = Service { metadata: metadata(cx, plan, &name), spec: Some(spec), ..Service::default() };
    let origin = cx.origin(&plan.service.name, &["networks", "container_name", "links"]);
    let head = origin.map(|origin| format!("Another name of {}: {origin}", plan.name));
    objects.push(Object::new(&plan.name, &object, Notes::default(), head));
}

/// The name of one replica, as the file's other services know it.
fn replica(
    cx: &Context<'_>,
    plan: &Plan<'_>,
    ordinal: u32,
    taken: &mut BTreeSet<String>,
    objects: &mut Vec<Object>,
) {
    let name = format!("{}-{ordinal}", plan.name);
    if !is_service_name(&name) || !taken.insert(name.clone()) {
        return;
    }
    let mut selector = labels::selector(cx, &plan.name);
    selector.insert("statefulset.kubernetes.io/pod-name".to_owned(), name.clone());
    let ports: Vec<ServicePort> =
        plan.ports.iter().filter(|port| port.declared).map(|port| service_port(port, port.port)).collect();
    let spec = ServiceSpec {
        cluster_ip: Some("None".to_owned()),
        ports: (!ports.is_empty()).then_some(ports),
        // Replicas that know each other by name do so in order to become ready.
        publish_not_ready_addresses: Some(true),
        selector: Some(selector),
        ..ServiceSpec::default()
    };
    let object = Service { metadata: metadata(cx, plan, &name), spec: Some(spec), ..Service::default() };
    let head = format!("Other services ask for the replica {name} by its name");
    objects.push(Object::new(&plan.name, &object, Notes::default(), Some(head)));
}

fn ingress(
    cx: &Context<'_>,
    plan: &Plan<'_>,
    expose: &Expose,
    declared: &[&PodPort],
    findings: &mut Findings<'_>,
) -> Option<Object> {
    let label = |name: &str| -> String { format!("kompose.service.expose{name}") };
    let path = ["services", &plan.service.name, "labels", "kompose.service.expose"];
    if expose.hosts.is_empty() {
        let message = "an Ingress is described, and nothing asks for one";
        findings.warn(&path, message, "add kompose.service.expose: \"true\", or its hosts");
        return None;
    }
    let http = declared.iter().find(|port| port.app_protocol == Some("http"));
    let Some(port) = http.or(declared.iter().find(|port| port.protocol() == "TCP")) else {
        let message = format!("{} has no TCP port that an Ingress could lead to", plan.name);
        findings.error(&path, message, "name it under ports: or expose:");
        return None;
    };
    let backend = || IngressBackend {
        service: Some(IngressServiceBackend {
            name: plan.name.clone(),
            port: Some(ServiceBackendPort { name: Some(port.name.clone()), number: None }),
        }),
        resource: None,
    };
    let rule = |(host, path): &(Option<String>, String)| IngressRule {
        host: host.clone(),
        http: Some(HTTPIngressRuleValue {
            paths: vec![HTTPIngressPath {
                path: Some(path.clone()),
                path_type: "Prefix".to_owned(),
                backend: backend(),
            }],
        }),
    };
    let hosts: BTreeSet<String> = expose.hosts.iter().filter_map(|(host, _)| host.clone()).collect();
    let hosts = (!hosts.is_empty()).then(|| hosts.into_iter().collect());
    let spec = IngressSpec {
        ingress_class_name: expose.class.clone(),
        rules: Some(expose.hosts.iter().map(rule).collect()),
        tls: expose.tls.clone().map(|secret| vec![IngressTLS { hosts, secret_name: Some(secret) }]),
        ..IngressSpec::default()
    };
    let mut notes = Notes::default();
    let said = |name: &str| {
        let label = label(name);
        let path = ["services", &plan.service.name, "labels", &label];
        cx.origin_at(&path, &label)
    };
    notes.at("/spec/rules", said(""));
    notes.at("/spec/tls", said(".tls-secret"));
    notes.at("/spec/ingressClassName", said(".ingress-class-name"));
    let object = Ingress { metadata: metadata(cx, plan, &plan.name), spec: Some(spec), ..Ingress::default() };
    Some(Object::new(&plan.name, &object, notes, None))
}

/// Names that Services have by themselves: what further ones must not be called.
pub(crate) fn names(plans: &Plans<'_>) -> BTreeSet<String> {
    plans.services.values().filter(|plan| plan.has_service()).map(|plan| plan.name.clone()).collect()
}
