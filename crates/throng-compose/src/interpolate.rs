//! `$NAME`, `${NAME}` and their operators, as Compose and the POSIX shell define them.
//!
//! | form | value |
//! |---|---|
//! | `$NAME`, `${NAME}` | the variable; unset counts as empty and is reported |
//! | `${NAME:-word}`, `${NAME-word}` | `word` if unset or empty; if unset |
//! | `${NAME:?word}`, `${NAME?word}` | an error with `word` if unset or empty; if unset |
//! | `${NAME:+word}`, `${NAME+word}` | `word` if set and not empty; if set; else empty |
//! | `$$` | a dollar sign |
//!
//! A `word` may hold further variables. What a variable holds is never expanded again.

use crate::yaml::{Findings, Node, Position, Value};

/// Deepest nesting of `${…${…}…}`.
const MAX_NESTING: usize = 16;
/// Most characters that the variables of one file may expand to.
const MAX_EXPANDED_BYTES: usize = 16 << 20;

/// The result of [`expand`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expanded {
    pub text: String,
    /// Variables that were used without a default and are not set, with their byte offset in the input.
    pub unset: Vec<(usize, String)>,
}

/// Why a text cannot be expanded, and where in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpandError {
    /// Byte offset in the input.
    pub offset: usize,
    pub message: String,
    pub hint: Option<&'static str>,
}

/// Replaces every variable of `text` by what `lookup` says.
///
/// # Errors
/// A dollar sign that starts no variable, a missing `}`, too deep nesting, or a required variable that is not set.
pub fn expand(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Expanded, ExpandError> {
    let mut expander = Expander { text, at: 0, lookup, out: Expanded::default() };
    expander.run(0, true)?;
    Ok(expander.out)
}

struct Expander<'a> {
    text: &'a str,
    at: usize,
    lookup: &'a dyn Fn(&str) -> Option<String>,
    out: Expanded,
}

#[derive(Clone, Copy, PartialEq)]
enum Operator {
    Plain,
    Default,
    Required,
    Alternative,
}

impl Expander<'_> {
    /// Reads up to the end, or up to the `}` that ends the word at `depth` above 0. A part that is not `active`
    /// is read and thrown away: `${A:+${B:?}}` must not complain about B when A is unset.
    fn run(&mut self, depth: usize, active: bool) -> Result<(), ExpandError> {
        while let Some(c) = self.peek() {
            if c == '}' && depth > 0 {
                return Ok(());
            }
            self.at += c.len_utf8();
            if c != '$' {
                if active {
                    self.out.text.push(c);
                }
                continue;
            }
            let dollar = self.at - 1;
            match self.peek() {
                Some('$') => {
                    self.at += 1;
                    if active {
                        self.out.text.push('$');
                    }
                }
                Some('{') => {
                    self.at += 1;
                    self.braced(dollar, depth + 1, active)?;
                }
                Some(c) if is_name_start(c) => {
                    let name = self.name();
                    if active {
                        self.plain(dollar, name);
                    }
                }
                _ => {
                    return Err(ExpandError {
                        offset: dollar,
                        message: "a dollar sign that no variable follows".into(),
                        hint: Some("write $$ for a dollar sign"),
                    });
                }
            }
        }
        Ok(())
    }

    fn braced(&mut self, dollar: usize, depth: usize, active: bool) -> Result<(), ExpandError> {
        let wrong = |message: String, hint| Err(ExpandError { offset: dollar, message, hint });
        if depth > MAX_NESTING {
            return wrong(format!("variables nest more than {MAX_NESTING} levels deep"), None);
        }
        if !self.peek().is_some_and(is_name_start) {
            let hint = "write ${NAME}, or $$ for a dollar sign";
            return wrong("${ is not followed by the name of a variable".into(), Some(hint));
        }
        let name = self.name();
        let or_empty = self.skip(':');
        let operator = match self.peek() {
            Some('-') => Operator::Default,
            Some('?') => Operator::Required,
            Some('+') => Operator::Alternative,
            Some('}') if !or_empty => Operator::Plain,
            None => return wrong(format!("${{{name} has no closing brace"), Some("close it with }")),
            _ => {
                let hint = "after the name come }, :-, -, :?, ?, :+ or +";
                return wrong(format!("${{{name} is followed by something that is no operator"), Some(hint));
            }
        };
        if operator != Operator::Plain {
            self.at += 1;
        }
        let value = (self.lookup)(&name);
        let given = value.as_ref().is_some_and(|value| !(or_empty && value.is_empty()));
        let start = self.out.text.len();
        let word_active = active && (operator == Operator::Alternative) == given;
        self.run(depth, word_active)?;
        if !self.skip('}') {
            return wrong(format!("${{{name} has no closing brace"), Some("close it with }"));
        }
        match operator {
            _ if !active => {}
            Operator::Plain => {
                self.out.text.truncate(start);
                self.plain(dollar, name);
            }
            Operator::Alternative => {}
            Operator::Default | Operator::Required if given => {
                self.out.text.push_str(&value.unwrap_or_default());
            }
            Operator::Default => {}
            Operator::Required => {
                let word = self.out.text.split_off(start);
                let word = if word.is_empty() { "it is not set" } else { word.trim() };
                let hint = "set it in the environment or in the .env file beside the Compose file";
                return wrong(format!("the variable {name} is required: {word}"), Some(hint));
            }
        }
        Ok(())
    }

    fn plain(&mut self, dollar: usize, name: String) {
        match (self.lookup)(&name) {
            Some(value) => self.out.text.push_str(&value),
            None => self.out.unset.push((dollar, name)),
        }
    }

    fn name(&mut self) -> String {
        let rest = &self.text[self.at..];
        let end = rest.find(|c: char| !(is_name_start(c) || c.is_ascii_digit())).unwrap_or(rest.len());
        self.at += end;
        rest[..end].to_owned()
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn skip(&mut self, c: char) -> bool {
        let found = self.peek() == Some(c);
        if found {
            self.at += c.len_utf8();
        }
        found
    }
}

fn is_name_start(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_'
}

/// Expands every value (not the keys) below `root`.
///
/// `unset` is told of each variable that is used without a default and is not set.
pub fn expand_tree(
    root: &mut Node,
    lookup: &dyn Fn(&str) -> Option<String>,
    unset: &dyn Fn(&Position, &str, &mut Findings),
    findings: &mut Findings,
) {
    let mut budget = MAX_EXPANDED_BYTES;
    let mut stack = vec![root];
    while let Some(node) = stack.pop() {
        let position = node.position.clone();
        let scalar = match &mut node.value {
            Value::Null => continue,
            // Pushed in reverse so that findings come in the order of the file.
            Value::List(items) => {
                stack.extend(items.iter_mut().rev());
                continue;
            }
            Value::Map(entries) => {
                stack.extend(entries.iter_mut().rev().map(|entry| &mut entry.value));
                continue;
            }
            Value::Scalar(scalar) => scalar,
        };
        if !scalar.text.contains('$') {
            continue;
        }
        let part = |offset: usize| inside(&position, scalar.plain, &scalar.text, offset);
        match expand(&scalar.text, lookup) {
            Ok(expanded) => {
                for (offset, name) in &expanded.unset {
                    unset(&part(*offset), name, findings);
                }
                let Some(left) = budget.checked_sub(expanded.text.len()) else {
                    let limit = throng_model::units::format_bytes(MAX_EXPANDED_BYTES as u64);
                    findings.error(&position, format!("variables expand to more than {limit} in this file"));
                    return;
                };
                budget = left;
                scalar.text = expanded.text;
                // A variable that holds `null` or nothing is a text, not an absent value.
                scalar.plain = false;
            }
            Err(e) => match e.hint {
                Some(hint) => findings.error_with_hint(&part(e.offset), e.message, hint),
                None => findings.error(&part(e.offset), e.message),
            },
        }
    }
}

/// The place of a byte of a scalar, as far as it can be told: exact for one line without escapes before it.
fn inside(scalar: &Position, plain: bool, text: &str, offset: usize) -> Position {
    let before = text.get(..offset).unwrap_or_default();
    let quote = usize::from(!plain);
    let written_as_is = scalar.length == text.chars().count() + 2 * quote;
    if !written_as_is {
        return scalar.clone();
    }
    let skipped = before.chars().count() + quote;
    let rest = &text[offset.min(text.len())..];
    let end = if rest.starts_with("${") {
        rest.find('}').map_or(rest.len(), |at| at + 1)
    } else {
        let name = rest.get(1..).unwrap_or_default();
        1 + name.find(|c: char| !(is_name_start(c) || c.is_ascii_digit())).unwrap_or(name.len())
    };
    let length = rest.get(..end).unwrap_or(rest).chars().count();
    Position { column: scalar.column + skipped, length: length.max(1), ..scalar.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(name: &str) -> Option<String> {
        match name {
            "A" => Some("one".into()),
            "EMPTY" => Some(String::new()),
            "RAW" => Some("$A ${A}".into()),
            _ => None,
        }
    }

    #[test]
    fn every_operator_with_set_empty_and_unset_variables() {
        for (text, expected) in [
            ("plain", "plain"),
            ("$A", "one"),
            ("$A-x", "one-x"),
            ("${A}x", "onex"),
            ("$$A $${A}", "$A ${A}"),
            ("$RAW", "$A ${A}"),
            ("${A:-d}", "one"),
            ("${EMPTY:-d}", "d"),
            ("${NO:-d}", "d"),
            ("${A-d}", "one"),
            ("${EMPTY-d}", ""),
            ("${NO-d}", "d"),
            ("${A:+d}", "d"),
            ("${EMPTY:+d}", ""),
            ("${NO:+d}", ""),
            ("${A+d}", "d"),
            ("${EMPTY+d}", "d"),
            ("${NO+d}", ""),
            ("${A:?no}", "one"),
            ("${EMPTY?no}", ""),
            ("${NO:-${A}}", "one"),
            ("${NO:-${NO2:-${A:+deep}}}", "deep"),
            ("${NO:-$A and $$}", "one and $"),
            ("${NO:-}", ""),
            ("${NO:-a:b-c?d+e}", "a:b-c?d+e"),
            ("${A:-${NO:?never asked}}", "one"),
            ("ä${A}ü", "äoneü"),
        ] {
            assert_eq!(expand(text, &environment).map(|e| e.text), Ok(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn unset_variables_are_named_with_their_place() {
        let expanded = expand("x $NO ${NO2} ${NO3:-d} ${NO4:+$NO5}", &environment).unwrap();
        assert_eq!(expanded.text, "x   d ");
        assert_eq!(expanded.unset, [(2, "NO".to_owned()), (6, "NO2".to_owned())]);
    }

    #[test]
    fn what_is_no_variable_is_an_error_at_its_place() {
        for (text, offset, part) in [
            ("a $", 2, "no variable follows"),
            ("$1", 0, "no variable follows"),
            ("ab${", 2, "not followed by the name"),
            ("${}", 0, "not followed by the name"),
            ("${A", 0, "no closing brace"),
            ("${A:-x", 0, "no closing brace"),
            ("${A:}", 0, "no operator"),
            ("${A!}", 0, "no operator"),
            ("${NO:?set it}", 0, "NO is required: set it"),
            ("${EMPTY:?}", 0, "EMPTY is required: it is not set"),
            ("${NO?${A} please}", 0, "one please"),
        ] {
            let error = expand(text, &environment).unwrap_err();
            assert_eq!(error.offset, offset, "{text}");
            assert!(error.message.contains(part), "{text}: {}", error.message);
        }
        let deep = "${N:-".repeat(20) + &"}".repeat(20);
        assert!(expand(&deep, &environment).unwrap_err().message.contains("levels deep"));
    }
}
