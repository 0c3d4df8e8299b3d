//! The files beside the page: they hold what is drawn, read back, and appear all or not at all.

mod sample;

use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use sample::{CLASSIC, Shape, classic, crowd};
use std::path::Path;
use throng_model::run::*;

fn rows(folder: &Path, name: &str) -> Vec<csv::StringRecord> {
    let mut reader = csv::Reader::from_path(folder.join(name)).expect(name);
    reader.records().map(|row| row.expect(name)).collect()
}

/// Places from 0 to 1, then what they say.
type Reading = (f64, f64, String, String);

/// The read-out of a chart: for each series its name and its (x, y) places and texts.
fn drawn(html: &str, chart: &str) -> Vec<(String, Vec<Reading>)> {
    let open = format!("data-for=\"{chart}\">");
    let start = html.find(&open).unwrap_or_else(|| panic!("no {chart}")) + open.len();
    let end = html[start..].find("</script>").expect("an end") + start;
    let value: serde_json::Value = serde_json::from_str(&html[start..end]).expect("JSON");
    let text = |v: &serde_json::Value| v.as_str().expect("a text").to_string();
    let point = |p: &serde_json::Value| {
        (p[0].as_f64().expect("x"), p[1].as_f64().expect("y"), text(&p[2]), text(&p[3]))
    };
    let series = value["series"].as_array().expect("series");
    series
        .iter()
        .map(|s| (text(&s["name"]), s["points"].as_array().expect("points").iter().map(point).collect()))
        .collect()
}

/// Whether the texts of a series say these numbers, to their three digits.
fn same(texts: &[String], numbers: &[f64], factor: f64) {
    assert_eq!(texts.len(), numbers.len());
    for (text, number) in texts.iter().zip(numbers) {
        let (figure, unit) = text.split_once([' ', '/']).unwrap_or((text, ""));
        let unit = match unit {
            "µs" => 1.0,
            "ms" => 1e3,
            "KiB" => 1024.0,
            "MiB" => 1024.0 * 1024.0,
            "s" if factor > 1.0 => 1e6,
            _ => 1.0,
        };
        let said = figure.replace(',', "").parse::<f64>().expect("a figure") * unit;
        assert!((said - number).abs() <= number.abs() * 0.006 + 1e-4, "{text} is not {number}");
    }
}

#[test]
fn csv_files_hold_what_is_drawn() {
    const MICROS: f64 = 2.0;
    let folder = tempfile::tempdir().expect("a folder");
    let run = classic(CLASSIC);
    throng_report::write(&run, folder.path()).expect("a report");
    let html = std::fs::read_to_string(folder.path().join("report.html")).expect("a page");
    let number = |row: &csv::StringRecord, column: usize| row[column].parse::<f64>().expect("a number");

    let timeline = rows(folder.path(), "timeline.csv");
    for (name, column) in [("median", 5), ("95 %", 6), ("slowest", 7)] {
        let texts: Vec<String> = drawn(&html, "latency-time")
            .into_iter()
            .filter(|s| s.0 == name)
            .flat_map(|s| s.1)
            .map(|p| p.3)
            .collect();
        let numbers: Vec<f64> =
            timeline.iter().filter(|r| !r[column].is_empty()).map(|r| number(r, column)).collect();
        same(&texts, &numbers, MICROS);
    }
    let texts: Vec<String> =
        drawn(&html, "throughput-time").into_iter().flat_map(|s| s.1).map(|p| p.3).collect();
    same(&texts, &timeline.iter().map(|r| number(r, 3)).collect::<Vec<_>>(), 1.0);

    let distribution = rows(folder.path(), "latency_distribution.csv");
    for (index, stage) in ["One client", "Ten clients", "Ten clients, three replicas"].into_iter().enumerate()
    {
        let bars = drawn(&html, &format!("distribution-{index}")).remove(0).1;
        let of_stage: Vec<_> = distribution.iter().filter(|r| &r[0] == stage).collect();
        let texts: Vec<String> = bars.iter().map(|p| p.3.clone()).collect();
        same(&texts, &of_stage.iter().map(|r| number(r, 4) * 100.0).collect::<Vec<_>>(), 1.0);
        let answers: f64 = of_stage.iter().map(|r| number(r, 3)).sum();
        assert_eq!(
            answers,
            run.stages
                .iter()
                .filter(|s| s.name == stage)
                .map(|s| s.loads[0].latency.count as f64)
                .sum::<f64>()
        );
    }

    let usage = rows(folder.path(), "resources.csv");
    for (chart, column) in [("cpu-0-1", 3), ("memory-0-1", 4)] {
        let texts: Vec<String> = drawn(&html, chart).remove(0).1.into_iter().map(|p| p.3).collect();
        let numbers: Vec<f64> =
            usage.iter().filter(|r| &r[1] == "pdfmagic-2").map(|r| number(r, column)).collect();
        same(&texts, &numbers, 1.0);
    }

    let percentiles = rows(folder.path(), "latency_percentiles.csv");
    for (name, points) in drawn(&html, "percentiles") {
        let beyond: Vec<f64> =
            percentiles.iter().filter(|r| r[0] == name && &r[4] == "false").map(|r| number(r, 3)).collect();
        // The dashed end begins at the last supported point.
        let texts: Vec<String> = points.iter().skip(1).map(|p| p.3.clone()).collect();
        same(&texts, &beyond, MICROS);
    }
    let counts: Vec<f64> = rows(folder.path(), "replica_counts.csv").iter().map(|r| number(r, 2)).collect();
    let texts: Vec<String> = drawn(&html, "replicas-time").remove(0).1.into_iter().map(|p| p.3).collect();
    same(&texts, &counts, 1.0);
    assert_eq!(rows(folder.path(), "events.csv").len(), run.events.len());
    assert_eq!(rows(folder.path(), "thresholds.csv").len(), 6);
    assert_eq!(rows(folder.path(), "replicas.csv").len(), 3);
    assert_eq!(rows(folder.path(), "balance.csv").len(), 5);
}

#[test]
fn a_crowd_is_written_as_its_quantiles() {
    let folder = tempfile::tempdir().expect("a folder");
    throng_report::write(&crowd(200, 300), folder.path()).expect("a report");
    let usage = rows(folder.path(), "resources.csv");
    assert_eq!(usage.len() % 5, 0);
    assert!(usage.len() <= 240 * 5);
    assert_eq!(
        usage.iter().take(5).map(|r| r[1].to_string()).collect::<Vec<_>>(),
        ["minimum", "10 %", "median", "90 %", "maximum"]
    );
    assert_eq!(rows(folder.path(), "replicas.csv").len(), 200);
}

#[test]
fn the_histogram_log_reads_back_with_every_answer() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = classic(Shape { repetitions: 2, ..CLASSIC });
    throng_report::write(&run, folder.path()).expect("a report");
    let log = std::fs::read(folder.path().join("latencies.hlog")).expect("a log");
    let mut counts = Vec::new();
    for entry in IntervalLogIterator::new(&log) {
        if let LogEntry::Interval(interval) = entry.expect("an entry") {
            use base64::Engine;
            let bytes = base64::engine::general_purpose::STANDARD
                .decode(interval.encoded_histogram())
                .expect("base64");
            let histogram: Histogram<u64> =
                Deserializer::new().deserialize(&mut bytes.as_slice()).expect("a histogram");
            assert!(interval.tag().is_some_and(|tag| tag.as_str().contains("client")));
            counts.push(histogram.len());
        }
    }
    assert_eq!(counts, [100, 100, 1000, 1000, 1000, 1000]);
}

#[test]
fn the_record_reads_back_even_if_it_held_what_is_no_number() {
    let folder = tempfile::tempdir().expect("a folder");
    let read = || -> Run {
        serde_json::from_slice(&std::fs::read(folder.path().join("run.json")).expect("a record"))
            .expect("a run")
    };
    let run = classic(CLASSIC);
    throng_report::write(&run, folder.path()).expect("a report");
    assert!(read() == run, "the record does not read back as it was written");

    let mut odd = run.clone();
    odd.seconds = f64::NAN;
    odd.stages[1].loads[0].rate = f64::INFINITY;
    odd.stages[1].loads[0].timeline[0].at = f64::NAN;
    odd.replicas[0].samples[0].cpu = f64::NAN;
    throng_report::write(&odd, folder.path()).expect("a report");
    let back = read();
    assert_eq!((back.seconds, back.stages[1].loads[0].rate), (0.0, 0.0));
    assert_eq!(back.stages[1].loads[0].timeline.len(), run.stages[1].loads[0].timeline.len() - 1);
    assert_eq!(back.replicas[0].samples.len(), run.replicas[0].samples.len() - 1);
    assert_eq!(back.stages[2], run.stages[2]);
}

#[test]
fn files_appear_whole_and_leave_nothing_else() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("a/b");
    let written = throng_report::write(&classic(CLASSIC), &out).expect("a report");
    let again = throng_report::write(&classic(CLASSIC), &out).expect("the same once more");
    assert_eq!(written, again);
    let mut found: Vec<_> =
        std::fs::read_dir(&out).expect("a folder").map(|e| e.expect("an entry").path()).collect();
    found.sort();
    let mut named = written.files.clone();
    named.sort();
    assert_eq!(found, named);
    assert_eq!(written.files.last(), Some(&written.report));
    assert_eq!(written.bytes, found.iter().map(|f| f.metadata().expect("a file").len()).sum::<u64>());
    let mode = written.report.metadata().expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o644);
}

#[test]
fn a_folder_that_cannot_be_is_an_error_with_a_hint() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("file");
    std::fs::write(&file, "x").expect("a file");
    let error = throng_report::write(&Run::default(), &file).expect_err("a file is no folder");
    assert_eq!(error.to_string(), format!("cannot make the folder {}", file.display()));
    assert!(error.hint().contains("--out"));
    assert_eq!(std::fs::read(&file).expect("the file"), b"x");
}
