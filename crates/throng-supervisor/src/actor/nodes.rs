//! Virtual nodes: on which one each replica is, what is pending and why, and what is said about nodes while the app runs.

use super::*;
use crate::state::NodeOverride;
use throng_control::place::{self, Demand, Need, NodeState, Nodes, Pending, Present, Used};
use throng_model::node::{Capacity, LinkChange, Node, NodeChange, NodeChoice, NodeStatus, Placement};

/// How long a node must be cut off before its replicas are given no work: kube-controller-manager's
/// `--node-monitor-grace-period`.
const UNREACHABLE_AFTER: Duration = Duration::from_secs(50);

/// What is known of nodes and of who is where.
#[derive(Debug, Default)]
pub(super) struct Field {
    /// As they are now: what the definition says, changed by what somebody has said since.
    pub nodes: Nodes,
    /// Where replicas are to be that have not been launched yet.
    assigned: BTreeMap<Key, String>,
    /// Where each replica was last: one that is replaced gets its node again, if it fits there.
    homes: BTreeMap<Key, String>,
    pub pending: BTreeMap<String, Pending>,
    /// Since when nodes are cut off.
    cut: BTreeMap<String, throng_control::Time>,
}

impl Field {
    /// Where a replica of an earlier supervisor is.
    pub fn remember(&mut self, key: Key, node: String) {
        self.homes.insert(key, node);
    }

    /// All that takes room: replicas on nodes, and those that are to be launched there.
    fn present<'a>(&'a self, details: &'a Details, need: impl Fn(&str) -> Need) -> Vec<Present<'a>> {
        let mut present = Vec::new();
        for (service, ordinals) in details {
            let usual = need(service);
            // What has done its work takes no room any more.
            let done = |detail: &&Detail| detail.of_job && detail.exit.is_some_and(Exit::is_success);
            present.extend(ordinals.values().filter(|detail| !done(detail)).filter_map(|detail| {
                let need = detail.given.as_ref().map_or(usual, Need::of);
                Some(Present { service, need, node: detail.node.as_deref()? })
            }));
        }
        let coming = self.assigned.iter();
        present.extend(coming.map(|((service, _), node)| Present { service, need: need(service), node }));
        present
    }
}

/// The definition's nodes, with what somebody has said about them since.
pub fn effective(nodes: &BTreeMap<String, Node>, said: &BTreeMap<String, NodeOverride>) -> Nodes {
    let one = |(name, node): (&String, &Node)| {
        let mut state = NodeState { node: node.clone(), drained: false };
        if let Some(said) = said.get(name) {
            state.drained = said.drained;
            said.link.apply(&mut state.node.link);
        }
        (name.clone(), state)
    };
    nodes.iter().map(one).collect()
}

impl Actor {
    /// Takes in what nodes there are, after the definition or what somebody says has changed.
    pub(super) fn define_nodes(&mut self) {
        let now = self.now();
        let before = std::mem::take(&mut self.field.nodes);
        self.field.nodes = effective(&self.durable.app.nodes, &self.durable.nodes);
        self.field.assigned.clear();
        let Field { nodes, cut, .. } = &mut self.field;
        cut.retain(|name, _| nodes.get(name).is_some_and(|state| !state.node.link.up));
        for (name, _) in nodes.iter().filter(|(_, state)| !state.node.link.up) {
            cut.entry(name.clone()).or_insert(now);
        }
        self.count_on_each();
        let names = self.field.nodes.iter().map(|(name, state)| (name.clone(), state.node.capacity));
        let news = names.filter(|(name, new)| before.get(name).is_none_or(|old| old.node.capacity != *new));
        if news.count() > 0 {
            self.tell_overcommitted();
        }
    }

    /// A service with one replica on each node has as many as there are nodes that fit.
    fn count_on_each(&mut self) {
        for (name, prepared) in &mut self.prepared {
            if !prepared.service.placement.on_each {
                continue;
            }
            let each = place::nodes_for_each(&self.field.nodes, &prepared.service.placement).count();
            let each = u32::try_from(each).unwrap_or(u32::MAX);
            prepared.service.replicas = each;
            if let Some(service) = self.wanted.services.get_mut(name) {
                service.replicas = each;
            }
        }
    }

    /// Nodes are shares of one host: together they may be promised more than it has.
    fn tell_overcommitted(&mut self) {
        let cpus = self.field.nodes.values().filter_map(|state| state.node.capacity.cpus);
        let (sum, largest) = cpus.fold((0.0, 0.0f64), |(sum, most), cpus| (sum + cpus, most.max(cpus)));
        let cores = self.fixed.cores as f64;
        let message = if largest > cores {
            format!(
                "a node has {largest} cores and this host {cores}: it gets at most those, and shares them"
            )
        } else if sum > cores {
            format!(
                "the nodes have {sum} cores together and this host {cores}: each has its own as long as the others \
                 leave them"
            )
        } else {
            return;
        };
        self.event("warning", "nodes", &message);
    }

    /// Finds nodes for all that are to be launched, and says for whom there is none.
    pub(super) fn place(&mut self) {
        if self.field.nodes.is_empty() || self.wanted.going_down {
            self.field.pending.clear();
            self.wanted.services.values_mut().for_each(|service| service.held.clear());
            return;
        }
        let wanted = &self.wanted.services;
        let is_wanted = |key: &Key| {
            wanted.get(&key.0).is_some_and(|service| service.job.is_some() || key.1 <= service.replicas)
        };
        self.field.assigned.retain(|key, _| is_wanted(key));
        let present = self.field.present(&self.details, |service| self.need(service));
        let demands: Vec<Demand<'_>> =
            self.wanted.services.iter().filter_map(|(name, wanted)| self.demand(name, wanted)).collect();
        let placed = place::place(&self.field.nodes, &present, &demands);
        for (service, ordinal, node) in placed.put {
            self.field.assigned.insert((service, ordinal), node);
        }
        for (name, service) in &mut self.wanted.services {
            service.held.clear();
            service.held.extend(placed.pending.get(name).iter().flat_map(|pending| &pending.ordinals));
        }
        let told: Vec<(String, String)> = placed
            .pending
            .iter()
            .filter(|(name, new)| self.field.pending.get(*name).is_none_or(|old| old.reason != new.reason))
            .map(|(name, pending)| {
                let count = pending.ordinals.len();
                (name.clone(), format!("{count} pending: {}", pending.reason))
            })
            .collect();
        self.field.pending = placed.pending;
        told.iter().for_each(|(name, message)| self.event("warning", name, message));
    }

    /// Replicas of a service that are wanted and neither there nor on their way.
    fn demand<'a>(&'a self, name: &'a str, wanted: &WantedService) -> Option<Demand<'a>> {
        let placement = self.placement(name)?;
        let missing = throng_control::job::missing(wanted, self.world.get(name), self.now());
        let missing: Vec<(u32, Option<&str>)> = missing
            .into_iter()
            .map(|ordinal| (name.to_owned(), ordinal))
            .filter(|key| !self.field.assigned.contains_key(key))
            .map(|key| (key.1, self.field.homes.get(&key).map(String::as_str)))
            .collect();
        (!missing.is_empty()).then(|| Demand {
            service: name,
            placement,
            need: self.next_need(name),
            missing,
        })
    }

    fn placement(&self, service: &str) -> Option<&Placement> {
        self.prepared.get(service).map(|prepared| &prepared.service.placement)
    }

    fn need(&self, service: &str) -> Need {
        self.prepared.get(service).map(|prepared| Need::of(&prepared.service.resources)).unwrap_or_default()
    }

    /// Of a replica that is yet to be made.
    fn next_need(&self, service: &str) -> Need {
        let prepared = self.prepared.get(service);
        let recommended = prepared.and_then(|prepared| self.recommended(&prepared.service));
        recommended.map_or_else(|| self.need(service), |given| Need::of(&given))
    }

    /// The node of a replica that is about to be launched: `Err` if there is none for it now.
    pub(super) fn home(&mut self, key: &Key) -> Result<Option<String>, ()> {
        if self.field.nodes.is_empty() {
            return Ok(None);
        }
        let node = self.field.assigned.remove(key).ok_or(())?;
        self.field.homes.insert(key.clone(), node.clone());
        Ok(Some(node))
    }

    /// Finds nodes for those of the replicas to be launched that stand in for others in a roll-out, beyond the count.
    pub(super) fn place_stand_ins(&mut self, steps: &[Step]) {
        if self.field.nodes.is_empty() {
            return;
        }
        let mut missing: BTreeMap<&str, Vec<(u32, Option<&str>)>> = BTreeMap::new();
        for step in steps {
            let Step::Launch { service, ordinal } = step else { continue };
            if !self.field.assigned.contains_key(&(service.clone(), *ordinal)) {
                missing.entry(service).or_default().push((*ordinal, None));
            }
        }
        let demands: Vec<Demand<'_>> = missing
            .into_iter()
            .filter_map(|(service, missing)| {
                let placement = self.placement(service)?;
                Some(Demand { service, placement, need: self.next_need(service), missing })
            })
            .collect();
        if demands.is_empty() {
            return;
        }
        let present = self.field.present(&self.details, |service| self.need(service));
        let placed = place::place(&self.field.nodes, &present, &demands);
        let put = placed.put.into_iter().map(|(service, ordinal, node)| ((service, ordinal), node));
        self.field.assigned.extend(put);
    }

    /// Why services wait that have pending replicas, and whether waiting is in vain.
    pub(super) fn waiting_for_nodes(&self) -> BTreeMap<String, (String, bool)> {
        let leaving = self.world.values().flat_map(BTreeMap::values).any(|view| view.leaving);
        let shut = self.field.nodes.values().any(|state| state.drained || !state.node.link.up);
        let waiting = |(name, pending): (&String, &Pending)| {
            // Nobody else but a person can make room.
            let hopeless = pending.hopeless || !(leaving || shut);
            (name.clone(), (pending.reason.clone(), hopeless))
        };
        self.field.pending.iter().map(waiting).collect()
    }

    /// Replicas that must leave their node: it is drained, or gone from the definition.
    pub(super) fn to_move(&self) -> Vec<Key> {
        if self.field.nodes.is_empty() {
            return Vec::new();
        }
        let shut = |node: &String| self.field.nodes.get(node).is_none_or(|state| state.drained);
        let mut keys = Vec::new();
        for (service, details) in &self.details {
            let Some(views) = self.world.get(service) else { continue };
            for ((ordinal, detail), view) in details.iter().zip(views.values()) {
                if detail.node.as_ref().is_some_and(shut) && !view.busy && !view.leaving {
                    keys.push((service.clone(), *ordinal));
                }
            }
        }
        keys.truncate(self.fixed.limits.retirements);
        keys
    }

    /// Marks replicas on nodes that have been cut off for long, and says when the next ones will be.
    pub(super) fn notice_unreachable(&mut self) -> Option<throng_control::Time> {
        let (now, after) = (self.now(), self.durable.app.unreachable_after.unwrap_or(UNREACHABLE_AFTER));
        let lost = |cut: &BTreeMap<String, throng_control::Time>, node: &str| {
            cut.get(node).is_some_and(|since| now >= *since + after)
        };
        let mut changed = BTreeMap::new();
        for detail in self.details.values_mut().flat_map(BTreeMap::values_mut) {
            let Some(node) = &detail.node else { continue };
            let cut_off = lost(&self.field.cut, node);
            if std::mem::replace(&mut detail.cut_off, cut_off) != cut_off {
                changed.insert(node.clone(), cut_off);
            }
        }
        for (node, cut_off) in changed {
            let seconds = after.as_secs_f64();
            let message = match cut_off {
                true => format!("not reachable for {seconds} s: its replicas are given no work"),
                false => "reachable again: its replicas are given work".to_owned(),
            };
            self.event("node", &node, &message);
        }
        self.field.cut.values().map(|since| *since + after).filter(|at| *at > now).min()
    }

    pub(super) fn nodes_listed(&self) -> Vec<NodeStatus> {
        let mut used: BTreeMap<&str, Used> = BTreeMap::new();
        for (service, details) in &self.details {
            let usual = self.need(service);
            for detail in details.values() {
                let Some(node) = detail.node.as_deref() else { continue };
                used.entry(node).or_default().add(detail.given.as_ref().map_or(usual, Need::of));
            }
        }
        let status = |(name, state): (&String, &NodeState)| {
            let used = used.get(name.as_str()).copied().unwrap_or_default();
            let said = match (state.node.link.up, state.drained) {
                (false, true) => "unreachable, drained",
                (false, false) => "unreachable",
                (true, true) => "drained",
                (true, false) => "ready",
            };
            NodeStatus {
                name: name.clone(),
                state: said.into(),
                node: state.node.clone(),
                replicas: used.replicas,
                requested: Capacity {
                    cpus: Some(used.millicores as f64 / 1e3),
                    memory: Some(used.memory),
                    replicas: None,
                },
                traffic: None,
            }
        };
        self.field.nodes.iter().map(status).collect()
    }

    /// Makes a change wanted and returns what the nodes are to be now, for the runtime.
    pub(super) fn change_nodes(
        &mut self,
        choice: &NodeChoice,
        change: &NodeChange,
    ) -> Result<Vec<(String, Node)>, Refusal> {
        let names = self.chosen(choice)?;
        let mut durable = self.durable.clone();
        for name in &names {
            let said = durable.nodes.entry(name.clone()).or_default();
            match change {
                NodeChange::Drain => said.drained = true,
                NodeChange::Uncordon => said.drained = false,
                NodeChange::Heal => said.link = LinkChange { up: Some(true), ..LinkChange::default() },
                NodeChange::Link(link) => said.link.add(link),
            }
        }
        self.save(&durable)?;
        self.durable = durable;
        self.define_nodes();
        let mut nodes = Vec::new();
        for name in names {
            let Some(state) = self.field.nodes.get(&name) else { continue };
            let message = match change {
                NodeChange::Drain => "drained: its replicas move, and nothing new is put there".to_owned(),
                NodeChange::Uncordon => "takes replicas again".to_owned(),
                NodeChange::Link(link) if link.up == Some(false) => "cut off".to_owned(),
                NodeChange::Heal => format!("healed: its link is {}", state.node.link),
                NodeChange::Link(_) => format!("its link is {}", state.node.link),
            };
            let kind = match change {
                NodeChange::Link(_) => "fault",
                _ => "node",
            };
            nodes.push((name.clone(), state.node.clone()));
            self.event(kind, &name, &message);
        }
        Ok(nodes)
    }

    fn chosen(&self, choice: &NodeChoice) -> Result<Vec<String>, Refusal> {
        let nodes = &self.field.nodes;
        let refusal = |what: String, known: Vec<&str>| {
            let hint = match known.is_empty() {
                true => "declare nodes under x-throng.nodes of the Compose file".to_owned(),
                false => format!("it has: {}", known.join(", ")),
            };
            Err(Refusal::new(RefusalKind::NotFound, what).hint(hint))
        };
        let mut names = BTreeSet::new();
        for name in &choice.names {
            if !nodes.contains_key(name) {
                let known = nodes.keys().map(String::as_str).collect();
                return refusal(format!("no node {name} in {}", self.fixed.project), known);
            }
            names.insert(name.clone());
        }
        for region in &choice.regions {
            let of_region = nodes
                .iter()
                .filter(|(_, state)| state.node.region.as_ref() == Some(region))
                .map(|(name, _)| name);
            let before = names.len();
            names.extend(of_region.cloned());
            if names.len() == before {
                let known: BTreeSet<&str> =
                    nodes.values().filter_map(|state| state.node.region.as_deref()).collect();
                return refusal(
                    format!("no region {region} in {}", self.fixed.project),
                    known.into_iter().collect(),
                );
            }
        }
        if !choice.labels.is_empty() {
            let mut fitting = nodes.iter().filter(|(_, state)| choice.labels_fit(&state.node)).peekable();
            let none = fitting.peek().is_none();
            names.extend(fitting.map(|(name, _)| name.clone()));
            if none {
                let what = format!("no node of {} has {}", self.fixed.project, choice.labels_text());
                return refusal(what, nodes.keys().map(String::as_str).collect());
            }
        }
        Ok(names.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_launched_on_a_node_takes_room_there() {
        let capacity = Capacity { replicas: Some(2), ..Capacity::default() };
        let node = Node { capacity, ..Node::default() };
        let mut there = Detail::new(1, Vec::new());
        there.node = Some("a".into());
        let details = Details::from([("web".into(), BTreeMap::from([(1, there)]))]);
        let mut field = Field::default();
        field.nodes.insert("a".into(), NodeState { node, drained: false });
        let placement = Placement::default();
        let stand_in = |field: &Field| {
            let demand = Demand {
                service: "web",
                placement: &placement,
                need: Need::default(),
                missing: vec![(3, None)],
            };
            let present = field.present(&details, |_| Need::default());
            place::place(&field.nodes, &present, &[demand]).put.len()
        };
        assert_eq!(stand_in(&field), 1);
        field.assigned.insert(("web".into(), 2), "a".into());
        assert_eq!(stand_in(&field), 0);
    }
}
