//! Bringing an app up and down, scaling it, and running commands in it.

use super::images;
use crate::cli::{DownArguments, ExecArguments, ScaleArguments, UpArguments};
use crate::failure::{Failure, Kind, Result};
use crate::project::{Context, parse_scale, say_notes};
use crate::terminal::{Progress, Style};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, SystemTime};
use throng_model::status::{Event, Readiness};
use throng_supervisor::client::Client;
use throng_supervisor::protocol::Exec;

pub async fn up(context: &Context, arguments: UpArguments) -> Result<ExitCode> {
    let (interrupted, begin) = (super::interrupted()?, SystemTime::now());
    let mut app = context.load(None)?.app;
    for (service, count) in parse_scale(&arguments.scale, Some(&app))? {
        if let Some(service) = app.services.get_mut(&service) {
            service.replicas = count;
        }
    }
    let policy = match (arguments.build, arguments.no_build) {
        (true, _) => images::BuildPolicy::Always,
        (false, true) => images::BuildPolicy::Never,
        (false, false) => images::BuildPolicy::Missing,
    };
    tokio::select! {
        result = images::provide(context, &app, policy) => result?,
        () = interrupted.cancelled() => return Err(Failure::new(Kind::Interrupted, "stopped before the start")),
    }
    let client = Client::start(&context.paths, &app.name, &context.choice()).await?;
    say_notes(&client);
    client.apply(&app, &arguments.services).await?;
    let detached = arguments.detach || arguments.wait;
    // In the foreground the app lives as long as this command, even if this command is killed.
    let lease = if detached { None } else { Some(client.lease(false).await?) };
    let timeout = Duration::from_secs(arguments.wait_timeout);
    let ready = async {
        tokio::select! {
            result = wait(&client, &arguments.services, timeout, "up") => result,
            () = interrupted.cancelled() => Err(Failure::new(Kind::Interrupted, "")),
        }
    };
    let ready = ready.await;
    say_where(&client).await;
    if detached {
        say_walls(&client, begin).await;
        // Without --wait, an app that is slow to become ready is no failure; what has failed for good is.
        ready?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Err(failure) = &ready
        && failure.kind != Kind::Interrupted
    {
        failure.report();
    }
    let followed = tokio::select! {
        followed = super::logs::follow(&client, &arguments.services, interrupted.clone()) => followed,
        () = warn_of_walls(&client, begin) => Ok(()),
    };
    let mut progress = Progress::new("down");
    client.down(false, None, &mut |services| progress.say(&counts(services))).await?;
    progress.done("everything removed");
    drop(lease);
    followed?;
    Ok(if interrupted.is_cancelled() { ExitCode::from(Kind::Interrupted.code()) } else { ExitCode::SUCCESS })
}

/// Waits for readiness with a bar.
pub async fn wait(client: &Client, services: &[String], timeout: Duration, label: &str) -> Result<()> {
    let mut progress = Progress::new(label);
    let mut last = BTreeMap::new();
    let result = client
        .wait(services, timeout, &mut |services| {
            show(&mut progress, services);
            last = services.clone();
        })
        .await;
    match result {
        Ok(()) => progress.done(&counts(&last)),
        Err(_) => progress.failed(&counts(&last)),
    }
    Ok(result?)
}

/// Puts the readiness of services into a bar.
pub fn show(progress: &mut Progress, services: &BTreeMap<String, Readiness>) {
    let ready: u32 = services.values().map(|r| (r.ready + r.completed).min(r.wanted)).sum();
    let wanted: u32 = services.values().map(|r| r.wanted).sum();
    progress.part(u64::from(ready), u64::from(wanted), &counts(services));
}

/// `web 2/3 ready, db waits for …`.
pub fn counts(services: &BTreeMap<String, Readiness>) -> String {
    let each = services.iter().map(|(name, r)| {
        let mut text = format!("{name} {}/{} ready", r.ready + r.completed, r.wanted);
        if r.present > r.wanted {
            text += &format!(", {} leaving", r.present - r.wanted);
        }
        match (&r.waiting, &r.trouble) {
            (Some(reason), _) => text + &format!(", waits: {reason}"),
            (None, Some(trouble)) if r.failed > 0 => text + &format!(", {trouble}"),
            (None, _) => text,
        }
    });
    each.collect::<Vec<_>>().join("; ")
}

async fn say_where(client: &Client) {
    let Ok(status) = client.status().await else { return };
    let style = Style::for_stderr();
    for (name, service) in &status.services {
        for published in &service.published {
            let address = style.bold(&published.address.to_string());
            eprintln!("  {name} answers on {address} (port {} of its ready replicas)", published.target);
        }
    }
    if let Some(lost) = status.lost {
        eprintln!("{} {}: {lost}", style.yellow("note:"), status.isolation);
    }
}

/// What has been met on this host in silence since then.
async fn say_walls(client: &Client, since: SystemTime) {
    // It is an extra: who cannot say it, a supervisor of an earlier version say, need not.
    let _ = client.walls(since, false, |event| warn(&event)).await;
}

/// As above, as long as it is waited for.
async fn warn_of_walls(client: &Client, since: SystemTime) {
    let _ = client.walls(since, true, |event| warn(&event)).await;
    std::future::pending().await
}

fn warn(event: &Event) {
    eprintln!("{} {}", Style::for_stderr().yellow("warning:"), event.message);
}

pub async fn down(context: &Context, arguments: DownArguments) -> Result<()> {
    let client = context.running().await?;
    let mut progress = Progress::new("down");
    let grace = arguments.timeout.map(Duration::from_secs);
    client.down(arguments.volumes, grace, &mut |services| progress.say(&counts(services))).await?;
    progress.done("everything removed");
    Ok(())
}

pub async fn scale(context: &Context, arguments: ScaleArguments) -> Result<()> {
    let counts = parse_scale(&arguments.scale, None)?;
    let client = context.running().await?;
    let services: Vec<String> = counts.keys().cloned().collect();
    let begin = SystemTime::now();
    client.scale(counts).await?;
    if arguments.no_wait {
        return Ok(());
    }
    let ready = wait(&client, &services, Duration::from_secs(arguments.wait_timeout), "scale").await;
    say_walls(&client, begin).await;
    ready
}

pub async fn exec(context: &Context, arguments: ExecArguments) -> Result<ExitCode> {
    let client = context.running().await?;
    let exec = Exec {
        service: arguments.service,
        ordinal: arguments.index,
        args: arguments.command,
        env: arguments.env,
        cwd: arguments.workdir,
        user: arguments.user,
    };
    let exit = client.exec(exec).await?;
    Ok(ExitCode::from(u8::try_from(exit.code()).unwrap_or(255)))
}
