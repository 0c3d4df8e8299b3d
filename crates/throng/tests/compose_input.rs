//! Compose files that cannot be used, through the command: an error at its place with a hint, and nothing changed.

mod support;

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use support::Bench;

/// Files of a project, of which `compose.yaml` cannot be used: each command must say where and why, and what to do.
#[track_caller]
fn refused(bench: &Bench, files: &[(&str, &[u8])], place: &str, texts: &[&str]) {
    for (name, content) in files {
        let path = bench.write(name, "");
        fs::write(path, content).expect("written");
    }
    for command in [&["config", "-q"][..], &["up", "-d"], &["build"], &["pull"]] {
        let done = bench.fails(2, command);
        done.says(place).says("hint:");
        for text in texts {
            done.says(text);
        }
        // A finding and its place, not pages of what follows from it.
        assert!(done.err.lines().count() < 40, "{}", done.err);
    }
    bench.assert_clean();
}

#[track_caller]
fn refused_text(bench: &Bench, text: &str, place: &str, texts: &[&str]) {
    refused(bench, &[("compose.yaml", text.as_bytes())], place, texts);
}

#[test]
fn what_is_written_wrong_is_shown_where_it_stands() {
    let bench = Bench::anywhere();
    refused_text(
        &bench,
        "services:\n  a: {image: x, depends_on: [b]}\n  b: {image: x, depends_on: [c]}\n  c: {image: x, depends_on: [a]}\n",
        "compose.yaml:4:30",
        &["services wait for each other in a circle: a → b → c → a"],
    );
    refused_text(
        &bench,
        "services:\n  web:\n    image: x\n    env_file: nothing.env\n",
        "compose.yaml:4:15",
        &["nothing.env", "required: false"],
    );
    refused_text(
        &bench,
        "services:\n  web: {image: 'x:${TAG'}\n",
        "compose.yaml:2:19",
        &["no closing brace"],
    );
    refused_text(
        &bench,
        "services:\n  web: {image: 'x:${TAG:?say which}'}\n",
        "compose.yaml:2:19",
        &["say which"],
    );
    refused_text(
        &bench,
        "services:\n  web: {image: x}\n  db: {image: y}\n  web: {image: z}\n",
        "compose.yaml:4:3",
        &["web"],
    );
    refused_text(&bench, "services:\n\tweb: {image: x}\n", "compose.yaml:2:", &["tabs", "spaces"]);
    refused_text(
        &bench,
        "services:\n  web:\n    image: x\n    environment: [8080]\n",
        "compose.yaml:4:19",
        &["NAME=value"],
    );
}

#[test]
fn what_would_grow_without_end_is_stopped() {
    let bench = Bench::anywhere();
    let mut bomb = "x-0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
    for level in 1..10 {
        let before = level - 1;
        let aliases = vec![format!("*a{before}"); 10].join(", ");
        bomb += &format!("x-{level}: &a{level} [{aliases}]\n");
    }
    refused_text(&bench, &(bomb + "services: {web: {image: x}}\n"), "compose.yaml:", &["200000", "aliases"]);
    let deep = format!("services: {}{}", "[".repeat(5000), "]".repeat(5000));
    refused_text(&bench, &deep, "compose.yaml:1:", &["levels deep"]);
    let path = bench.write("compose.yaml", "services:\n");
    let file = fs::File::options().write(true).open(path).expect("the file");
    file.set_len(100 << 20).expect("a large file");
    drop(file);
    for command in [&["config", "-q"][..], &["up", "-d"]] {
        bench.fails(2, command).says("compose.yaml:1:1").says("larger than").says("hint: split it");
    }
    bench.assert_clean();
}

#[test]
fn files_that_lead_to_themselves_are_named() {
    let bench = Bench::anywhere();
    refused_text(
        &bench,
        "include: [compose.yaml]\nservices: {web: {image: x}}\n",
        "compose.yaml:1:11",
        &["files include each other in a circle: compose.yaml → compose.yaml"],
    );
    refused(
        &bench,
        &[
            ("compose.yaml", b"services:\n  a: {extends: {file: other.yaml, service: b}}\n"),
            ("other.yaml", b"services:\n  b: {extends: {file: compose.yaml, service: a}}\n"),
        ],
        "other.yaml:2:46",
        &["services extend each other in a circle"],
    );
    refused_text(&bench, "services:\n  a: {extends: a}\n", "compose.yaml:2:16", &["circle"]);
}

#[test]
fn what_is_no_text_is_not_read() {
    let bench = Bench::anywhere();
    refused(
        &bench,
        &[("compose.yaml", b"services:\n  web: {image: x\xff}\n")],
        "compose.yaml:2:17",
        &["not UTF-8 text: line 2", "save it as UTF-8"],
    );
    fs::remove_file(bench.folder.join("compose.yaml")).expect("removed");
    fs::create_dir(bench.folder.join("folder.yaml")).expect("a folder");
    for command in [&["config", "-q"][..], &["up", "-d"]] {
        let done = bench.fails(2, &[&["-f", "folder.yaml"], command].concat());
        done.says("folder.yaml is a folder, not a file")
            .says("folder.yaml:1:1")
            .says("hint: name a file in it");
    }
    bench.assert_clean();
}

/// Runs a command with this as its standard input.
fn with_input(bench: &Bench, arguments: &[&str], input: &[u8]) -> support::Done {
    let mut command = bench.command(arguments);
    command.stdin(Stdio::piped());
    let mut running = bench.spawn_with(command);
    let mut pipe = running.child().stdin.take().expect("a pipe");
    // One that stops reading has said why.
    let _ = pipe.write_all(input);
    drop(pipe);
    running.wait()
}

#[test]
fn a_file_may_come_from_standard_input() {
    let bench = Bench::anywhere();
    let done = with_input(
        &bench,
        &["-f", "-", "-p", "piped", "config"],
        b"services: {web: {image: 'x:1', volumes: ['./a:/a']}}\n",
    );
    assert_eq!(done.code, 0, "{}", done.err);
    let source = bench.folder.canonicalize().expect("a folder").join("a");
    done.prints("image: \"x:1\"").prints("name: piped").prints(&source.display().to_string());
    // Over another one.
    bench.compose("services: {web: {image: old}, db: {image: db}}\n");
    let over =
        with_input(&bench, &["-f", "compose.yaml", "-f", "-", "config"], b"services: {web: {image: new}}\n");
    over.prints("image: new").prints("image: db");
    let wrong = with_input(&bench, &["-f", "-", "up", "-d"], b"services:\n  web: {imag: x}\n");
    assert_eq!(wrong.code, 2, "{}", wrong.err);
    wrong.says("-:2:").says("did you mean \"image\"?");
    let binary = with_input(&bench, &["-f", "-", "config"], b"\xff\xfe");
    assert_eq!(binary.code, 2);
    binary.says("standard input is not UTF-8");
    assert!(!Path::new(&bench.home).join("projects").exists());
    bench.assert_clean();
}
