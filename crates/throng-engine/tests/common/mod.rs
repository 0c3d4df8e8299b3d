//! What the integration tests and the example share: an image of one static program, and engines on folders of their own.
#![allow(dead_code)] // each test file uses a part of it

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use throng_engine::{Engine, EngineOptions, IsolationChoice};
use throng_model::app::Resources;
use throng_model::replica::{
    Attachment, Exit, LogPolicy, NetworkSpec, Process, ReplicaId, ReplicaSpec, RootFs,
};
use throng_runtime::{ExecIo, ExecSpec, Runtime};

/// Compiles the probe once for all test programs and returns the layer that holds it as `/probe`.
pub fn layer() -> PathBuf {
    static LAYER: OnceLock<PathBuf> = OnceLock::new();
    LAYER.get_or_init(build_layer).clone()
}

fn build_layer() -> PathBuf {
    // Part of this program: another user may not be able to read the folder of the sources.
    let text = include_str!("probe.rs");
    let mark = text.bytes().fold(0u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
    let base = std::env::temp_dir().join(format!("throng-engine-probe-{mark:x}"));
    let layer = base.join("layer");
    if layer.join("probe").exists() {
        return layer;
    }
    let fresh = base.join(format!("{}", std::process::id()));
    std::fs::create_dir_all(&fresh).expect("a folder for the probe");
    let source = base.join("probe.rs");
    std::fs::write(&source, text).expect("the probe's source");
    let status = Command::new("rustc")
        .args(["--edition=2024", "-O", "-C", "target-feature=+crt-static", "-C", "panic=abort", "-o"])
        .arg(fresh.join("probe"))
        .arg(&source)
        .status()
        .expect("rustc runs");
    assert!(status.success(), "the probe does not compile");
    // Another test program may have been quicker.
    let _ = std::fs::rename(&fresh, &layer);
    layer
}

/// Says why the test cannot run here, or fails if everything is required to run.
pub fn skip(name: &str, reason: &str) {
    assert!(std::env::var("THRONG_REQUIRE_ALL").as_deref() != Ok("1"), "{name} cannot run: {reason}");
    eprintln!("SKIPPED {name}: {reason}");
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// One project on one engine, with a network; everything is swept when the test calls [`Bench::end`].
pub struct Bench {
    pub engine: Arc<Engine>,
    pub project: String,
    pub network: NetworkSpec,
    pub folder: tempfile::TempDir,
}

pub fn options(folder: &Path) -> EngineOptions {
    EngineOptions {
        state_dir: folder.join("state"),
        run_dir: folder.join("run"),
        isolation: IsolationChoice::Container,
    }
}

impl Bench {
    /// `number` chooses the subnet 10.199.`number`.0/24.
    pub async fn new(project: &str, number: u8) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let engine = Engine::open(options(folder.path())).expect("the engine opens");
        let network = NetworkSpec {
            name: format!("{project}_default"),
            subnet: format!("10.199.{number}.0/24").parse().expect("a subnet"),
            gateway: Ipv4Addr::new(10, 199, number, 1),
            internal: false,
        };
        engine.sweep(project).await.expect("a clean start");
        engine.remove_network(&network.name).await.expect("none is left");
        engine.create_network(&network).await.expect("a network");
        Bench { engine, project: project.into(), network, folder }
    }

    pub fn spec(&self, service: &str, ordinal: u32, args: &[&str]) -> ReplicaSpec {
        spec(&self.project, &self.network, service, ordinal, args)
    }

    pub async fn end(self) {
        self.engine.sweep(&self.project).await.expect("swept");
        self.engine.remove_network(&self.network.name).await.expect("removed");
    }
}

pub fn spec(project: &str, network: &NetworkSpec, service: &str, ordinal: u32, args: &[&str]) -> ReplicaSpec {
    let id = ReplicaId { project: project.into(), service: service.into(), ordinal };
    let first = u32::from(network.subnet.network());
    ReplicaSpec {
        hostname: id.name(),
        id,
        generation: 1,
        config_hash: "x".into(),
        root: RootFs {
            image: "probe".into(),
            image_id: "sha256:0".into(),
            layers: vec![layer()],
            read_only: false,
        },
        process: Process {
            args: ["/probe"].iter().chain(args).map(|a| (*a).to_owned()).collect(),
            env: vec!["GREETING=hello".into()],
            cwd: "/".into(),
            user: String::new(),
        },
        mounts: vec![],
        networks: vec![Attachment {
            network: network.name.clone(),
            address: Ipv4Addr::from(first + 1 + ordinal),
        }],
        resources: Resources::default(),
        log: LogPolicy::default(),
        stop_signal: 15,
        stop_grace_period: Duration::from_secs(5),
        sandbox: Default::default(),
        node: None,
    }
}

/// The first answer of a server, asked for until it comes.
pub async fn first_answer(engine: &Engine, address: Ipv4Addr, patience: Duration) -> std::io::Result<String> {
    answer_from(engine, (address, 80), patience).await
}

pub async fn answer_from(
    engine: &Engine,
    address: (Ipv4Addr, u16),
    patience: Duration,
) -> std::io::Result<String> {
    use tokio::io::AsyncReadExt;
    let deadline = tokio::time::Instant::now() + patience;
    loop {
        let socket = tokio::net::TcpSocket::from_std_stream(engine.tcp_socket()?.into());
        match socket.connect(address.into()).await {
            Ok(mut stream) => {
                let mut text = String::new();
                stream.read_to_string(&mut text).await?;
                return Ok(text);
            }
            Err(error) if tokio::time::Instant::now() > deadline => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_micros(300)).await,
        }
    }
}

pub fn pipe_io() -> (ExecIo, std::io::PipeReader) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let null: OwnedFd = std::fs::File::open("/dev/null").expect("/dev/null").into();
    let stderr = writer.try_clone().expect("a descriptor").into();
    (ExecIo { stdin: null, stdout: writer.into(), stderr }, reader)
}

/// Runs the probe's order in a replica and returns how it ended and what it wrote.
pub async fn exec(engine: &Engine, id: &ReplicaId, args: &[&str]) -> (Exit, String) {
    let (io, mut reader) = pipe_io();
    let args = args.iter().map(|a| (*a).to_owned()).collect();
    let spec = ExecSpec { args, timeout: Some(Duration::from_secs(10)), ..ExecSpec::default() };
    let exit = engine.exec(id, &spec, io).await.expect("executed");
    let mut text = String::new();
    std::io::Read::read_to_string(&mut reader, &mut text).expect("output");
    (exit, text)
}

/// Name of the network's bridge, which is known by its hardware address: that follows from the gateway's.
pub fn bridge_of(network: &NetworkSpec) -> Option<String> {
    let [a, b, c, d] = network.gateway.octets();
    let wanted = format!("02:54:{a:02x}:{b:02x}:{c:02x}:{d:02x}");
    let links = std::fs::read_dir("/sys/class/net").expect("links").flatten();
    let has = |folder: &Path| {
        std::fs::read_to_string(folder.join("address")).is_ok_and(|text| text.trim() == wanted)
    };
    links.filter(|link| has(&link.path())).find_map(|link| link.file_name().into_string().ok())
}

/// Everything on the host that a replica could leave behind, as far as it names this project's things.
pub fn traces(project: &str, bridge: &str) -> Vec<String> {
    let mut found = Vec::new();
    for link in std::fs::read_dir("/sys/class/net").expect("links").flatten() {
        let name = link.file_name().into_string().expect("a name");
        let port = std::fs::read_link(link.path().join("master")).unwrap_or_default();
        if name == bridge || port.ends_with(bridge) {
            found.push(name);
        }
    }
    let neighbours = std::fs::read_to_string("/proc/net/arp").expect("neighbours");
    found.extend(neighbours.lines().filter(|l| l.ends_with(bridge)).map(str::to_owned));
    for hierarchy in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
        let folder = hierarchy.path().join("throng").join(project);
        found.extend(folder.exists().then(|| folder.display().to_string()));
    }
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
    found.extend(mounts.lines().filter(|l| l.contains("overlay") && l.contains(project)).map(str::to_owned));
    for process in std::fs::read_dir("/proc").expect("processes").flatten() {
        let groups = std::fs::read_to_string(process.path().join("cgroup")).unwrap_or_default();
        found.extend(groups.contains(&format!("/throng/{project}/")).then(|| groups.clone()));
    }
    found
}
