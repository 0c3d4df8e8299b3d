//! The balancer beside nginx and HAProxy, all in front of the same backends.

use super::record::{Bar, Better, Comparison, Role, Subject};
use super::{Measured, Session, built, machine};
use crate::packages;
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

/// Within 10 % of the better one.
const TIMES: f64 = 0.9;
const CONNECTIONS: usize = 32;
const ROUND_LIMIT: Duration = Duration::from_secs(300);
/// By their names in what the program prints.
const SUBJECTS: [(&str, &str, Role); 4] = [
    ("ours", "throng-proxy", Role::Ours),
    ("nginx", "nginx", Role::Peer),
    ("haproxy", "HAProxy", Role::Peer),
    ("direct", "no balancer", Role::Reference),
];

/// What one round of one balancer gave.
#[derive(Debug, Clone, Copy, Deserialize)]
struct Figures {
    /// Requests a second.
    rate: f64,
    p99_us: f64,
    /// The same where nobody is at a limit.
    paced_p99_us: f64,
    /// Processor time of a request.
    cpu_us: f64,
}

type Round = BTreeMap<String, Figures>;

pub fn measure(session: &Session) -> Result<Measured> {
    for program in ["nginx", "haproxy", "wrk"] {
        if !packages::present(program) {
            bail!("{program} is not installed");
        }
    }
    let program = built::program(&["-p", "throng-proxy", "--example", "proxy_bench"])?;
    let throng = built::program(&["-p", "throng", "--bin", "throng"])?;
    // Many, for a 99th percentile of so short an answer is a noisy figure.
    let (count, seconds) = (session.size(11, 2), session.size(4, 1));
    let busy_before = session.settle()?;
    let mut rounds = Vec::new();
    for number in 1..=count {
        let mut command = Command::new(&program);
        command.args(["--workers", "1", "--rounds", "1"]).arg("--paced").arg(&throng);
        command.args(["--seconds", &seconds.to_string(), "--connections", &CONNECTIONS.to_string()]);
        let text = session.children.output(command, ROUND_LIMIT)?;
        let round: Round = serde_json::from_str(&text).context("proxy_bench prints something else")?;
        for (name, figures) in &round {
            let Figures { rate, p99_us, paced_p99_us, cpu_us } = figures;
            eprintln!(
                "round {number}: {name:>8} {rate:9.0}/s, p99 {p99_us:6.0} µs, below the limit {paced_p99_us:6.0} µs, \
                 processor {cpu_us:5.1} µs"
            );
        }
        rounds.push(round);
    }
    let method = vec![
        "crates/throng-proxy/examples/proxy_bench.rs: one nginx with three ports answers `ok` (3 bytes) from memory; \
         each balancer is a process of its own with one worker thread in front of it, with connections kept alive on \
         both sides, a choice of two random backends by their load, and the same forwarding headers. The balancer has a \
         core to itself; the load and the backends share the next, also where there is no balancer."
            .into(),
        format!(
            "`wrk -t1 -c{CONNECTIONS} -d{seconds}s` asks, after a second of warming up. Rounds: {count}; all servers \
             are started anew for each, and take turns within it."
        ),
        format!(
            "Below the limit: `throng load -c {CONNECTIONS} --think 1ms -d {seconds}s`, as many clients, each with a pause \
             before its next request. wrk asks as fast as it is answered, so each balancer is then at its own limit and at \
             a rate of its own, and its 99th percentile is mostly about turns on the core that load and backends share."
        ),
    ];
    let versions = machine::versions(&[
        ("nginx", &["nginx", "-v"]),
        ("haproxy", &["haproxy", "-v"]),
        ("wrk", &["wrk", "-v"]),
    ]);
    Ok(Measured { busy_before, versions, method, comparisons: comparisons(&rounds) })
}

fn comparisons(rounds: &[Round]) -> Vec<Comparison> {
    let subjects = |figure: fn(&Figures) -> f64| -> Vec<Subject> {
        let of = |key: &str| rounds.iter().filter_map(|round| round.get(key)).map(figure).collect();
        SUBJECTS.map(|(key, name, role)| Subject { name: name.into(), role, rounds: of(key) }).into()
    };
    let compare = |key: &str, title: &str, unit: &str, better, figure, bar| Comparison {
        key: key.into(),
        title: title.into(),
        unit: unit.into(),
        better,
        subjects: subjects(figure),
        bar,
    };
    let bar = Some(Bar::Times(TIMES));
    vec![
        compare("rate", "Requests a second", "requests/s", Better::Higher, |f| f.rate, bar),
        compare(
            "p99-below-limit",
            "99th percentile of the latency below the limit",
            "µs",
            Better::Lower,
            |f| f.paced_p99_us,
            bar,
        ),
        compare("p99", "99th percentile of the latency at the limit", "µs", Better::Lower, |f| f.p99_us, bar),
        compare("processor", "Processor time of a request", "µs", Better::Lower, |f| f.cpu_us, None),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_program_prints_becomes_comparisons() {
        let text = r#"{"direct":{"cpu_us":8.9,"p99_us":370.0,"paced_p99_us":150.0,"rate":100000.0,"rates":[100000.0]},
            "haproxy":{"cpu_us":21.0,"p99_us":1500.0,"paced_p99_us":500.0,"rate":34000.0,"rates":[34000.0]},
            "nginx":{"cpu_us":23.0,"p99_us":1200.0,"paced_p99_us":400.0,"rate":30000.0,"rates":[30000.0]},
            "ours":{"cpu_us":20.0,"p99_us":1250.0,"paced_p99_us":500.0,"rate":32000.0,"rates":[32000.0]}}"#;
        let round: Round = serde_json::from_str(text).expect("as printed");
        let comparisons = comparisons(&[round.clone(), round]);
        let best: Vec<_> = comparisons.iter().map(|c| c.best_peer().map(|peer| peer.name.as_str())).collect();
        assert_eq!(best, [Some("HAProxy"), Some("nginx"), Some("nginx"), Some("HAProxy")]);
        let held: Vec<_> = comparisons.iter().map(Comparison::held).collect();
        assert_eq!(held, [Some(true), Some(false), Some(true), None]);
        assert!(comparisons.iter().all(|c| c.subjects.iter().all(|subject| subject.rounds.len() == 2)));
    }
}
