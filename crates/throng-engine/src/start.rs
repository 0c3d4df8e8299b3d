//! Starting one replica: what the parent prepares, what it does while the child prepares itself, and what is recorded.

use crate::cgroup::missing_core;
use crate::child::{DISK, INIT, Job, Op, SHARED_SYS};
use crate::confine::{self, Confinement};
use crate::disk::{self, Disk};
use crate::engine::Core;
use crate::errors::{failed_start, host};
use crate::layers::Layers;
use crate::network::{Leg, Links, legs_addressed, legs_up, pair_name};
use crate::plan::{self, Root, Sys, text};
use crate::replica::{Replica, Running};
use crate::spawn::{Failure, Starting};
use crate::state::{self, Life};
use crate::user::Identity;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;
use throng_model::replica::{NetworkSpec, ReplicaSpec};
use throng_runtime::backends::LOG;
use throng_runtime::{ErrorKind, Result, RuntimeError};

/// Of every replica, beside its mounts.
pub const NAMESPACES: i32 = libc::CLONE_NEWPID | libc::CLONE_NEWNET | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC;

/// The pipe in a replica's folder that is its input, if that stays open.
const INPUT: &str = "input";

/// Folders of a replica.
pub fn upper(folder: &Path) -> PathBuf {
    folder.join("upper")
}

fn work(folder: &Path) -> PathBuf {
    folder.join("work")
}

fn private(folder: &Path, number: usize) -> PathBuf {
    folder.join(format!("private-{number}"))
}

/// Makes everything of the replica that lies on disk.
pub fn prepare(core: &Core, folder: &Path, spec: &ReplicaSpec) -> Result<()> {
    let failed = |e: io::Error| host(format_args!("cannot prepare {}", spec.id), e);
    for below in [upper(folder), work(folder)] {
        fs::create_dir_all(below).map_err(failed)?;
    }
    // The root folder of the replica is the writable layer's.
    fs::set_permissions(upper(folder), fs::Permissions::from_mode(0o755)).map_err(failed)?;
    for (number, mount) in spec.mounts.iter().enumerate() {
        if mount.source == throng_model::replica::ResolvedSource::Private {
            fs::create_dir_all(private(folder, number)).map_err(failed)?;
        }
    }
    if let Some(bytes) = core.disk_limit(spec) {
        disk::make(&spec.id.to_string(), folder, bytes)?;
    }
    state::write_spec(folder, spec).map_err(failed)
}

/// Makes the writable layer anew. The replica must not run.
pub fn empty(core: &Core, folder: &Path, spec: &ReplicaSpec) -> Result<()> {
    let failed = |e: io::Error| host(format_args!("cannot empty {}", spec.id), e);
    for below in [upper(folder), work(folder)] {
        state::remove_tree(&below).map_err(failed)?;
    }
    disk::remove(folder).map_err(failed)?;
    prepare(core, folder, spec)
}

/// Starts the replica's process. Blocks for some milliseconds.
pub fn start(core: &Core, replica: &Replica) -> Result<Running> {
    let spec = replica.inner().spec.clone().ok_or_else(|| {
        RuntimeError::new(ErrorKind::Invalid, format!("the description of {} is damaged", replica.id))
            .hint("remove the replica and create it again")
    })?;
    clear_previous(core, replica)?;
    let attempt = Attempt::prepare(core, replica, &spec)?;
    let result = attempt.run();
    if result.is_err() {
        attempt.undo();
    }
    result
}

/// Removes what an earlier process of the replica left, so that a start is the same each time.
fn clear_previous(core: &Core, replica: &Replica) -> Result<()> {
    let interfaces = std::mem::take(&mut replica.inner().interfaces);
    if !interfaces.is_empty() {
        core.fabric.remove(&interfaces).map_err(|e| host("cannot remove old interfaces", e))?;
    }
    Ok(())
}

/// Mounts the writable layer, if it has a limit.
fn open_disk(core: &Core, replica: &Replica, spec: &ReplicaSpec) -> Result<Option<Disk>> {
    if core.disk_limit(spec).is_none() {
        return Ok(None);
    }
    if state::read_life(&replica.folder).is_some_and(|life| life.boot != core.boot) {
        disk::repair(&replica.folder)?;
    }
    let failed = |e: io::Error| host(format_args!("cannot mount the writable layer of {}", spec.id), e);
    disk::open(&replica.folder).map(Some).map_err(failed)
}

struct Attempt<'a> {
    core: &'a Core,
    replica: &'a Replica,
    spec: &'a ReplicaSpec,
    networks: Vec<NetworkSpec>,
    legs: Vec<Leg>,
    started_at: SystemTime,
    group: Option<crate::cgroup::Group>,
    disk: Option<Disk>,
}

impl<'a> Attempt<'a> {
    fn prepare(core: &'a Core, replica: &'a Replica, spec: &'a ReplicaSpec) -> Result<Self> {
        if let Some((core, online)) = spec.resources.cores.and_then(missing_core) {
            let message = format!("cannot start {}: this host has no core {core} (cpuset)", spec.id);
            return Err(RuntimeError::new(ErrorKind::Invalid, message).hint(format!("it has {online}")));
        }
        let networks =
            spec.networks.iter().map(|leg| core.network(&leg.network)).collect::<Result<Vec<_>>>()?;
        let started_at = SystemTime::now();
        let moment = started_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
        let attached = if core.contained() { spec.networks.as_slice() } else { &[] };
        let node = spec.node.as_deref().map(|name| core.nodes.on(&spec.id.project, name));
        let legs = (0..)
            .zip(attached.iter().zip(&networks))
            .map(|(number, (leg, network))| Leg {
                network: network.clone(),
                address: leg.address,
                number,
                pair: pair_name(&spec.id.to_string(), &network.name, moment),
                node: node.clone(),
            })
            .collect();
        let group = core.cgroups.group_on(&spec.id.project, spec.node.as_deref(), &spec.id.name());
        let disk = open_disk(core, replica, spec)?;
        Ok(Attempt { core, replica, spec, networks, legs, started_at, group, disk })
    }

    /// Where the folders of the writable layer are for this process.
    fn layer(&self) -> PathBuf {
        self.disk.as_ref().map_or_else(|| self.replica.folder.clone(), Disk::folder)
    }

    fn run(&self) -> Result<Running> {
        if !self.core.contained() {
            return self.run_process();
        }
        let spec = self.spec;
        let layers = Layers::new(Some(&upper(&self.layer())), &spec.root.layers);
        let identity = self.core.ground.identity(&spec.process.user, &spec.sandbox.groups, &layers)?;
        self.write_files(&identity)?;
        if let Some(group) = &self.group {
            group
                .create(&self.core.limits(spec))
                .map_err(|e| host(format_args!("cannot limit {}", spec.id), e))?;
        }
        let sys = self.shared_sys()?;
        let view = if sys.is_some() { Sys::Shared } else { Sys::Own };
        let namespaces = NAMESPACES | plan::user_namespace(&identity);
        let mut job = self.core.ground.job(namespaces, self.ops(&identity, view)?);
        job.brought[SHARED_SYS] = sys.map(Arc::new);
        job.brought[DISK] = self.brought_disk()?;
        if spec.sandbox.init {
            job.brought[INIT] = Some(core_init(self.core)?);
        }
        let starting = self.core.spawner.spawn(job).map_err(|failure| self.explain(&[], failure, &layers))?;
        let job = starting.job();
        let assisted = self.assist(&starting);
        let (pid, ports) = match assisted {
            Ok(named) => named,
            // If the child has failed, its reason is the true one; ours only follows from it.
            Err(error) if !starting.has_failed() => return Err(error),
            Err(_) => (0, vec![]),
        };
        let (_, pidfd) = starting.finish().map_err(|failure| self.explain(&job.ops, failure, &layers))?;
        let settled = self.core.fabric.settle(&ports);
        self.executed(pid, pidfd, settled)
    }

    /// The program runs. What fails now ends it, for nobody would know of it.
    fn executed(&self, pid: u32, pidfd: OwnedFd, settled: io::Result<()>) -> Result<Running> {
        if let Err(error) = settled.and_then(|()| state::begun_is_life(&self.replica.folder)) {
            if crate::exec::send(&pidfd, libc::SIGKILL).is_ok() {
                crate::spawn::reap(&pidfd);
            }
            return Err(host(format_args!("cannot connect {}", self.spec.id), error));
        }
        Ok(Running { pid, started_at: self.started_at, pidfd: Arc::new(pidfd) })
    }

    fn open_log(&self) -> Result<File> {
        let path = self.replica.folder.join(LOG);
        OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)
            .map_err(|e| host(format_args!("cannot open the log of {}", self.spec.id), e))
    }

    /// The pipe for an input that stays open, if it is to.
    fn open_input(&self) -> Result<Option<Op>> {
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        if !self.spec.sandbox.stdin_open {
            return Ok(None);
        }
        let pipe = self.replica.folder.join(INPUT);
        match mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0) {
            // Of an earlier start.
            Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(Some(Op::OpenInput { pipe: text(&pipe)? })),
            Err(error) => Err(host(format_args!("cannot make the input of {}", self.spec.id), error)),
        }
    }

    fn limit(&self) -> Result<()> {
        let Some(group) = &self.group else { return Ok(()) };
        group
            .create(&self.core.limits(self.spec))
            .map_err(|e| host(format_args!("cannot limit {}", self.spec.id), e))
    }

    /// Without namespaces: see [`crate::process`].
    fn run_process(&self) -> Result<Running> {
        let (spec, folder) = (self.spec, &self.replica.folder);
        self.open_log()?;
        self.limit()?;
        let lists = self.group.as_ref().map(|g| g.lists(&self.core.limits(spec))).unwrap_or_default();
        let mut ops = self.core.loopback_ops(spec)?;
        ops.push(Op::OwnDescriptors);
        ops.extend(plan::beginning(&lists)?);
        ops.push(Op::Output { log: text(folder.join(LOG))? });
        ops.extend(self.open_input()?);
        ops.push(Op::AwaitGo);
        ops.extend(crate::process::ending(&self.core.ground, spec, &spec.process)?);
        let layers = Layers::new(None, &spec.root.layers);
        let starting =
            self.core.spawner.spawn(Job::new(0, ops)).map_err(|f| self.explain(&[], f, &layers))?;
        let job = starting.job();
        let assisted = self.core.give_loopback(&starting, spec).and_then(|()| self.assist(&starting));
        match assisted {
            Err(error) if !starting.has_failed() => return Err(error),
            _ => {}
        }
        let (pid, pidfd) = starting.finish().map_err(|f| self.explain(&job.ops, f, &layers))?;
        self.executed(pid, pidfd, Ok(()))
    }

    /// The parent's part while the child is under way: its record on disk and its interfaces.
    fn assist(&self, starting: &Starting) -> Result<(u32, Vec<u32>)> {
        let failed = |e: io::Error| host(format_args!("cannot start {}", self.spec.id), e);
        let pid = match starting.pid() {
            Ok(named) => named,
            // The process' record cannot be read, for want of descriptors say: it must not go on unrecorded.
            Err(error) if error.raw_os_error().is_some() => return Err(failed(error)),
            // It has failed already; `finish` says why.
            Err(_) => return Ok((0, vec![])),
        };
        let ticks = state::start_ticks(pid).unwrap_or(0);
        let interfaces = self.interfaces();
        let generation = {
            let mut inner = self.replica.inner();
            inner.interfaces.clone_from(&interfaces);
            inner.generation
        };
        let life = Life {
            generation,
            boot: self.core.boot.clone(),
            pid,
            ticks,
            started_at: self.started_at,
            interfaces,
            end: None,
        };
        state::write_begun(&self.replica.folder, &life).map_err(failed)?;
        let mut ports = Vec::new();
        for leg in &self.legs {
            let port = self.core.fabric.attach(leg, pid).map_err(|e| {
                host(format_args!("cannot attach {} to {}", self.spec.id, leg.network.name), e)
            })?;
            ports.extend(port);
        }
        Ok((pid, ports))
    }

    /// Names of interfaces on the host's side.
    fn interfaces(&self) -> Vec<String> {
        match self.core.fabric.links_are() {
            Links::Macvlans => vec![],
            Links::Pairs => self.legs.iter().map(|leg| leg.pair.clone()).collect(),
        }
    }

    fn brought_disk(&self) -> Result<Option<Arc<OwnedFd>>> {
        let Some(disk) = &self.disk else { return Ok(None) };
        let copy = disk.mount.try_clone();
        copy.map(|fd| Some(Arc::new(fd))).map_err(|e| host(format_args!("cannot start {}", self.spec.id), e))
    }

    /// An ordinary user may mount nothing outside the replica.
    fn shared_sys(&self) -> Result<Option<OwnedFd>> {
        if self.core.ground.rootless {
            return Ok(None);
        }
        let shared = self.core.fabric.shared_sys();
        shared.map(Some).map_err(|e| host(format_args!("cannot mount /sys for {}", self.spec.id), e))
    }

    fn ops(&self, identity: &Identity, sys: Sys) -> Result<Vec<Op>> {
        let (core, spec, folder) = (self.core, self.spec, &self.replica.folder);
        let lists = self.group.as_ref().map(|g| g.lists(&self.core.limits(spec))).unwrap_or_default();
        let mut ops = vec![Op::OwnDescriptors];
        ops.extend(plan::map_user(identity)?);
        ops.extend(plan::beginning(&lists)?);
        ops.extend(confine::oom_score(&spec.sandbox)?);
        ops.push(Op::Output { log: text(folder.join(LOG))? });
        ops.extend(self.open_input()?);
        let cgroup2 = self.group.as_ref().is_some_and(|g| g.is_v2());
        if cgroup2 {
            ops.push(Op::Unshare(libc::CLONE_NEWCGROUP));
        }
        let point = self.disk.is_some().then(|| disk::point(folder));
        let layer = point.as_deref().unwrap_or(folder);
        let root = Root {
            layers: &spec.root.layers,
            disk: point.as_deref(),
            upper: &upper(layer),
            work: &work(layer),
            mount_point: &core.store.mount_point(),
            skeleton: Some(&core.store.skeleton()),
            read_only: spec.root.read_only,
            volatile: true,
            mounts: &spec.mounts,
            private: &|number| private(folder, number),
            sys,
            sandbox: &spec.sandbox,
            cgroup2,
        };
        let confinement = Confinement::new(&core.ground, &spec.sandbox)?;
        ops.extend(plan::root(&core.ground, &root)?);
        ops.push(Op::HostName(spec.hostname.as_bytes().to_vec()));
        ops.push(Op::AwaitGo);
        let (batch, requests) = legs_up(&self.legs);
        ops.push(Op::NetworkUp { batch, requests });
        if !self.legs.is_empty() {
            let (batch, requests) = legs_addressed(&self.legs);
            ops.push(Op::Network { batch, requests });
        }
        ops.extend(plan::ending(&confinement, &spec.process, identity, &spec.hostname, spec.sandbox.init)?);
        Ok(ops)
    }

    /// The log, and the three files about names. They lie in the writable layer: as bind mounts, which Docker uses,
    /// they would cost three mounts for each replica.
    fn write_files(&self, identity: &Identity) -> Result<()> {
        let (spec, layer) = (self.spec, self.layer());
        let failed = |e: io::Error| self.cannot_prepare(e);
        // Overlayfs leaves this mark in a volatile layer and refuses to use it again after a crash of the host; here the
        // host is the same, or nothing of the replica is expected to have survived.
        state::remove_tree(&work(&layer).join("work/incompat")).map_err(failed)?;
        let log = self.open_log()?;
        // A program may open /dev/stdout anew, as itself.
        if !identity.apart {
            fchown(&log, Some(identity.uid), Some(identity.gid)).map_err(failed)?;
        }
        let own = spec.networks.first().map(|leg| leg.address);
        let gateway = self.networks.first().map(|network| network.gateway);
        let hosts = confine::hosts(&spec.sandbox, &spec.hostname, own, gateway);
        let resolver = confine::resolver(&spec.sandbox, gateway);
        let files =
            [("hosts", hosts), ("hostname", format!("{}\n", spec.hostname)), ("resolv.conf", resolver)];
        write_name_files(&upper(&layer), &spec.root.layers, &files).map_err(failed)
    }

    fn cannot_prepare(&self, error: io::Error) -> RuntimeError {
        let id = &self.spec.id;
        match (&self.disk, self.spec.resources.disk) {
            (Some(_), Some(bytes)) if error.kind() == io::ErrorKind::StorageFull => RuntimeError::new(
                ErrorKind::Host,
                format!("cannot start {id}: its writable layer of {bytes} bytes is full (storage_opt.size)"),
            )
            .hint("raise storage_opt.size of the service, or remove the replica to empty its layer"),
            _ => host(format_args!("cannot prepare {id}"), error),
        }
    }

    fn explain(&self, ops: &[Op], failure: Failure, layers: &Layers) -> RuntimeError {
        let who = self.spec.id.to_string();
        match failure.step.and_then(|step| ops.get(step)) {
            Some(Op::Execute(program)) => {
                let names: Vec<_> =
                    program.candidates.iter().map(|c| c.to_string_lossy().into_owned()).collect();
                not_executable(
                    &who,
                    &self.spec.process.args[0],
                    &self.spec.process.cwd,
                    &names,
                    failure,
                    layers,
                )
            }
            _ => failed_start(&who, ops, failure),
        }
    }

    /// After a failed start nothing of it is left but the replica as it was created.
    fn undo(&self) {
        if let Err(error) = self.core.fabric.remove(&self.interfaces()) {
            tracing::warn!("interfaces of {} are left: {error}", self.spec.id);
        }
        self.core.detach(self.replica);
        if let Some(Err(error)) = self.group.as_ref().map(|g| g.remove()) {
            tracing::warn!("the control group of {} is left: {error}", self.spec.id);
        }
        self.replica.inner().interfaces.clear();
        state::forget_begun(&self.replica.folder);
    }
}

/// The file of the first process that is ours, made when it is first needed.
fn core_init(core: &Core) -> Result<Arc<OwnedFd>> {
    if let Some(file) = core.init.get() {
        return Ok(file.clone());
    }
    let file = crate::sys::init::file().map_err(|e| host("cannot make the first process (init: true)", e))?;
    Ok(core.init.get_or_init(|| Arc::new(file)).clone())
}

/// Whether a process has a user namespace that is not the engine's.
pub fn in_own_user_namespace(pid: u32) -> bool {
    let namespace = |process: &str| fs::read_link(format!("/proc/{process}/ns/user"));
    match (namespace("self"), namespace(&pid.to_string())) {
        (Ok(ours), Ok(its)) => ours != its,
        // It has ended, and joining it will say so.
        _ => false,
    }
}

/// Writes the files into `etc` of the layer, unless the image's `/etc` is something else than a folder.
pub fn write_name_files(upper: &Path, layers: &[PathBuf], files: &[(&str, String)]) -> io::Result<()> {
    let below = Layers::new(None, layers);
    let etc = upper.join("etc");
    let is_folder = |path: &Path| fs::symlink_metadata(path).is_ok_and(|m| m.is_dir());
    match below.find("/etc") {
        Some(found) if !found.metadata.is_dir() => return Ok(()),
        // A link to a folder elsewhere: the files would have to follow it; the image keeps its own.
        Some(found) if !found.path.ends_with("etc") => return Ok(()),
        _ => {}
    }
    if !is_folder(&etc) {
        fs::create_dir(&etc)?;
        fs::set_permissions(&etc, fs::Permissions::from_mode(0o755))?;
    }
    for (name, content) in files {
        let path = etc.join(name);
        // Whatever the replica put there, a link out of its root included, must not be followed.
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&path)?;
        io::Write::write_all(&mut file, content.as_bytes())?;
        file.set_permissions(fs::Permissions::from_mode(0o644))?;
    }
    Ok(())
}

/// Says why a program cannot be executed, by looking at it.
pub fn not_executable(
    who: &str,
    name: &str,
    cwd: &str,
    candidates: &[String],
    failure: Failure,
    layers: &Layers,
) -> RuntimeError {
    let invalid = |what: String| RuntimeError::new(ErrorKind::Invalid, format!("cannot start {who}: {what}"));
    let absolute = |c: &String| if c.starts_with('/') { c.clone() } else { format!("{cwd}/{c}") };
    let found = candidates.iter().find_map(|c| layers.find(&absolute(c)).filter(|f| f.metadata.is_file()));
    let Some(found) = found else {
        return invalid(format!("there is no program {name:?} in the image"))
            .hint("check the command, the entrypoint and PATH; a file from a mount must exist on the host");
    };
    let mut header = [0u8; 20];
    let read = fs::File::open(&found.path).and_then(|mut f| f.read(&mut header)).unwrap_or(0);
    match failure.errno.0 {
        libc::EACCES => invalid(format!("{name:?} may not be executed by this user"))
            .hint("set its executable bit, as with chmod +x or COPY --chmod=755"),
        libc::ENOENT => invalid(format!("{name:?} is there but its interpreter or dynamic loader is not"))
            .hint("link the program statically, or use a base image that has the loader"),
        libc::ENOEXEC => match machine(&header[..read]) {
            Some(other) => {
                invalid(format!("{name:?} is built for {other}, this host is {}", std::env::consts::ARCH))
                    .hint("build or pull the image for this host's architecture")
            }
            None => invalid(format!("{name:?} is neither a program nor a script with #!"))
                .hint("start it through its interpreter, as in [\"/bin/sh\", \"script\"]"),
        },
        _ => invalid(format!("cannot execute {name:?}: {}", io::Error::from(failure.errno))),
    }
}

/// The architecture in an ELF header, if it is one.
fn machine(header: &[u8]) -> Option<String> {
    if !header.starts_with(b"\x7fELF") || header.len() < 20 {
        return None;
    }
    let bytes = [header[18], header[19]];
    let number = if header[5] == 2 { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) };
    // e_machine, from the ELF specification's register.
    let name = match number {
        3 => "x86 (32 bits)",
        8 => "mips",
        20 => "powerpc",
        21 => "powerpc64",
        22 => "s390x",
        40 => "arm (32 bits)",
        62 => "x86_64",
        183 => "aarch64",
        243 => "riscv64",
        258 => "loongarch64",
        _ => return Some(format!("machine number {number}")),
    };
    Some(name.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_are_read_from_their_headers() {
        let mut header = [0u8; 20];
        header[..6].copy_from_slice(b"\x7fELF\x02\x01");
        header[18] = 183;
        assert_eq!(machine(&header).as_deref(), Some("aarch64"));
        header[5] = 2;
        (header[18], header[19]) = (0, 22);
        assert_eq!(machine(&header).as_deref(), Some("s390x"));
        assert_eq!(machine(&header[..19]), None);
        assert_eq!(machine(b"#!/bin/sh"), None);
    }
}
