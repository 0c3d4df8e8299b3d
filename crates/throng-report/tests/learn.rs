//! What is said about a run follows from its figures, in each of the ways in which a run can go.

use throng_model::run::*;

/// A load stage whose repetitions have these medians (milliseconds) and rates.
fn stage(name: &str, clients: u64, replicas: u32, repetitions: &[(u64, f64)]) -> Stage {
    let loads = repetitions
        .iter()
        .enumerate()
        .map(|(i, (p50, rate))| LoadResult {
            target: "web".into(),
            schedule: format!("closed: {clients} clients × 100 requests"),
            begin: i as f64 * 10.0,
            seconds: 10.0,
            requests: clients * 100,
            succeeded: clients * 100,
            rate: *rate,
            latency: LatencySummary {
                count: clients * 100,
                percentiles: [("50".to_string(), p50 * 1_000), ("95".to_string(), p50 * 2_000)].into(),
                buckets: vec![(p50 * 1_000, clients * 100)],
                ..Default::default()
            },
            ..Default::default()
        })
        .collect();
    Stage {
        name: name.into(),
        kind: "load".into(),
        end: 10.0,
        replicas: Some(replicas),
        loads,
        ..Default::default()
    }
}

fn run(stages: Vec<Stage>) -> Run {
    Run { stages, ..Default::default() }
}

/// One replica of `web` that uses so many cores of its half.
fn using(cpu: f64) -> Vec<ReplicaSeries> {
    let samples = (1..10).map(|at| Sample { at: f64::from(at), cpu, ..Default::default() }).collect();
    vec![ReplicaSeries {
        service: "web".into(),
        name: "web-1".into(),
        cpu_limit: Some(0.5),
        samples,
        ..Default::default()
    }]
}

#[test]
fn the_classic_course_is_told_in_three_lines() {
    let mut classic = run(vec![
        stage("one", 1, 1, &[(12, 83.0)]),
        stage("ten", 10, 1, &[(97, 102.0)]),
        stage("three", 10, 3, &[(35, 286.0)]),
    ]);
    classic.replicas = using(0.499);
    assert_eq!(
        throng_report::learn(&classic),
        [
            "Ten clients at once made the median answer 8.1 times slower than a single client did (12 ms → 97 ms): one replica \
         was the bottleneck (it used 0.50 of its 0.50 CPUs).",
            "Three replicas carried 2.8 times the load of one (102/s → 286/s), and the median answer fell (97 ms → 35 ms).",
            "With 3 replicas, the median answer still takes 2.9 times as long as for a single client, as 10 clients share them.",
        ]
    );
}

#[test]
fn a_cause_is_named_only_if_the_samples_show_it() {
    let mut idle = run(vec![stage("one", 1, 1, &[(12, 83.0)]), stage("ten", 10, 1, &[(97, 102.0)])]);
    idle.replicas = using(0.2);
    let lines = throng_report::learn(&idle);
    assert!(lines[0].ends_with("(12 ms → 97 ms)."), "{lines:?}");
    assert!(!lines.join(" ").contains("bottleneck"));
}

#[test]
fn no_gain_and_a_loss_are_said_as_such() {
    let none = run(vec![stage("a", 10, 1, &[(50, 200.0)]), stage("b", 10, 3, &[(50, 204.0)])]);
    let lines = throng_report::learn(&none);
    assert_eq!(
        lines[0],
        "Three replicas carried no more than one (200/s → 204/s): the limit lies elsewhere."
    );
    assert_eq!(lines[1], "All 2,000 requests were answered.");

    let some = run(vec![stage("a", 10, 1, &[(50, 200.0)]), stage("b", 10, 3, &[(30, 360.0)])]);
    let lines = throng_report::learn(&some);
    assert!(lines[0].starts_with("Three replicas carried 1.8 times the load of one"), "{lines:?}");
    assert_eq!(lines[1], "The gain is 1.8 where 3.0 would be ideal.");

    let worse = run(vec![stage("a", 10, 1, &[(50, 200.0)]), stage("b", 10, 3, &[(90, 110.0)])]);
    assert!(throng_report::learn(&worse)[0].contains("made it worse"));

    let flat = run(vec![stage("a", 1, 4, &[(10, 100.0)]), stage("b", 2, 4, &[(10, 200.0)])]);
    assert!(throng_report::learn(&flat)[0].contains("does not reach the service's limit"));
}

#[test]
fn repetitions_that_overlap_forbid_a_conclusion() {
    let noisy = run(vec![
        stage("a", 10, 1, &[(50, 100.0), (60, 180.0), (70, 140.0)]),
        stage("b", 10, 2, &[(30, 130.0), (40, 190.0), (35, 170.0)]),
    ]);
    let lines = throng_report::learn(&noisy);
    assert!(lines[0].contains("cannot be told"), "{lines:?}");
}

#[test]
fn failures_come_before_praise() {
    let mut failing = run(vec![stage("a", 10, 1, &[(50, 100.0)]), stage("b", 10, 2, &[(25, 200.0)])]);
    failing.stages[1].loads[0].errors = [("status 502".to_string(), 40), ("timeout".to_string(), 2)].into();
    let lines = throng_report::learn(&failing);
    assert_eq!(
        lines.last().map(String::as_str),
        Some(
            "In b, 42 of 1,000 requests failed (status 502: 40, timeout: 2); the latencies count only the answers that succeeded."
        )
    );
    assert!(!lines.join(" ").contains("All "));
}

#[test]
fn short_broken_and_empty_runs_have_their_words() {
    let first = |run: &Run| throng_report::learn(run).remove(0);
    assert!(first(&Run::default()).starts_with("No load was sent"));
    assert!(
        first(&run(vec![stage("only", 5, 1, &[(20, 250.0)])]))
            .starts_with("With 5 clients and 1 replica, half of the answers came within 20 ms")
    );

    let mut refused = run(vec![stage("only", 5, 1, &[(20, 0.0)])]);
    refused.stages[0].loads[0].latency = LatencySummary::default();
    refused.stages[0].loads[0].errors = [("connect".to_string(), 500)].into();
    assert_eq!(
        throng_report::learn(&refused),
        ["No request was answered (connect 500); there are no latencies to judge."]
    );

    let mut broken =
        run(vec![Stage { name: "up".into(), error: Some("no such image.".into()), ..Default::default() }]);
    broken.outcome = Outcome::Interrupted;
    assert!(first(&broken).starts_with("Stage up could not be carried out: no such image. What follows"));
    broken.stages.clear();
    assert!(first(&broken).contains("stopped before its end"));
}

#[test]
fn unlike_stages_are_not_compared_as_if_alike() {
    let mixed = run(vec![stage("a", 10, 1, &[(50, 100.0)]), stage("b", 50, 3, &[(60, 300.0)])]);
    assert!(throng_report::learn(&mixed)[0].contains("differ in more than one thing"));
    let mut elsewhere = run(vec![stage("a", 1, 1, &[(50, 100.0)]), stage("b", 10, 1, &[(90, 100.0)])]);
    elsewhere.stages[1].loads[0].target = "other".into();
    assert!(throng_report::learn(&elsewhere)[0].contains("differ in more than one thing"));
}

#[test]
fn clients_that_pause_are_not_held_against_the_replicas() {
    let stages = || {
        vec![
            stage("one client", 1, 1, &[(10, 90.0)]),
            stage("ten clients", 10, 1, &[(100, 100.0)]),
            stage("ten clients, three replicas", 10, 3, &[(12, 150.0)]),
        ]
    };
    let eager = throng_report::learn(&run(stages())).join(" ");
    assert!(eager.contains("would be ideal"), "{eager}");
    let mut paced = run(stages());
    for load in paced.stages.iter_mut().flat_map(|stage| &mut stage.loads) {
        load.schedule += ", pause 30ms";
    }
    let paced = throng_report::learn(&paced).join(" ");
    assert!(!paced.contains("would be ideal"), "{paced}");
}

#[test]
fn limits_that_are_not_enforced_explain_why_more_replicas_carry_no_more() {
    let mut free = run(vec![stage("one", 10, 1, &[(9, 228.0)]), stage("three", 10, 3, &[(9, 230.0)])]);
    let said = |run: &Run| throng_report::learn(run).join(" ");
    assert!(said(&free).contains("the limit lies elsewhere"), "{}", said(&free));
    free.environment.unlimited = true;
    assert!(said(&free).contains("limits on CPU are not enforced here"), "{}", said(&free));
}
