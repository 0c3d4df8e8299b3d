//! Checks of links, packets and addresses.

use super::{Bound, judge, judge_settings};
use crate::demand::{Demand, Links, footprint};
use crate::host::Host;
use crate::predict::{Finding, State};
use crate::remedy::{Change, Remedy};
use crate::table::WallId;

/// `BR_PORT_BITS` of net/bridge/br_private.h is 10, and no port is number 0.
const BRIDGE_PORTS: u64 = 1_023;
/// The kernel keeps these as `int`.
pub const INT_MAX: u64 = i32::MAX as u64;
pub const THRESHOLDS: [&str; 3] = [
    "net.ipv4.neigh.default.gc_thresh1",
    "net.ipv4.neigh.default.gc_thresh2",
    "net.ipv4.neigh.default.gc_thresh3",
];
/// Bytes of an entry in the neighbour table, and of one connection that is tracked, with its place in a hash table.
const NEIGHBOUR: u64 = 400;
const CONNECTION: u64 = 320;
/// The share of the memory that is available, as a divisor, up to which a table of the kernel's may be let grow.
const MEMORY_SHARE: u64 = 4;
const PORT_RANGE: &str = "net.ipv4.ip_local_port_range";
const NO_NETWORK: &str = "plain processes have no network of their own";

fn without_network(id: WallId) -> Finding {
    Finding::new(id, State::DoesNotApply, NO_NETWORK)
}

/// Replicas in the largest network when there are `replicas` of them.
fn largest(demand: &Demand, replicas: u64) -> u64 {
    demand.share(demand.largest_network, replicas)
}

fn parents(members: u64) -> u64 {
    members.div_ceil(footprint::BEHIND_PARENT).min(footprint::PARENTS)
}

/// The most entries of so many bytes that a table may hold without harm; none where memory cannot be read.
fn entries_for(host: &Host, bytes: u64) -> u64 {
    host.memory.map_or(0, |memory| memory.available / MEMORY_SHARE / bytes).min(INT_MAX)
}

pub fn bridge_ports(demand: &Demand) -> Finding {
    let id = WallId::BridgePorts;
    let ports = |needed: Box<dyn Fn(u64) -> u64 + '_>| {
        judge(id, demand, &[Bound::new("ports of one bridge", BRIDGE_PORTS, needed)])
    };
    match demand.links {
        Links::Host => without_network(id),
        Links::Shared => {
            let each = footprint::BEHIND_PARENT;
            ports(Box::new(|n| parents(largest(demand, n)))).noted(format!("{each} replicas share one port"))
        }
        Links::Pairs => ports(Box::new(|n| largest(demand, n))).or_by(|_| {
            Remedy::by_hand("modprobe macvlan", "with macvlan, replicas share ports")
                .permanent("in /etc/modules-load.d/throng.conf: macvlan")
                .undo("modprobe -r macvlan")
        }),
    }
}

pub fn broadcast_backlog(host: &Host, demand: &Demand) -> Finding {
    let id = WallId::BroadcastBacklog;
    let domain = |n| {
        let members = largest(demand, n);
        match demand.links {
            Links::Shared => members.min(footprint::BEHIND_PARENT).max(parents(members)),
            _ => members,
        }
    };
    if demand.links == Links::Host {
        return without_network(id);
    }
    let bound = Bound::of(host, "net.core.netdev_max_backlog", INT_MAX, domain);
    let why = "a longer queue is only used in a burst; each waiting packet takes some 2 kB";
    judge_settings(id, demand, &bound.into_iter().collect::<Vec<_>>(), why)
}

pub fn neighbour_table(host: &Host, demand: &Demand) -> Finding {
    let id = WallId::NeighbourTable;
    if demand.links == Links::Host {
        return without_network(id);
    }
    // Permanent entries are not counted (kernel commit 58956317c8de). A pair's address is one that the host learns.
    let learned = u64::from(demand.links == Links::Pairs);
    let entries = |n: u64| {
        let peers = if demand.mesh { largest(demand, n).saturating_sub(1) } else { 0 };
        n.saturating_mul(peers.saturating_add(learned))
    };
    let bound = Bound::of(host, THRESHOLDS[2], entries_for(host, NEIGHBOUR), entries);
    let bounds: Vec<_> = bound.into_iter().collect();
    let mut finding = judge(id, demand, &bounds);
    if !demand.mesh && finding.live.is_some() {
        finding.note = "counts nothing that replicas learn about each other; --mesh does".into();
    }
    if let Some(change) = bounds.first().and_then(|bound| bound.change(demand.replicas)) {
        let targets = [change.to / 8, change.to / 2, change.to];
        let changes = THRESHOLDS.iter().zip(targets).filter_map(|(name, to)| {
            let from = host.setting(name)?;
            (to > from).then(|| Change { setting: (*name).into(), from, to })
        });
        let why = "an entry takes some 400 bytes, and only those that are used are there";
        finding.remedy = Remedy::raise(changes.collect(), why);
    }
    finding.or_by(|_| {
        Remedy::by_hand(
            "let replicas talk to fewer others",
            "so large a table would take more than a quarter of the memory that is available",
        )
    })
}

pub fn connection_tracking(host: &Host, demand: &Demand) -> Finding {
    let id = WallId::ConnectionTracking;
    let name = "net.netfilter.nf_conntrack_max";
    if host.setting(name).is_none() {
        return Finding::new(id, State::DoesNotApply, "the kernel's module for it is not loaded");
    }
    let used = host.setting("net.netfilter.nf_conntrack_count").unwrap_or(0);
    let each = demand.connections;
    let most = entries_for(host, CONNECTION);
    let bound = Bound::of(host, name, most, move |n| used.saturating_add(n.saturating_mul(each)));
    let why = "an entry takes some 320 bytes; chains of the hash table grow longer with it";
    let finding = judge_settings(id, demand, &bound.into_iter().collect::<Vec<_>>(), why).or_by(|_| {
        let why = "so large a table would take more than a quarter of the memory that is available";
        Remedy::by_hand("keep fewer connections, or do not track those between replicas", why)
    });
    if each == 0 { finding.noted("counts no connections of replicas; --connections N does") } else { finding }
}

pub fn published_ports(host: &Host, demand: &Demand) -> Finding {
    let published = demand.published;
    let bound = host.setting(PORT_RANGE).map(|width| Bound::new(PORT_RANGE, width, move |_| published));
    let finding = judge(WallId::PublishedPorts, demand, &bound.into_iter().collect::<Vec<_>>());
    finding.noted("one listener for each published port, whatever the number of replicas").or_by(|_| range())
}

pub fn source_ports(host: &Host, demand: &Demand) -> Finding {
    let clients = demand.clients;
    let bound = host.setting(PORT_RANGE).map(|width| Bound::new(PORT_RANGE, width, move |_| clients));
    let finding =
        judge(WallId::SourcePorts, demand, &bound.into_iter().collect::<Vec<_>>()).or_by(|_| range());
    if clients == 0 && finding.live.is_some() {
        return finding.noted("for each address connected to; depends on the load, not on replicas");
    }
    finding
}

fn range() -> Remedy {
    let why = "a service that starts later may find its port taken by a connection, so a person must decide";
    Remedy::by_hand(format!("sysctl -w {PORT_RANGE}='15000 65535'"), why)
        .permanent(format!("in {}: {PORT_RANGE} = 15000 65535", crate::remedy::PERMANENT_FILE))
        .undo(format!("sysctl -w {PORT_RANGE}='32768 60999' (the kernel's default)"))
}

pub fn address_pools(demand: &Demand) -> Finding {
    let networks = demand.networks;
    let bounds = [
        Bound::new("addresses of a network", footprint::ADDRESSES, |n| largest(demand, n)),
        Bound::new("networks", footprint::NETWORKS, move |_| networks),
    ];
    judge(WallId::AddressPools, demand, &bounds).or_by(|_| {
        let why = "a subnet that the Compose file names may be larger than the /16 that is chosen otherwise";
        Remedy::by_hand("give the network a larger `subnet` under `ipam`, as 10.0.0.0/12", why)
    })
}

pub fn docker_filter(host: &Host, demand: &Demand) -> Finding {
    let (id, name) = (WallId::DockerFilter, "net.bridge.bridge-nf-call-iptables");
    let apart = |note: &str| Finding::new(id, State::DoesNotApply, note);
    if demand.links == Links::Host {
        return without_network(id);
    }
    if demand.rootless {
        return apart("an ordinary user's networks are in a namespace that has no rules");
    }
    let Some(live) = host.setting(name) else {
        return apart("bridged frames are not shown to the filter (br_netfilter is not loaded)");
    };
    let (state, note) = match (live, host.filter.drops_forwarded, host.filter.accepts_ours) {
        (0, ..) => (State::Ok, "bridged frames are not shown to the filter"),
        (_, Some(true), false) => {
            (State::InTheWay, "the FORWARD chain drops what replicas send to each other")
        }
        (_, Some(true), true) => (State::Ok, "a rule accepts what replicas send to each other"),
        (_, Some(false), _) => (State::Ok, "the filter sees bridged frames and lets them pass"),
        (_, None, _) => (State::Unknown, "the filter sees bridged frames; its rules cannot be read here"),
    };
    let finding = Finding { setting: Some(name.into()), live: Some(live), ..Finding::new(id, state, note) };
    finding.or_by(|_| {
        let rule = "FORWARD -i thr+ -o thr+ -j ACCEPT";
        let why = "it changes what the host's filter lets through, if only between replicas, so a person must decide";
        Remedy::by_hand(format!("iptables -I {rule}"), why)
            .permanent("add it where the host's own rules are kept; Docker keeps a DOCKER-USER chain for it")
            .undo(format!("iptables -D {rule}"))
    })
}
