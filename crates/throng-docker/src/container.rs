//! From a specification to what Docker is asked to make.

use crate::docker::{Core, Names};
use crate::labels;
use bollard::models::{
    ContainerCreateBody, DeviceMapping, EndpointIpamConfig, EndpointSettings, HealthConfig, HostConfig,
    HostConfigLogConfig, Mount, MountTmpfsOptions, MountType, NetworkingConfig, ResourcesUlimits,
};
use std::collections::HashMap;
use std::path::Path;
use throng_model::app::Swap;
use throng_model::replica::{Attachment, ReplicaSpec, ResolvedMount, ResolvedSource};
use throng_model::sandbox::{Device, HostAddress, Sandbox};
use throng_runtime::{ErrorKind, RuntimeError};

/// Nanoseconds of CPU time a second and core.
const NANOS: f64 = 1e9;

/// What the replica's container is made of. `resolv` is the file that names the name server, if it is ours.
pub fn body(core: &Core, spec: &ReplicaSpec, image: &str, resolv: Option<&Path>) -> ContainerCreateBody {
    let process = &spec.process;
    let (program, arguments) = process.args.split_first().map_or((None, &[][..]), |(p, a)| (Some(p), a));
    let endpoint = spec.networks.first().map(|leg| (leg.network.clone(), endpoint(spec, leg, core.names)));
    ContainerCreateBody {
        hostname: Some(spec.hostname.clone()),
        domainname: spec.sandbox.domain.clone(),
        open_stdin: spec.sandbox.stdin_open.then_some(true),
        user: Some(process.user.clone()),
        env: Some(process.env.clone()),
        entrypoint: program.map(|program| vec![program.clone()]),
        cmd: Some(arguments.to_vec()),
        working_dir: Some(process.cwd.clone()),
        image: Some(image.to_owned()),
        labels: Some(labels::write(&core.home, spec)),
        stop_signal: Some(spec.stop_signal.to_string()),
        // The supervisor checks; the daemon would do it a second time.
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".into()]), ..Default::default() }),
        host_config: Some(host_config(spec, &core.root, resolv)),
        networking_config: endpoint.map(|(network, endpoint)| NetworkingConfig {
            endpoints_config: Some(HashMap::from([(network, endpoint)])),
        }),
        ..Default::default()
    }
}

fn host_config(spec: &ReplicaSpec, root: &Path, resolv: Option<&Path>) -> HostConfig {
    let resources = &spec.resources;
    let signed = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let log = [
        ("max-size".to_owned(), spec.log.max_size.to_string()),
        ("max-file".to_owned(), (u64::from(spec.log.max_files) + 1).to_string()),
    ];
    let mut mounts: Vec<Mount> = spec.mounts.iter().map(|wanted| mount(wanted, root)).collect();
    mounts.extend(resolv.map(|path| Mount {
        typ: Some(MountType::BIND),
        source: Some(seen(path, root)),
        target: Some("/etc/resolv.conf".into()),
        read_only: Some(true),
        ..Default::default()
    }));
    let sandbox = &spec.sandbox;
    let some = |words: &[String]| (!words.is_empty()).then(|| words.to_vec());
    HostConfig {
        cap_add: some(&sandbox.cap_add),
        cap_drop: some(&sandbox.cap_drop),
        group_add: some(&sandbox.groups),
        sysctls: (!sandbox.sysctls.is_empty()).then(|| sandbox.sysctls.clone().into_iter().collect()),
        ulimits: ulimits(sandbox),
        init: sandbox.init.then_some(true),
        shm_size: sandbox.shm_size.map(signed),
        oom_score_adj: sandbox.oom_score.map(i64::from),
        extra_hosts: (!sandbox.hosts.is_empty()).then(|| sandbox.hosts.iter().map(extra_host).collect()),
        dns: (!sandbox.dns.is_empty()).then(|| sandbox.dns.iter().map(ToString::to_string).collect()),
        dns_search: some(&sandbox.dns_search),
        dns_options: some(&sandbox.dns_options),
        devices: (!sandbox.devices.is_empty()).then(|| sandbox.devices.iter().map(device).collect()),
        annotations: (!sandbox.annotations.is_empty())
            .then(|| sandbox.annotations.clone().into_iter().collect()),
        cpu_shares: resources.cpu_shares.map(signed),
        memory_reservation: resources.memory_reservation.map(signed),
        cpuset_cpus: resources.cores.map(|cores| cores.to_string()),
        memory_swappiness: resources.swappiness.map(i64::from),
        oom_kill_disable: resources.oom_kill_disable.then_some(true),
        nano_cpus: resources.cpus.map(|cpus| (cpus * NANOS).round() as i64),
        memory: resources.memory.map(signed),
        // Memory and swap together.
        memory_swap: resources.memory.map(|memory| match resources.swap {
            None => signed(memory),
            Some(Swap::Bytes(bytes)) => signed(memory.saturating_add(bytes)),
            Some(Swap::Unlimited) => -1,
        }),
        pids_limit: resources.pids.map(signed),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".into()),
            config: Some(HashMap::from(log)),
        }),
        network_mode: Some(spec.networks.first().map_or("none".into(), |leg| leg.network.clone())),
        mounts: Some(mounts),
        storage_opt: resources.disk.map(|size| HashMap::from([("size".to_owned(), size.to_string())])),
        readonly_rootfs: Some(spec.root.read_only),
        security_opt: Some(security(sandbox)),
        ..Default::default()
    }
}

/// The first wish that cannot be kept, if there is one. Where the daemon's answers to names are not ours, the file that
/// names our server is the same for all replicas of a network.
pub fn unsupported(spec: &ReplicaSpec, names: Names) -> Option<RuntimeError> {
    let sandbox = &spec.sandbox;
    let wishes = [
        ("dns", sandbox.dns.is_empty()),
        ("dns_search", sandbox.dns_search.is_empty()),
        ("dns_opt", sandbox.dns_options.is_empty()),
    ];
    let (key, _) = wishes.into_iter().find(|(_, none)| !none && names == Names::Gateway)?;
    let message = format!("cannot create {}: {key} is not honoured on Docker", spec.id);
    Some(RuntimeError::new(ErrorKind::Invalid, message).hint("remove it, or use --on local"))
}

fn security(sandbox: &Sandbox) -> Vec<String> {
    let unfiltered = sandbox.unfiltered.then(|| "seccomp=unconfined".to_owned());
    std::iter::once("no-new-privileges".to_owned()).chain(unfiltered).collect()
}

fn ulimits(sandbox: &Sandbox) -> Option<Vec<ResourcesUlimits>> {
    let bound = |bound: Option<u64>| Some(bound.and_then(|bound| i64::try_from(bound).ok()).unwrap_or(-1));
    let limits = sandbox.ulimits.iter().map(|(name, limit)| ResourcesUlimits {
        name: Some(name.clone()),
        soft: bound(limit.soft),
        hard: bound(limit.hard),
    });
    (!sandbox.ulimits.is_empty()).then(|| limits.collect())
}

fn extra_host((name, address): &(String, HostAddress)) -> String {
    match address {
        HostAddress::Address(address) => format!("{name}:{address}"),
        HostAddress::Gateway => format!("{name}:host-gateway"),
    }
}

fn device(device: &Device) -> DeviceMapping {
    DeviceMapping {
        path_on_host: Some(device.source.display().to_string()),
        path_in_container: Some(device.target.clone()),
        cgroup_permissions: Some(device.permissions.clone()),
    }
}

/// A path of this host as a daemon names it that sees the host's root at `root`. Links on the way to it lead elsewhere
/// there, so they are followed here.
fn seen(path: &Path, root: &Path) -> String {
    if root == Path::new("/") {
        return path.display().to_string();
    }
    let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    root.join(real.strip_prefix("/").unwrap_or(&real)).display().to_string()
}

fn mount(mount: &ResolvedMount, root: &Path) -> Mount {
    let (typ, source, tmpfs) = match &mount.source {
        ResolvedSource::Bind(path) => (MountType::BIND, Some(seen(path, root)), None),
        ResolvedSource::Private => (MountType::VOLUME, None, None),
        ResolvedSource::Tmpfs { size, mode } => {
            let size_bytes = size.map(|size| i64::try_from(size).unwrap_or(i64::MAX));
            let options = MountTmpfsOptions { size_bytes, mode: mode.map(i64::from), ..Default::default() };
            (MountType::TMPFS, None, Some(options))
        }
    };
    Mount {
        typ: Some(typ),
        source,
        target: Some(mount.target.clone()),
        read_only: Some(mount.read_only),
        tmpfs_options: tmpfs,
        ..Default::default()
    }
}

/// One leg in a network. Where Docker answers for names, the service is one of them.
pub fn endpoint(spec: &ReplicaSpec, leg: &Attachment, names: Names) -> EndpointSettings {
    let aliases = match names {
        Names::Gateway => None,
        Names::Docker => Some(vec![spec.id.service.clone(), spec.id.name()]),
    };
    EndpointSettings {
        ipam_config: Some(EndpointIpamConfig {
            ipv4_address: Some(leg.address.to_string()),
            ..Default::default()
        }),
        aliases,
        ..Default::default()
    }
}
