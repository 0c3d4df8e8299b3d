//! The structure of the pages: every drawing is well-formed, described and finite, whatever the run holds.

mod sample;

use proptest::prelude::*;
use sample::{CLASSIC, Shape, classic, crowd};
use std::collections::{BTreeMap, BTreeSet};
use throng_model::run::*;

/// Every `svg` element of the page.
fn drawings(html: &str) -> Vec<&str> {
    html.match_indices("<svg ")
        .map(|(start, _)| {
            let end = html[start..].find("</svg>").expect("an end") + start + "</svg>".len();
            &html[start..end]
        })
        .collect()
}

/// Parses all drawings; checks names, numbers and references; returns how many charts there are.
fn check(html: &str) -> usize {
    let mut ids = BTreeSet::new();
    let mut charts = 0;
    for svg in drawings(html) {
        let document = roxmltree::Document::parse(svg).unwrap_or_else(|e| panic!("{e} in {svg}"));
        for node in document.descendants().filter(|n| n.is_element()) {
            if let Some(id) = node.attribute("id") {
                assert!(ids.insert(id.to_string()), "{id} stands twice in the page");
            }
            for name in ["x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "width", "height"] {
                if let Some(value) = node.attribute(name) {
                    let value: f64 = value.parse().unwrap_or_else(|_| panic!("{name}={value}"));
                    assert!(value.is_finite());
                    assert!(!matches!(name, "width" | "height") || value >= 0.0, "{name}={value}");
                }
            }
        }
        let root = document.root_element();
        if root.attribute("class") != Some("chart") {
            continue;
        }
        charts += 1;
        let named = root.attribute("aria-labelledby").expect("a name");
        for id in named.split(' ') {
            let node = document
                .descendants()
                .find(|n| n.attribute("id") == Some(id))
                .expect("a title or description");
            assert!(node.text().is_some_and(|text| !text.is_empty()));
        }
    }
    let words: BTreeSet<&str> = html.split(|c: char| !c.is_alphanumeric()).collect();
    for word in ["NaN", "inf", "Infinity"] {
        assert!(!words.contains(word), "the page says {word}");
    }
    charts
}

#[test]
fn every_fault_is_marked_from_its_beginning_to_its_end() {
    let mut run = classic(CLASSIC);
    let begin = run.stages[2].begin;
    let fault = |what: &str, begin: f64, end| FaultSpan { what: what.into(), begin, end };
    run.stages[2].faults = vec![
        fault("pause <30 %> of web for 1s", begin, Some(begin + 1.0)),
        fault("kill web", begin + 0.5, Some(begin + 0.5)),
        fault("cut far off", begin + 0.7, None),
        // A record that somebody has changed.
        fault("nonsense", f64::NAN, Some(f64::INFINITY)),
        fault("backwards", begin, Some(begin - 9.0)),
    ];
    let html = throng_report::html(&run);
    check(&html);
    // Latency, throughput and replicas, each in two sizes.
    assert_eq!(html.matches("class=\"fault\"").count(), 4 * 6);
    assert!(html.contains("<title>pause &lt;30 %&gt; of web for 1s</title>"), "every one is named");
    assert!(html.contains("done to the app on purpose"), "the key explains them");
    assert!(!throng_report::html(&classic(CLASSIC)).contains("on purpose"));
}

#[test]
fn the_report_has_every_picture_and_reaches_for_nothing() {
    let html = throng_report::html(&classic(CLASSIC));
    // Eight full-width drawings in two sizes, and seven cells.
    assert_eq!(check(&html), 7 * 2 + 7);
    for part in [
        "id=\"figures\"",
        "id=\"latency\"",
        "id=\"time\"",
        "id=\"replicas\"",
        "id=\"thresholds\"",
        "id=\"stages\"",
        "id=\"environment\"",
    ] {
        assert!(html.contains(part), "{part}");
    }
    for chart in [
        "distribution-0",
        "distribution-2",
        "percentiles",
        "latency-time",
        "throughput-time",
        "replicas-time",
        "cpu-0-2",
        "memory-0-0",
        "balance-2",
    ] {
        assert!(html.contains(&format!("data-chart=\"{chart}\"")), "{chart}");
    }
    let remote = html.replace("http://www.w3.org/2000/svg", "");
    for reach in
        ["http://", "https://", "@import", "url(", "<link rel=\"stylesheet\"", "<img", "<iframe", "fetch("]
    {
        assert!(!remote.contains(reach), "the page reaches out with {reach}");
    }
}

#[test]
fn repetitions_show_their_spread() {
    let repeated = classic(Shape { repetitions: 4, ..CLASSIC });
    let html = throng_report::html(&repeated);
    check(&html);
    assert!(html.contains("from the lowest to the highest repetition"));
    assert!(html.contains("Carried out 4 times"));
    for chart in ["repetitions-median", "repetitions-p95", "repetitions-rate"] {
        assert!(html.contains(&format!("data-chart=\"{chart}\"")), "{chart}");
    }
    assert!(!throng_report::html(&classic(CLASSIC)).contains("repetitions-median"));
    let ranges = html.matches(" ms</small>").count();
    assert!(ranges >= 3 * 4, "{ranges} figures show their range");
}

#[test]
fn failures_are_counted_by_kind() {
    let html = throng_report::html(&classic(Shape { failing: 50, ..CLASSIC }));
    check(&html);
    assert!(html.contains("What failed. ") && html.contains(" × status 502"));
    assert!(!throng_report::html(&classic(CLASSIC)).contains("What failed."));
}

#[test]
fn texts_of_a_run_stay_texts() {
    let text = "</script><script>alert(1)</script><b title='x\" onload=y'>&amp;\u{1b}[31m\u{202e}";
    let mut run = classic(CLASSIC);
    for field in [&mut run.id, &mut run.project, &mut run.title, &mut run.description, &mut run.started_at] {
        *field = text.into();
    }
    run.summary = vec![text.into()];
    run.variables.insert(text.into(), text.into());
    run.environment.cpu = text.into();
    run.environment.details.insert(text.into(), text.into());
    run.replica_counts.insert(text.into(), vec![(0.0, 1)]);
    for stage in &mut run.stages {
        stage.name = text.into();
        stage.detail = text.into();
        stage.error = Some(text.into());
        stage.thresholds.push(ThresholdResult {
            expression: text.into(),
            measured: text.into(),
            held: false,
        });
        for load in &mut stage.loads {
            load.errors.insert(text.into(), 3);
            load.by_replica.insert(text.into(), 3);
        }
    }
    run.replicas[0].name = text.into();
    run.replicas[1].service = text.into();
    run.events.push(Event { at: 1.0, kind: text.into(), subject: text.into(), message: text.into() });
    for html in [throng_report::html(&run), throng_report::compare_html(&[run.clone(), run.clone()])] {
        check(&html);
        assert!(!html.contains("<script>alert") && !html.contains("<b title"), "a text became markup");
        assert!(!html.contains('\u{1b}') && !html.contains('\u{202e}'));
        assert_eq!(html.matches("<script>").count(), 1, "only the page's own script");
    }
    let shown = throng_report::summary_text(&run, 80) + &throng_report::compare_text(&[run.clone(), run], 80);
    assert!(!shown.contains('\u{1b}') && !shown.contains('\u{202e}'));
}

#[test]
fn ten_thousand_replicas_stay_readable_and_small() {
    let html = throng_report::html(&crowd(10_000, 600));
    check(&html);
    assert!(html.contains("median of 10,000 replicas"));
    assert!(html.len() < 600_000, "{} bytes", html.len());
}

fn float() -> impl Strategy<Value = f64> {
    prop_oneof![
        Just(f64::NAN),
        Just(f64::INFINITY),
        Just(f64::NEG_INFINITY),
        Just(0.0),
        0.0..100.0f64,
        proptest::num::f64::ANY
    ]
}

fn integer() -> impl Strategy<Value = u64> {
    prop_oneof![Just(0), Just(1), Just(u64::MAX), 0..100_000u64, any::<u64>()]
}

/// No letters that could spell a number which is none.
fn text() -> impl Strategy<Value = String> {
    "[b-hB-H0-9<>&\"' é-]{0,12}"
}

fn latency() -> impl Strategy<Value = LatencySummary> {
    let buckets = proptest::collection::vec((integer(), integer()), 0..6);
    (integer(), float(), integer(), buckets).prop_map(|(count, mean, max, buckets)| LatencySummary {
        count,
        mean,
        stdev: mean,
        max,
        percentiles: [("50".to_string(), max), ("99".to_string(), count)].into(),
        buckets,
        ..Default::default()
    })
}

fn load() -> impl Strategy<Value = LoadResult> {
    let point =
        (float(), float(), integer(), integer(), integer()).prop_map(|(at, width, requests, errors, max)| {
            TimelinePoint { at, width, requests, errors, p50: max / 2, p95: max, max }
        });
    let points = proptest::collection::vec(point, 0..6);
    let counts = || proptest::collection::btree_map(text(), integer(), 0..4);
    (float(), float(), integer(), float(), latency(), points, counts(), counts()).prop_map(
        |(begin, seconds, requests, rate, latency, timeline, errors, by_replica)| LoadResult {
            target: "web".into(),
            schedule: if requests % 2 == 0 {
                format!("closed: {requests} clients × 1 requests")
            } else {
                "open: 5/s".into()
            },
            demand: (requests % 3 == 0).then_some(Demand { rate, seconds }),
            begin,
            seconds,
            requests,
            succeeded: requests / 2,
            errors,
            rate,
            latency,
            timeline,
            by_replica,
            ..Default::default()
        },
    )
}

fn stage() -> impl Strategy<Value = Stage> {
    (text(), float(), float(), proptest::option::of(any::<u32>()), proptest::collection::vec(load(), 0..3))
        .prop_map(|(name, begin, end, replicas, loads)| Stage {
            name,
            kind: "load".into(),
            begin,
            end,
            replicas,
            loads,
            ..Default::default()
        })
}

fn run() -> impl Strategy<Value = Run> {
    let sample = (float(), float(), integer()).prop_map(|(at, cpu, memory)| Sample {
        at,
        cpu,
        memory,
        ..Default::default()
    });
    let replica = (text(), text(), proptest::option::of(float()), proptest::collection::vec(sample, 0..5))
        .prop_map(|(service, name, cpu_limit, samples)| ReplicaSeries {
            service,
            name,
            cpu_limit,
            memory_limit: Some(7),
            samples,
        });
    let event = (float(), text()).prop_map(|(at, message)| Event {
        at,
        kind: "fault".into(),
        message,
        ..Default::default()
    });
    let counts = proptest::collection::vec((float(), any::<u32>()), 0..5);
    (
        text(),
        float(),
        proptest::collection::vec(stage(), 0..4),
        proptest::collection::vec(replica, 0..20),
        proptest::collection::vec(event, 0..4),
        proptest::collection::btree_map(text(), counts, 0..3),
    )
        .prop_map(
            |(id, seconds, stages, replicas, events, replica_counts): (_, _, _, _, _, BTreeMap<_, _>)| Run {
                id,
                seconds,
                stages,
                replicas,
                events,
                replicas_wanted: replica_counts.clone(),
                replica_counts,
                ..Default::default()
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn no_run_breaks_the_pages_or_the_tables(a in run(), b in run(), width in 0usize..200) {
        check(&throng_report::html(&a));
        check(&throng_report::compare_html(&[a.clone(), b.clone()]));
        let lines = throng_report::learn(&a);
        prop_assert!(lines.len() <= 3);
        let mut shown = throng_report::summary_text(&a, width) + &throng_report::summary_text_boxed(&b, width);
        shown.push_str(&throng_report::compare_text(&[a, b], width));
        shown.push_str(&lines.join(" "));
        prop_assert!(!shown.contains("NaN") && !shown.contains("inf"), "{shown}");
    }
}
