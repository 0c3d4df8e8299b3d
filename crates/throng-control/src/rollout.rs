//! How a service gets from one definition to the next: roll-outs, and their way back.
//!
//! ```text
//!           too many failures: pause
//!  Updating ───────────────────────────> Paused ─── asked for again ──> Updating
//!     │  too many failures: rollback
//!     └─────────────> RollingBack ──────────────> RolledBack
//!                         │ too many failures: pause
//!                         └──> RollbackPaused ─── asked for again ──> RollingBack
//! ```
//!
//! The states and policies are Swarm's. What differs, so that the last good state lasts: a new replica holds its place
//! in `parallelism` until it has been ready for `monitor`, and with `start-first` replicas keep their ordinals. *Stand-ins*
//! with ordinals above the wanted count start first; once they are ready each old replica is stopped and
//! started anew under its own name, never more at a time than stand-ins cover; at the end the stand-ins leave.
//!
//! A service without a policy replaces one replica at a time, each while all others are ready, and waits for a
//! replica that fails for as long as it takes.
//!
//! [`observe`] takes in what has happened and must come before each [`crate::plan()`], which only reads.

use crate::health::{Checks, Status};
use crate::restart::Rule;
use crate::world::{Phase, ReplicaView};
use crate::{Time, WantedService, job};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use throng_model::replica::Exit;
pub use throng_model::update::UpdateState as State;
use throng_model::update::{FailureAction, UpdateOrder, UpdatePolicy};

/// What tells replicas of one definition from those of another, and what is needed to look after them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Definition {
    pub config_hash: String,
    pub restart: Rule,
    pub checks: Checks,
}

/// How far a service is on its way to another definition. What is serialised is what a new supervisor must know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    pub state: State,
    /// Replicas that were to be replaced when it began.
    pub total: u32,
    /// Ordinals of replicas that are as wanted and have proved it.
    pub done: BTreeSet<u32>,
    /// Ordinals of new replicas that have failed and are still there.
    pub failed: BTreeSet<u32>,
    /// How many have failed.
    pub failures: u32,
    /// Why it is paused or went back.
    pub reason: Option<String>,
    /// Ordinals of failed replicas that are made anew because the same definition was asked for again.
    #[serde(default)]
    pub again: BTreeSet<u32>,
    /// Since when new replicas are ready. A new supervisor watches them anew.
    #[serde(skip)]
    ready_since: BTreeMap<u32, Time>,
}

/// What went wrong with a new replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    Ended(Exit),
    NotStarted,
    Unhealthy,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Ended(exit) => exit.fmt(f),
            Failure::NotStarted => f.write_str("could not be started"),
            Failure::Unhealthy => f.write_str("is unhealthy"),
        }
    }
}

/// Something about a roll-out that people and the durable state must be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    Begun {
        total: u32,
    },
    Failed {
        ordinal: u32,
        failure: Failure,
    },
    Paused {
        reason: String,
    },
    /// The definition of before is the wanted one again.
    RollingBack {
        reason: String,
    },
    Ended {
        failed: u32,
    },
    RolledBack,
}

impl Rollout {
    fn begin(state: State, service: &WantedService, replicas: &Replicas) -> Rollout {
        let kept = replicas.range(..=service.replicas);
        // Whatever state those are in that need not be replaced, it is not this roll-out's doing.
        let (done, outdated): (Vec<_>, Vec<_>) = kept.partition(|(_, view)| service.is_current(view));
        Rollout {
            state,
            total: outdated.len() as u32,
            done: done.into_iter().map(|(ordinal, _)| *ordinal).collect(),
            failed: BTreeSet::new(),
            failures: 0,
            reason: None,
            again: BTreeSet::new(),
            ready_since: BTreeMap::new(),
        }
    }

    /// Whether replicas are being replaced, or would be if nothing had failed.
    pub fn under_way(&self) -> bool {
        self.state != State::RolledBack
    }

    fn goes_on(&self) -> bool {
        matches!(self.state, State::Updating | State::RollingBack)
    }

    fn goes_back(&self) -> bool {
        matches!(self.state, State::RollingBack | State::RollbackPaused)
    }

    /// The same definition is asked for once more: a pause ends, and what has failed is made anew.
    fn resumed(mut self) -> Option<Rollout> {
        self.state = match self.state {
            State::Paused => State::Updating,
            State::RollbackPaused => State::RollingBack,
            State::RolledBack => return None,
            State::Updating | State::RollingBack => return Some(self),
        };
        self.again = std::mem::take(&mut self.failed);
        (self.failures, self.reason, self.ready_since) = (0, None, BTreeMap::new());
        Some(self)
    }

    /// A new replica that has not proved itself yet, or whose delay has not passed.
    fn in_progress(&self, ordinal: u32, policy: &UpdatePolicy, now: Time) -> bool {
        if self.failed.contains(&ordinal) {
            return false;
        }
        let resting = self.ready_since.get(&ordinal).is_some_and(|since| now < *since + hold(policy));
        resting || !self.done.contains(&ordinal)
    }
}

/// How long a ready replica keeps its place.
fn hold(policy: &UpdatePolicy) -> Time {
    policy.monitor.max(policy.delay)
}

type Replicas = BTreeMap<u32, ReplicaView>;

/// One replica at a time and no patience needed: what a service without `update_config` goes by.
const PLAIN: UpdatePolicy = UpdatePolicy {
    parallelism: 1,
    delay: Time::ZERO,
    order: UpdateOrder::StopFirst,
    monitor: Time::ZERO,
    max_failure_ratio: 1.0,
    failure_action: FailureAction::Continue,
};

impl WantedService {
    /// The definition that a replica was made from, if it is still known.
    pub fn definition_of(&self, view: &ReplicaView) -> Option<(&Rule, &Checks)> {
        let hash = job::definition_of(&view.config_hash);
        if hash == self.config_hash {
            return Some((&self.restart, &self.checks));
        }
        let previous = self.previous.as_ref().filter(|previous| previous.config_hash == hash)?;
        Some((&previous.restart, &previous.checks))
    }

    /// Whether a replica may be given work, by the checks of its own definition.
    pub fn ready(&self, view: &ReplicaView) -> bool {
        self.definition_of(view)
            .map_or_else(|| view.ready(&Checks::default()), |(_, checks)| view.ready(checks))
    }

    /// When a replica that does not run is started again, which may have passed; `None` if it stays as it is.
    pub fn next_start(&self, view: &ReplicaView) -> Option<Time> {
        let (restart, _) = self.definition_of(view)?;
        match view.phase {
            Phase::Exited { at, .. } if self.job.is_some() => self.job.as_ref()?.next_start(view, at),
            Phase::Exited { at, .. } => restart.delay(view.succeeded(), view.tries).map(|delay| at + delay),
            Phase::Failed { at, permanent: false } => Some(at + restart.after_failed_start(view.tries)),
            _ => None,
        }
    }

    pub(crate) fn is_current(&self, view: &ReplicaView) -> bool {
        view.config_hash == self.config_hash
    }

    /// Whether it is to be made anew.
    pub(crate) fn is_outdated(&self, ordinal: u32, view: &ReplicaView) -> bool {
        let again = |rollout: &Rollout| rollout.again.contains(&ordinal);
        !self.is_current(view) || self.rollout.as_ref().is_some_and(again)
    }

    /// Makes this the definition that comes after `before`. The same one asked for again ends a pause; of another one the
    /// last that was reached is what it may go back to.
    pub fn succeed(&mut self, before: WantedService) {
        let same = self.config_hash == before.config_hash;
        if let Some(work) = &mut self.job {
            let progress = before.job.map(|work| work.progress).unwrap_or_default();
            return work.succeed(progress, same);
        }
        if same {
            self.previous = before.previous;
            self.rollout = before.rollout.and_then(Rollout::resumed);
            return;
        }
        let unreached =
            before.rollout.as_ref().is_some_and(|rollout| rollout.under_way() && !rollout.goes_back());
        let own =
            Definition { config_hash: before.config_hash, restart: before.restart, checks: before.checks };
        let good = if unreached { before.previous.unwrap_or(own) } else { own };
        self.previous = Some(good).filter(|good| good.config_hash != self.config_hash);
        self.rollout = None;
    }

    /// The definition of before becomes the wanted one; the one that failed is remembered for what still runs of it.
    fn turn_back(&mut self, replicas: &Replicas) -> bool {
        let Some(previous) = self.previous.take() else { return false };
        self.previous = Some(Definition {
            config_hash: std::mem::replace(&mut self.config_hash, previous.config_hash),
            restart: std::mem::replace(&mut self.restart, previous.restart),
            checks: std::mem::replace(&mut self.checks, previous.checks),
        });
        self.rollout = Some(Rollout::begin(State::RollingBack, self, replicas));
        true
    }

    /// The policy in force: that of the way back while it goes back. `None`: one at a time, for as long as it takes.
    pub fn update_policy(&self) -> Option<UpdatePolicy> {
        let back = self.rollout.as_ref().is_some_and(Rollout::goes_back);
        if back { Some(self.rollback.unwrap_or_default()) } else { self.update }
    }

    fn policy(&self) -> UpdatePolicy {
        self.update_policy().unwrap_or(PLAIN)
    }

    /// Whether a roll-out goes on that will decide what becomes of replicas that fail.
    pub fn decides(&self) -> bool {
        !self.patient() && self.rollout.as_ref().is_some_and(Rollout::goes_on)
    }

    /// Whether it waits for a replica that fails instead of counting it.
    fn patient(&self) -> bool {
        self.update_policy().is_none()
    }

    fn abreast(&self, policy: &UpdatePolicy) -> u32 {
        if policy.parallelism == 0 { self.replicas } else { policy.parallelism }
    }

    /// How many replicas beyond the wanted count stand in for those that are being replaced.
    pub fn stand_ins(&self, replicas: Option<&Replicas>, now: Time) -> u32 {
        let Some(rollout) = self.rollout.as_ref().filter(|rollout| rollout.under_way()) else { return 0 };
        let policy = self.policy();
        if policy.order == UpdateOrder::StopFirst {
            return 0;
        }
        let most = self.abreast(&policy).min(self.replicas);
        let needed = (1..=self.replicas).filter(|ordinal| {
            let view = replicas.and_then(|replicas| replicas.get(ordinal));
            view.is_none_or(|view| self.is_outdated(*ordinal, view) || view.leaving)
                || rollout.in_progress(*ordinal, &policy, now)
        });
        needed.take(most as usize).count() as u32
    }
}

impl WantedService {
    /// As [`WantedService::stand_ins`], but none while the roll-out is paused: then those that are there stay.
    pub(crate) fn stand_ins_to_start(&self, replicas: Option<&Replicas>, now: Time) -> u32 {
        let goes_on = self.rollout.as_ref().is_some_and(Rollout::goes_on);
        if goes_on { self.stand_ins(replicas, now) } else { 0 }
    }
}

/// Takes in what has become of a service's replicas: begins a roll-out if some are outdated, counts new ones that have
/// proved themselves or failed, and pauses, goes back or ends. `service` may come out with its earlier definition.
pub fn observe(service: &mut WantedService, replicas: Option<&Replicas>, now: Time) -> Vec<Change> {
    let none = Replicas::new();
    let replicas = replicas.unwrap_or(&none);
    let mut changes = Vec::new();
    let policy = service.update_policy();
    let Some(mut rollout) = service.rollout.take() else {
        let outdated = |(_, view): (&u32, &ReplicaView)| !service.is_current(view);
        if replicas.range(..=service.replicas).any(outdated) {
            let rollout = Rollout::begin(State::Updating, service, replicas);
            changes.push(Change::Begun { total: rollout.total });
            service.rollout = Some(rollout);
        } else {
            // Nothing is left of what was before.
            service.previous = None;
        }
        return changes;
    };
    // One that is made anew, since it was scaled away say, has to prove itself anew.
    for known in [&mut rollout.done, &mut rollout.failed] {
        known.retain(|ordinal| replicas.contains_key(ordinal));
    }
    let goes_on = rollout.goes_on();
    if goes_on {
        look(service, &mut rollout, policy, replicas, now, &mut changes);
    }
    service.rollout = Some(rollout);
    if goes_on {
        react(service, replicas, &mut changes);
        end(service, replicas, &mut changes);
    }
    changes
}

/// Which new replicas are ready, have been for long enough, or have failed.
fn look(
    service: &WantedService,
    rollout: &mut Rollout,
    policy: Option<UpdatePolicy>,
    replicas: &Replicas,
    now: Time,
    changes: &mut Vec<Change>,
) {
    let monitor = policy.unwrap_or(PLAIN).monitor;
    let still_bad = |ordinal: &u32| replicas.get(ordinal).is_some_and(|view| !service.ready(view));
    rollout.again.retain(still_bad);
    let (again, done) = (&rollout.again, &rollout.done);
    let watched = replicas.iter().filter(|(ordinal, view)| {
        service.is_current(view) && !view.leaving && !again.contains(ordinal) && !done.contains(ordinal)
    });
    let (mut proved, mut failed) = (Vec::new(), Vec::new());
    for (&ordinal, view) in watched.filter(|(ordinal, _)| !rollout.failed.contains(ordinal)) {
        match verdict(service, view) {
            Verdict::Good => {
                let since = *rollout.ready_since.entry(ordinal).or_insert(now);
                if now >= since + monitor {
                    proved.push(ordinal);
                }
            }
            Verdict::Bad(failure) if policy.is_some() => failed.push((ordinal, failure)),
            Verdict::Bad(_) | Verdict::Open => {
                rollout.ready_since.remove(&ordinal);
            }
        }
    }
    rollout.done.extend(proved);
    for (ordinal, failure) in failed {
        rollout.failed.insert(ordinal);
        rollout.failures = rollout.failures.saturating_add(1);
        rollout.ready_since.remove(&ordinal);
        changes.push(Change::Failed { ordinal, failure });
    }
}

/// What an outdated replica is good for: the less, the earlier it is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Use {
    None,
    Soon,
    Serves,
}

enum Verdict {
    /// It does what it is for, or has done it.
    Good,
    Bad(Failure),
    /// Nothing can be said yet.
    Open,
}

fn verdict(service: &WantedService, view: &ReplicaView) -> Verdict {
    match view.phase {
        _ if service.ready(view) => Verdict::Good,
        Phase::Running { .. } if view.health.status == Status::Unhealthy || view.condemned() => {
            Verdict::Bad(Failure::Unhealthy)
        }
        // It is being started again: what it was before has been looked at before.
        _ if view.busy && !view.runs() => Verdict::Open,
        _ if view.succeeded() && service.restart.delay(true, view.tries).is_none() => Verdict::Good,
        Phase::Exited { exit, .. } => Verdict::Bad(Failure::Ended(exit)),
        Phase::Failed { .. } => Verdict::Bad(Failure::NotStarted),
        Phase::Running { .. } | Phase::Created => Verdict::Open,
    }
}

/// Does what the policy says once there are too many failures.
fn react(service: &mut WantedService, replicas: &Replicas, changes: &mut Vec<Change>) {
    let policy = service.policy();
    let Some(Change::Failed { ordinal, failure }) = changes.last().cloned() else { return };
    let Some(rollout) = service.rollout.as_mut() else { return };
    let (failed, of) = (rollout.failures, rollout.total.max(1));
    let too_many = f64::from(failed) / f64::from(of) > policy.max_failure_ratio;
    if !too_many || policy.failure_action == FailureAction::Continue {
        return;
    }
    let mut reason = format!("{failed} of {of} failed, replica {ordinal} last: {failure}");
    let turns = policy.failure_action == FailureAction::Rollback && !rollout.goes_back();
    if turns && service.turn_back(replicas) {
        if let Some(rollout) = &mut service.rollout {
            rollout.reason = Some(reason.clone());
        }
        changes.push(Change::RollingBack { reason });
        return;
    }
    if turns {
        reason += "; no earlier definition is known to go back to";
    }
    if let Some(rollout) = &mut service.rollout {
        rollout.state = if rollout.goes_back() { State::RollbackPaused } else { State::Paused };
        rollout.reason = Some(reason.clone());
    }
    changes.push(Change::Paused { reason });
}

/// Whether all is replaced and nobody stands in any more.
fn end(service: &mut WantedService, replicas: &Replicas, changes: &mut Vec<Change>) {
    let Some(rollout) = service.rollout.as_ref().filter(|rollout| rollout.goes_on()) else { return };
    let proved = |ordinal: u32| rollout.done.contains(&ordinal) || rollout.failed.contains(&ordinal);
    let last = replicas.last_key_value().map_or(0, |(ordinal, _)| *ordinal);
    let reached = |ordinal: u32| {
        replicas.get(&ordinal).is_some_and(|view| !service.is_outdated(ordinal, view) && !view.leaving)
            && proved(ordinal)
    };
    if last > service.replicas || !(1..=service.replicas).all(reached) {
        return;
    }
    let (failed, back) = (rollout.failures, rollout.goes_back());
    if back {
        if let Some(rollout) = &mut service.rollout {
            rollout.state = State::RolledBack;
        }
        changes.push(Change::RolledBack);
    } else {
        service.rollout = None;
        changes.push(Change::Ended { failed });
    }
    service.previous = None;
}

impl WantedService {
    /// Outdated replicas that are to be replaced now, those that serve nobody first. None of them is busy.
    pub(crate) fn to_replace(&self, replicas: &Replicas, now: Time) -> BTreeSet<u32> {
        let going = self.rollout.as_ref().filter(|rollout| rollout.goes_on());
        let Some(rollout) = going else { return BTreeSet::new() };
        let kept = || replicas.range(..=self.replicas);
        let mut outdated: Vec<(Use, u32)> = kept()
            .filter(|(ordinal, view)| self.is_outdated(**ordinal, view) && !view.busy && !view.leaving)
            .map(|(ordinal, view)| (self.use_of(view), *ordinal))
            .collect();
        outdated.sort_unstable();
        let room = if self.patient() {
            // Replacing those that serve nobody costs nothing, and they would be waited for in vain.
            let idle = outdated.iter().filter(|(used, _)| *used == Use::None).count();
            let others = |ordinal: u32| {
                kept().count() == self.replicas as usize
                    && kept().all(|(&other, view)| other == ordinal || self.ready(view))
            };
            idle.max(usize::from(outdated.first().is_some_and(|(_, ordinal)| others(*ordinal))))
        } else {
            self.room(rollout, replicas, now)
        };
        outdated.into_iter().take(room).map(|(_, ordinal)| ordinal).collect()
    }

    fn use_of(&self, view: &ReplicaView) -> Use {
        match view.phase {
            Phase::Running { .. } if self.ready(view) => Use::Serves,
            Phase::Running { .. } if view.health.status != Status::Unhealthy && !view.condemned() => {
                Use::Soon
            }
            _ => Use::None,
        }
    }

    /// How many more replicas may be taken out now.
    fn room(&self, rollout: &Rollout, replicas: &Replicas, now: Time) -> usize {
        let policy = self.policy();
        let out = (1..=self.replicas).filter(|ordinal| match replicas.get(ordinal) {
            None => true,
            Some(view) if view.leaving => true,
            Some(view) => !self.is_outdated(*ordinal, view) && rollout.in_progress(*ordinal, &policy, now),
        });
        let most = match policy.order {
            UpdateOrder::StopFirst => self.abreast(&policy) as usize,
            UpdateOrder::StartFirst => {
                let stand_ins = self.stand_ins(Some(replicas), now);
                let first = self.replicas.saturating_add(1);
                let covers = |(ordinal, view): &(&u32, &ReplicaView)| {
                    let proved = rollout.done.contains(ordinal) && self.ready(view);
                    // Failures that the policy bears do not hold the others up.
                    proved || rollout.failed.contains(ordinal)
                };
                replicas.range(first..first.saturating_add(stand_ins)).filter(covers).count()
            }
        };
        most.saturating_sub(out.count())
    }

    /// The next time at which a new replica has been ready for long enough.
    pub(crate) fn next_proof(&self, now: Time) -> Option<Time> {
        let rollout = self.rollout.as_ref().filter(|rollout| rollout.goes_on())?;
        let policy = self.policy();
        let times =
            rollout.ready_since.values().flat_map(|since| [*since + policy.monitor, *since + hold(&policy)]);
        times.filter(|time| *time > now).min()
    }
}

#[cfg(test)]
mod tests;
