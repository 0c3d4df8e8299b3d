//! `throng load` against a server that the test itself runs.

mod support;

use serde_json::Value;
use std::sync::atomic::Ordering;
use std::time::Duration;
use support::web::{Server, free_port};
use support::{Bench, Done};

fn result(done: &Done) -> Value {
    serde_json::from_str(&done.out).unwrap_or_else(|error| panic!("{error}: {}", done.out))
}

#[test]
fn a_closed_loop_sends_exactly_what_was_asked_for() {
    let (bench, server) = (Bench::anywhere(), Server::start(Duration::from_millis(1)));
    let done = bench.ok(&["load", &server.url(), "-c", "4", "-n", "25", "--json"]);
    assert_eq!(server.requests.load(Ordering::SeqCst), 100);
    let load = &result(&done)["result"];
    for (field, value) in [("requests", 100), ("succeeded", 100)] {
        assert_eq!(load[field], value, "{field}");
    }
    assert_eq!(load["status"]["200"], 100);
    let percentile = |name: &str| load["latency"]["percentiles"][name].as_u64().expect(name);
    assert!(percentile("50") >= 1_000, "microseconds, and the server waits for one millisecond: {load}");
    assert!(
        percentile("50") <= percentile("99")
            && percentile("99") <= load["latency"]["max"].as_u64().expect("max")
    );
    assert!(load["rate"].as_f64().expect("a rate") > 0.0);
    let table = bench.ok(&["load", &server.url(), "-n", "5"]);
    table.prints("5 requests in").prints("P99").prints("MAX");
}

#[test]
fn an_open_loop_sends_at_its_rate_whatever_the_answers_do() {
    let (bench, server) = (Bench::anywhere(), Server::start(Duration::from_millis(200)));
    let arguments = ["--rate", "50", "--duration", "2s", "--arrivals", "constant", "--json"];
    let done = bench.ok(&[&["load", &server.url()][..], &arguments].concat());
    let load = &result(&done)["result"];
    // One client in a closed loop would come to ten.
    assert_eq!((&load["requests"], &load["succeeded"]), (&100.into(), &100.into()));
    assert!(load["latency"]["percentiles"]["50"].as_u64() >= Some(200_000));
}

#[test]
fn thresholds_set_the_exit_code() {
    let (bench, server) = (Bench::anywhere(), Server::start(Duration::ZERO));
    let load = |more: &[&str]| bench.run(&[&["load", &server.url(), "-n", "10"][..], more].concat());
    let done = load(&["--require", "errors<1%", "--require", "p95<30s"]);
    assert_eq!(done.code, 0, "{}", done.err);
    done.prints("errors<1%  (measured");
    let done = load(&["--require", "p50>10s", "--require", "errors<1%"]);
    assert_eq!(done.code, 1);
    done.says("error: 1 of 2 thresholds did not hold");
    server.failing.store(true, Ordering::SeqCst);
    let done = load(&["--require", "errors<1%", "--json"]);
    assert_eq!(done.code, 1);
    let value = result(&done);
    assert_eq!((&value["thresholds"][0]["held"], &value["result"]["succeeded"]), (&false.into(), &0.into()));
    let errors = value["result"]["errors"].as_object().expect("errors by kind");
    assert_eq!(errors.values().filter_map(Value::as_u64).sum::<u64>(), 10, "{errors:?}");
    let done = load(&["--require", "p95<soon"]);
    assert_eq!(done.code, 2);
    done.says("p95<soon").says("hint:");
}

#[test]
fn a_target_that_cannot_be_reached_is_counted_and_can_be_required() {
    let bench = Bench::anywhere();
    let url = format!("http://127.0.0.1:{}/", free_port());
    let done = bench.ok(&["load", &url, "-n", "3", "--json"]);
    let load = &result(&done)["result"];
    assert_eq!((&load["requests"], &load["succeeded"]), (&3.into(), &0.into()));
    bench.fails(1, &["load", &url, "-n", "3", "--require", "errors<1%"]).prints("ERROR");
    let none = bench.ok(&["load", &url, "-n", "3"]);
    none.prints("–").says("3 requests, none succeeded: 3 × connect (nobody listens there");
    assert!(!none.out.contains("0 µs") && !none.err.contains('✔'), "{}{}", none.out, none.err);
    assert_eq!(load["latency"]["percentiles"]["50"], Value::Null, "no latency is not a latency of 0");
    assert_eq!(load["latency"]["max"], Value::Null);
    bench.fails(3, &["load", "web"]).says("no app is up");
    bench.fails(2, &["load", "ftp://localhost/"]).says("ftp");
    bench.fails(2, &["load", &url, "--rate", "10"]).says("--duration");
    bench.fails(2, &["load", &url, "-n", "3", "--duration", "1s"]).says("both end the load");
    bench.fails(2, &["load", &url, "--duration", "soon"]).says("soon");
    bench.fails(2, &["load", &url, "-H", "nonsense"]).says("is not a header").says("hint:");
    bench.fails(2, &["load", &url, "--data", "@missing"]).says("cannot read missing");
    bench.fails(2, &["load"]).says("required");
}

#[test]
fn what_cannot_be_loaded_is_answered_with_what_can() {
    let bench = Bench::anywhere();
    let url = format!("http://127.0.0.1:{}/", free_port());
    for (target, said, hint) in [
        ("127.0.0.1:8899", "127.0.0.1 is an address", "write http://127.0.0.1:8899"),
        ("localhost:8899/", "localhost is an address", "write http://localhost:8899/"),
        ("http://", "empty host", "write a URL such as http://"),
        ("http://127.0.0.1:99999/", "invalid port", "ports go from 1 to 65535"),
        ("web:99999", "\"99999\" is not a port", "write a URL, or SERVICE:PORT"),
        ("http://nowhere.invalid/", "cannot resolve nowhere.invalid", "check the name"),
    ] {
        bench.fails(2, &["load", target]).says(said).says(&format!("hint: {hint}"));
    }
    bench.fails(3, &["load", "example.test:80"]).says("if it is a host, write http://example.test:80");
    for (flags, said) in [
        (&["--rate", "0", "-d", "1s"][..], "above 0"),
        (&["--rate", "-5", "-d", "1s"], "above 0"),
        (&["--threads", "0"], "from 1 to 256"),
        (&["--clients", "0"], "1..=100000"),
        (&["--image", "99999x99999"], "each from 1 to 65535"),
        (&["--image", "60000x60000"], "not between 1 and 50000000"),
        (&["--arrivals", "constant"], "--rate"),
        (&["--max-connections", "5"], "--rate"),
    ] {
        bench.fails(2, &[&["load", &url], flags].concat()).says(said);
    }
}

#[test]
fn a_log_of_histograms_is_written() {
    let (bench, server) = (Bench::anywhere(), Server::start(Duration::from_millis(1)));
    bench.ok(&["load", &server.url(), "-n", "50", "--hdr-log", "latency.hlog"]);
    let log = std::fs::read_to_string(bench.folder.join("latency.hlog")).expect("a log");
    assert!(log.starts_with("#[") && log.contains("\n#[StartTime: "), "{log}");
    // Interval lines carry start, length, maximum and a base64 histogram that begins with its version cookie.
    let line = log.lines().rfind(|line| !line.starts_with(['#', '"'])).expect("an interval");
    assert!(line.split(',').next_back().is_some_and(|encoded| encoded.starts_with("HISTF")), "{line}");
    let before = server.requests.load(Ordering::SeqCst);
    bench
        .fails(4, &["load", &server.url(), "-n", "1", "--hdr-log", "no/such/folder"])
        .says("cannot write no/such/folder")
        .says("hint:");
    assert_eq!(server.requests.load(Ordering::SeqCst), before, "refused before anything is sent");
    // A full disk shows only at the end; what was measured is printed all the same.
    let done = bench.fails(4, &["load", &server.url(), "-n", "1", "--hdr-log", "/dev/full"]);
    done.prints("1 requests in").says("/dev/full").says("hint:");
}

#[test]
fn ctrl_c_ends_a_load_with_what_it_has_measured() {
    let (bench, server) = (Bench::anywhere(), Server::start(Duration::from_millis(5)));
    let load = bench.spawn(&["load", &server.url(), "--duration", "50s", "--json"]);
    support::until("requests come", || (server.requests.load(Ordering::SeqCst) > 5).then_some(()));
    load.signal(rustix::process::Signal::INT);
    let done = load.wait();
    assert_eq!(done.code, 130);
    assert!(result(&done)["result"]["succeeded"].as_u64() > Some(4));
}

#[test]
fn a_service_is_loaded_by_its_name() {
    let Some(bench) = Bench::with_probe("a_service_is_loaded_by_its_name") else { return };
    bench.compose(
        "services:\n  web:\n    image: probe\n    command: [serve, '80']\n    deploy: {replicas: 2}\n    healthcheck: \
         {test: [CMD, /probe, healthy, '80'], interval: 1s, timeout: 5s}\n",
    );
    bench.ok(&["up", "-d", "--wait"]);
    bench.fails(2, &["load", "web"]).says("web publishes no port").says("web:8080");
    // It publishes no port, so the load gets a way in of its own.
    let done =
        bench.ok(&["load", "web:80/slow?1", "-c", "4", "-n", "10", "--json", "--require", "errors<1%"]);
    assert_eq!(result(&done)["result"]["succeeded"], 40);
    bench.fails(3, &["load", "nobody"]).says("no service nobody").says("it has: web");
    bench.ok(&["down"]);
    bench.assert_clean();
}
