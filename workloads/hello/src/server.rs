//! The server: HTTP/1.1 on one thread, connections kept open, nothing read that is not a request's head.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// The longest request head; a longer one is answered with 431.
const HEAD_MOST: usize = 4 << 10;
const HEADERS_MOST: usize = 32;
/// Between failed attempts to take a connection, when files run out, say.
const PAUSE: Duration = Duration::from_millis(50);

#[derive(clap::Args)]
pub struct Options {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:8080", env = "HELLO_LISTEN")]
    listen: SocketAddr,
    /// Milliseconds that each answer to `/` takes, as if there were work to do
    #[arg(long, default_value_t = 0, value_name = "MS")]
    delay: u64,
    /// Connections at the same time; others wait
    #[arg(long, default_value_t = 1024, value_name = "N")]
    max_connections: usize,
    /// Seconds that a connection may stay open without a request
    #[arg(long, default_value_t = 75, value_name = "S")]
    idle: u64,
    /// Seconds that connections are left to end after SIGTERM
    #[arg(long, default_value_t = 5, value_name = "S")]
    grace: u64,
}

struct Server {
    name: String,
    delay: Duration,
    idle: Duration,
    requests: AtomicU64,
}

/// Serves until SIGTERM or SIGINT.
pub fn run(options: &Options) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(options))
}

async fn serve(options: &Options) -> io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let listener = TcpListener::bind(options.listen).await.map_err(|error| {
        io::Error::new(error.kind(), format!("cannot listen on {}: {error}", options.listen))
    })?;
    let server = Arc::new(Server {
        name: rustix::system::uname().nodename().to_string_lossy().into_owned(),
        delay: Duration::from_millis(options.delay),
        idle: Duration::from_secs(options.idle),
        requests: AtomicU64::new(0),
    });
    println!("{} listens on {}", server.name, listener.local_addr()?);
    let places = Arc::new(Semaphore::new(options.max_connections.clamp(1, Semaphore::MAX_PERMITS)));
    let mut connections = JoinSet::new();
    loop {
        let place = places.clone().acquire_owned();
        let accepted = async {
            let place = place.await.map_err(io::Error::other)?;
            Ok::<_, io::Error>((listener.accept().await?.0, place))
        };
        tokio::select! {
            accepted = accepted => match accepted {
                Ok((stream, place)) => {
                    let server = server.clone();
                    connections.spawn(async move {
                        // A broken connection concerns its client only.
                        let _ = server.connection(stream).await;
                        drop(place);
                    });
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            },
            Some(_) = connections.join_next() => {}
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    drop(listener);
    // Idle ones do not end by themselves; nothing is lost with them.
    let ended = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(Duration::from_secs(options.grace).min(server.idle_grace()), ended).await;
    Ok(())
}

/// A request as far as it matters.
struct Request {
    path: String,
    head: bool,
    /// Bytes of the head, which the next request follows.
    length: usize,
    close: bool,
}

enum Parsed {
    Whole(Request),
    Partial,
    /// Status line of the refusal, after which the connection ends.
    Refused(&'static str),
}

impl Server {
    /// What is under way ends within an answer's time.
    fn idle_grace(&self) -> Duration {
        self.delay + Duration::from_millis(200)
    }

    async fn connection(&self, mut stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut buffer = Vec::new();
        loop {
            match parse(&buffer) {
                Parsed::Partial => {
                    buffer.reserve(1024);
                    let read = tokio::time::timeout(self.idle, stream.read_buf(&mut buffer)).await??;
                    if read == 0 {
                        return Ok(());
                    }
                }
                Parsed::Whole(request) => {
                    buffer.drain(..request.length);
                    let answer = self.answer(&request).await;
                    stream.write_all(&answer).await?;
                    if request.close {
                        return stream.shutdown().await;
                    }
                }
                Parsed::Refused(status) => {
                    stream.write_all(&response(status, "", true, false)).await?;
                    return stream.shutdown().await;
                }
            }
        }
    }

    async fn answer(&self, request: &Request) -> Vec<u8> {
        let requests = self.requests.fetch_add(1, Relaxed) + 1;
        let (status, text) = match request.path.as_str() {
            "/" => {
                if !self.delay.is_zero() {
                    tokio::time::sleep(self.delay).await;
                }
                ("200 OK", format!("hello from {}\n", self.name))
            }
            "/healthz" => ("200 OK", "ok\n".to_owned()),
            "/metrics" => {
                ("200 OK", format!("# TYPE hello_requests_total counter\nhello_requests_total {requests}\n"))
            }
            _ => ("404 Not Found", "there is nothing here but /, /healthz and /metrics\n".to_owned()),
        };
        response(status, &text, request.close, request.head)
    }
}

fn response(status: &str, text: &str, close: bool, head: bool) -> Vec<u8> {
    let connection = if close { "Connection: close\r\n" } else { "" };
    let body = if head { "" } else { text };
    let length = text.len();
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n{connection}\r\n{body}"
    )
    .into_bytes()
}

fn parse(bytes: &[u8]) -> Parsed {
    if bytes.is_empty() {
        return Parsed::Partial;
    }
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MOST];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => whole(&request, length),
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_MOST => Parsed::Partial,
        Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
            Parsed::Refused("431 Request Header Fields Too Large")
        }
        Err(_) => Parsed::Refused("400 Bad Request"),
    }
}

fn named<'a>(
    request: &'a httparse::Request<'_, '_>,
    name: &'static str,
) -> impl Iterator<Item = &'a httparse::Header<'a>> {
    request.headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name))
}

fn whole(request: &httparse::Request<'_, '_>, length: usize) -> Parsed {
    // A body would be taken for the next request.
    let empty = named(request, "content-length").all(|header| header.value == b"0");
    if !empty || named(request, "transfer-encoding").next().is_some() {
        return Parsed::Refused("413 Content Too Large");
    }
    let method = request.method.unwrap_or_default();
    if !matches!(method, "GET" | "HEAD") {
        return Parsed::Refused("405 Method Not Allowed");
    }
    let says = |header: &httparse::Header<'_>, word: &[u8]| {
        header.value.split(|byte| *byte == b',').any(|part| part.trim_ascii().eq_ignore_ascii_case(word))
    };
    let close = named(request, "connection").any(|header| says(header, b"close"));
    let keep = named(request, "connection").any(|header| says(header, b"keep-alive"));
    let path = request.path.unwrap_or_default().split('?').next().unwrap_or_default().to_owned();
    Parsed::Whole(Request {
        path,
        head: method == "HEAD",
        length,
        close: close || request.version == Some(0) && !keep,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> &'static str {
        match parse(text.as_bytes()) {
            Parsed::Refused(status) => &status[..3],
            Parsed::Whole(_) => "200",
            Parsed::Partial => "",
        }
    }

    #[test]
    fn heads_are_told_apart() {
        assert_eq!(refusal(""), "");
        assert_eq!(refusal("GET / HTTP/1.1\r\nHost: x\r\n"), "");
        assert_eq!(refusal("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), "200");
        assert_eq!(refusal("POST / HTTP/1.1\r\n\r\n"), "405");
        assert_eq!(refusal("GET / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"), "413");
        assert_eq!(refusal("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"), "413");
        assert_eq!(refusal("\0"), "400");
        assert_eq!(refusal(&format!("GET /{} HTTP/1.1\r\n", "a".repeat(HEAD_MOST))), "431");
        assert_eq!(refusal(&format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(HEADERS_MOST + 1))), "431");
    }

    #[test]
    fn connections_stay_open_as_the_version_and_the_client_say() {
        let close = |text: &str| match parse(text.as_bytes()) {
            Parsed::Whole(request) => request.close,
            _ => panic!("{text:?} is a request"),
        };
        assert!(!close("GET / HTTP/1.1\r\n\r\n"));
        assert!(close("GET / HTTP/1.1\r\nConnection: Close\r\n\r\n"));
        assert!(close("GET / HTTP/1.0\r\n\r\n"));
        assert!(!close("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
    }

    #[tokio::test]
    async fn requests_in_one_packet_are_answered_in_turn() {
        let server = Server {
            name: "web-3".into(),
            delay: Duration::ZERO,
            idle: Duration::from_secs(1),
            requests: AtomicU64::new(0),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let mut client =
            TcpStream::connect(listener.local_addr().expect("an address")).await.expect("a connection");
        let (stream, _) = listener.accept().await.expect("a client");
        let paths = ["/", "/healthz", "/metrics", "/else"];
        let heads: String = paths.iter().map(|path| format!("GET {path}?x HTTP/1.1\r\n\r\n")).collect();
        let last = "HEAD / HTTP/1.1\r\nConnection: close\r\n\r\n";
        client.write_all((heads + last).as_bytes()).await.expect("sent");
        server.connection(stream).await.expect("served");
        let mut text = String::new();
        client.read_to_string(&mut text).await.expect("answers");
        assert_eq!(text.matches("HTTP/1.1 200 OK").count(), 4, "{text}");
        assert_eq!(text.matches("hello from web-3\n").count(), 1, "no body for HEAD: {text}");
        assert!(text.contains("\r\n\r\nok\n") && text.contains("hello_requests_total 3\n"), "{text}");
        assert_eq!(text.matches("HTTP/1.1 404 Not Found").count(), 1);
        assert!(text.ends_with("Content-Length: 17\r\nConnection: close\r\n\r\n"), "{text}");
    }
}
