//! Replicas as plain processes, where the host allows no namespaces at all.
//!
//! The program runs straight out of the image's layer that holds it, as the supervisor's own user, with the host's
//! files, network and processes in view. It gets an address of its own out of 127.0.0.0/8 in `THRONG_ADDRESS` and must
//! listen there itself. System calls and privileges are restricted as in a container.

use crate::child::{Job, Op};
use crate::layers::Layers;
use crate::plan::{self, Ground, text};
use crate::spawn::Spawner;
use crate::user::Identity;
use std::path::{Path, PathBuf};
use throng_model::replica::{Process, ReplicaSpec};
use throng_runtime::{ErrorKind, Result, RuntimeError};

/// Variable that tells a plain process its address.
pub const ADDRESS: &str = "THRONG_ADDRESS";

/// Why this host refuses containers, if it does: tries the first things that one needs.
pub fn refusal(spawner: &Spawner, namespaces: i32) -> Option<String> {
    let private = plan::mount("none", "/", "", crate::sys::RECURSIVE | crate::sys::PRIVATE, "");
    let ops = private.into_iter().chain([Op::HostName(b"probe".to_vec())]).collect();
    match spawner.spawn(Job::new(namespaces, ops)).and_then(|starting| starting.finish()) {
        Ok((_, pidfd)) => {
            // It had nothing to execute and has ended.
            crate::spawn::reap(&pidfd);
            None
        }
        Err(failure) => Some(std::io::Error::from(failure.errno).to_string()),
    }
}

/// The end of a plain process' operations, after descriptors and groups.
pub fn ending(ground: &Ground, spec: &ReplicaSpec, process: &Process) -> Result<Vec<Op>> {
    let layers = Layers::new(None, &spec.root.layers);
    let name = process.args.first().map(String::as_str).unwrap_or_default();
    let candidates = plan::candidates(name, &process.env);
    let found = candidates.iter().find_map(|c| layers.find(c).filter(|f| f.metadata.is_file()));
    let program = found.map(|f| f.path).ok_or_else(|| {
        RuntimeError::new(
            ErrorKind::Invalid,
            format!("cannot start {}: there is no program {name:?} in the image", spec.id),
        )
        .hint(
            "as a plain process a replica sees the host's files: use an image that holds the program itself",
        )
    })?;
    let identity = Identity::default();
    let mut prepared = process.clone();
    if let Some(leg) = spec.networks.first() {
        prepared.env.push(format!("{ADDRESS}={}", leg.address));
    }
    let vectors = plan::program_at(vec![text(&program)?], &prepared, &identity, &spec.hostname)?;
    let mut ops = vec![
        Op::ChangeDirectory { path: text(working_directory(&layers, &process.cwd, &program))? },
        Op::Limit { resource: libc::RLIMIT_NOFILE as i32, soft: ground.open_files, hard: ground.open_files },
        Op::Umask(0o022),
        Op::NoNewPrivileges,
    ];
    ops.extend(ground.filters.iter().cloned().map(Op::Filter));
    ops.extend([Op::DieWithParent(false), Op::Execute(vectors)]);
    Ok(ops)
}

/// The image's folder if it holds one by that name, the program's own otherwise.
fn working_directory(layers: &Layers, cwd: &str, program: &Path) -> PathBuf {
    let wanted = layers.find(cwd).filter(|f| f.metadata.is_dir() && !cwd.is_empty()).map(|f| f.path);
    wanted.or_else(|| program.parent().map(Path::to_path_buf)).unwrap_or_else(|| PathBuf::from("/"))
}
