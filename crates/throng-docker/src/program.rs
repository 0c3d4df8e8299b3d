//! Programs that cannot run here, found before they are started: Docker starts them, and then says only in the log why
//! they have ended.

use crate::errors::{chain, host};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use throng_model::replica::{Process, ReplicaSpec, RootFs};
use throng_runtime::{ErrorKind, Result, RuntimeError};

/// Of a program's file, where its headers and the name of its loader are.
const HEADERS_MOST: u64 = 64 << 10;

/// Refuses a program for another machine, a file that is neither a program nor a script, and one that needs a
/// loader or interpreter that the image does not have. What else is wrong with it the daemon says at the start.
pub async fn check(spec: &ReplicaSpec) -> Result<()> {
    let (root, process) = (spec.root.clone(), spec.process.clone());
    // What is mounted over the image is not looked into.
    let targets: Vec<PathBuf> = spec.mounts.iter().map(|mount| PathBuf::from(&mount.target)).collect();
    let checked = tokio::task::spawn_blocking(move || look(&root, &process, &targets)).await;
    let checked = checked.map_err(|error| host(format_args!("cannot look at {}", spec.root.image), error))?;
    checked.map_err(|(message, hint)| {
        RuntimeError::new(ErrorKind::Invalid, format!("cannot create {}: {message}", spec.id)).hint(hint)
    })
}

fn look(root: &RootFs, process: &Process, mounted: &[PathBuf]) -> std::result::Result<(), (String, String)> {
    let path = process.env.iter().find_map(|pair| pair.strip_prefix("PATH="));
    let path = path.unwrap_or(throng_image::DEFAULT_PATH);
    let program = process.args.first().map_or("", String::as_str);
    throng_image::check_program(&root.image, &root.layers, program, path).map_err(|error| {
        (chain(&error), error.hint().unwrap_or_else(|| "name a program that the image has".into()))
    })?;
    let candidates = if program.contains('/') {
        vec![PathBuf::from(program)]
    } else {
        path.split(':').map(|folder| Path::new(folder).join(program)).collect()
    };
    let visible = |path: &&PathBuf| path.is_absolute() && !hidden(path, mounted);
    let mut found = candidates.iter().filter(visible).filter_map(|path| top_file(&root.layers, path));
    let Some(mut file) = found.next() else { return Ok(()) };
    match needs(&mut file) {
        Needs::Nothing => Ok(()),
        Needs::File(path) if hidden(&path, mounted) || !surely_missing(&root.layers, &path) => Ok(()),
        Needs::File(path) => {
            let message = format!("{program:?} needs {}, which the image does not have", path.display());
            Err((message, "add it to the image, or build the program statically".into()))
        }
        Needs::Wonder => {
            let message = format!("{program:?} is neither a program nor a script that begins with #!");
            Err((message, "name a program, or give the script its first line, as in #!/bin/sh".into()))
        }
    }
}

fn hidden(path: &Path, mounted: &[PathBuf]) -> bool {
    mounted.iter().any(|target| path.starts_with(target))
}

/// What the kernel must find to run a file.
#[derive(Debug, PartialEq)]
enum Needs {
    Nothing,
    /// A script's interpreter, or a program's dynamic loader.
    File(PathBuf),
    /// It is nothing that a kernel runs.
    Wonder,
}

fn needs(file: &mut File) -> Needs {
    let mut begin = Vec::new();
    if file.take(HEADERS_MOST).read_to_end(&mut begin).is_err() {
        return Needs::Nothing;
    }
    let found = if let Some(line) = begin.strip_prefix(b"#!") {
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let text = String::from_utf8_lossy(line);
        text.split_whitespace().next().map(PathBuf::from)
    } else if begin.starts_with(b"\x7fELF") {
        loader(&begin)
    } else {
        return Needs::Wonder;
    };
    found.filter(|path| path.is_absolute()).map_or(Needs::Nothing, Needs::File)
}

/// The path in the segment of type PT_INTERP (elf(5)) of a 64-bit little-endian program, if it has one.
fn loader(elf: &[u8]) -> Option<PathBuf> {
    const PT_INTERP: u64 = 3;
    let number = |at: usize, bytes: usize| {
        let slice = elf.get(at..at.checked_add(bytes)?)?;
        Some(slice.iter().rev().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte)))
    };
    if elf.get(4..6) != Some(&[2, 1]) {
        return None;
    }
    let place = |at: usize, bytes: usize| usize::try_from(number(at, bytes)?).ok();
    let (table, size, count) = (place(32, 8)?, place(54, 2)?, place(56, 2)?);
    let mut entries = (0..count).filter_map(|index| table.checked_add(index.checked_mul(size)?));
    let entry = entries.find(|entry| number(*entry, 4) == Some(PT_INTERP))?;
    let (offset, length) = (place(entry.checked_add(8)?, 8)?, place(entry.checked_add(32)?, 8)?);
    let path = elf.get(offset..offset.checked_add(length)?)?;
    Some(PathBuf::from(std::str::from_utf8(path).ok()?.trim_end_matches('\0')))
}

/// Whether no layer has a file at this path, nor a link on the way to it that could lead to one.
fn surely_missing(layers: &[PathBuf], path: &Path) -> bool {
    let Ok(below) = path.strip_prefix("/") else { return false };
    let kind = |layer: &PathBuf, part: &Path| std::fs::symlink_metadata(layer.join(part)).ok();
    let links = |part: &Path| {
        layers.iter().any(|layer| kind(layer, part).is_some_and(|there| there.file_type().is_symlink()))
    };
    // Parents first: beyond a link nothing may be looked at, for it leads out of the layer.
    let mut parts: Vec<&Path> = below.ancestors().filter(|part| !part.as_os_str().is_empty()).collect();
    parts.reverse();
    !parts.iter().any(|part| links(part)) && !layers.iter().any(|layer| kind(layer, below).is_some())
}

/// The file of the topmost layer that has one there, if it can be told without following a link.
fn top_file(layers: &[PathBuf], path: &Path) -> Option<File> {
    let below = path.strip_prefix("/").ok()?;
    let there = |layer: &PathBuf| {
        let path = layer.join(below);
        Some((std::fs::symlink_metadata(&path).ok()?, path))
    };
    let (metadata, path) = layers.iter().rev().find_map(there)?;
    metadata.is_file().then(|| File::open(path).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn what_the_kernel_would_not_run_is_told_apart() {
        let folder = tempfile::tempdir().expect("a folder");
        let (lower, upper) = (folder.path().join("a"), folder.path().join("b"));
        for layer in [&lower, &upper] {
            std::fs::create_dir_all(layer.join("bin")).expect("a folder");
        }
        for (path, content) in [
            (lower.join("bin/script"), "#!/bin/sh\n"),
            (lower.join("bin/text"), "hello"),
            (lower.join("bin/replaced"), "hello"),
            (upper.join("bin/replaced"), "#!/bin/sh\n"),
            (lower.join("bin/short"), "#"),
            (lower.join("bin/sh"), "\x7fELF"),
            (lower.join("bin/lost"), "#! /nowhere -x\n"),
            (lower.join("bin/linked"), "#!/linked/sh\n"),
            (lower.join("bin/mounted"), "#!/mounted/sh\n"),
        ] {
            std::fs::write(path, content).expect("a file");
        }
        symlink("bin", upper.join("linked")).expect("a link");
        symlink("text", lower.join("bin/link")).expect("a link");
        let root = RootFs {
            image: "i".into(),
            image_id: String::new(),
            layers: vec![lower, upper],
            read_only: false,
        };
        let mounted = [PathBuf::from("/mounted")];
        for (program, runs) in [
            ("/bin/script", true),
            ("script", true),
            ("/bin/text", false),
            ("text", false),
            ("replaced", true),
            ("/bin/short", false),
            ("/bin/link", true),
            ("lost", false),
            ("/bin/linked", true),
            ("/bin/mounted", true),
            ("/bin/missing", true),
            ("/mounted/x", true),
        ] {
            let process = Process {
                args: vec![program.into()],
                env: vec!["PATH=/x:/bin".into()],
                ..Process::default()
            };
            assert_eq!(look(&root, &process, &mounted).is_ok(), runs, "{program}");
        }
    }
    #[test]
    fn a_programs_loader_is_found_and_damage_is_none() {
        let mut elf = vec![0u8; 200];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        // One segment of 56 bytes behind the header: PT_INTERP, 9 bytes at 150.
        (elf[32], elf[54], elf[56]) = (64, 56, 1);
        (elf[64], elf[72], elf[96]) = (3, 150, 9);
        elf[150..159].copy_from_slice(b"/lib/ld.s");
        assert_eq!(loader(&elf), Some("/lib/ld.s".into()));
        for at in [4, 5, 56, 64] {
            let mut other = elf.clone();
            other[at] = 0;
            assert_eq!(loader(&other), None, "{at}");
        }
        for most in 0..159 {
            assert_eq!(loader(&elf[..most]), None, "{most}");
        }
        elf[32..40].fill(0xff);
        assert_eq!(loader(&elf), None);
    }
}
