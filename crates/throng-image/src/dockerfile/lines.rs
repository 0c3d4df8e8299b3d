//! Physical lines to logical ones: directives, comments, continuations, here-documents.

use std::path::Path;
use throng_model::diagnostic::{Diagnostic, Location};

/// One instruction with its continuation lines joined.
#[derive(Debug, Clone)]
pub(super) struct LogicalLine {
    pub keyword: String,
    /// Everything after the keyword, without white space around it.
    pub rest: String,
    /// Of the keyword.
    pub location: Location,
    /// A text that follows the instruction: `<<EOF`.
    pub here_document: bool,
}

pub(super) struct Lines {
    pub escape: char,
    pub lines: Vec<LogicalLine>,
    pub findings: Vec<Diagnostic>,
}

pub(super) fn split(text: &str, file: &Path) -> Lines {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let physical: Vec<&str> = text.lines().collect();
    let mut findings = Vec::new();
    let (escape, mut at) = directives(&physical, file, &mut findings);
    let mut lines = Vec::new();
    while at < physical.len() {
        let first = physical[at];
        if is_blank_or_comment(first) {
            at += 1;
            continue;
        }
        let start = at;
        let (joined, next) = join(&physical, at, escape);
        at = next;
        let mut line = logical(&joined, first, start, file);
        if matches!(line.keyword.as_str(), "RUN" | "COPY" | "ADD") {
            for (word, strip_tabs) in here_words(&line.rest) {
                line.here_document = true;
                at = skip_here_document(&physical, at, &word, strip_tabs);
            }
        }
        lines.push(line);
    }
    Lines { escape, lines, findings }
}

fn is_blank_or_comment(line: &str) -> bool {
    let trimmed = line.trim_start();
    trimmed.is_empty() || trimmed.starts_with('#')
}

/// Parser directives: `# key=value` lines before anything else. Returns the escape character and the first line
/// that is none.
fn directives(physical: &[&str], file: &Path, findings: &mut Vec<Diagnostic>) -> (char, usize) {
    let mut escape = '\\';
    for (number, line) in physical.iter().enumerate() {
        let directive = line.trim().strip_prefix('#').and_then(|rest| rest.split_once('='));
        let Some((key, value)) = directive else { return (escape, number) };
        let (key, value) = (key.trim().to_ascii_lowercase(), value.trim());
        match (key.as_str(), value) {
            ("escape", "`") => escape = '`',
            ("escape", "\\") => escape = '\\',
            ("escape", _) => findings.push(
                Diagnostic::error(format!("the escape character {value:?} is neither \\ nor `")).at(
                    Location {
                        file: file.into(),
                        line: number + 1,
                        column: 1,
                        length: line.chars().count().max(1),
                    },
                ),
            ),
            ("syntax" | "check", _) => {}
            _ => return (escape, number),
        }
    }
    (escape, physical.len())
}

/// Joins a line with those that continue it. Comment lines in between are dropped, empty ones too, as Docker does.
fn join(physical: &[&str], start: usize, escape: char) -> (String, usize) {
    let mut joined = String::new();
    let mut at = start;
    while at < physical.len() {
        let line = physical[at];
        at += 1;
        if at > start + 1 && is_blank_or_comment(line) {
            continue;
        }
        match line.trim_end().strip_suffix(escape) {
            Some(head) => joined.push_str(head),
            None => {
                joined.push_str(line);
                break;
            }
        }
    }
    (joined, at)
}

fn logical(joined: &str, first: &str, start: usize, file: &Path) -> LogicalLine {
    let trimmed = joined.trim();
    let (keyword, rest) = trimmed.split_once(char::is_whitespace).unwrap_or((trimmed, ""));
    let indent = first.chars().take_while(|c| c.is_whitespace()).count();
    LogicalLine {
        keyword: keyword.to_ascii_uppercase(),
        rest: rest.trim().to_string(),
        location: Location {
            file: file.into(),
            line: start + 1,
            column: indent + 1,
            length: keyword.chars().count().max(1),
        },
        here_document: false,
    }
}

/// The words after `<<` outside of quotes, and whether `<<-` was written.
fn here_words(rest: &str) -> Vec<(String, bool)> {
    let mut words = Vec::new();
    for token in rest.split_whitespace() {
        let digits = token.trim_start_matches(|c: char| c.is_ascii_digit());
        let Some(word) = digits.strip_prefix("<<") else { continue };
        let (word, strip_tabs) = word.strip_prefix('-').map_or((word, false), |word| (word, true));
        let bare = word.trim_matches(['"', '\'']);
        let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        if !bare.is_empty() && bare.chars().all(plain) {
            words.push((bare.to_string(), strip_tabs));
        }
    }
    words
}

/// The line after the one that ends the here-document.
fn skip_here_document(physical: &[&str], mut at: usize, word: &str, strip_tabs: bool) -> usize {
    while at < physical.len() {
        let line = if strip_tabs { physical[at].trim_start_matches('\t') } else { physical[at] };
        at += 1;
        if line == word {
            break;
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rests(text: &str) -> Vec<(usize, String, String)> {
        split(text, Path::new("Dockerfile"))
            .lines
            .into_iter()
            .map(|line| (line.location.line, line.keyword, line.rest))
            .collect()
    }

    #[test]
    fn continued_lines_are_one_instruction() {
        let text = "# comment\nFROM a\n\nRUN one \\\n  # remark\n\n  two \\\n three\ncmd x";
        assert_eq!(
            rests(text),
            [
                (2, "FROM".into(), "a".into()),
                (4, "RUN".into(), "one   two  three".into()),
                (9, "CMD".into(), "x".into()),
            ]
        );
    }

    #[test]
    fn the_escape_directive_counts_only_at_the_top() {
        let text = "# escape=`\nFROM a\nCOPY x `\n c:\\\nUSER y";
        assert_eq!(rests(text)[1], (3, "COPY".into(), "x  c:\\".into()));
        let text = "FROM a\n# escape=`\nCOPY x \\\n y";
        assert_eq!(rests(text)[1], (3, "COPY".into(), "x  y".into()));
        assert_eq!(split("# escape=x\nFROM a", Path::new("D")).findings.len(), 1);
    }

    #[test]
    fn a_here_document_is_not_taken_for_instructions() {
        let text = "RUN <<EOF\nnot an instruction\nEOF\nUSER x";
        let lines = split(text, Path::new("D")).lines;
        assert!(lines[0].here_document);
        assert_eq!(lines[1].keyword, "USER");
    }
}
