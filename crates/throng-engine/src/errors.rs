//! The kernel's words turned into errors that say what to do.

use crate::child::Op;
use crate::spawn::Failure;
use std::io;
use throng_model::sandbox::ULIMITS;
use throng_runtime::{ErrorKind, RuntimeError};

/// An error of the host, with a hint where the error number has one usual cause.
pub fn host(what: impl std::fmt::Display, error: impl Into<io::Error>) -> RuntimeError {
    let error = error.into();
    let fallen = RuntimeError::new(ErrorKind::Host, format!("{what}: {error}"));
    match error.raw_os_error().and_then(hint) {
        Some(hint) => fallen.hint(hint),
        None => fallen,
    }
}

fn hint(errno: i32) -> Option<&'static str> {
    Some(match errno {
        libc::ENOSPC => {
            "a disk, an inode table or a kernel table is full; free space, or see `throng doctor`"
        }
        libc::EDQUOT => "a quota of this user is used up",
        libc::EMFILE => "this process holds as many descriptors as it may; raise it with `ulimit -n`",
        libc::ENFILE => "the host holds as many open files as it may; raise fs.file-max",
        libc::ENOMEM => "the host is out of memory, or the replica's memory limit is too small to start in",
        libc::EAGAIN => {
            "a limit on processes is reached: kernel.pid_max, kernel.threads-max, or an ancestor's pids.max"
        }
        libc::EPERM | libc::EACCES => {
            "this user may not do that; run as root, or force `--isolation process`"
        }
        libc::EADDRINUSE => {
            "another replica has this address, or the kernel is still taking down thousands that had been stopped"
        }
        libc::EXFULL => "the bridge has as many ports as the kernel allows (1,023)",
        libc::ENODEV | libc::EOPNOTSUPP => "this kernel lacks a feature that is needed here",
        _ => return None,
    })
}

/// Explains what a child could not do.
pub fn failed_start(who: &str, ops: &[Op], failure: Failure) -> RuntimeError {
    let error = io::Error::from(failure.errno);
    let Some(op) = failure.step.and_then(|step| ops.get(step)) else {
        return host(format_args!("cannot start {who}: cannot make a process"), error);
    };
    let invalid = |what: String| RuntimeError::new(ErrorKind::Invalid, format!("cannot start {who}: {what}"));
    match op {
        // Whatever the definition says: the host has no more of it.
        Op::Attach { target, .. } if is_limit(failure.errno.0) => {
            host(format_args!("cannot start {who}: cannot mount at {}", target.to_string_lossy()), error)
        }
        Op::Attach { target, .. } => {
            invalid(format!("cannot mount at {}: {error}", target.to_string_lossy()))
        }
        Op::Take { path, .. } => {
            invalid(format!("cannot use {} of the host: {error}", path.to_string_lossy()))
                .hint("check that the path exists and may be read")
        }
        Op::ChangeDirectory { path } => {
            invalid(format!("cannot enter working directory {}: {error}", path.to_string_lossy()))
        }
        Op::Write { path, data } if is_parameter(path) => {
            let name = path.to_string_lossy().trim_start_matches(PARAMETERS).replace('/', ".");
            invalid(format!("cannot set {name} to {:?}: {error}", String::from_utf8_lossy(data))).hint(
                "see sysctls of the service; an interface has parameters of its own only once it is there",
            )
        }
        Op::Limit { resource, .. } => {
            let name =
                ULIMITS.iter().find(|(_, number)| number == resource).map_or("a limit", |(name, _)| name);
            invalid(format!("cannot set the limit {name}: {error}"))
                .hint("only root may raise hard limits; see ulimits of the service")
        }
        Op::User { uid, .. } => invalid(format!("cannot become user {uid}: {error}"))
            .hint("as an ordinary user only the ids that /etc/subuid grants exist inside replicas"),
        other => host(format_args!("cannot start {who}: cannot {}", describe(other)), error),
    }
}

/// Where the kernel's parameters are.
const PARAMETERS: &str = "/proc/sys/";

fn is_parameter(path: &std::ffi::CStr) -> bool {
    path.to_bytes().starts_with(PARAMETERS.as_bytes())
}

fn is_limit(errno: i32) -> bool {
    matches!(
        errno,
        libc::ENOSPC
            | libc::EDQUOT
            | libc::ENOMEM
            | libc::EMFILE
            | libc::ENFILE
            | libc::EAGAIN
            | libc::ENOBUFS
    )
}

fn describe(op: &Op) -> String {
    match op {
        Op::OwnDescriptors | Op::TakeDescriptors(_) => "set up its descriptors".into(),
        Op::Write { path, .. } => format!("write {}", path.to_string_lossy()),
        Op::Output { log } => format!("open its log {}", log.to_string_lossy()),
        Op::OpenInput { pipe } => format!("open its input {}", pipe.to_string_lossy()),
        Op::Unshare(_) => "make a namespace".into(),
        Op::Join { .. } => "join the namespaces".into(),
        Op::AttachBrought { target, .. } => format!("mount {}", target.to_string_lossy()),
        Op::Overlay(overlay) => {
            format!(
                "mount an overlay of {} layers over {}",
                overlay.lower.len(),
                overlay.upper.to_string_lossy()
            )
        }
        Op::Mount(mount) => {
            format!("mount {} at {}", mount.kind.to_string_lossy(), mount.target.to_string_lossy())
        }
        Op::Directory { path, .. } => format!("make folder {}", path.to_string_lossy()),
        Op::EmptyFile { path } | Op::Node { path, .. } | Op::Symlink { path, .. } => {
            format!("make {}", path.to_string_lossy())
        }
        Op::Mask { path, .. } => format!("hide {}", path.to_string_lossy()),
        Op::Freeze { path } | Op::ReadOnly { path, .. } => {
            format!("make {} read-only", path.to_string_lossy())
        }
        Op::EnterRoot { .. } | Op::LeaveOldRoot | Op::EnterBlank => "change the root".into(),
        Op::Network { .. } | Op::NetworkUp { .. } => "set up its interfaces".into(),
        Op::HostName(_) => "set its host name".into(),
        Op::BoundCapabilities(_) | Op::SetCapabilities(_) => "drop capabilities".into(),
        Op::Filter(_) | Op::NoNewPrivileges => "restrict its system calls".into(),
        Op::Execute(_) => "execute its program".into(),
        Op::ExecuteInit(_) => "execute the first process of its own (init: true)".into(),
        _ => "prepare it".into(),
    }
}
