//! When the runs of a job begin: five fields as in crontab(5), in a time zone, or a constant pause.
//!
//! Times are those of the host's clock, as durations since the epoch of Unix. Whoever parses a schedule has the time zone
//! database of the host read; all else is arithmetic.

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};
use std::time::Duration;

/// The shortest pause of `@every`: a job that ends at once must not be all that the host does.
pub const EVERY_LEAST: Duration = Duration::from_secs(1);
const EVERY: &str = "@every";

/// Times without end.
#[derive(Debug, Clone)]
pub enum Timetable {
    /// So long after the time before; the first one so long after the job was defined.
    Every(Duration),
    Cron {
        cron: Box<Cron>,
        zone: TimeZone,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    #[error("{0:?} is no schedule: {1}")]
    Malformed(String, String),
    #[error("the schedule {0:?} never comes")]
    Never(String),
    #[error("{0:?} is shorter than {EVERY_LEAST:?}")]
    TooOften(String),
    #[error("no time zone {0:?} is known on this host")]
    Zone(String),
}

impl ScheduleError {
    pub fn hint(&self) -> &'static str {
        match self {
            ScheduleError::Malformed(..) => {
                "write minute, hour, day of the month, month and weekday as in \"*/5 8-18 * * mon-fri\", @hourly, or @every \
                 30s"
            }
            ScheduleError::Never(_) => "no month has such a day",
            ScheduleError::TooOften(_) => "write @every 1s, or a longer time",
            ScheduleError::Zone(_) => {
                "write a name such as Europe/Vienna; the host's are in /usr/share/zoneinfo (Debian: tzdata)"
            }
        }
    }
}

impl Timetable {
    /// `zone`: a name of the IANA database, UTC if `None`.
    ///
    /// # Errors
    /// For a text that is none, and for a time that never comes, such as the 30th of February.
    pub fn parse(text: &str, zone: Option<&str>) -> Result<Timetable, ScheduleError> {
        let malformed = |why: &str| ScheduleError::Malformed(text.to_owned(), why.to_owned());
        let text_only = text.trim();
        if let Some(rest) = text_only.strip_prefix(EVERY).filter(|rest| rest.starts_with(char::is_whitespace))
        {
            let pause = throng_model::units::parse_duration(rest.trim());
            let pause = pause.map_err(|error| malformed(&error.to_string()))?;
            return match pause >= EVERY_LEAST {
                true => Ok(Timetable::Every(pause)),
                false => Err(ScheduleError::TooOften(text.to_owned())),
            };
        }
        let zone = match zone {
            Some(name) => TimeZone::get(name).map_err(|_| ScheduleError::Zone(name.to_owned()))?,
            None => TimeZone::UTC,
        };
        let text_only = if text_only.eq_ignore_ascii_case("@midnight") { "@daily" } else { text_only };
        let known = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@hourly"];
        let short = known.iter().any(|name| text_only.eq_ignore_ascii_case(name));
        if !short && text_only.split_whitespace().count() != 5 {
            return Err(malformed("it needs five fields"));
        }
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(text_only).map_err(|error| malformed(&error.to_string()))?;
        let table = Timetable::Cron { cron: Box::new(cron), zone };
        // Any time will do: what comes once comes again.
        match table.next(Duration::from_secs(1_700_000_000)) {
            Some(_) => Ok(table),
            None => Err(ScheduleError::Never(text.to_owned())),
        }
    }

    /// The first time after that one.
    pub fn next(&self, after: Duration) -> Option<Duration> {
        match self {
            Timetable::Every(pause) => after.checked_add(*pause),
            Timetable::Cron { cron, zone } => {
                unix(&cron.find_next_occurrence(&zoned(after, zone)?, false).ok()?)
            }
        }
    }

    /// The last time after `after` that has come by `now`; `None` if there is none. Those in between were missed.
    pub fn latest(&self, after: Duration, now: Duration) -> Option<Duration> {
        match self {
            Timetable::Every(pause) => {
                let times = now.checked_sub(after)?.as_nanos() / pause.as_nanos().max(1);
                let times = u32::try_from(times).ok().filter(|times| *times > 0)?;
                after.checked_add(pause.checked_mul(times)?)
            }
            Timetable::Cron { cron, zone } => {
                let last = unix(&cron.find_previous_occurrence(&zoned(now, zone)?, true).ok()?)?;
                Some(last).filter(|last| *last > after)
            }
        }
    }
}

fn zoned(time: Duration, zone: &TimeZone) -> Option<Zoned> {
    let seconds = i64::try_from(time.as_secs()).ok()?;
    Some(Timestamp::from_second(seconds).ok()?.to_zoned(zone.clone()))
}

fn unix(time: &Zoned) -> Option<Duration> {
    u64::try_from(time.timestamp().as_second()).ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Duration {
        let time: Timestamp = text.parse().expect("a time");
        Duration::from_secs(time.as_second() as u64)
    }

    #[test]
    fn the_next_time_is_found() {
        for (schedule, zone, after, next) in [
            ("*/5 * * * *", None, "2026-03-01T10:02:07Z", "2026-03-01T10:05:00Z"),
            ("0 3 * * *", None, "2026-03-01T03:00:00Z", "2026-03-02T03:00:00Z"),
            ("0 3 * * *", Some("Europe/Vienna"), "2026-01-10T00:00:00Z", "2026-01-10T02:00:00Z"),
            ("30 9 * * mon-fri", None, "2026-11-20T10:00:00Z", "2026-11-23T09:30:00Z"),
            ("0 0 29 2 *", None, "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"),
            // Both days are meant, as in crontab(5): the 13th or a Friday.
            ("0 0 13 * fri", None, "2026-11-01T00:00:00Z", "2026-11-06T00:00:00Z"),
            ("@hourly", None, "2026-03-01T10:02:07Z", "2026-03-01T11:00:00Z"),
            ("@midnight", None, "2026-03-01T10:02:07Z", "2026-03-02T00:00:00Z"),
            ("@every 90s", None, "2026-03-01T10:00:00Z", "2026-03-01T10:01:30Z"),
        ] {
            let table =
                Timetable::parse(schedule, zone).unwrap_or_else(|error| panic!("{schedule}: {error}"));
            assert_eq!(table.next(at(after)), Some(at(next)), "{schedule} {zone:?}");
        }
    }

    #[test]
    fn only_the_latest_of_those_missed_counts() {
        for (schedule, after, now, latest) in [
            ("*/5 * * * *", "2026-03-01T10:00:00Z", "2026-03-01T10:04:59Z", None),
            ("*/5 * * * *", "2026-03-01T10:00:00Z", "2026-03-01T10:05:00Z", Some("2026-03-01T10:05:00Z")),
            ("*/5 * * * *", "2026-03-01T10:00:00Z", "2026-03-01T12:32:00Z", Some("2026-03-01T12:30:00Z")),
            ("@every 1m", "2026-03-01T10:00:10Z", "2026-03-01T10:01:09Z", None),
            ("@every 1m", "2026-03-01T10:00:10Z", "2026-03-01T10:03:12Z", Some("2026-03-01T10:03:10Z")),
            // A clock that was put back makes nothing due.
            ("@every 1m", "2026-03-01T10:00:10Z", "2026-03-01T09:00:00Z", None),
            ("*/5 * * * *", "2026-03-01T10:00:00Z", "2026-03-01T09:00:00Z", None),
        ] {
            let table = Timetable::parse(schedule, None).expect("a schedule");
            assert_eq!(table.latest(at(after), at(now)), latest.map(at), "{schedule} {now}");
        }
    }

    #[test]
    fn what_is_no_schedule_is_told() {
        for (text, zone, part) in [
            ("", None, "five fields"),
            ("* * * *", None, "five fields"),
            ("* * * * * *", None, "five fields"),
            ("61 * * * *", None, "is no schedule"),
            ("* * * * funday", None, "is no schedule"),
            ("0 0 30 2 *", None, "never comes"),
            ("@every", None, "five fields"),
            ("@every soon", None, "is no schedule"),
            ("@every 100ms", None, "shorter"),
            ("@reboot", None, "five fields"),
            ("* * * * *", Some("Mars/Olympus"), "Mars/Olympus"),
        ] {
            let error = Timetable::parse(text, zone).expect_err(text);
            assert!(error.to_string().contains(part), "{text:?}: {error}");
            assert!(!error.hint().is_empty());
        }
    }
}
