//! What came of a simulation: a row for each sync period, the scalings, and figures about all of it.

use serde::Serialize;

/// What one autoscaler did with a demand.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    pub figures: Figures,
    /// One for each look of the controller, in order; the last may be shorter than the others.
    pub periods: Vec<Period>,
    pub scalings: Vec<Scaling>,
    /// What a person should know of it, in sentences.
    pub notes: Vec<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Figures {
    /// Of all replicas, those that start included.
    pub replica_hours: f64,
    pub replicas_mean: f64,
    pub replicas_least: i64,
    pub replicas_most: i64,
    /// Seconds in which ready replicas were busier than the limit, or something waited.
    pub over_target_seconds: i64,
    pub over_target_percent: f64,
    /// The limit: percent of the CPU request. `None` if only waiting counts.
    pub over_target_above_percent: Option<f64>,
    /// Requests, or core-seconds: what was asked, and what of it was given up.
    pub demand: f64,
    pub unserved: f64,
    pub unserved_percent: f64,
    pub scale_ups: usize,
    pub scale_downs: usize,
    /// From the first second over target to the first scale-up after it.
    pub first_reaction_seconds: Option<i64>,
    /// Seconds over target at maxReplicas, where no autoscaler can help.
    pub stuck_seconds: i64,
    /// Looks at which a metric failed.
    pub failed_looks: usize,
}

/// The time from one look of the controller to the next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Period {
    /// Seconds since the beginning.
    pub at: i64,
    pub seconds: i64,
    /// Mean, in the demand's unit.
    pub demand: f64,
    /// All replicas after the look.
    pub replicas: i64,
    /// Mean.
    pub ready: f64,
    /// Mean of the ready replicas' CPU use in percent of their requests; `None` while none was ready.
    pub utilization: Option<f64>,
    pub over_target_seconds: i64,
    /// Requests, or core-seconds: what waited at the end, and what was given up.
    pub waiting: f64,
    pub unserved: f64,
    /// Sums since the beginning.
    pub over_target_seconds_so_far: i64,
    pub replica_hours_so_far: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Scaling {
    /// Seconds since the beginning.
    pub at: i64,
    pub from: i32,
    pub to: i32,
    pub explanation: String,
}

/// One second of the simulated world.
#[derive(Debug, Clone, Copy, Default)]
pub struct Second {
    /// In the demand's unit; waiting and lost are times one second.
    pub demand: f64,
    pub replicas: i64,
    pub ready: i64,
    /// Share of the ready replicas' requests in use; `None` if none is ready.
    pub busy: Option<f64>,
    pub over: bool,
    pub stuck: bool,
    pub waiting: f64,
    pub lost: f64,
}

/// Adds seconds up.
#[derive(Debug, Default)]
pub struct Tally {
    figures: Figures,
    periods: Vec<Period>,
    scalings: Vec<Scaling>,
    seconds: i64,
    replica_seconds: i64,
    first_over: Option<i64>,
    /// Sums of the period that is running.
    demand: f64,
    ready: i64,
    busy: f64,
    busy_seconds: i64,
}

impl Tally {
    pub fn scaled(&mut self, at: i64, from: i32, to: i32, explanation: String) {
        let figures = &mut self.figures;
        if to > from {
            figures.scale_ups += 1;
            // The look came before the second: what made a second busy can be answered from the next one on.
            let first = self.first_over.filter(|first| at > *first);
            figures.first_reaction_seconds = figures.first_reaction_seconds.or(first.map(|first| at - first));
        } else {
            figures.scale_downs += 1;
        }
        self.scalings.push(Scaling { at, from, to, explanation });
    }

    pub fn failed(&mut self) {
        self.figures.failed_looks += 1;
    }

    pub fn begin_period(&mut self, at: i64, replicas: i64) {
        self.end_period();
        self.periods.push(Period { at, replicas, ..Period::default() });
    }

    pub fn second(&mut self, second: &Second) {
        let figures = &mut self.figures;
        let first = self.seconds == 0;
        figures.replicas_least =
            if first { second.replicas } else { figures.replicas_least.min(second.replicas) };
        figures.replicas_most = figures.replicas_most.max(second.replicas);
        figures.demand += second.demand;
        figures.unserved += second.lost;
        self.replica_seconds += second.replicas;
        self.demand += second.demand;
        self.ready += second.ready;
        if let Some(busy) = second.busy {
            self.busy += busy;
            self.busy_seconds += 1;
        }
        if second.over {
            figures.over_target_seconds += 1;
            figures.stuck_seconds += i64::from(second.stuck);
            self.first_over = self.first_over.or(Some(self.seconds));
        }
        if let Some(period) = self.periods.last_mut() {
            period.seconds += 1;
            period.waiting = second.waiting;
            period.unserved += second.lost;
            period.over_target_seconds += i64::from(second.over);
            period.over_target_seconds_so_far = figures.over_target_seconds;
            period.replica_hours_so_far = self.replica_seconds as f64 / 3600.0;
        }
        self.seconds += 1;
    }

    fn end_period(&mut self) {
        if let Some(period) = self.periods.last_mut() {
            let seconds = period.seconds.max(1) as f64;
            period.demand = self.demand / seconds;
            period.ready = self.ready as f64 / seconds;
            period.utilization =
                (self.busy_seconds > 0).then(|| 100.0 * self.busy / self.busy_seconds as f64);
        }
        (self.demand, self.ready, self.busy, self.busy_seconds) = (0.0, 0, 0.0, 0);
    }

    pub fn figures(&self) -> &Figures {
        &self.figures
    }

    /// `above`: share of the request above which a second was over target.
    pub fn finish(mut self, above: Option<f64>, notes: Vec<String>) -> Outcome {
        self.end_period();
        let mut figures = self.figures;
        let seconds = self.seconds.max(1) as f64;
        let percent = |part: f64, whole: f64| if whole > 0.0 { 100.0 * part / whole } else { 0.0 };
        figures.replica_hours = self.replica_seconds as f64 / 3600.0;
        figures.replicas_mean = self.replica_seconds as f64 / seconds;
        figures.over_target_percent = percent(figures.over_target_seconds as f64, seconds);
        figures.over_target_above_percent = above.map(|share| share * 100.0);
        figures.unserved_percent = percent(figures.unserved, figures.demand);
        Outcome { figures, periods: self.periods, scalings: self.scalings, notes }
    }
}
