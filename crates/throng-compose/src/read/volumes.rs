//! The top-level `volumes`.

use super::{Context, host_path, names};
use crate::keys::Section;
use crate::yaml::{Entry, Findings, Node, Value};
use std::path::PathBuf;
use throng_model::app::Volume;

pub(super) fn read(entry: &Entry, project: &str, context: &Context<'_>, findings: &mut Findings) -> Volume {
    let mut volume = Volume { name: format!("{project}_{}", entry.key), ..Volume::default() };
    if entry.value.is_null() {
        return volume;
    }
    let Some(mut section) = Section::open("volumes.*", &entry.value, findings) else { return volume };
    let mut old_name = None;
    if let Some(node) = section.take("external") {
        if matches!(node.value, Value::Map(_)) {
            // The old notation: `external: {name: …}`.
            volume.external = true;
            if let Some(mut section) = Section::open("volumes.*.external", node, findings) {
                old_name = section.take("name");
                section.close(findings);
            }
        } else {
            volume.external = node.boolean(findings).unwrap_or_default();
        }
    }
    if volume.external {
        volume.name.clone_from(&entry.key);
    }
    if let Some(node) = section.take("name").or(old_name)
        && let Some(name) = node.nonempty(findings)
    {
        names::check("volume", name, &node.position, findings);
        volume.name = name.to_owned();
    }
    volume.labels = section.take("labels").and_then(|node| node.text_map(findings)).unwrap_or_default();
    let is_local = section.take("driver").is_none_or(|node| is_local(node, findings));
    if let Some(node) = section.take("driver_opts")
        && is_local
    {
        volume.device = device(node, context, findings);
    }
    section.close(findings);
    volume
}

fn is_local(driver: &Node, findings: &mut Findings) -> bool {
    let is_local = driver.scalar() == Some("local");
    if !is_local {
        let message = format!(
            "volumes are folders of this host, not of the driver {:?}",
            driver.scalar().unwrap_or_default()
        );
        let hint = "mount it on the host, and name the folder with driver: local, o: bind and device:";
        findings.error_with_hint(&driver.position, message, hint);
    }
    is_local
}

/// What the local driver's options (those of mount(8)) ask for: a folder of the host, or nothing.
fn device(node: &Node, context: &Context<'_>, findings: &mut Findings) -> Option<PathBuf> {
    let entries = node.map(findings)?;
    let option = |key: &str| entries.iter().find(|entry| entry.key == key);
    for entry in entries.iter().filter(|entry| !matches!(entry.key.as_str(), "type" | "o" | "device")) {
        let message = format!("the local driver has no option {:?}", entry.key);
        findings.error_with_hint(&entry.key_at, message, "it has type, o and device");
    }
    let text = |key: &str| option(key).and_then(|entry| entry.value.scalar());
    let binds = text("o").is_some_and(|options| options.split(',').any(|o| matches!(o, "bind" | "rbind")));
    match (option("device"), text("type")) {
        (None, None) if option("o").is_none() => None,
        (Some(device), kind) if binds && matches!(kind, None | Some("none" | "bind")) => {
            Some(host_path(device.value.nonempty(findings)?, context))
        }
        (_, kind) => {
            let (message, hint) = match kind {
                Some("tmpfs") => (
                    "no memory is shared between replicas as a volume".to_owned(),
                    "give each replica its own with tmpfs: under the service",
                ),
                kind => (
                    format!("nothing of the type {:?} is mounted for a volume", kind.unwrap_or_default()),
                    "mount it on the host, and name the folder with type: none, o: bind and device:",
                ),
            };
            findings.error_with_hint(&node.position, message, hint);
            None
        }
    }
}
