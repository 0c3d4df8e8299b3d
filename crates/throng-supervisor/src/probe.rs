//! Running a health check once: inside the replica, or over the network from where its clients are.

use crate::reach::{self, AGENT, Driver};
use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::header::{CONTENT_TYPE, HOST, TE, USER_AGENT};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::net::SocketAddrV4;
use std::sync::Arc;
use throng_model::app::{HealthCheck, HealthTest};
use throng_model::replica::ReplicaId;
use throng_proxy::Dial;
use throng_runtime::{ExecIo, ExecSpec, Runtime};
use tokio::net::TcpStream;

/// An answer to `grpc.health.v1.Health/Check` is a few bytes long.
const GRPC_ANSWER_MOST: usize = 4096;

/// Who is asked, and how it is reached.
pub struct Patient {
    pub runtime: Arc<dyn Runtime>,
    pub dial: Dial,
    pub id: ReplicaId,
    /// Its address in the first of its networks; `None` if it is in none.
    pub address: Option<std::net::Ipv4Addr>,
}

/// Runs the check. The error says why it failed in words for people; it takes no longer than the check's timeout.
pub async fn run(patient: Patient, check: HealthCheck) -> Result<(), String> {
    match &check.test {
        HealthTest::Disabled => Ok(()),
        HealthTest::Exec(args) => inside(patient, args.clone(), &check).await,
        HealthTest::Shell(script) => {
            inside(patient, vec!["/bin/sh".into(), "-c".into(), script.clone()], &check).await
        }
        HealthTest::Http { port, .. } | HealthTest::Tcp { port } | HealthTest::Grpc { port, .. } => {
            let address =
                patient.address.ok_or_else(|| format!("{}: the replica is in no network", check.test))?;
            let address = SocketAddrV4::new(address, *port);
            let asked =
                tokio::time::timeout(check.timeout, over_the_network(&patient.dial, address, &check.test));
            let result = asked.await.unwrap_or_else(|_| Err("no answer in time".into()));
            result.map_err(|reason| format!("{}: {reason}", check.test))
        }
    }
}

async fn inside(patient: Patient, args: Vec<String>, check: &HealthCheck) -> Result<(), String> {
    let command = args.join(" ");
    let spec = ExecSpec { args, timeout: Some(check.timeout), ..ExecSpec::default() };
    let io = null_io().map_err(|error| format!("cannot open /dev/null: {error}"))?;
    match patient.runtime.exec(&patient.id, &spec, io).await {
        Ok(exit) if exit.is_success() => Ok(()),
        Ok(exit) => Err(format!("`{command}` {exit}")),
        Err(error) => Err(format!("`{command}`: {error}")),
    }
}

fn null_io() -> std::io::Result<ExecIo> {
    let open = || std::fs::OpenOptions::new().read(true).write(true).open("/dev/null").map(Into::into);
    Ok(ExecIo { stdin: open()?, stdout: open()?, stderr: open()? })
}

async fn over_the_network(dial: &Dial, address: SocketAddrV4, test: &HealthTest) -> Result<(), String> {
    let stream = reach::replica(dial, address).await.map_err(|error| error.to_string())?;
    match test {
        HealthTest::Http { path, .. } => http(stream, address, path).await,
        HealthTest::Grpc { service, .. } => grpc(stream, address, service).await,
        _ => Ok(()),
    }
}

/// Kubelet's rule: an answer from 200 to 399 is healthy. Its body is not waited for.
async fn http(stream: TcpStream, address: SocketAddrV4, path: &str) -> Result<(), String> {
    let request = Request::get(path).header(HOST, address.to_string());
    let (answer, _) = reach::ask(stream, request).await?;
    let status = answer.status();
    if status.is_success() || status.is_redirection() { Ok(()) } else { Err(format!("answered {status}")) }
}

/// The health protocol of gRPC (grpc/grpc-proto, `grpc/health/v1/health.proto`).
async fn grpc(stream: TcpStream, address: SocketAddrV4, service: &str) -> Result<(), String> {
    let request = Request::post(format!("http://{address}/grpc.health.v1.Health/Check"))
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .header(USER_AGENT, AGENT)
        .body(Full::new(check_request(service)))
        .map_err(|error| error.to_string())?;
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
    let driver = Driver::of(connection);
    let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let (head, body) = answer.into_parts();
    if !head.status.is_success() {
        return Err(format!("answered {}", head.status));
    }
    let body = Limited::new(body, GRPC_ANSWER_MOST).collect().await.map_err(|error| error.to_string())?;
    drop(driver);
    let of =
        |map: &hyper::HeaderMap, name: &str| map.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let status = body
        .trailers()
        .and_then(|trailers| of(trailers, "grpc-status"))
        .or_else(|| of(&head.headers, "grpc-status"));
    match status.as_deref() {
        Some("0") => serving(&body.to_bytes()),
        Some("5") => Err(format!("knows no service {service:?} (gRPC status 5)")),
        Some("12") => Err("has no health service (gRPC status 12)".into()),
        Some(status) => Err(format!("gRPC status {status}")),
        None => Err("answered without a gRPC status".into()),
    }
}

/// `HealthCheckRequest { string service = 1; }` as a message of a gRPC stream.
fn check_request(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            message.put_u8((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        message.put_u8(length as u8);
        message.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.put_slice(&message);
    frame.freeze()
}

/// `HealthCheckResponse { ServingStatus status = 1; }`: SERVING is 1.
fn serving(answer: &[u8]) -> Result<(), String> {
    match answer {
        [0, _, _, _, _, 0x08, 1] => Ok(()),
        [0, 0, 0, 0, 0] | [0, _, _, _, _, 0x08, 0] => Err("status UNKNOWN".into()),
        [0, _, _, _, _, 0x08, 2] => Err("status NOT_SERVING".into()),
        [0, _, _, _, _, 0x08, 3] => Err("status SERVICE_UNKNOWN".into()),
        _ => Err("an answer that is none of the health protocol".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::{HeaderMap, Response, body::Frame, service::service_fn};
    use std::os::fd::AsFd;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpSocket};

    fn dial() -> Dial {
        Arc::new(|| TcpSocket::new_v4()?.as_fd().try_clone_to_owned())
    }

    async fn listener() -> (TcpListener, SocketAddrV4) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let std::net::SocketAddr::V4(address) = listener.local_addr().expect("an address") else {
            panic!("an IPv4 address")
        };
        (listener, address)
    }

    async fn asked(address: SocketAddrV4, test: HealthTest) -> Result<(), String> {
        let dial = dial();
        let result = over_the_network(&dial, address, &test);
        tokio::time::timeout(Duration::from_secs(10), result).await.expect("an answer")
    }

    #[tokio::test]
    async fn an_answer_below_400_is_healthy() {
        for (answer, healthy) in [
            ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", true),
            ("HTTP/1.1 204 No Content\r\n\r\n", true),
            ("HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n", true),
            ("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nnot all", true),
            ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", false),
            ("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n", false),
            ("nonsense\r\n\r\n", false),
        ] {
            let (listener, address) = listener().await;
            tokio::spawn(async move {
                let (mut stream, _) = listener.accept().await.expect("a connection");
                let mut head = [0; 1024];
                let length = stream.read(&mut head).await.expect("a request");
                assert!(head[..length].starts_with(b"GET /ok?x HTTP/1.1\r\n"));
                stream.write_all(answer.as_bytes()).await.expect("sent");
            });
            let test = HealthTest::Http { port: address.port(), path: "/ok?x".into() };
            let result = asked(address, test).await;
            assert_eq!(result.is_ok(), healthy, "{answer:?}: {result:?}");
        }
    }

    #[tokio::test]
    async fn a_connection_is_healthy_and_its_refusal_is_not() {
        let (listener, address) = listener().await;
        let test = HealthTest::Tcp { port: address.port() };
        assert_eq!(asked(address, test.clone()).await, Ok(()));
        drop(listener);
        let error = asked(address, test).await.expect_err("nobody listens");
        assert!(error.contains("refused"), "{error}");
    }

    /// A server of the health protocol that answers `status` to whoever asks for "shop", and 5 to others.
    async fn health_server(status: u8) -> SocketAddrV4 {
        let (listener, address) = listener().await;
        tokio::spawn(async move {
            let (stream, _) = listener.accept().await.expect("a connection");
            let answer = move |request: Request<hyper::body::Incoming>| async move {
                assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
                let asked = request.into_body().collect().await?.to_bytes();
                let known = asked[..] == *b"\0\0\0\0\x06\x0a\x04shop";
                let message = Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 8, status]);
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", if known { "0" } else { "5" }.parse().expect("a value"));
                let data = known.then_some(Ok(Frame::data(message)));
                let frames = data.into_iter().chain([Ok::<_, hyper::Error>(Frame::trailers(trailers))]);
                let body = http_body_util::StreamBody::new(futures_util::stream::iter(frames));
                Ok::<_, hyper::Error>(Response::new(body))
            };
            let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(stream), service_fn(answer)).await;
        });
        address
    }

    #[tokio::test]
    async fn a_grpc_service_is_healthy_while_it_serves() {
        for (status, service, word) in [
            (1, "shop", None),
            (2, "shop", Some("NOT_SERVING")),
            (0, "shop", Some("UNKNOWN")),
            (1, "other", Some("knows no service")),
        ] {
            let address = health_server(status).await;
            let test = HealthTest::Grpc { port: address.port(), service: service.into() };
            match (asked(address, test).await, word) {
                (Ok(()), None) => {}
                (Err(error), Some(word)) if error.contains(word) => {}
                (other, _) => panic!("{status} {service}: {other:?}"),
            }
        }
    }
}
