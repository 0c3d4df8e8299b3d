//! Labels and annotations: those that Kubernetes recommends (`app.kubernetes.io/…`), and what the file says.

use crate::context::{Context, of_service};
use crate::findings::Findings;
use crate::kompose;
use crate::names::{dns_label, is_label_value, is_qualified};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use std::collections::BTreeMap;
use throng_model::app::Service;

type Texts = BTreeMap<String, String>;

/// A label's prefix by which pods say which of the file's networks they are in.
const NETWORK: &str = "compose.network";

/// What the pods of a service are selected by. It must never change, or a controller loses its pods.
pub(crate) fn selector(cx: &Context<'_>, name: &str) -> Texts {
    BTreeMap::from([
        ("app.kubernetes.io/name".to_owned(), name.to_owned()),
        ("app.kubernetes.io/part-of".to_owned(), part_of(cx)),
    ])
}

pub(crate) fn select(labels: Texts) -> LabelSelector {
    LabelSelector { match_labels: Some(labels), ..LabelSelector::default() }
}

/// Labels of all that belongs to a service; of the app as a whole without one.
pub(crate) fn recommended(cx: &Context<'_>, name: Option<&str>) -> Texts {
    let mut labels = match name {
        Some(name) => selector(cx, name),
        None => BTreeMap::from([("app.kubernetes.io/part-of".to_owned(), part_of(cx))]),
    };
    labels.insert("app.kubernetes.io/managed-by".to_owned(), "throng".to_owned());
    labels
}

fn part_of(cx: &Context<'_>) -> String {
    let name = dns_label(&cx.app.name);
    if name.is_empty() { "app".to_owned() } else { name }
}

pub(crate) fn metadata(cx: &Context<'_>, name: &str, service: Option<&str>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: cx.options.namespace.clone(),
        labels: Some(recommended(cx, service)),
        ..ObjectMeta::default()
    }
}

/// The label of pods in a network, `network` being its name in the cluster.
pub(crate) fn in_network(network: &str) -> (String, String) {
    (format!("{NETWORK}/{network}"), "true".to_owned())
}

/// The labels of containers as annotations of their pods: values of labels could not hold what is written there, and
/// programs such as Prometheus look for them here.
pub(crate) fn pod_annotations(service: &Service, findings: &mut Findings<'_>) -> Texts {
    let mut annotations = Texts::new();
    for (section, texts) in [("labels", &service.labels), ("annotations", &service.sandbox.annotations)] {
        annotations.extend(of_section(service, section, texts, findings));
    }
    annotations
}

/// The labels of the service alone as annotations of its controller.
pub(crate) fn own_annotations(service: &Service, findings: &mut Findings<'_>) -> Option<Texts> {
    let annotations = of_section(service, "deploy.labels", &service.deploy_labels, findings);
    (!annotations.is_empty()).then_some(annotations)
}

fn of_section(service: &Service, section: &str, texts: &Texts, findings: &mut Findings<'_>) -> Texts {
    let mut annotations = Texts::new();
    for (key, value) in texts.iter().filter(|(key, _)| !kompose::is_hint(key)) {
        if is_qualified(key) {
            annotations.insert(key.clone(), value.clone());
        } else {
            let mut path = of_service(&service.name, section);
            path.push(key);
            let message = format!("{key:?} cannot be the key of an annotation");
            findings.warn(&path, message, "use letters, digits, -, _ and . and at most one / after a domain");
        }
    }
    annotations
}

/// The version that an image's tag names, as far as a label can hold it.
pub(crate) fn version(image: &str) -> Option<String> {
    let tag = tag(image)?;
    (tag != "latest" && !tag.is_empty() && is_label_value(tag)).then(|| tag.to_owned())
}

/// The tag of an image reference; `None` if there is none or a digest says it all.
pub(crate) fn tag(image: &str) -> Option<&str> {
    let name = image.split('@').next().unwrap_or(image);
    let last = name.rsplit('/').next().unwrap_or(name);
    last.split_once(':').map(|(_, tag)| tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_found_behind_ports_of_registries() {
        for (image, found) in [
            ("nginx", None),
            ("nginx:1.27", Some("1.27")),
            ("reg.example:5000/a/b", None),
            ("reg.example:5000/a/b:v1", Some("v1")),
            ("a:1@sha256:00", Some("1")),
        ] {
            assert_eq!(tag(image), found, "{image}");
        }
        assert_eq!(version("a:latest"), None);
        assert_eq!(version("a:1.2"), Some("1.2".into()));
    }
}
