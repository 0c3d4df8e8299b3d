//! What a process would see at `/` over a stack of unpacked layers, read without mounting anything.
//!
//! Every path is resolved inside the view: a symbolic link can point anywhere and never leads out of it.

use crate::limits::MAX_SYMLINKS;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Component, Path, PathBuf};

/// Attributes by which overlayfs marks a folder that hides what is below it.
pub(crate) const OPAQUE: [&str; 2] = ["trusted.overlay.opaque", "user.overlay.opaque"];

#[derive(Debug, Clone, Default)]
pub(crate) struct LayerView {
    /// Bottom first.
    layers: Vec<PathBuf>,
}

/// A file, folder or link of the view.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// Where it lies on the host.
    pub host: PathBuf,
    pub metadata: Metadata,
}

/// A path without symbolic links in all but (maybe) its last part, and what is there.
#[derive(Debug, Clone)]
pub(crate) struct Resolved {
    /// Relative to the view's root; empty for the root.
    pub path: PathBuf,
    pub node: Option<Node>,
}

enum Search {
    Found(Node),
    /// Not here; what is below shows through.
    Through,
    /// Hidden here: whiteout, opaque folder, or a file where a folder would have to be.
    Hidden,
}

impl LayerView {
    pub(crate) fn new(layers: Vec<PathBuf>) -> Self {
        LayerView { layers }
    }

    /// The entry at `relative`, whose parts are taken literally: links are not followed.
    pub(crate) fn lookup(&self, relative: &Path) -> io::Result<Option<Node>> {
        for layer in self.layers.iter().rev() {
            match search(layer, relative)? {
                Search::Found(node) => return Ok(Some(node)),
                Search::Through => {}
                Search::Hidden => return Ok(None),
            }
        }
        Ok(None)
    }

    /// Resolves a path, absolute or relative to the root. A part that is missing ends the resolution; the rest is
    /// taken literally. `follow`: also follow a link in the last part.
    pub(crate) fn resolve(&self, path: &Path, follow: bool) -> io::Result<Resolved> {
        let mut pending: Vec<OsString> = parts(path);
        pending.reverse();
        let mut resolved = Resolved { path: PathBuf::new(), node: self.lookup(Path::new(""))? };
        let mut links = 0;
        while let Some(part) = pending.pop() {
            if part == ".." {
                resolved.path.pop();
                resolved.node = self.lookup(&resolved.path)?;
                continue;
            }
            let next = resolved.path.join(&part);
            let node = self.lookup(&next)?;
            let link =
                node.as_ref().filter(|node| node.metadata.is_symlink() && (follow || !pending.is_empty()));
            if let Some(link) = link {
                links += 1;
                if links > MAX_SYMLINKS {
                    return Err(io::Error::other(format!(
                        "more than {MAX_SYMLINKS} symbolic links in {}",
                        path.display()
                    )));
                }
                let target = fs::read_link(&link.host)?;
                if target.is_absolute() {
                    resolved.path = PathBuf::new();
                }
                pending.extend(parts(&target).into_iter().rev());
                resolved.node = self.lookup(&resolved.path)?;
                continue;
            }
            resolved = Resolved { path: next, node };
        }
        Ok(resolved)
    }

    /// Names and entries of a folder, sorted. `relative` must come from [`LayerView::resolve`].
    pub(crate) fn list(&self, relative: &Path) -> io::Result<BTreeMap<OsString, Node>> {
        let mut entries = BTreeMap::new();
        let mut hidden = BTreeSet::new();
        for layer in self.layers.iter().rev() {
            match search(layer, relative)? {
                Search::Through => continue,
                Search::Hidden => break,
                Search::Found(node) if !node.metadata.is_dir() => break,
                Search::Found(node) => {
                    for entry in fs::read_dir(&node.host)? {
                        let entry = entry?;
                        let metadata = fs::symlink_metadata(entry.path())?;
                        let name = entry.file_name();
                        if is_whiteout(&metadata) {
                            hidden.insert(name);
                        } else if !hidden.contains(&name) {
                            entries.entry(name).or_insert(Node { host: entry.path(), metadata });
                        }
                    }
                    if is_opaque(&node.host) {
                        break;
                    }
                }
            }
        }
        Ok(entries)
    }

    /// The bytes of a small file such as /etc/passwd, or `None` if there is no such file.
    pub(crate) fn read_small(&self, path: &str, limit: u64) -> io::Result<Option<Vec<u8>>> {
        use std::io::Read as _;
        let Some(node) = self.resolve(Path::new(path), true)?.node else { return Ok(None) };
        if !node.metadata.is_file() {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        fs::File::open(&node.host)?.take(limit).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }
}

fn search(layer: &Path, relative: &Path) -> io::Result<Search> {
    let mut host = layer.to_path_buf();
    let mut metadata = fs::symlink_metadata(&host)?;
    let mut opaque = false;
    for part in relative.components() {
        if !metadata.is_dir() {
            return Ok(Search::Hidden);
        }
        opaque = opaque || (host != layer && is_opaque(&host));
        host.push(part);
        metadata = match fs::symlink_metadata(&host) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Ok(if opaque { Search::Hidden } else { Search::Through });
            }
            Err(error) => return Err(error),
        };
        if is_whiteout(&metadata) {
            return Ok(Search::Hidden);
        }
    }
    Ok(Search::Found(Node { host, metadata }))
}

/// The parts of a path without `.` and root; `..` stays.
fn parts(path: &Path) -> Vec<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(part) => Some(part.to_os_string()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect()
}

/// How overlayfs writes down that a name of a lower layer is gone.
pub(crate) fn is_whiteout(metadata: &Metadata) -> bool {
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}

pub(crate) fn is_opaque(host: &Path) -> bool {
    OPAQUE.iter().any(|name| xattr(host, OsStr::new(name)).is_ok_and(|value| value == b"y"))
}

/// An extended attribute of `path` itself, links not followed.
pub(crate) fn xattr(path: &Path, name: &OsStr) -> io::Result<Vec<u8>> {
    let mut value = vec![0; 256];
    loop {
        match rustix::fs::lgetxattr(path, name.as_bytes(), &mut value[..]) {
            Ok(length) => {
                value.truncate(length);
                return Ok(value);
            }
            // The kernel's own bound is 64 KiB (xattr(7)).
            Err(rustix::io::Errno::RANGE) if value.len() < 1 << 16 => value.resize(1 << 16, 0),
            Err(error) => return Err(error.into()),
        }
    }
}

/// All extended attributes of `path` itself, sorted by name. A file system without them has none.
pub(crate) fn xattrs(path: &Path) -> io::Result<Vec<(OsString, Vec<u8>)>> {
    let mut names = vec![0; 1 << 16];
    let length = match rustix::fs::llistxattr(path, &mut names[..]) {
        Ok(length) => length,
        Err(rustix::io::Errno::NOTSUP) => 0,
        Err(error) => return Err(error.into()),
    };
    let mut found = Vec::new();
    for name in names[..length].split(|b| *b == 0).filter(|name| !name.is_empty()) {
        let name = OsStr::from_bytes(name);
        match xattr(path, name) {
            Ok(value) => found.push((name.to_os_string(), value)),
            // An attribute that may be listed but not read is not ours to copy.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {}
            Err(error) => return Err(error),
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn layers() -> (tempfile::TempDir, LayerView) {
        let dir = tempfile::tempdir().unwrap();
        let (low, high) = (dir.path().join("0"), dir.path().join("1"));
        for path in ["usr/lib", "etc"] {
            fs::create_dir_all(low.join(path)).unwrap();
        }
        fs::create_dir_all(high.join("etc")).unwrap();
        fs::write(low.join("usr/lib/a"), "low").unwrap();
        fs::write(low.join("etc/x"), "low").unwrap();
        fs::write(high.join("etc/x"), "high").unwrap();
        symlink("usr/lib", low.join("lib")).unwrap();
        symlink("/../../../../etc", low.join("out")).unwrap();
        symlink("loop", low.join("loop")).unwrap();
        fs::write(high.join("usr"), "a file hides a folder").unwrap();
        (dir, LayerView::new(vec![low, high]))
    }

    #[test]
    fn upper_entries_win_and_files_hide_folders() {
        let (_dir, view) = layers();
        assert_eq!(view.read_small("/etc/x", 100).unwrap().unwrap(), b"high");
        assert!(view.lookup(Path::new("usr/lib/a")).unwrap().is_none());
        assert!(view.lookup(Path::new("lib")).unwrap().unwrap().metadata.is_symlink());
        assert!(view.list(Path::new("")).unwrap().keys().eq(["etc", "lib", "loop", "out", "usr"]));
    }

    #[test]
    fn links_stay_inside() {
        let (_dir, view) = layers();
        let resolved = view.resolve(Path::new("/out/x"), true).unwrap();
        assert_eq!(resolved.path, Path::new("etc/x"));
        assert!(view.resolve(Path::new("/loop/x"), true).is_err());
        assert_eq!(view.resolve(Path::new("../../nowhere/y"), true).unwrap().path, Path::new("nowhere/y"));
    }
}
