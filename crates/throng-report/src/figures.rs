//! The figures of one run: which marks show what.

use crate::chart::{Axis, Chart, Ink, Mark, Stroke};
use crate::data::{Data, Load, Metric};
use crate::distribution::{NINES, shared_bins};
use crate::figure::{Figure, Sign, Table};
use crate::quantity::{Unit, latency, plural};
use crate::scale::{Scale, percentile_label};

/// Load stages drawn in one figure; more would not be told apart.
pub const MAX_STAGES: usize = 16;

/// Percentiles that a reader looks up.
const LOOKED_UP: [f64; 8] = [0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 0.9999, 1.0];

pub fn ink(load: usize) -> Ink {
    Ink::Series(load)
}

/// Beyond the palette's colours, series repeat them with dashes.
fn stroke(load: usize) -> Stroke {
    if load < crate::chart::COLOURS { Stroke::Solid } else { Stroke::Dashed }
}

/// Load stages that have answers, with their place in the palette.
fn answered<'d, 'a>(data: &'d Data<'a>) -> Vec<(usize, &'d Load<'a>)> {
    data.loads.iter().enumerate().filter(|(_, load)| !load.pooled.is_empty()).take(MAX_STAGES).collect()
}

pub fn distributions(data: &Data) -> Option<Figure> {
    let loads = answered(data);
    if loads.is_empty() {
        return None;
    }
    let (scale, edges) = shared_bins(loads.iter().map(|(_, load)| &load.pooled));
    let mut table = Table::new(&["stage", "from", "to", "answers", "share"]);
    let mut charts = Vec::new();
    for (index, load) in &loads {
        let bins = load.pooled.bins(&edges);
        for bin in bins.iter().filter(|bin| bin.count > 0) {
            table.rows.push(vec![
                load.stage.name.clone(),
                latency(bin.from),
                latency(bin.to),
                Unit::Count.text(bin.count as f64),
                Unit::Share.text(bin.share),
            ]);
        }
        let top = bins.iter().map(|bin| bin.share).fold(0.0, f64::max);
        let mut marks = vec![Mark::Bars {
            name: "answers".into(),
            bars: bins.iter().map(|bin| (bin.from, bin.to, bin.share)).collect(),
            ink: ink(*index),
        }];
        let mut told = Vec::new();
        // The leftmost label stands highest, so that no line runs through another's label.
        for (row, share) in [0.5, 0.95, 0.99].into_iter().enumerate() {
            let Some(micros) = load.pooled.quantile(share) else { continue };
            let label = format!(
                "{} {}",
                if row == 0 { "median".into() } else { format!("p{}", share * 100.0) },
                latency(micros as f64)
            );
            told.push(label.clone());
            marks.push(Mark::Upright { x: micros as f64, label, ink: Ink::Strong, row: 2 - row as u8 });
        }
        charts.push(Chart {
            id: format!("distribution-{index}"),
            title: stage_title(load),
            description: format!(
                "Histogram of {}: {}.",
                plural(load.pooled.total(), "answer"),
                told.join(", ")
            ),
            x: Axis::new(scale, Unit::Latency, "service time"),
            y: Axis::new(Scale::from_zero(top), Unit::Share, "share of answers"),
            height: 104.0,
            marks,
        });
    }
    Some(Figure {
        heading: "How long an answer took".into(),
        note: "One histogram for each load stage, all on the same time axis: a hump further right is a slower service, a \
               wider one a less predictable one."
            .into(),
        charts,
        table,
        file: "latency_distribution.csv",
        ..Figure::default()
    })
}

pub fn stage_title(load: &Load) -> String {
    let mut parts = vec![load.stage.name.clone()];
    if !load.stage.detail.is_empty() && load.stage.detail != load.stage.name {
        parts.push(load.stage.detail.clone());
    }
    if let Some(replicas) = load.replicas() {
        parts.push(plural(replicas, "replica"));
    }
    parts.join(" · ")
}

pub fn percentiles(data: &Data) -> Option<Figure> {
    let loads = answered(data);
    if loads.is_empty() {
        return None;
    }
    let named: Vec<(String, usize, &Load)> =
        loads.iter().map(|(index, load)| (load.stage.name.clone(), *index, *load)).collect();
    let chart = curves("percentiles", "Percentile curves of the load stages", &named);
    let mut key: Vec<_> =
        named.iter().map(|(name, index, _)| (ink(*index), sign(*index), name.clone())).collect();
    let mut note = "Read it from below: at 95 % stands the time within which 95 of 100 answers came. Towards the right come \
                    the rare slow ones."
        .to_string();
    if named.iter().any(|(_, _, load)| load.pooled.total() < 10_000) {
        key.push((Ink::Strong, Sign::Dashed, "beyond the number of answers: the slowest one".into()));
    }
    if named.iter().any(|(_, _, load)| load.repetitions.len() > 1) {
        key.push((Ink::Strong, Sign::Area, "from the lowest to the highest repetition".into()));
        note.push_str(" The line takes all repetitions together.");
    }
    Some(Figure {
        heading: "Percentiles over each other".into(),
        note,
        key,
        charts: vec![chart],
        table: percentile_table(&named),
        file: "latency_percentiles.csv",
        ..Figure::default()
    })
}

fn sign(load: usize) -> Sign {
    if stroke(load) == Stroke::Solid { Sign::Line } else { Sign::Dashed }
}

pub fn percentile_table(named: &[(String, usize, &Load)]) -> Table {
    let mut table = Table::new(&["percentile"]);
    table.head.extend(named.iter().map(|(name, _, _)| name.clone()));
    for share in LOOKED_UP {
        let mut row = vec![if share == 1.0 { "slowest".into() } else { percentile_label(share) }];
        row.extend(named.iter().map(|(_, _, load)| {
            load.pooled.quantile(share).map_or_else(|| crate::quantity::MISSING.into(), |v| latency(v as f64))
        }));
        table.rows.push(row);
    }
    table
}

/// Percentile curves of any loads: the stages of one run, or one stage of several runs.
pub fn curves(id: &str, title: &str, named: &[(String, usize, &Load)]) -> Chart {
    let all = named.iter().flat_map(|(_, _, load)| load.repetitions.iter().map(|r| &r.latency));
    let low = all.clone().filter_map(|d| d.smallest()).min().unwrap_or(1).max(1) as f64;
    let high = all.filter_map(|d| d.largest()).max().unwrap_or(1) as f64;
    let mut marks = Vec::new();
    let mut described = Vec::new();
    for (_, index, load) in named {
        if let Some(area) = repetition_band(load, *index) {
            marks.push(area);
        }
    }
    for (name, index, load) in named {
        let curve = load.pooled.curve();
        let solid: Vec<(f64, f64)> =
            curve.iter().filter(|p| p.supported).map(|p| (p.percentile, p.latency as f64)).collect();
        let beyond: Vec<(f64, f64)> =
            curve.iter().filter(|p| !p.supported).map(|p| (p.percentile, p.latency as f64)).collect();
        if let Some(point) = curve.iter().find(|p| p.percentile >= 0.95) {
            described.push(format!("{name} {} at 95 %", latency(point.latency as f64)));
        }
        if let (Some(last), false) = (solid.last(), beyond.is_empty()) {
            let points = std::iter::once(*last).chain(beyond).collect();
            marks.push(Mark::Line {
                name: name.clone(),
                points,
                ink: ink(*index),
                stroke: Stroke::Dashed,
                labelled: true,
            });
            marks.push(line(String::new(), solid, *index, false));
            continue;
        }
        marks.push(line(name.clone(), solid, *index, true));
    }
    Chart {
        id: id.into(),
        title: title.into(),
        description: format!("Latency over percentile from 0 to 99.99 %: {}.", described.join("; ")),
        x: Axis::new(
            Scale::Tail { nines: NINES },
            Unit::Share,
            "share of answers that came within this time",
        ),
        y: Axis::new(Scale::log(low, high), Unit::Latency, "latency"),
        height: 300.0,
        marks,
    }
}

fn line(name: String, points: Vec<(f64, f64)>, index: usize, labelled: bool) -> Mark {
    Mark::Line { name, points, ink: ink(index), stroke: stroke(index), labelled }
}

fn repetition_band(load: &Load, index: usize) -> Option<Mark> {
    let curves: Vec<_> =
        load.repetitions.iter().map(|r| r.latency.curve()).filter(|c| !c.is_empty()).collect();
    if curves.len() < 2 {
        return None;
    }
    let points = (0..curves[0].len())
        .filter_map(|i| {
            let values = || curves.iter().filter_map(|c| c.get(i));
            // Beyond its own number of answers a repetition says nothing.
            if !values().all(|p| p.supported) {
                return None;
            }
            let low = values().map(|p| p.latency).min()?;
            let high = values().map(|p| p.latency).max()?;
            Some((curves[0][i].percentile, low as f64, high as f64))
        })
        .collect();
    Some(Mark::Area { points, ink: ink(index), strong: true })
}

/// Latency, throughput and replicas over time, one under the other on the same axis.
pub fn over_time(data: &Data) -> Figure {
    let mut charts = Vec::new();
    let mut key = Vec::new();
    if data.loads.iter().any(|l| l.repetitions.iter().any(|r| r.timeline.iter().any(|p| p.latency.is_some())))
    {
        charts.push(latency_over_time(data));
        key.push((Ink::Strong, Sign::Line, "median".into()));
        key.push((Ink::Strong, Sign::Thin, "95th percentile".into()));
        key.push((Ink::Strong, Sign::Dot, "slowest answer".into()));
    }
    if data.loads.iter().any(|l| l.repetitions.iter().any(|r| !r.timeline.is_empty())) {
        charts.push(throughput(data));
        if data.loads.iter().any(|l| l.repetitions.iter().any(|r| r.timeline.iter().any(|p| p.errors > 0.0)))
        {
            key.push((Ink::Bad, Sign::Dashed, "failures".into()));
        }
    }
    if data.loads.iter().flat_map(|l| &l.repetitions).any(|r| demand(r).is_some()) {
        key.push((Ink::Strong, Sign::Dashed, "demand, and replicas that are wanted".into()));
    }
    if data.counts.iter().any(|c| !c.points.is_empty()) {
        charts.push(replica_counts(data));
    }
    if data.run.stages.iter().any(|stage| !stage.faults.is_empty()) && !charts.is_empty() {
        key.push((Ink::Bad, Sign::Block, "while something was done to the app on purpose".into()));
    }
    if !data.run.events.is_empty() && !charts.is_empty() {
        key.push((Ink::Quiet, Sign::Triangle, "event".into()));
        if data.run.events.iter().any(grave) {
            key.push((Ink::Bad, Sign::Triangle, "fault or warning".into()));
        }
    }
    let mut table = Table::new(&["time", "stage", "answers/s", "failures/s", "median", "95 %", "slowest"]);
    for load in &data.loads {
        for point in load.repetitions.iter().flat_map(|r| &r.timeline) {
            let cell = |pick: fn((f64, f64, f64)) -> f64| {
                point.latency.map_or_else(|| crate::quantity::MISSING.into(), |l| latency(pick(l)))
            };
            table.rows.push(vec![
                Unit::Seconds.text(point.at),
                load.stage.name.clone(),
                Unit::Rate.text(point.rate),
                Unit::Rate.text(point.errors),
                cell(|l| l.0),
                cell(|l| l.1),
                cell(|l| l.2),
            ]);
        }
    }
    Figure {
        heading: "The run over time".into(),
        note:
            "Shaded spans are stages, in the colours of the figures above; all pictures share the time axis."
                .into(),
        key,
        charts,
        table,
        file: "timeline.csv",
        ..Figure::default()
    }
}

pub fn grave(event: &throng_model::run::Event) -> bool {
    matches!(event.kind.as_str(), "fault" | "warning" | "error")
}

/// Texts of faults that stand one below the other.
const FAULT_ROWS: u8 = 3;
/// Marks of events on a time axis; more than this are thinned, the grave ones last.
const MAX_MOMENTS: usize = 40;

fn surroundings(data: &Data) -> Vec<Mark> {
    let mut marks = Vec::new();
    let mut load = 0;
    for stage in &data.run.stages {
        let ink = if stage.loads.is_empty() {
            Ink::Quiet
        } else {
            load += 1;
            ink(load - 1)
        };
        if let (Some(from), Some(to)) = (crate::data::time(stage.begin), crate::data::time(stage.end)) {
            marks.push(Mark::Span { from, to: to.max(from), label: stage.name.clone(), ink });
        }
    }
    let mut faults: Vec<(f64, f64)> = Vec::new();
    for fault in data.run.stages.iter().flat_map(|stage| &stage.faults) {
        let Some(from) = crate::data::time(fault.begin) else { continue };
        // One that nothing ended lasted to the end.
        let to =
            fault.end.and_then(crate::data::time).unwrap_or(data.horizon).clamp(from, data.horizon.max(from));
        let beside = faults.iter().filter(|other| other.0 < to && other.1 > from).count();
        let row = u8::try_from(beside).unwrap_or(u8::MAX) % FAULT_ROWS;
        faults.push((from, to));
        marks.push(Mark::Fault { from, to, text: fault.what.clone(), row });
    }
    let moments: Vec<_> =
        data.run.events.iter().filter(|e| e.kind != "stage" && crate::data::time(e.at).is_some()).collect();
    let (bad, fine): (Vec<_>, Vec<_>) = moments.into_iter().partition(|e| grave(e));
    for (events, ink) in [(fine, Ink::Quiet), (bad, Ink::Bad)] {
        for event in crate::figure::evenly(&events, MAX_MOMENTS) {
            let text = format!(
                "{} {} {}: {}",
                Unit::Seconds.text(event.at),
                event.kind,
                event.subject,
                event.message
            );
            marks.push(Mark::Moment { x: event.at, ink, text });
        }
    }
    marks
}

fn time_axis(data: &Data) -> Axis {
    Axis::new(Scale::Linear { low: 0.0, high: data.horizon }, Unit::Seconds, "time since the run began")
}

fn latency_over_time(data: &Data) -> Chart {
    let points =
        || data.loads.iter().flat_map(|l| &l.repetitions).flat_map(|r| &r.timeline).filter_map(|p| p.latency);
    let low = points().map(|p| p.0).filter(|v| *v > 0.0).fold(f64::MAX, f64::min);
    let high = points().map(|p| p.2).fold(0.0, f64::max);
    let mut marks = surroundings(data);
    for (index, load) in data.loads.iter().enumerate() {
        for repetition in &load.repetitions {
            let series = |pick: fn((f64, f64, f64)) -> f64| -> Vec<(f64, f64)> {
                repetition.timeline.iter().filter_map(|p| Some((p.at, pick(p.latency?)))).collect()
            };
            marks.push(Mark::Dots { name: "slowest".into(), points: series(|l| l.2), ink: ink(index) });
            marks.push(Mark::Line {
                name: "95 %".into(),
                points: series(|l| l.1),
                ink: ink(index),
                stroke: Stroke::Thin,
                labelled: false,
            });
            marks.push(line("median".into(), series(|l| l.0), index, false));
        }
    }
    Chart {
        id: "latency-time".into(),
        title: "Latency over time".into(),
        description: stage_sentence(data, "median latency", Metric::P50, Unit::Latency),
        x: time_axis(data),
        y: Axis::new(Scale::fitting(low, high), Unit::Latency, "latency"),
        height: 200.0,
        marks,
    }
}

fn stage_sentence(data: &Data, what: &str, metric: Metric, unit: Unit) -> String {
    let parts: Vec<String> = data
        .loads
        .iter()
        .take(MAX_STAGES)
        .filter_map(|load| Some(format!("{} in {}", unit.text(load.middle(metric)?), load.stage.name)))
        .collect();
    format!("By stage, {what}: {}.", parts.join(", "))
}

fn throughput(data: &Data) -> Chart {
    let points = || data.loads.iter().flat_map(|l| &l.repetitions).flat_map(|r| &r.timeline);
    let asked = data.loads.iter().flat_map(|l| &l.repetitions).filter_map(demand).flatten();
    let top = points().map(|p| p.rate.max(p.errors)).chain(asked.map(|p| p.1)).fold(0.0, f64::max);
    let mut marks = surroundings(data);
    for (index, load) in data.loads.iter().enumerate() {
        for repetition in &load.repetitions {
            let rates: Vec<_> = repetition.timeline.iter().map(|p| (p.at, p.rate)).collect();
            marks.push(Mark::Area {
                points: rates.iter().map(|(at, rate)| (*at, 0.0, *rate)).collect(),
                ink: ink(index),
                strong: false,
            });
            marks.push(line("answers".into(), rates, index, false));
            if let Some(points) = demand(repetition) {
                marks.push(Mark::Line {
                    name: "demand".into(),
                    points: points.to_vec(),
                    ink: Ink::Strong,
                    stroke: Stroke::Dashed,
                    labelled: false,
                });
            }
            if repetition.timeline.iter().any(|p| p.errors > 0.0) {
                marks.push(Mark::Line {
                    name: "failures".into(),
                    points: repetition.timeline.iter().map(|p| (p.at, p.errors)).collect(),
                    ink: Ink::Bad,
                    stroke: Stroke::Dashed,
                    labelled: false,
                });
            }
        }
    }
    Chart {
        id: "throughput-time".into(),
        title: "Throughput over time".into(),
        description: stage_sentence(data, "successful answers", Metric::Rate, Unit::Rate),
        x: time_axis(data),
        y: Axis::new(Scale::from_zero(top), Unit::Rate, "answers"),
        height: 150.0,
        marks,
    }
}

/// From where to where requests were sent, and how many a second, if that did not follow from the answers.
fn demand(repetition: &crate::data::Repetition) -> Option<[(f64, f64); 2]> {
    let demand = repetition.result.demand?;
    let begin = crate::data::time(repetition.result.begin)?;
    let end = crate::data::time(begin + demand.seconds)?;
    demand.rate.is_finite().then_some([(begin, demand.rate), (end, demand.rate)])
}

/// Services whose replica counts are drawn, those that changed first.
const MAX_COUNTED: usize = 8;

/// The line that holds each value until the next point.
fn corners(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut line: Vec<(f64, f64)> = Vec::with_capacity(points.len() * 2);
    for (x, y) in points {
        if let Some((_, before)) = line.last().copied() {
            line.push((*x, before));
        }
        line.push((*x, *y));
    }
    line
}

fn replica_counts(data: &Data) -> Chart {
    let mut counted: Vec<_> = data.counts.iter().filter(|c| !c.points.is_empty()).collect();
    counted.sort_by_key(|c| std::cmp::Reverse(c.points.len()));
    counted.truncate(MAX_COUNTED);
    let top = counted.iter().flat_map(|c| c.points.iter().chain(&c.wanted)).map(|p| p.1).fold(1.0, f64::max);
    let mut marks = surroundings(data);
    let mut told = Vec::new();
    for (index, counts) in counted.iter().enumerate() {
        let most = counts.points.iter().map(|p| p.1).fold(0.0, f64::max);
        told.push(format!("{} up to {}", counts.service, Unit::Count.text(most)));
        let only = counted.len() == 1;
        let ink = if only { Ink::Strong } else { Ink::Series(index + data.loads.len()) };
        marks.push(Mark::Line {
            name: format!("{} wanted", counts.service),
            points: corners(&counts.wanted),
            ink,
            stroke: Stroke::Dashed,
            labelled: false,
        });
        marks.push(Mark::Steps {
            name: counts.service.into(),
            points: counts.points.clone(),
            ink,
            labelled: true,
        });
    }
    Chart {
        id: "replicas-time".into(),
        title: "Replicas over time".into(),
        description: format!("Number of replicas as steps: {}.", told.join(", ")),
        x: time_axis(data),
        y: Axis::new(Scale::from_zero(top), Unit::Count, "replicas"),
        height: 90.0,
        marks,
    }
}
