//! Instructions beyond the oldest ones: texts in the Dockerfile, mounts of RUN, triggers, named contexts.
#![allow(clippy::unwrap_used, reason = "a test ends where something unexpected happens")]

mod common;

use async_trait::async_trait;
use common::{Fixture, tree};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use throng_image::{
    BuildOptions, ContextSource, Image, RunStep, Secret, SecretContent, StepRunner, Which, needed_images,
};
use throng_model::replica::{ResolvedMount, ResolvedSource};
use throng_model::sandbox::Sandbox;

/// Paths and contents of all layers, later ones over earlier ones.
fn files(fixture: &Fixture, image: &Image) -> BTreeMap<String, String> {
    fixture.store.layers(image).unwrap().iter().flat_map(|layer| tree(layer)).collect()
}

fn secret(text: &str) -> Secret {
    Secret { content: SecretContent::Text(text.into()), uid: None, gid: None, mode: None }
}

/// Carries nothing out, but looks at what a command would see.
#[derive(Default)]
struct Looks {
    steps: Mutex<Vec<Seen>>,
}

struct Seen {
    args: Vec<String>,
    env: Vec<String>,
    offline: bool,
    sandbox: Sandbox,
    mounts: Vec<ResolvedMount>,
    /// Paths below the targets of mounts, with their contents.
    content: BTreeMap<String, String>,
    /// Permission bits of the sources, by target.
    modes: BTreeMap<String, u32>,
}

impl Looks {
    fn last(&self) -> Seen {
        self.steps.lock().unwrap().pop().unwrap()
    }
}

#[async_trait]
impl StepRunner for Looks {
    async fn run(&self, step: RunStep) -> Result<i32, String> {
        let (mut content, mut modes) = (BTreeMap::new(), BTreeMap::new());
        for mount in &step.mounts {
            let ResolvedSource::Bind(path) = &mount.source else { continue };
            let metadata = fs::metadata(path).map_err(|error| error.to_string())?;
            modes.insert(mount.target.clone(), metadata.mode() & 0o7777);
            if metadata.is_dir() {
                let below = tree(path).into_iter();
                content.extend(below.map(|(name, text)| (format!("{}/{name}", mount.target), text)));
                if !mount.read_only {
                    fs::write(path.join("left"), "by the step").unwrap();
                }
            } else {
                content.insert(mount.target.clone(), fs::read_to_string(path).unwrap());
            }
        }
        fs::write(step.upper.join("ran"), "").unwrap();
        let RunStep { process, offline, sandbox, mounts, .. } = step;
        let seen = Seen { args: process.args, env: process.env, offline, sandbox, mounts, content, modes };
        self.steps.lock().unwrap().push(seen);
        Ok(0)
    }
}

#[test]
fn texts_of_the_dockerfile_become_files() {
    let fixture = Fixture::new();
    fixture.write("other", "other");
    let dockerfile = "FROM scratch
ARG NAME=world
COPY <<EOF /hello.txt
hello $NAME \"quoted\" \\$NAME
EOF
COPY --chmod=755 <<-\"one.sh\" <<two other /d/
\t#!/bin/sh $NAME
one.sh
2
two
";
    let (image, _) = fixture.build(dockerfile);
    let found = files(&fixture, &image);
    assert_eq!(found["hello.txt"], "hello world \"quoted\" $NAME\n");
    assert_eq!(found["d/one.sh"], "#!/bin/sh $NAME\n");
    assert_eq!((found["d/two"].as_str(), found["d/other"].as_str()), ("2\n", "other"));
    let layers = fixture.store.layers(&image).unwrap();
    let mode = |layer: &Path, name: &str| fs::metadata(layer.join(name)).unwrap().mode() & 0o7777;
    assert_eq!((mode(&layers[0], "hello.txt"), mode(&layers[1], "d/one.sh")), (0o644, 0o755));
    // Another text is another layer, and the same one costs nothing.
    assert_eq!(fixture.build(dockerfile).1.fresh(), Vec::<String>::new());
    assert_eq!(fixture.build(&dockerfile.replace("hello $", "bye $")).1.fresh(), ["COPY", "COPY"]);
}

#[test]
fn copy_leaves_out_and_keeps_folders() {
    let fixture = Fixture::new();
    for name in ["src/a/one.rs", "src/a/one.txt", "src/b/two.rs", "src/b/deep/three.txt", "top.txt", "top.rs"]
    {
        fixture.write(name, name);
    }
    let copied = |line: &str| {
        let (image, _) = fixture.build(&format!("FROM scratch\nARG KIND=txt\n{line}"));
        let found = files(&fixture, &image);
        found.into_keys().filter(|name| !name.ends_with('/')).collect::<Vec<_>>()
    };
    assert_eq!(copied("COPY --exclude=**/*.$KIND src /s/"), ["s/a/one.rs", "s/b/two.rs"]);
    assert_eq!(copied("COPY --exclude=b --exclude=*/*.rs src /s/"), ["s/a/one.txt"]);
    assert_eq!(copied("COPY --exclude=*.txt top.* /s/"), ["s/top.rs"]);
    assert_eq!(copied("COPY --parents src/a/*.rs src/b/two.rs /p/"), ["p/src/a/one.rs", "p/src/b/two.rs"]);
    assert_eq!(copied("COPY --parents src/./b/*.rs /p/"), ["p/b/two.rs"]);
    assert_eq!(copied("COPY --parents src/b /p/"), ["p/src/b/deep/three.txt", "p/src/b/two.rs"]);
}

#[test]
fn triggers_run_in_the_build_that_begins_with_the_image() {
    let mut fixture = Fixture::new();
    fixture.write("app.conf", "x");
    fixture.options.tags = vec!["base".into()];
    let triggers = "FROM scratch\nONBUILD COPY app.conf /etc/\nONBUILD ENV FROM_BASE=yes\nLABEL base=1";
    let (base, _) = fixture.build(triggers);
    assert_eq!(base.config.on_build, ["COPY app.conf /etc/", "ENV FROM_BASE=yes"]);
    assert!(fixture.store.layers(&base).unwrap().is_empty());
    fixture.options.tags = vec!["app".into()];
    let (app, _) = fixture.build("FROM base\nENV OWN=$FROM_BASE");
    assert_eq!((app.config.env_value("OWN"), app.config.on_build.len()), (Some("yes"), 0));
    assert_eq!(files(&fixture, &app)["etc/app.conf"], "x");
    // Once only: what is built on that has none any more.
    let (again, _) = fixture.build("FROM app AS one\nFROM one");
    assert_eq!(fixture.store.layers(&again).unwrap().len(), 1);
    fs::remove_file(fixture.options.context.join("app.conf")).unwrap();
    let error = fixture.build_error("FROM scratch\nFROM base");
    assert!(error.contains("Dockerfile:2:1: error: COPY: there is no \"app.conf\""), "{error}");
}

#[test]
fn named_contexts_come_before_stages_and_images() {
    let mut fixture = Fixture::new();
    let other = fixture.dir.path().join("other");
    fs::create_dir_all(other.join("sub")).unwrap();
    fs::write(other.join("sub/file"), "theirs").unwrap();
    fs::write(other.join("left-out"), "x").unwrap();
    fs::write(other.join(".dockerignore"), "left-out\n").unwrap();
    fixture.write("file", "ours");
    fixture.options.tags = vec!["made:1".into()];
    fixture.build("FROM scratch\nCOPY file /made");
    fixture.options.tags = vec!["test/app:1".into()];
    fixture.options.contexts = [
        ("shared".to_owned(), ContextSource::Folder(other)),
        ("alpine".to_owned(), ContextSource::Image("made:1".into())),
    ]
    .into();
    let (image, _) = fixture.build("FROM alpine\nCOPY --from=shared . /s/\nCOPY --from=alpine /made /again");
    let found = files(&fixture, &image);
    assert_eq!((found["s/sub/file"].as_str(), found["again"].as_str()), ("theirs", "ours"));
    assert!(!found.contains_key("s/left-out"), "{found:?}");
    let (image, _) = fixture.build("FROM alpine\nARG WHOSE=shared\nCOPY --from=$WHOSE . /t/");
    assert_eq!(files(&fixture, &image)["t/sub/file"], "theirs");
    let error = fixture.build_error("FROM shared");
    assert!(error.contains("Dockerfile:1:1: error: FROM: shared is the folder"), "{error}");
}

#[test]
fn run_sees_what_it_asks_to_be_mounted() {
    let mut fixture = Fixture::new();
    fixture.write("src/main.c", "int main;");
    fixture.write("src/skip.me", "x");
    fixture.write(".dockerignore", "**/skip.me\n");
    fixture.options.secrets = [("token".to_owned(), secret("hush")), ("key".to_owned(), secret("k"))].into();
    fixture.options.sandbox = Sandbox { shm_size: Some(1 << 20), ..Sandbox::default() };
    let looks = Looks::default();
    let dockerfile = "FROM scratch AS tools
COPY src/main.c /opt/tool
FROM scratch
WORKDIR /work
ARG DIR=src
RUN --mount=type=bind,source=$DIR,target=code \\
    --mount=from=tools,source=/opt/tool,target=/bin/tool \\
    --mount=type=cache,target=/root/.cache,mode=0700 \\
    --mount=type=secret,id=token --mount=type=secret,id=key,env=KEY --mount=type=secret,id=none \\
    --mount=type=tmpfs,target=/scratch,size=1m --network=none make
";
    let (image, steps) = fixture.try_build_with(dockerfile, &looks).unwrap();
    assert_eq!(steps.fresh(), ["COPY", "WORKDIR", "RUN"]);
    let seen = looks.last();
    let targets: Vec<(&str, bool)> = seen.mounts.iter().map(|m| (m.target.as_str(), m.read_only)).collect();
    let expected = [
        ("/bin/tool", true),
        ("/root/.cache", false),
        ("/run/secrets/token", true),
        ("/scratch", false),
        ("/work/code", true),
    ];
    assert_eq!(targets, expected);
    assert_eq!(seen.content["/work/code/main.c"], "int main;");
    assert!(!seen.content.contains_key("/work/code/skip.me"));
    assert_eq!((&*seen.content["/bin/tool"], &*seen.content["/run/secrets/token"]), ("int main;", "hush"));
    assert_eq!((seen.modes["/run/secrets/token"], seen.modes["/root/.cache"]), (0o400, 0o700));
    assert!(seen.env.contains(&"KEY=k".to_owned()) && seen.offline);
    assert_eq!(seen.sandbox.shm_size, Some(1 << 20));
    // Neither the secrets nor what was mounted are in the image, nor in the cache's key.
    let text = format!("{:?} {:?}", image.config, files(&fixture, &image));
    assert!(!text.contains("hush") && !text.contains("KEY"), "{text}");
    fixture.options.secrets.insert("token".into(), secret("other"));
    assert_eq!(fixture.try_build_with(dockerfile, &looks).unwrap().1.fresh(), Vec::<String>::new());
    // What is bound is part of the key.
    fixture.write("src/main.c", "int changed;");
    assert_eq!(fixture.try_build_with(dockerfile, &looks).unwrap().1.fresh(), ["COPY", "RUN"]);
    assert_eq!(looks.last().content["/root/.cache/left"], "by the step", "a cache is found again");
    assert!(!fixture.options.context.join("src/left").exists());
    // Until everything that is not needed goes.
    fixture.store.prune(Which::Nameless, &throng_image::Needed::default()).unwrap();
    fixture.write("src/main.c", "int again;");
    fixture.try_build_with(dockerfile, &looks).unwrap();
    assert!(!looks.last().content.contains_key("/root/.cache/left"));
}

#[test]
fn a_cache_that_is_anothers_is_waited_for_and_nobody_waits_for_himself() {
    let fixture = Fixture::new();
    let looks = Looks::default();
    let cache = |target: &str, id: &str, sharing: &str| {
        format!("--mount=type=cache,target=/{target},id={id},sharing={sharing}")
    };
    let twice = format!(
        "FROM scratch\nRUN {} {} {} {} x\n",
        cache("p", "other", "private"),
        cache("a", "one", "locked"),
        cache("b", "one", "locked"),
        cache("c", "one", "private")
    );
    let build = |text: &str| {
        fixture.write("Dockerfile", text);
        let built = throng_image::build(&fixture.store, &fixture.options, &looks, &throng_image::Silent);
        common::block_on(async { tokio::time::timeout(Duration::from_secs(20), built).await })
    };
    build(&twice).expect("it waits for itself").unwrap();
    let source =
        |seen: &Seen, target: &str| match &seen.mounts.iter().find(|m| m.target == target).unwrap().source {
            ResolvedSource::Bind(path) => path.clone(),
            other => panic!("{other:?}"),
        };
    let seen = looks.last();
    assert_eq!(source(&seen, "/a"), source(&seen, "/b"), "the same cache twice");
    assert_ne!(source(&seen, "/a"), source(&seen, "/c"), "a private one is another while it is in use");
    // Another command has it for a moment.
    let folder = source(&seen, "/a").parent().unwrap().to_owned();
    let held = fs::File::open(&folder).unwrap();
    held.lock().unwrap();
    let moment = Duration::from_millis(300);
    let begin = Instant::now();
    let other = std::thread::spawn(move || {
        std::thread::sleep(moment);
        drop(held);
    });
    build(&twice.replace(" x\n", " y\n")).expect("it is let go").unwrap();
    other.join().unwrap();
    assert!(begin.elapsed() >= moment, "nobody else may use it: {:?}", begin.elapsed());
    // A private one is not waited for.
    let private = source(&seen, "/p").parent().unwrap().to_owned();
    let held = fs::File::open(&private).unwrap();
    held.lock().unwrap();
    build(&twice.replace(" x\n", " z\n")).expect("nobody waits").unwrap();
    assert!(!source(&looks.last(), "/p").starts_with(&private));
}

#[test]
fn a_bind_that_may_be_written_to_changes_nothing() {
    let fixture = Fixture::new();
    fixture.write("src/a", "a");
    let looks = Looks::default();
    for end in ["one", "two"] {
        fixture.try_build_with(&format!("FROM scratch\nRUN --mount=target=/src,rw {end}"), &looks).unwrap();
        let seen = looks.last();
        assert!(!seen.mounts[0].read_only);
        assert_eq!(seen.content.get("/src/left"), None, "each begins with what the context holds");
        assert_eq!(seen.content["/src/src/a"], "a");
    }
    assert!(!fixture.options.context.join("left").exists());
}

#[test]
fn scripts_of_the_dockerfile_are_run_by_what_they_name() {
    let fixture = Fixture::new();
    let looks = Looks::default();
    let dockerfile = "FROM scratch\nRUN <<EOF\n#!/usr/bin/env python3\nprint(1)\nEOF\n";
    fixture.try_build_with(dockerfile, &looks).unwrap();
    let seen = looks.last();
    assert_eq!(seen.args, ["/dev/pipes/EOF"]);
    assert_eq!(seen.content["/dev/pipes/EOF"], "#!/usr/bin/env python3\nprint(1)\n");
    assert_eq!(seen.modes["/dev/pipes/EOF"], 0o755);
    let (_, steps) = fixture.try_build_with(&dockerfile.replace("(1)", "(2)"), &looks).unwrap();
    assert_eq!(steps.fresh(), ["RUN"], "another script is another step");
    let plain = "FROM scratch\nSHELL [\"/bin/bash\", \"-c\"]\nRUN <<EOF\na\nb\nEOF\n";
    fixture.try_build_with(plain, &looks).unwrap();
    assert_eq!(looks.last().args, ["/bin/bash", "-c", "a\nb\n"]);
}

#[test]
fn what_cannot_be_mounted_is_said_at_its_line() {
    let fixture = Fixture::new();
    for (line, said) in [
        ("--mount=type=secret,id=x,required=true", "the secret \"x\" is required and not given"),
        ("--mount=source=nothing,target=/a", "there is no \"nothing\" to copy"),
        ("--mount=type=tmpfs,target=/", "nothing can be mounted over the root"),
        ("--mount=type=cache,target=/a,from=base", "a cache that begins with files"),
        ("--mount=from=later,target=/a", "is not an earlier one"),
    ] {
        fixture.write("Dockerfile", format!("FROM scratch\nRUN {line} x\nFROM scratch AS later"));
        let options = BuildOptions { target: Some("0".into()), ..fixture.options.clone() };
        let looks = Looks::default();
        let built = throng_image::build(&fixture.store, &options, &looks, &throng_image::Silent);
        let error = common::block_on(built).unwrap_err().to_string();
        assert!(error.contains("Dockerfile:2:1: error: RUN:") && error.contains(said), "{line}: {error}");
    }
}

#[test]
fn platforms_that_are_this_machines_own_are_taken() {
    let fixture = Fixture::new();
    fixture.write("a", "a");
    fixture.build("FROM --platform=$BUILDPLATFORM scratch\nCOPY a /");
    fixture
        .build(&format!("FROM --platform=linux/{} scratch\nCOPY a /", throng_image::machine_architecture()));
    let error = fixture.build_error("FROM --platform=plan9/vax scratch\nCOPY a /");
    assert!(error.contains("Dockerfile:1:1: error: FROM: --platform: nothing for plan9/vax"), "{error}");
}

#[test]
fn needed_images_are_those_of_the_stages_that_are_built() {
    let mut fixture = Fixture::new();
    let text = "ARG BASE=debian:12
FROM $BASE AS one
RUN --mount=from=tool:1,target=/t x
FROM nobody AS unused
FROM one
COPY --from=busybox /bin/x /x
COPY --from=one /a /b
COPY --from=shared /a /c
FROM scratch
";
    fixture.options.text = Some(text.into());
    fixture.options.target = Some("2".into());
    fixture.options.contexts = [("shared".to_owned(), ContextSource::Folder("/".into()))].into();
    let needed = needed_images(&fixture.options).unwrap();
    let places: Vec<(&str, usize)> = needed.iter().map(|(name, place)| (name.as_str(), place.line)).collect();
    assert_eq!(places, [("debian:12", 2), ("tool:1", 3), ("busybox", 6)]);
    fixture.options.args = [("BASE".to_owned(), "other".to_owned())].into();
    assert_eq!(needed_images(&fixture.options).unwrap()[0].0, "other");
    fixture.options.target = None;
    assert!(needed_images(&fixture.options).unwrap().is_empty());
}

#[test]
fn a_dockerfile_may_be_given_as_text() {
    let mut fixture = Fixture::new();
    fixture.write("a", "a");
    fixture.options.text = Some("FROM scratch\nCOPY a /from-text\n".into());
    fixture.options.labels = [("by".to_owned(), "text".to_owned())].into();
    fixture.options.tags = vec!["one".into(), "two:2".into()];
    let (image, _) = fixture.build("FROM nothing at all");
    assert!(files(&fixture, &image).contains_key("from-text"));
    assert_eq!(image.config.labels["by"], "text");
    assert_eq!(fixture.names(), ["one:latest", "two:2"]);
}
