//! What a replica that does not come up has written last: most often that says why, and nobody has to look for it.

use crate::actor::{Fixed, Handles, Order};
use crate::client::tail;
use std::collections::BTreeMap;
use throng_model::replica::ReplicaId;
use throng_model::status::{Readiness, ReplicaStatus};

/// Lines that are quoted, bytes of the log that are looked at for them, characters of one line.
const LINES: usize = 10;
const BYTES: u64 = 4 << 10;
const CHARACTERS: usize = 200;
/// Replicas whose logs are looked at until one says something.
const REPLICAS: usize = 5;

/// The last lines of the first replica of these services that is in trouble and has written something, each with the
/// replica's name before it.
pub async fn of(fixed: &Fixed, handles: &Handles, services: &BTreeMap<String, Readiness>) -> Vec<String> {
    let Ok(status) = handles.ask(|reply| Order::Status { reply }).await else { return Vec::new() };
    let unsettled = |service: &str| services.get(service).is_some_and(|readiness| !readiness.settled());
    let mut sick: Vec<&ReplicaStatus> =
        status.replicas.iter().filter(|r| unsettled(&r.service) && !is_well(r)).collect();
    // Those that have ended say more than those that are still trying.
    sick.sort_by_key(|replica| replica.exit.is_none());
    for replica in sick.into_iter().take(REPLICAS) {
        let id = ReplicaId {
            project: fixed.project.clone(),
            service: replica.service.clone(),
            ordinal: replica.ordinal,
        };
        // One that was never launched has no log.
        let Ok(files) = fixed.runtime.log_files(&id).await else { continue };
        let text = files.iter().rev().filter_map(|file| tail(file, BYTES).ok()).find(|text| !text.is_empty());
        let lines = lines(&id.name(), &text.unwrap_or_default());
        if !lines.is_empty() {
            return lines;
        }
    }
    Vec::new()
}

fn is_well(replica: &ReplicaStatus) -> bool {
    match replica.state.as_str() {
        "running" => matches!(replica.health.as_str(), "" | "healthy"),
        "leaving" => true,
        "exited" => replica.exit.is_some_and(|exit| exit.is_success()),
        _ => false,
    }
}

fn lines(name: &str, text: &[u8]) -> Vec<String> {
    let text = String::from_utf8_lossy(text);
    // Where the beginning was cut off, the first line is not whole.
    let cut = text.len() as u64 >= BYTES;
    let all: Vec<&str> = text.lines().skip(usize::from(cut)).collect();
    let shown = |line: &&str| {
        // Nothing that a program writes may steer a terminal; what rotation has taken out reads as zeros.
        let plain: String = line.chars().filter(|c| *c == '\t' || !c.is_control()).take(CHARACTERS).collect();
        let plain = plain.trim_end().to_owned();
        (!plain.is_empty()).then(|| format!("{name} | {plain}"))
    };
    let mut last: Vec<String> = all.iter().rev().filter_map(shown).take(LINES).collect();
    last.reverse();
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_is_quoted_and_nothing_that_steers_a_terminal() {
        let text: String = (1..=30).map(|n| format!("line {n}\n")).collect();
        let last = lines("web-1", text.as_bytes());
        assert_eq!(
            (last.len(), last[0].as_str(), last[9].as_str()),
            (10, "web-1 | line 21", "web-1 | line 30")
        );
        assert_eq!(lines("a-1", b"\0\0\0\x1b[31mred\x07\n\n \n"), ["a-1 | [31mred"]);
        assert_eq!(lines("a-1", b"no end of line"), ["a-1 | no end of line"]);
        assert_eq!(lines("a-1", b"\xff\xfe\n"), ["a-1 | \u{fffd}\u{fffd}"]);
        assert!(lines("a-1", b"").is_empty());
        let long = lines("a-1", "ä".repeat(1_000).as_bytes());
        assert_eq!(long[0].chars().count(), "a-1 | ".len() + CHARACTERS);
        let cut = format!("{}\nwhole\n", "x".repeat(BYTES as usize));
        assert_eq!(lines("a-1", cut.as_bytes()), ["a-1 | whole"]);
    }
}
