//! The local store: content-addressed blobs, names, unpacked layers, build cache.
//!
//! ```text
//! throng-store            version of this layout
//! oci-layout, index.json  the names, as an OCI image layout that other tools can read
//! blobs/sha256/<hex>      manifests, configurations, compressed layers
//! l/<hex>, l/<hex>.json   an unpacked layer and what is known about it; short, because overlayfs takes all
//!                         lower folders of a mount in one option of at most a page
//! cache/<hex>             what a build step gave
//! pulled/<hex>            a name, dated when its registry was last asked for it
//! mounts/<hex>/data       what RUN --mount=type=cache finds again
//! tmp/<random>/           work in progress, locked by its owner; swept when the owner is gone
//! ```
//!
//! Invariants: a blob's name is the digest of its content; a name in the index has all of its blobs; everything
//! appears by rename after it was synced. Any number of processes may use one store: the index is changed under
//! `index.lock`, and blobs are collected only by who can take `use.lock` for itself alone.

mod blobs;
mod collect;
mod layers;
mod names;

pub(crate) use blobs::BlobWriter;
pub use collect::{Collected, Needed, Removed, Which};
pub(crate) use layers::decompress;
pub use layers::{LayerNotes, chain_ids};
pub(crate) use names::Entry;

use crate::config::{ConfigFile, ImageConfig};
use crate::error::{ImageError, Result};
use crate::limits::{self, Limits};
use oci_spec::image::ImageManifest;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const LAYOUT_VERSION: &str = "1";
/// Index changes take milliseconds and a collection seconds; who waits longer waits for a stopped process.
const LOCK_WAIT: Duration = Duration::from_secs(60);
const LOCK_POLL: Duration = Duration::from_millis(5);

/// The store under one folder. Cheap to clone; safe to use from several threads and processes.
#[derive(Debug, Clone)]
pub struct Store {
    root: Arc<Path>,
    limits: Limits,
}

/// An image whose blobs are all in the store.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// Canonical name: `docker.io/library/nginx:latest`; the id if it has none.
    pub reference: String,
    /// Digest of its configuration, `sha256:…`.
    pub id: String,
    pub manifest_digest: String,
    pub config: ImageConfig,
    /// Go's name for it: `amd64`, `arm64`.
    pub architecture: String,
    pub os: String,
    /// Bytes of its configuration and compressed layers.
    pub size: u64,
    /// RFC 3339.
    pub created: Option<String>,
    /// Digests of the uncompressed layers, bottom first.
    pub diff_ids: Vec<String>,
}

/// One line of a listing. An image with two names gives two lines.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ImageSummary {
    /// As people write it; `<none>` for an image without a name.
    pub repository: String,
    pub tag: String,
    pub id: String,
    /// Digest of the manifest.
    pub digest: String,
    pub created: Option<String>,
    pub size: u64,
}

/// Parsed manifest and configuration of one image.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    pub manifest: ImageManifest,
    pub config: ConfigFile,
}

/// Keeps blobs and layers from being collected while it lives.
#[derive(Debug)]
pub(crate) struct InUse(#[allow(dead_code, reason = "the open file is the lock")] File);

/// A private folder for work in progress; removed when dropped, or swept by a later process after a crash.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    #[allow(dead_code, reason = "the open folder is the lock that tells others that its owner lives")]
    lock: File,
}

impl Scratch {
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed now is swept when the store is opened next.
        let _ = remove_tree(&self.path);
    }
}

impl Store {
    /// Opens the store under `root` and creates it if it is missing. Work left by crashed processes is removed.
    pub fn open(root: &Path) -> Result<Store> {
        Store::open_with(root, Limits::default())
    }

    pub fn open_with(root: &Path, limits: Limits) -> Result<Store> {
        let root = std::path::absolute(root).map_err(ImageError::io("find", root))?;
        // 0700: layers may hold set-user-id programs that no other user of this machine should reach.
        for folder in ["", "blobs", "blobs/sha256", "l", "cache", "tmp"] {
            let path = root.join(folder);
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .map_err(ImageError::io("create", &path))?;
        }
        let store = Store { root: root.into(), limits };
        store.check_layout()?;
        store.sweep()?;
        Ok(store)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn limits(&self) -> Limits {
        self.limits
    }

    fn check_layout(&self) -> Result<()> {
        let marker = self.root.join("throng-store");
        match fs::read_to_string(&marker) {
            Ok(version) if version.trim() == LAYOUT_VERSION => Ok(()),
            Ok(version) => Err(ImageError::unsupported(
                format!("the image store {}", self.root.display()),
                format!(
                    "its layout has version {:?}, this program knows {LAYOUT_VERSION}; use a newer throng or another folder",
                    version.trim()
                ),
            )),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                self.write_atomic(&self.root.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
                self.write_atomic(&marker, LAYOUT_VERSION.as_bytes())
            }
            Err(error) => Err(ImageError::io("read", &marker)(error)),
        }
    }

    /// Reads an image by the digest of its manifest.
    pub(crate) fn image(&self, manifest_digest: &str, reference: Option<&str>) -> Result<Image> {
        let Parts { manifest, config } = self.parts(manifest_digest)?;
        let id = manifest.config().digest().to_string();
        let size = manifest.config().size() + manifest.layers().iter().map(|layer| layer.size()).sum::<u64>();
        Ok(Image {
            reference: reference.unwrap_or(&id).into(),
            manifest_digest: manifest_digest.into(),
            config: config.config,
            architecture: config.architecture,
            os: config.os,
            size,
            created: config.created,
            diff_ids: config.rootfs.diff_ids,
            id,
        })
    }

    pub(crate) fn parts(&self, manifest_digest: &str) -> Result<Parts> {
        let what = format!("manifest {manifest_digest}");
        let bytes = self.read_blob(manifest_digest, limits::MAX_MANIFEST_BYTES)?;
        let manifest: ImageManifest =
            serde_json::from_slice(&bytes).map_err(|error| ImageError::corrupt(&what, error))?;
        let config_digest = manifest.config().digest().to_string();
        let bytes = self.read_blob(&config_digest, limits::MAX_CONFIG_BYTES)?;
        let config = parse_config(&config_digest, &bytes, manifest.layers().len())?;
        Ok(Parts { manifest, config })
    }

    /// Replaces a file so that a crash leaves the old content or the new one.
    pub(crate) fn write_atomic(&self, path: &Path, content: &[u8]) -> Result<()> {
        let scratch = self.scratch()?;
        let temporary = scratch.path().join("file");
        let mut file = File::create(&temporary).map_err(ImageError::io("create", &temporary))?;
        file.write_all(content)
            .and_then(|()| file.sync_all())
            .map_err(ImageError::io("write", &temporary))?;
        self.publish(&temporary, path)
    }

    /// Renames a finished and synced file or folder to its place and syncs the folder that holds it.
    pub(crate) fn publish(&self, temporary: &Path, path: &Path) -> Result<()> {
        fs::rename(temporary, path).map_err(ImageError::io("rename a finished file to", path))?;
        if let Some(folder) = path.parent() {
            File::open(folder)
                .and_then(|folder| folder.sync_all())
                .map_err(ImageError::io("sync", folder))?;
        }
        Ok(())
    }

    pub(crate) fn scratch(&self) -> Result<Scratch> {
        let _sweep = self.lock("sweep.lock", LockKind::Shared)?;
        let folder = self.root.join("tmp");
        let path = tempfile::Builder::new()
            .prefix("w")
            .tempdir_in(&folder)
            .map_err(ImageError::io("create a folder in", &folder))?
            .keep();
        let lock = File::open(&path).and_then(|lock| lock.lock().map(|()| lock));
        Ok(Scratch { lock: lock.map_err(ImageError::io("lock", &path))?, path })
    }

    /// Removes work in progress whose owner is gone: nobody holds the lock on its folder.
    fn sweep(&self) -> Result<()> {
        let _sweep = self.lock("sweep.lock", LockKind::Exclusive)?;
        let folder = self.root.join("tmp");
        for entry in fs::read_dir(&folder).map_err(ImageError::io("read", &folder))? {
            let path = entry.map_err(ImageError::io("read", &folder))?.path();
            // An owner may remove its folder at any moment.
            let Ok(lock) = File::open(&path) else { continue };
            if lock.try_lock().is_ok() {
                let _ = remove_tree(&path);
            }
        }
        Ok(())
    }

    pub(crate) fn lock_index(&self) -> Result<File> {
        self.lock("index.lock", LockKind::Exclusive)
    }

    /// Held by everything that adds blobs or reads them one after another.
    pub(crate) fn in_use(&self) -> Result<InUse> {
        self.lock("use.lock", LockKind::Shared).map(InUse)
    }

    fn lock(&self, name: &str, kind: LockKind) -> Result<File> {
        self.lock_within(name, kind, LOCK_WAIT)?
            .ok_or_else(|| ImageError::Locked { path: self.root.join(name), seconds: LOCK_WAIT.as_secs() })
    }

    /// `None` if somebody else holds the lock all the while.
    fn lock_within(&self, name: &str, kind: LockKind, wait: Duration) -> Result<Option<File>> {
        let deadline = Instant::now() + wait;
        loop {
            let file = self.try_lock(name, kind)?;
            if file.is_some() || Instant::now() > deadline {
                return Ok(file);
            }
            std::thread::sleep(LOCK_POLL);
        }
    }

    fn try_lock(&self, name: &str, kind: LockKind) -> Result<Option<File>> {
        let path = self.root.join(name);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(ImageError::io("open", &path))?;
        let outcome = match kind {
            LockKind::Shared => file.try_lock_shared(),
            LockKind::Exclusive => file.try_lock(),
        };
        match outcome {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(ImageError::io("lock", &path)(error)),
        }
    }
}

#[derive(Clone, Copy)]
enum LockKind {
    Shared,
    Exclusive,
}

pub(crate) fn parse_config(digest: &str, bytes: &[u8], layers: usize) -> Result<ConfigFile> {
    let what = format!("configuration {digest}");
    let config: ConfigFile =
        serde_json::from_slice(bytes).map_err(|error| ImageError::corrupt(&what, error))?;
    let diff_ids = config.rootfs.diff_ids.len();
    limits::check_layer_count(&what, diff_ids)?;
    if diff_ids != layers {
        return Err(ImageError::corrupt(&what, format!("it lists {diff_ids} layers, the manifest {layers}")));
    }
    for diff_id in &config.rootfs.diff_ids {
        crate::digest::hex_of(diff_id)?;
    }
    Ok(config)
}

/// Removes a tree also when it holds folders that their owner may not write to.
pub(crate) fn remove_tree(path: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            open_folders(path)?;
            fs::remove_dir_all(path)
        }
        outcome => outcome,
    }
}

fn open_folders(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            open_folders(&entry.path())?;
        }
    }
    Ok(())
}
