//! `docs/compose.md` is written from the table of keys, so that it cannot say what the code does not do.

use std::fmt::Write;
use std::path::Path;
use throng_compose::{Key, Status, key_table};

const INTRODUCTION: &str = "\
# The Compose specification, key by key

Every key of the [Compose specification](https://github.com/compose-spec/compose-spec) and what Throng makes of it.
**Honoured**: its value takes effect, or is refused with an error at its file, line and column. **Warned**: it has no effect
yet, and using it gives a warning at its place. Keys that begin with `x-` are left alone; any other key that is not listed
here is an error or a warning with a suggestion. `*` stands for a name or an element of a list.

This page is made from the table that the reader itself works by:
`THRONG_UPDATE_DOCS=1 cargo test -p throng-compose --test docs`.
";

fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    let count = |status| key_table().iter().filter(|key| key.status == status).count();
    let honoured = count(Status::Honoured);
    let _ = writeln!(page, "\n{honoured} keys are honoured, {} are warned about.", count(Status::Warned));
    let mut section = "";
    for key in key_table() {
        let (top, _) = key.path.split_once('.').unwrap_or((key.path, ""));
        if top != section {
            section = top;
            let _ = writeln!(page, "\n## `{section}`\n\n| key | |\n|---|---|");
        }
        let _ = writeln!(page, "| `{}` | {} |", key.path, word(key));
    }
    page
}

fn word(key: &Key) -> String {
    match (key.status, key.accepted) {
        (Status::Honoured, _) => "honoured".into(),
        (Status::Warned, None) => "warned".into(),
        (Status::Warned, Some(value)) => format!("warned, unless it is `{value}`"),
    }
}

#[test]
fn the_page_says_what_the_table_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/compose.md");
    let page = page();
    if std::env::var_os("THRONG_UPDATE_DOCS").is_some() {
        std::fs::write(&path, &page).expect("docs/compose.md is written");
    }
    let written = std::fs::read_to_string(&path).expect("docs/compose.md is there");
    assert!(
        written == page,
        "docs/compose.md is out of date: THRONG_UPDATE_DOCS=1 cargo test -p throng-compose --test docs"
    );
}
