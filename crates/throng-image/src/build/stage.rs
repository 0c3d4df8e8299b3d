//! One stage, instruction by instruction.

use super::cache::{self, CacheKey, KeyBuilder};
use super::transfer::{Job, JobError};
use super::{
    BuildEvent, Built, OUTPUT_QUEUE, RunStep, Shared, blocking, capture, find_stage, metadata, users,
};
use crate::config::{ConfigFile, History, ImageConfig};
use crate::dockerfile::{Command, Expander, Instruction, Kind, Place, Stage, Transfer};
use crate::error::{BuildError, ImageError};
use crate::layer::{Attributes, LAYER_MEDIA_TYPE, Layer, LayerWriter};
use crate::limits::MAX_LAYERS;
use crate::platform::{DEFAULT_PATH, check_architecture, machine_architecture};
use crate::store::{Image, Scratch, Store, chain_ids};
use crate::view::LayerView;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use throng_model::diagnostic::Diagnostic;
use throng_model::replica::Process;
use tokio::sync::mpsc;

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
    let (built, base) = start(shared, at, done)?;
    let label = stage.name.clone().unwrap_or_else(|| at.to_string());
    let mut builder =
        StageBuilder { shared, done, at, built, args: BTreeMap::new(), cmd_is_own: false, base };
    for instruction in &stage.instructions {
        *step += 1;
        let text = &instruction.text;
        shared.progress.event(BuildEvent::StepStarted { step: *step, steps, stage: &label, text });
        let cached = builder.instruction(instruction).await?;
        shared.progress.event(BuildEvent::StepFinished { cached });
    }
    Ok(builder.built)
}

/// What the stage begins with: nothing, an earlier stage, or an image of the store.
fn start(shared: &Shared<'_>, at: usize, done: &BTreeMap<usize, Built>) -> Step<(Built, Option<Image>)> {
    let stage: &Stage = &shared.dockerfile.stages[at];
    let globals = global_args(shared)?;
    let lookup = |name: &str| globals.get(name).cloned().or_else(|| platform_arg(name));
    let expander = Expander { escape: shared.dockerfile.escape, lookup: &lookup };
    let name = metadata::base_name(&stage.base, &expander).map_err(|error| wrong(&stage.place, error))?;
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
    let earlier = shared.dockerfile.stages[..at]
        .iter()
        .position(|other| other.name.as_deref() == Some(&name.to_ascii_lowercase()));
    if let Some(built) = earlier.and_then(|earlier| done.get(&earlier)) {
        return Ok((built.clone(), None));
    }
    let image = find_image(shared.store, &name, &stage.place)?;
    if !image.config.on_build.is_empty() {
        let message = format!("the image {name} has ONBUILD triggers, which are not supported");
        return Err(wrong(&stage.place, message));
    }
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

fn global_args(shared: &Shared<'_>) -> Step<BTreeMap<String, String>> {
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    for arg in &shared.dockerfile.global_args {
        let value = match (shared.options.args.get(&arg.name), &arg.default) {
            (Some(given), _) => Some(given.clone()),
            (None, Some(default)) => {
                let lookup = |name: &str| known.get(name).cloned().or_else(|| platform_arg(name));
                let expander = Expander { escape: shared.dockerfile.escape, lookup: &lookup };
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
            Kind::Run(command) => self.run(command, place).await?,
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
        let globals = global_args(self.shared)?;
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

    async fn transfer(&self, transfer: &Transfer, place: &Place) -> Step<Outcome> {
        let base = LayerView::new(self.unpacked(&self.built).await?);
        let (from, ignore) = match &transfer.from {
            Some(from) => (self.source(from, place).await?, None),
            None => {
                let context = fs::canonicalize(&self.shared.options.context)
                    .map_err(ImageError::io("use the build context", &self.shared.options.context))?;
                (LayerView::new(vec![context]), Some((*self.shared.ignore).clone()))
            }
        };
        let mut job = self.job(transfer, place, base, from)?;
        job.ignore = ignore;
        let (store, chain) = (self.shared.store.clone(), self.chain());
        let planned = blocking(move || {
            let plan = job.plan()?;
            let key = job.key(&plan, chain.as_ref())?;
            Ok::<_, JobError>((job, plan, key))
        });
        let (job, plan, key) = planned.await.map_err(|error| job_failed(place, error))?;
        if let Some(layer) = self.cached(&key)? {
            return Ok(Outcome::Layer { layer, cached: true });
        }
        let written = blocking(move || {
            let layer = job.write(&store, &plan)?;
            cache::put(&store, &key, layer.as_ref())?;
            Ok::<_, JobError>(layer)
        });
        let layer = written.await.map_err(|error| job_failed(place, error))?;
        Ok(Outcome::Layer { layer, cached: false })
    }

    fn job(&self, transfer: &Transfer, place: &Place, base: LayerView, from: LayerView) -> Step<Job> {
        let (sources, destination, owner, mode) = self.expand(place, |expander| {
            let word = |text: &String| metadata::transfer_word(text, transfer.quoted, expander);
            let flag = |text: &String| expander.word(text).map_err(|error| error.to_string());
            let sources = transfer.sources.iter().map(word).collect::<Result<Vec<_>, _>>()?;
            let destination = word(&transfer.destination)?;
            Ok((sources, destination, transfer.owner.as_ref().map(flag), transfer.mode.as_ref().map(flag)))
        })?;
        let extract = place.keyword == "ADD";
        for source in &sources {
            check_local(source, place)?;
        }
        let owner = owner
            .map(|owner| users::resolve_owner(&owner?, &base))
            .transpose()
            .map_err(|error| wrong(place, format!("--chown: {error}")))?;
        let mode = mode
            .map(|mode| {
                let mode = mode?;
                u32::from_str_radix(&mode, 8)
                    .ok()
                    .filter(|bits| *bits <= 0o7777)
                    .ok_or_else(|| format!("--chmod: {mode:?} is not an octal mode such as 755"))
            })
            .transpose()
            .map_err(|error| wrong(place, error))?;
        let mut target = metadata::absolute(&destination, &self.built.config.config.working_dir);
        let says_folder =
            destination.ends_with('/') || matches!(destination.rsplit('/').next(), Some("." | ".."));
        if says_folder && target != "/" {
            target.push('/');
        }
        let (mtime, limits) = (self.shared.options.source_date_epoch, self.shared.store.limits());
        Ok(Job {
            sources,
            destination: target,
            from,
            ignore: None,
            base,
            owner,
            mode,
            extract,
            mtime,
            limits,
        })
    }

    /// The files of an earlier stage or of an image.
    async fn source(&self, from: &str, place: &Place) -> Step<LayerView> {
        let name = self.expand(place, |expander| expander.word(from).map_err(|error| error.to_string()))?;
        let stages = &self.shared.dockerfile.stages;
        let stage = find_stage(stages, &name, self.at).and_then(|at| self.done.get(&at));
        if let Some(built) = stage {
            return Ok(LayerView::new(self.unpacked(built).await?));
        }
        if find_stage(stages, &name, stages.len()).is_some() {
            let finding = place.error(format!("the stage {name:?} is not an earlier one")).hint("move it up");
            return Err(written(finding));
        }
        let image = find_image(self.shared.store, &name, place)?;
        let store = self.shared.store.clone();
        Ok(LayerView::new(blocking(move || store.layers(&image)).await?))
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

    fn process(&self, command: &Command) -> Process {
        let config = &self.built.config.config;
        let mut env = config.env.clone();
        let set = |env: &Vec<String>, name: &str| {
            env.iter().any(|pair| pair.split_once('=').is_some_and(|(key, _)| key == name))
        };
        let proxies =
            PROXY_ARGS.iter().filter_map(|name| Some((*name, self.shared.options.args.get(*name)?)));
        let given = self.args.iter().map(|(name, value)| (name.as_str(), value));
        for (name, value) in given.chain(proxies) {
            if !set(&env, name) {
                env.push(format!("{name}={value}"));
            }
        }
        if !set(&env, "PATH") {
            env.push(format!("PATH={DEFAULT_PATH}"));
        }
        let cwd = if config.working_dir.is_empty() { "/".into() } else { config.working_dir.clone() };
        Process { args: metadata::arguments(command, config), env, cwd, user: config.user.clone() }
    }

    async fn run(&self, command: &Command, place: &Place) -> Step<Outcome> {
        if let Some(base) = &self.base {
            check_architecture(base).map_err(|error| failed(place, error))?;
        }
        let process = self.process(command);
        let mtime = self.shared.options.source_date_epoch;
        let key = capture::run_key(self.chain().as_ref(), &process, mtime);
        if let Some(layer) = self.cached(&key)? {
            return Ok(Outcome::Layer { layer, cached: true });
        }
        let layers = self.unpacked(&self.built).await?;
        let view = LayerView::new(layers.clone());
        let scratch = self.shared.store.scratch()?;
        let (upper, work) = prepare(&scratch, &view)?;
        let (output, mut received) = mpsc::channel(OUTPUT_QUEUE);
        let step_run = RunStep { layers, upper: upper.clone(), work, process, output };
        let mut running = self.shared.runner.run(step_run);
        let code = loop {
            tokio::select! {
                Some(piece) = received.recv() => self.shared.progress.event(BuildEvent::Output(&piece)),
                outcome = &mut running => break outcome,
            }
        };
        while let Ok(piece) = received.try_recv() {
            self.shared.progress.event(BuildEvent::Output(&piece));
        }
        match code {
            Ok(0) => {}
            Ok(code) => return Err(step(place.error(format!("the command ended with exit code {code}")))),
            Err(reason) => return Err(step(place.error(format!("the command could not be run: {reason}")))),
        }
        let store = self.shared.store.clone();
        let captured = blocking(move || {
            let layer = capture::capture(&store, &upper, &view, mtime)?;
            cache::put(&store, &key, layer.as_ref())?;
            drop(scratch);
            Ok(layer)
        });
        let layer = captured.await.map_err(|error| failed(place, error))?;
        Ok(Outcome::Layer { layer, cached: false })
    }
}

/// Folders for overlayfs. The upper one becomes the root that the command sees, so it looks like the root below.
fn prepare(scratch: &Scratch, below: &LayerView) -> Result<(PathBuf, PathBuf), ImageError> {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let (upper, work) = (scratch.path().join("u"), scratch.path().join("w"));
    for folder in [&upper, &work] {
        fs::create_dir(folder).map_err(ImageError::io("create", folder))?;
    }
    let root = below.lookup(Path::new("")).map_err(ImageError::io("read", &upper))?;
    let mode = root.map_or(0o755, |root| root.metadata.mode() & 0o7777);
    fs::set_permissions(&upper, fs::Permissions::from_mode(mode))
        .map_err(ImageError::io("set the mode of", &upper))?;
    Ok((upper, work))
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

/// Sources on the network are Docker's own business.
fn check_local(source: &str, place: &Place) -> Step<()> {
    let lower = source.to_ascii_lowercase();
    let remote = ["http://", "https://", "ftp://", "git://", "git@", "ssh://"]
        .iter()
        .any(|scheme| lower.starts_with(scheme));
    if !remote {
        return Ok(());
    }
    let finding = place
        .error(format!("fetching {source} is not supported"))
        .hint("fetch it before the build, put it into the context, and copy it");
    Err(written(finding))
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

fn job_failed(place: &Place, error: JobError) -> BuildError {
    match error {
        JobError::Wrong { message, hint } => {
            let finding = place.error(message);
            written(if let Some(hint) = hint { finding.hint(hint) } else { finding })
        }
        JobError::Image(error) => failed(place, error),
    }
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
