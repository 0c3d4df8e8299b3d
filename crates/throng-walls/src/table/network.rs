//! Rows about links, packets and addresses.

use super::{Wall, WallId};

pub const BRIDGE_PORTS: Wall = Wall {
    id: WallId::BridgePorts,
    name: "bridge-ports",
    title: "ports of a bridge",
    seen: &[
        "adding interface veth1 to bridge br-1 failed: exchange full",
        "RTNETLINK answers: Exchange full",
        "cannot attach shop/web-1024 to shop_default: Exchange full (os error 54)",
    ],
    silent: "",
    limit: "1,023 ports a bridge, compiled into the kernel (`BR_PORT_BITS` 10)",
    why: "a port's number has ten bits, because the spanning tree protocol has no more room for it",
    here: "replicas share parents, 256 to a port, so a network of 65,533 has 256 ports; only without macvlan is each \
           replica a port",
    moves: "several networks, or the kernel module macvlan",
    reference: "<https://github.com/moby/moby/issues/44973>; net/bridge/br_private.h",
};

pub const BROADCAST_BACKLOG: Wall = Wall {
    id: WallId::BroadcastBacklog,
    name: "broadcast-backlog",
    title: "broadcast backlog",
    seen: &[],
    silent: "answers to ARP are lost, so connections take seconds or fail; only `/proc/net/softnet_stat` counts it",
    limit: "`net.core.netdev_max_backlog` packets wait for one CPU",
    why: "one broadcast becomes a packet for each member of the broadcast domain, all on the queue of one CPU at once",
    here: "a broadcast reaches at most 256 replicas through one parent, and neighbours are told instead of asked for",
    moves: "a backlog larger than the broadcast domain, or smaller networks",
    reference: "<https://github.com/moby/moby/issues/44973>, <https://github.com/moby/moby/issues/34098>",
};

pub const NEIGHBOUR_TABLE: Wall = Wall {
    id: WallId::NeighbourTable,
    name: "neighbour-table",
    title: "neighbour table",
    seen: &[
        "neighbour: arp_cache: neighbor table overflow!",
        "RTNETLINK answers: No buffer space available",
        "sendto: invalid argument",
        "connect: No buffer space available (os error 105)",
    ],
    silent: "",
    limit: "`net.ipv4.neigh.default.gc_thresh3` entries (IPv6 has its own), for all network namespaces together",
    why: "each namespace keeps an entry for each peer that it talks to; where all talk to all they grow with the square",
    here: "the host's entries and those for gateways are permanent, which the kernel does not count (since Linux 5.0); \
           what replicas learn about each other is counted",
    moves: "higher thresholds; only the host's own namespace has them",
    reference: "<https://github.com/canonical/lxd/issues/4799>, <https://github.com/moby/libnetwork/issues/1522>; arp(7)",
};

pub const CONNECTION_TRACKING: Wall = Wall {
    id: WallId::ConnectionTracking,
    name: "connection-tracking",
    title: "connection tracking",
    seen: &[
        "nf_conntrack: nf_conntrack: table full, dropping packet",
        "nf_conntrack: table full, dropping packet",
    ],
    silent: "",
    limit: "`net.netfilter.nf_conntrack_max` connections in each network namespace",
    why: "with a rule that asks for a connection's state, each connection is remembered, for minutes after its end",
    here: "nothing of this program's tracks connections; frames between replicas are tracked where the host's filter \
           is shown bridged frames",
    moves: "a higher limit, or no tracking between replicas",
    reference: "<https://github.com/kubernetes/kubernetes/issues/71261>; Documentation/networking/nf_conntrack-sysctl",
};

pub const PUBLISHED_PORTS: Wall = Wall {
    id: WallId::PublishedPorts,
    name: "published-ports",
    title: "published ports",
    seen: &[],
    silent: "with a proxy or a rule for each port of each container, as in Docker, each start takes longer than the last",
    limit: "time, not a number; ports that the host is to choose come from `net.ipv4.ip_local_port_range`",
    why: "rules are a list that is gone through and rewritten; a proxy for each is a process for each",
    here: "one listener for each published port of a service, whatever the number of its replicas: no rules and no \
           processes that starts could wait for",
    moves: "publish a service once rather than each replica",
    reference: "<https://github.com/moby/moby/issues/53466>",
};

pub const SOURCE_PORTS: Wall = Wall {
    id: WallId::SourcePorts,
    name: "source-ports",
    title: "source ports",
    seen: &[
        "connect: Cannot assign requested address",
        "connect to 10.128.0.2:80: Cannot assign requested address (os error 99)",
        "dial tcp 127.0.0.1:80: connect: cannot assign requested address",
    ],
    silent: "",
    limit: "the width of `net.ipv4.ip_local_port_range` (28,232 by default) for each address and port connected to",
    why: "a closed connection keeps its port for 60 s (TIME_WAIT): some 470 new connections a second to one address",
    here: "the balancer and `throng load` keep connections alive",
    moves: "keep-alive, more source or destination addresses, a wider range",
    reference: "ip(7), tcp(7); Documentation/networking/ip-sysctl",
};

pub const ADDRESS_POOLS: Wall = Wall {
    id: WallId::AddressPools,
    name: "address-pools",
    title: "address pools",
    seen: &[
        "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network",
        "no free subnet for network default",
        "network shop_default has no free address in 10.128.0.0/16",
    ],
    silent: "",
    limit: "128 networks of 65,533 addresses (Docker: about 31 networks)",
    why: "subnets are chosen from one private range, and those that the host has routes to are left out",
    here: "10.128.0.0/16 to 10.255.0.0/16, one for each network",
    moves: "a `subnet` under `ipam`, or taking another project down",
    reference: "<https://github.com/moby/moby/issues/23971>",
};

pub const DOCKER_FILTER: Wall = Wall {
    id: WallId::DockerFilter,
    name: "docker-filter",
    title: "Docker's packet filter",
    seen: &[],
    silent: "frames between ports of a bridge that is not Docker's vanish",
    limit: "`net.bridge.bridge-nf-call-iptables` = 1 with a FORWARD chain whose policy is DROP",
    why: "Docker sets that policy, and loads the module that shows the filter bridged frames too",
    here: "`throng up` warns where the filter drops what replicas send to each other; it changes no rules",
    moves: "an accept rule for interfaces whose names begin with `thr`",
    reference: "Docker's documentation on packet filtering; Documentation/networking/ip-sysctl",
};
