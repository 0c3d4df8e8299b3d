//! Load on something, and what a host or a service holds.

use super::Format;
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use throng_experiment::schema::MAX_REPLICAS;
use throng_load::spec::{MAX_CONNECTIONS, MAX_RATE, MAX_THREADS};

fn rate(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|rate: &f64| *rate > 0.0 && *rate <= MAX_RATE);
    number.ok_or_else(|| format!("it is a number above 0, and at most {MAX_RATE}"))
}

fn threads(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|threads| (1..=MAX_THREADS).contains(threads));
    number.ok_or_else(|| format!("it is a number from 1 to {MAX_THREADS}"))
}

const DOCTOR_MORE: &str = "\
    Changes nothing without --fix. Ends with code 1 if a wall is in the way of that many replicas.";

/// What `throng doctor` is asked about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Target {
    /// This host, as it is now
    #[default]
    Host,
    /// Nodes of a cluster, whatever they are now: nothing is looked at and nothing changed
    Kubernetes,
}

#[derive(Debug, Args)]
#[command(after_help = DOCTOR_MORE)]
pub struct DoctorArguments {
    /// What is to be prepared: this host, or each node of a Kubernetes cluster
    #[arg(long = "for", value_enum, default_value_t, value_name = "WHAT")]
    pub target: Target,
    /// With --for kubernetes: nodes that the replicas are spread over [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub nodes: Option<u64>,
    /// How many replicas [default: those of the Compose file here, or 1000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    pub replicas: Option<u64>,
    /// Replica count of a service of the Compose file: --scale web=3
    #[arg(long, value_name = "SERVICE=N")]
    pub scale: Vec<String>,
    /// Processes and threads of each replica
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    pub processes_per_replica: u64,
    /// Memory of each replica's program, as in 64m [default: the limits in the Compose file]
    #[arg(long, value_name = "SIZE")]
    pub memory_per_replica: Option<String>,
    /// What each replica writes to disk, logs included, as in 1g
    #[arg(long, value_name = "SIZE")]
    pub disk_per_replica: Option<String>,
    /// Published ports [default: those of the Compose file]
    #[arg(long, value_name = "N")]
    pub published: Option<u64>,
    /// Connections that each replica keeps, where the host's filter tracks them
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub connections: u64,
    /// Connections at once from this host to one published port
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub clients: u64,
    /// inotify instances of each replica: programs that watch files have one
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub watchers: u64,
    /// Every replica talks to every other one of its network
    #[arg(long)]
    pub mesh: bool,
    /// Raise the settings that are in the way and safe to raise at run time
    #[arg(long, conflicts_with = "nodes")]
    pub fix: bool,
    /// Put back what --fix has changed
    #[arg(long, conflicts_with_all = ["fix", "replicas", "scale", "nodes"])]
    pub undo: bool,
    /// How the result is printed
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

#[derive(Debug, Args)]
pub struct LoadArguments {
    /// URL, or SERVICE[:PORT][/PATH] of the app that is up
    #[arg(required_unless_present = "input")]
    pub target: Option<String>,
    /// Load images from this archive (docker save or OCI layout) instead of putting load on something
    #[arg(short, long, value_name = "FILE", conflicts_with = "target")]
    pub input: Option<PathBuf>,
    #[command(flatten)]
    pub shape: LoadShape,
    /// Fail unless this holds: 'p95<200ms', 'errors<1%', 'rate>100/s'; may be given several times
    #[arg(long, value_name = "THRESHOLD")]
    pub require: Vec<String>,
    /// Print the whole result as JSON
    #[arg(long)]
    pub json: bool,
    /// Write an HdrHistogram log
    #[arg(long, value_name = "FILE")]
    pub hdr_log: Option<PathBuf>,
}

/// What is sent, and when.
#[derive(Debug, Args)]
pub struct LoadShape {
    /// Closed loop: how many clients, each sending its next request when the last one was answered
    #[arg(short, long, default_value_t = 1, conflicts_with = "rate", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_CONNECTIONS)))]
    pub clients: u32,
    /// Closed loop: requests of each client [default: 100 without --duration]
    #[arg(short = 'n', long, value_name = "N", conflicts_with = "rate")]
    pub requests: Option<u64>,
    /// Closed loop: a pause before each next request, as in 100ms
    #[arg(long, value_name = "DURATION", conflicts_with = "rate")]
    pub think: Option<String>,
    /// Open loop: requests a second, sent when they are due whether or not earlier ones were answered
    #[arg(short, long, requires = "duration", value_parser = rate, allow_negative_numbers = true)]
    pub rate: Option<f64>,
    /// How long to go on, as in 30s
    #[arg(short, long, value_name = "DURATION")]
    pub duration: Option<String>,
    /// Open loop: how requests arrive
    #[arg(long, value_enum, default_value_t, requires = "rate")]
    pub arrivals: ArrivalsArgument,
    /// Open loop: the most connections at once [default: 1000, or as many as the limit of open files allows]
    #[arg(long, value_name = "N", requires = "rate", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_CONNECTIONS)))]
    pub max_connections: Option<u32>,
    /// HTTP method [default: GET, or POST with a body]
    #[arg(short = 'X', long)]
    pub method: Option<String>,
    /// Header as `Name: value`; may be given several times
    #[arg(short = 'H', long, value_name = "HEADER")]
    pub header: Vec<String>,
    /// Body, or @FILE
    #[arg(long, value_name = "DATA")]
    pub data: Option<String>,
    /// Multipart field as NAME=VALUE or NAME=@FILE; may be given several times
    #[arg(short = 'F', long, value_name = "NAME=VALUE", conflicts_with = "data")]
    pub form: Vec<String>,
    /// Send a generated image of this size, a different random one each time, as in 640x480
    #[arg(long, value_name = "WxH", conflicts_with = "data")]
    pub image: Option<String>,
    /// Multipart field that carries the generated image; without it, the image is the body
    #[arg(long, value_name = "NAME", requires = "image")]
    pub image_field: Option<String>,
    /// Kind of generated images
    #[arg(long, value_enum, default_value_t)]
    pub image_format: ImageFormatArgument,
    /// Follow up to N redirects; the latency is that of the whole chain
    #[arg(short = 'L', long, value_name = "N", default_value_t = 0)]
    pub follow_redirects: u8,
    /// Statuses that count as success, as in 200-299,404
    #[arg(long, value_name = "STATUSES", default_value = "2xx,3xx")]
    pub success: String,
    /// Speak HTTP/2 from the start (h2c for http://)
    #[arg(long)]
    pub http2: bool,
    /// A request without an answer after this is an error
    #[arg(long, value_name = "DURATION", default_value = "30s")]
    pub timeout: String,
    /// Threads that send [default: half the cores, so that what is loaded keeps the rest]
    #[arg(long, value_name = "N", value_parser = threads)]
    pub threads: Option<usize>,
    /// Seed of arrivals and images
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

#[derive(Debug, Args)]
pub struct CeilingArguments {
    /// SERVICE[:PORT][/PATH] of the app that is up; the port and the path are what --until loads
    #[arg(value_name = "SERVICE")]
    pub target: String,
    /// Stop here even if everything still holds
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=MAX_REPLICAS as i64))]
    pub most: u32,
    /// Replicas more each time: a number, or `auto` for twice as many until something gives
    #[arg(long, value_name = "auto|N", default_value = "auto")]
    pub batch: String,
    /// Hold only while this is so under load: 'p99<50ms', 'errors<1%'; may be given several times
    #[arg(long, value_name = "THRESHOLD")]
    pub until: Vec<String>,
    /// The longest that a count may take to be ready and settled
    #[arg(long, value_name = "DURATION", default_value = "120s")]
    pub patience: String,
    /// How long a count must stay ready
    #[arg(long, value_name = "DURATION", default_value = "2s")]
    pub hold: String,
    /// Leave the app at the count that was found instead of the one that it had
    #[arg(long)]
    pub stay: bool,
    #[command(flatten)]
    pub shape: LoadShape,
    /// How the result is printed
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ArrivalsArgument {
    #[default]
    Poisson,
    Constant,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ImageFormatArgument {
    #[default]
    Jpeg,
    Png,
}
