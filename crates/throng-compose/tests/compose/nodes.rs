//! Virtual nodes and where replicas may be.

use crate::common::{check, load};
use std::time::Duration;
use throng_model::node::Link;

#[test]
fn what_is_wrong_about_nodes_is_told_at_its_place() {
    check(
        "services:
  web:
    image: web
    x-throng: {node: aa}
    deploy:
      placement:
        constraints: [node.labels.kind = edge, node.rol == x]
x-throng:
  node: {}
  nodes:
    a: {labels: {k: v}}
    b: {cpus: 1, link: {latency: -5ms, loss: 101%, bandwith: 1mbit}}
    c: {memory: 0}
    d: {cpus: 2, link: {latency: 1ms, jitter: 2ms, bandwidth: 1bit}}
    e: {cpus: 1, count: 2, names: [x]}
    f-1: {cpus: 1}
    f: {cpus: 1, count: 1}
",
        r#"compose.yaml:4:22: error: unknown node "aa" (hint: declare it under x-throng.nodes at the top of the file)
compose.yaml:7:23: error: "node.labels.kind = edge" is not a constraint (hint: write it as node.labels.kind == edge, or with !=)
compose.yaml:7:48: error: placement cannot look at "node.rol" of a node (hint: there are node.labels.KEY, node.hostname, node.platform.arch, node.platform.os, node.role, node.region)
compose.yaml:9:3: error: unknown key "node" (hint: did you mean nodes?)
compose.yaml:11:5: error: the node "a" has no capacity (hint: give it cpus, memory or replicas, or several of them)
compose.yaml:12:34: error: a negative latency (hint: no packet arrives before it was sent)
compose.yaml:12:46: error: "101%" is not a percentage from 0% to 100%, as in 1% or 0.5%
compose.yaml:12:52: error: unknown key "bandwith" (hint: did you mean bandwidth?)
compose.yaml:13:17: error: a node with nothing of it has no capacity (hint: leave it out for no limit)
compose.yaml:14:47: error: the jitter is larger than the latency (hint: jitter spreads the latency in both directions)
compose.yaml:14:63: error: a link has from 8 kbit to 100 Gbit a second
compose.yaml:15:25: error: "count" does not go with "names" (hint: keep one)
compose.yaml:17:5: error: two nodes are called "f-1""#,
    );
}

#[test]
fn placement_without_nodes_is_a_warning() {
    check(
        "services: {web: {image: web, deploy: {placement: {constraints: [node.role == worker]}}}}\n",
        "compose.yaml:1:50: warning: there are no nodes to place replicas on (hint: declare nodes under x-throng.nodes; \
         with --on docker:N replicas are spread over its nodes)",
    );
}

#[test]
fn nodes_are_read_and_written_as_they_are_meant() {
    let text = "services:
  web:
    image: web
    x-throng: {node: kitchen}
    deploy:
      mode: global
      placement:
        constraints: [node.labels.kind==pi, 'node.platform.arch != x86_64']
        preferences: [{spread: node.region}]
        max_replicas_per_node: 2
x-throng:
  unreachable_after: 5s
  nodes:
    pi:
      count: 2
      cpus: 4
      memory: 8g
      architecture: aarch64
      labels: [kind=pi]
      region: house
      link: {latency: 1500us, jitter: 1ms, loss: 0.1%, bandwidth: 100mbit, up: false}
    other: {names: [kitchen, attic], replicas: 3}
";
    let app = load(text);
    assert_eq!(app.nodes.keys().collect::<Vec<_>>(), ["attic", "kitchen", "pi-1", "pi-2"]);
    let pi = &app.nodes["pi-2"];
    assert_eq!(
        (pi.capacity.cpus, pi.capacity.memory, pi.architecture.as_str()),
        (Some(4.0), Some(8 << 30), "arm64")
    );
    let link = Link {
        latency: Duration::from_micros(1_500),
        jitter: Duration::from_millis(1),
        loss: 0.001,
        bandwidth: Some(100_000_000),
        up: false,
    };
    assert_eq!(pi.link, link);
    assert_eq!(pi.link.to_string(), "down, 1.5ms ± 1ms, loss 0.1 %, 100 Mbit/s");
    assert_eq!(app.unreachable_after, Some(Duration::from_secs(5)));
    let placement = &app.services["web"].placement;
    assert!(placement.on_each && placement.most_per_node == Some(2));
    let constraints: Vec<String> = placement.constraints.iter().map(ToString::to_string).collect();
    assert_eq!(
        constraints,
        ["node.labels.kind == pi", "node.platform.arch != x86_64", "node.hostname == kitchen"]
    );
    assert_eq!(load(&throng_compose::to_yaml(&app)), app);
}
