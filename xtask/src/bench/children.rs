//! Programs that are started for a measurement and end with it, however it ends.
//!
//! Each program leads a process group of its own, so that what it starts ends too. Ctrl-C therefore reaches only this
//! process: a thread passes it on to the commands under way, whose callers then fail and drop the servers.

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How often interruption and deadlines are looked at.
const WATCH_EVERY: Duration = Duration::from_millis(50);
/// What was asked to end and has not is killed after this.
const KILL_AFTER: Duration = Duration::from_secs(10);

/// The error of everything that a person has stopped.
#[derive(Debug)]
pub struct Interrupted;

impl std::fmt::Display for Interrupted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// Starts programs and knows the commands under way.
#[derive(Clone)]
pub struct Children {
    interrupted: Arc<AtomicBool>,
    /// When each command's group, by its leader, has to be done.
    running: Arc<Mutex<BTreeMap<i32, Instant>>>,
}

impl Children {
    /// Takes over SIGINT, SIGTERM and SIGHUP of this process. A second one ends it at once.
    pub fn watch() -> Result<Children> {
        let children = Children { interrupted: Arc::default(), running: Arc::default() };
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            let flag = &children.interrupted;
            signal_hook::flag::register_conditional_shutdown(signal, 130, flag.clone())
                .and_then(|_| signal_hook::flag::register(signal, flag.clone()))
                .with_context(|| format!("cannot take over signal {signal}"))?;
        }
        let watcher = children.clone();
        std::thread::spawn(move || {
            loop {
                std::thread::sleep(WATCH_EVERY);
                watcher.end_overdue();
            }
        });
        Ok(children)
    }

    /// Fails once somebody has asked this process to end.
    pub fn check(&self) -> Result<()> {
        if self.interrupted.load(Ordering::Relaxed) { Err(Interrupted.into()) } else { Ok(()) }
    }

    /// Runs a command to its end and returns what it printed; fails if it fails, or takes longer than `limit`.
    pub fn output(&self, command: Command, limit: Duration) -> Result<String> {
        let name = name(&command);
        let output = self.finish(command, limit)?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("{name} failed ({}): {}", output.status, said.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs a command to its end, whatever that is.
    pub fn finish(&self, mut command: Command, limit: Duration) -> Result<Output> {
        self.check()?;
        let name = name(&command);
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        let leader = child.id().cast_signed();
        let deadline = Instant::now() + limit;
        self.running().insert(leader, deadline);
        let output = child.wait_with_output();
        self.running().remove(&leader);
        self.check()?;
        if Instant::now() >= deadline {
            bail!("{name} was not done after {} s", limit.as_secs());
        }
        output.with_context(|| format!("cannot wait for {name}"))
    }

    /// Starts a program that runs until the returned value is dropped. What it says goes to `log`.
    pub fn server(&self, command: &Command, log: File) -> Result<Server> {
        self.check()?;
        let name = name(command);
        let mut command = bound_to_this_process(command);
        let twice = log.try_clone().context("cannot share a log")?;
        command.process_group(0).stdin(Stdio::null()).stdout(log).stderr(twice);
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Server { child, patience: KILL_AFTER })
    }

    /// Sleeps in pieces, so that an interruption is noticed.
    pub fn pause(&self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            self.check()?;
            std::thread::sleep(left.min(WATCH_EVERY));
        }
        self.check()
    }

    /// Waits until `ready` says so, or fails when `limit` has passed.
    pub fn wait_until(&self, what: &str, limit: Duration, mut ready: impl FnMut() -> bool) -> Result<()> {
        let end = Instant::now() + limit;
        while !ready() {
            if Instant::now() > end {
                bail!("{what} after {} s", limit.as_secs());
            }
            self.pause(Duration::from_millis(10))?;
        }
        Ok(())
    }

    fn end_overdue(&self) {
        let interrupted = self.interrupted.load(Ordering::Relaxed);
        let now = Instant::now();
        for (leader, deadline) in self.running().iter_mut() {
            // On interruption the deadline is now; the time to kill is counted from there.
            if interrupted {
                *deadline = (*deadline).min(now);
            }
            if now >= *deadline + KILL_AFTER {
                signal(*leader, Signal::KILL);
            } else if now >= *deadline {
                signal(*leader, Signal::TERM);
            }
        }
    }

    fn running(&self) -> MutexGuard<'_, BTreeMap<i32, Instant>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A program that is asked to end when this is dropped, and killed if it does not.
pub struct Server {
    child: Child,
    /// How long it gets to end by itself.
    pub patience: Duration,
}

impl Server {
    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().ok().flatten()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let leader = self.child.id().cast_signed();
        if self.ended().is_none() {
            // The leader alone: one that looks after children of its own ends them in its own order.
            if let Some(pid) = Pid::from_raw(leader) {
                // It may have ended since.
                let _ = rustix::process::kill_process(pid, Signal::TERM);
            }
            let begin = Instant::now();
            while self.ended().is_none() && begin.elapsed() < self.patience {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        signal(leader, Signal::KILL);
        // Already reaped as a rule.
        let _ = self.child.wait();
    }
}

/// Signals a process group. There is none any more as a rule, which is what was wanted.
fn signal(leader: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(leader) {
        let _ = kill_process_group(pid, signal);
    }
}

/// The same command, told by the kernel to end if this process is killed outright (setpriv(1), part of util-linux).
fn bound_to_this_process(command: &Command) -> Command {
    let words: Vec<OsString> =
        std::iter::once(command.get_program()).chain(command.get_args()).map(OsString::from).collect();
    let mut bound = if crate::packages::present("setpriv") {
        let mut bound = Command::new("setpriv");
        bound.args(["--pdeathsig", "TERM", "--"]).args(&words);
        bound
    } else {
        let mut plain = Command::new(&words[0]);
        plain.args(&words[1..]);
        plain
    };
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => bound.env(key, value),
            None => bound.env_remove(key),
        };
    }
    bound
}

fn name(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program());
    program.file_name().unwrap_or(program.as_os_str()).to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn children() -> Children {
        Children { interrupted: Arc::default(), running: Arc::default() }
    }

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn null() -> File {
        File::create("/dev/null").expect("it is there")
    }

    fn alive(pid: &str) -> bool {
        // A process that has ended but is not reaped counts as gone.
        std::fs::read_to_string(format!("/proc/{pid}/stat"))
            .is_ok_and(|stat| stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.starts_with(" Z")))
    }

    #[test]
    fn output_is_returned_and_failure_says_what_the_program_said() {
        let children = children();
        let limit = Duration::from_secs(30);
        assert_eq!(children.output(shell("echo yes"), limit).expect("it succeeds"), "yes\n");
        let error = children.output(shell("echo no >&2; exit 3"), limit).expect_err("it fails");
        assert!(error.to_string().contains("exit status: 3") && error.to_string().contains("no"), "{error}");
    }

    #[test]
    fn what_takes_too_long_ends_with_all_that_it_started() {
        let children = children();
        let watcher = children.clone();
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            while stopped.recv_timeout(WATCH_EVERY) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                watcher.end_overdue();
            }
        });
        let error = children.output(shell("sleep 300 & wait"), Duration::from_millis(100)).expect_err("late");
        assert!(error.to_string().contains("not done"), "{error}");
        assert!(children.running().is_empty());
        drop(stop);
        thread.join().expect("the watcher ends");
    }

    #[test]
    fn a_dropped_server_takes_its_children_along() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("pid");
        let script = format!("sleep 300 & echo $! > {}; wait", file.display());
        let server = children().server(&shell(&script), null()).expect("it starts");
        let mut pid = String::new();
        let begin = Instant::now();
        while !pid.ends_with('\n') && begin.elapsed() < Duration::from_secs(30) {
            pid = std::fs::read_to_string(&file).unwrap_or_default();
        }
        assert!(alive(pid.trim()), "{pid:?}");
        drop(server);
        let begin = Instant::now();
        while alive(pid.trim()) && begin.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(!alive(pid.trim()));
    }

    #[test]
    fn nothing_starts_after_an_interruption() {
        let children = children();
        children.interrupted.store(true, Ordering::Relaxed);
        let error = children.output(shell("true"), KILL_AFTER).expect_err("interrupted");
        assert!(error.is::<Interrupted>());
        assert!(children.server(&shell("sleep 300"), null()).is_err());
    }
}
