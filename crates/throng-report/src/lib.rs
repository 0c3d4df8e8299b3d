//! A recorded run as one HTML file, JSON and CSV; runs side by side; the tables that a terminal shows.
//!
//! What is plotted is taken out of the run once (`data`) and then drawn, tabled and written to CSV, so that the
//! three cannot differ. This crate knows nothing of services, load or processes, and no text of a run is trusted.

mod chart;
mod compare;
mod data;
mod distribution;
mod figure;
mod figures;
mod files;
mod learn;
mod page;
mod quantity;
mod repetitions;
mod report;
mod resources;
mod scale;
mod svg;
mod tables;
mod terminal;
mod time_page;
mod usage;

use std::path::Path;
use throng_model::run::Run;

pub use files::{ReportError, Written};
pub use time_page::{Happening, MAX_THINGS, PlotUnit, Thing, TimePage, TimePlot, TimeSeries};

/// The report of a run: one HTML file that needs no network and no other file.
pub fn html(run: &Run) -> String {
    report::html(run)
}

/// Runs side by side: the same charts with the runs as series, and a table of their differences. The first run is
/// the one that the others are compared with.
pub fn compare_html(runs: &[Run]) -> String {
    compare::html(runs)
}

/// The differences of runs as a table for a terminal that is `width` columns wide.
pub fn compare_text(runs: &[Run], width: usize) -> String {
    compare::text(runs, width)
}

/// The same differences for programs: the runs, and for each load stage its figures in each run (latencies in
/// microseconds, medians of repetitions with their range; `null` where a run has no such stage).
pub fn compare_json(runs: &[Run]) -> serde_json::Value {
    compare::json(runs)
}

/// Writes `report.html`, `run.json`, the CSV files of everything plotted and `latencies.hlog` into the folder, which
/// is made if it is missing. Either all files of the new report are there at the end or, on an error while they are
/// prepared, none of them has been touched; each is replaced in one step.
pub fn write(run: &Run, out: &Path) -> Result<Written, ReportError> {
    files::write(run, out)
}

/// What `throng run` prints at its end, at most `width` columns wide: load stages, thresholds, what was learnt.
pub fn summary_text(run: &Run, width: usize) -> String {
    tables::summary(run, width, terminal::Border::None)
}

/// As [`summary_text`], with lines drawn around the table in Unicode's box characters.
pub fn summary_text_boxed(run: &Run, width: usize) -> String {
    tables::summary(run, width, terminal::Border::Box)
}

/// At most three plain sentences about what was learnt, computed from the figures and claiming no more than they show.
pub fn learn(run: &Run) -> Vec<String> {
    learn::learn(run)
}

/// Several things over one time axis as one HTML file, for what is no recorded run: it looks as a report does.
pub fn time_html(page: &TimePage) -> String {
    time_page::html(page)
}

/// The figures and lessons of such a page for a terminal that is `width` columns wide.
pub fn time_text(page: &TimePage, width: usize) -> String {
    time_page::text(page, width)
}

/// Writes files into a folder, which is made if it is missing: all of them are prepared before the first one takes its
/// place, as with [`write()`]. The last one is the page to open.
pub fn write_files(out: &Path, files: Vec<(&str, Vec<u8>)>) -> Result<Written, ReportError> {
    files::put(out, files.into_iter().map(|(name, content)| (name, Ok(content))).collect())
}
