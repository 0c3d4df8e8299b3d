//! Which app a command is about: the Compose file, or the name of one that is up.

use crate::cli::ProjectArguments;
use crate::failure::{Failure, Kind, Result};
use crate::terminal::Style;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use throng_compose::{LoadOptions, Loaded};
use throng_model::app::App;
use throng_model::diagnostic::Diagnostic;
use throng_supervisor::Asked;
use throng_supervisor::client::{self, Choice, Client};
use throng_supervisor::paths::Paths;

/// What every command knows.
#[derive(Clone)]
pub struct Context {
    pub paths: Paths,
    pub project: ProjectArguments,
    /// `auto`, `container` or `process`, if one was asked for.
    pub isolation: Option<&'static str>,
    /// What replicas are to run on, if that was said.
    pub on: Option<Asked>,
}

impl Context {
    /// How a supervisor is to run replicas, as far as the command line says it.
    pub fn choice(&self) -> Choice<'_> {
        Choice { isolation: self.isolation, on: self.on.as_ref() }
    }

    /// Loads the Compose file and prints what there is to say about it. `folder`: where to look for it.
    pub fn load(&self, folder: Option<&Path>) -> Result<Loaded> {
        let here =
            std::env::current_dir().map_err(|error| crate::failure::io("tell the current folder", &error))?;
        let directory = match (folder, &self.project.project_directory) {
            (Some(folder), _) => here.join(folder),
            (None, Some(folder)) => here.join(folder),
            (None, None) => here.clone(),
        };
        // Files named on the command line are relative to where the command was typed.
        let files: Vec<PathBuf> = self.project.file.iter().map(|file| here.join(file)).collect();
        let environment: BTreeMap<String, String> = std::env::vars_os()
            .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
            .collect();
        let loaded = throng_compose::load(&LoadOptions {
            files,
            directory,
            project_name: self.project.project_name.clone(),
            profiles: self.project.profile.clone(),
            environment,
        })?;
        warn(&loaded.warnings);
        Ok(loaded)
    }

    /// The name of the app that a command about a running one means: as given, or that of the Compose file here,
    /// or, without a file, the only one that is up.
    pub fn name(&self) -> Result<String> {
        if let Some(name) = &self.project.project_name {
            if !Paths::is_project_name(name) {
                return Err(Failure::new(Kind::Input, format!("{name:?} cannot be the name of a project"))
                    .hint("use lower-case letters, digits, - and _, and begin with a letter or digit"));
            }
            return Ok(name.clone());
        }
        let quiet = LoadOptions {
            files: self.project.file.clone(),
            directory: std::env::current_dir()
                .map_err(|error| crate::failure::io("tell the current folder", &error))?,
            profiles: vec!["*".into()],
            environment: std::env::vars().collect(),
            ..LoadOptions::default()
        };
        match throng_compose::load(&quiet) {
            Ok(loaded) => Ok(loaded.app.name),
            Err(diagnostics) => match client::projects(&self.paths).as_slice() {
                [only] if self.project.file.is_empty() => Ok(only.clone()),
                [] if self.project.file.is_empty() => {
                    Err(Failure::new(Kind::NotFound, "no app is up").hint("start one with `throng up -d`"))
                }
                names if self.project.file.is_empty() => {
                    Err(Failure::new(Kind::NotFound, "there is no Compose file here and several apps are up")
                        .hint(format!("name one with -p: {}", names.join(", "))))
                }
                _ => Err(diagnostics.into()),
            },
        }
    }

    /// The supervisor of the app that is meant; fails if it is not up.
    pub async fn running(&self) -> Result<Client> {
        let client = Client::find(&self.paths, &self.name()?, &self.choice()).await?;
        say_notes(&client);
        Ok(client)
    }
}

/// Prints findings to standard error.
pub fn warn(diagnostics: &[Diagnostic]) {
    if !diagnostics.is_empty() {
        eprint!("{}", throng_compose::render(diagnostics, Style::for_stderr().color));
    }
}

/// Prints what a supervisor that was started for this command has found odd.
pub fn say_notes(client: &Client) {
    let style = Style::for_stderr();
    for note in client.notes() {
        match note.strip_prefix("hint: ") {
            Some(hint) => eprintln!("{} {hint}", style.cyan("hint:")),
            None => eprintln!("{} {note}", style.yellow("warning:")),
        }
    }
}

/// `web=3 worker=10` as counts, checked against the app if there is one.
pub fn parse_scale(texts: &[String], app: Option<&App>) -> Result<BTreeMap<String, u32>> {
    let mut counts = BTreeMap::new();
    for text in texts {
        let wrong = |why: &str| {
            Failure::new(Kind::Input, format!("{text:?} {why}")).hint("write SERVICE=N, as in web=3")
        };
        let (service, count) = text.split_once('=').ok_or_else(|| wrong("names no count"))?;
        let count = count.parse().map_err(|_| wrong("has a count that is not a whole number"))?;
        if let Some(app) = app.filter(|app| !app.services.contains_key(service)) {
            let known: Vec<&str> = app.services.keys().map(String::as_str).collect();
            return Err(Failure::new(Kind::NotFound, format!("no service {service} in {}", app.name))
                .hint(format!("it has: {}", known.join(", "))));
        }
        counts.insert(service.to_owned(), count);
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_are_read_and_refused() {
        let texts = |all: &[&str]| all.iter().map(|text| text.to_string()).collect::<Vec<_>>();
        let counts = parse_scale(&texts(&["web=3", "db=0"]), None).expect("two counts");
        assert_eq!(counts, BTreeMap::from([("db".into(), 0), ("web".into(), 3)]));
        for wrong in ["web", "web=", "web=-1", "web=x", "web=1.5"] {
            assert_eq!(parse_scale(&texts(&[wrong]), None).expect_err(wrong).kind, Kind::Input);
        }
        let app = App { name: "shop".into(), ..App::default() };
        assert_eq!(parse_scale(&texts(&["web=1"]), Some(&app)).expect_err("unknown").kind, Kind::NotFound);
    }
}
