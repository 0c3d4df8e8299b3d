//! One run of a job: what of it has ended and how, and what may start next.

use crate::world::{Phase, ReplicaView};
use crate::{Time, WantedService};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use throng_model::job::Job;
use throng_model::replica::Exit;

pub(super) type Replicas = BTreeMap<u32, ReplicaView>;

/// What a run's number stands behind in a replica's mark.
pub(super) const MARK: char = '#';

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Counts from 1 and never comes twice.
    pub number: u64,
    pub begun: Duration,
    /// Ordinals of its replicas are those after this one.
    pub(super) first: u32,
    pub(super) completions: u32,
    pub succeeded: BTreeSet<u32>,
    /// Failures so far.
    pub failures: u32,
    /// Of these, those since the last success.
    pub(super) failing: u32,
    pub(super) last_failure: Option<Duration>,
    /// By index, the order by which the replica was started whose failure was counted last: each counts once.
    pub(super) counted: BTreeMap<u32, u64>,
    pub end: Option<End>,
    /// Until when nothing of it starts.
    #[serde(skip)]
    pub(super) hold: Option<Time>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct End {
    pub at: Duration,
    /// Why it has failed; `None` if it is complete.
    pub failed: Option<String>,
}

impl End {
    pub(super) fn is_failure(&self) -> bool {
        self.failed.is_some()
    }
}

/// The definition's part of a replica's mark, and the number of its run.
pub(super) fn split(mark: &str) -> (&str, Option<u64>) {
    match mark.split_once(MARK) {
        Some((hash, number)) => (hash, number.parse().ok()),
        None => (mark, None),
    }
}

/// What a run may start now.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Next {
    pub launch: Vec<u32>,
    pub restart: Vec<u32>,
    pub wake: Option<Time>,
}

impl Run {
    pub(super) fn index(&self, ordinal: u32) -> Option<u32> {
        let index = ordinal.checked_sub(self.first)?.checked_sub(1)?;
        (index < self.completions).then_some(index)
    }

    fn ordinal(&self, index: u32) -> u32 {
        self.first.saturating_add(index).saturating_add(1)
    }

    fn is_own(&self, hash: &str, view: &ReplicaView) -> bool {
        let (own, number) = split(&view.config_hash);
        own == hash && number == Some(self.number)
    }

    fn views<'a>(&'a self, replicas: &'a Replicas) -> impl Iterator<Item = (u32, &'a ReplicaView)> {
        let range = self.first.saturating_add(1)..=self.first.saturating_add(self.completions);
        replicas.range(range).filter_map(|(ordinal, view)| Some((self.index(*ordinal)?, view)))
    }

    /// Takes in what has ended since, in the order of its ends.
    pub(super) fn count(&mut self, hash: &str, replicas: &Replicas, now: Time, clock: Duration) -> bool {
        let mut ends: Vec<(Time, u32, bool, u64)> = self
            .views(replicas)
            .filter(|(_, view)| self.is_own(hash, view) && !view.busy && !view.leaving && !view.stopped)
            .filter_map(|(index, view)| match view.phase {
                // Nobody has seen how it ended, which is neither its failure nor its success: it runs again.
                Phase::Exited { exit: Exit::Unknown, .. } => None,
                Phase::Exited { at, .. } => Some((at, index, view.succeeded(), view.generation)),
                _ => None,
            })
            .collect();
        ends.sort_unstable();
        let mut changed = false;
        for (at, index, success, generation) in ends {
            if success {
                if self.succeeded.insert(index) {
                    (self.failing, changed) = (0, true);
                }
            } else if !self.succeeded.contains(&index)
                && self.counted.insert(index, generation) != Some(generation)
            {
                self.failures = self.failures.saturating_add(1);
                self.failing = self.failing.saturating_add(1);
                self.last_failure = Some(clock.saturating_sub(now.saturating_sub(at)));
                changed = true;
            }
        }
        changed
    }

    /// Why it has failed, if it has.
    pub(super) fn failure(
        &self,
        job: &Job,
        hash: &str,
        replicas: &Replicas,
        clock: Duration,
    ) -> Option<String> {
        let mut views = self.views(replicas).filter(|(_, view)| self.is_own(hash, view));
        let never = views.find(|(_, view)| matches!(view.phase, Phase::Failed { permanent: true, .. }));
        if let Some((index, _)) = never {
            return Some(format!("replica {} cannot be started", self.ordinal(index)));
        }
        if self.failures > job.retries {
            return Some(format!(
                "{} of its replicas have failed, and {} {} allowed (BackoffLimitExceeded)",
                self.failures,
                job.retries,
                if job.retries == 1 { "is" } else { "are" }
            ));
        }
        let deadline = job.deadline.filter(|deadline| clock >= self.begun.saturating_add(*deadline))?;
        let deadline = throng_model::units::format_duration(deadline);
        Some(format!("it was not complete after {deadline} (DeadlineExceeded)"))
    }

    /// What may start of it now.
    pub fn next(
        &self,
        service: &WantedService,
        job: &Job,
        held: &BTreeSet<u32>,
        replicas: &Replicas,
        now: Time,
    ) -> Next {
        let mut next = Next::default();
        if self.end.is_some() {
            return next;
        }
        if let Some(hold) = self.hold.filter(|hold| *hold > now) {
            next.wake = Some(hold);
            return next;
        }
        let hash = &service.config_hash;
        let active = self
            .views(replicas)
            .filter(|(_, view)| self.is_own(hash, view) && (view.runs() || view.busy || view.leaving));
        let abreast = job.parallelism.unwrap_or(u32::MAX) as usize;
        let mut room = abreast.saturating_sub(active.count());
        let mut there = self.views(replicas).peekable();
        for index in 0..self.completions {
            let view = there.next_if(|(at, _)| *at == index).map(|(_, view)| view);
            if room == 0 {
                break;
            }
            if self.succeeded.contains(&index) {
                continue;
            }
            let ordinal = self.ordinal(index);
            match view {
                None if held.contains(&ordinal) => continue,
                None => next.launch.push(ordinal),
                Some(view) if !self.is_own(hash, view) || view.busy || view.leaving || view.stopped => {
                    continue;
                }
                Some(view) if view.succeeded() => continue,
                Some(ReplicaView { phase: Phase::Running { .. }, .. }) => continue,
                Some(ReplicaView { phase: Phase::Failed { at, .. }, tries, .. }) => {
                    // Not its own failure: the host was short of something.
                    let due = *at + service.restart.after_failed_start(*tries);
                    if due > now {
                        next.wake = Some(next.wake.map_or(due, |wake| wake.min(due)));
                        continue;
                    }
                    next.restart.push(ordinal);
                }
                Some(_) => next.restart.push(ordinal),
            }
            room -= 1;
        }
        next
    }

    pub(super) fn hold(&self, job: &Job, now: Time, clock: Duration) -> Option<Time> {
        let last = self.last_failure.filter(|_| self.failing > 0)?;
        let until = last.saturating_add(pause(job, self.failing));
        Some(now + until.saturating_sub(clock)).filter(|hold| *hold > now)
    }
}

/// The pause after so many failures one after the other.
pub(super) fn pause(job: &Job, failing: u32) -> Duration {
    let times = failing.saturating_sub(1).min(31);
    job.back_off.initial.saturating_mul(1 << times).min(job.back_off.max)
}

/// The lowest ordinals that none of these runs has.
pub(super) fn free_range(runs: &[Run], completions: u32) -> u32 {
    let mut taken: Vec<(u32, u32)> =
        runs.iter().map(|run| (run.first, run.first.saturating_add(run.completions))).collect();
    taken.sort_unstable();
    let mut first = 0u32;
    for (begin, end) in taken {
        if first.saturating_add(completions) <= begin {
            break;
        }
        first = first.max(end);
    }
    first
}
