//! Taking over what an earlier supervisor has left: replicas from their records, and those whose records are damaged, by
//! a full disk or a power failure say. What still runs of them is not lost.

use crate::cgroup::Cgroups;
use crate::engine::{Core, blocking, check_project};
use crate::errors::host;
use crate::replica::{Inner, Phase, Replica, Running};
use crate::state::{self, End, Life};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;
use throng_model::replica::{Exit, ReplicaId};
use throng_runtime::Result;
use throng_runtime::backends::LOG;

impl Core {
    /// Takes over every replica of the project that is on disk.
    pub async fn load(self: &Arc<Self>, project: &str) -> Result<()> {
        check_project(project)?;
        let mut loaded = self.loaded.lock().await;
        if loaded.contains(project) {
            return Ok(());
        }
        let (core, name) = (self.clone(), project.to_owned());
        blocking(move || core.load_all(&name)).await??;
        loaded.insert(project.to_owned());
        Ok(())
    }

    fn load_all(&self, project: &str) -> Result<()> {
        for id in self.store.replicas(project) {
            if self.replica(&id).is_some() {
                continue;
            }
            let folder = self.store.replica(&id);
            let spec = state::read_spec(&folder).filter(|s| s.id == id);
            let (mut life, interfaces) = self.life_of(&id, &folder);
            // Most records are whole, and are not read twice.
            if spec.is_none() || life.is_none() || state::has_begun(&folder) {
                let damaged = state::damaged(&folder);
                if !damaged.is_empty() {
                    life = self.mend(&id, &folder, life, &damaged);
                }
            }
            let generation = spec.iter().map(|s| s.generation).chain(life.iter().map(|l| l.generation)).max();
            let inner = Inner {
                spec: spec.map(Arc::new),
                generation: generation.unwrap_or(0),
                phase: Phase::Created,
                interfaces,
            };
            if let Some(spec) = &inner.spec {
                // An earlier supervisor has said what is lost; this one has to say it, too.
                self.disk_limit(spec);
            }
            let replica = Arc::new(Replica::new(id, folder, inner));
            if let Some(life) = life {
                self.adopt(&replica, life)?;
            }
            self.insert(replica);
        }
        Ok(())
    }

    /// The latest process whose program was executed. One that an earlier supervisor was about to start counts if it has
    /// come that far; otherwise nothing of it is left, and the replica is as it was before. With it, the interfaces to be
    /// removed with the replica.
    fn life_of(&self, id: &ReplicaId, folder: &Path) -> (Option<Life>, Vec<String>) {
        let life = state::read_life(folder);
        let mut interfaces = life.as_ref().map(|life| life.interfaces.clone()).unwrap_or_default();
        let Some(begun) = state::read_begun(folder) else { return (life, interfaces) };
        interfaces.extend(begun.interfaces.iter().cloned());
        if self.find_process(&begun).is_some() && has_executed(begun.pid) {
            if let Err(error) = state::begun_is_life(folder) {
                tracing::warn!("the start of {id} is not recorded: {error}");
            }
            return (Some(begun), interfaces);
        }
        if let Some(pidfd) = self.find_process(&begun) {
            // It ends by itself, too, now that nobody waits for it.
            let _ = crate::exec::send(&pidfd, libc::SIGKILL);
        }
        self.clear_group(id, self.cgroups.group(&id.project, &id.name()));
        state::forget_begun(folder);
        (life, interfaces)
    }

    fn adopt(&self, replica: &Arc<Replica>, life: Life) -> Result<()> {
        if let Some(end) = life.end {
            replica.inner().phase = Phase::Exited(end);
            return Ok(());
        }
        match self.find_process(&life) {
            Some(pidfd) => {
                let running = Running { pid: life.pid, started_at: life.started_at, pidfd: Arc::new(pidfd) };
                self.follow(replica, running)
                    .map_err(|e| host(format_args!("cannot follow {}", replica.id), e))
            }
            None => {
                let end = End { exit: Exit::Unknown, at: SystemTime::now() };
                self.record_end(replica, end);
                Ok(())
            }
        }
    }

    /// The process of a life, if it is still that one. The descriptor is opened first, so that the comparison speaks
    /// of the process that it refers to.
    fn find_process(&self, life: &Life) -> Option<OwnedFd> {
        if life.boot != self.boot {
            return None;
        }
        let pid = rustix::process::Pid::from_raw(i32::try_from(life.pid).ok()?)?;
        let pidfd = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()?;
        (state::start_ticks(life.pid)? == life.ticks).then_some(pidfd)
    }

    /// Looks for the process of a replica whose records are damaged, and says what was found.
    fn mend(&self, id: &ReplicaId, folder: &Path, known: Option<Life>, damaged: &[&str]) -> Option<Life> {
        let lives = |life: &Life| life.end.is_none() && self.find_process(life).is_some();
        let (life, found) = match known.filter(lives) {
            Some(life) => (Some(life), "it runs"),
            None => match self.found_running(id, folder) {
                Some(life) => {
                    if let Err(error) = state::write_life(folder, &life) {
                        tracing::warn!("the process of {id} is not recorded: {error}");
                    }
                    (Some(life), "it was found running and goes on")
                }
                None => {
                    self.clear_group(id, self.cgroups.group(&id.project, &id.name()));
                    let searched = match self.cgroups {
                        Cgroups::None(_) => {
                            "nothing that writes to its log was found running; without control groups what has \
                             closed its output is not found, so end it by its number if `ps` shows it"
                        }
                        _ => "nothing of it was found running",
                    };
                    (state::read_life(folder), searched)
                }
            },
        };
        state::forget_begun(folder);
        let records = damaged.join(" and ");
        self.note(id, format!("its record {records} was damaged; {found}"));
        life
    }

    /// The first process in the replica's control group, if it executes the replica's program; without control groups
    /// the first one that writes to the replica's log.
    fn found_running(&self, id: &ReplicaId, folder: &Path) -> Option<Life> {
        let pids: Vec<u32> = match self.cgroups.group(&id.project, &id.name()) {
            Some(group) => group.processes().into_iter().filter_map(|pid| u32::try_from(pid).ok()).collect(),
            None => writers(&folder.join(LOG)),
        };
        let first = |pid: &u32| !self.contained() || state::is_first_of_namespace(*pid);
        let processes =
            pids.into_iter().filter(first).filter_map(|pid| Some((state::start_ticks(pid)?, pid)));
        let (ticks, pid) = processes.min()?;
        let life = Life {
            generation: 0,
            boot: self.boot.clone(),
            pid,
            ticks,
            started_at: state::began(ticks)?,
            interfaces: vec![],
            end: None,
        };
        has_executed(pid).then_some(life)
    }
}

/// Processes whose standard output or error is that file.
fn writers(log: &Path) -> Vec<u32> {
    let Ok(log) = fs::metadata(log) else { return vec![] };
    let writes = |pid: &u32| {
        let place = |number: u8| fs::metadata(format!("/proc/{pid}/fd/{number}"));
        let same = |file: fs::Metadata| (file.dev(), file.ino()) == (log.dev(), log.ino());
        [1, 2].into_iter().any(|number| place(number).is_ok_and(same))
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(writes).collect()
}

/// Whether a process runs another program than this one, which it was forked from.
fn has_executed(pid: u32) -> bool {
    let program = |process: &str| {
        let metadata = fs::metadata(format!("/proc/{process}/exe")).ok()?;
        Some((metadata.dev(), metadata.ino()))
    };
    program(&pid.to_string()).is_some_and(|its| program("self") != Some(its))
}
