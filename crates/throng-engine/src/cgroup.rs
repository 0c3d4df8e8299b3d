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

mod settings;

use crate::held;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use throng_model::app::Resources;
use throng_model::replica::Pressure;
use throng_runtime::counters::{field, number};

/// Folder of this program in each hierarchy.
const SUBTREE: &str = "throng";
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

/// What one group uses, but for its CPU time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reading {
    pub memory: u64,
    pub unreclaimable: u64,
    pub memory_limit: Option<u64>,
    pub pids: u64,
    /// There is more than one process.
    pub several: bool,
    /// Bytes fetched from storage and sent there, where the kernel tells.
    pub storage: Option<(u64, u64)>,
    /// Of version 2 only, where the kernel counts it.
    pub pressure: Option<Pressure>,
}

impl Cgroups {
    /// Reads this process' mounts and groups once.
    pub fn detect() -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self::choose(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"))
    }

    fn choose(mountinfo: &str, own: &str) -> Self {
        let mounts = cgroup_mounts(mountinfo);
        let v1: Vec<_> = CONTROLLERS
            .iter()
            .filter_map(|wanted| {
                let mount = mounts.iter().find(|m| m.controllers.iter().any(|c| c == wanted))?;
                Some(((*wanted).to_owned(), mount.path.clone()))
            })
            .collect();
        if !v1.is_empty() {
            return Self::writable_v1(v1);
        }
        match mounts.iter().find(|m| m.version == 2) {
            Some(mount) => Self::writable_v2(&mount.path, own),
            None => Cgroups::None("no cgroup hierarchy is mounted".into()),
        }
    }

    fn writable_v1(mounts: Vec<(String, PathBuf)>) -> Self {
        for (_, path) in &mounts {
            if let Err(error) = own_folder(&path.join(SUBTREE)) {
                return Cgroups::None(format!("{} cannot be written: {error}", path.display()));
            }
        }
        Cgroups::V1(mounts)
    }

    /// Root uses the top of the tree; another user only a subtree that was delegated to it.
    fn writable_v2(mount: &Path, own: &str) -> Self {
        let mut failure = String::new();
        for base in [mount.to_path_buf(), mount.join(own_v2_path(own))] {
            match prepare_v2(&base) {
                Ok(()) => return Cgroups::V2(base),
                Err(error) => failure = format!("{} cannot be written: {error}", base.display()),
            }
        }
        if let Some(why) = crate::delegation::refusal() {
            failure = format!("{failure}; {why}");
        }
        Cgroups::None(failure)
    }

    /// The group of a replica wherever it has been made; `None` where this host offers no groups. One that is not there is
    /// looked for among all others of its project, so this is for those whose node nobody knows.
    pub fn group(&self, project: &str, name: &str) -> Option<Group> {
        let folder = self.subtrees().into_iter().next()?.join(project);
        let nodes = || fs::read_dir(&folder).into_iter().flatten().flatten().filter(|e| is_node(&e.path()));
        let on = match folder.join(name).exists() {
            true => None,
            false => nodes().find(|node| node.path().join(name).exists()),
        };
        let below = Path::new(project).join(on.map(|node| node.file_name()).unwrap_or_default());
        self.below(&below.join(name))
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
        let folder = match self {
            Cgroups::V1(mounts) => mounts.iter().map(|(_, p)| p.clone()).next(),
            Cgroups::V2(base) => Some(base.clone()),
            Cgroups::None(_) => None,
        };
        let entries = folder.and_then(|f| fs::read_dir(f.join(SUBTREE).join(project)).ok());
        let folders =
            |entries: fs::ReadDir| entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
        let (nodes, direct): (Vec<_>, Vec<_>) =
            entries.into_iter().flat_map(folders).partition(|e: &fs::DirEntry| is_node(&e.path()));
        let on_nodes = nodes.iter().filter_map(|node| fs::read_dir(node.path()).ok()).flat_map(folders);
        direct.into_iter().chain(on_nodes).filter_map(|e| e.file_name().into_string().ok()).collect()
    }

    /// Removes the project's own folders once no replica is left in them; one that is in use stays.
    pub fn remove_project(&self, project: &str) {
        for subtree in self.subtrees() {
            let folder = subtree.join(project);
            let nodes = fs::read_dir(&folder).into_iter().flatten().flatten().filter(|e| is_node(&e.path()));
            nodes.for_each(|node| drop(fs::remove_dir(node.path())));
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

/// Whether a folder is the group of a node.
fn is_node(folder: &Path) -> bool {
    folder.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(NODE))
}

/// Makes the folder, or finds one that this process may make groups in: there may be another user's.
fn own_folder(folder: &Path) -> io::Result<()> {
    use rustix::fs::{Access, AtFlags, CWD};
    fs::create_dir_all(folder)?;
    Ok(rustix::fs::accessat(CWD, folder, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)?)
}

/// Turns the controllers on from `base` down to this program's folder.
fn prepare_v2(base: &Path) -> io::Result<()> {
    let subtree = base.join(SUBTREE);
    own_folder(&subtree)?;
    match enable_v2(base) {
        // Below the top a group may hold processes or pass on controllers, not both (cgroups(7)): if the only one in
        // it is this process, it goes into a group of its own.
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
            let leaf = base.join(SUPERVISOR);
            fs::create_dir_all(&leaf)?;
            fs::write(leaf.join("cgroup.procs"), "0")?;
            enable_v2(base)?;
        }
        other => other?,
    }
    enable_v2(&subtree)
}

fn enable_v2(folder: &Path) -> io::Result<()> {
    let enabled = fs::read_to_string(folder.join("cgroup.subtree_control"))?;
    let wanted = missing_controllers(&enabled);
    if wanted.is_empty() { Ok(()) } else { fs::write(folder.join("cgroup.subtree_control"), wanted) }
}

fn missing_controllers(enabled: &str) -> String {
    let have: Vec<_> = enabled.split_whitespace().collect();
    let wanted: Vec<_> =
        ["cpu", "memory", "pids"].iter().filter(|c| !have.contains(c)).map(|c| format!("+{c}")).collect();
    wanted.join(" ")
}

fn own_v2_path(own: &str) -> &str {
    let path = in_unified(own);
    // Moved there by an earlier supervisor in the same shell, say.
    path.strip_suffix(SUPERVISOR).map_or(path, |parent| parent.trim_end_matches('/'))
}

/// The group in the one tree of version 2 that `/proc/PID/cgroup` tells, from the tree's top.
pub fn in_unified(own: &str) -> &str {
    own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default()
}

/// Where the one tree of version 2 is mounted, if it is what this host counts and limits with.
pub fn unified() -> Option<PathBuf> {
    let mounts = cgroup_mounts(&fs::read_to_string("/proc/self/mountinfo").unwrap_or_default());
    let used = |m: &CgroupMount| m.version == 1 && m.controllers.iter().any(|c| CONTROLLERS.contains(&&**c));
    if mounts.iter().any(used) {
        return None;
    }
    mounts.into_iter().find(|m| m.version == 2).map(|m| m.path)
}

struct CgroupMount {
    version: u8,
    path: PathBuf,
    controllers: Vec<String>,
}

/// `36 35 98:0 /root /mount/point options … - type source super,options` (proc_pid_mountinfo(5)).
fn cgroup_mounts(mountinfo: &str) -> Vec<CgroupMount> {
    let read = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let path = PathBuf::from(before.split(' ').nth(4)?.replace("\\040", " "));
        let mut after = after.split(' ');
        let version = match after.next()? {
            "cgroup" => 1,
            "cgroup2" => 2,
            _ => return None,
        };
        let controllers = after.nth(1).unwrap_or_default().split(',').map(str::to_owned).collect();
        Some(CgroupMount { version, path, controllers })
    };
    mountinfo.lines().filter_map(read).collect()
}

impl Group {
    /// The folders that a replica with these limits has.
    fn wanted(&self, resources: &Resources) -> impl Iterator<Item = &(String, PathBuf)> {
        let limited = resources.memory.is_some() || resources.memory_reservation.is_some();
        self.folders.iter().filter(move |(controller, _)| limited || controller != "memory")
    }

    /// Makes the group and sets the limits.
    pub fn create(&self, resources: &Resources) -> io::Result<()> {
        for (controller, folder) in self.wanted(resources) {
            make_folder(folder, self.version)?;
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

    /// Pids in the group, children of the first process included. All are in every folder that there is.
    pub fn processes(&self) -> Vec<i32> {
        let list = self.folders.iter().find_map(|(_, f)| fs::read_to_string(f.join("cgroup.procs")).ok());
        list.iter().flat_map(|text| text.lines()).filter_map(|l| l.parse().ok()).filter(|p| *p > 0).collect()
    }

    /// How many tasks of the group the kernel has killed for want of memory.
    pub fn oom_kills(&self) -> u64 {
        match (self.version, self.folder("memory")) {
            (1, Some(folder)) => field(&read(folder, "memory.oom_control"), "oom_kill").unwrap_or(0),
            (_, Some(folder)) => field(&read(folder, "memory.events"), "oom_kill").unwrap_or(0),
            _ => 0,
        }
    }

    /// The group without the folders that it does not have, so that nothing is looked for there. What a group has does
    /// not change while a replica runs in it.
    pub fn existing(mut self) -> Group {
        self.folders.retain(|(_, folder)| folder.exists());
        self
    }

    /// The file with the CPU time; see [`Group::cpu`].
    pub fn counter(&self) -> Option<PathBuf> {
        let file = if self.version == 2 { "cpu.stat" } else { "cpuacct.usage" };
        self.folder("cpuacct").map(|folder| folder.join(file))
    }

    /// CPU time by the text of [`Group::counter`].
    pub fn cpu(&self, text: &str) -> Option<Duration> {
        match self.version {
            2 => field(text, "usage_usec").map(Duration::from_micros),
            _ => number(text).map(Duration::from_nanos),
        }
    }

    /// All but the CPU time. `first` is the group's first process.
    pub fn read(&self, first: u32) -> Reading {
        let file = |file: &str| {
            let controller = file.split('.').next().unwrap_or_default();
            self.folder(controller).map(|folder| read(folder, file)).unwrap_or_default()
        };
        let (mut reading, counted) = match self.version {
            2 => (read_v2(file), true),
            _ => read_v1(file),
        };
        // To list a group costs more than to ask the one process that most have.
        let pids = if reading.pids == 1 { vec![first as i32] } else { self.processes() };
        let sum = |sum: (u64, u64), one: (u64, u64)| (sum.0 + one.0, sum.1 + one.1);
        if !counted {
            (reading.memory, reading.unreclaimable) =
                pids.iter().map(|pid| crate::usage::held(*pid)).fold((0, 0), sum);
        }
        reading.several = pids.len() > 1;
        reading.storage = pids.iter().filter_map(|pid| crate::usage::storage(*pid)).reduce(sum);
        reading
    }

    /// Bytes in memory, and of these what cannot be dropped, of a group with one process.
    pub fn read_memory(&self, only: u32) -> (u64, u64) {
        let Some(folder) = self.folder("memory") else { return crate::usage::held(only as i32) };
        match self.version {
            2 => memory_v2(|file| read(folder, file)),
            _ => memory_v1(|file| read(folder, file)).unwrap_or_default(),
        }
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
    let depth = if folder.parent().is_some_and(is_node) { 3 } else { 2 };
    let parents: Vec<&Path> = folder.ancestors().skip(1).take(depth).collect();
    for _ in 0..MAKE_TRIES {
        match fs::create_dir(folder) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            other => return other,
        }
        for parent in parents.iter().rev() {
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

fn read(folder: &Path, file: &str) -> String {
    crate::usage::kernel_file(&folder.join(file), str::to_owned)
}

/// Version 1 says "no limit" with the largest multiple of the page size.
const UNLIMITED_V1: u64 = 1 << 62;

/// With whether memory is counted: a replica without a limit has no group for that.
fn read_v1(file: impl Fn(&str) -> String) -> (Reading, bool) {
    let mut reading = Reading { pids: number(&file("pids.current")).unwrap_or(0), ..Reading::default() };
    let Some(memory) = memory_v1(&file) else { return (reading, false) };
    (reading.memory, reading.unreclaimable) = memory;
    reading.memory_limit = number(&file("memory.limit_in_bytes")).filter(|l| *l < UNLIMITED_V1);
    (reading, true)
}

/// Bytes in memory, and of these what cannot be dropped.
fn memory_v1(file: impl Fn(&str) -> String) -> Option<(u64, u64)> {
    let memory = number(&file("memory.usage_in_bytes"))?;
    let kernel = number(&file("memory.kmem.usage_in_bytes")).unwrap_or(0);
    Some((memory, field(&file("memory.stat"), "total_rss").unwrap_or(0) + kernel))
}

fn memory_v2(file: impl Fn(&str) -> String) -> (u64, u64) {
    let stat = file("memory.stat");
    let kernel = field(&stat, "kernel").unwrap_or(0);
    let reclaimable = field(&stat, "slab_reclaimable").unwrap_or(0);
    let memory = number(&file("memory.current")).unwrap_or(0);
    (memory, field(&stat, "anon").unwrap_or(0) + kernel.saturating_sub(reclaimable))
}

fn read_v2(file: impl Fn(&str) -> String) -> Reading {
    let stalled = |name: &str| stalled(&file(name));
    let pressure = || {
        let (cpu, memory) = (stalled("cpu.pressure")?, stalled("memory.pressure")?);
        Some(Pressure { cpu, memory, storage: stalled("io.pressure")? })
    };
    let (memory, unreclaimable) = memory_v2(&file);
    Reading {
        memory,
        unreclaimable,
        memory_limit: number(&file("memory.max")),
        pids: number(&file("pids.current")).unwrap_or(0),
        several: false,
        storage: None,
        pressure: pressure(),
    }
}

/// `total` of the line `some`, in microseconds (the kernel's Documentation/accounting/psi).
fn stalled(pressure: &str) -> Option<Duration> {
    let line = pressure.lines().find(|line| line.starts_with("some "))?;
    line.rsplit_once("total=")?.1.trim().parse().ok().map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1_MOUNTS: &str = "\
30 23 0:25 / /sys/fs/cgroup ro,nosuid - tmpfs tmpfs ro,mode=755
31 30 0:26 / /sys/fs/cgroup/unified rw,nosuid shared:5 - cgroup2 cgroup2 rw
32 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,nosuid shared:6 - cgroup cgroup rw,cpu,cpuacct
33 30 0:28 / /sys/fs/cgroup/with\\040space rw,nosuid - cgroup cgroup rw,memory
34 30 0:29 / /sys/fs/cgroup/systemd rw,nosuid - cgroup cgroup rw,name=systemd
";

    #[test]
    fn hierarchies_are_found_among_the_mounts() {
        let mounts = cgroup_mounts(V1_MOUNTS);
        assert_eq!(mounts.iter().map(|m| m.version).collect::<Vec<_>>(), [2, 1, 1, 1]);
        assert_eq!(mounts[1].path, Path::new("/sys/fs/cgroup/cpu,cpuacct"));
        assert!(mounts[1].controllers.iter().any(|c| c == "cpuacct"));
        assert_eq!(mounts[2].path, Path::new("/sys/fs/cgroup/with space"));
        assert!(matches!(Cgroups::choose("", ""), Cgroups::None(_)));
        assert_eq!(own_v2_path("1:cpu:/x\n0::/user.slice/a.scope\n"), "user.slice/a.scope");
        assert_eq!(own_v2_path("0::/\n"), "");
        assert_eq!(own_v2_path("0::/a/throng-supervisor\n"), "a");
        assert_eq!(missing_controllers("cpu io pids\n"), "+memory");
        assert_eq!(missing_controllers(""), "+cpu +memory +pids");
    }

    #[test]
    fn counters_are_read_from_either_version() {
        let v2 = read_v2(|file| {
            match file {
                "memory.current" => "5000\n",
                "memory.max" => "max\n",
                "memory.stat" => "anon 1000\nfile 500\nkernel 700\nslab_reclaimable 200\n",
                "pids.current" => "3\n",
                "cpu.pressure" => "some avg10=0.00 avg60=0.00 avg300=0.00 total=7\n",
                "memory.pressure" => {
                    "some avg10=0.00 avg60=0.00 avg300=0.00 total=8\nfull avg10=0.00 total=1\n"
                }
                "io.pressure" => "some avg10=0.00 avg60=0.00 avg300=0.00 total=9\n",
                _ => "",
            }
            .to_owned()
        });
        let micros = Duration::from_micros;
        let expected = Reading {
            memory: 5000,
            unreclaimable: 1500,
            memory_limit: None,
            pids: 3,
            several: false,
            storage: None,
            pressure: None,
        };
        let pressure = Pressure { cpu: micros(7), memory: micros(8), storage: micros(9) };
        assert_eq!(v2, Reading { pressure: Some(pressure), ..expected });
        let of_v1 = |file: &str| {
            match file {
                "memory.usage_in_bytes" => "5000\n",
                "memory.limit_in_bytes" => "9223372036854771712\n",
                "memory.stat" => "rss 1\ntotal_rss 1000\n",
                "memory.kmem.usage_in_bytes" => "500\n",
                "pids.current" => "3\n",
                _ => "",
            }
            .to_owned()
        };
        assert_eq!(read_v1(of_v1), (expected, true));
        let unlimited = read_v1(|file| if file.starts_with("memory") { String::new() } else { of_v1(file) });
        assert_eq!(unlimited, (Reading { pids: 3, ..Reading::default() }, false));
        assert_eq!(read_v2(|_| String::new()), Reading::default());
        let group = |version| Group { folders: vec![], version };
        assert_eq!(group(2).cpu("usage_usec 1500000\nuser_usec 1\n"), Some(micros(1_500_000)));
        assert_eq!(group(1).cpu("1500000000\n"), Some(micros(1_500_000)));
        assert_eq!((group(1).cpu(""), group(2).cpu("")), (None, None));
    }

    /// The interface is plain files, so a folder with the same names shows what is written where.
    #[test]
    fn a_delegated_subtree_of_version_2_is_used() {
        let dir = tempfile::tempdir().expect("a folder");
        let mine = dir.path().join("user.slice");
        for folder in [dir.path(), &mine, &mine.join(SUBTREE)] {
            fs::create_dir_all(folder).expect("a folder");
            fs::write(folder.join("cgroup.subtree_control"), "").expect("a file");
        }
        // The top refuses: nothing can be made where a file is in the way.
        fs::write(dir.path().join(SUBTREE), "").expect("a file");
        let mountinfo = format!("31 30 0:26 / {} rw - cgroup2 cgroup2 rw", dir.path().display());
        let chosen = Cgroups::choose(&mountinfo, "0::/user.slice\n");
        assert_eq!(chosen, Cgroups::V2(mine.clone()));
        for folder in [&mine, &mine.join(SUBTREE)] {
            let enabled = fs::read_to_string(folder.join("cgroup.subtree_control")).expect("a file");
            assert_eq!(enabled, "+cpu +memory +pids");
        }
    }
}
