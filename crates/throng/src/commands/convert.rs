//! `throng convert`: the app as Kubernetes manifests, in files or on standard output.

use crate::cli::{ConvertArguments, ConvertFormat};
use crate::failure::{Failure, Kind, Result, io};
use crate::project::{Context, warn};
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use throng_compose::Places;
use throng_kube::{Format, HEADER, HostFile, MAX_CONFIG_BYTES, MAX_CONFIG_FILES, Object, Options, Source};
use throng_model::diagnostic::Location;

pub fn run(context: &Context, arguments: ConvertArguments) -> Result<()> {
    let mut context = context.clone();
    if !arguments.file.is_empty() {
        context.project.file.clone_from(&arguments.file);
    }
    check(&arguments)?;
    let loaded = context.load(None)?;
    let options = Options { namespace: arguments.namespace.clone(), volume_size: arguments.volume_size };
    let source = Host { places: &loaded.places };
    let converted = throng_kube::convert(&loaded.app, &source, &options)?;
    warn(&converted.warnings);
    let format = match arguments.format {
        ConvertFormat::Yaml => Format::Yaml,
        ConvertFormat::Json => Format::Json,
    };
    if arguments.output == Path::new("-") {
        out!("{}", throng_kube::stream(&converted.objects, format));
        return Ok(());
    }
    let mut files = throng_kube::files(&converted.objects, format);
    let folder = match arguments.overlay.as_slice() {
        [] => arguments.output.clone(),
        _ => arguments.output.join("base"),
    };
    if !arguments.overlay.is_empty() {
        let all = throng_kube::kustomization(files.keys().map(String::as_str));
        files.insert(KUSTOMIZATION.to_owned(), all);
    }
    write(&folder, &files, format, arguments.force)?;
    for name in files.keys().filter(|name| *name != KUSTOMIZATION) {
        let own = converted.objects.iter().filter(|object| throng_kube::file_name(object, format) == *name);
        let mut kinds: Vec<&str> = own.map(|object| object.kind.as_str()).collect();
        kinds.dedup();
        outln!("{}  {}", folder.join(name).display(), kinds.join(", "));
    }
    overlays(&arguments, &converted.objects)
}

/// Overlays stand beside their base, and are written in YAML.
fn check(arguments: &ConvertArguments) -> Result<()> {
    if arguments.overlay.is_empty() {
        return Ok(());
    }
    let (message, hint) = if arguments.output == Path::new("-") {
        ("an overlay is a folder beside its base, and standard output is none", "name a folder with -o")
    } else if arguments.format == ConvertFormat::Json {
        ("a base for Kustomize is written in YAML", "leave --format out")
    } else {
        return Ok(());
    };
    Err(Failure::new(Kind::Input, message).hint(hint))
}

/// What Kustomize calls the file that describes a folder.
const KUSTOMIZATION: &str = "kustomization.yaml";

/// Overlays that are not there yet.
fn overlays(arguments: &ConvertArguments, objects: &[Object]) -> Result<()> {
    for name in &arguments.overlay {
        let folder = arguments.output.join("overlays").join(name);
        let path = folder.join(KUSTOMIZATION);
        if path.exists() {
            outln!("{}  left as it is", path.display());
            continue;
        }
        fs::create_dir_all(&folder).map_err(|error| cannot("make the folder", &folder, &error))?;
        fs::write(&path, throng_kube::overlay(name, objects))
            .map_err(|error| cannot("write", &path, &error))?;
        outln!("{}  Kustomization", path.display());
    }
    Ok(())
}

fn cannot(what: &str, path: &Path, error: &std::io::Error) -> Failure {
    io(format!("{what} {}", path.display()), error)
}

/// Writes all files, or none if one of them is somebody's own. Files that an earlier run made and that are none any more
/// are removed, for whoever applies the folder would bring back what left the app.
fn write(folder: &Path, files: &BTreeMap<String, String>, format: Format, force: bool) -> Result<()> {
    fs::create_dir_all(folder).map_err(|error| cannot("make the folder", folder, &error))?;
    let there = existing(folder, format).map_err(|error| cannot("read", folder, &error))?;
    let is_written = |path: &Path| {
        path.file_name().is_some_and(|name| files.contains_key(name.to_string_lossy().as_ref()))
    };
    let foreign = there.iter().find(|(path, ours)| !ours && is_written(path));
    if let (Some((path, _)), false) = (foreign, force) {
        let message = format!("{} is there already, and was not made by throng convert", path.display());
        return Err(
            Failure::new(Kind::Input, message).hint("write to another folder with -o, or use --force")
        );
    }
    for (path, _) in there.iter().filter(|(path, ours)| *ours && !is_written(path)) {
        fs::remove_file(path).map_err(|error| cannot("remove", path, &error))?;
        eprintln!("removed {}: nothing of the app is in it any more", path.display());
    }
    for (name, text) in files {
        let path = folder.join(name);
        fs::write(&path, text).map_err(|error| cannot("write", &path, &error))?;
    }
    Ok(())
}

/// Files of a folder that this command could have made, and whether it has.
fn existing(folder: &Path, format: Format) -> std::io::Result<Vec<(PathBuf, bool)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_none_or(|ending| ending != format.ending()) {
            continue;
        }
        let Ok(file) = fs::File::open(&path) else {
            found.push((path, false));
            continue;
        };
        let mut text = Vec::new();
        file.take(MAX_LOOKED_AT).read_to_end(&mut text)?;
        let text = String::from_utf8_lossy(&text);
        let ours = match format {
            Format::Yaml => text.starts_with(HEADER),
            // There are no comments in JSON.
            Format::Json => text.contains("\"app.kubernetes.io/managed-by\": \"throng\""),
        };
        found.push((path, ours));
    }
    found.sort();
    Ok(found)
}

/// Bytes of a file by which it is told whose it is.
const MAX_LOOKED_AT: u64 = 64 << 10;

/// The files of this host, and the places of the Compose file.
struct Host<'a> {
    places: &'a Places,
}

impl Source for Host<'_> {
    fn place(&self, path: &[&str]) -> Option<Location> {
        self.places.of(path)
    }

    fn read(&self, path: &Path) -> std::io::Result<HostFile> {
        let metadata = fs::metadata(path)?;
        if metadata.is_file() {
            return Ok(small(path)?.map_or(HostFile::Other, HostFile::File));
        }
        if !metadata.is_dir() {
            return Ok(HostFile::Other);
        }
        let mut files = Vec::new();
        let mut left = MAX_CONFIG_BYTES;
        for entry in fs::read_dir(path)? {
            let path = entry?.path();
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
                return Ok(HostFile::Other);
            };
            if files.len() >= MAX_CONFIG_FILES || !fs::metadata(&path)?.is_file() {
                return Ok(HostFile::Other);
            }
            let Some(bytes) = small(&path)?.filter(|bytes| bytes.len() as u64 <= left) else {
                return Ok(HostFile::Other);
            };
            left -= bytes.len() as u64;
            files.push((name.to_owned(), bytes));
        }
        // Folders are listed in an order of their own.
        files.sort();
        Ok(HostFile::Folder(files))
    }
}

/// The content of a file that an object of a cluster can hold.
fn small(path: &Path) -> std::io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(MAX_CONFIG_BYTES + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= MAX_CONFIG_BYTES).then_some(bytes))
}
