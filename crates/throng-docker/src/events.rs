//! The daemon's events: ends of containers, as they happen.

use crate::docker::Core;
use crate::errors::{chain, daemon};
use crate::labels;
use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptionsBuilder;
use futures_util::{Stream, StreamExt, stream};
use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use throng_model::replica::ReplicaState;
use throng_runtime::Result;
use tokio_util::sync::CancellationToken;

/// How long to wait before a daemon that has gone is asked again.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Ends that are looked at at the same time.
const LOOKS_AT_ONCE: usize = 16;

type Events = Pin<Box<dyn Stream<Item = std::result::Result<EventMessage, bollard::errors::Error>> + Send>>;

impl Core {
    /// Follows the daemon's events from now on until the token is cancelled.
    pub fn follow(self: Arc<Self>, end: CancellationToken) {
        // The daemon keeps its last events, so that none is missed before it has taken the question in.
        let events = self.subscribe(SystemTime::now());
        tokio::spawn(async move {
            tokio::select! {
                () = self.follow_for_ever(events) => {}
                () = end.cancelled() => {}
            }
        });
    }

    fn subscribe(&self, since: SystemTime) -> Events {
        let filters = HashMap::from([
            ("type", vec!["container".to_owned()]),
            ("event", vec!["die".to_owned()]),
            ("label", vec![format!("{}={}", labels::HOME, self.home)]),
        ]);
        let since = since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let since = format!("{}.{:09}", since.as_secs(), since.subsec_nanos());
        Box::pin(
            self.api.events(Some(EventsOptionsBuilder::default().since(&since).filters(&filters).build())),
        )
    }

    async fn follow_for_ever(&self, mut events: Events) {
        loop {
            let told = std::mem::replace(&mut events, Box::pin(stream::empty()));
            let ended = told.for_each_concurrent(LOOKS_AT_ONCE, |event| async {
                match event {
                    Ok(event) => self.ended(event).await,
                    Err(error) => tracing::warn!("Docker's events broke off: {}", chain(&error)),
                }
            });
            ended.await;
            loop {
                tokio::time::sleep(AGAIN_AFTER).await;
                if self.api.ping().await.is_ok() {
                    break;
                }
            }
            events = self.subscribe(SystemTime::now());
            // What has happened in between nobody tells any more.
            self.look_at_all().await;
        }
    }

    async fn ended(&self, event: EventMessage) {
        let container = event.actor.and_then(|actor| actor.id).unwrap_or_default();
        let Some(replica) = self.by_container(&container) else { return };
        if let Err(error) = self.look(&replica).await {
            tracing::warn!("{error}");
        }
    }

    async fn look_at_all(&self) {
        let running = self.all().into_iter().filter(|replica| replica.running().is_some());
        stream::iter(running)
            .for_each_concurrent(LOOKS_AT_ONCE, |replica| async move {
                if let Err(error) = self.look(&replica).await {
                    tracing::warn!("{error}");
                }
            })
            .await;
    }

    /// Waits until the replica runs no more, at most so long. True if it has ended.
    pub async fn ends_within(&self, replica: &crate::replica::Replica, limit: Duration) -> Result<bool> {
        /// How often the container is looked at even though no event has come.
        const LOOK_EVERY: Duration = Duration::from_secs(1);
        let mut changed = replica.changed.subscribe();
        let deadline = tokio::time::Instant::now() + limit;
        loop {
            if !matches!(replica.inner().state, ReplicaState::Running { .. }) {
                return Ok(true);
            }
            let now = tokio::time::Instant::now();
            if now >= deadline {
                return Ok(false);
            }
            let wait = LOOK_EVERY.min(deadline - now);
            if tokio::time::timeout(wait, changed.changed()).await.is_err() {
                self.look(replica).await?;
            }
        }
    }

    /// Carries out one request of the daemon about a replica, with few others at the same time.
    pub async fn order<T>(
        &self,
        what: impl std::fmt::Display,
        request: impl Future<Output = std::result::Result<T, bollard::errors::Error>>,
    ) -> Result<T> {
        // The semaphore is never closed.
        let _permit = self.orders.acquire().await;
        request.await.map_err(|error| daemon(what, error))
    }
}
