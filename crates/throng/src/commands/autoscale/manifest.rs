//! HorizontalPodAutoscaler manifests.

use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use throng_autoscale::spec::{Metric, RawSpec, ResourceTarget, TotalTarget};
use throng_autoscale::{Quantity, Spec};
use throng_compose::yaml::values::{Values, Wrong, place};
use throng_compose::yaml::{self, Findings, Node, Value};
use throng_model::diagnostic::Diagnostic;

const VERSION: &str = "autoscaling/v2";
const KIND: &str = "HorizontalPodAutoscaler";
/// `status` is what a cluster adds, and nothing that is asked for.
const KEYS: [&str; 5] = ["apiVersion", "kind", "metadata", "spec", "status"];

/// A spec that an API server would take, and where it stands.
#[derive(Debug)]
pub struct Manifest {
    pub name: String,
    pub file: PathBuf,
    pub spec: Spec,
    root: Node,
}

/// Reads a manifest.
///
/// # Errors
/// All that an API server would refuse it for, each with its place.
pub fn read(path: &Path, configurable_tolerance: bool) -> Result<Manifest, Vec<Diagnostic>> {
    let text = yaml::read_file(path).map_err(|finding| vec![finding])?;
    let file: Arc<Path> = path.into();
    let root = yaml::parse(&file, &text).map_err(|finding| vec![several(finding)])?;
    let mut findings = Findings::default();
    let raw = raw(&root, &mut findings);
    let name = name(&root, path, &mut findings);
    if findings.has_errors() {
        return Err(findings.into_vec());
    }
    let spec = Spec::new(raw.unwrap_or_default(), configurable_tolerance);
    let spec = spec.map_err(|violations| {
        let hint = "the API server of a cluster would refuse this spec too";
        let finding = |violation: &throng_autoscale::spec::Violation| {
            Diagnostic::error(violation.to_string()).at(place(&root, &violation.path).location()).hint(hint)
        };
        violations.iter().map(finding).collect::<Vec<_>>()
    })?;
    Ok(Manifest { name, file: path.to_owned(), spec, root })
}

/// The reader knows of one document only, and says so; what to do is ours to say.
fn several(mut finding: Diagnostic) -> Diagnostic {
    if finding.message.contains("document") {
        finding.hint = Some("put each autoscaler into a file of its own, and give --spec for each".into());
    }
    finding
}

fn raw(root: &Node, findings: &mut Findings) -> Option<RawSpec> {
    let Value::Map(entries) = &root.value else {
        let message = format!("a manifest is a mapping, found {}", root.kind());
        findings.error_with_hint(&root.position, message, format!("it begins with apiVersion: {VERSION}"));
        return None;
    };
    let kind = root.get("kind").and_then(Node::scalar).unwrap_or_default();
    if kind != KIND {
        let at = root.get("kind").map_or(&root.position, |node| &node.position);
        let hint = format!("give the manifest of a {KIND}: kubectl get hpa NAME -o yaml prints it");
        findings.error_with_hint(at, format!("kind is {kind:?}, not {KIND}"), hint);
        return None;
    }
    let version = root.get("apiVersion").and_then(Node::scalar).unwrap_or_default();
    if version != VERSION {
        let at = root.get("apiVersion").map_or(&root.position, |node| &node.position);
        let hint = "kubectl get hpa.v2.autoscaling NAME -o yaml prints it in that version";
        findings.error_with_hint(at, format!("apiVersion is {version:?}, not {VERSION}"), hint);
        return None;
    }
    for entry in entries.iter().filter(|entry| !KEYS.contains(&entry.key.as_str())) {
        let meant = yaml::nearest(&entry.key, KEYS);
        let hint = meant.map_or_else(
            || format!("there are {}", KEYS.join(", ")),
            |meant| format!("did you mean {meant}?"),
        );
        findings.error_with_hint(&entry.key_at, format!("unknown key {:?}", entry.key), hint);
    }
    let Some(spec) = root.get("spec").filter(|spec| !spec.is_null()) else {
        findings.error_with_hint(
            &root.position,
            "the manifest has no spec",
            "maxReplicas, at least, is needed there",
        );
        return None;
    };
    RawSpec::deserialize(Values(spec)).map_err(|wrong: Wrong| findings.push(wrong.finding())).ok()
}

/// The autoscaler's name, or that of its file.
fn name(root: &Node, path: &Path, findings: &mut Findings) -> String {
    let stem = || path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let metadata = root.get("metadata").filter(|node| !node.is_null());
    match metadata.and_then(|metadata| metadata.get("name")) {
        Some(node) => node.nonempty(findings).map_or_else(stem, str::to_owned),
        None => stem(),
    }
}

impl Manifest {
    /// A finding about what stands at a path such as `spec.metrics[0].type`.
    pub fn finding(&self, path: &str, message: &str, hint: &str) -> Diagnostic {
        let message = format!("{path}: {message}");
        Diagnostic::error(message).at(place(&self.root, path).location()).hint(hint)
    }

    /// What it asks for, in a few words: `2 to 20 replicas, cpu at 60 %`.
    pub fn described(&self) -> String {
        let Spec { min_replicas, max_replicas, metrics, behavior } = &self.spec;
        let metrics: Vec<String> = metrics.iter().map(described).collect();
        let mut text = format!("{min_replicas} to {max_replicas} replicas, {}", metrics.join(", "));
        if let Some(window) = behavior.as_ref().and_then(|behavior| behavior.scale_down.window_seconds) {
            text += &format!(", down after {window} s");
        }
        text
    }
}

fn described(metric: &Metric) -> String {
    let quantity = |milli: i64| {
        let quantity = Quantity::from_milli(milli);
        if metric.is_memory() { quantity.binary() } else { quantity.decimal() }
    };
    let target = match metric {
        Metric::Resource { target, .. } | Metric::ContainerResource { target, .. } => match target {
            ResourceTarget::Utilization(percent) => format!("{percent} %"),
            ResourceTarget::AverageValue(milli) => format!("{} each", quantity(*milli)),
        },
        Metric::Pods { average, .. } => format!("{} each", quantity(*average)),
        Metric::Object { target, .. } | Metric::External { target, .. } => match target {
            TotalTarget::Value(milli) => quantity(*milli),
            TotalTarget::AverageValue(milli) => format!("{} each", quantity(*milli)),
            TotalTarget::Mismatched => "no usable target".into(),
        },
    };
    format!("{} at {target}", metric.name())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(text: &str) -> Result<Manifest, Vec<Diagnostic>> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("hpa.yaml");
        std::fs::write(&path, text).expect("a file");
        read(&path, false)
    }

    const HEAD: &str = "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\n";

    #[test]
    fn a_manifest_is_read() {
        let text = format!(
            "{HEAD}metadata: {{name: web, labels: {{a: b}}}}\nspec:\n  maxReplicas: 5\nstatus: {{x: 1}}\n"
        );
        let web = manifest(&text).expect("a manifest");
        assert_eq!((web.name.as_str(), web.spec.max_replicas), ("web", 5));
        assert_eq!(web.described(), "1 to 5 replicas, cpu at 80 %");
        let unnamed =
            manifest(&format!("{HEAD}spec: {{maxReplicas: 5, behavior: {{}}}}")).expect("a manifest");
        assert_eq!(unnamed.name, "hpa");
    }

    #[test]
    fn what_an_api_server_would_refuse_is_told_with_its_place() {
        let json = r#"{"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "spec": {"maxReplicas": 0}}"#;
        for (text, line, column, message) in [
            (String::new(), 1, 1, "a manifest is a mapping, found nothing"),
            ("apiVersion: v1\nkind: List\n".into(), 2, 7, "kind is \"List\""),
            (
                "apiVersion: autoscaling/v1\nkind: HorizontalPodAutoscaler\n".into(),
                1,
                13,
                "apiVersion is \"autoscaling/v1\"",
            ),
            (format!("{HEAD}metadata: {{}}\n"), 1, 1, "the manifest has no spec"),
            (format!("{HEAD}specs: {{}}\nspec: {{maxReplicas: 1}}\n"), 3, 1, "unknown key \"specs\""),
            (
                format!("{HEAD}spec:\n  minReplicas: 5\n  maxReplicas: 3\n"),
                5,
                16,
                "spec.maxReplicas: 3 is below minReplicas, 5",
            ),
            (format!("{HEAD}spec:\n  minReplicas: 5\n"), 4, 3, "spec.maxReplicas: 0 is below 1"),
            (
                format!(
                    "{HEAD}spec:\n  maxReplicas: 3\n  metrics:\n  - type: Resource\n    resource:\n      name: cpu\n      target: {{type: Utilization, averageUtilization: 0}}\n"
                ),
                9,
                55,
                "spec.metrics[0].resource.target.averageUtilization: 0 is not above 0",
            ),
            (
                format!(
                    "{HEAD}spec:\n  maxReplicas: 3\n  behavior:\n    scaleDown:\n      policies:\n      - {{type: Pods, value: 1}}\n"
                ),
                8,
                9,
                "spec.behavior.scaleDown.policies[0].periodSeconds: 0 is not from 1 to 1800",
            ),
            (json.into(), 1, 93, "spec.maxReplicas: 0 is below 1"),
        ] {
            let findings = manifest(&text).expect_err("findings");
            let place = findings[0].location.as_ref().map(|at| (at.line, at.column));
            assert_eq!(place, Some((line, column)), "{text}: {}", findings[0]);
            assert!(findings[0].message.contains(message), "{text}: {}", findings[0]);
            assert!(findings[0].hint.is_some());
        }
        let two = manifest(&format!("{HEAD}spec: {{maxReplicas: 1}}\n---\n{HEAD}")).expect_err("findings");
        assert!(two[0].hint.as_deref().is_some_and(|hint| hint.contains("--spec")), "{}", two[0]);
        assert!(read(Path::new("/nowhere/hpa.yaml"), false).is_err());
    }
}
