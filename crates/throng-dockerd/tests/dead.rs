//! What a daemon leaves whose starter was killed goes with the start of the next one.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use throng_dockerd::{Dockerd, Options, request};

const PATIENCE: Duration = Duration::from_secs(90);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Tells this program, started again, to be the one that is killed: the folder of its daemon.
const VICTIM: &str = "THRONG_DOCKERD_VICTIM";

fn start(folder: &Path, name: &str, bridge: &str) -> Dockerd {
    Dockerd::start(&Options { folder, name, bridge }).expect("a daemon")
}

/// Not a test by itself: holds a daemon until it is killed.
#[test]
fn victim() {
    let Some(folder) = std::env::var_os(VICTIM) else { return };
    let _daemon = start(Path::new(&folder), "thr-dead", "10.202.20.1/24");
    std::thread::sleep(PATIENCE);
}

fn interfaces() -> Vec<String> {
    let entries = std::fs::read_dir("/sys/class/net").expect("interfaces").flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// A process that is killed whatever becomes of the test.
struct Killed(Child);

impl Killed {
    fn kill(&mut self) {
        // One that has ended needs neither.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        self.kill();
    }
}

#[test]
fn what_a_dead_daemon_leaves_is_removed() {
    if let Some(reason) = throng_dockerd::missing() {
        assert!(std::env::var("THRONG_REQUIRE_ALL").as_deref() != Ok("1"), "{reason}");
        eprintln!("SKIPPED what_a_dead_daemon_leaves_is_removed: {reason}");
        return;
    }
    let temporary = std::env::temp_dir().join(format!("tdd-{}", std::process::id()));
    let folder = |name: &str| -> PathBuf { temporary.join(name) };
    let mut victim = Command::new(std::env::current_exe().expect("this program"));
    victim.args(["--exact", "victim", "--nocapture"]).env(VICTIM, folder("dead"));
    let mut victim = Killed(victim.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts"));
    let socket = folder("dead").join("docker.sock");
    let deadline = Instant::now() + PATIENCE;
    let network = br#"{"Name":"left","IPAM":{"Config":[{"Subnet":"10.202.21.0/24"}]}}"#;
    let made = loop {
        // It must not be taken for dead while it lives.
        match request(&socket, "POST", "/networks/create", network) {
            Ok((201, made)) => break made,
            other => assert!(Instant::now() < deadline, "{other:?}"),
        }
        std::thread::sleep(LOOK_EVERY);
    };
    let id = made.split('"').find(|part| part.len() == 64).expect("an id").to_owned();
    let of_it = |name: &String| *name == format!("br-{}", &id[..12]) || name == "thr-dead-dk0";
    let other = start(&folder("a"), "thr-next", "10.202.22.1/24");
    assert_eq!(interfaces().iter().filter(|name| of_it(name)).count(), 2, "the living one is left alone");
    drop(other);

    victim.kill();
    let next = start(&folder("b"), "thr-next", "10.202.22.1/24");
    assert_eq!(interfaces().iter().filter(|name| of_it(name)).count(), 0);
    assert!(!folder("dead").exists(), "its folder goes too");
    let (status, said) = request(&next.socket(), "GET", "/_ping", &[]).expect("an answer");
    assert_eq!((status, said.as_str()), (200, "OK"));
    drop(next);
    assert!(!interfaces().iter().any(|name| name == "thr-next-dk0"));
    std::fs::remove_dir_all(&temporary).expect("removed");
}
