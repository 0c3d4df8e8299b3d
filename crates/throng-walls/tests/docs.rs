//! `docs/walls.md` is written from the table of walls, so that it cannot say what the code does not know.

use std::fmt::Write;
use std::path::Path;
use throng_walls::table;

const INTRODUCTION: &str = "\
# The walls of one Linux host

What stops a crowd of containers on one machine, what one sees of it, and what moves it. `throng doctor --replicas N` sets
each of these against the host at hand and says which comes first; it changes nothing without `--fix`. Errors of the
engine are looked up here too.

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
        let _ = writeln!(page, "**Limit.** {}.\n\n**Why.** {}.\n", capital(row.limit), capital(row.why));
        if row.silent.is_empty() {
            let _ = writeln!(page, "**What one sees.**\n\n```text\n{}\n```\n", row.seen.join("\n"));
        } else {
            let _ = writeln!(page, "**What one sees.** No error: {}.\n", row.silent);
        }
        let _ = writeln!(
            page,
            "**Here.** {}.\n\n**What moves it.** {}.\n",
            capital(row.here),
            capital(row.moves)
        );
        let _ = writeln!(page, "**Reference.** {}.", row.reference);
    }
    page
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
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
