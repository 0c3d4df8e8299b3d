//! The daemon's refusals as errors of a runtime, with what a person can do about them.

use bollard::errors::Error;
use std::fmt::Display;
use throng_runtime::{ErrorKind, RuntimeError};

/// Parts of the daemon's messages that say that a replica cannot be started as it is described, and what to do.
const INVALID: [(&str, &str); 11] = [
    ("executable file not found", "name a program that the image has, by its path or on its PATH"),
    ("error gathering device information", "name a device of this host under devices"),
    ("no such file or directory", "name a program and files that are there"),
    ("permission denied", "make the program executable in the image"),
    (
        "exec format error",
        "use a program for this machine's architecture, with a first line if it is a script",
    ),
    ("unable to find user", "name a user of the image's /etc/passwd, or a number"),
    ("unable to find group", "name a group of the image's /etc/group, or a number"),
    ("bind source path does not exist", "make the folder, or mount another one"),
    ("is not a directory", "see what the image has at that path"),
    ("requested cpus are not available", "name cores of this host under cpuset"),
    ("pool overlaps", "choose another subnet, or leave it out to get a free one"),
];
/// Parts of messages that name a limit of the host.
const HOST: [(&str, &str); 7] = [
    // dockerd 20.10 miscounts when many come and go at once, and corrects itself when it starts.
    ("has active endpoints", "restart dockerd, then remove the network: `docker network rm NAME`"),
    (
        "pquota",
        "Docker limits writable layers only on xfs mounted with pquota: use --on local, or no storage_opt",
    ),
    ("exchange full", "a bridge has 1,023 ports: use --on local, or several networks"),
    ("no space left", "make room in Docker's data folder: `docker system df` says what takes it"),
    ("too many open files", "raise the limit of open files of dockerd and containerd"),
    ("resource temporarily unavailable", "raise the limit of tasks of dockerd and containerd"),
    ("cannot allocate memory", "scale down, or give the host more memory"),
];

/// An error of the daemon about something: `what` is a fragment such as "cannot start shop-web-1".
pub fn daemon(what: impl Display, error: Error) -> RuntimeError {
    if matches!(error, Error::RequestTimeoutError) {
        let message = format!("{what}: dockerd is there and does not answer");
        return RuntimeError::new(ErrorKind::Host, message)
            .hint("restart dockerd, which may wait for itself; what runs in it ends then");
    }
    let Error::DockerResponseServerError { status_code, message } = error else {
        let message = format!("{what}: {}", chain(&error));
        return RuntimeError::new(ErrorKind::Host, message)
            .hint("see that dockerd runs and that DOCKER_HOST, if set, names its socket: `docker info`");
    };
    let message = message.trim();
    let said = message.to_ascii_lowercase();
    let known = |list: &[(&str, &'static str)]| {
        list.iter().find(|(part, _)| said.contains(part)).map(|(_, hint)| *hint)
    };
    let text = format!("{what}: {message}");
    if let Some(hint) = known(&HOST) {
        return RuntimeError::new(ErrorKind::Host, text).hint(hint);
    }
    match (status_code, known(&INVALID)) {
        (400 | 403 | 500, Some(hint)) => RuntimeError::new(ErrorKind::Invalid, text).hint(hint),
        (400, None) => RuntimeError::new(ErrorKind::Invalid, text).hint("Docker takes no such description"),
        (404, _) => RuntimeError::new(ErrorKind::NotFound, text),
        _ => RuntimeError::new(ErrorKind::Host, text).hint("see dockerd's own log"),
    }
}

/// Whether the daemon has answered with this status.
pub fn is(error: &Error, status: u16) -> bool {
    matches!(error, Error::DockerResponseServerError { status_code, .. } if *status_code == status)
}

/// An error of this host about something.
pub fn host(what: impl Display, error: impl Display) -> RuntimeError {
    RuntimeError::new(ErrorKind::Host, format!("{what}: {error}"))
}

/// An error and its causes on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.ends_with(&said) {
            text += &format!(": {said}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_told_apart() {
        for (status_code, message, kind) in [
            (404, "No such container: x", ErrorKind::NotFound),
            (400, "invalid mount config: bind source path does not exist: /x", ErrorKind::Invalid),
            (400, "unable to find user nobody-here: no matching entries in passwd file", ErrorKind::Invalid),
            (500, "exec: \"/x\": stat /x: no such file or directory: unknown", ErrorKind::Invalid),
            (403, "Pool overlaps with other one on this address space", ErrorKind::Invalid),
            (400, "Requested CPUs are not available - requested 9, available: 0-1", ErrorKind::Invalid),
            (500, "adding interface veth1 to bridge br-1 failed: exchange full", ErrorKind::Host),
            (500, "mkdir /var/lib/docker/x: no space left on device", ErrorKind::Host),
            (500, "--storage-opt is supported only for overlay over xfs with 'pquota'", ErrorKind::Host),
            (500, "something else", ErrorKind::Host),
            (409, "the name is in use", ErrorKind::Host),
        ] {
            let error = Error::DockerResponseServerError { status_code, message: message.into() };
            let found = daemon("cannot start a", error);
            assert_eq!(found.kind, kind, "{message}");
            assert!(found.message.contains(message), "{found}");
            assert!(kind == ErrorKind::NotFound || found.hint.is_some(), "{message}");
        }
    }
}
