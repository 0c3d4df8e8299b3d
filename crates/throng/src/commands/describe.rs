//! `throng describe`: a service in detail, and its autoscaler as `kubectl describe hpa` shows one.

use super::listings::check_services;
use crate::cli::{DescribeArguments, Format};
use crate::failure::Result;
use crate::project::Context;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::time::SystemTime;
use throng_model::app::{HealthCheck, HealthTest};
use throng_model::autoscale::{AutoscalerStatus, Description, MetricStatus, Recommendation, VerticalStatus};
use throng_model::job::{JobState, JobStatus};
use throng_model::status::{Event, ServiceStatus, Status};
use throng_model::units::{format_bytes, format_duration};

/// Width of the column of names, as kubectl has it.
const NAMES: usize = 22;

pub async fn run(context: &Context, arguments: DescribeArguments) -> Result<()> {
    let client = context.running().await?;
    let status = client.status().await?;
    check_services(&status, &arguments.services)?;
    let all: Vec<String> = status.services.keys().cloned().collect();
    let chosen = if arguments.services.is_empty() { &all } else { &arguments.services };
    for (index, name) in chosen.iter().enumerate() {
        let description = client.describe(name).await?;
        // It may have gone between the two questions.
        let Some(service) = status.services.get(name) else { continue };
        match arguments.format {
            Format::Json => outln!("{}", as_json(&status, service, &description)),
            Format::Table => {
                let text = text(&status, service, &description, SystemTime::now());
                out!("{}{text}", if index > 0 { "\n\n" } else { "" });
            }
        }
    }
    Ok(())
}

/// One object a line. What the autoscaler shows keeps Kubernetes' names.
fn as_json(status: &Status, service: &ServiceStatus, description: &Description) -> Value {
    let readiness = &service.readiness;
    let published = service.published.iter();
    let ports: Vec<Value> =
        published.map(|port| json!({ "address": port.address.to_string(), "target": port.target })).collect();
    json!({
        "project": status.project,
        "service": description.service,
        "image": service.image,
        "replicas": {
            "wanted": readiness.wanted, "present": readiness.present, "running": readiness.running,
            "ready": readiness.ready, "failed": readiness.failed,
        },
        "ports": ports,
        "labels": service.labels,
        "limits": service.limits,
        "requests": { "cpus": description.requests.0, "memory": description.requests.1 },
        "recommendation": description.recommendation.map(|of| json!({
            "lower": amounts_json(of.lower), "target": amounts_json(of.target), "upper": amounts_json(of.upper),
            "confidence": of.confidence,
        })),
        "vertical": description.vertical.map(|of| json!({
            "updateMode": of.policy.update_mode, "given": of.given, "next": of.next.map(|next| json!({
                "requests": { "cpus": next.cpu_request(), "memory": next.memory_request() },
                "limits": { "cpus": next.cpus, "memory": next.memory },
            })),
        })),
        "job": readiness.job,
        "healthcheck": description.health_check,
        "liveness": description.liveness,
        "startup": description.startup,
        "waiting": readiness.waiting,
        "trouble": readiness.trouble,
        "autoscaler": description.autoscaler.as_ref().map(autoscaler_json),
        "events": description.events.iter().map(|event| json!({
            "time": time_text(event.at), "type": event.kind, "subject": event.subject, "message": event.message,
        })).collect::<Vec<_>>(),
    })
}

fn autoscaler_json(autoscaler: &AutoscalerStatus) -> Value {
    let conditions = autoscaler.conditions.iter().map(|condition| {
        json!({
            "type": condition.kind, "status": condition.status, "reason": condition.reason,
            "message": condition.message, "lastTransitionTime": time_text(condition.since),
        })
    });
    json!({
        "spec": autoscaler.spec,
        "minReplicas": autoscaler.min_replicas,
        "maxReplicas": autoscaler.max_replicas,
        "currentReplicas": autoscaler.current_replicas,
        "desiredReplicas": autoscaler.desired_replicas,
        "lastScaleTime": autoscaler.last_scale.map(time_text),
        "lastLookTime": autoscaler.last_look.map(time_text),
        "currentMetrics": autoscaler.metrics,
        "conditions": conditions.collect::<Vec<_>>(),
        "explanation": autoscaler.explanation,
    })
}

fn amounts_json((milli, bytes): (u64, u64)) -> Value {
    json!({ "cpus": milli as f64 / 1_000.0, "memory": bytes })
}

fn time_text(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map(|time| time.to_string()).unwrap_or_default()
}

fn line(out: &mut String, name: &str, value: &str) {
    // Writing to a string cannot fail, here and below.
    let _ = writeln!(out, "{:<NAMES$} {value}", format!("{name}:"));
}

fn text(status: &Status, service: &ServiceStatus, description: &Description, now: SystemTime) -> String {
    let mut out = String::new();
    line(&mut out, "Name", &description.service);
    line(&mut out, "Project", &status.project);
    line(&mut out, "Image", &service.image);
    let labels: Vec<String> = service.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    several(&mut out, "Labels", &labels);
    let readiness = &service.readiness;
    let counts = format!(
        "{} desired, {} present, {} running, {} ready",
        readiness.wanted, readiness.present, readiness.running, readiness.ready
    );
    line(&mut out, "Replicas", &counts);
    if let Some(job) = &readiness.job {
        job_text(&mut out, job, now);
    }
    for (name, text) in [("Waiting for", &readiness.waiting), ("Trouble", &readiness.trouble)] {
        if let Some(text) = text {
            line(&mut out, name, text);
        }
    }
    let ports: Vec<String> =
        service.published.iter().map(|port| format!("{}->{}/tcp", port.address, port.target)).collect();
    several(&mut out, "Ports", &ports);
    line(&mut out, "Health check", &health(description.health_check.as_ref()));
    for (name, check) in [("Liveness", &description.liveness), ("Startup", &description.startup)] {
        if check.is_some() {
            line(&mut out, name, &health(check.as_ref()));
        }
    }
    let (cpus, memory) = description.requests;
    line(&mut out, "Requests", &resources(cpus, memory));
    if let Some(recommendation) = &description.recommendation {
        line(&mut out, "Should request", &recommended(recommendation));
    }
    if let Some(vertical) = &description.vertical {
        line(&mut out, "Update mode", &update_mode(vertical));
    }
    line(&mut out, "Limits", &resources(service.limits.cpus, service.limits.memory));
    if let Some(autoscaler) = &description.autoscaler {
        out.push('\n');
        out.push_str(&autoscaler_text(autoscaler, now));
    }
    out.push_str(&events_text(&description.events, now));
    out
}

fn job_text(out: &mut String, job: &JobStatus, now: SystemTime) {
    let state = match job.state {
        JobState::Waiting => "waiting",
        JobState::Running => "running",
        JobState::Complete => "complete",
        JobState::Failed => "failed",
        JobState::Suspended => "suspended",
    };
    let run = if job.run > 0 { format!(", run {}", job.run) } else { String::new() };
    line(out, "Job", &format!("{state}{run}: {job}"));
    if let Some(next) = job.next {
        let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(next);
        let left = at.duration_since(now).unwrap_or_default();
        line(out, "Next run", &format!("{} (in {})", time_text(at), age(now, now + left)));
    }
}

/// By what it has used so far.
fn recommended(of: &Recommendation) -> String {
    let amounts = |(milli, bytes): (u64, u64)| resources(Some(milli as f64 / 1_000.0), Some(bytes));
    let minutes = (of.confidence * 1_440.0).round();
    // In the first moments the upper bound is beyond any number.
    let most = match of.upper {
        (u64::MAX, _) | (_, u64::MAX) => "no bound yet".into(),
        upper => amounts(upper),
    };
    format!("{} (between {} and {most}, by {minutes} minutes)", amounts(of.target), amounts(of.lower))
}

/// Who gets what is recommended.
fn update_mode(of: &VerticalStatus) -> String {
    let name = of.policy.update_mode.name();
    let next = of.next.map(|next| {
        let requests = resources(next.cpu_request(), next.memory_request());
        format!(
            ", who starts now requests {requests} and is limited to {}",
            resources(next.cpus, next.memory)
        )
    });
    let given = match of.given {
        0 => String::new(),
        given => format!("; {given} replicas have other amounts than the file says"),
    };
    format!("{name}{}{given}", next.unwrap_or_default())
}

fn several(out: &mut String, name: &str, values: &[String]) {
    match values.split_first() {
        None => line(out, name, "<none>"),
        Some((first, rest)) => {
            line(out, name, first);
            rest.iter().for_each(|value| {
                let _ = writeln!(out, "{:<NAMES$} {value}", "");
            });
        }
    }
}

fn resources(cpus: Option<f64>, memory: Option<u64>) -> String {
    let cpus = cpus.map(|cpus| format!("cpus {cpus}"));
    let memory = memory.map(|memory| format!("memory {}", format_bytes(memory)));
    let all: Vec<String> = cpus.into_iter().chain(memory).collect();
    if all.is_empty() { "<none>".into() } else { all.join(", ") }
}

fn health(check: Option<&HealthCheck>) -> String {
    let Some(check) = check else { return "<none>".into() };
    if check.test == HealthTest::Disabled {
        return "<none>".into();
    }
    let command = &check.test;
    let time = format_duration;
    format!(
        "{command} every {}, within {}, {} failures in a row are too many",
        time(check.interval),
        time(check.timeout),
        check.retries
    )
}

fn autoscaler_text(autoscaler: &AutoscalerStatus, now: SystemTime) -> String {
    let mut out = String::new();
    let named: Vec<(String, String)> = autoscaler.metrics.iter().map(metric).collect();
    let widest = named.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let _ =
        writeln!(out, "Metrics:{:>width$}( current / target )", "", width = (widest + 3).saturating_sub(8));
    for (name, value) in &named {
        let _ = writeln!(out, "  {name:<widest$} {value}");
    }
    line(&mut out, "Min replicas", &autoscaler.min_replicas.to_string());
    line(&mut out, "Max replicas", &autoscaler.max_replicas.to_string());
    line(&mut out, "Looked at every", &format_duration(autoscaler.controller.sync_period));
    if let Some(behavior) = autoscaler.spec.get("behavior").filter(|value| !value.is_null()) {
        out.push_str(&behavior_text(behavior, autoscaler));
    }
    let counts = format!("{} current / {} desired", autoscaler.current_replicas, autoscaler.desired_replicas);
    line(&mut out, "Replicas", &counts);
    let last =
        autoscaler.last_scale.map_or_else(|| "<never>".into(), |time| format!("{} ago", age(time, now)));
    line(&mut out, "Last scaled", &last);
    if !autoscaler.explanation.is_empty() {
        line(&mut out, "Last decision", &autoscaler.explanation);
    }
    out.push_str("Conditions:\n");
    let rows: Vec<Vec<String>> = autoscaler
        .conditions
        .iter()
        .map(|condition| {
            let age = age(condition.since, now);
            vec![
                condition.kind.clone(),
                condition.status.clone(),
                condition.reason.clone(),
                age,
                condition.message.clone(),
            ]
        })
        .collect();
    out.push_str(&columns(&["Type", "Status", "Reason", "Since", "Message"], &rows));
    out
}

/// As kubectl names a metric, and `current / target`.
fn metric(metric: &MetricStatus) -> (String, String) {
    let MetricStatus { kind, name, .. } = metric;
    let name = match (kind.as_str(), &metric.container) {
        ("Resource", _) => format!("resource {name} on replicas ({}):", metric.scope),
        ("ContainerResource", Some(container)) => {
            format!("resource {name} of container \"{container}\" on replicas ({}):", metric.scope)
        }
        ("Pods", _) => format!("\"{name}\" on replicas:"),
        (kind, _) => format!("\"{name}\" ({}, {}):", kind.to_lowercase(), metric.scope),
    };
    let current = metric.current.as_deref().unwrap_or("<unknown>");
    (name, format!("{current} / {}", metric.target))
}

/// The rules as the spec has them; what it leaves out has Kubernetes' defaults.
fn behavior_text(behavior: &Value, autoscaler: &AutoscalerStatus) -> String {
    let mut out = String::from("Behavior:\n");
    let stabilization = autoscaler.controller.downscale_stabilization.as_secs();
    let up = json!([
        { "type": "Pods", "value": 4, "periodSeconds": 15 },
        { "type": "Percent", "value": 100, "periodSeconds": 15 },
    ]);
    let down = json!([{ "type": "Percent", "value": 100, "periodSeconds": 15 }]);
    for (title, key, window, policies) in
        [("Scale Up", "scaleUp", 0, up), ("Scale Down", "scaleDown", stabilization, down)]
    {
        let rules = behavior.get(key);
        let of = |name: &str| rules.and_then(|rules| rules.get(name)).filter(|value| !value.is_null());
        let plain = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let window = of("stabilizationWindowSeconds").and_then(Value::as_u64).unwrap_or(window);
        let select = of("selectPolicy").map_or_else(|| "Max".into(), plain);
        let _ = writeln!(out, "  {title}:\n    Stabilization Window: {window} seconds");
        let _ = writeln!(out, "    Select Policy: {select}");
        if let Some(tolerance) = of("tolerance").filter(|_| autoscaler.controller.configurable_tolerance) {
            let _ = writeln!(out, "    Tolerance: {}", plain(tolerance));
        }
        out.push_str("    Policies:\n");
        for policy in of("policies").unwrap_or(&policies).as_array().into_iter().flatten() {
            let field = |name: &str| policy.get(name).map(plain).unwrap_or_default();
            let (kind, value, period) = (field("type"), field("value"), field("periodSeconds"));
            let _ = writeln!(out, "      - Type: {kind:<8} Value: {value:<5} Period: {period} seconds");
        }
    }
    out
}

fn events_text(events: &[Event], now: SystemTime) -> String {
    if events.is_empty() {
        return "Events: <none>\n".into();
    }
    let rows: Vec<Vec<String>> = events
        .iter()
        .map(|event| {
            let kind = if event.kind == "warning" { "Warning" } else { "Normal" };
            vec![
                kind.into(),
                event.kind.clone(),
                age(event.at, now),
                event.subject.clone(),
                event.message.clone(),
            ]
        })
        .collect();
    format!("Events:\n{}", columns(&["Type", "Reason", "Age", "From", "Message"], &rows))
}

/// Columns with a line under their headings, indented, as kubectl prints them.
fn columns(headings: &[&str], rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = headings.iter().map(|heading| heading.len()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: Vec<String>| {
        let cells = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("  {}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    let mut out = line(headings.iter().map(|heading| (*heading).to_owned()).collect());
    out += &line(headings.iter().map(|heading| "-".repeat(heading.len())).collect());
    rows.iter().for_each(|row| out += &line(row.clone()));
    out
}

/// As kubectl writes ages: `45s`, `3m`, `3m20s` below ten minutes, `2h`, `4d`.
fn age(then: SystemTime, now: SystemTime) -> String {
    let seconds = now.duration_since(then).map_or(0, |age| age.as_secs());
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 if !seconds.is_multiple_of(60) => format!("{}m{}s", seconds / 60, seconds % 60),
        120..10_800 => format!("{}m", seconds / 60),
        10_800..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use throng_model::autoscale::{Condition, Controller};

    fn autoscaler(now: SystemTime) -> AutoscalerStatus {
        let metric =
            |kind: &str, name: &str, current: Option<&str>, target: &str, scope: &str| MetricStatus {
                kind: kind.into(),
                name: name.into(),
                container: None,
                current: current.map(str::to_owned),
                target: target.into(),
                scope: scope.into(),
                proposal: None,
                error: None,
            };
        AutoscalerStatus {
            spec: json!({ "behavior": { "scaleDown": { "stabilizationWindowSeconds": 30, "tolerance": "50m" } } }),
            controller: Controller::default(),
            min_replicas: 1,
            max_replicas: 10,
            current_replicas: 2,
            desired_replicas: 4,
            last_scale: Some(now - Duration::from_secs(61)),
            last_look: Some(now),
            metrics: vec![
                metric("Resource", "cpu", Some("170% (340m)"), "60%", "of what a replica requests"),
                metric("External", "queue", None, "10", "in all"),
            ],
            conditions: vec![Condition {
                kind: "AbleToScale".into(),
                status: "True".into(),
                reason: "ReadyForNewScale".into(),
                message: "all is well".into(),
                since: now - Duration::from_secs(200),
            }],
            explanation: "cpu asks for 4".into(),
        }
    }

    #[test]
    fn an_autoscaler_is_described_as_kubectl_does() {
        let now = SystemTime::now();
        let expected = "\
Metrics:                                            ( current / target )
  resource cpu on replicas (of what a replica requests): 170% (340m) / 60%
  \"queue\" (external, in all):                            <unknown> / 10
Min replicas:          1
Max replicas:          10
Looked at every:       15s
Behavior:
  Scale Up:
    Stabilization Window: 0 seconds
    Select Policy: Max
    Policies:
      - Type: Pods     Value: 4     Period: 15 seconds
      - Type: Percent  Value: 100   Period: 15 seconds
  Scale Down:
    Stabilization Window: 30 seconds
    Select Policy: Max
    Tolerance: 50m
    Policies:
      - Type: Percent  Value: 100   Period: 15 seconds
Replicas:              2 current / 4 desired
Last scaled:           61s ago
Last decision:         cpu asks for 4
Conditions:
  Type         Status  Reason            Since  Message
  ----         ------  ------            -----  -------
  AbleToScale  True    ReadyForNewScale  3m20s  all is well
";
        let text = autoscaler_text(&autoscaler(now), now);
        let body = |text: &str| text.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(body(&text), body(expected), "{text}");
        assert!(text.starts_with("Metrics: ") && text.contains("( current / target )"), "{text}");
    }

    #[test]
    fn who_gets_what_is_recommended_is_said() {
        use throng_model::app::Resources;
        use throng_model::autoscale::Vertical;
        let policy = Vertical::default();
        assert_eq!(update_mode(&VerticalStatus { policy, next: None, given: 0 }), "Recreate");
        let next = Resources { cpu_reservation: Some(0.1), memory: Some(256 << 20), ..Resources::default() };
        assert_eq!(
            update_mode(&VerticalStatus { policy, next: Some(next), given: 2 }),
            "Recreate, who starts now requests cpus 0.1, memory 256.0 MiB and is limited to memory 256.0 MiB; \
             2 replicas have other amounts than the file says"
        );
    }

    #[test]
    fn ages_are_as_long_as_they_are_interesting() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        for (seconds, text) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (200, "3m20s"),
            (660, "11m"),
            (10_800, "3h"),
            (200_000, "2d"),
        ] {
            assert_eq!(age(now - Duration::from_secs(seconds), now), text);
        }
        assert_eq!(age(now + Duration::from_secs(5), now), "0s");
    }
}
