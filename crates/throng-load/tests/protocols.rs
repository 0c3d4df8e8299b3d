//! TLS and HTTP/2, against servers made of the same libraries' other halves; and the histogram log.

mod common;

use bytes::Bytes;
use common::{Server, closed, ok, run};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use throng_load::{Body, LoadSpec, Progress, RequestSpec, Requests, TlsRoots, write_hdr_log};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Runs a server of tokio's on a thread of its own, and gives its address.
fn serve<F: Future<Output = ()> + Send>(
    server: impl FnOnce(TcpListener) -> F + Send + 'static,
) -> std::net::SocketAddr {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
            sender.send(listener.local_addr().expect("an address")).expect("the test waits");
            server(listener).await;
        });
    });
    receiver.recv().expect("the server starts")
}

fn tls_server() -> (std::net::SocketAddr, String) {
    let key = rcgen::generate_simple_self_signed(vec!["shop.example".to_owned()]).expect("a certificate");
    let (pem, certificate) = (key.cert.pem(), key.cert.der().clone());
    let secret = rustls::pki_types::PrivateKeyDer::Pkcs8(key.signing_key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(vec![certificate], secret))
        .expect("a configuration");
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let address = serve(move |listener| async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut buffer = [0; 4096];
                while stream.read(&mut buffer).await.is_ok_and(|count| count > 0) {
                    let reply = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                    if stream.write_all(reply).await.is_err() || stream.flush().await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, pem)
}

#[test]
fn https_is_spoken_with_those_who_can_prove_their_name() {
    let (address, pem) = tls_server();
    let spec = |url: &str, tls: TlsRoots| LoadSpec {
        connect_to: Some(address),
        tls,
        ..closed(url.parse().expect(url), 3, Requests::PerClient(20))
    };
    let trusted = TlsRoots::Pem(pem.clone().into());
    let result = run(spec("https://shop.example/", trusted.clone()));
    assert_eq!((result.succeeded, result.errors), (60, BTreeMap::new()));

    let result = run(spec("https://other.example/", trusted));
    assert_eq!(result.errors, BTreeMap::from([("tls".into(), 60)]));

    let stranger = rcgen::generate_simple_self_signed(vec!["x.example".to_owned()]).expect("a certificate");
    let result = run(spec("https://shop.example/", TlsRoots::Pem(stranger.cert.pem().into())));
    assert_eq!(result.errors, BTreeMap::from([("tls".into(), 60)]));
}

#[test]
fn a_service_without_tls_fails_the_handshake() {
    let server = Server::start(|_| ok(""));
    let (_, pem) = tls_server();
    let url = format!("https://{}/", server.address).parse().expect("a URL");
    let spec = LoadSpec {
        tls: TlsRoots::Pem(pem.into()),
        timeout: Duration::from_millis(500),
        ..closed(url, 1, Requests::Total(2))
    };
    let result = run(spec);
    assert_eq!((result.succeeded, result.requests), (0, 2));
    assert!(result.errors.keys().all(|kind| kind == "tls" || kind == "timeout"), "{:?}", result.errors);
}

/// Echoes a gRPC message; every fourth call of a connection fails with status 14.
fn grpc_server() -> std::net::SocketAddr {
    serve(|listener| async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.expect("HTTP/2");
                let mut calls = 0;
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    calls += 1;
                    let status = if calls % 4 == 0 { "14" } else { "0" };
                    tokio::spawn(async move {
                        let mut body = request.into_body();
                        let mut message = Vec::new();
                        while let Some(Ok(chunk)) = body.data().await {
                            body.flow_control().release_capacity(chunk.len()).expect("capacity");
                            message.extend_from_slice(&chunk);
                        }
                        let head = http::Response::builder()
                            .header("content-type", "application/grpc")
                            .header("x-replica", "echo-1")
                            .body(())
                            .expect("a head");
                        let mut stream = respond.send_response(head, false).expect("sent");
                        stream.send_data(Bytes::from(message), false).expect("sent");
                        let trailers = http::HeaderMap::from_iter([(
                            http::HeaderName::from_static("grpc-status"),
                            http::HeaderValue::from_static(status),
                        )]);
                        stream.send_trailers(trailers).expect("sent");
                    });
                }
            });
        }
    })
}

#[test]
fn grpc_calls_succeed_or_fail_by_their_status() {
    let address = grpc_server();
    let url = format!("http://{address}/echo.Echo/Say").parse().expect("a URL");
    let mut spec = LoadSpec { http2: true, ..closed(url, 2, Requests::PerClient(40)) };
    spec.request = RequestSpec {
        method: "POST".into(),
        headers: vec![("content-type".into(), "application/grpc".into()), ("te".into(), "trailers".into())],
        body: Body::Bytes(vec![0; 100_000].into()),
    };
    let result = run(spec);
    assert_eq!((result.requests, result.succeeded), (80, 60));
    assert_eq!(result.errors, BTreeMap::from([("grpc 14".into(), 20)]));
    assert_eq!(result.bytes_sent, 80 * 100_000);
    assert_eq!(result.status, BTreeMap::from([(200, 80)]));
    assert_eq!(result.by_replica, BTreeMap::from([("echo-1".into(), 80)]));
}

#[test]
fn http2_with_a_server_that_has_none_is_a_failure() {
    let server = Server::start(|_| ok(""));
    let timeout = Duration::from_secs(2);
    let spec = LoadSpec { http2: true, timeout, ..closed(server.url(), 1, Requests::Total(2)) };
    let result = run(spec);
    assert_eq!((result.requests, result.succeeded), (2, 0), "{:?}", result.errors);
}

#[test]
fn the_log_has_all_intervals_and_the_whole() {
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
    let server = Server::start(|_| ok(""));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (progress, _) = tokio::sync::watch::channel(Progress::default());
    let spec = closed(server.url(), 1, Requests::For(Duration::from_millis(1_500)));
    let load = runtime
        .block_on(throng_load::run_detailed(spec, progress, CancellationToken::new()))
        .expect("the load runs");
    let mut log = Vec::new();
    write_hdr_log(&load, SystemTime::UNIX_EPOCH, &mut log).expect("written");
    let (mut whole, mut parts) = (0, Vec::new());
    for entry in IntervalLogIterator::new(&log) {
        if let LogEntry::Interval(interval) = entry.expect("a line") {
            use base64::Engine;
            let bytes = base64::engine::general_purpose::STANDARD
                .decode(interval.encoded_histogram())
                .expect("base64");
            let histogram = Deserializer::new().deserialize::<u64, _>(&mut &bytes[..]).expect("a histogram");
            match interval.tag() {
                Some(tag) => {
                    assert_eq!(tag.as_str(), "total");
                    whole = histogram.len();
                }
                None => parts.push((interval.start_timestamp(), histogram.len())),
            }
        }
    }
    assert_eq!(whole, load.result.succeeded);
    assert_eq!(parts.iter().map(|(_, count)| count).sum::<u64>(), whole);
    assert_eq!(parts[1].0, Duration::from_secs(1));
    assert!(String::from_utf8_lossy(&log).contains("[StartTime: 0.000"));
}
