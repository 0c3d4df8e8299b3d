//! The orders of the [`Runtime`] trait.

use crate::docker::{Core, Docker, LEAVE_WITHIN, check_name};
use crate::errors::{daemon, host, is};
use crate::networks::Link;
use crate::replica::{Inner, Replica};
use crate::{container, images, logs, program, usage};
use async_trait::async_trait;
use bollard::models::NetworkConnectRequest;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, KillContainerOptionsBuilder,
    RemoveContainerOptionsBuilder, StartContainerOptions,
};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use throng_model::replica::{Exit, NetworkSpec, Observed, ReplicaId, ReplicaSpec, ReplicaState, Statistics};
use throng_runtime::backends::{HOOKS_AFTER_START, LEAST_GRACE, run_hooks};
use throng_runtime::{ErrorKind, ExecIo, ExecSpec, Result, Runtime, RuntimeError, RuntimeEvent, backends};
use tokio::sync::mpsc;

const SIGKILL: i32 = 9;
/// A process that has not ended this long after SIGKILL is stuck in the kernel, or its daemon is.
const KILL_WAIT: Duration = Duration::from_secs(30);
/// The file in a replica's folder that holds the generation of its last start, if that is not its container's.
const GENERATION: &str = "generation";

#[async_trait]
impl Runtime for Docker {
    async fn create_network(&self, network: &NetworkSpec) -> Result<()> {
        check_name("network", &network.name)?;
        self.core.make_network(network, &Link::Bridge).await
    }

    async fn remove_network(&self, name: &str) -> Result<()> {
        check_name("network", name)?;
        self.core.unmake_network(name).await
    }

    async fn left_network(&self, name: &str) -> Result<Option<NetworkSpec>> {
        check_name("network", name)?;
        self.core.left_network(name).await
    }

    async fn create(&self, spec: &ReplicaSpec) -> Result<()> {
        check_name("service", &spec.id.service)?;
        self.core.load(&spec.id.project).await?;
        let replica = self.core.replica(&spec.id).unwrap_or_else(|| {
            let inner = Inner {
                spec: None,
                generation: 0,
                recorded: 0,
                container: None,
                state: ReplicaState::Created,
                log_path: None,
                killed: false,
                paused: false,
            };
            Arc::new(Replica::new(spec.id.clone(), self.core.folder_of(&spec.id), inner))
        });
        let _order = replica.order.lock().await;
        replica.accept(spec.generation)?;
        self.core.create(&replica, spec).await
    }

    async fn start(&self, id: &ReplicaId, generation: u64) -> Result<u32> {
        self.core.load(&id.project).await?;
        let replica = self.core.known(id)?;
        let _order = replica.order.lock().await;
        replica.accept(generation)?;
        if let Some(pid) = replica.running() {
            return Ok(pid);
        }
        let pid = self.core.start(&replica, generation).await?;
        let Some(spec) = replica.inner().spec.clone() else { return Ok(pid) };
        // What a hook writes is not part of what the daemon keeps.
        if let Err(error) = run_hooks(self, id, &spec.sandbox.post_start, HOOKS_AFTER_START, None).await {
            self.core.stop(&replica, SIGKILL, Duration::ZERO).await?;
            return Err(error.hint("the hook is under post_start of the service"));
        }
        Ok(pid)
    }

    async fn stop(&self, id: &ReplicaId, generation: u64, signal: i32, grace: Duration) -> Result<Exit> {
        self.core.load(&id.project).await?;
        let replica = self.core.known(id)?;
        let _order = replica.order.lock().await;
        replica.accept(generation)?;
        // Nobody leaves who cannot run.
        self.core.unpause(&replica).await?;
        let (begin, spec) = (Instant::now(), replica.inner().spec.clone());
        let hooks = spec.iter().flat_map(|spec| &spec.sandbox.pre_stop).cloned().collect::<Vec<_>>();
        let mut left = grace;
        if !grace.is_zero() && !hooks.is_empty() && replica.running().is_some() {
            if let Err(error) = run_hooks(self, id, &hooks, grace, None).await {
                tracing::warn!("{error}");
            }
            left = grace.saturating_sub(begin.elapsed()).max(LEAST_GRACE.min(grace));
        }
        let exit = self.core.stop(&replica, signal, left).await?;
        // Somebody follows its log: what it said at the end must be there before it is removed.
        if logs::is_looked_at(&replica)
            && let Err(error) = self.core.bring_log(&replica).await
        {
            tracing::warn!("{error}");
        }
        Ok(exit)
    }

    async fn signal(&self, id: &ReplicaId, generation: u64, signal: i32) -> Result<()> {
        let replica = self.about(id, generation).await?;
        if replica.running().is_none() {
            return Ok(());
        }
        replica.inner().killed |= signal == SIGKILL;
        self.core.signal(&replica, signal).await?;
        if signal == SIGKILL {
            // What is frozen does not even die.
            self.core.unpause(&replica).await?;
        }
        Ok(())
    }

    async fn pause(&self, id: &ReplicaId, generation: u64) -> Result<()> {
        let replica = self.about(id, generation).await?;
        let _order = replica.order.lock().await;
        let container = replica.container()?;
        self.core.order(format!("cannot pause {id}"), self.core.api.pause_container(&container)).await?;
        replica.inner().paused = true;
        Ok(())
    }

    async fn unpause(&self, id: &ReplicaId, generation: u64) -> Result<()> {
        let replica = self.about(id, generation).await?;
        self.core.unpause(&replica).await
    }

    async fn fill(&self, id: &ReplicaId, _generation: u64, _bytes: Option<u64>) -> Result<u64> {
        let message = format!(
            "{id}: a container's layer has no limit on Docker, and filling it fills the daemon's disk"
        );
        Err(RuntimeError::new(ErrorKind::Invalid, message).hint("run the app with --on local"))
    }

    async fn give_back(&self, _id: &ReplicaId, _generation: u64) -> Result<()> {
        Ok(())
    }

    async fn remove(&self, id: &ReplicaId, generation: u64) -> Result<()> {
        self.core.load(&id.project).await?;
        let Some(replica) = self.core.replica(id) else { return Ok(()) };
        let _order = replica.order.lock().await;
        replica.accept(generation)?;
        if replica.running().is_some() {
            return Err(still_running(id));
        }
        self.core.remove(&replica).await
    }

    async fn observe(&self, project: &str) -> Result<Vec<Observed>> {
        self.core.load(project).await?;
        Ok(self.core.of_project(project).iter().map(|replica| replica.observed()).collect())
    }

    fn watch(&self) -> mpsc::Receiver<RuntimeEvent> {
        backends::watch(self.core.events.subscribe())
    }

    async fn log_files(&self, id: &ReplicaId) -> Result<Vec<PathBuf>> {
        self.core.load(&id.project).await?;
        let replica = self.core.known(id)?;
        self.core.bring_log(&replica).await?;
        Ok(backends::log_files(&replica.folder))
    }

    async fn exec(&self, id: &ReplicaId, spec: &ExecSpec, io: ExecIo) -> Result<Exit> {
        self.core.load(&id.project).await?;
        let replica = self.core.known(id)?;
        self.core.exec(&replica, spec, io).await
    }

    async fn statistics(&self, ids: &[ReplicaId]) -> Vec<Option<Statistics>> {
        let replicas = ids.iter().map(|id| self.core.replica(id));
        usage::read_all(replicas.map(|replica| replica?.running()).collect()).await
    }
}

impl Docker {
    /// The replica that an order is about.
    async fn about(&self, id: &ReplicaId, generation: u64) -> Result<Arc<Replica>> {
        self.core.load(&id.project).await?;
        let replica = self.core.known(id)?;
        replica.accept(generation)?;
        Ok(replica)
    }
}

fn still_running(id: &ReplicaId) -> RuntimeError {
    RuntimeError::new(ErrorKind::Invalid, format!("{id} is running")).hint("stop it first")
}

impl Core {
    async fn create(&self, replica: &Arc<Replica>, spec: &ReplicaSpec) -> Result<()> {
        let known = replica.inner().spec.clone();
        let same = known
            .as_deref()
            .is_some_and(|known| *spec == ReplicaSpec { generation: spec.generation, ..known.clone() });
        if replica.running().is_some() && known.is_none_or(|k| k.config_hash != spec.config_hash) {
            return Err(still_running(&spec.id));
        }
        // Somebody else may have removed it since it ended.
        let there = replica.running().is_some() || self.inspect(replica).await?.is_some();
        if replica.running().is_some() || same && there {
            replica.inner().spec = Some(Arc::new(spec.clone()));
            return Ok(());
        }
        if let Some(error) = container::unsupported(spec, self.names) {
            return Err(error);
        }
        program::check(spec).await?;
        let image = self.provide(&spec.root).await?;
        if there {
            // Its output so far is kept; a container's labels and limits cannot be written anew.
            self.bring_log(replica).await?;
            self.remove_container(replica).await?;
        }
        let container = self.make(spec, &image).await?;
        let state = ReplicaState::Created;
        logs::begin_anew(&replica.folder)?;
        forget_generation(&replica.folder);
        {
            let mut inner = replica.inner();
            inner.container = Some(container);
            inner.spec = Some(Arc::new(spec.clone()));
            inner.recorded = spec.generation;
            inner.log_path = None;
        }
        replica.set(state);
        self.insert(replica);
        Ok(())
    }

    /// Makes the container and attaches it to all of its networks.
    async fn make(&self, spec: &ReplicaSpec, image: &str) -> Result<String> {
        let what = || format!("cannot create {}", spec.id);
        let first = spec.networks.first().filter(|_| self.names == crate::Names::Gateway);
        let resolv = first.map(|leg| self.resolver(&leg.network));
        let body = container::body(self, spec, image, resolv.as_deref());
        let name = spec.id.to_string();
        let options = || Some(CreateContainerOptionsBuilder::default().name(&name).build());
        let permit = self.orders.acquire().await;
        let mut made = self.api.create_container(options(), body.clone()).await;
        if made.as_ref().is_err_and(|error| is(error, 409)) && self.is_left_of_ours(&name).await {
            let remove = RemoveContainerOptionsBuilder::default().v(true).force(true).build();
            let removed = self.api.remove_container(&name, Some(remove)).await;
            removed.map_err(|error| daemon(what(), error))?;
            made = self.api.create_container(options(), body.clone()).await;
        }
        if made.as_ref().is_err_and(|error| is(error, 404)) {
            // Taken away with the last replica of another order, since it was looked for.
            self.images.lock().await.remove(image);
            self.provide(&spec.root).await?;
            made = self.api.create_container(options(), body).await;
        }
        drop(permit);
        let container =
            made.map_err(|error| taken(&error, spec).unwrap_or_else(|| daemon(what(), error)))?.id;
        for leg in spec.networks.iter().skip(1) {
            let request = NetworkConnectRequest {
                container: container.clone(),
                endpoint_config: Some(container::endpoint(spec, leg, self.names)),
            };
            if let Err(error) = self.order(what(), self.api.connect_network(&leg.network, request)).await {
                // What nobody would find again must not stay.
                let _ = self.api.remove_container(&container, Some(forced())).await;
                return Err(error);
            }
        }
        Ok(container)
    }

    /// Whether a container of this name is this home's, of an order that nobody saw to its end.
    async fn is_left_of_ours(&self, name: &str) -> bool {
        let found = self.api.inspect_container(name, None::<InspectContainerOptions>).await;
        let labels = found.ok().and_then(|found| found.config?.labels).unwrap_or_default();
        labels.get(crate::HOME) == Some(&self.home)
    }

    /// Returns the pid, or 0 of a process that has ended meanwhile.
    async fn start(&self, replica: &Arc<Replica>, generation: u64) -> Result<u32> {
        let container = replica.container()?;
        if let Some(start) = LastStart::due(replica, generation) {
            start.write(&replica.folder)?;
            replica.inner().recorded = generation;
        }
        replica.inner().killed = false;
        replica.inner().paused = false;
        // Taken before it starts: an end that comes at once must not be told before the start is known.
        let looking = replica.looking.lock().await;
        let what = format!("cannot start {}", replica.id);
        self.order(what, self.api.start_container(&container, None::<StartContainerOptions>)).await?;
        let state = self.inspect(replica).await?.unwrap_or_default();
        let pid = state.pid.and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0);
        replica.set(ReplicaState::Running { pid, started_at: SystemTime::now() });
        if let running @ ReplicaState::Running { .. } = crate::exit::state(&state) {
            replica.set(running);
        } else {
            drop(looking);
            self.look(replica).await?;
        }
        Ok(pid)
    }

    async fn stop(&self, replica: &Replica, signal: i32, grace: Duration) -> Result<Exit> {
        for (signal, wait) in [(signal, grace), (SIGKILL, KILL_WAIT)] {
            match replica.inner().state {
                ReplicaState::Running { .. } => {}
                ReplicaState::Exited { exit, .. } => return Ok(exit),
                ReplicaState::Created => return Ok(Exit::Unknown),
            }
            replica.inner().killed |= signal == SIGKILL;
            if self.ask_to_end(replica, signal, wait).await?
                && let ReplicaState::Exited { exit, .. } = replica.inner().state
            {
                return Ok(exit);
            }
        }
        Err(RuntimeError::new(
            ErrorKind::Host,
            format!("{} has not ended {} s after it was killed", replica.id, KILL_WAIT.as_secs()),
        )
        .hint(
            "one of its threads is stuck in the kernel, or dockerd is: see `docker ps` and state D in `ps`",
        ))
    }

    /// Fine if it is not paused, or not there.
    async fn unpause(&self, replica: &Replica) -> Result<()> {
        if !std::mem::take(&mut replica.inner().paused) {
            return Ok(());
        }
        match self.api.unpause_container(&replica.container()?).await {
            // It has ended, been removed, or been let go on by somebody else.
            Err(error) if is(&error, 404) || is(&error, 409) || is(&error, 500) => self.look(replica).await,
            done => done.map_err(|error| daemon(format_args!("cannot let {} go on", replica.id), error)),
        }
    }

    /// Whether it ends within `wait` of a signal.
    async fn ask_to_end(&self, replica: &Replica, signal: i32, wait: Duration) -> Result<bool> {
        // The semaphore is never closed.
        let leaves = self.leaves.acquire().await;
        self.signal(replica, signal).await?;
        let soon = wait.min(LEAVE_WITHIN);
        if self.ends_within(replica, soon).await? {
            return Ok(true);
        }
        drop(leaves);
        self.ends_within(replica, wait - soon).await
    }

    async fn signal(&self, replica: &Replica, signal: i32) -> Result<()> {
        let container = replica.container()?;
        let options = KillContainerOptionsBuilder::default().signal(&signal.to_string()).build();
        match self.api.kill_container(&container, Some(options)).await {
            // It has ended by itself, or been removed by somebody else.
            Err(error) if is(&error, 409) || is(&error, 404) => self.look(replica).await,
            done => done.map_err(|error| {
                daemon(format_args!("cannot send signal {signal} to {}", replica.id), error)
            }),
        }
    }

    async fn remove(&self, replica: &Arc<Replica>) -> Result<()> {
        self.remove_container(replica).await?;
        match std::fs::remove_dir_all(&replica.folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(host(format_args!("cannot remove the log of {}", replica.id), error));
            }
            _ => {}
        }
        let root = replica.inner().spec.as_ref().map(|spec| spec.root.clone());
        if self.forget(replica)
            && let Some(root) = root
        {
            self.let_image_go(&images::name(&root.image_id)).await;
        }
        if self.of_project(&replica.id.project).is_empty() {
            // Fails while something else lies there, which is meant.
            let _ = std::fs::remove_dir(self.folder.join(&replica.id.project));
        }
        Ok(())
    }

    async fn remove_container(&self, replica: &Replica) -> Result<()> {
        let Ok(container) = replica.container() else { return Ok(()) };
        let _permit = self.orders.acquire().await;
        match self.api.remove_container(&container, Some(forced())).await {
            Err(error) if is(&error, 404) => Ok(()),
            done => done.map_err(|error| daemon(format_args!("cannot remove {}", replica.id), error)),
        }
    }
}

/// Its own unnamed volumes go with a container, and what the daemon believes about its state is no obstacle.
fn forced() -> bollard::query_parameters::RemoveContainerOptions {
    RemoveContainerOptionsBuilder::default().v(true).force(true).build()
}

/// A container of somebody else's by the name that this one must have.
fn taken(error: &bollard::errors::Error, spec: &ReplicaSpec) -> Option<RuntimeError> {
    let taken = is(error, 409);
    taken.then(|| {
        let message =
            format!("cannot create {0}: Docker has a container {0} that is not throng's here", spec.id);
        RuntimeError::new(ErrorKind::Host, message)
            .hint("see `docker ps --all`; remove that one, or give the project another name")
    })
}

/// What was recorded of a replica's last start, before the daemon was told of it.
#[derive(Debug, Default, PartialEq)]
pub struct LastStart {
    pub generation: u64,
    /// The generation of the life before, and when that had ended.
    before: Option<(u64, SystemTime)>,
}

impl LastStart {
    /// Nothing if nothing is on record, which is so until a container is started a second time.
    pub fn read(folder: &Path) -> LastStart {
        let text = std::fs::read_to_string(folder.join(GENERATION)).unwrap_or_default();
        let mut numbers = text.split_whitespace();
        let mut number = || numbers.next()?.parse::<u64>().ok();
        let Some(generation) = number() else { return LastStart::default() };
        let before = number().zip(number()).and_then(|(before, ended)| {
            Some((before, SystemTime::UNIX_EPOCH.checked_add(Duration::from_nanos(ended))?))
        });
        LastStart { generation, before }
    }

    /// What must be on record before the daemon is told of this start, if anything.
    fn due(replica: &Replica, generation: u64) -> Option<LastStart> {
        let inner = replica.inner();
        let before = match inner.state {
            ReplicaState::Exited { finished_at, .. } => Some((inner.recorded, finished_at)),
            _ => None,
        };
        (generation > inner.recorded).then_some(LastStart { generation, before })
    }

    fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(GENERATION);
        let mut text = self.generation.to_string();
        if let Some((before, ended)) = self.before {
            let ended = ended.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            text += &format!(" {before} {}", ended.as_nanos());
        }
        std::fs::create_dir_all(folder)
            .and_then(|()| std::fs::write(&path, text))
            .map_err(|error| host(format_args!("cannot write {}", path.display()), error))
    }

    /// The generation of the life that a container has ended. If it is still the one before, whoever recorded the start
    /// was killed before the daemon heard of it: this end must not count as one more.
    pub fn generation_of(&self, state: &ReplicaState) -> u64 {
        match (state, self.before) {
            (ReplicaState::Exited { finished_at, .. }, Some((before, ended))) if *finished_at == ended => {
                before
            }
            _ => self.generation,
        }
    }
}

fn forget_generation(folder: &Path) {
    // The container's own is newer than any that was recorded.
    let _ = std::fs::remove_file(folder.join(GENERATION));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_counts_for_the_life_that_it_ended() {
        let folder = tempfile::tempdir().expect("a folder");
        assert_eq!(LastStart::read(folder.path()), LastStart::default());
        let ended = SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789);
        let exited = |finished_at| ReplicaState::Exited { exit: Exit::Code { code: 3 }, finished_at };
        for before in [None, Some((6, ended))] {
            let written = LastStart { generation: 7, before };
            written.write(folder.path()).expect("written");
            assert_eq!(LastStart::read(folder.path()), written);
        }
        let last = LastStart::read(folder.path());
        assert_eq!(last.generation_of(&exited(ended)), 6, "it was never started a second time");
        assert_eq!(last.generation_of(&exited(ended + Duration::from_nanos(1))), 7);
        let running = ReplicaState::Running { pid: 1, started_at: ended };
        assert_eq!(last.generation_of(&running), 7);
        // As earlier versions wrote it, and damage.
        for (text, generation) in [("9", 9), ("9 8", 9), ("9 8 x", 9), ("", 0), ("x", 0)] {
            std::fs::write(folder.path().join(GENERATION), text).expect("written");
            let last = LastStart::read(folder.path());
            assert_eq!((last.generation_of(&exited(ended)), last.before), (generation, None), "{text}");
        }
    }
}
