#![no_main]
//! Any text as a Dockerfile.

use libfuzzer_sys::fuzz_target;
use std::path::Path;

fuzz_target!(|text: &str| {
    let _ = throng_image::dockerfile::parse(text, Path::new("Dockerfile"));
});
