//! From the merged tree to an [`App`].
//!
//! Networks and volumes are read before the services that name them, so that every reference is checked where it
//! stands. What can only be seen over all services (cycles, host ports) is in [`across`].

mod across;
mod autoscale;
mod build;
mod files;
mod health;
pub(crate) mod job;
mod mounts;
mod names;
mod networks;
pub(crate) mod nodes;
mod ports;
mod resources;
mod sandbox;
mod service;
mod updates;
mod vertical;
mod volumes;
mod x_throng;

pub(crate) use names::{project as check_project_name, project_name_from};

use crate::keys::Section;
use crate::yaml::{Entry, Findings, Node, Position};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use throng_model::app::{App, FileKind, FileSource, Network, NetworkAttachment, Service, Volume};

/// What the reader has to know besides the tree.
pub(crate) struct Context<'a> {
    /// The project name given on the command line or in the environment; wins over the file's `name`.
    pub name: Option<String>,
    /// The project directory, absolute.
    pub directory: PathBuf,
    pub environment: &'a dyn Fn(&str) -> Option<String>,
    pub profiles: &'a [String],
}

/// The key of the network that services without `networks` share.
pub(crate) const DEFAULT_NETWORK: &str = "default";

/// A service with the places that later checks point at.
struct Placed {
    service: Service,
    key_at: Position,
    /// Of its `container_name`.
    name_at: Option<Position>,
    /// One for each of the service's ports, in the same order.
    ports_at: Vec<Position>,
    dependencies_at: BTreeMap<String, Position>,
    volumes_from: Vec<Other>,
    links: Vec<Other>,
}

/// Another service that one names, with what stands behind the colon: `db:ro`.
struct Other {
    name: String,
    rest: String,
    at: Position,
}

/// What the file declares for services to refer to.
struct Declared {
    /// The project's folder.
    directory: PathBuf,
    services: BTreeSet<String>,
    networks: BTreeMap<String, Network>,
    volumes: BTreeMap<String, Volume>,
    /// `None` for one whose definition is wrong, which is told once and not at every use.
    configs: BTreeMap<String, Option<FileSource>>,
    secrets: BTreeMap<String, Option<FileSource>>,
    nodes: BTreeMap<String, throng_model::node::Node>,
}

impl Declared {
    fn files(&self, kind: FileKind) -> &BTreeMap<String, Option<FileSource>> {
        match kind {
            FileKind::Config => &self.configs,
            FileKind::Secret => &self.secrets,
        }
    }
}

/// Reads the merged tree; services whose profiles are off come back apart.
pub(crate) fn read(
    root: &Node,
    context: &Context<'_>,
    findings: &mut Findings,
) -> Option<(App, BTreeMap<String, Service>)> {
    let mut section = Section::open("", root, findings)?;
    let name = read_name(section.take("name"), context, findings);
    let networks = read_named(section.take("networks"), "network", findings, |entry, findings| {
        networks::read(entry, &name, findings)
    });
    let volumes = read_named(section.take("volumes"), "volume", findings, |entry, findings| {
        volumes::read(entry, &name, context, findings)
    });
    let configs = files::read_all(section.take("configs"), FileKind::Config, &name, context, findings);
    let secrets = files::read_all(section.take("secrets"), FileKind::Secret, &name, context, findings);
    let services_node = section.take("services");
    section.close(findings);
    let extras = root.get("x-throng").map(|node| x_throng::read_app(node, findings)).unwrap_or_default();
    let Some(services_node) = services_node else {
        let hint = "add a mapping \"services\" with at least one service";
        findings.error_with_hint(&root.position, "the file has no services", hint);
        return None;
    };
    let entries = services_node.map(findings)?;
    if entries.is_empty() {
        let hint = "add at least one service with an image or a build";
        findings.error_with_hint(&services_node.position, "\"services\" is empty", hint);
        return None;
    }
    let services = entries.iter().map(|entry| entry.key.clone()).collect();
    let directory = context.directory.clone();
    let declared = Declared { directory, services, networks, volumes, configs, secrets, nodes: extras.nodes };
    let mut placed = BTreeMap::new();
    for entry in entries {
        names::check("service", &entry.key, &entry.key_at, findings);
        nodes::check_has_nodes(&entry.value, &declared.nodes, findings);
        if let Some(read) = service::read(entry, &name, context, &declared, findings) {
            placed.insert(entry.key.clone(), read);
        }
    }
    across::share_volumes(&mut placed, findings);
    across::link(&mut placed, findings);
    let (mut app, disabled) = assemble(placed, declared, name, context, findings);
    app.unreachable_after = extras.unreachable_after;
    networks::check_addresses(services_node, &app, findings);
    Some((app, disabled))
}

fn assemble(
    placed: BTreeMap<String, Placed>,
    declared: Declared,
    name: String,
    context: &Context<'_>,
    findings: &mut Findings,
) -> (App, BTreeMap<String, Service>) {
    let (mut enabled, disabled): (BTreeMap<_, _>, BTreeMap<_, _>) =
        placed.into_iter().partition(|(_, placed)| is_enabled(&placed.service, context.profiles));
    across::check_dependencies(&mut enabled, &disabled, findings);
    across::check_cycles(&enabled, findings);
    across::check_host_ports(&enabled, findings);
    across::check_container_names(&enabled, findings);
    across::check_build_order(&enabled, findings);
    if enabled.is_empty() && !disabled.is_empty() && !findings.has_errors() {
        let at = disabled.values().map(|placed| &placed.key_at).min_by_key(|at| at.line);
        if let Some(at) = at {
            findings.error_with_hint(at, "every service is off by its profiles", "enable one with --profile");
        }
    }
    let mut networks = declared.networks;
    let uses_default = enabled.values().any(|placed| placed.service.networks.contains_key(DEFAULT_NETWORK));
    if uses_default {
        networks.entry(DEFAULT_NETWORK.into()).or_default();
    }
    let services = enabled.into_iter().map(|(name, placed)| (name, placed.service)).collect();
    let known = |files: BTreeMap<String, Option<FileSource>>| {
        files.into_iter().filter_map(|(name, source)| Some((name, source?))).collect()
    };
    let app = App {
        name,
        directory: context.directory.clone(),
        services,
        networks,
        volumes: declared.volumes,
        configs: known(declared.configs),
        secrets: known(declared.secrets),
        nodes: declared.nodes,
        unreachable_after: None,
    };
    (app, disabled.into_iter().map(|(name, placed)| (name, placed.service)).collect())
}

fn is_enabled(service: &Service, profiles: &[String]) -> bool {
    service.profiles.is_empty()
        || profiles.iter().any(|profile| profile == "*" || service.profiles.contains(profile))
}

fn read_name(node: Option<&Node>, context: &Context<'_>, findings: &mut Findings) -> String {
    let in_file = node.and_then(|node| {
        let name = node.nonempty(findings)?;
        if let Err(why) = names::project(name) {
            let hint = "use lower-case letters, digits, - and _, and begin with a letter or digit";
            findings.error_with_hint(&node.position, why, hint);
        }
        Some(name.to_owned())
    });
    match (&context.name, in_file) {
        (Some(name), _) => name.clone(),
        (None, Some(name)) => name,
        (None, None) => project_name_from(&context.directory),
    }
}

/// A mapping of names to declarations, where a name without a value is a declaration with defaults.
fn read_named<T>(
    node: Option<&Node>,
    what: &str,
    findings: &mut Findings,
    mut read: impl FnMut(&Entry, &mut Findings) -> T,
) -> BTreeMap<String, T> {
    let mut map = BTreeMap::new();
    for entry in node.and_then(|node| node.map(findings)).unwrap_or_default() {
        if entry.key.starts_with("x-") {
            continue;
        }
        names::check(what, &entry.key, &entry.key_at, findings);
        map.insert(entry.key.clone(), read(entry, findings));
    }
    map
}

/// The attachment of a service that names no network.
fn default_attachment() -> BTreeMap<String, NetworkAttachment> {
    BTreeMap::from([(DEFAULT_NETWORK.into(), NetworkAttachment::default())])
}

/// A path of the host as written in the file: `~` is the caller's home, the rest is relative to the project.
fn host_path(text: &str, context: &Context<'_>) -> PathBuf {
    let home = || (context.environment)("HOME").filter(|home| home.starts_with('/'));
    let path = match text.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => {
            home().map_or_else(|| PathBuf::from(text), |home| PathBuf::from(home + rest))
        }
        _ => PathBuf::from(text),
    };
    clean(&context.directory.join(path))
}

/// Removes `.` and resolves `..` by the text alone, as Compose does.
pub(crate) fn clean(path: &Path) -> PathBuf {
    use std::path::Component;
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            part => out.push(part),
        }
    }
    out
}
