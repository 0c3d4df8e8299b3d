//! An [`App`] as Kubernetes manifests that a person would have written.
//!
//! [`convert`] decides of each service what it becomes (`plan`), and writes its objects from that: the controller with its
//! pod (`workload`, `pod`, `container`, `probes`, `volumes`, `gates`, `placement`), its Services (`service`), its
//! autoscalers (`scaling`), and what the app has as a whole (`files`, `network`). Values are typed by k8s-openapi, so that
//! no key is written that an API server does not know; beside them stand notes that say where in the Compose file they
//! came from, which become comments in YAML.
//!
//! This crate knows nothing of clusters, and does no I/O but through [`Source`]. The same app gives the same bytes.

mod container;
mod context;
mod convert;
mod files;
mod findings;
mod gates;
mod kompose;
mod labels;
mod names;
mod network;
mod object;
mod output;
mod placement;
mod plan;
mod pod;
mod probes;
mod quantity;
mod scaling;
mod service;
mod source;
mod unsupported;
mod user;
mod volumes;
mod workload;
mod yaml;

pub use convert::{Converted, Options, convert};
pub use findings::MAX_FINDINGS;
pub use kompose::LABELS as KOMPOSE_LABELS;
pub use object::Object;
pub use output::{Format, HEADER, file_name, files, kustomization, overlay, stream};
pub use source::{HostFile, MAX_CONFIG_BYTES, MAX_CONFIG_FILES, Nowhere, Source};

#[cfg(doc)]
use throng_model::app::App;
