//! `.env` and `env_file`: lines of `NAME=value`.
//!
//! Blank lines and lines that start with `#` are skipped, `export ` before a name is ignored, and a colon separates as
//! well as the equals sign. A value may be bare (ends before ` #`), in single quotes (taken as it is but for `\'`) or in
//! double quotes (`\n`, `\t`, `\"`, `\\`, `\$`); quoted ones may span lines. Bare and double-quoted values are
//! interpolated, by variables of earlier lines and the environment. `NAME` alone takes its value from the environment.

use crate::interpolate::expand;
use crate::yaml::{Findings, Position};
use std::path::Path;
use std::sync::Arc;

/// How the values of a file are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Dotenv,
    /// `format: raw`: everything after the equals sign, as it is.
    Raw,
}

/// The variables of `text` in order; a name may come several times, the last one counts.
pub fn parse(
    file: &Arc<Path>,
    text: &str,
    format: Format,
    environment: &dyn Fn(&str) -> Option<String>,
    findings: &mut Findings,
) -> Vec<(String, String)> {
    let mut variables: Vec<(String, String)> = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let trimmed = line.trim_start();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        let column = line.chars().count() - trimmed.chars().count() + 1;
        let length = trimmed.trim_end().chars().count();
        let at = Position { file: file.clone(), line: index + 1, column, length };
        let trimmed = trimmed.strip_prefix("export ").unwrap_or(trimmed);
        let separators: &[char] = if format == Format::Raw { &['='] } else { &['=', ':'] };
        let (name, value) = match trimmed.split_once(separators) {
            Some((name, value)) => (name.trim(), Some(value)),
            None => (trimmed.trim(), None),
        };
        if name.is_empty() || name.contains(char::is_whitespace) {
            let hint = "write NAME=value, one to a line";
            findings.error_with_hint(&at, format!("{name:?} is not the name of a variable"), hint);
            continue;
        }
        let lookup = |wanted: &str| {
            let known = || variables.iter().rev().find(|(name, _)| name == wanted).map(|(_, v)| v.clone());
            environment(wanted).or_else(known)
        };
        let value = match value {
            None => lookup(name),
            Some(value) if format == Format::Raw => Some(value.to_owned()),
            Some(value) => read_value(value, &at, &mut lines, &lookup, findings),
        };
        if let Some(value) = value {
            variables.push((name.to_owned(), value));
        }
    }
    variables
}

fn read_value<'a>(
    first: &str,
    at: &Position,
    lines: &mut impl Iterator<Item = (usize, &'a str)>,
    lookup: &dyn Fn(&str) -> Option<String>,
    findings: &mut Findings,
) -> Option<String> {
    let first = first.trim();
    let quote = first.chars().next().filter(|c| matches!(c, '\'' | '"'));
    let Some(quote) = quote else {
        let bare = match first.find(" #") {
            _ if first.starts_with('#') => "",
            Some(comment) => first[..comment].trim_end(),
            None => first,
        };
        return interpolated(bare, at, lookup, findings);
    };
    let mut raw = first[1..].to_owned();
    loop {
        if let Some(end) = closing(&raw, quote) {
            raw.truncate(end);
            break;
        }
        let Some((_, line)) = lines.next() else {
            findings.error_with_hint(
                at,
                "a quoted value that does not end",
                format!("close it with {quote}"),
            );
            return None;
        };
        raw.push('\n');
        raw.push_str(line);
    }
    if quote == '\'' {
        return Some(raw.replace("\\'", "'"));
    }
    interpolated(&unescape(&raw), at, lookup, findings)
}

/// Byte offset of the quote that ends the value, which a backslash protects. In single quotes it protects nothing else.
fn closing(text: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        if escaped {
            escaped = false;
        } else if c == '\\' && (quote == '"' || text[at + 1..].starts_with('\'')) {
            escaped = true;
        } else if c == quote {
            return Some(at);
        }
    }
    None
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            // Stays escaped for the interpolation that follows.
            Some('$') => out.push_str("$$"),
            Some(c @ ('"' | '\\')) => out.push(c),
            Some(c) => out.extend(['\\', c]),
            None => out.push('\\'),
        }
    }
    out
}

fn interpolated(
    text: &str,
    at: &Position,
    lookup: &dyn Fn(&str) -> Option<String>,
    findings: &mut Findings,
) -> Option<String> {
    match expand(text, lookup) {
        Ok(expanded) => Some(expanded.text),
        Err(e) => {
            findings.error_with_hint(
                at,
                e.message,
                e.hint.unwrap_or("use single quotes to take it as it is"),
            );
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, format: Format, expected: &[(&str, &str)], errors: usize) {
        let mut findings = Findings::default();
        let file: Arc<Path> = Path::new(".env").into();
        let environment = |name: &str| (name == "HOME").then(|| "/home/me".to_owned());
        let read = parse(&file, text, format, &environment, &mut findings);
        let read: Vec<(&str, &str)> = read.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(read, expected, "{text}");
        let found = findings.into_vec();
        assert_eq!(found.len(), errors, "{found:?}");
    }

    #[test]
    fn forms_of_values() {
        use Format::{Dotenv, Raw};
        check(
            "# c\n\nA=1\nexport B = two # c\nC=\nHOME\nNONE",
            Dotenv,
            &[("A", "1"), ("B", "two"), ("C", ""), ("HOME", "/home/me")],
            0,
        );
        check(
            "A='$HOME # x'\nB=\"$HOME\\n\\$x # y\" # c\nD=a#b",
            Dotenv,
            &[("A", "$HOME # x"), ("B", "/home/me\n$x # y"), ("D", "a#b")],
            0,
        );
        check("A=1\nB=${A}2\nC=${NO:-d}", Dotenv, &[("A", "1"), ("B", "12"), ("C", "d")], 0);
        check("A=\"one\ntwo\"\nB=3", Dotenv, &[("A", "one\ntwo"), ("B", "3")], 0);
        check(
            "A: 1\nB : 'it\\'s'\nC='a\\n'\nD=x:y",
            Dotenv,
            &[("A", "1"), ("B", "it's"), ("C", "a\\n"), ("D", "x:y")],
            0,
        );
        check("A='$x' # y", Raw, &[("A", "'$x' # y")], 0);
    }

    #[test]
    fn wrong_lines_are_pointed_at() {
        check("=1\na b=2\nC=\"open\nx", Format::Dotenv, &[], 3);
        check("A=$\nB=${", Format::Dotenv, &[], 2);
    }
}
