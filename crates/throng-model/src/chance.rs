//! Chance that is the same each time: what a seed draws.

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014): one word of state, and equally
/// distributed for any seed.
#[derive(Debug, Clone)]
pub struct Chance(u64);

impl Chance {
    pub fn new(seed: u64) -> Chance {
        Chance(seed)
    }

    pub fn next_word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }

    pub fn next_half(&mut self) -> u32 {
        (self.next_word() >> 32) as u32
    }

    /// A number below `bound`, each as likely as the others but for one part in 2³² of the largest bounds; 0 if there is
    /// none below.
    pub fn below(&mut self, bound: u32) -> u32 {
        ((u64::from(self.next_half()) * u64::from(bound)) >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_the_same_and_every_number_comes() {
        let drawn = |seed| {
            let mut chance = Chance::new(seed);
            (0..1_000).map(|_| chance.below(7)).collect::<Vec<_>>()
        };
        assert_eq!(drawn(1), drawn(1));
        assert_ne!(drawn(1), drawn(2));
        for number in 0..7 {
            let times = drawn(3).into_iter().filter(|drawn| *drawn == number).count();
            assert!((100..190).contains(&times), "{number} {times} times");
        }
        assert_eq!(Chance::new(5).below(0), 0);
    }
}
