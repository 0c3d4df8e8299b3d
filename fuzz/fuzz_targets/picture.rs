#![no_main]
//! Any bytes as a picture: a PDF or a refusal, in bounded memory.

use libfuzzer_sys::fuzz_target;
use pdfmagic::convert::{Limits, convert};

fuzz_target!(|bytes: &[u8]| {
    let _ = convert(bytes, &Limits { max_pixels: 1 << 20, ..Limits::default() });
});
