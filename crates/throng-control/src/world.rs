//! What is there: replicas as planning sees them, and what each thing that happens to one makes of it.
//!
//! Whoever carries steps out calls these methods, so that a supervisor and a simulated one keep the same books.

use crate::Time;
use crate::health::{Health, Status};
use crate::restart::{Rule, Tries};
use std::collections::BTreeMap;
use throng_model::app::HealthCheck;
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
    pub health: Health,
    pub tries: Tries,
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
        let (health, tries) = (Health::default(), Tries::default());
        ReplicaView { config_hash, phase, busy, leaving: false, health, tries }
    }

    pub fn runs(&self) -> bool {
        matches!(self.phase, Phase::Running { .. })
    }

    /// Whether it may be given work.
    pub fn ready(&self, check: Option<&HealthCheck>) -> bool {
        self.runs() && !self.leaving && (check.is_none() || self.health.status == Status::Healthy)
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
        self.health = Health::default();
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

    /// Its health check has ended.
    pub fn probed(&mut self, check: &HealthCheck, success: bool, now: Time) {
        self.busy = false;
        if let Phase::Running { since } = self.phase {
            self.health = self.health.after_probe(check, since, success, now);
        }
    }

    /// It is being retired.
    pub fn leave(&mut self) {
        (self.busy, self.leaving) = (true, true);
    }
}
