//! `extends`: a service that begins as a copy of another one, of its own file or of another.

use super::{Loader, Scope, paths};
use crate::keys::Section;
use crate::merge;
use crate::read::clean;
use crate::yaml::{Entry, MAX_NODES, Node, Position, Value, nearest};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use throng_model::diagnostic::Diagnostic;

/// Longest chain of services that extend each other.
pub const MAX_DEPTH: usize = 32;

/// A service by the file that holds it.
type Key = (PathBuf, String);

/// The services of the files that were read for one file's `extends`.
struct Known {
    /// The file with the services that are to be extended; its folder is the scope's.
    own: PathBuf,
    files: HashMap<PathBuf, Option<HashMap<String, Node>>>,
    done: HashMap<Key, Option<Node>>,
}

/// The services that are being extended, outermost first, each with the place that names the next.
type Chain = Vec<(Key, Position)>;

/// What `extends` names.
struct Base {
    key: Key,
    at: Position,
}

impl Loader<'_> {
    /// Replaces each service that extends another one by the whole of it.
    pub(super) fn extend_services(&mut self, path: &Path, tree: &mut Node, scope: Scope<'_>) {
        let Some(Value::Map(services)) = tree.get_mut("services").map(|node| &mut node.value) else { return };
        if !services.iter().any(|entry| entry.value.get("extends").is_some()) {
            return;
        }
        let own: HashMap<String, Node> =
            services.iter().map(|entry| (entry.key.clone(), entry.value.clone())).collect();
        let mut known = Known {
            own: path.to_owned(),
            files: HashMap::from([(path.to_owned(), Some(own))]),
            done: HashMap::new(),
        };
        for entry in services.iter_mut().filter(|entry| entry.value.get("extends").is_some()) {
            let key = (path.to_owned(), entry.key.clone());
            if let Some(whole) = self.whole(&key, &mut known, scope, &mut Vec::new()) {
                entry.value = whole;
            } else {
                // What is wrong has been said, and the rest can still be looked at. The key without a value tells the
                // reader that something is missing here.
                if let Some(extends) = entry.value.get_mut("extends") {
                    extends.value = Value::Null;
                }
            }
        }
    }

    /// The service with all that it extends. Recursion is bounded by [`MAX_DEPTH`].
    fn whole(&mut self, key: &Key, known: &mut Known, scope: Scope<'_>, chain: &mut Chain) -> Option<Node> {
        if let Some(done) = known.done.get(key) {
            return done.clone();
        }
        let mut service = known.files.get(&key.0)?.as_ref()?.get(&key.1)?.clone();
        let Some(extends) = service.remove("extends") else { return Some(service) };
        let whole = self
            .base(&key.0, &extends, known, scope)
            .filter(|base| self.may_extend(base, key, chain))
            .and_then(|base| self.extended(service, base, key, known, scope, chain));
        known.done.insert(key.clone(), whole.clone());
        whole
    }

    fn extended(
        &mut self,
        service: Node,
        base: Base,
        key: &Key,
        known: &mut Known,
        scope: Scope<'_>,
        chain: &mut Chain,
    ) -> Option<Node> {
        chain.push((key.clone(), base.at.clone()));
        let whole = self.whole(&base.key, known, scope, chain);
        chain.pop();
        let mut whole = whole?;
        if base.key.0 != key.0 {
            paths::name_build_context(&mut whole, folder_of(&base.key.0));
        }
        let position = service.position.clone();
        merge::extend(&mut whole, service, self.findings);
        whole.position = position;
        let Some(left) = self.nodes_left.checked_sub(whole.count()) else {
            let message = format!("more than {MAX_NODES} values once services are extended");
            self.findings.error_with_hint(&base.at, message, "extend smaller services, or fewer");
            return None;
        };
        self.nodes_left = left;
        Some(whole)
    }

    /// Reads what `extends` says, and the file that it names.
    fn base(&mut self, file: &Path, extends: &Entry, known: &mut Known, scope: Scope<'_>) -> Option<Base> {
        let mut section = Section::open("services.*.extends", &extends.value, self.findings)?;
        let (service, other) = (section.take("service"), section.take("file"));
        section.close(self.findings);
        let Some(service) = service else {
            self.findings.error_with_hint(
                &extends.key_at,
                "extends names no service",
                "add service: with the name of the one to begin with",
            );
            return None;
        };
        let name = service.nonempty(self.findings)?.to_owned();
        let path = match other {
            None => file.to_owned(),
            Some(node) => {
                let folder = if file == known.own { scope.directory } else { folder_of(file) };
                let path = clean(&folder.join(node.nonempty(self.findings)?));
                if !path.is_file() {
                    let message = format!("there is no file {} to extend a service of", path.display());
                    self.findings.error(&node.position, message);
                    return None;
                }
                path
            }
        };
        if !known.files.contains_key(&path) {
            let services = self.services_of(&path, scope);
            known.files.insert(path.clone(), services);
        }
        let services = known.files.get(&path)?.as_ref()?;
        if !services.contains_key(&name) {
            let near = nearest(&name, services.keys().map(String::as_str));
            let hint = match near {
                Some(near) => format!("did you mean {near:?}?"),
                None => "extends finds services of the file itself or of the one named with file:".into(),
            };
            let message = format!("unknown service {name:?} to extend in {}", path.display());
            self.findings.error_with_hint(&service.position, message, hint);
            return None;
        }
        Some(Base { key: (path, name), at: service.position.clone() })
    }

    /// The services of another file, with their paths made absolute.
    fn services_of(&mut self, path: &Path, scope: Scope<'_>) -> Option<HashMap<String, Node>> {
        let scope = Scope { directory: folder_of(path), ..scope };
        let mut tree = self.read(path, scope)?;
        let services = tree.remove("services")?;
        let Value::Map(entries) = services.value.value else { return None };
        Some(entries.into_iter().map(|entry| (entry.key, entry.value)).collect())
    }

    fn may_extend(&mut self, base: &Base, key: &Key, chain: &Chain) -> bool {
        let above: Vec<(&Key, Option<&Position>)> =
            chain.iter().map(|(key, at)| (key, Some(at))).chain([(key, None)]).collect();
        if let Some(index) = above.iter().position(|(above, _)| **above == base.key) {
            self.findings.push(circle(&above[index..], base));
            return false;
        }
        if chain.len() >= MAX_DEPTH {
            let message = format!("more than {MAX_DEPTH} services extend each other in a row");
            self.findings.error(&base.at, message);
            return false;
        }
        true
    }
}

/// The finding about services of which each extends the next and the last one the first.
fn circle(services: &[(&Key, Option<&Position>)], base: &Base) -> Diagnostic {
    let is_one_file = services.iter().all(|((file, _), _)| *file == base.key.0);
    let name = |(file, service): &Key| match is_one_file {
        true => service.clone(),
        false => format!("{service} of {}", file.file_name().unwrap_or_default().to_string_lossy()),
    };
    let mut names: Vec<String> = services.iter().map(|(key, _)| name(key)).collect();
    names.push(name(&base.key));
    let message = format!("services extend each other in a circle: {}", names.join(" → "));
    let mut finding = Diagnostic::error(message).at(base.at.location());
    for (index, (key, at)) in services.iter().enumerate() {
        if let (Some(at), Some(next)) = (at, names.get(index + 1)) {
            finding = finding.related(at.location(), format!("{} extends {next}", name(key)));
        }
    }
    finding.hint("move what they share into a service that extends none of them")
}

fn folder_of(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new("/"))
}
