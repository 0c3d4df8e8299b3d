//! `docs/walls.md` is written from the table of walls, so that it cannot say what the code does not know.

use std::fmt::Write;
use std::path::Path;
use throng_walls::table;

const INTRODUCTION: &str = "\
# The walls of one Linux host

What stops a crowd of containers on one machine, what one sees of it, and what moves it. `throng doctor --replicas N`
sets each of these against the host at hand and says which comes first; it changes nothing without `--fix`.

This page is made from the table that the checks work by: `THRONG_UPDATE_DOCS=1 cargo test -p throng-walls --test docs`.
";

fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    let silent = table().iter().filter(|row| !row.silent.is_empty()).count();
    let _ = writeln!(page, "\n{} walls, {silent} of which print nothing at all.", table().len());
    let _ = writeln!(page, "\n| wall | limit |\n|---|---|");
    for row in table() {
        let _ = writeln!(page, "| [{}](#{}) | {} |", row.title, row.name, row.limit);
    }
    for row in table() {
        let _ = writeln!(page, "\n## {}\n", row.name);
        paragraph(&mut page, "Limit", &sentence(row.limit));
        paragraph(&mut page, "Why", &sentence(row.why));
        if row.silent.is_empty() {
            let _ = writeln!(page, "**What one sees.**\n\n```text\n{}\n```\n", row.seen.join("\n"));
        } else {
            paragraph(&mut page, "What one sees", &format!("No error: {}.", row.silent));
        }
        paragraph(&mut page, "Here", &sentence(row.here));
        paragraph(&mut page, "What moves it", &sentence(row.moves));
        paragraph(&mut page, "Reference", &format!("{}.", row.reference));
        // One empty line between sections, none at the end.
        page.pop();
    }
    page
}

/// In lines of at most 120 columns.
fn paragraph(page: &mut String, label: &str, text: &str) {
    let mut line = format!("**{label}.**");
    for word in text.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > 120 {
            let _ = writeln!(page, "{line}");
            line = word.into();
        } else {
            let _ = write!(line, " {word}");
        }
    }
    let _ = writeln!(page, "{line}\n");
}

/// With a capital letter and a full stop.
fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let text: String =
        letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect());
    text + "."
}

#[test]
fn the_page_says_what_the_table_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/walls.md");
    let page = page();
    if std::env::var_os("THRONG_UPDATE_DOCS").is_some() {
        std::fs::write(&path, &page).expect("docs/walls.md is written");
    }
    let written = std::fs::read_to_string(&path).expect("docs/walls.md is there");
    assert!(
        written == page,
        "docs/walls.md is out of date: THRONG_UPDATE_DOCS=1 cargo test -p throng-walls --test docs"
    );
}
