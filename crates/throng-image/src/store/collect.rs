//! Removing images and collecting what nothing refers to any more.

use super::{Entry, Image, LockKind, Store, remove_tree};
use crate::error::{ImageError, Result};
use crate::reference::{familiar, parse_reference};
use crate::watermarks::{Disk, Watermarks};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// A listing by another process is over by then; a pull is not, and what it leaves is collected next time.
const COLLECT_WAIT: Duration = Duration::from_secs(2);

/// Folder of what RUN keeps from one build to the next.
const RUN_CACHES: &str = "mounts";

/// What a removal did, in the order it was done.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub enum Removed {
    /// A name, as people write it.
    Untagged(String),
    /// An image's id or a layer's digest.
    Deleted(String),
}

/// What must stay whatever else goes: what apps and replicas are made of.
#[derive(Debug, Clone, Default)]
pub struct Needed {
    /// Images by any name that [`Store::find`] takes.
    pub references: BTreeSet<String>,
    /// Unpacked layers under replicas, of images too that have lost their names since.
    pub layers: HashSet<PathBuf>,
}

/// Which images go when nothing needs them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Those without a name.
    Nameless,
    All,
}

/// What a collection did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    pub removed: Vec<Removed>,
    /// Of blobs and of the files in unpacked layers.
    pub bytes: u64,
}

impl Collected {
    fn and(mut self, blobs: Blobs) -> Collected {
        self.removed.extend(blobs.digests.into_iter().map(Removed::Deleted));
        self.bytes += blobs.bytes;
        self
    }
}

/// What no image used any more.
#[derive(Default)]
struct Blobs {
    digests: Vec<String>,
    bytes: u64,
}

impl Store {
    /// Takes the name `reference` away; with its last name the image goes, and all blobs and unpacked layers that
    /// only it used. By id, an image with at most one name goes at once. Layers that are needed stay.
    ///
    /// The caller makes sure that no app is made of it. Blobs stay until a later removal while
    /// another process is adding images.
    pub fn remove(&self, reference: &str, needed: &Needed) -> Result<Collected> {
        let removed = self.change_entries(|entries| {
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
        Ok(Collected { removed, bytes: 0 }.and(self.collect(needed)?))
    }

    /// Removes the images that nothing needs, and everything that no image uses, build cache and caches of RUN included.
    pub fn prune(&self, which: Which, needed: &Needed) -> Result<Collected> {
        let removed = self.drop_entries(&self.unneeded(which, needed)?)?;
        let bytes = self.collect_run_caches()?;
        Ok(Collected { removed, bytes }.and(self.collect(needed)?))
    }

    /// What [`Store::prune`] would remove: digests of manifests, in the order of the index.
    pub fn unneeded(&self, which: Which, needed: &Needed) -> Result<Vec<String>> {
        let _in_use = self.in_use()?;
        let entries = self.entries()?;
        let keep = self.needed_manifests(&entries, needed)?;
        let named: HashSet<&str> =
            entries.iter().filter(|e| e.name.is_some()).map(|e| e.manifest_digest.as_str()).collect();
        let mut unneeded: Vec<String> = Vec::new();
        for Entry { manifest_digest: digest, .. } in &entries {
            let spared = which == Which::Nameless && named.contains(digest.as_str());
            if !spared && !keep.contains(digest) && !unneeded.contains(digest) {
                unneeded.push(digest.clone());
            }
        }
        Ok(unneeded)
    }

    fn needed_manifests(&self, entries: &[Entry], needed: &Needed) -> Result<HashSet<String>> {
        let mut keep = HashSet::new();
        for reference in &needed.references {
            // An app may name what is not here, or is no name at all; neither can be removed.
            if let Ok(Some(entry)) = self.find_entry(entries, reference) {
                keep.insert(entry.manifest_digest);
            }
        }
        let chains = self.needed_chains(needed)?;
        for entry in entries {
            let parts = self.parts(&entry.manifest_digest)?;
            if super::chain_ids(&parts.config.rootfs.diff_ids).last().is_some_and(|top| chains.contains(top))
            {
                keep.insert(entry.manifest_digest.clone());
            }
        }
        Ok(keep)
    }

    fn needed_chains(&self, needed: &Needed) -> Result<HashSet<String>> {
        if needed.layers.is_empty() {
            return Ok(HashSet::new());
        }
        let layers = self.unpacked_layers()?.into_iter();
        let used = layers.filter(|(path, _)| needed.layers.contains(path));
        Ok(used.filter_map(|(_, notes)| Some(notes?.chain_id)).collect())
    }

    /// Takes images out of the index, with all their names.
    fn drop_entries(&self, manifests: &[String]) -> Result<Vec<Removed>> {
        self.change_entries(|entries| {
            let mut removed = Vec::new();
            for entry in entries.iter().filter(|entry| manifests.contains(&entry.manifest_digest)) {
                if let Some(name) = &entry.name {
                    removed.push(Removed::Untagged(familiar(&parse_reference(name)?)));
                }
                let deleted = Removed::Deleted(self.id_of(entry)?);
                if !removed.contains(&deleted) {
                    removed.push(deleted);
                }
            }
            entries.retain(|entry| !manifests.contains(&entry.manifest_digest));
            Ok(removed)
        })
    }

    /// Removes images that nothing needs and nobody has used for `marks.min_age`, the one used longest ago first,
    /// until the disk is below the low mark or none is left. Does nothing below the high mark. `disk` is asked again
    /// after each image, since images share layers.
    ///
    /// This is what kubelet does with its nodes' images (`realImageGCManager.GarbageCollect`), only that kubelet counts
    /// the images' sizes instead of asking again.
    pub fn collect_by_marks(
        &self,
        marks: &Watermarks,
        needed: &Needed,
        now: SystemTime,
        disk: impl Fn() -> std::io::Result<Disk>,
    ) -> Result<Collected> {
        let disk = || disk().map_err(ImageError::io("read the disk of", self.root()));
        let mut collected = Collected::default();
        if !marks.is_reached(disk()?) {
            return Ok(collected);
        }
        collected.bytes += self.collect_run_caches()?;
        let mut oldest: Vec<(SystemTime, String)> = Vec::new();
        for digest in self.unneeded(Which::All, needed)? {
            let used = self.last_used(&digest)?;
            if now.duration_since(used).is_ok_and(|age| age >= marks.min_age) {
                oldest.push((used, digest));
            }
        }
        oldest.sort();
        for (_, digest) in oldest {
            if marks.is_below_low(disk()?) {
                break;
            }
            let removed = self.drop_entries(std::slice::from_ref(&digest))?;
            let more = Collected { removed, bytes: 0 }.and(self.collect(needed)?);
            collected.removed.extend(more.removed);
            collected.bytes += more.bytes;
        }
        Ok(collected)
    }

    /// Notes that an app is made of this image now.
    pub fn mark_used(&self, image: &Image, now: SystemTime) -> Result<()> {
        let path = self.manifest_path(&image.manifest_digest);
        let file = fs::File::open(&path).map_err(ImageError::io("open", &path))?;
        file.set_modified(now).map_err(ImageError::io("date", &path))
    }

    /// When the image came, or was used last.
    fn last_used(&self, manifest_digest: &str) -> Result<SystemTime> {
        let path = self.manifest_path(manifest_digest);
        fs::metadata(&path).and_then(|m| m.modified()).map_err(ImageError::io("read", &path))
    }

    /// The folder that RUN finds again by what it calls it, by the digest of that.
    pub(crate) fn run_cache(&self, digest: &str) -> PathBuf {
        self.root().join(RUN_CACHES).join(digest.trim_start_matches("sha256:"))
    }

    /// Empties the caches of RUN. Nobody may build meanwhile.
    fn collect_run_caches(&self) -> Result<u64> {
        let folder = self.root().join(RUN_CACHES);
        if !folder.exists() {
            return Ok(0);
        }
        let Some(_alone) = self.lock_within("use.lock", LockKind::Exclusive, COLLECT_WAIT)? else {
            return Ok(0);
        };
        let bytes = size_below(&folder);
        remove_tree(&folder).map_err(ImageError::io("remove", &folder))?;
        Ok(bytes)
    }

    fn manifest_path(&self, digest: &str) -> PathBuf {
        self.root().join("blobs/sha256").join(digest.trim_start_matches("sha256:"))
    }

    /// Removes blobs, unpacked layers and cache entries that no image uses and nothing needs.
    fn collect(&self, needed: &Needed) -> Result<Blobs> {
        // Who adds an image holds this lock; its blobs are not yet in the index, so they must not be touched.
        let Some(_alone) = self.lock_within("use.lock", LockKind::Exclusive, COLLECT_WAIT)? else {
            return Ok(Blobs::default());
        };
        let mut blobs = HashSet::new();
        let mut chains = self.needed_chains(needed)?;
        let entries = self.entries()?;
        self.collect_pulled(&entries);
        for entry in entries {
            let parts = self.parts(&entry.manifest_digest)?;
            blobs.insert(entry.manifest_digest);
            blobs.insert(parts.manifest.config().digest().to_string());
            blobs.extend(parts.manifest.layers().iter().map(|layer| layer.digest().to_string()));
            chains.extend(super::chain_ids(&parts.config.rootfs.diff_ids));
        }
        let mut unused = Blobs::default();
        for digest in self.all_blobs()? {
            if !blobs.contains(&digest) {
                let path = self.manifest_path(&digest);
                unused.bytes += fs::metadata(&path).map_or(0, |m| m.len());
                fs::remove_file(&path).map_err(ImageError::io("remove", &path))?;
                unused.digests.push(digest);
            }
        }
        unused.digests.sort();
        unused.bytes += self.collect_layers(&chains)?;
        self.collect_cache(&blobs)?;
        Ok(unused)
    }

    /// Returns the bytes of the files that were removed.
    fn collect_layers(&self, chains: &HashSet<String>) -> Result<u64> {
        let mut bytes = 0;
        for (path, notes) in self.unpacked_layers()? {
            if notes.as_ref().is_none_or(|notes| !chains.contains(&notes.chain_id)) {
                // The folder first: a sidecar without folder counts as not unpacked.
                if path.is_dir() {
                    remove_tree(&path).map_err(ImageError::io("remove", &path))?;
                }
                let _ = fs::remove_file(path.with_extension("json"));
                bytes += notes.map_or(0, |notes| notes.bytes);
            }
        }
        Ok(bytes)
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

/// Bytes of the files below a folder, as far as they can be seen.
fn size_below(folder: &Path) -> u64 {
    let mut bytes = 0;
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            match metadata.is_dir() {
                true => open.push(entry.path()),
                false => bytes += metadata.len(),
            }
        }
    }
    bytes
}
