//! Simulations as CSV.

use super::{Outcome, Period};

/// What each simulated spec is called, and what came of it.
type Named<'a> = (&'a str, &'a Outcome);

/// One line for each sync period of each spec: all that is plotted over time.
pub fn periods_csv(outcomes: &[Named<'_>]) -> Result<Vec<u8>, csv::Error> {
    let head = [
        "spec",
        "time_seconds",
        "length_seconds",
        "demand",
        "replicas",
        "ready_mean",
        "utilization_percent",
        "over_target_seconds",
        "waiting",
        "unserved",
        "over_target_seconds_so_far",
        "replica_hours_so_far",
    ];
    let rows =
        outcomes.iter().flat_map(|(name, outcome)| outcome.periods.iter().map(move |row| (*name, row)));
    write(&head, rows.map(|(name, row)| period(name, row)))
}

fn period(name: &str, row: &Period) -> Vec<String> {
    vec![
        name.to_owned(),
        row.at.to_string(),
        row.seconds.to_string(),
        row.demand.to_string(),
        row.replicas.to_string(),
        row.ready.to_string(),
        row.utilization.map(|value| value.to_string()).unwrap_or_default(),
        row.over_target_seconds.to_string(),
        row.waiting.to_string(),
        row.unserved.to_string(),
        row.over_target_seconds_so_far.to_string(),
        row.replica_hours_so_far.to_string(),
    ]
}

/// One line for each change of a count, with its explanation.
pub fn scalings_csv(outcomes: &[Named<'_>]) -> Result<Vec<u8>, csv::Error> {
    let rows =
        outcomes.iter().flat_map(|(name, outcome)| outcome.scalings.iter().map(move |row| (*name, row)));
    let row = |(name, row): (&str, &super::Scaling)| {
        let (at, from, to) = (row.at.to_string(), row.from.to_string(), row.to.to_string());
        vec![name.to_owned(), at, from, to, row.explanation.clone()]
    };
    write(&["spec", "time_seconds", "from", "to", "explanation"], rows.map(row))
}

/// One line for each spec.
pub fn summary_csv(outcomes: &[Named<'_>]) -> Result<Vec<u8>, csv::Error> {
    let head = [
        "spec",
        "replica_hours",
        "replicas_mean",
        "replicas_least",
        "replicas_most",
        "over_target_seconds",
        "over_target_percent",
        "over_target_above_percent",
        "demand",
        "unserved",
        "unserved_percent",
        "scale_ups",
        "scale_downs",
        "first_reaction_seconds",
        "stuck_seconds",
        "failed_looks",
    ];
    let rows = outcomes.iter().map(|(name, outcome)| {
        let f = &outcome.figures;
        vec![
            (*name).to_owned(),
            f.replica_hours.to_string(),
            f.replicas_mean.to_string(),
            f.replicas_least.to_string(),
            f.replicas_most.to_string(),
            f.over_target_seconds.to_string(),
            f.over_target_percent.to_string(),
            f.over_target_above_percent.map(|value| value.to_string()).unwrap_or_default(),
            f.demand.to_string(),
            f.unserved.to_string(),
            f.unserved_percent.to_string(),
            f.scale_ups.to_string(),
            f.scale_downs.to_string(),
            f.first_reaction_seconds.map(|value| value.to_string()).unwrap_or_default(),
            f.stuck_seconds.to_string(),
            f.failed_looks.to_string(),
        ]
    });
    write(&head, rows)
}

fn write(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> Result<Vec<u8>, csv::Error> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(head)?;
    for row in rows {
        writer.write_record(row)?;
    }
    writer.into_inner().map_err(|error| csv::Error::from(error.into_error()))
}
