//! Compose files in, apps and findings out.

#![allow(clippy::unwrap_used, reason = "helpers of tests may fail the test that calls them")]

mod across;
mod autoscale;
mod common;
mod findings;
mod images;
mod jobs;
mod keys;
mod loading;
mod merging;
mod networks;
mod nodes;
mod peers;
mod peers_files;
mod peers_generated;
mod probes;
mod properties;
mod rendering;
mod updates;
