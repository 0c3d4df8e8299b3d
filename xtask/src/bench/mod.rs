//! Measurements side by side with the peers, written to docs/benchmarks.md.
//!
//! Each part leaves a record of what it found in docs/benchmarks/, and the page is made from the records alone, so a
//! run of one part keeps the others' figures and every verdict is computed.

mod balancer;
mod built;
mod children;
mod containers;
mod crowd;
mod crowd_docker;
mod density;
mod docker;
mod load;
mod machine;
mod page;
mod pdfmagic;
mod planning;
mod plot;
mod probe;
mod readings;
mod record;

use crate::packages;
use crate::process::root;
use anyhow::{Context, Result, bail};
use children::{Children, Interrupted};
use record::{FORMAT, Record};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

const USAGE: &str = "\
usage: cargo xtask bench [PART…] [--on docker] [--quick] [--page]

  containers, crowd, density, balancer, load, pdfmagic, planning   the parts; all of them if none is named
  --on docker   with crowd: the same crowd over a Docker daemon, as a part of its own (crowd-on-docker)
  --quick   few and short rounds, written below cargo's target folder instead of docs/
  --page    measure nothing, make the page from the records that are there

Exit code: 0 if every bar of the measured parts is held, 1 if something could not be measured, 2 if a bar is not held.
";

/// Processors count as free while less of them than this is in use.
pub const QUIET: f64 = 0.1;
/// How long the processors are watched to tell how busy they are.
const SAMPLE: Duration = Duration::from_secs(1);

/// A bar that is not held is no failure to measure.
const NOT_HELD: u8 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Containers,
    Crowd,
    CrowdOnDocker,
    Density,
    Balancer,
    Load,
    Pdfmagic,
    Planning,
}

impl Part {
    pub const ALL: [Part; 8] = [
        Part::Containers,
        Part::Crowd,
        Part::CrowdOnDocker,
        Part::Density,
        Part::Balancer,
        Part::Load,
        Part::Pdfmagic,
        Part::Planning,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Part::Containers => "containers",
            Part::Crowd => "crowd",
            Part::CrowdOnDocker => "crowd-on-docker",
            Part::Density => "density",
            Part::Balancer => "balancer",
            Part::Load => "load",
            Part::Pdfmagic => "pdfmagic",
            Part::Planning => "planning",
        }
    }

    fn measure(self, session: &Session) -> Result<Measured> {
        match self {
            Part::Containers => containers::measure(session),
            Part::Crowd => crowd::measure(session),
            Part::CrowdOnDocker => crowd_docker::measure(session),
            Part::Density => density::measure(session),
            Part::Balancer => balancer::measure(session),
            Part::Load => load::measure(session),
            Part::Pdfmagic => pdfmagic::measure(session),
            Part::Planning => planning::measure(session),
        }
    }
}

/// What every part gets.
pub struct Session {
    pub children: Children,
    pub quick: bool,
    /// Removed at the end. Its path is short, because sockets lie below it.
    pub folder: tempfile::TempDir,
    /// Where cargo builds.
    pub target: PathBuf,
}

impl Session {
    /// One size for figures that are published, another for trying out.
    pub fn size(&self, full: usize, quick: usize) -> usize {
        if self.quick { quick } else { full }
    }

    /// Waits until the machine has nothing else to do, for a while, and returns how busy it is: the share of its
    /// processors that is in use.
    pub fn settle(&self) -> Result<f64> {
        let attempts = self.size(60, 1);
        let mut busy = 1.0;
        for _ in 0..attempts {
            let before = machine::ticks();
            self.children.pause(SAMPLE)?;
            busy = machine::busy_between(before, machine::ticks());
            if busy < QUIET {
                break;
            }
        }
        Ok(busy)
    }
}

/// What a part brings to its record.
pub struct Measured {
    pub busy_before: f64,
    pub versions: std::collections::BTreeMap<String, String>,
    pub method: Vec<String>,
    pub comparisons: Vec<record::Comparison>,
}

#[derive(Debug, PartialEq)]
struct Wanted {
    parts: Vec<Part>,
    quick: bool,
}

pub fn run(arguments: &[String]) -> Result<ExitCode> {
    let wanted = parse(arguments)?;
    let target = built::target_folder()?;
    let docs = if wanted.quick { target.join("benchmarks") } else { root().join("docs") };
    let mut failed = false;
    if !wanted.parts.is_empty() {
        // What could not be installed is said there, and again by the part that misses it.
        packages::install(packages::FOR_BENCHMARKS)?;
        let children = Children::watch()?;
        let folder =
            tempfile::Builder::new().prefix("throng-bench-").tempdir().context("cannot make a folder")?;
        let session = Session { children, quick: wanted.quick, folder, target };
        failed = measure(&wanted.parts, &session, &docs)?;
    }
    let records = read_all(&docs)?;
    write_page(&docs, &records)?;
    let measured = records.iter().filter(|(part, _)| wanted.parts.contains(part));
    let held = report(measured.filter_map(|(_, record)| record.as_ref()));
    println!("{}", docs.join("benchmarks.md").display());
    Ok(match (failed, held) {
        (true, _) => ExitCode::FAILURE,
        (false, false) => ExitCode::from(NOT_HELD),
        (false, true) => ExitCode::SUCCESS,
    })
}

fn parse(arguments: &[String]) -> Result<Wanted> {
    let mut wanted = Wanted { parts: Vec::new(), quick: false };
    let mut page = false;
    let mut on_docker = false;
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--on" => match rest.next().map(String::as_str) {
                Some("docker") => on_docker = true,
                Some("local") => on_docker = false,
                other => bail!("--on takes docker or local, not {other:?}\n\n{USAGE}"),
            },
            "--quick" => wanted.quick = true,
            "--page" => page = true,
            name => match Part::ALL.into_iter().find(|part| part.name() == name) {
                Some(part) if !wanted.parts.contains(&part) => wanted.parts.push(part),
                Some(_) => {}
                None => bail!("no part or option {name:?}\n\n{USAGE}"),
            },
        }
    }
    if on_docker {
        if wanted.parts != [Part::Crowd] {
            bail!("--on docker is for crowd alone\n\n{USAGE}");
        }
        wanted.parts = vec![Part::CrowdOnDocker];
    }
    match (page, wanted.parts.is_empty()) {
        (true, false) => bail!("--page measures nothing, so it takes no part\n\n{USAGE}"),
        (false, true) => wanted.parts = Part::ALL.to_vec(),
        _ => {}
    }
    Ok(wanted)
}

/// Measures the parts one after another and keeps each one's record. True if one could not be measured.
fn measure(parts: &[Part], session: &Session, docs: &Path) -> Result<bool> {
    let mut failed = false;
    for part in parts {
        eprintln!("== {}", part.name());
        match part.measure(session) {
            Ok(Measured { busy_before, versions, method, comparisons }) => {
                let (quick, machine) = (session.quick, machine::describe());
                let record =
                    Record { format: FORMAT, quick, machine, busy_before, versions, method, comparisons };
                write_record(docs, *part, &record)?;
            }
            Err(error) if error.is::<Interrupted>() => return Err(error),
            Err(error) => {
                eprintln!("NOT MEASURED {}: {error:#}", part.name());
                failed = true;
            }
        }
    }
    Ok(failed)
}

fn record_path(docs: &Path, part: Part) -> PathBuf {
    docs.join("benchmarks").join(format!("{}.json", part.name()))
}

fn write_record(docs: &Path, part: Part, record: &Record) -> Result<()> {
    write(&record_path(docs, part), &(serde_json::to_string_pretty(record)? + "\n"))
}

fn write(path: &Path, text: &str) -> Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Every part with its record, if it has one.
fn read_all(docs: &Path) -> Result<Vec<(Part, Option<Record>)>> {
    let read = |part: Part| {
        let path = record_path(docs, part);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((part, None)),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let record: Record =
            serde_json::from_str(&text).with_context(|| format!("{} is no record", path.display()))?;
        if record.format != FORMAT {
            bail!("{} has format {}, not {FORMAT}; measure this part again", path.display(), record.format);
        }
        Ok((part, Some(record)))
    };
    Part::ALL.into_iter().map(read).collect()
}

fn write_page(docs: &Path, records: &[(Part, Option<Record>)]) -> Result<()> {
    write(&docs.join("benchmarks.md"), &page::page(records))?;
    remove_plots(&docs.join("benchmarks"))?;
    for (part, record) in records {
        for comparison in record.iter().flat_map(|record| &record.comparisons) {
            write(&docs.join(page::plot_path(*part, comparison)), &plot::plot(comparison))?;
        }
    }
    Ok(())
}

/// Removes all plots, those of figures that are not taken any more among them.
fn remove_plots(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path = entry.with_context(|| format!("cannot list {}", folder.display()))?.path();
        if path.extension().is_some_and(|extension| extension == "svg") {
            std::fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}

/// Says what was found of each bar. True if all are held.
fn report<'a>(records: impl Iterator<Item = &'a Record>) -> bool {
    let mut all = true;
    for comparison in records.flat_map(|record| &record.comparisons).filter(|c| c.bar.is_some()) {
        all &= comparison.held() == Some(true);
        println!("{:>12}  {}: {}", page::verdict(comparison), comparison.title, page::measured(comparison));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn arguments_name_parts_and_options() {
        let parsed = |text: &str| parse(&words(text)).ok().map(|wanted| (wanted.parts, wanted.quick));
        assert_eq!(parsed(""), Some((Part::ALL.to_vec(), false)));
        assert_eq!(parsed("load --quick load"), Some((vec![Part::Load], true)));
        assert_eq!(parsed("pdfmagic balancer"), Some((vec![Part::Pdfmagic, Part::Balancer], false)));
        assert_eq!(parsed("crowd --on docker"), Some((vec![Part::CrowdOnDocker], false)));
        assert_eq!(parsed("--on local crowd"), Some((vec![Part::Crowd], false)));
        for wrong in ["--on docker", "load --on docker", "crowd --on", "crowd --on moon"] {
            assert_eq!(parsed(wrong), None, "{wrong}");
        }
        assert_eq!(parsed("--page"), Some((vec![], false)));
        assert_eq!(parsed("--page load"), None);
        assert_eq!(parsed("everything"), None);
        assert_eq!(parsed("--fast"), None);
    }

    #[test]
    fn a_record_of_another_format_is_refused() {
        let docs = tempfile::tempdir().expect("a folder");
        let path = record_path(docs.path(), Part::Load);
        assert!(read_all(docs.path()).expect("none is fine").iter().all(|(_, record)| record.is_none()));
        let text = r#"{"format":0,"quick":false,"machine":{"cpu":"","cores":1,"memory_bytes":0,"kernel":"",
            "distribution":""},"busy_before":0.0,"versions":{},"method":[],"comparisons":[]}"#;
        write(&path, text).expect("written");
        let error = read_all(docs.path()).expect_err("another format");
        assert!(error.to_string().contains("format 0"), "{error}");
        write(&path, "{").expect("written");
        assert!(read_all(docs.path()).expect_err("no JSON").to_string().contains("no record"));
    }

    /// Nobody edits the page by hand, and no figure in it lacks its record.
    #[test]
    fn the_published_page_is_what_its_records_say() {
        let docs = root().join("docs");
        let Ok(published) = std::fs::read_to_string(docs.join("benchmarks.md")) else {
            assert!(std::env::var_os("THRONG_REQUIRE_ALL").is_none(), "docs/benchmarks.md is missing");
            eprintln!(
                "SKIPPED the_published_page_is_what_its_records_say: docs/benchmarks.md is not written yet"
            );
            return;
        };
        let records = read_all(&docs).expect("the records are sound");
        assert_eq!(published, page::page(&records), "make it again: cargo xtask bench --page");
        for (part, record) in &records {
            for comparison in record.iter().flat_map(|record| &record.comparisons) {
                let path = docs.join(page::plot_path(*part, comparison));
                assert_eq!(std::fs::read_to_string(path).ok(), Some(plot::plot(comparison)));
            }
        }
    }
}
