//! Removing what nothing uses any more.

use super::images::{open_store, say_removed};
use crate::cli::{Format, PruneArguments};
use crate::failure::{Failure, Kind, Result, io};
use crate::project::Context;
use std::collections::BTreeSet;
use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};
use throng_image::{Store, Which};
use throng_model::units::format_bytes;
use throng_supervisor::client::{Choice, Client, projects};
use throng_supervisor::paths::Paths;

/// What is there to be removed.
struct Plan {
    /// Projects of which replicas are left, but no record of an app.
    remains: Vec<String>,
    which: Which,
    /// Images by what people know them by.
    images: Vec<String>,
    volumes: Vec<PathBuf>,
}

pub async fn run(context: &Context, arguments: PruneArguments) -> Result<()> {
    let store = open_store(context)?;
    let plan = Plan::of(&context.paths, &store, &arguments)?;
    if arguments.dry_run {
        match arguments.format {
            Format::Json => outln!("{:#}", plan.json()),
            Format::Table => plan.say(),
        }
        return Ok(());
    }
    if !arguments.force && !confirmed(&plan)? {
        return Err(Failure::new(Kind::Interrupted, "nothing was removed"));
    }
    for project in &plan.remains {
        let client = Client::find(&context.paths, project, &Choice::default()).await?;
        client.down(false, None, &mut |_| {}).await?;
        outln!("Removed: what was left of {project}");
    }
    let collected = store.prune(plan.which, &throng_supervisor::needed(&context.paths))?;
    say_removed(&collected.removed);
    let mut bytes = collected.bytes;
    for volume in &plan.volumes {
        let held = size(volume);
        std::fs::remove_dir_all(volume)
            .map_err(|error| io(format!("remove {}", volume.display()), &error))?;
        outln!("Removed: volume {}", name(volume));
        bytes += held;
    }
    outln!("Total reclaimed space: {}", format_bytes(bytes));
    Ok(())
}

impl Plan {
    fn of(paths: &Paths, store: &Store, arguments: &PruneArguments) -> Result<Plan> {
        let which = if arguments.all { Which::All } else { Which::Nameless };
        let unneeded = store.unneeded(which, &throng_supervisor::needed(paths))?;
        let known = |digest: &String| unneeded.contains(digest);
        let images = store.list()?.into_iter().filter(|image| known(&image.digest));
        let called = |image: throng_image::ImageSummary| match image.repository.as_str() {
            "<none>" => image.id,
            repository => format!("{repository}:{}", image.tag),
        };
        let volumes = if arguments.volumes { unused_volumes(paths) } else { Vec::new() };
        Ok(Plan { remains: remains(paths), which, images: images.map(called).collect(), volumes })
    }

    fn json(&self) -> serde_json::Value {
        let volumes: Vec<String> = self.volumes.iter().map(|volume| name(volume)).collect();
        serde_json::json!({"Remains": self.remains, "Images": self.images, "Volumes": volumes})
    }

    fn say(&self) {
        self.remains.iter().for_each(|project| outln!("Would remove: what is left of {project}"));
        self.images.iter().for_each(|image| outln!("Would remove: image {image}"));
        self.volumes.iter().for_each(|volume| outln!("Would remove: volume {}", name(volume)));
        outln!("Would remove: layers and build cache that no other image uses");
    }
}

fn remains(paths: &Paths) -> Vec<String> {
    let up = projects(paths);
    let left = folders(&paths.engine()).into_iter().map(|folder| name(&folder));
    left.filter(|project| Paths::is_project_name(project) && !up.contains(project)).collect()
}

fn unused_volumes(paths: &Paths) -> Vec<PathBuf> {
    let used: BTreeSet<String> =
        projects(paths).iter().flat_map(|project| throng_supervisor::volumes_of(paths, project)).collect();
    folders(&paths.volumes()).into_iter().filter(|folder| !used.contains(&name(folder))).collect()
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Bytes on the disk; what cannot be looked at counts as nothing.
fn size(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(metadata) = path.symlink_metadata() else { return 0 };
    let below = std::fs::read_dir(path).into_iter().flatten().flatten();
    let below: u64 = if metadata.is_dir() { below.map(|entry| size(&entry.path())).sum() } else { 0 };
    metadata.blocks() * 512 + below
}

fn confirmed(plan: &Plan) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        let message = "removing needs a yes, and there is no terminal to ask on";
        return Err(
            Failure::new(Kind::Input, message).hint("add --force, or see with --dry-run what would go")
        );
    }
    plan.say();
    eprint!("Are you sure you want to continue? [y/N] ");
    // A question that cannot be shown is answered with no.
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).map_err(|error| io("read the answer", &error))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
