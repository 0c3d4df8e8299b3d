//! A load as an HdrHistogram interval log, version 1.3, for the tools that read it (HistogramLogAnalyzer,
//! HistogramLogProcessor and others).

use crate::driver::Load;
use crate::error::LoadError;
use crate::summary::histogram_of;
use crate::timeline::MAX_MICROS;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, IntervalLogWriterError, Tag};
use std::io::Write;
use std::time::{Duration, SystemTime};

/// The tag of the line with the whole load.
pub const TOTAL_TAG: &str = "total";

/// Writes one line for each interval (microseconds, two significant digits) and one tagged `total` for the
/// whole load (three). `start` is when the load began.
pub fn write_hdr_log(load: &Load, start: SystemTime, out: &mut impl Write) -> Result<(), LoadError> {
    let failed = |error: IntervalLogWriterError<_>| match error {
        IntervalLogWriterError::IoError(source) => LoadError::Log(source),
        IntervalLogWriterError::SerializeError(source) => LoadError::Histogram(format!("{source:?}").into()),
    };
    let mut serializer = V2DeflateSerializer::new();
    let mut log = IntervalLogWriterBuilder::new()
        .add_comment(&format!("[{} | {}]", load.result.target, load.result.schedule))
        .add_comment("[Latencies are in microseconds, maxima in milliseconds]")
        .with_start_time(start)
        .with_base_time(start)
        .with_max_value_divisor(1_000.0)
        .begin_log_with(out, &mut serializer)
        .map_err(LoadError::Log)?;
    for (number, interval) in load.intervals.iter().enumerate() {
        let mut histogram = Histogram::<u64>::new_with_bounds(1, MAX_MICROS, 2)
            .map_err(|source| LoadError::Histogram(source.into()))?;
        for (value, count) in interval.counts() {
            histogram.saturating_record_n(value, count);
        }
        let begin = load.width.saturating_mul(u32::try_from(number).unwrap_or(u32::MAX));
        log.write_histogram(&histogram, begin, load.width, None).map_err(failed)?;
    }
    let whole = Duration::try_from_secs_f64(load.result.seconds).unwrap_or_default();
    log.write_histogram(&histogram_of(&load.result.latency)?, Duration::ZERO, whole, Tag::new(TOTAL_TAG))
        .map_err(failed)
}
