//! What replicas use, and what is told of the app to whoever scrapes it.

use super::*;
use crate::metrics::{self, Meter};
use crate::protocol::Target;

impl Actor {
    pub(super) fn sample(&mut self) {
        if self.starting == 0 && !self.held {
            self.pace.nothing_starts(&self.host.read());
        }
        // A sampling that takes longer than its period is not piled up on.
        if self.sampling.is_some() || Instant::now() < self.next_sampling {
            return;
        }
        let views =
            self.world.iter().flat_map(|(service, views)| views.iter().map(move |view| (service, view)));
        let running: Vec<ReplicaId> = views
            .filter(|(_, (_, view))| matches!(view.phase, Phase::Running { .. }))
            .map(|(service, (ordinal, _))| self.id(&(service.clone(), *ordinal)))
            .collect();
        if running.is_empty() {
            return;
        }
        self.sampling = Some(Instant::now());
        self.tasks.spawn(steps::sample(self.fixed.runtime.clone(), running));
    }

    pub(super) fn sampled(&mut self, at: Instant, samples: Vec<(ReplicaId, Option<Statistics>)>) {
        let took = self.sampling.take().map_or(Duration::ZERO, |since| since.elapsed());
        self.next_sampling = Instant::now() + took * SAMPLE_REST;
        self.metrics.readings.observe(took.as_secs_f64());
        let watched = self.feed.receiver_count() > 0;
        let mut sent = Vec::new();
        for (id, statistics) in samples {
            let detail = self.details.get_mut(&id.service).and_then(|details| details.get_mut(&id.ordinal));
            let (Some(detail), Some(new)) = (detail, statistics) else { continue };
            let used = &mut self.metrics.service(&id.service).used;
            let meter = match &detail.meter {
                Some(last) => {
                    used.add(&last.statistics, &new);
                    let next = last.next(at, new);
                    if watched {
                        sent.push(sample(id, &next));
                    }
                    next
                }
                None => {
                    used.add(&Statistics::default(), &new);
                    Meter::first(at, new, detail.started_at.and_then(|start| start.elapsed().ok()))
                }
            };
            detail.meter = Some(meter);
        }
        self.note_usage(at);
        self.evict(at);
        if watched {
            let _ = self.feed.send(Arc::new(Reply::Samples { at: SystemTime::now(), samples: sent }));
        }
    }

    /// All figures in Prometheus' format, of so many single replicas at most.
    pub(super) fn metrics_text(&self, replicas_most: usize) -> String {
        let readiness: BTreeMap<String, Readiness> = self
            .world
            .keys()
            .chain(self.prepared.keys())
            .map(|service| (service.clone(), self.service_readiness(service)))
            .collect();
        let ages = self
            .details
            .values()
            .flat_map(BTreeMap::values)
            .map(|detail| detail.meter.as_ref().map(Meter::age));
        let replicas = self.status().replicas;
        let rows: Vec<metrics::Row> = replicas
            .into_iter()
            .zip(ages)
            .map(|(status, age)| metrics::Row { age: age.filter(|_| status.statistics.is_some()), status })
            .collect();
        let bounds = self.autoscalers.iter().map(|(name, one)| {
            let (least, most) = (one.min_replicas(), one.max_replicas());
            (name.clone(), metrics::Bounds { least, most, active: one.is_active() })
        });
        let autoscalers = bounds.collect();
        let head = metrics::Head {
            project: &self.fixed.project,
            on: &self.fixed.on.to_string(),
            readiness: &readiness,
            autoscalers: &autoscalers,
            batch: self.pace.batch(),
            starting: self.starting,
            replicas_most,
        };
        metrics::text(&head, &self.metrics, &rows)
    }

    /// Costs the same however many replicas there are.
    pub(super) fn census(&self) -> Census {
        let (starts, took) = self.metrics.starts.totals();
        Census {
            present: self.details.values().map(|details| details.len() as u64).sum(),
            networks: self.durable.networks.len() as u64,
            starts,
            took: Duration::try_from_secs_f64(took).unwrap_or_default(),
        }
    }

    /// Where running replicas can be reached, of all services or of one, with the labels of their service.
    pub(super) fn targets(&self, only: Option<&str>) -> Result<Vec<Target>, Refusal> {
        if let Some(name) = only.filter(|name| !self.prepared.contains_key(*name)) {
            return Err(self.no_service(name));
        }
        let chosen = self.prepared.iter().filter(|(name, _)| only.is_none_or(|only| only == *name));
        let target = |(name, prepared): (&String, &Prepared)| {
            let replicas = self
                .running(name)
                .filter_map(|(ordinal, detail)| Some((ordinal, detail.networks.first()?.address)));
            let service = &prepared.service;
            let ports = service.ports.iter().map(|port| port.target);
            Target {
                service: name.clone(),
                labels: service.labels.clone(),
                ports: ports.chain(service.expose.iter().map(|port| port.port)).collect(),
                replicas: replicas.collect(),
            }
        };
        Ok(chosen.map(target).collect())
    }
}

fn sample(id: ReplicaId, meter: &Meter) -> ReplicaSample {
    ReplicaSample {
        name: format!("{}-{}", id.service, id.ordinal),
        service: id.service,
        cpu: meter.cpu,
        memory: meter.statistics.memory,
        pids: meter.statistics.pids,
        received: meter.received,
        sent: meter.sent,
    }
}
