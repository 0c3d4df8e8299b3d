//! When requests of an open loop are due: arithmetic over a rate, a length and a seed.

use crate::spec::Arrivals;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::time::Duration;

/// The intended send times since the load's start, ascending, all before the end of the schedule.
///
/// Constant arrivals are computed from their number, never summed up, so the last one is as exact as the first.
/// The sequence depends on nothing but the arguments: every thread walks all of it and keeps its share.
#[derive(Debug, Clone)]
pub struct ArrivalTimes {
    rate: f64,
    end: f64,
    drawn: u64,
    /// Seconds; where the next Poisson gap starts.
    last: f64,
    gaps: Option<ChaCha8Rng>,
}

impl ArrivalTimes {
    /// `rate` in requests per second, above 0.
    pub fn new(rate: f64, duration: Duration, arrivals: Arrivals, seed: u64) -> ArrivalTimes {
        let gaps = match arrivals {
            Arrivals::Constant => None,
            Arrivals::Poisson => Some(ChaCha8Rng::seed_from_u64(seed)),
        };
        ArrivalTimes { rate, end: duration.as_secs_f64(), drawn: 0, last: 0.0, gaps }
    }
}

impl Iterator for ArrivalTimes {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let at = match &mut self.gaps {
            None => self.drawn as f64 / self.rate,
            // `random` is in [0, 1), so the logarithm's argument is never 0.
            Some(rng) => self.last - (1.0 - rng.random::<f64>()).ln() / self.rate,
        };
        if at >= self.end {
            return None;
        }
        self.drawn += 1;
        self.last = at;
        Some(Duration::from_secs_f64(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn constant_arrivals_are_equally_spaced(rate in 0.5f64..50_000.0, millis in 1u64..3_000) {
            let duration = Duration::from_millis(millis);
            let times: Vec<_> = ArrivalTimes::new(rate, duration, Arrivals::Constant, 1).collect();
            let expected = (rate * duration.as_secs_f64()).ceil();
            prop_assert!((times.len() as f64 - expected).abs() <= 1.0);
            prop_assert_eq!(times[0], Duration::ZERO);
            for pair in times.windows(2) {
                prop_assert!(((pair[1] - pair[0]).as_secs_f64() - 1.0 / rate).abs() < 3e-9);
            }
        }

        #[test]
        fn poisson_arrivals_keep_their_rate(seed: u64, rate in 10f64..10_000.0) {
            let wanted = 20_000.0;
            let duration = Duration::from_secs_f64(wanted / rate);
            let times: Vec<_> = ArrivalTimes::new(rate, duration, Arrivals::Poisson, seed).collect();
            prop_assert!(times.windows(2).all(|pair| pair[0] <= pair[1]));
            prop_assert!(times.last().is_some_and(|last| *last < duration));
            // Six standard deviations of a Poisson count: wrong once in 5e8 tries if the code is right.
            prop_assert!((times.len() as f64 - wanted).abs() < 6.0 * wanted.sqrt());
            // Exponential gaps have a standard deviation equal to their mean.
            let gaps: Vec<f64> = times.windows(2).map(|p| (p[1] - p[0]).as_secs_f64() * rate).collect();
            let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
            let variance = gaps.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
            prop_assert!((mean - 1.0).abs() < 0.06 && (variance.sqrt() - 1.0).abs() < 0.12);
        }

        #[test]
        fn the_seed_decides(seed: u64) {
            let times = |seed| {
                ArrivalTimes::new(100.0, Duration::from_secs(1), Arrivals::Poisson, seed).collect::<Vec<_>>()
            };
            prop_assert_eq!(times(seed), times(seed));
            prop_assert_ne!(times(seed), times(seed.wrapping_add(1)));
        }
    }
}
