//! What it takes to know, each second, what every replica of a crowd uses, and how old those figures are: of a crowd
//! that rests, of one in which each has a request now and then, and of one in which each has one every second.

use super::crowd::{Crowd, Listed};
use super::record::{Bar, Better, Comparison, Role, Subject};
use super::{Session, page, probe};
use anyhow::{Context, Result};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Seconds between two requests to the same replica; none of a crowd that rests.
const WAYS: [Option<usize>; 3] = [None, Some(10), Some(1)];
/// Before the figures are looked at, so that what came before is over.
const SETTLE: Duration = Duration::from_secs(12);
/// For which they are looked at.
const WATCHED: Duration = Duration::from_secs(20);
/// What is known of a replica each second is no older than this: a second, and the time that a reading may take.
const EACH_SECOND: f64 = 1.5;
/// A tenth of one core.
const SHARE: f64 = 100.0;
/// Requests under way at a time.
const ASKING: usize = 8;
/// How long one may take.
const ANSWER: Duration = Duration::from_secs(2);

/// Of one crowd under one load.
pub struct Readings {
    /// Seconds between two requests to the same replica.
    every: Option<usize>,
    /// Requests that were answered, a second.
    answered: f64,
    /// Milliseconds in each second that readings took.
    reading: f64,
    /// Milliseconds of CPU time that the supervisor took in each second, whatever for.
    supervisor: f64,
    /// Seconds since the oldest figure of any replica was read, CPU time apart.
    oldest: f64,
}

/// Watches a crowd that is up under each load in turn.
pub fn measure(session: &Session, crowd: &Crowd, listed: &[Listed]) -> Result<Vec<Readings>> {
    let addresses: Vec<SocketAddr> = listed.iter().filter_map(Listed::server).collect();
    WAYS.iter().map(|every| watch(session, crowd, &addresses, *every)).collect()
}

fn watch(
    session: &Session,
    crowd: &Crowd,
    addresses: &[SocketAddr],
    every: Option<usize>,
) -> Result<Readings> {
    let (stop, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let found = std::thread::scope(|scope| {
        if let Some(every) = every {
            for asker in 0..ASKING {
                let (stop, answered) = (&stop, &answered);
                scope.spawn(move || ask(addresses, every, asker, stop, answered));
            }
        }
        let found = between(session, crowd, &answered);
        stop.store(true, Relaxed);
        found
    });
    let readings = Readings { every, ..found? };
    eprintln!(
        "{}: readings take {:.0} ms a second, the supervisor {:.0} ms of CPU time; the oldest figure is {:.1} s old",
        readings.load(),
        readings.reading,
        readings.supervisor,
        readings.oldest
    );
    Ok(readings)
}

/// One of [`ASKING`] that share the replicas: asks each of its own once in so many seconds, evenly over them.
fn ask(addresses: &[SocketAddr], every: usize, asker: usize, stop: &AtomicBool, answered: &AtomicUsize) {
    let own: Vec<SocketAddr> = addresses.iter().skip(asker).step_by(ASKING).copied().collect();
    let pause = Duration::from_secs(every as u64) / own.len().max(1) as u32;
    let mut due = Instant::now();
    for address in own.iter().cycle() {
        if stop.load(Relaxed) {
            return;
        }
        if probe::first_answer(*address, ANSWER).is_ok() {
            answered.fetch_add(1, Relaxed);
        }
        due += pause;
        // What is late stays late: nobody is asked twice in a row to make up for it.
        due = due.max(Instant::now() - pause);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

/// What the supervisor's own figures say of a while, and how old the oldest figure of a replica was in it.
fn between(session: &Session, crowd: &Crowd, answered: &AtomicUsize) -> Result<Readings> {
    session.children.pause(SETTLE)?;
    let begin = Instant::now();
    let (first, asked) = (crowd.throng(session, &["metrics"])?, answered.load(Relaxed));
    session.children.pause(WATCHED)?;
    let last = crowd.throng(session, &["metrics"])?;
    let seconds = begin.elapsed().as_secs_f64();
    let grown = |name: &str| anyhow::Ok((largest(&last, name)? - largest(&first, name)?) / seconds);
    Ok(Readings {
        every: None,
        answered: (answered.load(Relaxed) - asked) as f64 / seconds,
        reading: grown("throng_reading_duration_seconds_sum")? * 1e3,
        supervisor: grown("process_cpu_seconds_total")? * 1e3,
        oldest: largest(&last, "throng_service_reading_age_seconds")?,
    })
}

/// The largest value of a name in Prometheus' text format, whatever its labels.
fn largest(text: &str, name: &str) -> Result<f64> {
    let value = |line: &str| {
        let rest = line.strip_prefix(name).filter(|rest| rest.starts_with([' ', '{']))?;
        rest.rsplit(' ').next()?.parse::<f64>().ok()
    };
    text.lines().filter_map(value).reduce(f64::max).with_context(|| format!("throng metrics has no {name}"))
}

impl Readings {
    fn load(&self) -> String {
        match self.every {
            None => "at rest".into(),
            Some(1) => "a request to each every second".into(),
            Some(every) => format!("a request to each every {every} s"),
        }
    }
}

/// The crowd at rest has bars; of the others it is told what they cost.
pub fn comparisons(all: &[Readings], count: usize) -> Vec<Comparison> {
    let count = page::number(count as f64);
    let figure = |key: &str, title: String, unit: &str, bar: Option<f64>, of: fn(&Readings) -> f64| {
        let subject = |one: &Readings| Subject {
            name: one.load(),
            role: if one.every.is_none() { Role::Ours } else { Role::Reference },
            rounds: vec![of(one)],
        };
        Comparison {
            key: key.into(),
            title,
            unit: unit.into(),
            better: Better::Lower,
            subjects: all.iter().map(subject).collect(),
            bar: bar.map(Bar::AtMost),
        }
    };
    vec![
        figure(
            "readings",
            format!("Reading what each of {count} uses, in each second"),
            "ms",
            Some(SHARE),
            |one| one.reading,
        ),
        figure("readings-age", "Age of the oldest of these figures".into(), "s", Some(EACH_SECOND), |one| {
            one.oldest
        }),
        figure(
            "supervisor",
            format!("CPU time of the supervisor of {count} in each second, whatever for"),
            "ms",
            None,
            |one| one.supervisor,
        ),
    ]
}

pub fn method(all: &[Readings]) -> Vec<String> {
    let mut said = vec![format!(
        "Readings: with all up, {} s under each load; what `throng metrics` says has grown meanwhile of \
         `throng_reading_duration_seconds_sum` and `process_cpu_seconds_total`, and \
         `throng_service_reading_age_seconds` at the end.",
        WATCHED.as_secs()
    )];
    let asked = all.iter().filter(|one| one.every.is_some());
    let asked: Vec<String> = asked
        .map(|one| format!("{}: {} a second were answered", one.load(), page::number(one.answered)))
        .collect();
    said.extend(
        (!asked.is_empty()).then(|| format!("Requests to the crowd meanwhile: {}.", asked.join("; "))),
    );
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_by_their_whole_names() {
        let text = "# HELP a x\na_b 9\na{service=\"web\"} 1.5\na{service=\"db\"} 2\nab 7\n";
        assert_eq!(largest(text, "a").expect("a value"), 2.0);
        assert_eq!(largest(text, "a_b").expect("a value"), 9.0);
        assert!(largest(text, "b").is_err());
    }

    #[test]
    fn only_the_crowd_at_rest_has_bars() {
        let one = |every, reading| Readings { every, answered: 5.0, reading, supervisor: 1.0, oldest: 0.5 };
        let all = [one(None, 50.0), one(Some(10), 500.0)];
        let compared = comparisons(&all, 10_000);
        let ours = |one: &&Subject| one.role == Role::Ours;
        assert!(compared.iter().all(|one| one.subjects.iter().filter(ours).count() == 1));
        assert_eq!(compared[0].subjects[1].name, "a request to each every 10 s");
        assert!(method(&all)[1].contains("a request to each every 10 s: 5 a second were answered"));
        assert_eq!(method(&all[..1]).len(), 1);
    }
}
