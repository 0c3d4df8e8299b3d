//! Every key of the Compose specification and what becomes of it here.
//!
//! The reader opens each mapping of a file as a [`Section`] of this table and can take only keys that the table calls
//! honoured; what nobody took is reported by the table's word. So the table cannot claim more than the code does, and
//! nothing in a file is passed over in silence (save `x-…` keys, which the specification reserves for others).
//!
//! Paths are dotted; `*` stands for a name or an element of a list. The list follows the specification's JSON schema
//! (github.com/compose-spec/compose-spec, `schema/compose-spec.json`, June 2026).

use crate::yaml::{Entry, Fields, Findings, Node, Value, nearest};

/// What Throng does with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Its value takes effect, or is refused with an error that says why.
    Honoured,
    /// It has no effect; using it is a warning at its place.
    Warned,
    /// An app that uses it is not what it was meant to be without it: using it is an error at its place.
    Refused,
}

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    pub path: &'static str,
    pub status: Status,
    /// The values that ask for what happens anyway, and so are fine.
    pub accepted: &'static [&'static str],
    /// Why it has no effect, or what to do instead; empty below a key that says so.
    pub reason: &'static str,
}

/// All keys of the specification, parents before children.
pub fn key_table() -> &'static [Key] {
    KEYS
}

const fn honoured(path: &'static str) -> Key {
    Key { path, status: Status::Honoured, accepted: &[], reason: "" }
}

const fn warned(path: &'static str, reason: &'static str) -> Key {
    Key { path, status: Status::Warned, accepted: &[], reason }
}

const fn refused(path: &'static str, reason: &'static str) -> Key {
    Key { path, status: Status::Refused, accepted: &[], reason }
}

impl Key {
    const fn unless(mut self, accepted: &'static [&'static str]) -> Key {
        self.accepted = accepted;
        self
    }
}

/// A key below one that is not honoured.
const fn below(path: &'static str) -> Key {
    warned(path, "")
}

fn find(section: &str, key: &str) -> Option<&'static Key> {
    children(section).find(|row| last_part(row.path) == key)
}

/// The rows directly under a path; the top level is the empty path.
fn children(section: &str) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(move |row| {
        let below = match section {
            "" => Some(row.path),
            _ => row.path.strip_prefix(section).and_then(|rest| rest.strip_prefix('.')),
        };
        below.is_some_and(|rest| !rest.contains('.'))
    })
}

fn last_part(path: &str) -> &str {
    path.rsplit('.').next().unwrap_or(path)
}

/// A mapping of the file that is read by the rows of one path of the table.
pub(crate) struct Section<'a> {
    path: &'static str,
    fields: Fields<'a>,
}

impl<'a> Section<'a> {
    /// `None`, with a finding, when `node` is not a mapping.
    pub fn open(path: &'static str, node: &'a Node, findings: &mut Findings) -> Option<Self> {
        Some(Section { path, fields: Fields::of(node, findings)? })
    }

    /// The value of an honoured key, if the file gives one.
    pub fn take(&mut self, key: &'static str) -> Option<&'a Node> {
        debug_assert!(
            find(self.path, key).is_some_and(|row| row.status == Status::Honoured),
            "{}.{key} is read but the table does not call it honoured",
            self.path
        );
        self.fields.take(key)
    }

    /// Accepts a key without a warning when its value asks for what happens anyway.
    pub fn accept(&mut self, key: &'static str, value: &str, node: &Node) {
        if node.get(key).and_then(Node::scalar) == Some(value) {
            self.fields.take(key);
        }
    }

    /// Reports every key that was not taken.
    pub fn close(self, findings: &mut Findings) {
        for entry in self.fields.rest() {
            report(self.path, entry, findings);
        }
    }
}

fn report(section: &str, entry: &Entry, findings: &mut Findings) {
    let key = entry.key.as_str();
    if key.starts_with("x-") {
        return;
    }
    let Some(row) = find(section, key) else {
        let message = format!("unknown key {key:?} {}", place(section));
        match nearest(key, children(section).map(|row| last_part(row.path))) {
            Some(near) => {
                findings.warn_with_hint(&entry.key_at, message, format!("did you mean {near:?}?"));
            }
            None => {
                let hint = "it has no effect; keys of your own start with x-";
                findings.warn_with_hint(&entry.key_at, message, hint);
            }
        }
        return;
    };
    let asks_for_nothing = match &entry.value.value {
        Value::Null => true,
        Value::List(items) => items.is_empty(),
        Value::Map(entries) => entries.is_empty(),
        Value::Scalar(scalar) => row.accepted.contains(&scalar.text.as_str()),
    };
    if asks_for_nothing {
        return;
    }
    let reason = if row.reason.is_empty() { "the app runs as if it were not there" } else { row.reason };
    if section.is_empty() && key == "version" {
        findings.warn_with_hint(&entry.key_at, "\"version\" has no effect", row.reason);
    } else if row.status == Status::Refused {
        let message = format!("{key:?} {} cannot be honoured", place(section));
        findings.error_with_hint(&entry.key_at, message, reason);
    } else {
        let message = format!("{key:?} {} has no effect", place(section));
        findings.warn_with_hint(&entry.key_at, message, reason);
    }
}

/// `under deploy`, as a person would say where a key stands.
fn place(section: &str) -> String {
    match section {
        "" => "at the top level".into(),
        "services.*" => "of a service".into(),
        "networks.*" => "of a network".into(),
        "volumes.*" => "of a volume".into(),
        "configs.*" => "of a config".into(),
        "secrets.*" => "of a secret".into(),
        path => format!("under {}", path.split('.').rfind(|part| *part != "*").unwrap_or(path)),
    }
}

#[rustfmt::skip] // One row a line, whatever its length, so that a change of status is a change of one line.
const KEYS: &[Key] = &[
    warned("version", "remove it: the specification has no versions any more"),
    honoured("name"),
    honoured("include"),
    honoured("include.*.path"),
    honoured("include.*.env_file"),
    honoured("include.*.project_directory"),
    honoured("services"),
    warned("services.*.develop", "nothing is watched; run `throng up --build` after a change"),
    below("services.*.develop.watch"),
    below("services.*.develop.watch.*.ignore"),
    below("services.*.develop.watch.*.include"),
    below("services.*.develop.watch.*.path"),
    below("services.*.develop.watch.*.action"),
    below("services.*.develop.watch.*.target"),
    below("services.*.develop.watch.*.exec"),
    below("services.*.develop.watch.*.exec.command"),
    below("services.*.develop.watch.*.exec.user"),
    below("services.*.develop.watch.*.exec.privileged"),
    below("services.*.develop.watch.*.exec.working_dir"),
    below("services.*.develop.watch.*.exec.environment"),
    below("services.*.develop.watch.*.initial_sync"),
    honoured("services.*.deploy"),
    honoured("services.*.deploy.mode"),
    warned("services.*.deploy.endpoint_mode", "a name of a service leads to all of its ready replicas in turn").unless(&["vip"]),
    honoured("services.*.deploy.replicas"),
    honoured("services.*.deploy.labels"),
    honoured("services.*.deploy.rollback_config"),
    honoured("services.*.deploy.rollback_config.parallelism"),
    honoured("services.*.deploy.rollback_config.delay"),
    honoured("services.*.deploy.rollback_config.failure_action"),
    honoured("services.*.deploy.rollback_config.monitor"),
    honoured("services.*.deploy.rollback_config.max_failure_ratio"),
    honoured("services.*.deploy.rollback_config.order"),
    honoured("services.*.deploy.update_config"),
    honoured("services.*.deploy.update_config.parallelism"),
    honoured("services.*.deploy.update_config.delay"),
    honoured("services.*.deploy.update_config.failure_action"),
    honoured("services.*.deploy.update_config.monitor"),
    honoured("services.*.deploy.update_config.max_failure_ratio"),
    honoured("services.*.deploy.update_config.order"),
    honoured("services.*.deploy.resources"),
    honoured("services.*.deploy.resources.limits"),
    honoured("services.*.deploy.resources.limits.cpus"),
    honoured("services.*.deploy.resources.limits.memory"),
    honoured("services.*.deploy.resources.limits.pids"),
    honoured("services.*.deploy.resources.reservations"),
    honoured("services.*.deploy.resources.reservations.cpus"),
    honoured("services.*.deploy.resources.reservations.memory"),
    warned("services.*.deploy.resources.reservations.generic_resources", "there is one host, on which nothing is set aside"),
    below("services.*.deploy.resources.reservations.generic_resources.*.discrete_resource_spec"),
    below("services.*.deploy.resources.reservations.generic_resources.*.discrete_resource_spec.kind"),
    below("services.*.deploy.resources.reservations.generic_resources.*.discrete_resource_spec.value"),
    warned("services.*.deploy.resources.reservations.devices", "no driver is asked for devices; name their files under `devices`"),
    below("services.*.deploy.resources.reservations.devices.*.capabilities"),
    below("services.*.deploy.resources.reservations.devices.*.count"),
    below("services.*.deploy.resources.reservations.devices.*.device_ids"),
    below("services.*.deploy.resources.reservations.devices.*.driver"),
    below("services.*.deploy.resources.reservations.devices.*.options"),
    honoured("services.*.deploy.restart_policy"),
    honoured("services.*.deploy.restart_policy.condition"),
    honoured("services.*.deploy.restart_policy.delay"),
    honoured("services.*.deploy.restart_policy.max_attempts"),
    honoured("services.*.deploy.restart_policy.window"),
    honoured("services.*.deploy.placement"),
    honoured("services.*.deploy.placement.constraints"),
    honoured("services.*.deploy.placement.preferences"),
    honoured("services.*.deploy.placement.preferences.*.spread"),
    honoured("services.*.deploy.placement.max_replicas_per_node"),
    honoured("services.*.annotations"),
    warned("services.*.attach", "choose what is shown with `throng logs SERVICE`").unless(&["true"]),
    honoured("services.*.build"),
    honoured("services.*.build.context"),
    honoured("services.*.build.dockerfile"),
    honoured("services.*.build.dockerfile_inline"),
    warned("services.*.build.entitlements", "a build step has the privileges of a replica"),
    honoured("services.*.build.args"),
    warned("services.*.build.ssh", "a build step is given no keys"),
    honoured("services.*.build.labels"),
    warned("services.*.build.cache_from", "what was built on this host is found again by itself"),
    warned("services.*.build.cache_to", "what was built on this host is found again by itself"),
    honoured("services.*.build.no_cache"),
    honoured("services.*.build.additional_contexts"),
    honoured("services.*.build.network"),
    warned("services.*.build.provenance", "no attestation is made").unless(&["false"]),
    warned("services.*.build.sbom", "no attestation is made").unless(&["false"]),
    honoured("services.*.build.pull"),
    honoured("services.*.build.target"),
    honoured("services.*.build.shm_size"),
    honoured("services.*.build.extra_hosts"),
    warned("services.*.build.isolation", "it is for Windows").unless(&["default"]),
    warned("services.*.build.privileged", "a build step has the privileges of a replica").unless(&["false"]),
    honoured("services.*.build.secrets"),
    honoured("services.*.build.secrets.*.source"),
    honoured("services.*.build.secrets.*.target"),
    honoured("services.*.build.secrets.*.uid"),
    honoured("services.*.build.secrets.*.gid"),
    honoured("services.*.build.secrets.*.mode"),
    honoured("services.*.build.tags"),
    honoured("services.*.build.ulimits"),
    honoured("services.*.build.ulimits.*.hard"),
    honoured("services.*.build.ulimits.*.soft"),
    warned("services.*.build.platforms", "images are built for this host"),
    warned("services.*.blkio_config", "disks are not shared out; `storage_opt.size` limits how much a replica writes"),
    below("services.*.blkio_config.device_read_bps"),
    below("services.*.blkio_config.device_read_bps.*.path"),
    below("services.*.blkio_config.device_read_bps.*.rate"),
    below("services.*.blkio_config.device_read_iops"),
    below("services.*.blkio_config.device_read_iops.*.path"),
    below("services.*.blkio_config.device_read_iops.*.rate"),
    below("services.*.blkio_config.device_write_bps"),
    below("services.*.blkio_config.device_write_bps.*.path"),
    below("services.*.blkio_config.device_write_bps.*.rate"),
    below("services.*.blkio_config.device_write_iops"),
    below("services.*.blkio_config.device_write_iops.*.path"),
    below("services.*.blkio_config.device_write_iops.*.rate"),
    below("services.*.blkio_config.weight"),
    below("services.*.blkio_config.weight_device"),
    below("services.*.blkio_config.weight_device.*.path"),
    below("services.*.blkio_config.weight_device.*.weight"),
    honoured("services.*.cap_add"),
    honoured("services.*.cap_drop"),
    refused("services.*.cgroup", "every replica has a control group of its own").unless(&["private"]),
    warned("services.*.cgroup_parent", "control groups are ordered by project"),
    honoured("services.*.command"),
    honoured("services.*.configs"),
    honoured("services.*.configs.*.source"),
    honoured("services.*.configs.*.target"),
    honoured("services.*.configs.*.uid"),
    honoured("services.*.configs.*.gid"),
    honoured("services.*.configs.*.mode"),
    honoured("services.*.container_name"),
    warned("services.*.cpu_count", "it is for Windows; use `cpus`"),
    warned("services.*.cpu_percent", "it is for Windows; use `cpus`"),
    honoured("services.*.cpu_shares"),
    honoured("services.*.cpu_quota"),
    honoured("services.*.cpu_period"),
    warned("services.*.cpu_rt_period", "replicas have no real-time share"),
    warned("services.*.cpu_rt_runtime", "replicas have no real-time share"),
    honoured("services.*.cpus"),
    honoured("services.*.cpuset"),
    warned("services.*.credential_spec", "it is for Windows"),
    below("services.*.credential_spec.config"),
    below("services.*.credential_spec.file"),
    below("services.*.credential_spec.registry"),
    honoured("services.*.depends_on"),
    honoured("services.*.depends_on.*.restart"),
    honoured("services.*.depends_on.*.required"),
    honoured("services.*.depends_on.*.condition"),
    warned("services.*.device_cgroup_rules", "name the files of the devices under `devices`"),
    honoured("services.*.devices"),
    honoured("services.*.devices.*.source"),
    honoured("services.*.devices.*.target"),
    honoured("services.*.devices.*.permissions"),
    honoured("services.*.dns"),
    honoured("services.*.dns_opt"),
    honoured("services.*.dns_search"),
    honoured("services.*.domainname"),
    honoured("services.*.entrypoint"),
    honoured("services.*.env_file"),
    honoured("services.*.env_file.*.path"),
    honoured("services.*.env_file.*.format"),
    honoured("services.*.env_file.*.required"),
    honoured("services.*.label_file"),
    honoured("services.*.environment"),
    honoured("services.*.expose"),
    honoured("services.*.extends"),
    honoured("services.*.extends.service"),
    honoured("services.*.extends.file"),
    refused("services.*.provider", "a provider's program is not known; name an image, or leave the service out by its profile"),
    below("services.*.provider.type"),
    below("services.*.provider.options"),
    refused("services.*.external_links", "an app reaches only its own services by name; publish a port of the other one"),
    honoured("services.*.extra_hosts"),
    warned("services.*.gpus", "no driver is asked for devices; name their files under `devices`"),
    below("services.*.gpus.*.capabilities"),
    below("services.*.gpus.*.count"),
    below("services.*.gpus.*.device_ids"),
    below("services.*.gpus.*.driver"),
    below("services.*.gpus.*.options"),
    honoured("services.*.group_add"),
    honoured("services.*.healthcheck"),
    honoured("services.*.healthcheck.disable"),
    honoured("services.*.healthcheck.interval"),
    honoured("services.*.healthcheck.retries"),
    honoured("services.*.healthcheck.test"),
    honoured("services.*.healthcheck.timeout"),
    honoured("services.*.healthcheck.start_period"),
    honoured("services.*.healthcheck.start_interval"),
    honoured("services.*.hostname"),
    honoured("services.*.image"),
    honoured("services.*.init"),
    refused("services.*.ipc", "every replica has message queues and shared memory of its own").unless(&["private", "none", "shareable"]),
    warned("services.*.isolation", "it is for Windows").unless(&["default"]),
    honoured("services.*.labels"),
    honoured("services.*.links"),
    honoured("services.*.logging"),
    honoured("services.*.logging.driver"),
    honoured("services.*.logging.options"),
    warned("services.*.mac_address", "hardware addresses are given out by the engine"),
    honoured("services.*.mem_limit"),
    honoured("services.*.mem_reservation"),
    honoured("services.*.mem_swappiness"),
    honoured("services.*.memswap_limit"),
    honoured("services.*.network_mode"),
    warned("services.*.models", "models are not run; start one as a service"),
    below("services.*.models.*.endpoint_var"),
    below("services.*.models.*.model_var"),
    honoured("services.*.networks"),
    honoured("services.*.networks.*.aliases"),
    warned("services.*.networks.*.interface_name", "interfaces are eth0, eth1 and so on in the order of the networks' names"),
    honoured("services.*.networks.*.ipv4_address"),
    warned("services.*.networks.*.ipv6_address", "networks have IPv4 alone"),
    warned("services.*.networks.*.link_local_ips", "replicas have one address in each network"),
    warned("services.*.networks.*.mac_address", "hardware addresses are given out by the engine"),
    warned("services.*.networks.*.driver_opts", "networks have no options"),
    warned("services.*.networks.*.priority", "the first network by name is eth0"),
    warned("services.*.networks.*.gw_priority", "the first network by name carries the default route"),
    honoured("services.*.oom_kill_disable"),
    honoured("services.*.oom_score_adj"),
    refused("services.*.pid", "every replica has process numbers of its own"),
    honoured("services.*.pids_limit"),
    honoured("services.*.platform"),
    honoured("services.*.ports"),
    warned("services.*.ports.*.name", "ports are known by their numbers"),
    warned("services.*.ports.*.mode", "one listener on the host serves all replicas").unless(&["ingress", "host"]),
    honoured("services.*.ports.*.host_ip"),
    honoured("services.*.ports.*.target"),
    honoured("services.*.ports.*.published"),
    honoured("services.*.ports.*.protocol"),
    honoured("services.*.ports.*.app_protocol"),
    honoured("services.*.post_start"),
    honoured("services.*.post_start.*.command"),
    honoured("services.*.post_start.*.user"),
    warned("services.*.post_start.*.privileged", "a hook has the privileges of its replica").unless(&["false"]),
    honoured("services.*.post_start.*.working_dir"),
    honoured("services.*.post_start.*.environment"),
    honoured("services.*.pre_stop"),
    honoured("services.*.pre_stop.*.command"),
    honoured("services.*.pre_stop.*.user"),
    warned("services.*.pre_stop.*.privileged", "a hook has the privileges of its replica").unless(&["false"]),
    honoured("services.*.pre_stop.*.working_dir"),
    honoured("services.*.pre_stop.*.environment"),
    warned("services.*.privileged", "replicas have the privileges of `cap_add` and the devices of `devices`").unless(&["false"]),
    honoured("services.*.profiles"),
    honoured("services.*.pull_policy"),
    honoured("services.*.pull_refresh_after"),
    honoured("services.*.read_only"),
    honoured("services.*.restart"),
    warned("services.*.runtime", "replicas run in the engine that is chosen with --on").unless(&["runc"]),
    honoured("services.*.scale"),
    honoured("services.*.security_opt"),
    honoured("services.*.shm_size"),
    honoured("services.*.secrets"),
    honoured("services.*.secrets.*.source"),
    honoured("services.*.secrets.*.target"),
    honoured("services.*.secrets.*.uid"),
    honoured("services.*.secrets.*.gid"),
    honoured("services.*.secrets.*.mode"),
    honoured("services.*.sysctls"),
    honoured("services.*.stdin_open"),
    honoured("services.*.stop_grace_period"),
    honoured("services.*.stop_signal"),
    honoured("services.*.storage_opt"),
    honoured("services.*.storage_opt.size"),
    honoured("services.*.tmpfs"),
    warned("services.*.tty", "output goes to a log; use `throng exec` for a terminal").unless(&["false"]),
    honoured("services.*.ulimits"),
    honoured("services.*.ulimits.*.hard"),
    honoured("services.*.ulimits.*.soft"),
    warned("services.*.use_api_socket", "there is no API socket").unless(&["false"]),
    honoured("services.*.user"),
    refused("services.*.uts", "every replica has a host name of its own"),
    warned("services.*.userns_mode", "all replicas share the engine's users").unless(&["host"]),
    honoured("services.*.volumes"),
    honoured("services.*.volumes.*.type"),
    honoured("services.*.volumes.*.source"),
    honoured("services.*.volumes.*.target"),
    honoured("services.*.volumes.*.read_only"),
    warned("services.*.volumes.*.consistency", "host and replica see the same files at once").unless(&["consistent", "cached", "delegated"]),
    honoured("services.*.volumes.*.bind"),
    warned("services.*.volumes.*.bind.propagation", "what is mounted later on one side is not seen on the other").unless(&["rprivate", "private"]),
    honoured("services.*.volumes.*.bind.create_host_path"),
    warned("services.*.volumes.*.bind.recursive", "what is mounted below the folder comes along, read-only if the mount is").unless(&["enabled"]),
    warned("services.*.volumes.*.bind.selinux", "replicas have no SELinux label").unless(&["z", "Z"]),
    honoured("services.*.volumes.*.volume"),
    warned("services.*.volumes.*.volume.labels", "an unnamed volume is known to its replica alone"),
    warned("services.*.volumes.*.volume.nocopy", "a new volume is empty; it takes owner and mode of the image's folder").unless(&["true"]),
    honoured("services.*.volumes.*.volume.subpath"),
    honoured("services.*.volumes.*.tmpfs"),
    honoured("services.*.volumes.*.tmpfs.size"),
    honoured("services.*.volumes.*.tmpfs.mode"),
    warned("services.*.volumes.*.image", "use a volume, or COPY --from in a Dockerfile"),
    below("services.*.volumes.*.image.subpath"),
    honoured("services.*.volumes_from"),
    honoured("services.*.working_dir"),
    warned("models", "models are not run; start one as a service"),
    below("models.*.name"),
    below("models.*.model"),
    below("models.*.context_size"),
    below("models.*.runtime_flags"),
    honoured("networks"),
    warned("networks.*.name", "a network belongs to its app and is named after it"),
    refused("networks.*.driver", "a network is a bridge of this host").unless(&["bridge", "default"]),
    warned("networks.*.driver_opts", "networks have no options"),
    honoured("networks.*.ipam"),
    warned("networks.*.ipam.driver", "addresses are given out in turn").unless(&["default"]),
    honoured("networks.*.ipam.config"),
    honoured("networks.*.ipam.config.*.subnet"),
    honoured("networks.*.ipam.config.*.ip_range"),
    honoured("networks.*.ipam.config.*.gateway"),
    honoured("networks.*.ipam.config.*.aux_addresses"),
    warned("networks.*.ipam.options", "there are none"),
    refused("networks.*.external", "networks belong to one app; publish a port of the other app instead").unless(&["false"]),
    below("networks.*.external.name"),
    honoured("networks.*.internal"),
    refused("networks.*.enable_ipv4", "networks have IPv4 alone").unless(&["true"]),
    warned("networks.*.enable_ipv6", "networks have IPv4 alone").unless(&["false"]),
    warned("networks.*.attachable", "nothing but the app's replicas is attached").unless(&["false"]),
    honoured("networks.*.labels"),
    honoured("volumes"),
    honoured("volumes.*.name"),
    honoured("volumes.*.driver"),
    honoured("volumes.*.driver_opts"),
    honoured("volumes.*.external"),
    honoured("volumes.*.external.name"),
    honoured("volumes.*.labels"),
    honoured("secrets"),
    warned("secrets.*.name", "it is known by its key within its app"),
    honoured("secrets.*.environment"),
    honoured("secrets.*.file"),
    refused("secrets.*.external", "there is no store of secrets; name a file, or a variable with environment").unless(&["false"]),
    below("secrets.*.external.name"),
    warned("secrets.*.labels", "it is a file, which has no labels"),
    refused("secrets.*.driver", "there is no store of secrets; name a file, or a variable with environment"),
    below("secrets.*.driver_opts"),
    refused("secrets.*.template_driver", "contents are mounted as they are"),
    honoured("configs"),
    warned("configs.*.name", "it is known by its key within its app"),
    honoured("configs.*.content"),
    honoured("configs.*.environment"),
    honoured("configs.*.file"),
    refused("configs.*.external", "there is no store of configs; name a file, or write the content").unless(&["false"]),
    below("configs.*.external.name"),
    warned("configs.*.labels", "it is a file, which has no labels"),
    refused("configs.*.template_driver", "contents are mounted as they are"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_row_is_there_once_and_under_its_parent() {
        let paths: BTreeSet<&str> = KEYS.iter().map(|row| row.path).collect();
        assert_eq!(paths.len(), KEYS.len());
        for row in KEYS {
            let named: Vec<&str> = row.path.split('.').collect();
            for end in 1..named.len() {
                let parent = named[..end].join(".");
                assert!(named[end - 1] == "*" || paths.contains(&*parent), "{} has no parent", row.path);
            }
        }
        assert!(children("services.*").count() >= 92);
    }

    #[test]
    fn an_honoured_key_has_honoured_parents() {
        for row in KEYS.iter().filter(|row| row.status == Status::Honoured) {
            for parent in KEYS.iter().filter(|p| row.path.starts_with(&format!("{}.", p.path))) {
                assert_eq!(parent.status, Status::Honoured, "{} above {}", parent.path, row.path);
            }
        }
    }
}
