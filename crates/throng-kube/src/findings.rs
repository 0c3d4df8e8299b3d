//! Findings of a conversion, each at the nearest place that the Compose files have for it.

use crate::source::Source;
use throng_model::diagnostic::{Diagnostic, Location};

/// Most findings of one conversion that are kept; one more says that there were others.
pub const MAX_FINDINGS: usize = 500;

pub(crate) struct Findings<'a> {
    source: &'a dyn Source,
    list: Vec<Diagnostic>,
    errors: usize,
}

impl<'a> Findings<'a> {
    pub fn new(source: &'a dyn Source) -> Findings<'a> {
        Findings { source, list: Vec::new(), errors: 0 }
    }

    pub fn warn(&mut self, path: &[&str], message: impl Into<String>, hint: impl Into<String>) {
        self.push(path, Diagnostic::warning(message).hint(hint));
    }

    pub fn error(&mut self, path: &[&str], message: impl Into<String>, hint: impl Into<String>) {
        self.errors += 1;
        self.push(path, Diagnostic::error(message).hint(hint));
    }

    /// An error about two things, of which the other one came first.
    pub fn clash(&mut self, path: &[&str], other: &[&str], message: impl Into<String>, hint: &str) {
        self.errors += 1;
        let finding = Diagnostic::error(message).hint(hint);
        let finding = match self.nearest(other) {
            Some(place) => finding.related(place, "the other one"),
            None => finding,
        };
        self.push(path, finding);
    }

    fn push(&mut self, path: &[&str], finding: Diagnostic) {
        if self.list.len() > MAX_FINDINGS {
            return;
        }
        if self.list.len() == MAX_FINDINGS {
            let message = format!("more than {MAX_FINDINGS} findings; the others are not shown");
            self.list.push(Diagnostic { location: None, hint: None, message, ..finding });
            return;
        }
        self.list.push(match self.nearest(path) {
            Some(place) => finding.at(place),
            None => finding,
        });
    }

    /// The place of a key, or of the innermost one above it that the files have.
    fn nearest(&self, path: &[&str]) -> Option<Location> {
        (1..=path.len()).rev().find_map(|length| self.source.place(&path[..length]))
    }

    pub fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// In the order of the file's lines.
    pub fn into_vec(mut self) -> Vec<Diagnostic> {
        self.list.sort_by(|a, b| {
            let key = |finding: &Diagnostic| {
                let place = finding.location.as_ref().map(|at| (at.file.clone(), at.line, at.column));
                (place.is_none(), place)
            };
            key(a).cmp(&key(b))
        });
        self.list
    }
}
