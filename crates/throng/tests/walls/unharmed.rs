//! Walls of others that this engine does not have: under the limit that stops them it goes on as before.

use crate::inside::{Setting, inside, run, tmpfs};
use crate::support::{Bench, skip};
use crate::{idle, names_none};
use std::fs;
use throng_walls::{Host, Source};

#[test]
fn keys_are_not_needed() {
    let name = "unharmed::keys_are_not_needed";
    inside(name, &["-n", "-m"], |bench| {
        bench.build_probe();
        let Some(_setting) = Setting::put("kernel.keys.maxkeys", 1) else {
            return skip(name, "no keys here");
        };
        bench.compose(
            "services:\n  web: {image: probe, command: [say, x], user: '64993', deploy: {replicas: 5}}\n",
        );
        bench.ok(&["up", "-d", "--wait"]);
        bench.ok(&["down"]);
        bench.assert_clean();
    });
}

#[test]
fn mounts_of_the_host_are_not_copied() {
    inside("unharmed::mounts_of_the_host_are_not_copied", &["-n", "-m"], |bench| {
        let many = bench.folder.join("many");
        tmpfs(&many, "size=16m");
        let script = "mkdir one; for n in $(seq 500); do mkdir $n && mount --bind one $n || exit; done";
        run("sh", &["-c", &format!("cd '{}' && {script}", many.display())]).expect("500 mounts");
        idle(&bench, "");
        bench.ok(&["scale", "web=1"]);
        let inside = bench.ok(&["exec", "web", "/probe", "read", "/proc/self/mountinfo"]).out;
        assert!(inside.lines().count() < 60, "{} mounts in a replica", inside.lines().count());
        bench.ok(&["down"]);
        bench.assert_clean();
    });
}

#[test]
fn a_published_port_is_one_listener_whatever_the_replicas() {
    inside("unharmed::a_published_port_is_one_listener_whatever_the_replicas", &["-n", "-m"], |bench| {
        bench.build_probe();
        bench.compose(
            "services:\n  web: {image: probe, command: [serve, '80'], ports: ['127.0.0.1:8080:80']}\n",
        );
        // The fourth column is the state, of which 0A is LISTEN (proc_net(5)).
        let listeners = || {
            let text = fs::read_to_string("/proc/net/tcp").expect("sockets");
            text.lines().filter(|line| line.split_whitespace().nth(3) == Some("0A")).count()
        };
        bench.ok(&["up", "-d", "--wait"]);
        let one = listeners();
        bench.ok(&["scale", "web=30"]);
        assert_eq!(listeners(), one);
        bench.ok(&["down"]);
        bench.assert_clean();
    });
}

/// Instances of inotify that the supervisor holds.
fn watchers(bench: &Bench) -> usize {
    let supervisor = bench.supervisor().expect("a supervisor");
    let open = fs::read_dir(format!("/proc/{supervisor}/fd")).expect("descriptors").flatten();
    let targets = open.filter_map(|entry| fs::read_link(entry.path()).ok());
    targets.filter(|target| target.to_string_lossy().contains("inotify")).count()
}

/// Starts so many replicas of a server, and says how long a start took on average, in seconds.
fn average_start(bench: &Bench, replicas: u32, ports: &str) -> f64 {
    bench.compose(&format!(
        "services:\n  web: {{image: probe, command: [say, x], deploy: {{replicas: {replicas}}}, ports: [{ports}]}}\n"
    ));
    bench.ok(&["up", "-d", "--wait"]);
    let text = bench.ok(&["metrics"]).out;
    bench.ok(&["down"]);
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.rsplit_once(' '));
        line.and_then(|(_, value)| value.parse::<f64>().ok()).expect("a figure")
    };
    value("throng_start_duration_seconds_sum") / value("throng_start_duration_seconds_count").max(1.0)
}

/// With a proxy or a rule for each port of each replica these would be three thousand.
#[test]
fn published_ports_do_not_slow_starts() {
    inside("unharmed::published_ports_do_not_slow_starts", &["-n", "-m"], |bench| {
        bench.build_probe();
        let ports: Vec<String> = (0..20).map(|n| format!("'127.0.0.1:{}:{}'", 9_000 + n, 80 + n)).collect();
        // Others use the same cores, so the best of a few.
        let best = |ports: &str| (0..3).map(|_| average_start(&bench, 150, ports)).fold(f64::MAX, f64::min);
        let (without, with) = (best(""), best(&ports.join(", ")));
        assert!(with < without * 2.0 + 0.002, "{with} s a start with ports, {without} s without");
        if let Ok(rules) = run("nft", &["list", "ruleset"]) {
            assert_eq!(rules, "", "no rules are made");
        }
        bench.assert_clean();
    });
}

#[test]
fn a_busy_crowd_is_no_wall() {
    inside("unharmed::a_busy_crowd_is_no_wall", &["-n", "-m"], |bench| {
        bench.build_probe();
        bench.compose(
            "services:
  web: {image: probe, command: [serve, '80'], ports: ['127.0.0.1:8080:80'], deploy: {replicas: 100}}
  shouter: {image: probe, command: [shout, '10.213.13.255:9', '20'], deploy: {replicas: 3}}
networks: {default: {ipam: {config: [{subnet: 10.213.13.0/24}]}}}
",
        );
        // What others of this host lose meanwhile is told to everybody, and is none of this test's business.
        let lost = || {
            let counters = Host::pulse(&Source::live("/")).counters;
            [counters.backlog_drops, counters.arp_fulls, counters.ndisc_fulls]
        };
        for last in [false, false, true] {
            let before = lost();
            let mut said = bench.ok(&["up", "-d", "--wait"]).err;
            assert_eq!(watchers(&bench), 0, "the supervisor takes none of the host's instances of inotify");
            said += &bench.ok(&["load", "web", "-c", "20", "-n", "4000"]).err;
            for count in [140, 60, 0, 100] {
                said += &bench.ok(&["scale", &format!("web={count}")]).err;
            }
            said += &bench.ok(&["events", "--no-follow"]).out;
            bench.ok(&["down"]);
            if lost() == before || last {
                names_none(&said);
                break;
            }
        }
        bench.assert_clean();
    });
}
