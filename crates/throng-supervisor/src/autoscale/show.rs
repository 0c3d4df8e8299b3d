//! What an autoscaler shows of itself.

use std::time::SystemTime;
use throng_autoscale::spec::{Metric, ResourceTarget, Spec, TotalTarget};
use throng_autoscale::{Answer, Case, MetricAnswer, Quantity};
use throng_model::autoscale::{Autoscale, AutoscalerStatus, Condition, MetricStatus};

#[derive(Default)]
pub struct Shown {
    last_look: Option<SystemTime>,
    last_scale: Option<SystemTime>,
    metrics: Vec<MetricStatus>,
    conditions: Vec<Condition>,
    explanation: String,
}

impl Shown {
    /// Takes a decision in. `reasons`: why values of each metric are not there, as far as they are not.
    pub fn decided(&mut self, case: &Case, answer: &Answer, reasons: &[Option<String>]) {
        self.last_look = Some(SystemTime::now());
        self.explanation = answer.explanation.clone();
        // Empty where they were not looked at: what was seen before stays.
        if !answer.metrics.is_empty() {
            let metrics = case.spec.metrics.iter().zip(&answer.metrics).zip(reasons);
            self.metrics = metrics
                .map(|((metric, answer), reason)| metric_status(case, metric, answer, reason))
                .collect();
        }
        for condition in &answer.conditions {
            let message = self.message(condition.reason, case);
            self.set(condition.kind, condition.status, condition.reason, message);
        }
    }

    /// The spec has changed: what was seen by the old one means nothing any more.
    pub fn respecified(&mut self) {
        self.metrics.clear();
    }

    pub fn scaled(&mut self) {
        self.last_scale = Some(SystemTime::now());
        self.set("AbleToScale", "True", "SucceededRescale", "the number of replicas was changed".into());
    }

    pub fn not_scaled(&mut self, error: &str) {
        self.set("AbleToScale", "False", "FailedUpdateScale", error.to_owned());
    }

    fn set(&mut self, kind: &str, status: &str, reason: &str, message: String) {
        let now = SystemTime::now();
        match self.conditions.iter_mut().find(|condition| condition.kind == kind) {
            Some(known) => {
                if known.status != status {
                    known.since = now;
                }
                (known.status, known.reason) = (status.to_owned(), reason.to_owned());
                known.message = message;
            }
            None => self.conditions.push(Condition {
                kind: kind.to_owned(),
                status: status.to_owned(),
                reason: reason.to_owned(),
                message,
                since: now,
            }),
        }
    }

    /// The first metric that could not be had, and why.
    pub fn failure(&self) -> String {
        let failed = self.metrics.iter().find_map(|metric| Some((&metric.name, metric.error.as_ref()?)));
        failed.map_or_else(
            || "no metric is known".into(),
            |(name, error)| format!("{name} cannot be had: {error}"),
        )
    }

    /// A reason of Kubernetes' in a sentence.
    fn message(&self, reason: &str, case: &Case) -> String {
        let spec = &case.spec;
        match reason {
            "SucceededGetScale" => "it is known how many replicas there are to be".into(),
            "ReadyForNewScale" => {
                "nothing that was recommended earlier holds the present recommendation back".into()
            }
            "ScaleUpStabilized" => {
                "smaller recommendations within the window for scaling up hold it back".into()
            }
            "ScaleDownStabilized" => {
                "larger recommendations within the window for scaling down hold it back".into()
            }
            "ScalingDisabled" => "the service is to have no replicas, which turns its autoscaler off".into(),
            "ValidMetricFound" => {
                let known: Vec<&str> =
                    self.metrics.iter().filter(|m| m.error.is_none()).map(|m| m.name.as_str()).collect();
                format!("a count could be computed from {}", known.join(", "))
            }
            "DesiredWithinRange" => "the count that is asked for is within the limits".into(),
            "TooManyReplicas" => format!("more than maxReplicas, {}, are asked for", spec.max_replicas),
            "TooFewReplicas" => format!("fewer than minReplicas, {}, are asked for", spec.min_replicas),
            "ScaleUpLimit" => "the policies let the count grow no faster".into(),
            "ScaleDownLimit" => "the policies let the count shrink no faster".into(),
            // The others say which kind of metric could not be had.
            _ => self.failure(),
        }
    }

    pub fn status(&self, wish: &Autoscale, spec: &Spec, current: u32, desired: u32) -> AutoscalerStatus {
        let unknown = |metric: &Metric| MetricStatus {
            kind: metric.kind().to_owned(),
            name: metric.name().to_owned(),
            container: metric.container().map(str::to_owned),
            current: None,
            target: target(metric).0,
            scope: target(metric).1.to_owned(),
            proposal: None,
            error: None,
        };
        let metrics = match self.metrics.is_empty() {
            true => spec.metrics.iter().map(unknown).collect(),
            false => self.metrics.clone(),
        };
        AutoscalerStatus {
            spec: wish.spec.clone(),
            controller: wish.controller,
            min_replicas: spec.min_replicas,
            max_replicas: spec.max_replicas,
            current_replicas: current,
            desired_replicas: desired,
            last_scale: self.last_scale,
            last_look: self.last_look,
            metrics,
            conditions: self.conditions.clone(),
            explanation: self.explanation.clone(),
        }
    }
}

fn metric_status(
    case: &Case,
    metric: &Metric,
    answer: &MetricAnswer,
    reason: &Option<String>,
) -> MetricStatus {
    let (target, scope) = target(metric);
    let total = match metric {
        Metric::Object { name, .. } => case.objects.get(name).copied().map(Quantity::decimal),
        Metric::External { name, .. } => case.external.get(name).map(|values| {
            let sum = values.iter().fold(0i64, |sum, value| sum.saturating_add(value.milli()));
            Quantity::from_milli(sum).decimal()
        }),
        _ => None,
    };
    let current = match (&answer.average_value, answer.utilization) {
        (Some(average), Some(percent)) => Some(format!("{percent}% ({average})")),
        (None, Some(percent)) => Some(format!("{percent}%")),
        (Some(average), None) => Some(average.clone()),
        (None, None) => total,
    };
    let error = answer.error.as_ref().map(|error| match reason {
        Some(reason) => format!("{error}: {reason}"),
        None => error.clone(),
    });
    MetricStatus {
        kind: answer.kind.to_owned(),
        name: answer.name.clone(),
        container: answer.container.clone(),
        current,
        target,
        scope: scope.to_owned(),
        proposal: answer.proposal,
        error,
    }
}

/// A target in words, and what it is of.
fn target(metric: &Metric) -> (String, &'static str) {
    let quantity = |milli: i64| {
        let quantity = Quantity::from_milli(milli);
        if metric.is_memory() { quantity.binary() } else { quantity.decimal() }
    };
    match metric {
        Metric::Resource { target: ResourceTarget::Utilization(percent), .. }
        | Metric::ContainerResource { target: ResourceTarget::Utilization(percent), .. } => {
            (format!("{percent}%"), "of what a replica requests")
        }
        Metric::Resource { target: ResourceTarget::AverageValue(milli), .. }
        | Metric::ContainerResource { target: ResourceTarget::AverageValue(milli), .. }
        | Metric::Pods { average: milli, .. } => (quantity(*milli), "per replica"),
        Metric::Object { target, .. } | Metric::External { target, .. } => match target {
            TotalTarget::Value(milli) => (quantity(*milli), "in all"),
            TotalTarget::AverageValue(milli) => (quantity(*milli), "per replica"),
            TotalTarget::Mismatched => ("<unknown>".to_owned(), "per replica"),
        },
    }
}
