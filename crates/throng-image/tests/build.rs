//! Dockerfile to image.
#![allow(clippy::unwrap_used, reason = "a test ends where something unexpected happens")]

mod common;

use async_trait::async_trait;
use common::{Fixture, block_on, is_root, skip, tree};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use throng_image::{BuildOptions, RunStep, Silent, StepRunner, build};

const APP: &str = "\
ARG NAME=app
FROM scratch AS base
ENV GREETING=hello
WORKDIR /srv
COPY --chmod=755 bin/app /usr/bin/

FROM base AS unused
COPY missing /

FROM base
ARG NAME
LABEL name=$NAME
COPY --from=base /usr/bin/app /bin/$NAME
COPY conf conf/
EXPOSE 8080
USER 1000:1000
STOPSIGNAL SIGQUIT
HEALTHCHECK --interval=5s CMD [\"/bin/app\", \"check\"]
ENTRYPOINT [\"/bin/app\"]
CMD [\"serve\"]
";

fn app() -> Fixture {
    let fixture = Fixture::new();
    fixture.write("bin/app", "the program");
    fixture.write("conf/a.conf", "a");
    fixture.write("conf/sub/b.conf", "b");
    fixture
}

#[test]
fn stages_files_and_metadata() {
    let fixture = app();
    let (image, _) = fixture.build(APP);
    assert_eq!(image.reference, "docker.io/test/app:1");
    assert_eq!(image.config.entrypoint.as_deref(), Some(&["/bin/app".to_string()][..]));
    assert_eq!(image.config.cmd.as_deref(), Some(&["serve".to_string()][..]));
    assert_eq!(image.config.env_value("GREETING"), Some("hello"));
    assert!(image.config.env_value("PATH").is_some());
    assert_eq!(image.config.labels["name"], "app");
    assert_eq!((image.config.user.as_str(), image.config.working_dir.as_str()), ("1000:1000", "/srv"));
    assert_eq!(image.config.stop_signal.as_deref(), Some("SIGQUIT"));
    assert_eq!(image.config.healthcheck.as_ref().unwrap().interval, 5_000_000_000);
    assert!(image.config.exposed_ports.contains("8080/tcp"));

    let layers = fixture.store.layers(&image).unwrap();
    assert_eq!(layers.len(), 4);
    assert!(tree(&layers[0]).keys().eq(["srv/"]));
    assert_eq!(tree(&layers[1])["usr/bin/app"], "the program");
    assert_eq!(fs::metadata(layers[1].join("usr/bin/app")).unwrap().mode() & 0o777, 0o755);
    assert_eq!(fs::metadata(layers[1].join("usr/bin/app")).unwrap().mtime(), 0);
    assert!(tree(&layers[2]).keys().eq(["bin/", "bin/app"]));
    assert!(tree(&layers[3]).keys().eq([
        "srv/",
        "srv/conf/",
        "srv/conf/a.conf",
        "srv/conf/sub/",
        "srv/conf/sub/b.conf"
    ]));
}

#[test]
fn the_same_input_gives_the_same_id_and_costs_nothing_the_second_time() {
    let fixture = app();
    let (first, steps) = fixture.build(APP);
    assert_eq!(steps.fresh(), ["WORKDIR", "COPY", "COPY", "COPY"]);
    let (second, steps) = fixture.build(APP);
    assert_eq!(steps.fresh(), Vec::<String>::new());
    assert_eq!((&first.id, &first.manifest_digest), (&second.id, &second.manifest_digest));

    // Another store, another time, another modification time: still the same image.
    let elsewhere = app();
    let old = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000);
    fs::File::options()
        .write(true)
        .open(elsewhere.options.context.join("bin/app"))
        .unwrap()
        .set_modified(old)
        .unwrap();
    assert_eq!(elsewhere.build(APP).0.id, first.id);
}

#[test]
fn a_changed_file_runs_its_step_and_those_above_again() {
    let fixture = app();
    let (first, _) = fixture.build(APP);
    fixture.write("conf/a.conf", "changed");
    let (second, steps) = fixture.build(APP);
    assert_eq!(steps.fresh(), ["COPY"]);
    assert_ne!(first.id, second.id);
    // The old image lost its name, not its existence, until it is removed.
    assert_eq!(fixture.names(), ["test/app:1", "<none>:<none>"]);
    fixture.store.prune(throng_image::Which::Nameless, &throng_image::Needed::default()).unwrap();
    assert_eq!(fixture.names(), ["test/app:1"]);
    assert_eq!(fixture.store.layers(&fixture.store.get("test/app:1").unwrap()).unwrap().len(), 4);
}

#[test]
fn no_cache_and_build_arguments() {
    let mut fixture = app();
    let (_, steps) =
        fixture.build("FROM scratch\nARG V=1\nARG OTHER=${V}0\nENV V=$V O=$OTHER\nCOPY bin/app /");
    assert_eq!(steps.fresh(), ["COPY"]);
    fixture.options.no_cache = true;
    fixture.options.args = [("V".to_string(), "2".to_string()), ("LOST".to_string(), "x".to_string())].into();
    let (image, steps) =
        fixture.build("FROM scratch\nARG V=1\nARG OTHER=${V}0\nENV V=$V O=$OTHER\nCOPY bin/app /");
    assert_eq!(steps.fresh(), ["COPY"]);
    assert_eq!((image.config.env_value("V"), image.config.env_value("O")), (Some("2"), Some("20")));
    assert!(steps.warnings.lock().unwrap()[0].contains("LOST"));
}

#[test]
fn dockerignore_wildcards_and_links() {
    let fixture = Fixture::new();
    for name in ["a.txt", "b.txt", "secret.txt", "d/c.txt", "d/skip/x", "d/skip/keep"] {
        fixture.write(name, name);
    }
    fixture.write(".dockerignore", "secret*\nd/skip\n!d/skip/keep\n.dockerignore\nDockerfile\n");
    std::os::unix::fs::symlink("c.txt", fixture.options.context.join("d/link")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", fixture.options.context.join("out")).unwrap();
    let (image, _) = fixture.build("FROM scratch\nCOPY *.txt /t/\nCOPY d /d\n");
    let layers = fixture.store.layers(&image).unwrap();
    assert!(tree(&layers[0]).keys().eq(["t/", "t/a.txt", "t/b.txt"]));
    let copied = tree(&layers[1]);
    assert!(copied.keys().eq(["d/", "d/c.txt", "d/link", "d/skip/", "d/skip/keep"]));
    assert_eq!(copied["d/link"], "-> c.txt");
    let error = fixture.build_error("FROM scratch\nCOPY secret.txt /");
    assert!(
        error.contains("Dockerfile:2:1: error: COPY: there is no \"secret.txt\"")
            && error.contains(".dockerignore"),
        "{error}"
    );
    // A link that points out of the context is resolved inside of it, where nothing is.
    assert!(fixture.build_error("FROM scratch\nCOPY out /").contains("there is no \"out\""));
    assert!(fixture.build_error("FROM scratch\nCOPY ../x /").contains("outside of the build context"));
}

#[test]
fn add_unpacks_local_archives_and_copy_does_not() {
    let fixture = Fixture::new();
    let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
    let mut header = tar::Header::new_gnu();
    header.set_size(2);
    header.set_mode(0o640);
    tar.append_data(&mut header, "x/y", &b"hi"[..]).unwrap();
    fixture.write("a.tar.gz", tar.into_inner().unwrap().finish().unwrap());
    fixture.write("plain", "no archive");
    let (image, _) = fixture.build("FROM scratch\nADD a.tar.gz plain /to/\nCOPY a.tar.gz /");
    let layers = fixture.store.layers(&image).unwrap();
    assert!(tree(&layers[0]).keys().eq(["to/", "to/plain", "to/x/", "to/x/y"]));
    assert!(tree(&layers[1]).keys().eq(["a.tar.gz"]));
    let error = fixture.build_error("FROM scratch\nADD https://example.org/x /");
    assert!(error.contains("Dockerfile:2:1: error: ADD: fetching"), "{error}");
}

#[test]
fn owners_come_from_the_image_and_links_of_the_base_are_followed() {
    let fixture = Fixture::new();
    fixture.write("passwd", "app:x:100:200::/:\n");
    fixture.write("file", "x");
    fs::create_dir_all(fixture.options.context.join("root/usr/lib")).unwrap();
    std::os::unix::fs::symlink("usr/lib", fixture.options.context.join("root/lib")).unwrap();
    let base = "FROM scratch\nCOPY root /\nCOPY passwd /etc/passwd\nCOPY --chown=app file /lib/\n";
    let (image, _) = fixture.build(base);
    let layers = fixture.store.layers(&image).unwrap();
    assert!(tree(&layers[2]).keys().eq(["usr/", "usr/lib/", "usr/lib/file"]));
    let (image, _) = fixture.build(&format!("{base}FROM scratch\nCOPY --from=0 /lib/file /"));
    let copied = fixture.store.layers(&image).unwrap().remove(0);
    if is_root() {
        for path in [layers[2].join("usr/lib/file"), copied.join("file")] {
            let metadata = fs::metadata(path).unwrap();
            assert_eq!((metadata.uid(), metadata.gid()), (100, 200));
        }
    }
    assert!(fixture.build_error("FROM scratch\nCOPY --chown=nobody file /").contains("no user \"nobody\""));
}

#[test]
fn what_cannot_be_done_names_its_line_and_leaves_nothing() {
    let fixture = app();
    let before = common::inventory(fixture.store.root());
    for (dockerfile, expected) in [
        (
            "FROM scratch\nCOPPY a b",
            "Dockerfile:2:1: error: unknown instruction \"COPPY\" (hint: did you mean COPY?)",
        ),
        ("FROM no/such", "Dockerfile:1:1: error: FROM: the image no/such is not in the local store"),
        (
            "FROM scratch\nCOPY --from=later x /\nFROM scratch AS later",
            "COPY: the stage \"later\" is not an earlier one",
        ),
        ("FROM scratch\n\nRUN true", "Dockerfile:3:1: error: RUN: the command could not be run"),
        ("FROM scratch\nENV a=${b:?must be set}", "Dockerfile:2:1: error: ENV: variable b: must be set"),
        ("FROM scratch\nCOPY bin/app conf/a.conf /x", "COPY: several sources cannot all become /x"),
        ("FROM scratch\nCOPY --chmod=rwx bin/app /x", "COPY: --chmod: \"rwx\""),
        ("FROM ${NOTHING}", "FROM: \"${NOTHING}\" gives \"\""),
    ] {
        let mut options = fixture.options.clone();
        options.target = dockerfile.contains("later x").then(|| "0".into());
        fixture.write("Dockerfile", dockerfile);
        let error = block_on(build(&fixture.store, &options, &throng_image::NoRunner, &Silent)).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(expected), "{dockerfile:?} gave {text}");
    }
    assert_eq!(common::inventory(fixture.store.root()), before);
    let options = BuildOptions { target: Some("none".into()), ..fixture.options.clone() };
    fixture.write("Dockerfile", APP);
    let error = block_on(build(&fixture.store, &options, &throng_image::NoRunner, &Silent)).unwrap_err();
    assert!(error.to_string().contains("no stage \"none\""), "{error}");
}

/// Plays a command that changes files, and leaves them the way overlayfs does.
struct Changes;

#[async_trait]
impl StepRunner for Changes {
    async fn run(&self, step: RunStep) -> Result<i32, String> {
        step.output.send(b"working\n".to_vec()).await.map_err(|error| error.to_string())?;
        if step.process.args.last().is_some_and(|text| text.contains("false")) {
            return Ok(3);
        }
        assert_eq!(step.process.args[..2], ["/bin/sh", "-c"]);
        assert!(step.process.env.contains(&"MODE=fast".to_string()));
        assert_eq!(step.layers.len(), 1);
        let etc = step.upper.join("etc");
        fs::create_dir(&etc).unwrap();
        fs::write(etc.join("new"), "made").unwrap();
        fs::set_permissions(etc.join("new"), fs::Permissions::from_mode(0o4755)).unwrap();
        fs::hard_link(etc.join("new"), etc.join("same")).unwrap();
        let device = rustix::fs::FileType::CharacterDevice;
        rustix::fs::mknodat(rustix::fs::CWD, etc.join("old"), device, rustix::fs::Mode::empty(), 0).unwrap();
        fs::create_dir(step.upper.join("data")).unwrap();
        let name = if is_root() { "trusted.overlay.opaque" } else { "user.overlay.opaque" };
        rustix::fs::setxattr(step.upper.join("data"), name, b"y", rustix::fs::XattrFlags::empty()).unwrap();
        Ok(0)
    }
}

#[test]
fn a_run_step_is_captured_with_what_it_removed() {
    let fixture = Fixture::new();
    let probe = rustix::fs::setxattr(
        fixture.dir.path(),
        if is_root() { "trusted.overlay.opaque" } else { "user.overlay.opaque" },
        b"y",
        rustix::fs::XattrFlags::empty(),
    );
    if probe.is_err() {
        return skip(
            "a_run_step_is_captured_with_what_it_removed",
            "the file system keeps no overlay attributes",
        );
    }
    fixture.write("root/etc/old", "x");
    fixture.write("root/data/hidden", "x");
    let dockerfile = "FROM scratch\nARG MODE=fast\nCOPY root /\nRUN change things";
    let (image, steps) = fixture.try_build_with(dockerfile, &Changes).unwrap();
    assert_eq!(*steps.output.lock().unwrap(), b"working\n");
    let layers = fixture.store.layers(&image).unwrap();
    let top = tree(&layers[1]);
    assert!(top.keys().eq(["data/", "etc/", "etc/new", "etc/old", "etc/same"]), "{top:?}");
    assert_eq!(top["etc/old"], "special");
    let (new, same) =
        (fs::metadata(layers[1].join("etc/new")).unwrap(), fs::metadata(layers[1].join("etc/same")).unwrap());
    assert_eq!((new.ino(), new.mode() & 0o7777), (same.ino(), 0o4755));
    // A later stage sees neither what was removed nor what the opaque folder hides.
    let later = format!("{dockerfile}\nFROM scratch\nCOPY --from=0 /etc /data /all/");
    let (image, steps) = fixture.try_build_with(&later, &Changes).unwrap();
    assert_eq!(steps.fresh(), ["COPY"]);
    let copied = tree(&fixture.store.layers(&image).unwrap()[0]);
    assert!(copied.keys().eq(["all/", "all/new", "all/same"]), "{copied:?}");

    let error =
        fixture.try_build_with("FROM scratch\nRUN false", &Changes).map(|(image, _)| image.id).unwrap_err();
    assert!(
        error.to_string().contains("Dockerfile:2:1: error: RUN: the command ended with exit code 3"),
        "{error}"
    );
}

/// Mounts a real overlay, as an engine would, and changes files in it.
struct Overlay;

/// Unmounts when dropped, also when an assertion fails.
struct Mounted(std::path::PathBuf);

impl Mounted {
    /// `layers` bottom first; with an upper and a work folder it can be written to.
    fn new(
        at: std::path::PathBuf,
        layers: &[std::path::PathBuf],
        upper: Option<[&std::path::Path; 2]>,
    ) -> Option<Mounted> {
        fs::create_dir_all(&at).unwrap();
        let below: Vec<String> = layers.iter().rev().map(|layer| layer.display().to_string()).collect();
        let mut options = format!("lowerdir={},redirect_dir=off,metacopy=off", below.join(":"));
        if let Some([upper, work]) = upper {
            options += &format!(",upperdir={},workdir={}", upper.display(), work.display());
        }
        let mounted = std::process::Command::new("mount")
            .args(["-t", "overlay", "overlay", "-o", &options])
            .arg(&at)
            .stderr(std::process::Stdio::null())
            .status();
        mounted.is_ok_and(|status| status.success()).then_some(Mounted(at))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(&self.0).status();
    }
}

#[async_trait]
impl StepRunner for Overlay {
    async fn run(&self, step: RunStep) -> Result<i32, String> {
        let at = step.upper.with_file_name("m");
        let mounted =
            Mounted::new(at, &step.layers, Some([&step.upper, &step.work])).ok_or("cannot mount")?;
        let root = &mounted.0;
        fs::remove_file(root.join("etc/old")).unwrap();
        fs::remove_dir_all(root.join("data")).unwrap();
        fs::create_dir(root.join("data")).unwrap();
        fs::write(root.join("data/fresh"), "fresh").unwrap();
        fs::rename(root.join("etc/keep"), root.join("etc/renamed")).unwrap();
        fs::create_dir_all(root.join("new/deep")).unwrap();
        fs::write(root.join("new/deep/file"), "deep").unwrap();
        fs::set_permissions(root.join("etc"), fs::Permissions::from_mode(0o700)).unwrap();
        Ok(0)
    }
}

#[test]
fn a_real_overlay_shows_what_the_layers_say() {
    let fixture = Fixture::new();
    for (name, content) in
        [("etc/old", "old"), ("etc/keep", "keep"), ("data/hidden", "hidden"), ("data/d/e", "e")]
    {
        fixture.write(&format!("root/{name}"), content);
    }
    let dockerfile = "FROM scratch\nCOPY root /\nCOPY root/etc/keep /etc/third\nRUN change\nFROM scratch\nCOPY --from=0 / /";
    let outcome = fixture.try_build_with(dockerfile, &Overlay);
    let Ok((flat, _)) = outcome else {
        let error = outcome.map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("cannot mount"), "{error}");
        return skip("a_real_overlay_shows_what_the_layers_say", "this user cannot mount an overlay");
    };
    let expected =
        ["data/", "data/fresh", "etc/", "etc/renamed", "etc/third", "new/", "new/deep/", "new/deep/file"];
    // What COPY --from saw of the stage, without mounting it …
    let flat = tree(&fixture.store.layers(&flat).unwrap()[0]);
    assert!(flat.keys().eq(expected), "{flat:?}");

    // … is what the kernel shows of its layers after they went through tar and back.
    let options = BuildOptions { target: Some("0".into()), ..fixture.options.clone() };
    let image = block_on(build(&fixture.store, &options, &throng_image::NoRunner, &Silent)).unwrap();
    let layers = fixture.store.layers(&image).unwrap();
    assert_eq!(layers.len(), 3);
    let merged = Mounted::new(fixture.dir.path().join("merged"), &layers, None).unwrap();
    assert_eq!(tree(&merged.0), flat);
    assert_eq!(fs::metadata(merged.0.join("etc")).unwrap().mode() & 0o777, 0o700);
}
