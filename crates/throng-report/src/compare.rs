//! Runs side by side: the first one is the base, the others are measured against it.

use crate::chart::{Axis, Chart, Ink, Mark, Stroke};
use crate::data::{Data, Load, Metric};
use crate::distribution::shared_bins;
use crate::figure::{Figure, Sign, Table};
use crate::figures::{curves, percentile_table};
use crate::page::Page;
use crate::quantity::{MISSING, Unit, count, seconds, times};
use crate::report::{outcome_text, title, when};
use crate::scale::Scale;
use crate::svg::escape;
use crate::terminal::{Border, Grid, plain, wrap};
use std::fmt::Write as _;
use throng_model::run::Run;

/// Runs in one comparison, as many as there are colours; later ones are left out, and the page says so.
pub const MAX_RUNS: usize = crate::chart::COLOURS;
/// Stages compared; later ones are left out, and the page says so.
const MAX_STAGES: usize = 24;

const METRICS: [(Metric, &str, Unit); 7] = [
    (Metric::Rate, "answers per second", Unit::Rate),
    (Metric::Mean, "mean", Unit::Latency),
    (Metric::P50, "median", Unit::Latency),
    (Metric::P95, "95 %", Unit::Latency),
    (Metric::P99, "99 %", Unit::Latency),
    (Metric::Max, "slowest", Unit::Latency),
    (Metric::Errors, "failed", Unit::Share),
];

/// A stage and its load in each run; `None` where a run has no such stage.
struct Matched<'d, 'a> {
    name: String,
    loads: Vec<Option<&'d Load<'a>>>,
}

/// Stages match by name; the second stage of a name matches the second of that name.
fn all_matched<'d, 'a>(all: &'d [Data<'a>]) -> Vec<Matched<'d, 'a>> {
    let mut found: Vec<(&str, usize, Matched)> = Vec::new();
    for (run, data) in all.iter().enumerate() {
        let mut seen: std::collections::BTreeMap<&str, usize> = Default::default();
        for load in &data.loads {
            let name = load.stage.name.as_str();
            let nth = seen.entry(name).or_default();
            *nth += 1;
            let index = found.iter().position(|(n, i, _)| *n == name && *i == *nth).unwrap_or_else(|| {
                let label = if *nth == 1 { name.to_string() } else { format!("{name} ({nth})") };
                found.push((name, *nth, Matched { name: label, loads: vec![None; all.len()] }));
                found.len() - 1
            });
            found[index].2.loads[run] = Some(load);
        }
    }
    found.into_iter().map(|(_, _, matched)| matched).collect()
}

/// As many as a page shows.
fn matched<'d, 'a>(all: &'d [Data<'a>]) -> Vec<Matched<'d, 'a>> {
    let mut matched = all_matched(all);
    matched.truncate(MAX_STAGES);
    matched
}

/// Short names that tell the runs apart: the id, and the variables that differ.
fn labels(runs: &[Run]) -> Vec<String> {
    let differing = |name: &String| runs.iter().any(|r| r.variables.get(name) != runs[0].variables.get(name));
    runs.iter()
        .enumerate()
        .map(|(index, run)| {
            let id = run.id.strip_suffix(&run.project).and_then(|id| id.strip_suffix('-')).unwrap_or(&run.id);
            let mut label = if id.is_empty() { format!("run {}", index + 1) } else { id.to_string() };
            let variables: Vec<String> = run
                .variables
                .iter()
                .filter(|(name, _)| differing(name))
                .map(|(n, v)| format!("{n}={v}"))
                .collect();
            if !variables.is_empty() {
                label = format!("{label} {}", variables.join(" "));
            }
            label
        })
        .collect()
}

fn ratio(base: Option<f64>, value: Option<f64>) -> Option<f64> {
    let ratio = value? / base?;
    ratio.is_finite().then_some(ratio)
}

pub fn html(runs: &[Run]) -> String {
    let left_out = runs.len().saturating_sub(MAX_RUNS);
    let runs = &runs[..runs.len().min(MAX_RUNS)];
    let all: Vec<Data> = runs.iter().map(Data::of).collect();
    let labels = labels(runs);
    let stages = matched(&all);
    let lead = match left_out {
        0 => "<p>The first run is the base: ratios say how many times its figure each other run has.</p>"
            .to_string(),
        n => format!(
            "<p class=\"missed\">{n} more runs are left out: at most {MAX_RUNS} can be told apart.</p>"
        ),
    };
    let figures = |draw: &dyn Fn(usize, &Matched) -> Option<Figure>| -> String {
        stages.iter().enumerate().filter_map(|(i, stage)| draw(i, stage)).map(|f| f.html()).collect()
    };
    Page {
        title: match runs.first() {
            Some(first) => format!("{}: {} runs compared", title(first), runs.len()),
            None => "No runs to compare".into(),
        },
        kicker: runs.first().map(|r| r.project.clone()).unwrap_or_default(),
        lead,
        sections: vec![
            ("runs", "The runs", runs_table(runs, &labels)),
            ("differences", "Differences", differences(&stages, &labels)),
            ("percentiles", "Percentiles", figures(&|i, stage| percentiles(i, stage, &labels))),
            ("distributions", "Distributions", figures(&|i, stage| distributions(i, stage, &labels))),
            ("time", "Over time", figures(&|i, stage| over_time(i, stage, &labels))),
            ("resources", "Resources", resources(&all, &labels)),
            ("environment", "Environments", environments(runs, &labels)),
        ],
        footer: "Written by throng. A ratio alone does not tell chance from cause: repeat a run to see how far it scatters.".into(),
    }
    .html()
}

/// Every run and every stage: what limits a page does not limit programs.
pub fn json(runs: &[Run]) -> serde_json::Value {
    use serde_json::json;
    const KEYS: [(Metric, &str); 7] = [
        (Metric::Rate, "rate"),
        (Metric::Mean, "mean_us"),
        (Metric::P50, "p50_us"),
        (Metric::P95, "p95_us"),
        (Metric::P99, "p99_us"),
        (Metric::Max, "max_us"),
        (Metric::Errors, "failed_share"),
    ];
    let all: Vec<Data> = runs.iter().map(Data::of).collect();
    let figures = |load: &Option<&Load>, base: Option<&Load>| {
        let Some(load) = load else { return serde_json::Value::Null };
        let each = KEYS.iter().map(|(metric, key)| {
            let Some(spread) = load.spread(*metric) else { return ((*key).to_owned(), json!(null)) };
            let ratio = ratio(base.and_then(|base| base.middle(*metric)), Some(spread.middle));
            let value = json!({
                "median": spread.middle, "lowest": spread.low, "highest": spread.high,
                "repetitions": spread.repetitions, "ratio": ratio,
            });
            ((*key).to_owned(), value)
        });
        serde_json::Value::Object(each.collect())
    };
    let stages = all_matched(&all).into_iter().map(|stage| {
        let base = stage.loads.first().copied().flatten();
        let runs: Vec<_> = stage.loads.iter().map(|load| figures(load, base)).collect();
        json!({"stage": stage.name, "runs": runs})
    });
    let told = runs.iter().map(|run| {
        json!({
            "id": run.id, "project": run.project, "title": run.title, "started_at": run.started_at,
            "seconds": run.seconds, "outcome": run.outcome, "variables": run.variables,
        })
    });
    json!({"runs": told.collect::<Vec<_>>(), "stages": stages.collect::<Vec<_>>()})
}

fn runs_table(runs: &[Run], labels: &[String]) -> String {
    if runs.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&["run", "started", "took", "outcome"]);
    for (run, label) in runs.iter().zip(labels) {
        table.rows.push(vec![
            label.clone(),
            when(&run.started_at),
            seconds(run.seconds),
            outcome_text(run.outcome).1.into(),
        ]);
    }
    table.html(MAX_RUNS)
}

fn differences(stages: &[Matched], labels: &[String]) -> String {
    let mut out = String::new();
    for stage in stages {
        let _ = write!(
            out,
            "<h3 class=\"stage\">{}</h3><div class=\"scroll\" tabindex=\"0\"><table><thead><tr><th scope=\"col\">figure</th>",
            escape(&stage.name)
        );
        for (index, label) in labels.iter().enumerate() {
            let class = Ink::Series(index).class();
            let _ =
                write!(out, "<th scope=\"col\"><span class=\"chip {class}\"></span>{}</th>", escape(label));
        }
        out.push_str("</tr></thead><tbody>");
        for (metric, name, unit) in METRICS {
            let _ = write!(out, "<tr><th scope=\"row\">{name}</th>");
            let base = stage.loads.first().copied().flatten().and_then(|l| l.middle(metric));
            for (index, load) in stage.loads.iter().enumerate() {
                let spread = load.and_then(|l| l.spread(metric));
                let _ = write!(out, "<td>{}", spread.map_or_else(|| MISSING.into(), |s| unit.text(s.middle)));
                if let Some(s) = spread.filter(|s| s.repetitions > 1) {
                    let _ = write!(out, "<small>{}</small>", crate::quantity::range(unit, s.low, s.high));
                }
                if let (Some(ratio), true) = (ratio(base, spread.map(|s| s.middle)), index > 0) {
                    let _ = write!(out, "<small>× {}</small>", times(ratio));
                }
                out.push_str("</td>");
            }
            out.push_str("</tr>");
        }
        out.push_str("</tbody></table></div>");
    }
    out
}

fn named<'d, 'a>(stage: &Matched<'d, 'a>, labels: &[String]) -> Vec<(String, usize, &'d Load<'a>)> {
    let loads = stage.loads.iter().enumerate().zip(labels);
    loads
        .filter_map(|((index, load), label)| Some((label.clone(), index, (*load)?)))
        .filter(|(_, _, load)| !load.pooled.is_empty())
        .collect()
}

fn key(named: &[(String, usize, &Load)]) -> Vec<(Ink, Sign, String)> {
    named.iter().map(|(label, index, _)| (Ink::Series(*index), Sign::Line, label.clone())).collect()
}

fn percentiles(index: usize, stage: &Matched, labels: &[String]) -> Option<Figure> {
    let named = named(stage, labels);
    (!named.is_empty()).then(|| {
        // The key names the runs: their labels are too long for the lines' ends.
        let mut chart =
            curves(&format!("percentiles-{index}"), &format!("Percentile curves of {}", stage.name), &named);
        for mark in &mut chart.marks {
            if let Mark::Line { labelled, .. } = mark {
                *labelled = false;
            }
        }
        Figure {
            heading: stage.name.clone(),
            key: key(&named),
            charts: vec![chart],
            table: percentile_table(&named),
            ..Figure::default()
        }
    })
}

fn distributions(index: usize, stage: &Matched, labels: &[String]) -> Option<Figure> {
    let named = named(stage, labels);
    let (scale, edges) = shared_bins(named.iter().map(|(_, _, load)| &load.pooled));
    let mut table = Table::new(&["run", "from", "to", "share"]);
    let mut charts = Vec::new();
    for (label, run, load) in &named {
        let bins = load.pooled.bins(&edges);
        let top = bins.iter().map(|b| b.share).fold(0.0, f64::max);
        for bin in bins.iter().filter(|b| b.count > 0) {
            let text = |value| Unit::Latency.text(value);
            table.rows.push(vec![label.clone(), text(bin.from), text(bin.to), Unit::Share.text(bin.share)]);
        }
        let median = load.pooled.quantile(0.5).unwrap_or(0) as f64;
        charts.push(Chart {
            id: format!("distribution-{index}-{run}"),
            title: label.clone(),
            description: format!("Histogram of service times, median {}.", Unit::Latency.text(median)),
            x: Axis::new(scale, Unit::Latency, "service time"),
            y: Axis::new(Scale::from_zero(top), Unit::Share, "share of answers"),
            height: 90.0,
            marks: vec![
                Mark::Bars {
                    name: "answers".into(),
                    bars: bins.iter().map(|b| (b.from, b.to, b.share)).collect(),
                    ink: Ink::Series(*run),
                },
                Mark::Upright {
                    x: median,
                    label: format!("median {}", Unit::Latency.text(median)),
                    ink: Ink::Strong,
                    row: 0,
                },
            ],
        });
    }
    (!charts.is_empty()).then(|| Figure { heading: stage.name.clone(), charts, table, ..Figure::default() })
}

/// Median latency and throughput of the first repetitions, both against the time since that load began.
fn over_time(index: usize, stage: &Matched, labels: &[String]) -> Option<Figure> {
    let named = named(stage, labels);
    let mut table = Table::new(&["run", "time", "answers/s", "median"]);
    let (mut latencies, mut rates) = (Vec::new(), Vec::new());
    for (label, run, load) in &named {
        let Some(first) = load.repetitions.first() else { continue };
        let begin = crate::data::time(first.result.begin).unwrap_or(0.0);
        for point in &first.timeline {
            let median = point.latency.map_or_else(|| MISSING.into(), |l| Unit::Latency.text(l.0));
            table.rows.push(vec![
                label.clone(),
                seconds(point.at - begin),
                Unit::Rate.text(point.rate),
                median,
            ]);
        }
        let add = |to: &mut Vec<Mark>, points| {
            let ink = Ink::Series(*run);
            to.push(Mark::Line { name: label.clone(), points, ink, stroke: Stroke::Solid, labelled: false });
        };
        add(
            &mut latencies,
            first.timeline.iter().filter_map(|p| Some(((p.at - begin).max(0.0), p.latency?.0))).collect(),
        );
        add(&mut rates, first.timeline.iter().map(|p| ((p.at - begin).max(0.0), p.rate)).collect());
    }
    let lines = |marks: &[Mark]| -> Vec<(f64, f64)> {
        marks
            .iter()
            .flat_map(|m| if let Mark::Line { points, .. } = m { points.clone() } else { Vec::new() })
            .collect()
    };
    let horizon = lines(&rates).iter().map(|p| p.0).fold(0.0, f64::max);
    if horizon <= 0.0 {
        return None;
    }
    let chart = |id: &str, title: &str, label: &str, unit, marks: Vec<Mark>| {
        let top = lines(&marks).iter().map(|p| p.1).fold(0.0, f64::max);
        Chart {
            id: format!("{id}-{index}"),
            title: title.into(),
            description: format!("{title} in {}, one line for each run.", stage.name),
            x: Axis::new(
                Scale::Linear { low: 0.0, high: horizon },
                Unit::Seconds,
                "time since the load began",
            ),
            y: Axis::new(Scale::from_zero(top), unit, label),
            height: 140.0,
            marks,
        }
    };
    Some(Figure {
        heading: stage.name.clone(),
        key: key(&named),
        charts: vec![
            chart("latency-time", "Median latency", "median latency", Unit::Latency, latencies),
            chart("throughput-time", "Throughput", "answers", Unit::Rate, rates),
        ],
        table,
        ..Figure::default()
    })
}

fn resources(all: &[Data], labels: &[String]) -> String {
    let mut services: Vec<&str> = all.iter().flat_map(|d| d.uses.iter().map(|u| u.service)).collect();
    services.sort_unstable();
    services.dedup();
    if services.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&["service, per replica"]);
    table.head.extend(labels.iter().cloned());
    for service in services.into_iter().take(crate::resources::MAX_SERVICES) {
        let mut cpu = vec![format!("{service}: mean cores")];
        let mut memory = vec![format!("{service}: most memory")];
        for data in all {
            let using = data.uses.iter().find(|u| u.service == service);
            let mean = using.and_then(|u| crate::usage::mean(u.totals.iter().map(|t| t.cpu_mean)));
            let most = using.map(|u| u.totals.iter().map(|t| t.memory_max).fold(0.0, f64::max));
            cpu.push(mean.map_or_else(|| MISSING.into(), |v| Unit::Cores.text(v)));
            memory.push(most.map_or_else(|| MISSING.into(), |v| Unit::Bytes.text(v)));
        }
        table.rows.extend([cpu, memory]);
    }
    table.html(crate::resources::MAX_SERVICES * 2)
}

/// What differs between the environments; equal lines would only hide it.
fn environments(runs: &[Run], labels: &[String]) -> String {
    let describe = |run: &Run| -> Vec<(String, String)> {
        let env = &run.environment;
        let mut list = vec![
            ("processor".to_string(), env.cpu.clone()),
            ("cores".into(), count(u64::from(env.cores))),
            ("memory".into(), Unit::Bytes.text(env.memory_bytes as f64)),
            ("operating system".into(), env.operating_system.clone()),
            ("kernel".into(), env.kernel.clone()),
            ("control groups".into(), env.cgroup.clone()),
            ("isolation of replicas".into(), env.isolation.clone()),
            ("throng".into(), env.throng.clone()),
        ];
        list.extend(env.details.iter().map(|(name, value)| (name.clone(), value.clone())));
        list
    };
    let all: Vec<Vec<(String, String)>> = runs.iter().map(describe).collect();
    let mut names: Vec<&String> = Vec::new();
    for (name, _) in all.iter().flatten() {
        if !names.contains(&name) && names.len() < crate::figure::MAX_ROWS {
            names.push(name);
        }
    }
    let mut table = Table::new(&["what differs"]);
    table.head.extend(labels.iter().cloned());
    for name in names {
        let value = |list: &Vec<(String, String)>| {
            list.iter().find(|(n, _)| n == name).map_or_else(|| MISSING.into(), |(_, v)| v.clone())
        };
        let values: Vec<String> = all.iter().map(value).collect();
        if values.windows(2).any(|pair| pair[0] != pair[1]) {
            table.rows.push(std::iter::once(name.clone()).chain(values).collect());
        }
    }
    match (runs.len(), table.rows.is_empty()) {
        (0 | 1, _) => String::new(),
        (_, true) => "<p>All runs had the same environment.</p>".into(),
        _ => table.html(crate::figure::MAX_ROWS),
    }
}

pub fn text(runs: &[Run], width: usize) -> String {
    if runs.is_empty() {
        return "no runs to compare\n".into();
    }
    let all: Vec<Data> = runs.iter().map(Data::of).collect();
    let mut out = String::new();
    for (index, label) in labels(runs).iter().enumerate() {
        out.push_str(&wrap(&format!("[{}] ", index + 1), label, width));
    }
    let stages = matched(&all);
    if stages.is_empty() {
        out.push_str("\nnone of these runs has a load stage\n");
    }
    for stage in &stages {
        let _ = write!(out, "\n{}\n", plain(&stage.name));
        // Each block repeats the base, so that every ratio stands beside what it refers to.
        let others: Vec<usize> = (1..runs.len()).collect();
        let blocks: Vec<&[usize]> =
            if others.is_empty() { vec![&[]] } else { others.chunks(fitting(width)).collect() };
        for block in blocks {
            out.push_str(&block_of(stage, block).render(width, Border::None));
        }
    }
    out
}

/// Runs beside the base that fit: a figure and its ratio take about 18 columns, the names and the base 34.
fn fitting(width: usize) -> usize {
    (width.saturating_sub(34) / 18).max(1)
}

fn block_of(stage: &Matched, block: &[usize]) -> Grid {
    let mut head = vec![String::new(), "[1]".to_string()];
    head.extend(block.iter().flat_map(|i| [format!("[{}]", i + 1), "ratio".to_string()]));
    let rows = METRICS
        .iter()
        .map(|(metric, name, unit)| {
            let figure =
                |index: usize| stage.loads.get(index).copied().flatten().and_then(|l| l.middle(*metric));
            let text = |value: Option<f64>| value.map_or_else(|| MISSING.into(), |v| unit.text(v));
            let mut row = vec![(*name).to_string(), text(figure(0))];
            for index in block {
                let ratio = ratio(figure(0), figure(*index));
                row.extend([
                    text(figure(*index)),
                    ratio.map_or_else(|| MISSING.into(), |r| format!("× {}", times(r))),
                ]);
            }
            row
        })
        .collect();
    Grid { head, rows, optional: Vec::new() }
}
