//! Walls made real, without the engine: each test builds one in namespaces, control groups or small file systems of its
//! own, runs into it with plain system calls or commands, and gives the true error and the true counters to `explain`.
//! No setting of the host is changed.
//!
//! Root only. Debian packages: iproute2, util-linux, nftables, iptables, perl-base.

mod groups;
mod inside;
mod links;
mod packets;
mod storage;
mod tasks;

#[path = "../support/mod.rs"]
mod support;
