//! What was seen when something went wrong.

use crate::demand::Demand;
use crate::host::Host;
use std::time::{Duration, SystemTime};

/// What was being done when an error came; see `errors.rs` of the engine for the words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// `clone`, `fork`, threads.
    Process,
    /// `unshare`, `setns`.
    Namespace,
    /// Making a control group, or writing a limit to it.
    Cgroup,
    Mount,
    /// Links and addresses of replicas.
    Network,
    /// Files and folders of the host: logs, state, writable layers.
    Disk,
    /// `connect`, or `bind` to a port that the kernel chooses.
    Connect,
}

/// Everything that is known about a failure. All of it is optional: the more there is, the more can be told.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// Errors as they were printed, the first one first; what follows `hint:` is ignored.
    pub messages: Vec<String>,
    /// For errors that come without words.
    pub errno: Option<i32>,
    pub step: Option<Step>,
    /// Lines of the kernel's log that have come since `before`.
    pub kernel_log: Vec<String>,
    pub before: Option<Host>,
    pub after: Option<Host>,
    /// When `before` was.
    pub since: Option<SystemTime>,
    /// Replicas that ran at `before` and at `after`.
    pub replicas: Option<(u64, u64)>,
    /// How long the start of a replica took at `before` and at `after`.
    pub start: Option<(Duration, Duration)>,
    /// What was to run: says what would move the wall.
    pub demand: Option<Demand>,
}

/// Error numbers that walls have, from errno(3).
pub mod errno {
    pub const EAGAIN: i32 = 11;
    pub const ENOMEM: i32 = 12;
    pub const ENFILE: i32 = 23;
    pub const EMFILE: i32 = 24;
    pub const ENOSPC: i32 = 28;
    pub const EXFULL: i32 = 54;
    pub const EADDRNOTAVAIL: i32 = 99;
    pub const ENOBUFS: i32 = 105;
    pub const EDQUOT: i32 = 122;

    /// The number in a message in lower case.
    pub(crate) fn printed(message: &str) -> Option<i32> {
        let (_, rest) = message.rsplit_once("(os error ")?;
        rest.split(')').next()?.parse().ok()
    }

    /// Of a message in lower case: its number, or the words that the C library and others have for it.
    pub fn of(message: &str) -> Option<i32> {
        if let Some(number) = printed(message) {
            return Some(number);
        }
        const WORDS: [(&str, i32); 12] = [
            ("resource temporarily unavailable", EAGAIN),
            ("eagain", EAGAIN),
            ("cannot allocate memory", ENOMEM),
            ("too many open files in system", ENFILE),
            ("too many open files", EMFILE),
            ("no space left on device", ENOSPC),
            ("exchange full", EXFULL),
            ("cannot assign requested address", EADDRNOTAVAIL),
            ("eaddrnotavail", EADDRNOTAVAIL),
            ("no buffer space available", ENOBUFS),
            ("quota exceeded", EDQUOT),
            ("enospc", ENOSPC),
        ];
        WORDS.iter().find(|(words, _)| message.contains(words)).map(|(_, number)| *number)
    }
}

impl Step {
    /// Of a message in lower case.
    pub(crate) fn of(message: &str) -> Option<Step> {
        // Places of control groups come first: their files are written, and their folders made, like others.
        const WORDS: [(&[&str], Step); 20] = [
            (&["/sys/fs/cgroup"], Step::Cgroup),
            (&["cannot limit "], Step::Cgroup),
            (&["cannot make a process"], Step::Process),
            (&["threads that start replicas"], Step::Process),
            (&["pthread_create"], Step::Process),
            (&["fork"], Step::Process),
            (&["clone"], Step::Process),
            (&["cannot make a namespace"], Step::Namespace),
            (&["unshare"], Step::Namespace),
            (&["join the namespaces"], Step::Namespace),
            (&["cannot mount "], Step::Mount),
            (&["overlay mount"], Step::Mount),
            (&["cannot attach "], Step::Network),
            (&["set up its interfaces"], Step::Network),
            (&["cannot connect "], Step::Network),
            (&["cannot open "], Step::Disk),
            (&["cannot prepare "], Step::Disk),
            (&["cannot write "], Step::Disk),
            (&["connect"], Step::Connect),
            (&["dial tcp"], Step::Connect),
        ];
        WORDS.iter().find(|(words, _)| words.iter().all(|word| message.contains(word))).map(|(_, step)| *step)
    }
}

impl Evidence {
    /// Errors that were printed.
    pub fn of_messages<T: Into<String>>(messages: impl IntoIterator<Item = T>) -> Evidence {
        Evidence { messages: messages.into_iter().map(Into::into).collect(), ..Evidence::default() }
    }

    /// How much a counter has grown.
    pub(crate) fn growth(&self, counter: impl Fn(&Host) -> Option<u64>) -> u64 {
        let (Some(before), Some(after)) = (&self.before, &self.after) else { return 0 };
        match (counter(before), counter(after)) {
            (Some(before), Some(after)) => after.saturating_sub(before),
            _ => 0,
        }
    }

    /// As above, in words, with what it was and is.
    pub(crate) fn told_growth(&self, counter: impl Fn(&Host) -> Option<u64>) -> String {
        let read = |host: &Option<Host>| host.as_ref().and_then(&counter).unwrap_or(0);
        let (then, now) = (read(&self.before), read(&self.after));
        let since = self.since.map(|at| format!(" since {}", clock(at))).unwrap_or_default();
        format!("{} more{since} ({then} then, {now} now)", now.saturating_sub(then))
    }

    /// As above, of a counter that each control group has: the group that grew most.
    pub(crate) fn group_growth(
        &self,
        counter: impl Fn(&crate::Ancestor) -> Option<u64>,
    ) -> Option<(String, u64)> {
        let (before, after) = (self.before.as_ref()?, self.after.as_ref()?);
        let growth = |group: &crate::Ancestor| {
            let earlier = before.control.groups().find(|other| other.path == group.path)?;
            let grown = counter(group)?.checked_sub(counter(earlier)?)?;
            (grown > 0).then(|| (group.path.to_string_lossy().into_owned(), grown))
        };
        after.control.groups().filter_map(growth).max_by_key(|(_, grown)| *grown)
    }
}

/// The time of day: what is told is read soon, or with the date of the event that tells it.
fn clock(at: SystemTime) -> String {
    let seconds = at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    format!("{:02}:{:02}:{:02} UTC", seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_day_is_told() {
        assert_eq!(
            clock(SystemTime::UNIX_EPOCH + Duration::from_secs(86_400 + 15 * 3_600 + 62)),
            "15:01:02 UTC"
        );
    }
}
