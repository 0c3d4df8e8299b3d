//! The result of a load out of its records, and of several repetitions of one.

use crate::error::LoadError;
use crate::record::{Recorder, histogram};
use crate::spec::{LoadSpec, Schedule};
use crate::timeline::{self, Interval};
use base64::Engine;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer, V2DeflateSerializer};
use std::collections::BTreeMap;
use std::time::Duration;
use throng_model::run::{Demand, LatencySummary, LoadResult, TimelinePoint};

/// The percentiles that every result has, as they are written.
pub const PERCENTILES: [&str; 7] = ["50", "75", "90", "95", "99", "99.9", "99.99"];
/// Most buckets of a summary; a histogram with more values is shown with two significant digits.
pub const MAX_BUCKETS: usize = 2_000;

/// The whole result. `seconds` is how long the load lasted.
pub(crate) fn result(
    spec: &LoadSpec,
    record: Recorder,
    seconds: Duration,
    backlog_max: u64,
) -> Result<(LoadResult, Duration, Vec<Interval>), LoadError> {
    let succeeded = record.requests - record.failed;
    let mut target = spec.target.clone();
    // Results are kept and shown: no password may get into them. A URL with a host takes any of both.
    let _ = target.set_password(None);
    let _ = target.set_username("");
    let mut result = LoadResult {
        target: target.to_string(),
        schedule: spec.schedule.to_string(),
        demand: demand(&spec.schedule),
        begin: spec.begin_offset,
        seconds: seconds.as_secs_f64(),
        requests: record.requests,
        succeeded,
        errors: record.errors.iter().map(|(kind, count)| (kind.name(), *count)).collect(),
        status: record.statuses().collect(),
        bytes_sent: record.sent,
        bytes_received: record.received,
        rate: per_second(succeeded, seconds.as_secs_f64()),
        latency: latency(&record.latency)?,
        timeline: Vec::new(),
        by_replica: record.replicas().map(|(name, count)| (name.to_owned(), count)).collect(),
        backlog_max,
    };
    let (width, intervals) = timeline::join(record.into_timelines());
    result.timeline = points(spec.begin_offset, seconds, width, &intervals);
    Ok((result, width, intervals))
}

fn demand(schedule: &Schedule) -> Option<Demand> {
    match schedule {
        Schedule::Open { rate, duration, .. } => {
            Some(Demand { rate: *rate, seconds: duration.as_secs_f64() })
        }
        Schedule::Closed { .. } => None,
    }
}

/// The least share of an interval that counts as its width: few answers in an instant make no rate.
const NARROWEST: f64 = 0.05;

fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
}

/// The load ends within the last interval, which is only as wide as that: else its rate would seem to fall.
fn points(offset: f64, seconds: Duration, width: Duration, intervals: &[Interval]) -> Vec<TimelinePoint> {
    let (end, full) = (seconds.as_secs_f64(), width.as_secs_f64());
    let point = |(number, interval): (usize, &Interval)| {
        let begin = number as f64 * full;
        let width = (end - begin).clamp(full * NARROWEST, full);
        TimelinePoint {
            at: offset + begin + width / 2.0,
            width,
            requests: interval.requests,
            errors: interval.errors,
            p50: interval.quantile(0.50),
            p95: interval.quantile(0.95),
            max: interval.max(),
        }
    };
    intervals.iter().enumerate().map(point).collect()
}

/// Reads percentiles, buckets and the portable form out of a histogram of microseconds.
pub fn latency(histogram: &Histogram<u64>) -> Result<LatencySummary, LoadError> {
    let mut hdr = Vec::new();
    V2DeflateSerializer::new()
        .serialize(histogram, &mut hdr)
        .map_err(|source| LoadError::Histogram(source.into()))?;
    let count = histogram.len();
    let percentile = |text: &&str| ((*text).to_owned(), value_at(histogram, text.parse().unwrap_or(100.0)));
    Ok(LatencySummary {
        count,
        min: if count == 0 { 0 } else { histogram.min() },
        mean: histogram.mean(),
        stdev: histogram.stdev(),
        max: histogram.max(),
        percentiles: PERCENTILES.iter().map(percentile).collect(),
        buckets: buckets(histogram)?,
        hdr: base64::engine::general_purpose::STANDARD.encode(hdr),
    })
}

/// The value at a percentile (0 to 100), never above the largest one: a bucket's upper end may be.
pub(crate) fn value_at(histogram: &Histogram<u64>, percentile: f64) -> u64 {
    // 99.9 / 100 is a little more than 0.999 in binary, which would make it the 1,000th value of 1,000.
    let quantile = percentile / 100.0 * (1.0 - 1e-12);
    if histogram.is_empty() { 0 } else { histogram.value_at_quantile(quantile).min(histogram.max()) }
}

fn buckets(histogram: &Histogram<u64>) -> Result<Vec<(u64, u64)>, LoadError> {
    let list = |histogram: &Histogram<u64>| -> Vec<(u64, u64)> {
        histogram.iter_recorded().map(|v| (v.value_iterated_to(), v.count_at_value())).collect()
    };
    let fine = list(histogram);
    if fine.len() <= MAX_BUCKETS {
        return Ok(fine);
    }
    let mut coarse = Histogram::new_with_bounds(1, timeline::MAX_MICROS, 2)
        .map_err(|source| LoadError::Histogram(source.into()))?;
    for (value, count) in fine {
        coarse.saturating_record_n(value, count);
    }
    Ok(list(&coarse))
}

/// The histogram that a summary carries.
pub fn histogram_of(latency: &LatencySummary) -> Result<Histogram<u64>, LoadError> {
    if latency.hdr.is_empty() {
        return histogram().map_err(|source| LoadError::Histogram(source.into()));
    }
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(&latency.hdr)
        .map_err(|source| LoadError::Histogram(source.into()))?;
    Deserializer::new()
        .deserialize(&mut bytes.as_slice())
        .map_err(|source| LoadError::Histogram(source.to_string().into()))
}

/// Repetitions of a load taken as one: counts and times are added up, histograms joined, timelines one after
/// the other. Target, schedule and begin are those of the first. None if there is none.
pub fn merge(results: &[LoadResult]) -> Result<Option<LoadResult>, LoadError> {
    let Some((first, others)) = results.split_first() else {
        return Ok(None);
    };
    let mut sum = first.clone();
    let mut all = histogram_of(&first.latency)?;
    for result in others {
        sum.seconds += result.seconds;
        sum.requests += result.requests;
        sum.succeeded += result.succeeded;
        sum.bytes_sent += result.bytes_sent;
        sum.bytes_received += result.bytes_received;
        sum.backlog_max = sum.backlog_max.max(result.backlog_max);
        add(&mut sum.errors, &result.errors);
        add(&mut sum.status, &result.status);
        add(&mut sum.by_replica, &result.by_replica);
        sum.timeline.extend_from_slice(&result.timeline);
        all.add(histogram_of(&result.latency)?).map_err(|source| LoadError::Histogram(source.into()))?;
    }
    sum.rate = per_second(sum.succeeded, sum.seconds);
    sum.latency = latency(&all)?;
    Ok(Some(sum))
}

fn add<K: Ord + Clone>(sum: &mut BTreeMap<K, u64>, more: &BTreeMap<K, u64>) {
    for (key, count) in more {
        *sum.entry(key.clone()).or_default() += count;
    }
}

/// A figure over the repetitions of a load.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Range {
    pub min: f64,
    pub median: f64,
    pub max: f64,
}

/// How far the repetitions of a load lie apart. Latencies in microseconds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Spread {
    pub rate: Range,
    /// Share of requests that failed, 0 to 1.
    pub errors: Range,
    pub mean: Range,
    /// By percentile as written in [`PERCENTILES`].
    pub percentiles: BTreeMap<String, Range>,
}

/// The spread over repetitions; all zero if there is none.
pub fn spread(results: &[LoadResult]) -> Spread {
    let over = |figure: &dyn Fn(&LoadResult) -> f64| range(results.iter().map(figure).collect());
    let percentiles = PERCENTILES.iter().map(|name| {
        let value = |r: &LoadResult| r.latency.percentiles.get(*name).copied().unwrap_or_default() as f64;
        ((*name).to_owned(), over(&value))
    });
    Spread {
        rate: over(&|r| r.rate),
        errors: over(&|r| (r.requests - r.succeeded.min(r.requests)) as f64 / r.requests.max(1) as f64),
        mean: over(&|r| r.latency.mean),
        percentiles: percentiles.collect(),
    }
}

fn range(mut values: Vec<f64>) -> Range {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.as_slice() {
        [] => Range::default(),
        [min, .., max] | [min @ max] => Range {
            min: *min,
            median: if values.len().is_multiple_of(2) {
                f64::midpoint(values[middle - 1], values[middle])
            } else {
                values[middle]
            },
            max: *max,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(latencies: impl Iterator<Item = u64>, seconds: f64, failed: u64) -> LoadResult {
        let mut all = histogram().expect("bounds are fine");
        latencies.for_each(|micros| all.saturating_record(micros));
        LoadResult {
            seconds,
            requests: all.len() + failed,
            succeeded: all.len(),
            errors: BTreeMap::from([("timeout".to_owned(), failed)]),
            rate: all.len() as f64 / seconds,
            latency: latency(&all).expect("a histogram"),
            ..LoadResult::default()
        }
    }

    #[test]
    fn a_result_shows_no_password() {
        let url = "http://me:secret@web:81/path?q".parse().expect("a URL");
        let schedule = crate::spec::Schedule::Closed {
            clients: 1,
            requests: crate::spec::Requests::Total(1),
            think: Duration::ZERO,
        };
        let spec = LoadSpec { begin_offset: 7.0, ..LoadSpec::new(url, schedule) };
        let mut record = Recorder::new(std::time::Instant::now()).expect("bounds are fine");
        record.record_unsent(2, crate::ErrorKind::Dropped);
        let (result, ..) = super::result(&spec, record, Duration::from_secs(1), 3).expect("a result");
        assert_eq!(result.target, "http://web:81/path?q");
        assert_eq!((result.requests, result.succeeded, result.errors["dropped"]), (2, 0, 2));
        assert_eq!((result.begin, result.timeline[0].at, result.backlog_max), (7.0, 7.5, 3));
    }

    #[test]
    fn the_last_interval_is_as_wide_as_the_load_went_on() {
        let of = |seconds: f64| {
            let all = points(
                10.0,
                Duration::from_secs_f64(seconds),
                Duration::from_secs(1),
                &[Interval::default(), Interval::default()],
            );
            all.iter().map(|point| (point.at, point.width)).collect::<Vec<_>>()
        };
        assert_eq!(of(2.0), [(10.5, 1.0), (11.5, 1.0)]);
        assert_eq!(of(1.25), [(10.5, 1.0), (11.125, 0.25)]);
        assert_eq!(of(1.0), [(10.5, 1.0), (11.025, NARROWEST)]);
    }

    #[test]
    fn percentiles_are_those_of_the_values() {
        let summary = load(1..=1000, 1.0, 0).latency;
        let found: Vec<_> = PERCENTILES.iter().map(|name| summary.percentiles[*name]).collect();
        assert_eq!(found, [500, 750, 900, 950, 990, 999, 1000]);
        assert_eq!((summary.count, summary.min, summary.max), (1000, 1, 1000));
        assert!((summary.mean - 500.5).abs() < 0.01);
        assert_eq!(summary.buckets.iter().map(|(_, count)| count).sum::<u64>(), 1000);
    }

    #[test]
    fn an_empty_histogram_has_zeros() {
        let summary = load(std::iter::empty(), 1.0, 0).latency;
        assert_eq!((summary.count, summary.min, summary.max, summary.percentiles["99"]), (0, 0, 0, 0));
        assert!(summary.buckets.is_empty() && summary.mean == 0.0);
    }

    #[test]
    fn buckets_are_bounded() {
        let summary = load((0..200_000).map(|i| 1 + i * 977), 1.0, 0).latency;
        assert!(summary.buckets.len() <= MAX_BUCKETS, "{}", summary.buckets.len());
        assert_eq!(summary.buckets.iter().map(|(_, count)| count).sum::<u64>(), 200_000);
    }

    #[test]
    fn the_portable_form_is_the_histogram() {
        let result = load((1..5000).map(|i| i * i), 2.0, 0);
        let read = histogram_of(&result.latency).expect("readable");
        assert_eq!(latency(&read).expect("a histogram"), result.latency);
        let damaged = LatencySummary { hdr: "AAAA".into(), ..LatencySummary::default() };
        assert!(histogram_of(&damaged).is_err());
    }

    #[test]
    fn merging_is_recording_together() {
        let (a, b) = (load(1..=500, 2.0, 3), load(501..=1000, 3.0, 4));
        let both = merge(&[a, b]).expect("readable").expect("two");
        assert_eq!(both.latency, load(1..=1000, 1.0, 0).latency);
        assert_eq!((both.requests, both.succeeded, both.errors["timeout"]), (1007, 1000, 7));
        assert_eq!((both.seconds, both.rate), (5.0, 200.0));
        assert_eq!(merge(&[]).expect("nothing to read"), None);
    }

    #[test]
    fn the_spread_has_the_extremes_and_the_middle() {
        let loads = [load(1..=100, 1.0, 0), load(1..=300, 1.0, 100), load(1..=200, 1.0, 0)];
        let spread = spread(&loads);
        assert_eq!(spread.rate, Range { min: 100.0, median: 200.0, max: 300.0 });
        assert_eq!(spread.errors, Range { min: 0.0, median: 0.0, max: 0.25 });
        assert_eq!(spread.percentiles["50"], Range { min: 50.0, median: 100.0, max: 150.0 });
        assert_eq!(super::spread(&[]).rate, Range::default());
        assert_eq!(range(vec![1.0, 2.0]).median, 1.5);
    }
}
