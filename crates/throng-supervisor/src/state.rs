//! What a project's supervisor must know after it was killed, beyond what the runtime knows of each replica.
//!
//! One small JSON file, replaced as a whole: written beside the old one, synced, renamed, so that power loss
//! leaves the old or the new one. Replicas are not in it; the runtime keeps a record for each.

use crate::backend::On;
use crate::inside::Addresses;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use throng_control::Rollout;
use throng_control::job::Progress;
use throng_model::app::App;
use throng_model::node::LinkChange;
use throng_model::replica::NetworkSpec;

pub const STATE_VERSION: u32 = 1;

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Durable {
    pub version: u32,
    /// What replicas run on; a state of before this could be chosen says nothing, and means the engine.
    #[serde(default)]
    pub on: On,
    pub app: App,
    /// By key of [`App::networks`].
    pub networks: BTreeMap<String, NetworkSpec>,
    /// Ports of the host that the kernel chose, by service and target port: whoever was told one can go on using it
    /// after this process has been replaced.
    #[serde(default)]
    pub chosen_ports: BTreeMap<String, BTreeMap<u16, u16>>,
    /// Where services are to be reached by name, by network and service. They stay until the app is down.
    #[serde(default)]
    pub service_addresses: Addresses,
    /// How often replicas of a service were to be replaced though nothing about them had changed.
    #[serde(default)]
    pub recreated: BTreeMap<String, u64>,
    /// Services on their way to another definition, and those whose last way there was taken back.
    #[serde(default)]
    pub rollouts: BTreeMap<String, Kept>,
    /// How far jobs are.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub jobs: BTreeMap<String, KeptJob>,
    /// What has been said about nodes since the definition.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub nodes: BTreeMap<String, NodeOverride>,
    /// Ordinals of replicas that somebody has stopped, by service.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub stopped: BTreeMap<String, BTreeSet<u32>>,
    /// Compose files that the app was read from.
    #[serde(default)]
    pub files: Vec<PathBuf>,
    pub going_down: bool,
}

/// Where a roll-out is. Images are known by their ids: what a name stands for may have changed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Kept {
    /// Tells replicas of the wanted definition.
    pub hash: String,
    pub image_id: String,
    pub rollout: Option<Rollout>,
    pub earlier: Option<Earlier>,
}

/// How far the job of one definition is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeptJob {
    pub hash: String,
    pub progress: Progress,
}

/// A definition that a service may go back to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Earlier {
    /// With the one service, and the volumes, configs and secrets of its time.
    pub app: App,
    pub image_id: String,
    pub hash: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeOverride {
    pub drained: bool,
    pub link: LinkChange,
}

#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("cannot {what} {path}: {source}")]
    Io { what: &'static str, path: String, source: std::io::Error },
    #[error("{path} is damaged: {source}")]
    Damaged { path: String, source: serde_json::Error },
    #[error("{path} was written by a newer throng (version {found}, this one knows {known})")]
    Newer { path: String, found: u32, known: u32 },
}

/// The stored state, or `None` if there is none.
pub fn load(path: &Path) -> Result<Option<Durable>, StateError> {
    read(path, STATE_VERSION)
}

/// A file with a `version`, which must not be above `known`; `None` if there is none.
pub fn read<T: DeserializeOwned>(path: &Path, known: u32) -> Result<Option<T>, StateError> {
    let shown = path.display().to_string();
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(StateError::Io { what: "read", path: shown, source }),
    };
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let damaged = |source| StateError::Damaged { path: shown.clone(), source };
    let Version { version } = serde_json::from_slice(&text).map_err(damaged)?;
    if version > known {
        return Err(StateError::Newer { path: shown, found: version, known });
    }
    serde_json::from_slice(&text).map(Some).map_err(damaged)
}

pub fn save(path: &Path, state: &Durable) -> Result<(), StateError> {
    write(path, state)?.commit()
}

/// A state that lies beside its place; dropped, it is gone.
#[must_use]
pub struct Written {
    temporary: Option<PathBuf>,
    path: PathBuf,
}

/// Writes a state, which only [`Written::commit`] makes the one that counts. Most of what can go wrong goes wrong here.
pub fn write(path: &Path, state: &impl Serialize) -> Result<Written, StateError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(io("create the folder of", path))?;
    let temporary = path.with_extension("json.new");
    let text = serde_json::to_vec(state)
        .map_err(|source| StateError::Damaged { path: path.display().to_string(), source })?;
    let written = Written { temporary: Some(temporary.clone()), path: path.into() };
    std::fs::write(&temporary, text).map_err(io("write", path))?;
    Ok(written)
}

impl Written {
    /// Waits for the disk, some milliseconds.
    pub fn commit(mut self) -> Result<(), StateError> {
        let Some(temporary) = &self.temporary else { return Ok(()) };
        let synced = std::fs::File::open(temporary).and_then(|file| file.sync_all());
        synced.and_then(|()| std::fs::rename(temporary, &self.path)).map_err(io("write", &self.path))?;
        self.temporary = None;
        let folder = self.path.parent().unwrap_or(Path::new("."));
        let synced = std::fs::File::open(folder).and_then(|folder| folder.sync_all());
        synced.map_err(io("sync the folder of", &self.path))
    }
}

impl Drop for Written {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // What is half written, on a full disk say, is of no use to anybody.
            let _ = std::fs::remove_file(temporary);
        }
    }
}

fn io(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> StateError {
    let path = path.display().to_string();
    move |source| StateError::Io { what, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_saved_is_loaded() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("p/state.json");
        assert!(load(&path).expect("no state is fine").is_none());
        let mut state = Durable { version: STATE_VERSION, ..Durable::default() };
        state.app.name = "shop".into();
        save(&path, &state).expect("saved");
        assert_eq!(load(&path).expect("loaded").expect("there").app.name, "shop");
        state.app.name = "other".into();
        let written = write(&path, &state).expect("written");
        assert_eq!(
            load(&path).expect("loaded").expect("there").app.name,
            "shop",
            "not before it is committed"
        );
        drop(written);
        let names = std::fs::read_dir(folder.path().join("p")).expect("listed");
        assert_eq!(names.map(|e| e.expect("entry").file_name()).collect::<Vec<_>>(), ["state.json"]);
    }

    #[test]
    fn a_cut_or_newer_file_is_named_not_guessed_at() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state.json");
        std::fs::write(&path, br#"{"version":1,"app":{"na"#).expect("written");
        assert!(matches!(load(&path), Err(StateError::Damaged { .. })));
        std::fs::write(&path, br#"{"version":99}"#).expect("written");
        assert!(matches!(load(&path), Err(StateError::Newer { found: 99, .. })));
    }
}
