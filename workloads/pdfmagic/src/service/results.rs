//! Where a PDF goes: into the answer, or into a folder that a redirect points to.
//!
//! A folder holds `<uuid>.pdf` files, each complete (written under a name that begins with a dot, then renamed), and
//! the oldest are removed beyond the number to keep. Folders may be shared by any number of replicas.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};
use uuid::Uuid;

/// A folder is looked through for results to remove after every sixteenth part of the number to keep, so it holds that
/// much more than asked, for each replica that writes to it.
const SLACK: usize = 16;

/// A half-written file of this age belongs to a replica that is gone.
const ABANDONED: Duration = Duration::from_secs(600);

/// Where PDFs go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResultsMode {
    /// The PDF is the answer; nothing is kept.
    Stateless,
    /// The replica's own folder: only it can answer for what is there.
    Local(PathBuf),
    /// A folder that every replica has.
    Shared(PathBuf),
}

#[derive(Debug, thiserror::Error)]
#[error("{0:?} is none of stateless, local, local=DIR and shared=DIR")]
pub struct ParseResultsModeError(String);

impl FromStr for ResultsMode {
    type Err = ParseResultsModeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            None if text == "stateless" => Ok(ResultsMode::Stateless),
            None if text == "local" => Ok(ResultsMode::Local(std::env::temp_dir().join("pdfmagic"))),
            Some(("local", folder)) if !folder.is_empty() => Ok(ResultsMode::Local(folder.into())),
            Some(("shared", folder)) if !folder.is_empty() => Ok(ResultsMode::Shared(folder.into())),
            _ => Err(ParseResultsModeError(text.to_owned())),
        }
    }
}

impl ResultsMode {
    pub fn folder(&self) -> Option<&Path> {
        match self {
            ResultsMode::Stateless => None,
            ResultsMode::Local(folder) | ResultsMode::Shared(folder) => Some(folder),
        }
    }
}

/// Results in a folder. All calls block on the disk.
pub struct Store {
    folder: PathBuf,
    keep: usize,
    /// Results written since the folder was last looked through.
    since_pruning: Mutex<usize>,
}

impl Store {
    /// Makes the folder and proves that it can be written to, so that a wrong mount fails at the start and not in
    /// front of the first client.
    pub fn open(folder: &Path, keep: usize) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let probe = folder.join(format!(".{}.part", Uuid::new_v4()));
        fs::write(&probe, b"")?;
        fs::remove_file(&probe)?;
        let store = Store { folder: folder.to_owned(), keep, since_pruning: Mutex::new(0) };
        store.prune()?;
        Ok(store)
    }

    /// Keeps a PDF under a random name.
    pub fn put(&self, pdf: &[u8]) -> io::Result<Uuid> {
        let id = Uuid::new_v4();
        let temporary = self.folder.join(format!(".{id}.part"));
        let written = fs::write(&temporary, pdf).and_then(|()| fs::rename(&temporary, self.path(id)));
        if let Err(error) = written {
            // The first error is the one to report; a leftover is removed as abandoned later on.
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        if self.pruning_is_due() {
            self.prune()?;
        }
        Ok(id)
    }

    /// The PDF of that name, if this folder has it.
    pub fn get(&self, id: Uuid) -> io::Result<Option<Vec<u8>>> {
        match fs::read(self.path(id)) {
            Ok(pdf) => Ok(Some(pdf)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn path(&self, id: Uuid) -> PathBuf {
        self.folder.join(format!("{id}.pdf"))
    }

    fn pruning_is_due(&self) -> bool {
        let mut since = self.since_pruning.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        *since += 1;
        let due = *since > self.keep / SLACK;
        if due {
            *since = 0;
        }
        due
    }

    /// Removes the oldest results beyond those to keep, and abandoned halves. Another replica may do the same at the
    /// same time: a file that is gone already is as good as removed.
    fn prune(&self) -> io::Result<()> {
        let mut results = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let modified =
                || entry.metadata().and_then(|found| found.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
            if parse_name(name).is_some() {
                results.push((modified(), entry.path()));
            } else if is_half(name) && modified().elapsed().is_ok_and(|age| age > ABANDONED) {
                remove(&entry.path())?;
            }
        }
        let surplus = results.len().saturating_sub(self.keep);
        if surplus > 0 {
            results.sort();
            results[..surplus].iter().try_for_each(|(_, path)| remove(path))?;
        }
        Ok(())
    }
}

/// The id in `<uuid>.pdf`, as it is written by [`Store::put`] and no other way.
pub fn parse_name(name: &str) -> Option<Uuid> {
    let stem = name.strip_suffix(".pdf")?;
    let id = Uuid::try_parse(stem).ok()?;
    (id.hyphenated().to_string() == stem).then_some(id)
}

fn is_half(name: &str) -> bool {
    name.strip_prefix('.')
        .and_then(|name| name.strip_suffix(".part"))
        .is_some_and(|id| Uuid::try_parse(id).is_ok())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread::sleep;

    #[test]
    fn modes_are_parsed() {
        assert_eq!("stateless".parse::<ResultsMode>().unwrap(), ResultsMode::Stateless);
        assert_eq!("shared=/r".parse::<ResultsMode>().unwrap(), ResultsMode::Shared("/r".into()));
        assert_eq!("local=/r".parse::<ResultsMode>().unwrap(), ResultsMode::Local("/r".into()));
        assert!(matches!("local".parse(), Ok(ResultsMode::Local(_))));
        for text in ["", "shared", "shared=", "local=", "stateless=/r", "disk"] {
            assert!(text.parse::<ResultsMode>().is_err(), "{text}");
        }
    }

    #[test]
    fn only_our_own_names_are_names() {
        let id = Uuid::new_v4();
        assert_eq!(parse_name(&format!("{id}.pdf")), Some(id));
        for name in
            ["", ".pdf", "../../etc/passwd", "..%2f.pdf", &id.to_string(), &format!("{}.pdf", id.simple())]
        {
            assert_eq!(parse_name(name), None, "{name}");
        }
    }

    #[test]
    fn the_oldest_results_go_first_and_strangers_stay() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("notes.txt"), "mine").unwrap();
        let half = folder.path().join(format!(".{}.part", Uuid::new_v4()));
        fs::write(&half, "").unwrap();
        let store = Store::open(folder.path(), 3).unwrap();
        let ids: Vec<Uuid> = (0..5_u8)
            .map(|n| {
                // Two results of one clock tick have no order.
                sleep(Duration::from_millis(15));
                store.put(&[n]).unwrap()
            })
            .collect();
        let kept: Vec<Option<Vec<u8>>> = ids.iter().map(|id| store.get(*id).unwrap()).collect();
        assert_eq!(kept, [None, None, Some(vec![2]), Some(vec![3]), Some(vec![4])]);
        assert!(folder.path().join("notes.txt").exists());
        assert!(half.exists(), "another replica may be writing it right now");
        let old = SystemTime::now() - 2 * ABANDONED;
        fs::File::options().write(true).open(&half).unwrap().set_modified(old).unwrap();
        store.put(&[9]).unwrap();
        assert!(!half.exists());
    }

    #[test]
    fn more_than_asked_is_kept_only_by_a_sixteenth() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), 32).unwrap();
        for _ in 0..100 {
            store.put(b"x").unwrap();
            assert!(fs::read_dir(folder.path()).unwrap().count() <= 32 + 2 + 1);
        }
    }
}
