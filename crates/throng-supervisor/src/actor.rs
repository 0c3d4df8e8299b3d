//! The one task that owns an app's state. It waits for something to happen, takes in all that has happened, plans
//! once, and hands the steps out. It never blocks on I/O but for its own small state file.

mod asking;
mod autoscaling;
mod begin;
mod faults;
mod figures;
mod given;
mod jobs;
mod nodes;
mod orders;
mod outcomes;
mod outside;
mod rollouts;
#[cfg(test)]
mod simulation;

use crate::autoscale::{Autoscalers, Recommenders};
use crate::backend::{Backend, On};
use crate::front::{self, Front, Fronts};
use crate::host::Host;
use crate::listing;
use crate::lives;
use crate::loopback::Claims;
use crate::metrics::{Meter, Metrics};
use crate::names::Directory;
use crate::paths::Paths;
use crate::protocol::{Refusal, RefusalKind, Reply};
use crate::silent::Census;
use crate::spec::Prepared;
use crate::state::{self, Durable};
use crate::steps::{self, Key, Outcome};
pub use faults::Victim;
pub use nodes::effective;
use orders::Done;
pub use orders::{Applied, Current, Handles, Order, own_address, taken_down};
pub use rollouts::Before;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use throng_control::address::Addresses;
use throng_control::health::Status as HealthStatus;
use throng_control::pace::{Budget, Pace};
use throng_control::{Limits, Phase, Plan, ReplicaView, Step, Wanted, WantedService, World};
use throng_engine::dns::DnsServer;
use throng_image::Store;
use throng_model::app::{App, Port, Resources};
use throng_model::replica::{Attachment, Exit, Observed, ReplicaId, ReplicaState, Statistics};
use throng_model::status::{Event, Published, Readiness, ReplicaSample, ServiceStatus, Status};
use throng_runtime::{Runtime, RuntimeEvent};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};

/// Events kept for `throng events`.
const EVENTS_KEPT: usize = 10_000;
/// Messages taken in before planning once.
const TAKEN_AT_ONCE: usize = 1_024;
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// Reading what replicas use rests for this many times the time that it took: a tenth of a core at most.
const SAMPLE_REST: u32 = 9;

/// Planning looks at every replica. After it has taken some time it rests for this many times that time, at most so
/// long, while what happens is taken in: a crowd of ten thousand is not planned anew for each of them.
const REST: u32 = 9;
const REST_MOST: Duration = Duration::from_millis(250);
/// How often the host is looked at while replicas wait for it to settle, and checks for their turn.
const SETTLING_LOOK: Duration = Duration::from_millis(20);
/// How late checks are before somebody is told, and how often they are told.
const CHECKS_LATE: Duration = Duration::from_secs(1);
const CHECKS_LATE_TOLD: Duration = Duration::from_secs(60);

/// What is known of a replica beside what planning needs.
#[derive(Debug, Clone)]
pub struct Detail {
    /// Signal and grace period of the definition that it was started with: a later one may not have it any more.
    pub stop: Option<(i32, Duration)>,
    pub generation: u64,
    pub networks: Vec<Attachment>,
    pub image: String,
    pub command: String,
    pub exit: Option<Exit>,
    pub error: Option<String>,
    /// Once it has succeeded it is not started again.
    pub of_job: bool,
    /// What it was ended for, if that was not its own doing.
    pub ended_for: Option<String>,
    /// The virtual node that it is on, and whether that has been cut off for so long that nobody is sent there.
    pub node: Option<String>,
    pub cut_off: bool,
    /// Why it could not be removed when that was tried last.
    pub held: Option<String>,
    /// Somebody keeps its processes from running.
    pub paused: bool,
    /// Somebody has taken so much of its disk, or all up to its limit.
    pub filled: Option<Option<u64>>,
    /// It is to start again when it has ended.
    pub start_again: bool,
    pub restarts: u32,
    /// What it was given instead of what its definition says, by its service's recommendation.
    pub given: Option<Resources>,
    pub created_at: SystemTime,
    pub started_at: Option<SystemTime>,
    pub finished_at: Option<SystemTime>,
    /// What it uses, since it runs.
    pub meter: Option<Meter>,
}

/// Everything that the actor works with but does not change.
pub struct Fixed {
    /// Held while nodes are changed, so that the runtime hears of changes in their order.
    pub nodes: tokio::sync::Mutex<()>,
    pub project: String,
    pub paths: Paths,
    pub on: On,
    pub backend: Backend,
    pub runtime: Arc<dyn Runtime>,
    pub store: Arc<Store>,
    pub directory: Arc<Directory>,
    pub limits: Limits,
    pub cores: usize,
    /// Share of the host's cores that repeated health checks may take.
    pub checks_share: f64,
    /// Ports of one service at which connections by name are held.
    pub name_ports: usize,
    /// Subnets of the host's loopback that are this app's.
    pub loopbacks: Claims,
}

/// By service, then by ordinal.
type Details = BTreeMap<String, BTreeMap<u32, Detail>>;

pub struct Actor {
    fixed: Arc<Fixed>,
    durable: Durable,
    wanted: Wanted,
    /// What is wanted of services that no definition has.
    nothing: WantedService,
    /// False until a definition has been adopted. Before that nothing is planned: replicas of an earlier
    /// supervisor would look like surplus.
    informed: bool,
    prepared: BTreeMap<String, Prepared>,
    /// Of services whose replicas are being replaced: what they were made from.
    before: BTreeMap<String, Before>,
    /// Roll-outs have changed since they were last saved.
    rollouts_changed: bool,
    world: World,
    /// The same replicas as in `world`.
    details: Details,
    taken: BTreeMap<String, Addresses>,
    generation: u64,
    pace: Pace,
    budget: Budget,
    host: Host,
    metrics: Metrics,
    /// Launches and restarts under way, and whether more are due.
    starting: usize,
    held: bool,
    checks_late_told: Option<Instant>,
    fronts: Fronts,
    dns: BTreeMap<String, DnsServer>,
    volumes_too: bool,
    grace: Option<Duration>,
    waiting: BTreeMap<String, (String, bool)>,
    field: nodes::Field,
    events: VecDeque<Event>,
    epoch: Instant,
    tasks: JoinSet<Outcome>,
    /// When the sampling under way began, and before when the next one does not.
    sampling: Option<Instant>,
    next_sampling: Instant,
    feed: broadcast::Sender<Arc<Reply>>,
    readiness: watch::Sender<Arc<BTreeMap<String, Readiness>>>,
    /// What the balancers and the directory were last told, to tell them only of changes.
    told: HashMap<String, outside::Told>,
    /// Answers to orders that change what is wanted. They are given only once the change has been published, so
    /// that whoever asks for readiness afterwards cannot see the time before it.
    answers: Vec<(oneshot::Sender<Done>, Done)>,
    /// Counts that are wanted already, and what they were before, until the disk has them.
    uncommitted: Option<(state::Written, BTreeMap<String, u32>)>,
    autoscalers: Autoscalers,
    recommenders: Recommenders,
    /// What of replicas the next supervisor is to know has changed since it was last written.
    lives_changed: bool,
    saving_lives: Option<JoinHandle<()>>,
    /// What replicas of services were given last.
    told_given: BTreeMap<String, Resources>,
    /// Services without replicas at whose address a request waits.
    woken: mpsc::Receiver<String>,
    woken_in: mpsc::Sender<String>,
}

impl Actor {
    pub fn new(
        fixed: Arc<Fixed>,
        durable: Durable,
        observed: Vec<Observed>,
        feed: broadcast::Sender<Arc<Reply>>,
        readiness: watch::Sender<Arc<BTreeMap<String, Readiness>>>,
    ) -> Actor {
        let (cores, share) = (fixed.cores, fixed.checks_share);
        let (woken_in, woken) = mpsc::channel(autoscaling::WAKINGS_WAITING);
        let (lives, damage) = match lives::load(&fixed.paths.lives_file(&fixed.project)) {
            Ok(lives) => (lives, None),
            Err(error) => (lives::Lives::default(), Some(error.to_string())),
        };
        let mut actor = Actor {
            fixed,
            wanted: Wanted { going_down: durable.going_down, ..Wanted::default() },
            nothing: WantedService::default(),
            durable,
            informed: false,
            prepared: BTreeMap::new(),
            before: BTreeMap::new(),
            rollouts_changed: false,
            world: World::new(),
            details: Details::new(),
            taken: BTreeMap::new(),
            generation: 0,
            pace: Pace::new(cores),
            budget: Budget::new(cores, share),
            host: Host::new(cores),
            metrics: Metrics::default(),
            starting: 0,
            held: false,
            checks_late_told: None,
            fronts: Fronts::new(),
            dns: BTreeMap::new(),
            volumes_too: false,
            grace: None,
            waiting: BTreeMap::new(),
            field: nodes::Field::default(),
            events: VecDeque::new(),
            epoch: Instant::now(),
            tasks: JoinSet::new(),
            sampling: None,
            next_sampling: Instant::now(),
            feed,
            readiness,
            told: HashMap::new(),
            answers: Vec::new(),
            uncommitted: None,
            autoscalers: Autoscalers::default(),
            recommenders: Recommenders::new(Instant::now(), lives.recommenders),
            lives_changed: false,
            saving_lives: None,
            told_given: BTreeMap::new(),
            woken,
            woken_in,
        };
        actor.reserve_service_addresses();
        for replica in observed {
            let life =
                lives.replicas.get(&replica.id.service).and_then(|lives| lives.get(&replica.id.ordinal));
            actor.take_over(replica, life.copied().unwrap_or_default());
        }
        if let Some(error) = damage {
            let project = actor.fixed.project.clone();
            actor.event("warning", &project, &format!("restarts of replicas count from none: {error}"));
        }
        actor
    }

    /// Takes in a replica that an earlier supervisor started.
    fn take_over(&mut self, replica: Observed, life: lives::Life) {
        let now = self.now();
        let mut detail = Detail::new(replica.generation, replica.networks.clone());
        detail.node.clone_from(&replica.node);
        detail.paused = replica.paused;
        (detail.restarts, detail.given) = (life.restarts, life.given);
        detail.of_job = throng_control::job::is_of_job(&replica.config_hash);
        if let Some(node) = replica.node {
            self.field.remember((replica.id.service.clone(), replica.id.ordinal), node);
        }
        let phase = match replica.state {
            ReplicaState::Created => Phase::Created,
            ReplicaState::Running { started_at, .. } => {
                detail.started_at = Some(started_at);
                detail.created_at = started_at;
                Phase::Running { since: now }
            }
            ReplicaState::Exited { exit, finished_at } => {
                detail.exit = Some(exit);
                detail.finished_at = Some(finished_at);
                Phase::Exited { exit, at: now }
            }
        };
        for attachment in &replica.networks {
            self.taken.entry(attachment.network.clone()).or_default().reserve(attachment.address);
            let (service, ordinal) = (&replica.id.service, replica.id.ordinal);
            self.fixed.directory.place(&attachment.network, service, ordinal, attachment.address);
        }
        self.generation = self.generation.max(replica.generation);
        let stopped = self.durable.stopped.get(&replica.id.service);
        let stopped = stopped.is_some_and(|stopped| stopped.contains(&replica.id.ordinal));
        let stopped = stopped && !matches!(phase, Phase::Running { .. });
        let key = (replica.id.service, replica.id.ordinal);
        let generation = replica.generation;
        let mut view =
            ReplicaView { stopped, generation, ..ReplicaView::new(replica.config_hash, phase, false) };
        view.tries = life.tries();
        self.insert(key, view, detail);
    }

    fn insert(&mut self, key: Key, view: ReplicaView, detail: Detail) {
        self.world.entry(key.0.clone()).or_default().insert(key.1, view);
        self.details.entry(key.0).or_default().insert(key.1, detail);
    }

    fn remove(&mut self, key: &Key) -> Option<Detail> {
        let detail = self.details.get_mut(&key.0)?.remove(&key.1);
        if let Some(replicas) = self.world.get_mut(&key.0) {
            replicas.remove(&key.1);
        }
        self.world.retain(|_, replicas| !replicas.is_empty());
        self.details.retain(|_, details| !details.is_empty());
        detail
    }

    /// Runs until the app is down, or until nobody can give orders any more. Returns what could not be taken away.
    pub async fn run(
        mut self,
        mut orders: mpsc::Receiver<Order>,
        mut exits: mpsc::Receiver<RuntimeEvent>,
    ) -> Option<Refusal> {
        let mut sample = tokio::time::interval(SAMPLE_EVERY);
        sample.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        // When to plan next even if nothing happens, and before when not unless somebody waits for the answer.
        let (mut wake, mut rested) = (None, Instant::now());
        loop {
            let sleep = sleep_until(wake);
            let look = sleep_until(self.autoscalers.next().filter(|_| !self.wanted.going_down));
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => self.order(order),
                    None => return None,
                },
                Some(event) = exits.recv() => self.exited(event),
                Some(outcome) = self.tasks.join_next() => self.finished(outcome),
                _ = sample.tick() => {
                    self.sample();
                    self.save_lives();
                    continue;
                }
                () = look => {
                    self.look();
                    continue;
                }
                Some(service) = self.woken.recv() => self.woken(&service),
                () = sleep => {}
            }
            self.take_in(&mut exits);
            if self.wanted.going_down && self.world.is_empty() && self.tasks.is_empty() {
                return self.leave().await;
            }
            if !self.informed && !self.wanted.going_down {
                self.answer();
                continue;
            }
            let begin = Instant::now();
            if self.answers.is_empty() && begin < rested {
                // What was due before is planned for then, too; waking up for it earlier would only spin.
                wake = Some(rested);
                continue;
            }
            wake = self.plan();
            self.publish();
            let took = begin.elapsed();
            self.metrics.plans.observe(took.as_secs_f64());
            // Waits for the disk, which is neither planning nor work that rest would spare.
            self.answer();
            rested = Instant::now() + (took * REST).min(REST_MOST);
        }
    }

    /// Takes in what else has happened meanwhile, so that all of it is planned for at once.
    fn take_in(&mut self, exits: &mut mpsc::Receiver<RuntimeEvent>) {
        for _ in 0..TAKEN_AT_ONCE {
            if let Some(outcome) = self.tasks.try_join_next() {
                self.finished(outcome);
            } else if let Ok(event) = exits.try_recv() {
                self.exited(event);
            } else {
                break;
            }
        }
    }

    fn answer(&mut self) {
        let committed = self.commit();
        self.save_rollouts();
        for (reply, result) in self.answers.drain(..) {
            // A receiver that is gone means the client left; the order itself has still been carried out.
            let _ = reply.send(result.and_then(|()| committed.clone()));
        }
    }

    fn now(&self) -> throng_control::Time {
        self.epoch.elapsed()
    }

    /// Everything of the app is gone; take away what belonged to the app as a whole.
    async fn leave(&mut self) -> Option<Refusal> {
        let mut left = None;
        self.dns.clear();
        for front in std::mem::take(&mut self.fronts).into_values().flatten() {
            if let Some(proxy) = Arc::into_inner(front.proxy) {
                proxy.shutdown(Duration::from_secs(1)).await;
            }
        }
        // Those that replicas were attached to as well: the definition that named them may have been lost.
        let known = self.durable.networks.values().map(|network| &network.name);
        let made = self.fixed.paths.made_for(&self.fixed.project);
        for name in known.chain(self.taken.keys()).chain(&made).collect::<BTreeSet<_>>() {
            if let Err(error) = self.fixed.runtime.remove_network(name).await {
                tracing::warn!("network {name}: {error}");
                left = Some(Refusal::from(error));
            }
        }
        if let Err(error) = self.fixed.runtime.remove_nodes(&self.fixed.project).await {
            tracing::warn!("nodes: {error}");
        }
        if self.volumes_too {
            remove_volumes(&self.durable.app, &self.fixed.paths);
        }
        self.fixed.paths.unmark(&self.fixed.project);
        if let Some(saving) = self.saving_lives.take() {
            // It would make the folder anew.
            let _ = saving.await;
        }
        let folder = self.fixed.paths.project(&self.fixed.project);
        if let Err(error) = std::fs::remove_dir_all(&folder) {
            tracing::warn!("{}: {error}", folder.display());
        }
        left
    }
}

impl Detail {
    fn new(generation: u64, networks: Vec<Attachment>) -> Detail {
        Detail {
            stop: None,
            generation,
            networks,
            image: String::new(),
            command: String::new(),
            exit: None,
            error: None,
            of_job: false,
            ended_for: None,
            node: None,
            cut_off: false,
            held: None,
            paused: false,
            filled: None,
            start_again: false,
            restarts: 0,
            given: None,
            created_at: SystemTime::now(),
            started_at: None,
            finished_at: None,
            meter: None,
        }
    }
}

/// Never, if there is no such time.
async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

fn replica_name(key: &Key) -> String {
    format!("{}-{}", key.0, key.1)
}

fn remove_volumes(app: &App, paths: &Paths) {
    for volume in app.volumes.values().filter(|volume| !volume.external) {
        let folder = paths.volumes().join(&volume.name);
        match std::fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::warn!("volume {}: {error}", volume.name);
            }
            _ => {}
        }
    }
}
