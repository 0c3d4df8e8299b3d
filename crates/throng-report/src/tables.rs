//! The summary at the end of a run, for a terminal.

use crate::data::{Data, Load, Metric};
use crate::quantity::{MISSING, Unit, count, seconds};
use crate::terminal::{Border, Grid, plain, wrap};
use throng_model::run::{Outcome, Run};

/// Failed thresholds are always listed; of those that held at most this many.
const MAX_HELD: usize = 12;

pub fn summary(run: &Run, width: usize, border: Border) -> String {
    let data = Data::of(run);
    let mut out = String::new();
    if !data.loads.is_empty() {
        out.push_str(&loads(&data).render(width, border));
        out.push('\n');
    }
    let thresholds = thresholds(run, width);
    if !thresholds.is_empty() {
        out.push_str(&thresholds);
        out.push('\n');
    }
    for stage in run.stages.iter().filter(|s| s.error.is_some()) {
        let error = stage.error.as_deref().unwrap_or_default();
        out.push_str(&wrap("! ", &format!("{}: {error}", stage.name), width));
    }
    let learnt = if run.summary.is_empty() { crate::learn(run) } else { run.summary.clone() };
    for line in &learnt {
        out.push_str(&wrap("* ", line, width));
    }
    let word = match run.outcome {
        Outcome::Passed => "passed",
        Outcome::Failed => "failed",
        Outcome::Interrupted => "interrupted",
    };
    let id = plain(&run.id);
    out.push('\n');
    out.push_str(&wrap(
        "",
        &format!("{word} after {}{}{id}", seconds(run.seconds), if id.is_empty() { "" } else { ", run " }),
        width,
    ));
    out
}

fn loads(data: &Data) -> Grid {
    let head = ["stage", "clients", "replicas", "req/s", "p50", "p95", "p99", "max", "errors"];
    Grid {
        head: head.map(String::from).to_vec(),
        rows: data.loads.iter().map(row).collect(),
        optional: vec![7, 6, 2, 1],
    }
}

fn row(load: &Load) -> Vec<String> {
    let figure =
        |metric, unit: Unit| load.middle(metric).map_or_else(|| MISSING.into(), |value| unit.text(value));
    let number = |value: Option<u64>| value.map_or_else(|| MISSING.into(), count);
    let repeated = match load.repetitions.len() {
        0 | 1 => String::new(),
        n => format!(" (median of {n})"),
    };
    vec![
        format!("{}{repeated}", load.stage.name),
        number(load.clients),
        number(load.replicas()),
        figure(Metric::Rate, Unit::Count),
        figure(Metric::P50, Unit::Latency),
        figure(Metric::P95, Unit::Latency),
        figure(Metric::P99, Unit::Latency),
        figure(Metric::Max, Unit::Latency),
        count(load.failed()),
    ]
}

fn thresholds(run: &Run, width: usize) -> String {
    let all: Vec<_> =
        run.stages.iter().flat_map(|s| s.thresholds.iter().map(move |t| (&s.name, t))).collect();
    let mut out = String::new();
    let mut held = 0;
    for (stage, threshold) in &all {
        held += usize::from(threshold.held);
        if threshold.held && held > MAX_HELD {
            continue;
        }
        let first = if threshold.held { "ok    " } else { "FAIL  " };
        out.push_str(&wrap(
            first,
            &format!("{stage}: {}, measured {}", threshold.expression, threshold.measured),
            width,
        ));
    }
    if held > MAX_HELD {
        out.push_str(&format!("ok    and {} more\n", count((held - MAX_HELD) as u64)));
    }
    out
}
