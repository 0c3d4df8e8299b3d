//! When to probe a replica next, and what the result of a probe changes.
//!
//! The rules are Compose's, with one difference that only makes start-up faster: until the first success, probes
//! come in quick succession (50 ms doubling up to `start_interval`) instead of waiting a whole interval. A failure
//! counts only from the time at which Compose would have probed for the first time.
//!
//! Three questions may be put to a replica, which are Kubernetes': whether it has started up, whether it can be given
//! work, and whether it lives at all. Until it has started up the other two are not asked. One that has not started up
//! in time, or does not live any more, is ended, and its restart rule says what comes then.

use crate::Time;
use std::fmt;
use std::time::Duration;
use throng_model::app::HealthCheck;

/// The first pause between probes of a replica that has not been healthy yet.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Status {
    #[default]
    Starting,
    Healthy,
    Unhealthy,
}

/// Everything that a service's definition says about questions to its replicas.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Checks {
    pub startup: Option<HealthCheck>,
    pub readiness: Option<HealthCheck>,
    pub liveness: Option<HealthCheck>,
}

impl Checks {
    pub fn of(&self, question: Question) -> Option<&HealthCheck> {
        match question {
            Question::Startup => self.startup.as_ref(),
            Question::Readiness => self.readiness.as_ref(),
            Question::Liveness => self.liveness.as_ref(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Question {
    Startup,
    Readiness,
    Liveness,
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Question::Startup => "startup check",
            Question::Readiness => "health check",
            Question::Liveness => "liveness check",
        })
    }
}

/// What is known of one replica's health. A fresh one is made at each start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Health {
    pub status: Status,
    /// Counted failures since the last success.
    pub failures: u32,
    /// Probes that ended since the start.
    pub probes: u32,
    /// When the last probe ended.
    pub last: Option<Time>,
}

impl Health {
    /// When the next probe of a replica that started at `since` is due.
    pub fn next_probe(&self, check: &HealthCheck, since: Time) -> Time {
        let Some(last) = self.last else { return since };
        let pause = match self.status {
            Status::Starting => {
                let quick = FIRST_PAUSE.saturating_mul(1 << self.probes.saturating_sub(1).min(10));
                quick.min(check.start_interval).min(check.interval)
            }
            Status::Healthy | Status::Unhealthy => check.interval,
        };
        last + pause.max(FIRST_PAUSE)
    }

    /// The state after a probe that ended at `now`.
    pub fn after_probe(mut self, check: &HealthCheck, since: Time, success: bool, now: Time) -> Health {
        self.probes = self.probes.saturating_add(1);
        self.last = Some(now);
        if success {
            self.failures = 0;
            self.status = Status::Healthy;
            return self;
        }
        let counted_from = since + check.start_period.max(check.interval);
        if self.status == Status::Starting && now < counted_from {
            return self;
        }
        self.failures = self.failures.saturating_add(1);
        // Quick early probes must not use up the retries faster than Compose's interval would.
        let due = counted_from + check.interval.saturating_mul(check.retries.saturating_sub(1));
        let patient = self.status != Status::Starting || now >= due;
        if self.failures >= check.retries.max(1) && patient {
            self.status = Status::Unhealthy;
        }
        self
    }
}

/// Liveness: asked at a steady pace, and every failure counts.
impl Health {
    /// When the next question is due of a replica that has started up at `since`. Who asks sooner than a kubelet would
    /// ends what only starts slowly.
    pub fn next_liveness(&self, check: &HealthCheck, since: Time) -> Time {
        let first = || since + check.start_period.max(check.interval);
        self.last.map_or_else(first, |last| last + check.interval).max(since + FIRST_PAUSE)
    }

    /// The state after a question that ended at `now`. Unhealthy is for good: the replica is ended then.
    pub fn after_liveness(mut self, check: &HealthCheck, success: bool, now: Time) -> Health {
        self.probes = self.probes.saturating_add(1);
        self.last = Some(now);
        self.failures = if success { 0 } else { self.failures.saturating_add(1) };
        if self.failures >= check.retries.max(1) {
            self.status = Status::Unhealthy;
        } else if success && self.status == Status::Starting {
            self.status = Status::Healthy;
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use throng_model::app::HealthTest;

    fn check() -> HealthCheck {
        HealthCheck {
            test: HealthTest::Shell("true".into()),
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(1),
            retries: 3,
            start_period: Duration::ZERO,
            start_interval: Duration::from_secs(5),
        }
    }

    fn at(seconds: u64) -> Time {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_first_probe_is_at_once_and_the_next_ones_slow_down() {
        let mut health = Health::default();
        assert_eq!(health.next_probe(&check(), at(7)), at(7));
        let mut pauses = Vec::new();
        let mut now = at(0);
        for _ in 0..9 {
            health = health.after_probe(&check(), at(0), false, now);
            let next = health.next_probe(&check(), at(0));
            pauses.push((next - now).as_millis());
            now = next;
        }
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    }

    #[test]
    fn one_success_makes_it_healthy_and_the_interval_holds_from_then() {
        let health = Health::default().after_probe(&check(), at(0), true, at(1));
        assert_eq!(health.status, Status::Healthy);
        assert_eq!(health.next_probe(&check(), at(0)), at(11));
    }

    #[test]
    fn early_failures_do_not_count_and_later_ones_need_all_retries() {
        let mut health = Health::default();
        for second in 0..10 {
            health = health.after_probe(&check(), at(0), false, at(second));
        }
        assert_eq!((health.status, health.failures), (Status::Starting, 0));
        for second in [10, 20, 29] {
            health = health.after_probe(&check(), at(0), false, at(second));
            assert_eq!(health.status, Status::Starting, "at {second}");
        }
        health = health.after_probe(&check(), at(0), false, at(30));
        assert_eq!(health.status, Status::Unhealthy);
    }

    #[test]
    fn liveness_is_asked_at_a_steady_pace_after_the_start_period() {
        let mut check = check();
        let mut health = Health::default();
        assert_eq!(health.next_liveness(&check, at(7)), at(17), "one interval after the start");
        check.start_period = Duration::from_secs(25);
        assert_eq!(health.next_liveness(&check, at(7)), at(32));
        for (second, success, status) in [
            (32, true, Status::Healthy),
            (42, false, Status::Healthy),
            (52, false, Status::Healthy),
            (62, true, Status::Healthy),
            (72, false, Status::Healthy),
            (82, false, Status::Healthy),
            (92, false, Status::Unhealthy),
            (102, true, Status::Unhealthy),
        ] {
            assert_eq!(health.next_liveness(&check, at(7)), at(second));
            health = health.after_liveness(&check, success, at(second));
            assert_eq!(health.status, status, "at {second}");
        }
    }

    #[test]
    fn a_replica_that_never_lives_is_known_after_all_retries() {
        let mut health = Health::default();
        for second in [10, 20] {
            health = health.after_liveness(&check(), false, at(second));
            assert_eq!(health.status, Status::Starting);
        }
        assert_eq!(health.after_liveness(&check(), false, at(30)).status, Status::Unhealthy);
    }

    #[test]
    fn a_healthy_replica_needs_three_failures_to_fall_and_one_success_to_rise() {
        let mut health = Health::default().after_probe(&check(), at(0), true, at(1));
        for (second, status) in [(11, Status::Healthy), (21, Status::Healthy), (31, Status::Unhealthy)] {
            health = health.after_probe(&check(), at(0), false, at(second));
            assert_eq!(health.status, status, "at {second}");
        }
        assert_eq!(health.after_probe(&check(), at(0), true, at(41)).status, Status::Healthy);
    }
}
