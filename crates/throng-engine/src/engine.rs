//! The engine: its options, what it holds, and how orders reach replicas.

use crate::cgroup::{Cgroups, Group};
use crate::child::Op;
use crate::dns::Resolvers;
use crate::ends::follow_exits;
use crate::errors::host;
use crate::exits::Exits;
use crate::network::{self, Fabric, Links};
use crate::nodes::{self, Nodes};
use crate::plan::{DEFAULT_CAPABILITIES, Ground};
use crate::quiet::{Lives, Parents};
use crate::replica::{Phase, Replica, Running};
use crate::spawn::{MAX_STARTING, Spawner, Starting};
use crate::state::{self, Store};
use crate::traffic::Traffic;
use crate::user::IdMaps;
use crate::wires::Wires;
use crate::{blank, logs, process, rootless, seccomp, start};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use throng_model::replica::{NetworkSpec, ReplicaId, ReplicaSpec};
use throng_runtime::{ErrorKind, Result, RuntimeError, RuntimeEvent};
use tokio::sync::{OwnedMutexGuard, Semaphore, broadcast};

/// Events kept for a watcher that does not read; older ones are lost to it.
pub const EVENT_BACKLOG: usize = 65_536;
/// Replicas of which it is told that they were taken over with damaged records; of more it is only logged.
const MAX_NOTES: usize = 100;
/// Ends of processes that are recorded at the same time.
const MAX_ENDING: usize = 8;

#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Replicas' folders, layers and logs, as `/var/lib/throng/engine`.
    pub state_dir: PathBuf,
    /// What need not outlive the host's own life, as `/run/throng`.
    pub run_dir: PathBuf,
    pub isolation: IsolationChoice,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum IsolationChoice {
    /// Containers where the host allows them, plain processes elsewhere.
    #[default]
    Auto,
    Container,
    Process,
}

/// How replicas are kept apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    Container {
        /// In a user namespace of an ordinary user.
        rootless: bool,
    },
    Process,
}

/// The embedded container engine. One for each supervisor; several may share a state folder as long as each keeps to
/// projects of its own.
pub struct Engine {
    pub(crate) core: Arc<Core>,
    pub(crate) isolation: Isolation,
    lost: Option<String>,
}

/// What tasks and threads of the engine share.
pub struct Core {
    pub store: Store,
    pub boot: String,
    isolation: OnceLock<Isolation>,
    /// For plain processes, where the host allows it; else says why not.
    loopbacks: OnceLock<std::result::Result<process::Loopbacks, String>>,
    pub ground: Ground,
    pub cgroups: Cgroups,
    pub fabric: Fabric,
    pub spawner: Spawner,
    pub starting: Semaphore,
    pub ending: Semaphore,
    pub exits: Arc<Exits>,
    pub events: broadcast::Sender<RuntimeEvent>,
    next_number: AtomicU64,
    /// Wishes that this host cannot keep, as far as somebody has had them.
    unkept: Mutex<BTreeSet<&'static str>>,
    living: Mutex<HashMap<u64, Weak<Replica>>>,
    /// Of each project, in their order.
    replicas: Mutex<HashMap<String, BTreeMap<ReplicaId, Arc<Replica>>>>,
    /// Projects whose replicas on disk have been taken over.
    pub loaded: tokio::sync::Mutex<BTreeSet<String>>,
    networks: Mutex<HashMap<String, NetworkSpec>>,
    pub nodes: Nodes,
    /// See [`crate::sys::init`].
    pub init: OnceLock<Arc<OwnedFd>>,
    /// See [`crate::meter`].
    pub traffic: Mutex<Option<Traffic>>,
    pub parents: Mutex<Parents>,
    /// Name servers of replicas that have their own.
    pub resolvers: Arc<Resolvers>,
    /// What was odd about replicas that were taken over, by name.
    notes: Mutex<Vec<(String, String)>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change of these maps is one call, so a panic elsewhere leaves them whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Engine {
    /// Opens the engine and starts its tasks; needs a running tokio runtime.
    pub fn open(options: EngineOptions) -> Result<Arc<Self>> {
        Self::open_with(options, Links::Macvlans)
    }

    /// As [`Engine::open`] where the kernel has no macvlan interfaces: a network holds 1,023 replicas then.
    #[doc(hidden)]
    pub fn open_with_pairs(options: EngineOptions) -> Result<Arc<Self>> {
        Self::open_with(options, Links::Pairs)
    }

    fn open_with(options: EngineOptions, links: Links) -> Result<Arc<Self>> {
        let runtime = tokio::runtime::Handle::try_current()
            .map_err(|e| RuntimeError::new(ErrorKind::Invalid, format!("no runtime for the engine: {e}")))?;
        let core = Arc::new(Core::open(&options, links, rootless::entered())?);
        let refusal = match options.isolation {
            IsolationChoice::Process => Some("it was asked for".to_owned()),
            _ => process::refusal(&core.spawner, start::NAMESPACES | libc::CLONE_NEWNS),
        };
        let isolation = match (&refusal, options.isolation) {
            (Some(why), IsolationChoice::Container) => {
                return Err(RuntimeError::new(
                    ErrorKind::Host,
                    format!("this host allows no containers: {why}"),
                )
                .hint("run as root, allow user namespaces, or use --isolation process"));
            }
            (Some(_), _) => Isolation::Process,
            (None, _) => Isolation::Container { rootless: core.ground.rootless },
        };
        // Set once, before anybody else has the core.
        let _ = core.isolation.set(isolation);
        if isolation == Isolation::Process {
            let _ = core.loopbacks.set(process::Loopbacks::new(&core.spawner));
        }
        let lost = core.lost(refusal.as_deref());
        runtime.spawn(follow_exits(Arc::downgrade(&core)));
        runtime.spawn(logs::rotate_for_ever(Arc::downgrade(&core)));
        runtime.spawn(nodes::keep_links(Arc::downgrade(&core)));
        Ok(Arc::new(Engine { core, isolation, lost }))
    }

    pub fn isolation(&self) -> &Isolation {
        &self.isolation
    }

    /// One line about what this mode lacks and why; `None` when nothing is lost.
    pub fn lost(&self) -> Option<String> {
        let unkept = lock(&self.core.unkept);
        let all: Vec<&str> = self.lost.as_deref().into_iter().chain(unkept.iter().copied()).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }

    /// Whether limits on CPU, memory and processes are enforced.
    pub fn limits_enforced(&self) -> bool {
        !matches!(self.core.cgroups, Cgroups::None(_))
    }

    /// What was odd about replicas that were taken over since this was last asked: their names, and what it was.
    pub fn take_notes(&self) -> Vec<(String, String)> {
        std::mem::take(&mut *lock(&self.core.notes))
    }

    /// A nonblocking TCP socket from which replicas can be dialled.
    pub fn tcp_socket(&self) -> io::Result<OwnedFd> {
        match self.isolation {
            Isolation::Container { rootless: true } => self.core.fabric.tcp_socket(),
            _ => network::tcp_socket(),
        }
    }

    /// Listens inside a network at an address that no replica has, where only replicas and this host come. `None` for plain
    /// processes, which have no names that could lead there. The network must exist.
    pub async fn service_listener(
        &self,
        network: &NetworkSpec,
        address: Ipv4Addr,
        port: u16,
    ) -> Result<Option<io::Result<TcpListener>>> {
        if self.isolation == Isolation::Process {
            return Ok(None);
        }
        let (core, network) = (self.core.clone(), network.clone());
        blocking(move || core.fabric.listener(&network, address, port)).await.map(Some)
    }
}

impl Core {
    /// What this mode lacks, and why, in one line.
    fn lost(&self, refusal: Option<&str>) -> Option<String> {
        let limits = match &self.cgroups {
            Cgroups::None(why) => {
                Some(format!("limits on CPU, memory and processes are not enforced ({why})"))
            }
            _ => None,
        };
        let Some(why) = refusal else {
            let one = "inside a replica there is no user but its own (no newuidmap, or no line for this user in \
                       /etc/subuid and /etc/subgid)";
            let one = (self.ground.rootless && self.ground.ids.single()).then(|| one.to_owned());
            let narrow = "a network holds 1,023 replicas at most (the kernel has no module macvlan)";
            let narrow = (self.fabric.links_are() == Links::Pairs).then(|| narrow.to_owned());
            let all: Vec<_> = [one, narrow, limits].into_iter().flatten().collect();
            return (!all.is_empty()).then(|| all.join("; "));
        };
        let listening = match self.loopbacks.get() {
            Some(Err(reason)) => {
                format!("; they must listen on ${} themselves ({reason})", process::ADDRESS)
            }
            _ => String::new(),
        };
        let processes = format!(
            "replicas are plain processes that share this host's files, users and network: volumes, configs and \
             secrets are not mounted, service names not resolved, subnets and addresses of networks not kept, \
             privileges and kernel parameters not changed\
             {listening} ({why})"
        );
        Some([Some(processes), limits].into_iter().flatten().collect::<Vec<_>>().join("; "))
    }

    /// First operations of a plain process: it gets a loopback of its own, where the host allows that.
    pub fn loopback_ops(&self, spec: &ReplicaSpec) -> Result<Vec<Op>> {
        match (self.loopbacks.get(), spec.networks.first()) {
            (Some(Ok(loopbacks)), Some(_)) => loopbacks
                .beginning()
                .map(Vec::from)
                .map_err(|e| host(format_args!("cannot start the helper for addresses of {}", spec.id), e)),
            _ => Ok(vec![]),
        }
    }

    /// The parent's part of it.
    pub fn give_loopback(&self, starting: &Starting, spec: &ReplicaSpec) -> Result<()> {
        let (Some(Ok(loopbacks)), Some(leg)) = (self.loopbacks.get(), spec.networks.first()) else {
            return Ok(());
        };
        // Without a listener the child has failed, and says why when it is waited for.
        let Some(listener) = starting.listener() else { return Ok(()) };
        loopbacks
            .adopt(listener, leg.address)
            .map_err(|e| host(format_args!("cannot give {} its address", spec.id), e))
    }

    /// Bytes that the replica's writable layer is held to. Where that cannot be had the limit is remembered as lost.
    pub fn disk_limit(&self, spec: &ReplicaSpec) -> Option<u64> {
        let bytes = spec.resources.disk?;
        match (self.limits_disks(), self.contained()) {
            (true, _) => return Some(bytes),
            (false, true) => self.lose(
                "size limits of writable layers (storage_opt) are not enforced (an ordinary user mounts no file \
                 systems)",
            ),
            (false, false) => {
                self.lose("size limits of writable layers (storage_opt) are not enforced (it has none)");
            }
        }
        None
    }

    /// Remembers a wish that cannot be kept, for [`Engine::lost`].
    pub fn lose(&self, wish: &'static str) {
        lock(&self.unkept).insert(wish);
    }

    /// Whether a writable layer can have a limit: a file system is mounted for it, which takes root.
    pub fn limits_disks(&self) -> bool {
        self.contained() && !self.ground.rootless
    }

    /// Whether replicas are containers.
    pub fn contained(&self) -> bool {
        self.isolation.get() != Some(&Isolation::Process)
    }

    fn open(options: &EngineOptions, links: Links, rootless: bool) -> Result<Self> {
        let opened = |what: &'static str| move |e: io::Error| host(format_args!("cannot open {what}"), e);
        std::fs::create_dir_all(&options.run_dir)
            .map_err(|e| host(format_args!("cannot make {}", options.run_dir.display()), e))?;
        let store = Store::open(&options.state_dir)
            .map_err(|e| host(format_args!("cannot use {}", options.state_dir.display()), e))?;
        let filter = seccomp::filter(DEFAULT_CAPABILITIES).ok_or_else(|| {
            RuntimeError::new(ErrorKind::Host, "the system call filter is too large for the kernel")
        })?;
        let open_files = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
        let ground = Ground {
            rootless,
            filter,
            capabilities: DEFAULT_CAPABILITIES & own_capabilities(),
            own_capabilities: own_capabilities(),
            open_files: open_files.unwrap_or(1 << 20),
            ids: IdMaps::own(),
            blank: blank(&store, rootless),
        };
        Ok(Core {
            store,
            boot: state::boot_id(),
            isolation: OnceLock::new(),
            loopbacks: OnceLock::new(),
            ground,
            cgroups: Cgroups::detect(),
            fabric: Fabric::new(links, Wires::new(&options.run_dir), rootless::join_network)
                .map_err(opened("the network thread"))?,
            spawner: Spawner::new().map_err(opened("the threads that start replicas"))?,
            starting: Semaphore::new(MAX_STARTING),
            ending: Semaphore::new(MAX_ENDING),
            exits: Arc::new(Exits::new().map_err(opened("the set of processes"))?),
            events: broadcast::channel(EVENT_BACKLOG).0,
            next_number: AtomicU64::new(0),
            unkept: Mutex::default(),
            living: Mutex::default(),
            replicas: Mutex::default(),
            loaded: tokio::sync::Mutex::default(),
            networks: Mutex::default(),
            nodes: Nodes::default(),
            init: OnceLock::new(),
            traffic: Mutex::default(),
            parents: Mutex::default(),
            resolvers: Arc::default(),
            notes: Mutex::default(),
        })
    }

    /// Keeps what was odd about a replica for [`Engine::take_notes`].
    pub fn note(&self, id: &ReplicaId, note: String) {
        tracing::warn!("{id}: {note}");
        let mut notes = lock(&self.notes);
        if notes.len() < MAX_NOTES {
            notes.push((id.name(), note));
        }
    }

    pub fn watch(&self) -> broadcast::Receiver<RuntimeEvent> {
        self.events.subscribe()
    }

    pub fn replica(&self, id: &ReplicaId) -> Option<Arc<Replica>> {
        lock(&self.replicas).get(&id.project)?.get(id).cloned()
    }

    pub fn known(&self, id: &ReplicaId) -> Result<Arc<Replica>> {
        self.replica(id).ok_or_else(|| RuntimeError::new(ErrorKind::NotFound, format!("no replica {id}")))
    }

    pub fn insert(&self, replica: Arc<Replica>) {
        if let Some(spec) = &replica.inner().spec {
            self.resolvers.set(&spec.networks, &spec.sandbox.dns);
        }
        let mut replicas = lock(&self.replicas);
        replicas.entry(replica.id.project.clone()).or_default().insert(replica.id.clone(), replica);
    }

    /// Tells whether it was the last one of its project.
    pub fn forget(&self, id: &ReplicaId) -> bool {
        let mut replicas = lock(&self.replicas);
        let Some(project) = replicas.get_mut(&id.project) else { return true };
        if let Some(gone) = project.remove(id)
            && let Some(spec) = &gone.inner().spec
        {
            self.resolvers.set(&spec.networks, &[]);
        }
        let last = project.is_empty();
        if last {
            replicas.remove(&id.project);
        }
        last
    }

    pub fn of_project(&self, project: &str) -> Vec<Arc<Replica>> {
        lock(&self.replicas).get(project).map(|found| found.values().cloned().collect()).unwrap_or_default()
    }

    pub fn all_running(&self) -> Vec<Arc<Replica>> {
        let replicas = lock(&self.replicas);
        replicas.values().flat_map(BTreeMap::values).filter(|r| r.is_running()).cloned().collect()
    }

    /// What a network is like; it is there then.
    pub fn network(&self, name: &str) -> Result<NetworkSpec> {
        if let Some(found) = lock(&self.networks).get(name) {
            return Ok(found.clone());
        }
        let spec = self.known_network(name).ok_or_else(|| {
            RuntimeError::new(ErrorKind::NotFound, format!("no network {name}")).hint("create it first")
        })?;
        self.open_network(&spec)?;
        Ok(spec)
    }

    /// What a network is like, whether or not it is there.
    fn known_network(&self, name: &str) -> Option<NetworkSpec> {
        lock(&self.networks).get(name).cloned().or_else(|| state::read(&self.store.network(name)))
    }

    /// Makes or finds the network's bridge and remembers the network.
    pub fn open_network(&self, spec: &NetworkSpec) -> Result<()> {
        if self.contained() {
            self.fabric.open(spec).map_err(|e| host(format_args!("cannot make network {}", spec.name), e))?;
        }
        lock(&self.networks).insert(spec.name.clone(), spec.clone());
        Ok(())
    }

    /// Whether this engine has made or found the network, or a replica is attached to it.
    pub fn uses_network(&self, name: &str) -> bool {
        lock(&self.networks).contains_key(name) || self.attached(name).is_some()
    }

    pub fn forget_network(&self, name: &str) {
        lock(&self.networks).remove(name);
    }

    /// Names of replicas that are attached to the network, on disk or in memory.
    pub fn attached(&self, network: &str) -> Option<ReplicaId> {
        let attached = |r: &&Arc<Replica>| {
            let inner = r.inner();
            inner.spec.as_ref().is_some_and(|s| s.networks.iter().any(|a| a.network == network))
        };
        lock(&self.replicas).values().flat_map(BTreeMap::values).find(attached).map(|r| r.id.clone())
    }

    /// Starts to follow a process that runs.
    pub fn follow(&self, replica: &Arc<Replica>, running: Running) -> io::Result<()> {
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let pidfd = running.pidfd.clone();
        replica.inner().phase = Phase::Running(running);
        lock(&self.living).insert(number, Arc::downgrade(replica));
        self.exits.add(pidfd.as_fd(), number)
    }

    /// Processes that are followed, each by a descriptor.
    pub fn living(&self) -> usize {
        lock(&self.living).len()
    }

    /// Changes whenever a replica starts or ends.
    pub fn lives(&self) -> Lives {
        let living = self.living();
        (self.next_number.load(Ordering::Relaxed), living)
    }

    /// The replica whose process is followed under that number, which is not followed any more.
    pub fn unfollow(&self, number: u64) -> Option<Arc<Replica>> {
        lock(&self.living).remove(&number).and_then(|weak| weak.upgrade())
    }

    /// The replica's group. Where nobody knows its description any more it is looked for among those of all replicas.
    pub fn group_of(&self, replica: &Replica) -> Option<Group> {
        let (id, spec) = (&replica.id, replica.inner().spec.clone());
        match spec {
            Some(spec) => self.cgroups.group_on(&id.project, spec.node.as_deref(), &id.name()),
            None => self.cgroups.group(&id.project, &id.name()),
        }
    }

    /// Has the host forget where the replica's addresses are, so that who still asks for one is told soon.
    pub fn detach(&self, replica: &Replica) {
        let spec = replica.inner().spec.clone();
        let node = spec.as_ref().and_then(|spec| spec.node.as_deref());
        for leg in spec.iter().filter(|_| self.contained()).flat_map(|spec| &spec.networks) {
            let Some(network) = self.known_network(&leg.network) else { continue };
            if let Err(error) = self.fabric.detach(&network, node, leg.address) {
                tracing::warn!("the place of {} in {} is not forgotten: {error}", replica.id, leg.network);
            }
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        self.cgroups.leave();
        if self.ground.rootless && self.fabric.is_empty() {
            rootless::leave();
        }
    }
}

/// Runs blocking work on the runtime's threads for it.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| RuntimeError::new(ErrorKind::Host, format!("a task of the engine ended early: {e}")))
}

/// Starts the replica on a blocking thread, at most [`MAX_STARTING`] at once.
pub async fn start_replica(
    core: &Arc<Core>,
    replica: &Arc<Replica>,
    order: OwnedMutexGuard<()>,
) -> Result<u32> {
    let permit = core.starting.acquire().await;
    let (core, replica) = (core.clone(), replica.clone());
    let result = blocking(move || {
        let _order = order;
        let running = start::start(&core, &replica)?;
        let pid = running.pid;
        core.follow(&replica, running).map_err(|e| host(format_args!("cannot follow {}", replica.id), e))?;
        Ok(pid)
    })
    .await?;
    drop(permit);
    result
}

/// Where it cannot be had, mounts are copied from the host: as an ordinary user, who may not leave a user namespace for
/// it, or on an older kernel.
fn blank(store: &Store, rootless: bool) -> Option<Arc<OwnedFd>> {
    if rootless {
        return None;
    }
    match blank::namespace(&store.mount_point(), &store.skeleton()) {
        Ok(namespace) => Some(Arc::new(namespace)),
        Err(error) => {
            tracing::debug!("each replica copies the host's mounts: {error}");
            None
        }
    }
}

/// Names become parts of paths.
pub fn check_name(what: &str, name: &str) -> Result<()> {
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.chars().all(fine) && name.len() <= 200 {
        return Ok(());
    }
    Err(RuntimeError::new(ErrorKind::Invalid, format!("{name:?} cannot name a {what}"))
        .hint("use up to 200 letters, digits, - _ and ., starting with a letter or digit"))
}

pub fn check_project(name: &str) -> Result<()> {
    check_name("project", name)
}

/// This process' permitted capabilities.
pub fn own_capabilities() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapPrm:"));
    line.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
}
