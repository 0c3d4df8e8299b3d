//! The schema that editors use knows the very fields that the reader knows.

use serde_json::{Value, json};
use std::collections::BTreeSet;
use throng_autoscale::Case;

/// A case in which every object that the format has occurs.
fn full() -> Value {
    let selector =
        json!({"matchLabels": {"a": "b"}, "matchExpressions": [{"key": "c", "operator": "Exists"}]});
    let metric = json!({"name": "queue", "selector": selector});
    let percent = json!({"type": "Utilization", "averageUtilization": 50});
    let average = json!({"type": "AverageValue", "averageValue": "1"});
    let rules = json!({"stabilizationWindowSeconds": 5, "policies": [{"type": "Pods", "value": 1, "periodSeconds": 5}]});
    json!({
        "id": "full", "currentReplicas": 1,
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "maxReplicas": 3,
            "metrics": [
                {"type": "Resource", "resource": {"name": "cpu", "target": percent}},
                {"type": "ContainerResource", "containerResource": {"name": "cpu", "container": "app", "target": percent}},
                {"type": "Pods", "pods": {"metric": metric, "target": average}},
                {"type": "Object", "object": {"describedObject": {"kind": "Service", "name": "web"}, "metric": metric, "target": average}},
                {"type": "External", "external": {"metric": metric, "target": average}},
            ],
            "behavior": {"scaleUp": rules, "scaleDown": rules},
        },
        "controller": {"tolerance": 0.2},
        "recommendations": [{"ageSeconds": 5, "replicas": 1}],
        "scaleEvents": {"up": [{"ageSeconds": 5, "change": 1}], "down": [{"ageSeconds": 5, "change": 1}]},
        "pods": [{
            "name": "web-1", "ready": true, "readyChangedAgeSeconds": 600, "startedAgeSeconds": 700,
            "containers": [{"name": "app", "requests": {"cpu": "100m"}}],
            "metrics": {"ageSeconds": 20, "windowSeconds": 60, "containers": {"app": {"cpu": "80m"}}},
        }],
        "objects": {"queue": "1"}, "external": {"queue": ["1"]},
    })
}

/// A schema without references and without the alternative of null.
fn resolve<'a>(root: &'a Value, mut schema: &'a Value) -> &'a Value {
    loop {
        if let Some(reference) = schema["$ref"].as_str() {
            schema = root.pointer(&reference[1..]).expect("a definition");
        } else if let Some(choices) = schema["anyOf"].as_array() {
            schema = &choices[0];
        } else {
            return schema;
        }
    }
}

/// Fields that the reader names when it meets one that it does not know.
fn known(case: &Value, pointer: &str) -> BTreeSet<String> {
    let mut case = case.clone();
    let object = case.pointer_mut(pointer).and_then(Value::as_object_mut).expect("an object");
    object.insert("zzz".into(), json!(1));
    let error = Case::from_json(case.to_string().as_bytes()).expect_err(pointer).to_string();
    let (_, expected) =
        error.split_once("unknown field `zzz`, expected ").unwrap_or_else(|| panic!("{pointer}: {error}"));
    expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Compares every object below `pointer` and returns how many there were.
fn compare(root: &Value, schema: &Value, case: &Value, pointer: &str) -> usize {
    let schema = resolve(root, schema);
    match case.pointer(pointer).expect("a value") {
        Value::Object(fields) => {
            let names: Vec<String> = fields.keys().cloned().collect();
            let Some(properties) = schema["properties"].as_object() else {
                let inner = &schema["additionalProperties"];
                return names
                    .iter()
                    .map(|name| compare(root, inner, case, &format!("{pointer}/{name}")))
                    .sum();
            };
            assert_eq!(known(case, pointer), properties.keys().cloned().collect(), "at {pointer}");
            assert_eq!(schema["additionalProperties"], json!(false), "at {pointer}");
            let inner =
                names.iter().map(|name| compare(root, &properties[name], case, &format!("{pointer}/{name}")));
            1 + inner.sum::<usize>()
        }
        Value::Array(items) => (0..items.len())
            .map(|index| compare(root, &schema["items"], case, &format!("{pointer}/{index}")))
            .sum(),
        _ => 0,
    }
}

#[test]
fn the_schema_knows_every_field_and_no_other() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/autoscale-decide.schema.json");
    let schema: Value = serde_json::from_slice(&std::fs::read(path).expect("a file")).expect("JSON");
    let case = full();
    Case::from_json(case.to_string().as_bytes()).expect("a case");
    assert!(compare(&schema, &schema, &case, "") > 30);
    // What must be there in the schema must be there for the reader.
    for field in schema["required"].as_array().expect("a list") {
        let mut case = case.clone();
        case.as_object_mut().expect("an object").remove(field.as_str().expect("a name"));
        Case::from_json(case.to_string().as_bytes()).expect_err("a field is missing");
    }
}
