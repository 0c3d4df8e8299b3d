//! A replica's output as plain files, brought from the daemon when somebody looks.
//!
//! The container writes to the daemon, which keeps it as JSON within the limits of the replica's policy and goes on
//! doing so when no supervisor lives. Nothing is copied until somebody asks for the files; from then on each question
//! adds what has come since. How far it got is kept as the second before the last line and the number of lines since
//! then, because the daemon can only be asked from a second on. A crash between lines and this mark shows some twice.
//! Of a replica that writes more than the policy keeps between two questions, the part between is not kept.

use crate::docker::Core;
use crate::errors::{chain, daemon, host};
use crate::replica::Replica;
use bollard::container::LogOutput;
use bollard::query_parameters::{InspectContainerOptions, LogsOptionsBuilder};
use futures_util::{StreamExt, pin_mut};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use throng_model::replica::LogPolicy;
use throng_runtime::Result;
use throng_runtime::backends::LOG;

const MARK: &str = "mark.json";

/// How far the daemon's log has been read.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Mark {
    /// Second of Unix time.
    since: i64,
    /// Pieces of that second and later that have been written.
    seen: usize,
    /// Length and number of the daemon's file then, if it could be looked at: as long as both stay, nothing is new.
    file: Option<(u64, u64)>,
}

/// Whether anybody has asked for this replica's log.
pub fn is_looked_at(replica: &Replica) -> bool {
    replica.folder.join(LOG).exists()
}

/// The daemon's log begins anew, with a new container; what was brought of the old one stays.
pub fn begin_anew(folder: &Path) -> Result<()> {
    match fs::remove_file(folder.join(MARK)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(host(format_args!("cannot write to {}", folder.display()), error))
        }
        _ => Ok(()),
    }
}

impl Core {
    /// Adds to the replica's files what the daemon has got since the last time.
    pub async fn bring_log(&self, replica: &Replica) -> Result<()> {
        let _one = replica.log.lock().await;
        let Ok(container) = replica.container() else { return Ok(()) };
        let what = || format!("cannot read the log of {}", replica.id);
        let policy = replica.inner().spec.as_ref().map(|spec| spec.log).unwrap_or_default();
        let mark: Mark = fs::read(replica.folder.join(MARK))
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default();
        let file = self.log_file(replica, &container).await?;
        if file.is_some() && file == mark.file {
            return Ok(());
        }
        let mut writer = Writer::open(&replica.folder, policy, mark).map_err(|error| host(what(), error))?;
        let options = LogsOptionsBuilder::default()
            .stdout(true)
            .stderr(true)
            .timestamps(true)
            .since(i32::try_from(writer.before.since).unwrap_or(i32::MAX))
            .build();
        let pieces = self.api.logs(&container, Some(options));
        pin_mut!(pieces);
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|error| daemon(what(), error))?;
            writer.piece(&piece).map_err(|error| host(what(), error))?;
        }
        writer.end(file).map_err(|error| host(what(), error))
    }

    /// Length and number of the file in which the daemon keeps the log, if this user may look at it.
    async fn log_file(&self, replica: &Replica, container: &str) -> Result<Option<(u64, u64)>> {
        let known = replica.inner().log_path.clone();
        let path = match known {
            Some(path) => path,
            None => {
                let found = self.api.inspect_container(container, None::<InspectContainerOptions>).await;
                let found = found.map_err(|error| {
                    daemon(format_args!("cannot look for the log of {}", replica.id), error)
                })?;
                let path = PathBuf::from(found.log_path.unwrap_or_default());
                replica.inner().log_path = Some(path.clone());
                path
            }
        };
        let metadata = fs::metadata(&path).map_err(|error| {
            tracing::debug!("{}: {}", path.display(), chain(&error));
        });
        Ok(metadata.ok().map(|metadata| (metadata.len(), metadata.ino())))
    }
}

/// Writes what is new of the daemon's log behind what there is.
struct Writer<'a> {
    folder: &'a Path,
    policy: LogPolicy,
    file: BufWriter<File>,
    length: u64,
    before: Mark,
    /// Pieces of this reading so far.
    read: usize,
    /// Seconds of the last pieces, with how many there were of each: the newest and the one before.
    newest: (i64, usize),
    previous: (i64, usize),
}

impl<'a> Writer<'a> {
    fn open(folder: &'a Path, policy: LogPolicy, before: Mark) -> io::Result<Writer<'a>> {
        fs::create_dir_all(folder)?;
        let file = File::options().append(true).create(true).open(folder.join(LOG))?;
        let length = file.metadata()?.len();
        let none = (before.since, 0);
        Ok(Writer {
            folder,
            policy,
            file: BufWriter::new(file),
            length,
            before,
            read: 0,
            newest: none,
            previous: none,
        })
    }

    /// One line, or a part of a long one, with its time before it.
    fn piece(&mut self, piece: &LogOutput) -> io::Result<()> {
        let bytes = piece.as_ref();
        let space = bytes.iter().position(|byte| *byte == b' ').unwrap_or(0);
        let time = std::str::from_utf8(&bytes[..space]).ok().and_then(|text| text.parse().ok());
        let second = time.map_or(self.newest.0, |time: jiff::Timestamp| time.as_second());
        // Both outputs are read by the daemon at once, so that a piece may be a little older than the one before it.
        if second > self.newest.0 {
            self.previous = std::mem::replace(&mut self.newest, (second, 0));
        }
        match second == self.newest.0 {
            true => self.newest.1 += 1,
            false => self.previous.1 += 1,
        }
        self.read += 1;
        if self.read <= self.before.seen {
            return Ok(());
        }
        let line = bytes.get(space + 1..).unwrap_or_default();
        self.file.write_all(line)?;
        self.length += line.len() as u64;
        if self.length >= self.policy.max_size { self.rotate() } else { Ok(()) }
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file.flush()?;
        let numbered = |number: u32| self.folder.join(format!("{LOG}.{number}"));
        let current = self.folder.join(LOG);
        for number in (1..self.policy.max_files).rev() {
            match fs::rename(numbered(number), numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        match self.policy.max_files {
            0 => fs::remove_file(&current)?,
            _ => fs::rename(&current, numbered(1))?,
        }
        self.file = BufWriter::new(File::options().append(true).create_new(true).open(&current)?);
        self.length = 0;
        Ok(())
    }

    fn end(mut self, file: Option<(u64, u64)>) -> io::Result<()> {
        self.file.flush()?;
        let mark = if self.read == 0 {
            Mark { file, ..self.before }
        } else if self.newest.0 == self.before.since {
            Mark { since: self.before.since, seen: self.read, file }
        } else if self.previous.0 + 1 == self.newest.0 && self.previous.0 > self.before.since {
            // The second before the last one may still get a piece of the other output.
            Mark { since: self.previous.0, seen: self.previous.1 + self.newest.1, file }
        } else {
            Mark { since: self.newest.0, seen: self.newest.1, file }
        };
        let text = serde_json::to_vec(&mark).map_err(io::Error::other)?;
        let fresh = self.folder.join("mark.new");
        fs::write(&fresh, text).and_then(|()| fs::rename(&fresh, self.folder.join(MARK)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use throng_runtime::backends::log_files;

    /// A daemon's log, read from a second on.
    fn read(folder: &Path, log: &[(i64, String)], policy: LogPolicy) {
        let mark: Mark = fs::read(folder.join(MARK))
            .ok()
            .and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default();
        let mut writer = Writer::open(folder, policy, mark).expect("opens");
        let since = writer.before.since;
        for (second, line) in log.iter().filter(|(second, _)| *second >= since) {
            let time = jiff::Timestamp::from_second(*second).expect("a time");
            let message = format!("{time} {line}").into_bytes().into();
            writer.piece(&LogOutput::StdOut { message }).expect("written");
        }
        writer.end(None).expect("ended");
    }

    fn text(folder: &Path) -> String {
        log_files(folder).iter().map(|path| fs::read_to_string(path).expect("a log")).collect()
    }

    #[test]
    fn every_line_is_written_once_however_often_it_is_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let log: Vec<(i64, String)> = [5, 5, 5, 6, 6, 9, 9, 10, 11, 11]
            .iter()
            .zip(0..)
            .map(|(s, n)| (*s, format!("line {n}\n")))
            .collect();
        for most in [0, 1, 2, 2, 3, 5, 6, 6, 7, 8, 9, 10, 10] {
            read(folder.path(), &log[..most], LogPolicy::default());
            let expected: String = log[..most].iter().map(|(_, line)| line.as_str()).collect();
            assert_eq!(text(folder.path()), expected, "after {most}");
        }
    }

    #[test]
    fn no_more_is_kept_than_the_policy_allows() {
        let folder = tempfile::tempdir().expect("a folder");
        let log: Vec<(i64, String)> = (0..1_000).map(|n| (n / 100, format!("line {n:04}\n"))).collect();
        let policy = LogPolicy { max_size: 1_000, max_files: 2 };
        for most in (0..=1_000).step_by(50) {
            read(folder.path(), &log[..most], policy);
        }
        let kept = text(folder.path());
        let all: String = log.iter().map(|(_, line)| line.as_str()).collect();
        assert!(all.ends_with(&kept) && kept.len() >= 2_000 && kept.len() <= 3_000, "{} bytes", kept.len());
        assert_eq!(log_files(folder.path()).len(), 3);
    }

    #[test]
    fn a_new_container_adds_to_the_old_ones_output() {
        let folder = tempfile::tempdir().expect("a folder");
        read(folder.path(), &[(5, "first\n".into())], LogPolicy::default());
        begin_anew(folder.path()).expect("anew");
        begin_anew(folder.path()).expect("nothing to forget");
        read(folder.path(), &[(5, "second\n".into())], LogPolicy::default());
        assert_eq!(text(folder.path()), "first\nsecond\n");
    }
}
