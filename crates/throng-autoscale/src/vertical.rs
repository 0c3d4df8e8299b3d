//! How much CPU and memory a replica should request: the recommender of Kubernetes' vertical autoscaler (VPA), as pure
//! code. Samples go into decaying histograms; percentiles of them, with a margin and widened as long as little is known,
//! are the recommendation.
//!
//! Moments are times since one that the caller chooses.

use serde::{Deserialize, Serialize};
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 3600);
/// How much wider each bucket is than the one before.
const RATIO: f64 = 1.05;
/// A sample is worth half as much after this time.
const HALF_LIFE: Duration = DAY;
/// Weights grow with time instead of old ones being made smaller; from this power of two on all are scaled down.
const EXPONENT_MOST: f64 = 100.0;
/// A replica that requests little still says something: the least weight of a sample of CPU.
const LEAST_WEIGHT: f64 = 0.1;
/// Below this share of it a bucket counts as empty.
const EPSILON: f64 = 0.001 * LEAST_WEIGHT;
/// One peak of memory counts in each interval of this length.
const PEAK_INTERVAL: Duration = DAY;
const MIB: f64 = 1_048_576.0;
/// What a replica that was killed for want of memory would have needed beyond what it had: the larger of both.
const BUMP_BYTES: f64 = 100.0 * MIB;
const BUMP_RATIO: f64 = 1.2;
const MARGIN: f64 = 1.15;
const SAMPLES_A_DAY: f64 = 1_440.0;
/// Least recommendation for a pod, divided over its containers.
const LEAST_MILLICORES: f64 = 25.0;
const LEAST_BYTES: f64 = 250.0 * MIB;

/// Weighted samples in buckets that grow exponentially.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Histogram {
    first: f64,
    weights: Vec<f64>,
    total: f64,
    /// The moment at which a sample weighs what its caller says, in seconds.
    reference: f64,
}

impl Histogram {
    /// `first` is the width of the first bucket; values above `most` go into the last one.
    fn new(first: f64, most: f64) -> Histogram {
        let count = (most * (RATIO - 1.0) / first + 1.0).log(RATIO).ceil() as usize + 1;
        Histogram { first, weights: vec![0.0; count], total: 0.0, reference: 0.0 }
    }

    fn bucket(&self, value: f64) -> usize {
        if value < self.first {
            return 0;
        }
        let place = (value * (RATIO - 1.0) / self.first + 1.0).log(RATIO).floor();
        (place as usize).min(self.weights.len() - 1)
    }

    fn start(&self, bucket: usize) -> f64 {
        self.first * (RATIO.powf(bucket as f64) - 1.0) / (RATIO - 1.0)
    }

    /// What a weight at a moment counts; negative ones take back.
    fn add(&mut self, value: f64, weight: f64, at: Duration) {
        let at = at.as_secs_f64();
        if (at - self.reference) / HALF_LIFE.as_secs_f64() > EXPONENT_MOST {
            self.shift(at);
        }
        let weight = weight * self.decay(at);
        let bucket = self.bucket(value);
        let before = self.weights[bucket];
        self.weights[bucket] = (before + weight).max(0.0);
        self.total = (self.total + self.weights[bucket] - before).max(0.0);
    }

    fn decay(&self, at: f64) -> f64 {
        ((at - self.reference) / HALF_LIFE.as_secs_f64()).exp2()
    }

    /// Moves the reference to the whole half life next to a moment, so that numbers stay in range.
    fn shift(&mut self, at: f64) {
        let half_life = HALF_LIFE.as_secs_f64();
        let reference = (at / half_life).round() * half_life;
        let factor = ((self.reference - reference) / half_life).exp2();
        self.weights.iter_mut().for_each(|weight| *weight *= factor);
        self.total = self.weights.iter().sum();
        self.reference = reference;
    }

    /// The upper end of the bucket that the percentile falls into; zero without samples.
    fn percentile(&self, share: f64) -> f64 {
        let is_used = |weight: &f64| *weight >= EPSILON;
        let used = self.weights.iter().position(is_used).zip(self.weights.iter().rposition(is_used));
        let Some((first, last)) = used else { return 0.0 };
        let (threshold, mut sum) = (share * self.total, 0.0);
        let place = self.weights[first..last].iter().position(|weight| {
            sum += weight;
            sum >= threshold
        });
        let bucket = place.map_or(last, |place| first + place);
        // There is no end of the last bucket.
        if bucket + 1 < self.weights.len() { self.start(bucket + 1) } else { self.start(bucket) }
    }
}

/// All that is known of what the replicas of one service use. What is serialised is a checkpoint, which goes on where its
/// moments are counted from the same one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Vertical {
    cpu: Histogram,
    memory: Histogram,
    /// End of the interval of the current peak, and the peak in bytes.
    peak: Option<(Duration, f64)>,
    samples: u64,
    life: Option<(Duration, Duration)>,
}

/// Thousandths of a core, and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amounts {
    pub cpu: u64,
    pub memory: u64,
}

/// What a replica should request, and between which bounds what it requests is good enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recommended {
    pub lower: Amounts,
    pub target: Amounts,
    pub upper: Amounts,
}

impl Default for Vertical {
    fn default() -> Vertical {
        Vertical {
            cpu: Histogram::new(0.01, 1_000.0),
            memory: Histogram::new(1e7, 1e12),
            peak: None,
            samples: 0,
            life: None,
        }
    }
}

impl Vertical {
    /// Whether this can have come from here: a checkpoint of another version may have other buckets.
    pub fn is_sound(&self) -> bool {
        let new = Vertical::default();
        [(&self.cpu, new.cpu), (&self.memory, new.memory)].into_iter().all(|(own, new)| {
            let numbers = own.weights.iter().chain([&own.total]);
            own.weights.len() == new.weights.len()
                && own.first == new.first
                && own.reference.is_finite()
                && numbers.into_iter().all(|weight| weight.is_finite() && *weight >= 0.0)
        })
    }

    /// Cores in use by a replica that requests so many.
    pub fn cpu(&mut self, at: Duration, cores: f64, request: f64) {
        if !cores.is_finite() || cores < 0.0 || !request.is_finite() {
            return;
        }
        self.cpu.add(cores, request.max(LEAST_WEIGHT), at);
        self.samples += 1;
        let (first, last) = self.life.unwrap_or((at, at));
        self.life = Some((first.min(at), last.max(at)));
    }

    /// Bytes in use by a replica. Only the largest of an interval counts.
    pub fn memory(&mut self, at: Duration, bytes: f64) {
        if !bytes.is_finite() || bytes < 0.0 {
            return;
        }
        let (end, peak) = self.peak.unwrap_or((at, 0.0));
        if at < end {
            if bytes <= peak {
                return;
            }
            // What counted for this interval is taken back.
            self.memory.add(peak, -f64::from(u8::from(peak > 0.0)), end);
            self.memory.add(bytes, 1.0, end);
            self.peak = Some((end, bytes));
            return;
        }
        let intervals = (at - end).as_secs() / PEAK_INTERVAL.as_secs() + 1;
        let intervals = u32::try_from(intervals).unwrap_or(u32::MAX);
        let end = end + PEAK_INTERVAL.saturating_mul(intervals);
        self.memory.add(bytes, 1.0, end);
        self.peak = Some((end, bytes));
    }

    /// A replica that had so many bytes was killed for want of more.
    pub fn out_of_memory(&mut self, at: Duration, had: f64) {
        let used = self.peak.map_or(had, |(_, peak)| peak.max(had));
        self.memory(at, (used + BUMP_BYTES).max(used * BUMP_RATIO));
    }

    /// How much is known: days of it, or of samples at one a minute, whichever is less.
    pub fn confidence(&self) -> f64 {
        let life = self.life.map_or(Duration::ZERO, |(first, last)| last - first);
        (life.as_secs_f64() / DAY.as_secs_f64()).min(self.samples as f64 / SAMPLES_A_DAY)
    }

    /// What one of so many containers of a pod should request; nothing before the first sample.
    pub fn recommend(&self, containers: u32) -> Option<Recommended> {
        self.life?;
        let confidence = self.confidence();
        let share = 1.0 / f64::from(containers.max(1));
        let amounts = |percentile: f64, factor: f64| {
            // Cut to whole units at each step, as the recommender does.
            let cut = |value: f64| value as u64 as f64;
            let amount = |raw: f64, least: f64| {
                let widened = cut(cut(cut(raw) * MARGIN) * factor);
                widened.max(cut(least * share)) as u64
            };
            Amounts {
                cpu: amount(self.cpu.percentile(percentile) * 1_000.0, LEAST_MILLICORES),
                memory: amount(self.memory.percentile(percentile), LEAST_BYTES),
            }
        };
        Some(Recommended {
            lower: amounts(0.5, (1.0 + 0.001 / confidence).powi(-2)),
            target: amounts(0.9, 1.0),
            upper: amounts(0.95, 1.0 + 1.0 / confidence),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// A day of samples at one a minute.
    fn day(cores: impl Fn(u32) -> f64, bytes: f64) -> Vertical {
        let mut vertical = Vertical::default();
        for minute in 0..=1_440 {
            vertical.cpu(MINUTE * minute, cores(minute), 0.5);
            vertical.memory(MINUTE * minute, bytes);
        }
        vertical
    }

    #[test]
    fn buckets_are_those_of_the_recommender() {
        let cpu = Histogram::new(0.01, 1_000.0);
        // 0.01 * (1.05^n - 1) / 0.05 reaches a thousand cores at n = 175.
        assert_eq!(cpu.weights.len(), 176);
        for (value, bucket) in [(0.0, 0), (0.009, 0), (0.011, 1), (0.02, 1), (0.021, 2), (1e6, 175)] {
            assert_eq!(cpu.bucket(value), bucket, "{value}");
        }
        assert!((cpu.start(1) - 0.01).abs() < 1e-12 && (cpu.start(2) - 0.0205).abs() < 1e-12);
    }

    #[test]
    fn percentiles_are_upper_ends_of_buckets() {
        let mut histogram = Histogram::new(0.01, 1_000.0);
        assert_eq!(histogram.percentile(0.9), 0.0);
        for number in 1..=10 {
            histogram.add(f64::from(number) / 100.0 - 0.001, 1.0, Duration::ZERO);
        }
        let end = |value: f64| histogram.start(histogram.bucket(value) + 1);
        for (share, value) in [(0.0, 0.009), (0.1, 0.009), (0.5, 0.049), (0.9, 0.089), (1.0, 0.099)] {
            assert_eq!(histogram.percentile(share), end(value), "{share}");
        }
    }

    #[test]
    fn what_is_old_weighs_half_as_much_each_day() {
        let mut histogram = Histogram::new(0.01, 1_000.0);
        histogram.add(1.0, 1.0, Duration::ZERO);
        histogram.add(0.1, 1.0, DAY);
        // One third and two thirds of the weight.
        let end = |value: f64| histogram.start(histogram.bucket(value) + 1);
        assert_eq!(histogram.percentile(0.66), end(0.1));
        assert_eq!(histogram.percentile(0.67), end(1.0));
        // A year later numbers are still in range, and the past is forgotten.
        let mut later = histogram.clone();
        later.add(0.5, 1.0, DAY * 365);
        assert!(later.total.is_finite() && later.total > 0.0);
        assert_eq!(later.percentile(0.5), end(0.5));
    }

    #[test]
    fn a_day_of_the_same_is_recommended_with_its_margin() {
        let vertical = day(|_| 0.2, 400.0 * MIB);
        assert!((vertical.confidence() - 1.0).abs() < 1e-9, "{}", vertical.confidence());
        let recommended = vertical.recommend(1).expect("known");
        let end = vertical.cpu.start(vertical.cpu.bucket(0.2) + 1);
        let target = ((end * 1_000.0) as u64 as f64 * 1.15) as u64;
        assert_eq!(recommended.target.cpu, target);
        // With one day's confidence the upper bound is twice the margin's, and the lower one hardly less.
        assert_eq!(recommended.upper.cpu, target * 2);
        assert_eq!(recommended.lower.cpu, (target as f64 * 1.001f64.powi(-2)) as u64);
        assert!(recommended.target.memory > (400.0 * MIB * 1.15) as u64);
        assert!(recommended.target.memory < ((400.0 * MIB * 1.05 + 1e7) * 1.15) as u64);
    }

    #[test]
    fn floors_are_divided_over_containers() {
        let vertical = day(|_| 0.001, MIB);
        let one = vertical.recommend(1).expect("known").target;
        assert_eq!((one.cpu, one.memory), (25, 250 << 20));
        let half = vertical.recommend(2).expect("known").target;
        assert_eq!((half.cpu, half.memory), (12, 125 << 20));
        assert_eq!(Vertical::default().recommend(1), None);
    }

    #[test]
    fn only_the_peak_of_a_day_counts_and_a_killed_replica_needs_more() {
        let mut vertical = Vertical::default();
        vertical.cpu(Duration::ZERO, 0.1, 0.1);
        for (minute, mebibytes) in [(0, 300.0), (1, 600.0), (2, 100.0)] {
            vertical.memory(MINUTE * minute, mebibytes * MIB);
        }
        let end = |vertical: &Vertical, bytes: f64| vertical.memory.start(vertical.memory.bucket(bytes) + 1);
        assert_eq!(
            vertical.memory.percentile(0.0),
            end(&vertical, 600.0 * MIB),
            "the smaller one is taken back"
        );
        vertical.out_of_memory(MINUTE * 3, 200.0 * MIB);
        assert_eq!(
            vertical.memory.percentile(0.0),
            end(&vertical, 720.0 * MIB),
            "a fifth more than the peak"
        );
        let mut small = Vertical::default();
        small.out_of_memory(Duration::ZERO, 50.0 * MIB);
        assert_eq!(small.memory.percentile(0.0), end(&small, 150.0 * MIB), "100 MiB more");
    }

    #[test]
    fn a_checkpoint_goes_on_and_a_damaged_one_is_known() {
        let vertical = day(|minute| f64::from(minute % 7) / 10.0, 300.0 * MIB);
        let text = serde_json::to_string(&vertical).expect("JSON");
        let again: Vertical = serde_json::from_str(&text).expect("the same");
        assert_eq!(again, vertical);
        assert!(again.is_sound());
        let cut = text.replacen("[0.0,", "[", 1);
        assert!(serde_json::from_str::<Vertical>(&cut).is_ok_and(|cut| !cut.is_sound()), "{cut}");
    }

    #[test]
    fn busy_replicas_weigh_more_and_nonsense_nothing() {
        let mut vertical = Vertical::default();
        vertical.cpu(Duration::ZERO, f64::NAN, 1.0);
        vertical.memory(Duration::ZERO, -1.0);
        assert_eq!(vertical.recommend(1), None);
        for _ in 0..9 {
            vertical.cpu(Duration::ZERO, 0.1, 0.0);
        }
        vertical.cpu(Duration::ZERO, 2.0, 8.0);
        let target = vertical.recommend(1).expect("known").target.cpu;
        assert!(target > 2_000, "{target}: one that requests eight cores outweighs nine that request none");
    }
}
