//! Removing images and collecting what nothing refers to any more.

use super::{LockKind, Store, remove_tree};
use crate::error::{ImageError, Result};
use crate::reference::{familiar, parse_reference};
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::time::Duration;

/// A listing by another process is over by then; a pull is not, and what it leaves is collected next time.
const COLLECT_WAIT: Duration = Duration::from_secs(2);

/// What a removal did, in the order it was done.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub enum Removed {
    /// A name, as people write it.
    Untagged(String),
    /// An image's id or a layer's digest.
    Deleted(String),
}

impl Store {
    /// Takes the name `reference` away; with its last name the image goes, and all blobs and unpacked layers that
    /// only it used. By id, an image with at most one name goes at once.
    ///
    /// The caller makes sure that no replica runs from it. Blobs stay until a later removal while another process
    /// is adding images.
    pub fn remove(&self, reference: &str) -> Result<Vec<Removed>> {
        let mut removed = self.change_entries(|entries| {
            let entry = self
                .find_entry(entries, reference)?
                .ok_or_else(|| ImageError::NotFound { reference: reference.into() })?;
            let id = self.id_of(&entry)?;
            let names: Vec<String> = entries
                .iter()
                .filter(|other| other.manifest_digest == entry.manifest_digest)
                .filter_map(|other| other.name.clone())
                .collect();
            let by_name = parse_reference(reference).is_ok_and(|parsed| {
                entry.name.as_deref() == Some(&parsed.to_string()) || parsed.digest().is_some()
            });
            if !by_name && names.len() > 1 {
                return Err(ImageError::SeveralNames { id, names });
            }
            entries.retain(|other| {
                other.manifest_digest != entry.manifest_digest
                    || (names.len() > 1 && other.name != entry.name)
            });
            let mut removed = Vec::new();
            if let Some(name) = &entry.name {
                removed.push(Removed::Untagged(familiar(&parse_reference(name)?)));
            }
            if names.len() <= 1 {
                removed.push(Removed::Deleted(id));
            }
            Ok(removed)
        })?;
        removed.extend(self.collect()?.into_iter().map(Removed::Deleted));
        Ok(removed)
    }

    /// Removes all images without a name, and everything that no image uses, build cache included.
    pub fn prune(&self) -> Result<Vec<Removed>> {
        let mut removed = self.change_entries(|entries| {
            let mut removed = Vec::new();
            for entry in entries.iter().filter(|entry| entry.name.is_none()) {
                removed.push(Removed::Deleted(self.id_of(entry)?));
            }
            entries.retain(|entry| entry.name.is_some());
            Ok(removed)
        })?;
        removed.extend(self.collect()?.into_iter().map(Removed::Deleted));
        Ok(removed)
    }

    /// Removes blobs, unpacked layers and cache entries that no image uses. Returns the layers' digests.
    fn collect(&self) -> Result<Vec<String>> {
        // Who adds an image holds this lock; its blobs are not yet in the index, so they must not be touched.
        let Some(_alone) = self.lock_within("use.lock", LockKind::Exclusive, COLLECT_WAIT)? else {
            return Ok(Vec::new());
        };
        let mut blobs = HashSet::new();
        let mut chains = HashSet::new();
        for entry in self.entries()? {
            let parts = self.parts(&entry.manifest_digest)?;
            blobs.insert(entry.manifest_digest);
            blobs.insert(parts.manifest.config().digest().to_string());
            blobs.extend(parts.manifest.layers().iter().map(|layer| layer.digest().to_string()));
            chains.extend(super::chain_ids(&parts.config.rootfs.diff_ids));
        }
        let mut removed = Vec::new();
        for digest in self.all_blobs()? {
            if !blobs.contains(&digest) {
                let path = self.root().join("blobs/sha256").join(digest.trim_start_matches("sha256:"));
                fs::remove_file(&path).map_err(ImageError::io("remove", &path))?;
                removed.push(digest);
            }
        }
        removed.sort();
        self.collect_layers(&chains)?;
        self.collect_cache(&blobs)?;
        Ok(removed)
    }

    fn collect_layers(&self, chains: &HashSet<String>) -> Result<()> {
        for (path, notes) in self.unpacked_layers()? {
            if notes.is_none_or(|notes| !chains.contains(&notes.chain_id)) {
                // The folder first: a sidecar without folder counts as not unpacked.
                if path.is_dir() {
                    remove_tree(&path).map_err(ImageError::io("remove", &path))?;
                }
                let _ = fs::remove_file(path.with_extension("json"));
            }
        }
        Ok(())
    }

    fn collect_cache(&self, blobs: &HashSet<String>) -> Result<()> {
        let folder = self.root().join("cache");
        for entry in fs::read_dir(&folder).map_err(ImageError::io("read", &folder))? {
            let path = entry.map_err(ImageError::io("read", &folder))?.path();
            let used = fs::read(&path)
                .ok()
                .and_then(|bytes| serde_json::from_slice::<BTreeMap<String, serde_json::Value>>(&bytes).ok())
                .is_some_and(|entry| {
                    entry
                        .get("digest")
                        .and_then(|digest| digest.as_str())
                        .is_some_and(|digest| blobs.contains(digest))
                });
            if !used {
                fs::remove_file(&path).map_err(ImageError::io("remove", &path))?;
            }
        }
        Ok(())
    }
}
