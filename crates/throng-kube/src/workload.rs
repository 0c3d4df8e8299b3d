//! The controller of a service: Deployment, StatefulSet, DaemonSet, Job or CronJob.

use crate::container::counts;
use crate::context::{Context, of_service};
use crate::findings::Findings;
use crate::labels;
use crate::object::{Notes, Object, value};
use crate::plan::{Kind, Plan, Plans, replicas_at};
use crate::pod::Pod;
use crate::quantity::seconds;
use crate::volumes::holds_one_disk;
use k8s_openapi::api::apps::v1::{
    DaemonSet, DaemonSetSpec, DaemonSetUpdateStrategy, Deployment, DeploymentSpec, DeploymentStrategy,
    RollingUpdateDaemonSet, RollingUpdateDeployment, StatefulSet, StatefulSetOrdinals, StatefulSetSpec,
};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, Job, JobSpec, JobTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use throng_model::job::{self, Concurrency};
use throng_model::update::{UpdateOrder, UpdatePolicy};

/// What `deploy.update_config` does not say.
const MONITOR_DEFAULT: std::time::Duration = std::time::Duration::from_secs(5);

pub(crate) fn workload(
    cx: &Context<'_>,
    plan: &Plan<'_>,
    plans: &Plans<'_>,
    pod: Pod,
    findings: &mut Findings<'_>,
) -> Object {
    let mut notes = Notes::default();
    if counts(plan) {
        let path = replicas_at(cx, &plan.service.name);
        notes.at("/spec/replicas", cx.origin_at(&path, &path[2..].join(".")));
    }
    let metadata = ObjectMeta {
        annotations: labels::own_annotations(plan.service, findings),
        ..labels::metadata(cx, &plan.name, Some(&plan.name))
    };
    let head = cx.origin_at(&["services", &plan.service.name], &format!("services.{}", plan.service.name));
    let below = match plan.kind {
        Kind::CronJob => "/spec/jobTemplate/spec/template",
        _ => "/spec/template",
    };
    notes.below(below, pod.notes.clone());
    let value = match plan.kind {
        Kind::Deployment => value(&deployment(cx, plan, plans, (metadata, pod), &mut notes)),
        Kind::StatefulSet => value(&stateful_set(cx, plan, (metadata, pod), &mut notes)),
        Kind::DaemonSet => value(&daemon_set(cx, plan, (metadata, pod), &mut notes)),
        Kind::Job => {
            let spec = Some(job_spec(cx, plan, pod, ("/spec", &mut notes)));
            value(&Job { metadata, spec, ..Job::default() })
        }
        Kind::CronJob => value(&cron_job(cx, plan, (metadata, pod), &mut notes, findings)),
    };
    Object::new(&plan.name, &value, notes, head)
}

fn number(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn deployment(
    cx: &Context<'_>,
    plan: &Plan<'_>,
    plans: &Plans<'_>,
    (metadata, pod): (ObjectMeta, Pod),
    notes: &mut Notes,
) -> Deployment {
    let policy = plan.service.update.as_ref();
    let strategy = if holds_one_disk(cx, plan, plans) {
        notes.say("/spec/strategy", "two pods cannot have the disk at a time");
        Some(DeploymentStrategy { type_: Some("Recreate".to_owned()), rolling_update: None })
    } else {
        notes.at("/spec/strategy", cx.origin(&plan.service.name, &["deploy.update_config"]));
        policy.map(strategy)
    };
    let spec = DeploymentSpec {
        replicas: counts(plan).then(|| number(plan.replicas())),
        selector: labels::select(labels::selector(cx, &plan.name)),
        strategy,
        min_ready_seconds: min_ready(cx, plan, notes),
        template: pod.template,
        ..DeploymentSpec::default()
    };
    Deployment { metadata, spec, ..Deployment::default() }
}

/// `order` says on which side of the wanted count a roll-out is, `parallelism` how far.
fn strategy(policy: &UpdatePolicy) -> DeploymentStrategy {
    let count = |count: u32| Some(IntOrString::Int(number(count)));
    let (max_surge, max_unavailable) = match (policy.order, policy.parallelism) {
        // All at once, the old ones first: that is no rolling.
        (UpdateOrder::StopFirst, 0) => {
            return DeploymentStrategy { type_: Some("Recreate".to_owned()), rolling_update: None };
        }
        (UpdateOrder::StopFirst, parallelism) => (count(0), count(parallelism)),
        (UpdateOrder::StartFirst, 0) => (Some(IntOrString::String("100%".to_owned())), count(0)),
        (UpdateOrder::StartFirst, parallelism) => (count(parallelism), count(0)),
    };
    DeploymentStrategy {
        type_: Some("RollingUpdate".to_owned()),
        rolling_update: Some(RollingUpdateDeployment { max_surge, max_unavailable }),
    }
}

/// How long a new pod must stay ready before the next one is replaced: `delay` and `monitor` run at the same time.
fn min_ready(cx: &Context<'_>, plan: &Plan<'_>, notes: &mut Notes) -> Option<i32> {
    let policy = plan.service.update.as_ref()?;
    let said =
        cx.says(&plan.service.name, "deploy.update_config.monitor") || policy.monitor != MONITOR_DEFAULT;
    let wait = if said { policy.delay.max(policy.monitor) } else { policy.delay };
    let keys = match wait == policy.delay {
        true => ["deploy.update_config.delay"],
        false => ["deploy.update_config.monitor"],
    };
    notes.at("/spec/minReadySeconds", cx.origin(&plan.service.name, &keys));
    (!wait.is_zero()).then(|| seconds(wait, 1))
}

fn stateful_set(
    cx: &Context<'_>,
    plan: &Plan<'_>,
    (metadata, pod): (ObjectMeta, Pod),
    notes: &mut Notes,
) -> StatefulSet {
    for (index, claim) in pod.claims.iter().enumerate() {
        let name = claim.metadata.name.as_deref().unwrap_or_default();
        let key = plan.claimed.iter().find(|key| crate::names::dns_label(key) == name);
        let origin = key.and_then(|key| cx.origin_at(&["volumes", key], &format!("volumes.{key}")));
        let pointer = format!("/spec/volumeClaimTemplates/{index}");
        notes.at(format!("{pointer}/metadata/name"), origin);
        let sized = key.is_some_and(|key| {
            let label = "kompose.volume.size";
            cx.app.volumes.get(*key).is_some_and(|volume| volume.labels.contains_key(label))
        });
        if !sized && plan.hints.volumes.size.is_none() {
            let note = "Compose knows no sizes: label kompose.volume.size";
            notes.say(format!("{pointer}/spec/resources/requests/storage"), note);
        }
    }
    // The file counts replicas from 1, and names them so.
    let ordinals = (!plan.addressed.is_empty()).then_some(StatefulSetOrdinals { start: Some(1) });
    // Others may be asked to wait for one another only where somebody says in which order.
    let parallel = plan.replicas() > 1 || plan.autoscaled;
    let spec = StatefulSetSpec {
        replicas: counts(plan).then(|| number(plan.replicas())),
        selector: labels::select(labels::selector(cx, &plan.name)),
        service_name: Some(plan.name.clone()),
        ordinals,
        pod_management_policy: parallel.then(|| "Parallel".to_owned()),
        min_ready_seconds: min_ready(cx, plan, notes),
        template: pod.template,
        volume_claim_templates: (!pod.claims.is_empty()).then_some(pod.claims),
        ..StatefulSetSpec::default()
    };
    StatefulSet { metadata, spec, ..StatefulSet::default() }
}

fn daemon_set(
    cx: &Context<'_>,
    plan: &Plan<'_>,
    (metadata, pod): (ObjectMeta, Pod),
    notes: &mut Notes,
) -> DaemonSet {
    notes.at("/spec/updateStrategy", cx.origin(&plan.service.name, &["deploy.update_config"]));
    let update_strategy = plan.service.update.as_ref().map(|policy| {
        let wanted = strategy(policy).rolling_update;
        // A DaemonSet has no other way to replace all at once.
        let all = || IntOrString::String("100%".to_owned());
        let (surge, unavailable) = match wanted {
            Some(rolling) => (rolling.max_surge, rolling.max_unavailable),
            None => (Some(IntOrString::Int(0)), Some(all())),
        };
        DaemonSetUpdateStrategy {
            type_: Some("RollingUpdate".to_owned()),
            rolling_update: Some(RollingUpdateDaemonSet { max_surge: surge, max_unavailable: unavailable }),
        }
    });
    let spec = DaemonSetSpec {
        selector: labels::select(labels::selector(cx, &plan.name)),
        update_strategy,
        min_ready_seconds: min_ready(cx, plan, notes),
        template: pod.template,
        ..DaemonSetSpec::default()
    };
    DaemonSet { metadata, spec, ..DaemonSet::default() }
}

fn job_spec(cx: &Context<'_>, plan: &Plan<'_>, pod: Pod, (pointer, notes): (&str, &mut Notes)) -> JobSpec {
    let job = plan.job.clone().unwrap_or_default();
    let name = &plan.service.name;
    for (key, keys) in [
        ("completions", &["x-throng.job.completions", "deploy.replicas", "scale"][..]),
        ("parallelism", &["x-throng.job.parallelism"]),
        ("backoffLimit", &["x-throng.job.retries", "deploy.restart_policy", "restart"]),
        ("activeDeadlineSeconds", &["x-throng.job.deadline"]),
    ] {
        notes.at(format!("{pointer}/{key}"), cx.origin(name, keys));
    }
    // A job that the file calls one has an index for each of its replicas.
    let indexed = plan.service.job.is_some();
    let completions = plan.replicas().max(1);
    JobSpec {
        completions: Some(number(completions)),
        parallelism: Some(number(job.parallelism.unwrap_or(completions))),
        completion_mode: indexed.then(|| "Indexed".to_owned()),
        backoff_limit: Some(number(job.retries)),
        active_deadline_seconds: job.deadline.map(|time| i64::from(seconds(time, 1))),
        suspend: (plan.replicas() == 0).then_some(true),
        template: pod.template,
        ..JobSpec::default()
    }
}

fn cron_job(
    cx: &Context<'_>,
    plan: &Plan<'_>,
    (metadata, pod): (ObjectMeta, Pod),
    notes: &mut Notes,
    findings: &mut Findings<'_>,
) -> CronJob {
    let schedule = plan.job.as_ref().and_then(|job| job.schedule.clone());
    let schedule = schedule.unwrap_or(job::Schedule {
        expression: String::new(),
        timezone: None,
        concurrency: Concurrency::default(),
        starting_deadline: None,
        suspend: false,
    });
    let name = &plan.service.name;
    notes.at("/spec/schedule", cx.origin(name, &["x-throng.job.schedule"]));
    let zone = cx.origin(name, &["x-throng.job.timezone"]);
    notes.say("/spec/timeZone", zone.unwrap_or_else(|| "else it is that of the control plane".to_owned()));
    if !is_crontab(&schedule.expression) {
        let path = of_service(name, "x-throng.job.schedule");
        let message = format!("a cluster may not know what {:?} means", schedule.expression);
        findings.warn(&path, message, "write five fields as in crontab(5), @hourly and the like, or @every");
    }
    let concurrency = match schedule.concurrency {
        Concurrency::Allow => "Allow",
        Concurrency::Forbid => "Forbid",
        Concurrency::Replace => "Replace",
    };
    let job = job_spec(cx, plan, pod, ("/spec/jobTemplate/spec", notes));
    let spec = CronJobSpec {
        schedule: schedule.expression,
        time_zone: Some(schedule.timezone.unwrap_or_else(|| "Etc/UTC".to_owned())),
        concurrency_policy: Some(concurrency.to_owned()),
        starting_deadline_seconds: schedule.starting_deadline.map(|time| i64::from(seconds(time, 1))),
        suspend: schedule.suspend.then_some(true),
        job_template: JobTemplateSpec {
            metadata: Some(ObjectMeta {
                labels: Some(labels::recommended(cx, Some(&plan.name))),
                ..ObjectMeta::default()
            }),
            spec: Some(job),
        },
        ..CronJobSpec::default()
    };
    CronJob { metadata, spec, ..CronJob::default() }
}

/// What Kubernetes' own reader of schedules takes. Letters stand for months and days of the week, by three of them.
fn is_crontab(expression: &str) -> bool {
    let words =
        |field: &str| field.split(|c: char| !c.is_ascii_alphabetic()).all(|word| matches!(word.len(), 0 | 3));
    let signs = |c: char| c.is_ascii_alphanumeric() || matches!(c, '*' | '/' | ',' | '-' | '?');
    let fields: Vec<&str> = expression.split_whitespace().collect();
    let good = || fields.iter().all(|field| field.chars().all(signs) && words(field));
    expression.starts_with('@') || (fields.len() == 5 && good())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_parallelism_say_how_far_a_roll_out_goes_to_either_side() {
        let bounds = |order, parallelism| {
            let rolling =
                strategy(&UpdatePolicy { order, parallelism, ..UpdatePolicy::default() }).rolling_update?;
            Some((rolling.max_surge?, rolling.max_unavailable?))
        };
        let int = IntOrString::Int;
        assert_eq!(bounds(UpdateOrder::StopFirst, 2), Some((int(0), int(2))));
        assert_eq!(bounds(UpdateOrder::StartFirst, 3), Some((int(3), int(0))));
        assert_eq!(bounds(UpdateOrder::StartFirst, 0), Some((IntOrString::String("100%".into()), int(0))));
        assert_eq!(bounds(UpdateOrder::StopFirst, 0), None);
    }

    #[test]
    fn schedules_of_crontab_are_known() {
        for good in ["*/5 * * * *", "0 3 * * MON-FRI", "@hourly", "@every 5m"] {
            assert!(is_crontab(good), "{good}");
        }
        for odd in ["0 0 L * *", "0 0 * * 1#2", "* * * *"] {
            assert!(!is_crontab(odd), "{odd}");
        }
    }
}
