//! YAML nodes as values of serde, so that what a type does not take is told with its place.
//!
//! Plain scalars are what a cluster's API would make of them: `true` and `8080` are no texts, and in quotes they are
//! nothing else.

use super::{Entry, Node, Position, Value, nearest};
use serde::de::value::BorrowedStrDeserializer;
use serde::de::{self, DeserializeSeed, Deserializer, Expected, MapAccess, SeqAccess, Unexpected, Visitor};
use std::fmt;
use throng_model::diagnostic::Diagnostic;

/// What is wrong with a value, and where: at the innermost node that has it.
#[derive(Debug)]
pub struct Wrong {
    message: String,
    hint: Option<String>,
    at: Option<Position>,
}

impl Wrong {
    fn new(message: impl fmt::Display, hint: Option<String>) -> Wrong {
        Wrong { message: message.to_string(), hint, at: None }
    }

    fn at(mut self, position: &Position) -> Wrong {
        self.at.get_or_insert_with(|| position.clone());
        self
    }

    pub fn finding(self) -> Diagnostic {
        let mut finding = Diagnostic::error(self.message);
        finding.location = self.at.map(|position| position.location());
        finding.hint = self.hint;
        finding
    }
}

impl fmt::Display for Wrong {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Wrong {}

impl de::Error for Wrong {
    fn custom<T: fmt::Display>(message: T) -> Wrong {
        Wrong::new(message, None)
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Wrong {
        Wrong::new(format!("expected {}, found {}", wanted(expected), kind(found)), None)
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Wrong {
        Wrong::new(format!("expected {}, found {}", wanted(expected), kind(found)), None)
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Wrong {
        let hint = match nearest(field, expected.iter().copied()) {
            Some(meant) => format!("did you mean {meant}?"),
            None => format!("there are {}", expected.join(", ")),
        };
        Wrong::new(format!("unknown key {field:?}"), Some(hint))
    }
}

/// What Rust calls its types is nothing that a manifest's author has to know.
fn wanted(expected: &dyn Expected) -> String {
    let text = expected.to_string();
    match text.as_str() {
        "i32" => "a whole number".into(),
        "a string" => "a text".into(),
        "a sequence" => "a list".into(),
        "a map" => "a mapping".into(),
        other if other.starts_with("struct ") => "a mapping".into(),
        _ => text,
    }
}

fn kind(found: Unexpected<'_>) -> String {
    match found {
        Unexpected::Str(text) => format!("the text {text:?}"),
        Unexpected::Seq => "a list".into(),
        Unexpected::Map => "a mapping".into(),
        Unexpected::Unit => "nothing".into(),
        Unexpected::Bool(value) => format!("{value}, which is a boolean"),
        Unexpected::Signed(value) => format!("the number {value}"),
        Unexpected::Unsigned(value) => format!("the number {value}"),
        Unexpected::Float(value) => format!("the number {value}"),
        other => other.to_string(),
    }
}

/// A node to read a value from.
pub struct Values<'a>(pub &'a Node);

impl<'de> Deserializer<'de> for Values<'de> {
    type Error = Wrong;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        let value = match &self.0.value {
            Value::Null => visitor.visit_unit(),
            Value::Scalar(scalar) if scalar.plain => plain(&scalar.text, visitor),
            Value::Scalar(scalar) => visitor.visit_borrowed_str(&scalar.text),
            Value::List(items) => visitor.visit_seq(Items(items.iter())),
            Value::Map(entries) => visitor.visit_map(Entries { rest: entries.iter(), value: None }),
        };
        value.map_err(|wrong| wrong.at(&self.0.position))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Wrong> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Wrong> {
        // A list of its fields would do for a struct otherwise.
        if matches!(self.0.value, Value::List(_)) {
            let wrong: Wrong = de::Error::invalid_type(Unexpected::Seq, &visitor);
            return Err(wrong.at(&self.0.position));
        }
        self.deserialize_any(visitor)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

fn plain<'de, V: Visitor<'de>>(text: &'de str, visitor: V) -> Result<V::Value, Wrong> {
    match text {
        "true" => return visitor.visit_bool(true),
        "false" => return visitor.visit_bool(false),
        _ => {}
    }
    // Rust reads "inf" and "nan" as numbers; in a manifest they are names.
    let numeric = text.contains(|c: char| c.is_ascii_digit())
        && text.chars().all(|c| matches!(c, '0'..='9' | '+' | '-' | '.' | 'e' | 'E'));
    if let Some(whole) = text.parse::<i64>().ok().filter(|_| numeric) {
        visitor.visit_i64(whole)
    } else if let Some(number) = text.parse::<f64>().ok().filter(|number| numeric && number.is_finite()) {
        visitor.visit_f64(number)
    } else {
        visitor.visit_borrowed_str(text)
    }
}

/// Where a path such as `spec.metrics[0].type` leads from `root`: to that value, or as far as there is something.
pub fn place<'a>(root: &'a Node, path: &str) -> &'a Position {
    let mut node = root;
    for step in path.split(['.', '[']) {
        let next = match step.strip_suffix(']') {
            Some(index) => match &node.value {
                Value::List(items) => index.parse::<usize>().ok().and_then(|index| items.get(index)),
                _ => None,
            },
            None => node.get(step),
        };
        match next {
            Some(next) => node = next,
            None => break,
        }
    }
    &node.position
}

struct Items<'a>(std::slice::Iter<'a, Node>);

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Wrong;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Wrong> {
        self.0.next().map(|node| seed.deserialize(Values(node))).transpose()
    }
}

struct Entries<'a> {
    rest: std::slice::Iter<'a, Entry>,
    /// Of the key that was asked for last.
    value: Option<&'a Node>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Wrong;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Wrong> {
        let Some(entry) = self.rest.next() else { return Ok(None) };
        self.value = Some(&entry.value);
        let key = seed.deserialize(BorrowedStrDeserializer::new(&entry.key));
        key.map(Some).map_err(|wrong: Wrong| wrong.at(&entry.key_at))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Wrong> {
        let value =
            self.value.take().ok_or_else(|| Wrong::new("a value was asked for before its key", None))?;
        seed.deserialize(Values(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use std::path::Path;
    use std::sync::Arc;
    use throng_autoscale::spec::RawSpec;

    fn read<T: for<'a> Deserialize<'a>>(text: &str) -> Result<T, Diagnostic> {
        let file: Arc<Path> = Path::new("x.yaml").into();
        let node = crate::yaml::parse(&file, text).expect("YAML");
        T::deserialize(Values(&node)).map_err(Wrong::finding)
    }

    #[test]
    fn scalars_are_what_an_api_server_takes_them_for() {
        let text = "[a, 'true', true, 8080, '8080', 1.5, 1e3, .5, inf, nan, null, ~, 1.2.3, e, 0x10]";
        let values: serde_json::Value = read(text).expect("values");
        let expected = serde_json::json!([
            "a", "true", true, 8080, "8080", 1.5, 1000.0, 0.5, "inf", "nan", null, null, "1.2.3", "e", "0x10"
        ]);
        assert_eq!(values, expected);
    }

    #[test]
    fn what_is_wrong_has_its_place() {
        for (text, line, column, message) in [
            ("maxReplicas: ten", 1, 14, "expected a whole number, found the text \"ten\""),
            ("maxReplicas: '10'", 1, 14, "expected a whole number, found the text \"10\""),
            ("maxReplicas: 1.5", 1, 14, "expected a whole number, found the number 1.5"),
            ("maxReplicas: 3000000000", 1, 14, "expected a whole number, found the number 3000000000"),
            ("maxReplicas: 1\nmaxReplica: 2", 2, 1, "unknown key \"maxReplica\""),
            ("metrics: {}", 1, 10, "expected a list, found a mapping"),
            ("metrics:\n- type: Resource\n  resource: []", 3, 13, "expected a mapping, found a list"),
            ("metrics:\n- type: 5", 2, 9, "expected a text, found the number 5"),
            ("metrics:\n- resource:\n    target: {averageValue: 10x}", 3, 28, "\"10x\" is no quantity"),
            (
                "metrics:\n- resource:\n    target: {averageValue: yes it is}",
                3,
                28,
                "\"yes it is\" is no quantity",
            ),
            ("behavior: true", 1, 11, "expected a mapping, found true"),
        ] {
            let wrong = read::<RawSpec>(text).expect_err(text);
            let at = wrong.location.as_ref().map(|at| (at.line, at.column));
            assert_eq!(at, Some((line, column)), "{text}: {wrong}");
            assert!(wrong.message.contains(message), "{text}: {wrong}");
        }
        let wrong = read::<RawSpec>("maxReplica: 2").expect_err("a typing error");
        assert_eq!(wrong.hint.as_deref(), Some("did you mean maxReplicas?"));
    }
}
