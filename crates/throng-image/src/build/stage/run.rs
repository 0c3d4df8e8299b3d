//! RUN: what the command sees, the command itself, and what it changed as a layer.

use super::super::ignore::Ignore;
use super::super::transfer::Job;
use super::super::{OUTPUT_QUEUE, RunStep, Secret, SecretContent, capture};
use super::caches::Caches;
use super::*;
use crate::digest;
use crate::dockerfile::{Command, MountKind, Run, RunMount};
use crate::store::Scratch;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use throng_model::replica::{Process, ResolvedMount, ResolvedSource};
use tokio::sync::mpsc;

/// Where a bound file or folder lies in the layer that is made of it.
const BOUND: &str = "m";
/// Permission bits of a secret where nobody says otherwise.
const SECRET_MODE: u32 = 0o400;

/// A mount with its variables replaced and its content found.
pub(super) struct Wanted<'a> {
    pub(super) mount: &'a RunMount,
    /// Absolute; a secret may be seen in a variable alone.
    target: Option<String>,
    pub(super) content: Content<'a>,
}

pub(super) enum Content<'a> {
    /// A layer that holds nothing but [`BOUND`].
    Bound(Layer),
    /// A folder of the store.
    Cache(PathBuf),
    Secret(&'a Secret),
    Memory,
}

/// What a command needs while it runs; it goes with this.
struct Surroundings {
    mounts: Vec<ResolvedMount>,
    variables: Vec<String>,
    /// With the locks on those that one command at a time may use.
    caches: Caches,
}

impl StageBuilder<'_> {
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

    pub(super) async fn run(&self, run: &Run, place: &Place) -> Step<Outcome> {
        if let Some(base) = &self.base {
            check_architecture(base).map_err(|error| failed(place, error))?;
        }
        let mut process = self.process(&run.command);
        let mut wanted = Vec::new();
        for mount in &run.mounts {
            wanted.extend(self.wanted(mount, place).await?);
        }
        let mtime = self.shared.options.source_date_epoch;
        let key = capture::run_key(self.chain().as_ref(), &process, mtime, &self.further(run, &wanted));
        if let Some(layer) = self.cached(&key)? {
            return Ok(Outcome::Layer { layer, cached: true });
        }
        let layers = self.unpacked(&self.built).await?;
        let view = LayerView::new(layers.clone());
        let scratch = self.shared.store.scratch()?;
        let (upper, work) = prepare(&scratch, &view)?;
        let surroundings = self.surround(run, wanted, &scratch, place).await?;
        process.env.extend(surroundings.variables.iter().cloned());
        let (output, received) = mpsc::channel(OUTPUT_QUEUE);
        let options = self.shared.options;
        let step_run = RunStep {
            layers,
            upper: upper.clone(),
            work,
            process,
            mounts: surroundings.mounts.clone(),
            sandbox: options.sandbox.clone(),
            offline: run.offline || options.offline,
            output,
        };
        match self.carry_out(step_run, received).await {
            Ok(0) => {}
            Ok(code) => return Err(step(place.error(format!("the command ended with exit code {code}")))),
            Err(reason) => return Err(step(place.error(format!("the command could not be run: {reason}")))),
        }
        drop(surroundings);
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

    async fn carry_out(&self, step: RunStep, mut received: mpsc::Receiver<Vec<u8>>) -> Result<i32, String> {
        let mut running = self.shared.runner.run(step);
        let code = loop {
            tokio::select! {
                Some(piece) = received.recv() => self.shared.progress.event(BuildEvent::Output(&piece)),
                outcome = &mut running => break outcome,
            }
        };
        while let Ok(piece) = received.try_recv() {
            self.shared.progress.event(BuildEvent::Output(&piece));
        }
        code
    }

    /// What the result depends on beside the command and the files below. As in Docker, neither what a cache nor what
    /// a secret holds is part of it.
    fn further(&self, run: &Run, wanted: &[Wanted<'_>]) -> Vec<String> {
        let mut further: Vec<String> = wanted
            .iter()
            .map(|wanted| {
                let content = match &wanted.content {
                    Content::Bound(layer) => &layer.diff_id,
                    Content::Cache(_) => "cache",
                    Content::Secret(_) => "secret",
                    Content::Memory => "memory",
                };
                format!("mount {:?} {:?} {content}", wanted.target, wanted.mount.variable)
            })
            .collect();
        if let Command::Script { text, .. } = &run.command {
            further.push(format!("script {text}"));
        }
        if run.offline || self.shared.options.offline {
            further.push("offline".into());
        }
        if !self.shared.options.sandbox.is_default() {
            further.push(format!("{:?}", self.shared.options.sandbox));
        }
        further
    }

    /// `None` for a secret that is not given and need not be.
    async fn wanted<'a>(&'a self, mount: &'a RunMount, place: &Place) -> Step<Option<Wanted<'a>>> {
        let word = |text: &Option<String>| -> Step<Option<String>> {
            let expand = |text: &String| {
                self.expand(place, |expander| expander.word(text).map_err(|error| error.to_string()))
            };
            text.as_ref().map(expand).transpose()
        };
        let (target, source, id) = (word(&mount.target)?, word(&mount.source)?, word(&mount.id)?);
        let absolute = |path: &str| metadata::absolute(path, &self.built.config.config.working_dir);
        let mut target = target.map(|path| absolute(&path));
        let content = match mount.kind {
            MountKind::Bind => {
                Content::Bound(self.bound(mount.from.as_deref(), source.unwrap_or_default(), place).await?)
            }
            MountKind::Cache => {
                if mount.from.is_some() {
                    let finding = place.error("--mount: a cache that begins with files is not supported");
                    return Err(written(finding.hint("remove from=, and copy the files in the command")));
                }
                let id = id.or_else(|| target.clone()).unwrap_or_default();
                Content::Cache(self.shared.store.run_cache(&digest::of_bytes(id.as_bytes())))
            }
            MountKind::Secret => {
                let named = target.as_deref().and_then(|path| path.rsplit('/').next()).map(str::to_owned);
                let id = id.or(named).unwrap_or_default();
                let Some(secret) = self.shared.options.secrets.get(&id) else {
                    if !mount.required {
                        return Ok(None);
                    }
                    let finding = place.error(format!("the secret {id:?} is required and not given"));
                    let hint = format!(
                        "give it with --secret id={id},src=FILE, or under secrets of the service's build"
                    );
                    return Err(written(finding.hint(hint)));
                };
                if target.is_none() && mount.variable.is_none() {
                    target = Some(format!("/run/secrets/{id}"));
                }
                Content::Secret(secret)
            }
            MountKind::Tmpfs => Content::Memory,
        };
        if target.as_deref() == Some("/") {
            return Err(wrong(place, "--mount: nothing can be mounted over the root"));
        }
        Ok(Some(Wanted { mount, target, content }))
    }

    /// A file or folder of the context, a stage or an image, as a layer of its own: so it is found again by its content,
    /// .dockerignore counts, and the original cannot be changed.
    async fn bound(&self, from: Option<&str>, source: String, place: &Place) -> Step<Layer> {
        let (view, ignore) = self.origin(from, place).await?;
        let job = Job {
            sources: vec![source],
            destination: format!("/{BOUND}"),
            from: view,
            ignore,
            base: LayerView::new(Vec::new()),
            owner: None,
            mode: None,
            extract: false,
            exclude: Ignore::default(),
            parents: false,
            files: Vec::new(),
            mtime: self.shared.options.source_date_epoch,
            limits: self.shared.store.limits(),
        };
        let (layer, _) = self.copied(job, None, place).await?;
        layer.ok_or_else(|| wrong(place, "--mount: there is nothing to mount"))
    }

    /// Puts everything in its place before the command runs.
    async fn surround(
        &self,
        run: &Run,
        wanted: Vec<Wanted<'_>>,
        scratch: &Scratch,
        place: &Place,
    ) -> Step<Surroundings> {
        let caches = Caches::take(&wanted, scratch).await.map_err(|error| failed(place, error))?;
        let mut ready = Surroundings { mounts: Vec::new(), variables: Vec::new(), caches };
        if let Command::Script { name, text } = &run.command {
            let path = scratch.path().join("script");
            write_as(&path, text.as_bytes(), 0o755, (None, None)).map_err(|error| failed(place, error))?;
            let target = format!("{}/{name}", metadata::SCRIPTS);
            ready.mounts.push(ResolvedMount { source: ResolvedSource::Bind(path), target, read_only: true });
        }
        for (number, wanted) in wanted.into_iter().enumerate() {
            let own = scratch.path().join(format!("mount-{number}"));
            let source = match &wanted.content {
                Content::Bound(layer) => ResolvedSource::Bind(self.bind(layer, wanted.mount, own).await?),
                Content::Cache(_) => ResolvedSource::Bind(ready.caches.folder(number)),
                Content::Secret(secret) => {
                    let content = read_secret(secret).map_err(|error| failed(place, error))?;
                    if let Some(name) = &wanted.mount.variable {
                        let text =
                            String::from_utf8(content.clone()).ok().filter(|text| !text.contains('\0'));
                        let text =
                            text.ok_or_else(|| wrong(place, "a secret that is no text fits no variable"))?;
                        ready.variables.push(format!("{name}={text}"));
                    }
                    let mode = wanted.mount.mode.or(secret.mode).unwrap_or(SECRET_MODE);
                    let owner = (wanted.mount.uid.or(secret.uid), wanted.mount.gid.or(secret.gid));
                    write_as(&own, &content, mode, owner).map_err(|error| failed(place, error))?;
                    ResolvedSource::Bind(own)
                }
                Content::Memory => ResolvedSource::Tmpfs { size: wanted.mount.size, mode: wanted.mount.mode },
            };
            let read_only = match wanted.mount.kind {
                MountKind::Bind | MountKind::Secret => wanted.mount.read_only.unwrap_or(true),
                MountKind::Cache | MountKind::Tmpfs => wanted.mount.read_only.unwrap_or_default(),
            };
            ready.mounts.extend(wanted.target.map(|target| ResolvedMount { source, target, read_only }));
        }
        // Parents before children, or the parent's mount would hide the child's.
        ready.mounts.sort_by(|a, b| a.target.cmp(&b.target));
        Ok(ready)
    }

    /// The unpacked layer itself, or a copy that may be changed and is thrown away.
    async fn bind(&self, layer: &Layer, mount: &RunMount, own: PathBuf) -> Step<PathBuf> {
        let (store, layer) = (self.shared.store.clone(), layer.clone());
        let copy = mount.read_only == Some(false);
        let unpacked = blocking(move || match copy {
            true => store.unpack_copy(&layer.digest, &layer.diff_id, &own).map(|()| own),
            false => {
                let chain = store.unpack_chain(&[(layer.digest, layer.diff_id)])?;
                chain
                    .into_iter()
                    .next_back()
                    .ok_or_else(|| ImageError::corrupt("a bound layer", "it is not there"))
            }
        });
        Ok(unpacked.await?.join(BOUND))
    }
}

pub(super) fn make_folder(
    path: &Path,
    mode: u32,
    owner: (Option<u32>, Option<u32>),
) -> Result<(), ImageError> {
    fs::create_dir_all(path).map_err(ImageError::io("create", path))?;
    dress(path, mode, owner)
}

/// Owner first: a change of it takes bits away.
fn dress(path: &Path, mode: u32, (uid, gid): (Option<u32>, Option<u32>)) -> Result<(), ImageError> {
    if uid.is_some_and(|id| id != 0) || gid.is_some_and(|id| id != 0) {
        std::os::unix::fs::chown(path, uid, gid).map_err(ImageError::io("change the owner of", path))?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .map_err(ImageError::io("set the mode of", path))
}

fn write_as(
    path: &Path,
    content: &[u8],
    mode: u32,
    owner: (Option<u32>, Option<u32>),
) -> Result<(), ImageError> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let written = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(content));
    written.map_err(ImageError::io("write", path))?;
    dress(path, mode, owner)
}

/// Largest secret, in bytes; BuildKit's limit is the same.
const MAX_SECRET: u64 = 500 << 10;

fn read_secret(secret: &Secret) -> Result<Vec<u8>, ImageError> {
    use std::io::Read as _;
    let path = match &secret.content {
        SecretContent::Text(text) => return Ok(text.clone().into_bytes()),
        SecretContent::File(path) => path,
    };
    let mut content = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_SECRET + 1).read_to_end(&mut content));
    read.map_err(ImageError::io("read the secret", path))?;
    crate::limits::check_size(&format!("the secret {}", path.display()), content.len() as u64, MAX_SECRET)?;
    Ok(content)
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
