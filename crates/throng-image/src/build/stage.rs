//! One stage, instruction by instruction.

mod caches;
mod copy;
mod run;

use super::cache::{self, CacheKey, KeyBuilder};
use super::{BuildEvent, Built, ContextSource, Shared, blocking, find_named, metadata};
use crate::config::{ConfigFile, History, ImageConfig};
use crate::dockerfile::{self, Dockerfile, Expander, Instruction, Kind, Place, Stage};
use crate::error::{BuildError, ImageError};
use crate::layer::{Attributes, LAYER_MEDIA_TYPE, Layer, LayerWriter};
use crate::limits::MAX_LAYERS;
use crate::platform::{DEFAULT_PATH, check_architecture, machine_architecture};
use crate::store::{Image, Store, chain_ids};
use crate::view::LayerView;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use throng_model::diagnostic::Diagnostic;

type Step<T> = Result<T, BuildError>;

/// Known without an ARG, as Docker has them; they reach RUN but not the history.
const PROXY_ARGS: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

struct StageBuilder<'a> {
    shared: &'a Shared<'a>,
    done: &'a BTreeMap<usize, Built>,
    at: usize,
    built: Built,
    /// Values of the ARGs declared so far in this stage.
    args: BTreeMap<String, String>,
    cmd_is_own: bool,
    /// The base image, if it is one and not a stage: RUN must fit this machine.
    base: Option<Image>,
}

/// What an instruction did to the layers.
enum Outcome {
    /// Only the configuration changed.
    Metadata,
    Layer {
        layer: Option<Layer>,
        cached: bool,
    },
}

pub(super) fn is_predefined(name: &str) -> bool {
    PROXY_ARGS.contains(&name) || platform_arg(name).is_some()
}

/// Docker's variables about the platform.
fn platform_arg(name: &str) -> Option<String> {
    let architecture = machine_architecture();
    match name {
        "TARGETOS" | "BUILDOS" => Some("linux".into()),
        "TARGETARCH" | "BUILDARCH" => Some(architecture.into()),
        "TARGETPLATFORM" | "BUILDPLATFORM" => Some(format!("linux/{architecture}")),
        "TARGETVARIANT" | "BUILDVARIANT" => Some(String::new()),
        _ => None,
    }
}

pub(super) async fn build(
    shared: &Shared<'_>,
    at: usize,
    done: &BTreeMap<usize, Built>,
    step: &mut usize,
    steps: usize,
) -> Step<Built> {
    let stage = &shared.dockerfile.stages[at];
    let (mut built, base) = start(shared, at, done)?;
    let label = stage.name.clone().unwrap_or_else(|| at.to_string());
    let triggers = std::mem::take(&mut built.config.config.on_build);
    let mut builder =
        StageBuilder { shared, done, at, built, args: BTreeMap::new(), cmd_is_own: false, base };
    for text in &triggers {
        let trigger = dockerfile::parse_trigger(text, &stage.place).map_err(written)?;
        builder.instruction(&trigger).await?;
    }
    for instruction in &stage.instructions {
        *step += 1;
        let text = &instruction.text;
        shared.progress.event(BuildEvent::StepStarted { step: *step, steps, stage: &label, text });
        let cached = builder.instruction(instruction).await?;
        shared.progress.event(BuildEvent::StepFinished { cached });
    }
    Ok(builder.built)
}

/// The base of a stage with its variables replaced.
pub(super) fn base_name(
    dockerfile: &Dockerfile,
    stage: &Stage,
    globals: &BTreeMap<String, String>,
) -> Step<String> {
    let lookup = |name: &str| globals.get(name).cloned().or_else(|| platform_arg(name));
    let expander = Expander { escape: dockerfile.escape, lookup: &lookup };
    if let Some(platform) = &stage.platform {
        let platform = expander.word(platform).map_err(|error| wrong(&stage.place, error.to_string()))?;
        check_platform(&platform, &stage.place)?;
    }
    metadata::base_name(&stage.base, &expander).map_err(|error| wrong(&stage.place, error))
}

/// Images are built for this machine alone. A variant is not looked at: the image's own is, when it is run.
fn check_platform(platform: &str, place: &Place) -> Step<()> {
    let own = machine_architecture();
    let mut parts = platform.split('/');
    let (os, architecture) = (parts.next().unwrap_or_default(), parts.next());
    if os == "linux" && architecture.is_none_or(|name| name == own || name == std::env::consts::ARCH) {
        return Ok(());
    }
    let finding = place.error(format!("--platform: nothing for {platform} is built here"));
    Err(written(
        finding.hint(format!("this machine is linux/{own}; remove the flag, or write $BUILDPLATFORM")),
    ))
}

/// What the stage begins with: nothing, an earlier stage, or an image of the store.
fn start(shared: &Shared<'_>, at: usize, done: &BTreeMap<usize, Built>) -> Step<(Built, Option<Image>)> {
    let stage: &Stage = &shared.dockerfile.stages[at];
    let globals = global_args(&shared.dockerfile, &shared.options.args)?;
    let name = base_name(&shared.dockerfile, stage, &globals)?;
    let context = shared.options.contexts.get(&name);
    if let Some(ContextSource::Folder(folder)) = context {
        let finding = stage.place.error(format!("{name} is the folder {}, not an image", folder.display()));
        return Err(written(finding.hint(format!("begin with FROM scratch and COPY --from={name} / /"))));
    }
    if name == "scratch" {
        let mut config = ConfigFile {
            created: Some(time(shared.options.source_date_epoch)),
            architecture: machine_architecture().into(),
            os: "linux".into(),
            ..Default::default()
        };
        config.config.set_env("PATH", DEFAULT_PATH);
        return Ok((Built { config, layers: Vec::new(), descriptors: Vec::new() }, None));
    }
    let earlier = find_named(&shared.dockerfile.stages, &name, at).filter(|_| context.is_none());
    if let Some(built) = earlier.and_then(|earlier| done.get(&earlier)) {
        return Ok((built.clone(), None));
    }
    let name = match context {
        Some(ContextSource::Image(image)) => image,
        _ => &name,
    };
    let image = find_image(shared.store, name, &stage.place)?;
    let mut built = load(shared.store, &image)?;
    built.config.created = Some(time(shared.options.source_date_epoch));
    Ok((built, Some(image)))
}

fn load(store: &Store, image: &Image) -> Step<Built> {
    let parts = store.parts(&image.manifest_digest)?;
    let descriptors = parts.manifest.layers().clone();
    let layers = descriptors
        .iter()
        .zip(&parts.config.rootfs.diff_ids)
        .map(|(descriptor, diff_id)| Layer {
            digest: descriptor.digest().to_string(),
            diff_id: diff_id.clone(),
            size: descriptor.size(),
        })
        .collect();
    Ok(Built { config: parts.config, layers, descriptors })
}

fn find_image(store: &Store, name: &str, place: &Place) -> Step<Image> {
    match store.find(name) {
        Ok(Some(image)) => Ok(image),
        Ok(None) => {
            Err(step(place.error(format!("the image {name} is not in the local store")).hint(format!(
                "fetch it with `throng pull {name}`, load it with `throng load`, or begin with FROM scratch"
            ))))
        }
        Err(error) => Err(failed(place, error)),
    }
}

/// ARGs before the first FROM, with the values that were given.
pub(super) fn global_args(
    dockerfile: &Dockerfile,
    given: &BTreeMap<String, String>,
) -> Step<BTreeMap<String, String>> {
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    for arg in &dockerfile.global_args {
        let value = match (given.get(&arg.name), &arg.default) {
            (Some(given), _) => Some(given.clone()),
            (None, Some(default)) => {
                let lookup = |name: &str| known.get(name).cloned().or_else(|| platform_arg(name));
                let expander = Expander { escape: dockerfile.escape, lookup: &lookup };
                let outcome = expander.word(default).map_err(|error| {
                    BuildError::Dockerfile(vec![Diagnostic::error(format!("ARG {}: {error}", arg.name))])
                });
                Some(outcome?)
            }
            (None, None) => None,
        };
        if let Some(value) = value {
            known.insert(arg.name.clone(), value);
        }
    }
    Ok(known)
}

impl StageBuilder<'_> {
    async fn instruction(&mut self, instruction: &Instruction) -> Step<bool> {
        let place = &instruction.place;
        let outcome = match &instruction.kind {
            Kind::Arg(_) => {
                self.declare(instruction)?;
                Outcome::Metadata
            }
            Kind::Maintainer(name) => {
                self.built.config.author = Some(name.clone());
                Outcome::Metadata
            }
            Kind::Copy(transfer) | Kind::Add(transfer) => self.transfer(transfer, place).await?,
            Kind::Run(run) => self.run(run, place).await?,
            Kind::Workdir(_) => {
                self.metadata(instruction)?;
                self.make_working_dir(place).await?
            }
            _ => {
                self.metadata(instruction)?;
                Outcome::Metadata
            }
        };
        let cached = !matches!(outcome, Outcome::Layer { cached: false, .. });
        self.record(instruction, outcome)?;
        Ok(cached)
    }

    fn record(&mut self, instruction: &Instruction, outcome: Outcome) -> Step<()> {
        let layer = match outcome {
            Outcome::Metadata => None,
            Outcome::Layer { layer, .. } => layer,
        };
        self.built.config.history.push(History {
            created: Some(time(self.shared.options.source_date_epoch)),
            created_by: Some(instruction.text.clone()),
            empty_layer: layer.is_none(),
            ..Default::default()
        });
        let Some(layer) = layer else { return Ok(()) };
        if self.built.layers.len() >= MAX_LAYERS {
            let finding = instruction
                .place
                .error(format!("an image can have at most {MAX_LAYERS} layers"))
                .hint("join instructions, or copy the result into a new stage");
            return Err(written(finding));
        }
        let descriptor = super::descriptor(LAYER_MEDIA_TYPE.into(), &layer.digest, layer.size)?;
        self.built.descriptors.push(descriptor);
        self.built.config.rootfs.diff_ids.push(layer.diff_id.clone());
        self.built.layers.push(layer);
        Ok(())
    }

    /// Variables that instructions see: the image's environment, then ARGs.
    fn variable(&self, name: &str) -> Option<String> {
        self.built.config.config.env_value(name).map(str::to_string).or_else(|| self.args.get(name).cloned())
    }

    fn expand<T>(&self, place: &Place, work: impl FnOnce(&Expander<'_>) -> Result<T, String>) -> Step<T> {
        let lookup = |name: &str| self.variable(name);
        let expander = Expander { escape: self.shared.dockerfile.escape, lookup: &lookup };
        work(&expander).map_err(|error| wrong(place, error))
    }

    fn metadata(&mut self, instruction: &Instruction) -> Step<()> {
        let mut config: ImageConfig = self.built.config.config.clone();
        let mut cmd_is_own = self.cmd_is_own;
        self.expand(&instruction.place, |expander| {
            metadata::apply(&instruction.kind, &mut config, expander, &mut cmd_is_own)
        })?;
        self.built.config.config = config;
        self.cmd_is_own = cmd_is_own;
        Ok(())
    }

    fn declare(&mut self, instruction: &Instruction) -> Step<()> {
        let Kind::Arg(declarations) = &instruction.kind else { return Ok(()) };
        let globals = global_args(&self.shared.dockerfile, &self.shared.options.args)?;
        for arg in declarations {
            let default = match &arg.default {
                Some(text) => Some(self.expand(&instruction.place, |expander| {
                    expander.word(text).map_err(|error| error.to_string())
                })?),
                None => None,
            };
            let given = self.shared.options.args.get(&arg.name).cloned();
            let value = given
                .or(default)
                .or_else(|| globals.get(&arg.name).cloned())
                .or_else(|| platform_arg(&arg.name));
            if let Some(value) = value {
                self.args.insert(arg.name.clone(), value);
            }
        }
        Ok(())
    }

    fn chain(&self) -> Option<String> {
        chain_ids(&self.built.config.rootfs.diff_ids).pop()
    }

    /// This stage's files as they are now.
    async fn unpacked(&self, built: &Built) -> Step<Vec<PathBuf>> {
        let layers: Vec<(String, String)> =
            built.layers.iter().map(|layer| (layer.digest.clone(), layer.diff_id.clone())).collect();
        let store = self.shared.store.clone();
        Ok(blocking(move || store.unpack_chain(&layers)).await?)
    }

    fn cached(&self, key: &CacheKey) -> Step<Option<Option<Layer>>> {
        if self.shared.options.no_cache { Ok(None) } else { Ok(cache::get(self.shared.store, key)?) }
    }

    /// WORKDIR makes its folder, as Docker does.
    async fn make_working_dir(&self, place: &Place) -> Step<Outcome> {
        let base = LayerView::new(self.unpacked(&self.built).await?);
        let directory = self.built.config.config.working_dir.clone();
        let (store, mtime, chain) =
            (self.shared.store.clone(), self.shared.options.source_date_epoch, self.chain());
        let made = blocking(move || {
            let failed = || ImageError::io("make the working folder", Path::new(&directory));
            let resolved = base.resolve(Path::new(&directory), true).map_err(failed())?;
            match resolved.node {
                Some(node) if node.metadata.is_dir() => return Ok((None, true)),
                Some(_) => {
                    let error =
                        std::io::Error::new(std::io::ErrorKind::NotADirectory, "it is a file in the image");
                    return Err(failed()(error));
                }
                None => {}
            }
            let mut key = KeyBuilder::new("workdir 1", chain.as_ref(), mtime);
            key.part(resolved.path.as_os_str().as_encoded_bytes());
            let key = key.finish();
            if let Some(layer) = cache::get(&store, &key)? {
                return Ok((layer, true));
            }
            let layer = working_dir_layer(&store, &base, &resolved.path, mtime)?;
            cache::put(&store, &key, layer.as_ref())?;
            Ok((layer, false))
        });
        let (layer, cached) = made.await.map_err(|error| failed(place, error))?;
        Ok(Outcome::Layer { layer, cached })
    }
}

fn working_dir_layer(
    store: &Store,
    base: &LayerView,
    path: &Path,
    mtime: u64,
) -> Result<Option<Layer>, ImageError> {
    use std::os::unix::fs::MetadataExt as _;
    let mut writer = LayerWriter::new(store, mtime)?;
    let mut folders: Vec<&Path> = path.ancestors().collect();
    folders.reverse();
    for folder in folders {
        let node = base.lookup(folder).map_err(ImageError::io("read", folder))?;
        let attributes = match node.filter(|node| node.metadata.is_dir()) {
            Some(node) => Attributes {
                mode: node.metadata.mode() & 0o7777,
                uid: node.metadata.uid().into(),
                gid: node.metadata.gid().into(),
                xattrs: Vec::new(),
            },
            None => Attributes { mode: 0o755, ..Default::default() },
        };
        writer.folder(folder, &attributes).map_err(ImageError::io("write a layer for", folder))?;
    }
    writer.finish()
}

/// The text is at fault, which shows only once its variables are known.
fn written(diagnostic: Diagnostic) -> BuildError {
    BuildError::Dockerfile(vec![diagnostic])
}

fn step(diagnostic: Diagnostic) -> BuildError {
    BuildError::Step { diagnostic: Box::new(diagnostic), source: None }
}

fn wrong(place: &Place, message: impl AsRef<str>) -> BuildError {
    written(place.error(message))
}

fn failed(place: &Place, error: ImageError) -> BuildError {
    let finding = place.error(error.to_string());
    let finding = match error.hint() {
        Some(hint) => finding.hint(hint),
        None => finding,
    };
    let source = match error {
        ImageError::Io { source, .. } => Some(source),
        ImageError::NoSpace { .. } => Some(std::io::ErrorKind::StorageFull.into()),
        _ => None,
    };
    BuildError::Step { diagnostic: Box::new(finding), source }
}

/// RFC 3339 in UTC, from seconds since 1970. What lies beyond the year 9999 is taken for the last moment before.
fn time(seconds: u64) -> String {
    let timestamp =
        i64::try_from(seconds).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    timestamp.unwrap_or(jiff::Timestamp::MAX).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_700_000_000, "2023-11-14T22:13:20Z"),
        ] {
            assert_eq!(time(seconds), text);
        }
    }
}
