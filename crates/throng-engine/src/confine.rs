//! What one replica's own wishes ([`Sandbox`]) make of what is the same for all of an engine.

use crate::child::Op;
use crate::plan::{DEFAULT_CAPABILITIES, Ground, Outcome, text};
use crate::seccomp;
use crate::sys::Filter;
use std::fmt::Write;
use std::net::Ipv4Addr;
use std::sync::Arc;
use throng_model::sandbox::{CAPABILITIES, HostAddress, Sandbox, ULIMITS};
use throng_runtime::{ErrorKind, RuntimeError};

/// Every capability that there is a name for.
const ALL: u64 = (1 << CAPABILITIES.len()) - 1;

/// The privileges and limits of a process.
#[derive(Debug)]
pub struct Confinement {
    pub capabilities: u64,
    /// Of system calls.
    pub filter: Option<Arc<Filter>>,
    /// Resource, soft and hard bound (setrlimit(2)).
    pub limits: Vec<(i32, u64, u64)>,
}

impl Confinement {
    /// Of a process without wishes.
    pub fn plain(ground: &Ground) -> Self {
        let files = (libc::RLIMIT_NOFILE as i32, ground.open_files, ground.open_files);
        Confinement {
            capabilities: ground.capabilities,
            filter: Some(ground.filter.clone()),
            limits: vec![files],
        }
    }

    /// Refuses privileges that the engine has not got itself.
    pub fn new(ground: &Ground, sandbox: &Sandbox) -> Outcome<Self> {
        let mut confinement = Self::plain(ground);
        let wanted = capabilities(sandbox);
        if wanted != DEFAULT_CAPABILITIES {
            let asked = mask(&sandbox.cap_add).0 & !ground.own_capabilities;
            if let Some((_, name)) = (0..).zip(CAPABILITIES).find(|(bit, _)| asked & (1 << bit) != 0) {
                let message = format!("the capability {name} cannot be given: the supervisor has not got it");
                return Err(RuntimeError::new(ErrorKind::Invalid, message)
                    .hint("run as root with all capabilities, or remove it from cap_add"));
            }
            confinement.capabilities = wanted & ground.own_capabilities;
            let filter = seccomp::filter(wanted).ok_or_else(|| {
                RuntimeError::new(ErrorKind::Host, "the system call filter is too large for the kernel")
            })?;
            confinement.filter = Some(filter);
        }
        if sandbox.unfiltered {
            confinement.filter = None;
        }
        for (name, limit) in &sandbox.ulimits {
            let Some((_, resource)) = ULIMITS.iter().find(|(known, _)| known == name) else { continue };
            let bound = |bound: Option<u64>| bound.unwrap_or(libc::RLIM_INFINITY);
            confinement.limits.retain(|(known, ..)| known != resource);
            confinement.limits.push((*resource, bound(limit.soft), bound(limit.hard)));
        }
        Ok(confinement)
    }

    pub fn limit_ops(&self) -> impl Iterator<Item = Op> {
        self.limits.iter().map(|&(resource, soft, hard)| Op::Limit { resource, soft, hard })
    }
}

/// Bits of the names, and whether `ALL` is among them.
fn mask(names: &[String]) -> (u64, bool) {
    let bit = |name: &String| CAPABILITIES.iter().position(|known| known == name).map_or(0, |bit| 1 << bit);
    (names.iter().map(bit).fold(0, |mask, bit| mask | bit), names.iter().any(|name| name == "ALL"))
}

/// Docker's rules: what is added by name stays, whatever is dropped, unless everything is added.
fn capabilities(sandbox: &Sandbox) -> u64 {
    match (mask(&sandbox.cap_add), mask(&sandbox.cap_drop)) {
        ((_, true), (drop, _)) => ALL & !drop,
        ((add, _), (_, true)) => add,
        ((add, _), (drop, _)) => DEFAULT_CAPABILITIES & !drop | add,
    }
}

/// What is written into files of the kernel's own before they become read-only.
pub fn kernel_files(sandbox: &Sandbox) -> Outcome<Vec<Op>> {
    let parameters = sandbox.sysctls.iter().map(|(name, value)| (name.replace('.', "/"), value));
    let domain = sandbox.domain.iter().map(|domain| ("kernel/domainname".to_owned(), domain));
    let write = |(file, value): (String, &String)| -> Outcome<Op> {
        Ok(Op::Write { path: text(format!("/proc/sys/{file}"))?, data: value.clone().into() })
    };
    parameters.chain(domain).map(write).collect()
}

/// How soon the kernel kills the process, if that is not to be as usual.
pub fn oom_score(sandbox: &Sandbox) -> Outcome<Option<Op>> {
    let write = |score: i32| -> Outcome<Op> {
        Ok(Op::Write { path: text("/proc/self/oom_score_adj")?, data: score.to_string().into() })
    };
    sandbox.oom_score.map(write).transpose()
}

/// The text of /etc/hosts. `own` is the replica's first address, `gateway` the host's in that network.
pub fn hosts(sandbox: &Sandbox, host_name: &str, own: Option<Ipv4Addr>, gateway: Option<Ipv4Addr>) -> String {
    let mut hosts = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned();
    for (name, address) in &sandbox.hosts {
        // Writing to a text cannot fail.
        let _ = match (address, gateway) {
            (HostAddress::Address(address), _) => writeln!(hosts, "{address}\t{name}"),
            (HostAddress::Gateway, Some(gateway)) => writeln!(hosts, "{gateway}\t{name}"),
            // Without a network the host cannot be reached.
            (HostAddress::Gateway, None) => Ok(()),
        };
    }
    if let Some(own) = own {
        let _ = match &sandbox.domain {
            Some(domain) => writeln!(hosts, "{own}\t{host_name}.{domain} {host_name}"),
            None => writeln!(hosts, "{own}\t{host_name}"),
        };
    }
    hosts
}

/// The text of resolv.conf(5). Our own server stays the first to be asked, for it knows the app's names; who it asks
/// in turn is what `dns` says ([`crate::dns`]).
pub fn resolver(sandbox: &Sandbox, server: Option<Ipv4Addr>) -> String {
    let Some(server) = server else { return String::new() };
    let mut text = format!("nameserver {server}\n");
    if !sandbox.dns_search.is_empty() {
        let _ = writeln!(text, "search {}", sandbox.dns_search.join(" "));
    }
    let options: Vec<&str> =
        ["ndots:0"].into_iter().chain(sandbox.dns_options.iter().map(String::as_str)).collect();
    let _ = writeln!(text, "options {}", options.join(" "));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use throng_model::sandbox::Sandbox;

    #[test]
    fn capabilities_are_added_and_dropped_as_docker_does() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let (admin, raw, chown) = (1 << 12, 1 << 13, 1);
        for (add, drop, expected) in [
            (&[][..], &[][..], DEFAULT_CAPABILITIES),
            (&["NET_ADMIN"], &["NET_RAW"], DEFAULT_CAPABILITIES & !raw | admin),
            (&["NET_RAW"], &["NET_RAW"], DEFAULT_CAPABILITIES),
            (&["CHOWN", "NET_RAW"], &["ALL"], raw | chown),
            (&[], &["ALL"], 0),
            (&["ALL"], &["NET_RAW"], ALL & !raw),
        ] {
            let sandbox = Sandbox { cap_add: names(add), cap_drop: names(drop), ..Sandbox::default() };
            assert_eq!(capabilities(&sandbox), expected, "{add:?} {drop:?}");
        }
        assert_eq!(ALL, 0x1ff_ffff_ffff);
    }

    #[test]
    fn names_are_written_for_the_c_library() {
        let gateway = Ipv4Addr::new(10, 1, 0, 1);
        let sandbox = Sandbox {
            hosts: vec![
                ("db".into(), HostAddress::Address("10.9.9.9".parse().unwrap())),
                ("host".into(), HostAddress::Gateway),
            ],
            dns_search: vec!["a.example".into(), "b.example".into()],
            dns_options: vec!["timeout:1".into()],
            domain: Some("shop.example".into()),
            ..Sandbox::default()
        };
        let hosts = hosts(&sandbox, "web-1", Some(Ipv4Addr::new(10, 1, 0, 2)), Some(gateway));
        let lines: Vec<&str> = hosts.lines().skip(2).collect();
        assert_eq!(lines, ["10.9.9.9\tdb", "10.1.0.1\thost", "10.1.0.2\tweb-1.shop.example web-1"]);
        let text = "nameserver 10.1.0.1\nsearch a.example b.example\noptions ndots:0 timeout:1\n";
        assert_eq!(resolver(&sandbox, Some(gateway)), text);
        assert_eq!(resolver(&sandbox, None), "");
    }
}
