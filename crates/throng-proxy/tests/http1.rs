//! HTTP/1 over real sockets: what is passed on, what is refused, and what a client sees when things break.

#![allow(clippy::unwrap_used)] // In a test a panic is the failure that is wanted.

mod common;

use common::{Replica, Wire, eventually, field, get, proxy, proxy_with, within};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use throng_proxy::{Backend, ProtocolHint, Proxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

/// A proxy in front of one replica that answers every request with `answer` as it is and then closes.
async fn scripted(answer: &'static str) -> (Proxy, Replica) {
    let replica = Replica::start("a", move |mut wire, _| async move {
        if let Some(head) = wire.request().await {
            wire.drain_body(&head).await;
            let _ = wire.stream.write_all(answer.as_bytes()).await;
        }
    })
    .await;
    let proxy = proxy();
    proxy.set_backends(vec![replica.backend()]);
    (proxy, replica)
}

async fn in_front_of(replica: &Replica) -> Proxy {
    let proxy = proxy();
    proxy.set_backends(vec![replica.backend()]);
    proxy
}

#[tokio::test]
async fn what_is_for_one_hop_stays_there_and_the_client_is_named() {
    let replica = Replica::named("a").await;
    let proxy = in_front_of(&replica).await;
    let mut client = Wire::connect(proxy.local_addr()).await;
    client
        .send(
            "GET /x?y HTTP/1.1\r\nHost: shop\r\nConnection: keep-alive, X-Secret\r\nX-Secret: 1\r\n\
             Keep-Alive: 5\r\nProxy-Authorization: p\r\nTE: trailers\r\nX-Forwarded-For: 9.9.9.9\r\nAccept: */*\r\n\r\n",
        )
        .await;
    let answer = client.response().await;
    assert_eq!((answer.status, answer.field("connection")), (200, None));
    let head = replica.last_head();
    assert!(head.starts_with("GET /x?y HTTP/1.1\r\n"), "{head}");
    for (name, value) in [
        ("host", Some("shop")),
        ("accept", Some("*/*")),
        ("x-forwarded-for", Some("9.9.9.9, 127.0.0.1")),
        ("x-forwarded-proto", Some("http")),
        ("x-forwarded-host", Some("shop")),
        ("connection", None),
        ("x-secret", None),
        ("keep-alive", None),
        ("proxy-authorization", None),
        ("te", None),
    ] {
        assert_eq!(field(&head, name).as_deref(), value, "{name}");
    }
}

#[tokio::test]
async fn requests_that_can_be_read_in_two_ways_are_refused() {
    let replica = Replica::named("a").await;
    let proxy = proxy_with(ProtocolHint::Http, |_| ());
    proxy.set_backends(vec![replica.backend()]);
    for (request, status) in [
        (
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3, 3\r\n\r\nabc", 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +3\r\n\r\nabc", 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501),
        (
            "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
        ),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length : 3\r\n\r\nabc", 400),
        ("GET / HTTP/1.1\r\nHost: x\r\n folded: y\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/3.7\r\nHost: x\r\n\r\n", 505),
        ("GET / HTTP/1.1\r\nHost: x\r\nExpect: miracles\r\n\r\n", 417),
        ("CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        ("\u{16}\u{3}\u{1}\r\n\r\n", 400),
    ] {
        let mut client = Wire::connect(proxy.local_addr()).await;
        client.send(request).await;
        let answer = client.response().await;
        assert_eq!(answer.status, status, "{request:?}");
        assert_eq!(answer.field("connection").as_deref(), Some("close"), "{request:?}");
        assert!(answer.body.ends_with(".\n"), "{answer:?}");
        assert_eq!(client.rest().await, (Vec::new(), true), "{request:?}");
    }
    assert_eq!(replica.requests(), 0);
}

#[tokio::test]
async fn heads_are_limited_in_size_fields_and_time() {
    let replica = Replica::named("a").await;
    let proxy = proxy_with(ProtocolHint::Detect, |l| {
        l.max_head = 4096;
        l.head_timeout = Duration::from_millis(200);
    });
    proxy.set_backends(vec![replica.backend()]);
    let large = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "a".repeat(9000));
    let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "a: b\r\n".repeat(200));
    for (request, status) in [(large.as_str(), 431), (&many, 431), ("GET / HTTP/1.1\r\nHost: x\r\n", 408)] {
        let mut client = Wire::connect(proxy.local_addr()).await;
        client.send(request).await;
        assert_eq!(client.response().await.status, status);
        client.rest().await;
    }
    assert_eq!((replica.requests(), proxy.stats().refused), (0, 3));
}

#[tokio::test]
async fn bodies_stream_both_ways_at_once_with_their_trailers() {
    // Sends each chunk back before it reads the next, so nothing may wait for the whole body.
    let replica = Replica::start("a", |mut wire, _| async move {
        while wire.request().await.is_some() {
            wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n").await;
            loop {
                let size = usize::from_str_radix(&wire.line().await, 16).unwrap();
                let data = wire.take(size + 2).await;
                if size == 0 {
                    break;
                }
                wire.send(format!("{size:x}\r\n")).await;
                wire.send(&data).await;
            }
            wire.send("0\r\nX-Sum: 7\r\n\r\n").await;
        }
    })
    .await;
    let proxy = in_front_of(&replica).await;
    let mut client = Wire::connect(proxy.local_addr()).await;
    for _ in 0..3 {
        client.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n").await;
        let head = client.head().await.unwrap();
        assert_eq!(field(&head, "transfer-encoding").as_deref(), Some("chunked"));
        assert_eq!(field(&head, "trailer").as_deref(), Some("X-Sum"));
        for piece in ["5\r\nhello\r\n", "3\r\nyou\r\n"] {
            client.send(piece).await;
            assert_eq!(client.take(piece.len()).await, piece.as_bytes());
        }
        client.send("0\r\n\r\n").await;
        assert_eq!(client.chunks().await, (Vec::new(), "X-Sum: 7\n".into()));
    }
    assert_eq!(replica.connections(), 1, "both sides stay in step");
}

#[tokio::test]
async fn large_bodies_arrive_whole_both_ways() {
    let replica = Replica::start("a", |mut wire, _| async move {
        while let Some(head) = wire.request().await {
            let length: usize = field(&head, "content-length").unwrap().parse().unwrap();
            let body = wire.take(length).await;
            wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n")).await;
            wire.send(&body).await;
        }
    })
    .await;
    let proxy = in_front_of(&replica).await;
    let mut client = Wire::connect(proxy.local_addr()).await;
    let body: Vec<u8> = (0..3_000_017u32).map(|i| (i % 251) as u8).collect();
    for _ in 0..2 {
        client.send(format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len())).await;
        client.send(&body).await;
        assert_eq!(field(&client.head().await.unwrap(), "content-length"), Some(body.len().to_string()));
        assert!(client.take(body.len()).await == body);
    }
}

#[tokio::test]
async fn a_slow_reader_slows_the_replica_down() {
    const ENDLESS: usize = 1 << 30;
    let written = Arc::new(AtomicUsize::new(0));
    let replica = Replica::start("a", {
        let written = written.clone();
        move |mut wire, _| {
            let written = written.clone();
            async move {
                wire.request().await;
                wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {ENDLESS}\r\n\r\n")).await;
                while let Ok(n) = wire.stream.write(&[0; 64 << 10]).await {
                    written.fetch_add(n, Ordering::Relaxed);
                }
            }
        }
    })
    .await;
    let proxy = in_front_of(&replica).await;
    let mut client = Wire::connect(proxy.local_addr()).await;
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    client.head().await.unwrap();
    // What the kernel's buffers on the way hold is taken; then nothing moves until somebody reads.
    let mut before = usize::MAX;
    within("the stand-still", async {
        while before != written.load(Ordering::Relaxed) {
            before = written.load(Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(150)).await;
        }
    })
    .await;
    assert!(before < 64 << 20, "{before} bytes were taken with nobody reading");
    drop(client);
    eventually("the replica's connection closed", || proxy.in_flight("a") == 0).await;
}

#[tokio::test]
async fn interim_answers_come_before_the_body() {
    let replica = Replica::start("a", |mut wire, _| async move {
        let head = wire.request().await.unwrap();
        assert_eq!(field(&head, "expect").as_deref(), Some("100-continue"));
        wire.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").await;
        assert_eq!(wire.take(5).await, b"hello");
        wire.answer("thanks").await;
    })
    .await;
    let proxy = in_front_of(&replica).await;
    let mut client = Wire::connect(proxy.local_addr()).await;
    client.send("POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").await;
    assert!(client.head().await.unwrap().starts_with("HTTP/1.1 100 "));
    assert_eq!(field(&client.head().await.unwrap(), "link").as_deref(), Some("</a>"));
    client.send("hello").await;
    assert_eq!(client.response().await.body, "thanks");
}

#[tokio::test]
async fn an_answer_before_the_whole_body_reaches_the_client() {
    let (proxy, replica) = {
        let replica = Replica::start("a", |mut wire, _| async move {
            wire.request().await;
            wire.send("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig").await;
            wire.rest().await;
        })
        .await;
        (in_front_of(&replica).await, replica)
    };
    let mut client = Wire::connect(proxy.local_addr()).await;
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nabc").await;
    let answer = client.response().await;
    assert_eq!((answer.status, answer.body.as_str()), (413, "big"));
    assert_eq!(client.rest().await, (Vec::new(), true), "the connection is in the middle of a message");
    assert_eq!(replica.requests(), 1);
}

#[tokio::test]
async fn answers_without_a_body_leave_the_connection_usable() {
    let replica = Replica::start("a", |mut wire, _| async move {
        while let Some(head) = wire.request().await {
            let answer = match head.split(' ').next().unwrap() {
                "HEAD" => "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n",
                "PATCH" => "HTTP/1.1 204 No Content\r\n\r\n",
                "OPTIONS" => "HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n",
                _ => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            };
            wire.send(answer).await;
        }
    })
    .await;
    let proxy = in_front_of(&replica).await;
    let mut client = Wire::connect(proxy.local_addr()).await;
    for (method, status, length) in
        [("HEAD", 200, Some("1234")), ("PATCH", 204, None), ("OPTIONS", 304, Some("99"))]
    {
        client.send(format!("{method} / HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        let head = client.head().await.unwrap();
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
        assert_eq!(field(&head, "content-length").as_deref(), length);
        assert_eq!(client.get("/").await.body, "ok", "after {method}");
    }
    assert_eq!((replica.connections(), replica.requests()), (1, 6));
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let replica = Replica::start("a", |mut wire, _| async move {
        while let Some(head) = wire.request().await {
            let path = head.split(' ').nth(1).unwrap().to_owned();
            wire.answer(&path).await;
        }
    })
    .await;
    let proxy = in_front_of(&replica).await;
    let mut client = Wire::connect(proxy.local_addr()).await;
    let requests: String = (0..20).map(|i| format!("GET /{i} HTTP/1.1\r\nHost: x\r\n\r\n")).collect();
    client.send(requests).await;
    for i in 0..20 {
        assert_eq!(client.response().await.body, format!("/{i}"));
    }
}

#[tokio::test]
async fn an_old_client_gets_bare_bytes_and_a_close() {
    let (proxy, replica) =
        scripted("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
            .await;
    let mut client = Wire::connect(proxy.local_addr()).await;
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    let head = client.head().await.unwrap();
    assert_eq!(field(&head, "transfer-encoding"), None);
    assert_eq!(field(&head, "connection").as_deref(), Some("close"));
    assert_eq!(client.rest().await, (b"abcde".to_vec(), true));
    assert!(replica.last_head().starts_with("GET / HTTP/1.1\r\n"));
}

#[tokio::test]
async fn an_old_client_may_keep_its_connection() {
    let replica = Replica::named("a").await;
    let proxy = in_front_of(&replica).await;
    let mut client = Wire::connect(proxy.local_addr()).await;
    for _ in 0..2 {
        client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
        assert_eq!(client.response().await.field("connection").as_deref(), Some("keep-alive"));
    }
    client.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert_eq!(client.response().await.field("connection").as_deref(), Some("close"));
    assert_eq!(client.rest().await, (Vec::new(), true));
}

#[tokio::test]
async fn the_host_in_an_absolute_target_wins() {
    let replica = Replica::named("a").await;
    let proxy = in_front_of(&replica).await;
    let mut client = Wire::connect(proxy.local_addr()).await;
    client.send("GET http://shop:80/a?b HTTP/1.1\r\nHost: other\r\n\r\n").await;
    assert_eq!(client.response().await.status, 200);
    assert!(replica.last_head().starts_with("GET /a?b HTTP/1.1\r\n"));
    assert_eq!(field(&replica.last_head(), "host").as_deref(), Some("shop:80"));
}

#[tokio::test]
async fn an_answer_that_ends_with_its_connection_is_whole() {
    let (proxy, _replica) = scripted("HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nto the end").await;
    let mut client = Wire::connect(proxy.local_addr()).await;
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(field(&client.head().await.unwrap(), "connection").as_deref(), Some("close"));
    assert_eq!(client.rest().await, (b"to the end".to_vec(), true));
}

#[tokio::test]
async fn a_replica_that_dies_before_its_answer_gives_502() {
    for answer in ["", "HTTP/1.1 200 O", "HTTP/1.1 200 OK\r\nContent-Le"] {
        let (proxy, replica) = scripted(answer).await;
        let got = get(&proxy, "/").await;
        assert_eq!(got.status, 502, "{answer:?}");
        assert!(got.body.starts_with("The replica "), "{got:?}");
        assert_eq!(replica.requests(), 1, "not sent again");
    }
}

#[tokio::test]
async fn answers_that_are_not_http_give_502() {
    for answer in [
        "SSH-2.0-OpenSSH\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ] {
        let (proxy, _replica) = scripted(answer).await;
        assert_eq!(get(&proxy, "/").await.status, 502, "{answer:?}");
    }
}

#[tokio::test]
async fn a_replica_killed_within_its_answer_never_looks_like_success() {
    for (version, answer) in [
        ("1.1", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc"),
        ("1.1", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"),
        ("1.1", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n"),
        ("1.0", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"),
        ("1.0", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc"),
    ] {
        let go_on = Arc::new(Notify::new());
        let replica = Replica::start("a", {
            let go_on = go_on.clone();
            move |mut wire, _| {
                let go_on = go_on.clone();
                async move {
                    wire.request().await;
                    wire.send(answer).await;
                    go_on.notified().await;
                }
            }
        })
        .await;
        let proxy = in_front_of(&replica).await;
        let mut client = Wire::connect(proxy.local_addr()).await;
        client.send(format!("GET / HTTP/{version}\r\nHost: x\r\n\r\n")).await;
        assert!(client.head().await.unwrap().starts_with("HTTP/1.1 200 "));
        go_on.notify_one();
        let (_, proper_end) = client.rest().await;
        assert!(!proper_end, "HTTP/{version} {answer:?}");
        assert_eq!(proxy.stats().failed, 1);
        assert_eq!((replica.requests(), proxy.in_flight("a")), (1, 0));
    }
}

#[tokio::test]
async fn an_answer_may_take_any_time_unless_a_limit_says_otherwise() {
    let replica = Replica::start("a", |mut wire, _| async move {
        wire.request().await;
        std::future::pending().await
    })
    .await;
    let proxy = proxy_with(ProtocolHint::Http, |l| l.response_timeout = Some(Duration::from_millis(50)));
    proxy.set_backends(vec![replica.backend()]);
    assert_eq!(get(&proxy, "/").await.status, 504);
    let mut client = Wire::connect(proxy.local_addr()).await;
    client.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n").await;
    client.send("abc").await;
    assert_eq!(client.response().await.status, 504);
    assert_eq!(replica.requests(), 2);
}

#[tokio::test]
async fn a_body_that_stands_still_is_given_up() {
    let replica = Replica::start("a", |mut wire, _| async move {
        wire.request().await;
        std::future::pending().await
    })
    .await;
    let proxy = proxy_with(ProtocolHint::Http, |l| l.body_timeout = Duration::from_millis(150));
    proxy.set_backends(vec![replica.backend()]);
    let mut slow = Wire::connect(proxy.local_addr()).await;
    slow.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\na").await;
    assert_eq!(slow.response().await.status, 408, "the client sends no more");
    let mut fast = Wire::connect(proxy.local_addr()).await;
    fast.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n").await;
    let piece = vec![0; 1 << 20];
    // More than the kernel keeps for a reader that does not read, so that the last of these cannot be sent.
    let (mut read, mut write) = fast.stream.into_split();
    let sending = tokio::spawn(async move { while write.write_all(&piece).await.is_ok() {} });
    let mut answer = Vec::new();
    while !answer.ends_with(b"in time.\n") {
        assert!(within("an answer", read.read_buf(&mut answer)).await.unwrap() > 0);
    }
    assert!(answer.starts_with(b"HTTP/1.1 504 "), "the replica takes no more");
    drop(read);
    within("the end", sending).await.unwrap();
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_request_at_the_replica() {
    let ended = Arc::new(Notify::new());
    let replica = Replica::start("a", {
        let ended = ended.clone();
        move |mut wire, _| {
            let ended = ended.clone();
            async move {
                wire.request().await;
                let _ = wire.stream.read(&mut [0]).await;
                ended.notify_one();
            }
        }
    })
    .await;
    let proxy = in_front_of(&replica).await;
    let mut client = Wire::connect(proxy.local_addr()).await;
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    eventually("the request at the replica", || replica.requests() == 1).await;
    drop(client);
    within("the end of the replica's connection", ended.notified()).await;
    eventually("nothing in flight", || proxy.in_flight("a") == 0).await;
}

#[tokio::test]
async fn an_upgraded_connection_is_a_tunnel() {
    let replica = Replica::start("a", |mut wire, _| async move {
        let head = wire.request().await.unwrap();
        assert_eq!(field(&head, "upgrade").as_deref(), Some("websocket"));
        assert_eq!(field(&head, "connection").as_deref(), Some("upgrade"));
        // The first frame comes along with the head.
        wire.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhi")
            .await;
        loop {
            let data = wire.take(1).await;
            if data.is_empty() {
                return;
            }
            wire.send(&data).await;
        }
    })
    .await;
    let proxy = in_front_of(&replica).await;
    let mut client = Wire::connect(proxy.local_addr()).await;
    client.send("GET /chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nab").await;
    let head = client.head().await.unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    assert_eq!(field(&head, "upgrade").as_deref(), Some("websocket"));
    assert_eq!(client.take(4).await, b"hiab");
    client.send(b"\0\xff").await;
    assert_eq!(client.take(2).await, b"\0\xff");
    assert_eq!(proxy.in_flight("a"), 1, "a tunnel counts until it ends");
    drop(client);
    eventually("the tunnel's end", || proxy.in_flight("a") == 0).await;
}

#[tokio::test]
async fn a_refused_upgrade_stays_http() {
    let replica = Replica::named("a").await;
    let proxy = in_front_of(&replica).await;
    let mut client = Wire::connect(proxy.local_addr()).await;
    client.send("GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
    assert_eq!(client.response().await.status, 200);
    client
        .send("GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n")
        .await;
    assert_eq!(client.response().await.status, 200);
    assert_eq!(field(&replica.last_head(), "upgrade"), None, "h2c by upgrade is not offered");
}

#[tokio::test]
async fn a_replica_killed_under_load_costs_no_get_with_another_one_ready() {
    let proxy = in_front_of(&Replica::named("unused").await).await;
    let (a, b) = (Replica::named("a").await, Replica::named("b").await);
    proxy.set_backends(vec![a.backend(), b.backend()]);
    let mut client = Wire::connect(proxy.local_addr()).await;
    for _ in 0..20 {
        assert_eq!(client.get("/").await.status, 200);
    }
    let backends = vec![Backend { name: "a".into(), address: a.kill().await }, b.backend()];
    for _ in 0..50 {
        let answer = client.get("/").await;
        assert_eq!((answer.status, answer.body.as_str()), (200, "b"));
    }
    proxy.set_backends(backends);
    assert_eq!(client.get("/").await.status, 200);
}
