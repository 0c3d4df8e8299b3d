//! Asking an endpoint for its text: one GET over a connection of its own, within bounds.

use super::tls::Trust;
use crate::reach;
use http_body_util::{BodyExt, Limited};
use hyper::body::Body;
use hyper::header::{ACCEPT, HOST};
use std::net::SocketAddrV4;
use std::path::Path;
use std::time::Duration;
use throng_proxy::Dial;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// Most bytes of one text.
pub const TEXT_MOST: usize = 4 << 20;
/// The longest one endpoint may take.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Where a text is to be had.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// At a replica, in the network that it is in.
    Replica { address: SocketAddrV4, path: String },
    /// Anything else, as this host reaches it; over TLS if it says whom it trusts.
    Elsewhere { tls: Option<Trust>, host: String, port: u16, path: String },
}

impl Place {
    /// Of `http://HOST[:PORT][/PATH]` or `https://…`; `None` for any other text. `ca`: whom an `https` one is trusted by.
    pub fn of_url(url: &str, ca: Option<&Path>) -> Option<Place> {
        let (tls, rest) = match url.split_once("://")? {
            ("http", rest) => (None, rest),
            ("https", rest) => (Some(Trust { ca: ca.map(Path::to_owned) }), rest),
            _ => return None,
        };
        let (authority, path) = rest.find('/').map_or((rest, "/"), |slash| rest.split_at(slash));
        let (host, port) = match authority.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
            Some((host, port)) => (host, port.parse().ok()?),
            None => (authority, if tls.is_some() { 443 } else { 80 }),
        };
        Some(Place::Elsewhere { tls, host: host.to_owned(), port, path: path.to_owned() })
    }

    fn path(&self) -> &str {
        match self {
            Place::Replica { path, .. } | Place::Elsewhere { path, .. } => path,
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Replica { address, path } => write!(f, "http://{address}{path}"),
            Place::Elsewhere { tls, host, port, path } => {
                let scheme = if tls.is_some() { "https" } else { "http" };
                write!(f, "{scheme}://{host}:{port}{path}")
            }
        }
    }
}

/// The text at a place, before `deadline` and within [`ANSWER_WITHIN`].
pub async fn text(place: &Place, dial: &Dial, deadline: Instant) -> Result<String, String> {
    let deadline = deadline.min(Instant::now() + ANSWER_WITHIN);
    match tokio::time::timeout_at(deadline, get(place, dial)).await {
        Ok(result) => result.map_err(|error| format!("{place}: {error}")),
        Err(_) => Err(format!("{place}: no answer in time")),
    }
}

async fn get(place: &Place, dial: &Dial) -> Result<String, String> {
    let stream = connect(place, dial).await.map_err(|error| error.to_string())?;
    let host = match place {
        Place::Replica { address, .. } => address.to_string(),
        Place::Elsewhere { host, port, .. } => format!("{host}:{port}"),
    };
    let request = hyper::Request::get(place.path())
        .header(HOST, host)
        .header(ACCEPT, "text/plain;version=0.0.4,*/*;q=0.1");
    let (response, _driver) = match place {
        Place::Elsewhere { tls: Some(trust), host, .. } => {
            reach::ask(trust.connect(stream, bare(host)).await?, request).await?
        }
        _ => reach::ask(stream, request).await?,
    };
    if !response.status().is_success() {
        return Err(format!("answered {}", response.status()));
    }
    let too_long = || format!("the answer is longer than {TEXT_MOST} bytes");
    if response.body().size_hint().lower() > TEXT_MOST as u64 {
        return Err(too_long());
    }
    let body = Limited::new(response.into_body(), TEXT_MOST).collect().await.map_err(|error| {
        match error.is::<http_body_util::LengthLimitError>() {
            true => too_long(),
            false => error.to_string(),
        }
    })?;
    Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
}

async fn connect(place: &Place, dial: &Dial) -> std::io::Result<TcpStream> {
    match place {
        Place::Replica { address, .. } => reach::replica(dial, *address).await,
        Place::Elsewhere { host, port, .. } => TcpStream::connect((bare(host), *port)).await,
    }
}

/// Without the brackets that an address of IPv6 has in a URL.
fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpSocket;

    fn dial() -> Dial {
        Arc::new(|| {
            let socket = TcpSocket::new_v4()?;
            Ok(std::os::fd::OwnedFd::from(unbound(socket)))
        })
    }

    /// Tokio gives a socket away only once it is connected; the descriptor is duplicated for that.
    fn unbound(socket: TcpSocket) -> std::net::TcpStream {
        use std::os::fd::AsFd;
        std::net::TcpStream::from(socket.as_fd().try_clone_to_owned().expect("a descriptor"))
    }

    async fn served(answer: &'static [u8]) -> std::net::SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut head = [0; 1024];
                let _ = stream.read(&mut head).await;
                let _ = stream.write_all(answer).await;
            }
        });
        address
    }

    #[test]
    fn urls_are_places() {
        for (url, host, port, path) in [
            ("http://a", "a", 80, "/"),
            ("http://127.0.0.1:9090/metrics?x=1", "127.0.0.1", 9090, "/metrics?x=1"),
            ("http://[::1]:9/m", "[::1]", 9, "/m"),
            ("http://[::1]", "[::1]", 80, "/"),
        ] {
            let expected = Place::Elsewhere { tls: None, host: host.into(), port, path: path.into() };
            assert_eq!(Place::of_url(url, None), Some(expected), "{url}");
        }
        let ca = Path::new("/ca.pem");
        let tls = Some(Trust { ca: Some(ca.into()) });
        let expected = Place::Elsewhere { tls, host: "a".into(), port: 443, path: "/".into() };
        assert_eq!(Place::of_url("https://a", Some(ca)), Some(expected));
        for wrong in ["http://a:x", "ftp://a", "a"] {
            assert_eq!(Place::of_url(wrong, None), None, "{wrong}");
        }
    }

    #[tokio::test]
    async fn texts_are_had_from_replicas_and_elsewhere() {
        let address = served(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nx 1\n").await;
        let std::net::SocketAddr::V4(v4) = address else { panic!("{address}") };
        let later = Instant::now() + Duration::from_secs(10);
        let replica = Place::Replica { address: v4, path: "/metrics".into() };
        assert_eq!(text(&replica, &dial(), later).await.as_deref(), Ok("x 1\n"));
        let elsewhere = Place::of_url(&format!("http://localhost:{}/", v4.port()), None).expect("a place");
        assert_eq!(text(&elsewhere, &dial(), later).await.as_deref(), Ok("x 1\n"));
    }

    /// A server for `localhost` that answers over TLS, and its certificate.
    async fn served_over_tls(answer: &'static [u8]) -> (u16, String) {
        let own = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
        let secret = rustls::pki_types::PrivateKeyDer::Pkcs8(own.signing_key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|b| b.with_no_client_auth().with_single_cert(vec![own.cert.der().clone()], secret))
            .expect("a configuration");
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = acceptor.accept(stream).await else { continue };
                let mut head = [0; 1024];
                let _ = stream.read(&mut head).await;
                let _ = stream.write_all(answer).await;
                let _ = stream.flush().await;
            }
        });
        (port, own.cert.pem())
    }

    #[tokio::test]
    async fn texts_are_had_over_tls_from_whom_is_trusted_and_from_nobody_else() {
        let later = || Instant::now() + Duration::from_secs(10);
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nx 1\n";
        let (port, pem) = served_over_tls(answer).await;
        let (_, other) = served_over_tls(answer).await;
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).expect("written");
            path
        };
        let (good, stranger, none) = (file("good", &pem), file("stranger", &other), file("none", "x"));
        let place = |host: &str, ca: &Path| {
            Place::of_url(&format!("https://{host}:{port}/"), Some(ca)).expect("a place")
        };
        assert_eq!(text(&place("localhost", &good), &dial(), later()).await.as_deref(), Ok("x 1\n"));
        for (place, word) in [
            (place("localhost", &stranger), "invalid peer certificate"),
            (place("127.0.0.1", &good), "invalid peer certificate"),
            (place("localhost", &none), "no certificate authority"),
            (place("localhost", &folder.path().join("missing")), "missing"),
            (Place::of_url(&format!("https://localhost:{port}/"), None).expect("a place"), "https://"),
        ] {
            let error = text(&place, &dial(), later()).await.expect_err("not trusted");
            assert!(error.contains(word), "{word}: {error}");
        }
        // Who does not speak TLS is told as well.
        let plain = served(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.port();
        let plain = Place::of_url(&format!("https://localhost:{plain}/"), Some(&good)).expect("a place");
        let error = text(&plain, &dial(), later()).await.expect_err("no TLS");
        assert!(error.contains("TLS"), "{error}");
    }

    #[tokio::test]
    async fn what_does_not_answer_well_is_an_error_in_time() {
        let later = || Instant::now() + Duration::from_secs(10);
        for (answer, word) in [
            (&b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"[..], "404"),
            (b"nonsense\r\n\r\n", "http://"),
            (b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\nx", "longer than"),
        ] {
            let place = Place::of_url(&format!("http://{}/", served(answer).await), None).expect("a place");
            let error = text(&place, &dial(), later()).await.expect_err("refused");
            assert!(error.contains(word), "{error}");
        }
        // Connections wait there for somebody to accept them, who never comes.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let silent = Place::of_url(&format!("http://{address}/"), None).expect("a place");
        let soon = Instant::now() + Duration::from_millis(50);
        let error = text(&silent, &dial(), soon).await.expect_err("silent");
        assert!(error.contains("in time") && soon.elapsed() < Duration::from_secs(1), "{error}");
    }
}
