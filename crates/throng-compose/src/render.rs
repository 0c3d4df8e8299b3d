//! Findings for a terminal: the message, the line of the file, and a mark under what is meant.

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet, normalize_untrusted_str};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use throng_model::diagnostic::{Diagnostic, Location, Severity};

const WIDTH: usize = 80;

/// Renders findings one after another, each followed by an empty line. The files are read again for their lines;
/// a file that cannot be read leaves the place without the line. Paths below the working directory are shown
/// relative to it.
pub fn render(diagnostics: &[Diagnostic], color: bool) -> String {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let renderer = renderer.term_width(WIDTH).decor_style(DecorStyle::Ascii);
    let here = std::env::current_dir().unwrap_or_default();
    let mut sources: HashMap<PathBuf, Option<String>> = HashMap::new();
    let mut out = String::new();
    for diagnostic in diagnostics {
        let places = diagnostic.location.iter().chain(diagnostic.related.iter().map(|r| &r.location));
        for place in places {
            sources
                .entry(place.file.clone())
                .or_insert_with(|| crate::yaml::read_file(&place.file).ok().map(|text| printable(&text)));
        }
        out.push_str(&one(diagnostic, &sources, &here, &renderer));
        out.push_str("\n\n");
    }
    out
}

/// Control characters could move the cursor of a terminal; each becomes one visible character, so that columns stay.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() && c != '\n' { if c == '\t' { ' ' } else { '\u{fffd}' } } else { c })
        .collect()
}

fn one(
    diagnostic: &Diagnostic,
    sources: &HashMap<PathBuf, Option<String>>,
    here: &Path,
    renderer: &Renderer,
) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let mut group = Group::with_title(level.primary_title(normalize_untrusted_str(&diagnostic.message)));
    let primary = diagnostic.location.iter().map(|location| (location, None, AnnotationKind::Primary));
    let related = diagnostic.related.iter().map(|related| {
        (&related.location, Some(normalize_untrusted_str(&related.label)), AnnotationKind::Context)
    });
    // Places in one file share a snippet, so that they are shown in the order of the file.
    let mut snippets: Vec<(&Path, &str, Snippet<'_, annotate_snippets::Annotation<'_>>)> = Vec::new();
    let mut unreadable = Vec::new();
    for (location, label, kind) in primary.chain(related) {
        let Some(source) = sources.get(&location.file).and_then(Option::as_deref) else {
            unreadable.push(location);
            continue;
        };
        let annotation = kind.span(span(source, location)).label(label);
        match snippets.iter_mut().find(|(file, ..)| *file == location.file) {
            Some((_, _, snippet)) => *snippet = snippet.clone().annotation(annotation),
            None => {
                let path = location.file.strip_prefix(here).unwrap_or(&location.file);
                let snippet =
                    Snippet::source(source).path(path.to_string_lossy().into_owned()).annotation(annotation);
                snippets.push((&location.file, source, snippet));
            }
        }
    }
    group = group.elements(snippets.into_iter().map(|(_, _, snippet)| snippet));
    for location in unreadable {
        group = group.element(Level::NOTE.message(normalize_untrusted_str(&format!("at {location}"))));
    }
    if let Some(hint) = &diagnostic.hint {
        group = group.element(Level::HELP.with_name("hint").message(normalize_untrusted_str(hint)));
    }
    renderer.render(&[group])
}

/// The bytes of the source that a place covers.
fn span(source: &str, location: &Location) -> std::ops::Range<usize> {
    let mut start_of_line = 0;
    for line in source.split_inclusive('\n').take(location.line.saturating_sub(1)) {
        start_of_line += line.len();
    }
    let line = source[start_of_line..].lines().next().unwrap_or_default();
    let byte = |column: usize| line.char_indices().nth(column).map_or(line.len(), |(at, _)| at);
    let first = location.column.saturating_sub(1);
    start_of_line + byte(first)..start_of_line + byte(first.saturating_add(location.length))
}
