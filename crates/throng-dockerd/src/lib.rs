//! A Docker daemon for a test or a measurement: started, and ended with every trace of it removed.
//!
//! It has folders, a socket, a bridge and a containerd of its own, and leaves the host's packet filter and settings
//! alone, so a Docker that the host already runs is not disturbed. It ends with the process that started it, however
//! that ends (prctl(2), `PR_SET_PDEATHSIG`), and what such an end leaves behind the next daemon removes.

mod http;
mod record;

pub use http::request;

use record::Record;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long the daemon may take until it answers.
const START_LIMIT: Duration = Duration::from_secs(60);
/// It stops its containers first.
const STOP_LIMIT: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long killed processes may take to leave their control groups.
const GROUPS_WITHIN: Duration = Duration::from_secs(5);
/// The kernel's limit for names of interfaces, and the room that the bridge's own ending takes of it.
const NAME_MOST: usize = 15 - "-dk0".len();
/// Lines of the daemon's log that an error repeats.
const LAST_LINES: usize = 5;
const PROGRAMS: [&str; 5] = ["dockerd", "containerd", "runc", "ip", "setpriv"];

#[derive(Debug, thiserror::Error)]
pub enum DockerdError {
    #[error("cannot {what}: {source}")]
    Io { what: String, source: std::io::Error },
    #[error("`ip {arguments}` failed: {said}")]
    Bridge { arguments: String, said: String },
    #[error("dockerd ended ({status}):\n{log}")]
    Ended { status: ExitStatus, log: String },
    #[error("dockerd does not answer after {} s:\n{log}", START_LIMIT.as_secs())]
    Silent { log: String },
    #[error("{0:?} is longer than {NAME_MOST} bytes")]
    Name(String),
    #[error("stopped while dockerd was starting")]
    Stopped,
    #[error("a daemon named {name} is running already: the process that has locked {path} started it")]
    Taken { name: String, path: String },
}

fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> DockerdError {
    let what = what.into();
    move |source| DockerdError::Io { what, source }
}

/// Why no daemon can run here, or `None` if one may be tried.
pub fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("a Docker daemon needs root".into());
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> =
        std::env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from)).collect();
    let lacks = |program: &&str| !folders.iter().any(|folder| folder.join(program).is_file());
    PROGRAMS.into_iter().find(lacks).map(|program| format!("{program} is not installed"))
}

/// Where a daemon keeps its things.
pub struct Options<'a> {
    /// Everything of it lies below; the path must be short enough for sockets.
    pub folder: &'a Path,
    /// At most 11 bytes; part of the names of its bridge and control group.
    pub name: &'a str,
    /// Of its default bridge, as in `10.198.0.1/22`.
    pub bridge: &'a str,
}

pub struct Dockerd {
    // Dropped in this order: the folders can only be removed when nobody uses them, and the record when all else is gone.
    server: Server,
    places: Places,
    _record: Record,
}

/// What the daemon uses of this host.
struct Places {
    folder: PathBuf,
    bridge: String,
    cgroup: String,
}

/// The daemon's process, and the thread whose end would end it.
struct Server {
    child: Child,
    _keeper: mpsc::Sender<()>,
}

impl Dockerd {
    pub fn start(options: &Options<'_>) -> Result<Dockerd, DockerdError> {
        Self::start_unless(options, || false)
    }

    /// As [`Dockerd::start`], given up as soon as `stopped` says so.
    pub fn start_unless(options: &Options<'_>, stopped: impl Fn() -> bool) -> Result<Dockerd, DockerdError> {
        if options.name.len() > NAME_MOST {
            return Err(DockerdError::Name(options.name.into()));
        }
        let record = Record::take(options.name, options.folder)?;
        let places = Places::make(options)?;
        let log = File::create(places.log()).map_err(io("write dockerd's log"))?;
        let server = Server::start(places.command(), log)?;
        let mut daemon = Dockerd { server, places, _record: record };
        daemon.wait(stopped)?;
        Ok(daemon)
    }

    /// Ends the daemon, with its containers, and starts it again on what it has left.
    pub fn restart(&mut self) -> Result<(), DockerdError> {
        self.server.end();
        let log = File::options().append(true).open(self.places.log()).map_err(io("write dockerd's log"))?;
        self.server = Server::start(self.places.command(), log)?;
        self.wait(|| false)
    }

    fn wait(&mut self, stopped: impl Fn() -> bool) -> Result<(), DockerdError> {
        let deadline = Instant::now() + START_LIMIT;
        let socket = self.socket();
        while !answers(&socket) {
            if let Some(status) = self.server.child.try_wait().map_err(io("wait for dockerd"))? {
                return Err(DockerdError::Ended { status, log: self.places.last_lines() });
            }
            if stopped() {
                return Err(DockerdError::Stopped);
            }
            if Instant::now() >= deadline {
                return Err(DockerdError::Silent { log: self.places.last_lines() });
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    pub fn socket(&self) -> PathBuf {
        self.places.socket()
    }

    /// The daemon's address, as DOCKER_HOST takes it.
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// The parent of its containers' control groups, with a slash before it.
    pub fn cgroup(&self) -> &str {
        &self.places.cgroup
    }

    /// Everything that the daemon has said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.places.log()).unwrap_or_default()
    }
}

/// Whether a daemon answers at the socket.
fn answers(socket: &Path) -> bool {
    request(socket, "GET", "/_ping", &[]).is_ok_and(|(status, _)| status == 200)
}

impl Server {
    fn start(mut command: Command, log: File) -> Result<Server, DockerdError> {
        let twice = log.try_clone().map_err(io("share a log"))?;
        command.process_group(0).stdin(Stdio::null()).stdout(log).stderr(twice);
        let (said, child) = mpsc::channel();
        let (keeper, kept) = mpsc::channel::<()>();
        // The kernel counts the thread that has started a process as its parent; this one stays until it is let go.
        std::thread::spawn(move || {
            if said.send(command.spawn()).is_ok() {
                let _ = kept.recv();
            }
        });
        let child = child.recv().map_err(|_| std::io::Error::other("its thread has ended"));
        let child = child.and_then(|child| child).map_err(io("start dockerd"))?;
        Ok(Server { child, _keeper: keeper })
    }
}

impl Server {
    fn end(&mut self) {
        let Some(leader) = Pid::from_raw(self.child.id().cast_signed()) else { return };
        let ended = |child: &mut Child| child.try_wait().is_ok_and(|status| status.is_some());
        if !ended(&mut self.child) {
            // The leader alone: it ends its containers and its containerd in its own order.
            let _ = kill_process(leader, Signal::TERM);
            let begin = Instant::now();
            while !ended(&mut self.child) && begin.elapsed() < STOP_LIMIT {
                std::thread::sleep(LOOK_EVERY);
            }
        }
        // There is no such group any more as a rule, which is what was wanted.
        let _ = kill_process_group(leader, Signal::KILL);
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}

impl Places {
    fn of(folder: &Path, name: &str) -> Places {
        Places { folder: folder.to_owned(), bridge: format!("{name}-dk0"), cgroup: format!("/{name}-docker") }
    }

    fn make(options: &Options<'_>) -> Result<Places, DockerdError> {
        let folder = options.folder.to_owned();
        std::fs::create_dir_all(&folder).map_err(io(format!("make {}", folder.display())))?;
        std::fs::write(folder.join("daemon.json"), "{}").map_err(io("write dockerd's configuration"))?;
        let places = Places::of(&folder, options.name);
        // One that a killed process has left would carry the address twice.
        quietly("ip", &["link", "delete", &places.bridge]);
        for arguments in [
            &["link", "add", &places.bridge, "type", "bridge"][..],
            &["address", "add", options.bridge, "dev", &places.bridge],
            &["link", "set", &places.bridge, "up"],
        ] {
            let output = Command::new("ip").args(arguments).output().map_err(io("run ip"))?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                return Err(DockerdError::Bridge { arguments: arguments.join(" "), said });
            }
        }
        Ok(places)
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("docker.sock")
    }

    fn log(&self) -> PathBuf {
        self.folder.join("dockerd.log")
    }

    fn last_lines(&self) -> String {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(LAST_LINES).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    fn command(&self) -> Command {
        let below = |name: &str| self.folder.join(name).display().to_string();
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "TERM", "--", "dockerd"])
            .arg(format!("--data-root={}", below("data")))
            .arg(format!("--exec-root={}", below("exec")))
            .arg(format!("--pidfile={}", below("pid")))
            .arg(format!("--host=unix://{}", self.socket().display()))
            .arg(format!("--config-file={}", below("daemon.json")))
            .arg(format!("--bridge={}", self.bridge))
            .arg(format!("--cgroup-parent={}", self.cgroup))
            .args(["--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"])
            .args(["--userland-proxy=false", "--storage-driver=overlay2", "--log-level=warn"]);
        command
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        // Networks that nobody has removed outlive the daemon as bridges.
        for bridge in record::bridges_of(&self.folder).iter().chain([&self.bridge]) {
            quietly("ip", &["link", "delete", bridge]);
        }
        record::unmount_below(&self.folder);
        remove_cgroups(&self.cgroup);
        // Its maker removes the folder, with whatever else lies in it.
    }
}

fn mounts_below(folder: &Path) -> Vec<String> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    points.filter(|point| Path::new(point).starts_with(folder)).map(str::to_owned).collect()
}

/// Removes the daemon's control groups, in each hierarchy of version 1 or the one of version 2, with what is still in
/// them.
fn remove_cgroups(cgroup: &str) {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = std::fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    for hierarchy in hierarchies.chain([root.to_owned()]) {
        let mut groups = Vec::new();
        groups_below(&hierarchy.join(cgroup.trim_start_matches('/')), &mut groups);
        record::kill_groups(&groups);
        // A killed process leaves its group a moment later.
        let deadline = Instant::now() + GROUPS_WITHIN;
        let left =
            || groups.iter().rev().filter(|group| std::fs::remove_dir(group).is_err() && group.exists());
        while left().count() > 0 && Instant::now() < deadline {
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

/// A control group, if there is one, and those below it, the outer ones first.
fn groups_below(group: &Path, found: &mut Vec<PathBuf>) {
    if !group.is_dir() {
        return;
    }
    found.push(group.to_owned());
    for entry in std::fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            groups_below(&entry.path(), found);
        }
    }
}

/// Runs a command of the clean-up, which goes on whatever comes of it and must also run after an interruption.
fn quietly(program: &str, arguments: &[&str]) {
    let _ = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
}
