//! The real program on a free port of loopback, and requests over real sockets.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Longer than anything that should happen here takes, so that a hang is a failure.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Server {
    child: Child,
    stderr: BufReader<std::process::ChildStderr>,
    pub address: SocketAddr,
}

impl Server {
    pub fn start(arguments: &[&str]) -> Self {
        let mut program = Command::new(env!("CARGO_BIN_EXE_pdfmagic"));
        program.arg("serve").args(arguments);
        Self::spawn(program)
    }

    /// `command` is the program, or something that becomes it and keeps its process id.
    pub fn spawn(mut command: Command) -> Self {
        let mut child = command
            .env("PDFMAGIC_LISTEN", "127.0.0.1:0")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let mut server = Server { child, stderr, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        let line = server.said();
        let address = line.trim().rsplit("http://").next().unwrap().trim_end_matches('/').parse();
        server.address = address.unwrap_or_else(|_| panic!("it said {line:?}"));
        server
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    pub fn get(&self, path: &str) -> Answer {
        self.send("GET", path, "", b"")
    }

    /// `headers` are whole lines, each with its line end.
    pub fn send(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Answer {
        let mut stream = self.connect();
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        Answer::read(&mut BufReader::new(stream))
    }

    pub fn upload(&self, field: &str, file_name: &str, image: &[u8]) -> Answer {
        let (headers, body) = form(field, file_name, image);
        self.send("POST", "/", &headers, &body)
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, signal).unwrap();
    }

    pub fn wait(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(start.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until the metrics have this line.
    pub fn wait_for_metric(&self, line: &str) {
        let start = Instant::now();
        loop {
            let metrics = self.get("/metrics").text();
            if metrics.lines().any(|found| found == line) {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "never {line} in\n{metrics}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The next line on standard error.
    pub fn said(&mut self) -> String {
        let mut line = String::new();
        self.stderr.read_line(&mut line).unwrap();
        line
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Ended already in the tests that end it themselves.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The head of a request with an image of so many bytes, which are still to come.
pub fn unfinished(server: &Server, length: usize) -> TcpStream {
    let mut stream = server.connect();
    let head =
        format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream
}

/// A form with one file: its headers and its body.
pub fn form(field: &str, file_name: &str, image: &[u8]) -> (String, Vec<u8>) {
    let mut body = format!(
        "--edge\r\nContent-Disposition: form-data; name=\"{field}\"; filename=\"{file_name}\"\r\n\
         Content-Type: application/octet-stream\r\n\r\n"
    )
    .into_bytes();
    body.extend(image);
    body.extend(b"\r\n--edge--\r\n");
    ("Content-Type: multipart/form-data; boundary=edge\r\n".to_owned(), body)
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HashMap<String, String>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn read(stream: &mut impl BufRead) -> Self {
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        let status = line.split(' ').nth(1).unwrap_or_else(|| panic!("not HTTP: {line:?}")).parse().unwrap();
        let mut headers = HashMap::new();
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).unwrap();
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        stream.read_exact(&mut body).unwrap();
        Answer { status, headers, body }
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}
