//! Caches of RUN: folders of the store that one command leaves to the next.

use super::super::blocking;
use super::run::{Content, Wanted, make_folder};
use crate::dockerfile::{RunMount, Sharing};
use crate::error::ImageError;
use crate::store::Scratch;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// Permission bits of a cache's folder where nobody says otherwise.
const MODE: u32 = 0o755;
/// How long a command waits for a cache that another one has alone: as long as a slow command may take.
const WAIT: Duration = Duration::from_secs(3_600);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The folders of the caches that a command has, and the locks on them for as long as this lives.
#[derive(Debug, Default)]
pub(super) struct Caches {
    /// By the number of their mount.
    folders: BTreeMap<usize, PathBuf>,
    locks: Vec<File>,
}

impl Caches {
    /// Takes the caches among what is wanted. One that nobody else may use at the same time is waited for; one that is
    /// private is another folder, in `scratch`, if it is in use.
    pub(super) async fn take(wanted: &[Wanted<'_>], scratch: &Scratch) -> Result<Caches, ImageError> {
        let of = |sharing: Option<Sharing>| {
            wanted.iter().enumerate().filter_map(move |(number, wanted)| match &wanted.content {
                Content::Cache(folder) if sharing.is_none_or(|sharing| wanted.mount.sharing == sharing) => {
                    Some((number, wanted.mount, folder.as_path()))
                }
                _ => None,
            })
        };
        let mut caches = Caches::default();
        for (number, mount, folder) in of(None) {
            let content = folder.join("data");
            if !content.exists() {
                make(content.clone(), mount).await?;
            }
            caches.folders.insert(number, content);
        }
        // In the same order for all commands and each one once, or two would wait for each other, or one for itself.
        let alone: BTreeSet<&Path> = of(Some(Sharing::Locked)).map(|(_, _, folder)| folder).collect();
        for folder in alone {
            caches.locks.push(lock(folder).await?);
        }
        for (number, mount, folder) in of(Some(Sharing::Private)) {
            let file = File::open(folder).map_err(ImageError::io("open", folder))?;
            if file.try_lock().is_ok() {
                caches.locks.push(file);
            } else {
                let own = scratch.path().join(format!("mount-{number}"));
                make(own.clone(), mount).await?;
                caches.folders.insert(number, own);
            }
        }
        Ok(caches)
    }

    /// That of the mount of this number.
    pub(super) fn folder(&self, number: usize) -> PathBuf {
        self.folders.get(&number).cloned().unwrap_or_default()
    }
}

async fn make(folder: PathBuf, mount: &RunMount) -> Result<(), ImageError> {
    let (mode, owner) = (mount.mode.unwrap_or(MODE), (mount.uid, mount.gid));
    blocking(move || make_folder(&folder, mode, owner)).await
}

async fn lock(folder: &Path) -> Result<File, ImageError> {
    let file = File::open(folder).map_err(ImageError::io("open", folder))?;
    let deadline = Instant::now() + WAIT;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                tokio::time::sleep(LOOK_EVERY).await;
            }
            Err(TryLockError::WouldBlock) => {
                return Err(ImageError::Locked { path: folder.to_owned(), seconds: WAIT.as_secs() });
            }
            Err(TryLockError::Error(error)) => return Err(ImageError::io("lock", folder)(error)),
        }
    }
}
