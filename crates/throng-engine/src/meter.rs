//! Readings of many replicas at a bounded cost.
//!
//! The CPU time of every replica is read each time: the kernel tells that of one process by its number, in a single call
//! without any file, and most replicas have one process. Where there are several the group's counter is opened.
//!
//! It also says what need not be read. A replica whose CPU time stands still has started no task, has read and written
//! nothing: its figures are what they were, but for memory that the kernel has taken back, and for packets that the
//! kernel has dealt with by itself; of which `quiet.rs` finds out where there were none. So all else is read within a
//! budget of CPU time: first of those whose CPU time has moved, in full, among them first those that were read the
//! longest ago; then memory, and traffic where there may have been some, of the others, likewise. What a reading says of
//! age is true of all of it but CPU time. What others in a replica than its first process use is found when they are
//! brought in ([`Meter::joined`]) or within [`WHOLE_EVERY`], children that ended soon say, and looked for at each reading
//! in full from then on. A replica is read in full when it is read for the first time, whatever that costs.
//!
//! Interfaces are asked for many at a time ([`crate::traffic`]).
//!
//! The file with the memory of a first process stays open, as far as there is room ([`Kept`]); no other does. One for
//! each figure of ten thousand replicas would be more than many hosts allow. And `/proc/PID/net/dev`, while open, keeps
//! the network of a replica that has ended, and with it a hardware address that the next one with its name needs.

use crate::cgroup::{Cgroups, Group};
use crate::engine::Core;
use crate::network::FIRST_INDEX;
use crate::replica::Replica;
use crate::sys::process_time;
use crate::traffic::{Interface, Traffic};
use crate::usage::{self, Kept, Usage};
use std::collections::HashMap;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use throng_model::replica::{Attachment, ReplicaId, Statistics};

/// CPU time that one reading may take: three quarters of a tenth of a core, once a second. What the supervisor does with
/// the figures comes on top; `process_cpu_seconds_total` of its own figures says what all of it takes.
const BUDGET: Duration = Duration::from_millis(75);
/// Of it what the rest has at least: the counters of ever more replicas must not leave nothing for it.
const FULL_READINGS: Duration = Duration::from_millis(20);
/// Readings between two looks at the budget. Their interfaces are asked for at once.
const READ_BETWEEN_LOOKS: usize = 32;
/// A replica that has used no CPU time is read in full after this time all the same.
const WHOLE_EVERY: Duration = Duration::from_secs(10);
/// CPU time of a group that is put down to its first process all the same: the two are read one after the other.
const UNEXPLAINED: Duration = Duration::from_micros(200);
/// Readings in which the traffic of all is read once, of those too that have carried nothing by all appearances.
const ALL_IN_TURNS: usize = 8;
/// Namespaces that get a number each time: with ten thousand of them one takes 0.1 ms.
const NUMBERED_EACH_TIME: usize = 128;

/// What a replica used when it was last asked, and what it is asked with.
pub struct Meter {
    /// Of the first process; another life of the replica has another one and counts from zero.
    pid: u32,
    group: Group,
    /// It had more than one process when it was last read in full.
    several: bool,
    /// Another process has been brought into it since then.
    joined: bool,
    /// The memory of its first process.
    held: Kept,
    /// Whether that may keep a file open.
    keeps: bool,
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
    /// The parents that these are behind, if they are known.
    behind: Option<Vec<u32>>,
    /// The traffic may have changed since it was read.
    unread: bool,
    /// When it was read, and the last time that it was known to be so still.
    traffic_read_at: Instant,
    traffic_known_at: Instant,
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
    let mut traffic = traffic(core);
    let mut due = look(core, running, traffic.as_mut());
    let until = until.max(thread_time() + FULL_READINGS);
    let mut numbers = NUMBERED_EACH_TIME;
    due.sort_unstable();
    for chunk in due.chunks(READ_BETWEEN_LOOKS) {
        if thread_time() >= until {
            break;
        }
        let chosen: Vec<&Arc<Replica>> = chunk.iter().filter_map(|due| replica(running, due.place)).collect();
        if let Some(traffic) = traffic.as_mut() {
            read_traffic(traffic, &chosen, &mut numbers, |meter| meter.unread);
        }
        for (due, replica) in chunk.iter().zip(chosen) {
            match replica.meter().as_mut() {
                Some(meter) if due.idle && meter.whole_at.elapsed() < WHOLE_EVERY => {
                    meter.read_memory(core.contained());
                }
                Some(meter) => meter.read(core.contained()),
                None => {}
            }
        }
    }
    if let Some(traffic) = traffic.as_mut() {
        read_in_turn(traffic, running, &mut numbers, until);
    }
    let now = Instant::now();
    let tell = |(replica, _): &(Arc<Replica>, u32)| Some(replica.meter().as_ref()?.statistics(now));
    running.iter().map(|asked| asked.as_ref().and_then(tell)).collect()
}

fn replica(running: &[Asked], place: usize) -> Option<&Arc<Replica>> {
    running.get(place)?.as_ref().map(|(replica, _)| replica)
}

/// A replica that has been read before. What is to be read first comes first.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    /// Since it was read last.
    idle: bool,
    read_at: Instant,
    place: usize,
}

/// Reads the CPU time of all, and finds out whose traffic may have changed. One that is new is read in full.
fn look(core: &Core, running: &[Asked], traffic: Option<&mut Traffic>) -> Vec<Due> {
    let contained = core.contained();
    let mut room = room(core);
    let (mut due, mut behind) = (Vec::with_capacity(running.len()), HashMap::new());
    // Some that nobody asks about may have sent something to those that are asked about.
    let lives = core.lives();
    let some = running.iter().flatten().count() != lives.1;
    for (place, (replica, pid)) in running.iter().enumerate().filter_map(|(n, r)| Some((n, r.as_ref()?))) {
        let mut meter = replica.meter();
        let mut ran = true;
        match meter.as_mut().filter(|meter| meter.pid == *pid) {
            Some(known) => match known.look() {
                Some(moved) => {
                    ran = moved;
                    due.push(Due { idle: !moved, read_at: known.read_at, place });
                }
                // Its group has gone: it ends just now, and the next time it does not run any more.
                None => known.read(contained),
            },
            None => *meter = Meter::open(core, replica, *pid),
        }
        let Some(known) = meter.as_mut() else { continue };
        known.keep(&mut room);
        known.find_parents(core, replica);
        for parent in known.behind.iter().flatten() {
            *behind.entry(*parent).or_insert(some) |= ran;
        }
    }
    let Some(traffic) = traffic else { return due };
    let mut parents = core.parents.lock().unwrap_or_else(PoisonError::into_inner);
    let now = Instant::now();
    parents.look(traffic, lives, &behind);
    for replica in due.iter().filter_map(|due| replica(running, due.place)) {
        if let Some(meter) = replica.meter().as_mut() {
            let quiet = meter.behind.as_ref().is_some_and(|behind| parents.are_quiet(behind));
            meter.unread |= !quiet;
            if !meter.unread {
                meter.traffic_known_at = now;
            }
        }
    }
    due
}

/// What is known not to have moved is read all the same, so many each time, those first that were read the longest ago.
fn read_in_turn(traffic: &mut Traffic, running: &[Asked], numbers: &mut usize, until: Duration) {
    let read_at = |place: usize| {
        let meter = replica(running, place)?.meter();
        meter.as_ref().filter(|meter| !meter.unread).map(|meter| (meter.traffic_read_at, place))
    };
    let mut turn: Vec<(Instant, usize)> = (0..running.len()).filter_map(read_at).collect();
    turn.sort_unstable();
    turn.truncate(running.len().div_ceil(ALL_IN_TURNS));
    for chunk in turn.chunks(READ_BETWEEN_LOOKS) {
        if thread_time() >= until {
            break;
        }
        let chosen: Vec<&Arc<Replica>> =
            chunk.iter().filter_map(|(_, place)| replica(running, *place)).collect();
        read_traffic(traffic, &chosen, numbers, |_| true);
        for replica in chosen {
            if let Some(meter) = replica.meter().as_mut() {
                meter.read_files();
            }
        }
    }
}

/// Files that may stay open: half of the descriptors that the replicas' own leave over. The rest is for connections.
fn room(core: &Core) -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
    limit.saturating_sub(core.living()) / 2
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

/// What the interfaces of those have carried that are wanted and whose namespaces have a number, or get one of the
/// numbers that are left.
fn read_traffic(
    traffic: &mut Traffic,
    chosen: &[&Arc<Replica>],
    numbers: &mut usize,
    wanted: impl Fn(&Meter) -> bool,
) {
    let (mut interfaces, mut places) = (Vec::new(), Vec::new());
    for (place, replica) in chosen.iter().enumerate() {
        if let Some(meter) = replica.meter().as_mut().filter(|meter| wanted(meter)) {
            if *numbers > 0 && meter.number(traffic) {
                *numbers -= 1;
            }
            let Namespace::Numbered(namespace) = meter.namespace else { continue };
            let legs = (FIRST_INDEX..).take(meter.legs as usize);
            interfaces.extend(legs.map(|index| Interface { namespace: Some(namespace), index }));
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
        if let Some(meter) = chosen[place].meter().as_mut() {
            match sums[place] {
                Some(sum) => meter.carried(sum),
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
        let spec = replica.inner().spec.clone().filter(|_| core.contained());
        let legs = spec.map_or(0, |spec| spec.networks.len() as u32);
        let now = Instant::now();
        let mut meter = Meter {
            pid,
            group,
            several: false,
            joined: false,
            held: Kept::default(),
            keeps: false,
            base,
            last,
            // So that the group is asked at once.
            helped: true,
            read_at: now,
            whole_at: now,
            group_at: now,
            legs,
            namespace: Namespace::Unnumbered,
            behind: None,
            unread: true,
            traffic_read_at: now,
            traffic_known_at: now,
        };
        meter.read(core.contained());
        Some(meter)
    }

    /// A process that is no child of the first one has been brought into the replica.
    pub fn joined(&mut self) {
        self.joined = true;
    }

    /// Allows a file to stay open if there is room for one, and takes that.
    fn keep(&mut self, room: &mut usize) {
        self.keeps = *room > 0 && !self.group.counts_memory();
        match self.keeps {
            true => *room -= 1,
            false => self.held.close(),
        }
    }

    /// Reads the CPU time. Tells whether it has moved since the last time; nothing if the replica has ended.
    fn look(&mut self) -> Option<bool> {
        let cpu = match self.several {
            true => self.counter()?,
            false => self.base.0 + process_time(self.pid)?.saturating_sub(self.base.1),
        };
        let moved = cpu > self.last.cpu || self.joined;
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

    /// The parents of its interfaces, if nobody has found them yet. Those of nodes are not looked for.
    fn find_parents(&mut self, core: &Core, replica: &Replica) {
        if self.behind.is_some() {
            return;
        }
        let spec = replica.inner().spec.clone();
        let Some(spec) = spec.filter(|spec| spec.node.is_none()) else { return };
        let parent = |leg: &Attachment| core.fabric.parent_of(&leg.network, leg.address);
        self.behind = spec.networks.iter().map(parent).collect();
    }

    /// Its interfaces have received and sent so much.
    fn carried(&mut self, bytes: (u64, u64)) {
        (self.last.network_received, self.last.network_sent) = bytes;
        let now = Instant::now();
        (self.unread, self.traffic_read_at, self.traffic_known_at) = (false, now, now);
    }

    /// What the kernel may change though nothing runs.
    fn read_memory(&mut self, contained: bool) {
        if self.several {
            return self.read(contained);
        }
        let counted = self.group.read_memory();
        (self.last.memory, self.last.memory_unreclaimable) =
            counted.unwrap_or_else(|| self.held.held(self.pid, self.keeps));
        if contained && self.unread {
            self.read_files();
        }
        self.read_at = Instant::now();
    }

    /// The traffic of a namespace without a number.
    fn read_files(&mut self) {
        if !matches!(self.namespace, Namespace::Numbered(_)) {
            self.carried(usage::traffic(self.pid));
        }
    }

    /// Reads everything.
    fn read(&mut self, contained: bool) {
        // One that is brought in from here on is found the next time.
        let joined = std::mem::take(&mut self.joined);
        let (first, keeps, own) = (self.pid, self.keeps, &mut self.held);
        let held = |pid: u32| if pid == first { own.held(pid, keeps) } else { usage::held(pid) };
        let reading = self.group.read(first, held);
        let several = std::mem::replace(&mut self.several, reading.several);
        if several || self.several || joined || self.helped || self.group_at.elapsed() >= WHOLE_EVERY {
            self.ask_group();
        }
        if contained && self.unread {
            self.read_files();
        }
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
        let oldest = if self.legs > 0 { self.read_at.min(self.traffic_known_at) } else { self.read_at };
        Statistics { age: now.saturating_duration_since(oldest), ..self.last }
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
