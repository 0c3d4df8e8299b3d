//! What conversion has to ask about the world: where a key of the Compose file stands, and what files of the host hold.

use std::io;
use std::path::Path;
use throng_model::diagnostic::Location;

/// Where the app came from. All I/O of a conversion goes through this.
pub trait Source {
    /// The place of the key at the end of a path of keys, such as `services`, `web`, `ports`; elements of lists are
    /// known by their numbers. `None` if the files do not say it.
    fn place(&self, path: &[&str]) -> Option<Location>;

    /// What is at a path of the host, which is absolute.
    ///
    /// # Errors
    /// It is not there or cannot be read.
    fn read(&self, path: &Path) -> io::Result<HostFile>;
}

/// Something at a path of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostFile {
    File(Vec<u8>),
    /// Name and content of each file; there is nothing else in the folder.
    Folder(Vec<(String, Vec<u8>)>),
    /// A file or folder with more than [`MAX_CONFIG_BYTES`], a folder with folders in it, a socket or a device.
    Other,
}

/// The most that a ConfigMap or a Secret holds, in bytes: the API server's own limit on each of them.
pub const MAX_CONFIG_BYTES: u64 = 1 << 20;
/// The most files of one folder that are taken into a ConfigMap.
pub const MAX_CONFIG_FILES: usize = 100;

/// An app of which nothing else is known.
pub struct Nowhere;

impl Source for Nowhere {
    fn place(&self, _: &[&str]) -> Option<Location> {
        None
    }

    fn read(&self, _: &Path) -> io::Result<HostFile> {
        Err(io::ErrorKind::NotFound.into())
    }
}
