//! Blobs: files named by the digest of their content.

use super::{Scratch, Store};
use crate::digest::{self, HashReader, HashWriter, hex_of};
use crate::error::{ImageError, Result};
use crate::limits::check_size;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::PathBuf;

/// A blob being written. Dropped before `commit`, it leaves nothing.
pub(crate) struct BlobWriter {
    store: Store,
    scratch: Scratch,
    out: HashWriter<BufWriter<File>>,
}

impl BlobWriter {
    /// Names the blob by its content. `expected` is the digest that somebody promised for `what`.
    pub(crate) fn commit(self, what: &str, expected: Option<&str>) -> Result<(String, u64)> {
        let temporary = self.scratch.path().join("blob");
        let (out, actual, size) = self.out.finish();
        if let Some(expected) = expected
            && expected != actual
        {
            return Err(ImageError::DigestMismatch { what: what.into(), expected: expected.into(), actual });
        }
        out.into_inner()
            .map_err(io::IntoInnerError::into_error)
            .and_then(|file| file.sync_all())
            .map_err(ImageError::io("write", &temporary))?;
        self.store.publish(&temporary, &self.store.blob_path(&actual)?)?;
        Ok((actual, size))
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Store {
    pub(crate) fn blob_path(&self, digest: &str) -> Result<PathBuf> {
        Ok(self.root().join("blobs/sha256").join(hex_of(digest)?))
    }

    /// True if the blob is there. Its content was checked when it was written.
    pub(crate) fn has_blob(&self, digest: &str) -> Result<bool> {
        let path = self.blob_path(digest)?;
        path.try_exists().map_err(ImageError::io("look for", &path))
    }

    pub(crate) fn open_blob(&self, digest: &str) -> Result<File> {
        let path = self.blob_path(digest)?;
        File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ImageError::corrupt(
                format!("the image store {}", self.root().display()),
                format!("blob {digest} is missing"),
            ),
            _ => ImageError::io("open", &path)(error),
        })
    }

    /// A small blob, checked against its digest again: a damaged manifest must not choose what runs.
    pub(crate) fn read_blob(&self, digest: &str, limit: u64) -> Result<Vec<u8>> {
        let path = self.blob_path(digest)?;
        let file = self.open_blob(digest)?;
        let size = file.metadata().map_err(ImageError::io("read", &path))?.len();
        check_size(&format!("blob {digest}"), size, limit)?;
        let mut bytes = Vec::with_capacity(size as usize);
        file.take(limit).read_to_end(&mut bytes).map_err(ImageError::io("read", &path))?;
        let actual = digest::of_bytes(&bytes);
        if actual != digest {
            self.drop_damaged(digest);
            return Err(ImageError::DigestMismatch {
                what: format!("blob {}", path.display()),
                expected: digest.into(),
                actual,
            });
        }
        Ok(bytes)
    }

    /// Removes a blob that is not what its name says. While it was there, nobody would make or fetch it anew: who builds
    /// or pulls takes what has that name for the thing itself.
    pub(crate) fn drop_damaged(&self, digest: &str) {
        let drop = || -> Result<()> {
            let path = self.blob_path(digest)?;
            let mut content = HashReader::new(self.open_blob(digest)?);
            io::copy(&mut content, &mut io::sink()).map_err(ImageError::io("read", &path))?;
            if content.finish() != digest {
                fs::remove_file(&path).map_err(ImageError::io("remove", &path))?;
            }
            Ok(())
        };
        // Whoever calls this has an error to tell already, and this one is about the same file.
        let _ = drop();
    }

    pub(crate) fn blob_writer(&self) -> Result<BlobWriter> {
        let scratch = self.scratch()?;
        let path = scratch.path().join("blob");
        let file = File::create(&path).map_err(ImageError::io("create", &path))?;
        Ok(BlobWriter {
            store: self.clone(),
            scratch,
            out: HashWriter::new(BufWriter::with_capacity(1 << 17, file)),
        })
    }

    /// Writes a small blob unless it is there and returns its digest.
    pub(crate) fn put_blob(&self, bytes: &[u8]) -> Result<String> {
        let digest = digest::of_bytes(bytes);
        if self.has_blob(&digest)? {
            return Ok(digest);
        }
        let mut writer = self.blob_writer()?;
        writer.write_all(bytes).map_err(ImageError::io("write", self.root()))?;
        writer.commit("blob", Some(&digest)).map(|(digest, _)| digest)
    }

    /// Every blob's digest with its size in bytes.
    pub(crate) fn all_blobs(&self) -> Result<Vec<String>> {
        let folder = self.root().join("blobs/sha256");
        let mut digests = Vec::new();
        for entry in fs::read_dir(&folder).map_err(ImageError::io("read", &folder))? {
            let name = entry.map_err(ImageError::io("read", &folder))?.file_name();
            digests.push(format!("sha256:{}", name.to_string_lossy()));
        }
        Ok(digests)
    }
}
