//! What a file says that a cluster has no word for: told by name, at its place.

use crate::context::{Context, of_service};
use crate::findings::Findings;
use crate::plan::{Kind, Plan};
use throng_model::app::{HealthTest, RestartPolicy};
use throng_model::build::PullPolicy;
use throng_model::job::JobBackOff;
use throng_model::node::Link;

/// A key of a service, why it says nothing to a cluster, and what to do instead.
type Row = (bool, &'static str, &'static str, &'static str);

pub(crate) fn of_service_keys(cx: &Context<'_>, plan: &Plan<'_>, findings: &mut Findings<'_>) {
    let name = &plan.service.name;
    let rows =
        limits(plan).into_iter().chain(surroundings(plan)).chain(life(cx, plan)).chain(updates(cx, plan));
    for (_, key, why, instead) in rows.filter(|row| row.0) {
        let said =
            key.split('|').find(|key| cx.says(name, key)).unwrap_or(key.split('|').next().unwrap_or(key));
        let last = said.rsplit('.').next().unwrap_or(said);
        let last = if said.starts_with("x-throng") { said } else { last };
        let path = of_service(name, said);
        findings.warn(&path, format!("{last:?} says nothing to a cluster: {why}"), instead);
    }
}

fn limits(plan: &Plan<'_>) -> Vec<Row> {
    let resources = &plan.service.resources;
    vec![
        (
            resources.pids.is_some(),
            "deploy.resources.limits.pids|pids_limit",
            "the number of processes is limited for all pods of a node",
            "set podPidsLimit in the kubelet's configuration",
        ),
        (
            resources.cpu_shares.is_some(),
            "cpu_shares",
            "the weight of a pod follows from the CPU that it requests",
            "write deploy.resources.reservations.cpus",
        ),
        (
            resources.swap.is_some(),
            "memswap_limit",
            "swap is a matter of the node",
            "see memorySwap in the kubelet's configuration",
        ),
        (resources.swappiness.is_some(), "mem_swappiness", "swap is a matter of the node", "remove it"),
        (
            resources.cores.is_some(),
            "cpuset",
            "cores are given out by the node",
            "with the kubelet's static CPU manager a pod gets cores of its own by requesting whole ones",
        ),
        (
            resources.oom_kill_disable,
            "oom_kill_disable",
            "a container beyond its limit of memory is killed",
            "raise the limit",
        ),
        (
            !plan.service.sandbox.ulimits.is_empty(),
            "ulimits",
            "limits of processes are those of the node's container runtime",
            "set them in the container runtime, or with ulimit in the command",
        ),
    ]
}

fn surroundings(plan: &Plan<'_>) -> Vec<Row> {
    let (service, sandbox) = (plan.service, &plan.service.sandbox);
    vec![
        (
            service.container_name.is_some()
                && !plan.aliases.iter().any(|a| Some(*a) == service.container_name.as_deref()),
            "container_name",
            "pods are called by their controller",
            "use the service's name, by which they are found",
        ),
        (
            sandbox.oom_score.is_some(),
            "oom_score_adj",
            "it follows from what a pod requests",
            "request as much memory as is allowed for a pod that is to be killed last",
        ),
        (
            !sandbox.devices.is_empty(),
            "devices",
            "devices of a node are given out by plug-ins",
            "install the device's plug-in, and request the resource that it names",
        ),
        (
            sandbox.init,
            "init",
            "a container's program is its first process",
            "start it by tini in the image, if it leaves children behind",
        ),
        (sandbox.domain.is_some(), "domainname", "the domain of pods is the cluster's", "remove it"),
        (
            service.log.is_some(),
            "logging",
            "the node keeps the logs",
            "set containerLogMaxSize and containerLogMaxFiles in the kubelet's configuration",
        ),
        (
            service.networks.values().any(|network| network.address.is_some()),
            "networks",
            "pods get addresses of the cluster's choice",
            "ask for them by name",
        ),
        (
            matches!(service.pull, PullPolicy::Every(_)),
            "pull_policy",
            "a node fetches an image always, never, or if it is not there",
            "write always",
        ),
        (
            service.ports.iter().any(|port| port.host_ip.is_some()),
            "ports",
            "a host's address is none of a pod",
            "kompose.service.type and kompose.service.expose say who reaches it from outside",
        ),
    ]
}

fn life(cx: &Context<'_>, plan: &Plan<'_>) -> Vec<Row> {
    let service = plan.service;
    let said = |key: &str| cx.says(&service.name, key);
    let pace = &service.restart_pace;
    let runs = !plan.kind.ends();
    let gives_up = matches!(service.restart, RestartPolicy::No | RestartPolicy::OnFailure(_));
    let stop = service.stop_signal.as_deref();
    let default_stop = matches!(stop, None | Some("SIGTERM" | "TERM" | "15"));
    let start = service.health_check.as_ref().filter(|check| check.test != HealthTest::Disabled);
    vec![
        (
            runs && gives_up && (said("restart") || said("deploy.restart_policy.condition")),
            "restart|deploy.restart_policy.condition",
            "pods that are to run are started again whatever their end",
            "if it is to end, say so with x-throng.job",
        ),
        (
            pace.delay.is_some() || pace.window.is_some() || pace.back_off.is_some(),
            "x-throng.restart|deploy.restart_policy",
            "the pauses between starts are Kubernetes' own, 10 s to 5 min",
            "remove it",
        ),
        (
            runs && pace.max_attempts.is_some(),
            "deploy.restart_policy.max_attempts",
            "pods that are to run are started again without end",
            "if it is to end, say so with x-throng.job",
        ),
        (
            !default_stop,
            "stop_signal",
            "a pod is stopped by the signal that its image names",
            "write STOPSIGNAL in the Dockerfile",
        ),
        (
            start.is_some_and(|_| said("healthcheck.start_interval")),
            "healthcheck.start_interval",
            "a probe asks at one pace",
            "lower interval, or add x-throng.startup",
        ),
        (
            plan.job.as_ref().is_some_and(|job| job.back_off != JobBackOff::default()),
            "x-throng.job.back_off",
            "the pauses after failures of a Job are Kubernetes' own, 10 s to 6 min",
            "remove it",
        ),
        (
            plan.kind.ends() && service.placement.on_each,
            "deploy.mode",
            "a Job is not run once on each node",
            "use mode: global without a job, or choose nodes by constraints",
        ),
    ]
}

fn updates(cx: &Context<'_>, plan: &Plan<'_>) -> Vec<Row> {
    let service = plan.service;
    let said = |key: &str| cx.says(&service.name, key);
    let update = service.update.as_ref();
    vec![
        (
            service.rollback.is_some(),
            "deploy.rollback_config",
            "a roll-out is taken back by hand",
            "kubectl rollout undo",
        ),
        (
            update.is_some() && said("deploy.update_config.failure_action"),
            "deploy.update_config.failure_action",
            "a roll-out whose pods do not become ready stays where it is",
            "take it back with kubectl rollout undo",
        ),
        (
            update.is_some_and(|update| update.max_failure_ratio > 0.0),
            "deploy.update_config.max_failure_ratio",
            "a roll-out whose pods do not become ready stays where it is",
            "remove it",
        ),
        (
            plan.kind == Kind::StatefulSet && service.update.is_some(),
            "deploy.update_config",
            "the pods of a StatefulSet are replaced one after the other",
            "minReadySeconds is taken from its delay; remove the rest",
        ),
    ]
}

/// What the whole file says.
pub(crate) fn of_app(cx: &Context<'_>, findings: &mut Findings<'_>) {
    if !cx.app.nodes.is_empty() {
        let message = "\"x-throng.nodes\" says nothing to a cluster: it has nodes of its own";
        let hint = if cx.app.nodes.values().any(|node| node.link != Link::default()) {
            "give them the same labels; links are those of the real network"
        } else {
            "give them the same labels"
        };
        findings.warn(&["x-throng", "nodes"], message, hint);
    }
    if cx.app.unreachable_after.is_some() {
        let message = "\"x-throng.unreachable_after\" says nothing to a cluster: it is set for all of it";
        findings.warn(
            &["x-throng", "unreachable_after"],
            message,
            "see --node-monitor-grace-period of kube-controller-manager",
        );
    }
    for (key, network) in &cx.app.networks {
        if network.subnet.is_some() {
            let path = ["networks", key, "ipam"];
            let message = "\"ipam\" says nothing to a cluster: pods get addresses of its choice";
            findings.warn(&path, message, "remove it");
        }
    }
}
