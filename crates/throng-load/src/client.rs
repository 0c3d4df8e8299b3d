//! A client of the load: one connection, one request after another, each with its time limit.

use crate::connection::{Http1, Scratch, Target, Traffic};
use crate::error::{ErrorKind, LoadError};
use crate::http2::Http2;
use crate::spec::LoadSpec;
use crate::template::{Template, origin_form};
use crate::timer::Deadline;
use bytes::Bytes;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use url::Url;

/// Everything about the requests that is prepared before the load and shared by its threads.
pub(crate) struct Job {
    pub template: Template,
    pub target: Arc<Target>,
    url: Url,
    http2: Option<http::request::Parts>,
    timeout: Duration,
    redirects: u8,
    seed: u64,
    /// Number of the next request that is different from the others.
    serial: AtomicU64,
}

impl Job {
    pub fn new(spec: &LoadSpec, template: Template, target: Target) -> Result<Job, LoadError> {
        let http2 = match spec.http2 {
            true => Some(Http2::prepare(&template, spec.target.scheme()).map_err(|error| {
                LoadError::spec(
                    format!("cannot be sent over HTTP/2: {error}"),
                    "check target and header fields",
                )
            })?),
            false => None,
        };
        Ok(Job {
            template,
            target: Arc::new(target),
            url: spec.target.clone(),
            http2,
            timeout: spec.timeout,
            redirects: spec.follow_redirects,
            seed: spec.seed,
            serial: AtomicU64::new(0),
        })
    }
}

/// What the clients of one thread share.
pub(crate) struct ClientPool {
    pub job: Arc<Job>,
    pub scratch: Scratch,
    rng: RefCell<ChaCha8Rng>,
    /// Buffers of requests that are put together, as many as were ever under way at the same time: at most one
    /// for each connection of the thread.
    buffers: RefCell<Vec<Vec<u8>>>,
}

impl ClientPool {
    pub fn new(job: Arc<Job>, scratch: Scratch, thread: usize) -> ClientPool {
        let mut rng = ChaCha8Rng::seed_from_u64(job.seed);
        rng.set_stream(thread as u64 + 1);
        ClientPool { job, scratch, rng: RefCell::new(rng), buffers: RefCell::default() }
    }

    /// The next request's bytes: HTTP/1.1 as a whole, HTTP/2 the body alone.
    fn request(&self) -> Request {
        let template = &self.job.template;
        if self.job.http2.is_none()
            && let Some(bytes) = template.fixed()
        {
            return Request::Fixed(bytes.clone());
        }
        let mut buffer = self.buffers.borrow_mut().pop().unwrap_or_default();
        let serial = self.job.serial.fetch_add(1, Ordering::Relaxed);
        let mut rng = self.rng.borrow_mut();
        if self.job.http2.is_some() {
            buffer.clear();
            template.render_body(serial, &mut *rng, &mut buffer);
        } else {
            template.render(serial, &mut *rng, &mut buffer);
        }
        Request::Rendered(buffer)
    }

    fn give_back(&self, request: Request) {
        if let Request::Rendered(buffer) = request {
            self.buffers.borrow_mut().push(buffer);
        }
    }
}

enum Request {
    Fixed(Bytes),
    Rendered(Vec<u8>),
}

impl Request {
    fn bytes(&self) -> &[u8] {
        match self {
            Request::Fixed(bytes) => bytes,
            Request::Rendered(bytes) => bytes,
        }
    }
}

/// What became of one request.
pub(crate) struct Outcome {
    /// When it was sent, or dialling for it began.
    pub started: Instant,
    pub finished: Instant,
    pub result: Result<u16, ErrorKind>,
    pub traffic: Traffic,
}

enum Protocol {
    Http1(Http1),
    Http2(Http2),
}

pub(crate) struct Client {
    protocol: Protocol,
    deadline: Deadline,
}

impl Client {
    pub fn new(pool: &ClientPool, turn: usize) -> Client {
        let job = &pool.job;
        let protocol = match job.http2 {
            Some(_) => Protocol::Http2(Http2::new(job.target.clone(), turn)),
            None => Protocol::Http1(Http1::new(job.target.clone(), pool.scratch.clone(), turn)),
        };
        Client { protocol, deadline: Deadline::new(Instant::now() + job.timeout) }
    }

    /// Makes one request. Its bytes are put together before its time starts.
    pub async fn request(&mut self, pool: &ClientPool) -> Outcome {
        let request = pool.request();
        let mut traffic = Traffic::default();
        let started = Instant::now();
        self.deadline.set(started + pool.job.timeout);
        let work = Self::send(&mut self.protocol, &pool.job, request.bytes(), &mut traffic);
        let result = self.deadline.guard(work).await.unwrap_or(Err(ErrorKind::Timeout));
        let finished = Instant::now();
        if result.is_err() {
            self.disconnect();
        }
        pool.give_back(request);
        Outcome { started, finished, result, traffic }
    }

    /// Why the last answer is a failure whatever its status.
    pub fn refusal(&self) -> Option<ErrorKind> {
        match &self.protocol {
            Protocol::Http1(_) => None,
            Protocol::Http2(http2) => http2.grpc_status.filter(|code| *code != 0).map(ErrorKind::Grpc),
        }
    }

    /// The name of the replica that gave the last answer.
    pub fn replica(&self) -> Option<&str> {
        match &self.protocol {
            Protocol::Http1(http1) => http1.reader.replica(),
            Protocol::Http2(http2) => http2.replica.as_deref(),
        }
    }

    fn disconnect(&mut self) {
        match &mut self.protocol {
            Protocol::Http1(http1) => http1.disconnect(),
            Protocol::Http2(http2) => http2.disconnect(),
        }
    }

    async fn send(
        protocol: &mut Protocol,
        job: &Job,
        request: &[u8],
        traffic: &mut Traffic,
    ) -> Result<u16, ErrorKind> {
        match (protocol, &job.http2) {
            (Protocol::Http2(http2), Some(head)) => {
                http2.exchange(head, Bytes::copy_from_slice(request), traffic).await
            }
            (Protocol::Http1(http1), _) => {
                let status = http1.exchange(request, job.template.is_head(), traffic).await?;
                if job.redirects == 0 || !is_redirect(status) {
                    return Ok(status);
                }
                follow(http1, job, request, status, traffic).await
            }
            // A client is made for the protocol of its job.
            (Protocol::Http2(_), None) => Err(ErrorKind::Protocol),
        }
    }
}

fn is_redirect(status: u16) -> bool {
    matches!(status, 301 | 302 | 303 | 307 | 308)
}

/// Follows redirects (RFC 9110, section 15.4) as long as they stay with the target's origin.
async fn follow(
    http1: &mut Http1,
    job: &Job,
    original: &[u8],
    mut status: u16,
    traffic: &mut Traffic,
) -> Result<u16, ErrorKind> {
    let (mut at, mut keep, mut request) = (job.url.clone(), true, Vec::new());
    for _ in 0..job.redirects {
        let next = http1.reader.location().and_then(|location| at.join(location).ok());
        at = next.filter(|next| next.origin() == job.url.origin()).ok_or(ErrorKind::Redirect)?;
        let safe = matches!(job.template.method.as_str(), "GET" | "HEAD");
        keep = keep && (safe || matches!(status, 307 | 308));
        job.template.render_redirect(&origin_form(&at), original, keep, &mut request);
        status = http1.exchange(&request, job.template.is_head(), traffic).await?;
        if !is_redirect(status) {
            return Ok(status);
        }
    }
    Err(ErrorKind::Redirect)
}
