//! Virtual nodes: what their replicas have together, and the links between them and the rest.

use crate::cgroup::Cgroups;
use crate::engine::{Core, blocking};
use crate::errors::host;
use crate::network::OnNode;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::ops::Add;
use std::sync::{Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use throng_model::app::Resources;
use throng_model::node::{LinkTraffic, Node};
use throng_model::replica::ReplicaSpec;
use throng_runtime::{Result, RuntimeEvent};

/// How often it is looked whether the helpers of links are there.
const LOOK_EVERY: Duration = Duration::from_millis(200);

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

/// Looks after links as long as the engine is there.
pub async fn keep_links(core: Weak<Core>) {
    let mut told = BTreeSet::new();
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let Some(core) = core.upgrade() else { return };
        let looked = blocking(move || {
            core.mend_links(&mut told);
            told
        });
        // It ends early only with the runtime.
        let Ok(next) = looked.await else { return };
        told = next;
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
        if let Cgroups::None(_) = self.cgroups {
            // It has been said already that no limit is enforced.
            return resources;
        }
        if resources.cores.is_some() && !self.cgroups.limits_cores() {
            resources.cores = None;
            self.lose(
                "replicas are not held to some of the cores (cpuset: the kernel has no such controller here)",
            );
        }
        if !self.cgroups.tunes_memory() {
            if resources.swappiness.take().is_some() {
                self.lose("mem_swappiness has no effect (control groups of version 2 have none)");
            }
            if std::mem::take(&mut resources.oom_kill_disable) {
                self.lose("oom_kill_disable has no effect (control groups of version 2 cannot do that)");
            }
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
        let on = self.nodes.on(project, name);
        if !self.contained() {
            if !on.link.is_perfect() {
                self.lose(
                    "links of nodes are not there: packets between them pass as if there were none (plain processes \
                     share the host's network)",
                );
            }
            return Ok(());
        }
        for (network, addresses) in self.legs_on(project, name) {
            self.set_link(&on, &network, &addresses)?;
        }
        Ok(())
    }

    fn set_link(&self, on: &OnNode, network: &str, addresses: &[Ipv4Addr]) -> Result<()> {
        let spec = self.network(network)?;
        self.fabric
            .set_link(&spec, on, addresses)
            .map_err(|e| host(format_args!("cannot set the link of node {} in {network}", on.name), e))
    }

    /// Makes links anew whose helper was killed. Until then nothing passes them, and what was under way is lost.
    fn mend_links(&self, told: &mut BTreeSet<String>) {
        for project in self.fabric.take_broken_links() {
            let known = self.nodes.lock().get(&project).cloned().unwrap_or_default();
            let imperfect = known.iter().filter(|(_, node)| !node.link.is_perfect());
            let names: Vec<String> = imperfect.map(|(name, _)| name.clone()).collect();
            let mended = names.iter().try_for_each(|name| {
                let on = self.nodes.on(&project, name);
                self.legs_on(&project, name).into_iter().try_for_each(|(network, addresses)| {
                    self.fabric.doubt_link(&network, name);
                    self.set_link(&on, &network, &addresses)
                })
            });
            let message = match mended {
                Ok(()) => {
                    told.remove(&project);
                    "the helper that carries their packets was killed; another one has taken its place".into()
                }
                Err(error) => {
                    self.fabric.note_broken_links(&project);
                    let message = format!(
                        "the helper that carries their packets was killed, and nothing passes: {error}"
                    );
                    if !told.insert(project.clone()) {
                        continue;
                    }
                    message
                }
            };
            // Nobody need be watching.
            let _ = self.events.send(RuntimeEvent::Warned { project, subject: "nodes".into(), message });
        }
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
            networks.filter_map(|network| self.fabric.link_traffic(project, &network, name)).reduce(Add::add)
        };
        names
            .into_iter()
            .filter_map(|name| Some((traffic(&name)?, name)))
            .map(|(t, name)| (name, t))
            .collect()
    }
}
