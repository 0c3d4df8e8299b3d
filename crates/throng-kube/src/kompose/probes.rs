//! Labels of health checks.

use super::{Reader, words};
use std::time::Duration;
use throng_model::app::{HealthCheck, HealthTest};

/// Probes as labels describe them, before they are whole.
#[derive(Default)]
pub(super) struct ProbeParts {
    path: Option<String>,
    port: Option<u16>,
    tcp: Option<u16>,
    test: Option<HealthTest>,
    interval: Option<Duration>,
    timeout: Option<Duration>,
    retries: Option<u32>,
    start_period: Option<Duration>,
    disable: bool,
}

impl ProbeParts {
    pub fn is_empty(&self) -> bool {
        let test = self.port.is_some() || self.path.is_some() || self.tcp.is_some() || self.test.is_some();
        let times = self.interval.is_some() || self.timeout.is_some() || self.start_period.is_some();
        !test && !times && self.retries.is_none() && !self.disable
    }

    /// The check that they make of another one; what they do not say stays.
    pub fn over(self, base: Option<&HealthCheck>, first_port: Option<u16>) -> Option<HealthCheck> {
        let http = (self.port.is_some() || self.path.is_some()).then(|| HealthTest::Http {
            port: self.port.or(first_port).unwrap_or(80),
            path: self.path.unwrap_or_else(|| "/".into()),
        });
        let tcp = self.tcp.map(|port| HealthTest::Tcp { port });
        let test = match self.disable {
            true => HealthTest::Disabled,
            false => http.or(tcp).or(self.test).or_else(|| base.map(|base| base.test.clone()))?,
        };
        // Kubernetes' own defaults where nothing is said, Compose's where a healthcheck stands behind.
        let seconds = Duration::from_secs;
        Some(HealthCheck {
            test,
            interval: self.interval.or(base.map(|base| base.interval)).unwrap_or(seconds(10)),
            timeout: self.timeout.or(base.map(|base| base.timeout)).unwrap_or(seconds(1)),
            retries: self.retries.or(base.map(|base| base.retries)).unwrap_or(3),
            start_period: self.start_period.or(base.map(|base| base.start_period)).unwrap_or_default(),
            start_interval: base.map_or(seconds(5), |base| base.start_interval),
        })
    }
}

/// Reads a label of a health check; `false` if it is none.
pub(super) fn read<'r>(
    label: &'r str,
    value: &str,
    (readiness, liveness): (&mut ProbeParts, &mut ProbeParts),
    reader: &mut Reader<'r, '_>,
) -> bool {
    let Some(rest) = label.strip_prefix("kompose.service.healthcheck.") else { return false };
    let (parts, key) = match rest.split_once('.') {
        Some(("readiness", key)) => (readiness, key),
        Some(("liveness", key @ ("http_get_path" | "http_get_port" | "tcp_port"))) => (liveness, key),
        _ => return false,
    };
    match key {
        "disable" => parts.disable = reader.boolean(label, value).unwrap_or_default(),
        "test" => parts.test = test(value),
        "interval" => parts.interval = reader.duration(label, value),
        "timeout" => parts.timeout = reader.duration(label, value),
        "retries" => parts.retries = reader.number(label, value, 1),
        "start_period" => parts.start_period = reader.duration(label, value),
        "http_get_path" => {
            parts.path = reader.checked(label, value, value.starts_with('/'), "a path that begins with /");
        }
        "http_get_port" => parts.port = reader.number(label, value, 1),
        "tcp_port" => parts.tcp = reader.number(label, value, 1),
        _ => return false,
    }
    true
}

/// A test as Compose writes it, in a label's one text: `["CMD", "x"]`, `CMD-SHELL x`, or a command for a shell.
pub(super) fn test(value: &str) -> Option<HealthTest> {
    let words = words(value);
    match words.split_first() {
        Some((first, [])) if first == "NONE" => Some(HealthTest::Disabled),
        Some((first, rest)) if first == "CMD" && !rest.is_empty() => Some(HealthTest::Exec(rest.to_vec())),
        Some((first, rest)) if first == "CMD-SHELL" => Some(HealthTest::Shell(rest.join(" "))),
        Some(_) if value.starts_with('[') => Some(HealthTest::Exec(words)),
        Some(_) => Some(HealthTest::Shell(value.to_owned())),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_taken_apart() {
        assert_eq!(test("[\"CMD\", \"a\", \"b c\"]"), Some(HealthTest::Exec(vec!["a".into(), "b c".into()])));
        assert_eq!(test("CMD-SHELL a | b"), Some(HealthTest::Shell("a | b".into())));
        assert_eq!(test("pg_isready"), Some(HealthTest::Shell("pg_isready".into())));
        assert_eq!(test("NONE"), Some(HealthTest::Disabled));
    }
}
