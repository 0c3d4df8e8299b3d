//! Limits and counters of one replica, over control groups of either version.
//!
//! A replica's group is `throng/<project>/<name>`, or `throng/<project>/@<node>/<name>` on a virtual node, whose own group
//! holds its replicas together to what the node has: in every hierarchy that counts or limits something on version 1,
//! in the one tree on version 2. The child itself writes `0` into the group's list before anything else of it runs:
//! on version 1 a task that moves itself takes no global lock, where moving another one stalls every fork and exit of
//! the host (`cgroup_procs_write_start` in the kernel).
//!
//! On version 1 only a replica with a memory limit has a memory group. For each such group the kernel keeps a table of
//! all mounted file systems of the host (`shrinker_info`), ten bytes each, and goes through all tables when file systems
//! are mounted: with thousands of replicas that are gigabytes, and starts that take ever longer. Of the others the
//! memory is what their processes hold. On a node with a limit they are in the node's memory group themselves.

mod cores;
mod detect;
mod reading;
mod settings;

pub use cores::missing as missing_core;
pub use detect::{hierarchy, in_unified, unified};

use crate::held;
use detect::enable_v2;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use throng_model::app::Resources;

/// Folder of this program in each hierarchy.
pub const SUBTREE: &str = "throng";
/// Before the name of a node, which no replica's begins with.
const NODE: &str = "@";
/// On version 2, the group of the supervisor itself, beside [`SUBTREE`].
pub const SUPERVISOR: &str = "throng-supervisor";
/// Hierarchies of version 1 that are used.
const CONTROLLERS: [&str; 4] = ["cpu", "cpuacct", "memory", "pids"];
/// A group stays busy until the kernel has buried the last task of it.
const REMOVE_TRIES: u32 = 200;
/// Another supervisor that leaves may remove a parent just after it was made.
const MAKE_TRIES: u32 = 5;
const REMOVE_PAUSE: Duration = Duration::from_millis(5);

/// What this host offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cgroups {
    /// Controllers with their mount points.
    V1(Vec<(String, PathBuf)>),
    /// The folder under which groups may be made.
    V2(PathBuf),
    /// None that can be written; says why.
    None(String),
}

/// The group of one replica, which may or may not exist.
#[derive(Debug, Clone)]
pub struct Group {
    /// Controller (empty on version 2) and folder.
    folders: Vec<(String, PathBuf)>,
    version: u8,
}

impl Cgroups {
    /// The group of a replica wherever it has been made; `None` where this host offers no groups. One that is not there is
    /// looked for among all others of its project, so this is for those whose node nobody knows.
    pub fn group(&self, project: &str, name: &str) -> Option<Group> {
        let folder = self.subtrees().into_iter().next()?.join(project);
        let on = match folder.join(name).exists() {
            true => None,
            false => folders(&folder).find(|below| is_node(below) && below.join(name).exists()),
        };
        let on = on.as_deref().and_then(Path::file_name).unwrap_or_default();
        self.below(&Path::new(project).join(on).join(name))
    }

    /// The group that a replica on a node, or on none, is to have.
    pub fn group_on(&self, project: &str, node: Option<&str>, name: &str) -> Option<Group> {
        let on = node.map(|node| format!("{NODE}{node}")).unwrap_or_default();
        self.below(&Path::new(project).join(on).join(name))
    }

    /// The group of a node.
    pub fn node(&self, project: &str, node: &str) -> Option<Group> {
        self.below(&Path::new(project).join(format!("{NODE}{node}")))
    }

    fn below(&self, place: &Path) -> Option<Group> {
        let below = Path::new(SUBTREE).join(place);
        match self {
            Cgroups::V1(mounts) => {
                let folders = mounts.iter().map(|(c, path)| (c.clone(), path.join(&below))).collect();
                Some(Group { folders, version: 1 })
            }
            Cgroups::V2(base) => Some(Group { folders: vec![(String::new(), base.join(below))], version: 2 }),
            Cgroups::None(_) => None,
        }
    }

    /// Names of all groups of a project.
    pub fn names(&self, project: &str) -> Vec<String> {
        let Some(subtree) = self.subtrees().into_iter().next() else { return vec![] };
        let (nodes, direct): (Vec<_>, Vec<_>) =
            folders(&subtree.join(project)).partition(|below| is_node(below));
        let all = direct.into_iter().chain(nodes.iter().flat_map(|node| folders(node)));
        all.filter_map(|folder| Some(folder.file_name()?.to_str()?.to_owned())).collect()
    }

    /// Removes the project's own folders once no replica is left in them; one that is in use stays.
    pub fn remove_project(&self, project: &str) {
        for subtree in self.subtrees() {
            let folder = subtree.join(project);
            folders(&folder).filter(|below| is_node(below)).for_each(|node| drop(fs::remove_dir(node)));
            let _ = fs::remove_dir(folder);
        }
        self.leave();
    }

    /// Removes this program's folders, but for those in which something is left.
    pub fn leave(&self) {
        for subtree in self.subtrees() {
            let _ = fs::remove_dir(subtree);
        }
    }

    fn subtrees(&self) -> Vec<PathBuf> {
        match self {
            Cgroups::V1(mounts) => mounts.iter().map(|(_, path)| path.join(SUBTREE)).collect(),
            Cgroups::V2(base) => vec![base.join(SUBTREE)],
            Cgroups::None(_) => vec![],
        }
    }
}

/// The folders in one, which need not be there.
fn folders(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path())
}

/// The groups above a replica's, down from the project's place: this program's, the project's and, on a node, its own.
fn above(group: &Path) -> Vec<&Path> {
    let depth = if group.parent().is_some_and(is_node) { 3 } else { 2 };
    let mut above: Vec<&Path> = group.ancestors().skip(1).take(depth).collect();
    above.reverse();
    above
}

/// Whether a folder is the group of a node.
fn is_node(folder: &Path) -> bool {
    folder.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(NODE))
}

impl Group {
    /// The folders that a replica with these limits has.
    fn wanted(&self, resources: &Resources) -> impl Iterator<Item = &(String, PathBuf)> {
        let limited = resources.memory.is_some() || resources.memory_reservation.is_some();
        let limited = limited || resources.swappiness.is_some();
        let cores = resources.cores.is_some();
        self.folders.iter().filter(move |(controller, _)| match controller.as_str() {
            "memory" => limited,
            cores::CORES => cores,
            _ => true,
        })
    }

    /// Makes the group and sets the limits.
    pub fn create(&self, resources: &Resources) -> io::Result<()> {
        for (controller, folder) in self.wanted(resources) {
            make_folder(folder, self.version)?;
            if resources.cores.is_some() && (self.version == 2 || controller == cores::CORES) {
                cores::prepare(folder, self.version)?;
            }
            for (file, value) in settings::settings(self.version, controller, resources) {
                let path = folder.join(file);
                match fs::write(&path, &value) {
                    // Swap accounting is a build and boot option; without it there is no swap to limit.
                    Err(_) if file.contains("sw") && !path.exists() => {}
                    Err(error) => {
                        let message = format!("cannot write {value} to {}: {error}", path.display());
                        return Err(io::Error::new(error.kind(), message));
                    }
                    Ok(()) => {}
                }
            }
        }
        Ok(())
    }

    /// Files into which a task writes `0` to join.
    pub fn lists(&self, resources: &Resources) -> Vec<PathBuf> {
        let file = if self.version == 1 { "tasks" } else { "cgroup.procs" };
        let own = self.wanted(resources).map(|(_, folder)| folder.join(file));
        let limited = self.wanted(resources).any(|(controller, _)| controller == "memory");
        // The node's, where the replica has none of its own and the node has one.
        let of_node = self
            .folder("memory")
            .and_then(Path::parent)
            .filter(|parent| self.version == 1 && !limited && is_node(parent) && parent.exists());
        own.chain(of_node.map(|parent| parent.join(file))).collect()
    }

    /// Makes the group of a node, or changes what its replicas have together.
    pub fn create_node(&self, cpus: Option<f64>, memory: Option<u64>) -> io::Result<()> {
        self.create(&Resources { cpus, memory, ..Resources::default() })?;
        for (controller, folder) in &self.folders {
            if self.version == 2 {
                enable_v2(folder)?;
            }
            // Of an earlier definition.
            let lifted: &[(&str, bool, &str)] = match (self.version, controller.as_str()) {
                (1, "cpu") => &[("cpu.cfs_quota_us", cpus.is_none(), "-1")],
                (1, "memory") => &[("memory.limit_in_bytes", memory.is_none(), "-1")],
                (2, _) => &[("cpu.max", cpus.is_none(), "max"), ("memory.max", memory.is_none(), "max")],
                _ => &[],
            };
            for (file, lift, value) in lifted {
                let path = folder.join(file);
                if *lift && path.exists() {
                    fs::write(path, value)?;
                }
            }
        }
        Ok(())
    }

    pub fn is_v2(&self) -> bool {
        self.version == 2
    }

    /// Its one folder, of version 2.
    pub fn unified(&self) -> Option<&Path> {
        self.folder("").filter(|_| self.version == 2)
    }

    /// Pids in the group, children of the first process included. All are in every folder that there is.
    pub fn processes(&self) -> Vec<i32> {
        let list = self.folders.iter().find_map(|(_, f)| fs::read_to_string(f.join("cgroup.procs")).ok());
        list.iter().flat_map(|text| text.lines()).filter_map(|l| l.parse().ok()).filter(|p| *p > 0).collect()
    }

    /// The group without the folders that it does not have, so that nothing is looked for there. What a group has does
    /// not change while a replica runs in it.
    pub fn existing(mut self) -> Group {
        self.folders.retain(|(_, folder)| folder.exists());
        self
    }

    fn folder(&self, controller: &str) -> Option<&Path> {
        self.folders.iter().find(|(c, _)| self.version == 2 || c == controller).map(|(_, f)| f.as_path())
    }

    /// Kills everything in the group, forks under way included.
    pub fn kill(&self) {
        if let Some(folder) = self.folder("").filter(|_| self.version == 2)
            && fs::write(folder.join("cgroup.kill"), "1").is_ok()
        {
            return;
        }
        for pid in self.processes() {
            if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                // Gone already is as good.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }

    /// Removes the group with everything that is left in it, forks under way included. Waits up to a second for the
    /// last tasks to be buried. Fine if there is none.
    pub fn clear(&self) -> io::Result<()> {
        // Nearly always its only process has just ended, and it is empty.
        if self.folders.iter().all(|(_, folder)| matches!(try_remove(folder), Ok(true))) {
            return Ok(());
        }
        self.kill();
        self.remove()
    }

    /// Removes the group, with empty ones below it, waiting up to a second for its last tasks to be buried. Fine if there
    /// is none. One that stays is named, with what holds it; the same group's folders in other hierarchies go.
    pub fn remove(&self) -> io::Result<()> {
        let results: Vec<_> = self.folders.iter().map(|(_, folder)| remove_folder(folder)).collect();
        results.into_iter().collect()
    }
}

/// Makes a replica's folder, with the project's and, if another supervisor has just left, this program's.
fn make_folder(folder: &Path, version: u8) -> io::Result<()> {
    for _ in 0..MAKE_TRIES {
        match fs::create_dir(folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            other => return other,
        }
        for parent in above(folder) {
            fs::create_dir_all(parent)?;
            if version == 2 {
                enable_v2(parent)?;
            }
        }
    }
    fs::create_dir(folder)
}

/// Whether the folder is gone; `false` while something is in it.
fn try_remove(folder: &Path) -> io::Result<bool> {
    match fs::remove_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::ResourceBusy => Ok(false),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(true),
        other => other.map(|()| true),
    }
}

fn remove_folder(folder: &Path) -> io::Result<()> {
    if try_remove(folder)? {
        return Ok(());
    }
    // Whoever made groups below it has left them, unless something still runs there.
    held::remove_below(folder);
    for _ in 0..REMOVE_TRIES {
        if try_remove(folder)? {
            return Ok(());
        }
        std::thread::sleep(REMOVE_PAUSE);
    }
    fs::remove_dir(folder).map_err(|error| match held::holder(folder) {
        Some(holder) => {
            let message = format!("control group {} is held by {holder}: {error}", folder.display());
            io::Error::new(error.kind(), message)
        }
        None => error,
    })
}
