//! Which virtual node a replica is put on, and why there is none for it.
//!
//! As Kubernetes' scheduler works: nodes that cannot take the replica are filtered out, the best of the others gets it,
//! and what was asked for is set aside there. A replica stays where it is; only [`crate::plan()`]'s caller moves some, by
//! retiring them. What is asked for is the service's reservation, or its limit where there is none (as Kubernetes does
//! with requests), or nothing.
//!
//! Of several nodes that fit, in this order: that of the fewest replicas of the service over each level of
//! `preferences: spread`; that with the fewest replicas of the service; that which is the least full afterwards; the first
//! by name. The same arguments give the same nodes.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use throng_model::app::Resources;
use throng_model::node::{Capacity, Node, Placement};

/// A node and what has been said about it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NodeState {
    pub node: Node,
    /// Nothing new is put there, and what is there leaves.
    pub drained: bool,
}

/// By name.
pub type Nodes = BTreeMap<String, NodeState>;

/// What one replica needs of a node, in thousandths of a core and bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Need {
    pub millicores: u64,
    pub memory: u64,
}

impl Need {
    pub fn of(resources: &Resources) -> Need {
        Need {
            millicores: resources.cpu_request().map_or(0, millicores),
            memory: resources.memory_request().unwrap_or(0),
        }
    }
}

fn millicores(cpus: f64) -> u64 {
    // Saturates; what is not a number is 0.
    (cpus * 1_000.0).ceil() as u64
}

/// Replicas of one service that are wanted somewhere.
#[derive(Debug, Clone)]
pub struct Demand<'a> {
    pub service: &'a str,
    pub placement: &'a Placement,
    pub need: Need,
    /// Ordinals that are on no node yet, each with the node that it was on before, which it gets again if it fits there.
    pub missing: Vec<(u32, Option<&'a str>)>,
}

/// A replica that is on a node already.
#[derive(Debug, Clone, Copy)]
pub struct Present<'a> {
    pub service: &'a str,
    pub need: Need,
    pub node: &'a str,
}

/// Where replicas are to be put.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placed {
    /// Service, ordinal, node.
    pub put: Vec<(String, u32, String)>,
    pub pending: BTreeMap<String, Pending>,
}

/// Replicas of one service that no node can take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    pub ordinals: Vec<u32>,
    /// `0/7 nodes are available: 3 insufficient memory, 4 did not match node.labels.kind == edge`.
    pub reason: String,
    /// No node could take one even if nothing else were there: waiting alone will not help.
    pub hopeless: bool,
}

/// Finds nodes for all that are missing. What is `present` on a node that is not known any more is nowhere.
pub fn place(nodes: &Nodes, present: &[Present<'_>], demands: &[Demand<'_>]) -> Placed {
    let mut board = Board::new(nodes);
    for replica in present {
        board.put(replica.service, replica.need, replica.node);
    }
    let mut placed = Placed::default();
    for demand in demands {
        board.serve(demand, &mut placed);
    }
    placed
}

/// The nodes that a service with one replica on each has one on.
pub fn nodes_for_each<'a>(nodes: &'a Nodes, placement: &'a Placement) -> impl Iterator<Item = &'a str> {
    let fits = |(name, state): &(&String, &NodeState)| {
        !state.drained && placement.constraints.iter().all(|constraint| constraint.holds(name, &state.node))
    };
    nodes.iter().filter(fits).map(|(name, _)| name.as_str())
}

/// What is asked for on a node, together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    pub millicores: u64,
    pub memory: u64,
    pub replicas: u32,
}

impl Used {
    pub fn add(&mut self, need: Need) {
        self.millicores = self.millicores.saturating_add(need.millicores);
        self.memory = self.memory.saturating_add(need.memory);
        self.replicas = self.replicas.saturating_add(1);
    }

    fn with(mut self, need: Need) -> Used {
        self.add(need);
        self
    }
}

/// Bounds of a node in the units of [`Used`]; what has no limit has the largest number.
#[derive(Debug, Clone, Copy)]
struct Room {
    millicores: u64,
    memory: u64,
    replicas: u32,
}

impl Room {
    fn of(capacity: &Capacity) -> Room {
        Room {
            // Rounded down, where needs are rounded up: never more than there is.
            millicores: capacity.cpus.map_or(u64::MAX, |cpus| (cpus * 1_000.0) as u64),
            memory: capacity.memory.unwrap_or(u64::MAX),
            replicas: capacity.replicas.unwrap_or(u32::MAX),
        }
    }

    /// Millionths of the node that are used, by what is used most of.
    fn fullness(&self, used: &Used) -> u64 {
        let share = |used: u64, room: u64| match room {
            u64::MAX => 0,
            _ => (u128::from(used) * 1_000_000 / u128::from(room.max(1))) as u64,
        };
        let replicas = match self.replicas {
            u32::MAX => 0,
            room => share(used.replicas.into(), room.into()),
        };
        share(used.millicores, self.millicores).max(share(used.memory, self.memory)).max(replicas)
    }
}

/// A node that can take one more replica of the service at hand.
#[derive(Debug, Clone, Copy)]
struct Candidate {
    index: usize,
    /// With that replica.
    fullness: u64,
}

/// The nodes with what is on them.
struct Board<'a> {
    names: Vec<&'a str>,
    states: Vec<&'a NodeState>,
    room: Vec<Room>,
    used: Vec<Used>,
    index: HashMap<&'a str, usize>,
    /// Replicas of each service on each node.
    counts: HashMap<&'a str, Vec<u32>>,
}

impl<'a> Board<'a> {
    fn new(nodes: &'a Nodes) -> Board<'a> {
        let names: Vec<&str> = nodes.keys().map(String::as_str).collect();
        Board {
            index: names.iter().enumerate().map(|(index, name)| (*name, index)).collect(),
            room: nodes.values().map(|state| Room::of(&state.node.capacity)).collect(),
            used: vec![Used::default(); names.len()],
            states: nodes.values().collect(),
            counts: HashMap::new(),
            names,
        }
    }

    fn put(&mut self, service: &'a str, need: Need, node: &str) {
        let Some(&index) = self.index.get(node) else { return };
        self.used[index].add(need);
        self.counts.entry(service).or_insert_with(|| vec![0; self.names.len()])[index] += 1;
    }

    fn serve(&mut self, demand: &Demand<'a>, placed: &mut Placed) {
        let counts = self.counts.remove(demand.service).unwrap_or_else(|| vec![0; self.names.len()]);
        let mut spread = Spread::new(self, demand.placement, counts);
        let most = demand.placement.most();
        let mut open: Vec<Candidate> = (0..self.names.len())
            .filter(|&index| self.closed(index, demand.placement).is_none())
            .filter_map(|index| self.candidate(index, demand.need, spread.counts[index], most))
            .collect();
        let mut missing = demand.missing.iter();
        let mut pending = Vec::new();
        for &(ordinal, before) in missing.by_ref() {
            let again = before
                .and_then(|name| self.index.get(name))
                .and_then(|index| open.binary_search_by_key(index, |candidate| candidate.index).ok());
            let Some(place) = again.or_else(|| spread.best(&open)) else {
                // Whoever comes after it needs as much and finds as little.
                pending.push(ordinal);
                break;
            };
            let index = open[place].index;
            self.used[index].add(demand.need);
            spread.add(index);
            placed.put.push((demand.service.to_owned(), ordinal, self.names[index].to_owned()));
            // Only this node has changed, and one that is full for this service stays so.
            match self.candidate(index, demand.need, spread.counts[index], most) {
                Some(next) => open[place] = next,
                None => drop(open.remove(place)),
            }
        }
        pending.extend(missing.map(|(ordinal, _)| *ordinal));
        if !pending.is_empty() {
            let reason = self.reason(demand, &spread.counts, most);
            let hopeless = !(0..self.names.len()).any(|index| self.could(index, demand));
            let ordinals = pending;
            placed.pending.insert(demand.service.to_owned(), Pending { ordinals, reason, hopeless });
        }
        self.counts.insert(demand.service, spread.counts);
    }

    /// Why nothing of a service may be put there, whatever it needs.
    fn closed(&self, index: usize, placement: &Placement) -> Option<String> {
        let state = self.states[index];
        let unmet =
            placement.constraints.iter().find(|constraint| !constraint.holds(self.names[index], &state.node));
        match unmet {
            Some(constraint) => Some(format!("did not match {constraint}")),
            None if state.drained => Some("drained".into()),
            None if !state.node.link.up => Some("unreachable".into()),
            None => None,
        }
    }

    /// What the node would be with one more replica of a service that has so many there; `None` if it cannot take one.
    fn candidate(&self, index: usize, need: Need, here: u32, most: u32) -> Option<Candidate> {
        if here >= most || self.short(index, need).is_some() {
            return None;
        }
        Some(Candidate { index, fullness: self.room[index].fullness(&self.used[index].with(need)) })
    }

    /// What there is too little of.
    fn short(&self, index: usize, need: Need) -> Option<Shortage> {
        Shortage::of(&self.room[index], &self.used[index].with(need))
    }

    /// Whether one replica could be there if nothing else were.
    fn could(&self, index: usize, demand: &Demand<'_>) -> bool {
        let node = &self.states[index].node;
        let matches =
            demand.placement.constraints.iter().all(|constraint| constraint.holds(self.names[index], node));
        let alone = Shortage::of(&self.room[index], &Used::default().with(demand.need));
        matches && alone.is_none() && demand.placement.most() > 0
    }

    /// In Kubernetes' form: how many nodes have each reason, sorted as texts.
    fn reason(&self, demand: &Demand<'_>, counts: &[u32], most: u32) -> String {
        let mut reasons: BTreeMap<String, u32> = BTreeMap::new();
        let mut count = |reason: String| *reasons.entry(reason).or_default() += 1;
        for (index, &here) in counts.iter().enumerate() {
            if let Some(reason) = self.closed(index, demand.placement) {
                count(reason);
            } else if here >= most {
                count(format!("had {most} of the service already"));
            } else if let Some(shortage) = self.short(index, demand.need) {
                shortage.words().for_each(|word| count(word.to_owned()));
            }
        }
        let mut parts: Vec<String> =
            reasons.into_iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        parts.sort();
        let mut text = format!("0/{} nodes are available", self.names.len());
        if !parts.is_empty() {
            // Writing to a text cannot fail.
            let _ = write!(text, ": {}", parts.join(", "));
        }
        text
    }
}

trait Most {
    fn most(&self) -> u32;
}

impl Most for Placement {
    fn most(&self) -> u32 {
        let each = if self.on_each { 1 } else { u32::MAX };
        self.most_per_node.unwrap_or(u32::MAX).min(each)
    }
}

struct Shortage {
    replicas: bool,
    cpus: bool,
    memory: bool,
}

impl Shortage {
    fn of(room: &Room, used: &Used) -> Option<Shortage> {
        let shortage = Shortage {
            replicas: used.replicas > room.replicas,
            cpus: used.millicores > room.millicores,
            memory: used.memory > room.memory,
        };
        (shortage.replicas || shortage.cpus || shortage.memory).then_some(shortage)
    }

    fn words(&self) -> impl Iterator<Item = &'static str> {
        let each = [
            (self.replicas, "too many replicas"),
            (self.cpus, "insufficient cpu"),
            (self.memory, "insufficient memory"),
        ];
        each.into_iter().filter(|(short, _)| *short).map(|(_, word)| word)
    }
}

/// How the replicas of one service are spread.
struct Spread {
    /// On each node.
    counts: Vec<u32>,
    /// For each level of the preferences: the group of each node, and replicas of each group. Nodes are of one group of a
    /// level if they agree in all levels down to it.
    levels: Vec<(Vec<usize>, Vec<u32>)>,
}

impl Spread {
    fn new(board: &Board<'_>, placement: &Placement, counts: Vec<u32>) -> Spread {
        let mut levels = Vec::new();
        let mut keys: Vec<Vec<&str>> = vec![Vec::new(); board.names.len()];
        for subject in &placement.spread {
            let mut groups: HashMap<Vec<&str>, usize> = HashMap::new();
            let mut of_node = Vec::with_capacity(board.names.len());
            for (index, key) in keys.iter_mut().enumerate() {
                key.push(subject.of(board.names[index], &board.states[index].node));
                let next = groups.len();
                of_node.push(*groups.entry(key.clone()).or_insert(next));
            }
            let mut sums = vec![0; groups.len()];
            of_node.iter().zip(&counts).for_each(|(&group, count)| sums[group] += count);
            levels.push((of_node, sums));
        }
        Spread { counts, levels }
    }

    fn add(&mut self, index: usize) {
        self.counts[index] += 1;
        for (groups, sums) in &mut self.levels {
            sums[groups[index]] += 1;
        }
    }

    /// The place of the best among candidates, which are in the order of their nodes.
    fn best(&self, candidates: &[Candidate]) -> Option<usize> {
        let order = |a: &Candidate, b: &Candidate| {
            let level =
                |(groups, sums): &(Vec<usize>, Vec<u32>)| sums[groups[a.index]].cmp(&sums[groups[b.index]]);
            let levels = self.levels.iter().map(level).find(|order| order.is_ne());
            levels
                .unwrap_or_else(|| self.counts[a.index].cmp(&self.counts[b.index]))
                .then(a.fullness.cmp(&b.fullness))
        };
        // Of equal ones the first, which is the first by name.
        candidates.iter().enumerate().min_by(|(_, a), (_, b)| order(a, b)).map(|(place, _)| place)
    }
}

#[cfg(test)]
mod tests;
