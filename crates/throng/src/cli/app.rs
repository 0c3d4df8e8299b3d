//! An app from up to down, and what it shows. Flags that Docker Compose has mean the same here; where the effect is
//! always so, the help says it.

use super::{ConfigFormat, Format};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

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
    /// When images are pulled [default: as each service's pull_policy says]
    #[arg(long, value_name = "POLICY", value_enum)]
    pub pull: Option<super::PullArgument>,
    /// Replace replicas even if nothing about them has changed
    #[arg(long)]
    pub force_recreate: bool,
    /// Leave what the named services depend on as it is
    #[arg(long, requires = "services")]
    pub no_deps: bool,
    /// Seconds that replicas get to leave, be it for others or on Ctrl-C [default: each service's stop_grace_period]
    #[arg(short, long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
    /// Remove replicas of services that the file has no more: always so, unless services are named
    #[arg(long)]
    pub remove_orphans: bool,
}

#[derive(Debug, Args)]
pub struct DownArguments {
    /// Remove named volumes too
    #[arg(short, long)]
    pub volumes: bool,
    /// Seconds that replicas get to leave [default: each service's stop_grace_period]
    #[arg(short, long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
    /// Remove the services' images too: all of them, or local ones that the file gives no name
    #[arg(long, value_name = "WHICH", value_enum)]
    pub rmi: Option<RmiArgument>,
    /// Remove replicas of services that the file has no more: always so
    #[arg(long)]
    pub remove_orphans: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RmiArgument {
    All,
    Local,
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
    /// Print the names of services instead of replicas
    #[arg(long = "services", conflicts_with = "quiet")]
    pub services_only: bool,
    /// Only replicas in this state; may be given several times
    #[arg(long, value_name = "STATE", value_enum)]
    pub status: Vec<StateArgument>,
    /// The same as --status: status=STATE
    #[arg(long, value_name = "status=STATE", value_parser = state_filter)]
    pub filter: Vec<StateArgument>,
    /// How the list is printed
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

/// As `throng ps` names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StateArgument {
    Pending,
    Created,
    Starting,
    Running,
    Paused,
    Restarting,
    Leaving,
    Exited,
    Failed,
}

impl StateArgument {
    pub fn is(self, state: &str) -> bool {
        self.to_possible_value().is_some_and(|value| value.get_name() == state)
    }
}

fn state_filter(text: &str) -> Result<StateArgument, String> {
    let state = text.strip_prefix("status=").ok_or("the only filter is status=STATE")?;
    StateArgument::from_str(state, false).map_err(|_| {
        let names = StateArgument::value_variants().iter().filter_map(ValueEnum::to_possible_value);
        let names: Vec<String> = names.map(|value| value.get_name().to_owned()).collect();
        format!("no such state; there are: {}", names.join(", "))
    })
}

#[derive(Debug, Args)]
pub struct DescribeArguments {
    /// Only these services
    pub services: Vec<String>,
    /// How they are printed
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}

#[derive(Debug, Args)]
pub struct ScaleArguments {
    /// How many replicas each service is to have
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
    /// Lines to show from the end of each log, or all
    #[arg(short = 'n', long, value_name = "N|all", default_value = "all", value_parser = tail)]
    pub tail: Tail,
    /// Do not put the replica's name before each line
    #[arg(long)]
    pub no_log_prefix: bool,
    /// Refused: nobody notes when a line is written
    #[arg(short, long, hide = true)]
    pub timestamps: bool,
    /// Refused: nobody notes when a line is written
    #[arg(long, value_name = "TIME", hide = true)]
    pub since: Option<String>,
    /// Refused: nobody notes when a line is written
    #[arg(long, value_name = "TIME", hide = true)]
    pub until: Option<String>,
}

/// How many lines from the end; `None` for all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tail(pub Option<usize>);

fn tail(text: &str) -> Result<Tail, String> {
    match text {
        "all" => Ok(Tail(None)),
        number => number.parse().map(|n| Tail(Some(n))).map_err(|_| "it is a number, or all".into()),
    }
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
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// Keep this terminal from the command: it reads and writes pipes
    #[arg(short = 'T', long)]
    pub no_tty: bool,
    /// Let the command read this standard input: always so
    #[arg(short, long)]
    pub interactive: bool,
    /// Let the command have this terminal: always so without -T
    #[arg(short, long, overrides_with = "no_tty")]
    pub tty: bool,
    /// Service of the replica
    pub service: String,
    /// Program to run and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

#[derive(Debug, Args)]
pub struct WaitArguments {
    /// Services whose replicas are waited for, or whose jobs
    #[arg(required = true)]
    pub services: Vec<String>,
    /// Take the app down then
    #[arg(long)]
    pub down_project: bool,
}

#[derive(Debug, Args)]
pub struct TopArguments {
    /// Only these services
    pub services: Vec<String>,
    /// Print the replicas once as a table; so it is where standard output is no terminal
    #[arg(long)]
    pub no_stream: bool,
    /// How the replicas are printed
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

const EVENTS_MORE: &str = "\
    Among events are walls of this host that print nothing where they are met: packets dropped from a full \
    queue, full tables of neighbours or connections, a packet filter in the way, namespaces that outlive \
    their replicas. The host is looked at every five seconds (THRONG_WALLS_PERIOD, in seconds; 0 for \
    never), and a wall is told once in ten minutes.";

#[derive(Debug, Args)]
#[command(after_help = EVENTS_MORE)]
pub struct EventsArguments {
    /// Print what has happened so far and return
    #[arg(long)]
    pub no_follow: bool,
    /// How events are printed
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// The same as --format json
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct ConfigArguments {
    /// Check only, print nothing
    #[arg(short, long)]
    pub quiet: bool,
    /// Print service names, one a line
    #[arg(long, conflicts_with_all = ["images", "volumes"])]
    pub services: bool,
    /// Print the images of services, one a line
    #[arg(long, conflicts_with = "volumes")]
    pub images: bool,
    /// Print the names of volumes, one a line
    #[arg(long)]
    pub volumes: bool,
    /// Write to this file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// How the app is printed
    #[arg(long, value_enum, default_value_t)]
    pub format: ConfigFormat,
}

#[derive(Debug, Args)]
pub struct LsArguments {
    /// Also apps that are down: there are none, since nothing is left of them
    #[arg(short, long)]
    pub all: bool,
    /// Print names only
    #[arg(short, long)]
    pub quiet: bool,
    /// How the list is printed
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}
