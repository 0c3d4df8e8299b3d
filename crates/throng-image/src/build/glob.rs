//! Patterns of .dockerignore and of COPY's sources.

/// PATH_MAX of Linux.
const MAX_LENGTH: usize = 4096;

/// True if the whole of `text` matches: `*` and `?` stop at a slash, `**` does not, `[a-z]` and `[^a-z]` are classes,
/// a backslash takes the next character literally. The time is bounded by the product of both lengths; what is longer
/// than a path can be matches nothing.
pub(super) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    if pattern.len() > MAX_LENGTH || text.len() > MAX_LENGTH {
        return false;
    }
    let width = text.len() + 1;
    // What is known to fail, so that no combination is tried twice.
    let mut failed = vec![false; (pattern.len() + 1) * width];
    walk(pattern, 0, text, 0, width, &mut failed)
}

pub(super) fn has_wildcards(pattern: &str) -> bool {
    pattern.contains(['*', '?', '['])
}

fn walk(pattern: &[u8], p: usize, text: &[u8], t: usize, width: usize, failed: &mut [bool]) -> bool {
    if failed[p * width + t] {
        return false;
    }
    let found = step(pattern, p, text, t, width, failed);
    failed[p * width + t] = !found;
    found
}

fn step(pattern: &[u8], p: usize, text: &[u8], t: usize, width: usize, failed: &mut [bool]) -> bool {
    let Some(&c) = pattern.get(p) else { return t == text.len() };
    let next = text.get(t).copied();
    match c {
        b'*' if pattern.get(p + 1) == Some(&b'*') => {
            // `**/` also stands for no folder at all.
            let after = if pattern.get(p + 2) == Some(&b'/') { p + 3 } else { p + 2 };
            let at_boundary = after == p + 2 || t == 0 || text[t - 1] == b'/';
            (at_boundary && walk(pattern, after, text, t, width, failed))
                || (next.is_some() && walk(pattern, p, text, t + 1, width, failed))
        }
        b'*' => {
            walk(pattern, p + 1, text, t, width, failed)
                || (next.is_some_and(|b| b != b'/') && walk(pattern, p, text, t + 1, width, failed))
        }
        b'?' => next.is_some_and(|b| b != b'/') && walk(pattern, p + 1, text, t + 1, width, failed),
        b'[' => match (class(pattern, p, next), next) {
            (Some((after, true)), Some(_)) => walk(pattern, after, text, t + 1, width, failed),
            (Some(_), _) => false,
            // Without a closing bracket it is an ordinary character.
            (None, _) => next == Some(b'[') && walk(pattern, p + 1, text, t + 1, width, failed),
        },
        b'\\' if p + 1 < pattern.len() => {
            next == Some(pattern[p + 1]) && walk(pattern, p + 2, text, t + 1, width, failed)
        }
        _ => next == Some(c) && walk(pattern, p + 1, text, t + 1, width, failed),
    }
}

/// The place after the class that begins at `p`, and whether `byte` is in it.
fn class(pattern: &[u8], p: usize, byte: Option<u8>) -> Option<(usize, bool)> {
    let negated = matches!(pattern.get(p + 1), Some(b'^' | b'!'));
    let mut at = p + 1 + usize::from(negated);
    let first = at;
    let mut inside = false;
    loop {
        let low = *pattern.get(at)?;
        if low == b']' && at > first {
            let hit = byte.is_some_and(|b| b != b'/') && inside != negated;
            return Some((at + 1, hit));
        }
        let range = pattern.get(at + 1) == Some(&b'-') && pattern.get(at + 2).is_some_and(|b| *b != b']');
        let high = if range { pattern[at + 2] } else { low };
        inside = inside || byte.is_some_and(|b| (low..=high).contains(&b));
        at += if range { 3 } else { 1 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_as_docker_reads_them() {
        for (pattern, text, expected) in [
            ("*.txt", "a.txt", true),
            ("*.txt", "d/a.txt", false),
            ("**/*.txt", "a.txt", true),
            ("**/*.txt", "d/e/a.txt", true),
            ("d/**", "d/e/f", true),
            ("d/**/f", "d/f", true),
            ("**/f", "xf", false),
            ("a?c", "abc", true),
            ("a?c", "a/c", false),
            ("[a-c]x", "bx", true),
            ("[^a-c]x", "bx", false),
            ("[x", "[x", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("", "", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn many_stars_do_not_take_for_ever() {
        assert!(!matches(format!("{}b", "*a".repeat(60)).as_bytes(), "a".repeat(200).as_bytes()));
        assert!(!matches("*".repeat(1 << 20).as_bytes(), b"a"));
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(pattern in "[a-c*?\\[\\]^\\\\/-]{0,20}", text in "[a-c/]{0,20}") {
            let _ = matches(pattern.as_bytes(), text.as_bytes());
        }
    }
}
