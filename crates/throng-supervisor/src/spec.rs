//! From a service and its image to everything a runtime needs for one replica.

use crate::paths::Paths;
use crate::protocol::{Refusal, RefusalKind};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};
use throng_image::{HealthConfig, Image, Store};
use throng_model::app::{App, HealthCheck, HealthTest, MountSource, Service};
use throng_model::replica::{
    Attachment, LogPolicy, NetworkSpec, Process, ReplicaId, ReplicaSpec, ResolvedMount, ResolvedSource,
    RootFs,
};

/// A service with its image looked up: what all of its replicas share.
#[derive(Debug, Clone)]
pub struct Prepared {
    pub service: Service,
    pub root: RootFs,
    pub process: Process,
    pub mounts: Vec<ResolvedMount>,
    pub health: Option<HealthCheck>,
    pub stop_signal: i32,
    /// Names of the host's networks, in the order of the service's attachments.
    pub networks: Vec<NetworkSpec>,
    pub config_hash: String,
}

/// Looks the image up, unpacks its layers, and makes the folders of volumes. Blocks.
pub fn prepare(
    app: &App,
    service: &Service,
    networks: &BTreeMap<String, NetworkSpec>,
    store: &Store,
    paths: &Paths,
) -> Result<Prepared, Refusal> {
    let image = find_image(service, store)?;
    throng_image::check_architecture(&image).map_err(|error| image_refusal(service, &error))?;
    let layers = store.layers(&image).map_err(|error| image_refusal(service, &error))?;
    let root = RootFs { image: service.image.clone(), image_id: image.id.clone(), layers, read_only: false };
    let process = process(service, &image)?;
    let program = process.args.first().map_or("", String::as_str);
    // The kernel would call it "exec format error", and only at each start.
    let path = process.env.iter().find_map(|pair| pair.strip_prefix("PATH=")).unwrap_or_default();
    throng_image::check_program(&service.image, &root.layers, program, path)
        .map_err(|error| image_refusal(service, &error))?;
    let mounts = mounts(app, service, &image, &root.layers, paths)?;
    let networks: Vec<NetworkSpec> =
        service.networks.keys().filter_map(|key| networks.get(key)).cloned().collect();
    let signal = service.stop_signal.as_deref().or(image.config.stop_signal.as_deref()).unwrap_or("SIGTERM");
    let stop_signal = signal_number(signal).ok_or_else(|| {
        Refusal::new(RefusalKind::Invalid, format!("{}: {signal:?} is not a signal", service.name))
            .hint("write a name as in SIGTERM, or a number from 1 to 64")
    })?;
    let health = match &service.health_check {
        Some(HealthCheck { test: HealthTest::Disabled, .. }) => None,
        Some(check) => Some(check.clone()),
        None => image.config.healthcheck.as_ref().and_then(image_health_check),
    };
    let config_hash = config_hash(service, &image.id, &networks);
    let service = service.clone();
    Ok(Prepared { service, root, process, mounts, health, stop_signal, networks, config_hash })
}

impl Prepared {
    /// The order for one replica.
    pub fn replica(&self, id: ReplicaId, generation: u64, networks: Vec<Attachment>) -> ReplicaSpec {
        let hostname = self.service.hostname.clone().unwrap_or_else(|| id.name());
        let mut process = self.process.clone();
        if !process.env.iter().any(|pair| pair.starts_with("HOSTNAME=")) {
            process.env.push(format!("HOSTNAME={hostname}"));
        }
        ReplicaSpec {
            id,
            generation,
            config_hash: self.config_hash.clone(),
            root: self.root.clone(),
            process,
            hostname,
            mounts: self.mounts.clone(),
            networks,
            resources: self.service.resources,
            log: LogPolicy::default(),
            stop_signal: self.stop_signal,
            stop_grace_period: self.service.stop_grace_period,
        }
    }
}

fn find_image(service: &Service, store: &Store) -> Result<Image, Refusal> {
    let found = store.find(&service.image).map_err(|error| image_refusal(service, &error))?;
    if let Some(image) = &found {
        // An image whose last use is not known goes too early at worst, and never while it is used.
        let _ = store.mark_used(image, SystemTime::now());
    }
    found.ok_or_else(|| {
        let name = &service.image;
        let hint = match service.build {
            Some(_) => "run `throng build`".to_owned(),
            None => {
                format!("run `throng pull {name}`, or `throng build` if the service has a `build` section")
            }
        };
        Refusal::new(RefusalKind::NotFound, format!("{}: no image {name} on this host", service.name))
            .hint(hint)
    })
}

fn image_refusal(service: &Service, error: &throng_image::ImageError) -> Refusal {
    let cause = std::error::Error::source(error).map(|cause| format!(": {cause}")).unwrap_or_default();
    let message = format!("{}: image {}: {error}{cause}", service.name, service.image);
    let kind = if error.is_of_host() { RefusalKind::Host } else { RefusalKind::Image };
    Refusal { hint: error.hint(), ..Refusal::new(kind, message) }
}

/// The image's entry point and command under Compose's replacement rules, and the merged environment.
fn process(service: &Service, image: &Image) -> Result<Process, Refusal> {
    let config = &image.config;
    let mut args = service.entrypoint.clone().or_else(|| config.entrypoint.clone()).unwrap_or_default();
    match (&service.command, &service.entrypoint) {
        (Some(command), _) => args.extend(command.iter().cloned()),
        // A replaced entry point also drops the image's command, as Docker does.
        (None, Some(_)) => {}
        (None, None) => args.extend(config.cmd.iter().flatten().cloned()),
    }
    if args.is_empty() {
        let message =
            format!("{}: image {} names no command and the file gives none", service.name, service.image);
        return Err(Refusal::new(RefusalKind::Invalid, message).hint("add `command:` to the service"));
    }
    let mut env: BTreeMap<String, String> = BTreeMap::new();
    env.insert("PATH".into(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into());
    for pair in &config.env {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        env.insert(key.into(), value.into());
    }
    env.extend(service.environment.clone());
    let cwd = service.working_dir.clone().unwrap_or_else(|| config.working_dir.clone());
    Ok(Process {
        args,
        env: env.into_iter().map(|(key, value)| format!("{key}={value}")).collect(),
        cwd: if cwd.is_empty() { "/".into() } else { cwd },
        user: service.user.clone().unwrap_or_else(|| config.user.clone()),
    })
}

/// Docker's health check of an image, with Docker's defaults where it says 0.
fn image_health_check(config: &HealthConfig) -> Option<HealthCheck> {
    let (kind, rest) = config.test.split_first()?;
    let test = match (kind.as_str(), rest) {
        ("CMD", [_, ..]) => HealthTest::Exec(rest.to_vec()),
        ("CMD-SHELL", [script]) => HealthTest::Shell(script.clone()),
        _ => return None,
    };
    let or = |nanos: u64, default: u64| {
        if nanos == 0 { Duration::from_secs(default) } else { Duration::from_nanos(nanos) }
    };
    Some(HealthCheck {
        test,
        interval: or(config.interval, 30),
        timeout: or(config.timeout, 30),
        retries: if config.retries == 0 { 3 } else { config.retries.min(1000) as u32 },
        start_period: Duration::from_nanos(config.start_period),
        start_interval: or(config.start_interval, 5),
    })
}

fn mounts(
    app: &App,
    service: &Service,
    image: &Image,
    layers: &[PathBuf],
    paths: &Paths,
) -> Result<Vec<ResolvedMount>, Refusal> {
    let mut mounts = Vec::new();
    for mount in &service.mounts {
        let source = match &mount.source {
            MountSource::Volume(key) => {
                let volume = app.volumes.get(key);
                let name = volume.map_or_else(|| key.clone(), |volume| volume.name.clone());
                let external = volume.is_some_and(|volume| volume.external);
                let folder = paths.volumes().join(&name).join("_data");
                volume_folder(&folder, &name, external, &mount.target, layers)
                    .map_err(|refusal| prefixed(service, refusal))?;
                ResolvedSource::Bind(folder)
            }
            MountSource::Bind { path, create } => {
                bind_source(path, *create).map_err(|refusal| prefixed(service, refusal))?;
                ResolvedSource::Bind(path.clone())
            }
            MountSource::Tmpfs { size } => ResolvedSource::Tmpfs { size: *size },
            MountSource::Anonymous => ResolvedSource::Private,
        };
        mounts.push(ResolvedMount { source, target: mount.target.clone(), read_only: mount.read_only });
    }
    for target in &image.config.volumes {
        if !mounts.iter().any(|mount| &mount.target == target) {
            mounts.push(ResolvedMount {
                source: ResolvedSource::Private,
                target: target.clone(),
                read_only: false,
            });
        }
    }
    // Parents before children, or the parent's mount would hide the child's.
    mounts.sort_by(|a, b| a.target.cmp(&b.target));
    Ok(mounts)
}

fn prefixed(service: &Service, refusal: Refusal) -> Refusal {
    Refusal { message: format!("{}: {}", service.name, refusal.message), ..refusal }
}

fn bind_source(path: &std::path::Path, create: bool) -> Result<(), Refusal> {
    if path.exists() {
        return Ok(());
    }
    if !create {
        let message = format!("{} is to be mounted but does not exist", path.display());
        return Err(
            Refusal::new(RefusalKind::Invalid, message).hint("make it, or use the short syntax, which does")
        );
    }
    std::fs::create_dir_all(path)
        .map_err(|error| Refusal::new(RefusalKind::Host, format!("cannot make {}: {error}", path.display())))
}

/// Makes the folder of a named volume. A new one takes owner and mode of the folder that the image has at its
/// target, as Docker does, so that a process which is not root can write to it.
fn volume_folder(
    folder: &std::path::Path,
    name: &str,
    external: bool,
    target: &str,
    layers: &[PathBuf],
) -> Result<(), Refusal> {
    use std::os::unix::fs::MetadataExt;
    if folder.exists() {
        return Ok(());
    }
    if external {
        return Err(Refusal::new(RefusalKind::NotFound, format!("external volume {name} does not exist"))
            .hint(format!("make it: mkdir -p {}", folder.display())));
    }
    let failed = |error: std::io::Error| {
        Refusal::new(RefusalKind::Host, format!("cannot make volume {name} at {}: {error}", folder.display()))
    };
    std::fs::create_dir_all(folder).map_err(failed)?;
    let inside = target.trim_start_matches('/');
    let model = layers.iter().rev().find_map(|layer| std::fs::symlink_metadata(layer.join(inside)).ok());
    if let Some(model) = model.filter(std::fs::Metadata::is_dir) {
        std::fs::set_permissions(folder, model.permissions()).map_err(failed)?;
        // Without the privilege the folder stays its maker's, which is who the replica's root is then.
        let _ = std::os::unix::fs::chown(folder, Some(model.uid()), Some(model.gid()));
    }
    Ok(())
}

/// Changes with everything that a running replica would have to be replaced for; not with counts or ports.
fn config_hash(service: &Service, image_id: &str, networks: &[NetworkSpec]) -> String {
    let relevant = Service {
        replicas: 0,
        ports: Vec::new(),
        depends_on: BTreeMap::new(),
        profiles: Vec::new(),
        health_check: None,
        restart: Default::default(),
        build: None,
        ..service.clone()
    };
    let text = serde_json::to_vec(&(relevant, image_id, networks)).unwrap_or_default();
    let digest = Sha256::digest(&text);
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// A signal by name, with or without `SIG`, or by number.
pub fn signal_number(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    const NAMES: [(&str, i32); 20] = [
        ("HUP", 1),
        ("INT", 2),
        ("QUIT", 3),
        ("ILL", 4),
        ("TRAP", 5),
        ("ABRT", 6),
        ("BUS", 7),
        ("FPE", 8),
        ("KILL", 9),
        ("USR1", 10),
        ("SEGV", 11),
        ("USR2", 12),
        ("PIPE", 13),
        ("ALRM", 14),
        ("TERM", 15),
        ("CHLD", 17),
        ("CONT", 18),
        ("STOP", 19),
        ("TSTP", 20),
        ("WINCH", 28),
    ];
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_name_and_number() {
        for (text, number) in [
            ("SIGTERM", Some(15)),
            ("term", Some(15)),
            ("9", Some(9)),
            ("SIGWINCH", Some(28)),
            ("0", None),
            ("x", None),
        ] {
            assert_eq!(signal_number(text), number, "{text}");
        }
    }

    #[test]
    fn the_hash_ignores_what_needs_no_new_replica() {
        let service = Service { name: "web".into(), replicas: 1, ..Service::default() };
        let hash = config_hash(&service, "sha256:1", &[]);
        let scaled = Service { replicas: 9, ..service.clone() };
        assert_eq!(config_hash(&scaled, "sha256:1", &[]), hash);
        let changed = Service { user: Some("1".into()), ..service.clone() };
        assert_ne!(config_hash(&changed, "sha256:1", &[]), hash);
        assert_ne!(config_hash(&service, "sha256:2", &[]), hash);
    }
}
