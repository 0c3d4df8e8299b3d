//! One recorded execution of an experiment: what the report, the comparison and the listings read.
//!
//! Times inside a run are seconds since its start, so that runs lie over each other.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The version of this record's shape, written into every run; readers refuse a newer one.
pub const RUN_VERSION: u32 = 1;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Run {
    pub version: u32,
    /// Sorts by time: `20261122-141503-pdfmagic`.
    pub id: String,
    pub project: String,
    pub title: String,
    pub description: String,
    /// RFC 3339, UTC.
    pub started_at: String,
    pub seconds: f64,
    pub outcome: Outcome,
    pub environment: Environment,
    /// Values of the experiment's variables in this run.
    pub variables: BTreeMap<String, String>,
    pub stages: Vec<Stage>,
    pub events: Vec<Event>,
    pub replicas: Vec<ReplicaSeries>,
    /// Number of replicas per service over time, one point at each change.
    pub replica_counts: BTreeMap<String, Vec<(f64, u32)>>,
    /// Number of replicas per service that there were to be, in the same form.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub replicas_wanted: BTreeMap<String, Vec<(f64, u32)>>,
    /// Three lines or so in plain language: what was learnt.
    pub summary: Vec<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    #[default]
    Passed,
    /// A threshold did not hold.
    Failed,
    /// Stopped by a person or an error before the end.
    Interrupted,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Environment {
    pub throng: String,
    pub kernel: String,
    pub operating_system: String,
    pub cpu: String,
    pub cores: u32,
    pub memory_bytes: u64,
    pub cgroup: String,
    pub isolation: String,
    /// Limits on CPU, memory and processes were not enforced.
    #[serde(default)]
    pub unlimited: bool,
    pub user: String,
    /// Anything else worth knowing: image digests, proxy policy, tool versions.
    pub details: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Stage {
    pub name: String,
    /// `up`, `scale`, `load`, `wait`, `pause`, `fault`.
    pub kind: String,
    /// What it did in words: `10 clients × 100 requests`.
    pub detail: String,
    /// One sentence for the reader about why this is done; empty if the file gives none.
    #[serde(default)]
    pub explain: String,
    pub begin: f64,
    pub end: f64,
    /// Replicas of the loaded service while the stage ran, for load stages.
    pub replicas: Option<u32>,
    /// One per repetition of a load stage; empty for others.
    pub loads: Vec<LoadResult>,
    pub thresholds: Vec<ThresholdResult>,
    /// What was done to the app on purpose while it ran.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<FaultSpan>,
    /// Error text if the stage failed to carry out.
    pub error: Option<String>,
    /// What a replica that failed it wrote last, a line each with its name before it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log: Vec<String>,
}

/// A fault, from when it befell the app to when it was over.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FaultSpan {
    /// `pause 30 % of web for 20s`.
    pub what: String,
    /// Seconds since the run's start.
    pub begin: f64,
    /// `None` of what is over at once, as a kill, and of what lasted beyond its stage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<f64>,
}

/// What a load made of a service. Latencies are in microseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LoadResult {
    pub target: String,
    /// `closed: 10 clients × 100 requests`, `open: 200/s for 30 s, poisson`.
    pub schedule: String,
    /// What was asked of the service whatever it answered; `None` if that followed from the answers (closed loop).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub demand: Option<Demand>,
    /// When it began, in seconds since the run's start.
    pub begin: f64,
    pub seconds: f64,
    /// Requests that were sent or should have been sent.
    pub requests: u64,
    /// Answers that counted as success (2xx and 3xx unless told otherwise).
    pub succeeded: u64,
    /// Failures by kind: `connect`, `timeout`, `reset`, `status 502`, `protocol`.
    pub errors: BTreeMap<String, u64>,
    pub status: BTreeMap<u16, u64>,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    /// Successful answers per second over the whole load.
    pub rate: f64,
    pub latency: LatencySummary,
    /// One entry per second of the load.
    pub timeline: Vec<TimelinePoint>,
    /// Completed requests and their errors by the replica that answered, where it names itself.
    pub by_replica: BTreeMap<String, u64>,
    /// The most requests that waited for a free connection (open loop), 0 in a closed loop.
    pub backlog_max: u64,
}

/// A constant stream of requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Demand {
    /// Requests per second.
    pub rate: f64,
    /// From the load's beginning on.
    pub seconds: f64,
}

/// Latency of successful answers in microseconds, read out of an HDR histogram with three digits.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LatencySummary {
    pub count: u64,
    pub min: u64,
    pub mean: f64,
    pub stdev: f64,
    pub max: u64,
    /// Percentile to value: "50", "75", "90", "95", "99", "99.9", "99.99".
    pub percentiles: BTreeMap<String, u64>,
    /// Recorded buckets: (upper value, count), ascending; enough to draw both distribution and curve.
    pub buckets: Vec<(u64, u64)>,
    /// The V2 compressed HdrHistogram in base64, for tools that read it.
    pub hdr: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct TimelinePoint {
    /// Middle of the interval, in seconds since the run's start.
    pub at: f64,
    /// Width of the interval in seconds.
    pub width: f64,
    pub requests: u64,
    pub errors: u64,
    pub p50: u64,
    pub p95: u64,
    pub max: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ThresholdResult {
    /// As written: `p95<200ms`.
    pub expression: String,
    /// What was measured, in the same unit: `182 ms`.
    pub measured: String,
    pub held: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Event {
    pub at: f64,
    /// `replica`, `scale`, `health`, `fault`, `stage`, `warning`.
    pub kind: String,
    /// `web-3`, `web`, or empty.
    pub subject: String,
    pub message: String,
}

/// What one replica used over time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ReplicaSeries {
    pub service: String,
    pub name: String,
    /// Cores it may use; `None` where nothing but the host limits it.
    #[serde(default)]
    pub cpu_limit: Option<f64>,
    /// Bytes it may use; `None` where nothing but the host limits it.
    #[serde(default)]
    pub memory_limit: Option<u64>,
    pub samples: Vec<Sample>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    pub at: f64,
    /// Cores in use, averaged since the sample before.
    pub cpu: f64,
    /// Bytes.
    pub memory: u64,
    pub pids: u64,
    /// Bytes per second.
    pub received: f64,
    pub sent: f64,
}
