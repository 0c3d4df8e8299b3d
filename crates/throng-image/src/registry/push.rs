//! Store to registry.

use super::credentials::credentials;
use super::{PushOptions, TransferEvent, TransferProgress, client, registry_error};
use crate::build::{blocking, in_use};
use crate::error::{ImageError, Result};
use crate::limits::MAX_MANIFEST_BYTES;
use crate::reference::parse_reference;
use crate::store::Store;
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use http::HeaderValue;
use oci_client::errors::OciDistributionError;
use oci_client::{Client, Reference, RegistryOperation};
use oci_spec::image::Descriptor;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio_util::io::ReaderStream;

/// Bytes that are read from a blob at once.
const PIECE: usize = 1 << 17;
/// Fast enough for a bar that moves smoothly.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// Sends the image that has the name `reference` to the registry that the name says, and returns the digest of its
/// manifest. Blobs that the registry has are not sent; the manifest goes last, so that a broken push shows nothing.
pub async fn push(
    store: &Store,
    reference: &str,
    options: &PushOptions,
    progress: &dyn TransferProgress,
) -> Result<String> {
    let reference = parse_reference(reference)?;
    if reference.tag().is_none() {
        return Err(ImageError::InvalidReference {
            reference: reference.to_string(),
            reason: "an image is pushed by a name with a tag".into(),
        });
    }
    let _in_use = in_use(store).await?;
    let entry = store
        .find_entry(&store.entries()?, &reference.to_string())?
        .ok_or_else(|| ImageError::NotFound { reference: crate::reference::familiar(&reference) })?;
    let manifest = store.parts(&entry.manifest_digest)?.manifest;
    let auth = {
        let (registry, options) = (reference.resolve_registry().to_string(), options.clone());
        blocking(move || credentials(&registry, &options)).await?
    };
    let client = client(&reference, options)?;
    let failed = |error| registry_error(&reference, error);
    client.auth(&reference, &auth, RegistryOperation::Push).await.map_err(failed)?;
    let mut blobs: Vec<&Descriptor> = manifest.layers().iter().chain([manifest.config()]).collect();
    blobs.sort_by_key(|blob| blob.digest().to_string());
    blobs.dedup_by_key(|blob| blob.digest().to_string());
    let pusher = Pusher { store, client: &client, reference: &reference, progress };
    stream::iter(blobs.into_iter().map(|blob| pusher.blob(blob)))
        .buffer_unordered(options.parallel.max(1))
        .try_collect::<()>()
        .await?;
    let bytes = store.read_blob(&entry.manifest_digest, MAX_MANIFEST_BYTES)?;
    let media_type = HeaderValue::from_str(&entry.media_type)
        .map_err(|error| ImageError::corrupt(format!("the media type {:?}", entry.media_type), error))?;
    client.push_manifest_raw(&reference, bytes, media_type).await.map_err(failed)?;
    Ok(entry.manifest_digest)
}

struct Pusher<'a> {
    store: &'a Store,
    client: &'a Client,
    reference: &'a Reference,
    progress: &'a dyn TransferProgress,
}

impl Pusher<'_> {
    async fn blob(&self, blob: &Descriptor) -> Result<()> {
        let digest = blob.digest().to_string();
        let failed = |error| registry_error(self.reference, error);
        if self.client.blob_exists(self.reference, &digest).await.map_err(failed)? {
            self.progress.event(TransferEvent::Present { digest: &digest });
            return Ok(());
        }
        self.progress.event(TransferEvent::Started { digest: &digest, total: blob.size() });
        let path = self.store.blob_path(&digest)?;
        let file = tokio::fs::File::open(&path).await.map_err(ImageError::io("open", &path))?;
        let pieces = ReaderStream::with_capacity(file, PIECE).map_err(OciDistributionError::from);
        // The stream must own all it uses, so it counts, and the count is shown from here.
        let moved = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&moved);
        let pieces = pieces.inspect_ok(move |piece: &Bytes| {
            counter.fetch_add(piece.len() as u64, Ordering::Relaxed);
        });
        let show = || match moved.swap(0, Ordering::Relaxed) {
            0 => {}
            bytes => self.progress.event(TransferEvent::Advanced { digest: &digest, bytes }),
        };
        let mut pushing =
            std::pin::pin!(self.client.push_blob_stream(self.reference, pieces, &digest, Some(blob.size())));
        let mut tick = tokio::time::interval(PROGRESS_INTERVAL);
        let outcome = loop {
            tokio::select! {
                _ = tick.tick() => show(),
                outcome = &mut pushing => break outcome,
            }
        };
        outcome.map_err(failed)?;
        show();
        self.progress.event(TransferEvent::Finished { digest: &digest });
        Ok(())
    }
}
