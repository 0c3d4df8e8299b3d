//! How long a change takes to plan when there are many replicas on many nodes: all that is decided between two steps of a
//! supervisor, placement included.
//!
//! `cargo xtask bench planning` publishes what this prints.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use throng_control::place::{self, Demand, Need, NodeState, Nodes, Placed, Present};
use throng_control::{Limits, Phase, ReplicaView, Step, Time, Wanted, WantedService, World, observe, plan};
use throng_model::app::RestartPolicy;
use throng_model::node::{Capacity, Constraint, Node, Placement, Subject};
use throng_model::update::{UpdateOrder, UpdatePolicy};

const REPLICAS: u32 = 10_000;
const NODES: u32 = 100;
/// What a plan may take as users run it; without optimisation it takes ten times as long and more.
const MOST: Duration = Duration::from_millis(50);
const MOST_UNOPTIMISED: Duration = Duration::from_secs(2);
const LIMITS: Limits = Limits { launches: 512, retirements: 512, probes: 512, rechecks: 512 };
/// Rounds of a change that are looked at; the longest one counts.
const ROUNDS: u64 = 6;
const NEED: Need = Need { millicores: 100, memory: 64 << 20 };

fn service(replicas: u32, hash: &str, order: UpdateOrder) -> WantedService {
    WantedService {
        replicas,
        config_hash: hash.into(),
        restart: RestartPolicy::Always.into(),
        update: Some(UpdatePolicy { parallelism: 100, order, ..UpdatePolicy::default() }),
        ..WantedService::default()
    }
}

/// A hundred nodes in ten zones of two racks each, every fifth of another architecture, three of them drained.
fn nodes() -> Nodes {
    let node = |number: u32| {
        let label = |key: &str, value: u32| (key.to_owned(), value.to_string());
        let node = Node {
            capacity: Capacity { cpus: Some(16.0), memory: Some(32 << 30), replicas: Some(150) },
            labels: [label("zone", number % 10), label("rack", number % 20)].into(),
            architecture: if number.is_multiple_of(5) { "arm64" } else { "amd64" }.into(),
            ..Node::default()
        };
        (format!("node-{number:03}"), NodeState { node, drained: number % 40 == 7 })
    };
    (0..NODES).map(node).collect()
}

/// Services with their shares of the replicas in tenths, and where these may be.
fn services() -> [(&'static str, u32, Placement); 3] {
    let label = |key: &str| Subject::Label(key.into());
    let not = |subject, value: &str| Constraint { subject, equal: false, value: value.into() };
    let spread = Placement { spread: vec![label("zone"), label("rack")], ..Placement::default() };
    let constrained = Placement {
        constraints: vec![not(Subject::Architecture, "aarch64"), not(label("zone"), "3")],
        ..Placement::default()
    };
    let few = Placement { most_per_node: Some(20), ..Placement::default() };
    [("api", 3, constrained), ("cache", 1, few), ("web", 6, spread)]
}

/// What a supervisor knows between two plans.
struct Field {
    nodes: Nodes,
    placements: BTreeMap<&'static str, Placement>,
    wanted: Wanted,
    world: World,
    /// The node of each replica that there is.
    homes: BTreeMap<(String, u32), String>,
}

impl Field {
    fn new(hash: &str, order: UpdateOrder, share: u32) -> Field {
        let all = services();
        let wanted = all
            .iter()
            .map(|(name, tenths, _)| ((*name).to_owned(), service(share * tenths / 10, hash, order)))
            .collect();
        Field {
            nodes: nodes(),
            placements: all.into_iter().map(|(name, _, placement)| (name, placement)).collect(),
            wanted: Wanted { services: wanted, going_down: false },
            world: World::new(),
            homes: BTreeMap::new(),
        }
    }

    fn place(&self, missing: &BTreeMap<&str, Vec<u32>>) -> Placed {
        let present: Vec<Present<'_>> =
            self.homes.iter().map(|((service, _), node)| Present { service, need: NEED, node }).collect();
        let demands: Vec<Demand<'_>> = missing
            .iter()
            .map(|(service, ordinals)| Demand {
                service,
                placement: &self.placements[service],
                need: NEED,
                missing: ordinals.iter().map(|ordinal| (*ordinal, None)).collect(),
            })
            .collect();
        place::place(&self.nodes, &present, &demands)
    }

    /// Finds nodes for all that are missing, takes in how roll-outs are, plans, and finds nodes for those that stand in.
    fn decide(&mut self, now: Time) -> (Vec<Step>, BTreeMap<(String, u32), String>) {
        let mut missing: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
        for (name, service) in &self.wanted.services {
            let there = self.world.get(name);
            let lacks = |ordinal: &u32| there.is_none_or(|there| !there.contains_key(ordinal));
            missing.insert(name, (1..=service.replicas).filter(lacks).collect());
        }
        let placed = self.place(&missing);
        assert!(placed.pending.is_empty(), "{:?}", placed.pending);
        let key = |(service, ordinal, node): (String, u32, String)| ((service, ordinal), node);
        let mut assigned: BTreeMap<(String, u32), String> = placed.put.into_iter().map(key).collect();
        observe(&mut self.wanted, &self.world, now);
        let steps = plan(&self.wanted, &self.world, &LIMITS, now).steps;
        let mut beyond: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
        for step in &steps {
            if let Step::Launch { service, ordinal } = step
                && !assigned.contains_key(&(service.clone(), *ordinal))
            {
                beyond.entry(service).or_default().push(*ordinal);
            }
        }
        if !beyond.is_empty() {
            let placed = self.place(&beyond);
            assigned.extend(placed.put.into_iter().map(key));
        }
        (steps, assigned)
    }

    /// Decides, and makes the world what the steps make of it. Returns how long deciding took.
    fn round(&mut self, now: Time) -> Duration {
        let begin = Instant::now();
        let (steps, mut assigned) = self.decide(now);
        let took = begin.elapsed();
        for step in steps {
            match step {
                Step::Retire { service, ordinal } => {
                    let replicas = self.world.get_mut(&service).expect("one that is there");
                    replicas.remove(&ordinal);
                    self.homes.remove(&(service, ordinal));
                }
                Step::Launch { service, ordinal } => {
                    let key = (service, ordinal);
                    let home = assigned.remove(&key).expect("there is room for all");
                    let hash = self.wanted.services[&key.0].config_hash.clone();
                    let view = ReplicaView::new(hash, Phase::Running { since: now }, false);
                    self.world.entry(key.0.clone()).or_default().insert(ordinal, view);
                    self.homes.insert(key, home);
                }
                _ => {}
            }
        }
        took
    }

    /// All replicas, launched as fast as it goes.
    fn full(hash: &str, order: UpdateOrder, share: u32) -> (Field, Duration) {
        let mut field = Field::new(hash, order, share);
        let mut longest = Duration::ZERO;
        while field.homes.len() < share as usize {
            longest = longest.max(field.round(Time::ZERO));
        }
        (field, longest)
    }

    fn update(&mut self, hash: &str, order: UpdateOrder, share: u32) {
        for (name, tenths, _) in services() {
            let now = self.wanted.services.get_mut(name).expect("there");
            let before = std::mem::replace(now, service(share * tenths / 10, hash, order));
            now.succeed(before);
        }
    }
}

/// The longest of a few decisions, as an update of all replicas begins and goes on while a tenth more are asked for.
fn longest(order: UpdateOrder) -> Duration {
    let (mut field, _) = Field::full("old", order, REPLICAS * 9 / 10);
    field.update("new", order, REPLICAS);
    let longest = (0..ROUNDS).map(|round| field.round(Duration::from_secs(10 * round))).max();
    let replaced = |views: &BTreeMap<u32, ReplicaView>| {
        views.values().filter(|view| view.config_hash == "new").count() as u32
    };
    let new: u32 = field.world.values().map(replaced).sum();
    assert!(new >= REPLICAS / 10 + 300, "the update goes on: {new}");
    longest.expect("rounds")
}

#[track_caller]
fn told(change: &str, took: Duration) {
    println!("planned\t{change}\t{:.3}", 1e3 * took.as_secs_f64());
    let most = if cfg!(debug_assertions) { MOST_UNOPTIMISED } else { MOST };
    assert!(took < most, "{change}: {took:?}");
}

#[test]
fn a_change_among_ten_thousand_replicas_is_planned_in_time() {
    told("from nothing", Field::full("new", UpdateOrder::StopFirst, REPLICAS).1);
    told("update, stop first", longest(UpdateOrder::StopFirst));
    told("update, start first", longest(UpdateOrder::StartFirst));
}
