//! What listings say of replicas, in the words of `docker compose ps`.

use crate::actor::Detail;
use crate::paths::Paths;
use crate::state;
use std::time::SystemTime;
use throng_control::health::Status as HealthStatus;
use throng_control::{Phase, ReplicaView, Time, WantedService};
use throng_model::replica::{ReplicaId, Statistics};
use throng_model::status::{Readiness, ReplicaStatus};

/// Images that the services of an app run from, as its last known definition names them, and those that it may go back to.
pub fn images_of(paths: &Paths, project: &str) -> Vec<String> {
    match state::load(&paths.state_file(project)) {
        Ok(Some(durable)) => {
            let earlier =
                |kept: state::Kept| [Some(kept.image_id), kept.earlier.map(|earlier| earlier.image_id)];
            let named = durable.app.services.into_values().map(|service| service.image);
            named.chain(durable.rollouts.into_values().flat_map(earlier).flatten()).collect()
        }
        _ => Vec::new(),
    }
}

/// Named volumes of an app, as its last known definition has them, those that others made included.
pub fn volumes_of(paths: &Paths, project: &str) -> Vec<String> {
    match state::load(&paths.state_file(project)) {
        Ok(Some(durable)) => durable.app.volumes.into_values().map(|volume| volume.name).collect(),
        _ => Vec::new(),
    }
}

/// Counts over one service's replicas; `wanted` and `waiting` are the caller's to fill in. `hopeless` says that some
/// replica that is to stay has ended badly for good or has failed all tries of its health check, so that waiting for
/// the service is in vain.
pub fn readiness<'a>(
    replicas: impl Iterator<Item = (u32, &'a ReplicaView, &'a Detail)>,
    wanted: &WantedService,
) -> Readiness {
    let mut readiness = Readiness::default();
    for (ordinal, view, detail) in replicas {
        readiness.present += 1;
        let ready = wanted.ready(view) && !detail.cut_off;
        readiness.ready += u32::from(ready);
        let error = || detail.error.clone();
        let (failed, trouble) = match &view.phase {
            // Whatever it is, somebody has said so.
            _ if view.stopped => (false, Some("stopped".to_owned())),
            Phase::Running { .. } => {
                readiness.running += 1;
                // A replica that only starts slowly has not failed, but whoever waits in vain wants its reason.
                let ill = view.health.status == HealthStatus::Unhealthy || view.condemned();
                (ill, if ready { None } else { error() })
            }
            Phase::Exited { .. } if view.succeeded() => {
                readiness.completed += 1;
                (false, None)
            }
            Phase::Exited { exit, .. } => {
                let why = detail.ended_for.as_ref().map(|why| format!("{exit}: {why}"));
                (true, Some(why.unwrap_or_else(|| exit.to_string())))
            }
            Phase::Failed { .. } => (true, Some(error().unwrap_or_default())),
            Phase::Created => (false, None),
        };
        if let Some(held) = &detail.held {
            // Before all others: nothing else is waited for.
            readiness.trouble = Some(format!("replica {ordinal} {held}"));
        }
        readiness.failed += u32::from(failed || detail.held.is_some());
        // What a roll-out makes of it is yet to be seen.
        readiness.hopeless |= !view.leaving && !wanted.decides() && hopeless(view, wanted);
        if let Some(trouble) = trouble {
            readiness.trouble.get_or_insert_with(|| format!("replica {ordinal}: {trouble}"));
        }
    }
    readiness
}

/// A replica that no node has room for.
pub fn pending(id: &ReplicaId, image: String, reason: &str) -> ReplicaStatus {
    ReplicaStatus {
        name: id.to_string(),
        service: id.service.clone(),
        ordinal: id.ordinal,
        image,
        command: String::new(),
        state: "pending".into(),
        health: String::new(),
        exit: None,
        error: Some(reason.to_owned()),
        ended_for: None,
        restarts: 0,
        addresses: Vec::new(),
        networks: Vec::new(),
        node: None,
        created_at: SystemTime::now(),
        started_at: None,
        finished_at: None,
        next_start: None,
        statistics: None,
        cpu: 0.0,
    }
}

/// Whether the replica has ended, well or not, and stays so.
pub fn ended(view: &ReplicaView, wanted: &WantedService) -> bool {
    matches!(view.phase, Phase::Exited { .. }) && !view.busy && wanted.next_start(view).is_none()
}

fn hopeless(view: &ReplicaView, wanted: &WantedService) -> bool {
    match view.phase {
        _ if view.stopped => false,
        Phase::Exited { .. } => !view.succeeded() && ended(view, wanted),
        Phase::Failed { permanent, .. } => permanent,
        Phase::Running { .. } => view.health.status == HealthStatus::Unhealthy,
        Phase::Created => false,
    }
}

/// What is shown of a replica `now`.
pub fn replica(
    id: &ReplicaId,
    view: &ReplicaView,
    detail: &Detail,
    wanted: &WantedService,
    now: Time,
) -> ReplicaStatus {
    let again = wanted.next_start(view).filter(|_| !view.busy && !view.leaving && !view.stopped);
    let state = match (&view.phase, view.leaving) {
        (_, true) => "leaving",
        // Also one that is just being started again: how it ended last is of the past already.
        (Phase::Created | Phase::Exited { .. }, _) if view.busy => "starting",
        (Phase::Created, _) => "created",
        (Phase::Running { .. }, _) if detail.paused => "paused",
        (Phase::Running { .. }, _) => "running",
        (Phase::Exited { .. }, _) if again.is_some() => "restarting",
        (Phase::Exited { .. }, _) => "exited",
        (Phase::Failed { .. }, _) => "failed",
    };
    let checked = wanted.definition_of(view).is_some_and(|(_, checks)| checks.readiness.is_some());
    let health = match (checked, &view.phase, view.health.status) {
        // A check that runs inside may well succeed, and nobody who could use the replica gets there.
        (_, Phase::Running { .. }, _) if detail.cut_off || view.unreachable => "unreachable",
        (true, Phase::Running { .. }, HealthStatus::Starting) => "starting",
        (true, Phase::Running { .. }, HealthStatus::Healthy) => "healthy",
        (true, Phase::Running { .. }, HealthStatus::Unhealthy) => "unhealthy",
        _ => "",
    };
    let running = matches!(view.phase, Phase::Running { .. });
    let meter = detail.meter.as_ref().filter(|_| running);
    // As old as it is when it is told.
    let statistics = meter.map(|meter| Statistics { age: meter.age(), ..meter.statistics });
    ReplicaStatus {
        name: id.to_string(),
        service: id.service.clone(),
        ordinal: id.ordinal,
        image: detail.image.clone(),
        command: detail.command.clone(),
        state: state.into(),
        health: health.into(),
        exit: detail.exit,
        error: detail.error.clone(),
        ended_for: detail.ended_for.clone(),
        restarts: detail.restarts,
        addresses: detail.networks.iter().map(|attachment| attachment.address).collect(),
        networks: detail.networks.iter().map(|attachment| attachment.network.clone()).collect(),
        node: detail.node.clone(),
        created_at: detail.created_at,
        started_at: detail.started_at,
        finished_at: detail.finished_at,
        next_start: again.map(|at| SystemTime::now() + at.saturating_sub(now)),
        statistics,
        cpu: meter.map_or(0.0, |meter| meter.cpu),
    }
}
