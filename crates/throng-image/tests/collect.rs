//! Which images go, which stay, and when they go by themselves.
#![allow(clippy::unwrap_used, reason = "a test ends where something unexpected happens")]

mod common;

use common::Fixture;
use std::fs;
use std::time::{Duration, SystemTime};
use throng_image::{Collected, Disk, Image, Needed, Removed, Watermarks, Which};

/// Three images on one base, each with a layer and a name of its own.
fn three(fixture: &Fixture) -> Vec<Image> {
    fixture.write("shared", "s".repeat(1000));
    fixture.build("FROM scratch\nCOPY shared /");
    fixture.store.tag("test/app:1", "base").unwrap();
    let one = |name: &&str| {
        fixture.write(name, name.repeat(1000));
        let (image, _) = fixture.build(&format!("FROM base\nCOPY {name} /"));
        fixture.store.tag("test/app:1", name).unwrap();
        image
    };
    let images = ["one", "two", "three"].iter().map(one).collect();
    fixture.store.remove("test/app:1", &Needed::default()).unwrap();
    images
}

#[test]
fn what_apps_and_replicas_are_made_of_stays() {
    let fixture = Fixture::new();
    let images = three(&fixture);
    let layers = fixture.store.layers(&images[1]).unwrap();
    fixture.store.layers(&images[2]).unwrap();
    // A replica still runs from the second image, whose name another one has now.
    fixture.store.tag("one", "two").unwrap();
    let needed = Needed {
        references: ["three".into(), "missing".into(), "Not A Name".into()].into(),
        layers: layers.iter().cloned().collect(),
    };
    assert!(fixture.store.unneeded(Which::Nameless, &needed).unwrap().is_empty());
    assert_eq!(fixture.store.unneeded(Which::Nameless, &Needed::default()).unwrap().len(), 1);

    let collected = fixture.store.prune(Which::All, &needed).unwrap();
    assert!(collected.removed.contains(&Removed::Deleted(images[0].id.clone())), "{collected:?}");
    assert!(collected.bytes > 0);
    // The base has a layer under the replica on top.
    assert_eq!(fixture.names(), ["base:latest", "three:latest", "<none>:<none>"]);
    assert!(layers.iter().all(|layer| layer.exists()));
    // Removing an image by name leaves the layers of those who still run from it.
    let mine = Needed { layers: fixture.store.layers(&images[2]).unwrap().into_iter().collect(), ..needed };
    fixture.store.remove("three", &mine).unwrap();
    assert!(mine.layers.iter().all(|layer| layer.exists()));
    let collected = fixture.store.prune(Which::All, &Needed::default()).unwrap();
    assert!(collected.bytes >= 1000, "{collected:?}");
    assert_eq!(fs::read_dir(fixture.store.root().join("blobs/sha256")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(fixture.store.root().join("l")).unwrap().count(), 0);
}

#[test]
fn a_full_disk_loses_the_images_used_longest_ago() {
    let fixture = Fixture::new();
    let images = three(&fixture);
    let now = SystemTime::now();
    let ago = |hours: u64| now - Duration::from_secs(3600 * hours);
    for (image, hours) in images.iter().zip([1, 3, 2]) {
        fixture.store.mark_used(image, ago(hours)).unwrap();
    }
    fixture.store.mark_used(&fixture.store.get("base").unwrap(), ago(9)).unwrap();
    let needed = Needed { references: ["base".into()].into(), ..Needed::default() };
    let marks = Watermarks::default();
    // A disk that each removed image makes a little emptier.
    let disk = |per_image: u64| {
        let store = fixture.store.clone();
        move || {
            Ok(Disk { capacity: 100, available: 10 + per_image * (4 - store.list().unwrap().len() as u64) })
        }
    };
    let below =
        fixture.store.collect_by_marks(&marks, &needed, now, || Ok(Disk { capacity: 100, available: 16 }));
    assert_eq!(below.unwrap(), Collected::default());
    // Two images more than ten percent: the third is spared.
    let collected = fixture.store.collect_by_marks(&marks, &needed, now, disk(5)).unwrap();
    let untagged: Vec<&Removed> =
        collected.removed.iter().filter(|r| matches!(r, Removed::Untagged(_))).collect();
    assert_eq!(
        untagged,
        [&Removed::Untagged("two:latest".into()), &Removed::Untagged("three:latest".into())]
    );
    assert_eq!(fixture.names(), ["base:latest", "one:latest"]);
    // Nothing is old enough, or not needed: no more can be done.
    fixture.store.mark_used(&images[0], now).unwrap();
    let collected = fixture.store.collect_by_marks(&marks, &needed, now, disk(0)).unwrap();
    assert_eq!(collected, Collected::default());
    assert_eq!(fixture.names(), ["base:latest", "one:latest"]);
}
