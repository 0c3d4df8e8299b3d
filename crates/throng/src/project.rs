//! Which app a command is about: the Compose file, or the name of one that is up.

use crate::cli::ProjectArguments;
use crate::failure::{Failure, Kind, Result};
use crate::terminal::Style;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use throng_compose::{LoadOptions, Loaded};
use throng_experiment::schema::MAX_REPLICAS;
use throng_model::app::App;
use throng_model::diagnostic::Diagnostic;
use throng_supervisor::Asked;
use throng_supervisor::client::{self, Choice, Client, ClientError};
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
            input: self.input()?,
            environment,
        })
        .map_err(|diagnostics| self.missing_file(&here).unwrap_or_else(|| diagnostics.into()))?;
        warn(&loaded.warnings);
        Ok(loaded)
    }

    /// Standard input, if it is one of the files.
    fn input(&self) -> Result<Option<String>> {
        // It can be read once only, and some commands look at the file twice.
        static READ: OnceLock<String> = OnceLock::new();
        if !self.project.file.iter().any(|file| file == Path::new("-")) {
            return Ok(None);
        }
        if let Some(text) = READ.get() {
            return Ok(Some(text.clone()));
        }
        let text = read_input("Compose file")?;
        Ok(Some(READ.get_or_init(|| text).clone()))
    }

    /// A file that was named and is not there.
    fn missing_file(&self, here: &Path) -> Option<Failure> {
        let named = self.project.file.iter().filter(|file| *file != Path::new("-"));
        let missing = named.map(|file| here.join(file)).find(|file| !file.exists())?;
        let message = format!("no Compose file {}", missing.display());
        Some(Failure::new(Kind::Input, message).hint(format!(
            "-f and COMPOSE_FILE name files, from {} on; without them it is compose.yaml here or further up",
            here.display()
        )))
    }

    /// The name of the app that a command about a running one means: as given, or that of the Compose file here,
    /// or, without a file, the only one that is up.
    pub fn name(&self) -> Result<String> {
        self.name_if_any()?
            .ok_or_else(|| Failure::new(Kind::NotFound, "no app is up").hint("start one with `throng up -d`"))
    }

    /// As [`Context::name`]; `None` if nothing names an app and none is up.
    fn name_if_any(&self) -> Result<Option<String>> {
        if let Some(name) = &self.project.project_name {
            if !Paths::is_project_name(name) {
                return Err(Failure::new(Kind::Input, format!("{name:?} cannot be the name of a project"))
                    .hint("use lower-case letters, digits, - and _, and begin with a letter or digit"));
            }
            return Ok(Some(name.clone()));
        }
        let quiet = LoadOptions {
            files: self.project.file.clone(),
            directory: std::env::current_dir()
                .map_err(|error| crate::failure::io("tell the current folder", &error))?,
            profiles: vec!["*".into()],
            input: self.input()?,
            environment: std::env::vars().collect(),
            ..LoadOptions::default()
        };
        match throng_compose::load(&quiet) {
            Ok(loaded) => Ok(Some(loaded.app.name)),
            Err(diagnostics) => match client::projects(&self.paths).as_slice() {
                [only] if self.project.file.is_empty() => Ok(Some(only.clone())),
                [] if self.project.file.is_empty() => Ok(None),
                names if self.project.file.is_empty() => {
                    Err(Failure::new(Kind::NotFound, "there is no Compose file here and several apps are up")
                        .hint(format!("name one with -p: {}", names.join(", "))))
                }
                _ => Err(std::env::current_dir()
                    .ok()
                    .and_then(|here| self.missing_file(&here))
                    .unwrap_or_else(|| diagnostics.into())),
            },
        }
    }

    /// The supervisor of the app that is meant, or, if that one is not up, what to say about it.
    pub async fn running_if_up(&self) -> Result<std::result::Result<Client, String>> {
        let Some(name) = self.name_if_any()? else { return Ok(Err("no app is up".into())) };
        match Client::find(&self.paths, &name, &self.choice()).await {
            Ok(client) => {
                say_notes(&client);
                Ok(Ok(client))
            }
            Err(error @ ClientError::NotUp(_)) => Ok(Err(error.to_string())),
            Err(error) => Err(error.into()),
        }
    }

    /// A supervisor that takes down what is left of the app that is meant, which is not up; none if nothing is.
    pub async fn remains(&self) -> Result<Option<Client>> {
        let Some(name) = self.name_if_any()? else { return Ok(None) };
        let client = Client::of_remains(&self.paths, &name, &self.choice()).await?;
        client.iter().for_each(say_notes);
        Ok(client)
    }

    /// The supervisor of the app that is meant; fails if it is not up.
    pub async fn running(&self) -> Result<Client> {
        let client = Client::find(&self.paths, &self.name()?, &self.choice()).await?;
        say_notes(&client);
        Ok(client)
    }
}

/// Largest text that is read from standard input, in bytes.
const MAX_INPUT: u64 = throng_compose::yaml::MAX_FILE_BYTES;

/// A text from standard input.
///
/// # Errors
/// It cannot be read, is longer than [`MAX_INPUT`], or is not UTF-8.
pub fn read_input(what: &str) -> Result<String> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let read = std::io::stdin().lock().take(MAX_INPUT + 1).read_to_end(&mut bytes);
    read.map_err(|error| crate::failure::io(format!("read the {what} from standard input"), &error))?;
    if bytes.len() as u64 > MAX_INPUT {
        let message =
            format!("the {what} on standard input is larger than {MAX_INPUT} bytes, the most that is read");
        return Err(Failure::new(Kind::Input, message).hint("write it to files"));
    }
    String::from_utf8(bytes).map_err(|_| {
        Failure::new(Kind::Input, format!("the {what} on standard input is not UTF-8 text"))
            .hint("save it as UTF-8")
    })
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
        let count =
            count.parse().ok().filter(|count| u64::from(*count) <= MAX_REPLICAS).ok_or_else(|| {
                wrong(&format!("has a count that is not a whole number from 0 to {MAX_REPLICAS}"))
            })?;
        if let Some(app) = app.filter(|app| !app.services.contains_key(service)) {
            let known: Vec<&str> = app.services.keys().map(String::as_str).collect();
            return Err(Failure::new(Kind::NotFound, format!("no service {service} in {}", app.name))
                .hint(format!("it has: {}", known.join(", "))));
        }
        if counts.insert(service.to_owned(), count).is_some() {
            return Err(Failure::new(Kind::Input, format!("{service} is given two counts"))
                .hint("name each service once"));
        }
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
        assert!(parse_scale(&texts(&[&format!("web={MAX_REPLICAS}")]), None).is_ok());
        assert_eq!(parse_scale(&texts(&["web=1", "web=1"]), None).expect_err("twice").kind, Kind::Input);
        for wrong in ["web", "web=", "web=-1", "web=x", "web=1.5", &format!("web={}", MAX_REPLICAS + 1)] {
            assert_eq!(parse_scale(&texts(&[wrong]), None).expect_err(wrong).kind, Kind::Input);
        }
        let app = App { name: "shop".into(), ..App::default() };
        assert_eq!(parse_scale(&texts(&["web=1"]), Some(&app)).expect_err("unknown").kind, Kind::NotFound);
    }
}
