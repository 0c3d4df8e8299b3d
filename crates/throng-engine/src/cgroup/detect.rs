//! Which hierarchies of control groups this host offers, and which of them may be written.

use super::{CONTROLLERS, Cgroups, SUBTREE, SUPERVISOR, cores};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

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
            let cores = mounts.iter().find(|m| m.controllers.iter().any(|c| c == cores::CORES));
            return Self::writable_v1(v1, cores.map(|mount| mount.path.as_path()));
        }
        match mounts.iter().find(|m| m.version == 2) {
            Some(mount) => Self::writable_v2(&mount.path, own),
            None => Cgroups::None("no cgroup hierarchy is mounted".into()),
        }
    }

    fn writable_v1(mut mounts: Vec<(String, PathBuf)>, cores: Option<&Path>) -> Self {
        for (_, path) in &mounts {
            if let Err(error) = own_folder(&path.join(SUBTREE)) {
                return Cgroups::None(format!("{} cannot be written: {error}", path.display()));
            }
        }
        let cores = cores
            .filter(|path| cores::stands_alone(path, &mounts) && own_folder(&path.join(SUBTREE)).is_ok());
        mounts.extend(cores.map(|path| (cores::CORES.to_owned(), path.to_owned())));
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

pub(super) fn enable_v2(folder: &Path) -> io::Result<()> {
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

/// Where the hierarchy of version 1 with this controller is mounted, if this program may make groups there. None stays.
pub fn hierarchy(controller: &str) -> Option<PathBuf> {
    let mounts = cgroup_mounts(&fs::read_to_string("/proc/self/mountinfo").ok()?);
    let with = |mount: &CgroupMount| mount.version == 1 && mount.controllers.iter().any(|c| c == controller);
    let top = mounts.into_iter().find(with)?.path;
    own_folder(&top.join(SUBTREE)).ok()?;
    let _ = fs::remove_dir(top.join(SUBTREE));
    Some(top)
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
