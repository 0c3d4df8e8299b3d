//! What the end-to-end tests share: a home of their own for each test, the command under test, and a look at what it
//! leaves behind.
//!
//! Every test runs the real binary on real containers, so it needs root. Homes, project names and ports are all
//! different, so tests run side by side.
#![allow(dead_code)] // each test file uses a part of it

pub mod apps;
pub mod leftovers;
pub mod registry;
pub mod web;

use rustix::process::{Pid, Signal};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// The longest that any single command or condition may take. Far above what is usual: machines that run tests are busy.
pub const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Says why a test cannot run here, or fails if every test is required to run.
pub fn skip(name: &str, reason: &str) {
    assert!(std::env::var_os("THRONG_REQUIRE_ALL").is_none_or(|v| v != "1"), "{name} cannot run: {reason}");
    eprintln!("SKIPPED {name}: {reason}");
}

/// Waits until `look` finds something.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// The static test program, compiled once for all test files.
pub fn probe() -> PathBuf {
    static PROBE: OnceLock<PathBuf> = OnceLock::new();
    PROBE.get_or_init(compile_probe).clone()
}

fn compile_probe() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/probe.rs");
    let text = std::fs::read_to_string(&source).expect("the probe's source");
    let mark = text.bytes().fold(0u64, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into()));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let done = folder.join(format!("probe-{mark:x}"));
    if done.exists() {
        return done;
    }
    let fresh = folder.join(format!("probe-{mark:x}.{}", std::process::id()));
    let status = Command::new("rustc")
        .args(["--edition=2024", "-O", "-C", "target-feature=+crt-static", "-C", "strip=symbols", "-o"])
        .arg(&fresh)
        .arg(&source)
        .status()
        .expect("rustc runs");
    assert!(status.success(), "the probe does not compile");
    // Another test file may have been quicker; either is as good.
    std::fs::rename(&fresh, &done).expect("the probe can be moved");
    done
}

/// The static pdfmagic that `cargo xtask dist` makes, if it is there.
pub fn pdfmagic() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../workloads/pdfmagic/dist/pdfmagic");
    path.exists().then_some(path)
}

/// How a command ended and what it said.
#[derive(Debug)]
pub struct Done {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Done {
    /// Asserts that standard error contains a text.
    #[track_caller]
    pub fn says(&self, text: &str) -> &Done {
        assert!(self.err.contains(text), "standard error lacks {text:?}:\n{}", self.err);
        self
    }

    /// Asserts that standard output contains a text.
    #[track_caller]
    pub fn prints(&self, text: &str) -> &Done {
        assert!(self.out.contains(text), "standard output lacks {text:?}:\n{}", self.out);
        self
    }

    /// Standard output as one JSON value a line.
    #[track_caller]
    pub fn json(&self) -> Vec<serde_json::Value> {
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        self.out.lines().map(parse).collect()
    }
}

/// One test's home, project and folder. What is left when it is dropped is taken down, so that a failed test does
/// not disturb others.
pub struct Bench {
    pub home: PathBuf,
    pub project: String,
    /// Where the Compose file and all else lies; commands run here.
    pub folder: PathBuf,
    _temporary: tempfile::TempDir,
    /// Names of interfaces that were seen while the app was up.
    pub interfaces: RefCell<BTreeSet<String>>,
}

static BENCHES: AtomicU32 = AtomicU32::new(0);

impl Bench {
    /// `None`, said aloud, without the rights that containers need.
    pub fn new(name: &str) -> Option<Bench> {
        if !rustix::process::geteuid().is_root() {
            skip(name, "containers with all their limits need root");
            return None;
        }
        Some(Bench::anywhere())
    }

    /// For tests that start no container.
    pub fn anywhere() -> Bench {
        let temporary = tempfile::tempdir().expect("a folder");
        let number = BENCHES.fetch_add(1, Ordering::Relaxed);
        let (home, folder) = (temporary.path().join("home"), temporary.path().join("app"));
        std::fs::create_dir_all(&folder).expect("a folder");
        let project = format!("t{}-{number}", std::process::id());
        Bench { home, project, folder, _temporary: temporary, interfaces: RefCell::default() }
    }

    /// A bench with the test program as image `probe`.
    pub fn with_probe(name: &str) -> Option<Bench> {
        let bench = Bench::new(name)?;
        bench.build_probe();
        Some(bench)
    }

    /// A bench with the test program and this Compose file; `text` goes below the project's name.
    pub fn with_app(name: &str, text: &str) -> Option<Bench> {
        let bench = Bench::with_probe(name)?;
        bench.compose(text);
        Some(bench)
    }

    pub fn build_probe(&self) {
        self.image("probe", "FROM scratch\nCOPY probe /probe\nENTRYPOINT [\"/probe\"]\nSTOPSIGNAL SIGKILL\n");
    }

    /// Builds an image from a Dockerfile whose context holds the test program.
    pub fn image(&self, name: &str, dockerfile: &str) {
        let context = self.write(&format!("images/{name}/Dockerfile"), dockerfile);
        let context = context.parent().expect("a folder");
        std::fs::copy(probe(), context.join("probe")).expect("the probe can be copied");
        self.ok(&["build", "-t", name, &context.display().to_string()]);
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(&path, text).expect("a file");
        path
    }

    /// Writes the Compose file; `text` goes below the project's name.
    pub fn compose(&self, text: &str) {
        self.write("compose.yaml", &format!("name: {}\n{text}", self.project));
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_throng"));
        command.args(arguments).current_dir(&self.folder).env("THRONG_HOME", &self.home).stdin(Stdio::null());
        for name in [
            "COMPOSE_FILE",
            "COMPOSE_PROJECT_NAME",
            "COMPOSE_PROFILES",
            "DOCKER_HOST",
            "THRONG_ISOLATION",
            "THRONG_LOG",
            "THRONG_ON",
        ] {
            command.env_remove(name);
        }
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Done {
        self.spawn(arguments).wait()
    }

    /// Runs a command that must succeed.
    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> Done {
        self.fails(0, arguments)
    }

    /// Runs a command that must end with this code.
    #[track_caller]
    pub fn fails(&self, code: i32, arguments: &[&str]) -> Done {
        let done = self.run(arguments);
        leftovers::note_interfaces(self);
        assert_eq!(done.code, code, "throng {}\n{}{}", arguments.join(" "), done.out, done.err);
        done
    }

    /// Starts a command and lets it run.
    pub fn spawn(&self, arguments: &[&str]) -> Running {
        self.spawn_with(self.command(arguments))
    }

    pub fn spawn_with(&self, mut command: Command) -> Running {
        let output = tempfile::tempdir().expect("a folder");
        let (out, err) = (output.path().join("out"), output.path().join("err"));
        command.stdout(File::create(&out).expect("a file")).stderr(File::create(&err).expect("a file"));
        let child = command.spawn().expect("the command starts");
        Running { child, out, err, _output: output }
    }

    /// `throng ps --all --format json`, in the order of names.
    #[track_caller]
    pub fn ps(&self) -> Vec<serde_json::Value> {
        self.ok(&["ps", "--all", "--format", "json"]).json()
    }

    /// State of each replica by its name inside the project.
    #[track_caller]
    pub fn states(&self) -> Vec<(String, String)> {
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let short = |name: String| name.trim_start_matches(&format!("{}-", self.project)).to_owned();
        self.ps().iter().map(|r| (short(text(&r["Name"])), text(&r["State"]))).collect()
    }

    /// Where the first published port of a service listens.
    #[track_caller]
    pub fn address(&self, service: &str) -> String {
        let replicas = self.ps();
        let replica = replicas.iter().find(|r| r["Service"] == service).expect("a replica of the service");
        let publisher = &replica["Publishers"][0];
        format!("{}:{}", publisher["URL"].as_str().expect("an address"), publisher["PublishedPort"])
    }

    /// Process ids of a replica's group, the first process first.
    pub fn pids(&self, replica: &str) -> Vec<u32> {
        leftovers::replica_processes(&self.project, replica)
    }

    /// The process that looks after the app.
    pub fn supervisor(&self) -> Option<u32> {
        let found = leftovers::processes_of_home(&self.home);
        found.into_iter().find(|(_, words)| words.iter().any(|word| word == "supervise")).map(|(pid, _)| pid)
    }

    /// Whether a supervisor takes connections. A killed one does so for a moment longer than its memory lives.
    pub fn listens(&self) -> bool {
        let socket = self.home.join("run").join(format!("{}.sock", self.project));
        std::os::unix::net::UnixStream::connect(socket).is_ok()
    }

    /// Fails unless nothing of this test is left on the host, which may take the kernel a moment.
    #[track_caller]
    pub fn assert_clean(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let left = leftovers::of(self);
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "left behind:\n  {}", left.join("\n  "));
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        leftovers::sweep(self);
    }
}

/// A command under way.
pub struct Running {
    child: Child,
    out: PathBuf,
    err: PathBuf,
    _output: tempfile::TempDir,
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    pub fn out(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.out).unwrap_or_default()).into_owned()
    }

    pub fn err(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.err).unwrap_or_default()).into_owned()
    }

    /// Waits until the command has printed a text on either output; fails if it ends before.
    #[track_caller]
    pub fn says(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            // Asked first: what it printed before it ended must still count.
            let ended = self.child.try_wait().expect("a child").is_some();
            let (out, err) = (self.out(), self.err());
            if out.contains(text) || err.contains(text) {
                return;
            }
            assert!(!ended && Instant::now() < deadline, "never said {text:?} (ended: {ended}):\n{out}{err}");
            std::thread::sleep(LOOK_EVERY);
        }
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.child.id(), signal);
    }

    /// Waits for the end; a command that takes longer than any should is killed and fails the test.
    pub fn wait(mut self) -> Done {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child") {
                break status;
            }
            if Instant::now() > deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
                panic!("the command did not end within {PATIENCE:?}:\n{}{}", self.out(), self.err());
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        use std::os::unix::process::ExitStatusExt;
        let code = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(-1);
        Done { code, out: self.out(), err: self.err() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Only one that a failed test left running is still there.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal; a process that has ended is fine.
pub fn kill(pid: u32, signal: Signal) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}
