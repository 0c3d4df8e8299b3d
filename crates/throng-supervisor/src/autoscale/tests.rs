//! The controller without replicas: what it asks for, what it makes of answers, and what it remembers.

use super::*;
use serde_json::{Value, json};
use throng_autoscale::{Container, Phase, PodMetrics};
use throng_model::app::{Port, Protocol};

fn service(autoscale: Value, sources: Value) -> Service {
    let port =
        Port { host_ip: None, published: None, target: 8080, protocol: Protocol::Tcp, app_protocol: None };
    let wish = Autoscale {
        spec: autoscale,
        controller: Default::default(),
        sources: serde_json::from_value(sources).expect("sources"),
    };
    Service { name: "web".into(), ports: vec![port], autoscale: Some(wish), ..Service::default() }
}

fn autoscaler(service: &Service, now: Instant) -> Autoscaler {
    let wish = service.autoscale.as_ref().expect("an autoscaler");
    Autoscaler::new(service, wish, None, now).expect("a good spec")
}

fn cpu(target: i32) -> Value {
    json!({ "type": "Resource", "resource": { "name": "cpu", "target": {
        "type": "Utilization", "averageUtilization": target } } })
}

fn named(kind: &str, name: &str, target: Value) -> Value {
    let field = if kind == "Pods" { "pods" } else { "external" };
    json!({ "type": kind, field: { "metric": { "name": name }, "target": target } })
}

/// A replica that has been ready for a while and uses so many thousandths of the core that it requests.
fn pod(ordinal: u32, milli: i64) -> Pod {
    let quantity = |milli| BTreeMap::from([("cpu".to_owned(), Quantity::from_milli(milli))]);
    Pod {
        name: format!("web-{ordinal}"),
        phase: Phase::Running,
        ready: Some(true),
        ready_changed: Some(Age::from_seconds(1_000)),
        started: Some(Age::from_seconds(1_000)),
        containers: vec![Container { name: "web".into(), requests: quantity(1_000) }],
        metrics: Some(PodMetrics {
            age: Age::default(),
            window: Age::from_seconds(15),
            containers: BTreeMap::from([("web".to_owned(), quantity(milli))]),
        }),
        ..Pod::default()
    }
}

fn pods(count: u32, milli: i64) -> Vec<Pod> {
    (1..=count).map(|ordinal| pod(ordinal, milli)).collect()
}

fn counter(at: Instant, value: f64) -> Sighting {
    (at, Ok(Found { counter: true, series: BTreeMap::from([(String::new(), value)]) }))
}

fn gathered(at: Instant, found: impl IntoIterator<Item = (Subject, Sighting)>) -> Gathered {
    Gathered { at, usage: Vec::new(), found: found.into_iter().collect() }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn it_scales_up_at_once_and_down_after_the_window() {
    let begin = Instant::now();
    let service = service(json!({ "maxReplicas": 10, "metrics": [cpu(50)] }), json!({}));
    let mut web = autoscaler(&service, begin);
    assert_eq!(web.decide(1, pods(1, 500), begin).replicas, 1);
    assert_eq!(web.decide(1, pods(1, 1_000), begin + 15 * SECOND).replicas, 2);
    // Idle now: held by what was recommended within five minutes.
    for period in 2..=21 {
        assert_eq!(web.decide(2, pods(2, 0), begin + period * 15 * SECOND).replicas, 2, "{period}");
    }
    assert_eq!(web.decide(2, pods(2, 0), begin + 22 * 15 * SECOND).replicas, 1);
}

#[test]
fn a_new_controller_does_not_scale_down_what_it_finds() {
    let begin = Instant::now();
    let service = service(json!({ "maxReplicas": 10, "metrics": [cpu(50)] }), json!({}));
    let mut web = autoscaler(&service, begin);
    for period in 0..20 {
        assert_eq!(web.decide(7, pods(7, 0), begin + period * 15 * SECOND).replicas, 7, "{period}");
    }
    assert_eq!(web.decide(7, pods(7, 0), begin + 21 * 15 * SECOND).replicas, 1);
}

#[test]
fn limits_hold_whatever_was_set_by_hand_and_zero_turns_it_off() {
    let now = Instant::now();
    let service = service(json!({ "minReplicas": 2, "maxReplicas": 5, "metrics": [cpu(50)] }), json!({}));
    let mut web = autoscaler(&service, now);
    assert_eq!(web.decide(9, pods(9, 500), now).replicas, 5);
    assert_eq!(web.decide(1, pods(1, 500), now).replicas, 2);
    assert_eq!(web.decide(0, Vec::new(), now).replicas, 0);
    let status = web.status(0, 0);
    assert!(status.conditions.iter().any(|condition| condition.reason == "ScalingDisabled"), "{status:?}");
}

#[test]
fn a_metric_that_never_comes_keeps_the_count_and_is_told_once() {
    let begin = Instant::now();
    let metrics = json!([named("External", "queue", json!({ "type": "Value", "value": "10" }))]);
    let sources = json!({ "queue": { "url": "http://127.0.0.1:1/metrics" } });
    let service = service(json!({ "maxReplicas": 10, "metrics": metrics }), sources);
    let mut web = autoscaler(&service, begin);
    let mut told = Vec::new();
    for period in 0..6 {
        let now = begin + period * 15 * SECOND;
        web.take_in(gathered(now, [((0, None), (now, Err("no answer".to_owned())))]), |_| None);
        let decision = web.decide(3, pods(3, 0), now);
        assert_eq!(decision.replicas, 3);
        told.extend(decision.told);
    }
    assert!(matches!(&told[..], [Told::Failing(reason)] if reason.contains("no answer")));
    let status = web.status(3, 3);
    let active =
        status.conditions.iter().find(|condition| condition.kind == "ScalingActive").expect("active");
    assert_eq!((active.status.as_str(), active.reason.as_str()), ("False", "FailedGetExternalMetric"));
    assert!(status.metrics[0].error.as_ref().is_some_and(|error| error.contains("no answer")), "{status:?}");
    // It comes after all, and is 40 against a target of 10.
    let now = begin + 6 * 15 * SECOND;
    let found = Found { counter: false, series: BTreeMap::from([("a".into(), 30.0), ("b".into(), 10.0)]) };
    web.take_in(gathered(now, [((0, None), (now, Ok(found)))]), |_| None);
    let decision = web.decide(3, pods(3, 0), now);
    assert_eq!(decision.replicas, 6, "at most twice as many at once");
    assert!(matches!(decision.told, Some(Told::Recovered)));
    assert_eq!(web.status(3, 6).metrics[0].current.as_deref(), Some("40"));
}

#[test]
fn counters_count_by_what_they_grow() {
    let begin = Instant::now();
    let metrics = json!([named("Pods", "hits", json!({ "type": "AverageValue", "averageValue": "10" }))]);
    let service = service(json!({ "maxReplicas": 10, "metrics": metrics }), json!({}));
    let mut web = autoscaler(&service, begin);
    let address = Ipv4Addr::new(10, 0, 0, 2);
    let (looks, reads, inquiry) = web.begin(&[Subjected { ordinal: 1, address: Some(address) }], begin);
    assert!(looks && !reads && inquiry.asks.len() == 1, "what is used is not read where it does not count");
    let place = inquiry.asks.keys().next().expect("a place").to_string();
    assert_eq!(place, "http://10.0.0.2:8080/metrics");
    let subject = (0, Some(1));
    let custom = |web: &Autoscaler| web.noted(1).custom.get("hits").map(|value| value.milli());
    web.take_in(gathered(begin, [(subject, counter(begin, 1_000.0))]), |_| None);
    assert_eq!(custom(&web), None, "one number is no rate");
    let later = begin + 10 * SECOND;
    web.take_in(gathered(later, [(subject, counter(later, 1_250.0))]), |_| None);
    assert_eq!(custom(&web), Some(25_000));
    let restarted = later + 10 * SECOND;
    web.take_in(gathered(restarted, [(subject, counter(restarted, 30.0))]), |_| None);
    assert_eq!(custom(&web), Some(3_000), "one that fell has begun anew");
    let mut one = pod(1, 0);
    one.custom = web.noted(1).custom;
    web.decide(1, vec![one], restarted);
    assert_eq!(custom(&web), None, "values are of one look");
}

#[test]
fn looks_are_a_period_apart_and_what_was_missed_is_not_made_up_for() {
    let begin = Instant::now();
    let service = service(json!({ "maxReplicas": 10 }), json!({}));
    let mut autoscalers = Autoscalers::default();
    autoscalers.define([(&"web".to_owned(), &service)].into_iter(), begin);
    assert_eq!(autoscalers.due(begin), ["web"]);
    let web = autoscalers.get_mut("web").expect("there");
    assert!(web.begin(&[], begin).0);
    assert_eq!(autoscalers.next(), None, "nothing else begins meanwhile");
    autoscalers.get_mut("web").expect("there").give_up();
    assert_eq!(autoscalers.next(), Some(begin + 15 * SECOND));
    let late = begin + 100 * SECOND;
    autoscalers.get_mut("web").expect("there").begin(&[], late);
    autoscalers.get_mut("web").expect("there").give_up();
    assert_eq!(autoscalers.next(), Some(late + 15 * SECOND));
    // The same once more: it goes on; without the key it ends.
    autoscalers.define([(&"web".to_owned(), &service)].into_iter(), late);
    assert_eq!(autoscalers.next(), Some(late + 15 * SECOND));
    let plain = Service { autoscale: None, ..service };
    autoscalers.define([(&"web".to_owned(), &plain)].into_iter(), late);
    assert_eq!(autoscalers.next(), None);
}

#[test]
fn a_service_that_was_woken_up_is_not_put_to_sleep_at_once() {
    let begin = Instant::now();
    let object = json!({ "type": "Object", "object": {
        "describedObject": { "kind": "Service", "name": "web" },
        "metric": { "name": "requests_in_flight" },
        "target": { "type": "AverageValue", "averageValue": "5" } } });
    let service = service(json!({ "minReplicas": 0, "maxReplicas": 4, "metrics": [object] }), json!({}));
    let mut web = autoscaler(&service, begin);
    assert!(web.wakes_up());
    assert_eq!(web.own().collect::<Vec<_>>(), [(0, "web", "requests_in_flight")]);
    let demand = |under_way| throng_proxy::Demand { requests: 0, under_way };
    let look = |web: &mut Autoscaler, current, under_way, seconds: u32| {
        let now = begin + seconds * SECOND;
        let figure = own_figure("requests_in_flight", demand(under_way));
        web.take_in(gathered(now, [((0, None), figure)]), |_| None);
        web.decide(current, pods(current, 0), now).replicas
    };
    assert_eq!(look(&mut web, 0, 0, 0), 0);
    assert_eq!(look(&mut web, 0, 12, 15), 3, "the metric itself wakes it, too");
    assert_eq!(look(&mut web, 3, 0, 30), 3);
    assert_eq!(look(&mut web, 3, 0, 400), 0);
    web.woke_up(begin + 401 * SECOND);
    assert_eq!(look(&mut web, 1, 0, 402), 1);
    assert_eq!(look(&mut web, 1, 0, 800), 0);
}
