//! The command line, defined once: the parser, the help, the manual pages and the completions come from here.
#![allow(
    rustdoc::broken_intra_doc_links,
    rustdoc::invalid_html_tags,
    reason = "the comments here are help texts for the terminal"
)]

mod app;
mod autoscale;
mod convert;
mod faults;
mod images;
mod load;
mod node;
mod runs;

pub use app::*;
pub use autoscale::*;
pub use convert::*;
pub use faults::*;
pub use images::*;
pub use load::*;
pub use node::*;
pub use runs::*;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use throng_supervisor::Asked;

/// Heading of what every command takes that deals with replicas.
const GLOBAL: &str = "Global options";

/// Commands that have nothing to do with replicas: they take the global options, as scripts may give them to all, but do
/// not show them.
const WITHOUT_REPLICAS: [&str; 20] = [
    "config",
    "convert",
    "runs",
    "report",
    "compare",
    "build",
    "pull",
    "push",
    "images",
    "rmi",
    "prune",
    "tag",
    "save",
    "ls",
    "autoscale",
    "completions",
    "man",
    "exit-codes",
    "supervise",
    "build-step",
];

/// The whole definition: parser, help, manual pages and completions are made from this.
pub fn command() -> clap::Command {
    let command = Arguments::command();
    let globals: Vec<clap::Arg> =
        command.get_arguments().filter(|arg| arg.is_global_set()).cloned().collect();
    let command = WITHOUT_REPLICAS.iter().fold(command, |command, name| {
        let hidden = globals.iter().cloned().map(|arg| arg.hide(true));
        command.mut_subcommand(*name, |subcommand| subcommand.args(hidden))
    });
    compact(command)
}

/// One layout of help for all: clap spreads out what `--help` shows of a command as soon as one of its values has a text.
fn compact(command: clap::Command) -> clap::Command {
    let help =
        clap::Arg::new("help").short('h').long("help").action(clap::ArgAction::HelpShort).help("Print help");
    command.disable_help_flag(true).arg(help).mut_subcommands(compact)
}

/// What was typed; ends the process with help or an error where that is no command.
pub fn parse() -> Arguments {
    let matches = command().get_matches();
    Arguments::from_arg_matches(&matches).unwrap_or_else(|error| error.format(&mut command()).exit())
}

/// Run a Compose app as a crowd on one machine, under load, and learn where it breaks.
#[derive(Debug, Parser)]
#[command(name = "throng", version, max_term_width = 100, infer_subcommands = false)]
#[command(after_help = "Start here: `throng run examples/pdfmagic`. Exit codes: `throng exit-codes`.")]
pub struct Arguments {
    #[command(flatten)]
    pub project: ProjectArguments,
    /// How replicas are kept apart; the default is containers where the kernel allows them
    #[arg(help_heading = GLOBAL, long, global = true, value_enum, env = "THRONG_ISOLATION")]
    pub isolation: Option<IsolationArgument>,
    /// What replicas run on: local (the embedded engine), docker (the Docker daemon that DOCKER_HOST names), or docker:N (N
    /// nodes, each a Docker daemon of its own inside that one) [default: what the app runs on already, or local]
    #[arg(help_heading = GLOBAL, long, global = true, value_name = "WHERE", env = "THRONG_ON")]
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
    /// Show services in detail: replicas, metrics and conditions of the autoscaler, events
    Describe(DescribeArguments),
    /// Change replica counts: `throng scale web=3 worker=10`
    Scale(ScaleArguments),
    /// Show what replicas have written
    Logs(LogsArguments),
    /// Run a command inside a running replica
    Exec(ExecArguments),
    /// Wait until replicas have ended, and end with their exit code
    Wait(WaitArguments),
    /// Show what services and replicas use: a live screen on a terminal
    Top(TopArguments),
    /// Print the app's figures for Prometheus, or serve them and the addresses of replicas to scrape
    Metrics(MetricsArguments),
    /// Show what happened to the app
    Events(EventsArguments),
    /// Print the app as it is understood, with every default filled in
    Config(ConfigArguments),
    /// Write the app as Kubernetes manifests
    Convert(ConvertArguments),
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
    Images(ImagesArguments),
    /// Remove images
    Rmi(RmiArguments),
    /// Remove what nothing uses any more: images, build cache, remains of apps
    Prune(PruneArguments),
    /// Give an image another name
    Tag(TagArguments),
    /// Write images to an archive
    Save(SaveArguments),
    /// List apps that are up
    Ls(LsArguments),
    /// Kill replicas as a crash would, or send them a signal
    Kill(KillArguments),
    /// Stop replicas and keep them down until `start` or `up`
    Stop(StopArguments),
    /// Start stopped replicas again
    Start(StartArguments),
    /// Keep replicas from running, without their knowing
    Pause(PauseArguments),
    /// Let paused replicas go on
    Unpause(UnpauseArguments),
    /// Fill the disks of replicas, as something in them might
    Fill(FillArguments),
    /// Give filled disks back
    Empty(EmptyArguments),
    /// Look at virtual nodes, drain them, cut them off, change their links
    Node {
        #[command(subcommand)]
        command: NodeCommand,
    },
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
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Write manual pages, one for each command, into a folder
    Man {
        /// Made if it is missing
        folder: PathBuf,
    },
    /// Print what each exit code means
    ExitCodes,
    /// Look after one app (started by the other commands)
    #[command(hide = true)]
    Supervise,
    /// Carry out one RUN instruction (started by build)
    #[command(hide = true)]
    BuildStep,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn every_argument_has_a_text_and_global_ones_are_shown_where_they_mean_something() {
        fn look(command: &clap::Command, path: &str) {
            for arg in command.get_arguments() {
                assert!(
                    arg.get_help().is_some_and(|text| !text.to_string().is_empty()),
                    "{path} {}",
                    arg.get_id()
                );
            }
            let shown = command.get_arguments().any(|arg| arg.is_global_set() && !arg.is_hide_set());
            let top = path.split(' ').nth(1).unwrap_or_default();
            assert_eq!(shown, !WITHOUT_REPLICAS.contains(&top) && !path.ends_with(" help"), "{path}");
            for subcommand in command.get_subcommands().filter(|subcommand| subcommand.get_name() != "help") {
                look(subcommand, &format!("{path} {}", subcommand.get_name()));
            }
        }
        let mut command = command();
        command.build();
        look(&command, "throng");
    }
}
