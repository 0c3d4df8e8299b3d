//! Several files become one tree, by the merge rules of the Compose specification.
//!
//! First each tree is brought into the form in which merging is defined: a list of `NAME=value` becomes a mapping,
//! a short `build` the long one. Then mappings merge key by key, lists are joined, commands are replaced, and the tags
//! `!reset` and `!override` remove or replace what the files before said. Entries of `ports` and `volumes` that stand
//! for the same thing are sorted out by whoever reads them, because only then it is known what they stand for.

use crate::yaml::{Entry, Findings, Node, Value};
use std::collections::HashMap;

/// Keys of a service whose list form means a mapping of `NAME=value`.
const VARIABLE_LISTS: [&str; 2] = ["environment", "labels"];
/// Keys of a service whose list form means a mapping of names without values.
const NAME_LISTS: [&str; 2] = ["depends_on", "networks"];
/// Keys of a service that may be a single value where a list is meant.
const SINGLE_OR_LIST: [&str; 2] = ["env_file", "tmpfs"];

/// Brings the services of one file into the form that [`merge`] works on.
pub fn normalise(root: &mut Node, findings: &mut Findings) {
    let Value::Map(top) = &mut root.value else { return };
    let Some(services) = top.iter_mut().find(|entry| entry.key == "services") else { return };
    let Value::Map(services) = &mut services.value.value else { return };
    for service in services {
        let Value::Map(keys) = &mut service.value.value else { continue };
        for entry in keys {
            normalise_key(entry, findings);
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
        if matches!(node.value, Value::Scalar(_)) {
            let at = node.position.clone();
            let context = Node::new(at.clone(), std::mem::replace(&mut node.value, Value::Null));
            node.value = Value::Map(vec![Entry { key: "context".into(), key_at: at, value: context }]);
        } else if let Value::Map(keys) = &mut node.value {
            for entry in keys.iter_mut().filter(|entry| entry.key == "args") {
                list_to_map(&mut entry.value, true, findings);
            }
        }
    }
}

/// `[A=1, B]` becomes `{A: 1, B: null}`; of equal names the last one counts.
fn list_to_map(node: &mut Node, variables: bool, findings: &mut Findings) {
    let Value::List(items) = &mut node.value else { return };
    let mut entries: Vec<Entry> = Vec::new();
    let mut index_of: HashMap<String, usize> = HashMap::new();
    for mut item in std::mem::take(items) {
        let Value::Scalar(scalar) = &mut item.value else {
            item.mismatch(if variables { "NAME=value" } else { "a name" }, findings);
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
    merge_at(base, over, &mut Vec::new(), findings);
}

fn merge_at(base: &mut Node, over: Node, path: &mut Vec<String>, findings: &mut Findings) {
    if over.tag.as_deref() == Some("!override") {
        *base = without_tags(over, findings);
        return;
    }
    match (&mut base.value, over.value) {
        (Value::Map(entries), Value::Map(more)) => {
            let mut index_of = entries.iter().enumerate().map(|(at, old)| (old.key.clone(), at)).collect();
            for entry in more {
                merge_entry(entries, &mut index_of, entry, path, findings);
            }
            entries.retain(|entry| entry.value.tag.as_deref() != Some("!reset"));
        }
        (Value::List(items), Value::List(more)) if !is_replaced(path) => {
            items.extend(more.into_iter().map(|item| without_tags(item, findings)));
        }
        // A key without a value in a later file says nothing about a mapping or list.
        (Value::Map(_) | Value::List(_), Value::Null) if !is_replaced(path) => {}
        (_, value) => *base = without_tags(Node { value, ..over }, findings),
    }
}

fn merge_entry(
    entries: &mut Vec<Entry>,
    index_of: &mut HashMap<String, usize>,
    entry: Entry,
    path: &mut Vec<String>,
    findings: &mut Findings,
) {
    let known = index_of.get(&entry.key).copied();
    if entry.value.tag.as_deref() == Some("!reset") {
        if let Some(index) = known {
            // Taken out by the caller at the end, so that the other indices stay true until then.
            entries[index] = entry;
        }
        return;
    }
    let Some(index) = known else {
        let value = without_tags(entry.value, findings);
        index_of.insert(entry.key.clone(), entries.len());
        entries.push(Entry { value, ..entry });
        return;
    };
    path.push(entry.key);
    merge_at(&mut entries[index].value, entry.value, path, findings);
    // Findings about the whole point at the file that had the last word.
    entries[index].key_at = entry.key_at;
    path.pop();
}

/// Commands are replaced, never joined: half of one command with half of another is none.
fn is_replaced(path: &[String]) -> bool {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    matches!(path[..], ["services", _, "command" | "entrypoint"] | ["services", _, "healthcheck", "test"])
}

/// Applies `!reset` and `!override` below a node that replaces nothing, and warns about other tags.
fn without_tags(mut node: Node, findings: &mut Findings) -> Node {
    match node.tag.take().as_deref() {
        None | Some("!override" | "!reset") => {}
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
                .filter(|item| item.tag.as_deref() != Some("!reset"))
                .map(|item| without_tags(item, findings))
                .collect();
        }
        Value::Map(entries) => {
            *entries = std::mem::take(entries)
                .into_iter()
                .filter(|entry| entry.value.tag.as_deref() != Some("!reset"))
                .map(|entry| Entry { value: without_tags(entry.value, findings), ..entry })
                .collect();
        }
    }
    node
}
