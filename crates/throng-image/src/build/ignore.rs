//! `.dockerignore`: what of the build context does not exist for COPY and ADD.

use super::glob;
use std::path::Path;

#[derive(Debug, Clone, Default)]
pub(super) struct Ignore {
    rules: Vec<Rule>,
}

#[derive(Debug, Clone)]
struct Rule {
    pattern: String,
    /// `!pattern`: an exception from the rules before it.
    keep: bool,
}

impl Ignore {
    pub(super) fn parse(text: &str) -> Ignore {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let rules = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .filter_map(|line| {
                let (keep, pattern) =
                    line.strip_prefix('!').map_or((false, line), |rest| (true, rest.trim()));
                let pattern = clean(pattern);
                (!pattern.is_empty()).then_some(Rule { pattern, keep })
            })
            .collect();
        Ignore { rules }
    }

    /// As the lines of such a file.
    pub(super) fn of(patterns: &[String]) -> Ignore {
        Ignore::parse(&patterns.join("\n"))
    }

    /// True if the path, relative to the context, is left out. A rule that matches a folder holds for all in it; the
    /// last rule that matches decides.
    pub(super) fn excludes(&self, path: &Path) -> bool {
        let mut excluded = false;
        for rule in &self.rules {
            if rule.keep == excluded && rule.covers(path) {
                excluded = !rule.keep;
            }
        }
        excluded
    }

    /// True if something below an excluded folder may still be kept by an exception.
    pub(super) fn has_exceptions(&self) -> bool {
        self.rules.iter().any(|rule| rule.keep)
    }
}

impl Rule {
    fn covers(&self, path: &Path) -> bool {
        path.ancestors()
            .filter(|ancestor| !ancestor.as_os_str().is_empty())
            .any(|ancestor| glob::matches(self.pattern.as_bytes(), ancestor.as_os_str().as_encoded_bytes()))
    }
}

/// Without leading slash, `.` and `x/..`.
fn clean(pattern: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_matching_rule_decides() {
        let ignore =
            Ignore::parse("# remark\n*.log\n/target\n**/node_modules\n!keep.log\n docs/ \n!docs/a.md\n");
        for (path, expected) in [
            ("a.log", true),
            ("keep.log", false),
            ("d/a.log", false),
            ("target/x/y", true),
            ("x/target", false),
            ("x/node_modules/y", true),
            ("docs/b.md", true),
            ("docs/a.md", false),
            ("src", false),
        ] {
            assert_eq!(ignore.excludes(Path::new(path)), expected, "{path}");
        }
        assert!(ignore.has_exceptions());
        assert!(!Ignore::parse("").excludes(Path::new("x")));
    }
}
