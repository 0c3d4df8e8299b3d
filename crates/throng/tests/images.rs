//! Images: built, listed, named, archived, removed.

mod support;

use std::path::{Path, PathBuf};
use support::{Bench, skip};

/// Where Debian and others put a busybox that needs no libraries.
fn busybox() -> Option<PathBuf> {
    let places = ["/bin/busybox", "/usr/bin/busybox", "/bin/busybox.static"].map(PathBuf::from);
    places.into_iter().find(|path| {
        // A dynamic one names its interpreter.
        std::fs::read(path).is_ok_and(|bytes| !bytes.windows(10).any(|window| window == b"/ld-linux-"))
    })
}

/// A base image `box` with a shell.
fn build_box(bench: &Bench, busybox: &Path) {
    let dockerfile =
        "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n";
    let path = bench.write("box/Dockerfile", dockerfile);
    std::fs::copy(busybox, path.with_file_name("busybox")).expect("copied");
    bench.ok(&["build", "-t", "box", "box"]);
}

fn names(bench: &Bench) -> Vec<String> {
    let images = bench.ok(&["images", "--format", "json"]).json();
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let mut names: Vec<String> = images
        .iter()
        .map(|image| format!("{}:{}", text(&image["Repository"]), text(&image["Tag"])))
        .collect();
    names.sort();
    names
}

#[test]
fn an_image_is_built_listed_named_and_removed() {
    let bench = Bench::anywhere();
    bench.image("first", "FROM scratch\nCOPY probe /probe\nLABEL a=b\n");
    let id = bench.ok(&["images", "--format", "json"]).json()[0]["ID"].clone();
    bench.image("again", "FROM scratch\nCOPY probe /probe\nLABEL a=b\n");
    let images = bench.ok(&["images", "--format", "json"]).json();
    assert!(images.iter().all(|image| image["ID"] == id), "the same input gives the same image: {images:?}");
    assert!(images[0]["Size"].as_u64() > Some(100_000));
    bench.ok(&["images"]).prints("REPOSITORY").prints("first").prints("latest");

    bench.ok(&["tag", "first", "registry.example:5000/team/first:v1"]);
    assert_eq!(names(&bench), ["again:latest", "first:latest", "registry.example:5000/team/first:v1"]);
    bench.ok(&["rmi", "again"]).prints("Untagged: ");
    bench.ok(&["rmi", "first"]);
    let last = bench.ok(&["rmi", "registry.example:5000/team/first:v1"]);
    last.prints("Deleted: ");
    assert!(names(&bench).is_empty());
    bench.fails(3, &["rmi", "first"]).says("no image \"first\"").says("throng images");
    bench.fails(2, &["tag", "first", "NOT A NAME"]);
}

#[test]
fn archives_of_both_kinds_bring_an_image_back() {
    let Some(bench) = Bench::with_probe("archives_of_both_kinds_bring_an_image_back") else { return };
    let id = bench.ok(&["images", "--format", "json"]).json()[0]["ID"].clone();
    for kind in ["docker", "oci"] {
        let file = format!("{kind}.tar");
        bench.ok(&["save", "probe", "-o", &file, "--archive", kind]);
        bench.ok(&["rmi", "probe"]);
        assert!(names(&bench).is_empty());
        bench.ok(&["load", "-i", &file]).prints("Loaded image: ");
        let image = bench.ok(&["images", "--format", "json"]).json().remove(0);
        assert_eq!((&image["ID"], &image["Repository"]), (&id, &"probe".into()), "{kind}");
    }
    // What came back runs.
    bench.compose("services:\n  web: {image: probe, command: [say, back]}\n");
    bench.ok(&["up", "-d", "--wait"]);
    bench.ok(&["down"]);

    bench.fails(3, &["save", "nothing", "-o", "x.tar"]);
    assert!(!bench.folder.join("x.tar").exists() && !bench.folder.join("x.throng-part").exists());
    bench.fails(2, &["load", "-i", "missing.tar"]).says("cannot open missing.tar");
    let whole = std::fs::read(bench.folder.join("docker.tar")).expect("an archive");
    std::fs::write(bench.folder.join("cut.tar"), &whole[..whole.len() / 2]).expect("a file");
    bench.fails(5, &["load", "-i", "cut.tar"]).says("cut.tar: ");
    bench.write("text.tar", &"no archive at all\n".repeat(1000));
    bench.fails(5, &["load", "-i", "text.tar"]).says("text.tar: ");
    assert_eq!(names(&bench), ["probe:latest"]);
    bench.assert_clean();
}

#[test]
fn an_image_in_use_stays() {
    let Some(bench) = Bench::with_probe("an_image_in_use_stays") else { return };
    bench.compose("services:\n  web: {image: probe, command: [say, x]}\n");
    bench.ok(&["up", "-d", "--wait"]);
    let done = bench.fails(5, &["rmi", "probe"]);
    done.says(&format!("image probe is used by the app {}", bench.project)).says("hint: take it down first");
    bench.ok(&["tag", "probe", "other"]);
    bench.ok(&["rmi", "other"]);
    bench.ok(&["down"]);
    bench.ok(&["rmi", "probe"]);
    bench.assert_clean();
}

#[test]
fn services_are_built_when_their_image_is_missing_or_asked_for() {
    let Some(bench) = Bench::new("services_are_built_when_their_image_is_missing_or_asked_for") else {
        return;
    };
    let dockerfile = |colour: &str| {
        bench.write(
            "web/Dockerfile",
            &format!("FROM scratch\nARG WHO\nCOPY probe /probe\nENV COLOUR={colour} WHO=$WHO\n"),
        );
        std::fs::copy(support::probe(), bench.folder.join("web/probe")).expect("copied");
    };
    dockerfile("red");
    bench.compose(
        "
services:
  web: {build: {context: web, args: {WHO: me}}, image: built, command: [/probe, say, x], stop_signal: SIGKILL}
",
    );
    let colour = || bench.ok(&["exec", "web", "/probe", "env", "COLOUR"]).out;
    bench.fails(3, &["up", "-d", "--no-build"]).says("no image built").says("hint: run `throng build`");
    bench.assert_clean();
    bench.ok(&["up", "-d", "--wait"]).says("build built");
    assert_eq!(
        (colour(), bench.ok(&["exec", "web", "/probe", "env", "WHO"]).out),
        ("red\n".into(), "me\n".into())
    );
    dockerfile("blue");
    bench.ok(&["up", "-d", "--wait"]);
    assert_eq!(colour(), "red\n", "an image that is there is used");
    bench.ok(&["up", "-d", "--wait", "--build"]);
    assert_eq!(colour(), "blue\n", "a new image replaces the replica");
    bench.ok(&["build", "web", "--build-arg", "WHO=you"]);
    bench.ok(&["up", "-d", "--wait"]);
    assert_eq!(bench.ok(&["exec", "web", "/probe", "env", "WHO"]).out, "you\n");
    bench.fails(3, &["build", "nobody"]).says("no service nobody").says("hint:");
    bench.ok(&["down"]);
    bench.assert_clean();
}

#[test]
fn run_steps_work_fail_and_leave_no_trace_of_the_engine() {
    let name = "run_steps_work_fail_and_leave_no_trace_of_the_engine";
    let Some(bench) = Bench::new(name) else { return };
    let Some(busybox) = busybox() else {
        return skip(name, "no static busybox; the package is busybox-static");
    };
    build_box(&bench, &busybox);
    bench.write(
        "app/Dockerfile",
        "FROM box AS made
RUN echo built > /made && mkdir /data && chown 7:8 /data
FROM box
COPY --from=made /made /made
USER 7
RUN id -u > /tmp/who 2>/dev/null || true
RUN test ! -e /etc/resolv.conf -o -r /etc/resolv.conf
CMD [\"/bin/sh\", \"-c\", \"cat /made; exec sleep 1000\"]
",
    );
    bench.ok(&["build", "-t", "app", "app"]);
    bench.compose("services:\n  web: {image: app, stop_signal: SIGKILL}\n");
    bench.ok(&["up", "-d", "--wait"]);
    support::until("it has said so", || bench.ok(&["logs"]).out.contains("web-1 | built").then_some(()));
    bench.ok(&["down"]);

    bench.write("bad/Dockerfile", "FROM box\nRUN echo to be seen && exit 42\n");
    let done = bench.fails(5, &["build", "-t", "bad", "bad"]);
    done.says("to be seen").says("42").says("Dockerfile:2");
    bench.write("bad/Dockerfile", "FROM box\nRUN [\"/nothing\"]\n");
    bench.fails(5, &["build", "-t", "bad", "bad"]).says("/nothing").says("Dockerfile:2");
    assert!(!names(&bench).contains(&"bad:latest".to_owned()));
    bench.assert_clean();
}
