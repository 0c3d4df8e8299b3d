//! Connections that are not HTTP, and telling which is which.

#![allow(clippy::unwrap_used)] // In a test a panic is the failure that is wanted.

mod common;

use common::{Replica, Wire, dead_address, eventually, proxy, proxy_with, within};
use std::time::Duration;
use throng_proxy::{Backend, ProtocolHint, Proxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Echoes byte for byte, and says goodbye once its client has ended its direction.
async fn echo(name: &str) -> Replica {
    Replica::start(name, |mut wire, _| async move {
        loop {
            let data = wire.take(1).await;
            if data.is_empty() {
                break;
            }
            wire.send(&data).await;
        }
        wire.send("bye").await;
    })
    .await
}

async fn in_front_of(replica: &Replica, protocol: ProtocolHint) -> Proxy {
    let proxy = proxy_with(protocol, |_| ());
    proxy.set_backends(vec![replica.backend()]);
    proxy
}

#[tokio::test]
async fn bytes_go_both_ways_and_each_way_ends_by_itself() {
    let replica = echo("a").await;
    for protocol in [ProtocolHint::Tcp, ProtocolHint::Detect] {
        let proxy = in_front_of(&replica, protocol).await;
        let mut client = Wire::connect(proxy.local_addr()).await;
        for text in ["*1\r\n$4\r\nPING\r\n", "\0\u{1}more"] {
            client.send(text).await;
            assert_eq!(client.take(text.len()).await, text.as_bytes());
        }
        assert_eq!(proxy.in_flight("a"), 1);
        client.stream.shutdown().await.unwrap();
        assert_eq!(client.rest().await, (b"bye".to_vec(), true), "half-closed, not closed");
        eventually("the end", || proxy.in_flight("a") == 0).await;
    }
}

#[tokio::test]
async fn a_server_that_speaks_first_is_heard() {
    let replica = Replica::start("a", |mut wire, _| async move {
        wire.send("220 ready\r\n").await;
        if wire.line().await == "EHLO test" {
            wire.send("250 hello\r\n").await;
        }
    })
    .await;
    let proxy = in_front_of(&replica, ProtocolHint::Detect).await;
    let mut client = Wire::connect(proxy.local_addr()).await;
    assert_eq!(client.line().await, "220 ready");
    client.send("EHLO test\r\n").await;
    assert_eq!(client.line().await, "250 hello");
}

#[tokio::test]
async fn http_after_a_silence_is_still_http() {
    let replica = Replica::named("a").await;
    let proxy = proxy_with(ProtocolHint::Detect, |l| l.detect_timeout = Duration::from_millis(5));
    proxy.set_backends(vec![replica.backend()]);
    let mut client = Wire::connect(proxy.local_addr()).await;
    eventually("the connection ahead of time", || replica.connections() == 1).await;
    client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(client.response().await.status, 200);
    assert!(common::field(&replica.last_head(), "x-forwarded-for").is_some(), "it went through as HTTP");
}

#[tokio::test]
async fn a_line_that_only_looks_like_http_is_not() {
    let replica = echo("a").await;
    let proxy = in_front_of(&replica, ProtocolHint::Detect).await;
    for text in ["GET key\r\n", "GE", "HELO x\r\n"] {
        let mut client = Wire::connect(proxy.local_addr()).await;
        client.send(text).await;
        assert_eq!(client.take(text.len()).await, text.as_bytes());
    }
}

#[tokio::test]
async fn bytes_split_anywhere_are_still_http() {
    let replica = Replica::named("a").await;
    let proxy = proxy_with(ProtocolHint::Detect, |l| l.detect_timeout = Duration::from_secs(10));
    proxy.set_backends(vec![replica.backend()]);
    let mut client = Wire::connect(proxy.local_addr()).await;
    for byte in
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\na: b\r\n\r\n"
    {
        client.send([*byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(client.response().await.status, 200);
}

#[tokio::test]
async fn connections_are_held_until_a_replica_is_ready() {
    let proxy = proxy_with(ProtocolHint::Tcp, |_| ());
    let mut client = Wire::connect(proxy.local_addr()).await;
    client.send("early").await;
    eventually("held", || proxy.stats().held == 1).await;
    let replica = echo("a").await;
    proxy.set_backends(vec![replica.backend()]);
    assert_eq!(client.take(5).await, b"early");
}

#[tokio::test]
async fn a_connection_nobody_can_take_is_reset() {
    let (address, _bound) = dead_address();
    let proxy = proxy_with(ProtocolHint::Tcp, |_| ());
    proxy.set_backends(vec![Backend { name: "dead".into(), address }]);
    // The reset may come before the client has noticed that it is connected.
    if let Ok(mut stream) = TcpStream::connect(proxy.local_addr()).await {
        let mut byte = [0];
        assert!(within("the reset", stream.read(&mut byte)).await.is_err());
    }
    let live = echo("live").await;
    proxy.set_backends(vec![Backend { name: "dead".into(), address }, live.backend()]);
    for _ in 0..20 {
        let mut client = Wire::connect(proxy.local_addr()).await;
        client.send("x").await;
        assert_eq!(client.take(1).await, b"x");
    }
}

#[tokio::test]
async fn a_replica_that_resets_resets_its_client() {
    let replica = Replica::start("a", |mut wire, _| async move {
        wire.take(1).await;
        wire.send("part").await;
        wire.stream.set_zero_linger().unwrap();
    })
    .await;
    let proxy = in_front_of(&replica, ProtocolHint::Tcp).await;
    let mut client = Wire::connect(proxy.local_addr()).await;
    client.send("x").await;
    assert!(!client.rest().await.1, "a broken stream must not look finished");
}

#[tokio::test]
async fn connections_are_spread_and_drained_like_requests() {
    let proxy = proxy();
    let (a, b) = (echo("a").await, echo("b").await);
    proxy.set_backends(vec![a.backend(), b.backend()]);
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = Wire::connect(proxy.local_addr()).await;
        client.send("x").await;
        assert_eq!(client.take(1).await, b"x");
        clients.push(client);
    }
    // Each newcomer goes to the one with fewer connections.
    assert_eq!((proxy.in_flight("a"), proxy.in_flight("b")), (10, 10));
    proxy.set_backends(vec![b.backend()]);
    for client in &mut clients {
        client.send("y").await;
        assert_eq!(client.take(1).await, b"y", "those open go on");
    }
    drop(clients);
    assert!(proxy.drained("a", common::PATIENCE).await);
}
