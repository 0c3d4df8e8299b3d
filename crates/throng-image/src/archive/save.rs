//! Store to archive. The same images give the same bytes.

use super::load::media_type;
use super::{ArchiveFormat, CONTAINERD_NAME, DockerEntry};
use crate::build::descriptor;
use crate::error::{ImageError, Result};
use crate::reference::{familiar, parse_reference};
use crate::store::{Entry, Parts, Store, decompress};
use oci_spec::image::{ANNOTATION_REF_NAME, ImageIndex, MediaType, SCHEMA_VERSION};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, Read, Write};
use std::path::Path;
use tar::{Builder, EntryType, Header};

struct Output<W: Write> {
    tar: Builder<W>,
    written: BTreeSet<String>,
}

impl Store {
    /// Writes images as one tar archive. References by id give images without name.
    pub fn save(&self, references: &[String], format: ArchiveFormat, out: impl Write) -> Result<()> {
        let _in_use = self.in_use()?;
        let entries = self.entries()?;
        let mut images: BTreeMap<String, (Entry, BTreeSet<String>)> = BTreeMap::new();
        for reference in references {
            let entry = self
                .find_entry(&entries, reference)?
                .ok_or_else(|| ImageError::NotFound { reference: reference.clone() })?;
            let slot =
                images.entry(entry.manifest_digest.clone()).or_insert((entry.clone(), BTreeSet::new()));
            // By id, whatever name the entry has was not asked for.
            let by_name =
                parse_reference(reference).is_ok_and(|parsed| entry.name == Some(parsed.to_string()));
            slot.1.extend(entry.name.filter(|_| by_name));
        }
        let mut output = Output { tar: Builder::new(out), written: BTreeSet::new() };
        match format {
            ArchiveFormat::Docker => self.save_docker(images, &mut output)?,
            ArchiveFormat::Oci => self.save_oci(images, &mut output)?,
        }
        output.tar.into_inner().and_then(|mut out| out.flush()).map_err(failed("the archive"))
    }

    fn save_docker<W: Write>(
        &self,
        images: BTreeMap<String, (Entry, BTreeSet<String>)>,
        output: &mut Output<W>,
    ) -> Result<()> {
        let mut contents = Vec::new();
        for (digest, (_, names)) in images {
            let Parts { manifest, config } = self.parts(&digest)?;
            let config_digest = manifest.config().digest().to_string();
            let config_name = format!("{}.json", crate::digest::hex_of(&config_digest)?);
            let bytes = self.read_blob(&config_digest, crate::limits::MAX_CONFIG_BYTES)?;
            output.file(&config_name, bytes.len() as u64, bytes.as_slice())?;
            let mut layers = Vec::new();
            for (layer, diff_id) in manifest.layers().iter().zip(&config.rootfs.diff_ids) {
                let name = format!("{}.tar", crate::digest::hex_of(diff_id)?);
                self.save_layer(&name, layer.digest().as_ref(), output)?;
                layers.push(name);
            }
            let names =
                names.iter().map(|name| Ok(familiar(&parse_reference(name)?))).collect::<Result<Vec<_>>>()?;
            contents.push(DockerEntry { config: config_name, repo_tags: Some(names), layers });
        }
        output.json("manifest.json", &contents)
    }

    fn save_layer<W: Write>(&self, name: &str, digest: &str, output: &mut Output<W>) -> Result<()> {
        if output.written.contains(name) {
            return Ok(());
        }
        let what = format!("layer {digest}");
        // A tar header needs the size first; reading twice is cheaper than spooling the whole layer.
        let size = io::copy(&mut decompress(&what, self.open_blob(digest)?)?, &mut io::sink())
            .map_err(|error| ImageError::corrupt(&what, error))?;
        output.file(name, size, decompress(&what, self.open_blob(digest)?)?)
    }

    fn save_oci<W: Write>(
        &self,
        images: BTreeMap<String, (Entry, BTreeSet<String>)>,
        output: &mut Output<W>,
    ) -> Result<()> {
        output.json("oci-layout", &serde_json::json!({ "imageLayoutVersion": "1.0.0" }))?;
        let mut manifests = Vec::new();
        for (digest, (entry, names)) in images {
            let parts = self.parts(&digest)?;
            let config = parts.manifest.config();
            for blob in parts.manifest.layers().iter().chain([config]) {
                self.save_blob(blob.digest().as_ref(), output)?;
            }
            self.save_blob(&digest, output)?;
            let plain = descriptor(media_type(&entry), &digest, entry.size)?;
            if names.is_empty() {
                manifests.push(plain.clone());
            }
            for name in names {
                let mut named = plain.clone();
                let annotations = [(ANNOTATION_REF_NAME, &name), (CONTAINERD_NAME, &name)];
                named.set_annotations(Some(
                    annotations
                        .into_iter()
                        .map(|(key, value)| (key.to_string(), value.clone()))
                        .collect::<HashMap<_, _>>(),
                ));
                manifests.push(named);
            }
        }
        let mut index = ImageIndex::default();
        index.set_schema_version(SCHEMA_VERSION);
        index.set_media_type(Some(MediaType::ImageIndex));
        index.set_manifests(manifests);
        // Through a value, whose maps are sorted: the annotations' own map has no fixed order.
        let value =
            serde_json::to_value(&index).map_err(|error| ImageError::corrupt("the new index", error))?;
        output.json("index.json", &value)
    }

    fn save_blob<W: Write>(&self, digest: &str, output: &mut Output<W>) -> Result<()> {
        let file = self.open_blob(digest)?;
        let size = file.metadata().map_err(failed("the archive"))?.len();
        output.file(&format!("blobs/sha256/{}", crate::digest::hex_of(digest)?), size, file)
    }
}

impl<W: Write> Output<W> {
    /// Adds a file once.
    fn file(&mut self, name: &str, size: u64, content: impl Read) -> Result<()> {
        if !self.written.insert(name.into()) {
            return Ok(());
        }
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(size);
        self.tar.append_data(&mut header, name, content.take(size)).map_err(failed(name))
    }

    fn json(&mut self, name: &str, value: &impl serde::Serialize) -> Result<()> {
        let bytes = serde_json::to_vec(value).map_err(|error| ImageError::corrupt(name, error))?;
        self.file(name, bytes.len() as u64, bytes.as_slice())
    }
}

fn failed(name: &str) -> impl FnOnce(io::Error) -> ImageError {
    ImageError::io("write into the archive", Path::new(name))
}
