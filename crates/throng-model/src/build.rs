//! How a service's image comes to be here: built, or fetched, and when again.

use crate::sandbox::Sandbox;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// How to build a service's image.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Build {
    /// Absolute path of the build context.
    pub context: PathBuf,
    /// Path of the Dockerfile, absolute.
    pub dockerfile: PathBuf,
    /// The Dockerfile's text itself; the path is not looked at then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inline: Option<String>,
    pub target: Option<String>,
    pub args: BTreeMap<String, String>,
    /// Further names of the image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Labels of the image beside those of the Dockerfile; these win.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Carry out every step again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_cache: bool,
    /// Ask the registry for the images that it begins with, even if they are here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pull: bool,
    /// What FROM, COPY --from and RUN --mount find by name beside stages and images.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub contexts: BTreeMap<String, BuildContext>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<BuildSecret>,
    /// What surrounds RUN: further hosts, limits, size of /dev/shm; nothing else of it is looked at.
    #[serde(default, skip_serializing_if = "Sandbox::is_default")]
    pub sandbox: Sandbox,
    /// RUN has no network.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub offline: bool,
}

/// A context beside the main one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BuildContext {
    /// A folder of the host, absolute.
    Folder(PathBuf),
    /// An image by its reference.
    Image(String),
    /// The image of another service, which is built before.
    Service(String),
}

/// A secret that RUN may ask for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildSecret {
    /// Key of [`crate::app::App::secrets`].
    pub source: String,
    /// What the Dockerfile calls it.
    pub id: String,
    /// Owner, group and permission bits where the Dockerfile names none.
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub mode: Option<u32>,
}

/// When an image is asked for at its registry.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PullPolicy {
    /// If it is not here: fetched, or built where there is something to build.
    #[default]
    Missing,
    Always,
    Never,
    /// Built each time.
    Build,
    /// If it is not here, or was asked for longer ago than this.
    Every(Duration),
}

impl PullPolicy {
    pub fn is_default(&self) -> bool {
        *self == PullPolicy::default()
    }
}
