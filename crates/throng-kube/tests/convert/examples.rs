//! The examples of this repository can all be taken to a cluster.

use crate::common::{converted, lines};
use crate::properties::check;
use std::path::Path;
use throng_compose::{LoadOptions, load};
use throng_kube::{Format, Options, stream};

#[test]
fn examples_are_converted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap();
    for name in ["crowd", "edge", "pdfmagic", "pdfmagic/autoscaled"] {
        let directory = root.join("examples").join(name);
        let loaded = load(&LoadOptions { directory: directory.clone(), ..LoadOptions::default() }).unwrap();
        let one =
            converted(&loaded, &Options::default()).unwrap_or_else(|e| panic!("{name}: {}", lines(&e, "")));
        check(&one, &[]).unwrap_or_else(|wrong| panic!("{name}: {wrong}"));
        let place = directory.to_string_lossy().into_owned();
        let text = format!("{}\n{}\n", lines(&one.warnings, &place), stream(&one.objects, Format::Yaml))
            .replace(&place, "/shop");
        insta::with_settings!({ snapshot_path => "../snapshots", prepend_module_to_snapshot => false, omit_expression => true }, {
            insta::assert_snapshot!(format!("example-{}", name.replace('/', "-")), text);
        });
    }
}
