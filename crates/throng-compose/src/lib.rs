//! Compose text to [`App`], with file, line and column for everything it says about the text.
//!
//! The way of a file: [`yaml::parse`] makes a tree that knows its places → variables are expanded
//! ([`interpolate`]) → short forms become long ones and several files become one tree (`merge`) → the tree is read
//! against the table of keys ([`key_table`]) → checks over all services (`read`). Each step adds findings and goes on
//! where it can, so that one run shows all that is wrong.
//!
//! This crate reads files but starts nothing, and knows nothing of engines or supervisors.

mod canonical;
pub mod dotenv;
pub mod interpolate;
mod keys;
mod merge;
mod read;
mod render;
pub mod yaml;

pub use canonical::{canonical, to_yaml};
pub use keys::{Key, Status, key_table};
pub use render::render;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use throng_model::app::{App, Service};
use throng_model::diagnostic::Diagnostic;
use yaml::{Findings, Node, Position, Value};

/// Names that are tried in each folder, best first, and the override files that may stand beside them.
const FILE_NAMES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"];
const OVERRIDE_NAMES: [&str; 4] = [
    "compose.override.yaml",
    "compose.override.yml",
    "docker-compose.override.yaml",
    "docker-compose.override.yml",
];

/// What to load and in which surroundings.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Files in the order of merging, relative to `directory`. Empty: the variable `COMPOSE_FILE`, else one of
    /// `compose.yaml`, `compose.yml`, `docker-compose.yaml`, `docker-compose.yml` with its override file, searched
    /// from `directory` upward.
    pub files: Vec<PathBuf>,
    /// The folder of the caller.
    pub directory: PathBuf,
    /// Wins over `COMPOSE_PROJECT_NAME`, the file's `name`, and the folder's name.
    pub project_name: Option<String>,
    /// Profiles that are on; `*` is all. `COMPOSE_PROFILES` counts when this is empty.
    pub profiles: Vec<String>,
    /// The caller's environment, for interpolation. `.env` in the project directory is below it.
    pub environment: BTreeMap<String, String>,
}

/// An app and what there is to say about its files.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub app: App,
    pub warnings: Vec<Diagnostic>,
    /// The files that were merged, absolute, in order.
    pub files: Vec<PathBuf>,
    /// Services that their profiles leave out of the app.
    pub disabled: BTreeMap<String, Service>,
}

/// Loads, merges and checks Compose files.
///
/// # Errors
/// All findings, warnings included, if at least one of them is an error.
pub fn load(options: &LoadOptions) -> Result<Loaded, Vec<Diagnostic>> {
    let mut findings = Findings::default();
    match load_into(options, &mut findings) {
        Some((app, disabled, files)) if !findings.has_errors() => {
            Ok(Loaded { app, warnings: findings.into_vec(), files, disabled })
        }
        _ => Err(findings.into_vec()),
    }
}

type Parts = (App, BTreeMap<String, Service>, Vec<PathBuf>);

fn load_into(options: &LoadOptions, findings: &mut Findings) -> Option<Parts> {
    let caller = std::path::absolute(&options.directory)
        .map_err(|e| findings.push(Diagnostic::error(format!("cannot tell the working directory: {e}"))))
        .ok()?;
    let files = find_files(options, &read::clean(&caller), findings)?;
    let directory = files.first().and_then(|file| file.parent()).unwrap_or(&caller).to_path_buf();
    let environment = environment(options, &directory, findings);
    let name = options
        .project_name
        .clone()
        .or_else(|| environment.get("COMPOSE_PROJECT_NAME").filter(|name| !name.is_empty()).cloned());
    if let Some(name) = &name {
        check_given_name(name, findings);
    }
    let profiles = match (options.profiles.is_empty(), environment.get("COMPOSE_PROFILES")) {
        (true, Some(list)) => list.split(',').map(|profile| profile.trim().to_owned()).collect(),
        _ => options.profiles.clone(),
    };
    let lookup = |variable: &str| environment.get(variable).cloned();
    let mut root: Option<Node> = None;
    for path in &files {
        let tree = read_tree(path, &lookup, findings)?;
        let base = root.get_or_insert_with(|| Node::new(tree.position.clone(), Value::Map(Vec::new())));
        merge::merge(base, tree, findings);
    }
    let context = read::Context { name, directory, environment: &lookup, profiles: &profiles };
    let (app, disabled) = read::read(&root?, &context, findings)?;
    Some((app, disabled, files))
}

/// Reads one file up to the point where it can be merged.
fn read_tree(path: &Path, lookup: &dyn Fn(&str) -> Option<String>, findings: &mut Findings) -> Option<Node> {
    let text = yaml::read_file(path).map_err(|e| findings.push(e)).ok()?;
    let file: Arc<Path> = path.into();
    let mut tree = yaml::parse(&file, &text).map_err(|e| findings.push(e)).ok()?;
    match &tree.value {
        Value::Map(_) => {}
        Value::Null => {
            let hint = "a Compose file has at least \"services\"";
            findings.error_with_hint(&Position::start_of(&file), "the file is empty", hint);
            return None;
        }
        _ => {
            let message = format!("a Compose file is a mapping, found {}", tree.kind());
            findings.error_with_hint(&tree.position, message, "a Compose file has at least \"services\"");
            return None;
        }
    }
    let unset = |at: &Position, name: &str, findings: &mut Findings| {
        let message = format!("the variable {name} is not set and counts as empty");
        findings.warn_with_hint(at, message, format!("set it, or give a default: ${{{name}:-…}}"));
    };
    interpolate::expand_tree(&mut tree, lookup, &unset, findings);
    merge::normalise(&mut tree, findings);
    Some(tree)
}

fn find_files(options: &LoadOptions, directory: &Path, findings: &mut Findings) -> Option<Vec<PathBuf>> {
    if !options.files.is_empty() {
        return Some(options.files.iter().map(|file| read::clean(&directory.join(file))).collect());
    }
    if let Some(list) = options.environment.get("COMPOSE_FILE").filter(|list| !list.is_empty()) {
        return Some(list.split(':').map(|file| read::clean(&directory.join(file))).collect());
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

/// The caller's environment over the `.env` of the project directory.
fn environment(options: &LoadOptions, directory: &Path, findings: &mut Findings) -> BTreeMap<String, String> {
    let path = directory.join(".env");
    let mut environment = BTreeMap::new();
    if path.is_file() {
        match yaml::read_file(&path) {
            Ok(text) => {
                let file: Arc<Path> = path.into();
                let lookup = |name: &str| options.environment.get(name).cloned();
                let variables = dotenv::parse(&file, &text, dotenv::Format::Dotenv, &lookup, findings);
                environment.extend(variables);
            }
            Err(e) => findings.push(e),
        }
    }
    environment.extend(options.environment.clone());
    environment
}

fn check_given_name(name: &str, findings: &mut Findings) {
    if let Err(why) = read::check_project_name(name) {
        let hint = "use lower-case letters, digits, - and _, and begin with a letter or digit";
        findings.push(Diagnostic::error(why).hint(hint));
    }
}
