//! Virtual nodes.

use super::Format;
use clap::{Args, Subcommand};
use std::time::Duration;
use throng_model::node::{LinkChange, check_bandwidth, check_delay};
use throng_model::units;

#[derive(Debug, Subcommand)]
pub enum NodeCommand {
    /// List nodes: what they hold, what is asked of them, and their links
    Ls(NodeLsArguments),
    /// Move a node's replicas elsewhere and put nothing new there until uncordon
    Drain(NodeChoiceArguments),
    /// Put replicas there again
    Uncordon(NodeChoiceArguments),
    /// Let no packet pass to or from a node; its replicas go on
    Cut(NodeCutArguments),
    /// Let packets pass again, over a link as the Compose file says
    Heal(NodeChoiceArguments),
    /// Change a node's link: `throng node set pi4-1 latency=20ms loss=1%`
    Set(NodeSetArguments),
}

#[derive(Debug, Args)]
pub struct NodeLsArguments {
    /// How the list is printed
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

#[derive(Debug, Args)]
pub struct NodeChoiceArguments {
    /// Which nodes
    #[arg(value_name = "NODE", required_unless_present_any = ["region", "label"])]
    pub nodes: Vec<String>,
    /// All nodes of a region; may be given several times
    #[arg(long, value_name = "REGION")]
    pub region: Vec<String>,
    /// All nodes with a label; of several labels those that have all
    #[arg(long, value_name = "NAME=VALUE", value_parser = label)]
    pub label: Vec<(String, String)>,
}

#[derive(Debug, Args)]
pub struct NodeCutArguments {
    #[command(flatten)]
    pub choice: NodeChoiceArguments,
    /// Heal them after this time, as in 20s
    #[arg(long = "for", value_name = "TIME", value_parser = super::faults::lasting)]
    pub lasts: Option<Duration>,
}

fn label(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(name, _)| !name.is_empty());
    pair.map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| "write NAME=VALUE, as in kind=edge".into())
}

const SET_MORE: &str = "\
    Keys: latency=TIME and jitter=TIME (one way, as in 20ms), loss=PERCENT, bandwidth=BITS (as in 100mbit, or none), \
    up=true|false. What is not named stays as it is; `throng up` sets links as the Compose file says.";

#[derive(Debug, Args)]
#[command(after_help = SET_MORE)]
pub struct NodeSetArguments {
    /// Which node
    pub node: String,
    /// What its link is to be
    #[arg(required = true, value_name = "KEY=VALUE", value_parser = setting)]
    pub settings: Vec<LinkChange>,
}

/// One setting of a link.
fn setting(text: &str) -> Result<LinkChange, String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE, as in latency=20ms")?;
    let time = || {
        let time = units::parse_duration(value).map_err(|error| error.to_string())?;
        check_delay(key, time).map(Some)
    };
    let mut change = LinkChange::default();
    match key {
        "latency" => change.latency = time()?,
        "jitter" => change.jitter = time()?,
        "loss" => change.loss = Some(units::parse_percent(value).map_err(|error| error.to_string())?),
        "bandwidth" if value == "none" => change.bandwidth = Some(None),
        "bandwidth" => {
            let bits = units::parse_bits(value).map_err(|error| error.to_string())?;
            change.bandwidth = Some(Some(check_bandwidth(bits)?));
        }
        "up" => change.up = Some(value.parse().map_err(|_| "up is true or false")?),
        _ => return Err("the keys are latency, jitter, loss, bandwidth and up".into()),
    }
    Ok(change)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_or_refused() {
        let latency = LinkChange { latency: Some(Duration::from_millis(20)), ..LinkChange::default() };
        assert_eq!(setting("latency=20ms"), Ok(latency));
        assert_eq!(setting("bandwidth=none").map(|change| change.bandwidth), Ok(Some(None)));
        assert_eq!(setting("loss=1%").map(|change| change.loss), Ok(Some(0.01)));
        for wrong in
            ["latency", "latency=20", "latency=2m", "loss=101%", "bandwidth=1bit", "up=no", "speed=1"]
        {
            assert!(setting(wrong).is_err(), "{wrong}");
        }
    }
}
