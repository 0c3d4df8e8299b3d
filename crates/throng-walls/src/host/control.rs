//! Control groups of either version: the groups that a replica's own lies in, and how many there are.

use super::{Source, field, keyed};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Folder of this program in each hierarchy.
const SUBTREE: &str = "throng";

/// A group in which replicas are counted; what its version or hierarchy lacks is `None`, and so is a limit of `max`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Ancestor {
    /// As the host names it, below `/`.
    pub path: PathBuf,
    pub pids_max: Option<u64>,
    pub pids_current: Option<u64>,
    /// Forks that this limit has refused.
    pub pids_refused: Option<u64>,
    /// Bytes.
    pub memory_max: Option<u64>,
    pub memory_current: Option<u64>,
    /// How often the limit was met.
    pub memory_failures: Option<u64>,
    pub oom_kills: Option<u64>,
    pub descendants_max: Option<u64>,
    pub descendants: Option<u64>,
}

/// What is known about control groups.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Control {
    /// 1 where some controller of version 1 that counts replicas is mounted, else 2; `None` without either.
    pub version: Option<u8>,
    /// From the top of each tree down.
    pub ancestors: Vec<Ancestor>,
    /// As far as they are no ancestors, the groups of this process that count tasks: a replica's first one is made in
    /// them before it goes into its own.
    pub own: Vec<Ancestor>,
    /// Groups that hold one of the kernel's 65,535 memory group ids, dying ones counted (proc_cgroups(5)).
    pub memory_groups: Option<u64>,
}

struct Mount {
    version: u8,
    path: PathBuf,
    controllers: String,
}

impl Control {
    pub(super) fn read(source: &Source, user: Option<u32>) -> Control {
        let mounts = mounts(&source.read("proc/self/mountinfo").unwrap_or_default());
        let own = source.read("proc/self/cgroup").unwrap_or_default();
        let has = |mount: &Mount, name: &str| mount.controllers.split(',').any(|c| c == name);
        let v1: Vec<(&str, &Mount)> = ["pids", "memory"]
            .iter()
            .filter_map(|name| Some((*name, mounts.iter().find(|m| m.version == 1 && has(m, name))?)))
            .collect();
        let (mut ancestors, mut own_groups) = (Vec::new(), Vec::new());
        for (controller, mount) in &v1 {
            ancestors.extend(chain(source, &mount.path, Path::new(SUBTREE)));
            // Replicas without a memory limit are counted where the supervisor is.
            let own = chain(source, &mount.path, own_path(&own, controller)).into_iter().skip(1);
            if *controller == "memory" { ancestors.extend(own) } else { own_groups.extend(own) }
        }
        let v2 = mounts.iter().find(|mount| mount.version == 2);
        if let Some(mount) = v2.filter(|_| v1.is_empty()) {
            // Root makes its groups at the top, others where one was delegated to them.
            let below = if user == Some(0) { Path::new(SUBTREE) } else { own_path(&own, "") };
            ancestors = chain(source, &mount.path, below);
            own_groups = chain(source, &mount.path, own_path(&own, ""));
            own_groups.retain(|group| ancestors.iter().all(|other| other.path != group.path));
        }
        Control {
            version: if v1.is_empty() { v2.map(|_| 2) } else { Some(1) },
            ancestors,
            own: own_groups,
            memory_groups: source.read("proc/cgroups").and_then(|text| memory_groups(&text)),
        }
    }

    /// All of them.
    pub(crate) fn groups(&self) -> impl Iterator<Item = &Ancestor> {
        self.ancestors.iter().chain(&self.own)
    }

    /// The least that is left below any limit, with the group that has it.
    pub(crate) fn narrowest<'a>(
        &'a self,
        limit: impl Fn(&'a Ancestor) -> Option<u64>,
        used: impl Fn(&'a Ancestor) -> Option<u64>,
    ) -> Option<(&'a Ancestor, u64, u64)> {
        self.ancestors
            .iter()
            .filter_map(|group| Some((group, limit(group)?, used(group)?)))
            .min_by_key(|(_, limit, used)| limit.saturating_sub(*used))
    }
}

/// The group at the mount point and those on the way down to `below`, as far as they exist.
fn chain(source: &Source, mount: &Path, below: &Path) -> Vec<Ancestor> {
    let mut path = mount.to_path_buf();
    let mut groups = vec![Ancestor::read(source, &path)];
    for name in below.components() {
        path.push(name);
        if !source.root.join(strip(&path)).is_dir() {
            break;
        }
        groups.push(Ancestor::read(source, &path));
    }
    groups
}

fn strip(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

impl Ancestor {
    fn read(source: &Source, path: &Path) -> Ancestor {
        let file = |name: &str| source.read(strip(path).join(name));
        let number = |name: &str| file(name)?.trim().parse::<u64>().ok();
        let of = |name: &str, key: &str| file(name).and_then(|text| keyed(&text, key));
        // Version 1 says "no limit" by a number near the largest.
        let bytes = number("memory.limit_in_bytes").filter(|bytes| *bytes < u64::MAX >> 2);
        Ancestor {
            path: path.to_path_buf(),
            pids_max: number("pids.max"),
            pids_current: number("pids.current"),
            pids_refused: of("pids.events", "max"),
            memory_max: number("memory.max").or(bytes),
            memory_current: number("memory.current").or_else(|| number("memory.usage_in_bytes")),
            memory_failures: of("memory.events", "max").or_else(|| number("memory.failcnt")),
            oom_kills: of("memory.events", "oom_kill").or_else(|| of("memory.oom_control", "oom_kill")),
            descendants_max: number("cgroup.max.descendants"),
            descendants: of("cgroup.stat", "nr_descendants"),
        }
    }
}

/// `4:memory:/a/b`, and `0::/a/b` on version 2 (cgroups(7)).
fn own_path<'a>(own: &'a str, controller: &str) -> &'a Path {
    let path = own.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (number, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let this = if controller.is_empty() {
            number == "0"
        } else {
            controllers.split(',').any(|name| name == controller)
        };
        this.then_some(path)
    });
    strip(Path::new(path.unwrap_or("/")))
}

/// `36 35 98:0 /root /mount/point options … - type source super,options` (proc_pid_mountinfo(5)).
fn mounts(mountinfo: &str) -> Vec<Mount> {
    let read = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let path = PathBuf::from(before.split(' ').nth(4)?.replace("\\040", " "));
        let mut after = after.split(' ');
        let version = match after.next()? {
            "cgroup" => 1,
            "cgroup2" => 2,
            _ => return None,
        };
        Some(Mount { version, path, controllers: after.nth(1).unwrap_or_default().to_owned() })
    };
    mountinfo.lines().filter_map(read).collect()
}

/// `memory  4  123  1`: name, hierarchy, groups, enabled.
fn memory_groups(text: &str) -> Option<u64> {
    let mut fields = field(text, "memory\t")?.split_whitespace();
    fields.nth(1)?.parse().ok()
}
