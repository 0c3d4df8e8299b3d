//! Images without a daemon: a content-addressed store, a Dockerfile builder, a registry client and archives.
//!
//! - [`Store`] holds images: found by name or id, unpacked once into folders that overlayfs mounts.
//! - [`build()`] makes an image from a Dockerfile; RUN goes through a [`StepRunner`], so this crate runs nothing.
//! - [`pull`] and [`push`] speak to registries, [`Store::load`] and [`Store::save`] to archives.
//!
//! Everything that comes from elsewhere is verified against its digest, unpacked so that it cannot leave its folder,
//! and bounded ([`Limits`]). This crate knows nothing of containers: who mounts the layers is the engine's business.

mod archive;
mod build;
mod config;
mod digest;
pub mod dockerfile;
mod error;
mod layer;
mod limits;
mod manifest;
mod platform;
mod reference;
mod registry;
mod store;
mod tarball;
mod unpack;
mod view;
mod watermarks;

pub use archive::ArchiveFormat;
pub use build::{
    BuildEvent, BuildOptions, BuildProgress, ContextSource, NoRunner, OUTPUT_QUEUE, RunStep, Secret,
    SecretContent, Silent, StepRunner, build, needed_images,
};
pub use config::{ConfigFile, HealthConfig, History, ImageConfig, RootFsConfig};
pub use error::{BuildError, ImageError};
pub use limits::*;
pub use platform::{
    DEFAULT_PATH, check_architecture, check_program, machine_architecture, program_architecture,
};
pub use reference::{familiar, familiar_repository, parse_reference};
pub use registry::{
    DEFAULT_PARALLEL_TRANSFERS, PullOptions, PushOptions, RegistryOptions, TransferEvent, TransferProgress,
    pull, push,
};
pub use store::{Collected, Image, ImageSummary, LayerNotes, Needed, Removed, Store, Which, chain_ids};
pub use watermarks::{Disk, Watermarks};
