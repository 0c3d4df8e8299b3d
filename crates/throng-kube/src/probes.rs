//! Health checks as probes.
//!
//! A `healthcheck` says when a replica is given work, so it becomes the readiness probe and nothing else: a slow answer
//! must not restart a container. What ends one that hangs is `x-throng.liveness`, which becomes the liveness probe.

use crate::object::Notes;
use crate::plan::{Plan, PodPort};
use crate::quantity::seconds;
use k8s_openapi::api::core::v1::{ExecAction, GRPCAction, HTTPGetAction, Probe, TCPSocketAction};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::time::Duration;
use throng_model::app::{HealthCheck, HealthTest, Protocol};
use throng_model::units::format_duration;

pub(crate) struct Probes {
    pub readiness: Option<Probe>,
    pub liveness: Option<Probe>,
    pub startup: Option<Probe>,
}

/// The probes of a service. `notes`: by pointers below its container.
pub(crate) fn probes(plan: &Plan<'_>, notes: &mut Notes) -> Probes {
    // Nobody sends work to the pods of a job.
    let readiness = plan.readiness.as_ref().filter(|_| !plan.kind.ends());
    Probes {
        readiness: readiness.map(|check| probe(check, plan, 0, ("/readinessProbe", notes))),
        liveness: plan.liveness.as_ref().map(|check| {
            let start = seconds(check.start_period, 0);
            let probe = probe(check, plan, 0, ("/livenessProbe", notes));
            Probe { initial_delay_seconds: (start > 0).then_some(start), ..probe }
        }),
        // It may fail for as long as the start period lasts, and `retries` times after it.
        startup: plan.startup.as_ref().map(|check| {
            let interval = check.interval.as_nanos().max(1);
            let more = check.start_period.as_nanos().div_ceil(interval);
            probe(check, plan, u32::try_from(more).unwrap_or(u32::MAX), ("/startupProbe", notes))
        }),
    }
}

fn probe(check: &HealthCheck, plan: &Plan<'_>, more: u32, (pointer, notes): (&str, &mut Notes)) -> Probe {
    let failures = check.retries.saturating_add(more).clamp(1, i32::MAX as u32);
    for (key, time) in [("periodSeconds", check.interval), ("timeoutSeconds", check.timeout)] {
        notes.at(format!("{pointer}/{key}"), rounded(time));
    }
    let mut probe = Probe {
        period_seconds: Some(seconds(check.interval, 1)),
        timeout_seconds: Some(seconds(check.timeout, 1)),
        failure_threshold: Some(failures as i32),
        ..Probe::default()
    };
    match &check.test {
        HealthTest::Exec(words) => probe.exec = Some(ExecAction { command: Some(words.clone()) }),
        HealthTest::Shell(command) => {
            let words = ["/bin/sh", "-c", command].map(str::to_owned).to_vec();
            probe.exec = Some(ExecAction { command: Some(words) });
        }
        HealthTest::Http { port, path } => {
            let port = named(*port, &plan.ports);
            let path = Some(path.clone());
            probe.http_get = Some(HTTPGetAction { path, port, ..HTTPGetAction::default() });
        }
        HealthTest::Tcp { port } => {
            let port = named(*port, &plan.ports);
            probe.tcp_socket = Some(TCPSocketAction { port, ..TCPSocketAction::default() });
        }
        HealthTest::Grpc { port, service } => {
            let service = (!service.is_empty()).then(|| service.clone());
            probe.grpc = Some(GRPCAction { port: i32::from(*port), service, ..GRPCAction::default() });
        }
        // Plans have no such checks.
        HealthTest::Disabled => {}
    }
    probe
}

/// What is said beside a time that Kubernetes cannot be told exactly.
fn rounded(time: Duration) -> Option<String> {
    (time.subsec_nanos() != 0 || time.is_zero())
        .then(|| format!("{}, in whole seconds", format_duration(time)))
}

/// The port by its name, where it has one.
fn named(port: u16, ports: &[PodPort]) -> IntOrString {
    let known = ports.iter().find(|one| one.port == port && one.protocol == Protocol::Tcp);
    known.map_or(IntOrString::Int(i32::from(port)), |known| IntOrString::String(known.name.clone()))
}
