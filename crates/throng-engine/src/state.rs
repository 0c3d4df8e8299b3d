//! What is kept on disk of each replica, so that another supervisor can take over.
//!
//! `<state>/<project>/<name>/` holds `spec.json` (the order), `life.json` (its latest process; `begun.json` until
//! that has executed its program), `upper` and `work`
//! (the writable layer), `log`, `log.1` …, and `private-<n>` folders. `<state>/.networks/<name>.json` holds a network. In
//! `<state>/.root` each child mounts its root, in a namespace of its own; `<state>/.skeleton` lies under every image and
//! holds the folders that every root must have. To have either for each replica would cost as much as all the rest of its
//! folders. Files are written beside their place and
//! renamed, so a reader sees the old text or the new one. They are not flushed to the device: after a power loss no
//! process is left to describe, the boot id tells so, and a damaged text reads as "nothing known"; who takes a replica
//! over says so, and looks for its process in its control group.

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::ffi::CStr;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use throng_model::replica::{Exit, ReplicaId, ReplicaSpec};

/// Grows when the meaning of a file changes; a file of another version reads as "nothing known".
const VERSION: u32 = 1;
const NETWORKS: &str = ".networks";
const ROOT: &str = ".root";
const SKELETON: &str = ".skeleton";
/// What is in a skeleton: where a root's other file systems are mounted.
const BONES: [&str; 3] = ["proc", "sys", "dev"];
const SPEC: &str = "spec.json";
const LIFE: &str = "life.json";
const BEGUN: &str = "begun.json";

#[derive(Debug, Serialize, Deserialize)]
struct Versioned<T> {
    version: u32,
    #[serde(flatten)]
    content: T,
}

/// One process of a replica.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Life {
    /// Newest generation seen, which may be newer than the spec's.
    pub generation: u64,
    /// `/proc/sys/kernel/random/boot_id`: pids mean nothing after a reboot.
    pub boot: String,
    pub pid: u32,
    /// Start time in clock ticks since boot: together with the pid it names one process for ever.
    pub ticks: u64,
    pub started_at: SystemTime,
    /// Interfaces on the host's side, to be removed with the replica.
    pub interfaces: Vec<String>,
    pub end: Option<End>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct End {
    pub exit: Exit,
    pub at: SystemTime,
}

#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    pub fn open(root: &Path) -> io::Result<Self> {
        for folder in [NETWORKS, ROOT] {
            fs::create_dir_all(root.join(folder))?;
        }
        for bone in BONES {
            fs::create_dir_all(root.join(SKELETON).join(bone))?;
        }
        // Replicas run with other user ids; none of them has any business among the others' files.
        fs::set_permissions(root, std::os::unix::fs::PermissionsExt::from_mode(0o711))?;
        Ok(Store { root: root.canonicalize()? })
    }

    pub fn project(&self, project: &str) -> PathBuf {
        self.root.join(project)
    }

    pub fn replica(&self, id: &ReplicaId) -> PathBuf {
        self.root.join(&id.project).join(id.name())
    }

    /// An empty folder on which roots are mounted.
    pub fn mount_point(&self) -> PathBuf {
        self.root.join(ROOT)
    }

    /// The lowest layer of every root.
    pub fn skeleton(&self) -> PathBuf {
        self.root.join(SKELETON)
    }

    pub fn network(&self, name: &str) -> PathBuf {
        self.root.join(NETWORKS).join(format!("{name}.json"))
    }

    /// Every replica of which a folder is left. The name is the folder's: the files in it may be damaged.
    pub fn replicas(&self, project: &str) -> Vec<ReplicaId> {
        let entries = fs::read_dir(self.project(project)).into_iter().flatten().flatten();
        entries.filter_map(|e| parse_name(project, e.file_name().to_str()?)).collect()
    }
}

/// Names of the networks that engines with this state folder have on record.
pub fn recorded_networks(state_dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(state_dir.join(NETWORKS)).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter_map(|name| name.strip_suffix(".json").map(str::to_owned)).collect()
}

/// The image layers under all replicas of all projects that have their records in `root`, running or not.
pub fn layers_in_use(root: &Path) -> HashSet<PathBuf> {
    let folders = |path: &Path| fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let replicas = folders(root).flat_map(|project| folders(&project).collect::<Vec<_>>());
    replicas.filter_map(|replica| read_spec(&replica)).flat_map(|spec| spec.root.layers).collect()
}

fn parse_name(project: &str, name: &str) -> Option<ReplicaId> {
    let (service, ordinal) = name.rsplit_once('-')?;
    Some(ReplicaId { project: project.into(), service: service.into(), ordinal: ordinal.parse().ok()? })
}

pub fn write_spec(folder: &Path, spec: &ReplicaSpec) -> io::Result<()> {
    write(&folder.join(SPEC), spec)
}

pub fn read_spec(folder: &Path) -> Option<ReplicaSpec> {
    read(&folder.join(SPEC))
}

pub fn write_life(folder: &Path, life: &Life) -> io::Result<()> {
    write(&folder.join(LIFE), life)
}

/// Records a process that is about to execute the program: if the supervisor dies meanwhile, the next one finds it.
pub fn write_begun(folder: &Path, life: &Life) -> io::Result<()> {
    write(&folder.join(BEGUN), life)
}

/// Whether a start was under way, readable or not.
pub fn has_begun(folder: &Path) -> bool {
    folder.join(BEGUN).exists()
}

pub fn read_begun(folder: &Path) -> Option<Life> {
    read(&folder.join(BEGUN))
}

/// The program has been executed.
pub fn begun_is_life(folder: &Path) -> io::Result<()> {
    fs::rename(folder.join(BEGUN), folder.join(LIFE))
}

/// The program will never be executed. Fine if nothing had begun.
pub fn forget_begun(folder: &Path) {
    // A file that stays is looked at again by the next supervisor, with the same outcome.
    let _ = fs::remove_file(folder.join(BEGUN));
}

pub fn read_life(folder: &Path) -> Option<Life> {
    read(&folder.join(LIFE))
}

/// Which of a replica's records are there and cannot be read: cut by a full disk or a power failure, say.
pub fn damaged(folder: &Path) -> Vec<&'static str> {
    let unread = |name: &str, read: bool| !read && folder.join(name).exists();
    let records = [
        (SPEC, read_spec(folder).is_some()),
        (LIFE, read_life(folder).is_some()),
        (BEGUN, read_begun(folder).is_some()),
    ];
    records.into_iter().filter(|(name, read)| unread(name, *read)).map(|(name, _)| name).collect()
}

pub fn write<T: Serialize>(path: &Path, content: &T) -> io::Result<()> {
    let text = serde_json::to_vec(&Versioned { version: VERSION, content })?;
    let beside = path.with_extension("new");
    fs::write(&beside, text).and_then(|()| fs::rename(&beside, path)).inspect_err(|_| {
        // What is half written, on a full disk say, is of no use to anybody.
        let _ = fs::remove_file(&beside);
    })
}

/// `None` for a file that is missing, damaged or of another version.
pub fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let read: Versioned<T> = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
    (read.version == VERSION).then_some(read.content)
}

/// How often a folder is emptied that others still write to.
const REMOVE_TRIES: u32 = 64;

/// Removes a folder and everything in it that lies on the same file system; whatever is mounted there stays. Others may
/// still remove, replace or write files in it: an engine that was let go, say, whose last task writes how a replica ended.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    match rustix::fs::open(path, OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
        Ok(folder) => {
            let device = rustix::fs::fstat(&folder)?.st_dev;
            let mut tries = 1;
            loop {
                match empty(folder.try_clone()?, device).and_then(|()| fs::remove_dir(path)) {
                    // Something has been put there in between.
                    Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty && tries < REMOVE_TRIES => {
                        tries += 1
                    }
                    Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
                    other => return other,
                }
            }
        }
        Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn empty(folder: OwnedFd, device: u64) -> io::Result<()> {
    let mut entries = Dir::read_from(&folder)?;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        if entry.file_type() == FileType::Directory || entry.file_type() == FileType::Unknown {
            remove_entry(folder.as_fd(), name, device)?;
        } else {
            unlink(&folder, name, AtFlags::empty())?;
        }
    }
    Ok(())
}

fn remove_entry(folder: impl AsFd, name: &CStr, device: u64) -> io::Result<()> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let below = match rustix::fs::openat(&folder, name, flags, Mode::empty()) {
        Ok(below) => below,
        Err(rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => {
            return unlink(&folder, name, AtFlags::empty());
        }
        Err(rustix::io::Errno::NOENT) => return Ok(()),
        Err(rustix::io::Errno::ACCESS) => {
            // A folder of our own without permissions, as overlayfs makes for itself.
            rustix::fs::chmodat(&folder, name, Mode::RWXU, AtFlags::empty())?;
            rustix::fs::openat(&folder, name, flags, Mode::empty())?
        }
        Err(error) => return Err(error.into()),
    };
    if rustix::fs::fstat(&below)?.st_dev != device {
        return Err(io::Error::other(format!("{} is a mount point", name.to_string_lossy())));
    }
    empty(below, device)?;
    unlink(&folder, name, AtFlags::REMOVEDIR)
}

fn unlink(folder: impl AsFd, name: &CStr, flags: AtFlags) -> io::Result<()> {
    match rustix::fs::unlinkat(folder, name, flags) {
        Err(rustix::io::Errno::NOENT) => Ok(()),
        other => Ok(other?),
    }
}

pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Whether a process is on its way out or gone: PF_EXITING of the flags in proc_pid_stat(5), field 9.
pub fn is_ending(pid: u32) -> bool {
    const EXITING: u32 = 4;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let flags = stat.rsplit_once(") ").and_then(|(_, rest)| rest.split(' ').nth(6)?.parse::<u32>().ok());
    flags.is_none_or(|flags| flags & EXITING != 0)
}

/// Whether a process is stopped by a signal: its state is `T` in proc_pid_stat(5).
pub fn is_stopped(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
}

/// All processes of the PID namespace that a process is in, itself included.
pub fn in_pid_namespace_of(pid: u32) -> Vec<i32> {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let Some(own) = namespace(&pid.to_string()) else { return vec![] };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| namespace(&pid.to_string()).as_ref() == Some(&own)).collect()
}

/// When process `pid` started, in clock ticks since boot; `None` if there is none.
pub fn start_ticks(pid: u32) -> Option<u64> {
    parse_start_ticks(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// Whether a process is the first one of a PID namespace below this one's (NSpid of proc_pid_status(5)).
pub fn is_first_of_namespace(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
    // First its number here, last the one that it has for itself.
    let numbers: Vec<&str> = numbers.split_whitespace().collect();
    numbers.len() > 1 && numbers.last() == Some(&"1")
}

/// When a process of so many ticks began, to about a hundredth of a second.
pub fn began(ticks: u64) -> Option<SystemTime> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let boot: u64 = stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    let each = rustix::param::clock_ticks_per_second().max(1);
    let since = std::time::Duration::from_millis(ticks.saturating_mul(1_000) / each);
    SystemTime::UNIX_EPOCH.checked_add(std::time::Duration::from_secs(boot) + since)
}

/// Field 22 of proc_pid_stat(5). The second one is the command in brackets and may hold anything, brackets too.
fn parse_start_ticks(stat: &str) -> Option<u64> {
    stat.rsplit_once(") ")?.1.split(' ').nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_is_found_behind_any_command() {
        let rest = (4..=30).map(|n| n.to_string()).collect::<Vec<_>>().join(" ");
        for command in ["cat", "a) S 1 (b", ") "] {
            assert_eq!(parse_start_ticks(&format!("17 ({command}) S {rest}")), Some(22), "{command}");
        }
        assert_eq!(parse_start_ticks("17 (cat"), None);
        assert!(start_ticks(std::process::id()).is_some());
    }

    #[test]
    fn processes_began_when_their_ticks_say() {
        let ticks = start_ticks(std::process::id()).expect("this process");
        let age = SystemTime::now().duration_since(began(ticks).expect("a moment")).expect("in the past");
        assert!(age < std::time::Duration::from_secs(3_600), "{age:?}");
    }

    #[test]
    fn a_damaged_file_reads_as_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let life = Life {
            generation: 3,
            boot: "b".into(),
            pid: 1,
            ticks: 2,
            started_at: SystemTime::UNIX_EPOCH,
            interfaces: vec!["tv0".into()],
            end: Some(End { exit: Exit::Code { code: 3 }, at: SystemTime::UNIX_EPOCH }),
        };
        write_life(dir.path(), &life).unwrap();
        assert_eq!(read_life(dir.path()), Some(life));
        let text = fs::read_to_string(dir.path().join(LIFE)).unwrap();
        for cut in 0..text.len() {
            fs::write(dir.path().join(LIFE), &text[..cut]).unwrap();
            assert_eq!(read_life(dir.path()), None, "cut at {cut}");
            assert_eq!(damaged(dir.path()), [LIFE], "cut at {cut}");
        }
        fs::write(dir.path().join(LIFE), text.replace("\"version\":1", "\"version\":2")).unwrap();
        assert_eq!(read_life(dir.path()), None);
    }

    #[test]
    fn folders_name_their_replicas() {
        let id = parse_name("shop", "web-front-12").unwrap();
        assert_eq!((id.service.as_str(), id.ordinal), ("web-front", 12));
        assert_eq!(parse_name("shop", "web"), None);
        assert_eq!(parse_name("shop", "web-x"), None);
    }

    #[test]
    fn a_tree_is_removed_and_links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (kept, gone) = (dir.path().join("kept"), dir.path().join("gone"));
        fs::create_dir_all(gone.join("a/b")).unwrap();
        fs::create_dir_all(&kept).unwrap();
        fs::write(kept.join("file"), "x").unwrap();
        std::os::unix::fs::symlink(&kept, gone.join("a/link")).unwrap();
        remove_tree(&gone).unwrap();
        remove_tree(&gone).unwrap();
        assert!(!gone.exists() && kept.join("file").exists());
    }

    #[test]
    fn a_tree_is_removed_while_somebody_writes_to_it() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("below")).unwrap();
        let (begun, begins) = std::sync::mpsc::channel();
        let writer = std::thread::spawn({
            let tree = tree.clone();
            move || {
                for number in 0..20_000 {
                    let file = if number % 2 == 0 { tree.join("file") } else { tree.join("below/file") };
                    if fs::write(file, "x").is_err() && !tree.exists() {
                        return;
                    }
                    let _ = begun.send(());
                }
            }
        });
        begins.recv().unwrap();
        remove_tree(&tree).unwrap();
        writer.join().unwrap();
        assert!(!tree.exists());
    }
}
