//! HTTP/1 connections: one request after another, each at the backend that is chosen for it.
//!
//! ```text
//!   rest ──bytes──> head ──complete──> lease ──> connect ──> exchange ──> answer sent ──> rest
//!    │ end or         │ malformed,       │ none    │ refused, busy, unread:      │ not reusable
//!    │ too long       │ too large/slow   │ ready   └──> lease (another backend)  └──> close
//!    └──> close       └──> 4xx, close    └──> 503
//! ```

mod body;
mod exchange;
mod head;
mod reply;

pub(crate) use reply::sentence_for;

use crate::backends::{BackendState, Lease, Unavailable};
use crate::buffer::Buffer;
use crate::pool::{connect, make_room};
use crate::tries::{Miss, Tries};
use crate::worker::Context;
use body::Body;
use exchange::{Answer, Download, Failure, Progress, Upload, exchange, expire};
use head::{Refusal, Request};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::WaitForCancellationFutureOwned;

/// How much a client that was refused may still send, and how long, before its connection is closed for good.
/// Closing at once would reset the connection, and the client could lose the answer that says why.
const LINGER_BYTES: usize = 256 << 10;
const LINGER_TIME: Duration = Duration::from_secs(2);

/// Bytes that each scratch space of a resting connection may keep: enough for the next small exchange.
const RESTING_BYTES: usize = 8 << 10;

/// What becomes of the client's connection.
enum After {
    Rest,
    Close,
    /// Reset, so that a truncated answer cannot be taken for a whole one.
    Reset,
    /// Carries another protocol from here on.
    Tunnel(TcpStream, Lease),
}

struct Connection {
    context: Context,
    client: TcpStream,
    peer: String,
    input: Buffer,
    /// The request as the backend gets it: its head and what of the body came with it.
    request: Vec<u8>,
    answer: Buffer,
    out: Vec<u8>,
    closing: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// Serves a client until it leaves; `input` holds what was read while its protocol was found out.
pub(crate) async fn serve(context: Context, client: TcpStream, peer: SocketAddr, input: Buffer) {
    let closing = Box::pin(context.shared.closing.clone().cancelled_owned());
    let mut connection = Connection {
        context,
        client,
        peer: peer.ip().to_canonical().to_string(),
        input,
        request: Vec::new(),
        answer: Buffer::default(),
        out: Vec::new(),
        closing,
    };
    loop {
        let after = match connection.next_request().await {
            Ok(Some(request)) => connection.forward(&request).await,
            Ok(None) => return,
            Err(refusal) => {
                connection.context.shared.counters.refused.fetch_add(1, Relaxed);
                connection.reply(refusal, true, false).await
            }
        };
        match after {
            After::Rest => {}
            After::Close => return connection.linger().await,
            After::Reset => {
                // Best effort: an error here means that the connection is gone already.
                let _ = connection.client.set_zero_linger();
                return;
            }
            After::Tunnel(backend, lease) => {
                let Connection { client, input, answer, .. } = connection;
                return crate::tunnel::run((client, input), (backend, answer), lease).await;
            }
        }
    }
}

impl Connection {
    /// Waits for the next request's head. `Ok(None)`: there is none any more.
    async fn next_request(&mut self) -> Result<Option<Request>, Refusal> {
        let Connection { context, client, peer, input, request, answer, out, closing } = self;
        let limits = &context.shared.limits;
        if input.is_empty() {
            input.release();
            answer.release();
            for scratch in [out, &mut *request] {
                scratch.clear();
                scratch.shrink_to(RESTING_BYTES);
            }
            let first = timeout(limits.keep_alive, input.read_from(client, limits.max_head));
            tokio::select! {
                biased;
                read = first => if !matches!(read, Ok(Ok(1..))) { return Ok(None) },
                () = closing.as_mut() => return Ok(None),
            }
        }
        if let Some(read) = head::read_request(input.filled(), peer, request)? {
            return Ok(Some(read));
        }
        let deadline = Instant::now() + limits.head_timeout;
        loop {
            if input.is_full(limits.max_head) {
                return Err(Refusal { status: 431, sentence: "The request's head is larger than allowed." });
            }
            let seen = input.filled().len();
            match timeout_at(deadline, input.read_from(client, limits.max_head)).await {
                Err(_) => {
                    return Err(Refusal {
                        status: 408,
                        sentence: "The request's head took too long to arrive.",
                    });
                }
                Ok(Ok(1..)) => {}
                Ok(_) => return Ok(None),
            }
            // Only a line's end can complete a head: looking before that would cost a slow sender's bytes squared.
            if input.filled()[seen..].contains(&b'\n')
                && let Some(read) = head::read_request(input.filled(), peer, request)?
            {
                return Ok(Some(read));
            }
        }
    }

    /// Sends a request to backend after backend as far as that is safe, and the answer to the client.
    async fn forward(&mut self, request: &Request) -> After {
        self.context.shared.counters.requests.fetch_add(1, Relaxed);
        self.input.consume(request.length);
        let mut body = Body::new(request.framing);
        let Ok(came_along) = body.take(self.input.filled()) else {
            return self.failed(request, Failure::BadRequestBody, true).await;
        };
        self.request.extend_from_slice(&self.input.filled()[..came_along]);
        self.input.consume(came_along);
        let unread = !body.is_done();
        let mut tries = Tries::new(&self.context.shared);
        loop {
            let lease = tokio::select! {
                biased;
                lease = tries.lease() => lease,
                () = client_leaves(&self.client, self.input.is_empty()) => return After::Reset,
            };
            let lease = match lease {
                Ok(lease) => lease,
                Err(why) => return self.unavailable(request, why, unread).await,
            };
            let (failure, miss) = match self.attempt(request, body, lease).await {
                Attempt::Over(after) => return after,
                Attempt::Missed(failure, miss) => (failure, miss),
                Attempt::Failed(failure) => return self.failed(request, failure, unread).await,
            };
            let again = tokio::select! {
                biased;
                again = tries.again(miss) => again,
                () = client_leaves(&self.client, self.input.is_empty()) => return After::Reset,
            };
            if !again {
                return self.failed(request, failure, unread).await;
            }
        }
    }

    /// Keeps a connection for the next request.
    fn keep(&self, stream: TcpStream, backend: &BackendState) {
        let Context { shared, worker } = &self.context;
        backend.pools[*worker].put(stream, backend, shared.limits.idle_per_backend);
        if shared.idle[*worker].load(Relaxed) > shared.limits.idle_total {
            make_room(shared, *worker);
        }
    }

    async fn attempt(&mut self, request: &Request, body: Body, lease: Lease) -> Attempt {
        let backend = lease.backend.clone();
        let pool = &backend.pools[self.context.worker];
        let most_rest = (!request.is_replayable()).then_some(self.context.shared.limits.reuse_within);
        let idle = pool.take(most_rest);
        let reused = idle.is_some();
        let mut stream = match idle {
            Some(stream) => stream,
            None => match connect(&self.context.shared, self.context.worker, &backend).await {
                Ok(stream) => stream,
                Err(error) => {
                    return Attempt::Missed(Failure::NotSent, Miss::of_connecting(&error, backend));
                }
            },
        };
        let progress = Progress::default();
        match self.exchange(request, body, &mut stream, &progress).await {
            Ok(Answer { upgraded: true, .. }) => Attempt::Over(After::Tunnel(stream, lease)),
            Ok(answer) => {
                if answer.reusable {
                    self.keep(stream, &backend);
                }
                Attempt::Over(if answer.keep_alive { After::Rest } else { After::Close })
            }
            Err(Failure::ClientLeft) => Attempt::Over(After::Reset),
            Err(_) if progress.answering.load(Relaxed) => {
                self.context.shared.counters.failed.fetch_add(1, Relaxed);
                Attempt::Over(After::Reset)
            }
            Err(failure) => match miss(failure, request, reused, &stream, &backend) {
                Some(miss) => {
                    if matches!(miss, Miss::Stale) {
                        // Where one idle connection was closed, the others were too, most likely.
                        pool.clear();
                    }
                    Attempt::Missed(failure, miss)
                }
                None => Attempt::Failed(failure),
            },
        }
    }

    async fn exchange(
        &mut self,
        request: &Request,
        body: Body,
        backend: &mut TcpStream,
        progress: &Progress,
    ) -> Result<Answer, Failure> {
        let limits = &self.context.shared.limits;
        match timeout(limits.body_timeout, send_first(backend, &self.request)).await {
            Ok(sent) => sent?,
            Err(_) => return Err(Failure::Late),
        }
        self.answer.clear();
        let mut download = Download {
            request,
            limits,
            progress,
            buffer: &mut self.answer,
            out: &mut self.out,
            last: self.context.shared.closing.is_cancelled(),
        };
        let (mut from_client, mut to_client) = self.client.split();
        let (mut from_backend, mut to_backend) = backend.split();
        if !body.is_done() {
            let upload = Upload { body, input: &mut self.input };
            let client = (&mut from_client, &mut to_client);
            return exchange(client, (&mut from_backend, &mut to_backend), upload, download).await;
        }
        let answer = download.run(&mut from_backend, &mut to_client);
        let late = expire(limits.response_timeout, progress);
        tokio::select! {
            biased;
            answer = answer => answer,
            () = client_leaves(from_client.as_ref(), self.input.is_empty()) => Err(Failure::ClientLeft),
            () = late => Err(Failure::Late),
        }
    }

    async fn unavailable(&mut self, request: &Request, why: Unavailable, unread: bool) -> After {
        self.context.shared.counters.failed.fetch_add(1, Relaxed);
        let refusal = reply::unavailable(why);
        self.reply(refusal, unread || !request.keep_alive, request.is_head).await
    }

    async fn failed(&mut self, request: &Request, failure: Failure, unread: bool) -> After {
        self.context.shared.counters.failed.fetch_add(1, Relaxed);
        let refusal = reply::failed(failure);
        self.reply(refusal, unread || !request.keep_alive, request.is_head).await
    }

    /// Answers in the balancer's own name.
    async fn reply(&mut self, refusal: Refusal, close: bool, is_head: bool) -> After {
        let close = close || self.context.shared.closing.is_cancelled();
        self.out.clear();
        reply::write(refusal, close, is_head, &mut self.out);
        let patience = self.context.shared.limits.body_timeout;
        match timeout(patience, self.client.write_all(&self.out)).await {
            Ok(Ok(())) if !close => After::Rest,
            Ok(Ok(())) => After::Close,
            _ => After::Reset,
        }
    }

    /// Ends the answer's direction and reads the other one dry for a while, so that the answer arrives.
    async fn linger(mut self) {
        if self.client.shutdown().await.is_err() {
            return;
        }
        let mut scratch = [0; 4096];
        let dry = async {
            let mut read = 0;
            while read < LINGER_BYTES {
                match self.client.read(&mut scratch).await {
                    Ok(n) if n > 0 => read += n,
                    _ => return,
                }
            }
        };
        // Its end or its time limit: either way the connection is closed now.
        let _ = timeout(LINGER_TIME, dry).await;
    }
}

/// How one try at one backend ended.
enum Attempt {
    Over(After),
    /// Nothing has come of the request.
    Missed(Failure, Miss),
    Failed(Failure),
}

/// What a failure was if the request may be sent again after it.
fn miss(
    failure: Failure,
    request: &Request,
    reused: bool,
    stream: &TcpStream,
    backend: &Arc<BackendState>,
) -> Option<Miss> {
    let unanswered = request.is_replayable() && matches!(failure, Failure::NoResponse | Failure::Reset);
    match failure {
        Failure::NotSent if reused => Some(Miss::Stale),
        // As good as no connection: nobody can have begun to work on it.
        Failure::NotSent => Some(Miss::Refused(backend.clone())),
        _ if unanswered && reused => Some(Miss::Stale),
        // On a new connection the request itself may be what ends the backend, unless that has not read it.
        _ if unanswered && (failure == Failure::Reset || is_reset(stream)) => {
            Some(Miss::Closed(backend.clone()))
        }
        _ => None,
    }
}

/// Whether the other side has closed its connection and reset it for what came after that.
fn is_reset(stream: &TcpStream) -> bool {
    let error = stream.take_error().ok().flatten();
    error.is_some_and(|error| matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset))
}

/// Sends the request's first bytes and tells "none of it was sent" from "some of it may have arrived".
async fn send_first(backend: &mut TcpStream, bytes: &[u8]) -> Result<(), Failure> {
    let mut sent = 0;
    while sent < bytes.len() {
        match backend.write(&bytes[sent..]).await {
            Ok(n) if n > 0 => sent += n,
            _ if sent == 0 => return Err(Failure::NotSent),
            // The backend may have answered before it closed; reading will tell.
            _ => return Ok(()),
        }
    }
    Ok(())
}

/// Completes when the client has closed its connection. As in other reverse proxies, a client that ends its
/// direction while it waits for an answer counts as gone, so that abandoned work ends with it.
async fn client_leaves(client: &TcpStream, watch: bool) {
    if watch && !matches!(client.peek(&mut [0]).await, Ok(1..)) {
        return;
    }
    // The next request is there already: whether its sender leaves shows when the answer is written.
    std::future::pending().await
}
