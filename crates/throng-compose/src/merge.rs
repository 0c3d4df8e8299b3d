//! Several files become one tree, by the merge rules of the Compose specification.
//!
//! First each tree is brought into the form in which merging is defined: a list of `NAME=value` becomes a mapping,
//! a short `build` the long one. Then mappings merge key by key, lists are joined, commands are replaced, and the tags
//! `!reset` and `!override` remove or replace what the files before said. Entries of `ports` and `volumes` that stand
//! for the same thing are sorted out by whoever reads them, because only then it is known what they stand for.

use crate::yaml::{Entry, Findings, Node, Position, Value};
use std::collections::HashMap;

/// Tags of a value that takes away what was said before, and of one that replaces it.
const RESET: &str = "!reset";
const OVERRIDE: &str = "!override";

/// Keys of a service whose list form means a mapping of `NAME=value`.
const VARIABLE_LISTS: [&str; 4] = ["annotations", "environment", "labels", "sysctls"];
/// Keys of a service whose list form means a mapping of names without values.
const NAME_LISTS: [&str; 2] = ["depends_on", "networks"];
/// Keys of a service that may be a single value where a list is meant.
const SINGLE_OR_LIST: [&str; 6] = ["dns", "dns_opt", "dns_search", "env_file", "label_file", "tmpfs"];
/// Sections of the top level whose members have `labels`.
const LABELLED: [&str; 4] = ["networks", "volumes", "secrets", "configs"];

/// Brings one file into the form that [`merge`] works on.
pub fn normalise(root: &mut Node, findings: &mut Findings) {
    let Value::Map(top) = &mut root.value else { return };
    for section in top {
        let Value::Map(members) = &mut section.value.value else { continue };
        for member in members {
            if section.key == "services" {
                let Value::Map(keys) = &mut member.value.value else { continue };
                keys.iter_mut().for_each(|entry| normalise_key(entry, findings));
            } else if LABELLED.contains(&section.key.as_str())
                && let Some(labels) = member.value.get_mut("labels")
            {
                list_to_map(labels, true, findings);
            }
        }
    }
}

fn normalise_key(entry: &mut Entry, findings: &mut Findings) {
    let key = entry.key.as_str();
    let node = &mut entry.value;
    if VARIABLE_LISTS.contains(&key) {
        list_to_map(node, true, findings);
    } else if NAME_LISTS.contains(&key) {
        list_to_map(node, false, findings);
    } else if SINGLE_OR_LIST.contains(&key) && matches!(node.value, Value::Scalar(_)) {
        let single = Node::new(node.position.clone(), std::mem::replace(&mut node.value, Value::Null));
        node.value = Value::List(vec![single]);
    } else if key == "build" {
        only_key("context", node);
        for key in ["args", "labels", "additional_contexts"] {
            if let Some(variables) = node.get_mut(key) {
                list_to_map(variables, true, findings);
            }
        }
        if let Some(hosts) = node.get_mut("extra_hosts") {
            hosts_to_map(hosts, findings);
        }
    } else if key == "extends" {
        only_key("service", node);
    } else if key == "extra_hosts" {
        hosts_to_map(node, findings);
    } else if key == "deploy"
        && let Some(labels) = node.get_mut("labels")
    {
        list_to_map(labels, true, findings);
    }
}

/// A single value becomes a mapping with this key alone.
fn only_key(key: &str, node: &mut Node) {
    if matches!(node.value, Value::Scalar(_)) {
        let at = node.position.clone();
        let value = Node::new(at.clone(), std::mem::replace(&mut node.value, Value::Null));
        node.value = Value::Map(vec![Entry { key: key.into(), key_at: at, value }]);
    }
}

/// `[a=1.2.3.4, b:1.2.3.4]` and `{a: 1.2.3.4}` become `{a: [1.2.3.4]}`: addresses of one name add up.
fn hosts_to_map(node: &mut Node, findings: &mut Findings) {
    let mut hosts: Vec<Entry> = Vec::new();
    let mut index_of: HashMap<String, usize> = HashMap::new();
    let mut add = |key: String, key_at: Position, addresses: Vec<Node>| match index_of.get(&key) {
        Some(index) => {
            if let Value::List(known) = &mut hosts[*index].value.value {
                known.extend(addresses);
            }
        }
        None => {
            index_of.insert(key.clone(), hosts.len());
            let value = Node::new(key_at.clone(), Value::List(addresses));
            hosts.push(Entry { key, key_at, value });
        }
    };
    match std::mem::replace(&mut node.value, Value::Null) {
        Value::List(items) => {
            for mut item in items {
                let Value::Scalar(scalar) = &mut item.value else {
                    item.mismatch("NAME=ADDRESS", findings);
                    continue;
                };
                let Some((name, address)) = scalar.text.split_once(['=', ':']) else {
                    item.mismatch("NAME=ADDRESS", findings);
                    continue;
                };
                let (name, address) = (name.trim().to_owned(), address.trim().to_owned());
                scalar.text = address;
                add(name, item.position.clone(), vec![item]);
            }
        }
        Value::Map(entries) => {
            for entry in entries {
                let addresses = match entry.value.value {
                    Value::List(items) => items,
                    _ => vec![entry.value],
                };
                add(entry.key, entry.key_at, addresses);
            }
        }
        // Whoever reads it says what is wrong with it.
        other => {
            node.value = other;
            return;
        }
    }
    node.value = Value::Map(hosts);
}

/// `[A=1, B]` becomes `{A: 1, B: null}`; of equal names the last one counts.
pub fn list_to_map(node: &mut Node, variables: bool, findings: &mut Findings) {
    let Value::List(items) = &mut node.value else { return };
    let (what, hint) = match variables {
        true => ("NAME=value", "write NAME=value; quote it if that is the name"),
        false => ("a name", "quote it if that is the name"),
    };
    let mut entries: Vec<Entry> = Vec::new();
    let mut index_of: HashMap<String, usize> = HashMap::new();
    for mut item in std::mem::take(items) {
        // Elements are texts, says the specification's schema, and `- 8080` is none.
        if let Value::Scalar(scalar) = &item.value
            && !scalar.is_text()
        {
            let message = format!("expected {what}, found {} ({})", item.kind(), scalar.text);
            findings.error_with_hint(&item.position, message, hint);
            continue;
        }
        let Value::Scalar(scalar) = &mut item.value else {
            item.mismatch(what, findings);
            continue;
        };
        let text = std::mem::take(&mut scalar.text);
        let (key, value) = match text.split_once('=').filter(|_| variables) {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (text, None),
        };
        scalar.plain = false;
        let key_at = item.position.clone();
        item.value = match value {
            Some(text) => Value::Scalar(crate::yaml::Scalar { text, plain: false }),
            None => Value::Null,
        };
        let entry = Entry { key: key.clone(), key_at, value: item };
        match index_of.get(&key) {
            Some(index) => entries[*index] = entry,
            None => {
                index_of.insert(key, entries.len());
                entries.push(entry);
            }
        }
    }
    node.value = Value::Map(entries);
}

/// What `over` says about `base`. Both have been normalised.
pub fn merge(base: &mut Node, over: Node, findings: &mut Findings) {
    Merger { keeps_tags: false, path: Vec::new(), findings }.merge(base, over);
}

/// What the service `over` says about the one it extends. The tags stay for when the file is merged with others: what
/// a service takes away from the one that it extends it takes away from earlier files as well.
pub fn extend(base: &mut Node, over: Node, findings: &mut Findings) {
    let path = vec!["services".to_owned(), "*".to_owned()];
    Merger { keeps_tags: true, path, findings }.merge(base, over);
}

struct Merger<'a> {
    keeps_tags: bool,
    path: Vec<String>,
    findings: &'a mut Findings,
}

impl Merger<'_> {
    fn merge(&mut self, base: &mut Node, over: Node) {
        if over.tag.as_deref() == Some(OVERRIDE) {
            *base = self.taken(over);
            return;
        }
        if self.replaces_logging(base, &over) {
            *base = self.taken(over);
            return;
        }
        match (&mut base.value, over.value) {
            (Value::Map(entries), Value::Map(more)) => {
                let mut index_of =
                    entries.iter().enumerate().map(|(at, old)| (old.key.clone(), at)).collect();
                for entry in more {
                    self.merge_entry(entries, &mut index_of, entry);
                }
                if !self.keeps_tags {
                    entries.retain(|entry| entry.value.tag.as_deref() != Some(RESET));
                }
            }
            (Value::List(items), Value::List(more)) if !is_replaced(&self.path) => {
                items.extend(more.into_iter().map(|item| self.taken(item)));
            }
            // A key without a value in a later file says nothing about a mapping or list.
            (Value::Map(_) | Value::List(_), Value::Null) if !is_replaced(&self.path) => {}
            (_, value) => *base = self.taken(Node { value, ..over }),
        }
    }

    fn merge_entry(&mut self, entries: &mut Vec<Entry>, index_of: &mut HashMap<String, usize>, entry: Entry) {
        let known = index_of.get(&entry.key).copied();
        let is_reset = entry.value.tag.as_deref() == Some(RESET);
        match known {
            // Taken out at the end of the mapping, so that the other indices stay true until then.
            Some(index) if is_reset => entries[index] = entry,
            Some(index) => {
                self.path.push(entry.key);
                self.merge(&mut entries[index].value, entry.value);
                // Findings about the whole point at the file that had the last word.
                entries[index].key_at = entry.key_at;
                self.path.pop();
            }
            None if is_reset && !self.keeps_tags => {}
            None => {
                let value = self.taken(entry.value);
                index_of.insert(entry.key.clone(), entries.len());
                entries.push(Entry { value, ..entry });
            }
        }
    }

    fn taken(&mut self, node: Node) -> Node {
        if self.keeps_tags { node } else { without_tags(node, self.findings) }
    }

    /// The options of one logging driver mean nothing to another.
    fn replaces_logging(&self, base: &Node, over: &Node) -> bool {
        let driver = |node: &Node| node.get("driver").and_then(Node::scalar).map(str::to_owned);
        let is_logging = self.path.len() == 3 && self.path[0] == "services" && self.path[2] == "logging";
        is_logging && driver(over).is_some() && driver(base) != driver(over)
    }
}

/// Commands are replaced, never joined: half of one command with half of another is none.
fn is_replaced(path: &[String]) -> bool {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    matches!(path[..], ["services", _, "command" | "entrypoint"] | ["services", _, "healthcheck", "test"])
}

/// Applies `!reset` and `!override` below a node that replaces nothing, and warns about other tags.
fn without_tags(mut node: Node, findings: &mut Findings) -> Node {
    match node.tag.take().as_deref() {
        None | Some(OVERRIDE | RESET) => {}
        Some(tag) => findings.warn_with_hint(
            &node.position,
            format!("the tag {tag} has no meaning here"),
            "Compose knows !reset and !override",
        ),
    }
    match &mut node.value {
        Value::Null | Value::Scalar(_) => {}
        Value::List(items) => {
            *items = std::mem::take(items)
                .into_iter()
                .filter(|item| item.tag.as_deref() != Some(RESET))
                .map(|item| without_tags(item, findings))
                .collect();
        }
        Value::Map(entries) => {
            *entries = std::mem::take(entries)
                .into_iter()
                .filter(|entry| entry.value.tag.as_deref() != Some(RESET))
                .map(|entry| Entry { value: without_tags(entry.value, findings), ..entry })
                .collect();
        }
    }
    node
}
