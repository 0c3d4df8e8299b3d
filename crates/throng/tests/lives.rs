//! What is known of replicas after the supervisor that knew it was killed.

mod support;

use rustix::process::Signal;
use std::time::{Duration, SystemTime};
use support::{Bench, kill, until};

#[test]
fn a_crash_loop_goes_on_where_it_was_under_the_next_supervisor() {
    let Some(bench) = Bench::with_probe("a_crash_loop_goes_on_where_it_was_under_the_next_supervisor") else {
        return;
    };
    bench.compose(
        "
services:
  web:
    image: probe
    command: [exit, '3']
    restart: always
    x-throng: {restart: {initial: 500ms, factor: 5, max: 1m, reset: 10m}}
",
    );
    bench.ok(&["up", "-d"]);
    // At once, after 0.5 s, after 2.5 s; the next pause is 12.5 s.
    until("it has been tried four times", || {
        let web = bench.ps().remove(0);
        (web["Restarts"] == 3 && web["State"] == "restarting").then_some(())
    });
    // What is written is a second behind at most.
    std::thread::sleep(Duration::from_millis(2_500));
    kill(bench.supervisor().expect("a supervisor"), Signal::KILL);
    until("it is gone", || (!bench.listens()).then_some(()));
    let web = bench.ps().remove(0);
    assert_eq!((&web["Restarts"], &web["State"]), (&3.into(), &"restarting".into()), "{web}");
    let next: jiff::Timestamp = web["NextStart"].as_str().expect("a time").parse().expect("a time");
    let pause = SystemTime::from(next).duration_since(SystemTime::now()).unwrap_or_default();
    assert!(pause > Duration::from_secs(8), "{pause:?}: not as if it had never been tried");
    // Of what has been removed nothing is remembered.
    bench.ok(&["down"]);
    bench.assert_clean();
    bench.ok(&["up", "-d"]);
    let web = bench.ps().remove(0);
    assert!(web["Restarts"].as_u64() < Some(3), "{web}");
}
