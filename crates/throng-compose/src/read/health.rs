//! `healthcheck`, and the checks of `x-throng` that go over the network.

use super::x_throng::entries;
use crate::keys::Section;
use crate::yaml::{Entry, Findings, Node, Value};
use std::time::Duration;
use throng_model::app::{HealthCheck, HealthTest};

/// The specification's defaults.
const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const RETRIES: u32 = 3;
const START_PERIOD: Duration = Duration::ZERO;
const START_INTERVAL: Duration = Duration::from_secs(5);

/// Kubelet's defaults for the checks under `x-throng`.
const PROBE_INTERVAL: Duration = Duration::from_secs(10);
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);

const TESTS: [&str; 4] = ["http", "tcp", "grpc", "exec"];
const PROBE_KEYS: [&str; 9] =
    ["http", "tcp", "grpc", "exec", "interval", "timeout", "retries", "start_period", "start_interval"];

pub(super) fn read(node: &Node, findings: &mut Findings) -> Option<HealthCheck> {
    let mut section = Section::open("services.*.healthcheck", node, findings)?;
    let disable = section.take("disable").and_then(|node| node.boolean(findings)).unwrap_or_default();
    let test_node = section.take("test");
    let mut time = |key, default| match section.take(key) {
        Some(node) => node.duration(findings).unwrap_or(default),
        None => default,
    };
    let mut check = HealthCheck {
        test: HealthTest::Disabled,
        interval: time("interval", INTERVAL),
        timeout: time("timeout", TIMEOUT),
        start_period: time("start_period", START_PERIOD),
        start_interval: time("start_interval", START_INTERVAL),
        retries: RETRIES,
    };
    if let Some(node) = section.take("retries") {
        check.retries = node.number("a whole number of tries", findings).unwrap_or(RETRIES);
        if check.retries == 0 {
            // Docker's engine reads 0 as "not set".
            check.retries = RETRIES;
        }
    }
    section.close(findings);
    refuse_zero(node, &check, findings);
    if disable {
        return Some(check);
    }
    let Some(test) = test_node else {
        let hint = "name the command in test: [CMD, …] to have it checked";
        findings.warn_with_hint(
            &node.position,
            "changing only the times of the image's own check is not honoured yet",
            hint,
        );
        return None;
    };
    check.test = read_test(test, findings)?;
    Some(check)
}

fn read_test(node: &Node, findings: &mut Findings) -> Option<HealthTest> {
    const HINT: &str = "begin the list with CMD, CMD-SHELL or NONE, or write the shell command as one text";
    if let Value::Scalar(scalar) = &node.value {
        if scalar.text.trim().is_empty() {
            node.mismatch("a command", findings);
            return None;
        }
        return Some(HealthTest::Shell(scalar.text.clone()));
    }
    let words = node.texts(findings)?;
    match words.split_first() {
        Some((first, [])) if first == "NONE" => Some(HealthTest::Disabled),
        Some((first, command)) if first == "CMD" && !command.is_empty() => {
            Some(HealthTest::Exec(command.to_vec()))
        }
        Some((first, [command])) if first == "CMD-SHELL" => Some(HealthTest::Shell(command.clone())),
        Some((first, [])) if matches!(first.as_str(), "CMD" | "CMD-SHELL") => {
            findings.error_with_hint(&node.position, format!("{first} is not followed by a command"), HINT);
            None
        }
        Some((first, _)) if first == "CMD-SHELL" => {
            let hint = "write the whole shell command as one text after CMD-SHELL";
            findings.error_with_hint(&node.position, "CMD-SHELL is followed by several texts", hint);
            None
        }
        Some((first, _)) => {
            findings.error_with_hint(&node.position, format!("{first:?} is no kind of health test"), HINT);
            None
        }
        None => {
            findings.error_with_hint(&node.position, "an empty health test", HINT);
            None
        }
    }
}

fn refuse_zero(node: &Node, check: &HealthCheck, findings: &mut Findings) {
    for (key, value) in [("interval", check.interval), ("timeout", check.timeout)] {
        if value.is_zero() {
            let at = node.get(key).map_or(&node.position, |node| &node.position);
            findings.error(at, format!("a health check's {key} must be longer than 0"));
        }
    }
}

/// `x-throng.liveness`. There is no quick succession at the start that `start_interval` could be the pause of.
pub(super) fn read_liveness(entry: &Entry, findings: &mut Findings) -> Option<HealthCheck> {
    if let Some(node) = entry.value.get("start_interval") {
        let hint =
            "remove it; start_period says when the first question comes, startup what must come before";
        findings.error_with_hint(&node.position, "a liveness check has one pace", hint);
    }
    read_probe(entry, findings)
}

/// `x-throng.readiness`, `liveness` or `startup`: a test of one kind, and the times as under `healthcheck`.
pub(super) fn read_probe(entry: &Entry, findings: &mut Findings) -> Option<HealthCheck> {
    let node = &entry.value;
    let keys = entries(node, &PROBE_KEYS, findings);
    let tests: Vec<&&Entry> = keys.iter().filter(|entry| TESTS.contains(&entry.key.as_str())).collect();
    let [test] = tests[..] else {
        let message = format!("{} needs exactly one test, not {}", entry.key, tests.len());
        let hint = "name one of http: {port, path}, tcp: {port}, grpc: {port, service}, exec: [command, …]";
        findings.error_with_hint(&entry.key_at, message, hint);
        return None;
    };
    let test = read_probe_test(test, findings);
    let value = |key: &str| keys.iter().find(|entry| entry.key == key).map(|entry| &entry.value);
    let mut time = |key, default| match value(key) {
        Some(node) => node.duration(findings).unwrap_or(default),
        None => default,
    };
    let mut check = HealthCheck {
        test: test?,
        interval: time("interval", PROBE_INTERVAL),
        timeout: time("timeout", PROBE_TIMEOUT),
        start_period: time("start_period", START_PERIOD),
        start_interval: time("start_interval", START_INTERVAL),
        retries: RETRIES,
    };
    if let Some(node) = value("retries") {
        check.retries = node.number("a whole number of tries", findings).unwrap_or(RETRIES);
        if check.retries == 0 {
            findings.error(&node.position, "a check that fails after 0 tries would never hold");
        }
    }
    refuse_zero(node, &check, findings);
    Some(check)
}

fn read_probe_test(entry: &Entry, findings: &mut Findings) -> Option<HealthTest> {
    let node = &entry.value;
    let known: &[&str] = match entry.key.as_str() {
        "http" => &["port", "path"],
        "grpc" => &["port", "service"],
        "tcp" => &["port"],
        _ => {
            let words = node.texts(findings)?;
            if words.is_empty() {
                node.mismatch("a command", findings);
            }
            return (!words.is_empty()).then_some(HealthTest::Exec(words));
        }
    };
    let keys = entries(node, known, findings);
    let value = |key: &str| keys.iter().find(|entry| entry.key == key).map(|entry| &entry.value);
    let Some(port) = value("port") else {
        let message = format!("{} does not say at which port", entry.key);
        findings.error_with_hint(&entry.key_at, message, "add port: the port inside the replica");
        return None;
    };
    let at = &port.position;
    let port: u16 = port.number("a port", findings)?;
    if port == 0 {
        findings.error(at, "nobody listens at port 0");
        return None;
    }
    let mut text = |key| value(key).and_then(|node| node.text(findings).map(str::to_owned));
    Some(match entry.key.as_str() {
        "http" => {
            let path = text("path").unwrap_or_else(|| "/".into());
            if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic()) {
                let at = value("path").map_or(&node.position, |node| &node.position);
                findings.error_with_hint(
                    at,
                    format!("{path:?} is no path"),
                    "begin it with /, as in /healthz",
                );
                return None;
            }
            HealthTest::Http { port, path }
        }
        "grpc" => HealthTest::Grpc { port, service: text("service").unwrap_or_default() },
        _ => HealthTest::Tcp { port },
    })
}
