//! What moves a wall.

use serde::{Deserialize, Serialize};

/// Where lasting settings are suggested to go (sysctl.d(5)).
pub const PERMANENT_FILE: &str = "/etc/sysctl.d/90-throng.conf";

/// One setting of sysctl(8), and what it becomes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub setting: String,
    pub from: u64,
    pub to: u64,
}

/// How a wall is moved, and back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Remedy {
    /// To be typed, as root unless it says otherwise.
    pub command: String,
    /// It only raises limits, takes effect at once, and disturbs nothing that runs: [`crate::fix`] may do it.
    pub safe: bool,
    /// The same as settings, where it is only settings.
    pub changes: Vec<Change>,
    pub permanent: Option<String>,
    pub undo: Option<String>,
    pub why: String,
}

impl Remedy {
    /// Higher settings. `None` without any.
    pub(crate) fn raise(changes: Vec<Change>, why: &str) -> Option<Remedy> {
        if changes.is_empty() {
            return None;
        }
        let sysctl = |value: fn(&Change) -> u64| {
            let words: Vec<_> = changes.iter().map(|c| format!("{}={}", c.setting, value(c))).collect();
            format!("sysctl -w {}", words.join(" "))
        };
        let lines: Vec<_> = changes.iter().map(|c| format!("{} = {}", c.setting, c.to)).collect();
        Some(Remedy {
            command: sysctl(|change| change.to),
            safe: true,
            permanent: Some(format!("in {PERMANENT_FILE}: {}", lines.join("; "))),
            undo: Some(sysctl(|change| change.from)),
            why: why.into(),
            changes,
        })
    }

    /// What a person must weigh.
    pub(crate) fn by_hand(command: impl Into<String>, why: &str) -> Remedy {
        Remedy {
            command: command.into(),
            safe: false,
            changes: vec![],
            permanent: None,
            undo: None,
            why: why.into(),
        }
    }

    pub(crate) fn permanent(mut self, text: impl Into<String>) -> Remedy {
        self.permanent = Some(text.into());
        self
    }

    pub(crate) fn undo(mut self, text: impl Into<String>) -> Remedy {
        self.undo = Some(text.into());
        self
    }
}
