//! Compose text to [`App`], with file, line and column for everything it says about the text.
//!
//! The way of a file: [`yaml::parse`] makes a tree that knows its places → variables are expanded
//! ([`interpolate`]) → short forms become long ones (`merge`) → what it extends and includes is read in the same way and
//! copied in (`load`) → several files become one tree (`merge`) → the tree is read against the table of keys
//! ([`key_table`]) → checks over all services (`read`). Each step adds findings and goes on
//! where it can, so that one run shows all that is wrong.
//!
//! This crate reads files but starts nothing, and knows nothing of engines or supervisors.

mod canonical;
pub mod dotenv;
mod emit;
pub mod interpolate;
mod keys;
mod load;
mod merge;
mod places;
mod read;
mod render;
pub mod yaml;

pub use canonical::canonical;
pub use emit::to_yaml;
pub use keys::{Key, Status, key_table};
pub use places::Places;
pub use render::render;

use std::collections::BTreeMap;
use std::path::PathBuf;
use throng_model::app::{App, Service};
use throng_model::diagnostic::Diagnostic;
use yaml::Findings;

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
    /// What the file called `-` holds, which is the caller's standard input.
    pub input: Option<String>,
    /// The caller's environment, for interpolation. `.env` in the project directory is below it.
    pub environment: BTreeMap<String, String>,
}

/// An app and what there is to say about its files.
#[derive(Debug, Clone)]
pub struct Loaded {
    pub app: App,
    pub warnings: Vec<Diagnostic>,
    /// The files that were read, those that are extended or included among them, absolute, in order.
    pub files: Vec<PathBuf>,
    /// Services that their profiles leave out of the app.
    pub disabled: BTreeMap<String, Service>,
    pub places: Places,
}

/// Loads, merges and checks Compose files.
///
/// # Errors
/// All findings, warnings included, if at least one of them is an error.
pub fn load(options: &LoadOptions) -> Result<Loaded, Vec<Diagnostic>> {
    let mut findings = Findings::default();
    match load_into(options, &mut findings) {
        Some((app, disabled, files, places)) if !findings.has_errors() => {
            Ok(Loaded { app, warnings: findings.into_vec(), files, disabled, places })
        }
        _ => Err(findings.into_vec()),
    }
}

type Parts = (App, BTreeMap<String, Service>, Vec<PathBuf>, Places);

fn load_into(options: &LoadOptions, findings: &mut Findings) -> Option<Parts> {
    let caller = std::path::absolute(&options.directory)
        .map_err(|e| findings.push(Diagnostic::error(format!("cannot tell the working directory: {e}"))))
        .ok()?;
    let caller = read::clean(&caller);
    // What the caller's own `.env` says about which files there are counts before any is known.
    let files = {
        let mut unsaid = Findings::default();
        let environment = load::environment(options, &caller, &mut unsaid);
        load::find_files(options, &environment, &caller, findings)?
    };
    let directory = files.first().and_then(|file| file.parent()).unwrap_or(&caller).to_path_buf();
    let environment = load::environment(options, &directory, findings);
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
    let (root, files) =
        load::Loader::new(&directory, options.input.as_deref(), findings).load(&files, &lookup)?;
    let context = read::Context { name, directory, environment: &lookup, profiles: &profiles };
    let (app, disabled) = read::read(&root, &context, findings)?;
    Some((app, disabled, files, Places(root)))
}

fn check_given_name(name: &str, findings: &mut Findings) {
    if let Err(why) = read::check_project_name(name) {
        let hint = "use lower-case letters, digits, - and _, and begin with a letter or digit";
        findings.push(Diagnostic::error(why).hint(hint));
    }
}
