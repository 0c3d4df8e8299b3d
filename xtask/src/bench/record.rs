//! What one part of the benchmarks found: the numbers, the machine, and the bars that are held or not.
//!
//! A record is all that the page knows. Verdicts are computed from it whenever the page is made and kept nowhere.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The shape of the records; one with another number is refused, because its figures could be misread.
pub const FORMAT: u32 = 1;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub format: u32,
    /// Taken with `--quick`: shorter and fewer rounds than what is published.
    pub quick: bool,
    pub machine: Machine,
    /// Share of the processors that something else used just before the measurement.
    pub busy_before: f64,
    pub versions: BTreeMap<String, String>,
    /// How it was measured, one sentence or two each.
    pub method: Vec<String>,
    pub comparisons: Vec<Comparison>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    pub cpu: String,
    pub cores: usize,
    pub memory_bytes: u64,
    pub kernel: String,
    pub distribution: String,
}

/// One figure of several programs that did the same work.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Unique in its record; names the plot's file.
    pub key: String,
    pub title: String,
    pub unit: String,
    pub better: Better,
    pub subjects: Vec<Subject>,
    pub bar: Option<Bar>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    Higher,
    Lower,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Subject {
    pub name: String,
    pub role: Role,
    /// The figure of each round, in the order of the rounds.
    pub rounds: Vec<f64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    Ours,
    /// Counts for the ratio and the bar.
    Peer,
    /// Shown beside the others and compared with nobody.
    Reference,
}

/// What must be reached.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Bar {
    /// At least this often as good as the best peer; 0.9 is within 10 % of it.
    Times(f64),
    /// Our own figure is at most this.
    AtMost(f64),
    /// Our own figure is at least this.
    AtLeast(f64),
}

/// Median and range of a subject's rounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// `None` without values.
    pub fn of(values: &[f64]) -> Option<Spread> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let half = sorted.len() / 2;
        let median =
            if sorted.len() % 2 == 1 { sorted[half] } else { (sorted[half - 1] + sorted[half]) / 2.0 };
        Some(Spread { median, min, max })
    }
}

/// The median of some values; not a number without any, which no bar holds.
pub fn median(values: &[f64]) -> f64 {
    Spread::of(values).map_or(f64::NAN, |spread| spread.median)
}

impl Comparison {
    pub fn ours(&self) -> Option<&Subject> {
        self.subjects.iter().find(|subject| subject.role == Role::Ours)
    }

    /// The peer whose median is best.
    pub fn best_peer(&self) -> Option<&Subject> {
        let peers = self.subjects.iter().filter(|s| s.role == Role::Peer && !s.rounds.is_empty());
        let key = |subject: &&Subject| match self.better {
            Better::Higher => median(&subject.rounds),
            Better::Lower => -median(&subject.rounds),
        };
        peers.max_by(|a, b| key(a).total_cmp(&key(b)))
    }

    /// How often as good as the best peer this project's median is, with the range over the rounds. Above 1 is
    /// better, whichever direction is.
    pub fn ratio(&self) -> Option<Spread> {
        let (ours, peer) = (&self.ours()?.rounds, &self.best_peer()?.rounds);
        let times = |ours: f64, peer: f64| match self.better {
            Better::Higher => ours / peer,
            Better::Lower => peer / ours,
        };
        let each: Vec<f64> = ours.iter().zip(peer).map(|(ours, peer)| times(*ours, *peer)).collect();
        let spread = Spread::of(&each)?;
        Some(Spread { median: times(median(ours), median(peer)), ..spread })
    }

    /// Whether the bar is held; `None` if there is no bar or something to compare is missing.
    pub fn held(&self) -> Option<bool> {
        match self.bar? {
            Bar::Times(least) => self.ratio().map(|ratio| ratio.median >= least),
            Bar::AtMost(most) => Spread::of(&self.ours()?.rounds).map(|ours| ours.median <= most),
            Bar::AtLeast(least) => Spread::of(&self.ours()?.rounds).map(|ours| ours.median >= least),
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn comparison(better: Better, ours: &[f64], peers: &[&[f64]], bar: Option<Bar>) -> Comparison {
        let subject =
            |name: &str, role, rounds: &[f64]| Subject { name: name.into(), role, rounds: rounds.into() };
        let mut subjects = vec![subject("ours", Role::Ours, ours)];
        for (number, rounds) in peers.iter().enumerate() {
            subjects.push(subject(&format!("peer {number}"), Role::Peer, rounds));
        }
        subjects.push(subject("bare", Role::Reference, &[1e9, 1e9, 1e9]));
        Comparison { key: "k".into(), title: "T".into(), unit: "ms".into(), better, subjects, bar }
    }

    #[test]
    fn medians_are_of_the_middle() {
        let spread = |values: &[f64]| Spread::of(values).map(|s| (s.median, s.min, s.max));
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[3.0]), Some((3.0, 3.0, 3.0)));
        assert_eq!(spread(&[9.0, 1.0, 2.0]), Some((2.0, 1.0, 9.0)));
        assert_eq!(spread(&[4.0, 1.0, 2.0, 9.0]), Some((3.0, 1.0, 9.0)));
    }

    #[test]
    fn a_bar_is_held_against_the_best_peer_in_either_direction() {
        let held = |better, ours: f64, peers: &[f64], least| {
            let peers: Vec<Vec<f64>> = peers.iter().map(|peer| vec![*peer]).collect();
            let peers: Vec<&[f64]> = peers.iter().map(Vec::as_slice).collect();
            comparison(better, &[ours], &peers, Some(Bar::Times(least))).held()
        };
        for (better, ours, peers, least, expected) in [
            (Better::Higher, 91.0, &[100.0, 50.0][..], 0.9, Some(true)),
            (Better::Higher, 89.0, &[100.0, 50.0], 0.9, Some(false)),
            (Better::Lower, 10.0, &[300.0, 100.0], 10.0, Some(true)),
            (Better::Lower, 10.1, &[300.0, 100.0], 10.0, Some(false)),
            (Better::Lower, 1.0, &[], 10.0, None),
            (Better::Higher, f64::NAN, &[1.0], 0.9, Some(false)),
        ] {
            assert_eq!(held(better, ours, peers, least), expected, "{better:?} {ours} {peers:?} {least}");
        }
    }

    #[test]
    fn a_limit_is_on_our_own_median() {
        let with = |ours: &[f64]| comparison(Better::Lower, ours, &[], Some(Bar::AtMost(2.0))).held();
        assert_eq!(with(&[1.0, 9.0, 2.0]), Some(true));
        assert_eq!(with(&[1.0, 9.0, 2.1]), Some(false));
        assert_eq!(with(&[]), None);
        assert_eq!(comparison(Better::Lower, &[1.0], &[&[1.0]], None).held(), None);
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let slow = comparison(Better::Lower, &[1.0, 2.0, 4.0], &[&[10.0, 30.0, 20.0]], None);
        let ratio = slow.ratio().expect("both were measured");
        assert_eq!((ratio.median, ratio.min, ratio.max), (10.0, 5.0, 15.0));
    }

    #[test]
    fn records_survive_their_files() {
        let record = Record {
            format: FORMAT,
            quick: false,
            machine: Machine { cpu: "a".into(), cores: 2, memory_bytes: 3, ..Machine::default() },
            busy_before: 0.25,
            versions: BTreeMap::from([("nginx".into(), "1.22.1".into())]),
            method: vec!["Thus.".into()],
            comparisons: vec![comparison(Better::Lower, &[1.5], &[&[2.5]], Some(Bar::Times(10.0)))],
        };
        let text = serde_json::to_string_pretty(&record).expect("plain data");
        assert_eq!(serde_json::from_str::<Record>(&text).expect("its own text"), record);
    }
}
