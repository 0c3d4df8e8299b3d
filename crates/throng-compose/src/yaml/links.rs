//! What is said of links: times, shares and bandwidths, within what a link can have.

use super::{Findings, Node};
use std::fmt::Display;
use std::time::Duration;
use throng_model::node::{check_bandwidth, check_delay};
use throng_model::units::{parse_bits, parse_percent};

impl Node {
    /// A text that `parse` understands; what it says against one is told here.
    pub fn told<T, E: Display>(
        &self,
        parse: impl FnOnce(&str) -> Result<T, E>,
        findings: &mut Findings,
    ) -> Option<T> {
        parse(self.text(findings)?).map_err(|error| findings.error(&self.position, error.to_string())).ok()
    }

    /// A share from `0%` to `100%`.
    pub fn share(&self, findings: &mut Findings) -> Option<f64> {
        self.told(parse_percent, findings)
    }

    /// Bits a second of a link.
    pub fn bandwidth(&self, findings: &mut Findings) -> Option<u64> {
        let parse = |text: &str| {
            let bits = parse_bits(text).map_err(|error| error.to_string())?;
            check_bandwidth(bits)
        };
        self.told(parse, findings)
    }

    /// A latency or jitter of a link, called `what`.
    pub fn delay(&self, what: &str, findings: &mut Findings) -> Option<Duration> {
        if self.scalar().is_some_and(|text| text.trim().starts_with('-')) {
            let hint = "no packet arrives before it was sent";
            findings.error_with_hint(&self.position, format!("a negative {what}"), hint);
            return None;
        }
        let time = self.duration(findings)?;
        check_delay(what, time).map_err(|message| findings.error(&self.position, message)).ok()
    }
}
