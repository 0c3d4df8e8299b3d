//! Counters in Prometheus' text format, version 0.0.4.

use super::rejection::Outcome;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the conversion time's buckets in seconds: from a small JPEG (about 20 microseconds) to --timeout.
const BOUNDS: [f64; 14] =
    [0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.25, 1.0, 5.0, 30.0];

/// All of them only ever grow, so relaxed order is enough: a scrape may see one request half counted, the next sees all.
#[derive(Default)]
pub struct Metrics {
    requests: [AtomicU64; Outcome::ALL.len()],
    conversions: [AtomicU64; BOUNDS.len() + 1],
    conversion_nanoseconds: AtomicU64,
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
}

impl Metrics {
    pub fn ended(&self, outcome: Outcome) {
        self.requests[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// One conversion that gave a PDF: its time on the processor, the image's and the PDF's bytes.
    pub fn converted(&self, took: Duration, received: usize, sent: usize) {
        let bucket = BOUNDS.partition_point(|bound| *bound < took.as_secs_f64());
        self.conversions[bucket].fetch_add(1, Ordering::Relaxed);
        self.conversion_nanoseconds.fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
        self.received_bytes.fetch_add(received as u64, Ordering::Relaxed);
        self.sent_bytes.fetch_add(sent as u64, Ordering::Relaxed);
    }

    /// The whole answer of `/metrics`.
    pub fn render(&self, in_flight: usize, max_in_flight: usize, draining: bool) -> String {
        let mut text = String::with_capacity(4096);
        // Writing to a String cannot fail.
        let _ = self.write(&mut text, in_flight, max_in_flight, draining);
        text
    }

    fn write(
        &self,
        text: &mut String,
        in_flight: usize,
        max_in_flight: usize,
        draining: bool,
    ) -> std::fmt::Result {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        text.push_str("# HELP pdfmagic_requests_total Conversion requests by how they ended.\n");
        text.push_str("# TYPE pdfmagic_requests_total counter\n");
        for outcome in Outcome::ALL {
            let count = read(&self.requests[outcome as usize]);
            writeln!(text, "pdfmagic_requests_total{{outcome=\"{}\"}} {count}", outcome.label())?;
        }
        text.push_str(
            "# HELP pdfmagic_conversion_seconds Time from the bytes of an image to those of its PDF.\n",
        );
        text.push_str("# TYPE pdfmagic_conversion_seconds histogram\n");
        let mut total = 0;
        for (bound, bucket) in BOUNDS.iter().zip(&self.conversions) {
            total += read(bucket);
            writeln!(text, "pdfmagic_conversion_seconds_bucket{{le=\"{bound}\"}} {total}")?;
        }
        total += read(&self.conversions[BOUNDS.len()]);
        writeln!(text, "pdfmagic_conversion_seconds_bucket{{le=\"+Inf\"}} {total}")?;
        let seconds = Duration::from_nanos(read(&self.conversion_nanoseconds)).as_secs_f64();
        writeln!(text, "pdfmagic_conversion_seconds_sum {seconds}")?;
        writeln!(text, "pdfmagic_conversion_seconds_count {total}")?;
        for (name, kind, help, value) in [
            (
                "received_bytes_total",
                "counter",
                "Bytes of images that were converted.",
                read(&self.received_bytes),
            ),
            ("sent_bytes_total", "counter", "Bytes of PDFs that were made.", read(&self.sent_bytes)),
            (
                "in_flight",
                "gauge",
                "Conversion requests now, answers still being sent included.",
                in_flight as u64,
            ),
            ("in_flight_limit", "gauge", "As many requests may be in flight.", max_in_flight as u64),
            ("draining", "gauge", "1 while the replica is leaving.", u64::from(draining)),
        ] {
            writeln!(
                text,
                "# HELP pdfmagic_{name} {help}\n# TYPE pdfmagic_{name} {kind}\npdfmagic_{name} {value}"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative() {
        let metrics = Metrics::default();
        metrics.converted(Duration::from_micros(50), 10, 20);
        metrics.converted(Duration::from_millis(2), 1, 2);
        metrics.converted(Duration::from_secs(60), 1, 2);
        metrics.ended(Outcome::TooLarge);
        let text = metrics.render(3, 64, true);
        for line in [
            "pdfmagic_conversion_seconds_bucket{le=\"0.00005\"} 1",
            "pdfmagic_conversion_seconds_bucket{le=\"0.001\"} 1",
            "pdfmagic_conversion_seconds_bucket{le=\"0.0025\"} 2",
            "pdfmagic_conversion_seconds_bucket{le=\"30\"} 2",
            "pdfmagic_conversion_seconds_bucket{le=\"+Inf\"} 3",
            "pdfmagic_conversion_seconds_count 3",
            "pdfmagic_conversion_seconds_sum 60.00205",
            "pdfmagic_requests_total{outcome=\"too_large\"} 1",
            "pdfmagic_requests_total{outcome=\"converted\"} 0",
            "pdfmagic_received_bytes_total 12",
            "pdfmagic_sent_bytes_total 24",
            "pdfmagic_in_flight 3",
            "pdfmagic_draining 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
        }
    }
}
