//! HTTP/2 without TLS, which is what gRPC speaks: every stream is balanced by itself.
//!
//! Each worker keeps one HTTP/2 connection to each backend and sends all its streams over it; streams beyond what the
//! backend allows at once wait in line. Framing, flow control
//! (and with it back-pressure) and header compression are hyper's.

use crate::backends::{BackendState, Lease, Shared, Unavailable};
use crate::buffer::Buffer;
use crate::http1::sentence_for;
use crate::pool::connect;
use crate::tries::{Miss, Tries};
use crate::worker::Context;
use bytes::{Buf, Bytes};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{Either, Empty, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http2 as client;
use hyper::server::conn::http2 as server;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{self, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

type Outgoing = Either<Incoming, Empty<Bytes>>;
/// The handle that requests are sent to a backend with.
pub(crate) type Sender = client::SendRequest<Outgoing>;
type Answer = Response<Either<Leased, Full<Bytes>>>;

/// A client that has not answered a ping in this time is gone without having said so.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Serves a client until it leaves; `input` holds what was read while its protocol was found out.
pub(crate) async fn serve(context: Context, client: TcpStream, peer: SocketAddr, input: Buffer) {
    let io = TokioIo::new(Prefixed { prefix: Bytes::copy_from_slice(input.filled()), stream: client });
    let limits = &context.shared.limits;
    let max_head = u32::try_from(limits.max_head).unwrap_or(u32::MAX);
    let max_streams = limits.max_streams;
    let closing = context.shared.closing.clone();
    let peer = peer.ip().to_canonical();
    let service = service_fn(move |request| {
        let context = context.clone();
        async move { Ok::<_, Infallible>(forward(&context, request, peer).await) }
    });
    let connection = server::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(max_streams)
        .max_header_list_size(max_head)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .serve_connection(io, service);
    tokio::pin!(connection);
    // Errors are the client's: it is told of them by GOAWAY or has gone.
    tokio::select! {
        _ = connection.as_mut() => {}
        () = closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

/// Sends one stream to backend after backend as far as that is safe.
async fn forward(context: &Context, request: Request<Incoming>, peer: IpAddr) -> Answer {
    let shared = &context.shared;
    shared.counters.requests.fetch_add(1, Relaxed);
    if request.method() == Method::CONNECT {
        shared.counters.refused.fetch_add(1, Relaxed);
        return answer(405, "CONNECT is not offered: this is the front of a service, not a way out.");
    }
    let mut request = prepare(request, peer);
    let mut tries = Tries::new(shared);
    loop {
        let lease = match tries.lease().await {
            Ok(lease) => lease,
            Err(why) => {
                let (status, sentence) = sentence_for(why);
                return fail(shared, status, sentence);
            }
        };
        let backend = lease.backend.clone();
        let copy = copy_of(&request);
        let (unsent, miss) = match attempt(context, request, lease).await {
            Attempt::Answered(response) => return response,
            Attempt::Late => return fail(shared, 504, "The replica did not answer in time."),
            Attempt::NoConnection(unsent, error) => (Some(unsent), Miss::of_connecting(&error, backend)),
            Attempt::NotSent(unsent) => (Some(unsent), Miss::Stale),
            Attempt::Reset { reused } => (copy.filter(|_| reused), Miss::Stale),
        };
        let nobody = !matches!(miss, Miss::Stale);
        let Some(unsent) = unsent else { return broken(shared) };
        if !tries.again(miss).await {
            let (status, sentence) = sentence_for(Unavailable::AllTried);
            return if nobody { fail(shared, status, sentence) } else { broken(shared) };
        }
        request = unsent;
    }
}

fn broken(shared: &Shared) -> Answer {
    fail(shared, 502, "The replica closed its connection without an answer.")
}

fn fail(shared: &Shared, status: u16, sentence: &'static str) -> Answer {
    shared.counters.failed.fetch_add(1, Relaxed);
    answer(status, sentence)
}

/// An answer in the balancer's own name. gRPC clients take 502, 503 and 504 for UNAVAILABLE.
fn answer(status: u16, sentence: &'static str) -> Answer {
    let mut response = Response::new(Either::Right(Full::new(Bytes::from_static(sentence.as_bytes()))));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    if status == 503 {
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    response
}

/// How one try at one backend ended.
enum Attempt {
    Answered(Answer),
    NoConnection(Request<Outgoing>, io::Error),
    /// The connection closed before the request was put on it.
    NotSent(Request<Outgoing>),
    /// The stream or its connection broke before an answer.
    Reset {
        reused: bool,
    },
    Late,
}

async fn attempt(context: &Context, request: Request<Outgoing>, lease: Lease) -> Attempt {
    let (mut sender, reused) = match sender_to(context, &lease.backend).await {
        Ok(found) => found,
        Err(error) => return Attempt::NoConnection(request, error),
    };
    let sent = sender.try_send_request(request);
    let sent = match context.shared.limits.response_timeout {
        None => sent.await,
        Some(limit) => match tokio::time::timeout(limit, sent).await {
            Ok(sent) => sent,
            Err(_) => return Attempt::Late,
        },
    };
    match sent {
        Ok(response) => Attempt::Answered(response.map(|body| Either::Left(Leased { body, _lease: lease }))),
        Err(mut error) => match error.take_message() {
            Some(unsent) => Attempt::NotSent(unsent),
            None => Attempt::Reset { reused },
        },
    }
}

/// This worker's connection to the backend, made if there is none; and whether it was there before.
async fn sender_to(context: &Context, backend: &BackendState) -> io::Result<(Sender, bool)> {
    // Held while connecting, so that a burst makes one connection and not one for each stream.
    let mut slot = backend.pools[context.worker].h2.lock().await;
    if let Some(sender) = slot.as_ref().filter(|s| !s.is_closed()) {
        return Ok((sender.clone(), true));
    }
    let stream = connect(&context.shared, context.worker, backend).await?;
    let max_head = u32::try_from(context.shared.limits.max_head).unwrap_or(u32::MAX);
    let (sender, connection) = client::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_header_list_size(max_head)
        // No pings in this direction: servers of gRPC close connections that ping more than once in five minutes.
        .handshake(TokioIo::new(stream))
        .await
        .map_err(io::Error::other)?;
    // Ends when the last sender and stream are gone, or the backend is; each stream learns of an error itself.
    tokio::spawn(connection);
    // A backend that left meanwhile keeps this connection only as long as its streams need it.
    if !backend.is_leaving() {
        *slot = Some(sender.clone());
    }
    Ok((sender, false))
}

/// A second copy of a request that may be sent twice: idempotent and without a body.
fn copy_of(request: &Request<Outgoing>) -> Option<Request<Outgoing>> {
    if !request.method().is_idempotent() || !request.body().is_end_stream() {
        return None;
    }
    let mut copy = Request::new(Either::Right(Empty::new()));
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    Some(copy)
}

/// Adds what tells the backend who asked, and leaves out what was meant for this hop.
fn prepare(request: Request<Incoming>, peer: IpAddr) -> Request<Outgoing> {
    let mut request = request.map(Either::Left);
    let authority = request.uri().authority().map(|a| a.as_str().to_owned());
    let headers = request.headers_mut();
    strip_hop_by_hop(headers);
    let forwarded: Vec<&str> =
        headers.get_all(&FORWARDED_FOR).iter().filter_map(|v| v.to_str().ok()).collect();
    let peer = peer.to_string();
    let list = forwarded.iter().copied().chain([peer.as_str()]).collect::<Vec<_>>().join(", ");
    if let Ok(value) = HeaderValue::from_str(&list) {
        headers.insert(FORWARDED_FOR, value);
    }
    headers.entry(FORWARDED_PROTO).or_insert(HeaderValue::from_static("http"));
    if let Some(Ok(host)) = authority.map(|a| HeaderValue::from_str(&a)) {
        headers.entry(FORWARDED_HOST).or_insert(host);
    }
    request
}

/// HTTP/2 has no Connection field (RFC 9113, section 8.2.2); TE may say that trailers are welcome, which gRPC needs.
fn strip_hop_by_hop(headers: &mut HeaderMap) {
    for name in [header::CONNECTION, header::UPGRADE, header::TRANSFER_ENCODING, header::PROXY_AUTHORIZATION]
    {
        headers.remove(name);
    }
    if headers.get(header::TE).is_some_and(|te| te != "trailers") {
        headers.remove(header::TE);
    }
}

/// An answer's body that counts as in flight until its last frame.
struct Leased {
    body: Incoming,
    _lease: Lease,
}

impl Body for Leased {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection some bytes of which have been read already.
struct Prefixed {
    prefix: Bytes,
    stream: TcpStream,
}

impl AsyncRead for Prefixed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.stream).poll_read(context, into);
        }
        let n = self.prefix.len().min(into.remaining());
        into.put_slice(&self.prefix[..n]);
        self.prefix.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Prefixed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
