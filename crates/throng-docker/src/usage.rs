//! What a container uses, read from the kernel: the daemon's own answer costs milliseconds of its time each.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use throng_model::replica::Statistics;
use throng_runtime::counters::{self, field, number};

const ROOT: &str = "/sys/fs/cgroup";
/// Version 1 says "no limit" with the largest number of pages.
const UNLIMITED_V1: u64 = 1 << 60;

/// Counters of the containers with these first processes, in the same order.
pub async fn read_all(pids: Vec<Option<u32>>) -> Vec<Option<Statistics>> {
    let count = pids.len();
    let reading = tokio::task::spawn_blocking(move || pids.into_iter().map(|pid| read(pid?)).collect());
    reading.await.unwrap_or_else(|_| vec![None; count])
}

/// Counters of the container whose first process this is; `None` if it has ended.
fn read(pid: u32) -> Option<Statistics> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let groups = parse_groups(&text);
    let folder = |controller: &str| groups.get(controller).map(|path| join(controller, path));
    let mut statistics = match folder("memory") {
        Some(memory) => read_v1(&memory, &folder("cpuacct")?, &folder("pids")?),
        None => read_v2(&join("", groups.get("")?))?,
    };
    (statistics.network_received, statistics.network_sent) = traffic(pid);
    Some(statistics)
}

/// The lines of /proc/PID/cgroup (cgroups(7)): controllers, and the group that the process is in. Version 2 has none.
fn parse_groups(text: &str) -> HashMap<String, String> {
    let lines = text.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    lines.flat_map(|(all, path)| all.split(',').map(move |one| (one.to_owned(), path.to_owned()))).collect()
}

fn join(controller: &str, path: &str) -> PathBuf {
    Path::new(ROOT).join(controller).join(path.trim_start_matches('/'))
}

fn read_v1(memory: &Path, cpu: &Path, pids: &Path) -> Statistics {
    let number = |folder: &Path, name: &str| number(&text(folder, name));
    let used = number(memory, "memory.usage_in_bytes").unwrap_or(0);
    let kernel = number(memory, "memory.kmem.usage_in_bytes").unwrap_or(0);
    let anonymous = field(&text(memory, "memory.stat"), "rss").unwrap_or(0);
    Statistics {
        cpu: Duration::from_nanos(number(cpu, "cpuacct.usage").unwrap_or(0)),
        memory: used,
        // The kernel adds these up at different times.
        memory_unreclaimable: (anonymous + kernel).min(used),
        memory_limit: number(memory, "memory.limit_in_bytes").filter(|limit| *limit < UNLIMITED_V1),
        pids: number(pids, "pids.current").unwrap_or(0),
        ..Statistics::default()
    }
}

fn read_v2(group: &Path) -> Option<Statistics> {
    let stat = text(group, "memory.stat");
    let of = |name: &str| field(&stat, name).unwrap_or(0);
    let used = number(&text(group, "memory.current"))?;
    let kept = of("anon") + of("kernel").saturating_sub(of("slab_reclaimable"));
    Some(Statistics {
        cpu: Duration::from_micros(field(&text(group, "cpu.stat"), "usage_usec").unwrap_or(0)),
        memory: used,
        memory_unreclaimable: kept.min(used),
        memory_limit: number(&text(group, "memory.max")),
        pids: number(&text(group, "pids.current")).unwrap_or(0),
        ..Statistics::default()
    })
}

fn text(folder: &Path, name: &str) -> String {
    std::fs::read_to_string(folder.join(name)).unwrap_or_default()
}

/// Bytes received and sent in the process' network, its loopback left out (/proc/PID/net/dev, proc(5)).
fn traffic(pid: u32) -> (u64, u64) {
    counters::traffic(&std::fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_both_versions_are_found() {
        let groups = parse_groups("5:cpu,cpuacct:/docker/ab\n4:memory:/docker/ab\n0::/other\n");
        assert_eq!(groups["cpuacct"], "/docker/ab");
        assert_eq!(groups[""], "/other");
        assert_eq!(join("memory", &groups["memory"]), Path::new("/sys/fs/cgroup/memory/docker/ab"));
    }
}
