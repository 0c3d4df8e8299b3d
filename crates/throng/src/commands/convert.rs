//! `throng convert`: the app as Kubernetes manifests, in files or on standard output.

use crate::cli::{ConvertArguments, ConvertFormat};
use crate::failure::{Failure, Kind, Result, io};
use crate::project::{Context, warn};
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use throng_compose::Places;
use throng_kube::{Format, HEADER, HostFile, MAX_CONFIG_BYTES, MAX_CONFIG_FILES, Options, Source};
use throng_model::diagnostic::Location;

pub fn run(context: &Context, arguments: ConvertArguments) -> Result<()> {
    let mut context = context.clone();
    if !arguments.file.is_empty() {
        context.project.file.clone_from(&arguments.file);
    }
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
    let files = throng_kube::files(&converted.objects, format);
    write(&arguments, &files, format)?;
    for name in files.keys() {
        let of_file =
            converted.objects.iter().filter(|object| throng_kube::file_name(object, format) == *name);
        let mut kinds: Vec<&str> = of_file.map(|object| object.kind.as_str()).collect();
        kinds.dedup();
        outln!("{}  {}", arguments.output.join(name).display(), kinds.join(", "));
    }
    Ok(())
}

/// Writes all files, or none if one of them is somebody's own. Files that an earlier run made and that are none any more
/// are removed, for whoever applies the folder would bring back what left the app.
fn write(arguments: &ConvertArguments, files: &BTreeMap<String, String>, format: Format) -> Result<()> {
    let folder = &arguments.output;
    let cannot =
        |what: &str, path: &Path, error: &std::io::Error| io(format!("{what} {}", path.display()), error);
    fs::create_dir_all(folder).map_err(|error| cannot("make the folder", folder, &error))?;
    let there = existing(folder, format).map_err(|error| cannot("read", folder, &error))?;
    let foreign = there.iter().find(|(path, ours)| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        !ours && files.contains_key(&name)
    });
    if let (Some((path, _)), false) = (foreign, arguments.force) {
        let message = format!("{} is there already, and was not made by throng convert", path.display());
        return Err(
            Failure::new(Kind::Input, message).hint("write to another folder with -o, or use --force")
        );
    }
    for (path, _) in there.iter().filter(|(_, ours)| *ours) {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if !files.contains_key(&name) {
            fs::remove_file(path).map_err(|error| cannot("remove", path, &error))?;
            eprintln!("removed {}: nothing of the app is in it any more", path.display());
        }
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
