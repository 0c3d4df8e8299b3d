//! Running a test's body in namespaces of its own: the test starts itself again by way of unshare(1).

use crate::support::skip;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use throng_walls::{Evidence, Host, Source, WallId, explain};

/// Set to the test's name in the process that is inside.
const INSIDE: &str = "THRONG_WALLS_INSIDE";
/// A counter of the whole host may be moved by others; a wall that is there is met again.
const TRIES: u32 = 4;

/// Runs `body` in new namespaces, as `unshare` names them. `name`: the test's, with its module.
pub fn inside(name: &str, namespaces: &[&str], body: impl FnOnce()) {
    if std::env::var(INSIDE).is_ok_and(|inside| inside == name) {
        return body();
    }
    if !rustix::process::geteuid().is_root() {
        return skip(name, "namespaces with all rights need root");
    }
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(namespaces).arg("--").stdin(Stdio::null());
        command
    };
    match unshare().arg("true").output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => return skip(name, &format!("unshare: {}", String::from_utf8_lossy(&output.stderr))),
        Err(error) => return skip(name, &format!("unshare (Debian package util-linux): {error}")),
    }
    // One at a time: some of the counters are the whole host's.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let own = std::env::current_exe().expect("the test's own program");
    let arguments = ["--exact", name, "--nocapture", "--test-threads=1"];
    let output = unshare().arg(own).args(arguments).env(INSIDE, name).output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    said.lines().filter(|line| line.starts_with("SKIPPED ")).for_each(|line| eprintln!("{line}"));
    let out = String::from_utf8_lossy(&output.stdout);
    // Indented, or else who counts results would take these for results.
    let all: String = out.lines().chain(said.lines()).map(|line| format!("  {line}\n")).collect();
    assert!(output.status.success() && out.contains("1 passed"), "{name}:\n{all}");
}

/// Whether this is the process outside, which may see settings that namespaces hide.
pub fn is_outside() -> bool {
    std::env::var_os(INSIDE).is_none()
}

/// Runs a command; `Err` is what it prints to standard error.
pub fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    feed(program, arguments, "")
}

/// As above, with standard input.
pub fn feed(program: &str, arguments: &[&str], input: &str) -> Result<String, String> {
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{program}: {error}"))?;
    let mut stdin = child.stdin.take().expect("a pipe");
    let text = input.to_owned();
    // The command may stop reading at its first error.
    let writer = std::thread::spawn(move || drop(stdin.write_all(text.as_bytes())));
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("written");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(text(output.stderr)) }
}

/// Many requests to ip(8), up to the first that fails.
pub fn ip(batch: &str) -> Result<String, String> {
    feed("ip", &["-batch", "-"], batch)
}

pub fn here() -> Host {
    Host::read(&Source::live("/"))
}

/// An error, and this host before and after it.
pub fn since(before: Host, error: String) -> Evidence {
    Evidence { messages: vec![error], before: Some(before), after: Some(here()), ..Evidence::default() }
}

pub fn with_state(folder: impl Into<PathBuf>) -> Host {
    Host::read(&Source::live(folder))
}

/// Fails unless exactly this wall is named.
#[track_caller]
pub fn assert_named(evidence: &Evidence, id: WallId) {
    let named = explain(evidence).map(|explanation| (explanation.row.id, explanation.evidence));
    assert_eq!(named.as_ref().map(|(id, _)| *id), Some(id), "{named:?} from {:?}", evidence.messages);
}

/// Runs into a silent wall until its counter is the one that speaks.
#[track_caller]
pub fn assert_counted(id: WallId, mut hit: impl FnMut()) {
    let mut last = None;
    for _ in 0..TRIES {
        let before = here();
        hit();
        let evidence = Evidence { before: Some(before), after: Some(here()), ..Evidence::default() };
        last = explain(&evidence).map(|explanation| explanation.row.id);
        if last == Some(id) {
            return;
        }
    }
    panic!("{last:?} was named instead of {id:?}");
}
