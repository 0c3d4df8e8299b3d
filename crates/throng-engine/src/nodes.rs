//! Virtual nodes: what their replicas have together, and the links between them and the rest.

use crate::engine::Core;
use crate::errors::host;
use crate::network::OnNode;
use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use throng_model::app::Resources;
use throng_model::node::{LinkTraffic, Node};
use throng_model::replica::ReplicaSpec;
use throng_runtime::Result;

/// Nodes by project and name.
#[derive(Debug, Default)]
pub struct Nodes(Mutex<HashMap<String, BTreeMap<String, Node>>>);

impl Nodes {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, BTreeMap<String, Node>>> {
        // Each change is one call.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node that nobody has told of has a perfect link.
    pub fn on(&self, project: &str, name: &str) -> OnNode {
        let nodes = self.lock();
        let node = nodes.get(project).and_then(|nodes| nodes.get(name));
        let link = node.map(|node| node.link).unwrap_or_default();
        OnNode { project: project.to_owned(), name: name.to_owned(), link }
    }
}

impl Core {
    /// What a replica is limited to: at most what its node has, since the kernel refuses more.
    pub fn limits(&self, spec: &ReplicaSpec) -> Resources {
        let mut resources = spec.resources;
        let nodes = self.nodes.lock();
        let node = spec.node.as_ref().and_then(|name| nodes.get(&spec.id.project)?.get(name));
        if let Some(capacity) = node.map(|node| node.capacity) {
            let least = |own: f64| capacity.cpus.map_or(own, |cpus| own.min(cpus));
            resources.cpus = resources.cpus.map(least);
        }
        resources
    }

    /// See [`throng_runtime::Runtime::set_node`]. The project must be loaded.
    pub fn set_node(&self, project: &str, name: &str, node: Node) -> Result<()> {
        let capacity = node.capacity;
        self.nodes.lock().entry(project.to_owned()).or_default().insert(name.to_owned(), node);
        if let Some(group) = self.cgroups.node(project, name) {
            group.create_node(capacity.cpus, capacity.memory).map_err(|e| {
                let error = host(format_args!("cannot limit node {name}"), e);
                error.hint("a replica there may have a larger limit of its own: drain the node first")
            })?;
        }
        if !self.contained() {
            return Ok(());
        }
        let on = self.nodes.on(project, name);
        for (network, addresses) in self.legs_on(project, name) {
            let spec = self.network(&network)?;
            self.fabric
                .set_link(&spec, &on, &addresses)
                .map_err(|e| host(format_args!("cannot set the link of node {name} in {network}"), e))?;
        }
        Ok(())
    }

    /// Networks that replicas of the node are in, and the addresses of those that run.
    fn legs_on(&self, project: &str, node: &str) -> BTreeMap<String, Vec<Ipv4Addr>> {
        let mut legs: BTreeMap<String, Vec<Ipv4Addr>> = BTreeMap::new();
        for replica in self.of_project(project) {
            let running = replica.is_running();
            let spec = replica.inner().spec.clone();
            for leg in spec.iter().filter(|spec| spec.node.as_deref() == Some(node)).flat_map(|s| &s.networks)
            {
                let addresses = legs.entry(leg.network.clone()).or_default();
                addresses.extend(running.then_some(leg.address));
            }
        }
        legs
    }

    pub fn remove_nodes(&self, project: &str) {
        self.nodes.lock().remove(project);
        self.fabric.close_links(project);
        self.cgroups.remove_project(project);
    }

    pub fn link_traffic(&self, project: &str) -> BTreeMap<String, LinkTraffic> {
        let names: Vec<String> = match self.nodes.lock().get(project) {
            Some(nodes) => nodes
                .iter()
                .filter(|(_, node)| !node.link.is_perfect())
                .map(|(name, _)| name.clone())
                .collect(),
            None => return BTreeMap::new(),
        };
        let traffic = |name: &String| {
            let networks = self.legs_on(project, name).into_keys();
            let each = networks.filter_map(|network| self.fabric.link_traffic(project, &network, name));
            each.reduce(|a, b| LinkTraffic {
                passed: a.passed + b.passed,
                lost: a.lost + b.lost,
                overflowed: a.overflowed + b.overflowed,
            })
        };
        names
            .into_iter()
            .filter_map(|name| Some((traffic(&name)?, name)))
            .map(|(t, name)| (name, t))
            .collect()
    }
}
