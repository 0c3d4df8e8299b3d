//! Commands that show: ps, ls, events, config. JSON has one object a line, with Docker Compose's field names.

use crate::cli::{ConfigArguments, ConfigFormat, EventsArguments, Format, FormatArguments, PsArguments};
use crate::failure::{Failure, Kind, Result};
use crate::project::Context;
use crate::terminal::{Style, table};
use jiff::Timestamp;
use serde_json::json;
use std::time::SystemTime;
use throng_model::status::{Event, ReplicaStatus, Status};
use throng_supervisor::client::{self, Choice, Client};

pub async fn ps(context: &Context, arguments: PsArguments) -> Result<()> {
    let status = context.running().await?.status().await?;
    check_services(&status, &arguments.services)?;
    let shown = |replica: &&ReplicaStatus| {
        let chosen = arguments.services.is_empty() || arguments.services.contains(&replica.service);
        let lives = matches!(replica.state.as_str(), "running" | "starting" | "leaving");
        chosen && (arguments.all || lives)
    };
    let replicas: Vec<&ReplicaStatus> = status.replicas.iter().filter(shown).collect();
    if arguments.quiet {
        replicas.iter().for_each(|replica| outln!("{}", replica.name));
        return Ok(());
    }
    match arguments.format {
        Format::Json => replicas.iter().for_each(|replica| outln!("{}", ps_json(&status, replica))),
        Format::Table => out!("{}", ps_table(&status, &replicas)),
    }
    if !is_local(&status) && arguments.format == Format::Table {
        eprintln!("on {}", status.on);
    }
    let hidden = status.replicas.len() - replicas.len();
    if hidden > 0 && arguments.format == Format::Table && arguments.services.is_empty() {
        eprintln!("{hidden} more not running; see them with --all");
    }
    Ok(())
}

/// Whether replicas run on the embedded engine; a supervisor of before there was a choice does not say.
fn is_local(status: &Status) -> bool {
    matches!(status.on.as_str(), "" | "local")
}

pub fn check_services(status: &Status, services: &[String]) -> Result<()> {
    let unknown = services.iter().find(|service| !status.services.contains_key(*service));
    let Some(unknown) = unknown else { return Ok(()) };
    let known: Vec<&str> = status.services.keys().map(String::as_str).collect();
    Err(Failure::new(Kind::NotFound, format!("no service {unknown} in {}", status.project))
        .hint(format!("it has: {}", known.join(", "))))
}

fn ps_table(status: &Status, replicas: &[&ReplicaStatus]) -> String {
    let rows: Vec<Vec<String>> = replicas
        .iter()
        .map(|replica| {
            let address = replica.addresses.first().map_or_else(|| "-".into(), ToString::to_string);
            vec![
                replica.name.clone(),
                replica.service.clone(),
                state_text(replica),
                address,
                replica.restarts.to_string(),
                ports_text(status, &replica.service),
            ]
        })
        .collect();
    table(&["NAME", "SERVICE", "STATUS", "ADDRESS", "RESTARTS", "PORTS"], &rows)
}

fn ports_text(status: &Status, service: &str) -> String {
    let published = status.services.get(service).map_or(&[][..], |service| &service.published);
    let each = published.iter().map(|port| format!("{}->{}/tcp", port.address, port.target));
    each.collect::<Vec<_>>().join(", ")
}

/// `Up 3 minutes (healthy)`, `Exited (1) 5 seconds ago`, as docker says it.
fn state_text(replica: &ReplicaStatus) -> String {
    let health = match replica.health.as_str() {
        "" => String::new(),
        health => format!(" ({health})"),
    };
    match replica.state.as_str() {
        "running" => format!("Up {}{health}", since(replica.started_at)),
        "exited" => {
            let code = replica.exit.map_or(0, |exit| exit.code());
            let reason = replica.exit.filter(|exit| exit.code() > 128).map(|exit| format!(", {exit}"));
            format!("Exited ({code}{}) {} ago", reason.unwrap_or_default(), since(replica.finished_at))
        }
        "failed" => format!("Failed: {}", replica.error.as_deref().unwrap_or("unknown")),
        state => {
            let mut letters = state.chars();
            letters
                .next()
                .map(|first| first.to_uppercase().to_string() + letters.as_str())
                .unwrap_or_default()
        }
    }
}

/// How long ago, in docker's words.
fn since(time: Option<SystemTime>) -> String {
    let seconds = time.and_then(|time| time.elapsed().ok()).map_or(0, |elapsed| elapsed.as_secs());
    let plural = |n: u64, unit: &str| format!("{n} {unit}{}", if n == 1 { "" } else { "s" });
    match seconds {
        0 => "less than a second".into(),
        1..60 => plural(seconds, "second"),
        60..3_600 => plural(seconds / 60, "minute"),
        3_600..172_800 => plural(seconds / 3_600, "hour"),
        _ => plural(seconds / 86_400, "day"),
    }
}

fn ps_json(status: &Status, replica: &ReplicaStatus) -> serde_json::Value {
    let published = status.services.get(&replica.service).map_or(&[][..], |service| &service.published);
    let publishers = published.iter().map(|port| {
        json!({
            "URL": port.address.ip().to_string(),
            "TargetPort": port.target,
            "PublishedPort": port.address.port(),
            "Protocol": "tcp",
        })
    });
    json!({
        "Name": replica.name,
        "Project": status.project,
        "On": status.on,
        "Service": replica.service,
        "Image": replica.image,
        "Command": replica.command,
        "State": replica.state,
        "Status": state_text(replica),
        "Health": replica.health,
        "ExitCode": replica.exit.map_or(0, |exit| exit.code()),
        "Error": replica.error,
        "CreatedAt": time_text(replica.created_at),
        "Publishers": publishers.collect::<Vec<_>>(),
        "Ordinal": replica.ordinal,
        "Restarts": replica.restarts,
        "Addresses": replica.addresses,
    })
}

fn time_text(time: SystemTime) -> String {
    Timestamp::try_from(time).map(|time| time.to_string()).unwrap_or_default()
}

pub async fn ls(context: &Context, arguments: FormatArguments) -> Result<()> {
    let mut rows = Vec::new();
    for project in client::projects(&context.paths) {
        let found =
            match Client::find(&context.paths, &project, &Choice { on: None, ..context.choice() }).await {
                Ok(client) => client.status().await.ok(),
                Err(_) => None,
            };
        let running =
            found.as_ref().map(|status| status.replicas.iter().filter(|r| r.state == "running").count());
        let folder = found.as_ref().map(|status| status.directory.display().to_string()).unwrap_or_default();
        let on = found.as_ref().map(|status| status.on.clone()).unwrap_or_default();
        let text = running.map_or_else(|| "unreachable".into(), |count| format!("running({count})"));
        match arguments.format {
            Format::Json => {
                outln!("{}", json!({"Name": project, "Status": text, "On": on, "Directory": folder}))
            }
            Format::Table => rows.push(vec![project, text, on, folder]),
        }
    }
    if arguments.format == Format::Table {
        out!("{}", table(&["NAME", "STATUS", "ON", "DIRECTORY"], &rows));
    }
    Ok(())
}

pub async fn events(context: &Context, arguments: EventsArguments) -> Result<()> {
    let client = context.running().await?;
    let interrupted = super::interrupted()?;
    let format = arguments.format;
    let style = Style::for_stdout();
    let following =
        client.events(!arguments.no_follow, move |event| outln!("{}", event_line(&event, format, style)));
    tokio::select! {
        result = following => Ok(result?),
        () = interrupted.cancelled() => Ok(()),
    }
}

fn event_line(event: &Event, format: Format, style: Style) -> String {
    let time = time_text(event.at);
    match format {
        Format::Json => {
            json!({"time": time, "type": event.kind, "subject": event.subject, "message": event.message})
                .to_string()
        }
        Format::Table => {
            let time = time.get(..23).unwrap_or(&time).replace('T', " ");
            format!(
                "{} {:<8} {:<12} {}",
                style.dim(&time),
                event.kind,
                style.bold(&event.subject),
                event.message
            )
        }
    }
}

pub fn config(context: &Context, arguments: ConfigArguments) -> Result<()> {
    let app = context.load(None)?.app;
    match (arguments.quiet, arguments.services, arguments.format) {
        (true, ..) => {}
        (_, true, _) => app.services.keys().for_each(|name| outln!("{name}")),
        (_, _, ConfigFormat::Yaml) => out!("{}", throng_compose::to_yaml(&app)),
        (_, _, ConfigFormat::Json) => outln!("{:#}", throng_compose::canonical(&app)),
    }
    Ok(())
}
