//! RUN: its command, what is mounted for it, and whether it has a network.

use super::instruction::{Parsed, command, flags, unsupported_flag, value_of};
use super::lines::{LogicalLine, here_document};
use super::{Command, Place};

/// A RUN instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    pub command: Command,
    pub mounts: Vec<RunMount>,
    /// `--network=none`.
    pub offline: bool,
}

/// `--mount`. Texts are as written, variables not replaced.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunMount {
    pub kind: MountKind,
    pub target: Option<String>,
    /// A stage, an image or a named context; the build context if it is missing.
    pub from: Option<String>,
    pub source: Option<String>,
    /// Of a cache or a secret.
    pub id: Option<String>,
    /// For a bind the default is yes, for a cache no.
    pub read_only: Option<bool>,
    /// Of a cache: one user at a time, who waits (`locked`) or gets another one (`private`).
    pub sharing: Sharing,
    /// Of a secret: it is an error if it is not given.
    pub required: bool,
    /// Of a secret: the variable that holds it.
    pub variable: Option<String>,
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    /// Bytes of a tmpfs.
    pub size: Option<u64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MountKind {
    #[default]
    Bind,
    Cache,
    Secret,
    Tmpfs,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sharing {
    #[default]
    Shared,
    Private,
    Locked,
}

pub(super) fn read(line: &LogicalLine, place: &Place) -> Parsed<Run> {
    let flags = flags(&line.rest);
    let (mut mounts, mut offline) = (Vec::new(), false);
    for (name, value) in flags.given {
        let value = value_of(place, &name, value)?;
        match (name.as_str(), value.as_str()) {
            ("mount", _) => mounts.push(mount(&value, place)?),
            ("network", "none") => offline = true,
            ("network", "default" | "host") | ("security", "sandbox") => {}
            ("network", other) => {
                return Err(place
                    .error(format!("--network: {other:?} is no network"))
                    .hint("write default, host or none"));
            }
            ("security", other) => {
                return Err(place
                    .error(format!("--security={other} is not supported"))
                    .hint("a build step has the privileges of a replica"));
            }
            _ => return Err(unsupported_flag(place, &name)),
        }
    }
    if flags.rest.is_empty() {
        return Err(place.error("it needs a command"));
    }
    let command = match line.here_documents.as_slice() {
        [] => command(flags.rest, place)?,
        // The text itself is the command.
        [only] if here_document(flags.rest).is_some() => match only.text.starts_with("#!") {
            true => Command::Script { name: only.name.clone(), text: only.content() },
            false => Command::Shell(only.content()),
        },
        // The shell reads them, so it gets them as they are.
        documents => {
            let mut text = flags.rest.to_owned();
            for document in documents {
                text += &format!("\n{}{}", document.text, document.name);
            }
            Command::Shell(text)
        }
    };
    Ok(Run { command, mounts, offline })
}

/// `type=cache,target=/x,ro`.
fn mount(text: &str, place: &Place) -> Parsed<RunMount> {
    let mut mount = RunMount::default();
    let wrong = |message: String| place.error(format!("--mount: {message}"));
    for part in text.split(',') {
        let (key, value) = part.split_once('=').map_or((part, None), |(key, value)| (key, Some(value)));
        let key = key.trim().to_ascii_lowercase();
        if matches!(key.as_str(), "ro" | "readonly" | "rw" | "readwrite" | "required") {
            let on = match value {
                None | Some("true") => true,
                Some("false") => false,
                Some(other) => return Err(wrong(format!("{key}: {other:?} is neither true nor false"))),
            };
            match key.as_str() {
                "required" => mount.required = on,
                "ro" | "readonly" => mount.read_only = Some(on),
                _ => mount.read_only = Some(!on),
            }
            continue;
        }
        let Some(value) = value.filter(|value| !value.is_empty()) else {
            return Err(wrong(format!("{key} needs a value: {key}=…")));
        };
        let number = || value.parse::<u32>().map_err(|_| wrong(format!("{key}: {value:?} is not a number")));
        let own = Some(value.to_owned());
        match key.as_str() {
            "type" => mount.kind = kind(value, place)?,
            "target" | "dst" | "destination" => mount.target = own,
            "source" | "src" => mount.source = own,
            "from" => mount.from = own,
            "id" => mount.id = own,
            "env" => mount.variable = own,
            "uid" => mount.uid = Some(number()?),
            "gid" => mount.gid = Some(number()?),
            "mode" => {
                let bits = u32::from_str_radix(value, 8).ok().filter(|bits| *bits <= 0o7777);
                mount.mode =
                    Some(bits.ok_or_else(|| {
                        wrong(format!("mode: {value:?} is not an octal mode such as 0755"))
                    })?);
            }
            "size" => {
                let bytes = throng_model::units::parse_bytes(value);
                mount.size = Some(bytes.map_err(|error| wrong(format!("size: {error}")))?);
            }
            "sharing" => {
                mount.sharing = match value {
                    "shared" => Sharing::Shared,
                    "private" => Sharing::Private,
                    "locked" => Sharing::Locked,
                    _ => return Err(wrong(format!("sharing: {value:?} is not shared, private or locked"))),
                };
            }
            _ => return Err(wrong(format!("the key {key:?} is not known"))),
        }
    }
    if mount.target.is_none() && mount.kind != MountKind::Secret {
        return Err(wrong("it needs a target: target=…".into()));
    }
    Ok(mount)
}

fn kind(text: &str, place: &Place) -> Parsed<MountKind> {
    Ok(match text {
        "bind" => MountKind::Bind,
        "cache" => MountKind::Cache,
        "secret" => MountKind::Secret,
        "tmpfs" => MountKind::Tmpfs,
        "ssh" => {
            return Err(place
                .error("--mount=type=ssh is not supported: a build step is given no keys")
                .hint("fetch what needs the key before the build, or pass a token with type=secret"));
        }
        other => {
            return Err(place
                .error(format!("--mount: there is no type {other:?}"))
                .hint("types are bind, cache, secret and tmpfs"));
        }
    })
}
