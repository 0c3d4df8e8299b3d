//! How each kind of mark becomes elements of the drawing.

use super::{Chart, Frame, Ink, LABEL_CHARS, LETTER, Mark, shorten};
use crate::svg::{coordinate, escape, path};
use std::fmt::Write as _;

/// Distance between names at lines' ends.
const LABEL_GAP: f64 = 14.0;

impl Chart {
    /// Spans lie under everything else; their names stand above the plot where there is room for them.
    pub(super) fn spans(&self, out: &mut String, frame: Frame) {
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

    /// Over the stages and under the lines, with what it was at the top of the plot where there is room.
    fn fault(&self, out: &mut String, frame: Frame, (from, to): (f64, f64), text: &str, row: u8) {
        let (x0, x1) = (self.x_at(frame, from), self.x_at(frame, to));
        let wide = (x1 - x0).max(1.5);
        let _ = write!(
            out,
            "<g class=\"{}\"><title>{}</title><rect class=\"fault\" x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{}\"/>\
             <rect class=\"spanhead\" x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"2\"/>",
            Ink::Bad.class(),
            escape(text),
            coordinate(frame.height),
            x = coordinate(x0),
            y = coordinate(frame.top),
            w = coordinate(wide),
        );
        let room = ((wide - 6.0).max(0.0) / LETTER) as usize;
        if room >= 6 {
            let _ = write!(
                out,
                "<text class=\"spanname\" x=\"{}\" y=\"{}\">{}</text>",
                coordinate(x0 + 3.0),
                coordinate(frame.top + 14.0 + 13.0 * f64::from(row)),
                escape(&shorten(text, room))
            );
        }
        out.push_str("</g>");
    }

    pub(super) fn mark(&self, out: &mut String, frame: Frame, mark: &Mark) {
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
            Mark::Bars { bars, ink, .. } => self.bars(out, frame, bars, *ink),
            Mark::Dots { points, ink, .. } => {
                for (x, y) in points {
                    dot(out, self.place(frame, *x, *y), *ink, 1.8);
                }
            }
            Mark::Level { y, label } => self.level(out, frame, *y, label),
            Mark::Upright { x, label, ink, row } => {
                let row = if self.leftwards(frame) { self.top_row().saturating_sub(*row) } else { *row };
                self.upright(out, frame, *x, label, *ink, row);
            }
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
            Mark::Fault { from, to, text, row } => self.fault(out, frame, (*from, *to), text, *row),
            Mark::Span { .. } => {}
        }
    }

    fn bars(&self, out: &mut String, frame: Frame, bars: &[(f64, f64, f64)], ink: Ink) {
        let foot = frame.top + frame.height;
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

    fn top_row(&self) -> u8 {
        self.marks.iter().map(|m| if let Mark::Upright { row, .. } = m { *row } else { 0 }).max().unwrap_or(0)
    }

    /// Whether the labels of upright lines stand to their left because the rightmost would leave the plot. The rows
    /// are turned round then, so that still no line runs through another's label.
    fn leftwards(&self, frame: Frame) -> bool {
        let labels = || {
            self.marks.iter().filter_map(|m| match m {
                Mark::Upright { x, label, .. } => {
                    Some((self.x_at(frame, *x), label.chars().count() as f64 * LETTER + 4.0))
                }
                _ => None,
            })
        };
        labels().any(|(x, long)| x + long > frame.left + frame.width)
            && labels().all(|(x, long)| x - long > 0.0)
    }

    fn upright(&self, out: &mut String, frame: Frame, x: f64, label: &str, ink: Ink, row: u8) {
        let x = self.x_at(frame, x);
        let long = label.chars().count() as f64 * LETTER;
        let fits = x + long + 4.0 < frame.left + frame.width && !self.leftwards(frame);
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
    pub(super) fn end_labels(&self, out: &mut String, frame: Frame) {
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
