//! Replicas and clients made by hand, so that every byte and every close is the test's own.

#![allow(dead_code)] // Each test binary uses a part of this.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use throng_proxy::{Backend, Limits, ProtocolHint, Proxy, ProxyConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// Longer than anything here takes on a busy machine; only a failing test waits this long.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

pub fn proxy_with(protocol: ProtocolHint, change: impl FnOnce(&mut Limits)) -> Proxy {
    let mut config = ProxyConfig { protocol, seed: 42, ..ProxyConfig::new(loopback()) };
    config.limits.workers = 2;
    change(&mut config.limits);
    Proxy::bind(config, None).unwrap()
}

pub fn proxy() -> Proxy {
    proxy_with(ProtocolHint::Detect, |_| ())
}

/// Fails the test instead of hanging it.
pub async fn within<F: Future>(what: &str, future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what} did not happen"))
}

/// Looks again and again until `condition` holds.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    within(what, async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// A replica that counts its connections and the requests it was sent, and ends with the test.
pub struct Replica {
    pub name: String,
    pub address: SocketAddr,
    pub seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
pub struct Seen {
    pub connections: usize,
    /// Whole heads in the order they came.
    pub heads: Vec<String>,
}

impl Replica {
    /// Serves every connection with `behave`, which gets the connection and its number from 0.
    pub async fn start<F, Fut>(name: &str, behave: F) -> Replica
    where
        F: Fn(Wire, usize) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(loopback()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let task = tokio::spawn({
            let seen = seen.clone();
            async move {
                let mut connections = tokio::task::JoinSet::new();
                while let Ok((stream, _)) = listener.accept().await {
                    let number = {
                        let mut seen = seen.lock().unwrap();
                        seen.connections += 1;
                        seen.connections - 1
                    };
                    connections.spawn(behave(Wire::new(stream, seen.clone()), number));
                }
            }
        });
        Replica { name: name.into(), address, seen, task }
    }

    /// Answers every request with its own name, keeping connections open.
    pub async fn named(name: &str) -> Replica {
        let body = name.to_owned();
        Replica::start(name, move |mut wire, _| {
            let body = body.clone();
            async move {
                while let Some(request) = wire.request().await {
                    wire.drain_body(&request).await;
                    wire.answer(&body).await;
                }
            }
        })
        .await
    }

    pub fn backend(&self) -> Backend {
        Backend { name: self.name.clone(), address: self.address }
    }

    pub fn requests(&self) -> usize {
        self.seen.lock().unwrap().heads.len()
    }

    pub fn requests_with(&self, method: &str) -> usize {
        self.seen.lock().unwrap().heads.iter().filter(|h| h.starts_with(method)).count()
    }

    pub fn connections(&self) -> usize {
        self.seen.lock().unwrap().connections
    }

    pub fn last_head(&self) -> String {
        self.seen.lock().unwrap().heads.last().cloned().unwrap_or_default()
    }

    /// Dies: its listener and all its connections are closed at once.
    pub async fn kill(self) -> SocketAddr {
        self.task.abort();
        let address = self.address;
        eventually("the replica's end", || self.task.is_finished()).await;
        address
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An address nobody listens on. The socket stays bound (and unlistened) so that nobody else takes the port.
pub fn dead_address() -> (SocketAddr, socket2::Socket) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&loopback().into()).unwrap();
    (socket.local_addr().unwrap().as_socket().unwrap(), socket)
}

/// One connection, read by the head and by the byte.
pub struct Wire {
    pub stream: TcpStream,
    pub buffer: Vec<u8>,
    seen: Arc<Mutex<Seen>>,
}

impl Wire {
    pub fn new(stream: TcpStream, seen: Arc<Mutex<Seen>>) -> Wire {
        stream.set_nodelay(true).unwrap();
        Wire { stream, buffer: Vec::new(), seen }
    }

    pub async fn connect(address: SocketAddr) -> Wire {
        Wire::new(within("connecting", TcpStream::connect(address)).await.unwrap(), Arc::default())
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within("sending", self.stream.write_all(bytes.as_ref())).await.unwrap();
    }

    async fn fill(&mut self) -> std::io::Result<usize> {
        within("reading", self.stream.read_buf(&mut self.buffer)).await
    }

    /// Reads through the next empty line; `None` if the connection ends first.
    pub async fn head(&mut self) -> Option<String> {
        loop {
            if let Some(at) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n") {
                let head = self.buffer.drain(..at + 4).collect();
                return Some(String::from_utf8(head).unwrap());
            }
            if !matches!(self.stream.read_buf(&mut self.buffer).await, Ok(1..)) {
                return None;
            }
        }
    }

    /// A replica's next request, which is counted.
    pub async fn request(&mut self) -> Option<String> {
        let head = self.head().await?;
        self.seen.lock().unwrap().heads.push(head.clone());
        Some(head)
    }

    /// Exactly `n` bytes, or what came before the end.
    pub async fn take(&mut self, n: usize) -> Vec<u8> {
        while self.buffer.len() < n && matches!(self.fill().await, Ok(1..)) {}
        let n = n.min(self.buffer.len());
        self.buffer.drain(..n).collect()
    }

    /// Everything to the end of the connection, and whether that was a proper end.
    pub async fn rest(&mut self) -> (Vec<u8>, bool) {
        loop {
            match self.fill().await {
                Ok(0) => return (std::mem::take(&mut self.buffer), true),
                Ok(_) => {}
                Err(_) => return (std::mem::take(&mut self.buffer), false),
            }
        }
    }

    pub async fn drain_body(&mut self, head: &str) {
        if let Some(length) = field(head, "content-length") {
            self.take(length.parse().unwrap()).await;
        } else if field(head, "transfer-encoding").is_some() {
            self.chunks().await;
        }
    }

    /// A whole chunked body: its data and its trailers.
    pub async fn chunks(&mut self) -> (Vec<u8>, String) {
        let mut data = Vec::new();
        loop {
            let line = self.line().await;
            let size = usize::from_str_radix(line.split(';').next().unwrap(), 16).unwrap();
            if size == 0 {
                break;
            }
            data.extend(self.take(size).await);
            assert_eq!(self.line().await, "");
        }
        let mut trailers = String::new();
        loop {
            match self.line().await {
                line if line.is_empty() => return (data, trailers),
                line => trailers += &format!("{line}\n"),
            }
        }
    }

    pub async fn line(&mut self) -> String {
        loop {
            if let Some(at) = self.buffer.windows(2).position(|w| w == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..at + 2).collect();
                return String::from_utf8(line[..at].to_vec()).unwrap();
            }
            assert!(matches!(self.fill().await, Ok(1..)), "the connection ended within a line");
        }
    }

    pub async fn answer(&mut self, body: &str) {
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        // The client may be gone; that is its own affair.
        let _ = self.stream.write_all(answer.as_bytes()).await;
    }

    /// A client's answer: status, fields with lower-case names, body.
    pub async fn response(&mut self) -> Response {
        let head = within("an answer", self.head()).await.expect("an answer before the end");
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut response = Response { status, head: head.clone(), body: String::new() };
        if let Some(length) = field(&head, "content-length") {
            let body = self.take(length.parse().unwrap()).await;
            response.body = String::from_utf8(body).unwrap();
        }
        response
    }

    pub async fn get(&mut self, path: &str) -> Response {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
        self.response().await
    }
}

#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Response {
    pub fn field(&self, name: &str) -> Option<String> {
        field(&self.head, name)
    }
}

/// A header field's value by its name in lower case.
pub fn field(head: &str, name: &str) -> Option<String> {
    head.lines().skip(1).find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.to_ascii_lowercase() == name).then(|| value.trim().to_owned())
    })
}

/// One request on a connection of its own.
pub async fn get(proxy: &Proxy, path: &str) -> Response {
    Wire::connect(proxy.local_addr()).await.get(path).await
}

/// Counts who answered.
pub async fn answers(proxy: &Proxy, requests: usize) -> BTreeMap<String, usize> {
    let mut client = Wire::connect(proxy.local_addr()).await;
    let mut counts = BTreeMap::new();
    for _ in 0..requests {
        *counts.entry(client.get("/").await.body).or_default() += 1;
    }
    counts
}
