//! A small HTTP client and a small HTTP server, so that tests depend on nothing that they test.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// An answer that came whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

/// One GET on a connection of its own. An answer that ends before its announced length is an error.
pub fn get(address: &str, path: &str) -> std::io::Result<Answer> {
    answer(ask(address, path)?)
}

/// Sends one GET on a connection of its own.
pub fn ask(address: &str, path: &str) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(super::PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    Ok(stream)
}

/// What comes back. An answer that ends before its announced length is an error.
pub fn answer(stream: TcpStream) -> std::io::Result<Answer> {
    let mut reader = BufReader::new(stream);
    let (first, length) = head(&mut reader)?;
    let cut = || std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
    let status = first.split(' ').nth(1).and_then(|text| text.parse().ok()).ok_or_else(cut)?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Answer { status, body: String::from_utf8_lossy(&body).into_owned() })
}

/// An answer whose head and first bytes have come.
pub struct Partial {
    reader: BufReader<TcpStream>,
    left: usize,
}

impl Partial {
    pub fn begin(address: &str, path: &str) -> std::io::Result<Partial> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(super::PATIENCE))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n")?;
        let mut reader = BufReader::new(stream);
        let (_, length) = head(&mut reader)?;
        let mut first = [0; 1];
        reader.read_exact(&mut first)?;
        Ok(Partial { reader, left: length - 1 })
    }

    /// Reads to the announced end; one that comes early is an error.
    pub fn rest(&mut self) -> std::io::Result<()> {
        let mut rest = vec![0; self.left];
        self.reader.read_exact(&mut rest)
    }
}

/// First line and announced length.
fn head(reader: &mut impl BufRead) -> std::io::Result<(String, usize)> {
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            return Ok((first, length));
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
    }
}

/// Answers every request with 200, or with 500 while it is told to, after a pause.
pub struct Server {
    pub port: u16,
    pub requests: Arc<AtomicU64>,
    pub failing: Arc<AtomicBool>,
}

impl Server {
    pub fn start(pause: Duration) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let server = Server { port, requests: Arc::default(), failing: Arc::default() };
        let (requests, failing) = (server.requests.clone(), server.failing.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (requests, failing) = (requests.clone(), failing.clone());
                // A client that leaves in the middle is no concern of the next one.
                std::thread::spawn(move || drop(answer_all(stream, pause, &requests, &failing)));
            }
        });
        server
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }
}

fn answer_all(
    stream: TcpStream,
    pause: Duration,
    requests: &AtomicU64,
    failing: &AtomicBool,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    loop {
        let (first, length) = head(&mut reader)?;
        if first.is_empty() {
            return Ok(());
        }
        std::io::copy(&mut (&mut reader).take(length as u64), &mut std::io::sink())?;
        requests.fetch_add(1, Ordering::SeqCst);
        std::thread::sleep(pause);
        let status = if failing.load(Ordering::SeqCst) { "500 Internal Server Error" } else { "200 OK" };
        write!(reader.get_mut(), "HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nok")?;
    }
}

/// A port of loopback that was free a moment ago, from below the range that the kernel gives out by itself.
pub fn free_port() -> u16 {
    let first = 20_000 + (std::process::id() % 10_000) as u16;
    static NEXT: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(0);
    loop {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}
