//! How far the repetitions of a load lie apart.

use crate::chart::{Axis, Chart, Ink, Mark};
use crate::data::{Data, Load, Metric, Repetition};
use crate::figure::{Figure, Sign, Table};
use crate::quantity::{MISSING, Unit};
use crate::scale::Scale;

const PICTURES: [(&str, Metric, Unit, &str); 3] = [
    ("median", Metric::P50, Unit::Latency, "Median latency"),
    ("p95", Metric::P95, Unit::Latency, "95th percentile"),
    ("rate", Metric::Rate, Unit::Rate, "Throughput"),
];

/// A dot for each repetition and a whisker from the lowest to the highest; `None` where nothing was repeated.
pub fn repetitions(data: &Data) -> Option<Figure> {
    let loads: Vec<(usize, &Load)> = data.loads.iter().enumerate().take(crate::figures::MAX_STAGES).collect();
    if loads.iter().all(|(_, load)| load.repetitions.len() < 2) {
        return None;
    }
    let mut table = Table::new(&["stage", "repetition", "answers/s", "median", "95 %"]);
    for (_, load) in &loads {
        for (index, repetition) in load.repetitions.iter().enumerate() {
            table.rows.push(vec![
                load.stage.name.clone(),
                (index + 1).to_string(),
                text(repetition, Metric::Rate, Unit::Rate),
                text(repetition, Metric::P50, Unit::Latency),
                text(repetition, Metric::P95, Unit::Latency),
            ]);
        }
    }
    Some(Figure {
        heading: "How far the repetitions lie apart".into(),
        note: "A dot is one repetition, the bar reaches from the lowest to the highest. Where the bars of two stages \
               overlap, their difference may be chance."
            .into(),
        key: loads.iter().map(|(i, load)| (Ink::Series(*i), Sign::Dot, load.stage.name.clone())).collect(),
        charts: PICTURES.iter().map(|picture| chart(&loads, *picture)).collect(),
        small: true,
        table,
        file: "repetitions.csv",
    })
}

fn text(repetition: &Repetition, metric: Metric, unit: Unit) -> String {
    repetition.metric(metric).map_or_else(|| MISSING.into(), |value| unit.text(value))
}

fn chart(loads: &[(usize, &Load)], (id, metric, unit, title): (&str, Metric, Unit, &str)) -> Chart {
    let mut marks = Vec::new();
    let mut told = Vec::new();
    let mut top = 0.0f64;
    for (place, (index, load)) in loads.iter().enumerate() {
        let Some(spread) = load.spread(metric) else { continue };
        let x = place as f64 + 0.5;
        top = top.max(spread.high);
        told.push(format!("{} {} to {}", load.stage.name, unit.text(spread.low), unit.text(spread.high)));
        // Dots stand beside each other in the order of the repetitions, so that a drift shows.
        let count = load.repetitions.len() as f64;
        let beside = |i: usize| x + ((i as f64 + 0.5) / count - 0.5) * 0.5;
        let values = load.repetitions.iter().enumerate();
        marks.push(Mark::Area {
            points: [x - 0.3, x + 0.3].map(|x| (x, spread.low, spread.high)).to_vec(),
            ink: Ink::Series(*index),
            strong: true,
        });
        marks.push(Mark::Dots {
            name: load.stage.name.clone(),
            points: values.filter_map(|(i, r)| Some((beside(i), r.metric(metric)?))).collect(),
            ink: Ink::Series(*index),
        });
    }
    let mut x =
        Axis::new(Scale::Linear { low: 0.0, high: loads.len() as f64 }, Unit::Count, "load stages in order");
    x.names = (0..loads.len()).map(|i| (i as f64 + 0.5, (i + 1).to_string())).collect();
    Chart {
        id: format!("repetitions-{id}"),
        title: title.into(),
        description: format!("Spread of the repetitions: {}.", told.join("; ")),
        x,
        y: Axis::new(Scale::from_zero(top), unit, if unit == Unit::Rate { "answers" } else { "latency" }),
        height: 120.0,
        marks,
    }
}
