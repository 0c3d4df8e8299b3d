//! What others are told: balancers, names, subscribers, listings.

use super::*;
use crate::autoscale::Autoscaler;
use crate::names::{Definition, Door};

/// What the balancers and the directory know of one service.
pub(super) struct Told {
    ready: Vec<(u32, Ipv4Addr)>,
    door: Option<bool>,
}

/// Those of a service are its replicas' and its own.
fn labels(service: &throng_model::app::Service) -> BTreeMap<String, String> {
    let mut labels = service.labels.clone();
    labels.extend(service.deploy_labels.clone());
    labels
}

impl Actor {
    pub(super) fn event(&mut self, kind: &str, subject: &str, message: &str) {
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

    /// Replicas of a service in their order.
    pub(super) fn replicas(&self, service: &str) -> impl Iterator<Item = (u32, &ReplicaView, &Detail)> {
        let views = self.world.get(service).into_iter().flatten();
        let details = self.details.get(service).into_iter().flat_map(BTreeMap::values);
        // Both hold the same replicas.
        views.zip(details).map(|((ordinal, view), detail)| (*ordinal, view, detail))
    }

    /// Those that run and are to stay, whether or not they may be given work.
    pub(super) fn running(&self, service: &str) -> impl Iterator<Item = (u32, &Detail)> {
        self.replicas(service)
            .filter(|(_, view, _)| view.runs() && !view.leaving)
            .map(|(ordinal, _, detail)| (ordinal, detail))
    }

    /// Replicas of a service that may be given work.
    fn ready(&self, service: &str) -> impl Iterator<Item = (u32, &Detail)> {
        let wanted = self.wanted_of(service);
        self.replicas(service)
            .filter(move |(_, view, detail)| wanted.ready(view) && !detail.cut_off)
            .map(|(ordinal, _, detail)| (ordinal, detail))
    }

    /// Tells a service's balancers and the name servers which replicas are ready, if that has changed.
    pub(super) fn tell(&mut self, service: &str) {
        let addressed = |(ordinal, detail): (u32, &Detail)| Some((ordinal, detail.networks.first()?.address));
        let ready: Vec<(u32, Ipv4Addr)> = self.ready(service).filter_map(addressed).collect();
        let door = self.door(service);
        if self.told.get(service).is_some_and(|told| told.ready == ready && told.door == door) {
            return;
        }
        if let Some(fronts) = self.fronts.get(service) {
            front::set_backends(fronts, service, &ready);
        }
        let mut networks: BTreeMap<&str, Vec<Ipv4Addr>> = BTreeMap::new();
        // Networks that nobody ready is attached to any more are told so.
        let known = self.prepared.get(service).into_iter().flat_map(|prepared| &prepared.networks);
        networks.extend(known.map(|network| (network.name.as_str(), Vec::new())));
        for attachment in self.ready(service).flat_map(|(_, detail)| &detail.networks) {
            networks.entry(&attachment.network).or_default().push(attachment.address);
        }
        for (network, addresses) in networks {
            self.fixed.directory.set_ready(network, service, addresses);
            let own = self.durable.service_addresses.get(network).and_then(|own| own.get(service));
            let door = door.zip(own).map(|(always, address)| Door { address: *address, always });
            self.fixed.directory.set_door(network, service, door);
        }
        if let Some(autoscaler) = self.autoscalers.get_mut(service) {
            let present = self.details.get(service).into_iter().flat_map(BTreeMap::keys).copied();
            autoscaler.note_ready(&present.collect::<Vec<_>>(), &ready, Instant::now());
        }
        self.told.insert(service.to_owned(), Told { ready, door });
    }

    /// Whether somebody who calls a service by name while none of its replicas is ready is to wait for one, and if so
    /// whether all who call it go past where they would: a request that is not seen wakes nobody up, and does not keep
    /// one that answers it from being taken away.
    fn door(&self, service: &str) -> Option<bool> {
        let sleeps = self.autoscalers.get(service).is_some_and(Autoscaler::wakes_up);
        let wanted = self.wanted_of(service).replicas > 0 && !self.wanted.going_down;
        (sleeps || wanted).then_some(sleeps)
    }

    /// Lets everybody outside know what has changed.
    pub(super) fn publish(&mut self) {
        let services: BTreeSet<String> = self.world.keys().chain(self.prepared.keys()).cloned().collect();
        services.iter().for_each(|service| self.tell(service));
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

    /// The names of services and their aliases, per network.
    pub(super) fn names(&self) -> Definition {
        let mut networks = Definition::new();
        for (service, prepared) in &self.prepared {
            for (key, attachment) in &prepared.service.networks {
                let Some(network) = self.durable.networks.get(key) else { continue };
                let names = networks.entry(network.name.clone()).or_default();
                let own = prepared.service.container_name.as_ref();
                for name in attachment.aliases.iter().chain([service]).chain(own) {
                    names.entry(name.clone()).or_default().insert(service.clone());
                }
            }
        }
        networks
    }

    /// Replicas that have ended and that no policy starts again.
    pub(super) fn ended(&self) -> Vec<ReplicaId> {
        let services = self.world.iter().flat_map(|(service, views)| {
            let wanted = self.wanted_of(service);
            let ended = views.iter().filter(move |(_, view)| listing::ended(view, wanted));
            ended.map(move |(ordinal, _)| (service.clone(), *ordinal))
        });
        services.map(|key| self.id(&key)).collect()
    }

    fn wanted_of(&self, service: &str) -> &WantedService {
        self.wanted.services.get(service).unwrap_or(&self.nothing)
    }

    pub(super) fn service_readiness(&self, service: &str) -> Readiness {
        let wanted = self.wanted_of(service);
        let mut readiness = listing::readiness(self.replicas(service), wanted);
        readiness.update = super::rollouts::update(wanted);
        let wanted = self.wanted.services.get(service).map_or(0, |service| service.replicas);
        readiness.wanted = if self.wanted.going_down { 0 } else { wanted };
        self.job_readiness(service, &mut readiness);
        if let Some((reason, hopeless)) = self.waiting.get(service) {
            readiness.waiting = Some(reason.clone());
            readiness.hopeless |= *hopeless;
        }
        // An app that is being taken down reaches no other state, even though nothing is wanted of it any more.
        readiness.hopeless |= self.wanted.going_down;
        readiness
    }

    pub(super) fn status(&self) -> Status {
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
                    limits: prepared.service.resources,
                    labels: labels(&prepared.service),
                };
                (name.clone(), status)
            })
            .collect();
        let replicas =
            self.world.iter().zip(self.details.values()).flat_map(|((service, views), details)| {
                let wanted = self.wanted_of(service);
                views.iter().zip(details.values()).map(move |((ordinal, view), detail)| {
                    let id = self.id(&(service.clone(), *ordinal));
                    let status = listing::replica(&id, view, detail, wanted, self.now());
                    let node = || self.fixed.runtime.machine_of(&id);
                    let name = self.called(service).cloned().unwrap_or(status.name);
                    throng_model::status::ReplicaStatus { name, node: status.node.or_else(node), ..status }
                })
            });
        // Last, since others go through those that are there in their order.
        let replicas = replicas.chain(self.field.pending.iter().flat_map(|(service, pending)| {
            let image = self.prepared.get(service).map(|prepared| prepared.service.image.clone());
            pending.ordinals.iter().map(move |ordinal| {
                let id = self.id(&(service.clone(), *ordinal));
                listing::pending(&id, image.clone().unwrap_or_default(), &pending.reason)
            })
        }));
        Status {
            project: self.fixed.project.clone(),
            directory: self.durable.app.directory.clone(),
            files: self.durable.files.clone(),
            on: self.fixed.backend.on(),
            isolation: self.fixed.backend.isolation().into(),
            lost: self.fixed.backend.lost(),
            unlimited: !self.fixed.backend.limits_enforced(),
            services,
            replicas: replicas.collect(),
        }
    }
}
