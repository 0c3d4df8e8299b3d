//! The connection to a daemon, and what is known of the replicas on it.

use crate::errors::{daemon, host, is};
use crate::replica::{Inner, Replica};
use crate::{exit, labels};
use bollard::API_DEFAULT_VERSION;
use bollard::query_parameters::{InspectContainerOptions, ListContainersOptionsBuilder};
use futures_util::{TryStreamExt, stream};
use std::collections::{HashMap, HashSet};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use throng_image::Store;
use throng_model::replica::{Exit, ReplicaId, ReplicaState};
use throng_runtime::{ErrorKind, Result, RuntimeError, RuntimeEvent};
use tokio::sync::{Semaphore, broadcast};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long the daemon may take to take in an image.
const IMAGE_WITHIN: Duration = Duration::from_secs(600);
/// Orders that the daemon carries out at the same time; with more it is not quicker, only later with each.
const ORDERS_AT_ONCE: usize = 16;
/// How long it may take for any other answer; it is slow when it starts many. One that takes longer waits for itself.
const ANSWER_WITHIN: Duration = Duration::from_secs(120);
/// Containers that leave at the same time: when hundreds do, dockerd 20.10 comes to wait for itself for ever, in what it
/// does to networks after an end. It ends no more of them in a second when there are more.
const LEAVES_AT_ONCE: usize = 16;
/// How long one that was asked to end keeps others waiting: whoever needs longer to end does nothing to the daemon yet.
pub(crate) const LEAVE_WITHIN: Duration = Duration::from_secs(1);
/// Containers that are looked at while a project is taken over.
const LOOKS_AT_ONCE: usize = 16;
/// Events that a slow watcher may be behind before it loses some.
const EVENT_BACKLOG: usize = 16_384;
/// A container that was killed for want of memory may be told as killed first, and the reason a moment later.
const REASON_WITHIN: Duration = Duration::from_millis(300);
const REASON_LOOK: Duration = Duration::from_millis(20);
/// Where a daemon listens that nobody has told otherwise.
const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";

/// Who answers for the names of services.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Names {
    /// A name server at each network's gateway, which whoever drives this runtime runs: replicas ask it.
    Gateway,
    /// Docker's own: a service's name stands for all of its running replicas, ready or not.
    Docker,
}

pub struct DockerOptions {
    /// The daemon's socket, as in `unix:///var/run/docker.sock`.
    pub host: String,
    /// Below it lie logs that somebody has looked at. It also tells whose a container is: several folders may use one
    /// daemon, and each sees its own.
    pub folder: PathBuf,
    /// Where images are taken from.
    pub store: Arc<Store>,
    pub names: Names,
}

/// What `DOCKER_HOST` says, or Docker's usual socket.
pub fn default_host() -> String {
    let said = std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty());
    said.unwrap_or_else(|| DEFAULT_HOST.into())
}

/// A runtime over one daemon.
pub struct Docker {
    pub(crate) core: Arc<Core>,
    version: String,
    host: String,
    /// Ends the tasks with this value.
    _end: DropGuard,
}

pub struct Core {
    /// Answers within [`ANSWER_WITHIN`] or with an error.
    pub api: bollard::Docker,
    /// The same with the patience that an image needs.
    pub patient: bollard::Docker,
    pub home: String,
    pub folder: PathBuf,
    pub store: Arc<Store>,
    pub names: Names,
    /// Where the daemon sees the root of this host's files.
    pub root: PathBuf,
    /// Names of images that the daemon is known to have.
    pub images: tokio::sync::Mutex<HashSet<String>>,
    pub orders: Semaphore,
    pub leaves: Semaphore,
    pub events: broadcast::Sender<RuntimeEvent>,
    loaded: tokio::sync::Mutex<HashSet<String>>,
    replicas: Mutex<Replicas>,
}

#[derive(Default)]
struct Replicas {
    by_id: HashMap<ReplicaId, Arc<Replica>>,
    by_container: HashMap<String, Arc<Replica>>,
}

impl Docker {
    /// Connects to the daemon and starts to follow its events; needs a running tokio runtime.
    pub async fn open(options: DockerOptions) -> Result<Arc<Docker>> {
        Self::open_at(options, "/".into(), broadcast::channel(EVENT_BACKLOG).0).await
    }

    /// As [`Docker::open`], of a daemon that sees the root of this host's files at `root`, with its events told to
    /// whoever hears those.
    pub(crate) async fn open_at(
        options: DockerOptions,
        root: PathBuf,
        events: broadcast::Sender<RuntimeEvent>,
    ) -> Result<Arc<Docker>> {
        let path = options.host.strip_prefix("unix://").ok_or_else(|| {
            RuntimeError::new(ErrorKind::Invalid, format!("{} is not a socket of this host", options.host))
                .hint(
                    "set DOCKER_HOST to unix:///… : replicas must be reachable from here by their addresses",
                )
        })?;
        let what = || format!("cannot reach Docker at {}", options.host);
        let api = bollard::Docker::connect_with_unix(path, ANSWER_WITHIN.as_secs(), API_DEFAULT_VERSION);
        let api = api.map_err(|error| daemon(what(), error))?;
        let api = api.negotiate_version().await.map_err(|error| daemon(what(), error))?;
        let version = api.version().await.map_err(|error| daemon(what(), error))?.version;
        std::fs::create_dir_all(&options.folder)
            .map_err(|error| host(format_args!("cannot make {}", options.folder.display()), error))?;
        // One folder must be one home, by whatever path it was named.
        let folder = std::fs::canonicalize(&options.folder)
            .map_err(|error| host(format_args!("cannot use {}", options.folder.display()), error))?;
        let core = Arc::new(Core {
            patient: api.clone().with_timeout(IMAGE_WITHIN),
            api,
            home: folder.display().to_string(),
            folder,
            store: options.store,
            names: options.names,
            root,
            images: Default::default(),
            orders: Semaphore::new(ORDERS_AT_ONCE),
            leaves: Semaphore::new(LEAVES_AT_ONCE),
            events,
            loaded: Default::default(),
            replicas: Default::default(),
        });
        let end = CancellationToken::new();
        core.clone().follow(end.clone());
        let version = version.unwrap_or_else(|| "of unknown version".into());
        Ok(Arc::new(Docker { core, version, host: options.host, _end: end.drop_guard() }))
    }

    /// The daemon's own version, as in `20.10.24`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Where the daemon listens.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// One line about what this way of running lacks; `None` when nothing is lost.
    pub fn lost(&self) -> Option<String> {
        (self.core.names == Names::Docker).then(|| {
            "Docker answers for names of services, with all running replicas, ready or not, and not for aliases (only \
             root may answer at port 53)"
                .into()
        })
    }

    /// A nonblocking TCP socket from which replicas can be dialled.
    pub fn tcp_socket() -> std::io::Result<OwnedFd> {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        Ok(socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?)
    }
}

impl Core {
    fn replicas(&self) -> MutexGuard<'_, Replicas> {
        self.replicas.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn replica(&self, id: &ReplicaId) -> Option<Arc<Replica>> {
        self.replicas().by_id.get(id).cloned()
    }

    pub fn known(&self, id: &ReplicaId) -> Result<Arc<Replica>> {
        self.replica(id)
            .ok_or_else(|| RuntimeError::new(ErrorKind::NotFound, format!("there is no replica {id}")))
    }

    pub fn by_container(&self, container: &str) -> Option<Arc<Replica>> {
        self.replicas().by_container.get(container).cloned()
    }

    pub fn of_project(&self, project: &str) -> Vec<Arc<Replica>> {
        self.replicas().by_id.values().filter(|replica| replica.id.project == project).cloned().collect()
    }

    pub fn all(&self) -> Vec<Arc<Replica>> {
        self.replicas().by_id.values().cloned().collect()
    }

    /// A replica that is attached to the network, running or not.
    pub fn attached(&self, network: &str) -> Option<ReplicaId> {
        let replicas = self.replicas();
        let uses = |replica: &&Arc<Replica>| {
            let inner = replica.inner();
            inner.spec.iter().flat_map(|spec| &spec.networks).any(|leg| leg.network == network)
        };
        replicas.by_id.values().find(uses).map(|replica| replica.id.clone())
    }

    /// Makes a replica known, under its container if it has one.
    pub fn insert(&self, replica: &Arc<Replica>) {
        let mut replicas = self.replicas();
        replicas.by_id.insert(replica.id.clone(), replica.clone());
        replicas.by_container.retain(|_, other| !Arc::ptr_eq(other, replica));
        if let Some(container) = &replica.inner().container {
            replicas.by_container.insert(container.clone(), replica.clone());
        }
    }

    /// Forgets a replica. True if no other one runs from the same image.
    pub fn forget(&self, replica: &Replica) -> bool {
        let mut replicas = self.replicas();
        replicas.by_id.remove(&replica.id);
        replicas.by_container.retain(|_, other| other.id != replica.id);
        let image = |replica: &Replica| replica.inner().spec.as_ref().map(|spec| spec.root.image_id.clone());
        let gone = image(replica);
        !replicas.by_id.values().any(|other| image(other) == gone)
    }

    /// Takes over every container of the project that is this home's.
    pub async fn load(&self, project: &str) -> Result<()> {
        check_name("project", project)?;
        let mut loaded = self.loaded.lock().await;
        if loaded.contains(project) {
            return Ok(());
        }
        let ours = [format!("{}={}", labels::HOME, self.home), format!("{}={project}", labels::PROJECT)];
        let filters = HashMap::from([("label".to_owned(), ours.to_vec())]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let listed = self.api.list_containers(Some(options)).await;
        let listed =
            listed.map_err(|error| daemon(format_args!("cannot list replicas of {project}"), error))?;
        let all = listed.into_iter().filter_map(|container| Some((container.id?, container.labels?)));
        stream::iter(all.map(Ok))
            .try_for_each_concurrent(LOOKS_AT_ONCE, |(container, labels)| self.adopt(container, labels))
            .await?;
        loaded.insert(project.to_owned());
        Ok(())
    }

    async fn adopt(&self, container: String, labels: HashMap<String, String>) -> Result<()> {
        let Some((id, spec)) = labels::read(&labels) else { return Ok(()) };
        let folder = self.folder_of(&id);
        let made_with = spec.as_ref().map_or(0, |spec| spec.generation);
        let last = crate::runtime::LastStart::read(&folder);
        let generation = last.generation.max(made_with);
        let inner = Inner {
            generation,
            recorded: generation,
            spec: spec.map(Arc::new),
            container: Some(container),
            state: ReplicaState::Created,
            log_path: None,
            killed: false,
            paused: false,
        };
        let replica = Arc::new(Replica::new(id, folder, inner));
        self.insert(&replica);
        // Taken over with an end already: nobody waits for word of it.
        let _looking = replica.looking.lock().await;
        if let Some(state) = self.inspect(&replica).await? {
            let ended = exit::state(&state);
            let mut inner = replica.inner();
            inner.paused = state.paused.unwrap_or(false);
            inner.generation = last.generation_of(&ended).max(made_with);
            inner.recorded = inner.generation;
            drop(inner);
            replica.set(ended);
        }
        Ok(())
    }

    pub fn folder_of(&self, id: &ReplicaId) -> PathBuf {
        self.folder.join(&id.project).join(id.name())
    }

    /// The daemon's view of the replica's container; `None` if there is none any more.
    pub async fn inspect(&self, replica: &Replica) -> Result<Option<bollard::models::ContainerState>> {
        let Ok(container) = replica.container() else { return Ok(None) };
        match self.api.inspect_container(&container, None::<InspectContainerOptions>).await {
            Ok(found) => Ok(found.state),
            Err(error) if is(&error, 404) => Ok(None),
            Err(error) => Err(daemon(format_args!("cannot look at {}", replica.id), error)),
        }
    }

    /// Looks at the replica's container and tells watchers if it has ended since.
    pub async fn look(&self, replica: &Replica) -> Result<()> {
        let _looking = replica.looking.lock().await;
        let state = self.inspect(replica).await?;
        if state.is_none() {
            // The next start makes another one.
            replica.inner().container = None;
        }
        let before = replica.inner().state.clone();
        let after = match &state {
            Some(state) => exit::state(&self.reason(replica, state.clone()).await?),
            // Somebody else has removed it.
            None if matches!(before, ReplicaState::Running { .. }) => {
                let finished_at = std::time::SystemTime::now();
                ReplicaState::Exited { exit: Exit::Unknown, finished_at }
            }
            None => return Ok(()),
        };
        if after == before {
            return Ok(());
        }
        // Read before anybody can know of the end, and with it order the next life: that one has not ended.
        let generation = replica.inner().generation;
        // Before it is told: whoever is told may order the next start at once, and it must not seem to run then.
        replica.set(after.clone());
        if let ReplicaState::Exited { exit, .. } = after {
            // Nobody watching is no loss: the state says the same.
            let _ = self.events.send(RuntimeEvent::Exited { id: replica.id.clone(), generation, exit });
        }
        Ok(())
    }

    /// The state, once it is sure whether the kernel killed for want of memory.
    async fn reason(
        &self,
        replica: &Replica,
        mut state: bollard::models::ContainerState,
    ) -> Result<bollard::models::ContainerState> {
        let limited = replica.inner().spec.as_ref().is_some_and(|spec| spec.resources.memory.is_some());
        let deadline = tokio::time::Instant::now() + REASON_WITHIN;
        while limited
            && !replica.inner().killed
            && exit::maybe_out_of_memory(&state)
            && tokio::time::Instant::now() < deadline
        {
            tokio::time::sleep(REASON_LOOK).await;
            match self.inspect(replica).await? {
                Some(newer) => state = newer,
                None => break,
            }
        }
        Ok(state)
    }
}

/// Names become parts of paths and of the daemon's names, which begin with a letter or digit and hold no more than this.
pub fn check_name(what: &str, name: &str) -> Result<()> {
    let plain = |c: char| c.is_ascii_alphanumeric();
    let fits = name.starts_with(plain)
        && name.chars().all(|c| plain(c) || matches!(c, '-' | '_' | '.'))
        && name.len() <= 200;
    if fits {
        return Ok(());
    }
    Err(RuntimeError::new(ErrorKind::Invalid, format!("{name:?} cannot be the name of a {what}"))
        .hint("use letters, digits, - _ and ., and begin with a letter or digit"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_folder() {
        for name in ["web", "a-b_c.d", "1"] {
            assert!(check_name("service", name).is_ok(), "{name}");
        }
        for name in ["", "..", ".a", "a/b", "-a", "a b", "ä"] {
            assert!(check_name("service", name).is_err(), "{name}");
        }
    }
}
