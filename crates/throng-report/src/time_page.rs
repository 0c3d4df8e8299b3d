//! Several things over one time axis, side by side: for what is no recorded run and is to look like one.

use crate::chart::{Axis, Chart, Ink, Mark, Stroke};
use crate::figure::{Figure, Sign, evenly};
use crate::page::Page;
use crate::quantity::{Unit, seconds};
use crate::scale::Scale;
use crate::svg::escape;
use crate::terminal::{Border, Grid, wrap};
use std::fmt::Write as _;

/// Things on one page, as many as there are colours; later ones repeat them.
pub const MAX_THINGS: usize = crate::chart::COLOURS;
/// Points of one line; of more, the extremes are drawn.
const MAX_POINTS: usize = 480;
/// Happenings that are listed; of more, an even choice is.
const MAX_HAPPENINGS: usize = 40;
/// Columns that a thing's figures take in a terminal.
const FIGURE_ROOM: usize = 11;

/// What a page says.
#[derive(Debug, Clone, Default)]
pub struct TimePage {
    pub title: String,
    /// Line above the title.
    pub kicker: String,
    /// Paragraphs below it.
    pub lead: Vec<String>,
    /// What was learnt, in sentences.
    pub lessons: Vec<String>,
    /// What is compared; each has its colour everywhere.
    pub things: Vec<Thing>,
    /// Rows: what is measured, and its text for each thing.
    pub figures: Vec<(String, Vec<String>)>,
    /// How to read the plots.
    pub note: String,
    /// One under the other on the same axis.
    pub plots: Vec<TimePlot>,
    /// Where the time axis ends, in seconds.
    pub horizon: f64,
    pub happenings: Vec<Happening>,
    /// The file that has all of them, where the page does not.
    pub happenings_file: String,
    /// What it was made with: names and values.
    pub facts: Vec<(String, String)>,
    pub footer: String,
}

#[derive(Debug, Clone, Default)]
pub struct Thing {
    /// Short, for the head of a column.
    pub name: String,
    /// What it is, in a few words.
    pub about: String,
}

impl Thing {
    fn told(&self) -> String {
        if self.about.is_empty() { self.name.clone() } else { format!("{}: {}", self.name, self.about) }
    }
}

#[derive(Debug, Clone)]
pub struct TimePlot {
    /// Letters, digits and hyphens, unique on the page.
    pub id: &'static str,
    pub title: String,
    /// What the vertical axis measures.
    pub label: String,
    pub unit: PlotUnit,
    /// CSS pixels.
    pub height: f64,
    pub series: Vec<TimeSeries>,
    /// Lines across the plot, such as targets.
    pub levels: Vec<(f64, String)>,
}

#[derive(Debug, Clone)]
pub struct TimeSeries {
    /// Which thing it is about; `None` for all of them.
    pub thing: Option<usize>,
    pub name: String,
    /// Holds each value until the next point.
    pub steps: bool,
    /// Seconds and values.
    pub points: Vec<(f64, f64)>,
}

/// What numbers are counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlotUnit {
    Number,
    Count,
    PerSecond,
    /// 0 to 1, written in per cent.
    Share,
    Seconds,
}

impl PlotUnit {
    fn unit(self) -> Unit {
        match self {
            PlotUnit::Number => Unit::Cores,
            PlotUnit::Count => Unit::Count,
            PlotUnit::PerSecond => Unit::Rate,
            PlotUnit::Share => Unit::Share,
            PlotUnit::Seconds => Unit::Seconds,
        }
    }

    /// The value with three significant digits and its unit.
    pub fn text(self, value: f64) -> String {
        self.unit().text(value)
    }
}

/// Something that happened to a thing.
#[derive(Debug, Clone)]
pub struct Happening {
    /// Seconds.
    pub at: f64,
    pub thing: usize,
    pub title: String,
    pub text: String,
}

pub fn html(page: &TimePage) -> String {
    let mut lead: String = page.lead.iter().map(|text| format!("<p>{}</p>", escape(text))).collect();
    if !page.lessons.is_empty() {
        lead.push_str("<ul class=\"lessons\">");
        for lesson in &page.lessons {
            let _ = write!(lead, "<li class=\"lesson\">{}</li>", escape(lesson));
        }
        lead.push_str("</ul>");
    }
    Page {
        title: page.title.clone(),
        kicker: page.kicker.clone(),
        lead,
        sections: vec![
            ("figures", "In figures", figures(page)),
            ("time", "Over time", plots(page)),
            ("changes", "What happened when", happenings(page)),
            ("facts", "What was assumed", facts(page)),
        ],
        footer: escape(&page.footer),
    }
    .html()
}

/// The figures for a terminal that is `width` columns wide. Things are numbered, and named above.
pub fn text(page: &TimePage, width: usize) -> String {
    let mut out = String::new();
    for (index, thing) in page.things.iter().enumerate() {
        out.push_str(&wrap(&format!("[{}] ", index + 1), &thing.told(), width));
    }
    let names = page.figures.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let block = (width.saturating_sub(names) / (FIGURE_ROOM + 2)).max(1);
    let all: Vec<usize> = (0..page.things.len()).collect();
    for things in all.chunks(block) {
        let head =
            std::iter::once(String::new()).chain(things.iter().map(|thing| format!("[{}]", thing + 1)));
        let rows = page.figures.iter().map(|(name, values)| {
            let values = things.iter().map(|thing| values.get(*thing).cloned().unwrap_or_default());
            std::iter::once(name.clone()).chain(values).collect()
        });
        let grid = Grid { head: head.collect(), rows: rows.collect(), optional: Vec::new() };
        out.push('\n');
        out.push_str(&grid.render(width, Border::None));
    }
    if !page.lessons.is_empty() {
        out.push('\n');
    }
    out.extend(page.lessons.iter().map(|lesson| wrap("* ", lesson, width)));
    out
}

fn figures(page: &TimePage) -> String {
    if page.figures.is_empty() {
        return String::new();
    }
    let mut out =
        String::from("<div class=\"scroll\" tabindex=\"0\"><table><thead><tr><th scope=\"col\">figure</th>");
    for (index, thing) in page.things.iter().enumerate() {
        let class = Ink::Series(index).class();
        let _ =
            write!(out, "<th scope=\"col\"><span class=\"chip {class}\"></span>{}</th>", escape(&thing.name));
    }
    out.push_str("</tr></thead><tbody>");
    for (name, values) in &page.figures {
        let _ = write!(out, "<tr><th scope=\"row\">{}</th>", escape(name));
        for value in values {
            let _ = write!(out, "<td>{}</td>", escape(value));
        }
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table></div>");
    out
}

fn plots(page: &TimePage) -> String {
    let key = page.things.iter().enumerate();
    let figure = Figure {
        heading: String::new(),
        note: page.note.clone(),
        key: key.map(|(index, thing)| (Ink::Series(index), Sign::Line, thing.told())).collect(),
        charts: page.plots.iter().map(|plot| chart(plot, page.horizon)).collect(),
        ..Figure::default()
    };
    if figure.charts.is_empty() { String::new() } else { figure.html() }
}

fn chart(plot: &TimePlot, horizon: f64) -> Chart {
    let unit = plot.unit.unit();
    let values = plot.series.iter().flat_map(|series| &series.points).map(|point| point.1);
    let top = values.chain(plot.levels.iter().map(|level| level.0)).fold(0.0, f64::max);
    // Round in the unit of the ticks: minutes or hours rather than seconds.
    let divisor = unit.axis(top).0;
    let y = match Scale::from_zero(top / divisor) {
        Scale::Linear { low, high } => Scale::Linear { low, high: high * divisor },
        other => other,
    };
    let levels = plot.levels.iter().map(|(y, label)| Mark::Level { y: *y, label: label.clone() });
    let mut marks: Vec<Mark> = levels.collect();
    marks.extend(plot.series.iter().map(mark));
    let told = plot.series.iter().map(|series| {
        let most = series.points.iter().map(|point| point.1).fold(0.0, f64::max);
        format!("{} up to {}", series.name, unit.text(most))
    });
    let told: Vec<String> = told.collect();
    Chart {
        id: plot.id.into(),
        title: plot.title.clone(),
        description: format!("{}: {}.", plot.title, told.join(", ")),
        x: Axis::new(Scale::Linear { low: 0.0, high: horizon.max(1.0) }, Unit::Seconds, "time"),
        y: Axis::new(y, unit, &plot.label),
        height: plot.height,
        marks,
    }
}

fn mark(series: &TimeSeries) -> Mark {
    let (name, ink) = (series.name.clone(), series.thing.map_or(Ink::Strong, Ink::Series));
    if series.steps {
        return Mark::Steps { name, points: thinned(&changes(&series.points)), ink, labelled: false };
    }
    Mark::Line { name, points: thinned(&series.points), ink, stroke: Stroke::Solid, labelled: false }
}

/// The points at which a value is another than before, and the last one.
fn changes(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut kept: Vec<(f64, f64)> = Vec::new();
    for (index, point) in points.iter().enumerate() {
        if index + 1 == points.len() || kept.last().is_none_or(|last| last.1 != point.1) {
            kept.push(*point);
        }
    }
    kept
}

/// At most about [`MAX_POINTS`] points, without losing a peak or a dip: of each stretch the least and the most.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    if points.len() <= MAX_POINTS {
        return points.to_vec();
    }
    let mut kept = Vec::with_capacity(MAX_POINTS + 2);
    kept.push(points[0]);
    for stretch in points.chunks(points.len().div_ceil(MAX_POINTS / 2)) {
        let by_value = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        let (Some(least), Some(most)) = (stretch.iter().min_by(by_value), stretch.iter().max_by(by_value))
        else {
            continue;
        };
        let (first, second) = if least.0 <= most.0 { (least, most) } else { (most, least) };
        kept.push(*first);
        if second.0 > first.0 {
            kept.push(*second);
        }
    }
    kept.push(points[points.len() - 1]);
    kept.dedup();
    kept
}

fn happenings(page: &TimePage) -> String {
    if page.happenings.is_empty() {
        return String::new();
    }
    let mut out = String::new();
    if page.happenings.len() > MAX_HAPPENINGS {
        let _ = write!(
            out,
            "<p class=\"aside\">{MAX_HAPPENINGS} of {}, evenly chosen; {} has them all.</p>",
            page.happenings.len(),
            escape(&page.happenings_file)
        );
    }
    out.push_str("<ol class=\"stages\">");
    for happening in evenly(&page.happenings, MAX_HAPPENINGS) {
        let _ = write!(
            out,
            "<li><span class=\"when\">{}</span><div><strong><span class=\"chip {}\"></span>{}</strong><p>{}</p></div></li>",
            seconds(happening.at),
            Ink::Series(happening.thing).class(),
            escape(&happening.title),
            escape(&happening.text)
        );
    }
    out.push_str("</ol>");
    out
}

fn facts(page: &TimePage) -> String {
    if page.facts.is_empty() {
        return String::new();
    }
    let mut out = String::from("<dl>");
    for (name, value) in &page.facts {
        let _ = write!(out, "<dt>{}</dt><dd>{}</dd>", escape(name), escape(value));
    }
    out.push_str("</dl>");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn thing(name: &str) -> Thing {
        Thing { name: name.into(), about: "about it".into() }
    }

    fn page() -> TimePage {
        let series = |thing: Option<usize>, name: &str, steps| TimeSeries {
            thing,
            name: name.into(),
            steps,
            points: (0..2_000).map(|i| (f64::from(i), f64::from(i % 7 + i / 100))).collect(),
        };
        TimePage {
            title: "a <b> & two".into(),
            things: ["one", "</script>"].map(thing).into(),
            lessons: vec!["They differ.".into()],
            figures: vec![("cost".into(), vec!["1".into(), "20 %".into()])],
            plots: vec![TimePlot {
                id: "x",
                title: "X".into(),
                label: "x".into(),
                unit: PlotUnit::Share,
                height: 100.0,
                series: vec![
                    series(Some(0), "one", true),
                    series(Some(1), "two", false),
                    series(None, "all", false),
                ],
                levels: vec![(5.0, "limit".into())],
            }],
            horizon: 2_000.0,
            happenings: (0..100)
                .map(|i| Happening {
                    at: f64::from(i),
                    thing: 1,
                    title: "up".into(),
                    text: "because <i>".into(),
                })
                .collect(),
            facts: vec![("seed".into(), "1".into())],
            happenings_file: "all.csv".into(),
            ..TimePage::default()
        }
    }

    #[test]
    fn a_page_is_well_formed_and_holds_what_it_was_given() {
        let html = html(&page());
        assert!(html.contains("a &lt;b&gt; &amp; two") && html.contains("because &lt;i&gt;"));
        assert!(html.contains("40 of 100, evenly chosen; all.csv has them all"));
        assert_eq!(html.matches("<svg").count(), html.matches("</svg>").count());
        for part in html.split("<svg").skip(1) {
            let svg = format!("<svg{}</svg>", part.split("</svg>").next().unwrap_or_default());
            roxmltree::Document::parse(&svg).expect("well-formed");
        }
        assert!(!html.contains("NaN"));
    }

    #[test]
    fn the_terminal_has_blocks_that_fit() {
        let mut page = page();
        page.things = (0..8).map(|i| thing(&format!("spec {i}"))).collect();
        page.figures = vec![("replica-hours".into(), (0..8).map(|i| format!("{i}00.5")).collect())];
        for width in [30, 80, 200] {
            let text = text(&page, width);
            assert!(text.lines().all(|line| line.chars().count() <= width), "{text}");
            assert_eq!(text.matches("00.5").count(), 8, "{text}");
        }
        assert!(text(&page, 80).contains("[8] spec 7: about it\n"));
    }

    proptest! {
        #[test]
        fn thinning_keeps_extremes_ends_and_order(values in prop::collection::vec(-1e6f64..1e6, 1..3_000)) {
            let points: Vec<(f64, f64)> = values.iter().enumerate().map(|(i, v)| (i as f64, *v)).collect();
            let thin = thinned(&points);
            prop_assert!(thin.len() <= MAX_POINTS + 2);
            prop_assert!(thin.windows(2).all(|pair| pair[0].0 < pair[1].0));
            let most = |points: &[(f64, f64)]| points.iter().map(|p| p.1).fold(f64::MIN, f64::max);
            let least = |points: &[(f64, f64)]| points.iter().map(|p| p.1).fold(f64::MAX, f64::min);
            prop_assert_eq!((most(&thin), least(&thin)), (most(&points), least(&points)));
            prop_assert_eq!((thin.first(), thin.last()), (points.first(), points.last()));
        }
    }
}
