//! What waits for a replica that has time, first come first served.

use std::collections::VecDeque;

/// Work that has arrived and is neither done nor given up. Amounts are core-seconds.
#[derive(Debug, Default)]
pub struct Queue {
    /// Seconds of arrival and what is left of them, the oldest first.
    arrived: VecDeque<(i64, f64)>,
    waiting: f64,
}

/// What became of work in one second.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Served {
    pub done: f64,
    /// Given up because it had waited too long.
    pub lost: f64,
}

impl Queue {
    /// One second in which `arriving` comes and at most `capacity` is done. What has waited more than `patience` seconds
    /// at its end is lost.
    pub fn second(&mut self, now: i64, arriving: f64, capacity: f64, patience: i64) -> Served {
        if self.arrived.is_empty() && arriving <= capacity {
            return Served { done: arriving, lost: 0.0 };
        }
        if arriving > 0.0 {
            self.arrived.push_back((now, arriving));
            self.waiting += arriving;
        }
        let mut room = capacity;
        while let Some((_, left)) = self.arrived.front_mut() {
            if *left > room {
                *left -= room;
                room = 0.0;
                break;
            }
            room -= *left;
            self.arrived.pop_front();
        }
        let done = capacity - room;
        let mut lost = 0.0;
        while let Some((_, left)) = self.arrived.front().filter(|(at, _)| now + 1 - at > patience) {
            lost += left;
            self.arrived.pop_front();
        }
        // Nothing that rounding leaves may keep a queue from being empty.
        self.waiting = if self.arrived.is_empty() { 0.0 } else { (self.waiting - done - lost).max(0.0) };
        Served { done, lost }
    }

    pub fn waiting(&self) -> f64 {
        self.waiting
    }

    pub fn clear(&mut self) {
        *self = Queue::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_oldest_is_served_first_and_patience_ends() {
        let mut queue = Queue::default();
        assert_eq!(queue.second(0, 3.0, 5.0, 2), Served { done: 3.0, lost: 0.0 });
        assert_eq!(queue.second(1, 10.0, 5.0, 2), Served { done: 5.0, lost: 0.0 });
        assert_eq!(queue.second(2, 10.0, 4.0, 2), Served { done: 4.0, lost: 0.0 });
        assert_eq!(queue.waiting(), 11.0);
        // What is left of second 1 has waited three seconds at the end of second 3, had nothing come free.
        assert_eq!(queue.second(3, 0.0, 0.0, 2), Served { done: 0.0, lost: 1.0 });
        assert_eq!(queue.second(4, 0.0, 100.0, 2), Served { done: 10.0, lost: 0.0 });
        assert_eq!(queue.waiting(), 0.0);
        assert_eq!(queue.second(5, 7.0, 2.0, 0), Served { done: 2.0, lost: 5.0 });
    }

    proptest! {
        #[test]
        fn nothing_is_made_and_nothing_vanishes(
            seconds in prop::collection::vec((0.0f64..100.0, 0.0f64..100.0), 1..60), patience in 0i64..20,
        ) {
            let mut queue = Queue::default();
            let (mut came, mut went) = (0.0, 0.0);
            for (now, (arriving, capacity)) in seconds.iter().enumerate() {
                let served = queue.second(now as i64, *arriving, *capacity, patience);
                prop_assert!(served.done <= capacity + 1e-9 && served.done >= 0.0 && served.lost >= 0.0);
                came += arriving;
                went += served.done + served.lost;
                prop_assert!((came - went - queue.waiting()).abs() < 1e-6);
                prop_assert!(queue.arrived.len() as i64 <= patience, "one entry for each second of patience");
            }
        }
    }
}
