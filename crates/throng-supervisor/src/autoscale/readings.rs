//! What metrics-server would tell of one replica: CPU as the rate between two readings of its counter.

use std::time::{Duration, Instant};
use throng_model::replica::Statistics;

/// A replica younger than this is not told of after a single reading, however long readings are apart: what it uses in
/// its first moments says little. metrics-server has the same number for the 15 s between its readings; where they are
/// closer, two thirds of that time do.
const FRESH: Duration = Duration::from_secs(10);

/// The readings of one life of a replica.
#[derive(Debug, Clone)]
pub struct Readings {
    generation: u64,
    at: Instant,
    cpu: Duration,
    pub usage: Option<Usage>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Usage {
    /// The end of the time that was measured.
    pub at: Instant,
    pub window: Duration,
    /// Billionths of a core.
    pub cpu: i64,
    /// Bytes.
    pub memory: u64,
}

impl Readings {
    /// Adds a reading that was taken at `at` of a replica that had started `age` before. `resolution` is the time between
    /// two readings.
    pub fn next(
        last: Option<Readings>,
        generation: u64,
        at: Instant,
        statistics: &Statistics,
        age: Option<Duration>,
        resolution: Duration,
    ) -> Readings {
        let cpu = statistics.cpu;
        let last = last.filter(|last| last.generation == generation && last.cpu <= cpu);
        let since = match last {
            Some(last) => Some((last.cpu, at.saturating_duration_since(last.at))),
            // Its counter began at zero when it did.
            None => age
                .filter(|age| (FRESH.min(resolution * 2 / 3)..=resolution).contains(age))
                .map(|age| (Duration::ZERO, age)),
        };
        let usage = since.filter(|(_, window)| !window.is_zero()).map(|(before, window)| Usage {
            at,
            window,
            cpu: (cpu.saturating_sub(before).as_secs_f64() / window.as_secs_f64() * 1e9) as i64,
            memory: working_set(statistics),
        });
        Readings { generation, at, cpu, usage }
    }
}

/// What a kubelet calls the working set: memory that the kernel cannot drop as it likes. Where only the whole is known
/// that has to do.
fn working_set(statistics: &Statistics) -> u64 {
    match statistics.memory_unreclaimable {
        0 => statistics.memory,
        unreclaimable => unreclaimable,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(cpu_ms: u64) -> Statistics {
        let cpu = Duration::from_millis(cpu_ms);
        Statistics { cpu, memory: 9 << 20, memory_unreclaimable: 4 << 20, ..Statistics::default() }
    }

    #[test]
    fn cpu_is_a_rate_over_the_last_window() {
        let (begin, resolution) = (Instant::now(), Duration::from_secs(15));
        let old = Some(Duration::from_secs(100));
        let first = Readings::next(None, 1, begin, &used(1_000), old, resolution);
        assert_eq!(first.usage, None, "one reading has no rate");
        let at = begin + resolution;
        let second = Readings::next(Some(first), 1, at, &used(2_500), old, resolution);
        let usage = second.usage.expect("a rate");
        assert_eq!((usage.at, usage.window, usage.cpu), (at, resolution, 100_000_000));
        assert_eq!(usage.memory, 4 << 20);
        // Another life: what the earlier one used is no matter.
        let again = Readings::next(Some(second.clone()), 2, at + resolution, &used(10), old, resolution);
        assert_eq!(again.usage, None);
        let restarted = Readings::next(Some(second), 1, at + resolution, &used(10), old, resolution);
        assert_eq!(restarted.usage, None);
    }

    #[test]
    fn a_young_replica_is_told_of_from_its_start_once_it_is_old_enough() {
        let at = Instant::now();
        let of = |age: f64, resolution: u64| {
            let age = Some(Duration::from_secs_f64(age));
            Readings::next(None, 1, at, &used(1_000), age, Duration::from_secs(resolution)).usage
        };
        assert_eq!(of(9.9, 15), None);
        assert_eq!(
            of(10.0, 15).map(|usage| (usage.window, usage.cpu)),
            Some((Duration::from_secs(10), 100_000_000))
        );
        assert_eq!(of(15.1, 15), None);
        assert_eq!(of(0.4, 1), None);
        assert!(of(0.7, 1).is_some());
    }
}
