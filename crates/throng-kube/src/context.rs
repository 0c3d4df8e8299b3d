//! What every part of a conversion looks at.

use crate::Options;
use crate::source::Source;
use std::path::{Component, Path, PathBuf};
use throng_model::app::App;

#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub app: &'a App,
    pub source: &'a dyn Source,
    pub options: &'a Options,
}

impl Context<'_> {
    /// Whether the files say a key of a service, given as `deploy.replicas`.
    pub fn says(&self, service: &str, key: &str) -> bool {
        self.source.place(&of_service(service, key)).is_some()
    }

    /// Where a value of a service came from, for a comment: the first of these keys that the files say.
    pub fn origin(&self, service: &str, keys: &[&str]) -> Option<String> {
        keys.iter().find_map(|key| self.origin_at(&of_service(service, key), key))
    }

    /// As [`Context::origin`], for one path of keys that people call `name`.
    pub fn origin_at(&self, path: &[&str], name: &str) -> Option<String> {
        let place = self.source.place(path)?;
        Some(format!("{name}, {}:{}", self.shown(&place.file), place.line))
    }

    /// A path of the host as it is seen from the app's folder, so that output is the same wherever that is.
    pub fn shown(&self, path: &Path) -> String {
        relative(path, &self.app.directory).to_string_lossy().into_owned()
    }
}

/// The path of keys to `deploy.replicas` of a service.
pub(crate) fn of_service<'k>(service: &'k str, key: &'k str) -> Vec<&'k str> {
    ["services", service].into_iter().chain(key.split('.')).collect()
}

/// An absolute path as seen from an absolute folder, by the text alone.
fn relative(path: &Path, folder: &Path) -> PathBuf {
    let (mut there, mut here) = (path.components().peekable(), folder.components().peekable());
    while let (Some(a), Some(b)) = (there.peek(), here.peek())
        && a == b
    {
        there.next();
        here.next();
    }
    here.map(|_| Component::ParentDir).chain(there).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_seen_from_the_app_s_folder() {
        for (path, folder, seen) in [
            ("/a/b/compose.yaml", "/a/b", "compose.yaml"),
            ("/a/base.yaml", "/a/b", "../base.yaml"),
            ("/x/y", "/a/b", "../../x/y"),
        ] {
            assert_eq!(relative(Path::new(path), Path::new(folder)), Path::new(seen));
        }
    }
}
