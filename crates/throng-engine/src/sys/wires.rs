//! The helper that carries the packets of nodes' links: a process of its own, so that links go on when their supervisor
//! is killed, as replicas do.
//!
//! Each link is a pair of TAP interfaces. A frame that the kernel hands out on one is handed in on the other when the
//! link's [`Lane`] says so, or not at all. The helper makes the interfaces itself, in the network namespace of the thread
//! that forks it; they go with its descriptors. It ends when it has neither link nor supervisor any more.
//!
//! A later supervisor finds it by its socket. The helper is forked from a process with threads, so it allocates nothing:
//! its tables are made before, memory for packets comes from `mmap`.

use super::{check, default_signals, descriptor};
use crate::wire::{ANSWER, Fate, Lane, NAME, ORDER, Order, Ring, Shape, UNDER_WAY_MOST, encode_answer};
use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::net::{RecvFlags, SendFlags, SocketFlags};
use rustix::time::{ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::null_mut;
use throng_model::node::LinkTraffic;

/// Links of one helper: nodes times networks.
pub const WIRES_MOST: usize = 4_096;
/// Events taken from the kernel in one call, and frames read from one interface before others have their turn.
const BATCH: usize = 32;
const FRAMES: usize = 64;
/// The largest frame: what an IPv4 packet can be, with its Ethernet header and a tag.
const FRAME: usize = 65_535 + 18;
/// Marks of what is not an interface.
const LISTENER: u64 = u64::MAX;
const CONTROL: u64 = u64::MAX - 1;
const TIMER: u64 = u64::MAX - 2;
/// A packet that is late by this makes the measured latency wrong by as much.
const TIMER_SLACK_NANOS: libc::c_ulong = 1;
/// As urgent as a process can be without being a real-time one.
const NICE: libc::c_int = -20;

/// Forks the helper into the namespaces of the calling thread. It takes orders over `control`, and over connections to
/// `listener` once that has closed. Returns its pid.
pub fn fork_helper(control: &OwnedFd, listener: &OwnedFd) -> io::Result<u32> {
    let mut server =
        Server { wires: Vec::with_capacity(WIRES_MOST), due: Vec::with_capacity(2 * WIRES_MOST) };
    // SAFETY: the child keeps to what may be done after a fork of a process with threads, and never returns.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => help(control.as_raw_fd(), listener.as_raw_fd(), &mut server),
        pid => Ok(pid as u32),
    }
}

fn help(control: RawFd, listener: RawFd, server: &mut Server) -> ! {
    // SAFETY: this process has one thread. Everything it inherited but the two sockets is closed, so that it holds
    // nobody's lock, pipe or file; the third is where a message of the runtime's would go.
    unsafe {
        let (control, listener) =
            (libc::fcntl(control, libc::F_DUPFD, 3), libc::fcntl(listener, libc::F_DUPFD, 3));
        libc::dup2(control, 0);
        libc::dup2(listener, 1);
        libc::syscall(libc::SYS_close_range, 2, u32::MAX, 0);
        libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC);
        libc::prctl(libc::PR_SET_NAME, c"throng-links".as_ptr(), 0, 0, 0);
        libc::prctl(libc::PR_SET_TIMERSLACK, TIMER_SLACK_NANOS, 0, 0, 0);
        libc::setpriority(libc::PRIO_PROCESS as _, 0, NICE);
        libc::chdir(c"/".as_ptr());
        libc::setsid();
    }
    default_signals();
    // SAFETY: both were put there above. The first is closed once, when its supervisor has gone.
    let (control, listener) = unsafe { (OwnedFd::from_raw_fd(0), BorrowedFd::borrow_raw(1)) };
    let done = server.run(control, listener);
    // SAFETY: ends this process without running exit handlers, which belong to the supervisor.
    unsafe { libc::_exit(i32::from(done.is_err())) }
}

/// Nanoseconds of the monotonic clock.
fn now() -> u64 {
    let time = rustix::time::clock_gettime(ClockId::Monotonic);
    (time.tv_sec as u64).wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec as u64)
}

/// Memory for the packets of one direction. Only pages that are used are there.
struct Memory(*mut u8);

impl Memory {
    fn new() -> Result<Memory, super::Errno> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a fresh anonymous mapping; nothing else refers to it.
        let base = unsafe { libc::mmap(null_mut(), UNDER_WAY_MOST, access, flags, -1, 0) };
        if base == libc::MAP_FAILED { Err(super::Errno::last()) } else { Ok(Memory(base.cast())) }
    }

    /// The caller must drop what it makes of this before it drops `self`, and call it once.
    unsafe fn bytes(&self) -> &'static mut [u8] {
        // SAFETY: the mapping is that long, and nobody else has it.
        unsafe { std::slice::from_raw_parts_mut(self.0, UNDER_WAY_MOST) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: unmaps exactly what `new` mapped.
        unsafe { libc::munmap(self.0.cast(), UNDER_WAY_MOST) };
    }
}

/// What comes in on one interface and goes out on the other.
struct Direction {
    lane: Lane,
    /// Before the memory that it is in, since fields are dropped in their order.
    ring: Ring<'static>,
    _memory: Memory,
}

impl Direction {
    fn new(shape: Shape) -> Result<Direction, super::Errno> {
        let memory = Memory::new()?;
        // SAFETY: the ring is dropped before the memory, as said at the field.
        let ring = Ring::new(unsafe { memory.bytes() });
        Ok(Direction { lane: Lane::new(shape), ring, _memory: memory })
    }
}

struct Wire {
    names: [[u8; NAME]; 2],
    taps: [OwnedFd; 2],
    /// By the side that a packet comes in on.
    directions: [Direction; 2],
}

/// The other direction's packets have a chance of their own.
fn shapes(shape: Shape) -> [Shape; 2] {
    [shape, Shape { seed: shape.seed ^ u64::MAX, ..shape }]
}

struct Server {
    /// The place of a link says which descriptors are its.
    wires: Vec<Option<Wire>>,
    /// When the next packet of each direction is due, two for each link; the largest number if there is none.
    due: Vec<u64>,
}

impl Server {
    fn run(&mut self, control: OwnedFd, listener: BorrowedFd<'_>) -> rustix::io::Result<()> {
        let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let mut control = Some(control);
        epoll::add(&set, &timer, EventData::new_u64(TIMER), EventFlags::IN)?;
        epoll::add(&set, listener, EventData::new_u64(LISTENER), EventFlags::IN)?;
        if let Some(control) = &control {
            epoll::add(&set, control, EventData::new_u64(CONTROL), EventFlags::IN)?;
        }
        let mut armed = u64::MAX;
        while control.is_some() || self.wires.iter().any(Option::is_some) {
            let next = self.deliver(now());
            if next != armed {
                arm(&timer, next)?;
                armed = next;
            }
            let mut events = [MaybeUninit::<epoll::Event>::uninit(); BATCH];
            let events = match epoll::wait(&set, &mut events, None) {
                Ok((events, _)) => &*events,
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error),
            };
            for event in events {
                match event.data.u64() {
                    TIMER => {
                        let mut expirations = [0u8; 8];
                        // Nothing to read means that it has been set anew since.
                        let _ = rustix::io::read(&timer, &mut expirations);
                        armed = u64::MAX;
                    }
                    LISTENER => {
                        if let Ok(next) = rustix::net::accept_with(listener, SocketFlags::CLOEXEC) {
                            // The one before belongs to a supervisor that has gone or is about to.
                            epoll::add(&set, &next, EventData::new_u64(CONTROL), EventFlags::IN)?;
                            control = Some(next);
                        }
                    }
                    CONTROL => {
                        let open = control.as_ref().is_some_and(|control| self.serve(control, &set));
                        if !open {
                            // Closing it takes it out of the set.
                            control = None;
                        }
                    }
                    mark => self.take_in(mark),
                }
            }
        }
        Ok(())
    }

    /// Hands in what is due, and says when the next packet is.
    fn deliver(&mut self, now: u64) -> u64 {
        let mut next = u64::MAX;
        for (place, due) in self.due.iter_mut().enumerate().filter(|(_, due)| **due != u64::MAX) {
            if *due <= now {
                let wire = self.wires.get_mut(place / 2).and_then(Option::as_mut);
                *due = wire.map_or(u64::MAX, |wire| wire.deliver(place % 2, now));
            }
            next = next.min(*due);
        }
        next
    }

    /// Takes in what an interface hands out.
    fn take_in(&mut self, mark: u64) {
        let place = mark as usize;
        let Some(slot) = self.wires.get_mut(place / 2) else { return };
        let (Some(wire), Some(due)) = (slot.as_mut(), self.due.get_mut(place)) else { return };
        if !wire.take_in(place % 2, due) {
            // Somebody has removed the interface; the other one is of no use alone.
            self.let_go(place / 2);
        }
    }

    /// Takes a link away. Closing the descriptors takes them out of the set.
    fn let_go(&mut self, wire: usize) {
        self.wires[wire] = None;
        self.due[2 * wire..][..2].fill(u64::MAX);
    }

    /// Carries out one order; `false` when the supervisor has gone.
    fn serve(&mut self, control: &OwnedFd, set: &OwnedFd) -> bool {
        let mut bytes = [0u8; ORDER];
        let length = match rustix::net::recv(control, &mut bytes, RecvFlags::DONTWAIT) {
            Ok((_, length)) => length,
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => return true,
            Err(_) => return false,
        };
        if length != ORDER {
            return false;
        }
        let answer = match Order::decode(&bytes) {
            None => encode_answer(libc::EINVAL, LinkTraffic::default()),
            Some(order) => match self.carry_out(order, set) {
                Ok(traffic) => encode_answer(0, traffic),
                Err(super::Errno(errno)) => encode_answer(errno, LinkTraffic::default()),
            },
        };
        let answer: [u8; ANSWER] = answer;
        rustix::net::send(control, &answer, SendFlags::NOSIGNAL).is_ok()
    }

    fn carry_out(&mut self, order: Order, set: &OwnedFd) -> Result<LinkTraffic, super::Errno> {
        let (Order::Set { taps, .. } | Order::Unset { taps } | Order::Tell { taps }) = order;
        let found = self.wires.iter().position(|wire| wire.as_ref().is_some_and(|wire| wire.names == taps));
        match (order, found) {
            (Order::Set { shape, .. }, Some(place)) => {
                let wire = self.wires[place].iter_mut();
                let each = wire.flat_map(|wire| wire.directions.iter_mut()).zip(shapes(shape));
                each.for_each(|(direction, shape)| direction.lane.reshape(shape));
                Ok(LinkTraffic::default())
            }
            (Order::Set { taps, shape }, None) => self.add(taps, shape, set).map(|()| LinkTraffic::default()),
            (Order::Unset { .. }, Some(place)) => {
                self.let_go(place);
                Ok(LinkTraffic::default())
            }
            (Order::Unset { .. }, None) => Ok(LinkTraffic::default()),
            (Order::Tell { .. }, Some(place)) => {
                let directions = self.wires[place].iter().flat_map(|wire| &wire.directions);
                Ok(directions.map(|direction| direction.lane.traffic).sum())
            }
            (Order::Tell { .. }, None) => Err(super::Errno(libc::ENODEV)),
        }
    }

    fn add(&mut self, names: [[u8; NAME]; 2], shape: Shape, set: &OwnedFd) -> Result<(), super::Errno> {
        let place = match self.wires.iter().position(Option::is_none) {
            Some(free) => free,
            None if self.wires.len() < WIRES_MOST => {
                // Within their capacities, so nothing is allocated.
                self.wires.push(None);
                self.due.extend([u64::MAX; 2]);
                self.wires.len() - 1
            }
            None => return Err(super::Errno(libc::ENOSPC)),
        };
        let [out, back] = shapes(shape);
        let directions = [Direction::new(out)?, Direction::new(back)?];
        let taps = [open_tap(&names[0])?, open_tap(&names[1])?];
        for (side, tap) in taps.iter().enumerate() {
            let mark = EventData::new_u64((2 * place + side) as u64);
            epoll::add(set, tap, mark, EventFlags::IN).map_err(|e| super::Errno(e.raw_os_error()))?;
        }
        self.wires[place] = Some(Wire { names, taps, directions });
        Ok(())
    }
}

impl Wire {
    /// Hands in what is due of one direction, and says when its next packet is.
    fn deliver(&mut self, side: usize, now: u64) -> u64 {
        let ring = &mut self.directions[side].ring;
        while let Some((due, frame)) = ring.front() {
            if due > now {
                return due;
            }
            hand_in(self.taps[1 - side].as_fd(), frame);
            ring.pop();
        }
        u64::MAX
    }

    /// `false` if the interface is not there any more.
    fn take_in(&mut self, side: usize, due: &mut u64) -> bool {
        let mut frame = [MaybeUninit::<u8>::uninit(); FRAME];
        for _ in 0..FRAMES {
            let frame = match rustix::io::read(&self.taps[side], &mut frame) {
                Ok((frame, _)) => &*frame,
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return true,
                Err(_) => return false,
            };
            let (now, direction) = (now(), &mut self.directions[side]);
            match direction.lane.admit(frame.len(), now) {
                Fate::Lost | Fate::Overflows => {}
                Fate::Arrives(at) if at <= now && direction.ring.is_empty() => {
                    hand_in(self.taps[1 - side].as_fd(), frame);
                }
                Fate::Arrives(at) => {
                    if direction.ring.push(at, frame) {
                        *due = (*due).min(at);
                    } else {
                        direction.lane.overflowed();
                    }
                }
            }
        }
        true
    }
}

/// A frame that the kernel does not take, since the interface is down say, is lost as on a cable that ends nowhere.
fn hand_in(tap: BorrowedFd<'_>, frame: &[u8]) {
    let _ = rustix::io::write(tap, frame);
}

/// Has the timer expire then; the largest number is never.
fn arm(timer: &OwnedFd, at: u64) -> rustix::io::Result<()> {
    let time =
        |nanos: u64| Timespec { tv_sec: (nanos / 1_000_000_000) as _, tv_nsec: (nanos % 1_000_000_000) as _ };
    // Zero stops it, so no time is zero.
    let value = if at == u64::MAX { time(0) } else { time(at.max(1)) };
    let times = Itimerspec { it_interval: time(0), it_value: value };
    rustix::time::timerfd_settime(timer, TimerfdTimerFlags::ABSTIME, &times).map(drop)
}

/// Makes a TAP interface (the kernel's Documentation/networking/tuntap.rst), or takes one that nobody has open.
fn open_tap(name: &[u8; NAME]) -> Result<OwnedFd, super::Errno> {
    let flags = libc::O_RDWR | libc::O_NONBLOCK | libc::O_CLOEXEC;
    // SAFETY: a C string; the descriptor is nobody else's.
    let tap = unsafe { OwnedFd::from_raw_fd(descriptor(libc::open(c"/dev/net/tun".as_ptr(), flags))?) };
    // SAFETY: plain integers and arrays of them, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name.iter_mut().zip(name).for_each(|(to, from)| *to = *from as libc::c_char);
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the structure is what the request takes.
    check(unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETIFF as _, &raw const request) })?;
    Ok(tap)
}
