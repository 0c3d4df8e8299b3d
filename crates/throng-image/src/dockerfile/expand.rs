//! Variables, quotes and escapes in the words of an instruction.
//!
//! Docker's own subset of a shell's rules: `$name`, `${name}`, `${name:-word}`, `${name:+word}`, the same without
//! colon, `${name:?word}`; single quotes keep everything, double quotes keep white space.

use std::fmt;

/// Nesting of `${a:-${b:-…}}`. Bounds the recursion.
const MAX_DEPTH: usize = 32;

/// Why a word cannot be expanded: a lower-case fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExpandError(String);

impl fmt::Display for ExpandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Replaces variables by what `lookup` knows; an unknown variable is empty.
pub(crate) struct Expander<'a> {
    pub escape: char,
    pub lookup: &'a dyn Fn(&str) -> Option<String>,
}

struct Cursor<'t> {
    rest: std::iter::Peekable<std::str::Chars<'t>>,
}

impl Expander<'_> {
    /// One word: quotes are removed, variables replaced.
    pub(crate) fn word(&self, text: &str) -> Result<String, ExpandError> {
        let mut cursor = Cursor { rest: text.chars().peekable() };
        self.until(&mut cursor, None, 0)
    }

    /// A text whose quotes are its own, as in the JSON form: only variables are replaced.
    pub(crate) fn literal(&self, text: &str) -> Result<String, ExpandError> {
        let mut cursor = Cursor { rest: text.chars().peekable() };
        let mut out = String::new();
        while let Some(c) = cursor.rest.next() {
            match c {
                '$' => self.variable(&mut cursor, &mut out, 0)?,
                c if c == self.escape && cursor.rest.peek() == Some(&'$') => {
                    out.extend(cursor.rest.next());
                }
                c => out.push(c),
            }
        }
        Ok(out)
    }

    fn until(&self, cursor: &mut Cursor<'_>, end: Option<char>, depth: usize) -> Result<String, ExpandError> {
        if depth > MAX_DEPTH {
            return Err(ExpandError(format!("variables are nested more than {MAX_DEPTH} deep")));
        }
        let mut out = String::new();
        while let Some(c) = cursor.rest.next() {
            match c {
                c if Some(c) == end => return Ok(out),
                '\'' => single_quoted(cursor, &mut out)?,
                '"' => self.double_quoted(cursor, &mut out, depth)?,
                '$' => self.variable(cursor, &mut out, depth)?,
                c if c == self.escape => out.extend(cursor.rest.next()),
                c => out.push(c),
            }
        }
        match end {
            Some(end) => Err(ExpandError(format!("a closing {end} is missing"))),
            None => Ok(out),
        }
    }

    fn double_quoted(
        &self,
        cursor: &mut Cursor<'_>,
        out: &mut String,
        depth: usize,
    ) -> Result<(), ExpandError> {
        while let Some(c) = cursor.rest.next() {
            match c {
                '"' => return Ok(()),
                '$' => self.variable(cursor, out, depth)?,
                c if c == self.escape => match cursor.rest.next() {
                    Some(next) if next == '"' || next == '$' || next == self.escape => out.push(next),
                    Some(next) => out.extend([c, next]),
                    None => out.push(c),
                },
                c => out.push(c),
            }
        }
        Err(ExpandError("a closing \" is missing".into()))
    }

    /// What follows a `$`.
    fn variable(&self, cursor: &mut Cursor<'_>, out: &mut String, depth: usize) -> Result<(), ExpandError> {
        if cursor.rest.next_if_eq(&'{').is_some() {
            return self.braced(cursor, out, depth);
        }
        let name = name(cursor);
        if name.is_empty() {
            out.push('$');
        } else {
            out.push_str(&(self.lookup)(&name).unwrap_or_default());
        }
        Ok(())
    }

    fn braced(&self, cursor: &mut Cursor<'_>, out: &mut String, depth: usize) -> Result<(), ExpandError> {
        let name = name(cursor);
        if name.is_empty() {
            return Err(ExpandError("${ is not followed by the name of a variable".into()));
        }
        let value = (self.lookup)(&name);
        let mut modifier = cursor.rest.next();
        let colon = modifier == Some(':');
        if colon {
            modifier = cursor.rest.next();
        }
        // With a colon, a variable that is set to nothing counts as not set.
        let set = value.as_deref().is_some_and(|value| !colon || !value.is_empty());
        match modifier {
            Some('}') if !colon => out.push_str(&value.unwrap_or_default()),
            Some('-') => {
                let word = self.until(cursor, Some('}'), depth + 1)?;
                out.push_str(if set { value.as_deref().unwrap_or_default() } else { &word });
            }
            Some('+') => {
                let word = self.until(cursor, Some('}'), depth + 1)?;
                if set {
                    out.push_str(&word);
                }
            }
            Some('?') => {
                let word = self.until(cursor, Some('}'), depth + 1)?;
                if !set {
                    let reason = if word.is_empty() { "it is not set" } else { &word };
                    return Err(ExpandError(format!("variable {name}: {reason}")));
                }
                out.push_str(value.as_deref().unwrap_or_default());
            }
            Some(other) => {
                return Err(ExpandError(format!("the modifier {other:?} in ${{{name}…}} is not supported")));
            }
            None => return Err(ExpandError(format!("${{{name} has no closing brace"))),
        }
        Ok(())
    }
}

fn single_quoted(cursor: &mut Cursor<'_>, out: &mut String) -> Result<(), ExpandError> {
    for c in cursor.rest.by_ref() {
        if c == '\'' {
            return Ok(());
        }
        out.push(c);
    }
    Err(ExpandError("a closing ' is missing".into()))
}

fn name(cursor: &mut Cursor<'_>) -> String {
    let mut name = String::new();
    while let Some(c) = cursor
        .rest
        .next_if(|c| c.is_ascii_alphabetic() || *c == '_' || (c.is_ascii_digit() && !name.is_empty()))
    {
        name.push(c);
    }
    name
}

/// Splits at white space outside of quotes and braces; the words keep their quotes.
pub(crate) fn split_words(text: &str, escape: char) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    let mut braces = 0usize;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c == escape && quote != Some('\'') {
            word.push(c);
            word.extend(chars.next());
            continue;
        }
        match (c, quote) {
            (c, None) if c.is_whitespace() && braces == 0 => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            ('\'' | '"', None) => quote = Some(c),
            (c, Some(open)) if c == open => quote = None,
            ('{', None) if word.ends_with('$') => braces += 1,
            ('}', None) => braces = braces.saturating_sub(1),
            _ => {}
        }
        word.push(c);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn expand(text: &str) -> Result<String, String> {
        let lookup = |name: &str| match name {
            "x" => Some("X".to_string()),
            "empty" => Some(String::new()),
            _ => None,
        };
        Expander { escape: '\\', lookup: &lookup }.word(text).map_err(|error| error.to_string())
    }

    #[test]
    fn variables_as_docker_replaces_them() {
        for (text, expected) in [
            ("$x-${x}", "X-X"),
            ("$xy", ""),
            ("${x}y", "Xy"),
            ("\\$x '$x' \"$x\"", "$x $x X"),
            ("${none:-d}${none-d}${empty:-d}${empty-d}", "ddd"),
            ("${x:+s}${empty:+s}${empty+s}${none+s}", "ss"),
            ("${none:-${x:-y}}", "X"),
            ("${none:-'}'}", "}"),
            ("$ a$", "$ a$"),
            ("a\\ b", "a b"),
            ("\"a\\nb\\\"\"", "a\\nb\""),
            ("$1", "$1"),
        ] {
            assert_eq!(expand(text).as_deref(), Ok(expected), "{text}");
        }
        for text in ["${", "${x", "${}", "${x:", "${x:?", "${none:?}", "${x%y}", "'a", "\"a", "${x:}"] {
            assert!(expand(text).is_err(), "{text}");
        }
        assert_eq!(expand("${none:?must be given}").unwrap_err(), "variable none: must be given");
    }

    #[test]
    fn the_json_form_keeps_quotes() {
        let lookup = |_: &str| Some("v".to_string());
        let expander = Expander { escape: '\\', lookup: &lookup };
        assert_eq!(expander.literal("it's \"$x\" \\$x \\n").unwrap(), "it's \"v\" $x \\n");
    }

    #[test]
    fn words_keep_their_quotes() {
        assert_eq!(
            split_words("a 'b c' d\\ e \"f g\" ${h:-i j}", '\\'),
            ["a", "'b c'", "d\\ e", "\"f g\"", "${h:-i j}"]
        );
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[${}:+?'\" a-z\\\\-]{0,60}") {
            let _ = expand(&text);
            let _ = split_words(&text, '\\');
        }
    }
}
