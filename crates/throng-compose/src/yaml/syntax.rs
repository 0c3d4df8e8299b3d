//! What the parser cannot read, at the place where a person would look for it, and what to do.

/// Parts of the parser's words, and what to do about that.
const HINTS: [(&str, &str); 6] = [
    ("tabs", "indent with spaces: YAML allows no tabs there"),
    (
        "mapping values are not allowed",
        "quote a value that has `: ` in it, or indent the line as its neighbours",
    ),
    ("cannot start any token", "quote a value that begins with @, ` or %"),
    ("unknown anchor", "define the anchor with `&name` above its first use"),
    ("block mapping", "indent the keys of one mapping alike"),
    ("quoted scalar", "close the quotes"),
];
const OTHERWISE: &str = "look at the line before it, too: YAML goes by indentation";
const BRACES_IN_BRACES: &str = "quote values with `${…}` between brackets: \"${NAME}\"";

/// A bracket that opens a list or mapping, at a line and column counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bracket {
    pub line: usize,
    pub column: usize,
    pub closed_by: char,
}

/// What to do about an error that the parser found on this line.
pub fn hint(error: &str, line: &str) -> &'static str {
    let between_brackets = error.contains("flow ") || error.contains("node content");
    if between_brackets && line.contains("${") {
        return BRACES_IN_BRACES;
    }
    HINTS.iter().find(|(part, _)| error.contains(part)).map_or(OTHERWISE, |(_, hint)| hint)
}

/// The innermost bracket that nothing closes. Quoted text, comments and brackets inside words count for nothing; block
/// scalars are not known apart, so ask only where the parser has failed.
pub fn unclosed(lines: &[&str]) -> Option<Bracket> {
    let mut open: Vec<Bracket> = Vec::new();
    let mut quote = None;
    for (number, line) in lines.iter().enumerate() {
        let (mut escaped, mut before) = (false, ' ');
        for (column, character) in line.chars().enumerate() {
            match quote {
                Some(_) if escaped => escaped = false,
                Some('"') if character == '\\' => escaped = true,
                Some(mark) => quote = quote.filter(|_| character != mark),
                None => {
                    let begins = before.is_whitespace() || "[{,:-".contains(before);
                    match character {
                        '#' if before.is_whitespace() => break,
                        '"' | '\'' if begins => quote = Some(character),
                        '[' | '{' if begins => {
                            let closed_by = if character == '[' { ']' } else { '}' };
                            open.push(Bracket { line: number, column, closed_by });
                        }
                        ']' | '}' if open.last().is_some_and(|last| last.closed_by == character) => {
                            open.pop();
                        }
                        _ => {}
                    }
                }
            }
            before = character;
        }
    }
    open.pop()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bracket_that_nothing_closes_is_found() {
        let place = |text: &str| {
            let lines: Vec<&str> = text.lines().collect();
            unclosed(&lines).map(|bracket| (bracket.line, bracket.column, bracket.closed_by))
        };
        assert_eq!(place("services: ["), Some((0, 10, ']')));
        assert_eq!(place("services: [web: {"), Some((0, 16, '}')));
        assert_eq!(place("a: 1\nb: {c: [1, 2]\nd: 2"), Some((1, 3, '}')));
        for whole in ["a: [1, {b: 2}]", "a: \"[\"", "a: '{'", "a: b # [", "a: b[", "a: \"\\\"[\"", ""] {
            assert_eq!(place(whole), None, "{whole}");
        }
    }

    #[test]
    fn hints_say_what_to_do() {
        assert!(hint("tabs disallowed within this context", "\tx").contains("spaces"));
        let flow = "while parsing a flow mapping, did not find expected ',' or '}'";
        assert_eq!(hint(flow, "web: {image: ${TAG}}"), BRACES_IN_BRACES);
        assert_eq!(hint("something new", "x"), OTHERWISE);
    }
}
