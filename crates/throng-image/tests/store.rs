//! The store: hostile layers, damage, removal, several users at once.
#![allow(clippy::unwrap_used, reason = "a test ends where something unexpected happens")]

mod common;

use common::{Fixture, is_root, tree};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use tar::{EntryType, Header};
use throng_image::{Image, ImageError, Limits, Needed, Removed, Store};

/// One entry of a layer; names may be as wrong as they like.
struct Item<'a> {
    kind: EntryType,
    name: &'a str,
    content: &'a str,
}

fn file<'a>(name: &'a str, content: &'a str) -> Item<'a> {
    Item { kind: EntryType::Regular, name, content }
}

fn link<'a>(kind: EntryType, name: &'a str, target: &'a str) -> Item<'a> {
    Item { kind, name, content: target }
}

fn layer(items: &[Item<'_>]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for item in items {
        let mut header = Header::new_gnu();
        header.set_entry_type(item.kind);
        header.set_mode(0o755);
        header.as_old_mut().name[..item.name.len()].copy_from_slice(item.name.as_bytes());
        let is_link = matches!(item.kind, EntryType::Link | EntryType::Symlink);
        if is_link {
            header.as_old_mut().linkname[..item.content.len()].copy_from_slice(item.content.as_bytes());
        }
        let content = if is_link || item.kind == EntryType::Char { "" } else { item.content };
        header.set_size(content.len() as u64);
        header.set_cksum();
        tar.append(&header, content.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap()
}

/// Loads an image of the given layers as a docker-archive.
fn load(store: &Store, layers: &[Vec<u8>]) -> Result<Image, ImageError> {
    let digest = |bytes: &[u8]| {
        use sha2::Digest as _;
        let hash = sha2::Sha256::digest(bytes);
        format!("sha256:{}", hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    };
    let diff_ids: Vec<String> = layers.iter().map(|layer| digest(layer)).collect();
    let config = serde_json::json!({
        "architecture": throng_image::machine_architecture(), "os": "linux", "config": {},
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let names: Vec<String> = (0..layers.len()).map(|at| format!("{at}.tar")).collect();
    let contents = serde_json::json!([{ "Config": "c.json", "RepoTags": ["hostile:1"], "Layers": names }]);
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |name: &str, bytes: &[u8]| {
        let mut header = Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, bytes).unwrap();
    };
    add("c.json", config.to_string().as_bytes());
    for (name, bytes) in names.iter().zip(layers) {
        add(name, bytes);
    }
    add("manifest.json", contents.to_string().as_bytes());
    Ok(store.load(tar.into_inner().unwrap().as_slice())?.remove(0))
}

fn unpack(store: &Store, layers: &[Vec<u8>]) -> Result<Vec<PathBuf>, ImageError> {
    store.layers(&load(store, layers)?)
}

#[test]
fn no_entry_leaves_its_layer() {
    let fixture = Fixture::new();
    let outside = fixture.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let outside_text = outside.to_string_lossy().into_owned();
    for items in [
        vec![file("../x", "")],
        vec![file("a/../../x", "")],
        vec![file("/etc/x", "")],
        vec![link(EntryType::Symlink, "l", &outside_text), file("l/x", "")],
        vec![link(EntryType::Symlink, "l", "../.."), file("l/x", "")],
        vec![link(EntryType::Symlink, "a", "b"), link(EntryType::Symlink, "b", "a"), file("a/x", "")],
        vec![link(EntryType::Link, "h", "../../index.json")],
        vec![link(EntryType::Symlink, "l", "/etc"), link(EntryType::Link, "h", "l/passwd")],
        vec![file("d/.wh...", "")],
        vec![Item { kind: EntryType::Char, name: "dev", content: "" }],
    ] {
        let name = items[items.len() - 1].name;
        let error = unpack(&fixture.store, &[layer(&items)]).unwrap_err();
        assert!(matches!(error, ImageError::UnsafeEntry { .. }), "{name}: {error}");
        fixture.store.remove("hostile:1", &Needed::default()).unwrap();
    }
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    assert_eq!(fs::read_dir(fixture.store.root().join("l")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(fixture.store.root().join("tmp")).unwrap().count(), 0);
}

#[test]
fn links_inside_a_layer_work() {
    let fixture = Fixture::new();
    let items = [
        file("usr/lib/a", "a"),
        link(EntryType::Symlink, "lib", "usr/lib"),
        file("lib/b", "b"),
        link(EntryType::Link, "hard", "usr/lib/a"),
        link(EntryType::Symlink, "abs", "/etc/passwd"),
    ];
    let layers = unpack(&fixture.store, &[layer(&items)]).unwrap();
    let tree = tree(&layers[0]);
    assert_eq!(
        (tree["usr/lib/b"].as_str(), tree["hard"].as_str(), tree["abs"].as_str()),
        ("b", "a", "-> /etc/passwd")
    );
    assert_eq!(fs::metadata(layers[0].join("hard")).unwrap().nlink(), 2);
}

#[test]
fn whiteouts_become_what_overlayfs_wants() {
    let fixture = Fixture::new();
    let low = layer(&[file("d/gone", "x"), file("d/stays", "x"), file("o/hidden", "x")]);
    let high = layer(&[
        file("d/.wh.gone", ""),
        file("o/.wh..wh..opq", ""),
        file("o/new", ""),
        file(".wh..wh.plnk", ""),
    ]);
    let layers = match unpack(&fixture.store, &[low, high]) {
        Err(ImageError::Io { action: "mark as opaque", .. }) => {
            return common::skip(
                "whiteouts_become_what_overlayfs_wants",
                "the file system keeps no attributes",
            );
        }
        outcome => outcome.unwrap(),
    };
    let gone = fs::symlink_metadata(layers[1].join("d/gone")).unwrap();
    assert_eq!(gone.rdev(), 0);
    assert!(tree(&layers[1]).keys().eq(["d/", "d/gone", "o/", "o/new"]));
    let name = if is_root() { "trusted.overlay.opaque" } else { "user.overlay.opaque" };
    let mut value = [0; 4];
    let length = rustix::fs::getxattr(layers[1].join("o"), name, &mut value[..]).unwrap();
    assert_eq!(&value[..length], b"y");
}

#[test]
fn folders_that_a_layer_only_implies_keep_their_mode() {
    let fixture = Fixture::new();
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Directory);
    header.set_mode(0o1777);
    header.set_size(0);
    tar.append_data(&mut header, "tmp/", &b""[..]).unwrap();
    let layers = unpack(&fixture.store, &[tar.into_inner().unwrap(), layer(&[file("tmp/x", "")])]).unwrap();
    assert_eq!(fs::metadata(layers[1].join("tmp")).unwrap().mode() & 0o7777, 0o1777);
}

#[test]
fn bombs_and_truncated_layers_are_refused() {
    let fixture = Fixture::new();
    let big = layer(&[file("a", &"x".repeat(3000))]);
    for limits in [
        Limits { unpacked_layer_bytes: 2000, ..Limits::default() },
        Limits { layer_entries: 0, ..Limits::default() },
    ] {
        let image = load(&fixture.store, std::slice::from_ref(&big)).unwrap();
        let strict = Store::open_with(fixture.store.root(), limits).unwrap();
        let error = strict.layers(&image).unwrap_err();
        assert!(matches!(error, ImageError::TooLarge { .. }), "{error}");
        assert!(error.hint().unwrap().contains("limit"));
    }
    let error = unpack(&fixture.store, &[big[..1500].to_vec()]).unwrap_err();
    assert!(matches!(error, ImageError::Corrupt { .. }), "{error}");
    assert_eq!(fs::read_dir(fixture.store.root().join("l")).unwrap().count(), 0);
}

#[test]
fn a_damaged_blob_is_named() {
    let fixture = Fixture::new();
    fixture.write("a", "x".repeat(10_000));
    let (image, _) = fixture.build("FROM scratch\nCOPY a /");
    let blobs = fixture.store.root().join("blobs/sha256");
    let config = blobs.join(&image.id[7..]);
    let good = fs::read(&config).unwrap();
    fs::write(&config, b"{}").unwrap();
    assert!(matches!(fixture.store.get("test/app:1").unwrap_err(), ImageError::DigestMismatch { .. }));
    fs::write(&config, good).unwrap();
    for entry in fs::read_dir(&blobs).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        if bytes.starts_with(&[0x1f, 0x8b]) {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0xff;
            fs::write(&path, bytes).unwrap();
        }
    }
    let error = fixture.store.layers(&image).unwrap_err();
    assert!(matches!(error, ImageError::Corrupt { .. } | ImageError::DigestMismatch { .. }), "{error}");
    assert_eq!(fs::read_dir(fixture.store.root().join("l")).unwrap().count(), 0);
    // It is of no use to anybody any more, so who builds again makes it again, as the hint says.
    assert!(error.hint().unwrap().contains("make it anew"), "{error}");
    let (again, steps) = fixture.build("FROM scratch\nCOPY a /");
    assert_eq!((steps.fresh(), &again.id), (vec!["COPY".to_owned()], &image.id));
    assert_eq!(fixture.store.layers(&again).unwrap().len(), 1);
    // The same of the small ones, which say what an image is.
    fs::write(&config, b"{}").unwrap();
    fixture.store.get("test/app:1").unwrap_err();
    fixture.build("FROM scratch\nCOPY a /");
    assert_eq!(fixture.store.get("test/app:1").unwrap().id, image.id);
}

#[test]
fn removal_untags_then_deletes_then_collects() {
    let fixture = Fixture::new();
    fixture.write("a", "shared");
    fixture.write("b", "own");
    let (base, _) = fixture.build("FROM scratch\nCOPY a /");
    fixture.store.tag("test/app:1", "base").unwrap();
    let (app, _) = fixture.build("FROM base\nCOPY b /");
    let shared = fixture.store.layers(&base).unwrap();
    let layers = fixture.store.layers(&app).unwrap();
    assert_eq!(layers[0], shared[0]);
    assert_eq!(fixture.store.find(&app.id).unwrap().unwrap().id, app.id);
    assert_eq!(fixture.store.find(&app.id[7..17]).unwrap().unwrap().id, app.id);
    assert!(fixture.store.find("nothing").unwrap().is_none());
    fixture.store.tag("base", "again").unwrap();
    assert!(matches!(
        fixture.store.remove(&base.id, &Needed::default()),
        Err(ImageError::SeveralNames { .. })
    ));
    let removed = fixture.store.remove("again", &Needed::default()).unwrap().removed;
    assert_eq!(removed, [Removed::Untagged("again:latest".into())]);

    let removed = fixture.store.remove("test/app:1", &Needed::default()).unwrap().removed;
    assert_eq!(removed[..2], [Removed::Untagged("test/app:1".into()), Removed::Deleted(app.id.clone())]);
    assert!(layers[0].exists() && !layers[1].exists());
    fixture.store.remove(&base.id, &Needed::default()).unwrap();
    assert_eq!(fixture.names(), Vec::<String>::new());
    for folder in ["blobs/sha256", "l", "cache", "tmp"] {
        assert_eq!(fs::read_dir(fixture.store.root().join(folder)).unwrap().count(), 0, "{folder}");
    }
    assert!(matches!(fixture.store.remove("base", &Needed::default()), Err(ImageError::NotFound { .. })));
}

#[test]
fn several_users_at_once_lose_nothing() {
    let fixture = Fixture::new();
    fixture.write("a", "x");
    let (image, _) = fixture.build("FROM scratch\nCOPY a /");
    std::thread::scope(|scope| {
        for user in 0..8 {
            let (root, image) = (fixture.store.root(), &image);
            scope.spawn(move || {
                let store = Store::open(root).unwrap();
                for round in 0..5 {
                    store.tag("test/app:1", &format!("name{user}:{round}")).unwrap();
                    assert_eq!(store.layers(image).unwrap().len(), 1);
                }
                store.remove(&format!("name{user}:0"), &Needed::default()).unwrap();
            });
        }
    });
    assert_eq!(fixture.names().len(), 1 + 8 * 4);
    assert_eq!(fs::read_dir(fixture.store.root().join("tmp")).unwrap().count(), 0);
}

#[test]
fn what_a_dead_process_left_is_swept() {
    let fixture = Fixture::new();
    let left = fixture.store.root().join("tmp/wdead");
    fs::create_dir_all(left.join("layer")).unwrap();
    symlink("/etc", left.join("layer/etc")).unwrap();
    Store::open(fixture.store.root()).unwrap();
    assert!(!left.exists() && Path::new("/etc").exists());
}

/// A small file system in memory; unmounted when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<SmallDisk> {
        let dir = tempfile::tempdir().unwrap();
        let status = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
            .arg(dir.path())
            .stderr(std::process::Stdio::null())
            .status();
        status.is_ok_and(|status| status.success()).then_some(SmallDisk(dir))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg(self.0.path()).status();
    }
}

#[test]
fn a_full_disk_is_named_and_nothing_is_half_made() {
    let Some(disk) = SmallDisk::mount() else {
        return common::skip(
            "a_full_disk_is_named_and_nothing_is_half_made",
            "this user cannot mount a tmpfs",
        );
    };
    let mut fixture = Fixture::new();
    fixture.store = Store::open(&disk.0.path().join("store")).unwrap();
    // Compresses well, so that the blob fits and the unpacked layer does not.
    fixture.write("zeros", vec![0; 8 << 20]);
    let (image, _) = fixture.build("FROM scratch\nCOPY zeros /");
    let error = fixture.store.layers(&image).unwrap_err();
    assert!(matches!(error, ImageError::NoSpace { .. }), "{error}");
    assert!(error.hint().unwrap().contains("free some space"));
    for folder in ["l", "tmp"] {
        assert_eq!(fs::read_dir(fixture.store.root().join(folder)).unwrap().count(), 0, "{folder}");
    }
    // And one whose blob does not fit either.
    let mut state = 1u32;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    fixture.write("noise", noise.take(2 << 20).collect::<Vec<u8>>());
    let text = fixture.build_error("FROM scratch\nCOPY noise /");
    assert!(
        text.contains("Dockerfile:2:1: error: COPY: no space left") && text.contains("free some space"),
        "{text}"
    );
    assert_eq!(fs::read_dir(fixture.store.root().join("tmp")).unwrap().count(), 0);
}

#[test]
fn a_store_of_another_version_is_left_alone() {
    let fixture = Fixture::new();
    fs::write(fixture.store.root().join("throng-store"), "99").unwrap();
    let error = Store::open(fixture.store.root()).unwrap_err();
    assert!(matches!(error, ImageError::Unsupported { .. }), "{error}");
}
