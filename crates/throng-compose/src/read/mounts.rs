//! `volumes` and `tmpfs` of a service.

use super::{Context, Declared, files, host_path};
use crate::keys::Section;
use crate::yaml::{Findings, Node, Position, nearest};
use throng_model::app::{Mount, MountSource};
use throng_model::diagnostic::Diagnostic;
use throng_model::units;

/// Most mounts of one service; each is made anew for every replica.
const MAX_MOUNTS: usize = 1_000;

/// Collects the mounts of one service; of several at the same place the last one counts.
#[derive(Default)]
pub(super) struct Mounts {
    list: Vec<(Mount, Position)>,
}

impl Mounts {
    pub fn into_vec(self) -> Vec<Mount> {
        self.list.into_iter().map(|(mount, _)| mount).collect()
    }

    pub fn read_volumes(
        &mut self,
        node: &Node,
        context: &Context<'_>,
        declared: &Declared,
        findings: &mut Findings,
    ) {
        for item in node.list(findings).unwrap_or_default() {
            let mount = match item.scalar() {
                Some(text) => short(text, item, context, declared, findings),
                None => long(item, context, declared, findings),
            };
            self.add(mount, &item.position, findings);
        }
    }

    pub fn read_tmpfs(&mut self, node: &Node, findings: &mut Findings) {
        for item in node.list(findings).unwrap_or_default() {
            let Some(text) = item.nonempty(findings) else { continue };
            let (target, options) = text.split_once(':').unwrap_or((text, ""));
            let (mut size, mut mode) = (None, None);
            for option in options.split(',').filter(|option| !option.is_empty()) {
                match option.split_once('=') {
                    Some(("size", value)) => match units::parse_bytes(value) {
                        Ok(bytes) => size = Some(bytes),
                        Err(e) => findings.error(&item.position, e.to_string()),
                    },
                    Some(("mode", value)) => match u32::from_str_radix(value, 8) {
                        Ok(bits) if bits <= 0o7777 => mode = Some(bits),
                        _ => findings.error(&item.position, format!("{value:?} is no mode such as 1777")),
                    },
                    // These ask for what is done anyway.
                    None if matches!(option, "rw" | "nosuid" | "nodev" | "noexec") => {}
                    _ => findings.warn_with_hint(
                        &item.position,
                        format!("the tmpfs option {option:?} has no effect"),
                        "size and mode have",
                    ),
                }
            }
            let source = MountSource::Tmpfs { size, mode };
            let mount = target_of(target, &item.position, findings).map(|target| Mount {
                source,
                target,
                read_only: false,
                subpath: None,
            });
            self.add(mount, &item.position, findings);
        }
    }

    fn add(&mut self, mount: Option<Mount>, at: &Position, findings: &mut Findings) {
        let Some(mount) = mount else { return };
        let is_full = self.list.len() >= MAX_MOUNTS;
        match self.list.iter_mut().find(|(old, _)| old.target == mount.target) {
            None if is_full => {
                findings.error(at, format!("more than {MAX_MOUNTS} mounts in one service"));
            }
            None => self.list.push((mount, at.clone())),
            Some(old) => {
                if old.1.file == at.file {
                    let message = format!("{} is mounted twice; the last one counts", mount.target);
                    findings.push(
                        Diagnostic::warning(message)
                            .at(at.location())
                            .related(old.1.location(), "first mounted here"),
                    );
                }
                *old = (mount, at.clone());
            }
        }
    }
}

fn target_of(text: &str, at: &Position, findings: &mut Findings) -> Option<String> {
    if !text.starts_with('/') {
        let message = format!("the path inside the container must be absolute, and {text:?} is not");
        findings.error_with_hint(at, message, "begin it with /");
        return None;
    }
    let target = super::clean(text.as_ref()).to_string_lossy().into_owned();
    if target == "/" {
        findings.error(at, "nothing can be mounted over the root of a container");
        return None;
    }
    Some(target)
}

/// `[SOURCE:]TARGET[:OPTIONS]`.
fn short(
    text: &str,
    item: &Node,
    context: &Context<'_>,
    declared: &Declared,
    findings: &mut Findings,
) -> Option<Mount> {
    let at = &item.position;
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, options) = match parts[..] {
        [target] => (None, target, ""),
        [source, target] => (Some(source), target, ""),
        [source, target, options] => (Some(source), target, options),
        _ => {
            let hint = "write SOURCE:TARGET[:ro]; paths with colons need the long form";
            findings.error_with_hint(at, format!("{text:?} has too many colons"), hint);
            return None;
        }
    };
    let mut read_only = false;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => read_only = true,
            "rw" => read_only = false,
            // These ask for what is done anyway: no label is needed, nothing is cached between host and replica.
            "z" | "Z" | "cached" | "delegated" | "consistent" | "rprivate" => {}
            _ => findings.warn_with_hint(
                at,
                format!("the volume option {option:?} has no effect"),
                "ro and rw are",
            ),
        }
    }
    let target = target_of(target, at, findings)?;
    let source = match source {
        None => MountSource::Anonymous,
        Some("") => {
            findings.error(at, "the source before the colon is empty");
            return None;
        }
        Some(path) if path.starts_with(['.', '/', '~']) => {
            MountSource::Bind { path: host_path(path, context), create: true }
        }
        Some(name) => MountSource::Volume(named(name, at, declared, findings)?),
    };
    Some(Mount { source, target, read_only, subpath: None })
}

fn named(name: &str, at: &Position, declared: &Declared, findings: &mut Findings) -> Option<String> {
    if declared.volumes.contains_key(name) {
        return Some(name.to_owned());
    }
    let known = declared.volumes.keys().map(String::as_str);
    let near = if findings.is_full() { None } else { nearest(name, known) };
    let hint = match near {
        Some(near) => format!("did you mean {near:?}?"),
        None => format!("declare {name} under the top-level volumes, or begin a folder's path with ./"),
    };
    findings.error_with_hint(at, format!("unknown volume {name:?}"), hint);
    None
}

#[derive(Clone, Copy)]
enum Kind {
    Bind,
    Volume,
    Tmpfs,
}

fn long(node: &Node, context: &Context<'_>, declared: &Declared, findings: &mut Findings) -> Option<Mount> {
    const KINDS: [(&str, Kind); 3] = [("bind", Kind::Bind), ("volume", Kind::Volume), ("tmpfs", Kind::Tmpfs)];
    let mut section = Section::open("services.*.volumes.*", node, findings)?;
    let kind = match section.take("type") {
        Some(node) => node.choice(&KINDS, findings),
        None => Some(Kind::Volume),
    };
    let source = section.take("source").and_then(|node| Some((node.nonempty(findings)?, &node.position)));
    let target = section.take("target");
    let read_only = section.take("read_only").and_then(|node| node.boolean(findings)).unwrap_or_default();
    let create = section.take("bind").and_then(|node| read_bind(node, findings)).unwrap_or(true);
    let (size, mode) = section.take("tmpfs").map(|node| read_tmpfs(node, findings)).unwrap_or_default();
    let subpath = section.take("volume").and_then(|node| read_subpath(node, findings));
    section.close(findings);
    let kind = kind?;
    let Some(target) = target else {
        findings.error_with_hint(&node.position, "a mount without target", "add target: with a path inside");
        return None;
    };
    let target = target_of(target.text(findings)?, &target.position, findings)?;
    let source = match (kind, source) {
        (Kind::Bind, None) => {
            findings.error_with_hint(
                &node.position,
                "a bind mount without source",
                "add source: with a path",
            );
            return None;
        }
        (Kind::Bind, Some((path, _))) => MountSource::Bind { path: host_path(path, context), create },
        (Kind::Volume, Some((name, at))) => MountSource::Volume(named(name, at, declared, findings)?),
        (Kind::Volume, None) => MountSource::Anonymous,
        (Kind::Tmpfs, None) => MountSource::Tmpfs { size, mode },
        (Kind::Tmpfs, Some((_, at))) => {
            findings.error_with_hint(at, "a tmpfs has no source", "remove source:");
            return None;
        }
    };
    if let Some((_, at)) = subpath.as_ref().filter(|_| !matches!(source, MountSource::Volume(_))) {
        findings.error(at, "only a named volume has folders to choose from");
    }
    Some(Mount { source, target, read_only, subpath: subpath.map(|(path, _)| path) })
}

/// A folder inside a volume: no step of it may lead out.
fn read_subpath<'a>(node: &'a Node, findings: &mut Findings) -> Option<(String, &'a Position)> {
    let mut section = Section::open("services.*.volumes.*.volume", node, findings)?;
    let subpath = section.take("subpath");
    section.close(findings);
    let node = subpath?;
    let text = node.nonempty(findings)?;
    let leads_out = |part: std::path::Component<'_>| {
        !matches!(part, std::path::Component::Normal(_) | std::path::Component::CurDir)
    };
    if std::path::Path::new(text).components().any(leads_out) {
        findings.error(&node.position, format!("{text:?} is not a folder inside the volume"));
        return None;
    }
    Some((text.to_owned(), &node.position))
}

fn read_bind(node: &Node, findings: &mut Findings) -> Option<bool> {
    let mut section = Section::open("services.*.volumes.*.bind", node, findings)?;
    let create = section.take("create_host_path").and_then(|node| node.boolean(findings));
    section.close(findings);
    create
}

fn read_tmpfs(node: &Node, findings: &mut Findings) -> (Option<u64>, Option<u32>) {
    let Some(mut section) = Section::open("services.*.volumes.*.tmpfs", node, findings) else {
        return (None, None);
    };
    let size = section.take("size").and_then(|node| node.bytes(findings));
    let mode = section.take("mode").and_then(|node| files::mode(node, findings));
    section.close(findings);
    (size, mode)
}
