//! Keys of a service about what surrounds its process: privileges, limits of the kernel, names, hooks.

use super::{names, service};
use crate::keys::Section;
use crate::yaml::{Entry, Findings, Node, Value, nearest};
use std::collections::BTreeMap;
use std::net::IpAddr;
use throng_model::sandbox::{
    CAPABILITIES, Device, Hook, HostAddress, Sandbox, ULIMITS, Ulimit, is_namespaced,
};

/// Most elements of one of these lists; they are carried out for every replica.
const MAX_ELEMENTS: usize = 1_000;

pub(super) fn read(
    section: &mut Section<'_>,
    context: &super::Context<'_>,
    findings: &mut Findings,
) -> Sandbox {
    let mut sandbox = Sandbox::default();
    for (key, list) in [("cap_add", &mut sandbox.cap_add), ("cap_drop", &mut sandbox.cap_drop)] {
        *list = section.take(key).map(|node| capabilities(node, findings)).unwrap_or_default();
    }
    sandbox.groups = section.take("group_add").map(|node| words(node, findings)).unwrap_or_default();
    if let Some(node) = section.take("ulimits") {
        sandbox.ulimits = ulimits("services.*.ulimits.*", node, findings);
    }
    if let Some(node) = section.take("sysctls") {
        sandbox.sysctls = sysctls(node, findings);
    }
    if let Some(node) = section.take("extra_hosts") {
        sandbox.hosts = hosts(node, findings);
    }
    if let Some(node) = section.take("dns") {
        let address = |item: &Node| item.scalar().and_then(|text| text.trim().parse::<IpAddr>().ok());
        for item in elements(node, findings) {
            match address(item) {
                Some(address) if !sandbox.dns.contains(&address) => sandbox.dns.push(address),
                Some(_) => {}
                None => item.mismatch("the address of a name server", findings),
            }
        }
    }
    sandbox.dns_search = section.take("dns_search").map(|node| words(node, findings)).unwrap_or_default();
    sandbox.dns_options = section.take("dns_opt").map(|node| words(node, findings)).unwrap_or_default();
    if let Some(node) = section.take("domainname")
        && let Some(domain) = node.nonempty(findings)
    {
        if !names::is_host(domain) {
            findings.error(&node.position, format!("{domain:?} is not a domain"));
        }
        sandbox.domain = Some(domain.to_owned());
    }
    sandbox.shm_size =
        section.take("shm_size").and_then(|node| node.bytes(findings)).filter(|bytes| *bytes > 0);
    sandbox.oom_score = section.take("oom_score_adj").and_then(|node| oom_score(node, findings));
    for (key, path, hooks) in [
        ("post_start", "services.*.post_start.*", &mut sandbox.post_start),
        ("pre_stop", "services.*.pre_stop.*", &mut sandbox.pre_stop),
    ] {
        if let Some(node) = section.take(key) {
            let read = |item| hook(item, path, context, findings);
            *hooks =
                node.list(&mut Findings::default()).unwrap_or_default().iter().filter_map(read).collect();
            if !matches!(node.value, Value::List(_)) {
                node.mismatch("a list of commands", findings);
            }
        }
    }
    sandbox.init = section.take("init").and_then(|node| node.boolean(findings)).unwrap_or_default();
    sandbox.stdin_open =
        section.take("stdin_open").and_then(|node| node.boolean(findings)).unwrap_or_default();
    if let Some(node) = section.take("security_opt") {
        read_security(node, &mut sandbox, findings);
    }
    if let Some(node) = section.take("devices") {
        sandbox.devices = devices(node, findings);
    }
    if let Some(node) = section.take("annotations") {
        sandbox.annotations = node.text_map(findings).unwrap_or_default();
    }
    sandbox
}

/// As `SOURCE`, `SOURCE:TARGET` or `SOURCE:TARGET:PERMISSIONS`, or as mappings. Of several at one place the last counts.
fn devices(node: &Node, findings: &mut Findings) -> Vec<Device> {
    let mut devices: Vec<Device> = Vec::new();
    for item in elements(node, findings) {
        let Some(device) = device(item, findings) else { continue };
        devices.retain(|known| known.target != device.target);
        devices.push(device);
    }
    devices
}

fn device(item: &Node, findings: &mut Findings) -> Option<Device> {
    let (source, target, permissions) = if item.scalar().is_some() {
        let text = item.nonempty(findings)?;
        if !text.starts_with('/') && text.contains('=') {
            let hint = "name the files of the devices";
            findings.warn_with_hint(
                &item.position,
                format!("{text:?} has no effect: no driver is asked"),
                hint,
            );
            return None;
        }
        let mut parts = text.split(':');
        let source = parts.next().unwrap_or_default();
        match (parts.next(), parts.next(), parts.next()) {
            (Some(permissions), None, None) if are_permissions(permissions) => (source, source, permissions),
            (target, permissions, None) => (source, target.unwrap_or(source), permissions.unwrap_or("rwm")),
            _ => {
                item.mismatch("a device such as /dev/fuse:/dev/fuse:rwm", findings);
                return None;
            }
        }
    } else {
        let mut section = Section::open("services.*.devices.*", item, findings)?;
        let mut text = |key| section.take(key).and_then(|node| node.nonempty(findings));
        let (source, target, permissions) = (text("source"), text("target"), text("permissions"));
        section.close(findings);
        let Some(source) = source else {
            findings.error(&item.position, "expected a source, found none");
            return None;
        };
        (source, target.unwrap_or(source), permissions.unwrap_or("rwm"))
    };
    for path in [source, target] {
        if !path.starts_with('/') || path.trim_matches('/').is_empty() {
            let hint = "write a path such as /dev/fuse";
            findings.error_with_hint(&item.position, format!("{path:?} is not the path of a device"), hint);
            return None;
        }
    }
    if !are_permissions(permissions) {
        let hint = "write some of r (read), w (write) and m (make nodes)";
        findings.error_with_hint(
            &item.position,
            format!("{permissions:?} are no permissions of a device"),
            hint,
        );
        return None;
    }
    let target = super::clean(target.as_ref()).to_string_lossy().into_owned();
    Some(Device { source: super::clean(source.as_ref()), target, permissions: permissions.to_owned() })
}

/// Some of the letters, each once.
fn are_permissions(text: &str) -> bool {
    let mut letters: Vec<char> = text.chars().collect();
    letters.sort_unstable();
    letters.dedup();
    letters.len() == text.len() && !text.is_empty() && letters.iter().all(|letter| "rwm".contains(*letter))
}

/// `security_opt`, as `NAME:VALUE` or `NAME=VALUE`. What holds anyway needs no word.
fn read_security(node: &Node, sandbox: &mut Sandbox, findings: &mut Findings) {
    for item in elements(node, findings) {
        let Some(text) = item.nonempty(findings) else { continue };
        let (name, value) = text.split_once([':', '=']).unwrap_or((text, ""));
        let (message, hint) = match (name, value) {
            ("no-new-privileges", "" | "true") | ("seccomp", "builtin") => continue,
            // Nobody has such a label or profile here.
            ("label", "disable") | ("apparmor", "unconfined") => continue,
            ("seccomp", "unconfined") => {
                sandbox.unfiltered = true;
                continue;
            }
            ("no-new-privileges", _) => (
                format!("{text:?} has no effect"),
                "replicas never get new privileges; give them with cap_add",
            ),
            ("seccomp", _) => (
                format!("{text:?} has no effect: replicas have the default filter of system calls"),
                "seccomp:unconfined switches it off",
            ),
            ("label" | "apparmor", _) => (
                format!("{text:?} has no effect"),
                "replicas have no label of SELinux and no profile of AppArmor",
            ),
            ("systempaths", _) => {
                (format!("{text:?} has no effect"), "parts of /proc and /sys are always hidden from replicas")
            }
            _ => (format!("{text:?} is no security option that is known here"), "see docs/compose.md"),
        };
        findings.warn_with_hint(&item.position, message, hint);
    }
}

fn elements<'a>(node: &'a Node, findings: &mut Findings) -> &'a [Node] {
    let items = node.list(findings).unwrap_or_default();
    if items.len() > MAX_ELEMENTS {
        findings.error(&node.position, format!("more than {MAX_ELEMENTS} elements"));
        return &[];
    }
    items
}

/// Texts without white space, each once.
fn words(node: &Node, findings: &mut Findings) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for item in elements(node, findings) {
        let Some(word) = item.nonempty(findings) else { continue };
        if word.contains(|c: char| c.is_whitespace() || c.is_control()) {
            item.mismatch("one word", findings);
        } else if !words.iter().any(|known| known == word) {
            words.push(word.to_owned());
        }
    }
    words
}

fn capabilities(node: &Node, findings: &mut Findings) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for item in elements(node, findings) {
        let Some(text) = item.nonempty(findings) else { continue };
        let name = text.trim().to_ascii_uppercase();
        let name = name.strip_prefix("CAP_").unwrap_or(&name).to_owned();
        if name != "ALL" && !CAPABILITIES.contains(&name.as_str()) {
            let lower: Vec<String> = CAPABILITIES.iter().map(|known| known.to_lowercase()).collect();
            let near = nearest(&name, lower.iter().map(String::as_str));
            let hint = match near {
                Some(near) => format!("did you mean {:?}?", near.to_uppercase()),
                None => "capabilities(7) has the list; ALL is all of them".into(),
            };
            findings.error_with_hint(&item.position, format!("{text:?} is not a capability"), hint);
        } else if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// `path` is where the table of keys has one of them in its long form.
pub(super) fn ulimits(path: &'static str, node: &Node, findings: &mut Findings) -> BTreeMap<String, Ulimit> {
    let mut limits = BTreeMap::new();
    for entry in node.map(findings).unwrap_or_default() {
        if !ULIMITS.iter().any(|(name, _)| *name == entry.key) {
            let near = nearest(&entry.key, ULIMITS.iter().map(|(name, _)| *name));
            let hint = match near {
                Some(near) => format!("did you mean {near:?}?"),
                None => "setrlimit(2) has the list; names are written as in nofile".into(),
            };
            findings.error_with_hint(&entry.key_at, format!("{:?} is not a limit", entry.key), hint);
            continue;
        }
        if let Some(limit) = ulimit(path, entry, findings) {
            limits.insert(entry.key.clone(), limit);
        }
    }
    limits
}

fn ulimit(path: &'static str, entry: &Entry, findings: &mut Findings) -> Option<Ulimit> {
    let bound = |node: &Node, findings: &mut Findings| -> Option<Option<u64>> {
        const WHAT: &str = "a whole number, or -1 for no limit";
        let number: i64 = node.number(WHAT, findings)?;
        if number < -1 {
            node.mismatch(WHAT, findings);
            return None;
        }
        Some(u64::try_from(number).ok())
    };
    if !matches!(entry.value.value, Value::Map(_)) {
        let both = bound(&entry.value, findings)?;
        return Some(Ulimit { soft: both, hard: both });
    }
    let mut section = Section::open(path, &entry.value, findings)?;
    let (soft, hard) = (section.take("soft"), section.take("hard"));
    section.close(findings);
    let (Some(soft_at), Some(hard_at)) = (soft, hard) else {
        findings.error(&entry.key_at, format!("the limit {:?} needs both soft and hard", entry.key));
        return None;
    };
    let (soft, hard) = (bound(soft_at, findings)?, bound(hard_at, findings)?);
    if soft.unwrap_or(u64::MAX) > hard.unwrap_or(u64::MAX) {
        findings.error(&soft_at.position, format!("the soft limit of {:?} is above the hard one", entry.key));
        return None;
    }
    Some(Ulimit { soft, hard })
}

fn sysctls(node: &Node, findings: &mut Findings) -> BTreeMap<String, String> {
    let mut sysctls = BTreeMap::new();
    for entry in node.map(findings).unwrap_or_default() {
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        // What is not `.` alone would name another file than the one that was checked.
        let is_name = entry.key.split('.').all(|part| !part.is_empty() && part.chars().all(good));
        if !is_name {
            findings.error(&entry.key_at, format!("{:?} is not a kernel parameter", entry.key));
        } else if !is_namespaced(&entry.key) {
            let message = format!("the kernel parameter {} is the whole host's", entry.key);
            let hint = "a container has its own net.*, fs.mqueue.*, and kernel.msg*, sem and shm*; set others with `sysctl -w`";
            findings.error_with_hint(&entry.key_at, message, hint);
        } else if let Some(text) = entry.value.text(findings) {
            sysctls.insert(entry.key.clone(), text.to_owned());
        }
    }
    sysctls
}

pub(super) fn hosts(node: &Node, findings: &mut Findings) -> Vec<(String, HostAddress)> {
    let mut hosts: Vec<(String, HostAddress)> = Vec::new();
    for entry in node.map(findings).unwrap_or_default() {
        if !names::is_host(&entry.key) {
            findings.error(&entry.key_at, format!("{:?} is not a host name", entry.key));
            continue;
        }
        for item in elements(&entry.value, findings) {
            let Some(text) = item.text(findings) else { continue };
            let bare = text.trim_start_matches('[').trim_end_matches(']');
            let address = match (text, bare.parse::<IpAddr>()) {
                ("host-gateway", _) => HostAddress::Gateway,
                (_, Ok(address)) => HostAddress::Address(address),
                _ => {
                    item.mismatch("an address, or host-gateway", findings);
                    continue;
                }
            };
            let host = (entry.key.clone(), address);
            if !hosts.contains(&host) {
                hosts.push(host);
            }
        }
    }
    hosts
}

fn oom_score(node: &Node, findings: &mut Findings) -> Option<i32> {
    const WHAT: &str = "a whole number from -1000 to 1000";
    let score: i32 = node.number(WHAT, findings)?;
    if !(-1000..=1000).contains(&score) {
        node.mismatch(WHAT, findings);
        return None;
    }
    Some(score)
}

fn hook(
    node: &Node,
    path: &'static str,
    context: &super::Context<'_>,
    findings: &mut Findings,
) -> Option<Hook> {
    let mut section = Section::open(path, node, findings)?;
    let command = section.take("command");
    let mut text = |key| section.take(key).and_then(|node| node.nonempty(findings)).map(str::to_owned);
    let (user, working_dir) = (text("user"), text("working_dir"));
    let environment = section.take("environment").map(|node| {
        let mut node = node.clone();
        crate::merge::list_to_map(&mut node, true, findings);
        service::variables(&node, context, findings)
    });
    section.close(findings);
    let Some(command) = command else {
        findings.error_with_hint(&node.position, "a hook without command", "add command:");
        return None;
    };
    let command = service::words(command, findings)?;
    if command.is_empty() {
        findings.error(&node.position, "a hook with an empty command");
        return None;
    }
    Some(Hook { command, user, working_dir, environment: environment.unwrap_or_default() })
}
