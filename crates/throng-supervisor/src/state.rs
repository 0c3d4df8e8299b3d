//! What a project's supervisor must know after it was killed, beyond what the runtime knows of each replica.
//!
//! One small JSON file, replaced as a whole: written beside the old one, synced, renamed, so that power loss
//! leaves the old or the new one. Replicas are not in it; the runtime keeps a record for each.

use crate::backend::On;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use throng_model::app::App;
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
    pub going_down: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum StateError {
    #[error("cannot {what} {path}: {source}")]
    Io { what: &'static str, path: String, source: std::io::Error },
    #[error("{path} is damaged: {source}")]
    Damaged { path: String, source: serde_json::Error },
    #[error("{path} was written by a newer throng (state version {found}, this one knows {STATE_VERSION})")]
    Newer { path: String, found: u32 },
}

/// The stored state, or `None` if there is none.
pub fn load(path: &Path) -> Result<Option<Durable>, StateError> {
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
    if version > STATE_VERSION {
        return Err(StateError::Newer { path: shown, found: version });
    }
    serde_json::from_slice(&text).map(Some).map_err(damaged)
}

pub fn save(path: &Path, state: &Durable) -> Result<(), StateError> {
    let io = |what| move |source| StateError::Io { what, path: path.display().to_string(), source };
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(io("create the folder of"))?;
    let temporary = path.with_extension("json.new");
    let text = serde_json::to_vec(state)
        .map_err(|source| StateError::Damaged { path: path.display().to_string(), source })?;
    let written = std::fs::File::create(&temporary)
        .and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()));
    written.and_then(|()| std::fs::rename(&temporary, path)).map_err(|error| {
        // What is half written, on a full disk say, is of no use to anybody.
        let _ = std::fs::remove_file(&temporary);
        io("write")(error)
    })?;
    std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(io("sync the folder of"))
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
