//! Decisions worked out by hand from the published algorithm, and specs that the API server refuses.

use serde_json::{Map, Value, json};
use std::path::PathBuf;
use throng_autoscale::{Answer, Case, CaseError, decide};

fn folder(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests").join(name)
}

/// Every entry of every file of a folder, with the file's name.
fn entries(name: &str) -> Vec<(String, Value)> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder(name))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    let mut entries = Vec::new();
    for path in files {
        let theme = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let text = std::fs::read(&path).expect("a file");
        let list: Vec<Value> =
            serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{theme}: {error}"));
        entries.extend(list.into_iter().map(|entry| (theme.clone(), entry)));
    }
    entries
}

/// A case from its short form: see tests/cases/README.md.
fn expand(short: &Value) -> Value {
    let mut case = short.as_object().expect("a case").clone();
    case.insert("id".into(), json!("table"));
    if let Some(Value::Array(pods)) = case.remove("pods") {
        let mut all = Vec::new();
        for pod in &pods {
            let mut pod = pod.as_object().expect("a pod").clone();
            let times = pod.remove("times").map_or(1, |times| times.as_u64().expect("a count"));
            for _ in 0..times {
                all.push(expand_pod(&pod, all.len() + 1));
            }
        }
        case.insert("pods".into(), Value::Array(all));
    }
    Value::Object(case)
}

fn expand_pod(short: &Map<String, Value>, number: usize) -> Value {
    let mut pod = json!({
        "name": format!("pod-{number}"), "ready": true, "readyChangedAgeSeconds": 600, "startedAgeSeconds": 700,
        "containers": [{"name": "app", "requests": {"cpu": "100m"}}], "metrics": null,
    });
    let pod_fields = pod.as_object_mut().expect("an object");
    for (field, value) in short {
        if field == "cpu" {
            let metrics =
                json!({"ageSeconds": 20, "windowSeconds": 60, "containers": {"app": {"cpu": value}}});
            pod_fields.insert("metrics".into(), metrics);
        } else {
            pod_fields.insert(field.clone(), value.clone());
        }
    }
    pod
}

/// Type and status of a condition with this reason, where it stands.
fn condition(reason: &str) -> (&'static str, &'static str) {
    match reason {
        "SucceededGetScale" | "ReadyForNewScale" | "ScaleUpStabilized" | "ScaleDownStabilized" => {
            ("AbleToScale", "True")
        }
        "ValidMetricFound" => ("ScalingActive", "True"),
        "ScalingDisabled" => ("ScalingActive", "False"),
        "DesiredWithinRange" => ("ScalingLimited", "False"),
        "ScaleUpLimit" | "ScaleDownLimit" | "TooManyReplicas" | "TooFewReplicas" => {
            ("ScalingLimited", "True")
        }
        failed if failed.starts_with("FailedGet") => ("ScalingActive", "False"),
        other => panic!("no condition has the reason {other}"),
    }
}

/// An answer in the table's short form.
fn shorten(answer: &Answer) -> Value {
    let metrics: Vec<Value> = answer
        .metrics
        .iter()
        .map(|metric| match &metric.error {
            Some(error) => {
                assert!(!error.is_empty());
                assert_eq!((metric.proposal, metric.utilization, &metric.average_value), (None, None, &None));
                json!("error")
            }
            None => json!([metric.proposal, metric.utilization, metric.average_value]),
        })
        .collect();
    for one in &answer.conditions {
        assert_eq!((one.kind, one.status), condition(one.reason));
    }
    json!({
        "desiredReplicas": answer.desired_replicas,
        "unstabilized": answer.unstabilized,
        "metrics": metrics,
        "conditions": answer.conditions.iter().map(|one| one.reason).collect::<Vec<_>>(),
    })
}

#[test]
fn every_decision_of_the_table_is_made() {
    let entries = entries("cases");
    assert!(entries.len() >= 150, "{} cases", entries.len());
    let mut wrong = Vec::new();
    for (theme, entry) in &entries {
        let case = expand(&entry["case"]).to_string();
        let name = format!("{theme}: {}", entry["name"]);
        let answer = match Case::from_json(case.as_bytes()) {
            Ok(case) => decide(&case),
            Err(error) => {
                wrong.push(format!("{name}: {error}"));
                continue;
            }
        };
        assert!(!answer.explanation.is_empty(), "{name}");
        let short = shorten(&answer);
        if short != entry["answer"] {
            wrong.push(format!("{name} ({})\n   is {short}\n  not {}", entry["why"], entry["answer"]));
        }
    }
    assert!(wrong.is_empty(), "{} of {} are wrong:\n{}", wrong.len(), entries.len(), wrong.join("\n"));
}

#[test]
fn specs_that_the_api_server_refuses_are_refused_at_their_field() {
    for (_, entry) in entries("refused") {
        let case = expand(&entry["case"]).to_string();
        let path = entry["path"].as_str().expect("a path");
        match Case::from_json(case.as_bytes()) {
            Err(CaseError::Spec(violations)) => {
                let paths: Vec<&str> = violations.iter().map(|violation| violation.path.as_str()).collect();
                assert!(paths.contains(&path), "{}: {paths:?} lacks {path}", entry["name"]);
            }
            other => panic!("{}: {other:?}", entry["name"]),
        }
    }
}

#[test]
fn what_is_no_case_is_refused_with_its_place() {
    for (text, expected) in [
        ("", "line 1, column 0"),
        ("[]", "line 1"),
        ("{\n  \"id\": \"x\"\n", "line 3, column 0"),
        (r#"{"id": "x", "spec": {"maxReplicas": 3}, "currentReplicas": 1} x"#, "trailing characters"),
        (r#"{"id": "x", "spec": {"maxReplicas": 3}}"#, "currentReplicas"),
        (r#"{"spec": {"maxReplicas": 3}, "currentReplicas": 1}"#, "`id`"),
        (r#"{"id": "x", "spec": {"maxReplicas": 3}, "currentReplicas": 1.5}"#, "1.5"),
        (r#"{"id": "x", "spec": {"maxReplicas": 3}, "currentReplicas": -1}"#, "currentReplicas: -1"),
        (
            r#"{"id": "x", "spec": {"maxReplicas": 3}, "currentReplicas": 1, "statusReplicas": -1}"#,
            "statusReplicas",
        ),
        (r#"{"id": "x", "spec": {"maxReplicas": 3, "max": 4}, "currentReplicas": 1}"#, "unknown field `max`"),
        (
            r#"{"id": "x", "spec": {"maxReplicas": 3}, "currentReplicas": 1, "replicas": 1}"#,
            "unknown field `replicas`",
        ),
        (r#"{"id": "x", "spec": {"maxReplicas": 3000000000}, "currentReplicas": 1}"#, "3000000000"),
        (
            r#"{"id": "x", "spec": {"maxReplicas": 3}, "currentReplicas": 1, "objects": {"a": "1x"}}"#,
            "\"1x\" is no quantity",
        ),
        (
            r#"{"id": "x", "spec": {"maxReplicas": 3}, "currentReplicas": 1, "controller": {"tolerance": -1}}"#,
            "controller.tolerance",
        ),
        (
            r#"{"id": "x", "spec": {"maxReplicas": 3}, "currentReplicas": 1, "controller": {"downscaleStabilizationSeconds": -1}}"#,
            "controller.downscaleStabilizationSeconds",
        ),
        (
            r#"{"id": "x", "spec": {"maxReplicas": 3}, "currentReplicas": 1, "recommendations": [{"ageSeconds": 1e30, "replicas": 1}]}"#,
            "s away",
        ),
        (
            r#"{"id": "x", "spec": {"maxReplicas": 3}, "currentReplicas": 1, "recommendations": [{"ageSeconds": 1, "replicas": -1}]}"#,
            "recommendations[0].replicas",
        ),
        (
            r#"{"id": "x", "spec": {"maxReplicas": 3}, "currentReplicas": 1, "scaleEvents": {"down": [{"ageSeconds": 1, "change": -1}]}}"#,
            "scaleEvents.down[0].change",
        ),
        (
            r#"{"id": "x", "spec": {"maxReplicas": 3}, "currentReplicas": 1, "pods": [{"name": "a", "phase": "Unknown", "containers": []}]}"#,
            "Unknown",
        ),
        (
            r#"{"id": "x", "spec": {"maxReplicas": 3}, "currentReplicas": 1, "pods": [{"name": "a", "containers": []}, {"name": "a", "containers": []}]}"#,
            "pods[1].name: \"a\" is taken",
        ),
        (
            r#"{"id": "x", "spec": {"maxReplicas": 3}, "currentReplicas": 1, "pods": [{"name": "a", "ready": true, "containers": []}]}"#,
            "pods[0].readyChangedAgeSeconds",
        ),
        (
            r#"{"id": "x", "spec": {"maxReplicas": 3}, "currentReplicas": 1, "pods": [{"name": "a", "containers": [{"name": "b"}, {"name": "b"}]}]}"#,
            "pods[0].containers[1].name",
        ),
    ] {
        let error = Case::from_json(text.as_bytes()).expect_err(text);
        assert!(error.to_string().contains(expected), "{error} does not say {expected}");
        assert!(!error.hint().is_empty());
    }
}
