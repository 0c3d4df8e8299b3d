//! One HTTP/1.1 connection: dialled when needed, kept while the peer keeps it, closed after every failure.

use crate::error::{ErrorKind, LoadError};
use crate::response::ResponseReader;
use crate::spec::{LoadSpec, TlsRoots};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Bytes read from a connection at a time, into one buffer for all connections of a thread: what they carry is
/// read on at once, so nothing of it has to stay.
const SCRATCH_BYTES: usize = 64 * 1024;

pub(crate) type Scratch = Rc<RefCell<Box<[u8]>>>;

pub(crate) fn scratch() -> Scratch {
    Rc::new(RefCell::new(vec![0; SCRATCH_BYTES].into_boxed_slice()))
}

/// Where connections go, resolved once before the load.
pub(crate) struct Target {
    addresses: Vec<SocketAddr>,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Target {
    pub async fn new(spec: &LoadSpec) -> Result<Target, LoadError> {
        let host = spec.target.host_str().unwrap_or_default();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let addresses = match spec.connect_to {
            Some(address) => vec![address],
            None => {
                let port = spec.target.port_or_known_default().unwrap_or(80);
                let failed = |source| LoadError::Resolve { host: host.to_owned(), source };
                let found: Vec<_> = tokio::net::lookup_host((bare, port)).await.map_err(failed)?.collect();
                if found.is_empty() {
                    return Err(failed(io::Error::new(io::ErrorKind::NotFound, "the name has no address")));
                }
                found
            }
        };
        let tls = match spec.target.scheme() {
            "https" => Some((tls_connector(spec)?, server_name(bare)?)),
            _ => None,
        };
        Ok(Target { addresses, tls })
    }

    /// Opens a connection, trying all addresses from the `turn`-th on.
    pub async fn dial(&self, turn: usize) -> Result<Wire, ErrorKind> {
        let mut failure = ErrorKind::Connect;
        for offset in 0..self.addresses.len() {
            let address = self.addresses[turn.wrapping_add(offset) % self.addresses.len()];
            match TcpStream::connect(address).await {
                Ok(stream) => return self.secure(stream).await,
                Err(error) => failure = ErrorKind::of_dial(&error),
            }
        }
        Err(failure)
    }

    async fn secure(&self, stream: TcpStream) -> Result<Wire, ErrorKind> {
        stream.set_nodelay(true).map_err(|error| ErrorKind::of_stream(&error))?;
        match &self.tls {
            None => Ok(Wire::Plain(stream)),
            Some((connector, name)) => match connector.connect(name.clone(), stream).await {
                Ok(stream) => Ok(Wire::Tls(Box::new(stream))),
                Err(_) => Err(ErrorKind::Tls),
            },
        }
    }
}

fn server_name(host: &str) -> Result<ServerName<'static>, LoadError> {
    ServerName::try_from(host.to_owned()).map_err(|source| LoadError::Tls {
        hint: "use a host name or an address that a certificate can name",
        source: source.into(),
    })
}

fn tls_connector(spec: &LoadSpec) -> Result<TlsConnector, LoadError> {
    let mut roots = rustls::RootCertStore::empty();
    match &spec.tls {
        TlsRoots::System => {
            // Single certificates of a system's store may be unreadable; it is enough that there are others.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        TlsRoots::Pem(pem) => {
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let wrong = |source: Box<dyn std::error::Error + Send + Sync>| LoadError::Tls {
                    hint: "give certificates of authorities in PEM",
                    source,
                };
                let certificate = certificate.map_err(|e| wrong(e.to_string().into()))?;
                roots.add(certificate).map_err(|e| wrong(e.into()))?;
            }
        }
    }
    if roots.is_empty() {
        return Err(LoadError::Tls {
            hint: "install the package ca-certificates, or give the authorities in PEM",
            source: "no certificate authority is trusted".into(),
        });
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| LoadError::Tls { hint: "this is a defect, please report it", source: e.into() })?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![if spec.http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// A connection's bytes, encrypted or not.
pub(crate) enum Wire {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Plain(stream) => Pin::new(stream).poll_read(cx, buffer),
            Wire::Tls(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Wire::Plain(stream) => Pin::new(stream).poll_write(cx, bytes),
            Wire::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Wire::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Wire::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Wire::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

/// Bytes that went over the wire (before encryption) for one request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub sent: u64,
    pub received: u64,
}

pub(crate) struct Http1 {
    target: Arc<Target>,
    scratch: Scratch,
    wire: Option<Wire>,
    turn: usize,
    pub reader: ResponseReader,
}

impl Http1 {
    /// `turn` spreads the connections over the target's addresses.
    pub fn new(target: Arc<Target>, scratch: Scratch, turn: usize) -> Http1 {
        Http1 { target, scratch, wire: None, turn, reader: ResponseReader::default() }
    }

    pub fn disconnect(&mut self) {
        self.wire = None;
    }

    /// Sends a request and reads the whole answer; the status, or what went wrong. Never sends twice: whether
    /// the peer acted on a request that it did not answer is not known, and a repetition would hide a failure.
    pub async fn exchange(
        &mut self,
        request: &[u8],
        head_request: bool,
        traffic: &mut Traffic,
    ) -> Result<u16, ErrorKind> {
        let kept = match self.wire.take() {
            Some(mut wire) => (!self.is_stale(&mut wire).await).then_some(wire),
            None => None,
        };
        let mut wire = match kept {
            Some(wire) => wire,
            None => {
                self.turn = self.turn.wrapping_add(1);
                self.target.dial(self.turn).await?
            }
        };
        self.reader.expect(head_request);
        let mut sending = Sending { request, written: 0, flushed: false, failure: None };
        let result = poll_fn(|cx| self.poll_exchange(&mut wire, &mut sending, traffic, cx)).await;
        if result.is_ok() && self.reader.keep_alive() && sending.is_over() && sending.failure.is_none() {
            self.wire = Some(wire);
        }
        result.map(|()| self.reader.status())
    }

    /// Whether the peer closed a connection that waited, or spoke out of turn. Costs no system call while there
    /// is nothing to read.
    async fn is_stale(&self, wire: &mut Wire) -> bool {
        poll_fn(|cx| {
            let mut scratch = self.scratch.borrow_mut();
            let mut buffer = ReadBuf::new(&mut scratch);
            Poll::Ready(Pin::new(&mut *wire).poll_read(cx, &mut buffer).is_ready())
        })
        .await
    }

    /// Sends what is left to send and reads what there is to read. Both at the same time, since a peer may
    /// answer, say with 413, without having read the body.
    fn poll_exchange(
        &mut self,
        wire: &mut Wire,
        sending: &mut Sending<'_>,
        traffic: &mut Traffic,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), ErrorKind>> {
        sending.poll(wire, traffic, cx);
        let mut scratch = self.scratch.borrow_mut();
        loop {
            let mut buffer = ReadBuf::new(&mut scratch);
            match ready!(Pin::new(&mut *wire).poll_read(cx, &mut buffer)) {
                Ok(()) if buffer.filled().is_empty() => {
                    return Poll::Ready(end_of_stream(&mut self.reader, sending));
                }
                Ok(()) => {}
                Err(error) => {
                    let kind = sending.failure.unwrap_or_else(|| ErrorKind::of_stream(&error));
                    return Poll::Ready(Err(kind));
                }
            }
            traffic.received += buffer.filled().len() as u64;
            match self.reader.feed(buffer.filled()) {
                Ok(true) => return Poll::Ready(Ok(())),
                Ok(false) => {}
                Err(_) => return Poll::Ready(Err(ErrorKind::Protocol)),
            }
        }
    }
}

fn end_of_stream(reader: &mut ResponseReader, sending: &Sending<'_>) -> Result<(), ErrorKind> {
    if reader.close() {
        return Ok(());
    }
    Err(match sending.failure {
        Some(kind) => kind,
        None if reader.has_begun() => ErrorKind::Truncated,
        None => ErrorKind::Closed,
    })
}

struct Sending<'a> {
    request: &'a [u8],
    written: usize,
    flushed: bool,
    /// Why sending ended early. The answer may still come, so this counts only if it does not.
    failure: Option<ErrorKind>,
}

impl Sending<'_> {
    fn is_over(&self) -> bool {
        self.flushed || self.failure.is_some()
    }

    fn poll(&mut self, wire: &mut Wire, traffic: &mut Traffic, cx: &mut Context<'_>) {
        while !self.is_over() {
            let step = if self.written < self.request.len() {
                Pin::new(&mut *wire).poll_write(cx, &self.request[self.written..])
            } else {
                Pin::new(&mut *wire).poll_flush(cx).map_ok(|()| 0)
            };
            match step {
                Poll::Pending => return,
                Poll::Ready(Err(error)) => self.failure = Some(ErrorKind::of_stream(&error)),
                Poll::Ready(Ok(_)) if self.written == self.request.len() => self.flushed = true,
                Poll::Ready(Ok(0)) => self.failure = Some(ErrorKind::Reset),
                Poll::Ready(Ok(count)) => {
                    self.written += count;
                    traffic.sent += count as u64;
                }
            }
        }
    }
}
