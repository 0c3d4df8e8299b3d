//! Stages and their actions, except what a load says.

use super::{Action, Keys, Requirement, StageSpec, WaitFor, fault, load};
use crate::schema;
use std::collections::BTreeMap;
use std::time::Duration;
use throng_compose::yaml::{Findings, Node, nearest};
use throng_model::app::App;
use throng_model::diagnostic::{Diagnostic, Location};
use throng_model::units::format_duration;

/// The keys of a stage of which it has exactly one.
const ACTIONS: [&str; 14] = [
    "up", "scale", "load", "wait", "pause", "cut", "slow", "heal", "kill", "stop", "start", "unpause",
    "fill", "empty",
];
/// How long a condition is waited for unless the file says otherwise.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) fn read_all(
    items: &[Node],
    app: &App,
    repetitions: u32,
    findings: &mut Findings,
) -> Vec<StageSpec> {
    let mut stages: Vec<StageSpec> = Vec::new();
    let mut names: BTreeMap<String, Location> = BTreeMap::new();
    let mut is_up = false;
    for item in items {
        let Some(mut stage) = read(item, app, repetitions, findings) else { continue };
        let is_given = item.get("name").is_some();
        if !is_given && names.contains_key(&stage.name) {
            let numbered = (2..).map(|n| format!("{} ({n})", stage.name));
            stage.name = numbered.into_iter().find(|name| !names.contains_key(name)).unwrap_or_default();
        } else if let Some(first) = names.get(&stage.name) {
            let message = format!("two stages are called {:?}", stage.name);
            findings.push(
                Diagnostic::error(message)
                    .at(stage.location.clone())
                    .related(first.clone(), "the first one")
                    .hint("give each a name: of its own; the report tells them apart by it"),
            );
        }
        names.entry(stage.name.clone()).or_insert_with(|| stage.location.clone());
        is_up |= stage.action == Action::Up;
        if !is_up && needs_app(&stage.action) {
            findings.push(
                Diagnostic::error("this stage needs the app, which no stage before it brings up")
                    .at(stage.location.clone())
                    .hint("put a stage \"- up:\" first"),
            );
            // Once is enough: the stages after it have the same fault.
            is_up = true;
        }
        stages.push(stage);
    }
    stages
}

fn needs_app(action: &Action) -> bool {
    match action {
        Action::Up | Action::Pause { .. } => false,
        Action::Scale { .. } | Action::Fault(_) => true,
        Action::Load(load) => load.service.is_some(),
        Action::Wait { until, .. } => !matches!(until, WaitFor::Answer { .. }),
    }
}

fn read(item: &Node, app: &App, repetitions: u32, findings: &mut Findings) -> Option<StageSpec> {
    let mut keys = Keys::open(&schema::STAGE, item, findings)?;
    let key = only_action(item, findings);
    let name = keys.text("name", findings).map(str::to_owned);
    let explain = keys.text("explain", findings).map(str::to_owned);
    let require = keys.take("require");
    let repeat: Option<u32> = keys.count("repeat", findings);
    let during = keys.take("during");
    let value = key.and_then(|key| keys.take(key));
    let (require_at, repeat_at, during_at) = (keys.at("require"), keys.at("repeat"), keys.at("during"));
    keys.close(findings);
    let action = read_action(key?, value, item, app, findings);
    let is_load = key == Some("load");
    let is_fault = matches!(action, Some(Action::Fault(_)));
    if require.is_some() && !is_load && !is_fault {
        findings.error(require_at, "\"require\" is only for stages with a load or a fault");
    }
    for (given, at, word) in
        [(repeat.is_some(), repeat_at, "repeat"), (during.is_some(), during_at, "during")]
    {
        if given && !is_load {
            findings.error(at, format!("{word:?} is only for stages with a load"));
        }
    }
    let during = during.map(|node| fault::read_during(node, app, findings)).unwrap_or_default();
    let kind = Requiring { load: is_load, fault: is_fault || during.iter().any(|(_, fault)| fault.harms()) };
    let require = require.filter(|_| is_load || is_fault);
    let require = require.map(|node| read_requirements(node, &kind, findings)).unwrap_or_default();
    let action = action?;
    Some(StageSpec {
        name: name.unwrap_or_else(|| title(&action)),
        location: item.position.location(),
        explain,
        require,
        repeat: if is_load { repeat.unwrap_or(repetitions) } else { 1 },
        action,
        during,
    })
}

/// The one action of a stage. `up:` has no value, so the key alone counts.
fn only_action(item: &Node, findings: &mut Findings) -> Option<&'static str> {
    let present: Vec<&str> = ACTIONS.into_iter().filter(|key| item.get(key).is_some()).collect();
    match present[..] {
        [key] => Some(key),
        [] => {
            let hint = format!("add one of {}", ACTIONS.join(", "));
            findings.error_with_hint(&item.position, "a stage that does nothing", hint);
            None
        }
        _ => {
            let message = format!("a stage does one thing, this one does {}", present.join(" and "));
            findings.error_with_hint(&item.position, message, "make a stage of each");
            None
        }
    }
}

fn read_action(
    key: &str,
    value: Option<&Node>,
    item: &Node,
    app: &App,
    findings: &mut Findings,
) -> Option<Action> {
    if key == "up" {
        if let Some(value) = value {
            findings.error_with_hint(&value.position, "\"up\" takes no value", "write \"up:\" alone");
        }
        return Some(Action::Up);
    }
    let Some(value) = value else {
        let at = item.get(key).map_or(&item.position, |node| &node.position);
        findings.error(at, format!("{key:?} has no value"));
        return None;
    };
    match key {
        "scale" => read_scale(value, app, findings),
        "load" => load::read(value, app, findings).map(|load| Action::Load(Box::new(load))),
        "wait" => read_wait(value, app, findings),
        key if fault::is_fault(key, value) => fault::read(key, value, app, findings).map(Action::Fault),
        _ => value.duration(findings).map(|duration| Action::Pause { duration }),
    }
}

fn read_scale(node: &Node, app: &App, findings: &mut Findings) -> Option<Action> {
    let mut keys = Keys::open(&schema::SCALE, node, findings)?;
    let service = keys.take("service");
    let replicas = keys.count("replicas", findings);
    keys.close(findings);
    for key in ["service", "replicas"] {
        if node.get(key).is_none_or(Node::is_null) {
            findings.error(&node.position, format!("scale without {key}"));
        }
    }
    Some(Action::Scale { service: read_service(service?, app, findings)?, replicas: replicas? })
}

fn read_wait(node: &Node, app: &App, findings: &mut Findings) -> Option<Action> {
    let mut keys = Keys::open(&schema::WAIT, node, findings)?;
    let service = keys.take("service").map(|node| read_service(node, app, findings));
    let conditions = ["ready", "log", "url"].into_iter().filter(|key| node.get(key).is_some());
    let conditions: Vec<&str> = conditions.collect();
    let replicas = keys.count("ready", findings);
    let text = keys.text("log", findings).map(str::to_owned);
    let url = keys.take("url").and_then(|node| load::read_url(node, findings));
    let status = keys.count("status", findings);
    let timeout = keys.duration("timeout", findings).unwrap_or(WAIT_TIMEOUT);
    let (service_at, status_at) = (keys.at("service"), keys.at("status"));
    keys.close(findings);
    let [condition] = conditions[..] else {
        let hint = "give one of ready, log (each with service) and url";
        findings.error_with_hint(&node.position, "wait needs exactly one condition", hint);
        return None;
    };
    if condition != "url" && status.is_some() {
        findings.error(status_at, "\"status\" belongs to \"url\"");
    }
    let until = if condition == "url" {
        if service.is_some() {
            findings.error(service_at, "\"service\" does not go with \"url\"");
        }
        WaitFor::Answer { url: url?, status }
    } else {
        let Some(service) = service else {
            let hint = format!("add service: with one of {}", service_names(app));
            findings.error_with_hint(&node.position, format!("{condition:?} needs a service"), hint);
            return None;
        };
        match condition {
            "ready" => WaitFor::Ready { service: service?, replicas: replicas? },
            _ => WaitFor::Log { service: service?, text: text? },
        }
    };
    Some(Action::Wait { until, timeout })
}

/// The name of a service that the app has.
pub(super) fn read_service(node: &Node, app: &App, findings: &mut Findings) -> Option<String> {
    let name = node.nonempty(findings)?;
    if app.services.contains_key(name) {
        return Some(name.to_owned());
    }
    let hint = match nearest(name, app.services.keys().map(String::as_str)) {
        Some(near) => format!("did you mean {near:?}?"),
        None => format!("it has {}", service_names(app)),
    };
    findings.error_with_hint(&node.position, format!("the app has no service {name:?}"), hint);
    None
}

pub(super) fn service_names(app: &App) -> String {
    app.services.keys().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// What a stage has that something can be required of.
struct Requiring {
    load: bool,
    fault: bool,
}

fn read_requirements(node: &Node, of: &Requiring, findings: &mut Findings) -> Vec<(String, Location)> {
    let mut requirements = Vec::new();
    for item in node.list(findings).unwrap_or_default() {
        let Some(text) = item.nonempty(findings) else { continue };
        match text.parse::<Requirement>() {
            Err(wrong) => findings.error_with_hint(&item.position, wrong.message, wrong.hint),
            Ok(Requirement::Recovered { .. }) if !of.fault => {
                let hint = "add one under during, or require this of the stage with the fault";
                findings.error_with_hint(&item.position, "nothing happens here to recover from", hint);
            }
            Ok(Requirement::Measured(_) | Requirement::NoRequestLost) if !of.load => {
                let hint = "put the fault under during of a load, and require it there";
                findings.error_with_hint(&item.position, format!("{text:?} is about a load"), hint);
            }
            Ok(_) => {}
        }
        requirements.push((text.to_owned(), item.position.location()));
    }
    requirements
}

/// What a stage without a name is called.
fn title(action: &Action) -> String {
    match action {
        Action::Up => "start the app".into(),
        Action::Scale { service, replicas } => format!("scale {service} to {replicas}"),
        Action::Load(load) => load.to_string(),
        Action::Wait { until: WaitFor::Ready { service, replicas }, .. } => {
            format!("wait for {replicas} of {service}")
        }
        Action::Wait { until: WaitFor::Answer { url, .. }, .. } => format!("wait for {url}"),
        Action::Wait { until: WaitFor::Log { service, text }, .. } => {
            format!("wait for {text:?} from {service}")
        }
        Action::Pause { duration } => format!("pause {}", format_duration(*duration)),
        Action::Fault(fault) => fault.to_string(),
    }
}
