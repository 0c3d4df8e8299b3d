#![no_main]
//! Any text as YAML with places, its variables expanded, and as a whole Compose file: findings, never a panic or an
//! endless loop.

use libfuzzer_sys::fuzz_target;
use std::path::Path;
use std::sync::Arc;
use throng_compose::interpolate::expand_tree;
use throng_compose::yaml::{Findings, parse};
use throng_compose::{LoadOptions, load, render, to_yaml};

fuzz_target!(|text: &str| {
    let file: Arc<Path> = Path::new("compose.yaml").into();
    if let Ok(mut tree) = parse(&file, text) {
        let mut findings = Findings::default();
        let lookup = |name: &str| (name.len() % 2 == 0).then(|| name.repeat(2));
        expand_tree(&mut tree, &lookup, &|_, _, _| {}, &mut findings);
        render(&findings.into_vec(), false);
    }
    let options = LoadOptions {
        files: vec!["-".into()],
        directory: "/a/folder/that/is/not/there".into(),
        input: Some(text.to_owned()),
        ..LoadOptions::default()
    };
    match load(&options) {
        Ok(loaded) => drop(to_yaml(&loaded.app)),
        Err(findings) => drop(render(&findings, false)),
    }
});
