//! `healthcheck`.

use crate::keys::Section;
use crate::yaml::{Findings, Node, Value};
use std::time::Duration;
use throng_model::app::{HealthCheck, HealthTest};

/// The specification's defaults.
const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const RETRIES: u32 = 3;
const START_PERIOD: Duration = Duration::ZERO;
const START_INTERVAL: Duration = Duration::from_secs(5);

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
    for (key, value) in [("interval", check.interval), ("timeout", check.timeout)] {
        if value.is_zero() {
            let at = node.get(key).map_or(&node.position, |node| &node.position);
            findings.error(at, format!("a health check's {key} must be longer than 0"));
        }
    }
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
