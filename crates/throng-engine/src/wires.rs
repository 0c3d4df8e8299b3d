//! The supervisor's side of links: one helper for each project, which is found or forked when the first link of a node is
//! not perfect. See [`crate::sys::wires`] for the helper and [`crate::wire`] for what it does to packets.

use crate::network::digest;
use crate::sys::wires;
use crate::wire::{self, ANSWER, NAME, Order, Shape};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};
use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use throng_model::node::LinkTraffic;

/// How long a helper that has no link any more may take to end.
const PATIENCE: rustix::event::Timespec = rustix::event::Timespec { tv_sec: 0, tv_nsec: 500_000_000 };

/// Names of the two TAP interfaces of a link: the one on the node's side first.
pub type Taps = [String; 2];

/// Helpers by project.
#[derive(Default)]
pub struct Wires {
    /// Where their sockets are.
    folder: PathBuf,
    helpers: Mutex<HashMap<String, Helper>>,
    /// Projects whose helper has ended with links that are to be there.
    broken: Mutex<BTreeSet<String>>,
}

struct Helper {
    socket: OwnedFd,
    /// If it is a child of this process.
    pid: Option<Pid>,
}

impl Wires {
    pub fn new(run_dir: &Path) -> Wires {
        Wires { folder: run_dir.join("links"), helpers: Mutex::default(), broken: Mutex::default() }
    }

    fn broken(&self) -> MutexGuard<'_, BTreeSet<String>> {
        // As below.
        self.broken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that all links of a project are to be made anew.
    pub fn note_broken(&self, project: &str) {
        self.broken().insert(project.to_owned());
    }

    /// Projects whose links went with their helper since this was last asked.
    pub fn take_broken(&self) -> BTreeSet<String> {
        let mut helpers = self.helpers();
        let gone: Vec<String> = helpers
            .iter()
            .filter(|(_, helper)| helper.is_gone())
            .map(|(project, _)| project.clone())
            .collect();
        let mut broken = std::mem::take(&mut *self.broken());
        for project in gone {
            // Buries it, if it was a child of this process.
            helpers.remove(&project);
            broken.insert(project);
        }
        broken
    }

    fn helpers(&self) -> MutexGuard<'_, HashMap<String, Helper>> {
        // Each change is one call.
        self.helpers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a link with its interfaces, or changes it. `fork` runs what it is given where the interfaces are to be.
    pub fn set(
        &self,
        project: &str,
        taps: &Taps,
        shape: Shape,
        fork: impl Fn(Box<dyn FnOnce() -> io::Result<u32> + Send>) -> io::Result<u32>,
    ) -> io::Result<()> {
        let order = Order::Set { taps: names(taps)?, shape };
        let mut helpers = self.helpers();
        if let Some(helper) = helpers.get(project) {
            match helper.ask(&order) {
                // It was killed: another one takes its place, and gets back the other links soon.
                Err(error) if is_gone(&error) => {
                    helpers.remove(project);
                    self.note_broken(project);
                }
                other => return other.map(drop),
            }
        }
        let helper = match self.find(project) {
            Some(found) => found,
            None => self.make(project, fork)?,
        };
        let asked = helper.ask(&order);
        helpers.insert(project.to_owned(), helper);
        asked.map(drop)
    }

    /// Takes a link away; fine if there is none.
    pub fn unset(&self, project: &str, taps: &Taps) -> io::Result<()> {
        let order = Order::Unset { taps: names(taps)? };
        match self.with(project, |helper| helper.ask(&order)) {
            Some(Err(error)) if !is_gone(&error) => Err(error),
            _ => Ok(()),
        }
    }

    /// What became of a link's packets; `None` if there is no such link.
    pub fn traffic(&self, project: &str, taps: &Taps) -> Option<LinkTraffic> {
        let order = Order::Tell { taps: names(taps).ok()? };
        self.with(project, |helper| helper.ask(&order))?.ok()
    }

    /// Asks the helper of a project, if there is one.
    fn with<T>(&self, project: &str, ask: impl FnOnce(&Helper) -> T) -> Option<T> {
        let mut helpers = self.helpers();
        if !helpers.contains_key(project) {
            helpers.insert(project.to_owned(), self.find(project)?);
        }
        helpers.get(project).map(ask)
    }

    /// Lets the project's helper end, now that its links are gone.
    pub fn close(&self, project: &str) {
        let helper = self.helpers().remove(project).or_else(|| self.find(project));
        self.broken().remove(project);
        drop(helper);
        // Gone already, or never there, or with those of other projects in it.
        let _ = fs::remove_file(self.socket(project));
        let _ = fs::remove_dir(&self.folder);
    }

    fn socket(&self, project: &str) -> PathBuf {
        self.folder.join(title(project))
    }

    /// The helper of an earlier supervisor.
    fn find(&self, project: &str) -> Option<Helper> {
        let socket = seqpacket().ok()?;
        let folder = File::open(&self.folder).ok()?;
        rustix::net::connect(&socket, &address(&folder, &title(project)).ok()?).ok()?;
        Some(Helper { socket, pid: None })
    }

    fn make(
        &self,
        project: &str,
        fork: impl Fn(Box<dyn FnOnce() -> io::Result<u32> + Send>) -> io::Result<u32>,
    ) -> io::Result<Helper> {
        fs::create_dir_all(&self.folder)?;
        // Of a helper that was killed.
        let _ = fs::remove_file(self.socket(project));
        let listener = seqpacket()?;
        let folder = File::open(&self.folder)?;
        rustix::net::bind(&listener, &address(&folder, &title(project))?)?;
        rustix::net::listen(&listener, 1)?;
        let (ours, its) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let pid = fork(Box::new(move || wires::fork_helper(&its, &listener)))?;
        Ok(Helper { socket: ours, pid: i32::try_from(pid).ok().and_then(Pid::from_raw) })
    }
}

impl Helper {
    fn ask(&self, order: &Order) -> io::Result<LinkTraffic> {
        rustix::net::send(&self.socket, &order.encode(), SendFlags::NOSIGNAL)?;
        let mut answer = [0u8; ANSWER];
        let (_, length) = rustix::net::recv(&self.socket, &mut answer, RecvFlags::empty())?;
        if length != ANSWER {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        wire::decode_answer(&answer).map_err(io::Error::from_raw_os_error)
    }

    /// Whether it has closed its end, as the kernel does when it is killed.
    fn is_gone(&self) -> bool {
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut looked = [rustix::event::PollFd::new(&self.socket, rustix::event::PollFlags::empty())];
        let hung_up = rustix::event::PollFlags::HUP | rustix::event::PollFlags::ERR;
        rustix::event::poll(&mut looked, Some(&now)).is_ok() && looked[0].revents().intersects(hung_up)
    }
}

impl Drop for Helper {
    /// It goes on as long as it has links. If it has none it is gone when this returns.
    fn drop(&mut self) {
        let Some(pid) = self.pid else { return };
        // The socket itself closes only after this; the helper looks for its end.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
        if let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) {
            let mut wanted = [rustix::event::PollFd::new(&pidfd, rustix::event::PollFlags::IN)];
            // Whether it has ended or not, there is nothing else to do.
            let _ = rustix::event::poll(&mut wanted, Some(&PATIENCE));
            let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected, UnexpectedEof};
    matches!(error.kind(), BrokenPipe | ConnectionReset | NotConnected | UnexpectedEof)
}

fn seqpacket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    Ok(rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// Name of a project's socket. The project's own may be too long for one.
fn title(project: &str) -> String {
    digest(&[project], 16)
}

/// By the folder's descriptor: the path itself may be longer than a socket's address can be (unix(7)).
fn address(folder: &File, name: &str) -> io::Result<SocketAddrUnix> {
    Ok(SocketAddrUnix::new(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()))?)
}

fn names(taps: &Taps) -> io::Result<[[u8; NAME]; 2]> {
    let name = |name: &String| {
        let mut bytes = [0; NAME];
        let place = bytes.get_mut(..name.len()).filter(|place| place.len() < NAME);
        place.ok_or_else(|| io::Error::other(format!("the name {name} is too long")))?;
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        Ok::<_, io::Error>(bytes)
    };
    Ok([name(&taps[0])?, name(&taps[1])?])
}
