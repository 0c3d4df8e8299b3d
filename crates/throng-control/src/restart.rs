//! Whether and when an ended replica starts again.
//!
//! Without other words it is Kubernetes' crash-loop rule: the first restart is immediate, then 10 s doubling up to
//! 5 min, and a replica that ran for 10 min starts counting afresh. `x-throng.restart` gives other figures;
//! `deploy.restart_policy.delay` alone asks for Swarm's constant pause.

use std::time::Duration;
use throng_model::app::{RestartPolicy, Service};
use throng_model::update::{BackOff, RestartPace};

/// The shortest pause that a `delay` stands for: a replica that ends at once must not be all that the host does.
pub const LEAST_DELAY: Duration = Duration::from_millis(100);

/// Everything about restarts that a service's definition says.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Rule {
    pub policy: RestartPolicy,
    pub pace: RestartPace,
}

/// What counts against a replica's next start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tries {
    /// Restarts since the last run that was long enough to forget them: makes pauses longer.
    pub streak: u32,
    /// Restarts since the last one that counts as a success: compared with the most attempts.
    pub attempts: u32,
}

impl Tries {
    pub fn another(self) -> Tries {
        Tries { streak: self.streak.saturating_add(1), attempts: self.attempts.saturating_add(1) }
    }
}

impl From<RestartPolicy> for Rule {
    fn from(policy: RestartPolicy) -> Rule {
        Rule { policy, pace: RestartPace::default() }
    }
}

impl From<&Service> for Rule {
    fn from(service: &Service) -> Rule {
        Rule { policy: service.restart, pace: service.restart_pace }
    }
}

impl Rule {
    /// How long to wait before the next start, or `None` when the replica stays down. `success`: it has done its work.
    pub fn delay(&self, success: bool, tries: Tries) -> Option<Duration> {
        let (again, most) = match self.policy {
            RestartPolicy::No => (false, None),
            RestartPolicy::Always | RestartPolicy::UnlessStopped => (true, None),
            RestartPolicy::OnFailure(most) => (!success, most),
        };
        let most = most.into_iter().chain(self.pace.max_attempts).min();
        (again && most.is_none_or(|most| tries.attempts < most)).then(|| self.pause(tries.streak))
    }

    /// The pause after a start that failed, which counts like a crash soon after.
    pub fn after_failed_start(&self, tries: Tries) -> Duration {
        self.pause(tries.streak.max(1))
    }

    /// The pause before restart number `streak + 1`.
    fn pause(&self, streak: u32) -> Duration {
        let constant = self.pace.delay.filter(|delay| !delay.is_zero()).map(|delay| delay.max(LEAST_DELAY));
        match (constant, self.pace.back_off) {
            (Some(delay), None) => delay,
            (Some(delay), Some(back_off)) => pause(&back_off, streak).max(delay),
            (None, back_off) => pause(&back_off.unwrap_or_default(), streak),
        }
    }

    /// What counts against a replica that has just ended after running for `ran`.
    pub fn after_run(&self, tries: Tries, ran: Duration) -> Tries {
        let reset = self.pace.back_off.unwrap_or_default().reset;
        let window = self.pace.window.filter(|window| !window.is_zero()).unwrap_or(reset);
        Tries {
            streak: if ran >= reset { 0 } else { tries.streak },
            attempts: if ran >= window { 0 } else { tries.attempts },
        }
    }
}

fn pause(back_off: &BackOff, streak: u32) -> Duration {
    let Some(times) = streak.checked_sub(1) else { return Duration::ZERO };
    let seconds = back_off.initial.as_secs_f64() * back_off.factor.max(1.0).powf(f64::from(times));
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX).min(back_off.max)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINE: bool = true;
    const BAD: bool = false;

    fn tries(n: u32) -> Tries {
        Tries { streak: n, attempts: n }
    }

    fn pauses(rule: Rule, most: u32) -> Vec<u64> {
        (0..most).map(|n| rule.pause(n).as_millis() as u64).collect()
    }

    #[test]
    fn back_off_doubles_to_five_minutes() {
        let rule = Rule::default();
        assert_eq!(pauses(rule, 8), [0, 10_000, 20_000, 40_000, 80_000, 160_000, 300_000, 300_000]);
        assert_eq!(rule.pause(u32::MAX), Duration::from_secs(300));
        assert_eq!(rule.after_failed_start(Tries::default()), Duration::from_secs(10));
    }

    #[test]
    fn back_off_and_delay_can_be_given() {
        let second = Duration::from_secs(1);
        let back_off = BackOff { initial: second, factor: 3.0, max: 10 * second, reset: 60 * second };
        let mut rule = Rule::from(RestartPolicy::Always);
        rule.pace.back_off = Some(back_off);
        assert_eq!(pauses(rule, 5), [0, 1_000, 3_000, 9_000, 10_000]);
        rule.pace.delay = Some(2 * second);
        assert_eq!(
            pauses(rule, 5),
            [2_000, 2_000, 3_000, 9_000, 10_000],
            "delay is the least pause beside it"
        );
        rule.pace.back_off = None;
        assert_eq!(pauses(rule, 5), [2_000; 5], "alone it is the pause");
        rule.pace.delay = Some(Duration::from_nanos(1));
        assert_eq!(pauses(rule, 2), [100; 2]);
        rule.pace.delay = Some(Duration::ZERO);
        assert_eq!(pauses(rule, 3), [0, 10_000, 20_000], "no delay is no reason to storm the host");
    }

    #[test]
    fn policies() {
        let delay = |policy: RestartPolicy, exit, n| Rule::from(policy).delay(exit, tries(n));
        assert_eq!(delay(RestartPolicy::No, BAD, 0), None);
        assert_eq!(delay(RestartPolicy::Always, FINE, 1), Some(Duration::from_secs(10)));
        assert_eq!(delay(RestartPolicy::OnFailure(None), FINE, 0), None);
        assert_eq!(delay(RestartPolicy::OnFailure(Some(2)), BAD, 1), Some(Duration::from_secs(10)));
        assert_eq!(delay(RestartPolicy::OnFailure(Some(2)), BAD, 2), None);
        let mut rule = Rule::from(RestartPolicy::Always);
        rule.pace.max_attempts = Some(1);
        assert_eq!(rule.delay(FINE, tries(0)), Some(Duration::ZERO));
        assert_eq!(rule.delay(FINE, tries(1)), None, "any condition has an end, too, if one is asked for");
    }

    #[test]
    fn a_long_clean_run_forgives() {
        let mut rule = Rule::default();
        let (reset, less) = (Duration::from_secs(600), Duration::from_secs(599));
        assert_eq!(rule.after_run(tries(5), reset), tries(0));
        assert_eq!(rule.after_run(tries(5), less), tries(5));
        rule.pace.window = Some(Duration::from_secs(5));
        let after = rule.after_run(tries(5), Duration::from_secs(5));
        assert_eq!(after, Tries { streak: 5, attempts: 0 }, "a success as attempts go is still a crash");
    }
}
