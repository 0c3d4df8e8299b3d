//! What is there: replicas as planning sees them, and what each thing that happens to one makes of it.
//!
//! Whoever carries steps out calls these methods, so that a supervisor and a simulated one keep the same books.

use crate::Time;
use crate::health::{Checks, Health, Question, Status};
use crate::restart::{Rule, Tries};
use std::collections::BTreeMap;
use throng_model::replica::Exit;

/// What is there: per service, replicas by ordinal.
pub type World = BTreeMap<String, BTreeMap<u32, ReplicaView>>;

#[derive(Debug, Clone)]
pub struct ReplicaView {
    /// Of the definition that it was made from.
    pub config_hash: String,
    pub phase: Phase,
    /// A step about it is under way.
    pub busy: bool,
    /// It has been taken out to be removed, whether or not that works at once.
    pub leaving: bool,
    /// Somebody has stopped it: it is given no work, and no rule starts it again.
    pub stopped: bool,
    /// Readiness.
    pub health: Health,
    pub startup: Health,
    pub liveness: Health,
    /// Nobody can ask it now, for its node is cut off. A kubelet, on the node itself, could: so it is not held against
    /// the replica.
    pub unreachable: bool,
    pub tries: Tries,
    /// It has been asked to end, so that how it ended is not its own doing.
    pub made_to_end: bool,
    /// The order by which it was started last; grows from start to start.
    pub generation: u64,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Phase {
    /// Made, or known from an earlier supervisor, but not running.
    Created,
    Running {
        since: Time,
    },
    Exited {
        exit: Exit,
        at: Time,
    },
    /// It could not be launched; tried again like a crash.
    Failed {
        at: Time,
        /// No retry will help (no such program, wrong architecture).
        permanent: bool,
    },
}

impl ReplicaView {
    /// One that is being launched, or that an earlier supervisor left.
    pub fn new(config_hash: String, phase: Phase, busy: bool) -> ReplicaView {
        ReplicaView {
            config_hash,
            phase,
            busy,
            leaving: false,
            stopped: false,
            health: Health::default(),
            startup: Health::default(),
            liveness: Health::default(),
            unreachable: false,
            tries: Tries::default(),
            made_to_end: false,
            generation: 0,
        }
    }

    pub fn runs(&self) -> bool {
        matches!(self.phase, Phase::Running { .. })
    }

    /// Whether it may be given work.
    pub fn ready(&self, checks: &Checks) -> bool {
        let well = |check: bool, health: &Health| !check || health.status == Status::Healthy;
        self.runs()
            && !self.leaving
            && !self.stopped
            && !self.condemned()
            && well(checks.startup.is_some(), &self.startup)
            && well(checks.readiness.is_some(), &self.health)
    }

    /// Whether it did not start up in time or does not live any more, and so is ended, or has been.
    pub fn condemned(&self) -> bool {
        self.startup.status == Status::Unhealthy || self.liveness.status == Status::Unhealthy
    }

    /// Whether it has done what it was for. One that was made to end has not, whatever it said at its end.
    pub fn succeeded(&self) -> bool {
        matches!(self.phase, Phase::Exited { exit, .. } if exit.is_success()) && !self.made_to_end
    }

    /// What it is to be asked next, and when.
    pub fn next_question(&self, checks: &Checks) -> Option<(Time, Question)> {
        let Phase::Running { since } = self.phase else { return None };
        if self.condemned() {
            return None;
        }
        let within = |at: Time, question: Question| (!self.unreachable).then_some((at, question));
        if let Some(check) = checks.startup.as_ref().filter(|_| self.startup.status != Status::Healthy) {
            return within(self.startup.next_probe(check, since), Question::Startup);
        }
        let since = self.started_up(checks, since);
        let readiness = checks.readiness.as_ref();
        let readiness = readiness.map(|check| (self.health.next_probe(check, since), Question::Readiness));
        let liveness = checks.liveness.as_ref();
        let liveness =
            liveness.and_then(|check| within(self.liveness.next_liveness(check, since), Question::Liveness));
        readiness.into_iter().chain(liveness).min()
    }

    /// Since when the other questions make sense.
    fn started_up(&self, checks: &Checks, since: Time) -> Time {
        checks.startup.as_ref().and(self.startup.last).unwrap_or(since)
    }

    /// It is being started again. One that was only made has not been tried before.
    pub fn restarting(&mut self) {
        self.busy = true;
        if !matches!(self.phase, Phase::Created) {
            self.tries = self.tries.another();
        }
    }

    /// Its process runs.
    pub fn started(&mut self, now: Time) {
        self.busy = false;
        self.phase = Phase::Running { since: now };
        (self.health, self.startup, self.liveness, self.made_to_end) = Default::default();
    }

    pub fn could_not_start(&mut self, now: Time, permanent: bool) {
        self.busy = false;
        self.phase = Phase::Failed { at: now, permanent };
    }

    /// Its process has ended, whether it was asked to or not.
    pub fn exited(&mut self, exit: Exit, rule: &Rule, now: Time) {
        if let Phase::Running { since } = self.phase {
            self.tries = rule.after_run(self.tries, now.saturating_sub(since));
        }
        self.phase = Phase::Exited { exit, at: now };
    }

    /// A question to it has been answered, or not.
    pub fn probed(&mut self, checks: &Checks, question: Question, success: bool, now: Time) {
        self.busy = false;
        let (Phase::Running { since }, Some(check)) = (&self.phase, checks.of(question)) else { return };
        let begun = self.started_up(checks, *since);
        match question {
            Question::Startup => self.startup = self.startup.after_probe(check, *since, success, now),
            Question::Readiness => self.health = self.health.after_probe(check, begun, success, now),
            Question::Liveness => self.liveness = self.liveness.after_liveness(check, success, now),
        }
    }

    /// It is being ended, and stays where it is.
    pub fn make_end(&mut self) {
        (self.busy, self.made_to_end) = (true, true);
    }

    /// It is being retired.
    pub fn leave(&mut self) {
        (self.busy, self.leaving) = (true, true);
    }
}
