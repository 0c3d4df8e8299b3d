//! Replicas spread over nodes, each a Docker daemon of its own in a container of the host's daemon.
//!
//! ```text
//!  host's daemon ── a bridge for each network, with its gateway ──┬── a port for node 1 ── macvlan ── its replicas
//!                                                                 └── a port for node 2 ── macvlan ── its replicas
//! ```
//!
//! A network is one broadcast domain whatever node a replica is on: the node's daemon puts its containers, by macvlan, on
//! the interface that the host's daemon has given the node in that network. So replicas keep the addresses that Throng
//! has chosen, and no routes, no translation and no second set of names are needed.
//!
//! Nodes come with the project's first network and go with its last. One that ends is made afresh and empty: its
//! replicas are told as ended, and whoever drives this runtime starts them again or not.

use crate::docker::{Core, Docker, DockerOptions, Names, check_name};
use crate::errors::{daemon, host};
use crate::networks::{Link, in_use};
use crate::node::{Found, Nodes, ROOT};
use bollard::query_parameters::ListContainersOptionsBuilder;
use futures_util::{StreamExt, stream};
use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use throng_model::replica::NetworkSpec;
use throng_runtime::{ErrorKind, Result, RuntimeError, RuntimeEvent};
use tokio::sync::{Mutex, OnceCell, RwLock, broadcast};
use tokio_util::sync::{CancellationToken, DropGuard};

/// The most nodes of one project: each is a port of every network's bridge, which has 1,023.
pub const NODES_MOST: u32 = 1_000;
/// Nodes that are made at the same time; a daemon's start keeps a core busy for a second or two.
const MADE_AT_ONCE: usize = 4;
/// Nodes that are asked at the same time.
const ASKED_AT_ONCE: usize = 16;
/// Nodes that are removed at the same time: when many leave a network at once, dockerd 20.10 may lose count of who is in
/// it, and then keeps the network.
const REMOVED_AT_ONCE: usize = 4;
/// How long to wait before a node that could not be made again is tried once more.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Events that a slow watcher may be behind before it loses some.
const EVENT_BACKLOG: usize = 16_384;

pub struct NestedOptions {
    /// The host's daemon, on which the nodes are.
    pub outer: Arc<Docker>,
    /// Whose nodes they are, the project as a rule; part of their names.
    pub name: String,
    /// From 1 to [`NODES_MOST`].
    pub nodes: u32,
    /// Sockets of the nodes' daemons lie below it, so its path must be short.
    pub run: PathBuf,
    /// Nodes see this folder beside the host's root file system. It must hold volumes and the state of `outer`.
    pub home: PathBuf,
}

/// A runtime over several daemons inside one.
pub struct Nested {
    pub(crate) pool: Arc<Pool>,
    /// Ends the tasks with this value.
    _end: DropGuard,
}

pub(crate) struct Pool {
    nodes: Nodes,
    pub slots: Vec<Arc<Slot>>,
    /// Networks that the nodes are to be in. Held while nodes are made or removed.
    networks: Mutex<BTreeMap<String, NetworkSpec>>,
    /// Projects whose replicas have been taken over.
    loaded: Mutex<HashSet<String>>,
    pub events: broadcast::Sender<RuntimeEvent>,
    end: CancellationToken,
}

/// What is known of one node.
pub(crate) struct Slot {
    pub ordinal: u32,
    /// The connection to its daemon, from the first time that it answered on; it stays when the node is made afresh.
    pub docker: OnceCell<Arc<Docker>>,
    /// Written while the node is made, so that nothing is ordered of half a node.
    pub up: RwLock<()>,
    /// Its first process; 0 before it is known.
    pub process: AtomicU32,
    /// Whether a task waits for its end.
    watched: AtomicBool,
}

impl Nested {
    /// Needs root and a running tokio runtime. Nothing is made yet.
    pub fn open(options: NestedOptions) -> Result<Arc<Nested>> {
        check_name("project", &options.name)?;
        if !(1..=NODES_MOST).contains(&options.nodes) {
            let message = format!("{} nodes are not possible", options.nodes);
            return Err(RuntimeError::new(ErrorKind::Invalid, message)
                .hint(format!("take 1 to {NODES_MOST}: each is a port of every network's bridge")));
        }
        if !rustix::process::geteuid().is_root() {
            let message = "Docker daemons inside Docker need root".to_owned();
            return Err(RuntimeError::new(ErrorKind::Host, message)
                .hint("run throng as root, or share the daemon: --on docker"));
        }
        // One folder must be the same one to the nodes, by whatever path it was named.
        let real = |path: PathBuf| {
            let made = std::fs::create_dir_all(&path).and_then(|()| std::fs::canonicalize(&path));
            made.map_err(|error| host(format_args!("cannot use {}", path.display()), error))
        };
        let nodes = Nodes {
            outer: options.outer.core.clone(),
            name: options.name,
            run: real(options.run)?,
            home: real(options.home)?,
        };
        let end = CancellationToken::new();
        let pool = Arc::new(Pool {
            slots: (1..=options.nodes).map(|ordinal| Arc::new(Slot::new(ordinal))).collect(),
            nodes,
            networks: Mutex::default(),
            loaded: Mutex::default(),
            events: broadcast::channel(EVENT_BACKLOG).0,
            end: end.clone(),
        });
        Ok(Arc::new(Nested { pool, _end: end.drop_guard() }))
    }

    pub fn nodes(&self) -> u32 {
        // No more than `NODES_MOST`.
        self.pool.slots.len() as u32
    }
}

/// Says which node an error is of.
pub(crate) fn named(ordinal: u32) -> impl FnOnce(RuntimeError) -> RuntimeError {
    move |error| RuntimeError { message: format!("node {ordinal}: {}", error.message), ..error }
}

impl Slot {
    pub fn new(ordinal: u32) -> Slot {
        Slot {
            ordinal,
            docker: OnceCell::new(),
            up: RwLock::new(()),
            process: AtomicU32::new(0),
            watched: AtomicBool::new(false),
        }
    }

    pub fn core(&self) -> Option<&Arc<Core>> {
        self.docker.get().map(|docker| &docker.core)
    }
}

impl Pool {
    /// Takes over the replicas of a project on all nodes that run.
    pub async fn load(self: &Arc<Self>, project: &str) -> Result<()> {
        let mut loaded = self.loaded.lock().await;
        if loaded.contains(project) {
            return Ok(());
        }
        let there = self.nodes.list().await?;
        let running = |slot: &&Arc<Slot>| there.get(&slot.ordinal).is_some_and(|node| node.running);
        each(ASKED_AT_ONCE, self.slots.iter().filter(running).cloned(), |slot| async move {
            self.nodes.answers(slot.ordinal).await?;
            let docker = self.connect(&slot).await?;
            docker.core.load(project).await.map_err(named(slot.ordinal))
        })
        .await?;
        loaded.insert(project.to_owned());
        Ok(())
    }

    /// The daemon of a node that answers.
    async fn connect(self: &Arc<Self>, slot: &Arc<Slot>) -> Result<Arc<Docker>> {
        let outer = &self.nodes.outer;
        let open = || {
            let options = DockerOptions {
                host: self.nodes.address(slot.ordinal),
                folder: outer.folder.clone(),
                store: outer.store.clone(),
                names: Names::Gateway,
            };
            Docker::open_at(options, ROOT.into(), self.events.clone())
        };
        let docker = slot.docker.get_or_try_init(open).await.map_err(named(slot.ordinal))?.clone();
        let process = self.nodes.process(slot.ordinal).await?.unwrap_or(0);
        slot.process.store(process, Ordering::Relaxed);
        self.watch(slot);
        Ok(docker)
    }

    /// Makes the network on the host's daemon and on every node, and nodes that are missing.
    pub async fn make_network(self: &Arc<Self>, network: &NetworkSpec) -> Result<()> {
        let mut known = self.networks.lock().await;
        // Before anything is made: whoever comes last finds no address.
        self.slots.last().map_or(Ok(()), |slot| self.nodes.has_room(slot.ordinal, network))?;
        self.nodes.outer.make_network(network, &Link::Bridge).await?;
        let fresh = !known.contains_key(&network.name);
        let mut wanted = known.clone();
        wanted.insert(network.name.clone(), network.clone());
        match self.bring_up(network, &wanted).await {
            Ok(()) => *known = wanted,
            Err(error) => {
                if fresh && let Err(error) = self.unmake(&mut known, &network.name).await {
                    tracing::warn!("{error}");
                }
                return Err(error);
            }
        }
        Ok(())
    }

    async fn bring_up(
        self: &Arc<Self>,
        network: &NetworkSpec,
        all: &BTreeMap<String, NetworkSpec>,
    ) -> Result<()> {
        let there = &self.nodes.list().await?;
        each(MADE_AT_ONCE, self.slots.iter().cloned(), |slot| async move {
            match there.get(&slot.ordinal) {
                Some(Found { running: true, .. }) => {
                    self.nodes.answers(slot.ordinal).await?;
                    self.link(&slot, network).await
                }
                _ => self.make(&slot, all).await,
            }
        })
        .await
    }

    /// Makes a node afresh, in all of the networks.
    async fn make(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        networks: &BTreeMap<String, NetworkSpec>,
    ) -> Result<()> {
        let _up = slot.up.write().await;
        let Some(first) = networks.values().next() else { return Ok(()) };
        self.nodes.make(slot.ordinal, first).await?;
        if let Some(core) = slot.core() {
            core.images.lock().await.clear();
        }
        for network in networks.values() {
            if let Err(error) = self.link(slot, network).await {
                // A node that is in some of its networks only would be taken for a whole one.
                let _ = self.nodes.remove(slot.ordinal).await;
                return Err(error);
            }
        }
        Ok(())
    }

    async fn link(self: &Arc<Self>, slot: &Arc<Slot>, network: &NetworkSpec) -> Result<()> {
        let parent = self.nodes.attach(slot.ordinal, network).await?;
        let docker = self.connect(slot).await?;
        docker.core.make_network(network, &Link::Macvlan(parent)).await.map_err(named(slot.ordinal))
    }

    /// Nodes are in it only while their app is there.
    pub async fn left_network(&self, name: &str) -> Result<Option<NetworkSpec>> {
        self.nodes.outer.left_network(name).await
    }

    pub async fn unmake_network(self: &Arc<Self>, name: &str) -> Result<()> {
        let mut known = self.networks.lock().await;
        self.unmake(&mut known, name).await
    }

    async fn unmake(self: &Arc<Self>, known: &mut BTreeMap<String, NetworkSpec>, name: &str) -> Result<()> {
        if let Some(id) = self.slots.iter().find_map(|slot| slot.core()?.attached(name)) {
            return Err(in_use(name, &id.to_string()));
        }
        let there = self.nodes.list().await?;
        let elsewhere = there.values().flat_map(|node| &node.networks).any(|network| network != name);
        if elsewhere {
            self.leave(name, &there).await?;
            known.remove(name);
        } else {
            self.remove_all(name, &there).await?;
            known.clear();
        }
        self.nodes.outer.unmake_network(name).await
    }

    /// Takes all nodes out of a network.
    async fn leave(self: &Arc<Self>, name: &str, there: &BTreeMap<u32, Found>) -> Result<()> {
        let inside = |slot: &&Arc<Slot>| {
            there
                .get(&slot.ordinal)
                .is_some_and(|node| node.running && node.networks.iter().any(|n| n == name))
        };
        each(ASKED_AT_ONCE, self.slots.iter().filter(inside).cloned(), |slot| async move {
            let docker = self.connect(&slot).await?;
            docker.core.unmake_network(name).await.map_err(named(slot.ordinal))?;
            self.nodes.detach(slot.ordinal, name).await
        })
        .await
    }

    /// Removes all nodes with the last of their networks, unless something is in one of them.
    async fn remove_all(self: &Arc<Self>, name: &str, there: &BTreeMap<u32, Found>) -> Result<()> {
        let running = |slot: &&Arc<Slot>| there.get(&slot.ordinal).is_some_and(|node| node.running);
        each(ASKED_AT_ONCE, self.slots.iter().filter(running).cloned(), |slot| async move {
            let docker = self.connect(&slot).await?;
            let options = ListContainersOptionsBuilder::default().all(true).build();
            let listed = docker.core.api.list_containers(Some(options)).await;
            let what = || format!("cannot list containers of node {}", slot.ordinal);
            match listed.map_err(|error| daemon(what(), error))?.first() {
                Some(other) => {
                    let names = other.names.as_deref().unwrap_or_default();
                    let user = names.first().map_or("a container", |name| name.trim_start_matches('/'));
                    Err(in_use(name, user)).map_err(named(slot.ordinal))
                }
                None => Ok(()),
            }
        })
        .await?;
        each(REMOVED_AT_ONCE, there.keys().copied(), |ordinal| self.nodes.remove(ordinal)).await?;
        self.nodes.sweep().await
    }

    /// Starts a task that makes the node afresh when it ends, unless one does so already.
    fn watch(self: &Arc<Self>, slot: &Arc<Slot>) {
        if slot.watched.swap(true, Ordering::Relaxed) {
            return;
        }
        let (pool, slot) = (self.clone(), slot.clone());
        tokio::spawn(async move {
            tokio::select! {
                () = pool.keep(&slot) => {}
                () = pool.end.cancelled() => {}
            }
        });
    }

    async fn keep(self: &Arc<Self>, slot: &Arc<Slot>) {
        loop {
            self.nodes.ended(slot.ordinal).await;
            let known = self.networks.lock().await;
            if known.is_empty() {
                // Taken down, or not yet known what it is to be; whoever makes a network makes it too.
                slot.watched.store(false, Ordering::Relaxed);
                return;
            }
            if let Err(error) = self.revive(slot, &known).await {
                tracing::warn!("node {} has ended and is not back: {error}", slot.ordinal);
                drop(known);
                tokio::time::sleep(AGAIN_AFTER).await;
            }
        }
    }

    async fn revive(self: &Arc<Self>, slot: &Arc<Slot>, known: &BTreeMap<String, NetworkSpec>) -> Result<()> {
        if let Some(process) = self.nodes.process(slot.ordinal).await? {
            slot.process.store(process, Ordering::Relaxed);
            // The daemon has only broken the question off.
            tokio::time::sleep(AGAIN_AFTER).await;
            return Ok(());
        }
        tracing::warn!("node {} of {} has ended; it is made afresh", slot.ordinal, self.nodes.name);
        self.make(slot, known).await
    }
}

/// Does something with each of these, some at the same time, and returns the first error. All are seen to their end even
/// so: what the daemon was asked for half-way would come when nobody expects it.
async fn each<T, Done: Future<Output = Result<()>>>(
    at_once: usize,
    all: impl Iterator<Item = T>,
    what: impl FnMut(T) -> Done,
) -> Result<()> {
    let done: Vec<Result<()>> = stream::iter(all.map(what)).buffer_unordered(at_once).collect().await;
    done.into_iter().collect()
}
