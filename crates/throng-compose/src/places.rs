//! Where the keys of the merged file stand, for whoever has something to say about one later.

use crate::yaml::{Node, Value};
use throng_model::diagnostic::Location;

/// The places of all keys, after files were merged and what they extend and include was copied in.
#[derive(Debug, Clone)]
pub struct Places(pub(crate) Node);

impl Places {
    /// The place of the key at the end of a path of keys from the top; elements of lists are known by their numbers from
    /// 0. `None` if the files do not say it.
    pub fn of(&self, path: &[&str]) -> Option<Location> {
        let (mut node, mut at) = (&self.0, &self.0.position);
        for key in path {
            (node, at) = match &node.value {
                Value::Map(entries) => {
                    let entry = entries.iter().find(|entry| entry.key == *key)?;
                    (&entry.value, &entry.key_at)
                }
                Value::List(items) => {
                    let item = items.get(key.parse::<usize>().ok()?)?;
                    (item, &item.position)
                }
                Value::Null | Value::Scalar(_) => return None,
            };
        }
        Some(at.location())
    }
}
