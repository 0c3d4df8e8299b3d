//! Filling a replica's writable layer on purpose.
//!
//! The room is taken by a file without a name that only this process holds open: the kernel gives it back when the file
//! is closed, be it that somebody says so, that the replica ends, or that this process is killed. Blocks are reserved and
//! not written (fallocate(2)), so that a layer with a limit, which is a file with holes, costs the host nothing.

use crate::engine::Core;
use crate::errors::host;
use crate::replica::Replica;
use rustix::fs::{FallocateFlags, fallocate};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use throng_model::units::format_bytes;
use throng_runtime::{ErrorKind, Result, RuntimeError};

/// The name that the file has for an instant.
const NAME: &str = ".throng-fill";
/// What is left when not even this much can be had is no room.
const LEAST: u64 = 4_096;

/// Takes so many bytes of the layer, or as many as its limit leaves, and returns how many that are. What an earlier fill
/// holds is given back first.
///
/// # Errors
/// [`ErrorKind::Invalid`] where there is no layer that can be filled, and where one without a limit has less room.
pub fn fill(core: &Core, replica: &Replica, bytes: Option<u64>) -> Result<u64> {
    let refuse = |why: String, hint: &str| {
        Err(RuntimeError::new(ErrorKind::Invalid, format!("{}: {why}", replica.id)).hint(hint))
    };
    if !core.contained() {
        return refuse(
            "a plain process has no writable layer".into(),
            "run the app with --isolation container",
        );
    }
    let spec = replica.inner().spec.clone();
    let (Some(spec), Some(pid)) = (spec, replica.pid()) else {
        return Err(RuntimeError::new(ErrorKind::NotFound, format!("{} is not running", replica.id)));
    };
    if spec.root.read_only {
        return refuse("its root cannot be written to".into(), "fill a service without read_only");
    }
    replica.give_back();
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    let failed = |e: io::Error| host(format_args!("cannot fill the writable layer of {}", replica.id), e);
    let room = rustix::fs::statvfs(&root).map_err(|e| failed(e.into()))?;
    let free = room.f_bavail.saturating_mul(room.f_frsize);
    let wanted = match (core.disk_limit(&spec), bytes) {
        (Some(_), bytes) => bytes.unwrap_or(free).min(free),
        (None, Some(bytes)) if bytes <= free => bytes,
        (None, Some(bytes)) => {
            let why = format!(
                "its writable layer has no limit, and {} are more than the {} that are free on the host's disk",
                format_bytes(bytes),
                format_bytes(free)
            );
            return refuse(why, "give a smaller size, or the service a limit: storage_opt: {size: 64m}");
        }
        (None, None) => {
            let why = "its writable layer has no limit up to which it could be filled".into();
            return refuse(
                why,
                "say how much, as in --size 64m, or give the service a limit: storage_opt: {size: 64m}",
            );
        }
    };
    let file = nameless(&root).map_err(failed)?;
    let taken = take(&file, wanted, bytes.is_none()).map_err(failed)?;
    replica.keep_filled(file);
    Ok(taken)
}

/// A file that has no name in the layer any more. The name is made anew, so it leads nowhere else, whatever the replica
/// has put there.
fn nameless(root: &Path) -> io::Result<File> {
    let path = root.join(NAME);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
    fs::remove_file(&path)?;
    Ok(file)
}

/// Reserves so many bytes. `all`: what is left of it is taken in ever smaller pieces.
fn take(file: &File, wanted: u64, all: bool) -> io::Result<u64> {
    let (mut taken, mut piece) = (0, wanted);
    while piece >= LEAST {
        match fallocate(file, FallocateFlags::empty(), taken, piece) {
            Ok(()) => taken += piece,
            // The file system needs some of it for itself.
            Err(rustix::io::Errno::NOSPC) => piece /= 2,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if !all {
            piece = piece.min(wanted - taken);
        }
    }
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn what_is_taken_is_there_without_a_name_and_goes_with_the_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let elsewhere = folder.path().join("elsewhere");
        fs::write(&elsewhere, "kept").expect("a file");
        // A replica may have put a link there that leads out of it.
        std::os::unix::fs::symlink(&elsewhere, folder.path().join(NAME)).expect("a link");
        let file = nameless(folder.path()).expect("a file");
        let taken = match take(&file, 1 << 20, false) {
            // Of the file system that temporary files are on.
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return,
            taken => taken.expect("taken"),
        };
        assert_eq!(taken, 1 << 20);
        let found = file.metadata().expect("of the file");
        assert_eq!(found.nlink(), 0);
        assert!(found.blocks() * 512 >= 1 << 20, "{} blocks", found.blocks());
        assert_eq!(fs::read_to_string(&elsewhere).expect("kept"), "kept");
        let names = fs::read_dir(folder.path()).expect("listed").flatten();
        assert_eq!(names.map(|entry| entry.file_name()).collect::<Vec<_>>(), ["elsewhere"]);
    }
}
