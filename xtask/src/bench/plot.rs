//! A comparison as a small picture: a bar for each median, a line from the smallest to the largest round.

use super::page::{escaped, number};
use super::record::{Comparison, Role, Spread};
use std::fmt::Write;

const WIDTH: f64 = 640.0;
const TOP: f64 = 34.0;
const ROW: f64 = 26.0;
const BAR: f64 = 16.0;
/// Where bars begin; names stand before it.
const LEFT: f64 = 130.0;
/// Room for the figure behind the longest bar.
const RIGHT: f64 = 110.0;

/// Both colour schemes in one file: whoever shows the picture tells which one is in use.
const STYLE: &str = "text{font:12px system-ui,sans-serif;fill:#24292f}.title{font-weight:600}\
.ours{fill:#1f6feb}.peer{fill:#8c959f}.reference{fill:#d0d7de}.range{stroke:#24292f;stroke-width:1.5}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.peer{fill:#6e7681}.reference{fill:#3d444d}\
.range{stroke:#e6edf3}}";

/// The picture as SVG. Subjects without figures are left out.
pub fn plot(comparison: &Comparison) -> String {
    let rows: Vec<(&str, Role, Spread)> = comparison
        .subjects
        .iter()
        .filter_map(|subject| Some((subject.name.as_str(), subject.role, Spread::of(&subject.rounds)?)))
        .collect();
    let largest = rows.iter().map(|(_, _, spread)| spread.max).fold(f64::MIN_POSITIVE, f64::max);
    let scale = (WIDTH - LEFT - RIGHT) / largest;
    let height = TOP + ROW * rows.len() as f64 + 6.0;
    let title = escaped(&format!("{}, {}", comparison.title, comparison.unit));
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" role=\"img\" aria-label=\"{title}\"><style>{STYLE}</style>\n\
         <text class=\"title\" x=\"0\" y=\"16\">{title}</text>\n"
    );
    for (index, (name, role, spread)) in rows.into_iter().enumerate() {
        let top = TOP + ROW * index as f64;
        let middle = top + BAR / 2.0;
        let x = |value: f64| LEFT + value * scale;
        let class = match role {
            Role::Ours => "ours",
            Role::Peer => "peer",
            Role::Reference => "reference",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            svg,
            "<text x=\"{name_end:.1}\" y=\"{baseline:.1}\" text-anchor=\"end\">{name}</text>\
             <rect class=\"{class}\" x=\"{LEFT}\" y=\"{top}\" width=\"{width:.1}\" height=\"{BAR}\"/>\
             <line class=\"range\" x1=\"{from:.1}\" y1=\"{middle}\" x2=\"{to:.1}\" y2=\"{middle}\"/>\
             <text x=\"{value_begin:.1}\" y=\"{baseline:.1}\">{value}</text>",
            name_end = LEFT - 8.0,
            baseline = middle + 4.0,
            name = escaped(name),
            // Something to see, however small.
            width = (spread.median * scale).max(1.0),
            from = x(spread.min),
            to = x(spread.max),
            value_begin = x(spread.max) + 8.0,
            value = number(spread.median),
        );
    }
    svg + "</svg>\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::record::{Better, tests::comparison};

    #[test]
    fn bars_are_as_long_as_their_medians() {
        let svg = plot(&comparison(Better::Lower, &[10.0, 30.0, 20.0], &[&[200.0], &[]], None));
        // The reference has the largest value, so it alone is 400 long and the others are hardly seen.
        assert!(svg.contains("class=\"reference\" x=\"130\" y=\"86\" width=\"400.0\""), "{svg}");
        assert!(svg.contains("class=\"ours\" x=\"130\" y=\"34\" width=\"1.0\""), "{svg}");
        assert_eq!(svg.matches("<rect").count(), 3, "one has no figures: {svg}");
    }

    #[test]
    fn text_cannot_leave_its_place() {
        let mut evil = comparison(Better::Lower, &[1.0], &[], None);
        evil.title = "<script>\"&".into();
        let svg = plot(&evil);
        assert!(svg.contains("&lt;script&gt;&quot;&amp;") && !svg.contains("<script>"), "{svg}");
    }

    #[test]
    fn nothing_measured_is_an_empty_picture() {
        let mut empty = comparison(Better::Lower, &[], &[], None);
        empty.subjects.clear();
        let svg = plot(&empty);
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n") && !svg.contains("<rect"), "{svg}");
    }
}
