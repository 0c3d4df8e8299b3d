//! Waiting: to the microsecond for send times, cheaply for time limits.

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use std::future::Future;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::io::unix::AsyncFd;

/// Closer than this, giving way to other tasks and looking at the clock again is quicker than a timer.
const SPIN: Duration = Duration::from_micros(20);

/// A timer of the kernel (timerfd_create(2)). tokio's own sleeps end at whole milliseconds, which would add up
/// to one to every latency of an open loop.
pub(crate) struct PreciseTimer {
    descriptor: AsyncFd<OwnedFd>,
}

impl PreciseTimer {
    pub fn new() -> io::Result<PreciseTimer> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let descriptor = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
        #[allow(deprecated)] // its successor is unsafe; what that wants promised holds for every OwnedFd
        let descriptor = AsyncFd::with_interest(descriptor, tokio::io::Interest::READABLE)?;
        Ok(PreciseTimer { descriptor })
    }

    /// Returns at `due`, or at once if that is past.
    pub async fn until(&self, due: Instant) -> io::Result<()> {
        loop {
            let left = due.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            if left <= SPIN {
                tokio::task::yield_now().await;
                continue;
            }
            let value = Timespec {
                tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            };
            let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
            rustix::time::timerfd_settime(self.descriptor.get_ref(), TimerfdTimerFlags::empty(), &once)?;
            // Setting the timer again resets its count, so it need not be read; what may be left over from
            // before only means one more turn.
            self.descriptor.readable().await?.clear_ready();
        }
    }
}

/// A time limit that is moved for every request and seldom reached. The sleep underneath is not moved along:
/// when it ends early, it is set again for what the limit is by then.
#[derive(Debug)]
pub(crate) struct Deadline {
    sleep: Pin<Box<tokio::time::Sleep>>,
    at: Instant,
}

/// The time limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Elapsed;

impl Deadline {
    pub fn new(at: Instant) -> Deadline {
        Deadline { sleep: Box::pin(tokio::time::sleep_until(at.into())), at }
    }

    /// Moves the limit; it must not move backwards.
    pub fn set(&mut self, at: Instant) {
        self.at = at;
    }

    /// The future's outcome, unless the limit comes first.
    pub async fn guard<F: Future>(&mut self, future: F) -> Result<F::Output, Elapsed> {
        let mut future = pin!(future);
        std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending => self.poll(cx).map(|()| Err(Elapsed)),
        })
        .await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            std::task::ready!(self.sleep.as_mut().poll(cx));
            if Instant::now() >= self.at {
                return Poll::Ready(());
            }
            self.sleep.as_mut().reset(self.at.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_precise_timer_is_never_early() {
        let timer = PreciseTimer::new().expect("a timer");
        for micros in [0, 5, 50, 300, 1_500, 20_000] {
            let due = Instant::now() + Duration::from_micros(micros);
            timer.until(due).await.expect("waited");
            assert!(Instant::now() >= due);
        }
    }

    #[tokio::test]
    async fn a_deadline_holds_after_it_was_moved() {
        let begin = Instant::now();
        let mut deadline = Deadline::new(begin + Duration::from_millis(5));
        deadline.set(begin + Duration::from_millis(60));
        assert_eq!(deadline.guard(std::future::pending::<()>()).await, Err(Elapsed));
        assert!(begin.elapsed() >= Duration::from_millis(60));
        deadline.set(Instant::now() + Duration::from_millis(500));
        assert_eq!(deadline.guard(async { 1 }).await, Ok(1));
    }
}
