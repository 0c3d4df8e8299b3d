//! Hosts on paper against demands: which wall comes first, and what would move it.

mod support;

use support::Paper;
use throng_walls::{Demand, Finding, Links, Report, State, WallId, predict, table};

fn state(report: &Report, id: WallId) -> (State, Option<u64>) {
    let finding = report.finding(id).expect("every wall is judged");
    (finding.state, finding.holds)
}

fn command(finding: &Finding) -> &str {
    finding.remedy.as_ref().map_or("", |remedy| &remedy.command)
}

#[test]
fn a_common_machine_holds_what_its_memory_holds() {
    let host = Paper::host().read();
    let report = predict(&host, &Demand::of(10_000));
    assert_eq!(report.findings.len(), table().len());
    // 20,000,000 kB for 0.8 MB each.
    assert_eq!(state(&report, WallId::Memory), (State::Ok, Some(25_600)));
    assert_eq!(state(&report, WallId::ProcessIds), (State::Ok, Some(32_768 - 1_024 - 200)));
    assert!(report.fits);
    assert_eq!(report.holds, Some(25_600));
    let order: Vec<_> = report.in_order().map(|(finding, _)| finding.row.id).collect();
    assert_eq!(order[..2], [WallId::Memory, WallId::ProcessIds]);
    let next = report.finding(WallId::ProcessIds).expect("judged");
    assert_eq!(command(next), "sysctl -w kernel.pid_max=131072", "what would hold twice as many");
    assert_eq!(throng_walls::fix::safe_changes(&report), [], "but nobody needs it");
    assert_eq!(state(&report, WallId::BridgePorts), (State::Ok, None));
    assert_eq!(state(&report, WallId::MountCount), (State::Ok, None));
    assert_eq!(state(&report, WallId::Disk).0, State::Unknown, "a host on paper has no disk");
}

#[test]
fn without_macvlan_a_bridge_and_its_broadcasts_come_first() {
    let host = Paper::host().read();
    let report = predict(&host, &Demand { links: Links::Pairs, ..Demand::of(10_000) });
    assert!(!report.fits);
    assert_eq!(report.holds, Some(1_000));
    let first: Vec<_> = report.in_order().map(|(finding, holds)| (finding.row.id, holds)).take(3).collect();
    assert_eq!(
        first,
        [(WallId::BroadcastBacklog, 1_000), (WallId::BridgePorts, 1_023), (WallId::NeighbourTable, 1_024)]
    );
    let remedy = |id| command(report.finding(id).expect("judged")).to_owned();
    assert_eq!(remedy(WallId::BroadcastBacklog), "sysctl -w net.core.netdev_max_backlog=16384");
    assert_eq!(remedy(WallId::BridgePorts), "modprobe macvlan");
    assert_eq!(
        remedy(WallId::NeighbourTable),
        "sysctl -w net.ipv4.neigh.default.gc_thresh1=2048 net.ipv4.neigh.default.gc_thresh2=8192 \
         net.ipv4.neigh.default.gc_thresh3=16384"
    );
    // Ten networks of a thousand each have ten bridges, but one table of neighbours.
    let ten = Demand { links: Links::Pairs, networks: 10, largest_network: 1_000, ..Demand::of(10_000) };
    let report = predict(&host, &ten);
    assert_eq!(state(&report, WallId::BridgePorts), (State::Tight, Some(10_230)));
    assert_eq!(state(&report, WallId::NeighbourTable), (State::InTheWay, Some(1_024)));
}

#[test]
fn a_full_mesh_grows_the_neighbour_table_with_the_square() {
    let host = Paper::host().read();
    let report = predict(&host, &Demand { mesh: true, ..Demand::of(50) });
    // 32 × 31 = 992 and 33 × 32 = 1,056.
    assert_eq!(state(&report, WallId::NeighbourTable), (State::InTheWay, Some(32)));
    let report = predict(&host, &Demand { mesh: true, ..Demand::of(32) });
    assert_eq!(state(&report, WallId::NeighbourTable), (State::Tight, Some(32)));
}

#[test]
fn no_table_is_let_grow_beyond_what_memory_holds() {
    let host = Paper::host().read();
    let mesh = |replicas| predict(&host, &Demand { mesh: true, ..Demand::of(replicas) });
    let remedy =
        |report: &Report| report.finding(WallId::NeighbourTable).and_then(|f| f.remedy.clone()).expect("one");
    assert!(remedy(&mesh(2_000)).safe, "four million entries");
    assert!(!remedy(&mesh(10_000)).safe, "a hundred million entries are 40 GB");
    let tracked = predict(&host, &Demand { connections: 100_000, ..Demand::of(10_000) });
    let finding = tracked.finding(WallId::ConnectionTracking).expect("judged");
    assert_eq!(finding.state, State::DoesNotApply);
    let paper = Paper::host();
    paper.set("net.netfilter.nf_conntrack_max", "10000");
    let tracked = predict(&paper.read(), &Demand { connections: 100_000, ..Demand::of(10_000) });
    assert!(throng_walls::fix::safe_changes(&tracked).is_empty());
}

/// One change of the paper host, the demand, the wall that must be in the way, and what it then holds.
type Case = (&'static str, fn(&Paper), fn() -> Demand, WallId, Option<u64>, &'static str);

const CASES: [Case; 16] = [
    (
        "descriptors",
        |p| p.limits(4_096, 9_999),
        || Demand::of(5_000),
        WallId::Descriptors,
        Some(3_840),
        "ulimit -Hn 5256",
    ),
    (
        "files",
        |p| p.set("fs.file-max", "12000"),
        || Demand::of(5_000),
        WallId::Descriptors,
        Some(1_111),
        "sysctl -w fs.file-max=65536",
    ),
    (
        "pids",
        |_| {},
        || Demand { processes: 4, ..Demand::of(10_000) },
        WallId::ProcessIds,
        Some((32_768 - 1_224) / 4),
        "sysctl -w kernel.pid_max=65536",
    ),
    (
        "threads",
        |p| p.set("kernel.threads-max", "3000"),
        || Demand::of(2_000),
        WallId::ProcessIds,
        Some(1_776),
        "sysctl -w kernel.threads-max=4096",
    ),
    (
        "pids of a group",
        |p| {
            p.write("sys/fs/cgroup/pids/throng/pids.max", "1000\n");
            p.write("sys/fs/cgroup/pids/throng/pids.current", "100\n");
        },
        || Demand::of(1_000),
        WallId::PidsCgroup,
        Some(900),
        "echo 1100 > /sys/fs/cgroup/pids/throng/pids.max",
    ),
    (
        "backlog",
        |p| p.set("net.core.netdev_max_backlog", "200"),
        || Demand::of(1_000),
        WallId::BroadcastBacklog,
        Some(200),
        "sysctl -w net.core.netdev_max_backlog=512",
    ),
    (
        "tracking",
        |p| {
            p.set("net.netfilter.nf_conntrack_max", "10000");
            p.set("net.netfilter.nf_conntrack_count", "1000");
        },
        || Demand { connections: 10, ..Demand::of(1_000) },
        WallId::ConnectionTracking,
        Some(900),
        "sysctl -w net.netfilter.nf_conntrack_max=16384",
    ),
    (
        "inotify",
        |_| {},
        || Demand { watchers: 1, ..Demand::of(200) },
        WallId::Inotify,
        Some(128),
        "sysctl -w fs.inotify.max_user_instances=256 user.max_inotify_instances=256",
    ),
    (
        "memory groups",
        |p| p.write("proc/cgroups", "memory\t4\t65000\t1\n"),
        || Demand { limited: 1_000, ..Demand::of(1_000) },
        WallId::MemoryCgroupIds,
        Some(535),
        "sync; echo 3 > /proc/sys/vm/drop_caches",
    ),
    (
        "mounts",
        |p| p.mounts(99_990),
        || Demand::of(1),
        WallId::MountCount,
        Some(0),
        "sysctl -w fs.mount-max=131072",
    ),
    (
        "namespaces",
        |p| p.set("user.max_net_namespaces", "500"),
        || Demand::of(1_000),
        WallId::Namespaces,
        Some(436),
        "sysctl -w user.max_net_namespaces=2048",
    ),
    (
        "ports",
        |_| {},
        || Demand { clients: 30_000, ..Demand::of(1) },
        WallId::SourcePorts,
        Some(0),
        "sysctl -w net.ipv4.ip_local_port_range='15000 65535'",
    ),
    (
        "published",
        |_| {},
        || Demand { published: 30_000, ..Demand::of(1) },
        WallId::PublishedPorts,
        Some(0),
        "sysctl -w net.ipv4.ip_local_port_range='15000 65535'",
    ),
    (
        "addresses",
        |p| p.set("kernel.pid_max", "4194304"),
        || Demand::of(70_000),
        WallId::AddressPools,
        Some(65_533),
        "give the network a larger `subnet` under `ipam`, as 10.0.0.0/12",
    ),
    (
        "memory",
        |_| {},
        || Demand { memory: 100 << 20, ..Demand::of(1_000) },
        WallId::Memory,
        Some(193),
        "run fewer or smaller replicas",
    ),
    (
        "cpu",
        |_| {},
        || Demand { cpu: 100, ..Demand::of(50) },
        WallId::Cpu,
        Some(20),
        "run fewer replicas, or put less load on them",
    ),
];

#[test]
fn each_wall_is_found_where_it_stands() {
    for (what, change, demand, id, holds, remedy) in CASES {
        let paper = Paper::host();
        change(&paper);
        let report = predict(&paper.read(), &demand());
        let finding = report.finding(id).expect("judged");
        assert_eq!((finding.state, finding.holds), (State::InTheWay, holds), "{what}: {finding:#?}");
        assert_eq!(command(finding), remedy, "{what}");
        assert!(!report.fits, "{what}");
    }
}

#[test]
fn dockers_filter_is_in_the_way_only_where_it_drops_ours() {
    let paper = Paper::host();
    let judged = |change: &dyn Fn(&mut throng_walls::Host)| {
        let mut host = paper.read();
        change(&mut host);
        predict(&host, &Demand::of(10)).finding(WallId::DockerFilter).expect("judged").clone()
    };
    assert_eq!(judged(&|_| {}).state, State::DoesNotApply, "br_netfilter is not loaded");
    paper.set("net.bridge.bridge-nf-call-iptables", "1");
    assert_eq!(judged(&|_| {}).state, State::Unknown, "rules are no file");
    assert_eq!(judged(&|host| host.filter.drops_forwarded = Some(false)).state, State::Ok);
    let finding = judged(&|host| host.filter.drops_forwarded = Some(true));
    assert_eq!(finding.state, State::InTheWay);
    let remedy = finding.remedy.expect("a remedy");
    assert!(!remedy.safe, "a filter's rules are a person's to decide");
    assert_eq!(remedy.undo.as_deref(), Some("iptables -D FORWARD -i thr+ -o thr+ -j ACCEPT"));
    let accepted = judged(&|host| {
        host.filter.drops_forwarded = Some(true);
        host.filter.accepts_ours = true;
    });
    assert_eq!(accepted.state, State::Ok);
    paper.set("net.bridge.bridge-nf-call-iptables", "0");
    assert_eq!(judged(&|host| host.filter.drops_forwarded = Some(true)).state, State::Ok);
}

#[test]
fn an_ordinary_user_is_held_to_limits_of_its_own() {
    let paper = Paper::host();
    paper.ordinary_user();
    paper.limits(4_096, 2_000);
    let host = paper.read();
    assert_eq!(host.control.version, Some(2));
    assert_eq!(host.raises_limits, Some(false));
    let demand = Demand { rootless: true, ..Demand::of(1_500) };
    let report = predict(&host, &demand);
    assert_eq!(state(&report, WallId::ProcessIds), (State::InTheWay, Some(976)));
    assert_eq!(state(&report, WallId::PidsCgroup), (State::Ok, Some(10_753)));
    assert_eq!(state(&report, WallId::DockerFilter).0, State::DoesNotApply);
    assert_eq!(report.finding(WallId::CgroupDescendants).expect("judged").note, "no group above has a limit");
    paper.write("sys/fs/cgroup/cgroup.max.descendants", "100\n");
    let report = predict(&paper.read(), &demand);
    assert_eq!(state(&report, WallId::CgroupDescendants), (State::InTheWay, Some(20)));
}

#[test]
fn what_cannot_be_read_is_unknown_and_never_in_the_way() {
    let report = predict(&throng_walls::Host::default(), &Demand::of(1 << 20));
    for finding in &report.findings {
        // Compiled into the kernel or into this program, so known without a look.
        if finding.row.id != WallId::AddressPools {
            assert!(
                matches!(finding.state, State::Unknown | State::DoesNotApply | State::Ok),
                "{}: {:?}",
                finding.row.name,
                finding.state
            );
        }
        if finding.state == State::Ok {
            assert_eq!(finding.row.id, WallId::BridgePorts);
        }
    }
}

#[test]
fn plain_processes_have_no_walls_of_networks() {
    let report = predict(&Paper::host().read(), &Demand { links: Links::Host, ..Demand::of(10_000) });
    for id in [WallId::BridgePorts, WallId::BroadcastBacklog, WallId::NeighbourTable, WallId::Namespaces] {
        assert_eq!(state(&report, id).0, State::DoesNotApply);
    }
}

#[test]
fn a_remedy_carried_out_opens_the_way() {
    let paper = Paper::host();
    let demand = Demand {
        links: Links::Pairs,
        networks: 40,
        largest_network: 1_000,
        processes: 2,
        ..Demand::of(20_000)
    };
    let changes = throng_walls::fix::safe_changes(&predict(&paper.read(), &demand));
    let settings: Vec<_> = changes.iter().map(|change| change.setting.as_str()).collect();
    assert!(settings.contains(&"kernel.pid_max") && settings.contains(&"net.ipv4.neigh.default.gc_thresh3"));
    let fixer = throng_walls::fix::Fixer::new(paper.root(), paper.root());
    fixer.apply(&changes).expect("applied");
    let report = predict(&paper.read(), &demand);
    assert_eq!(throng_walls::fix::safe_changes(&report), []);
    assert_eq!(state(&report, WallId::ProcessIds).0, State::Ok);
    assert_eq!(state(&report, WallId::NeighbourTable).0, State::Ok);
}
