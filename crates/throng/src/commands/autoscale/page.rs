//! Simulations for people: figures, plots over time, and what they come to.

use super::simulate::{Load, Simulated};
use throng_autoscale::simulate::{Figures, Period, Scenario, Unit};
use throng_report::{Happening, PlotUnit, Thing, TimePage, TimePlot, TimeSeries};

const MISSING: &str = "–";
/// Costs or times that differ by less than this share are called the same.
const SAME: f64 = 0.01;

/// The page of a comparison; the terminal shows its lead, figures and lessons.
pub fn page(load: &Load, scenario: &Scenario, simulated: &[Simulated]) -> TimePage {
    let demand = &load.demand;
    let things = simulated
        .iter()
        .map(|simulated| Thing { name: simulated.name.clone(), about: simulated.manifest.described() });
    let names: Vec<&str> = simulated.iter().map(|simulated| simulated.name.as_str()).collect();
    let subject = match names.as_slice() {
        [only] => (*only).to_owned(),
        names => format!("{} autoscalers", names.len()),
    };
    let lead = format!(
        "{} of {}: {} on average, {} at most.",
        PlotUnit::Seconds.text(demand.length() as f64),
        load.source,
        amount(demand.unit, demand.mean()),
        amount(demand.unit, demand.peak()),
    );
    let mut happenings: Vec<Happening> = simulated
        .iter()
        .enumerate()
        .flat_map(|(thing, simulated)| {
            simulated.outcome.scalings.iter().map(move |scaling| Happening {
                at: scaling.at as f64,
                thing,
                title: format!("{}: {} → {}", simulated.name, scaling.from, scaling.to),
                text: scaling.explanation.clone(),
            })
        })
        .collect();
    happenings.sort_by(|a, b| a.at.total_cmp(&b.at));
    TimePage {
        title: format!("{subject} under {}", load.source),
        kicker: "throng autoscale simulate".into(),
        lead: vec![lead],
        lessons: lessons(simulated),
        things: things.collect(),
        figures: figures(simulated),
        note: "All pictures share the time axis, and periods.csv holds all that they show. Replicas that start count \
               as replicas, but do not serve yet."
            .into(),
        plots: plots(load, simulated),
        horizon: demand.length() as f64,
        happenings,
        happenings_file: "scalings.csv".into(),
        facts: facts(load, scenario),
        footer: "Written by throng. Decisions are those of Kubernetes 1.34; the world around them is simulated, and \
                 simpler than yours."
            .into(),
    }
}

fn demand_unit(unit: Unit) -> PlotUnit {
    match unit {
        Unit::Requests => PlotUnit::PerSecond,
        Unit::Cores => PlotUnit::Number,
    }
}

fn amount(unit: Unit, value: f64) -> String {
    match unit {
        Unit::Requests => format!("{} requests/s", PlotUnit::Number.text(value)),
        Unit::Cores => format!("{} cores", PlotUnit::Number.text(value)),
    }
}

fn figures(simulated: &[Simulated]) -> Vec<(String, Vec<String>)> {
    let share = |percent: f64| PlotUnit::Share.text(percent / 100.0);
    let time = |seconds: i64| PlotUnit::Seconds.text(seconds as f64);
    let count = |count: usize| PlotUnit::Count.text(count as f64);
    let row = |name: &str, text: &dyn Fn(&Figures) -> String| {
        (name.to_owned(), simulated.iter().map(|simulated| text(&simulated.outcome.figures)).collect())
    };
    vec![
        row("replica-hours", &|f| PlotUnit::Number.text(f.replica_hours)),
        row("replicas, mean", &|f| PlotUnit::Number.text(f.replicas_mean)),
        row("replicas, most", &|f| PlotUnit::Count.text(f.replicas_most as f64)),
        row("time over target", &|f| share(f.over_target_percent)),
        row("over target for", &|f| time(f.over_target_seconds)),
        row("demand not served", &|f| share(f.unserved_percent)),
        row("scale-ups", &|f| count(f.scale_ups)),
        row("scale-downs", &|f| count(f.scale_downs)),
        row("first reaction", &|f| f.first_reaction_seconds.map_or_else(|| MISSING.into(), time)),
    ]
}

/// What the figures come to, claiming no more than they show.
fn lessons(simulated: &[Simulated]) -> Vec<String> {
    let mut lessons: Vec<String> = compared(simulated).into_iter().collect();
    for Simulated { name, outcome, .. } in simulated {
        lessons.extend(outcome.notes.iter().map(|note| match simulated.len() {
            1 => format!("Note: {note}."),
            _ => format!("{name}: {note}."),
        }));
    }
    lessons
}

fn compared(simulated: &[Simulated]) -> Option<String> {
    let cheap = simulated
        .iter()
        .min_by(|a, b| a.outcome.figures.replica_hours.total_cmp(&b.outcome.figures.replica_hours))?;
    let burden =
        |one: &Simulated| (one.outcome.figures.unserved_percent, one.outcome.figures.over_target_percent);
    let calm = simulated.iter().min_by(|a, b| {
        let (a, b) = (burden(a), burden(b));
        a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1))
    })?;
    if simulated.len() < 2 {
        return None;
    }
    let share = |percent: f64| PlotUnit::Share.text(percent / 100.0);
    let (least, other) = (&cheap.outcome.figures, &calm.outcome.figures);
    let saved = 1.0 - least.replica_hours / other.replica_hours.max(f64::MIN_POSITIVE);
    if std::ptr::eq(cheap, calm) || saved < SAME {
        return Some(format!(
            "{} serves best: it is over target for {} of the time, and none needs clearly fewer replica-hours.",
            calm.name,
            share(other.over_target_percent)
        ));
    }
    Some(format!(
        "{} needs {} fewer replica-hours than {}, but is over target for {} of the time instead of {}, and leaves {} of the \
         demand unserved instead of {}.",
        cheap.name,
        PlotUnit::Share.text(saved),
        calm.name,
        share(least.over_target_percent),
        share(other.over_target_percent),
        share(least.unserved_percent),
        share(other.unserved_percent),
    ))
}

fn plots(load: &Load, simulated: &[Simulated]) -> Vec<TimePlot> {
    let unit = load.demand.unit;
    let (asked, lost) = match unit {
        Unit::Requests => ("requests", "requests given up"),
        Unit::Cores => ("cores", "cores' worth given up"),
    };
    // All specs have seen the same demand.
    let demand = simulated.first().map(|first| TimeSeries {
        thing: None,
        name: "demand".into(),
        steps: false,
        points: points(&first.outcome.periods, |period| Some((middle(period), period.demand))),
    });
    let lines = |point: &dyn Fn(&Period) -> Option<(f64, f64)>| each(simulated, false, point);
    let replicas = each(simulated, true, &|period| Some((period.at as f64, period.replicas as f64)));
    let busy = lines(&|period| Some((middle(period), period.utilization? / 100.0)));
    let over = lines(&|period| Some((end(period), period.over_target_seconds_so_far as f64)));
    let hours = lines(&|period| Some((end(period), period.replica_hours_so_far)));
    let mut plots = vec![
        plot("demand", "Demand", asked, demand_unit(unit), 130.0, demand.into_iter().collect()),
        plot("replicas", "Replicas", "replicas", PlotUnit::Count, 150.0, replicas),
        TimePlot {
            levels: targets(simulated),
            ..plot(
                "busy",
                "Utilisation of ready replicas",
                "CPU in use, of the request",
                PlotUnit::Share,
                150.0,
                busy,
            )
        },
        plot("over", "Time over target, added up", "time over target", PlotUnit::Seconds, 110.0, over),
        plot("hours", "Replica-hours, added up", "replica-hours", PlotUnit::Number, 110.0, hours),
    ];
    if simulated.iter().any(|simulated| simulated.outcome.figures.unserved > 0.0) {
        let unserved =
            lines(&|period| Some((middle(period), period.unserved / period.seconds.max(1) as f64)));
        plots.insert(3, plot("unserved", "Demand not served", lost, demand_unit(unit), 90.0, unserved));
    }
    plots
}

fn plot(
    id: &'static str,
    title: &str,
    label: &str,
    unit: PlotUnit,
    height: f64,
    series: Vec<TimeSeries>,
) -> TimePlot {
    TimePlot { id, title: title.into(), label: label.into(), unit, height, series, levels: Vec::new() }
}

/// One line for each spec. Steps go on to the end of the last period.
fn each(
    simulated: &[Simulated],
    steps: bool,
    point: &dyn Fn(&Period) -> Option<(f64, f64)>,
) -> Vec<TimeSeries> {
    let series = |(thing, simulated): (usize, &Simulated)| {
        let periods = &simulated.outcome.periods;
        let mut points = points(periods, point);
        if let (true, Some(last), Some((_, value))) = (steps, periods.last(), points.last().copied()) {
            points.push((end(last), value));
        }
        TimeSeries { thing: Some(thing), name: simulated.name.clone(), steps, points }
    };
    simulated.iter().enumerate().map(series).collect()
}

fn middle(period: &Period) -> f64 {
    period.at as f64 + period.seconds as f64 / 2.0
}

fn end(period: &Period) -> f64 {
    (period.at + period.seconds) as f64
}

fn points(periods: &[Period], point: impl Fn(&Period) -> Option<(f64, f64)>) -> Vec<(f64, f64)> {
    periods.iter().filter_map(point).collect()
}

/// Above which utilisation a spec is over target, each value once.
fn targets(simulated: &[Simulated]) -> Vec<(f64, String)> {
    let mut targets: Vec<(f64, Vec<&str>)> = Vec::new();
    for Simulated { name, outcome, .. } in simulated {
        let Some(percent) = outcome.figures.over_target_above_percent else { continue };
        match targets.iter_mut().find(|(known, _)| (*known - percent).abs() < 0.05) {
            Some((_, names)) => names.push(name),
            None => targets.push((percent, vec![name])),
        }
    }
    let all = simulated.len();
    let label = |percent: f64, names: &[&str]| {
        let percent = PlotUnit::Share.text(percent / 100.0);
        if names.len() == all {
            format!("over target: {percent}")
        } else {
            format!("{}: {percent}", names.join(", "))
        }
    };
    targets.iter().map(|(percent, names)| (percent / 100.0, label(*percent, names))).collect()
}

fn facts(load: &Load, scenario: &Scenario) -> Vec<(String, String)> {
    let (world, controller) = (&scenario.world, &scenario.controller);
    let time = |seconds: i64| PlotUnit::Seconds.text(seconds as f64);
    let milli = |milli: i64| format!("{} cores", PlotUnit::Number.text(milli as f64 / 1000.0));
    let mut facts = vec![
        ("a replica serves".to_owned(), {
            let rate = PlotUnit::Number.text(world.capacity);
            format!("{rate} requests/s with all of its CPU request, {}", milli(world.cpu_request))
        }),
        ("it can use".into(), milli(world.cpu_limit)),
        ("it is ready".into(), format!("{} after it was asked for", time(world.startup.into()))),
        ("while it starts it uses".into(), milli(world.startup_cpu)),
        ("a request waits".into(), format!("{} at most", time(world.patience.into()))),
        (
            "CPU is measured".into(),
            format!(
                "every {}, and known {} later",
                time(world.metrics_resolution.into()),
                time(world.metrics_delay.into())
            ),
        ),
        ("the controller looks".into(), format!("every {}", time(scenario.sync_period.into()))),
        ("tolerance".into(), PlotUnit::Share.text(controller.tolerance)),
        (
            "CPU initialization period".into(),
            time(controller.cpu_initialization_period.whole_seconds().into()),
        ),
        ("initial readiness delay".into(), time(controller.initial_readiness_delay.whole_seconds().into())),
        ("downscale stabilization".into(), time(controller.downscale_stabilization.whole_seconds().into())),
        ("noise of the load".into(), format!("{}, seed {}", PlotUnit::Share.text(load.noise), load.seed)),
    ];
    if let Some(memory) = world.memory {
        let text =
            format!("{} of {} requested, whatever the load", memory.usage.binary(), memory.request.binary());
        facts.push(("memory in use".into(), text));
    }
    if let Some(begins) = &load.demand.begins {
        facts.push(("the recording begins".into(), begins.clone()));
    }
    facts
}
