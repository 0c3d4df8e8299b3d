//! One way from a Compose text to objects.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use throng_compose::{LoadOptions, Loaded, Places, load};
use throng_kube::{Converted, HostFile, Options, Source, convert};
use throng_model::diagnostic::{Diagnostic, Location};

/// The places of a loaded file, and files that exist in the test alone.
pub struct Host<'a> {
    pub places: &'a Places,
    pub files: BTreeMap<PathBuf, HostFile>,
}

impl Source for Host<'_> {
    fn place(&self, path: &[&str]) -> Option<Location> {
        self.places.of(path)
    }

    fn read(&self, path: &Path) -> std::io::Result<HostFile> {
        self.files.get(path).cloned().ok_or(std::io::ErrorKind::NotFound.into())
    }
}

/// Files beside the Compose file, by their paths from there: what tests mount.
fn files(directory: &Path) -> BTreeMap<PathBuf, HostFile> {
    let file = |text: &str| HostFile::File(text.as_bytes().to_vec());
    let folder = vec![("a.conf".to_owned(), b"a = 1\n".to_vec()), ("b.conf".to_owned(), b"b = 2\n".to_vec())];
    [
        ("nginx.conf", file("server {\n  listen 80;\n}\n")),
        ("server.key", file("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")),
        ("password.txt", file("s3cret\n")),
        ("conf.d", HostFile::Folder(folder)),
        ("icon.png", HostFile::File(vec![0x89, 0x50, 0xff])),
        ("src", HostFile::Other),
    ]
    .into_iter()
    .map(|(name, file)| (directory.join(name), file))
    .collect()
}

/// Loads a text as the Compose file of a folder called `shop`.
pub fn loaded(text: &str) -> Result<Loaded, Vec<Diagnostic>> {
    let parent = tempfile::tempdir().unwrap();
    let directory = parent.path().join("shop");
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("compose.yaml"), text).unwrap();
    load(&LoadOptions { directory, profiles: vec!["*".into()], ..LoadOptions::default() })
}

pub fn converted(loaded: &Loaded, options: &Options) -> Result<Converted, Vec<Diagnostic>> {
    let host = Host { places: &loaded.places, files: files(&loaded.app.directory) };
    convert(&loaded.app, &host, options)
}

#[track_caller]
pub fn good(text: &str) -> Converted {
    let loaded = loaded(text).unwrap_or_else(|findings| panic!("{}", lines(&findings, "")));
    converted(&loaded, &Options::default()).unwrap_or_else(|findings| panic!("{}", lines(&findings, "")))
}

/// Findings one to a line, with file names without their folder.
pub fn lines(findings: &[Diagnostic], directory: &str) -> String {
    let line = |finding: &Diagnostic| {
        let text = finding.to_string();
        if directory.is_empty() { text } else { text.replace(&format!("{directory}/"), "") }
    };
    findings.iter().map(line).collect::<Vec<_>>().join("\n")
}
