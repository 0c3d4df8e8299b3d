#![no_main]
//! Any text as YAML with places, and its variables expanded: findings, never a panic or an endless loop.

use libfuzzer_sys::fuzz_target;
use std::path::Path;
use std::sync::Arc;
use throng_compose::interpolate::expand_tree;
use throng_compose::yaml::{Findings, parse};

fuzz_target!(|text: &str| {
    let file: Arc<Path> = Path::new("compose.yaml").into();
    if let Ok(mut tree) = parse(&file, text) {
        let mut findings = Findings::default();
        let lookup = |name: &str| (name.len() % 2 == 0).then(|| name.repeat(2));
        expand_tree(&mut tree, &lookup, &|_, _, _| {}, &mut findings);
        throng_compose::render(&findings.into_vec(), false);
    }
});
