//! Reaching replicas from the network namespace that they are in, and asking whoever is reached over HTTP/1.

use bytes::Bytes;
use http_body_util::Empty;
use hyper::Response;
use hyper::body::Incoming;
use hyper::header::USER_AGENT;
use hyper::http::request::Builder;
use hyper_util::rt::TokioIo;
use std::net::SocketAddrV4;
use throng_proxy::Dial;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;

/// What this program calls itself to whom it asks.
pub const AGENT: &str = concat!("throng/", env!("CARGO_PKG_VERSION"));

/// A connection to a replica.
pub async fn replica(dial: &Dial, address: SocketAddrV4) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::from_std_stream(std::net::TcpStream::from(dial()?));
    socket.connect(address.into()).await
}

/// Drives a connection until this is dropped: nobody asks anything over it any more.
pub struct Driver(JoinHandle<hyper::Result<()>>);

impl Driver {
    pub fn of(connection: impl Future<Output = hyper::Result<()>> + Send + 'static) -> Driver {
        Driver(tokio::spawn(connection))
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Asks the one request of a connection. The body of the answer comes for as long as the driver is held.
pub async fn ask<S>(stream: S, request: Builder) -> Result<(Response<Incoming>, Driver), String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let request =
        request.header(USER_AGENT, AGENT).body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    let driver = Driver::of(connection);
    let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
    Ok((answer, driver))
}
