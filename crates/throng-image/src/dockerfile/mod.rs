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
mod run;

pub(crate) use expand::{Expander, split_words};
pub use parse::parse;
pub(crate) use parse::parse_trigger;
pub use run::{MountKind, Run, RunMount, Sharing};

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
    /// As written; it must come to this machine's.
    pub platform: Option<String>,
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
    /// An instruction for builds that begin with this image.
    OnBuild(String),
    Run(Run),
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
    /// Patterns of what is left out, relative to each source.
    pub exclude: Vec<String>,
    /// Sources keep the folders that they are in.
    pub parents: bool,
    /// Files whose texts are in the Dockerfile itself.
    pub files: Vec<HereDocument>,
    /// False in the JSON form, where words are literal but for variables.
    pub quoted: bool,
}

/// A text that follows its instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HereDocument {
    /// The word that ends it, which is also the file's name.
    pub name: String,
    /// The word was in quotes: variables in the text are not replaced.
    pub literal: bool,
    /// `<<-`: tabs at the beginning of lines do not count.
    pub strip_tabs: bool,
    /// As written.
    pub text: String,
}

impl HereDocument {
    /// The text without the tabs that do not count.
    pub fn content(&self) -> String {
        if !self.strip_tabs {
            return self.text.clone();
        }
        self.text.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// The JSON form: run as it is.
    Exec(Vec<String>),
    /// The plain form: one text for the image's shell.
    Shell(String),
    /// A text that names its interpreter after `#!`, to be run as a file of this name. RUN alone has it.
    Script { name: String, text: String },
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

/// Instructions that Docker knows.
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
