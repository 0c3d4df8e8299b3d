//! What is done to replicas by hand. Flags that Docker Compose has mean the same here.

use clap::Args;
use std::time::Duration;
use throng_model::fault::{Portion, Victims};
use throng_model::units::{parse_bytes, parse_duration};

const WHICH: &str = "Which replicas";

/// Which replicas of which services.
#[derive(Debug, Clone, Args)]
pub struct VictimArguments {
    /// Only these services, or the one whose replica has this container_name [default: all]
    pub services: Vec<String>,
    /// So many of each service's replicas: a share as in 30%, rounded up, or a number [default: all]
    #[arg(help_heading = WHICH, long, value_name = "SHARE")]
    pub share: Option<Portion>,
    /// Let chance choose them, the same ones for the same number [default: those with the lowest numbers]
    #[arg(help_heading = WHICH, long, value_name = "N", requires = "share")]
    pub seed: Option<u64>,
}

impl VictimArguments {
    pub fn of(&self, service: &str) -> Victims {
        let portion = self.share.unwrap_or(Portion::ALL);
        Victims { portion, seed: self.seed, ..Victims::all_of(service) }
    }
}

#[derive(Debug, Args)]
pub struct KillArguments {
    #[command(flatten)]
    pub victims: VictimArguments,
    /// The signal, by name or number. One that ends by it has crashed: its restart policy says what comes then
    #[arg(short, long, default_value = "SIGKILL", value_parser = signal)]
    pub signal: i32,
}

#[derive(Debug, Args)]
pub struct StopArguments {
    #[command(flatten)]
    pub victims: VictimArguments,
    /// Seconds that they get to leave [default: each service's stop_grace_period]
    #[arg(short, long, value_name = "SECONDS")]
    pub timeout: Option<u64>,
    /// Start them again after this time, as in 20s
    #[arg(long = "for", value_name = "TIME", value_parser = lasting)]
    pub lasts: Option<Duration>,
}

#[derive(Debug, Args)]
pub struct StartArguments {
    #[command(flatten)]
    pub victims: VictimArguments,
}

#[derive(Debug, Args)]
pub struct PauseArguments {
    #[command(flatten)]
    pub victims: VictimArguments,
    /// Let them go on after this time, as in 20s
    #[arg(long = "for", value_name = "TIME", value_parser = lasting)]
    pub lasts: Option<Duration>,
}

#[derive(Debug, Args)]
pub struct UnpauseArguments {
    #[command(flatten)]
    pub victims: VictimArguments,
}

#[derive(Debug, Args)]
pub struct FillArguments {
    #[command(flatten)]
    pub victims: VictimArguments,
    /// How much of each, as in 64m [default: all up to the limit of the layer, storage_opt]
    #[arg(long, value_name = "BYTES", value_parser = size)]
    pub size: Option<u64>,
    /// Give it back after this time, as in 20s
    #[arg(long = "for", value_name = "TIME", value_parser = lasting)]
    pub lasts: Option<Duration>,
}

#[derive(Debug, Args)]
pub struct EmptyArguments {
    #[command(flatten)]
    pub victims: VictimArguments,
}

fn signal(text: &str) -> Result<i32, String> {
    throng_supervisor::signal_number(text)
        .ok_or_else(|| "write a name as in SIGHUP, or a number from 1 to 64".into())
}

pub fn lasting(text: &str) -> Result<Duration, String> {
    match parse_duration(text) {
        Ok(time) if time.is_zero() => Err("it would last no time".into()),
        Ok(time) => Ok(time),
        Err(error) => Err(error.to_string()),
    }
}

fn size(text: &str) -> Result<u64, String> {
    match parse_bytes(text) {
        Ok(0) => Err("nothing fills no disk".into()),
        Ok(bytes) => Ok(bytes),
        Err(error) => Err(error.to_string()),
    }
}
