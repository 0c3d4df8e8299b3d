//! Every way a command can fail, and the exit code of each. The table is printed by `throng help exit-codes`.

use std::io::ErrorKind::{NotFound, StorageFull};
use std::process::ExitCode;
use throng_image::{BuildError, ImageError};
use throng_model::diagnostic::Diagnostic;
use throng_report::ReportError;
use throng_runtime::RuntimeError;
use throng_runtime::cluster::{ClusterError, ClusterErrorKind};
use throng_supervisor::client::ClientError;
use throng_walls::{Evidence, explain};

/// The kinds of failure that scripts can tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It ran, but did not hold: a threshold, a replica that does not come up, a host that is too small.
    NotHeld,
    /// The command line or a file that a person wrote is wrong.
    Input,
    /// No such app, service, image or run.
    NotFound,
    /// The host refuses: permission, a limit, no space, a port taken.
    Host,
    /// An image cannot be built, fetched or used.
    Image,
    /// A person stopped it.
    Interrupted,
}

/// Exit code and meaning of each kind, as `throng help exit-codes` and the manual page print them.
pub const EXIT_CODES: [(u8, &str); 7] = [
    (0, "success"),
    (
        1,
        "it ran but did not hold: a threshold, a replica that does not come up, an update that was paused or rolled \
         back, a host too small for the crowd",
    ),
    (2, "the command line or a file that a person wrote is wrong"),
    (3, "no such app, service, image or run"),
    (4, "the host refuses: permission, a limit, no space, a port taken"),
    (5, "an image cannot be built, fetched or used"),
    (130, "stopped by Ctrl-C or SIGTERM, everything cleaned up"),
];

impl Kind {
    pub fn code(self) -> u8 {
        match self {
            Kind::NotHeld => 1,
            Kind::Input => 2,
            Kind::NotFound => 3,
            Kind::Host => 4,
            Kind::Image => 5,
            Kind::Interrupted => 130,
        }
    }
}

#[derive(Debug)]
pub struct Failure {
    pub kind: Kind,
    /// Lower-case fragment; empty when everything has been said already.
    pub message: String,
    pub hint: Option<String>,
    /// What a replica that failed wrote last, shown between the message and the hint.
    pub log: Vec<String>,
    /// Findings that point at a file, shown instead of the message.
    pub diagnostics: Vec<Diagnostic>,
}

pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    pub fn new(kind: Kind, message: impl Into<String>) -> Failure {
        Failure { kind, message: message.into(), hint: None, log: Vec::new(), diagnostics: Vec::new() }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }

    /// Prints it to standard error, in colour on a terminal.
    pub fn report(&self) -> ExitCode {
        let style = crate::terminal::Style::for_stderr();
        if !self.diagnostics.is_empty() {
            eprint!("{}", throng_compose::render(&self.diagnostics, style.color));
        }
        if !self.message.is_empty() {
            eprintln!("{} {}", style.red("error:"), self.message);
        }
        for line in &self.log {
            eprintln!("  {}", style.dim(line));
        }
        if let Some(hint) = &self.hint {
            eprintln!("{} {hint}", style.cyan("hint:"));
        }
        ExitCode::from(self.kind.code())
    }
}

impl From<Vec<Diagnostic>> for Failure {
    fn from(diagnostics: Vec<Diagnostic>) -> Failure {
        Failure { diagnostics, ..Failure::new(Kind::Input, "") }
    }
}

impl From<ClusterErrorKind> for Kind {
    fn from(kind: ClusterErrorKind) -> Kind {
        match kind {
            ClusterErrorKind::NotFound => Kind::NotFound,
            ClusterErrorKind::Invalid => Kind::Input,
            ClusterErrorKind::App => Kind::NotHeld,
            ClusterErrorKind::Image => Kind::Image,
            ClusterErrorKind::Host => Kind::Host,
        }
    }
}

impl From<ClusterError> for Failure {
    fn from(error: ClusterError) -> Failure {
        Failure { hint: error.hint, log: error.log, ..Failure::new(error.kind.into(), error.message) }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Failure {
        ClusterError::from(error).into()
    }
}

impl From<ImageError> for Failure {
    fn from(error: ImageError) -> Failure {
        let kind = match &error {
            ImageError::NotFound { .. } => Kind::NotFound,
            ImageError::InvalidReference { .. }
            | ImageError::Ambiguous { .. }
            | ImageError::SeveralNames { .. } => Kind::Input,
            error if error.is_of_host() => Kind::Host,
            _ => Kind::Image,
        };
        let message = chain(&error);
        let wall = explain(&Evidence::of_messages([message.as_str()])).map(|wall| wall.told());
        let hint = match (error.hint(), wall) {
            (Some(own), Some(wall)) => Some(format!("{own} ({wall})")),
            (own, wall) => own.or(wall),
        };
        Failure { hint, ..Failure::new(kind, message) }
    }
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Failure {
        let kind = match error {
            // The Dockerfile or the context that was named is not there.
            BuildError::Image(ImageError::Io { ref source, .. }) if source.kind() == NotFound => Kind::Input,
            BuildError::Image(error) => return error.into(),
            BuildError::Dockerfile(_) => Kind::Input,
            BuildError::Step { source: Some(ref source), .. } if source.kind() == StorageFull => Kind::Host,
            BuildError::Step { .. } => Kind::Image,
        };
        let diagnostics = error.diagnostics().to_vec();
        let message = if diagnostics.is_empty() { chain(&error) } else { String::new() };
        // A finding shows its hint itself.
        let hint = error.hint().filter(|_| diagnostics.is_empty());
        Failure { diagnostics, hint, ..Failure::new(kind, message) }
    }
}

impl From<ReportError> for Failure {
    fn from(error: ReportError) -> Failure {
        Failure::new(Kind::Host, chain(&error)).hint(error.hint())
    }
}

/// An error and its causes on one line.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

impl From<RuntimeError> for Failure {
    fn from(error: RuntimeError) -> Failure {
        Failure { hint: error.hint, ..Failure::new(Kind::Host, error.message) }
    }
}

/// An I/O error with what was being done.
pub fn io(what: impl std::fmt::Display, error: &std::io::Error) -> Failure {
    Failure::new(Kind::Host, format!("cannot {what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_documented_code() {
        for kind in [Kind::NotHeld, Kind::Input, Kind::NotFound, Kind::Host, Kind::Image, Kind::Interrupted] {
            assert!(EXIT_CODES.iter().any(|(code, _)| *code == kind.code()), "{kind:?}");
        }
    }
}
