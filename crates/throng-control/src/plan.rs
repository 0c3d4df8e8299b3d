//! From what is wanted and what is there to the next steps.
//!
//! ```text
//!            Launch                    ends              Restart after back-off
//!  missing ─────────> running ───────────────────> exited ────────────────────> running
//!                        │  Probe … Probe, End        │
//!                        │ surplus, its turn in a roll-out, going down
//!                        └──────────────> Retire <────┘ ──────> missing
//! ```
//!
//! A replica with a step under way (`busy`) gets no other step until that one has ended.

use crate::Time;
use crate::health::{Checks, Question, Status};
use crate::job::Work;
use crate::restart::Rule;
use crate::rollout::{self, Change, Definition, Rollout};
use crate::world::{Phase, ReplicaView, World};
use std::collections::{BTreeMap, BTreeSet};
use throng_model::app::{Condition, Dependency};
use throng_model::update::UpdatePolicy;

/// What should be there.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    pub services: BTreeMap<String, WantedService>,
    /// Everything is to be retired, dependents first.
    pub going_down: bool,
}

#[derive(Debug, Clone, Default)]
pub struct WantedService {
    pub replicas: u32,
    pub config_hash: String,
    pub restart: Rule,
    pub depends_on: BTreeMap<String, Dependency>,
    pub checks: Checks,
    /// Ordinals that cannot be launched now: no node has room for them, see [`crate::place`].
    pub held: BTreeSet<u32>,
    /// How replicas of another definition are replaced; see [`crate::rollout`].
    pub update: Option<UpdatePolicy>,
    pub rollback: Option<UpdatePolicy>,
    /// What replicas that are not yet replaced were made from, and what a roll-out goes back to.
    pub previous: Option<Definition>,
    /// Set by [`observe`] alone, but for what a supervisor remembers.
    pub rollout: Option<Rollout>,
    /// It runs to completion: `replicas` of it must succeed. Its definition is not rolled out but begun anew.
    pub job: Option<Work>,
}

/// Named bounds on what a single plan may start.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Launches and restarts under way at once, over all services.
    pub launches: usize,
    /// Retirements under way at once.
    pub retirements: usize,
    /// Probes under way at once.
    pub probes: usize,
    /// Of these, probes that this plan may begin of replicas that have shown before how they are: see
    /// [`crate::pace::Budget`]. Whoever waits for a crowd to come up waits for first probes.
    pub rechecks: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Create and start a replica that does not exist.
    Launch { service: String, ordinal: u32 },
    /// Start a replica that has ended, with the same identity and files.
    Restart { service: String, ordinal: u32 },
    /// Take it out of the balancer, let its requests end, stop and remove it.
    Retire { service: String, ordinal: u32 },
    /// Run one of its checks once.
    Probe { service: String, ordinal: u32, question: Question },
    /// Stop its process, as [`Step::Retire`] does, but leave it where it is: it does not live any more.
    End { service: String, ordinal: u32 },
}

/// A service that cannot go on yet, and why, in words for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    pub service: String,
    pub reason: String,
    /// Waiting longer will not help.
    pub hopeless: bool,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    pub steps: Vec<Step>,
    pub waiting: Vec<Waiting>,
    /// When to plan again even if nothing happens until then.
    pub wake: Option<Time>,
    /// More launches or restarts are due than [`Limits::launches`] left room for.
    pub launches_held: bool,
    /// The longest that a probe is overdue for which there was no room; zero if all due ones fit.
    pub probes_late: Time,
}

/// Takes in what there is, for roll-outs: see [`rollout::observe`]. What has changed comes back by service.
pub fn observe(wanted: &mut Wanted, world: &World, now: Time) -> Vec<(String, Change)> {
    let mut changes = Vec::new();
    if !wanted.going_down {
        for (name, service) in wanted.services.iter_mut().filter(|(_, service)| service.job.is_none()) {
            let changed = rollout::observe(service, world.get(name), now);
            changes.extend(changed.into_iter().map(|change| (name.clone(), change)));
        }
    }
    changes
}

/// Everything that may start now. Pure: the same arguments give the same plan.
pub fn plan(wanted: &Wanted, world: &World, limits: &Limits, now: Time) -> Plan {
    let room = Room::left(world, limits);
    let mut planner = Planner { wanted, world, now, room, due: Vec::new(), plan: Plan::default() };
    planner.retire_surplus();
    if !wanted.going_down {
        for (name, service) in &wanted.services {
            planner.service(name, service);
        }
    }
    planner.probe_longest_overdue();
    planner.plan
}

/// How many more steps of each kind fit under the limits.
struct Room {
    launches: usize,
    retirements: usize,
    probes: usize,
    rechecks: usize,
}

impl Room {
    fn left(world: &World, limits: &Limits) -> Room {
        let busy = world.values().flat_map(BTreeMap::values).filter(|replica| replica.busy);
        let (mut starting, mut running) = (0, 0);
        for replica in busy {
            match replica.phase {
                Phase::Running { .. } => running += 1,
                _ => starting += 1,
            }
        }
        Room {
            launches: limits.launches.saturating_sub(starting),
            // A busy running replica is being probed or retired; both bounds count it.
            retirements: limits.retirements.saturating_sub(running),
            probes: limits.probes.saturating_sub(running),
            rechecks: limits.rechecks,
        }
    }
}

struct Planner<'a> {
    wanted: &'a Wanted,
    world: &'a World,
    now: Time,
    room: Room,
    due: Vec<DueProbe<'a>>,
    plan: Plan,
}

struct DueProbe<'a> {
    at: Time,
    service: &'a str,
    ordinal: u32,
    question: Question,
    /// Nobody waits for its answer: it has been asked before, or is not looked at by whoever brings the app up.
    recheck: bool,
}

impl<'a> Planner<'a> {
    /// Replicas beyond the wanted count, of services that are gone, or of everything when going down, and those that
    /// could not be removed before. When going down, a service waits until all that depend on it have left.
    fn retire_surplus(&mut self) {
        for (name, replicas) in self.world {
            let service = self.wanted.services.get(name).filter(|_| !self.wanted.going_down);
            if self.wanted.going_down && self.has_living_dependents(name) {
                continue;
            }
            let keep = service.map_or(0, |service| service.replicas);
            let stand_ins = service.map_or(0, |service| service.stand_ins(Some(replicas), self.now));
            let stays = |ordinal: u32, view: &ReplicaView| {
                if let Some((service, work)) = service.and_then(|s| s.job.as_ref().map(|work| (s, work))) {
                    return !view.leaving && work.claims(&service.config_hash, ordinal, view);
                }
                let stands_in = || {
                    ordinal <= keep.saturating_add(stand_ins)
                        && service.is_some_and(|service| !service.is_outdated(ordinal, view))
                };
                !view.leaving && (ordinal <= keep || stands_in())
            };
            // The highest ordinals leave first, as in a StatefulSet.
            for (&ordinal, _) in replicas.iter().rev().filter(|&(&ordinal, r)| !r.busy && !stays(ordinal, r))
            {
                if self.room.retirements == 0 {
                    return;
                }
                self.retire(name, ordinal);
            }
        }
    }

    fn has_living_dependents(&self, name: &str) -> bool {
        self.wanted.services.iter().any(|(other, service)| {
            service.depends_on.contains_key(name) && self.world.get(other).is_some_and(|r| !r.is_empty())
        })
    }

    fn service(&mut self, name: &'a str, service: &'a WantedService) {
        if let Some(work) = &service.job {
            return self.job(name, service, work);
        }
        let replicas = self.world.get(name);
        let replaced = replicas.map(|replicas| service.to_replace(replicas, self.now)).unwrap_or_default();
        if let Some(waiting) = self.unmet_dependency(name, service, &replaced) {
            self.plan.waiting.push(waiting);
            // What already runs is still looked after; nothing new starts, and so nothing is replaced.
            self.tend(name, service, BTreeSet::new());
            return;
        }
        let last = service.replicas.saturating_add(service.stand_ins_to_start(replicas, self.now));
        let mut existing = replicas.into_iter().flat_map(BTreeMap::keys).copied().peekable();
        for ordinal in 1..=last {
            if existing.next_if_eq(&ordinal).is_some() || service.held.contains(&ordinal) {
                continue;
            }
            if self.room.launches == 0 {
                self.plan.launches_held = true;
                break;
            }
            self.room.launches -= 1;
            self.plan.steps.push(Step::Launch { service: name.into(), ordinal });
        }
        replaced.iter().for_each(|ordinal| self.retire(name, *ordinal));
        self.tend(name, service, replaced);
    }

    /// What of a job may start now; what runs of it is looked after, or ended with its run.
    fn job(&mut self, name: &'a str, service: &'a WantedService, work: &'a Work) {
        if work.waits() {
            self.plan.waiting.extend(first_unmet(self.wanted, self.world, name));
        }
        if let Some(wake) = work.wake() {
            self.wake_at(wake);
        }
        let none = BTreeMap::new();
        let replicas = self.world.get(name).unwrap_or(&none);
        for run in &work.progress.runs {
            let next = run.next(service, &work.job, &service.held, replicas, self.now);
            if let Some(wake) = next.wake {
                self.wake_at(wake);
            }
            let launches =
                next.launch.into_iter().map(|ordinal| Step::Launch { service: name.into(), ordinal });
            let restarts =
                next.restart.into_iter().map(|ordinal| Step::Restart { service: name.into(), ordinal });
            for step in launches.chain(restarts) {
                if self.room.launches == 0 {
                    self.plan.launches_held = true;
                    break;
                }
                self.room.launches -= 1;
                self.plan.steps.push(step);
            }
        }
        for (&ordinal, view) in replicas.iter().filter(|(_, view)| view.runs() && !view.busy && !view.leaving)
        {
            if !work.claims(&service.config_hash, ordinal, view) {
                continue;
            }
            if work.mark(&service.config_hash, ordinal).is_none() || view.condemned() {
                self.end(name, ordinal);
            } else {
                self.note_probe(name, ordinal, &service.checks, view);
            }
        }
    }

    /// Restarts what has ended and probes what is due, but for what is being replaced.
    fn tend(&mut self, name: &'a str, service: &'a WantedService, replaced: BTreeSet<u32>) {
        let Some(replicas) = self.world.get(name) else { return };
        if let Some(proof) = service.next_proof(self.now) {
            self.wake_at(proof);
        }
        let last = service.replicas.saturating_add(service.stand_ins(Some(replicas), self.now));
        for (&ordinal, replica) in replicas.range(..=last) {
            if replica.busy || replica.leaving || replica.stopped || replaced.contains(&ordinal) {
                continue;
            }
            // Of a definition that nobody knows any more.
            let Some((_, checks)) = service.definition_of(replica) else { continue };
            if ordinal > service.replicas && service.is_outdated(ordinal, replica) {
                continue;
            }
            match replica.phase {
                Phase::Created => self.restart_at(name, ordinal, self.now),
                Phase::Running { .. } if replica.condemned() => self.end(name, ordinal),
                Phase::Running { .. } => self.note_probe(name, ordinal, checks, replica),
                Phase::Exited { .. } | Phase::Failed { .. } => {
                    if let Some(at) = service.next_start(replica) {
                        self.restart_at(name, ordinal, at);
                    }
                }
            }
        }
    }

    fn note_probe(&mut self, service: &'a str, ordinal: u32, checks: &Checks, replica: &ReplicaView) {
        let Some((at, question)) = replica.next_question(checks) else { return };
        if at > self.now {
            self.wake_at(at);
        } else {
            let recheck = match question {
                Question::Startup => false,
                Question::Readiness => replica.health.status != Status::Starting,
                Question::Liveness => true,
            };
            self.due.push(DueProbe { at, service, ordinal, question, recheck });
        }
    }

    /// Where there is not room for all probes, each replica still gets its turn.
    fn probe_longest_overdue(&mut self) {
        let mut due = std::mem::take(&mut self.due);
        due.sort_unstable_by_key(|probe| (probe.at, probe.ordinal));
        for probe in due {
            let allowed =
                if probe.recheck { self.room.rechecks.min(self.room.probes) } else { self.room.probes };
            if allowed == 0 {
                self.plan.probes_late = self.plan.probes_late.max(self.now - probe.at);
                continue;
            }
            self.room.probes -= 1;
            self.room.rechecks -= usize::from(probe.recheck);
            let DueProbe { service, ordinal, question, .. } = probe;
            self.plan.steps.push(Step::Probe { service: service.into(), ordinal, question });
        }
    }

    fn restart_at(&mut self, name: &str, ordinal: u32, due: Time) {
        if due > self.now {
            self.wake_at(due);
        } else if self.room.launches > 0 {
            self.room.launches -= 1;
            self.plan.steps.push(Step::Restart { service: name.into(), ordinal });
        } else {
            self.plan.launches_held = true;
        }
    }

    fn retire(&mut self, name: &str, ordinal: u32) {
        let step = Step::Retire { service: name.into(), ordinal };
        if self.room.retirements > 0 && !self.plan.steps.contains(&step) {
            self.room.retirements -= 1;
            self.plan.steps.push(step);
        }
    }

    fn end(&mut self, name: &str, ordinal: u32) {
        if self.room.retirements > 0 {
            self.room.retirements -= 1;
            self.plan.steps.push(Step::End { service: name.into(), ordinal });
        }
    }

    fn wake_at(&mut self, time: Time) {
        self.plan.wake = Some(self.plan.wake.map_or(time, |wake| wake.min(time)));
    }

    /// The first dependency that does not hold yet. Only services that still have replicas to launch ask, and those that
    /// would give up replicas for others: these could not begin, and what runs is the last that was good.
    fn unmet_dependency(
        &self,
        name: &str,
        service: &WantedService,
        replaced: &BTreeSet<u32>,
    ) -> Option<Waiting> {
        let running = self.world.get(name).map_or(0, BTreeMap::len);
        if running >= service.replicas as usize && replaced.is_empty() {
            return None;
        }
        first_unmet(self.wanted, self.world, name)
    }
}

/// The first dependency of a service that does not hold yet.
pub(crate) fn first_unmet(wanted: &Wanted, world: &World, name: &str) -> Option<Waiting> {
    wanted.services.get(name)?.depends_on.iter().find_map(|(on, dependency)| {
        let Some(target) = wanted.services.get(on) else {
            return dependency.required.then(|| waiting(name, format!("{on} is not enabled"), true));
        };
        holds(world.get(on), on, target, dependency.condition)
            .err()
            .map(|(reason, hopeless)| waiting(name, reason, hopeless))
    })
}

/// `Err` with the reason, and whether it will stay so.
fn holds(
    replicas: Option<&BTreeMap<u32, ReplicaView>>,
    on: &str,
    target: &WantedService,
    condition: Condition,
) -> Result<(), (String, bool)> {
    if let Some(work) = &target.job {
        return job_holds(replicas, on, target, work, condition);
    }
    let count = |test: &dyn Fn(&ReplicaView) -> bool| {
        replicas.map_or(0, |replicas| replicas.values().filter(|replica| test(replica)).count())
    };
    let wanted = target.replicas as usize;
    let ended_badly = |r: &ReplicaView| match r.phase {
        Phase::Exited { .. } => {
            let success = r.succeeded();
            !success && target.restart.delay(success, r.tries).is_none()
        }
        Phase::Failed { permanent, .. } => permanent,
        _ => false,
    };
    let ok = |r: &ReplicaView| match condition {
        Condition::ServiceStarted => matches!(r.phase, Phase::Running { .. } | Phase::Exited { .. }),
        Condition::ServiceHealthy => target.ready(r),
        Condition::ServiceCompletedSuccessfully => r.succeeded(),
    };
    let word = match condition {
        Condition::ServiceStarted => "started",
        Condition::ServiceHealthy => "ready",
        Condition::ServiceCompletedSuccessfully => "completed",
    };
    let good = count(&ok);
    if good >= wanted {
        return Ok(());
    }
    let bad = count(&ended_badly);
    if bad > 0 {
        return Err((format!("{on} failed: {bad} of {wanted} ended and will not start again"), true));
    }
    Err((format!("{on}: {good} of {wanted} {word}"), false))
}

/// A job has started with its first replica, and is never ready before it is complete.
fn job_holds(
    replicas: Option<&BTreeMap<u32, ReplicaView>>,
    on: &str,
    target: &WantedService,
    work: &Work,
    condition: Condition,
) -> Result<(), (String, bool)> {
    let started = replicas.into_iter().flatten().any(|(ordinal, view)| {
        let ran = matches!(view.phase, Phase::Running { .. } | Phase::Exited { .. });
        ran && work.claims(&target.config_hash, *ordinal, view)
    });
    match work.outcome() {
        Ok(true) => Ok(()),
        _ if condition == Condition::ServiceStarted && started => Ok(()),
        Ok(false) => {
            let status = work.status(target.replicas, 0, Time::ZERO);
            Err((format!("{on}: {} of {} completed", status.completed, status.completions), false))
        }
        // The next run may be better.
        Err(reason) => Err((format!("{on} failed: {reason}"), !work.is_scheduled())),
    }
}

fn waiting(service: &str, reason: String, hopeless: bool) -> Waiting {
    Waiting { service: service.into(), reason, hopeless }
}

#[cfg(test)]
mod tests;
