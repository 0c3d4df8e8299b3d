#![no_main]
//! Any bytes as a trace of demand: a demand or an error with its line, never a panic.

use libfuzzer_sys::fuzz_target;
use throng_autoscale::simulate::trace::{self, TraceOptions};

fuzz_target!(|bytes: &[u8]| {
    let _ = trace::read(bytes, &TraceOptions::default());
});
