//! YAML in which every value knows where it stands in its file.
//!
//! [`parse`] turns text into a tree of [`Node`]s: anchors and aliases are expanded, merge keys (`<<`) are applied,
//! duplicate keys are errors. The accessors of [`Node`] read a value as the type that is wanted and add a finding
//! such as `expected a number, found a list` at its place when it is something else.
//!
//! Scalars keep their text: whether `8080` is a number or a text is decided by who reads it, not by the parser, so
//! quoting never changes what a port or a size means. Only an unquoted `null`, `~` or nothing is no value.
//!
//! Limits: [`MAX_FILE_BYTES`], [`MAX_DEPTH`], [`MAX_NODES`] (after expansion of aliases), [`MAX_FINDINGS`].

mod links;
mod numbers;
mod parse;
mod syntax;
pub mod values;

pub use parse::parse;

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use throng_model::diagnostic::{Diagnostic, Location, Severity};
use throng_model::units;

/// Largest file that is read, in bytes.
pub const MAX_FILE_BYTES: u64 = 4 << 20;
/// Deepest nesting of lists and mappings.
pub const MAX_DEPTH: usize = 64;
/// Most nodes of one file, counted after every alias is replaced by what it stands for.
pub const MAX_NODES: usize = 200_000;
/// Most findings that are kept; one more says that there were others.
pub const MAX_FINDINGS: usize = 100;

/// A place in a file, cheap to copy into every node. Lines and columns count characters from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    pub file: Arc<Path>,
    pub line: usize,
    pub column: usize,
    pub length: usize,
}

impl Position {
    /// The first character of a file, for findings about the file as a whole.
    pub fn start_of(file: &Arc<Path>) -> Self {
        Position { file: file.clone(), line: 1, column: 1, length: 1 }
    }

    pub fn location(&self) -> Location {
        Location {
            file: self.file.to_path_buf(),
            line: self.line,
            column: self.column,
            length: self.length.max(1),
        }
    }
}

/// A value and its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub position: Position,
    /// A tag that is not one of YAML's own, with its exclamation mark: `!reset`.
    pub tag: Option<String>,
    pub value: Value,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scalar {
    pub text: String,
    /// Written without quotes, so that messages can call `8080` a number and `true` a boolean.
    pub plain: bool,
}

/// One `key: value` of a mapping. Keys of a mapping are unique.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    pub key: String,
    pub key_at: Position,
    pub value: Node,
}

/// Findings, at most [`MAX_FINDINGS`] of each severity.
#[derive(Debug, Default)]
pub struct Findings {
    list: Vec<Diagnostic>,
    errors: usize,
    warnings: usize,
}

impl Findings {
    pub fn push(&mut self, finding: Diagnostic) {
        let count = match finding.severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        *count += 1;
        if *count <= MAX_FINDINGS {
            self.list.push(finding);
        } else if *count == MAX_FINDINGS + 1 {
            let message = format!("more than {MAX_FINDINGS} findings of this kind; the others are not shown");
            self.list.push(Diagnostic { location: None, hint: None, message, ..finding });
        }
    }

    pub fn error(&mut self, at: &Position, message: impl Into<String>) {
        self.push(Diagnostic::error(message).at(at.location()));
    }

    pub fn error_with_hint(&mut self, at: &Position, message: impl Into<String>, hint: impl Into<String>) {
        self.push(Diagnostic::error(message).at(at.location()).hint(hint));
    }

    pub fn warn(&mut self, at: &Position, message: impl Into<String>) {
        self.push(Diagnostic::warning(message).at(at.location()));
    }

    pub fn warn_with_hint(&mut self, at: &Position, message: impl Into<String>, hint: impl Into<String>) {
        self.push(Diagnostic::warning(message).at(at.location()).hint(hint));
    }

    /// Whether a further error would not be kept, so that the work of explaining it can be saved.
    pub fn is_full(&self) -> bool {
        self.errors >= MAX_FINDINGS
    }

    pub fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// All findings, those about one file in the order of its lines.
    pub fn into_vec(mut self) -> Vec<Diagnostic> {
        self.list.sort_by(|a, b| {
            let key = |finding: &Diagnostic| {
                let place = finding.location.as_ref().map(|at| (at.file.clone(), at.line, at.column));
                (place.is_none(), place)
            };
            key(a).cmp(&key(b))
        });
        self.list
    }
}

/// Reads a text file of at most [`MAX_FILE_BYTES`].
///
/// # Errors
/// It cannot be read, is larger, or is not UTF-8; the message names it.
pub fn read_file(path: &Path) -> Result<String, Diagnostic> {
    let name = path.display();
    let at = |line: usize, column: usize| Location { file: path.to_owned(), line, column, length: 1 };
    let cannot = |e: std::io::Error| Diagnostic::error(format!("cannot read {name}: {e}"));
    let file = std::fs::File::open(path).map_err(cannot)?;
    let metadata = file.metadata().map_err(cannot)?;
    if metadata.is_dir() {
        let error = Diagnostic::error(format!("{name} is a folder, not a file"));
        return Err(error.at(at(1, 1)).hint("name a file in it"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        let limit = units::format_bytes(MAX_FILE_BYTES);
        return Err(Diagnostic::error(format!("{name} is larger than {limit}, the most that is read"))
            .at(at(1, 1))
            .hint("split it into several files"));
    }
    String::from_utf8(bytes).map_err(|e| {
        let before = String::from_utf8_lossy(&e.as_bytes()[..e.utf8_error().valid_up_to()]);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Diagnostic::error(format!(
            "{name} is not UTF-8 text: line {line} has a byte that no character starts with"
        ))
        .at(at(line, column))
        .hint("save it as UTF-8")
    })
}

impl Node {
    /// A node that was not written as such but stands for something at `position`.
    pub fn new(position: Position, value: Value) -> Self {
        Node { position, tag: None, value }
    }

    pub fn is_null(&self) -> bool {
        self.value == Value::Null
    }

    /// What a person would call this value, with its article.
    pub fn kind(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
            Value::Scalar(scalar) if scalar.is_text() => "a text",
            Value::Scalar(scalar) if scalar.text.eq_ignore_ascii_case("true") => "a boolean",
            Value::Scalar(scalar) if scalar.text.eq_ignore_ascii_case("false") => "a boolean",
            Value::Scalar(_) => "a number",
        }
    }

    /// Adds `expected …, found …` at this node.
    pub fn mismatch(&self, expected: &str, findings: &mut Findings) {
        let found = match &self.value {
            Value::Scalar(scalar) if scalar.text.chars().count() <= 40 => format!("{:?}", scalar.text),
            _ => self.kind().to_owned(),
        };
        findings.error(&self.position, format!("expected {expected}, found {found}"));
    }

    /// The text of a scalar, without a finding when it is something else.
    pub fn scalar(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(scalar) => Some(&scalar.text),
            _ => None,
        }
    }

    pub fn text(&self, findings: &mut Findings) -> Option<&str> {
        let text = self.scalar();
        if text.is_none() {
            self.mismatch("a text", findings);
        }
        text
    }

    /// What Compose makes of a value that is to be a text: a number is written anew, which is said if it shows.
    pub fn as_text(&self, findings: &mut Findings) -> Option<String> {
        let text = self.text(findings)?;
        let Value::Scalar(scalar) = &self.value else { return None };
        let Some(read) = scalar.as_read() else { return Some(text.to_owned()) };
        let message = format!("YAML reads {text} as {}, which becomes the text {read}", self.kind());
        findings.warn_with_hint(&self.position, message, "quote it to keep it as it is written");
        Some(read)
    }

    /// A text that has at least one character other than white space.
    pub fn nonempty(&self, findings: &mut Findings) -> Option<&str> {
        let text = self.text(findings)?;
        if text.trim().is_empty() {
            findings.error(&self.position, "expected a text, found an empty one");
            return None;
        }
        Some(text)
    }

    pub fn list(&self, findings: &mut Findings) -> Option<&[Node]> {
        match &self.value {
            Value::List(items) => Some(items),
            _ => {
                self.mismatch("a list", findings);
                None
            }
        }
    }

    pub fn map(&self, findings: &mut Findings) -> Option<&[Entry]> {
        match &self.value {
            Value::Map(entries) => Some(entries),
            _ => {
                self.mismatch("a mapping", findings);
                None
            }
        }
    }

    /// The value of a key of a mapping; `None` also when this is no mapping.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value),
            _ => None,
        }
    }

    /// As [`Node::get`], to be changed.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        match &mut self.value {
            Value::Map(entries) => {
                entries.iter_mut().find(|entry| entry.key == key).map(|entry| &mut entry.value)
            }
            _ => None,
        }
    }

    /// Takes a key out of a mapping.
    pub fn remove(&mut self, key: &str) -> Option<Entry> {
        match &mut self.value {
            Value::Map(entries) => {
                let index = entries.iter().position(|entry| entry.key == key)?;
                Some(entries.remove(index))
            }
            _ => None,
        }
    }

    /// Nodes from here on down, this one included. A tree from a file is at most [`MAX_DEPTH`] deep.
    pub fn count(&self) -> usize {
        match &self.value {
            Value::Null | Value::Scalar(_) => 1,
            Value::List(items) => 1 + items.iter().map(Node::count).sum::<usize>(),
            Value::Map(entries) => 1 + entries.iter().map(|entry| entry.value.count()).sum::<usize>(),
        }
    }

    /// Whether both say the same, wherever they stand. Nothing and an empty mapping do.
    pub fn says_the_same(&self, other: &Node) -> bool {
        match (&self.value, &other.value) {
            (Value::Map(a), Value::Null) | (Value::Null, Value::Map(a)) => a.is_empty(),
            (Value::Map(a), Value::Map(b)) => {
                let theirs: HashMap<&str, &Node> =
                    b.iter().map(|entry| (entry.key.as_str(), &entry.value)).collect();
                let same = |entry: &Entry| {
                    theirs.get(entry.key.as_str()).is_some_and(|value| entry.value.says_the_same(value))
                };
                a.len() == b.len() && a.iter().all(same)
            }
            (Value::List(a), Value::List(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.says_the_same(b))
            }
            (Value::Scalar(a), Value::Scalar(b)) => a.text == b.text,
            (Value::Null, Value::Null) => true,
            _ => false,
        }
    }

    /// A list of texts.
    pub fn texts(&self, findings: &mut Findings) -> Option<Vec<String>> {
        let items = self.list(findings)?;
        items.iter().map(|item| item.text(findings).map(str::to_owned)).collect()
    }

    /// `what` names the number with its bounds: `a whole number of replicas, 0 or more`.
    pub fn number<T: FromStr>(&self, what: &str, findings: &mut Findings) -> Option<T> {
        let number = self.scalar().and_then(|text| text.trim().parse().ok());
        if number.is_none() {
            self.mismatch(what, findings);
        }
        number
    }

    pub fn boolean(&self, findings: &mut Findings) -> Option<bool> {
        match self.scalar().map(|text| text.trim().to_ascii_lowercase()).as_deref() {
            Some("true" | "yes" | "on" | "y" | "1") => Some(true),
            Some("false" | "no" | "off" | "n" | "0") => Some(false),
            _ => {
                self.mismatch("true or false", findings);
                None
            }
        }
    }

    /// `1m30s`, `200ms`; see [`units::parse_duration`].
    pub fn duration(&self, findings: &mut Findings) -> Option<Duration> {
        self.unit(units::parse_duration, "a duration such as 1m30s", findings)
    }

    /// `64m`, `1.5gb`; see [`units::parse_bytes`].
    pub fn bytes(&self, findings: &mut Findings) -> Option<u64> {
        self.unit(units::parse_bytes, "a size such as 64m", findings)
    }

    fn unit<T>(
        &self,
        parse: fn(&str) -> Result<T, units::UnitError>,
        what: &str,
        findings: &mut Findings,
    ) -> Option<T> {
        let Some(text) = self.scalar() else {
            self.mismatch(what, findings);
            return None;
        };
        parse(text).map_err(|e| findings.error(&self.position, e.to_string())).ok()
    }

    /// One of the given words.
    pub fn choice<T: Copy>(&self, words: &[(&str, T)], findings: &mut Findings) -> Option<T> {
        let found = self.scalar().and_then(|text| words.iter().find(|(word, _)| *word == text));
        if found.is_none() {
            let list: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.mismatch(&format!("one of {}", list.join(", ")), findings);
        }
        found.map(|(_, value)| *value)
    }

    /// A mapping of texts ([`Node::as_text`]); nothing counts as an empty text.
    pub fn text_map(&self, findings: &mut Findings) -> Option<BTreeMap<String, String>> {
        let mut map = BTreeMap::new();
        for entry in self.map(findings)? {
            let text = if entry.value.is_null() { None } else { entry.value.as_text(findings) };
            map.insert(entry.key.clone(), text.unwrap_or_default());
        }
        Some(map)
    }
}

/// The candidate that a mistyped word most likely means, if one is near enough to be worth suggesting.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Longer words are not typing errors of a key; the bound keeps the quadratic comparison small.
    const LONGEST: usize = 64;
    const MOST: usize = 2_000;
    if word.len() > LONGEST {
        return None;
    }
    let lower = word.to_lowercase();
    candidates
        .into_iter()
        .take(MOST)
        .map(|candidate| (strsim::damerau_levenshtein(&lower, candidate), candidate))
        .filter(|(distance, candidate)| {
            let shorter = candidate.chars().count().min(word.chars().count());
            *distance < shorter && *distance <= 1 + shorter / 4
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// The parts of a mapping with known keys, taken one by one; what is left over is for the caller to complain about.
#[derive(Debug)]
pub struct Fields<'a> {
    rest: Vec<&'a Entry>,
}

impl<'a> Fields<'a> {
    /// `None`, with a finding, when `node` is not a mapping.
    pub fn of(node: &'a Node, findings: &mut Findings) -> Option<Self> {
        Some(Fields { rest: node.map(findings)?.iter().collect() })
    }

    /// Takes the entry out. A key without a value counts as absent.
    pub fn take(&mut self, key: &str) -> Option<&'a Node> {
        let index = self.rest.iter().position(|entry| entry.key == key)?;
        let entry = self.rest.swap_remove(index);
        (!entry.value.is_null()).then_some(&entry.value)
    }

    /// The entries that nobody took, in the order of the file.
    pub fn rest(mut self) -> Vec<&'a Entry> {
        self.rest.sort_by_key(|entry| (entry.key_at.line, entry.key_at.column));
        self.rest
    }
}
