//! Services with an autoscaler, on real replicas.

mod support;

use rustix::process::Signal;
use serde_json::Value;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};
use support::{Bench, until, web};
use throng_runtime::cluster::{Feed, FeedStream};
use throng_supervisor::client::{Choice, Client};
use throng_supervisor::paths::Paths;

/// `throng describe --format json` of one service.
#[track_caller]
fn described(bench: &Bench, service: &str) -> Value {
    bench.ok(&["describe", service, "--format", "json"]).json().remove(0)
}

fn wanted(bench: &Bench, service: &str) -> u64 {
    described(bench, service)["replicas"]["wanted"].as_u64().expect("a number")
}

fn ready(bench: &Bench, service: &str) -> u64 {
    described(bench, service)["replicas"]["ready"].as_u64().expect("a number")
}

fn condition<'a>(described: &'a Value, kind: &str) -> Option<&'a Value> {
    described["autoscaler"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == kind)
}

/// Replicas by the requests that are under way at the service's own address, one for each.
fn by_requests(least: u32, most: u32, period: &str, more: &str) -> String {
    format!(
        "
services:
  web:
    image: probe
    command: [serve, '80']
    ports: ['127.0.0.1::80']
    stop_grace_period: 1s
    {more}
    x-throng:
      autoscale:
        minReplicas: {least}
        maxReplicas: {most}
        metrics:
        - type: Object
          object:
            describedObject: {{kind: Service, name: web}}
            metric: {{name: requests_in_flight}}
            target: {{type: AverageValue, averageValue: 1}}
        behavior:
          scaleUp: {{policies: [{{type: Percent, value: 900, periodSeconds: 1}}]}}
          scaleDown: {{stabilizationWindowSeconds: 1}}
      autoscaler: {{syncPeriod: {period}}}
"
    )
}

/// What the supervisor tells of a step, with its own times: nobody asks it meanwhile, which would take the cores that
/// replicas are to start on.
struct Told {
    /// When the autoscaler asked for so many, and why.
    decided: Vec<(SystemTime, String)>,
    /// When so many were given work.
    serving: SystemTime,
}

/// Takes down what is told until so many replicas of a service are given work. Returns when it has begun to.
fn take_down(bench: &Bench, service: &'static str, count: u32) -> JoinHandle<Told> {
    let (paths, project) =
        (Paths { data: bench.home.clone(), run: bench.home.join("run") }, bench.project.clone());
    let (begun, waiting) = mpsc::channel();
    let telling = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async move {
            let client = Client::find(&paths, &project, &Choice::default()).await.expect("a supervisor");
            let mut watch = client.watch().await.expect("it tells");
            begun.send(()).expect("somebody waits");
            let mut decided = Vec::new();
            loop {
                let next = tokio::time::timeout(support::PATIENCE, watch.next()).await;
                match next.expect("in time").expect("the app is up") {
                    Feed::Event(event) if event.message.starts_with("new size ") => {
                        decided.push((event.at, event.message));
                    }
                    Feed::Counts { at, services } if services[service].ready >= count => {
                        return Told { decided, serving: at };
                    }
                    _ => {}
                }
            }
        })
    });
    waiting.recv().expect("it begins");
    telling
}

#[test]
fn a_load_step_is_served_by_new_replicas_within_a_period_and_a_second() {
    const PERIOD: Duration = Duration::from_secs(2);
    let name = "a_load_step_is_served_by_new_replicas_within_a_period_and_a_second";
    let Some(bench) = Bench::with_app(name, &by_requests(100, 125, "2s", "deploy: {replicas: 100}")) else {
        return;
    };
    bench.ok(&["up", "-d", "--wait"]);
    let address = bench.address("web");
    let telling = take_down(&bench, "web", 120);
    // A step has been made when its last request has been sent: a look before that sees a part of it.
    let asked: Vec<_> = (0..120).map(|_| web::ask(&address, "/slow?6000").expect("a request")).collect();
    let step = SystemTime::now();
    let Told { decided, serving } = telling.join().expect("replicas for the step");
    let took = serving.duration_since(step).unwrap_or_default();
    let (at, message) = decided.last().expect("a decision");
    let starting = serving.duration_since(*at).unwrap_or_default();
    eprintln!(
        "from the step to 20 more replicas that serve, beside 100: {took:?}, {starting:?} after {message:?}"
    );
    for asked in asked {
        assert_eq!(web::answer(asked).expect("an answer").status, 200, "no request is lost");
    }
    assert!(took <= PERIOD + Duration::from_secs(1), "{took:?}: {decided:?}");
}

#[test]
fn a_service_that_nobody_uses_sleeps_and_a_request_wakes_it_up() {
    let Some(bench) = Bench::with_app(
        "a_service_that_nobody_uses_sleeps_and_a_request_wakes_it_up",
        &by_requests(0, 3, "500ms", ""),
    ) else {
        return;
    };
    bench.ok(&["up", "-d", "--wait"]);
    let address = bench.address("web");
    for _ in 0..2 {
        until("nobody is left", || bench.ps().is_empty().then_some(()));
        let begin = Instant::now();
        let answer = web::get(&address, "/").expect("an answer although there was nobody");
        assert_eq!(answer.status, 200);
        eprintln!("from the first request to its answer, from nothing: {:?}", begin.elapsed());
    }
    bench.ok(&["events", "--no-follow"]).prints("new size 1: a request waits at its address");
    // A new supervisor knows that none are wanted, and still listens.
    until("nobody is left", || bench.ps().is_empty().then_some(()));
    let supervisor = bench.supervisor().expect("a supervisor");
    support::kill(supervisor, Signal::KILL);
    until("it is gone", || (!bench.listens()).then_some(()));
    assert_eq!(wanted(&bench, "web"), 0);
    let address = until("it listens again", || {
        let described = described(&bench, "web");
        described["ports"][0]["address"].as_str().map(str::to_owned)
    });
    assert_eq!(web::get(&address, "/").expect("an answer").status, 200);
}

#[test]
fn replicas_tell_figures_of_their_own_and_people_may_interfere() {
    let Some(bench) = Bench::with_probe("replicas_tell_figures_of_their_own_and_people_may_interfere") else {
        return;
    };
    bench.compose(
        "
services:
  web:
    image: probe
    command: [serve, '80']
    labels: {prometheus.io/port: '80'}
    x-throng:
      autoscale:
        maxReplicas: 3
        metrics:
        - type: Pods
          pods: {metric: {name: info}, target: {type: AverageValue, averageValue: 500m}}
      autoscaler: {syncPeriod: 500ms, sources: {info: {series: probe_info}}}
",
    );
    bench.ok(&["up", "-d", "--wait"]);
    until("each says 1 where half is wanted", || (ready(&bench, "web") == 3).then_some(()));
    let web = described(&bench, "web");
    assert_eq!(web["autoscaler"]["currentMetrics"][0]["current"], "1", "{web}");
    assert_eq!(condition(&web, "ScalingActive").expect("a condition")["reason"], "ValidMetricFound");
    bench.ok(&["describe", "web"]).prints("\"info\" on replicas: 1 / 500m").prints("Max replicas:");
    bench.ok(&["metrics"]).prints("throng_autoscaler_replicas_max{service=\"web\"} 3");
    // By hand, until the next look; and off.
    bench.ok(&["scale", "web=1", "--no-wait"]);
    until("the autoscaler has its way", || (wanted(&bench, "web") == 3).then_some(()));
    bench.ok(&["scale", "web=0"]);
    std::thread::sleep(Duration::from_millis(1_200));
    let off = described(&bench, "web");
    assert_eq!(off["replicas"]["wanted"], 0);
    assert_eq!(condition(&off, "ScalingActive").expect("a condition")["reason"], "ScalingDisabled");
    bench.ok(&["scale", "web=1", "--no-wait"]);
    until("it is on again", || (ready(&bench, "web") == 3).then_some(()));
    // Neither a new supervisor nor the same file changes the count.
    let supervisor = bench.supervisor().expect("a supervisor");
    support::kill(supervisor, Signal::KILL);
    until("it is gone", || (!bench.listens()).then_some(()));
    for _ in 0..10 {
        assert_eq!(wanted(&bench, "web"), 3);
        std::thread::sleep(Duration::from_millis(150));
    }
    bench.ok(&["up", "-d", "--wait"]);
    assert_eq!(wanted(&bench, "web"), 3);
    bench.ok(&["down"]);
    bench.assert_clean();
}

#[test]
fn cpu_of_replicas_is_what_a_cluster_would_measure() {
    let Some(bench) = Bench::with_probe("cpu_of_replicas_is_what_a_cluster_would_measure") else { return };
    bench.compose(
        "
services:
  web:
    image: probe
    command: [spin]
    deploy: {resources: {limits: {cpus: '0.2'}, reservations: {cpus: '0.1'}}}
    x-throng:
      autoscale:
        maxReplicas: 2
        metrics:
        - {type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}
      autoscaler: {syncPeriod: 1s, cpuInitializationPeriod: 0s}
",
    );
    bench.ok(&["up", "-d", "--wait"]);
    let current = until("twice what is requested is used, and so there are two", || {
        let web = described(&bench, "web");
        let current = web["autoscaler"]["currentMetrics"][0]["current"].as_str()?.to_owned();
        (web["replicas"]["ready"] == 2).then_some(current)
    });
    let percent: f64 = current.split('%').next().and_then(|text| text.parse().ok()).expect("a percentage");
    assert!((100.0..=230.0).contains(&percent), "{current}");
}

#[test]
fn a_metric_that_never_comes_is_a_condition_and_changes_nothing() {
    let name = "a_metric_that_never_comes_is_a_condition_and_changes_nothing";
    let Some(bench) = Bench::with_probe(name) else { return };
    let closed = web::free_port();
    bench.compose(&format!(
        "
services:
  web:
    image: probe
    command: [serve, '80']
    deploy: {{replicas: 2}}
    x-throng:
      autoscale:
        maxReplicas: 5
        metrics:
        - {{type: External, external: {{metric: {{name: queue}}, target: {{type: Value, value: 10}}}}}}
      autoscaler: {{syncPeriod: 300ms, sources: {{queue: {{url: 'http://127.0.0.1:{closed}/metrics'}}}}}}
"
    ));
    bench.ok(&["up", "-d", "--wait"]);
    until("somebody is told", || {
        bench.ok(&["events", "--no-follow"]).out.contains("no metric to decide by").then_some(())
    });
    let web = described(&bench, "web");
    assert_eq!(web["replicas"]["wanted"], 2);
    let active = condition(&web, "ScalingActive").expect("a condition");
    assert_eq!((&active["status"], &active["reason"]), (&"False".into(), &"FailedGetExternalMetric".into()));
    bench.ok(&["describe", "web"]).prints("<unknown> / 10").prints(&format!("127.0.0.1:{closed}"));
}

/// Bytes that a replica may have, as the kernel says.
fn memory_limit(bench: &Bench, service: &str, ordinal: u32) -> u64 {
    let name = format!("{}-{service}-{ordinal}", bench.project);
    until("it is measured", || {
        let measured = bench.ok(&["top", "--no-stream", "--format", "json"]).json();
        measured.iter().find(|one| one["Name"] == name.as_str())?["MemoryLimit"].as_u64()
    })
}

#[test]
fn replicas_get_what_is_recommended_as_their_mode_says() {
    const FILE: u64 = 64 << 20;
    const MOST: u64 = 96 << 20;
    let Some(bench) = Bench::with_probe("replicas_get_what_is_recommended_as_their_mode_says") else {
        return;
    };
    let service = |name: &str, mode: &str| {
        format!(
            "
  {name}:
    image: probe
    command: [serve, '80']
    restart: always
    deploy: {{resources: {{limits: {{cpus: '0.5', memory: 64M}}}}}}
    x-throng: {{vertical: {{updateMode: {mode}, minReplicas: 9, maxAllowed: {{memory: 96Mi}}}}}}"
        )
    };
    let services = [("off", "Off"), ("first", "Initial"), ("each", "Recreate")];
    let text: String = services.iter().map(|(name, mode)| service(name, mode)).collect();
    bench.compose(&format!("services:{text}\n"));
    bench.ok(&["up", "-d", "--wait"]);
    until("what they need is known", || {
        services.iter().all(|(name, _)| described(&bench, name)["recommendation"].is_object()).then_some(())
    });
    for (name, _) in services {
        assert_eq!(memory_limit(&bench, name, 1), FILE, "{name}: nobody was stopped for it");
    }
    // One that is made, …
    bench.ok(&["scale", "off=2", "first=2", "each=2"]);
    for (name, expected) in [("off", FILE), ("first", MOST), ("each", MOST)] {
        assert_eq!(memory_limit(&bench, name, 2), expected, "{name}");
    }
    // … and one that is started again.
    for name in ["off", "first", "each"] {
        support::kill(bench.pids(&format!("{name}-1"))[0], Signal::KILL);
    }
    until("all have been started again", || {
        let again = bench.ps().iter().filter(|r| r["Restarts"] == 1 && r["State"] == "running").count();
        (again == 3).then_some(())
    });
    for (name, expected) in [("off", FILE), ("first", FILE), ("each", MOST)] {
        assert_eq!(memory_limit(&bench, name, 1), expected, "{name}");
    }
    let each = described(&bench, "each");
    assert_eq!(
        (&each["vertical"]["updateMode"], &each["vertical"]["given"]),
        (&"Recreate".into(), &2.into())
    );
    assert_eq!(each["vertical"]["next"]["limits"]["memory"], MOST);
    bench
        .ok(&["describe", "each"])
        .prints("Recreate, who starts now requests")
        .prints("2 replicas have other");
    bench.ok(&["events", "--no-follow"]).prints("replicas that start get what is recommended: cpus");
    // The next supervisor knows who has what, and what is to be given.
    std::thread::sleep(Duration::from_millis(2_500));
    support::kill(bench.supervisor().expect("a supervisor"), Signal::KILL);
    until("it is gone", || (!bench.listens()).then_some(()));
    assert_eq!(described(&bench, "each")["vertical"]["given"], 2);
    bench.ok(&["scale", "each=3"]);
    assert_eq!(memory_limit(&bench, "each", 3), MOST);
}

#[test]
fn who_requests_far_too_little_is_replaced_while_half_go_on() {
    const FILE: u64 = 64 << 20;
    const MOST: u64 = 96 << 20;
    let Some(bench) = Bench::with_probe("who_requests_far_too_little_is_replaced_while_half_go_on") else {
        return;
    };
    let service = |name: &str, replicas: u32, mode: &str| {
        format!(
            "
  {name}:
    image: probe
    command: [serve, '80']
    deploy: {{replicas: {replicas}, resources: {{limits: {{cpus: '0.5', memory: 64M}}}}}}
    x-throng: {{vertical: {{updateMode: {mode}, maxAllowed: {{memory: 96Mi}}}}}}"
        )
    };
    let services = [("many", 4, "Recreate"), ("alone", 1, "Recreate"), ("first", 4, "Initial")];
    let text: String = services.iter().map(|(name, count, mode)| service(name, *count, mode)).collect();
    bench.compose(&format!("services:{text}\n"));
    bench.ok(&["up", "-d", "--wait"]);
    let replaced = || -> Vec<String> {
        let told = bench.ok(&["events", "--no-follow"]).out;
        told.lines().filter(|line| line.contains("(EvictedByVPA)")).map(str::to_owned).collect()
    };
    until("half are replaced", || (replaced().len() == 2).then_some(()));
    until("they are back", || (ready(&bench, "many") == 4).then_some(()));
    let limits = |name: &str, count: u32| {
        let mut limits: Vec<u64> = (1..=count).map(|ordinal| memory_limit(&bench, name, ordinal)).collect();
        limits.sort_unstable();
        limits
    };
    assert_eq!(limits("many", 4), [FILE, FILE, MOST, MOST], "the others a minute later");
    assert_eq!((limits("alone", 1), limits("first", 4)), (vec![FILE], vec![FILE; 4]));
    let replaced = replaced();
    assert!(replaced.len() == 2 && replaced.iter().all(|line| line.contains(" many-")), "{replaced:?}");
    assert!(bench.ps().iter().all(|replica| replica["Restarts"] == 0));
}

#[test]
fn names_are_held_at_as_many_ports_as_allowed() {
    let Some(bench) = Bench::with_probe("names_are_held_at_as_many_ports_as_allowed") else { return };
    bench.compose("services:\n  web: {image: probe, command: [serve, '80'], expose: ['80-82']}\n");
    let mut up = bench.command(&["up", "-d", "--wait"]);
    up.env("THRONG_NAME_PORTS", "2");
    assert_eq!(bench.spawn_with(up).wait().code, 0);
    bench
        .ok(&["events", "--no-follow"])
        .prints("requests by name are held at 2 of its 3 ports")
        .prints("THRONG_NAME_PORTS=3");
}

#[test]
fn who_calls_a_service_by_name_is_held_until_it_is_there() {
    let Some(bench) = Bench::with_probe("who_calls_a_service_by_name_is_held_until_it_is_there") else {
        return;
    };
    let sleeper = by_requests(0, 3, "500ms", "");
    // Another one with the same port, so that each has an address of its own; it is ready only when told.
    bench.write("gate/readme", "");
    bench.compose(&format!(
        "{sleeper}
  late:
    image: probe
    command: [serve, '80']
    expose: ['80']
    volumes: ['./gate:/gate']
    healthcheck: {{test: [CMD, /gate/probe, healthy, '80'], interval: 200ms, timeout: 5s, retries: 100}}
  client: {{image: probe, command: [say, up]}}
"
    ));
    let up = bench.spawn(&["up", "-d"]);
    until("the client is there, and nobody else", || {
        let states = bench.states();
        let runs = |name: &str| states.contains(&(name.to_owned(), "running".to_owned()));
        (runs("client-1") && runs("late-1") && !states.iter().any(|(name, _)| name == "web-1")).then_some(())
    });
    let exec =
        |words: &[&str]| bench.ok(&[&["exec", "client", "/probe"], words].concat()).out.trim().to_owned();
    // Nobody publishes that port of `late`, and nobody is ready; the client waits all the same.
    let door = exec(&["resolve", "late"]);
    assert!(!door.is_empty() && door != exec(&["resolve", "late-1"]), "{door}");
    assert_ne!(door, exec(&["resolve", "web"]), "both have the same port");
    let held = bench.spawn(&["exec", "client", "/probe", "get", "late:80", "/"]);
    std::thread::sleep(Duration::from_millis(700));
    std::fs::copy(support::probe(), bench.folder.join("gate/probe")).expect("copied");
    let done = held.wait();
    assert_eq!((done.code, done.out.trim()), (0, "200 late-1"), "{}", done.err);
    assert_eq!(up.wait().code, 0);
    until("the name means the replica once it is ready", || {
        (exec(&["resolve", "late"]) == exec(&["resolve", "late-1"])).then_some(())
    });
    // A replica does not wait for itself.
    let own = bench.ok(&["exec", "late", "/gate/probe", "resolve", "late"]).out.trim().to_owned();
    assert_eq!(own, exec(&["resolve", "late-1"]));

    // One that sleeps is woken up by name, and its name goes past the alarm clock all the time.
    for _ in 0..2 {
        assert_eq!(exec(&["get", "web:80", "/"]), "200 web-1");
        until("it sleeps again", || (!bench.states().iter().any(|(name, _)| name == "web-1")).then_some(()));
    }
    bench.ok(&["events", "--no-follow"]).prints("new size 1: a request waits at its address");
    // Requests by name count: while one is under way nobody goes.
    let busy = bench.spawn(&["exec", "client", "/probe", "get", "web:80", "/slow?6000"]);
    let done = busy.wait();
    assert_eq!((done.code, done.out.trim()), (0, "200 web-1"), "{}", done.err);
    // The next supervisor listens at the same addresses.
    let before = (exec(&["resolve", "web"]), door);
    support::kill(bench.supervisor().expect("a supervisor"), Signal::KILL);
    until("it is gone", || (!bench.listens()).then_some(()));
    assert_eq!(wanted(&bench, "late"), 1);
    assert_eq!(exec(&["resolve", "web"]), before.0);
    until("it answers again", || {
        let done = bench.run(&["exec", "client", "/probe", "get", &format!("{}:80", before.1), "/"]);
        done.out.contains("200 late-1").then_some(())
    });
    assert_eq!(exec(&["get", "web:80", "/"]), "200 web-1");
    bench.ok(&["down"]);
    bench.assert_clean();
}
