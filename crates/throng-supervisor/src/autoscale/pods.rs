//! Replicas as the pods that a decision is made on.

use super::readings::Usage;
use crate::actor::Detail;
use crate::listing;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use throng_autoscale::{Age, Container, Phase as PodPhase, Pod, PodMetrics, Quantity};
use throng_control::{Phase, ReplicaView, WantedService};
use throng_model::app::Resources;

/// What all replicas of a service have in common.
pub struct Kind<'a> {
    pub service: &'a str,
    pub wanted: &'a WantedService,
    pub resources: &'a Resources,
}

/// What the autoscaler has noted of one replica.
#[derive(Default)]
pub struct Noted {
    /// When it became ready or ceased to be; `None` if it has been so from its beginning.
    pub ready_changed: Option<Instant>,
    pub usage: Option<Usage>,
    pub custom: BTreeMap<String, Quantity>,
}

impl Kind<'_> {
    pub fn pod(&self, ordinal: u32, view: &ReplicaView, detail: &Detail, noted: Noted, now: Instant) -> Pod {
        let age = |at: Instant| Age::from(now.saturating_duration_since(at));
        let began = detail.started_at.unwrap_or(detail.created_at);
        let lived = Age::from(began.elapsed().unwrap_or(Duration::ZERO));
        let ready = view.ready(&self.wanted.checks);
        let metrics = noted.usage.map(|usage| PodMetrics {
            age: age(usage.at),
            window: Age::from(usage.window),
            containers: BTreeMap::from([(
                self.service.to_owned(),
                BTreeMap::from([
                    ("cpu".to_owned(), Quantity::from_nanos(usage.cpu)),
                    ("memory".to_owned(), bytes(usage.memory)),
                ]),
            )]),
        });
        Pod {
            name: format!("{}-{ordinal}", self.service),
            phase: self.phase(view),
            deleted: view.leaving,
            ready: Some(ready),
            ready_changed: Some(noted.ready_changed.map_or(lived, age)),
            started: Some(lived),
            containers: vec![Container { name: self.service.to_owned(), requests: self.requests(detail) }],
            metrics,
            custom: noted.custom,
            alike: 0,
        }
    }

    /// A replica that will be started again is a pod that runs and is not ready, as in a crash loop there.
    fn phase(&self, view: &ReplicaView) -> PodPhase {
        match view.phase {
            Phase::Created | Phase::Failed { .. } => PodPhase::Pending,
            Phase::Exited { exit, .. } if listing::ended(view, self.wanted) => {
                if exit.is_success() {
                    PodPhase::Succeeded
                } else {
                    PodPhase::Failed
                }
            }
            Phase::Running { .. } | Phase::Exited { .. } => PodPhase::Running,
        }
    }

    /// Of the replica itself: what its autoscaler gave it may differ from the others'.
    fn requests(&self, detail: &Detail) -> BTreeMap<String, Quantity> {
        let own = detail.given.as_ref().unwrap_or(self.resources);
        let cpu = own.cpu_request().map(|cores| ("cpu".to_owned(), milli(cores)));
        let memory = own.memory_request().map(|size| ("memory".to_owned(), bytes(size)));
        cpu.into_iter().chain(memory).collect()
    }
}

/// Cut to thousandths, as a cluster's adapter for Prometheus cuts what it reads.
pub fn milli(value: f64) -> Quantity {
    Quantity::from_milli((value * 1000.0) as i64)
}

fn bytes(count: u64) -> Quantity {
    let most = i64::MAX / 1000;
    Quantity::from_milli(i64::try_from(count).unwrap_or(most).min(most) * 1000)
}
