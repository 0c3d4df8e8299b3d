//! Findings as a terminal shows them.

use crate::common::Case;
use throng_compose::render;

fn rendered(text: &str) -> String {
    let parent = tempfile::tempdir().unwrap();
    let path = parent.path().join("compose.yaml");
    std::fs::write(&path, text).unwrap();
    let options = throng_compose::LoadOptions {
        directory: parent.path().into(),
        ..throng_compose::LoadOptions::default()
    };
    let findings = match throng_compose::load(&options) {
        Ok(loaded) => loaded.warnings,
        Err(findings) => findings,
    };
    render(&findings, false).replace(&format!("{}/", parent.path().display()), "")
}

#[test]
fn the_line_is_shown_with_a_mark_under_what_is_meant() {
    let text = "services:\n  web:\n    image: a\n    ports: ['80:80']\n  db:\n    image: a\n    ports: ['80:90']\n    imagee: b\n";
    let expected = "error: port 80 of the host is published twice, by web and by db
 --> compose.yaml:7:13
  |
4 |     ports: ['80:80']
  |             ------- web publishes it here
...
7 |     ports: ['80:90']
  |             ^^^^^^^
  |
  = hint: give one of them another port of the host, or let several replicas share one entry

warning: unknown key \"imagee\" of a service
 --> compose.yaml:8:5
  |
8 |     imagee: b
  |     ^^^^^^
  |
  = hint: did you mean \"image\"?

";
    assert_eq!(rendered(text), expected);
}

#[test]
fn a_place_that_cannot_be_shown_is_named() {
    let (result, directory) = Case { files: &[("compose.yaml", "- a\n")], ..Case::default() }.load();
    // The folder is gone by now.
    let text = render(&result.unwrap_err(), false);
    assert!(text.contains(&format!("note: at {directory}/compose.yaml:1:1")), "{text}");
}

#[test]
fn control_characters_of_a_file_do_not_reach_the_terminal() {
    let text = rendered("services: {web: {image: \"a\u{9b}2J\", \"b\\e[2J\": 1}}\n");
    assert!(text.contains("imag"), "{text}");
    assert!(!text.contains(['\u{1b}', '\u{9b}']), "{text:?}");
}

#[test]
fn long_lines_are_cut_to_the_terminal() {
    let text =
        rendered(&format!("services: {{web: {{image: a, x-pad: '{}', imagee: b}}}}\n", "x".repeat(500)));
    assert!(text.contains("^^^^^^"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
}
