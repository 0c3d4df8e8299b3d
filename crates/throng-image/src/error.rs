//! What can go wrong with images, each with what a person can do about it.

use std::io;
use std::path::{Path, PathBuf};
use throng_model::diagnostic::Diagnostic;

/// Why an order about images could not be carried out. Nothing half made is left in the store.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    #[error("{reference:?} is not an image reference: {reason}")]
    InvalidReference { reference: String, reason: String },
    #[error("no image {reference:?} in the local store")]
    NotFound { reference: String },
    #[error("image id {prefix:?} is not unique: {}", candidates.join(", "))]
    Ambiguous { prefix: String, candidates: Vec<String> },
    #[error("image {id} has several names: {}", names.join(", "))]
    SeveralNames { id: String, names: Vec<String> },
    #[error("cannot {action} {}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("no space left on the file system of {} (tried to {action})", path.display())]
    NoSpace { action: &'static str, path: PathBuf },
    #[error("another process has held {} for {seconds} seconds", path.display())]
    Locked { path: PathBuf, seconds: u64 },
    #[error("{what} has digest {actual}, but {expected} was asked for")]
    DigestMismatch { what: String, expected: String, actual: String },
    #[error("{what} is damaged: {reason}")]
    Corrupt { what: String, reason: String },
    #[error("{what} holds the entry {entry:?}, which {reason}")]
    UnsafeEntry { what: String, entry: String, reason: String },
    #[error("{what}: {actual} is over the limit of {limit}")]
    TooLarge { what: String, actual: String, limit: String, raise: String },
    #[error("{what} is not supported: {reason}")]
    Unsupported { what: String, reason: String },
    #[error("{image} is built for {built_for}; this machine is {machine}")]
    WrongArchitecture { image: String, built_for: String, machine: String },
    #[error("registry {registry} refuses access to {reference}")]
    Unauthorized { registry: String, reference: String },
    #[error("registry {registry} has no {what}")]
    NotInRegistry { registry: String, what: String },
    #[error("registry {registry}: {reason}")]
    Registry { registry: String, reason: String },
    #[error("credentials for {registry}: {reason}")]
    Credentials { registry: String, reason: String },
}

pub type Result<T> = std::result::Result<T, ImageError>;

impl ImageError {
    /// What to do about it: one sentence without a full stop.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            ImageError::InvalidReference { .. } => {
                "write [registry[:port]/]name[:tag][@sha256:…], name and registry in lower case".into()
            }
            ImageError::NotFound { reference } => {
                format!(
                    "fetch it with `throng pull {reference}`, build it with `throng build`, or list what is there with `throng images`"
                )
            }
            ImageError::Ambiguous { .. } => "give more digits of the id".into(),
            ImageError::SeveralNames { .. } => "remove each of its names, one by one".into(),
            ImageError::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "check who owns that path, or name another store".into()
            }
            ImageError::NoSpace { .. } => {
                "free some space, remove images with `throng rmi`, or put the store on another file system"
                    .into()
            }
            ImageError::Locked { path, .. } => {
                format!("find it with `fuser {}`; continue or end it", path.display())
            }
            ImageError::DigestMismatch { .. } | ImageError::Corrupt { .. } => {
                "fetch or make it anew; what was read is not what its author published".into()
            }
            ImageError::UnsafeEntry { .. } => "do not use this image; ask its author about it".into(),
            ImageError::TooLarge { raise, .. } => raise.clone(),
            ImageError::WrongArchitecture { machine, .. } => {
                format!("pull or build the image for {machine}")
            }
            ImageError::Unauthorized { registry, .. } => {
                format!(
                    "check the name, or log in with `docker login {registry}`; credentials are read from $DOCKER_CONFIG/config.json or ~/.docker/config.json"
                )
            }
            ImageError::NotInRegistry { .. } => "check the name and the tag".into(),
            ImageError::Registry { .. } => {
                "check that the registry runs and can be reached, then try again; what was fetched is kept"
                    .into()
            }
            ImageError::Credentials { .. } => "log in again with `docker login`".into(),
            ImageError::Io { .. } | ImageError::Unsupported { .. } => return None,
        })
    }

    /// Whether the host is in the way rather than the image.
    pub fn is_of_host(&self) -> bool {
        matches!(self, ImageError::Io { .. } | ImageError::NoSpace { .. } | ImageError::Locked { .. })
    }

    /// An I/O failure on `path`; a full file system gets an error of its own.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ImageError {
        let path = path.to_path_buf();
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ImageError::NoSpace { action, path },
            _ => ImageError::Io { action, path, source },
        }
    }

    pub(crate) fn corrupt(what: impl Into<String>, reason: impl ToString) -> ImageError {
        ImageError::Corrupt { what: what.into(), reason: reason.to_string() }
    }

    pub(crate) fn unsupported(what: impl Into<String>, reason: impl Into<String>) -> ImageError {
        ImageError::Unsupported { what: what.into(), reason: reason.into() }
    }
}

/// Why a build stopped. A finding about the Dockerfile points at its line.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// All findings about the text, in the order of their lines; at least one of them is an error.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Dockerfile(Vec<Diagnostic>),
    /// A step that is well written but could not be carried out.
    #[error("{diagnostic}")]
    Step {
        diagnostic: Box<Diagnostic>,
        #[source]
        source: Option<io::Error>,
    },
    #[error(transparent)]
    Image(#[from] ImageError),
}

impl BuildError {
    pub fn hint(&self) -> Option<String> {
        match self {
            BuildError::Dockerfile(findings) => findings.iter().find_map(|finding| finding.hint.clone()),
            BuildError::Step { diagnostic, .. } => diagnostic.hint.clone(),
            BuildError::Image(error) => error.hint(),
        }
    }

    /// The findings that point into the Dockerfile, for a display with the source line.
    pub fn diagnostics(&self) -> &[Diagnostic] {
        match self {
            BuildError::Dockerfile(findings) => findings,
            BuildError::Step { diagnostic, .. } => std::slice::from_ref(diagnostic),
            BuildError::Image(_) => &[],
        }
    }
}
