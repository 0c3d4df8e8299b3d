//! Networks that lose what they should carry. Nothing prints an error there; the product tells.

use crate::inside::{Setting, inside, inside_after, run};
use crate::support::{Bench, skip, until};
use crate::{assert_names, names_none};
use rustix::process::Signal;
use std::fs;
use std::time::Duration;
use throng_walls::WallId;

/// Addresses of the first and the last replica of `web`.
fn ends(bench: &Bench) -> (String, String) {
    let mut replicas = bench.ps();
    replicas.sort_by_key(|replica| replica["Ordinal"].as_u64());
    let address = |replica: Option<&serde_json::Value>| {
        replica.and_then(|replica| replica["Addresses"][0].as_str()).expect("an address").to_owned()
    };
    (address(replicas.first()), address(replicas.last()))
}

/// What a line tells to type.
fn moves(text: &str) -> &str {
    let (_, rest) = text.split_once("what moves it: ").expect("a remedy");
    rest.lines().next().unwrap_or_default()
}

/// A host whose filter sees what its bridges carry.
fn with_filter(name: &str, test: impl FnOnce(Bench)) {
    if let Err(error) = run("iptables", &["--version"]) {
        return skip(name, &error);
    }
    inside(name, &["-n", "-m"], |bench| {
        if fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", "1").is_err() {
            return skip(name, "the kernel shows its filter no bridged frames (br_netfilter)");
        }
        bench.build_probe();
        test(bench);
    });
}

#[test]
fn a_filter_like_dockers_is_told_before_anything_is_lost() {
    with_filter("links::a_filter_like_dockers_is_told_before_anything_is_lost", |bench| {
        // Behind two parents: 256 addresses share one, and what they say to each other passes no bridge.
        bench.compose("services:\n  web: {image: probe, command: [serve, '80'], deploy: {replicas: 260}}\n");
        names_none(&bench.ok(&["up", "-d", "--wait"]).err);
        let (first, _) = ends(&bench);
        // From the parent with few: what others do to the host's queues meanwhile does not matter.
        let dial =
            || bench.ok(&["exec", "--index", "260", "web", "/probe", "dial", &format!("{first}:80")]).out;
        until("it answers", || (dial() == "reached\n").then_some(()));
        bench.ok(&["down"]);

        run("iptables", &["-P", "FORWARD", "DROP"]).expect("Docker's policy");
        let up = bench.ok(&["up", "-d", "--wait"]);
        assert_names(&up.err, WallId::DockerFilter);
        up.says("warning: the wall is").says("bridge-nf-call-iptables is 1");
        assert!(dial().contains("timed out"), "what is told is so");
        run("sh", &["-c", moves(&up.err)]).expect("what moves it can be typed");
        until("it answers again", || (dial() == "reached\n").then_some(()));
        names_none(&bench.ok(&["scale", "web=2"]).err);
        assert_names(&bench.ok(&["events", "--no-follow"]).out, WallId::DockerFilter);
        bench.ok(&["down"]);
        bench.assert_clean();
    });
}

#[test]
fn an_app_in_the_foreground_is_told_of_the_filter() {
    with_filter("links::an_app_in_the_foreground_is_told_of_the_filter", |bench| {
        run("iptables", &["-P", "FORWARD", "DROP"]).expect("Docker's policy");
        bench.compose("services:\n  web: {image: probe, command: [serve, '80']}\n");
        let mut up = bench.spawn(&["up"]);
        up.says("the wall is Docker's packet filter");
        up.signal(Signal::INT);
        let done = up.wait();
        assert_eq!(done.code, 130, "{}", done.err);
        assert_names(&done.err, WallId::DockerFilter);
        bench.assert_clean();
    });
}

/// All behind one parent, which hands a broadcast on to all of them at once.
const HEARERS: u32 = 160;

#[test]
fn broadcasts_overflow_a_cpus_queue() {
    let name = "links::broadcasts_overflow_a_cpus_queue";
    let lower = || {
        let setting = Setting::put("net.core.netdev_max_backlog", u64::from(HEARERS / 2));
        setting.ok_or("net.core.netdev_max_backlog cannot be set")
    };
    // Only the host's own namespace shows the setting, which is what moves the wall.
    inside_after(lower, name, &["-m"], |bench| {
        bench.build_probe();
        bench.compose(&format!(
            "services:
  web: {{image: probe, command: [say, x], deploy: {{replicas: {HEARERS}}}}}
  shouter: {{image: probe, command: [shout, '10.213.12.255:9', '5'], deploy: {{replicas: 0}}}}
networks: {{default: {{ipam: {{config: [{{subnet: 10.213.12.0/24}}]}}}}}}
"
        ));
        // Nobody looks but who is asked to, at the end of a command.
        let mut up = bench.command(&["up", "-d", "--wait"]);
        up.env("THRONG_WALLS_PERIOD", "3600");
        let up = bench.spawn_with(up).wait();
        assert_eq!(up.code, 0, "{}", up.err);
        names_none(&up.err);
        let first = bench.ok(&["scale", "shouter=1"]).err;
        std::thread::sleep(Duration::from_millis(500));
        let second = bench.ok(&["scale", "web=150"]).err;
        assert_names(&(first + &second), WallId::BroadcastBacklog);
        bench.ok(&["down"]);
        bench.ok(&["up", "-d", "--wait"]);
        bench.ok(&["scale", "shouter=1"]);
        let events = until("it is told", || {
            let events = bench.ok(&["events", "--no-follow"]).out;
            events.contains("the wall is").then_some(events)
        });
        assert_names(&events, WallId::BroadcastBacklog);
        assert!(events.contains("packets dropped from a CPU's full queue (softnet_stat): "), "{events}");
        assert_eq!(moves(&events), "sysctl -w net.core.netdev_max_backlog=256");
        bench.ok(&["down"]);
        bench.assert_clean();
    });
}

#[test]
fn the_neighbour_table_is_full() {
    /// The kernel's default is 1,024.
    const MOST: u64 = 2_000;
    let name = "links::the_neighbour_table_is_full";
    let lower = || {
        let most = fs::read_to_string("/proc/sys/net/ipv4/neigh/default/gc_thresh3").unwrap_or_default();
        match most.trim().parse::<u64>() {
            Err(_) => Err("no such table here"),
            Ok(most) if most <= MOST => Ok(None),
            Ok(_) => {
                let setting = Setting::put("net.ipv4.neigh.default.gc_thresh3", MOST);
                setting.map(Some).ok_or("the table is too large to fill")
            }
        }
    };
    // The host's own namespace alone shows the counter.
    inside_after(lower, name, &["-m"], |bench| {
        bench.build_probe();
        bench.compose("services:\n  web: {image: probe, command: [say, x]}\n");
        bench.ok(&["up", "-d", "--wait"]);
        let (first, _) = ends(&bench);
        let events = until("it is told", || {
            bench.ok(&["exec", "web", "/probe", "greet", &first, "4000"]);
            let events = bench.ok(&["events", "--no-follow"]).out;
            events.contains("the wall is").then_some(events)
        });
        assert_names(&events, WallId::NeighbourTable);
        assert!(events.contains("times that the neighbour table (IPv4) was full: "), "{events}");
        bench.ok(&["down"]);
        bench.assert_clean();
    });
}
