//! The command line, defined once: the parser, the help, the manual pages and the completions come from here.
#![allow(
    rustdoc::broken_intra_doc_links,
    rustdoc::invalid_html_tags,
    reason = "the comments here are help texts for the terminal"
)]

mod autoscale;

pub use autoscale::*;

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use throng_supervisor::Asked;

/// Run a Compose app as a crowd on one machine, under load, and learn where it breaks.
#[derive(Debug, Parser)]
#[command(name = "throng", version, max_term_width = 100, infer_subcommands = false)]
#[command(after_help = "Start here: `throng run examples/pdfmagic`. Exit codes: `throng exit-codes`.")]
pub struct Arguments {
    #[command(flatten)]
    pub project: ProjectArguments,
    /// How replicas are kept apart; the default is containers where the kernel allows them
    #[arg(long, global = true, value_enum, env = "THRONG_ISOLATION")]
    pub isolation: Option<IsolationArgument>,
    /// What replicas run on: local (the embedded engine), docker (the Docker daemon that DOCKER_HOST names), or docker:N (N
    /// nodes, each a Docker daemon of its own inside that one) [default: what the app runs on already, or local]
    #[arg(long, global = true, value_name = "WHERE", env = "THRONG_ON")]
    pub on: Option<OnArgument>,
    /// Say more on standard error (-v: what is done, -vv: everything)
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
    #[command(subcommand)]
    pub command: Command,
}

/// Which app is meant. The same flags as Docker Compose has.
#[derive(Debug, Clone, Args)]
pub struct ProjectArguments {
    /// Compose file; several are merged in order [default: compose.yaml here or further up]
    #[arg(short, long = "file", value_name = "FILE", env = "COMPOSE_FILE", value_delimiter = ':')]
    pub file: Vec<PathBuf>,
    /// Project name [default: the folder's name]
    #[arg(short, long, value_name = "NAME", env = "COMPOSE_PROJECT_NAME")]
    pub project_name: Option<String>,
    /// Enable a profile; may be given several times
    #[arg(long, value_name = "NAME", env = "COMPOSE_PROFILES", value_delimiter = ',')]
    pub profile: Vec<String>,
    /// Folder that relative paths refer to [default: that of the Compose file]
    #[arg(long, value_name = "DIR")]
    pub project_directory: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum IsolationArgument {
    Auto,
    Container,
    Process,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnArgument {
    Local,
    /// `nodes`: how many daemons of their own, if that was said.
    Docker {
        nodes: Option<u32>,
    },
}

impl std::str::FromStr for OnArgument {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<OnArgument, String> {
        let most = throng_docker::NODES_MOST;
        match (text, text.strip_prefix("docker:")) {
            ("local", _) => Ok(OnArgument::Local),
            ("docker", _) => Ok(OnArgument::Docker { nodes: None }),
            (_, Some(nodes)) => match nodes.parse() {
                Ok(nodes) if (1..=most).contains(&nodes) => Ok(OnArgument::Docker { nodes: Some(nodes) }),
                _ => Err(format!("the number of nodes is from 1 to {most}")),
            },
            _ => Err("it is local, docker or docker:N".into()),
        }
    }
}

impl OnArgument {
    /// With the daemon that the environment names, if it does.
    pub fn asked(self) -> Asked {
        match self {
            OnArgument::Local => Asked::Local,
            OnArgument::Docker { nodes } => {
                let host = std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty());
                Asked::Docker { host, nodes }
            }
        }
    }
}

impl IsolationArgument {
    pub fn name(self) -> &'static str {
        match self {
            IsolationArgument::Auto => "auto",
            IsolationArgument::Container => "container",
            IsolationArgument::Process => "process",
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    #[default]
    Table,
    Json,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ConfigFormat {
    #[default]
    Yaml,
    Json,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Carry out an experiment: bring an app up, scale it, load it, and write the report
    Run(RunArguments),
    /// Bring the app up; without -d, follow its logs and take it down on Ctrl-C
    Up(UpArguments),
    /// Take the app down and remove everything of it but named volumes
    Down(DownArguments),
    /// List replicas
    Ps(PsArguments),
    /// Change replica counts: `throng scale web=3 worker=10`
    Scale(ScaleArguments),
    /// Show what replicas have written
    Logs(LogsArguments),
    /// Run a command inside a running replica
    Exec(ExecArguments),
    /// Show what services and replicas use: a live screen on a terminal
    Top(TopArguments),
    /// Print the app's figures for Prometheus, or serve them and the addresses of replicas to scrape
    Metrics(MetricsArguments),
    /// Show what happened to the app
    Events(EventsArguments),
    /// Print the app as it is understood, with every default filled in
    Config(ConfigArguments),
    /// Put load on a URL or a service, or with -i load images from an archive
    Load(Box<LoadArguments>),
    /// List recorded runs
    Runs(RunsArguments),
    /// Write the report of a recorded run again
    Report(ReportArguments),
    /// Set recorded runs side by side
    Compare(CompareArguments),
    /// Build images: those of the app's services, or one from a folder with -t
    Build(BuildArguments),
    /// Fetch images from a registry: those of the app's services, or the ones named
    Pull(PullArguments),
    /// Send images to a registry
    Push(PushArguments),
    /// List images
    Images(FormatArguments),
    /// Remove images
    Rmi(RmiArguments),
    /// Remove what nothing uses any more: images, build cache, remains of apps
    Prune(PruneArguments),
    /// Give an image another name
    Tag(TagArguments),
    /// Write images to an archive
    Save(SaveArguments),
    /// List apps that are up
    Ls(FormatArguments),
    /// Say what this host holds: which limit comes first, which next, and what moves it
    Doctor(DoctorArguments),
    /// Scale a service up until something gives, and name it
    Ceiling(Box<CeilingArguments>),
    /// Ask what Kubernetes' horizontal autoscaler would decide, once or for hours
    Autoscale {
        #[command(subcommand)]
        command: AutoscaleCommand,
    },
    /// Print a completion script for a shell
    Completions { shell: clap_complete::Shell },
    /// Write manual pages, one for each command, into a folder
    Man { folder: PathBuf },
    /// Print what each exit code means
    ExitCodes,
    /// Look after one app (started by the other commands)
    #[command(hide = true)]
    Supervise,
    /// Carry out one RUN instruction (started by build)
    #[command(hide = true)]
    BuildStep,
}

#[derive(Debug, Args)]
pub struct FormatArguments {
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// Changes nothing without --fix. Ends with code 1 if a wall is in the way of that many replicas.
#[derive(Debug, Args)]
pub struct DoctorArguments {
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
    #[arg(long)]
    pub fix: bool,
    /// Put back what --fix has changed
    #[arg(long, conflicts_with_all = ["fix", "replicas", "scale"])]
    pub undo: bool,
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

#[derive(Debug, Args)]
pub struct RunArguments {
    /// Folder with compose.yaml and experiment.yaml, or an experiment file
    #[arg(default_value = ".")]
    pub experiment: PathBuf,
    /// Set a variable of the experiment: --set clients=50
    #[arg(long, value_name = "NAME=VALUE")]
    pub set: Vec<String>,
    /// Folder for report.html, run.json and the CSV files [default: throng-report/<run>]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Check the experiment and the Compose file, print the stages, start nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Leave the app up at the end
    #[arg(long)]
    pub keep: bool,
    /// Do not build images even if their services have a build section
    #[arg(long)]
    pub no_build: bool,
}

#[derive(Debug, Args)]
pub struct UpArguments {
    /// Only these services and what they depend on
    pub services: Vec<String>,
    /// Leave it running and return
    #[arg(short, long)]
    pub detach: bool,
    /// Replica count of a service: --scale web=3
    #[arg(long, value_name = "SERVICE=N")]
    pub scale: Vec<String>,
    /// Return when everything is ready (implies -d)
    #[arg(long)]
    pub wait: bool,
    /// The longest wait for readiness, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub wait_timeout: u64,
    /// Build images first, even if they are there
    #[arg(long)]
    pub build: bool,
    /// Do not build images that are missing
    #[arg(long, conflicts_with = "build")]
    pub no_build: bool,
}

#[derive(Debug, Args)]
pub struct DownArguments {
    /// Remove named volumes too
    #[arg(short, long)]
    pub volumes: bool,
    /// Seconds that replicas get to leave [default: each service's stop_grace_period]
    #[arg(short, long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
}

#[derive(Debug, Args)]
pub struct PsArguments {
    /// Only these services
    pub services: Vec<String>,
    /// Also those that do not run
    #[arg(short, long)]
    pub all: bool,
    /// Print names only
    #[arg(short, long)]
    pub quiet: bool,
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

#[derive(Debug, Args)]
pub struct ScaleArguments {
    #[arg(required = true, value_name = "SERVICE=N")]
    pub scale: Vec<String>,
    /// Return at once instead of when everything is ready
    #[arg(long)]
    pub no_wait: bool,
    /// The longest wait for readiness, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub wait_timeout: u64,
}

#[derive(Debug, Args)]
pub struct LogsArguments {
    /// Only these services
    pub services: Vec<String>,
    /// Go on with what is written from now on
    #[arg(short, long)]
    pub follow: bool,
    /// Lines to show from the end of each log
    #[arg(short = 'n', long, value_name = "N")]
    pub tail: Option<usize>,
    /// Do not put the replica's name before each line
    #[arg(long)]
    pub no_log_prefix: bool,
}

#[derive(Debug, Args)]
pub struct ExecArguments {
    /// Which replica of the service [default: the first that runs]
    #[arg(long, value_name = "N")]
    pub index: Option<u32>,
    /// Set an environment variable
    #[arg(short, long, value_name = "KEY=VALUE")]
    pub env: Vec<String>,
    /// Run as this user
    #[arg(short, long)]
    pub user: Option<String>,
    /// Run in this folder
    #[arg(short, long)]
    pub workdir: Option<String>,
    pub service: String,
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

#[derive(Debug, Args)]
pub struct TopArguments {
    /// Only these services
    pub services: Vec<String>,
    /// Print the replicas once as a table; so it is where standard output is no terminal
    #[arg(long)]
    pub no_stream: bool,
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

#[derive(Debug, Args)]
pub struct MetricsArguments {
    /// Serve /metrics and, for Prometheus' HTTP service discovery, /sd until Ctrl-C; on an address of this host that no
    /// other one can reach
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, default_missing_value = "127.0.0.1:9464")]
    pub listen: Option<std::net::SocketAddr>,
    /// Replicas that have time series of their own at most; services always have
    #[arg(long, value_name = "N", default_value_t = 500)]
    pub replicas: usize,
}

/// Among them are walls of this host that print nothing where they are met: packets dropped from a full queue, full tables
/// of neighbours or connections, a packet filter in the way, namespaces that outlive their replicas. The host is looked at
/// every five seconds (THRONG_WALLS_PERIOD, in seconds; 0 for never), and a wall is told once in ten minutes.
#[derive(Debug, Args)]
pub struct EventsArguments {
    /// Print what has happened so far and return
    #[arg(long)]
    pub no_follow: bool,
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

#[derive(Debug, Args)]
pub struct ConfigArguments {
    /// Check only, print nothing
    #[arg(short, long)]
    pub quiet: bool,
    /// Print service names, one a line
    #[arg(long)]
    pub services: bool,
    #[arg(long, value_enum, default_value_t)]
    pub format: ConfigFormat,
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
    #[arg(short, long, default_value_t = 1, conflicts_with = "rate")]
    pub clients: u32,
    /// Closed loop: requests of each client [default: 100 without --duration]
    #[arg(short = 'n', long, value_name = "N", conflicts_with = "rate")]
    pub requests: Option<u64>,
    /// Closed loop: a pause before each next request, as in 100ms
    #[arg(long, value_name = "DURATION", conflicts_with = "rate")]
    pub think: Option<String>,
    /// Open loop: requests a second, sent when they are due whether or not earlier ones were answered
    #[arg(short, long, requires = "duration")]
    pub rate: Option<f64>,
    /// How long to go on, as in 30s
    #[arg(short, long, value_name = "DURATION")]
    pub duration: Option<String>,
    /// Open loop: how requests arrive
    #[arg(long, value_enum, default_value_t)]
    pub arrivals: ArrivalsArgument,
    /// Open loop: the most connections at once [default: 1000, or as many as the limit of open files allows]
    #[arg(long, value_name = "N")]
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
    #[arg(long, value_name = "N")]
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
    #[arg(long, value_name = "N", default_value_t = 10_000)]
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

#[derive(Debug, Args)]
pub struct RunsArguments {
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

#[derive(Debug, Args)]
pub struct ReportArguments {
    /// Run, or the beginning of its name; `latest` for the newest
    #[arg(default_value = "latest")]
    pub run: String,
    /// Folder to write to [default: throng-report/<run>]
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct CompareArguments {
    /// Two runs or more
    #[arg(required = true, num_args = 2..)]
    pub runs: Vec<String>,
    /// Also write an HTML page
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct BuildArguments {
    /// With -t: the build context; otherwise services to build [default: all]
    pub targets: Vec<String>,
    /// Name of the image; may be given several times
    #[arg(short, long, value_name = "NAME[:TAG]")]
    pub tag: Vec<String>,
    /// Dockerfile [default: Dockerfile in the context]
    #[arg(long, value_name = "FILE", requires = "tag")]
    pub dockerfile: Option<PathBuf>,
    /// Stage to build
    #[arg(long, value_name = "STAGE", requires = "tag")]
    pub target: Option<String>,
    /// Value of an ARG
    #[arg(long, value_name = "NAME=VALUE")]
    pub build_arg: Vec<String>,
    /// Carry out every instruction again
    #[arg(long)]
    pub no_cache: bool,
}

#[derive(Debug, Args)]
pub struct PullArguments {
    /// Images [default: those of the app's services]
    pub images: Vec<String>,
    /// Speak plain HTTP or accept any certificate
    #[arg(long)]
    pub insecure: bool,
}

#[derive(Debug, Args)]
pub struct PushArguments {
    #[arg(required = true)]
    pub images: Vec<String>,
    /// Speak plain HTTP or accept any certificate
    #[arg(long)]
    pub insecure: bool,
}

#[derive(Debug, Args)]
pub struct RmiArguments {
    #[arg(required = true)]
    pub images: Vec<String>,
}

/// Images are unused if no app that is up names them and no replica was made from them. An app is up from `throng up` to
/// `throng down`, whether or not its supervisor lives.
///
/// While an app is up, its supervisor looks at the disk every five minutes, as kubelet does. From 85 % on it removes
/// unused images, the one used longest ago first, until at most 80 % are used, and where that does not help, what
/// replicas that have ended for good had written. THRONG_DISK_HIGH_PERCENT and THRONG_DISK_LOW_PERCENT move the marks;
/// a high mark of 100 turns this off. `throng events` says what went.
#[derive(Debug, Args)]
pub struct PruneArguments {
    /// All unused images, not only those without a name
    #[arg(short, long)]
    pub all: bool,
    /// Named volumes that no app has, too, with all data in them
    #[arg(long)]
    pub volumes: bool,
    /// Do not ask
    #[arg(short, long)]
    pub force: bool,
    /// Only say what would be removed
    #[arg(long, conflicts_with = "force")]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
pub struct TagArguments {
    pub source: String,
    pub target: String,
}

#[derive(Debug, Args)]
pub struct SaveArguments {
    #[arg(required = true)]
    pub images: Vec<String>,
    /// Archive to write [default: standard output, unless it is a terminal]
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    #[arg(long, value_enum, default_value_t)]
    pub archive: ArchiveArgument,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ArchiveArgument {
    /// What `docker load` reads
    #[default]
    Docker,
    /// OCI image layout
    Oci,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Arguments::command().debug_assert();
    }
}
