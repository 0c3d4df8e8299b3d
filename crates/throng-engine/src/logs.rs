//! A replica's output on disk.
//!
//! The replica itself holds `log` open for appending, so its output goes on whether or not a supervisor lives, and
//! the file can never be exchanged under it. To rotate, whole blocks from the file's start are copied to `log.1` and
//! then punched out of `log`: its size goes on growing, but it takes up only what was written since. Readers begin
//! at the first data (`lseek` with `SEEK_DATA`) and skip zero bytes, which only stand where something was punched
//! out. Nothing is lost; a crash between copy and punch shows a stretch twice.

use crate::engine::{Core, blocking};
use rustix::fs::{FallocateFlags, SeekFrom};
use std::fs::{self, File};
use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::Weak;
use std::time::Duration;
use throng_model::replica::LogPolicy;

use crate::start::LOG;

/// How often sizes are looked at; a replica may write more than its limit in between.
const INTERVAL: Duration = Duration::from_secs(2);

/// The files that exist, oldest first.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut numbered: Vec<(u32, PathBuf)> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let number = if name == LOG { 0 } else { name.strip_prefix("log.")?.parse().ok()? };
            Some((number, entry.path()))
        })
        .collect();
    numbered.sort_by_key(|(number, _)| std::cmp::Reverse(*number));
    numbered.into_iter().map(|(_, path)| path).collect()
}

pub async fn rotate_for_ever(core: Weak<Core>) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        let Some(core) = core.upgrade() else { return };
        let pass = blocking(move || {
            for replica in core.all_running() {
                let policy = replica.inner().spec.as_ref().map(|s| s.log);
                if let Some(Err(error)) = policy.map(|policy| rotate(&replica.folder, policy)) {
                    tracing::warn!("cannot rotate the log of {}: {error}", replica.id);
                }
            }
        });
        if let Err(error) = pass.await {
            tracing::warn!("{error}");
        }
    }
}

/// Rotates the log if more than the policy allows has been written since the last time.
pub fn rotate(folder: &Path, policy: LogPolicy) -> io::Result<()> {
    let path = folder.join(LOG);
    let size = match fs::metadata(&path) {
        Ok(metadata) => metadata.len(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    if size < policy.max_size {
        return Ok(());
    }
    let mut log = File::options().read(true).write(true).open(&path)?;
    let Some(start) = first_data(&log)? else { return Ok(()) };
    let block = rustix::fs::fstatfs(&log)?.f_bsize.unsigned_abs().max(1);
    let end = size / block * block;
    if end.saturating_sub(start) < policy.max_size {
        return Ok(());
    }
    if policy.max_files > 0 {
        let fresh = folder.join("log.new");
        log.seek(io::SeekFrom::Start(start))?;
        io::copy(&mut (&log).take(end - start), &mut File::create(&fresh)?)?;
        shift(folder, policy.max_files)?;
        fs::rename(fresh, folder.join("log.1"))?;
    }
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    Ok(rustix::fs::fallocate(&log, punch, start, end - start)?)
}

/// `log.1` becomes `log.2` and so on; the oldest is removed.
fn shift(folder: &Path, max_files: u32) -> io::Result<()> {
    for number in (1..max_files).rev() {
        let (from, to) = (folder.join(format!("log.{number}")), folder.join(format!("log.{}", number + 1)));
        match fs::rename(from, to) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

fn first_data(log: &File) -> io::Result<Option<u64>> {
    match rustix::fs::seek(log, SeekFrom::Data(0)) {
        Ok(start) => Ok(Some(start)),
        Err(rustix::io::Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn rotation_loses_nothing_and_keeps_the_writer() {
        let dir = tempfile::tempdir().unwrap();
        let policy = LogPolicy { max_size: 10_000, max_files: 3 };
        let mut writer = File::options().append(true).create(true).open(dir.path().join(LOG)).unwrap();
        let mut expected = Vec::new();
        for number in 0..5_000 {
            let line = format!("line {number}\n");
            writer.write_all(line.as_bytes()).unwrap();
            expected.extend(line.into_bytes());
            if number % 100 == 0 {
                rotate(dir.path(), policy).unwrap();
            }
        }
        let files = files(dir.path());
        assert_eq!(files.len(), 4);
        let mut found = Vec::new();
        for file in files {
            found.extend(fs::read(file).unwrap().into_iter().filter(|b| *b != 0));
        }
        assert!(found.len() > 3 * 10_000);
        assert!(expected.ends_with(&found), "what is kept is the end of what was written, without a gap");
    }
}
