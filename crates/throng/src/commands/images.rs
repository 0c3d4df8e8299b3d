//! Images: fetched, sent, listed, archived, removed.

use crate::cli::{
    ArchiveArgument, Format, ImagesArguments, PullArguments, PushArguments, RmiArguments, SaveArguments,
    TagArguments,
};
use crate::failure::{Failure, Kind, Result, chain, io};
use crate::project::Context;
use crate::terminal::{Progress, Style, table};
use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Mutex;
use throng_image::{
    ArchiveFormat, Image, ImageError, PullOptions, PushOptions, Removed, Store, TransferEvent,
    TransferProgress,
};
use throng_model::app::Service;
use throng_model::build::PullPolicy;
use throng_model::units::format_bytes;

pub fn open_store(context: &Context) -> Result<Store> {
    context.paths.prepare().map_err(|error| io("prepare the folders", &error))?;
    Ok(Store::open(&context.paths.images())?)
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

pub async fn pull_one(store: &Store, name: &str, insecure: bool) -> std::result::Result<Image, ImageError> {
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
        let asked_for = |service: &&Service| service.build.is_none() && service.pull != PullPolicy::Never;
        names = app.services.values().filter(asked_for).map(|service| service.image.clone()).collect();
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

pub fn short(digest: &str) -> &str {
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
