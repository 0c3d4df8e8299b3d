//! What a run was made on: read once at its start, so that figures can be judged later.

use std::collections::BTreeMap;
use throng_model::run::Environment;

/// Reads this host's description. What cannot be read stays empty. `unlimited`: replicas' limits are not enforced.
pub fn read(isolation: &str, unlimited: bool, details: BTreeMap<String, String>) -> Environment {
    let system = rustix::system::uname();
    let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let uid = rustix::process::getuid();
    Environment {
        throng: env!("CARGO_PKG_VERSION").into(),
        kernel: format!("{} {}", system.sysname().to_string_lossy(), system.release().to_string_lossy()),
        operating_system: os_release_name(&text("/etc/os-release")).unwrap_or_default(),
        cpu: cpu_model(&text("/proc/cpuinfo"))
            .unwrap_or_else(|| system.machine().to_string_lossy().into_owned()),
        cores: std::thread::available_parallelism()
            .map_or(0, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX)),
        memory_bytes: memory_total(&text("/proc/meminfo")).unwrap_or(0),
        cgroup: cgroup_version(&text("/proc/filesystems"), &text("/proc/mounts")),
        isolation: isolation.into(),
        unlimited,
        user: if uid.is_root() { "root".into() } else { format!("uid {}", uid.as_raw()) },
        details,
    }
}

fn os_release_name(text: &str) -> Option<String> {
    let line = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(line.trim_matches('"').to_owned())
}

fn cpu_model(text: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn memory_total(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

/// `v2`, `v1`, or `v1 and v2` where the controllers are on v1 and v2 is there without any.
fn cgroup_version(filesystems: &str, mounts: &str) -> String {
    let mounted = |kind: &str| mounts.lines().any(|line| line.split_whitespace().nth(2) == Some(kind));
    match (mounted("cgroup"), mounted("cgroup2")) {
        (true, true) => "v1 and v2".into(),
        (true, false) => "v1".into(),
        (false, true) => "v2".into(),
        (false, false) if filesystems.contains("cgroup2") => "not mounted".into(),
        (false, false) => "none".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_of_proc_are_read() {
        assert_eq!(os_release_name("ID=x\nPRETTY_NAME=\"Debian 12\"\n").as_deref(), Some("Debian 12"));
        assert_eq!(cpu_model("processor: 0\nmodel name\t: A CPU @ 2\n").as_deref(), Some("A CPU @ 2"));
        assert_eq!(memory_total("MemTotal:       1024 kB\n"), Some(1 << 20));
        assert_eq!(memory_total("nonsense"), None);
        let mounts = "cgroup /a cgroup rw 0 0\ncgroup2 /b cgroup2 rw 0 0\n";
        assert_eq!(cgroup_version("", mounts), "v1 and v2");
        assert_eq!(cgroup_version("nodev\tcgroup2\n", ""), "not mounted");
    }
}
