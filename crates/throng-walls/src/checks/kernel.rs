//! Checks of processes, descriptors, control groups, namespaces, memory and CPU.

use super::{Bound, judge, judge_settings};
use crate::demand::{Demand, Links, footprint};
use crate::host::{Ancestor, Host};
use crate::predict::{Finding, State, Unit};
use crate::remedy::Remedy;
use crate::table::WallId;

/// `PID_MAX_LIMIT` of a 64-bit kernel (proc_sys_kernel(5)).
const PID_MAX: u64 = 1 << 22;
/// `FUTEX_TID_MASK`, which threads-max may not exceed.
const THREADS_MAX: u64 = 0x3fff_ffff;
const INT_MAX: u64 = i32::MAX as u64;
/// `MEM_CGROUP_ID_MAX` of mm/memcontrol.c.
const MEMORY_CGROUP_IDS: u64 = 65_535;
/// Namespaces of each kind that are not a replica's: the supervisor's helpers, other programs of the same user.
const NAMESPACES_BASE: u64 = 64;
const NO_GROUPS: &str = "no control groups can be read here";

pub fn process_ids(host: &Host, demand: &Demand) -> Finding {
    let id = WallId::ProcessIds;
    let Some(tasks) = host.tasks else {
        return Finding::new(id, State::Unknown, "the number of tasks cannot be read here");
    };
    let each = demand.processes;
    let own = move |n: u64| n.saturating_mul(each).saturating_add(footprint::TASKS_BASE);
    let all = move |n: u64| own(n).saturating_add(tasks);
    let mut bounds: Vec<_> = [("kernel.pid_max", PID_MAX), ("kernel.threads-max", THREADS_MAX)]
        .iter()
        .filter_map(|(name, most)| Bound::of(host, name, *most, all))
        .collect();
    // Root's processes are not held to it while root has CAP_SYS_RESOURCE or CAP_SYS_ADMIN (fork(2)).
    if let Some(limit) = host.processes.filter(|_| demand.rootless) {
        bounds.push(Bound::new("RLIMIT_NPROC (ulimit -u)", limit.hard, own));
    }
    let why = "numbers only grow longer; what is free is not allocated";
    judge_settings(id, demand, &bounds, why).or_by(|finding| {
        let command = format!("ulimit -u {}", finding.needed.unwrap_or_default());
        Remedy::by_hand(command, "a hard limit is raised by root, before the session or service starts")
            .permanent("in /etc/security/limits.d/throng.conf, or LimitNPROC= of the service")
    })
}

/// A limit of some group above: the one with the least room decides.
fn ancestor<'a>(
    id: WallId,
    host: &'a Host,
    demand: &Demand,
    file: &str,
    (limit, used): (impl Fn(&'a Ancestor) -> Option<u64>, impl Fn(&'a Ancestor) -> Option<u64>),
    each: u64,
) -> Finding {
    if host.control.version.is_none() {
        return Finding::new(id, State::Unknown, NO_GROUPS);
    }
    let Some((group, live, used)) = host.control.narrowest(limit, used) else {
        return Finding::new(id, State::Ok, "no group above has a limit");
    };
    let path = group.path.join(file);
    let needed = move |n: u64| n.saturating_mul(each).saturating_add(used);
    judge(id, demand, &[Bound::new(path.to_string_lossy(), live, needed)]).or_by(|finding| {
        let needed = finding.needed.unwrap_or_default();
        let why = "whoever set the limit meant something by it, so a person must decide";
        Remedy::by_hand(format!("echo {needed} > {}", path.display()), why)
            .permanent("in the unit that the group belongs to, as TasksMax= or MemoryMax= of systemd")
            .undo(format!("echo {live} > {}", path.display()))
    })
}

pub fn pids_cgroup(host: &Host, demand: &Demand) -> Finding {
    let of = (|g: &Ancestor| g.pids_max, |g: &Ancestor| g.pids_current);
    ancestor(WallId::PidsCgroup, host, demand, "pids.max", of, demand.processes)
}

pub fn cgroup_descendants(host: &Host, demand: &Demand) -> Finding {
    let id = WallId::CgroupDescendants;
    if host.control.version == Some(1) {
        return Finding::new(id, State::DoesNotApply, "version 1 of control groups has no such limit");
    }
    let of = (|g: &Ancestor| g.descendants_max, |g: &Ancestor| g.descendants);
    ancestor(id, host, demand, "cgroup.max.descendants", of, 1)
}

pub fn session_keyrings(host: &Host) -> Finding {
    let name = "kernel.keys.maxkeys";
    Finding {
        setting: Some(name.into()),
        live: host.setting(name),
        ..Finding::new(WallId::SessionKeyrings, State::DoesNotApply, "the engine makes no session keyrings")
    }
}

/// Both count instances of a user; the second one in each user namespace (namespaces(7)).
pub const WATCHERS: [&str; 2] = ["fs.inotify.max_user_instances", "user.max_inotify_instances"];

pub fn inotify(host: &Host, demand: &Demand) -> Finding {
    let (id, each) = (WallId::Inotify, demand.watchers);
    let bounds: Vec<_> = WATCHERS
        .iter()
        .filter_map(|name| Bound::of(host, name, INT_MAX, move |n| n.saturating_mul(each)))
        .collect();
    let finding =
        judge_settings(id, demand, &bounds, "an instance takes some 500 bytes, and only used ones are there");
    if each == 0 && finding.live.is_some() {
        return finding.noted("counts no replica that watches files; --watchers N does");
    }
    finding
}

pub fn descriptors(host: &Host, demand: &Demand) -> Finding {
    let id = WallId::Descriptors;
    let own = |n: u64| n.saturating_mul(footprint::DESCRIPTORS).saturating_add(footprint::DESCRIPTORS_BASE);
    let mut bounds = Vec::new();
    if let Some(limit) = host.open_files {
        bounds.push(Bound::new("RLIMIT_NOFILE (ulimit -Hn)", limit.hard, own));
    }
    if let Some(open) = host.files_open {
        let each = demand.processes.saturating_mul(footprint::OPEN_FILES) + footprint::DESCRIPTORS;
        let all = move |n: u64| n.saturating_mul(each).saturating_add(open);
        bounds.extend(Bound::of(host, "fs.file-max", u64::MAX >> 1, all));
    }
    let finding = judge_settings(id, demand, &bounds, "what is free is not allocated");
    finding.or_by(|finding| {
        let needed = finding.needed.unwrap_or_default();
        let why = match host.raises_limits {
            Some(true) => {
                "a hard limit belongs to the shell or service that starts throng, so it is raised there"
            }
            Some(false) => {
                "this process may not raise hard limits (no CAP_SYS_RESOURCE): whatever starts it must"
            }
            None => "a hard limit is raised by who has CAP_SYS_RESOURCE, before throng starts",
        };
        Remedy::by_hand(format!("ulimit -Hn {needed}"), why)
            .permanent("in /etc/security/limits.d/throng.conf, or LimitNOFILE= of the service")
    })
}

pub fn memory_cgroup_ids(host: &Host, demand: &Demand) -> Finding {
    let id = WallId::MemoryCgroupIds;
    let (Some(version), Some(used)) = (host.control.version, host.control.memory_groups) else {
        return Finding::new(id, State::Unknown, NO_GROUPS);
    };
    let needed = |n: u64| {
        let groups = if version == 1 { demand.share(demand.limited, n) } else { n };
        groups.saturating_add(used)
    };
    let finding = judge(id, demand, &[Bound::new("memory groups", MEMORY_CGROUP_IDS, needed)]);
    let finding = finding.or_by(|_| {
        let why = "groups that were removed let go of their ids; files are read from disk again afterwards";
        Remedy::by_hand("sync; echo 3 > /proc/sys/vm/drop_caches", why)
    });
    if version == 1 { finding.noted("only replicas with a memory limit have a group here") } else { finding }
}

pub fn namespaces(host: &Host, demand: &Demand) -> Finding {
    let id = WallId::Namespaces;
    if demand.links == Links::Host {
        return Finding::new(id, State::DoesNotApply, "plain processes have no namespaces of their own");
    }
    let mut names = vec![
        "user.max_net_namespaces",
        "user.max_mnt_namespaces",
        "user.max_pid_namespaces",
        "user.max_ipc_namespaces",
        "user.max_uts_namespaces",
    ];
    if host.control.version == Some(2) {
        names.push("user.max_cgroup_namespaces");
    }
    if demand.rootless {
        names.push("user.max_user_namespaces");
    }
    let needed = |n: u64| n.saturating_add(NAMESPACES_BASE);
    let bounds: Vec<_> = names.iter().filter_map(|name| Bound::of(host, name, INT_MAX, needed)).collect();
    let finding = judge_settings(id, demand, &bounds, "what is free is not allocated");
    if finding.live.is_some() { finding.noted("removal takes time: one after another") } else { finding }
}

pub fn memory(host: &Host, demand: &Demand) -> Finding {
    let id = WallId::Memory;
    let group = if host.control.version == Some(1) { footprint::MEMORY_GROUP } else { 0 };
    let each = footprint::MEMORY.saturating_add(demand.memory);
    let needed = move |n: u64| {
        let groups = demand.share(demand.limited, n).saturating_mul(group);
        n.saturating_mul(each).saturating_add(groups)
    };
    let mut bounds = Vec::new();
    if let Some(memory) = host.memory {
        bounds.push(Bound::new("MemAvailable", memory.available, needed).unit(Unit::Bytes));
    }
    let narrowest = host.control.narrowest(|group| group.memory_max, |group| group.memory_current);
    if let Some((group, limit, used)) = narrowest {
        let name = group.path.to_string_lossy().into_owned();
        bounds.push(Bound::new(name, limit.saturating_sub(used), needed).unit(Unit::Bytes));
    }
    let finding = judge(id, demand, &bounds)
        .or_by(|_| Remedy::by_hand("run fewer or smaller replicas", "memory is not a setting"));
    if demand.memory == 0 && finding.live.is_some() {
        return finding.noted("counts nothing of the program's own; --memory-per-replica does");
    }
    finding
}

pub fn cpu(host: &Host, demand: &Demand) -> Finding {
    let id = WallId::Cpu;
    let Some(cores) = host.cores else {
        return Finding::new(id, State::Unknown, "the number of cores cannot be read here");
    };
    let each = demand.cpu;
    let bound = Bound::new("cores", cores.saturating_mul(1_000), move |n| n.saturating_mul(each));
    let finding = judge(id, demand, &[bound.unit(Unit::Millicores)]);
    if each == 0 {
        return Finding { state: State::Unknown, needed: None, ..finding }
            .noted("what one replica computes is not known");
    }
    finding
        .or_by(|_| Remedy::by_hand("run fewer replicas, or put less load on them", "cores are not a setting"))
}
