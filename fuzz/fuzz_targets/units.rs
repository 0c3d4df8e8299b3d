#![no_main]
//! Sizes, durations, thresholds and picture sizes out of any text.

use libfuzzer_sys::fuzz_target;
use throng_load::{ImageSpec, SuccessRule, Threshold};
use throng_model::units::{format_duration, parse_bytes, parse_duration};

fuzz_target!(|text: &str| {
    let _ = parse_bytes(text);
    if let Ok(duration) = parse_duration(text) {
        let _ = format_duration(duration);
    }
    let _ = text.parse::<Threshold>();
    let _ = text.parse::<ImageSpec>();
    let _ = text.parse::<SuccessRule>();
});
