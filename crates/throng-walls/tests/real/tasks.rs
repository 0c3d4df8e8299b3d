//! Processes, descriptors, quotas of a user, namespaces.

use crate::inside::{assert_named, here, inside, run, since};
use crate::support::skip;
use std::fs::File;
use std::process::{Child, Command, Stdio};
use throng_walls::fix::{Fixer, safe_changes};
use throng_walls::{Demand, Evidence, Host, Report, State, WallId, explain, predict};

/// Processes that sleep, until one cannot be made. They are killed when dropped.
pub struct Crowd(Vec<Child>);

fn sleeper() -> std::io::Result<Child> {
    Command::new("sleep").arg("600").stdin(Stdio::null()).spawn()
}

impl Crowd {
    /// With the error that ended it.
    pub fn until_refused(most: usize) -> (Crowd, std::io::Error) {
        let mut crowd = Crowd(Vec::new());
        loop {
            match sleeper() {
                Ok(child) => crowd.0.push(child),
                Err(error) => return (crowd, error),
            }
            assert!(crowd.0.len() <= most, "nobody refuses more than {most} processes");
        }
    }
}

impl Crowd {
    /// Kills all, then waits for each.
    pub fn end(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
        }
        for child in &mut self.0 {
            let _ = child.wait();
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.end();
    }
}

/// As the engine puts it.
pub fn no_process(error: &std::io::Error) -> Vec<String> {
    vec![format!("cannot start shop/web-1: cannot make a process: {error}")]
}

/// Since Linux 6.14 each pid namespace has a `kernel.pid_max` of its own.
fn has_own_pid_max(host: &Host) -> bool {
    let version = host.kernel.as_deref().unwrap_or_default();
    let mut numbers = version.split(['.', '-']).map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (6, 14)
}

#[test]
fn process_ids_are_used_up() {
    let name = "tasks::process_ids_are_used_up";
    if !has_own_pid_max(&here()) {
        return skip(name, "kernel.pid_max is the whole host's before Linux 6.14");
    }
    inside(name, &["-p", "-m", "--fork", "--mount-proc"], || {
        // The least that the kernel takes.
        std::fs::write("/proc/sys/kernel/pid_max", "301").expect("a limit of this namespace");
        let before = here();
        assert_eq!(before.setting("kernel.pid_max"), Some(301));
        let (crowd, error) = Crowd::until_refused(400);
        let after = here();
        drop(crowd);
        let report = predict(&before, &Demand::of(400));
        assert_eq!(report.finding(WallId::ProcessIds).map(|f| f.state), Some(State::InTheWay));
        moves_and_goes_back(&report);
        assert_named(
            &Evidence {
                messages: no_process(&error),
                before: Some(before),
                after: Some(after),
                ..Evidence::default()
            },
            WallId::ProcessIds,
        );
    });
}

/// What is said to be safe lets more processes in, and undoing it leaves the limit as it was.
fn moves_and_goes_back(report: &Report) {
    let folder = tempfile::tempdir().expect("a folder");
    let fixer = Fixer::new("/", folder.path());
    let changes = safe_changes(report);
    let of_pids: Vec<_> = changes.into_iter().filter(|change| change.setting == "kernel.pid_max").collect();
    assert_eq!(of_pids.len(), 1);
    fixer.apply(&of_pids).expect("this namespace's own");
    let crowd = Crowd((0..320).map(|_| sleeper().expect("there is room now")).collect());
    drop(crowd);
    fixer.undo().expect("put back");
    assert_eq!(here().setting("kernel.pid_max"), Some(301));
}

#[test]
fn descriptors_are_used_up() {
    inside("tasks::descriptors_are_used_up", &["-m"], || {
        use rustix::process::{Resource, Rlimit, setrlimit};
        let limit = Rlimit { current: Some(64), maximum: Some(64) };
        setrlimit(Resource::Nofile, limit).expect("a lower limit");
        let before = here();
        assert_eq!(before.open_files.map(|limit| limit.hard), Some(64));
        let mut open = Vec::new();
        let error = loop {
            match File::open("/dev/null") {
                Ok(file) => open.push(file),
                Err(error) => break error,
            }
            assert!(open.len() <= 64);
        };
        drop(open);
        let report = predict(&before, &Demand::of(10));
        assert_eq!(report.finding(WallId::Descriptors).map(|f| f.state), Some(State::InTheWay));
        let messages = vec![format!("cannot start shop/web-1: cannot open its log /s/log: {error}")];
        assert_named(
            &Evidence { messages, before: Some(before), after: Some(here()), ..Evidence::default() },
            WallId::Descriptors,
        );
    });
}

/// A Perl program that runs as a user who has nothing yet. Its standard error is the outcome.
fn as_fresh_user(uid: u32, program: &str) -> Option<String> {
    let id = uid.to_string();
    let run_as = ["--reuid", &id, "--regid", &id, "--clear-groups", "perl", "-e", program];
    run("setpriv", &run_as).err()
}

/// Numbers of `add_key` and `inotify_init1` (asm/unistd.h).
const SYSTEM_CALLS: Option<(u32, u32)> = if cfg!(target_arch = "x86_64") {
    Some((248, 294))
} else if cfg!(target_arch = "aarch64") {
    Some((217, 26))
} else {
    None
};

#[test]
fn keys_of_a_user_are_used_up() {
    let name = "tasks::keys_of_a_user_are_used_up";
    let (Some((add_key, _)), Some(most)) = (SYSTEM_CALLS, here().setting("kernel.keys.maxkeys")) else {
        return skip(name, "no keys here");
    };
    inside(name, &["-m"], || {
        let before = here();
        // -2 is the process' own keyring, which goes with it.
        let program = format!(
            "my $t = \"user\"; my $v = \"x\"; for my $n (1..{}) {{ my $k = \"k$n\"; \
             if (syscall({add_key}, $t, $k, $v, 1, -2) < 0) {{ print STDERR \"add_key: $!\\n\"; exit 1 }} }}",
            most + 10
        );
        let error = as_fresh_user(64_991, &program).expect("more keys than allowed");
        assert!(error.contains("quota"), "{error}");
        assert_named(&since(before, error), WallId::SessionKeyrings);
    });
}

#[test]
fn inotify_instances_of_a_user_are_used_up() {
    let name = "tasks::inotify_instances_of_a_user_are_used_up";
    let most = here().setting("fs.inotify.max_user_instances");
    let (Some((_, init)), Some(most)) = (SYSTEM_CALLS, most.filter(|most| *most < 10_000)) else {
        return skip(name, "more instances than descriptors");
    };
    inside(name, &["-m"], || {
        let before = here();
        let program = format!(
            "for (1..{}) {{ if (syscall({init}, 0) < 0) {{ print STDERR \"inotify_init1: $!\\n\"; exit 1 }} }}",
            most + 10
        );
        let error = as_fresh_user(64_992, &program).expect("more instances than allowed");
        assert!(error.contains("Too many open files"), "{error}");
        let report = predict(&before, &Demand { watchers: 1, ..Demand::of(most + 1) });
        assert_eq!(report.finding(WallId::Inotify).map(|f| f.state), Some(State::InTheWay));
        assert_named(&since(before, error), WallId::Inotify);
    });
}

#[test]
fn namespaces_of_a_user_are_used_up() {
    inside("tasks::namespaces_of_a_user_are_used_up", &["-r", "-m"], || {
        std::fs::write("/proc/sys/user/max_net_namespaces", "5").expect("a limit of this user namespace");
        let before = here();
        let mut held = Vec::new();
        let error = loop {
            // It says "ready" once it has its namespace.
            let mut child = Command::new("unshare")
                .args(["-n", "sh", "-c", "echo ready; exec sleep 600"])
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("unshare runs");
            let mut line = String::new();
            let out = child.stdout.take().expect("a pipe");
            std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).expect("read");
            if line.is_empty() {
                let output = child.wait_with_output().expect("it ends");
                break String::from_utf8_lossy(&output.stderr).into_owned();
            }
            held.push(child);
            assert!(held.len() <= 5, "more namespaces than allowed");
        };
        for mut child in held {
            child.kill().expect("killed");
            child.wait().expect("gone");
        }
        assert!(error.contains("No space left on device"), "{error}");
        let report = predict(&before, &Demand::of(10));
        assert_eq!(report.finding(WallId::Namespaces).map(|f| f.state), Some(State::InTheWay));
        assert_named(&since(before, error), WallId::Namespaces);
    });
}

#[test]
fn namespaces_outlive_their_processes() {
    const MEMBERS: u64 = 400;
    const TRIES: u32 = 4;
    let name = "tasks::namespaces_outlive_their_processes";
    if here().counters.net_namespaces.is_none() && rustix::process::geteuid().is_root() {
        return skip(name, "the kernel does not count network namespaces in /proc/slabinfo");
    }
    inside(name, &["-m"], || {
        let teardown = || {
            let members: Vec<Child> = (0..MEMBERS).map(|_| member()).collect();
            let before = here();
            let mut crowd = Crowd(members);
            crowd.end();
            let (before, after) = (Some(before), Some(here()));
            explain(&Evidence { before, after, replicas: Some((MEMBERS, 0)), ..Evidence::default() })
        };
        // Others may end, or the kernel be quick, at the very moment.
        let named = (0..TRIES).filter_map(|_| teardown()).find(|named| named.row.id == WallId::Namespaces);
        let evidence = named.expect("removal takes its time").evidence;
        assert!(evidence[0].contains("still being removed"), "{evidence:?}");
    });
}

/// A process that has a network namespace by now.
fn member() -> Child {
    let mut child = Command::new("unshare")
        .args(["-n", "sh", "-c", "echo ready; exec sleep 600"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("unshare runs");
    let mut line = String::new();
    let out = child.stdout.take().expect("a pipe");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut line).expect("read");
    assert_eq!(line, "ready\n");
    child
}
