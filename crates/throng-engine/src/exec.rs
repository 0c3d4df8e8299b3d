//! Commands inside a running replica, and single build steps.

use crate::child::{Job, Op};
use crate::confine::{self, Confinement};
use crate::engine::{Core, Engine, blocking};
use crate::errors::{failed_start, host};
use crate::layers::Layers;
use crate::network::legs_up;
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
use throng_model::replica::{Exit, Process, ReplicaSpec, ResolvedMount};
use throng_model::sandbox::{HostAddress, Sandbox};
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
    let lists = group.as_ref().map(|g| g.lists(&core.limits(spec))).unwrap_or_default();
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

/// One step of a build.
#[derive(Debug, Clone, Default)]
pub struct BuildStep {
    /// Bottom first.
    pub layers: Vec<PathBuf>,
    /// Receives what the step writes. It and the folder beside it must lie on one file system that overlayfs can write
    /// to.
    pub upper: PathBuf,
    pub process: Process,
    /// Mounted while the step runs; parents before children.
    pub mounts: Vec<ResolvedMount>,
    /// Of all wishes further hosts, limits of processes and the size of /dev/shm are granted.
    pub sandbox: Sandbox,
    /// Without a network; otherwise it is the host's.
    pub offline: bool,
}

impl Engine {
    /// Runs one step of a build. What the engine itself puts into `upper` is taken out again.
    pub async fn run_step(&self, step: BuildStep, output: ExecIo, timeout: Option<Duration>) -> Result<Exit> {
        if !self.core.contained() {
            return Err(RuntimeError::new(ErrorKind::Host, "a build step needs a container")
                .hint("build where namespaces are allowed, or use a Dockerfile without RUN"));
        }
        let core = self.core.clone();
        let step = Step::new(step)?;
        let begin = move || step.begin(&core, &output).map(|running| (running, step));
        let (running, step) = blocking(begin).await??;
        let exit = running.wait(timeout).await.map_err(|e| host("cannot wait for a build step", e));
        blocking(move || step.clean().map_err(|e| host("cannot clean up after a build step", e))).await??;
        exit
    }
}

/// A build step's folders, removed when it is dropped.
struct Step {
    wanted: BuildStep,
    /// Beside `upper`: overlayfs' own folder and the place where the root appears.
    scratch: PathBuf,
    names: Vec<(&'static str, String)>,
    /// What is made in `upper` for something to be mounted there, as paths below it; parents before children.
    made: Vec<PathBuf>,
}

/// Folders that the engine makes in every root.
const MADE: [&str; 4] = ["proc", "sys", "dev", "etc"];

impl Step {
    fn new(mut wanted: BuildStep) -> Result<Self> {
        let upper = wanted.upper.canonicalize().map_err(|e: io::Error| {
            host(format_args!("cannot prepare a build step in {}", wanted.upper.display()), e)
        })?;
        let name = upper.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let scratch = upper.with_file_name(format!(".{name}.step"));
        let places = wanted.mounts.iter().map(|mount| mount.target.trim_start_matches('/'));
        let below = |place: &str| -> Vec<PathBuf> {
            let ways = Path::new(place).ancestors().filter(|way| !way.as_os_str().is_empty());
            ways.map(Path::to_owned).collect()
        };
        let mut made: Vec<PathBuf> = MADE.into_iter().chain(places).flat_map(below).collect();
        made.retain(|place| fs::symlink_metadata(upper.join(place)).is_err());
        made.sort();
        made.dedup();
        let resolver = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
        let mut hosts = format!("127.0.0.1\tlocalhost {STEP_HOST_NAME}\n::1\tlocalhost\n");
        for (name, address) in &wanted.sandbox.hosts {
            // A step is in the host's own network.
            let address = match address {
                HostAddress::Address(address) => address.to_string(),
                HostAddress::Gateway => "127.0.0.1".into(),
            };
            hosts += &format!("{address}\t{name}\n");
        }
        let names = vec![("resolv.conf", resolver), ("hosts", hosts)];
        let Sandbox { ulimits, shm_size, .. } = std::mem::take(&mut wanted.sandbox);
        wanted.sandbox = Sandbox { ulimits, shm_size, ..Sandbox::default() };
        wanted.upper = upper;
        Ok(Step { wanted, scratch, names, made })
    }

    fn begin(&self, core: &Core, io: &ExecIo) -> Result<Guarded> {
        let failed = |e: io::Error| host("cannot prepare a build step", e);
        let BuildStep { layers, upper, process, mounts, sandbox, offline } = &self.wanted;
        let (work, mount_point) = (self.scratch.join("work"), self.scratch.join("root"));
        fs::create_dir_all(&work).and_then(|()| fs::create_dir_all(&mount_point)).map_err(failed)?;
        start::write_name_files(upper, layers, &self.names).map_err(failed)?;
        let seen = Layers::new(Some(upper), layers);
        let identity = core.ground.identity(&process.user, &[], &seen)?;
        let root = Root {
            layers,
            disk: None,
            upper,
            work: &work,
            mount_point: &mount_point,
            skeleton: None,
            read_only: false,
            volatile: true,
            mounts,
            private: &|_| PathBuf::new(),
            sys: if *offline { plan::Sys::Own } else { plan::Sys::Host },
            sandbox,
            cgroup2: false,
        };
        let mut ops = vec![Op::TakeDescriptors(descriptors(io))];
        ops.extend(plan::map_user(&identity)?);
        ops.extend(plan::beginning(&[])?);
        ops.extend(plan::root(&core.ground, &root)?);
        ops.push(Op::HostName(STEP_HOST_NAME.into()));
        let mut namespaces = STEP_NAMESPACES | plan::user_namespace(&identity);
        if *offline {
            namespaces |= libc::CLONE_NEWNET;
            let (batch, requests) = legs_up(&[]);
            ops.push(Op::NetworkUp { batch, requests });
        }
        let confinement = Confinement::new(&core.ground, sandbox)?;
        ops.extend(plan::ending(&confinement, process, &identity, STEP_HOST_NAME, false)?);
        let started = core
            .spawner
            .spawn(core.ground.job(namespaces, ops))
            .map_err(|failure| failed_start("a build step", &[], failure))?;
        let job = started.job();
        started
            .finish()
            .map(|(_, pidfd)| Guarded::new(pidfd))
            .map_err(|failure| explain("a build step", &job.ops, failure, process, &seen))
    }

    /// Takes out of the layer what the engine put there and the step left as it was.
    fn clean(&self) -> io::Result<()> {
        let upper = &self.wanted.upper;
        for (name, content) in &self.names {
            let path = upper.join("etc").join(name);
            if fs::read_to_string(&path).is_ok_and(|text| text == *content) {
                fs::remove_file(path)?;
            }
        }
        for place in self.made.iter().rev() {
            let place = upper.join(place);
            // Stays if the step wrote into it.
            let _ = match fs::symlink_metadata(&place) {
                Ok(found) if found.is_dir() => fs::remove_dir(place),
                Ok(found) if found.is_file() && found.len() == 0 => fs::remove_file(place),
                _ => Ok(()),
            };
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
