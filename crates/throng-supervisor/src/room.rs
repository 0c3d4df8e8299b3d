//! Room on the disk: which images must stay, and which go when it gets full.

use crate::actor::{Fixed, Order};
use crate::client::projects;
use crate::listing::images_of;
use crate::paths::Paths;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use throng_image::{Collected, Disk, Needed, Removed, Watermarks};
use throng_model::units::format_bytes;
use tokio::sync::{mpsc, oneshot};

/// How often a supervisor looks at the disk. kubelet collects images every five minutes, too (`ImageGCPeriod`).
const LOOK_EVERY: Duration = Duration::from_secs(300);
/// In percent; 100 and more turns it off.
const HIGH: &str = "THRONG_DISK_HIGH_PERCENT";
const LOW: &str = "THRONG_DISK_LOW_PERCENT";
/// Moves [`LOOK_EVERY`], in seconds.
const PERIOD: &str = "THRONG_DISK_PERIOD";
/// Moves the least age of an image that goes, in seconds.
const MIN_AGE: &str = "THRONG_DISK_MIN_AGE";

/// What all apps of this user, up or only recorded, and their replicas are made of.
pub fn needed(paths: &Paths) -> Needed {
    let references = projects(paths).iter().flat_map(|project| images_of(paths, project)).collect();
    Needed { references, layers: throng_engine::layers_in_use(&paths.engine()) }
}

/// Looks at the disk again and again, and has the app's events say what went.
pub async fn keep(fixed: Arc<Fixed>, orders: mpsc::Sender<Order>) {
    let marks = marks();
    let period = number(PERIOD).map_or(LOOK_EVERY, Duration::from_secs);
    loop {
        tokio::time::sleep(period).await;
        let disk = || Disk::of(fixed.store.root());
        // Who cannot be asked now is asked again next time.
        let Ok(before) = disk() else { continue };
        if !marks.is_reached(before) {
            continue;
        }
        let message = match make_room(&fixed, &orders, marks).await {
            Ok(gone) => report(&marks, before, disk().unwrap_or(before), &gone),
            Err(error) => format!("cannot make room on the disk: {error}"),
        };
        let said = Order::Say { kind: "warning", subject: "disk".into(), message };
        if orders.send(said).await.is_err() {
            return;
        }
    }
}

/// What went.
#[derive(Default)]
struct Gone {
    images: Collected,
    /// Replicas of this app whose writable layers were emptied.
    replicas: u32,
}

/// Images first: they can be had again. What replicas have written cannot, so it goes only where that was not enough,
/// and only of replicas that have ended for good.
async fn make_room(fixed: &Fixed, orders: &mpsc::Sender<Order>, marks: Watermarks) -> Result<Gone, String> {
    let (store, paths) = (fixed.store.clone(), fixed.paths.clone());
    let collect =
        move || store.collect_by_marks(&marks, &needed(&paths), SystemTime::now(), || Disk::of(store.root()));
    let collected = tokio::task::spawn_blocking(collect).await.map_err(|error| error.to_string())?;
    let mut gone = Gone { images: collected.map_err(|error| error.to_string())?, replicas: 0 };
    if Disk::of(fixed.store.root()).is_ok_and(|disk| marks.is_reached(disk)) {
        let (reply, ended) = oneshot::channel();
        if orders.send(Order::Ended { reply }).await.is_ok() {
            let ids = ended.await.unwrap_or_default();
            gone.replicas = fixed.runtime.shed(&ids).await.map_err(|error| error.to_string())?;
        }
    }
    Ok(gone)
}

fn report(marks: &Watermarks, before: Disk, after: Disk, gone: &Gone) -> String {
    let names: Vec<&str> = gone
        .images
        .removed
        .iter()
        .filter_map(|removed| match removed {
            Removed::Untagged(name) => Some(name.as_str()),
            Removed::Deleted(_) => None,
        })
        .collect();
    let images = match (gone.images.removed.is_empty(), names.is_empty()) {
        (true, _) => "no unused image is left to remove".to_owned(),
        (_, true) => format!("removed images without a name ({})", format_bytes(gone.images.bytes)),
        _ => format!("removed {} ({})", names.join(", "), format_bytes(gone.images.bytes)),
    };
    let replicas = match gone.replicas {
        0 => String::new(),
        count => format!("; emptied the writable layers of {count} ended replicas"),
    };
    let short = if marks.is_below_low(after) {
        String::new()
    } else {
        format!("; it is still {} % full: make room, or see `throng prune --help`", after.used_percent())
    };
    let full = before.used_percent();
    format!("the disk is {full} % full ({HIGH}={}): {images}{replicas}{short}", marks.high_percent)
}

fn marks() -> Watermarks {
    let default = Watermarks::default();
    let percent = |name| number(name).map(|value| value.min(100) as u8);
    let high_percent = percent(HIGH).unwrap_or(default.high_percent);
    Watermarks {
        high_percent,
        low_percent: percent(LOW).unwrap_or(default.low_percent).min(high_percent),
        min_age: number(MIN_AGE).map_or(default.min_age, Duration::from_secs),
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_said_in_one_line() {
        let marks = Watermarks::default();
        let disk = |used: u64| Disk { capacity: 100, available: 100 - used };
        let removed = vec![Removed::Untagged("a:1".into()), Removed::Deleted("sha256:1".into())];
        let gone = Gone { images: Collected { removed, bytes: 3 << 20 }, replicas: 0 };
        assert_eq!(
            report(&marks, disk(90), disk(79), &gone),
            "the disk is 90 % full (THRONG_DISK_HIGH_PERCENT=85): removed a:1 (3.0 MiB)"
        );
        assert_eq!(
            report(&marks, disk(91), disk(91), &Gone { replicas: 2, ..Gone::default() }),
            "the disk is 91 % full (THRONG_DISK_HIGH_PERCENT=85): no unused image is left to remove; emptied the \
             writable layers of 2 ended replicas; it is still 91 % full: make room, or see `throng prune --help`"
        );
    }
}
