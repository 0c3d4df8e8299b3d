//! Images: built, fetched, sent, listed, archived; and made sure of before an app starts.

use crate::cli::{
    ArchiveArgument, BuildArguments, Format, ImagesArguments, PullArguments, PushArguments, RmiArguments,
    SaveArguments, TagArguments,
};
use crate::failure::{Failure, Kind, Result, chain, io};
use crate::project::Context;
use crate::terminal::{Progress, Style, table};
use async_trait::async_trait;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use throng_image::{
    ArchiveFormat, BuildEvent, BuildOptions, BuildProgress, Image, ImageError, PullOptions, PushOptions,
    Removed, RunStep, StepRunner, Store, TransferEvent, TransferProgress,
};
use throng_model::app::{App, Service};
use throng_model::units::format_bytes;
use throng_walls::{Evidence, explain};
use tokio::io::AsyncReadExt;

/// When `up` and `run` build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuildPolicy {
    Always,
    Missing,
    Never,
}

pub fn open_store(context: &Context) -> Result<Store> {
    context.paths.prepare().map_err(|error| io("prepare the folders", &error))?;
    Ok(Store::open(&context.paths.images())?)
}

/// Makes sure of every image that the app needs: builds what has a build section, fetches the rest.
pub async fn provide(context: &Context, app: &App, policy: BuildPolicy) -> Result<()> {
    let store = open_store(context)?;
    let services = || app.services.values().filter(|service| service.replicas > 0);
    // Building first: what one service builds may be what another one runs.
    for service in services().filter(|service| service.build.is_some()) {
        let missing = store.find(&service.image)?.is_none();
        if policy == BuildPolicy::Always || (policy == BuildPolicy::Missing && missing) {
            build_service(&store, service, false, &BTreeMap::new()).await?;
        }
    }
    for service in services().filter(|service| service.build.is_none()) {
        if store.find(&service.image)?.is_none() {
            let pulled = pull_one(&store, &service.image, false).await;
            pulled.map_err(|error| missing(service, error))?;
        }
    }
    Ok(())
}

/// An image that an app needs is nowhere: what people most often want then is not the registry at all.
fn missing(service: &Service, error: ImageError) -> Failure {
    let (image, name) = (&service.image, &service.name);
    let message = |registry: &str, reason: &str| {
        format!("image {image} (service {name}) is neither here nor to be fetched from {registry}: {reason}")
    };
    let local = format!(
        "`throng images` lists what is here; build it (`build:` in the Compose file, or `throng build -t {image} .`), \
         load it (`throng load -i`)"
    );
    let (message, hint) = match &error {
        ImageError::Registry { registry, reason } => {
            // A registry that has had enough is neither the network's fault nor a build's.
            let wall = explain(&Evidence::of_messages([reason.as_str()])).map(|wall| wall.told());
            (message(registry, reason), wall.unwrap_or_else(|| format!("{local}, or see to the network")))
        }
        ImageError::NotInRegistry { registry, .. } => {
            (message(registry, "there is no such image"), format!("{local}, or check the name and the tag"))
        }
        ImageError::Unauthorized { registry, .. } => (
            message(registry, "access is refused"),
            format!("{local}, or check the name; `docker login {registry}` logs in"),
        ),
        _ => return error.into(),
    };
    Failure { hint: Some(hint), message, ..error.into() }
}

async fn build_service(
    store: &Store,
    service: &Service,
    no_cache: bool,
    extra: &BTreeMap<String, String>,
) -> Result<()> {
    let Some(build) = &service.build else { return Ok(()) };
    let mut args = build.args.clone();
    args.extend(extra.clone());
    let options = BuildOptions {
        context: build.context.clone(),
        dockerfile: build.dockerfile.clone(),
        tags: vec![service.image.clone()],
        target: build.target.clone(),
        args,
        no_cache,
        source_date_epoch: source_date_epoch(),
        ..BuildOptions::default()
    };
    build_one(store, &options, &service.image).await
}

/// reproducible-builds.org's variable; without it, times in images are 0.
fn source_date_epoch() -> u64 {
    std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

async fn build_one(store: &Store, options: &BuildOptions, name: &str) -> Result<()> {
    let shown = BuildShown { progress: Mutex::new(Some(Progress::new(&format!("build {name}")))) };
    let result = throng_image::build(store, options, &Runner, &shown).await;
    let progress = shown.take();
    match (result, progress) {
        (Ok(image), Some(progress)) => {
            progress.done(&format!("{} {}", short(&image.id), format_bytes(image.size)));
            Ok(())
        }
        (Ok(_), None) => Ok(()),
        (Err(error), progress) => {
            if let Some(progress) = progress {
                progress.failed("");
            }
            Err(error.into())
        }
    }
}

/// Shows a build's steps in one moving line, and what commands write as it comes.
struct BuildShown {
    progress: Mutex<Option<Progress>>,
}

impl BuildShown {
    fn take(&self) -> Option<Progress> {
        self.progress.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take()
    }
}

impl BuildProgress for BuildShown {
    fn event(&self, event: BuildEvent<'_>) {
        let mut progress = self.progress.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let Some(progress) = progress.as_mut() else { return };
        match event {
            BuildEvent::StepStarted { step, steps, text, .. } => {
                progress.part(step as u64, steps as u64, text)
            }
            BuildEvent::Warning(diagnostic) => {
                progress.above(|| crate::project::warn(std::slice::from_ref(diagnostic)))
            }
            BuildEvent::Output(bytes) => progress.above(|| {
                // What a command writes is shown as it is; a closed standard error loses nothing that counts.
                let _ = std::io::stderr().write_all(bytes);
            }),
            BuildEvent::StepFinished { .. } => {}
        }
    }
}

/// Carries RUN out in a process of its own: it may have to enter a user namespace, which only a process with a
/// single thread can.
struct Runner;

#[async_trait]
impl StepRunner for Runner {
    async fn run(&self, step: RunStep) -> std::result::Result<i32, String> {
        let request =
            super::supervise::Step { layers: step.layers, upper: step.upper, process: step.process };
        let request = serde_json::to_string(&request).map_err(|error| error.to_string())?;
        let executable = throng_supervisor::own_executable().map_err(|error| error.to_string())?;
        let (reader, writer) = std::io::pipe().map_err(|error| error.to_string())?;
        let mut child = tokio::process::Command::new(executable)
            .arg0("throng")
            .arg("build-step")
            .env(super::supervise::STEP_VARIABLE, request)
            // Never written to: its end tells the step that nobody waits for it any more. Killing the process
            // instead would leave what it has started.
            .stdin(std::process::Stdio::piped())
            .stdout(writer.try_clone().map_err(|error| error.to_string())?)
            .stderr(writer)
            .spawn()
            .map_err(|error| format!("cannot start the engine: {error}"))?;
        let _until_dropped = child.stdin.take();
        let mut reader = tokio::fs::File::from_std(std::fs::File::from(std::os::fd::OwnedFd::from(reader)));
        let mut buffer = vec![0; 16 << 10];
        loop {
            let read = reader.read(&mut buffer).await.map_err(|error| error.to_string())?;
            if read == 0 || step.output.send(buffer[..read].to_vec()).await.is_err() {
                break;
            }
        }
        let status = child.wait().await.map_err(|error| error.to_string())?;
        match status.code() {
            Some(super::supervise::STEP_NOT_RUN) => Err("the engine could not run it; see above".into()),
            Some(code) => Ok(code),
            None => Err(format!("the engine ended: {status}")),
        }
    }
}

pub async fn build(context: &Context, arguments: BuildArguments) -> Result<()> {
    let store = open_store(context)?;
    let args = parse_args(&arguments.build_arg)?;
    if !arguments.tag.is_empty() {
        let folder = match arguments.targets.as_slice() {
            [] => PathBuf::from("."),
            [folder] => PathBuf::from(folder),
            more => {
                let message = format!("one build context is built at a time, not {}", more.len());
                return Err(Failure::new(Kind::Input, message));
            }
        };
        let options = BuildOptions {
            dockerfile: arguments.dockerfile.unwrap_or_else(|| folder.join("Dockerfile")),
            context: folder,
            tags: arguments.tag.clone(),
            target: arguments.target,
            args,
            no_cache: arguments.no_cache,
            source_date_epoch: source_date_epoch(),
            ..BuildOptions::default()
        };
        return build_one(&store, &options, &arguments.tag.join(", ")).await;
    }
    let app = context.load(None)?.app;
    let mut built = 0;
    for name in &arguments.targets {
        if !app.services.contains_key(name) {
            return Err(Failure::new(Kind::NotFound, format!("no service {name} in {}", app.name))
                .hint("to build a folder, give the image a name: throng build -t NAME FOLDER"));
        }
    }
    for service in app.services.values().filter(|service| service.build.is_some()) {
        if arguments.targets.is_empty() || arguments.targets.contains(&service.name) {
            build_service(&store, service, arguments.no_cache, &args).await?;
            built += 1;
        }
    }
    if built == 0 {
        eprintln!("nothing to build: no chosen service has a build section");
    }
    Ok(())
}

fn parse_args(texts: &[String]) -> Result<BTreeMap<String, String>> {
    let pair = |text: &String| match text.split_once('=') {
        Some((name, value)) => Ok((name.to_owned(), value.to_owned())),
        // As docker: a bare name takes the caller's value.
        None => std::env::var(text).map(|value| (text.clone(), value)).map_err(|_| {
            Failure::new(Kind::Input, format!("--build-arg {text}: no value, and the environment has none"))
                .hint("write NAME=VALUE")
        }),
    };
    texts.iter().map(pair).collect()
}

/// Shows how much of a transfer is done.
struct TransferShown(Mutex<Transfer>);

struct Transfer {
    progress: Progress,
    /// Done and total bytes by blob.
    blobs: BTreeMap<String, (u64, u64)>,
}

impl TransferShown {
    fn new(label: &str) -> TransferShown {
        TransferShown(Mutex::new(Transfer { progress: Progress::new(label), blobs: BTreeMap::new() }))
    }

    fn end(self, result: std::result::Result<&str, ()>) {
        let transfer = self.0.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        match result {
            Ok(message) => transfer.progress.done(message),
            Err(()) => transfer.progress.failed(""),
        }
    }
}

impl TransferProgress for TransferShown {
    fn event(&self, event: TransferEvent<'_>) {
        let mut transfer = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let blob = |digest: &str| digest.to_owned();
        match event {
            TransferEvent::Started { digest, total } => {
                transfer.blobs.insert(blob(digest), (0, total));
            }
            TransferEvent::Advanced { digest, bytes } => {
                transfer.blobs.entry(blob(digest)).or_default().0 += bytes;
            }
            TransferEvent::Resumed { digest, at } => transfer.blobs.entry(blob(digest)).or_default().0 = at,
            TransferEvent::Finished { digest } => {
                let of = transfer.blobs.entry(blob(digest)).or_default();
                of.0 = of.1;
            }
            TransferEvent::Present { .. } => return,
        }
        let (done, total) =
            transfer.blobs.values().fold((0, 0), |(a, b), (done, total)| (a + done, b + total));
        let message = format!("{} of {}", format_bytes(done), format_bytes(total));
        transfer.progress.part(done, total, &message);
    }
}

async fn pull_one(store: &Store, name: &str, insecure: bool) -> std::result::Result<Image, ImageError> {
    let shown = TransferShown::new(&format!("pull {name}"));
    let options = PullOptions { insecure, ..PullOptions::default() };
    match throng_image::pull(store, name, &options, &shown).await {
        Ok(image) => {
            shown.end(Ok(short(&image.id)));
            Ok(image)
        }
        Err(error) => {
            shown.end(Err(()));
            Err(error)
        }
    }
}

pub async fn pull(context: &Context, arguments: PullArguments) -> Result<()> {
    let store = open_store(context)?;
    let mut names = arguments.images;
    if names.is_empty() {
        let app = context.load(None)?.app;
        names = app.services.values().filter(|s| s.build.is_none()).map(|s| s.image.clone()).collect();
        names.dedup();
    }
    for name in names {
        pull_one(&store, &name, arguments.insecure).await?;
    }
    Ok(())
}

pub async fn push(context: &Context, arguments: PushArguments) -> Result<()> {
    let store = open_store(context)?;
    for name in arguments.images {
        let shown = TransferShown::new(&format!("push {name}"));
        let options = PushOptions { insecure: arguments.insecure, ..PushOptions::default() };
        match throng_image::push(&store, &name, &options, &shown).await {
            Ok(digest) => shown.end(Ok(&digest)),
            Err(error) => {
                shown.end(Err(()));
                return Err(error.into());
            }
        }
    }
    Ok(())
}

pub fn list(context: &Context, arguments: ImagesArguments) -> Result<()> {
    let mut rows = Vec::new();
    let images = open_store(context)?.list()?;
    if arguments.quiet {
        // An image has a line for each of its names there; an id is printed once.
        let mut seen = BTreeSet::new();
        let ids = images.iter().map(|image| short(&image.id)).filter(|id| seen.insert(*id));
        ids.for_each(|id| outln!("{id}"));
        return Ok(());
    }
    for image in images {
        match arguments.format {
            Format::Json => outln!(
                "{}",
                serde_json::json!({
                    "Repository": image.repository, "Tag": image.tag, "ID": image.id, "Digest": image.digest,
                    "CreatedAt": image.created, "Size": image.size,
                })
            ),
            Format::Table => {
                let created =
                    image.created.as_deref().and_then(|text| text.get(..10)).unwrap_or("-").to_owned();
                rows.push(vec![
                    image.repository.clone(),
                    image.tag.clone(),
                    short(&image.id).to_owned(),
                    created,
                    format_bytes(image.size),
                ]);
            }
        }
    }
    if arguments.format == Format::Table {
        out!("{}", table(&["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"], &rows));
    }
    Ok(())
}

fn short(digest: &str) -> &str {
    let hex = digest.split_once(':').map_or(digest, |(_, hex)| hex);
    hex.get(..12).unwrap_or(hex)
}

pub fn remove(context: &Context, arguments: RmiArguments) -> Result<()> {
    let store = open_store(context)?;
    for name in &arguments.images {
        if let Some(image) = store.find(name)?
            && let Some(project) = user_of(context, &store, &image)?
        {
            return Err(Failure::new(Kind::Image, format!("image {name} is used by the app {project}"))
                .hint(format!("take it down first: throng -p {project} down")));
        }
        say_removed(&store.remove(name, &throng_supervisor::needed(&context.paths))?.removed);
    }
    Ok(())
}

/// Removes what of these images is here and no other app uses.
pub fn remove_unused(context: &Context, images: &[String]) -> Result<()> {
    if images.is_empty() {
        return Ok(());
    }
    let store = open_store(context)?;
    for name in images {
        let Some(image) = store.find(name)? else { continue };
        if let Some(project) = user_of(context, &store, &image)? {
            eprintln!("image {name} stays: the app {project} uses it");
            continue;
        }
        say_removed(&store.remove(name, &throng_supervisor::needed(&context.paths))?.removed);
    }
    Ok(())
}

pub fn say_removed(removed: &[Removed]) {
    for removed in removed {
        match removed {
            Removed::Untagged(name) => outln!("Untagged: {name}"),
            Removed::Deleted(digest) => outln!("Deleted: {digest}"),
        }
    }
}

/// An app of this user that is up and knows the image by this name. Another name of the same image may go.
fn user_of(context: &Context, store: &Store, image: &Image) -> Result<Option<String>> {
    for project in throng_supervisor::client::projects(&context.paths) {
        for reference in throng_supervisor::images_of(&context.paths, &project) {
            if store.find(&reference)?.is_some_and(|used| used.reference == image.reference) {
                return Ok(Some(project));
            }
        }
    }
    Ok(None)
}

pub fn tag(context: &Context, arguments: TagArguments) -> Result<()> {
    Ok(open_store(context)?.tag(&arguments.source, &arguments.target)?)
}

pub fn save(context: &Context, arguments: SaveArguments) -> Result<()> {
    let store = open_store(context)?;
    let format = match arguments.archive {
        ArchiveArgument::Docker => ArchiveFormat::Docker,
        ArchiveArgument::Oci => ArchiveFormat::Oci,
    };
    match arguments.output {
        Some(path) => {
            // Written beside and renamed, so that a failure leaves no half archive under the name.
            let temporary = path.with_extension("throng-part");
            let result = std::fs::File::create(&temporary)
                .map_err(|error| io(format!("write {}", temporary.display()), &error))
                .and_then(|file| Ok(store.save(&arguments.images, format, file)?));
            let result = result.and_then(|()| {
                std::fs::rename(&temporary, &path)
                    .map_err(|error| io(format!("write {}", path.display()), &error))
            });
            if result.is_err() {
                let _ = std::fs::remove_file(&temporary);
            }
            result
        }
        None if std::io::stdout().is_terminal() => {
            Err(Failure::new(Kind::Input, "an archive does not belong on a terminal")
                .hint("name a file with -o"))
        }
        None => Ok(store.save(&arguments.images, format, std::io::stdout().lock())?),
    }
}

pub async fn load(context: &Context, archive: &Path) -> Result<()> {
    let store = open_store(context)?;
    let images = if archive == Path::new("-") {
        store.load(std::io::stdin().lock())
    } else {
        let file = std::fs::File::open(archive).map_err(|error| {
            Failure::new(Kind::Input, format!("cannot open {}: {error}", archive.display()))
        })?;
        store.load(file)
    };
    for image in images.map_err(|error| Failure {
        hint: error.hint(),
        ..Failure::new(Kind::Image, format!("{}: {}", archive.display(), chain(&error)))
    })? {
        let style = Style::for_stdout();
        outln!("Loaded image: {} {}", image.reference, style.dim(short(&image.id)));
    }
    Ok(())
}
