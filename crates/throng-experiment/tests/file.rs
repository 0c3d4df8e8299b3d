//! Experiment files: what they mean, and what is said about wrong ones.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use throng_experiment::file::{Action, Experiment, Fault, StageSpec, WaitFor, parse};
use throng_load::{Arrivals, ImageFormat, ImageSpec, Requests, Schedule};
use throng_model::app::{App, ExposedPort, Port, Protocol, Service};
use throng_model::diagnostic::Diagnostic;
use throng_model::fault::{Portion, ReplicaFault, Victims};
use throng_model::node::{LinkChange, Node, NodeChange, NodeChoice};

/// `web` publishes one port, `two` exposes two, `db` has none.
fn app() -> App {
    let published = |target| Port {
        host_ip: None,
        published: Some(target),
        target,
        protocol: Protocol::Tcp,
        app_protocol: None,
    };
    let exposed = |port| ExposedPort { port, protocol: Protocol::Tcp };
    let service = |name: &str, ports: Vec<Port>, expose: Vec<ExposedPort>| {
        let service = Service { name: name.into(), image: "a".into(), ports, expose, ..Service::default() };
        (name.to_owned(), service)
    };
    App {
        name: "shop".into(),
        services: BTreeMap::from([
            service("web", vec![published(8080)], Vec::new()),
            service("two", Vec::new(), vec![exposed(1), exposed(2)]),
            service("db", Vec::new(), Vec::new()),
        ]),
        ..App::default()
    }
}

type Parsed = Result<(Experiment, Vec<Diagnostic>), Vec<Diagnostic>>;

fn parse_with(text: &str, set: &[(&str, &str)]) -> Parsed {
    let set = set.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    parse(Path::new("experiment.yaml"), text, &app(), &set)
}

#[track_caller]
fn check_with(text: &str, set: &[(&str, &str)], expected: &str) {
    let findings = match parse_with(text, set) {
        Ok((_, warnings)) => warnings,
        Err(findings) => findings,
    };
    let lines: Vec<String> = findings.iter().map(ToString::to_string).collect();
    assert_eq!(lines.join("\n"), expected.trim_end(), "\n{text}");
}

#[track_caller]
fn check(text: &str, expected: &str) {
    check_with(text, &[], expected);
}

/// Checks one stage after `up`; it begins in column 5 of line 3.
#[track_caller]
fn check_stage(stage: &str, expected: &str) {
    check(&format!("stages:\n  - up:\n  - {stage}\n"), expected);
}

#[track_caller]
fn action(stage: &str) -> Action {
    let text = format!("stages:\n  - up:\n  - {stage}\n");
    let (experiment, warnings) = parse_with(&text, &[]).expect(stage);
    assert_eq!(warnings, [], "{stage}");
    experiment.stages[1].action.clone()
}

#[test]
fn the_example_is_the_classic_exercise() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/pdfmagic");
    let options = throng_compose::LoadOptions { directory: root.clone(), ..Default::default() };
    let loaded = throng_compose::load(&options).expect("the example's Compose file");
    assert_eq!(loaded.warnings, []);
    let text = std::fs::read_to_string(root.join("experiment.yaml")).expect("the example's experiment");
    let set = BTreeMap::from([("clients".to_owned(), "50".to_owned())]);
    let (experiment, warnings) =
        parse(Path::new("experiment.yaml"), &text, &loaded.app, &set).expect("no errors");
    assert_eq!(warnings, []);
    let names: Vec<&str> = experiment.stages.iter().map(|stage| stage.name.as_str()).collect();
    assert_eq!(
        names,
        ["start", "one client", "50 clients, one replica", "scale to 3", "50 clients, 3 replicas"]
    );
    assert!(experiment.stages.iter().all(|stage| stage.explain.is_some()));
    let Action::Load(load) = &experiment.stages[2].action else { panic!("the third stage is a load") };
    assert_eq!(
        load.schedule,
        Schedule::Closed {
            clients: 50,
            requests: Requests::PerClient(100),
            think: Duration::from_millis(10)
        }
    );
    assert_eq!((load.service.as_deref(), load.port), (Some("web"), Some(8080)));
    assert_eq!((load.method.as_str(), load.field.as_deref()), ("POST", Some("myfile")));
    let picture = ImageSpec { width: 640, height: 480, format: ImageFormat::Png };
    assert_eq!(load.image, Some(picture));
}

#[test]
fn actions_mean_what_they_say() {
    assert_eq!(
        action("scale: {service: web, replicas: 3}"),
        Action::Scale { service: "web".into(), replicas: 3 }
    );
    assert_eq!(action("pause: 1m30s"), Action::Pause { duration: Duration::from_secs(90) });
    assert_eq!(
        action("wait: {service: web, ready: 3}"),
        Action::Wait {
            until: WaitFor::Ready { service: "web".into(), replicas: 3 },
            timeout: Duration::from_secs(60)
        }
    );
    assert_eq!(
        action("wait: {url: 'http://a:1/b', status: 204, timeout: 5s}"),
        Action::Wait {
            until: WaitFor::Answer { url: "http://a:1/b".into(), status: Some(204) },
            timeout: Duration::from_secs(5)
        }
    );
    assert_eq!(
        action("wait: {service: db, log: ready to accept}"),
        Action::Wait {
            until: WaitFor::Log { service: "db".into(), text: "ready to accept".into() },
            timeout: Duration::from_secs(60)
        }
    );
}

#[test]
fn loads_have_a_closed_or_an_open_loop() {
    let schedule = |stage: &str| match action(stage) {
        Action::Load(load) => load.schedule,
        other => panic!("{other:?} is no load"),
    };
    let think = Duration::ZERO;
    assert_eq!(
        schedule("load: {service: web, clients: 5, requests: 10}"),
        Schedule::Closed { clients: 5, requests: Requests::PerClient(10), think }
    );
    assert_eq!(
        schedule("load: {service: web, duration: 10s}"),
        Schedule::Closed { clients: 1, requests: Requests::For(Duration::from_secs(10)), think }
    );
    assert_eq!(
        schedule("load: {service: web, rate: 2.5, duration: 10s, arrivals: poisson, connections: 4}"),
        Schedule::Open {
            rate: 2.5,
            duration: Duration::from_secs(10),
            arrivals: Arrivals::Poisson,
            max_connections: 4
        }
    );
}

#[test]
fn repetitions_are_the_files_unless_the_stage_has_its_own() {
    let text = "repetitions: 3
stages:
  - up:
  - load: {service: web, requests: 1}
  - load: {service: web, requests: 2}
    repeat: 5
";
    let (experiment, _) = parse_with(text, &[]).unwrap();
    let repeats: Vec<u32> = experiment.stages.iter().map(|stage| stage.repeat).collect();
    assert_eq!(repeats, [1, 3, 5]);
}

#[test]
fn variables() {
    let text =
        "variables: {n: 2, unused: 1}\nstages:\n  - up:\n  - scale: {service: web, replicas: '${n}'}\n";
    check(text, r#"experiment.yaml:1:19: warning: the variable "unused" is never used"#);
    check_with(
        text,
        &[("m", "3")],
        r#"experiment.yaml:1:19: warning: the variable "unused" is never used
error: --set m=3: the experiment has no variable "m" (hint: it has n, unused)"#,
    );
    check_with(
        text,
        &[("n", "x")],
        r#"experiment.yaml:1:19: warning: the variable "unused" is never used
experiment.yaml:4:37: error: expected a whole number from 0 to 100000, found "x""#,
    );
    check(
        "variables: {1n: 2}\nstages: [{pause: '${x}s'}]",
        r#"experiment.yaml:1:13: error: "1n" is not a name of a variable (hint: use letters, digits and _, and do not begin with a digit)
experiment.yaml:1:13: warning: the variable "1n" is never used
experiment.yaml:2:19: error: unknown variable "x" (hint: add it under variables, or write $$ for a dollar sign; it has 1n)"#,
    );
    let (experiment, _) = parse_with(text, &[("n", "7")]).unwrap();
    assert_eq!(experiment.stages[1].action, Action::Scale { service: "web".into(), replicas: 7 });
    assert_eq!(experiment.variables["n"], "7");
}

#[test]
fn wrong_files() {
    check("", r#"experiment.yaml:1:1: error: the file is empty (hint: an experiment has at least "stages")"#);
    check("[]", "experiment.yaml:1:1: error: expected a mapping, found a list");
    check(
        "title: x",
        "experiment.yaml:1:1: error: the experiment has no stages (hint: add a list of stages: up, scale, load, wait, pause or a fault)",
    );
    check("stages: []", "experiment.yaml:1:9: error: an experiment has 1 to 1000 stages, this one has 0");
    check("stages: {up: }", "experiment.yaml:1:9: error: expected a list, found a mapping");
    check(
        "stags: []",
        r#"experiment.yaml:1:1: error: unknown key "stags" of the experiment (hint: did you mean "stages"?)
experiment.yaml:1:1: error: the experiment has no stages (hint: add a list of stages: up, scale, load, wait, pause or a fault)"#,
    );
    check(
        "stages:\n  - scale: {service: web, replicas: 1}\n  - pause: 1s\n",
        r#"experiment.yaml:2:5: error: this stage needs the app, which no stage before it brings up (hint: put a stage "- up:" first)"#,
    );
    check(
        "stages: [{up: }, {pause: 1s, name: a}, {pause: 2s, name: a}]",
        r#"experiment.yaml:1:40: error: two stages are called "a"; experiment.yaml:1:18: the first one (hint: give each a name: of its own; the report tells them apart by it)"#,
    );
    check(
        "repetitions: 0\nstages: [up: ]",
        r#"experiment.yaml:1:14: error: expected a whole number from 1 to 1000, found "0""#,
    );
}

/// `far` and `near` are virtual nodes, and the disks of `db` have a limit.
fn app_with_nodes() -> App {
    let mut app = app();
    let node = |label: &str, region: &str| Node {
        labels: BTreeMap::from([("kind".to_owned(), label.to_owned())]),
        region: Some(region.to_owned()),
        ..Node::default()
    };
    app.nodes = BTreeMap::from([("far".into(), node("edge", "shed")), ("near".into(), node("big", "house"))]);
    app.services.get_mut("db").expect("a service").resources.disk = Some(1 << 20);
    app
}

/// What a stage with faults is read as, or the findings, one a line.
fn fault_stage(stage: &str) -> Result<StageSpec, String> {
    let text = format!("stages:\n  - up:\n  - {stage}\n");
    match parse(Path::new("experiment.yaml"), &text, &app_with_nodes(), &BTreeMap::new()) {
        Ok((experiment, warnings)) => {
            assert_eq!(warnings, [], "{stage}");
            Ok(experiment.stages[1].clone())
        }
        Err(findings) => Err(findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")),
    }
}

#[test]
fn faults_mean_what_they_say() {
    let seconds = Duration::from_secs;
    let victims = |portion, seed| Victims { portion, seed, ..Victims::all_of("web") };
    let of = |victims, fault, lasts| Fault::Replicas { victims, fault, lasts };
    let nodes = |choice, change, lasts| Fault::Nodes { choice, change, lasts };
    let labels = BTreeMap::from([("kind".to_owned(), "edge".to_owned())]);
    let by_label = NodeChoice { labels, ..NodeChoice::default() };
    let region = NodeChoice { regions: vec!["shed".into()], ..NodeChoice::default() };
    let slower = LinkChange { latency: Some(seconds(1)), loss: Some(0.01), ..LinkChange::default() };
    for (stage, fault, title) in [
        ("kill: {service: web}", of(victims(Portion::ALL, None), ReplicaFault::KILL, None), "kill web"),
        (
            "stop: {service: web, share: 2, seed: 7, for: 20s}",
            of(victims(Portion::Count(2), Some(7)), ReplicaFault::Stop { grace: None }, Some(seconds(20))),
            "stop 2 of web for 20s",
        ),
        (
            "pause: {service: web, share: 30%}",
            of(victims(Portion::Share(0.3), None), ReplicaFault::Pause, None),
            "pause 30 % of web",
        ),
        (
            "unpause: {service: web}",
            of(victims(Portion::ALL, None), ReplicaFault::Unpause, None),
            "unpause web",
        ),
        ("start: {service: web}", of(victims(Portion::ALL, None), ReplicaFault::Start, None), "start web"),
        (
            "fill: {service: web, size: 64m, for: 1m}",
            of(victims(Portion::ALL, None), ReplicaFault::Fill { bytes: Some(64 << 20) }, Some(seconds(60))),
            "fill 64.0 MiB of the disks of web for 1m",
        ),
        (
            "fill: {service: db}",
            of(Victims::all_of("db"), ReplicaFault::Fill { bytes: None }, None),
            "fill the disks of db",
        ),
        (
            "empty: {service: db}",
            of(Victims::all_of("db"), ReplicaFault::Empty, None),
            "give back the disks of db",
        ),
        (
            "cut: {labels: {kind: edge}, for: 5s}",
            nodes(by_label, NodeChange::cut(), Some(seconds(5))),
            "cut nodes with kind=edge off for 5s",
        ),
        ("heal: {nodes: [far]}", nodes(NodeChoice::one("far"), NodeChange::Heal, None), "heal far"),
        (
            "slow: {region: shed, latency: 1s, loss: 1%}",
            nodes(region, NodeChange::Link(slower), None),
            "slow region shed down",
        ),
    ] {
        let read = fault_stage(stage).expect(stage);
        assert_eq!((read.action, read.name.as_str()), (Action::Fault(fault), title), "{stage}");
    }
    let load = "{load: {service: web, rate: 1, duration: 9s}, during: [{at: 5s, pause: {service: web, for: 1s}}, \
                {at: 2s, cut: {nodes: [far]}}], require: [errors<1%, no request lost, recovered within 30s]}";
    let read = fault_stage(load).expect(load);
    let times: Vec<(u64, bool)> =
        read.during.iter().map(|(at, fault)| (at.as_secs(), fault.harms())).collect();
    assert_eq!((times, read.require.len()), (vec![(2, true), (5, true)], 3));
    assert_eq!(
        fault_stage("{kill: {service: web}, require: [recovered within 9s]}").expect("read").require.len(),
        1
    );
}

#[test]
fn wrong_faults() {
    for (stage, expected) in [
        ("kill: {}", "3:11: error: kill without service"),
        (
            "pause: {service: wbe}",
            "3:22: error: the app has no service \"wbe\" (hint: did you mean \"web\"?)",
        ),
        (
            "stop: {service: web, share: some}",
            "3:33: error: \"some\" is neither a share, as in 30%, nor a number of replicas",
        ),
        ("kill: {service: web, share: 101%}", "3:33: error: \"101%\" is not a percentage from 0% to 100%"),
        ("kill: {service: web, for: 2s}", "3:26: error: unknown key \"for\" of kill"),
        ("stop: {service: web, for: 0s}", "3:26: error: a fault that lasts no time (hint: leave it out"),
        (
            "fill: {service: web}",
            "3:21: error: the disks of web have no limit up to which they could be filled (hint: add size: such as 64m",
        ),
        ("fill: {service: db, size: 0}", "3:31: error: nothing fills no disk"),
        (
            "cut: {}",
            "3:10: error: a fault that befalls no node (hint: give nodes: as a list of names, region: or",
        ),
        ("cut: {labels: {kind: egde}}", "3:19: error: the app has no node with kind=egde"),
        ("cut: {region: shde}", "3:19: error: the app has no region \"shde\" (hint: did you mean \"shed\"?)"),
        ("slow: {nodes: [far]}", "3:11: error: a link that is slowed by nothing"),
        ("slow: {nodes: [far], latency: 2m}", "3:35: error: the longest latency is 1m"),
        ("slow: {nodes: [far], bandwidth: 1bit}", "3:37: error: a link has from 8 kbit to 100 Gbit a second"),
        (
            "{kill: {service: web}, require: [no request lost]}",
            "3:38: error: \"no request lost\" is about a load (hint: put the fault under during of a load",
        ),
        (
            "{load: {service: web, requests: 1}, require: [recovered within 5s]}",
            "3:51: error: nothing happens here to recover from",
        ),
        (
            "{load: {service: web, requests: 1}, require: [recovered in 5s]}",
            "3:51: error: \"recovered in 5s\" is not understood (hint: write a threshold such as",
        ),
    ] {
        let found = fault_stage(stage).expect_err(stage);
        let expected = format!("experiment.yaml:{expected}");
        assert!(found.starts_with(&expected), "{stage}\n found {found}\nwanted {expected}");
        assert_eq!(found.lines().count(), 1, "{stage}: {found}");
    }
}

#[test]
fn there_is_an_end_to_faults_and_times() {
    let faults = "{at: 1s, kill: {service: web}},".repeat(1_001);
    let found =
        fault_stage(&format!("{{load: {{service: web, rate: 1, duration: 9s}}, during: [{faults}]}}"));
    assert_eq!(
        found.expect_err("too many"),
        "experiment.yaml:3:59: error: a load has at most 1000 faults, this one has 1001 (hint: make several loads of it)"
    );
    // What would lie beyond the end of all clocks.
    for stage in [
        "stop: {service: web, for: 18446744073709551615s}",
        "{load: {service: web, rate: 1, duration: 9s}, during: [{at: 3000000h, kill: {service: web}}]}",
        "{kill: {service: web}, require: [recovered within 3000000h]}",
        "{kill: {service: web}, require: [recovered within 1s for 3000000h]}",
        "pause: 18446744073709551615s",
    ] {
        let found = fault_stage(stage).expect_err(stage);
        assert!(found.contains("is longer than 292 years") && found.lines().count() == 1, "{found}");
    }
}

#[test]
fn wrong_stages() {
    check_stage(
        "{}",
        "experiment.yaml:3:5: error: a stage that does nothing (hint: add one of up, scale, load, wait, pause, cut, slow, heal, kill, stop, start, unpause, fill, empty)",
    );
    check_stage(
        "{pause: 1s, up: }",
        "experiment.yaml:3:5: error: a stage does one thing, this one does up and pause (hint: make a stage of each)",
    );
    check_stage("up: now", r#"experiment.yaml:3:9: error: "up" takes no value (hint: write "up:" alone)"#);
    check_stage("pause:", r#"experiment.yaml:3:5: error: "pause" has no value"#);
    check_stage(
        "pause: 5",
        r#"experiment.yaml:3:12: error: "5" is not a duration; write numbers with units, as in 1m30s or 200ms"#,
    );
    check_stage(
        "puase: 5s",
        r#"experiment.yaml:3:5: error: a stage that does nothing (hint: add one of up, scale, load, wait, pause, cut, slow, heal, kill, stop, start, unpause, fill, empty)
experiment.yaml:3:5: error: unknown key "puase" of a stage (hint: did you mean "pause"?)"#,
    );
    check_stage(
        "scale: {service: wbe, replicas: 1}",
        r#"experiment.yaml:3:22: error: the app has no service "wbe" (hint: did you mean "web"?)"#,
    );
    check_stage("scale: {service: web}", "experiment.yaml:3:12: error: scale without replicas");
    check_stage(
        "scale: {service: web, replicas: -1}",
        r#"experiment.yaml:3:37: error: expected a whole number from 0 to 100000, found "-1""#,
    );
    check_stage("scale: web", r#"experiment.yaml:3:12: error: expected a mapping, found "web""#);
    check_stage(
        "wait: {}",
        "experiment.yaml:3:11: error: wait needs exactly one condition (hint: give one of ready, log (each with service) and url)",
    );
    check_stage(
        "wait: {ready: 1}",
        r#"experiment.yaml:3:11: error: "ready" needs a service (hint: add service: with one of db, two, web)"#,
    );
    check_stage(
        "wait: {service: web, ready: 1, log: x}",
        "experiment.yaml:3:11: error: wait needs exactly one condition (hint: give one of ready, log (each with service) and url)",
    );
    check_stage(
        "wait: {service: web, ready: 1, status: 200}",
        r#"experiment.yaml:3:36: error: "status" belongs to "url""#,
    );
    check_stage(
        "wait: {url: 'ftp://x'}",
        r#"experiment.yaml:3:17: error: "ftp://x" is no address to send requests to (hint: write it as http://HOST:PORT/PATH)"#,
    );
    check_stage(
        "{pause: 1s, require: ['p95<1s'], repeat: 2}",
        r#"experiment.yaml:3:17: error: "require" is only for stages with a load or a fault
experiment.yaml:3:38: error: "repeat" is only for stages with a load"#,
    );
}

#[test]
fn wrong_loads() {
    check_stage(
        "load: {requests: 1}",
        "experiment.yaml:3:11: error: a load without a target (hint: add service: with one of db, two, web, or url:)",
    );
    check_stage(
        "load: {service: web, url: 'http://a', requests: 1}",
        "experiment.yaml:3:31: error: a load goes to a service or to a url (hint: keep one)",
    );
    check_stage(
        "load: {url: 'http://a', path: /x, requests: 1}",
        r#"experiment.yaml:3:29: error: "path" does not go with "url" (hint: put the path into the url)"#,
    );
    check_stage(
        "load: {service: db, requests: 1}",
        r#"experiment.yaml:3:12: error: the service "db" neither publishes nor exposes a TCP port (hint: add the port under ports or expose in the Compose file)"#,
    );
    check_stage(
        "load: {service: two, requests: 1}",
        r#"experiment.yaml:3:12: error: the service "two" has several ports: 1, 2 (hint: say which with port:)"#,
    );
    check_stage(
        "load: {service: two, port: 3, requests: 1}",
        r#"experiment.yaml:3:26: error: the service "two" neither publishes nor exposes port 3 (hint: it has 1, 2; the number is the one inside the service)"#,
    );
    check_stage(
        "load: {service: db, port: 3, requests: 1}",
        r#"experiment.yaml:3:25: error: the service "db" neither publishes nor exposes port 3 (hint: add "3" under ports or expose of db in the Compose file)"#,
    );
    check_stage(
        "load: {service: web}",
        "experiment.yaml:3:11: error: a load that does not say how much (hint: add requests: (of each client), or duration:, or rate: and duration:)",
    );
    check_stage(
        "load: {service: web, requests: 1, duration: 1s}",
        r#"experiment.yaml:3:26: error: "requests" does not go with "duration""#,
    );
    check_stage(
        "load: {service: web, rate: 5}",
        r#"experiment.yaml:3:32: error: "rate" without duration (hint: add duration: such as 30s)"#,
    );
    check_stage(
        "load: {service: web, rate: 5, duration: 1s, clients: 2}",
        r#"experiment.yaml:3:49: error: "clients" does not go with "rate" (hint: clients, requests and think make a closed loop; rate, duration, arrivals and connections an open one)"#,
    );
    check_stage(
        "load: {service: web, requests: 5, arrivals: poisson}",
        r#"experiment.yaml:3:39: error: "arrivals" goes only with "rate" (hint: clients, requests and think make a closed loop; rate, duration, arrivals and connections an open one)"#,
    );
    check_stage(
        "load: {service: web, rate: -5, duration: 0s}",
        r#"experiment.yaml:3:32: error: expected a number of requests per second above 0, found "-5"
experiment.yaml:3:46: error: a load of no length measures nothing"#,
    );
    check_stage(
        "load: {service: web, clients: 0, requests: many}",
        r#"experiment.yaml:3:35: error: expected a whole number from 1 to 100000, found "0"
experiment.yaml:3:48: error: expected a whole number from 1 to 1000000000000, found "many""#,
    );
    check_stage(
        "load: {service: web, requests: 1, image: big}",
        r#"experiment.yaml:3:46: error: "big" is not a picture's size (hint: write WIDTHxHEIGHT, as in 640x480 or 640x480.png: each from 1 to 65535, and at most 50000000 pixels)"#,
    );
    check_stage(
        "load: {service: web, requests: 1, image: 60000x60000}",
        "experiment.yaml:3:46: error: 60000 × 60000 pixels are not between 1 and 50000000 (hint: choose another size)",
    );
    check_stage(
        "load: {service: web, requests: 1, image: 1x1, body: x}",
        "experiment.yaml:3:51: error: a request has one body (hint: keep body or image)",
    );
    check_stage(
        "load: {service: web, requests: 1, field: x}",
        r#"experiment.yaml:3:39: error: "field" names the file of a form (hint: add image: with a size)"#,
    );
    check_stage(
        "load: {service: web, requests: 1, path: x, method: 'G T'}",
        r#"experiment.yaml:3:39: error: a path begins with / and has no spaces; write %20 for a space
experiment.yaml:3:48: error: "G T" is not a method of HTTP"#,
    );
    check_stage(
        "load: {service: web, requests: 1, headers: {'a b': c}, success: 7xx}",
        r#"experiment.yaml:3:49: error: "a b" is not a header field
experiment.yaml:3:69: error: "7xx" does not say which statuses are success (hint: write statuses, classes or ranges, as in 2xx,304 or 200-299)"#,
    );
    check_stage(
        "load: {service: web, requests: 1, headers: {content-Length: 3}}",
        r#"experiment.yaml:3:49: error: "content-Length" follows from the body and cannot be given"#,
    );
    check_stage(
        "load: {service: web, rate: .inf, duration: 1s}",
        r#"experiment.yaml:3:32: error: expected a number of requests per second above 0, found ".inf""#,
    );
    check_stage(
        "load: {service: web, rate: 1e9, duration: 1s}",
        "experiment.yaml:3:32: error: a load sends at most 5000000 requests per second",
    );
    check_stage(
        "load: {service: web, requests: 1, timeout: 0, clinets: 3}",
        r#"experiment.yaml:3:39: error: a time limit of 0 fails every request
experiment.yaml:3:51: error: unknown key "clinets" of load (hint: did you mean "clients"?)"#,
    );
    check_stage(
        "{load: {service: web, requests: 1}, require: [p95, 'speed>1', 'errors<1s']}",
        r#"experiment.yaml:3:51: error: the threshold "p95" has no comparison out of <, <=, >, >=, == (hint: write METRIC, a comparison and a bound, as in p95<200ms, errors<1%, errors<=3 or rate>100/s)
experiment.yaml:3:56: error: the threshold "speed>1" is about "speed", which is not measured (hint: write METRIC, a comparison and a bound, as in p95<200ms, errors<1%, errors<=3 or rate>100/s)
experiment.yaml:3:67: error: the threshold "errors<1s" has the bound "1s", which errors cannot be compared with (hint: write METRIC, a comparison and a bound, as in p95<200ms, errors<1%, errors<=3 or rate>100/s)"#,
    );
}

#[test]
fn the_published_schema_is_the_readers() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/experiment.schema.json");
    let schema = serde_json::to_string_pretty(&throng_experiment::schema::json_schema()).unwrap() + "\n";
    if std::env::var_os("THRONG_UPDATE_DOCS").is_some() {
        std::fs::write(&path, &schema).unwrap();
    }
    let published = std::fs::read_to_string(&path).unwrap();
    assert_eq!(published, schema, "run the tests with THRONG_UPDATE_DOCS=1 to write {}", path.display());
}

#[test]
fn the_documentation_explains_every_key() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/experiment.md");
    let text = std::fs::read_to_string(&path).unwrap();
    for (heading, table) in throng_experiment::schema::markdown_tables() {
        assert!(text.contains(&table), "{} lacks the table of {heading}; it is:\n{table}", path.display());
    }
}

#[test]
fn the_documentations_example_is_good() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/experiment.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let example = text.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    check(example, "");
}

proptest::proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in "\\PC{0,200}") {
        drop(parse_with(&text, &[("a", "b")]));
    }

    #[test]
    fn no_change_of_a_good_file_makes_the_reader_panic(
        at in 0usize..2_000, length in 0usize..40, with in "[\\[\\]{}:,&*<!\"'$0-9a-z \n-]{0,12}"
    ) {
        let text = include_str!("../../../examples/pdfmagic/experiment.yaml");
        let floor = |at: usize| (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let (from, to) = (floor(at), floor(at + length));
        let text = format!("{}{with}{}", &text[..from], &text[to..]);
        drop(parse_with(&text, &[]));
    }
}
