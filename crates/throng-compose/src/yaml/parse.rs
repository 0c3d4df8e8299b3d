//! From the parser's events to the tree, with an explicit stack so that nesting cannot exhaust the program's own.

use super::syntax::{self, Bracket};
use super::{Entry, MAX_DEPTH, MAX_NODES, Node, Position, Scalar, Value};
use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span, Tag};
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use throng_model::diagnostic::Diagnostic;

/// Reads one YAML document. An empty text is a null node.
///
/// # Errors
/// The text is not YAML, holds several documents, repeats a key, uses a key that is not a scalar, refers to an
/// anchor from inside that anchor, or exceeds a limit of this module.
pub fn parse(file: &Arc<Path>, text: &str) -> Result<Node, Diagnostic> {
    let lines: Vec<&str> = text.lines().collect();
    let mut builder = Builder {
        file,
        lines,
        stack: Vec::new(),
        root: None,
        anchors: HashMap::new(),
        nodes: 0,
        documents: 0,
    };
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) = event.map_err(|error| builder.fault(&error))?;
        builder.event(event, span)?;
    }
    let empty = || Node::new(Position::start_of(file), Value::Null);
    Ok(builder.root.unwrap_or_else(empty))
}

/// A list or mapping that is still being read.
struct Open {
    node: Node,
    anchor: usize,
    /// Nodes of the file read before this one, to know how many it holds when it ends.
    nodes_before: usize,
    /// A mapping's key that waits for its value.
    key: Option<(String, Position)>,
    keys: HashSet<String>,
    /// Values of `<<`, applied when the mapping ends: its own keys win over them wherever they stand.
    merges: Vec<Node>,
}

struct Builder<'a> {
    file: &'a Arc<Path>,
    lines: Vec<&'a str>,
    stack: Vec<Open>,
    root: Option<Node>,
    /// Finished nodes by anchor, with the number of nodes in each.
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
    documents: usize,
}

impl Builder<'_> {
    /// What the parser cannot read.
    fn fault(&self, error: &ScanError) -> Diagnostic {
        // The parser's own bound, which it reaches before what is nested there can be counted.
        if error.info().contains("recursion limit") {
            let at = self.position_of(error.marker().line(), error.marker().col(), 1);
            let finding = Diagnostic::error(format!("nested more than {MAX_DEPTH} levels deep"));
            return finding.at(at.location()).hint("nothing in a Compose file is nested so deeply");
        }
        // Where a bracket stays open the parser finds out much later, at the end of the file say.
        if let Some(Bracket { line, column, closed_by }) = syntax::unclosed(&self.lines) {
            let at = self.position_of(line + 1, column, 1);
            return Diagnostic::error("not valid YAML: nothing closes this bracket")
                .at(at.location())
                .hint(format!("put a `{closed_by}` where it ends, or quote it if it is text"));
        }
        let marker = error.marker();
        let at = self.position_of(marker.line(), marker.col(), 1);
        let line = marker.line().checked_sub(1).and_then(|line| self.lines.get(line)).unwrap_or(&"");
        Diagnostic::error(format!("not valid YAML: {}", error.info()))
            .at(at.location())
            .hint(syntax::hint(error.info(), line))
    }

    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Diagnostic> {
        match event {
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 {
                    let at = self.position(&span);
                    return Err(Diagnostic::error("more than one YAML document in the file")
                        .at(at.location())
                        .hint("keep one document to a file; several files can be merged"));
                }
                Ok(())
            }
            Event::Scalar(text, style, anchor, tag) => {
                let nodes_before = self.nodes;
                let node = self.scalar(text.into_owned(), style, tag.as_deref(), &span);
                self.count(1, &node.position)?;
                self.finish(node, anchor, nodes_before)
            }
            Event::SequenceStart(anchor, tag) => {
                self.open(Value::List(Vec::new()), anchor, tag.as_deref(), &span)
            }
            Event::MappingStart(anchor, tag) => {
                self.open(Value::Map(Vec::new()), anchor, tag.as_deref(), &span)
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(anchor) => self.alias(anchor, &span),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    fn scalar(&self, text: String, style: ScalarStyle, tag: Option<&Tag>, span: &Span) -> Node {
        let is_text = tag.is_some_and(|tag| tag.is_yaml_core_schema() && tag.suffix == "str");
        let plain = style == ScalarStyle::Plain && !is_text;
        let null = plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
        let value = if null { Value::Null } else { Value::Scalar(Scalar { text, plain }) };
        Node { position: self.position(span), tag: custom_tag(tag), value }
    }

    fn open(
        &mut self,
        value: Value,
        anchor: usize,
        tag: Option<&Tag>,
        span: &Span,
    ) -> Result<(), Diagnostic> {
        let position = self.position(span);
        if self.stack.len() >= MAX_DEPTH {
            return Err(Diagnostic::error(format!("nested more than {MAX_DEPTH} levels deep"))
                .at(position.location()));
        }
        let nodes_before = self.nodes;
        self.count(1, &position)?;
        let node = Node { position, tag: custom_tag(tag), value };
        self.stack.push(Open {
            node,
            anchor,
            nodes_before,
            key: None,
            keys: HashSet::new(),
            merges: Vec::new(),
        });
        Ok(())
    }

    fn close(&mut self) -> Result<(), Diagnostic> {
        let Some(mut open) = self.stack.pop() else { return Ok(()) };
        if let Value::Map(entries) = &mut open.node.value {
            for merge in open.merges {
                apply_merge(entries, &mut open.keys, merge)?;
            }
        }
        self.finish(open.node, open.anchor, open.nodes_before)
    }

    fn alias(&mut self, anchor: usize, span: &Span) -> Result<(), Diagnostic> {
        let at = self.position(span);
        let nodes_before = self.nodes;
        let Some((node, size)) = self.anchors.get(&anchor) else {
            return Err(Diagnostic::error("this alias stands inside the value it refers to")
                .at(at.location())
                .hint("a value cannot contain itself"));
        };
        let (size, depth) = (*size, self.stack.len() + depth(node));
        if depth > MAX_DEPTH {
            return Err(Diagnostic::error(format!("aliases nest more than {MAX_DEPTH} levels deep"))
                .at(at.location()));
        }
        // Counted before it is copied: a file of a few lines can stand for billions of nodes.
        self.count(size, &at)?;
        let node = match self.anchors.get(&anchor) {
            Some((node, _)) => node.clone(),
            None => return Ok(()),
        };
        self.finish(node, 0, nodes_before)
    }

    fn count(&mut self, more: usize, at: &Position) -> Result<(), Diagnostic> {
        self.nodes = self.nodes.saturating_add(more);
        if self.nodes > MAX_NODES {
            return Err(Diagnostic::error(format!(
                "more than {MAX_NODES} values once aliases are replaced by what they stand for"
            ))
            .at(at.location())
            .hint("split the file, or use fewer aliases of aliases"));
        }
        Ok(())
    }

    /// Hands a finished node to the list or mapping it belongs to.
    fn finish(&mut self, node: Node, anchor: usize, nodes_before: usize) -> Result<(), Diagnostic> {
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), self.nodes - nodes_before));
            // The copy kept for later aliases takes memory as well.
            self.count(self.nodes - nodes_before, &node.position)?;
        }
        let Some(open) = self.stack.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        let entries = match &mut open.node.value {
            Value::List(items) => {
                items.push(node);
                return Ok(());
            }
            Value::Map(entries) => entries,
            Value::Null | Value::Scalar(_) => return Ok(()),
        };
        let Some((key, key_at)) = open.key.take() else {
            open.key = Some(key_of(node)?);
            return Ok(());
        };
        if key == "<<" {
            open.merges.push(node);
            return Ok(());
        }
        if !open.keys.insert(key.clone()) {
            let first = entries.iter().find(|entry| entry.key == key).map(|entry| entry.key_at.line);
            let message = format!("the key {key:?} is given twice");
            let hint = format!("it is first given on line {}; keep one of them", first.unwrap_or(0));
            return Err(Diagnostic::error(message).at(key_at.location()).hint(hint));
        }
        let mut value = node;
        if value.is_null() {
            // Nothing has no place of its own; its key is what a person looks for.
            value.position = key_at.clone();
        }
        entries.push(Entry { key, key_at, value });
        Ok(())
    }

    fn position(&self, span: &Span) -> Position {
        let line = span.start.line();
        let length = if span.end.line() == line {
            span.end.col().saturating_sub(span.start.col())
        } else {
            let text = self.lines.get(line.saturating_sub(1)).copied().unwrap_or_default();
            text.trim_end().chars().count().saturating_sub(span.start.col())
        };
        self.position_of(line, span.start.col(), length)
    }

    fn position_of(&self, line: usize, column_from_zero: usize, length: usize) -> Position {
        // The end of the stream is reported one line behind the last one.
        let line = line.clamp(1, self.lines.len().max(1));
        Position { file: self.file.clone(), line, column: column_from_zero + 1, length: length.max(1) }
    }
}

fn custom_tag(tag: Option<&Tag>) -> Option<String> {
    tag.filter(|tag| !tag.is_yaml_core_schema()).map(ToString::to_string)
}

fn key_of(node: Node) -> Result<(String, Position), Diagnostic> {
    match node.value {
        Value::Scalar(scalar) => Ok((scalar.text, node.position)),
        Value::Null => Err(Diagnostic::error("expected a key, found nothing").at(node.position.location())),
        Value::List(_) | Value::Map(_) => {
            Err(Diagnostic::error(format!("expected a text as key, found {}", node.kind()))
                .at(node.position.location())
                .hint("quote a value that starts with [ or {"))
        }
    }
}

/// Adds the entries of a `<<` value (a mapping or a list of mappings) whose keys are not there yet.
fn apply_merge(entries: &mut Vec<Entry>, keys: &mut HashSet<String>, merge: Node) -> Result<(), Diagnostic> {
    let sources = match merge.value {
        Value::List(items) => items,
        _ => vec![merge],
    };
    for source in sources {
        match source.value {
            Value::Null => {}
            Value::Map(more) => {
                for entry in more {
                    if keys.insert(entry.key.clone()) {
                        entries.push(entry);
                    }
                }
            }
            _ => {
                return Err(Diagnostic::error(format!(
                    "expected a mapping to merge with <<, found {}",
                    source.kind()
                ))
                .at(source.position.location()));
            }
        }
    }
    Ok(())
}

fn depth(node: &Node) -> usize {
    // Recursion is bounded: a finished node is at most MAX_DEPTH deep.
    match &node.value {
        Value::Null | Value::Scalar(_) => 0,
        Value::List(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Map(entries) => 1 + entries.iter().map(|entry| depth(&entry.value)).max().unwrap_or(0),
    }
}
