//! Experiments and their records.

use super::Format;
use clap::Args;
use std::path::PathBuf;

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
pub struct RunsArguments {
    /// Print names only
    #[arg(short, long)]
    pub quiet: bool,
    /// How the list is printed
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
    /// How the differences are printed
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
}
