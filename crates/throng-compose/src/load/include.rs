//! `include`: other projects' files, loaded in their own surroundings and copied into this one.

use super::{Loader, Lookup, Scope, paths, variables};
use crate::keys::Section;
use crate::read::clean;
use crate::yaml::{Entry, Findings, Node, Position, Value};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use throng_model::diagnostic::Diagnostic;

/// Deepest nesting of files that include files.
pub const MAX_DEPTH: usize = 32;

/// The files that are being included, outermost first, each with the place that includes the next.
pub(super) type Chain = Vec<(PathBuf, Position)>;

/// Sections whose members are copied one by one.
const SECTIONS: [&str; 6] = ["services", "networks", "volumes", "configs", "secrets", "models"];

/// One element of `include`.
struct Wanted {
    at: Position,
    files: Vec<PathBuf>,
    directory: PathBuf,
    environment: BTreeMap<String, String>,
}

impl Loader<'_> {
    /// Copies what `tree` includes into it.
    pub(super) fn include_into(&mut self, path: &Path, tree: &mut Node, scope: Scope<'_>, chain: &mut Chain) {
        let Some(include) = tree.remove("include") else { return };
        if include.value.is_null() {
            return;
        }
        let items = match include.value.list(self.findings) {
            Some(items) => items,
            None => return,
        };
        for item in items {
            let Some(wanted) = self.wanted(item, scope) else { continue };
            chain.push((path.to_owned(), wanted.at.clone()));
            if self.may_include(&wanted, chain) {
                let lookup =
                    |name: &str| (scope.lookup)(name).or_else(|| wanted.environment.get(name).cloned());
                let inner = Scope { directory: &wanted.directory, lookup: &lookup };
                if let Some(mut model) = self.model(&wanted.files, inner, chain) {
                    paths::name_build_contexts(&mut model, &wanted.directory);
                    name_variables(&mut model, &lookup);
                    import(tree, model, self.findings);
                }
            }
            chain.pop();
        }
    }

    fn wanted(&mut self, item: &Node, scope: Scope<'_>) -> Option<Wanted> {
        let absolute = |node: &Node, findings: &mut Findings| {
            node.nonempty(findings).map(|text| clean(&scope.directory.join(text)))
        };
        let (mut directory, mut env_files) = (None, None);
        let path = if matches!(item.value, Value::Map(_)) {
            let mut section = Section::open("include.*", item, self.findings)?;
            let path = section.take("path");
            directory = section.take("project_directory").and_then(|node| absolute(node, self.findings));
            env_files = section.take("env_file");
            section.close(self.findings);
            path
        } else {
            item.nonempty(self.findings)?;
            Some(item)
        };
        let Some(path) = path else {
            self.findings.error(&item.position, "an include without path");
            return None;
        };
        let files: Option<Vec<PathBuf>> =
            one_or_more(path).iter().map(|node| absolute(node, self.findings)).collect();
        let files = files.filter(|files| !files.is_empty())?;
        let missing = files.iter().zip(one_or_more(path)).find(|(file, _)| !file.is_file());
        if let Some((file, node)) = missing {
            let message = format!("there is no file {} to include", file.display());
            self.findings.error(&node.position, message);
            return None;
        }
        let directory =
            directory.or_else(|| Some(files.first()?.parent()?.to_owned())).unwrap_or_else(|| "/".into());
        let mut environment = BTreeMap::new();
        match env_files {
            Some(node) => {
                for node in one_or_more(node) {
                    let path = absolute(node, self.findings)?;
                    if !path.exists() {
                        let message = format!("there is no file {}", path.display());
                        self.findings.error(&node.position, message);
                        return None;
                    }
                    environment.extend(variables(&path, scope.lookup, self.findings));
                }
            }
            None if directory.join(".env").is_file() => {
                environment.extend(variables(&directory.join(".env"), scope.lookup, self.findings));
            }
            None => {}
        }
        Some(Wanted { at: path.position.clone(), files, directory, environment })
    }

    fn may_include(&mut self, wanted: &Wanted, chain: &Chain) -> bool {
        let again = wanted
            .files
            .iter()
            .find_map(|file| chain.iter().position(|(above, _)| above == file).map(|index| (index, file)));
        if let Some((index, file)) = again {
            let name = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let mut names: Vec<String> = chain[index..].iter().map(|(file, _)| name(file)).collect();
            names.push(name(file));
            let message = format!("files include each other in a circle: {}", names.join(" → "));
            let mut finding = Diagnostic::error(message).at(wanted.at.location());
            for (file, at) in &chain[index..chain.len() - 1] {
                finding = finding.related(at.location(), format!("{} includes the next one", name(file)));
            }
            self.findings.push(finding.hint("remove one of these includes"));
            return false;
        }
        if chain.len() > MAX_DEPTH {
            let message = format!("includes nest more than {MAX_DEPTH} levels deep");
            self.findings.error(&wanted.at, message);
            return false;
        }
        true
    }
}

/// The elements of a list, or the single value in its stead.
fn one_or_more(node: &Node) -> &[Node] {
    match &node.value {
        Value::List(items) => items,
        _ => std::slice::from_ref(node),
    }
}

/// Variables without a value take it from the included file's own surroundings.
fn name_variables(model: &mut Node, lookup: &Lookup<'_>) {
    let Some(Value::Map(services)) = model.get_mut("services").map(|node| &mut node.value) else { return };
    for service in services {
        let Some(Value::Map(variables)) = service.value.get_mut("environment").map(|node| &mut node.value)
        else {
            continue;
        };
        for variable in variables.iter_mut().filter(|variable| variable.value.is_null()) {
            if let Some(text) = lookup(&variable.key) {
                variable.value.value = Value::Scalar(crate::yaml::Scalar { text, plain: false });
            }
        }
    }
}

/// Copies the members of an included model. What both declare must be the same.
fn import(tree: &mut Node, model: Node, findings: &mut Findings) {
    let (Value::Map(sections), Value::Map(own)) = (model.value, &mut tree.value) else { return };
    for section in sections {
        let known = own.iter_mut().find(|entry| entry.key == section.key);
        match known {
            _ if section.key == "name" => {}
            None => own.push(section),
            Some(known) if SECTIONS.contains(&section.key.as_str()) => {
                import_section(known, section, findings)
            }
            Some(_) => {}
        }
    }
}

fn import_section(known: &mut Entry, section: Entry, findings: &mut Findings) {
    if known.value.is_null() {
        known.value.value = Value::Map(Vec::new());
    }
    let (Value::Map(members), Value::Map(more)) = (&mut known.value.value, section.value.value) else {
        return;
    };
    let index_of: BTreeMap<String, usize> =
        members.iter().enumerate().map(|(index, entry)| (entry.key.clone(), index)).collect();
    for entry in more {
        match index_of.get(&entry.key).and_then(|index| members.get(*index)) {
            None => members.push(entry),
            Some(own) if own.value.says_the_same(&entry.value) => {}
            Some(own) => {
                let what = section.key.trim_end_matches('s');
                let message = format!("the {what} {:?} is also declared by an included file", entry.key);
                let finding = Diagnostic::error(message)
                    .at(own.key_at.location())
                    .related(entry.key_at.location(), "declared here as well");
                let hint = "to change it, name a second file under the include's path, or merge one with -f";
                findings.push(finding.hint(hint));
            }
        }
    }
}
