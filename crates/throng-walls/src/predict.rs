//! A host set against a demand: which wall comes first.

use crate::checks;
use crate::demand::Demand;
use crate::host::Host;
use crate::remedy::Remedy;
use crate::table::{Wall, WallId, table};
use serde::Serialize;

/// Walls that come first get a remedy even if nobody needs one: what would make room for twice as many.
const SHOWN: usize = 2;

/// How a wall stands to a demand, from worst to best but for the last two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// More is needed than there is.
    InTheWay,
    /// More than four fifths of what there is are needed.
    Tight,
    Ok,
    /// Something that decides it cannot be read or is not known.
    Unknown,
    DoesNotApply,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    #[default]
    Count,
    Bytes,
    /// Thousandths of a core.
    Millicores,
}

/// One wall, judged.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    #[serde(flatten)]
    pub row: &'static Wall,
    pub state: State,
    /// What `live` and `needed` are values of: that which leaves least room, where a wall has several.
    pub setting: Option<String>,
    pub live: Option<u64>,
    /// For all replicas, with what the host has in use already.
    pub needed: Option<u64>,
    pub unit: Unit,
    /// The most replicas that this wall lets through; `None` if their number does not matter or cannot be told.
    pub holds: Option<u64>,
    /// What is particular about this host; may be empty.
    pub note: String,
    pub remedy: Option<Remedy>,
}

impl Finding {
    pub(crate) fn new(id: WallId, state: State, note: impl Into<String>) -> Finding {
        Finding {
            row: id.wall(),
            state,
            setting: None,
            live: None,
            needed: None,
            unit: Unit::Count,
            holds: None,
            note: note.into(),
            remedy: None,
        }
    }
}

/// All walls, the one that comes first at the top.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    pub demand: Demand,
    pub findings: Vec<Finding>,
    /// The most replicas that all walls let through; `None` if no wall that is known limits them.
    pub holds: Option<u64>,
    /// No wall is in the way.
    pub fits: bool,
}

impl Report {
    /// Walls that limit the number of replicas, the first one first.
    pub fn in_order(&self) -> impl Iterator<Item = (&Finding, u64)> {
        self.findings.iter().filter_map(|finding| Some((finding, finding.holds?)))
    }

    pub fn finding(&self, id: WallId) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.row.id == id)
    }
}

/// Judges every wall. Pure: reads nothing but its arguments.
pub fn predict(host: &Host, demand: &Demand) -> Report {
    let mut findings: Vec<Finding> = table().iter().map(|row| checks::check(row.id, host, demand)).collect();
    // A wall in the way without a number breaks something at any number, so it comes first.
    let order = |finding: &Finding| {
        let blocks = finding.state == State::InTheWay && finding.holds.is_none();
        (!blocks, finding.holds.unwrap_or(u64::MAX), finding.state, finding.row.id)
    };
    findings.sort_by_key(order);
    let shown = findings.iter_mut().filter(|finding| finding.holds.is_some()).take(SHOWN);
    for finding in shown.filter(|finding| finding.remedy.is_none()) {
        let twice = demand.at(finding.holds.unwrap_or_default().max(demand.replicas).saturating_mul(2));
        finding.remedy = checks::check(finding.row.id, host, &twice).remedy;
    }
    Report {
        demand: demand.clone(),
        holds: findings.iter().filter_map(|finding| finding.holds).min(),
        fits: findings.iter().all(|finding| finding.state != State::InTheWay),
        findings,
    }
}
