//! Dockerfiles: text to stages and instructions, each with its place in the file.
//!
//! The parser is our own because errors must point at line and column, unknown instructions want a suggestion, and
//! what the builder cannot do must be named before anything is built. It follows Docker's reference
//! (<https://docs.docker.com/reference/dockerfile/>). `lines` joins continued lines, `parse` reads instructions,
//! `expand` replaces variables when an instruction is carried out.

mod expand;
mod instruction;
mod lines;
mod parse;

pub(crate) use expand::{Expander, split_words};
pub use parse::parse;

use std::path::PathBuf;
use throng_model::diagnostic::{Diagnostic, Location};

/// A whole Dockerfile.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Dockerfile {
    /// ARG before the first FROM; only FROM lines see them.
    pub global_args: Vec<ArgDeclaration>,
    pub stages: Vec<Stage>,
    /// The escape character: a backslash unless a directive says a backtick.
    pub escape: char,
    /// Findings that do not stop a build.
    pub warnings: Vec<Diagnostic>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Stage {
    /// As written, variables not replaced.
    pub base: String,
    pub name: Option<String>,
    pub place: Place,
    pub instructions: Vec<Instruction>,
}

/// Where an instruction stands in its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub location: Location,
    /// The instruction's keyword in upper case.
    pub keyword: String,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Instruction {
    pub place: Place,
    /// The instruction on one line, as the image's history shows it.
    pub text: String,
    pub kind: Kind,
}

/// Texts are as written: quotes, escapes and variables are dealt with when the instruction is carried out.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    Add(Transfer),
    Arg(Vec<ArgDeclaration>),
    Cmd(Command),
    Copy(Transfer),
    Entrypoint(Command),
    Env(Vec<(String, String)>),
    Expose(Vec<String>),
    Healthcheck(Healthcheck),
    Label(Vec<(String, String)>),
    Maintainer(String),
    Run(Command),
    Shell(Vec<String>),
    StopSignal(String),
    User(String),
    Volume(Vec<String>),
    Workdir(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArgDeclaration {
    pub name: String,
    pub default: Option<String>,
}

/// COPY or ADD.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transfer {
    /// At least one.
    pub sources: Vec<String>,
    pub destination: String,
    /// A stage's name or number, or an image.
    pub from: Option<String>,
    pub owner: Option<String>,
    pub mode: Option<String>,
    /// False in the JSON form, where words are literal but for variables.
    pub quoted: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// The JSON form: run as it is.
    Exec(Vec<String>),
    /// The plain form: one text for the image's shell.
    Shell(String),
}

/// Durations in nanoseconds; 0 means Docker's default.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Healthcheck {
    pub test: Option<Command>,
    pub interval: u64,
    pub timeout: u64,
    pub start_period: u64,
    pub start_interval: u64,
    pub retries: u64,
}

/// Instructions that Docker knows, and so does the parser, though the builder names ONBUILD as unsupported.
pub(crate) const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

impl Place {
    /// An error about this instruction.
    pub(crate) fn error(&self, message: impl AsRef<str>) -> Diagnostic {
        Diagnostic::error(format!("{}: {}", self.keyword, message.as_ref())).at(self.location.clone())
    }

    pub(crate) fn warning(&self, message: impl AsRef<str>) -> Diagnostic {
        Diagnostic::warning(format!("{}: {}", self.keyword, message.as_ref())).at(self.location.clone())
    }

    pub fn file(&self) -> &PathBuf {
        &self.location.file
    }
}
