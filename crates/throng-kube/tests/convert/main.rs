//! Compose files in, manifests and findings out.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail the test that calls them")]

mod common;
mod examples;
mod findings;
mod kubectl;
mod properties;
mod references;
mod schema;
mod snapshots;
mod speed;
