//! Accepting connections, a limited number at once, and letting them finish.

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, Sleep};

/// A connection on which no whole request header arrives for this long is closed; it is also how long an unused
/// connection is kept. Longer than the 60 s after which common balancers drop theirs, so that it is they who close.
const HEADER_TIMEOUT: Duration = Duration::from_secs(75);

/// A client that takes nothing of its answer for this long is cut off, with the memory that its PDF holds.
const WRITE_STALL: Duration = Duration::from_secs(30);

/// hyper's buffer for a request's headers and, in pieces, its body.
const READ_BUFFER: usize = 64 << 10;

/// After a failed accept (most often: no descriptors left), so that the loop does not spin until one is free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

pub struct Acceptor {
    listener: TcpListener,
    limit: Arc<Semaphore>,
    max_connections: usize,
    router: Router,
}

/// Connections that were open when the acceptor stopped.
pub struct Open {
    connections: GracefulShutdown,
    limit: Arc<Semaphore>,
    max_connections: usize,
}

impl Acceptor {
    pub fn new(listener: TcpListener, max_connections: usize, router: Router) -> Self {
        Acceptor { listener, limit: Arc::new(Semaphore::new(max_connections)), max_connections, router }
    }

    /// Accepts until `stop` is ready; then the port is closed.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Open {
        let connections = GracefulShutdown::new();
        let mut stop = std::pin::pin!(stop);
        loop {
            let next = async {
                let slot = Arc::clone(&self.limit).acquire_owned().await.map_err(io::Error::other)?;
                let (stream, _) = self.listener.accept().await?;
                io::Result::Ok((stream, slot))
            };
            let (stream, slot) = tokio::select! {
                // The signal first: under load there is always one more connection to accept.
                biased;
                () = &mut stop => break,
                next = next => match next {
                    Ok(next) => next,
                    Err(error) => {
                        eprintln!("pdfmagic: cannot accept a connection: {error}");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                },
            };
            // Failing here means the client has gone already, which the first read will tell.
            let _ = stream.set_nodelay(true);
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .max_buf_size(READ_BUFFER)
                .serve_connection(
                    TokioIo::new(Stream::new(stream)),
                    TowerToHyperService::new(self.router.clone()),
                );
            let connection = connections.watch(connection);
            tokio::spawn(async move {
                // An error is the client's doing (gone, not HTTP, too slow), and hyper has answered it if one could.
                let _ = connection.await;
                drop(slot);
            });
        }
        Open { connections, limit: self.limit, max_connections: self.max_connections }
    }
}

impl Open {
    /// Waits until every connection has answered its request and closed; returns how many had not by `grace`.
    pub async fn drained(self, grace: Duration) -> usize {
        match tokio::time::timeout(grace, self.connections.shutdown()).await {
            Ok(()) => 0,
            Err(_) => self.max_connections - self.limit.available_permits(),
        }
    }
}

/// A TCP stream that fails once its peer has taken nothing for [`WRITE_STALL`].
struct Stream {
    tcp: TcpStream,
    stall: Pin<Box<Sleep>>,
    stalled: bool,
}

impl Stream {
    fn new(tcp: TcpStream) -> Self {
        Stream { tcp, stall: Box::pin(tokio::time::sleep(WRITE_STALL)), stalled: false }
    }

    /// Passes on the outcome of a write, and turns a wait that is too long into an error.
    fn watch<T>(&mut self, outcome: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stalled = false;
            return outcome;
        }
        if !self.stalled {
            self.stalled = true;
            self.stall.as_mut().reset(Instant::now() + WRITE_STALL);
        }
        ready!(self.stall.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.tcp).poll_write(cx, bytes);
        self.watch(outcome, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let outcome = Pin::new(&mut self.tcp).poll_write_vectored(cx, bytes);
        self.watch(outcome, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let outcome = Pin::new(&mut self.tcp).poll_flush(cx);
        self.watch(outcome, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}
