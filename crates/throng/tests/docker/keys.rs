//! Keys of Compose files from the text to what a replica on Docker sees.

use crate::support::registry::Registry;
use crate::support::{Bench, until};
use crate::there::There;

/// What a command in the first replica of a service prints.
#[track_caller]
fn inside(there: &There, service: &str, args: &[&str]) -> String {
    there.ok(&[&["exec", service, "/probe"], args].concat()).out
}

/// Networks of other tests have other subnets.
const ADDRESSED: &str = "
services:
  web: {image: probe, command: [serve, '80'], networks: {front: {ipv4_address: 10.79.43.7}, back: }}
  many: {image: probe, command: [serve, '80'], networks: [front], deploy: {replicas: 3}}
networks:
  front:
    ipam:
      config:
        - {subnet: 10.79.43.0/24, ip_range: 10.79.43.64/28, gateway: 10.79.43.254, aux_addresses: {kept: 10.79.43.65}}
  back: {internal: true}
";

#[test]
fn a_service_on_docker_has_the_address_that_it_asks_for() {
    let name = "a_service_on_docker_has_the_address_that_it_asks_for";
    let Some(there) = There::new(name, "thr-adr", 25) else { return };
    there.bench.compose(ADDRESSED);
    there.ok(&["--on", "docker", "up", "-d", "--wait"]);
    let front = format!("{}_front", there.bench.project);
    let address =
        |replica: &str| there.container(replica)["NetworkSettings"]["Networks"][&front]["IPAddress"].clone();
    assert_eq!(address("web-1"), "10.79.43.7");
    let many = ["many-1", "many-2", "many-3"].map(address);
    assert_eq!(many, ["10.79.43.64", "10.79.43.66", "10.79.43.67"]);
    let gateway = &there.container("web-1")["NetworkSettings"]["Networks"][&front]["Gateway"];
    assert_eq!(gateway, "10.79.43.254");
    let get = |what: &str| inside(&there, "many", &["get", what, "/"]);
    assert_eq!((get("10.79.43.7:80"), get("web:80")), ("200 web-1\n".into(), "200 web-1\n".into()));
    there.ok(&["up", "-d", "--wait", "--force-recreate"]);
    assert_eq!(address("web-1"), "10.79.43.7", "its successor has it, too");
    there.kill_supervisor();
    there.ok(&["kill", "web"]);
    there.ok(&["up", "-d", "--wait", "--force-recreate", "web"]);
    assert_eq!(address("web-1"), "10.79.43.7");
    let refused = "2 replicas of web cannot all have the address 10.79.43.7";
    there.fails(2, &["scale", "web=2"]).says(refused);

    // Whoever else wants that subnet of this daemon is told where it asks for it.
    let other = Bench::with_probe(name).expect("as the first");
    other.compose(&ADDRESSED.replace("10.79.43.0/24", "10.79.0.0/16"));
    let mut command = other.command(&["--on", "docker", "up", "-d"]);
    command.env("DOCKER_HOST", there.daemon.host());
    let done = other.spawn_with(command).wait();
    assert_eq!(done.code, 2, "{}", done.err);
    done.says("compose.yaml:10:20: ").says("ool overlaps").says("hint: choose another subnet");
    other.assert_clean();
    there.down();
}

/// On nodes of `docker:N` each node takes one of the last addresses of a network and answers for none, so that a replica
/// may have it.
#[test]
fn a_replica_on_a_node_has_the_address_that_it_asks_for() {
    let name = "a_replica_on_a_node_has_the_address_that_it_asks_for";
    let Some(there) = There::new(name, "thr-nad", 26) else { return };
    there.bench.compose(
        "
services:
  web: {image: probe, command: [serve, '80'], networks: {front: {ipv4_address: 10.79.44.254}}}
  many: {image: probe, command: [serve, '80'], networks: [front], deploy: {replicas: 2}}
  work: {image: probe, command: [env, JOB_COMPLETION_INDEX], x-throng: {job: {completions: 4, parallelism: 2}}}
networks: {front: {ipam: {config: [{subnet: 10.79.44.0/24}]}}}
",
    );
    there.ok(&["--on", "docker:2", "up", "-d", "--wait"]);
    assert_eq!(there.replica("web-1")["Addresses"].to_string(), "[\"10.79.44.254\"]");
    for index in ["1", "2"] {
        let got = there.ok(&["exec", "--index", index, "many", "/probe", "get", "10.79.44.254:80", "/"]).out;
        assert_eq!(got, "200 web-1\n");
    }
    there.ok(&["wait", "work"]).prints("work: 4/4 completed");
    there.ok(&["pause", "many", "--share", "1"]).says("many-1 paused");
    assert_eq!(there.in_state("paused"), ["many-1"]);
    there.kill_supervisor();
    assert_eq!(there.in_state("paused"), ["many-1"]);
    there.ok(&["unpause", "many"]).says("many-1 goes on");
    assert_eq!(inside(&there, "many", &["get", "10.79.44.254:80", "/"]), "200 web-1\n");
    there.down();
}

#[test]
fn names_cores_and_privileges_on_docker_are_as_the_file_says() {
    let name = "names_cores_and_privileges_on_docker_are_as_the_file_says";
    let Some(there) = There::new(name, "thr-key", 27) else { return };
    there.bench.compose(
        "
services:
  one:
    image: probe
    command: [say, here]
    container_name: the.site
    cpuset: '0'
    mem_limit: 64m
    mem_swappiness: 7
    oom_kill_disable: true
    security_opt: ['no-new-privileges:true', 'seccomp:unconfined']
  plain: {image: probe, command: [sleep, '600']}
  waits: {image: probe, command: [cat], stdin_open: true}
  device: {image: probe, command: [sleep, '600'], devices: ['/dev/net/tun:/dev/own/tun:r']}
  ends: {image: probe, command: [cat]}
",
    );
    there.ok(&["--on", "docker", "up", "-d"]);
    let runs = |name: &str| (there.container(name)["State"]["Running"] == true).then_some(());
    for name in ["one-1", "plain-1", "waits-1"] {
        until("it runs", || runs(name));
    }
    let field = |service: &str, name: &str| {
        let status = inside(&there, service, &["read", "/proc/1/status"]);
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(str::trim).unwrap_or_default().to_owned()
    };
    assert_eq!(field("one", "Cpus_allowed_list"), "0");
    assert_eq!((field("one", "Seccomp"), field("plain", "Seccomp")), ("0".to_owned(), "2".to_owned()));
    assert_eq!((field("one", "NoNewPrivs"), field("plain", "NoNewPrivs")), ("1".to_owned(), "1".to_owned()));
    let host = &there.container("one-1")["HostConfig"];
    assert_eq!((&host["MemorySwappiness"], &host["OomKillDisable"]), (&7.into(), &true.into()));
    // It can be opened for reading, and nothing is there to be read.
    until("it runs", || runs("device-1"));
    let read = |service: &str| inside(&there, service, &["read", "/dev/own/tun"]);
    assert_eq!(read("device"), "File descriptor in bad state (os error 77)");
    assert!(read("plain").contains("No such file"));
    // An input that stays open keeps who reads it; one that is at its end does not.
    until("the other one has ended", || (there.replica("ends-1")["State"] == "exited").then_some(()));
    assert_eq!(there.replica("waits-1")["State"], "running");

    let shown = there.ok(&["ps", "--format", "json", "the.site"]).json();
    assert_eq!(shown.iter().map(|replica| &replica["Name"]).collect::<Vec<_>>(), ["the.site"]);
    let address = inside(&there, "plain", &["resolve", "one"]);
    assert_eq!(inside(&there, "plain", &["resolve", "the.site"]), address);
    assert_ne!(address.trim(), "");
    assert_eq!(inside(&there, "the.site", &["where"]), "/\n");
    until("it has said so", || there.ok(&["logs", "the.site"]).out.contains("the.site | here").then_some(()));
    there.fails(2, &["scale", "one=2"]).says("2 replicas of one cannot all be called the.site");
    there.down();

    there.bench.compose("services:\n  web: {image: probe, command: [sleep, '600'], cpuset: '1000'}\n");
    let refused = |said: &[&str]| {
        let done = there.spawn(&["--on", "docker", "up", "-d", "--wait"]).wait();
        assert_ne!(done.code, 0, "{}", done.err);
        for said in said {
            done.says(said);
        }
        there.down();
    };
    refused(&["1000", "cpuset"]);
    there
        .bench
        .compose("services:\n  web: {image: probe, command: [sleep, '600'], devices: [/dev/net/nowhere]}\n");
    refused(&["/dev/net/nowhere", "hint: name a device of this host"]);
}

#[test]
fn images_that_are_pulled_anew_replace_replicas_on_docker() {
    let name = "images_that_are_pulled_anew_replace_replicas_on_docker";
    let Some(registry) = Registry::start(name) else { return };
    let Some(there) = There::new(name, "thr-pul", 28) else { return };
    let bench = &there.bench;
    let image = format!("{}/site:1", registry.address);
    // Another image under the name at the registry than here.
    let publish = |colour: &str| {
        bench.image("made", &format!("FROM probe\nENV COLOUR={colour}\n"));
        bench.ok(&["tag", "made", &image]);
        bench.ok(&["push", &image]);
    };
    let up = |policy: &str| {
        bench.compose(&format!(
            "services:\n  web: {{image: '{image}', command: [sleep, '600'], pull_policy: {policy}}}\n"
        ));
        there.spawn(&["--on", "docker", "up", "-d", "--wait"]).wait()
    };
    let colour = || inside(&there, "web", &["env", "COLOUR"]);
    publish("red");
    bench.ok(&["rmi", &image]);
    let refused = up("never");
    assert_ne!(refused.code, 0);
    refused.says("is not here, and is never pulled").says("hint:");
    assert_eq!((up("missing").code, colour().as_str()), (0, "red\n"));
    // What is there goes on being used, and its image with it, until another one is asked for.
    bench.ok(&["tag", &image, "kept"]);
    publish("green");
    bench.ok(&["tag", "kept", &image]);
    assert_eq!((up("missing").code, colour().as_str()), (0, "red\n"));
    assert_eq!((up("always").code, colour().as_str()), (0, "green\n"));
    assert_eq!(there.listed("/images/json").len(), 1, "the one before has gone with its replica");
    there.down();
}
