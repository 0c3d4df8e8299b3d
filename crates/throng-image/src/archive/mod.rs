//! Images in tar archives: what `docker save` writes (docker-archive) and OCI image layouts.

mod load;
mod save;

use serde::{Deserialize, Serialize};

/// Files and folders in one archive.
const MAX_ENTRIES: usize = 10_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveFormat {
    /// `manifest.json`, configurations and uncompressed layers; every Docker loads it.
    Docker,
    /// An OCI image layout; digests stay as they are.
    Oci,
}

/// One image of a docker-archive's `manifest.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Where containerd and Docker keep an image's whole name in an OCI layout.
const CONTAINERD_NAME: &str = "io.containerd.image.name";
