//! How many replicas and with how much of the host: `scale`, `deploy`, and the older keys on the service itself.

use super::{nodes, updates};
use crate::keys::Section;
use crate::yaml::{Findings, Node};
use throng_model::app::{Resources, Service, Swap};
use throng_model::cores::CoreSet;
use throng_model::diagnostic::Diagnostic;

/// Most replicas that can be asked for; ordinals and addresses are sized for far less.
const MAX_REPLICAS: u32 = 100_000;
/// The slowest share of a core that the kernel's scheduler can be told to give: 1 ms in each 100 ms.
const LEAST_CPUS: f64 = 0.01;
/// The kernel's default, in microseconds, which `cpu_quota` is a part of.
const CPU_PERIOD: f64 = 100_000.0;
/// Bounds of a group's weight in version 1 of control groups.
const CPU_SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;

/// What `deploy` says, by the place where it says it.
#[derive(Default)]
struct Deploy<'a> {
    replicas: Option<&'a Node>,
    cpus: Option<&'a Node>,
    memory: Option<&'a Node>,
    pids: Option<&'a Node>,
    reservation: Option<&'a Node>,
    cpu_reservation: Option<&'a Node>,
}

pub(super) fn read(section: &mut Section<'_>, service: &mut Service, findings: &mut Findings) {
    let scale = section.take("scale");
    let disk = section.take("storage_opt").and_then(|node| storage_size(node, findings));
    let mut deploy = Deploy::default();
    if let Some(node) = section.take("deploy") {
        deploy = read_deploy(node, service, findings).unwrap_or_default();
    }
    service.replicas = replicas(deploy.replicas, scale, findings);
    if service.placement.on_each {
        // As many as there are nodes, which is not decided here; without nodes the host is one.
        service.replicas = 1;
    }
    let (cpus_old, memory_old) = (section.take("cpus"), section.take("mem_limit"));
    let (pids_old, reservation_old) = (section.take("pids_limit"), section.take("mem_reservation"));
    let quota = cpu_quota(section.take("cpu_quota"), section.take("cpu_period"), findings);
    for (old, old_node, new, new_node) in [
        ("scale", scale, "deploy.replicas", deploy.replicas),
        ("cpus", cpus_old, "deploy.resources.limits.cpus", deploy.cpus),
        ("mem_limit", memory_old, "deploy.resources.limits.memory", deploy.memory),
        ("pids_limit", pids_old, "deploy.resources.limits.pids", deploy.pids),
        ("mem_reservation", reservation_old, "deploy.resources.reservations.memory", deploy.reservation),
    ] {
        let (Some(old_node), Some(new_node)) = (old_node, new_node) else { continue };
        if old_node.scalar() != new_node.scalar() {
            let finding = Diagnostic::error(format!("{old} and {new} say different things"))
                .at(old_node.position.location())
                .related(new_node.position.location(), format!("{new} is given here"));
            findings.push(finding.hint(format!("keep {new}")));
        }
    }
    let mut bytes = |node: Option<&Node>| node?.bytes(findings).filter(|bytes| *bytes > 0);
    let (memory, memory_reservation) =
        (bytes(deploy.memory.or(memory_old)), bytes(deploy.reservation.or(reservation_old)));
    let swap = section.take("memswap_limit").and_then(|node| swap(node, memory, findings));
    service.resources = Resources {
        cpus: deploy.cpus.or(cpus_old).map_or(quota, |node| cpus(node, findings)),
        memory,
        pids: deploy.pids.or(pids_old).and_then(|node| pids(node, findings)),
        disk,
        cpu_shares: section.take("cpu_shares").and_then(|node| cpu_shares(node, findings)),
        memory_reservation,
        cpu_reservation: deploy.cpu_reservation.and_then(|node| cpus(node, findings)),
        swap,
        cores: section.take("cpuset").and_then(|node| cores(node, findings)),
        swappiness: section.take("mem_swappiness").and_then(|node| swappiness(node, findings)),
        oom_kill_disable: oom_kill_disable(section, memory, findings),
    };
}

fn cores(node: &Node, findings: &mut Findings) -> Option<CoreSet> {
    let text = node.nonempty(findings)?;
    let hint = "write numbers of cores from 0, as in 0-3 or 0,2";
    let read = text.parse::<CoreSet>();
    read.map_err(|error| findings.error_with_hint(&node.position, error.to_string(), hint)).ok()
}

/// -1 means the host's own, as it does to Docker.
fn swappiness(node: &Node, findings: &mut Findings) -> Option<u8> {
    const WHAT: &str = "a whole number from 0 to 100, or -1 for the host's";
    let number: i64 = node.number(WHAT, findings)?;
    if !(-1..=100).contains(&number) {
        node.mismatch(WHAT, findings);
    }
    u8::try_from(number).ok().filter(|number| *number <= 100)
}

fn oom_kill_disable(section: &mut Section<'_>, memory: Option<u64>, findings: &mut Findings) -> bool {
    let Some(node) = section.take("oom_kill_disable") else { return false };
    let wanted = node.boolean(findings).unwrap_or_default();
    if wanted && memory.is_none() {
        let hint = "add the limit of memory: without one only the host itself can run short";
        findings.warn_with_hint(&node.position, "oom_kill_disable has no effect without mem_limit", hint);
    }
    wanted && memory.is_some()
}

fn read_deploy<'a>(node: &'a Node, service: &mut Service, findings: &mut Findings) -> Option<Deploy<'a>> {
    let mut section = Section::open("services.*.deploy", node, findings)?;
    let replicas = section.take("replicas");
    if let Some(node) = section.take("mode") {
        nodes::read_mode(node, replicas, service, findings);
    }
    if let Some(node) = section.take("placement") {
        nodes::read_placement(node, service, findings);
    }
    if let Some(node) = section.take("restart_policy") {
        updates::read_restart_policy(node, service, findings);
    }
    let (update, rollback) = (section.take("update_config"), section.take("rollback_config"));
    service.update =
        update.and_then(|node| updates::read_policy("services.*.deploy.update_config", node, findings));
    service.rollback =
        rollback.and_then(|node| updates::read_policy("services.*.deploy.rollback_config", node, findings));
    service.deploy_labels =
        section.take("labels").and_then(|node| node.text_map(findings)).unwrap_or_default();
    let resources = section.take("resources");
    section.close(findings);
    let mut deploy = Deploy { replicas, ..Deploy::default() };
    let Some(mut resources) =
        resources.and_then(|node| Section::open("services.*.deploy.resources", node, findings))
    else {
        return Some(deploy);
    };
    let (limits, reservations) = (resources.take("limits"), resources.take("reservations"));
    resources.close(findings);
    let limits = limits.and_then(|node| Section::open("services.*.deploy.resources.limits", node, findings));
    if let Some(mut limits) = limits {
        (deploy.cpus, deploy.memory) = (limits.take("cpus"), limits.take("memory"));
        deploy.pids = limits.take("pids");
        limits.close(findings);
    }
    let path = "services.*.deploy.resources.reservations";
    if let Some(mut reservations) = reservations.and_then(|node| Section::open(path, node, findings)) {
        deploy.reservation = reservations.take("memory");
        deploy.cpu_reservation = reservations.take("cpus");
        reservations.close(findings);
    }
    Some(deploy)
}

fn replicas(replicas: Option<&Node>, scale: Option<&Node>, findings: &mut Findings) -> u32 {
    let Some((key, node)) =
        [("replicas", replicas), ("scale", scale)].into_iter().find_map(|(key, node)| Some((key, node?)))
    else {
        return 1;
    };
    let number = node.number("a whole number of replicas, 0 or more", findings).unwrap_or(1);
    if number > MAX_REPLICAS {
        let message = format!("{key} asks for more than {MAX_REPLICAS} replicas, the most of one service");
        findings.error(&node.position, message);
    }
    number
}

/// Docker's options of its storage drivers; all that limit the writable layer call that `size`.
fn storage_size(node: &Node, findings: &mut Findings) -> Option<u64> {
    let mut section = Section::open("services.*.storage_opt", node, findings)?;
    let size = section.take("size");
    section.close(findings);
    size.and_then(|node| node.bytes(findings)).filter(|bytes| *bytes > 0)
}

/// 0 means no limit, as it does to Docker.
fn cpus(node: &Node, findings: &mut Findings) -> Option<f64> {
    let what = "a number of cores such as 0.5";
    let cpus: f64 = node.number(what, findings)?;
    if !cpus.is_finite() || cpus < 0.0 {
        node.mismatch(what, findings);
        return None;
    }
    enough(cpus, node, findings)
}

fn enough(cpus: f64, node: &Node, findings: &mut Findings) -> Option<f64> {
    if cpus > 0.0 && cpus < LEAST_CPUS {
        findings.error(&node.position, format!("{LEAST_CPUS} of a core is the least that can be given"));
    }
    (cpus > 0.0).then_some(cpus)
}

/// Cores by the microseconds out of each period; the period alone limits nothing.
fn cpu_quota(quota: Option<&Node>, period: Option<&Node>, findings: &mut Findings) -> Option<f64> {
    const WHAT: &str = "a whole number of microseconds from 1000 to 1000000";
    let period = match period {
        Some(node) => match node.number::<u32>(WHAT, findings)? {
            period @ 1_000..=1_000_000 => f64::from(period),
            _ => {
                node.mismatch(WHAT, findings);
                return None;
            }
        },
        None => CPU_PERIOD,
    };
    let node = quota?;
    let quota: i64 = node.number("a whole number of microseconds, or -1 for no limit", findings)?;
    // -1 and 0 mean no limit, as they do to Docker.
    if quota <= 0 { None } else { enough(quota as f64 / period, node, findings) }
}

/// 0 means the default, as it does to Docker.
fn cpu_shares(node: &Node, findings: &mut Findings) -> Option<u64> {
    let what = format!("a whole number from {} to {}", CPU_SHARES.start(), CPU_SHARES.end());
    let shares: u64 = node.number(&what, findings)?;
    if shares != 0 && !CPU_SHARES.contains(&shares) {
        node.mismatch(&what, findings);
    }
    (shares != 0).then_some(shares)
}

/// `memswap_limit` counts memory and swap together.
fn swap(node: &Node, memory: Option<u64>, findings: &mut Findings) -> Option<Swap> {
    let (unlimited, both) = match node.scalar().map(str::trim) {
        Some("-1") => (true, 0),
        _ => (false, node.bytes(findings)?),
    };
    let Some(memory) = memory else {
        let hint = "add the limit of memory, or remove memswap_limit";
        findings.error_with_hint(&node.position, "memswap_limit needs mem_limit", hint);
        return None;
    };
    if unlimited {
        return Some(Swap::Unlimited);
    }
    if both == 0 {
        return None;
    }
    let Some(bytes) = both.checked_sub(memory) else {
        let hint = "it counts memory and swap together";
        findings.error_with_hint(&node.position, "memswap_limit is below the limit of memory", hint);
        return None;
    };
    (bytes > 0).then_some(Swap::Bytes(bytes))
}

/// -1 and 0 mean no limit, as they do to Docker.
fn pids(node: &Node, findings: &mut Findings) -> Option<u64> {
    let pids: i64 = node.number("a whole number of processes, or -1 for no limit", findings)?;
    if pids < -1 {
        node.mismatch("a whole number of processes, or -1 for no limit", findings);
    }
    u64::try_from(pids).ok().filter(|pids| *pids > 0)
}
