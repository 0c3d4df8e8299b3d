//! A replica's output on disk.
//!
//! The replica itself holds `log` open for appending, so its output goes on whether or not a supervisor lives, and
//! the file can never be exchanged under it. To rotate, whole blocks from the file's start are copied to `log.1` and
//! then punched out of `log`: its size goes on growing, but it takes up only what was written since. Readers begin
//! at the first data (`lseek` with `SEEK_DATA`) and skip zero bytes, which only stand where something was punched
//! out. A crash between copy and punch shows a stretch twice. Of a replica that writes faster than that, the latest
//! output is kept and a line says how much is missing before it; logs that fill are looked at more often.

use crate::disk;
use crate::engine::{Core, blocking};
use rustix::fs::{FallocateFlags, SeekFrom};
use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::Path;
use std::sync::Weak;
use std::time::Duration;
use throng_model::replica::LogPolicy;

use throng_runtime::backends::LOG;

/// How often sizes are looked at; a replica may write more than its limit in between.
const INTERVAL: Duration = Duration::from_secs(2);
/// As above, after a pass in which some log was full.
const BUSY_INTERVAL: Duration = Duration::from_millis(100);

pub async fn rotate_for_ever(core: Weak<Core>) {
    let mut interval = INTERVAL;
    loop {
        tokio::time::sleep(interval).await;
        let Some(core) = core.upgrade() else { return };
        let pass = blocking(move || {
            let mut full = false;
            for replica in core.all_running() {
                disk::tell_if_full(&replica);
                match replica.rotate_log() {
                    Ok(rotated) => full |= rotated,
                    Err(error) => tracing::warn!("cannot rotate the log of {}: {error}", replica.id),
                }
            }
            full
        });
        interval = match pass.await {
            Ok(true) => BUSY_INTERVAL,
            Ok(false) => INTERVAL,
            Err(error) => {
                tracing::warn!("{error}");
                INTERVAL
            }
        };
    }
}

/// Rotates the log if more than the policy allows has been written since the last time, and tells whether it has. One
/// at a time in a folder.
pub fn rotate(folder: &Path, policy: LogPolicy) -> io::Result<bool> {
    let path = folder.join(LOG);
    let size = match fs::metadata(&path) {
        Ok(metadata) => metadata.len(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(e),
    };
    if size < policy.max_size {
        return Ok(false);
    }
    let mut log = File::options().read(true).write(true).open(&path)?;
    let Some(start) = first_data(&log)? else { return Ok(false) };
    let block = rustix::fs::fstatfs(&log)?.f_bsize.unsigned_abs().max(1);
    let end = size / block * block;
    if end.saturating_sub(start) < policy.max_size {
        return Ok(false);
    }
    if policy.max_files > 0 {
        let fresh = folder.join("log.new");
        let mut file = File::create(&fresh)?;
        let kept = start.max(end.saturating_sub(policy.max_size) / block * block);
        if kept > start {
            writeln!(file, "[throng: {} bytes came too fast and are not kept]", kept - start)?;
        }
        log.seek(io::SeekFrom::Start(kept))?;
        io::copy(&mut (&log).take(end - kept), &mut file)?;
        shift(folder, policy.max_files)?;
        fs::rename(fresh, folder.join("log.1"))?;
    }
    let punch = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(&log, punch, start, end - start)?;
    Ok(true)
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
    use throng_runtime::backends::log_files;

    #[test]
    fn a_flood_takes_no_more_room_than_allowed() {
        let dir = tempfile::tempdir().unwrap();
        let policy = LogPolicy { max_size: 10_000, max_files: 2 };
        let mut writer = File::options().append(true).create(true).open(dir.path().join(LOG)).unwrap();
        assert!(!rotate(dir.path(), policy).unwrap());
        for _ in 0..5 {
            writer.write_all(&b"0123456789abcdef\n".repeat(100_000)).unwrap();
            assert!(rotate(dir.path(), policy).unwrap());
        }
        let files = log_files(dir.path());
        assert_eq!(files.len(), 3);
        for file in &files[..2] {
            let text = fs::read_to_string(file).unwrap();
            let mut lines = text.lines();
            let note = lines.next().unwrap();
            assert!(note.starts_with("[throng: 1") && note.ends_with("are not kept]"), "{note}");
            assert!(text.len() < 20_000, "{}", text.len());
        }
        let room = std::os::unix::fs::MetadataExt::blocks(&fs::metadata(&files[2]).unwrap()) * 512;
        assert!(room <= 64 << 10, "{room} bytes of the log itself");
    }

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
        let files = log_files(dir.path());
        assert_eq!(files.len(), 4);
        let mut found = Vec::new();
        for file in files {
            found.extend(fs::read(file).unwrap().into_iter().filter(|b| *b != 0));
        }
        assert!(found.len() > 3 * 10_000);
        assert!(expected.ends_with(&found), "what is kept is the end of what was written, without a gap");
    }
}
