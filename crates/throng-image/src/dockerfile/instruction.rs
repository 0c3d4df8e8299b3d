//! The arguments of each instruction.

use super::expand::split_words;
use super::lines::{LogicalLine, here_document};
use super::{ArgDeclaration, Command, Healthcheck, Kind, Place, Transfer, run};
use throng_model::diagnostic::Diagnostic;
use throng_model::units::parse_duration;

pub(super) type Parsed<T> = Result<T, Diagnostic>;

/// Flags of an instruction and what follows them.
pub(super) struct Flags<'t> {
    /// (name, value); a flag without `=` has none.
    pub given: Vec<(String, Option<String>)>,
    pub rest: &'t str,
}

/// Reads one instruction other than FROM.
pub(super) fn read(line: &LogicalLine, place: &Place, escape: char) -> Parsed<Kind> {
    let rest = line.rest.as_str();
    if rest.is_empty() {
        return Err(place.error("it needs at least one argument"));
    }
    let words = || split_words(rest, escape);
    Ok(match line.keyword.as_str() {
        "ADD" => Kind::Add(transfer(line, place, escape)?),
        "COPY" => Kind::Copy(transfer(line, place, escape)?),
        "ARG" => Kind::Arg(words().iter().map(|word| arg(word, place)).collect::<Parsed<_>>()?),
        "CMD" => Kind::Cmd(command(rest, place)?),
        "ENTRYPOINT" => Kind::Entrypoint(command(rest, place)?),
        "RUN" => Kind::Run(run::read(line, place)?),
        "ENV" => Kind::Env(pairs(rest, place, escape)?),
        "LABEL" => Kind::Label(pairs(rest, place, escape)?),
        "EXPOSE" => Kind::Expose(words()),
        "HEALTHCHECK" => Kind::Healthcheck(healthcheck(rest, place)?),
        "MAINTAINER" => Kind::Maintainer(rest.into()),
        "SHELL" => match json_list(rest) {
            Some(words) if !words.is_empty() => Kind::Shell(words),
            _ => return Err(place.error("it takes a JSON list").hint(r#"write SHELL ["/bin/bash", "-c"]"#)),
        },
        "STOPSIGNAL" => Kind::StopSignal(single(rest, place, escape)?),
        "USER" => Kind::User(single(rest, place, escape)?),
        "WORKDIR" => Kind::Workdir(rest.into()),
        "VOLUME" => Kind::Volume(json_list(rest).unwrap_or_else(words)),
        "ONBUILD" => Kind::OnBuild(trigger(rest, place)?),
        other => return Err(unknown(other, place)),
    })
}

/// An instruction that does not exist, with the one that was probably meant.
pub(super) fn unknown(keyword: &str, place: &Place) -> Diagnostic {
    let finding = Diagnostic::error(format!("unknown instruction {keyword:?}")).at(place.location.clone());
    let near = super::KEYWORDS
        .iter()
        .map(|known| (distance(keyword, known), known))
        .min()
        .filter(|(distance, known)| *distance <= 1 + known.len() / 4);
    match near {
        Some((_, known)) => finding.hint(format!("did you mean {known}?")),
        None => finding.hint(format!("instructions are {}", super::KEYWORDS.join(", "))),
    }
}

/// Edits between two words (Levenshtein), where swapping two neighbours counts as one edit.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(32).collect(), b.chars().collect());
    let mut table = vec![vec![0usize; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            table[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replace = table[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let mut best = replace.min(table[i - 1][j] + 1).min(table[i][j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best = best.min(table[i - 2][j - 2] + 1);
                }
                best
            };
        }
    }
    table[a.len()][b.len()]
}

pub(super) fn flags(rest: &str) -> Flags<'_> {
    let mut flags = Flags { given: Vec::new(), rest };
    while let Some(flag) = flags.rest.strip_prefix("--") {
        let end = flag.find(char::is_whitespace).unwrap_or(flag.len());
        let (name, value) = match flag[..end].split_once('=') {
            Some((name, value)) => (name, Some(value.trim_matches('"').to_string())),
            None => (&flag[..end], None),
        };
        flags.given.push((name.to_string(), value));
        flags.rest = flag[end..].trim_start();
    }
    flags
}

pub(super) fn unsupported_flag(place: &Place, name: &str) -> Diagnostic {
    place.error(format!("the flag --{name} is not supported"))
}

pub(super) fn value_of(place: &Place, name: &str, value: Option<String>) -> Parsed<String> {
    value
        .filter(|value| !value.is_empty())
        .ok_or_else(|| place.error(format!("the flag --{name} needs a value: --{name}=…")))
}

/// A flag that is on if it is there, unless it says otherwise.
fn switch(place: &Place, name: &str, value: Option<String>) -> Parsed<bool> {
    match value.as_deref() {
        None | Some("true") => Ok(true),
        Some("false") => Ok(false),
        Some(other) => Err(place.error(format!("--{name}: {other:?} is neither true nor false"))),
    }
}

fn transfer(line: &LogicalLine, place: &Place, escape: char) -> Parsed<Transfer> {
    let flags = flags(&line.rest);
    let mut transfer = Transfer { quoted: true, ..Default::default() };
    for (name, value) in flags.given {
        match name.as_str() {
            "from" if place.keyword == "COPY" => transfer.from = Some(value_of(place, &name, value)?),
            "chown" => transfer.owner = Some(value_of(place, &name, value)?),
            "chmod" => transfer.mode = Some(value_of(place, &name, value)?),
            "exclude" => transfer.exclude.push(value_of(place, &name, value)?),
            "parents" if place.keyword == "COPY" => transfer.parents = switch(place, &name, value)?,
            "checksum" if place.keyword == "ADD" => {
                let hint = "ADD fetches nothing from the network: fetch the file before the build";
                return Err(unsupported_flag(place, &name).hint(hint));
            }
            // Layers here never depend on the ones below more than --link asks for.
            "link" => drop(switch(place, &name, value)?),
            _ => return Err(unsupported_flag(place, &name)),
        }
    }
    let mut words = match json_list(flags.rest) {
        Some(words) => {
            transfer.quoted = false;
            words
        }
        None => split_words(flags.rest, escape),
    };
    transfer.files = line.here_documents.clone();
    if transfer.quoted {
        words.retain(|word| here_document(word).is_none());
    }
    let (Some(destination), false) = (words.pop(), words.is_empty() && transfer.files.is_empty()) else {
        return Err(place.error("it needs at least one source and a destination"));
    };
    transfer.sources = words;
    transfer.destination = destination;
    Ok(transfer)
}

/// The instruction after ONBUILD, which must be one that can be carried out later.
fn trigger(rest: &str, place: &Place) -> Parsed<String> {
    let keyword = rest.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
    match keyword.as_str() {
        "ONBUILD" | "FROM" | "MAINTAINER" => Err(place.error(format!("{keyword} cannot be a trigger"))),
        _ => super::parse_trigger(rest, place).map(|_| rest.to_owned()),
    }
}

pub(super) fn command(rest: &str, place: &Place) -> Parsed<Command> {
    match json_list(rest) {
        Some(words) if words.is_empty() && place.keyword == "RUN" => Err(place.error("the list is empty")),
        Some(words) => Ok(Command::Exec(words)),
        None => Ok(Command::Shell(rest.into())),
    }
}

/// A JSON list of strings; anything else is the plain form.
fn json_list(text: &str) -> Option<Vec<String>> {
    if text.starts_with('[') { serde_json::from_str(text).ok() } else { None }
}

fn single(rest: &str, place: &Place, escape: char) -> Parsed<String> {
    let mut words = split_words(rest, escape);
    match (words.pop(), words.is_empty()) {
        (Some(word), true) => Ok(word),
        _ => Err(place.error("it takes exactly one argument")),
    }
}

pub(super) fn arg(word: &str, place: &Place) -> Parsed<ArgDeclaration> {
    let (name, default) = match word.split_once('=') {
        Some((name, default)) => (name, Some(default.to_string())),
        None => (word, None),
    };
    let valid =
        |(at, c): (usize, char)| c.is_ascii_alphabetic() || c == '_' || (at > 0 && c.is_ascii_digit());
    if name.is_empty() || !name.chars().enumerate().all(valid) {
        return Err(place.error(format!("{name:?} is not the name of a variable")));
    }
    Ok(ArgDeclaration { name: name.into(), default })
}

/// `key=value …`, or the old form `key value with spaces`.
fn pairs(rest: &str, place: &Place, escape: char) -> Parsed<Vec<(String, String)>> {
    let words = split_words(rest, escape);
    let first = words.first().map(String::as_str).unwrap_or_default();
    if !first.contains('=') {
        let value = rest[first.len().min(rest.len())..].trim_start();
        if value.is_empty() {
            return Err(place.error(format!("{first} has no value")).hint(format!("write {first}=value")));
        }
        return Ok(vec![(first.into(), value.into())]);
    }
    words
        .iter()
        .map(|word| match word.split_once('=') {
            Some(("", _)) => Err(place.error(format!("{word:?} has no name before the ="))),
            Some((key, value)) => Ok((key.into(), value.into())),
            None => Err(place
                .error(format!("{word:?} is not of the form key=value"))
                .hint("put quotes around a value that contains spaces")),
        })
        .collect()
}

fn healthcheck(rest: &str, place: &Place) -> Parsed<Healthcheck> {
    let flags = flags(rest);
    let mut check =
        Healthcheck { test: None, interval: 0, timeout: 0, start_period: 0, start_interval: 0, retries: 0 };
    let any = !flags.given.is_empty();
    for (name, value) in flags.given {
        let value = value_of(place, &name, value)?;
        let nanos = || -> Parsed<u64> {
            let duration =
                parse_duration(&value).map_err(|error| place.error(format!("--{name}: {error}")))?;
            u64::try_from(duration.as_nanos())
                .map_err(|_| place.error(format!("--{name}: {value} is too long")))
        };
        match name.as_str() {
            "interval" => check.interval = nanos()?,
            "timeout" => check.timeout = nanos()?,
            "start-period" => check.start_period = nanos()?,
            "start-interval" => check.start_interval = nanos()?,
            "retries" => {
                check.retries = value
                    .parse()
                    .map_err(|_| place.error(format!("--retries: {value:?} is not a whole number")))?;
            }
            _ => return Err(unsupported_flag(place, &name)),
        }
    }
    let (kind, test) = flags.rest.split_once(char::is_whitespace).unwrap_or((flags.rest, ""));
    match kind.to_ascii_uppercase().as_str() {
        "NONE" if test.trim().is_empty() && !any => Ok(check),
        "CMD" if !test.trim().is_empty() => {
            check.test = Some(command(test.trim(), place)?);
            Ok(check)
        }
        "NONE" => Err(place.error("NONE takes neither flags nor arguments")),
        "CMD" => Err(place.error("CMD needs a command")),
        _ => Err(place.error("it takes NONE, or flags and CMD with a command")),
    }
}
