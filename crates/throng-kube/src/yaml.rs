//! Objects as YAML that people read: keys in the order in which manifests are written, texts in blocks, comments beside
//! what they are about.

use crate::object::{Notes, Object, escaped};
use serde_json::{Map, Value};
use std::fmt::Write;

/// Longest comment beside a value, in characters; what is longer is cut off, for the value is what matters.
const MAX_NOTE: usize = 160;

/// Keys in the order in which people write them; all others follow by name.
const ORDER: [&str; 99] = [
    "apiVersion",
    "kind",
    "metadata",
    "name",
    "namespace",
    "labels",
    "annotations",
    "path",
    "pathType",
    "type",
    "spec",
    // Of a Service, an Ingress, a NetworkPolicy.
    "clusterIP",
    "externalTrafficPolicy",
    "ingressClassName",
    "podSelector",
    "policyTypes",
    "ingress",
    "egress",
    "from",
    "to",
    // Of autoscalers and budgets.
    "scaleTargetRef",
    "targetRef",
    "minReplicas",
    "maxReplicas",
    "metrics",
    "behavior",
    "scaleUp",
    "scaleDown",
    // Of controllers.
    "schedule",
    "timeZone",
    "concurrencyPolicy",
    "startingDeadlineSeconds",
    "suspend",
    "jobTemplate",
    "completions",
    "parallelism",
    "completionMode",
    "backoffLimit",
    "activeDeadlineSeconds",
    "replicas",
    "ordinals",
    "serviceName",
    "podManagementPolicy",
    "selector",
    "ports",
    "containerPort",
    "hostPort",
    "port",
    "targetPort",
    "nodePort",
    "protocol",
    "appProtocol",
    "strategy",
    "updateStrategy",
    "minReadySeconds",
    "template",
    "volumeClaimTemplates",
    // Of a pod.
    "serviceAccountName",
    "automountServiceAccountToken",
    "enableServiceLinks",
    "imagePullSecrets",
    "restartPolicy",
    "terminationGracePeriodSeconds",
    "hostname",
    "nodeSelector",
    "affinity",
    "topologySpreadConstraints",
    "securityContext",
    "initContainers",
    "containers",
    "volumes",
    // Of a claim, and of the parts of a container.
    "accessModes",
    "storageClassName",
    "apiGroups",
    "resources",
    "resourceNames",
    "verbs",
    "runAsUser",
    "runAsGroup",
    "runAsNonRoot",
    "value",
    "requests",
    "limits",
    "mountPath",
    "subPath",
    "readOnly",
    "ip",
    "hostnames",
    "maxSkew",
    "topologyKey",
    "whenUnsatisfiable",
    "exec",
    "httpGet",
    "tcpSocket",
    "grpc",
    "initialDelaySeconds",
    "periodSeconds",
    "timeoutSeconds",
    "failureThreshold",
];

/// The same of a container, of which some keys mean something else further out.
const OF_CONTAINER: [&str; 16] = [
    "name",
    "image",
    "imagePullPolicy",
    "command",
    "args",
    "workingDir",
    "stdin",
    "ports",
    "env",
    "resources",
    "volumeMounts",
    "startupProbe",
    "readinessProbe",
    "livenessProbe",
    "lifecycle",
    "securityContext",
];

/// Mappings whose keys are names of people's own.
const BY_NAME: [&str; 9] = [
    "annotations",
    "data",
    "stringData",
    "labels",
    "limits",
    "matchLabels",
    "nodeSelector",
    "requests",
    "binaryData",
];

/// One object as a YAML document without a line of hyphens.
pub(crate) fn write(object: &Object, out: &mut String) {
    for line in &object.head {
        let _ = writeln!(out, "# {}", printable(line));
    }
    let emitter = Emitter { notes: &object.notes };
    emitter.value(&object.value, "", "", 0, out);
}

struct Emitter<'a> {
    notes: &'a Notes,
}

impl Emitter<'_> {
    /// A mapping or a list on lines of its own.
    fn value(&self, value: &Value, key: &str, pointer: &str, indent: usize, out: &mut String) {
        match value {
            Value::Object(map) => {
                for (name, value) in ordered(map, key) {
                    pad(indent, out);
                    self.entry(name, value, &format!("{pointer}/{}", escaped(name)), indent, out);
                }
            }
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    pad(indent, out);
                    out.push_str("- ");
                    self.item(item, key, &format!("{pointer}/{index}"), indent + 2, out);
                }
            }
            _ => {}
        }
    }

    /// An element of the list `key`, behind its hyphen. The first key of a mapping stands on the hyphen's line.
    fn item(&self, item: &Value, key: &str, pointer: &str, indent: usize, out: &mut String) {
        match item {
            Value::Object(map) if !map.is_empty() => {
                for (index, (name, value)) in ordered(map, key).into_iter().enumerate() {
                    if index > 0 {
                        pad(indent, out);
                    }
                    let own = format!("{pointer}/{}", escaped(name));
                    self.entry(name, value, &own, indent, out);
                }
            }
            _ => self.scalar(item, pointer, indent, out),
        }
    }

    /// `name: value`, the name's line having been indented.
    fn entry(&self, name: &str, value: &Value, pointer: &str, indent: usize, out: &mut String) {
        out.push_str(&text(name));
        out.push(':');
        let nested = matches!(value, Value::Object(map) if !map.is_empty())
            || matches!(value, Value::Array(items) if !items.is_empty());
        if nested {
            self.note(pointer, out);
            out.push('\n');
            // Lists are indented as their key, as kubectl prints them.
            let below = if value.is_array() { indent } else { indent + 2 };
            self.value(value, name, pointer, below, out);
        } else {
            out.push(' ');
            self.scalar(value, pointer, indent + 2, out);
        }
    }

    fn scalar(&self, value: &Value, pointer: &str, indent: usize, out: &mut String) {
        match value {
            Value::String(string) if is_block(string) => {
                out.push('|');
                out.push_str(chomping(string));
                self.note(pointer, out);
                out.push('\n');
                for line in string.strip_suffix('\n').unwrap_or(string).split('\n') {
                    if !line.is_empty() {
                        pad(indent, out);
                        out.push_str(line);
                    }
                    out.push('\n');
                }
            }
            Value::String(string) => {
                out.push_str(&text(string));
                self.note(pointer, out);
                out.push('\n');
            }
            Value::Object(_) => self.rest("{}", pointer, out),
            Value::Array(_) => self.rest("[]", pointer, out),
            other => self.rest(&other.to_string(), pointer, out),
        }
    }

    fn rest(&self, text: &str, pointer: &str, out: &mut String) {
        out.push_str(text);
        self.note(pointer, out);
        out.push('\n');
    }

    fn note(&self, pointer: &str, out: &mut String) {
        if let Some(note) = self.notes.get(pointer) {
            let _ = write!(out, " # {}", printable(note));
        }
    }
}

fn pad(indent: usize, out: &mut String) {
    out.extend(std::iter::repeat_n(' ', indent));
}

/// Comments end with their line, and hold nothing that a terminal would act on.
fn printable(note: &str) -> String {
    note.chars().take(MAX_NOTE).map(|c| if is_plain(c) { c } else { ' ' }).collect()
}

fn ordered<'m>(map: &'m Map<String, Value>, key: &str) -> Vec<(&'m str, &'m Value)> {
    let mut entries: Vec<(&str, &Value)> = map.iter().map(|(name, value)| (name.as_str(), value)).collect();
    let known: &[&str] = match key {
        "containers" | "initContainers" => &OF_CONTAINER,
        key if BY_NAME.contains(&key) => &[],
        _ => &ORDER,
    };
    let rank = |name: &str| known.iter().position(|known| *known == name).unwrap_or(known.len());
    entries.sort_by_key(|(name, _)| (rank(name), *name));
    entries
}

/// Characters that YAML takes as they are, all but line breaks.
fn is_plain(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{85}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

/// Whether a text of several lines can be written as it is. One whose first line begins with a space would need a
/// number of columns said, one with white space at its ends reads as if there were none.
fn is_block(string: &str) -> bool {
    let lines = || string.strip_suffix('\n').unwrap_or(string).split('\n');
    string.contains('\n')
        && lines().all(|line| line.chars().all(|c| is_plain(c) || c == '\t') && !line.ends_with([' ', '\t']))
        && lines().next().is_some_and(|first| !first.is_empty() && !first.starts_with([' ', '\t']))
        && lines().next_back().is_some_and(|last| !last.is_empty())
}

/// What becomes of the last line break: there is one, or none.
fn chomping(string: &str) -> &'static str {
    if string.ends_with('\n') { "" } else { "-" }
}

/// A text on one line: bare where no reader could take it for anything else, in double quotes otherwise.
fn text(text: &str) -> String {
    // Words that some reader takes for a boolean, nothing or a number.
    const WORDS: [&str; 13] =
        ["null", "true", "false", "yes", "no", "on", "off", "y", "n", "inf", "nan", "infinity", "="];
    let option = text.trim_start_matches('-');
    let is_option = text.len() - option.len() <= 2 && option.starts_with(|c: char| c.is_ascii_alphabetic());
    let starts = is_option || text.starts_with(['/', '_']);
    let inner = |c: char| c.is_ascii_alphanumeric() || "/_.-+@,;()$=".contains(c);
    let chars: Vec<char> = text.chars().collect();
    // A colon ends a key only before white space, and a space is harmless between words.
    let good = |index: usize, c: char| {
        let next = chars.get(index + 1);
        inner(c)
            || (c == ':' && next.is_some_and(|next| inner(*next)))
            || (c == ' ' && next.is_some_and(|next| next.is_ascii_alphanumeric() || "/-_$(".contains(*next)))
    };
    let bare = starts
        && chars.iter().enumerate().all(|(index, c)| good(index, *c))
        && !WORDS.contains(&&*option.to_ascii_lowercase());
    if bare || is_amount(text) { text.to_owned() } else { quoted(text) }
}

/// An amount with a unit, which no reader takes for a number: `128Mi`, `250m`.
fn is_amount(text: &str) -> bool {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = &text[digits.len()..];
    !digits.is_empty()
        && digits.chars().all(|c| c.is_ascii_digit())
        && matches!(unit, "m" | "Ki" | "Mi" | "Gi" | "Ti" | "Pi" | "Ei" | "G" | "M" | "s")
}

fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if is_plain(c) => out.push(c),
            c => {
                let _ = write!(out, "\\U{:08x}", u32::from(c));
            }
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn texts_are_bare_where_nobody_could_take_them_for_something_else() {
        for bare in [
            "nginx:1.27",
            "a b",
            "/bin/sh",
            "x=y",
            "http://db:5432/x",
            "kubectl wait -n a",
            "_x",
            "-c",
            "--to",
            "250m",
            "128Mi",
        ] {
            assert_eq!(text(bare), bare);
        }
        for (word, quoted) in [
            ("", "\"\""),
            ("8080", "\"8080\""),
            ("true", "\"true\""),
            ("No", "\"No\""),
            ("a: b", "\"a: b\""),
            ("a #b", "\"a #b\""),
            ("a ", "\"a \""),
            ("- a", "\"- a\""),
            ("-1", "\"-1\""),
            ("---", "\"---\""),
            ("1e3", "\"1e3\""),
            ("0x1", "\"0x1\""),
            ("a:", "\"a:\""),
            ("é", "\"é\""),
            ("a\nb", "\"a\\nb\""),
            ("\u{1b}", "\"\\U0000001b\""),
        ] {
            assert_eq!(text(word), quoted);
        }
    }

    #[test]
    fn keys_stand_where_people_expect_them_and_comments_beside_them() {
        let value = json!({
            "spec": {"template": {"a": [], "b": {}}, "replicas": 3, "items": ["x", {"value": "1\n2\n", "name": "n"}]},
            "kind": "K", "metadata": {"labels": {"spec": "b", "kind": "a"}, "name": "n"}, "apiVersion": "v1",
        });
        let mut notes = Notes::default();
        notes.say("/spec/replicas", "deploy.replicas, compose.yaml:3");
        notes.say("/spec/items", "two\nlines");
        notes.say("/spec/items/1/value", "a text");
        let object = Object { notes, ..Object::new("f", &value, Notes::default(), Some("From here".into())) };
        let mut out = String::new();
        write(&object, &mut out);
        let expected = "# From here\napiVersion: v1\nkind: K\nmetadata:\n  name: \"n\"\n  labels:\n    kind: a\n    \
                        spec: b\nspec:\n  replicas: 3 # deploy.replicas, compose.yaml:3\n  template:\n    a: []\n    \
                        b: {}\n  items: # two lines\n  - x\n  - name: \"n\"\n    value: | # a text\n      1\n      2\n";
        assert_eq!(out, expected);
    }
}
