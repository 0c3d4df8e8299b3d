//! What the nodes of a cluster have to be told, as files that people put there.

use super::{WIDTH, digits, indented};
use crate::cli::Format;
use crate::terminal::{Style, table, wrap};
use serde_json::{Value, json};
use throng_walls::cluster::{
    CLUSTER_CIDR_DEFAULT, COLLECT_FROM, COLLECT_TO, Limit, Line, NODE_MASK_DEFAULT, PODS_DEFAULT, Plan,
    Preparation, prepare, reserved_memory,
};

const K3S_FILE: &str = "/etc/rancher/k3s/config.yaml";
const SYSCTL_FILE: &str = "/etc/sysctl.d/90-throng-kubernetes.conf";

/// Prints what has to be set; whether that lets the nodes hold so many.
pub fn run(plan: Plan, format: Format) -> bool {
    let found = prepare(plan);
    match format {
        Format::Json => outln!("{}", as_json(&found)),
        Format::Table => out!("{}", show(Style::for_stdout(), &found)),
    }
    found.impossible.is_empty()
}

fn as_json(found: &Preparation) -> Value {
    let values = |lines: &[Line]| -> Value {
        lines.iter().map(|line| (line.key.to_owned(), Value::from(line.value.as_str()))).collect()
    };
    json!({
        "preparation": found,
        "kubeletConfiguration": configuration(found),
        "k3s": {"server": k3s_server(found), "node": {"kubelet-arg": kubelet_arguments(found)}},
        "sysctl": values(&found.sysctls),
    })
}

fn show(style: Style, found: &Preparation) -> String {
    let mut text = wrap(&introduction(found), WIDTH) + "\n\n";
    let row = |limit: &Limit| {
        let state = if limit.suffices() { "ok" } else { "to be set" };
        vec![limit.name.to_owned(), state.into(), digits(limit.default), digits(limit.needed)]
    };
    let rows: Vec<Vec<String>> = found.limits.iter().map(row).collect();
    for (number, line) in table(&["LIMIT", "STATE", "DEFAULT", "NEEDED"], &rows).lines().enumerate() {
        text += &if number == 0 { style.bold(line) } else { line.to_owned() };
        text.push('\n');
    }
    for limit in found.limits.iter().filter(|limit| !limit.suffices()) {
        text += &indented("", &format!("{}: {}", limit.name, limit.why));
    }
    for reason in &found.impossible {
        text += &format!("\n{}\n", style.red(&wrap(&format!("Cannot be: {reason}."), WIDTH)));
    }
    text += &section(style, &format!("k3s, on servers and agents: {K3S_FILE}"), &k3s_node_yaml(found));
    let server = k3s_server_yaml(found);
    if !server.is_empty() {
        text += &section(style, "k3s, on servers besides, before the cluster is made", &server);
        text += &indented(
            "",
            "Elsewhere: flags of kube-controller-manager. Nodes that are there keep what they have.",
        );
    }
    text += &section(style, "Any other cluster: the kubelet's configuration", &kubelet_yaml(found));
    text += &section(style, &format!("The kernel of each node: {SYSCTL_FILE}"), &sysctl_file(found));
    text += &format!("\n{}\n", wrap(&ending(found), WIDTH));
    text
}

fn introduction(found: &Preparation) -> String {
    let Plan { pods, nodes, .. } = found.plan;
    let on = if nodes == 1 { "one node".to_owned() } else { format!("{} nodes", digits(nodes)) };
    format!(
        "{} pods on {on}: {} on each, and {} while all are updated, the cluster's own counted.",
        digits(pods),
        digits(found.pods_per_node),
        digits(found.pods_at_most)
    )
}

fn ending(found: &Preparation) -> String {
    match found.nodes_by_default {
        nodes if nodes <= found.plan.nodes => "The defaults hold that many pods.".into(),
        nodes => format!(
            "On {} nodes nothing of this would have to be set. Kubernetes itself is tested with {} pods a node.",
            digits(nodes),
            PODS_DEFAULT
        ),
    }
}

fn section(style: Style, title: &str, lines: &str) -> String {
    let lines: String = lines.lines().map(|line| format!("  {line}\n")).collect();
    format!("\n{}\n{lines}", style.bold(title))
}

/// A value and why, the reason in a column of its own unless the line would be too wide.
fn commented(line: &str, why: &str) -> String {
    let one = format!("{line:<38} # {why}");
    if one.chars().count() + 2 <= WIDTH {
        return one + "\n";
    }
    let indent = line.len() - line.trim_start().len();
    let comment = wrap(why, WIDTH - indent - 4);
    comment.lines().map(|part| format!("{:indent$}# {part}\n", "")).collect::<String>() + line + "\n"
}

/// The kubelet's configuration as JSON, which is YAML as well.
fn configuration(found: &Preparation) -> Value {
    let mut all = json!({"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration"});
    for line in &found.kubelet {
        all[line.key] = line.value.parse::<u64>().map_or_else(|_| line.value.as_str().into(), Value::from);
    }
    all["evictionHard"] =
        found.eviction.iter().map(|line| (line.key.to_owned(), Value::from(line.value.as_str()))).collect();
    all["imageGCHighThresholdPercent"] = COLLECT_FROM.into();
    all["imageGCLowThresholdPercent"] = COLLECT_TO.into();
    all["kubeReserved"] = json!({"memory": format!("{}Mi", reserved_memory(found.pods_at_most))});
    all
}

fn kubelet_yaml(found: &Preparation) -> String {
    let mut text = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n".to_owned();
    for line in &found.kubelet {
        text += &commented(&format!("{}: {}", line.key, line.value), line.why);
    }
    text +=
        &commented("evictionHard:", "all of them, since naming one takes the defaults of the others away");
    for line in &found.eviction {
        text += &commented(&format!("  {}: \"{}\"", line.key, line.value), line.why);
    }
    let images = [("imageGCHighThresholdPercent", COLLECT_FROM), ("imageGCLowThresholdPercent", COLLECT_TO)];
    let why = ["images are collected from here on", "and down to here, so that no pod is evicted for them"];
    for ((key, value), why) in images.into_iter().zip(why) {
        text += &commented(&format!("{key}: {value}"), why);
    }
    text += "kubeReserved:\n";
    text + &commented(
        &format!("  memory: {}Mi", reserved_memory(found.pods_at_most)),
        "for kubelet and runtime",
    )
}

/// The same as the kubelet's flags, which is how k3s takes them.
fn kubelet_arguments(found: &Preparation) -> Vec<String> {
    let flag = |key: &str| match key {
        "maxPods" => "max-pods".to_owned(),
        "kubeAPIQPS" => "kube-api-qps".to_owned(),
        "kubeAPIBurst" => "kube-api-burst".to_owned(),
        other => other.to_owned(),
    };
    let thresholds: Vec<String> =
        found.eviction.iter().map(|line| format!("{}<{}", line.key, line.value)).collect();
    let mut all: Vec<String> =
        found.kubelet.iter().map(|line| format!("{}={}", flag(line.key), line.value)).collect();
    all.extend([
        format!("eviction-hard={}", thresholds.join(",")),
        format!("image-gc-high-threshold={COLLECT_FROM}"),
        format!("image-gc-low-threshold={COLLECT_TO}"),
        format!("kube-reserved=memory={}Mi", reserved_memory(found.pods_at_most)),
    ]);
    all
}

fn k3s_node_yaml(found: &Preparation) -> String {
    let argument = |argument: String| match argument.split_once(",").filter(|_| argument.len() > WIDTH - 8) {
        // Folded by YAML itself: a scalar in quotes may go on in the next line, and `\` keeps blanks out of it.
        Some(_) => format!("  - \"{}\"\n", argument.replace(',', ",\\\n     ")),
        None => format!("  - \"{argument}\"\n"),
    };
    "kubelet-arg:\n".to_owned() + &kubelet_arguments(found).into_iter().map(argument).collect::<String>()
}

fn k3s_server(found: &Preparation) -> Value {
    let mut all = json!({});
    if found.node_mask != NODE_MASK_DEFAULT {
        all["kube-controller-manager-arg"] = json!([format!("node-cidr-mask-size={}", found.node_mask)]);
    }
    if found.cluster_cidr != CLUSTER_CIDR_DEFAULT {
        all["cluster-cidr"] = found.cluster_cidr.as_str().into();
    }
    all
}

fn k3s_server_yaml(found: &Preparation) -> String {
    let set = k3s_server(found);
    let mut text = String::new();
    if let Some(cidr) = set["cluster-cidr"].as_str() {
        text += &commented(&format!("cluster-cidr: {cidr}"), "for the pods of all nodes");
    }
    if set.get("kube-controller-manager-arg").is_some() {
        text += "kube-controller-manager-arg:\n";
        text += &commented(
            &format!("  - \"node-cidr-mask-size={}\"", found.node_mask),
            &format!("{} addresses", digits((1u64 << (32 - found.node_mask)) - 2)),
        );
    }
    text
}

fn sysctl_file(found: &Preparation) -> String {
    let line = |line: &Line| format!("# {}\n{} = {}\n", line.why, line.key, line.value);
    found.sysctls.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use saphyr::{LoadableYamlNode, Scalar, Yaml};

    fn parsed(text: &str) -> Value {
        fn value(yaml: &Yaml) -> Value {
            match yaml {
                Yaml::Value(Scalar::Integer(number)) => (*number).into(),
                Yaml::Value(Scalar::String(text)) => text.as_ref().into(),
                Yaml::Sequence(list) => list.iter().map(value).collect(),
                Yaml::Mapping(map) => {
                    let entry =
                        |(key, at): (&Yaml, &Yaml)| (key.as_str().expect("a text").to_owned(), value(at));
                    map.iter().map(entry).collect()
                }
                other => panic!("{other:?} is not expected"),
            }
        }
        value(&Yaml::load_from_str(text).expect("YAML")[0])
    }

    fn found(pods: u64, nodes: u64) -> Preparation {
        prepare(Plan { pods, nodes, processes: 1 })
    }

    #[test]
    fn the_files_say_the_same_in_either_form() {
        for (pods, nodes) in [(10, 1), (1_000, 2), (20_000, 300)] {
            let found = found(pods, nodes);
            let yaml = parsed(&kubelet_yaml(&found));
            assert_eq!(yaml, configuration(&found), "{pods} on {nodes}");
            let k3s = parsed(&(k3s_server_yaml(&found) + &k3s_node_yaml(&found)));
            let mut expected = k3s_server(&found);
            expected["kubelet-arg"] = kubelet_arguments(&found).into();
            assert_eq!(k3s, expected, "{pods} on {nodes}");
        }
    }

    #[test]
    fn no_line_is_wider_than_a_page() {
        for (pods, nodes) in [(10, 1), (1_000, 2), (5_000, 1), (4_000_000, 50_000)] {
            let text = show(Style { color: false }, &found(pods, nodes));
            for line in text.lines() {
                assert!(line.chars().count() <= WIDTH, "{line}");
            }
        }
    }

    #[test]
    fn only_what_differs_is_to_be_set() {
        let few = show(Style { color: false }, &found(10, 1));
        assert!(!few.contains("maxPods") && !few.contains("node-cidr-mask-size"), "{few}");
        assert!(few.contains("The defaults hold that many pods."), "{few}");
        let many = show(Style { color: false }, &found(1_000, 2));
        for expected in ["max-pods=640", "node-cidr-mask-size=21", "maxPods: 640", "On 13 nodes nothing"] {
            assert!(many.contains(expected), "{expected}: {many}");
        }
    }
}
