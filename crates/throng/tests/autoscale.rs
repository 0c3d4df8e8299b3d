//! `throng autoscale decide` as a program: what it reads, prints and ends with.

mod support;

use serde_json::{Value, json};
use std::io::Write;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};
use support::Bench;

/// Ten thousand small cases in an unoptimised program on a busy machine; the released one takes a tenth of it.
const LINES_MOST: Duration = Duration::from_secs(20);

fn decide(bench: &Bench, arguments: &[&str], input: &str) -> Output {
    let mut command = bench.command(&[&["autoscale", "decide"], arguments].concat());
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = input.to_owned();
    // Beside the reading, because both pipes fill up. A program that refuses its input closes it early.
    let writer = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let output = child.wait_with_output().expect("ended");
    writer.join().expect("written");
    output
}

fn case(id: &str, usage: &str) -> Value {
    let pod = |number: u32| {
        json!({
            "name": format!("web-{number}"), "phase": "Running", "deleted": false,
            "ready": true, "readyChangedAgeSeconds": 600, "startedAgeSeconds": 700,
            "containers": [{"name": "app", "requests": {"cpu": "100m", "memory": "64Mi"}}],
            "metrics": {"ageSeconds": 20, "windowSeconds": 60, "containers": {"app": {"cpu": usage, "memory": "40Mi"}}},
            "custom": {"requests-per-second": "12500m"},
        })
    };
    json!({
        "id": id, "spec": {"maxReplicas": 10}, "currentReplicas": 4,
        "recommendations": [{"ageSeconds": 45, "replicas": 6}],
        "pods": (1..=4).map(pod).collect::<Vec<_>>(),
    })
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

#[test]
fn one_case_gets_one_answer() {
    let bench = Bench::anywhere();
    let input = serde_json::to_string_pretty(&case("pretty", "100m")).expect("JSON");
    let output = decide(&bench, &[], &input);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let expected = json!({
        "id": "pretty", "desiredReplicas": 6, "unstabilized": 5,
        "metrics": [{"type": "Resource", "name": "cpu", "proposal": 5, "utilization": 100, "averageValue": "100m", "error": null}],
        "conditions": [
            {"type": "AbleToScale", "status": "True", "reason": "ScaleDownStabilized"},
            {"type": "ScalingActive", "status": "True", "reason": "ValidMetricFound"},
            {"type": "ScalingLimited", "status": "False", "reason": "DesiredWithinRange"},
        ],
        "explanation": answer["explanation"],
    });
    assert_eq!(answer, expected);
    assert!(answer["explanation"].as_str().is_some_and(|text| text.contains("cpu is at 100 %")), "{answer}");
}

#[test]
fn a_metric_that_fails_is_an_answer() {
    let bench = Bench::anywhere();
    let output = decide(&bench, &[], r#"{"id": "x", "spec": {"maxReplicas": 3}, "currentReplicas": 2}"#);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let answer: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(answer["desiredReplicas"], 2);
    assert_eq!(answer["unstabilized"], Value::Null);
    assert_eq!(answer["conditions"][1]["reason"], "FailedGetResourceMetric");
}

#[test]
fn lines_are_answered_one_by_one_and_quickly() {
    let bench = Bench::anywhere();
    let count = 10_000;
    let line = case("N", "170m").to_string();
    let input: String =
        (0..count).map(|number| line.replace("\"N\"", &format!("\"{number}\"")) + "\n").collect();
    let start = Instant::now();
    let output = decide(&bench, &["--lines"], &(input + "\n"));
    let took = start.elapsed();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let answers: Vec<&str> = text(&output.stdout).lines().collect();
    assert_eq!(answers.len(), count);
    for (number, answer) in answers.iter().enumerate() {
        assert!(answer.starts_with(&format!("{{\"id\":\"{number}\",\"desiredReplicas\":8")), "{answer}");
    }
    assert!(took < LINES_MOST, "{count} cases took {took:?}");
}

#[test]
fn what_cannot_be_read_ends_with_code_2_and_its_place() {
    let bench = Bench::anywhere();
    let refuses = |arguments: &[&str], input: &str, expected: &[&str]| {
        let output = decide(&bench, arguments, input);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{input}: {error}");
        assert!(error.contains("hint: "), "{error}");
        for expected in expected {
            assert!(error.contains(expected), "{error} does not say {expected}");
        }
        text(&output.stdout).to_owned()
    };
    refuses(&[], "", &["line 1, column 0", "EOF"]);
    refuses(&[], "{\n\"id\": 1}", &["line 2, column 7"]);
    let spec = r#"{"id": "x", "spec": {"minReplicas": 5, "maxReplicas": 3}, "currentReplicas": 2}"#;
    assert_eq!(refuses(&[], spec, &["spec.maxReplicas: 3 is below minReplicas, 5"]), "");
    refuses(
        &[],
        r#"{"id": "x", "spec": {"maxReplicas": 3}, "currentReplicas": 2, "pod": []}"#,
        &["unknown field `pod`"],
    );
    refuses(
        &[],
        r#"{"id": "x", "spec": {"maxReplicas": 3}, "currentReplicas": -2}"#,
        &["currentReplicas: -2 is below 0"],
    );
    // What came before the bad line is answered.
    let good = case("good", "50m").to_string();
    let printed =
        refuses(&["--lines"], &format!("{good}\n\n{spec}\n{good}\n"), &["line 3: spec.maxReplicas"]);
    assert_eq!(printed.lines().count(), 1);
    refuses(&["--lines"], &format!("{good}\n{{]\n"), &["line 2, column 2"]);
    bench.fails(2, &["autoscale"]).says("decide");
}
