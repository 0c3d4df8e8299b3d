//! Whether and when an ended replica starts again.
//!
//! Kubernetes' crash-loop rule: the first restart is immediate, then 10 s doubling up to 5 min, and a replica that
//! ran cleanly for 10 min starts counting afresh.

use std::time::Duration;
use throng_model::app::RestartPolicy;
use throng_model::replica::Exit;

pub const BACK_OFF_FIRST: Duration = Duration::from_secs(10);
pub const BACK_OFF_MOST: Duration = Duration::from_secs(300);
pub const RESET_AFTER: Duration = Duration::from_secs(600);

/// How long to wait before the next start, or `None` when the replica stays down.
///
/// `streak` counts the restarts since the last clean run (see [`streak_after`]).
pub fn delay(policy: RestartPolicy, exit: Exit, streak: u32) -> Option<Duration> {
    let again = match policy {
        RestartPolicy::No => false,
        RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
        RestartPolicy::OnFailure(most) => !exit.is_success() && most.is_none_or(|most| streak < most),
    };
    again.then(|| back_off(streak))
}

/// The pause before restart number `streak + 1`.
pub fn back_off(streak: u32) -> Duration {
    match streak {
        0 => Duration::ZERO,
        n => BACK_OFF_FIRST.saturating_mul(1 << (n - 1).min(16)).min(BACK_OFF_MOST),
    }
}

/// The streak that counts for a replica that has just ended after running for `ran`.
pub fn streak_after(streak: u32, ran: Duration) -> u32 {
    if ran >= RESET_AFTER { 0 } else { streak }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_doubles_to_five_minutes() {
        let seconds: Vec<u64> = (0..8).map(|n| back_off(n).as_secs()).collect();
        assert_eq!(seconds, [0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(back_off(u32::MAX), BACK_OFF_MOST);
    }

    #[test]
    fn policies() {
        let (fine, bad) = (Exit::Code { code: 0 }, Exit::OutOfMemory);
        assert_eq!(delay(RestartPolicy::No, bad, 0), None);
        assert_eq!(delay(RestartPolicy::Always, fine, 1), Some(BACK_OFF_FIRST));
        assert_eq!(delay(RestartPolicy::OnFailure(None), fine, 0), None);
        assert_eq!(delay(RestartPolicy::OnFailure(Some(2)), bad, 1), Some(BACK_OFF_FIRST));
        assert_eq!(delay(RestartPolicy::OnFailure(Some(2)), bad, 2), None);
    }

    #[test]
    fn a_long_clean_run_forgives() {
        assert_eq!(streak_after(5, RESET_AFTER), 0);
        assert_eq!(streak_after(5, RESET_AFTER - Duration::from_secs(1)), 5);
    }
}
