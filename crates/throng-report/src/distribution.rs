//! Latencies as recorded buckets: quantiles, bins for a histogram, points of a percentile curve.

use crate::scale::Scale;
use throng_model::run::LatencySummary;

/// Bars of one histogram.
const BINS: usize = 48;
/// Points of one percentile curve.
const CURVE_STEPS: u32 = 120;
/// Curves end at 99.99 %.
pub const NINES: f64 = 4.0;

/// Buckets in ascending order, each value once, each count above zero. Values are microseconds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Distribution {
    buckets: Vec<(u64, u64)>,
    total: u64,
}

/// One bar: the values in `from..=to` and how many there are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bin {
    pub from: f64,
    pub to: f64,
    pub count: u64,
    /// Of all answers, 0 to 1.
    pub share: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CurvePoint {
    /// 0 to 1.
    pub percentile: f64,
    pub latency: u64,
    /// Whether at least one answer lies beyond, so that the data decides the value and not the single slowest answer.
    pub supported: bool,
}

impl Distribution {
    pub fn of(summary: &LatencySummary) -> Distribution {
        Distribution::from_buckets(summary.buckets.iter().copied())
    }

    pub fn from_buckets(buckets: impl IntoIterator<Item = (u64, u64)>) -> Distribution {
        let mut sorted: Vec<(u64, u64)> = buckets.into_iter().filter(|(_, count)| *count > 0).collect();
        sorted.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::with_capacity(sorted.len());
        for (value, count) in sorted {
            match merged.last_mut() {
                Some((last, sum)) if *last == value => *sum = sum.saturating_add(count),
                _ => merged.push((value, count)),
            }
        }
        let total = merged.iter().fold(0u64, |sum, (_, count)| sum.saturating_add(*count));
        Distribution { buckets: merged, total }
    }

    /// All answers of several repetitions together.
    pub fn pooled<'a>(parts: impl IntoIterator<Item = &'a Distribution>) -> Distribution {
        Distribution::from_buckets(parts.into_iter().flat_map(|part| part.buckets.iter().copied()))
    }

    pub fn total(&self) -> u64 {
        self.total
    }

    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    pub fn smallest(&self) -> Option<u64> {
        self.buckets.first().map(|(value, _)| *value)
    }

    pub fn largest(&self) -> Option<u64> {
        self.buckets.last().map(|(value, _)| *value)
    }

    pub fn mean(&self) -> Option<f64> {
        let weighted: f64 = self.buckets.iter().map(|(value, count)| *value as f64 * *count as f64).sum();
        (self.total > 0).then(|| weighted / self.total as f64)
    }

    /// The smallest recorded value at or below which lies at least this share of the answers.
    pub fn quantile(&self, share: f64) -> Option<u64> {
        let rank = (share.clamp(0.0, 1.0) * self.total as f64 - 1e-9).ceil().max(1.0);
        let mut seen = 0.0;
        for (value, count) in &self.buckets {
            seen += *count as f64;
            if seen >= rank {
                return Some(*value);
            }
        }
        self.largest()
    }

    /// The curve at evenly spaced places of a [`Scale::Tail`], up to 99.99 %.
    pub fn curve(&self) -> Vec<CurvePoint> {
        if self.is_empty() {
            return Vec::new();
        }
        let beyond = 1.0 / self.total as f64;
        (0..=CURVE_STEPS)
            .map(|step| 1.0 - 10f64.powf(-NINES * f64::from(step) / f64::from(CURVE_STEPS)))
            .map(|percentile| CurvePoint {
                percentile,
                latency: self.quantile(percentile).unwrap_or(0),
                supported: percentile <= 1.0 - beyond + 1e-12,
            })
            .collect()
    }

    /// The distribution over shared bins, so that several can be laid one under the other.
    pub fn bins(&self, edges: &[f64]) -> Vec<Bin> {
        let mut bins: Vec<Bin> =
            edges.windows(2).map(|edge| Bin { from: edge[0], to: edge[1], count: 0, share: 0.0 }).collect();
        for (value, count) in &self.buckets {
            let index = bins.partition_point(|bin| bin.to < *value as f64).min(bins.len().saturating_sub(1));
            if let Some(bin) = bins.get_mut(index) {
                bin.count = bin.count.saturating_add(*count);
            }
        }
        for bin in &mut bins {
            bin.share = bin.count as f64 / self.total.max(1) as f64;
        }
        bins
    }
}

/// One axis for several distributions, and the edges of its bins.
pub fn shared_bins<'a>(all: impl IntoIterator<Item = &'a Distribution>) -> (Scale, Vec<f64>) {
    let (mut low, mut high) = (f64::MAX, 1.0f64);
    for distribution in all {
        if let (Some(first), Some(last)) = (distribution.smallest(), distribution.largest()) {
            low = low.min((first as f64).max(1.0));
            high = high.max(last as f64);
        }
    }
    let scale = Scale::fitting(low.min(high), high);
    let edge = |i: usize| i as f64 / BINS as f64;
    let edges = match scale {
        Scale::Log { low, high } => (0..=BINS).map(|i| low * (high / low).powf(edge(i))).collect(),
        Scale::Linear { low, high } => (0..=BINS).map(|i| low + (high - low) * edge(i)).collect(),
        Scale::Tail { .. } => Vec::new(),
    };
    (scale, edges)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quantiles_are_values_that_were_recorded() {
        let some = Distribution::from_buckets([(30, 1), (10, 98), (20, 1), (10, 0)]);
        assert_eq!((some.total(), some.quantile(0.5), some.quantile(0.98)), (100, Some(10), Some(10)));
        assert_eq!((some.quantile(0.99), some.quantile(1.0)), (Some(20), Some(30)));
        assert_eq!(Distribution::default().quantile(0.5), None);
        let curve = some.curve();
        let supported = curve.iter().rfind(|p| p.supported).expect("a hundred answers support 99 %");
        assert!((supported.percentile - 0.99).abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn bins_lose_no_answer(buckets in proptest::collection::vec((any::<u64>(), 0u64..1_000), 0..50)) {
            let distribution = Distribution::from_buckets(buckets);
            let (_, edges) = shared_bins([&distribution]);
            let bins = distribution.bins(&edges);
            prop_assert_eq!(bins.iter().map(|b| b.count).sum::<u64>(), distribution.total());
            let curve = distribution.curve();
            prop_assert!(curve.windows(2).all(|w| w[0].latency <= w[1].latency));
        }
    }
}
