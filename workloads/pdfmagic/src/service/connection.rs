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

/// hyper's buffer for a request's headers and, in pieces, its body.
const READ_BUFFER: usize = 64 << 10;

/// After a failed accept (most often: no descriptors left), so that the loop does not spin until one is free.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What connections may take.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// At once; at least 1.
    pub connections: usize,
    /// A connection on which no whole request head arrives for this long is closed; it is also how long an unused
    /// connection is kept.
    pub idle: Duration,
    /// A client that takes nothing of its answer for this long is cut off, with the memory that its PDF holds.
    pub send: Duration,
}

pub struct Acceptor {
    listener: TcpListener,
    slots: Arc<Semaphore>,
    limits: ConnectionLimits,
    router: Router,
}

/// Connections that were open when the acceptor stopped.
pub struct Open {
    connections: GracefulShutdown,
    slots: Arc<Semaphore>,
    limits: ConnectionLimits,
}

impl Acceptor {
    pub fn new(listener: TcpListener, limits: ConnectionLimits, router: Router) -> Self {
        Acceptor { listener, slots: Arc::new(Semaphore::new(limits.connections)), limits, router }
    }

    /// Accepts until `stop` is ready; then the port is closed. Returns what `stop` did.
    pub async fn run<T>(self, stop: impl Future<Output = T>) -> (Open, T) {
        let connections = GracefulShutdown::new();
        let mut stop = std::pin::pin!(stop);
        let stopped = loop {
            let next = async {
                let slot = Arc::clone(&self.slots).acquire_owned().await.map_err(io::Error::other)?;
                let (stream, _) = self.listener.accept().await?;
                io::Result::Ok((stream, slot))
            };
            let (stream, slot) = tokio::select! {
                // The signal first: under load there is always one more connection to accept.
                biased;
                stopped = &mut stop => break stopped,
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
                .header_read_timeout(self.limits.idle)
                .max_buf_size(READ_BUFFER)
                .serve_connection(
                    TokioIo::new(Stream::new(stream, self.limits.send)),
                    TowerToHyperService::new(self.router.clone()),
                );
            let connection = connections.watch(connection);
            tokio::spawn(async move {
                // An error is the client's doing (gone, not HTTP, too slow), and hyper has answered it if one could.
                let _ = connection.await;
                drop(slot);
            });
        };
        (Open { connections, slots: self.slots, limits: self.limits }, stopped)
    }
}

impl Open {
    /// Waits until every connection has answered its request and closed; returns how many had not by `grace`.
    pub async fn drained(self, grace: Duration) -> usize {
        match tokio::time::timeout(grace, self.connections.shutdown()).await {
            Ok(()) => 0,
            Err(_) => self.limits.connections - self.slots.available_permits(),
        }
    }
}

/// A TCP stream that fails once its peer has taken nothing for too long.
struct Stream {
    tcp: TcpStream,
    /// How long that is.
    limit: Duration,
    stall: Pin<Box<Sleep>>,
    stalled: bool,
}

impl Stream {
    fn new(tcp: TcpStream, limit: Duration) -> Self {
        Stream { tcp, limit, stall: Box::pin(tokio::time::sleep(limit)), stalled: false }
    }

    /// Passes on the outcome of a write, and turns a wait that is too long into an error.
    fn watch<T>(&mut self, outcome: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.stalled = false;
            return outcome;
        }
        if !self.stalled {
            self.stalled = true;
            let deadline = Instant::now() + self.limit;
            self.stall.as_mut().reset(deadline);
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
