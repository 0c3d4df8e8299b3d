//! What a stage requires: thresholds of its load, and how the app must come through its faults.

use std::str::FromStr;
use std::time::Duration;
use throng_load::Threshold;
use throng_model::units::parse_duration;

/// How long an app must be whole to count as recovered, unless the file says otherwise.
pub const STEADY: Duration = Duration::from_secs(5);

const HINT: &str =
    "write a threshold such as p95<200ms or errors<1%, \"no request lost\", or \"recovered within 30s\"";

#[derive(Debug, Clone, PartialEq)]
pub enum Requirement {
    Measured(Threshold),
    /// Every request got an answer that counts as success.
    NoRequestLost,
    /// After each fault the app was whole again within this time, and stayed so for `steady`.
    Recovered {
        within: Duration,
        steady: Duration,
    },
}

/// A text that is no requirement.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct NoRequirement {
    pub message: String,
    pub hint: String,
}

impl NoRequirement {
    fn new(message: impl Into<String>, hint: impl Into<String>) -> NoRequirement {
        NoRequirement { message: message.into(), hint: hint.into() }
    }
}

impl FromStr for Requirement {
    type Err = NoRequirement;

    fn from_str(text: &str) -> Result<Requirement, NoRequirement> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let time = |text: &str, what: &str| {
            let time = parse_duration(text).map_err(|error| NoRequirement::new(error.to_string(), HINT))?;
            match time.is_zero() {
                true => Err(NoRequirement::new(format!("{what} of no time"), "give it a second or more")),
                false => Ok(time),
            }
        };
        match words[..] {
            ["no", "request" | "requests", "lost"] => Ok(Requirement::NoRequestLost),
            ["recovered", "within", within] => {
                Ok(Requirement::Recovered { within: time(within, "a recovery")?, steady: STEADY })
            }
            ["recovered", "within", within, "for", steady] => Ok(Requirement::Recovered {
                within: time(within, "a recovery")?,
                steady: time(steady, "a window")?,
            }),
            ["no" | "recovered", ..] => Err(NoRequirement::new(format!("{text:?} is not understood"), HINT)),
            _ => text.parse::<Threshold>().map(Requirement::Measured).map_err(|error| {
                let hint = error.hint().map_or_else(|| HINT.to_owned(), Into::into);
                NoRequirement::new(error.to_string(), hint)
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_and_thresholds_are_told_apart() {
        let second = Duration::from_secs(1);
        let recovered = |within, steady| Ok(Requirement::Recovered { within, steady });
        let read = |text: &str| text.parse::<Requirement>().map_err(|error| error.to_string());
        assert_eq!(read("no request lost"), Ok(Requirement::NoRequestLost));
        assert_eq!(read(" recovered  within 30s"), recovered(30 * second, STEADY));
        assert_eq!(read("recovered within 1m for 10s"), recovered(60 * second, 10 * second));
        assert!(matches!(read("p95<200ms"), Ok(Requirement::Measured(_))));
        for wrong in [
            "",
            "no request",
            "no requests kept",
            "recovered",
            "recovered within",
            "recovered within 30",
            "recovered within 0s",
            "recovered within 3s for 0s",
            "recovered within 3s in 2s",
            "p95",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
