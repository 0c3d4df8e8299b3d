//! Objects as files and as one stream.
//!
//! There is a file for each service with all that belongs to it, as people write them: who changes a service changes one
//! file. Secrets are in a file of their own, so that it can be kept out of version control.

use crate::object::Object;
use crate::yaml;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// The first line of each file that was made here, by which it is known to be ours.
pub const HEADER: &str = "# Made by throng convert: what is changed here is lost when it runs again.";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Yaml,
    Json,
}

impl Format {
    pub fn ending(self) -> &'static str {
        match self {
            Format::Yaml => "yaml",
            Format::Json => "json",
        }
    }
}

/// The file of an object, with its ending. One name is Kustomize's own in every folder.
pub fn file_name(object: &Object, format: Format) -> String {
    let name = match object.file.as_str() {
        "kustomization" => "kustomization-service",
        name => name,
    };
    format!("{name}.{}", format.ending())
}

/// Files by their names, in the order of their names.
pub fn files(objects: &[Object], format: Format) -> BTreeMap<String, String> {
    let mut files: BTreeMap<String, Vec<&Object>> = BTreeMap::new();
    for object in objects {
        files.entry(file_name(object, format)).or_default().push(object);
    }
    let text = |objects: Vec<&Object>| match format {
        Format::Yaml => format!("{HEADER}\n{}", documents(&objects)),
        Format::Json => list(&objects),
    };
    files.into_iter().map(|(name, objects)| (name, text(objects))).collect()
}

/// All objects as `kubectl apply -f -` takes them: YAML documents, or one List in JSON.
pub fn stream(objects: &[Object], format: Format) -> String {
    let objects: Vec<&Object> = objects.iter().collect();
    match format {
        Format::Yaml => documents(&objects),
        Format::Json => list(&objects),
    }
}

/// What Kustomize is told of a folder with these files.
pub fn kustomization<'f>(files: impl Iterator<Item = &'f str>) -> String {
    let mut out = format!("{HEADER}\n{KUSTOMIZATION}resources:\n");
    for file in files {
        let _ = writeln!(out, "- {file}");
    }
    out
}

const KUSTOMIZATION: &str = "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n";

/// The beginning of an overlay: what is different in one cluster from the base two folders further up. It is a person's own
/// from then on.
pub fn overlay(name: &str, objects: &[Object]) -> String {
    let mut out = format!(
        "# What is different in {name}. This file is yours: throng convert writes it once and never again.\n\
         {KUSTOMIZATION}resources:\n- ../../base\n\n# namespace: {name}\n"
    );
    let replicas: Vec<(&str, &Value)> = objects
        .iter()
        .filter_map(|object| Some((object.name.as_str(), object.value.pointer("/spec/replicas")?)))
        .collect();
    if !replicas.is_empty() {
        out.push_str("# replicas:\n");
    }
    for (name, count) in replicas {
        let _ = writeln!(out, "# - {{name: {name}, count: {count}}}");
    }
    let images: BTreeSet<&str> = objects.iter().filter_map(image).collect();
    if !images.is_empty() {
        out.push_str("# images:\n");
    }
    for image in images {
        let name = image.split('@').next().unwrap_or(image);
        let tag = crate::labels::tag(image);
        let name = tag.and_then(|tag| name.strip_suffix(tag)?.strip_suffix(':')).unwrap_or(name);
        let _ = writeln!(out, "# - {{name: {name:?}, newTag: {:?}}}", tag.unwrap_or("latest"));
    }
    out
}

/// The image of a controller's own container.
fn image(object: &Object) -> Option<&str> {
    let of_schedule = object.value.pointer("/spec/jobTemplate/spec/template");
    of_schedule.or(object.value.pointer("/spec/template"))?.pointer("/spec/containers/0/image")?.as_str()
}

fn documents(objects: &[&Object]) -> String {
    let mut out = String::new();
    for (index, object) in objects.iter().enumerate() {
        if index > 0 {
            out.push_str("---\n");
        }
        yaml::write(object, &mut out);
    }
    out
}

fn list(objects: &[&Object]) -> String {
    let items: Vec<&Value> = objects.iter().map(|object| &object.value).collect();
    format!("{:#}\n", json!({ "apiVersion": "v1", "kind": "List", "items": items }))
}
