//! Writing a layer: a tar stream that depends on nothing but what is put into it, compressed with gzip.

use crate::digest::HashWriter;
use crate::error::{ImageError, Result};
use crate::store::{BlobWriter, Store};
use crate::unpack::{OPAQUE_MARK, WHITEOUT_PREFIX};
use flate2::Compression;
use flate2::write::GzEncoder;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use tar::{Builder, EntryType, Header};

/// Layers made by `throng build`.
pub(crate) const LAYER_MEDIA_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// A layer whose blob is in the store.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Layer {
    /// Of the compressed blob.
    pub digest: String,
    /// Of the tar stream.
    pub diff_id: String,
    /// Bytes of the compressed blob.
    pub size: u64,
}

/// Owner, mode and extended attributes of an entry; the time is the writer's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Attributes {
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub xattrs: Vec<(OsString, Vec<u8>)>,
}

type Sink = HashWriter<GzEncoder<BlobWriter>>;

pub(crate) struct LayerWriter {
    tar: Builder<Sink>,
    /// Seconds since 1970 that every entry gets.
    mtime: u64,
    folders: BTreeSet<PathBuf>,
    entries: u64,
}

impl LayerWriter {
    pub(crate) fn new(store: &Store, mtime: u64) -> Result<Self> {
        let encoder = GzEncoder::new(store.blob_writer()?, Compression::default());
        Ok(LayerWriter {
            tar: Builder::new(HashWriter::new(encoder)),
            mtime,
            folders: BTreeSet::new(),
            entries: 0,
        })
    }

    pub(crate) fn has_folder(&self, path: &Path) -> bool {
        self.folders.contains(path)
    }

    /// Adds a folder once; later calls for the same path do nothing.
    pub(crate) fn folder(&mut self, path: &Path, attributes: &Attributes) -> io::Result<()> {
        if path.as_os_str().is_empty() || !self.folders.insert(path.to_path_buf()) {
            return Ok(());
        }
        let mut name = path.as_os_str().to_os_string();
        name.push("/");
        let header = self.header(EntryType::Directory, attributes, 0)?;
        self.append(header, Path::new(&name), io::empty())
    }

    pub(crate) fn file(
        &mut self,
        path: &Path,
        attributes: &Attributes,
        size: u64,
        content: impl Read,
    ) -> io::Result<()> {
        let header = self.header(EntryType::Regular, attributes, size)?;
        self.append(header, path, ExactReader { inner: content, left: size })
    }

    pub(crate) fn symlink(&mut self, path: &Path, target: &Path, attributes: &Attributes) -> io::Result<()> {
        self.link(EntryType::Symlink, path, target, &Attributes { mode: 0o777, ..attributes.clone() })
    }

    pub(crate) fn hard_link(
        &mut self,
        path: &Path,
        target: &Path,
        attributes: &Attributes,
    ) -> io::Result<()> {
        self.link(EntryType::Link, path, target, attributes)
    }

    fn link(
        &mut self,
        kind: EntryType,
        path: &Path,
        target: &Path,
        attributes: &Attributes,
    ) -> io::Result<()> {
        self.entries += 1;
        let mut header = self.header(kind, &Attributes { xattrs: Vec::new(), ..attributes.clone() }, 0)?;
        self.tar.append_link(&mut header, path, target)
    }

    /// A device or a named pipe.
    pub(crate) fn special(
        &mut self,
        kind: EntryType,
        path: &Path,
        attributes: &Attributes,
        device: (u32, u32),
    ) -> io::Result<()> {
        let mut header = self.header(kind, attributes, 0)?;
        header.set_device_major(device.0)?;
        header.set_device_minor(device.1)?;
        self.append(header, path, io::empty())
    }

    /// Hides the name `path` of the layers below.
    pub(crate) fn whiteout(&mut self, path: &Path) -> io::Result<()> {
        let mut name = OsString::from(OsStr::from_bytes(WHITEOUT_PREFIX));
        name.push(path.file_name().unwrap_or_default());
        self.mark(&path.with_file_name(name))
    }

    /// Hides everything that the layers below have in the folder `path`.
    pub(crate) fn opaque(&mut self, path: &Path) -> io::Result<()> {
        self.mark(&path.join(OsStr::from_bytes(OPAQUE_MARK)))
    }

    fn mark(&mut self, path: &Path) -> io::Result<()> {
        let header = self.header(EntryType::Regular, &Attributes::default(), 0)?;
        self.append(header, path, io::empty())
    }

    fn header(&mut self, kind: EntryType, attributes: &Attributes, size: u64) -> io::Result<Header> {
        let records: Vec<(String, &[u8])> = attributes
            .xattrs
            .iter()
            .filter_map(|(name, value)| Some((format!("SCHILY.xattr.{}", name.to_str()?), value.as_slice())))
            .collect();
        if !records.is_empty() {
            self.tar.append_pax_extensions(records.iter().map(|(name, value)| (name.as_str(), *value)))?;
        }
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(attributes.mode & 0o7777);
        header.set_uid(attributes.uid);
        header.set_gid(attributes.gid);
        header.set_mtime(self.mtime);
        header.set_size(size);
        Ok(header)
    }

    fn append(&mut self, mut header: Header, path: &Path, content: impl Read) -> io::Result<()> {
        self.entries += 1;
        self.tar.append_data(&mut header, path, content)
    }

    /// The finished layer, or `None` if nothing was put into it.
    pub(crate) fn finish(self) -> Result<Option<Layer>> {
        if self.entries == 0 {
            return Ok(None);
        }
        let failed = ImageError::io("write a layer into", Path::new("the image store"));
        let finished = self.tar.into_inner().and_then(|hashed| {
            let (encoder, diff_id, _) = hashed.finish();
            Ok((encoder.finish()?, diff_id))
        });
        let (blob, diff_id) = finished.map_err(failed)?;
        let (digest, size) = blob.commit("layer", None)?;
        Ok(Some(Layer { digest, diff_id, size }))
    }
}

/// Gives exactly the promised number of bytes or an error: a file that changes while it is read must not shift the
/// entries behind it.
struct ExactReader<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for ExactReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 || buffer.is_empty() {
            return Ok(0);
        }
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let read = self.inner.read(&mut buffer[..most])?;
        if read == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the file became shorter while it was read",
            ));
        }
        self.left -= read as u64;
        Ok(read)
    }
}
