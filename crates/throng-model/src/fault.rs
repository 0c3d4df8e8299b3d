//! What is done to replicas on purpose, and to which ones. Faults of nodes are in [`crate::node`].

use crate::chance::Chance;
use crate::units::{UnitError, format_bytes, parse_percent};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// How many of a service's replicas something befalls.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Portion {
    /// A part of them, 0 to 1, rounded up.
    Share(f64),
    Count(u32),
}

impl Portion {
    pub const ALL: Portion = Portion::Share(1.0);

    /// Of so many; never more than there are.
    pub fn of(&self, all: usize) -> usize {
        match self {
            // What a binary fraction adds makes no further replica of it: 30 % of 10 are 3.
            Portion::Share(share) => ((all as f64 * share.clamp(0.0, 1.0) - 1e-9).ceil() as usize).min(all),
            Portion::Count(count) => (*count as usize).min(all),
        }
    }
}

impl FromStr for Portion {
    type Err = UnitError;

    /// `30%`, or a number of replicas.
    fn from_str(text: &str) -> Result<Portion, UnitError> {
        if text.contains('%') {
            return parse_percent(text).map(Portion::Share);
        }
        let wrong =
            |_| UnitError(format!("{text:?} is neither a share, as in 30%, nor a number of replicas"));
        text.trim().parse().map(Portion::Count).map_err(wrong)
    }
}

impl fmt::Display for Portion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // To the thousandth of a percent, without what binary fractions add.
            Portion::Share(share) => write!(f, "{} %", (share * 1e5).round() / 1e3),
            Portion::Count(count) => write!(f, "{count}"),
        }
    }
}

/// Replicas that something befalls.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Victims {
    pub service: String,
    pub portion: Portion,
    /// What chance chooses them by; `None` takes those with the lowest ordinals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// None but these ordinals come into question, if there are any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub among: Vec<u32>,
}

impl Victims {
    pub fn all_of(service: impl Into<String>) -> Victims {
        Victims { service: service.into(), portion: Portion::ALL, seed: None, among: Vec::new() }
    }

    /// Which of the ordinals it befalls, ascending. The same seed and the same ordinals give the same choice.
    pub fn choose(&self, mut ordinals: Vec<u32>) -> Vec<u32> {
        let among: BTreeSet<u32> = self.among.iter().copied().collect();
        ordinals.retain(|ordinal| among.is_empty() || among.contains(ordinal));
        ordinals.sort_unstable();
        let count = self.portion.of(ordinals.len());
        if let Some(seed) = self.seed {
            // The first places of a shuffle (Fisher and Yates).
            let mut chance = Chance::new(seed);
            for place in 0..count {
                let left = u32::try_from(ordinals.len() - place).unwrap_or(u32::MAX);
                ordinals.swap(place, place + chance.below(left) as usize);
            }
        }
        ordinals.truncate(count);
        ordinals.sort_unstable();
        ordinals
    }
}

impl fmt::Display for Victims {
    /// `30 % of web`, `2 of web`, `web`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.portion {
            Portion::ALL => f.write_str(&self.service),
            portion => write!(f, "{portion} of {}", self.service),
        }
    }
}

/// What befalls a replica.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplicaFault {
    /// Sends its process a signal. One that ends by that has crashed, as its restart policy sees it.
    Kill {
        signal: i32,
    },
    /// Lets its requests end, asks it to leave, and keeps it down. `grace` stands in for its own grace period.
    Stop {
        grace: Option<Duration>,
    },
    /// Has a stopped one start again.
    Start,
    /// Keeps all of its processes from running.
    Pause,
    Unpause,
    /// Takes the room in its writable layer: so many bytes, or all up to the layer's limit.
    Fill {
        bytes: Option<u64>,
    },
    /// Gives that room back.
    Empty,
}

impl ReplicaFault {
    pub const KILL: ReplicaFault = ReplicaFault::Kill { signal: 9 };

    /// What ends it; `None` for what is over as soon as it has happened.
    pub fn end(&self) -> Option<ReplicaFault> {
        match self {
            ReplicaFault::Stop { .. } => Some(ReplicaFault::Start),
            ReplicaFault::Pause => Some(ReplicaFault::Unpause),
            ReplicaFault::Fill { .. } => Some(ReplicaFault::Empty),
            _ => None,
        }
    }

    /// Whether it makes something worse, and not better.
    pub fn harms(&self) -> bool {
        !matches!(self, ReplicaFault::Start | ReplicaFault::Unpause | ReplicaFault::Empty)
    }

    /// With whom it befalls: `pause 30 % of web`.
    pub fn of(&self, whom: &impl fmt::Display) -> String {
        match self {
            ReplicaFault::Kill { signal: 9 } => format!("kill {whom}"),
            ReplicaFault::Kill { signal } => format!("send signal {signal} to {whom}"),
            ReplicaFault::Stop { .. } => format!("stop {whom}"),
            ReplicaFault::Start => format!("start {whom}"),
            ReplicaFault::Pause => format!("pause {whom}"),
            ReplicaFault::Unpause => format!("unpause {whom}"),
            ReplicaFault::Fill { bytes: None } => format!("fill the disks of {whom}"),
            ReplicaFault::Fill { bytes: Some(bytes) } => {
                format!("fill {} of the disks of {whom}", format_bytes(*bytes))
            }
            ReplicaFault::Empty => format!("give back the disks of {whom}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn portions_are_read_counted_and_shown() {
        for (text, all, count, shown) in [
            ("30%", 10, 3, "30 %"),
            ("30%", 11, 4, "30 %"),
            ("0%", 5, 0, "0 %"),
            ("100%", 5, 5, "100 %"),
            ("0.1%", 5, 1, "0.1 %"),
            ("7", 5, 5, "7"),
            ("2", 5, 2, "2"),
            ("50 %", 0, 0, "50 %"),
        ] {
            let portion: Portion = text.parse().expect(text);
            assert_eq!((portion.of(all), portion.to_string().as_str()), (count, shown), "{text} of {all}");
        }
        for wrong in ["", "-1", "101%", "some", "1.5"] {
            assert!(wrong.parse::<Portion>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn every_lasting_fault_has_an_end_that_harms_nobody() {
        let lasting =
            [ReplicaFault::Stop { grace: None }, ReplicaFault::Pause, ReplicaFault::Fill { bytes: None }];
        for fault in lasting {
            let end = fault.end().expect("an end");
            assert!(fault.harms() && !end.harms() && end.end().is_none(), "{fault:?}");
        }
        assert!(ReplicaFault::KILL.harms() && ReplicaFault::KILL.end().is_none());
    }

    proptest! {
        #[test]
        fn a_choice_is_a_part_of_those_that_there_are_and_the_same_each_time(
            all in prop::collection::btree_set(1u32..500, 0..60),
            share in 0.0f64..=1.0,
            seed in prop::option::of(any::<u64>()),
        ) {
            let victims = Victims { portion: Portion::Share(share), seed, ..Victims::all_of("web") };
            let ordinals: Vec<u32> = all.iter().copied().collect();
            let chosen = victims.choose(ordinals.clone());
            prop_assert_eq!(chosen.len(), victims.portion.of(all.len()));
            prop_assert!(chosen.iter().all(|ordinal| all.contains(ordinal)));
            prop_assert!(chosen.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert_eq!(&chosen, &victims.choose(ordinals.into_iter().rev().collect()));
        }
    }

    #[test]
    fn seeds_choose_differently_and_no_seed_chooses_the_lowest() {
        let choose = |seed| {
            Victims { portion: Portion::Count(5), seed, ..Victims::all_of("web") }.choose((1..=100).collect())
        };
        assert_eq!(choose(None), [1, 2, 3, 4, 5]);
        assert_ne!(choose(Some(1)), choose(Some(2)));
        let only = Victims { among: vec![7, 9], ..Victims::all_of("web") };
        assert_eq!(only.choose((1..=8).collect()), [7]);
    }
}
