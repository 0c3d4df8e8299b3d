//! From a service and its image to everything a runtime needs for one replica.

use crate::paths::Paths;
use crate::protocol::{Refusal, RefusalKind};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};
use throng_image::{HealthConfig, Image, Store};
use throng_model::app::{
    App, FileKind, FileMount, FileSource, HealthCheck, HealthTest, MountSource, Protocol, Resources, Service,
};
use throng_model::job::Job;
use throng_model::replica::{
    Attachment, NetworkSpec, Process, ReplicaId, ReplicaSpec, ResolvedMount, ResolvedSource, RootFs,
};

/// Bytes of a config's or secret's file that is copied, to have an owner or mode of its own.
const MAX_COPIED: u64 = 16 << 20;

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
    /// Ports of TCP at which replicas are known to answer.
    pub ports: BTreeSet<u16>,
    pub config_hash: String,
}

/// Looks the image up, which is the service's own or, by its id, the one that the service's image name once stood for;
/// unpacks its layers, and makes the folders of volumes. Blocks.
pub fn prepare(
    image: &str,
    app: &App,
    service: &Service,
    networks: &BTreeMap<String, NetworkSpec>,
    store: &Store,
    paths: &Paths,
) -> Result<Prepared, Refusal> {
    let image = find_image(image, service, store)?;
    throng_image::check_architecture(&image).map_err(|error| image_refusal(service, &error))?;
    let layers = store.layers(&image).map_err(|error| image_refusal(service, &error))?;
    let root = RootFs {
        image: service.image.clone(),
        image_id: image.id.clone(),
        layers,
        read_only: service.read_only,
    };
    let process = process(service, &image)?;
    let program = process.args.first().map_or("", String::as_str);
    // The kernel would call it "exec format error", and only at each start.
    let path = process.env.iter().find_map(|pair| pair.strip_prefix("PATH=")).unwrap_or_default();
    throng_image::check_program(&service.image, &root.layers, program, path)
        .map_err(|error| image_refusal(service, &error))?;
    let (files, mut marks) = file_mounts(app, service, paths)?;
    marks.extend(devices(app, service));
    let mounts = mounts(app, service, &image, &root.layers, files, paths)?;
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
    if let Some(job) = service.job.clone() {
        throng_control::job::Work::new(job).map_err(|error| {
            Refusal::new(RefusalKind::Invalid, format!("{}: {error}", service.name)).hint(error.hint())
        })?;
    }
    let config_hash = config_hash(service, &image.id, &networks, &marks);
    let ports = known_ports(service, &image, health.as_ref());
    let service = service.clone();
    Ok(Prepared { service, root, process, mounts, health, stop_signal, networks, ports, config_hash })
}

/// What the file, the image and the health check say.
fn known_ports(service: &Service, image: &Image, health: Option<&HealthCheck>) -> BTreeSet<u16> {
    let published = service.ports.iter().filter(|port| port.protocol == Protocol::Tcp);
    let exposed = service.expose.iter().filter(|port| port.protocol == Protocol::Tcp);
    let of_image = image.config.exposed_ports.iter().filter_map(|text| {
        let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        port.parse().ok().filter(|_| protocol == "tcp")
    });
    let asked = health.and_then(|check| match check.test {
        HealthTest::Http { port, .. } | HealthTest::Tcp { port } | HealthTest::Grpc { port, .. } => {
            Some(port)
        }
        _ => None,
    });
    let said = published.map(|port| port.target).chain(exposed.map(|port| port.port));
    said.chain(of_image).chain(asked).collect()
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
            log: self.service.log.unwrap_or_default(),
            stop_signal: self.stop_signal,
            stop_grace_period: self.service.stop_grace_period,
            sandbox: self.service.sandbox.clone(),
            node: None,
        }
    }
}

fn find_image(name: &str, service: &Service, store: &Store) -> Result<Image, Refusal> {
    let found = store.find(name).map_err(|error| image_refusal(service, &error))?;
    if let Some(image) = &found {
        // An image whose last use is not known goes too early at worst, and never while it is used.
        let _ = store.mark_used(image, SystemTime::now());
    }
    found.ok_or_else(|| {
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
    files: Vec<ResolvedMount>,
    paths: &Paths,
) -> Result<Vec<ResolvedMount>, Refusal> {
    let mut mounts = files;
    for mount in &service.mounts {
        let source = match &mount.source {
            MountSource::Volume(key) => {
                let volume = app.volumes.get(key);
                let name = volume.map_or_else(|| key.clone(), |volume| volume.name.clone());
                let external = volume.is_some_and(|volume| volume.external);
                let folder = match volume.and_then(|volume| volume.device.clone()) {
                    Some(device) => bind_source(&device, false).map(|()| device),
                    None => {
                        let folder = paths.volumes().join(&name).join("_data");
                        volume_folder(&folder, &name, external, &mount.target, layers).map(|()| folder)
                    }
                };
                let folder = folder.and_then(|folder| below(folder, mount.subpath.as_deref()));
                ResolvedSource::Bind(folder.map_err(|refusal| prefixed(service, refusal))?)
            }
            MountSource::Bind { path, create } => {
                bind_source(path, *create).map_err(|refusal| prefixed(service, refusal))?;
                ResolvedSource::Bind(path.clone())
            }
            MountSource::Tmpfs { size, mode } => ResolvedSource::Tmpfs { size: *size, mode: *mode },
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

/// A folder inside a volume. Links in it are the replicas' own doing, so none may lead out.
fn below(folder: PathBuf, subpath: Option<&str>) -> Result<PathBuf, Refusal> {
    let Some(subpath) = subpath else { return Ok(folder) };
    let found = folder.join(subpath).canonicalize().ok();
    let root = folder.canonicalize().ok();
    match (found, root) {
        (Some(found), Some(root)) if found.starts_with(&root) => Ok(found),
        _ => {
            let message = format!("the volume at {} has no folder {subpath}", folder.display());
            Err(Refusal::new(RefusalKind::Invalid, message).hint("make it in the volume first"))
        }
    }
}

/// Folders of the host that are volumes of the service, as far as the file names them.
fn devices(app: &App, service: &Service) -> impl Iterator<Item = String> {
    let device = |source: &MountSource| match source {
        MountSource::Volume(key) => {
            app.volumes.get(key)?.device.as_ref().map(|path| path.display().to_string())
        }
        _ => None,
    };
    service.mounts.iter().filter_map(move |mount| device(&mount.source))
}

/// The configs and secrets of a service as mounts of files, and what changes with their contents.
fn file_mounts(
    app: &App,
    service: &Service,
    paths: &Paths,
) -> Result<(Vec<ResolvedMount>, Vec<String>), Refusal> {
    let (mut mounts, mut marks) = (Vec::new(), Vec::new());
    for file in &service.files {
        let declared = match file.kind {
            FileKind::Config => &app.configs,
            FileKind::Secret => &app.secrets,
        };
        let Some(source) = declared.get(&file.source) else {
            let message = format!("{}: {} is not declared", service.name, file.source);
            return Err(Refusal::new(RefusalKind::Invalid, message));
        };
        let path = file_source(app, file, source, paths).map_err(|refusal| prefixed(service, refusal))?;
        marks.push(path.display().to_string());
        let source = ResolvedSource::Bind(path);
        mounts.push(ResolvedMount { source, target: file.target.clone(), read_only: true });
    }
    Ok((mounts, marks))
}

/// The beginning of a file, which must not be larger than `most` if that is not 0.
fn read_source(path: &std::path::Path, most: u64) -> std::io::Result<Vec<u8>> {
    use std::io::{Error, Read};
    // Looked at before it is opened: to open a pipe may take for ever.
    if !std::fs::metadata(path)?.is_file() {
        return Err(Error::other("it is not a file"));
    }
    let file = std::fs::File::open(path)?;
    let mut content = Vec::new();
    file.take(most + 1).read_to_end(&mut content)?;
    if most > 0 && content.len() as u64 > most {
        return Err(Error::other(format!("with uid, gid or mode it may be {most} bytes at most")));
    }
    Ok(content)
}

/// The file of the host itself, or a copy of the content under a name that follows from it: a new content is a new
/// file, and replicas that still run keep the one they have.
fn file_source(app: &App, file: &FileMount, source: &FileSource, paths: &Paths) -> Result<PathBuf, Refusal> {
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let content = match source {
        FileSource::File(path) => {
            let is_own = file.uid.is_none() && file.gid.is_none() && file.mode.is_none();
            let content = read_source(path, if is_own { 0 } else { MAX_COPIED }).map_err(|error| {
                let message = format!("cannot read {} for {}: {error}", path.display(), file.source);
                Refusal::new(RefusalKind::Invalid, message).hint("make it, or correct the path")
            })?;
            if is_own {
                return Ok(path.clone());
            }
            content
        }
        FileSource::Content(text) | FileSource::Environment { value: text, .. } => text.clone().into_bytes(),
    };
    let (uid, gid, mode) = (file.uid.unwrap_or(0), file.gid.unwrap_or(0), file.mode.unwrap_or(0o444));
    let mut digest = Sha256::new();
    digest.update(format!("{uid} {gid} {mode} "));
    digest.update(&content);
    let name: String = digest.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let folder = paths.project(&app.name).join("files");
    let path = folder.join(name);
    if path.exists() {
        return Ok(path);
    }
    let failed = |error: std::io::Error| {
        Refusal::new(
            RefusalKind::Host,
            format!("cannot write {} for {}: {error}", path.display(), file.source),
        )
    };
    std::fs::create_dir_all(&folder).map_err(failed)?;
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700)).map_err(failed)?;
    let fresh = path.with_extension(std::process::id().to_string());
    // Of an earlier supervisor by the same number, if it is there at all.
    let _ = std::fs::remove_file(&fresh);
    let mut options = std::fs::OpenOptions::new();
    let mut written = options.write(true).create_new(true).mode(0o600).open(&fresh).map_err(failed)?;
    std::io::Write::write_all(&mut written, &content).map_err(failed)?;
    let asked = file.uid.is_some() || file.gid.is_some();
    match std::os::unix::fs::fchown(&written, Some(uid), Some(gid)) {
        Err(error) if asked => {
            let hint = "as an ordinary user leave out uid and gid: all files are that user's";
            return Err(failed(error).hint(hint));
        }
        _ => {}
    }
    written.set_permissions(std::fs::Permissions::from_mode(mode)).map_err(failed)?;
    std::fs::rename(&fresh, &path).map_err(failed)?;
    Ok(path)
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
fn config_hash(service: &Service, image_id: &str, networks: &[NetworkSpec], marks: &[String]) -> String {
    let relevant = Service {
        replicas: 0,
        ports: Vec::new(),
        depends_on: BTreeMap::new(),
        profiles: Vec::new(),
        health_check: None,
        liveness: None,
        startup: None,
        // How a job goes about its work can change while it runs; whether it is one cannot.
        job: service.job.as_ref().map(|_| Job::default()),
        restart: Default::default(),
        restart_pace: Default::default(),
        update: None,
        rollback: None,
        build: None,
        pull: Default::default(),
        container_name: None,
        deploy_labels: BTreeMap::new(),
        autoscale: None,
        vertical: None,
        resources: Resources { cpu_reservation: None, ..service.resources },
        ..service.clone()
    };
    let mut text = serde_json::to_vec(&(relevant, image_id, networks)).unwrap_or_default();
    text.extend(marks.iter().flat_map(|mark| mark.bytes()));
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
        let hash = config_hash(&service, "sha256:1", &[], &[]);
        let scaled = Service { replicas: 9, ..service.clone() };
        assert_eq!(config_hash(&scaled, "sha256:1", &[], &[]), hash);
        let changed = Service { user: Some("1".into()), ..service.clone() };
        assert_ne!(config_hash(&changed, "sha256:1", &[], &[]), hash);
        assert_ne!(config_hash(&service, "sha256:2", &[], &[]), hash);
    }
}
