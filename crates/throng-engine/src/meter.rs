//! Readings of many replicas at a bounded cost.
//!
//! Each replica's CPU counter is read each time: it stays open, which makes that ten times cheaper than to open it. All
//! else is opened anew and costs some 25 µs, most of it the network's counters, so each time only as many replicas as a
//! budget of CPU time allows are read in full: first those whose CPU counter has moved, among them first those whose
//! last full reading is the oldest, then the others likewise. A replica whose processes did nothing has hardly changed:
//! only the kernel can have received for it, or taken memory from it. What a reading says of age is true of all of it
//! but CPU time. A replica is read in full when it is read for the first time, whatever that costs.
//!
//! The other files stay closed. One descriptor costs the kernel some 5 KB, most of it the buffer of its text: four more
//! for each of ten thousand replicas were 200 MB. And `/proc/PID/net/dev`, while open, keeps the network of a replica
//! that has ended, and with it a hardware address that the next one with its name needs.

use crate::cgroup::{Cgroups, Group};
use crate::engine::Core;
use crate::replica::Replica;
use crate::usage::{self, Usage};
use rustix::fs::{Mode, OFlags};
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};
use throng_model::replica::{ReplicaId, Statistics};

/// CPU time that the full readings of one time may take. With the CPU counters of ten thousand replicas and what the
/// supervisor does with all of it that stays below a tenth of a core, once a second.
const BUDGET: Duration = Duration::from_millis(60);
/// Full readings between two looks at the budget, which cost a system call each.
const READ_BETWEEN_LOOKS: usize = 8;
/// Of the descriptors that this process may have, one of this many for meters; beyond that counters are opened anew.
const DESCRIPTORS_SHARE: u64 = 4;

/// What a replica used when it was last asked, and what it is asked with.
pub struct Meter {
    /// Of the first process; another life of the replica has another one and counts from zero.
    pid: u32,
    group: Group,
    /// The file with the CPU time, if it stays open.
    counter: Option<OwnedFd>,
    last: Statistics,
    read_at: Instant,
}

/// Of each replica that runs what it uses, in the order of the ids.
pub fn read(core: &Core, ids: &[ReplicaId]) -> Vec<Option<Statistics>> {
    let running = ids.iter().map(|id| {
        let replica = core.replica(id)?;
        let pid = replica.running()?.pid;
        Some((replica, pid))
    });
    let running: Vec<_> = running.collect();
    match core.cgroups {
        Cgroups::None(_) => by_sessions(core, &running),
        _ => by_groups(core, &running, BUDGET),
    }
}

type Asked = Option<(Arc<Replica>, u32)>;

/// One pass over all processes of the host is all there is.
fn by_sessions(core: &Core, running: &[Asked]) -> Vec<Option<Statistics>> {
    let pids: Vec<u32> = running.iter().flatten().map(|(_, pid)| *pid).collect();
    let found: HashMap<u32, Usage> = usage::of_sessions(&pids);
    let statistics = |pid: u32| {
        let usage = found.get(&pid).copied().unwrap_or_default();
        let (network_received, network_sent) = if core.contained() { usage::traffic(pid) } else { (0, 0) };
        Statistics {
            cpu: usage.cpu,
            memory: usage.resident,
            memory_unreclaimable: usage.anonymous,
            pids: usage.threads,
            network_received,
            network_sent,
            ..Statistics::default()
        }
    };
    running.iter().map(|asked| asked.as_ref().map(|(_, pid)| statistics(*pid))).collect()
}

fn by_groups(core: &Core, running: &[Asked], budget: Duration) -> Vec<Option<Statistics>> {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    let keep = (running.len() as u64) <= limit / DESCRIPTORS_SHARE;
    let contained = core.contained();
    // Those not read in full yet: whether they were idle since the last time, when they were read, their place.
    let mut waiting: Vec<(bool, Instant, usize)> = Vec::new();
    for (place, (replica, pid)) in running.iter().enumerate().filter_map(|(n, r)| Some((n, r.as_ref()?))) {
        let mut meter = replica.meter();
        match meter.as_mut().filter(|meter| meter.pid == *pid) {
            Some(known) => match known.look() {
                Some(moved) => waiting.push((!moved, known.read_at, place)),
                // Its group has gone: it ends just now, and the next time it does not run any more.
                None => known.read(contained),
            },
            None => *meter = Meter::open(core, replica, *pid, keep),
        }
    }
    let begin = thread_time();
    waiting.sort_unstable();
    for chunk in waiting.chunks(READ_BETWEEN_LOOKS) {
        if thread_time().saturating_sub(begin) >= budget {
            break;
        }
        for (replica, _) in chunk.iter().filter_map(|(.., place)| running[*place].as_ref()) {
            if let Some(meter) = replica.meter().as_mut() {
                meter.read(contained);
            }
        }
    }
    let tell = |(replica, _): &(Arc<Replica>, u32)| replica.meter().as_ref().map(Meter::statistics);
    running.iter().map(|asked| asked.as_ref().and_then(tell)).collect()
}

impl Meter {
    /// With a first full reading.
    fn open(core: &Core, replica: &Replica, pid: u32, keep: bool) -> Option<Meter> {
        let group = core.cgroups.group(&replica.id.project, &replica.id.name())?.existing();
        let counter = group
            .counter()
            .filter(|_| keep)
            .and_then(|path| rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok());
        let last = Statistics::default();
        let mut meter = Meter { pid, group, counter, last, read_at: Instant::now() };
        meter.look();
        meter.read(core.contained());
        Some(meter)
    }

    /// Reads the CPU counter. Tells whether it has moved since the last time; nothing if it is not there any more.
    fn look(&mut self) -> Option<bool> {
        let cpu = match &self.counter {
            Some(file) => {
                usage::kernel_text(|buffer| rustix::io::pread(file, buffer, 0), |text| self.group.cpu(text))
            }
            None => usage::kernel_file(&self.group.counter()?, |text| self.group.cpu(text)),
        }?;
        let moved = cpu != self.last.cpu;
        self.last.cpu = cpu;
        Some(moved)
    }

    /// Reads all but the CPU counter.
    fn read(&mut self, contained: bool) {
        let reading = self.group.read(self.pid);
        let (received, sent) = if contained { usage::traffic(self.pid) } else { (0, 0) };
        self.last = Statistics {
            cpu: self.last.cpu,
            memory: reading.memory,
            memory_unreclaimable: reading.unreclaimable,
            memory_limit: reading.memory_limit,
            pids: reading.pids,
            network_received: received,
            network_sent: sent,
            storage_read: reading.storage.map(|storage| storage.0),
            storage_written: reading.storage.map(|storage| storage.1),
            pressure: reading.pressure,
            age: Duration::ZERO,
        };
        self.read_at = Instant::now();
    }

    fn statistics(&self) -> Statistics {
        Statistics { age: self.read_at.elapsed(), ..self.last }
    }
}

/// CPU time of this thread: what others take of the cores meanwhile is not ours.
fn thread_time() -> Duration {
    let clock = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(clock.tv_sec.unsigned_abs(), u32::try_from(clock.tv_nsec).unwrap_or(0))
}
