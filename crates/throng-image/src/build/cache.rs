//! The build cache: what a step gave, found again by everything that its result depends on.

use crate::digest::Hasher;
use crate::error::Result;
use crate::layer::Layer;
use crate::store::Store;
use serde::{Deserialize, Serialize};
use std::fs;

/// The digest of all that a step's layer depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CacheKey(String);

/// Collects what a key depends on; each part keeps its own length, so parts never run into each other.
#[derive(Clone)]
pub(super) struct KeyBuilder(Hasher);

impl KeyBuilder {
    /// `kind` names the rule by which the layer is made, with its version.
    pub(super) fn new(kind: &str, chain: Option<&String>, mtime: u64) -> Self {
        let mut key = KeyBuilder(Hasher::default());
        key.part(kind);
        key.part(chain.map_or("", String::as_str));
        key.part(mtime.to_le_bytes());
        key
    }

    pub(super) fn part(&mut self, part: impl AsRef<[u8]>) {
        self.0.field(part.as_ref());
    }

    pub(super) fn list<T: AsRef<[u8]>>(&mut self, parts: &[T]) {
        self.part((parts.len() as u64).to_le_bytes());
        for part in parts {
            self.part(part);
        }
    }

    pub(super) fn finish(self) -> CacheKey {
        CacheKey(self.0.finish().trim_start_matches("sha256:").into())
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Entry {
    Layer(Layer),
    /// The step changed nothing.
    Nothing {
        nothing: bool,
    },
}

/// What the step gave last time, if its blob is still there. `Some(None)`: it changed nothing.
pub(super) fn get(store: &Store, key: &CacheKey) -> Result<Option<Option<Layer>>> {
    let Ok(bytes) = fs::read(store.root().join("cache").join(&key.0)) else { return Ok(None) };
    Ok(match serde_json::from_slice(&bytes) {
        Ok(Entry::Layer(layer)) if store.has_blob(&layer.digest)? => Some(Some(layer)),
        Ok(Entry::Nothing { .. }) => Some(None),
        // A damaged entry is worth no more than none.
        _ => None,
    })
}

pub(super) fn put(store: &Store, key: &CacheKey, layer: Option<&Layer>) -> Result<()> {
    let entry = layer.map_or(Entry::Nothing { nothing: true }, |layer| Entry::Layer(layer.clone()));
    let bytes = serde_json::to_vec(&entry)
        .map_err(|error| crate::error::ImageError::corrupt("a build cache entry", error))?;
    store.write_atomic(&store.root().join("cache").join(&key.0), &bytes)
}
