//! One object for a cluster, with what is said beside its values.

use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// Comments by the JSON pointer (RFC 6901) of what they stand beside.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Notes(BTreeMap<String, String>);

impl Notes {
    pub fn at(&mut self, pointer: impl Into<String>, note: Option<String>) {
        if let Some(note) = note {
            self.0.insert(pointer.into(), note);
        }
    }

    pub fn say(&mut self, pointer: impl Into<String>, note: impl Into<String>) {
        self.at(pointer, Some(note.into()));
    }

    /// Takes in the notes of a part that stands at `pointer`.
    pub fn below(&mut self, pointer: &str, part: Notes) {
        self.0.extend(part.0.into_iter().map(|(key, note)| (format!("{pointer}{key}"), note)));
    }

    pub fn get(&self, pointer: &str) -> Option<&str> {
        self.0.get(pointer).map(String::as_str)
    }
}

/// One object as `kubectl apply` takes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Object {
    /// `Deployment`, `Service`.
    pub kind: String,
    pub name: String,
    /// The file that a person would look for it in, without its ending.
    pub file: String,
    /// All of it, as the API server would get it.
    pub value: Value,
    pub(crate) notes: Notes,
    /// Lines above it: where it came from.
    pub(crate) head: Vec<String>,
}

impl Object {
    pub(crate) fn new(file: &str, object: &impl Serialize, notes: Notes, head: Option<String>) -> Object {
        let value = value(object);
        let text =
            |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (kind, name) = (text("/kind"), text("/metadata/name"));
        Object { kind, name, file: file.to_owned(), value, notes, head: head.into_iter().collect() }
    }
}

/// A part of an object as JSON. The types of objects have texts for keys and no number that JSON lacks, so nothing of
/// them is without a form in JSON.
pub(crate) fn value(part: &impl Serialize) -> Value {
    serde_json::to_value(part).unwrap_or_default()
}

/// A key as it stands in a pointer.
pub(crate) fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}
