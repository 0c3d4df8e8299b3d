//! The report of one run.

use crate::chart::Ink;
use crate::data::{Data, Load, Metric, Spread};
use crate::figure::{MAX_ROWS, Table};
use crate::page::Page;
use crate::quantity::{MISSING, Unit, count, digits, plural, seconds};
use crate::svg::escape;
use crate::{figures, resources};
use std::fmt::Write as _;
use throng_model::run::{Outcome, Run, Stage};

/// Events and stages listed on the page; events.csv and run.json hold all.
const MAX_LISTED: usize = 200;
/// A text of a run longer than this is cut: an error may hold a whole log.
const MAX_TEXT: usize = 2_000;

pub fn html(run: &Run) -> String {
    let data = Data::of(run);
    let drawn = |figures: &[crate::figure::Figure]| figures.iter().map(|f| f.html()).collect::<String>();
    let latencies: Vec<_> = figures::distributions(&data)
        .into_iter()
        .chain(figures::percentiles(&data))
        .chain(crate::repetitions::repetitions(&data))
        .collect();
    let replicas: Vec<_> = resources::balance(&data).into_iter().chain(resources::resources(&data)).collect();
    let over_time = figures::over_time(&data);
    Page {
        title: title(run),
        kicker: kicker(run),
        lead: lead(run),
        sections: vec![
            ("figures", "At a glance", overview(&data)),
            ("latency", "Latency", drawn(&latencies)),
            ("time", "Over time", if over_time.charts.is_empty() { String::new() } else { over_time.html() }),
            ("replicas", "Replicas", drawn(&replicas)),
            ("thresholds", "Thresholds", thresholds(run)),
            ("stages", "What was done", stages(run)),
            ("events", "Events", events(run)),
            ("environment", "Environment", environment(run)),
            ("method", "How it was measured", method(&data)),
        ],
        footer: format!(
            "Run {} · written by throng {} · everything drawn here is also in the CSV files and in run.json.",
            escape(&run.id),
            escape(&run.environment.throng)
        ),
    }
    .html()
}

pub fn title(run: &Run) -> String {
    [&run.title, &run.project, &run.id]
        .into_iter()
        .find(|t| !t.trim().is_empty())
        .map_or("A run", |t| t)
        .to_string()
}

/// `22 November 2026, 14:15 UTC`; what is not a time stays as it is.
pub fn when(started_at: &str) -> String {
    started_at
        .parse::<jiff::Timestamp>()
        .map(|at| at.strftime("%-d %B %Y, %H:%M UTC").to_string())
        .unwrap_or_else(|_| started_at.to_string())
}

fn kicker(run: &Run) -> String {
    let mut parts = vec![run.project.clone(), when(&run.started_at), seconds(run.seconds)];
    parts.retain(|part| !part.is_empty());
    parts.join(" · ")
}

pub fn outcome_text(outcome: Outcome) -> (&'static str, &'static str) {
    match outcome {
        Outcome::Passed => ("held", "✓ Passed"),
        Outcome::Failed => ("missed", "✗ A threshold did not hold"),
        Outcome::Interrupted => ("missed", "◼ Interrupted"),
    }
}

fn lead(run: &Run) -> String {
    let (class, word) = outcome_text(run.outcome);
    let mut out = format!("<p><span class=\"badge {class}\">{word}</span></p>");
    if !run.description.is_empty() {
        let _ = write!(out, "<p>{}</p>", escape(&cut(&run.description)));
    }
    if !run.variables.is_empty() {
        let list: Vec<String> =
            run.variables.iter().map(|(name, value)| format!("{name} = {value}")).collect();
        let _ = write!(out, "<p class=\"aside\">With {}.</p>", escape(&cut(&list.join(", "))));
    }
    let learnt = if run.summary.is_empty() { crate::learn(run) } else { run.summary.clone() };
    out.push_str("<ul class=\"lessons\" aria-label=\"What was learnt\">");
    for line in learnt.iter().take(MAX_ROWS) {
        let _ = write!(out, "<li class=\"lesson\">{}</li>", escape(&cut(line)));
    }
    out.push_str("</ul>");
    out
}

fn cut(text: &str) -> String {
    crate::chart::shorten(text, MAX_TEXT)
}

/// The main figures by load stage, with the spread of the repetitions below them.
fn overview(data: &Data) -> String {
    if data.loads.is_empty() {
        return String::new();
    }
    let most = |metric| data.loads.iter().filter_map(|l| l.middle(metric)).fold(0.0, f64::max);
    let (slowest, fastest) = (most(Metric::P50), most(Metric::Rate));
    let mut out = String::from(
        "<div class=\"scroll\" tabindex=\"0\"><table class=\"overview\"><thead><tr><th scope=\"col\">load stage</th>\
         <th scope=\"col\">answers/s</th><th scope=\"col\">median</th><th scope=\"col\">mean</th>\
         <th scope=\"col\">95 %</th><th scope=\"col\">99 %</th><th scope=\"col\">slowest</th><th scope=\"col\">failed</th></tr></thead><tbody>",
    );
    for (index, load) in data.loads.iter().enumerate().take(MAX_LISTED) {
        let class = Ink::Series(index).class();
        let replicas = load.replicas().map(|n| plural(n, "replica"));
        let detail: Vec<String> = [Some(cut(&load.stage.detail)).filter(|d| !d.is_empty()), replicas]
            .into_iter()
            .flatten()
            .collect();
        let _ = write!(
            out,
            "<tr><th scope=\"row\"><span class=\"chip {class}\"></span>{}<small>{}</small></th>",
            escape(&load.stage.name),
            escape(&detail.join(", "))
        );
        out.push_str(&cell(load.spread(Metric::Rate), Unit::Rate, Some((fastest, &class))));
        out.push_str(&cell(load.spread(Metric::P50), Unit::Latency, Some((slowest, &class))));
        let mean = load.middle(Metric::Mean).map_or_else(|| MISSING.into(), |v| Unit::Latency.text(v));
        let _ = write!(out, "<td>{mean}</td>");
        for metric in [Metric::P95, Metric::P99, Metric::Max] {
            out.push_str(&cell(load.spread(metric), Unit::Latency, None));
        }
        out.push_str(&failed(load));
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table></div>");
    out.push_str(&failure_kinds(data));
    if data.loads.iter().any(|l| l.repetitions.len() > 1) {
        out.push_str(
            "<p class=\"aside\">Where a load was repeated, the figure is the median of the repetitions; below it stand the \
             lowest and the highest.</p>",
        );
    }
    out
}

fn cell(spread: Option<Spread>, unit: Unit, meter: Option<(f64, &str)>) -> String {
    let Some(spread) = spread else { return format!("<td>{MISSING}</td>") };
    let mut out = format!("<td>{}", unit.text(spread.middle));
    if spread.repetitions > 1 {
        let _ = write!(out, "<small>{}</small>", crate::quantity::range(unit, spread.low, spread.high));
    }
    if let Some((most, class)) = meter.filter(|(most, _)| *most > 0.0) {
        let width = (spread.middle / most * 100.0).clamp(0.0, 100.0);
        let _ = write!(out, "<span class=\"meter {class}\" style=\"width:{width:.0}%\"></span>");
    }
    out.push_str("</td>");
    out
}

fn failed(load: &Load) -> String {
    let failed = load.failed();
    if failed == 0 {
        return "<td>0</td>".into();
    }
    let share = failed as f64 / load.requests().max(failed) as f64;
    format!(
        "<td><span class=\"missed\">{}</span><small>{}</small></td>",
        count(failed),
        Unit::Share.text(share)
    )
}

/// Which failures there were; empty if there were none.
fn failure_kinds(data: &Data) -> String {
    let told: Vec<String> = data
        .loads
        .iter()
        .filter(|load| load.failed() > 0)
        .take(MAX_ROWS)
        .map(|load| {
            let kinds: Vec<String> =
                load.errors().iter().map(|(kind, n)| format!("{} × {kind}", count(*n))).collect();
            format!("{}: {}", load.stage.name, kinds.join(", "))
        })
        .collect();
    if told.is_empty() {
        return String::new();
    }
    format!("<p class=\"aside\">What failed. {}.</p>", escape(&cut(&told.join("; "))))
}

fn thresholds(run: &Run) -> String {
    let all: Vec<_> =
        run.stages.iter().flat_map(|s| s.thresholds.iter().map(move |t| (s.name.as_str(), t))).collect();
    if all.is_empty() {
        return String::new();
    }
    let mut out = String::from(
        "<div class=\"scroll\" tabindex=\"0\"><table><thead><tr><th scope=\"col\">stage</th><th scope=\"col\" class=\"text\">wanted</th>\
         <th scope=\"col\">measured</th><th scope=\"col\">result</th></tr></thead><tbody>",
    );
    for (stage, threshold) in all.iter().take(MAX_LISTED) {
        let (class, word) = if threshold.held { ("held", "✓ held") } else { ("missed", "✗ missed") };
        let _ = write!(
            out,
            "<tr><th scope=\"row\">{}</th><td class=\"text\">{}</td><td>{}</td><td class=\"{class}\">{word}</td></tr>",
            escape(stage),
            escape(&cut(&threshold.expression)),
            escape(&cut(&threshold.measured))
        );
    }
    out.push_str("</tbody></table></div>");
    out
}

fn stages(run: &Run) -> String {
    if run.stages.is_empty() {
        return String::new();
    }
    let mut out = String::from("<ol class=\"stages\">");
    for stage in run.stages.iter().take(MAX_LISTED) {
        let _ = write!(
            out,
            "<li><span class=\"when\">{} → {}</span><div><strong>{}</strong>{}<p>{}</p>",
            seconds(stage.begin),
            seconds(stage.end),
            escape(&stage.name),
            if stage.detail.is_empty() {
                String::new()
            } else {
                format!(" · {}", escape(&cut(&stage.detail)))
            },
            explained(stage)
        );
        if let Some(error) = &stage.error {
            let _ = write!(out, "<p class=\"missed\">{}</p>", escape(&cut(error)));
        }
        if !stage.log.is_empty() {
            let lines: Vec<String> = stage.log.iter().map(|line| escape(&cut(line))).collect();
            let _ = write!(out, "<pre class=\"log\">{}</pre>", lines.join("\n"));
        }
        out.push_str("</div></li>");
    }
    out.push_str("</ol>");
    out
}

/// What the experiment's author says about the stage, else what such a stage does.
fn explained(stage: &Stage) -> String {
    if stage.explain.trim().is_empty() { explanation(stage) } else { escape(&cut(&stage.explain)) }
}

/// What a stage of this kind does, for a reader who sees one for the first time.
fn explanation(stage: &Stage) -> String {
    match stage.kind.as_str() {
        "up" => "Starts every service in a container of its own and waits until its health check says that it is ready.".into(),
        "scale" => "Changes how many replicas of the service run. The balancer sends requests to those that are ready.".into(),
        "load" => load_explanation(stage),
        "wait" => "Waits until the condition holds.".into(),
        "pause" => "Leaves everything as it is for a while, so that it can be looked at.".into(),
        _ => String::new(),
    }
}

fn load_explanation(stage: &Stage) -> String {
    let open = stage.loads.first().is_some_and(|load| load.schedule.starts_with("open"));
    let how = if open {
        "Requests are due at set times, whether or not earlier ones have been answered. Each latency counts from the moment the request was due, so that waiting caused by the service is not hidden."
    } else {
        "Each client sends its next request as soon as its last one has been answered, as people at as many counters would; the service itself sets the pace."
    };
    match stage.loads.len() {
        0 | 1 => how.into(),
        n => format!("{how} Carried out {n} times, to see how far the figures scatter."),
    }
}

fn events(run: &Run) -> String {
    if run.events.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&["time", "kind", "what happened"]);
    // The grave ones are listed even if there is no room for all.
    let (grave, fine): (Vec<_>, Vec<_>) = run.events.iter().partition(|e| figures::grave(e));
    let mut listed: Vec<_> = grave.into_iter().take(MAX_LISTED).collect();
    let room = MAX_LISTED - listed.len();
    listed.extend(fine.into_iter().take(room));
    listed.sort_by(|a, b| a.at.total_cmp(&b.at));
    for event in &listed {
        let what = match event.subject.as_str() {
            "" => event.message.clone(),
            subject => format!("{subject}: {}", event.message),
        };
        table.rows.push(vec![Unit::Seconds.text(event.at), event.kind.clone(), cut(&what)]);
    }
    let rest = match run.events.len() - listed.len() {
        0 => String::new(),
        n => format!("<p class=\"aside\">{} more are in events.csv.</p>", count(n as u64)),
    };
    let heading = plural(run.events.len() as u64, "event");
    let html = table.html(MAX_LISTED).replacen("<table>", "<table class=\"events\">", 1);
    format!("<details><summary>{heading}</summary>{html}{rest}</details>")
}

fn environment(run: &Run) -> String {
    let env = &run.environment;
    let mut out = String::from("<dl>");
    let mut pair = |name: &str, value: &str| {
        if !value.trim().is_empty() {
            let _ = write!(out, "<dt>{}</dt><dd>{}</dd>", escape(&cut(name)), escape(&cut(value)));
        }
    };
    pair("processor", &env.cpu);
    if env.cores > 0 {
        pair("cores", &count(u64::from(env.cores)));
    }
    if env.memory_bytes > 0 {
        pair("memory", &Unit::Bytes.text(env.memory_bytes as f64));
    }
    pair("operating system", &env.operating_system);
    pair("kernel", &env.kernel);
    pair("control groups", &env.cgroup);
    pair("isolation of replicas", &env.isolation);
    if env.unlimited {
        pair("limits of replicas", "not enforced");
    }
    pair("user", &env.user);
    pair("throng", &env.throng);
    for (name, value) in env.details.iter().take(MAX_LISTED) {
        pair(name, value);
    }
    out.push_str("</dl>");
    out
}

fn method(data: &Data) -> String {
    if data.loads.is_empty() {
        return String::new();
    }
    let mut out = String::from(
        "<p>Each answer's time goes into a histogram with three significant digits, so no answer is dropped or averaged \
         away; only successful answers count for latency, failures are counted by kind.",
    );
    if !data.uses.is_empty() {
        out.push_str(
            " The generator of the load and the replicas share one machine, so each takes from the other.",
        );
    }
    out.push_str("</p>");
    let little: Vec<String> = data
        .loads
        .iter()
        .take(MAX_ROWS)
        .filter_map(|load| {
            let (clients, rate, mean) =
                (load.clients?, load.middle(Metric::Rate)?, load.middle(Metric::Mean)?);
            let inside = rate * mean / 1e6;
            (inside > 0.0).then(|| {
                format!(
                    "{}: {} × {} = {} of {}",
                    load.stage.name,
                    Unit::Rate.text(rate),
                    Unit::Latency.text(mean),
                    digits(inside),
                    plural(clients, "client")
                )
            })
        })
        .collect();
    if !little.is_empty() {
        let _ = write!(
            out,
            "<p>A check with Little's law: answers per second times the mean latency is the number of requests under way, \
             which in a closed loop comes near the number of clients. {}.</p>",
            escape(&little.join("; "))
        );
    }
    out
}
