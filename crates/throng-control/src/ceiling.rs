//! The search for the largest count that holds.
//!
//! Counts double until one breaks, or grow by a fixed number. What lies between the largest that held and the smallest
//! that broke is then halved until it is small, and the result is tried once more from below, because a count that was
//! reached once by luck is no ceiling.

/// Counts closer than one in this many are not told apart.
const PRECISION: u32 = 20;

/// What to try next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    Try(u32),
    /// It held before; see that it does so again.
    Confirm(u32),
    /// This count holds. Zero: not even one does.
    Done(u32),
}

#[derive(Debug, Clone)]
pub struct Search {
    most: u32,
    /// Fixed step; doubling without one.
    step: Option<u32>,
    /// Counts that held, ascending.
    held: Vec<u32>,
    /// The smallest count that broke.
    broke: Option<u32>,
    confirmed: bool,
}

impl Search {
    /// Up to `most` replicas, beginning at one; `step` more each time, or twice as many without it.
    pub fn new(most: u32, step: Option<u32>) -> Search {
        Search { most, step: step.map(|step| step.max(1)), held: Vec::new(), broke: None, confirmed: false }
    }

    /// The largest count that has held so far.
    pub fn held(&self) -> u32 {
        self.held.last().copied().unwrap_or(0)
    }

    pub fn broke(&self) -> Option<u32> {
        self.broke
    }

    pub fn next(&self) -> Next {
        let held = self.held();
        let Some(broke) = self.broke else {
            let more = self.step.unwrap_or(held.max(1));
            return if held >= self.most {
                Next::Done(held)
            } else {
                Next::Try(held.saturating_add(more).min(self.most))
            };
        };
        let (gap, precision) = (broke - held, self.step.unwrap_or(held / PRECISION).max(1));
        match (gap > precision, held) {
            (true, _) => Next::Try(held + gap / 2),
            (false, 0) => Next::Done(0),
            (false, _) if self.confirmed => Next::Done(held),
            (false, _) => Next::Confirm(held),
        }
    }

    /// What was tried or confirmed at this count holds.
    pub fn holds(&mut self, count: u32) {
        if self.held() == count {
            self.confirmed = true;
        } else {
            self.held.push(count);
        }
    }

    /// What was tried or confirmed at this count does not hold.
    pub fn breaks(&mut self, count: u32) {
        self.held.retain(|held| *held < count);
        self.broke = Some(count);
        self.confirmed = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Searches on a host that holds so many, and returns what was tried.
    fn search(most: u32, step: Option<u32>, holds: u32) -> (Vec<u32>, u32) {
        let mut search = Search::new(most, step);
        let mut tried = Vec::new();
        loop {
            let count = match search.next() {
                Next::Try(count) | Next::Confirm(count) => count,
                Next::Done(count) => return (tried, count),
            };
            tried.push(count);
            if count <= holds { search.holds(count) } else { search.breaks(count) }
        }
    }

    #[test]
    fn counts_double_until_one_breaks_and_then_close_in() {
        let (tried, found) = search(1000, None, 100);
        assert_eq!(tried[..10], [1, 2, 4, 8, 16, 32, 64, 128, 96, 112]);
        assert_eq!(tried.last(), Some(&found), "the result was confirmed");
        assert!((95..=100).contains(&found), "{found}");
    }

    #[test]
    fn fixed_steps_stay_fixed() {
        assert_eq!(search(100, Some(30), 70), (vec![30, 60, 90, 60], 60));
        assert_eq!(search(100, Some(30), 1000), (vec![30, 60, 90, 100], 100));
    }

    #[test]
    fn not_even_one() {
        assert_eq!(search(100, None, 0), (vec![1], 0));
        assert_eq!(search(0, None, 0), (vec![], 0));
    }

    #[test]
    fn what_does_not_hold_again_is_given_up() {
        let mut search = Search::new(100, Some(10));
        search.holds(10);
        search.holds(20);
        search.breaks(30);
        assert_eq!(search.next(), Next::Confirm(20));
        search.breaks(20);
        assert_eq!(search.next(), Next::Confirm(10));
        search.holds(10);
        assert_eq!(search.next(), Next::Done(10));
    }

    proptest! {
        /// Wherever the ceiling is, it is found to within a twentieth from below, in few tries.
        #[test]
        fn every_ceiling_is_found(most in 1..20_000u32, holds in 0..30_000u32) {
            let (tried, found) = search(most, None, holds);
            let truth = holds.min(most);
            prop_assert!(found <= truth && truth - found <= (found / PRECISION).max(1), "{found} of {truth}");
            prop_assert!(tried.len() <= 40, "{tried:?}");
        }
    }
}
