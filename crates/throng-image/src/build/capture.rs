//! The writable folder of a RUN step to a layer: overlayfs's marks become those of the OCI image specification.

use super::cache::KeyBuilder;
use crate::error::{ImageError, Result};
use crate::layer::{Attributes, Layer, LayerWriter};
use crate::store::Store;
use crate::view::{self, LayerView};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use tar::EntryType;

/// Everything that a RUN step's layer depends on. `further` says what surrounds it, if that is not as usual.
pub(super) fn run_key(
    chain: Option<&String>,
    process: &throng_model::replica::Process,
    mtime: u64,
    further: &[String],
) -> super::cache::CacheKey {
    let mut key = KeyBuilder::new("run 1", chain, mtime);
    key.list(&process.args);
    key.list(&process.env);
    key.part(&process.cwd);
    key.part(&process.user);
    if !further.is_empty() {
        key.list(further);
    }
    key.finish()
}

/// Writes all that changed in `upper` against `base` as a layer; `None` if nothing did.
pub(super) fn capture(store: &Store, upper: &Path, base: &LayerView, mtime: u64) -> Result<Option<Layer>> {
    let mut capture =
        Capture { writer: LayerWriter::new(store, mtime)?, upper, base, inodes: HashMap::new() };
    capture.folder(Path::new(""))?;
    capture.writer.finish()
}

struct Capture<'a> {
    writer: LayerWriter,
    upper: &'a Path,
    base: &'a LayerView,
    /// The first name of each file that has several.
    inodes: HashMap<(u64, u64), PathBuf>,
}

impl Capture<'_> {
    fn folder(&mut self, relative: &Path) -> Result<()> {
        let host = self.upper.join(relative);
        let failed = || ImageError::io("read", &host);
        let mut names = Vec::new();
        for entry in fs::read_dir(&host).map_err(failed())? {
            names.push(entry.map_err(failed())?.file_name());
        }
        names.sort();
        for name in names {
            self.entry(&relative.join(name))?;
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path) -> Result<()> {
        let host = self.upper.join(path);
        let failed = || ImageError::io("copy into a layer", &host);
        let metadata = fs::symlink_metadata(&host).map_err(failed())?;
        if view::is_whiteout(&metadata) {
            return self.writer.whiteout(path).map_err(failed());
        }
        let attributes = attributes(&host, &metadata)?;
        if metadata.is_dir() {
            self.writer.folder(path, &attributes).map_err(failed())?;
            // The kernel also marks new folders as opaque; the mark only means something over an older folder.
            let hides = view::is_opaque(&host) && self.base.lookup(path).map_err(failed())?.is_some();
            if hides {
                self.writer.opaque(path).map_err(failed())?;
            }
            return self.folder(path);
        }
        if metadata.nlink() > 1 {
            let inode = (metadata.dev(), metadata.ino());
            if let Some(first) = self.inodes.get(&inode) {
                return self.writer.hard_link(path, first, &attributes).map_err(failed());
            }
            self.inodes.insert(inode, path.into());
        }
        self.plain(path, &host, &metadata, &attributes)
    }

    fn plain(
        &mut self,
        path: &Path,
        host: &Path,
        metadata: &Metadata,
        attributes: &Attributes,
    ) -> Result<()> {
        let kind = metadata.file_type();
        let device = (rustix::fs::major(metadata.rdev()), rustix::fs::minor(metadata.rdev()));
        let outcome = if kind.is_file() {
            File::open(host).and_then(|file| self.writer.file(path, attributes, metadata.len(), file))
        } else if kind.is_symlink() {
            fs::read_link(host).and_then(|target| self.writer.symlink(path, &target, attributes))
        } else if kind.is_fifo() {
            self.writer.special(EntryType::Fifo, path, attributes, (0, 0))
        } else if kind.is_char_device() {
            self.writer.special(EntryType::Char, path, attributes, device)
        } else if kind.is_block_device() {
            self.writer.special(EntryType::Block, path, attributes, device)
        } else {
            // A socket is nothing without the process that listened on it.
            Ok(())
        };
        outcome.map_err(ImageError::io("copy into a layer", host))
    }
}

fn attributes(host: &Path, metadata: &Metadata) -> Result<Attributes> {
    let mut xattrs = Vec::new();
    for (name, value) in view::xattrs(host).map_err(ImageError::io("read attributes of", host))? {
        let text = name.to_string_lossy();
        let overlay = text.strip_prefix("trusted.overlay.").or_else(|| text.strip_prefix("user.overlay."));
        match overlay {
            Some("redirect" | "metacopy") => {
                return Err(ImageError::unsupported(
                    format!("{} in a build step's result", host.display()),
                    "it refers to another layer; mount with redirect_dir=off,metacopy=off",
                ));
            }
            Some(_) => {}
            None if name != OsStr::new("security.selinux") => xattrs.push((name, value)),
            None => {}
        }
    }
    let (uid, gid) = (inside(metadata.uid(), own_uid()), inside(metadata.gid(), own_gid()));
    Ok(Attributes { mode: metadata.mode(), uid, gid, xattrs })
}

/// Who runs this is root inside the user namespace that it makes.
fn inside(id: u32, own: u32) -> u64 {
    if id == own { 0 } else { id.into() }
}

fn own_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn own_gid() -> u32 {
    rustix::process::getegid().as_raw()
}
