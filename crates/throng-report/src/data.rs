//! What is plotted, taken out of a run once: the charts draw it, the tables and the CSV files write it, so that they
//! cannot differ. Nothing that comes out of here is infinite or not a number, whatever the run holds.

use crate::distribution::Distribution;
use crate::usage::{ServiceUse, service_uses};
use std::collections::BTreeMap;
use throng_model::run::{LoadResult, Run, Stage, TimelinePoint};

/// Points of one repetition over time; a longer one is merged, and its latencies become averages weighted by answers.
pub const MAX_TIME_POINTS: usize = 600;
/// Later times are cut off: thirty years.
const MAX_SECONDS: f64 = 1e9;

pub struct Data<'a> {
    pub run: &'a Run,
    /// End of the time axis in seconds.
    pub horizon: f64,
    pub loads: Vec<Load<'a>>,
    pub counts: Vec<Counts<'a>>,
    pub uses: Vec<ServiceUse<'a>>,
}

/// A load stage and all its repetitions.
pub struct Load<'a> {
    pub stage: &'a Stage,
    pub clients: Option<u64>,
    pub pooled: Distribution,
    pub repetitions: Vec<Repetition<'a>>,
}

pub struct Repetition<'a> {
    pub result: &'a LoadResult,
    pub latency: Distribution,
    pub timeline: Vec<TimePoint>,
}

/// One interval of a load.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TimePoint {
    pub at: f64,
    /// Successful answers per second.
    pub rate: f64,
    /// Failures per second.
    pub errors: f64,
    /// p50, p95 and the slowest answer in microseconds; `None` if nothing was answered.
    pub latency: Option<(f64, f64, f64)>,
}

pub struct Counts<'a> {
    pub service: &'a str,
    pub points: Vec<(f64, f64)>,
    /// How many there were to be; empty if that was not recorded.
    pub wanted: Vec<(f64, f64)>,
}

/// The middle value of the repetitions and how far they lie apart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    pub middle: f64,
    pub low: f64,
    pub high: f64,
    pub repetitions: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    Rate,
    Mean,
    P50,
    P95,
    P99,
    P999,
    Max,
    /// Failed requests of all requests, 0 to 1.
    Errors,
}

impl<'a> Data<'a> {
    pub fn of(run: &'a Run) -> Data<'a> {
        let loads: Vec<Load> =
            run.stages.iter().filter(|stage| !stage.loads.is_empty()).map(Load::of).collect();
        let mut horizon = time(run.seconds).unwrap_or(0.0);
        for end in run.stages.iter().filter_map(|stage| time(stage.end)) {
            horizon = horizon.max(end);
        }
        for point in loads.iter().flat_map(|load| &load.repetitions).flat_map(|r| &r.timeline) {
            horizon = horizon.max(point.at);
        }
        let horizon = if horizon > 0.0 { horizon } else { 1.0 };
        let counts = run
            .replica_counts
            .iter()
            .map(|(service, points)| counts(run, service, points, horizon))
            .collect();
        Data { run, horizon, uses: service_uses(run, &loads), loads, counts }
    }

    /// The use of the replicas of the service that this stage loaded, if it can be told.
    pub fn loaded_service(&self, load: &Load) -> Option<&ServiceUse<'a>> {
        let target = load.repetitions.first().map(|r| r.result.target.as_str()).unwrap_or("");
        let host = target.split("://").last().unwrap_or("").split(['/', ':']).next().unwrap_or("");
        let answered = |using: &&ServiceUse| {
            using
                .totals
                .iter()
                .any(|t| load.repetitions.iter().any(|r| r.result.by_replica.contains_key(t.name)))
        };
        self.uses
            .iter()
            .find(|using| using.service == target || using.service == host)
            .or_else(|| self.uses.iter().find(answered))
            .or_else(|| if self.uses.len() == 1 { self.uses.first() } else { None })
    }
}

impl<'a> Load<'a> {
    fn of(stage: &'a Stage) -> Load<'a> {
        let repetitions: Vec<Repetition> = stage.loads.iter().map(Repetition::of).collect();
        let pooled = Distribution::pooled(repetitions.iter().map(|r| &r.latency));
        let clients = stage.loads.iter().find_map(|load| clients_of(&load.schedule));
        Load { stage, clients, pooled, repetitions }
    }

    pub fn spread(&self, metric: Metric) -> Option<Spread> {
        let mut values: Vec<f64> = self.repetitions.iter().filter_map(|r| r.metric(metric)).collect();
        values.sort_by(f64::total_cmp);
        let (low, high) = (*values.first()?, *values.last()?);
        let half = values.len() / 2;
        let middle =
            if values.len() % 2 == 1 { values[half] } else { (values[half - 1] + values[half]) / 2.0 };
        Some(Spread { middle, low, high, repetitions: values.len() })
    }

    pub fn middle(&self, metric: Metric) -> Option<f64> {
        self.spread(metric).map(|s| s.middle)
    }

    pub fn requests(&self) -> u64 {
        self.repetitions.iter().fold(0, |sum, r| sum.saturating_add(r.result.requests))
    }

    pub fn failed(&self) -> u64 {
        self.repetitions.iter().fold(0, |sum, r| sum.saturating_add(r.failed()))
    }

    /// Failures by kind over all repetitions, most frequent first.
    pub fn errors(&self) -> Vec<(&'a str, u64)> {
        let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
        for (kind, count) in self.repetitions.iter().flat_map(|r| &r.result.errors) {
            let sum = sums.entry(kind).or_default();
            *sum = sum.saturating_add(*count);
        }
        let mut list: Vec<_> = sums.into_iter().filter(|(_, count)| *count > 0).collect();
        list.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        list
    }

    /// Answers by replica over all repetitions.
    pub fn by_replica(&self) -> BTreeMap<&'a str, u64> {
        let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
        for (name, count) in self.repetitions.iter().flat_map(|r| &r.result.by_replica) {
            let sum = sums.entry(name).or_default();
            *sum = sum.saturating_add(*count);
        }
        sums
    }

    pub fn replicas(&self) -> Option<u64> {
        self.stage.replicas.map(u64::from)
    }

    /// Whether clients pause between their requests: then they may ask for less than the service could give.
    pub fn is_paced(&self) -> bool {
        self.repetitions.first().is_some_and(|r| r.result.schedule.contains(", pause "))
    }

    pub fn is_open(&self) -> bool {
        self.repetitions.first().is_some_and(|r| r.result.schedule.trim_start().starts_with("open"))
    }
}

impl<'a> Repetition<'a> {
    fn of(result: &'a LoadResult) -> Repetition<'a> {
        Repetition {
            result,
            latency: Distribution::of(&result.latency),
            timeline: timeline(&result.timeline),
        }
    }

    pub fn failed(&self) -> u64 {
        self.result.errors.values().fold(0, |sum, count| sum.saturating_add(*count))
    }

    pub fn percentile(&self, key: &str, share: f64) -> Option<f64> {
        let summary = &self.result.latency;
        let known = summary.percentiles.get(key).copied().filter(|_| summary.count > 0);
        known.or_else(|| self.latency.quantile(share)).map(|micros| micros as f64)
    }

    pub fn metric(&self, metric: Metric) -> Option<f64> {
        let summary = &self.result.latency;
        let answered = summary.count > 0 || !self.latency.is_empty();
        let value = match metric {
            Metric::Rate => Some(self.result.rate).filter(|rate| *rate >= 0.0),
            Metric::Mean if summary.count > 0 && summary.mean > 0.0 => Some(summary.mean),
            Metric::Mean => self.latency.mean(),
            Metric::P50 => self.percentile("50", 0.5),
            Metric::P95 => self.percentile("95", 0.95),
            Metric::P99 => self.percentile("99", 0.99),
            Metric::P999 => self.percentile("99.9", 0.999),
            Metric::Max if summary.count > 0 && summary.max > 0 => Some(summary.max as f64),
            Metric::Max => self.latency.largest().map(|micros| micros as f64),
            Metric::Errors => {
                let requests = self.result.requests.max(self.failed());
                (requests > 0).then(|| self.failed() as f64 / requests as f64)
            }
        };
        let needs_answer = !matches!(metric, Metric::Rate | Metric::Errors);
        value.filter(|v| v.is_finite() && (answered || !needs_answer)).map(|v| v.min(MAX_FIGURE))
    }
}

/// Figures above this are cut: their sums must stay finite.
const MAX_FIGURE: f64 = 1e15;

/// A time in seconds that can stand on an axis.
pub fn time(seconds: f64) -> Option<f64> {
    seconds.is_finite().then(|| seconds.clamp(0.0, MAX_SECONDS))
}

/// A measured quantity that can stand on an axis.
pub fn figure(value: f64) -> Option<f64> {
    value.is_finite().then(|| value.clamp(0.0, MAX_FIGURE))
}

/// The number before `client` in a schedule such as `closed: 10 clients × 100 requests`.
fn clients_of(schedule: &str) -> Option<u64> {
    let words: Vec<&str> = schedule.split_whitespace().collect();
    words
        .windows(2)
        .find(|pair| pair[1].starts_with("client"))
        .and_then(|pair| pair[0].replace([',', '_'], "").parse().ok())
}

fn timeline(points: &[TimelinePoint]) -> Vec<TimePoint> {
    let mut clean: Vec<&TimelinePoint> =
        points.iter().filter(|p| time(p.at).is_some() && p.width.is_finite() && p.width > 0.0).collect();
    clean.sort_by(|a, b| a.at.total_cmp(&b.at));
    let group = clean.len().div_ceil(MAX_TIME_POINTS).max(1);
    let mut groups: Vec<&[&TimelinePoint]> = clean.chunks(group).collect();
    let width = |group: &[&TimelinePoint]| group.iter().map(|p| p.width).sum::<f64>();
    // Of one answer in the few milliseconds that are left at the end no rate can be told.
    if let [.., before, last] = groups[..]
        && width(last) < width(before) / 2.0
    {
        groups.truncate(groups.len() - 2);
        groups.push(&clean[clean.len() - before.len() - last.len()..]);
    }
    groups.into_iter().filter_map(merged).collect()
}

fn merged(points: &[&TimelinePoint]) -> Option<TimePoint> {
    let width: f64 = points.iter().map(|p| p.width).sum();
    let answers = |p: &TimelinePoint| p.requests.saturating_sub(p.errors) as f64;
    let answered: f64 = points.iter().map(|p| answers(p)).sum();
    let errors: f64 = points.iter().map(|p| p.errors as f64).sum();
    let (first, last) = (points.first()?, points.last()?);
    let at = (first.at - first.width / 2.0 + last.at + last.width / 2.0) / 2.0;
    let weighted = |value: fn(&TimelinePoint) -> u64| {
        points.iter().map(|p| value(p) as f64 * answers(p)).sum::<f64>() / answered
    };
    let max = points.iter().filter(|p| answers(p) > 0.0).map(|p| p.max).max().unwrap_or(0);
    Some(TimePoint {
        at: time(at)?,
        rate: figure(answered / width)?,
        errors: figure(errors / width)?,
        latency: (answered > 0.0).then(|| {
            let fit = |value: f64| figure(value).unwrap_or(0.0);
            (fit(weighted(|p| p.p50)), fit(weighted(|p| p.p95)), fit(max as f64))
        }),
    })
}

/// Sorted, and drawn out to the end of the run.
fn counts<'a>(run: &Run, service: &'a str, points: &[(f64, u32)], horizon: f64) -> Counts<'a> {
    let wanted = run.replicas_wanted.get(service).map(|points| steps(points, horizon)).unwrap_or_default();
    Counts { service, points: steps(points, horizon), wanted }
}

fn steps(points: &[(f64, u32)], horizon: f64) -> Vec<(f64, f64)> {
    let mut clean: Vec<(f64, f64)> =
        points.iter().filter_map(|(at, count)| Some((time(*at)?.min(horizon), f64::from(*count)))).collect();
    clean.sort_by(|a, b| a.0.total_cmp(&b.0));
    if let Some((_, count)) = clean.last().copied().filter(|(at, _)| *at < horizon) {
        clean.push((horizon, count));
    }
    extremes(clean)
}

/// At most [`MAX_TIME_POINTS`]: the lowest and the highest of each run of neighbours, so that no peak is lost.
fn extremes(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    if points.len() <= MAX_TIME_POINTS {
        return points;
    }
    let (first, last) = (points[0], points[points.len() - 1]);
    let group = points.len().div_ceil(MAX_TIME_POINTS / 2 - 1);
    let mut kept = vec![first];
    for chunk in points.chunks(group) {
        let place = |best: Option<(usize, &(f64, f64))>| best.map_or(0, |(index, _)| index);
        let low = place(chunk.iter().enumerate().min_by(|a, b| a.1.1.total_cmp(&b.1.1)));
        let high = place(chunk.iter().enumerate().max_by(|a, b| a.1.1.total_cmp(&b.1.1)));
        kept.extend([chunk[low.min(high)], chunk[low.max(high)]]);
    }
    kept.push(last);
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_read_out_of_the_schedule() {
        assert_eq!(clients_of("closed: 10 clients × 100 requests"), Some(10));
        assert_eq!(clients_of("closed: 1 client × 100 requests"), Some(1));
        assert_eq!(clients_of("closed: 1,000 clients × 5 requests"), Some(1000));
        assert_eq!(clients_of("open: 200/s for 30 s, poisson"), None);
    }

    #[test]
    fn the_middle_of_repetitions_is_their_median() {
        let result = |p50: u64| LoadResult {
            latency: throng_model::run::LatencySummary {
                count: 1,
                percentiles: [("50".to_string(), p50)].into(),
                ..Default::default()
            },
            ..Default::default()
        };
        let stage = Stage { loads: vec![result(30), result(10), result(20)], ..Default::default() };
        let spread = Load::of(&stage).spread(Metric::P50).expect("three repetitions");
        assert_eq!((spread.low, spread.middle, spread.high, spread.repetitions), (10.0, 20.0, 30.0, 3));
    }

    #[test]
    fn what_is_left_at_the_end_is_no_point_of_its_own() {
        let point =
            |at: f64, width: f64, requests| TimelinePoint { at, width, requests, ..Default::default() };
        let seen = |points: &[TimelinePoint]| -> Vec<(f64, f64)> {
            timeline(points).iter().map(|point| (point.at, point.rate)).collect()
        };
        let full = [point(0.5, 1.0, 60), point(1.5, 1.0, 60)];
        assert_eq!(seen(&[full[0], full[1], point(2.125, 0.25, 15)]), [(0.5, 60.0), (1.625, 60.0)]);
        assert_eq!(seen(&[full[0], full[1], point(2.25, 0.5, 30)])[2], (2.25, 60.0), "half of one is enough");
        assert_eq!(seen(&[point(0.125, 0.25, 15)]), [(0.125, 60.0)], "there is nothing else");
    }

    #[test]
    fn a_long_timeline_is_merged_without_losing_answers() {
        let points: Vec<TimelinePoint> = (0..5_000)
            .map(|i| TimelinePoint {
                at: f64::from(i) + 0.5,
                width: 1.0,
                requests: 10,
                p50: 7,
                max: 9,
                ..Default::default()
            })
            .collect();
        let merged = timeline(&points);
        assert!(merged.len() <= MAX_TIME_POINTS);
        assert!(merged.iter().all(|p| p.rate == 10.0 && p.latency.is_some_and(|l| l.0 == 7.0 && l.2 == 9.0)));
    }
}
