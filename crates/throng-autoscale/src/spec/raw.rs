//! The spec as JSON has it. Everything may be missing here: what must be there is for the checks to say, with its path.

use crate::quantity::Quantity;
use serde::Deserialize;
use std::collections::BTreeMap;

/// An `autoscaling/v2` HorizontalPodAutoscaler spec, unchecked. Unknown fields are an error.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RawSpec {
    pub scale_target_ref: Option<Reference>,
    pub min_replicas: Option<i32>,
    pub max_replicas: Option<i32>,
    pub metrics: Option<Vec<RawMetric>>,
    pub behavior: Option<RawBehavior>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Reference {
    pub api_version: Option<String>,
    pub kind: Option<String>,
    pub name: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RawMetric {
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub object: Option<RawObject>,
    pub pods: Option<RawTotal>,
    pub resource: Option<RawResource>,
    pub container_resource: Option<RawContainerResource>,
    pub external: Option<RawTotal>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RawResource {
    pub name: Option<String>,
    pub target: Option<RawTarget>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RawContainerResource {
    pub name: Option<String>,
    pub container: Option<String>,
    pub target: Option<RawTarget>,
}

/// A Pods or an External metric.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RawTotal {
    pub metric: Option<Identifier>,
    pub target: Option<RawTarget>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RawObject {
    pub described_object: Option<Reference>,
    pub metric: Option<Identifier>,
    pub target: Option<RawTarget>,
}

/// A metric's name, and which of its series are meant. A decision's values have no labels: whoever fetches them selects.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Identifier {
    pub name: Option<String>,
    pub selector: Option<LabelSelector>,
}

impl RawMetric {
    /// Of a Pods, Object or External metric.
    pub fn identifier(&self) -> Option<&Identifier> {
        let total = self.pods.as_ref().or(self.external.as_ref()).and_then(|total| total.metric.as_ref());
        total.or(self.object.as_ref().and_then(|object| object.metric.as_ref()))
    }
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LabelSelector {
    pub match_labels: Option<BTreeMap<String, String>>,
    pub match_expressions: Option<Vec<LabelExpression>>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LabelExpression {
    pub key: Option<String>,
    pub operator: Option<String>,
    pub values: Option<Vec<String>>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RawTarget {
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub value: Option<Quantity>,
    pub average_value: Option<Quantity>,
    pub average_utilization: Option<i32>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RawBehavior {
    pub scale_up: Option<RawRules>,
    pub scale_down: Option<RawRules>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RawRules {
    pub stabilization_window_seconds: Option<i32>,
    pub select_policy: Option<String>,
    pub policies: Option<Vec<RawPolicy>>,
    pub tolerance: Option<Quantity>,
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RawPolicy {
    #[serde(rename = "type")]
    pub kind: Option<String>,
    pub value: Option<i32>,
    pub period_seconds: Option<i32>,
}
