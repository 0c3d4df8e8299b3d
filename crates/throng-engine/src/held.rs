//! What keeps a control group from being removed: groups below it, and processes in them that are not the replica's.

use std::fs;
use std::path::{Path, PathBuf};

/// Groups below a replica's that are looked at; none is made by this program.
const GROUPS_BELOW: u32 = 1_000;

/// Removes the empty groups below one.
pub fn remove_below(folder: &Path) {
    remove_most(folder, &mut { GROUPS_BELOW });
}

/// The first process in the group or below it, in words.
pub fn holder(folder: &Path) -> Option<String> {
    find(folder, &mut { GROUPS_BELOW })
}

fn below(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path())
}

/// Removes `left` groups at most.
fn remove_most(folder: &Path, left: &mut u32) {
    for group in below(folder) {
        let Some(fewer) = left.checked_sub(1) else { return };
        *left = fewer;
        remove_most(&group, left);
        // One that is in use stays, and is named later.
        let _ = fs::remove_dir(&group);
    }
}

fn find(folder: &Path, left: &mut u32) -> Option<String> {
    let list = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    if let Some(pid) = list.lines().next() {
        let place = folder.display();
        // One of another PID namespace has no number here (cgroups(7)).
        if pid == "0" {
            return Some(format!("a process of another PID namespace in {place}"));
        }
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        return Some(format!("process {pid} ({}) in {place}", name.trim()));
    }
    below(folder).find_map(|group| {
        *left = left.checked_sub(1)?;
        find(&group, left)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_a_group_is_named() {
        let dir = tempfile::tempdir().expect("a folder");
        let (group, deep) = (dir.path().join("web-1"), dir.path().join("web-1/a/b"));
        fs::create_dir_all(&deep).expect("folders");
        fs::create_dir_all(group.join("empty/too")).expect("folders");
        let own = std::process::id();
        fs::write(deep.join("cgroup.procs"), format!("{own}\n")).expect("a file");
        assert_eq!(find(&group.join("empty"), &mut 10), None);
        let found = find(&group, &mut 10).expect("held");
        assert!(found.starts_with(&format!("process {own} (")) && found.ends_with("/web-1/a/b"), "{found}");
        fs::write(group.join("cgroup.procs"), "0\n").expect("a file");
        assert!(find(&group, &mut 10).is_some_and(|found| found.contains("another PID namespace")));
        let mut left = 2;
        assert_eq!((find(dir.path(), &mut 0), find(dir.path(), &mut left).is_some()), (None, true));
        remove_most(&group, &mut 10);
        assert!(!group.join("empty").exists() && deep.exists());
    }
}
