//! Replicas whose records are damaged, by a full disk or a power failure say: what still runs of them is not lost.

use crate::engine::{Core, has_executed};
use crate::state::{self, Life};
use std::path::Path;
use throng_model::replica::ReplicaId;

impl Core {
    /// Looks for the process of a replica whose records are damaged, and says what was found.
    pub fn mend(&self, id: &ReplicaId, folder: &Path, known: Option<Life>, damaged: &[&str]) -> Option<Life> {
        let lives = |life: &Life| life.end.is_none() && self.find_process(life).is_some();
        let (life, found) = match known.filter(lives) {
            Some(life) => (Some(life), "it runs"),
            None => match self.found_in_group(id) {
                Some(life) => {
                    if let Err(error) = state::write_life(folder, &life) {
                        tracing::warn!("the process of {id} is not recorded: {error}");
                    }
                    (Some(life), "it was found running and goes on")
                }
                None => {
                    if let Some(Err(error)) =
                        self.cgroups.group(&id.project, &id.name()).map(|group| group.clear())
                    {
                        tracing::warn!("the control group of {id} is left: {error}");
                    }
                    (state::read_life(folder), "nothing of it was found running")
                }
            },
        };
        state::forget_begun(folder);
        let records = damaged.join(" and ");
        self.note(id, format!("its record {records} was damaged; {found}"));
        life
    }

    /// The first process in the replica's control group, if it executes the replica's program.
    fn found_in_group(&self, id: &ReplicaId) -> Option<Life> {
        let group = self.cgroups.group(&id.project, &id.name())?;
        let pids = group.processes().into_iter().filter_map(|pid| u32::try_from(pid).ok());
        let first = |pid: &u32| !self.contained() || state::is_first_of_namespace(*pid);
        let processes = pids.filter(first).filter_map(|pid| Some((state::start_ticks(pid)?, pid)));
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
