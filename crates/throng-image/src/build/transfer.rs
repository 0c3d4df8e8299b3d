//! COPY and ADD: what is copied where is planned first, in full, so that the cache key covers all of it and a wrong
//! source is found before anything is written.

use super::cache::{CacheKey, KeyBuilder};
use super::glob;
use super::ignore::Ignore;
use crate::digest;
use crate::error::{ImageError, Result};
use crate::layer::{Attributes, Layer, LayerWriter};
use crate::limits::Limits;
use crate::store::Store;
use crate::tarball::{HeaderBudget, clean_path, numbers};
use crate::view::{LayerView, Node, xattr};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Component, Path, PathBuf};
use tar::EntryType;

/// One COPY or ADD with all its variables replaced.
pub(super) struct Job {
    pub sources: Vec<String>,
    /// Absolute; a slash at the end says that it is a folder.
    pub destination: String,
    /// Where the sources are: the build context, or the layers of a stage or image.
    pub from: LayerView,
    /// Left out of the build context; `None` for a stage or image.
    pub ignore: Option<Ignore>,
    /// What the destination is resolved in.
    pub base: LayerView,
    pub owner: Option<(u64, u64)>,
    pub mode: Option<u32>,
    /// ADD: local tar archives are unpacked.
    pub extract: bool,
    /// `--exclude`: left out of each source, by paths relative to it.
    pub exclude: Ignore,
    /// `--parents`: what is copied keeps the folders on the way to it, from `/./` on if the source has that.
    pub parents: bool,
    /// Further sources by name: files of the host.
    pub files: Vec<(String, PathBuf)>,
    pub mtime: u64,
    pub limits: Limits,
}

/// A step that cannot be done as it is written, with what to do about it, or a failure of the machine.
#[derive(Debug)]
pub(super) enum JobError {
    Wrong { message: String, hint: Option<String> },
    Image(ImageError),
}

impl From<ImageError> for JobError {
    fn from(error: ImageError) -> Self {
        JobError::Image(error)
    }
}

fn wrong(message: impl Into<String>) -> JobError {
    JobError::Wrong { message: message.into(), hint: None }
}

fn read_error(path: &Path) -> impl FnOnce(std::io::Error) -> JobError {
    let wrap = ImageError::io("read", path);
    move |error| JobError::Image(wrap(error))
}

enum Planned {
    Folder,
    File {
        host: PathBuf,
        size: u64,
    },
    Symlink(PathBuf),
    Fifo,
    /// A tar archive to be unpacked at this place, which is a folder.
    Archive {
        host: PathBuf,
    },
}

/// What will be where, in the order of the paths, so that a folder comes before what is in it.
pub(super) struct Plan {
    entries: BTreeMap<PathBuf, (Planned, Attributes)>,
    /// Archives are unpacked last; more than one may go to the same folder.
    archives: Vec<(PathBuf, Planned)>,
}

impl Job {
    pub(super) fn plan(&self) -> std::result::Result<Plan, JobError> {
        let mut plan = Plan { entries: BTreeMap::new(), archives: Vec::new() };
        let destination =
            self.base.resolve(Path::new(&self.destination), true).map_err(read_error(Path::new("/")))?;
        let is_folder = destination.node.as_ref().is_some_and(|node| node.metadata.is_dir());
        let mut sources = Vec::new();
        for source in &self.sources {
            let pivot = self.pivot(source)?;
            sources.extend(self.find(source)?.into_iter().map(|(path, node)| {
                let kept = path.strip_prefix(&pivot).unwrap_or(&path).to_owned();
                (path, node, kept)
            }));
        }
        for (name, host) in &self.files {
            let metadata = fs::metadata(host).map_err(read_error(host))?;
            sources.push((name.into(), Node { host: host.clone(), metadata }, name.into()));
        }
        let wants_folder = self.destination.ends_with('/') || self.destination.ends_with("/.");
        if sources.len() > 1 && !wants_folder && !is_folder {
            return Err(JobError::Wrong {
                message: format!("several sources cannot all become {}", self.destination),
                hint: Some(format!("end the destination with a slash: {}/", self.destination)),
            });
        }
        let into = is_folder || wants_folder || self.parents;
        if into && destination.node.as_ref().is_some_and(|node| !node.metadata.is_dir()) {
            return Err(wrong(format!("{} is not a folder in the image", self.destination)));
        }
        for (path, node, kept) in sources {
            let below = if self.parents { kept.parent().map(Path::to_owned) } else { None };
            let target = &destination.path.join(below.unwrap_or_default());
            if node.metadata.is_dir() {
                let target = if self.parents { &destination.path.join(&kept) } else { target };
                self.plan_folder(&mut plan, (&path, &path), &node, target)?;
            } else if self.exclude.excludes(Path::new(path.file_name().unwrap_or_default())) {
                continue;
            } else if self.extract && node.metadata.is_file() && is_archive(&node.host)? {
                plan.archives.push((target.clone(), Planned::Archive { host: node.host }));
            } else {
                let name = path.file_name().unwrap_or_else(|| OsStr::new("file"));
                let target = if into { target.join(name) } else { target.clone() };
                self.plan_entry(&mut plan, &node, target)?;
            }
        }
        Ok(plan)
    }

    /// What is not kept of the way to a source: everything before `/./`.
    fn pivot(&self, source: &str) -> std::result::Result<PathBuf, JobError> {
        match source.split_once("/./").filter(|_| self.parents) {
            Some((before, _)) => self.inside(before),
            None => Ok(PathBuf::new()),
        }
    }

    /// The entries that a source names, as paths in the source's root; at least one.
    fn find(&self, source: &str) -> std::result::Result<Vec<(PathBuf, Node)>, JobError> {
        let relative = self.inside(source)?;
        let found = if glob::has_wildcards(source) {
            self.find_pattern(&relative)?
        } else {
            let resolved = self.from.resolve(&relative, true).map_err(read_error(&relative))?;
            // A link keeps the name it was asked for by, but is excluded by either name.
            match resolved.node {
                Some(node) if !self.excluded(&relative) && !self.excluded(&resolved.path) => {
                    vec![(resolved.path, node)]
                }
                _ => Vec::new(),
            }
        };
        if found.is_empty() {
            let hint = match &self.ignore {
                Some(ignore) if ignore.excludes(&relative) => "a rule in .dockerignore leaves it out",
                Some(_) => "sources are relative to the build context",
                None => "sources are relative to the root of that stage or image",
            };
            return Err(JobError::Wrong {
                message: format!("there is no {source:?} to copy"),
                hint: Some(hint.into()),
            });
        }
        Ok(found)
    }

    /// The source relative to the root, which it must not leave.
    fn inside(&self, source: &str) -> std::result::Result<PathBuf, JobError> {
        let mut path = PathBuf::new();
        for component in Path::new(source).components() {
            match component {
                Component::Normal(part) => path.push(part),
                Component::ParentDir if !path.pop() && self.ignore.is_some() => {
                    return Err(JobError::Wrong {
                        message: format!("{source:?} is outside of the build context"),
                        hint: Some("move it into the context, or choose a context that holds it".into()),
                    });
                }
                _ => {}
            }
        }
        Ok(path)
    }

    fn excluded(&self, path: &Path) -> bool {
        self.ignore.as_ref().is_some_and(|ignore| ignore.excludes(path))
    }

    /// Matches part by part, so that a wildcard never crosses a slash.
    fn find_pattern(&self, pattern: &Path) -> std::result::Result<Vec<(PathBuf, Node)>, JobError> {
        let mut folders = vec![PathBuf::new()];
        let mut found = Vec::new();
        let parts: Vec<&OsStr> = pattern.iter().collect();
        for (at, part) in parts.iter().enumerate() {
            let mut next = Vec::new();
            found.clear();
            for folder in &folders {
                let place = self.from.resolve(folder, true).map_err(read_error(folder))?.path;
                for (name, _) in self.from.list(&place).map_err(read_error(&place))? {
                    if !glob::matches(part.as_bytes(), name.as_bytes()) {
                        continue;
                    }
                    let path = place.join(&name);
                    let resolved = self.from.resolve(&path, true).map_err(read_error(&path))?;
                    if at + 1 < parts.len() {
                        next.push(path);
                    } else if let Some(node) = resolved.node
                        && !self.excluded(&path)
                    {
                        found.push((path, node));
                    }
                }
            }
            folders = next;
        }
        Ok(found)
    }

    /// Plans the content of a folder at or below the source `root`. `target` becomes a folder too.
    fn plan_folder(
        &self,
        plan: &mut Plan,
        (root, source): (&Path, &Path),
        node: &Node,
        target: &Path,
    ) -> std::result::Result<(), JobError> {
        let existing = self.base.lookup(target).map_err(read_error(target))?;
        match existing {
            Some(existing) if !existing.metadata.is_dir() => {
                return Err(wrong(format!(
                    "/{} is not a folder in the image, but it is one in the source",
                    target.display()
                )));
            }
            // The top of a copied tree keeps what it has in the image.
            Some(existing) => {
                plan.entries.entry(target.into()).or_insert((Planned::Folder, kept(&existing)));
            }
            None => {
                let attributes = self.attributes(node)?;
                plan.entries.insert(target.into(), (Planned::Folder, attributes));
            }
        }
        for (name, child) in self.from.list(source).map_err(read_error(source))? {
            let path = source.join(&name);
            let relative = path.strip_prefix(root).unwrap_or(&path);
            let excluded = self.excluded(&path) || self.exclude.excludes(relative);
            let exceptions = self.ignore.iter().chain([&self.exclude]).any(Ignore::has_exceptions);
            let may_hold_kept = child.metadata.is_dir() && exceptions;
            if excluded && !may_hold_kept {
                continue;
            }
            let place = target.join(&name);
            if child.metadata.is_dir() {
                let before = plan.entries.len();
                self.plan_folder(plan, (root, &path), &child, &place)?;
                if excluded && plan.entries.len() == before + 1 {
                    plan.entries.remove(&place);
                }
            } else {
                self.plan_entry(plan, &child, place)?;
            }
        }
        Ok(())
    }

    fn plan_entry(&self, plan: &mut Plan, node: &Node, target: PathBuf) -> std::result::Result<(), JobError> {
        if plan.entries.len() as u64 >= self.limits.layer_entries {
            return Err(ImageError::TooLarge {
                what: "what is copied".into(),
                actual: format!("more than {} entries", self.limits.layer_entries),
                limit: format!("{} entries", self.limits.layer_entries),
                raise: "leave out what the image does not need with .dockerignore".into(),
            }
            .into());
        }
        let existing = self.base.lookup(&target).map_err(read_error(&target))?;
        if target.as_os_str().is_empty() || existing.is_some_and(|existing| existing.metadata.is_dir()) {
            return Err(wrong(format!(
                "/{} is a folder in the image, but a file in the source",
                target.display()
            )));
        }
        let kind = node.metadata.file_type();
        let planned = if kind.is_file() {
            Planned::File { host: node.host.clone(), size: node.metadata.len() }
        } else if kind.is_symlink() {
            Planned::Symlink(fs::read_link(&node.host).map_err(read_error(&node.host))?)
        } else if kind.is_fifo() {
            Planned::Fifo
        } else if kind.is_socket() {
            return Ok(());
        } else {
            return Err(wrong(format!("{} is a device, which cannot be copied", node.host.display())));
        };
        let attributes = self.attributes(node)?;
        plan.entries.insert(target, (planned, attributes));
        Ok(())
    }

    fn attributes(&self, node: &Node) -> std::result::Result<Attributes, JobError> {
        // What comes out of the build context belongs to root; what comes out of an image keeps its owner.
        let from_image = self.ignore.is_none();
        let own = (node.metadata.uid().into(), node.metadata.gid().into());
        let (uid, gid) = self.owner.unwrap_or(if from_image { own } else { (0, 0) });
        let mode = self.mode.filter(|_| !node.metadata.is_symlink()).unwrap_or(node.metadata.mode() & 0o7777);
        let mut xattrs = Vec::new();
        let capability = OsStr::new("security.capability");
        if from_image
            && node.metadata.is_file()
            && let Ok(value) = xattr(&node.host, capability)
        {
            xattrs.push((OsString::from(capability), value));
        }
        Ok(Attributes { mode, uid, gid, xattrs })
    }

    /// Everything that the layer depends on, contents of files included.
    pub(super) fn key(&self, plan: &Plan, chain: Option<&String>) -> Result<CacheKey> {
        let mut key = KeyBuilder::new("copy 1", chain, self.mtime);
        // The owner also goes to folders that have to be made.
        key.part(format!("{:?}", self.owner));
        let archives = plan.archives.iter().map(|(path, planned)| (path, planned, Attributes::default()));
        let entries =
            plan.entries.iter().map(|(path, (planned, attributes))| (path, planned, attributes.clone()));
        for (path, planned, attributes) in entries.chain(archives) {
            key.part(path.as_os_str().as_bytes());
            key.part(format!("{} {} {}", attributes.mode, attributes.uid, attributes.gid));
            for (name, value) in &attributes.xattrs {
                key.part(name.as_bytes());
                key.part(value);
            }
            match planned {
                Planned::Folder => key.part("folder"),
                Planned::Fifo => key.part("fifo"),
                Planned::Symlink(link) => key.part(link.as_os_str().as_bytes()),
                Planned::File { host, .. } => key.part(content(host)?),
                Planned::Archive { host } => {
                    key.part("archive");
                    key.part(content(host)?);
                }
            }
        }
        Ok(key.finish())
    }

    pub(super) fn write(&self, store: &Store, plan: &Plan) -> std::result::Result<Option<Layer>, JobError> {
        let mut writer = LayerWriter::new(store, self.mtime)?;
        for (path, (planned, attributes)) in &plan.entries {
            self.parents(&mut writer, path)?;
            let outcome = match planned {
                Planned::Folder => writer.folder(path, attributes),
                Planned::File { host, size } => {
                    File::open(host).and_then(|file| writer.file(path, attributes, *size, file))
                }
                Planned::Symlink(link) => writer.symlink(path, link, attributes),
                Planned::Fifo => writer.special(EntryType::Fifo, path, attributes, (0, 0)),
                Planned::Archive { .. } => Ok(()),
            };
            let host = match planned {
                Planned::File { host, .. } => host.as_path(),
                _ => path,
            };
            outcome.map_err(ImageError::io("copy", host))?;
        }
        for (target, planned) in &plan.archives {
            if let Planned::Archive { host } = planned {
                self.extract_archive(&mut writer, host, target)?;
            }
        }
        Ok(writer.finish()?)
    }

    /// Folders on the way, with the attributes they have in the image or those of new ones.
    fn parents(&self, writer: &mut LayerWriter, path: &Path) -> Result<()> {
        let mut missing: Vec<&Path> =
            path.ancestors().skip(1).filter(|parent| !writer.has_folder(parent)).collect();
        missing.reverse();
        for parent in missing {
            let existing = self.base.lookup(parent).map_err(ImageError::io("read", parent))?;
            let attributes = match existing.filter(|node| node.metadata.is_dir()) {
                Some(node) => kept(&node),
                None => {
                    let (uid, gid) = self.owner.unwrap_or((0, 0));
                    Attributes { mode: 0o755, uid, gid, xattrs: Vec::new() }
                }
            };
            writer.folder(parent, &attributes).map_err(ImageError::io("write a layer for", parent))?;
        }
        Ok(())
    }

    fn extract_archive(
        &self,
        writer: &mut LayerWriter,
        host: &Path,
        target: &Path,
    ) -> std::result::Result<(), JobError> {
        let what = format!("the archive {}", host.display());
        let file = File::open(host).map_err(read_error(host))?;
        let budget = HeaderBudget::default();
        let mut archive = tar::Archive::new(budget.guard(crate::store::decompress(&what, file)?));
        let damaged = |error: std::io::Error| JobError::Image(ImageError::corrupt(&what, error));
        let mut bytes = 0u64;
        let mut entries = archive.entries().map_err(damaged)?;
        let mut count = 0;
        while let Some(entry) = budget.header(|| entries.next()) {
            let mut entry = entry.map_err(damaged)?;
            bytes = bytes.saturating_add(entry.size());
            if bytes > self.limits.unpacked_layer_bytes || count >= self.limits.layer_entries {
                return Err(ImageError::TooLarge {
                    what: what.clone(),
                    actual: format!("{count} entries, {bytes} bytes"),
                    limit: format!(
                        "{} entries, {} bytes",
                        self.limits.layer_entries, self.limits.unpacked_layer_bytes
                    ),
                    raise: "if you trust the archive, open the store with higher limits".into(),
                }
                .into());
            }
            count += 1;
            self.extract_entry(writer, &mut entry, target, &what)?;
            std::io::copy(&mut entry, &mut std::io::sink()).map_err(damaged)?;
        }
        Ok(())
    }

    fn extract_entry(
        &self,
        writer: &mut LayerWriter,
        entry: &mut tar::Entry<'_, impl std::io::Read>,
        target: &Path,
        what: &str,
    ) -> std::result::Result<(), JobError> {
        let damaged = |error: std::io::Error| JobError::Image(ImageError::corrupt(what, error));
        let safe = |name: &[u8]| {
            clean_path(name).map_err(|reason| {
                JobError::Image(ImageError::UnsafeEntry {
                    what: what.into(),
                    entry: String::from_utf8_lossy(name).into_owned(),
                    reason: reason.into(),
                })
            })
        };
        let relative = safe(&entry.path_bytes())?;
        if relative.as_os_str().is_empty() {
            return Ok(());
        }
        let path = target.join(&relative);
        let header = entry.header().clone();
        let numbers = numbers(&header).map_err(damaged)?;
        let (uid, gid) = self.owner.unwrap_or((numbers.uid, numbers.gid));
        let mode = self.mode.unwrap_or(numbers.mode);
        let attributes = Attributes { mode, uid, gid, xattrs: Vec::new() };
        self.parents(writer, &path)?;
        let link = entry.link_name_bytes().map(|link| link.into_owned()).unwrap_or_default();
        let size = entry.size();
        match header.entry_type() {
            EntryType::Directory => writer.folder(&path, &attributes),
            EntryType::Symlink => {
                writer.symlink(&path, &PathBuf::from(OsString::from_vec(link)), &attributes)
            }
            EntryType::Link => writer.hard_link(&path, &target.join(safe(&link)?), &attributes),
            EntryType::Fifo => writer.special(EntryType::Fifo, &path, &attributes, (0, 0)),
            kind @ (EntryType::Char | EntryType::Block) => {
                let major = header.device_major().map_err(damaged)?.unwrap_or(0);
                let minor = header.device_minor().map_err(damaged)?.unwrap_or(0);
                writer.special(kind, &path, &attributes, (major, minor))
            }
            EntryType::XGlobalHeader => Ok(()),
            _ => writer.file(&path, &attributes, size, entry),
        }
        .map_err(ImageError::io("unpack an archive to", &path))?;
        Ok(())
    }
}

fn kept(node: &Node) -> Attributes {
    Attributes {
        mode: node.metadata.mode() & 0o7777,
        uid: node.metadata.uid().into(),
        gid: node.metadata.gid().into(),
        xattrs: Vec::new(),
    }
}

fn content(host: &Path) -> Result<String> {
    File::open(host).and_then(digest::of_reader).map_err(ImageError::io("read", host))
}

/// True for a tar archive, compressed or not, told by its content as Docker does.
fn is_archive(host: &Path) -> std::result::Result<bool, JobError> {
    use std::io::Read as _;
    let mut start = [0; 512];
    let file = File::open(host).map_err(read_error(host))?;
    let what = host.display().to_string();
    let mut reader = match crate::store::decompress(&what, file) {
        Ok(reader) => reader,
        // Probably an archive, in a compression that is not known: copying it silently would be wrong.
        Err(error @ ImageError::Unsupported { .. }) => return Err(error.into()),
        Err(_) => return Ok(false),
    };
    if reader.read_exact(&mut start).is_err() {
        return Ok(false);
    }
    let header = tar::Header::from_byte_slice(&start);
    // The sum counts the checksum's own field as eight spaces (POSIX pax, ustar interchange format).
    let sum: u32 = start
        .iter()
        .enumerate()
        .map(|(at, b)| if (148..156).contains(&at) { 32 } else { u32::from(*b) })
        .sum();
    Ok(start.iter().any(|b| *b != 0) && header.cksum().is_ok_and(|stored| stored == sum))
}
