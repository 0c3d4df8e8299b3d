//! Evidence against walls: the one that was hit is named, and no other.

mod support;

use proptest::prelude::*;
use std::time::Duration;
use support::Paper;
use throng_walls::{Cores, Demand, Evidence, Host, Step, WallId, explain, table};

fn named(evidence: &Evidence) -> Option<WallId> {
    explain(evidence).map(|explanation| explanation.row.id)
}

fn of(message: &str) -> Option<WallId> {
    named(&Evidence::of_messages([message]))
}

/// Hints that the engine prints after its errors; they name several walls each and must not mislead.
const HINTS: [&str; 4] = [
    "a limit on processes is reached: kernel.pid_max, kernel.threads-max, or an ancestor's pids.max",
    "a disk, an inode table or a kernel table is full; free space, or see `throng doctor`",
    "the host is out of memory, or the replica's memory limit is too small to start in",
    "this process holds as many descriptors as it may; raise it with `ulimit -n`",
];

#[test]
fn every_text_of_the_table_names_its_own_row() {
    for row in table() {
        for text in row.seen {
            assert_eq!(of(text), Some(row.id), "{text}");
            assert_eq!(of(&text.to_uppercase().replace("SHOP", "shop")), Some(row.id), "{text}");
            for hint in HINTS {
                assert_eq!(of(&format!("{text}\nhint: {hint}")), Some(row.id), "{text} with {hint}");
            }
        }
    }
}

#[test]
fn what_the_engine_prints_is_understood() {
    for (message, id) in [
        ("cannot attach shop/web-1024 to shop_default: Exchange full (os error 54)", WallId::BridgePorts),
        (
            "cannot start shop/web-1: cannot set up its interfaces: No buffer space available (os error 105)",
            WallId::NeighbourTable,
        ),
        (
            "cannot start shop/web-9: cannot make a process: Resource temporarily unavailable (os error 11)",
            WallId::ProcessIds,
        ),
        (
            "cannot start shop/web-9: cannot make a process: No space left on device (os error 28)",
            WallId::Namespaces,
        ),
        (
            "cannot start shop/web-9: cannot make a namespace: No space left on device (os error 28)",
            WallId::Namespaces,
        ),
        (
            "cannot start shop/web-9: cannot make a process: Cannot allocate memory (os error 12)",
            WallId::Memory,
        ),
        (
            "cannot start shop/web-9: cannot make a process: Too many open files (os error 24)",
            WallId::Descriptors,
        ),
        ("cannot limit shop/web-9: No space left on device (os error 28)", WallId::MemoryCgroupIds),
        (
            "cannot limit shop/web-9: Resource temporarily unavailable (os error 11)",
            WallId::CgroupDescendants,
        ),
        (
            "cannot limit shop/web-9: cannot write 64 to /sys/fs/cgroup/memory/throng/shop/web-9/memory.limit_in_bytes: No space left on device (os error 28)",
            WallId::MemoryCgroupIds,
        ),
        (
            "cannot start shop/web-9: cannot mount proc at /proc: No space left on device (os error 28)",
            WallId::MountCount,
        ),
        ("cannot mount /sys for shop/web-9: No space left on device (os error 28)", WallId::MountCount),
        ("cannot prepare shop/web-9: No space left on device (os error 28)", WallId::Disk),
        ("cannot prepare shop/web-9: Disk quota exceeded (os error 122)", WallId::Disk),
        ("cannot open the log of shop/web-9: No space left on device (os error 28)", WallId::Disk),
        (
            "cannot start shop/web-9: cannot open its log /s/log: Too many open files in system (os error 23)",
            WallId::Descriptors,
        ),
        ("network shop_default has no free address in 10.128.0.0/16", WallId::AddressPools),
        ("no free subnet for network back", WallId::AddressPools),
        ("connect to 10.128.0.2:80: Cannot assign requested address (os error 99)", WallId::SourcePorts),
    ] {
        assert_eq!(of(message), Some(id), "{message}");
    }
}

#[test]
fn other_errors_name_no_wall() {
    for message in [
        "cannot start shop/web-1: there is no program \"x\" in the image",
        "web does not come up: replica 1: exited with code 9",
        "cannot listen on 192.0.2.1:80: Cannot assign requested address (os error 99)",
        "read: Resource temporarily unavailable (os error 11)",
        "cannot start shop/web-1: cannot mount overlay at /x: No such device (os error 19)",
        "cannot limit shop/web-1: Permission denied (os error 13)",
        "connection refused",
        "invalid argument",
        "",
    ] {
        assert_eq!(of(message), None, "{message}");
    }
    assert_eq!(named(&Evidence::default()), None);
}

#[test]
fn numbers_without_words_are_understood_by_their_step() {
    for (step, errno, id) in [
        (None, 54, Some(WallId::BridgePorts)),
        (Some(Step::Network), 105, Some(WallId::NeighbourTable)),
        (Some(Step::Process), 11, Some(WallId::ProcessIds)),
        (Some(Step::Cgroup), 11, Some(WallId::CgroupDescendants)),
        (Some(Step::Disk), 11, None),
        (None, 11, None),
        (Some(Step::Process), 12, Some(WallId::Memory)),
        (Some(Step::Namespace), 28, Some(WallId::Namespaces)),
        (Some(Step::Cgroup), 28, Some(WallId::MemoryCgroupIds)),
        (Some(Step::Mount), 28, Some(WallId::MountCount)),
        (Some(Step::Disk), 28, Some(WallId::Disk)),
        (Some(Step::Connect), 99, Some(WallId::SourcePorts)),
        (None, 99, None),
        (None, 24, Some(WallId::Descriptors)),
        (Some(Step::Disk), 2, None),
    ] {
        assert_eq!(
            named(&Evidence { step, errno: Some(errno), ..Evidence::default() }),
            id,
            "{step:?} {errno}"
        );
    }
}

/// Evidence that consists of a host before and after a change of it.
fn between(change: impl FnOnce(&mut Host)) -> Evidence {
    let mut before = Paper::host().read();
    before.time = Some(Cores { busy: 5_000, all: 90_000 });
    before.counters.backlog_drops = Some(10_000_000);
    before.counters.other_drops = Some(0);
    before.counters.arp_fulls = Some(7);
    before.counters.ndisc_fulls = Some(0);
    before.counters.conntrack_drops = Some(3);
    before.counters.oom_kills = Some(18);
    before.counters.net_namespaces = Some(40);
    before.counters.port_proxies = Some(0);
    for group in &mut before.control.ancestors {
        (group.pids_refused, group.oom_kills) = (Some(2), Some(1));
    }
    let mut after = before.clone();
    change(&mut after);
    Evidence { before: Some(before), after: Some(after), ..Evidence::default() }
}

/// Five hundred packets were dropped, so many of them at interfaces of others.
fn drops_of_others<const COUNT: u64>(host: &mut Host) {
    host.counters.backlog_drops = Some(10_000_500);
    host.counters.other_drops = Some(COUNT);
}

type Change = (fn(&mut Host), Option<WallId>);

#[test]
fn silent_walls_are_found_by_their_counters() {
    let changes: [Change; 11] = [
        (|_| {}, None),
        (|host| host.counters.backlog_drops = Some(10_000_009), None),
        (|host| host.counters.backlog_drops = Some(10_000_500), Some(WallId::BroadcastBacklog)),
        (|host| host.counters.backlog_drops = Some(0), None),
        (drops_of_others::<500>, None),
        (drops_of_others::<480>, Some(WallId::BroadcastBacklog)),
        (|host| host.counters.arp_fulls = Some(8), Some(WallId::NeighbourTable)),
        (|host| host.counters.ndisc_fulls = Some(1), Some(WallId::NeighbourTable)),
        (|host| host.counters.conntrack_drops = Some(4), Some(WallId::ConnectionTracking)),
        (|host| host.counters.oom_kills = Some(19), Some(WallId::Memory)),
        (|host| host.control.ancestors[0].pids_refused = Some(3), Some(WallId::PidsCgroup)),
    ];
    for (number, (change, id)) in changes.into_iter().enumerate() {
        assert_eq!(named(&between(change)), id, "change {number}");
    }
}

#[test]
fn who_refused_a_task_is_told_by_the_groups() {
    let message =
        "cannot start shop/web-9: cannot make a process: Resource temporarily unavailable (os error 11)";
    let with = |change: fn(&mut Host)| Evidence { messages: vec![message.into()], ..between(change) };
    assert_eq!(named(&with(|_| {})), Some(WallId::ProcessIds));
    assert_eq!(
        named(&with(|host| host.control.ancestors[0].pids_refused = Some(5))),
        Some(WallId::PidsCgroup)
    );
    let full = with(|host| {
        host.control.ancestors[0].pids_max = Some(50);
        host.control.ancestors[0].pids_current = Some(50);
    });
    assert_eq!(named(&full), Some(WallId::PidsCgroup));
    let logged = Evidence {
        kernel_log: vec!["[1.0] cgroup: fork rejected by pids controller in /throng".into()],
        ..with(|_| {})
    };
    assert_eq!(named(&logged), Some(WallId::PidsCgroup));
}

#[test]
fn a_full_disk_is_told_from_a_full_mount_table() {
    let message =
        "cannot start shop/web-9: cannot mount overlay at /s/root: No space left on device (os error 28)";
    let disk = |bytes_free, inodes_free| throng_walls::Disk {
        bytes: 1 << 30,
        bytes_free,
        inodes: 1_000,
        inodes_free,
    };
    let with = |disk| Evidence { messages: vec![message.into()], ..between(|host| host.disk = Some(disk)) };
    assert_eq!(named(&with(disk(1 << 29, 500))), Some(WallId::MountCount));
    assert_eq!(named(&with(disk(0, 500))), Some(WallId::Disk));
    assert_eq!(named(&with(disk(1 << 29, 0))), Some(WallId::Disk));
}

#[test]
fn slowness_is_put_down_to_what_has_grown_along() {
    let slow = |change: fn(&mut Host)| Evidence {
        replicas: Some((100, 1_100)),
        start: Some((Duration::from_millis(5), Duration::from_millis(25))),
        ..between(|host| {
            host.counters.net_namespaces = Some(1_040);
            change(host);
        })
    };
    assert_eq!(named(&slow(|_| {})), None);
    assert_eq!(named(&slow(|host| host.mounts = Some(1_022))), Some(WallId::MountTable));
    assert_eq!(named(&slow(|host| host.counters.port_proxies = Some(1_000))), Some(WallId::PublishedPorts));
    let steady = Evidence {
        start: Some((Duration::from_millis(5), Duration::from_millis(6))),
        ..slow(|host| host.mounts = Some(1_022))
    };
    assert_eq!(named(&steady), None, "mounts alone are no wall");
    // A thousand replicas have gone, their namespaces have not.
    let teardown = Evidence { replicas: Some((1_000, 0)), ..between(|_| {}) };
    assert_eq!(named(&teardown), Some(WallId::Namespaces));
    let idle = between(|host| host.counters.removing_namespaces = Some(false));
    assert_eq!(named(&Evidence { replicas: Some((1_000, 0)), ..idle }), None, "nothing is being removed");
    let done =
        Evidence { replicas: Some((20, 0)), ..between(|host| host.counters.net_namespaces = Some(20)) };
    assert_eq!(named(&done), None);
}

#[test]
fn frames_that_vanish_are_put_down_to_the_filter_that_drops_them() {
    let lost = |change: fn(&mut Host)| Evidence {
        messages: vec!["web-1: dial tcp 10.128.1.4:80: i/o timeout: connection timed out".into()],
        ..between(change)
    };
    fn dropping(host: &mut Host) {
        host.settings.insert("net.bridge.bridge-nf-call-iptables", 1);
        host.filter.drops_forwarded = Some(true);
    }
    assert_eq!(named(&lost(|_| {})), None);
    assert_eq!(named(&lost(dropping)), Some(WallId::DockerFilter));
    let accepted = lost(|host| {
        dropping(host);
        host.filter.accepts_ours = true;
    });
    assert_eq!(named(&accepted), None);
}

#[test]
fn pressure_is_the_last_resort() {
    let pressed = |cpu: f64, memory: f64| {
        between(|host| {
            host.pressure.cpu = Some(throng_walls::Stall { average: cpu, total: 1 });
            host.pressure.memory = Some(throng_walls::Stall { average: memory, total: 1 });
        })
    };
    assert_eq!(named(&pressed(95.0, 0.0)), Some(WallId::Cpu));
    assert_eq!(named(&pressed(95.0, 40.0)), Some(WallId::Memory));
    assert_eq!(named(&pressed(50.0, 5.0)), None);
    let spent = |busy: u64, all: u64| {
        between(|host| {
            let before = host.time.expect("of the fixture");
            let after = Cores { busy: before.busy + busy, all: before.all + all };
            (host.cores, host.time) = (Some(2), Some(after));
        })
    };
    assert_eq!(named(&spent(1_900, 2_000)), Some(WallId::Cpu));
    assert_eq!(named(&spent(1_500, 2_000)), None);
    assert_eq!(named(&spent(190, 200)), None, "over a second that says nothing");
    let other = Evidence { messages: vec!["exchange full".into()], ..pressed(95.0, 0.0) };
    assert_eq!(named(&other), Some(WallId::BridgePorts));
}

#[test]
fn with_a_demand_it_says_what_would_move_the_wall() {
    let evidence = Evidence {
        messages: vec!["fork: Resource temporarily unavailable".into()],
        demand: Some(Demand::of(40_000)),
        ..between(|_| {})
    };
    let explanation = explain(&evidence).expect("a wall");
    assert_eq!(explanation.evidence[0], "fork: Resource temporarily unavailable");
    assert_eq!(explanation.evidence[1], "200 tasks, kernel.pid_max is 32768");
    let remedy = explanation.finding.expect("judged").remedy.expect("a remedy");
    assert_eq!(remedy.command, "sysctl -w kernel.pid_max=65536");
}

proptest! {
    #[test]
    fn no_message_does_harm(message: String, errno: Option<i32>, kernel_log: Vec<String>) {
        let _ = explain(&Evidence { messages: vec![message], errno, kernel_log, ..Evidence::default() });
    }
}
