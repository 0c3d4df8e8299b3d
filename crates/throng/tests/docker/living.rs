//! Checks that end replicas: of those that hang, of those that start slowly, of those that are paused.

use crate::support::{apps, until};
use crate::there::There;

/// `slow` answers after three seconds; its liveness check alone would end it a second after its start.
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
      liveness: {http: {port: 80, path: /livez}, interval: 300ms, timeout: 5s, retries: 2}
  once:
    image: probe
    command: [serve, '81']
    stop_grace_period: 1s
    x-throng:
      liveness: {exec: [/probe, get, '127.0.0.1:81', /livez], interval: 300ms, timeout: 5s, retries: 1}
  gone:
    image: probe
    command: [listen, '82', '2000']
    restart: on-failure
    stop_grace_period: 1s
    x-throng:
      liveness: {tcp: {port: 82}, interval: 300ms, timeout: 5s, retries: 2}
      restart: {initial: 1h, max: 1h}
  slow:
    image: probe
    command: [late, '3000', serve, '83']
    restart: always
    x-throng:
      startup: {http: {port: 83, path: /}, interval: 300ms, timeout: 5s, retries: 100}
      readiness: {tcp: {port: 83}, interval: 300ms, timeout: 5s}
      liveness: {tcp: {port: 83}, interval: 500ms, timeout: 5s, retries: 1}
  never:
    image: probe
    command: [say, nothing]
    restart: always
    stop_grace_period: 1s
    x-throng:
      startup: {tcp: {port: 84}, interval: 300ms, timeout: 5s, retries: 2}
      restart: {initial: 1h, max: 1h}
";

#[test]
fn who_hangs_on_docker_is_ended_and_who_starts_slowly_is_not() {
    let name = "who_hangs_on_docker_is_ended_and_who_starts_slowly_is_not";
    let Some(there) = There::new(name, "thr-live", 23) else { return };
    there.bench.compose(LIVING);
    there.ok(&["--on", "docker", "up", "-d", "--wait", "web", "once", "slow"]);
    let slow = there.replica("slow-1");
    assert_eq!((&slow["Health"], &slow["Restarts"]), (&"healthy".into(), &0.into()), "{slow}");
    let (before, first) = (there.replica("web-1"), there.pids(&["web-1"]));
    there.ok(&["exec", "--index", "1", "web", "/probe", "get", "127.0.0.1:80", "/hang"]);
    let after = until("the one that hangs is another process", || {
        let now = there.replica("web-1");
        (now["Restarts"] == 1 && now["State"] == "running" && there.pids(&["web-1"]) != first).then_some(now)
    });
    assert_eq!(before["Addresses"], after["Addresses"], "it keeps its identity");
    let other = there.replica("web-2");
    assert_eq!((&other["Restarts"], &other["State"]), (&0.into(), &"running".into()), "others go on");
    let events = there.ok(&["events", "--no-follow"]);
    events.prints("liveness check failed (1 of 2): GET :80/livez: no answer in time");
    events.prints("is ended: liveness check failed: GET :80/livez: no answer in time");

    there.ok(&["exec", "once", "/probe", "get", "127.0.0.1:81", "/hang"]);
    let ended = until("the one that is not to be started again has ended", || {
        Some(there.replica("once-1")).filter(|now| now["State"] == "exited")
    });
    assert!(ended["EndedFor"].as_str().is_some_and(|why| why.contains("liveness check failed")), "{ended}");
    there.ok(&["ps", "--all"]).prints("Exited (137, liveness check failed)");

    // Its port is closed after two seconds, while its process goes on.
    there.ok(&["up", "-d", "gone"]);
    until("it has been ended and started again", || {
        let now = there.replica("gone-1");
        (now["Restarts"] == 1 && now["State"] == "restarting").then_some(())
    });
    there.ok(&["events", "--no-follow"]).prints("is ended: liveness check failed: connect :82");
    there.fails(1, &["up", "-d", "--wait", "--wait-timeout", "10", "never"]).says("startup check");
    until("it is in back-off", || (there.replica("never-1")["State"] == "restarting").then_some(()));
    let slow = there.replica("slow-1");
    assert_eq!((&slow["Health"], &slow["Restarts"]), (&"healthy".into(), &0.into()), "{slow}");
    there.down();
}

#[test]
fn who_is_paused_on_docker_and_asked_whether_it_lives_is_ended() {
    let name = "who_is_paused_on_docker_and_asked_whether_it_lives_is_ended";
    let Some(there) = There::new(name, "thr-psl", 24) else { return };
    there.bench.compose(apps::PAUSED);
    there.ok(&["--on", "docker", "up", "-d", "--wait"]);
    let names = ["asked-1", "inside-1", "held-1"];
    let before = there.pids(&names);
    there.ok(&["pause", "asked"]);
    there.ok(&["pause", "inside"]);
    there.ok(&["pause", "held"]);
    for name in &names[..2] {
        until("it is ended and comes back", || {
            let now = there.replica(name);
            (now["Restarts"] == 1 && now["State"] == "running" && now["Health"] == "healthy").then_some(())
        });
    }
    let events = there.ok(&["events", "--no-follow"]);
    events.prints("is ended: liveness check failed: GET :80/livez: no answer in time");
    events.prints("is ended: liveness check failed: `/probe get 127.0.0.1:81 /`").prints("is paused");
    // The kernel takes connections in the name of who is paused, so that its check finds it well.
    assert_eq!(
        (there.replica("held-1")["State"].as_str(), there.pids(&names)[2]),
        (Some("paused"), before[2])
    );
    there.ok(&["unpause", "held"]).says("held-1 goes on");
    there.ok(&["unpause", "held"]).says("there is no replica to let go on");
    let after = there.pids(&names);
    assert!(after[0] != before[0] && after[1] != before[1] && after[2] == before[2], "{before:?} {after:?}");
    there.down();
}
