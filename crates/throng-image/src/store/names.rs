//! Names of images: `index.json`, an OCI image index whose entries carry the name as an annotation.

use super::{Image, ImageSummary, Store};
use crate::error::{ImageError, Result};
use crate::limits::{MAX_INDEX_BYTES, MAX_NAMES, check_size};
use crate::reference::{familiar_repository, parse_reference};
use oci_spec::distribution::Reference;
use oci_spec::image::{ANNOTATION_REF_NAME, Descriptor, Digest, ImageIndex, MediaType, SCHEMA_VERSION};
use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::SystemTime;

const NONE: &str = "<none>";
/// Folder of the notes about when names were asked for at their registries.
const PULLED: &str = "pulled";

/// One line of the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Canonical; `None` for an image whose name went to another one.
    pub name: Option<String>,
    pub manifest_digest: String,
    pub media_type: String,
    pub size: u64,
}

impl Store {
    pub(crate) fn entries(&self) -> Result<Vec<Entry>> {
        let path = self.root().join("index.json");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(ImageError::io("read", &path)(error)),
        };
        check_size("the index of the image store", bytes.len() as u64, MAX_INDEX_BYTES)?;
        let index: ImageIndex = serde_json::from_slice(&bytes)
            .map_err(|error| ImageError::corrupt(path.display().to_string(), error))?;
        Ok(index.manifests().iter().map(Entry::from_descriptor).collect())
    }

    /// The caller holds the index lock.
    fn write_entries(&self, entries: &[Entry]) -> Result<()> {
        if entries.len() > MAX_NAMES {
            return Err(ImageError::TooLarge {
                what: "the index of the image store".into(),
                actual: format!("{} names", entries.len()),
                limit: format!("{MAX_NAMES} names"),
                raise: "remove images with `throng rmi`, or use another store".into(),
            });
        }
        let manifests = entries.iter().map(Entry::to_descriptor).collect::<Result<Vec<_>>>()?;
        let mut index = ImageIndex::default();
        index.set_schema_version(SCHEMA_VERSION);
        index.set_media_type(Some(MediaType::ImageIndex));
        index.set_manifests(manifests);
        let bytes =
            serde_json::to_vec_pretty(&index).map_err(|error| ImageError::corrupt("the index", error))?;
        self.write_atomic(&self.root().join("index.json"), &bytes)
    }

    /// Changes the index under its lock. `change` sees and leaves the entries; an error leaves them as they were.
    pub(crate) fn change_entries<T>(&self, change: impl FnOnce(&mut Vec<Entry>) -> Result<T>) -> Result<T> {
        let _lock = self.lock_index()?;
        let mut entries = self.entries()?;
        let before = entries.clone();
        let outcome = change(&mut entries)?;
        if entries != before {
            self.write_entries(&entries)?;
        }
        Ok(outcome)
    }

    /// Gives `names` to a manifest whose blobs are all there. An image that loses its last name stays, nameless.
    pub(crate) fn name_manifest(&self, manifest: &Entry, names: &[Reference]) -> Result<()> {
        self.change_entries(|entries| {
            for name in names {
                set_name(entries, manifest, &name.to_string());
            }
            if names.is_empty()
                && !entries.iter().any(|entry| entry.manifest_digest == manifest.manifest_digest)
            {
                entries.push(Entry { name: None, ..manifest.clone() });
            }
            Ok(())
        })
    }

    /// Notes that a registry has just been asked for this name.
    pub(crate) fn note_pulled(&self, name: &str) -> Result<()> {
        let path = self.pulled(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(ImageError::io("create", folder))?;
        }
        self.write_atomic(&path, name.as_bytes())
    }

    /// When a registry was last asked for an image by this name; `None` if never, as for one that was built or loaded.
    pub fn last_pulled(&self, reference: &str) -> Result<Option<SystemTime>> {
        let path = self.pulled(&parse_reference(reference)?.to_string());
        match fs::metadata(&path).and_then(|metadata| metadata.modified()) {
            Ok(time) => Ok(Some(time)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(ImageError::io("read", &path)(error)),
        }
    }

    fn pulled(&self, name: &str) -> PathBuf {
        let digest = crate::digest::of_bytes(name.as_bytes());
        self.root().join(PULLED).join(digest.trim_start_matches("sha256:"))
    }

    /// Forgets about names that are not there any more.
    pub(super) fn collect_pulled(&self, entries: &[Entry]) {
        let known: HashSet<PathBuf> =
            entries.iter().filter_map(|entry| entry.name.as_deref()).map(|name| self.pulled(name)).collect();
        for note in fs::read_dir(self.root().join(PULLED)).into_iter().flatten().flatten() {
            if !known.contains(&note.path()) {
                // One that stays says when a name was asked for that may come again.
                let _ = fs::remove_file(note.path());
            }
        }
    }

    /// Finds an image by `name[:tag]`, `name@digest`, whole id, or the start of an id that no other image has.
    pub fn find(&self, reference: &str) -> Result<Option<Image>> {
        let _in_use = self.in_use()?;
        Ok(match self.find_entry(&self.entries()?, reference)? {
            Some(entry) => Some(self.image(&entry.manifest_digest, entry.name.as_deref())?),
            None => None,
        })
    }

    /// As [`Store::find`], with an error that says what to do when there is none.
    pub fn get(&self, reference: &str) -> Result<Image> {
        self.find(reference)?.ok_or_else(|| ImageError::NotFound { reference: reference.into() })
    }

    pub(crate) fn find_entry(&self, entries: &[Entry], text: &str) -> Result<Option<Entry>> {
        let bare = text.strip_prefix("sha256:").unwrap_or(text);
        let looks_like_id =
            !bare.is_empty() && bare.len() <= 64 && bare.bytes().all(|b| b.is_ascii_hexdigit());
        if bare.len() == text.len() {
            match parse_reference(text) {
                Ok(reference) => {
                    if let Some(entry) = find_name(entries, &reference) {
                        return Ok(Some(entry.clone()));
                    }
                }
                Err(error) if !looks_like_id => return Err(error),
                Err(_) => {}
            }
        }
        if looks_like_id { self.find_id(entries, bare) } else { Ok(None) }
    }

    fn find_id(&self, entries: &[Entry], prefix: &str) -> Result<Option<Entry>> {
        let wanted = format!("sha256:{}", prefix.to_ascii_lowercase());
        let mut found: Vec<(String, Entry)> = Vec::new();
        for entry in entries {
            let id = self.id_of(entry)?;
            let whole_manifest = entry.manifest_digest == wanted;
            if (id.starts_with(&wanted) || whole_manifest) && !found.iter().any(|(other, _)| *other == id) {
                found.push((id, entry.clone()));
            }
        }
        if found.len() > 1 {
            let candidates = found.into_iter().map(|(id, _)| id).collect();
            return Err(ImageError::Ambiguous { prefix: prefix.into(), candidates });
        }
        Ok(found.pop().map(|(_, entry)| entry))
    }

    pub(crate) fn id_of(&self, entry: &Entry) -> Result<String> {
        Ok(self.parts(&entry.manifest_digest)?.manifest.config().digest().to_string())
    }

    /// All images in the order of their names, nameless ones last.
    pub fn list(&self) -> Result<Vec<ImageSummary>> {
        let _in_use = self.in_use()?;
        let mut entries = self.entries()?;
        entries.sort_by(|a, b| (a.name.is_none(), &a.name).cmp(&(b.name.is_none(), &b.name)));
        entries.iter().map(|entry| self.summary(entry)).collect()
    }

    fn summary(&self, entry: &Entry) -> Result<ImageSummary> {
        let image = self.image(&entry.manifest_digest, None)?;
        let (repository, tag) = match entry.name.as_deref().map(parse_reference).transpose()? {
            Some(name) => (familiar_repository(&name), name.tag().unwrap_or(NONE).to_string()),
            None => (NONE.into(), NONE.into()),
        };
        Ok(ImageSummary {
            repository,
            tag,
            id: image.id,
            digest: image.manifest_digest,
            created: image.created,
            size: image.size,
        })
    }

    /// Gives the image `source` the further name `target`.
    pub fn tag(&self, source: &str, target: &str) -> Result<()> {
        let target = parse_reference(target)?;
        if target.digest().is_some() {
            return Err(ImageError::InvalidReference {
                reference: target.to_string(),
                reason: "a new name cannot contain a digest".into(),
            });
        }
        self.change_entries(|entries| {
            let entry = self
                .find_entry(entries, source)?
                .ok_or_else(|| ImageError::NotFound { reference: source.into() })?;
            set_name(entries, &entry, &target.to_string());
            Ok(())
        })
    }
}

fn find_name<'a>(entries: &'a [Entry], reference: &Reference) -> Option<&'a Entry> {
    let canonical = reference.to_string();
    if let Some(entry) = entries.iter().find(|entry| entry.name.as_deref() == Some(&canonical)) {
        return Some(entry);
    }
    // `name@digest` and `name:tag@digest` mean the digest; the tag is a remark.
    let digest = reference.digest()?;
    let repository = format!("{}/{}", reference.registry(), reference.repository());
    entries.iter().find(|entry| {
        entry.manifest_digest == digest
            && entry.name.as_deref().is_some_and(|name| {
                name.strip_prefix(&repository).is_some_and(|rest| rest.starts_with([':', '@']))
            })
    })
}

/// Moves or adds one name. The image that had it before stays in the list without a name.
fn set_name(entries: &mut Vec<Entry>, manifest: &Entry, name: &str) {
    let named = Entry { name: Some(name.into()), ..manifest.clone() };
    let old = entries.iter().position(|entry| entry.name.as_deref() == Some(name));
    match old {
        Some(at) if entries[at].manifest_digest == manifest.manifest_digest => entries[at] = named,
        Some(at) => {
            let loser = std::mem::replace(&mut entries[at], named);
            if !entries.iter().any(|entry| entry.manifest_digest == loser.manifest_digest) {
                entries.push(Entry { name: None, ..loser });
            }
        }
        None => entries.push(named),
    }
    entries.retain(|entry| entry.name.is_some() || entry.manifest_digest != manifest.manifest_digest);
}

impl Entry {
    fn from_descriptor(descriptor: &Descriptor) -> Entry {
        let annotations = descriptor.annotations().as_ref();
        Entry {
            name: annotations.and_then(|all| all.get(ANNOTATION_REF_NAME)).cloned(),
            manifest_digest: descriptor.digest().to_string(),
            media_type: descriptor.media_type().to_string(),
            size: descriptor.size(),
        }
    }

    fn to_descriptor(&self) -> Result<Descriptor> {
        let digest: Digest = self
            .manifest_digest
            .parse()
            .map_err(|error| ImageError::corrupt(format!("the digest {}", self.manifest_digest), error))?;
        let mut descriptor = Descriptor::new(self.media_type.as_str().into(), self.size, digest);
        if let Some(name) = &self.name {
            descriptor.set_annotations(Some(HashMap::from([(ANNOTATION_REF_NAME.into(), name.clone())])));
        }
        Ok(descriptor)
    }
}
