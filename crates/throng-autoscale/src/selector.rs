//! Label selectors as Kubernetes has them (kubernetes.io/docs/concepts/overview/working-with-objects/labels).

use crate::spec::LabelSelector;
use std::collections::BTreeMap;

/// Which series of a metric are meant. The default one takes all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selector {
    requirements: Vec<Requirement>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: Operator,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Operator {
    In(Vec<String>),
    /// Also true of what has no such label.
    NotIn(Vec<String>),
    Exists,
    DoesNotExist,
}

impl Selector {
    /// # Errors
    /// An expression without a key, an unknown operator, or values where the operator takes none, or none where it
    /// needs some.
    pub fn new(raw: &LabelSelector) -> Result<Selector, String> {
        let labels = raw.match_labels.iter().flatten();
        let mut requirements: Vec<Requirement> = labels
            .map(|(key, value)| Requirement { key: key.clone(), operator: Operator::In(vec![value.clone()]) })
            .collect();
        for expression in raw.match_expressions.iter().flatten() {
            let key =
                expression.key.clone().filter(|key| !key.is_empty()).ok_or("an expression has no key")?;
            let values = expression.values.clone().unwrap_or_default();
            let operator = match (expression.operator.as_deref().unwrap_or_default(), values.is_empty()) {
                ("In", false) => Operator::In(values),
                ("NotIn", false) => Operator::NotIn(values),
                ("Exists", true) => Operator::Exists,
                ("DoesNotExist", true) => Operator::DoesNotExist,
                (operator @ ("In" | "NotIn"), true) => return Err(format!("{operator} needs values")),
                (operator @ ("Exists" | "DoesNotExist"), false) => {
                    return Err(format!("{operator} takes no values"));
                }
                (other, _) => {
                    return Err(format!("{other:?} is not one of DoesNotExist, Exists, In, NotIn"));
                }
            };
            requirements.push(Requirement { key, operator });
        }
        Ok(Selector { requirements })
    }

    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.requirements.iter().all(|requirement| {
            let value = labels.get(&requirement.key);
            match &requirement.operator {
                Operator::In(values) => value.is_some_and(|value| values.contains(value)),
                Operator::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
                Operator::Exists => value.is_some(),
                Operator::DoesNotExist => value.is_none(),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(json: &str) -> Result<Selector, String> {
        Selector::new(&serde_json::from_str(json).expect("JSON"))
    }

    #[test]
    fn labels_are_selected_as_kubernetes_does() {
        let labels = BTreeMap::from([("code".to_owned(), "200".to_owned()), ("method".into(), "GET".into())]);
        for (json, expected) in [
            ("{}", true),
            (r#"{"matchLabels": {"code": "200"}}"#, true),
            (r#"{"matchLabels": {"code": "200", "method": "PUT"}}"#, false),
            (r#"{"matchLabels": {"host": "a"}}"#, false),
            (r#"{"matchExpressions": [{"key": "code", "operator": "In", "values": ["200", "201"]}]}"#, true),
            (r#"{"matchExpressions": [{"key": "code", "operator": "NotIn", "values": ["200"]}]}"#, false),
            (r#"{"matchExpressions": [{"key": "host", "operator": "NotIn", "values": ["a"]}]}"#, true),
            (r#"{"matchExpressions": [{"key": "host", "operator": "Exists"}]}"#, false),
            (r#"{"matchExpressions": [{"key": "host", "operator": "DoesNotExist"}]}"#, true),
        ] {
            assert_eq!(selector(json).expect(json).matches(&labels), expected, "{json}");
        }
    }

    #[test]
    fn expressions_that_mean_nothing_are_refused() {
        for (json, word) in [
            (r#"{"matchExpressions": [{"operator": "Exists"}]}"#, "no key"),
            (r#"{"matchExpressions": [{"key": "a", "operator": "In"}]}"#, "needs values"),
            (r#"{"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}"#, "takes no"),
            (r#"{"matchExpressions": [{"key": "a", "operator": "Like", "values": ["b"]}]}"#, "Like"),
        ] {
            let error = selector(json).expect_err(json);
            assert!(error.contains(word), "{json}: {error}");
        }
    }
}
