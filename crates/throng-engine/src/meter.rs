//! Readings of many replicas at a bounded cost.
//!
//! CPU time is read each time: the kernel tells that of one process by its number, in a single call without any file, and
//! most replicas have one process. Where there are several the group's counter is opened. All else costs some 40 µs,
//! most of it the network's counters, so each time only as many replicas as a budget of CPU time allows are read in
//! full: first those whose CPU time has moved, among them first those whose last full reading is the oldest, then the
//! others likewise. A replica whose processes did nothing has hardly changed: only the kernel can have received for it,
//! or taken memory from it. What a reading says of age is true of all of it but CPU time; of that, what short-lived
//! children of a single process used (health checks, say) is found by full readings, too. A replica is read in full when
//! it is read for the first time, whatever that costs.
//!
//! No file stays open. One descriptor costs the kernel some 5 KB, most of it the buffer of its text, and one for each of
//! ten thousand replicas is half of what many hosts allow. And `/proc/PID/net/dev`, while open, keeps the network of a
//! replica that has ended, and with it a hardware address that the next one with its name needs.

use crate::cgroup::{Cgroups, Group};
use crate::engine::Core;
use crate::replica::Replica;
use crate::sys::process_time;
use crate::usage::{self, Usage};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use throng_model::replica::{ReplicaId, Statistics};

/// CPU time that one time may take. With what the supervisor does with the figures of ten thousand replicas that stays
/// below a tenth of a core, once a second.
const BUDGET: Duration = Duration::from_millis(75);
/// Of it what full readings have at least: the CPU counters of ever more replicas must not leave nothing for them.
const FULL_READINGS: Duration = Duration::from_millis(20);
/// Full readings between two looks at the budget, which cost a system call each.
const READ_BETWEEN_LOOKS: usize = 8;

/// What a replica used when it was last asked, and what it is asked with.
pub struct Meter {
    /// Of the first process; another life of the replica has another one and counts from zero.
    pid: u32,
    group: Group,
    /// It had more than one process when it was last read in full.
    several: bool,
    /// CPU time of the group and of the first process at that time.
    base: (Duration, Duration),
    last: Statistics,
    read_at: Instant,
}

/// Of each replica that runs what it uses, in the order of the ids.
pub fn read(core: &Core, ids: &[ReplicaId]) -> Vec<Option<Statistics>> {
    let begin = thread_time();
    let running = look_up(core, ids);
    match core.cgroups {
        Cgroups::None(_) => by_sessions(core, &running),
        _ => by_groups(core, &running, begin + BUDGET),
    }
}

type Asked = Option<(Arc<Replica>, u32)>;

/// Those that run, with their first process. Ids mostly come in their order and of one project, and so do replicas: to
/// look each of them up among ten thousand would take longer than to read its counter.
fn look_up(core: &Core, ids: &[ReplicaId]) -> Vec<Asked> {
    let known = ids.first().map(|id| core.of_project(&id.project)).unwrap_or_default();
    let mut known = known.into_iter().peekable();
    let find = |id: &ReplicaId| {
        while known.next_if(|replica| replica.id < *id).is_some() {}
        let replica = known.next_if(|replica| replica.id == *id).or_else(|| core.replica(id))?;
        let pid = replica.pid()?;
        Some((replica, pid))
    };
    ids.iter().map(find).collect()
}

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

/// `until`: the CPU time of this thread at which the budget is spent.
fn by_groups(core: &Core, running: &[Asked], until: Duration) -> Vec<Option<Statistics>> {
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
            None => *meter = Meter::open(core, replica, *pid),
        }
    }
    let until = until.max(thread_time() + FULL_READINGS);
    waiting.sort_unstable();
    for chunk in waiting.chunks(READ_BETWEEN_LOOKS) {
        if thread_time() >= until {
            break;
        }
        for (replica, _) in chunk.iter().filter_map(|(.., place)| running[*place].as_ref()) {
            if let Some(meter) = replica.meter().as_mut() {
                meter.read(contained);
            }
        }
    }
    let now = Instant::now();
    let tell = |(replica, _): &(Arc<Replica>, u32)| Some(replica.meter().as_ref()?.statistics(now));
    running.iter().map(|asked| asked.as_ref().and_then(tell)).collect()
}

impl Meter {
    /// With a first full reading.
    fn open(core: &Core, replica: &Replica, pid: u32) -> Option<Meter> {
        let group = core.cgroups.group(&replica.id.project, &replica.id.name())?.existing();
        let (base, last) = (Default::default(), Statistics::default());
        let mut meter = Meter { pid, group, several: false, base, last, read_at: Instant::now() };
        meter.read(core.contained());
        Some(meter)
    }

    /// Reads the CPU time. Tells whether it has moved since the last time; nothing if the replica has ended.
    fn look(&mut self) -> Option<bool> {
        let cpu = match self.several {
            true => self.counter()?,
            false => self.base.0 + process_time(self.pid)?.saturating_sub(self.base.1),
        };
        let moved = cpu > self.last.cpu;
        self.last.cpu = cpu.max(self.last.cpu);
        Some(moved)
    }

    /// CPU time of the whole group.
    fn counter(&self) -> Option<Duration> {
        usage::kernel_file(&self.group.counter()?, |text| self.group.cpu(text))
    }

    /// Reads everything.
    fn read(&mut self, contained: bool) {
        let reading = self.group.read(self.pid);
        self.several = reading.several;
        // First the process: what it uses between the two readings must not be counted twice.
        if let Some((process, group)) = process_time(self.pid).zip(self.counter()) {
            // Both are read at slightly different times; time does not run backwards for that.
            self.base = (group.max(self.last.cpu), process);
            self.last.cpu = self.base.0;
        }
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

    fn statistics(&self, now: Instant) -> Statistics {
        Statistics { age: now.saturating_duration_since(self.read_at), ..self.last }
    }
}

/// CPU time of this thread: what others take of the cores meanwhile is not ours.
fn thread_time() -> Duration {
    let clock = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(clock.tv_sec.unsigned_abs(), u32::try_from(clock.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_asked_for_its_time_by_number() {
        let own = std::process::id();
        let before = process_time(own).expect("this process' time");
        let begin = Instant::now();
        while process_time(own).is_some_and(|now| now < before + Duration::from_millis(5)) {
            assert!(begin.elapsed() < Duration::from_secs(60), "its time stands still");
        }
        // Beyond the kernel's largest process id, 2^22.
        assert!(process_time(u32::MAX).is_none() && process_time((1 << 22) + 1).is_none());
    }
}
