//! Figures in Prometheus' text format, version 0.0.4 (prometheus.io/docs/instrumenting/exposition_formats).
//!
//! Written by hand rather than with a client library: such a library keeps registered objects up to date, whereas nearly
//! all figures here are taken from the supervisor's state at the moment of asking, and go with their replica.

use std::fmt::Write;

/// The format's media type.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Text under construction. All samples of one name must follow its [`Exposition::family`].
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
    name: String,
}

impl Exposition {
    /// Begins the figures of one name.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str) -> &mut Self {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        // Writing to a string cannot fail, here and below.
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        name.clone_into(&mut self.name);
        self
    }

    pub fn sample(&mut self, labels: &[(&str, &str)], value: f64) -> &mut Self {
        self.line("", labels, value);
        self
    }

    pub fn histogram(&mut self, labels: &[(&str, &str)], histogram: &Histogram) -> &mut Self {
        let mut below = 0;
        for (bound, count) in histogram.bounds.iter().zip(&histogram.counts) {
            below += count;
            let bound = bound.to_string();
            self.line("_bucket", &[labels, &[("le", bound.as_str())]].concat(), below as f64);
        }
        self.line("_bucket", &[labels, &[("le", "+Inf")]].concat(), histogram.count as f64);
        self.line("_sum", labels, histogram.sum);
        self.line("_count", labels, histogram.count as f64);
        self
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], value: f64) {
        self.text.push_str(&self.name);
        self.text.push_str(suffix);
        for (place, (name, value)) in labels.iter().enumerate() {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.text, "{}{name}=\"{value}\"", if place == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.text, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    pub fn finish(self) -> String {
        self.text
    }
}

/// Counts of observations at or below each bound.
#[derive(Debug, Clone)]
pub struct Histogram {
    bounds: &'static [f64],
    /// One for each bound: of observations above the bound before it.
    counts: Vec<u64>,
    count: u64,
    sum: f64,
}

impl Histogram {
    /// `bounds` rise.
    pub fn new(bounds: &'static [f64]) -> Histogram {
        Histogram { bounds, counts: vec![0; bounds.len()], count: 0, sum: 0.0 }
    }

    pub fn observe(&mut self, value: f64) {
        if let Some(place) = self.bounds.iter().position(|bound| value <= *bound) {
            self.counts[place] += 1;
        }
        self.count += 1;
        self.sum += value;
    }

    /// How many there were, and their sum.
    pub fn totals(&self) -> (u64, f64) {
        (self.count, self.sum)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_written_as_the_format_wants_them() {
        let mut histogram = Histogram::new(&[0.01, 0.1]);
        [0.005, 0.01, 0.05, 7.0].iter().for_each(|value| histogram.observe(*value));
        let mut exposition = Exposition::default();
        exposition.family("a_total", Kind::Counter, "Of a\nand \\.");
        exposition.sample(&[], 3.0).sample(&[("x", "1"), ("y", "a\"b\\c\nd")], 0.5);
        exposition.family("b_seconds", Kind::Histogram, "Of b.").histogram(&[("s", "web")], &histogram);
        let text = "# HELP a_total Of a\\nand \\\\.\n# TYPE a_total counter\na_total 3\n\
                    a_total{x=\"1\",y=\"a\\\"b\\\\c\\nd\"} 0.5\n\
                    # HELP b_seconds Of b.\n# TYPE b_seconds histogram\n\
                    b_seconds_bucket{s=\"web\",le=\"0.01\"} 2\nb_seconds_bucket{s=\"web\",le=\"0.1\"} 3\n\
                    b_seconds_bucket{s=\"web\",le=\"+Inf\"} 4\nb_seconds_sum{s=\"web\"} 7.065\n\
                    b_seconds_count{s=\"web\"} 4\n";
        assert_eq!(exposition.finish(), text);
    }
}
