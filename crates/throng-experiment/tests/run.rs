//! Experiments carried out over a cluster that only pretends.

use async_trait::async_trait;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::time::Duration;
use throng_experiment::file::{StageSpec, parse};
use throng_experiment::run::{Observer, Plan, run};
use throng_load::Progress;
use throng_model::app::{App, ExposedPort, Protocol, Service};
use throng_model::fault::{ReplicaFault, Victims};
use throng_model::run::{Environment, Run, Stage};
use throng_model::status::{Readiness, Status};
use throng_runtime::cluster::{self, Cluster, ClusterError, ClusterErrorKind, Feed, FeedStream};
use tokio_util::sync::CancellationToken;

/// Whatever befalls it takes this long to do so.
const SLOWNESS: Duration = Duration::from_millis(900);

struct Slow {
    address: SocketAddr,
}

struct Silence;

#[async_trait]
impl FeedStream for Silence {
    async fn next(&mut self) -> Option<Feed> {
        std::future::pending().await
    }
}

#[async_trait]
impl Cluster for Slow {
    async fn apply(&self, _app: &App) -> Result<(), ClusterError> {
        Ok(())
    }

    async fn scale(&self, _replicas: BTreeMap<String, u32>) -> Result<(), ClusterError> {
        Ok(())
    }

    async fn wait(
        &self,
        _services: &[String],
        _timeout: Duration,
        _progress: cluster::Progress<'_>,
    ) -> Result<(), ClusterError> {
        Ok(())
    }

    async fn status(&self) -> Result<Status, ClusterError> {
        Err(ClusterError { kind: ClusterErrorKind::App, message: "none".into(), hint: None, log: Vec::new() })
    }

    async fn befall(
        &self,
        victims: &Victims,
        _fault: &ReplicaFault,
        _lasts: Option<Duration>,
    ) -> Result<Vec<String>, ClusterError> {
        tokio::time::sleep(SLOWNESS).await;
        Ok(vec![format!("{}-1", victims.service)])
    }

    async fn endpoint(&self, _service: &str, _port: Option<u16>) -> Result<SocketAddr, ClusterError> {
        Ok(self.address)
    }

    async fn log_tails(&self, _service: &str, _most: u64) -> Result<Vec<(String, Vec<u8>)>, ClusterError> {
        Ok(Vec::new())
    }

    async fn watch(&self) -> Result<Box<dyn FeedStream>, ClusterError> {
        Ok(Box::new(Silence))
    }

    async fn down(&self, _volumes: bool, _progress: cluster::Progress<'_>) -> Result<(), ClusterError> {
        Ok(())
    }
}

struct Nobody;

impl Observer for Nobody {
    fn stage_begins(&mut self, _index: usize, _of: usize, _stage: &StageSpec) {}
    fn readiness(&mut self, _services: &BTreeMap<String, Readiness>) {}
    fn load(&mut self, _progress: &Progress, _repetition: u32, _of: u32) {}
    fn waiting(&mut self, _passed: Duration, _of: Duration) {}
    fn refused(&mut self, _kind: ClusterErrorKind) {}
    fn stage_ends(&mut self, _stage: &Stage) {}
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    for line in BufReader::new(stream.try_clone()?).lines() {
        if line?.is_empty() {
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
        }
    }
    Ok(())
}

/// A server that answers everything; it goes with the test.
fn server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream));
        }
    });
    address
}

async fn carried_out(stages: &str) -> Run {
    let expose = vec![ExposedPort { port: 80, protocol: Protocol::Tcp }];
    let web = Service { name: "web".into(), expose, replicas: 1, ..Service::default() };
    let app = App { services: BTreeMap::from([("web".to_owned(), web)]), ..App::default() };
    let text = format!("stages:\n  - {{up: }}\n{stages}");
    let (experiment, _) = parse(Path::new("e.yaml"), &text, &app, &BTreeMap::new()).expect("an experiment");
    let plan =
        Plan { id: "x".into(), experiment: &experiment, app: &app, environment: Environment::default() };
    run(plan, &Slow { address: server() }, &mut Nobody, CancellationToken::new()).await
}

fn warnings(run: &Run) -> Vec<&str> {
    let warnings = run.events.iter().filter(|event| event.kind == "warning");
    warnings.map(|event| event.message.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_that_is_under_way_when_its_load_ends_is_in_the_record() {
    let run = carried_out(
        "  - {load: {service: web, rate: 20, duration: 500ms}, during: [{at: 100ms, stop: {service: web}}, \
         {at: 1h, kill: {service: web}}]}\n",
    )
    .await;
    let load = &run.stages[1];
    assert_eq!(load.error, None);
    let whats: Vec<&str> = load.faults.iter().map(|fault| fault.what.as_str()).collect();
    assert_eq!(whats, ["stop web"]);
    assert!(load.end - load.faults[0].begin >= SLOWNESS.as_secs_f64(), "the stage ends when it has befallen");
    assert_eq!(warnings(&run), ["the load ended before its time at 1h: kill web"]);
}
