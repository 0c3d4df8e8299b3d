//! Archive to store.

use super::{CONTAINERD_NAME, DockerEntry, MAX_ENTRIES};
use crate::build::{descriptor, manifest as new_manifest};
use crate::digest::HashReader;
use crate::error::{ImageError, Result};
use crate::layer::LAYER_MEDIA_TYPE;
use crate::limits::{MAX_CONFIG_BYTES, MAX_MANIFEST_BYTES, check_layer_count, check_size};
use crate::manifest::{self, Document, OCI_MANIFEST};
use crate::reference::parse_reference;
use crate::store::{Entry, Image, Scratch, Store, decompress, parse_config};
use crate::tarball::{HeaderBudget, clean_path};
use flate2::Compression;
use flate2::write::GzEncoder;
use oci_spec::distribution::Reference;
use oci_spec::image::{ANNOTATION_REF_NAME, Descriptor, ImageIndex, MediaType};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use tar::EntryType;

/// Links from one name of an archive to another that are followed.
const MAX_LINKS: usize = 8;
/// An index that leads to an index that leads to an index is no image.
const MAX_INDEX_DEPTH: usize = 3;

/// The files of an archive, spooled into a scratch folder: the table of contents may come last.
struct Spool {
    _scratch: Scratch,
    files: BTreeMap<PathBuf, PathBuf>,
    links: BTreeMap<PathBuf, PathBuf>,
}

impl Store {
    /// Loads all images of an archive file; see [`Store::load`].
    pub fn load_file(&self, path: &Path) -> Result<Vec<Image>> {
        self.load(File::open(path).map_err(ImageError::io("open", path))?)
    }

    /// Loads all images of a tar archive, plain or compressed with gzip or zstd, in either format, and gives them
    /// their names. An image that is damaged is refused and the names stay as they were.
    pub fn load(&self, archive: impl Read) -> Result<Vec<Image>> {
        let _in_use = self.in_use()?;
        let spool = self.spool(archive)?;
        let found = if spool.has("index.json") && spool.has("oci-layout") {
            self.load_oci(&spool)?
        } else if spool.has("manifest.json") {
            self.load_docker(&spool)?
        } else {
            return Err(ImageError::corrupt(
                "the archive",
                "it holds neither manifest.json (docker save) nor index.json (OCI layout)",
            ));
        };
        let mut images = Vec::new();
        for (entry, names) in found {
            self.name_manifest(&entry, &names)?;
            images.push(
                self.image(&entry.manifest_digest, names.first().map(Reference::to_string).as_deref())?,
            );
        }
        Ok(images)
    }

    fn spool(&self, archive: impl Read) -> Result<Spool> {
        let scratch = self.scratch()?;
        let mut spool = Spool { files: BTreeMap::new(), links: BTreeMap::new(), _scratch: scratch };
        let damaged = |error: io::Error| ImageError::corrupt("the archive", error);
        let mut plain = decompress("the archive", archive)?;
        let budget = HeaderBudget::default();
        let mut archive = tar::Archive::new(budget.guard(&mut plain));
        let mut bytes = 0u64;
        let mut entries = archive.entries().map_err(damaged)?;
        let mut count = 0;
        while let Some(entry) = budget.header(|| entries.next()) {
            let mut entry = entry.map_err(damaged)?;
            count += 1;
            bytes = bytes.saturating_add(entry.size());
            if count > MAX_ENTRIES || bytes > self.limits().unpacked_layer_bytes {
                return Err(ImageError::TooLarge {
                    what: "the archive".into(),
                    actual: format!("{count} entries, {bytes} bytes"),
                    limit: format!("{MAX_ENTRIES} entries, {} bytes", self.limits().unpacked_layer_bytes),
                    raise: "save fewer images into one archive, or open the store with higher limits".into(),
                });
            }
            let name = clean_path(&entry.path_bytes()).map_err(|reason| ImageError::UnsafeEntry {
                what: "the archive".into(),
                entry: String::from_utf8_lossy(&entry.path_bytes()).into_owned(),
                reason: reason.into(),
            })?;
            match entry.header().entry_type() {
                EntryType::Symlink | EntryType::Link => {
                    let target = entry.link_name().map_err(damaged)?.unwrap_or_default().into_owned();
                    let base = match entry.header().entry_type() {
                        EntryType::Symlink => name.parent().unwrap_or(Path::new("")).to_path_buf(),
                        _ => PathBuf::new(),
                    };
                    spool.links.insert(name, lexical(&base.join(target)));
                }
                EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                    let place = spool._scratch.path().join(format!("{count}"));
                    let mut file = File::create(&place).map_err(ImageError::io("create", &place))?;
                    let expected = entry.size();
                    let copied = io::copy(&mut entry, &mut file)
                        .map_err(ImageError::io("unpack the archive to", &place))?;
                    if copied != expected {
                        return Err(ImageError::corrupt(
                            "the archive",
                            format!("it ends inside {}", name.display()),
                        ));
                    }
                    spool.files.insert(name, place);
                }
                _ => {}
            }
            io::copy(&mut entry, &mut io::sink()).map_err(damaged)?;
        }
        Ok(spool)
    }

    fn load_docker(&self, spool: &Spool) -> Result<Vec<(Entry, Vec<Reference>)>> {
        let bytes = spool.read("manifest.json", MAX_MANIFEST_BYTES)?;
        let entries: Vec<DockerEntry> = serde_json::from_slice(&bytes)
            .map_err(|error| ImageError::corrupt("manifest.json of the archive", error))?;
        entries
            .iter()
            .map(|entry| {
                let tags = entry.repo_tags.iter().flatten();
                let names = tags.map(|tag| parse_reference(tag)).collect::<Result<Vec<_>>>()?;
                Ok((self.load_docker_image(spool, entry)?, names))
            })
            .collect()
    }

    fn load_docker_image(&self, spool: &Spool, entry: &DockerEntry) -> Result<Entry> {
        check_layer_count("an image of the archive", entry.layers.len())?;
        let config = spool.read(&entry.config, MAX_CONFIG_BYTES)?;
        let config_digest = self.put_blob(&config)?;
        let parsed = parse_config(&config_digest, &config, entry.layers.len())?;
        let mut layers = Vec::new();
        for (name, diff_id) in entry.layers.iter().zip(&parsed.rootfs.diff_ids) {
            let (digest, size) = self.compress_layer(spool, name, diff_id)?;
            layers.push(descriptor(LAYER_MEDIA_TYPE.into(), &digest, size)?);
        }
        let manifest = new_manifest(&config_digest, config.len() as u64, layers)?;
        let bytes =
            serde_json::to_vec(&manifest).map_err(|error| ImageError::corrupt("the new manifest", error))?;
        let manifest_digest = self.put_blob(&bytes)?;
        Ok(Entry { name: None, manifest_digest, media_type: OCI_MANIFEST.into(), size: bytes.len() as u64 })
    }

    /// A layer of a docker-archive as a gzip blob, its content checked against the configuration.
    fn compress_layer(&self, spool: &Spool, name: &str, diff_id: &str) -> Result<(String, u64)> {
        let path = spool.path(name)?;
        let what = format!("layer {name} of the archive");
        let file = File::open(&path).map_err(ImageError::io("open", &path))?;
        let mut plain = HashReader::new(decompress(&what, file)?);
        let mut encoder = GzEncoder::new(self.blob_writer()?, Compression::default());
        io::copy(&mut plain, &mut encoder).map_err(ImageError::io("compress", &path))?;
        let blob = encoder.finish().map_err(ImageError::io("compress", &path))?;
        let actual = plain.finish();
        if actual != diff_id {
            return Err(ImageError::DigestMismatch { what, expected: diff_id.into(), actual });
        }
        blob.commit(&what, None)
    }

    fn load_oci(&self, spool: &Spool) -> Result<Vec<(Entry, Vec<Reference>)>> {
        let bytes = spool.read("index.json", MAX_MANIFEST_BYTES)?;
        let index: ImageIndex = serde_json::from_slice(&bytes)
            .map_err(|error| ImageError::corrupt("index.json of the archive", error))?;
        let mut found: BTreeMap<String, (Entry, Vec<Reference>)> = BTreeMap::new();
        for descriptor in index.manifests() {
            let entry = self.load_oci_image(spool, descriptor, 0)?;
            let slot = found.entry(entry.manifest_digest.clone()).or_insert((entry, Vec::new()));
            slot.1.extend(name_of(descriptor)?);
        }
        Ok(found.into_values().collect())
    }

    fn load_oci_image(&self, spool: &Spool, start: &Descriptor, depth: usize) -> Result<Entry> {
        let digest = start.digest().to_string();
        let what = format!("manifest {digest} of the archive");
        let bytes = spool.read_blob(&digest, MAX_MANIFEST_BYTES)?;
        let (manifest, media_type) = match manifest::parse(&what, &bytes)? {
            Document::Manifest(manifest, media_type) => (manifest, media_type),
            Document::Index(_) if depth >= MAX_INDEX_DEPTH => {
                return Err(ImageError::corrupt(what, "indexes are nested too deeply"));
            }
            Document::Index(index) => {
                return self.load_oci_image(spool, manifest::choose(&what, &index)?, depth + 1);
            }
        };
        for blob in manifest.layers().iter().chain([manifest.config()]) {
            self.copy_blob(spool, blob)?;
        }
        let config = self.read_blob(manifest.config().digest().as_ref(), MAX_CONFIG_BYTES)?;
        parse_config(manifest.config().digest().as_ref(), &config, manifest.layers().len())?;
        let manifest_digest = self.put_blob(&bytes)?;
        Ok(Entry { name: None, manifest_digest, media_type, size: bytes.len() as u64 })
    }

    fn copy_blob(&self, spool: &Spool, blob: &Descriptor) -> Result<()> {
        let digest = blob.digest().to_string();
        if self.has_blob(&digest)? {
            return Ok(());
        }
        let path = spool.path(&spool.blob_name(&digest)?)?;
        let mut file = File::open(&path).map_err(ImageError::io("open", &path))?;
        let mut writer = self.blob_writer()?;
        io::copy(&mut file, &mut writer).map_err(ImageError::io("copy a blob from", &path))?;
        writer.flush().map_err(ImageError::io("copy a blob from", &path))?;
        writer.commit(&format!("blob {digest} of the archive"), Some(&digest)).map(|_| ())
    }
}

impl Spool {
    fn has(&self, name: &str) -> bool {
        self.path(name).is_ok()
    }

    fn path(&self, name: &str) -> Result<PathBuf> {
        let mut wanted = lexical(Path::new(name));
        for _ in 0..MAX_LINKS {
            if let Some(path) = self.files.get(&wanted) {
                return Ok(path.clone());
            }
            match self.links.get(&wanted) {
                Some(target) => wanted = target.clone(),
                None => break,
            }
        }
        Err(ImageError::corrupt("the archive", format!("{name} is missing")))
    }

    fn read(&self, name: &str, limit: u64) -> Result<Vec<u8>> {
        let path = self.path(name)?;
        let size = fs::metadata(&path).map_err(ImageError::io("read", &path))?.len();
        check_size(&format!("{name} of the archive"), size, limit)?;
        fs::read(&path).map_err(ImageError::io("read", &path))
    }

    fn blob_name(&self, digest: &str) -> Result<String> {
        Ok(format!("blobs/sha256/{}", crate::digest::hex_of(digest)?))
    }

    fn read_blob(&self, digest: &str, limit: u64) -> Result<Vec<u8>> {
        let name = self.blob_name(digest)?;
        let bytes = self.read(&name, limit)?;
        let actual = crate::digest::of_bytes(&bytes);
        if actual != digest {
            return Err(ImageError::DigestMismatch {
                what: format!("{name} of the archive"),
                expected: digest.into(),
                actual,
            });
        }
        Ok(bytes)
    }
}

/// The name that an index gives to an image: containerd's annotation, or the OCI one if it is more than a bare tag.
fn name_of(descriptor: &Descriptor) -> Result<Option<Reference>> {
    let Some(annotations) = descriptor.annotations() else { return Ok(None) };
    let whole = annotations.get(CONTAINERD_NAME);
    let short = annotations.get(ANNOTATION_REF_NAME).filter(|name| name.contains([':', '/']));
    whole.or(short).map(|name| parse_reference(name)).transpose()
}

/// Without `.` and `..`; what would leave the archive ends at its root, where nothing is found.
fn lexical(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.iter() {
        match part.to_str() {
            Some("..") => {
                clean.pop();
            }
            Some("." | "/") => {}
            _ => clean.push(part),
        }
    }
    clean
}

/// An OCI layout's media type for an entry of `index.json`.
pub(super) fn media_type(entry: &Entry) -> MediaType {
    entry.media_type.as_str().into()
}
