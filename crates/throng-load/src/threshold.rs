//! Conditions on a load's result: `p95<200ms`, `errors<1%`, `rate>=100/s`.

use crate::error::LoadError;
use crate::summary::{histogram_of, value_at};
use std::str::FromStr;
use throng_model::run::{LoadResult, ThresholdResult};
use throng_model::units::{format_micros, parse_duration};

/// One condition. Latencies (`p50` to `p100` with decimals, `median`, `mean`, `min`, `max`, `stdev`) take a
/// duration; `errors` a number or a percentage of the requests; `rate` a number per second; `requests` and
/// `succeeded` a number. A condition on a latency does not hold if nothing succeeded.
#[derive(Debug, Clone, PartialEq)]
pub struct Threshold {
    expression: String,
    metric: Metric,
    comparison: Comparison,
    /// Microseconds, a share of 1, or a number, as the metric has it.
    bound: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Metric {
    Percentile(f64),
    Mean,
    Min,
    Max,
    Stdev,
    Errors,
    ErrorShare,
    Rate,
    Requests,
    Succeeded,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Below,
    AtMost,
    Above,
    AtLeast,
    Equal,
}

impl FromStr for Threshold {
    type Err = LoadError;

    fn from_str(text: &str) -> Result<Threshold, LoadError> {
        let wrong = |why: String| {
            LoadError::spec(
                format!("the threshold {text:?} {why}"),
                "write METRIC, a comparison and a bound, as in p95<200ms, errors<1%, errors<=3 or rate>100/s",
            )
        };
        let compact: String = text.split_whitespace().collect();
        let at = compact
            .find(['<', '>', '='])
            .ok_or_else(|| wrong("has no comparison out of <, <=, >, >=, ==".into()))?;
        let (name, rest) = compact.split_at(at);
        let (comparison, bound) = [
            ("<=", Comparison::AtMost),
            (">=", Comparison::AtLeast),
            ("==", Comparison::Equal),
            ("<", Comparison::Below),
            (">", Comparison::Above),
        ]
        .into_iter()
        .find_map(|(sign, comparison)| Some((comparison, rest.strip_prefix(sign)?)))
        .ok_or_else(|| wrong("has no comparison out of <, <=, >, >=, ==".into()))?;
        let metric =
            metric(name).ok_or_else(|| wrong(format!("is about {name:?}, which is not measured")))?;
        let (metric, bound) = read_bound(metric, bound)
            .ok_or_else(|| wrong(format!("has the bound {bound:?}, which {name} cannot be compared with")))?;
        Ok(Threshold { expression: text.trim().to_owned(), metric, comparison, bound })
    }
}

fn metric(name: &str) -> Option<Metric> {
    Some(match name {
        "median" => Metric::Percentile(50.0),
        "mean" | "avg" => Metric::Mean,
        "min" => Metric::Min,
        "max" => Metric::Max,
        "stdev" => Metric::Stdev,
        "errors" => Metric::Errors,
        "rate" => Metric::Rate,
        "requests" => Metric::Requests,
        "succeeded" => Metric::Succeeded,
        _ => {
            let number = name.strip_prefix('p')?;
            let digits = number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
            let percentile: f64 = number.parse().ok().filter(|_| digits)?;
            (percentile <= 100.0).then_some(Metric::Percentile(percentile))?
        }
    })
}

fn read_bound(metric: Metric, text: &str) -> Option<(Metric, f64)> {
    let number = |text: &str| text.parse::<f64>().ok().filter(|n| n.is_finite() && *n >= 0.0);
    Some(match metric {
        Metric::Errors => match text.strip_suffix('%') {
            Some(percent) => (Metric::ErrorShare, number(percent)? / 100.0),
            None => (metric, number(text)?),
        },
        Metric::Rate => (metric, number(text.strip_suffix("/s").unwrap_or(text))?),
        Metric::Requests | Metric::Succeeded => (metric, number(text)?),
        _ => (metric, parse_duration(text).ok()?.as_secs_f64() * 1e6),
    })
}

impl Threshold {
    /// Whether it holds for a result, and what was measured.
    pub fn evaluate(&self, result: &LoadResult) -> ThresholdResult {
        let measured = self.measure(result);
        let held = measured.is_some_and(|value| match self.comparison {
            Comparison::Below => value < self.bound,
            Comparison::AtMost => value <= self.bound,
            Comparison::Above => value > self.bound,
            Comparison::AtLeast => value >= self.bound,
            Comparison::Equal => value == self.bound,
        });
        let measured = measured.map_or_else(|| "no successful answer".to_owned(), |value| self.show(value));
        ThresholdResult { expression: self.expression.clone(), measured, held }
    }

    fn measure(&self, result: &LoadResult) -> Option<f64> {
        let latency = &result.latency;
        let failed = result.requests.saturating_sub(result.succeeded);
        let any = |value: f64| (latency.count > 0).then_some(value);
        match self.metric {
            Metric::Percentile(percentile) => {
                // A record without its histogram still has the usual percentiles.
                let usual = latency.percentiles.iter().find(|(name, _)| name.parse() == Ok(percentile));
                let value = match usual {
                    Some((_, value)) => *value,
                    None => value_at(&histogram_of(latency).ok()?, percentile),
                };
                any(value as f64)
            }
            Metric::Mean => any(latency.mean),
            Metric::Min => any(latency.min as f64),
            Metric::Max => any(latency.max as f64),
            Metric::Stdev => any(latency.stdev),
            Metric::Errors => Some(failed as f64),
            // A load that made no request did not show that the service works.
            Metric::ErrorShare => (result.requests > 0).then(|| failed as f64 / result.requests as f64),
            Metric::Rate => Some(result.rate),
            Metric::Requests => Some(result.requests as f64),
            Metric::Succeeded => Some(result.succeeded as f64),
        }
    }

    fn show(&self, value: f64) -> String {
        match self.metric {
            Metric::Errors | Metric::Requests | Metric::Succeeded => format!("{value:.0}"),
            Metric::ErrorShare => format!("{:.2} %", value * 100.0),
            Metric::Rate => format!("{value:.1}/s"),
            _ => format_micros(value.round() as u64),
        }
    }
}

/// As it was written.
impl std::fmt::Display for Threshold {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.expression)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::histogram;
    use crate::summary::latency;
    use proptest::prelude::*;

    /// A thousand answers of 1 to 1,000 ms and 10 failures in 10 s.
    fn result() -> LoadResult {
        let mut all = histogram().expect("bounds are fine");
        (1..=1000).for_each(|millis| all.saturating_record(millis * 1000));
        LoadResult {
            requests: 1010,
            succeeded: 1000,
            rate: 100.0,
            latency: latency(&all).expect("a histogram"),
            ..LoadResult::default()
        }
    }

    #[test]
    fn thresholds_hold_or_do_not() {
        for (expression, held, measured) in [
            ("p95<951ms", true, "950 ms"),
            ("p95<950ms", false, "950 ms"),
            ("p50 <= 0.6s", true, "500 ms"),
            ("median>1s", false, "500 ms"),
            ("p99.9<1s", true, "999 ms"),
            ("p42<425ms", true, "420 ms"),
            ("p100<=1.1s", true, "1.00 s"),
            ("mean<500ms", false, "500 ms"),
            ("mean<=501ms", true, "500 ms"),
            ("max<2s", true, "1.00 s"),
            ("min>=900us", true, "1.00 ms"),
            ("stdev<100ms", false, "289 ms"),
            ("errors<1%", true, "0.99 %"),
            ("errors<0.5%", false, "0.99 %"),
            ("errors<=10", true, "10"),
            ("errors<10", false, "10"),
            ("errors==0", false, "10"),
            ("rate>=100/s", true, "100.0/s"),
            ("rate>100", false, "100.0/s"),
            ("requests==1010", true, "1010"),
            ("succeeded>=1000", true, "1000"),
        ] {
            let threshold: Threshold = expression.parse().expect(expression);
            let ThresholdResult { expression: written, measured: shown, held: found } =
                threshold.evaluate(&result());
            assert_eq!((written.as_str(), found), (expression, held));
            // The histogram has three digits.
            let close = shown == measured || shown.replace("951", "950").replace("501", "500") == measured;
            assert!(close, "{expression}: {shown}, expected {measured}");
        }
    }

    #[test]
    fn without_an_answer_no_latency_holds() {
        let nothing = LoadResult { requests: 5, ..LoadResult::default() };
        for (expression, held) in
            [("p99<1h", false), ("max<1h", false), ("errors<=5", true), ("errors<1%", false)]
        {
            let threshold: Threshold = expression.parse().expect(expression);
            assert_eq!(threshold.evaluate(&nothing).held, held, "{expression}");
        }
        let threshold: Threshold = "errors<1%".parse().expect("fine");
        assert!(!threshold.evaluate(&LoadResult::default()).held);
    }

    #[test]
    fn what_is_not_a_threshold_is_refused() {
        for text in [
            "",
            "p95",
            "p95<",
            "<200ms",
            "p95<200",
            "p95<x",
            "p101<1s",
            "p-5<1s",
            "pinf<1s",
            "px<1s",
            "errors<1s",
            "errors<-1",
            "rate>100/m",
            "rate>inf",
            "speed>1",
            "p95=200ms",
            "p95<<1s",
            "errors<1%%",
            "p95<20%",
        ] {
            let refused = text.parse::<Threshold>();
            assert!(refused.as_ref().is_err_and(|e| e.hint().is_some()), "{text}: {refused:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,20}") {
            let _ = text.parse::<Threshold>();
        }
    }
}
