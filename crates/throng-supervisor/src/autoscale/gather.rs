//! Getting what a decision needs: usage of replicas, and texts of endpoints. It decides nothing.

use super::ask::{self, Place};
use super::series::{self, Found};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use throng_autoscale::selector::Selector;
use throng_model::replica::{ReplicaId, Statistics};
use throng_proxy::Dial;
use throng_runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Endpoints that are asked at once.
const ASKED_AT_ONCE: usize = 32;
/// The longest all of it may take, if the sync period is longer.
const GATHERED_WITHIN: Duration = Duration::from_secs(5);

/// A value that is wanted: a metric of the spec, by its place there, of one replica or of all.
pub type Subject = (usize, Option<u32>);

/// What is to be got.
#[derive(Default)]
pub struct Inquiry {
    /// Replicas whose usage is to be read, with the generations that they are of.
    pub usage: Vec<(u64, ReplicaId)>,
    /// Which series are to be found in which text.
    pub asks: BTreeMap<Place, Vec<(Subject, Series)>>,
    pub within: Duration,
}

#[derive(Clone)]
pub struct Series {
    pub name: String,
    pub selector: Arc<Selector>,
}

/// What was got.
pub struct Gathered {
    /// When usage was read.
    pub at: Instant,
    /// Ordinal, generation, and what was read.
    pub usage: Vec<(u32, u64, Option<Statistics>)>,
    pub found: BTreeMap<Subject, Sighting>,
}

/// A series, and when it was seen; or why it was not.
pub type Sighting = (Instant, Result<Found, String>);

pub async fn gather(runtime: Arc<dyn Runtime>, dial: Dial, inquiry: Inquiry) -> Gathered {
    let within = inquiry.within.min(GATHERED_WITHIN);
    let (usage, found) = tokio::join!(usage(runtime, inquiry.usage), find(dial, inquiry.asks, within));
    Gathered { at: usage.0, usage: usage.1, found }
}

async fn usage(
    runtime: Arc<dyn Runtime>,
    of: Vec<(u64, ReplicaId)>,
) -> (Instant, Vec<(u32, u64, Option<Statistics>)>) {
    if of.is_empty() {
        return (Instant::now(), Vec::new());
    }
    let (generations, ids): (Vec<u64>, Vec<ReplicaId>) = of.into_iter().unzip();
    let statistics = runtime.statistics(&ids).await;
    let at = Instant::now();
    let read = ids.into_iter().zip(generations).zip(statistics);
    (at, read.map(|((id, generation), read)| (id.ordinal, generation, read)).collect())
}

async fn find(
    dial: Dial,
    asks: BTreeMap<Place, Vec<(Subject, Series)>>,
    within: Duration,
) -> BTreeMap<Subject, Sighting> {
    let deadline = tokio::time::Instant::now() + within;
    let places = Arc::new(Semaphore::new(ASKED_AT_ONCE));
    let mut tasks = JoinSet::new();
    for (place, wanted) in asks {
        let (dial, places) = (dial.clone(), places.clone());
        tasks.spawn(async move {
            let _place = places.acquire_owned().await;
            let text = ask::text(&place, &dial, deadline).await;
            let at = Instant::now();
            let sighting = |series: &Series| {
                let text = text.as_ref().map_err(String::clone)?;
                let found = series::find(text, &series.name, &series.selector)
                    .map_err(|error| format!("{place}: {error}"))?;
                match found.series.is_empty() {
                    true => Err(format!("{place}: it has no series {} that is meant", series.name)),
                    false => Ok(found),
                }
            };
            wanted.iter().map(|(subject, series)| (*subject, (at, sighting(series)))).collect::<Vec<_>>()
        });
    }
    let mut found = BTreeMap::new();
    while let Some(sightings) = tasks.join_next().await {
        // One that panicked has found nothing, which is told as a metric that is missing.
        found.extend(sightings.unwrap_or_default());
    }
    found
}
