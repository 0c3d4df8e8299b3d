//! Hours of one autoscaler in a simulated world, in a moment.
//!
//! Every decision is [`crate::decide`]'s own, on a [`crate::Case`] that is made of what the world looks like. The world
//! itself is simple, and moves in steps of one second:
//!
//! - Demand is spread evenly over the replicas that are ready. One of them does as much work as its CPU limit allows;
//!   [`World::capacity`] says how many requests per second take all of its CPU request.
//! - What cannot be served at once waits, first come first served, and is given up after [`World::patience`].
//! - A replica is made at once when it is asked for, is ready [`World::startup`] later, and goes at once.
//! - CPU is measured every [`World::metrics_resolution`] as a mean over the time since the last look, and published
//!   [`World::metrics_delay`] later. A young replica has no figures until then: metrics-server's own rules.
//! - The controller looks every [`Scenario::sync_period`]; the first look and the first measurement are at second 0.
//!
//! Before second 0 the first demand has lasted for [`BEFORE`] seconds, so that a simulation begins with what the
//! autoscaler has made of it, and not with a start that nobody asked about.

mod controller;
mod crowd;
mod demand;
mod files;
mod outcome;
mod queue;
pub mod trace;
mod world;

pub use demand::{DEMAND_MOST, Demand, SECONDS_MOST, Shape, Synthetic, Unit};
pub use files::{periods_csv, scalings_csv, summary_csv};
pub use outcome::{Figures, Outcome, Period, Scaling};
pub use world::{MemoryUse, REPLICAS_MOST, Source, TIME_MOST, Unsupported, World};

use crate::case::Controller;
use crate::quantity::Quantity;
use crate::spec::{Metric, Spec};
use crate::{Answer, Case};
use controller::Autoscaler;
use crowd::{Crowd, quantity};
use outcome::{Second, Tally};
use queue::Queue;
use std::collections::VecDeque;

/// How long the first demand has lasted when a simulation begins, in seconds.
pub const BEFORE: i64 = 3_600;
/// Most looks of one simulation, so that what is kept of it fits in memory.
pub const LOOKS_MOST: usize = 500_000;
/// The container of a replica, unless the spec names another one.
const CONTAINER: &str = "app";

/// The controller, and how it is looked at.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    pub world: World,
    pub controller: Controller,
    /// Seconds from one look of the controller to the next, from 1 to [`TIME_MOST`].
    pub sync_period: u32,
    /// Replicas at second 0, with a controller that starts there. `None`: what the first demand has come to.
    pub replicas: Option<i32>,
    /// A second counts as over target if more than this share of the ready replicas' CPU requests is in use. `None`: the
    /// spec's own CPU target, with the tolerance on top.
    pub over: Option<f64>,
}

impl Default for Scenario {
    fn default() -> Scenario {
        let (world, controller) = (World::default(), Controller::default());
        Scenario { world, controller, sync_period: 15, replicas: None, over: None }
    }
}

/// Simulates a spec under a demand.
///
/// # Errors
/// A spec that asks for what this world does not have, or more than the limits of this module.
pub fn simulate(spec: &Spec, demand: &Demand, scenario: &Scenario) -> Result<Outcome, Unsupported> {
    simulate_watched(spec, demand, scenario, &mut |_, _| ())
}

/// As [`simulate`], and shows every decision with its case to `watch`. A pod of a case stands for all that are
/// [alike](crate::Pod::alike).
///
/// # Errors
/// As [`simulate`].
pub fn simulate_watched(
    spec: &Spec,
    demand: &Demand,
    scenario: &Scenario,
    watch: &mut dyn FnMut(&Case, &Answer),
) -> Result<Outcome, Unsupported> {
    world::check(spec, &scenario.world)?;
    check_looks(demand, scenario)?;
    let mut simulation = Simulation::new(spec, demand, scenario);
    let end = demand.length() as i64;
    for now in -BEFORE..end {
        if now == 0 {
            simulation.queue.clear();
        }
        if now.rem_euclid(simulation.sync_period) == 0 {
            simulation.look(now, watch);
        }
        simulation.second(now);
    }
    Ok(simulation.finish())
}

fn check_looks(demand: &Demand, scenario: &Scenario) -> Result<(), Unsupported> {
    let looks = demand.length() / scenario.sync_period.max(1) as usize;
    if looks <= LOOKS_MOST {
        return Ok(());
    }
    let message =
        format!("{looks} looks of the controller are more than {LOOKS_MOST}, the most that is kept");
    let hint = "simulate a shorter time, or let it look less often with --sync-period".to_owned();
    Err(Unsupported { path: None, message, hint })
}

/// Figures of the target as a whole, taken at a moment.
#[derive(Debug, Clone, Copy)]
struct Totals {
    at: i64,
    /// Requests per second, and requests.
    rate: f64,
    waiting: f64,
}

struct Simulation<'a> {
    demand: &'a Demand,
    scenario: &'a Scenario,
    sync_period: i64,
    autoscaler: Autoscaler,
    crowd: Crowd,
    queue: Queue,
    tally: Tally,
    container: String,
    /// Metrics of each replica, and of all together.
    each: Vec<(String, Source)>,
    all: Vec<(String, Source)>,
    /// Taken but not published yet, and the last that was.
    taken: VecDeque<Totals>,
    published: Option<Totals>,
    /// Core-seconds that came since the last measurement.
    came: f64,
    /// Share of the request above which a second is over target, if it can be said.
    over: Option<f64>,
    /// What the first failed look said.
    failure: Option<String>,
}

impl<'a> Simulation<'a> {
    fn new(spec: &Spec, demand: &'a Demand, scenario: &'a Scenario) -> Simulation<'a> {
        let replicas = scenario.replicas.unwrap_or(spec.min_replicas);
        let mut crowd = Crowd::default();
        // They have been there for long, and are ready.
        crowd.scale(replicas.into(), -2 * BEFORE, 0);
        let source = |metric: &Metric| {
            let name = metric.name().to_owned();
            scenario.world.metrics.get(&name).map(|source| (name, *source))
        };
        let is_of_each = |metric: &&Metric| matches!(metric, Metric::Pods { .. });
        let is_of_all = |metric: &&Metric| matches!(metric, Metric::Object { .. } | Metric::External { .. });
        let container = spec.metrics.iter().find_map(Metric::container).unwrap_or(CONTAINER);
        Simulation {
            demand,
            scenario,
            sync_period: scenario.sync_period.max(1).into(),
            autoscaler: Autoscaler::new(spec, &scenario.controller, replicas),
            crowd,
            queue: Queue::default(),
            tally: Tally::default(),
            container: container.to_owned(),
            each: spec.metrics.iter().filter(is_of_each).filter_map(source).collect(),
            all: spec.metrics.iter().filter(is_of_all).filter_map(source).collect(),
            taken: VecDeque::new(),
            published: None,
            came: 0.0,
            over: scenario.over.or_else(|| world::own_limit(spec, scenario)),
            failure: None,
        }
    }

    fn look(&mut self, now: i64, watch: &mut dyn FnMut(&Case, &Answer)) {
        if now >= 0 || self.scenario.replicas.is_none() {
            self.decide(now, watch);
        }
        if now >= 0 {
            self.tally.begin_period(now, self.crowd.replicas());
        }
    }

    fn decide(&mut self, now: i64, watch: &mut dyn FnMut(&Case, &Answer)) {
        let world = &self.scenario.world;
        let until = now - i64::from(world.metrics_delay);
        self.crowd.publish(until);
        while let Some(totals) = self.taken.front().filter(|totals| totals.at <= until) {
            self.published = Some(*totals);
            self.taken.pop_front();
        }
        let settled = i64::from(self.scenario.controller.cpu_initialization_period.whole_seconds());
        self.crowd.merge(now, settled.saturating_add(1));
        let totals: Vec<(String, Quantity)> = self
            .published
            .iter()
            .flat_map(|totals| {
                self.all.iter().map(|(name, source)| match source {
                    Source::Rate => (name.clone(), quantity(totals.rate)),
                    Source::Waiting => (name.clone(), quantity(totals.waiting)),
                })
            })
            .collect();
        let pods = self.crowd.pods(now, world, &self.container, &self.each);
        let before = self.autoscaler.case.current_replicas;
        let answer = self.autoscaler.look(now, pods, &totals, watch);
        let wanted = answer.desired_replicas;
        if now >= 0 && answer.metrics.iter().any(|metric| metric.error.is_some()) {
            self.tally.failed();
            self.failure.get_or_insert_with(|| answer.explanation.clone());
        }
        if wanted != before {
            self.crowd.scale(wanted.into(), now, world.startup.into());
            if now >= 0 {
                self.tally.scaled(now, before, wanted, answer.explanation);
            }
        }
    }

    fn second(&mut self, now: i64) {
        let world = &self.scenario.world;
        let asked = self.demand.at(now);
        // One of the demand's unit in core-seconds.
        let work = match self.demand.unit {
            Unit::Requests => world.work_of_one(),
            Unit::Cores => 1.0,
        };
        let (request, limit) = (world.cpu_request as f64 / 1000.0, world.cpu_limit as f64 / 1000.0);
        let ready = self.crowd.ready(now);
        let served = self.queue.second(now, asked * work, ready as f64 * limit, world.patience.into());
        let each = if ready > 0 { served.done / ready as f64 } else { 0.0 };
        self.crowd.second(now, each, (world.startup_cpu as f64 / 1000.0).min(limit));
        self.came += asked * work;
        if now >= 0 {
            let busy = (ready > 0).then(|| each / request);
            let waiting = self.queue.waiting();
            let too_busy = busy.zip(self.over).is_some_and(|(busy, over)| busy > over);
            let spec = &self.autoscaler.case;
            self.tally.second(&Second {
                demand: asked,
                replicas: self.crowd.replicas(),
                ready,
                busy,
                over: too_busy || waiting > 0.0 || served.lost > 0.0,
                stuck: spec.current_replicas >= spec.spec.max_replicas,
                waiting: waiting / work,
                lost: served.lost / work,
            });
        }
        let resolution = i64::from(world.metrics_resolution.max(1));
        if (now + 1).rem_euclid(resolution) == 0 {
            self.measure(now + 1, resolution);
        }
    }

    fn measure(&mut self, at: i64, resolution: i64) {
        let waiting = self.queue.waiting();
        let ready = self.crowd.ready(at).max(1) as f64;
        self.crowd.measure(at, resolution, waiting / ready);
        let one = self.scenario.world.work_of_one();
        let rate = std::mem::take(&mut self.came) / resolution as f64 / one;
        self.taken.push_back(Totals { at, rate, waiting: waiting / one });
    }

    fn finish(self) -> Outcome {
        let notes = self.notes();
        self.tally.finish(self.over, notes)
    }

    fn notes(&self) -> Vec<String> {
        let (figures, spec) = (self.tally.figures(), &self.autoscaler.case.spec);
        let mut notes = Vec::new();
        if let Some(note) = world::out_of_reach(spec, self.scenario) {
            notes.push(note);
        }
        if figures.stuck_seconds > 0 {
            notes.push(format!(
                "it was over target for {} while at maxReplicas, {}: more replicas were not allowed",
                trace::length(figures.stuck_seconds as f64),
                spec.max_replicas
            ));
        }
        if let Some(failure) = &self.failure {
            notes.push(format!("a metric failed at {} looks, first: {failure}", figures.failed_looks));
        }
        notes
    }
}
