//! Relative paths of a file that is not in the project's own folder.
//!
//! A path is relative to the folder of the file that says it, or to what an `include` names as its project directory.
//! Once trees of several folders are merged nobody can tell any more, so the paths are made absolute before.

use crate::read::clean;
use crate::yaml::{Entry, Node, Value};
use std::path::Path;

/// Makes the relative paths of a normalised tree absolute. Paths that begin with `~` are left to the reader.
pub(super) fn make_absolute(root: &mut Node, directory: &Path) {
    if let Some(include) = root.get_mut("include") {
        for item in items(include) {
            join(item, directory);
            for key in ["path", "env_file", "project_directory"] {
                item.get_mut(key).map(items).into_iter().flatten().for_each(|path| join(path, directory));
            }
        }
    }
    for section in ["configs", "secrets"] {
        for entry in root.get_mut(section).map(entries).into_iter().flatten() {
            if let Some(file) = entry.value.get_mut("file") {
                join(file, directory);
            }
        }
    }
    for entry in root.get_mut("services").map(entries).into_iter().flatten() {
        of_service(&mut entry.value, directory);
    }
}

fn of_service(service: &mut Node, directory: &Path) {
    if let Some(file) = service.get_mut("extends").and_then(|extends| extends.get_mut("file")) {
        join(file, directory);
    }
    if let Some(context) = service.get_mut("build").and_then(|build| build.get_mut("context"))
        && !context.scalar().is_some_and(is_remote)
    {
        join(context, directory);
    }
    let further = service.get_mut("build").and_then(|build| build.get_mut("additional_contexts"));
    for further in further.map(entries).into_iter().flatten() {
        if !further.value.scalar().is_some_and(|text| is_remote(text) || text.starts_with("service:")) {
            join(&mut further.value, directory);
        }
    }
    for key in ["env_file", "label_file"] {
        for item in service.get_mut(key).map(items).into_iter().flatten() {
            join(item, directory);
            if let Some(path) = item.get_mut("path") {
                join(path, directory);
            }
        }
    }
    let sources = ["x-throng", "autoscaler", "sources"];
    let sources = sources.iter().try_fold(&mut *service, |node, key| node.get_mut(key));
    for source in sources.map(entries).into_iter().flatten() {
        if let Some(ca) = source.value.get_mut("ca") {
            join(ca, directory);
        }
    }
    for mount in service.get_mut("volumes").map(items).into_iter().flatten() {
        of_mount(mount, directory);
    }
}

fn of_mount(mount: &mut Node, directory: &Path) {
    if mount.get("type").and_then(Node::scalar) == Some("bind") {
        if let Some(source) = mount.get_mut("source") {
            join(source, directory);
        }
    } else if let Value::Scalar(scalar) = &mut mount.value
        && scalar.text.starts_with('.')
    {
        let (source, rest) = scalar.text.split_once(':').unwrap_or((&scalar.text, ""));
        let source = clean(&directory.join(source)).to_string_lossy().into_owned();
        scalar.text = if rest.is_empty() { source } else { format!("{source}:{rest}") };
    }
}

/// A build without a context means the folder of the file that says so, once that file is left behind.
pub(super) fn name_build_contexts(root: &mut Node, directory: &Path) {
    for entry in root.get_mut("services").map(entries).into_iter().flatten() {
        name_build_context(&mut entry.value, directory);
    }
}

pub(super) fn name_build_context(service: &mut Node, directory: &Path) {
    let Some(build) = service.get_mut("build") else { return };
    let at = build.position.clone();
    let Value::Map(keys) = &mut build.value else { return };
    if keys.iter().any(|entry| entry.key == "context") {
        return;
    }
    let text = directory.to_string_lossy().into_owned();
    let value = Node::new(at.clone(), Value::Scalar(crate::yaml::Scalar { text, plain: false }));
    keys.push(Entry { key: "context".into(), key_at: at, value });
}

/// Whether a build context names something that is not on this host.
pub(crate) fn is_remote(context: &str) -> bool {
    context.contains("://") || context.starts_with("git@") || context.ends_with(".git")
}

fn join(node: &mut Node, directory: &Path) {
    let Value::Scalar(scalar) = &mut node.value else { return };
    if !scalar.text.is_empty() && !scalar.text.starts_with(['/', '~']) {
        scalar.text = clean(&directory.join(&scalar.text)).to_string_lossy().into_owned();
    }
}

/// The elements of a list; a single value is a list of itself.
fn items(node: &mut Node) -> &mut [Node] {
    if matches!(node.value, Value::List(_)) {
        match &mut node.value {
            Value::List(items) => items,
            _ => &mut [],
        }
    } else {
        std::slice::from_mut(node)
    }
}

fn entries(node: &mut Node) -> &mut [Entry] {
    match &mut node.value {
        Value::Map(entries) => entries,
        _ => &mut [],
    }
}
