//! The load generator beside wrk and oha, against the same nginx; and how true its open loop is.

use super::children::Server;
use super::record::{Bar, Better, Comparison, Role, Subject};
use super::{Measured, Session, built, machine};
use crate::packages;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::fs::File;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// At least oha's rate.
const TIMES: f64 = 1.0;
/// The largest error of a percentile in the open loop, in percent.
const LARGEST_ERROR: f64 = 2.0;
const CONNECTIONS: usize = 32;
const START_LIMIT: Duration = Duration::from_secs(10);
const ROUND_LIMIT: Duration = Duration::from_secs(120);
/// The test of throng-load that says what the percentiles should be and what they are.
const STALLS_TEST: &str = "stalls_are_seen_by_every_request_that_was_due";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Generator {
    Throng,
    Oha,
    Wrk,
}

impl Generator {
    const ALL: [Generator; 3] = [Generator::Throng, Generator::Oha, Generator::Wrk];

    fn name(self) -> &'static str {
        match self {
            Generator::Throng => "throng-load",
            Generator::Oha => "oha",
            Generator::Wrk => "wrk",
        }
    }

    fn role(self) -> Role {
        match self {
            Generator::Throng => Role::Ours,
            Generator::Oha => Role::Peer,
            Generator::Wrk => Role::Reference,
        }
    }
}

/// Requests a second and the 99th percentile in microseconds.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Figures {
    rate: f64,
    p99_us: f64,
}

/// One measurement of one generator with so many threads.
struct Round {
    generator: Generator,
    threads: usize,
    figures: Figures,
}

struct Programs {
    throng: PathBuf,
    oha: PathBuf,
}

pub fn measure(session: &Session) -> Result<Measured> {
    for program in ["nginx", "wrk"] {
        if !packages::present(program) {
            bail!("{program} is not installed");
        }
    }
    let oha = built::oha(&session.children, &session.target).context("oha cannot be installed")?;
    let throng = built::program(&["-p", "throng-load", "--example", "rate"])?;
    let programs = Programs { throng, oha };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads: Vec<usize> = if cores == 1 { vec![1] } else { vec![1, cores] };
    let (count, seconds) = (session.size(7, 2), session.size(4, 1));
    let stalls = built::test_program(&["-p", "throng-load", "--test", "open_loop"])?;
    let busy_before = session.settle()?;
    let errors = open_loop_errors(session, &stalls, session.size(5, 1))?;
    let rounds = closed_loop(session, &programs, &threads, count, seconds)?;
    let mut comparisons = comparisons(&rounds, &threads);
    comparisons.push(Comparison {
        key: "open-loop".into(),
        title: "Open loop against known stalls: the largest error of a percentile".into(),
        unit: "%".into(),
        better: Better::Lower,
        subjects: vec![Subject { name: "throng-load".into(), role: Role::Ours, rounds: errors }],
        bar: Some(Bar::AtMost(LARGEST_ERROR)),
    });
    let oha_version = [programs.oha.to_string_lossy().into_owned(), "--version".into()];
    let oha_version: Vec<&str> = oha_version.iter().map(String::as_str).collect();
    let versions = machine::versions(&[
        ("nginx", &["nginx", "-v"]),
        ("wrk", &["wrk", "-v"]),
        ("oha", oha_version.as_slice()),
    ]);
    Ok(Measured { busy_before, versions, method: method(count, seconds), comparisons })
}

fn method(count: usize, seconds: usize) -> Vec<String> {
    vec![
        format!(
            "Closed loop: {CONNECTIONS} connections, each with one request under way, for {seconds} s against one \
             nginx with one worker, which answers `ok` (3 bytes) from memory. Rounds: {count}, every other one in \
             the opposite order. A generator with failed requests has no figure."
        ),
        "`wrk -t THREADS`, `oha --worker-threads THREADS`, and crates/throng-load/examples/rate.rs, which does what \
         `throng load --threads THREADS` does, full histograms included. The bar is oha's; wrk, in C and without a \
         runtime, is shown beside them."
            .into(),
        format!(
            "Open loop: a server that works 0.2 s on each request and stands still twice, for 0.8 s and 0.3 s, gets \
             100 requests a second. When each was due is known, so what each percentile (50 to 99.9) must be is \
             known too (crates/throng-load/tests/open_loop.rs, `{STALLS_TEST}`)."
        ),
    ]
}

fn closed_loop(
    session: &Session,
    programs: &Programs,
    threads: &[usize],
    count: usize,
    seconds: usize,
) -> Result<Vec<Round>> {
    let (_nginx, address) = nginx(session)?;
    let url = format!("http://{address}/");
    let mut order: Vec<(Generator, usize)> =
        threads.iter().flat_map(|threads| Generator::ALL.map(|generator| (generator, *threads))).collect();
    let mut rounds = Vec::new();
    for number in 0..=count {
        for (generator, threads) in &order {
            // The first round only warms up.
            let seconds = if number == 0 { 1 } else { seconds };
            let figures = ask(session, programs, *generator, &url, *threads, seconds)?;
            if number == 0 {
                continue;
            }
            let (name, Figures { rate, p99_us }) = (generator.name(), figures);
            eprintln!("round {number}: {name:>12} with {threads} threads {rate:9.0}/s, p99 {p99_us:6.0} µs");
            rounds.push(Round { generator: *generator, threads: *threads, figures });
        }
        order.reverse();
    }
    Ok(rounds)
}

fn ask(
    session: &Session,
    programs: &Programs,
    generator: Generator,
    url: &str,
    threads: usize,
    seconds: usize,
) -> Result<Figures> {
    let mut command;
    match generator {
        Generator::Throng => {
            command = Command::new(&programs.throng);
            command.args([url, &CONNECTIONS.to_string(), &seconds.to_string(), &threads.to_string()]);
        }
        Generator::Oha => {
            command = Command::new(&programs.oha);
            command.args(["--no-tui", "--output-format", "json", "-c", &CONNECTIONS.to_string()]);
            command.args(["-z", &format!("{seconds}s"), "--worker-threads", &threads.to_string(), url]);
        }
        Generator::Wrk => {
            command = Command::new("wrk");
            command.args([format!("-t{threads}"), format!("-c{CONNECTIONS}"), format!("-d{seconds}s")]);
            command.args(["--latency", url]);
        }
    }
    let text = session.children.output(command, ROUND_LIMIT)?;
    let read = match generator {
        Generator::Throng => throng_figures,
        Generator::Oha => oha_figures,
        Generator::Wrk => wrk_figures,
    };
    read(&text)
        .with_context(|| format!("{} failed requests or printed something else:\n{text}", generator.name()))
}

fn throng_figures(text: &str) -> Option<Figures> {
    let result: Value = serde_json::from_str(text).ok()?;
    Some(Figures { rate: result["rate"].as_f64()?, p99_us: result["p99_us"].as_f64()? })
}

fn oha_figures(text: &str) -> Option<Figures> {
    let result: Value = serde_json::from_str(text).ok()?;
    // Requests that were under way at the end of the time are no failures.
    let failed = |kind: &String| kind != "aborted due to deadline";
    let failures = result["errorDistribution"].as_object()?.keys().any(failed);
    let codes = result["statusCodeDistribution"].as_object()?;
    if failures || codes.keys().any(|code| code != "200") {
        return None;
    }
    Some(Figures {
        rate: result["summary"]["requestsPerSec"].as_f64()?,
        p99_us: result["latencyPercentiles"]["p99"].as_f64()? * 1e6,
    })
}

fn wrk_figures(text: &str) -> Option<Figures> {
    let after = |label: &str| text.lines().find_map(|line| line.trim().strip_prefix(label)).map(str::trim);
    if text.contains("Non-2xx") || text.contains("Socket errors") {
        return None;
    }
    Some(Figures { rate: after("Requests/sec:")?.parse().ok()?, p99_us: microseconds(after("99%")?)? })
}

/// A latency as `wrk` prints it: `850.00us`, `1.50ms`, `2.00s`.
fn microseconds(text: &str) -> Option<f64> {
    let end = text.find(|c: char| c.is_ascii_alphabetic())?;
    let scale = match &text[end..] {
        "us" => 1.0,
        "ms" => 1e3,
        "s" => 1e6,
        _ => return None,
    };
    Some(text[..end].parse::<f64>().ok()? * scale)
}

fn comparisons(rounds: &[Round], threads: &[usize]) -> Vec<Comparison> {
    let subjects = |threads: usize, figure: fn(&Figures) -> f64| -> Vec<Subject> {
        let of = |generator: Generator| {
            let rounds =
                rounds.iter().filter(|round| round.generator == generator && round.threads == threads);
            rounds.map(|round| figure(&round.figures)).collect()
        };
        let subject = |g: Generator| Subject { name: g.name().into(), role: g.role(), rounds: of(g) };
        Generator::ALL.map(subject).into()
    };
    let each = |threads: &usize| {
        let words =
            if *threads == 1 { "one thread".into() } else { format!("{threads} threads, one a core") };
        let rate = Comparison {
            key: format!("rate-{threads}"),
            title: format!("Closed loop, {words}"),
            unit: "requests/s".into(),
            better: Better::Higher,
            subjects: subjects(*threads, |figures| figures.rate),
            bar: Some(Bar::Times(TIMES)),
        };
        let p99 = Comparison {
            key: format!("p99-{threads}"),
            title: format!("99th percentile seen, {words}"),
            unit: "µs".into(),
            better: Better::Lower,
            subjects: subjects(*threads, |figures| figures.p99_us),
            bar: None,
        };
        [rate, p99]
    };
    threads.iter().flat_map(each).collect()
}

fn nginx(session: &Session) -> Result<(Server, String)> {
    let folder = session.folder.path().join("nginx");
    std::fs::create_dir_all(&folder).context("cannot make nginx's folder")?;
    let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
    let path = folder.join("nginx.conf");
    std::fs::write(&path, nginx_configuration(&folder, port))
        .context("cannot write nginx's configuration")?;
    let mut command = Command::new("nginx");
    command.arg("-e").arg(folder.join("error.log")).arg("-c").arg(&path);
    let log = File::create(folder.join("output.log")).context("cannot write nginx's log")?;
    let server = session.children.server(&command, log)?;
    let listens = || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok();
    session.children.wait_until("nginx does not listen", START_LIMIT, listens)?;
    Ok((server, format!("127.0.0.1:{port}")))
}

fn nginx_configuration(folder: &Path, port: u16) -> String {
    let folder = folder.display();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let temporary: String =
        temporary.iter().map(|kind| format!("{kind}_temp_path {folder}/{kind};\n")).collect();
    format!(
        "daemon off;\nworker_processes 1;\npid {folder}/pid;\nerror_log {folder}/error.log;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\naccess_log off;\nkeepalive_requests 1000000000;\n{temporary}\
         server {{ listen 127.0.0.1:{port} backlog=1024;\n\
         location / {{ default_type text/plain; return 200 'ok\n'; }} }} }}\n"
    )
}

/// The largest error of each attempt of the test, in percent. Attempts that the test itself rejects count too.
fn open_loop_errors(session: &Session, program: &Path, count: usize) -> Result<Vec<f64>> {
    let mut errors = Vec::new();
    for _ in 0..count {
        let mut command = Command::new(program);
        command.args([STALLS_TEST, "--exact", "--nocapture"]);
        let output = session.children.finish(command, ROUND_LIMIT)?;
        let attempts = errors_of_attempts(&String::from_utf8_lossy(&output.stderr));
        if attempts.is_empty() {
            bail!("the test {STALLS_TEST} says nothing of percentiles");
        }
        eprintln!("open loop: largest error {attempts:.2?} %");
        errors.extend(attempts);
    }
    Ok(errors)
}

/// Reads `p50: 0.2003 s, in truth 0.2000 s`; each attempt begins with its median.
fn errors_of_attempts(text: &str) -> Vec<f64> {
    let mut errors: Vec<f64> = Vec::new();
    for line in text.lines() {
        let Some((name, found, truth)) = percentile(line) else { continue };
        let error = (found / truth - 1.0).abs() * 100.0;
        match errors.last_mut() {
            Some(largest) if name != "p50" => *largest = largest.max(error),
            _ => errors.push(error),
        }
    }
    errors
}

fn percentile(line: &str) -> Option<(&str, f64, f64)> {
    let (name, rest) = line.split_once(": ")?;
    let (found, truth) = rest.strip_suffix(" s")?.split_once(" s, in truth ")?;
    Some((name, found.parse().ok()?, truth.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_from_what_generators_print() {
        let figures = |rate, p99_us| Some(Figures { rate, p99_us });
        assert_eq!(throng_figures(r#"{"rate":81234.5,"p99_us":612}"#), figures(81234.5, 612.0));
        let oha = |errors: &str, code: &str| {
            format!(
                r#"{{"summary":{{"requestsPerSec":70000.5}},"latencyPercentiles":{{"p99":0.0005}},
                "statusCodeDistribution":{{"{code}":1}},"errorDistribution":{{{errors}}}}}"#
            )
        };
        let good = oha_figures(&oha(r#""aborted due to deadline":31"#, "200")).expect("no failures");
        assert!((good.rate - 70000.5).abs() < 1e-9 && (good.p99_us - 500.0).abs() < 1e-9, "{good:?}");
        assert_eq!(oha_figures(&oha(r#""Connection refused":3"#, "200")), None);
        assert_eq!(oha_figures(&oha("", "503")), None);
        let wrk = "  Latency Distribution\n     50%  280.00us\n     99%    1.52ms\n  9 requests in 1.0s\nRequests/sec:  98123.45\n";
        assert_eq!(wrk_figures(wrk), figures(98123.45, 1520.0));
        assert_eq!(wrk_figures(&format!("{wrk}  Non-2xx or 3xx responses: 9\n")), None);
        assert_eq!(wrk_figures(""), None);
    }

    #[test]
    fn latencies_have_units() {
        for (text, expected) in [
            ("850.00us", Some(850.0)),
            ("1.5ms", Some(1500.0)),
            ("2.00s", Some(2e6)),
            ("3.00m", None),
            ("", None),
        ] {
            assert_eq!(microseconds(text), expected, "{text}");
        }
    }

    #[test]
    fn each_attempt_has_its_largest_error() {
        let text = "p50: 0.2000 s, in truth 0.2000 s\np99: 0.9900 s, in truth 1.0000 s\nnoise\n\
                    p50: 0.2100 s, in truth 0.2000 s\np99: 1.0000 s, in truth 1.0000 s\n";
        let errors = errors_of_attempts(text);
        assert_eq!(errors.len(), 2);
        assert!((errors[0] - 1.0).abs() < 1e-9 && (errors[1] - 5.0).abs() < 1e-9, "{errors:?}");
        assert!(errors_of_attempts("running 1 test\ntest a: b ... ok").is_empty());
    }

    #[test]
    fn the_bar_is_set_by_oha_alone() {
        let round = |generator, rate| Round { generator, threads: 1, figures: Figures { rate, p99_us: 1.0 } };
        let rounds =
            [round(Generator::Throng, 80.0), round(Generator::Oha, 70.0), round(Generator::Wrk, 110.0)];
        let comparisons = comparisons(&rounds, &[1]);
        assert_eq!(comparisons.len(), 2);
        assert_eq!(comparisons[0].held(), Some(true));
        assert_eq!(comparisons[0].best_peer().map(|peer| peer.name.as_str()), Some("oha"));
    }
}
