//! Images: built, listed, named, archived, removed.

mod support;

use std::path::{Path, PathBuf};
use support::registry::Registry;
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

/// What the command of the app's service `web` prints up to its end.
#[track_caller]
fn printed(bench: &Bench) -> String {
    bench.ok(&["up", "-d", "--wait"]);
    let log = support::until("all of it", || {
        let log = bench.ok(&["logs", "--no-log-prefix", "web"]).out;
        log.contains("end of it").then_some(log)
    });
    bench.ok(&["down"]);
    log
}

/// Builds two services, the second one with all that a build section can say.
const BUILD: &str = "
services:
  base:
    scale: 0
    command: [sleep, '1000']
    build:
      dockerfile_inline: |
        FROM box
        RUN echo of the base > /base
  web:
    image: own:1
    stop_signal: SIGKILL
    build:
      context: ctx
      dockerfile_inline: |
        FROM start
        RUN --mount=type=secret,id=pass --mount=type=secret,id=other,env=OTHER echo \"$$(cat /run/secrets/pass) $$OTHER\" > /secrets
        RUN --mount=from=shared,target=/mnt/shared --mount=target=/mnt/own cat /mnt/shared/file /mnt/own/inner > /mounts
        RUN --mount=type=cache,target=/var/cache/own echo x >> /var/cache/own/runs && wc -l < /var/cache/own/runs > /runs
        RUN grep printer /etc/hosts > /hosts; ulimit -n > /files; df -k /dev/shm | tail -1 > /shm; ls /sys/class/net > /net
        COPY <<END /text
        a text
        END
        RUN <<END
          echo first > /here
          echo second >> /here
        END
        RUN ls / > /ls
        CMD cat /base /secrets /mounts /runs /hosts /files /shm /net /text /here /ls; echo end of it; sleep 1000
      tags: ['own:latest', 'reg.example:5000/own:2']
      labels: {by: the-file}
      additional_contexts: {start: 'service:base', shared: ./shared}
      secrets: [{source: file, target: pass}, {source: variable, target: other}]
      extra_hosts: ['printer:192.0.2.7']
      ulimits: {nofile: 77}
      shm_size: 2m
      network: none
secrets:
  file: {file: ./secret.txt}
  variable: {environment: TOKEN}
";

#[test]
fn keys_of_a_build_reach_its_commands() {
    let name = "keys_of_a_build_reach_its_commands";
    let Some(bench) = Bench::new(name) else { return };
    let Some(busybox) = busybox() else {
        return skip(name, "no static busybox; the package is busybox-static");
    };
    build_box(&bench, &busybox);
    bench.write("secret.txt", "hush");
    bench.write("shared/file", "from the shared folder\n");
    bench.write("ctx/inner", "of the context\n");
    bench.write(".env", "TOKEN=from the environment\n");
    bench.compose(BUILD);
    let log = printed(&bench);
    for text in [
        "of the base",
        "hush from the environment",
        "from the shared folder\nof the context\n1\n",
        "192.0.2.7\tprinter\n77\n",
        "a text\nfirst\nsecond\n",
    ] {
        assert!(log.contains(text), "{text}: {log}");
    }
    let shm = log.lines().find(|line| line.ends_with("/dev/shm")).unwrap_or_default();
    assert!(shm.split_whitespace().any(|word| word == "2048"), "2 MiB: {log}");
    assert!(log.contains("\nlo\n") && !log.contains("eth"), "no network: {log}");
    // What was mounted for a command has left nothing in the image.
    assert!(!log.lines().any(|line| line == "mnt" || line == "run"), "{log}");
    let base = format!("{}-base:latest", bench.project);
    assert_eq!(names(&bench), ["box:latest", "own:1", "own:latest", "reg.example:5000/own:2", &base]);
    bench.ok(&["save", "own:1", "-o", "own.tar"]);
    let archive = std::fs::read(bench.folder.join("own.tar")).expect("an archive");
    let has = |text: &str| archive.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(has("\"by\":\"the-file\""), "the label");
    assert!(!has("OTHER=from"), "a secret in the image");
    // The second time everything is there; the cache of RUN counts on.
    let again = bench.ok(&["build", "web", "--progress", "plain"]);
    again.says("CACHED");
    assert!(!again.err.contains("DONE"), "{}", again.err);
    bench.ok(&["build", "web", "--no-cache", "--progress", "plain"]).says("DONE");
    let log = printed(&bench);
    assert!(log.contains("of the context\n2\n"), "the cache of RUN was found again: {log}");
    bench.assert_clean();
}

#[test]
fn flags_of_a_build() {
    let bench = Bench::anywhere();
    bench.write("ctx/file", "x");
    bench.write("other/theirs", "x");
    bench.write(
        "ctx/Dockerfile",
        "ARG BASE=scratch\nFROM $BASE AS one\nCOPY file /\nFROM one AS two\nCOPY --from=more theirs /\n",
    );
    let id = bench.ok(&["build", "-q", "-t", "a", "--target", "one", "ctx"]);
    assert!(id.out.starts_with("sha256:") && id.err.is_empty(), "{} {}", id.out, id.err);
    bench.ok(&["build", "-t", "b", "--build-context", "more=other", "--label", "k=v", "ctx"]);
    bench.fails(2, &["build", "-t", "c", "--label", "k", "ctx"]).says("--label k").says("NAME=VALUE");
    bench.fails(2, &["build", "-t", "c", "--secret", "src=x", "ctx"]).says("it has no id").says("hint:");
    bench.fails(2, &["build", "-t", "c", "--secret", "id=x,src=missing", "ctx"]).says("no file missing");
    bench.fails(2, &["build", "-t", "c", "--add-host", "x", "ctx"]).says("NAME=ADDRESS");
    // A Dockerfile on standard input.
    let mut command = bench.command(&["build", "-q", "-t", "d", "-f", "-", "ctx"]);
    command.stdin(std::process::Stdio::piped());
    let mut running = bench.spawn_with(command);
    let mut pipe = running.child().stdin.take().expect("a pipe");
    std::io::Write::write_all(&mut pipe, b"FROM scratch\nCOPY file /piped\n").expect("written");
    drop(pipe);
    let done = running.wait();
    assert_eq!(done.code, 0, "{}", done.err);
    assert_eq!(names(&bench), ["a:latest", "b:latest", "d:latest"]);
}

#[test]
fn images_are_pulled_when_the_file_says_so() {
    let name = "images_are_pulled_when_the_file_says_so";
    let Some(bench) = Bench::with_probe(name) else { return };
    let Some(registry) = Registry::start(name) else { return };
    let image = format!("{}/site:1", registry.address);
    let publish = |colour: &str| {
        bench.image("made", &format!("FROM probe\nENV COLOUR={colour}\n"));
        bench.ok(&["tag", "made", &image]);
        bench.ok(&["push", &image]);
    };
    // Another image under the name at the registry than here.
    let change = |colour: &str| {
        bench.ok(&["tag", &image, "kept"]);
        publish(colour);
        bench.ok(&["tag", "kept", &image]);
    };
    let up = |policy: &str, more: &[&str]| {
        bench
            .compose(&format!("services:\n  web: {{image: '{image}', command: [sleep, '600'], {policy}}}\n"));
        let done = bench.run(&[&["up", "-d", "--wait"], more].concat());
        let colour = || bench.ok(&["exec", "web", "/probe", "env", "COLOUR"]).out.trim().to_owned();
        if done.code == 0 { colour() } else { done.err }
    };
    publish("red");
    bench.ok(&["rmi", &image]);
    let refused = up("pull_policy: never", &[]);
    assert!(refused.contains("is not here, and is never pulled") && refused.contains("hint:"), "{refused}");
    assert_eq!(up("pull_policy: missing", &[]), "red");
    change("green");
    assert_eq!(up("pull_policy: missing", &[]), "red");
    assert_eq!(up("pull_policy: daily", &[]), "red", "the registry was asked a moment ago");
    assert_eq!(up("pull_policy: never", &[]), "red");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(up("pull_policy: every_1s", &[]), "green");
    change("blue");
    assert_eq!(up("pull_policy: always", &["--pull", "never"]), "green");
    assert_eq!(up("pull_policy: always", &[]), "blue");
    change("black");
    assert_eq!(up("restart: always", &["--pull", "always"]), "black");
    bench.ok(&["down"]);

    // What a build begins with is fetched if it is not here, and anew if it is asked for.
    bench.write("app/Dockerfile", &format!("FROM {image}\nENV OWN=1\n"));
    let built = |pull: &str| {
        let build = format!("{{context: app, pull: {pull}}}");
        bench.compose(&format!("services:\n  web: {{build: {build}, command: [sleep, '600']}}\n"));
        bench.ok(&["up", "-d", "--wait", "--build"]);
        bench.ok(&["exec", "web", "/probe", "env", "COLOUR"]).out.trim().to_owned()
    };
    change("white");
    assert_eq!(built("false"), "black");
    assert_eq!(built("true"), "white");
    bench.ok(&["down"]);
    bench.ok(&["rmi", &image]);
    bench.ok(&["build", "-t", "fetched", "app"]).says(&format!("pull {image}"));
    bench.write("app/Dockerfile", &format!("FROM scratch\nFROM {image}x\n"));
    let done = bench.fails(5, &["build", "-t", "lost", "app"]);
    done.says("Dockerfile:2:1").says("neither here nor to be fetched").says("hint:");
    bench.assert_clean();
}
