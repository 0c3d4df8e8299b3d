//! Which cores a replica runs on, and what only one version of control groups knows.

use super::{Cgroups, above};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use throng_model::cores::CoreSet;

/// The hierarchy of version 1 in which only replicas with cores of their own have a group, and the controller of
/// version 2.
pub(super) const CORES: &str = "cpuset";
/// Files that a new group of version 1 has to have filled before a task can join it (cpuset(7)).
const FILES: [&str; 2] = ["cpuset.mems", "cpuset.cpus"];

impl Cgroups {
    /// Whether replicas can be held to some of the cores.
    pub fn limits_cores(&self) -> bool {
        match self {
            Cgroups::V1(mounts) => mounts.iter().any(|(controller, _)| controller == CORES),
            Cgroups::V2(base) => read(base, "cgroup.controllers").split_whitespace().any(|c| c == CORES),
            Cgroups::None(_) => false,
        }
    }

    /// Whether the kernel has swappiness for each group, and lets one wait for memory instead of killing.
    pub fn tunes_memory(&self) -> bool {
        matches!(self, Cgroups::V1(_))
    }
}

/// Whether a hierarchy of version 1 can be used for cores beside these: in one with others, each group would have to
/// have cores before anything could join it.
pub(super) fn stands_alone(path: &Path, others: &[(String, PathBuf)]) -> bool {
    others.iter().all(|(_, other)| other != path)
}

/// Makes it possible to give a group cores: on version 1 it and those above it begin with none, on version 2 those above
/// have to pass the controller on.
pub(super) fn prepare(group: &Path, version: u8) -> io::Result<()> {
    let parents = above(group);
    if version == 2 {
        let top = parents.first().and_then(|first| first.parent());
        for folder in top.into_iter().chain(parents) {
            fs::write(folder.join("cgroup.subtree_control"), format!("+{CORES}"))?;
        }
        return Ok(());
    }
    for own in parents.into_iter().chain([group]) {
        for file in FILES.iter().filter(|file| read(own, file).trim().is_empty()) {
            let inherited = own.parent().map(|parent| read(parent, file)).unwrap_or_default();
            fs::write(own.join(file), inherited.trim())?;
        }
    }
    Ok(())
}

/// The first of these cores that this host has not got, and those that it has; `None` if all are there, or nobody knows.
pub fn missing(cores: CoreSet) -> Option<(usize, CoreSet)> {
    let online: CoreSet = fs::read_to_string("/sys/devices/system/cpu/online").ok()?.trim().parse().ok()?;
    let lacking = (0..CoreSet::MOST).find(|core| cores.contains(*core) && !online.contains(*core));
    lacking.map(|core| (core, online))
}

fn read(folder: &Path, file: &str) -> String {
    fs::read_to_string(folder.join(file)).unwrap_or_default()
}
