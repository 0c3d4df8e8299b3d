//! What the nodes of a Kubernetes cluster have to be told before they hold many pods: the kubelet's own limits, the
//! addresses of a node, the ports of its bridge, the thresholds at which it evicts and collects, and the kernel's settings.
//!
//! Pure: from the number of pods and nodes to values. Defaults are those of Kubernetes 1.34 and of k3s with the network that
//! it brings (flannel). Sources: the kubelet's configuration (KubeletConfiguration v1beta1), kube-controller-manager's
//! `--node-cidr-mask-size`, docs.k3s.io.

use serde::Serialize;

/// Pods that a kubelet takes unless it is told otherwise.
pub const PODS_DEFAULT: u64 = 110;
/// Prefix length of a node's addresses unless the controller manager is told otherwise.
pub const NODE_MASK_DEFAULT: u32 = 24;
/// Prefix length of all pods' addresses in k3s, and of what is asked for instead: 10.64.0.0 and on, beside its services.
const CLUSTER_MASK_DEFAULT: u32 = 16;
pub const CLUSTER_CIDR_DEFAULT: &str = "10.42.0.0/16";
const WIDER_CIDR: &str = "10.64.0.0";
const WIDEST_CLUSTER_MASK: u32 = 10;
/// Pods that the network can connect to one bridge (the kernel's `BR_MAX_PORTS`, of which one is not given out).
pub const BRIDGE_PORTS: u64 = 1_023;
/// Pods of a node that are the cluster's own: names, metrics, ingress, storage.
pub const SYSTEM_PODS: u64 = 10;
/// Of a Deployment, while it is updated, in quarters of its pods (`maxSurge: 25%`).
const SURGE_QUARTERS: u64 = 1;
/// Tasks of one pod beside its programs: its shim's threads and the process that holds its namespaces.
const TASKS_OF_POD: u64 = 14;
const TASKS_BASE: u64 = 4_096;
/// inotify instances of one pod: its shim's, and one of a program that watches files as the same user.
const WATCHERS_OF_POD: u64 = 2;
const WATCHES_OF_POD: u64 = 128;
/// Memory in MiB that kubelet and container runtime need, and for each pod (the formula that Amazon's nodes reserve by).
const RESERVED_BASE: u64 = 255;
const RESERVED_OF_POD: u64 = 11;

/// What is to run where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Plan {
    pub pods: u64,
    pub nodes: u64,
    /// Tasks of the programs of one pod.
    pub processes: u64,
}

/// A limit with what it is unless somebody changes it, and what it has to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Limit {
    pub name: &'static str,
    pub default: u64,
    pub needed: u64,
    pub why: String,
}

impl Limit {
    pub fn suffices(&self) -> bool {
        self.needed <= self.default
    }
}

/// One line of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    pub key: &'static str,
    pub value: String,
    pub why: &'static str,
}

/// What has to be set on each node.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Preparation {
    pub plan: Plan,
    /// The app's pods on the fullest node, at rest and while all are updated.
    pub pods_per_node: u64,
    pub pods_at_most: u64,
    pub limits: Vec<Limit>,
    /// For the controller manager and, of k3s, the cluster.
    pub node_mask: u32,
    pub cluster_cidr: String,
    /// Nothing that can be set lets so few nodes hold so many: what stands against it.
    pub impossible: Vec<String>,
    /// Fewest nodes on which the defaults suffice.
    pub nodes_by_default: u64,
    /// Of the kubelet, by the names of its configuration.
    pub kubelet: Vec<Line>,
    pub eviction: Vec<Line>,
    pub sysctls: Vec<Line>,
}

/// Pods of the app on the fullest node while all are updated, and the cluster's own.
fn at_most(pods: u64, nodes: u64) -> u64 {
    let all = pods.saturating_add(pods.saturating_mul(SURGE_QUARTERS).div_ceil(4));
    all.div_ceil(nodes.max(1)).saturating_add(SYSTEM_PODS)
}

/// The longest prefix that leaves so many addresses.
fn mask_of(addresses: u64) -> u32 {
    32u32.saturating_sub(addresses.max(1).checked_next_power_of_two().unwrap_or(1 << 32).ilog2())
}

/// Addresses that a node should have for so many pods: twice as many, since one that has left keeps its own for a while.
fn addresses_for(pods: u64) -> u64 {
    pods.saturating_mul(2)
}

pub fn prepare(plan: Plan) -> Preparation {
    let pods = at_most(plan.pods, plan.nodes);
    let node_mask = mask_of(addresses_for(pods)).min(NODE_MASK_DEFAULT);
    // One more than there are, for a node that is replaced.
    let cluster_mask = node_mask.saturating_sub(plan.nodes.saturating_add(1).next_power_of_two().ilog2());
    let mut impossible = Vec::new();
    if pods > BRIDGE_PORTS {
        impossible.push(format!(
            "a bridge has 1,023 ports, and flannel connects all pods of a node to one: take {} nodes or more, or \
             a network without a bridge, such as Cilium or Calico (k3s: flannel-backend: none)",
            fewest(plan.pods, BRIDGE_PORTS)
        ));
    }
    let cluster_cidr = match cluster_mask {
        mask if mask >= CLUSTER_MASK_DEFAULT => CLUSTER_CIDR_DEFAULT.to_owned(),
        mask => {
            if mask < WIDEST_CLUSTER_MASK {
                impossible.push(format!(
                    "{} nodes with {} addresses each do not fit {WIDER_CIDR}/{WIDEST_CLUSTER_MASK}",
                    plan.nodes,
                    1u64 << (32 - node_mask)
                ));
            }
            format!("{WIDER_CIDR}/{}", mask.max(WIDEST_CLUSTER_MASK))
        }
    };
    Preparation {
        plan,
        pods_per_node: plan.pods.div_ceil(plan.nodes.max(1)),
        pods_at_most: pods,
        limits: limits(pods),
        node_mask,
        cluster_cidr,
        impossible,
        nodes_by_default: fewest(plan.pods, PODS_DEFAULT),
        kubelet: kubelet(pods),
        eviction: eviction(),
        sysctls: sysctls(pods, plan),
    }
}

/// Fewest nodes of which none holds more than so many pods.
fn fewest(pods: u64, each: u64) -> u64 {
    let all = pods.saturating_add(pods.saturating_mul(SURGE_QUARTERS).div_ceil(4));
    all.div_ceil(each.saturating_sub(SYSTEM_PODS).max(1)).max(1)
}

fn limits(pods: u64) -> Vec<Limit> {
    let addresses = |mask: u32| (1u64 << (32 - mask)) - 2;
    vec![
        Limit {
            name: "pods of a node",
            default: PODS_DEFAULT,
            needed: pods,
            why: "the kubelet takes no more: `Too many pods`".into(),
        },
        Limit {
            name: "addresses of a node",
            default: addresses(NODE_MASK_DEFAULT),
            needed: addresses_for(pods),
            why: "`no IP addresses available in range set`; twice the pods, since addresses are kept for a while".into(),
        },
        Limit {
            name: "ports of its bridge",
            default: BRIDGE_PORTS,
            needed: pods,
            why: "compiled into the kernel: `exchange full`".into(),
        },
    ]
}

fn kubelet(pods: u64) -> Vec<Line> {
    if pods <= PODS_DEFAULT {
        return vec![];
    }
    let line = |key, value: u64, why| Line { key, value: value.to_string(), why };
    let mut lines =
        vec![line("maxPods", pods.next_multiple_of(10), "pods of a node, the cluster's own counted")];
    // Each pod is reported by itself, and all of them when the kubelet starts.
    if pods > 250 {
        lines.push(line("kubeAPIQPS", 100, "requests a second to the API server; 50 by default"));
        lines.push(line("kubeAPIBurst", 200, "and at once; 100 by default"));
    }
    lines
}

/// Thresholds: images are collected before pods are evicted for want of room. Whoever names one for eviction takes the
/// defaults of all others away, so all of them are there.
fn eviction() -> Vec<Line> {
    let line = |key, value: &str, why| Line { key, value: value.to_owned(), why };
    vec![
        line(
            "memory.available",
            "5%",
            "100Mi by default, which many pods take in less than the 10 s between two looks",
        ),
        line("nodefs.available", "10%", "of the disk with logs and volumes; the default, k3s has 5%"),
        line("nodefs.inodesFree", "5%", "the default"),
        line("imagefs.available", "10%", "of the disk with images; 15% by default, k3s has 5%"),
        line("pid.available", "10%", "none by default: one pod that forks without end stops all others"),
    ]
}

/// Percent of the disk with images in use at which they are collected, and down to which.
pub const COLLECT_FROM: u32 = 80;
pub const COLLECT_TO: u32 = 70;

/// MiB of memory that kubelet and container runtime are to have for so many pods.
pub fn reserved_memory(pods: u64) -> u64 {
    RESERVED_BASE.saturating_add(RESERVED_OF_POD.saturating_mul(pods))
}

fn sysctls(pods: u64, plan: Plan) -> Vec<Line> {
    let roomy = |needed: u64, least: u64| {
        let wanted = needed.saturating_add(needed / 4);
        wanted.checked_next_power_of_two().unwrap_or(u64::MAX).max(least)
    };
    let line = |key, value: u64, why| Line { key, value: value.to_string(), why };
    let tasks = plan
        .processes
        .saturating_add(TASKS_OF_POD)
        .saturating_mul(pods)
        .saturating_add(TASKS_BASE)
        .min(1 << 22);
    // Both ends of each pod's pair, and the other nodes.
    let neighbours = roomy(pods.saturating_mul(2).saturating_add(plan.nodes), 1_024);
    vec![
        line("kernel.pid_max", roomy(tasks, 1 << 22), "programs, shims and their threads"),
        line("kernel.threads-max", roomy(tasks, 1 << 17), "the same"),
        line(
            "fs.inotify.max_user_instances",
            roomy(pods.saturating_mul(WATCHERS_OF_POD), 1_024),
            "128 by default, for all pods that run as the same user",
        ),
        line(
            "fs.inotify.max_user_watches",
            roomy(pods.saturating_mul(WATCHES_OF_POD), 1 << 19),
            "files that are watched",
        ),
        line("net.ipv4.neigh.default.gc_thresh1", neighbours / 4, "entries that are never collected"),
        line("net.ipv4.neigh.default.gc_thresh2", neighbours / 2, "beyond them after 5 s"),
        line(
            "net.ipv4.neigh.default.gc_thresh3",
            neighbours,
            "the table's end, for all pods of the node together",
        ),
        line(
            "net.core.netdev_max_backlog",
            roomy(pods, 1_000).max(4_096),
            "a question for an address goes to every port of the bridge at once",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn plan(pods: u64, nodes: u64) -> Preparation {
        prepare(Plan { pods, nodes, processes: 1 })
    }

    fn needed(of: &Preparation) -> Vec<bool> {
        of.limits.iter().map(|limit| !limit.suffices()).collect()
    }

    #[test]
    fn the_defaults_suffice_for_few() {
        let few = plan(80, 1);
        assert_eq!((few.pods_at_most, few.node_mask, few.cluster_cidr.as_str()), (110, 24, "10.42.0.0/16"));
        assert_eq!(needed(&few), [false, false, false]);
        assert!(few.kubelet.is_empty() && few.impossible.is_empty());
        assert_eq!(plan(81, 1).pods_at_most, 112, "81, 21 more while they are updated, 10 of the cluster's");
        assert_eq!(needed(&plan(81, 1)), [true, false, false]);
        assert_eq!((few.nodes_by_default, plan(81, 1).nodes_by_default), (1, 2));
    }

    #[test]
    fn a_thousand_on_two_nodes_need_another_mask() {
        let found = plan(1_000, 2);
        assert_eq!((found.pods_per_node, found.pods_at_most), (500, 635));
        assert_eq!(needed(&found), [true, true, false]);
        // 1,270 addresses.
        assert_eq!((found.node_mask, found.cluster_cidr.as_str()), (21, "10.42.0.0/16"));
        let set =
            |key: &str| found.kubelet.iter().find(|line| line.key == key).map(|line| line.value.as_str());
        assert_eq!((set("maxPods"), set("kubeAPIQPS")), (Some("640"), Some("100")));
        assert!(found.impossible.is_empty());
    }

    #[test]
    fn a_bridge_is_full_whatever_is_set() {
        let found = plan(1_000, 1);
        assert_eq!(needed(&found), [true, true, true]);
        assert!(found.impossible[0].contains("take 2 nodes or more"), "{:?}", found.impossible);
        assert!(plan(1_000, 2).impossible.is_empty());
    }

    #[test]
    fn many_nodes_need_more_addresses_in_all() {
        assert_eq!(plan(16_000, 200).cluster_cidr, "10.42.0.0/16", "a /24 each");
        assert_eq!(plan(16_000, 300).cluster_cidr, "10.64.0.0/15");
        let most = plan(400_000, 5_000);
        assert_eq!((most.node_mask, most.cluster_cidr.as_str()), (24, "10.64.0.0/11"));
        assert!(most.impossible.is_empty());
        assert!(plan(4_000_000, 50_000).impossible[0].contains("do not fit 10.64.0.0/10"));
    }

    #[test]
    fn images_are_collected_before_pods_are_evicted() {
        let found = plan(100, 1);
        let images = found.eviction.iter().find(|line| line.key == "imagefs.available").expect("a threshold");
        let left: u32 = images.value.trim_end_matches('%').parse().expect("a share");
        assert!(COLLECT_TO < COLLECT_FROM && COLLECT_FROM < 100 - left);
        assert_eq!(reserved_memory(110), 1_465);
    }

    proptest! {
        #[test]
        fn what_is_set_holds_what_is_asked_for(pods in 1u64..10_000_000, nodes in 1u64..100_000, processes in 1u64..1_000) {
            let found = prepare(Plan { pods, nodes, processes });
            prop_assert!(found.pods_at_most >= found.pods_per_node + SYSTEM_PODS);
            prop_assert!(found.node_mask <= NODE_MASK_DEFAULT);
            prop_assert!(1u64 << (32 - found.node_mask) >= found.pods_at_most * 2);
            let most = found.kubelet.first().map_or(PODS_DEFAULT, |line| line.value.parse().expect("a number"));
            prop_assert!(most >= found.pods_at_most);
            prop_assert!(at_most(pods, found.nodes_by_default) <= PODS_DEFAULT);
            prop_assert!(found.sysctls.iter().all(|line| line.value.parse::<u64>().is_ok_and(|value| value > 0)));
        }
    }
}
