//! From a replica's description to the operations of its child.

use crate::child::{BLANK, DISK, Job, MAX_TREES, Mount, Op, Overlay, Program, SHARED_SYS};
use crate::confine::{self, Confinement};
use crate::layers::Layers;
use crate::sys::{BIND, Filter, NO_DEV, NO_EXEC, NO_SUID, PRIVATE, READ_ONLY, RECURSIVE, REMOUNT};
use crate::user::{self, IdMaps, Identity};
use std::ffi::{CString, OsStr};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use throng_model::replica::{Process, ResolvedMount, ResolvedSource};
use throng_model::sandbox::{Device, Sandbox};
use throng_runtime::{ErrorKind, RuntimeError};

/// Docker's default search path.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// `mount` takes one page of options, its end included.
const MAX_OPTIONS: usize = 4095;
/// Layers of one overlay (`OVL_MAX_STACK`).
const MAX_LAYERS: usize = 500;
/// Docker's default size for `/dev/shm`, which is a part of it.
const DEV_OPTIONS: &str = "mode=755,size=65536k";
/// The kernel kills replicas before their supervisor when the host itself runs out of memory.
const OOM_SCORE: &str = "100";

/// Docker's default capabilities, by their numbers in linux/capability.h: chown, dac_override, fowner, fsetid, kill,
/// setgid, setuid, setpcap, net_bind_service, net_raw, sys_chroot, audit_write, setfcap. Not mknod: Docker keeps nodes
/// that a container has made from being opened, by a list of devices for each; here nobody makes any, so that no disk of
/// the host is within reach. Pipes and sockets need no privilege.
pub const DEFAULT_CAPABILITIES: u64 = 1
    | 1 << 1
    | 1 << 3
    | 1 << 4
    | 1 << 5
    | 1 << 6
    | 1 << 7
    | 1 << 8
    | 1 << 10
    | 1 << 13
    | 1 << 18
    | 1 << 29
    | 1 << 31;

/// The place of the host's /sys among the trees, after those of the mounts.
const HOST_SYS: usize = MAX_TREES - 1;

/// Docker's default lists.
const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
const FROZEN: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The first port that needs no privilege (ip-sysctl in the kernel's documentation).
const ANY_PORT: &str = "/proc/sys/net/ipv4/ip_unprivileged_port_start";

/// Name, major, minor.
const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

/// What is the same for every replica of an engine.
#[derive(Debug)]
pub struct Ground {
    pub rootless: bool,
    pub filter: Arc<Filter>,
    /// [`DEFAULT_CAPABILITIES`] as far as this process has them itself.
    pub capabilities: u64,
    /// Those that this process has.
    pub own_capabilities: u64,
    /// Hard limit of open files.
    pub open_files: u64,
    /// Users that exist here.
    pub ids: IdMaps,
    /// What the mounts of a child are copied from ([`crate::blank`]); the host's own where there is none.
    pub blank: Option<Arc<OwnedFd>>,
}

impl Ground {
    /// A child with a root of its own ([`root`]) in namespaces of its own.
    pub fn job(&self, namespaces: i32, ops: Vec<Op>) -> Job {
        let Some(blank) = &self.blank else { return Job::new(namespaces | libc::CLONE_NEWNS, ops) };
        let mut job = Job::new(namespaces, ops);
        job.brought[BLANK] = Some(blank.clone());
        job
    }

    /// Who the process is to be, and whether that takes a user namespace of its own. It does for everybody but root
    /// where the engine's user is an ordinary one: all files of images and volumes are that user's then, and a program
    /// that has no privilege to change its id has no use for other ids.
    pub fn identity(&self, user: &str, groups: &[String], layers: &Layers) -> Outcome<Identity> {
        let identity = user::resolve(user, groups, layers)?;
        let apart = self.rootless && (identity.uid != 0 || !self.ids.hold(&identity));
        if apart && !groups.is_empty() {
            return Err(invalid("an ordinary user can give replicas no groups (group_add)".into())
                .hint("run as root, or remove group_add"));
        }
        Ok(Identity { apart, ..identity })
    }
}

/// Namespaces for a process of this identity, on top of others.
pub fn user_namespace(identity: &Identity) -> i32 {
    if identity.apart { libc::CLONE_NEWUSER } else { 0 }
}

/// First operations in a user namespace of a process' own: the engine's user, who is 0 outside, gets the id that is
/// asked for. A process may map its own ids itself, once groups cannot be changed any more (user_namespaces(7)).
pub fn map_user(identity: &Identity) -> Outcome<Vec<Op>> {
    if !identity.apart {
        return Ok(vec![]);
    }
    let write = |file: &str, data: String| -> Outcome<Op> {
        Ok(Op::Write { path: text(format!("/proc/self/{file}"))?, data: data.into() })
    };
    Ok(vec![
        write("setgroups", "deny".into())?,
        write("uid_map", format!("{} 0 1", identity.uid))?,
        write("gid_map", format!("{} 0 1", identity.gid))?,
    ])
}

/// The file system of one replica or build step.
pub struct Root<'a> {
    /// Bottom first.
    pub layers: &'a [PathBuf],
    /// Where the file system that holds `upper` and `work` is to be mounted, which the job brings along as [`DISK`].
    pub disk: Option<&'a Path>,
    pub upper: &'a Path,
    pub work: &'a Path,
    /// An empty folder; the overlay appears there, in the child's namespace only.
    pub mount_point: &'a Path,
    /// Lies under the layers.
    pub skeleton: Option<&'a Path>,
    pub read_only: bool,
    /// Leaves out flushing to the device when the last process ends: the writable layer need not outlive the host's
    /// own life.
    pub volatile: bool,
    pub mounts: &'a [ResolvedMount],
    /// Folder of the n-th `Private` mount.
    pub private: &'a dyn Fn(usize) -> PathBuf,
    pub sys: Sys,
    pub sandbox: &'a Sandbox,
    /// A v2 group tree is to be seen at /sys/fs/cgroup.
    pub cgroup2: bool,
}

/// Where a /sys comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sys {
    /// The process stays in the host's own network namespace, so the host's view is bound.
    Host,
    /// The view that all replicas share, which the job brings along ([`crate::sysfs`]).
    Shared,
    /// A view of its own.
    Own,
}

pub type Outcome<T> = Result<T, RuntimeError>;

fn invalid(message: String) -> RuntimeError {
    RuntimeError::new(ErrorKind::Invalid, message)
}

pub fn text(value: impl AsRef<OsStr>) -> Outcome<CString> {
    let bytes = value.as_ref().as_bytes();
    CString::new(bytes)
        .map_err(|_| invalid(format!("{:?} contains a zero byte", String::from_utf8_lossy(bytes))))
}

pub fn mount(source: &str, target: impl AsRef<OsStr>, kind: &str, flags: u64, data: &str) -> Outcome<Op> {
    Ok(Op::Mount(Mount {
        source: text(source)?,
        target: text(target)?,
        kind: text(kind)?,
        flags,
        data: if data.is_empty() { None } else { Some(text(data)?) },
    }))
}

/// First operations of every child that is not an `exec`: its own descriptors, its groups, its session.
pub fn beginning(lists: &[PathBuf]) -> Outcome<Vec<Op>> {
    let mut ops = vec![Op::DieWithParent(true), Op::NewSession, Op::DefaultSignals, Op::Umask(0)];
    for list in lists {
        ops.push(Op::Write { path: text(list)?, data: b"0".to_vec() });
    }
    ops.push(Op::Write { path: text("/proc/self/oom_score_adj")?, data: OOM_SCORE.into() });
    Ok(ops)
}

/// Mounts the root with everything in it and changes into it.
pub fn root(ground: &Ground, root: &Root<'_>) -> Outcome<Vec<Op>> {
    let mut ops = Vec::new();
    if ground.blank.is_some() && root.disk.is_some() {
        ops.push(Op::Unshare(libc::CLONE_NEWNS));
    }
    if ground.blank.is_none() || root.disk.is_some() {
        // Nothing of what follows may reach the host, whatever its mounts' propagation.
        ops.push(mount("none", "/", "", RECURSIVE | PRIVATE, "")?);
    }
    if let Some(target) = root.disk {
        // Overlayfs holds it from here on, wherever the child goes.
        ops.push(Op::AttachBrought { place: DISK, target: text(target)? });
    }
    ops.push(match &ground.blank {
        Some(_) => Op::Overlay(overlay(root)?),
        None => mount("overlay", root.mount_point, "overlay", NO_DEV, &overlay_options(ground, root)?)?,
    });
    let mounts = [root.mounts, device_mounts(&root.sandbox.devices)?.as_slice()].concat();
    let trees = take_trees(ground, root, &mounts, &mut ops)?;
    if root.sys == Sys::Host {
        ops.push(Op::Take { tree: HOST_SYS, path: text("/sys")?, recursive: true });
    }
    ops.push(match &ground.blank {
        Some(_) => Op::EnterBlank,
        None => Op::EnterRoot { path: text(root.mount_point)? },
    });
    kernel_file_systems(root, &mut ops)?;
    devices(ground, root.sandbox.shm_size, &mut ops)?;
    for (tree, mount) in trees.iter().zip(&mounts) {
        user_mount(*tree, mount, &mut ops)?;
    }
    // Empty, once the overlay has become the root. A file system of their own for each would be four for each replica.
    let empty = match &ground.blank {
        Some(_) => text(".")?,
        None => text(root.mount_point.strip_prefix("/").unwrap_or(root.mount_point))?,
    };
    for path in MASKED {
        ops.push(Op::Mask { path: text(path)?, empty: empty.clone() });
    }
    for path in FROZEN {
        ops.push(Op::Freeze { path: text(path)? });
    }
    if ground.blank.is_none() {
        ops.push(Op::LeaveOldRoot);
    }
    if root.read_only {
        ops.push(Op::ReadOnly { path: text("/")?, recursive: false });
    }
    Ok(ops)
}

/// Devices of the host are its own nodes, at their places: whoever may open them there may do so here. There are no rules
/// for each replica that could hold it to less.
fn device_mounts(devices: &[Device]) -> Outcome<Vec<ResolvedMount>> {
    use std::os::unix::fs::FileTypeExt;
    let mount = |device: &Device| {
        let path = device.source.display();
        if !["r", "w"].iter().all(|letter| device.permissions.contains(letter)) {
            let message = format!("{path} cannot be given with {:?} alone", device.permissions);
            return Err(invalid(message).hint("write rwm under devices, or use --on docker"));
        }
        let found = std::fs::metadata(&device.source).map(|found| found.file_type());
        let is_device =
            |kind: std::fs::FileType| kind.is_dir() || kind.is_char_device() || kind.is_block_device();
        match found {
            Ok(kind) if is_device(kind) => Ok(ResolvedMount {
                source: ResolvedSource::Bind(device.source.clone()),
                target: device.target.clone(),
                read_only: false,
            }),
            Ok(_) => Err(invalid(format!("{path} is no device")).hint("mount files under volumes")),
            Err(error) => Err(invalid(format!("there is no device {path}: {error}"))
                .hint("name a device of this host under devices")),
        }
    };
    devices.iter().map(mount).collect()
}

fn overlay(root: &Root<'_>) -> Outcome<Overlay> {
    let layers = root.layers.iter().rev().map(PathBuf::as_path).chain(root.skeleton);
    let mut lower = layers.map(text).collect::<Outcome<Vec<_>>>()?;
    if lower.is_empty() {
        // An image without layers still needs a lower folder; the mount point is empty.
        lower.push(text(root.mount_point)?);
    }
    if lower.len() > MAX_LAYERS {
        return Err(invalid(format!("{} layers; the kernel takes {MAX_LAYERS}", lower.len()))
            .hint("use an image with fewer layers"));
    }
    Ok(Overlay { lower, upper: text(root.upper)?, work: text(root.work)?, volatile: root.volatile })
}

fn overlay_options(ground: &Ground, root: &Root<'_>) -> Outcome<String> {
    let escape = |path: &Path| -> Outcome<String> {
        let path = path.to_str().ok_or_else(|| invalid(format!("{} is not UTF-8", path.display())))?;
        Ok(path.replace('\\', "\\\\").replace(':', "\\:").replace(',', "\\,"))
    };
    let layers = root.layers.iter().rev().map(PathBuf::as_path).chain(root.skeleton);
    let lower = layers.map(&escape).collect::<Outcome<Vec<_>>>()?;
    // An image without layers still needs a lower folder; the mount point is empty.
    let lower = if lower.is_empty() { escape(root.mount_point)? } else { lower.join(":") };
    let mut options =
        format!("lowerdir={lower},upperdir={},workdir={}", escape(root.upper)?, escape(root.work)?);
    for (wanted, option) in [(root.volatile, ",volatile"), (ground.rootless, ",userxattr")] {
        if wanted {
            options.push_str(option);
        }
    }
    if options.len() > MAX_OPTIONS {
        let count = root.layers.len();
        return Err(invalid(format!(
            "{count} layers need {} bytes of mount options; the kernel takes {MAX_OPTIONS}",
            options.len()
        ))
        .hint("use an image with fewer layers, or a shorter state folder"));
    }
    Ok(options)
}

/// Takes hold of everything that comes from the host, before the root changes. One entry for each of the mounts,
/// then the device nodes where they cannot be made.
fn take_trees(
    ground: &Ground,
    root: &Root<'_>,
    mounts: &[ResolvedMount],
    ops: &mut Vec<Op>,
) -> Outcome<Vec<Option<usize>>> {
    let mut next = if ground.rootless { DEVICES.len() } else { 0 };
    if ground.rootless {
        for (tree, (name, ..)) in DEVICES.iter().enumerate() {
            ops.push(Op::Take { tree, path: text(format!("/dev/{name}"))?, recursive: false });
        }
    }
    let mut trees = Vec::new();
    for (number, mount) in mounts.iter().enumerate() {
        let source = match &mount.source {
            ResolvedSource::Bind(path) => Some(path.clone()),
            ResolvedSource::Private => Some((root.private)(number)),
            ResolvedSource::Tmpfs { .. } => None,
        };
        let Some(source) = source else {
            trees.push(None);
            continue;
        };
        if next >= HOST_SYS {
            return Err(invalid(format!("more than {HOST_SYS} mounts")).hint("mount a parent folder instead"));
        }
        ops.push(Op::Take { tree: next, path: text(&source)?, recursive: true });
        trees.push(Some(next));
        next += 1;
    }
    Ok(trees)
}

fn kernel_file_systems(root: &Root<'_>, ops: &mut Vec<Op>) -> Outcome<()> {
    let strict = NO_SUID | NO_DEV | NO_EXEC;
    for folder in ["/proc", "/sys", "/dev"] {
        ops.push(Op::Directory { path: text(folder)?, mode: 0o755 });
    }
    ops.push(mount("proc", "/proc", "proc", strict, "")?);
    if root.sys == Sys::Host {
        ops.push(Op::Attach { tree: HOST_SYS, target: text("/sys")? });
        ops.push(Op::ReadOnly { path: text("/sys")?, recursive: true });
        return Ok(());
    }
    ops.push(match root.sys {
        Sys::Shared => Op::AttachBrought { place: SHARED_SYS, target: text("/sys")? },
        _ => mount("sysfs", "/sys", "sysfs", strict | READ_ONLY, "")?,
    });
    // As in Docker: in a network of its own a program needs no privilege for any port.
    ops.push(Op::Write { path: text(ANY_PORT)?, data: b"0".to_vec() });
    ops.extend(confine::kernel_files(root.sandbox)?);
    if root.cgroup2 {
        ops.push(mount("cgroup", "/sys/fs/cgroup", "cgroup2", strict | READ_ONLY, "")?);
    }
    Ok(())
}

fn devices(ground: &Ground, shm_size: Option<u64>, ops: &mut Vec<Op>) -> Outcome<()> {
    ops.push(mount("tmpfs", "/dev", "tmpfs", NO_SUID, DEV_OPTIONS)?);
    for (tree, (name, major, minor)) in DEVICES.iter().enumerate() {
        let path = text(format!("/dev/{name}"))?;
        if ground.rootless {
            ops.push(Op::EmptyFile { path: path.clone() });
            ops.push(Op::Attach { tree, target: path });
        } else {
            let device = rustix::fs::makedev(*major, *minor);
            ops.push(Op::Node { path, mode: libc::S_IFCHR | 0o666, device });
        }
    }
    for (folder, mode) in [("/dev/pts", 0o755), ("/dev/shm", 0o1777), ("/dev/mqueue", 0o755)] {
        ops.push(Op::Directory { path: text(folder)?, mode });
    }
    // Group 5 is tty by convention; in a user namespace it may not exist.
    let pts = if ground.rootless {
        "newinstance,ptmxmode=0666,mode=0620"
    } else {
        "newinstance,ptmxmode=0666,mode=0620,gid=5"
    };
    ops.push(mount("devpts", "/dev/pts", "devpts", NO_SUID | NO_EXEC, pts)?);
    let strict = NO_SUID | NO_DEV | NO_EXEC;
    match shm_size {
        Some(bytes) => {
            ops.push(mount("tmpfs", "/dev/shm", "tmpfs", strict, &format!("mode=1777,size={bytes}"))?);
        }
        None => {
            // In the same file system as /dev, which is one less for each replica.
            ops.push(mount("/dev/shm", "/dev/shm", "", BIND, "")?);
            ops.push(mount("none", "/dev/shm", "", REMOUNT | BIND | strict, "")?);
        }
    }
    ops.push(mount("mqueue", "/dev/mqueue", "mqueue", strict, "")?);
    for (path, target) in [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
        ("/dev/ptmx", "pts/ptmx"),
    ] {
        ops.push(Op::Symlink { path: text(path)?, target: text(target)? });
    }
    Ok(())
}

fn user_mount(tree: Option<usize>, wanted: &ResolvedMount, ops: &mut Vec<Op>) -> Outcome<()> {
    let target = &wanted.target;
    if !target.starts_with('/') || target == "/" {
        return Err(invalid(format!("{target:?} is not a place to mount something"))
            .hint("write an absolute path below /"));
    }
    let file = matches!(&wanted.source, ResolvedSource::Bind(path) if !path.is_dir());
    let folder = if file { Path::new(target).parent().unwrap_or(Path::new("/")) } else { Path::new(target) };
    folders(folder, ops)?;
    if file {
        ops.push(Op::EmptyFile { path: text(target)? });
    }
    match (tree, &wanted.source) {
        (Some(tree), _) => ops.push(Op::Attach { tree, target: text(target)? }),
        (None, ResolvedSource::Tmpfs { size, mode }) => {
            let size = size.map(|bytes| format!(",size={bytes}")).unwrap_or_default();
            let options = format!("mode={:o}{size}", mode.unwrap_or(0o1777));
            ops.push(mount("tmpfs", target, "tmpfs", NO_SUID | NO_DEV | NO_EXEC, &options)?);
        }
        (None, _) => {}
    }
    if wanted.read_only {
        ops.push(Op::ReadOnly { path: text(target)?, recursive: true });
    }
    Ok(())
}

/// Makes the folder and its parents, where they are missing.
fn folders(path: &Path, ops: &mut Vec<Op>) -> Outcome<()> {
    let mut parents: Vec<&Path> = path.ancestors().filter(|p| *p != Path::new("/")).collect();
    parents.reverse();
    for parent in parents {
        ops.push(Op::Directory { path: text(parent)?, mode: 0o755 });
    }
    Ok(())
}

/// Drops what the program must not have, and executes it.
pub fn ending(
    confinement: &Confinement,
    process: &Process,
    identity: &Identity,
    host_name: &str,
    init: bool,
) -> Outcome<Vec<Op>> {
    let cwd = if process.cwd.is_empty() { "/" } else { &process.cwd };
    let mut ops = Vec::new();
    folders(Path::new(cwd), &mut ops)?;
    ops.extend(confinement.limit_ops());
    ops.push(Op::Umask(0o022));
    ops.extend(restrictions(confinement, identity));
    ops.push(Op::ChangeDirectory { path: text(cwd)? });
    ops.push(Op::DieWithParent(false));
    let program = program(process, identity, host_name)?;
    ops.push(match init {
        true => Op::ExecuteInit(program.under_init(strings(&process.args)?)),
        false => Op::Execute(program),
    });
    Ok(ops)
}

/// Capabilities, user and system calls. The order is forced: dropping from the bounding set and changing ids need
/// capabilities, and the filter forbids neither `execve` nor `prctl`.
pub fn restrictions(confinement: &Confinement, identity: &Identity) -> Vec<Op> {
    let kept = if identity.uid == 0 { confinement.capabilities } else { 0 };
    let mut ops = vec![Op::BoundCapabilities(confinement.capabilities)];
    if !identity.apart {
        let (uid, gid, groups) = (identity.uid, identity.gid, identity.groups.clone());
        ops.push(Op::User { uid, gid, groups });
    }
    ops.extend([Op::SetCapabilities(kept), Op::NoNewPrivileges]);
    ops.extend(confinement.filter.clone().map(Op::Filter));
    ops
}

/// The vectors for `execve`.
pub fn program(process: &Process, identity: &Identity, host_name: &str) -> Outcome<Program> {
    let name = process.args.first().filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| {
        invalid("there is no program to run".into())
            .hint("give the image an ENTRYPOINT or CMD, or the service a command")
    })?;
    let environment = environment(&process.env, identity, host_name);
    let candidates = strings(&candidates(name, &environment))?;
    program_at(candidates, process, identity, host_name)
}

/// As [`program`], with the paths to try already known.
pub fn program_at(
    candidates: Vec<CString>,
    process: &Process,
    identity: &Identity,
    host_name: &str,
) -> Outcome<Program> {
    let environment = environment(&process.env, identity, host_name);
    Ok(Program::new(candidates, strings(&process.args)?, strings(&environment)?))
}

fn strings(list: &[String]) -> Outcome<Vec<CString>> {
    list.iter().map(text).collect()
}

/// The given variables and those that Docker adds where they are missing.
fn environment(given: &[String], identity: &Identity, host_name: &str) -> Vec<String> {
    let mut environment = given.to_vec();
    for (key, value) in [("PATH", DEFAULT_PATH), ("HOSTNAME", host_name), ("HOME", &identity.home)] {
        if !value.is_empty() && !environment.iter().any(|e| e.split('=').next() == Some(key)) {
            environment.push(format!("{key}={value}"));
        }
    }
    environment
}

/// Where the program may be: itself if it has a slash, in the folders of PATH otherwise.
pub fn candidates(name: &str, environment: &[String]) -> Vec<String> {
    if name.contains('/') {
        return vec![name.to_owned()];
    }
    let path = environment.iter().find_map(|e| e.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    path.split(':')
        .map(|folder| if folder.is_empty() { format!("./{name}") } else { format!("{folder}/{name}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_searched_as_a_shell_does() {
        let env = ["A=1".to_owned(), "PATH=/a::/b".to_owned()];
        assert_eq!(candidates("x", &env), ["/a/x", "./x", "/b/x"]);
        assert_eq!(candidates("./x", &env), ["./x"]);
        assert_eq!(candidates("/x", &[]), ["/x"]);
        assert_eq!(candidates("x", &[]).len(), DEFAULT_PATH.split(':').count());
    }

    #[test]
    fn missing_variables_are_added_and_given_ones_kept() {
        let identity = Identity { home: "/root".into(), ..Identity::default() };
        let env = environment(&["HOME=/h".to_owned()], &identity, "web-1");
        assert_eq!(env, ["HOME=/h", &format!("PATH={DEFAULT_PATH}"), "HOSTNAME=web-1"]);
    }

    #[test]
    fn what_cannot_be_a_c_string_or_a_program_is_refused() {
        let identity = Identity::default();
        for args in [vec![], vec![String::new()], vec!["a\0b".to_owned()]] {
            let process = Process { args, ..Process::default() };
            assert!(program(&process, &identity, "h").is_err());
        }
    }
}
