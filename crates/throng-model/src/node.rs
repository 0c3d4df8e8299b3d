//! Virtual nodes: shares of the host that stand for machines of their own, and the links that connect them.
//!
//! A link is what lies between a node and all others, as a cable or a radio does: every packet that leaves the node and
//! every packet to it passes it once, so what two nodes see of each other is the sum of both their links.

use crate::units::format_duration;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// The most nodes of one app.
pub const MAX_NODES: usize = 1_000;
/// The longest delay that a link can be given, and the widest spread around it.
pub const MAX_LATENCY: Duration = Duration::from_secs(60);
/// Bits a second of the slowest and the fastest link.
pub const BANDWIDTH: std::ops::RangeInclusive<u64> = 8_000..=100_000_000_000;

/// One virtual node. Its name is the key of its map.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Node {
    #[serde(default, skip_serializing_if = "Capacity::is_unlimited")]
    pub capacity: Capacity,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// What placement compares with, in the names of OCI images (`amd64`, `arm64`). Programs are the host's all the same.
    pub architecture: String,
    /// Nodes that faults reach together: a site, a rack, a provider's region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    #[serde(default, skip_serializing_if = "Link::is_perfect")]
    pub link: Link,
}

/// What the replicas of a node have together; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Capacity {
    /// Cores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<f64>,
    /// Bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,
}

impl Capacity {
    pub fn is_unlimited(&self) -> bool {
        *self == Capacity::default()
    }
}

/// What happens to each packet between a node and the rest, in each of the two directions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Link {
    /// How long a packet is under way, one way, beside the time that its bits take at the bandwidth.
    pub latency: Duration,
    /// The latency of each packet is spread evenly this far in both directions. Packets do not overtake each other.
    pub jitter: Duration,
    /// The part of the packets that is lost, 0 to 1, each one by chance.
    pub loss: f64,
    /// Bits a second of whole IP packets; `None` is no limit.
    pub bandwidth: Option<u64>,
    /// Nothing passes a link that is down.
    pub up: bool,
}

impl Default for Link {
    fn default() -> Self {
        Link { latency: Duration::ZERO, jitter: Duration::ZERO, loss: 0.0, bandwidth: None, up: true }
    }
}

impl Link {
    /// Whether it does nothing to any packet.
    pub fn is_perfect(&self) -> bool {
        *self == Link::default()
    }
}

impl fmt::Display for Link {
    /// `20ms ± 2ms, loss 1 %, 100 Mbit/s`; `perfect` if it does nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if !self.up {
            parts.push("down".to_owned());
        }
        match (self.latency.is_zero(), self.jitter.is_zero()) {
            (true, true) => {}
            (_, true) => parts.push(short(self.latency)),
            _ => parts.push(format!("{} ± {}", short(self.latency), short(self.jitter))),
        }
        if self.loss > 0.0 {
            parts.push(format!("loss {}", percent(self.loss)));
        }
        parts.extend(self.bandwidth.map(|bits| format!("{}/s", format_bits(bits))));
        f.write_str(&if parts.is_empty() { "perfect".to_owned() } else { parts.join(", ") })
    }
}

fn percent(share: f64) -> String {
    // To the millionth of a percent, without what binary fractions add.
    format!("{} %", (share * 1e8).round() / 1e6)
}

/// As [`format_duration`], but not less than a microsecond exact.
fn short(duration: Duration) -> String {
    let micros = duration.as_micros();
    if micros.is_multiple_of(1_000) {
        format_duration(duration)
    } else {
        format!("{}ms", micros as f64 / 1e3)
    }
}

/// What is wrong with a bandwidth that no link can have.
pub fn check_bandwidth(bits: u64) -> Result<u64, String> {
    if BANDWIDTH.contains(&bits) {
        return Ok(bits);
    }
    let (least, most) = (format_bits(*BANDWIDTH.start()), format_bits(*BANDWIDTH.end()));
    Err(format!("a link has from {least} to {most} a second"))
}

/// What is wrong with a latency or jitter, called `what`, that no link can have.
pub fn check_delay(what: &str, time: Duration) -> Result<Duration, String> {
    match time <= MAX_LATENCY {
        true => Ok(time),
        false => Err(format!("the longest {what} is {}", format_duration(MAX_LATENCY))),
    }
}

/// `100 Mbit`, `1.5 Gbit`, `8 kbit`.
pub fn format_bits(bits: u64) -> String {
    let (value, unit) = match bits {
        0..1_000 => (bits as f64, "bit"),
        1_000..1_000_000 => (bits as f64 / 1e3, "kbit"),
        1_000_000..1_000_000_000 => (bits as f64 / 1e6, "Mbit"),
        _ => (bits as f64 / 1e9, "Gbit"),
    };
    format!("{} {unit}", (value * 1e3).round() / 1e3)
}

/// Where replicas of a service may be, as `deploy.placement` says, or by a node's name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Placement {
    /// All must hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub constraints: Vec<Constraint>,
    /// Replicas are spread evenly over the values of the first one, then within each over those of the next.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub spread: Vec<Subject>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub most_per_node: Option<u32>,
    /// As many replicas as there are nodes that fit, one on each (`deploy.mode: global`).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub on_each: bool,
}

impl Placement {
    pub fn is_anywhere(&self) -> bool {
        *self == Placement::default()
    }
}

/// `node.labels.kind == edge`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Constraint {
    pub subject: Subject,
    /// `==`, or else `!=`.
    pub equal: bool,
    pub value: String,
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.subject, if self.equal { "==" } else { "!=" }, self.value)
    }
}

/// What a constraint or a spread looks at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Subject {
    Label(String),
    /// The node's name.
    Name,
    Architecture,
    /// `linux`, whatever the node.
    System,
    /// `worker`, whatever the node.
    Role,
    Region,
}

impl Subject {
    /// Swarm's notation: `node.labels.KEY`, `node.hostname` and `node.id` (which are the same here),
    /// `node.platform.arch`, `node.platform.os`, `node.role`, and our own `node.region`.
    pub fn parse(text: &str) -> Option<Subject> {
        match text {
            "node.hostname" | "node.id" => Some(Subject::Name),
            "node.platform.arch" => Some(Subject::Architecture),
            "node.platform.os" => Some(Subject::System),
            "node.role" => Some(Subject::Role),
            "node.region" => Some(Subject::Region),
            _ => {
                let key = text.strip_prefix("node.labels.")?;
                (!key.is_empty()).then(|| Subject::Label(key.to_owned()))
            }
        }
    }

    /// What the node of that name says to it; empty for a label that it has not.
    pub fn of<'a>(&self, name: &'a str, node: &'a Node) -> &'a str {
        match self {
            Subject::Label(key) => node.labels.get(key).map_or("", String::as_str),
            Subject::Name => name,
            Subject::Architecture => &node.architecture,
            Subject::System => "linux",
            Subject::Role => "worker",
            Subject::Region => node.region.as_deref().unwrap_or_default(),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Subject::Label(key) => return write!(f, "node.labels.{key}"),
            Subject::Name => "node.hostname",
            Subject::Architecture => "node.platform.arch",
            Subject::System => "node.platform.os",
            Subject::Role => "node.role",
            Subject::Region => "node.region",
        })
    }
}

impl Constraint {
    /// Values are compared as Swarm does: without regard to case. Names that mean the same architecture are the same.
    pub fn holds(&self, name: &str, node: &Node) -> bool {
        let found = self.subject.of(name, node);
        let same = match self.subject {
            Subject::Architecture => architecture(found) == architecture(&self.value),
            _ => found.eq_ignore_ascii_case(&self.value),
        };
        same == self.equal
    }
}

/// The OCI image specification's name of an architecture (Go's `GOARCH`), whichever way it is written.
pub fn architecture(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    match lower.as_str() {
        "x86_64" | "x86-64" => "amd64".into(),
        "aarch64" | "arm64/v8" => "arm64".into(),
        "armv7l" | "armhf" | "arm/v7" => "arm".into(),
        "i386" | "i686" | "x86" => "386".into(),
        _ => lower,
    }
}

/// What somebody has changed about a node while the app runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LinkChange {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<Duration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter: Option<Duration>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// `Some(None)` takes the limit away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Option<u64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub up: Option<bool>,
}

impl LinkChange {
    /// What is said later wins.
    pub fn add(&mut self, later: &LinkChange) {
        self.latency = later.latency.or(self.latency);
        self.jitter = later.jitter.or(self.jitter);
        self.loss = later.loss.or(self.loss);
        self.bandwidth = later.bandwidth.or(self.bandwidth);
        self.up = later.up.or(self.up);
    }

    pub fn apply(&self, link: &mut Link) {
        link.latency = self.latency.unwrap_or(link.latency);
        link.jitter = self.jitter.unwrap_or(link.jitter);
        link.loss = self.loss.unwrap_or(link.loss);
        link.bandwidth = self.bandwidth.unwrap_or(link.bandwidth);
        link.up = self.up.unwrap_or(link.up);
    }
}

/// A node as a listing shows it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    pub name: String,
    /// `ready`, `drained` (nothing new is put there), `unreachable` (its link is down).
    pub state: String,
    pub node: Node,
    /// Replicas there, running or not.
    pub replicas: u32,
    /// What their services ask for, together.
    pub requested: Capacity,
    /// What became of the packets of its link, if that is not perfect.
    #[serde(default)]
    pub traffic: Option<LinkTraffic>,
}

/// Packets of one link since it was made, both directions together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkTraffic {
    pub passed: u64,
    /// By chance, as its loss says, or because it was down.
    pub lost: u64,
    /// More waited than its queue holds.
    pub overflowed: u64,
}

impl std::ops::Add for LinkTraffic {
    type Output = LinkTraffic;

    fn add(self, other: LinkTraffic) -> LinkTraffic {
        LinkTraffic {
            passed: self.passed + other.passed,
            lost: self.lost + other.lost,
            overflowed: self.overflowed + other.overflowed,
        }
    }
}

impl std::iter::Sum for LinkTraffic {
    fn sum<I: Iterator<Item = LinkTraffic>>(each: I) -> LinkTraffic {
        each.fold(LinkTraffic::default(), |sum, one| sum + one)
    }
}

/// What somebody says about nodes while the app runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeChange {
    /// Its replicas move elsewhere, and nothing new is put there.
    Drain,
    Uncordon,
    /// Its link is what the definition says again, and up.
    Heal,
    Link(LinkChange),
}

impl NodeChange {
    pub fn cut() -> NodeChange {
        NodeChange::Link(LinkChange { up: Some(false), ..LinkChange::default() })
    }
}

/// Which nodes are meant: those of these names, all of these regions, and all that have all of these labels, if any are
/// given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct NodeChoice {
    pub names: Vec<String>,
    pub regions: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl NodeChoice {
    pub fn one(name: impl Into<String>) -> NodeChoice {
        NodeChoice { names: vec![name.into()], ..NodeChoice::default() }
    }

    pub fn is_none(&self) -> bool {
        *self == NodeChoice::default()
    }

    /// Whether the node of that name is one of them.
    pub fn has(&self, name: &str, node: &Node) -> bool {
        let region = || node.region.as_ref().is_some_and(|region| self.regions.contains(region));
        self.names.iter().any(|one| one == name) || region() || self.labels_fit(node)
    }

    /// Whether the node has all the labels that are asked for, and some are.
    pub fn labels_fit(&self, node: &Node) -> bool {
        !self.labels.is_empty() && self.labels.iter().all(|(key, value)| node.labels.get(key) == Some(value))
    }

    /// `kind=edge, site=home`.
    pub fn labels_text(&self) -> String {
        self.labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(", ")
    }
}

impl fmt::Display for NodeChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let regions = self.regions.iter().map(|region| format!("region {region}"));
        let labels = (!self.labels.is_empty()).then(|| format!("nodes with {}", self.labels_text()));
        f.write_str(&self.names.iter().cloned().chain(regions).chain(labels).collect::<Vec<_>>().join(", "))
    }
}
