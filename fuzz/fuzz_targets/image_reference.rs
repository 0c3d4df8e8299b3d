#![no_main]
//! A reference that parses must mean the same when it is written out and read again.

use libfuzzer_sys::fuzz_target;
use throng_image::{familiar, parse_reference};

fuzz_target!(|text: &str| {
    if let Ok(reference) = parse_reference(text) {
        let again = parse_reference(&familiar(&reference)).expect("what is written out can be read");
        assert_eq!(again.whole(), reference.whole());
    }
});
