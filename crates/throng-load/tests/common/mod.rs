//! A small HTTP server on threads that does exactly what a test wants, right or wrong.
#![allow(dead_code)] // each test binary uses a part of it

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use throng_load::{LoadSpec, Progress, Requests, Schedule};
use throng_model::run::LoadResult;
use tokio_util::sync::CancellationToken;

pub struct Request {
    pub line: String,
    pub head: String,
    pub body: Vec<u8>,
    /// How many requests the server had before this one.
    pub number: u64,
}

pub enum Reply {
    Keep(Vec<u8>),
    /// Send, then close.
    Close(Vec<u8>),
    /// Send, then reset the connection.
    Reset(Vec<u8>),
    /// Say nothing for as long as the client stays.
    Hang,
}

pub fn ok(body: &str) -> Reply {
    Reply::Keep(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes())
}

pub fn status(code: u16, fields: &str) -> Reply {
    Reply::Keep(format!("HTTP/1.1 {code} X\r\n{fields}Content-Length: 0\r\n\r\n").into_bytes())
}

pub struct Server {
    pub address: SocketAddr,
    pub requests: Arc<AtomicU64>,
    pub connections: Arc<AtomicU64>,
}

impl Server {
    /// Serves until the test's process ends.
    pub fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (requests, connections) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (handler, count, accepted) = (Arc::new(handler), requests.clone(), connections.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                accepted.fetch_add(1, Ordering::SeqCst);
                let (handler, count) = (handler.clone(), count.clone());
                std::thread::spawn(move || serve(stream, &*handler, &count));
            }
        });
        Server { address, requests, connections }
    }

    pub fn url(&self) -> url::Url {
        format!("http://{}/", self.address).parse().expect("a URL")
    }

    pub fn served(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }
}

fn serve(stream: TcpStream, handler: &dyn Fn(&Request) -> Reply, count: &AtomicU64) {
    stream.set_nodelay(true).expect("no delay");
    let mut writer = stream.try_clone().expect("a second handle");
    let mut reader = BufReader::new(stream);
    while let Some(request) = read(&mut reader, count) {
        let written = match handler(&request) {
            Reply::Keep(bytes) => writer.write_all(&bytes),
            Reply::Close(bytes) => {
                let _ = writer.write_all(&bytes);
                return;
            }
            Reply::Reset(bytes) => {
                let _ = writer.write_all(&bytes);
                // The client reads what was sent before the reset throws the rest away.
                std::thread::sleep(Duration::from_millis(20));
                rustix::net::sockopt::set_socket_linger(&writer, Some(Duration::ZERO)).expect("linger");
                return;
            }
            Reply::Hang => {
                let _ = reader.read(&mut [0]);
                return;
            }
        };
        if written.is_err() {
            return;
        }
    }
}

fn read(reader: &mut BufReader<TcpStream>, count: &AtomicU64) -> Option<Request> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let length = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map_or(0, |(_, value)| value.trim().parse().expect("a length"));
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let line = head.lines().next().unwrap_or_default().to_owned();
    Some(Request { line, head, body, number: count.fetch_add(1, Ordering::SeqCst) })
}

pub fn closed(url: url::Url, clients: u32, requests: Requests) -> LoadSpec {
    LoadSpec::new(url, Schedule::Closed { clients, requests, think: Duration::ZERO })
}

pub fn run(spec: LoadSpec) -> LoadResult {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (progress, _) = tokio::sync::watch::channel(Progress::default());
    runtime.block_on(throng_load::run(spec, progress, CancellationToken::new())).expect("the load runs")
}
