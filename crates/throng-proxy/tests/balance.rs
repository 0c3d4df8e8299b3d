//! Who gets a request: spread, readiness, draining, holding, retrying.

#![allow(clippy::unwrap_used)] // In a test a panic is the failure that is wanted.

mod common;

use common::{Replica, Wire, answers, dead_address, eventually, get, proxy, proxy_with, within};
use std::sync::Arc;
use std::time::Duration;
use throng_proxy::{Backend, Limits, ProtocolHint, Proxy, ProxyConfig, ProxyError};
use tokio::sync::Notify;

#[tokio::test]
async fn requests_are_spread_over_all_replicas() {
    let proxy = proxy();
    let replicas = [Replica::named("a").await, Replica::named("b").await, Replica::named("c").await];
    proxy.set_backends(replicas.iter().map(Replica::backend).collect());
    let counts = answers(&proxy, 600).await;
    // A fair share is 200; eight standard deviations are 92.
    assert!(counts.len() == 3 && counts.values().all(|n| (108..=292).contains(n)), "{counts:?}");
    let stats = proxy.stats();
    assert_eq!(stats.requests, 600);
    assert_eq!(stats.backends.values().map(|b| b.requests).sum::<u64>(), 600);
}

#[tokio::test]
async fn a_busy_replica_gets_less() {
    let proxy = proxy();
    let gate = Arc::new(Notify::new());
    let busy = gated("busy", gate.clone()).await;
    let free = Replica::named("free").await;
    proxy.set_backends(vec![busy.backend()]);
    let mut waiting = Wire::connect(proxy.local_addr()).await;
    waiting.send("GET /gate HTTP/1.1\r\nHost: x\r\n\r\n").await;
    eventually("the request in flight", || proxy.in_flight("busy") == 1).await;
    proxy.set_backends(vec![busy.backend(), free.backend()]);
    assert_eq!(answers(&proxy, 50).await, [("free".to_owned(), 50)].into());
    gate.notify_one();
    assert_eq!(waiting.response().await.body, "busy");
}

#[tokio::test]
async fn idle_connections_are_no_more_than_allowed() {
    // Each replica's connection rests while the others are asked.
    for (idle_total, kept) in [(64, true), (3, false)] {
        let proxy = proxy_with(ProtocolHint::Detect, |limits| {
            limits.workers = 1;
            limits.idle_total = idle_total;
        });
        let mut replicas = Vec::new();
        for name in ["a", "b", "c", "d", "e", "f", "g", "h"] {
            replicas.push(Replica::named(name).await);
        }
        proxy.set_backends(replicas.iter().map(Replica::backend).collect());
        let counts = answers(&proxy, 200).await;
        assert_eq!((counts.len(), counts.values().sum::<usize>()), (8, 200));
        let made: usize = replicas.iter().map(|replica| replica.seen.lock().unwrap().connections).sum();
        assert_eq!(
            made == replicas.len(),
            kept,
            "{made} connections to eight replicas with {idle_total} idle"
        );
    }
}

/// Answers /gate only when `gate` opens, everything else at once.
async fn gated(name: &str, gate: Arc<Notify>) -> Replica {
    let body = name.to_owned();
    Replica::start(name, move |mut wire, _| {
        let (gate, body) = (gate.clone(), body.clone());
        async move {
            while let Some(head) = wire.request().await {
                if head.contains(" /gate ") {
                    gate.notified().await;
                }
                wire.answer(&body).await;
            }
        }
    })
    .await
}

#[tokio::test]
async fn only_ready_replicas_get_requests() {
    let proxy = proxy();
    let (a, b) = (Replica::named("a").await, Replica::named("b").await);
    proxy.set_backends(vec![a.backend()]);
    assert_eq!(answers(&proxy, 20).await, [("a".to_owned(), 20)].into());
    proxy.set_backends(vec![b.backend()]);
    assert_eq!(answers(&proxy, 20).await, [("b".to_owned(), 20)].into());
    assert_eq!((a.requests(), b.requests()), (20, 20));
}

#[tokio::test]
async fn connections_to_a_replica_are_reused() {
    let proxy = proxy_with(ProtocolHint::Http, |l| l.workers = 1);
    let a = Replica::named("a").await;
    proxy.set_backends(vec![a.backend()]);
    answers(&proxy, 50).await;
    assert_eq!(a.connections(), 1);
}

#[tokio::test]
async fn a_replica_that_leaves_finishes_what_it_has_and_gets_nothing_new() {
    let proxy = proxy();
    let gate = Arc::new(Notify::new());
    let (leaving, staying) = (gated("leaving", gate.clone()).await, Replica::named("staying").await);
    proxy.set_backends(vec![leaving.backend()]);
    let mut client = Wire::connect(proxy.local_addr()).await;
    client.send("GET /gate HTTP/1.1\r\nHost: x\r\n\r\n").await;
    eventually("the request at the replica", || leaving.requests() == 1).await;

    proxy.set_backends(vec![staying.backend()]);
    assert_eq!(proxy.in_flight("leaving"), 1);
    assert!(proxy.stats().backends["leaving"].leaving);
    assert!(!proxy.drained("leaving", Duration::from_millis(5)).await);
    assert_eq!(answers(&proxy, 30).await, [("staying".to_owned(), 30)].into());

    gate.notify_one();
    assert_eq!(client.response().await.body, "leaving");
    assert!(proxy.drained("leaving", common::PATIENCE).await);
    assert_eq!(client.get("/").await.body, "staying", "the client's connection goes on");
    assert_eq!(leaving.requests(), 1);
}

#[tokio::test]
async fn requests_are_held_until_a_replica_is_ready() {
    let proxy = proxy();
    let a = Replica::named("a").await;
    let mut clients = Vec::new();
    for i in 0..5 {
        let mut client = Wire::connect(proxy.local_addr()).await;
        client.send(format!("POST /{i} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi")).await;
        clients.push(client);
    }
    eventually("all held", || proxy.stats().held == 5).await;
    proxy.set_backends(vec![a.backend()]);
    for client in &mut clients {
        assert_eq!(client.response().await.status, 200);
    }
    assert_eq!((a.requests_with("POST"), proxy.stats().held), (5, 0));
}

#[tokio::test]
async fn holding_is_limited_in_number_and_time() {
    let proxy = proxy_with(ProtocolHint::Detect, |l| {
        l.max_held = 1;
        l.hold_timeout = Duration::from_millis(300);
    });
    let mut first = Wire::connect(proxy.local_addr()).await;
    first.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    eventually("one held", || proxy.stats().held == 1).await;
    let refused = get(&proxy, "/").await;
    assert_eq!((refused.status, refused.field("retry-after")), (503, Some("1".into())));
    assert_eq!(proxy.stats().hold_overflows, 1);
    let late = first.response().await;
    assert_eq!((late.status, late.field("retry-after")), (503, Some("1".into())));
    assert_eq!((proxy.stats().hold_timeouts, proxy.stats().held), (1, 0));
}

#[tokio::test]
async fn a_held_client_that_leaves_gives_its_place_up() {
    let proxy = proxy();
    let mut client = Wire::connect(proxy.local_addr()).await;
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    eventually("one held", || proxy.stats().held == 1).await;
    drop(client);
    eventually("none held", || proxy.stats().held == 0).await;
    let a = Replica::named("a").await;
    proxy.set_backends(vec![a.backend()]);
    assert_eq!(get(&proxy, "/").await.status, 200);
    assert_eq!(a.requests(), 1, "nothing is sent for those who left");
}

#[tokio::test]
async fn a_refused_connection_is_retried_elsewhere_for_any_method() {
    let proxy = proxy();
    let (address, _bound) = dead_address();
    let live = Replica::named("live").await;
    proxy.set_backends(vec![Backend { name: "dead".into(), address }, live.backend()]);
    let mut client = Wire::connect(proxy.local_addr()).await;
    for _ in 0..40 {
        client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi").await;
        assert_eq!(client.response().await.status, 200);
    }
    assert_eq!(live.requests_with("POST"), 40);
    assert!(proxy.stats().retries > 0 && proxy.stats().backends["dead"].connect_failures > 0);
}

#[tokio::test]
async fn who_does_not_listen_yet_is_asked_again() {
    let (address, bound) = dead_address();
    let proxy = proxy();
    proxy.set_backends(vec![Backend { name: "late".into(), address }]);
    let listening = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(bound);
        tokio::net::TcpListener::bind(address).await.unwrap().accept().await.unwrap().0
    });
    let mut client = Wire::connect(proxy.local_addr()).await;
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    within("a connection", listening).await.unwrap();
}

#[tokio::test]
async fn with_every_replica_unreachable_the_answer_is_503() {
    let proxy = proxy();
    let (address, _bound) = dead_address();
    proxy.set_backends(vec![Backend { name: "dead".into(), address }]);
    let mut client = Wire::connect(proxy.local_addr()).await;
    let answer = client.get("/").await;
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains("accepts connections"), "{answer:?}");
    assert_eq!(client.get("/").await.status, 503, "the client's connection goes on");
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n").await;
    let unread = client.response().await;
    assert_eq!((unread.status, unread.field("connection")), (503, Some("close".into())));
}

const POST: &str = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi";

/// A replica that refuses each upload at once and closes a moment later, without having said that it would.
async fn refuses_and_closes_later(status: &'static str) -> Replica {
    Replica::start("a", move |mut wire, _| async move {
        if wire.request().await.is_some() {
            wire.send(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")).await;
            // What comes now stays unread.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

#[tokio::test]
async fn a_refused_upload_does_not_take_the_next_one_with_it() {
    let proxy = proxy_with(ProtocolHint::Http, |l| l.workers = 1);
    let replica = refuses_and_closes_later("503 Service Unavailable").await;
    proxy.set_backends(vec![replica.backend()]);
    let mut client = Wire::connect(proxy.local_addr()).await;
    for _ in 0..30 {
        client.send(POST).await;
        let answer = client.response().await;
        assert_eq!((answer.status, answer.body.as_str()), (503, ""), "the replica's own answer");
    }
    assert_eq!((replica.requests_with("POST"), replica.connections()), (30, 30));
}

#[tokio::test]
async fn what_must_not_be_sent_twice_goes_on_no_connection_that_has_rested() {
    for (reuse_within, connections) in [(Duration::ZERO, 4), (common::PATIENCE, 1)] {
        let proxy = proxy_with(ProtocolHint::Http, |l| {
            l.workers = 1;
            l.reuse_within = reuse_within;
        });
        let replica = Replica::named("a").await;
        proxy.set_backends(vec![replica.backend()]);
        let mut client = Wire::connect(proxy.local_addr()).await;
        for _ in 0..4 {
            client.send(POST).await;
            assert_eq!(client.response().await.status, 200);
            assert_eq!(client.get("/").await.status, 200);
        }
        assert_eq!((replica.requests(), replica.connections()), (8, connections), "{reuse_within:?}");
    }
}

#[tokio::test]
async fn who_closes_new_connections_unread_costs_no_get() {
    let proxy = proxy();
    // As a server does that has as many connections as it wants.
    let full = Replica::start("full", |wire, _| async move { drop(wire) }).await;
    let live = Replica::named("live").await;
    proxy.set_backends(vec![full.backend(), live.backend()]);
    let mut client = Wire::connect(proxy.local_addr()).await;
    for _ in 0..200 {
        assert_eq!(client.get("/").await.status, 200);
    }
    assert!(full.connections() > 0 && proxy.stats().retries > 0);
    assert_eq!(live.requests(), 200);
    // With nobody else it is asked as often as allowed and no more.
    proxy.set_backends(vec![full.backend()]);
    let before = full.connections();
    let answer = client.get("/").await;
    assert_eq!(answer.status, 502, "{answer:?}");
    assert!(full.connections() <= before + 3, "{}", full.connections() - before);
}

/// A server whose queue of connections is full.
fn busy() -> (std::net::TcpListener, Vec<std::net::TcpStream>) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&common::loopback().into()).unwrap();
    socket.listen(0).unwrap();
    let listener = std::net::TcpListener::from(socket);
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(100)) {
        waiting.push(stream);
        assert!(waiting.len() < 1_000, "it takes everybody");
    }
    (listener, waiting)
}

#[tokio::test]
async fn who_is_too_busy_to_take_a_connection_is_asked_until_it_does() {
    let (listener, waiting) = busy();
    let backend = Backend { name: "busy".into(), address: listener.local_addr().unwrap() };
    let start = |hold_timeout| {
        let proxy = proxy_with(ProtocolHint::Http, |l| {
            l.connect_timeout = Duration::from_millis(50);
            l.listen_timeout = Duration::ZERO;
            l.hold_timeout = hold_timeout;
        });
        proxy.set_backends(vec![backend.clone()]);
        proxy
    };
    let impatient = start(Duration::from_millis(200));
    let mut client = Wire::connect(impatient.local_addr()).await;
    client.send(POST).await;
    let refused = client.response().await;
    assert_eq!((refused.status, refused.field("retry-after")), (503, Some("1".into())));

    let patient = start(common::PATIENCE);
    let mut client = Wire::connect(patient.local_addr()).await;
    client.send(POST).await;
    eventually("tries in vain", || patient.stats().backends["busy"].connect_failures > 4).await;
    drop(waiting);
    listener.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let mut wire = Wire::new(stream, Arc::default());
            tokio::spawn(async move {
                if let Some(head) = wire.request().await {
                    wire.drain_body(&head).await;
                    wire.answer("at last").await;
                }
            });
        }
    });
    assert_eq!(client.response().await.body, "at last");
}

/// Answers the first request of each connection and closes without an answer upon the second.
async fn closes_upon_the_second(name: &str) -> Replica {
    Replica::start(name, |mut wire, _| async move {
        if let Some(head) = wire.request().await {
            wire.drain_body(&head).await;
            wire.answer("first").await;
            wire.request().await;
        }
    })
    .await
}

#[tokio::test]
async fn a_reused_connection_that_closes_is_retried_only_where_that_is_safe() {
    let proxy = proxy_with(ProtocolHint::Http, |l| l.workers = 1);
    let replica = closes_upon_the_second("a").await;
    proxy.set_backends(vec![replica.backend()]);
    let mut client = Wire::connect(proxy.local_addr()).await;
    assert_eq!(client.get("/").await.status, 200);
    assert_eq!(client.get("/").await.status, 200, "sent on the used connection, then on a new one");
    assert_eq!((replica.requests(), proxy.stats().retries), (3, 1));

    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi").await;
    let answer = client.response().await;
    assert_eq!(answer.status, 502);
    assert!(answer.body.contains("without an answer"), "{answer:?}");
    assert_eq!(replica.requests_with("POST"), 1, "a POST is never sent twice");
    assert_eq!(proxy.stats().retries, 1);

    assert_eq!(client.get("/").await.status, 200);
    client.send("PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi").await;
    assert_eq!(client.response().await.status, 502, "its body is gone");
    assert_eq!(replica.requests_with("PUT"), 1);
}

#[tokio::test]
async fn a_connection_closed_while_idle_costs_a_post_nothing() {
    let proxy = proxy_with(ProtocolHint::Http, |l| l.workers = 1);
    let closed = Arc::new(Notify::new());
    let replica = Replica::start("a", {
        let closed = closed.clone();
        move |mut wire, _| {
            let closed = closed.clone();
            async move {
                if let Some(head) = wire.request().await {
                    wire.drain_body(&head).await;
                    wire.answer("ok").await;
                }
                drop(wire);
                closed.notify_one();
            }
        }
    })
    .await;
    proxy.set_backends(vec![replica.backend()]);
    let mut client = Wire::connect(proxy.local_addr()).await;
    for _ in 0..20 {
        client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi").await;
        assert_eq!(client.response().await.status, 200);
        within("the replica's close", closed.notified()).await;
    }
    assert_eq!(replica.requests_with("POST"), 20);
}

#[tokio::test]
async fn shutdown_lets_requests_finish_and_frees_the_port() {
    let proxy = proxy();
    let gate = Arc::new(Notify::new());
    let replica = gated("a", gate.clone()).await;
    proxy.set_backends(vec![replica.backend()]);
    let address = proxy.local_addr();
    let mut idle = Wire::connect(address).await;
    assert_eq!(idle.get("/").await.status, 200);
    let mut busy = Wire::connect(address).await;
    busy.send("GET /gate HTTP/1.1\r\nHost: x\r\n\r\n").await;
    eventually("the request at the replica", || replica.requests_with("GET /gate") == 1).await;
    let down = tokio::spawn(proxy.shutdown(common::PATIENCE));
    assert_eq!(idle.rest().await, (Vec::new(), true), "an idle connection is closed at once");
    gate.notify_one();
    assert_eq!(busy.response().await.body, "a");
    within("the end", down).await.unwrap();
    let again = Proxy::bind(ProxyConfig::new(address), None).unwrap();
    assert_eq!(again.local_addr(), address);
}

#[tokio::test]
async fn shutdown_cuts_off_what_outlasts_its_grace() {
    let proxy = proxy();
    let replica = gated("a", Arc::new(Notify::new())).await;
    proxy.set_backends(vec![replica.backend()]);
    let mut busy = Wire::connect(proxy.local_addr()).await;
    busy.send("GET /gate HTTP/1.1\r\nHost: x\r\n\r\n").await;
    eventually("the request at the replica", || replica.requests() == 1).await;
    within("the end", proxy.shutdown(Duration::from_millis(20))).await;
    assert_eq!(busy.rest().await.0, b"");
}

#[tokio::test]
async fn a_taken_port_is_an_error_that_names_who_has_it() {
    let proxy = proxy();
    let error = Proxy::bind(ProxyConfig::new(proxy.local_addr()), None).err().unwrap();
    assert!(matches!(&error, ProxyError::PortTaken { owner: Some(o), .. } if o.contains("pid")), "{error:?}");
    let port = proxy.local_addr().port();
    assert!(error.to_string().starts_with(&format!("port {port} at 127.0.0.1 is already taken by ")));
    assert!(error.hint().unwrap().contains("publish another port"));
}

#[tokio::test]
async fn nothing_is_bound_with_a_limit_that_makes_no_sense() {
    let mut config = ProxyConfig::new(common::loopback());
    config.limits = Limits { workers: 0, ..Limits::default() };
    let error = Proxy::bind(config, None).err().unwrap();
    assert_eq!(error.to_string(), "limit workers must lie between 1 and 64");
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_their_turn() {
    let proxy = proxy_with(ProtocolHint::Detect, |l| l.max_connections = 1);
    let a = Replica::named("a").await;
    proxy.set_backends(vec![a.backend()]);
    let mut first = Wire::connect(proxy.local_addr()).await;
    assert_eq!(first.get("/").await.status, 200);
    let mut second = Wire::connect(proxy.local_addr()).await;
    second.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(first.get("/").await.status, 200);
    assert_eq!((a.requests(), proxy.stats().accepted), (2, 1));
    drop(first);
    assert_eq!(second.response().await.status, 200);
}

#[tokio::test]
async fn the_given_dial_makes_every_socket() {
    use std::sync::atomic::{AtomicUsize, Ordering};
    let dialled = Arc::new(AtomicUsize::new(0));
    let dial: throng_proxy::Dial = Arc::new({
        let dialled = dialled.clone();
        move || {
            dialled.fetch_add(1, Ordering::Relaxed);
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
            socket.set_nonblocking(true)?;
            Ok(socket.into())
        }
    });
    let proxy = Proxy::bind(ProxyConfig::new(common::loopback()), Some(dial)).unwrap();
    let a = Replica::named("a").await;
    proxy.set_backends(vec![a.backend()]);
    assert_eq!(get(&proxy, "/").await.status, 200);
    assert_eq!(dialled.load(Ordering::Relaxed), 1);
}
