//! The order in which an app becomes objects.

use crate::context::Context;
use crate::findings::Findings;
use crate::object::Object;
use crate::plan::Plans;
use crate::source::Source;
use crate::{files, network, pod, scaling, service, unsupported, volumes, workload};
use throng_model::app::App;
use throng_model::diagnostic::Diagnostic;

/// What a conversion may be told beside the app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The namespace that all objects name; `None` leaves it to whoever applies them.
    pub namespace: Option<String>,
    /// Bytes of a volume whose size nobody says.
    pub volume_size: u64,
}

impl Default for Options {
    fn default() -> Options {
        Options { namespace: None, volume_size: 1 << 30 }
    }
}

/// Objects in the order in which they should be applied, and what there is to say about them.
#[derive(Debug, Clone)]
pub struct Converted {
    pub objects: Vec<Object>,
    pub warnings: Vec<Diagnostic>,
}

/// Kinds in the order in which they are applied: what others name comes before them.
const ORDER: [&str; 17] = [
    "ServiceAccount",
    "Role",
    "RoleBinding",
    "ConfigMap",
    "Secret",
    "PersistentVolumeClaim",
    "Service",
    "Deployment",
    "StatefulSet",
    "DaemonSet",
    "Job",
    "CronJob",
    "HorizontalPodAutoscaler",
    "VerticalPodAutoscaler",
    "PodDisruptionBudget",
    "Ingress",
    "NetworkPolicy",
];

/// Converts an app.
///
/// # Errors
/// All findings, warnings included, if at least one of them is an error: a name that no cluster takes, two services that
/// would have the same one, a file that cannot be read, an amount that a cluster would refuse.
pub fn convert(app: &App, source: &dyn Source, options: &Options) -> Result<Converted, Vec<Diagnostic>> {
    let cx = Context { app, source, options };
    let mut findings = Findings::new(source);
    let findings = &mut findings;
    if let Some(namespace) = options.namespace.as_deref().filter(|name| !crate::names::is_label(name)) {
        let message = format!("{namespace:?} cannot be the name of a namespace");
        findings.error(&[], message, "use lower-case letters, digits and hyphens, 63 of them at most");
    }
    let plans = Plans::of(&cx, findings);
    let mut objects = Vec::new();
    let mut contents = files::declared(&cx, &plans, &mut objects, findings);
    volumes::claims(&cx, &plans, &mut objects, findings);
    let mut service_names = service::names(&plans);
    for plan in plans.services.values() {
        let pod = pod::pod(&cx, plan, &plans, &mut contents, &mut objects, findings);
        objects.push(workload::workload(&cx, plan, &plans, pod, findings));
        service::services(&cx, plan, &mut service_names, &mut objects, findings);
        scaling::scaling(&cx, plan, &plans, &mut objects, findings);
        unsupported::of_service_keys(&cx, plan, findings);
    }
    network::policies(&cx, &plans, &mut objects);
    unsupported::of_app(&cx, findings);
    // Stable, so that the objects of one kind stay in the order of their services.
    objects.sort_by_key(|object| rank(&object.kind));
    let failed = findings.has_errors();
    let list = std::mem::replace(findings, Findings::new(source)).into_vec();
    if failed { Err(list) } else { Ok(Converted { objects, warnings: list }) }
}

fn rank(kind: &str) -> usize {
    ORDER.iter().position(|known| *known == kind).unwrap_or(ORDER.len())
}
