//! Experiment files: what they may say, read and checked before anything starts.
//!
//! [`parse`] checks a file against the app it is about: services exist, ports are there, thresholds can be read,
//! variables are known. What comes out can be carried out without further questions; what cannot is an error at its
//! line and column. The keys are those of [`crate::schema`]; `docs/experiment.md` explains them.

mod fault;
mod load;
mod require;
mod stage;

pub use fault::Fault;
pub use require::{Requirement, STEADY};

use crate::schema::{self, Group, MAX_STAGES};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use throng_compose::interpolate::expand_tree;
use throng_compose::yaml::{self, Entry, Fields, Findings, Node, Position, Value, nearest};
use throng_load::{ImageSpec, Schedule, SuccessRule};
use throng_model::app::App;
use throng_model::diagnostic::{Diagnostic, Location};

/// A whole experiment with its variables filled in.
#[derive(Debug, Clone, PartialEq)]
pub struct Experiment {
    pub title: String,
    pub description: String,
    /// The values that were used: the file's defaults, changed by what the command line set.
    pub variables: BTreeMap<String, String>,
    pub stages: Vec<StageSpec>,
    /// How often a load is carried out unless its stage says otherwise; it is in each stage's `repeat` already.
    pub repetitions: u32,
}

#[derive(Debug, Clone, PartialEq)]
pub struct StageSpec {
    /// Unique among the stages.
    pub name: String,
    pub location: Location,
    /// One sentence for the reader.
    pub explain: Option<String>,
    pub action: Action,
    /// What must hold as written, each one that [`Requirement`] can read. Loads and faults have some.
    pub require: Vec<(String, Location)>,
    /// How often a load is carried out; 1 for other actions.
    pub repeat: u32,
    /// What happens while a load runs, by the time after its begin.
    pub during: Vec<(Duration, Fault)>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Start the app as the Compose file says and wait until it is ready.
    Up,
    Scale {
        service: String,
        replicas: u32,
    },
    Load(Box<LoadAction>),
    Wait {
        until: WaitFor,
        timeout: Duration,
    },
    Pause {
        duration: Duration,
    },
    Fault(Fault),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WaitFor {
    /// At least this many replicas of the service are ready.
    Ready { service: String, replicas: u32 },
    /// A GET is answered: with this status, or with any from 200 to 399.
    Answer { url: String, status: Option<u16> },
    /// A line of the service's output contains the text.
    Log { service: String, text: String },
}

/// A load. Either `service` with `port`, or `url`, says where it goes.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadAction {
    pub service: Option<String>,
    /// The port inside the replicas; always there with a service.
    pub port: Option<u16>,
    /// `http://…` or `https://…`.
    pub url: Option<String>,
    /// Path and query, beginning with `/`; only with a service.
    pub path: String,
    pub method: String,
    pub headers: Vec<(String, String)>,
    pub body: Option<String>,
    pub image: Option<ImageSpec>,
    /// The form field that carries the picture; `None` sends it as the body.
    pub field: Option<String>,
    pub schedule: Schedule,
    /// The same load for this long beforehand, not measured.
    pub warmup: Duration,
    /// Of one request.
    pub timeout: Duration,
    pub follow_redirects: u8,
    pub success: SuccessRule,
    pub http2: bool,
}

/// Reads an experiment about `app`; `set` holds what the command line gives for variables.
///
/// The second part of a good result are warnings.
///
/// # Errors
/// Every finding of the file, if at least one is an error.
pub fn parse(
    path: &Path,
    text: &str,
    app: &App,
    set: &BTreeMap<String, String>,
) -> Result<(Experiment, Vec<Diagnostic>), Vec<Diagnostic>> {
    let file: Arc<Path> = path.into();
    let mut root = yaml::parse(&file, text).map_err(|e| vec![e])?;
    let mut findings = Findings::default();
    let experiment = read(&mut root, &file, app, set, &mut findings);
    match experiment {
        Some(experiment) if !findings.has_errors() => Ok((experiment, findings.into_vec())),
        _ => Err(findings.into_vec()),
    }
}

fn read(
    root: &mut Node,
    file: &Arc<Path>,
    app: &App,
    set: &BTreeMap<String, String>,
    findings: &mut Findings,
) -> Option<Experiment> {
    if root.is_null() {
        let hint = "an experiment has at least \"stages\"";
        findings.error_with_hint(&Position::start_of(file), "the file is empty", hint);
        return None;
    }
    let variables = variables(root, set, findings);
    fill_in(root, &variables, findings);
    if findings.has_errors() {
        // A value with a hole in it would only bring up further findings that are no faults of their own.
        return None;
    }
    let mut keys = Keys::open(&schema::EXPERIMENT, root, findings)?;
    keys.take("variables");
    let mut text =
        |key, findings: &mut Findings| keys.take(key).and_then(|node| node.text(findings)).map(str::to_owned);
    let title = text("title", findings).unwrap_or_else(|| format!("An experiment with {}", app.name));
    let description = text("description", findings).unwrap_or_default();
    let repetitions = keys.count("repetitions", findings).unwrap_or(1);
    let stages = keys.take("stages");
    keys.close(findings);
    let Some(stages) = stages else {
        let hint = "add a list of stages: up, scale, load, wait, pause or a fault";
        findings.error_with_hint(&root.position, "the experiment has no stages", hint);
        return None;
    };
    let items = stages.list(findings)?;
    if items.is_empty() || items.len() > MAX_STAGES {
        let message = format!("an experiment has 1 to {MAX_STAGES} stages, this one has {}", items.len());
        findings.error(&stages.position, message);
        return None;
    }
    let stages = stage::read_all(items, app, repetitions, findings);
    Some(Experiment { title, description, variables, stages, repetitions })
}

/// The variables of the file with what the command line set.
fn variables(
    root: &Node,
    set: &BTreeMap<String, String>,
    findings: &mut Findings,
) -> BTreeMap<String, String> {
    let node = root.get("variables").filter(|node| !node.is_null());
    let mut variables = node.and_then(|node| node.text_map(findings)).unwrap_or_default();
    if let Some(Value::Map(entries)) = node.map(|node| &node.value) {
        for Entry { key, key_at, .. } in entries {
            let start = key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
            if !start || !key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
                let hint = "use letters, digits and _, and do not begin with a digit";
                findings.error_with_hint(key_at, format!("{key:?} is not a name of a variable"), hint);
            }
        }
    }
    for (name, value) in set {
        match variables.get_mut(name) {
            Some(old) => old.clone_from(value),
            None => {
                let message = format!("--set {name}={value}: the experiment has no variable {name:?}");
                findings.push(Diagnostic::error(message).hint(known(&variables)));
            }
        }
    }
    variables
}

fn known(variables: &BTreeMap<String, String>) -> String {
    let names: Vec<&str> = variables.keys().map(String::as_str).collect();
    if names.is_empty() { "it has none".into() } else { format!("it has {}", names.join(", ")) }
}

/// Replaces `${name}` everywhere but in the defaults themselves, and warns about variables that nothing uses.
fn fill_in(root: &mut Node, variables: &BTreeMap<String, String>, findings: &mut Findings) {
    let used = std::cell::RefCell::new(BTreeSet::new());
    let lookup = |name: &str| {
        used.borrow_mut().insert(name.to_owned());
        variables.get(name).cloned()
    };
    let unset = |at: &Position, name: &str, findings: &mut Findings| {
        let hint = match nearest(name, variables.keys().map(String::as_str)) {
            Some(near) => format!("did you mean {near:?}?"),
            None => format!("add it under variables, or write $$ for a dollar sign; {}", known(variables)),
        };
        findings.error_with_hint(at, format!("unknown variable {name:?}"), hint);
    };
    let Value::Map(entries) = &mut root.value else { return };
    for entry in entries.iter_mut().filter(|entry| entry.key != "variables") {
        expand_tree(&mut entry.value, &lookup, &unset, findings);
    }
    let used = used.into_inner();
    for entry in entries.iter().filter(|entry| entry.key == "variables") {
        let Value::Map(declared) = &entry.value.value else { continue };
        for entry in declared.iter().filter(|entry| !used.contains(&entry.key)) {
            findings.warn(&entry.key_at, format!("the variable {:?} is never used", entry.key));
        }
    }
}

/// A mapping of the file that is read by one group of the schema.
struct Keys<'a> {
    group: &'static Group,
    node: &'a Node,
    fields: Fields<'a>,
}

impl<'a> Keys<'a> {
    fn open(group: &'static Group, node: &'a Node, findings: &mut Findings) -> Option<Self> {
        Some(Keys { group, node, fields: Fields::of(node, findings)? })
    }

    fn take(&mut self, key: &'static str) -> Option<&'a Node> {
        debug_assert!(self.group.names().any(|name| name == key), "{key} is no key of {}", self.group.title);
        self.fields.take(key)
    }

    /// A text that is not empty.
    fn text(&mut self, key: &'static str, findings: &mut Findings) -> Option<&'a str> {
        self.take(key)?.nonempty(findings)
    }

    fn duration(&mut self, key: &'static str, findings: &mut Findings) -> Option<Duration> {
        self.take(key)?.duration(findings)
    }

    /// A whole number in the range that the schema gives for the key.
    fn count<T: TryFrom<u64>>(&mut self, key: &'static str, findings: &mut Findings) -> Option<T> {
        let node = self.take(key)?;
        let kind = self.group.fields.iter().find(|field| field.name == key).map(|field| &field.kind);
        let Some(schema::Kind::Count(least, most)) = kind else { return None };
        let what = format!("a whole number from {least} to {most}");
        let number: u64 = node.number(&what, findings)?;
        if !(*least..=*most).contains(&number) {
            node.mismatch(&what, findings);
            return None;
        }
        T::try_from(number).ok()
    }

    /// Refuses every key that was not taken.
    fn close(self, findings: &mut Findings) {
        for entry in self.fields.rest().into_iter().filter(|entry| !entry.key.starts_with("x-")) {
            if self.group.names().any(|name| name == entry.key) {
                // Present without a value, or told about already.
                continue;
            }
            let hint = match nearest(&entry.key, self.group.names()) {
                Some(near) => format!("did you mean {near:?}?"),
                None => format!("there are {}", self.group.names().collect::<Vec<_>>().join(", ")),
            };
            let message = format!("unknown key {:?} of {}", entry.key, self.group.title);
            findings.error_with_hint(&entry.key_at, message, hint);
        }
    }

    /// The place of a key, whether or not it has been taken.
    fn at(&self, key: &str) -> &'a Position {
        match &self.node.value {
            Value::Map(entries) => entries
                .iter()
                .find(|entry| entry.key == key)
                .map_or(&self.node.position, |entry| &entry.key_at),
            _ => &self.node.position,
        }
    }
}
