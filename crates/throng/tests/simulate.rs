//! `throng autoscale simulate` as a program: what it reads, prints, writes and ends with.

mod support;

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use support::Bench;

/// A day of ten thousand replicas, twice, in an unoptimised program on a busy machine.
const DAY_MOST: Duration = Duration::from_secs(30);

const HEAD: &str =
    "apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata: {name: NAME}\nspec:\n";

/// The files of the example, in the folder of the test.
fn example(bench: &Bench) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/autoscale");
    for name in ["patient.yaml", "quick.yaml", "load.csv"] {
        std::fs::copy(folder.join(name), bench.folder.join(name)).expect("a file of the example");
    }
}

/// Writes a manifest that aims at a share of CPU.
fn spec(bench: &Bench, name: &str, percent: u32, most: u32) -> PathBuf {
    let target = format!("{{type: Utilization, averageUtilization: {percent}}}");
    let metric = format!("{{type: Resource, resource: {{name: cpu, target: {target}}}}}");
    let text = format!("{HEAD}  maxReplicas: {most}\n  metrics: [{metric}]\n");
    bench.write(&format!("{name}.yaml"), &text.replace("NAME", name))
}

fn simulate<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    [&["autoscale", "simulate"], arguments].concat()
}

fn file(bench: &Bench, name: &str) -> String {
    std::fs::read_to_string(bench.folder.join(name)).expect(name)
}

/// Lines of a CSV file below its head.
fn rows(text: &str) -> usize {
    text.lines().count() - 1
}

#[test]
fn the_example_shows_what_haste_costs_and_what_patience_does() {
    let bench = Bench::anywhere();
    example(&bench);
    let specs = ["--spec", "patient.yaml", "--spec", "quick.yaml"];
    let done = bench.ok(&simulate(&[&specs[..], &["--trace", "load.csv", "--out", "plots"]].concat()));
    done.prints("4 h 00 min of load.csv: ")
        .prints("[1] patient: 2 to 40 replicas, cpu at 60 %")
        .prints("replica-hours");
    done.prints("patient needs ").prints("plots: plots/simulation.html");
    assert!(done.out.lines().all(|line| line.chars().count() <= 80), "{}", done.out);
    let data: Value = serde_json::from_str(&file(&bench, "plots/simulation.json")).expect("JSON");
    assert_eq!(data["load"]["begins"], "2026-03-02T08:00:00Z");
    let figure = |spec: usize, name: &str| data["specs"][spec]["figures"][name].as_f64().expect("a figure");
    assert!(figure(0, "replicaHours") < figure(1, "replicaHours"));
    assert!(figure(0, "overTargetPercent") > 2.0 * figure(1, "overTargetPercent"));
    assert!(figure(0, "unservedPercent") > 2.0 * figure(1, "unservedPercent"));
    assert!(figure(1, "firstReactionSeconds") <= 60.0);
    let periods = file(&bench, "plots/periods.csv");
    assert_eq!(rows(&periods), 2 * 4 * 240);
    assert!(periods.starts_with("spec,time_seconds,length_seconds,demand,replicas,"));
    assert_eq!(data["specs"][1]["periods"].as_array().map(Vec::len), Some(960));
    let changes =
        (0..2).map(|spec| data["specs"][spec]["scalings"].as_array().map_or(0, Vec::len)).sum::<usize>();
    assert_eq!(rows(&file(&bench, "plots/scalings.csv")), changes);
    assert_eq!(rows(&file(&bench, "plots/summary.csv")), 2);
    let page = file(&bench, "plots/simulation.html");
    for part in
        ["patient", "Demand not served", "Replica-hours, added up", "against a target of 60 %", "data-theme"]
    {
        assert!(page.contains(part), "the page lacks {part}");
    }
    for outside in ["src=\"http", "href=\"http", "@import", "url("] {
        assert!(!page.contains(outside), "the page needs something else: {outside}");
    }
}

#[test]
fn the_same_seed_gives_the_same_result() {
    let bench = Bench::anywhere();
    spec(&bench, "web", 60, 40);
    let run = |more: &[&str]| {
        let usual = ["--spec", "web.yaml", "--synthetic", "spike", "--noise", "20%", "--format", "json"];
        bench.ok(&simulate(&[&usual[..], more].concat())).out
    };
    let first = run(&["--seed", "7"]);
    assert_eq!(first, run(&["--seed", "7"]));
    assert_ne!(first, run(&["--seed", "8"]));
    let data: Value = serde_json::from_str(&first).expect("JSON");
    assert_eq!(data["version"], 1);
    assert_eq!(data["load"]["seconds"], 7_200);
    assert_eq!(data["specs"][0]["name"], "web");
    assert!(data["specs"][0]["figures"]["replicaHours"].as_f64().is_some_and(|hours| hours > 1.0));
    assert_eq!(data["specs"][0].get("periods"), None, "only files have what changes over time");
    spec(&bench, "high", 95, 40);
    let high = bench.ok(&simulate(&["--spec", "high.yaml", "--synthetic", "step"]));
    high.prints("* Note: CPU alone never makes it scale up").prints("demand not served");
    let bare: Value = serde_json::from_str(&run(&["--capacity", "10", "--replicas", "3"])).expect("JSON");
    assert!(bare["specs"][0]["figures"]["unservedPercent"].as_f64().is_some_and(|percent| percent > 1.0));
}

#[test]
fn a_day_of_ten_thousand_replicas_is_quick() {
    let bench = Bench::anywhere();
    spec(&bench, "one", 60, 10_000);
    spec(&bench, "two", 80, 10_000);
    let start = Instant::now();
    let arguments =
        ["--spec", "one.yaml", "--spec", "two.yaml", "--synthetic", "day", "--peak", "620000", "--out", "."];
    let done = bench.ok(&simulate(&arguments));
    let took = start.elapsed();
    done.prints("10,000");
    assert_eq!(rows(&file(&bench, "periods.csv")), 2 * 5_760);
    assert!(took < DAY_MOST, "it took {took:?}");
}

#[test]
fn metrics_of_requests_are_simulated_when_they_are_explained() {
    let bench = Bench::anywhere();
    let metric = "{type: Pods, pods: {metric: {name: rps}, target: {type: AverageValue, averageValue: 50}}}";
    bench.write("rps.yaml", &format!("{HEAD}  maxReplicas: 40\n  metrics:\n  - {metric}\n"));
    let usual = ["--spec", "rps.yaml", "--synthetic", "step", "--noise", "0"];
    let refused = bench.fails(2, &simulate(&usual));
    refused.says("spec.metrics[0].pods.metric.name: what \"rps\" measures is not known").says("rps.yaml:7:");
    refused.says("hint: say it with --metric rps=rate");
    let done = bench.ok(&simulate(&[&usual[..], &["--metric", "rps=rate"]].concat()));
    done.prints("rps at 50 each");
    let memory =
        "{type: Resource, resource: {name: memory, target: {type: Utilization, averageUtilization: 50}}}";
    bench.write("memory.yaml", &format!("{HEAD}  maxReplicas: 4\n  metrics: [{memory}]\n"));
    let usual = ["--spec", "memory.yaml", "--synthetic", "step"];
    bench.fails(2, &simulate(&usual)).says("memory is not simulated").says("--memory-usage");
    bench.ok(&simulate(&[&usual[..], &["--memory-usage", "90Mi", "--memory-request", "100Mi"]].concat()));
}

#[test]
fn what_is_wrong_with_a_manifest_or_a_trace_is_told_with_its_place() {
    let bench = Bench::anywhere();
    spec(&bench, "web", 60, 10);
    let trace = |rows: &str, more: &[&str], expected: &[&str]| {
        bench.write("load.csv", rows);
        let done =
            bench.fails(2, &simulate(&[&["--spec", "web.yaml", "--trace", "load.csv"], more].concat()));
        assert!(done.err.contains("hint: "), "{}", done.err);
        for text in expected {
            done.says(text);
        }
        assert!(!bench.folder.join("plots").exists());
    };
    let plots = &["--out", "plots"];
    trace(
        "time,rps\n0,1\n60,2\n30,3\n",
        plots,
        &["time runs backwards: this is 30 s before line 3", "load.csv:4:1"],
    );
    trace(
        "time,rps\n0,1\n1,2\n2,2\n3,2\n90,3\n",
        plots,
        &["the trace has a hole: 87 s", "load.csv:6:1", "--max-gap 87s"],
    );
    trace("time,rps\n0,1\n1,x\n", &[], &["\"x\" is no demand", "load.csv:3:1"]);
    trace("time,users\n0,1\n1,2\n", &[], &["no column is the demand", "load.csv:1:1", "--column"]);
    trace("time,rps\n", &[], &["load.csv: the trace has no rows"]);
    bench.write("load.csv", "time,rps\n0,1\n60,2\n");
    let both = |spec: &str, expected: &[&str]| {
        bench.write("bad.yaml", spec);
        let done =
            bench.fails(2, &simulate(&["--spec", "web.yaml", "--spec", "bad.yaml", "--trace", "load.csv"]));
        for text in expected {
            done.says(text);
        }
    };
    both(
        &format!("{HEAD}  minReplicas: 9\n  maxReplicas: 3\n"),
        &["3 is below minReplicas, 9", "bad.yaml:6:16"],
    );
    both(
        &format!("{HEAD}  maxReplica: 3\n"),
        &["unknown key \"maxReplica\"", "bad.yaml:5:3", "did you mean maxReplicas?"],
    );
    both("kind: Deployment\n", &["kind is \"Deployment\"", "bad.yaml:1:7"]);
    both("a: [\n", &["not valid YAML", "bad.yaml:"]);
    bench.fails(2, &simulate(&["--spec", "no.yaml", "--trace", "load.csv"])).says("cannot read no.yaml");
    bench.fails(2, &simulate(&["--spec", "web.yaml", "--trace", "no.csv"])).says("cannot read no.csv");
    bench.fails(2, &simulate(&["--spec", "web.yaml"])).says("--trace");
    bench.fails(2, &simulate(&["--trace", "load.csv"])).says("--spec");
    bench
        .fails(2, &simulate(&["--spec", "web.yaml", "--synthetic", "day", "--startup", "1500ms"]))
        .says("whole seconds");
    let long = ["--synthetic", "day", "--duration", "31d", "--sync-period", "5s"];
    bench
        .fails(2, &simulate(&[&["--spec", "web.yaml"], &long[..]].concat()))
        .says("looks of all controllers");
    let nine = ["--spec", "web.yaml"].repeat(9);
    bench
        .fails(2, &simulate(&[&nine[..], &["--trace", "load.csv"]].concat()))
        .says("9 specs are more than 8");
    bench
        .fails(4, &simulate(&["--spec", "web.yaml", "--trace", "load.csv", "--out", "web.yaml"]))
        .says("web.yaml");
}
