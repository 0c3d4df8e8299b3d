//! Mounts: volumes of a pod, claims, and what of the host can come along.

use crate::context::{Context, of_service};
use crate::files::{self, Contents, Files};
use crate::findings::Findings;
use crate::kompose::{VolumeHints, VolumeType};
use crate::labels;
use crate::names::{dns_label, free};
use crate::object::{Notes, Object};
use crate::plan::{Kind, Plan, Plans, VolumeUse};
use crate::quantity;
use crate::source::HostFile;
use k8s_openapi::api::core::v1::{
    ConfigMapProjection, ConfigMapVolumeSource, EmptyDirVolumeSource, HostPathVolumeSource, KeyToPath,
    PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimVolumeSource,
    ProjectedVolumeSource, SecretProjection, SecretVolumeSource, Volume, VolumeMount, VolumeProjection,
    VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use throng_model::app::{FileKind, FileMount, Mount, MountSource};

/// Where Compose puts secrets: a folder that holds nothing else.
const SECRETS_FOLDER: &str = "/run/secrets";
/// The file that claims are written to which no one service owns.
pub(crate) const VOLUMES_FILE: &str = "volumes";

/// What the mounts of one service come to.
#[derive(Default)]
pub(crate) struct Mounted {
    pub volumes: Vec<Volume>,
    pub mounts: Vec<VolumeMount>,
    pub templates: Vec<PersistentVolumeClaim>,
    /// ConfigMaps and Secrets whose content pods see, so that a change of it must replace them.
    pub contents: BTreeSet<(FileKind, String)>,
    /// By pointers below the pod's spec, of `volumes` alone.
    pub notes: Notes,
    /// Some volume of it is a disk, which belongs to root when it is new.
    pub has_disk: bool,
    taken: BTreeSet<String>,
}

/// Everything that mounting needs to know and to add to.
pub(crate) struct Surroundings<'s, 'f> {
    pub files: &'s mut Files,
    pub objects: &'s mut Vec<Object>,
    pub findings: &'s mut Findings<'f>,
}

pub(crate) fn mounted(
    cx: &Context<'_>,
    plan: &Plan<'_>,
    plans: &Plans<'_>,
    around: &mut Surroundings<'_, '_>,
) -> Mounted {
    let mut mounted = Mounted::default();
    for (index, mount) in plan.service.mounts.iter().enumerate() {
        match &mount.source {
            MountSource::Volume(key) => mounted.volume(cx, plan, plans, key, mount, around.findings),
            MountSource::Anonymous => mounted.anonymous(mount),
            MountSource::Tmpfs { size, mode } => {
                if mode.is_some() {
                    let index = index.to_string();
                    let path = ["services", &plan.service.name, "volumes", &index];
                    let message = "a folder in memory belongs to root and can be written to by all";
                    around.findings.warn(&path, message, "remove its mode");
                }
                mounted.memory(&mount.target, *size);
            }
            MountSource::Bind { path, create } => {
                mounted.bind(cx, plan, (path, *create), (mount, index), around);
            }
        }
    }
    mounted.files(cx, plan, plans, around);
    if let Some(bytes) = plan.service.sandbox.shm_size {
        mounted.memory("/dev/shm", Some(bytes));
    }
    mounted
}

impl Mounted {
    fn free(&mut self, wish: &str) -> String {
        let wish = dns_label(wish);
        free(if wish.is_empty() { "volume" } else { &wish }, &mut self.taken)
    }

    fn mount(&mut self, name: String, mount: &Mount, subpath: Option<String>) {
        self.mounts.push(VolumeMount {
            name,
            mount_path: mount.target.clone(),
            read_only: mount.read_only.then_some(true),
            sub_path: mount.subpath.clone().or(subpath),
            ..VolumeMount::default()
        });
    }

    /// Adds a volume once, however often it is mounted; the name that it has in the pod.
    fn once(&mut self, volume: Volume, wish: &str) -> String {
        let same = |known: &Volume| Volume { name: String::new(), ..known.clone() } == volume;
        if let Some(known) = self.volumes.iter().find(|known| same(known)) {
            return known.name.clone();
        }
        let name = self.free(wish);
        self.volumes.push(Volume { name: name.clone(), ..volume });
        name
    }

    fn note_last(&mut self, note: Option<String>) {
        let index = self.volumes.len().saturating_sub(1);
        self.notes.at(format!("/volumes/{index}/name"), note);
    }

    fn volume(
        &mut self,
        cx: &Context<'_>,
        plan: &Plan<'_>,
        plans: &Plans<'_>,
        key: &str,
        mount: &Mount,
        findings: &mut Findings<'_>,
    ) {
        let Some(volume) = cx.app.volumes.get(key) else { return };
        let nothing = VolumeUse { users: BTreeSet::new(), hints: VolumeHints::default() };
        let usage = plans.volumes.get(key).unwrap_or(&nothing);
        let hints = plan.hints.volumes.or(&usage.hints);
        let claim = match volume.external {
            true => volume.name.clone(),
            false => plans.names.volumes.get(key).cloned().unwrap_or_default(),
        };
        let source = match (&volume.device, hints.kind) {
            (_, Some(VolumeType::EmptyDir)) => {
                Volume { empty_dir: Some(EmptyDirVolumeSource::default()), ..Volume::default() }
            }
            (Some(device), _) => {
                let path = ["volumes", key];
                host_path_warning(cx, device, &path, findings);
                host_path(device, Some("Directory"))
            }
            (None, Some(VolumeType::HostPath)) => {
                let path = format!("/var/lib/{}/{claim}", dns_label(&cx.app.name));
                host_path(Path::new(&path), Some("DirectoryOrCreate"))
            }
            _ => {
                self.has_disk = true;
                if plan.claimed.contains(key) {
                    return self.template(cx, key, &claim, &hints, mount);
                }
                let source = PersistentVolumeClaimVolumeSource { claim_name: claim.clone(), read_only: None };
                Volume { persistent_volume_claim: Some(source), ..Volume::default() }
            }
        };
        let before = self.volumes.len();
        let name = self.once(source, key);
        if self.volumes.len() > before {
            self.note_last(cx.origin_at(&["volumes", key], &format!("volumes.{key}")));
        }
        self.mount(name, mount, hints.subpath);
    }

    /// A disk for each replica.
    fn template(&mut self, cx: &Context<'_>, key: &str, claim: &str, hints: &VolumeHints, mount: &Mount) {
        let known = |template: &PersistentVolumeClaim| template.metadata.name.as_deref() == Some(claim);
        if !self.templates.iter().any(known) {
            self.taken.insert(claim.to_owned());
            let made = claim_of(cx, key, claim, hints, "ReadWriteOnce");
            let mut metadata = made.metadata;
            metadata.labels = None;
            metadata.namespace = None;
            self.templates.push(PersistentVolumeClaim { metadata, ..made });
        }
        self.mount(claim.to_owned(), mount, hints.subpath.clone());
    }

    fn anonymous(&mut self, mount: &Mount) {
        let name = self.free(mount.target.rsplit('/').next().unwrap_or_default());
        let empty_dir = Some(EmptyDirVolumeSource::default());
        self.volumes.push(Volume { name: name.clone(), empty_dir, ..Volume::default() });
        self.note_last(Some("an unnamed volume: empty at first, gone with its pod".to_owned()));
        self.mount(name, mount, None);
    }

    fn memory(&mut self, target: &str, size: Option<u64>) {
        let name = self.free(target.rsplit('/').next().unwrap_or_default());
        let source = EmptyDirVolumeSource {
            medium: Some("Memory".to_owned()),
            size_limit: size.map(quantity::bytes),
            ..EmptyDirVolumeSource::default()
        };
        self.volumes.push(Volume { name: name.clone(), empty_dir: Some(source), ..Volume::default() });
        let mount_path = target.to_owned();
        self.mounts.push(VolumeMount { name, mount_path, ..VolumeMount::default() });
    }

    /// A file or folder of the host: what is small and read comes along, the rest is looked for on the node.
    fn bind(
        &mut self,
        cx: &Context<'_>,
        plan: &Plan<'_>,
        (path, create): (&Path, bool),
        (mount, index): (&Mount, usize),
        around: &mut Surroundings<'_, '_>,
    ) {
        let index = index.to_string();
        let at = ["services", &plan.service.name, "volumes", &index];
        let base = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let kind = plan.hints.volumes.kind;
        let content = match kind {
            None | Some(VolumeType::ConfigMap) => files::of_host(cx, path),
            _ => None,
        };
        let (contents, single) = match content {
            Some(HostFile::File(bytes)) => (Some(Contents::from([(files::to_data_key(&base), bytes)])), true),
            Some(HostFile::Folder(entries)) if mount.read_only || kind == Some(VolumeType::ConfigMap) => {
                (as_contents(entries), false)
            }
            _ => (None, false),
        };
        let source = match (contents, kind) {
            (Some(contents), _) => {
                return self.carried(cx, plan, (contents, single), (mount, &base, &at), around);
            }
            (None, Some(VolumeType::EmptyDir)) => {
                Volume { empty_dir: Some(EmptyDirVolumeSource::default()), ..Volume::default() }
            }
            (None, Some(VolumeType::Claim)) => {
                self.has_disk = true;
                let name = free(&format!("{}-{}", plan.name, dns_label(&base)), &mut BTreeSet::new());
                let claim = claim_of(cx, "", &name, &plan.hints.volumes, "ReadWriteOnce");
                let origin = cx.origin_at(&at, "volumes");
                around.objects.push(Object::new(&plan.name, &claim, Notes::default(), origin));
                let source = PersistentVolumeClaimVolumeSource { claim_name: name, read_only: None };
                Volume { persistent_volume_claim: Some(source), ..Volume::default() }
            }
            (None, _) => {
                host_path_warning(cx, path, &at, around.findings);
                let kind = match create {
                    true => Some("DirectoryOrCreate"),
                    false => None,
                };
                host_path(path, kind)
            }
        };
        let name = self.once(source, &base);
        self.note_last(cx.origin_at(&at, "volumes"));
        self.mount(name, mount, plan.hints.volumes.subpath.clone());
    }

    /// Contents of the host in a ConfigMap, or in a Secret if there is a key among them.
    fn carried(
        &mut self,
        cx: &Context<'_>,
        plan: &Plan<'_>,
        (contents, single): (Contents, bool),
        (mount, base, at): (&Mount, &str, &[&str]),
        around: &mut Surroundings<'_, '_>,
    ) {
        if !mount.read_only {
            let message =
                format!("{} can only be read in a cluster: its content travels with the app", mount.target);
            around.findings.warn(at, message, "add :ro, or give it a volume if it is written to");
        }
        let key = contents.keys().next().filter(|_| single).cloned();
        let wish = format!("{}-{}", plan.name, dns_label(base));
        let head = cx.origin_at(at, "volumes");
        let hidden = contents.iter().any(|(name, bytes)| files::is_private(name, bytes));
        let kind = if hidden { FileKind::Secret } else { FileKind::Config };
        let name = around.files.add(cx, (kind, &wish), &plan.name, contents, head, around.objects);
        self.contents.insert((kind, name.clone()));
        let source = match kind {
            FileKind::Config => Volume {
                config_map: Some(ConfigMapVolumeSource { name, ..ConfigMapVolumeSource::default() }),
                ..Volume::default()
            },
            FileKind::Secret => Volume {
                secret: Some(SecretVolumeSource { secret_name: Some(name), ..SecretVolumeSource::default() }),
                ..Volume::default()
            },
        };
        let volume = self.once(source, base);
        self.note_last(cx.origin_at(at, "volumes"));
        self.mount(volume, &Mount { read_only: true, ..mount.clone() }, key);
    }

    /// `configs` and `secrets`.
    fn files(
        &mut self,
        cx: &Context<'_>,
        plan: &Plan<'_>,
        plans: &Plans<'_>,
        around: &mut Surroundings<'_, '_>,
    ) {
        let mut together: Vec<VolumeProjection> = Vec::new();
        let mut modes: Vec<(String, String)> = Vec::new();
        for file in &plan.service.files {
            let (section, sources, names) = match file.kind {
                FileKind::Config => ("configs", &cx.app.configs, &plans.names.configs),
                FileKind::Secret => ("secrets", &cx.app.secrets, &plans.names.secrets),
            };
            let (Some(source), Some(name)) = (sources.get(&file.source), names.get(&file.source)) else {
                continue;
            };
            let key = files::data_key(&file.source, source);
            self.contents.insert((file.kind, name.clone()));
            if file.uid.is_some() || file.gid.is_some() {
                let path = of_service(&plan.service.name, section);
                let message =
                    format!("{} belongs to root in a cluster, whatever uid and gid say", file.target);
                let hint = "remove them, or let the pod's group read it: kompose.security-context.fsgroup";
                around.findings.warn(&path, message, hint);
            }
            let in_folder = file.target.strip_prefix(SECRETS_FOLDER).and_then(|rest| rest.strip_prefix('/'));
            match in_folder.filter(|rest| !rest.is_empty() && !rest.split('/').any(|part| part == "..")) {
                Some(path) => {
                    let kind = if file.kind == FileKind::Config { "configMap" } else { "secret" };
                    let pointer = format!("/projected/sources/{}/{kind}/items/0/mode", together.len());
                    modes.extend(octal(file).map(|mode| (pointer, mode)));
                    together.push(projection(file, name, key, path));
                }
                None => self.single_file(cx, file, name, key),
            }
        }
        if !together.is_empty() {
            let name = self.free("run-secrets");
            let projected =
                ProjectedVolumeSource { sources: Some(together), ..ProjectedVolumeSource::default() };
            self.volumes.push(Volume { name: name.clone(), projected: Some(projected), ..Volume::default() });
            self.note_last(cx.origin(&plan.service.name, &["secrets", "configs"]));
            let index = self.volumes.len() - 1;
            for (pointer, mode) in modes {
                self.notes.say(format!("/volumes/{index}{pointer}"), mode);
            }
            let mount_path = SECRETS_FOLDER.to_owned();
            let read_only = Some(true);
            self.mounts.push(VolumeMount { name, mount_path, read_only, ..VolumeMount::default() });
        }
    }

    fn single_file(&mut self, cx: &Context<'_>, file: &FileMount, name: &str, key: String) {
        let default_mode = file.mode.map(mode);
        let (volume, section) = match file.kind {
            FileKind::Config => {
                let source =
                    ConfigMapVolumeSource { name: name.to_owned(), default_mode, ..Default::default() };
                (Volume { config_map: Some(source), ..Volume::default() }, "configs")
            }
            FileKind::Secret => {
                let secret_name = Some(name.to_owned());
                let source = SecretVolumeSource { secret_name, default_mode, ..Default::default() };
                (Volume { secret: Some(source), ..Volume::default() }, "secrets")
            }
        };
        let before = self.volumes.len();
        let volume = self.once(volume, name);
        if self.volumes.len() > before {
            let named = format!("{section}.{}", file.source);
            self.note_last(cx.origin_at(&[section, &file.source], &named));
            let index = self.volumes.len() - 1;
            let kind = if file.kind == FileKind::Config { "configMap" } else { "secret" };
            self.notes.at(format!("/volumes/{index}/{kind}/defaultMode"), octal(file));
        }
        self.mounts.push(VolumeMount {
            name: volume,
            mount_path: file.target.clone(),
            sub_path: Some(key),
            read_only: Some(true),
            ..VolumeMount::default()
        });
    }
}

/// A mode as people write it, beside the number that YAML and JSON have for it.
fn octal(file: &FileMount) -> Option<String> {
    file.mode.map(|mode| format!("0{mode:o}"))
}

fn mode(mode: u32) -> i32 {
    // Permission bits have nine bits, and three more.
    (mode & 0o7777) as i32
}

fn projection(file: &FileMount, name: &str, key: String, path: &str) -> VolumeProjection {
    let item = KeyToPath { key, path: path.to_owned(), mode: file.mode.map(mode), ..KeyToPath::default() };
    let (name, items) = (name.to_owned(), Some(vec![item]));
    match file.kind {
        FileKind::Config => VolumeProjection {
            config_map: Some(ConfigMapProjection { name, items, ..ConfigMapProjection::default() }),
            ..VolumeProjection::default()
        },
        FileKind::Secret => VolumeProjection {
            secret: Some(SecretProjection { name, items, ..SecretProjection::default() }),
            ..VolumeProjection::default()
        },
    }
}

/// Files of a folder as contents, if all of their names can be keys.
fn as_contents(entries: Vec<(String, Vec<u8>)>) -> Option<Contents> {
    let good = entries.iter().all(|(name, _)| files::to_data_key(name) == *name);
    (good && !entries.is_empty()).then(|| entries.into_iter().collect())
}

fn host_path(path: &Path, kind: Option<&str>) -> Volume {
    let source =
        HostPathVolumeSource { path: path.to_string_lossy().into_owned(), type_: kind.map(str::to_owned) };
    Volume { host_path: Some(source), ..Volume::default() }
}

fn host_path_warning(cx: &Context<'_>, path: &Path, at: &[&str], findings: &mut Findings<'_>) {
    let own = path.starts_with(&cx.app.directory);
    let shown = if own { cx.shown(path) } else { path.to_string_lossy().into_owned() };
    let message = format!("{shown} must be on each node that a pod may come to");
    let hint =
        "put it into the image, use a volume, or keep the pods on one node with a placement constraint";
    findings.warn(at, message, hint);
}

/// A claim of a disk. `key`: the volume's, or empty.
fn claim_of(
    cx: &Context<'_>,
    key: &str,
    name: &str,
    hints: &VolumeHints,
    mode: &str,
) -> PersistentVolumeClaim {
    let size = hints.size.clone().map_or_else(|| quantity::bytes(cx.options.volume_size), Quantity);
    let requests = Some(BTreeMap::from([("storage".to_owned(), size)]));
    let selector = hints.selector.as_ref().map(|text| {
        let pair = text.split_once('=').unwrap_or(("app", text));
        labels::select(BTreeMap::from([(pair.0.to_owned(), pair.1.to_owned())]))
    });
    let mut metadata = labels::metadata(cx, name, None);
    let own = cx.app.volumes.get(key).map(|volume| &volume.labels);
    let annotations: BTreeMap<String, String> = own
        .into_iter()
        .flatten()
        .filter(|(key, _)| !crate::kompose::is_hint(key) && crate::names::is_qualified(key))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    metadata.annotations = (!annotations.is_empty()).then_some(annotations);
    PersistentVolumeClaim {
        metadata,
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec![mode.to_owned()]),
            storage_class_name: hints.class.clone(),
            resources: Some(VolumeResourceRequirements { requests, ..VolumeResourceRequirements::default() }),
            selector,
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    }
}

/// The claims of volumes that no one replica owns.
pub(crate) fn claims(
    cx: &Context<'_>,
    plans: &Plans<'_>,
    objects: &mut Vec<Object>,
    findings: &mut Findings<'_>,
) {
    for (key, usage) in &plans.volumes {
        let Some(volume) = cx.app.volumes.get(*key) else { continue };
        let disk =
            usage.hints.kind.is_none_or(|kind| matches!(kind, VolumeType::Claim | VolumeType::ConfigMap));
        let owned = plans.services.values().any(|plan| plan.claimed.contains(key));
        if volume.external || volume.device.is_some() || owned || !disk || usage.users.is_empty() {
            continue;
        }
        let Some(name) = plans.names.volumes.get(*key) else { continue };
        let many = usage.users.len() > 1
            || plans
                .services
                .values()
                .any(|plan| usage.users.contains(plan.service.name.as_str()) && is_many(plan));
        let mode = if many { "ReadWriteMany" } else { "ReadWriteOnce" };
        if many {
            let message = format!("volume {key} is mounted by several pods at a time");
            let hint = "the cluster needs a StorageClass with ReadWriteMany, such as one over NFS or CephFS";
            findings.warn(&["volumes", key], message, hint);
        }
        let mut notes = Notes::default();
        if usage.hints.size.is_none() {
            notes
                .say("/spec/resources/requests/storage", "Compose knows no sizes: label kompose.volume.size");
        }
        if many {
            notes.say("/spec/accessModes", "several pods share it");
        }
        let claim = claim_of(cx, key, name, &usage.hints, mode);
        let head = cx.origin_at(&["volumes", key], &format!("volumes.{key}"));
        objects.push(Object::new(VOLUMES_FILE, &claim, notes, head));
    }
}

/// Whether there may be more than one pod of a service at a time.
fn is_many(plan: &Plan<'_>) -> bool {
    plan.service.replicas > 1 || plan.autoscaled || matches!(plan.kind, Kind::DaemonSet | Kind::CronJob)
}

/// Whether pods of a service hold a disk that only one node can have at a time.
pub(crate) fn holds_one_disk(cx: &Context<'_>, plan: &Plan<'_>, plans: &Plans<'_>) -> bool {
    plan.service.mounts.iter().any(|mount| match &mount.source {
        MountSource::Volume(key) => {
            let volume = cx.app.volumes.get(key);
            let usage = plans.volumes.get(key.as_str());
            let disk =
                usage.is_some_and(|usage| usage.hints.kind.is_none_or(|kind| kind == VolumeType::Claim));
            let alone = usage.is_some_and(|usage| usage.users.len() == 1) && !is_many(plan);
            disk && alone && volume.is_some_and(|volume| volume.device.is_none())
        }
        _ => false,
    })
}
