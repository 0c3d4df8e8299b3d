//! An open loop against a server that stalls: what is reported is what a user would have seen.

mod common;

use common::{Reply, Server, ok, run};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use throng_load::{Arrivals, LoadSpec, Schedule};
use throng_model::run::LoadResult;

/// How long the server works on every request: two in a hundred of it are a few milliseconds, more than what a
/// busy machine adds.
const SERVICE: f64 = 0.2;
/// From when to when (seconds after the first request) the server does nothing. Each edge lies in the middle
/// between two arrivals at [`RATE`], so that it is certain which requests meet a stall.
const STALLS: [(f64, f64); 2] = [(1.015, 1.815), (2.515, 2.815)];
/// Requests per second, for so many seconds.
const RATE: f64 = 100.0;
const SECONDS: f64 = 4.0;
/// How often a measurement may be disturbed by whatever else the machine does.
const ATTEMPTS: usize = 4;

/// When the answer to a request that arrives then is sent.
fn answered(arrival: f64) -> f64 {
    let stall = STALLS.iter().find(|(from, to)| (*from..*to).contains(&arrival));
    stall.map_or(arrival, |(_, to)| *to) + SERVICE
}

/// When each request was answered, in seconds after the load's start, in the order in which they came.
type Answers = Arc<Mutex<BTreeMap<u64, f64>>>;

/// When the load began, as the server sees it. Its requests are due at known times and cannot come early, so the
/// one that came with the least delay tells best; the first alone may have been held up anywhere.
struct Origin {
    rate: f64,
    earliest: Mutex<Option<Instant>>,
}

impl Origin {
    fn at_request(&self, number: u64) -> Instant {
        let now = Instant::now();
        let mut earliest = self.earliest.lock().expect("no panic");
        let known = earliest.get_or_insert(now);
        if (number as f64 / self.rate) < STALLS[0].0 {
            *known = (*known).min(now - Duration::from_secs_f64(number as f64 / self.rate));
        }
        *known
    }
}

fn stalling_server(rate: f64) -> (Server, Answers) {
    let origin = Origin { rate, earliest: Mutex::default() };
    let answers = Answers::default();
    let log = answers.clone();
    let server = Server::start(move |request| {
        let origin = origin.at_request(request.number);
        let until = answered(origin.elapsed().as_secs_f64());
        std::thread::sleep(
            (origin + Duration::from_secs_f64(until)).saturating_duration_since(Instant::now()),
        );
        log.lock().expect("no panic").insert(request.number, origin.elapsed().as_secs_f64());
        ok("abc")
    });
    (server, answers)
}

/// Asks for the processor before others, where that is allowed: these tests measure time. Threads started from
/// here on inherit it.
fn hurry() {
    let _ = rustix::process::setpriority_process(None, -15);
}

fn load(server: &Server, rate: f64, max_connections: u32) -> LoadResult {
    let duration = Duration::from_secs_f64(SECONDS);
    let schedule = Schedule::Open { rate, duration, arrivals: Arrivals::Constant, max_connections };
    let result = run(LoadSpec::new(server.url(), schedule));
    let all = (rate * SECONDS) as u64;
    assert_eq!((result.requests, result.succeeded, server.served()), (all, all, all));
    result
}

/// The largest relative error of the percentiles and the mean, against latencies in seconds.
fn error(result: &LoadResult, mut truth: Vec<f64>) -> f64 {
    truth.sort_by(f64::total_cmp);
    let mean = truth.iter().sum::<f64>() / truth.len() as f64;
    let mut worst = (result.latency.mean / 1e6 / mean - 1.0).abs();
    for name in ["50", "75", "90", "95", "99", "99.9"] {
        let share: f64 = name.parse::<f64>().expect("a percentile") / 100.0;
        let expected = truth[((share * truth.len() as f64).ceil() as usize).clamp(1, truth.len()) - 1];
        let found = result.latency.percentiles[name] as f64 / 1e6;
        eprintln!("p{name}: {found:.4} s, in truth {expected:.4} s");
        worst = worst.max((found / expected - 1.0).abs());
    }
    worst
}

fn within_two_percent(attempt: impl Fn() -> f64) {
    let mut errors = Vec::new();
    while errors.len() < ATTEMPTS {
        errors.push(attempt());
        if errors.last().is_some_and(|error| *error <= 0.02) {
            return;
        }
    }
    panic!("figures are off by {errors:?} of the truth");
}

/// Enough connections for all who wait: the truth follows from the stalls alone.
fn truth_without_queue() -> Vec<f64> {
    (0..(RATE * SECONDS) as usize)
        .map(|number| number as f64 / RATE)
        .map(|intended| answered(intended) - intended)
        .collect()
}

#[test]
fn stalls_are_seen_by_every_request_that_was_due() {
    hurry();
    within_two_percent(|| error(&load(&stalling_server(RATE).0, RATE, 150), truth_without_queue()));
}

/// Eight connections carry 40 requests a second, so that a stall's queue takes a while to drain. Each round of the
/// queue adds the server's own delays to those of the one before, so its own record of when it answered is the
/// truth here; the requests come in the order in which they were due.
#[test]
fn waiting_for_a_connection_counts() {
    hurry();
    let rate = 30.0;
    within_two_percent(|| {
        let (server, answers) = stalling_server(rate);
        let result = load(&server, rate, 8);
        assert!(result.backlog_max >= 10, "{}", result.backlog_max);
        let answers = answers.lock().expect("no panic");
        error(&result, answers.iter().map(|(number, at)| at - *number as f64 / rate).collect())
    });
}

#[test]
fn the_model_of_these_tests_hides_nothing() {
    // In a stall of 0.8 s at 100/s, 80 requests wait 0.4 s on average.
    let all = truth_without_queue();
    let waited: f64 = all.iter().map(|latency| latency - SERVICE).sum();
    let expected: f64 = STALLS.iter().map(|(from, to)| RATE * (to - from).powi(2) / 2.0).sum();
    assert!((waited / expected - 1.0).abs() < 1e-6, "{waited} {expected}");
    assert!(all.iter().all(|latency| (SERVICE - 1e-9..SERVICE + 0.8).contains(latency)));
}

#[test]
fn what_the_backlog_cannot_hold_is_dropped_and_counted() {
    let server = Server::start(|_| {
        std::thread::sleep(Duration::from_millis(100));
        ok("")
    });
    let schedule = Schedule::Open {
        rate: 100.0,
        duration: Duration::from_secs(1),
        arrivals: Arrivals::Constant,
        max_connections: 1,
    };
    let result = run(LoadSpec { backlog: 5, ..LoadSpec::new(server.url(), schedule) });
    assert_eq!(result.requests, 100);
    assert_eq!(result.backlog_max, 5);
    assert_eq!(result.succeeded, server.served());
    assert_eq!(result.errors, BTreeMap::from([("dropped".into(), 100 - result.succeeded)]));
    assert!((10..=20).contains(&result.succeeded), "{}", result.succeeded);
    // One under way and five before it, each 100 ms.
    assert!(result.latency.max >= 500_000, "waiting in the backlog is latency: {}", result.latency.max);
}

#[test]
fn what_still_waits_when_the_time_is_up_is_counted_as_unsent() {
    let server = Server::start(|_| Reply::Hang);
    let schedule = Schedule::Open {
        rate: 100.0,
        duration: Duration::from_millis(200),
        arrivals: Arrivals::Constant,
        max_connections: 1,
    };
    let spec = LoadSpec { timeout: Duration::from_millis(150), ..LoadSpec::new(server.url(), schedule) };
    let begin = Instant::now();
    let result = run(spec);
    assert!(begin.elapsed() < Duration::from_secs(20));
    assert_eq!((result.requests, result.succeeded), (20, 0));
    let timeouts = result.errors["timeout"];
    assert!((1..=4).contains(&timeouts), "{:?}", result.errors);
    assert_eq!(result.errors["unsent"], 20 - timeouts);
}

#[test]
fn poisson_arrivals_come_as_the_seed_says_whatever_the_threads() {
    let counts: Vec<u64> = [1, 3]
        .into_iter()
        .map(|threads| {
            let server = Server::start(|_| ok(""));
            let schedule = Schedule::Open {
                rate: 400.0,
                duration: Duration::from_secs(1),
                arrivals: Arrivals::Poisson,
                max_connections: 50,
            };
            let result = run(LoadSpec { threads, seed: 11, ..LoadSpec::new(server.url(), schedule) });
            assert_eq!((result.requests, result.succeeded), (server.served(), server.served()));
            result.requests
        })
        .collect();
    assert_eq!(counts[0], counts[1]);
    assert!((280..520).contains(&counts[0]), "{counts:?}");
}
