//! Which backend gets the next request: least-request over two random choices. Pure: no clock, no I/O.
//!
//! Asking two backends drawn at random and taking the one with fewer requests in flight brings the longest queue
//! from O(log n / log log n) down to O(log log n) (Mitzenmacher, "The Power of Two Choices in Randomized Load
//! Balancing", 2001), and unlike a scan for the least loaded one it does not send a burst to a single newcomer.

use std::sync::atomic::{AtomicU64, Ordering};

/// A source of random numbers that many threads may draw from.
///
/// SplitMix64 (Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators", 2014): its state only ever
/// grows by a constant, so one atomic addition makes it safe to share.
#[derive(Debug)]
pub struct SplitMix64(AtomicU64);

const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

impl SplitMix64 {
    pub fn new(seed: u64) -> Self {
        SplitMix64(AtomicU64::new(seed))
    }

    pub fn next(&self) -> u64 {
        let mut z = self.0.fetch_add(GOLDEN_GAMMA, Ordering::Relaxed).wrapping_add(GOLDEN_GAMMA);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Picks one of `candidates` backends by index, or `None` if there are none.
///
/// `load(i)` is the number of requests in flight at backend `i`; `random` gives uniformly distributed numbers.
/// The result is one of two distinct backends drawn uniformly (of one, if there is one), and never the more
/// loaded of the two.
pub fn pick_of_two(
    candidates: usize,
    load: impl Fn(usize) -> usize,
    mut random: impl FnMut() -> u64,
) -> Option<usize> {
    match candidates {
        0 => None,
        1 => Some(0),
        n => {
            let first = below(random(), n);
            // Drawn from the others, so that the two are never the same one.
            let second = match below(random(), n - 1) {
                i if i >= first => i + 1,
                i => i,
            };
            Some(if load(second) < load(first) { second } else { first })
        }
    }
}

/// Maps a uniform 64-bit number to `0..n` by its high bits (Lemire, 2019); the bias is below n / 2^64.
fn below(random: u64, n: usize) -> usize {
    ((u128::from(random) * n as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_choice_is_in_the_set(loads in proptest::collection::vec(0usize..50, 0..40), seed: u64) {
            let random = SplitMix64::new(seed);
            let picked = pick_of_two(loads.len(), |i| loads[i], || random.next());
            match picked {
                None => prop_assert!(loads.is_empty()),
                Some(i) => prop_assert!(i < loads.len()),
            }
        }

        #[test]
        fn of_two_the_less_loaded_is_picked(a in 0usize..100, b in 0usize..100, seed: u64) {
            let random = SplitMix64::new(seed);
            let loads = [a, b];
            let picked = pick_of_two(2, |i| loads[i], || random.next()).unwrap();
            prop_assert_eq!(loads[picked], a.min(b));
        }

        #[test]
        fn the_single_most_loaded_is_never_picked(n in 2usize..20, busy in 0usize..20, seed: u64) {
            let busy = busy % n;
            let random = SplitMix64::new(seed);
            let picked = pick_of_two(n, |i| usize::from(i == busy), || random.next()).unwrap();
            prop_assert_ne!(picked, busy);
        }

        #[test]
        fn equal_loads_are_spread_evenly(n in 1usize..12, seed: u64) {
            const DRAWS: usize = 6_000;
            let random = SplitMix64::new(seed);
            let mut counts = vec![0usize; n];
            for _ in 0..DRAWS {
                counts[pick_of_two(n, |_| 0, || random.next()).unwrap()] += 1;
            }
            // Eight standard deviations: cannot fail by chance.
            let mean = DRAWS as f64 / n as f64;
            let tolerance = 8.0 * mean.sqrt() + 1.0;
            for count in counts {
                prop_assert!((count as f64 - mean).abs() < tolerance, "{} of mean {}", count, mean);
            }
        }

        #[test]
        fn queues_stay_short_when_nothing_completes(n in 2usize..10, seed: u64) {
            let random = SplitMix64::new(seed);
            let mut loads = vec![0usize; n];
            for _ in 0..n * 100 {
                let picked = pick_of_two(n, |i| loads[i], || random.next()).unwrap();
                loads[picked] += 1;
            }
            let (min, max) = (loads.iter().min().unwrap(), loads.iter().max().unwrap());
            prop_assert!(max - min <= 12, "{:?}", loads);
        }
    }

    #[test]
    fn the_generator_matches_its_published_sequence() {
        // First outputs for seed 1234567, as the reference implementation in C prints them.
        let random = SplitMix64::new(1_234_567);
        let drawn: Vec<u64> = (0..3).map(|_| random.next()).collect();
        assert_eq!(drawn, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }
}
