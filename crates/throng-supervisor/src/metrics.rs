//! What the supervisor counts for whoever watches the app: totals of each service, and of its own work.
//!
//! The number of time series is bounded: a fixed number for each service, and for each of as many replicas as the asker
//! wants at most. Totals belong to services, so that they do not fall when a replica leaves.

pub mod exposition;
mod text;

pub use text::{Bounds, Head, Row, text};

use crate::host;
use exposition::Histogram;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use throng_model::replica::{Pressure, Statistics};

/// Upper bounds in seconds. A start takes milliseconds on a calm host.
const START_BOUNDS: &[f64] = &[0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0];
const PLAN_BOUNDS: &[f64] = &[0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5];
const READING_BOUNDS: &[f64] = &[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0];

/// Totals since this supervisor began.
#[derive(Debug)]
pub struct Metrics {
    pub services: BTreeMap<String, Totals>,
    /// From the order to make a replica until its process runs.
    pub starts: Histogram,
    /// Time that one plan took, with what followed from it at once.
    pub plans: Histogram,
    /// Time that reading all running replicas took.
    pub readings: Histogram,
}

#[derive(Debug, Clone, Default)]
pub struct Totals {
    pub started: u64,
    pub not_started: u64,
    pub restarts: u64,
    pub checks_passed: u64,
    pub checks_failed: u64,
    pub used: Used,
}

/// Sums of what replicas used, those that have left included.
#[derive(Debug, Clone, Copy, Default)]
pub struct Used {
    pub cpu: Duration,
    pub received: u64,
    pub sent: u64,
    pub storage_read: u64,
    pub storage_written: u64,
    /// Nothing until some replica's is known.
    pub pressure: Option<Pressure>,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics {
            services: BTreeMap::new(),
            starts: Histogram::new(START_BOUNDS),
            plans: Histogram::new(PLAN_BOUNDS),
            readings: Histogram::new(READING_BOUNDS),
        }
    }
}

impl Metrics {
    pub fn service(&mut self, name: &str) -> &mut Totals {
        self.services.entry(name.to_owned()).or_default()
    }

    pub fn launched(&mut self, service: &str, took: Duration, well: bool, again: bool) {
        let totals = self.service(service);
        totals.restarts += u64::from(again && well);
        match well {
            true => {
                totals.started += 1;
                self.starts.observe(took.as_secs_f64());
            }
            false => totals.not_started += 1,
        }
    }

    pub fn checked(&mut self, service: &str, well: bool) {
        let totals = self.service(service);
        match well {
            true => totals.checks_passed += 1,
            false => totals.checks_failed += 1,
        }
    }
}

impl Used {
    /// Adds what one replica has used since `old`. A life that began in between counts from zero.
    pub fn add(&mut self, old: &Statistics, new: &Statistics) {
        let restarted = new.cpu < old.cpu;
        let old = if restarted { &Statistics::default() } else { old };
        let grown = |old: Option<u64>, new: Option<u64>| new.unwrap_or(0).saturating_sub(old.unwrap_or(0));
        self.cpu += new.cpu.saturating_sub(old.cpu);
        self.received += new.network_received.saturating_sub(old.network_received);
        self.sent += new.network_sent.saturating_sub(old.network_sent);
        self.storage_read += grown(old.storage_read, new.storage_read);
        self.storage_written += grown(old.storage_written, new.storage_written);
        if let Some(new) = new.pressure {
            let old = old.pressure.unwrap_or_default();
            let sum = self.pressure.get_or_insert_default();
            sum.cpu += new.cpu.saturating_sub(old.cpu);
            sum.memory += new.memory.saturating_sub(old.memory);
            sum.storage += new.storage.saturating_sub(old.storage);
        }
    }
}

/// The last two readings of one replica, and the rates between them.
#[derive(Debug, Clone, Copy)]
pub struct Meter {
    at: Instant,
    pub statistics: Statistics,
    /// Cores in use.
    pub cpu: f64,
    /// Bytes a second, between the last two times that these counters were read.
    pub received: f64,
    pub sent: f64,
}

impl Meter {
    /// The first reading: says what was used since the start, which is better than nothing in a listing.
    pub fn first(at: Instant, statistics: Statistics, ran: Option<Duration>) -> Meter {
        let cpu = ran.map_or(0.0, |ran| statistics.cpu.as_secs_f64() / ran.as_secs_f64().max(1e-3));
        Meter { at, statistics, cpu, received: 0.0, sent: 0.0 }
    }

    pub fn next(&self, at: Instant, new: Statistics) -> Meter {
        let (old, seconds) = (&self.statistics, seconds(self.at, at));
        let cpu = new.cpu.saturating_sub(old.cpu).as_secs_f64() / seconds;
        // Not everything is read each time: what was read only once in between has no rate of its own yet.
        let (then, now) = (self.at.checked_sub(old.age), at.checked_sub(new.age));
        let apart =
            then.zip(now).map_or(seconds, |(then, now)| now.saturating_duration_since(then).as_secs_f64());
        let read_anew = apart > f64::max(1e-3, seconds / 1e3);
        // A restarted replica's counters begin again; that is no negative rate.
        let rate = |old: u64, new: u64| new.saturating_sub(old) as f64 / apart;
        let (received, sent) = match read_anew {
            true => {
                (rate(old.network_received, new.network_received), rate(old.network_sent, new.network_sent))
            }
            false => (self.received, self.sent),
        };
        Meter { at, statistics: new, cpu, received, sent }
    }

    /// How old all but the CPU time is by now.
    pub fn age(&self) -> Duration {
        self.at.elapsed() + self.statistics.age
    }
}

fn seconds(then: Instant, now: Instant) -> f64 {
    now.saturating_duration_since(then).as_secs_f64().max(1e-3)
}

/// What the kernel says of this process and this host; nothing where it does not.
pub struct Own {
    pub cpu: Duration,
    pub resident: Option<u64>,
    pub descriptors: Option<usize>,
    pub pressure: Option<Pressure>,
}

impl Own {
    pub fn read() -> Own {
        let clock = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let statm = std::fs::read_to_string("/proc/self/statm").ok();
        let pages = statm.and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok());
        Own {
            cpu: Duration::new(clock.tv_sec.unsigned_abs(), u32::try_from(clock.tv_nsec).unwrap_or(0)),
            resident: pages.map(|pages| pages * rustix::param::page_size() as u64),
            descriptors: std::fs::read_dir("/proc/self/fd").ok().map(Iterator::count),
            pressure: host::pressure(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(cpu_ms: u64, received: u64, age: Duration) -> Statistics {
        let cpu = Duration::from_millis(cpu_ms);
        Statistics { cpu, network_received: received, age, ..Statistics::default() }
    }

    #[test]
    fn rates_are_over_the_time_between_what_was_read() {
        let (begin, second) = (Instant::now(), Duration::from_secs(1));
        let none = Duration::ZERO;
        let first = Meter::first(begin, reading(500, 1000, none), Some(second));
        assert_eq!((first.cpu, first.received), (0.5, 0.0));
        let next = first.next(begin + second, reading(600, 3000, none));
        assert!((next.cpu - 0.1).abs() < 1e-9 && (next.received - 2000.0).abs() < 1e-6, "{next:?}");
        // Only the CPU counter is read anew: the other rate stays what it was.
        let idle = next.next(begin + 2 * second, reading(1600, 3000, second));
        assert!((idle.cpu - 1.0).abs() < 1e-9 && (idle.received - 2000.0).abs() < 1e-6, "{idle:?}");
        // Read again after two seconds: so much in these two.
        let again = idle.next(begin + 3 * second, reading(1600, 3500, none));
        assert!((again.received - 250.0).abs() < 1e-6 && again.cpu == 0.0, "{again:?}");
        let restarted = again.next(begin + 4 * second, reading(10, 5, none));
        assert_eq!((restarted.cpu, restarted.received), (0.0, 0.0));
    }

    #[test]
    fn totals_do_not_fall_when_a_replica_begins_again() {
        let mut used = Used::default();
        let (none, first) = (Statistics::default(), reading(500, 1000, Duration::ZERO));
        used.add(&none, &first);
        used.add(&first, &reading(700, 1000, Duration::ZERO));
        used.add(&reading(700, 1000, Duration::ZERO), &reading(50, 200, Duration::ZERO));
        assert_eq!((used.cpu, used.received), (Duration::from_millis(750), 1200));
        assert!(used.pressure.is_none(), "never invented");
        let pressed = Statistics { pressure: Some(Pressure::default()), ..first };
        used.add(&first, &pressed);
        assert_eq!(used.pressure, Some(Pressure::default()));
    }

    #[test]
    fn starts_are_counted_by_how_they_ended() {
        let mut metrics = Metrics::default();
        metrics.launched("web", Duration::from_millis(3), true, false);
        metrics.launched("web", Duration::from_millis(3), true, true);
        metrics.launched("web", Duration::from_millis(3), false, true);
        metrics.checked("web", true);
        metrics.checked("web", false);
        let web = &metrics.services["web"];
        assert_eq!((web.started, web.not_started, web.restarts), (2, 1, 1));
        assert_eq!((web.checks_passed, web.checks_failed), (1, 1));
    }
}
