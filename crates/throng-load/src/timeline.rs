//! What happened when: the load cut into equal intervals, in bounded memory however long it lasts.
//!
//! Intervals are a second wide. When there would be more than [`MAX_INTERVALS`], neighbours are joined and the
//! width doubles, as often as needed. Only the interval under way has a whole histogram; past ones keep the
//! values that occurred.

use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::time::Duration;

/// Most intervals of a timeline.
pub const MAX_INTERVALS: usize = 600;
/// Width of the intervals of a short load.
pub const FIRST_WIDTH: Duration = Duration::from_secs(1);
/// Largest latency that is told apart, in microseconds: one hour.
pub const MAX_MICROS: u64 = 3_600_000_000;
/// Significant digits of an interval's histogram; that of the whole load has three.
const DIGITS: u8 = 2;

/// One stretch of the load. Requests belong to the interval in which they ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interval {
    /// Requests that ended, successful or not.
    pub requests: u64,
    pub errors: u64,
    /// Latency of the successful ones: value in microseconds to count.
    counts: BTreeMap<u64, u64>,
}

impl Interval {
    fn absorb(&mut self, other: &Interval) {
        self.requests += other.requests;
        self.errors += other.errors;
        for (value, count) in &other.counts {
            *self.counts.entry(*value).or_default() += count;
        }
    }

    /// The smallest recorded value that at least this share (0 to 1) of the requests did not exceed; 0 if
    /// nothing was recorded.
    pub fn quantile(&self, share: f64) -> u64 {
        let total: u64 = self.counts.values().sum();
        let wanted = ((share * total as f64).ceil() as u64).max(1);
        let mut seen = 0;
        for (value, count) in &self.counts {
            seen += count;
            if seen >= wanted {
                return *value;
            }
        }
        0
    }

    pub fn max(&self) -> u64 {
        self.counts.last_key_value().map_or(0, |(value, _)| *value)
    }

    /// Latencies in microseconds and how often they occurred, ascending.
    pub fn counts(&self) -> impl Iterator<Item = (u64, u64)> {
        self.counts.iter().map(|(value, count)| (*value, *count))
    }
}

/// The intervals of one thread's requests, or of all threads once joined.
#[derive(Debug, Clone)]
pub struct Timeline {
    width: Duration,
    past: Vec<Interval>,
    /// The interval under way, number `past.len()`.
    requests: u64,
    errors: u64,
    latencies: Histogram<u32>,
}

impl Timeline {
    /// Empty, from the load's start on.
    pub fn new() -> Result<Timeline, hdrhistogram::CreationError> {
        Ok(Timeline {
            width: FIRST_WIDTH,
            past: Vec::new(),
            requests: 0,
            errors: 0,
            latencies: Histogram::new_with_bounds(1, MAX_MICROS, DIGITS)?,
        })
    }

    /// Counts a request that ended `at` after the load's start; None is a failure. Times must not go backwards
    /// by more than an interval: what comes late is counted in the interval under way.
    pub fn record(&mut self, at: Duration, micros: Option<u64>) {
        // A comparison for most requests; the division only when an interval is over.
        if at >= self.current_end() {
            self.advance(at);
        }
        self.requests += 1;
        match micros {
            Some(micros) => self.latencies.saturating_record(micros),
            None => self.errors += 1,
        }
    }

    /// Width of all intervals.
    pub fn width(&self) -> Duration {
        self.width
    }

    /// All intervals so far.
    pub fn into_intervals(mut self) -> (Duration, Vec<Interval>) {
        if self.requests > 0 {
            self.close();
        }
        (self.width, self.past)
    }

    fn current_end(&self) -> Duration {
        self.width.saturating_mul(self.past.len() as u32 + 1)
    }

    fn advance(&mut self, at: Duration) {
        self.close();
        while at.as_nanos() / self.width.as_nanos() >= MAX_INTERVALS as u128 {
            self.past = halve(&self.past);
            self.width = self.width.saturating_mul(2);
        }
        let number = (at.as_nanos() / self.width.as_nanos()) as usize;
        // Joined, there are at most half as many as there may be, and `number` is beyond that.
        self.past.resize(number, Interval::default());
    }

    fn close(&mut self) {
        let counts =
            self.latencies.iter_recorded().map(|v| (v.value_iterated_to(), u64::from(v.count_at_value())));
        let interval = Interval { requests: self.requests, errors: self.errors, counts: counts.collect() };
        self.past.push(interval);
        (self.requests, self.errors) = (0, 0);
        self.latencies.reset();
    }
}

fn halve(intervals: &[Interval]) -> Vec<Interval> {
    intervals
        .chunks(2)
        .map(|pair| {
            let mut joined = pair[0].clone();
            pair[1..].iter().for_each(|second| joined.absorb(second));
            joined
        })
        .collect()
}

/// Lays timelines over each other, at the width of the widest.
pub fn join(timelines: impl IntoIterator<Item = Timeline>) -> (Duration, Vec<Interval>) {
    let mut all: Vec<_> = timelines.into_iter().map(Timeline::into_intervals).collect();
    let width = all.iter().map(|(width, _)| *width).max().unwrap_or(FIRST_WIDTH);
    let mut joined: Vec<Interval> = Vec::new();
    for (own, intervals) in &mut all {
        while *own < width {
            *intervals = halve(intervals);
            *own = own.saturating_mul(2);
        }
        if joined.len() < intervals.len() {
            joined.resize(intervals.len(), Interval::default());
        }
        for (sum, interval) in joined.iter_mut().zip(intervals) {
            sum.absorb(interval);
        }
    }
    (width, joined)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn timeline(seconds: &[f64]) -> Timeline {
        let mut timeline = Timeline::new().expect("bounds are fine");
        for at in seconds {
            timeline.record(Duration::from_secs_f64(*at), Some(100));
        }
        timeline
    }

    #[test]
    fn requests_fall_into_their_second() {
        let mut timeline = timeline(&[0.1, 0.9, 1.0, 3.5]);
        timeline.record(Duration::from_secs_f64(3.6), None);
        let (width, intervals) = timeline.into_intervals();
        assert_eq!(width, FIRST_WIDTH);
        let counts: Vec<_> = intervals.iter().map(|i| (i.requests, i.errors)).collect();
        assert_eq!(counts, [(2, 0), (1, 0), (0, 0), (2, 1)]);
    }

    #[test]
    fn quantiles_are_those_of_the_interval() {
        let mut timeline = Timeline::new().expect("bounds are fine");
        for micros in 1..=100 {
            timeline.record(Duration::from_millis(10), Some(micros));
        }
        let (_, intervals) = timeline.into_intervals();
        assert_eq!(
            (intervals[0].quantile(0.5), intervals[0].quantile(0.95), intervals[0].max()),
            (50, 95, 100)
        );
        assert_eq!((Interval::default().quantile(0.5), Interval::default().max()), (0, 0));
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_memory_is_bounded(
            mut seconds in prop::collection::vec(0f64..20_000.0, 1..200),
            split in any::<prop::sample::Index>(),
        ) {
            seconds.sort_by(f64::total_cmp);
            let (width, intervals) = timeline(&seconds).into_intervals();
            prop_assert!(intervals.len() <= MAX_INTERVALS);
            let mut expected = vec![0u64; intervals.len()];
            for at in &seconds {
                expected[(at / width.as_secs_f64()) as usize] += 1;
            }
            let found: Vec<_> = intervals.iter().map(|i| i.requests).collect();
            prop_assert_eq!(&found, &expected);
            let recorded: u64 = intervals.iter().flat_map(Interval::counts).map(|(_, count)| count).sum();
            prop_assert_eq!(recorded, seconds.len() as u64);

            // Two threads' timelines, each with its own last second, are the same as one.
            let (mut a, mut b) = (Vec::new(), Vec::new());
            let split = split.index(seconds.len());
            for (i, at) in seconds.iter().enumerate() {
                if i % 2 == 0 || i > split { a.push(*at) } else { b.push(*at) }
            }
            prop_assert_eq!(join([timeline(&a), timeline(&b)]), (width, intervals));
        }
    }
}
