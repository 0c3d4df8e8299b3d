//! `throng build`: a Dockerfile to an image, without a daemon.
//!
//! The same input gives the same image id: times in layers and history are [`BuildOptions::source_date_epoch`],
//! entries are sorted, and nothing of the machine goes in. Stages that the target does not need are not built.

mod cache;
mod capture;
mod glob;
mod ignore;
mod metadata;
mod stage;
mod transfer;
mod users;

use crate::config::ConfigFile;
use crate::dockerfile::{self, Dockerfile, Kind, Stage};
use crate::error::{BuildError, ImageError, Result};
use crate::layer::Layer;
use crate::limits::{self, check_size};
use crate::reference::parse_reference;
use crate::store::{Entry, Image, InUse, Store};
use async_trait::async_trait;
use ignore::Ignore;
use oci_spec::distribution::Reference;
use oci_spec::image::{Descriptor, ImageManifest, ImageManifestBuilder, MediaType, SCHEMA_VERSION};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use throng_model::diagnostic::{Diagnostic, Location};
use throng_model::replica::{Process, ResolvedMount};
use throng_model::sandbox::Sandbox;
use tokio::sync::mpsc;

/// Pieces of a RUN step's output that may wait for the terminal before the command is held up.
pub const OUTPUT_QUEUE: usize = 256;

#[derive(Debug, Clone, Default)]
pub struct BuildOptions {
    /// The folder that COPY and ADD read from.
    pub context: PathBuf,
    /// Path of the Dockerfile; relative to the current folder.
    pub dockerfile: PathBuf,
    /// The Dockerfile's text itself; the path then only says where findings are.
    pub text: Option<String>,
    /// Names for the image; it may have none.
    pub tags: Vec<String>,
    /// The stage to build, by name or number; `None` is the last one.
    pub target: Option<String>,
    /// Values for ARG.
    pub args: BTreeMap<String, String>,
    /// Carry out every step again.
    pub no_cache: bool,
    /// Labels beside those of the Dockerfile; they win.
    pub labels: BTreeMap<String, String>,
    /// What FROM, COPY --from and RUN --mount find by name before stages and images.
    pub contexts: BTreeMap<String, ContextSource>,
    /// What RUN --mount=type=secret finds by its id.
    pub secrets: BTreeMap<String, Secret>,
    /// What surrounds RUN: further hosts, limits, size of /dev/shm.
    pub sandbox: Sandbox,
    /// RUN has no network.
    pub offline: bool,
    /// Seconds since 1970 that all times in the image get. The command takes it from `SOURCE_DATE_EPOCH`
    /// (<https://reproducible-builds.org/specs/source-date-epoch/>).
    pub source_date_epoch: u64,
}

/// A context beside the main one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContextSource {
    Folder(PathBuf),
    Image(String),
}

/// A secret, and how it looks where the Dockerfile does not say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    pub content: SecretContent,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub mode: Option<u32>,
}

#[derive(Clone, PartialEq, Eq)]
pub enum SecretContent {
    File(PathBuf),
    Text(String),
}

/// Without the secret itself.
impl std::fmt::Debug for SecretContent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            SecretContent::File(path) => f.debug_tuple("File").field(path).finish(),
            SecretContent::Text(_) => f.write_str("Text(…)"),
        }
    }
}

/// A RUN instruction, ready to be carried out.
#[derive(Debug)]
pub struct RunStep {
    /// Unpacked layers below, bottom first; empty for a stage that is still empty.
    pub layers: Vec<PathBuf>,
    /// Overlay's upper folder: all that the command changes ends here, in overlayfs's own form. Mount with
    /// `redirect_dir=off,metacopy=off`; as root without `userxattr`, otherwise with it.
    pub upper: PathBuf,
    /// Overlay's work folder, empty, on the same file system.
    pub work: PathBuf,
    pub process: Process,
    /// What is mounted while the command runs, and is no part of the layer; parents before children.
    pub mounts: Vec<ResolvedMount>,
    /// Further hosts, limits and the size of /dev/shm; nothing else of it is asked for.
    pub sandbox: Sandbox,
    /// Without a network.
    pub offline: bool,
    /// Receives what the command writes to standard output and error. Wait when it is full.
    pub output: mpsc::Sender<Vec<u8>>,
}

/// Runs one command over a stack of layers, isolated like a container.
#[async_trait]
pub trait StepRunner: Send + Sync {
    /// The command's exit code (128 + signal if a signal ended it), or why it could not be run.
    async fn run(&self, step: RunStep) -> std::result::Result<i32, String>;
}

/// Something to show while a build goes on.
#[derive(Debug, Clone, PartialEq)]
pub enum BuildEvent<'a> {
    Warning(&'a Diagnostic),
    StepStarted {
        /// From 1 to `steps`, over all stages that are built.
        step: usize,
        steps: usize,
        /// The stage's name, or its number if it has none.
        stage: &'a str,
        /// The instruction on one line.
        text: &'a str,
    },
    /// A line or a piece of one, as the command of a RUN step wrote it.
    Output(&'a [u8]),
    StepFinished {
        cached: bool,
    },
}

pub trait BuildProgress: Send + Sync {
    fn event(&self, event: BuildEvent<'_>);
}

/// Shows nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl BuildProgress for Silent {
    fn event(&self, _event: BuildEvent<'_>) {}
}

/// Refuses every RUN instruction; for machines where nothing can be isolated.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoRunner;

#[async_trait]
impl StepRunner for NoRunner {
    async fn run(&self, _step: RunStep) -> std::result::Result<i32, String> {
        Err("there is no engine here that could run a command".into())
    }
}

/// What a stage came to.
#[derive(Debug, Clone)]
struct Built {
    config: ConfigFile,
    layers: Vec<Layer>,
    /// The base's own layer descriptors keep their media types.
    descriptors: Vec<Descriptor>,
}

/// What all stages share.
struct Shared<'a> {
    store: &'a Store,
    options: &'a BuildOptions,
    dockerfile: Dockerfile,
    ignore: Arc<Ignore>,
    runner: &'a dyn StepRunner,
    progress: &'a dyn BuildProgress,
}

/// Builds the image and gives it its names. On an error no name has changed and no image was added; finished steps
/// stay in the build cache.
///
/// # Errors
/// [`BuildError::Dockerfile`] with all findings about the text before anything is done; [`BuildError::Step`] with
/// the line of the instruction that failed.
pub async fn build(
    store: &Store,
    options: &BuildOptions,
    runner: &dyn StepRunner,
    progress: &dyn BuildProgress,
) -> std::result::Result<Image, BuildError> {
    let names: Vec<Reference> = options.tags.iter().map(|tag| parse_reference(tag)).collect::<Result<_>>()?;
    let dockerfile = parse(options)?;
    if !options.context.is_dir() {
        let error = io::Error::new(io::ErrorKind::NotADirectory, "it is not a folder");
        return Err(ImageError::io("use the build context", &options.context)(error).into());
    }
    let target = target_stage(&dockerfile, options.target.as_deref())?;
    let needed = needed_stages(&dockerfile, target);
    let ignore = Arc::new(read_ignore(Some(&options.dockerfile), &options.context)?);
    let shared = Shared { store, options, dockerfile, ignore, runner, progress };
    for warning in shared.dockerfile.warnings.iter().chain(&unused_args(&shared.dockerfile, &options.args)) {
        progress.event(BuildEvent::Warning(warning));
    }
    // Blobs that no name refers to yet must outlive the build.
    let _in_use = in_use(store).await?;
    let steps = needed.iter().map(|at| shared.dockerfile.stages[*at].instructions.len()).sum();
    let mut done: BTreeMap<usize, Built> = BTreeMap::new();
    let mut step = 0;
    for at in needed {
        let built = stage::build(&shared, at, &done, &mut step, steps).await?;
        done.insert(at, built);
    }
    let mut built =
        done.remove(&target).ok_or_else(|| ImageError::corrupt("the build", "its target was not built"))?;
    built.config.config.labels.extend(options.labels.clone());
    let store = store.clone();
    Ok(blocking(move || finish(&store, built, &names)).await?)
}

fn parse(options: &BuildOptions) -> std::result::Result<Dockerfile, BuildError> {
    let text = match &options.text {
        Some(text) => text.clone(),
        None => read_text(&options.dockerfile)?.ok_or_else(|| {
            let error = io::Error::new(io::ErrorKind::NotFound, "no such file");
            ImageError::io("read the Dockerfile", &options.dockerfile)(error)
        })?,
    };
    dockerfile::parse(&text, &options.dockerfile).map_err(BuildError::Dockerfile)
}

/// Images that the build needs to be in the store, each with the place that first asks for it. Of stages that are not
/// built nothing is needed.
///
/// # Errors
/// What is wrong with the Dockerfile.
pub fn needed_images(options: &BuildOptions) -> std::result::Result<Vec<(String, Location)>, BuildError> {
    let dockerfile = parse(options)?;
    let target = target_stage(&dockerfile, options.target.as_deref())?;
    let globals = stage::global_args(&dockerfile, &options.args)?;
    let mut images: Vec<(String, Location)> = Vec::new();
    for at in needed_stages(&dockerfile, target) {
        let stage = &dockerfile.stages[at];
        let base = stage::base_name(&dockerfile, stage, &globals)?;
        let sources = stage.instructions.iter().flat_map(|instruction| {
            froms(&instruction.kind)
                .into_iter()
                .map(move |from| (from.to_owned(), instruction.place.location.clone()))
        });
        let base_stage = find_named(&dockerfile.stages, &base, at);
        let is_image = |name: &str| name != "scratch" && base_stage.is_none();
        let base = Some((base.clone(), stage.place.location.clone())).filter(|(name, _)| is_image(name));
        let sources = sources.filter(|(name, _)| {
            !name.contains('$') && find_stage(&dockerfile.stages, name, dockerfile.stages.len()).is_none()
        });
        for (name, location) in base.into_iter().chain(sources) {
            let name = match options.contexts.get(&name) {
                Some(ContextSource::Folder(_)) => continue,
                Some(ContextSource::Image(image)) => image.clone(),
                None => name,
            };
            if !images.iter().any(|(known, _)| *known == name) {
                images.push((name, location));
            }
        }
    }
    Ok(images)
}

/// What an instruction copies or mounts from, if it is not the build context.
fn froms(kind: &Kind) -> Vec<&str> {
    match kind {
        Kind::Copy(transfer) => transfer.from.as_deref().into_iter().collect(),
        Kind::Run(run) => run.mounts.iter().filter_map(|mount| mount.from.as_deref()).collect(),
        _ => Vec::new(),
    }
}

/// Runs file work where it does not hold up the other tasks.
pub(crate) async fn blocking<T: Send + 'static, E: Send + 'static>(
    work: impl FnOnce() -> std::result::Result<T, E> + Send + 'static,
) -> std::result::Result<T, E> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        // The task is never cancelled, so this can only be its panic, which belongs to the caller.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// [`Store::in_use`] may have to wait for another process.
pub(crate) async fn in_use(store: &Store) -> Result<InUse> {
    let store = store.clone();
    blocking(move || store.in_use()).await
}

fn read_text(path: &Path) -> Result<Option<String>> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(ImageError::io("read", path)(error)),
    };
    let mut bytes = Vec::new();
    file.take(limits::MAX_DOCKERFILE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(ImageError::io("read", path))?;
    check_size(&path.display().to_string(), bytes.len() as u64, limits::MAX_DOCKERFILE_BYTES)?;
    String::from_utf8(bytes)
        .map(Some)
        .map_err(|_| ImageError::corrupt(path.display().to_string(), "it is not UTF-8 text"))
}

/// `<Dockerfile>.dockerignore` beside the Dockerfile, or `.dockerignore` in the context.
fn read_ignore(dockerfile: Option<&Path>, context: &Path) -> Result<Ignore> {
    let own = dockerfile.map(|path| {
        let mut own = path.as_os_str().to_owned();
        own.push(".dockerignore");
        PathBuf::from(own)
    });
    let text = match own.map(|own| read_text(&own)).transpose()?.flatten() {
        Some(text) => Some(text),
        None => read_text(&context.join(".dockerignore"))?,
    };
    Ok(Ignore::parse(&text.unwrap_or_default()))
}

fn target_stage(dockerfile: &Dockerfile, target: Option<&str>) -> std::result::Result<usize, BuildError> {
    let Some(target) = target else { return Ok(dockerfile.stages.len() - 1) };
    find_stage(&dockerfile.stages, target, dockerfile.stages.len()).ok_or_else(|| {
        let names: Vec<&str> = dockerfile.stages.iter().filter_map(|stage| stage.name.as_deref()).collect();
        let finding = Diagnostic::error(format!("there is no stage {target:?} to build"));
        let finding = if names.is_empty() {
            finding.hint("no stage has a name; write FROM … AS name")
        } else {
            finding.hint(format!("stages are {}", names.join(", ")))
        };
        BuildError::Dockerfile(vec![finding])
    })
}

/// The stage among the first `before` that `name` means.
fn find_stage(stages: &[Stage], name: &str, before: usize) -> Option<usize> {
    find_named(stages, name, before).or_else(|| name.parse().ok().filter(|at| *at < before))
}

fn find_named(stages: &[Stage], name: &str, before: usize) -> Option<usize> {
    let lower = name.to_ascii_lowercase();
    stages[..before].iter().position(|stage| stage.name.as_deref() == Some(&lower))
}

/// The target and all stages that it builds on or copies from, in the order of the file.
fn needed_stages(dockerfile: &Dockerfile, target: usize) -> BTreeSet<usize> {
    let mut needed = BTreeSet::new();
    let mut pending = vec![target];
    while let Some(at) = pending.pop() {
        if !needed.insert(at) {
            continue;
        }
        let stage = &dockerfile.stages[at];
        let sources = stage.instructions.iter().flat_map(|instruction| froms(&instruction.kind));
        pending.extend(find_named(&dockerfile.stages, &stage.base, at));
        pending.extend(sources.filter_map(|name| find_stage(&dockerfile.stages, name, at)));
        // A base that contains variables may turn out to be any earlier stage.
        if stage.base.contains('$') {
            pending.extend(0..at);
        }
    }
    needed
}

fn unused_args(dockerfile: &Dockerfile, args: &BTreeMap<String, String>) -> Vec<Diagnostic> {
    let declared = |name: &str| {
        let in_stages = dockerfile.stages.iter().flat_map(|stage| &stage.instructions).any(|instruction| {
            matches!(&instruction.kind, Kind::Arg(list) if list.iter().any(|arg| arg.name == name))
        });
        in_stages || dockerfile.global_args.iter().any(|arg| arg.name == name) || stage::is_predefined(name)
    };
    args.keys()
        .filter(|name| !declared(name))
        .map(|name| {
            Diagnostic::warning(format!("the build argument {name} is given, but no ARG declares it"))
                .hint(format!("add ARG {name} to the stage that uses it"))
        })
        .collect()
}

/// Writes configuration and manifest and names the image.
fn finish(store: &Store, built: Built, names: &[Reference]) -> Result<Image> {
    let failed = |error: serde_json::Error| ImageError::corrupt("the new image's configuration", error);
    limits::check_layer_count("the new image", built.descriptors.len())?;
    let config = serde_json::to_vec(&built.config).map_err(failed)?;
    let config_digest = store.put_blob(&config)?;
    let manifest = manifest(&config_digest, config.len() as u64, built.descriptors)?;
    let manifest = serde_json::to_vec(&manifest).map_err(failed)?;
    let manifest_digest = store.put_blob(&manifest)?;
    let entry = Entry {
        name: None,
        manifest_digest: manifest_digest.clone(),
        media_type: MediaType::ImageManifest.to_string(),
        size: manifest.len() as u64,
    };
    store.name_manifest(&entry, names)?;
    store.image(&manifest_digest, names.first().map(Reference::to_string).as_deref())
}

/// An OCI manifest over blobs that are in the store.
pub(crate) fn manifest(
    config_digest: &str,
    config_size: u64,
    layers: Vec<Descriptor>,
) -> Result<ImageManifest> {
    let config = descriptor(MediaType::ImageConfig, config_digest, config_size)?;
    ImageManifestBuilder::default()
        .schema_version(SCHEMA_VERSION)
        .media_type(MediaType::ImageManifest)
        .config(config)
        .layers(layers)
        .build()
        .map_err(|error| ImageError::corrupt("the new manifest", error))
}

pub(crate) fn descriptor(media_type: MediaType, digest: &str, size: u64) -> Result<Descriptor> {
    let digest: oci_spec::image::Digest =
        digest.parse().map_err(|error| ImageError::corrupt(format!("the digest {digest:?}"), error))?;
    Ok(Descriptor::new(media_type, size, digest))
}
