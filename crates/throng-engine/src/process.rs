//! Replicas as plain processes, where the host allows no namespaces at all.
//!
//! The program runs straight out of the image's layer that holds it, as the supervisor's own user, with the host's
//! files, network and processes in view. System calls and privileges are restricted as in a container.
//!
//! It has an address of its own out of 127.0.0.0/8, also in `THRONG_ADDRESS`. When it listens on every address or on
//! 127.0.0.1, it listens there instead; when it connects to 127.0.0.1 and has the port itself, it reaches itself (see
//! [`crate::redirect`] and [`crate::sys::notify`]). The rest of the host's loopback stays in reach.

use crate::child::{Job, Op};
use crate::confine::Confinement;
use crate::layers::Layers;
use crate::plan::{self, Ground, text};
use crate::spawn::Spawner;
use crate::sys::{Filter, notify};
use crate::user::Identity;
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};
use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use throng_model::replica::{Process, ReplicaSpec};
use throng_runtime::{ErrorKind, Result, RuntimeError};

/// Variable that tells a plain process its address.
pub const ADDRESS: &str = "THRONG_ADDRESS";
/// How long a helper that has nobody left to serve may take to end.
const HELPER_PATIENCE: rustix::event::Timespec = rustix::event::Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// Why this host refuses containers, if it does: tries the first things that one needs.
pub fn refusal(spawner: &Spawner, namespaces: i32) -> Option<String> {
    let private = plan::mount("none", "/", "", crate::sys::RECURSIVE | crate::sys::PRIVATE, "");
    let ops = private.into_iter().chain([Op::HostName(b"probe".to_vec())]).collect();
    match spawner.spawn(Job::new(namespaces, ops)).and_then(|starting| starting.finish()) {
        Ok((_, pidfd)) => {
            // It had nothing to execute and has ended.
            crate::spawn::reap(&pidfd);
            None
        }
        Err(failure) => {
            let reason = format!("no new namespaces: {}", io::Error::from(failure.errno));
            Some(crate::rootless::refusal().unwrap_or(reason))
        }
    }
}

/// Gives plain processes a loopback of their own, by a helper that is forked when it is first needed.
pub struct Loopbacks {
    filter: Arc<Filter>,
    helper: Mutex<Option<Helper>>,
}

struct Helper {
    pid: u32,
    socket: OwnedFd,
}

impl Loopbacks {
    /// An error says what this host does not allow.
    pub fn new(spawner: &Spawner) -> std::result::Result<Self, String> {
        let filter = Arc::new(notify::filter());
        let ops = vec![
            Op::NoNewPrivileges,
            Op::Notify { filter: filter.clone(), helper: std::process::id() },
            Op::AwaitGo,
        ];
        let failed = |f: crate::spawn::Failure| format!("seccomp: {}", io::Error::from(f.errno));
        let starting = spawner.spawn(Job::new(0, ops)).map_err(failed)?;
        let listener = starting.listener();
        let memory = starting
            .pid()
            .and_then(|pid| File::options().read(true).write(true).open(format!("/proc/{pid}/mem")));
        let (_, pidfd) = starting.finish().map_err(failed)?;
        crate::spawn::reap(&pidfd);
        drop(listener);
        memory.map_err(|error| format!("memory of processes: {error}"))?;
        Ok(Loopbacks { filter, helper: Mutex::new(None) })
    }

    /// First operations of a child that is to have one.
    pub fn beginning(&self) -> io::Result<[Op; 2]> {
        let mut helper = self.lock();
        let running = match helper.take().filter(Helper::lives) {
            Some(running) => running,
            None => Helper::start()?,
        };
        let pid = helper.insert(running).pid;
        Ok([Op::NoNewPrivileges, Op::Notify { filter: self.filter.clone(), helper: pid }])
    }

    /// Has the helper answer what the child asks: its loopback is `own`.
    pub fn adopt(&self, listener: OwnedFd, own: Ipv4Addr) -> io::Result<()> {
        match &*self.lock() {
            Some(helper) => notify::hand_over(&helper.socket, listener.as_fd(), own),
            None => Err(io::Error::other("the helper for addresses has ended")),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Helper>> {
        // Each change is one store.
        self.helper.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Helper {
    fn start() -> io::Result<Self> {
        let (pid, socket) = notify::fork_helper()?;
        Ok(Helper { pid, socket })
    }

    /// Takes note of its end, too, if it has been killed.
    fn lives(&self) -> bool {
        let Some(pid) = self.id() else { return false };
        matches!(waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG), Ok(None))
    }

    fn id(&self) -> Option<Pid> {
        Pid::from_raw(i32::try_from(self.pid).ok()?)
    }
}

impl Drop for Loopbacks {
    /// The helper goes on for replicas that do; if there are none it is gone when this returns.
    fn drop(&mut self) {
        let Some(helper) = self.lock().take() else { return };
        let Some(pid) = helper.id() else { return };
        drop(helper);
        if let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) {
            let mut wanted = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
            // Whether it has ended or not, there is nothing else to do.
            let _ = rustix::event::poll(&mut wanted, Some(&HELPER_PATIENCE));
            let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        }
    }
}

/// The end of a plain process' operations, after descriptors and groups.
pub fn ending(ground: &Ground, spec: &ReplicaSpec, process: &Process) -> Result<Vec<Op>> {
    let layers = Layers::new(None, &spec.root.layers);
    let name = process.args.first().map(String::as_str).unwrap_or_default();
    let candidates = plan::candidates(name, &process.env);
    let found = candidates.iter().find_map(|c| layers.find(c).filter(|f| f.metadata.is_file()));
    let program = found.map(|f| f.path).ok_or_else(|| {
        RuntimeError::new(
            ErrorKind::Invalid,
            format!("cannot start {}: there is no program {name:?} in the image", spec.id),
        )
        .hint(
            "as a plain process a replica sees the host's files: use an image that holds the program itself",
        )
    })?;
    let identity = Identity::default();
    let mut prepared = process.clone();
    if let Some(leg) = spec.networks.first() {
        prepared.env.push(format!("{ADDRESS}={}", leg.address));
    }
    let vectors = plan::program_at(vec![text(&program)?], &prepared, &identity, &spec.hostname)?;
    let mut ops = vec![
        Op::ChangeDirectory { path: text(working_directory(&layers, &process.cwd, &program))? },
        Op::Umask(0o022),
        Op::NoNewPrivileges,
    ];
    ops.extend(Confinement::new(ground, &spec.sandbox.limits_alone())?.limit_ops());
    ops.push(Op::Filter(ground.filter.clone()));
    ops.extend([Op::DieWithParent(false), Op::Execute(vectors)]);
    Ok(ops)
}

/// The image's folder if it holds one by that name, the program's own otherwise.
fn working_directory(layers: &Layers, cwd: &str, program: &Path) -> PathBuf {
    let wanted = layers.find(cwd).filter(|f| f.metadata.is_dir() && !cwd.is_empty()).map(|f| f.path);
    wanted.or_else(|| program.parent().map(Path::to_path_buf)).unwrap_or_else(|| PathBuf::from("/"))
}
