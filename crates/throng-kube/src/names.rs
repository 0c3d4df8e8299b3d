//! Names that a cluster takes: labels of DNS names (RFC 1123), of Services those that begin with a letter (RFC 1035).

use crate::context::Context;
use crate::findings::Findings;
use std::collections::{BTreeMap, BTreeSet};

/// Longest label of a DNS name, in octets.
pub(crate) const MAX_LABEL: usize = 63;
/// A CronJob's Jobs add eleven characters to its name, and those must be labels too.
pub(crate) const MAX_CRON_JOB: usize = 52;

/// What a Compose name becomes: lower case, with a hyphen for everything that a label cannot have.
pub(crate) fn dns_label(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    let label: String = lower.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    label.trim_matches('-').to_owned()
}

/// Whether a text can be the name of a Service.
pub(crate) fn is_service_name(name: &str) -> bool {
    is_label(name) && name.starts_with(|c: char| c.is_ascii_lowercase())
}

pub(crate) fn is_label(name: &str) -> bool {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=MAX_LABEL).contains(&name.len())
        && name.chars().all(good)
        && !name.starts_with('-')
        && !name.ends_with('-')
}

/// Names joined by dots, each a label: what most kinds are called by, and hosts.
pub(crate) fn is_subdomain(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(is_label)
}

/// Whether a text can be the key of an annotation or a label: `[domain/]name`.
pub(crate) fn is_qualified(key: &str) -> bool {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    let ends = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    prefix.is_none_or(is_subdomain)
        && name.len() <= MAX_LABEL
        && name.chars().all(inner)
        && ends(name.chars().next())
        && ends(name.chars().last())
}

/// Whether a text can be the value of a label.
pub(crate) fn is_label_value(value: &str) -> bool {
    value.is_empty() || (!value.contains('/') && is_qualified(value))
}

/// The names of all that the file names.
#[derive(Debug, Default)]
pub(crate) struct Names {
    pub services: BTreeMap<String, String>,
    pub volumes: BTreeMap<String, String>,
    pub networks: BTreeMap<String, String>,
    pub configs: BTreeMap<String, String>,
    pub secrets: BTreeMap<String, String>,
}

impl Names {
    /// `overrides`: what services are to be called instead.
    pub fn of(cx: &Context<'_>, overrides: &BTreeMap<&str, &str>, findings: &mut Findings<'_>) -> Names {
        let app = cx.app;
        let services = section("services", app.services.keys(), overrides, findings);
        check_services(app.services.keys(), &services, findings);
        let none = BTreeMap::new();
        Names {
            services,
            volumes: section("volumes", app.volumes.keys(), &none, findings),
            networks: section("networks", app.networks.keys(), &none, findings),
            configs: section("configs", app.configs.keys(), &none, findings),
            secrets: section("secrets", app.secrets.keys(), &none, findings),
        }
    }

    pub fn service<'n>(&'n self, name: &'n str) -> &'n str {
        self.services.get(name).map_or(name, String::as_str)
    }
}

/// What stands in the stead of a name in the messages: `service`.
fn singular(section: &str) -> &str {
    section.strip_suffix('s').unwrap_or(section)
}

fn section<'a>(
    section: &str,
    keys: impl Iterator<Item = &'a String>,
    overrides: &BTreeMap<&str, &str>,
    findings: &mut Findings<'_>,
) -> BTreeMap<String, String> {
    let mut names = BTreeMap::new();
    let mut taken: BTreeMap<String, &String> = BTreeMap::new();
    let kind = singular(section);
    let hint = match section {
        "services" => "rename one, or give it the label kompose.service.name_override",
        _ => "rename one",
    };
    for key in keys {
        let given = overrides.get(key.as_str());
        let name = given.map_or_else(|| dns_label(key), |name| (*name).to_owned());
        if name.is_empty() {
            let message = format!("nothing of {key:?} can be part of a name in a cluster");
            findings.error(&[section, key], message, "use letters, digits and hyphens");
        } else if name.len() > MAX_LABEL {
            let length = name.len();
            let message = format!("{kind} {key:?} would have a name of {length} characters in a cluster");
            findings.error(
                &[section, key],
                message,
                format!("{MAX_LABEL} are the most: choose a shorter one"),
            );
        } else if let Some(other) = taken.get(&name) {
            let message = format!("{kind}s {other:?} and {key:?} would both be called {name:?} in a cluster");
            findings.clash(&[section, key], &[section, other], message, hint);
        }
        taken.entry(name.clone()).or_insert(key);
        names.insert(key.clone(), name);
    }
    names
}

/// A Service's name is part of a host name, so that other services find out when it is not what they ask for.
fn check_services<'a>(
    keys: impl Iterator<Item = &'a String>,
    names: &BTreeMap<String, String>,
    findings: &mut Findings<'_>,
) {
    for key in keys {
        let Some(name) = names.get(key) else { continue };
        if !name.is_empty() && name.len() <= MAX_LABEL && !is_service_name(name) {
            let message = format!("{name:?} cannot be the name of a Service");
            let hint = "begin it with a letter, or give it the label kompose.service.name_override";
            findings.error(&["services", key], message, hint);
        } else if name != key && !name.is_empty() && name.len() <= MAX_LABEL && key.contains(['_', '.']) {
            let message =
                format!("service {key:?} is called {name:?} in a cluster, and found by that name alone");
            let hint = format!("rename it, or say {name} wherever {key} is asked for");
            findings.warn(&["services", key], message, hint);
        }
    }
}

/// A name that nothing of its kind has yet: `wish`, or the same with a number.
pub(crate) fn free(wish: &str, taken: &mut BTreeSet<String>) -> String {
    let mut name = shortened(wish, MAX_LABEL);
    let mut number = 2;
    while !taken.insert(name.clone()) {
        let end = format!("-{number}");
        name = format!("{}{end}", shortened(wish, MAX_LABEL - end.len()));
        number += 1;
    }
    name
}

fn shortened(name: &str, most: usize) -> String {
    name.chars().take(most).collect::<String>().trim_end_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_labels() {
        for (name, label) in [
            ("web", "web"),
            ("my_db", "my-db"),
            ("Web.Front", "web-front"),
            ("_x-", "x"),
            ("-", ""),
            ("9p", "9p"),
        ] {
            assert_eq!(dns_label(name), label, "{name}");
        }
        assert!(is_service_name("web-1") && !is_service_name("1-web") && !is_service_name(&"a".repeat(64)));
        assert!(is_qualified("prometheus.io/port") && is_qualified("a_b.c") && !is_qualified("a/b/c"));
        assert!(!is_qualified("a b") && !is_qualified("/a") && !is_qualified("") && is_label_value(""));
    }

    #[test]
    fn a_taken_name_gets_a_number_and_stays_short() {
        let mut taken = BTreeSet::new();
        assert_eq!(free("web-env", &mut taken), "web-env");
        assert_eq!(free("web-env", &mut taken), "web-env-2");
        let long = "a".repeat(70);
        assert_eq!(free(&long, &mut taken).len(), 63);
        assert_eq!(free(&long, &mut taken).len(), 63);
    }
}
