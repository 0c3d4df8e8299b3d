//! HTTP/2 without TLS, as gRPC uses it.

#![allow(clippy::unwrap_used)] // In a test a panic is the failure that is wanted.

mod common;

use bytes::Bytes;
use common::{eventually, loopback, proxy, proxy_with, within};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use throng_proxy::{Backend, ProtocolHint, Proxy};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;

type Body = http_body_util::combinators::BoxBody<Bytes, Infallible>;

/// A server of the shape of gRPC: it sends back each message it gets, then its trailers with its name.
struct Service {
    backend: Backend,
    requests: Arc<AtomicUsize>,
    gate: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Service {
    async fn start(name: &str) -> Service {
        let listener = TcpListener::bind(loopback()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, gate): (Arc<AtomicUsize>, Arc<Notify>) = Default::default();
        let (counted, opened, owned) = (requests.clone(), gate.clone(), name.to_owned());
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let (counted, opened, name) = (counted.clone(), opened.clone(), owned.clone());
                let service = service_fn(move |request| {
                    counted.fetch_add(1, Ordering::SeqCst);
                    serve(request, name.clone(), opened.clone())
                });
                connections.spawn(async move {
                    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Service { backend: Backend { name: name.into(), address }, requests, gate, task }
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

async fn serve(
    request: Request<Incoming>,
    name: String,
    gate: Arc<Notify>,
) -> Result<Response<Body>, Infallible> {
    if request.uri().path() == "/gate" {
        gate.notified().await;
    }
    let forwarded = request.headers().get("x-forwarded-for").cloned();
    let te = request.headers().get("te").cloned();
    let (send, frames) = mpsc::channel(1);
    let mut body = request.into_body();
    tokio::spawn(async move {
        while let Some(Ok(frame)) = body.frame().await {
            if frame.is_data() && send.send(Ok(frame)).await.is_err() {
                return;
            }
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        trailers.insert("served-by", HeaderValue::from_str(&name).unwrap());
        let _ = send.send(Ok(Frame::trailers(trailers))).await;
    });
    let stream = futures_of(frames);
    let mut response = Response::new(BodyExt::boxed(StreamBody::new(stream)));
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    for (name, value) in [("seen-forwarded", forwarded), ("seen-te", te)] {
        if let Some(value) = value {
            response.headers_mut().insert(name, value);
        }
    }
    Ok(response)
}

type Frames = mpsc::Receiver<Result<Frame<Bytes>, Infallible>>;

fn futures_of(
    frames: Frames,
) -> impl futures_util::Stream<Item = Result<Frame<Bytes>, Infallible>> + Send + Sync {
    futures_util::stream::unfold(frames, |mut frames| async move { Some((frames.recv().await?, frames)) })
}

async fn client(proxy: SocketAddr) -> SendRequest<Body> {
    let stream = TcpStream::connect(proxy).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn call(path: &str, body: Body) -> Request<Body> {
    Request::post(format!("http://service{path}"))
        .header("te", "trailers")
        .header("content-type", "application/grpc")
        .body(body)
        .unwrap()
}

fn message(text: &'static str) -> Body {
    BodyExt::boxed(Full::new(Bytes::from_static(text.as_bytes())))
}

async fn unary(sender: &mut SendRequest<Body>, path: &str) -> (u16, Bytes, HeaderMap) {
    let response = within("an answer", sender.send_request(call(path, message("hi")))).await.unwrap();
    let status = response.status().as_u16();
    let body = within("the body", response.into_body().collect()).await.unwrap();
    let trailers = body.trailers().cloned().unwrap_or_default();
    (status, body.to_bytes(), trailers)
}

async fn in_front_of(services: &[&Service], protocol: ProtocolHint) -> Proxy {
    let proxy = proxy_with(protocol, |_| ());
    proxy.set_backends(services.iter().map(|s| s.backend.clone()).collect());
    proxy
}

#[tokio::test]
async fn a_call_and_its_trailers_pass_through() {
    let service = Service::start("a").await;
    for protocol in [ProtocolHint::Http2, ProtocolHint::Detect, ProtocolHint::Http] {
        let proxy = in_front_of(&[&service], protocol).await;
        let mut sender = client(proxy.local_addr()).await;
        let response = sender.send_request(call("/", message("hi"))).await.unwrap();
        assert_eq!(response.headers()["seen-forwarded"], "127.0.0.1");
        assert_eq!(response.headers()["seen-te"], "trailers");
        let body = response.into_body().collect().await.unwrap();
        assert_eq!(body.trailers().unwrap()["grpc-status"], "0");
        assert_eq!(body.to_bytes(), "hi");
    }
}

#[tokio::test]
async fn every_call_of_one_connection_is_balanced() {
    let (a, b) = (Service::start("a").await, Service::start("b").await);
    let proxy = in_front_of(&[&a, &b], ProtocolHint::Detect).await;
    let mut sender = client(proxy.local_addr()).await;
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..200 {
        let (_, _, trailers) = unary(&mut sender, "/").await;
        *counts.entry(trailers["served-by"].to_str().unwrap().into()).or_default() += 1;
    }
    assert!(counts.len() == 2 && counts.values().all(|n| *n > 40), "{counts:?}");
}

#[tokio::test]
async fn messages_stream_both_ways_at_once() {
    let service = Service::start("a").await;
    let proxy = in_front_of(&[&service], ProtocolHint::Http2).await;
    let mut sender = client(proxy.local_addr()).await;
    let (send, frames) = mpsc::channel(1);
    let request = call("/", BodyExt::boxed(StreamBody::new(futures_of(frames))));
    let response = within("an answer", sender.send_request(request)).await.unwrap();
    let mut body = response.into_body();
    for text in ["one", "two", "three"] {
        send.send(Ok(Frame::data(Bytes::from_static(text.as_bytes())))).await.unwrap();
        let frame = within("the echo", body.frame()).await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), text);
    }
    assert_eq!(proxy.in_flight("a"), 1, "in flight until its last frame");
    drop(send);
    let last = within("the trailers", body.frame()).await.unwrap().unwrap();
    assert_eq!(last.into_trailers().unwrap()["grpc-status"], "0");
    drop(body);
    eventually("the end", || proxy.in_flight("a") == 0).await;
}

#[tokio::test]
async fn a_service_that_leaves_finishes_its_calls() {
    let (a, b) = (Service::start("a").await, Service::start("b").await);
    let proxy = in_front_of(&[&a], ProtocolHint::Http2).await;
    let mut sender = client(proxy.local_addr()).await;
    let waiting = tokio::spawn({
        let mut sender = sender.clone();
        async move { unary(&mut sender, "/gate").await }
    });
    eventually("the call at the service", || a.requests() == 1).await;
    proxy.set_backends(vec![b.backend.clone()]);
    for _ in 0..10 {
        assert_eq!(unary(&mut sender, "/").await.2["served-by"], "b");
    }
    assert!(!proxy.drained("a", Duration::from_millis(5)).await);
    a.gate.notify_one();
    assert_eq!(waiting.await.unwrap().2["served-by"], "a");
    assert!(proxy.drained("a", common::PATIENCE).await);
}

#[tokio::test]
async fn calls_are_held_and_refused_in_words() {
    let proxy = proxy_with(ProtocolHint::Http2, |l| {
        l.max_held = 1;
        l.hold_timeout = common::PATIENCE;
    });
    let mut sender = client(proxy.local_addr()).await;
    let held = tokio::spawn({
        let mut sender = sender.clone();
        async move { unary(&mut sender, "/").await }
    });
    eventually("one held", || proxy.stats().held == 1).await;
    assert_eq!(unary(&mut sender, "/").await.0, 503);
    let service = Service::start("a").await;
    proxy.set_backends(vec![service.backend.clone()]);
    assert_eq!(held.await.unwrap().0, 200);
}

#[tokio::test]
async fn an_unreachable_service_is_passed_over_and_a_call_never_sent_twice() {
    let (address, _bound) = common::dead_address();
    let live = Service::start("live").await;
    let proxy = proxy();
    proxy.set_backends(vec![Backend { name: "dead".into(), address }, live.backend.clone()]);
    let mut sender = client(proxy.local_addr()).await;
    for _ in 0..40 {
        assert_eq!(unary(&mut sender, "/").await.0, 200);
    }
    assert_eq!(live.requests(), 40);
    proxy.set_backends(vec![Backend { name: "dead".into(), address }]);
    assert_eq!(unary(&mut sender, "/").await.0, 503);
}

#[tokio::test]
async fn a_service_killed_within_its_answer_breaks_the_stream() {
    let service = Service::start("a").await;
    let proxy = in_front_of(&[&service], ProtocolHint::Http2).await;
    let mut sender = client(proxy.local_addr()).await;
    let (send, frames) = mpsc::channel(1);
    let request = call("/", BodyExt::boxed(StreamBody::new(futures_of(frames))));
    send.send(Ok(Frame::data(Bytes::from_static(b"part")))).await.unwrap();
    let mut body = within("an answer", sender.send_request(request)).await.unwrap().into_body();
    assert_eq!(within("the part", body.frame()).await.unwrap().unwrap().into_data().unwrap(), "part");
    service.task.abort();
    let next = within("the end", body.frame()).await;
    assert!(matches!(next, Some(Err(_))), "a broken answer must not look finished: {next:?}");
    assert_eq!(service.requests(), 1);
}

#[tokio::test]
async fn a_service_killed_before_its_answer_gives_502() {
    let service = Service::start("a").await;
    let proxy = in_front_of(&[&service], ProtocolHint::Http2).await;
    let sender = client(proxy.local_addr()).await;
    let waiting = tokio::spawn({
        let mut sender = sender.clone();
        async move { unary(&mut sender, "/gate").await }
    });
    eventually("the call at the service", || service.requests() == 1).await;
    service.task.abort();
    assert_eq!(waiting.await.unwrap().0, 502);
    assert_eq!(service.requests(), 1, "a POST is never sent twice");
}

#[tokio::test]
async fn a_service_that_comes_back_is_connected_anew() {
    let service = Service::start("a").await;
    let proxy = in_front_of(&[&service], ProtocolHint::Http2).await;
    let mut sender = client(proxy.local_addr()).await;
    assert_eq!(unary(&mut sender, "/").await.0, 200);
    drop(service);
    let service = Service::start("a").await;
    proxy.set_backends(vec![service.backend.clone()]);
    assert_eq!(unary(&mut sender, "/").await.0, 200);
}

#[tokio::test]
async fn connect_is_not_a_way_out() {
    let service = Service::start("a").await;
    let proxy = in_front_of(&[&service], ProtocolHint::Http2).await;
    let mut sender = client(proxy.local_addr()).await;
    let request = Request::connect("elsewhere:443").body(BodyExt::boxed(Empty::new())).unwrap();
    let response = within("an answer", sender.send_request(request)).await.unwrap();
    assert_eq!((response.status().as_u16(), service.requests()), (405, 0));
}

#[tokio::test]
async fn a_late_answer_gives_504_only_with_a_limit() {
    let service = Service::start("a").await;
    let proxy = proxy_with(ProtocolHint::Http2, |l| l.response_timeout = Some(Duration::from_millis(50)));
    proxy.set_backends(vec![service.backend.clone()]);
    let mut sender = client(proxy.local_addr()).await;
    assert_eq!(unary(&mut sender, "/gate").await.0, 504);
    assert_eq!(unary(&mut sender, "/").await.0, 200);
}
