//! Recorded runs: kept as one JSON file each, listed, reported again, compared.

use crate::cli::{CompareArguments, Format, ReportArguments, RunsArguments};
use crate::failure::{Failure, Kind, Result, io};
use crate::project::Context;
use crate::terminal::{table, width};
use std::path::{Path, PathBuf};
use throng_model::run::{Outcome, RUN_VERSION, Run};

/// The most bytes of a record that are read.
const RECORD_MOST: u64 = 1 << 30;

fn record(context: &Context, id: &str) -> PathBuf {
    context.paths.runs().join(id).join("run.json")
}

/// A name for a run that begins now. Names are good for one run a second; a run that follows faster waits.
pub async fn new_id(context: &Context, project: &str) -> String {
    loop {
        let id = format!("{}-{project}", jiff::Timestamp::now().strftime("%Y%m%d-%H%M%S"));
        if !record(context, &id).exists() {
            return id;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// Keeps a run: written beside and renamed, so that a record is whole or not there.
pub fn keep(context: &Context, run: &Run) -> Result<()> {
    let path = record(context, &run.id);
    let failed = |error: std::io::Error| io(format!("keep the run in {}", path.display()), &error);
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(failed)?;
    let temporary = path.with_extension("json.new");
    let text = serde_json::to_vec(run).map_err(|error| failed(error.into()))?;
    std::fs::write(&temporary, text).map_err(failed)?;
    std::fs::rename(&temporary, &path).map_err(failed)
}

fn ids(context: &Context) -> Vec<String> {
    let folders = std::fs::read_dir(context.paths.runs()).into_iter().flatten().flatten();
    let mut ids: Vec<String> = folders
        .filter(|folder| folder.path().join("run.json").exists())
        .filter_map(|folder| folder.file_name().into_string().ok())
        .collect();
    ids.sort();
    ids
}

/// A run by its name, the beginning of its name, `latest`, or the path of a run.json.
fn read(context: &Context, name: &str) -> Result<Run> {
    let path = if name.contains('/') || name.ends_with(".json") {
        let path = PathBuf::from(name);
        let path = if path.is_dir() { path.join("run.json") } else { path };
        if !path.exists() {
            return Err(missing(format!("no run {name}")));
        }
        path
    } else {
        record(context, &find(&ids(context), name)?)
    };
    let damaged = |why: String| Failure::new(Kind::Input, format!("{}: {why}", path.display()));
    let length = std::fs::metadata(&path).map_err(|error| damaged(error.to_string()))?.len();
    if length > RECORD_MOST {
        return Err(damaged(format!("{length} bytes are more than a record may have ({RECORD_MOST})")));
    }
    let text = std::fs::read(&path).map_err(|error| damaged(error.to_string()))?;
    let run: Run = serde_json::from_slice(&text).map_err(|error| damaged(format!("not a run: {error}")))?;
    if run.version > RUN_VERSION {
        let message = format!("written by a newer throng (version {} of records)", run.version);
        return Err(damaged(message).hint("update throng"));
    }
    Ok(run)
}

fn missing(message: String) -> Failure {
    Failure::new(Kind::NotFound, message)
        .hint("see `throng runs`, make one with `throng run`, or name a run.json by its path")
}

fn find(ids: &[String], name: &str) -> Result<String> {
    if name == "latest" {
        return ids.last().cloned().ok_or_else(|| missing("no run has been recorded".into()));
    }
    let matching: Vec<&String> = ids.iter().filter(|id| id.starts_with(name)).collect();
    match matching.as_slice() {
        [one] => Ok((*one).clone()),
        [] => Err(missing(format!("no run {name}"))),
        several if several.iter().any(|id| *id == name) => Ok(name.to_owned()),
        several => Err(missing(format!("{name} could be any of {} runs", several.len()))),
    }
}

pub fn list(context: &Context, arguments: RunsArguments) -> Result<()> {
    let mut rows = Vec::new();
    for id in ids(context) {
        if arguments.quiet {
            outln!("{id}");
            continue;
        }
        // One damaged record must not hide the others.
        let run = match read(context, &id) {
            Ok(run) => run,
            Err(failure) => {
                eprintln!("warning: {}", failure.message);
                continue;
            }
        };
        let outcome = outcome(run.outcome);
        match arguments.format {
            Format::Json => outln!(
                "{}",
                serde_json::json!({
                    "ID": run.id, "Project": run.project, "Title": run.title, "Outcome": outcome,
                    "StartedAt": run.started_at, "Seconds": run.seconds, "Stages": run.stages.len(),
                })
            ),
            Format::Table => {
                rows.push(vec![run.id, outcome.into(), format!("{:.1} s", run.seconds), run.title])
            }
        }
    }
    if arguments.format == Format::Table && !arguments.quiet {
        out!("{}", table(&["RUN", "OUTCOME", "TOOK", "TITLE"], &rows));
    }
    Ok(())
}

pub fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "passed",
        Outcome::Failed => "failed",
        Outcome::Interrupted => "interrupted",
    }
}

pub fn report(context: &Context, arguments: ReportArguments) -> Result<()> {
    let run = read(context, &arguments.run)?;
    let out = arguments.out.unwrap_or_else(|| default_folder(&run.id));
    let written = throng_report::write(&run, &out)?;
    out!("{}", throng_report::summary_text(&run, width()));
    outln!("\nreport: {}", written.report.display());
    Ok(())
}

/// Where reports go unless told otherwise, each into a folder of its run's name.
pub const FOLDER: &str = "throng-report";

pub fn default_folder(id: &str) -> PathBuf {
    Path::new(FOLDER).join(id)
}

pub fn compare(context: &Context, arguments: CompareArguments) -> Result<()> {
    let runs: Vec<Run> = arguments.runs.iter().map(|name| read(context, name)).collect::<Result<_>>()?;
    match arguments.format {
        Format::Json => outln!("{:#}", throng_report::compare_json(&runs)),
        Format::Table => out!("{}", throng_report::compare_text(&runs, width())),
    }
    if let Some(path) = arguments.out {
        let page = throng_report::compare_html(&runs);
        std::fs::write(&path, page).map_err(|error| io(format!("write {}", path.display()), &error))?;
        match arguments.format {
            // Standard output is one value.
            Format::Json => eprintln!("page: {}", path.display()),
            Format::Table => outln!("\npage: {}", path.display()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_found_by_the_beginning_of_their_name() {
        let ids = ["20260101-a".to_owned(), "20260102-a".to_owned(), "20260102-ab".to_owned()];
        assert_eq!(find(&ids, "latest").expect("the last"), "20260102-ab");
        assert_eq!(find(&ids, "20260101").expect("the only one"), "20260101-a");
        assert_eq!(find(&ids, "20260102-a").expect("the exact one"), "20260102-a");
        for name in ["2026", "x"] {
            assert_eq!(find(&ids, name).expect_err(name).kind, Kind::NotFound);
        }
        assert_eq!(find(&[], "latest").expect_err("nothing").kind, Kind::NotFound);
    }
}
