//! `x-throng.readiness`, `liveness` and `startup`: what is read, what is refused, and where.

use crate::common::{Case, check};
use std::time::Duration;
use throng_model::app::{HealthCheck, HealthTest, Service};

/// The service whose `x-throng` is this, after it has gone through the canonical text and back.
fn service(text: &str) -> Service {
    let text = format!("services:\n  web:\n    image: web\n    x-throng: {text}\n");
    check(&text, "");
    let load = |text: &str| {
        let (loaded, _) = Case { files: &[("compose.yaml", text)], ..Case::default() }.load();
        loaded.expect("a good file").app
    };
    let app = load(&text);
    let again = load(&throng_compose::to_yaml(&app));
    assert_eq!(app.services["web"], again.services["web"], "{text}");
    app.services["web"].clone()
}

fn readiness(text: &str) -> HealthCheck {
    service(&format!("{{readiness: {text}}}")).health_check.expect("a check")
}

#[test]
fn tests_over_the_network_are_read_and_printed() {
    let http = readiness("{http: {port: 8080, path: /healthz}, interval: 2s, retries: 5}");
    assert_eq!(http.test, HealthTest::Http { port: 8080, path: "/healthz".into() });
    assert_eq!(
        (http.interval, http.timeout, http.retries),
        (Duration::from_secs(2), Duration::from_secs(1), 5)
    );
    let bare = readiness("{http: {port: 80}}");
    assert_eq!((bare.test.to_string().as_str(), bare.interval), ("GET :80/", Duration::from_secs(10)));
    assert_eq!(readiness("{tcp: {port: 5432}}").test, HealthTest::Tcp { port: 5432 });
    let grpc = readiness("{grpc: {port: 50051, service: shop.Cart}, timeout: 3s}");
    assert_eq!(grpc.test, HealthTest::Grpc { port: 50051, service: "shop.Cart".into() });
    assert_eq!(readiness("{grpc: {port: 1}}").test.to_string(), "grpc :1");
    assert_eq!(readiness("{exec: [/probe, x]}").test, HealthTest::Exec(vec!["/probe".into(), "x".into()]));
}

#[test]
fn the_three_questions_are_apart() {
    let read = service(
        "{startup: {exec: [/probe, up], retries: 30}, liveness: {http: {port: 80, path: /live}, start_period: 1m}}",
    );
    assert!(read.health_check.is_none(), "nobody asks whether it is ready");
    let startup = read.startup.expect("a startup check");
    assert_eq!((startup.test.to_string().as_str(), startup.retries), ("/probe up", 30));
    let liveness = read.liveness.expect("a liveness check");
    let second = Duration::from_secs(1);
    assert_eq!(
        (liveness.test.to_string().as_str(), liveness.interval, liveness.timeout, liveness.retries),
        ("GET :80/live", 10 * second, second, 3),
        "Kubernetes' defaults"
    );
    assert_eq!(liveness.start_period, 60 * second);
}

#[test]
fn it_comes_before_what_compose_says() {
    let text = "services:
  web:
    image: web
    healthcheck: {test: [CMD, curl, localhost]}
    x-throng: {readiness: {tcp: {port: 80}}}
";
    let (loaded, _) = Case { files: &[("compose.yaml", text)], ..Case::default() }.load();
    let app = loaded.expect("a good file").app;
    assert_eq!(
        app.services["web"].health_check.as_ref().map(|c| c.test.to_string()),
        Some("connect :80".into())
    );
}

#[test]
fn what_makes_no_sense_is_pointed_at() {
    let wrong = |text: &str, expected: &str| {
        check(
            &format!("services:\n  web:\n    image: web\n    x-throng:\n      readiness: {text}\n"),
            expected,
        );
    };
    const TESTS: &str =
        "(hint: name one of http: {port, path}, tcp: {port}, grpc: {port, service}, exec: [command, …])";
    wrong("{}", &format!("compose.yaml:5:7: error: readiness needs exactly one test, not 0 {TESTS}"));
    let both = format!("compose.yaml:5:7: error: readiness needs exactly one test, not 2 {TESTS}");
    wrong("{tcp: {port: 1}, http: {port: 1}}", &both);
    let no_port = "compose.yaml:5:19: error: http does not say at which port (hint: add port: the port inside the replica)";
    wrong("{http: {path: /}}", no_port);
    wrong("{tcp: {port: 0}}", "compose.yaml:5:31: error: nobody listens at port 0");
    wrong("{tcp: {port: 70000}}", "compose.yaml:5:31: error: expected a port, found \"70000\"");
    wrong(
        "{http: {port: 1, path: x}}",
        "compose.yaml:5:41: error: \"x\" is no path (hint: begin it with /, as in /healthz)",
    );
    wrong(
        "{htp: {port: 1}, tcp: {port: 1}}",
        "compose.yaml:5:19: error: unknown key \"htp\" (hint: did you mean http?)",
    );
    check(
        "services:\n  web:\n    image: web\n    x-throng:\n      liveness: {tcp: {port: 1}, start_interval: 1s}\n",
        "compose.yaml:5:50: error: a liveness check has one pace (hint: remove it; start_period says when the first \
         question comes, startup what must come before)",
    );
    check(
        "services:\n  web:\n    image: web\n    x-throng:\n      livenes: {tcp: {port: 1}}\n",
        "compose.yaml:5:7: error: unknown key \"livenes\" (hint: did you mean liveness?)",
    );
    wrong(
        "{tcp: {port: 1}, timeout: 0s}",
        "compose.yaml:5:44: error: a health check's timeout must be longer than 0",
    );
}
