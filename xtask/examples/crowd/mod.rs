//! What the measurements of crowds share: replicas of one static program, the host's memory, and traces of an app.
#![allow(dead_code)] // each measurement uses a part of it

use anyhow::{Context, Result, bail};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use throng_model::app::Resources;
use throng_model::replica::{Attachment, LogPolicy, NetworkSpec, Process, ReplicaId, ReplicaSpec, RootFs};

/// The network of the project's name, with the host at the first address.
pub fn network(project: &str, subnet: &str) -> Result<NetworkSpec> {
    let mut network = NetworkSpec {
        name: format!("{project}_default"),
        subnet: subnet.parse().context("the subnet")?,
        gateway: Ipv4Addr::UNSPECIFIED,
        internal: false,
    };
    network.gateway = Ipv4Addr::from(u32::from(network.subnet.network()) + 1);
    Ok(network)
}

/// A replica with the address that many after the gateway's; what a measurement does not choose has its default.
pub fn spec(
    project: &str,
    ordinal: u32,
    network: &NetworkSpec,
    root: &RootFs,
    process: &Process,
) -> ReplicaSpec {
    let id = ReplicaId { project: project.into(), service: "web".into(), ordinal };
    let address = Ipv4Addr::from(u32::from(network.gateway) + ordinal);
    ReplicaSpec {
        hostname: id.name(),
        id,
        generation: 1,
        config_hash: String::new(),
        root: root.clone(),
        process: process.clone(),
        mounts: Vec::new(),
        networks: vec![Attachment { network: network.name.clone(), address }],
        resources: Resources::default(),
        sandbox: Default::default(),
        log: LogPolicy::default(),
        stop_signal: 15,
        stop_grace_period: Duration::from_secs(1),
        node: None,
    }
}

/// A root that holds one static program, and how it is started.
pub fn image(folder: &Path, program: &Path, arguments: &[String]) -> Result<(RootFs, Process)> {
    let layer = folder.join("layer");
    std::fs::create_dir_all(&layer).with_context(|| format!("cannot make {}", layer.display()))?;
    std::fs::copy(program, layer.join("server"))
        .with_context(|| format!("cannot copy {}", program.display()))?;
    let root = RootFs {
        image: "crowd".into(),
        image_id: "sha256:0".into(),
        layers: vec![layer.canonicalize()?],
        read_only: false,
    };
    let args = [&["/server".to_owned()], arguments].concat();
    Ok((root, Process { args, env: vec![], cwd: "/".into(), user: String::new() }))
}

/// Makes a static program of `static_server.rs`.
pub fn static_server(folder: &Path) -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/static_server.rs");
    let program = folder.join("static_server");
    let status = Command::new("rustc")
        .args(["--edition=2024", "-O", "-C", "target-feature=+crt-static", "-C", "panic=abort"])
        .args(["-C", "strip=symbols", "-o"])
        .arg(&program)
        .arg(&source)
        .status()
        .context("rustc does not run")?;
    if !status.success() {
        bail!("{} does not compile", source.display());
    }
    Ok(program)
}

/// What the host's memory goes to, in kilobytes.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    pub available: i64,
    pub slab: i64,
    pub percpu: i64,
    pub stacks: i64,
    pub tables: i64,
    pub anonymous: i64,
}

impl Memory {
    pub fn read() -> Result<Memory> {
        let text = std::fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
        let field = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            line.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse().ok()).unwrap_or(0)
        };
        Ok(Memory {
            available: field("MemAvailable"),
            slab: field("Slab"),
            percpu: field("Percpu"),
            stacks: field("KernelStack"),
            tables: field("PageTables"),
            anonymous: field("AnonPages"),
        })
    }

    /// What has been taken since `earlier`, for each of `count`, in words.
    pub fn each_since(&self, earlier: &Memory, count: u32) -> String {
        let each = |now: i64, then: i64| (now - then) as f64 / f64::from(count.max(1));
        format!(
            "{:.0} KB each (slab {:.0}, per CPU {:.0}, kernel stacks {:.0}, page tables {:.0}, anonymous {:.0})",
            each(earlier.available, self.available),
            each(self.slab, earlier.slab),
            each(self.percpu, earlier.percpu),
            each(self.stacks, earlier.stacks),
            each(self.tables, earlier.tables),
            each(self.anonymous, earlier.anonymous),
        )
    }
}

/// Gives back what the kernel keeps only because nobody has asked for the room, so that readings can be compared.
pub fn drop_caches() -> Result<()> {
    rustix::fs::sync();
    std::fs::write("/proc/sys/vm/drop_caches", "3").context("cannot drop caches")
}

/// What an app on the host leaves countable traces of, as far as they name it: others use this host, too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traces {
    /// The network's bridge and the ports of it.
    pub links: usize,
    pub neighbours: usize,
    /// Control groups in all hierarchies, and folders of replicas.
    pub folders: usize,
    pub mounts: usize,
    pub processes: usize,
}

impl Traces {
    /// The bridge is known by its hardware address, which follows from the gateway's.
    pub fn read(project: &str, network: &NetworkSpec, state: &Path) -> Result<Traces> {
        let read = |path: &Path| std::fs::read_to_string(path).unwrap_or_default();
        let [a, b, c, d] = network.gateway.octets();
        let hardware = format!("02:54:{a:02x}:{b:02x}:{c:02x}:{d:02x}");
        let mut found = Traces::default();
        let entries = |path: &Path| std::fs::read_dir(path).into_iter().flatten().flatten();
        let count = |path: &Path| entries(path).filter(|e| e.path().is_dir()).count();
        for link in entries(Path::new("/sys/class/net")) {
            if read(&link.path().join("address")).trim() == hardware {
                found.links += 1 + entries(&link.path().join("brif")).count();
            }
        }
        let inside = |address: &str| address.parse().is_ok_and(|a: Ipv4Addr| network.subnet.contains(&a));
        found.neighbours = read(Path::new("/proc/net/arp"))
            .lines()
            .filter(|line| line.split(' ').next().is_some_and(inside))
            .count();
        for hierarchy in entries(Path::new("/sys/fs/cgroup")) {
            found.folders += count(&hierarchy.path().join("throng").join(project));
        }
        found.folders += count(&state.join(project));
        let mounts = read(Path::new("/proc/self/mountinfo"));
        found.mounts = mounts.lines().filter(|line| line.contains(project)).count();
        let group = format!("/throng/{project}/");
        for process in entries(Path::new("/proc")) {
            found.processes += usize::from(read(&process.path().join("cgroup")).contains(&group));
        }
        Ok(found)
    }
}

/// The time below which a share of the times lies, in milliseconds.
pub fn quantile(times: &mut [Duration], share: f64) -> f64 {
    times.sort_unstable();
    let last = times.len().saturating_sub(1);
    times.get((last as f64 * share) as usize).map_or(0.0, |time| time.as_secs_f64() * 1e3)
}
