//! Counting what became of the requests: one record per thread, joined when the load is over.

use crate::error::ErrorKind;
use crate::timeline::{MAX_MICROS, Timeline};
use hdrhistogram::{CreationError, Histogram};
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// Significant digits of the latency histogram: values are kept to one in a thousand.
pub(crate) const DIGITS: u8 = 3;
/// Most names of replicas told apart; answers of others are counted together.
pub(crate) const MAX_REPLICAS: usize = 1_024;
/// What the others are counted as.
pub(crate) const OTHER_REPLICAS: &str = "(others)";
/// Statuses have three digits.
const STATUSES: usize = 1_000;

/// A histogram from one microsecond to one hour: about 200 KB, whatever is recorded.
pub(crate) fn histogram() -> Result<Histogram<u64>, CreationError> {
    Histogram::new_with_bounds(1, MAX_MICROS, DIGITS)
}

/// One request that is over.
pub(crate) struct Ended<'a> {
    /// When it was meant to be sent.
    pub intended: Instant,
    pub finished: Instant,
    /// The answer's status, if there was one that could be read.
    pub status: Option<u16>,
    /// Why it does not count as success.
    pub failure: Option<ErrorKind>,
    pub replica: Option<&'a str>,
    pub sent: u64,
    pub received: u64,
}

#[derive(Debug)]
pub(crate) struct Recorder {
    start: Instant,
    pub latency: Histogram<u64>,
    timeline: Timeline,
    /// Those of other threads' records.
    timelines: Vec<Timeline>,
    pub errors: BTreeMap<ErrorKind, u64>,
    status: Box<[u64]>,
    replicas: HashMap<Box<str>, u64>,
    pub requests: u64,
    pub failed: u64,
    pub sent: u64,
    pub received: u64,
    /// When the last request ended, since the start.
    pub last: Duration,
}

impl Recorder {
    pub fn new(start: Instant) -> Result<Recorder, CreationError> {
        Ok(Recorder {
            start,
            latency: histogram()?,
            timeline: Timeline::new()?,
            timelines: Vec::new(),
            errors: BTreeMap::new(),
            status: vec![0; STATUSES].into_boxed_slice(),
            replicas: HashMap::new(),
            requests: 0,
            failed: 0,
            sent: 0,
            received: 0,
            last: Duration::ZERO,
        })
    }

    pub fn record(&mut self, ended: &Ended<'_>) {
        let at = ended.finished.saturating_duration_since(self.start);
        self.last = self.last.max(at);
        self.requests += 1;
        self.sent += ended.sent;
        self.received += ended.received;
        if let Some(count) = ended.status.and_then(|status| self.status.get_mut(usize::from(status))) {
            *count += 1;
        }
        if let Some(name) = ended.replica {
            self.count_replica(name, 1);
        }
        let micros = match ended.failure {
            None => {
                let latency = ended.finished.saturating_duration_since(ended.intended);
                let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX).max(1);
                self.latency.saturating_record(micros);
                Some(micros)
            }
            Some(kind) => {
                self.failed += 1;
                *self.errors.entry(kind).or_default() += 1;
                None
            }
        };
        self.timeline.record(at, micros);
    }

    /// Counts requests that were due but never sent.
    pub fn record_unsent(&mut self, count: u64, kind: ErrorKind) {
        let now = Instant::now();
        for _ in 0..count {
            self.record(&Ended {
                intended: now,
                finished: now,
                status: None,
                failure: Some(kind),
                replica: None,
                sent: 0,
                received: 0,
            });
        }
    }

    pub fn statuses(&self) -> impl Iterator<Item = (u16, u64)> {
        self.status.iter().enumerate().filter(|(_, count)| **count > 0).map(|(s, count)| (s as u16, *count))
    }

    pub fn replicas(&self) -> impl Iterator<Item = (&str, u64)> {
        self.replicas.iter().map(|(name, count)| (&**name, *count))
    }

    /// Adds another thread's record of the same load.
    pub fn absorb(&mut self, other: Recorder) -> Result<(), hdrhistogram::AdditionError> {
        self.latency.add(&other.latency)?;
        for (kind, count) in &other.errors {
            *self.errors.entry(*kind).or_default() += count;
        }
        for (sum, count) in self.status.iter_mut().zip(&other.status) {
            *sum += count;
        }
        for (name, count) in other.replicas() {
            self.count_replica(name, count);
        }
        self.timelines.push(other.timeline);
        self.timelines.extend(other.timelines);
        self.requests += other.requests;
        self.failed += other.failed;
        self.sent += other.sent;
        self.received += other.received;
        self.last = self.last.max(other.last);
        Ok(())
    }

    pub fn into_timelines(self) -> impl Iterator<Item = Timeline> {
        std::iter::once(self.timeline).chain(self.timelines)
    }

    fn count_replica(&mut self, name: &str, count: u64) {
        if let Some(sum) = self.replicas.get_mut(name) {
            *sum += count;
            return;
        }
        let name = if self.replicas.len() < MAX_REPLICAS { name } else { OTHER_REPLICAS };
        *self.replicas.entry(name.into()).or_default() += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(start: Instant, micros: u64, failure: Option<ErrorKind>, replica: Option<&str>) -> Ended<'_> {
        Ended {
            intended: start,
            finished: start + Duration::from_micros(micros),
            status: Some(if failure.is_some() { 500 } else { 200 }),
            failure,
            replica,
            sent: 10,
            received: 20,
        }
    }

    #[test]
    fn two_records_are_as_good_as_one() {
        let start = Instant::now();
        let (mut one, mut a, mut b) = (
            Recorder::new(start).expect("bounds are fine"),
            Recorder::new(start).expect("bounds are fine"),
            Recorder::new(start).expect("bounds are fine"),
        );
        for i in 0..1000u64 {
            let failure = (i % 10 == 0).then_some(ErrorKind::Status(500));
            let ended = ended(start, i * 7, failure, Some(if i % 3 == 0 { "web-1" } else { "web-2" }));
            one.record(&ended);
            if i % 2 == 0 { a.record(&ended) } else { b.record(&ended) }
        }
        a.absorb(b).expect("the same bounds");
        assert_eq!(a.latency, one.latency);
        assert_eq!((a.requests, a.failed, a.sent, a.received), (1000, 100, 10_000, 20_000));
        assert_eq!((&a.errors, a.last), (&one.errors, one.last));
        assert_eq!(a.statuses().collect::<Vec<_>>(), [(200, 900), (500, 100)]);
        let replicas: BTreeMap<_, _> = a.replicas().collect();
        assert_eq!(replicas, BTreeMap::from([("web-1", 334), ("web-2", 666)]));
    }

    #[test]
    fn names_of_replicas_are_bounded() {
        let start = Instant::now();
        let mut recorder = Recorder::new(start).expect("bounds are fine");
        for i in 0..3 * MAX_REPLICAS {
            recorder.record(&ended(start, 5, None, Some(&format!("r{i}"))));
        }
        let replicas: BTreeMap<_, _> = recorder.replicas().collect();
        assert_eq!(replicas.len(), MAX_REPLICAS + 1);
        assert_eq!(replicas[OTHER_REPLICAS], 2 * MAX_REPLICAS as u64);
    }

    #[test]
    fn latencies_beyond_the_range_are_kept_at_its_ends() {
        let start = Instant::now();
        let mut recorder = Recorder::new(start).expect("bounds are fine");
        recorder.record(&ended(start, 0, None, None));
        recorder.record(&ended(start, 2 * MAX_MICROS, None, None));
        assert_eq!(recorder.latency.min(), 1);
        assert!(recorder.latency.max() >= MAX_MICROS);
    }
}
