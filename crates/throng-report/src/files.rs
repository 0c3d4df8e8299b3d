//! The report as files in a folder.

use crate::data::{Data, Metric};
use crate::usage::{QUANTILE_NAMES, Series};
use serde::Serialize;
use std::borrow::Cow;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use throng_model::run::Run;

/// What [`write`] made, in the order in which the files appeared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The page to open.
    pub report: PathBuf,
    pub files: Vec<PathBuf>,
    /// Bytes of all files together.
    pub bytes: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    #[error("cannot write {}", path.display())]
    Write { path: PathBuf, source: std::io::Error },
    #[error("cannot make the folder {}", path.display())]
    Folder { path: PathBuf, source: std::io::Error },
    #[error("cannot put {} into words", path.display())]
    Serialize { path: PathBuf, source: Box<dyn std::error::Error + Send + Sync> },
}

impl ReportError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            ReportError::Write { .. } => "free some space, or choose another folder with --out",
            ReportError::Folder { .. } => "choose a folder that you may write to with --out",
            ReportError::Serialize { .. } => "the run's record is damaged; `throng runs` lists the others",
        }
    }
}

pub type Content = Result<Vec<u8>, Box<dyn std::error::Error + Send + Sync>>;

pub fn write(run: &Run, out: &Path) -> Result<Written, ReportError> {
    let data = Data::of(run);
    let contents: Vec<(&str, Content)> = vec![
        ("run.json", json(run)),
        ("stages.csv", stages(&data)),
        ("repetitions.csv", repetitions(&data)),
        ("latency_percentiles.csv", percentiles(&data)),
        ("latency_distribution.csv", distribution(&data)),
        ("timeline.csv", timeline(&data)),
        ("replica_counts.csv", replica_counts(&data)),
        ("replicas_wanted.csv", replicas_wanted(&data)),
        ("balance.csv", balance(&data)),
        ("replicas.csv", replicas(&data)),
        ("resources.csv", resources(&data)),
        ("events.csv", events(run)),
        ("thresholds.csv", thresholds(run)),
        ("latencies.hlog", Ok(hlog(&data).into_bytes())),
        // Last, so that whoever finds the page finds its data too.
        ("report.html", Ok(crate::html(run).into_bytes())),
    ];
    put(out, contents)
}

/// The last of the files is the page to open.
pub fn put(out: &Path, contents: Vec<(&str, Content)>) -> Result<Written, ReportError> {
    std::fs::create_dir_all(out).map_err(|source| ReportError::Folder { path: out.into(), source })?;
    // All are written in full before the first one takes its place.
    let mut ready = Vec::with_capacity(contents.len());
    let mut bytes = 0;
    for (name, content) in contents {
        let path = out.join(name);
        let content = content.map_err(|source| ReportError::Serialize { path: path.clone(), source })?;
        bytes += content.len() as u64;
        let file =
            prepared(out, &content).map_err(|source| ReportError::Write { path: path.clone(), source })?;
        ready.push((path, file));
    }
    let mut files = Vec::with_capacity(ready.len());
    for (path, file) in ready {
        file.persist(&path).map_err(|e| ReportError::Write { path: path.clone(), source: e.error })?;
        files.push(path);
    }
    Ok(Written { report: files.last().cloned().unwrap_or_default(), files, bytes })
}

fn prepared(folder: &Path, content: &[u8]) -> std::io::Result<tempfile::NamedTempFile> {
    // Readable by everyone, as a report is made to be shown; a temporary file is its owner's alone by default.
    let readable = std::fs::Permissions::from_mode(0o644);
    let mut file = tempfile::Builder::new().prefix(".report-").permissions(readable).tempfile_in(folder)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    Ok(file)
}

/// JSON has no word for what is not a finite number, so that such figures would not read back: scalars become 0,
/// points and samples are left out.
fn json(run: &Run) -> Content {
    Ok(serde_json::to_vec(finite(run).as_ref())?)
}

fn finite(run: &Run) -> Cow<'_, Run> {
    let load_fine = |l: &throng_model::run::LoadResult| {
        [l.begin, l.seconds, l.rate, l.latency.mean, l.latency.stdev].iter().all(|v| v.is_finite())
            && l.timeline.iter().all(|p| p.at.is_finite() && p.width.is_finite())
            && l.demand.is_none_or(|d| d.rate.is_finite() && d.seconds.is_finite())
    };
    let fine = run.seconds.is_finite()
        && run.events.iter().all(|e| e.at.is_finite())
        && run.replica_counts.values().flatten().all(|(at, _)| at.is_finite())
        && run.replicas_wanted.values().flatten().all(|(at, _)| at.is_finite())
        && run
            .replicas
            .iter()
            .all(|r| r.samples.iter().all(sample_fine) && r.cpu_limit.is_none_or(f64::is_finite))
        && run
            .stages
            .iter()
            .all(|s| s.begin.is_finite() && s.end.is_finite() && s.loads.iter().all(load_fine));
    if fine {
        return Cow::Borrowed(run);
    }
    let mut run = run.clone();
    let mend = |value: &mut f64| *value = if value.is_finite() { *value } else { 0.0 };
    mend(&mut run.seconds);
    run.events.iter_mut().for_each(|event| mend(&mut event.at));
    run.replica_counts.values_mut().for_each(|points| points.retain(|(at, _)| at.is_finite()));
    run.replicas_wanted.values_mut().for_each(|points| points.retain(|(at, _)| at.is_finite()));
    for replica in &mut run.replicas {
        replica.samples.retain(sample_fine);
        replica.cpu_limit = replica.cpu_limit.filter(|limit| limit.is_finite());
    }
    for stage in &mut run.stages {
        mend(&mut stage.begin);
        mend(&mut stage.end);
        for load in &mut stage.loads {
            let latency = &mut load.latency;
            [&mut load.begin, &mut load.seconds, &mut load.rate, &mut latency.mean, &mut latency.stdev]
                .into_iter()
                .for_each(mend);
            load.timeline.retain(|p| p.at.is_finite() && p.width.is_finite());
        }
    }
    Cow::Owned(run)
}

fn sample_fine(sample: &throng_model::run::Sample) -> bool {
    [sample.at, sample.cpu, sample.received, sample.sent].iter().all(|v| v.is_finite())
}

/// A CSV file: the header is written even if there are no rows.
fn csv<R: Serialize>(head: &[&str], rows: impl IntoIterator<Item = R>) -> Content {
    let mut writer = csv::WriterBuilder::new().has_headers(false).from_writer(Vec::new());
    writer.write_record(head)?;
    for row in rows {
        writer.serialize(row)?;
    }
    Ok(writer.into_inner().map_err(|e| e.into_error())?)
}

fn stages(data: &Data) -> Content {
    const METRICS: [(Metric, &str); 8] = [
        (Metric::Rate, "answers_per_second"),
        (Metric::Mean, "mean_us"),
        (Metric::P50, "p50_us"),
        (Metric::P95, "p95_us"),
        (Metric::P99, "p99_us"),
        (Metric::P999, "p99.9_us"),
        (Metric::Max, "max_us"),
        (Metric::Errors, "failed_share"),
    ];
    let rows = data.loads.iter().flat_map(|load| {
        METRICS.into_iter().filter_map(move |(metric, name)| {
            let s = load.spread(metric)?;
            Some((
                &load.stage.name,
                load.clients,
                load.replicas(),
                name,
                s.middle,
                s.low,
                s.high,
                s.repetitions,
            ))
        })
    });
    csv(&["stage", "clients", "replicas", "figure", "median", "lowest", "highest", "repetitions"], rows)
}

fn repetitions(data: &Data) -> Content {
    let rows = data.loads.iter().flat_map(|load| {
        load.repetitions.iter().enumerate().map(move |(i, r)| {
            let figure = |metric| r.metric(metric);
            let (rate, p50, p95) = (figure(Metric::Rate), figure(Metric::P50), figure(Metric::P95));
            (&load.stage.name, i + 1, r.result.requests, r.failed(), rate, p50, p95)
        })
    });
    csv(&["stage", "repetition", "requests", "failed", "answers_per_second", "p50_us", "p95_us"], rows)
}

fn percentiles(data: &Data) -> Content {
    let rows = data.loads.iter().flat_map(|load| {
        let single = load.repetitions.iter().enumerate().map(|(i, r)| ((i + 1).to_string(), &r.latency));
        let all = std::iter::once(("all".to_string(), &load.pooled));
        all.chain(single.filter(|_| load.repetitions.len() > 1)).flat_map(
            move |(repetition, distribution)| {
                distribution.curve().into_iter().map(move |p| {
                    (&load.stage.name, repetition.clone(), p.percentile * 100.0, p.latency, p.supported)
                })
            },
        )
    });
    csv(&["stage", "repetition", "percentile", "latency_us", "supported"], rows)
}

fn distribution(data: &Data) -> Content {
    let (_, edges) = crate::distribution::shared_bins(data.loads.iter().map(|l| &l.pooled));
    let rows = data.loads.iter().filter(|l| !l.pooled.is_empty()).flat_map(|load| {
        load.pooled.bins(&edges).into_iter().map(|b| (&load.stage.name, b.from, b.to, b.count, b.share))
    });
    csv(&["stage", "from_us", "to_us", "answers", "share"], rows)
}

fn timeline(data: &Data) -> Content {
    let rows = data.loads.iter().flat_map(|load| {
        load.repetitions.iter().enumerate().flat_map(move |(i, r)| {
            r.timeline.iter().map(move |p| {
                let (p50, p95, max) =
                    p.latency.map_or((None, None, None), |l| (Some(l.0), Some(l.1), Some(l.2)));
                (&load.stage.name, i + 1, p.at, p.rate, p.errors, p50, p95, max)
            })
        })
    });
    let head = [
        "stage",
        "repetition",
        "at_seconds",
        "answers_per_second",
        "failures_per_second",
        "p50_us",
        "p95_us",
        "max_us",
    ];
    csv(&head, rows)
}

fn replica_counts(data: &Data) -> Content {
    let rows =
        data.counts.iter().flat_map(|c| c.points.iter().map(move |(at, count)| (c.service, at, count)));
    csv(&["service", "at_seconds", "replicas"], rows)
}

fn replicas_wanted(data: &Data) -> Content {
    let rows =
        data.counts.iter().flat_map(|c| c.wanted.iter().map(move |(at, count)| (c.service, at, count)));
    csv(&["service", "at_seconds", "replicas"], rows)
}

fn balance(data: &Data) -> Content {
    let rows = data.loads.iter().flat_map(|load| {
        let answers = load.by_replica();
        let total: f64 = answers.values().map(|n| *n as f64).sum();
        answers.into_iter().map(move |(replica, n)| (&load.stage.name, replica, n, n as f64 / total.max(1.0)))
    });
    csv(&["stage", "replica", "answers", "share"], rows)
}

fn replicas(data: &Data) -> Content {
    let rows = data.uses.iter().flat_map(|using| &using.totals).map(|t| {
        (t.service, t.name, t.samples, t.cpu_mean, t.cpu_max, t.memory_mean, t.memory_max, t.answers)
    });
    let head = [
        "service",
        "replica",
        "samples",
        "cpu_mean_cores",
        "cpu_max_cores",
        "memory_mean_bytes",
        "memory_max_bytes",
        "answers",
    ];
    csv(&head, rows)
}

/// One row for each replica and moment; quantiles across replicas where those are what is drawn.
fn resources(data: &Data) -> Content {
    let rows = data.uses.iter().flat_map(|using| -> Vec<(&str, &str, f64, f64, f64)> {
        match &using.series {
            Series::Single(lines) => lines
                .iter()
                .flat_map(|(name, points)| {
                    points.iter().map(|u| (using.service, *name, u.at, u.cpu, u.memory))
                })
                .collect(),
            Series::Bands(bands) => bands
                .iter()
                .flat_map(|b| {
                    let names = QUANTILE_NAMES.iter().enumerate();
                    names.map(|(i, name)| (using.service, *name, b.at, b.cpu[i], b.memory[i]))
                })
                .collect(),
        }
    });
    csv(&["service", "replica_or_quantile", "at_seconds", "cpu_cores", "memory_bytes"], rows)
}

fn events(run: &Run) -> Content {
    let rows = run.events.iter().map(|e| (crate::data::time(e.at), &e.kind, &e.subject, &e.message));
    csv(&["at_seconds", "kind", "subject", "message"], rows)
}

fn thresholds(run: &Run) -> Content {
    let rows = run
        .stages
        .iter()
        .flat_map(|s| s.thresholds.iter().map(move |t| (&s.name, &t.expression, &t.measured, t.held)));
    csv(&["stage", "wanted", "measured", "held"], rows)
}

/// The histogram log of HdrHistogram, version 1.3, one interval for each repetition of each load.
///
/// Format: the class HistogramLogWriter of <https://github.com/HdrHistogram/HdrHistogram>.
fn hlog(data: &Data) -> String {
    let mut out = String::from("#[Histogram log format version 1.3]\n");
    if let Ok(at) = data.run.started_at.parse::<jiff::Timestamp>() {
        let epoch = at.as_millisecond() as f64 / 1e3;
        out.push_str(&format!("#[StartTime: {epoch:.3} (seconds since epoch), {at}]\n"));
    }
    out.push_str(
        "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"\n",
    );
    for load in &data.loads {
        // A tag ends at a comma or white space.
        let tag: String = load
            .stage
            .name
            .chars()
            .map(|c| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '_' })
            .collect();
        for repetition in &load.repetitions {
            let hdr = repetition.result.latency.hdr.as_str();
            let base64 = hdr.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b));
            let (begin, length) = (repetition.result.begin, repetition.result.seconds);
            if hdr.is_empty() || !base64 || !begin.is_finite() || !length.is_finite() {
                continue;
            }
            // The largest value in milliseconds, as the histograms count microseconds.
            let max = repetition.metric(Metric::Max).unwrap_or(0.0) / 1e3;
            out.push_str(&format!("Tag={tag},{begin:.3},{length:.3},{max:.3},{hdr}\n"));
        }
    }
    out
}
