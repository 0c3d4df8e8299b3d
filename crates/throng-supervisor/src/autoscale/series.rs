//! Series of a text in Prometheus' format, version 0.0.4, or in OpenMetrics' (prometheus.io/docs/instrumenting/
//! exposition_formats, RFC draft OpenMetrics 1.0).

use std::collections::BTreeMap;
use throng_autoscale::selector::Selector;

/// Most series of one metric that are summed up.
pub const SERIES_MOST: usize = 10_000;

/// The series of one name that a selector takes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Found {
    /// The text says, or the name does, that the numbers only grow.
    pub counter: bool,
    /// By their labels as they are written.
    pub series: BTreeMap<String, f64>,
}

/// Finds series by name.
///
/// # Errors
/// A line of that name that is not as the format wants it, a number that is no finite one, or too many series.
pub fn find(text: &str, name: &str, selector: &Selector) -> Result<Found, String> {
    let mut found = Found { counter: name.ends_with("_total"), ..Found::default() };
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(comment) = line.strip_prefix('#') {
            if let Some(counter) = typed(comment, name) {
                found.counter = counter;
            }
            continue;
        }
        let Some(rest) = line.strip_prefix(name).filter(|rest| rest.starts_with(['{', ' ', '\t'])) else {
            continue;
        };
        let wrong = || format!("line {} is not in Prometheus' text format", index + 1);
        let (labels, written, rest) = labels(rest).ok_or_else(wrong)?;
        let number = rest.split_whitespace().next().and_then(|text| text.parse::<f64>().ok());
        let number = number.ok_or_else(wrong)?;
        // Not a number means that there is none, such as the average of nothing.
        if number.is_nan() || !selector.matches(&labels) {
            continue;
        }
        if number.is_infinite() {
            return Err(format!("{name} is infinite"));
        }
        if found.series.len() == SERIES_MOST {
            return Err(format!("there are more than {SERIES_MOST} series of {name}; select some by labels"));
        }
        found.series.insert(written.to_owned(), number);
    }
    Ok(found)
}

/// Whether a comment says that the numbers of a name only grow, if it is about that name.
fn typed(comment: &str, name: &str) -> Option<bool> {
    let mut words = comment.split_whitespace();
    if words.next()? != "TYPE" {
        return None;
    }
    let (family, kind) = (words.next()?, words.next()?);
    match name.strip_prefix(family)? {
        "" => Some(kind == "counter"),
        // OpenMetrics names the family without the ending.
        "_total" => (kind == "counter").then_some(true),
        "_count" | "_sum" | "_bucket" => matches!(kind, "histogram" | "summary").then_some(true),
        _ => None,
    }
}

type Labels<'a> = (BTreeMap<String, String>, &'a str, &'a str);

/// Labels, how they are written, and what follows.
fn labels(text: &str) -> Option<Labels<'_>> {
    let mut labels = BTreeMap::new();
    let Some(mut rest) = text.strip_prefix('{') else { return Some((labels, "", text)) };
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if let Some(after) = rest.strip_prefix('}') {
            let written = &text[..text.len() - after.len()];
            return Some((labels, written, after));
        }
        let (key, after) = rest.split_once('=')?;
        let (value, after) = quoted(after.trim_start())?;
        labels.insert(key.trim().to_owned(), value);
        rest = after;
    }
}

/// A value in quotes, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let inside = text.strip_prefix('"')?;
    let (mut value, mut escaped) = (String::new(), false);
    for (at, letter) in inside.char_indices() {
        match (escaped, letter) {
            (true, 'n') => value.push('\n'),
            (true, other) => value.push(other),
            (false, '"') => return Some((value, &inside[at + 1..])),
            (false, '\\') => {}
            (false, other) => value.push(other),
        }
        escaped = !escaped && letter == '\\';
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP hits_total Requests.\n# TYPE hits_total counter\nhits_total{code=\"200\",path=\"/a\\\"b\\\\\"} 10\n\
                        hits_total{code=\"500\", path=\"/}\",} 2 1700000000000\n# TYPE queue gauge\nqueue 7.5\nqueue_age NaN\n\
                        # TYPE took histogram\ntook_count 4\ntook_sum 1e-3\n# TYPE jobs counter\njobs_total 3 # {id=\"x\"} 1\n# EOF\n";

    fn all(name: &str) -> Found {
        find(TEXT, name, &Selector::default()).expect(name)
    }

    #[test]
    fn series_are_found_with_what_they_are() {
        let hits = all("hits_total");
        assert!(hits.counter && hits.series.len() == 2, "{hits:?}");
        assert_eq!(hits.series.values().sum::<f64>(), 12.0);
        let queue = all("queue");
        assert_eq!((queue.counter, queue.series[""]), (false, 7.5));
        assert!(all("took_count").counter && all("took_sum").counter && all("jobs_total").counter);
        assert!(all("queue_age").series.is_empty() && all("nothing").series.is_empty());
    }

    #[test]
    fn labels_select() {
        let only: throng_autoscale::spec::LabelSelector =
            serde_json::from_str(r#"{"matchLabels": {"path": "/}"}}"#).expect("a selector");
        let found = find(TEXT, "hits_total", &Selector::new(&only).expect("a selector")).expect("series");
        assert_eq!(found.series.into_values().collect::<Vec<_>>(), [2.0]);
    }

    #[test]
    fn what_is_no_series_is_told_with_its_line() {
        for text in ["x{a=\"1\" 2", "x{a} 2", "x", "x y", "x{a=\"1}"] {
            let whole = format!("y 1\n{text}\n");
            match find(&whole, "x", &Selector::default()) {
                Err(error) => assert!(error.contains("line 2"), "{text}: {error}"),
                Ok(found) => assert!(found.series.is_empty() && text == "x", "{text}: {found:?}"),
            }
        }
        assert!(find("x +Inf\n", "x", &Selector::default()).is_err());
    }
}
