//! Checks over the network, from where clients are.

mod support;

use support::{Bench, until};

const APP: &str = "
services:
  web:
    image: probe
    command: [serve, '80']
    deploy: {replicas: 2}
    x-throng:
      readiness: {http: {port: 80, path: /healthz}, interval: 100ms, timeout: 5s, retries: 1}
  plain:
    image: probe
    command: [serve, '81']
    x-throng:
      readiness: {tcp: {port: 81}, interval: 100ms, timeout: 5s}
  deaf:
    image: probe
    command: [serve, '82']
    x-throng:
      readiness: {grpc: {port: 82}, interval: 100ms, timeout: 5s, retries: 1}
";

fn ready_by_http_and_tcp(bench: &Bench) {
    bench.compose(APP);
    bench.ok(&["up", "-d", "--wait", "web", "plain"]);
    let healthy = |service: &str, ordinal: u32| {
        let is = |r: &serde_json::Value| {
            r["Service"] == service && r["Ordinal"] == ordinal && r["Health"] == "healthy"
        };
        bench.ps().iter().any(is)
    };
    assert!(healthy("web", 1) && healthy("web", 2) && healthy("plain", 1), "{:?}", bench.ps());
    bench.ok(&["exec", "web", "/probe", "get", "127.0.0.1:80", "/sick"]);
    until("one of two is not ready any more", || (!healthy("web", 1)).then_some(()));
    assert!(healthy("web", 2));
    bench.ok(&["events", "--no-follow"]).prints("GET :80/healthz: answered 503");
    bench.fails(1, &["up", "-d", "--wait", "deaf"]).says("grpc :82");
    bench.ok(&["down"]);
    bench.assert_clean();
}

#[test]
fn a_replica_is_ready_while_it_answers_over_the_network() {
    let Some(bench) = Bench::with_probe("a_replica_is_ready_while_it_answers_over_the_network") else {
        return;
    };
    ready_by_http_and_tcp(&bench);
}
