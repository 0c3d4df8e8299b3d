//! The orders of the [`Runtime`] trait.

use crate::engine::{Core, Engine, blocking, check_name, check_project, start_replica};
use crate::errors::host;
use crate::replica::{Inner, Phase, Replica};
use crate::{exec, fill, meter, pause, start, state};
use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use throng_model::node::{LinkTraffic, Node};
use throng_model::replica::{Exit, NetworkSpec, Observed, ReplicaId, ReplicaSpec, Statistics};
use throng_runtime::backends::{HOOKS_AFTER_START, LEAST_GRACE, LOG, run_hooks};
use throng_runtime::{ErrorKind, ExecIo, ExecSpec, Result, Runtime, RuntimeError, RuntimeEvent, backends};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

/// Replicas that are swept at the same time.
const MAX_SWEEPING: usize = 16;
const HELD: &str =
    "end that process, or move it to another group by writing its number to that one's cgroup.procs";
/// A process that has not ended this long after SIGKILL is stuck in the kernel.
const KILL_WAIT: Duration = Duration::from_secs(10);

#[async_trait]
impl Runtime for Engine {
    async fn create_network(&self, network: &NetworkSpec) -> Result<()> {
        check_name("network", &network.name)?;
        let (core, network) = (self.core.clone(), network.clone());
        blocking(move || create_network(&core, &network)).await?
    }

    async fn remove_network(&self, name: &str) -> Result<()> {
        check_name("network", name)?;
        if let Some(id) = self.core.attached(name) {
            return Err(RuntimeError::new(ErrorKind::Invalid, format!("network {name} is in use by {id}"))
                .hint("remove its replicas first"));
        }
        let (core, name) = (self.core.clone(), name.to_owned());
        blocking(move || remove_network(&core, &name)).await?
    }

    async fn create(&self, spec: &ReplicaSpec) -> Result<()> {
        check_name("service", &spec.id.service)?;
        self.core.load(&spec.id.project).await?;
        let replica = self.core.replica(&spec.id).unwrap_or_else(|| {
            let inner = Inner { spec: None, generation: 0, phase: Phase::Created, interfaces: vec![] };
            Arc::new(Replica::new(spec.id.clone(), self.core.store.replica(&spec.id), inner))
        });
        let _order = replica.order.lock().await;
        replica.accept(spec.generation)?;
        let known = replica.inner().spec.clone();
        if known.as_deref() == Some(spec) {
            return Ok(());
        }
        if replica.running().is_some() && known.is_none_or(|k| k.config_hash != spec.config_hash) {
            return Err(still_running(&spec.id));
        }
        let (core, folder, wanted) = (self.core.clone(), replica.folder.clone(), Arc::new(spec.clone()));
        let prepared = wanted.clone();
        blocking(move || start::prepare(&core, &folder, &prepared)).await??;
        replica.inner().spec = Some(wanted);
        self.core.insert(replica.clone());
        Ok(())
    }

    async fn start(&self, id: &ReplicaId, generation: u64) -> Result<u32> {
        self.core.load(&id.project).await?;
        let replica = self.core.known(id)?;
        let order = replica.order.clone().lock_owned().await;
        replica.accept(generation)?;
        if let Some(running) = replica.running() {
            return Ok(running.pid);
        }
        let pid = start_replica(&self.core, &replica, order).await?;
        self.after_start(&replica).await?;
        Ok(pid)
    }

    async fn stop(&self, id: &ReplicaId, generation: u64, signal: i32, grace: Duration) -> Result<Exit> {
        self.core.load(&id.project).await?;
        let replica = self.core.known(id)?;
        let _order = replica.order.lock().await;
        replica.accept(generation)?;
        // Nobody leaves who cannot run.
        unpause(self.core.clone(), replica.clone()).await?;
        let left = self.before_stop(&replica, grace).await;
        stop(&replica, signal, left).await
    }

    async fn remove(&self, id: &ReplicaId, generation: u64) -> Result<()> {
        self.core.load(&id.project).await?;
        let Some(replica) = self.core.replica(id) else { return Ok(()) };
        let order = replica.order.clone().lock_owned().await;
        replica.accept(generation)?;
        if replica.running().is_some() {
            return Err(still_running(id));
        }
        let (core, gone) = (self.core.clone(), replica.clone());
        blocking(move || {
            let _order = order;
            remove(&core, &gone)
        })
        .await?
    }

    async fn shed(&self, ids: &[ReplicaId]) -> Result<u32> {
        let mut shed = 0;
        for id in ids {
            self.core.load(&id.project).await?;
            let Some(replica) = self.core.replica(id) else { continue };
            let order = replica.order.clone().lock_owned().await;
            let spec = {
                let inner = replica.inner();
                inner.spec.clone().filter(|_| matches!(inner.phase, Phase::Exited(_)))
            };
            let Some(spec) = spec else { continue };
            let core = self.core.clone();
            blocking(move || {
                let _order = order;
                start::empty(&core, &replica.folder, &spec)
            })
            .await??;
            shed += 1;
        }
        Ok(shed)
    }

    async fn signal(&self, id: &ReplicaId, generation: u64, signal: i32) -> Result<()> {
        let (core, replica) = self.about(id, generation).await?;
        let Some(running) = replica.running() else { return Ok(()) };
        exec::send(&running.pidfd, signal)
            .map_err(|e| host(format_args!("cannot send signal {signal} to {id}"), e))?;
        if signal == libc::SIGKILL {
            // What is frozen does not even die.
            return unpause(core, replica).await;
        }
        Ok(())
    }

    async fn pause(&self, id: &ReplicaId, generation: u64) -> Result<()> {
        let (core, replica) = self.about(id, generation).await?;
        if !replica.is_running() {
            return Err(RuntimeError::new(ErrorKind::NotFound, format!("{id} is not running")));
        }
        let order = replica.order.clone().lock_owned().await;
        let who = id.to_string();
        let work = move || {
            let _order = order;
            pause::pause(&core, &replica).inspect_err(|_| {
                // Half paused is neither; the first failure is the one to tell.
                let _ = pause::unpause(&core, &replica);
            })
        };
        blocking(work).await?.map_err(|e| host(format_args!("cannot pause {who}"), e))
    }

    async fn unpause(&self, id: &ReplicaId, generation: u64) -> Result<()> {
        let (core, replica) = self.about(id, generation).await?;
        unpause(core, replica).await
    }

    async fn fill(&self, id: &ReplicaId, generation: u64, bytes: Option<u64>) -> Result<u64> {
        let (core, replica) = self.about(id, generation).await?;
        blocking(move || fill::fill(&core, &replica, bytes)).await?
    }

    async fn give_back(&self, id: &ReplicaId, generation: u64) -> Result<()> {
        let (_, replica) = self.about(id, generation).await?;
        blocking(move || replica.give_back()).await
    }

    async fn observe(&self, project: &str) -> Result<Vec<Observed>> {
        self.core.load(project).await?;
        let core = self.core.clone();
        let replicas = core.of_project(project);
        let observed = move |replica: &Arc<Replica>| Observed {
            paused: pause::is_paused(&core, replica),
            ..replica.observed()
        };
        blocking(move || replicas.iter().map(observed).collect()).await
    }

    fn watch(&self) -> mpsc::Receiver<RuntimeEvent> {
        backends::watch(self.core.watch())
    }

    async fn log_files(&self, id: &ReplicaId) -> Result<Vec<PathBuf>> {
        self.core.load(&id.project).await?;
        Ok(backends::log_files(&self.core.known(id)?.folder))
    }

    async fn exec(&self, id: &ReplicaId, spec: &ExecSpec, io: ExecIo) -> Result<Exit> {
        self.core.load(&id.project).await?;
        exec::exec(&self.core, &self.core.known(id)?, spec, io).await
    }

    async fn set_node(&self, project: &str, name: &str, node: &Node) -> Result<()> {
        check_name("node", name)?;
        self.core.load(project).await?;
        let (core, project, name, node) =
            (self.core.clone(), project.to_owned(), name.to_owned(), node.clone());
        blocking(move || core.set_node(&project, &name, node)).await?
    }

    async fn remove_nodes(&self, project: &str) -> Result<()> {
        check_project(project)?;
        let (core, project) = (self.core.clone(), project.to_owned());
        blocking(move || core.remove_nodes(&project)).await
    }

    async fn link_traffic(&self, project: &str) -> BTreeMap<String, LinkTraffic> {
        let (core, project) = (self.core.clone(), project.to_owned());
        blocking(move || core.link_traffic(&project)).await.unwrap_or_default()
    }

    async fn statistics(&self, ids: &[ReplicaId]) -> Vec<Option<Statistics>> {
        let (core, ids) = (self.core.clone(), ids.to_vec());
        let count = ids.len();
        blocking(move || meter::read(&core, &ids)).await.unwrap_or_else(|_| vec![None; count])
    }
}

/// Lets a replica go on that is paused; fine if it is not.
async fn unpause(core: Arc<Core>, replica: Arc<Replica>) -> Result<()> {
    let who = replica.id.clone();
    let work = move || match pause::is_paused(&core, &replica) {
        true => pause::unpause(&core, &replica),
        false => Ok(()),
    };
    blocking(work).await?.map_err(|e| host(format_args!("cannot let {who} go on"), e))
}

fn still_running(id: &ReplicaId) -> RuntimeError {
    RuntimeError::new(ErrorKind::Invalid, format!("{id} is running")).hint("stop it first")
}

fn create_network(core: &Core, network: &NetworkSpec) -> Result<()> {
    let path = core.store.network(&network.name);
    if let Some(known) = state::read::<NetworkSpec>(&path)
        && (known.subnet != network.subnet || known.gateway != network.gateway)
    {
        if core.uses_network(&network.name) {
            return Err(RuntimeError::new(
                ErrorKind::Invalid,
                format!("network {} exists with subnet {}", network.name, known.subnet),
            )
            .hint("take the project down first, or give the network another name"));
        }
        // A supervisor was killed that had just made it; what nobody uses may as well be made anew.
        remove_network(core, &network.name)?;
    }
    let new = !path.exists();
    // Recorded before it is made, so that what is made of it is found whenever a supervisor is killed.
    state::write(&path, network)
        .map_err(|e| host(format_args!("cannot record network {}", network.name), e))?;
    core.open_network(network).inspect_err(|_| {
        if new && let Err(error) = std::fs::remove_file(&path) {
            tracing::warn!("the record of network {} is left: {error}", network.name);
        }
    })
}

fn remove_network(core: &Core, name: &str) -> Result<()> {
    if core.contained() {
        core.fabric.close(name).map_err(|e| host(format_args!("cannot remove network {name}"), e))?;
    }
    core.forget_network(name);
    match std::fs::remove_file(core.store.network(name)) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
            Err(host(format_args!("cannot forget network {name}"), e))
        }
        _ => Ok(()),
    }
}

/// Ends the replica's process: first by the signal, after `grace` by force.
pub async fn stop(replica: &Arc<Replica>, signal: i32, grace: Duration) -> Result<Exit> {
    for (signal, wait) in [(signal, grace), (libc::SIGKILL, KILL_WAIT)] {
        let ended = replica.ended.notified();
        tokio::pin!(ended);
        // Registered before the state is looked at, so that an end in between is not missed.
        ended.as_mut().enable();
        let running = match &replica.inner().phase {
            Phase::Running(running) => running.clone(),
            Phase::Exited(end) => return Ok(end.exit),
            Phase::Created => return Ok(Exit::Unknown),
        };
        exec::send(&running.pidfd, signal)
            .map_err(|e| host(format_args!("cannot send signal {signal} to {}", replica.id), e))?;
        if tokio::time::timeout(wait, ended).await.is_ok()
            && let Phase::Exited(end) = &replica.inner().phase
        {
            return Ok(end.exit);
        }
    }
    Err(RuntimeError::new(
        ErrorKind::Host,
        format!("{} has not ended {} s after it was killed", replica.id, KILL_WAIT.as_secs()),
    )
    .hint("one of its threads is stuck in the kernel; look for state D in `ps`"))
}

/// Removes what is left of a replica that does not run. Its interfaces the kernel removes by itself, with its network
/// namespace: moments later, but many at once.
pub fn remove(core: &Core, replica: &Replica) -> Result<()> {
    let failed = |e: std::io::Error| host(format_args!("cannot remove {}", replica.id), e);
    if let Some(group) = core.group_of(replica) {
        group.remove().map_err(|error| match error.kind() {
            std::io::ErrorKind::ResourceBusy => failed(error).hint(HELD),
            _ => failed(error),
        })?;
    }
    state::remove_tree(&replica.folder).map_err(failed)?;
    if core.forget(&replica.id) {
        core.cgroups.remove_project(&replica.id.project);
        // Fails while something else lies there, which is meant.
        let _ = std::fs::remove_dir(core.store.project(&replica.id.project));
    }
    Ok(())
}

impl Engine {
    /// The replica that an order is about.
    async fn about(&self, id: &ReplicaId, generation: u64) -> Result<(Arc<Core>, Arc<Replica>)> {
        self.core.load(&id.project).await?;
        let replica = self.core.known(id)?;
        replica.accept(generation)?;
        Ok((self.core.clone(), replica))
    }

    /// A replica whose hooks fail has not started: its process is ended.
    async fn after_start(&self, replica: &Arc<Replica>) -> Result<()> {
        let Some(spec) = replica.inner().spec.clone() else { return Ok(()) };
        let (hooks, log) = (&spec.sandbox.post_start, replica.folder.join(LOG));
        let Err(error) = run_hooks(self, &spec.id, hooks, HOOKS_AFTER_START, Some(&log)).await else {
            return Ok(());
        };
        let _order = replica.order.lock().await;
        stop(replica, libc::SIGKILL, Duration::ZERO).await?;
        Err(error.hint("see its log; the hook is under post_start of the service"))
    }

    /// What is left of the grace period. A hook that fails keeps nobody from stopping.
    async fn before_stop(&self, replica: &Arc<Replica>, grace: Duration) -> Duration {
        let spec = replica.inner().spec.clone();
        let Some(spec) = spec.filter(|spec| !spec.sandbox.pre_stop.is_empty()) else { return grace };
        if grace.is_zero() || replica.running().is_none() {
            return grace;
        }
        let (begin, log) = (Instant::now(), replica.folder.join(LOG));
        if let Err(error) = run_hooks(self, &spec.id, &spec.sandbox.pre_stop, grace, Some(&log)).await {
            self.core.note(&spec.id, error.to_string());
        }
        grace.saturating_sub(begin.elapsed()).max(LEAST_GRACE.min(grace))
    }

    /// Removes everything of a project, whatever its state: processes, groups, interfaces, folders, and the networks
    /// that its replicas and nobody else's are attached to.
    pub async fn sweep(&self, project: &str) -> Result<()> {
        check_project(project)?;
        self.core.load(project).await?;
        let networks = networks_of(&self.core.of_project(project));
        let gate = Arc::new(Semaphore::new(MAX_SWEEPING));
        let mut tasks = JoinSet::new();
        for replica in self.core.of_project(project) {
            let (core, gate) = (self.core.clone(), gate.clone());
            tasks.spawn(async move {
                // The semaphore is never closed.
                let _permit = gate.acquire().await;
                let _order = replica.order.lock().await;
                unpause(core.clone(), replica.clone()).await?;
                stop(&replica, libc::SIGKILL, Duration::ZERO).await?;
                let gone = replica.clone();
                blocking(move || remove(&core, &gone)).await?
            });
        }
        let mut first_failure = None;
        while let Some(done) = tasks.join_next().await {
            let done = done.unwrap_or_else(|e| {
                Err(RuntimeError::new(ErrorKind::Host, format!("sweeping {project} ended early: {e}")))
            });
            first_failure = first_failure.or(done.err());
        }
        if let Some(failure) = first_failure {
            return Err(failure);
        }
        let (core, project) = (self.core.clone(), project.to_owned());
        blocking(move || sweep_rest(&core, &project, &networks)).await?
    }
}

fn networks_of(replicas: &[Arc<Replica>]) -> BTreeSet<String> {
    let names = |replica: &Arc<Replica>| -> Vec<String> {
        let inner = replica.inner();
        inner.spec.iter().flat_map(|spec| &spec.networks).map(|leg| leg.network.clone()).collect()
    };
    replicas.iter().flat_map(names).collect()
}

/// What no replica on disk accounts for.
fn sweep_rest(core: &Core, project: &str, networks: &BTreeSet<String>) -> Result<()> {
    let failed = |e: std::io::Error| host(format_args!("cannot sweep {project}"), e);
    for name in core.cgroups.names(project) {
        if let Some(group) = core.cgroups.group(project, &name) {
            group.clear().map_err(failed)?;
        }
    }
    core.cgroups.remove_project(project);
    for name in networks.iter().filter(|name| core.attached(name).is_none()) {
        remove_network(core, name)?;
    }
    state::remove_tree(&core.store.project(project)).map_err(failed)
}
