//! Compose files of `tests/cases` and what becomes of each, findings first. `INSTA_UPDATE=always` writes them anew.

use crate::common::{converted, lines, loaded};
use crate::properties::check;
use std::path::Path;
use throng_kube::{Format, Options, stream};

#[test]
fn cases_become_what_their_snapshots_say() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() >= 12, "{} cases", paths.len());
    for path in paths {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let loaded = loaded(&std::fs::read_to_string(&path).unwrap())
            .unwrap_or_else(|findings| panic!("{name}: {}", lines(&findings, "")));
        let place = loaded.app.directory.to_string_lossy().into_owned();
        let one = converted(&loaded, &Options::default())
            .unwrap_or_else(|findings| panic!("{name}: {}", lines(&findings, &place)));
        let text = format!("{}\n\n{}", lines(&one.warnings, &place), stream(&one.objects, Format::Yaml))
            .replace(&place, "/shop");
        insta::with_settings!({ snapshot_path => "../snapshots", prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(name.clone(), text);
        });
        check(&one, &["certs"]).unwrap_or_else(|wrong| panic!("{name}: {wrong}"));
    }
}
