//! What a new supervisor is to know of single replicas, beside what the runtime's records say, so that none is better off
//! for a supervisor that died: how often it has been started again, and what it was given.
//!
//! It is written at most once a second and lags behind by as much; nothing depends on the last of it.

use crate::state::{self, StateError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use throng_autoscale::vertical::Vertical;
use throng_control::restart::Tries;
use throng_model::app::Resources;

pub const LIVES_VERSION: u32 = 1;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Lives {
    pub version: u32,
    /// By service and ordinal; those of which there is nothing to say are left out.
    pub replicas: BTreeMap<String, BTreeMap<u32, Life>>,
    /// What the replicas of services use, for recommendations.
    #[serde(default)]
    pub recommenders: BTreeMap<String, Vertical>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Life {
    /// As in [`Tries`].
    streak: u32,
    attempts: u32,
    pub restarts: u32,
    /// What it was given instead of what the definition says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given: Option<Resources>,
}

impl Life {
    pub fn new(tries: Tries, restarts: u32, given: Option<Resources>) -> Life {
        Life { streak: tries.streak, attempts: tries.attempts, restarts, given }
    }

    pub fn tries(&self) -> Tries {
        Tries { streak: self.streak, attempts: self.attempts }
    }
}

/// What was kept, or nothing where there is none.
pub fn load(path: &Path) -> Result<Lives, StateError> {
    Ok(state::read(path, LIVES_VERSION)?.unwrap_or_default())
}

/// Blocks until the disk has it.
pub fn save(path: &Path, lives: &Lives) -> Result<(), StateError> {
    state::write(path, lives)?.commit()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_known_again_and_other_versions_are_not_guessed_at() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("replicas.json");
        assert_eq!(load(&path).expect("none is fine"), Lives::default());
        let tries = Tries { streak: 3, attempts: 5 };
        let given = Resources { cpus: Some(0.5), ..Resources::default() };
        let life = Life::new(tries, 9, Some(given));
        let lives = Lives {
            version: LIVES_VERSION,
            replicas: BTreeMap::from([("web".into(), BTreeMap::from([(2, life)]))]),
            recommenders: BTreeMap::from([("web".into(), Vertical::default())]),
        };
        save(&path, &lives).expect("saved");
        let again = load(&path).expect("loaded");
        assert_eq!(again, lives);
        assert_eq!(again.replicas["web"][&2].tries(), tries);
        std::fs::write(&path, br#"{"version":2}"#).expect("written");
        assert!(matches!(load(&path), Err(StateError::Newer { found: 2, known: 1, .. })));
        std::fs::write(&path, br#"{"version":1,"repl"#).expect("written");
        assert!(matches!(load(&path), Err(StateError::Damaged { .. })));
    }
}
