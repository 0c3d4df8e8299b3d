//! Services that run to completion: what of a job runs next, and when it has succeeded or failed.
//!
//! The words and rules are those of Kubernetes' Job with completion mode `Indexed`, and of its CronJob. Each replica of a
//! run has an index, from 0, that it must succeed for once; one that fails is started again until there have been more
//! failures than the job bears. After a failure nothing of the run starts for a while, twice as long each time until
//! something succeeds.
//!
//! ```text
//!  its time comes                     all indexes have succeeded
//!  ─────────────> Run under way ────────────────────────────────> Complete
//!                      │  too many failures, deadline
//!                      └───────────────────> Failed ── asked for again ──> the next run, without what has succeeded
//! ```
//!
//! [`observe`] takes in what has happened and must come before each [`crate::plan()`], which only reads. What it changes
//! must outlive the supervisor before the plan is carried out: then no failure is forgotten, and no index that has
//! succeeded runs again.

mod run;

use crate::plan::{Wanted, first_unmet};
use crate::schedule::{ScheduleError, Timetable};
use crate::world::{ReplicaView, World};
use crate::{Time, WantedService};
pub use run::{End, Next, Run};
use run::{MARK, Replicas, free_range, split};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
pub use throng_model::job::JobState;
use throng_model::job::{Concurrency, Job, JobStatus};

/// Runs of one job under way at a time, whatever its schedule asks for.
pub const RUNS_MOST: usize = 16;

/// A job: what is asked for, and how far it is.
#[derive(Debug, Clone)]
pub struct Work {
    pub job: Job,
    timetable: Option<Timetable>,
    pub progress: Progress,
}

/// How far a job is. What is serialised is what a new supervisor must know. Times are since the epoch of Unix.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Since when there is this job; its schedule counts from then.
    since: Option<Duration>,
    /// Runs begun so far.
    begun: u64,
    /// The time of its schedule that was taken up, or left out, last.
    scheduled: Option<Duration>,
    /// Those under way, and the latest one after its end.
    pub runs: Vec<Run>,
    /// It has been asked for again after it failed.
    #[serde(default)]
    again: bool,
    /// The time of its schedule that waits for an earlier run, so that this is told once.
    #[serde(skip)]
    held_back: Option<Duration>,
    /// When something of it changes with time alone.
    #[serde(skip)]
    wake: Option<Time>,
    /// Its time has come, but not yet that of something it depends on.
    #[serde(skip)]
    waits: bool,
}

/// Something about a job that the durable state must have, and people be told if there is a text for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// An index has succeeded, or one more has failed.
    Counted,
    Begun {
        run: u64,
        completions: u32,
    },
    Complete {
        run: u64,
        completions: u32,
        failures: u32,
    },
    Failed {
        run: u64,
        reason: String,
    },
    /// Its time has passed by more than the starting deadline.
    Missed {
        scheduled: Duration,
    },
    /// It waits for an earlier run, or there are too many.
    HeldBack {
        under_way: usize,
    },
    /// Ended for the next one.
    Replaced {
        run: u64,
    },
}

impl Work {
    /// # Errors
    /// For a schedule that is none.
    pub fn new(job: Job) -> Result<Work, ScheduleError> {
        let parse = |schedule: &throng_model::job::Schedule| {
            Timetable::parse(&schedule.expression, schedule.timezone.as_deref())
        };
        let timetable = job.schedule.as_ref().map(parse).transpose()?;
        Ok(Work { job, timetable, progress: Progress::default() })
    }

    /// Makes this the job that comes after `before`. `same`: its replicas are what they were.
    pub(crate) fn succeed(&mut self, before: Progress, same: bool) {
        if !same {
            // Numbers go on, so that replicas of before are not taken for its own.
            self.progress = Progress { begun: before.begun, ..Progress::default() };
            return;
        }
        let failed = before.runs.last().is_some_and(|run| run.end.as_ref().is_some_and(End::is_failure));
        self.progress = Progress { again: failed && self.timetable.is_none(), ..before };
    }

    /// Whether a replica belongs to a run, under way or the latest one.
    pub fn claims(&self, hash: &str, ordinal: u32, view: &ReplicaView) -> bool {
        self.run_of(hash, ordinal, view).is_some()
    }

    fn run_of(&self, hash: &str, ordinal: u32, view: &ReplicaView) -> Option<(&Run, u32)> {
        let (own, number) = split(&view.config_hash);
        if own != hash {
            return None;
        }
        self.progress.runs.iter().find_map(|run| {
            let index = run.index(ordinal)?;
            // What has succeeded in a run that went on in this one stays.
            (number == Some(run.number) || run.succeeded.contains(&index)).then_some((run, index))
        })
    }

    /// What tells a replica of the run that has this ordinal now, and its index in that run.
    pub fn mark(&self, hash: &str, ordinal: u32) -> Option<(String, u32)> {
        self.progress.runs.iter().filter(|run| run.end.is_none()).find_map(|run| {
            let index = run.index(ordinal)?;
            Some((format!("{hash}{MARK}{}", run.number), index))
        })
    }

    /// Index of a replica in its run.
    pub fn index(&self, hash: &str, ordinal: u32, view: &ReplicaView) -> Option<u32> {
        self.run_of(hash, ordinal, view).map(|(_, index)| index)
    }

    /// When a replica that has failed is started again; `None` if it stays as it is.
    pub(crate) fn next_start(&self, view: &ReplicaView, at: Time) -> Option<Time> {
        let (_, number) = split(&view.config_hash);
        let run = self.progress.runs.iter().find(|run| Some(run.number) == number && run.end.is_none())?;
        (!view.succeeded()).then(|| run.hold.unwrap_or(at).max(at))
    }

    pub fn is_scheduled(&self) -> bool {
        self.timetable.is_some()
    }

    pub(crate) fn wake(&self) -> Option<Time> {
        self.progress.wake
    }

    /// Whether it would begin if what it depends on were as it must be.
    pub(crate) fn waits(&self) -> bool {
        self.progress.waits
    }

    /// The latest run, whatever became of it.
    fn latest(&self) -> Option<&Run> {
        self.progress.runs.iter().max_by_key(|run| run.number)
    }

    /// `Err` with the reason once the latest run has failed, `Ok(true)` once it is complete.
    pub fn outcome(&self) -> Result<bool, String> {
        match self.latest().and_then(|run| run.end.as_ref()) {
            None => Ok(false),
            Some(End { failed: None, .. }) => Ok(true),
            Some(End { failed: Some(reason), .. }) => Err(reason.clone()),
        }
    }

    /// As it is shown. `completions`: of a run that has not begun.
    pub fn status(&self, completions: u32, running: u32, now: Time) -> JobStatus {
        let schedule = self.job.schedule.as_ref();
        let suspended = schedule.is_some_and(|schedule| schedule.suspend);
        let after = self.progress.scheduled.or(self.progress.since);
        let next = self.timetable.as_ref().filter(|_| !suspended).zip(after);
        let mut status = JobStatus {
            completions,
            running,
            next: next.and_then(|(table, after)| table.next(after)).map(|at| at.as_secs()),
            state: if suspended { JobState::Suspended } else { JobState::Waiting },
            ..JobStatus::default()
        };
        let Some(run) = self.latest() else { return status };
        status.run = run.number;
        status.completions = run.completions;
        status.completed = run.succeeded.len() as u32;
        status.failed = run.failures;
        match &run.end {
            None => {
                status.state = JobState::Running;
                let pause = run.hold.and_then(|hold| hold.checked_sub(now)).filter(|pause| !pause.is_zero());
                status.pause = pause.map(|pause| pause.as_secs() + u64::from(pause.subsec_nanos() > 0));
            }
            Some(End { failed: None, .. }) => status.state = JobState::Complete,
            Some(End { failed: Some(reason), .. }) => {
                (status.state, status.reason) = (JobState::Failed, Some(reason.clone()));
            }
        }
        status
    }
}

/// What of a replica's mark tells its definition.
pub fn definition_of(mark: &str) -> &str {
    split(mark).0
}

/// Whether a replica is one of a job.
pub fn is_of_job(mark: &str) -> bool {
    mark.contains(MARK)
}

/// Ordinals of a service that are to be launched and are not there, in their order.
pub fn missing(service: &WantedService, replicas: Option<&Replicas>, now: Time) -> Vec<u32> {
    let none = Replicas::new();
    let replicas = replicas.unwrap_or(&none);
    match &service.job {
        None => (1..=service.replicas).filter(|ordinal| !replicas.contains_key(ordinal)).collect(),
        Some(work) => {
            // Wherever there is room for them, that is.
            let held = BTreeSet::new();
            let runs = work.progress.runs.iter();
            runs.flat_map(|run| run.next(service, &work.job, &held, replicas, now).launch).collect()
        }
    }
}

/// Takes in what has become of all jobs, ends runs and begins those whose time has come. `clock`: the host's, since the
/// epoch of Unix, at `now`.
pub fn observe(wanted: &mut Wanted, world: &World, now: Time, clock: Duration) -> Vec<(String, Change)> {
    let mut changes = Vec::new();
    if wanted.going_down {
        return changes;
    }
    let jobs: Vec<String> =
        wanted.services.iter().filter(|(_, s)| s.job.is_some()).map(|(name, _)| name.clone()).collect();
    for name in jobs {
        let free = first_unmet(wanted, world, &name).is_none();
        let Some(service) = wanted.services.get_mut(&name) else { continue };
        let (hash, completions) = (service.config_hash.clone(), service.replicas);
        let Some(work) = &mut service.job else { continue };
        let none = Replicas::new();
        let replicas = world.get(&name).unwrap_or(&none);
        let moment = Moment { hash: &hash, completions, replicas, now, clock };
        let mut told = Vec::new();
        work.look(&moment, &mut told);
        work.begin(&moment, free, &mut told);
        work.set_wake(&moment);
        changes.extend(told.into_iter().map(|change| (name.clone(), change)));
    }
    changes
}

/// What a job is looked at with.
struct Moment<'a> {
    hash: &'a str,
    completions: u32,
    replicas: &'a Replicas,
    now: Time,
    clock: Duration,
}

impl Work {
    fn look(&mut self, moment: &Moment<'_>, changes: &mut Vec<Change>) {
        let Moment { hash, replicas, now, clock, .. } = *moment;
        if self.progress.since.is_none() {
            self.progress.since = Some(clock);
            changes.push(Change::Counted);
        }
        let once = self.timetable.is_none();
        for run in &mut self.progress.runs {
            if once && run.completions != moment.completions {
                run.completions = moment.completions;
                run.succeeded.retain(|index| *index < moment.completions);
                // More is asked for than was before.
                run.end.take_if(|end| !end.is_failure());
                changes.push(Change::Counted);
            }
            if run.end.is_some() {
                continue;
            }
            if run.count(hash, replicas, now, clock) {
                changes.push(Change::Counted);
            }
            if run.succeeded.len() as u32 >= run.completions {
                run.end = Some(End { at: clock, failed: None });
                let Run { number, completions, failures, .. } = *run;
                changes.push(Change::Complete { run: number, completions, failures });
            } else if let Some(reason) = run.failure(&self.job, hash, replicas, clock) {
                run.end = Some(End { at: clock, failed: Some(reason.clone()) });
                changes.push(Change::Failed { run: run.number, reason });
            }
            run.hold = run.hold(&self.job, now, clock);
        }
    }

    fn begin(&mut self, moment: &Moment<'_>, free: bool, changes: &mut Vec<Change>) {
        self.progress.waits = false;
        if self.timetable.is_some() {
            return self.begin_scheduled(moment, free, changes);
        }
        let again = self.progress.again;
        if !self.progress.runs.is_empty() && !again {
            return;
        }
        if !free {
            self.progress.waits = true;
            return;
        }
        self.progress.again = false;
        let done = self.progress.runs.pop().map(|run| run.succeeded).unwrap_or_default();
        self.start(moment, done, changes);
    }

    fn begin_scheduled(&mut self, moment: &Moment<'_>, free: bool, changes: &mut Vec<Change>) {
        let (Some(table), Some(schedule)) = (&self.timetable, &self.job.schedule) else { return };
        let Some(after) = self.progress.scheduled.or(self.progress.since) else { return };
        let due = table.latest(after, moment.clock).filter(|_| !schedule.suspend);
        let Some(due) = due else { return };
        if schedule.starting_deadline.is_some_and(|most| moment.clock > due.saturating_add(most)) {
            self.progress.scheduled = Some(due);
            changes.push(Change::Missed { scheduled: due });
            return;
        }
        if !free {
            self.progress.waits = true;
            return;
        }
        let under_way = self.progress.runs.iter().filter(|run| run.end.is_none()).count();
        let waits = schedule.concurrency == Concurrency::Forbid && under_way > 0;
        if waits || schedule.concurrency == Concurrency::Allow && under_way >= RUNS_MOST {
            if self.progress.held_back.replace(due) != Some(due) {
                changes.push(Change::HeldBack { under_way });
            }
            return;
        }
        if schedule.concurrency == Concurrency::Replace {
            let replaced = self.progress.runs.iter().filter(|run| run.end.is_none());
            changes.extend(replaced.map(|run| Change::Replaced { run: run.number }));
            self.progress.runs.clear();
        }
        self.progress.scheduled = Some(due);
        // The replicas of a run that has ended stay until the next one.
        self.progress.runs.retain(|run| run.end.is_none());
        self.start(moment, BTreeSet::new(), changes);
    }

    fn start(&mut self, moment: &Moment<'_>, succeeded: BTreeSet<u32>, changes: &mut Vec<Change>) {
        self.progress.begun = self.progress.begun.saturating_add(1);
        let (run, completions) = (self.progress.begun, moment.completions);
        let first = free_range(&self.progress.runs, completions);
        self.progress.runs.push(Run {
            number: run,
            begun: moment.clock,
            first,
            completions,
            succeeded,
            failures: 0,
            failing: 0,
            last_failure: None,
            counted: BTreeMap::new(),
            end: None,
            hold: None,
        });
        changes.push(Change::Begun { run, completions });
    }

    fn set_wake(&mut self, moment: &Moment<'_>) {
        let deadline = self.job.deadline;
        let running = self.progress.runs.iter().filter(|run| run.end.is_none());
        let deadlines = running.filter_map(|run| run.begun.checked_add(deadline?));
        let suspended = self.job.schedule.as_ref().is_some_and(|schedule| schedule.suspend);
        let after = self.progress.scheduled.or(self.progress.since);
        let table = self.timetable.as_ref().filter(|_| !suspended);
        let next = table.zip(after).and_then(|(table, after)| {
            let latest = table.latest(after, moment.clock).unwrap_or(after);
            table.next(latest)
        });
        let at = deadlines.chain(next).filter(|at| *at > moment.clock).min();
        self.progress.wake = at.map(|at| moment.now + (at - moment.clock));
    }
}

#[cfg(test)]
mod tests;
