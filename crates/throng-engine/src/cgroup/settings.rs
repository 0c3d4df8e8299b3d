//! Limits as the two versions of control groups want them written.

use throng_model::app::{Resources, Swap};

/// Period of the CPU limit in microseconds; the kernel's default.
const PERIOD: u64 = 100_000;

/// Files and values for the limits, in the order in which they must be written.
pub(super) fn settings(version: u8, controller: &str, resources: &Resources) -> Vec<(&'static str, String)> {
    let mut settings = Vec::new();
    let wants = |c: &str| version == 2 || controller == c;
    if let Some(cpus) = resources.cpus.filter(|_| wants("cpu")) {
        // The kernel takes no quota below 1 ms.
        let quota = ((cpus * PERIOD as f64) as u64).max(1000);
        if version == 2 {
            settings.push(("cpu.max", format!("{quota} {PERIOD}")));
        } else {
            settings.push(("cpu.cfs_period_us", PERIOD.to_string()));
            settings.push(("cpu.cfs_quota_us", quota.to_string()));
        }
    }
    if let Some(shares) = resources.cpu_shares.filter(|_| wants("cpu")) {
        settings.push(match version {
            2 => ("cpu.weight", weight(shares).to_string()),
            _ => ("cpu.shares", shares.to_string()),
        });
    }
    if wants("memory") {
        memory_settings(version, resources, &mut settings);
    }
    if let Some(pids) = resources.pids.filter(|_| wants("pids")) {
        settings.push(("pids.max", pids.to_string()));
    }
    if let Some(cores) = resources.cores.filter(|_| wants("cpuset")) {
        settings.push(("cpuset.cpus", cores.to_string()));
    }
    settings
}

/// From the range 2 to 262144 to 1 to 10000, as all container engines do it
/// (<https://github.com/kubernetes/enhancements/tree/master/keps/sig-node/2254-cgroup-v2>).
fn weight(shares: u64) -> u64 {
    1 + shares.clamp(2, 262_144).saturating_sub(2) * 9_999 / 262_142
}

fn memory_settings(version: u8, resources: &Resources, settings: &mut Vec<(&'static str, String)>) {
    if let Some(memory) = resources.memory {
        // Version 1 counts memory and swap together.
        let (swap, both) = match resources.swap {
            None => ("0".to_owned(), memory.to_string()),
            Some(Swap::Bytes(bytes)) => (bytes.to_string(), memory.saturating_add(bytes).to_string()),
            Some(Swap::Unlimited) => ("max".into(), "-1".into()),
        };
        if version == 2 {
            settings.push(("memory.max", memory.to_string()));
            settings.push(("memory.swap.max", swap));
        } else {
            settings.push(("memory.limit_in_bytes", memory.to_string()));
            settings.push(("memory.memsw.limit_in_bytes", both));
        }
    }
    if version == 1 {
        let swappiness = resources.swappiness.map(|share| ("memory.swappiness", share.to_string()));
        let patient = resources.oom_kill_disable.then(|| ("memory.oom_control", "1".to_owned()));
        settings.extend(swappiness.into_iter().chain(patient));
    }
    if let Some(reservation) = resources.memory_reservation {
        settings.push(match version {
            2 => ("memory.low", reservation.to_string()),
            _ => ("memory.soft_limit_in_bytes", reservation.to_string()),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::CONTROLLERS;

    #[test]
    fn limits_are_written_as_each_version_wants_them() {
        let resources =
            Resources { cpus: Some(0.5), memory: Some(64 << 20), pids: Some(10), ..Resources::default() };
        let v2 = settings(2, "", &resources);
        let expected = [
            ("cpu.max", "50000 100000"),
            ("memory.max", "67108864"),
            ("memory.swap.max", "0"),
            ("pids.max", "10"),
        ];
        assert_eq!(v2.iter().map(|(f, v)| (*f, v.as_str())).collect::<Vec<_>>(), expected);
        let v1: Vec<_> =
            CONTROLLERS.iter().flat_map(|c| settings(1, c, &resources)).map(|(f, _)| f).collect();
        assert_eq!(
            v1,
            [
                "cpu.cfs_period_us",
                "cpu.cfs_quota_us",
                "memory.limit_in_bytes",
                "memory.memsw.limit_in_bytes",
                "pids.max"
            ]
        );
        let more = Resources {
            memory: Some(100),
            swap: Some(Swap::Bytes(50)),
            memory_reservation: Some(70),
            cpu_shares: Some(1024),
            ..Resources::default()
        };
        let has = |version, controller, file, value: &str| {
            settings(version, controller, &more).contains(&(file, value.to_owned()))
        };
        assert!(has(2, "", "memory.swap.max", "50") && has(2, "", "memory.low", "70"));
        assert!(has(2, "", "cpu.weight", "39"));
        assert!(has(1, "memory", "memory.memsw.limit_in_bytes", "150"));
        assert!(has(1, "memory", "memory.soft_limit_in_bytes", "70") && has(1, "cpu", "cpu.shares", "1024"));
        let endless = Resources { swap: Some(Swap::Unlimited), ..more };
        assert!(settings(2, "", &endless).contains(&("memory.swap.max", "max".into())));
        assert!(settings(1, "memory", &endless).contains(&("memory.memsw.limit_in_bytes", "-1".into())));
        assert_eq!((weight(2), weight(262_144)), (1, 10_000));
        assert!(settings(2, "", &Resources::default()).is_empty());
        let cores = Resources { cores: "0-1".parse().ok(), swappiness: Some(0), ..Resources::default() };
        assert_eq!(settings(1, "cpuset", &cores), [("cpuset.cpus", "0-1".to_owned())]);
        assert_eq!(settings(1, "memory", &cores), [("memory.swappiness", "0".to_owned())]);
        assert_eq!(settings(2, "", &cores), [("cpuset.cpus", "0-1".to_owned())]);
        let patient = Resources { memory: Some(100), oom_kill_disable: true, ..Resources::default() };
        assert!(settings(1, "memory", &patient).contains(&("memory.oom_control", "1".into())));
        let tiny = Resources { cpus: Some(0.000_1), ..Resources::default() };
        assert_eq!(settings(2, "", &tiny)[0].1, "1000 100000");
    }
}
