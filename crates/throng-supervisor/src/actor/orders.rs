//! What connections ask of the actor.

use super::*;
use crate::front::Inside;
use crate::protocol::Target;
use crate::silent::Asked;
use std::net::SocketAddr;
use std::sync::OnceLock;
use throng_model::autoscale::Description;
use throng_model::fault::{ReplicaFault, Victims};
use throng_model::node::{Node, NodeChange, NodeChoice, NodeStatus};
use throng_model::replica::NetworkSpec;

/// How an order that changes something ended.
pub(super) type Done = Result<(), Refusal>;

/// What a connection asks of the actor.
pub enum Order {
    /// All images are there and the networks made; make the app so.
    Adopt {
        applied: Box<Applied>,
        reply: oneshot::Sender<Done>,
    },
    Scale {
        replicas: BTreeMap<String, u32>,
        reply: oneshot::Sender<Done>,
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
    /// Replicas of these services (all if empty), running or not, and what people call them.
    List {
        services: Vec<String>,
        reply: oneshot::Sender<Result<Vec<(ReplicaId, String)>, Refusal>>,
    },
    /// In Prometheus' format.
    Metrics {
        replicas_most: usize,
        reply: oneshot::Sender<String>,
    },
    /// Where running replicas of one service, or of all, can be reached.
    Targets {
        service: Option<String>,
        reply: oneshot::Sender<Result<Vec<Target>, Refusal>>,
    },
    Events {
        reply: oneshot::Sender<Vec<Event>>,
    },
    Current {
        reply: oneshot::Sender<Current>,
    },
    /// One service in detail.
    Describe {
        service: String,
        reply: oneshot::Sender<Result<Description, Refusal>>,
    },
    Census {
        reply: oneshot::Sender<Census>,
    },
    /// An address of a network that no replica gets, nor asks for.
    Reserve {
        network: NetworkSpec,
        asked: BTreeSet<Ipv4Addr>,
        reply: oneshot::Sender<Option<Ipv4Addr>>,
    },
    /// Replicas that have ended and that no policy starts again.
    Ended {
        reply: oneshot::Sender<Vec<ReplicaId>>,
    },
    /// Something that is not of a replica, for the events.
    Say {
        kind: &'static str,
        subject: String,
        message: String,
    },
    /// Nobody is connected and nobody has been for a while. A supervisor that was never given an app leaves.
    Forsaken,
    Nodes {
        reply: oneshot::Sender<Vec<NodeStatus>>,
    },
    /// Answered by what the nodes are to be now.
    ChangeNodes {
        choice: NodeChoice,
        change: NodeChange,
        reply: oneshot::Sender<Result<Vec<(String, Node)>, Refusal>>,
    },
    /// Answered by whom it befalls; what is to be done to them is then told as [`Order::Befallen`].
    Befall {
        victims: Victims,
        fault: ReplicaFault,
        reply: oneshot::Sender<Result<Vec<Victim>, Refusal>>,
    },
    /// It has befallen these, with their generations and the bytes of their disks that it has taken.
    Befallen {
        fault: ReplicaFault,
        done: Vec<(ReplicaId, u64, u64)>,
    },
}

/// What is wanted now and what this process already serves of it.
pub struct Current {
    pub durable: Durable,
    /// Published ports that are listened on, by service.
    pub ports: BTreeMap<String, Vec<Port>>,
    /// Where it listens inside networks, by service.
    pub inside: BTreeMap<String, Vec<Inside>>,
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
    /// What replicas that this makes leave get instead of their own grace period.
    pub grace: Option<Duration>,
    /// It is what an earlier supervisor was about, not anything new; then with what services were before.
    pub resumed: bool,
    pub before: BTreeMap<String, Before>,
    /// Services that are only carried over because others were asked for.
    pub untouched: BTreeSet<String>,
}

/// What the connections share with the actor.
#[derive(Clone)]
pub struct Handles {
    pub orders: mpsc::Sender<Order>,
    /// Has the host looked at for walls that print nothing.
    pub looks: mpsc::Sender<Asked>,
    pub readiness: watch::Receiver<Arc<BTreeMap<String, Readiness>>>,
    pub feed: broadcast::Sender<Arc<Reply>>,
    pub gone: watch::Receiver<bool>,
    /// What could not be taken away, known before `gone` says that all else is.
    pub left: Arc<OnceLock<Refusal>>,
}

impl Handles {
    /// Gives the actor an order and waits for its answer.
    pub async fn ask<T>(&self, order: impl FnOnce(oneshot::Sender<T>) -> Order) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.orders.send(order(reply)).await.map_err(|_| taken_down())?;
        answer.await.map_err(|_| taken_down())
    }
}

pub fn taken_down() -> Refusal {
    Refusal::new(RefusalKind::App, "the app has just been taken down")
}

impl Actor {
    pub(super) fn order(&mut self, order: Order) {
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
            Order::Metrics { replicas_most, reply } => {
                let _ = reply.send(self.metrics_text(replicas_most));
            }
            Order::Targets { service, reply } => {
                let _ = reply.send(self.targets(service.as_deref()));
            }
            Order::Events { reply } => {
                let _ = reply.send(self.events.iter().cloned().collect());
            }
            Order::Current { reply } => {
                let _ = reply.send(self.current());
            }
            Order::Nodes { reply } => {
                let _ = reply.send(self.nodes_listed());
            }
            Order::ChangeNodes { choice, change, reply } => {
                let _ = reply.send(self.change_nodes(&choice, &change));
            }
            Order::Befall { victims, fault, reply } => {
                let _ = reply.send(self.befall(&victims, &fault));
            }
            Order::Befallen { fault, done } => self.befallen(&fault, done),
            Order::Census { reply } => {
                let _ = reply.send(self.census());
            }
            Order::Reserve { network, asked, reply } => {
                let _ = reply.send(self.reserve(&network, &asked));
            }
            Order::Ended { reply } => {
                let _ = reply.send(self.ended());
            }
            Order::Describe { service, reply } => {
                let _ = reply.send(self.describe_service(&service));
            }
            Order::Say { kind, subject, message } => self.event(kind, &subject, &message),
            // Replicas whose definition is lost are somebody's all the same: they stay until `down`.
            Order::Forsaken => {
                self.wanted.going_down |= self.durable.version == 0 && self.world.is_empty();
            }
        }
    }

    fn current(&self) -> Current {
        fn of_all<T>(fronts: &Fronts, of: impl Fn(&front::Front) -> Option<T>) -> BTreeMap<String, Vec<T>> {
            let each =
                |(name, fronts): (&String, &Vec<_>)| (name.clone(), fronts.iter().filter_map(&of).collect());
            fronts.iter().map(each).collect()
        }
        Current {
            durable: self.durable.clone(),
            ports: of_all(&self.fronts, |front| front.port.clone()),
            inside: of_all(&self.fronts, |front| front.inside.clone()),
            named: self.dns.keys().cloned().collect(),
        }
    }

    /// Takes an address of a network that is none of those asked for.
    fn reserve(&mut self, network: &NetworkSpec, asked: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
        let taken = self.taken.entry(network.name.clone()).or_default();
        let mut passed_over = Vec::new();
        let found = loop {
            match taken.take(network) {
                Some(address) if asked.contains(&address) => passed_over.push(address),
                found => break found,
            }
        };
        passed_over.into_iter().for_each(|address| taken.release(address));
        found
    }

    pub(super) fn list(&self, services: &[String]) -> Result<Vec<(ReplicaId, String)>, Refusal> {
        let service = |name: &String| self.service_called(name).map_or_else(|| name.clone(), str::to_owned);
        let services: Vec<String> = services.iter().map(service).collect();
        let there =
            |name: &&String| self.durable.app.services.contains_key(*name) || self.world.contains_key(*name);
        if let Some(unknown) = services.iter().find(|name| !there(name)) {
            return Err(self.no_service(unknown));
        }
        let chosen = |service: &String| services.is_empty() || services.contains(service);
        let found =
            self.details.iter().filter(|(service, _)| chosen(service)).flat_map(|(service, details)| {
                details.keys().map(move |ordinal| {
                    let id = self.id(&(service.clone(), *ordinal));
                    let name = self.called(service).cloned().unwrap_or_else(|| id.name());
                    (id, name)
                })
            });
        Ok(found.collect())
    }

    pub(super) fn adopt(&mut self, mut applied: Applied) -> Result<(), Refusal> {
        if self.wanted.going_down {
            let message = format!("{} is being taken down", self.fixed.project);
            return Err(Refusal::new(RefusalKind::App, message).hint("wait for it to end, then try again"));
        }
        self.keep_autoscaled(&mut applied);
        let next = self.succession(&mut applied);
        applied.durable.jobs = super::jobs::kept(&next.services);
        applied.durable.rollouts = super::rollouts::kept(&next.services, &applied.prepared, &next.before);
        self.save(&applied.durable)?;
        self.durable = applied.durable;
        self.grace = applied.grace;
        self.informed = true;
        (self.wanted.services, self.before) = (next.services, next.before);
        self.prepared = applied.prepared;
        self.reserve_service_addresses();
        self.define_nodes();
        self.define_addresses();
        self.start_stopped();
        self.describe();
        self.fronts.retain(|name, fronts| {
            let Some(service) = self.durable.app.services.get(name) else { return false };
            front::keep(fronts, &service.ports);
            let own = |network: &String| self.durable.service_addresses.get(network)?.get(name);
            fronts.retain(|front| {
                front.inside.as_ref().is_none_or(|inside| own(&inside.network) == Some(&inside.address))
            });
            !fronts.is_empty()
        });
        for (name, fronts) in applied.fronts {
            self.fronts.entry(name).or_default().extend(fronts);
        }
        self.fixed.directory.define(self.names());
        self.dns.retain(|name, _| self.durable.networks.contains_key(name));
        self.dns.extend(applied.dns);
        self.told.clear();
        self.define_autoscalers();
        let app = &self.durable.app;
        self.recommenders.retain(|service| app.services.contains_key(service));
        self.event("app", &self.fixed.project.clone(), "definition applied");
        Ok(())
    }

    /// No replica gets what is a service's own.
    pub(super) fn reserve_service_addresses(&mut self) {
        for (network, services) in &self.durable.service_addresses {
            let taken = self.taken.entry(network.clone()).or_default();
            services.values().for_each(|address| taken.reserve(*address));
        }
    }

    /// Fills in what the runtime's records do not say of replicas that an earlier supervisor started.
    pub(super) fn describe(&mut self) {
        for (service, details) in &mut self.details {
            let Some(prepared) = self.prepared.get(service) else { continue };
            for detail in details.values_mut().filter(|detail| detail.image.is_empty()) {
                detail.image = prepared.service.image.clone();
                detail.command = prepared.process.args.join(" ");
                detail.stop = Some((prepared.stop_signal, prepared.service.stop_grace_period));
            }
        }
    }

    /// Counts are wanted at once, so that replicas start while the disk is waited for; who asked is answered after that
    /// ([`Actor::commit`]). A supervisor that dies in between leaves replicas that the next one takes for surplus.
    pub(super) fn scale(&mut self, replicas: BTreeMap<String, u32>) -> Result<(), Refusal> {
        // Two counts that are changed at once are two changes: the first must not be lost if the second fails.
        self.commit()?;
        let mut durable = self.durable.clone();
        let mut before = BTreeMap::new();
        for (name, count) in &replicas {
            let service = durable.app.services.get_mut(name).ok_or_else(|| self.no_service(name))?;
            if service.job.is_some() {
                let message = format!("{name} is a job: so many replicas of it run as it says");
                return Err(Refusal::new(RefusalKind::Invalid, message)
                    .hint("change completions or parallelism under x-throng.job, then run `throng up`"));
            }
            if let Some(called) = service.container_name.as_ref().filter(|_| *count > 1) {
                let message = format!("{count} replicas of {name} cannot all be called {called}");
                return Err(Refusal::new(RefusalKind::Invalid, message).hint("remove its container_name"));
            }
            if let Some(refusal) = own_address(service, *count) {
                return Err(refusal);
            }
            before.insert(name.clone(), std::mem::replace(&mut service.replicas, *count));
        }
        let path = self.fixed.paths.state_file(&self.fixed.project);
        let written = state::write(&path, &durable).map_err(not_saved)?;
        self.durable = durable;
        self.grace = None;
        self.count(&replicas);
        self.uncommitted = Some((written, before));
        Ok(())
    }

    fn count(&mut self, replicas: &BTreeMap<String, u32>) {
        for (name, count) in replicas {
            if let Some(prepared) = self.prepared.get_mut(name) {
                prepared.service.replicas = *count;
            }
            if let Some(service) = self.wanted.services.get_mut(name) {
                let before = std::mem::replace(&mut service.replicas, *count);
                self.event("scale", name, &format!("scaled from {before} to {count}"));
            }
        }
    }

    /// Makes the counts that were ordered last outlive this process, or takes them back.
    pub(super) fn commit(&mut self) -> Result<(), Refusal> {
        let Some((written, before)) = self.uncommitted.take() else { return Ok(()) };
        tokio::task::block_in_place(|| written.commit()).map_err(|error| {
            for (name, count) in &before {
                if let Some(service) = self.durable.app.services.get_mut(name) {
                    service.replicas = *count;
                }
            }
            self.count(&before);
            not_saved(error)
        })
    }

    pub(super) fn go_down(&mut self, volumes: bool, grace: Option<Duration>) {
        self.volumes_too |= volumes;
        self.grace = grace;
        self.wanted.going_down = true;
        self.durable.going_down = true;
        if let Err(refusal) = self.save(&self.durable.clone()) {
            tracing::warn!("{refusal}");
        }
        self.event("app", &self.fixed.project.clone(), "going down");
    }

    pub(super) fn save(&self, durable: &Durable) -> Result<(), Refusal> {
        let path = self.fixed.paths.state_file(&self.fixed.project);
        state::save(&path, durable).map_err(not_saved)
    }

    pub(super) fn no_service(&self, name: &str) -> Refusal {
        let known: Vec<&str> = self.durable.app.services.keys().map(String::as_str).collect();
        Refusal::new(RefusalKind::NotFound, format!("no service {name} in {}", self.fixed.project))
            .hint(format!("it has: {}", known.join(", ")))
    }

    pub(super) fn endpoint(&mut self, name: &str, port: Option<u16>) -> Result<SocketAddr, Refusal> {
        let service = self.prepared.get(name).ok_or_else(|| self.no_service(name))?;
        let fronts = self.fronts.entry(name.to_owned()).or_default();
        let existing = fronts
            .iter()
            .find(|front| front.inside.is_none() && port.is_none_or(|port| front.target == port));
        if let Some(front) = existing {
            return Ok(front.proxy.local_addr());
        }
        let target = port.or(service.service.ports.first().map(|port| port.target)).ok_or_else(|| {
            Refusal::new(RefusalKind::Invalid, format!("{name} publishes no port"))
                .hint(format!("say which one to use, as in {name}:8080"))
        })?;
        let front = front::open_private(target, self.generation, self.fixed.backend.dial())?;
        let address = front.proxy.local_addr();
        fronts.push(front);
        self.told.remove(name);
        self.watch_address(name);
        Ok(address)
    }

    /// The service of this name, or the one whose only replica has it.
    pub(super) fn service_called<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        if self.prepared.contains_key(name) {
            return Some(name);
        }
        let named =
            |(_, prepared): &(&String, &Prepared)| prepared.service.container_name.as_deref() == Some(name);
        self.prepared.iter().find(named).map(|(service, _)| service.as_str())
    }

    /// What people call a replica: by its service and ordinal, unless it is the only one and has a name of its own.
    pub(super) fn called(&self, service: &str) -> Option<&String> {
        let service = &self.prepared.get(service)?.service;
        service.container_name.as_ref().filter(|_| service.replicas <= 1)
    }

    pub(super) fn pick(&self, name: &str, ordinal: Option<u32>) -> Result<ReplicaId, Refusal> {
        let name = self.service_called(name).unwrap_or(name);
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

    pub(super) fn id(&self, key: &Key) -> ReplicaId {
        ReplicaId { project: self.fixed.project.clone(), service: key.0.clone(), ordinal: key.1 }
    }
}

/// Why a service cannot have so many replicas: an address is one replica's alone.
pub fn own_address(service: &throng_model::app::Service, count: u32) -> Option<Refusal> {
    let address =
        service.networks.values().find_map(|attachment| attachment.address).filter(|_| count > 1)?;
    let message = format!("{count} replicas of {} cannot all have the address {address}", service.name);
    Some(
        Refusal::new(RefusalKind::Invalid, message)
            .hint("remove its ipv4_address; others find it by the service's name"),
    )
}

pub(super) fn wanted(prepared: &Prepared) -> WantedService {
    WantedService {
        replicas: prepared.service.replicas,
        config_hash: prepared.config_hash.clone(),
        restart: (&prepared.service).into(),
        depends_on: prepared.service.depends_on.clone(),
        checks: super::asking::checks(prepared),
        job: super::jobs::work(prepared),
        update: prepared.service.update,
        rollback: prepared.service.rollback,
        ..WantedService::default()
    }
}

fn not_saved(error: state::StateError) -> Refusal {
    Refusal::new(RefusalKind::Host, error.to_string()).hint("see that the disk has room and is writable")
}
