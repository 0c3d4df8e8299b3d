//! The autoscalers' part of the actor: it asks for what they need, and makes wanted what they decide.

use super::*;
use crate::autoscale::pods::Kind;
use crate::autoscale::{self, Decision, Gathered, Subjected, Told};
use throng_model::autoscale::{AutoscalerStatus, Description};
use throng_proxy::Demand;

/// Events of one service that its description shows.
const EVENTS_DESCRIBED: usize = 30;
/// Services that are woken up before the actor hears of it; each of them at most a few times.
pub(super) const WAKINGS_WAITING: usize = 64;

impl Actor {
    /// Has the autoscalers that the app asks for.
    pub(super) fn define_autoscalers(&mut self) {
        let services = self.prepared.iter().map(|(name, prepared)| (name, &prepared.service));
        self.autoscalers.define(services, Instant::now());
    }

    /// An autoscaled service keeps its count when the app is applied again: what the file says is where it began. A file
    /// that says 0 turns the autoscaler off, and one that says more turns it on again.
    pub(super) fn keep_autoscaled(&self, applied: &mut Applied) {
        for (name, prepared) in &mut applied.prepared {
            let current = self.durable.app.services.get(name).filter(|current| current.autoscale.is_some());
            let (Some(current), Some(autoscale)) = (current, &prepared.service.autoscale) else { continue };
            let may_be_none =
                autoscale.spec.get("minReplicas").and_then(serde_json::Value::as_i64) == Some(0);
            let off = prepared.service.replicas == 0 || current.replicas == 0 && !may_be_none;
            if !off {
                prepared.service.replicas = current.replicas;
            }
            if let Some(service) = applied.durable.app.services.get_mut(name) {
                service.replicas = prepared.service.replicas;
            }
        }
    }

    /// Begins what is due.
    pub(super) fn look(&mut self) {
        if self.wanted.going_down || !self.informed {
            return;
        }
        let now = Instant::now();
        for service in self.autoscalers.due(now) {
            let replicas = self.subjected(&service);
            let Some(autoscaler) = self.autoscalers.get_mut(&service) else { continue };
            let (looks, reads, mut inquiry) = autoscaler.begin(&replicas, now);
            if reads {
                inquiry.usage = self.metered(&service);
            }
            let (runtime, dial) = (self.fixed.runtime.clone(), self.fixed.backend.dial());
            self.tasks.spawn(async move {
                let gathered = tokio::spawn(autoscale::gather(runtime, dial, inquiry)).await;
                Outcome::Gathered { service, looks, gathered: gathered.ok() }
            });
        }
    }

    fn subjected(&self, service: &str) -> Vec<Subjected> {
        let address = |detail: &Detail| detail.networks.first().map(|attachment| attachment.address);
        self.running(service)
            .map(|(ordinal, detail)| Subjected { ordinal, address: address(detail) })
            .collect()
    }

    /// Replicas whose usage can be read, with their generations.
    fn metered(&self, service: &str) -> Vec<(u64, ReplicaId)> {
        let id = |ordinal| self.id(&(service.to_owned(), ordinal));
        self.running(service).map(|(ordinal, detail)| (detail.generation, id(ordinal))).collect()
    }

    pub(super) fn gathered(&mut self, service: String, looks: bool, gathered: Option<Gathered>) {
        let demands: Vec<(usize, String, Demand)> = match self.autoscalers.get(&service) {
            Some(autoscaler) if looks => autoscaler
                .own()
                .map(|(metric, of, name)| (metric, name.to_owned(), self.address_demand(of)))
                .collect(),
            _ => Vec::new(),
        };
        let details = self.details.get(&service);
        let Some(autoscaler) = self.autoscalers.get_mut(&service) else { return };
        let Some(mut gathered) = gathered else { return autoscaler.give_up() };
        for (metric, name, demand) in demands {
            gathered.found.insert((metric, None), autoscale::own_figure(&name, demand));
        }
        autoscaler.take_in(gathered, |ordinal| details?.get(&ordinal)?.started_at?.elapsed().ok());
        if looks && !self.wanted.going_down {
            self.decide(&service);
        }
    }

    /// What the address of a service is asked for.
    fn address_demand(&self, service: &str) -> Demand {
        let fronts = self.fronts.get(service).into_iter().flatten();
        fronts.fold(Demand::default(), |sum, front| {
            let one = front.proxy.demand();
            Demand { requests: sum.requests + one.requests, under_way: sum.under_way + one.under_way }
        })
    }

    fn decide(&mut self, service: &str) {
        let now = Instant::now();
        let Some(prepared) = self.prepared.get(service) else { return };
        let Some(wanted) = self.wanted.services.get(service) else { return };
        let current = wanted.replicas;
        let Some(autoscaler) = self.autoscalers.get(service) else { return };
        let kind = Kind { service, wanted, resources: &prepared.service.resources };
        let pods = self
            .replicas(service)
            .map(|(ordinal, view, detail)| kind.pod(ordinal, view, detail, autoscaler.noted(ordinal), now))
            .collect();
        let Some(autoscaler) = self.autoscalers.get_mut(service) else { return };
        let Decision { replicas, explanation, told } = autoscaler.decide(current, pods, now);
        match told {
            Some(Told::Failing(reason)) => {
                let message =
                    format!("the autoscaler has no metric to decide by and keeps {current}: {reason}");
                self.event("warning", service, &message);
            }
            Some(Told::Recovered) => self.event("autoscale", service, "there are metrics to decide by again"),
            None => {}
        }
        if replicas != current {
            self.rescale(service, replicas, &explanation);
        }
        self.watch_address(service);
    }

    /// Makes the count the wanted one, as `throng scale` does.
    fn rescale(&mut self, service: &str, replicas: u32, explanation: &str) {
        let result = self.scale(BTreeMap::from([(service.to_owned(), replicas)]));
        let Some(autoscaler) = self.autoscalers.get_mut(service) else { return };
        match result {
            Ok(()) => {
                autoscaler.scaled();
                self.event("autoscale", service, &format!("new size {replicas}: {explanation}"));
            }
            Err(refusal) => {
                autoscaler.not_scaled(&refusal.message);
                let message = format!("the autoscaler asks for {replicas}, but: {}", refusal.message);
                self.event("warning", service, &message);
            }
        }
    }

    /// While a service that may have no replicas has none, a request at its address makes one.
    pub(super) fn watch_address(&mut self, service: &str) {
        let none = self.wanted.services.get(service).is_some_and(|wanted| wanted.replicas == 0);
        let waiting = match none {
            true => {
                self.fronts.get(service).into_iter().flatten().map(|front| front.proxy.waiting()).collect()
            }
            false => Vec::new(),
        };
        if let Some(autoscaler) = self.autoscalers.get_mut(service).filter(|one| one.wakes_up()) {
            autoscaler.watch(waiting, service, &self.woken_in);
        }
    }

    /// A request waits at the address of a service. Metrics are looked at right after, for more than one may be needed.
    pub(super) fn woken(&mut self, service: &str) {
        let none = self.wanted.services.get(service).is_some_and(|wanted| wanted.replicas == 0);
        if !none || self.wanted.going_down {
            return;
        }
        let now = Instant::now();
        let Some(autoscaler) = self.autoscalers.get_mut(service).filter(|one| one.wakes_up()) else { return };
        autoscaler.woke_up(now);
        autoscaler.hurry(now);
        self.rescale(service, 1, "a request waits at its address");
        self.watch_address(service);
    }

    /// For what replicas should request.
    pub(super) fn note_usage(&mut self, now: Instant) {
        let due = self.recommenders.due(now);
        for (service, details) in &self.details {
            // Nothing is known of one that is new.
            if !due && self.recommenders.knows(service) {
                continue;
            }
            let own = self.prepared.get(service).map(|prepared| &prepared.service);
            self.lives_changed |= own.is_some_and(|own| own.vertical.is_some());
            let resources = own.map(|own| own.resources);
            for detail in details.values() {
                let Some(meter) = detail.meter.as_ref() else { continue };
                let request = detail.given.or(resources).and_then(|own| own.cpu_request());
                let bytes = meter.statistics.memory_unreclaimable;
                self.recommenders.sample(service, now, meter.cpu, bytes, request.unwrap_or_default());
            }
        }
    }

    /// A replica was killed at its limit.
    pub(super) fn note_out_of_memory(&mut self, service: &str, given: Option<Resources>) {
        let own = self.prepared.get(service).map(|prepared| prepared.service.resources);
        if let Some(limit) = given.or(own).and_then(|resources| resources.memory) {
            self.recommenders.out_of_memory(service, Instant::now(), limit);
        }
    }

    pub(super) fn autoscaler_status(&self, service: &str) -> Option<AutoscalerStatus> {
        let current = self.details.get(service).map_or(0, |details| details.len());
        let desired = self.wanted.services.get(service).map_or(0, |wanted| wanted.replicas);
        let current = u32::try_from(current).unwrap_or(u32::MAX);
        Some(self.autoscalers.get(service)?.status(current, desired))
    }

    pub(super) fn describe_service(&self, service: &str) -> Result<Description, Refusal> {
        let prepared = self.prepared.get(service).ok_or_else(|| self.no_service(service))?;
        let resources = &prepared.service.resources;
        let of_it = |event: &&Event| match event.subject.strip_prefix(service) {
            Some("") => true,
            Some(rest) => rest.strip_prefix('-').is_some_and(|ordinal| ordinal.parse::<u32>().is_ok()),
            None => false,
        };
        let mut events: Vec<Event> =
            self.events.iter().rev().filter(of_it).take(EVENTS_DESCRIBED).cloned().collect();
        events.reverse();
        Ok(Description {
            service: service.to_owned(),
            autoscaler: self.autoscaler_status(service),
            events,
            health_check: prepared.health.clone(),
            liveness: prepared.service.liveness.clone(),
            startup: prepared.service.startup.clone(),
            requests: (resources.cpu_request(), resources.memory_request()),
            recommendation: self.recommenders.recommendation(service),
            vertical: self.vertical_status(&prepared.service),
        })
    }
}
