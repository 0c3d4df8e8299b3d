//! Images of the local store in the daemon: handed over once, under a tag that names their digest, and taken away
//! with the last replica that runs from them.

use crate::docker::Core;
use crate::errors::{chain, daemon, host, is};
use bollard::query_parameters::{
    ImportImageOptionsBuilder, RemoveImageOptionsBuilder, TagImageOptionsBuilder,
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use std::io::{BufWriter, Write};
use std::pin::pin;
use throng_image::{ArchiveFormat, ImageError, Store};
use throng_model::replica::RootFs;
use throng_runtime::{ErrorKind, Result, RuntimeError};
use tokio::sync::mpsc;

/// The name under which images are known to the daemon; the tag is their digest.
pub const REPOSITORY: &str = "throng-image";
/// Pieces of an archive between the store and the daemon, and their size.
const PIECES: usize = 16;
const PIECE: usize = 64 << 10;

/// A piece of an archive, or that there will be no more of it.
type Piece = std::io::Result<Bytes>;

/// `throng-image:` and the digest.
pub fn name(image_id: &str) -> String {
    let digest = image_id.rsplit(':').next().unwrap_or(image_id);
    format!("{REPOSITORY}:{digest}")
}

impl Core {
    /// Hands the image over if the daemon does not have it, and returns its name there.
    pub async fn provide(&self, root: &RootFs) -> Result<String> {
        let name = name(&root.image_id);
        let mut known = self.images.lock().await;
        if known.contains(&name) {
            return Ok(name);
        }
        match self.api.inspect_image(&name).await {
            Err(error) if is(&error, 404) => {
                let loaded = self.load_image(root).await?;
                let options = TagImageOptionsBuilder::default()
                    .repo(REPOSITORY)
                    .tag(name.rsplit(':').next().unwrap_or_default())
                    .build();
                let tagged = self.api.tag_image(&loaded, Some(options)).await;
                tagged.map_err(|error| daemon(format_args!("cannot name image {}", root.image), error))?;
            }
            found => {
                found.map_err(|error| daemon(format_args!("cannot look for image {}", root.image), error))?;
            }
        }
        known.insert(name.clone());
        Ok(name)
    }

    /// Returns the daemon's id of the image.
    async fn load_image(&self, root: &RootFs) -> Result<String> {
        let what = || format!("cannot hand image {} to Docker", root.image);
        let (sender, mut receiver) = mpsc::channel::<Piece>(PIECES);
        let (store, id) = (self.store.clone(), root.image_id.clone());
        let saving = tokio::task::spawn_blocking(move || save(&store, &id, sender));
        let pieces = stream::poll_fn(move |context| receiver.poll_recv(context));
        let options = ImportImageOptionsBuilder::default().quiet(true).build();
        let mut answers = pin!(self.patient.import_image_stream(options, pieces, None));
        let mut loaded = None;
        let mut failed = None;
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(said) => loaded = loaded.or(said.stream.as_deref().and_then(image_in).map(str::to_owned)),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        let saved = saving.await.map_err(|error| host(what(), error))?;
        // The cause: what the daemon says of half an archive would lead astray.
        saved.map_err(|error| {
            let kind = if error.is_of_host() { ErrorKind::Host } else { ErrorKind::Invalid };
            let text = format!("{}: {}", what(), chain(&error));
            RuntimeError { hint: error.hint(), ..RuntimeError::new(kind, text) }
        })?;
        match failed {
            Some(error) => Err(daemon(what(), error)),
            None => Ok(loaded.unwrap_or_else(|| root.image_id.clone())),
        }
    }

    /// Takes away what was handed over and nobody runs from: of some no container could be made, so that none has left.
    pub async fn let_images_go(&self) {
        let known: Vec<String> = self.images.lock().await.iter().cloned().collect();
        for name in &known {
            self.let_image_go(name).await;
        }
    }

    /// Takes the image of this name away unless somebody runs from it. One that stays is found again by its name.
    pub async fn let_image_go(&self, name: &str) {
        let mut known = self.images.lock().await;
        known.remove(name);
        let options = RemoveImageOptionsBuilder::default().build();
        match self.api.remove_image(name, Some(options), None).await {
            Err(error) if !is(&error, 404) && !is(&error, 409) => {
                tracing::warn!("image {name} stays in Docker: {}", chain(&error));
            }
            _ => {}
        }
    }
}

/// `Loaded image ID: sha256:…` or `Loaded image: name`.
fn image_in(line: &str) -> Option<&str> {
    let line = line.trim();
    line.strip_prefix("Loaded image ID: ").or(line.strip_prefix("Loaded image: "))
}

/// Writes the archive into a channel. Blocks.
fn save(store: &Store, id: &str, sender: mpsc::Sender<Piece>) -> std::result::Result<(), ImageError> {
    let saved =
        store.save(&[id.to_owned()], ArchiveFormat::Docker, BufWriter::with_capacity(PIECE, Pieces(&sender)));
    if saved.is_err() {
        // The daemon must not take half of it for a whole; that it has gone away is told by itself.
        let _ = sender.blocking_send(Err(std::io::Error::other("the image could not be read")));
    }
    saved
}

struct Pieces<'a>(&'a mpsc::Sender<Piece>);

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let sent = self.0.blocking_send(Ok(Bytes::copy_from_slice(bytes)));
        sent.map(|()| bytes.len()).map_err(|_| std::io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_name_the_image() {
        assert_eq!(image_in("Loaded image ID: sha256:12\n"), Some("sha256:12"));
        assert_eq!(image_in("Loaded image: a:b\n"), Some("a:b"));
        assert_eq!(image_in("Loading layer"), None);
        assert_eq!(name("sha256:12"), "throng-image:12");
    }
}
