//! The figures about replicas: what each used, and how the load was shared among them.

use crate::chart::{Axis, Chart, Ink, Mark, Stroke, shorten};
use crate::data::{Data, Load};
use crate::figure::{Figure, Sign, Table};
use crate::quantity::{Unit, plural};
use crate::scale::Scale;
use crate::usage::{Band, MAX_SINGLE, QUANTILE_NAMES, Series, ServiceUse, Usage};

/// Services whose use is drawn; resources.csv has the others too.
pub const MAX_SERVICES: usize = 12;

#[derive(Clone, Copy, PartialEq)]
enum Resource {
    Cpu,
    Memory,
}

impl Resource {
    fn unit(self) -> Unit {
        match self {
            Resource::Cpu => Unit::Cores,
            Resource::Memory => Unit::Bytes,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Resource::Cpu => "CPU",
            Resource::Memory => "Memory",
        }
    }

    fn axis(self, top: f64) -> Axis {
        let label = if self == Resource::Cpu { "cores in use" } else { "memory" };
        let scale = match self {
            Resource::Cpu => Scale::from_zero(top),
            // Steps that are round in binary units, as the ticks are written in them.
            Resource::Memory => {
                let (unit, _) = Unit::Bytes.axis(top);
                match Scale::from_zero(top / unit) {
                    Scale::Linear { low, high } => Scale::Linear { low: low * unit, high: high * unit },
                    other => other,
                }
            }
        };
        Axis::new(scale, self.unit(), label)
    }

    fn of(self, usage: &Usage) -> f64 {
        if self == Resource::Cpu { usage.cpu } else { usage.memory }
    }

    fn quantiles(self, band: &Band) -> &[f64; 5] {
        if self == Resource::Cpu { &band.cpu } else { &band.memory }
    }

    fn limit(self, using: &ServiceUse) -> Option<f64> {
        if self == Resource::Cpu { using.cpu_limit } else { using.memory_limit }
    }
}

/// CPU and memory of each service.
pub fn resources(data: &Data) -> Vec<Figure> {
    let mut figures = Vec::new();
    for (index, using) in data.uses.iter().take(MAX_SERVICES).enumerate() {
        for resource in [Resource::Cpu, Resource::Memory] {
            match &using.series {
                Series::Single(lines) => figures.extend(single(data, using, index, lines, resource)),
                Series::Bands(bands) => figures.extend(crowd(data, using, index, bands, resource)),
            }
        }
    }
    figures
}

fn time_axis(data: &Data) -> Axis {
    Axis::new(Scale::Linear { low: 0.0, high: data.horizon }, Unit::Seconds, "time since the run began")
}

/// The load stages as shades, so that one sees which load caused what.
fn shades(data: &Data) -> impl Iterator<Item = Mark> {
    data.loads.iter().enumerate().map(|(index, load)| Mark::Span {
        from: load.stage.begin,
        to: load.stage.end,
        label: load.stage.name.clone(),
        ink: Ink::Series(index),
    })
}

fn single(
    data: &Data,
    using: &ServiceUse,
    index: usize,
    lines: &[(&str, Vec<Usage>)],
    resource: Resource,
) -> Option<Figure> {
    let limit = resource.limit(using);
    let most = lines.iter().flat_map(|(_, points)| points).map(|u| resource.of(u)).fold(0.0, f64::max);
    // A limit far above all use would flatten the lines; it is named in the note then.
    let drawn = limit.filter(|limit| *limit <= most * 3.0);
    let mut table = Table::new(&["replica", "time", "CPU in cores", "memory"]);
    let mut charts = Vec::new();
    for (position, (name, points)) in lines.iter().enumerate().filter(|(_, (_, points))| !points.is_empty()) {
        for usage in points {
            table.rows.push(row(name, usage.at, usage.cpu, usage.memory));
        }
        let values: Vec<(f64, f64)> = points.iter().map(|u| (u.at, resource.of(u))).collect();
        let peak = values.iter().map(|v| v.1).fold(0.0, f64::max);
        let mut marks: Vec<Mark> = shades(data).collect();
        marks.push(Mark::Area {
            points: values.iter().map(|(at, value)| (*at, 0.0, *value)).collect(),
            ink: Ink::Strong,
            strong: false,
        });
        marks.push(Mark::Line {
            name: (*name).into(),
            points: values,
            ink: Ink::Strong,
            stroke: Stroke::Thin,
            labelled: false,
        });
        if let Some(limit) = drawn {
            marks.push(Mark::Level { y: limit, label: format!("limit {}", resource.unit().text(limit)) });
        }
        charts.push(Chart {
            id: format!("{}-{index}-{position}", resource.name().to_lowercase()),
            title: shorten(name, 40),
            description: format!("{} of {name}, at most {}.", resource.name(), resource.unit().text(peak)),
            x: time_axis(data),
            y: resource.axis(most.max(drawn.unwrap_or(0.0))),
            height: 84.0,
            marks,
        });
    }
    (!charts.is_empty()).then(|| Figure {
        heading: format!("{} of {}", resource.name(), using.service),
        note: note(using, resource, lines.len(), most),
        charts,
        small: true,
        table,
        file: "resources.csv",
        ..Figure::default()
    })
}

fn row(name: &str, at: f64, cpu: f64, memory: f64) -> Vec<String> {
    vec![name.into(), Unit::Seconds.text(at), Unit::Cores.text(cpu), Unit::Bytes.text(memory)]
}

fn note(using: &ServiceUse, resource: Resource, replicas: usize, most: f64) -> String {
    let unit = resource.unit();
    let what = if resource == Resource::Cpu { " cores" } else { "" };
    let who = if replicas == 1 { "The replica" } else { "The busiest replica" };
    let limit = match resource.limit(using) {
        Some(limit) => format!("of the {}{what} that each may use", unit.text(limit)),
        None => "with no limit but the machine's".into(),
    };
    format!("{who} reached {}{what}, {limit}. Shades are the load stages.", unit.text(most))
}

fn crowd(
    data: &Data,
    using: &ServiceUse,
    index: usize,
    bands: &[Band],
    resource: Resource,
) -> Option<Figure> {
    let most = bands.iter().map(|b| resource.quantiles(b)[4]).fold(0.0, f64::max);
    let limit = resource.limit(using).filter(|limit| *limit <= most * 3.0);
    let mut marks: Vec<Mark> = shades(data).collect();
    for (low, high, strong) in [(0, 4, false), (1, 3, true)] {
        let points =
            bands.iter().map(|b| (b.at, resource.quantiles(b)[low], resource.quantiles(b)[high])).collect();
        marks.push(Mark::Area { points, ink: Ink::Series(0), strong });
    }
    marks.push(Mark::Line {
        name: "median replica".into(),
        points: bands.iter().map(|b| (b.at, resource.quantiles(b)[2])).collect(),
        ink: Ink::Series(0),
        stroke: Stroke::Solid,
        labelled: false,
    });
    if let Some(limit) = limit {
        marks.push(Mark::Level { y: limit, label: format!("limit {}", resource.unit().text(limit)) });
    }
    let mut table = Table::new(&["across replicas", "time", "CPU in cores", "memory"]);
    for band in bands {
        for (position, name) in QUANTILE_NAMES.iter().enumerate() {
            table.rows.push(row(name, band.at, band.cpu[position], band.memory[position]));
        }
    }
    let replicas = using.totals.len();
    (!bands.is_empty()).then(|| Figure {
        heading: format!("{} of {}", resource.name(), using.service),
        note: note(using, resource, replicas, most),
        key: vec![
            (Ink::Series(0), Sign::Line, format!("median of {}", plural(replicas as u64, "replica"))),
            (Ink::Series(0), Sign::Block, "80 % of the replicas".into()),
            (Ink::Series(0), Sign::Area, "from the least to the most".into()),
        ],
        charts: vec![Chart {
            id: format!("{}-{index}", resource.name().to_lowercase()),
            title: format!("{} of {} replicas over time", resource.name(), using.service),
            description: format!("Quantiles across replicas, at most {}.", resource.unit().text(most)),
            x: time_axis(data),
            y: resource.axis(most.max(limit.unwrap_or(0.0))),
            height: 180.0,
            marks,
        }],
        table,
        file: "resources.csv",
        ..Figure::default()
    })
}

/// Answers by replica, for stages in which more than one replica answered.
pub fn balance(data: &Data) -> Option<Figure> {
    let shared: Vec<(usize, &Load)> =
        data.loads.iter().enumerate().filter(|(_, load)| load.by_replica().len() > 1).collect();
    let mut table = Table::new(&["replica", "stage", "answers", "share"]);
    let mut charts = Vec::new();
    let mut notes = Vec::new();
    for (index, load) in shared.iter().take(crate::figures::MAX_STAGES) {
        let answers = load.by_replica();
        let total: f64 = answers.values().map(|n| *n as f64).sum();
        if total <= 0.0 {
            continue;
        }
        let mut shares: Vec<f64> = answers.values().map(|n| *n as f64 / total).collect();
        shares.sort_by(f64::total_cmp);
        for (name, count) in &answers {
            table.rows.push(vec![
                (*name).into(),
                load.stage.name.clone(),
                Unit::Count.text(*count as f64),
                Unit::Share.text(*count as f64 / total),
            ]);
        }
        let fair = 1.0 / shares.len() as f64;
        let (least, most) = (shares.first().copied().unwrap_or(0.0), shares.last().copied().unwrap_or(0.0));
        notes.push(format!(
            "{}: from {} to {} of the answers each; an equal share would be {}.",
            load.stage.name,
            Unit::Share.text(least),
            Unit::Share.text(most),
            Unit::Share.text(fair)
        ));
        charts.push(shares_chart(*index, load, fair, most));
    }
    (!charts.is_empty()).then(|| Figure {
        heading: "How the balancer shared the load".into(),
        note: notes.join(" "),
        key: vec![(Ink::Quiet, Sign::Dashed, "an equal share".into())],
        charts,
        small: true,
        table,
        file: "balance.csv",
    })
}

/// A bar for each replica; of a crowd, the sorted shares of every so many.
fn shares_chart(index: usize, load: &Load, fair: f64, most: f64) -> Chart {
    const MAX_BARS: usize = 100;
    let answers = load.by_replica();
    let count = answers.len();
    let total: f64 = answers.values().map(|n| *n as f64).sum();
    let mut shares: Vec<(&str, f64)> =
        answers.into_iter().map(|(name, n)| (name, n as f64 / total)).collect();
    let mut x = Axis::new(Scale::Linear { low: 0.0, high: count as f64 }, Unit::Count, "replica");
    if count <= MAX_SINGLE {
        // `web-10` after `web-9`: by length first, as the names end in numbers.
        shares.sort_by_key(|(name, _)| (name.len(), *name));
        x.names =
            shares.iter().enumerate().map(|(i, (name, _))| (i as f64 + 0.5, short_name(name))).collect();
    } else {
        shares.sort_by(|a, b| a.1.total_cmp(&b.1));
        x.label = "replicas, sorted by share".into();
    }
    let shown: Vec<f64> = crate::figure::evenly(&shares, MAX_BARS).map(|(_, share)| *share).collect();
    let wide = count as f64 / shown.len().max(1) as f64;
    let bars =
        shown.iter().enumerate().map(|(i, share)| (i as f64 * wide, (i + 1) as f64 * wide, *share)).collect();
    Chart {
        id: format!("balance-{index}"),
        title: load.stage.name.clone(),
        description: format!("Share of the answers of each of {count} replicas."),
        x,
        y: Axis::new(Scale::from_zero(most), Unit::Share, "share of answers"),
        height: 84.0,
        marks: vec![
            Mark::Bars { name: "share".into(), bars, ink: Ink::Series(index) },
            Mark::Level { y: fair, label: String::new() },
        ],
    }
}

/// The number of a replica in its service, or a name cut to a few letters.
fn short_name(name: &str) -> String {
    match name.rsplit_once('-') {
        Some((_, number)) if !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) => {
            shorten(number, 8)
        }
        _ => shorten(name, 8),
    }
}
