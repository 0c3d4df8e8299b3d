//! Objects by the published descriptions of Kubernetes' API, as k8s-openapi has made types of them: the oldest version that
//! is promised, and the newest. A key that a version does not know is lost on the way through its types, so that what
//! comes back differs.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use throng_kube::Object;

/// An object through the type of one version and back.
fn through<T: DeserializeOwned + Serialize>(value: &Value, version: &str) -> Result<(), String> {
    let name = || format!("{version}: {} {}", value["kind"], value["metadata"]["name"]);
    let typed: T = serde_json::from_value(value.clone()).map_err(|error| format!("{}: {error}", name()))?;
    let back = serde_json::to_value(&typed).map_err(|error| format!("{}: {error}", name()))?;
    match first_difference(value, &back, String::new()) {
        Some(pointer) => Err(format!("{}: {pointer} is not known", name())),
        None => Ok(()),
    }
}

/// Where two values differ first.
fn first_difference(a: &Value, b: &Value, pointer: String) -> Option<String> {
    match (a, b) {
        (Value::Object(a), Value::Object(b)) => {
            let keys = a.keys().chain(b.keys());
            keys.filter(|key| a.get(*key) != b.get(*key)).find_map(|key| {
                let below = format!("{pointer}/{key}");
                match (a.get(key), b.get(key)) {
                    (Some(a), Some(b)) => first_difference(a, b, below),
                    _ => Some(below),
                }
            })
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let pairs = a.iter().zip(b).enumerate();
            pairs.into_iter().find_map(|(n, (a, b))| first_difference(a, b, format!("{pointer}/{n}")))
        }
        _ => (a != b).then_some(pointer),
    }
}

macro_rules! by_kind {
    ($version:expr, $api:ident, $value:expr) => {{
        use $api::api::{apps, autoscaling, batch, core, networking, policy, rbac};
        match $value["kind"].as_str().unwrap_or_default() {
            "ServiceAccount" => through::<core::v1::ServiceAccount>($value, $version),
            "Role" => through::<rbac::v1::Role>($value, $version),
            "RoleBinding" => through::<rbac::v1::RoleBinding>($value, $version),
            "ConfigMap" => through::<core::v1::ConfigMap>($value, $version),
            "Secret" => through::<core::v1::Secret>($value, $version),
            "PersistentVolumeClaim" => through::<core::v1::PersistentVolumeClaim>($value, $version),
            "Service" => through::<core::v1::Service>($value, $version),
            "Deployment" => through::<apps::v1::Deployment>($value, $version),
            "StatefulSet" => through::<apps::v1::StatefulSet>($value, $version),
            "DaemonSet" => through::<apps::v1::DaemonSet>($value, $version),
            "Job" => through::<batch::v1::Job>($value, $version),
            "CronJob" => through::<batch::v1::CronJob>($value, $version),
            "HorizontalPodAutoscaler" => {
                through::<autoscaling::v2::HorizontalPodAutoscaler>($value, $version)
            }
            "PodDisruptionBudget" => through::<policy::v1::PodDisruptionBudget>($value, $version),
            "Ingress" => through::<networking::v1::Ingress>($value, $version),
            "NetworkPolicy" => through::<networking::v1::NetworkPolicy>($value, $version),
            // It is described by its own controller, not by Kubernetes.
            "VerticalPodAutoscaler" => Ok(()),
            kind => Err(format!("no version has the kind {kind:?}")),
        }
    }};
}

/// Whether the oldest and the newest version know all of an object.
pub fn check(object: &Object) -> Result<(), String> {
    by_kind!("1.29", k8s_openapi_oldest, &object.value)?;
    by_kind!("1.37", k8s_openapi, &object.value)
}

#[test]
fn a_key_that_a_version_does_not_know_is_found() {
    let value = serde_json::json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"selectr": {"a": "b"}},
    });
    let found = by_kind!("1.37", k8s_openapi, &value);
    assert_eq!(found, Err("1.37: \"Service\" \"web\": /spec/selectr is not known".into()));
    let value = serde_json::json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": "three", "selector": {}, "template": {}},
    });
    assert!(by_kind!("1.29", k8s_openapi_oldest, &value).is_err());
}
