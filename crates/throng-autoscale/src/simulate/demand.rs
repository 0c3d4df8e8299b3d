//! What is asked of the replicas, second by second.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

/// Longest demand that is simulated, in seconds: 31 days.
pub const SECONDS_MOST: usize = 31 * 86_400;
/// Largest demand at any moment, in its unit: what sums of a month are still exact for.
pub const DEMAND_MOST: f64 = 1e9;
/// How often noise takes a new value; in between it moves in a straight line.
const NOISE_SECONDS: usize = 30;
/// Noise goes no further than this many standard deviations.
const NOISE_WIDEST: f64 = 3.0;

/// What demand is counted in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Requests per second.
    #[default]
    Requests,
    /// CPU cores that serving it takes.
    Cores,
}

/// Demand of each second, from second 0 on.
#[derive(Debug, Clone, PartialEq)]
pub struct Demand {
    pub unit: Unit,
    /// Means over one second each, never below zero, at most [`SECONDS_MOST`] of them and at least one.
    pub(super) seconds: Vec<f64>,
    /// The moment of second 0, in RFC 3339, where a recording says it.
    pub begins: Option<String>,
}

/// A demand that is made up rather than recorded.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Synthetic {
    pub shape: Shape,
    pub unit: Unit,
    /// From 1 to [`SECONDS_MOST`].
    pub seconds: usize,
    /// The least and the most of it, in its unit, before noise.
    pub base: f64,
    pub peak: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// A wave of 24 hours that is lowest at the beginning and highest twelve hours later.
    Day,
    /// The base for the first quarter of the time, the peak for half of it, the base again.
    Step,
    /// The base, and after a third of the time a peak that halves with every thirtieth of the time.
    Spike,
}

impl Demand {
    pub fn synthetic(what: &Synthetic) -> Demand {
        let length = what.seconds.clamp(1, SECONDS_MOST);
        let height = |second: usize| {
            let at = second as f64 + 0.5;
            let share = at / length as f64;
            match what.shape {
                Shape::Day => (1.0 - (at / 86_400.0 * std::f64::consts::TAU).cos()) / 2.0,
                Shape::Step => f64::from(u8::from((0.25..0.75).contains(&share))),
                Shape::Spike if share < 1.0 / 3.0 => 0.0,
                Shape::Spike => 0.5f64.powf((share - 1.0 / 3.0) * 30.0),
            }
        };
        let value = |second| (what.base + (what.peak - what.base) * height(second)).max(0.0);
        Demand { unit: what.unit, seconds: (0..length).map(value).collect(), begins: None }
    }

    /// Multiplies demand with a factor around 1 that wanders: normally distributed with this standard deviation (0.05 for
    /// 5 %), drawn anew every 30 seconds from `seed` alone. Nothing below zero comes of it.
    pub fn with_noise(mut self, deviation: f64, seed: u64) -> Demand {
        if deviation <= 0.0 {
            return self;
        }
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut next = || 1.0 + deviation * normal(&mut rng);
        let (mut from, mut to) = (next(), next());
        for (second, value) in self.seconds.iter_mut().enumerate() {
            let step = second % NOISE_SECONDS;
            if step == 0 && second > 0 {
                (from, to) = (to, next());
            }
            let factor = from + (to - from) * (step as f64 / NOISE_SECONDS as f64);
            *value *= factor.max(0.0);
        }
        self
    }

    /// How long it lasts, in seconds.
    pub fn length(&self) -> usize {
        self.seconds.len()
    }

    /// In the demand's unit.
    pub fn peak(&self) -> f64 {
        self.seconds.iter().copied().fold(0.0, f64::max)
    }

    /// In the demand's unit.
    pub fn mean(&self) -> f64 {
        self.seconds.iter().sum::<f64>() / self.seconds.len().max(1) as f64
    }

    /// What is asked in a second. Before the beginning it is what is asked first.
    pub(super) fn at(&self, second: i64) -> f64 {
        let index = usize::try_from(second).unwrap_or(0);
        self.seconds.get(index).copied().unwrap_or_default()
    }
}

/// A standard normal variate by Box and Muller (1958).
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    // `random` is in [0, 1), so the logarithm's argument is never 0.
    let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
    let angle = std::f64::consts::TAU * rng.random::<f64>();
    (radius * angle.cos()).clamp(-NOISE_WIDEST, NOISE_WIDEST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shaped(shape: Shape, seconds: usize) -> Demand {
        Demand::synthetic(&Synthetic { shape, unit: Unit::Requests, seconds, base: 10.0, peak: 100.0 })
    }

    #[test]
    fn shapes_are_what_they_are_called() {
        let day = shaped(Shape::Day, 86_400);
        assert!(day.at(0) < 10.1 && day.at(43_200) > 99.9 && day.at(86_399) < 10.1);
        assert!((day.mean() - 55.0).abs() < 0.1, "{}", day.mean());
        let step = shaped(Shape::Step, 400);
        assert_eq!([0, 99, 100, 299, 300, 399].map(|at| step.at(at)), [10.0, 10.0, 100.0, 100.0, 10.0, 10.0]);
        let spike = shaped(Shape::Spike, 3_000);
        assert_eq!(spike.at(999), 10.0);
        assert!(spike.at(1_000) > 98.0);
        assert!((spike.at(1_100) - 55.0).abs() < 1.0, "half of it is left after a thirtieth");
        assert!(spike.at(2_999) < 11.0);
        assert_eq!(spike.at(-5), 10.0);
    }

    proptest! {
        #[test]
        fn noise_depends_on_its_seed_alone(seed in any::<u64>(), deviation in 0.01f64..0.5) {
            let plain = shaped(Shape::Step, 7_200);
            let noisy = plain.clone().with_noise(deviation, seed);
            prop_assert_eq!(&noisy, &plain.clone().with_noise(deviation, seed));
            prop_assert!(noisy != plain.clone().with_noise(deviation, seed.wrapping_add(1)));
            prop_assert!(noisy.seconds.iter().all(|value| *value >= 0.0));
            // Of 240 draws those of the peak count ten times: the mean is off by an eleventh of the deviation, typically.
            prop_assert!((noisy.mean() / plain.mean() - 1.0).abs() < deviation * 0.7, "{}", noisy.mean());
            prop_assert_eq!(plain.clone().with_noise(0.0, seed), plain);
        }
    }
}
