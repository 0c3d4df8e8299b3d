//! Checks over the network, from where clients are: what they keep from work, and what they end.

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

const LIVING: &str = "
services:
  web:
    image: probe
    command: [serve, '80']
    restart: always
    stop_signal: SIGTERM
    stop_grace_period: 1s
    deploy: {replicas: 2}
    x-throng:
      startup: {tcp: {port: 80}, interval: 10s}
      liveness: {http: {port: 80, path: /livez}, interval: 200ms, timeout: 5s, retries: 2}
  once:
    image: probe
    command: [serve, '81']
    stop_grace_period: 1s
    x-throng:
      liveness: {exec: [/probe, get, '127.0.0.1:81', /livez], interval: 200ms, timeout: 5s, retries: 1}
  never:
    image: probe
    command: [say, nothing]
    restart: always
    stop_grace_period: 1s
    x-throng:
      startup: {tcp: {port: 83}, interval: 200ms, timeout: 5s, retries: 2}
      readiness: {exec: [/probe, exit, '0'], interval: 200ms}
      restart: {initial: 1h, max: 1h}
";

#[test]
fn a_replica_that_hangs_is_ended_and_comes_back() {
    let Some(bench) = Bench::with_probe("a_replica_that_hangs_is_ended_and_comes_back") else { return };
    bench.compose(LIVING);
    bench.ok(&["up", "-d", "--wait", "web", "once"]);
    let replica = |service: &str, ordinal: u32| {
        let is = |r: &serde_json::Value| r["Service"] == service && r["Ordinal"] == ordinal;
        bench.ps().into_iter().find(is).unwrap_or_default()
    };
    let (before, first) = (replica("web", 1), bench.pids("web-1"));
    bench.ok(&["exec", "--index", "1", "web", "/probe", "get", "127.0.0.1:80", "/hang"]);
    // It does not heed its stop signal, so it is killed when its grace period has passed.
    let after = until("the one that hangs is another process", || {
        let now = replica("web", 1);
        (now["Restarts"] == 1 && now["State"] == "running" && bench.pids("web-1") != first).then_some(now)
    });
    assert_eq!(before["Addresses"], after["Addresses"], "it keeps its identity");
    let other = replica("web", 2);
    assert_eq!((&other["Restarts"], &other["State"]), (&0.into(), &"running".into()), "others go on");
    let events = bench.ok(&["events", "--no-follow"]);
    events.prints("liveness check failed (1 of 2): GET :80/livez: no answer in time");
    events.prints("is ended: liveness check failed: GET :80/livez: no answer in time");
    events.prints("killed by signal 9");
    bench.ok(&["describe", "web"]).prints("GET :80/livez every 200ms");

    // Without a restart policy it stays down, and says why.
    bench.ok(&["exec", "once", "/probe", "get", "127.0.0.1:81", "/hang"]);
    let ended = until("the one that is not to be started again has ended", || {
        Some(replica("once", 1)).filter(|now| now["State"] == "exited")
    });
    assert!(ended["EndedFor"].as_str().is_some_and(|why| why.contains("liveness check failed")), "{ended}");
    bench.ok(&["ps", "--all"]).prints("Exited (137, liveness check failed)");
    bench.fails(1, &["up", "-d", "--wait", "web", "once"]).says("liveness check failed");
    bench.ok(&["down"]);
    bench.assert_clean();
}

#[test]
fn a_replica_that_does_not_start_up_in_time_is_ended() {
    let Some(bench) = Bench::with_probe("a_replica_that_does_not_start_up_in_time_is_ended") else { return };
    bench.compose(LIVING);
    bench.fails(1, &["up", "-d", "--wait", "--wait-timeout", "10", "never"]).says("startup check");
    let loops = until("it is in back-off", || {
        bench.ps().into_iter().find(|r| r["Service"] == "never" && r["State"] == "restarting")
    });
    assert_eq!(loops["Restarts"], 1, "at once, then with a pause: {loops}");
    bench.ok(&["ps"]).prints("startup check failed");
    let events = bench.ok(&["events", "--no-follow"]).out;
    assert!(!events.contains("never-1      healthy"), "nobody asks whether it is ready: {events}");
    bench.ok(&["down"]);
    bench.assert_clean();
}

#[test]
fn who_is_paused_and_asked_whether_it_lives_is_ended() {
    let name = "who_is_paused_and_asked_whether_it_lives_is_ended";
    let Some(bench) = Bench::with_app(name, support::apps::PAUSED) else { return };
    bench.ok(&["up", "-d", "--wait"]);
    let firsts = || ["asked-1", "inside-1", "held-1"].map(|name| bench.pids(name).first().copied());
    let before = firsts();
    for service in ["asked", "inside", "held"] {
        bench.ok(&["pause", service]).says(" paused");
    }
    for service in ["asked", "inside"] {
        until("it is ended and comes back", || {
            let now = bench.ps().into_iter().find(|replica| replica["Service"] == service)?;
            (now["Restarts"] == 1 && now["State"] == "running" && now["Health"] == "healthy").then_some(())
        });
    }
    let events = bench.ok(&["events", "--no-follow"]);
    events.prints("is ended: liveness check failed: GET :80/livez: no answer in time");
    events.prints("is ended: liveness check failed: `/probe get 127.0.0.1:81 /`").prints("is paused");
    // The kernel takes connections in the name of who is paused, so that its check finds it well.
    let held = bench.ps().into_iter().find(|replica| replica["Service"] == "held").expect("it is there");
    assert_eq!(held["State"], "paused", "{held}");
    bench.ok(&["unpause", "held"]).says("held-1 goes on");
    let after = firsts();
    assert!(after[0] != before[0] && after[1] != before[1] && after[2] == before[2], "{before:?} {after:?}");
    bench.ok(&["down"]);
    bench.assert_clean();
}
