//! `throng ceiling` finds the count that holds and names what stops more.

mod support;

use support::Bench;

#[test]
fn the_largest_count_that_holds_is_found_and_the_app_is_put_back() {
    let Some(bench) = Bench::with_probe("the_largest_count_that_holds_is_found_and_the_app_is_put_back")
    else {
        return;
    };
    // 16 addresses: the network's own, the gateway's, the one for all, and 13 replicas.
    bench.compose(
        "services:\n  web: {image: probe, command: [serve, '80'], deploy: {replicas: 2}}\n\
         networks: {default: {ipam: {config: [{subnet: 10.213.9.0/28}]}}}\n",
    );
    bench.ok(&["up", "-d", "--wait"]);
    let done = bench.ok(&[
        "ceiling",
        "web",
        "--most",
        "40",
        "--hold",
        "100ms",
        "--patience",
        "30s",
        "--format",
        "json",
    ]);
    let found = done.json().remove(0);
    let trials = found["trials"].as_array().expect("trials");
    let counts: Vec<u64> = trials.iter().filter_map(|trial| trial["replicas"].as_u64()).collect();
    assert_eq!(counts[..5], [1, 2, 4, 8, 16], "{counts:?}");
    assert_eq!((found["stable"].as_u64(), found["broke"].as_u64()), (Some(13), Some(14)), "{found:#}");
    let broke = trials.iter().find(|trial| trial["held"] == false).expect("one broke");
    let reason = broke["reason"].as_str().unwrap_or_default();
    assert!(reason.contains("no free address in 10.213.9.0/28"), "{reason}");
    assert_eq!(bench.states().len(), 2, "as many as before");

    let done = bench.ok(&["ceiling", "web", "--most", "3", "--batch", "1", "--hold", "100ms", "--stay"]);
    done.prints("web holds 3 replicas; nothing gave way");
    assert_eq!(bench.states().len(), 3);

    bench.fails(2, &["ceiling", "web", "--batch", "0"]).says("neither `auto` nor a number above zero");
    bench.fails(3, &["ceiling", "nobody"]).says("no service nobody");
    bench.ok(&["down"]);
    bench.assert_clean();
}

#[test]
fn a_service_at_its_own_limit_is_told_from_a_host_at_its_limit() {
    let Some(bench) = Bench::with_probe("a_service_at_its_own_limit_is_told_from_a_host_at_its_limit") else {
        return;
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    bench.compose(
        "services:\n  web: {image: probe, command: [serve, '80'], deploy: {resources: {limits: {cpus: '0.1'}}}}\n  \
         busy: {image: probe, command: [spin], deploy: {replicas: 0}}\n",
    );
    bench.ok(&["up", "-d", "--wait"]);
    let ceiling =
        |arguments: &[&str]| bench.ok(&[&["ceiling", "--most", "1", "--hold", "10ms"], arguments].concat());
    let load = ["web:80/spin?20", "--until", "p50<1ms", "-c", "4", "--duration", "4s"];
    let found = ceiling(&[&load[..], &["--format", "json"]].concat()).json().remove(0);
    let broke = &found["trials"][0];
    assert_eq!(
        (&broke["own_limit"]["cpus"], &broke["wall"]),
        (&0.1.into(), &serde_json::Value::Null),
        "{found:#}"
    );
    ceiling(&load).prints("the wall: the limit of web itself, 0.1 cores for each replica");

    let most = (4 * cores).to_string();
    let climb =
        ["ceiling", "busy", "--most", &most, "--hold", "10ms", "--patience", "6s", "--format", "json"];
    let found = bench.ok(&climb).json().remove(0);
    let broke = found["trials"].as_array().and_then(|all| all.iter().find(|trial| trial["held"] == false));
    assert_eq!(broke.expect("more spin than there are cores")["wall"]["id"], "cpu", "{found:#}");
    bench.ok(&["down"]);
    bench.assert_clean();
}
