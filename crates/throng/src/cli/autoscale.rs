//! Arguments of `throng autoscale`.

use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;
use throng_autoscale::Quantity;
use throng_autoscale::simulate::{SECONDS_MOST, Source, TIME_MOST};
use throng_model::units::parse_duration;

#[derive(Debug, Subcommand)]
pub enum AutoscaleCommand {
    /// Decide one case from standard input as Kubernetes 1.34 does, and print the answer as JSON
    Decide(DecideArguments),
    /// Simulate hours of a recorded or made-up load in seconds, and compare autoscalers side by side
    Simulate(Box<SimulateArguments>),
}

const DECIDE_MORE: &str = "\
    A case is one JSON object: a HorizontalPodAutoscaler spec, replica counts, pods and metrics. The answer has \
    the count, what each metric asks for, Kubernetes' conditions, and an explanation; docs/autoscale-decide.md \
    describes both. Ends with code 0 also where a metric fails, because that is an answer too, and with code 2 \
    if a case cannot be read.";

#[derive(Debug, Args)]
#[command(after_help = DECIDE_MORE)]
pub struct DecideArguments {
    /// Take one case from each line, and print one answer on each
    #[arg(long)]
    pub lines: bool,
}

const SIMULATE_MORE: &str = "\
    Every decision is the one that `throng autoscale decide` makes; the world around it is simulated, in steps \
    of one second. docs/autoscale-simulate.md says what that world is like, and what a trace looks like.";

#[derive(Debug, Args)]
#[command(after_help = SIMULATE_MORE)]
pub struct SimulateArguments {
    /// HorizontalPodAutoscaler manifest (autoscaling/v2, YAML); give several to compare them
    #[arg(long, value_name = "FILE", required = true)]
    pub spec: Vec<PathBuf>,
    #[command(flatten)]
    pub demand: DemandArguments,
    #[command(flatten)]
    pub world: WorldArguments,
    #[command(flatten)]
    pub controller: ControllerArguments,
    /// Folder for simulation.html, simulation.json and the CSV files
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// How the figures are printed
    #[arg(long, value_enum, default_value_t)]
    pub format: SimulateFormat,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum SimulateFormat {
    #[default]
    Text,
    Json,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "The load")]
pub struct DemandArguments {
    /// Recorded load: CSV with a line of names, a column `time` and one such as `requests_per_second` or `cpu_cores`
    #[arg(long, value_name = "FILE", required_unless_present = "synthetic", conflicts_with = "synthetic")]
    pub trace: Option<PathBuf>,
    /// Column of the trace that is the load, if its name does not say so
    #[arg(long, value_name = "NAME", conflicts_with = "synthetic")]
    pub column: Option<String>,
    /// What the load is counted in [default: what the trace's column is called, or requests]
    #[arg(long, value_enum)]
    pub unit: Option<UnitArgument>,
    /// Between two rows of the trace: a straight line, or the first one's load
    #[arg(long, value_enum, default_value_t, conflicts_with = "synthetic")]
    pub between: BetweenArgument,
    /// The longest time between two rows of the trace [default: ten times the usual one]
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, conflicts_with = "synthetic")]
    pub max_gap: Option<Duration>,
    /// Made-up load: a wave of 24 hours, a plateau, or a peak that fades
    #[arg(long, value_enum)]
    pub synthetic: Option<ShapeArgument>,
    /// How long the made-up load lasts [default: 24h for a day, 2h for the others]
    #[arg(long, value_name = "DURATION", value_parser = load_length, conflicts_with = "trace")]
    pub duration: Option<u32>,
    /// The most of the made-up load, in its unit
    #[arg(long, value_name = "N", default_value_t = 1000.0, value_parser = amount, conflicts_with = "trace")]
    pub peak: f64,
    /// The least of the made-up load [default: a tenth of the peak]
    #[arg(long, value_name = "N", value_parser = amount, conflicts_with = "trace")]
    pub base: Option<f64>,
    /// How far the load strays by chance: a standard deviation, as in 5% [default: 5% of a made-up load, nothing of a trace]
    #[arg(long, value_name = "PERCENT", value_parser = noise)]
    pub noise: Option<f64>,
    /// Seed of that chance
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum UnitArgument {
    /// Requests per second
    Requests,
    /// CPU cores that serving it takes
    Cores,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum BetweenArgument {
    #[default]
    Line,
    Hold,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ShapeArgument {
    Day,
    Step,
    Spike,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "The replicas")]
pub struct WorldArguments {
    /// Requests per second that take all of a replica's CPU request
    #[arg(long, value_name = "N", default_value_t = 100.0, value_parser = capacity)]
    pub capacity: f64,
    /// CPU that a replica requests
    #[arg(long, value_name = "CPU", default_value = "500m", value_parser = cpu)]
    pub cpu_request: i64,
    /// CPU that a replica can use at most [default: its request]
    #[arg(long, value_name = "CPU", value_parser = cpu)]
    pub cpu_limit: Option<i64>,
    /// Memory that a replica uses, whatever the load, for specs that look at it
    #[arg(long, value_name = "SIZE", value_parser = quantity, requires = "memory_request")]
    pub memory_usage: Option<Quantity>,
    /// Memory that a replica requests
    #[arg(long, value_name = "SIZE", value_parser = positive, requires = "memory_usage")]
    pub memory_request: Option<Quantity>,
    /// From a replica's creation until it is ready
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = seconds)]
    pub startup: u32,
    /// CPU that a replica uses meanwhile
    #[arg(long, value_name = "CPU", default_value = "0", value_parser = idle_cpu)]
    pub startup_cpu: i64,
    /// How long a request waits for a replica before it is given up
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = seconds)]
    pub patience: u32,
    /// Replicas at the beginning [default: what the first load has come to within an hour]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..=1_000_000))]
    pub replicas: Option<i32>,
    /// Utilisation above which time counts as over target, in percent of the request [default: each spec's own CPU target
    /// with the tolerance on top]
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub over_target: Option<f64>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Metrics and controller")]
pub struct ControllerArguments {
    /// What a Pods, Object or External metric of a spec measures: NAME=rate (requests per second) or NAME=waiting (requests
    /// that wait); may be given several times
    #[arg(long, value_name = "NAME=WHAT", value_parser = source)]
    pub metric: Vec<(String, Source)>,
    /// How often replicas are measured
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = period)]
    pub metrics_resolution: u32,
    /// How long a measurement takes to reach the controller
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = seconds)]
    pub metrics_delay: u32,
    /// How often the controller looks, as kube-controller-manager's option of that name; so are the following
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = period)]
    pub sync_period: u32,
    /// How far a metric may be from its target without anything being done
    #[arg(long, value_name = "RATIO", default_value_t = 0.1, value_parser = tolerance)]
    pub tolerance: f64,
    /// How long CPU usage counts as that of a start
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = seconds)]
    pub cpu_initialization_period: u32,
    /// How long after its start a replica's readiness is taken for its first
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = seconds)]
    pub initial_readiness_delay: u32,
    /// The window for scaling down where the spec names none
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = seconds)]
    pub downscale_stabilization: u32,
    /// Honour the specs' own tolerances (the feature gate HPAConfigurableTolerance)
    #[arg(long)]
    pub configurable_tolerance: bool,
}

fn whole(text: &str, most: u64) -> Result<u32, String> {
    let length = parse_duration(text).map_err(|error| error.to_string())?;
    if length.subsec_nanos() != 0 {
        return Err("the simulation moves in whole seconds".into());
    }
    let seconds = u32::try_from(length.as_secs()).ok().filter(|seconds| u64::from(*seconds) <= most);
    seconds.ok_or_else(|| format!("at most {most} seconds are simulated"))
}

fn seconds(text: &str) -> Result<u32, String> {
    whole(text, TIME_MOST.into())
}

fn above_zero(seconds: u32) -> Result<u32, String> {
    if seconds == 0 { Err("it is 1s at least".into()) } else { Ok(seconds) }
}

fn period(text: &str) -> Result<u32, String> {
    above_zero(seconds(text)?)
}

fn load_length(text: &str) -> Result<u32, String> {
    above_zero(whole(text, SECONDS_MOST as u64)?)
}

/// `name` says what is wanted, for the message.
fn number(text: &str, wanted: &str, holds: impl Fn(f64) -> bool) -> Result<f64, String> {
    let number = text.parse::<f64>().ok().filter(|number| number.is_finite() && holds(*number));
    number.ok_or_else(|| format!("it is {wanted}"))
}

fn amount(text: &str) -> Result<f64, String> {
    number(text, "a number from 0 to 1000000000", |number| (0.0..=1e9).contains(&number))
}

fn capacity(text: &str) -> Result<f64, String> {
    number(text, "a number from 0.001 to 1000000000", |number| (1e-3..=1e9).contains(&number))
}

fn tolerance(text: &str) -> Result<f64, String> {
    number(text, "a ratio from 0 to 10, as in 0.1", |number| (0.0..=10.0).contains(&number))
}

/// As a share.
fn noise(text: &str) -> Result<f64, String> {
    let text = text.strip_suffix('%').unwrap_or(text);
    Ok(number(text, "a percentage from 0 to 100", |number| (0.0..=100.0).contains(&number))? / 100.0)
}

/// As a share.
fn percent(text: &str) -> Result<f64, String> {
    let text = text.strip_suffix('%').unwrap_or(text);
    Ok(number(text, "a percentage above 0", |number| number > 0.0 && number <= 1e6)? / 100.0)
}

fn quantity(text: &str) -> Result<Quantity, String> {
    let quantity: Quantity =
        text.parse().map_err(|error: throng_autoscale::quantity::QuantityError| error.to_string())?;
    if quantity.is_negative() { Err("it is below 0".into()) } else { Ok(quantity) }
}

fn positive(text: &str) -> Result<Quantity, String> {
    let quantity = quantity(text)?;
    if quantity.is_positive() { Ok(quantity) } else { Err("it is above 0".into()) }
}

/// Thousandths of a core.
fn cpu(text: &str) -> Result<i64, String> {
    let milli = positive(text)?.milli();
    if milli > CPU_MOST { Err(format!("a replica has {} cores at most", CPU_MOST / 1000)) } else { Ok(milli) }
}

fn idle_cpu(text: &str) -> Result<i64, String> {
    if quantity(text)?.is_positive() { cpu(text) } else { Ok(0) }
}

/// Thousandths of a core: more than any machine has.
const CPU_MOST: i64 = 100_000_000;

fn source(text: &str) -> Result<(String, Source), String> {
    let source = match text.split_once('=') {
        Some((name, "rate")) if !name.is_empty() => Some((name, Source::Rate)),
        Some((name, "waiting")) if !name.is_empty() => Some((name, Source::Waiting)),
        _ => None,
    };
    let source = source.map(|(name, source)| (name.to_owned(), source));
    source.ok_or_else(|| "it is NAME=rate or NAME=waiting".into())
}
