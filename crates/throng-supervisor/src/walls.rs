//! Errors of this host, with the wall that was met.

use crate::protocol::{Refusal, RefusalKind};
use async_trait::async_trait;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use throng_model::node::{LinkTraffic, Node};
use throng_model::replica::{Exit, NetworkSpec, Observed, ReplicaId, ReplicaSpec, Statistics};
use throng_runtime::{ErrorKind, ExecIo, ExecSpec, Result, Runtime, RuntimeError, RuntimeEvent};
use throng_walls::{Demand, Evidence, Host, Source, explain};
use tokio::sync::mpsc;

/// What a host said about itself this long ago still counts as "before".
const FRESH: Duration = Duration::from_secs(1);

/// A runtime whose errors name the wall that they met, what says so, and what moves it.
pub struct Explained {
    inner: Arc<dyn Runtime>,
    source: Source,
    earlier: Mutex<Option<(Instant, Arc<Host>)>>,
}

impl Explained {
    /// `state`: the folder of images, writable layers and logs.
    pub fn new(inner: Arc<dyn Runtime>, state: PathBuf) -> Explained {
        Explained { inner, source: Source::live(state), earlier: Mutex::default() }
    }

    /// The host before an order; read once a second at most, for some thousand orders may come in one.
    fn before(&self) -> Arc<Host> {
        // A panic elsewhere leaves the value whole.
        let mut earlier = self.earlier.lock().unwrap_or_else(PoisonError::into_inner);
        match &*earlier {
            Some((at, host)) if at.elapsed() < FRESH => host.clone(),
            _ => {
                let host = Arc::new(Host::glance(&self.source));
                *earlier = Some((Instant::now(), host.clone()));
                host
            }
        }
    }

    async fn explained<T>(&self, order: impl Future<Output = Result<T>>) -> Result<T> {
        let before = self.before();
        order.await.map_err(|error| {
            if error.kind != ErrorKind::Host {
                return error;
            }
            let evidence = Evidence {
                messages: vec![error.message.clone()],
                before: Some(before.as_ref().clone()),
                after: Some(Host::glance(&self.source)),
                ..Evidence::default()
            };
            match explain(&evidence) {
                // The engine knows an error number only, and names all the limits behind it.
                Some(wall) => RuntimeError { hint: Some(wall.told()), ..error },
                None => error,
            }
        })
    }
}

/// Names the wall in a refusal, if its words do.
pub fn named(refusal: Refusal) -> Refusal {
    let known = refusal.hint.as_ref().is_some_and(|hint| hint.starts_with("the wall is "));
    if refusal.kind != RefusalKind::Host || known {
        return refusal;
    }
    let hint = match (hint(&refusal.message), refusal.hint) {
        (Some(wall), Some(own)) => Some(format!("{own} ({wall})")),
        (wall, own) => wall.or(own),
    };
    Refusal { hint, ..refusal }
}

/// The wall that replicas share and have met, by what one of them wrote last.
pub fn met_inside(lines: &[String], replicas: u64) -> Option<String> {
    let line = lines.iter().rev().find(|line| throng_walls::is_shared(line))?;
    let evidence = Evidence {
        after: Some(Host::glance(&Source::live("/"))),
        demand: Some(Demand { watchers: 1, ..Demand::of(replicas) }),
        ..Evidence::of_messages([line.as_str()])
    };
    explain(&evidence).map(|wall| wall.told())
}

/// What the words of an error say of a wall.
pub fn hint(message: &str) -> Option<String> {
    explain(&Evidence::of_messages([message])).map(|wall| wall.told())
}

#[async_trait]
impl Runtime for Explained {
    async fn create_network(&self, network: &NetworkSpec) -> Result<()> {
        self.explained(self.inner.create_network(network)).await
    }

    async fn remove_network(&self, name: &str) -> Result<()> {
        self.explained(self.inner.remove_network(name)).await
    }

    async fn left_network(&self, name: &str) -> Result<Option<NetworkSpec>> {
        self.explained(self.inner.left_network(name)).await
    }

    async fn create(&self, spec: &ReplicaSpec) -> Result<()> {
        self.explained(self.inner.create(spec)).await
    }

    async fn start(&self, id: &ReplicaId, generation: u64) -> Result<u32> {
        self.explained(self.inner.start(id, generation)).await
    }

    async fn stop(&self, id: &ReplicaId, generation: u64, signal: i32, grace: Duration) -> Result<Exit> {
        self.explained(self.inner.stop(id, generation, signal, grace)).await
    }

    async fn signal(&self, id: &ReplicaId, generation: u64, signal: i32) -> Result<()> {
        self.explained(self.inner.signal(id, generation, signal)).await
    }

    async fn pause(&self, id: &ReplicaId, generation: u64) -> Result<()> {
        self.explained(self.inner.pause(id, generation)).await
    }

    async fn unpause(&self, id: &ReplicaId, generation: u64) -> Result<()> {
        self.explained(self.inner.unpause(id, generation)).await
    }

    async fn fill(&self, id: &ReplicaId, generation: u64, bytes: Option<u64>) -> Result<u64> {
        self.explained(self.inner.fill(id, generation, bytes)).await
    }

    async fn give_back(&self, id: &ReplicaId, generation: u64) -> Result<()> {
        self.explained(self.inner.give_back(id, generation)).await
    }

    async fn remove(&self, id: &ReplicaId, generation: u64) -> Result<()> {
        self.explained(self.inner.remove(id, generation)).await
    }

    async fn shed(&self, ids: &[ReplicaId]) -> Result<u32> {
        self.explained(self.inner.shed(ids)).await
    }

    async fn observe(&self, project: &str) -> Result<Vec<Observed>> {
        self.explained(self.inner.observe(project)).await
    }

    fn watch(&self) -> mpsc::Receiver<RuntimeEvent> {
        self.inner.watch()
    }

    async fn set_node(&self, project: &str, name: &str, node: &Node) -> Result<()> {
        self.explained(self.inner.set_node(project, name, node)).await
    }

    async fn remove_nodes(&self, project: &str) -> Result<()> {
        self.explained(self.inner.remove_nodes(project)).await
    }

    async fn link_traffic(&self, project: &str) -> BTreeMap<String, LinkTraffic> {
        self.inner.link_traffic(project).await
    }

    async fn log_files(&self, id: &ReplicaId) -> Result<Vec<PathBuf>> {
        self.explained(self.inner.log_files(id)).await
    }

    async fn exec(&self, id: &ReplicaId, spec: &ExecSpec, io: ExecIo) -> Result<Exit> {
        self.explained(self.inner.exec(id, spec, io)).await
    }

    fn machine_of(&self, id: &ReplicaId) -> Option<String> {
        self.inner.machine_of(id)
    }

    async fn statistics(&self, ids: &[ReplicaId]) -> Vec<Option<Statistics>> {
        self.inner.statistics(ids).await
    }
}
