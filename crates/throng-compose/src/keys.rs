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
    /// Its value takes effect, or is refused with an error.
    Honoured,
    /// It has no effect yet; using it is a warning at its place.
    Warned,
}

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    pub path: &'static str,
    pub status: Status,
    /// The value that asks for what happens anyway, and so needs no warning.
    pub accepted: Option<&'static str>,
}

/// All keys of the specification, parents before children.
pub fn key_table() -> &'static [Key] {
    KEYS
}

const fn honoured(path: &'static str) -> Key {
    Key { path, status: Status::Honoured, accepted: None }
}

const fn warned(path: &'static str) -> Key {
    Key { path, status: Status::Warned, accepted: None }
}

const fn warned_unless(path: &'static str, accepted: &'static str) -> Key {
    Key { path, status: Status::Warned, accepted: Some(accepted) }
}

fn find(section: &str, key: &str) -> Option<&'static Key> {
    children(section).find(|row| last_part(row.path) == key)
}

/// The rows directly under a path; the top level is the empty path.
fn children(section: &str) -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(move |row| {
        let parent = row.path.rfind('.').map_or("", |dot| &row.path[..dot]);
        parent == section
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
        Value::Scalar(scalar) => row.accepted == Some(&*scalar.text),
    };
    if section.is_empty() && key == "version" {
        let hint = "remove it: the specification has no versions any more";
        findings.warn_with_hint(&entry.key_at, "\"version\" has no effect", hint);
    } else if !asks_for_nothing {
        let hint = "the app runs as if it were not there";
        findings.warn_with_hint(
            &entry.key_at,
            format!("{key:?} {} is not honoured yet", place(section)),
            hint,
        );
    }
}

/// `under deploy`, as a person would say where a key stands.
fn place(section: &str) -> String {
    match section {
        "" => "at the top level".into(),
        "services.*" => "of a service".into(),
        "networks.*" => "of a network".into(),
        "volumes.*" => "of a volume".into(),
        path => format!("under {}", path.split('.').rfind(|part| *part != "*").unwrap_or(path)),
    }
}

#[rustfmt::skip] // One row a line, whatever its length, so that a change of status is a change of one line.
const KEYS: &[Key] = &[
    warned("version"),
    honoured("name"),
    warned("include"),
    warned("include.*.path"),
    warned("include.*.env_file"),
    warned("include.*.project_directory"),
    honoured("services"),
    warned("services.*.develop"),
    warned("services.*.develop.watch"),
    warned("services.*.develop.watch.*.ignore"),
    warned("services.*.develop.watch.*.include"),
    warned("services.*.develop.watch.*.path"),
    warned("services.*.develop.watch.*.action"),
    warned("services.*.develop.watch.*.target"),
    warned("services.*.develop.watch.*.exec"),
    warned("services.*.develop.watch.*.exec.command"),
    warned("services.*.develop.watch.*.exec.user"),
    warned("services.*.develop.watch.*.exec.privileged"),
    warned("services.*.develop.watch.*.exec.working_dir"),
    warned("services.*.develop.watch.*.exec.environment"),
    warned("services.*.develop.watch.*.initial_sync"),
    honoured("services.*.deploy"),
    warned_unless("services.*.deploy.mode", "replicated"),
    warned_unless("services.*.deploy.endpoint_mode", "vip"),
    honoured("services.*.deploy.replicas"),
    warned("services.*.deploy.labels"),
    warned("services.*.deploy.rollback_config"),
    warned("services.*.deploy.rollback_config.parallelism"),
    warned("services.*.deploy.rollback_config.delay"),
    warned("services.*.deploy.rollback_config.failure_action"),
    warned("services.*.deploy.rollback_config.monitor"),
    warned("services.*.deploy.rollback_config.max_failure_ratio"),
    warned("services.*.deploy.rollback_config.order"),
    warned("services.*.deploy.update_config"),
    warned("services.*.deploy.update_config.parallelism"),
    warned("services.*.deploy.update_config.delay"),
    warned("services.*.deploy.update_config.failure_action"),
    warned("services.*.deploy.update_config.monitor"),
    warned("services.*.deploy.update_config.max_failure_ratio"),
    warned("services.*.deploy.update_config.order"),
    honoured("services.*.deploy.resources"),
    honoured("services.*.deploy.resources.limits"),
    honoured("services.*.deploy.resources.limits.cpus"),
    honoured("services.*.deploy.resources.limits.memory"),
    honoured("services.*.deploy.resources.limits.pids"),
    warned("services.*.deploy.resources.reservations"),
    warned("services.*.deploy.resources.reservations.cpus"),
    warned("services.*.deploy.resources.reservations.memory"),
    warned("services.*.deploy.resources.reservations.generic_resources"),
    warned("services.*.deploy.resources.reservations.generic_resources.*.discrete_resource_spec"),
    warned("services.*.deploy.resources.reservations.generic_resources.*.discrete_resource_spec.kind"),
    warned("services.*.deploy.resources.reservations.generic_resources.*.discrete_resource_spec.value"),
    warned("services.*.deploy.resources.reservations.devices"),
    warned("services.*.deploy.resources.reservations.devices.*.capabilities"),
    warned("services.*.deploy.resources.reservations.devices.*.count"),
    warned("services.*.deploy.resources.reservations.devices.*.device_ids"),
    warned("services.*.deploy.resources.reservations.devices.*.driver"),
    warned("services.*.deploy.resources.reservations.devices.*.options"),
    honoured("services.*.deploy.restart_policy"),
    honoured("services.*.deploy.restart_policy.condition"),
    warned("services.*.deploy.restart_policy.delay"),
    honoured("services.*.deploy.restart_policy.max_attempts"),
    warned("services.*.deploy.restart_policy.window"),
    warned("services.*.deploy.placement"),
    warned("services.*.deploy.placement.constraints"),
    warned("services.*.deploy.placement.preferences"),
    warned("services.*.deploy.placement.preferences.*.spread"),
    warned("services.*.deploy.placement.max_replicas_per_node"),
    warned("services.*.annotations"),
    warned_unless("services.*.attach", "true"),
    honoured("services.*.build"),
    honoured("services.*.build.context"),
    honoured("services.*.build.dockerfile"),
    warned("services.*.build.dockerfile_inline"),
    warned("services.*.build.entitlements"),
    honoured("services.*.build.args"),
    warned("services.*.build.ssh"),
    warned("services.*.build.labels"),
    warned("services.*.build.cache_from"),
    warned("services.*.build.cache_to"),
    warned_unless("services.*.build.no_cache", "false"),
    warned("services.*.build.additional_contexts"),
    warned("services.*.build.network"),
    warned("services.*.build.provenance"),
    warned("services.*.build.sbom"),
    warned_unless("services.*.build.pull", "false"),
    honoured("services.*.build.target"),
    warned("services.*.build.shm_size"),
    warned("services.*.build.extra_hosts"),
    warned("services.*.build.isolation"),
    warned_unless("services.*.build.privileged", "false"),
    warned("services.*.build.secrets"),
    warned("services.*.build.secrets.*.source"),
    warned("services.*.build.secrets.*.target"),
    warned("services.*.build.secrets.*.uid"),
    warned("services.*.build.secrets.*.gid"),
    warned("services.*.build.secrets.*.mode"),
    warned("services.*.build.tags"),
    warned("services.*.build.ulimits"),
    warned("services.*.build.ulimits.*.hard"),
    warned("services.*.build.ulimits.*.soft"),
    warned("services.*.build.platforms"),
    warned("services.*.blkio_config"),
    warned("services.*.blkio_config.device_read_bps"),
    warned("services.*.blkio_config.device_read_bps.*.path"),
    warned("services.*.blkio_config.device_read_bps.*.rate"),
    warned("services.*.blkio_config.device_read_iops"),
    warned("services.*.blkio_config.device_read_iops.*.path"),
    warned("services.*.blkio_config.device_read_iops.*.rate"),
    warned("services.*.blkio_config.device_write_bps"),
    warned("services.*.blkio_config.device_write_bps.*.path"),
    warned("services.*.blkio_config.device_write_bps.*.rate"),
    warned("services.*.blkio_config.device_write_iops"),
    warned("services.*.blkio_config.device_write_iops.*.path"),
    warned("services.*.blkio_config.device_write_iops.*.rate"),
    warned("services.*.blkio_config.weight"),
    warned("services.*.blkio_config.weight_device"),
    warned("services.*.blkio_config.weight_device.*.path"),
    warned("services.*.blkio_config.weight_device.*.weight"),
    warned("services.*.cap_add"),
    warned("services.*.cap_drop"),
    warned("services.*.cgroup"),
    warned("services.*.cgroup_parent"),
    honoured("services.*.command"),
    warned("services.*.configs"),
    warned("services.*.configs.*.source"),
    warned("services.*.configs.*.target"),
    warned("services.*.configs.*.uid"),
    warned("services.*.configs.*.gid"),
    warned("services.*.configs.*.mode"),
    warned("services.*.container_name"),
    warned("services.*.cpu_count"),
    warned("services.*.cpu_percent"),
    warned("services.*.cpu_shares"),
    warned("services.*.cpu_quota"),
    warned("services.*.cpu_period"),
    warned("services.*.cpu_rt_period"),
    warned("services.*.cpu_rt_runtime"),
    honoured("services.*.cpus"),
    warned("services.*.cpuset"),
    warned("services.*.credential_spec"),
    warned("services.*.credential_spec.config"),
    warned("services.*.credential_spec.file"),
    warned("services.*.credential_spec.registry"),
    honoured("services.*.depends_on"),
    honoured("services.*.depends_on.*.restart"),
    honoured("services.*.depends_on.*.required"),
    honoured("services.*.depends_on.*.condition"),
    warned("services.*.device_cgroup_rules"),
    warned("services.*.devices"),
    warned("services.*.devices.*.source"),
    warned("services.*.devices.*.target"),
    warned("services.*.devices.*.permissions"),
    warned("services.*.dns"),
    warned("services.*.dns_opt"),
    warned("services.*.dns_search"),
    warned("services.*.domainname"),
    honoured("services.*.entrypoint"),
    honoured("services.*.env_file"),
    honoured("services.*.env_file.*.path"),
    honoured("services.*.env_file.*.format"),
    honoured("services.*.env_file.*.required"),
    warned("services.*.label_file"),
    honoured("services.*.environment"),
    honoured("services.*.expose"),
    warned("services.*.extends"),
    warned("services.*.extends.service"),
    warned("services.*.extends.file"),
    warned("services.*.provider"),
    warned("services.*.provider.type"),
    warned("services.*.provider.options"),
    warned("services.*.external_links"),
    warned("services.*.extra_hosts"),
    warned("services.*.gpus"),
    warned("services.*.gpus.*.capabilities"),
    warned("services.*.gpus.*.count"),
    warned("services.*.gpus.*.device_ids"),
    warned("services.*.gpus.*.driver"),
    warned("services.*.gpus.*.options"),
    warned("services.*.group_add"),
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
    warned_unless("services.*.init", "false"),
    warned("services.*.ipc"),
    warned("services.*.isolation"),
    honoured("services.*.labels"),
    warned("services.*.links"),
    warned("services.*.logging"),
    warned("services.*.logging.driver"),
    warned("services.*.logging.options"),
    warned("services.*.mac_address"),
    honoured("services.*.mem_limit"),
    warned("services.*.mem_reservation"),
    warned("services.*.mem_swappiness"),
    warned("services.*.memswap_limit"),
    warned("services.*.network_mode"),
    warned("services.*.models"),
    warned("services.*.models.*.endpoint_var"),
    warned("services.*.models.*.model_var"),
    honoured("services.*.networks"),
    honoured("services.*.networks.*.aliases"),
    warned("services.*.networks.*.interface_name"),
    warned("services.*.networks.*.ipv4_address"),
    warned("services.*.networks.*.ipv6_address"),
    warned("services.*.networks.*.link_local_ips"),
    warned("services.*.networks.*.mac_address"),
    warned("services.*.networks.*.driver_opts"),
    warned("services.*.networks.*.priority"),
    warned("services.*.networks.*.gw_priority"),
    warned_unless("services.*.oom_kill_disable", "false"),
    warned("services.*.oom_score_adj"),
    warned("services.*.pid"),
    honoured("services.*.pids_limit"),
    warned("services.*.platform"),
    honoured("services.*.ports"),
    warned("services.*.ports.*.name"),
    warned_unless("services.*.ports.*.mode", "ingress"),
    honoured("services.*.ports.*.host_ip"),
    honoured("services.*.ports.*.target"),
    honoured("services.*.ports.*.published"),
    honoured("services.*.ports.*.protocol"),
    honoured("services.*.ports.*.app_protocol"),
    warned("services.*.post_start"),
    warned("services.*.post_start.*.command"),
    warned("services.*.post_start.*.user"),
    warned("services.*.post_start.*.privileged"),
    warned("services.*.post_start.*.working_dir"),
    warned("services.*.post_start.*.environment"),
    warned("services.*.pre_stop"),
    warned("services.*.pre_stop.*.command"),
    warned("services.*.pre_stop.*.user"),
    warned("services.*.pre_stop.*.privileged"),
    warned("services.*.pre_stop.*.working_dir"),
    warned("services.*.pre_stop.*.environment"),
    warned_unless("services.*.privileged", "false"),
    honoured("services.*.profiles"),
    warned("services.*.pull_policy"),
    warned("services.*.pull_refresh_after"),
    warned_unless("services.*.read_only", "false"),
    honoured("services.*.restart"),
    warned("services.*.runtime"),
    honoured("services.*.scale"),
    warned("services.*.security_opt"),
    warned("services.*.shm_size"),
    warned("services.*.secrets"),
    warned("services.*.secrets.*.source"),
    warned("services.*.secrets.*.target"),
    warned("services.*.secrets.*.uid"),
    warned("services.*.secrets.*.gid"),
    warned("services.*.secrets.*.mode"),
    warned("services.*.sysctls"),
    warned_unless("services.*.stdin_open", "false"),
    honoured("services.*.stop_grace_period"),
    honoured("services.*.stop_signal"),
    honoured("services.*.storage_opt"),
    honoured("services.*.storage_opt.size"),
    honoured("services.*.tmpfs"),
    warned_unless("services.*.tty", "false"),
    warned("services.*.ulimits"),
    warned("services.*.ulimits.*.hard"),
    warned("services.*.ulimits.*.soft"),
    warned_unless("services.*.use_api_socket", "false"),
    honoured("services.*.user"),
    warned("services.*.uts"),
    warned("services.*.userns_mode"),
    honoured("services.*.volumes"),
    honoured("services.*.volumes.*.type"),
    honoured("services.*.volumes.*.source"),
    honoured("services.*.volumes.*.target"),
    honoured("services.*.volumes.*.read_only"),
    warned("services.*.volumes.*.consistency"),
    honoured("services.*.volumes.*.bind"),
    warned("services.*.volumes.*.bind.propagation"),
    honoured("services.*.volumes.*.bind.create_host_path"),
    warned("services.*.volumes.*.bind.recursive"),
    warned("services.*.volumes.*.bind.selinux"),
    warned("services.*.volumes.*.volume"),
    warned("services.*.volumes.*.volume.labels"),
    warned("services.*.volumes.*.volume.nocopy"),
    warned("services.*.volumes.*.volume.subpath"),
    honoured("services.*.volumes.*.tmpfs"),
    honoured("services.*.volumes.*.tmpfs.size"),
    warned("services.*.volumes.*.tmpfs.mode"),
    warned("services.*.volumes.*.image"),
    warned("services.*.volumes.*.image.subpath"),
    warned("services.*.volumes_from"),
    honoured("services.*.working_dir"),
    warned("models"),
    warned("models.*.name"),
    warned("models.*.model"),
    warned("models.*.context_size"),
    warned("models.*.runtime_flags"),
    honoured("networks"),
    warned("networks.*.name"),
    warned_unless("networks.*.driver", "bridge"),
    warned("networks.*.driver_opts"),
    honoured("networks.*.ipam"),
    warned_unless("networks.*.ipam.driver", "default"),
    honoured("networks.*.ipam.config"),
    honoured("networks.*.ipam.config.*.subnet"),
    warned("networks.*.ipam.config.*.ip_range"),
    warned("networks.*.ipam.config.*.gateway"),
    warned("networks.*.ipam.config.*.aux_addresses"),
    warned("networks.*.ipam.options"),
    warned_unless("networks.*.external", "false"),
    warned("networks.*.external.name"),
    honoured("networks.*.internal"),
    warned_unless("networks.*.enable_ipv4", "true"),
    warned_unless("networks.*.enable_ipv6", "false"),
    warned_unless("networks.*.attachable", "false"),
    warned("networks.*.labels"),
    honoured("volumes"),
    honoured("volumes.*.name"),
    warned_unless("volumes.*.driver", "local"),
    warned("volumes.*.driver_opts"),
    honoured("volumes.*.external"),
    honoured("volumes.*.external.name"),
    warned("volumes.*.labels"),
    warned("secrets"),
    warned("secrets.*.name"),
    warned("secrets.*.environment"),
    warned("secrets.*.file"),
    warned("secrets.*.external"),
    warned("secrets.*.external.name"),
    warned("secrets.*.labels"),
    warned("secrets.*.driver"),
    warned("secrets.*.driver_opts"),
    warned("secrets.*.template_driver"),
    warned("configs"),
    warned("configs.*.name"),
    warned("configs.*.content"),
    warned("configs.*.environment"),
    warned("configs.*.file"),
    warned("configs.*.external"),
    warned("configs.*.external.name"),
    warned("configs.*.labels"),
    warned("configs.*.template_driver"),
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
