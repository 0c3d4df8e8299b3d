//! Virtual nodes: what they hold, and what is said about them while the app runs.

use crate::cli::{Format, NodeChoiceArguments, NodeCommand, NodeLsArguments, NodeSetArguments};
use crate::failure::{Failure, Kind, Result};
use crate::project::Context;
use crate::terminal::table;
use serde_json::json;
use std::time::Duration;
use throng_model::node::{LinkChange, NodeChange, NodeChoice, NodeStatus};
use throng_model::units::format_bytes;

const HEADINGS: [&str; 8] = ["NAME", "STATE", "REPLICAS", "CPUS", "MEMORY", "REGION", "LABELS", "LINK"];

pub async fn run(context: &Context, command: NodeCommand) -> Result<()> {
    match command {
        NodeCommand::Ls(arguments) => ls(context, arguments).await,
        NodeCommand::Drain(arguments) => change(context, arguments, NodeChange::Drain, None).await,
        NodeCommand::Uncordon(arguments) => change(context, arguments, NodeChange::Uncordon, None).await,
        NodeCommand::Cut(arguments) => {
            change(context, arguments.choice, NodeChange::cut(), arguments.lasts).await
        }
        NodeCommand::Heal(arguments) => change(context, arguments, NodeChange::Heal, None).await,
        NodeCommand::Set(arguments) => set(context, arguments).await,
    }
}

async fn change(
    context: &Context,
    arguments: NodeChoiceArguments,
    change: NodeChange,
    lasts: Option<Duration>,
) -> Result<()> {
    let labels = arguments.label.into_iter().collect();
    let choice = NodeChoice { names: arguments.nodes, regions: arguments.region, labels };
    Ok(context.running().await?.change_nodes(choice, change, lasts).await?)
}

async fn set(context: &Context, arguments: NodeSetArguments) -> Result<()> {
    let mut link = LinkChange::default();
    arguments.settings.iter().for_each(|setting| link.add(setting));
    let client = context.running().await?;
    let choice = NodeChoice::one(&arguments.node);
    // Only together do they make sense, and part of it may be set already.
    let mut result = client
        .nodes()
        .await?
        .into_iter()
        .find(|node| node.name == arguments.node)
        .unwrap_or(NodeStatus { name: String::new(), ..NodeStatus::default() });
    link.apply(&mut result.node.link);
    if result.node.link.jitter > result.node.link.latency {
        return Err(Failure::new(Kind::Input, "the jitter is larger than the latency")
            .hint("jitter spreads the latency in both directions"));
    }
    Ok(client.change_nodes(choice, NodeChange::Link(link), None).await?)
}

async fn ls(context: &Context, arguments: NodeLsArguments) -> Result<()> {
    let nodes = context.running().await?.nodes().await?;
    match arguments.format {
        Format::Json => nodes.iter().for_each(|node| outln!("{}", json(node))),
        Format::Table => {
            let rows: Vec<Vec<String>> = nodes.iter().map(row).collect();
            out!("{}", table(&HEADINGS, &rows));
            if nodes.is_empty() {
                eprintln!("the app has no nodes; declare some under x-throng.nodes of the Compose file");
            }
        }
    }
    Ok(())
}

fn row(status: &NodeStatus) -> Vec<String> {
    let NodeStatus { node, requested, .. } = status;
    let replicas = match node.capacity.replicas {
        Some(most) => format!("{}/{most}", status.replicas),
        None => status.replicas.to_string(),
    };
    let cpus = match node.capacity.cpus {
        Some(cpus) => format!("{}/{cpus}", requested.cpus.unwrap_or(0.0)),
        None => requested.cpus.unwrap_or(0.0).to_string(),
    };
    let used = format_bytes(requested.memory.unwrap_or(0));
    let memory =
        node.capacity.memory.map_or(used.clone(), |memory| format!("{used}/{}", format_bytes(memory)));
    let labels =
        node.labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",");
    let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    vec![
        status.name.clone(),
        status.state.clone(),
        replicas,
        cpus,
        memory,
        or_dash(node.region.clone().unwrap_or_default()),
        or_dash(labels),
        node.link.to_string(),
    ]
}

fn json(status: &NodeStatus) -> serde_json::Value {
    let NodeStatus { node, requested, .. } = status;
    let link = &node.link;
    json!({
        "Name": status.name,
        "State": status.state,
        "Replicas": status.replicas,
        "Capacity": {
            "Cpus": node.capacity.cpus, "Memory": node.capacity.memory, "Replicas": node.capacity.replicas,
        },
        "Requested": { "Cpus": requested.cpus, "Memory": requested.memory },
        "Labels": node.labels,
        "Architecture": node.architecture,
        "Region": node.region,
        "Link": {
            "LatencyMs": link.latency.as_secs_f64() * 1e3,
            "JitterMs": link.jitter.as_secs_f64() * 1e3,
            "LossPercent": link.loss * 100.0,
            "BitsPerSecond": link.bandwidth,
            "Up": link.up,
        },
        "Packets": status.traffic.map(|traffic| json!({
            "Passed": traffic.passed, "Lost": traffic.lost, "Overflowed": traffic.overflowed,
        })),
    })
}
