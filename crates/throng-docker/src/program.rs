//! Programs that cannot run here, found before they are started: Docker starts them, and then says only in the log why
//! they have ended.

use crate::errors::{chain, host};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use throng_model::replica::{Process, ReplicaSpec, RootFs};
use throng_runtime::{ErrorKind, Result, RuntimeError};

/// Refuses a program for another machine, and a file that is neither a program nor a script. What else is wrong with
/// it the daemon says at the start.
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
    let visible =
        |path: &&PathBuf| path.is_absolute() && !mounted.iter().any(|target| path.starts_with(target));
    let mut found = candidates.iter().filter(visible).filter_map(|path| top_file(&root.layers, path));
    let Some(mut file) = found.next() else { return Ok(()) };
    let mut begin = [0u8; 4];
    let read = file.read(&mut begin).unwrap_or(0);
    let begin = &begin[..read];
    if begin.starts_with(b"#!") || begin == b"\x7fELF" {
        return Ok(());
    }
    let message =
        format!("{program:?} is neither a program nor a script with a first line that begins with #!");
    Err((message, "name a program, or give the script its first line, as in #!/bin/sh".into()))
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
        ] {
            std::fs::write(path, content).expect("a file");
        }
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
}
