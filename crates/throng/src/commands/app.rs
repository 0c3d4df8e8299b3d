//! Bringing an app up and down, scaling it, and running commands in it.

use super::{build, images, interrupted, without_terminal};
use crate::cli::{DownArguments, ExecArguments, RmiArgument, ScaleArguments, UpArguments};
use crate::failure::{Failure, Kind, Result};
use crate::project::{Context, parse_scale, say_notes};
use crate::terminal::{Progress, Style};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};
use throng_model::app::Service;
use throng_model::replica::Exit;
use throng_model::status::{Event, Readiness};
use throng_model::update::UpdateState;
use throng_supervisor::client::Client;
use throng_supervisor::protocol::{Exec, Manner};

pub async fn up(context: &Context, arguments: UpArguments) -> Result<ExitCode> {
    let (interrupted, begin) = (super::interrupted()?, SystemTime::now());
    let loaded = context.load(None)?;
    let (mut app, files) = (loaded.app, loaded.files);
    for (service, count) in parse_scale(&arguments.scale, Some(&app))? {
        if let Some(service) = app.services.get_mut(&service) {
            may_have(service, count)?;
            service.replicas = count;
        }
    }
    let policy = match (arguments.build, arguments.no_build) {
        (true, _) => build::BuildPolicy::Always,
        (false, true) => build::BuildPolicy::Never,
        (false, false) => build::BuildPolicy::Missing,
    };
    tokio::select! {
        result = build::provide(context, &app, policy, arguments.pull) => result?,
        () = interrupted.cancelled() => return Err(Failure::new(Kind::Interrupted, "stopped before the start")),
    }
    let client = Client::start(&context.paths, &app.name, &context.choice()).await?;
    say_notes(&client);
    let grace = arguments.timeout.map(Duration::from_secs);
    let manner = Manner { no_deps: arguments.no_deps, recreate: arguments.force_recreate, grace, files };
    client.apply_so(&app, &arguments.services, manner).await?;
    let detached = arguments.detach || arguments.wait;
    // In the foreground the app lives as long as this command, even if this command is killed.
    let lease = if detached { None } else { Some(client.lease(false).await?) };
    let timeout = Duration::from_secs(arguments.wait_timeout);
    let ready = async {
        tokio::select! {
            result = wait_for_update(&client, &arguments.services, timeout) => result,
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
    let mut failed_jobs = Vec::new();
    let end = interrupted.child_token();
    let follow = super::logs::follow(&client, &arguments.services, end.clone());
    tokio::pin!(follow);
    let followed = tokio::select! {
        followed = &mut follow => followed,
        // As docker compose does: there is nothing left to follow.
        failed = super::wait::all_over(&client, &arguments.services) => {
            failed_jobs = failed;
            end.cancel();
            follow.await
        }
        () = warn_of_walls(&client, begin) => Ok(()),
    };
    let mut progress = Progress::new("down");
    client.down(false, grace, &mut |services| progress.say(&counts(services))).await?;
    progress.done("everything removed");
    drop(lease);
    followed?;
    if !failed_jobs.is_empty() {
        return Err(Failure::new(Kind::NotHeld, failed_jobs.join("; ")));
    }
    Ok(if interrupted.is_cancelled() { ExitCode::from(Kind::Interrupted.code()) } else { ExitCode::SUCCESS })
}

/// A name that is one replica's alone cannot be several replicas', and of a job so many run as it says.
fn may_have(service: &Service, count: u32) -> Result<()> {
    if service.job.is_some() {
        let message =
            format!("--scale {}: it is a job, of which so many replicas run as it says", service.name);
        return Err(Failure::new(Kind::Input, message).hint("change completions under x-throng.job"));
    }
    match &service.container_name {
        Some(name) if count > 1 => {
            let message = format!("{count} replicas of {} cannot all be called {name}", service.name);
            Err(Failure::new(Kind::Input, message).hint("remove its container_name"))
        }
        _ => Ok(()),
    }
}

/// Waits with a bar for what has just been applied.
async fn wait_for_update(client: &Client, services: &[String], timeout: Duration) -> Result<()> {
    waiting(client, services, timeout, "up", true).await
}

/// Waits for readiness with a bar.
pub async fn wait(client: &Client, services: &[String], timeout: Duration, label: &str) -> Result<()> {
    waiting(client, services, timeout, label, false).await
}

async fn waiting(
    client: &Client,
    services: &[String],
    timeout: Duration,
    label: &str,
    update: bool,
) -> Result<()> {
    let begin = Instant::now();
    let mut progress = Progress::new(label);
    let mut last = BTreeMap::new();
    let mut told = |services: &BTreeMap<String, Readiness>| {
        show(&mut progress, services);
        last = services.clone();
    };
    let result = match update {
        true => client.wait_for_update(services, timeout, &mut told).await,
        false => client.wait(services, timeout, &mut told).await,
    };
    match result {
        Ok(()) => progress.done(&counts(&last)),
        Err(_) => progress.failed(&counts(&last)),
    }
    result.map_err(|error| {
        let mut failure = Failure::from(error);
        if failure.kind == Kind::NotHeld && failure.hint.is_none() {
            let longer = if begin.elapsed() < timeout { "" } else { ", or wait longer with --wait-timeout" };
            failure.hint = Some(format!("see `throng logs` and `throng ps --all`{longer}"));
        }
        failure
    })
}

/// Puts the readiness of services into a bar.
pub fn show(progress: &mut Progress, services: &BTreeMap<String, Readiness>) {
    let ready: u32 = services.values().map(|r| (r.ready + r.completed).min(r.wanted)).sum();
    // Those that are too many have yet to go.
    let all: u32 = services.values().map(|r| r.wanted.max(r.present)).sum();
    progress.part(u64::from(ready), u64::from(all), &counts(services));
}

/// `web 2/3 ready, db waits for …`.
pub fn counts(services: &BTreeMap<String, Readiness>) -> String {
    let each = services.iter().map(|(name, r)| {
        // Replicas that are to leave are ready until their turn comes; they are counted once, with those that leave.
        let mut text = match &r.job {
            Some(job) => format!("{name} {job}"),
            None => format!("{name} {}/{} ready", (r.ready + r.completed).min(r.wanted), r.wanted),
        };
        if r.present > r.wanted && r.job.is_none() {
            text += &format!(", {} still to leave", r.present - r.wanted);
        }
        if let Some(update) = &r.update {
            text += match update.state {
                UpdateState::Updating => ", updating",
                UpdateState::Paused => ", update paused",
                UpdateState::RollingBack => ", rolling back",
                UpdateState::RollbackPaused => ", rollback paused",
                UpdateState::RolledBack => ", update rolled back",
            };
            if matches!(update.state, UpdateState::Updating | UpdateState::RollingBack) {
                text += &format!(" ({} of {} done)", update.done, r.wanted);
            }
        }
        match (&r.waiting, r.trouble.as_ref().filter(|_| r.job.is_none())) {
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
    let client = match context.running_if_up().await? {
        Ok(client) => client,
        Err(nothing) => match context.remains().await? {
            Some(client) => client,
            None => {
                eprintln!("{} {nothing}: nothing to take down", Style::for_stderr().yellow("warning:"));
                return Ok(());
            }
        },
    };
    let images = match arguments.rmi {
        Some(which) => service_images(&client, which).await?,
        None => Vec::new(),
    };
    let mut progress = Progress::new("down");
    let grace = arguments.timeout.map(Duration::from_secs);
    client.down(arguments.volumes, grace, &mut |services| progress.say(&counts(services))).await?;
    progress.done("everything removed");
    images::remove_unused(context, &images)
}

/// Images of the app's services: all, or those that have no name but the one that follows from the service's.
async fn service_images(client: &Client, which: RmiArgument) -> Result<Vec<String>> {
    let status = client.status().await?;
    let own = |name: &str| format!("{}-{name}", status.project);
    let chosen = status.services.iter().filter(|(name, service)| {
        which == RmiArgument::All
            || service.image.strip_suffix(":latest").unwrap_or(&service.image) == own(name)
    });
    let mut images: Vec<String> = chosen.map(|(_, service)| service.image.clone()).collect();
    images.sort();
    images.dedup();
    Ok(images)
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
    let work = async {
        Ok(if arguments.no_tty && !arguments.tty {
            without_terminal::exec(&client, exec).await?
        } else {
            client.exec(exec).await?
        })
    };
    // Who started this may have it ignore Ctrl-C, as shells do with what they put into the background.
    let interrupted = interrupted()?;
    tokio::select! {
        exit = work => exit.map(|exit: Exit| ExitCode::from(u8::try_from(exit.code()).unwrap_or(255))),
        () = interrupted.cancelled() => Ok(ExitCode::from(Kind::Interrupted.code())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use throng_model::status::Update;

    #[test]
    fn counts_say_how_far_a_service_is() {
        let ready = |wanted, present, ready| Readiness { wanted, present, ready, ..Readiness::default() };
        let waiting = Readiness { waiting: Some("db".into()), ..ready(1, 0, 0) };
        let failing = Readiness { failed: 1, trouble: Some("replica 1: gone".into()), ..ready(2, 2, 1) };
        let updating = |state| {
            let update = Update { state, done: 1, failed: 0, reason: None };
            Readiness { update: Some(update), ..ready(2, 2, 2) }
        };
        for (readiness, text) in [
            (ready(3, 3, 2), "web 2/3 ready"),
            // Scaled down from ten thousand: most of them are ready, and none of those is one of the two.
            (ready(2, 9_198, 2_761), "web 2/2 ready, 9196 still to leave"),
            (ready(0, 4, 1), "web 0/0 ready, 4 still to leave"),
            (waiting, "web 0/1 ready, waits: db"),
            (failing, "web 1/2 ready, replica 1: gone"),
            (updating(UpdateState::Updating), "web 2/2 ready, updating (1 of 2 done)"),
            (updating(UpdateState::RolledBack), "web 2/2 ready, update rolled back"),
        ] {
            assert_eq!(counts(&BTreeMap::from([("web".to_owned(), readiness)])), text);
        }
    }
}
