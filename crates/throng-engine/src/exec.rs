//! Commands inside a running replica, and single build steps.

use crate::child::{Job, Op};
use crate::confine::{self, Confinement};
use crate::engine::{Core, Engine, blocking};
use crate::errors::{failed_start, host};
use crate::layers::Layers;
use crate::plan::{self, Root};
use crate::replica::{Replica, Running};
use crate::spawn::Failure;
use crate::user::{self, Identity};
use crate::{exits, pause, spawn, start, state, sys};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use throng_model::replica::{Exit, Process, ReplicaSpec};
use throng_model::sandbox::Sandbox;
use throng_runtime::{ErrorKind, ExecIo, ExecSpec, Result, RuntimeError};

const REPLICA_NAMESPACES: i32 =
    libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC;
/// Of a build step, beside its mounts.
const STEP_NAMESPACES: i32 = libc::CLONE_NEWPID | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC;
const STEP_HOST_NAME: &str = "build";
/// How long a command that is killed may take to end before nobody waits for it.
const KILLED_WITHIN: Duration = Duration::from_secs(2);

/// Sends a signal; a process that has ended is fine.
pub fn send(pidfd: &OwnedFd, signal: i32) -> io::Result<()> {
    let signal = rustix::process::Signal::from_named_raw(signal)
        .ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
    match rustix::process::pidfd_send_signal(pidfd, signal) {
        Err(rustix::io::Errno::SRCH) => Ok(()),
        other => Ok(other?),
    }
}

/// Kills what is left of the process group that `leader` led; nothing may be.
pub fn kill_group(leader: u32) {
    if let Some(group) = i32::try_from(leader).ok().and_then(rustix::process::Pid::from_raw) {
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
}

/// A process of ours, killed if nobody waits for it any more. It is one from the instant it runs: whoever asked for it
/// may be gone before it has begun.
struct Guarded {
    pidfd: OwnedFd,
    ended: bool,
}

impl Guarded {
    fn new(pidfd: OwnedFd) -> Self {
        Guarded { pidfd, ended: false }
    }

    async fn wait(mut self, timeout: Option<Duration>) -> io::Result<Exit> {
        let watched = sys::watched(self.pidfd.try_clone()?)?;
        if let Some(limit) = timeout
            && tokio::time::timeout(limit, watched.readable()).await.is_err()
        {
            send(&self.pidfd, libc::SIGKILL)?;
            if tokio::time::timeout(KILLED_WITHIN, watched.readable()).await.is_err() {
                // It is frozen with its replica, say. Whoever drops this leaves it to a thread.
                let message = "it has been killed and has not ended";
                return Err(io::Error::new(io::ErrorKind::TimedOut, message));
            }
        }
        let _ready = watched.readable().await?;
        self.ended = true;
        Ok(exits::how(&self.pidfd))
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        if !self.ended {
            // Nothing is left to do about a failure here; the process has ended if there is one.
            let _ = send(&self.pidfd, libc::SIGKILL);
            if let Ok(pidfd) = self.pidfd.try_clone() {
                // Its end may take a while, which must not hold up the runtime's thread.
                std::thread::spawn(move || spawn::reap(&pidfd));
            }
        }
    }
}

pub async fn exec(core: &Arc<Core>, replica: &Arc<Replica>, spec: &ExecSpec, io: ExecIo) -> Result<Exit> {
    let running = replica
        .running()
        .ok_or_else(|| RuntimeError::new(ErrorKind::NotFound, format!("{} is not running", replica.id)))?;
    let (worker, order, target) = (core.clone(), spec.clone(), replica.clone());
    let begin = move || {
        // It would run beside what is paused, and a health check would find it well.
        if pause::is_paused(&worker, &target) {
            let error = RuntimeError::new(ErrorKind::Invalid, format!("{} is paused", target.id));
            return Err(error.hint("`throng unpause` lets it go on"));
        }
        begin(&worker, &target, &running, &order, &io)
    };
    let process = blocking(begin).await??;
    process
        .wait(spec.timeout)
        .await
        .map_err(|e| host(format_args!("cannot wait for a command in {}", replica.id), e))
}

fn begin(
    core: &Core,
    replica: &Replica,
    running: &Running,
    order: &ExecSpec,
    io: &ExecIo,
) -> Result<Guarded> {
    let spec = replica.inner().spec.clone();
    let spec = spec.ok_or_else(|| {
        RuntimeError::new(ErrorKind::Invalid, format!("the description of {} is damaged", replica.id))
    })?;
    let upper = match spec.resources.disk {
        // Only the replica's own processes see what a limited layer holds.
        Some(_) if core.limits_disks() => PathBuf::from(format!("/proc/{}/root", running.pid)),
        _ => start::upper(&replica.folder),
    };
    let layers = Layers::new(Some(&upper), &spec.root.layers);
    let process = command(&spec, order);
    let job = Job::new(0, exec_ops(core, running, &spec, &process, &layers, io)?);
    let spawned = if core.contained() {
        core.spawner.spawn_beside(job, running.pidfd.clone())
    } else {
        core.spawner.spawn(job)
    };
    // The kernel makes no process in a PID namespace whose first one is ending, and calls that ENOMEM (pid_namespaces(7));
    // nor does it let anybody in.
    let is_ending = |failure: &Failure| {
        matches!(failure.errno.0, libc::ENOMEM | libc::ESRCH) && state::is_ending(running.pid)
    };
    let ending =
        || RuntimeError::new(ErrorKind::NotFound, format!("{} is not running: it is ending", replica.id));
    let started = spawned.map_err(|failure| {
        if is_ending(&failure) { ending() } else { failed_start("a command", &[], failure) }
    })?;
    if let Some(meter) = replica.meter().as_mut() {
        meter.joined();
    }
    let job = started.job();
    let who = format!("a command in {}", replica.id);
    if !core.contained() {
        core.give_loopback(&started, &spec)?;
    }
    started
        .finish()
        .map(|(_, pidfd)| Guarded::new(pidfd))
        .map_err(|f| if is_ending(&f) { ending() } else { explain(&who, &job.ops, f, &process, &layers) })
}

fn command(spec: &ReplicaSpec, order: &ExecSpec) -> Process {
    let key = |entry: &String| entry.split('=').next().unwrap_or_default().to_owned();
    let mut env = spec.process.env.clone();
    env.retain(|e| !order.env.iter().any(|o| key(o) == key(e)));
    env.extend(order.env.iter().cloned());
    Process {
        args: order.args.clone(),
        env,
        cwd: order.cwd.clone().unwrap_or_else(|| spec.process.cwd.clone()),
        user: order.user.clone().unwrap_or_else(|| spec.process.user.clone()),
    }
}

fn exec_ops(
    core: &Core,
    running: &Running,
    spec: &ReplicaSpec,
    process: &Process,
    layers: &Layers,
    io: &ExecIo,
) -> Result<Vec<Op>> {
    let group = core.cgroups.group_on(&spec.id.project, spec.node.as_deref(), &spec.id.name());
    let lists = group.as_ref().map(|g| g.lists(&spec.resources)).unwrap_or_default();
    if !core.contained() {
        let mut ops = core.loopback_ops(spec)?;
        ops.push(Op::TakeDescriptors(descriptors(io)));
        ops.extend(plan::beginning(&lists)?);
        ops.extend(crate::process::ending(&core.ground, spec, process)?);
        return Ok(ops);
    }
    // A replica in a user namespace of its own has but one user.
    let apart = start::in_own_user_namespace(running.pid);
    let identity = Identity { apart, ..user::resolve(&process.user, &spec.sandbox.groups, layers)? };
    let confinement = Confinement::new(&core.ground, &spec.sandbox)?;
    let mut flags = REPLICA_NAMESPACES | plan::user_namespace(&identity);
    if group.is_some_and(|g| g.is_v2()) {
        flags |= libc::CLONE_NEWCGROUP;
    }
    let mut ops = vec![Op::TakeDescriptors(descriptors(io))];
    ops.extend(plan::beginning(&lists)?);
    ops.extend(confine::oom_score(&spec.sandbox)?);
    ops.push(Op::Join { pidfd: running.pidfd.as_raw_fd(), flags });
    ops.extend(plan::ending(&confinement, process, &identity, &spec.hostname, false)?);
    Ok(ops)
}

fn descriptors(io: &ExecIo) -> [i32; 3] {
    [io.stdin.as_raw_fd(), io.stdout.as_raw_fd(), io.stderr.as_raw_fd()]
}

fn explain(who: &str, ops: &[Op], failure: Failure, process: &Process, layers: &Layers) -> RuntimeError {
    match failure.step.and_then(|step| ops.get(step)) {
        Some(Op::Execute(program)) => {
            let names: Vec<_> = program.candidates.iter().map(|c| c.to_string_lossy().into_owned()).collect();
            start::not_executable(who, &process.args[0], &process.cwd, &names, failure, layers)
        }
        _ => failed_start(who, ops, failure),
    }
}

impl Engine {
    /// Runs one step of a build: the layers (bottom first) under `upper`, which receives what the step writes, in the
    /// host's network. What the engine itself puts there is taken out again. `upper` and the folder beside it must
    /// lie on one file system that overlayfs can write to.
    pub async fn run_step(
        &self,
        layers: &[PathBuf],
        upper: &Path,
        process: &Process,
        output: ExecIo,
        timeout: Option<Duration>,
    ) -> Result<Exit> {
        if !self.core.contained() {
            return Err(RuntimeError::new(ErrorKind::Host, "a build step needs a container")
                .hint("build where namespaces are allowed, or use a Dockerfile without RUN"));
        }
        let core = self.core.clone();
        let step = Step::new(layers, upper, process)?;
        let begin = move || step.begin(&core, &output).map(|running| (running, step));
        let (running, step) = blocking(begin).await??;
        let exit = running.wait(timeout).await.map_err(|e| host("cannot wait for a build step", e));
        blocking(move || step.clean().map_err(|e| host("cannot clean up after a build step", e))).await??;
        exit
    }
}

/// A build step's folders, removed when it is dropped.
struct Step {
    layers: Vec<PathBuf>,
    upper: PathBuf,
    process: Process,
    /// Beside `upper`: overlayfs' own folder and the place where the root appears.
    scratch: PathBuf,
    names: Vec<(&'static str, String)>,
    /// Folders that were in `upper` before.
    kept: Vec<&'static str>,
}

/// Folders that the engine makes in every root.
const MADE: [&str; 4] = ["proc", "sys", "dev", "etc"];

impl Step {
    fn new(layers: &[PathBuf], upper: &Path, process: &Process) -> Result<Self> {
        let failed =
            |e: io::Error| host(format_args!("cannot prepare a build step in {}", upper.display()), e);
        let upper = upper.canonicalize().map_err(failed)?;
        let name = upper.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let scratch = upper.with_file_name(format!(".{name}.step"));
        let kept = MADE.into_iter().filter(|below| upper.join(below).exists()).collect();
        let resolver = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let hosts = format!("127.0.0.1\tlocalhost {STEP_HOST_NAME}\n::1\tlocalhost\n");
        let names = vec![("resolv.conf", resolver), ("hosts", hosts)];
        Ok(Step { layers: layers.to_vec(), upper, process: process.clone(), scratch, names, kept })
    }

    fn begin(&self, core: &Core, io: &ExecIo) -> Result<Guarded> {
        let failed = |e: io::Error| host("cannot prepare a build step", e);
        let (work, mount_point) = (self.scratch.join("work"), self.scratch.join("root"));
        fs::create_dir_all(&work).and_then(|()| fs::create_dir_all(&mount_point)).map_err(failed)?;
        start::write_name_files(&self.upper, &self.layers, &self.names).map_err(failed)?;
        let layers = Layers::new(Some(&self.upper), &self.layers);
        let identity = core.ground.identity(&self.process.user, &[], &layers)?;
        let root = Root {
            layers: &self.layers,
            disk: None,
            upper: &self.upper,
            work: &work,
            mount_point: &mount_point,
            skeleton: None,
            read_only: false,
            volatile: true,
            mounts: &[],
            private: &|_| PathBuf::new(),
            sys: plan::Sys::Host,
            sandbox: &Sandbox::default(),
            cgroup2: false,
        };
        let mut ops = vec![Op::TakeDescriptors(descriptors(io))];
        ops.extend(plan::map_user(&identity)?);
        ops.extend(plan::beginning(&[])?);
        ops.extend(plan::root(&core.ground, &root)?);
        ops.push(Op::HostName(STEP_HOST_NAME.into()));
        ops.extend(plan::ending(
            &Confinement::plain(&core.ground),
            &self.process,
            &identity,
            STEP_HOST_NAME,
            false,
        )?);
        let started = core
            .spawner
            .spawn(core.ground.job(STEP_NAMESPACES | plan::user_namespace(&identity), ops))
            .map_err(|failure| failed_start("a build step", &[], failure))?;
        let job = started.job();
        started
            .finish()
            .map(|(_, pidfd)| Guarded::new(pidfd))
            .map_err(|failure| explain("a build step", &job.ops, failure, &self.process, &layers))
    }

    /// Takes out of the layer what the engine put there and the step left as it was.
    fn clean(&self) -> io::Result<()> {
        for (name, content) in &self.names {
            let path = self.upper.join("etc").join(name);
            if fs::read_to_string(&path).is_ok_and(|text| text == *content) {
                fs::remove_file(path)?;
            }
        }
        for folder in MADE.iter().filter(|f| !self.kept.contains(f)) {
            // Stays if the step wrote into it.
            let _ = fs::remove_dir(self.upper.join(folder));
        }
        state::remove_tree(&self.scratch)
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Err(error) = self.clean() {
            tracing::warn!("{} is left of a build step: {error}", self.scratch.display());
        }
    }
}
