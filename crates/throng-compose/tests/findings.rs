//! What is said about Compose files, word by word and place by place.

mod common;

use common::check;

#[test]
fn a_file_without_faults_has_no_findings() {
    check(
        "services:
  web:
    image: web:1
    x-note: {anything: [goes]}
    privileged: false
x-more: 1
",
        "",
    );
}

#[test]
fn not_yaml() {
    check(
        "services: [\n",
        "compose.yaml:2:1: error: not valid YAML: while parsing a node, did not find expected node content",
    );
    check("services:\n\t web:\n", "");
    check("services:\n  web: {image: a\n", "");
    check("", "");
    check("# nothing\n", "");
    check("just text\n", "");
    check("- a\n", "");
    check("a: 1\n---\nb: 2\n", "");
    check("services: *nope\n", "");
    check("services: &a [*a]\n", "");
}
