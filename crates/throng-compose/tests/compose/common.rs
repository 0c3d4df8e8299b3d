//! One way to load a text and to show what was said about it.

use std::path::Path;
use throng_compose::{LoadOptions, Loaded};
use throng_model::app::App;
use throng_model::diagnostic::Diagnostic;

/// Files of a project and the surroundings in which they are loaded.
#[derive(Default)]
pub struct Case<'a> {
    /// Name and text; the ones that end in `.yaml` and lie in no folder below are merged in this order.
    pub files: &'a [(&'a str, &'a str)],
    pub environment: &'a [(&'a str, &'a str)],
    pub profiles: &'a [&'a str],
}

impl Case<'_> {
    /// Loads from a folder called `shop`; the result and the folder's path as text.
    pub fn load(&self) -> (Result<Loaded, Vec<Diagnostic>>, String) {
        let parent = tempfile::tempdir().expect("a temporary folder");
        let directory = parent.path().join("shop");
        std::fs::create_dir(&directory).expect("a folder");
        for (name, text) in self.files {
            let path = directory.join(name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
            std::fs::write(path, text).expect("a file");
        }
        let yaml = self
            .files
            .iter()
            .map(|(name, _)| name)
            .filter(|name| name.ends_with(".yaml") && !name.contains('/'));
        let options = LoadOptions {
            files: yaml.map(|name| name.into()).collect(),
            environment: self.environment.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect(),
            profiles: self.profiles.iter().map(|profile| profile.to_string()).collect(),
            directory: directory.clone(),
            ..LoadOptions::default()
        };
        (throng_compose::load(&options), directory.to_string_lossy().into_owned())
    }

    /// Compares the findings, one to a line.
    #[track_caller]
    pub fn check(&self, expected: &str) {
        let (result, directory) = self.load();
        let findings = match &result {
            Ok(loaded) => &loaded.warnings,
            Err(findings) => findings,
        };
        let lines: Vec<String> = findings
            .iter()
            .map(|finding| finding.to_string().replace(&format!("{directory}/"), ""))
            .collect();
        assert_eq!(lines.join("\n"), expected.trim_end(), "\n{:?}", self.files);
        assert!(Path::new(&directory).is_absolute());
    }
}

/// The app of a good file, as if its folder were the root.
pub fn load(text: &str) -> App {
    let (result, _) = Case { files: &[("compose.yaml", text)], ..Case::default() }.load();
    let mut app = result.unwrap_or_else(|findings| panic!("{findings:?}")).app;
    app.directory = "/".into();
    app
}

/// Compares the findings about one file.
#[track_caller]
pub fn check(text: &str, expected: &str) {
    Case { files: &[("compose.yaml", text)], ..Case::default() }.check(expected);
}
