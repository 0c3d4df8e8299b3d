//! Changing settings, and putting them back.
//!
//! What is about to change is written down first, so that whatever happens in between can be undone. Undoing puts back
//! only what still has the value that was set here: what somebody has changed since is theirs. A restart of the host
//! has undone everything already.

use crate::host::setting_path;
use crate::predict::Report;
use crate::remedy::Change;
use serde::{Deserialize, Serialize};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Name of the record in the state folder.
pub const RECORD: &str = "doctor.json";
const VERSION: u32 = 1;

#[derive(Debug, thiserror::Error)]
pub enum FixError {
    #[error("cannot write {setting}: {source}")]
    Setting { setting: String, source: io::Error },
    #[error("cannot write {}: {source}", path.display())]
    Record { path: PathBuf, source: io::Error },
    #[error("{} is damaged: {reason}", path.display())]
    Damaged { path: PathBuf, reason: String },
}

impl FixError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            FixError::Setting { .. } => {
                "root of the host itself must do it; `throng doctor --undo` puts back what was changed before"
                    .into()
            }
            FixError::Record { .. } => "nothing was changed; the folder must be writable".into(),
            FixError::Damaged { path, .. } => {
                format!("set the values in it by hand with `sysctl -w`, then remove {}", path.display())
            }
        }
    }
}

/// What was changed since the host started.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Record {
    version: u32,
    /// Which life of the host it belongs to (`/proc/sys/kernel/random/boot_id`).
    boot: String,
    changes: Vec<Change>,
}

/// How undoing one change went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Undone {
    PutBack,
    /// Somebody has set it to this since.
    ChangedSince(u64),
    /// The setting is no longer there: its module was unloaded.
    Gone,
}

/// Changes settings below `root` and remembers them in `folder`.
#[derive(Debug, Clone)]
pub struct Fixer {
    root: PathBuf,
    folder: PathBuf,
}

/// What may be changed without asking further: settings whose remedy is safe, of walls that are in the way.
pub fn safe_changes(report: &Report) -> Vec<Change> {
    let in_the_way = report.findings.iter().filter(|finding| finding.state == crate::State::InTheWay);
    let remedies = in_the_way.filter_map(|finding| finding.remedy.as_ref()).filter(|remedy| remedy.safe);
    remedies.flat_map(|remedy| remedy.changes.clone()).collect()
}

impl Fixer {
    /// `root` is `/`; `folder` is the state folder, which must exist.
    pub fn new(root: impl Into<PathBuf>, folder: impl Into<PathBuf>) -> Fixer {
        Fixer { root: root.into(), folder: folder.into() }
    }

    pub fn record_path(&self) -> PathBuf {
        self.folder.join(RECORD)
    }

    /// Carries the changes out; those before one that fails stay, and can be undone.
    pub fn apply(&self, changes: &[Change]) -> Result<(), FixError> {
        let mut record = self.load()?;
        for change in changes {
            match record.changes.iter_mut().find(|earlier| earlier.setting == change.setting) {
                // The first value is the one to go back to.
                Some(earlier) if earlier.to == change.from => earlier.to = change.to,
                Some(earlier) => *earlier = change.clone(),
                None => record.changes.push(change.clone()),
            }
        }
        self.store(&record)?;
        changes.iter().try_for_each(|change| self.write(&change.setting, change.to))
    }

    /// Puts back what was changed and forgets it.
    pub fn undo(&self) -> Result<Vec<(Change, Undone)>, FixError> {
        let record = self.load()?;
        let mut outcomes = Vec::new();
        // Backwards, for settings that limit each other.
        for change in record.changes.into_iter().rev() {
            let outcome = match self.read(&change.setting) {
                None => Undone::Gone,
                // The change itself had failed.
                Some(now) if now == change.from => Undone::PutBack,
                Some(now) if now != change.to => Undone::ChangedSince(now),
                Some(_) => {
                    self.write(&change.setting, change.from)?;
                    Undone::PutBack
                }
            };
            outcomes.push((change, outcome));
        }
        match std::fs::remove_file(self.record_path()) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(FixError::Record { path: self.record_path(), source })
            }
            _ => Ok(outcomes),
        }
    }

    fn read(&self, setting: &str) -> Option<u64> {
        std::fs::read_to_string(setting_path(&self.root, setting)).ok()?.trim().parse().ok()
    }

    fn write(&self, setting: &str, value: u64) -> Result<(), FixError> {
        let failed = |source| FixError::Setting { setting: setting.to_owned(), source };
        // Never made: a setting that is not there cannot be set.
        let path = setting_path(&self.root, setting);
        let mut file = std::fs::OpenOptions::new().write(true).truncate(true).open(path).map_err(failed)?;
        file.write_all(value.to_string().as_bytes()).map_err(failed)
    }

    fn boot(&self) -> String {
        let id = std::fs::read_to_string(setting_path(&self.root, "kernel.random.boot_id"));
        id.unwrap_or_default().trim().to_owned()
    }

    /// The record of this life of the host; empty if there is none.
    fn load(&self) -> Result<Record, FixError> {
        let path = self.record_path();
        let fresh = || Record { version: VERSION, boot: self.boot(), changes: vec![] };
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(fresh()),
            Err(source) => return Err(FixError::Record { path, source }),
        };
        let damaged = |reason: String| FixError::Damaged { path: path.clone(), reason };
        let record: Record = serde_json::from_str(&text).map_err(|error| damaged(error.to_string()))?;
        if record.version != VERSION {
            return Err(damaged(format!("it has version {}, not {VERSION}", record.version)));
        }
        // Names become paths.
        let known = |change: &Change| crate::host::SETTINGS.contains(&change.setting.as_str());
        if let Some(change) = record.changes.iter().find(|change| !known(change)) {
            return Err(damaged(format!("{:?} is no setting of throng's", change.setting)));
        }
        Ok(if record.boot == self.boot() { record } else { fresh() })
    }

    fn store(&self, record: &Record) -> Result<(), FixError> {
        let path = self.record_path();
        let failed = |source| FixError::Record { path: path.clone(), source };
        let text = serde_json::to_string_pretty(record).map_err(|error| failed(error.into()))?;
        replace(&self.folder, &path, &text).map_err(failed)
    }
}

/// A reader, or the next start after a crash, sees the old file or the new one, never a part.
fn replace(folder: &Path, path: &Path, text: &str) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = std::fs::File::create(&fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(fresh, path)?;
    std::fs::File::open(folder)?.sync_all()
}
