//! One request at one backend: both directions at once, each no faster than its reader takes it.

use super::body::Body;
use super::head::{Delivery, Request, Response, read_response};
use crate::Limits;
use crate::buffer::Buffer;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::{sleep, timeout};

/// Bytes read at once while a body streams.
const STREAM_BUFFER: usize = 64 << 10;

/// Why an exchange did not come to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Not one byte of the request was sent.
    NotSent,
    /// The backend closed its connection before the first byte of an answer.
    NoResponse,
    /// It did so by a reset: it had not read all that it was sent.
    Reset,
    /// The backend answered with something else than HTTP, or stopped within its answer.
    BadResponse(&'static str),
    /// The answer did not begin in time.
    Late,
    /// The client closed its connection, or takes nothing any more.
    ClientLeft,
    /// The client stopped sending within its body.
    ClientSlow,
    /// The client's chunks are not well formed.
    BadRequestBody,
}

/// What the parts of an exchange tell each other while they run.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// The answer's head was begun to be written: no other answer can take its place.
    pub answering: AtomicBool,
}

/// An exchange that came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The backend's connection can carry another request.
    pub reusable: bool,
    /// The client's connection can.
    pub keep_alive: bool,
    /// Both sides have left HTTP (101).
    pub upgraded: bool,
}

/// The client's side of a request's body that has not been read whole.
pub(crate) struct Upload<'a> {
    pub body: Body,
    pub input: &'a mut Buffer,
}

/// Why an upload ended before its body did.
enum Broken {
    /// There is no point in waiting for an answer.
    Over(Failure),
    /// The backend takes no more; it may have answered already.
    Refused,
}

impl Upload<'_> {
    async fn run<R, W>(mut self, client: &mut R, backend: &mut W, patience: Duration) -> Result<(), Broken>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        while !self.body.is_done() {
            if self.input.is_empty() {
                match timeout(patience, self.input.read_from(client, STREAM_BUFFER)).await {
                    Err(_) => return Err(Broken::Over(Failure::ClientSlow)),
                    Ok(Ok(0) | Err(_)) => return Err(Broken::Over(Failure::ClientLeft)),
                    Ok(Ok(_)) => {}
                }
            }
            let bytes = self.input.filled();
            let n = self.body.take(bytes).map_err(|_| Broken::Over(Failure::BadRequestBody))?;
            match timeout(patience, backend.write_all(&bytes[..n])).await {
                Err(_) => return Err(Broken::Over(Failure::Late)),
                Ok(sent) => sent.map_err(|_| Broken::Refused)?,
            }
            self.input.consume(n);
        }
        Ok(())
    }
}

/// Sends the rest of a request's body while the answer already comes back.
pub(crate) async fn exchange<CR, CW, BR, BW>(
    client: (&mut CR, &mut CW),
    backend: (&mut BR, &mut BW),
    upload: Upload<'_>,
    mut download: Download<'_>,
) -> Result<Answer, Failure>
where
    CR: AsyncRead + Unpin,
    CW: AsyncWrite + Unpin,
    BR: AsyncRead + Unpin,
    BW: AsyncWrite + Unpin,
{
    let (limits, progress) = (download.limits, download.progress);
    let upload = upload.run(client.0, backend.1, limits.body_timeout);
    let download = download.run(backend.0, client.1);
    tokio::pin!(upload, download);
    let late = expire(None, progress);
    tokio::pin!(late);
    let (mut uploading, mut complete) = (true, false);
    loop {
        tokio::select! {
            biased;
            answer = &mut download => {
                // An answer that came before the whole body leaves both connections in the middle of a message.
                return answer.map(|a| Answer {
                    reusable: a.reusable && complete,
                    keep_alive: a.keep_alive && complete,
                    ..a
                });
            }
            ended = &mut upload, if uploading => {
                uploading = false;
                match ended {
                    Ok(()) => {
                        complete = true;
                        late.set(expire(limits.response_timeout, progress));
                    }
                    Err(Broken::Over(failure)) => return Err(failure),
                    Err(Broken::Refused) => {}
                }
            }
            () = &mut late => return Err(Failure::Late),
        }
    }
}

/// Completes when the limit has passed and the answer has not begun.
pub(crate) async fn expire(limit: Option<Duration>, progress: &Progress) {
    if let Some(limit) = limit {
        sleep(limit).await;
        if !progress.answering.load(Relaxed) {
            return;
        }
    }
    std::future::pending().await
}

/// The way of an answer from backend to client.
pub(crate) struct Download<'a> {
    pub request: &'a Request,
    pub limits: &'a Limits,
    pub progress: &'a Progress,
    /// Bytes from the backend not passed on yet.
    pub buffer: &'a mut Buffer,
    /// Scratch space for what is written to the client.
    pub out: &'a mut Vec<u8>,
    /// The client's connection is to be closed after this answer whatever it says.
    pub last: bool,
}

impl Download<'_> {
    pub async fn run<R, W>(&mut self, backend: &mut R, client: &mut W) -> Result<Answer, Failure>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut interim = false;
        loop {
            let (response, delivery) = self.head(backend, interim).await?;
            self.buffer.consume(response.length);
            match response.status {
                101 if self.request.upgrade => {
                    self.progress.answering.store(true, Relaxed);
                    self.send(client).await?;
                    return Ok(Answer { reusable: false, keep_alive: false, upgraded: true });
                }
                101 => return Err(Failure::BadResponse("with a change of protocol nobody asked for")),
                100..200 => {
                    interim = true;
                    if !self.request.old {
                        self.send(client).await?;
                    }
                }
                _ => return self.body(response, delivery, backend, client).await,
            }
        }
    }

    /// Reads the next head and leaves it rewritten in `out`.
    async fn head<R: AsyncRead + Unpin>(
        &mut self,
        backend: &mut R,
        interim: bool,
    ) -> Result<(Response, Delivery), Failure> {
        loop {
            if !self.buffer.is_empty() {
                self.out.clear();
                let mut delivery = Delivery { keep_alive: false, old: self.request.old };
                let (request, last) = (self.request, self.last);
                let read = read_response(self.buffer.filled(), request.is_head, self.out, |response| {
                    delivery.keep_alive = !last && keeps_client(request, response);
                    delivery
                });
                match read {
                    Ok(Some(response)) => return Ok((response, delivery)),
                    Ok(None) => {}
                    Err(what) => return Err(Failure::BadResponse(what)),
                }
            }
            if self.buffer.is_full(self.limits.max_head) {
                return Err(Failure::BadResponse("with a head larger than allowed (limit max_head)"));
            }
            let nothing = self.buffer.is_empty() && !interim;
            match self.buffer.read_from(backend, self.limits.max_head).await {
                Ok(n) if n > 0 => {}
                Err(error) if nothing && error.kind() == ErrorKind::ConnectionReset => {
                    return Err(Failure::Reset);
                }
                _ if nothing => return Err(Failure::NoResponse),
                _ => return Err(Failure::BadResponse("that broke off")),
            }
        }
    }

    async fn body<R, W>(
        &mut self,
        response: Response,
        delivery: Delivery,
        backend: &mut R,
        client: &mut W,
    ) -> Result<Answer, Failure>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let mut body = Body::new(response.framing);
        let bare = delivery.old && response.framing == super::body::Framing::Chunked;
        loop {
            let bytes = self.buffer.filled();
            let before = self.out.len();
            let taken = if bare {
                body.take_data(bytes, self.out)
            } else {
                body.take(bytes).inspect(|n| self.out.extend_from_slice(&bytes[..*n]))
            };
            let taken = taken.map_err(|_| Failure::BadResponse("with malformed chunks"))?;
            self.buffer.consume(taken);
            if self.out.len() > before || before > 0 {
                self.progress.answering.store(true, Relaxed);
                self.send(client).await?;
                self.out.clear();
            }
            if body.is_done() {
                break;
            }
            match self.buffer.read_from(backend, STREAM_BUFFER).await {
                Ok(n) if n > 0 => {}
                Ok(_) if body.may_end_here() => break,
                _ => return Err(Failure::BadResponse("that broke off")),
            }
        }
        Ok(Answer {
            // Bytes after the end of the answer belong to no request: such a connection is out of step.
            reusable: response.keep_alive && self.buffer.is_empty() && !self.may_be_unread(&response),
            keep_alive: delivery.keep_alive,
            upgraded: false,
        })
    }

    /// Whoever refuses a request may do so without having read its body, and then closes the connection a moment later,
    /// often without having said so. What is sent on it in between is lost, and a request with a body must not be sent
    /// twice.
    fn may_be_unread(&self, response: &Response) -> bool {
        response.status >= 400 && self.request.has_body()
    }

    async fn send<W: AsyncWrite + Unpin>(&mut self, client: &mut W) -> Result<(), Failure> {
        match timeout(self.limits.body_timeout, client.write_all(self.out)).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(Failure::ClientLeft),
        }
    }
}

/// Whether the client can tell where this answer ends without the end of its connection.
fn keeps_client(request: &Request, response: &Response) -> bool {
    use super::body::Framing;
    request.keep_alive
        && match response.framing {
            Framing::UntilClose => false,
            Framing::Chunked => !request.old,
            Framing::None | Framing::Length(_) => true,
        }
}

#[cfg(test)]
mod tests {
    use super::super::body::Framing;
    use super::*;
    use proptest::prelude::*;
    use std::io;
    use std::pin::Pin;
    use std::task::{Context, Poll};
    use tokio::io::ReadBuf;

    /// Gives its bytes in pieces of the given sizes and takes what is written in such pieces too.
    struct Pieces {
        input: Vec<u8>,
        at: usize,
        sizes: Vec<usize>,
        turn: usize,
        output: Vec<u8>,
    }

    impl Pieces {
        fn new(input: &[u8], sizes: &[usize]) -> Self {
            Pieces { input: input.to_vec(), at: 0, sizes: sizes.to_vec(), turn: 0, output: Vec::new() }
        }

        fn next(&mut self) -> usize {
            self.turn += 1;
            self.sizes[self.turn % self.sizes.len()]
        }
    }

    impl AsyncRead for Pieces {
        fn poll_read(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            into: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            let n = self.next().min(into.remaining()).min(self.input.len() - self.at);
            into.put_slice(&self.input[self.at..self.at + n]);
            self.at += n;
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Pieces {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            let n = self.next().min(bytes.len());
            self.output.extend_from_slice(&bytes[..n]);
            Poll::Ready(Ok(n))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn request(old: bool) -> Request {
        Request {
            length: 0,
            framing: Framing::None,
            old,
            keep_alive: !old,
            is_head: false,
            idempotent: true,
            upgrade: false,
        }
    }

    /// Passes an answer on and returns how that ended, what the client got, and whether an answer was begun.
    fn relay(wire: &[u8], sizes: &[usize], old: bool) -> (Result<Answer, Failure>, Vec<u8>, bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        let (limits, progress, request) = (Limits::default(), Progress::default(), request(old));
        let (mut backend, mut client) = (Pieces::new(wire, sizes), Pieces::new(&[], sizes));
        let mut download = Download {
            request: &request,
            limits: &limits,
            progress: &progress,
            buffer: &mut Buffer::default(),
            out: &mut Vec::new(),
            last: false,
        };
        let answer = runtime.block_on(download.run(&mut backend, &mut client));
        (answer, client.output, progress.answering.load(Relaxed))
    }

    fn wire_of(kind: u8, body: &[u8], chunk: usize) -> Vec<u8> {
        let mut wire =
            b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nServer: s\r\n".to_vec();
        if kind == 0 {
            wire.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
            wire.extend_from_slice(body);
        } else {
            wire.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
            for piece in body.chunks(chunk) {
                wire.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                wire.extend_from_slice(piece);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\nX-Sum: 1\r\n\r\n");
        }
        wire
    }

    proptest! {
        #[test]
        fn an_answer_in_any_pieces_is_the_same_answer(
            kind in 0u8..2,
            body in proptest::collection::vec(any::<u8>(), 0..3000),
            chunk in 1usize..700,
            sizes in proptest::collection::vec(1usize..900, 1..12),
        ) {
            let wire = wire_of(kind, &body, chunk);
            let (answer, output, _) = relay(&wire, &sizes, false);
            prop_assert_eq!(answer, Ok(Answer { reusable: true, keep_alive: true, upgraded: false }));
            prop_assert_eq!(&output, &wire);
            let (answer, output, _) = relay(&wire, &sizes, true);
            prop_assert_eq!(answer.map(|a| (a.reusable, a.keep_alive)), Ok((true, false)));
            prop_assert!(output.ends_with(&body));
            prop_assert!(!output.windows(7).any(|w| w == b"chunked") || body.windows(7).any(|w| w == b"chunked"));
        }

        #[test]
        fn an_answer_cut_anywhere_is_a_failure(
            kind in 0u8..2,
            body in proptest::collection::vec(any::<u8>(), 1..200),
            chunk in 1usize..70,
            sizes in proptest::collection::vec(1usize..90, 1..6),
            cut in any::<proptest::sample::Index>(),
        ) {
            let wire = wire_of(kind, &body, chunk);
            let cut = cut.index(wire.len());
            let (answer, output, begun) = relay(&wire[..cut], &sizes, false);
            prop_assert!(matches!(answer, Err(Failure::NoResponse | Failure::BadResponse(_))), "{:?}", answer);
            prop_assert_eq!(matches!(answer, Err(Failure::NoResponse)), cut == 0);
            prop_assert!(wire.starts_with(&output));
            let interim = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n".len();
            prop_assert_eq!(begun, output.len() > interim);
        }

        #[test]
        fn whatever_a_backend_sends_nothing_panics(
            wire in proptest::collection::vec(any::<u8>(), 0..300),
            tail in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let head = [b"HTTP/1.1 200 OK\r\n", wire.as_slice(), b"\r\n\r\n", &tail].concat();
            for (wire, sizes, old) in [(&wire, 64, false), (&head, 17, true)] {
                let (answer, output, _) = relay(wire, &[sizes], old);
                prop_assert!(answer.is_err() || output.starts_with(b"HTTP/1.1 "), "{:?}", output);
            }
        }

        #[test]
        fn an_upload_in_any_pieces_is_the_same_body(
            body in proptest::collection::vec(any::<u8>(), 1..3000),
            chunk in 1usize..700,
            sizes in proptest::collection::vec(1usize..900, 1..12),
        ) {
            let mut wire = Vec::new();
            for piece in body.chunks(chunk) {
                wire.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                wire.extend_from_slice(piece);
                wire.extend_from_slice(b"\r\n");
            }
            wire.extend_from_slice(b"0\r\n\r\n");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            let (mut client, mut backend) = (Pieces::new(&wire, &sizes), Pieces::new(&[], &sizes));
            client.input.extend_from_slice(b"GET / HTTP/1.1");
            let mut input = Buffer::default();
            let upload = Upload { body: Body::new(Framing::Chunked), input: &mut input };
            let sent = runtime.block_on(upload.run(&mut client, &mut backend, Duration::from_secs(5)));
            prop_assert!(sent.is_ok());
            prop_assert_eq!(backend.output, wire);
            prop_assert!(b"GET / HTTP/1.1".starts_with(input.filled()), "the next request stays");
        }
    }
}
