//! Charts as inline SVG: axes, marks, direct labels. A chart is drawn twice, for wide and for narrow screens, so that
//! its letters keep their size without a script; the style sheet shows one of the two.

use crate::quantity::Unit;
use crate::scale::{Scale, Tick};
use crate::svg::{coordinate, escape, path};
use std::fmt::Write as _;

/// Width in CSS pixels of the two drawings of a chart.
pub const WIDE: f64 = 760.0;
pub const NARROW: f64 = 350.0;
/// A cell of a small-multiple grid.
pub const CELL: f64 = 240.0;

/// The categorical palette has this many colours; series beyond it repeat them with dashes.
pub const COLOURS: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ink {
    /// One of the palette's colours, the same series in the same colour everywhere.
    Series(usize),
    Strong,
    Quiet,
    Bad,
}

impl Ink {
    pub fn class(self) -> String {
        match self {
            Ink::Series(index) => format!("s{}", index % COLOURS),
            Ink::Strong => "ink".into(),
            Ink::Quiet => "quiet".into(),
            Ink::Bad => "bad".into(),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stroke {
    Solid,
    Thin,
    Dashed,
}

impl Stroke {
    fn class(self) -> &'static str {
        match self {
            Stroke::Solid => "line",
            Stroke::Thin => "line thin",
            Stroke::Dashed => "line dashed",
        }
    }
}

#[derive(Debug, Clone)]
pub enum Mark {
    /// `name` stands in the read-out and, if `labelled`, at the line's end in the wide drawing.
    Line {
        name: String,
        points: Vec<(f64, f64)>,
        ink: Ink,
        stroke: Stroke,
        labelled: bool,
    },
    /// Holds each value until the next point.
    Steps {
        name: String,
        points: Vec<(f64, f64)>,
        ink: Ink,
        labelled: bool,
    },
    /// Between a lower and an upper value at each x.
    Area {
        points: Vec<(f64, f64, f64)>,
        ink: Ink,
        strong: bool,
    },
    /// Bars from the axis: (left, right, height).
    Bars {
        name: String,
        bars: Vec<(f64, f64, f64)>,
        ink: Ink,
    },
    Dots {
        name: String,
        points: Vec<(f64, f64)>,
        ink: Ink,
    },
    /// A horizontal line across the plot, such as a limit.
    Level {
        y: f64,
        label: String,
    },
    /// A vertical line over the plot, such as a median; `row` staggers labels that would touch.
    Upright {
        x: f64,
        label: String,
        ink: Ink,
        row: u8,
    },
    /// A span of the x axis with a name, such as a stage.
    Span {
        from: f64,
        to: f64,
        label: String,
        ink: Ink,
    },
    /// Something that happened at a moment, drawn in the lane at the foot of the plot.
    Moment {
        x: f64,
        ink: Ink,
        text: String,
    },
}

#[derive(Debug, Clone)]
pub struct Axis {
    pub scale: Scale,
    pub unit: Unit,
    /// What it measures; the unit is added.
    pub label: String,
    /// Names at values, where the axis shows things and not quantities.
    pub names: Vec<(f64, String)>,
}

impl Axis {
    pub fn new(scale: Scale, unit: Unit, label: &str) -> Axis {
        Axis { scale, unit, label: label.into(), names: Vec::new() }
    }

    fn ticks(&self, want: usize) -> Vec<Tick> {
        if self.names.is_empty() {
            return self.scale.ticks(self.unit, want);
        }
        self.names
            .iter()
            .map(|(value, name)| Tick { at: self.scale.at(*value), text: name.clone() })
            .collect()
    }

    /// The label with the unit of its ticks, where the ticks themselves do not carry it.
    pub fn title(&self) -> String {
        match self.scale {
            Scale::Linear { high, .. } => match self.unit.axis(high).1 {
                "" => self.label.clone(),
                "/s" => format!("{} per second", self.label),
                unit => format!("{} ({unit})", self.label),
            },
            Scale::Log { .. } => format!("{}, logarithmic", self.label),
            Scale::Tail { .. } => self.label.clone(),
        }
    }
}

#[derive(Debug, Clone)]
pub struct Chart {
    /// Unique in the document; letters, digits and hyphens.
    pub id: String,
    pub title: String,
    /// What the picture shows, for people who do not see it.
    pub description: String,
    pub x: Axis,
    pub y: Axis,
    /// Height of the plot area in CSS pixels.
    pub height: f64,
    pub marks: Vec<Mark>,
}

/// Drawings one under the other share the wider margins, so that their axes lie in line.
#[derive(Debug, Clone, Copy, Default)]
pub struct Margins {
    left: f64,
    right: f64,
}

impl Margins {
    pub fn widest(self, other: Margins) -> Margins {
        Margins { left: self.left.max(other.left), right: self.right.max(other.right) }
    }
}

/// The plot area inside the drawing.
#[derive(Debug, Clone, Copy)]
struct Frame {
    left: f64,
    top: f64,
    width: f64,
    height: f64,
}

const LETTER: f64 = 6.4;
const LABEL_GAP: f64 = 14.0;
/// Labels longer than this are cut: a service name may be of any length.
const LABEL_CHARS: usize = 18;

impl Chart {
    /// The drawing at one of the fixed widths, as one `svg` element.
    pub fn svg(&self, width: f64, margins: Margins) -> String {
        let frame = self.frame(width, margins);
        let name = format!("{}-{}", self.id, width as u32);
        let total = frame.top + frame.height + 38.0;
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"chart\" viewBox=\"0 0 {w} {h}\" width=\"{w}\" height=\"{h}\" \
             role=\"img\" aria-labelledby=\"{name}-t {name}-d\" data-chart=\"{id}\" data-plot=\"{l} {t} {pw} {ph}\">\
             <title id=\"{name}-t\">{title}</title><desc id=\"{name}-d\">{desc}</desc>",
            w = coordinate(width),
            h = coordinate(total),
            id = self.id,
            l = coordinate(frame.left),
            t = coordinate(frame.top),
            pw = coordinate(frame.width),
            ph = coordinate(frame.height),
            title = escape(&self.title),
            desc = escape(&self.description),
        );
        self.spans(&mut out, frame);
        self.axes(&mut out, frame, width);
        for mark in &self.marks {
            self.mark(&mut out, frame, mark);
        }
        if width > NARROW {
            self.end_labels(&mut out, frame);
        }
        out.push_str("<g class=\"hover\"></g></svg>");
        out
    }

    /// What the pointer reads out: for each series its points as places from 0 to 1 and their texts.
    pub fn readout(&self) -> serde_json::Value {
        let series: Vec<serde_json::Value> = self
            .marks
            .iter()
            .filter_map(|mark| {
                let (name, ink, points) = match mark {
                    Mark::Line { name, ink, points, .. }
                    | Mark::Steps { name, ink, points, .. }
                    | Mark::Dots { name, ink, points } => (
                        name,
                        ink,
                        points.iter().map(|(x, y)| self.reading(*x, *y, self.x_text(*x))).collect::<Vec<_>>(),
                    ),
                    Mark::Bars { name, ink, bars } => {
                        let text =
                            |from: f64, to: f64| format!("{} to {}", self.x_text(from), self.x_text(to));
                        let points = bars
                            .iter()
                            .map(|(from, to, y)| self.reading((from + to) / 2.0, *y, text(*from, *to)));
                        (name, ink, points.collect())
                    }
                    _ => return None,
                };
                (!name.is_empty() && !points.is_empty())
                    .then(|| serde_json::json!({ "name": name, "ink": ink.class(), "points": points }))
            })
            .collect();
        serde_json::json!({ "series": series, "steps": self.marks.iter().any(|m| matches!(m, Mark::Steps { .. })) })
    }

    fn reading(&self, x: f64, y: f64, x_text: String) -> serde_json::Value {
        let place = |at: f64| (at * 1e4).round() / 1e4;
        serde_json::json!([place(self.x.scale.at(x)), place(self.y.scale.at(y)), x_text, self.y.unit.text(y)])
    }

    fn x_text(&self, x: f64) -> String {
        match self.x.scale {
            Scale::Tail { .. } => crate::scale::percentile_label(x),
            _ => self.x.unit.text(x),
        }
    }

    /// Room that the labels left and right of the plot take.
    pub fn margins(&self, width: f64) -> Margins {
        let ticks = self.y.ticks(self.y_ticks());
        let widest = ticks.iter().map(|t| t.text.chars().count()).max().unwrap_or(1) as f64;
        let longest = self.end_label_texts().map(|l| l.chars().count().min(LABEL_CHARS)).max().unwrap_or(0);
        Margins {
            left: (widest * LETTER + 12.0).clamp(28.0, 110.0),
            right: if width > NARROW && longest > 0 { longest as f64 * LETTER + 16.0 } else { 14.0 },
        }
    }

    fn frame(&self, width: f64, margins: Margins) -> Frame {
        let Margins { left, right } = margins.widest(self.margins(width));
        let spans = self.marks.iter().any(|m| matches!(m, Mark::Span { .. }));
        let rows = self.marks.iter().filter_map(|m| match m {
            Mark::Upright { row, .. } => Some(f64::from(*row) + 1.0),
            _ => None,
        });
        let top = 24.0 + if spans { 20.0 } else { 0.0 } + rows.fold(0.0, f64::max) * 14.0;
        Frame { left, top, width: (width - left - right).max(60.0), height: self.height }
    }

    fn y_ticks(&self) -> usize {
        ((self.height / 32.0) as usize).clamp(2, 7)
    }

    fn end_label_texts(&self) -> impl Iterator<Item = &str> {
        self.marks.iter().filter_map(|mark| match mark {
            Mark::Line { name, labelled: true, .. } | Mark::Steps { name, labelled: true, .. } => {
                Some(name.as_str())
            }
            _ => None,
        })
    }

    fn place(&self, frame: Frame, x: f64, y: f64) -> (f64, f64) {
        (self.x_at(frame, x), frame.top + frame.height * (1.0 - self.y.scale.at(y)))
    }

    fn x_at(&self, frame: Frame, x: f64) -> f64 {
        frame.left + frame.width * self.x.scale.at(x)
    }

    fn axes(&self, out: &mut String, frame: Frame, width: f64) {
        let Frame { left, top, width: w, height: h } = frame;
        out.push_str("<g class=\"axis\">");
        for tick in self.y.ticks(self.y_ticks()) {
            let y = top + h * (1.0 - tick.at);
            let _ = write!(
                out,
                "<line class=\"grid\" x1=\"{}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\"/><text class=\"end\" x=\"{}\" y=\"{}\">{}</text>",
                coordinate(left),
                coordinate(left + w),
                coordinate(left - 7.0),
                coordinate(y + 4.0),
                escape(&tick.text),
                y = coordinate(y),
            );
        }
        let room = (w / if matches!(self.x.scale, Scale::Log { .. }) { 62.0 } else { 74.0 }) as usize;
        let mut free_from = f64::MIN;
        for tick in self.x.ticks(room.max(2)) {
            let x = left + w * tick.at;
            let half = tick.text.chars().count() as f64 * LETTER / 2.0;
            let _ = write!(
                out,
                "<line class=\"tick\" x1=\"{x}\" x2=\"{x}\" y1=\"{}\" y2=\"{}\"/>",
                coordinate(top + h),
                coordinate(top + h + 5.0),
                x = coordinate(x),
            );
            // A label that would touch its neighbour is left out; its tick stays.
            if x - half > free_from {
                let middle = x.clamp(half, (width - half).max(half));
                let _ = write!(
                    out,
                    "<text class=\"mid\" x=\"{}\" y=\"{}\">{}</text>",
                    coordinate(middle),
                    coordinate(top + h + 19.0),
                    escape(&tick.text)
                );
                free_from = x + half + 6.0;
            }
        }
        let _ = write!(
            out,
            "<line class=\"base\" x1=\"{}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\"/>\
             <text class=\"name\" x=\"0\" y=\"12\">{}</text><text class=\"name end\" x=\"{}\" y=\"{}\">{}</text></g>",
            coordinate(left),
            coordinate(left + w),
            escape(&self.y.title()),
            coordinate(left + w),
            coordinate(top + h + 34.0),
            escape(&self.x.title()),
            y = coordinate(top + h),
        );
    }

    /// Spans lie under everything else; their names stand above the plot where there is room for them.
    fn spans(&self, out: &mut String, frame: Frame) {
        for mark in &self.marks {
            let Mark::Span { from, to, label, ink } = mark else { continue };
            let (x0, x1) = (self.x_at(frame, *from), self.x_at(frame, *to));
            let wide = (x1 - x0).max(1.0);
            let _ = write!(
                out,
                "<g class=\"{}\"><title>{}</title><rect class=\"span\" x=\"{x}\" y=\"{}\" width=\"{w}\" height=\"{}\"/>\
                 <rect class=\"spanhead\" x=\"{x}\" y=\"{}\" width=\"{w}\" height=\"3\"/>",
                ink.class(),
                escape(label),
                coordinate(frame.top - 4.0),
                coordinate(frame.height + 4.0),
                coordinate(frame.top - 7.0),
                x = coordinate(x0),
                w = coordinate(wide),
            );
            let room = ((wide - 6.0).max(0.0) / LETTER) as usize;
            let text = shorten(label, room);
            if text.chars().count() >= label.chars().count().min(4) && room >= 3 {
                let _ = write!(
                    out,
                    "<text class=\"spanname\" x=\"{}\" y=\"{}\">{}</text>",
                    coordinate(x0),
                    coordinate(frame.top - 12.0),
                    escape(&text)
                );
            }
            out.push_str("</g>");
        }
    }

    fn mark(&self, out: &mut String, frame: Frame, mark: &Mark) {
        let foot = frame.top + frame.height;
        match mark {
            Mark::Line { points, ink, stroke, .. } => {
                let places: Vec<_> = points.iter().map(|(x, y)| self.place(frame, *x, *y)).collect();
                if let [only] = places.as_slice() {
                    dot(out, *only, *ink, 3.0);
                } else if !places.is_empty() {
                    let _ = write!(
                        out,
                        "<path class=\"{} {}\" d=\"{}\"/>",
                        stroke.class(),
                        ink.class(),
                        path(&places)
                    );
                }
            }
            Mark::Steps { points, ink, .. } => {
                let mut places: Vec<(f64, f64)> = Vec::with_capacity(points.len() * 2);
                for (x, y) in points {
                    let (x, y) = self.place(frame, *x, *y);
                    if let Some((_, before)) = places.last().copied() {
                        places.push((x, before));
                    }
                    places.push((x, y));
                }
                if !places.is_empty() {
                    let _ = write!(out, "<path class=\"line {}\" d=\"{}\"/>", ink.class(), path(&places));
                }
            }
            Mark::Area { points, ink, strong } => {
                let upper = points.iter().map(|(x, _, high)| self.place(frame, *x, *high));
                let lower = points.iter().rev().map(|(x, low, _)| self.place(frame, *x, *low));
                let outline: Vec<_> = upper.chain(lower).collect();
                if outline.len() >= 4 {
                    let class = if *strong { "area strong" } else { "area" };
                    let _ =
                        write!(out, "<path class=\"{class} {}\" d=\"{}Z\"/>", ink.class(), path(&outline));
                }
            }
            Mark::Bars { bars, ink, .. } => {
                let _ = write!(out, "<g class=\"bars {}\">", ink.class());
                for (from, to, value) in bars {
                    let (x0, y) = self.place(frame, *from, *value);
                    let wide = (self.x_at(frame, *to) - x0 - 1.0).max(1.0);
                    // A bar that holds anything at all stays visible.
                    let tall = if *value > 0.0 { (foot - y).max(1.0) } else { continue };
                    let _ = write!(
                        out,
                        "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"/>",
                        coordinate(x0 + 0.5),
                        coordinate(foot - tall),
                        coordinate(wide),
                        coordinate(tall)
                    );
                }
                out.push_str("</g>");
            }
            Mark::Dots { points, ink, .. } => {
                for (x, y) in points {
                    dot(out, self.place(frame, *x, *y), *ink, 1.8);
                }
            }
            Mark::Level { y, label } => self.level(out, frame, *y, label),
            Mark::Upright { x, label, ink, row } => self.upright(out, frame, *x, label, *ink, *row),
            Mark::Moment { x, ink, text } => {
                let x = self.x_at(frame, *x);
                let _ = write!(
                    out,
                    "<path class=\"moment {}\" d=\"{}Z\"><title>{}</title></path>",
                    ink.class(),
                    path(&[(x, foot - 9.0), (x + 4.0, foot), (x - 4.0, foot)]),
                    escape(text)
                );
            }
            Mark::Span { .. } => {}
        }
    }

    fn level(&self, out: &mut String, frame: Frame, y: f64, label: &str) {
        let (_, y) = self.place(frame, 0.0, y);
        let _ = write!(
            out,
            "<line class=\"level\" x1=\"{}\" x2=\"{}\" y1=\"{y}\" y2=\"{y}\"/><text class=\"note end\" x=\"{}\" y=\"{}\">{}</text>",
            coordinate(frame.left),
            coordinate(frame.left + frame.width),
            coordinate(frame.left + frame.width - 3.0),
            coordinate(if y < frame.top + 14.0 { y + 13.0 } else { y - 4.0 }),
            escape(label),
            y = coordinate(y),
        );
    }

    fn upright(&self, out: &mut String, frame: Frame, x: f64, label: &str, ink: Ink, row: u8) {
        let x = self.x_at(frame, x);
        let long = label.chars().count() as f64 * LETTER;
        let fits = x + long + 4.0 < frame.left + frame.width;
        let (anchor, text_x) = if fits { ("start", x + 3.0) } else { ("end", x - 3.0) };
        let y = frame.top - 4.0 - f64::from(row) * 14.0;
        let _ = write!(
            out,
            "<line class=\"upright {}\" x1=\"{x}\" x2=\"{x}\" y1=\"{}\" y2=\"{}\"/><text class=\"note {anchor}\" x=\"{}\" y=\"{}\">{}</text>",
            ink.class(),
            coordinate(y - 8.0),
            coordinate(frame.top + frame.height),
            coordinate(text_x),
            coordinate(y),
            escape(label),
            x = coordinate(x),
        );
    }

    /// Names at the ends of lines, pushed apart so that none covers another.
    fn end_labels(&self, out: &mut String, frame: Frame) {
        let mut labels: Vec<(f64, f64, &str, Ink)> = Vec::new();
        for mark in &self.marks {
            let (points, label, ink) = match mark {
                Mark::Line { points, ink, name, labelled: true, .. }
                | Mark::Steps { points, ink, name, labelled: true } => (points, name, ink),
                _ => continue,
            };
            if let Some((x, y)) = points.last() {
                let (x, y) = self.place(frame, *x, *y);
                labels.push((x, y, label, *ink));
            }
        }
        labels.sort_by(|a, b| a.1.total_cmp(&b.1));
        let mut places: Vec<f64> = labels.iter().map(|l| l.1).collect();
        for index in 1..places.len() {
            places[index] = places[index].max(places[index - 1] + LABEL_GAP);
        }
        let mut limit = frame.top + frame.height;
        for place in places.iter_mut().rev() {
            *place = place.min(limit);
            limit = *place - LABEL_GAP;
        }
        for ((x, _, label, ink), y) in labels.iter().zip(places) {
            let _ = write!(
                out,
                "<text class=\"endname {}\" x=\"{}\" y=\"{}\">{}</text>",
                ink.class(),
                coordinate(x + 7.0),
                coordinate(y + 4.0),
                escape(&shorten(label, LABEL_CHARS))
            );
        }
    }
}

fn dot(out: &mut String, (x, y): (f64, f64), ink: Ink, radius: f64) {
    let _ = write!(
        out,
        "<circle class=\"dot {}\" cx=\"{}\" cy=\"{}\" r=\"{radius}\"/>",
        ink.class(),
        coordinate(x),
        coordinate(y)
    );
}

/// At most `room` characters, the last one an ellipsis if something was cut.
pub fn shorten(text: &str, room: usize) -> String {
    if text.chars().count() <= room {
        return text.into();
    }
    let mut out: String = text.chars().take(room.saturating_sub(1)).collect();
    out.push('…');
    out
}
