use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;
use std::time::Instant;
use throng_model::node::{Constraint, Link, Subject};

const GIB: u64 = 1 << 30;

fn board(name: &str, cpus: f64, memory: u64, labels: &[(&str, &str)]) -> (String, NodeState) {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let capacity = Capacity { cpus: Some(cpus), memory: Some(memory * GIB), replicas: None };
    let node = Node { capacity, labels, architecture: "arm64".into(), ..Node::default() };
    (name.to_owned(), NodeState { node, drained: false })
}

/// Two, two and three small machines, as in the example.
fn edge() -> Nodes {
    let pi = |n: u32| board(&format!("pi4-{n}"), 4.0, 8, &[("kind", "pi4"), ("site", "home")]);
    let nano = |n: u32| board(&format!("nano-{n}"), 4.0, 4, &[("kind", "nano"), ("site", "home")]);
    let odroid = |n: u32| board(&format!("odroid-{n}"), 6.0, 4, &[("kind", "odroid"), ("site", "shed")]);
    [pi(1), pi(2), nano(1), nano(2), odroid(1), odroid(2), odroid(3)].into()
}

fn constraint(text: &str) -> Constraint {
    let (subject, equal, value) = match text.split_once(" == ") {
        Some((subject, value)) => (subject, true, value),
        None => {
            text.split_once(" != ").map(|(subject, value)| (subject, false, value)).expect("a constraint")
        }
    };
    Constraint { subject: Subject::parse(subject).expect("a subject"), equal, value: value.into() }
}

fn only(constraints: &[&str]) -> Placement {
    Placement {
        constraints: constraints.iter().map(|text| constraint(text)).collect(),
        ..Placement::default()
    }
}

fn gib(memory: u64) -> Need {
    Need { millicores: 0, memory: memory * GIB }
}

fn wanted(count: u32) -> Vec<(u32, Option<&'static str>)> {
    (1..=count).map(|ordinal| (ordinal, None)).collect()
}

fn put(nodes: &Nodes, placement: &Placement, need: Need, count: u32) -> Placed {
    place(nodes, &[], &[Demand { service: "web", placement, need, missing: wanted(count) }])
}

/// How many are on each node.
fn counts(placed: &Placed) -> BTreeMap<&str, u32> {
    let mut counts = BTreeMap::new();
    placed.put.iter().for_each(|(_, _, node)| *counts.entry(node.as_str()).or_default() += 1);
    counts
}

#[test]
fn replicas_are_spread_and_the_least_full_node_comes_first() {
    let nodes = edge();
    let placed = put(&nodes, &Placement::default(), gib(1), 8);
    let counts = counts(&placed);
    assert_eq!(counts.len(), 7);
    // The eighth is the second on one of the two with 8 GiB.
    assert_eq!(placed.put[7], ("web".to_owned(), 8, "pi4-1".to_owned()));
    assert!(placed.pending.is_empty());
    assert_eq!(placed.put[0].2, "pi4-1", "8 GiB are filled less by one than 4 are");
}

#[test]
fn constraints_choose_and_reasons_are_told_as_kubernetes_does() {
    let nodes = edge();
    for (constraints, need, count, expected) in [
        (
            &["node.labels.kind == pi4"][..],
            gib(8),
            3,
            "2 insufficient memory, 5 did not match node.labels.kind == pi4",
        ),
        (
            &["node.labels.kind == PI4"],
            gib(9),
            1,
            "2 insufficient memory, 5 did not match node.labels.kind == PI4",
        ),
        (&["node.hostname == nano-9"], gib(0), 1, "7 did not match node.hostname == nano-9"),
        (&["node.platform.arch != aarch64"], gib(0), 1, "7 did not match node.platform.arch != aarch64"),
        (&["node.role == manager"], gib(0), 1, "7 did not match node.role == manager"),
        (
            &["node.labels.site == home", "node.labels.kind != pi4"],
            Need { millicores: 5_000, memory: 5 * GIB },
            1,
            "2 did not match node.labels.kind != pi4, 2 insufficient cpu, 2 insufficient memory, \
             3 did not match node.labels.site == home",
        ),
    ] {
        let placed = put(&nodes, &only(constraints), need, count);
        let pending = &placed.pending["web"];
        assert_eq!(pending.reason, format!("0/7 nodes are available: {expected}"));
        assert_eq!(placed.put.len() + pending.ordinals.len(), count as usize);
        // Two of the first fit; the third would if they were not there.
        assert_eq!(pending.hopeless, placed.put.is_empty(), "{expected}");
    }
    let none = put(&Nodes::new(), &Placement::default(), gib(0), 1);
    assert_eq!(none.pending["web"].reason, "0/0 nodes are available");
}

#[test]
fn nodes_that_are_drained_or_cut_off_get_nothing() {
    let mut nodes = edge();
    nodes.get_mut("pi4-1").expect("there").drained = true;
    nodes.get_mut("pi4-2").expect("there").node.link = Link { up: false, ..Link::default() };
    let placed = put(&nodes, &only(&["node.labels.kind == pi4"]), gib(1), 1);
    let pending = &placed.pending["web"];
    assert_eq!(
        pending.reason,
        "0/7 nodes are available: 1 drained, 1 unreachable, 5 did not match node.labels.kind == pi4"
    );
    assert!(!pending.hopeless, "either may come back");
}

#[test]
fn spread_is_over_groups_before_nodes() {
    let nodes = edge();
    let site = || Subject::parse("node.labels.site").expect("a subject");
    let placement = Placement { spread: vec![site()], ..Placement::default() };
    let placed = put(&nodes, &placement, gib(0), 12);
    let at = |nodes: &[&str]| {
        counts(&placed).iter().filter(|(n, _)| nodes.contains(n)).map(|(_, c)| c).sum::<u32>()
    };
    assert_eq!(at(&["odroid-1", "odroid-2", "odroid-3"]), 6, "three nodes are half of the sites");
    assert_eq!(at(&["pi4-1", "pi4-2"]), 2, "and the other half is even over the four others");
    let kind = Subject::parse("node.labels.kind").expect("a subject");
    let placement = Placement { spread: vec![site(), kind], ..Placement::default() };
    let placed = put(&nodes, &placement, gib(0), 12);
    let counts = counts(&placed);
    assert_eq!([counts["pi4-1"], counts["nano-2"], counts["odroid-3"]], [2, 1, 2], "{counts:?}");
}

#[test]
fn a_node_takes_no_more_of_a_service_than_it_may() {
    let nodes = edge();
    let placement = Placement { most_per_node: Some(1), ..Placement::default() };
    let placed = put(&nodes, &placement, gib(0), 9);
    assert_eq!((placed.put.len(), counts(&placed).len()), (7, 7));
    assert_eq!(placed.pending["web"].reason, "0/7 nodes are available: 7 had 1 of the service already");
    assert_eq!(placed.pending["web"].ordinals, [8, 9]);
    let mut few = edge();
    few.values_mut().for_each(|state| state.node.capacity.replicas = Some(1));
    let placed = put(&few, &Placement::default(), gib(0), 8);
    assert_eq!(placed.pending["web"].reason, "0/7 nodes are available: 7 too many replicas");
}

#[test]
fn one_on_each_node_that_fits() {
    let mut nodes = edge();
    nodes.get_mut("odroid-2").expect("there").drained = true;
    let placement = Placement { on_each: true, ..only(&["node.labels.kind != pi4"]) };
    let each: Vec<&str> = nodes_for_each(&nodes, &placement).collect();
    assert_eq!(each, ["nano-1", "nano-2", "odroid-1", "odroid-3"]);
    let placed = put(&nodes, &placement, gib(1), each.len() as u32);
    assert_eq!(counts(&placed).into_keys().collect::<Vec<_>>(), each);
}

#[test]
fn who_comes_back_gets_its_node_again_if_it_fits() {
    let nodes = edge();
    let placement = Placement::default();
    let demand = |before| Demand {
        service: "web",
        placement: &placement,
        need: gib(4),
        missing: vec![(3, Some(before))],
    };
    let node = |present: &[Present<'_>], before| place(&nodes, present, &[demand(before)]).put[0].2.clone();
    assert_eq!(node(&[], "odroid-2"), "odroid-2");
    assert_eq!(node(&[], "gone"), "pi4-1");
    let there = Present { service: "db", need: gib(4), node: "odroid-2" };
    assert_eq!(node(&[there], "odroid-2"), "pi4-1");
    let nowhere = Present { service: "db", need: gib(4), node: "gone" };
    assert_eq!(node(&[nowhere], "odroid-2"), "odroid-2");
}

#[test]
fn needs_are_reservations_or_limits() {
    let both = Resources {
        cpus: Some(2.0),
        memory: Some(5),
        cpu_reservation: Some(0.25),
        memory_reservation: Some(3),
        ..Resources::default()
    };
    assert_eq!(Need::of(&both), Need { millicores: 250, memory: 3 });
    let limits = Resources { cpus: Some(0.000_1), memory: Some(5), ..Resources::default() };
    assert_eq!(Need::of(&limits), Need { millicores: 1, memory: 5 });
    assert_eq!(Need::of(&Resources::default()), Need::default());
}

/// Under 50 ms where it is optimised; this one may be a debug build on a busy host.
#[test]
fn ten_thousand_replicas_on_a_hundred_nodes_are_placed_at_once() {
    let site = |n: u32| format!("s{}", n % 7);
    let node = |n: u32| board(&format!("n{n:03}"), 64.0, 256, &[("site", &site(n))]);
    let nodes: Nodes = (0..100).map(node).collect();
    let spread = Placement { spread: vec![Subject::Label("site".into())], ..Placement::default() };
    let half = only(&["node.labels.site != s3"]);
    let need = Need { millicores: 100, memory: GIB / 64 };
    let demand = |service, placement, missing| Demand { service, placement, need, missing };
    let begin = Instant::now();
    let placed =
        place(&nodes, &[], &[demand("a", &spread, wanted(5_000)), demand("b", &half, wanted(5_000))]);
    let took = begin.elapsed();
    eprintln!("10,000 replicas on 100 nodes: {took:?}");
    let pending: usize = placed.pending.values().map(|pending| pending.ordinals.len()).sum();
    assert_eq!(placed.put.len() + pending, 10_000);
    assert!(took.as_secs_f64() < 5.0, "{took:?}");
}

prop_compose! {
    fn some_node()(cpus in prop::option::of(1u32..8), memory in prop::option::of(1u64..8),
        replicas in prop::option::of(1u32..4), site in 0u8..3, drained in prop::bool::weighted(0.2),
        up in prop::bool::weighted(0.8)) -> NodeState {
        let capacity = Capacity { cpus: cpus.map(f64::from), memory: memory.map(|n| n * GIB), replicas };
        let labels = BTreeMap::from([("site".to_owned(), site.to_string())]);
        let link = Link { up, ..Link::default() };
        NodeState { node: Node { capacity, labels, link, ..Node::default() }, drained }
    }
}

prop_compose! {
    fn some_service()(count in 0u32..12, millicores in 0u64..3_000, memory in 0u64..3, site in prop::option::of(0u8..3),
        equal: bool, spread: bool, most in prop::option::of(0u32..3), on_each in prop::bool::weighted(0.1))
        -> (u32, Need, Placement) {
        let constraint = |site: u8| Constraint { subject: Subject::Label("site".into()), equal, value: site.to_string() };
        let placement = Placement {
            constraints: site.map(constraint).into_iter().collect(),
            spread: spread.then(|| Subject::Label("site".into())).into_iter().collect(),
            most_per_node: most,
            on_each,
        };
        (count, Need { millicores, memory: memory * GIB }, placement)
    }
}

proptest! {
    /// No node gets more than it has or may, all are placed or pending, none is pending that would fit, the same
    /// arguments give the same answer, and what has been placed leaves nothing to place.
    #[test]
    fn placement_holds(
        nodes in prop::collection::btree_map("[a-e]", some_node(), 0..5),
        services in prop::collection::vec(some_service(), 1..4),
    ) {
        let names: Vec<String> = (0..services.len()).map(|n| format!("s{n}")).collect();
        let demands: Vec<Demand<'_>> = names.iter().zip(&services).map(|(name, (count, need, placement))| Demand {
            service: name, placement, need: *need, missing: wanted(*count),
        }).collect();
        let placed = place(&nodes, &[], &demands);
        prop_assert_eq!(&placed, &place(&nodes, &[], &demands));
        let mut used: BTreeMap<&str, Used> = BTreeMap::new();
        for (service, _, node) in &placed.put {
            let demand = demands.iter().find(|demand| demand.service == service).expect("known");
            used.entry(node).or_default().add(demand.need);
            let state = &nodes[node];
            prop_assert!(!state.drained && state.node.link.up);
            prop_assert!(demand.placement.constraints.iter().all(|c| c.holds(node, &state.node)));
            let here = placed.put.iter().filter(|(s, _, n)| s == service && n == node).count() as u32;
            prop_assert!(here <= demand.placement.most());
        }
        for (node, used) in &used {
            prop_assert!(Shortage::of(&Room::of(&nodes[*node].node.capacity), used).is_none());
        }
        for demand in &demands {
            let put = placed.put.iter().filter(|(service, ..)| service == demand.service);
            let pending = placed.pending.get(demand.service);
            let ordinals = pending.map(|pending| pending.ordinals.clone()).unwrap_or_default();
            let all: BTreeSet<u32> = put.map(|(_, ordinal, _)| *ordinal).chain(ordinals).collect();
            prop_assert_eq!(all.len(), demand.missing.len());
        }
        let present: Vec<Present<'_>> = placed.put.iter().map(|(service, _, node)| Present {
            service, node, need: demands.iter().find(|d| d.service == service).expect("known").need,
        }).collect();
        let rest: Vec<Demand<'_>> = demands.iter().map(|demand| Demand {
            missing: placed.pending.get(demand.service).map(|p| p.ordinals.iter().map(|o| (*o, None)).collect())
                .unwrap_or_default(),
            ..demand.clone()
        }).collect();
        let again = place(&nodes, &present, &rest);
        prop_assert!(again.put.is_empty(), "what is there leaves nothing to place: {:?}", again.put);
        prop_assert_eq!(again.pending.len(), placed.pending.len());
    }
}
