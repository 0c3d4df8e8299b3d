//! `throng autoscale simulate`: specs and a load in, figures and plots out.

use super::manifest::{self, Manifest};
use super::page;
use crate::cli::{
    BetweenArgument, ControllerArguments, DemandArguments, ShapeArgument, SimulateArguments, SimulateFormat,
    UnitArgument, WorldArguments,
};
use crate::failure::{Failure, Kind, Result, io};
use crate::terminal::{width, wrap};
use serde::Serialize;
use serde_json::{Value, json};
use std::io::Read;
use std::path::Path;
use throng_autoscale::simulate::trace::{self, Between, TraceError, TraceOptions};
use throng_autoscale::simulate::{
    self, Demand, Figures, MemoryUse, Outcome, Period, Scaling, Scenario, Shape, Synthetic, Unit,
    Unsupported, World,
};
use throng_autoscale::{Age, Controller};
use throng_model::diagnostic::{Diagnostic, Location};

/// Specs in one comparison, as many as there are colours to tell them apart.
const SPECS_MOST: usize = throng_report::MAX_THINGS;
/// Looks of all controllers together, so that what is kept and written of them stays below a few hundred megabytes.
const LOOKS_MOST: usize = simulate::LOOKS_MOST;
/// Of simulation.json and of `--format json`.
const VERSION: u32 = 1;
/// Noise of a made-up load, which would otherwise be smoother than any real one.
const NOISE_USUAL: f64 = 0.05;
const DAY: u32 = 86_400;
/// How long a made-up load that is no day lasts, in seconds.
const HOURS_USUAL: u32 = 7_200;

/// A load, and what to call it.
pub struct Load {
    pub demand: Demand,
    pub source: String,
    /// Standard deviation of the noise, as a share.
    pub noise: f64,
    pub seed: u64,
}

/// A simulated spec.
pub struct Simulated {
    /// No two have the same.
    pub name: String,
    pub manifest: Manifest,
    pub outcome: Outcome,
}

pub fn run(arguments: &SimulateArguments) -> Result<()> {
    if arguments.spec.len() > SPECS_MOST {
        let message =
            format!("{} specs are more than {SPECS_MOST}, the most that are compared", arguments.spec.len());
        return Err(Failure::new(Kind::Input, message).hint("compare them in several simulations"));
    }
    let scenario = scenario(&arguments.world, &arguments.controller);
    let manifests = manifests(arguments)?;
    let load = load(&arguments.demand)?;
    let looks = load.demand.length() / scenario.sync_period.max(1) as usize * manifests.len();
    if looks > LOOKS_MOST {
        let message =
            format!("{looks} looks of all controllers are more than {LOOKS_MOST}, the most that are kept");
        let hint = "compare fewer specs at once, simulate a shorter time, or raise --sync-period";
        return Err(Failure::new(Kind::Input, message).hint(hint));
    }
    let names = names(&manifests);
    let mut simulated = Vec::with_capacity(manifests.len());
    for (name, manifest) in names.into_iter().zip(manifests) {
        let outcome = simulate::simulate(&manifest.spec, &load.demand, &scenario);
        let outcome = outcome.map_err(|error| refused(&manifest, &error))?;
        simulated.push(Simulated { name, manifest, outcome });
    }
    let written = match &arguments.out {
        Some(folder) => Some(write(folder, &load, &scenario, &simulated)?),
        None => None,
    };
    match arguments.format {
        SimulateFormat::Json => outln!("{}", document(&load, &scenario, &simulated, false)?),
        SimulateFormat::Text => {
            let page = page::page(&load, &scenario, &simulated);
            outln!("{}", wrap(&page.lead.join(" "), width()));
            out!("\n{}", throng_report::time_text(&page, width()));
            if let Some(page) = written {
                outln!("\nplots: {}", page.display());
            }
        }
    }
    Ok(())
}

fn manifests(arguments: &SimulateArguments) -> Result<Vec<Manifest>> {
    let mut manifests = Vec::new();
    let mut findings = Vec::new();
    for path in &arguments.spec {
        match manifest::read(path, arguments.controller.configurable_tolerance) {
            Ok(manifest) => manifests.push(manifest),
            Err(more) => findings.extend(more),
        }
    }
    if findings.is_empty() { Ok(manifests) } else { Err(findings.into()) }
}

/// The autoscalers' names; where two are the same, with their files or else their numbers.
fn names(manifests: &[Manifest]) -> Vec<String> {
    let distinct =
        |names: &[String]| names.iter().collect::<std::collections::BTreeSet<_>>().len() == names.len();
    let names: Vec<String> = manifests.iter().map(|manifest| manifest.name.clone()).collect();
    if distinct(&names) {
        return names;
    }
    let file = |manifest: &Manifest| format!("{} ({})", manifest.name, manifest.file.display());
    let names: Vec<String> = manifests.iter().map(file).collect();
    if distinct(&names) {
        return names;
    }
    names.iter().enumerate().map(|(index, name)| format!("{name} {}", index + 1)).collect()
}

fn refused(manifest: &Manifest, error: &Unsupported) -> Failure {
    match &error.path {
        Some(path) => vec![manifest.finding(path, &error.message, &error.hint)].into(),
        None => Failure::new(Kind::Input, error.message.clone()).hint(error.hint.clone()),
    }
}

fn scenario(world: &WorldArguments, controller: &ControllerArguments) -> Scenario {
    let age = |seconds: u32| Age::from_seconds(seconds.into());
    let memory = world.memory_request.zip(world.memory_usage);
    Scenario {
        world: World {
            capacity: world.capacity,
            cpu_request: world.cpu_request,
            cpu_limit: world.cpu_limit.unwrap_or(world.cpu_request),
            memory: memory.map(|(request, usage)| MemoryUse { request, usage }),
            startup: world.startup,
            startup_cpu: world.startup_cpu,
            patience: world.patience,
            metrics_resolution: controller.metrics_resolution,
            metrics_delay: controller.metrics_delay,
            metrics: controller.metric.iter().cloned().collect(),
        },
        controller: Controller {
            tolerance: controller.tolerance,
            cpu_initialization_period: age(controller.cpu_initialization_period),
            initial_readiness_delay: age(controller.initial_readiness_delay),
            downscale_stabilization: age(controller.downscale_stabilization),
            configurable_tolerance: controller.configurable_tolerance,
        },
        sync_period: controller.sync_period,
        replicas: world.replicas,
        over: world.over_target,
    }
}

fn load(arguments: &DemandArguments) -> Result<Load> {
    let unit = arguments.unit.map(|unit| match unit {
        UnitArgument::Requests => Unit::Requests,
        UnitArgument::Cores => Unit::Cores,
    });
    let (demand, source, usual) = match (&arguments.trace, arguments.synthetic) {
        (Some(path), _) => (recorded(path, arguments, unit)?, path.display().to_string(), 0.0),
        (None, shape) => {
            let (shape, name) = match shape.unwrap_or(ShapeArgument::Day) {
                ShapeArgument::Day => (Shape::Day, "a made-up day"),
                ShapeArgument::Step => (Shape::Step, "a made-up step"),
                ShapeArgument::Spike => (Shape::Spike, "a made-up spike"),
            };
            let usual = if shape == Shape::Day { DAY } else { HOURS_USUAL };
            let synthetic = Synthetic {
                shape,
                unit: unit.unwrap_or_default(),
                seconds: arguments.duration.unwrap_or(usual) as usize,
                base: arguments.base.unwrap_or(arguments.peak / 10.0),
                peak: arguments.peak,
            };
            (Demand::synthetic(&synthetic), name.to_owned(), NOISE_USUAL)
        }
    };
    let noise = arguments.noise.unwrap_or(usual);
    Ok(Load { demand: demand.with_noise(noise, arguments.seed), source, noise, seed: arguments.seed })
}

fn recorded(path: &Path, arguments: &DemandArguments, unit: Option<Unit>) -> Result<Demand> {
    let unreadable = |error: std::io::Error| {
        let failure = Failure::new(Kind::Input, format!("cannot read {}: {error}", path.display()));
        failure.hint("give the path of a CSV file to --trace")
    };
    let file = std::fs::File::open(path).map_err(unreadable)?;
    let mut text = Vec::new();
    // One byte more than is allowed, so that the reader sees that it is too long.
    file.take(trace::BYTES_MOST + 1).read_to_end(&mut text).map_err(unreadable)?;
    let options = TraceOptions {
        column: arguments.column.clone(),
        unit,
        between: match arguments.between {
            BetweenArgument::Line => Between::Line,
            BetweenArgument::Hold => Between::Hold,
        },
        gap_most: arguments.max_gap.map(|gap| gap.as_secs_f64()),
    };
    trace::read(&text, &options).map_err(|error| at_line(path, &text, error))
}

/// Findings point at whole lines: a row is short.
fn at_line(path: &Path, text: &[u8], error: TraceError) -> Failure {
    let Some(line) = error.line.and_then(|line| usize::try_from(line).ok()).filter(|line| *line > 0) else {
        let message = format!("{}: {}", path.display(), error.message);
        return Failure::new(Kind::Input, message).hint(error.hint);
    };
    let row = text.split(|byte| *byte == b'\n').nth(line - 1).unwrap_or_default();
    let length = String::from_utf8_lossy(row).trim_end().chars().count().max(1);
    let location = Location { file: path.to_owned(), line, column: 1, length };
    vec![Diagnostic::error(error.message).at(location).hint(error.hint)].into()
}

/// Writes the page and all that is plotted on it, and returns the page's path.
fn write(
    folder: &Path,
    load: &Load,
    scenario: &Scenario,
    simulated: &[Simulated],
) -> Result<std::path::PathBuf> {
    let named: Vec<(&str, &Outcome)> =
        simulated.iter().map(|simulated| (simulated.name.as_str(), &simulated.outcome)).collect();
    let csv = |result: std::result::Result<Vec<u8>, _>| {
        result.map_err(|error| io("write CSV", &std::io::Error::other(error)))
    };
    let page = throng_report::time_html(&page::page(load, scenario, simulated));
    let files = vec![
        ("simulation.json", document(load, scenario, simulated, true)?.into_bytes()),
        ("summary.csv", csv(simulate::summary_csv(&named))?),
        ("periods.csv", csv(simulate::periods_csv(&named))?),
        ("scalings.csv", csv(simulate::scalings_csv(&named))?),
        // Last, so that whoever finds the page finds its data too.
        ("simulation.html", page.into_bytes()),
    ];
    Ok(throng_report::write_files(folder, files)?.report)
}

/// Everything as JSON.
#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    load: Value,
    world: Value,
    controller: Value,
    specs: Vec<SpecDocument<'a>>,
}

#[derive(Serialize)]
struct SpecDocument<'a> {
    name: &'a str,
    file: &'a Path,
    described: String,
    figures: &'a Figures,
    notes: &'a [String],
    /// What changes over time, only where it is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    periods: Option<&'a [Period]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scalings: Option<&'a [Scaling]>,
}

fn document(load: &Load, scenario: &Scenario, simulated: &[Simulated], series: bool) -> Result<String> {
    let demand = &load.demand;
    let document = Document {
        version: VERSION,
        load: json!({
            "source": load.source, "unit": demand.unit, "begins": demand.begins, "seconds": demand.length(),
            "mean": demand.mean(), "peak": demand.peak(), "noisePercent": load.noise * 100.0, "seed": load.seed,
        }),
        world: world_document(&scenario.world),
        controller: controller_document(scenario),
        specs: simulated.iter().map(|one| spec_document(one, series)).collect(),
    };
    serde_json::to_string(&document).map_err(|error| io("write JSON", &error.into()))
}

fn spec_document(one: &Simulated, series: bool) -> SpecDocument<'_> {
    SpecDocument {
        name: &one.name,
        file: &one.manifest.file,
        described: one.manifest.described(),
        figures: &one.outcome.figures,
        notes: &one.outcome.notes,
        periods: series.then_some(&one.outcome.periods),
        scalings: series.then_some(&one.outcome.scalings),
    }
}

fn world_document(world: &World) -> Value {
    let mut document = json!(world);
    if let Some(memory) = world.memory {
        document["memoryRequest"] = json!(memory.request.binary());
        document["memoryUsage"] = json!(memory.usage.binary());
    }
    document
}

fn controller_document(scenario: &Scenario) -> Value {
    let controller = &scenario.controller;
    json!({
        "syncPeriodSeconds": scenario.sync_period,
        "tolerance": controller.tolerance,
        "cpuInitializationPeriodSeconds": controller.cpu_initialization_period.whole_seconds(),
        "initialReadinessDelaySeconds": controller.initial_readiness_delay.whole_seconds(),
        "downscaleStabilizationSeconds": controller.downscale_stabilization.whole_seconds(),
        "configurableTolerance": controller.configurable_tolerance,
    })
}
