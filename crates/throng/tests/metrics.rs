//! The app's figures: for Prometheus as it really is, and for people at a terminal.

mod support;

use rustix::process::Signal;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use support::{Bench, Running, skip, until, web};

const CROWD: &str = "
services:
  web:
    image: probe
    command: [serve, '80']
    ports: ['127.0.0.1::80']
    labels: {prometheus.io/port: '80'}
    deploy: {replicas: 3, resources: {limits: {memory: 64M}}}
  quiet: {image: probe, command: [serve, '80']}
";

fn present(program: &str) -> bool {
    let ran = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    ran.is_ok_and(|status| status.success())
}

/// A GET whose answer ends with the connection: HTTP/1.0 has no chunks.
fn ask(address: &str, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(support::PATIENCE)).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}

/// `throng metrics --listen` on a free port, and where it listens.
fn listening(bench: &Bench) -> (Running, String) {
    let mut metrics = bench.spawn(&["metrics", "--listen", "127.0.0.1:0"]);
    metrics.says("/sd");
    let said = metrics.err();
    let address = said.split("http://").nth(1).and_then(|rest| rest.split('/').next()).expect("an address");
    let address = address.to_owned();
    (metrics, address)
}

/// The value of a series in the text format, by its whole name.
fn value(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
}

#[test]
fn figures_are_bounded_valid_and_true() {
    let Some(bench) = Bench::with_probe("figures_are_bounded_valid_and_true") else { return };
    bench.compose(CROWD);
    bench.ok(&["up", "-d", "--wait"]);
    let all = until("a reading of every replica", || {
        let text = bench.ok(&["metrics"]).out;
        (text.matches("\nthrong_replica_memory_bytes{").count() == 4).then_some(text)
    });
    for (series, expected) in [
        ("throng_service_replicas{service=\"web\",state=\"running\"}", 3.0),
        ("throng_service_replicas_wanted{service=\"web\"}", 3.0),
        ("throng_service_replicas_ready{service=\"quiet\"}", 1.0),
        ("throng_service_starts_total{service=\"web\",result=\"started\"}", 3.0),
        ("throng_start_duration_seconds_count", 4.0),
        ("throng_replica_memory_limit_bytes{service=\"web\",replica=\"web-2\"}", f64::from(64 << 20)),
        ("throng_replicas_omitted", 0.0),
    ] {
        assert_eq!(value(&all, series), Some(expected), "{series}\n{all}");
    }
    assert!(value(&all, "throng_service_memory_bytes{service=\"web\"}").is_some_and(|bytes| bytes > 0.0));
    let few = bench.ok(&["metrics", "--replicas", "1"]).out;
    assert_eq!(few.matches("\nthrong_replica_running{").count(), 1);
    assert_eq!(value(&few, "throng_replicas_omitted"), Some(3.0), "what is left out is said");
    if present("promtool") {
        let mut lint = Command::new("promtool");
        lint.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut lint = lint.spawn().expect("promtool starts");
        lint.stdin.take().expect("its input").write_all(all.as_bytes()).expect("it reads");
        let said = lint.wait_with_output().expect("it ends");
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    }

    bench.fails(2, &["metrics", "--listen", "0.0.0.0:0"]).says("no password").says("hint:");
    let (metrics, address) = listening(&bench);
    assert_eq!(web::get(&address, "/nothing").expect("an answer").status, 404);
    assert_eq!(web::get(&address, "/sd?service=nobody").expect("an answer").status, 404);
    assert_eq!(web::get(&address, "/sd?port=9").expect("an answer").status, 400);
    let asked: Value =
        serde_json::from_str(&ask(&address, "/sd?service=quiet&port=80&path=/m").expect("targets"))
            .expect("JSON");
    assert_eq!(asked.as_array().map(Vec::len), Some(1));
    assert_eq!(
        (&asked[0]["labels"]["__metrics_path__"], &asked[0]["labels"]["replica"]),
        (&Value::from("/m"), &Value::from("quiet-1"))
    );
    bench.ok(&["down"]);
    let gone = web::get(&address, "/metrics").expect("an answer");
    assert_eq!((gone.status, gone.body.contains("is up")), (503, true), "{}", gone.body);
    metrics.signal(Signal::INT);
    assert_eq!(metrics.wait().code, 0);
    bench.assert_clean();
}

#[test]
fn prometheus_scrapes_the_app_and_its_replicas() {
    const NAME: &str = "prometheus_scrapes_the_app_and_its_replicas";
    if !present("prometheus") {
        skip(NAME, "prometheus is not installed (Debian: prometheus)");
        return;
    }
    let Some(bench) = Bench::with_probe(NAME) else { return };
    bench.compose(CROWD);
    bench.ok(&["up", "-d", "--wait"]);
    let (_metrics, address) = listening(&bench);
    let config = format!(
        "global: {{scrape_interval: 1s}}\nscrape_configs:\n\
         - {{job_name: throng, static_configs: [{{targets: ['{address}']}}]}}\n\
         - {{job_name: replicas, http_sd_configs: [{{url: 'http://{address}/sd', refresh_interval: 1s}}]}}\n"
    );
    let config = bench.write("prometheus.yml", &config);
    // Free now; somebody else may take it before Prometheus does, which then says so and ends.
    let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port");
    let mut command = Command::new("prometheus");
    command
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", bench.folder.join("tsdb").display()))
        .arg(format!("--web.listen-address={port}"))
        .stdin(Stdio::null());
    let prometheus = bench.spawn_with(command);

    let query = |expression: &str| {
        let body = ask(&port.to_string(), &format!("/api/v1/query?query={expression}"))?;
        let answer: Value = serde_json::from_str(&body).ok()?;
        Some(answer["data"]["result"].as_array()?.clone())
    };
    let three = |expression: &str| {
        let found = until(expression, || query(expression).filter(|found| found.len() == 3));
        let mut replicas: Vec<String> = found
            .iter()
            .map(|one| {
                assert_eq!(one["metric"]["project"], bench.project.as_str(), "{one}");
                one["metric"]["replica"].as_str().expect("a label").to_owned()
            })
            .collect();
        replicas.sort();
        replicas
    };
    assert_eq!(three("probe_info"), ["web-1", "web-2", "web-3"], "{}", prometheus.err());
    let wanted = "throng_service_replicas_wanted%7Bservice=%22web%22%7D";
    let of_web = until("the supervisor's figures", || query(wanted).filter(|found| !found.is_empty()));
    assert_eq!(of_web[0]["value"][1], "3");

    // What leaves is no target any more, and what comes is one.
    bench.ok(&["scale", "web=2"]);
    until("two targets", || query("up%7Bjob=%22replicas%22%7D==1").filter(|found| found.len() == 2));
    drop(prometheus);
    bench.ok(&["down"]);
}

/// A terminal of its own for one command.
struct Terminal {
    socket: String,
}

impl Terminal {
    fn new(bench: &Bench, width: u16, height: u16, arguments: &str) -> Terminal {
        // A server that is about to end still takes connections: each terminal has one of its own.
        static SERVERS: AtomicU32 = AtomicU32::new(0);
        let number = SERVERS.fetch_add(1, Ordering::Relaxed);
        let terminal = Terminal { socket: format!("throng-{}-{number}", bench.project) };
        let command = format!(
            "THRONG_HOME={} {} {arguments}; echo ended with $?; read -r _",
            bench.home.display(),
            env!("CARGO_BIN_EXE_throng"),
        );
        let (width, height) = (width.to_string(), height.to_string());
        let size = ["-x", &width, "-y", &height];
        let folder = bench.folder.display().to_string();
        terminal.tmux(&[&["new-session", "-d", "-c", &folder], &size[..], &[&command]].concat());
        terminal
    }

    fn tmux(&self, arguments: &[&str]) -> String {
        let output = Command::new("tmux")
            .args(["-f", "/dev/null", "-L", &self.socket])
            .args(arguments)
            .output()
            .expect("tmux runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn press(&self, keys: &[&str]) {
        self.tmux(&[&["send-keys"], keys].concat());
    }

    /// The screen once it holds a text.
    #[track_caller]
    fn shows(&self, text: &str) -> String {
        until(text, || Some(self.tmux(&["capture-pane", "-p"])).filter(|screen| screen.contains(text)))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.tmux(&["kill-server"]);
    }
}

#[test]
fn top_is_a_live_screen_on_a_terminal() {
    const NAME: &str = "top_is_a_live_screen_on_a_terminal";
    if !Command::new("tmux").arg("-V").stdout(Stdio::null()).status().is_ok_and(|status| status.success()) {
        skip(NAME, "tmux is not installed (Debian: tmux)");
        return;
    }
    let Some(bench) = Bench::with_probe(NAME) else { return };
    bench.compose(CROWD);
    bench.ok(&["up", "-d", "--wait"]);
    let terminal = Terminal::new(&bench, 80, 24, "top");
    // With the first readings.
    let screen = terminal.shows("/ 64M");
    for text in ["1-4 of 4", "4 of 4 ready", "host  CPU", "SERVICE", "3/3", "CPU % ▼", "q quit"] {
        assert!(screen.contains(text), "no {text:?} on\n{screen}");
    }
    terminal.press(&["n"]);
    terminal.shows("REPLICA ▲");
    terminal.press(&["/", "w", "e", "b", "-", "2", "Enter"]);
    let screen = terminal.shows("1-1 of 1");
    assert!(screen.contains("web-2") && !screen.contains("web-3"), "{screen}");
    terminal.press(&["Escape"]);
    terminal.shows("1-4 of 4");
    bench.ok(&["scale", "web=2"]);
    terminal.shows("3 of 3 ready");
    terminal.press(&["q"]);
    let screen = terminal.shows("ended with 0");
    assert!(!screen.contains("REPLICA"), "the terminal is as it was:\n{screen}");
    drop(terminal);

    let terminal = Terminal::new(&bench, 80, 24, "top web");
    terminal.shows("1-2 of 2");
    terminal.press(&["C-c"]);
    terminal.shows("ended with 0");
    drop(terminal);
    let terminal = Terminal::new(&bench, 80, 24, "top --no-stream");
    assert!(terminal.shows("ended with 0").contains("MEM USAGE / LIMIT"));
    drop(terminal);
    // An app that goes leaves no broken terminal.
    let terminal = Terminal::new(&bench, 80, 24, "top");
    terminal.shows("q quit");
    bench.ok(&["down"]);
    terminal.shows("ended with 3");
}
