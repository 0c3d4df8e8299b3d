//! What every [`Runtime`] must hold, whatever is below it: one list of cases that the tests of each back end run.
//!
//! A back end gives a [`Lab`]; each of [`CASES`] then works in a project and a subnet of its own and leaves nothing.
//! A case that does not hold panics, as a test does.

mod cases;
mod image;

pub use cases::CASES;
pub use image::layer;

use futures_util::future::BoxFuture;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use throng_model::app::Resources;
use throng_model::replica::{
    Attachment, Exit, LogPolicy, NetworkSpec, Observed, Process, ReplicaId, ReplicaSpec, ReplicaState, RootFs,
};
use throng_runtime::{ExecIo, ExecSpec, Runtime, RuntimeEvent};
use tokio::sync::mpsc;

/// The longest that anything may take. Far above what is usual: machines that run tests are busy.
pub const PATIENCE: Duration = Duration::from_secs(30);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// A back end on folders of its own.
pub trait Lab: Send + Sync {
    /// A runtime that knows what earlier ones of this lab have left, as after the end of a supervisor.
    fn open(&self) -> BoxFuture<'_, Arc<dyn Runtime>>;

    /// An image whose topmost layer is [`layer`].
    fn root(&self) -> RootFs;

    /// The second number of its cases' addresses. Labs differ in it: two networks of one subnet on one host would take
    /// each other's packets.
    fn block(&self) -> u8;

    /// A folder of this host whose files can be mounted wherever the back end puts replicas.
    fn folder(&self) -> &Path;
}

/// One thing that a runtime must hold.
#[derive(Clone, Copy)]
pub struct Case {
    pub name: &'static str,
    run: Run,
}

/// What a case does with its bench.
pub type Run = for<'a> fn(&'a Bench<'a>) -> BoxFuture<'a, ()>;

impl Case {
    /// A case of one back end alone.
    pub const fn new(name: &'static str, run: Run) -> Case {
        Case { name, run }
    }

    /// Runs the case. `number` must differ between cases that run at the same time: it chooses the subnet
    /// 10.[`Lab::block`].`number`.0/24.
    pub async fn run(&self, lab: &dyn Lab, number: u8) {
        let bench = Bench::new(lab, self.name, number).await;
        (self.run)(&bench).await;
        bench.clean().await;
    }
}

/// One project on one runtime, with a network.
pub struct Bench<'a> {
    pub lab: &'a dyn Lab,
    pub runtime: Arc<dyn Runtime>,
    pub project: String,
    pub network: NetworkSpec,
}

impl<'a> Bench<'a> {
    async fn new(lab: &'a dyn Lab, name: &str, number: u8) -> Self {
        let project = format!("contract-{}", name.replace('_', "-"));
        let network = NetworkSpec {
            name: format!("{project}_default"),
            subnet: format!("10.{}.{number}.0/24", lab.block()).parse().expect("a subnet"),
            gateway: Ipv4Addr::new(10, lab.block(), number, 1),
            internal: false,
        };
        let bench = Bench { lab, runtime: lab.open().await, project, network };
        bench.clean().await;
        bench.runtime.create_network(&bench.network).await.expect("a network");
        bench
    }

    /// Removes everything of the project.
    async fn clean(&self) {
        for replica in self.observe().await {
            let Observed { id, generation, .. } = replica;
            self.runtime.stop(&id, generation, 9, PATIENCE).await.expect("stopped");
            self.runtime.remove(&id, generation).await.expect("removed");
        }
        assert!(self.observe().await.is_empty());
        self.runtime.remove_network(&self.network.name).await.expect("no network");
    }

    pub async fn observe(&self) -> Vec<Observed> {
        self.runtime.observe(&self.project).await.expect("observed")
    }

    /// A replica of the probe, at the address of its ordinal.
    pub fn spec(&self, service: &str, ordinal: u32, args: &[&str]) -> ReplicaSpec {
        let id = ReplicaId { project: self.project.clone(), service: service.into(), ordinal };
        let first = u32::from(self.network.subnet.network());
        ReplicaSpec {
            hostname: id.name(),
            id,
            generation: 1,
            config_hash: "x".into(),
            root: self.lab.root(),
            process: Process {
                args: ["/probe"].iter().chain(args).map(|a| (*a).to_owned()).collect(),
                env: vec!["PATH=/bin".into(), "GREETING=hello".into()],
                cwd: "/".into(),
                user: String::new(),
            },
            mounts: vec![],
            networks: vec![Attachment {
                network: self.network.name.clone(),
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

    pub async fn launch(&self, spec: &ReplicaSpec) -> u32 {
        self.runtime.create(spec).await.expect("created");
        self.runtime.start(&spec.id, spec.generation).await.expect("started")
    }

    /// Runs the replica to its end and returns how it ended and what it wrote.
    pub async fn run(&self, spec: &ReplicaSpec) -> (Exit, String) {
        let mut events = self.runtime.watch();
        self.launch(spec).await;
        // The end of an earlier life may be told late, while this one still runs.
        loop {
            self.end_of(&mut events, &spec.id).await;
            let observed = self.observe().await.into_iter().find(|observed| observed.id == spec.id);
            if let ReplicaState::Exited { exit, .. } = observed.expect("it is there").state {
                return (exit, self.output(&spec.id).await);
            }
        }
    }

    pub async fn end_of(&self, events: &mut mpsc::Receiver<RuntimeEvent>, wanted: &ReplicaId) -> Exit {
        loop {
            let event = tokio::time::timeout(PATIENCE, events.recv()).await.expect("an end in time");
            let RuntimeEvent::Exited { id, exit, .. } = event.expect("an event") else { continue };
            if id == *wanted {
                return exit;
            }
        }
    }

    pub async fn output(&self, id: &ReplicaId) -> String {
        let mut text = String::new();
        for file in self.runtime.log_files(id).await.expect("log files") {
            text += &String::from_utf8_lossy(&std::fs::read(file).expect("a log"));
        }
        text
    }

    /// Waits until the replica has written this.
    pub async fn says(&self, id: &ReplicaId, wanted: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let output = self.output(id).await;
            if output.contains(wanted) {
                return;
            }
            assert!(Instant::now() < deadline, "{id} never wrote {wanted:?}:\n{output}");
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    pub async fn exec(&self, id: &ReplicaId, args: &[&str]) -> (Exit, String) {
        let spec = ExecSpec { timeout: Some(PATIENCE), ..command(args) };
        self.exec_with(id, &spec, std::fs::File::open("/dev/null").expect("/dev/null").into()).await
    }

    pub async fn exec_with(&self, id: &ReplicaId, spec: &ExecSpec, stdin: OwnedFd) -> (Exit, String) {
        let (io, reader) = pipes(stdin);
        let reading = tokio::task::spawn_blocking(move || std::io::read_to_string(reader));
        let exit = self.runtime.exec(id, spec, io).await.expect("executed");
        (exit, reading.await.expect("not cancelled").expect("what it wrote"))
    }
}

pub fn command(args: &[&str]) -> ExecSpec {
    ExecSpec { args: args.iter().map(|a| (*a).to_owned()).collect(), ..ExecSpec::default() }
}

/// Both outputs into one pipe.
pub fn pipes(stdin: OwnedFd) -> (ExecIo, std::io::PipeReader) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let stderr = writer.try_clone().expect("a descriptor").into();
    (ExecIo { stdin, stdout: writer.into(), stderr }, reader)
}
