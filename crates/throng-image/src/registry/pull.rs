//! Registry to store.

use super::credentials::credentials;
use super::{PullOptions, TransferEvent, TransferProgress, client, registry_error};
use crate::build::{blocking, in_use};
use crate::error::{ImageError, Result};
use crate::limits::{MAX_CONFIG_BYTES, MAX_MANIFEST_BYTES, check_size};
use crate::manifest::{self, Document};
use crate::reference::{familiar, parse_reference};
use crate::store::{BlobWriter, Entry, Image, Store, parse_config};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use oci_client::client::BlobResponse;
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};
use oci_spec::image::{Descriptor, ImageManifest};
use std::io::Write as _;
use std::time::Duration;

/// Tries in a row that bring no new byte.
const MAX_FRUITLESS_TRIES: u32 = 4;
/// Before the first retry; doubled for each further one.
const RETRY_WAIT: Duration = Duration::from_millis(250);

struct Puller<'a> {
    store: &'a Store,
    client: Client,
    auth: RegistryAuth,
    reference: &'a Reference,
    progress: &'a dyn TransferProgress,
}

/// Fetches an image into the store and gives it its name. Of an image for several platforms this machine's is taken.
/// Blobs are verified against their digests; on an error no name has changed, and finished blobs shorten the next try.
pub async fn pull(
    store: &Store,
    reference: &str,
    options: &PullOptions,
    progress: &dyn TransferProgress,
) -> Result<Image> {
    let reference = parse_reference(reference)?;
    let auth = {
        let (registry, options) = (reference.resolve_registry().to_string(), options.clone());
        blocking(move || credentials(&registry, &options)).await?
    };
    // Keeps the blobs from being collected before the name refers to them.
    let _in_use = in_use(store).await?;
    let puller =
        Puller { store, client: client(&reference, options)?, auth, reference: &reference, progress };
    let (manifest, bytes, media_type) = puller.manifest().await?;
    puller.blob(manifest.config()).await?;
    let config = store.read_blob(manifest.config().digest().as_ref(), MAX_CONFIG_BYTES)?;
    parse_config(manifest.config().digest().as_ref(), &config, manifest.layers().len())?;
    let mut layers: Vec<&Descriptor> = manifest.layers().iter().collect();
    // The same layer may occur twice; it must not be written by two transfers at once.
    layers.sort_by_key(|layer| layer.digest().to_string());
    layers.dedup_by_key(|layer| layer.digest().to_string());
    stream::iter(layers.into_iter().map(|layer| puller.blob(layer)))
        .buffer_unordered(options.parallel.max(1))
        .try_collect::<()>()
        .await?;
    let name = match reference.digest() {
        // The digest is what was asked for; a tag beside it is a remark.
        Some(digest) => reference.clone_with_digest(digest.into()),
        None => reference.clone(),
    };
    let (store, reference) = (store.clone(), reference.to_string());
    blocking(move || {
        let manifest_digest = store.put_blob(&bytes)?;
        let entry = Entry { name: None, manifest_digest, media_type, size: bytes.len() as u64 };
        store.name_manifest(&entry, std::slice::from_ref(&name))?;
        store.note_pulled(&reference)?;
        store.image(&entry.manifest_digest, Some(&name.to_string()))
    })
    .await
}

impl Puller<'_> {
    async fn manifest(&self) -> Result<(Box<ImageManifest>, Vec<u8>, String)> {
        let what = format!("the manifest of {}", familiar(self.reference));
        let bytes = self.document(self.reference).await?;
        let index = match manifest::parse(&what, &bytes)? {
            Document::Manifest(manifest, media_type) => return Ok((manifest, bytes, media_type)),
            Document::Index(index) => index,
        };
        let entry = manifest::choose(&familiar(self.reference), &index)?;
        let chosen = self.reference.clone_with_digest(entry.digest().to_string());
        let bytes = self.document(&chosen).await?;
        match manifest::parse(&what, &bytes)? {
            Document::Manifest(manifest, media_type) => Ok((manifest, bytes, media_type)),
            Document::Index(_) => Err(ImageError::corrupt(what, "an index leads to another index")),
        }
    }

    async fn document(&self, reference: &Reference) -> Result<Vec<u8>> {
        let accepted =
            [manifest::OCI_INDEX, manifest::OCI_MANIFEST, manifest::DOCKER_LIST, manifest::DOCKER_MANIFEST];
        let (bytes, _) = self
            .client
            .pull_manifest_raw(reference, &self.auth, &accepted)
            .await
            .map_err(|error| registry_error(self.reference, error))?;
        check_size(
            &format!("the manifest of {}", familiar(reference)),
            bytes.len() as u64,
            MAX_MANIFEST_BYTES,
        )?;
        Ok(bytes.to_vec())
    }

    /// Fetches a blob unless it is there. After a broken connection it goes on where it was.
    async fn blob(&self, blob: &Descriptor) -> Result<()> {
        let digest = blob.digest().to_string();
        if self.store.has_blob(&digest)? {
            self.progress.event(TransferEvent::Present { digest: &digest });
            return Ok(());
        }
        self.progress.event(TransferEvent::Started { digest: &digest, total: blob.size() });
        let mut writer = self.store.blob_writer()?;
        let mut at = 0;
        let mut fruitless = 0;
        while at < blob.size() {
            let before = at;
            let Err(error) = self.piece(blob, &digest, &mut writer, &mut at).await else { break };
            let lasting = !matches!(error, ImageError::Registry { .. });
            fruitless = if at > before { 0 } else { fruitless + 1 };
            if lasting || fruitless >= MAX_FRUITLESS_TRIES {
                return Err(error);
            }
            tokio::time::sleep(RETRY_WAIT * (1 << fruitless)).await;
            self.progress.event(TransferEvent::Resumed { digest: &digest, at });
        }
        let what = format!("blob {digest} of {}", familiar(self.reference));
        let expected = digest.clone();
        blocking(move || writer.commit(&what, Some(&expected))).await?;
        self.progress.event(TransferEvent::Finished { digest: &digest });
        Ok(())
    }

    /// Fetches from `at` to the end, or to where the connection breaks.
    async fn piece(
        &self,
        blob: &Descriptor,
        digest: &str,
        writer: &mut BlobWriter,
        at: &mut u64,
    ) -> Result<()> {
        let failed = |error| registry_error(self.reference, error);
        let mut body = if *at == 0 {
            self.client.pull_blob_stream(self.reference, digest).await.map_err(failed)?
        } else {
            match self
                .client
                .pull_blob_stream_partial(self.reference, digest, *at, None)
                .await
                .map_err(failed)?
            {
                BlobResponse::Partial(body) => body,
                BlobResponse::Full(body) => {
                    // This registry cannot resume.
                    *writer = self.store.blob_writer()?;
                    *at = 0;
                    body
                }
            }
        };
        while *at < blob.size() {
            let piece = match body.next().await {
                Some(Ok(piece)) => piece,
                Some(Err(error)) => return Err(self.broken(super::chain(&error))),
                None => return Err(self.broken(format!("it ended the transfer of {digest} too early"))),
            };
            if *at + piece.len() as u64 > blob.size() {
                let reason = format!("the registry sends more than the {} bytes it promised", blob.size());
                return Err(ImageError::corrupt(format!("blob {digest}"), reason));
            }
            writer.write_all(&piece).map_err(ImageError::io("write a blob into", self.store.root()))?;
            *at += piece.len() as u64;
            self.progress.event(TransferEvent::Advanced { digest, bytes: piece.len() as u64 });
        }
        Ok(())
    }

    fn broken(&self, reason: String) -> ImageError {
        ImageError::Registry { registry: self.reference.registry().into(), reason: super::short(&reason) }
    }
}
