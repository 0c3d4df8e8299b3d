//! What happens between `clone` and `execve`: a list of operations prepared by the parent, carried out in order.
//!
//! The child is made with `CLONE_VM | CLONE_VFORK`: it borrows the supervisor's memory, so its cost does not grow
//! with the supervisor, and the one thread that made it sleeps until the child has executed its program or ended.
//! (`CLONE_VFORK` matters beyond speed: the kernel neither chooses such a child as an out-of-memory victim, which
//! would take the supervisor along, nor spreads its `oom_score_adj` to it.) The rules that keep this sound:
//!
//! - everything the child reads is in [`Job`], which outlives it because the thread that owns it is asleep;
//! - the child writes nothing but [`Report`] (atomics) and its own stack;
//! - it allocates nothing, takes no lock, and only makes system calls;
//! - all signals are blocked in the spawning thread, so no handler of the supervisor runs in the child.

use crate::sys::{self, Errno};
use std::ffi::{CStr, CString, c_char};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};
use std::time::Duration;

/// Trees of mounts that one replica can bring along: bind mounts and device nodes.
pub const MAX_TREES: usize = 128;

/// How long an earlier process' namespace may take to disappear. The kernel takes them down one batch after another:
/// for thousands at once it needs seconds.
pub const BUSY_TRIES: u32 = 6_000;
pub const BUSY_PAUSE: Duration = Duration::from_millis(5);

/// What a job can bring along, by its place in [`Job::brought`].
pub const SHARED_SYS: usize = 0;
pub const BLANK: usize = 1;
pub const DISK: usize = 2;
pub const INIT: usize = 3;
pub const MAX_BROUGHT: usize = 4;

/// One system call, or a few that belong together. Paths are the host's before [`Op::EnterRoot`] or [`Op::EnterBlank`],
/// the replica's after.
#[derive(Debug)]
pub enum Op {
    /// Gives the child a descriptor table of its own that holds 0, 1 and 2 only, and what the job brings along until
    /// `execve`.
    OwnDescriptors,
    /// As above, but 0, 1 and 2 become these.
    TakeDescriptors([i32; 3]),
    /// The kernel kills the child when the spawning thread ends (`true`), or no longer does (`false`).
    DieWithParent(bool),
    NewSession,
    /// `execve` keeps ignored signals ignored; a program expects the defaults.
    DefaultSignals,
    Write {
        path: CString,
        data: Vec<u8>,
    },
    /// Standard input from `/dev/null`, output and errors appended to the file.
    Output {
        log: CString,
    },
    /// Standard input from a pipe that never ends, since the child holds both of its ends.
    OpenInput {
        pipe: CString,
    },
    Unshare(i32),
    /// Joins namespaces of the process behind the descriptor.
    Join {
        pidfd: i32,
        flags: i32,
    },
    Mount(Mount),
    /// Makes the root of a child that will [`Op::EnterBlank`]; it is attached nowhere before.
    Overlay(Overlay),
    /// Takes hold of a host path, to be attached inside the new root by [`Op::Attach`]. What is mounted below it there
    /// stays there.
    Take {
        tree: usize,
        path: CString,
        recursive: bool,
    },
    Attach {
        tree: usize,
        target: CString,
    },
    /// Attaches the mount that the job brings along in that place.
    AttachBrought {
        place: usize,
        target: CString,
    },
    Directory {
        path: CString,
        mode: u32,
    },
    EmptyFile {
        path: CString,
    },
    Node {
        path: CString,
        mode: u32,
        device: u64,
    },
    Symlink {
        path: CString,
        target: CString,
    },
    /// Hides a file behind `/dev/null` and a folder behind an empty one of the old root (its path from there); a missing
    /// path is fine.
    Mask {
        path: CString,
        empty: CString,
    },
    /// Makes a path read-only where it is; a missing path is fine.
    Freeze {
        path: CString,
    },
    /// Makes a mount read-only, with those below it if `recursive`.
    ReadOnly {
        path: CString,
        recursive: bool,
    },
    /// Makes the folder the root; the old root stays reachable by its descriptor only.
    EnterRoot {
        path: CString,
    },
    LeaveOldRoot,
    /// Leaves the host's mounts for a copy of the namespace that the job brings along as [`BLANK`], and makes what
    /// [`Op::Overlay`] has made its root.
    EnterBlank,
    ChangeDirectory {
        path: CString,
    },
    HostName(Vec<u8>),
    /// Waits until the parent has done its part (interfaces, state on disk).
    AwaitGo,
    /// As [`Op::Network`], tried again for up to [`BUSY_TRIES`] times [`BUSY_PAUSE`] while an address is in use.
    NetworkUp {
        batch: Vec<u8>,
        requests: usize,
    },
    /// A batch of rtnetlink requests in the child's own network namespace, each asking for an acknowledgement.
    Network {
        batch: Vec<u8>,
        requests: usize,
    },
    Limit {
        resource: i32,
        soft: u64,
        hard: u64,
    },
    Umask(u32),
    /// Leaves only the capabilities of the mask in the bounding set.
    BoundCapabilities(u64),
    User {
        uid: u32,
        gid: u32,
        groups: Vec<u32>,
    },
    /// Permitted and effective become the mask; inheritable and ambient become empty.
    SetCapabilities(u64),
    NoNewPrivileges,
    Filter(Arc<sys::Filter>),
    /// Has `bind` and `connect` decided by a helper (see [`sys::notify`]). The listener lands in the report, and in the
    /// supervisor's own table of descriptors: this must come before the child gets one of its own.
    Notify {
        filter: Arc<sys::Filter>,
        helper: u32,
    },
    Execute(Program),
    /// Executes the first process that the job brings along as [`INIT`], with the arguments that it needs for the program.
    ExecuteInit(Program),
}

#[derive(Debug)]
pub struct Mount {
    pub source: CString,
    pub target: CString,
    pub kind: CString,
    pub flags: u64,
    pub data: Option<CString>,
}

/// An overlay by its folders.
#[derive(Debug)]
pub struct Overlay {
    /// Top first.
    pub lower: Vec<CString>,
    pub upper: CString,
    pub work: CString,
    pub volatile: bool,
}

/// The paths to try, and the vectors that `execve` wants.
#[derive(Debug)]
pub struct Program {
    pub candidates: Vec<CString>,
    /// What `argv` and `envp` point into.
    _arguments: Vec<CString>,
    _environment: Vec<CString>,
    argv: Pointers,
    envp: Pointers,
}

/// Pointers into strings owned beside them, ended by a null.
#[derive(Debug)]
struct Pointers(Vec<*const c_char>);

// SAFETY: the pointers lead into heap buffers of `CString`s that `Program` owns and never changes.
unsafe impl Send for Pointers {}
// SAFETY: as above; they are only read.
unsafe impl Sync for Pointers {}

impl Program {
    pub fn new(candidates: Vec<CString>, arguments: Vec<CString>, environment: Vec<CString>) -> Self {
        let pointers = |strings: &[CString]| {
            Pointers(strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect())
        };
        let (argv, envp) = (pointers(&arguments), pointers(&environment));
        Program { candidates, _arguments: arguments, _environment: environment, argv, envp }
    }

    /// With the arguments of [`sys::init`]: the paths to try, an empty one, and the program's own.
    pub fn under_init(self, arguments: Vec<CString>) -> Self {
        let all = self.candidates.iter().cloned().chain([CString::default()]).chain(arguments).collect();
        Program::new(self.candidates, all, self._environment)
    }
}

/// What parent and child tell each other.
#[derive(Debug)]
pub struct Report {
    /// Written by the kernel before the child runs.
    pub pidfd: AtomicI32,
    /// 0 until the child runs (or could not be made), then 1.
    pub alive: AtomicU32,
    /// 0 until the parent lets the child go on, then [`GO`] or [`GIVE_UP`].
    pub go: AtomicU32,
    /// Index of the operation under way.
    pub step: AtomicU32,
    /// Error of that operation; 0 while there is none.
    pub errno: AtomicI32,
    /// 0 until [`Op::Notify`] is done, then the listener's number and 1; [`NO_LISTENER`] once there will be none.
    pub listener: AtomicU32,
}

pub const NO_LISTENER: u32 = u32::MAX;

pub const GO: u32 = 1;
pub const GIVE_UP: u32 = 2;

/// A child to be made: namespaces, and what it does.
#[derive(Debug)]
pub struct Job {
    /// `CLONE_NEW…` flags.
    pub namespaces: i32,
    pub ops: Vec<Op>,
    pub report: Report,
    /// Descriptors for the child.
    pub brought: [Option<Arc<OwnedFd>>; MAX_BROUGHT],
    /// Their numbers in the child; -1 if there is none.
    pub brought_as: [AtomicI32; MAX_BROUGHT],
}

impl Job {
    pub fn new(namespaces: i32, ops: Vec<Op>) -> Self {
        let report = Report {
            pidfd: AtomicI32::new(-1),
            alive: AtomicU32::new(0),
            go: AtomicU32::new(0),
            step: AtomicU32::new(0),
            errno: AtomicI32::new(0),
            listener: AtomicU32::new(0),
        };
        let brought_as = std::array::from_fn(|_| AtomicI32::new(-1));
        Job { namespaces, ops, report, brought: Default::default(), brought_as }
    }

    fn number(&self, place: usize) -> i32 {
        self.brought_as.get(place).map_or(-1, |number| number.load(Ordering::Acquire))
    }
}

/// Runs in the child; returns only when an operation failed, with the report filled in.
pub fn run(job: &Job) {
    job.report.alive.store(1, Ordering::Release);
    sys::wake(&job.report.alive);
    let mut child = Child { job, root: -1, old_root: -1, trees: [-1; MAX_TREES] };
    for (step, op) in job.ops.iter().enumerate() {
        job.report.step.store(step as u32, Ordering::Relaxed);
        if let Err(errno) = child.carry_out(op) {
            job.report.errno.store(errno.0, Ordering::Release);
            let none = (0, NO_LISTENER, Ordering::AcqRel, Ordering::Acquire);
            // Not told if there is one already.
            let _ = job.report.listener.compare_exchange(none.0, none.1, none.2, none.3);
            sys::wake(&job.report.listener);
            return;
        }
    }
}

struct Child<'a> {
    job: &'a Job,
    root: i32,
    old_root: i32,
    trees: [i32; MAX_TREES],
}

impl Child<'_> {
    fn carry_out(&mut self, op: &Op) -> Result<(), Errno> {
        match op {
            Op::OwnDescriptors => sys::own_descriptors(std::array::from_fn(|place| self.job.number(place))),
            Op::TakeDescriptors(fds) => sys::take_descriptors(*fds),
            Op::DieWithParent(on) => sys::die_with_parent(*on),
            Op::NewSession => sys::new_session(),
            Op::DefaultSignals => {
                sys::default_signals();
                Ok(())
            }
            Op::Write { path, data } => sys::write_file(path, data),
            Op::Output { log } => sys::standard_output(log),
            Op::OpenInput { pipe } => sys::open_input(pipe),
            Op::Unshare(flags) => sys::unshare(*flags),
            Op::Join { pidfd, flags } => sys::setns(*pidfd, *flags),
            Op::AwaitGo => self.await_go(),
            Op::NetworkUp { batch, requests } => network_up(batch, *requests),
            Op::Network { batch, requests } => sys::rtnetlink::send_batch(batch, *requests),
            Op::HostName(name) => sys::host_name(name),
            Op::Limit { resource, soft, hard } => sys::limit(*resource, *soft, *hard),
            Op::Umask(mask) => {
                sys::umask(*mask);
                Ok(())
            }
            Op::BoundCapabilities(keep) => sys::bound_capabilities(*keep),
            Op::User { uid, gid, groups } => sys::become_user(*uid, *gid, groups),
            Op::SetCapabilities(keep) => sys::set_capabilities(*keep),
            Op::NoNewPrivileges => sys::no_new_privileges(),
            Op::Filter(filter) => sys::install_filter(filter),
            Op::Notify { filter, helper } => self.notify(filter, *helper),
            Op::Execute(program) => execute(program),
            Op::ExecuteInit(program) => {
                Err(sys::execveat(self.job.number(INIT), &program.argv.0, &program.envp.0))
            }
            _ => self.carry_out_on_files(op),
        }
    }

    fn carry_out_on_files(&mut self, op: &Op) -> Result<(), Errno> {
        match op {
            Op::Mount(m) => sys::mount(&m.source, &m.target, &m.kind, m.flags, m.data.as_deref()),
            Op::Overlay(overlay) => {
                self.root = sys::overlay(overlay)?;
                Ok(())
            }
            Op::Take { tree, path, recursive } => {
                *self.trees.get_mut(*tree).ok_or(Errno::MANY)? = sys::open_tree(path, *recursive)?;
                Ok(())
            }
            Op::Attach { tree, target } => {
                sys::move_mount(*self.trees.get(*tree).ok_or(Errno::MANY)?, target)
            }
            Op::AttachBrought { place, target } => sys::move_mount(self.job.number(*place), target),
            Op::Directory { path, mode } => allow(sys::mkdir(path, *mode), Errno::EXISTS),
            Op::EmptyFile { path } => sys::touch(path),
            Op::Node { path, mode, device } => sys::mknod(path, *mode, *device),
            Op::Symlink { path, target } => allow(sys::symlink(target, path), Errno::EXISTS),
            Op::Mask { path, empty } => allow(self.mask(path, empty), Errno::MISSING),
            Op::Freeze { path } => allow(freeze(path), Errno::MISSING),
            Op::ReadOnly { path, recursive } => sys::read_only(path, *recursive),
            Op::EnterRoot { path } => {
                self.old_root = sys::open_path(c"/")?;
                sys::chdir(path)?;
                sys::pivot_root(c".", c".")?;
                sys::chdir(c"/")
            }
            Op::LeaveOldRoot => {
                sys::fchdir(self.old_root)?;
                sys::unmount(c".")?;
                sys::chdir(c"/")
            }
            Op::EnterBlank => self.enter_blank(),
            Op::ChangeDirectory { path } => sys::chdir(path),
            _ => Err(Errno::UNKNOWN),
        }
    }

    /// The new root is mounted over the root of the copy, not below it: then no `..` leads out of it, whatever a process
    /// makes its root (the kernel's `choose_mountpoint`).
    fn enter_blank(&mut self) -> Result<(), Errno> {
        sys::setns(self.job.number(BLANK), libc::CLONE_NEWNS)?;
        sys::unshare(libc::CLONE_NEWNS)?;
        self.old_root = sys::open_path(c"/")?;
        sys::move_mount(self.root, c"/")?;
        sys::fchdir(self.root)?;
        sys::chroot(c".")
    }

    fn mask(&self, path: &CStr, empty: &CStr) -> Result<(), Errno> {
        match sys::mount(c"/dev/null", path, c"", sys::BIND, None) {
            Err(Errno::NOT_A_FILE) => sys::hide_folder(path, self.old_root, empty),
            other => other,
        }
    }

    fn notify(&self, filter: &sys::Filter, helper: u32) -> Result<(), Errno> {
        let listener = sys::notify::install(filter, helper)?;
        self.job.report.listener.store(listener as u32 + 1, Ordering::Release);
        sys::wake(&self.job.report.listener);
        Ok(())
    }

    fn await_go(&self) -> Result<(), Errno> {
        sys::wait_while(&self.job.report.go, 0);
        match self.job.report.go.load(Ordering::Acquire) {
            GO => Ok(()),
            _ => Err(Errno::CANCELLED),
        }
    }
}

fn allow(result: Result<(), Errno>, fine: Errno) -> Result<(), Errno> {
    match result {
        Err(errno) if errno == fine => Ok(()),
        other => other,
    }
}

fn network_up(batch: &[u8], requests: usize) -> Result<(), Errno> {
    for _ in 0..BUSY_TRIES {
        match sys::rtnetlink::send_batch(batch, requests) {
            Err(Errno::IN_USE) => sys::sleep(BUSY_PAUSE),
            other => return other,
        }
    }
    Err(Errno::IN_USE)
}

fn freeze(path: &CStr) -> Result<(), Errno> {
    sys::mount(path, path, c"", sys::BIND | sys::RECURSIVE, None)?;
    sys::read_only(path, true)
}

/// Tries the candidates in order, as a shell does: a missing one is passed over, one that may not be executed is
/// remembered, anything else ends the search.
fn execute(program: &Program) -> Result<(), Errno> {
    let mut worst = Errno::MISSING;
    for candidate in &program.candidates {
        match sys::execve(candidate, &program.argv.0, &program.envp.0) {
            Errno::MISSING | Errno::NOT_A_FOLDER => {}
            Errno::DENIED => worst = Errno::DENIED,
            errno => return Err(errno),
        }
    }
    Err(worst)
}
