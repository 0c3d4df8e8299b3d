//! What was decided, as it is printed.

use serde::Serialize;

/// One decision.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// That of the case.
    pub id: String,
    pub desired_replicas: i32,
    /// The recommendation before stabilisation and limits, which a controller remembers; `None` if none was made.
    pub unstabilized: Option<i32>,
    /// In the order of the spec; empty if metrics were not looked at.
    pub metrics: Vec<MetricAnswer>,
    pub conditions: Vec<Condition>,
    pub explanation: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MetricAnswer {
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    pub proposal: Option<i32>,
    /// Percent of the requests, for a target in percent.
    pub utilization: Option<i32>,
    /// A canonical quantity.
    pub average_value: Option<String>,
    /// Why the metric could not be had.
    pub error: Option<String>,
}

/// A condition with Kubernetes' own type and reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Condition {
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub status: &'static str,
    pub reason: &'static str,
}

impl Condition {
    pub(crate) fn new(kind: &'static str, status: bool, reason: &'static str) -> Condition {
        Condition { kind, status: if status { "True" } else { "False" }, reason }
    }
}
