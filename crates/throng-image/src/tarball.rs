//! Reading tar archives that others wrote: bounded headers, lenient numbers, strict paths.

use std::cell::Cell;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

/// Names, link targets and attributes of one entry; the kernel takes at most 64 KiB for each attribute.
const MAX_HEADER_BYTES: u64 = 1 << 20;

/// Bounds what one entry of an archive may say about itself: the tar reader keeps long names and attributes in
/// memory, and a few compressed megabytes could claim gigabytes of them.
pub(crate) struct HeaderBudget(Cell<u64>);

/// Reads on until the budget is used up.
pub(crate) struct HeaderGuard<'b, R> {
    inner: R,
    left: &'b Cell<u64>,
}

impl Default for HeaderBudget {
    fn default() -> Self {
        HeaderBudget(Cell::new(u64::MAX))
    }
}

impl HeaderBudget {
    pub(crate) fn guard<R: Read>(&self, inner: R) -> HeaderGuard<'_, R> {
        HeaderGuard { inner, left: &self.0 }
    }

    /// Runs `next`, which moves to the next entry. The content of the entry before must have been read.
    pub(crate) fn header<T>(&self, next: impl FnOnce() -> T) -> T {
        self.0.set(MAX_HEADER_BYTES);
        let outcome = next();
        self.0.set(u64::MAX);
        outcome
    }
}

impl<R: Read> Read for HeaderGuard<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left.get();
        if left == 0 && !buffer.is_empty() {
            return Err(io::Error::other(format!(
                "the headers of an entry are over {MAX_HEADER_BYTES} bytes"
            )));
        }
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = self.inner.read(&mut buffer[..most])?;
        self.left.set(left - read as u64);
        Ok(read)
    }
}

/// The numbers of a tar header.
pub(crate) struct Numbers {
    pub mode: u32,
    pub uid: u64,
    pub gid: u64,
    pub mtime: u64,
}

/// Reads a header's numbers. A field that is left empty is 0, as other programs read it.
pub(crate) fn numbers(header: &tar::Header) -> io::Result<Numbers> {
    fn or_empty<T: Default>(field: &[u8], value: io::Result<T>) -> io::Result<T> {
        if field.iter().all(|b| matches!(b, 0 | b' ')) { Ok(T::default()) } else { value }
    }
    let raw = header.as_old();
    Ok(Numbers {
        mode: or_empty(&raw.mode, header.mode())?,
        uid: or_empty(&raw.uid, header.uid())?,
        gid: or_empty(&raw.gid, header.gid())?,
        mtime: or_empty(&raw.mtime, header.mtime())?,
    })
}

/// A relative path without `.`, refused if it could leave the folder it is joined to.
pub(crate) fn clean_path(name: &[u8]) -> std::result::Result<PathBuf, &'static str> {
    if name.starts_with(b"/") {
        return Err("is an absolute path");
    }
    let mut clean = PathBuf::new();
    for part in name.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err("leaves the layer with `..`"),
            _ if part.contains(&0) => return Err("has a zero byte in its name"),
            _ => clean.push(OsStr::from_bytes(part)),
        }
    }
    Ok(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_that_stay_inside_are_clean() {
        for (name, clean) in [("a/./b//c/", "a/b/c"), ("./", ""), ("..a/b..", "..a/b.."), ("", "")] {
            assert_eq!(clean_path(name.as_bytes()), Ok(PathBuf::from(clean)), "{name}");
        }
        for name in ["/a", "a/..", "..", "a/../../b", "a\0b"] {
            assert!(clean_path(name.as_bytes()).is_err(), "{name:?}");
        }
    }
}
