//! The whole command as an ordinary user: containers in user namespaces, and plain processes. Root is needed only to
//! become somebody else.

mod support;

use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use support::{Done, pdfmagic, probe, skip, until};

const CONTAINERS: &str = "
services:
  web:
    image: probe
    build: .
    command: [serve, '80']
    ports: ['127.0.0.1::80']
    healthcheck: {test: [CMD, /probe, get, '127.0.0.1:80', /], interval: 200ms, retries: 50}
    volumes: ['data:/data']
    deploy: {replicas: 2}
  root: {image: probe, build: ., user: '0', command: [serve, '80'], volumes: ['data:/data']}
volumes: {data: {}}
";
const DOCKERFILE: &str = "FROM scratch
COPY probe /probe
RUN [\"/probe\", \"append\", \"/by-root\", \"made\"]
USER 65534:65534
RUN [\"/probe\", \"append\", \"/by-nobody\", \"made\"]
ENTRYPOINT [\"/probe\"]
STOPSIGNAL SIGKILL
";
const PROCESSES: &str = "
services:
  web:
    image: probe
    build: .
    command: [serve, '8123']
    ports: ['127.0.0.1::8123']
    healthcheck: {test: [CMD, /probe, get, '127.0.0.1:8123', /], interval: 200ms, retries: 50}
    deploy: {replicas: 3}
";
/// As containers need it without a RUN, which needs a container.
const PLAIN_DOCKERFILE: &str = "FROM scratch
COPY probe /probe
USER 65534:65534
ENTRYPOINT [\"/probe\"]
STOPSIGNAL SIGKILL
";

/// Somebody with a folder of their own, in which the command lies as well.
struct User {
    uid: u32,
    project: String,
    folder: PathBuf,
    _temporary: tempfile::TempDir,
    /// In the user database until this goes.
    account: Option<String>,
}

impl User {
    /// An id that needs no entry in the user database, one for each test.
    fn new(test: &str, uid: u32) -> Option<User> {
        if !rustix::process::geteuid().is_root() {
            skip(test, "root is needed to become an ordinary user");
            return None;
        }
        if Command::new("setpriv").arg("--version").output().is_err() {
            skip(test, "setpriv (Debian package util-linux) is not there");
            return None;
        }
        let temporary = tempfile::tempdir().expect("a folder");
        let folder = temporary.path().to_path_buf();
        std::fs::create_dir(folder.join("tmp")).expect("a folder");
        let command = folder.join("throng");
        // By another process: this one's writing end would live on in whatever other tests fork meanwhile, and a file
        // that somebody may still write to is not executed (ETXTBSY).
        let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_throng")).arg(&command).status();
        assert!(copied.is_ok_and(|status| status.success()), "a copy");
        std::fs::set_permissions(&command, std::fs::Permissions::from_mode(0o755)).expect("executable");
        let project = format!("u{uid}-{}", std::process::id());
        let user = User { uid, project, folder, _temporary: temporary, account: None };
        user.own();
        Some(user)
    }

    /// Somebody whom `/etc/subuid` grants ids.
    fn with_ids(test: &str) -> Option<User> {
        if Command::new("newuidmap").output().is_err() {
            skip(test, "newuidmap (Debian package uidmap) is not there");
            return None;
        }
        let name = format!("throng-t{}", std::process::id());
        let mut user = User::new(test, 0)?;
        let made = Command::new("useradd").args(["--no-create-home", &name]).status();
        if !made.is_ok_and(|status| status.success()) {
            skip(test, "useradd (Debian package passwd) cannot make a user");
            return None;
        }
        user.account = Some(name.clone());
        let id = Command::new("id").args(["-u", &name]).output().expect("id runs").stdout;
        user.uid = String::from_utf8_lossy(&id).trim().parse().expect("a number");
        let granted = std::fs::read_to_string("/etc/subuid").unwrap_or_default();
        if !granted.lines().any(|line| line.starts_with(&format!("{name}:"))) {
            skip(test, "useradd grants no subordinate ids here");
            return None;
        }
        user.own();
        Some(user)
    }

    /// Gives everything in the folder to the user.
    fn own(&self) {
        fn give(path: &Path, uid: u32) {
            chown(path, Some(uid), Some(uid)).expect("given away");
            for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
                give(&entry.path(), uid);
            }
        }
        give(&self.folder, self.uid);
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.folder.join(name);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, text).expect("a file");
    }

    fn app(&self, compose: &str, dockerfile: &str) {
        self.write("compose.yaml", &format!("name: {}\n{compose}", self.project));
        self.write("Dockerfile", dockerfile);
        std::fs::copy(probe(), self.folder.join("probe")).expect("a copy");
        self.own();
    }

    fn run(&self, arguments: &[&str]) -> Done {
        self.run_by(&[], arguments)
    }

    /// Runs the command by way of another one that takes it as its last arguments.
    fn run_by(&self, way: &[&str], arguments: &[&str]) -> Done {
        let id = self.uid;
        let mut command = Command::new("setpriv");
        command.args([format!("--reuid={id}"), format!("--regid={id}")]);
        command.args(["--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]).args(way);
        command.arg(self.folder.join("throng")).args(arguments).current_dir(&self.folder);
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", &self.folder).env("THRONG_HOME", self.folder.join("home"));
        command.env("TMPDIR", self.folder.join("tmp"));
        let output = command.output().expect("setpriv runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Done {
            code: output.status.code().unwrap_or(-1),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }

    #[track_caller]
    fn ok(&self, arguments: &[&str]) -> Done {
        let done = self.run(arguments);
        assert_eq!(done.code, 0, "throng {}\n{}{}", arguments.join(" "), done.out, done.err);
        done
    }

    /// Living processes of the user, with their command lines.
    fn processes(&self) -> Vec<(u32, String)> {
        let read =
            |pid: u32, file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        let ours = pids.filter(|pid| {
            let status = read(*pid, "status");
            status.contains(&format!("\nUid:\t{}\t", self.uid)) && !status.contains("\nState:\tZ")
        });
        ours.map(|pid| (pid, read(pid, "cmdline").replace('\0', " "))).collect()
    }

    /// Kills the supervisor, and nothing else. It is the oldest of those that have its command line.
    fn kill_supervisor(&self) {
        let supervisors = self.processes().into_iter().filter(|(_, line)| line.contains(" supervise"));
        let (pid, _) = supervisors.min().expect("a supervisor");
        support::kill(pid, rustix::process::Signal::KILL);
        until("it is dead", || self.processes().iter().all(|(p, _)| *p != pid).then_some(()));
    }

    /// Nothing lives any more, and no file is left of what was up. Images, volumes and runs stay on purpose.
    fn assert_clean(&self) {
        until("all processes have ended", || self.processes().is_empty().then_some(()));
        let names = |below: &str| -> BTreeSet<String> {
            let entries = std::fs::read_dir(self.folder.join(below)).into_iter().flatten().flatten();
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
        };
        let mut left = BTreeSet::new();
        for below in ["home/engine", "home/engine/.networks", "home/projects", "home/run", "tmp"] {
            left.extend(names(below).into_iter().map(|name| format!("{below}/{name}")));
        }
        let kept =
            ["home/engine/.networks", "home/engine/.root", "home/engine/.skeleton", "home/run/networks.lock"];
        left.retain(|name| !kept.contains(&name.as_str()));
        assert!(left.is_empty(), "{left:?}");
    }

    /// Where each replica of `web` can be reached, by name.
    fn replicas(&self) -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let replicas = self.ok(&["ps", "--format", "json"]).json();
        let web = replicas.iter().filter(|replica| replica["Service"] == "web");
        web.map(|replica| (text(&replica["Name"]), text(&replica["Addresses"][0]))).collect()
    }

    fn published(&self) -> String {
        let replicas = self.ok(&["ps", "--format", "json"]).json();
        let web = replicas.iter().find(|replica| replica["Service"] == "web").expect("a replica");
        let publisher = &web["Publishers"][0];
        format!("{}:{}", publisher["URL"].as_str().expect("an address"), publisher["PublishedPort"])
    }
}

impl Drop for User {
    fn drop(&mut self) {
        if !self.processes().is_empty() && self.uid != 0 {
            self.run(&["down", "-t", "0"]);
            for (pid, _) in self.processes() {
                support::kill(pid, rustix::process::Signal::KILL);
            }
        }
        if let Some(name) = &self.account {
            // The next one has another name.
            let _ = Command::new("userdel").arg(name).output();
        }
    }
}

/// Whether this host lets the user have containers; if not, a test of them cannot run.
fn contained(test: &str, up: &Done) -> bool {
    let contained = up.err.contains("container (rootless)");
    if !contained {
        skip(test, &format!("this host allows an ordinary user no containers: {}", up.err));
    }
    contained
}

fn answers(address: &str) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut start = [0u8; 12];
        stream.read_exact(&mut start)?;
        Ok(String::from_utf8_lossy(&start).into_owned())
    };
    ask().is_ok_and(|start| start == "HTTP/1.1 200")
}

/// Figures of both replicas of `web`, each of which has answered somebody.
fn is_measured(user: &User) {
    let replicas = user.replicas();
    let complete = |text: &str| {
        replicas.iter().all(|(name, _)| {
            let name = name.trim_start_matches(&format!("{}-", user.project));
            let labels = format!("{{service=\"web\",replica=\"{name}\"}} ");
            let figure = |series: &str| {
                let line = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(&labels));
                line.and_then(|value| value.parse::<f64>().ok()).unwrap_or(0.0)
            };
            let bytes = ["throng_replica_memory_bytes", "throng_replica_network_received_bytes_total"];
            bytes.into_iter().all(|series| figure(series) > 1_000.0) && figure("throng_replica_tasks") >= 1.0
        })
    };
    // Read each second.
    until("each replica is measured", || complete(&user.ok(&["metrics"]).out).then_some(()));
    let top = user.ok(&["top", "--no-stream", "--format", "json"]).json();
    let measured = |row: &&Value| row["Service"] == "web" && row["NetworkReceived"].as_u64() > Some(1_000);
    assert_eq!(top.iter().filter(measured).count(), 2, "{top:?}");
}

fn life_in_containers(test: &str, user: &User) {
    user.app(CONTAINERS, DOCKERFILE);
    let up = user.ok(&["up", "-d", "--wait"]);
    if !contained(test, &up) {
        return;
    }
    assert_eq!(user.replicas().len(), 2);
    assert!(answers(&user.published()));
    for file in ["/by-root", "/by-nobody"] {
        user.ok(&["exec", "web", "/probe", "read", file]).prints("made");
    }
    let status = user.ok(&["exec", "web", "/probe", "read", "/proc/self/status"]).out;
    for line in
        ["Uid:\t65534\t65534\t65534\t65534", "Gid:\t65534\t65534\t65534\t65534", "CapEff:\t0000000000000000"]
    {
        assert!(status.lines().any(|l| l == line), "no line {line:?} in\n{status}");
    }
    user.ok(&["exec", "root", "/probe", "read", "/proc/self/status"]).prints("Uid:\t0\t0\t0\t0");
    user.ok(&["exec", "web", "/probe", "append", "/data/notes", "of nobody"]);
    user.ok(&["exec", "root", "/probe", "append", "/data/notes", "and of root"]);
    user.ok(&["exec", "web", "/probe", "resolve", "web"]).prints(&user.replicas()[0].1);
    user.ok(&["load", "web", "--clients", "2", "--requests", "5"]).prints("10 requests");
    user.ok(&["logs", "web"]).prints("serving");
    is_measured(user);

    let before = user.processes();
    user.kill_supervisor();
    assert_eq!(user.replicas().len(), 2, "the next command takes them over");
    let programs = |all: &[(u32, String)]| -> Vec<u32> {
        all.iter().filter(|(_, line)| line.starts_with("/probe serve")).map(|(pid, _)| *pid).collect()
    };
    assert_eq!(programs(&user.processes()), programs(&before));
    user.ok(&["scale", "web=3"]);
    assert_eq!(user.replicas().len(), 3);
    assert!(answers(&user.published()));
    user.ok(&["down"]);
    user.assert_clean();
    let notes = user.folder.join(format!("home/volumes/{}_data/_data/notes", user.project));
    assert_eq!(
        std::fs::read_to_string(notes).expect("a volume outlives its app"),
        "of nobody\nand of root\n"
    );
    user.ok(&["rmi", "probe"]);
}

#[test]
fn an_ordinary_user_runs_containers() {
    const NAME: &str = "an_ordinary_user_runs_containers";
    if let Some(user) = User::new(NAME, 54_401) {
        life_in_containers(NAME, &user);
    }
}

#[test]
fn a_user_with_granted_ids_runs_containers() {
    const NAME: &str = "a_user_with_granted_ids_runs_containers";
    if let Some(user) = User::with_ids(NAME) {
        life_in_containers(NAME, &user);
    }
}

/// Without control groups all processes of a replica are stopped one by one.
fn is_paused_by_signals(user: &User) {
    let stopped = || {
        let programs = user.processes().into_iter().filter(|(_, line)| line.contains("serve"));
        let stat = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        programs.filter(|(pid, _)| stat(*pid).contains(") T ")).count()
    };
    user.ok(&["pause", "web", "--share", "1"]).says("web-1 paused");
    assert_eq!(stopped(), 1);
    user.ok(&["unpause", "web"]).says("web-1 goes on");
    assert_eq!(stopped(), 0);
    assert!(answers(&user.published()));
}

/// A node behind a link of 40 ms.
const ON_A_NODE: &str = "
services:
  web: {image: probe, build: ., command: [serve, '8124'], ports: ['127.0.0.1::8124']}
x-throng:
  nodes: {far: {replicas: 5, link: {latency: 40ms}}}
";

#[test]
fn nodes_of_an_ordinary_user_have_links_and_plain_processes_say_that_they_have_none() {
    const NAME: &str = "nodes_of_an_ordinary_user_have_links_and_plain_processes_say_that_they_have_none";
    let Some(user) = User::new(NAME, 54_407) else { return };
    user.app(ON_A_NODE, PLAIN_DOCKERFILE);
    let plain = user.ok(&["--isolation", "process", "up", "-d", "--wait"]);
    plain.says("links of nodes are not there");
    user.ok(&["down"]);
    if !Path::new("/dev/net/tun").exists() {
        return skip(NAME, "this kernel has no TAP interfaces");
    }
    let up = user.ok(&["up", "-d", "--wait"]);
    if !contained(NAME, &up) {
        return;
    }
    assert!(!up.err.contains("links of nodes"), "{}", up.err);
    let begin = Instant::now();
    assert!(answers(&user.published()));
    // There and back, for the connection and for the answer.
    assert!(begin.elapsed() >= Duration::from_millis(160), "{:?}", begin.elapsed());
    user.ok(&["node", "set", "far", "latency=0ms"]);
    let begin = Instant::now();
    assert!(answers(&user.published()));
    assert!(begin.elapsed() < Duration::from_millis(160), "{:?}", begin.elapsed());
    is_paused_by_signals(&user);
    user.ok(&["down"]);
    user.assert_clean();
}

#[test]
fn an_ordinary_user_runs_plain_processes() {
    const NAME: &str = "an_ordinary_user_runs_plain_processes";
    let Some(user) = User::new(NAME, 54_402) else { return };
    user.app(PROCESSES, PLAIN_DOCKERFILE);
    let plain = |arguments: &[&str]| user.ok(&[&["--isolation", "process"], arguments].concat());
    let up = plain(&["up", "-d", "--wait"]);
    let notes: Vec<&str> = up.err.lines().filter(|line| line.contains("plain processes")).collect();
    assert_eq!(notes.len(), 1, "{}", up.err);
    if notes[0].contains("THRONG_ADDRESS") {
        return skip(NAME, notes[0]);
    }
    let replicas = user.replicas();
    assert_eq!(replicas.len(), 3);
    for (name, address) in &replicas {
        assert!(answers(&format!("{address}:8123")), "{name} has its own address");
    }
    assert!(answers(&user.published()));
    assert_eq!(plain(&["exec", "--index", "2", "web", "/probe", "env", "HOSTNAME"]).out, "web-2\n");
    assert_eq!(user.run(&["exec", "web", "/probe", "exit", "7"]).code, 7);
    plain(&["logs", "web"]).prints("serving");

    user.kill_supervisor();
    for (name, address) in &replicas {
        assert!(answers(&format!("{address}:8123")), "{name} goes on alone");
    }
    plain(&["scale", "web=4"]);
    assert_eq!(user.replicas().len(), 4);
    plain(&["exec", "--index", "1", "web", "/probe", "get", "127.0.0.1:8123", "/"]);
    is_paused_by_signals(&user);
    plain(&["down"]);
    user.assert_clean();
    assert!(!answers(&format!("{}:8123", replicas[0].1)));
}

#[test]
fn plain_processes_of_two_users_are_in_nobodys_way() {
    const NAME: &str = "plain_processes_of_two_users_are_in_nobodys_way";
    let (Some(one), Some(other)) = (User::new(NAME, 54_408), User::new(NAME, 54_409)) else { return };
    let mut addresses = BTreeSet::new();
    for user in [&one, &other] {
        user.app(PROCESSES, PLAIN_DOCKERFILE);
        let up = user.ok(&["--isolation", "process", "up", "-d", "--wait"]);
        if up.err.contains("THRONG_ADDRESS") {
            return skip(NAME, up.err.trim());
        }
        for (name, address) in user.replicas() {
            assert!(answers(&format!("{address}:8123")), "{name} listens");
            assert!(addresses.insert(address.clone()), "{name} has {address}, which is another's");
        }
        // Its replicas alone tell where they are.
        user.kill_supervisor();
    }
    for user in [&one, &other] {
        user.ok(&["--isolation", "process", "down"]);
        user.assert_clean();
    }
}

/// A user namespace that allows no further ones, entered as root without a privilege.
const NO_MORE_NAMESPACES: &str = "echo 0 > /proc/sys/user/max_user_namespaces \\
    && exec setpriv --bounding-set=-all --inh-caps=-all --ambient-caps=-all \"$0\" \"$@\"";

#[test]
fn where_user_namespaces_are_refused_processes_are_chosen() {
    const NAME: &str = "where_user_namespaces_are_refused_processes_are_chosen";
    let Some(user) = User::new(NAME, 54_405) else { return };
    user.app(PROCESSES, PLAIN_DOCKERFILE);
    let way = ["unshare", "--user", "--map-root-user", "/bin/sh", "-c", NO_MORE_NAMESPACES];
    let refused = user.run_by(&way, &["--isolation", "container", "up", "-d", "--wait"]);
    if refused.err.contains("unshare failed") || refused.err.contains("max_user_namespaces: ") {
        return skip(NAME, &refused.err);
    }
    assert_eq!(refused.code, 4, "{}", refused.err);
    refused.says("the limit user.max_user_namespaces is reached").says("hint:");
    let up = user.run_by(&way, &["up", "-d", "--wait"]);
    assert_eq!(up.code, 0, "{}", up.err);
    let notes: Vec<&str> = up.err.lines().filter(|line| line.contains("note:")).collect();
    assert_eq!(notes.len(), 1, "{}", up.err);
    assert!(notes[0].contains("process: replicas are plain processes"), "{}", notes[0]);
    assert!(notes[0].contains("no user namespace: the limit"), "{}", notes[0]);
    assert_eq!(user.replicas().len(), 3);
    assert!(answers(&user.published()));
    user.ok(&["down"]);
    user.assert_clean();
}

#[test]
fn an_ordinary_user_runs_the_example() {
    const NAME: &str = "an_ordinary_user_runs_the_example";
    let Some(program) = pdfmagic() else {
        return skip(NAME, "workloads/pdfmagic/dist is empty; `cargo xtask dist` fills it");
    };
    for (isolation, uid) in [("auto", 54_403), ("process", 54_404)] {
        let Some(user) = User::new(NAME, uid) else { return };
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let read = |path: &str| std::fs::read_to_string(root.join(path)).expect(path);
        let compose = read("examples/pdfmagic/compose.yaml");
        user.write(
            "app/compose.yaml",
            &compose.replace("../../workloads/pdfmagic/", "../").replace("8080:8080", "8080"),
        );
        user.write("app/experiment.yaml", &read("examples/pdfmagic/experiment.yaml"));
        user.write("Dockerfile", &read("workloads/pdfmagic/Dockerfile"));
        std::fs::create_dir_all(user.folder.join("dist/results")).expect("a folder");
        std::fs::copy(&program, user.folder.join("dist/pdfmagic")).expect("a copy");
        user.own();
        let arguments = [
            "--isolation",
            isolation,
            "run",
            "app",
            "--set",
            "requests=3",
            "--set",
            "clients=2",
            "--out",
            "report",
        ];
        user.ok(&arguments).prints("passed");
        assert!(user.folder.join("report/report.html").exists());
        user.assert_clean();
    }
}

#[test]
fn a_thousand_containers_of_an_ordinary_user() {
    const TEST: &str = "a_thousand_containers_of_an_ordinary_user";
    const REPLICAS: usize = 1_000;
    let Some(user) = User::new(TEST, 54_406) else { return };
    let web = "{image: probe, build: ., command: [serve, '80'], ports: ['127.0.0.1::80']}";
    user.app(&format!("services:\n  web: {web}\n"), PLAIN_DOCKERFILE);
    let up = user.ok(&["up", "-d", "--wait"]);
    if !contained(TEST, &up) {
        return;
    }
    user.ok(&["scale", &format!("web={REPLICAS}")]);
    let replicas = user.replicas();
    let addresses: BTreeSet<&String> = replicas.iter().map(|(_, address)| address).collect();
    assert_eq!(addresses.len(), REPLICAS, "each has an address of its own");
    // Who answers is chosen among all: twenty answers of the same one are as good as impossible.
    let published = user.published();
    let answered: BTreeSet<String> =
        (0..20).map(|_| support::web::get(&published, "/").expect("an answer").body).collect();
    assert!(answered.len() > 10, "{answered:?}");
    user.ok(&["down"]);
    user.assert_clean();
}
