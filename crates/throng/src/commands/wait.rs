//! `throng wait`: until replicas have ended for good.

use super::app::counts;
use super::interrupted;
use super::listings::check_services;
use crate::cli::WaitArguments;
use crate::failure::{Failure, Kind, Result};
use crate::project::Context;
use crate::terminal::Progress;
use std::process::ExitCode;
use std::time::Duration;
use throng_model::job::{JobState, JobStatus};
use throng_model::status::{ReplicaStatus, Status};
use throng_supervisor::client::Client;

/// How often the supervisor is asked.
const LOOK_EVERY: Duration = Duration::from_millis(200);

pub async fn run(context: &Context, arguments: WaitArguments) -> Result<ExitCode> {
    let client = context.running().await?;
    let interrupted = interrupted()?;
    check_services(&client.status().await?, &arguments.services)?;
    let status = loop {
        let status = client.status().await?;
        if arguments.services.iter().all(|service| is_over(&status, service)) {
            break status;
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = interrupted.cancelled() => return Err(Failure::new(Kind::Interrupted, "stopped")),
        }
    };
    let mut code = 0;
    for service in &arguments.services {
        for replica in replicas(&status, service) {
            let own = exit_code(replica);
            outln!("{} exited with code {own}", replica.name);
            // Of a job only what became of it as a whole counts.
            if job(&status, service).is_none() {
                code = code.max(own);
            }
        }
        if let Some(job) = job(&status, service) {
            outln!("{service}: {job}");
            if job.state == JobState::Failed {
                let failed = replicas(&status, service).map(exit_code).filter(|code| *code != 0);
                code = code.max(failed.max().unwrap_or(1));
            }
        }
    }
    if arguments.down_project {
        let mut progress = Progress::new("down");
        client.down(false, None, &mut |services| progress.say(&counts(services))).await?;
        progress.done("everything removed");
    }
    Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)))
}

/// Returns once nothing of these services (all if empty) runs or will ever run again, with the jobs that have failed and
/// why; or never.
pub async fn all_over(client: &Client, services: &[String]) -> Vec<String> {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        // Whoever follows the logs notices that the supervisor is gone.
        let Ok(status) = client.status().await else { return std::future::pending().await };
        let chosen: Vec<&String> =
            status.services.keys().filter(|name| services.is_empty() || services.contains(name)).collect();
        let once = |name: &str| job(&status, name).is_none_or(|job| job.next.is_none());
        if !chosen.is_empty() && chosen.iter().all(|name| once(name) && is_over(&status, name)) {
            let failed =
                |name: &&String| Some(format!("{name} failed: {}", job(&status, name)?.reason.clone()?));
            return chosen.iter().filter_map(failed).collect();
        }
    }
}

fn job<'a>(status: &'a Status, service: &str) -> Option<&'a JobStatus> {
    status.services.get(service)?.readiness.job.as_ref()
}

fn replicas<'a>(status: &'a Status, service: &'a str) -> impl Iterator<Item = &'a ReplicaStatus> {
    status.replicas.iter().filter(move |replica| replica.service == service)
}

fn exit_code(replica: &ReplicaStatus) -> i32 {
    replica.exit.map_or(1, |exit| exit.code())
}

/// Whether all replicas of a service have ended and stay so.
fn is_over(status: &Status, service: &str) -> bool {
    let ended = |replica: &ReplicaStatus| {
        matches!(replica.state.as_str(), "exited" | "failed") && replica.next_start.is_none()
    };
    let all_ended = replicas(status, service).all(ended);
    match job(status, service) {
        Some(job) => matches!(job.state, JobState::Complete | JobState::Failed) && all_ended,
        None => {
            let wanted = status.services.get(service).map_or(0, |service| service.readiness.wanted);
            // One that is to have none may get some, by its autoscaler say.
            all_ended && replicas(status, service).count() >= wanted.max(1) as usize
        }
    }
}
