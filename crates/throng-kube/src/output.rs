//! Objects as files and as one stream.
//!
//! There is a file for each service with all that belongs to it, as people write them: who changes a service changes one
//! file. Secrets are in a file of their own, so that it can be kept out of version control.

use crate::object::Object;
use crate::yaml;
use serde_json::{Value, json};
use std::collections::BTreeMap;

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

/// The file of an object, with its ending.
pub fn file_name(object: &Object, format: Format) -> String {
    format!("{}.{}", object.file, format.ending())
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
