//! What holds for simulations: that decisions are the real ones, that counts settle where arithmetic says, that windows
//! delay by what they are, and that a big day is quick.

use proptest::prelude::*;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use throng_autoscale::simulate::trace::{self, Between, TraceOptions};
use throng_autoscale::simulate::{
    Demand, MemoryUse, Outcome, Scenario, Shape, Source, Synthetic, Unit, World, simulate, simulate_watched,
};
use throng_autoscale::spec::RawSpec;
use throng_autoscale::{Case, Controller, Spec, decide};

/// A day of ten thousand replicas in an unoptimised program on a busy machine. The released one takes a hundredth of a second.
const DAY_MOST: Duration = Duration::from_secs(10);

fn spec(value: Value) -> Spec {
    let raw: RawSpec = serde_json::from_value(value).expect("a spec");
    Spec::new(raw, false).expect("a spec that an API server takes")
}

fn cpu(percent: u32) -> Value {
    let target = json!({"type": "Utilization", "averageUtilization": percent});
    json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}])
}

/// Rows of a trace in which each demand holds until the next.
fn steps(rows: &[(u32, f64)]) -> Demand {
    let rows: String = rows.iter().map(|(time, demand)| format!("{time},{demand}\n")).collect();
    let options = TraceOptions { between: Between::Hold, gap_most: Some(1e9), ..TraceOptions::default() };
    trace::read(format!("time,rps\n{rows}").as_bytes(), &options).expect("a trace")
}

fn run(spec: &Spec, demand: &Demand, scenario: &Scenario) -> Outcome {
    simulate(spec, demand, scenario).expect("a simulation")
}

/// No tolerance, so that counts are what arithmetic says.
fn exact() -> Scenario {
    Scenario { controller: Controller { tolerance: 0.0, ..Controller::default() }, ..Scenario::default() }
}

fn counts(outcome: &Outcome) -> Vec<(i64, i32, i32)> {
    outcome.scalings.iter().map(|scaling| (scaling.at, scaling.from, scaling.to)).collect()
}

/// The same case with every replica listed.
fn expanded(case: &Case) -> Case {
    let mut case = case.clone();
    let mut pods = Vec::new();
    for pod in &case.pods {
        for copy in 0..pod.replicas() {
            let name = format!("{}-{copy}", pod.name);
            pods.push(throng_autoscale::Pod { name, alike: 0, ..pod.clone() });
        }
    }
    case.pods = pods;
    case
}

#[test]
fn a_step_is_followed_as_worked_out_by_hand() {
    // 100 requests/s take all of a replica's CPU. From 60 to 180 requests/s at second 60, target 60 %.
    let spec = spec(json!({"minReplicas": 1, "maxReplicas": 10, "metrics": cpu(60)}));
    let scenario = Scenario { world: World { patience: 0, ..World::default() }, ..Scenario::default() };
    let outcome = run(&spec, &steps(&[(0, 60.0), (60, 180.0), (300, 180.0)]), &scenario);
    // At 75 the figures of 45 to 60 are out, and old. At 90 those of 60 to 75 are: 100 %, so 1 × 100/60 makes 2, and the
    // second is ready at 95. At 105 it has no figures: counted as idle, it halves 100 % to less than the target, which
    // would be a change of sides, so nothing is done. Nor at 120: its figures of 90 to 105 are of its start in part.
    // At 135 those of 105 to 120 show 90 % of both, and 2 × 90/60 makes 3.
    assert_eq!(counts(&outcome), [(90, 1, 2), (135, 2, 3)]);
    let figures = &outcome.figures;
    assert_eq!(figures.first_reaction_seconds, Some(30));
    assert_eq!((figures.replicas_least, figures.replicas_most), (1, 3));
    assert_eq!((figures.scale_ups, figures.scale_downs), (2, 0));
    // One replica for 90 s, two for 45 s, three for 165 s.
    assert!((figures.replica_hours - 675.0 / 3600.0).abs() < 1e-9, "{}", figures.replica_hours);
    // One replica serves 100 of 180 from 60 to 95. Two serve all, at 90 %: over 66 %, until the third is ready at 140.
    assert!((figures.unserved - 35.0 * 80.0).abs() < 1e-6, "{}", figures.unserved);
    assert_eq!(figures.over_target_seconds, 80);
    let at = |second: i64| outcome.periods.iter().find(|period| period.at == second).expect("a period");
    assert_eq!(at(60).utilization, Some(100.0));
    assert!((at(105).utilization.expect("a figure") - 90.0).abs() < 1e-9);
    assert_eq!((at(90).replicas, at(120).replicas, at(135).replicas), (2, 2, 3));
    assert!((at(90).ready - (5.0 + 20.0) / 15.0).abs() < 1e-9);
}

#[test]
fn what_waits_is_served_later_or_given_up() {
    let spec = spec(json!({"maxReplicas": 1, "metrics": cpu(50)}));
    let burst = steps(&[(0, 0.0), (60, 150.0), (70, 0.0), (120, 0.0)]);
    let with = |patience| {
        let world = World { patience, ..World::default() };
        run(&spec, &burst, &Scenario { world, ..Scenario::default() }).figures
    };
    // 1500 come within 10 s, 1000 of them are served meanwhile; 500 wait, and take 5 s more.
    assert_eq!(with(60).unserved, 0.0);
    assert_eq!(with(60).over_target_seconds, 15);
    assert!((with(0).unserved - 500.0).abs() < 1e-6);
    assert_eq!(with(0).over_target_seconds, 10);
    assert_eq!(with(60).stuck_seconds, 15, "there is no second replica to be had");
    let outcome = run(&spec, &burst, &Scenario::default());
    assert!(
        outcome.notes[0].contains("it was over target for 15 s while at maxReplicas, 1"),
        "{:?}",
        outcome.notes
    );
}

#[test]
fn metrics_of_requests_scale_by_requests_and_from_zero() {
    let average = json!({"type": "AverageValue", "averageValue": "50"});
    let external =
        json!([{"type": "External", "external": {"metric": {"name": "arrivals"}, "target": average}}]);
    let spec = spec(json!({"minReplicas": 0, "maxReplicas": 20, "metrics": external}));
    let world = World { metrics: [("arrivals".to_owned(), Source::Rate)].into(), ..World::default() };
    let scenario = Scenario { world, ..exact() };
    let demand = steps(&[(0, 0.0), (600, 480.0), (1200, 480.0)]);
    let outcome = run(&spec, &demand, &scenario);
    assert_eq!(outcome.figures.replicas_least, 0);
    assert_eq!(outcome.periods[0].utilization, None);
    assert_eq!(outcome.periods.last().map(|period| period.replicas), Some(10), "480 a second, 50 each");
    let pods = json!([{"type": "Pods", "pods": {"metric": {"name": "arrivals"}, "target": average}}]);
    let spec = self::spec(json!({"maxReplicas": 20, "metrics": pods}));
    let outcome = run(&spec, &demand, &scenario);
    assert_eq!(outcome.periods.last().map(|period| period.replicas), Some(10));
}

#[test]
fn what_the_world_lacks_is_refused_with_its_path() {
    let demand = steps(&[(0, 1.0), (100, 1.0)]);
    let memory = json!([{"type": "Resource", "resource": {"name": "memory", "target": {"type": "Utilization", "averageUtilization": 50}}}]);
    let unknown = json!([cpu(50)[0], {"type": "Pods", "pods": {"metric": {"name": "x"}, "target": {"type": "AverageValue", "averageValue": "5"}}}]);
    let container = |name: &str| {
        let target = json!({"type": "Utilization", "averageUtilization": 50});
        json!({"type": "ContainerResource", "containerResource": {"name": "cpu", "container": name, "target": target}})
    };
    for (value, path) in [
        (json!({"maxReplicas": 5, "metrics": memory}), "spec.metrics[0].resource.name"),
        (json!({"maxReplicas": 5, "metrics": unknown}), "spec.metrics[1].pods.metric.name"),
        (json!({"maxReplicas": 1_000_001}), "spec.maxReplicas"),
        (
            json!({"maxReplicas": 5, "metrics": [container("a"), container("b")]}),
            "spec.metrics[1].containerResource.container",
        ),
    ] {
        let error = simulate(&spec(value), &demand, &Scenario::default()).expect_err(path);
        assert_eq!(error.path.as_deref(), Some(path));
        assert!(!error.hint.is_empty());
    }
    let long = Synthetic { shape: Shape::Day, unit: Unit::Cores, seconds: 600_000, base: 0.0, peak: 1.0 };
    let often = Scenario { sync_period: 1, ..Scenario::default() };
    let error = simulate(&spec(json!({"maxReplicas": 5})), &Demand::synthetic(&long), &often);
    assert!(error.is_err_and(|error| error.hint.contains("--sync-period")));
}

#[test]
fn one_container_is_a_replica_and_memory_does_not_follow_the_load() {
    let target = json!({"type": "Utilization", "averageUtilization": 60});
    let container = json!({"name": "cpu", "container": "web", "target": target});
    let metrics = json!([{"type": "ContainerResource", "containerResource": container}]);
    let demand = steps(&[(0, 90.0), (300, 240.0), (900, 240.0)]);
    let of_container =
        run(&spec(json!({"maxReplicas": 9, "metrics": metrics})), &demand, &Scenario::default());
    let of_replica = run(&spec(json!({"maxReplicas": 9, "metrics": cpu(60)})), &demand, &Scenario::default());
    assert_eq!((&of_container.periods, of_container.figures), (&of_replica.periods, of_replica.figures));
    let metrics = json!([{"type": "Resource", "resource": {"name": "memory", "target": target}}]);
    let size = |text: &str| text.parse().expect("a size");
    let memory = Some(MemoryUse { request: size("100Mi"), usage: size("90Mi") });
    let scenario =
        Scenario { world: World { memory, ..World::default() }, replicas: Some(4), ..Scenario::default() };
    let outcome = run(&spec(json!({"maxReplicas": 9, "metrics": metrics})), &demand, &scenario);
    // 90 % stay 90 %, however many there are: such a spec climbs to its maximum.
    assert_eq!(counts(&outcome), [(0, 4, 6), (30, 6, 9)]);
}

#[test]
fn a_target_that_replicas_at_their_limit_do_not_reach_is_told() {
    let demand = steps(&[(0, 500.0), (600, 500.0)]);
    let notes = |percent, limit| {
        let world = World { cpu_limit: limit, ..World::default() };
        run(
            &spec(json!({"maxReplicas": 9, "metrics": cpu(percent)})),
            &demand,
            &Scenario { world, ..Scenario::default() },
        )
    };
    let stays = notes(95, 500);
    assert_eq!(stays.figures.replicas_most, 1, "100 % is within the tolerance of 95 %");
    assert!(stays.notes[0].contains("never makes it scale up"), "{:?}", stays.notes);
    let grows = notes(95, 600);
    assert!(grows.notes.is_empty() && grows.figures.replicas_most > 4, "{:?}", grows.notes);
}

#[test]
fn ten_thousand_replicas_for_a_day_are_quick() {
    let spec = spec(json!({"minReplicas": 10, "maxReplicas": 10_000, "metrics": cpu(60), "behavior": {}}));
    let day =
        Synthetic { shape: Shape::Day, unit: Unit::Requests, seconds: 86_400, base: 500.0, peak: 610_000.0 };
    let day = Demand::synthetic(&day).with_noise(0.05, 1);
    let start = Instant::now();
    let outcome = run(&spec, &day, &Scenario::default());
    let took = start.elapsed();
    assert_eq!(outcome.periods.len(), 5_760);
    assert_eq!(outcome.figures.replicas_most, 10_000);
    assert!(took < DAY_MOST, "it took {took:?}");
}

fn behavior() -> impl Strategy<Value = Option<Value>> {
    let rules = || {
        let policy = (any::<bool>(), 1i32..150, 1i32..300).prop_map(|(pods, value, period)| {
            json!({"type": if pods { "Pods" } else { "Percent" }, "value": value, "periodSeconds": period})
        });
        (0i32..600, prop::collection::vec(policy, 1..3)).prop_map(
            |(window, policies)| json!({"stabilizationWindowSeconds": window, "policies": policies}),
        )
    };
    prop::option::of((rules(), rules()).prop_map(|(up, down)| json!({"scaleUp": up, "scaleDown": down})))
}

prop_compose! {
    fn world()(
        capacity in 5.0f64..200.0, cpu_request in 50i64..2000, more in 0i64..1000, startup in 0u32..90, startup_cpu in 0i64..3000,
        patience in 0u32..60, metrics_resolution in 1u32..90, metrics_delay in 0u32..90,
    ) -> World {
        let cpu_limit = cpu_request + more;
        World { capacity, cpu_request, cpu_limit, startup, startup_cpu, patience, metrics_resolution, metrics_delay, ..World::default() }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_world_is_simulated_within_bounds_and_the_same_each_time(
        (min, more, percent, behavior) in (1i32..30, 0i32..60, 10u32..150, behavior()),
        world in world(), sync_period in 1u32..60, seed in any::<u64>(), peak in 0.0f64..5000.0,
        shape in prop::sample::select(vec![Shape::Day, Shape::Step, Shape::Spike]), cores in any::<bool>(),
    ) {
        let spec = spec(json!({"minReplicas": min, "maxReplicas": min + more, "metrics": cpu(percent), "behavior": behavior}));
        let unit = if cores { Unit::Cores } else { Unit::Requests };
        let demand = Synthetic { shape, unit, seconds: 3_600, base: peak / 10.0, peak };
        let demand = Demand::synthetic(&demand).with_noise(0.2, seed);
        let scenario = Scenario { world, sync_period, ..Scenario::default() };
        let mut alike = 0;
        let outcome = simulate_watched(&spec, &demand, &scenario, &mut |case, answer| {
            // What is decided on a few entries is what would be decided on all replicas one by one.
            assert_eq!(&decide(&expanded(case)), answer);
            alike += case.pods.iter().map(|pod| pod.alike).sum::<u32>();
        }).expect("a simulation");
        for period in &outcome.periods {
            prop_assert!((i64::from(min)..=i64::from(min + more)).contains(&period.replicas), "{:?}", period);
            prop_assert!(period.ready >= 0.0 && period.ready <= period.replicas as f64);
        }
        prop_assert!(alike > 0 || min == 1);
        let figures = &outcome.figures;
        let waiting = outcome.periods.last().map_or(0.0, |period| period.waiting);
        let most = figures.demand * (1.0 + 1e-9) + 1e-6;
        prop_assert!(figures.unserved >= 0.0 && figures.unserved + waiting <= most, "{:?}", figures);
        prop_assert_eq!(figures.scale_ups + figures.scale_downs, outcome.scalings.len());
        let sum: i64 = outcome.periods.iter().map(|period| period.seconds).sum();
        prop_assert_eq!(sum, 3_600);
        prop_assert_eq!(simulate(&spec, &demand, &scenario), Ok(outcome), "the same seed, the same result");
    }

    /// With no tolerance, the count is demand over what a replica may do, rounded up. Up to 30 replicas, because beyond
    /// that utilisation in whole percents no longer tells one replica more or less; and a little below a whole count,
    /// because usage is rounded up to thousandths of a core.
    #[test]
    fn a_constant_load_settles_at_the_count_that_arithmetic_says(
        percent in 40u32..=90, settled in 1i32..=30, slack in 0.02f64..0.2, start in 1i32..=60, capacity in 10.0f64..300.0,
    ) {
        let demand = (f64::from(settled) - slack) * capacity * f64::from(percent) / 100.0;
        prop_assert_eq!((demand / (capacity * f64::from(percent) / 100.0)).ceil() as i32, settled);
        let spec = spec(json!({"minReplicas": 1, "maxReplicas": 100, "metrics": cpu(percent)}));
        let world = World { capacity, cpu_request: 5_000, cpu_limit: 5_000, ..World::default() };
        let scenario = Scenario { world, replicas: Some(start), ..exact() };
        let outcome = run(&spec, &steps(&[(0, demand), (3_600, demand)]), &scenario);
        prop_assert_eq!(outcome.periods.last().map(|period| period.replicas), Some(settled.into()));
    }

    /// With tolerance, a count that stays is one that is close enough or the one that arithmetic says.
    #[test]
    fn with_tolerance_it_settles_close_enough(percent in 40u32..=80, demand in 10.0f64..20_000.0) {
        let spec = spec(json!({"minReplicas": 1, "maxReplicas": 1000, "metrics": cpu(percent)}));
        let world = World { cpu_request: 5_000, cpu_limit: 5_000, ..World::default() };
        let scenario = Scenario { world, ..Scenario::default() };
        let outcome = run(&spec, &steps(&[(0, demand), (3_600, demand)]), &scenario);
        let last = outcome.periods.last().expect("a period");
        let exact = demand / f64::from(percent);
        let ratio = last.utilization.expect("a figure") / f64::from(percent);
        let close = (0.88..=1.13).contains(&ratio);
        prop_assert!(close || last.replicas == exact.ceil() as i64, "{} replicas at {ratio} of the target", last.replicas);
        prop_assert!(outcome.scalings.is_empty(), "it had an hour to settle: {:?}", counts(&outcome));
    }

    /// The last recommendation of the higher count holds it for exactly the window: with behavior until it is as old as
    /// the window, without one look longer.
    #[test]
    fn a_window_delays_scaling_down_by_its_length(
        window in 0i32..=3600, with_behavior in any::<bool>(), high in 4i32..40, low in 1i32..4,
    ) {
        let behavior = json!({"scaleDown": {"stabilizationWindowSeconds": window}});
        let spec = spec(json!({
            "minReplicas": 1, "maxReplicas": 100, "metrics": cpu(50), "behavior": if with_behavior { behavior } else { Value::Null },
        }));
        let mut scenario = Scenario { replicas: Some(high), ..exact() };
        scenario.controller.downscale_stabilization = throng_autoscale::Age::from_seconds(window.into());
        let demand = steps(&[(0, f64::from(high) * 50.0), (600, f64::from(low) * 50.0), (5_000, f64::from(low) * 50.0)]);
        let mut recommended = Vec::new();
        let mut at = 0;
        let outcome = simulate_watched(&spec, &demand, &scenario, &mut |_, answer| {
            recommended.push((at, answer.unstabilized));
            at += 15;
        }).expect("a simulation");
        let last_high = recommended.iter().filter(|(_, count)| *count == Some(high)).map(|(at, _)| *at).max();
        let last_high = last_high.expect("it was high");
        let first_down = outcome.scalings.first().map(|scaling| (scaling.at, scaling.from));
        // The first look at which the recommendation no longer counts, and not before there is a lower one.
        let looks = i64::from(window).div_euclid(15) + i64::from(i64::from(window) % 15 != 0 || !with_behavior);
        prop_assert_eq!(first_down, Some((last_high + 15 * looks.max(1), high)));
    }
}
