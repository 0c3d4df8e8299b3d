//! Looking into a stack of layers without mounting it: the user database before start, the program's header after a
//! failed start, and which folders exist already.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

/// The kernel's own limit on symbolic links in one lookup.
const MAX_LINKS: usize = 40;

/// Layers, top first.
#[derive(Debug)]
pub struct Layers {
    top_first: Vec<PathBuf>,
}

/// What a path inside the root leads to.
#[derive(Debug)]
pub struct Found {
    /// Where it lies on the host.
    pub path: PathBuf,
    pub metadata: fs::Metadata,
}

impl Layers {
    /// `upper` lies over `layers`, which come bottom first.
    pub fn new(upper: Option<&Path>, layers: &[PathBuf]) -> Self {
        let top_first =
            upper.map(Path::to_path_buf).into_iter().chain(layers.iter().rev().cloned()).collect();
        Layers { top_first }
    }

    /// Follows `path` inside the root, symbolic links included; `None` if it leads nowhere.
    pub fn find(&self, path: &str) -> Option<Found> {
        let mut pending = components(Path::new(path));
        let mut reached = PathBuf::new();
        let mut links = 0;
        while let Some(name) = pending.pop_front() {
            if name == ".." {
                reached.pop();
                continue;
            }
            let next = reached.join(&name);
            let found = self.lookup(&next)?;
            if found.metadata.file_type().is_symlink() {
                links += 1;
                if links > MAX_LINKS {
                    return None;
                }
                let target = fs::read_link(&found.path).ok()?;
                if target.is_absolute() {
                    reached.clear();
                }
                for part in components(&target).into_iter().rev() {
                    pending.push_front(part);
                }
            } else {
                reached = next;
            }
        }
        self.lookup(&reached)
    }

    /// Reads a file of at most `limit` bytes.
    pub fn read(&self, path: &str, limit: u64) -> io::Result<Option<String>> {
        let Some(found) = self.find(path).filter(|f| f.metadata.is_file()) else { return Ok(None) };
        let mut text = String::new();
        fs::File::open(found.path)?.take(limit).read_to_string(&mut text)?;
        Ok(Some(text))
    }

    /// One path without links in it, top layer first. A whiteout hides what is below it.
    fn lookup(&self, relative: &Path) -> Option<Found> {
        for layer in &self.top_first {
            let path = layer.join(relative);
            match fs::symlink_metadata(&path) {
                Ok(metadata) if is_whiteout(&metadata) => return None,
                Ok(metadata) => return Some(Found { path, metadata }),
                Err(_) if hides_below(layer, relative) => return None,
                Err(_) => {}
            }
        }
        None
    }
}

fn components(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|c| match c {
            Component::Normal(name) => Some(name.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect()
}

/// Overlayfs marks a removed file by a character device 0/0.
fn is_whiteout(metadata: &fs::Metadata) -> bool {
    metadata.file_type().is_char_device() && metadata.rdev() == 0
}

/// Whether a parent of the path is opaque, removed or no folder in this layer.
fn hides_below(layer: &Path, relative: &Path) -> bool {
    relative.ancestors().skip(1).filter(|p| !p.as_os_str().is_empty()).any(|parent| {
        let path = layer.join(parent);
        match fs::symlink_metadata(&path) {
            Ok(metadata) if !metadata.is_dir() => true,
            Ok(_) => is_opaque(&path),
            Err(_) => false,
        }
    })
}

fn is_opaque(path: &Path) -> bool {
    ["trusted.overlay.opaque", "user.overlay.opaque"].iter().any(|name| {
        let mut value = [0u8; 1];
        rustix::fs::lgetxattr(path, *name, &mut value[..]).is_ok_and(|n| n == 1 && value == *b"y")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_stay_inside_the_root_and_upper_layers_win() {
        let dir = tempfile::tempdir().unwrap();
        let (below, above) = (dir.path().join("below"), dir.path().join("above"));
        fs::create_dir_all(below.join("usr/etc")).unwrap();
        fs::create_dir_all(&above).unwrap();
        fs::write(below.join("usr/etc/passwd"), "old").unwrap();
        symlink("/usr/etc", below.join("etc")).unwrap();
        symlink("../../../../../usr", below.join("out")).unwrap();
        symlink("loop", below.join("loop")).unwrap();
        let layers = Layers::new(None, &[below.clone(), above.clone()]);
        assert_eq!(layers.read("/etc/passwd", 100).unwrap().as_deref(), Some("old"));
        assert_eq!(layers.read("/out/etc/passwd", 100).unwrap().as_deref(), Some("old"));
        assert!(layers.find("/loop").is_none());
        assert!(layers.find("/etc/shadow").is_none());
        fs::create_dir_all(above.join("usr/etc")).unwrap();
        fs::write(above.join("usr/etc/passwd"), "new").unwrap();
        assert_eq!(layers.read("/etc/passwd", 100).unwrap().as_deref(), Some("new"));
        assert_eq!(layers.read("/etc/passwd", 2).unwrap().as_deref(), Some("ne"));
        fs::remove_dir_all(above.join("usr")).unwrap();
        fs::write(above.join("usr"), "a file in place of the folder").unwrap();
        assert!(layers.find("/etc/passwd").is_none());
    }
}
