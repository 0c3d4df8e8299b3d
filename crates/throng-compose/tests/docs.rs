//! `docs/compose.md` is written from the table of keys, so that it cannot say what the code does not do.

use std::fmt::Write;
use std::path::Path;
use throng_compose::{Key, Status, key_table};

const INTRODUCTION: &str = "\
# The Compose specification, key by key

Every key of the [Compose specification](https://github.com/compose-spec/compose-spec) and what Throng makes of it.
**Honoured**: its value takes effect, or is refused with an error at its file, line and column that says why. **Warned**: it
has no effect, and using it gives a warning at its place. **Refused**: using it is an error, for without it the app would not
be what it was meant to be. Keys that begin with `x-` are left alone; any other key that is not listed here is a warning with
a suggestion. `*` stands for a name or an element of a list.

Replicas are containers, here or on Docker. With `--isolation process` they are not, and of what surrounds them only `ulimits`
and hooks take effect; the supervisor says so when an app comes up. On Docker `dns`, `dns_search` and `dns_opt` are refused.

How replicas are replaced and started again, and what to write under `x-throng` about it, is in [updates.md](updates.md).

This page is made from the table that the reader itself works by:
`THRONG_UPDATE_DOCS=1 cargo test -p throng-compose --test docs`.
";

fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    let count = |status| key_table().iter().filter(|key| key.status == status).count();
    let [honoured, warned, refused] = [Status::Honoured, Status::Warned, Status::Refused].map(count);
    let _ = writeln!(
        page,
        "\n{honoured} keys are honoured, {warned} are warned about (those below another one by its warning), {refused} are \
         refused."
    );
    let mut section = "";
    for key in key_table() {
        let (top, _) = key.path.split_once('.').unwrap_or((key.path, ""));
        if top != section {
            section = top;
            let _ =
                writeln!(page, "\n## `{section}`\n\n| key | | why, or what to do instead |\n|---|---|---|");
        }
        let _ = writeln!(page, "| `{}` | {} | {} |", key.path, word(key), key.reason);
    }
    page
}

fn word(key: &Key) -> String {
    let word = match key.status {
        Status::Honoured => return "honoured".into(),
        Status::Warned => "warned",
        Status::Refused => "refused",
    };
    let accepted: Vec<String> = key.accepted.iter().map(|value| format!("`{value}`")).collect();
    if accepted.is_empty() { word.into() } else { format!("{word}, unless it is {}", accepted.join(" or ")) }
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
