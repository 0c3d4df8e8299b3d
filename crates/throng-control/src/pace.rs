//! How fast a crowd may come up, and how much its health checks may cost, so that neither storms the host.
//!
//! Replicas start in batches. The next batch begins once the last one is up and the host has settled: nobody waits for
//! a core that did not before, little waits for memory or the disk. Each settled batch doubles the next one; a host that does not settle in
//! time, or a start that fails, halves it. The smallest batch always goes on, so a busy host slows a crowd down but
//! never stops it.

use crate::Time;
use std::time::Duration;

/// Replicas for each core in the first batch, which waits for nothing.
const FIRST_PER_CORE: usize = 16;
/// Replicas for each core in the smallest batch.
const FEWEST_PER_CORE: usize = 8;
/// Replicas for each core in the largest batch: beyond it nothing is gained, and a bad surprise gets larger.
const MOST_PER_CORE: usize = 256;
/// How long a batch is waited for to settle before the next one begins all the same.
const PATIENCE: Duration = Duration::from_millis(500);

/// Tasks for each core that may want to run on a host that has settled, and how many more than before the crowd came.
const RUNNABLE: f64 = 1.0;
const RUNNABLE_MORE: f64 = 1.5;
/// Weight of the newest reading in what is usual.
const USUAL_WEIGHT: f64 = 0.3;
/// Share of the time in which somebody waited for memory or the disk, above which a host has not settled.
const MEMORY_PRESSURE: f64 = 0.10;
const DISK_PRESSURE: f64 = 0.50;

/// How pressed the host is.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Reading {
    /// Tasks that run or could run, the reader's own not counted, for each core.
    pub runnable: f64,
    /// Shares of the time since the last reading in which some task waited, 0 to 1 (`some` of the kernel's pressure
    /// stall information); 0 where the kernel does not tell.
    pub memory: f64,
    pub disk: f64,
}

impl Reading {
    /// Whether the host has come to rest, `usual` tasks for each core having been runnable before.
    pub fn settled(&self, usual: f64) -> bool {
        self.runnable <= (usual * RUNNABLE_MORE).max(RUNNABLE)
            && self.memory <= MEMORY_PRESSURE
            && self.disk <= DISK_PRESSURE
    }
}

/// Decides how many replicas may start now.
#[derive(Debug, Clone)]
pub struct Pace {
    cores: usize,
    batch: usize,
    /// Of the present batch, not begun yet.
    left: usize,
    failed: bool,
    /// When the present batch was up.
    up: Option<Time>,
    /// Runnable tasks for each core while nothing started.
    usual: f64,
}

impl Pace {
    pub fn new(cores: usize) -> Pace {
        let batch = FIRST_PER_CORE * cores.max(1);
        Pace { cores: cores.max(1), batch, left: batch, failed: false, up: None, usual: 0.0 }
    }

    /// How many may begin now, `under_way` having begun and not ended. Reads the host only where that decides.
    pub fn room(&mut self, under_way: usize, now: Time, read: impl FnOnce() -> Reading) -> usize {
        if self.left > 0 || under_way > 0 {
            return self.left;
        }
        let up = *self.up.get_or_insert(now);
        let settled = read().settled(self.usual);
        if !settled && now.saturating_sub(up) < PATIENCE {
            return 0;
        }
        let next = if settled && !self.failed { self.batch * 2 } else { self.batch / 2 };
        self.batch = next.clamp(FEWEST_PER_CORE * self.cores, MOST_PER_CORE * self.cores);
        (self.left, self.failed, self.up) = (self.batch, false, None);
        self.left
    }

    /// What the host is like while nothing starts: work that goes on anyway is no reason to wait.
    pub fn nothing_starts(&mut self, reading: &Reading) {
        self.usual += USUAL_WEIGHT * (reading.runnable - self.usual);
    }

    pub fn began(&mut self, count: usize) {
        self.left = self.left.saturating_sub(count);
    }

    pub fn ended(&mut self, well: bool) {
        self.failed |= !well;
    }

    /// Size of the present batch.
    pub fn batch(&self) -> usize {
        self.batch
    }
}

/// The most that one health check is taken to cost, however long it waits for its answer.
const DEAREST_CHECK: Duration = Duration::from_millis(5);
/// Checks are dear until some have been seen.
const FIRST_COST: Duration = Duration::from_millis(2);
/// Weight of the newest check in the mean cost: one of sixteen.
const SMOOTHING: u32 = 16;

/// Time of the host's cores that health checks of replicas that are known to be healthy or not may take. Those that
/// do not fit come late instead of starving what they are to look after.
#[derive(Debug, Clone)]
pub struct Budget {
    /// Core time that comes in with each second, and the most that is saved up.
    per_second: Duration,
    saved: Duration,
    at: Time,
    cost: Duration,
}

impl Budget {
    /// `share` of the time of `cores` cores, 0 to 1.
    pub fn new(cores: usize, share: f64) -> Budget {
        let per_second = Duration::from_secs(1).mul_f64(cores as f64 * share.clamp(0.0, 1.0));
        Budget { per_second, saved: per_second, at: Time::ZERO, cost: FIRST_COST }
    }

    /// How many checks may begin now.
    pub fn affordable(&mut self, now: Time) -> usize {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.at = now.max(self.at);
        self.saved = (self.saved + self.per_second.mul_f64(passed)).min(self.per_second);
        (self.saved.as_nanos() / self.cost.as_nanos().max(1)) as usize
    }

    pub fn began(&mut self, count: usize) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.saved = self.saved.saturating_sub(self.cost.saturating_mul(count));
    }

    /// A check has ended after this time.
    pub fn ended(&mut self, took: Duration) {
        let took = took.min(DEAREST_CHECK);
        self.cost = (self.cost * (SMOOTHING - 1) + took) / SMOOTHING;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALM: Reading = Reading { runnable: 0.5, memory: 0.0, disk: 0.0 };
    const BUSY: Reading = Reading { runnable: 9.0, memory: 0.0, disk: 0.0 };

    fn at(millis: u64) -> Time {
        Duration::from_millis(millis)
    }

    /// Lets a whole batch start well and returns how many the next one has.
    fn next(pace: &mut Pace, reading: Reading, now: Time) -> usize {
        let left = pace.room(0, now, || reading);
        pace.began(left);
        pace.room(0, now, || reading)
    }

    #[test]
    fn batches_double_while_the_host_is_calm() {
        let mut pace = Pace::new(2);
        assert_eq!(pace.room(0, at(0), || BUSY), 32, "the first batch waits for nothing");
        let sizes: Vec<usize> = (0..6).map(|_| next(&mut pace, CALM, at(0))).collect();
        assert_eq!(sizes, [64, 128, 256, 512, 512, 512]);
    }

    #[test]
    fn nobody_starts_until_the_batch_is_up_and_the_host_has_settled() {
        let mut pace = Pace::new(2);
        pace.began(32);
        assert_eq!(pace.room(1, at(0), || CALM), 0, "one is under way");
        assert_eq!(pace.room(0, at(10), || BUSY), 0);
        assert_eq!(pace.room(0, at(200), || CALM), 64);
    }

    #[test]
    fn a_host_that_stays_busy_slows_the_crowd_but_does_not_stop_it() {
        let mut pace = Pace::new(2);
        let mut sizes = Vec::new();
        for batch in 0..3 {
            pace.began(usize::MAX);
            assert_eq!(pace.room(0, at(1000 * batch), || BUSY), 0);
            sizes.push(pace.room(0, at(1000 * batch + 500), || BUSY));
        }
        assert_eq!(sizes, [16, 16, 16]);
    }

    #[test]
    fn a_failed_start_halves_the_next_batch() {
        let mut pace = Pace::new(2);
        assert_eq!(next(&mut pace, CALM, at(0)), 64);
        pace.ended(false);
        assert_eq!(next(&mut pace, CALM, at(0)), 32);
        assert_eq!(next(&mut pace, CALM, at(0)), 64, "and it is forgiven after that");
    }

    #[test]
    fn memory_and_disk_count_too() {
        assert!(CALM.settled(0.0));
        assert!(!Reading { memory: 0.2, ..CALM }.settled(0.0));
        assert!(!Reading { disk: 0.6, ..CALM }.settled(0.0));
    }

    #[test]
    fn work_that_goes_on_anyway_holds_nobody_up() {
        let mut pace = Pace::new(2);
        (0..20).for_each(|_| pace.nothing_starts(&BUSY));
        assert_eq!(next(&mut pace, BUSY, at(0)), 64);
        let busier = Reading { runnable: 2.0 * BUSY.runnable, ..BUSY };
        pace.began(usize::MAX);
        assert_eq!(pace.room(0, at(0), || busier), 0);
    }

    #[test]
    fn checks_take_their_share_and_no_more() {
        let mut budget = Budget::new(2, 0.25);
        let mut begun = 0;
        for millisecond in 0..10_000 {
            let count = budget.affordable(at(millisecond));
            budget.began(count);
            (0..count).for_each(|_| budget.ended(Duration::from_millis(4)));
            begun += count;
        }
        // Half a core's time for ten seconds, and what was saved up at the beginning, at 4 ms each.
        assert!((1250..1500).contains(&begun), "{begun}");
    }

    #[test]
    fn a_check_that_only_waits_does_not_eat_the_budget() {
        let mut budget = Budget::new(1, 0.25);
        (0..1000).for_each(|_| budget.ended(Duration::from_secs(30)));
        budget.began(usize::MAX);
        let each_second = budget.affordable(at(1000));
        assert!((45..=50).contains(&each_second), "{each_second}");
    }
}
