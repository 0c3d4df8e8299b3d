//! Running a test's body in namespaces of its own: the test starts itself again by way of unshare(1).

use crate::support::{Bench, skip};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// Set to the test's name in the process that is inside.
const INSIDE: &str = "THRONG_TEST_INSIDE";
/// How often supervisors look for walls that print nothing: often, for no test must see one that is not there.
const LOOKS: (&str, &str) = ("THRONG_WALLS_PERIOD", "0.2");

/// Runs `body` in new namespaces, as `unshare` names them. `name`: the test's, with its module.
pub fn inside(name: &str, namespaces: &[&str], body: impl FnOnce(Bench)) {
    inside_after(|| Ok(()), name, namespaces, body);
}

/// As above, with a setting of the whole host that has another value meanwhile, while no other test runs. `lower` says
/// why it cannot be.
pub fn inside_after<T>(
    lower: impl FnOnce() -> Result<T, &'static str>,
    name: &str,
    namespaces: &[&str],
    body: impl FnOnce(Bench),
) {
    if std::env::var(INSIDE).is_ok_and(|inside| inside == name) {
        if namespaces.contains(&"-n") {
            ip("link set lo up\n").expect("loopback");
        }
        return body(Bench::anywhere());
    }
    if !rustix::process::geteuid().is_root() {
        return skip(name, "namespaces with all rights need root");
    }
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(namespaces).arg("--").stdin(Stdio::null());
        command
    };
    match unshare().arg("true").output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => return skip(name, &format!("unshare: {}", String::from_utf8_lossy(&output.stderr))),
        Err(error) => return skip(name, &format!("unshare (Debian package util-linux): {error}")),
    }
    // One at a time: some settings and counters are the whole host's.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let _lowered = match lower() {
        Ok(lowered) => lowered,
        Err(reason) => return skip(name, reason),
    };
    let own = std::env::current_exe().expect("the test's own program");
    let arguments = ["--exact", name, "--nocapture", "--test-threads=1"];
    let output =
        unshare().arg(own).args(arguments).env(INSIDE, name).env(LOOKS.0, LOOKS.1).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    said.lines().filter(|line| line.starts_with("SKIPPED ")).for_each(|line| eprintln!("{line}"));
    let out = String::from_utf8_lossy(&output.stdout);
    // Indented, or else who counts results would take these for results.
    let all: String = out.lines().chain(said.lines()).map(|line| format!("  {line}\n")).collect();
    assert!(output.status.success() && out.contains("1 passed"), "{name}:\n{all}");
}

/// Runs a command; `Err` is what it prints to standard error.
pub fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// Many requests to ip(8), up to the first that fails.
pub fn ip(batch: &str) -> Result<String, String> {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("batch");
    fs::write(&file, batch).expect("a file");
    run("ip", &["-batch", &file.display().to_string()])
}

/// A setting that has another value for as long as this lives.
pub struct Setting {
    path: PathBuf,
    before: String,
}

impl Setting {
    fn path(name: &str) -> PathBuf {
        Path::new("/proc/sys").join(name.replace('.', "/"))
    }

    /// What it is now. `name`: as sysctl(8) has it.
    pub fn value(name: &str) -> Option<u64> {
        fs::read_to_string(Self::path(name)).ok()?.trim().parse().ok()
    }

    /// `None` where the kernel has no such setting, or this process may not write it.
    pub fn put(name: &str, value: u64) -> Option<Setting> {
        let path = Self::path(name);
        let before = fs::read_to_string(&path).ok()?;
        let setting = Setting { path, before };
        fs::write(&setting.path, value.to_string()).ok()?;
        Some(setting)
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        let put = fs::write(&self.path, &self.before);
        assert!(put.is_ok() || std::thread::panicking(), "{} stays changed", self.path.display());
    }
}

/// A control group of version 1 with processes that are put back where they were when it is dropped.
pub struct Group {
    pub path: PathBuf,
    back: PathBuf,
}

impl Group {
    /// With this process in it; `None` where the controller is not one of version 1.
    pub fn around(process: u32, controller: &str) -> Option<Group> {
        let top = Path::new("/sys/fs/cgroup").join(controller);
        let groups = fs::read_to_string(format!("/proc/{process}/cgroup")).ok()?;
        let own = groups.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':').skip(1);
            let of = parts.next()?.split(',').any(|name| name == controller);
            parts.next().filter(|_| of).map(|path| top.join(path.trim_start_matches('/')))
        })?;
        if !own.join("tasks").exists() {
            return None;
        }
        let path = own.join(format!("throng-test-{}", std::process::id()));
        fs::create_dir(&path).ok()?;
        let group = Group { path, back: own };
        fs::write(group.path.join("cgroup.procs"), process.to_string()).ok()?;
        Some(group)
    }

    pub fn read(&self, file: &str) -> u64 {
        let text = fs::read_to_string(self.path.join(file)).expect("a file of the group");
        text.trim().parse().expect("a number")
    }

    pub fn write(&self, file: &str, value: impl ToString) {
        fs::write(self.path.join(file), value.to_string()).expect("a limit is set");
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The kernel may still be burying the last task.
        for _ in 0..500 {
            let inside = fs::read_to_string(self.path.join("cgroup.procs")).unwrap_or_default();
            for process in inside.lines() {
                let _ = fs::write(self.back.join("cgroup.procs"), process);
            }
            if fs::remove_dir(&self.path).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert!(std::thread::panicking(), "{} is left", self.path.display());
    }
}

/// Processes that sleep, until one cannot be made; all are killed when this is dropped.
pub struct Crowd(Vec<Child>);

impl Crowd {
    pub fn until_refused(most: usize) -> Crowd {
        let mut crowd = Crowd(Vec::new());
        while let Ok(child) = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn() {
            crowd.0.push(child);
            assert!(crowd.0.len() <= most, "nobody refuses more than {most} processes");
        }
        crowd
    }

    /// Ends so many of them.
    pub fn end(&mut self, count: usize) {
        let kept = self.0.len().saturating_sub(count);
        for mut child in self.0.split_off(kept) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.end(usize::MAX);
    }
}

/// A tmpfs in the place of a folder, which goes with the mount namespace.
pub fn tmpfs(at: &Path, options: &str) {
    fs::create_dir_all(at).expect("a folder");
    run("mount", &["-t", "tmpfs", "-o", options, "tmpfs", &at.display().to_string()]).expect("a tmpfs");
}
