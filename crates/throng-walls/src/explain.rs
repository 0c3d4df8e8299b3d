//! Which wall was hit: from errors first, from counters where there are none.

use crate::checks;
use crate::demand::Demand;
use crate::evidence::{Evidence, Step, errno};
use crate::host::{Ancestor, Host};
use crate::predict::{Finding, State};
use crate::table::{Wall, WallId};
use serde::Serialize;

/// Packets dropped from here on are no accident: a busy host drops a few now and then.
const MANY_DROPS: u64 = 10;
/// Network namespaces that may well be on their way out on an idle host.
const MANY_NAMESPACES: u64 = 64;
/// A start that takes this many times longer than before has become slow.
const SLOWER: u32 = 2;
/// Percent of time in which tasks waited for memory, and for CPU, from which that is the reason.
const MEMORY_STALL: f64 = 20.0;
const CPU_STALL: f64 = 80.0;
/// Percent of the cores' time from which they are the reason, and seconds over which that must be so.
const BUSY: u64 = 90;
const BUSY_SECONDS: u64 = 2;
/// Ticks a second (`USER_HZ` of the kernel) on every architecture that this runs on.
const TICKS: u64 = 100;

/// The wall that was hit.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    #[serde(flatten)]
    pub row: &'static Wall,
    /// What says so: the error, or the counter before and after.
    pub evidence: Vec<String>,
    /// The first of these is the error itself, which whoever is told of the wall has seen.
    #[serde(skip)]
    pub said: bool,
    /// The wall's check against the host as it was afterwards, with what would move it; only with a demand.
    pub finding: Option<Finding>,
}

/// Names the wall that the evidence points at, and no other. `None` if it points at none: an error of the program, say.
pub fn explain(evidence: &Evidence) -> Option<Explanation> {
    let said = by_messages(evidence).or_else(|| by_number(evidence));
    let is_said = said.is_some();
    let traced = || if is_of_the_app(evidence) { None } else { by_traces(evidence) };
    let (id, reason) = said.or_else(traced)?;
    let mut reasons = vec![reason];
    reasons.extend(support(id, evidence));
    let finding = evidence.demand.as_ref().zip(evidence.after.as_ref());
    let finding = finding.map(|(demand, host)| checks::check_met(id, host, demand));
    Some(Explanation { row: id.wall(), evidence: reasons, said: is_said, finding })
}

/// The wall that stands already, before anything has been lost at it and though nothing will be printed: a packet filter
/// that drops what replicas would send to each other.
pub fn standing(host: &Host, demand: &Demand) -> Option<Explanation> {
    let finding = checks::check(WallId::DockerFilter, host, demand);
    (finding.state == State::InTheWay).then(|| {
        let value =
            finding.setting.as_ref().zip(finding.live).map(|(name, live)| format!("{name} is {live}"));
        let evidence = std::iter::once(finding.note.clone()).chain(value).collect();
        Explanation { row: WallId::DockerFilter.wall(), evidence, said: false, finding: Some(finding) }
    })
}

impl Explanation {
    /// For people, on one line: the wall, what says so (but for an error, which was printed), and what moves it.
    pub fn told(&self) -> String {
        let more: String =
            self.evidence.iter().skip(usize::from(self.said)).map(|reason| format!("; {reason}")).collect();
        let moves = match self.finding.as_ref().and_then(|finding| finding.remedy.as_ref()) {
            Some(remedy) => &remedy.command,
            None => self.row.moves,
        };
        format!("the wall is {} ({}){more}; what moves it: {moves}", self.row.title, self.row.name)
    }
}

/// Whether what a program in a replica has printed tells of a limit that all replicas share with each other: what else a
/// program lacks is most often its own.
pub fn is_shared(line: &str) -> bool {
    let wall = by_words(&line.to_lowercase());
    matches!(wall, Some(WallId::Inotify | WallId::SessionKeyrings | WallId::NeighbourTable))
}

type Named = (WallId, String);

/// What the kernel has counted and logged. Groups that replicas are counted in come before what the whole host counts,
/// which other programs move too.
fn by_traces(evidence: &Evidence) -> Option<Named> {
    by_groups(evidence)
        .or_else(|| by_log(evidence))
        .or_else(|| by_slowness(evidence))
        .or_else(|| by_counters(evidence))
        .or_else(|| by_pressure(evidence))
}

/// Error numbers of packets that got no answer, which is what silent walls look like from inside a replica (errno(3):
/// EAGAIN of a read that timed out, ENETUNREACH, ECONNRESET, ETIMEDOUT, EHOSTUNREACH).
const LOST: [i32; 5] = [errno::EAGAIN, 101, 104, 110, 113];
/// How the engine and the supervisor begin when they have been refused something.
const REFUSED: [&str; 8] = [
    "cannot start ",
    "cannot prepare ",
    "cannot make ",
    "cannot mount ",
    "cannot open ",
    "cannot attach ",
    "cannot limit ",
    "cannot listen ",
];

/// Some error says what it was, and that is no wall: a program that is not there, a permission. What counters say of the
/// same moment is then somebody else's.
fn is_of_the_app(evidence: &Evidence) -> bool {
    evidence.messages.iter().any(|message| {
        let text = told(message).to_lowercase();
        match errno::printed(&text) {
            _ if REFUSED.iter().any(|words| text.contains(words)) => !is_lost(&text),
            Some(number) => !LOST.contains(&number),
            None => false,
        }
    })
}

/// Without the hint, which names several walls.
fn told(message: &str) -> &str {
    message.split("hint:").next().unwrap_or(message).trim().trim_end_matches('(').trim_end()
}

/// Words that belong to one wall alone, more specific ones first: all of the first, none of the second.
const WORDS: [(&[&str], &[&str], WallId); 34] = [
    (&["exchange full"], &[], WallId::BridgePorts),
    (&["neighbor table overflow"], &[], WallId::NeighbourTable),
    (&["neighbour table overflow"], &[], WallId::NeighbourTable),
    (&["no buffer space available"], &[], WallId::NeighbourTable),
    (&["sendto", "invalid argument"], &[], WallId::NeighbourTable),
    (&["conntrack", "table full"], &[], WallId::ConnectionTracking),
    (&["rejected by pids controller"], &[], WallId::PidsCgroup),
    (&["session key", "quota exceeded"], &[], WallId::SessionKeyrings),
    (&["session_keyring", "quota exceeded"], &[], WallId::SessionKeyrings),
    (&["add_key", "quota exceeded"], &[], WallId::SessionKeyrings),
    (&["keyctl", "quota exceeded"], &[], WallId::SessionKeyrings),
    (&["fsnotify", "too many open files"], &[], WallId::Inotify),
    (&["inotify", "too many open files"], &[], WallId::Inotify),
    (&["inotify", "no space left on device"], &[], WallId::Inotify),
    (&["number of file watchers reached"], &[], WallId::Inotify),
    (&["too many open files"], &[], WallId::Descriptors),
    (&["/sys/fs/cgroup", "no space left on device"], &[], WallId::MemoryCgroupIds),
    (&["/sys/fs/cgroup", "mkdir", "resource temporarily unavailable"], &[], WallId::CgroupDescendants),
    (&["timeout waiting for systemd"], &[], WallId::CgroupApply),
    (&["unable to apply cgroup configuration"], &[], WallId::CgroupApply),
    (&["address pool"], &[], WallId::AddressPools),
    (&["no free subnet"], &[], WallId::AddressPools),
    (&["no free address"], &[], WallId::AddressPools),
    (&["toomanyrequests"], &[], WallId::ImagePulls),
    (&["429 too many requests"], &[], WallId::ImagePulls),
    (&["pull rate limit"], &[], WallId::ImagePulls),
    (&["out of memory"], &[], WallId::Memory),
    // Who listens at an address that the host lacks gets the same words.
    (&["cannot assign requested address"], &["listen", "bind"], WallId::SourcePorts),
    (&["eaddrnotavail"], &["listen", "bind"], WallId::SourcePorts),
    (&["file watcher", "enospc"], &[], WallId::Inotify),
    // Who asks for any port is told that all are taken.
    (&["cannot listen on", ":0: ", "in use"], &[], WallId::PublishedPorts),
    (&["cannot listen on", ":0: ", "taken"], &[], WallId::PublishedPorts),
    // Of a load, by its own names.
    (&["local: no free port"], &[], WallId::SourcePorts),
    (&["local: no free descriptor"], &[], WallId::Descriptors),
];

/// What a replica sees of frames that vanish.
const UNREACHABLE: [&str; 4] = ["timed out", "no route to host", "host is unreachable", "100% packet loss"];

fn by_messages(evidence: &Evidence) -> Option<Named> {
    evidence.messages.iter().find_map(|message| {
        let told = told(message);
        let text = told.to_lowercase();
        let id = by_words(&text).or_else(|| of_step(Step::of(&text), errno::of(&text)?, evidence))?;
        Some((id, told.to_owned()))
    })
}

fn by_words(text: &str) -> Option<WallId> {
    let has = |word: &&str| text.contains(*word);
    let rule = WORDS.iter().find(|(all, none, _)| all.iter().all(has) && !none.iter().any(has));
    rule.map(|(.., id)| *id)
}

fn by_number(evidence: &Evidence) -> Option<Named> {
    let number = evidence.errno?;
    let id = of_step(evidence.step, number, evidence)?;
    Some((id, std::io::Error::from_raw_os_error(number).to_string()))
}

/// The wall behind an error number, by what was being done.
fn of_step(step: Option<Step>, number: i32, evidence: &Evidence) -> Option<WallId> {
    Some(match (step, number) {
        (_, errno::EXFULL) => WallId::BridgePorts,
        (_, errno::ENOBUFS) => WallId::NeighbourTable,
        (_, errno::EMFILE | errno::ENFILE) => WallId::Descriptors,
        (_, errno::ENOMEM) => WallId::Memory,
        (Some(Step::Connect | Step::Network), errno::EADDRNOTAVAIL) => WallId::SourcePorts,
        // A mount that needs a thread of its own is refused that; mounts themselves never are in this way.
        (Some(Step::Process | Step::Mount), errno::EAGAIN) => of_tasks(evidence),
        (Some(Step::Cgroup), errno::EAGAIN) => WallId::CgroupDescendants,
        (Some(Step::Process | Step::Namespace), errno::ENOSPC) => WallId::Namespaces,
        (Some(Step::Cgroup), errno::ENOSPC) => WallId::MemoryCgroupIds,
        (Some(Step::Mount), errno::ENOSPC) if !disk_is_full(evidence) => WallId::MountCount,
        (_, errno::ENOSPC | errno::EDQUOT) => WallId::Disk,
        _ => return None,
    })
}

/// The kernel gives the same answer whoever refuses a task: a group's limit, or the host's.
fn of_tasks(evidence: &Evidence) -> WallId {
    let logged = evidence.kernel_log.iter().any(|line| line.contains("rejected by pids controller"));
    let full = evidence
        .after
        .iter()
        .flat_map(|host| host.control.groups())
        .any(|group| full_of_tasks(group).is_some());
    if logged || full || evidence.group_growth(|group| group.pids_refused).is_some() {
        WallId::PidsCgroup
    } else {
        WallId::ProcessIds
    }
}

/// Tasks and their limit, if there are so many.
fn full_of_tasks(group: &Ancestor) -> Option<(u64, u64)> {
    group.pids_current.zip(group.pids_max).filter(|(current, most)| current >= most)
}

/// Less than a hundredth is free, of bytes or of inodes.
fn disk_is_full(evidence: &Evidence) -> bool {
    let disk = evidence.after.as_ref().and_then(|host| host.disk);
    let low = |free: u64, all: u64| all > 0 && free < all.div_ceil(100);
    disk.is_some_and(|disk| low(disk.bytes_free, disk.bytes) || low(disk.inodes_free, disk.inodes))
}

fn by_log(evidence: &Evidence) -> Option<Named> {
    evidence
        .kernel_log
        .iter()
        .find_map(|line| Some((by_words(&line.to_lowercase())?, line.trim().to_owned())))
}

fn by_groups(evidence: &Evidence) -> Option<Named> {
    if let Some((group, grown)) = evidence.group_growth(|group| group.pids_refused) {
        return Some((WallId::PidsCgroup, format!("{group}/pids.events: {grown} more forks refused")));
    }
    if let Some((group, grown)) = evidence.group_growth(|group| group.oom_kills) {
        return Some((WallId::Memory, format!("{group}: {grown} more tasks killed for want of memory")));
    }
    None
}

/// Walls that only count, for the whole host; last the counter that moves a little on any busy one.
fn by_counters(evidence: &Evidence) -> Option<Named> {
    type Read = fn(&crate::Counters) -> Option<u64>;
    let counter = |(id, what, least, read): (WallId, &str, u64, Read)| {
        let counted = |host: &Host| read(&host.counters);
        (evidence.growth(counted) >= least)
            .then(|| (id, format!("{what}: {}", evidence.told_growth(counted))))
    };
    let limits: [(WallId, &str, u64, Read); 4] = [
        (WallId::ConnectionTracking, "connections that found the tracking table full", 1, |c| {
            c.conntrack_drops
        }),
        (WallId::NeighbourTable, "times that the neighbour table (IPv4) was full", 1, |c| c.arp_fulls),
        (WallId::NeighbourTable, "times that the neighbour table (IPv6) was full", 1, |c| c.ndisc_fulls),
        (WallId::Memory, "tasks killed for want of memory", 1, |c| c.oom_kills),
    ];
    limits.into_iter().find_map(counter).or_else(|| by_filter(evidence)).or_else(|| by_backlog(evidence))
}

/// The queue is for all packets of one CPU. Those that were dropped on their way to interfaces of others, loopback say,
/// are counted there as well, and are not put down to this program's networks.
fn by_backlog(evidence: &Evidence) -> Option<Named> {
    let of_others = evidence.growth(|host| host.counters.other_drops);
    let dropped = |host: &Host| host.counters.backlog_drops;
    if evidence.growth(dropped).saturating_sub(of_others) < MANY_DROPS {
        return None;
    }
    let told =
        format!("packets dropped from a CPU's full queue (softnet_stat): {}", evidence.told_growth(dropped));
    let others = match of_others {
        0 => String::new(),
        count => format!(", {count} of them on the way to interfaces of others"),
    };
    Some((WallId::BroadcastBacklog, told + &others))
}

fn is_lost(text: &str) -> bool {
    UNREACHABLE.iter().any(|words| text.contains(words))
}

/// Replicas do not reach each other, and the host's filter drops what they send.
fn by_filter(evidence: &Evidence) -> Option<Named> {
    let lost = evidence.messages.iter().find(|message| is_lost(&message.to_lowercase()))?;
    let host = evidence.after.as_ref().or(evidence.before.as_ref())?;
    let demand = evidence.demand.clone().unwrap_or_else(|| crate::Demand::of(2));
    let finding = checks::check(WallId::DockerFilter, host, &demand);
    (finding.state == State::InTheWay).then(|| (WallId::DockerFilter, format!("{lost}; {}", finding.note)))
}

/// Things that are not refused but take longer and longer: what else has grown along?
fn by_slowness(evidence: &Evidence) -> Option<Named> {
    let (before, after) = evidence.replicas?;
    let grown = after.saturating_sub(before);
    let namespaces = |host: &Host| host.counters.net_namespaces;
    if let (Some(first), Some(last)) =
        (evidence.before.as_ref().and_then(namespaces), evidence.after.as_ref().and_then(namespaces))
    {
        let others = (last + before).saturating_sub(first + after);
        let removing = evidence.after.as_ref().and_then(|host| host.counters.removing_namespaces);
        if after < before && others >= MANY_NAMESPACES && removing != Some(false) {
            let told =
                format!("{others} network namespaces of replicas that are gone are still being removed");
            return Some((WallId::Namespaces, told));
        }
    }
    let (first, last) = evidence.start?;
    if grown == 0 || last < first.saturating_mul(SLOWER) {
        return None;
    }
    let slower = format!("a start took {} ms, then {} ms", first.as_millis(), last.as_millis());
    let along = |more: u64| more > 0 && more >= grown / 2;
    let mounts = evidence.growth(|host| host.mounts);
    let proxies = evidence.growth(|host| host.counters.port_proxies);
    if along(proxies) {
        return Some((WallId::PublishedPorts, format!("{slower}, with {proxies} more port proxies")));
    }
    along(mounts).then(|| (WallId::MountTable, format!("{slower}, with {mounts} more mounts on the host")))
}

fn by_pressure(evidence: &Evidence) -> Option<Named> {
    let pressure = evidence.after.as_ref()?.pressure;
    if let Some(stall) = pressure.memory.filter(|stall| stall.average >= MEMORY_STALL) {
        return Some((
            WallId::Memory,
            format!("tasks waited for memory {} % of the last ten seconds", stall.average),
        ));
    }
    if let Some(told) = busy(evidence) {
        return Some((WallId::Cpu, told));
    }
    let stall = pressure.cpu.filter(|stall| stall.average >= CPU_STALL)?;
    Some((WallId::Cpu, format!("tasks waited for a CPU {} % of the last ten seconds", stall.average)))
}

/// The cores had hardly any time left between the two looks.
fn busy(evidence: &Evidence) -> Option<String> {
    let cores = evidence.after.as_ref()?.cores?.max(1);
    let all = evidence.growth(|host| Some(host.time?.all));
    let used = evidence.growth(|host| Some(host.time?.busy));
    let (seconds, percent) = (all / (cores * TICKS), 100 * used / all.max(1));
    let told = || format!("the {cores} cores of this host were busy {percent} % of {seconds} s");
    (seconds >= BUSY_SECONDS && percent >= BUSY).then(told)
}

/// What else speaks for the wall.
fn support(id: WallId, evidence: &Evidence) -> Vec<String> {
    let mut reasons = Vec::new();
    let Some(host) = &evidence.after else { return reasons };
    let limit = |name: &str| host.setting(name).map(|most| format!("{name} is {most}"));
    match id {
        WallId::PidsCgroup => {
            let full = host.control.groups().find_map(|group| {
                let (current, most) = full_of_tasks(group)?;
                Some(format!("{}: {current} tasks of {most}", group.path.display()))
            });
            reasons.extend(full);
        }
        WallId::ProcessIds => {
            let tasks = host.tasks.zip(host.setting("kernel.pid_max"));
            reasons.extend(tasks.map(|(tasks, most)| format!("{tasks} tasks, kernel.pid_max is {most}")));
            let threads = host.tasks.zip(host.setting("kernel.threads-max"));
            reasons.extend(
                threads.filter(|(tasks, most)| tasks >= most).and_then(|_| limit("kernel.threads-max")),
            );
        }
        WallId::ConnectionTracking => {
            let count = host.setting("net.netfilter.nf_conntrack_count");
            let most = host.setting("net.netfilter.nf_conntrack_max");
            reasons.extend(count.zip(most).map(|(count, most)| format!("{count} connections of {most}")));
        }
        WallId::SourcePorts => {
            let waiting = host.counters.time_wait.zip(host.setting("net.ipv4.ip_local_port_range"));
            reasons
                .extend(waiting.map(|(tw, ports)| format!("{tw} connections in TIME_WAIT, {ports} ports")));
        }
        WallId::Disk => {
            let room =
                host.disk.map(|d| format!("{} bytes and {} inodes are free", d.bytes_free, d.inodes_free));
            reasons.extend(room);
        }
        WallId::Descriptors => {
            let own = host.open_files.map(|limit| format!("this process may hold {}", limit.hard));
            let all = host.files_open.zip(host.setting("fs.file-max"));
            reasons.extend(own);
            reasons.extend(all.map(|(open, most)| format!("the host has {open} open files of {most}")));
        }
        WallId::MountCount => {
            let mounts = host.mounts.zip(host.setting("fs.mount-max"));
            reasons.extend(mounts.map(|(mounts, most)| {
                format!("the host's namespace has {mounts} mounts, fs.mount-max is {most}")
            }));
        }
        WallId::Memory => {
            let free =
                host.memory.map(|memory| format!("{} bytes of the host are available", memory.available));
            let met = evidence.group_growth(|group| group.memory_failures);
            reasons
                .extend(met.map(|(group, grown)| format!("{group}: its limit was met {grown} more times")));
            reasons.extend(free);
        }
        WallId::Namespaces => reasons.extend(limit("user.max_net_namespaces")),
        WallId::BroadcastBacklog => reasons.extend(limit("net.core.netdev_max_backlog")),
        WallId::NeighbourTable => reasons.extend(limit("net.ipv4.neigh.default.gc_thresh3")),
        WallId::Inotify => {
            let names = ["fs.inotify.max_user_instances", "user.max_inotify_instances"];
            reasons.extend(names.into_iter().filter_map(limit));
        }
        WallId::BridgePorts => {
            reasons.extend(host.bridge_ports.map(|ports| format!("a bridge has {ports} ports")));
        }
        _ => {}
    }
    reasons
}
