//! `depends_on` as init containers that let a pod begin only when what it waits for is there.
//!
//! `service_started` needs none: in a cluster everything starts at once, and programs that look for each other try again.

use crate::context::{Context, of_service};
use crate::findings::Findings;
use crate::kompose::Init;
use crate::labels;
use crate::names::dns_label;
use crate::object::{Notes, Object};
use crate::plan::{Kind, Plan, Plans};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, SeccompProfile, SecurityContext, ServiceAccount, VolumeMount,
};
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject};
use throng_model::app::{Condition, Protocol};

/// An image with a shell and netcat.
pub(crate) const NETCAT_IMAGE: &str = "busybox:1.37";
/// Kubernetes' own image of kubectl, which is also its entry point.
pub(crate) const KUBECTL_IMAGE: &str = "registry.k8s.io/kubectl:v1.34.1";
/// A user that owns nothing, as by convention.
const NOBODY: i64 = 65534;

#[derive(Default)]
pub(crate) struct Gates {
    pub containers: Vec<Container>,
    /// By pointers below the pod's spec.
    pub notes: Notes,
    /// Jobs whose end is waited for, which takes a right to look at them.
    pub jobs: Vec<String>,
}

pub(crate) fn gates(
    cx: &Context<'_>,
    plan: &Plan<'_>,
    plans: &Plans<'_>,
    findings: &mut Findings<'_>,
) -> Gates {
    let mut gates = Gates::default();
    for (key, dependency) in &plan.service.depends_on {
        let Some(other) = plans.services.get(key.as_str()) else { continue };
        let path = of_service(&plan.service.name, "depends_on");
        let path: Vec<&str> = path.into_iter().chain([key.as_str()]).collect();
        let container = match dependency.condition {
            Condition::ServiceStarted => continue,
            Condition::ServiceHealthy => match answering(plan, other) {
                Some(container) => container,
                None => {
                    let message =
                        format!("pods of {} do not wait for {key}: no TCP port of it is known", plan.name);
                    findings.warn(&path, message, format!("name the port under expose: of {key}"));
                    continue;
                }
            },
            Condition::ServiceCompletedSuccessfully if other.kind == Kind::Job => {
                gates.jobs.push(other.name.clone());
                completed(plan, other)
            }
            Condition::ServiceCompletedSuccessfully => {
                let message = format!("nothing can wait for the end of {key}, which runs by a schedule");
                findings.warn(&path, message, "wait for what it makes instead");
                continue;
            }
        };
        let index = gates.containers.len();
        let origin = cx.origin_at(&path, &format!("depends_on.{key}"));
        gates.notes.at(format!("/initContainers/{index}/name"), origin);
        gates.containers.push(container);
    }
    gates
}

fn container(plan: &Plan<'_>, other: &Plan<'_>, image: &str) -> Container {
    let mut name = format!("wait-for-{}", other.name);
    name.truncate(crate::names::MAX_LABEL);
    // Its own container must not be called the same.
    if name == plan.name {
        name.insert_str(0, "gate-");
        name.truncate(crate::names::MAX_LABEL);
    }
    Container {
        name: name.trim_end_matches('-').to_owned(),
        image: Some(image.to_owned()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
            read_only_root_filesystem: Some(true),
            run_as_non_root: Some(true),
            run_as_user: Some(NOBODY),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                ..SeccompProfile::default()
            }),
            ..SecurityContext::default()
        }),
        ..Container::default()
    }
}

/// Waits until a connection to the Service is taken, which is so once one of its pods is ready.
fn answering(plan: &Plan<'_>, other: &Plan<'_>) -> Option<Container> {
    let port = other.ports.iter().find(|port| port.declared && port.protocol == Protocol::Tcp)?;
    let (name, port) = (&other.name, port.port);
    let script = format!("until nc -z -w 2 {name} {port}; do sleep 1; done");
    let command = ["/bin/sh", "-c", &script].map(str::to_owned).to_vec();
    Some(Container { command: Some(command), ..container(plan, other, NETCAT_IMAGE) })
}

/// Waits until a Job is complete. Should it fail, pods go on waiting for one that succeeds.
fn completed(plan: &Plan<'_>, other: &Plan<'_>) -> Container {
    let job = format!("job/{}", other.name);
    // A negative time means a week, the longest that there is.
    let args = ["wait", "--for=condition=complete", "--timeout=-1s", &job].map(str::to_owned).to_vec();
    Container { args: Some(args), ..container(plan, other, KUBECTL_IMAGE) }
}

/// The right to look at the jobs that are waited for, for an account of the service's own; its name.
pub(crate) fn account(
    cx: &Context<'_>,
    plan: &Plan<'_>,
    jobs: &[String],
    objects: &mut Vec<Object>,
) -> String {
    let account = plan.hints.service_account.clone().unwrap_or_else(|| plan.name.clone());
    let head = || cx.origin(&plan.service.name, &["depends_on"]);
    if plan.hints.service_account.is_none() {
        let object = ServiceAccount {
            metadata: labels::metadata(cx, &account, Some(&plan.name)),
            ..Default::default()
        };
        objects.push(Object::new(&plan.name, &object, Notes::default(), head()));
    }
    let mut wish = format!("{}-wait", plan.name);
    wish.truncate(crate::names::MAX_LABEL);
    let texts = |texts: &[&str]| Some(texts.iter().map(|text| (*text).to_owned()).collect());
    let rule = PolicyRule {
        api_groups: texts(&["batch"]),
        resources: texts(&["jobs"]),
        resource_names: Some(jobs.to_vec()),
        verbs: ["get", "list", "watch"].map(str::to_owned).to_vec(),
        ..PolicyRule::default()
    };
    let metadata = || labels::metadata(cx, &wish, Some(&plan.name));
    let role = Role { metadata: metadata(), rules: Some(vec![rule]) };
    objects.push(Object::new(&plan.name, &role, Notes::default(), head()));
    let binding = RoleBinding {
        metadata: metadata(),
        role_ref: RoleRef {
            api_group: Some("rbac.authorization.k8s.io".to_owned()),
            kind: "Role".to_owned(),
            name: wish.clone(),
        },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".to_owned(),
            name: account.clone(),
            namespace: Some(cx.options.namespace.clone().unwrap_or_else(|| "default".to_owned())),
            ..Subject::default()
        }]),
    };
    let mut notes = Notes::default();
    if cx.options.namespace.is_none() {
        notes.say("/subjects/0/namespace", "where this is applied; `throng convert --namespace` sets it");
    }
    objects.push(Object::new(&plan.name, &binding, notes, head()));
    account
}

/// The init container that Kompose's labels ask for, which sees what the service's own container sees.
pub(crate) fn of_label(plan: &Plan<'_>, init: &Init, mounts: &[VolumeMount]) -> Container {
    let fallback = format!("{}-init", plan.name);
    let name = init.name.clone().unwrap_or_else(|| dns_label(&fallback));
    Container {
        name,
        image: Some(init.image.clone().unwrap_or_else(|| NETCAT_IMAGE.to_owned())),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        command: (!init.command.is_empty()).then(|| init.command.clone()),
        volume_mounts: (!mounts.is_empty()).then(|| mounts.to_vec()),
        ..Container::default()
    }
}
