//! Physical lines to logical ones: directives, comments, continuations, here-documents.

use super::HereDocument;
use super::expand::split_words;
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
    /// The texts that follow the instruction, in the order of their `<<EOF`.
    pub here_documents: Vec<HereDocument>,
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
            for word in split_words(&line.rest, escape) {
                let Some(mut document) = here_document(&word) else { continue };
                let (next, ends) = fill(&mut document, &physical, at);
                at = next;
                if !ends {
                    let message = format!("nothing ends the text that begins with <<{}", document.name);
                    let hint = format!("put a line with {} alone after it", document.name);
                    findings.push(Diagnostic::error(message).at(line.location.clone()).hint(hint));
                }
                line.here_documents.push(document);
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
        here_documents: Vec::new(),
    }
}

/// What a word such as `<<EOF`, `<<-"EOF"` or `3<<EOF` announces.
pub(super) fn here_document(word: &str) -> Option<HereDocument> {
    let word = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
    let (word, strip_tabs) = word.strip_prefix('-').map_or((word, false), |word| (word, true));
    let bare: String = word.chars().filter(|c| !matches!(c, '"' | '\'')).collect();
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let is_name = !bare.is_empty() && bare.chars().all(plain) && !matches!(bare.as_str(), "." | "..");
    is_name.then(|| HereDocument { literal: bare != word, name: bare, strip_tabs, text: String::new() })
}

/// Takes the lines of the text. Returns the line after it and whether it has an end.
fn fill(document: &mut HereDocument, physical: &[&str], mut at: usize) -> (usize, bool) {
    while at < physical.len() {
        let line = physical[at];
        let compared = if document.strip_tabs { line.trim_start_matches('\t') } else { line };
        at += 1;
        if compared == document.name {
            return (at, true);
        }
        document.text.push_str(line);
        document.text.push('\n');
    }
    (at, false)
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
    fn the_texts_that_follow_an_instruction_belong_to_it() {
        let text =
            "RUN a <<EOF <<-\"B\"\nnot an instruction\nEOF\n\tb\n\tB\nUSER x\nRUN echo '<<X' $((1<<2)) <<<y";
        let split = split(text, Path::new("D"));
        assert!(split.findings.is_empty());
        let [first, second] = &split.lines[0].here_documents[..] else { panic!("two texts") };
        assert_eq!((first.name.as_str(), first.text.as_str()), ("EOF", "not an instruction\n"));
        assert_eq!((first.literal, second.literal, second.strip_tabs), (false, true, true));
        assert_eq!((second.text.as_str(), second.content().as_str()), ("\tb\n", "b\n"));
        assert_eq!(split.lines[1].keyword, "USER");
        assert!(split.lines[2].here_documents.is_empty());
        let open = super::split("FROM a\nCOPY <<EOF /a\nx", Path::new("D"));
        assert_eq!(open.findings[0].location.as_ref().map(|at| at.line), Some(2));
    }
}
