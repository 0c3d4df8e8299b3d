//! The orders of the [`Runtime`] trait over nodes: each goes to the node that has the replica.

use crate::docker::{Docker, check_name};
use crate::nested::{Nested, Slot, named};
use crate::node::ROOT;
use crate::usage;
use async_trait::async_trait;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use throng_model::replica::{
    Exit, NetworkSpec, Observed, ReplicaId, ReplicaSpec, ResolvedMount, ResolvedSource, Statistics,
};
use throng_runtime::{ErrorKind, ExecIo, ExecSpec, Result, Runtime, RuntimeError, RuntimeEvent, backends};
use tokio::sync::mpsc;

/// The node of a replica that is on none yet, counted from 0: replicas of one service lie on one node after another, and
/// each service begins at another one, lest the first nodes get all that have few replicas.
fn place(id: &ReplicaId, nodes: usize) -> usize {
    let begin = id.service.bytes().fold(0usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()));
    begin.wrapping_add(id.ordinal as usize) % nodes.max(1)
}

impl Nested {
    /// The node that has the replica, or is to get it.
    fn slot_of(&self, id: &ReplicaId) -> &Slot {
        let slots = &self.pool.slots;
        let has = |slot: &&Arc<Slot>| slot.core().is_some_and(|core| core.replica(id).is_some());
        // There is one at least, and `place` stays below their number.
        let usual = &slots[place(id, slots.len())];
        if has(&usual) { usual } else { slots.iter().find(has).unwrap_or(usual) }
    }

    /// The node of a replica and its daemon, once replicas of the project are taken over.
    async fn at(&self, id: &ReplicaId) -> Result<(&Slot, Arc<Docker>)> {
        self.pool.load(&id.project).await?;
        let slot = self.slot_of(id);
        let docker = slot.docker.get().cloned().ok_or_else(|| {
            let message = format!("node {} of {id} is not there", slot.ordinal);
            RuntimeError::new(ErrorKind::NotFound, message)
                .hint("`throng up` makes the nodes that are missing")
        })?;
        Ok((slot, docker))
    }
}

#[async_trait]
impl Runtime for Nested {
    async fn create_network(&self, network: &NetworkSpec) -> Result<()> {
        check_name("network", &network.name)?;
        self.pool.make_network(network).await
    }

    async fn remove_network(&self, name: &str) -> Result<()> {
        check_name("network", name)?;
        self.pool.unmake_network(name).await
    }

    async fn left_network(&self, name: &str) -> Result<Option<NetworkSpec>> {
        check_name("network", name)?;
        self.pool.left_network(name).await
    }

    async fn create(&self, spec: &ReplicaSpec) -> Result<()> {
        let (slot, docker) = self.at(&spec.id).await?;
        let _up = slot.up.read().await;
        can_mount(slot, &spec.mounts)?;
        if let Some(device) = spec.sandbox.devices.first() {
            let message = format!("node {} has no device {}", slot.ordinal, device.source.display());
            return Err(RuntimeError::new(ErrorKind::Invalid, message)
                .hint("share the daemon (--on docker), use --on local, or remove it from devices"));
        }
        docker.create(spec).await.map_err(named(slot.ordinal))
    }

    async fn start(&self, id: &ReplicaId, generation: u64) -> Result<u32> {
        let (slot, docker) = self.at(id).await?;
        let _up = slot.up.read().await;
        docker.start(id, generation).await.map_err(named(slot.ordinal))
    }

    async fn stop(&self, id: &ReplicaId, generation: u64, signal: i32, grace: Duration) -> Result<Exit> {
        let (slot, docker) = self.at(id).await?;
        docker.stop(id, generation, signal, grace).await.map_err(named(slot.ordinal))
    }

    async fn signal(&self, id: &ReplicaId, generation: u64, signal: i32) -> Result<()> {
        let (slot, docker) = self.at(id).await?;
        docker.signal(id, generation, signal).await.map_err(named(slot.ordinal))
    }

    async fn pause(&self, id: &ReplicaId, generation: u64) -> Result<()> {
        let (slot, docker) = self.at(id).await?;
        docker.pause(id, generation).await.map_err(named(slot.ordinal))
    }

    async fn unpause(&self, id: &ReplicaId, generation: u64) -> Result<()> {
        let (slot, docker) = self.at(id).await?;
        docker.unpause(id, generation).await.map_err(named(slot.ordinal))
    }

    async fn fill(&self, id: &ReplicaId, generation: u64, bytes: Option<u64>) -> Result<u64> {
        let (_, docker) = self.at(id).await?;
        docker.fill(id, generation, bytes).await
    }

    async fn give_back(&self, id: &ReplicaId, generation: u64) -> Result<()> {
        let (_, docker) = self.at(id).await?;
        docker.give_back(id, generation).await
    }

    async fn remove(&self, id: &ReplicaId, generation: u64) -> Result<()> {
        self.pool.load(&id.project).await?;
        let slot = self.slot_of(id);
        // Without its node there is no replica.
        let Some(docker) = slot.docker.get() else { return Ok(()) };
        let _up = slot.up.read().await;
        docker.remove(id, generation).await.map_err(named(slot.ordinal))
    }

    async fn observe(&self, project: &str) -> Result<Vec<Observed>> {
        check_name("project", project)?;
        self.pool.load(project).await?;
        let cores = self.pool.slots.iter().filter_map(|slot| slot.core());
        Ok(cores.flat_map(|core| core.of_project(project)).map(|replica| replica.observed()).collect())
    }

    fn watch(&self) -> mpsc::Receiver<RuntimeEvent> {
        backends::watch(self.pool.events.subscribe())
    }

    async fn log_files(&self, id: &ReplicaId) -> Result<Vec<PathBuf>> {
        let (slot, docker) = self.at(id).await?;
        docker.log_files(id).await.map_err(named(slot.ordinal))
    }

    async fn exec(&self, id: &ReplicaId, spec: &ExecSpec, io: ExecIo) -> Result<Exit> {
        let (slot, docker) = self.at(id).await?;
        docker.exec(id, spec, io).await.map_err(named(slot.ordinal))
    }

    fn machine_of(&self, id: &ReplicaId) -> Option<String> {
        Some(format!("node-{}", self.slot_of(id).ordinal))
    }

    async fn statistics(&self, ids: &[ReplicaId]) -> Vec<Option<Statistics>> {
        let process = |id: &ReplicaId| self.slot_of(id).core()?.replica(id)?.running();
        usage::read_all(ids.iter().map(process).collect()).await
    }
}

/// A node sees the host's root file system and Throng's own folder; of what is mounted elsewhere it sees the empty mount
/// point.
fn can_mount(slot: &Slot, mounts: &[ResolvedMount]) -> Result<()> {
    let root = format!("/proc/{}/root{ROOT}", slot.process.load(Ordering::Relaxed));
    let identity = |path: &Path| std::fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    for mount in mounts {
        let ResolvedSource::Bind(path) = &mount.source else { continue };
        // One that is missing the daemon tells by itself.
        let Ok(real) = std::fs::canonicalize(path) else { continue };
        let inside = Path::new(&root).join(real.strip_prefix("/").unwrap_or(&real));
        if identity(&real) != identity(&inside) {
            let message =
                format!("node {} does not see {}, which is to be mounted", slot.ordinal, path.display());
            return Err(RuntimeError::new(ErrorKind::Invalid, message).hint(
                "nodes see the host's root file system and Throng's own folder: move it there, use a named volume, or \
                 share the daemon (--on docker)",
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(service: &str, ordinal: u32) -> ReplicaId {
        ReplicaId { project: "shop".into(), service: service.into(), ordinal }
    }

    #[test]
    fn replicas_are_spread_evenly() {
        for nodes in [1, 2, 3, 7, 300] {
            for service in ["web", "worker", "a"] {
                let mut counts = vec![0u32; nodes];
                for ordinal in 1..=1_000 {
                    counts[place(&id(service, ordinal), nodes)] += 1;
                }
                let (least, most) = (counts.iter().min().copied(), counts.iter().max().copied());
                assert!(most.unwrap_or(0) - least.unwrap_or(0) <= 1, "{service} on {nodes}: {counts:?}");
            }
        }
        let single: std::collections::BTreeSet<usize> =
            ["web", "db", "cache", "worker"].iter().map(|service| place(&id(service, 1), 4)).collect();
        assert!(single.len() > 1, "services of one replica are on several nodes");
    }

    #[test]
    fn what_a_node_does_not_see_is_refused_before() {
        // This process itself stands for a node: it sees no host below that folder.
        let slot = Slot::new(3);
        slot.process.store(std::process::id(), Ordering::Relaxed);
        let folder = tempfile::tempdir().expect("a folder");
        let mount = |source| ResolvedMount { source, target: "/data".into(), read_only: false };
        let error =
            can_mount(&slot, &[mount(ResolvedSource::Bind(folder.path().into()))]).expect_err("unseen");
        assert!(error.message.starts_with("node 3 does not see ") && error.hint.is_some(), "{error:?}");
        assert!(can_mount(&slot, &[mount(ResolvedSource::Private)]).is_ok());
        assert!(can_mount(&slot, &[mount(ResolvedSource::Bind(folder.path().join("missing")))]).is_ok());
    }
}
