//! What a test's app has left on the host: processes, interfaces, mounts, control groups, sockets, files.

use super::{Bench, kill};
use rustix::process::Signal;
use sha2::{Digest, Sha256};
use std::path::Path;

/// Everything that is left, in words.
pub fn of(bench: &Bench) -> Vec<String> {
    let mut left = Vec::new();
    for (pid, words) in processes_of_home(&bench.home) {
        left.push(format!("process {pid}: {}", words.join(" ")));
    }
    for pid in cgroup_processes(&format!("/throng/{}/", bench.project)) {
        left.push(format!("process {pid} in the project's control group"));
    }
    // Of the default network even if no record of it was ever written.
    bench.interfaces.borrow_mut().insert(bridge(&format!("{}_default", bench.project)));
    for name in bench.interfaces.borrow().iter().filter(|name| interface_exists(name)) {
        left.push(format!("interface {name}"));
    }
    // The home itself may be a file system of the test's.
    let below = format!("{}/", bench.home.display());
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    left.extend(mounts.lines().filter(|line| line.contains(&below)).map(|line| format!("mount {line}")));
    for folder in cgroup_folders(&bench.project) {
        left.push(format!("control group {folder}"));
    }
    left.extend(files(bench));
    left
}

/// Files that belong to an app that is up. Images, volumes and recorded runs stay on purpose, and so does the lock
/// under which networks are made.
fn files(bench: &Bench) -> Vec<String> {
    let names = |folder: &Path| -> Vec<String> {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    };
    let mut left = Vec::new();
    for below in ["engine", "engine/.networks", "projects", "run"] {
        let folder = bench.home.join(below);
        let kept =
            |name: &String| [".networks", "networks.lock", ".root", ".skeleton"].contains(&name.as_str());
        let extra = names(&folder).into_iter().filter(|name| !kept(name));
        left.extend(extra.map(|name| format!("file {}", folder.join(name).display())));
    }
    left
}

/// Processes whose environment names this home, with their command lines.
pub fn processes_of_home(home: &Path) -> Vec<(u32, Vec<String>)> {
    let wanted = format!("THRONG_HOME={}", home.display());
    let read = |pid: u32, what: &str| -> Vec<String> {
        let text = std::fs::read(format!("/proc/{pid}/{what}")).unwrap_or_default();
        text.split(|b| *b == 0).map(|part| String::from_utf8_lossy(part).into_owned()).collect()
    };
    let ours = all_processes().into_iter().filter(|pid| read(*pid, "environ").contains(&wanted));
    ours.map(|pid| (pid, read(pid, "cmdline"))).collect()
}

/// Processes in control groups whose path contains a text, oldest first.
pub fn cgroup_processes(path: &str) -> Vec<u32> {
    processes_in(|group| group.contains(path))
}

/// Processes of a replica, wherever its group is: below the project's, or below that of a node (`@pi`).
pub fn replica_processes(project: &str, replica: &str) -> Vec<u32> {
    let project = format!("/throng/{project}/");
    processes_in(|group| {
        let mut below = group.split_once(&project).map_or("", |(_, below)| below).split('/');
        below.find(|name| !name.starts_with('@')) == Some(replica)
    })
}

/// Processes in control groups whose path, with a slash at its end, fits.
fn processes_in(fits: impl Fn(&str) -> bool) -> Vec<u32> {
    let inside = |pid: &u32| {
        let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        groups.lines().any(|line| fits(&format!("{line}/")))
    };
    let mut found: Vec<u32> = all_processes().into_iter().filter(inside).collect();
    found.sort_unstable();
    found
}

/// Children of a process, their children, and so on.
pub fn processes_below(ancestor: u32) -> Vec<u32> {
    // The name, in parentheses, may hold anything; the parent follows the state after it (proc(5)).
    let parent = |pid: u32| -> Option<u32> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
    };
    let mut found = vec![ancestor];
    // A child may have a lower number than its parent after a turn of the counter, so until nothing is added.
    loop {
        let more: Vec<u32> = all_processes()
            .into_iter()
            .filter(|pid| !found.contains(pid) && parent(*pid).is_some_and(|parent| found.contains(&parent)))
            .collect();
        if more.is_empty() {
            found.remove(0);
            return found;
        }
        found.extend(more);
    }
}

fn all_processes() -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn cgroup_folders(project: &str) -> Vec<String> {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = std::fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    let folders = hierarchies.chain([root.to_path_buf()]).map(|base| base.join("throng").join(project));
    folders.filter(|folder| folder.exists()).map(|folder| folder.display().to_string()).collect()
}

fn interface_exists(name: &str) -> bool {
    Path::new("/sys/class/net").join(name).exists()
}

/// Remembers which interfaces the app has now: afterwards nothing tells whose they were.
pub fn note_interfaces(bench: &Bench) {
    let networks = std::fs::read_dir(bench.home.join("engine/.networks")).into_iter().flatten().flatten();
    for network in networks {
        let file = network.file_name().to_string_lossy().into_owned();
        let bridge = bridge(file.trim_end_matches(".json"));
        let ports =
            std::fs::read_dir(format!("/sys/class/net/{bridge}/brif")).into_iter().flatten().flatten();
        let mut noted = bench.interfaces.borrow_mut();
        noted.extend(ports.filter_map(|port| port.file_name().into_string().ok()));
        noted.insert(bridge);
    }
}

/// The name that the engine gives the bridge of a network.
pub fn bridge(network: &str) -> String {
    let mut hash = Sha256::new();
    hash.update((network.len() as u64).to_le_bytes());
    hash.update(network.as_bytes());
    let hex: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("thr{}", &hex[..10])
}

/// Takes down what a test left, so that a failed one does not disturb others.
pub fn sweep(bench: &Bench) {
    if of(bench).is_empty() {
        return;
    }
    let projects = std::fs::read_dir(bench.home.join("projects")).into_iter().flatten().flatten();
    for project in projects {
        let name = project.file_name().to_string_lossy().into_owned();
        let mut down = bench.command(&["-p", &name, "down", "--timeout", "0"]);
        let _ = down.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).status();
    }
    for (pid, _) in processes_of_home(&bench.home) {
        kill(pid, Signal::KILL);
    }
    for pid in cgroup_processes(&format!("/throng/{}/", bench.project)) {
        kill(pid, Signal::KILL);
    }
    for name in bench.interfaces.borrow().iter().filter(|name| interface_exists(name)) {
        let _ = std::process::Command::new("ip").args(["link", "delete", name]).status();
    }
}
