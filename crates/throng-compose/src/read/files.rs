//! Configs and secrets: what they hold, and where services see them.

use super::{Context, Declared, host_path, names};
use crate::keys::Section;
use crate::yaml::{Entry, Findings, Node, Scalar, Value, nearest};
use throng_model::app::{FileKind, FileMount, FileSource};

/// Largest content that is written in a Compose file or held by a variable, in bytes. Docker's limit for both is 500 kB.
const MAX_CONTENT: usize = 500 << 10;
/// Most configs and secrets of one service.
const MAX_FILES: usize = 1_000;

/// One member of the top-level `configs` or `secrets`. `None` if it cannot be used, which has been said then.
pub(super) fn read(
    entry: &Entry,
    kind: FileKind,
    project: &str,
    context: &Context<'_>,
    findings: &mut Findings,
) -> Option<FileSource> {
    let (path, what) = match kind {
        FileKind::Config => ("configs.*", "config"),
        FileKind::Secret => ("secrets.*", "secret"),
    };
    let nothing = |findings: &mut Findings| {
        let hint = match kind {
            FileKind::Config => "add file:, content: or environment:",
            FileKind::Secret => "add file: or environment:",
        };
        findings.error_with_hint(&entry.key_at, format!("the {what} {:?} has no content", entry.key), hint);
    };
    if entry.value.is_null() {
        nothing(findings);
        return None;
    }
    let mut section = Section::open(path, &entry.value, findings)?;
    let is_external = entry.value.get("external").is_some_and(|node| node.scalar() != Some("false"));
    let (file, variable) = (section.take("file"), section.take("environment"));
    let content = if kind == FileKind::Config { section.take("content") } else { None };
    // Only the name that it would have anyway says nothing new.
    section.accept("name", &format!("{project}_{}", entry.key), &entry.value);
    section.close(findings);
    let given = [file, variable, content].into_iter().flatten().count();
    if given > 1 {
        let message = format!("the {what} {:?} has more than one content", entry.key);
        findings.error_with_hint(&entry.key_at, message, "keep one of file, content and environment");
        return None;
    }
    if let Some(node) = file {
        return node.nonempty(findings).map(|text| FileSource::File(host_path(text, context)));
    }
    let source = if let Some(node) = variable {
        let variable = node.nonempty(findings)?.to_owned();
        let Some(value) = (context.environment)(&variable) else {
            let message = format!("the variable {variable} that the {what} {:?} holds is not set", entry.key);
            findings.error_with_hint(&node.position, message, "set it in the environment or in .env");
            return None;
        };
        FileSource::Environment { variable, value }
    } else if let Some(node) = content {
        FileSource::Content(node.text(findings)?.to_owned())
    } else {
        if !is_external {
            nothing(findings);
        }
        return None;
    };
    let (FileSource::Content(text) | FileSource::Environment { value: text, .. }) = &source else {
        return Some(source);
    };
    if text.len() > MAX_CONTENT {
        let message = format!("the {what} {:?} holds more than {MAX_CONTENT} bytes", entry.key);
        findings.error_with_hint(&entry.key_at, message, "put it into a file and name that with file:");
        return None;
    }
    Some(source)
}

/// The `configs` or `secrets` of one service. Of several at the same place the last one counts.
pub(super) fn read_mounts(
    node: &Node,
    kind: FileKind,
    declared: &Declared,
    mounts: &mut Vec<FileMount>,
    findings: &mut Findings,
) {
    for item in node.list(findings).unwrap_or_default() {
        let Some(mount) = read_mount(item, kind, declared, findings) else { continue };
        if mounts.len() >= MAX_FILES {
            findings
                .error(&item.position, format!("more than {MAX_FILES} configs and secrets in one service"));
            return;
        }
        mounts.retain(|known| known.target != mount.target);
        mounts.push(mount);
    }
}

fn read_mount(
    item: &Node,
    kind: FileKind,
    declared: &Declared,
    findings: &mut Findings,
) -> Option<FileMount> {
    let path = match kind {
        FileKind::Config => "services.*.configs.*",
        FileKind::Secret => "services.*.secrets.*",
    };
    let mut mount =
        FileMount { kind, source: String::new(), target: String::new(), uid: None, gid: None, mode: None };
    let (source, target) = if item.scalar().is_some() {
        (Some(item), None)
    } else {
        let mut section = Section::open(path, item, findings)?;
        let (source, target) = (section.take("source"), section.take("target"));
        let mut id =
            |key| section.take(key).and_then(|node| node.number("the number of a user or group", findings));
        (mount.uid, mount.gid) = (id("uid"), id("gid"));
        mount.mode = section.take("mode").and_then(|node| mode(node, findings));
        section.close(findings);
        (source, target)
    };
    let Some(source) = source else {
        findings.error(&item.position, "expected a source, found none");
        return None;
    };
    mount.source = source.nonempty(findings)?.to_owned();
    let known = declared.files(kind);
    if !known.contains_key(&mount.source) {
        let (what, section) = match kind {
            FileKind::Config => ("config", "configs"),
            FileKind::Secret => ("secret", "secrets"),
        };
        let hint = match nearest(&mount.source, known.keys().map(String::as_str)) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("declare {} under the top-level {section}", mount.source),
        };
        findings.error_with_hint(&source.position, format!("unknown {what} {:?}", mount.source), hint);
        return None;
    }
    let folder = if kind == FileKind::Secret { "/run/secrets" } else { "" };
    let at = target.unwrap_or(source);
    let target = match target {
        Some(node) => node.nonempty(findings)?,
        None => &mount.source,
    };
    let target = if target.starts_with('/') { target.to_owned() } else { format!("{folder}/{target}") };
    let target = super::clean(target.as_ref()).to_string_lossy().into_owned();
    if target == "/" {
        findings.error(&at.position, "a file cannot take the place of the root");
        return None;
    }
    mount.target = target;
    Some(mount)
}

/// Permission bits: octal in quotes, with a leading zero or `0o`; decimal otherwise, as YAML reads it.
pub(super) fn mode(node: &Node, findings: &mut Findings) -> Option<u32> {
    let mode = match &node.value {
        Value::Scalar(Scalar { text, plain }) => {
            let octal = text.strip_prefix("0o").or_else(|| (!plain || text.starts_with('0')).then_some(text));
            match octal {
                Some(digits) => u32::from_str_radix(digits, 8).ok(),
                None => text.parse().ok(),
            }
        }
        _ => None,
    };
    let mode = mode.filter(|mode| *mode <= 0o7777);
    if mode.is_none() {
        node.mismatch("permission bits such as 0440", findings);
    }
    mode
}

/// Checks a name and reads what it declares.
pub(super) fn read_all(
    node: Option<&Node>,
    kind: FileKind,
    project: &str,
    context: &Context<'_>,
    findings: &mut Findings,
) -> std::collections::BTreeMap<String, Option<FileSource>> {
    let what = if kind == FileKind::Config { "config" } else { "secret" };
    let mut all = std::collections::BTreeMap::new();
    for entry in node.and_then(|node| node.map(findings)).unwrap_or_default() {
        if !entry.key.starts_with("x-") {
            names::check(what, &entry.key, &entry.key_at, findings);
            all.insert(entry.key.clone(), read(entry, kind, project, context, findings));
        }
    }
    all
}
