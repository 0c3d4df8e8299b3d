#![no_main]
//! Any bytes as a case of an autoscaling decision, and what is read decided on.

use libfuzzer_sys::fuzz_target;
use throng_autoscale::{Case, decide};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(case) = Case::from_json(bytes) {
        let _ = decide(&case);
    }
});
