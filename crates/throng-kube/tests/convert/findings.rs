//! What is wrong for a cluster is told at its place, with what to do about it.

use crate::common::{converted, lines, loaded};
use throng_kube::Options;

/// Compares the findings, one to a line.
#[track_caller]
fn check(text: &str, expected: &str) {
    let loaded = loaded(text).unwrap_or_else(|findings| panic!("{}", lines(&findings, "")));
    let directory = loaded.app.directory.to_string_lossy().into_owned();
    let findings = match converted(&loaded, &Options::default()) {
        Ok(converted) => converted.warnings,
        Err(findings) => findings,
    };
    assert_eq!(lines(&findings, &directory), expected.trim_end(), "{text}");
}

#[test]
fn names_that_collapse_into_one_are_an_error() {
    check(
        "services:\n  my_db: {image: 'a:1'}\n  my-db: {image: 'a:1'}\n",
        "compose.yaml:2:3: error: services \"my-db\" and \"my_db\" would both be called \"my-db\" in a cluster; \
         compose.yaml:3:3: the other one (hint: rename one, or give it the label kompose.service.name_override)\n\
         compose.yaml:2:3: warning: service \"my_db\" is called \"my-db\" in a cluster, and found by that name alone \
         (hint: rename it, or say my-db wherever my_db is asked for)",
    );
}

#[test]
fn names_that_no_cluster_takes_are_errors() {
    check(
        "services:\n  9lives: {image: 'a:1'}\n",
        "compose.yaml:2:3: error: \"9lives\" cannot be the name of a Service (hint: begin it with a letter, or give it the \
         label kompose.service.name_override)",
    );
    check(
        "services:\n  _: {image: 'a:1'}\n",
        "compose.yaml:2:3: error: nothing of \"_\" can be part of a name in a cluster (hint: use letters, digits and \
         hyphens)",
    );
    let long = "a".repeat(53);
    check(
        &format!("services:\n  {long}:\n    image: a:1\n    x-throng: {{job: {{schedule: '@hourly'}}}}\n"),
        "compose.yaml:2:3: error: the name of a CronJob has 52 characters at most, not 53 (hint: give it a shorter one with \
         the label kompose.service.name_override)",
    );
}

#[test]
fn a_name_of_64_characters_is_an_error_wherever_it_comes_from() {
    let mut loaded = loaded("services: {web: {image: 'a:1'}}").unwrap();
    let web = loaded.app.services.remove("web").unwrap();
    let name = "a".repeat(64);
    loaded.app.services.insert(name.clone(), throng_model::app::Service { name: name.clone(), ..web });
    let findings = converted(&loaded, &Options::default()).unwrap_err();
    let expected = format!(
        "error: service {name:?} would have a name of 64 characters in a cluster (hint: 63 are the most: choose a shorter \
         one)"
    );
    assert!(lines(&findings, "").ends_with(&expected), "{}", lines(&findings, ""));
}

#[test]
fn what_a_cluster_would_refuse_is_an_error_here() {
    check(
        "services:\n  web:\n    image: a:1\n    deploy:\n      resources:\n        limits: {memory: 64M}\n        \
         reservations: {memory: 128M}\n",
        "compose.yaml:7:24: warning: more is reserved than allowed, which a cluster refuses: the limit is requested (hint: \
         lower it, or raise deploy.resources.limits.memory)",
    );
    check(
        "services:\n  web:\n    image: a:1\n    secrets: [s]\nsecrets:\n  s: {file: ./missing.txt}\n",
        "compose.yaml:6:3: error: cannot read missing.txt: entity not found (hint: create it, or leave out what uses it)",
    );
    check(
        "services:\n  web:\n    image: a:1\n    labels:\n      kompose.service.type: nodport\n      kompose.hpa.cpu: \
         much\n",
        "compose.yaml:5:7: error: kompose.service.type: \"nodport\" is not one of clusterip, nodeport, loadbalancer, \
         headless (hint: docs/from-kompose.md lists what each label may say)\n\
         compose.yaml:6:7: error: kompose.hpa.cpu: \"much\" is not a percentage such as 80%, or a quantity such as 500m or \
         200Mi (hint: docs/from-kompose.md lists what each label may say)",
    );
}

#[test]
fn keys_without_a_meaning_are_told_by_name() {
    check(
        "services:\n  web:\n    image: a:1\n    init: true\n    stop_signal: SIGQUIT\n    ulimits: {nofile: 10}\n    \
         user: node\n    restart: on-failure\n",
        "compose.yaml:4:5: warning: \"init\" says nothing to a cluster: a container's program is its first process (hint: \
         start it by tini in the image, if it leaves children behind)\n\
         compose.yaml:5:5: warning: \"stop_signal\" says nothing to a cluster: a pod is stopped by the signal that its \
         image names (hint: write STOPSIGNAL in the Dockerfile)\n\
         compose.yaml:6:5: warning: \"ulimits\" says nothing to a cluster: limits of processes are those of the node's \
         container runtime (hint: set them in the container runtime, or with ulimit in the command)\n\
         compose.yaml:7:5: warning: a cluster knows users by their numbers, and \"node\" is a name (hint: write the \
         number, as in \"1000:1000\"; until then the image's own user is taken)\n\
         compose.yaml:8:5: warning: \"restart\" says nothing to a cluster: pods that are to run are started again whatever \
         their end (hint: if it is to end, say so with x-throng.job)",
    );
}

#[test]
fn images_that_no_node_has_or_that_change_are_told() {
    check(
        "services:\n  a: {image: nginx}\n  b: {image: 'nginx:latest'}\n  c: {image: 'nginx:1.27'}\n  d: {build: .}\n",
        "compose.yaml:2:7: warning: nginx is whatever is newest when a node fetches it: pods may differ (hint: name a tag \
         that stays, as in nginx:1.27, or a digest)\n\
         compose.yaml:3:7: warning: nginx:latest is whatever is newest when a node fetches it: pods may differ (hint: name \
         a tag that stays, as in nginx:1.27, or a digest)\n\
         compose.yaml:5:7: warning: the image shop-d is built here, and no node of a cluster has it (hint: give image: the \
         name of a registry, and send it there with `throng push`)",
    );
}
