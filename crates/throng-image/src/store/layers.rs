//! Unpacked layers: one folder per chain of layers, shared by every image that has the same chain.

use super::{Image, Store};
use crate::digest::{self, HashReader};
use crate::error::{ImageError, Result};
use crate::unpack::{Unpacked, unpack_layer};
use crate::view::LayerView;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

/// Digits of a chain id in a folder's name; more are taken if two chains share these.
const SHORT_ID: usize = 12;

/// What is known about an unpacked layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerNotes {
    /// Digest over this layer and all below it, as the OCI image specification defines it.
    pub chain_id: String,
    /// Bytes of its regular files.
    pub bytes: u64,
    /// What could not be kept when it was unpacked (owners, devices, attributes), for people.
    pub notes: Vec<String>,
}

/// The chain id of each layer, bottom first (OCI image specification, "Layer ChainID").
pub fn chain_ids(diff_ids: &[String]) -> Vec<String> {
    let mut chain: Vec<String> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        let next = match chain.last() {
            Some(below) => digest::of_bytes(format!("{below} {diff_id}").as_bytes()),
            None => diff_id.clone(),
        };
        chain.push(next);
    }
    chain
}

impl Store {
    /// The image's unpacked layers, bottom first; unpacks those that are not. A whiteout is a character device 0/0
    /// and an opaque folder has the attribute `trusted.overlay.opaque` (root) or `user.overlay.opaque` (others, who
    /// mount with `userxattr`), as overlayfs wants them.
    ///
    /// A layer is unpacked once and appears by rename; it must not be changed by whoever mounts it.
    pub fn layers(&self, image: &Image) -> Result<Vec<PathBuf>> {
        let _in_use = self.in_use()?;
        let parts = self.parts(&image.manifest_digest)?;
        let blobs: Vec<(String, String)> = parts
            .manifest
            .layers()
            .iter()
            .map(|layer| layer.digest().to_string())
            .zip(parts.config.rootfs.diff_ids.iter().cloned())
            .collect();
        self.unpack_chain(&blobs)
    }

    /// What could not be kept when the image's layers were unpacked; empty if everything was.
    pub fn layer_notes(&self, image: &Image) -> Result<Vec<String>> {
        let mut notes = Vec::new();
        for chain_id in chain_ids(&image.diff_ids) {
            if let Some((_, known)) = self.find_layer(&chain_id)? {
                notes.extend(known.notes);
            }
        }
        notes.sort();
        notes.dedup();
        Ok(notes)
    }

    /// Unpacks layers given as (blob digest, diff id), bottom first. The caller holds the use lock.
    pub(crate) fn unpack_chain(&self, layers: &[(String, String)]) -> Result<Vec<PathBuf>> {
        let diff_ids: Vec<String> = layers.iter().map(|(_, diff_id)| diff_id.clone()).collect();
        let mut below: Vec<PathBuf> = Vec::with_capacity(layers.len());
        for ((blob, diff_id), chain_id) in layers.iter().zip(chain_ids(&diff_ids)) {
            let path = match self.find_layer(&chain_id)? {
                Some((path, _)) => path,
                None => self.unpack(blob, diff_id, &chain_id, &below)?,
            };
            below.push(path);
        }
        Ok(below)
    }

    fn unpack(&self, blob: &str, diff_id: &str, chain_id: &str, below: &[PathBuf]) -> Result<PathBuf> {
        let scratch = self.scratch()?;
        let target = scratch.path().join("layer");
        let unpacked = self.unpack_at(blob, diff_id, &target, below)?;
        let folder = File::open(&target).map_err(ImageError::io("open", &target))?;
        rustix::fs::syncfs(&folder).map_err(|error| ImageError::io("sync", &target)(error.into()))?;
        self.publish_layer(&target, chain_id, unpacked)
    }

    /// Unpacks a layer that stands alone into a new folder, whose content is the caller's.
    pub(crate) fn unpack_copy(&self, blob: &str, diff_id: &str, target: &Path) -> Result<()> {
        self.unpack_at(blob, diff_id, target, &[]).map(drop)
    }

    fn unpack_at(&self, blob: &str, diff_id: &str, target: &Path, below: &[PathBuf]) -> Result<Unpacked> {
        let unpacked = self.unpack_checked(blob, diff_id, target, below);
        if let Err(ImageError::Corrupt { .. } | ImageError::DigestMismatch { .. }) = &unpacked {
            self.drop_damaged(blob);
        }
        unpacked
    }

    fn unpack_checked(
        &self,
        blob: &str,
        diff_id: &str,
        target: &Path,
        below: &[PathBuf],
    ) -> Result<Unpacked> {
        fs::create_dir(target).map_err(ImageError::io("create", target))?;
        let what = format!("layer {blob}");
        let compressed = HashReader::new(BufReader::with_capacity(1 << 17, self.open_blob(blob)?));
        let mut plain = HashReader::new(decompress(&what, compressed)?);
        let unpacked =
            unpack_layer(&what, &mut plain, target, &LayerView::new(below.to_vec()), self.limits())?;
        // A tar archive may be followed by padding, which counts for the digest.
        io::copy(&mut plain, &mut io::sink()).map_err(|error| ImageError::corrupt(&what, error))?;
        let actual = plain.finish();
        if actual != diff_id {
            return Err(ImageError::DigestMismatch {
                what: format!("the content of {what}"),
                expected: diff_id.into(),
                actual,
            });
        }
        Ok(unpacked)
    }

    fn publish_layer(&self, target: &Path, chain_id: &str, unpacked: Unpacked) -> Result<PathBuf> {
        let _lock = self.lock_index()?;
        if let Some((path, _)) = self.find_layer(chain_id)? {
            // Another process was faster; its copy is the same.
            return Ok(path);
        }
        let path = self.layer_place(chain_id)?;
        let notes = LayerNotes { chain_id: chain_id.into(), bytes: unpacked.bytes, notes: unpacked.notes };
        let bytes = serde_json::to_vec(&notes).map_err(|error| ImageError::corrupt("layer notes", error))?;
        self.write_atomic(&path.with_extension("json"), &bytes)?;
        if path.exists() {
            // A folder without notes is what is left of a collection that was cut short.
            super::remove_tree(&path).map_err(ImageError::io("remove", &path))?;
        }
        self.publish(target, &path)?;
        Ok(path)
    }

    fn find_layer(&self, chain_id: &str) -> Result<Option<(PathBuf, LayerNotes)>> {
        let path = self.layer_place(chain_id)?;
        match read_notes(&path) {
            Some(notes) if path.is_dir() => Ok(Some((path, notes))),
            _ => Ok(None),
        }
    }

    /// Where this chain is or belongs: the shortest start of its id that no other chain has taken.
    fn layer_place(&self, chain_id: &str) -> Result<PathBuf> {
        let hex = digest::hex_of(chain_id)?;
        for length in SHORT_ID..hex.len() {
            let path = self.root().join("l").join(&hex[..length]);
            if read_notes(&path).is_none_or(|notes| notes.chain_id == chain_id) {
                return Ok(path);
            }
        }
        Ok(self.root().join("l").join(hex))
    }

    pub(super) fn unpacked_layers(&self) -> Result<BTreeMap<PathBuf, Option<LayerNotes>>> {
        let folder = self.root().join("l");
        let mut layers = BTreeMap::new();
        for entry in fs::read_dir(&folder).map_err(ImageError::io("read", &folder))? {
            let path = entry.map_err(ImageError::io("read", &folder))?.path().with_extension("");
            let notes = read_notes(&path);
            layers.insert(path, notes);
        }
        Ok(layers)
    }
}

fn read_notes(layer: &Path) -> Option<LayerNotes> {
    serde_json::from_slice(&fs::read(layer.with_extension("json")).ok()?).ok()
}

/// Undoes the compression that the first bytes tell: gzip, zstd or none.
pub(crate) fn decompress<'a>(what: &str, reader: impl Read + 'a) -> Result<Box<dyn Read + 'a>> {
    let mut reader = BufReader::with_capacity(1 << 17, reader);
    let magic = peek(&mut reader).map_err(|error| ImageError::corrupt(what, error))?;
    if magic.starts_with(&[0x1f, 0x8b]) {
        return Ok(Box::new(flate2::bufread::MultiGzDecoder::new(reader)));
    }
    if magic.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        let decoder = zstd::stream::read::Decoder::with_buffer(reader)
            .map_err(|error| ImageError::corrupt(what, error))?;
        return Ok(Box::new(decoder));
    }
    for (start, name) in [(&b"BZh"[..], "bzip2"), (&b"\xfd7zXZ"[..], "xz")] {
        if magic.starts_with(start) {
            return Err(ImageError::unsupported(
                format!("the compression of {what}"),
                format!("it is {name}; gzip, zstd and none are known"),
            ));
        }
    }
    Ok(Box::new(reader))
}

fn peek(reader: &mut impl io::BufRead) -> io::Result<Vec<u8>> {
    reader.fill_buf().map(|buffer| buffer[..buffer.len().min(8)].to_vec())
}
