//! Readings of many replicas at a bounded cost.
//!
//! The CPU time of every replica is read each time: the kernel tells that of one process by its number, in a single call
//! without any file, and most replicas have one process. Where there are several the group's counter is opened.
//!
//! It also says what need not be read. A replica whose CPU time stands still has started no task, has read, written and
//! sent nothing and taken nothing in: its figures are what they were, but for memory that the kernel has taken back and
//! packets that it has dealt with by itself. So all else is read within a budget of CPU time: first of those whose CPU
//! time has moved, in full, among them first those that were read the longest ago; then memory and traffic of the others,
//! likewise. What a reading says of age is true of all of it but CPU time. What others in a replica than its first
//! process use, health checks say, is found within [`WHOLE_EVERY`], and looked for at each reading in full from then on.
//! A replica is read in full when it is read for the first time, whatever that costs.
//!
//! Interfaces are asked for many at a time ([`crate::traffic`]).
//!
//! No file stays open. One descriptor costs the kernel some 5 KB, most of it the buffer of its text, and one for each of
//! ten thousand replicas is half of what many hosts allow. And `/proc/PID/net/dev`, while open, keeps the network of a
//! replica that has ended, and with it a hardware address that the next one with its name needs.

use crate::cgroup::{Cgroups, Group};
use crate::engine::Core;
use crate::network::FIRST_INDEX;
use crate::replica::Replica;
use crate::sys::process_time;
use crate::traffic::{Interface, Traffic};
use crate::usage::{self, Usage};
use std::collections::HashMap;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use throng_model::replica::{ReplicaId, Statistics};

/// CPU time that one time may take. With what the supervisor does with the figures of ten thousand replicas that stays
/// below a tenth of a core, once a second.
const BUDGET: Duration = Duration::from_millis(75);
/// Of it what the rest has at least: the counters of ever more replicas must not leave nothing for it.
const FULL_READINGS: Duration = Duration::from_millis(20);
/// Readings between two looks at the budget. Their interfaces are asked for at once.
const READ_BETWEEN_LOOKS: usize = 32;
/// A replica that has used no CPU time is read in full after this time all the same.
const WHOLE_EVERY: Duration = Duration::from_secs(10);
/// CPU time of a group that is put down to its first process all the same: the two are read one after the other.
const UNEXPLAINED: Duration = Duration::from_micros(200);
/// Namespaces that get a number each time: with ten thousand of them one takes 0.1 ms.
const NUMBERED_EACH_TIME: usize = 256;

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
    /// Others than the first process, children that ended soon say, used CPU time before the group was last asked.
    helped: bool,
    /// When the memory was read, when all else was, and when the group was asked for its CPU time.
    read_at: Instant,
    whole_at: Instant,
    group_at: Instant,
    /// Interfaces in its namespace.
    legs: u32,
    namespace: Namespace,
}

/// How the traffic of a replica is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Namespace {
    /// From a file, until its namespace has a number.
    Unnumbered,
    Numbered(u32),
    /// From a file: the kernel, or its rights there, allow nothing else.
    Apart,
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
    let mut traffic = traffic(core);
    let mut numbered = 0;
    // Those not read yet: whether they were idle since the last time, when they were read, their place.
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
        if let (Some(known), Some(traffic)) = (meter.as_mut(), traffic.as_mut())
            && numbered < NUMBERED_EACH_TIME
        {
            numbered += usize::from(known.number(traffic));
        }
    }
    let until = until.max(thread_time() + FULL_READINGS);
    waiting.sort_unstable();
    for chunk in waiting.chunks(READ_BETWEEN_LOOKS) {
        if thread_time() >= until {
            break;
        }
        let chosen = chunk.iter().filter_map(|(idle, _, place)| Some((*idle, &running[*place].as_ref()?.0)));
        let chosen: Vec<(bool, &Arc<Replica>)> = chosen.collect();
        if let Some(traffic) = traffic.as_mut() {
            read_traffic(traffic, &chosen);
        }
        for (idle, replica) in chosen {
            match replica.meter().as_mut() {
                Some(meter) if idle && meter.whole_at.elapsed() < WHOLE_EVERY => meter.read_memory(contained),
                Some(meter) => meter.read(contained),
                None => {}
            }
        }
    }
    let now = Instant::now();
    let tell = |(replica, _): &(Arc<Replica>, u32)| Some(replica.meter().as_ref()?.statistics(now));
    running.iter().map(|asked| asked.as_ref().and_then(tell)).collect()
}

/// The socket, if there can be one. Opened when it is first needed.
fn traffic(core: &Core) -> MutexGuard<'_, Option<Traffic>> {
    // A panic in between leaves at worst an answer unread, which the next request passes over.
    let mut traffic = core.traffic.lock().unwrap_or_else(PoisonError::into_inner);
    if traffic.is_none() && core.contained() {
        match core.fabric.traffic() {
            Ok(opened) => *traffic = Some(opened),
            Err(error) => tracing::debug!("traffic is read from files: {error}"),
        }
    }
    traffic
}

/// What the interfaces of those have carried whose namespaces have a number.
fn read_traffic(traffic: &mut Traffic, chosen: &[(bool, &Arc<Replica>)]) {
    let (mut interfaces, mut places) = (Vec::new(), Vec::new());
    for (place, (_, replica)) in chosen.iter().enumerate() {
        if let Some(meter) = replica.meter().as_ref()
            && let Namespace::Numbered(namespace) = meter.namespace
        {
            let legs = (FIRST_INDEX..).take(meter.legs as usize);
            interfaces.extend(legs.map(|index| Interface { namespace, index }));
            places.resize(interfaces.len(), place);
        }
    }
    let mut sums: Vec<Option<(u64, u64)>> = vec![Some((0, 0)); chosen.len()];
    let told = traffic.read(&interfaces, |number, carried| {
        let sum = &mut sums[places[number]];
        *sum = sum.zip(carried).map(|(sum, one)| (sum.0 + one.0, sum.1 + one.1));
    });
    if let Err(error) = told {
        // Not all have been answered; the next time they are asked for again.
        tracing::debug!("not all traffic is read: {error}");
        return;
    }
    places.dedup();
    for place in places {
        if let Some(meter) = chosen[place].1.meter().as_mut() {
            match sums[place] {
                Some(sum) => (meter.last.network_received, meter.last.network_sent) = sum,
                // Its interfaces are not what they were.
                None => meter.namespace = Namespace::Apart,
            }
        }
    }
}

impl Meter {
    /// With a first full reading.
    fn open(core: &Core, replica: &Replica, pid: u32) -> Option<Meter> {
        let group = core.group_of(replica)?.existing();
        let (base, last) = (Default::default(), Statistics::default());
        let legs = replica.inner().spec.as_ref().map_or(0, |spec| spec.networks.len() as u32);
        let now = Instant::now();
        let mut meter = Meter {
            pid,
            group,
            several: false,
            base,
            last,
            // So that the group is asked at once.
            helped: true,
            read_at: now,
            whole_at: now,
            group_at: now,
            legs,
            namespace: Namespace::Unnumbered,
        };
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

    /// Takes the CPU time of the whole group for what has been used so far.
    fn ask_group(&mut self) {
        // First the process: what it uses between the two readings must not be counted twice.
        let Some((process, group)) = process_time(self.pid).zip(self.counter()) else { return };
        let own = process.saturating_sub(self.base.1);
        self.helped = group.saturating_sub(self.base.0) > own + UNEXPLAINED;
        // Both are read at slightly different times; time does not run backwards for that.
        self.base = (group.max(self.last.cpu), process);
        self.last.cpu = self.base.0;
        self.group_at = Instant::now();
    }

    /// Has the namespace numbered, if it is not yet. Tells whether that was tried.
    fn number(&mut self, traffic: &mut Traffic) -> bool {
        if self.namespace != Namespace::Unnumbered {
            return false;
        }
        self.namespace = match traffic.number_of(self.pid) {
            Ok(number) => Namespace::Numbered(number),
            Err(error) => {
                tracing::debug!("the traffic of process {} is read from a file: {error}", self.pid);
                Namespace::Apart
            }
        };
        true
    }

    /// What the kernel may change though nothing runs.
    fn read_memory(&mut self, contained: bool) {
        if self.several {
            return self.read(contained);
        }
        (self.last.memory, self.last.memory_unreclaimable) = self.group.read_memory(self.pid);
        self.read_files(contained);
        self.read_at = Instant::now();
    }

    /// The traffic of a namespace without a number.
    fn read_files(&mut self, contained: bool) {
        if contained && !matches!(self.namespace, Namespace::Numbered(_)) {
            (self.last.network_received, self.last.network_sent) = usage::traffic(self.pid);
        }
    }

    /// Reads everything.
    fn read(&mut self, contained: bool) {
        let reading = self.group.read(self.pid);
        let several = std::mem::replace(&mut self.several, reading.several);
        if several || self.several || self.helped || self.group_at.elapsed() >= WHOLE_EVERY {
            self.ask_group();
        }
        self.read_files(contained);
        self.last = Statistics {
            cpu: self.last.cpu,
            memory: reading.memory,
            memory_unreclaimable: reading.unreclaimable,
            memory_limit: reading.memory_limit,
            pids: reading.pids,
            storage_read: reading.storage.map(|storage| storage.0),
            storage_written: reading.storage.map(|storage| storage.1),
            pressure: reading.pressure,
            age: Duration::ZERO,
            ..self.last
        };
        (self.read_at, self.whole_at) = (Instant::now(), Instant::now());
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
