//! Every name that an object uses is there, and every selector finds pods.

use crate::common::good;
use serde_json::Value;
use std::collections::BTreeSet;
use throng_kube::Object;

/// All that an object refers to which the same output must hold. `external`: names that are somebody else's.
pub fn check(objects: &[Object]) -> Result<(), String> {
    let have: BTreeSet<(&str, &str)> =
        objects.iter().map(|object| (object.kind.as_str(), object.name.as_str())).collect();
    if have.len() != objects.len() {
        return Err("two objects of one kind have the same name".into());
    }
    let pods: Vec<(&Object, &Value)> = objects.iter().filter_map(|o| Some((o, template(o)?))).collect();
    for object in objects {
        let spec = &object.value["spec"];
        bounds(object, spec)?;
        match object.kind.as_str() {
            "Service" => service(object, spec, &pods)?,
            "HorizontalPodAutoscaler" | "VerticalPodAutoscaler" => {
                let target = spec.get("scaleTargetRef").unwrap_or(&spec["targetRef"]);
                let found = (text(target, "kind"), text(target, "name"));
                require(have.contains(&found), object, &format!("scales {found:?}"))?;
            }
            "PodDisruptionBudget" => matched(object, &spec["selector"], &pods)?,
            "NetworkPolicy" => policy(object, spec, &pods)?,
            "Ingress" => {
                for name in strings(spec, &["rules", "http", "paths", "backend", "service", "name"]) {
                    require(have.contains(&("Service", &name)), object, &name)?;
                }
            }
            "RoleBinding" => {
                let name = text(&object.value["roleRef"], "name");
                require(have.contains(&("Role", name)), object, name)?;
            }
            "Role" => {
                for name in strings(&object.value, &["rules", "resourceNames"]) {
                    require(have.contains(&("Job", &name)), object, &name)?;
                }
            }
            _ => {}
        }
        if let Some(template) = template(object) {
            pod(object, template, &have)?;
        }
    }
    Ok(())
}

fn require(holds: bool, object: &Object, what: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(format!("{} {}: {what}", object.kind, object.name)) }
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

/// All texts at the end of a path of keys, through lists.
fn strings(value: &Value, path: &[&str]) -> Vec<String> {
    match value {
        Value::Array(items) => items.iter().flat_map(|item| strings(item, path)).collect(),
        Value::String(text) if path.is_empty() => vec![text.clone()],
        Value::Object(map) if !path.is_empty() => {
            map.get(path[0]).map(|value| strings(value, &path[1..])).unwrap_or_default()
        }
        _ => Vec::new(),
    }
}

/// The pods that an object makes.
fn template(object: &Object) -> Option<&Value> {
    let pointer = match object.kind.as_str() {
        "CronJob" => "/spec/jobTemplate/spec/template",
        _ => "/spec/template",
    };
    object.value.pointer(pointer)
}

fn selects(selector: &Value, template: &Value) -> bool {
    let Some(wanted) = selector.as_object() else { return true };
    let labels = &template["metadata"]["labels"];
    // The controller of a StatefulSet adds this one.
    let own = "statefulset.kubernetes.io/pod-name";
    wanted.iter().all(|(key, value)| key == own || labels.get(key) == Some(value))
}

fn matched(object: &Object, selector: &Value, pods: &[(&Object, &Value)]) -> Result<(), String> {
    let found = pods.iter().any(|(_, template)| selects(&selector["matchLabels"], template));
    require(found, object, "selects no pods")
}

fn service(object: &Object, spec: &Value, pods: &[(&Object, &Value)]) -> Result<(), String> {
    let mine: Vec<_> = pods.iter().filter(|(_, template)| selects(&spec["selector"], template)).collect();
    require(mine.len() == 1, object, &format!("selects the pods of {} controllers", mine.len()))?;
    let named = strings(mine[0].1, &["spec", "containers", "ports", "name"]);
    well_formed(object, spec)?;
    for port in strings(spec, &["ports", "targetPort"]) {
        require(named.contains(&port), object, &format!("leads to the port {port}"))?;
    }
    Ok(())
}

/// What an API server checks of a Service beyond its types.
fn well_formed(object: &Object, spec: &Value) -> Result<(), String> {
    let ports: Vec<&Value> = spec["ports"].as_array().into_iter().flatten().collect();
    let headless = spec["clusterIP"] == "None";
    require(headless || !ports.is_empty(), object, "has an address and no port")?;
    require(!headless || spec.get("type").is_none(), object, "has no address to be reached at from outside")?;
    let names: BTreeSet<&str> = ports.iter().map(|port| text(port, "name")).collect();
    require(names.len() == ports.len(), object, "has two ports of one name")?;
    let distinct: BTreeSet<(i64, &str)> = ports
        .iter()
        .map(|port| (port["port"].as_i64().unwrap_or_default(), text(port, "protocol")))
        .collect();
    require(distinct.len() == ports.len(), object, "has one port twice")?;
    require(
        names.iter().all(|name| (1..=15).contains(&name.len())),
        object,
        "has a port with a name too long",
    )
}

/// What an API server checks of amounts and bounds.
fn bounds(object: &Object, spec: &Value) -> Result<(), String> {
    let rolling = spec.pointer("/strategy/rollingUpdate").or(spec.pointer("/updateStrategy/rollingUpdate"));
    if let Some(rolling) = rolling {
        let none = |key: &str| rolling[key] == 0;
        require(!(none("maxSurge") && none("maxUnavailable")), object, "could never be updated")?;
    }
    if object.kind == "HorizontalPodAutoscaler" {
        let (least, most) = (spec["minReplicas"].as_i64().unwrap_or(1), spec["maxReplicas"].as_i64());
        require(most.is_some_and(|most| least <= most), object, "has no range")?;
    }
    Ok(())
}

fn policy(object: &Object, spec: &Value, pods: &[(&Object, &Value)]) -> Result<(), String> {
    matched(object, &spec["podSelector"], pods)?;
    for (way, side) in [("ingress", "from"), ("egress", "to")] {
        for rule in spec[way].as_array().into_iter().flatten() {
            for peer in rule[side].as_array().into_iter().flatten() {
                // Name servers are in a namespace of their own.
                if peer.get("namespaceSelector").is_none() {
                    matched(object, &peer["podSelector"], pods)?;
                }
            }
        }
    }
    let selected = pods.iter().filter(|(_, template)| selects(&spec["podSelector"]["matchLabels"], template));
    let named: Vec<String> = selected
        .flat_map(|(_, template)| strings(template, &["spec", "containers", "ports", "name"]))
        .collect();
    for port in strings(spec, &["ingress", "ports", "port"]) {
        require(named.contains(&port), object, &format!("lets in at {port}"))?;
    }
    Ok(())
}

fn pod(object: &Object, template: &Value, have: &BTreeSet<(&str, &str)>) -> Result<(), String> {
    let spec = &template["spec"];
    let selector = &object.value["spec"]["selector"];
    require(selects(&selector["matchLabels"], template), object, "does not select its own pods")?;
    let mut volumes: BTreeSet<String> = strings(spec, &["volumes", "name"]).into_iter().collect();
    let count = spec["volumes"].as_array().map_or(0, Vec::len);
    require(volumes.len() == count, object, "has two volumes of one name")?;
    volumes.extend(strings(&object.value, &["spec", "volumeClaimTemplates", "metadata", "name"]));
    let containers = ["initContainers", "containers"];
    let mut used = BTreeSet::new();
    for list in containers {
        for name in strings(spec, &[list, "volumeMounts", "name"]) {
            require(volumes.contains(&name), object, &format!("mounts {name}"))?;
            used.insert(name);
        }
    }
    require(used == volumes, object, "has volumes that nothing mounts")?;
    let names: Vec<String> = containers.iter().flat_map(|list| strings(spec, &[*list, "name"])).collect();
    let distinct: BTreeSet<&String> = names.iter().collect();
    require(distinct.len() == names.len(), object, "has two containers of one name")?;
    for (kind, path) in [
        ("ConfigMap", &["volumes", "configMap", "name"][..]),
        ("Secret", &["volumes", "secret", "secretName"]),
        ("Secret", &["volumes", "projected", "sources", "secret", "name"]),
        ("ConfigMap", &["volumes", "projected", "sources", "configMap", "name"]),
        ("Secret", &["containers", "env", "valueFrom", "secretKeyRef", "name"]),
    ] {
        for name in strings(spec, path) {
            require(have.contains(&(kind, &name)), object, &format!("uses the {kind} {name}"))?;
        }
    }
    if object.kind == "StatefulSet" {
        let name = text(&object.value["spec"], "serviceName");
        require(have.contains(&("Service", name)), object, &format!("is governed by {name}"))?;
    }
    let ports = strings(spec, &["containers", "ports", "name"]);
    for probe in ["readinessProbe", "livenessProbe", "startupProbe"] {
        for way in ["httpGet", "tcpSocket"] {
            for port in strings(spec, &["containers", probe, way, "port"]) {
                require(ports.contains(&port), object, &format!("is asked at the port {port}"))?;
            }
        }
    }
    Ok(())
}

/// Claims that a pod uses are there, unless the file calls them external.
pub fn check_claims(objects: &[Object], external: &[&str]) -> Result<(), String> {
    let claims: BTreeSet<&str> = objects
        .iter()
        .filter(|object| object.kind == "PersistentVolumeClaim")
        .map(|object| object.name.as_str())
        .collect();
    let pods = objects.iter().filter_map(|object| Some((object, template(object)?)));
    for (object, template) in pods {
        for name in strings(template, &["spec", "volumes", "persistentVolumeClaim", "claimName"]) {
            let there = claims.contains(&*name) || external.contains(&&*name);
            require(there, object, &format!("uses the claim {name}"))?;
        }
    }
    Ok(())
}

#[test]
fn a_name_that_is_not_there_is_found() {
    let objects =
        good("services: {web: {image: 'a:1', expose: [80], volumes: ['d:/d']}}\nvolumes: {d: }").objects;
    check(&objects).unwrap();
    let without =
        |kind: &str| objects.iter().filter(|object| object.kind != kind).cloned().collect::<Vec<_>>();
    assert!(check(&without("Service")).is_err());
    let mut wrong = objects.clone();
    for object in &mut wrong {
        if object.kind == "Service" {
            object.value["spec"]["selector"]["app.kubernetes.io/name"] = "other".into();
        }
    }
    assert!(check(&wrong).is_err());
}
