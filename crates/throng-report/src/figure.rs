//! A figure on the page: heading, what it shows, key, drawings, and the same figures as a table.

use crate::chart::{CELL, Chart, Ink, Margins, NARROW, WIDE};
use crate::svg::{escape, script_json};
use std::fmt::Write as _;

/// Rows of the table below a figure; the CSV files hold all.
pub const MAX_ROWS: usize = 60;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sign {
    Line,
    Thin,
    Dashed,
    Area,
    Block,
    Dot,
    Triangle,
}

#[derive(Debug, Default)]
pub struct Table {
    pub head: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

#[derive(Debug, Default)]
pub struct Figure {
    pub heading: String,
    /// What there is to see, in a sentence or two.
    pub note: String,
    pub key: Vec<(Ink, Sign, String)>,
    pub charts: Vec<Chart>,
    /// Cells of a grid rather than full-width drawings one under the other.
    pub small: bool,
    pub table: Table,
    /// Which CSV file holds all of it.
    pub file: &'static str,
}

impl Figure {
    pub fn html(&self) -> String {
        let mut out = String::from("<figure>");
        let _ = write!(out, "<figcaption><h3>{}</h3>", escape(&self.heading));
        if !self.note.is_empty() {
            let _ = write!(out, "<p>{}</p>", escape(&self.note));
        }
        out.push_str("</figcaption>");
        self.key(&mut out);
        out.push_str(if self.small { "<div class=\"cells\">" } else { "<div class=\"stack\">" });
        let margins = |width| {
            let each = self.charts.iter().map(|chart| chart.margins(width));
            each.fold(Margins::default(), Margins::widest)
        };
        let widths = if self.small { vec![CELL] } else { vec![WIDE, NARROW] };
        let sizes: Vec<(f64, Margins)> = widths.into_iter().map(|width| (width, margins(width))).collect();
        for chart in &self.charts {
            self.chart(&mut out, chart, &sizes);
        }
        out.push_str("</div>");
        self.details(&mut out);
        out.push_str("</figure>");
        out
    }

    fn chart(&self, out: &mut String, chart: &Chart, sizes: &[(f64, Margins)]) {
        out.push_str("<div class=\"plot\">");
        if self.charts.len() > 1 || self.small {
            let _ = write!(out, "<h4>{}</h4>", escape(&chart.title));
        }
        for (width, margins) in sizes {
            let class = match *width {
                WIDE => "wide",
                NARROW => "narrow",
                _ => "cell",
            };
            let _ = write!(out, "<div class=\"{class}\">{}</div>", chart.svg(*width, *margins));
        }
        let _ = write!(
            out,
            "<script type=\"application/json\" data-for=\"{}\">{}</script></div>",
            chart.id,
            script_json(&chart.readout())
        );
    }

    fn key(&self, out: &mut String) {
        if self.key.is_empty() {
            return;
        }
        out.push_str("<ul class=\"key\">");
        for (ink, sign, name) in &self.key {
            let shape = match sign {
                Sign::Line => "<path class=\"line\" d=\"M1 6H21\"/>",
                Sign::Thin => "<path class=\"line thin\" d=\"M1 6H21\"/>",
                Sign::Dashed => "<path class=\"line dashed\" d=\"M1 6H21\"/>",
                Sign::Area => "<rect class=\"area\" x=\"1\" y=\"1\" width=\"20\" height=\"10\"/>",
                Sign::Block => "<rect class=\"fill\" x=\"5\" y=\"1\" width=\"11\" height=\"10\"/>",
                Sign::Dot => "<circle class=\"dot\" cx=\"11\" cy=\"6\" r=\"2.5\"/>",
                Sign::Triangle => "<path class=\"moment\" d=\"M11 2L15 11L7 11Z\"/>",
            };
            let _ = write!(
                out,
                "<li><svg xmlns=\"http://www.w3.org/2000/svg\" class=\"sign {}\" width=\"22\" height=\"12\" aria-hidden=\"true\">{shape}</svg>{}</li>",
                ink.class(),
                escape(name)
            );
        }
        out.push_str("</ul>");
    }

    fn details(&self, out: &mut String) {
        if self.table.rows.is_empty() {
            return;
        }
        out.push_str("<details><summary>The figures as a table</summary>");
        out.push_str(&self.table.html(MAX_ROWS));
        if self.table.rows.len() > MAX_ROWS {
            let _ = write!(
                out,
                "<p class=\"aside\">{} of {} rows, evenly chosen; {} has them all.</p>",
                MAX_ROWS,
                self.table.rows.len(),
                self.file
            );
        } else if !self.file.is_empty() {
            let _ = write!(out, "<p class=\"aside\">{} holds the same.</p>", self.file);
        }
        out.push_str("</details>");
    }
}

impl Table {
    pub fn new(head: &[&str]) -> Table {
        Table { head: head.iter().map(|h| h.to_string()).collect(), rows: Vec::new() }
    }

    /// At most `limit` rows, evenly chosen.
    pub fn html(&self, limit: usize) -> String {
        let mut out = String::from("<div class=\"scroll\" tabindex=\"0\"><table><thead><tr>");
        for head in &self.head {
            let _ = write!(out, "<th scope=\"col\">{}</th>", escape(head));
        }
        out.push_str("</tr></thead><tbody>");
        for row in evenly(&self.rows, limit) {
            out.push_str("<tr>");
            for (index, cell) in row.iter().enumerate() {
                let (open, close) =
                    if index == 0 { ("<th scope=\"row\">", "</th>") } else { ("<td>", "</td>") };
                let _ = write!(out, "{open}{}{close}", escape(cell));
            }
            out.push_str("</tr>");
        }
        out.push_str("</tbody></table></div>");
        out
    }
}

/// At most `limit` items, the first and the last among them.
pub fn evenly<T>(items: &[T], limit: usize) -> impl Iterator<Item = &T> {
    let shown = items.len().min(limit);
    (0..shown).filter_map(move |i| {
        let index = if shown > 1 && shown < items.len() { i * (items.len() - 1) / (shown - 1) } else { i };
        items.get(index)
    })
}
