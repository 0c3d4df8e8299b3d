//! The bounds on what is read from others, each with the error that says how to go on.

use crate::error::{ImageError, Result};
use throng_model::units::format_bytes;

/// Layers of one image. Docker's own bound; an overlay mount takes at most 500.
pub const MAX_LAYERS: usize = 127;
/// Bytes of a manifest or an index. The distribution specification asks registries to take at least this much.
pub const MAX_MANIFEST_BYTES: u64 = 4 << 20;
/// Bytes of an image's configuration.
pub const MAX_CONFIG_BYTES: u64 = 8 << 20;
/// Bytes of a Dockerfile or a .dockerignore file.
pub const MAX_DOCKERFILE_BYTES: u64 = 1 << 20;
/// Bytes that one layer may unpack to, unless [`crate::Limits`] says otherwise. Guards against tar bombs.
pub const MAX_UNPACKED_LAYER_BYTES: u64 = 64 << 30;
/// Files, folders and links in one layer, unless [`crate::Limits`] says otherwise.
pub const MAX_LAYER_ENTRIES: u64 = 5_000_000;
/// Symbolic links followed in one path, as in the kernel (path_resolution(7)).
pub const MAX_SYMLINKS: usize = 40;
/// Names in the store's index.
pub const MAX_NAMES: usize = 100_000;
/// Bytes of the index file.
pub const MAX_INDEX_BYTES: u64 = 64 << 20;

/// Limits that a caller may raise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub unpacked_layer_bytes: u64,
    pub layer_entries: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { unpacked_layer_bytes: MAX_UNPACKED_LAYER_BYTES, layer_entries: MAX_LAYER_ENTRIES }
    }
}

pub(crate) fn check_size(what: &str, actual: u64, limit: u64) -> Result<()> {
    if actual <= limit {
        return Ok(());
    }
    Err(ImageError::TooLarge {
        what: what.into(),
        actual: format_bytes(actual),
        limit: format_bytes(limit),
        raise: "this limit is fixed; make the file smaller".into(),
    })
}

pub(crate) fn check_layer_count(what: &str, layers: usize) -> Result<()> {
    if layers <= MAX_LAYERS {
        return Ok(());
    }
    Err(ImageError::TooLarge {
        what: what.into(),
        actual: format!("{layers} layers"),
        limit: format!("{MAX_LAYERS} layers"),
        raise: "join instructions of its Dockerfile so that it has fewer layers".into(),
    })
}
