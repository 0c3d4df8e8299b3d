//! Experiments from their file to their report.

mod support;

use serde_json::Value;
use support::Bench;

const APP: &str = "
services:
  web:
    image: probe
    command: [serve, '80']
    ports: ['127.0.0.1::80']
    healthcheck: {test: [CMD, /probe, healthy, '80'], interval: 1s, timeout: 5s}
";

const EXPERIMENT: &str = "
title: Small
variables: {requests: 20, replicas: 2}
stages:
  - {name: start, up: }
  - name: one
    load: &load {service: web, path: '/slow?1', clients: 2, requests: '${requests}'}
    require: ['errors<1%', 'p99<20s']
  - {name: grow, scale: {service: web, replicas: '${replicas}'}}
  - {name: answers, wait: {service: web, ready: 2, timeout: 30s}}
  - {name: two, load: *load}
  - {name: rest, pause: 10ms}
";

fn bench(name: &str, experiment: &str) -> Option<Bench> {
    let bench = Bench::with_app(name, APP)?;
    bench.write("experiment.yaml", experiment);
    Some(bench)
}

fn record(bench: &Bench, folder: &str) -> Value {
    let text = std::fs::read_to_string(bench.folder.join(folder).join("run.json")).expect("a record");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn an_experiment_goes_from_its_file_to_its_report() {
    let Some(bench) = bench("an_experiment_goes_from_its_file_to_its_report", EXPERIMENT) else { return };
    let done = bench.ok(&["run", "--set", "requests=30", "--out", "out"]);
    done.says("[6/6] rest").says("nothing is left behind").prints("report: out/report.html");
    bench.assert_clean();

    let run = record(&bench, "out");
    assert_eq!((&run["outcome"], &run["title"]), (&"passed".into(), &"Small".into()));
    assert_eq!(run["variables"]["requests"], "30");
    let stages = run["stages"].as_array().expect("stages");
    let names: Vec<&str> = stages.iter().filter_map(|stage| stage["name"].as_str()).collect();
    assert_eq!(names, ["start", "one", "grow", "answers", "two", "rest"]);
    for stage in [&stages[1], &stages[4]] {
        let load = &stage["loads"][0];
        assert_eq!((&load["requests"], &load["succeeded"]), (&60.into(), &60.into()), "{load}");
    }
    assert!(stages[1]["thresholds"].as_array().expect("thresholds").iter().all(|t| t["held"] == true));
    assert!(run["environment"].to_string().contains("image of web"), "a record says what ran");
    for (file, begin) in [("report.html", "<!doctype html>"), ("run.json", "{")] {
        let text = std::fs::read_to_string(bench.folder.join("out").join(file)).expect(file);
        assert!(text.to_lowercase().starts_with(begin), "{file}");
    }
    let tables = std::fs::read_dir(bench.folder.join("out")).expect("the folder").flatten();
    let tables: Vec<_> =
        tables.filter(|entry| entry.path().extension().is_some_and(|e| e == "csv")).collect();
    assert!(!tables.is_empty(), "what is plotted is there as CSV too");
    for table in tables {
        let text = std::fs::read_to_string(table.path()).expect("a table");
        let columns = text.lines().next().expect("a heading").split(',').count();
        assert!(columns > 1, "{}", table.path().display());
    }
}

const CRASHING: &str = "
title: Half of it crashes
stages:
  - {name: start, up: }
  - name: crash
    load: {service: web, rate: 60, duration: 9s, timeout: 3s}
    during:
      - {at: 2s, kill: {service: web, share: 50%, seed: 3}}
      - {at: 4s, pause: {service: web, share: 1, for: 2s}}
    require: ['recovered within 20s for 1s', 'errors<60%']
  - {name: hang, pause: {service: web, share: 1, for: 1s}, require: ['recovered within 20s for 1s']}
  - name: never
    load: {service: web, clients: 2, duration: 3s, timeout: 2s}
    during: [{at: 1s, stop: {service: web}}]
    require: ['no request lost', 'recovered within 1s for 1s']
";

#[test]
fn an_app_comes_through_its_faults_or_the_run_fails() {
    let name = "an_app_comes_through_its_faults_or_the_run_fails";
    let Some(bench) = bench(name, CRASHING) else { return };
    bench.compose(&format!("{APP}    restart: always\n    deploy: {{replicas: 4}}\n"));
    bench.fails(1, &["run", "--out", "out"]).says("2 thresholds did not hold");
    let run = record(&bench, "out");
    let stages = run["stages"].as_array().expect("stages");
    let held = |stage: usize| -> Vec<bool> {
        let each = stages[stage]["thresholds"].as_array().expect("thresholds");
        each.iter().map(|threshold| threshold["held"] == true).collect()
    };
    assert_eq!(
        (held(1), held(2), held(3)),
        (vec![true, true], vec![true], vec![false, false]),
        "{stages:#?}"
    );
    let faults = |stage: usize| stages[stage]["faults"].as_array().expect("faults").clone();
    let whats: Vec<String> =
        (1..=3).flat_map(faults).map(|fault| fault["what"].as_str().expect("words").to_owned()).collect();
    assert_eq!(whats, ["kill 50 % of web", "pause 1 of web for 2s", "pause 1 of web for 1s", "stop web"]);
    let pause = &faults(1)[1];
    let lasted = pause["end"].as_f64().expect("an end") - pause["begin"].as_f64().expect("a beginning");
    assert!((2.0..4.0).contains(&lasted), "{pause}");
    assert!(faults(3)[0]["end"].is_null(), "nothing started them again");
    let measured = stages[3]["thresholds"][0]["measured"].as_str().expect("words").to_owned();
    assert!(measured.contains(" of "), "{measured}");
    let page = std::fs::read_to_string(bench.folder.join("out/report.html")).expect("a page");
    assert!(page.contains("class=\"fault\"") && page.contains("pause 1 of web for 2s"));
    let killed =
        run["events"].as_array().expect("events").iter().filter(|event| event["message"] == "killed");
    assert_eq!(killed.count(), 2);
    bench.assert_clean();
}

#[test]
fn runs_are_listed_reported_again_and_compared() {
    let experiment = "repetitions: 2\nstages:\n  - {name: start, up: }\n  - {name: it, load: {service: web, clients: \
                      1, requests: 10}}\n";
    let Some(bench) = bench("runs_are_listed_reported_again_and_compared", experiment) else { return };
    bench.ok(&["run", "--out", "first"]);
    let loads = record(&bench, "first")["stages"][1]["loads"].as_array().expect("loads").len();
    assert_eq!(loads, 2, "each load is repeated");
    // A run's name has a resolution of a second.
    let first = record(&bench, "first")["id"].as_str().expect("an id").to_owned();
    bench.ok(&["run", "--out", "second"]);
    let second = record(&bench, "second")["id"].as_str().expect("an id").to_owned();
    assert_ne!(first, second, "no run takes the place of another");

    let runs = bench.ok(&["runs", "--format", "json"]).json();
    let ids: Vec<&str> = runs.iter().filter_map(|run| run["ID"].as_str()).collect();
    assert_eq!(ids, [first.as_str(), &second]);
    assert_eq!(bench.ok(&["runs", "-q"]).out, format!("{first}\n{second}\n"));
    bench.ok(&["runs"]).prints("passed").prints(&second);
    bench.ok(&["report", "latest", "--out", "again"]).prints("report: again/report.html");
    assert_eq!(record(&bench, "again"), record(&bench, "second"));
    bench.ok(&["compare", &first, &second, "--out", "both.html"]).prints("it").prints("page: both.html");
    let page = std::fs::read_to_string(bench.folder.join("both.html")).expect("a page");
    // The project is the same in both names, so it is left out.
    let short = |id: &str| id.trim_end_matches(&format!("-{}", bench.project)).to_owned();
    assert!(page.contains(&short(&first)) && page.contains(&short(&second)));
    bench.ok(&["compare", "first/run.json", "second/"]).prints("it");
    let compared = bench.ok(&["compare", &first, &second, "--format", "json"]).out;
    let compared: Value = serde_json::from_str(&compared).expect("JSON");
    assert_eq!((&compared["runs"][1]["id"], &compared["stages"][0]["stage"]), (&second.into(), &"it".into()));
    let figures = &compared["stages"][0]["runs"];
    assert!(figures[0]["p50_us"]["median"].as_f64() > Some(0.0), "{figures}");
    assert_eq!(figures[0]["rate"]["ratio"], 1.0);
    assert_eq!(figures[1]["rate"]["repetitions"], 2);
}

#[test]
fn a_threshold_that_does_not_hold_fails_the_run_but_not_the_report() {
    let experiment = "stages:\n  - {name: start, up: }\n  - {name: it, load: {service: web, path: '/slow?20', clients: \
                      1, requests: 5}, require: ['p50<1ms', 'errors<1%']}\n  - {name: after, pause: 1ms}\n";
    let name = "a_threshold_that_does_not_hold_fails_the_run_but_not_the_report";
    let Some(bench) = bench(name, experiment) else { return };
    let done = bench.fails(1, &["run", "--out", "out"]);
    done.says("required p50<1ms but measured").says("error: 1 threshold did not hold");
    let run = record(&bench, "out");
    assert_eq!(run["outcome"], "failed");
    assert_eq!(
        run["stages"].as_array().expect("stages").len(),
        3,
        "later stages are carried out all the same"
    );
    assert!(bench.folder.join("out/report.html").exists());
    bench.assert_clean();
}

#[test]
fn a_stage_that_cannot_be_carried_out_ends_the_run_with_its_reason() {
    let experiment = "stages:\n  - {name: start, up: }\n  - {name: sick, wait: {service: web, log: never said, timeout: \
                      300ms}}\n  - {name: after, pause: 1ms}\n";
    let name = "a_stage_that_cannot_be_carried_out_ends_the_run_with_its_reason";
    let Some(bench) = bench(name, experiment) else { return };
    bench
        .fails(1, &["run", "--out", "out"])
        .says("error: stage \"sick\": not within 300ms: no log of web contains");
    assert_eq!(record(&bench, "out")["stages"].as_array().expect("stages").len(), 2);
    bench.assert_clean();
    bench.compose(&APP.replace("healthy, '80'", "exit, '1'").replace("interval: 1s", "interval: 100ms"));
    bench
        .fails(1, &["run", "--out", "out"])
        .says("stage \"start\"")
        .says("`/probe exit 1` exited with code 1");
    bench.assert_clean();
}

#[test]
fn what_a_failed_replica_said_last_is_in_the_error_and_in_the_record() {
    let experiment = "stages:\n  - {name: start, up: }\n";
    let name = "what_a_failed_replica_said_last_is_in_the_error_and_in_the_record";
    let Some(bench) = bench(name, experiment) else { return };
    bench.compose(
        "services:\n  web:\n    image: probe\n    command: [complain, '20', '9']\n    healthcheck: {test: [CMD, /probe, \
         healthy, '80'], interval: 1s, timeout: 5s}\n",
    );
    let done = bench.fails(1, &["run", "--out", "out"]);
    done.says("error: stage \"start\": web does not come up: replica 1: exited with code 9");
    done.says("  web-1 | complaint 20").says("  web-1 | complaint 11");
    let quoted = done.err.matches("complaint").count();
    assert_eq!(quoted, 10, "ten lines, once:\n{}", done.err);
    assert!(!done.err.contains("throng logs"), "the app is gone by then:\n{}", done.err);
    let stage = &record(&bench, "out")["stages"][0];
    assert_eq!(stage["log"].as_array().expect("lines").len(), 10, "{stage}");
    let page = std::fs::read_to_string(bench.folder.join("out/report.html")).expect("a page");
    assert!(page.contains("web-1 | complaint 20"));
    bench.assert_clean();
}

#[test]
fn a_folder_that_cannot_take_the_report_is_told_before_anything_starts() {
    let name = "a_folder_that_cannot_take_the_report_is_told_before_anything_starts";
    let Some(bench) = bench(name, EXPERIMENT) else { return };
    bench.write("file", "");
    for out in ["/proc/nope", "file/below"] {
        let done = bench.fails(4, &["run", "--out", out]);
        done.says("cannot write the report into").says(out).says("hint: choose a folder");
        assert!(!done.err.contains("[1/"), "no stage has begun:\n{}", done.err);
    }
    assert_eq!(bench.ok(&["runs", "--format", "json"]).out, "");
    // One that was made for nothing goes again, and one that cannot take the report after all costs no figures.
    bench.compose("services:\n  web: {image: 'not a name'}\n");
    bench.run(&["run", "--out", "deep/er"]);
    assert!(!bench.folder.join("deep").exists());
    bench.compose(APP);
    bench.write("experiment.yaml", "stages:\n  - {name: start, up: }\n  - {name: rest, pause: 1s}\n");
    let mut running = bench.spawn(&["run", "--out", "out"]);
    running.says("[2/2] rest");
    std::fs::create_dir_all(bench.folder.join("out/report.html")).expect("a folder in the way");
    let done = running.wait();
    assert_eq!(done.code, 4, "{}{}", done.out, done.err);
    done.prints("passed after").says("the run is recorded: `throng report 20");
    bench.ok(&["report", "latest", "--out", "elsewhere"]).prints("report: elsewhere/report.html");
    bench.assert_clean();
}

#[test]
fn a_dry_run_checks_prints_and_starts_nothing() {
    let bench = Bench::anywhere();
    bench.compose("services:\n  web: {image: nowhere, ports: ['127.0.0.1::80']}\n");
    bench.write("experiment.yaml", EXPERIMENT);
    let done = bench.ok(&["run", "--dry-run", "--set", "replicas=7"]);
    done.prints("Small").prints("3  grow: web to 7 replicas").prints("requires p99<20s");
    assert_eq!(bench.ok(&["runs", "--format", "json"]).out, "");
    bench.assert_clean();
}

#[test]
fn a_run_keeps_the_app_up_if_asked_and_does_not_touch_one_that_is_up() {
    let experiment = "stages:\n  - {name: start, up: }\n";
    let name = "a_run_keeps_the_app_up_if_asked_and_does_not_touch_one_that_is_up";
    let Some(bench) = bench(name, experiment) else { return };
    bench.ok(&["run", "--keep", "--out", "out"]).says("stays up; take it down with");
    let before = bench.pids("web-1").first().copied();
    assert!(before.is_some());
    bench.fails(4, &["run"]).says("is already up").says("hint: take it down first");
    assert_eq!(bench.pids("web-1").first().copied(), before);
    bench.ok(&["down"]);
    bench.assert_clean();
}

#[test]
fn a_run_leaves_volumes_that_were_there_before() {
    let Some(bench) =
        bench("a_run_leaves_volumes_that_were_there_before", "stages:\n  - {name: start, up: }\n")
    else {
        return;
    };
    bench.compose(&format!("{APP}    volumes: ['data:/data']\nvolumes: {{data: {{}}}}\n"));
    let folder = bench.home.join("volumes").join(format!("{}_data", bench.project));
    bench.ok(&["run", "--out", "out"]);
    assert!(!folder.exists(), "what the run made goes with it");
    bench.ok(&["up", "-d", "--wait"]);
    bench.ok(&["exec", "web", "/probe", "append", "/data/notes", "kept"]);
    bench.ok(&["down"]);
    bench.ok(&["run", "--out", "out"]).says("was there before the run");
    assert_eq!(std::fs::read_to_string(folder.join("_data/notes")).expect("data"), "kept\n");
    bench.assert_clean();
}
