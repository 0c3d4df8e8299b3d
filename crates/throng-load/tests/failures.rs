//! What goes wrong is counted once, by its kind, and ends in time.

mod common;

use common::{Reply, Server, closed, ok, run};
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::time::{Duration, Instant};
use throng_load::{Body, LoadSpec, RequestSpec, Requests};

fn errors(kind: &str, count: u64) -> BTreeMap<String, u64> {
    BTreeMap::from([(kind.to_owned(), count)])
}

#[test]
fn wrong_answers_are_told_apart() {
    let long = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc";
    type Replies = [(&'static str, Box<dyn Fn() -> Reply + Send + Sync>); 7];
    let replies: Replies = [
        ("status 500", Box::new(|| common::status(500, ""))),
        (
            "status 502",
            Box::new(|| {
                Reply::Close(b"HTTP/1.1 502 Bad\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".to_vec())
            }),
        ),
        ("truncated", Box::new(move || Reply::Close(long.into()))),
        ("truncated", Box::new(|| Reply::Close(b"HTTP/1.1 20".to_vec()))),
        ("closed", Box::new(|| Reply::Close(Vec::new()))),
        ("reset", Box::new(move || Reply::Reset(long.into()))),
        ("protocol", Box::new(|| Reply::Keep(b"220 smtp.example ESMTP\r\n\r\n".to_vec()))),
    ];
    for (kind, reply) in replies {
        let server = Server::start(move |_| reply());
        let result = run(closed(server.url(), 2, Requests::PerClient(3)));
        assert_eq!(result.errors, errors(kind, 6));
        assert_eq!((result.requests, result.succeeded, result.latency.count), (6, 0, 0), "{kind}");
        assert_eq!(server.served(), 6, "{kind}: nothing is sent twice");
    }
}

#[test]
fn a_refused_connection_is_a_failure_each_time() {
    let address = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port");
    let url = format!("http://{address}/").parse().expect("a URL");
    let result = run(closed(url, 2, Requests::PerClient(5)));
    assert_eq!((result.requests, result.errors), (10, errors("connect", 10)));
    assert!(result.seconds >= 0.04, "a client rests after a refusal");
}

#[test]
fn an_answer_that_does_not_come_ends_with_the_time_limit() {
    let server = Server::start(|request| if request.number.is_multiple_of(2) { Reply::Hang } else { ok("") });
    let timeout = Duration::from_millis(400);
    let begin = Instant::now();
    let result = run(LoadSpec { timeout, ..closed(server.url(), 1, Requests::Total(6)) });
    assert_eq!((result.succeeded, result.errors), (3, errors("timeout", 3)));
    assert!(result.seconds >= 1.2, "{}", result.seconds);
    assert!(begin.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_body_that_trickles_does_not_outlast_the_limit() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}/", listener.local_addr().expect("an address")).parse().expect("a URL");
    std::thread::spawn(move || {
        use std::io::Write;
        for mut stream in listener.incoming().flatten() {
            let mut ok = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n").is_ok();
            while ok {
                std::thread::sleep(Duration::from_millis(5));
                ok = stream.write_all(b"a").is_ok();
            }
        }
    });
    let timeout = Duration::from_millis(200);
    let result = run(LoadSpec { timeout, ..closed(url, 1, Requests::Total(2)) });
    assert_eq!(result.errors, errors("timeout", 2));
}

#[test]
fn an_answer_before_the_body_was_read_counts() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let url = format!("http://{}/", listener.local_addr().expect("an address")).parse().expect("a URL");
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        let mut kept = Vec::new();
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 100]);
            let _ =
                stream.write_all(b"HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
            kept.push(stream);
        }
    });
    let mut spec = closed(url, 1, Requests::Total(3));
    // More than the buffers of a connection hold.
    let body = Body::Bytes(vec![b'x'; 64 << 20].into());
    spec.request = RequestSpec { method: "POST".into(), body, ..RequestSpec::default() };
    let result = run(LoadSpec { timeout: Duration::from_secs(20), ..spec });
    assert_eq!(result.errors, errors("status 413", 3));
}

#[test]
fn a_service_that_dies_and_comes_back_is_loaded_on() {
    let server = Server::start(|request| match request.number {
        10..20 => Reply::Close(Vec::new()),
        _ => ok("abc"),
    });
    let result = run(closed(server.url(), 1, Requests::Total(50)));
    assert_eq!((result.succeeded, result.errors), (40, errors("closed", 10)));
}
