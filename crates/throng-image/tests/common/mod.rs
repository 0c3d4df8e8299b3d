//! What the integration tests share.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use tempfile::TempDir;
use throng_image::{
    BuildError, BuildEvent, BuildOptions, BuildProgress, Image, NoRunner, StepRunner, Store, build,
};

/// A store and a build context in a folder that goes away with it.
pub struct Fixture {
    pub dir: TempDir,
    pub store: Store,
    pub options: BuildOptions,
}

/// Remembers the steps of a build: (instruction, whether it came from the cache).
#[derive(Default)]
pub struct Steps {
    pub steps: Mutex<Vec<(String, bool)>>,
    pub output: Mutex<Vec<u8>>,
    pub warnings: Mutex<Vec<String>>,
}

impl BuildProgress for Steps {
    fn event(&self, event: BuildEvent<'_>) {
        let mut steps = self.steps.lock().unwrap();
        match event {
            BuildEvent::StepStarted { text, .. } => steps.push((text.into(), false)),
            BuildEvent::StepFinished { cached } => steps.last_mut().unwrap().1 = cached,
            BuildEvent::Output(piece) => self.output.lock().unwrap().extend_from_slice(piece),
            BuildEvent::Warning(finding) => self.warnings.lock().unwrap().push(finding.to_string()),
        }
    }
}

impl Steps {
    /// The keywords of the steps that were not taken from the cache.
    pub fn fresh(&self) -> Vec<String> {
        let steps = self.steps.lock().unwrap();
        steps
            .iter()
            .filter(|(_, cached)| !cached)
            .map(|(text, _)| text.split(' ').next().unwrap().into())
            .collect()
    }
}

impl Fixture {
    pub fn new() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        let context = dir.path().join("context");
        fs::create_dir(&context).unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let options = BuildOptions {
            dockerfile: context.join("Dockerfile"),
            context,
            tags: vec!["test/app:1".into()],
            args: BTreeMap::new(),
            ..Default::default()
        };
        Fixture { dir, store, options }
    }

    /// Writes a file of the build context.
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.options.context.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    pub fn try_build(&self, dockerfile: &str) -> Result<(Image, Steps), BuildError> {
        self.try_build_with(dockerfile, &NoRunner)
    }

    pub fn try_build_with(
        &self,
        dockerfile: &str,
        runner: &dyn StepRunner,
    ) -> Result<(Image, Steps), BuildError> {
        self.write("Dockerfile", dockerfile);
        let steps = Steps::default();
        let image = block_on(build(&self.store, &self.options, runner, &steps))?;
        Ok((image, steps))
    }

    pub fn build(&self, dockerfile: &str) -> (Image, Steps) {
        self.try_build(dockerfile).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The error of a build that must fail, with its hint.
    pub fn build_error(&self, dockerfile: &str) -> String {
        let error = self.try_build(dockerfile).map(|(image, _)| image.id).unwrap_err();
        format!("{error} / {}", error.hint().unwrap_or_default())
    }

    pub fn names(&self) -> Vec<String> {
        self.store
            .list()
            .unwrap()
            .into_iter()
            .map(|image| format!("{}:{}", image.repository, image.tag))
            .collect()
    }

    /// Another, empty store beside this one.
    pub fn other_store(&self, name: &str) -> Store {
        Store::open(&self.dir.path().join(name)).unwrap()
    }
}

pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// All files of unpacked layers: path to content, folders end with a slash, links show their target.
pub fn tree(layer: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    walk(layer, layer, &mut found);
    found
}

fn walk(root: &Path, folder: &Path, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
        let kind = fs::symlink_metadata(&path).unwrap().file_type();
        if kind.is_dir() {
            found.insert(format!("{name}/"), String::new());
            walk(root, &path, found);
        } else if kind.is_symlink() {
            found.insert(name, format!("-> {}", fs::read_link(&path).unwrap().display()));
        } else if kind.is_file() {
            found.insert(name, String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned());
        } else {
            found.insert(name, "special".into());
        }
    }
}

/// Everything below a folder but locks, for comparing a store before and after.
pub fn inventory(root: &Path) -> Vec<String> {
    tree(root).into_keys().filter(|name| !name.ends_with(".lock")).collect()
}

/// Says that a test cannot run here, loudly if the harness wants all of them to run.
pub fn skip(name: &str, reason: &str) {
    assert!(
        std::env::var_os("THRONG_REQUIRE_ALL").is_none_or(|value| value != "1"),
        "{name} cannot run: {reason}"
    );
    eprintln!("SKIPPED {name}: {reason}");
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// True if the program can be started.
pub fn has_program(name: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(name).is_file()))
}
