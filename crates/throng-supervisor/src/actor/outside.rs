//! What others are told: balancers, names, subscribers, listings.

use super::*;

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

    /// Ready replicas of a service, as the balancers know them.
    pub(super) fn ready(&self, service: &str) -> Vec<(String, Ipv4Addr)> {
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
    pub(super) fn tell(&mut self, service: &str) -> bool {
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
    pub(super) fn publish(&mut self) {
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
    pub(super) fn names(&self) -> HashMap<String, HashMap<String, Vec<Ipv4Addr>>> {
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

    pub(super) fn service_readiness(&self, service: &str) -> Readiness {
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
}
