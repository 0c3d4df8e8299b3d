//! `bind` and `connect` of plain processes, carried out so that each has a loopback of its own.
//!
//! A filter stops both calls of a replica and asks the holder of its listener what to do (seccomp_unotify(2); no
//! privilege is needed). The holder is a process of its own, forked once for each supervisor, because a call nobody
//! can answer fails with `ENOSYS`, and replicas outlive supervisors: it goes on until its supervisor and the last of
//! its replicas have ended. It keeps no state but its descriptors, so the helper of a later supervisor answers for
//! commands in the same replica just as well.
//!
//! The helper takes a copy of the caller's socket and binds or connects it itself. Where that is forbidden (Docker's
//! default profile forbids `pidfd_getfd`) it writes the other address into the caller's memory and lets the call go
//! on. What it cannot read it leaves alone. None of this keeps anybody from anything: a replica that wants the host's
//! loopback can reach it.
//!
//! The helper is forked from a process with threads, so it allocates nothing and takes no lock.

use super::{Errno, Filter, default_signals, descriptor};
use crate::redirect::{self, LARGEST};
use rustix::event::epoll;
use rustix::fs::{Mode, OFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sockopt,
};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Resource, pidfd_getfd, pidfd_open};
use std::ffi::c_ulong;
use std::fmt::Write;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xC000_00B7;

/// Events taken from the kernel in one call.
const BATCH: usize = 32;
/// Marks the socket to the supervisor among the events; a listener's mark holds its address and number.
const CONTROL: u64 = u64::MAX;

/// Asks about `bind` and `connect`, allows all else; other filters judge those.
pub fn filter() -> Filter {
    let step = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter { code: code as u16, jt, jf, k };
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    // Offsets into struct seccomp_data: the call's number, then the architecture.
    Filter(vec![
        step(load, 4, 0, 0),
        step(equal, ARCHITECTURE, 0, 3),
        step(load, 0, 0, 0),
        step(equal, libc::SYS_bind as u32, 2, 0),
        step(equal, libc::SYS_connect as u32, 1, 0),
        step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0),
        step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_USER_NOTIF, 0, 0),
    ])
}

/// Installs the filter on the calling child and returns its listener. `helper` may look into the child from now on,
/// where the Yama module reserves that to ancestors.
pub fn install(filter: &Filter, helper: u32) -> Result<RawFd, Errno> {
    // SAFETY: an attribute of the calling process; an error means that the module is not there.
    unsafe { libc::prctl(libc::PR_SET_PTRACER, c_ulong::from(helper), 0, 0, 0) };
    let program = libc::sock_fprog { len: filter.0.len() as u16, filter: filter.0.as_ptr().cast_mut() };
    let install = |flags: c_ulong| {
        // SAFETY: the program is valid for its length and the kernel copies it; the calling task only.
        descriptor(unsafe {
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
        })
    };
    let listen = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    // Without the second flag (kernels before 5.19) a signal may make a program ask twice.
    match install(listen | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV) {
        Err(Errno(libc::EINVAL)) => install(listen),
        other => other,
    }
}

/// Forks a helper and returns its pid and the socket over which it takes listeners.
pub fn fork_helper() -> io::Result<(u32, OwnedFd)> {
    let (ours, its) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    // SAFETY: the child keeps to what may be done after a fork of a process with threads, and never returns.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => help(its.as_raw_fd()),
        pid => Ok((pid as u32, ours)),
    }
}

/// Gives a listener to the helper at the other end of the socket.
pub fn hand_over(socket: &OwnedFd, listener: BorrowedFd<'_>, own: Ipv4Addr) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let listeners = [listener];
    ancillary.push(SendAncillaryMessage::ScmRights(&listeners));
    rustix::net::sendmsg(socket, &[IoSlice::new(&own.octets())], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn help(control: RawFd) -> ! {
    // SAFETY: this process has one thread. Everything it inherited but the socket is closed, so that it holds
    // nobody's lock, pipe or file.
    unsafe {
        libc::dup2(control, 0);
        libc::syscall(libc::SYS_close_range, 1, u32::MAX, 0);
        libc::prctl(libc::PR_SET_NAME, c"throng-address".as_ptr(), 0, 0, 0);
        libc::chdir(c"/".as_ptr());
        libc::setsid();
    }
    default_signals();
    let mut limit = rustix::process::getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // With fewer descriptors it serves fewer replicas.
    let _ = rustix::process::setrlimit(Resource::Nofile, limit);
    // SAFETY: the socket was put there above and is never closed.
    let control = unsafe { BorrowedFd::borrow_raw(0) };
    let done = serve(control);
    // SAFETY: ends this process without running exit handlers, which belong to the supervisor.
    unsafe { libc::_exit(i32::from(done.is_err())) }
}

/// Answers until the supervisor has gone and the last process of every listener has ended.
fn serve(control: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&set, control, epoll::EventData::new_u64(CONTROL), epoll::EventFlags::IN)?;
    let (mut supervised, mut listeners) = (true, 0u32);
    while supervised || listeners > 0 {
        let mut events = [MaybeUninit::<epoll::Event>::uninit(); BATCH];
        let events = match epoll::wait(&set, &mut events, None) {
            Ok((events, _)) => &*events,
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error),
        };
        for event in events {
            let (mark, flags) = (event.data.u64(), event.flags);
            if mark == CONTROL {
                match take(control) {
                    Some(Some((listener, own))) => listeners += u32::from(watch(&set, listener, own)),
                    Some(None) => {}
                    None => {
                        supervised = false;
                        epoll::delete(&set, control)?;
                    }
                }
            } else if flags.contains(epoll::EventFlags::IN) {
                let (listener, own) = unmark(mark);
                // SAFETY: listeners in the set are open; they are closed only below, which takes them out of it.
                answer(unsafe { BorrowedFd::borrow_raw(listener) }, own);
            } else {
                // SAFETY: the set's mark was the only owner of this descriptor, and is taken out with it.
                let listener = unsafe { OwnedFd::from_raw_fd(unmark(mark).0) };
                epoll::delete(&set, listener)?;
                listeners = listeners.saturating_sub(1);
            }
        }
    }
    Ok(())
}

fn watch(set: &OwnedFd, listener: OwnedFd, own: Ipv4Addr) -> bool {
    let mark = u64::from(own.to_bits()) << 32 | u64::from(listener.as_raw_fd() as u32);
    if epoll::add(set, &listener, epoll::EventData::new_u64(mark), epoll::EventFlags::IN).is_err() {
        return false;
    }
    // Owned by its mark from here on.
    let _ = listener.into_raw_fd();
    true
}

fn unmark(mark: u64) -> (RawFd, Ipv4Addr) {
    (mark as u32 as RawFd, Ipv4Addr::from_bits((mark >> 32) as u32))
}

/// The next listener; `None` when the supervisor has gone, nothing inside if a message brought none, as happens when
/// no descriptor is left.
fn take(control: BorrowedFd<'_>) -> Option<Option<(OwnedFd, Ipv4Addr)>> {
    let mut octets = [0u8; 4];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received = rustix::net::recvmsg(control, &mut [IoSliceMut::new(&mut octets)], &mut ancillary, flags);
    if received.map_or(true, |message| message.bytes == 0) {
        return None;
    }
    let rights = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut rights) => rights.next(),
        _ => None,
    });
    Some(rights.map(|listener| (listener, Ipv4Addr::from(octets))))
}

/// What becomes of a call.
enum Answer {
    /// The kernel carries it out as it stands.
    Pass,
    Done(rustix::io::Result<()>),
}

fn answer(listener: BorrowedFd<'_>, own: Ipv4Addr) {
    // SAFETY: plain integers, for which zero is a value; the kernel insists on it.
    let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the structure has the size that the request carries.
    let received =
        unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV as _, &raw mut call) };
    if received < 0 {
        // The caller was killed meanwhile.
        return;
    }
    let (error, flags) = match decide(listener, &call, own) {
        Answer::Pass => (0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
        Answer::Done(Ok(())) => (0, 0),
        Answer::Done(Err(errno)) => (-errno.raw_os_error(), 0),
    };
    let mut response = libc::seccomp_notif_resp { id: call.id, val: 0, error, flags };
    // SAFETY: as above. It fails if the caller was killed meanwhile.
    unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND as _, &raw mut response) };
}

/// Whether the caller still waits, so that its pid still means it.
fn waits(listener: BorrowedFd<'_>, id: u64) -> bool {
    // SAFETY: the kernel reads one integer.
    unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID as _, &raw const id) == 0 }
}

fn decide(listener: BorrowedFd<'_>, call: &libc::seccomp_notif, own: Ipv4Addr) -> Answer {
    let [socket, place, length, ..] = call.data.args;
    let connects = i64::from(call.data.nr) == libc::SYS_connect;
    let Some(memory) = open(call.pid, "mem", OFlags::RDWR) else { return Answer::Pass };
    let mut bytes = [0u8; LARGEST];
    let wanted = usize::try_from(length as u32).unwrap_or(LARGEST).min(LARGEST);
    let Some(bytes) = bytes.get_mut(..wanted) else { return Answer::Pass };
    if rustix::io::pread(&memory, &mut *bytes, place) != Ok(wanted) {
        return Answer::Pass;
    }
    let Some(target) = redirect::parse(bytes).and_then(|given| redirect::own(given, own)) else {
        return Answer::Pass;
    };
    if !waits(listener, call.id) {
        return Answer::Pass;
    }
    let copy = copy(call.pid, socket as RawFd).filter(|_| waits(listener, call.id));
    match copy {
        Some(socket) if connects => connect(&socket, own, target),
        Some(socket) => bind(&socket, target),
        None if connects && !in_use(own, target.port(), SocketType::STREAM) => Answer::Pass,
        None => {
            redirect::replace(bytes, target);
            // If it fails, the call goes on with the address that was given.
            let _ = rustix::io::pwrite(&memory, bytes, place);
            Answer::Pass
        }
    }
}

fn bind(socket: &OwnedFd, target: SocketAddr) -> Answer {
    let apart = target.is_ipv6() && sockopt::ipv6_v6only(socket) == Ok(true);
    Answer::Done(rustix::net::bind(socket, if apart { &redirect::ASIDE } else { &target }))
}

/// A replica's loopback is its own where it listens itself, and the host's elsewhere.
fn connect(socket: &OwnedFd, own: Ipv4Addr, target: SocketAddr) -> Answer {
    let Ok(kind) = sockopt::socket_type(socket) else { return Answer::Pass };
    let apart = target.is_ipv6() && sockopt::ipv6_v6only(socket) == Ok(true);
    if apart || !in_use(own, target.port(), kind) {
        return Answer::Pass;
    }
    let Ok(flags) = rustix::fs::fcntl_getfl(socket) else { return Answer::Pass };
    if kind != SocketType::STREAM || flags.contains(OFlags::NONBLOCK) {
        return Answer::Done(rustix::net::connect(socket, &target));
    }
    // This process must not wait. The call that goes on finds the connection under way and does the waiting, whatever
    // address it names (`inet_stream_connect` in the kernel).
    if rustix::fs::fcntl_setfl(socket, flags | OFlags::NONBLOCK).is_err() {
        return Answer::Pass;
    }
    let result = rustix::net::connect(socket, &target);
    // It has just succeeded with the same socket.
    let _ = rustix::fs::fcntl_setfl(socket, flags);
    match result {
        Err(rustix::io::Errno::INPROGRESS) => Answer::Pass,
        other => Answer::Done(other),
    }
}

/// Whether somebody has the port at this address.
fn in_use(own: Ipv4Addr, port: u16, kind: SocketType) -> bool {
    let probe = rustix::net::socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, None);
    probe.is_ok_and(|probe| {
        rustix::net::bind(&probe, &SocketAddrV4::new(own, port)) == Err(rustix::io::Errno::ADDRINUSE)
    })
}

/// The caller's socket as a descriptor of this process.
fn copy(task: u32, socket: RawFd) -> Option<OwnedFd> {
    let process = Pid::from_raw(leader(task)?)?;
    let pidfd = pidfd_open(process, PidfdFlags::empty()).ok()?;
    pidfd_getfd(pidfd, socket, PidfdGetfdFlags::empty()).ok()
}

/// The process that the task is a thread of.
fn leader(task: u32) -> Option<i32> {
    let mut text = [0u8; 512];
    let file = open(task, "status", OFlags::RDONLY)?;
    let length = rustix::io::read(&file, &mut text).ok()?;
    let text = std::str::from_utf8(text.get(..length)?).ok()?;
    text.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok())
}

fn open(task: u32, file: &str, flags: OFlags) -> Option<OwnedFd> {
    let mut path = Path { bytes: [0; 32], length: 0 };
    write!(path, "/proc/{task}/{file}").ok()?;
    let path = std::str::from_utf8(path.bytes.get(..path.length)?).ok()?;
    rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty()).ok()
}

/// A text without an allocation.
struct Path {
    bytes: [u8; 32],
    length: usize,
}

impl Write for Path {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.length + text.len();
        self.bytes.get_mut(self.length..end).ok_or(std::fmt::Error)?.copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}
