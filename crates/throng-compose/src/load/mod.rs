//! From files to one merged tree: which files, in which surroundings, with what they extend and include.

mod extends;
mod include;
pub(crate) mod paths;

use crate::yaml::{self, Findings, Node, Position, Value};
use crate::{FILE_NAMES, LoadOptions, OVERRIDE_NAMES, dotenv, interpolate, merge, read};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use throng_model::diagnostic::Diagnostic;

/// Most files of one project, those that are extended or included among them.
pub const MAX_FILES: usize = 500;

/// The name by which people ask for standard input.
pub const INPUT: &str = "-";

pub(crate) type Lookup<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// The surroundings of some files: the project's own, or those of an include.
#[derive(Clone, Copy)]
struct Scope<'a> {
    /// What relative paths are relative to.
    directory: &'a Path,
    lookup: &'a Lookup<'a>,
}

/// Reads the files of one project.
pub(crate) struct Loader<'a> {
    findings: &'a mut Findings,
    /// The project's own folder: relative paths of its files stay as they are.
    project: &'a Path,
    /// All files that were read, in order.
    files: Vec<PathBuf>,
    /// What [`INPUT`] among the project's own files holds.
    input: Option<&'a str>,
    /// Nodes that `extends` may still add to what the files hold.
    nodes_left: usize,
}

impl<'a> Loader<'a> {
    pub fn new(project: &'a Path, input: Option<&'a str>, findings: &'a mut Findings) -> Self {
        Loader { findings, project, files: Vec::new(), input, nodes_left: yaml::MAX_NODES }
    }

    /// Reads and merges the project's files. The second part is every file that had a say.
    pub fn load(mut self, files: &[PathBuf], lookup: &Lookup<'_>) -> Option<(Node, Vec<PathBuf>)> {
        let scope = Scope { directory: self.project, lookup };
        let root = self.model(files, scope, &mut Vec::new())?;
        Some((root, self.files))
    }

    /// Merges files, each with what it extends and includes.
    fn model(&mut self, files: &[PathBuf], scope: Scope<'_>, chain: &mut include::Chain) -> Option<Node> {
        let mut root: Option<Node> = None;
        for path in files {
            let mut tree = self.read(path, scope)?;
            self.extend_services(path, &mut tree, scope);
            self.include_into(path, &mut tree, scope, chain);
            let base = root.get_or_insert_with(|| Node::new(tree.position.clone(), Value::Map(Vec::new())));
            merge::merge(base, tree, self.findings);
        }
        root
    }

    /// Reads one file up to the point where it can be merged.
    fn read(&mut self, path: &Path, scope: Scope<'_>) -> Option<Node> {
        if self.files.len() >= MAX_FILES {
            let message = format!("more than {MAX_FILES} files in one project");
            self.findings.push(Diagnostic::error(message).hint("merge some of them"));
            return None;
        }
        let text = match self.input.filter(|_| path.file_name() == Some(INPUT.as_ref())) {
            Some(input) => input.to_owned(),
            None => yaml::read_file(path).map_err(|e| self.findings.push(e)).ok()?,
        };
        self.files.push(path.to_owned());
        let file: Arc<Path> = path.into();
        let mut tree = yaml::parse(&file, &text).map_err(|e| self.findings.push(e)).ok()?;
        const HINT: &str = "a Compose file has at least \"services\"";
        match &tree.value {
            Value::Map(_) => {}
            Value::Null => {
                self.findings.error_with_hint(&Position::start_of(&file), "the file is empty", HINT);
                return None;
            }
            _ => {
                let message = format!("a Compose file is a mapping, found {}", tree.kind());
                self.findings.error_with_hint(&tree.position, message, HINT);
                return None;
            }
        }
        let unset = |at: &Position, name: &str, findings: &mut Findings| {
            let message = format!("the variable {name} is not set and counts as empty");
            findings.warn_with_hint(at, message, format!("set it, or give a default: ${{{name}:-…}}"));
        };
        interpolate::expand_tree(&mut tree, scope.lookup, &unset, self.findings);
        merge::normalise(&mut tree, self.findings);
        if scope.directory != self.project {
            paths::make_absolute(&mut tree, scope.directory);
        }
        Some(tree)
    }
}

/// The files that `options` ask for.
pub(crate) fn find_files(
    options: &LoadOptions,
    environment: &BTreeMap<String, String>,
    directory: &Path,
    findings: &mut Findings,
) -> Option<Vec<PathBuf>> {
    if !options.files.is_empty() {
        return Some(options.files.iter().map(|file| read::clean(&directory.join(file))).collect());
    }
    if let Some(list) = environment.get("COMPOSE_FILE").filter(|list| !list.is_empty()) {
        let separator = environment.get("COMPOSE_PATH_SEPARATOR").filter(|text| !text.is_empty());
        let separator = separator.map_or(":", String::as_str);
        return Some(list.split(separator).map(|file| read::clean(&directory.join(file))).collect());
    }
    for folder in directory.ancestors() {
        let present = |names: &[&str]| names.iter().map(|name| folder.join(name)).find(|file| file.is_file());
        if let Some(file) = present(&FILE_NAMES) {
            return Some(std::iter::once(file).chain(present(&OVERRIDE_NAMES)).collect());
        }
    }
    let message = format!("no Compose file in {} or a folder above it", directory.display());
    let hint = format!("create {}, or name a file with -f", FILE_NAMES[0]);
    findings.push(Diagnostic::error(message).hint(hint));
    None
}

/// The caller's environment over the `.env` of a folder, or over the files that `COMPOSE_ENV_FILES` names, of which a
/// later one wins.
pub(crate) fn environment(
    options: &LoadOptions,
    directory: &Path,
    findings: &mut Findings,
) -> BTreeMap<String, String> {
    let given = |name: &str| options.environment.get(name).filter(|value| !value.is_empty());
    let mut environment = BTreeMap::new();
    let lookup = |name: &str| options.environment.get(name).cloned();
    match given("COMPOSE_ENV_FILES") {
        Some(list) => {
            for name in list.split(',').filter(|name| !name.is_empty()) {
                let path = read::clean(&options.directory.join(name));
                environment.extend(variables(&path, &lookup, findings));
            }
        }
        None if directory.join(".env").is_file() => {
            environment.extend(variables(&directory.join(".env"), &lookup, findings));
        }
        None => {}
    }
    environment.extend(options.environment.clone());
    environment
}

/// The variables of a file in the form of `.env`.
fn variables(path: &Path, lookup: &Lookup<'_>, findings: &mut Findings) -> Vec<(String, String)> {
    match yaml::read_file(path) {
        Ok(text) => dotenv::parse(&path.into(), &text, dotenv::Format::Dotenv, lookup, findings),
        Err(e) => {
            findings.push(e);
            Vec::new()
        }
    }
}
