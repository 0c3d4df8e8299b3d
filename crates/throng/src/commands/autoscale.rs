//! `throng autoscale`: what Kubernetes' horizontal autoscaler would decide, once or for hours.

mod decide;
mod manifest;
mod page;
mod simulate;

use crate::cli::AutoscaleCommand;
use crate::failure::Result;

pub fn run(command: &AutoscaleCommand) -> Result<()> {
    match command {
        AutoscaleCommand::Decide(arguments) => decide::run(arguments),
        AutoscaleCommand::Simulate(arguments) => simulate::run(arguments),
    }
}
