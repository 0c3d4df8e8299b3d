//! How replicas are replaced and started again: `deploy.update_config`, `deploy.rollback_config`,
//! `deploy.restart_policy`, `x-throng.restart`.

use super::x_throng;
use crate::keys::Section;
use crate::yaml::{Entry, Findings, Node};
use std::time::Duration;
use throng_model::app::{RestartPolicy, Service};
use throng_model::update::{BackOff, FailureAction, UpdateOrder, UpdatePolicy};

/// Longest of all these times: nobody waits longer, and sums of times must stay times.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);
/// Pauses may grow as quickly as this.
const FACTOR_MOST: f64 = 100.0;
/// Shortest pause of a back-off: a replica that ends at once must not be all that the host does.
const LEAST_PAUSE: Duration = Duration::from_millis(100);
const BACK_OFF_KEYS: [&str; 4] = ["initial", "factor", "max", "reset"];

const ORDERS: [(&str, UpdateOrder); 2] =
    [("stop-first", UpdateOrder::StopFirst), ("start-first", UpdateOrder::StartFirst)];

/// `path` is that of `update_config` or of `rollback_config`, which a failed rollback cannot be rolled back by.
pub(super) fn read_policy(path: &'static str, node: &Node, findings: &mut Findings) -> Option<UpdatePolicy> {
    const ACTIONS: [(&str, FailureAction); 3] = [
        ("pause", FailureAction::Pause),
        ("continue", FailureAction::Continue),
        ("rollback", FailureAction::Rollback),
    ];
    let actions = if path.ends_with("rollback_config") { &ACTIONS[..2] } else { &ACTIONS[..] };
    let mut section = Section::open(path, node, findings)?;
    let mut policy = UpdatePolicy::default();
    if let Some(node) = section.take("parallelism") {
        let what = "a whole number of replicas, or 0 for all at once";
        policy.parallelism = node.number(what, findings).unwrap_or(policy.parallelism);
    }
    policy.delay = time(section.take("delay"), findings).unwrap_or(policy.delay);
    policy.monitor = time(section.take("monitor"), findings).unwrap_or(policy.monitor);
    if let Some(node) = section.take("failure_action") {
        policy.failure_action = node.choice(actions, findings).unwrap_or_default();
    }
    if let Some(node) = section.take("order") {
        policy.order = node.choice(&ORDERS, findings).unwrap_or_default();
    }
    if let Some(node) = section.take("max_failure_ratio") {
        const WHAT: &str = "a share from 0 to 1 such as 0.2";
        match node.number::<f64>(WHAT, findings) {
            Some(ratio) if (0.0..=1.0).contains(&ratio) => policy.max_failure_ratio = ratio,
            Some(_) => node.mismatch(WHAT, findings),
            None => {}
        }
    }
    section.close(findings);
    Some(policy)
}

fn time(node: Option<&Node>, findings: &mut Findings) -> Option<Duration> {
    let node = node?;
    let time = node.duration(findings)?;
    if time > LONGEST {
        findings
            .error(&node.position, "this is longer than a year, the longest that anything waits for here");
        return None;
    }
    Some(time)
}

pub(super) fn read_restart_policy(node: &Node, service: &mut Service, findings: &mut Findings) {
    const CONDITIONS: [(&str, RestartPolicy); 3] = [
        ("none", RestartPolicy::No),
        ("on-failure", RestartPolicy::OnFailure(None)),
        ("any", RestartPolicy::Always),
    ];
    let Some(mut section) = Section::open("services.*.deploy.restart_policy", node, findings) else { return };
    let condition = section.take("condition");
    let attempts = section.take("max_attempts");
    let pace = &mut service.restart_pace;
    pace.delay = time(section.take("delay"), findings).filter(|delay| !delay.is_zero());
    pace.window = time(section.take("window"), findings).filter(|window| !window.is_zero());
    section.close(findings);
    let most = attempts.and_then(|node| node.number::<u32>("a whole number of restarts", findings));
    let policy = match condition {
        Some(node) => node.choice(&CONDITIONS, findings),
        None => Some(RestartPolicy::Always),
    };
    match policy {
        Some(RestartPolicy::OnFailure(_)) => service.restart = RestartPolicy::OnFailure(most),
        Some(policy) => {
            service.restart = policy;
            pace.max_attempts = most.filter(|_| policy != RestartPolicy::No);
        }
        None => {}
    }
}

/// `x-throng.restart`.
pub(super) fn read_back_off(entry: &Entry, findings: &mut Findings) -> BackOff {
    let mut back_off = BackOff::default();
    let entries = x_throng::entries(&entry.value, &BACK_OFF_KEYS, findings);
    for entry in &entries {
        let node = &entry.value;
        let mut set = |time_of: &mut Duration| {
            let Some(given) = time(Some(node), findings) else { return };
            if given < LEAST_PAUSE {
                findings.error(&node.position, format!("{} must be 100ms or longer", entry.key));
            }
            *time_of = given;
        };
        match entry.key.as_str() {
            "initial" => set(&mut back_off.initial),
            "max" => set(&mut back_off.max),
            "reset" => set(&mut back_off.reset),
            _ => {
                let what = "a number from 1 to 100";
                match node.number::<f64>(what, findings) {
                    Some(factor) if (1.0..=FACTOR_MOST).contains(&factor) => back_off.factor = factor,
                    Some(_) => node.mismatch(what, findings),
                    None => {}
                }
            }
        }
    }
    let given = |key: &str| entries.iter().find(|entry| entry.key == key);
    if back_off.initial > back_off.max {
        match given("max") {
            Some(max) => findings.error(&max.value.position, "max is shorter than initial"),
            // Who asks for a longer first pause than the longest by default asks for no shorter one later.
            None => back_off.max = back_off.initial,
        }
    }
    back_off
}
