//! Commands that show: ps, ls, events, config. JSON has one object a line, with Docker Compose's field names.

use crate::cli::{ConfigArguments, ConfigFormat, EventsArguments, Format, LsArguments, PsArguments};
use crate::failure::{Failure, Kind, Result, io};
use crate::project::Context;
use crate::terminal::{Style, table};
use jiff::Timestamp;
use serde_json::json;
use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};
use throng_model::status::{Event, ReplicaStatus, Status};
use throng_supervisor::client::{self, Choice, Client};

pub async fn ps(context: &Context, arguments: PsArguments) -> Result<()> {
    let client = match context.running_if_up().await? {
        Ok(client) => client,
        Err(nothing) => {
            if arguments.format == Format::Table && !arguments.quiet && !arguments.services_only {
                out!("{}", table(&PS_HEADINGS, &[]));
                eprintln!("{nothing}; start it with `throng up -d`");
            }
            return Ok(());
        }
    };
    let status = client.status().await?;
    let services = services_called(&status, &arguments.services);
    check_services(&status, &services)?;
    let states: Vec<_> = arguments.status.iter().chain(&arguments.filter).collect();
    let shown = |replica: &&ReplicaStatus| {
        let chosen = services.is_empty() || services.contains(&replica.service);
        let lives =
            ["pending", "running", "paused", "starting", "restarting", "leaving"].contains(&&*replica.state);
        let asked = states.iter().any(|state| state.is(&replica.state));
        chosen && if states.is_empty() { arguments.all || lives } else { asked }
    };
    let replicas: Vec<&ReplicaStatus> = status.replicas.iter().filter(shown).collect();
    if arguments.services_only {
        let services: BTreeSet<&str> = replicas.iter().map(|replica| replica.service.as_str()).collect();
        services.iter().for_each(|service| outln!("{service}"));
        return Ok(());
    }
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
    if arguments.format == Format::Table {
        for (name, service) in &status.services {
            let chosen = arguments.services.is_empty() || arguments.services.contains(name);
            if let Some(job) = service.readiness.job.as_ref().filter(|_| chosen) {
                eprintln!("{name}: {job}");
            }
        }
    }
    let hidden = status.replicas.len() - replicas.len();
    let narrowed = !arguments.services.is_empty() || !states.is_empty();
    if hidden > 0 && arguments.format == Format::Table && !narrowed {
        eprintln!("{hidden} more not running; see them with --all");
    }
    Ok(())
}

/// Whether replicas run on the embedded engine; a supervisor of before there was a choice does not say.
fn is_local(status: &Status) -> bool {
    matches!(status.on.as_str(), "" | "local")
}

/// The services that are meant, be it by the name of their only container.
fn services_called(status: &Status, names: &[String]) -> Vec<String> {
    let service = |name: &String| {
        let of_replica = status.replicas.iter().find(|replica| replica.name == *name);
        let is_service = status.services.contains_key(name);
        of_replica.filter(|_| !is_service).map_or_else(|| name.clone(), |replica| replica.service.clone())
    };
    names.iter().map(service).collect()
}

pub fn check_services(status: &Status, services: &[String]) -> Result<()> {
    let unknown = services.iter().find(|service| !status.services.contains_key(*service));
    let Some(unknown) = unknown else { return Ok(()) };
    let known: Vec<&str> = status.services.keys().map(String::as_str).collect();
    Err(Failure::new(Kind::NotFound, format!("no service {unknown} in {}", status.project))
        .hint(format!("it has: {}", known.join(", "))))
}

const PS_HEADINGS: [&str; 6] = ["NAME", "SERVICE", "STATUS", "ADDRESS", "RESTARTS", "PORTS"];

fn ps_table(status: &Status, replicas: &[&ReplicaStatus]) -> String {
    // Who has no nodes need not read of them.
    let on_nodes = replicas.iter().any(|replica| replica.node.is_some());
    let rows: Vec<Vec<String>> = replicas
        .iter()
        .map(|replica| {
            let address = replica.addresses.first().map_or_else(|| "-".into(), ToString::to_string);
            let mut row = vec![
                replica.name.clone(),
                replica.service.clone(),
                state_text(replica),
                address,
                replica.restarts.to_string(),
                ports_text(status, &replica.service),
            ];
            row.extend(on_nodes.then(|| replica.node.clone().unwrap_or_else(|| "-".into())));
            row
        })
        .collect();
    let headings: Vec<&str> = PS_HEADINGS.into_iter().chain(on_nodes.then_some("NODE")).collect();
    table(&headings, &rows)
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
        // As docker has it.
        "paused" => format!("Up {} (Paused)", since(replica.started_at)),
        "exited" => {
            let code = replica.exit.map_or(0, |exit| exit.code());
            let reason = replica.exit.filter(|exit| exit.code() > 128).map(|exit| format!(", {exit}"));
            let reason = ended_for(replica).or(reason).unwrap_or_default();
            format!("Exited ({code}{reason}) {} ago", since(replica.finished_at))
        }
        "restarting" => {
            let code = replica.exit.map_or(0, |exit| exit.code());
            let reason = ended_for(replica).unwrap_or_default();
            format!("Restarting ({code}{reason}) {} ago{}", since(replica.finished_at), again(replica))
        }
        "pending" => format!("Pending: {}", replica.error.as_deref().unwrap_or("unknown")),
        "failed" => format!("Failed: {}{}", replica.error.as_deref().unwrap_or("unknown"), again(replica)),
        state => {
            let mut letters = state.chars();
            letters
                .next()
                .map(|first| first.to_uppercase().to_string() + letters.as_str())
                .unwrap_or_default()
        }
    }
}

/// Why it was ended, if it was, in a few words.
fn ended_for(replica: &ReplicaStatus) -> Option<String> {
    let (what, _) = replica.ended_for.as_ref()?.split_once(':')?;
    Some(format!(", {what}"))
}

/// When a replica that keeps ending is started again: what kubectl calls CrashLoopBackOff.
fn again(replica: &ReplicaStatus) -> String {
    let waits = replica.next_start.and_then(|at| at.duration_since(SystemTime::now()).ok());
    waits.map(|waits| format!(", next start in {} (back-off)", duration(waits))).unwrap_or_default()
}

/// How long ago, in docker's words.
fn since(time: Option<SystemTime>) -> String {
    duration(time.and_then(|time| time.elapsed().ok()).unwrap_or_default())
}

fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
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
    let labels = status.services.get(&replica.service).into_iter().flat_map(|service| &service.labels);
    let labels: Vec<String> = labels.map(|(name, value)| format!("{name}={value}")).collect();
    json!({
        // Every command knows a replica by its name, so that is its id.
        "ID": replica.name,
        "Name": replica.name,
        "Names": replica.name,
        "RunningFor": format!("{} ago", since(Some(replica.created_at))),
        "Ports": ports_text(status, &replica.service),
        "Labels": labels.join(","),
        "Networks": replica.networks.join(","),
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
        "EndedFor": replica.ended_for,
        "CreatedAt": time_text(replica.created_at),
        "Publishers": publishers.collect::<Vec<_>>(),
        "Node": replica.node,
        "Ordinal": replica.ordinal,
        "Restarts": replica.restarts,
        "NextStart": replica.next_start.map(time_text),
        "Addresses": replica.addresses,
    })
}

fn time_text(time: SystemTime) -> String {
    Timestamp::try_from(time).map(|time| time.to_string()).unwrap_or_default()
}

pub async fn ls(context: &Context, arguments: LsArguments) -> Result<()> {
    let mut rows = Vec::new();
    for project in client::projects(&context.paths) {
        if arguments.quiet {
            outln!("{project}");
            continue;
        }
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
        let files = found.iter().flat_map(|status| &status.files).map(|file| file.display().to_string());
        let files = files.collect::<Vec<_>>().join(",");
        match arguments.format {
            Format::Json => outln!(
                "{}",
                json!({
                    "Name": project, "Status": text, "ConfigFiles": files, "On": on, "Directory": folder,
                })
            ),
            Format::Table => rows.push(vec![project, text, on, folder]),
        }
    }
    if arguments.format == Format::Table && !arguments.quiet {
        out!("{}", table(&["NAME", "STATUS", "ON", "DIRECTORY"], &rows));
    }
    Ok(())
}

pub async fn events(context: &Context, arguments: EventsArguments) -> Result<()> {
    let client = context.running().await?;
    let interrupted = super::interrupted()?;
    let format = if arguments.json { Format::Json } else { arguments.format };
    let style = Style::for_stdout();
    let project = client.project();
    let following =
        client.events(!arguments.no_follow, |event| outln!("{}", event_line(project, &event, format, style)));
    tokio::select! {
        result = following => Ok(result?),
        () = interrupted.cancelled() => Ok(()),
    }
}

fn event_line(project: &str, event: &Event, format: Format, style: Style) -> String {
    let time = time_text(event.at);
    match format {
        Format::Json => event_json(project, event, &time).to_string(),
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

/// An event in the words of `docker compose events --json`, beside our own.
fn event_json(project: &str, event: &Event, time: &str) -> serde_json::Value {
    // `web-3` is a replica, `web` a service; a service's own name may end like a replica's.
    let replica = event.subject.rsplit_once('-').filter(|(_, ordinal)| {
        matches!(event.kind.as_str(), "replica" | "health" | "warning") && ordinal.parse::<u32>().is_ok()
    });
    let service = match (replica, event.kind.as_str()) {
        (Some((service, _)), _) => service,
        (None, "scale" | "update" | "job") => &event.subject,
        _ => "",
    };
    let id = replica.map(|_| format!("{project}-{}", event.subject)).unwrap_or_default();
    let mut attributes = serde_json::Map::new();
    if replica.is_some() {
        attributes.insert("name".into(), id.clone().into());
    }
    if let Some(code) = event.message.strip_prefix("exited with code ") {
        attributes.insert("exitCode".into(), code.into());
    }
    json!({
        "time": time, "type": event.kind, "service": service, "id": id, "action": action(event),
        "attributes": attributes, "subject": event.subject, "message": event.message,
    })
}

/// What Docker calls it, where it knows it.
fn action(event: &Event) -> String {
    match (event.kind.as_str(), event.message.as_str()) {
        ("replica", "started") => "start".into(),
        ("replica", "removed") => "destroy".into(),
        ("replica", _) => "die".into(),
        ("health", message) => {
            format!("health_status: {}", message.split(':').next().unwrap_or_default())
        }
        (kind, _) => kind.into(),
    }
}

pub fn config(context: &Context, arguments: ConfigArguments) -> Result<()> {
    let app = context.load(None)?.app;
    if arguments.quiet {
        return Ok(());
    }
    let lines = |names: BTreeSet<&String>| names.into_iter().map(|name| format!("{name}\n")).collect();
    let text: String = match arguments.format {
        _ if arguments.services => lines(app.services.keys().collect()),
        _ if arguments.images => lines(app.services.values().map(|service| &service.image).collect()),
        _ if arguments.volumes => lines(app.volumes.keys().collect()),
        ConfigFormat::Yaml => throng_compose::to_yaml(&app),
        ConfigFormat::Json => format!("{:#}\n", throng_compose::canonical(&app)),
    };
    match arguments.output {
        Some(path) => {
            std::fs::write(&path, text).map_err(|error| io(format!("write {}", path.display()), &error))
        }
        None => {
            out!("{text}");
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_told_in_docker_compose_s_words_too() {
        for (kind, subject, message, service, id, action) in [
            ("replica", "web-3", "started", "web", "shop-web-3", "start"),
            ("replica", "a-b-1", "exited with code 9", "a-b", "shop-a-b-1", "die"),
            ("replica", "web-3", "removed", "web", "shop-web-3", "destroy"),
            ("health", "web-3", "unhealthy: `x: y` failed", "web", "shop-web-3", "health_status: unhealthy"),
            ("scale", "web-2", "scaled from 1 to 2", "web-2", "", "scale"),
            ("app", "shop", "going down", "", "", "app"),
            ("warning", "host", "a wall", "", "", "warning"),
        ] {
            let at = SystemTime::UNIX_EPOCH;
            let event = Event { at, kind: kind.into(), subject: subject.into(), message: message.into() };
            let value = event_json("shop", &event, "T");
            assert_eq!((&value["service"], &value["id"]), (&service.into(), &id.into()), "{value}");
            assert_eq!((&value["action"], &value["subject"]), (&action.into(), &subject.into()), "{value}");
            let code = value["attributes"].get("exitCode").and_then(|code| code.as_str());
            assert_eq!(code, message.strip_prefix("exited with code "), "{value}");
        }
    }
}
