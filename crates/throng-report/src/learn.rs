//! What a run taught, in plain sentences that claim no more than its figures show.

use crate::data::{Data, Load, Metric, Spread};
use crate::quantity::{Unit, latency, number_word, plural, times};
use throng_model::run::{Outcome, Run};

/// A change below this is called none: repetitions of the same load differ by as much.
const NOTABLE: f64 = 1.15;
/// From this part of its limit on, a replica is said to have used all of it.
const SATURATED: f64 = 0.9;
/// Below this part of the ideal speed-up, the scale-out is said to fall short.
const EFFICIENT: f64 = 0.85;
const MAX_LINES: usize = 3;

/// At most three lines: what more clients did, what more replicas did, and what falls short.
pub fn learn(run: &Run) -> Vec<String> {
    let data = Data::of(run);
    let mut lines = Vec::new();
    if let Some(stop) = stopped(run) {
        lines.push(stop);
    }
    let measured: Vec<&Load> = data.loads.iter().filter(|l| l.middle(Metric::P50).is_some()).collect();
    match measured.as_slice() {
        [] => lines.push(match data.loads.len() {
            0 => "No load was sent, so there is nothing to say about how fast the service is.".into(),
            _ => {
                format!("No request was answered{}; there are no latencies to judge.", failures_clause(&data))
            }
        }),
        [only] => lines.push(alone(&data, only)),
        several => {
            lines.extend(more_clients(&data, several));
            lines.extend(more_replicas(run, several));
            if lines.is_empty() {
                lines.extend(several.windows(2).next().map(|pair| neutral(pair[0], pair[1])));
            }
        }
    }
    if let Some(verdict) = verdict(&data, &measured) {
        lines.truncate(MAX_LINES - 1);
        lines.push(verdict);
    }
    lines.truncate(MAX_LINES);
    lines
}

fn stopped(run: &Run) -> Option<String> {
    let broken = run.stages.iter().find_map(|stage| Some((stage, stage.error.as_deref()?)));
    match (broken, run.outcome) {
        (Some((stage, error)), _) => Some(format!(
            "Stage {} could not be carried out: {}. What follows it is missing.",
            stage.name,
            error.trim_end_matches('.')
        )),
        (None, Outcome::Interrupted) => Some(
            "The run was stopped before its end; the figures cover only what had happened until then.".into(),
        ),
        _ => None,
    }
}

fn failures_clause(data: &Data) -> String {
    let kinds: Vec<String> = data
        .loads
        .iter()
        .flat_map(|l| l.errors())
        .take(3)
        .map(|(kind, count)| format!("{kind} {}", Unit::Count.text(count as f64)))
        .collect();
    if kinds.is_empty() { String::new() } else { format!(" ({})", kinds.join(", ")) }
}

/// `10 clients`, `stage "burst"`.
fn subject(load: &Load) -> String {
    match load.clients {
        Some(1) => "a single client".into(),
        Some(clients) => plural(clients, "client"),
        None => format!("stage {}", load.stage.name),
    }
}

fn alone(data: &Data, load: &Load) -> String {
    let p50 = load.middle(Metric::P50).unwrap_or(0.0);
    let p95 = load.middle(Metric::P95).unwrap_or(p50);
    let rate = load.middle(Metric::Rate).unwrap_or(0.0);
    format!(
        "With {}{}, half of the answers came within {} and 95 % within {}, {} in all{}.",
        subject(load),
        load.replicas().map(|r| format!(" and {}", plural(r, "replica"))).unwrap_or_default(),
        latency(p50),
        latency(p95),
        Unit::Rate.text(rate),
        bottleneck(data, load).map(|b| format!("; {b}")).unwrap_or_default()
    )
}

fn comparable(a: &Load, b: &Load) -> bool {
    let target = |l: &Load| l.repetitions.first().map(|r| r.result.target.clone());
    target(a) == target(b)
}

/// The first later stage that differs from an earlier one in nothing but more clients.
fn more_clients(data: &Data, loads: &[&Load]) -> Option<String> {
    let (few, many) = pairs(loads).find(|(a, b)| {
        comparable(a, b)
            && a.replicas() == b.replicas()
            && matches!((a.clients, b.clients), (Some(x), Some(y)) if y > x)
    })?;
    let (before, after) = (few.spread(Metric::P50)?, many.spread(Metric::P50)?);
    let figures = format!("{} → {}", latency(before.middle), latency(after.middle));
    let who = format!("{} at once", number_word(many.clients?));
    let clients = who.replace(" at once", " clients at once");
    let ratio = after.middle / before.middle;
    Some(match change(before, after) {
        Change::Up => {
            let why = bottleneck(data, many).map(|b| format!(": {b}")).unwrap_or_default();
            format!(
                "{clients} made the median answer {} times slower than {} did ({figures}){why}.",
                times(ratio),
                subject(few)
            )
        }
        Change::Down => format!(
            "{clients} got their median answer sooner than {} ({figures}), which more load alone does not explain: look for warm-up or caching.",
            subject(few)
        ),
        Change::None => format!(
            "{clients} waited about as long for the median answer as {} ({figures}): this load does not reach the service's limit.",
            subject(few)
        ),
        Change::Unclear => format!(
            "{clients} and {} cannot be told apart by the median answer ({figures}): the repetitions lie further apart than the two.",
            subject(few)
        ),
    })
}

/// The last stage that differs from an earlier one in nothing but more replicas.
fn more_replicas(run: &Run, loads: &[&Load]) -> Option<String> {
    let (before, after) = scaled(loads)?;
    let (r0, r1) = (before.spread(Metric::Rate)?, after.spread(Metric::Rate)?);
    let (l0, l1) = (before.middle(Metric::P50)?, after.middle(Metric::P50)?);
    let many = number_word(after.replicas()?);
    let few = match before.replicas()? {
        1 => "one".to_string(),
        n => n.to_string(),
    };
    let rates = format!("{} → {}", Unit::Rate.text(r0.middle), Unit::Rate.text(r1.middle));
    let medians = format!("{} → {}", latency(l0), latency(l1));
    if before.is_open() {
        // In an open loop the load is given, so that only latency can tell.
        return Some(format!(
            "{many} replicas instead of {few} changed the median answer from {} to {} under the same arrivals.",
            latency(l0),
            latency(l1)
        ));
    }
    let factor = times(r1.middle / r0.middle);
    let word = match l1 / l0 {
        ratio if ratio > NOTABLE => "rose",
        ratio if ratio < 1.0 / NOTABLE => "fell",
        _ => "hardly moved",
    };
    Some(match change(r0, r1) {
        Change::Up => format!(
            "{many} replicas carried {factor} times the load of {few} ({rates}), and the median answer {word} ({medians})."
        ),
        Change::Down => format!(
            "{many} replicas carried only {factor} times the load of {few} ({rates}): adding replicas made it worse."
        ),
        Change::None if run.environment.unlimited => format!(
            "{many} replicas carried no more than {few} ({rates}): limits on CPU are not enforced here, so {few} may already use all that the machine has."
        ),
        Change::None => {
            format!("{many} replicas carried no more than {few} ({rates}): the limit lies elsewhere.")
        }
        Change::Unclear => format!(
            "Whether {} replicas carry more than {few} cannot be told ({rates}): the repetitions lie further apart than the two.",
            many.to_lowercase()
        ),
    })
}

fn scaled<'d, 'a>(loads: &[&'d Load<'a>]) -> Option<(&'d Load<'a>, &'d Load<'a>)> {
    pairs(loads)
        .filter(|(a, b)| {
            let schedule = |l: &Load| l.repetitions.first().map(|r| r.result.schedule.clone());
            comparable(a, b)
                && (if a.clients.is_some() { a.clients == b.clients } else { schedule(a) == schedule(b) })
                && matches!((a.replicas(), b.replicas()), (Some(x), Some(y)) if y > x)
        })
        .max_by_key(|(a, b)| b.replicas().unwrap_or(0).saturating_sub(a.replicas().unwrap_or(0)))
}

fn pairs<'d, 'a>(loads: &[&'d Load<'a>]) -> impl Iterator<Item = (&'d Load<'a>, &'d Load<'a>)> {
    let loads = loads.to_vec();
    (0..loads.len()).flat_map(move |i| {
        let rest = loads[i + 1..].to_vec();
        let first = loads[i];
        rest.into_iter().map(move |second| (first, second))
    })
}

fn neutral(a: &Load, b: &Load) -> String {
    let figure = |l: &Load| latency(l.middle(Metric::P50).unwrap_or(0.0));
    format!(
        "The median answer took {} in {} and {} in {}; the two differ in more than one thing, so the cause is open.",
        figure(a),
        a.stage.name,
        figure(b),
        b.stage.name
    )
}

enum Change {
    Up,
    Down,
    None,
    /// Different middles, but the repetitions overlap.
    Unclear,
}

fn change(before: Spread, after: Spread) -> Change {
    let ratio = after.middle / before.middle;
    let repeated = before.repetitions > 1 || after.repetitions > 1;
    if !ratio.is_finite() || (1.0 / NOTABLE..=NOTABLE).contains(&ratio) {
        Change::None
    } else if repeated && before.low <= after.high && after.low <= before.high {
        Change::Unclear
    } else if ratio > 1.0 {
        Change::Up
    } else {
        Change::Down
    }
}

/// What was used up while a load ran, if the samples show it.
fn bottleneck(data: &Data, load: &Load) -> Option<String> {
    let spans: Vec<(f64, f64)> =
        load.repetitions.iter().map(|r| (r.result.begin, r.result.begin + r.result.seconds)).collect();
    let using = data.loaded_service(load)?;
    let each = using.mean_cpu(&spans)?;
    let cores = f64::from(data.run.environment.cores);
    let all: f64 = load.replicas().unwrap_or(1) as f64 * each;
    if let Some(limit) = using.cpu_limit.filter(|limit| each >= limit * SATURATED) {
        let who = match load.replicas() {
            Some(1) => "one replica was the bottleneck (it".to_string(),
            _ => "the replicas were the bottleneck (each".to_string(),
        };
        return Some(format!("{who} used {each:.2} of its {limit:.2} CPUs)"));
    }
    // More than there is cannot have been used: then the samples are not to be trusted.
    (cores > 0.0 && (cores * SATURATED..cores * 1.1).contains(&all)).then(|| {
        format!("the replicas together used {all:.2} of the machine's {} cores, so the machine was the bottleneck", cores)
    })
}

/// What falls short; failures first, as figures that leave them out look better than they are.
fn verdict(data: &Data, measured: &[&Load]) -> Option<String> {
    if measured.is_empty() {
        return None;
    }
    failures(data)
        .or_else(|| missed_thresholds(data))
        .or_else(|| shortfall(data, measured))
        .or_else(|| scattered(measured))
        .or_else(|| measured.len().gt(&1).then(|| all_well(data)).flatten())
}

fn failures(data: &Data) -> Option<String> {
    let worst = data.loads.iter().filter(|l| l.failed() > 0).max_by(|a, b| {
        let share = |l: &Load| l.failed() as f64 / l.requests().max(1) as f64;
        share(a).total_cmp(&share(b))
    })?;
    let kinds: Vec<String> = worst
        .errors()
        .iter()
        .take(3)
        .map(|(kind, n)| format!("{kind}: {}", Unit::Count.text(*n as f64)))
        .collect();
    Some(format!(
        "In {}, {} of {} failed ({}); the latencies count only the answers that succeeded.",
        worst.stage.name,
        Unit::Count.text(worst.failed() as f64),
        plural(worst.requests().max(worst.failed()), "request"),
        kinds.join(", ")
    ))
}

fn missed_thresholds(data: &Data) -> Option<String> {
    let all = || data.run.stages.iter().flat_map(|s| s.thresholds.iter().map(move |t| (s, t)));
    let missed: Vec<_> = all().filter(|(_, t)| !t.held).collect();
    let (stage, first) = missed.first()?;
    Some(format!(
        "{} of {} did not hold: {} wanted {} and got {}.",
        Unit::Count.text(missed.len() as f64),
        plural(all().count() as u64, "threshold"),
        stage.name,
        first.expression,
        first.measured
    ))
}

/// Whether scaling out brought back what a lone client sees, and how near it came to the ideal.
fn shortfall(data: &Data, measured: &[&Load]) -> Option<String> {
    let (before, after) = scaled(measured)?;
    let ideal = after.replicas()? as f64 / before.replicas()?.max(1) as f64;
    let gain = after.middle(Metric::Rate)? / before.middle(Metric::Rate)?;
    let lone =
        measured.iter().find(|l| l.clients == Some(1) && comparable(l, after) && after.clients != Some(1));
    let mut parts = Vec::new();
    if !before.is_open() && !before.is_paced() && gain > NOTABLE && gain < ideal * EFFICIENT {
        let why = bottleneck(data, after).map(|b| format!(": {b}")).unwrap_or_default();
        parts.push(format!("the gain is {} where {} would be ideal{why}", times(gain), times(ideal)));
    }
    if let Some(lone) = lone {
        let ratio = after.middle(Metric::P50)? / lone.middle(Metric::P50)?;
        if ratio.is_finite() && ratio > NOTABLE {
            parts.push(format!(
                "with {}, the median answer still takes {} times as long as for a single client, as {} share {}",
                plural(after.replicas()?, "replica"),
                times(ratio),
                plural(after.clients?, "client"),
                if after.replicas()? == 1 { "it" } else { "them" }
            ));
        }
    }
    let mut text = parts.join("; ");
    let first = text.get(..1)?.to_uppercase();
    text.replace_range(..1, &first);
    Some(format!("{text}."))
}

fn scattered(measured: &[&Load]) -> Option<String> {
    let (load, spread) = measured
        .iter()
        .filter_map(|l| Some((l, l.spread(Metric::P50)?)))
        .filter(|(_, s)| s.repetitions > 1 && s.low > 0.0 && s.high / s.low > 1.5)
        .max_by(|a, b| (a.1.high / a.1.low).total_cmp(&(b.1.high / b.1.low)))?;
    Some(format!(
        "The repetitions of {} scatter: their medians lie between {} and {}, so small differences mean nothing.",
        load.stage.name,
        latency(spread.low),
        latency(spread.high)
    ))
}

fn all_well(data: &Data) -> Option<String> {
    let thresholds = data.run.stages.iter().map(|s| s.thresholds.len()).sum::<usize>();
    let requests = data.loads.iter().fold(0u64, |sum, l| sum.saturating_add(l.requests()));
    let held = match thresholds {
        0 => String::new(),
        1 => ", and the threshold held".into(),
        n => format!(", and all {n} thresholds held"),
    };
    let answers = data
        .loads
        .iter()
        .flat_map(|l| &l.repetitions)
        .fold(0u64, |n, r| n.saturating_add(r.result.succeeded));
    (requests > 0 && answers >= requests)
        .then(|| format!("All {} were answered{held}.", plural(requests, "request")))
}
