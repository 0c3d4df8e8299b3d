//! The one task that owns an app's state. It waits for something to happen, takes in all that has happened, plans
//! once, and hands the steps out. It never blocks on I/O but for its own small state file.

use crate::front::{self, Directory, Fronts};
use crate::listing;
use crate::paths::Paths;
use crate::protocol::{Refusal, RefusalKind, Reply};
use crate::spec::Prepared;
use crate::state::{self, Durable};
use crate::steps::{self, Key, Outcome};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};
use throng_control::health::{Health, Status as HealthStatus};
use throng_control::{
    Limits, Phase, Plan, ReplicaView, Step, Wanted, WantedService, World, address, restart,
};
use throng_engine::Engine;
use throng_engine::dns::DnsServer;
use throng_image::Store;
use throng_model::app::{App, Port};
use throng_model::replica::{Attachment, Exit, Observed, ReplicaId, ReplicaState, Statistics};
use throng_model::status::{Event, Published, Readiness, ReplicaSample, ServiceStatus, Status};
use throng_runtime::{Runtime, RuntimeEvent};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinSet;

/// Events kept for `throng events`.
const EVENTS_KEPT: usize = 10_000;
/// Messages taken in before planning once.
const TAKEN_AT_ONCE: usize = 1_024;
const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// What a connection asks of the actor.
pub enum Order {
    /// All images are there and the networks made; make the app so.
    Adopt {
        applied: Box<Applied>,
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    Scale {
        replicas: BTreeMap<String, u32>,
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    Down {
        volumes: bool,
        grace: Option<Duration>,
    },
    Status {
        reply: oneshot::Sender<Status>,
    },
    Endpoint {
        service: String,
        port: Option<u16>,
        reply: oneshot::Sender<Result<SocketAddr, Refusal>>,
    },
    /// A running replica of the service: the given ordinal or the lowest.
    Pick {
        service: String,
        ordinal: Option<u32>,
        reply: oneshot::Sender<Result<ReplicaId, Refusal>>,
    },
    /// Replicas of these services (all if empty), running or not.
    List {
        services: Vec<String>,
        reply: oneshot::Sender<Result<Vec<ReplicaId>, Refusal>>,
    },
    Events {
        reply: oneshot::Sender<Vec<Event>>,
    },
    Current {
        reply: oneshot::Sender<Current>,
    },
    /// Nobody is connected and nobody has been for a while. A supervisor that was never given an app leaves.
    Forsaken,
}

/// What is wanted now and what this process already serves of it.
pub struct Current {
    pub durable: Durable,
    /// Published ports that are listened on, by service.
    pub ports: BTreeMap<String, Vec<Port>>,
    /// Keys of networks whose names are answered.
    pub named: BTreeSet<String>,
}

/// An app whose images are looked up, networks made and front doors bound: nothing can refuse it any more.
pub struct Applied {
    pub durable: Durable,
    pub prepared: BTreeMap<String, Prepared>,
    /// Front doors that the app has anew; existing ones stay as they are.
    pub fronts: Fronts,
    pub dns: BTreeMap<String, DnsServer>,
}

/// What is known of a replica beside what planning needs.
#[derive(Debug, Clone)]
pub struct Detail {
    pub generation: u64,
    pub networks: Vec<Attachment>,
    pub image: String,
    pub command: String,
    pub leaving: bool,
    pub exit: Option<Exit>,
    pub error: Option<String>,
    pub restarts: u32,
    pub created_at: SystemTime,
    pub started_at: Option<SystemTime>,
    pub finished_at: Option<SystemTime>,
    pub statistics: Option<(Instant, Statistics)>,
    pub cpu: f64,
}

/// What the connections share with the actor.
#[derive(Clone)]
pub struct Handles {
    pub orders: mpsc::Sender<Order>,
    pub readiness: watch::Receiver<Arc<BTreeMap<String, Readiness>>>,
    pub feed: broadcast::Sender<Arc<Reply>>,
    pub gone: watch::Receiver<bool>,
}

/// Everything that the actor works with but does not change.
pub struct Fixed {
    pub project: String,
    pub paths: Paths,
    pub engine: Arc<Engine>,
    pub store: Arc<Store>,
    pub directory: Arc<Directory>,
    pub limits: Limits,
}

pub struct Actor {
    fixed: Arc<Fixed>,
    durable: Durable,
    wanted: Wanted,
    /// False until a definition has been adopted. Before that nothing is planned: replicas of an earlier
    /// supervisor would look like surplus.
    informed: bool,
    prepared: BTreeMap<String, Prepared>,
    world: World,
    details: BTreeMap<Key, Detail>,
    taken: BTreeMap<String, BTreeSet<Ipv4Addr>>,
    generation: u64,
    fronts: Fronts,
    dns: BTreeMap<String, DnsServer>,
    volumes_too: bool,
    grace: Option<Duration>,
    waiting: BTreeMap<String, (String, bool)>,
    events: VecDeque<Event>,
    epoch: Instant,
    tasks: JoinSet<Outcome>,
    sampling: bool,
    feed: broadcast::Sender<Arc<Reply>>,
    readiness: watch::Sender<Arc<BTreeMap<String, Readiness>>>,
    /// What the balancers and the directory were last told, to tell them only of changes.
    told: HashMap<String, Vec<(String, Ipv4Addr)>>,
    /// Answers to orders that change what is wanted. They are given only once the change has been published, so
    /// that whoever asks for readiness afterwards cannot see the time before it.
    answers: Vec<(oneshot::Sender<Result<(), Refusal>>, Result<(), Refusal>)>,
}

impl Actor {
    pub fn new(
        fixed: Arc<Fixed>,
        durable: Durable,
        observed: Vec<Observed>,
        feed: broadcast::Sender<Arc<Reply>>,
        readiness: watch::Sender<Arc<BTreeMap<String, Readiness>>>,
    ) -> Actor {
        let mut actor = Actor {
            fixed,
            wanted: Wanted { going_down: durable.going_down, ..Wanted::default() },
            durable,
            informed: false,
            prepared: BTreeMap::new(),
            world: World::new(),
            details: BTreeMap::new(),
            taken: BTreeMap::new(),
            generation: 0,
            fronts: Fronts::new(),
            dns: BTreeMap::new(),
            volumes_too: false,
            grace: None,
            waiting: BTreeMap::new(),
            events: VecDeque::new(),
            epoch: Instant::now(),
            tasks: JoinSet::new(),
            sampling: false,
            feed,
            readiness,
            told: HashMap::new(),
            answers: Vec::new(),
        };
        for replica in observed {
            actor.take_over(replica);
        }
        actor
    }

    /// Takes in a replica that an earlier supervisor started.
    fn take_over(&mut self, replica: Observed) {
        let now = self.now();
        let mut detail = Detail::new(replica.generation, replica.networks.clone());
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
            self.taken.entry(attachment.network.clone()).or_default().insert(attachment.address);
        }
        self.generation = self.generation.max(replica.generation);
        let key = (replica.id.service, replica.id.ordinal);
        let view = ReplicaView {
            config_hash: replica.config_hash,
            phase,
            busy: false,
            health: Health::default(),
            streak: 0,
        };
        self.world.entry(key.0.clone()).or_default().insert(key.1, view);
        self.details.insert(key, detail);
    }

    /// Runs until the app is down, or until nobody can give orders any more.
    pub async fn run(mut self, mut orders: mpsc::Receiver<Order>, mut exits: mpsc::Receiver<RuntimeEvent>) {
        let mut sample = tokio::time::interval(SAMPLE_EVERY);
        sample.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut wake = None;
        loop {
            let sleep = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(tokio::time::Instant::from_std(at)).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => self.order(order),
                    None => return,
                },
                Some(event) = exits.recv() => self.exited(event),
                Some(outcome) = self.tasks.join_next() => self.finished(outcome),
                _ = sample.tick() => self.sample(),
                () = sleep => {}
            }
            for _ in 0..TAKEN_AT_ONCE {
                if let Some(outcome) = self.tasks.try_join_next() {
                    self.finished(outcome);
                } else if let Ok(event) = exits.try_recv() {
                    self.exited(event);
                } else {
                    break;
                }
            }
            if self.wanted.going_down && self.world.is_empty() && self.tasks.is_empty() {
                self.leave().await;
                return;
            }
            if !self.informed && !self.wanted.going_down {
                self.answer();
                continue;
            }
            let plan = throng_control::plan(&self.wanted, &self.world, &self.fixed.limits, self.now());
            wake = plan.wake.map(|time| self.epoch + time);
            self.carry_out(plan);
            self.publish();
            self.answer();
        }
    }

    fn answer(&mut self) {
        for (reply, result) in self.answers.drain(..) {
            // A receiver that is gone means the client left; the order itself has still been carried out.
            let _ = reply.send(result);
        }
    }

    fn now(&self) -> throng_control::Time {
        self.epoch.elapsed()
    }

    fn order(&mut self, order: Order) {
        // A receiver that is gone means the client left; the order itself has still been carried out.
        match order {
            Order::Adopt { applied, reply } => {
                let result = self.adopt(*applied);
                self.answers.push((reply, result));
            }
            Order::Scale { replicas, reply } => {
                let result = self.scale(replicas);
                self.answers.push((reply, result));
            }
            Order::Down { volumes, grace } => self.go_down(volumes, grace),
            Order::Status { reply } => {
                let _ = reply.send(self.status());
            }
            Order::Endpoint { service, port, reply } => {
                let _ = reply.send(self.endpoint(&service, port));
            }
            Order::Pick { service, ordinal, reply } => {
                let _ = reply.send(self.pick(&service, ordinal));
            }
            Order::List { services, reply } => {
                let _ = reply.send(self.list(&services));
            }
            Order::Events { reply } => {
                let _ = reply.send(self.events.iter().cloned().collect());
            }
            Order::Current { reply } => {
                let ports = self.fronts.iter().map(|(name, fronts)| {
                    (name.clone(), fronts.iter().filter_map(|front| front.port.clone()).collect())
                });
                let named = self.dns.keys().cloned().collect();
                let _ = reply.send(Current { durable: self.durable.clone(), ports: ports.collect(), named });
            }
            // Replicas whose definition is lost are somebody's all the same: they stay until `down`.
            Order::Forsaken => {
                self.wanted.going_down |= self.durable.version == 0 && self.world.is_empty();
            }
        }
    }

    fn list(&self, services: &[String]) -> Result<Vec<ReplicaId>, Refusal> {
        let there =
            |name: &&String| self.durable.app.services.contains_key(*name) || self.world.contains_key(*name);
        if let Some(unknown) = services.iter().find(|name| !there(name)) {
            return Err(self.no_service(unknown));
        }
        let chosen = |key: &&Key| services.is_empty() || services.contains(&key.0);
        Ok(self.details.keys().filter(chosen).map(|key| self.id(key)).collect())
    }

    fn adopt(&mut self, applied: Applied) -> Result<(), Refusal> {
        if self.wanted.going_down {
            let message = format!("{} is being taken down", self.fixed.project);
            return Err(Refusal::new(RefusalKind::App, message).hint("wait for it to end, then try again"));
        }
        self.save(&applied.durable)?;
        self.durable = applied.durable;
        self.informed = true;
        self.wanted.services = applied.prepared.iter().map(|(name, p)| (name.clone(), wanted(p))).collect();
        self.prepared = applied.prepared;
        self.describe();
        self.fronts.retain(|name, fronts| {
            let ports = self.durable.app.services.get(name).map(|service| &service.ports);
            fronts.retain(|front| match (&front.port, ports) {
                (Some(port), Some(ports)) => ports.contains(port),
                (None, Some(_)) => true,
                (_, None) => false,
            });
            !fronts.is_empty()
        });
        for (name, fronts) in applied.fronts {
            self.fronts.entry(name).or_default().extend(fronts);
        }
        self.dns.retain(|name, _| self.durable.networks.contains_key(name));
        self.dns.extend(applied.dns);
        self.told.clear();
        self.event("app", &self.fixed.project.clone(), "definition applied");
        Ok(())
    }

    /// Fills in what the runtime's records do not say of replicas that an earlier supervisor started.
    fn describe(&mut self) {
        for (key, detail) in self.details.iter_mut().filter(|(_, detail)| detail.image.is_empty()) {
            if let Some(prepared) = self.prepared.get(&key.0) {
                detail.image = prepared.service.image.clone();
                detail.command = prepared.process.args.join(" ");
            }
        }
    }

    fn scale(&mut self, replicas: BTreeMap<String, u32>) -> Result<(), Refusal> {
        let mut durable = self.durable.clone();
        for (name, count) in &replicas {
            let service = durable.app.services.get_mut(name).ok_or_else(|| self.no_service(name))?;
            service.replicas = *count;
        }
        self.save(&durable)?;
        self.durable = durable;
        for (name, count) in replicas {
            if let Some(prepared) = self.prepared.get_mut(&name) {
                prepared.service.replicas = count;
            }
            if let Some(service) = self.wanted.services.get_mut(&name) {
                let before = std::mem::replace(&mut service.replicas, count);
                self.event("scale", &name, &format!("scaled from {before} to {count}"));
            }
        }
        Ok(())
    }

    fn go_down(&mut self, volumes: bool, grace: Option<Duration>) {
        self.volumes_too |= volumes;
        self.grace = grace;
        self.wanted.going_down = true;
        self.durable.going_down = true;
        if let Err(refusal) = self.save(&self.durable.clone()) {
            tracing::warn!("{refusal}");
        }
        self.event("app", &self.fixed.project.clone(), "going down");
    }

    fn save(&self, durable: &Durable) -> Result<(), Refusal> {
        let path = self.fixed.paths.state_file(&self.fixed.project);
        state::save(&path, durable).map_err(|error| {
            Refusal::new(RefusalKind::Host, error.to_string())
                .hint("see that the disk has room and is writable")
        })
    }

    fn no_service(&self, name: &str) -> Refusal {
        let known: Vec<&str> = self.durable.app.services.keys().map(String::as_str).collect();
        Refusal::new(RefusalKind::NotFound, format!("no service {name} in {}", self.fixed.project))
            .hint(format!("it has: {}", known.join(", ")))
    }

    fn endpoint(&mut self, name: &str, port: Option<u16>) -> Result<SocketAddr, Refusal> {
        let service = self.prepared.get(name).ok_or_else(|| self.no_service(name))?;
        let fronts = self.fronts.entry(name.to_owned()).or_default();
        let existing = fronts.iter().find(|front| port.is_none_or(|port| front.target == port));
        if let Some(front) = existing {
            return Ok(front.proxy.local_addr());
        }
        let target = port.or(service.service.ports.first().map(|port| port.target)).ok_or_else(|| {
            Refusal::new(RefusalKind::Invalid, format!("{name} publishes no port"))
                .hint(format!("say which one to use, as in {name}:8080"))
        })?;
        let front = front::open_private(target, self.generation, steps::dial(&self.fixed.engine))?;
        let address = front.proxy.local_addr();
        fronts.push(front);
        self.told.remove(name);
        Ok(address)
    }

    fn pick(&self, name: &str, ordinal: Option<u32>) -> Result<ReplicaId, Refusal> {
        let replicas = self.world.get(name).ok_or_else(|| self.no_service(name))?;
        let running = |view: &ReplicaView| matches!(view.phase, Phase::Running { .. });
        let found = match ordinal {
            Some(ordinal) => replicas.get(&ordinal).filter(|view| running(view)).map(|_| ordinal),
            None => replicas.iter().find(|(_, view)| running(view)).map(|(ordinal, _)| *ordinal),
        };
        let ordinal = found.ok_or_else(|| {
            let which = ordinal.map_or_else(|| name.to_owned(), |ordinal| format!("{name}-{ordinal}"));
            Refusal::new(RefusalKind::NotFound, format!("no replica {which} is running"))
                .hint("see `throng ps --all`")
        })?;
        Ok(self.id(&(name.to_owned(), ordinal)))
    }

    fn id(&self, key: &Key) -> ReplicaId {
        ReplicaId { project: self.fixed.project.clone(), service: key.0.clone(), ordinal: key.1 }
    }

    fn carry_out(&mut self, plan: Plan) {
        let waiting = plan.waiting.into_iter().map(|w| (w.service, (w.reason, w.hopeless))).collect();
        self.waiting = waiting;
        for step in plan.steps {
            match step {
                Step::Launch { service, ordinal } => self.launch((service, ordinal)),
                Step::Restart { service, ordinal } => self.restart((service, ordinal)),
                Step::Retire { service, ordinal } => self.retire((service, ordinal)),
                Step::Probe { service, ordinal } => self.probe((service, ordinal)),
            }
        }
    }

    fn launch(&mut self, key: Key) {
        let Some(prepared) = self.prepared.get(&key.0) else { return };
        self.generation += 1;
        let mut networks = Vec::new();
        let mut full = None;
        for network in &prepared.networks {
            let taken = self.taken.entry(network.name.clone()).or_default();
            match address::free_address(network, taken) {
                Some(address) => {
                    taken.insert(address);
                    networks.push(Attachment { network: network.name.clone(), address });
                }
                None => {
                    full = Some(format!("network {} has no free address in {}", network.name, network.subnet))
                }
            }
        }
        let spec = prepared.replica(self.id(&key), self.generation, networks.clone());
        let mut detail = Detail::new(self.generation, networks);
        detail.image = prepared.service.image.clone();
        detail.command = spec.process.args.join(" ");
        let view = ReplicaView {
            config_hash: prepared.config_hash.clone(),
            phase: Phase::Created,
            busy: full.is_none(),
            health: Health::default(),
            streak: 0,
        };
        self.details.insert(key.clone(), detail);
        self.world.entry(key.0.clone()).or_default().insert(key.1, view);
        match full {
            Some(error) => self.launch_failed(&key, error, false),
            None => {
                self.tasks.spawn(steps::launch(self.fixed.engine.clone(), key, spec));
            }
        }
    }

    /// Starts a replica again. Its record is written anew, so that it gets today's definition.
    fn restart(&mut self, key: Key) {
        let Some(prepared) = self.prepared.get(&key.0) else { return };
        self.generation += 1;
        let id = self.id(&key);
        let Some((view, detail)) = Self::replica(&mut self.world, &mut self.details, &key) else { return };
        view.busy = true;
        detail.generation = self.generation;
        detail.exit = None;
        detail.finished_at = None;
        if !matches!(view.phase, Phase::Created) {
            view.streak = view.streak.saturating_add(1);
            detail.restarts = detail.restarts.saturating_add(1);
        }
        let spec = prepared.replica(id, self.generation, detail.networks.clone());
        self.tasks.spawn(steps::launch(self.fixed.engine.clone(), key, spec));
    }

    fn retire(&mut self, key: Key) {
        self.generation += 1;
        let id = self.id(&key);
        let grace = self.grace;
        let proxies =
            self.fronts.get(&key.0).into_iter().flatten().map(|front| front.proxy.clone()).collect();
        let prepared = self.prepared.get(&key.0);
        let order = steps::Retirement {
            id,
            generation: self.generation,
            signal: prepared.map_or(15, |prepared| prepared.stop_signal),
            grace: grace
                .or(prepared.map(|prepared| prepared.service.stop_grace_period))
                .unwrap_or(Duration::from_secs(10)),
            proxies,
        };
        let Some((view, detail)) = Self::replica(&mut self.world, &mut self.details, &key) else { return };
        view.busy = true;
        detail.leaving = true;
        // The balancers must know before the replica is asked to leave.
        self.tell(&key.0.clone());
        self.tasks.spawn(steps::retire(self.fixed.engine.clone(), key, order));
    }

    fn probe(&mut self, key: Key) {
        let id = self.id(&key);
        let Some(check) = self.prepared.get(&key.0).and_then(|prepared| prepared.health.clone()) else {
            return;
        };
        let Some((view, detail)) = Self::replica(&mut self.world, &mut self.details, &key) else { return };
        view.busy = true;
        let generation = detail.generation;
        self.tasks.spawn(steps::probe(self.fixed.engine.clone(), key, id, generation, check));
    }

    fn replica<'a>(
        world: &'a mut World,
        details: &'a mut BTreeMap<Key, Detail>,
        key: &Key,
    ) -> Option<(&'a mut ReplicaView, &'a mut Detail)> {
        Some((world.get_mut(&key.0)?.get_mut(&key.1)?, details.get_mut(key)?))
    }

    fn finished(&mut self, outcome: Result<Outcome, tokio::task::JoinError>) {
        match outcome {
            Ok(Outcome::Launched { key, generation, result }) => self.launched(&key, generation, result),
            Ok(Outcome::Retired { key, result }) => self.retired(&key, result),
            Ok(Outcome::Probed { key, generation, result }) => self.probed(&key, generation, result),
            Ok(Outcome::Sampled { at, samples }) => self.sampled(at, samples),
            Err(error) => {
                // A panic in a step is a defect; the supervisor and its replicas go on.
                tracing::error!("a step ended abnormally: {error}");
                self.event("warning", "", &format!("a step ended abnormally: {error}"));
            }
        }
    }

    fn launched(&mut self, key: &Key, generation: u64, result: Result<u32, throng_runtime::RuntimeError>) {
        let now = self.now();
        match result {
            Ok(_pid) => {
                let Some((view, detail)) = Self::replica(&mut self.world, &mut self.details, key) else {
                    return;
                };
                view.busy = false;
                detail.error = None;
                detail.started_at = Some(SystemTime::now());
                // It may already have ended: the exit was then seen before this outcome and must stand.
                let ended = detail.exit.is_some() && detail.generation == generation;
                if !ended {
                    view.phase = Phase::Running { since: now };
                    view.health = Health::default();
                }
                self.event("replica", &replica_name(key), "started");
            }
            Err(error) => {
                let permanent = error.kind == throng_runtime::ErrorKind::Invalid;
                let text = match &error.hint {
                    Some(hint) => format!("{error} (hint: {hint})"),
                    None => error.to_string(),
                };
                self.launch_failed(key, text, permanent);
            }
        }
    }

    fn launch_failed(&mut self, key: &Key, error: String, permanent: bool) {
        let now = self.now();
        if let Some((view, detail)) = Self::replica(&mut self.world, &mut self.details, key) {
            view.busy = false;
            view.phase = Phase::Failed { at: now, permanent };
            detail.error = Some(error.clone());
        }
        self.event("warning", &replica_name(key), &format!("could not start: {error}"));
    }

    fn retired(&mut self, key: &Key, result: Result<(), throng_runtime::RuntimeError>) {
        if let Err(error) = result {
            // What cannot be removed is kept and tried again; nothing is forgotten.
            let message = format!("could not be removed: {error}");
            if let Some((view, detail)) = Self::replica(&mut self.world, &mut self.details, key) {
                view.busy = false;
                detail.error = Some(message.clone());
            }
            self.event("warning", &replica_name(key), &message);
            return;
        }
        if let Some(detail) = self.details.remove(key) {
            for attachment in detail.networks {
                if let Some(taken) = self.taken.get_mut(&attachment.network) {
                    taken.remove(&attachment.address);
                }
            }
        }
        if let Some(replicas) = self.world.get_mut(&key.0) {
            replicas.remove(&key.1);
            if replicas.is_empty() {
                self.world.remove(&key.0);
            }
        }
        self.event("replica", &replica_name(key), "removed");
    }

    fn probed(&mut self, key: &Key, generation: u64, result: Result<(), String>) {
        let now = self.now();
        let Some(check) = self.prepared.get(&key.0).and_then(|prepared| prepared.health.clone()) else {
            return;
        };
        let Some((view, detail)) = Self::replica(&mut self.world, &mut self.details, key) else { return };
        view.busy = false;
        let Phase::Running { since } = view.phase else { return };
        if detail.generation != generation {
            return;
        }
        let before = view.health.status;
        view.health = view.health.after_probe(&check, since, result.is_ok(), now);
        let after = view.health.status;
        if let Err(reason) = &result {
            detail.error = Some(format!("health check: {reason}"));
        } else {
            detail.error = None;
        }
        if before != after {
            let message = match (after, result) {
                (HealthStatus::Healthy, _) => "healthy".to_owned(),
                (_, Err(reason)) => format!("unhealthy: {reason}"),
                (_, Ok(())) => "unhealthy".to_owned(),
            };
            self.event("health", &replica_name(key), &message);
        }
    }

    fn exited(&mut self, event: RuntimeEvent) {
        let RuntimeEvent::Exited { id, generation, exit } = event;
        let now = self.now();
        let key = (id.service, id.ordinal);
        let Some((view, detail)) = Self::replica(&mut self.world, &mut self.details, &key) else { return };
        if detail.generation != generation && !detail.leaving {
            return;
        }
        if let Phase::Running { since } = view.phase {
            view.streak = restart::streak_after(view.streak, now.saturating_sub(since));
        }
        view.phase = Phase::Exited { exit, at: now };
        detail.exit = Some(exit);
        detail.finished_at = Some(SystemTime::now());
        detail.cpu = 0.0;
        if !detail.leaving {
            self.event("replica", &replica_name(&key), &exit.to_string());
        }
    }

    fn sample(&mut self) {
        let running: Vec<(Key, ReplicaId)> = self
            .world
            .iter()
            .flat_map(|(service, replicas)| {
                replicas.iter().map(move |(ordinal, view)| (service, ordinal, view))
            })
            .filter(|(_, _, view)| matches!(view.phase, Phase::Running { .. }))
            .map(|(service, ordinal, _)| (service.clone(), *ordinal))
            .map(|key| (key.clone(), self.id(&key)))
            .collect();
        // A sampling that takes longer than its period is not piled up on.
        if self.sampling || running.is_empty() {
            return;
        }
        self.sampling = true;
        self.tasks.spawn(steps::sample(self.fixed.engine.clone(), running));
    }

    fn sampled(&mut self, at: Instant, samples: Vec<(Key, Option<Statistics>)>) {
        self.sampling = false;
        let mut sent = Vec::new();
        for (key, statistics) in samples {
            let (Some(detail), Some(new)) = (self.details.get_mut(&key), statistics) else { continue };
            match detail.statistics.replace((at, new)) {
                Some((then, old)) => {
                    let sample = rates(&key, &old, &new, at.saturating_duration_since(then));
                    detail.cpu = sample.cpu;
                    sent.push(sample);
                }
                // The first reading says what was used since the start, which is better than nothing in a listing.
                None => {
                    let ran = detail.started_at.and_then(|start| start.elapsed().ok());
                    detail.cpu = ran.map_or(0.0, |ran| new.cpu.as_secs_f64() / ran.as_secs_f64().max(1e-3));
                }
            }
        }
        let _ = self.feed.send(Arc::new(Reply::Samples { at: SystemTime::now(), samples: sent }));
    }

    fn event(&mut self, kind: &str, subject: &str, message: &str) {
        tracing::info!("{kind} {subject}: {message}");
        let event = Event {
            at: SystemTime::now(),
            kind: kind.into(),
            subject: subject.into(),
            message: message.into(),
        };
        if self.events.len() == EVENTS_KEPT {
            self.events.pop_front();
        }
        self.events.push_back(event.clone());
        // No subscriber is no loss: the event is kept above.
        let _ = self.feed.send(Arc::new(Reply::Event { event }));
    }

    /// Ready replicas of a service, as the balancers know them.
    fn ready(&self, service: &str) -> Vec<(String, Ipv4Addr)> {
        let check = self.prepared.get(service).and_then(|prepared| prepared.health.as_ref());
        let replicas = self.world.get(service).into_iter().flatten();
        replicas
            .filter(|(_, view)| view.ready(check))
            .filter_map(|(ordinal, _)| {
                let detail = self.details.get(&(service.to_owned(), *ordinal))?;
                let address = detail.networks.first()?.address;
                (!detail.leaving).then(|| (format!("{service}-{ordinal}"), address))
            })
            .collect()
    }

    /// Tells a service's balancers which replicas are ready, if that has changed. True if it has.
    fn tell(&mut self, service: &str) -> bool {
        let ready = self.ready(service);
        if self.told.get(service) == Some(&ready) {
            return false;
        }
        if let Some(fronts) = self.fronts.get(service) {
            front::set_backends(fronts, &ready);
        }
        self.told.insert(service.to_owned(), ready);
        true
    }

    /// Lets everybody outside know what has changed.
    fn publish(&mut self) {
        let services: BTreeSet<String> = self.world.keys().chain(self.prepared.keys()).cloned().collect();
        let mut changed = false;
        for service in &services {
            changed |= self.tell(service);
        }
        if changed {
            self.fixed.directory.replace(self.names());
        }
        let readiness: BTreeMap<String, Readiness> =
            services.into_iter().map(|service| (service.clone(), self.service_readiness(&service))).collect();
        let differs = **self.readiness.borrow() != readiness;
        if differs {
            let _ = self
                .feed
                .send(Arc::new(Reply::Counts { at: SystemTime::now(), services: readiness.clone() }));
            self.readiness.send_replace(Arc::new(readiness));
        }
    }

    /// Every name that replicas can ask for, per network.
    fn names(&self) -> HashMap<String, HashMap<String, Vec<Ipv4Addr>>> {
        let mut networks: HashMap<String, HashMap<String, Vec<Ipv4Addr>>> = HashMap::new();
        for (service, prepared) in &self.prepared {
            let ready: BTreeSet<String> = self.ready(service).into_iter().map(|(name, _)| name).collect();
            for (key, attachment) in &prepared.service.networks {
                let Some(network) = self.durable.networks.get(key) else { continue };
                let names = networks.entry(network.name.clone()).or_default();
                for name in attachment.aliases.iter().chain([service]) {
                    names.entry(name.to_ascii_lowercase()).or_default();
                }
                for ordinal in self.world.get(service).into_iter().flat_map(BTreeMap::keys) {
                    let Some(detail) = self.details.get(&(service.clone(), *ordinal)) else { continue };
                    let Some(at) = detail.networks.iter().find(|at| at.network == network.name) else {
                        continue;
                    };
                    let replica = format!("{service}-{ordinal}");
                    if ready.contains(&replica) {
                        for name in attachment.aliases.iter().chain([service]) {
                            names.entry(name.to_ascii_lowercase()).or_default().push(at.address);
                        }
                    }
                    names.insert(format!("{}-{replica}", self.fixed.project), vec![at.address]);
                    names.insert(replica, vec![at.address]);
                }
            }
        }
        networks
    }

    fn service_readiness(&self, service: &str) -> Readiness {
        let prepared = self.prepared.get(service);
        let mut readiness = listing::readiness(
            self.world.get(service),
            prepared.and_then(|prepared| prepared.health.as_ref()),
            |ordinal| self.details.get(&(service.to_owned(), ordinal)),
        );
        let wanted = self.wanted.services.get(service).map_or(0, |service| service.replicas);
        readiness.wanted = if self.wanted.going_down { 0 } else { wanted };
        if let Some((reason, hopeless)) = self.waiting.get(service) {
            readiness.waiting = Some(reason.clone());
            readiness.hopeless |= *hopeless;
        }
        let policy = prepared.map(|prepared| prepared.service.restart).unwrap_or_default();
        let leaving =
            |ordinal| self.details.get(&(service.to_owned(), ordinal)).is_some_and(|detail| detail.leaving);
        readiness.hopeless |= listing::hopeless(self.world.get(service), policy, leaving);
        // An app that is being taken down reaches no other state, even though nothing is wanted of it any more.
        readiness.hopeless |= self.wanted.going_down;
        readiness
    }

    fn status(&self) -> Status {
        let services: BTreeMap<_, _> = self
            .prepared
            .iter()
            .map(|(name, prepared)| {
                let fronts = self.fronts.get(name).into_iter().flatten();
                let published = fronts
                    .filter(|front| front.port.is_some())
                    .map(|front| Published { address: front.proxy.local_addr(), target: front.target });
                let status = ServiceStatus {
                    image: prepared.service.image.clone(),
                    readiness: self.service_readiness(name),
                    published: published.collect(),
                };
                (name.clone(), status)
            })
            .collect();
        let replicas = self.details.iter().filter_map(|(key, detail)| {
            let view = self.world.get(&key.0)?.get(&key.1)?;
            let check = self.prepared.get(&key.0).and_then(|prepared| prepared.health.as_ref());
            Some(listing::replica(&self.id(key), view, detail, check.is_some()))
        });
        Status {
            project: self.fixed.project.clone(),
            directory: self.durable.app.directory.clone(),
            isolation: listing::isolation(self.fixed.engine.isolation()).into(),
            lost: self.fixed.engine.lost(),
            services,
            replicas: replicas.collect(),
        }
    }

    /// Everything of the app is gone; take away what belonged to the app as a whole.
    async fn leave(&mut self) {
        self.dns.clear();
        for front in std::mem::take(&mut self.fronts).into_values().flatten() {
            if let Some(proxy) = Arc::into_inner(front.proxy) {
                proxy.shutdown(Duration::from_secs(1)).await;
            }
        }
        for network in self.durable.networks.values() {
            if let Err(error) = self.fixed.engine.remove_network(&network.name).await {
                tracing::warn!("network {}: {error}", network.name);
            }
        }
        if self.volumes_too {
            remove_volumes(&self.durable.app, &self.fixed.paths);
        }
        let folder = self.fixed.paths.project(&self.fixed.project);
        if let Err(error) = std::fs::remove_dir_all(&folder) {
            tracing::warn!("{}: {error}", folder.display());
        }
    }
}

impl Detail {
    fn new(generation: u64, networks: Vec<Attachment>) -> Detail {
        Detail {
            generation,
            networks,
            image: String::new(),
            command: String::new(),
            leaving: false,
            exit: None,
            error: None,
            restarts: 0,
            created_at: SystemTime::now(),
            started_at: None,
            finished_at: None,
            statistics: None,
            cpu: 0.0,
        }
    }
}

fn replica_name(key: &Key) -> String {
    format!("{}-{}", key.0, key.1)
}

fn wanted(prepared: &Prepared) -> WantedService {
    WantedService {
        replicas: prepared.service.replicas,
        config_hash: prepared.config_hash.clone(),
        restart: prepared.service.restart,
        depends_on: prepared.service.depends_on.clone(),
        health: prepared.health.clone(),
    }
}

fn rates(key: &Key, old: &Statistics, new: &Statistics, passed: Duration) -> ReplicaSample {
    let seconds = passed.as_secs_f64().max(1e-3);
    // A restarted replica's counters begin again; that is no negative rate.
    let per_second = |old: u64, new: u64| new.saturating_sub(old) as f64 / seconds;
    ReplicaSample {
        service: key.0.clone(),
        name: replica_name(key),
        cpu: new.cpu.saturating_sub(old.cpu).as_secs_f64() / seconds,
        memory: new.memory,
        pids: new.pids,
        received: per_second(old.network_received, new.network_received),
        sent: per_second(old.network_sent, new.network_sent),
    }
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
