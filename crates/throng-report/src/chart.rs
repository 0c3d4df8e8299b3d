//! Charts as inline SVG: axes, marks, direct labels. A chart is drawn twice, for wide and for narrow screens, so that
//! its letters keep their size without a script; the style sheet shows one of the two.

mod draw;

use crate::quantity::Unit;
use crate::scale::{Scale, Tick};
use crate::svg::{coordinate, escape};
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
    /// A span of the x axis in which something was amiss on purpose; one that is over at once is a line. `row` staggers
    /// the texts of those that overlap.
    Fault {
        from: f64,
        to: f64,
        text: String,
        row: u8,
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
/// Labels longer than this are cut: a service name may be of any length.
const LABEL_CHARS: usize = 24;

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
            title = escape(if self.title.trim().is_empty() { "without a name" } else { &self.title }),
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
        let named = |(at, _): &&(f64, String)| (at - x).abs() <= 0.5;
        if let Some((_, name)) = self.x.names.iter().find(named) {
            return name.clone();
        }
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
            let middle = x.clamp(half, (width - half).max(half));
            if middle - half > free_from {
                let _ = write!(
                    out,
                    "<text class=\"mid\" x=\"{}\" y=\"{}\">{}</text>",
                    coordinate(middle),
                    coordinate(top + h + 19.0),
                    escape(&tick.text)
                );
                free_from = middle + half + 6.0;
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
