//! Replicas that are killed, stopped, paused, or have their disks filled by hand.

use crate::cli::VictimArguments;
use crate::failure::Result;
use crate::project::Context;
use crate::terminal::Style;
use std::time::Duration;
use throng_model::fault::ReplicaFault;

/// Has it befall the replicas, service by service, and says which.
pub async fn befall(
    context: &Context,
    victims: &VictimArguments,
    fault: ReplicaFault,
    lasts: Option<Duration>,
) -> Result<()> {
    let client = context.running().await?;
    let services = match victims.services.is_empty() {
        false => victims.services.clone(),
        true => client.status().await?.services.into_keys().collect(),
    };
    let mut befallen = Vec::new();
    for service in &services {
        befallen.extend(client.befall(victims.of(service), fault.clone(), lasts).await?);
    }
    let style = Style::for_stderr();
    if befallen.is_empty() {
        let of = services.join(", ");
        eprintln!("{} {of}: there is no replica to {}", style.yellow("warning:"), verb(&fault));
    }
    for name in &befallen {
        eprintln!("{name} {}", done(&fault));
    }
    Ok(())
}

fn verb(fault: &ReplicaFault) -> &'static str {
    match fault {
        ReplicaFault::Kill { .. } => "send the signal to",
        ReplicaFault::Stop { .. } => "stop",
        ReplicaFault::Start => "start",
        ReplicaFault::Pause => "pause",
        ReplicaFault::Unpause => "let go on",
        ReplicaFault::Fill { .. } => "fill the disk of",
        ReplicaFault::Empty => "give the disk back to",
    }
}

fn done(fault: &ReplicaFault) -> &'static str {
    match fault {
        ReplicaFault::Kill { signal: 9 } => "killed",
        ReplicaFault::Kill { .. } => "has been sent the signal",
        ReplicaFault::Stop { .. } => "stopped",
        ReplicaFault::Start => "is started",
        ReplicaFault::Pause => "paused",
        ReplicaFault::Unpause => "goes on",
        ReplicaFault::Fill { .. } => "has its disk filled",
        ReplicaFault::Empty => "has its disk back",
    }
}
