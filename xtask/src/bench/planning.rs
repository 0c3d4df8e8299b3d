//! How long a supervisor takes to decide what is next when there are ten thousand replicas on a hundred nodes.

use super::record::{Bar, Better, Comparison, Role, Subject};
use super::{Measured, Session, built};
use anyhow::{Result, bail};
use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

/// At most so many milliseconds.
const MOST: f64 = 50.0;
const TEST: &str = "a_change_among_ten_thousand_replicas_is_planned_in_time";
const ROUND_LIMIT: Duration = Duration::from_secs(120);

pub fn measure(session: &Session) -> Result<Measured> {
    let program = built::test_program(&["-p", "throng-control", "--test", "planning_time"])?;
    let count = session.size(7, 1);
    let busy_before = session.settle()?;
    let mut found: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for number in 1..=count {
        let mut command = Command::new(&program);
        command.args(["--exact", TEST, "--nocapture"]);
        let round = figures(&session.children.output(command, ROUND_LIMIT)?);
        if round.is_empty() {
            bail!("{TEST} prints no figures");
        }
        for (change, milliseconds) in round {
            eprintln!("round {number}: {change}: {milliseconds:.2} ms");
            found.entry(change).or_default().push(milliseconds);
        }
    }
    let method = vec![
        "crates/throng-control/tests/planning_time.rs: 10,000 replicas of three services on 100 nodes, one of them \
         constrained to an architecture and zones, one spread over zones and racks, one with a most per node. Timed is \
         all that a supervisor decides between two steps: where those are put that are missing, how roll-outs are, the \
         plan, and where those are put that stand in. The longest decision of each change counts."
            .into(),
        format!(
            "From nothing: all 10,000 are missing at first. Updates: 9,000 replicas get another definition, 100 of each \
             service at a time, and 1,000 more are asked for in the same change; six decisions. Rounds: {count}."
        ),
    ];
    let comparisons = found.into_iter().map(|(change, rounds)| comparison(&change, rounds)).collect();
    Ok(Measured { busy_before, versions: BTreeMap::new(), method, comparisons })
}

/// The lines `planned`, change, milliseconds, with tabs between.
fn figures(text: &str) -> Vec<(String, f64)> {
    let line = |line: &str| {
        // The test's own name may stand before it.
        let (change, milliseconds) = line.split_once("planned\t")?.1.split_once('\t')?;
        Some((change.to_owned(), milliseconds.parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

fn comparison(change: &str, rounds: Vec<f64>) -> Comparison {
    Comparison {
        key: change.replace(", ", "-").replace(' ', "-"),
        title: format!("Planning a change of 10,000 replicas on 100 nodes: {change}"),
        unit: "ms".into(),
        better: Better::Lower,
        subjects: vec![Subject { name: "throng".into(), role: Role::Ours, rounds }],
        bar: Some(Bar::AtMost(MOST)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_test_prints_is_read() {
        let text = "running 1 test\ntest x ... planned\tfrom nothing\t12.500\nplanned\tupdate, stop first\t3.25\nok\n";
        let found = figures(text);
        assert_eq!(found, [("from nothing".to_owned(), 12.5), ("update, stop first".to_owned(), 3.25)]);
        assert_eq!(comparison("update, stop first", vec![51.0]).held(), Some(false));
        assert_eq!(comparison("update, stop first", vec![3.25]).key, "update-stop-first");
    }
}
