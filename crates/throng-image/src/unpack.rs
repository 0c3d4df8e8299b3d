//! A layer's tar stream to a folder in the form that overlayfs mounts.
//!
//! The archive is hostile until proven otherwise: no entry may leave the target folder, neither by its own name nor
//! through links that came before it, and sizes and counts are bounded.

use crate::error::{ImageError, Result};
use crate::limits::Limits;
use crate::limits::MAX_SYMLINKS;
use crate::tarball::{HeaderBudget, clean_path, numbers};
use crate::view::{LayerView, OPAQUE};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use tar::{Entry, EntryType};
use throng_model::units::format_bytes;

/// Marks of the OCI image specification, "Whiteouts".
pub(crate) const WHITEOUT_PREFIX: &[u8] = b".wh.";
pub(crate) const OPAQUE_MARK: &[u8] = b".wh..wh..opq";
/// Names such as `.wh..wh.plnk` are the bookkeeping of an old union file system.
const RESERVED_PREFIX: &[u8] = b".wh..wh.";
const XATTR_RECORD: &str = "SCHILY.xattr.";
/// Different remarks that are kept about one layer.
const MAX_NOTES: usize = 20;

/// What came of unpacking one layer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Unpacked {
    /// Bytes of regular files.
    pub bytes: u64,
    pub notes: Vec<String>,
}

/// Owner, mode, attributes and time of one entry, read before its content.
struct Attributes {
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: i64,
    xattrs: Vec<(OsString, Vec<u8>)>,
}

struct Unpacker<'a> {
    what: &'a str,
    target: &'a Path,
    below: &'a LayerView,
    limits: Limits,
    root: bool,
    bytes: u64,
    notes: BTreeSet<String>,
    /// Folders get their mode and time last: a folder without write permission must still be filled.
    folders: BTreeMap<PathBuf, Attributes>,
}

/// Unpacks into `target`, an empty folder that nobody else can reach. `below` gives the attributes of folders that
/// the archive only implies.
pub(crate) fn unpack_layer(
    what: &str,
    reader: &mut dyn Read,
    target: &Path,
    below: &LayerView,
    limits: Limits,
) -> Result<Unpacked> {
    let mut unpacker = Unpacker {
        what,
        target,
        below,
        limits,
        root: rustix::process::geteuid().is_root() && !is_ordinary_user_inside(),
        bytes: 0,
        notes: BTreeSet::new(),
        folders: BTreeMap::new(),
    };
    unpacker.take_over_folder(Path::new(""))?;
    let budget = HeaderBudget::default();
    let mut archive = tar::Archive::new(budget.guard(reader));
    let mut entries = archive.entries().map_err(|error| ImageError::corrupt(what, error))?;
    let mut count = 0;
    while let Some(entry) = budget.header(|| entries.next()) {
        if count >= limits.layer_entries {
            return Err(
                unpacker.over(format!("{count} entries"), format!("{} entries", limits.layer_entries))
            );
        }
        count += 1;
        let mut entry = entry.map_err(|error| ImageError::corrupt(what, error))?;
        unpacker.entry(&mut entry)?;
        io::copy(&mut entry, &mut io::sink()).map_err(|error| ImageError::corrupt(what, error))?;
    }
    unpacker.finish()
}

impl Unpacker<'_> {
    fn over(&self, actual: String, limit: String) -> ImageError {
        ImageError::TooLarge {
            what: format!("unpacked {}", self.what),
            actual,
            limit,
            raise: "if you trust the image, open the store with higher limits".into(),
        }
    }

    fn note(&mut self, note: impl Into<String>) {
        if self.notes.len() < MAX_NOTES {
            self.notes.insert(note.into());
        }
    }

    fn unsafe_entry(&self, entry: &Path, reason: impl Into<String>) -> ImageError {
        ImageError::UnsafeEntry {
            what: self.what.into(),
            entry: entry.display().to_string(),
            reason: reason.into(),
        }
    }

    fn entry(&mut self, entry: &mut Entry<'_, impl Read>) -> Result<()> {
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            return Ok(());
        }
        let name = entry.path_bytes().into_owned();
        let relative = clean_path(&name)
            .map_err(|reason| self.unsafe_entry(Path::new(OsStr::from_bytes(&name)), reason))?;
        let Some(last) = relative.file_name().map(OsStr::to_os_string) else {
            // The archive's entry for the root itself.
            let attributes = self.attributes(entry)?;
            self.folders.insert(PathBuf::new(), attributes);
            return Ok(());
        };
        let parent = self.make_parent(relative.parent().unwrap_or(Path::new("")), &relative)?;
        if last.as_bytes().starts_with(WHITEOUT_PREFIX) {
            return self.whiteout(&parent, last.as_bytes(), &relative);
        }
        let place = parent.join(&last);
        let attributes = self.attributes(entry)?;
        self.clear(&place, kind == EntryType::Directory)?;
        match kind {
            EntryType::Directory => {
                let host = self.target.join(&place);
                if !host.is_dir() {
                    fs::create_dir(&host).map_err(ImageError::io("create", &host))?;
                }
                self.folders.insert(place, attributes);
                Ok(())
            }
            EntryType::Link => self.hard_link(entry, &place),
            EntryType::Symlink => self.symbolic_link(entry, &place, &attributes),
            EntryType::Char | EntryType::Block | EntryType::Fifo => {
                self.special(entry, kind, &place, &attributes)
            }
            _ if kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse() => {
                self.regular(entry, &place, &attributes)
            }
            _ => {
                self.note(format!("entries of the tar type {:?} were left out", kind.as_byte() as char));
                Ok(())
            }
        }
    }

    fn attributes(&mut self, entry: &mut Entry<'_, impl Read>) -> Result<Attributes> {
        let what = self.what;
        let damaged = |error: io::Error| ImageError::corrupt(what, error);
        let header = entry.header();
        let numbers = numbers(header).map_err(damaged)?;
        let mode = numbers.mode & 0o7777;
        // The id -1 means "leave it" to the kernel, and what is larger is no id at all.
        let id = |id: u64| u32::try_from(id).ok().filter(|id| *id != u32::MAX).unwrap_or(u32::MAX - 1);
        let (uid, gid) = (id(numbers.uid), id(numbers.gid));
        let mtime = i64::try_from(numbers.mtime).unwrap_or(i64::MAX);
        let mut attributes = Attributes { mode, uid, gid, mtime, xattrs: Vec::new() };
        let mut foreign = false;
        if let Some(records) = entry.pax_extensions().map_err(damaged)? {
            for record in records {
                let record = record.map_err(damaged)?;
                let Ok(key) = record.key() else { continue };
                let number =
                    record.value().ok().and_then(|value| value.split('.').next()?.parse::<i64>().ok());
                match (key, number) {
                    ("uid", Some(id)) => attributes.uid = u32::try_from(id).unwrap_or(attributes.uid),
                    ("gid", Some(id)) => attributes.gid = u32::try_from(id).unwrap_or(attributes.gid),
                    ("mtime", Some(seconds)) => attributes.mtime = seconds,
                    _ => {}
                }
                if let Some(name) = key.strip_prefix(XATTR_RECORD) {
                    // These would change what overlayfs makes of the layer: they could show files of other layers.
                    if name.starts_with("trusted.") || name.starts_with("user.overlay.") {
                        foreign = true;
                    } else {
                        attributes.xattrs.push((name.into(), record.value_bytes().to_vec()));
                    }
                }
            }
        }
        if foreign {
            self.note("attributes that steer overlayfs were left out");
        }
        Ok(attributes)
    }

    /// The real place of an entry's folder: links on the way are followed inside the target only, and folders that
    /// the archive only implies are made with the attributes they have in the layers below.
    fn make_parent(&mut self, folder: &Path, entry: &Path) -> Result<PathBuf> {
        let mut pending: Vec<OsString> = folder.iter().rev().map(OsStr::to_os_string).collect();
        let mut place = PathBuf::new();
        let mut links = 0;
        while let Some(part) = pending.pop() {
            if part == ".." {
                if !place.pop() {
                    return Err(self.unsafe_entry(entry, "leaves the layer through a symbolic link"));
                }
                continue;
            }
            let next = place.join(&part);
            let host = self.target.join(&next);
            match fs::symlink_metadata(&host) {
                Ok(metadata) if metadata.is_dir() => place = next,
                Ok(metadata) if metadata.is_symlink() => {
                    links += 1;
                    let link = fs::read_link(&host).map_err(ImageError::io("read", &host))?;
                    if links > MAX_SYMLINKS || link.is_absolute() {
                        return Err(self.unsafe_entry(entry, "leaves the layer through a symbolic link"));
                    }
                    pending.extend(link.iter().rev().filter(|part| *part != ".").map(OsStr::to_os_string));
                }
                Ok(_) => {
                    fs::remove_file(&host).map_err(ImageError::io("replace", &host))?;
                    self.imply_folder(&next)?;
                    place = next;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.imply_folder(&next)?;
                    place = next;
                }
                Err(error) => return Err(ImageError::io("look at", &host)(error)),
            }
        }
        Ok(place)
    }

    fn imply_folder(&mut self, place: &Path) -> Result<()> {
        let host = self.target.join(place);
        fs::create_dir(&host).map_err(ImageError::io("create", &host))?;
        self.take_over_folder(place)
    }

    /// Gives a folder the attributes it has below, or those of a new folder of root.
    fn take_over_folder(&mut self, place: &Path) -> Result<()> {
        let below = self.below.lookup(place).map_err(ImageError::io("look at", place))?;
        let attributes = match below.filter(|node| node.metadata.is_dir()) {
            Some(node) => Attributes {
                mode: node.metadata.mode() & 0o7777,
                uid: node.metadata.uid(),
                gid: node.metadata.gid(),
                mtime: node.metadata.mtime(),
                xattrs: Vec::new(),
            },
            None => Attributes { mode: 0o755, uid: 0, gid: 0, mtime: 0, xattrs: Vec::new() },
        };
        self.folders.insert(place.to_path_buf(), attributes);
        Ok(())
    }

    /// A later entry replaces an earlier one of the same name; only a folder over a folder keeps what is in it.
    fn clear(&self, place: &Path, folder: bool) -> Result<()> {
        let host = self.target.join(place);
        match fs::symlink_metadata(&host) {
            Ok(metadata) if metadata.is_dir() && folder => Ok(()),
            Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(&host),
            Ok(_) => fs::remove_file(&host),
            Err(_) => Ok(()),
        }
        .map_err(ImageError::io("replace", &host))
    }

    fn whiteout(&mut self, parent: &Path, name: &[u8], entry: &Path) -> Result<()> {
        if name == OPAQUE_MARK {
            return set_opaque(&self.target.join(parent), self.root);
        }
        if name.starts_with(RESERVED_PREFIX) {
            return Ok(());
        }
        let hidden = &name[WHITEOUT_PREFIX.len()..];
        if hidden.is_empty() || hidden == b"." || hidden == b".." {
            return Err(self.unsafe_entry(entry, "hides a name that no file can have"));
        }
        let host = self.target.join(parent).join(OsStr::from_bytes(hidden));
        if fs::symlink_metadata(&host).is_ok() {
            // The same layer makes the name anew, so there is nothing to hide.
            return Ok(());
        }
        // Since Linux 5.8 everybody may make this one device.
        rustix::fs::mknodat(CWD, &host, FileType::CharacterDevice, Mode::empty(), 0)
            .map_err(|error| ImageError::io("make a whiteout at", &host)(error.into()))
    }

    fn regular(
        &mut self,
        entry: &mut Entry<'_, impl Read>,
        place: &Path,
        attributes: &Attributes,
    ) -> Result<()> {
        let host = self.target.join(place);
        self.bytes = self.bytes.saturating_add(entry.size());
        if self.bytes > self.limits.unpacked_layer_bytes {
            return Err(self.over(format_bytes(self.bytes), format_bytes(self.limits.unpacked_layer_bytes)));
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&host)
            .map_err(ImageError::io("create", &host))?;
        let expected = entry.size();
        let copied = copy(self.what, entry, &mut file, &host)?;
        if copied != expected {
            return Err(ImageError::corrupt(self.what, format!("it ends inside {}", place.display())));
        }
        drop(file);
        self.apply(&host, attributes)
    }

    fn hard_link(&mut self, entry: &Entry<'_, impl Read>, place: &Path) -> Result<()> {
        let name = entry.link_name_bytes().unwrap_or_default().into_owned();
        let shown = PathBuf::from(OsStr::from_bytes(&name));
        let relative = clean_path(&name).map_err(|reason| self.unsafe_entry(&shown, reason))?;
        let Some(last) = relative.file_name() else {
            return Err(self.unsafe_entry(place, "is a hard link to a folder"));
        };
        let source = self.make_parent(relative.parent().unwrap_or(Path::new("")), &relative)?.join(last);
        let (from, to) = (self.target.join(&source), self.target.join(place));
        match fs::symlink_metadata(&from) {
            Ok(metadata) if metadata.is_dir() => {
                return Err(self.unsafe_entry(place, "is a hard link to a folder"));
            }
            Ok(_) => {}
            Err(_) => {
                return Err(ImageError::corrupt(
                    self.what,
                    format!(
                        "{} is a hard link to {}, which is not in the layer",
                        place.display(),
                        shown.display()
                    ),
                ));
            }
        }
        rustix::fs::linkat(CWD, &from, CWD, &to, AtFlags::empty())
            .map_err(|error| ImageError::io("make the hard link", &to)(error.into()))
    }

    fn symbolic_link(
        &mut self,
        entry: &Entry<'_, impl Read>,
        place: &Path,
        attributes: &Attributes,
    ) -> Result<()> {
        let host = self.target.join(place);
        // Where it points does not matter here: it is resolved inside the container, and never by this program.
        let link = entry.link_name_bytes().unwrap_or_default().into_owned();
        symlink(OsStr::from_bytes(&link), &host).map_err(ImageError::io("create", &host))?;
        self.own(&host, attributes)?;
        set_time(&host, attributes.mtime)
    }

    fn special(
        &mut self,
        entry: &Entry<'_, impl Read>,
        kind: EntryType,
        place: &Path,
        attributes: &Attributes,
    ) -> Result<()> {
        let host = self.target.join(place);
        let (file_type, device) = match kind {
            EntryType::Fifo => (FileType::Fifo, 0),
            _ => {
                let number = |value: io::Result<Option<u32>>| value.ok().flatten().unwrap_or(0);
                let (major, minor) =
                    (number(entry.header().device_major()), number(entry.header().device_minor()));
                let character = kind == EntryType::Char;
                if character && (major, minor) == (0, 0) {
                    return Err(self.unsafe_entry(place, "is a device that overlayfs takes for a whiteout"));
                }
                let file_type = if character { FileType::CharacterDevice } else { FileType::BlockDevice };
                (file_type, rustix::fs::makedev(major, minor))
            }
        };
        match rustix::fs::mknodat(CWD, &host, file_type, Mode::from_raw_mode(0o600), device) {
            Ok(()) => self.apply(&host, attributes),
            Err(rustix::io::Errno::PERM) => {
                self.note("device nodes were left out: only root can make them");
                Ok(())
            }
            Err(error) => Err(ImageError::io("make a device at", &host)(error.into())),
        }
    }

    /// Owner first: a change of owner clears the set-user-id bits and the capabilities.
    fn apply(&mut self, host: &Path, attributes: &Attributes) -> Result<()> {
        self.own(host, attributes)?;
        fs::set_permissions(host, fs::Permissions::from_mode(attributes.mode))
            .map_err(ImageError::io("set the mode of", host))?;
        for (name, value) in &attributes.xattrs {
            if rustix::fs::lsetxattr(host, name.as_bytes(), value, XattrFlags::empty()).is_err() {
                self.note(format!("the attribute {} could not be kept", name.to_string_lossy()));
            }
        }
        set_time(host, attributes.mtime)
    }

    fn own(&mut self, host: &Path, attributes: &Attributes) -> Result<()> {
        if !self.root {
            if (attributes.uid, attributes.gid) != (0, 0) {
                self.note("owners were not kept: only root can give files away");
            }
            return Ok(());
        }
        let (uid, gid) = (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid));
        match rustix::fs::chownat(CWD, host, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(()) => Ok(()),
            // Inside a user namespace only its own ids exist.
            Err(rustix::io::Errno::PERM | rustix::io::Errno::INVAL) => {
                self.note("owners outside of this user namespace were not kept");
                Ok(())
            }
            Err(error) => Err(ImageError::io("set the owner of", host)(error.into())),
        }
    }

    fn finish(mut self) -> Result<Unpacked> {
        // Deepest first: a folder that its owner may not enter would hide the ones in it.
        for (place, attributes) in std::mem::take(&mut self.folders).into_iter().rev() {
            let host = self.target.join(&place);
            // A folder may have been replaced by a later entry.
            if fs::symlink_metadata(&host).is_ok_and(|metadata| metadata.is_dir()) {
                self.apply(&host, &attributes)?;
            }
        }
        Ok(Unpacked { bytes: self.bytes, notes: self.notes.into_iter().collect() })
    }
}

/// Whether an ordinary user appears here as root, in a user namespace of its own. Layers that this user unpacks belong
/// to it alone, in the namespace or out of it: it could not remove them otherwise.
fn is_ordinary_user_inside() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let mut fields = map.split_whitespace();
    (fields.next(), fields.nth(1)) == (Some("0"), Some("1"))
}

fn copy(what: &str, entry: &mut Entry<'_, impl Read>, file: &mut File, host: &Path) -> Result<u64> {
    use std::io::Write as _;
    let mut buffer = vec![0; 1 << 16];
    let mut total = 0;
    loop {
        // Reading and writing fail for different reasons: one is the image's fault, one the disk's.
        let read = entry.read(&mut buffer).map_err(|error| ImageError::corrupt(what, error))?;
        if read == 0 {
            return Ok(total);
        }
        file.write_all(&buffer[..read]).map_err(ImageError::io("write", host))?;
        total += read as u64;
    }
}

fn set_time(host: &Path, seconds: i64) -> Result<()> {
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, host, &times, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|error| ImageError::io("set the time of", host)(error.into()))
}

/// Marks a folder as hiding everything below it, in the name space that this user's mounts look at.
fn set_opaque(host: &Path, root: bool) -> Result<()> {
    let [trusted, user] = OPAQUE;
    let set = |name: &str| rustix::fs::lsetxattr(host, name, b"y", XattrFlags::empty());
    let outcome = if root { set(trusted).or_else(|_| set(user)) } else { set(user) };
    outcome.map_err(|error| ImageError::io("mark as opaque", host)(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An archive of everything that a layer can hold, to be damaged.
    fn archive() -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        let records = [("SCHILY.xattr.user.a", &b"b"[..]), ("mtime", b"12.5")];
        for (kind, name, content) in [
            (EntryType::Directory, "d/", ""),
            (EntryType::Regular, "d/f", "content"),
            (EntryType::Regular, "d/.wh.x", ""),
            (EntryType::Symlink, "s", "d"),
            (EntryType::Regular, "s/through", "x"),
            (EntryType::Link, "h", "d/f"),
            (EntryType::Fifo, "p", ""),
        ] {
            tar.append_pax_extensions(records).unwrap();
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(0o644);
            if kind.is_symlink() || kind.is_hard_link() {
                header.set_size(0);
                tar.append_link(&mut header, name, content).unwrap();
            } else {
                header.set_size(content.len() as u64);
                tar.append_data(&mut header, name, content.as_bytes()).unwrap();
            }
        }
        tar.into_inner().unwrap()
    }

    fn unpack(bytes: &[u8], target: &Path) -> Result<Unpacked> {
        let limits = Limits { unpacked_layer_bytes: 1 << 20, layer_entries: 100 };
        let mut bytes = bytes;
        unpack_layer("x", &mut bytes, target, &LayerView::default(), limits)
    }

    #[test]
    fn the_undamaged_archive_unpacks() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(unpack(&archive(), dir.path()).unwrap().bytes, 8);
        assert_eq!(fs::metadata(dir.path().join("d/through")).unwrap().mtime(), 12);
    }

    #[test]
    fn names_without_end_do_not_fill_the_memory() {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(EntryType::GNULongName);
        header.set_size(1 << 40);
        header.set_cksum();
        let dir = tempfile::tempdir().unwrap();
        let mut endless = header.as_bytes().chain(io::repeat(b'a'));
        let limits = Limits::default();
        let error = unpack_layer("x", &mut endless, dir.path(), &LayerView::default(), limits).unwrap_err();
        assert!(error.to_string().contains("headers of an entry"), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn no_damage_makes_it_panic_or_leave_its_folder(
            changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..6),
            cut in any::<proptest::sample::Index>(),
            fix_sums in any::<bool>(),
        ) {
            let mut bytes = archive();
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            if fix_sums {
                for block in bytes.chunks_mut(512).filter(|block| block[257..262] == *b"ustar") {
                    let mut header = tar::Header::from_byte_slice(block).clone();
                    header.set_cksum();
                    block.copy_from_slice(header.as_bytes());
                }
            } else {
                bytes.truncate(cut.index(bytes.len()));
            }
            let dir = tempfile::tempdir().unwrap();
            let target = dir.path().join("layer");
            fs::create_dir(&target).unwrap();
            let _ = unpack(&bytes, &target);
            prop_assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        }
    }
}
