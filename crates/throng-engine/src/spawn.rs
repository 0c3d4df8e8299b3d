//! Threads that make children. Each sleeps in `clone` while its child prepares itself (see [`crate::child`]), so
//! whoever asked does the parent's part meanwhile.

use crate::child::{GIVE_UP, GO, Job, MAX_BROUGHT, NO_LISTENER};
use crate::sys::{self, Errno, Stack};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

/// Children that are being made at the same time; each needs a thread.
pub const MAX_STARTING: usize = 8;

type Answer = Result<u32, Errno>;

struct Order {
    job: Arc<Job>,
    answer: mpsc::Sender<Answer>,
}

pub struct Spawner {
    orders: Mutex<mpsc::Sender<Order>>,
}

/// A child between `clone` and `execve`.
pub struct Starting {
    job: Arc<Job>,
    answer: mpsc::Receiver<Answer>,
    pub pidfd: OwnedFd,
    finished: bool,
}

/// Where and why a child gave up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// Index of the operation; `None` if the child could not be made.
    pub step: Option<usize>,
    pub errno: Errno,
}

impl Spawner {
    pub fn new() -> io::Result<Self> {
        let (orders, receiver) = mpsc::channel::<Order>();
        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..MAX_STARTING {
            let (receiver, mut stack, mut seats) = (receiver.clone(), Stack::new()?, seats()?);
            thread::Builder::new().name("throng-spawn".into()).spawn(move || {
                sys::block_signals();
                loop {
                    let order = match receiver.lock() {
                        Ok(receiver) => receiver.recv(),
                        Err(_) => return,
                    };
                    let Ok(order) = order else { return };
                    make(&order, &mut stack, &mut seats);
                }
            })?;
        }
        Ok(Spawner { orders: Mutex::new(orders) })
    }

    /// Makes the child and returns as soon as it runs.
    pub fn spawn(&self, job: Job) -> Result<Starting, Failure> {
        let job = Arc::new(job);
        let (sender, answer) = mpsc::channel();
        let order = Order { job: job.clone(), answer: sender };
        let sent = self.orders.lock().map(|orders| orders.send(order).is_ok()).unwrap_or(false);
        if !sent {
            return Err(Failure { step: None, errno: Errno::CANCELLED });
        }
        Starting::begin(job, answer)
    }

    /// As [`Spawner::spawn`], in the PID namespace of another process. Having changed that namespace the thread is good
    /// for nothing else.
    pub fn spawn_beside(&self, job: Job, init: Arc<OwnedFd>) -> Result<Starting, Failure> {
        spawn_alone(job, move || sys::setns(init.as_raw_fd(), libc::CLONE_NEWPID))
    }
}

/// Makes the child from a thread of its own, which is in the namespaces of the calling one and prepares itself first.
/// The job can bring nothing along.
pub fn spawn_alone(
    job: Job,
    first: impl FnOnce() -> Result<(), Errno> + Send + 'static,
) -> Result<Starting, Failure> {
    let job = Arc::new(job);
    let (sender, answer) = mpsc::channel();
    let order = Order { job: job.clone(), answer: sender };
    let run = move || {
        sys::block_signals();
        match (first(), Stack::new()) {
            (Ok(()), Ok(mut stack)) => make(&order, &mut stack, &mut []),
            (Err(errno), _) => refuse(&order, errno),
            (_, Err(error)) => refuse(&order, Errno(error.raw_os_error().unwrap_or(libc::ENOMEM))),
        }
    };
    thread::Builder::new()
        .name("throng-exec".into())
        .spawn(run)
        .map_err(|e| Failure { step: None, errno: Errno(e.raw_os_error().unwrap_or(libc::EAGAIN)) })?;
    Starting::begin(job, answer)
}

/// A descriptor's place that stays taken, so that what a child brings along has a small number (see
/// [`sys::own_descriptors`]).
struct Seat {
    seat: OwnedFd,
    empty: OwnedFd,
}

/// One for each descriptor that a job can bring along.
fn seats() -> io::Result<Vec<Seat>> {
    (0..MAX_BROUGHT).map(|_| Seat::new()).collect()
}

impl Seat {
    fn new() -> io::Result<Self> {
        let empty = OwnedFd::from(fs::File::open("/dev/null")?);
        Ok(Seat { seat: empty.try_clone()?, empty })
    }

    fn put(&mut self, fd: &OwnedFd) -> io::Result<RawFd> {
        rustix::io::dup3(fd, &mut self.seat, rustix::io::DupFlags::CLOEXEC)?;
        Ok(self.seat.as_raw_fd())
    }

    /// What stays open keeps the replica's namespaces alive.
    fn clear(&mut self) {
        // Cannot fail: both are open.
        let _ = rustix::io::dup3(&self.empty, &mut self.seat, rustix::io::DupFlags::CLOEXEC);
    }
}

fn make(order: &Order, stack: &mut Stack, seats: &mut [Seat]) {
    for (place, fd) in order.job.brought.iter().enumerate() {
        let Some(fd) = fd else { continue };
        match seats.get_mut(place).map(|seat| seat.put(fd)) {
            Some(Ok(number)) => order.job.brought_as[place].store(number, Ordering::Release),
            Some(Err(error)) => return refuse(order, Errno(error.raw_os_error().unwrap_or(libc::EMFILE))),
            None => return refuse(order, Errno::MANY),
        }
    }
    let made = sys::clone_child(&order.job, stack);
    seats.iter_mut().for_each(Seat::clear);
    if crate::rootless::entered() {
        sys::stay_dumpable();
    }
    match made {
        // Nobody listens any more if the order was given up; the child has ended then.
        Ok(pid) => drop(order.answer.send(Ok(pid))),
        Err(errno) => refuse(order, errno),
    }
}

fn refuse(order: &Order, errno: Errno) {
    // As above.
    let _ = order.answer.send(Err(errno));
    order.job.report.alive.store(1, Ordering::Release);
    sys::wake(&order.job.report.alive);
}

impl Starting {
    fn begin(job: Arc<Job>, answer: mpsc::Receiver<Answer>) -> Result<Self, Failure> {
        sys::wait_while(&job.report.alive, 0);
        let fd: RawFd = job.report.pidfd.load(Ordering::Acquire);
        if fd < 0 {
            let errno = answer.recv().ok().and_then(Result::err).unwrap_or(Errno::CANCELLED);
            return Err(Failure { step: None, errno });
        }
        Ok(Starting { pidfd: sys::adopt_descriptor(fd), job, answer, finished: false })
    }

    /// The child's pid on the host, readable while it is alive.
    pub fn pid(&self) -> io::Result<u32> {
        let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", self.pidfd.as_raw_fd()))?;
        pid_in(&text).ok_or_else(|| io::Error::other("the process has ended"))
    }

    /// Lets the child go on, waits for its `execve`, and returns its pid and descriptor.
    pub fn finish(mut self) -> Result<(u32, OwnedFd), Failure> {
        // First: a program that runs must be one that can be followed.
        let pidfd = self.pidfd.try_clone();
        let pidfd = pidfd
            .map_err(|e| Failure { step: None, errno: Errno(e.raw_os_error().unwrap_or(libc::EMFILE)) })?;
        self.release(GO);
        Ok((self.wait()?, pidfd))
    }

    /// Waits for the listener that [`crate::child::Op::Notify`] of the child makes; `None` if the child has failed
    /// before, or the listener has been taken. Only for a child with that operation.
    pub fn listener(&self) -> Option<OwnedFd> {
        sys::wait_while(&self.job.report.listener, 0);
        self.take_listener()
    }

    fn take_listener(&self) -> Option<OwnedFd> {
        match self.job.report.listener.swap(NO_LISTENER, Ordering::AcqRel) {
            0 | NO_LISTENER => None,
            number => Some(sys::adopt_descriptor(number as RawFd - 1)),
        }
    }

    fn release(&self, word: u32) {
        self.job.report.go.store(word, Ordering::Release);
        sys::wake(&self.job.report.go);
    }

    fn wait(&mut self) -> Result<u32, Failure> {
        let answer = self.answer.recv().unwrap_or(Err(Errno::CANCELLED));
        self.finished = true;
        let pid = answer.map_err(|errno| Failure { step: None, errno })?;
        match self.job.report.errno.load(Ordering::Acquire) {
            0 => Ok(pid),
            errno => {
                let step = self.job.report.step.load(Ordering::Relaxed) as usize;
                reap(&self.pidfd);
                Err(Failure { step: Some(step), errno: Errno(errno) })
            }
        }
    }

    /// Whether the child has met an error; that it has not may change at any moment.
    pub fn has_failed(&self) -> bool {
        self.job.report.errno.load(Ordering::Acquire) != 0
    }

    pub fn job(&self) -> Arc<Job> {
        self.job.clone()
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if !self.finished {
            self.release(GIVE_UP);
            // The outcome of a child that was given up matters to nobody; `wait` reaps it.
            let _ = self.wait();
        }
        drop(self.take_listener());
    }
}

/// The pid in what the kernel tells about a pidfd.
pub fn pid_in(about: &str) -> Option<u32> {
    about.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok())
}

/// Waits for a child that is ending and lets the kernel forget it; there is nothing to learn from its status.
pub fn reap(pidfd: &OwnedFd) {
    use std::os::fd::AsFd;
    // Fails only if somebody else has taken its status.
    let _ = rustix::process::waitid(
        rustix::process::WaitId::PidFd(pidfd.as_fd()),
        rustix::process::WaitIdOptions::EXITED,
    );
}
